"""Grades for an LMS: nbgrader's gradebook as the CSV that Canvas or Moodle imports.

``nbgrader export --exporter=autograder.exports.CanvasExportPlugin`` works too.
"""

from __future__ import annotations

import csv
import functools
import html
import io
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook, MissingEntry
from nbgrader.plugins import ExportPlugin
from traitlets import Unicode

from autograder import release
from autograder.collect import folder_name
from autograder.files import keep
from autograder.tables import safe_cell
from autograder.verdict import points

# What Canvas puts above the students, beside the maxima: which grades are hidden.
_HIDDEN = re.compile(r"\s*(Muted|Manual Posting.*)?\s*", re.IGNORECASE)


class ExportError(Exception):
    """Nothing can be exported; the text says what was found and what to do."""


@dataclass(frozen=True)
class Written:
    """What exporting gave.

    Attributes:
        path: the CSV.
        students: how many of the gradebook are in it.
        notes: what an instructor should know, one sentence each.
    """

    path: Path
    students: int
    notes: list[str]


@dataclass(frozen=True)
class _Mark:
    """A student's result in one assignment, with manual grades, extra credit and penalties."""

    score: float
    feedback: str
    waits: bool


@dataclass(frozen=True)
class _Student:
    """A student of the gradebook, as far as it knows them."""

    id: str
    name: str
    email: str
    lms_id: str
    marks: Mapping[str, _Mark]


@dataclass(frozen=True)
class _Person:
    """A student of the roster.

    Attributes:
        row: the cells of the roster, by column.
        ids: whatever identifies them alone.
        number: the LMS's own.
        names: as the LMS writes them.
    """

    row: Mapping[str, str]
    ids: frozenset[str]
    number: str
    names: frozenset[str]

    @functools.cached_property
    def forms(self) -> set[str]:
        """The names as ``collect`` makes folders of them, letters and digits alone."""
        return {_letters(folder_name(name)) for name in self.names} - {""}

    @functools.cached_property
    def mailboxes(self) -> set[str]:
        """What stands before the @ of their addresses."""
        return {one.partition("@")[0] for one in self.ids if "@" in one}


@dataclass
class _Roster:
    """The CSV that an LMS gave."""

    path: Path
    columns: list[str] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)


# ---- the two forms ---------------------------------------------------------------------------


class _LmsExportPlugin(ExportPlugin):
    """Writes one row for each student of the gradebook and of the roster."""

    roster = Unicode("", help="the CSV that the LMS exported").tag(config=True)

    default_to = "grades.csv"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.notes: list[str] = []
        self.students = 0

    def export(self, gradebook: Gradebook) -> None:
        """Writes the CSV.

        Raises:
            ExportError: an unknown assignment, an unusable roster, or grades that the LMS would
                take for others.
        """
        maxima = _maxima(gradebook, self.assignment)
        chosen = {str(student) for student in self.student}
        students = [
            student
            for student in _students(gradebook, maxima)
            if not chosen or student.id in chosen
        ]
        self.students, self.notes = len(students), _waiting(students)
        roster = _read(Path(self.roster)) if self.roster else None
        if roster is None:
            self.notes.append(
                "Without a roster, students are named as in the gradebook. If the LMS does not "
                "know these names, add --roster with the CSV that it exports."
            )
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in self._rows(students, maxima, roster):
            writer.writerow([_safe(value) for value in row])
        keep(Path(self.to or self.default_to), text.getvalue())
        for note in self.notes:
            self.log.warning(note)

    def _rows(
        self, students: Sequence[_Student], maxima: Mapping[str, float], roster: _Roster | None
    ) -> Iterable[list[str]]:
        raise NotImplementedError

    def _pair(
        self,
        students: Sequence[_Student],
        roster: _Roster,
        person: Callable[[dict[str, str]], _Person],
    ) -> list[tuple[dict[str, str], _Student | None]]:
        """The roster's rows, each with its student of the gradebook; the rest is noted."""
        people = [person(row) for row in roster.rows]
        matched, reasons = _match(students, people)
        rows = [(row, matched.get(index)) for index, row in enumerate(roster.rows)]
        absent = [
            " ".join(value for value in sorted(person.names)[:1]) or person.number
            for index, person in enumerate(people)
            if index not in matched
        ]
        if reasons:
            self.notes.append(
                f"Not in {roster.path.name}: {'; '.join(reasons)}. They are at the end of the "
                "file; fill in who they are before you import it."
            )
        if absent:
            self.notes.append(
                f"Only in {roster.path.name}: {'; '.join(absent)}. Their grades stay as they are."
            )
        return rows


