"""A submitted notebook: read whatever was handed in, and put the course's own cells back.

Which cells test what, and for how many points, is never taken from a submission: every graded
or locked cell is the course's own copy, and only the learner's answers are the learner's.
"""

from __future__ import annotations

import copy
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder import harmless

MAX_BYTES = 32 * 1024 * 1024
MAX_CELLS = 2000
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TYPES = ("code", "markdown", "raw")
_SAVE_AGAIN = "Open it in Jupyter, save it, and hand it in again."


class UnreadableSubmission(Exception):
    """A file cannot be graded as a notebook; the text says what was found and what to do."""


@dataclass
class Assembled:
    """The notebook that is run and recorded, and what was put right in it."""

    notebook: NotebookNode
    notes: list[str] = field(default_factory=list)


# ---- reading ---------------------------------------------------------------------------------


def read(path: Path, max_bytes: int = MAX_BYTES) -> NotebookNode:
    """The notebook in a file: UTF-8 with or without a byte order mark, format 4.0 to 4.5.

    Outputs are dropped, line ends become ``\\n``, and cells without a usable id get one, so what
    comes back is a valid 4.5 notebook whatever the file held.

    Raises:
        UnreadableSubmission: missing, no regular file, too large, no UTF-8, no JSON, no notebook,
            or of another format.
    """
    return parse(read_bytes(path, max_bytes), path.name)


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a submitted file.

    Raises:
        UnreadableSubmission: missing, no regular file, or too large.
    """
    try:
        # O_NONBLOCK: a named pipe handed in as a notebook must not stop the grading; O_NOFOLLOW:
        # a symbolic link could name any file of the machine that grades.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        what = "is a symbolic link" if path.is_symlink() else f"cannot be opened: {error.strerror}"
        raise UnreadableSubmission(
            f"{path.name} {what}. Hand in the notebook file itself."
        ) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableSubmission(
                f"{path.name} is not a regular file. Hand in the notebook file itself."
            )
        if status.st_size > max_bytes:
            raise UnreadableSubmission(
                f"{path.name} is {status.st_size / 2**20:.0f} MiB large; the limit is "
                f"{max_bytes / 2**20:.0f} MiB. Clear its outputs, save it, and hand it in again."
            )
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(max_bytes + 1)
    finally:
        os.close(fd)


def parse(data: bytes, name: str = "The notebook") -> NotebookNode:
    """The notebook that some bytes hold; see :func:`read`."""
    if not data.strip():
        raise UnreadableSubmission(f"{name} is empty. {_SAVE_AGAIN}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableSubmission(
            f"{name} is not UTF-8 text (byte {error.start:,} of {len(data):,}). {_SAVE_AGAIN}"
        ) from None
    try:
        raw = json.loads(text)
    except RecursionError:
        raise UnreadableSubmission(f"{name} is nested too deeply. {_SAVE_AGAIN}") from None
    except ValueError as error:
        where = f" (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else ""
        raise UnreadableSubmission(
            f"{name} is not a notebook: its text is not valid JSON{where}. {_SAVE_AGAIN}"
        ) from None
    if not isinstance(raw, dict) or "nbformat" not in raw:
        raise UnreadableSubmission(
            f"{name} is JSON, but not a notebook: it names no notebook format. {_SAVE_AGAIN}"
        )
    if raw["nbformat"] == 4 and not isinstance(raw.get("cells"), list):
        raise UnreadableSubmission(f"{name} is damaged: it has no list of cells. {_SAVE_AGAIN}")
    if raw["nbformat"] != 4:
        raise UnreadableSubmission(
            f"{name} has notebook format {str(raw['nbformat'])[:20]}; only format 4 can be "
            f"graded. {_SAVE_AGAIN}"
        )
    if len(raw["cells"]) > MAX_CELLS:
        raise UnreadableSubmission(
            f"{name} has {len(raw['cells']):,} cells; the limit is {MAX_CELLS:,}. "
            "Delete those that you do not need, and hand it in again."
        )
    notebook = nbformat.v4.new_notebook()
    taken: set[str] = set()
    for index, cell in enumerate(raw["cells"]):
        notebook.cells.append(_read_cell(cell, index, taken, name))
    return notebook


def _read_cell(raw: Any, index: int, taken: set[str], name: str) -> NotebookNode:
    kind = raw.get("cell_type") if isinstance(raw, dict) else None
    source = raw.get("source", "") if isinstance(raw, dict) else None
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if kind not in _TYPES or not isinstance(source, str):
        raise UnreadableSubmission(
            f"{name} is damaged: its cell {index + 1} is not a cell. {_SAVE_AGAIN}"
        )
    # JSON can hold half a character ("\ud800"), which no file can.
    source = source.encode("utf-8", "replace").decode("utf-8")
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    cell = _new_cell(kind, source)
    wanted = raw.get("id")
    usable = isinstance(wanted, str) and _ID.fullmatch(wanted) and wanted not in taken
    cell.id = _free(wanted if usable else f"cell-{index}", taken)
    metadata = raw.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("nbgrader"), dict):
        cell.metadata["nbgrader"] = nbformat.from_dict(metadata["nbgrader"])
    attachments = harmless.attachments(raw.get("attachments"))
    if kind == "markdown" and attachments:
        cell.attachments = nbformat.from_dict(attachments)
    return cell


def _new_cell(kind: str, source: str) -> NotebookNode:
    # Not by nbformat's own functions, which validate every cell: a class has many.
    cell = {"cell_type": kind, "id": "", "metadata": {}, "source": source}
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return nbformat.from_dict(cell)


def _free(name: str, taken: set[str]) -> str:
    """``name``, or ``name`` with the first number that makes it a new one."""
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name[:56]}-{number}"
    taken.add(found)
    return found


# ---- assembling ------------------------------------------------------------------------------


def grader_metadata(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    """The nbgrader metadata of a cell, {} where there is none."""
    return cell["metadata"].get("nbgrader") or {}


def is_graded_by_tests(cell: Mapping[str, Any]) -> bool:
    """Whether a cell's points come from running it (not from a person who reads it)."""
    mine = grader_metadata(cell)
    return bool(mine.get("grade")) and not mine.get("solution") and cell["cell_type"] == "code"


