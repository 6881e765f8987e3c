"""The class report: one HTML page about what ``autograder grade`` wrote.

Everything is counted here and set by ``templates/report.html``, which escapes all that learners
wrote. Medians, quartiles and median deviations are used throughout: one strange submission does
not move them.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar
from urllib.parse import quote

from autograder import similar
from autograder.complaints import NOT_WRITTEN
from autograder.tables import COLUMNS, Row
from autograder.verdict import points

# A median deviation times this estimates the standard deviation of normal data.
_MAD_TO_SIGMA = 1.4826
SLOW_TIMES, SLOW_DEVIATIONS, SLOW_SECONDS = 3, 5, 0.5
LOW_SHARE, LOW_DEVIATIONS, LOW_LOST = 0.5, 2.5, 0.25
FAR, FAR_EXERCISES, FAR_STUDENTS = 0.75, 4, 5
HARD_RATE, HARD_STUDENTS = 0.25, 5

RULES = {
    "help": (
        f"Listed is who has fewer than {LOW_SHARE:.0%} of the points, or lies more than "
        f"{LOW_DEVIATIONS} deviations below the class's median and has lost {LOW_LOST:.0%} of the "
        "points or more; whose code does not run in half of the exercises or more; and whose code "
        "did not end or was stopped. A deviation is the median distance from the median × "
        f"{_MAD_TO_SIGMA}. Lowest points first."
    ),
    "slow": (
        f"Slow is a submission that took more than {SLOW_TIMES} times the class's median, more "
        f"than {SLOW_DEVIATIONS} deviations (median distance from the median × {_MAD_TO_SIGMA}) "
        f"above it, and at least {SLOW_SECONDS:g} s more."
    ),
    "far": (
        "Unexpected is a result that is at least "
        f"{FAR:.0%} of the exercise's points away both from the median of the student's own other "
        "exercises and from what at least three quarters of the class got there. Asked only of "
        f"assignments with {FAR_EXERCISES} exercises or more, and {FAR_STUDENTS} students or more "
        "who handed in."
    ),
    "hard": (
        f"Hard for the whole class is an exercise that at most {HARD_RATE:.0%} of at least "
        f"{HARD_STUDENTS} students who handed in have passed. Look at the exercise, too."
    ),
    "similar": similar.RULE,
}

# What the runner says of an exercise that still holds what learners were given.
_WORDS = {"error": "with errors", "timeout": "without end", "killed": "died"}
_RUN_ENDED = {
    "timeout": "the run was stopped: it took too long",
    "killed": "the process died while it ran",
}


class ReportError(Exception):
    """There is no report to make; the text says why, and what to run."""


# ---- reading ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """How one submission ran.

    Attributes:
        seconds: what running it took; None where it was not run or nothing is known.
        status: finished, timeout or killed; empty where nothing is known.
        notes: what was put right before grading.
        checks: exercise -> seconds of its graded cell.
        in_process: the graded cells that were tested beside the learner's code.
    """

    seconds: float | None = None
    status: str = ""
    notes: tuple[str, ...] = ()
    checks: Mapping[str, float] = field(default_factory=dict)
    in_process: tuple[str, ...] = ()


def read_rows(folder: Path) -> list[Row]:
    """The rows of ``grades.json`` in a folder that ``autograder grade`` wrote.

    Raises:
        ReportError: it is not there, or is not what ``autograder grade`` writes.
    """
    path = folder / "grades.json"
    again = f"Grade again: autograder grade SUBMITTED --to {folder}"
    if not path.is_file():
        raise ReportError(
            f"There is no {path}. Grade a class first: autograder grade SUBMITTED --to {folder}"
        )
    raw = _read_json(path, again)
    if not isinstance(raw, list) or not raw:
        what = "holds no grades" if raw == [] else "is not a list of grades"
        raise ReportError(f"{path} {what}. {again}")
    return [_row(item, f"{path}, entry {number}", again) for number, item in enumerate(raw, 1)]


def _read_json(path: Path, next_step: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{path} cannot be read: {error.strerror}.") from None
    except json.JSONDecodeError as error:
        raise ReportError(f"{path} is not valid JSON (line {error.lineno}). {next_step}") from None
    except (ValueError, RecursionError):
        raise ReportError(f"{path} is not valid JSON. {next_step}") from None


def _row(item: Any, where: str, next_step: str) -> Row:
    if not isinstance(item, dict):
        raise ReportError(f"{where}: not a grade. {next_step}")
    values = {name: item.get(name) for name in COLUMNS}
    for name, value in values.items():
        if name in ("points", "max_points"):
            if not _is_number(value):
                raise ReportError(f"{where}: {name} is {value!r:.40}, not a number. {next_step}")
        elif not isinstance(value, str):
            raise ReportError(f"{where}: {name} is {value!r:.40}, not text. {next_step}")
    return Row(**values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def read_runs(folder: Path) -> dict[str, Run]:
    """How every submission ran, ``<student>/<assignment>`` -> :class:`Run`; {} where not recorded.

    Raises:
        ReportError: ``runs.json`` is there and damaged.
    """
    path = folder / "runs.json"
    if not path.is_file():
        return {}
    again = (
        f"Delete it for a report without times, or run: autograder grade SUBMITTED --to {folder}"
    )
    raw = _read_json(path, again)
    if not isinstance(raw, dict) or not all(isinstance(run, dict) for run in raw.values()):
        raise ReportError(f"{path} does not say how submissions ran. {again}")
    return {name: _run(run) for name, run in raw.items()}


def _run(raw: Mapping[str, Any]) -> Run:
    checks = raw.get("checks")
    seconds = raw.get("seconds")
    return Run(
        # What could not be run took no time.
        seconds=float(seconds) if _is_number(seconds) and seconds > 0 else None,
        status=str(raw.get("status") or ""),
        notes=_texts(raw.get("notes")),
        checks={
            name: float(value)
            for name, value in (checks.items() if isinstance(checks, dict) else ())
            if _is_number(value)
        },
        in_process=_texts(raw.get("in_process")),
    )


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


# ---- counting --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """One student's rows of one assignment, and how the submission ran."""

    student: str
    rows: tuple[Row, ...]
    run: Run

    @property
    def missing(self) -> bool:
        """Whether nothing was handed in."""
        return all(row.status == "missing" for row in self.rows)

    @property
    def passed(self) -> bool:
        """Whether every exercise has been passed."""
        return all(row.status == "passed" for row in self.rows)

    @property
    def earned(self) -> float:
        """The points of all exercises."""
        return sum(row.points for row in self.rows)

    @property
    def whole(self) -> float:
        """The points that there are."""
        return sum(row.max_points for row in self.rows)

    @property
    def share(self) -> float:
        """Earned points, as a part of all: 0 to 1."""
        return self.earned / self.whole if self.whole else float(self.passed)


