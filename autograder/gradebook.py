"""Lets nbgrader keep the gradebook, the autograded notebooks and the feedback pages."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbgrader.utils import compute_checksum, determine_grade, parse_utc
from sqlalchemy import text
from traitlets.config import Config

from autograder import notebooks, release
from autograder.assignment import Assignment, GradingError, load_assignment, load_pack
from autograder.feedback import Pages
from autograder.files import keep
from autograder.marking import Graded
from autograder.notebooks import Chapter, SourceError

# Inside the folder of a class: what earlier runs gave, by hash.
CACHE = ".results"


@dataclass(frozen=True)
class Submission:
    """One student's submission of one assignment, and where its notebook should be."""

    student: str
    assignment: str
    path: Path


@dataclass(frozen=True)
class Gradebook:
    """A folder with nbgrader's gradebook; :class:`Writer` writes into it.

    Attributes:
        folder: gets ``gradebook.db``, ``autograded/`` and ``feedback/``.
        work: inside it; holds the course's copy while grading.
        root: the course, whose nbgrader settings hold (late penalties, for one).
    """

    folder: Path
    work: Path
    root: Path

    @property
    def database(self) -> str:
        """The gradebook as SQLAlchemy names it."""
        return f"sqlite:///{self.folder / 'gradebook.db'}"

    def prepare(
        self, chapters: Sequence[Chapter], references: Path | None = None
    ) -> dict[str, Assignment]:
        """Enters the assignments into the gradebook, and loads the course's copies.

        Raises:
            GradingError: a source or a pack is unusable, or the gradebook is another edition's.
        """
        self._make_database()
        # First, because it is quick and the most likely to fail.
        packs = {chapter.name: load_pack(chapter.name, references) for chapter in chapters}
        try:
            release.assign(chapters, self.work, db_url=self.database)
        except SourceError as error:
            if "Cannot add or remove cells" in str(error) or "Cannot modify" in str(error):
                raise GradingError(
                    f"{self.folder / 'gradebook.db'} holds grades of an older edition with other "
                    "cells. Grade into a new folder (--to)."
                ) from error
            raise GradingError(str(error)) from error
        for name in packs:
            # Formgrader lists an assignment only where this folder exists; it may be empty.
            (self.folder / "source" / name).mkdir(parents=True, exist_ok=True)
        return {name: load_assignment(name, self.work, pack) for name, pack in packs.items()}

    def _make_database(self) -> None:
        """Makes the database, whole or not at all: nbgrader makes one table after the other."""
        from nbgrader.api import Gradebook as Database

        path = self.folder / "gradebook.db"
        new = not path.exists()
        place = self.work / "gradebook.db" if new else path
        if new:
            self.work.mkdir(parents=True, exist_ok=True)
            with release.tools_on_path():
                Database(f"sqlite:///{place}").close()
        # Readers such as formgrader and the writer do not wait for each other then.
        with contextlib.closing(sqlite3.connect(place)) as database:
            database.execute("PRAGMA journal_mode=WAL")
        if new:
            os.replace(place, path)

    def settings(self) -> Config:
        """The course's nbgrader settings, without those that name a place or narrow a choice."""
        config = notebooks.settings(self.root, places=False)
        config.CourseDirectory.root = str(self.folder)
        config.CourseDirectory.db_url = self.database
        return config


