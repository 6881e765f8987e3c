"""A course of one small chapter, so that tests of the pipeline need no real one."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parent.parent

HEADER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3 (ipykernel)
  language: python
  name: python3
---
"""

# The check shows a verdict and gives the points, as autograder.check does, without its exercises.
SETUP = """\
import math
from collections.abc import Sequence
from IPython.display import HTML, display


def check(exercise, component):
    display(HTML("<b>verdict of " + exercise + "</b>"))
    return 2.0
"""

SOLUTION = '''\
def double(numbers: Sequence[float]) -> list[float]:
    """Twice each of the numbers."""
    ### BEGIN SOLUTION
    secret_factor = math.floor(2.7)
    return [secret_factor * number for number in numbers]
    ### END SOLUTION
'''

CHECK = """\
### BEGIN HIDDEN TESTS
assert double([21.0]) == [42.0], "secret hidden test"
### END HIDDEN TESTS
check("numbers/double", double)
"""

QUESTION = """\
Why is twice a number even?

### BEGIN SOLUTION
Secret model answer: two divides it.
### END SOLUTION

=== BEGIN MARK SCHEME ===
Secret mark scheme: one point for the divisor.
=== END MARK SCHEME ===
"""

SECRETS = (
    "secret_factor",
    "secret hidden test",
    "Secret model answer",
    "Secret mark scheme",
    "BEGIN SOLUTION",
    "BEGIN HIDDEN TESTS",
    "BEGIN MARK SCHEME",
)


def marks(grade_id: str, **changes: object) -> dict[str, object]:
    """nbgrader metadata of a cell."""
    given = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False}
    return given | {"grade_id": grade_id} | changes


def code(source: str, nbgrader: dict[str, object] | None = None) -> str:
    """A MyST code cell."""
    header = ""
    if nbgrader is not None:
        lines = "".join(f"  {key}: {_yaml(value)}\n" for key, value in nbgrader.items())
        header = f"---\nnbgrader:\n{lines}---\n"
    return f"```{{code-cell}} ipython3\n{header}{source.rstrip()}\n```\n"


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def text(source: str, nbgrader: dict[str, object] | None = None) -> str:
    """A MyST Markdown cell."""
    import json

    header = f"+++ {json.dumps({'nbgrader': nbgrader})}" if nbgrader else "+++"
    return f"{header}\n\n{source.rstrip()}\n"


def chapter(*extra: str, check: str = CHECK, points: object = 2) -> str:
    """The whole source of the small chapter, with further cells at its end."""
    cells = [
        "# Twice\n\nSee {cite}`somebody2000`.\n\n```{dropdown} Hint\nAdd it to itself.\n```\n",
        code(SETUP),
        code(SOLUTION, marks("double-solution", solution=True)),
        code(check, marks("double-check", grade=True, locked=True, points=points)),
        text(QUESTION, marks("question-even", grade=True, solution=True, points=1)),
        *extra,
    ]
    return HEADER + "\n" + "\n".join(cells)


def course(folder: Path, source: str | None = None, name: str = "01_twice") -> Path:
    """Writes the course into ``folder`` and returns it."""
    place = folder / "solutions" / name
    place.mkdir(parents=True)
    (place / f"{name}.md").write_text(source or chapter(), encoding="utf-8")
    (place / "picture.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>\n')
    (place / "notes.md").write_text("Secret model answer, in a draft.\n")
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    shutil.copy(ROOT / "_config.yml", folder)
    book = folder / "book"
    book.mkdir()
    (book / "references.bib").write_text(
        "@article{somebody2000, author={Some Body}, title={Twice}, journal={N}, year={2000}}\n"
    )
    (book / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n  - glob: chapters/*/*\n"
    )
    (book / "index.md").write_text("# Numbers\n")
    return folder


def find(exercise_id: str) -> SimpleNamespace:
    """Stands in for the registered exercises."""
    if exercise_id != "numbers/double":
        raise KeyError(f"There is no exercise {exercise_id!r}.")
    return SimpleNamespace(points=2)


def everything_in(folder: Path) -> dict[str, bytes]:
    """Path -> content of all files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
