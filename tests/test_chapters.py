"""Every chapter, as a class meets it: solved, untouched, and in what its page promises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT, SECRET, fresh_pack
from nbformat import NotebookNode

from autograder import exercise as exercises
from autograder import notebooks, record, sample
from autograder.assignment import Assignment, load_course
from autograder.engine import ForkEngine
from autograder.marking import Graded, grade_notebook

CHAPTERS = [chapter.name for chapter in notebooks.chapters(ROOT)]


@pytest.fixture(scope="module")
def engine() -> Iterator[ForkEngine]:
    with ForkEngine() as engine:
        yield engine


@pytest.fixture(scope="module", params=CHAPTERS)
def chapter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Assignment:
    """A chapter as it is graded, with a private pack: hidden cases included."""
    place: Path = tmp_path_factory.mktemp("chapter")
    pack = place / "private.safetensors"
    record.write(fresh_pack(request.param, SECRET), pack)
    return load_course(ROOT, request.param, place, pack)


def handed_in(chapter: Assignment, finished: bool) -> NotebookNode:
    student = sample.Student("ada", "", finished=finished)
    return sample.submission_of(student, chapter.notebook, chapter.release)


def left_out(graded: Graded) -> list[str]:
    """The cells that say that they were not run."""
    return [
        cell.source
        for cell in graded.notebook.cells
        if any("Not run while grading" in str(out.get("text")) for out in cell.get("outputs", ()))
    ]


def test_solved_notebook_gets_every_point_and_trains_nothing(
    chapter: Assignment, engine: ForkEngine
) -> None:
    book = handed_in(chapter, finished=True)
    graded = grade_notebook(book, chapter, engine)
    assert {v.exercise: v.message for v in graded.verdicts if v.status != "passed"} == {}
    training = [c.source for c in book.cells if c.cell_type == "code" and "train(" in c.source]
    assert training
    assert set(training) <= set(left_out(graded))


def test_untouched_notebook_gets_nothing_and_is_told_so(
    chapter: Assignment, engine: ForkEngine
) -> None:
    graded = grade_notebook(handed_in(chapter, finished=False), chapter, engine)
    assert {verdict.points for verdict in graded.verdicts} == {0}
    for verdict in graded.verdicts:
        assert "not written yet" in verdict.message, verdict.text()


@pytest.mark.parametrize("name", CHAPTERS)
def test_points_of_exercises_cells_and_text_agree(name: str) -> None:
    (chapter,) = notebooks.chapters(ROOT, [name])
    book = notebooks.read_source(chapter.source)
    known = exercises.load(name)
    marks = {}
    for position, cell in enumerate(book.cells):
        if not notebooks.mark(cell).get("grade"):
            continue
        exercise = notebooks.exercise_of(cell)
        marks[exercise or notebooks.grade_id(cell)] = notebooks.mark(cell)["points"]
        if exercise:
            before = [c.source for c in book.cells[:position] if c.cell_type == "markdown"]
            stated = re.findall(r"Difficulty [●○]{5} · \d+ minutes · (\d+) points?", before[-1])
            assert [float(found) for found in stated] == [marks[exercise]], exercise
    assert {id: e.points for id, e in known.items()} == {k: v for k, v in marks.items() if "/" in k}
    (total,) = re.findall(r"\| \*\*Points\*\* \| (\d+):", "".join(c.source for c in book.cells))
    assert int(total) == sum(marks.values())