def _share(row: Row) -> float:
    return row.points / row.max_points if row.max_points else float(row.status == "passed")


@dataclass(frozen=True)
class Finding:
    """A sentence and the students that it is about."""

    text: str
    students: tuple[str, ...]
    exercise: str = ""


@dataclass(frozen=True)
class Listed:
    """A student, and why the report lists this one."""

    student: str
    reasons: tuple[str, ...]
    earned: float = 0.0
    whole: float = 0.0


@dataclass(frozen=True)
class ExerciseCount:
    """How a class did on one exercise.

    Attributes:
        handed_in: students who handed the assignment in.
        passed: of these, with full points.
        statuses: status -> students who handed in, ``passed`` left out.
        mean, max_points: points.
        seconds: median time of the exercise's graded cell; None where not recorded.
        in_process: whether it was tested beside the learner's code.
    """

    name: str
    handed_in: int
    passed: int
    statuses: Mapping[str, int]
    mean: float
    max_points: float
    seconds: float | None
    in_process: bool

    @property
    def rate(self) -> float:
        """The part of those who handed in that passed: 0 to 1."""
        return self.passed / self.handed_in if self.handed_in else 0.0


@dataclass(frozen=True)
class AssignmentReport:
    """What the page says about one assignment."""

    name: str
    results: list[Result]
    bins: list[tuple[str, int]]
    exercises: list[ExerciseCount]
    misconceptions: list[Finding]
    messages: list[Finding]
    help: list[Listed]
    missing: list[str]
    slow: list[Listed]
    far: list[Listed]
    hard: list[ExerciseCount]
    similar: list[similar.Group]
    notes: list[Finding]

    @property
    def handed_in(self) -> list[Result]:
        """The results of those who handed in."""
        return [result for result in self.results if not result.missing]

    @property
    def passed(self) -> int:
        """How many passed everything."""
        return sum(result.passed for result in self.results)

    @property
    def whole(self) -> float:
        """The points that there are."""
        return max(result.whole for result in self.results)

    @property
    def seconds(self) -> float | None:
        """Median run time of a submission; None where not recorded."""
        return _median(_times(self.results))

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """First quartile, median and third quartile of the points of those who handed in."""
        return _quartiles([result.earned for result in self.handed_in])