class Writer:
    """Writes grades, autograded notebooks and feedback pages, over those that are there.

    Manual grades and comments stay; nbgrader marks such grades for another look. What is there
    already, made from the same, is left alone. Whenever the process is killed, the next run makes
    up for it: what a submission's rows were made from is noted when all of them are there.

    Use it as a context manager.
    """

    def __init__(self, gradebook: Gradebook, assignments: Mapping[str, Assignment]) -> None:
        self._book = gradebook
        self._assignments = assignments
        self._config = gradebook.settings()
        self._waiting: list[_Entry] = []
        self.notes: list[str] = []

    def __enter__(self) -> Writer:
        from nbgrader.api import Gradebook as Database

        with release.tools_on_path():
            self._database = Database(self._book.database)
        self._db = self._database.db
        self._db.execute(text(_MADE_FROM))
        self._db.commit()
        self._known = {name: _Known(self._db, name) for name in self._assignments}
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._database.close()

    @functools.cached_property
    def _pages(self) -> Pages:
        return Pages(self._config)

    def add(self, submission: Submission, graded: Graded) -> None:
        """Takes a result; it is in the gradebook after the next :meth:`flush`."""
        stamp = _timestamp(submission.path.parent)
        known = self._known[submission.assignment]
        digest = hashlib.sha256(graded.text.encode())
        digest.update(repr((stamp, known.due, self._rules)).encode())
        if stamp and known.due:
            # A penalty is a part of what a person gave, too.
            digest.update(repr(known.by_hand.get(submission.student)).encode())
        entry = _Entry(submission, graded, stamp, digest.hexdigest())
        if known.made_from.get(submission.student) == entry.made_from and self._stands(entry):
            self._feedback([entry])
            return
        self._waiting.append(entry)
        if len(self._waiting) >= _AT_ONCE:
            self.flush()

    @functools.cached_property
    def _rules(self) -> str:
        """The course's settings: a late penalty may depend on any."""
        settings = notebooks.settings(self._book.root)  # without the folder of this class
        return repr(sorted((name, str(part)) for name, part in settings.items()))

    def _folder(self, kind: str, submission: Submission) -> Path:
        return self._book.folder / kind / submission.student / submission.assignment

    def _stands(self, entry: _Entry) -> bool:
        """Whether gradebook and notebook still are what an earlier run wrote."""
        name = entry.submission.assignment
        path = self._folder("autograded", entry.submission) / f"{name}.ipynb"
        try:
            if path.read_text(encoding="utf-8") != entry.graded.text:
                return False
        except OSError:
            return False
        known, student = self._known[name], entry.submission.student
        now = known.scores.get(student, {})
        return all(now.get(cell) == score for cell, score in known.written[student].items())

    def flush(self) -> None:
        """Writes what was added: the notebooks, then the gradebook, then the pages."""
        entries, self._waiting = self._waiting, []
        if not entries:
            return
        for entry in entries:
            self._write_notebook(entry)
        for entry in entries:
            self._enter(entry)
        self._db.commit()
        for entry in entries:
            # nbgrader's plugin writes through a connection of its own, so nothing of this one may
            # be open. Such rows are finished only when the penalty stands beside them.
            if self._is_dated(entry):
                self._penalize(entry)
        for entry in entries:
            self._note(entry)
        self._db.commit()
        self._feedback(entries)

    def _is_dated(self, entry: _Entry) -> bool:
        return bool(entry.stamp and self._known[entry.submission.assignment].due)

    def _write_notebook(self, entry: _Entry) -> None:
        folder = self._folder("autograded", entry.submission)
        folder.mkdir(parents=True, exist_ok=True)
        keep(folder / f"{entry.submission.assignment}.ipynb", entry.graded.text)
        for kind in ("autograded", "feedback"):
            # The pictures that the notebook shows.
            for path, data in self._assignments[entry.submission.assignment].files.items():
                place = self._folder(kind, entry.submission) / path
                if not place.is_file() or place.read_bytes() != data:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(data)
        if entry.stamp:
            keep(folder / "timestamp.txt", entry.stamp)
        else:
            (folder / "timestamp.txt").unlink(missing_ok=True)

    def _enter(self, entry: _Entry) -> None:
        """Does to the tables what nbgrader's Autograde and SaveAutoGrades do."""
        from nbgrader import api

        known = self._known[entry.submission.assignment]
        notebook_id = known.notebook_of(self._db, entry.submission.student)
        when = parse_utc(entry.stamp) if entry.stamp else None
        submitted = api.SubmittedAssignment.__table__
        self._db.execute(
            submitted.update()
            .where(submitted.c.id == known.submissions[entry.submission.student])
            .values(timestamp=when)
        )
        books = api.SubmittedNotebook.__table__
        self._db.execute(
            books.update().where(books.c.id == notebook_id).values(late_submission_penalty=None)
        )
        grades, comments = [], []
        for cell in entry.graded.notebook.cells:
            mine = cell.metadata.get("nbgrader", {})
            cell_ids = known.cells.get(mine.get("grade_id"), {})
            if mine.get("grade") and "grade" in cell_ids:
                score, _ = determine_grade(cell, _silent)
                entry.scores[mine["grade_id"]] = score
                row = {"notebook": notebook_id, "cell": cell_ids["grade"], "score": score}
                grades.append(row)
            if mine.get("solution") and "solution" in cell_ids:
                untouched = mine.get("checksum") == compute_checksum(cell)
                said = "No response." if untouched else None
                row = {"notebook": notebook_id, "cell": cell_ids["solution"], "said": said}
                comments.append(row)
        for statement, rows in ((_SCORE, grades), (_SAY, comments)):
            if rows:
                self._db.execute(text(statement), rows)

    def _penalize(self, entry: _Entry) -> None:
        """Takes off what nbgrader's plugin takes off for a late submission."""
        from nbgrader.preprocessors import AssignLatePenalties

        name = entry.submission.assignment
        resources = {
            "nbgrader": {
                "notebook": name,
                "assignment": name,
                "student": entry.submission.student,
                "db_url": self._book.database,
            }
        }
        notebooks.find_plugins(self._book.root)
        with release.kept_log() as (log, _), release.tools_on_path():
            try:
                rules = AssignLatePenalties(config=self._config, log=log)
                rules.preprocess(entry.graded.notebook, resources)
            except Exception as error:  # the course's own code
                self.notes.append(
                    f"{entry.submission.student}, {name}: no late penalty, because "
                    f"AssignLatePenalties failed: {type(error).__name__}: {error}"
                )

    def _note(self, entry: _Entry) -> None:
        values = {
            "student": entry.submission.student,
            "assignment": entry.submission.assignment,
            "made_from": entry.made_from,
            "scores": json.dumps(dict(sorted(entry.scores.items()))),
        }
        self._db.execute(text(_NOTE), values)

    def _feedback(self, entries: Sequence[_Entry]) -> None:
        for entry in entries:
            submission = entry.submission
            notebook_id = self._known[submission.assignment].notebooks[submission.student]
            scores, comments, penalty = _shown(self._db, notebook_id)
            shown = repr((entry.made_from, sorted(scores.items()), comments, penalty))
            state = f"<!-- {hashlib.sha256(shown.encode()).hexdigest()} -->\n"
            path = self._folder("feedback", submission) / f"{submission.assignment}.html"
            if _ends_with(path, state):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            page = self._pages.page(
                entry.graded.notebook,
                submission.assignment,
                submission.student,
                scores,
                comments,
                penalty,
            )
            keep(path, f"{page}\n{state}")
        self._db.commit()


