"""Opening a chapter elsewhere: every address is well formed and leads to a notebook of the tree."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import pytest
import tiny
import yaml
from packaging.utils import canonicalize_name

from autograder import notebooks
from book import browser as browsers
from book import launch
from workbook import complete

ROOT = tiny.ROOT
REPOSITORY = launch.Repository.of(ROOT / "_config.yml")
CHAPTERS = [chapter.name for chapter in notebooks.chapters(ROOT)]
OWNER, NAME = REPOSITORY.path.split("/")
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()


def split(url: str) -> SplitResult:
    """The parts of an absolute https address."""
    parts = urlsplit(url)
    assert parts.scheme == "https"
    assert parts.netloc
    assert not re.search(r"[\s<>\"]", url)
    return parts


def query(parts: SplitResult) -> dict[str, str]:
    """Its query, each name once."""
    found = parse_qs(parts.query, strict_parsing=True)
    assert all(len(values) == 1 for values in found.values())
    return {name: values[0] for name, values in found.items()}


def is_learners(path: str, chapter: str) -> None:
    """The path is that of the released notebook: there, without outputs, without solutions."""
    assert PurePosixPath(path) == PurePosixPath("chapters", chapter, f"{chapter}.ipynb")
    book = json.loads((ROOT / path).read_text(encoding="utf-8"))
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert code
    assert not any(cell["outputs"] for cell in code)
    assert "NotImplementedError" in json.dumps(code)
    assert "BEGIN SOLUTION" not in json.dumps(code)


# ---- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_colab_opens_the_learners_notebook(chapter: str) -> None:
    parts = split(launch.colab(REPOSITORY, chapter))
    assert parts.netloc == "colab.research.google.com"
    assert not parts.query
    kind, owner, name, blob, branch, *path = unquote(parts.path).strip("/").split("/")
    assert (kind, owner, name, blob) == ("github", OWNER, NAME, "blob")
    assert branch == REPOSITORY.branch
    is_learners("/".join(path), chapter)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_binder_opens_the_learners_notebook(chapter: str) -> None:
    parts = split(launch.binder(REPOSITORY, chapter))
    assert parts.netloc == "mybinder.org"
    assert [unquote(part) for part in parts.path.strip("/").split("/")] == [
        *("v2", "gh", OWNER, NAME, REPOSITORY.branch)
    ]
    opened = query(parts)
    assert set(opened) == {"urlpath"}
    assert opened["urlpath"].startswith("lab/tree/")
    is_learners(opened["urlpath"].removeprefix("lab/tree/"), chapter)


@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.parametrize("hub", ["https://hub.example.edu", "https://example.edu/jupyter/"])
def test_a_jupyterhub_pulls_the_repository_and_opens_the_notebook(hub: str, chapter: str) -> None:
    parts = split(launch.jupyterhub(hub, REPOSITORY, chapter))
    base = urlsplit(hub)
    assert parts.netloc == base.netloc
    assert parts.path == f"{base.path.rstrip('/')}/hub/user-redirect/git-pull"
    asked = query(parts)
    assert set(asked) == {"repo", "branch", "urlpath"}
    assert (asked["repo"], asked["branch"]) == (REPOSITORY.url, REPOSITORY.branch)
    # nbgitpuller clones into a folder with the repository's name.
    assert asked["urlpath"].startswith(f"lab/tree/{NAME}/")
    is_learners(asked["urlpath"].removeprefix(f"lab/tree/{NAME}/"), chapter)


def test_a_branch_with_a_slash_stays_one_part_where_binder_needs_that() -> None:
    repository = launch.Repository(REPOSITORY.url, "next/term")
    path = split(launch.binder(repository, CHAPTERS[0])).path
    assert path.strip("/").split("/")[2:] == [OWNER, NAME, "next%2Fterm"]
    asked = query(split(launch.jupyterhub("https://hub.example.edu", repository, CHAPTERS[0])))
    assert asked["branch"] == "next/term"


def test_only_a_repository_on_github_is_taken(tmp_path: Path) -> None:
    config = tmp_path / "_config.yml"
    config.write_text("repository: {url: https://example.org/a/b, branch: main}\n")
    with pytest.raises(ValueError, match=r"https://github\.com/owner/name is needed"):
        launch.Repository.of(config)


# ---- buttons ---------------------------------------------------------------------------------


def flat(groups: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    assert all(group["type"] == "group" for group in groups)
    return {one["label"]: one for group in groups for one in group["buttons"]}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_buttons_of_a_chapter_lead_to_its_notebook(chapter: str) -> None:
    page = f"chapters/{chapter}/{chapter}"
    groups = launch.buttons(page, REPOSITORY)
    assert [group["label"] for group in groups] == ["launch-buttons", "download-buttons"]
    found = flat(groups)
    assert found["launch-colab-button"]["url"] == launch.colab(REPOSITORY, chapter)
    assert found["launch-binder-button"]["url"] == launch.binder(REPOSITORY, chapter)

    # What is relative is taken from the page, as a browser does.
    here = PurePosixPath(page).parent
    file = os.path.normpath(here / found["download-notebook-button"]["url"])
    is_learners(file, chapter)

    parts = urlsplit(found["launch-jupyterhub-button"]["url"])
    assert query(parts) == {"chapter": chapter}
    target = Path(os.path.normpath(here / parts.path)).with_suffix(".md")
    text = (ROOT / target).read_text(encoding="utf-8")
    assert f"({parts.fragment})=\n" in text
    assert launch.HUB_MARK in text[text.index(f"({parts.fragment})=") :]


def test_the_theme_can_show_every_button() -> None:
    from sphinx_book_theme import header_buttons

    theme = Path(header_buttons.__file__).parent.parent / "theme" / "sphinx_book_theme"
    macros = (theme / "macros" / "buttons.html").read_text(encoding="utf-8")
    signatures = {
        "link": re.search(r"macro render_link_button\(([^)]*)\)", macros)[1],
        "javascript": re.search(r"macro render_js_button\(([^)]*)\)", macros)[1],
    }
    for button in flat(
        launch.buttons(f"chapters/{CHAPTERS[0]}/{CHAPTERS[0]}", REPOSITORY)
    ).values():
        taken = {part.split("=")[0].strip() for part in signatures[button["type"]].split(",")}
        assert set(button) - {"type"} <= taken
        assert button["text"]
        if button["icon"].startswith("_static/"):
            assert (theme / "static" / button["icon"].removeprefix("_static/")).is_file()


def test_a_page_that_is_no_chapter_has_nothing_to_launch() -> None:
    for page in ("book/index", "book/how-to-use", "genindex", "chapters/01_a/02_b"):
        assert launch.chapter_of(page) is None
        [group] = launch.buttons(page, REPOSITORY)
        assert list(flat([group])) == ["download-pdf-button"]


# ---- the reader's own hub --------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A page with the element, laid out as the book is, on a local address."""
    (tmp_path / "book").mkdir()
    (tmp_path / "_static").mkdir()
    script = (ROOT / "book/_static/hub.js").read_text(encoding="utf-8")
    (tmp_path / "_static/hub.js").write_text(script, encoding="utf-8")
    titles = [(name, f"Title of {name}") for name in CHAPTERS]
    body = launch.with_hub(f"<h1>Hub</h1>{launch.HUB_MARK}", REPOSITORY, titles)
    (tmp_path / "book/how-to-use.html").write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Hub</title>'
        '<meta name="viewport" content="width=device-width">'
        "<style>:root{color-scheme:light dark} body{background:Canvas;color:CanvasText}</style>"
        f"<main>{body}</main></html>",
        encoding="utf-8",
    )
    with browsers.served(tmp_path) as address:
        yield f"{address}/book/how-to-use.html"


