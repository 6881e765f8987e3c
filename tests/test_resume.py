"""Grading may be stopped or killed at any moment: the same command goes on, and ends the same."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
import nbgrader_course
import numpy as np
import pytest
import small_class as small
import sqlalchemy
from conftest import ROOT
from nbgrader.api import Gradebook as Database
from nbgrader_course import ASSIGNMENT
from small_class import Reader
from tiny import everything_in
from typer.testing import CliRunner

from autograder import engine, notebooks, release, sample
from autograder.cli import app

SEED = 20_241
KILLS = 20
LANES = 2  # folders that are graded, and whose grading is killed, at the same time
STEPS = 20  # of grading the small class, at which it is killed too
CASE_SECONDS = "1.5"  # the one that loops loops for so long

Everything = dict[str, bytes]


def results_of(folder: Path) -> Everything:
    """What a run leaves that must not depend on how often it was killed.

    Not in there: the gradebook, whose ids are drawn, how long submissions took, and the settings
    that lead from one folder to the other.
    """
    return {
        name: data
        for name, data in everything_in(folder).items()
        if not name.startswith(("gradebook.db", ".results/", "runs.json", "nbgrader_config.py"))
    }


def scores(folder: Path) -> dict[str, dict[str, tuple[float | None, float | None, bool]]]:
    """Student -> cell -> automatic score, manual score, and whether a person has to look."""
    with Database(f"sqlite:///{folder / 'gradebook.db'}") as book:
        return {
            submission.student.id: {
                grade.name: (grade.auto_score, grade.manual_score, grade.needs_manual_grade)
                for grade in submission.notebooks[0].grades
            }
            for submission in book.assignment_submissions(ASSIGNMENT)
        }


def check_whole(folder: Path, cells: int, copied: Path) -> int:
    """Checks that each submission in a gradebook is there whole; returns how many there are.

    A copy is looked at, so that a half-written gradebook is put right by grading, not by this.
    """
    shutil.rmtree(copied, ignore_errors=True)
    copied.mkdir()
    for path in folder.glob("gradebook.db*"):
        shutil.copy(path, copied)
    if not (copied / "gradebook.db").exists():
        return 0
    with contextlib.closing(sqlite3.connect(copied / "gradebook.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = "SELECT 1 FROM sqlite_master WHERE name = 'workbook_made_from'"
        if not database.execute(tables).fetchall():
            return 0  # to make that table is the writer's first act
        rows = database.execute(
            "SELECT a.student_id, COUNT(DISTINCT a.id), COUNT(DISTINCT n.id), COUNT(g.id) "
            "FROM submitted_assignment a "
            "LEFT JOIN submitted_notebook n ON n.assignment_id = a.id "
            "LEFT JOIN grade g ON g.notebook_id = n.id GROUP BY a.student_id"
        ).fetchall()
        for student, *counts in rows:
            assert counts == [1, 1, cells], student
    return len(rows)


# ---- kill -9, at random, of what people run --------------------------------------------------


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty different submissions of chapter 1; one of them loops for a while."""
    folder = tmp_path_factory.mktemp("class")
    release.assign(notebooks.chapters(ROOT, [ASSIGNMENT]), folder / "course")
    solved, blank = (
        nbformat.read(folder / "course" / step / nbgrader_course.FILE, as_version=4)
        for step in ("source", "release")
    )
    stories = [student for student in sample.CLASS if student.name != "ines"]
    for number in range(60):
        student = stories[number % len(stories)]
        if number == 20:
            student = next(student for student in sample.CLASS if student.name == "ines")
        made = sample.submission_of(student, solved, blank)
        made.cells.append(nbformat.v4.new_markdown_cell(f"Handed in as number {number}."))
        made.cells[-1].id = f"number-{number}"
        data = student.damage(notebooks.write(made).encode())
        place = folder / "submitted" / f"{number:02}-{student.name}" / ASSIGNMENT
        place.mkdir(parents=True)
        if data:
            (place / f"{ASSIGNMENT}.ipynb").write_bytes(data)
    return folder / "submitted"