# In the gradebook beside nbgrader's own tables: what each submission's rows were made from, and
# the scores that were written.
_MADE_FROM = """
CREATE TABLE IF NOT EXISTS workbook_made_from (
    student TEXT, assignment TEXT, made_from TEXT, scores TEXT, PRIMARY KEY (student, assignment)
)
"""
_NOTE = (
    "INSERT OR REPLACE INTO workbook_made_from VALUES (:student, :assignment, :made_from, :scores)"
)
_AT_ONCE = 20  # submissions in a transaction
_silent = logging.Logger("silent", level=logging.CRITICAL + 1)


@dataclass(frozen=True)
class _Entry:
    """A result on its way into the gradebook."""

    submission: Submission
    graded: Graded
    stamp: str
    made_from: str
    scores: dict[str, float | None] = field(default_factory=dict)  # by the machine, as written


class _Known:
    """What the gradebook holds about an assignment: ids by name."""

    def __init__(self, db: Any, name: str) -> None:
        from nbgrader import api

        assignment = db.query(api.Assignment).filter(api.Assignment.name == name).one()
        notebook = next(book for book in assignment.notebooks if book.name == name)
        self._assignment_id, self._notebook_id = assignment.id, notebook.id
        self.due = str(assignment.duedate or "")
        self.cells: dict[str, dict[str, str]] = {}
        self._blank: dict[str, list[str]] = {"grade": [], "comment": []}
        for kind, cells in (
            ("grade", notebook.grade_cells),
            ("solution", notebook.solution_cells),
            ("task", notebook.task_cells),
        ):
            for cell in cells:
                self.cells.setdefault(cell.name, {})[kind] = cell.id
                if kind != "solution":
                    self._blank["grade"].append(cell.id)
                if kind != "grade":
                    self._blank["comment"].append(cell.id)
        rows = db.execute(text(_SUBMITTED), {"assignment": self._assignment_id})
        self.submissions, self.notebooks = {}, {}
        for student, submission, book in rows:
            self.submissions[student], self.notebooks[student] = submission, book
        self.scores: dict[str, dict[str, float | None]] = {}
        self.by_hand: dict[str, list[object]] = {}
        for student, cell, auto, manual, extra in db.execute(
            text(_GIVEN), {"assignment": self._assignment_id}
        ):
            self.scores.setdefault(student, {})[cell] = auto
            self.by_hand.setdefault(student, []).append((cell, manual, extra))
        self.made_from, self.written = {}, {}
        for student, made_from, scores in db.execute(text(_MADE), {"name": name}):
            self.made_from[student], self.written[student] = made_from, json.loads(scores)

    def notebook_of(self, db: Any, student: str) -> str:
        """The id of a student's submitted notebook; makes the rows where there are none."""
        from nbgrader import api

        if student in self.notebooks:
            return self.notebooks[student]
        # Another assignment of the same run may have made the student.
        db.execute(text("INSERT OR IGNORE INTO student (id) VALUES (:id)"), {"id": student})
        submission, notebook = api.new_uuid(), api.new_uuid()
        db.execute(
            api.SubmittedAssignment.__table__.insert(),
            {"id": submission, "assignment_id": self._assignment_id, "student_id": student},
        )
        db.execute(
            api.SubmittedNotebook.__table__.insert(),
            {"id": notebook, "assignment_id": submission, "notebook_id": self._notebook_id},
        )
        for table, kind in ((api.Grade.__table__, "grade"), (api.Comment.__table__, "comment")):
            rows = [
                {"id": api.new_uuid(), "cell_id": cell, "notebook_id": notebook}
                for cell in self._blank[kind]
            ]
            if rows:
                db.execute(table.insert(), rows)
        self.submissions[student], self.notebooks[student] = submission, notebook
        return notebook


