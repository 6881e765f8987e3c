"""The pages that write themselves, and the links and numbers of those that people wrote."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import tiny

from autograder import exercise as exercises
from autograder import notebooks
from autograder.notebooks import Chapter
from book import pages, records
from workbook.results import MIME

ROOT = tiny.ROOT
CHAPTERS = notebooks.chapters(ROOT)
BY_NAME = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.name)
LINK = re.compile(r"\]\(\.\./chapters/([^/)]+)/\1\.ipynb(?:#([^)\s]+))?\)")


@functools.cache
def slugs_of(name: str) -> set[str]:
    source = notebooks.read_source(Chapter(ROOT, name).source)
    return set(pages.headings(source).values())


# --- the map of exercises --------------------------------------------------------------------


@BY_NAME
def test_each_task_states_the_points_of_its_graded_cell(chapter: Chapter) -> None:
    plan = pages.plan_of(chapter)
    graded = [c for c in notebooks.read_source(chapter.source).cells if notebooks.is_graded(c)]
    expected = {
        f"`{notebooks.component_of(cell)}`": notebooks.mark(cell)["points"]
        for cell in graded
        if notebooks.is_check(cell)
    }
    assert {task.title: task.points for task in plan.exercises} == expected
    by_hand = [notebooks.mark(cell)["points"] for cell in graded if notebooks.is_manual(cell)]
    assert [task.points for task in plan.tasks if not task.difficulty] == by_hand
    assert plan.points == sum(notebooks.mark(cell)["points"] for cell in graded)


@BY_NAME
def test_the_table_at_a_chapters_top_agrees_with_its_exercises(chapter: Chapter) -> None:
    plan = pages.plan_of(chapter)
    text = chapter.source.read_text(encoding="utf-8")
    told = re.search(r"^\| \*\*Time\*\* \| about [^:]+: (.+?) for the exercises", text, re.M)
    assert pages._minutes(told[1]) == plan.working
    assert plan.minutes > plan.working
    points = re.search(r"^\| \*\*Points\*\* \| (\d+):", text, re.M)
    assert int(points[1]) == plan.points


@BY_NAME
def test_anchors_lead_to_headings_of_the_built_page(chapter: Chapter) -> None:
    """MyST turns a heading's anchor into the id of the page; both come from the heading's text."""
    built = ROOT / "_build/html/chapters" / chapter.name / f"{chapter.name}.html"
    if not built.is_file():
        pytest.skip("the book is not built")
    ids = set(re.findall(r'<section id="([^"]+)"', built.read_text(encoding="utf-8")))
    missing = []
    for task in pages.plan_of(chapter).tasks:
        anchor = task.link.split("#")[1]
        if re.sub(r"[^a-z0-9]+", "-", anchor).strip("-") not in ids:
            missing.append(anchor)
    assert not missing


def test_anchors_are_those_of_github() -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# One: `a_b`, *twice*\n\nText.\n\n## Again"),
            nbformat.v4.new_code_cell("# Not a heading"),
            nbformat.v4.new_markdown_cell("## Again\n\n### With $x^2$ in it\n\n#### Too deep"),
            nbformat.v4.new_markdown_cell("```text\n# Not a heading\n```\n\n## Encoder–decoder"),
        ]
    )
    assert pages.headings(notebook) == {
        "One: `a_b`, *twice*": "one-a_b-twice",
        "Again": "again",
        "With $x^2$ in it": "with--in-it",
        "Encoder–decoder": "encoderdecoder",
    }


def test_the_map_lists_every_exercise_once_and_its_links_lead_somewhere() -> None:
    text = pages.exercise_map(ROOT)
    listed = re.findall(
        r"^\| \[<code>(\S+)</code>\]", text.replace("<wbr>", ""), flags=re.MULTILINE
    )
    assert sorted(listed) == sorted(exercise.name for exercise in exercises.every())
    links = LINK.findall(text)
    assert len(links) > len(listed)
    assert not [(name, slug) for name, slug in links if slug and slug not in slugs_of(name)]
    total = sum(
        notebooks.mark(cell)["points"]
        for chapter in CHAPTERS
        for cell in notebooks.read_source(chapter.source).cells
        if notebooks.is_graded(cell)
    )
    assert f"| **{total:g}** |" in text


def test_an_exercise_shows_its_dots_in_words_too() -> None:
    text = pages.exercise_map(ROOT)
    assert re.search(
        r"^\| \[<code>split_<wbr>heads</code>\]\(\S+#exercise-split_heads\) \| "
        r'<span role="img" aria-label="2 of 5">●●○○○</span> \| 15 \| 2 \|$',
        text,
        flags=re.MULTILINE,
    )


def test_a_chapter_without_exercises_is_left_out(tmp_path: Path) -> None:
    course = tiny.course(tmp_path)
    assert pages.plan_of(notebooks.chapters(course)[0]).tasks == ()
    assert "01_twice" not in pages.exercise_map(course)


@pytest.mark.parametrize(
    ("words", "minutes"), [("2 h 45 min", 165), ("3 hours", 180), ("90 minutes", 90)]
)
def test_times_are_read(words: str, minutes: int) -> None:
    assert pages._minutes(words) == minutes


# --- what ran, and what it measured ----------------------------------------------------------


def ran(*facts: dict[str, object]) -> SimpleNamespace:
    outputs = [nbformat.v4.new_output("display_data", {MIME: one}) for one in facts]
    cell = nbformat.v4.new_code_cell("report(...)", outputs=outputs)
    title = nbformat.v4.new_markdown_cell("# Twice")
    return SimpleNamespace(
        chapter=Chapter(ROOT, "01_twice"),
        notebook=nbformat.v4.new_notebook(cells=[title, cell]),
        budget="cpu",
        seconds=12.34,
        finished="2026-01-02 03:04",
    )


def test_the_status_page_has_cells_and_totals() -> None:
    text = pages.status([ran(), ran()])
    row = "| [Twice](../chapters/01_twice/01_twice.ipynb) | 2026-01-02 03:04 | 1 | ✓ 12 s |"
    assert text.count(row) == 2
    assert "| **All** | | **2** | **25 s** |" in text
    assert "Budget: `cpu`." in text


def test_results_stand_beside_published_figures() -> None:
    facts = {
        "name": "loss on x|y, 2 * 3",
        "text": "1.35 nats (1.30 to 1.40, 3 seeds)",
        "published": "1.47, nanoGPT",
        "differs": "another text",
    }
    text = records.results([ran(facts, facts | {"published": "", "differs": ""})])
    measured = r"| loss on x\|y, 2 \* 3 | **1.35 nats (1.30 to 1.40, 3 seeds)** |"
    assert f"{measured} 1.47, nanoGPT<br>*another text* |" in text
    assert f"{measured}  |" in text
    assert "run with the budget `cpu`, finished 2026-01-02 03:04 UTC" in text
    assert "## 1. Twice" in text


def test_a_chapter_that_measured_nothing_is_not_among_the_results() -> None:
    assert "Twice" not in records.results([ran()])


# --- the front page --------------------------------------------------------------------------


def test_the_front_page_is_filled() -> None:
    text = pages.filled((ROOT / "book/index.md").read_text(encoding="utf-8"), ROOT)
    assert "<!--" not in text
    assert '<div class="built">' in text
    assert "of 4 points, not right yet" in text
    assert "The scores are not divided by the square root of d_k." in text
    assert re.search(
        r"^\| \*\*All\*\* \| \*\*\d+\*\* \| \*\*\d+\*\* \| \*\*\d+:\d\d\*\* \|$", text, re.M
    )
    blocks = re.findall(r"^<div.*?(?=\n\n|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert [block.count("<div") - block.count("</div>") for block in blocks] == [0] * 2


def test_a_page_without_markers_stays_as_it_is() -> None:
    text = (ROOT / "book/how-to-use.md").read_text(encoding="utf-8")
    assert pages.filled(text, ROOT) == text


# --- errors that explanations make -----------------------------------------------------------

ERRORS = (ROOT / "book/errors.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", sorted((ROOT / "book").glob("*.md")), ids=lambda p: p.stem)
def test_links_to_chapters_lead_to_headings(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert not [(name, slug) for name, slug in links if slug and slug not in slugs_of(name)]
    assert all(Chapter(ROOT, name).source.is_file() for name, _ in links)


def test_every_error_says_why_what_and_where() -> None:
    errors = re.split(r"^### ", ERRORS, flags=re.MULTILINE)[1:]
    assert len(errors) >= 12
    for error in errors:
        title = error.split("\n")[0]
        assert "**Tempting**, because" in error, title
        assert "**True:**" in error, title
        assert LINK.search(error), title


def test_every_number_in_a_box_is_printed_by_the_chapter_named_below_it() -> None:
    """Against the notebooks as the last build of the book executed them."""
    lost, compared = [], 0
    for error in re.split(r"^### ", ERRORS, flags=re.MULTILINE)[1:]:
        printed = ""
        for name in {name for name, _ in LINK.findall(error)}:
            for path in (ROOT / "_build/executed" / name).glob("*.ipynb"):
                notebook = json.loads(path.read_text(encoding="utf-8"))
                for cell in notebook["cells"]:
                    for output in cell.get("outputs", []):
                        printed += "".join(output.get("text", ""))
        if not printed:
            continue
        for box in re.findall(r"^```text\n(.*?)^```", error, flags=re.MULTILINE | re.DOTALL):
            compared += 1
            lost += [line for line in box.splitlines() if line not in printed]
    if not compared:
        pytest.skip("the chapters have not been executed")
    assert not lost


def test_citations_are_in_the_bibliography() -> None:
    known = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "book/references.bib").read_text(), re.M))
    assert set(re.findall(r"\{cite\}`(\w+)`", ERRORS)) <= known


def test_the_glossary_is_in_order_and_says_each_term_once() -> None:
    body = (ROOT / "book/glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^(?![ `#])(\S.*)$", body, flags=re.MULTILINE)
    words = [
        re.sub(r"[^a-z ]", "", re.sub("[-–]", " ", term.lower()))
        for term in terms
        if not term.startswith("$")
    ]
    assert words == sorted(words)
    assert len(words) == len(set(words))
