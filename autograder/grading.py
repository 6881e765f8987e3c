"""Grades a class: nbgrader's layout in; gradebook, autograded notebooks, feedback and tables out.

Submissions are run and judged, several at once and without touching any database, and every result
is kept in a file of its own under a hash of what it was made from. One writer takes the results as
they come, and brings gradebook, autograded notebooks and feedback pages up to date.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder import notebooks, tables
from autograder.assignment import Assignment, GradingError
from autograder.engine import Engine, ForkEngine
from autograder.files import keep, sweep
from autograder.gradebook import CACHE, Gradebook, Submission, Writer
from autograder.marking import Graded, Limits, grade_submission
from autograder.nbgrader_plugin import SETTINGS
from autograder.notebooks import SourceError
from autograder.tables import Row

__all__ = ["Grades", "GradingError", "Limits", "Stopped", "find_submissions", "grade"]

# Where nbgrader finds the course's copy and the executed submissions while it records them.
_WORK = ".grading"


@dataclass(frozen=True)
class Grades:
    """What grading a class gave.

    Attributes:
        rows: one per student and exercise.
        folder: where everything was written.
        notes: what an instructor should look at, one sentence each.
        seconds: how long it took.
    """

    rows: list[Row]
    folder: Path
    notes: list[str]
    seconds: float


class Stopped(Exception):
    """Grading was stopped; the text says how far it came and how to go on."""


def grade(
    submitted: Path,
    to: Path = Path("graded"),
    jobs: int | None = None,
    references: Path | None = None,
    root: Path | None = None,
    progress: bool = True,
    engine: Engine | None = None,
    limits: Limits | None = None,
    again: bool = False,
    trust: bool = False,
) -> Grades:
    """Grades ``SUBMITTED/<student>/<assignment>/<notebook>.ipynb``.

    It may be stopped or killed at any moment: the next run goes on from there, and gives what an
    uninterrupted one gives.

    Args:
        submitted: the folder of student folders.
        to: gets ``gradebook.db``, ``autograded/``, ``feedback/``, ``grades.csv``,
            ``grades.json`` and ``runs.json``. Grading again into the same folder keeps manual
            grades and comments, and runs only what is new.
        jobs: how many submissions run at once; one per core where None.
        references: an instructor's reference pack; the public ones where None.
        root: the course; found from the current folder where None.
        progress: whether progress is shown on stderr.
        engine: what runs the submissions; a :class:`autograder.engine.ForkEngine` where None.
        limits: the time limits; those of the course's settings where None.
        again: run submissions again that ran out of time or were killed.
        trust: run submissions even where they cannot be shut in.

    Raises:
        GradingError: there is nothing to grade, or nothing to grade it with.
        EngineError: submissions cannot be run here, or not shut in.
        Stopped: Ctrl-C.
    """
    began = time.monotonic()
    submitted, to = Path(submitted).absolute(), Path(to).resolve()
    try:
        chapters = {chapter.name: chapter for chapter in notebooks.chapters(root)}
        entries = find_submissions(submitted, list(chapters))
        chosen = [chapters[name] for name in chapters if name in {e.assignment for e in entries}]
        limits = limits or Limits.of(notebooks.settings(chosen[0].root))
    except SourceError as error:
        raise GradingError(str(error)) from error
    if re.search(r"[*?\[\]]|%[0-9a-fA-F]{2}", str(to)):
        raise GradingError(
            f"{to} has a character that nbgrader takes for something else; choose another."
        )
    to.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_only_one(to))
        if engine is None:
            # Before anything is written: it may refuse.
            engine = stack.enter_context(ForkEngine(trust, limits.bounds))
            _ = engine.layers
        sweep(to)
        work = to / _WORK
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)
        book = Gradebook(to, work, chosen[0].root)
        assignments = book.prepare(chosen, references)
        bar = stack.enter_context(_bar(progress, len(entries)))
        run = functools.partial(
            _grade_one, assignments, engine, limits=limits, cache=to / CACHE, again=again
        )
        jobs = jobs or getattr(engine, "width", 0) or os.cpu_count() or 1
        found: dict[Submission, _Found] = {}
        with (
            Writer(book, assignments) as writer,
            contextlib.closing(_each(entries, run, jobs)) as results,
        ):
            try:
                for entry, graded in results:
                    writer.add(entry, graded)
                    rows = _rows(entry, graded, assignments[entry.assignment])
                    found[entry] = _Found(list(rows), graded.notes, graded.run)
                    bar()
            except KeyboardInterrupt:
                writer.flush()
                raise Stopped(
                    f"Stopped after {len(found)} of {len(entries)} submissions, which are kept in "
                    f"{to}. The same command goes on from there."
                ) from None
    ordered = {entry: found[entry] for entry in entries}
    rows = [row for item in ordered.values() for row in item.rows]
    tables.write_csv(rows, to / "grades.csv")
    tables.write_json(rows, to / "grades.json")
    runs = {
        f"{entry.student}/{entry.assignment}": {**item.run, "notes": item.notes}
        for entry, item in ordered.items()
    }
    keep(to / "runs.json", json.dumps(runs, indent=1, ensure_ascii=False) + "\n")
    (to / notebooks.CONFIG_NAME).write_text(
        SETTINGS.format(
            root=str(book.root.resolve()),
            submitted=os.path.relpath(submitted, to),
            references=str(Path(references).resolve()) if references else "",
        ),
        encoding="utf-8",
    )
    notes = writer.notes + [
        f"{entry.student}, {entry.assignment}: {note}"
        for entry, item in ordered.items()
        for note in item.notes
    ]
    return Grades(rows, to, notes, round(time.monotonic() - began, 3))


@dataclass(frozen=True)
class _Found:
    """What is kept of a result once it is written."""

    rows: list[Row]
    notes: list[str]
    run: dict[str, Any]


def _grade_one(
    assignments: Mapping[str, Assignment], engine: Engine, entry: Submission, **more: Any
) -> Graded:
    return grade_submission(entry.path, assignments[entry.assignment], engine, **more)


def _each(
    entries: Sequence[Submission], run: Callable[[Submission], Graded], jobs: int
) -> Iterator[tuple[Submission, Graded]]:
    """Every submission's result, ``jobs`` at once, as they come.

    Only a few run ahead of whoever takes the results, so memory does not grow with the class.
    """
    waiting: dict[Future[Graded], Submission] = {}
    coming = iter(entries)
    pool = ThreadPoolExecutor(max_workers=jobs)
    try:
        while True:
            for entry in itertools.islice(coming, 2 * jobs + 2 - len(waiting)):
                waiting[pool.submit(run, entry)] = entry
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield waiting.pop(future), future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Holds the folder of a class for one grading at a time.

    The lock is the kernel's, so it goes with the process, however that ends.
    """
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise GradingError(
                f"Another process is grading into {folder}. Wait for it, or choose another "
                "folder (--to)."
            ) from None
        yield