class CanvasExportPlugin(_LmsExportPlugin):
    """For *Grades → Import* in Canvas: a column for each assignment.

    The roster is what *Grades → Export* gives. Where it has a column of the same title, the grades
    go into that; otherwise Canvas asks to which assignment they belong.
    """

    default_to = "canvas.csv"

    _COLUMNS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")

    def _rows(
        self, students: Sequence[_Student], maxima: Mapping[str, float], roster: _Roster | None
    ) -> Iterable[list[str]]:
        columns, titles, rows = list(self._COLUMNS), {name: name for name in maxima}, []
        if roster:
            missing = [name for name in ("ID", "Section") if name not in roster.columns]
            if missing or not {"Student", "LastName"} & set(roster.columns):
                raise ExportError(
                    f"{roster.path} is no export of Canvas' gradebook: it has no column "
                    f"{' and '.join(missing) or 'Student'}. Take what Grades, Export gives."
                )
            columns = roster.columns[: roster.columns.index("Section") + 1]
            titles |= self._titles(roster, maxima)
            roster.rows = [row for row in roster.rows if not _is_heading(row, roster.columns[0])]
            rows = self._pair(students, roster, _canvas_person)
        placed = {student.id for _, student in rows if student}
        rows += [(self._row(student), student) for student in students if student.id not in placed]

        yield [*columns, *titles.values()]
        yield ["    Points Possible", *[""] * (len(columns) - 1), *map(points, maxima.values())]
        for row, student in rows:
            scores = [
                points(student.marks[name].score) if student else row.get(title, "")
                for name, title in titles.items()
            ]
            yield [*(row.get(column, "") for column in columns), *scores]

    def _titles(self, roster: _Roster, maxima: Mapping[str, float]) -> dict[str, str]:
        """The roster's own columns for our assignments, such as ``Attention (4711)``."""
        found = {}
        for title in roster.columns[roster.columns.index("Section") + 1 :]:
            for name, maximum in maxima.items():
                if _letters(re.sub(r"\s\(\d+\)$", "", title)) == _letters(name):
                    found[name] = title
                    theirs = _number(
                        next(
                            (r[title] for r in roster.rows if _is_points(r, roster.columns[0])), ""
                        )
                    )
                    if theirs is not None and theirs != maximum:
                        self.notes.append(
                            f"{title} has {points(theirs)} points in Canvas; the import sets them "
                            f"to {points(maximum)}."
                        )
        return found

    @staticmethod
    def _row(student: _Student) -> dict[str, str]:
        name = student.name or student.id
        return {
            "Student": name,
            "LastName": name,
            "ID": student.lms_id,
            "SIS Login ID": student.id,
        }


