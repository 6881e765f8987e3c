"""Grades a class: nbgrader's layout in; gradebook, autograded notebooks, feedback and tables out.

First every submission is run and judged, several at once and without touching any database. Then
one writer hands the results to nbgrader's own converters, which keep the gradebook, and at last
the feedback pages are made.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from autograder import notebooks, tables
from autograder.assignment import Assignment, GradingError
from autograder.engine import Engine, ProcessEngine
from autograder.gradebook import CACHE, Gradebook, Submission
from autograder.marking import Graded, Limits, grade_submission
from autograder.notebooks import SourceError
from autograder.tables import Row

__all__ = ["Grades", "GradingError", "Limits", "find_submissions", "grade"]

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


def grade(
    submitted: Path,
    to: Path = Path("graded"),
    jobs: int | None = None,
    references: Path | None = None,
    root: Path | None = None,
    progress: bool = True,
    engine: Engine | None = None,
    limits: Limits | None = None,
) -> Grades:
    """Grades ``SUBMITTED/<student>/<assignment>/<notebook>.ipynb``.

    Args:
        submitted: the folder of student folders.
        to: gets ``gradebook.db``, ``autograded/``, ``feedback/``, ``grades.csv`` and
            ``grades.json``. Grading again into the same folder keeps manual grades and comments.
        jobs: how many submissions run at once; one per core where None.
        references: an instructor's reference pack; the public ones where None.
        root: the course; found from the current folder where None.
        progress: whether progress is shown on stderr.
        engine: what runs the submissions; a :class:`ProcessEngine` where None.
        limits: the time limits.

    Raises:
        GradingError: there is nothing to grade, or nothing to grade it with.
    """
    began = time.monotonic()
    submitted, to = Path(submitted).absolute(), Path(to).resolve()
    jobs = jobs or os.cpu_count() or 1
    try:
        chapters = {chapter.name: chapter for chapter in notebooks.chapters(root)}
    except SourceError as error:
        raise GradingError(str(error)) from error
    entries = find_submissions(submitted, list(chapters))
    if re.search(r"[*?\[\]]", str(to)):
        raise GradingError(
            f"{to} has a character that nbgrader takes for a pattern; choose another."
        )
    to.mkdir(parents=True, exist_ok=True)
    work = to / _WORK
    shutil.rmtree(work, ignore_errors=True)
    chosen = [chapters[name] for name in chapters if name in {e.assignment for e in entries}]
    book = Gradebook(to, work, chosen[0].root)
    try:
        with _bars(progress) as bar:
            assignments = book.prepare(chosen, references)
            advance = bar("Running", len(entries))
            results = _run_all(entries, assignments, engine, limits, to / CACHE, jobs, advance)
            notes = book.record(results, bar)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    rows = list(_rows(results, assignments))
    tables.write_csv(rows, to / "grades.csv")
    tables.write_json(rows, to / "grades.json")
    for entry, graded in results.items():
        notes += [f"{entry.student}, {entry.assignment}: {note}" for note in graded.notes]
    return Grades(rows, to, notes, round(time.monotonic() - began, 3))


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


def _run_all(
    entries: Sequence[Submission],
    assignments: Mapping[str, Assignment],
    engine: Engine | None,
    limits: Limits | None,
    cache: Path,
    jobs: int,
    advance: Callable[[], None],
) -> dict[Submission, Graded]:
    engine = engine or ProcessEngine()
    results: dict[Submission, Graded] = {}
    with ThreadPoolExecutor(max_workers=max(jobs, 1)) as pool:
        waiting: dict[Future[Graded], Submission] = {
            pool.submit(
                grade_submission, entry.path, assignments[entry.assignment], engine, limits, cache
            ): entry
            for entry in entries
        }
        try:
            pending = set(waiting)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    results[waiting[future]] = future.result()
                    advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {entry: results[entry] for entry in entries}


def _rows(
    results: Mapping[Submission, Graded], assignments: Mapping[str, Assignment]
) -> Iterator[Row]:
    for entry, graded in results.items():
        checks = assignments[entry.assignment].checks
        for check, verdict in zip(checks, graded.verdicts, strict=True):
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
def _bars(shown: bool) -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """Progress bars on stderr: ``bar(title, total)`` adds one and returns what advances it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeElapsedColumn(), console=Console(stderr=True), disable=not shown
    ) as display:

        def bar(title: str, total: int) -> Callable[[], None]:
            task = display.add_task(title, total=total)
            return lambda: display.advance(task)

        yield bar