def find_submissions(submitted: Path, known: Sequence[str]) -> list[Submission]:
    """Every student's submission of every assignment that somebody handed in.

    Raises:
        GradingError: there is no such folder, nothing in it, or an assignment unknown here.
    """
    layout = f"{submitted}/<student>/<assignment>/<notebook>.ipynb"
    if not submitted.is_dir():
        raise GradingError(f"There is no folder {submitted}. Name the one with the submissions.")
    students = _folders(submitted)
    if not students:
        raise GradingError(
            f"{submitted} has no student folders. Arrange the notebooks as {layout}."
        )
    handed_in: dict[str, list[str]] = {}
    for student in students:
        for folder in _folders(student):
            if folder.name in known or any(folder.glob("*.ipynb")):
                handed_in.setdefault(folder.name, []).append(student.name)
    unknown = sorted(set(handed_in) - set(known))
    if unknown:
        raise GradingError(
            f"{submitted / handed_in[unknown[0]][0] / unknown[0]}: there is no assignment "
            f"{unknown[0]}. There is: {', '.join(known) or 'none'}. Rename the folder."
        )
    if not handed_in:
        raise GradingError(
            f"No student folder in {submitted} holds an assignment ({', '.join(known)}). "
            f"Arrange the notebooks as {layout}."
        )
    return [
        Submission(student.name, name, student / name / f"{name}.ipynb")
        for student in students
        for name in known
        if name in handed_in
    ]


def _folders(path: Path) -> list[Path]:
    return sorted(
        entry
        for entry in path.iterdir()
        if entry.is_dir() and not entry.name.startswith((".", "__"))
    )


def _rows(entry: Submission, graded: Graded, assignment: Assignment) -> Iterator[Row]:
    for check, verdict in zip(assignment.checks, graded.verdicts, strict=True):
        yield Row(
            student=entry.student,
            assignment=entry.assignment,
            exercise=check.exercise,
            points=float(verdict.points),
            max_points=check.points,
            status=verdict.status,
            message=" ".join(verdict.message.split()),
            misconception=verdict.misconception,
        )


@contextlib.contextmanager
def _bar(shown: bool, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr with rate and remaining time; yields what advances it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f} a second" if speed else "")

    columns = (
        TextColumn("Grading"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as display:
        task = display.add_task("", total=total)
        yield lambda: display.advance(task)