class Run:
    """``autograder grade`` as a process, in a session and with a folder for temporary files."""

    def __init__(self, submitted: Path, to: Path) -> None:
        self.to = to
        self.temporary = to.with_name(f"{to.name}-tmp")
        self.temporary.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "autograder.cli", "grade", str(submitted)]
        command += ["--to", str(to), "--root", str(ROOT), "--case-seconds", CASE_SECONDS]
        self._said = self.temporary.with_suffix(".txt")
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=os.environ | {"TMPDIR": str(self.temporary)},
                start_new_session=True,
            )

    def until(self, come: Callable[[], bool], limit: float = 300.0) -> bool:
        """Waits for something to come; False where the run ended before."""
        deadline = time.monotonic() + limit
        while self.process.poll() is None:
            if come():
                return True
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.004)
        return False

    def end(self) -> int:
        """Waits for the end, and until nothing of the run is left; returns the exit status."""
        status = self.process.wait(300)
        deadline = time.monotonic() + 10
        while left := self.left():
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.02)
        return status

    def left(self) -> dict[int, str]:
        """The processes of this run: itself, bubblewrap, fork server, and what these started.

        The server's command line names the folder for temporary files, and a forked process has
        that of the one that forked it.
        """
        found = {}
        for entry in os.scandir("/proc"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                words = Path(entry.path, "cmdline").read_bytes()
                if str(self.temporary).encode() in words or os.getsid(pid) == self.process.pid:
                    state = Path(entry.path, "stat").read_text().rsplit(")", 1)[1].split()[0]
                    if state != "Z":
                        found[pid] = words.replace(b"\0", b" ")[:80].decode("utf-8", "replace")
        return found

    def output(self) -> str:
        """What it has said."""
        return self._said.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Moment:
    """When to kill: so long after so many more of these are there than when the run began."""

    what: str  # a key of `counts`, or "start" (of the process)
    more: int
    delay: float


def moments(rng: random.Random, startup: float) -> list[Moment]:
    """Ten random moments that together lead through the whole of a run, one after the other."""
    drawn = [
        Moment("start", 0, rng.uniform(0.0, startup)),
        Moment("preparing", 1, rng.uniform(0.0, 2.0)),
        *(Moment("graded", rng.randint(1, 8), rng.uniform(0.0, 0.4)) for _ in range(4)),
        *(Moment("recorded", rng.randint(1, 10), rng.uniform(0.0, 0.3)) for _ in range(2)),
    ]
    rng.shuffle(drawn)
    drawn += [Moment("all recorded", 1, rng.uniform(0.0, 0.4))]
    return [*drawn, Moment("tables", 1, rng.uniform(0.0, 0.1))]


def counts(folder: Path) -> dict[str, int]:
    """How far grading into a folder has come."""
    recorded = len(list(folder.glob("autograded/*/*/*.ipynb")))
    return {
        "graded": len(list(folder.glob(".results/*.json"))),
        "recorded": recorded,
        "pages": len(list(folder.glob("feedback/*/*/*.html"))),
        "preparing": _made(folder / ".grading" / "source"),
        "all recorded": int(recorded == 60),
        "tables": _made(folder / "grades.csv"),
    }


def _made(path: Path) -> int:
    """When a file or folder was made; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@pytest.fixture(scope="module")
def whole(submitted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The class graded without an interruption, and the seconds until the first submission ran."""
    run = Run(submitted, tmp_path_factory.mktemp("whole") / "graded")
    began = time.monotonic()
    run.until(lambda: counts(run.to)["graded"] > 0)
    startup = time.monotonic() - began
    assert run.end() == 0, run.output()
    print(f"uninterrupted: {time.monotonic() - began:.1f} s, the first result at {startup:.1f} s")
    assert check_whole(run.to, 6, run.to.parent / "looked-at") == 60
    return run.to, startup


def has_come(moment: Moment, before: dict[str, int], folder: Path) -> bool:
    """Whether it is time."""
    if moment.what == "start":
        return True
    return counts(folder)[moment.what] >= before[moment.what] + moment.more


def kill_again_and_again(
    submitted: Path, whole: Path, folder: Path, plan: list[Moment]
) -> Iterator[str]:
    """Grades into folders below ``folder``, killed as planned; yields what was hit.

    A run that ends before its moment comes has to have given the same as the one that was not
    interrupted, and a new folder is begun.
    """
    number, killed_here = 0, 0
    waiting = list(plan)
    while waiting or killed_here:
        to = folder / f"graded-{number}"
        before = counts(to)
        run = Run(submitted, to)
        if waiting:
            moment = waiting[0]
            if run.until(lambda: has_come(moment, before, to)):  # noqa: B023
                time.sleep(moment.delay)
            if run.process.poll() is None:
                os.kill(run.process.pid, signal.SIGKILL)
        began = time.monotonic()
        status = run.end()
        took = time.monotonic() - began
        now = counts(to)
        entered = check_whole(to, 6, folder / "looked-at")
        if status == -signal.SIGKILL:
            waiting.pop(0)
            killed_here += 1
            yield (
                f"{folder.name}/{to.name}: {moment.what} +{moment.more} +{moment.delay:.2f} s: "
                f"{now['graded']} graded, {now['recorded']} recorded, {entered} entered, "
                f"{now['pages']} pages; the last process was gone after {took:.2f} s"
            )
            continue
        assert status == 0, run.output()
        assert entered == 60
        assert scores(to) == scores(whole)
        same_as(whole, to)
        # What a killed run could not remove: the folder of its server, and nothing that grows.
        assert len(list(run.temporary.iterdir())) <= killed_here
        yield f"{folder.name}/{to.name}: complete after {killed_here} kills"
        number, killed_here = number + 1, 0


def same_as(whole: Path, to: Path) -> None:
    """Checks that two runs left the same files."""
    expected, got = results_of(whole), results_of(to)
    assert sorted(got) == sorted(expected)
    assert [name for name in expected if got[name] != expected[name]] == []
    for folder in (whole, to):
        with contextlib.closing(sqlite3.connect(folder / "gradebook.db")) as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_twenty_kills_change_nothing(
    submitted: Path, whole: tuple[Path, float], tmp_path: Path
) -> None:
    expected, startup = whole
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    plans = [moments(rng, startup) for _ in range(LANES)]
    assert sum(map(len, plans)) == KILLS
    lanes = [tmp_path / f"lane-{lane}" for lane in range(LANES)]
    for lane in lanes:
        lane.mkdir()

    def one(lane: int) -> list[str]:
        hits = []
        for hit in kill_again_and_again(submitted, expected, lanes[lane], plans[lane]):
            print(hit, flush=True)
            hits.append(hit)
        return hits

    began = time.monotonic()
    with ThreadPoolExecutor(LANES) as pool:
        hits = [hit for lane in pool.map(one, range(LANES)) for hit in lane]
    print(f"{KILLS} kills in {time.monotonic() - began:.0f} s")
    assert sum("complete" not in hit for hit in hits) == KILLS


def test_ctrl_c_says_how_far_it_came_and_the_next_run_goes_on(
    submitted: Path, whole: tuple[Path, float], tmp_path: Path
) -> None:
    to = tmp_path / "graded"
    run = Run(submitted, to)
    assert run.until(lambda: counts(to)["graded"] > 12)
    began = time.monotonic()
    os.kill(run.process.pid, signal.SIGINT)
    assert run.end() == 130, run.output()
    assert time.monotonic() - began < 10
    said = run.output()
    assert "Traceback" not in said
    assert "of 60 submissions" in said
    assert "The same command goes on from there." in said
    assert list(run.temporary.iterdir()) == []
    done = int(said.split("Stopped after ")[1].split()[0])
    # Everything that the message counts is in the gradebook, with its page.
    assert check_whole(to, 6, tmp_path / "looked-at") == done
    assert counts(to)["pages"] == done >= 10

    run = Run(submitted, to)
    assert run.until(lambda: (to / ".grading").exists())
    # Nobody else may grade into the same folder meanwhile.
    command = ["grade", str(submitted), "--to", str(to), "--root", str(ROOT)]
    second = CliRunner().invoke(app, command)
    assert second.exit_code == 2
    assert "Another process is grading into" in second.stderr
    assert run.end() == 0, run.output()
    same_as(whole[0], to)
    assert scores(to) == scores(whole[0])
    assert list(run.temporary.iterdir()) == []


def test_an_engine_that_is_closed_ends_what_runs_and_starts_nothing_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []
    server = engine._Server

    def start(*arguments: Any) -> Any:
        started.append(server(*arguments))
        return started[-1]

    monkeypatch.setattr(engine, "_Server", start)
    endless = engine.Job([engine.Cell("endless", "while True:\n    pass")], seed=0, seconds=60.0)
    with engine.ForkEngine() as warm, ThreadPoolExecutor(1) as pool:
        future = pool.submit(warm.run, endless)
        deadline = time.monotonic() + 120
        while not (started and started[0].busy):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        warm.close()
        began = time.monotonic()
        with contextlib.suppress(engine.EngineError):
            # Whatever comes is not to be kept as the submission's result.
            assert not future.result(60).settled
    assert time.monotonic() - began < 5
    assert len(started) == 1


# ---- kill -9 at chosen points, of grading itself ---------------------------------------------


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small course and its class."""
    return small.make(tmp_path_factory.mktemp("small") / "course")


@pytest.fixture(scope="module")
def graded(course: Path) -> Path:
    """The small class, graded without an interruption."""
    small.grade(course, course.parent / "graded")
    return course.parent / "graded"


@contextlib.contextmanager
def counting(at: Callable[[int], None]) -> Iterator[None]:
    """Calls ``at`` with 0, 1, 2 … before every SQL statement, commit, and file put in place."""
    number = -1
    lock = threading.Lock()
    replace = os.replace

    def step(*_: Any) -> None:
        nonlocal number
        with lock:
            number += 1
            at(number)

    def replaces(*arguments: Any) -> None:
        step()
        replace(*arguments)

    events = ("before_cursor_execute", "commit")
    with mock.patch("os.replace", replaces):
        for name in events:
            sqlalchemy.event.listen(sqlalchemy.engine.Engine, name, step)
        try:
            yield
        finally:
            for name in events:
                sqlalchemy.event.remove(sqlalchemy.engine.Engine, name, step)


def killed_at(step: int, course: Path, to: Path) -> int:
    """Grades in a process that is killed at a step; returns its exit status."""

    def kill(number: int) -> None:
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException), counting(kill):
            small.grade(course, to)
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_killed_at_any_step_it_goes_on_from_there(
    course: Path, graded: Path, tmp_path: Path
) -> None:
    steps: list[int] = []
    with counting(steps.append):
        small.grade(course, tmp_path / "counted")
    assert len(steps) > 200
    rng = random.Random(SEED)
    # One in each part of the run, so that all of it is met.
    chosen = [int(rng.choice(part)) for part in np.array_split(steps, STEPS)]
    print(f"seed {SEED}: killed at {chosen} of {len(steps)} steps")
    for step in chosen:
        to = tmp_path / f"graded-{step}"
        assert killed_at(step, course, to) == -signal.SIGKILL
        check_whole(to, 4, tmp_path / "looked-at")
        small.grade(course, to)
        assert check_whole(to, 4, tmp_path / "looked-at") == len(small.STUDENTS)
        assert small.tables_of(to) == small.tables_of(graded), step
        same_as(graded, to)


# ---- what is run again -----------------------------------------------------------------------


def ran(course: Path, to: Path, **more: Any) -> list[str]:
    """Grades, and says which answers to ``triple`` were run."""
    engine = Reader()
    small.grade(course, to, engine, **more)
    return [
        next(cell.source for cell in job.cells if cell.id == "triple-solution")
        for job in engine.jobs
    ]


def test_an_unchanged_class_runs_nothing(course: Path, graded: Path, tmp_path: Path) -> None:
    to = shutil.copytree(graded, tmp_path / "graded")
    before = everything_in(to)
    assert ran(course, to) == []
    assert ran(course, to, again=True) == []
    after = everything_in(to)
    for files in (before, after):
        for name in ("runs.json", "gradebook.db", "nbgrader_config.py"):
            files.pop(name)
    assert after == before
    assert small.tables_of(to) == small.tables_of(graded)


def test_a_changed_submission_is_the_only_one_that_runs(
    course: Path, graded: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(course, tmp_path / "course")
    to = shutil.copytree(graded, tmp_path / "graded")
    answer = "def triple(x):\n    return x + x + x"
    small.hand_in(root, sample.Student("ben", "", {"triple": answer}))
    small.hand_in(root, sample.Student("gus", "", {"triple": f"{answer}  # mine"}))
    assert sorted(ran(root, to)) == [answer, f"{answer}  # mine"]
    fresh = tmp_path / "fresh"
    small.grade(root, fresh)
    assert results_of(to) == results_of(fresh)
    assert small.tables_of(to) == small.tables_of(fresh)


def test_again_reruns_what_timed_out_or_was_killed_and_nothing_else(
    course: Path, tmp_path: Path
) -> None:
    root, to = shutil.copytree(course, tmp_path / "course"), tmp_path / "graded"
    small.hand_in(root, sample.Student("hal", "", {"triple": small.HANGS}))
    small.hand_in(root, sample.Student("ida", "", {"triple": small.DIES}))
    assert {small.HANGS, small.DIES} < set(ran(root, to))
    statuses = {row.student: row.status for row in small.grade(root, to).rows}
    assert (statuses["hal"], statuses["ida"]) == ("passed", "killed")
    assert ran(root, to) == []
    assert sorted(ran(root, to, again=True)) == sorted([small.HANGS, small.DIES])


def test_what_a_person_gave_between_two_runs_stays_and_is_shown(
    course: Path, graded: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(course, tmp_path / "course")
    to = shutil.copytree(graded, tmp_path / "graded")
    cells = (ASSIGNMENT, ASSIGNMENT)
    with Database(f"sqlite:///{to / 'gradebook.db'}") as book:
        book.find_grade("question-even", *cells, "ada").manual_score = 1.5
        book.find_grade("question-even", *cells, "ada").needs_manual_grade = False
        book.find_comment("question-even", *cells, "ada").manual_comment = "Well said."
        book.find_grade("triple-check", *cells, "ben").extra_credit = 0.25
        book.find_comment("triple-solution", *cells, "ben").manual_comment = "Try 5 by hand."
        book.db.commit()
    given = small.tables_of(to)

    assert ran(root, to) == []
    assert small.tables_of(to) == given
    ada, ben = (nbgrader_course.page(to, name) for name in ("ada", "ben"))
    assert "Well said." in ada
    assert "1.5" in ada
    assert "10.5" in ada  # 2 + 3 + 4 of the checks
    assert "Try 5 by hand." in ben
    assert "0.25" in ben

    # Also where the submission changes, and where the run is killed on the way.
    small.hand_in(root, sample.Student("ada", "", {"triple": nbgrader_course.SQUARED}))
    for step in (5, 90, 100, 110, 120):
        killed_at(step, root, to)
    small.grade(root, to)
    with Database(f"sqlite:///{to / 'gradebook.db'}") as book:
        grade = book.find_grade("question-even", *cells, "ada")
        # Shown to the person again, for the answer may have changed.
        assert (grade.manual_score, grade.needs_manual_grade) == (1.5, True)
        assert book.find_grade("triple-partial", *cells, "ada").auto_score == 1.0
        assert book.find_grade("triple-check", *cells, "ben").extra_credit == 0.25
    assert "Well said." in nbgrader_course.page(to, "ada")
    assert "Try 5 by hand." in nbgrader_course.page(to, "ben")