class MoodleExportPlugin(_LmsExportPlugin):
    """For *Upload grading worksheet* of one Moodle assignment, or for the gradebook's CSV import.

    The roster is what *Download grading worksheet* gives; all its columns are carried over.
    """

    default_to = "moodle.csv"

    _COLUMNS = (
        "Identifier",
        "Full name",
        "Email address",
        "Grade",
        "Maximum grade",
        "Last modified (grade)",
        "Feedback comments",
    )

    def _rows(
        self, students: Sequence[_Student], maxima: Mapping[str, float], roster: _Roster | None
    ) -> Iterable[list[str]]:
        if len(maxima) != 1:
            raise ExportError(
                f"Moodle takes one assignment in a file, and the gradebook has {len(maxima)}. "
                f"Choose with --assignment: {', '.join(maxima)}."
            )
        [(assignment, maximum)] = maxima.items()
        columns, rows = list(self._COLUMNS), []
        if roster:
            missing = [name for name in ("Identifier", "Grade") if name not in roster.columns]
            if missing:
                raise ExportError(
                    f"{roster.path} is no grading worksheet: it has no column "
                    f"{' and '.join(missing)}. Set Moodle's language to English, and take what "
                    "Download grading worksheet gives."
                )
            columns = roster.columns
            self._check_maximum(roster, maximum)
            rows = self._pair(students, roster, _moodle_person)
            if "Feedback comments" not in columns:
                self.notes.append(
                    "The worksheet has no column Feedback comments, so none are exported. Switch "
                    "them on in the assignment's settings, and download it again."
                )
        placed = {student.id for _, student in rows if student}
        rows += [
            (self._row(student, maximum), student)
            for student in students
            if student.id not in placed
        ]
        over = [s.id for s in students if s.marks[assignment].score > maximum]
        if over:
            self.notes.append(
                f"More than {points(maximum)} points: {', '.join(over)}. Moodle's worksheet leaves "
                "such grades out; enter them in its gradebook."
            )
        yield columns
        for row, student in rows:
            if student:
                mark = student.marks[assignment]
                row = row | {"Grade": points(mark.score), "Feedback comments": mark.feedback}
            yield [row.get(column, "") for column in columns]

    @staticmethod
    def _check_maximum(roster: _Roster, maximum: float) -> None:
        column = next((c for c in roster.columns if c.lower() == "maximum grade"), None)
        for row in roster.rows if column else ():
            theirs = _number(row[column or ""])
            if theirs is not None and theirs != maximum:
                raise ExportError(
                    f"The assignment has {points(theirs)} points in Moodle and {points(maximum)} "
                    f"here, so every grade would be wrong. Set its maximum grade to "
                    f"{points(maximum)} in Moodle, and download the worksheet again."
                )

    @staticmethod
    def _row(student: _Student, maximum: float) -> dict[str, str]:
        return {
            "Identifier": f"Participant {student.lms_id}" if student.lms_id else "",
            "Full name": student.name or student.id,
            "Email address": student.email or (student.id if "@" in student.id else ""),
            "Maximum grade": points(maximum),
            "Last modified (grade)": "-",
        }


PLUGINS = {"canvas": CanvasExportPlugin, "moodle": MoodleExportPlugin}


def export(
    folder: Path,
    form: str,
    roster: Path | None = None,
    to: Path | None = None,
    assignments: Sequence[str] = (),
) -> Written:
    """Writes the grades of a class as an LMS takes them.

    Args:
        folder: what ``autograder grade`` wrote.
        form: ``canvas`` or ``moodle``.
        roster: the CSV that the LMS exported; without it, rows carry our student ids.
        to: the CSV; ``<form>.csv`` in ``folder`` where None.
        assignments: which; all where empty.

    Raises:
        ExportError: no such folder or form, an unusable gradebook or roster.
    """
    from sqlalchemy.exc import SAWarning, SQLAlchemyError

    folder, database = Path(folder), Path(folder) / "gradebook.db"
    if form not in PLUGINS:
        raise ExportError(f"There is no format {form}. There is: {', '.join(PLUGINS)}.")
    if not database.is_file():
        raise ExportError(
            f"There is no gradebook {database}. Name the folder that autograder grade wrote."
        )
    path = Path(to) if to else folder / PLUGINS[form].default_to
    with release.tools_on_path(), release.kept_log() as (log, _), warnings.catch_warnings():
        # nbgrader's own queries cause them; an instructor can do nothing about it.
        warnings.simplefilter("ignore", SAWarning)
        plugin = PLUGINS[form](
            log=log, to=str(path), assignment=list(assignments), roster=str(roster or "")
        )
        try:
            with Gradebook(f"sqlite:///{database.absolute()}") as gradebook:
                plugin.export(gradebook)
        except SQLAlchemyError as error:
            raise ExportError(
                f"{database} is no gradebook of nbgrader's ({str(error).splitlines()[0]}). Grade "
                "into a new folder."
            ) from error
        except OSError as error:
            raise ExportError(
                f"Cannot write {path}: {error.strerror}. Choose another --to."
            ) from error
    return Written(path, plugin.students, plugin.notes)


