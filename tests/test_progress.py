"""The picture of what was built so far: true to the course, and told in words."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from autograder import exercise as exercises
from autograder import notebooks
from workbook import progress

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[1]
MADE = {piece: parts for chapter in progress.COURSE for piece, parts in chapter.pieces.items()}


@pytest.fixture(autouse=True)
def static(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBOOK_STATIC", "1")
    monkeypatch.delenv("WORKBOOK_GRADING", raising=False)


# --- the table is the course -----------------------------------------------------------------


def test_every_exercise_of_the_course_is_a_piece_once() -> None:
    told = [f"{chapter.prefix}/{piece}" for chapter in progress.COURSE for piece in chapter.pieces]
    assert sorted(told) == sorted(exercise.id for exercise in exercises.every())
    assert len(MADE) == len(told), "a piece's name says which piece it is"


def test_numbers_and_titles_are_those_of_the_chapters() -> None:
    sources = {}
    for chapter in notebooks.chapters(ROOT):
        title = notebooks.title_of(notebooks.read_source(chapter.source))
        prefixes = {exercise.id.split("/")[0] for exercise in exercises.load(chapter.name).values()}
        sources[int(chapter.name[:2])] = (prefixes, title)
    assert sources == {c.number: ({c.prefix}, c.title) for c in progress.COURSE}


def uses(path: Path) -> dict[str, set[str]]:
    """Each public definition of a module with the pieces that its code names.

    What the module defines for itself alone counts as part of whoever names it.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    definitions = {
        node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }

    def named(name: str, seen: tuple[str, ...] = ()) -> set[str]:
        found: set[str] = set()
        for node in ast.walk(definitions[name]):
            if not isinstance(node, ast.Name) or node.id in (name, *seen):
                continue
            if node.id in MADE:
                found.add(node.id)
            elif node.id in definitions:
                found |= named(node.id, (*seen, name))
        return found

    return {name: named(name) for name in definitions if name in MADE}


def test_made_of_is_what_the_solutions_use() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "workbook" / "ready").glob("[a-z]*.py")):
        found |= uses(path)
    assert found == {piece: set(parts) for piece, parts in MADE.items()}


def test_nothing_is_made_of_what_comes_later() -> None:
    number = {piece: c.number for c in progress.COURSE for piece in c.pieces}
    assert all(number[part] <= number[piece] for piece in MADE for part in MADE[piece])


# --- the picture -----------------------------------------------------------------------------

PREFIXES = [chapter.prefix for chapter in progress.COURSE]


@pytest.mark.parametrize("prefix", [*PREFIXES, None])
def test_both_layouts_show_every_piece(prefix: str | None) -> None:
    svgs = re.findall(r"<svg.*?</svg>", progress.built(prefix).svg, flags=re.S)
    assert ["wide" in svg[:20] for svg in svgs] == [True, False]
    for svg in svgs:
        text = re.sub(r"<[^>]+>", "", svg)
        # A name in two lines is two texts, one after the other.
        assert not [piece for piece in MADE if piece not in text]
        assert not [
            c.title
            for c in progress.COURSE
            if c.title.replace(" ", "") not in text.replace(" ", "")
        ]


def test_the_wide_layout_has_a_wire_for_each_part() -> None:
    wide = progress.built().svg.split("</svg>")[0]
    heads = re.findall(r"l5 3l-5 3z", wide)
    assert len(heads) == sum(map(len, MADE.values()))


def test_the_words_say_what_is_built_and_of_what() -> None:
    alt = progress.built("gpt").alt
    assert "Chapter 1, Attention, built: softmax, scaled_dot_product_attention, " in alt
    assert "Chapter 6, GPT, this chapter: learn_bpe, " in alt
    assert "GPTBlock (made of causal_mask and MultiHeadAttention)" in alt
    assert "Chapter 7, Vision Transformer, still to come: patchify, " in alt
    assert "yours" not in alt
    assert alt in progress.built("gpt").svg
    assert "Chapter 8, Masked autoencoders, you build: " in progress.built().alt


def test_the_current_chapter_is_marked_and_later_ones_are_dashed() -> None:
    first, middle, last = (progress.built(PREFIXES[i]).svg for i in (0, 3, -1))
    assert first.count("stroke-dasharray") > middle.count("stroke-dasharray") > 0
    assert "stroke-dasharray" not in last
    assert all(progress.ORANGE in svg for svg in (first, middle, last))
    assert progress.ORANGE not in progress.built().svg


