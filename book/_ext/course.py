"""What the pages of this book have beyond Jupyter Book's: the chapters' sources stay plain.

- An italic paragraph after a figure becomes its numbered caption.
- Display equations are numbered, with their symbols below them (``book/symbols/<chapter>.yml``).
- The first mention of a glossary term, and every mention of another chapter, becomes a link.
- Icons come from the SVG files of Font Awesome's package, and only those that a page shows.
- Buttons lead to the learners' notebooks; an explorer's script is loaded where there is one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from docutils import nodes
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinxcontrib import katex

from book import launch

if TYPE_CHECKING:
    from sphinx.application import Sphinx

GLOSSARY = "book/glossary"
# Nothing inside of these is running text.
NO_TEXT = (
    nodes.literal,
    nodes.literal_block,
    nodes.reference,
    nodes.title,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.term,
    nodes.Invisible,
)

# An explorer of workbook.elements begins with its data.
EXPLORER = '><script type="application/json">'
# What the theme and its extensions put on every page, and the part of a page that needs it.
PARTS = {
    # Live code cells, which no page has; twice in a page, their script is an error.
    "thebe": "(?!)",
    "katex": 'class="katex',
    # It would scroll a formula where the keyboard cannot; workbook.css says how they look.
    "katex-math": "(?!)",
    "mystnb": 'class="cell ',
    "sphinx-design": r'class="[^"]*\bsd-',
    "design-tabs": r'class="[^"]*\bsd-tab-set',
    "copybutton": 'class="highlight',
    "clipboard": 'class="highlight',
    "pygments": 'class="highlight',
    "toggle": r'class="[^"]*\b(toggle|admonition[^"]* dropdown)\b',
}


def number_of(docname: str) -> int | None:
    """The number of the chapter that a page is, or None."""
    found = re.match(r"chapters/(\d+)_", docname)
    return int(found[1]) if found else None


# --- captions and equations -----------------------------------------------------------------


class Captions(SphinxTransform):
    """Numbers the figures of a chapter: a caption is the italic paragraph right after one."""

    default_priority = 500

    def apply(self, **_: Any) -> None:
        chapter = number_of(self.env.docname)
        if chapter is None:
            return
        figures = 0
        for paragraph in list(self.document.findall(nodes.paragraph)):
            before = paragraph.previous_sibling() if paragraph.parent else None
            if not (len(paragraph) == 1 and isinstance(paragraph[0], nodes.emphasis)):
                continue
            if not _has_figure(before):
                continue
            figures += 1
            number = nodes.inline("", f"Figure {chapter}.{figures}", classes=["caption-number"])
            paragraph["classes"].append("figure-caption")
            paragraph["ids"].append(f"figure-{chapter}-{figures}")
            paragraph[:] = [number, nodes.Text(" "), *paragraph[0].children]


def _has_figure(node: nodes.Node | None) -> bool:
    """Whether it is a cell with a figure among its outputs, or a figure in the text itself."""
    if isinstance(node, nodes.container) and "cell" in node["classes"]:
        raws = list(node.findall(nodes.raw))
    else:
        raws = [node] if isinstance(node, nodes.raw) else []
    return any(re.search(r"<svg|<img|<tw-", raw.astext()) for raw in raws)


class Equations(SphinxTransform):
    """Numbers the display equations of a chapter, and explains their symbols below them.

    Below and always there, not on hover, which a phone does not have, nor in the margin, which
    holds the page's contents.
    """

    default_priority = 500

    def apply(self, **_: Any) -> None:
        chapter = number_of(self.env.docname)
        if chapter is None:
            return
        table = self._symbols()
        explained: set[tuple[int, str]] = set()
        for place, block in enumerate(list(self.document.findall(nodes.math_block)), start=1):
            label = f"equation-{chapter}-{place}"
            block["label"], block["number"] = label, f"{chapter}.{place}"
            block["ids"] = [label]
            here = id(_section(block))
            found = [s for s in symbols_in(block.astext(), table) if (here, s) not in explained]
            explained.update((here, s) for s in found)
            if found:
                block.parent.insert(block.parent.index(block) + 1, _key(found, table))

    def _symbols(self) -> dict[str, str]:
        name = self.env.docname.split("/")[1]
        path = Path(self.app.srcdir) / "book" / "symbols" / f"{name}.yml"
        if not path.is_file():
            return {}
        self.env.note_dependency(str(path))
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {entry["latex"]: entry["meaning"] for entry in entries}


def symbols_in(latex: str, table: dict[str, str]) -> list[str]:
    """The symbols of the table that stand in a formula, in the table's order.

    The longest match counts: the ``d`` of ``d_k`` is no ``d``.
    """
    # Words inside a formula are no symbols, unless they are one as a whole.
    found = set()
    for symbol in sorted(table, key=len, reverse=True):
        start = r"(?<![A-Za-z\\])" if symbol[0].isalpha() else ""
        end = r"(?![A-Za-z])" if symbol[-1].isalpha() else ""
        pattern = start + re.escape(symbol) + end
        if re.search(pattern, latex):
            found.add(symbol)
            latex = re.sub(pattern, lambda match: " " * len(match[0]), latex)
    return [symbol for symbol in table if symbol in found]


def _section(node: nodes.Node) -> nodes.Node | None:
    while node is not None and not isinstance(node, nodes.section):
        node = node.parent
    return node


def _key(symbols: list[str], table: dict[str, str]) -> nodes.container:
    items = [
        nodes.definition_list_item(
            "",
            nodes.term("", "", nodes.math("", symbol)),
            nodes.definition("", nodes.paragraph("", "", *_with_math(table[symbol]))),
        )
        for symbol in symbols
    ]
    return nodes.container("", nodes.definition_list("", *items), classes=["symbols"])


def _with_math(text: str) -> Iterator[nodes.Node]:
    for place, part in enumerate(text.split("$")):
        if part:
            yield nodes.math("", part) if place % 2 else nodes.Text(part)


class Tables(SphinxTransform):
    """Takes empty header rows away: Markdown wants one, a reader's screen reader does not."""

    default_priority = 500

    def apply(self, **_: Any) -> None:
        for head in list(self.document.findall(nodes.thead)):
            if not head.astext().strip():
                head.parent.remove(head)