def assignment_report(
    name: str, rows: Sequence[Row], runs: Mapping[str, Run], groups: list[similar.Group]
) -> AssignmentReport:
    """Counts the rows of one assignment.

    Args:
        name: the assignment.
        rows: its rows, at least one.
        runs: what :func:`read_runs` gives.
        groups: what :func:`autograder.similar.similar` gives for it.
    """
    results = [
        Result(student, tuple(mine), runs.get(f"{student}/{name}", Run()))
        for student, mine in _grouped(rows, lambda row: row.student).items()
    ]
    handed_in = [result for result in results if not result.missing]
    exercises = _exercises(handed_in or results)
    failures = [row for result in handed_in for row in result.rows if row.status != "passed"]
    unnamed = [row for row in failures if not row.misconception]
    return AssignmentReport(
        name=name,
        results=results,
        bins=_bins(handed_in),
        exercises=exercises,
        misconceptions=_findings(
            [row for row in failures if row.misconception],
            lambda row: (row.exercise, row.misconception),
            lambda row: row.misconception,
        ),
        messages=_messages(unnamed),
        help=_who_needs_help(handed_in),
        missing=[result.student for result in results if result.missing],
        slow=_slow(handed_in),
        far=_far(handed_in),
        hard=[
            count
            for count in exercises
            if len(handed_in) >= HARD_STUDENTS and count.rate <= HARD_RATE
        ],
        similar=groups,
        notes=_notes(results),
    )


_Key = TypeVar("_Key", bound=Hashable)


