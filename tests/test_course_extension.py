"""What the pages have beyond Jupyter Book's: captions, numbers, symbols, links, icons."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import pytest
import tiny
import yaml
from bs4 import BeautifulSoup, Tag

from autograder import notebooks
from autograder.notebooks import Chapter
from book import build as book

FIGURE = '<svg role="img" aria-label="A line" width="9" height="9"></svg>'
EXPLORER = (
    '<tw-tiny><script type="application/json">{}</script>'
    '<svg role="img" aria-label="Stands in" width="9" height="9"></svg></tw-tiny>'
)
FIRST = f"""\
{tiny.HEADER}
# Twice

This page has one paragraph that is long enough to say what it is about, chapter 2 included.

```{{code-cell}} ipython3
show("figure")
```

*A line, and $x^2$.*

*This stands after a caption, not after a figure.*

$$d_k = d / h$$

Between them.

$$d_k = 64$$

```{{code-cell}} ipython3
show("nothing")
```

*Its cell shows no figure.*

## Another part

$$\\text{{the }} d \\text{{ of }} d_k, \\max q$$

```{{code-cell}} ipython3
show("figure")
```

*The second one.*

<div><svg role="img" aria-label="In the text" width="9" height="9"></svg></div>

*The third, in the text.*

<div>No figure.</div>

*Below a line of HTML.*

| | |
| --- | --- |
| one | two |

| key | value |
| --- | --- |
| one | two |
"""
SECOND = f"""\
{tiny.HEADER}
# Thrice

Every score here is a number, as a second score shows; several attention weights are, too.
Chapter 1 has it, chapter 2 is this one, and there is no chapter 9.

See chapters 1, 2 and 3, `score in chapter 1`, [the score of chapter 1](../01_twice/01_twice.ipynb)
or chapter 12, and a scoreboard. The weights alone are other weights.

## Heads in chapter 1

```{{code-cell}} ipython3
show("explorer")
```

*Try it.*

$$d_k = 1$$
"""
THIRD = f"{tiny.HEADER}\n# Four times\n\nShort.\n"
GLOSSARY = """\
# Glossary

```{glossary}
score
  One number for a query
  and a key.

attention weight
  A score after the softmax.

weight
  A parameter.

head
  One of several.

$d_k$
  A length.
```
"""
SYMBOLS = """\
- latex: "d_k"
  meaning: "length of a key, $(d_k)$, here"
- latex: "d"
  meaning: "width of the model"
- latex: "q"
  meaning: "a query"