def test_in_jupyter_your_own_blocks_have_a_check_mark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("WORKBOOK_STATIC")
    monkeypatch.setenv("WORKBOOK_HOME", str(tmp_path))
    (tmp_path / "my_blocks/attention").mkdir(parents=True)
    (tmp_path / "my_blocks/attention/softmax.py").touch()
    drawing = progress.built("multi_head")
    assert "softmax (yours), scaled_dot_product_attention (ready-made)" in drawing.alt
    assert (
        "MultiHeadAttention (ready-made, made of scaled_dot_product_attention and split_heads and"
        in drawing.alt
    )
    assert "sinusoidal_encoding, " in drawing.alt, "what is still to come is nobody's yet"
    assert len(re.findall(">✓<", drawing.svg)) == 4, "in each layout one piece and the legend"


def test_an_unknown_prefix_is_refused_and_grading_shows_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match="There are: attention, multi_head"):
        progress.built("lstm")
    shown: list[object] = []
    monkeypatch.setattr(progress, "display", shown.append)
    progress.show_built("gpt")
    assert repr(shown).startswith("[[figure] All pieces of the course")
    monkeypatch.setenv("WORKBOOK_GRADING", "1")
    progress.show_built("gpt")
    assert len(shown) == 1


def test_a_course_of_other_length_is_drawn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    before = progress.Chapter(0, "before", "Before attention", {"neuron": ()})
    after = progress.Chapter(9, "after", "Long context", {"Ring": ("MultiHeadAttention", "neuron")})
    monkeypatch.setattr(progress, "COURSE", (before, *progress.COURSE, after))
    assert "Ring (made of MultiHeadAttention and neuron)" in progress.built("after").alt
    assert progress.built("before").svg.count(">neuron<") == 2


# --- in a browser ----------------------------------------------------------------------------

OVERLAPS = """
svg => {
  const frames = [...svg.querySelectorAll("rect[rx='6']")].map(r => r.getBBox());
  const inside = (a, b) => a.x >= b.x && a.y >= b.y && a.x + a.width <= b.x + b.width
    && a.y + a.height <= b.y + b.height;
  const apart = (a, b) => a.x + a.width <= b.x || b.x + b.width <= a.x
    || a.y + a.height <= b.y || b.y + b.height <= a.y;
  let bad = 0;
  for (const [i, a] of frames.entries())
    for (const b of frames.slice(i + 1))
      if (!apart(a, b) && !inside(a, b) && !inside(b, a)) bad += 1;
  return bad;
}
"""
CROSSED = """
svg => {
  const frames = [...svg.querySelectorAll("rect[rx='6']")].map(r => r.getBBox());
  let bad = 0;
  for (const wire of svg.querySelectorAll("g > path[fill=none]"))
    for (let at = 0; at < wire.getTotalLength(); at += 3) {
      const p = wire.getPointAtLength(at);
      if (frames.some(f => p.x > f.x + 1 && p.x < f.x + f.width - 1 && p.y > f.y + 1
          && p.y < f.y + f.height - 1)) bad += 1;
    }
  return bad;
}
"""
SPILLED = """
svg => {
  const box = svg.viewBox.baseVal;
  return [...svg.querySelectorAll("text, rect")].map(e => e.getBBox()).filter(
    b => b.x < 0 || b.x + b.width > box.width || b.y + b.height > box.height).length;
}
"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Callable[..., Page]]:
    pages = []

    def opened(prefix: str | None, theme: str, width: int) -> Page:
        new = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        new.set_content(
            '<!doctype html><html lang="en"><title>Built</title>'
            "<style>:root{color-scheme:light dark}</style>"
            f"<main><h1>Built</h1>{progress.built(prefix)._repr_html_()}</main></html>"
        )
        pages.append(new)
        return new

    yield opened
    for each in pages:
        each.close()


@pytest.mark.parametrize(
    ("prefix", "theme", "width"),
    [
        *itertools.product(["gpt", None], ["light", "dark"], [1000, 390]),
        ("attention", "light", 1000),
        ("transformer", "light", 390),
    ],
)
def test_boxes_and_wires_keep_apart_at_every_width(
    page: Callable[..., Page], prefix: str | None, theme: str, width: int
) -> None:
    here = page(prefix, theme, width)
    seen = [svg for svg in here.query_selector_all("svg") if svg.is_visible()]
    assert [svg.get_attribute("class") for svg in seen] == ["wide" if width == 1000 else "narrow"]
    for wrong in (OVERLAPS, CROSSED, SPILLED):
        assert seen[0].evaluate(wrong) == 0
    assert here.evaluate("document.documentElement.scrollWidth") <= width
    sizes = "svg => Math.min(...[...svg.querySelectorAll('text')].map(t => +t.getAttribute("
    scale = seen[0].bounding_box()["width"] / seen[0].evaluate("svg => svg.viewBox.baseVal.width")
    assert seen[0].evaluate(sizes + "'font-size')))") * scale >= 11
    violations = Axe().run(here).response["violations"]
    assert not [v["id"] for v in violations if v["impact"] in ("serious", "critical")]