def links(page: Any) -> list[tuple[str, str]]:
    shown = page.locator("tw-hub li a:visible")
    return [(one.get_attribute("data-chapter"), one.get_attribute("href")) for one in shown.all()]


@pytest.mark.parametrize(
    ("typed", "hub"),
    [
        ("https://hub.example.edu", "https://hub.example.edu"),
        ("hub.example.edu/", "https://hub.example.edu"),
        ("https://hub.example.edu/hub/home?next=1", "https://hub.example.edu"),
        ("https://example.edu/jupyter/user/ada/lab/tree/x", "https://example.edu/jupyter"),
        ("http://localhost:8000", "http://localhost:8000"),
    ],
)
def test_a_typed_hub_gives_the_links_and_is_remembered(
    browser: Any, site: str, typed: str, hub: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site}?chapter={CHAPTERS[1]}#jupyterhub")
    assert links(page) == []
    page.keyboard.press("Tab")
    page.keyboard.type(typed)
    wanted = [(name, launch.jupyterhub(hub, REPOSITORY, name)) for name in CHAPTERS]
    # The chapter that the reader came from stands first, and is marked.
    assert links(page) == [wanted[1], wanted[0], *wanted[2:]]
    assert page.locator("[aria-current]").get_attribute("data-chapter") == CHAPTERS[1]
    assert hub in page.get_by_role("status").inner_text()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.chapter") == CHAPTERS[1]

    page.goto(site)
    assert page.get_by_label("Address of your JupyterHub").input_value() == typed
    assert links(page) == wanted
    context.close()