def is_locked(cell: Mapping[str, Any]) -> bool:
    """Whether a cell's text is the course's: graded by tests, or marked read-only."""
    mine = grader_metadata(cell)
    return not mine.get("solution") and bool(mine.get("grade") or mine.get("locked"))


def is_graded_by_hand(cell: Mapping[str, Any]) -> bool:
    """Whether a person reads and grades the cell."""
    mine = grader_metadata(cell)
    return bool(mine.get("task")) or bool(mine.get("grade") and mine.get("solution"))


def assemble(course: NotebookNode, submitted: NotebookNode, release: NotebookNode) -> Assembled:
    """The notebook to run: the submission's cells, with the course's own put in their place.

    The submission's order is kept. Locked cells and those graded by tests take text, type and
    metadata from ``course``; answers keep their own text. Of a cell that is there twice the first
    counts. Missing graded and locked cells are put back: after the answer that they belong to,
    where that is there, else at the end.

    Args:
        course: the source notebook, hidden tests included.
        submitted: what :func:`read` gives.
        release: what learners were given; from it come answers that are graded by hand and
            missing, and the checksums by which nbgrader tells that nothing was written.
    """
    own = {grader_metadata(cell)["grade_id"]: cell for cell in course_cells(course)}
    released = {grader_metadata(cell)["grade_id"]: cell for cell in course_cells(release)}
    notes: list[str] = []
    cells: list[NotebookNode] = []
    seen: set[str] = set()
    given = {cell.source for cell in release.cells}
    for cell in submitted.cells:
        cell = copy.deepcopy(cell)
        if cell.cell_type == "markdown" and cell.source not in given:
            shown = harmless.markdown(cell.source, cell.get("attachments", ()))
            if shown != cell.source:
                notes.append("A written cell holds HTML that could run code; its text is shown.")
            cell.source = shown
        grade_id = grader_metadata(cell).get("grade_id")
        known = isinstance(grade_id, str) and grade_id in own
        if known and grade_id not in seen:
            seen.add(grade_id)
            cells.append(_restored(own[grade_id], released[grade_id], cell, notes))
            continue
        if known:
            notes.append(f"The cell {grade_id} was there more than once; the first one counts.")
        cell.metadata.pop("nbgrader", None)
        cells.append(cell)
    _put_back(course, own, released, cells, seen, notes)
    taken: set[str] = set()
    for cell in sorted(cells, key=lambda cell: "nbgrader" not in cell.metadata):
        # The course's cells come first here: they keep their ids, others make way.
        cell.id = _free(cell.id, taken)
    if notes:
        lines = "\n".join(f"- {note}" for note in notes)
        text = f"**What was put right before grading**\n\n{lines}"
        note = _new_cell("markdown", text)
        note.id = _free("notes-of-grading", taken)
        cells.insert(0, note)
    notebook = nbformat.v4.new_notebook(metadata=copy.deepcopy(course.metadata))
    notebook.cells = cells
    return Assembled(notebook, notes)