_SUBMITTED = """
SELECT a.student_id, a.id, n.id FROM submitted_assignment a
JOIN submitted_notebook n ON n.assignment_id = a.id WHERE a.assignment_id = :assignment
"""
_MADE = "SELECT student, made_from, scores FROM workbook_made_from WHERE assignment = :name"
# A score that a person gave stays, and is shown to the person again.
_SCORE = """
UPDATE grade SET auto_score = :score,
    needs_manual_grade = (:score IS NULL OR manual_score IS NOT NULL)
WHERE notebook_id = :notebook AND cell_id = :cell
"""
_SAY = "UPDATE comment SET auto_comment = :said WHERE notebook_id = :notebook AND cell_id = :cell"
_GIVEN = """
SELECT a.student_id, c.name, g.auto_score, g.manual_score, g.extra_credit FROM grade g
JOIN base_cell c ON c.id = g.cell_id JOIN submitted_notebook n ON n.id = g.notebook_id
JOIN submitted_assignment a ON a.id = n.assignment_id
WHERE a.assignment_id = :assignment ORDER BY 1, 2
"""
_GRADES = """
SELECT c.name, g.auto_score, g.manual_score, g.extra_credit,
       COALESCE(gc.max_score, tc.max_score, 0)
FROM grade g JOIN base_cell c ON c.id = g.cell_id
LEFT JOIN grade_cells gc ON gc.id = c.id LEFT JOIN task_cells tc ON tc.id = c.id
WHERE g.notebook_id = :notebook
"""
_COMMENTS = """
SELECT c.name, m.manual_comment, m.auto_comment
FROM comment m JOIN base_cell c ON c.id = m.cell_id WHERE m.notebook_id = :notebook ORDER BY 1
"""


def _shown(
    db: Any, notebook: str
) -> tuple[dict[str, tuple[float, float]], dict[str, str | None], float | None]:
    """What a feedback page shows of the gradebook: scores and maxima, comments, penalty."""
    which = {"notebook": notebook}
    scores = {}
    for name, auto, manual, extra, most in db.execute(text(_GRADES), which):
        earned = manual if manual is not None else auto
        scores[name] = (0.0 if earned is None else earned + (extra or 0.0), most)
    comments = {
        name: manual if manual is not None else auto
        for name, manual, auto in db.execute(text(_COMMENTS), which)
    }
    penalty = db.execute(
        text("SELECT late_submission_penalty FROM submitted_notebook WHERE id = :notebook"), which
    ).scalar()
    return scores, comments, penalty


def _ends_with(path: Path, text_: str) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-len(text_), os.SEEK_END)
            return file.read() == text_.encode()
    except OSError:
        return False


def _timestamp(folder: Path) -> str:
    """When a submission was handed in, as its ``timestamp.txt`` says; empty where none does."""
    path = folder / "timestamp.txt"
    with contextlib.suppress(OSError, ValueError, OverflowError):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 200:
            said = path.read_text(encoding="utf-8").strip()
            if said and parse_utc(said):
                return said
    return ""
