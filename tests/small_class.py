"""The small course of ``nbgrader_course``, graded without running anything."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import threading
from pathlib import Path
from typing import Any

import nbformat
import nbgrader_course as small
import torch
from grading_fixtures import error

from autograder import exercise as exercises
from autograder import grading, notebooks, sample
from autograder.engine import CellResult, Job, Transcript
from autograder.outcomes import encode
from autograder.runner import run

STUDENTS = (
    sample.Student("ada", "everything right"),
    sample.Student(
        "ben", "half of it", {"softmax": sample.LAST_AXIS_ONLY, "triple": small.SQUARED}
    ),
    sample.Student("cleo", "handed in as it was given out", finished=False),
    sample.Student("d'Arc, Jeanne 100%", "another name", {"triple": small.SQUARED}),
    sample.Student("Ève_Łódź +1", "yet another name", {"softmax": sample.LAST_AXIS_ONLY}),
    sample.Student("fay", "a folder without a notebook", damage=lambda data: b""),
)
HANGS = "def triple(x):\n    while True:\n        pass"
DIES = "def triple(x):\n    raise SystemExit  # the engine of these tests takes it for a crash"


class Reader:
    """An engine that reads the answers instead of running them.

    Attributes:
        jobs: what it was asked to run.
        on_run: called with each job, before it is answered.
    """

    def __init__(self, on_run: Any = lambda job: None) -> None:
        self.jobs: list[Job] = []
        self.on_run = on_run
        self._lock = threading.Lock()

    def run(self, job: Job) -> Transcript:
        """What the cells of a job give, as far as their text tells."""
        with self._lock:
            self.jobs.append(job)
        self.on_run(job)
        sources = {cell.id: cell.source for cell in job.cells}
        triple = sources.get("triple-solution", "")
        results = {name: CellResult(status="ok", seconds=0.01) for name in sources}
        results["softmax-check"] = _softmax(sources.get("softmax-solution", ""), job.seed)
        results["triple-check"] = _triple(triple, "x * x" not in triple)
        results["triple-partial"] = _partial(triple)
        if HANGS in triple:
            late = error("CellTimeout", "The cell did not end within 20 seconds.")
            results["triple-check"] = CellResult([late], [], "timeout", 20.0)
        if DIES in triple:
            never = {name: CellResult() for name in ("triple-check", "triple-partial")}
            return Transcript(results | never, "killed", "The notebook's process died.")
        return Transcript(results, "finished", seconds=0.05)

    def close(self) -> None:
        """Has nothing to end."""


@functools.cache
def _sent(source: str, seed: int) -> bytes:
    namespace: dict[str, Any] = {"torch": torch}
    exec(source, namespace)
    exercise = exercises.load("01_attention")["attention/softmax"]
    return encode(exercise.id, run(exercise, namespace["softmax"], seed))


def _softmax(source: str, seed: int) -> CellResult:
    if "NotImplementedError" in source or not source:
        return CellResult([error("NameError", "name 'softmax' is not defined")], [], "error")
    return CellResult(messages=[_sent(source, seed)], status="ok")


def _triple(source: str, right: bool) -> CellResult:
    if "NotImplementedError" in source or not right:
        return CellResult([error("AssertionError", "the secret is seven")], [], "error")
    return CellResult(status="ok")


def _partial(source: str) -> CellResult:
    if "NotImplementedError" in source:
        return CellResult([error("NotImplementedError")], [], "error")
    value = "1" if "x * x" in source else "4"
    shown = nbformat.v4.new_output("execute_result", data={"text/plain": value})
    return CellResult([shown], [], "ok")


def make(folder: Path, students: tuple[sample.Student, ...] = STUDENTS) -> Path:
    """Writes course and class into ``folder``, laid out as nbgrader wants it, and returns it."""
    root = small.make(folder)
    for student in small.CLASS:
        path_of(root, student.name).unlink()
        path_of(root, student.name).parent.rmdir()
        path_of(root, student.name).parent.parent.rmdir()
    for student in students:
        hand_in(root, student)
    return root


def hand_in(root: Path, student: sample.Student, stamp: str = "") -> Path:
    """Writes a student's submission, over the one that is there."""
    solved, blank = (
        nbformat.read(root / step / small.FILE, as_version=4) for step in ("source", "release")
    )
    path = path_of(root, student.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = student.damage(
        notebooks.write(sample.submission_of(student, solved, blank)).encode("utf-8")
    )
    path.unlink(missing_ok=True)
    if data:
        path.write_bytes(data)
    if stamp:
        (path.parent / "timestamp.txt").write_text(stamp + "\n", encoding="utf-8")
    return path


def path_of(root: Path, student: str) -> Path:
    """Where a student's notebook is."""
    return root / "submitted" / student / small.FILE


def grade(root: Path, to: Path, engine: Any = None, **more: Any) -> grading.Grades:
    """Grades the class with a :class:`Reader`, or another engine."""
    return grading.grade(
        root / "submitted",
        to,
        jobs=more.pop("jobs", 1),
        root=root,
        progress=False,
        engine=engine or Reader(),
        **more,
    )


def tables_of(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every table of a gradebook, sorted, with what its ids refer to in place of the ids.

    Tables of others than nbgrader are left out.
    """
    with contextlib.closing(sqlite3.connect(folder / "gradebook.db")) as database:
        database.row_factory = sqlite3.Row
        names = [
            row["name"]
            for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if not row["name"].startswith(("workbook_", "sqlite_"))
        ]
        rows = {
            name: [dict(row) for row in database.execute(f'SELECT * FROM "{name}"')]
            for name in names
        }
        refers = {
            name: {
                row["from"]: (row["table"], row["to"])
                for row in database.execute(f'PRAGMA foreign_key_list("{name}")')
            }
            for name in names
        }
    known = {(name, row["id"]): row for name in names for row in rows[name] if "id" in row}

    def shown(name: str, row: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(value_of(name, column, value) for column, value in row.items())

    def value_of(name: str, column: str, value: Any) -> Any:
        if column in refers[name] and value is not None:
            table = refers[name][column][0]
            return shown(table, known[table, value])
        # Assignments, cells and so on have drawn ids; a student's is the name.
        return "" if column == "id" and name not in ("student", "course") else value

    return {
        name: sorted((shown(name, row) for row in rows[name]), key=repr) for name in sorted(names)
    }
