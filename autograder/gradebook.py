"""Lets nbgrader keep the gradebook, the autograded notebooks and the feedback pages."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from traitlets.config import Config

from autograder import notebooks, release
from autograder.assignment import Assignment, GradingError, load_assignment, load_pack
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
    """A folder with nbgrader's gradebook, and the one writer of it.

    Attributes:
        folder: gets ``gradebook.db``, ``autograded/`` and ``feedback/``.
        work: inside it; holds the course's copy and the executed submissions while grading.
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

    def record(
        self,
        results: Mapping[Submission, Graded],
        bar: Callable[[str, int], Callable[[], None]],
    ) -> list[str]:
        """Writes grades, autograded notebooks and feedback pages, over those that are there.

        Manual grades and comments stay; nbgrader marks such grades for another look.

        Args:
            results: of all submissions.
            bar: title and total -> what advances the progress shown.

        Returns:
            What nbgrader refused, one sentence each.
        """
        from nbgrader.converters import Autograde, GenerateFeedback

        texts = {}
        for entry, graded in results.items():
            folder = self.work / "submitted" / entry.student / entry.assignment
            folder.mkdir(parents=True)
            texts[entry] = notebooks.write(graded.notebook)
            (folder / f"{entry.assignment}.ipynb").write_text(texts[entry], encoding="utf-8")
            _copy_timestamp(entry.path.parent, folder)
        names = sorted({entry.assignment for entry in results})
        advance = bar("Recording", len(results))
        refusals: list[str] = []
        for name in names:
            config = self._config(name, advance)
            config.BaseConverter.force = True
            refusals += _convert(Autograde, config)

        # A page takes nbgrader half a second and more, so those that would come out the same stay.
        states = self._states(texts)
        stale = self._forget_stale_pages(states)
        advance = bar("Feedback", len(stale))
        for name in names:
            refusals += _convert(GenerateFeedback, self._config(name, advance))
        self._pages.parent.mkdir(exist_ok=True)
        self._pages.write_text(json.dumps(states, indent=1), encoding="utf-8")
        return refusals

    @property
    def _pages(self) -> Path:
        """What every feedback page was made from, by hash."""
        return self.folder / CACHE / "feedback.json"

    def _states(self, texts: Mapping[Submission, str]) -> dict[str, str]:
        """For every feedback page a hash of what it shows: notebook, grades, comments, penalty."""
        from nbgrader.api import Gradebook as Database
        from nbgrader.api import MissingEntry

        states = {}
        with Database(self.database) as database:
            for entry, text in texts.items():
                shown: list[Any] = [hashlib.sha256(text.encode()).hexdigest()]
                with contextlib.suppress(MissingEntry):
                    recorded = database.find_submission_notebook(
                        entry.assignment, entry.assignment, entry.student
                    )
                    shown.append(recorded.late_submission_penalty)
                    shown += sorted([g.name, g.score, g.max_score] for g in recorded.grades)
                    shown += sorted([c.name, str(c.comment)] for c in recorded.comments)
                digest = hashlib.sha256(json.dumps(shown).encode()).hexdigest()
                states[f"{entry.student}/{entry.assignment}"] = digest
        return states

    def _forget_stale_pages(self, states: Mapping[str, str]) -> list[str]:
        """Deletes the pages that must be made anew, and names all that nbgrader will make."""
        try:
            before = dict(json.loads(self._pages.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            before = {}
        made = []
        for page, state in states.items():
            folder = self.folder / "feedback" / page
            if before.get(page) != state:
                shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                made.append(page)
        return made

    def _config(self, assignment: str, advance: Callable[[], None]) -> Config:
        """The course's nbgrader settings, with the folders of this run."""
        config = notebooks.settings(self.root)
        for name in list(config.CourseDirectory):
            # Whatever names a place or narrows the choice is this run's own.
            if name not in ("course_id", "ignore", "groupshared"):
                del config.CourseDirectory[name]
        config.CourseDirectory.root = str(self.folder)
        config.CourseDirectory.source_directory = f"{self.work.name}/source"
        config.CourseDirectory.submitted_directory = f"{self.work.name}/submitted"
        config.CourseDirectory.db_url = self.database
        config.CourseDirectory.assignment_id = assignment
        # The notebooks have been put together, run and judged: nbgrader only records them.
        config.Autograde.sanitize_preprocessors = []
        config.Autograde.autograde_preprocessors = [
            "nbgrader.preprocessors.LimitOutput",
            "nbgrader.preprocessors.SaveAutoGrades",
            "nbgrader.preprocessors.AssignLatePenalties",
            "nbgrader.preprocessors.CheckCellMetadata",
        ]
        config.BaseConverter.post_convert_hook = lambda **_: advance()
        return config


def _convert(converter: type, config: Config) -> list[str]:
    """Runs one of nbgrader's converters; returns what it could not do, one sentence each."""
    from nbgrader.converters.base import NbGraderException
    from nbgrader.coursedir import CourseDirectory
    from sqlalchemy.exc import SAWarning

    with release.tools_on_path(), warnings.catch_warnings(), release.kept_log() as (log, said):
        # nbgrader's own queries cause them; an instructor can do nothing about it.
        warnings.simplefilter("ignore", SAWarning)
        course = CourseDirectory(config=config, log=log)
        try:
            converter(coursedir=course, config=config, log=log).start()
        except NbGraderException as error:
            reasons = [text.splitlines()[-1] for text in said if text.startswith("Traceback")]
            return [f"nbgrader {converter.__name__}: {text}" for text in reasons or [str(error)]]
    return []


def _copy_timestamp(folder: Path, to: Path) -> None:
    """Takes over when a submission was handed in, for nbgrader's late penalties."""
    from nbgrader.utils import parse_utc

    path = folder / "timestamp.txt"
    with contextlib.suppress(OSError, ValueError, OverflowError):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 200:
            text = path.read_text(encoding="utf-8").strip()
            if text and parse_utc(text):
                (to / path.name).write_text(text, encoding="utf-8")
