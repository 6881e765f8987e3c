"""A course that nbgrader keeps too: one checked exercise, two plain test cells, one question."""

from __future__ import annotations

import contextlib
import csv
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
import tiny
from click.testing import Result
from jupyter_core.application import NoStart
from nbformat import NotebookNode
from nbgrader.api import Grade, Gradebook
from nbgrader.apps import NbGraderApp
from typer.testing import CliRunner

from autograder import notebooks, release, sample
from autograder.cli import app as autograder_app

ASSIGNMENT = "01_attention"
FILE = f"{ASSIGNMENT}/{ASSIGNMENT}.ipynb"
QUESTION = "question-even"

SETUP = "import torch\n\nfrom autograder import check"
SOFTMAX = '''\
def softmax(scores, dim=-1):
    """Weights that sum to 1 along `dim`."""
    ### BEGIN SOLUTION
    powers = torch.exp(scores - scores.amax(dim=dim, keepdim=True))
    return powers / powers.sum(dim=dim, keepdim=True)
    ### END SOLUTION
'''
TRIPLE = '''\
def triple(x):
    """Three times x."""
    ### BEGIN SOLUTION
    return 3 * x
    ### END SOLUTION
'''
# A classical cell of nbgrader: all of its points or none.
ASSERTS = """\
assert triple(2) == 6
### BEGIN HIDDEN TESTS
assert triple(7) == 21, "the secret is seven"
### END HIDDEN TESTS
"""
# Another one: its value is the points.
PARTIAL = "sum(triple(x) == 3 * x for x in (2, 0, -1, 5))"
# Of the hidden test and the mark scheme, and nowhere else; the last is what ben prints in it.
SECRETS = ("triple(7)", "== 21", "secret is", "HIDDEN", "Secret mark scheme", "asked for 7")

# Right for 2, as the visible test asks, and for no other number of the tests.
SQUARED = 'def triple(x):\n    print("asked for", x)\n    return x * x + 2'

CLASS = (
    sample.Student("ada", "everything right"),
    sample.Student(
        "ben",
        "softmax over the last axis, and a square for the triple",
        {"softmax": sample.LAST_AXIS_ONLY, "triple": SQUARED},
    ),
)
# What the plain test cells give, and the most that all cells together can.
PLAIN = {"ada": (3.0, 4.0), "ben": (0.0, 1.0)}
MAX_SCORE = 11.0


def make(folder: Path) -> Path:
    """Writes course and class into ``folder``, laid out as nbgrader wants it, and returns it."""

    def graded(name: str, source: str, points: int) -> str:
        return tiny.code(source, tiny.marks(name, grade=True, locked=True, points=points))

    source = "\n".join(
        [
            tiny.HEADER,
            "# Small\n",
            tiny.code(SETUP),
            tiny.code(SOFTMAX, tiny.marks("softmax-solution", solution=True)),
            graded("softmax-check", 'check("attention/softmax", softmax)', 2),
            tiny.code(TRIPLE, tiny.marks("triple-solution", solution=True)),
            graded("triple-check", ASSERTS, 3),
            graded("triple-partial", PARTIAL, 4),
            tiny.text(tiny.QUESTION, tiny.marks(QUESTION, grade=True, solution=True, points=2)),
        ]
    )
    root = tiny.course(folder, source, ASSIGNMENT)
    release.assign(notebooks.chapters(root), root)
    for student in CLASS:
        hand_in(root, student)
    return root


def hand_in(root: Path, student: sample.Student) -> None:
    """Writes a student's submission, over the one that is there."""
    solved, blank = (
        nbformat.read(root / step / FILE, as_version=4) for step in ("source", "release")
    )
    path = root / "submitted" / student.name / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(notebooks.write(sample.submission_of(student, solved, blank)), "utf-8")


# ---- commands --------------------------------------------------------------------------------


def environment(folder: Path) -> dict[str, str]:
    """Keeps Jupyter's and nbgrader's settings of whoever runs the tests out of them."""
    names = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
    }
    return {name: str(folder / place) for name, place in names.items()}


def run_grade(root: Path, to: Path) -> Result:
    """Runs ``autograder grade`` over the class of ``root``."""
    arguments = ["grade", root / "submitted", "--to", to, "--root", root]
    return CliRunner().invoke(autograder_app, [str(argument) for argument in arguments])


def grade(root: Path, to: Path) -> None:
    """As :func:`run_grade`, which must succeed."""
    result = run_grade(root, to)
    assert result.exit_code == 0, result.output


def nbgrader(folder: Path, *arguments: str) -> None:
    """Runs ``nbgrader …`` in a folder."""
    with inside(folder):
        app = NbGraderApp.instance()
        try:
            app.initialize(list(arguments))
            # Raised at the end of a command of two words.
            with contextlib.suppress(NoStart):
                app.start()
        finally:
            app.reset()


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """In a folder, with Jupyter's own settings; what nbgrader does to ``sys.path`` is undone."""
    settings = environment(folder.parent / f"{folder.name}-jupyter")
    with (
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, settings),
        mock.patch("sys.path", list(sys.path)),
        release.tools_on_path(),
    ):
        yield


# ---- what the gradebook holds ----------------------------------------------------------------


def database(folder: Path) -> Gradebook:
    """The gradebook of a folder, to be used in a ``with``."""
    return Gradebook(f"sqlite:///{folder / 'gradebook.db'}")


def grade_of(book: Gradebook, student: str, name: str) -> Grade:
    """The grade of one cell."""
    return book.find_grade(name, ASSIGNMENT, ASSIGNMENT, student)


def points(folder: Path) -> dict[str, dict[str, float | None]]:
    """Student -> cell -> what its run gave; None for the question, which waits for a person."""
    with database(folder) as book:
        return {
            student.name: {
                grade.name: grade.auto_score
                for grade in book.find_submission_notebook(
                    ASSIGNMENT, ASSIGNMENT, student.name
                ).grades
            }
            for student in CLASS
        }


def exported(folder: Path) -> dict[str, dict[str, str]]:
    """Student -> row of the CSV file that ``nbgrader export`` writes."""
    nbgrader(folder, "export", "--to", "exported.csv")
    with open(folder / "exported.csv", encoding="utf-8", newline="") as file:
        return {row["student_id"]: row for row in csv.DictReader(file)}


def autograded(folder: Path, student: str) -> NotebookNode:
    """The notebook as recorded."""
    return nbformat.read(folder / "autograded" / student / FILE, as_version=4)


def outputs(folder: Path, student: str, name: str) -> Sequence[Any]:
    """What the recorded notebook shows below one cell."""
    cells = autograded(folder, student).cells
    return next(cell.outputs for cell in cells if notebooks.grade_id(cell) == name)


def shown(folder: Path, student: str, name: str) -> str:
    """The text of :func:`outputs`."""
    return "\n".join(
        output.text if output.output_type == "stream" else str(output.get("data", output))
        for output in outputs(folder, student, name)
    )


def page(folder: Path, student: str) -> str:
    """The feedback page of a student."""
    path = folder / "feedback" / student / ASSIGNMENT / f"{ASSIGNMENT}.html"
    return path.read_text(encoding="utf-8")