"""
TOC = """\
format: jb-book
root: book/index
parts:
  - numbered: 1
    chapters:
      - glob: chapters/*/*
  - chapters:
      - file: book/glossary
"""
OUTPUTS = {"figure": FIGURE, "explorer": EXPLORER, "nothing": "<b>none</b>"}


@pytest.fixture(scope="module")
def course() -> ModuleType:
    """The extension."""
    path = tiny.ROOT / "book" / "_ext" / "course.py"
    spec = importlib.util.spec_from_file_location("course_extension", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of a small book, built once."""
    root = tiny.course(tmp_path_factory.mktemp("course"), FIRST)
    for name, source in (("02_thrice", SECOND), ("03_four_times", THIRD)):
        place = root / "solutions" / name
        place.mkdir()
        (place / f"{name}.md").write_text(source, encoding="utf-8")
    # What a page offers to download; its text is none of the page's.
    released = Chapter(root, "01_twice").released
    released.parent.mkdir(parents=True)
    released.write_text("{}")
    folder = root / "book"
    for name in ("_static", "_ext", "_templates"):
        shutil.copytree(tiny.ROOT / "book" / name, folder / name)
    (folder / "glossary.md").write_text(GLOSSARY)
    (folder / "symbols").mkdir()
    (folder / "symbols" / "01_twice.yml").write_text(SYMBOLS)
    toc = folder / "_toc.yml"
    toc.write_text(TOC)
    executed = [
        book.Executed(Chapter(root, path.name), _shown(path), "smoke", 1.0, "2026-01-01 00:00")
        for path in sorted((root / "solutions").iterdir())
    ]
    book.stage(root, executed, "public", root / "stage")
    return book.jupyter_book(root / "stage", root / "work", root / "log", lambda line: None)


def _shown(folder: Path) -> nbformat.NotebookNode:
    """A chapter's notebook with what its cells would show."""
    notebook = notebooks.read_source(folder / f"{folder.name}.md")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            content = OUTPUTS[re.search(r'"(\w+)"', cell.source)[1]]
            output = nbformat.v4.new_output("display_data", {"text/html": content})
            cell.outputs, cell.execution_count = [output], 1
    return notebook


@pytest.fixture(scope="module")
def first(site: Path) -> Tag:
    return _article(site, "chapters/01_twice/01_twice.html")


@pytest.fixture(scope="module")
def second(site: Path) -> Tag:
    return _article(site, "chapters/02_thrice/02_thrice.html")


def _article(site: Path, name: str) -> Tag:
    return _page(site, name).select_one("article")


def _page(site: Path, name: str) -> BeautifulSoup:
    return BeautifulSoup((site / name).read_text(encoding="utf-8"), "html.parser")


def _said(tag: Tag) -> str:
    """What a screen reader says: the formulas' MathML, not what is drawn of them."""
    copy = BeautifulSoup(str(tag), "html.parser")
    for part in copy.select(".katex-html, annotation, .headerlink"):
        part.decompose()
    return " ".join(copy.get_text().split())


# --- captions -------------------------------------------------------------------------------


def test_the_italics_after_a_figure_are_its_numbered_caption(first: Tag, second: Tag) -> None:
    captions = {tag["id"]: _said(tag) for tag in first.select("p.figure-caption")}
    assert captions == {
        "figure-1-1": "Figure 1.1 A line, and x2.",
        "figure-1-2": "Figure 1.2 The second one.",
        "figure-1-3": "Figure 1.3 The third, in the text.",
    }
    assert first.select_one("#figure-1-1 .katex"), "a formula in a caption is set"
    assert [_said(tag) for tag in second.select("p.figure-caption")] == ["Figure 2.1 Try it."]


def test_other_italics_stay_italics(first: Tag) -> None:
    assert [_said(tag) for tag in first.select("p > em")] == [
        "This stands after a caption, not after a figure.",
        "Its cell shows no figure.",
        "Below a line of HTML.",
    ]


# --- equations ------------------------------------------------------------------------------


def test_display_equations_are_numbered(first: Tag, second: Tag) -> None:
    numbers = {tag["id"]: _said(tag.select_one(".eqno")) for tag in first.select("div.math")}
    assert numbers == {f"equation-1-{n}": f"(1.{n})" for n in (1, 2, 3)}
    assert [tag["id"] for tag in second.select("div.math")] == ["equation-2-1"]


def test_symbols_stand_below_the_equation_that_first_has_them(first: Tag, second: Tag) -> None:
    keys = first.select(".symbols")
    length, width = ("dk", "length of a key, (dk), here"), ("d", "width of the model")
    explained = [
        [(_said(term), _said(term.find_next("dd"))) for term in key.select("dt")] for key in keys
    ]
    assert explained == [[length, width], [length, width, ("q", "a query")]]
    above = [key.find_previous_sibling("div")["id"] for key in keys]
    assert above == ["equation-1-1", "equation-1-3"]
    assert not second.select(".symbols"), "its chapter explains none"


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        ("d_k", ["d_k"]),
        ("d / d_k", ["d", "d_k"]),
        ("d_{k}", ["d"]),
        (r"\text{bad} + \delta", []),
        (r"\mathrm{softmax}(s)_j", [r"\mathrm{softmax}"]),
        (r"\alpha d", ["d", r"\alpha"]),
        (r"\alphabet", []),
        ("2d", ["d"]),
        ("x^d_i", ["d"]),
        ("", []),
    ],
)
def test_the_longest_symbol_counts(course: ModuleType, latex: str, expected: list[str]) -> None:
    table = dict.fromkeys(["d", "d_k", "a", r"\alpha", r"\mathrm{softmax}"], "meaning")
    assert course.symbols_in(latex, table) == expected


def test_every_symbol_of_the_book_is_in_an_equation_of_its_chapter(course: ModuleType) -> None:
    folder = tiny.ROOT / "book" / "symbols"
    for path in sorted(folder.glob("*.yml")):
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        table = {entry["latex"]: entry["meaning"] for entry in entries}
        assert len(table) == len(entries), f"{path.name} has a symbol twice"
        source = notebooks.read_source(Chapter(tiny.ROOT, path.stem).source)
        text = "\n".join(cell.source for cell in source.cells if cell.cell_type == "markdown")
        found = {
            symbol
            for equation in re.findall(r"\$\$(.+?)\$\$", text, flags=re.S)
            for symbol in course.symbols_in(equation, table)
        }
        assert not [symbol for symbol in table if symbol not in found], path.name


@pytest.mark.parametrize(
    ("page", "number"),
    [
        ("chapters/07_vit/07_vit", 7),
        ("chapters/12_more/12_more", 12),
        ("book/index", None),
        ("book/chapters/01_x", None),
    ],
)
def test_the_number_of_a_chapter(course: ModuleType, page: str, number: int | None) -> None:
    assert course.number_of(page) == number


# --- tables ---------------------------------------------------------------------------------


def test_an_empty_head_of_a_table_is_gone(first: Tag) -> None:
    heads = [table.select("th") for table in first.select("table")]
    assert [len(head) for head in heads] == [0, 2]


# --- links ----------------------------------------------------------------------------------


def test_the_first_mention_of_a_term_is_a_link_to_its_meaning(second: Tag) -> None:
    links = second.select("a.glossary-term")
    assert {link.get_text(): link["href"] for link in links} == {
        "score": "../../book/glossary.html#term-score",
        "attention weights": "../../book/glossary.html#term-attention-weight",
        "weights": "../../book/glossary.html#term-weight",
    }
    assert len(links) == 3, "once on a page; nothing in code, headings, links or parts of words"
    assert links[0]["title"] == "One number for a query and a key."


def test_the_links_lead_to_the_glossary(site: Path, second: Tag) -> None:
    known = {tag["id"] for tag in _article(site, "book/glossary.html").select("[id]")}
    assert {link["href"].split("#")[1] for link in second.select("a.glossary-term")} <= known


def test_the_glossary_does_not_link_itself(site: Path) -> None:
    assert not _article(site, "book/glossary.html").select("a.glossary-term")


def test_other_chapters_are_links(second: Tag) -> None:
    links = [
        (link.get_text(), link["href"], link.get("title"))
        for link in second.select("p a.reference")
        if "glossary-term" not in link["class"]
    ]
    one, three = "../01_twice/01_twice.html", "../03_four_times/03_four_times.html"
    # Its own chapter, those that are not there, and code are none; a link stays the one it is.
    assert links == [
        ("Chapter 1", one, "Twice"),
        ("chapters 1", one, "Twice"),
        ("3", three, "Four times"),
        ("the score of chapter 1", one, None),
    ]
    assert "See chapters 1, 2 and 3," in _said(second)
    assert not second.select("h2 a.reference")


def test_the_first_chapter_links_the_second(first: Tag) -> None:
    assert [link.get_text() for link in first.select("p a.reference")] == ["chapter 2"]


# --- pages ----------------------------------------------------------------------------------


def test_an_explorers_script_is_where_one_is(site: Path) -> None:
    with_it = {
        path.name
        for path in site.rglob("*.html")
        if "_static" not in path.parts
        and _page(site, path.relative_to(site)).select('script[src*="explorers.js"]')
    }
    assert with_it == {"02_thrice.html"}


def test_no_page_loads_what_live_code_cells_need(site: Path) -> None:
    for path in site.rglob("*.html"):
        if "_static" not in path.parts:
            loaded = _page(site, path.relative_to(site)).select("script[src], link[href]")
            assert not [tag for tag in loaded if "thebe" in str(tag).lower()], path.name


def test_pages_describe_themselves(site: Path) -> None:
    page = _page(site, "chapters/01_twice/01_twice.html")
    expected = (
        "This page has one paragraph that is long enough to say what it is about, "
        "chapter 2 included."
    )
    assert page.select_one('meta[name="description"]')["content"] == expected
    assert page.select_one('meta[property="og:description"]')["content"] == expected
    short = _page(site, "chapters/03_four_times/03_four_times.html")
    assert not short.select('meta[name="description"]')


def test_the_icons_of_the_pages_are_there(site: Path) -> None:
    style = (site / "_static" / "icons.css").read_text(encoding="utf-8")
    page = _page(site, "chapters/01_twice/01_twice.html")
    shown = {name for tag in page.select('[class*="fa-"]') for name in tag["class"]}
    shown -= {"fa-solid", "fa-regular", "fa-brands", "fa-lg", "fa-fw"}
    shapes = {name for name in shown if name.startswith("fa-")}
    assert len(shapes) >= 5
    assert not [name for name in shapes if f".{name}{{--icon:url(" not in style]


def test_only_icons_that_are_named_are_written(
    course: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packages" / "@fortawesome" / "fontawesome-free" / "svgs"
    for kind, name in (("solid", "sun"), ("solid", "moon"), ("brands", "github")):
        (package / kind).mkdir(parents=True, exist_ok=True)
        svg = '<svg viewBox="0 0 1 1"><!-- a\nlicense --><path fill="#fff"/></svg>'
        (package / kind / f"{name}.svg").write_text(svg)
    pages = tmp_path / "pages"
    (pages / "_static").mkdir(parents=True)
    (pages / "page.html").write_text('<i class="fa-solid fa-sun fa-lg"></i><i class="fa-unknown">')
    (pages / "_static" / "template.html").write_text('<i class="fa-solid fa-moon"></i>')
    (pages / "more").mkdir()
    (pages / "more" / "page.html").write_text('<a class="x fa-brands fa-github">')
    monkeypatch.setenv("BOOK_PACKAGES", str(tmp_path / "packages"))
    app = SimpleNamespace(builder=SimpleNamespace(name="html"), outdir=str(pages))
    course.write_icons(app, RuntimeError())
    assert not (pages / "_static" / "icons.css").exists()
    course.write_icons(app, None)
    rules = (pages / "_static" / "icons.css").read_text().splitlines()
    assert [rule.split("{")[0] for rule in rules] == [".fa-github", ".fa-sun"]
    assert "license" not in rules[0]
    assert not re.search(r'[<>#"]', re.sub(r'url\("|"\)', "", rules[0]))