# ---- the gradebook ---------------------------------------------------------------------------


def _maxima(gradebook: Gradebook, chosen: Sequence[str]) -> dict[str, float]:
    known = {one.name: float(one.max_score or 0) for one in gradebook.assignments}
    chosen = [str(name) for name in chosen]
    unknown = [name for name in chosen if name not in known]
    if unknown or not known:
        raise ExportError(
            f"The gradebook has no assignment {', '.join(unknown) or 'yet'}. "
            f"It has: {', '.join(sorted(known)) or 'none'}."
        )
    return {name: known[name] for name in sorted(known) if not chosen or name in chosen}


def _students(gradebook: Gradebook, maxima: Mapping[str, float]) -> list[_Student]:
    return [
        _Student(
            id=one.id,
            name=" ".join(filter(None, (one.first_name, one.last_name))),
            email=one.email or "",
            lms_id=one.lms_user_id or "",
            marks={name: _mark(gradebook, name, one.id) for name in maxima},
        )
        for one in sorted(gradebook.students, key=lambda one: one.id)
    ]


def _mark(gradebook: Gradebook, assignment: str, student: str) -> _Mark:
    """As nbgrader's own export counts: what was not handed in is 0, and a penalty takes no more."""
    try:
        submission = gradebook.find_submission(assignment, student)
    except MissingEntry:
        return _Mark(0.0, "", False)
    penalty = submission.late_submission_penalty or 0.0
    lines = []
    for notebook in submission.notebooks:
        comments = {one.name: one.comment for one in notebook.comments if one.comment}
        for grade in sorted(notebook.grades, key=lambda grade: grade.name):
            lines.append(f"{grade.name}: {points(grade.score)} / {points(grade.max_score)}")
        lines += [f"{name}: {comment}" for name, comment in sorted(comments.items())]
    if penalty:
        lines.append(f"Handed in late: {points(-penalty)}")
    # Moodle shows feedback as HTML.
    feedback = "<br>".join("<br>".join(html.escape(line).splitlines()) for line in lines)
    score = max(0.0, (submission.score or 0.0) - penalty)
    return _Mark(score, feedback, bool(submission.needs_manual_grade))


def _waiting(students: Iterable[_Student]) -> list[str]:
    waiting: dict[str, list[str]] = {}
    for student in students:
        for name, mark in student.marks.items():
            if mark.waits:
                waiting.setdefault(name, []).append(student.id)
    return [
        f"{name}: {len(ids)} of the submissions still wait for grading by hand ({', '.join(ids)})."
        for name, ids in waiting.items()
    ]


# ---- the roster ------------------------------------------------------------------------------


def _read(path: Path) -> _Roster:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ExportError(f"Cannot read the roster {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ExportError(
            f"The roster {path} is not UTF-8. Take the file as the LMS gave it, not as a "
            "spreadsheet saved it."
        ) from error
    first = text.partition("\n")[0]
    # Canvas and Moodle write what the user's language or settings ask for.
    delimiter = max(",;\t", key=first.count)
    try:
        lines = [line for line in csv.reader(io.StringIO(text), delimiter=delimiter) if any(line)]
    except csv.Error as error:
        raise ExportError(f"The roster {path} is no CSV: {error}.") from error
    if len(lines) < 2:
        raise ExportError(f"The roster {path} names no students. Export it from the LMS again.")
    columns = [name.strip() for name in lines[0]]
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise ExportError(
            f"The roster {path} has more than one column {', '.join(twice)}. Remove all but one."
        )
    rows = [dict(zip(columns, [*line, *[""] * len(columns)], strict=False)) for line in lines[1:]]
    return _Roster(path, columns, rows)