def _grouped(rows: Iterable[Row], key: Callable[[Row], _Key]) -> dict[_Key, list[Row]]:
    groups: dict[_Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _times(results: Iterable[Result]) -> list[float]:
    return [result.run.seconds for result in results if result.run.seconds is not None]


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _deviation(values: Sequence[float]) -> float:
    middle = median(values)
    return _MAD_TO_SIGMA * median(abs(value - middle) for value in values)


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return (*values, *values, *values) if values else (0.0, 0.0, 0.0)
    first, middle, third = quantiles(values, n=4, method="inclusive")
    return first, middle, third


def _bins(results: Iterable[Result]) -> list[tuple[str, int]]:
    """How many students lie in each tenth of the points; full points stand by themselves."""
    # Points are rounded to cents when they are written; 0.7 of them is not always 0.7 here.
    counts = Counter(min(int(result.share * 10 + 1e-9), 10) for result in results)
    labels = [f"{10 * tenth}–{10 * tenth + 10}%" for tenth in range(10)] + ["all points"]
    return [(label, counts[tenth]) for tenth, label in enumerate(labels)]


def _exercises(results: Sequence[Result]) -> list[ExerciseCount]:
    counts = []
    rows = _grouped((row for result in results for row in result.rows), lambda row: row.exercise)
    for name, mine in rows.items():
        statuses = Counter(row.status for row in mine)
        times = [run.checks[name] for run in (r.run for r in results) if name in run.checks]
        counts.append(
            ExerciseCount(
                name=name,
                handed_in=sum(row.status != "missing" for row in mine),
                passed=statuses.pop("passed", 0),
                statuses={
                    status: count for status, count in statuses.most_common() if status != "missing"
                },
                mean=sum(row.points for row in mine) / len(mine),
                max_points=max(row.max_points for row in mine),
                seconds=_median(times),
                in_process=any(name in result.run.in_process for result in results),
            )
        )
    return counts


def _findings(
    rows: Iterable[Row], key: Callable[[Row], Hashable], text: Callable[[Row], str]
) -> list[Finding]:
    """Rows with one key as one finding; the most frequent first."""
    found = []
    for mine in _grouped(rows, key).values():
        students = tuple(dict.fromkeys(row.student for row in mine))
        usual = Counter(map(text, mine)).most_common(1)[0][0]
        names = tuple(dict.fromkeys(row.exercise for row in mine))
        found.append(Finding(usual, students, names[0] if len(names) == 1 else ""))
    return sorted(found, key=lambda finding: -len(finding.students))


def _messages(rows: Sequence[Row]) -> list[Finding]:
    """The messages of failures without a named misconception.

    Messages that differ only in numbers are one: they tell of other inputs, not other mistakes.
    One that stands at several exercises of the same student is about the whole submission.
    """

    def key(row: Row) -> Hashable:
        if text(row) == NOT_WRITTEN:
            return NOT_WRITTEN
        repeated = counts[row.student, row.message] > 1
        return ("" if repeated else row.exercise, re.sub(r"\d+(?:\.\d+)?", "0", row.message))

    def text(row: Row) -> str:
        return NOT_WRITTEN if row.message.endswith(NOT_WRITTEN) else row.message

    counts = Counter((row.student, row.message) for row in rows)
    return _findings(rows, key, text)


def _who_needs_help(results: Sequence[Result]) -> list[Listed]:
    shares = [result.share for result in results]
    middle, deviation = (median(shares), _deviation(shares)) if shares else (0.0, 0.0)
    listed = []
    for result in results:
        reasons = []
        if result.share < LOW_SHARE:
            reasons.append(f"{result.share:.0%} of the points")
        elif result.share < middle - LOW_DEVIATIONS * deviation and result.share <= 1 - LOW_LOST:
            reasons.append(f"{result.share:.0%} of the points, far below the median {middle:.0%}")
        reasons += _trouble(result)
        if reasons:
            listed.append(Listed(result.student, tuple(reasons), result.earned, result.whole))
    shares_of = {result.student: result.share for result in results}
    return sorted(listed, key=lambda entry: (shares_of[entry.student], -len(entry.reasons)))


def _trouble(result: Result) -> list[str]:
    """What else than points says that a student is stuck."""
    reasons = []
    whole = len(result.rows)
    errors = [row for row in result.rows if row.status == "error"]
    if len(errors) * 2 >= whole:
        same = {row.message for row in errors}
        unwritten = sum(row.message.endswith(NOT_WRITTEN) for row in errors)
        if unwritten == len(errors):
            what = "nothing" if unwritten == whole else f"{unwritten} of {whole} exercises not"
            reasons.append(f"{what} written yet")
        elif len(same) == 1 and len(errors) == whole > 1:
            reasons.append(f"nothing could be graded: {_cut(same.pop(), 160)}")
        else:
            reasons.append(f"errors in {len(errors)} of {whole} exercises")
    for status, words in (("timeout", "does not end"), ("killed", "the process died")):
        names = [row.exercise for row in result.rows if row.status == status]
        if names and result.run.status != status:
            reasons.append(f"{words}: {_cut(', '.join(names), 160)}")
    if result.run.status in _RUN_ENDED:
        reasons.append(_RUN_ENDED[result.run.status])
    return reasons


def _slow(results: Sequence[Result]) -> list[Listed]:
    times = _times(results)
    if not times:
        return []
    middle, deviation = median(times), _deviation(times)
    limit = max(SLOW_TIMES * middle, middle + SLOW_DEVIATIONS * deviation, middle + SLOW_SECONDS)
    slow = [r for r in results if r.run.seconds is not None and r.run.seconds > limit]
    return [
        Listed(
            result.student,
            (f"{seconds(result.run.seconds)}; the class's median is {seconds(middle)}",),
        )
        for result in sorted(slow, key=lambda result: -(result.run.seconds or 0))
    ]


def _far(results: Sequence[Result]) -> list[Listed]:
    if len(results) < FAR_STUDENTS:
        return []
    by_exercise: dict[str, list[float]] = {}
    for result in results:
        for row in result.rows:
            by_exercise.setdefault(row.exercise, []).append(_share(row))
    usual = {name: _quartiles(shares) for name, shares in by_exercise.items()}
    found = []
    for result in results:
        if len(result.rows) < FAR_EXERCISES:
            continue
        for position, row in enumerate(result.rows):
            mine = _share(row)
            others = [_share(o) for at, o in enumerate(result.rows) if at != position]
            own, (first, _, third) = median(others), usual[row.exercise]
            # Cents again: 0.25 of 3 points and 1 are 0.75 apart.
            below = min(own, first) - mine >= FAR - 1e-9
            above = mine - max(own, third) >= FAR - 1e-9
            if below or above:
                reason = (
                    f"{row.exercise}: {points(row.points)} of {points(row.max_points)} points; "
                    f"the median of the other exercises is {own:.0%}"
                )
                found.append((abs(mine - own), Listed(result.student, (reason,))))
    return [listed for _, listed in sorted(found, key=lambda entry: -entry[0])]


def _notes(results: Iterable[Result]) -> list[Finding]:
    students: dict[str, list[str]] = {}
    for result in results:
        for note in dict.fromkeys(result.run.notes):
            # Why nothing could be graded is told as the message of every exercise.
            if all(" ".join(note.split()) != row.message for row in result.rows):
                students.setdefault(note, []).append(result.student)
    found = [Finding(note, tuple(names)) for note, names in students.items()]
    return sorted(found, key=lambda finding: -len(finding.students))


# ---- the page --------------------------------------------------------------------------------


def write_report(folder: Path, to: Path | None = None) -> Path:
    """Writes the class report: one HTML page that needs no other file and no network.

    Args:
        folder: what ``autograder grade`` wrote.
        to: the page; ``report.html`` in the folder where None.

    Returns:
        Where the page is.

    Raises:
        ReportError: there are no grades, they are damaged, or the page cannot be written.
    """
    folder = Path(folder)
    to = folder / "report.html" if to is None else Path(to)
    rows, runs = read_rows(folder), read_runs(folder)
    reports = []
    for name, mine in sorted(_grouped(rows, lambda row: row.assignment).items()):
        answers = similar.load(folder, name, dict.fromkeys(row.student for row in mine))
        groups = similar.similar(answers.written, answers.given)
        reports.append(assignment_report(name, mine, runs, groups))
    graded = datetime.fromtimestamp((folder / "grades.json").stat().st_mtime)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        page = render(reports, graded, bool(runs), feedback_link(folder, to.parent))
        to.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise ReportError(f"{to} cannot be written: {error.strerror}. Name a file: --to") from None
    return to


def render(
    reports: Sequence[AssignmentReport],
    graded: datetime,
    timed: bool,
    link: Callable[[str, str], str] = lambda student, assignment: "",
) -> str:
    """The page as HTML.

    Args:
        reports: one per assignment.
        graded: when the grades were written.
        timed: whether run times were recorded.
        link: student, assignment -> where the student's feedback page is; empty for none.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "points": points,
        "percent": lambda share: f"{share:.0%}",
        "seconds": seconds,
        "cut": _cut,
        "breakable": _breakable,
    }
    listed = Counter(
        student
        for report in reports
        for student in {entry.student for entry in report.help} | set(report.missing)
    )
    return environment.get_template("report.html").render(
        reports=reports,
        students=len({result.student for report in reports for result in report.results}),
        graded=graded,
        timed=timed,
        link=link,
        rules=RULES,
        words=_WORDS,
        often=sorted(
            ((student, count) for student, count in listed.items() if count > 1),
            key=lambda entry: (-entry[1], entry[0]),
        ),
    )


def feedback_link(folder: Path, base: Path) -> Callable[[str, str], str]:
    """student, assignment -> the feedback page's address, relative to ``base``; else empty."""

    def link(student: str, assignment: str) -> str:
        path = folder / "feedback" / student / assignment / f"{assignment}.html"
        try:
            if not path.is_file():
                return ""
            return quote(Path(os.path.relpath(path, base)).as_posix())
        except (OSError, ValueError):  # a name that no file can have; another drive
            return ""

    return link


def seconds(value: float) -> str:
    """A time as people read it: 12 ms, 0.41 s, 75 s."""
    if value < 0.0995:
        return f"{1000 * value:.0f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:,.0f} s"


def _cut(text: str, length: int = 300) -> str:
    """``text`` in one line, cut where it is longer."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _breakable(text: str) -> Any:
    """``text``, escaped, where a line may break after / and _, as names of exercises have them."""
    from markupsafe import Markup, escape

    return escape(text).replace("/", Markup("/<wbr>")).replace("_", Markup("_<wbr>"))
