"""Takes in what a class handed in: an LMS's bulk download, or a folder, sorted for ``grade``.

All names are looked at first (:mod:`autograder.archives` checks them), and each notebook is
attributed to one student. Only then are the chosen notebooks unpacked, into a folder of their
own. nbgrader's zip collector names them and keeps when they were handed in. At the end they move
into place.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
import shutil
import tempfile
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nbgrader.plugins import FileNameCollectorPlugin
from nbgrader.utils import parse_utc
from rich.markup import escape
from rich.table import Table

from autograder import notebooks, release
from autograder.archives import ArchiveError, ArchiveLimits, Entry, listing, shown, text_of, unpack
from autograder.notebooks import SourceError

# The names that the LMSs give: Moodle's downloader replaces each _ of a full name by a space, and
# Canvas' zipper keeps _digits_ out of names, so what comes first is never a learner's file name.
_MOODLE = re.compile(r"(?P<name>[^/_]+)_(?P<id>\d+)_assignsubmission_file_/?(?P<title>.+)")
_CANVAS = re.compile(
    r"(?P<name>[^/]+?)(?P<late>_LATE|_late)?_(?P<id>\d+)_(?P<file>\d+)_(?P<title>[^/]+)"
)
_ANONYMOUS = re.compile(
    r"(?P<late>LATE_)?(?P<name>anon)_(?P<id>[A-Za-z0-9]{5})_(?P<file>\d+)_(?P<title>[^/]+)"
)
_LAYOUT = re.compile(r"(?P<name>[^/]+)/(?P<assignment>[^/]+)/(?P<title>[^/]+)")
_PATTERNS = (
    ("moodle", _MOODLE),
    ("canvas", _ANONYMOUS),
    ("canvas", _CANVAS),
    ("layout", _LAYOUT),
)
# What is put behind a file name that was there before: Canvas' -1, a browser's (1).
_VERSION = re.compile(r"(?P<stem>.+?)(?P<version>(?:-\d+|\s?\(\d+\))+)")
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_LISTED = 30
# An LMS that stamps entries with the moment of packing needs no longer than this for a class.
_PACKING = timedelta(minutes=10)


class CollectError(Exception):
    """Nothing can be collected; the text says what was found and what to do."""


@dataclass(frozen=True)
class Item:
    """A notebook that was recognized, and what became of it.

    Attributes:
        student: the student's folder.
        assignment: the assignment's folder in it.
        source: the entry's name in the archive or folder.
        outcome: ``new``, ``replaced``, ``unchanged`` or ``kept`` (what was there stays).
        handed_in: when, in UTC; None where the source does not tell.
    """

    student: str
    assignment: str
    source: str
    outcome: str
    handed_in: datetime | None


@dataclass
class Collected:
    """What collecting gave.

    Attributes:
        items: the submissions, one each.
        refused: what could have been a submission and was not taken, one sentence each.
        unrecognized: names of files that are no submission.
        notes: what an instructor should know, one sentence each.
    """

    items: list[Item] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unrecognized: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self) -> Table:
        """The submissions, one line each."""
        table = Table(title="Collected", title_justify="left")
        for name in ("student", "assignment", "", "handed in (UTC)", "from"):
            table.add_column(name, overflow="fold")
        for item in self.items:
            when = f"{item.handed_in:%Y-%m-%d %H:%M}" if item.handed_in else ""
            cells = (item.student, item.assignment, item.outcome, when, shown(item.source))
            table.add_row(*map(escape, cells))
        return table

    def lines(self) -> list[str]:
        """Everything else that an instructor should read, one line each."""
        others = [shown(name) for name in self.unrecognized]
        more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
        return [
            *self.notes,
            *(f"Refused: {reason}" for reason in self.refused),
            *([f"Not recognized: {', '.join(others[:_LISTED])}{more}."] if others else []),
        ]


@dataclass(frozen=True)
class _Found:
    """A notebook that is attributed to a student.

    Attributes:
        entry: what to unpack.
        kind: ``moodle``, ``canvas``, ``layout``, or ``named`` by the course's own expression.
        who: the student as the source names them; tells apart who would share a folder.
        student: the folder for them; empty where none can be made of the name.
        number: of the student, in the LMS.
        assignment: the folder in it.
        stem: the file name, without extension and version.
        rank: the larger, the later it was uploaded; Canvas tells.
        late: Canvas says so.
        handed_in: when, in UTC.
    """

    entry: Entry
    kind: str
    who: str
    student: str
    number: str | None
    assignment: str
    stem: str
    rank: tuple[int, ...]
    late: bool
    handed_in: datetime | None

    @property
    def is_named(self) -> bool:
        """Whether the notebook is called as its assignment, up to a version."""
        return _key(self.stem) == _key(self.assignment)


class LmsCollectorPlugin(FileNameCollectorPlugin):
    """nbgrader's file name collector, knowing the names that Moodle and Canvas give.

    A course's own ``c.FileNameCollectorPlugin.named_regexp`` is tried first. It is matched with
    the path inside the archive.
    """

    def collect(self, submitted_file: str) -> dict[str, Any] | None:
        """What a file name tells: nbgrader's keys, and what only an LMS writes into it."""
        if Path(submitted_file).suffix.lower() not in self.valid_ext:
            return None
        if self.named_regexp and (given := self._match(submitted_file)):
            student = given["student_id"]
            return given | {"kind": "named", "who": student, "student_id": folder_name(student)}
        for kind, pattern in _PATTERNS:
            if match := pattern.fullmatch(submitted_file):
                parts = match.groupdict()
                name, number = parts["name"], parts.get("id")
                return parts | {
                    "kind": kind,
                    "who": f"{name} ({number})" if number else name,
                    "student_id": folder_name(name, number),
                    "file_id": parts["title"].rsplit("/", 1)[-1],
                }
        return None