def course_cells(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """The cells of a course's notebook that nbgrader knows."""
    for cell in notebook.cells:
        if grader_metadata(cell).get("grade_id"):
            yield cell


def _restored(
    own: NotebookNode, released: NotebookNode, cell: NotebookNode, notes: list[str]
) -> NotebookNode:
    """The course's cell, with the learner's text in it where the text is the learner's."""
    grade_id = grader_metadata(own)["grade_id"]
    restored = _cleared(own, released)
    if cell.cell_type != own.cell_type:
        notes.append(f"The cell {grade_id} was {cell.cell_type}; it is {own.cell_type} again.")
    if is_locked(own):
        # The released text differs from the course's own only by its hidden tests.
        if cell.source.strip() not in (own.source.strip(), released.source.strip()):
            notes.append(f"The text of the locked cell {grade_id} was changed; it is back.")
    else:
        restored.source = cell.source
        if own.cell_type == "markdown" and "attachments" in cell:
            restored.attachments = cell.attachments
    return restored


def _cleared(own: NotebookNode, released: NotebookNode) -> NotebookNode:
    """The course's cell with no outputs, and with the metadata that learners were given."""
    copied = copy.deepcopy(own)
    copied.metadata = copy.deepcopy(released.metadata)
    if copied.cell_type == "code":
        copied.outputs = []
        copied.execution_count = None
    return copied


def _put_back(
    course: NotebookNode,
    own: Mapping[str, NotebookNode],
    released: Mapping[str, NotebookNode],
    cells: list[NotebookNode],
    seen: set[str],
    notes: list[str],
) -> None:
    order = list(own)
    for position, grade_id in enumerate(order):
        cell = own[grade_id]
        wanted = is_locked(cell) or is_graded_by_hand(cell)
        if grade_id in seen or not wanted:
            continue
        seen.add(grade_id)
        missing = _cleared(cell if is_locked(cell) else released[grade_id], released[grade_id])
        if is_graded_by_tests(cell) or is_graded_by_hand(cell):
            at = _end_of_group(order[:position], own, cells)
        else:
            # A read-only cell sets things up, so it goes before whatever may need it.
            at = 0 if position == 0 else _after(order[:position], cells)
        cells.insert(at, missing)
        notes.append(f"The cell {grade_id} was missing; it was put back.")


def _end_of_group(
    before: list[str], own: Mapping[str, NotebookNode], cells: list[NotebookNode]
) -> int:
    """Where a missing graded cell goes: after its answer and the cells already following it."""
    group = []
    for grade_id in reversed(before):
        group.append(grade_id)
        if grader_metadata(own[grade_id]).get("solution"):
            break
    places = {grader_metadata(cell).get("grade_id"): at for at, cell in enumerate(cells)}
    if not group or group[-1] not in places:
        return len(cells)
    return 1 + max(places[grade_id] for grade_id in group if grade_id in places)


def _after(before: list[str], cells: list[NotebookNode]) -> int:
    places = {grader_metadata(cell).get("grade_id"): at for at, cell in enumerate(cells)}
    for grade_id in reversed(before):
        if grade_id in places:
            return places[grade_id] + 1
    return 0
