"""A small assignment built by hand, and engines that need no process, for the tests of grading."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import nbformat
import torch
from nbformat import NotebookNode

from autograder import exercise as exercises
from autograder import notebooks
from autograder.assignment import Assignment, Check
from autograder.engine import CellResult, Job, Transcript
from autograder.outcomes import encode
from autograder.record import record_exercise
from autograder.runner import run

SEED = 7
SOFTMAX = """\
def softmax(scores, dim=-1):
    powers = torch.exp(scores - scores.amax(dim=dim, keepdim=True))
    return powers / powers.sum(dim=dim, keepdim=True)
"""
STUB = "def softmax(scores, dim=-1):\n    # YOUR CODE HERE\n    raise NotImplementedError()\n"
ASSERTS = """\
assert triple(2) == 6
### BEGIN HIDDEN TESTS
assert triple(7) == 21, "the secret is seven"
### END HIDDEN TESTS
"""


def marks(grade_id: str, **changes: Any) -> dict[str, Any]:
    """nbgrader metadata of a cell."""
    given = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False}
    return given | {"grade_id": grade_id} | changes


def cell(kind: str, source: str, **marked: Any) -> NotebookNode:
    """A cell, with nbgrader metadata where ``grade_id`` is given."""
    make = {
        "code": nbformat.v4.new_code_cell,
        "markdown": nbformat.v4.new_markdown_cell,
        "raw": nbformat.v4.new_raw_cell,
    }[kind]
    made = make(source)
    if marked:
        made.metadata["nbgrader"] = nbformat.from_dict(marks(**marked))
        made.id = marked["grade_id"]
    return made


def notebook(*cells: NotebookNode) -> NotebookNode:
    """A notebook of some cells."""
    made = nbformat.v4.new_notebook(metadata={"kernelspec": notebooks.KERNELSPEC})
    made.cells = list(cells)
    return made


def solved() -> NotebookNode:
    """The course's own copy: one checked exercise, one plain test cell, one written question."""
    return notebook(
        cell("code", "import torch\nfrom autograder import check", grade_id="setup", locked=True),
        cell("code", SOFTMAX, grade_id="softmax-solution", solution=True),
        cell(
            "code",
            'check("attention/softmax", softmax)',
            grade_id="softmax-check",
            grade=True,
            locked=True,
            points=2,
        ),
        cell(
            "code",
            "def triple(x):\n    return 3 * x",
            grade_id="triple-solution",
            solution=True,
        ),
        cell("code", ASSERTS, grade_id="triple-check", grade=True, locked=True, points=3),
        cell("markdown", "Because.", grade_id="question-why", grade=True, solution=True, points=1),
    )


def released() -> NotebookNode:
    """What learners were given of it."""
    given = notebooks.clear(solved(), notebooks.default_config())
    for item in given.cells:
        mine = notebooks.mark(item)
        if mine.get("solution") and item.cell_type == "code":
            item.source = STUB if "softmax" in mine["grade_id"] else "# YOUR CODE HERE"
    return given


def assignment() -> Assignment:
    """The assignment of :func:`solved`, its references recorded with :data:`SEED`."""
    exercise = exercises.load("01_attention", misconceptions=True)["attention/softmax"]
    namespace: dict[str, Any] = {"torch": torch}
    exec(SOFTMAX, namespace)
    references = record_exercise(exercise, namespace["softmax"], SEED, hidden=False)
    return Assignment(
        name="01_attention",
        notebook=solved(),
        release=released(),
        checks=(
            Check("softmax-check", "attention/softmax", "softmax", 2.0, references),
            Check("triple-check", "triple-check", None, 3.0, None),
        ),
        seed=SEED,
        hidden=False,
        fingerprint="1",
    )


def outcomes_of(source: str) -> bytes:
    """What the check of ``softmax`` sends for an implementation."""
    namespace: dict[str, Any] = {"torch": torch}
    exec(source, namespace)
    exercise = exercises.load("01_attention")["attention/softmax"]
    return encode(exercise.id, run(exercise, namespace["softmax"], SEED))


def error(name: str, text: str = "") -> NotebookNode:
    """An error as a cell's output."""
    return nbformat.v4.new_output("error", ename=name, evalue=text, traceback=[f"{name}: {text}"])


class CannedEngine:
    """An engine that runs nothing: results by grade id, every other cell ends well."""

    def __init__(
        self, results: Mapping[str, CellResult], status: str = "finished", note: str = ""
    ) -> None:
        self.results = results
        self.status = status
        self.note = note
        self.jobs: list[Job] = []

    def run(self, job: Job) -> Transcript:
        """Gives what it was made with."""
        self.jobs.append(job)
        json.dumps(job.to_json())  # whatever a job holds must be sendable
        cells = {c.id: self.results.get(c.id, CellResult(status="ok")) for c in job.cells}
        return Transcript(cells, self.status, self.note)


def edited(
    change: Callable[[NotebookNode], Any], start: NotebookNode | None = None
) -> NotebookNode:
    """A copy of the solved notebook (or ``start``), with a change."""
    made = start or solved()
    change(made)
    return made


def by_id(book: NotebookNode, grade_id: str) -> NotebookNode:
    """The cell of that grade id."""
    return next(item for item in book.cells if notebooks.grade_id(item) == grade_id)