def collect(
    source: Path,
    to: Path,
    assignment: str | None = None,
    root: Path | None = None,
    force: bool = False,
    limits: ArchiveLimits | None = None,
) -> Collected:
    """Writes ``TO/<student>/<assignment>/<assignment>.ipynb``, as ``grade`` reads it.

    Args:
        source: a zip or tar archive, or a folder.
        to: gets the submissions. Those that are there stay, unless the new one is newer.
        assignment: whose notebooks these are; from their names where None.
        root: the course; found from the current folder where None.
        force: replace submissions that are not older, too.
        limits: of the archive.

    Raises:
        CollectError: the source is unusable or unsafe, or no submission is in it. Nothing has
            been written to ``to`` then.
    """
    source, to, limits = Path(source), Path(to).absolute(), limits or ArchiveLimits()
    try:
        known = [chapter.name for chapter in notebooks.chapters(root)]
        settings = notebooks.settings(notebooks.course_root(root))
    except SourceError as error:
        raise CollectError(str(error)) from error
    if assignment is not None and assignment not in known:
        raise CollectError(f"There is no assignment {assignment}. There is: {', '.join(known)}.")
    if to.exists() and not to.is_dir():
        raise CollectError(f"{to} is a file. Name a folder (--to).")
    result = Collected()
    plugin = LmsCollectorPlugin(config=settings)
    with _workplace(to) as work:
        try:
            with listing(source, limits, work) as (entries, links):
                result.refused += links
                found = _attribute(source, entries, plugin, known, assignment, result)
                chosen = _choose(found, limits, result)
                if not chosen:
                    raise CollectError(f"{source}: nothing to collect. {result.refused[0]}")
                for one in chosen:
                    unpack(one.entry, _unpacked(one, work), limits)
        except ArchiveError as error:
            raise CollectError(str(error)) from error
        for name in sorted({one.assignment for one in chosen}):
            _sort_in(work, name, [one for one in chosen if one.assignment == name])
        for one in chosen:
            result.items.append(_move(one, work / "submitted", to, force, result.notes))
    return result