@pytest.mark.parametrize("typed", ["hub", "a b", "javascript:alert(1)", "https://"])
def test_what_is_no_address_gives_no_link(browser: Any, site: str, typed: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(site)
    field = page.get_by_label("Address of your JupyterHub")
    field.fill(typed)
    assert links(page) == []
    assert field.get_attribute("aria-invalid") == "true"
    assert "no web address" in page.get_by_role("status").inner_text()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_element_is_accessible_and_fits_a_phone(browser: Any, site: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(color_scheme=scheme, viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(site)
    page.get_by_label("Address of your JupyterHub").fill("https://hub.example.edu")
    found = Axe().run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_without_scripts_the_links_are_there_to_copy(browser: Any, site: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site)
    assert [name for name, _ in links(page)] == CHAPTERS
    assert "hub.example.edu" in page.locator("tw-hub p").inner_text()
    context.close()


# ---- the first cell: Colab, and the lock -----------------------------------------------------

# What Colab has of the libraries that the course states, as googlecolab/backend-info listed them
# on 2026-08-19 (pip-freeze.txt).
COLAB = {
    **{"torch": "2.11.0+cpu", "numpy": "2.1.3", "matplotlib": "3.10.0", "ipython": "7.34.0"},
    **{"ipywidgets": "7.7.1", "safetensors": "0.8.0", "tqdm": "4.67.3", "pooch": "1.9.0"},
    **{"requests": "2.32.4", "filelock": "3.32.3", "tokenizers": "0.22.2"},
    **{"scikit-learn": "1.6.1", "pillow": "11.3.0", "typer": "0.27.1", "rich": "13.9.4"},
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def setup_cells() -> list[str]:
    found = []
    for chapter in notebooks.chapters(ROOT):
        cells = notebooks.read_source(chapter.source).cells
        first = next(cell for cell in cells if cell.cell_type == "code")
        assert "setup" in first.metadata.tags
        found.append(first.source)
    return found


def test_every_chapter_begins_with_the_same_cell() -> None:
    assert len(setup_cells()) == len(CHAPTERS)
    assert len(set(setup_cells())) == 1


def test_the_first_cell_takes_the_course_alone_and_then_the_lock() -> None:
    cell = setup_cells()[0]
    [pip] = re.findall(r"^ +%pip (.*)$", cell, re.MULTILINE)
    assert re.fullmatch(rf'install -q --no-deps "{PROJECT["name"]} @ git\+(\S+)"', pip)
    assert f"git+{REPOSITORY.url}" in pip
    assert PROJECT["urls"]["Repository"] == REPOSITORY.url
    assert PROJECT["name"] == complete.PACKAGE
    assert cell.index("%pip") < cell.index("complete.run()")
    # Where the course is installed, nothing runs.
    plain = cell.replace(f"%pip {pip}", "raise AssertionError")
    exec(compile(plain, "first cell", "exec"), {})


def test_colab_keeps_what_it_has_and_gets_the_rest_from_the_lock() -> None:
    lacking = complete.missing(PROJECT["dependencies"], COLAB)
    assert {one.name for one in lacking} == {"num2words", "sacrebleu"}
    held = complete.constraints(LOCK, COLAB, lacking)
    assert set(held) <= set(LOCK)
    names = {canonicalize_name(line.partition("==")[0]) for line in held}
    assert names >= {"num2words", "docopt", "sacrebleu", "portalocker"}
    assert not names & set(COLAB)


def test_what_is_out_of_range_is_replaced_by_the_locks() -> None:
    old = COLAB | {"torch": "2.10.0+cu128"}
    lacking = complete.missing(PROJECT["dependencies"], old)
    assert "torch" in {one.name for one in lacking}
    [torch] = [line for line in complete.constraints(LOCK, old, lacking) if "torch==" in line]
    assert torch in LOCK


def test_a_coming_version_of_pytorch_is_in_range() -> None:
    have = {"torch": "2.14.0.dev20261101+cu130"}
    assert complete.missing(["torch>=2.11,<3"], have) == []
    assert complete.missing(['torch; extra == "gpu"', 'x; python_version < "3"'], {}) == []


def test_binder_installs_the_whole_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    [pip] = [one["pip"] for one in environment["dependencies"] if isinstance(one, dict)]
    assert "-r requirements.lock" in pip
    assert "-e ." in pip


def wheel(folder: Path, name: str, version: str, *needs: str) -> None:
    """A wheel with nothing in it but what it needs."""
    info = f"{name}-{version}.dist-info"
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in needs)]
    files = {
        "METADATA": "\n".join(["Metadata-Version: 2.1", *lines, ""]),
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file, text in files.items():
            archive.writestr(f"{info}/{file}", text)
        record = [f"{info}/{file},," for file in (*files, "RECORD")]
        archive.writestr(f"{info}/RECORD", "\n".join(record))
    (folder / f"{name}-{version}-py3-none-any.whl").write_bytes(packed.getvalue())


def test_pip_installs_what_is_missing_in_the_locks_versions_and_nothing_else(
    tmp_path: Path,
) -> None:
    wheels, place = tmp_path / "wheels", tmp_path / "machine"
    wheels.mkdir()
    for name, *versions in (
        ("fits", "1.1", "1.5", "1.9"),
        ("absent", "1.0", "1.1"),
        ("deep", "3.0", "3.1"),
        ("old", "0.9", "1.0", "1.1"),
    ):
        for version in versions:
            wheel(wheels, name, version, *(["deep>=3", "fits>=1"] if name == "absent" else []))
    wheel(wheels, "transformer_workbook", "0.1.0", "fits>=1,<2", "absent", "old>=1,<2")
    lock = tmp_path / "requirements.lock"
    lock.write_text("fits==1.9\nabsent==1.0\ndeep==3.0\nold==1.0\n")

    venv.create(place, symlinks=True, with_pip=False)
    # pip and packaging from here, and no library else.
    library = tmp_path / "library"
    library.mkdir()
    for name in ("pip", "packaging"):
        (library / name).symlink_to(Path(sysconfig.get_path("purelib")) / name)
    (library / "workbook").mkdir()
    (library / "workbook/complete.py").symlink_to(ROOT / "workbook/complete.py")
    environment = os.environ | {
        "PYTHONPATH": str(library),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_ROOT_USER_ACTION": "ignore",
    }

    def python(*arguments: str) -> str:
        ran = subprocess.run(
            [place / "bin/python", *arguments],
            env=environment,
            cwd=tmp_path,  # not where the course itself lies
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    course = ["fits==1.5", "old==0.9", "transformer_workbook"]
    python("-m", "pip", "install", "--quiet", "--no-deps", *course)
    run = ["-c", f"from workbook import complete; complete.run({str(lock)!r})"]
    assert python(*run).strip() == "Installed: absent 1.0, deep 3.0, old 1.0"
    assert python(*run) == "", "there is nothing left to install"
    listed = {one["name"]: one["version"] for one in json.loads(
        python("-m", "pip", "list", "--format=json", "--path", *map(str, place.glob("lib/*/site*")))
    )}  # fmt: skip
    assert listed["fits"] == "1.5"


def test_the_lock_is_that_of_the_installed_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Course:
        """The course as pip installs it from git."""

        def __init__(self, source: dict[str, Any] | None) -> None:
            self.source = source
            self.metadata = self

        def get_all(self, name: str) -> list[str]:
            assert name == "Project-URL"
            return [f"Repository, {REPOSITORY.url}"]

        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return json.dumps(self.source) if self.source else None

    for source, commit in (
        ({"url": REPOSITORY.url, "vcs_info": {"vcs": "git", "commit_id": "a" * 40}}, "a" * 40),
        (None, "HEAD"),
    ):
        monkeypatch.setattr(complete.metadata, "distribution", lambda name, s=source: Course(s))
        parts = split(complete.lock_address())
        assert parts.netloc == "raw.githubusercontent.com"
        assert parts.path.strip("/").split("/") == [OWNER, NAME, commit, "requirements.lock"]
    assert sys.version_info >= (3, 11)
