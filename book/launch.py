"""Where a chapter opens: Colab, Binder, a JupyterHub, or the reader's own disk.

Every address leads to the learners' notebook, ``chapters/NN/NN.ipynb``, and never to the executed
page. Nothing here touches a file or the network, but for ``Repository.of``.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

COLAB = "https://colab.research.google.com"
BINDER = "https://mybinder.org"

# The page and section where readers name their JupyterHub, and what the build replaces there.
HUB_PAGE = "book/how-to-use"
HUB_ANCHOR = "jupyterhub"
HUB_MARK = "<!-- the links for a JupyterHub -->"

_CHAPTER = re.compile(r"chapters/(?P<name>\d\d_[a-z0-9_]+)/(?P=name)")


@dataclass(frozen=True)
class Repository:
    """Where the course is published.

    Attributes:
        url: ``https://github.com/owner/name``.
        branch: the one that readers get.
    """

    url: str
    branch: str

    @classmethod
    def of(cls, config: Path | str) -> Repository:
        """The repository that ``_config.yml`` names.

        Raises:
            ValueError: it is not on GitHub, where alone Colab finds notebooks.
        """
        import yaml

        named = yaml.safe_load(Path(config).read_text(encoding="utf-8"))["repository"]
        repository = cls(named["url"].rstrip("/"), named["branch"])
        parts = urlsplit(repository.url)
        if parts.netloc != "github.com" or len(repository.path.split("/")) != 2:
            raise ValueError(
                f"{config}: repository.url is {named['url']}; https://github.com/owner/name is "
                "needed for the buttons that open a chapter."
            )
        return repository

    @property
    def path(self) -> str:
        """``owner/name``"""
        return urlsplit(self.url).path.strip("/")

    @property
    def name(self) -> str:
        """The folder that a clone of it gets."""
        return self.path.rpartition("/")[2]


def notebook(chapter: str) -> str:
    """The learners' notebook of ``01_attention``, from the repository's root."""
    return f"chapters/{chapter}/{chapter}.ipynb"


def chapter_of(page: str) -> str | None:
    """The chapter whose page this is, by Sphinx' name of it; None for any other page."""
    found = _CHAPTER.fullmatch(page)
    return found["name"] if found else None


def colab(repository: Repository, chapter: str) -> str:
    """Opens the notebook from GitHub in Colab."""
    path = quote(f"{repository.path}/blob/{repository.branch}/{notebook(chapter)}")
    return f"{COLAB}/github/{path}"


def binder(repository: Repository, chapter: str) -> str:
    """Starts a machine with the whole repository, set up by its ``environment.yml``."""
    place = f"{quote(repository.path)}/{quote(repository.branch, safe='')}"
    query = urlencode({"urlpath": f"lab/tree/{notebook(chapter)}"})
    return f"{BINDER}/v2/gh/{place}?{query}"


def jupyterhub(hub: str, repository: Repository, chapter: str) -> str:
    """Brings the repository to the reader's folder on a hub, and opens the notebook there.

    Args:
        hub: the hub's address, such as ``https://hub.example.edu``. It needs nbgitpuller, which
            merges what is new and never overwrites what the reader wrote.
        repository: what to bring.
        chapter: what to open.
    """
    query = urlencode(
        {
            "repo": repository.url,
            "branch": repository.branch,
            "urlpath": f"lab/tree/{repository.name}/{notebook(chapter)}",
        },
        quote_via=quote,
        safe="",
    )
    return f"{hub.rstrip('/')}/hub/user-redirect/git-pull?{query}"


def relative(page: str, target: str) -> str:
    """A file of the built site, as a page refers to it."""
    return "../" * page.count("/") + target


def download(page: str, chapter: str) -> str:
    """The released notebook, which the build puts beside the pages at its path in the tree."""
    return relative(page, notebook(chapter))


def hub_page(page: str, chapter: str) -> str:
    """The section where readers name their hub, with this chapter chosen."""
    query = urlencode({"chapter": chapter})
    return f"{relative(page, HUB_PAGE)}.html?{query}#{HUB_ANCHOR}"


def buttons(page: str, repository: Repository) -> list[dict[str, Any]]:
    """The header's two groups for a page, in the form of sphinx-book-theme.

    Args:
        page: Sphinx' name of it, such as ``chapters/01_attention/01_attention``.
        repository: where the course is published.

    Returns:
        Launch and download; for a page that is no chapter, the latter alone, with print in it.
    """
    pdf = {
        "type": "javascript",
        "javascript": "window.print()",
        "text": "Print or save as PDF",
        "icon": "fas fa-file-pdf",
        "label": "download-pdf-button",
    }
    chapter = chapter_of(page)
    if chapter is None:
        return [_group("Download this page", "fas fa-download", "download-buttons", pdf)]
    launch = (
        _link("Colab", colab(repository, chapter), "_static/images/logo_colab.png"),
        _link("Binder", binder(repository, chapter), "_static/images/logo_binder.svg"),
        _link("JupyterHub", hub_page(page, chapter), "_static/images/logo_jupyterhub.svg"),
    )
    file = {
        "type": "link",
        "url": download(page, chapter),
        "text": "Notebook to work in",
        "tooltip": "Download the notebook without outputs and solutions",
        "icon": "fas fa-code",
        "label": "download-notebook-button",
    }
    return [
        _group("Open the notebook and work in it", "fas fa-rocket", "launch-buttons", *launch),
        _group("Download this chapter", "fas fa-download", "download-buttons", file, pdf),
    ]


def _link(name: str, url: str, icon: str) -> dict[str, Any]:
    return {
        "type": "link",
        "url": url,
        "text": name,
        "tooltip": f"Open this chapter's notebook on {name}",
        "icon": icon,
        "label": f"launch-{name.lower()}-button",
    }


def _group(tooltip: str, icon: str, label: str, *members: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "group",
        "tooltip": tooltip,
        "icon": icon,
        "label": label,
        "buttons": [dict(member) for member in members],
    }


def hub_element(repository: Repository, chapters: Iterable[tuple[str, str]]) -> str:
    """The element that makes links for the reader's own hub, for a page in ``book/``.

    Args:
        repository: what the links bring to the hub.
        chapters: name and title of each.
    """
    # Where no script runs, the links stand there with a name to replace.
    items = "\n".join(
        f'<li><a data-chapter="{name}" href="{html.escape(url)}">{html.escape(title)}</a></li>'
        for name, title in chapters
        for url in [jupyterhub("https://hub.example.edu", repository, name)]
    )
    return (
        "<tw-hub>\n<p>In these addresses, put your hub's name in place of "
        f"<code>hub.example.edu</code>.</p>\n<ul>\n{items}\n</ul>\n</tw-hub>\n"
        '<script type="module" src="../_static/hub.js"></script>'
    )


def with_hub(text: str, repository: Repository, chapters: Iterable[tuple[str, str]]) -> str:
    """A page's text with the element in place of :data:`HUB_MARK`."""
    return text.replace(HUB_MARK, hub_element(repository, chapters))