@contextlib.contextmanager
def _workplace(to: Path) -> Iterator[Path]:
    """A folder beside the target, so that what is ready only needs to be renamed."""
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".collect-", dir=to.parent))
    except OSError as error:
        raise CollectError(
            f"Cannot write to {to.parent}: {error.strerror}. Choose another folder (--to)."
        ) from error
    try:
        yield work
    except OSError as error:
        raise CollectError(
            f"Cannot write {error.filename or to}: {error.strerror}. What was there stays; put it "
            "right, and collect again."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def folder_name(name: str, number: str | None = None) -> str:
    """A student's name, and number where there is one, as a folder name safe everywhere.

    Empty where nothing of the name is left.
    """
    text = re.sub(r"[^\w@.+-]+", "_", unicodedata.normalize("NFKC", name)).strip("._-")[:80]
    return f"{text}_{number}" if text and number else text


# ---- whose they are --------------------------------------------------------------------------


def _attribute(
    source: Path,
    entries: Sequence[Entry],
    plugin: LmsCollectorPlugin,
    known: Sequence[str],
    assignment: str | None,
    result: Collected,
) -> list[_Found]:
    """The entries that are somebody's notebook; the others are listed.

    Raises:
        CollectError: there is none, or it is not to be seen for which assignment they are.
    """
    given = _recognize(entries, plugin, known)
    tops = {entry.name.partition("/")[0] for entry in entries}
    if not given and len(tops) == 1:
        # Somebody packed the folder, not what is in it.
        entries = [replace(entry, name=entry.name.partition("/")[2]) for entry in entries]
        given = _recognize(entries, plugin, known)
    infos = list(given.values())
    # Learners name the files, the LMS or the instructor what comes before: one form holds for all,
    # so that no file name passes for another student's.
    layout = all(info["kind"] == "layout" for info in infos)
    if infos and not layout and assignment is None:
        assignment = _only_assignment(source, infos, known)
    times = _timestamps(entries) if layout else {}
    found = []
    for entry in entries:
        info = given.get(entry.name)
        own = info and (info.get("assignment") or assignment)
        if info and own in known and assignment in (None, own) and layout == _is_layout(info):
            found.append(_found(entry, info, str(own), times, dated=not source.is_dir()))
        elif not (layout and entry.name.endswith("/timestamp.txt")):
            result.unrecognized.append(entry.name)
            if entry.name.lower().endswith(_ARCHIVES):
                result.notes.append(
                    f"{shown(entry.name)} is an archive itself and was not opened. Unpack it, and "
                    "put the notebook into the student's folder by hand."
                )
    if not found:
        raise CollectError(
            f"{source}: none of {len(entries)} files was recognized as a submission of "
            f"{assignment or ' or '.join(known)}. Expected are names as Moodle gives them (Ada "
            "Lovelace_12_assignsubmission_file_/…), as Canvas does (lovelaceada_12_34_….ipynb), or "
            "<student>/<assignment>/<notebook>.ipynb."
        )
    return _with_honest_dates(found, result)


def _recognize(
    entries: Iterable[Entry], plugin: LmsCollectorPlugin, known: Sequence[str]
) -> dict[str, dict[str, Any]]:
    given = {entry.name: plugin.collect(entry.name) for entry in entries}
    return {
        name: info
        for name, info in given.items()
        if info and (not _is_layout(info) or info["assignment"] in known)
    }


def _is_layout(info: Mapping[str, Any]) -> bool:
    return info["kind"] == "layout"


def _found(
    entry: Entry,
    info: Mapping[str, Any],
    assignment: str,
    times: Mapping[str, datetime],
    dated: bool,
) -> _Found:
    stem, version = _stem(info["file_id"])
    # A folder's files have the date of copying, and Canvas' entries that of packing.
    own_date = entry.modified if dated and info["kind"] != "canvas" else None
    return _Found(
        entry=entry,
        kind=info["kind"],
        who=info["who"],
        student=info["student_id"],
        number=info.get("id"),
        assignment=assignment,
        stem=stem,
        rank=(int(info.get("file") or 0), *version),
        late=bool(info.get("late")),
        handed_in=_utc(info.get("timestamp"))
        or times.get(entry.name.rpartition("/")[0])
        or own_date,
    )


def _only_assignment(source: Path, infos: Sequence[Mapping[str, Any]], known: Sequence[str]) -> str:
    stems = {_key(_stem(info["file_id"])[0]) for info in infos}
    named = [name for name in known if _key(name) in stems]
    if len(named) != 1:
        said = f"name {', '.join(named)}" if named else "do not tell the assignment"
        raise CollectError(
            f"{source}: the files' names {said}. Add whose they are: {', '.join(known)}."
        )
    return named[0]


def _timestamps(entries: Iterable[Entry]) -> dict[str, datetime]:
    """What nbgrader wrote beside the notebooks: folder -> when handed in."""
    times = {}
    for entry in entries:
        folder, _, name = entry.name.rpartition("/")
        if name == "timestamp.txt" and folder.count("/") == 1 and (when := _utc(text_of(entry))):
            times[folder] = when
    return times


def _utc(text: str | None) -> datetime | None:
    """A time as nbgrader writes it; None where it is none."""
    with contextlib.suppress(ValueError, OverflowError, TypeError):
        return parse_utc(text.strip()).replace(tzinfo=UTC) if text else None
    return None


def _with_honest_dates(found: list[_Found], result: Collected) -> list[_Found]:
    """Forgets dates that only tell when the archive was made: they would make everybody late."""
    late = sorted({one.student for one in found if one.late})
    if late:
        result.notes.append(
            f"Canvas marks as late: {', '.join(late)}. Its archive does not tell when they were "
            "handed in, so enter penalties by hand."
        )
    dates = [one.entry.modified for one in found if _has_own_date(one)]
    if len(dates) < 2 or max(dates) - min(dates) > _PACKING:
        return found
    result.notes.append(
        f"All files are dated within {_PACKING.seconds // 60} minutes, as when the archive was "
        "made. No time of handing in was recorded, so nobody is late."
    )
    return [replace(one, handed_in=None) if _has_own_date(one) else one for one in found]


def _has_own_date(one: _Found) -> bool:
    return one.handed_in is not None and one.handed_in == one.entry.modified


def _stem(name: str) -> tuple[str, tuple[int, ...]]:
    """A notebook's name without what was put behind it, and the numbers of that."""
    stem = Path(name).stem
    if match := _VERSION.fullmatch(stem):
        return match["stem"], tuple(map(int, re.findall(r"\d+", match["version"])))
    return stem, ()


def _key(name: str) -> str:
    """Equal for names that some file system takes for the same."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


# ---- which count -----------------------------------------------------------------------------


def _choose(found: Sequence[_Found], limits: ArchiveLimits, result: Collected) -> list[_Found]:
    """One notebook for each student and assignment, or a sentence that says why there is none."""
    doubtful = _mixed_up(found, result)
    groups: dict[tuple[str, str], list[_Found]] = defaultdict(list)
    for one in found:
        if one.who not in doubtful:
            groups[one.student, one.assignment].append(one)
    chosen = []
    for (student, assignment), mine in sorted(groups.items()):
        try:
            best = _best(mine, limits)
        except _Unclear as reason:
            result.refused.append(
                f"{student}: {reason} Put the right one into {student}/{assignment} by hand."
            )
            continue
        name = shown(best.entry.name)
        others = ", ".join(shown(one.entry.name) for one in mine if one is not best)
        if others:
            result.notes.append(f"{student}: {name} counts. Not taken: {others}.")
        if not best.is_named:
            result.notes.append(
                f"{student}: {name} is the only notebook, and was taken as {assignment}.ipynb."
            )
        chosen.append(best)
    return chosen


def _mixed_up(found: Sequence[_Found], result: Collected) -> set[str]:
    """Students that cannot be told apart: two would share a folder, or are one under two names."""
    folders: dict[str, set[str]] = defaultdict(set)
    numbers: dict[str, set[str]] = defaultdict(set)
    names: dict[str, set[str]] = defaultdict(set)
    for one in found:
        folders[_key(one.student)].add(one.who)
        if one.number:
            numbers[one.number].add(one.who)
            names[_key(one.who.removesuffix(f" ({one.number})"))].add(one.who)
    nameless = folders.pop("", set())
    doubts = [({who}, "no folder name can be made of that name") for who in sorted(nameless)]
    doubts += [(who, "both would be the folder " + key) for key, who in folders.items()]
    doubts += [(who, "both have the number " + key) for key, who in numbers.items()]
    doubtful: set[str] = set()
    for whose, reason in doubts:
        if (len(whose) > 1 or whose <= nameless) and not whose <= doubtful:
            doubtful |= whose
            result.refused.append(
                f"{_all(whose)}: {reason}. Nothing of them was taken; put the right notebooks into "
                "their folders by hand."
            )
    result.notes += [
        f"{_all(whose)} have the same name; the number tells their folders apart."
        for whose in names.values()
        if len(whose) > 1
    ]
    return doubtful


def _all(names: Iterable[str]) -> str:
    return " and ".join(shown(name) for name in sorted(names))


class _Unclear(Exception):
    """None of a student's notebooks can be taken; the text says why."""


def _best(mine: Sequence[_Found], limits: ArchiveLimits) -> _Found:
    places: dict[str, list[str]] = defaultdict(list)
    for one in mine:
        places[_key(one.entry.name)].append(one.entry.name)
    for names in places.values():
        if len(names) > 1:
            raise _Unclear(f"{_all(names)} would be the same file; neither was taken.")
    named = [one for one in mine if one.is_named]
    if named and named[0].kind == "canvas":
        best = max(named, key=lambda one: one.rank)
    else:
        # Only Canvas numbers what is handed in again. Elsewhere the number is part of the name.
        exact = [one for one in named if len(one.rank) == 1]
        wanted = exact or named or mine
        if len(wanted) > 1:
            what = "are called" if named else "are there, and none is called"
            listed = ", ".join(sorted(shown(one.entry.name) for one in wanted))
            raise _Unclear(
                f"{len(wanted)} notebooks {what} {mine[0].assignment}.ipynb ({listed}); none was "
                "taken."
            )
        best = wanted[0]
    if best.entry.size > limits.file:
        raise _Unclear(
            f"{shown(best.entry.name)} has {best.entry.size / 2**20:.0f} MiB; the limit is "
            f"{limits.file / 2**20:.0f} MiB. Ask for it without outputs."
        )
    return best


# ---- into their folders ----------------------------------------------------------------------


def _unpacked(one: _Found, work: Path) -> Path:
    """Where nbgrader expects it: a name of ours, whatever the entry is called."""
    folder = work / "downloaded" / one.assignment / "extracted"
    return folder / f"{one.student}.ipynb"


class _ChosenPlugin(FileNameCollectorPlugin):
    """Tells nbgrader's collector what has been found out about each unpacked file."""

    chosen: Mapping[str, _Found] = {}

    def collect(self, submitted_file: str) -> dict[str, Any] | None:
        one = self.chosen[submitted_file]
        info = {"student_id": one.student, "file_id": f"{one.assignment}.ipynb"}
        if one.handed_in:
            info["timestamp"] = f"{one.handed_in:%Y-%m-%d %H:%M:%S} UTC"
        return info


def _sort_in(work: Path, assignment: str, chosen: Iterable[_Found]) -> None:
    """Lets nbgrader's zip collector make ``submitted/<student>/<assignment>/`` of them."""
    from nbgrader.apps.zipcollectapp import ZipCollectApp
    from nbgrader.coursedir import CourseDirectory

    with release.kept_log() as (log, said):
        app = ZipCollectApp(log=log)
        app.coursedir = CourseDirectory(root=str(work), assignment_id=assignment, log=log)
        app.collector_plugin_inst = plugin = _ChosenPlugin(log=log)
        plugin.chosen = {str(_unpacked(one, work)): one for one in chosen}
        try:
            app.process_extracted_files()
        except SystemExit as error:
            raise CollectError(f"nbgrader zip_collect: {' '.join(said)}") from error


def _move(one: _Found, submitted: Path, to: Path, force: bool, notes: list[str]) -> Item:
    new = submitted / one.student / one.assignment
    place = to / one.student / one.assignment
    notebook, stamp = new / f"{one.assignment}.ipynb", new / "timestamp.txt"
    old = place / notebook.name
    outcome = "new"
    if one.entry.modified:
        seconds = one.entry.modified.timestamp()
        os.utime(notebook, (seconds, seconds))
    if old.is_file():
        when = one.handed_in or one.entry.modified
        is_newer = when is not None and when.replace(microsecond=0) > _date(old)
        if filecmp.cmp(notebook, old, shallow=False):
            outcome = "unchanged"
        elif force or is_newer:
            outcome = "replaced"
        else:
            outcome = "kept"
            notes.append(
                f"{one.student}: {old} is not older than {shown(one.entry.name)}, and stays. "
                "--force replaces it."
            )
    if outcome in ("new", "replaced"):
        place.mkdir(parents=True, exist_ok=True)
        os.replace(notebook, old)
        if stamp.exists():
            os.replace(stamp, place / stamp.name)
        else:
            (place / stamp.name).unlink(missing_ok=True)
    return Item(one.student, one.assignment, one.entry.name, outcome, one.handed_in)


def _date(notebook: Path) -> datetime:
    """When a collected notebook was handed in, or else last written."""
    with contextlib.suppress(OSError, UnicodeError):
        if when := _utc(notebook.with_name("timestamp.txt").read_text(encoding="utf-8")):
            return when
    return datetime.fromtimestamp(notebook.stat().st_mtime, UTC)
