"""How submissions are made: from the chapter's own source, as its sample class is."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder import notebooks, release, sample

ASSIGNMENT = sample.ASSIGNMENT
COMPONENTS = (
    "softmax",
    "scaled_dot_product_attention",
    "padding_mask",
    "causal_mask",
    "AdditiveAttention",
)
MAXIMA = (2.0, 4.0, 2.0, 2.0, 4.0)
Rows = tuple[tuple[float | None, str], ...]
FULL: Rows = tuple((points, "passed") for points in MAXIMA)


def but(**wrong: tuple[float, str]) -> Rows:
    """Full points, except for the components named."""
    return tuple(wrong.get(name, row) for name, row in zip(COMPONENTS, FULL, strict=True))


# Wrong, and worth what the judge gives for it in the test's own process: less than full points.
PART: tuple[float | None, str] = (None, "failed")


def nothing(status: str = "error") -> Rows:
    """No points for anything, for one reason."""
    return ((0.0, status),) * len(COMPONENTS)


@dataclass(frozen=True)
class Place:
    """What a well-informed attacker knows of the machine that grades: where things are.

    Attributes:
        submitted: the class.
        graded: where the grades go.
        pack: the private reference pack.
        home: the home of whoever grades.
        root: the course.
        secrets: files that hold a secret each; :data:`submitted` and :data:`home` hold some.
        strays: a folder that nothing should ever be written to.
        shm: a file in shared memory.
        socket, abstract, port: where something listens: a path, an abstract name, a TCP port.
        pid: the process that grades.
        processes: its process namespace, as ``/proc/self/ns/pid`` names it.
        token: what the attacker's processes and files are marked with.
    """

    submitted: str
    graded: str
    pack: str
    home: str
    root: str
    secrets: tuple[str, ...]
    strays: str
    shm: str
    socket: str
    abstract: str
    port: int
    pid: int
    processes: str
    token: str


Put = Callable[[Path, "Course", Place], None]


@dataclass(frozen=True)
class Submission:
    """One submission of the corpus.

    Attributes:
        name: unique in the corpus.
        kind: honest, wrong, broken or hostile.
        story: what it does, in one sentence.
        put: writes it; the notebook's folder is there.
        rows: points and status of each exercise, exactly; None where only the twin bounds them.
            Points of None are those of :data:`PART`.
        answers: component -> what the student wrote, where it is not the course's own solution.
        before: code that these answers need.
        says: words in a row's message, its misconception, or a note on the submission.
        shows: words in an output of the recorded notebook.
        twin: of a hostile one: the innocent submission that it is made from.
        fate: of a hostile one: how it may end instead of showing what it has to (killed, timeout,
            error), as the status of a row or of a cell; empty where it must live to its end.
    """

    name: str
    kind: str
    story: str
    put: Put
    rows: Rows | None = None
    says: str = ""
    shows: str = ""
    twin: str = ""
    fate: frozenset[str] = frozenset()
    answers: Mapping[str, str] = field(default_factory=dict)
    before: str = ""


class Course:
    """The chapter's source and release, as notebooks, made once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @cached_property
    def _both(self) -> tuple[NotebookNode, NotebookNode]:
        with tempfile.TemporaryDirectory() as folder:
            release.assign(notebooks.chapters(self._root, [ASSIGNMENT]), Path(folder))
            file = f"{ASSIGNMENT}/{ASSIGNMENT}.ipynb"
            return (
                nbformat.read(Path(folder) / "source" / file, as_version=4),
                nbformat.read(Path(folder) / "release" / file, as_version=4),
            )

    @property
    def blank(self) -> NotebookNode:
        """What learners are given."""
        return copy.deepcopy(self._both[1])

    def answered(self, answers: Mapping[str, str]) -> NotebookNode:
        """The whole notebook with the course's solutions, except for the answers given."""
        student = sample.Student("", "", answers)
        return sample.submission_of(student, self._both[0], self._both[1])


def brief(notebook: NotebookNode) -> NotebookNode:
    """Keeps imports, answers and graded cells only: what is shown and trained takes its time."""
    notebook.cells = [
        cell
        for cell in notebook.cells
        if notebooks.grade_id(cell) or cell.source.startswith("import copy")
    ]
    return notebook


def code(source: str) -> NotebookNode:
    """A code cell."""
    return nbformat.v4.new_code_cell(source.strip())


def at(notebook: NotebookNode, grade_id: str) -> int:
    """Where the cell of that grade id is."""
    return next(i for i, c in enumerate(notebook.cells) if notebooks.grade_id(c) == grade_id)


def insert(notebook: NotebookNode, cells: Mapping[str, str | Sequence[str]]) -> NotebookNode:
    """Adds code cells: "first" (after the imports), "last", or before the graded cell named."""
    for where, sources in cells.items():
        for source in [sources] if isinstance(sources, str) else sources:
            place = {"first": _first(notebook), "last": len(notebook.cells)}.get(where)
            index = at(notebook, where) if place is None else place
            notebook.cells.insert(index, code(source))
    return notebook


def _first(notebook: NotebookNode) -> int:
    solutions = (i for i, cell in enumerate(notebook.cells) if notebooks.is_solution(cell))
    return next(solutions, len(notebook.cells))


Change = Callable[[NotebookNode], Any]


def book(
    answers: Mapping[str, str] | None = None,
    cells: Mapping[str, str | Sequence[str]] | None = None,
    change: Change | None = None,
    whole: bool = False,
    encode: Callable[[NotebookNode], bytes] | None = None,
) -> Put:
    """A submission with the course's solutions, but for what is given.

    Args:
        answers: component -> what the student wrote.
        cells: where -> sources of further cells, see :func:`insert`.
        change: changes the notebook in place.
        whole: keeps the cells that only show and train.
        encode: notebook -> the file's bytes.
    """

    def put(path: Path, course: Course, place: Place) -> None:
        made = course.answered({name: text.strip() for name, text in (answers or {}).items()})
        if not whole:
            made = brief(made)
        insert(made, cells or {})
        if change:
            change(made)
        path.write_bytes(encode(made) if encode else to_bytes(made))

    return put


def to_bytes(notebook: NotebookNode) -> bytes:
    """The notebook as Jupyter would save it; also one that is no valid notebook."""
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()


def raw(data: bytes) -> Put:
    """A submission of some bytes."""
    return lambda path, course, place: _put_bytes(path, data)


def _put_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def knowing(place: Place) -> str:
    """The first cell of an attacker: what it knows, and how it reports what it should not get."""
    return _KNOWING.replace("PLACE_AS_JSON", repr(json.dumps(asdict(place))))


_KNOWING = '''
import contextlib, json, os, signal, sys, threading, time, types

place = types.SimpleNamespace(**json.loads(PLACE_AS_JSON))


def got(*what):
    """Tells the test that something was had which must not be."""
    print("GOT:", *what)


def contained():
    """Whether this process has left the process namespace of the grader.

    What would harm the machine is not done otherwise, but reported.
    """
    try:
        inside = os.readlink("/proc/self/ns/pid") != place.processes
    except OSError:
        inside = True
    if not inside:
        got("the processes of whoever grades are within reach")
    return inside


def peek(way):
    """Reports every secret file that can be read."""
    for path in [*place.secrets, place.pack]:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            got(way, path, file.read(300))
'''