# --- links ----------------------------------------------------------------------------------


class Links(SphinxPostTransform):
    """Links the first mention of each glossary term, and mentions of other chapters."""

    default_priority = 15

    def run(self, **_: Any) -> None:
        page = self.env.docname
        own = number_of(page)
        if own is None and page not in ("book/for-instructors", "book/how-to-use"):
            return
        terms = _terms(self.env) if own is not None else {}
        chapters = {number_of(name): name for name in self.env.found_docs if number_of(name)}
        chapters.pop(own, None)
        for text in list(self.document.findall(nodes.Text)):
            if not _is_running(text):
                continue
            parts = list(self._linked(str(text), terms, chapters))
            if any(isinstance(part, nodes.reference) for part in parts):
                text.parent.replace(text, parts)

    def _linked(
        self, text: str, terms: dict[str, tuple[str, str]], chapters: dict[int, str]
    ) -> Iterator[nodes.Node]:
        pattern = r"\b[Cc]hapters?\s\d+(?:(?:,\s|\s(?:and|to|or)\s)\d+)*"
        if terms:
            longest = sorted(terms, key=len, reverse=True)
            # At the beginning of a sentence, too; and "head" is no word of its own in "two-headed".
            words = (f"(?i:{re.escape(term[0])}){re.escape(term[1:])}" for term in longest)
            pattern += rf"|(?<![\w-])(?:{'|'.join(words)})(?:s|es)?(?![\w-])"
        place = 0
        for found in re.finditer(pattern, text):
            links = list(self._links(found[0], terms, chapters))
            if not any(isinstance(link, nodes.reference) for link in links):
                continue
            if found.start() > place:
                yield nodes.Text(text[place : found.start()])
            yield from links
            place = found.end()
        if place < len(text):
            yield nodes.Text(text[place:])

    def _links(
        self, words: str, terms: dict[str, tuple[str, str]], chapters: dict[int, str]
    ) -> Iterator[nodes.Node]:
        if re.search(r"\d$", words):
            # "chapters 4 and 5": one link for each number, the first with the word before it.
            for part in re.split(r"((?:,|\s(?:and|to|or))\s)", words):
                number = re.search(r"\d+$", part)
                name = chapters.get(int(number[0])) if number else None
                title = self.env.titles[name].astext() if name else ""
                yield self._link(part, name, "", title) if name else nodes.Text(part)
            return
        for singular in (words, words.removesuffix("s"), words.removesuffix("es")):
            for term in (singular, singular[0].lower() + singular[1:]):
                if term in terms:
                    anchor, meaning = terms.pop(term)
                    yield self._link(words, GLOSSARY, anchor, meaning, "glossary-term")
                    return
        yield nodes.Text(words)

    def _link(
        self, text: str, page: str, anchor: str, title: str, *classes: str
    ) -> nodes.reference:
        address = self.app.builder.get_relative_uri(self.env.docname, page)
        address += f"#{anchor}" if anchor else ""
        return nodes.reference(
            "", text, internal=True, refuri=address, reftitle=title, classes=list(classes)
        )