def _is_points(row: Mapping[str, str], first: str) -> bool:
    return "Points Possible" in row[first]


def _is_heading(row: Mapping[str, str], first: str) -> bool:
    return _is_points(row, first) or all(_HIDDEN.fullmatch(value) for value in row.values())


def _canvas_person(row: dict[str, str]) -> _Person:
    last, _, first = row.get("Student", "").partition(",")
    full = row.get("Student") or f"{row.get('LastName', '')}, {row.get('FirstName', '')}"
    swapped = (
        f"{first} {last}" if first else f"{row.get('FirstName', '')} {row.get('LastName', '')}"
    )
    ids = (row.get(name, "") for name in ("SIS Login ID", "SIS User ID", "ID", "Integration ID"))
    return _Person(
        row, _keys(ids), row["ID"].strip(), frozenset(filter(None, (full, swapped.strip())))
    )


def _moodle_person(row: dict[str, str]) -> _Person:
    number = re.search(r"(.*?)\s*(\d+)$", row["Identifier"].strip())
    # Where identities are hidden, Moodle calls everybody what it calls them in the identifier.
    names = (row.get("Full name", ""), number[1] if number else "")
    ids = (row.get(n, "") for n in ("Username", "ID number", "Email address", "Identifier"))
    return _Person(
        row, _keys(ids), number[2] if number else "", frozenset(filter(None, map(str.strip, names)))
    )


def _match(
    students: Sequence[_Student], people: Sequence[_Person]
) -> tuple[dict[int, _Student], list[str]]:
    """Which student belongs to which row, and for the others a reason. A doubt is no match."""
    claims: dict[int, list[_Student]] = {}
    reasons = []
    for student in students:
        hits = _hits(student, people)
        if len(hits) == 1:
            claims.setdefault(hits[0], []).append(student)
        else:
            reasons.append(f"{student.id} (fits {len(hits)} rows)" if hits else student.id)
    matched = {}
    for index, claiming in claims.items():
        if len(claiming) == 1:
            matched[index] = claiming[0]
        else:
            names = " and ".join(student.id for student in claiming)
            reasons.append(f"{names} (fit the same row)")
    return matched, reasons


def _hits(student: _Student, people: Sequence[_Person]) -> list[int]:
    """The rows that fit, by the surest sign that fits any."""
    mine = _keys((student.id, student.email, student.lms_id))
    name, _, number = student.id.rpartition("_")
    names = {_letters(student.id), _letters(student.name)} - {""}
    signs: tuple[Callable[[_Person], bool], ...] = (
        lambda person: bool(mine & person.ids),
        # The folder that collect makes: the number alone could be another's.
        lambda person: bool(name) and number == person.number and _letters(name) in person.forms,
        lambda person: _key(student.id) in person.mailboxes,
        lambda person: bool(names & person.forms),
    )
    for sign in signs:
        if hits := [index for index, person in enumerate(people) if sign(person)]:
            return hits
    return []


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", _key(name))


def _key(value: str) -> str:
    return unicodedata.normalize("NFKC", value).strip().casefold()


def _keys(values: Iterable[str]) -> frozenset[str]:
    return frozenset(filter(None, map(_key, values)))


def _number(text: str) -> float | None:
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return None


def _safe(value: str) -> str:
    """A cell that no spreadsheet runs; a lone dash is Moodle's word for nothing."""
    return value if value == "-" else safe_cell(value)