def _is_running(text: nodes.Text) -> bool:
    node, in_paragraph = text.parent, False
    while node is not None:
        if isinstance(node, NO_TEXT) or "symbols" in getattr(node, "attributes", {}).get(
            "classes", ()
        ):
            return False
        in_paragraph = in_paragraph or isinstance(node, nodes.paragraph)
        node = node.parent
    return in_paragraph


def _terms(env: Any) -> dict[str, tuple[str, str]]:
    """The glossary's terms in words, each with its anchor and what it means."""
    if GLOSSARY not in env.found_docs:
        return {}
    found = {}
    for item in env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        meaning = " ".join(item[-1].astext().split())
        for term in item.findall(nodes.term):
            words = term.astext()
            if term["ids"] and re.fullmatch(r"[\w–-]+(?: [\w–-]+)*", words):
                found[words] = (term["ids"][0], meaning)
    return found


# --- pages ----------------------------------------------------------------------------------


def complete_page(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Scripts that this page alone needs, and what it says of itself to search engines."""
    body = (context.get("body") or "") + (context.get("toc") or "")
    # First, since below the lists are no longer those that this adds to.
    if EXPLORER in body:
        app.add_js_file("explorers.js", type="module")
    lacking = [name for name, part in PARTS.items() if not re.search(part, body)]
    for kind in ("script_files", "css_files"):
        context[kind] = [
            file for file in context[kind] if not any(name in _written(file) for name in lacking)
        ]
    if "body" in context:
        # What a list holds are items, whatever else they are; a screen reader counts them.
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
    context["site"] = app.config.html_baseurl
    if doctree is not None:
        first = next(
            (p.astext() for p in doctree.findall(nodes.paragraph) if len(p.astext()) > 60), ""
        )
        words = " ".join(first.split())
        context["description"] = words if len(words) <= 200 else words[:197].rsplit(" ", 1)[0] + "…"


def set_buttons(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """The header's buttons lead to the learners' notebook, not to the executed page."""
    ours = launch.buttons(page, launch.Repository.of(Path(app.srcdir) / "_config.yml"))
    labels = {group["label"] for group in ours} | {"launch-buttons", "download-buttons"}
    others = [button for button in context["header_buttons"] if button["label"] not in labels]
    context["header_buttons"] = [*ours, *others]


def _written(asset: Any) -> str:
    return f"{asset.filename} {asset.attributes.get('body', '')}".lower()


def write_icons(app: Sphinx, failure: Exception | None) -> None:
    """One style sheet with the icons that the finished pages name, each as a mask."""
    if failure or app.builder.name != "html":
        return
    pages = Path(app.outdir)
    used = set()
    for path in pages.rglob("*.html"):
        if "_static" not in path.relative_to(pages).parts:
            text = path.read_text(encoding="utf-8")
            for classes in re.findall(r'class="([^"]*\bfa-[^"]*)"', text):
                used.update(re.findall(r"\bfa-([a-z0-9-]+)", classes))
    # book/build.py says where the packages are.
    package = Path(os.environ["BOOK_PACKAGES"]) / "@fortawesome" / "fontawesome-free" / "svgs"
    rules = []
    for name in sorted(used):
        kinds = (package / kind / f"{name}.svg" for kind in ("solid", "regular", "brands"))
        if path := next((path for path in kinds if path.is_file()), None):
            svg = re.sub(r"<!--.*?-->", "", path.read_text(encoding="utf-8"), flags=re.S)
            svg = svg.replace('"', "'").replace("#", "%23").replace("<", "%3C").replace(">", "%3E")
            rules.append(f'.fa-{name}{{--icon:url("data:image/svg+xml,{svg}")}}')
    (pages / "_static" / "icons.css").write_text("\n".join(rules) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this."""
    # Five seconds for node to start are too few on a busy machine, and fail the build.
    katex.STARTUP_TIMEOUT = 120.0
    app.add_transform(Captions)
    app.add_transform(Equations)
    app.add_transform(Tables)
    app.add_post_transform(Links)
    # After the theme, whose buttons it replaces.
    app.connect("html-page-context", complete_page, priority=900)
    app.connect("html-page-context", set_buttons, priority=900)
    app.connect("build-finished", write_icons, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
