"""Submissions whose file or cells are damaged: graded where it can be, else told what was found."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder import notebooks
from tests.submissions.making import (
    ASSIGNMENT,
    FULL,
    Change,
    Course,
    Place,
    Put,
    Submission,
    at,
    book,
    brief,
    but,
    code,
    nothing,
    raw,
    to_bytes,
)


def broken(name: str, story: str, put: Put, says: str, rows: Any = FULL) -> Submission:
    """A damaged submission; unless told otherwise, the damage costs nothing."""
    return Submission(name, "broken", story, put, rows, says)


def refused(name: str, story: str, put: Put, says: str) -> Submission:
    """A file that is no notebook."""
    return broken(name, story, put, says, nothing("error"))


def _checks(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if notebooks.is_check(cell)]


# ---- cells -----------------------------------------------------------------------------------


def _delete_checks(notebook: NotebookNode) -> None:
    gone = {cell.id for cell in _checks(notebook)}
    notebook.cells = [cell for cell in notebook.cells if cell.id not in gone]


def _duplicate_checks(notebook: NotebookNode) -> None:
    for cell in _checks(notebook):
        notebook.cells.insert(notebook.cells.index(cell), cell.copy())
    # An answer that is there twice: the first one counts as the answer, but both run.
    answer = at(notebook, "padding_mask-solution")
    notebook.cells.insert(answer + 1, notebook.cells[answer].copy())


def _checks_first(notebook: NotebookNode) -> None:
    checks = _checks(notebook)
    others = [cell for cell in notebook.cells if not notebooks.is_check(cell)]
    notebook.cells = [others[0], *checks, *others[1:]]


def _edit_checks(notebook: NotebookNode) -> None:
    for cell in _checks(notebook):
        cell.source = "print('All 12 cases pass.')\n2.0"


def _retype(notebook: NotebookNode) -> None:
    for cell in _checks(notebook)[::2]:
        cell.cell_type = "markdown"
        del cell["outputs"], cell["execution_count"]
    notebook.cells[at(notebook, "causal_mask-solution")].cell_type = "raw"
    notebook.cells[at(notebook, "question-order")].cell_type = "code"


def _strip(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        cell.metadata = {}


def _mark(**changes: Any) -> Change:
    def change(notebook: NotebookNode) -> None:
        for cell in notebook.cells:
            if notebooks.mark(cell):
                cell.metadata["nbgrader"].update(changes)

    return change


def _swap_ids(notebook: NotebookNode) -> None:
    one = notebook.cells[at(notebook, "softmax-check")]
    other = notebook.cells[at(notebook, "causal_mask-check")]
    one.metadata, other.metadata = other.metadata, one.metadata
    one.id, other.id = other.id, one.id


def _bonus(notebook: NotebookNode) -> None:
    cell = code("100.0")
    mark = {"grade": True, "solution": False, "locked": True, "task": False, "schema_version": 3}
    cell.metadata["nbgrader"] = {**mark, "grade_id": "bonus-check", "points": 100}
    notebook.cells.append(cell)


def _strange_ids(notebook: NotebookNode) -> None:
    names: list[Any] = [{"a": 1}, ["x"], None, 7, "../../etc", "x" * 5000, ""]
    for cell, name in zip(_checks(notebook), names, strict=False):
        cell.metadata["nbgrader"]["grade_id"] = name
    notebook.cells[0].metadata["nbgrader"] = ["no", "dictionary"]


def _same_ids(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        cell["id"] = "twin"


def _bad_ids(notebook: NotebookNode) -> None:
    for number, cell in enumerate(notebook.cells):
        cell["id"] = [None, "ä" * 70, {"id": 1}, "", 5, "a b"][number % 6]


def _bad_outputs(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        cell["outputs"] = "none"
        cell["execution_count"] = "many"
        cell["attachments"] = {"image.png": {"image/png": 5}}
    notebook["metadata"] = None


def _old_release(notebook: NotebookNode) -> None:
    """As the chapter was before it had additive attention."""
    notebook.cells = [
        cell
        for cell in notebook.cells
        if not (notebooks.grade_id(cell) or "").startswith("additive_attention")
    ]


def _other_chapter(notebook: NotebookNode) -> None:
    """The same layout, other exercises."""
    for cell in notebook.cells:
        cell.source = cell.source.replace("softmax", "split_heads").replace("mask", "merge")
        cell.source = cell.source.replace("scaled_dot_product_attention", "MultiHead")
        cell.source = cell.source.replace("AdditiveAttention", "attention_flops")
        if notebooks.mark(cell):
            cell.metadata["nbgrader"]["grade_id"] += "-02"


def _many_cells(count: int) -> Change:
    def change(notebook: NotebookNode) -> None:
        # Empty ones: it is their number that counts.
        notebook.cells += [code("") for _ in range(count)]

    return change


def _odd_text(notebook: NotebookNode) -> None:
    """Half a character, a NUL, a right-to-left mark, a form feed: in texts and in a string."""
    notebook.cells.append(nbformat.v4.new_markdown_cell("\ud800 \u202e \f"))
    notebook.cells.insert(1, code("odd = '\u202e\x0b'"))
    notebook.cells.insert(1, code("nul = '\x00'"))


def _half_characters(notebook: NotebookNode) -> bytes:
    return json.dumps(notebook).encode()


# ---- files -----------------------------------------------------------------------------------


def edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[NotebookNode], bytes]:
    """The file of a notebook whose JSON was changed by hand."""

    def encode(notebook: NotebookNode) -> bytes:
        plain = json.loads(to_bytes(notebook))
        return json.dumps(change(plain) or plain).encode()

    return encode


def _format_3(plain: dict[str, Any]) -> dict[str, Any]:
    cells = [
        {"cell_type": c["cell_type"], "input": c["source"], "language": "python", "metadata": {}}
        for c in plain["cells"]
    ]
    return {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {"name": ""},
        "worksheets": [{"cells": cells, "metadata": {}}],
    }


def _nested(path: Path, course: Course, place: Place) -> None:
    path.write_bytes(b'{"nbformat": 4, "cells": ' + b"[" * 200_000)


def _huge(path: Path, course: Course, place: Place) -> None:
    """100 MB that take no room: written as a hole."""
    with open(path, "wb") as file:
        file.write(to_bytes(brief(course.answered({}))))
        file.truncate(100 * 2**20)


def _zipped(notebook: NotebookNode) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(f"{ASSIGNMENT}.ipynb", to_bytes(notebook))
        return file.getvalue()


def _under_another_name(path: Path, course: Course, place: Place) -> None:
    book()(path.with_name("01_attention (1).ipynb"), course, place)


def _a_folder(path: Path, course: Course, place: Place) -> None:
    path.mkdir()
    book()(path / path.name, course, place)


def _nothing_there(path: Path, course: Course, place: Place) -> None:
    path.with_name("notes.txt").write_text("I forgot.")


DAMAGED = (
    broken("checks-deleted", "Every graded cell is gone.", book(change=_delete_checks), "put back"),
    broken(
        "checks-duplicated",
        "Graded cells and an answer are there twice.",
        book(change=_duplicate_checks),
        "more than once",
    ),
    broken(
        "checks-first",
        "All graded cells stand above the answers.",
        book(change=_checks_first),
        "comes later",
        nothing("error"),
    ),
    broken(
        "checks-edited",
        "Graded cells print that all is well.",
        book(change=_edit_checks),
        "was changed; it is back",
    ),
    broken("retyped", "Cells have other types.", book(change=_retype), "it is code again"),
    broken("stripped", "No cell has metadata.", book(change=_strip), "put back"),
    broken("points-100", "Each cell is worth 100 points.", book(change=_mark(points=100)), ""),
    broken(
        "not-graded", "Metadata say that nothing is graded.", book(change=_mark(grade=False)), ""
    ),
    broken(
        "all-graded",
        "Metadata say that every cell is graded, locked, a solution and a task.",
        book(change=_mark(grade=True, solution=True, locked=True, task=True, points=50)),
        "",
    ),
    broken(
        "ids-swapped",
        "Two graded cells have each other's name.",
        book(change=_swap_ids),
        "causal_mask is not defined yet",
        but(causal_mask=(0.0, "error")),
    ),
    broken("bonus", "A graded cell of one's own, worth 100.", book(change=_bonus), ""),
    broken("strange-ids", "Grade ids that are no names.", book(change=_strange_ids), "put back"),
    broken("same-ids", "All cells have one id.", book(change=_same_ids), ""),
    broken("bad-ids", "Cell ids that the format forbids.", book(change=_bad_ids), ""),
    broken("bad-outputs", "Outputs that are no outputs.", book(change=_bad_outputs), ""),
    broken(
        "old-release",
        "The chapter as it was before its last exercise.",
        book(change=_old_release),
        "no cell of the notebook defines it",
        but(AdditiveAttention=(0.0, "error")),
    ),
    broken(
        "another-chapter",
        "Another chapter's notebook under this one's name.",
        book(change=_other_chapter),
        "no cell of the notebook defines it",
        nothing("error"),
    ),
    broken(
        "no-cells",
        "A notebook without a cell.",
        book(change=lambda notebook: notebook.update(cells=[])),
        "put back",
        nothing("error"),
    ),
    broken("cells-900", "900 empty cells besides.", book(change=_many_cells(900)), ""),
    broken(
        "odd-text",
        "Half a character, NUL bytes and marks that turn the line around.",
        book(change=_odd_text, encode=_half_characters),
        "",
    ),
    broken(
        "future-minor",
        "Says that it has format 4.99, and fields that nobody knows.",
        book(encode=edited(lambda p: p.update(nbformat_minor=99, more={"x": [1]}))),
        "",
    ),
    broken(
        "no-metadata",
        "The notebook and its cells lack all that is optional.",
        book(
            encode=edited(
                lambda p: {
                    "nbformat": 4,
                    "cells": [
                        {"cell_type": c["cell_type"], "source": c["source"]} for c in p["cells"]
                    ],
                }
            )
        ),
        "put back",
    ),
)

REFUSED = (
    refused("cells-3000", "3,000 cells.", book(change=_many_cells(3000)), "the limit is 2,000"),
    refused("format-3", "Notebook format 3.", book(encode=edited(_format_3)), "format 3"),
    refused(
        "format-5", "Format 5.", book(encode=edited(lambda p: p.update(nbformat=5))), "format 5"
    ),
    refused(
        "format-text",
        "The format is a text of 10,000 letters.",
        book(encode=edited(lambda p: p.update(nbformat="4" * 10_000))),
        "only format 4",
    ),
    refused("no-json", "A text that is no JSON.", raw(b"Dear teacher, see below.\n"), "valid JSON"),
    refused("python", "A Python script.", raw(b"def softmax(x):\n    pass\n"), "valid JSON"),
    refused("web-page", "A saved web page.", raw(b"<!DOCTYPE html><html></html>"), "valid JSON"),
    refused("a-list", "JSON, but a list.", raw(b"[1, 2]"), "not a notebook"),
    refused("null", "JSON, but null.", raw(b"null"), "not a notebook"),
    refused("empty", "An empty file.", raw(b""), "is empty"),
    refused("blanks", "Only blanks.", raw(b" \n\t\n"), "is empty"),
    refused(
        "truncated",
        "Cut in the middle.",
        book(encode=lambda notebook: to_bytes(notebook)[:4000]),
        "valid JSON",
    ),
    refused(
        "latin-1",
        "Saved as Latin-1.",
        book(
            encode=lambda n: (
                to_bytes(n).decode().replace("code", "cödé").encode("latin-1", "replace")
            )
        ),
        "not UTF-8",
    ),
    refused(
        "utf-16",
        "Saved as UTF-16.",
        book(encode=lambda notebook: to_bytes(notebook).decode().encode("utf-16")),
        "not UTF-8",
    ),
    refused("zeros", "A file of zero bytes.", raw(bytes(5000)), "valid JSON"),
    refused("gzipped", "Compressed.", book(encode=lambda n: gzip.compress(to_bytes(n))), "UTF-8"),
    refused("zipped", "An archive, renamed.", book(encode=_zipped), "UTF-8"),
    refused("nested", "200,000 brackets.", _nested, "nested too deeply"),
    refused(
        "long-number",
        "A whole number of 10,000 digits.",
        raw(b'{"nbformat": 4, "cells": [], "x": ' + b"9" * 10_000 + b"}"),
        "valid JSON",
    ),
    refused("huge", "100 MB.", _huge, "the limit is 32 MiB"),
    refused(
        "cell-types",
        "A cell that is a video.",
        book(encode=edited(lambda p: p["cells"][0].update(cell_type="video"))),
        "is not a cell",
    ),
    refused(
        "cell-text",
        "A cell that is a text.",
        book(encode=edited(lambda p: p["cells"].insert(2, "x = 1"))),
        "its cell 3 is not a cell",
    ),
    refused(
        "source-numbers",
        "A source of numbers.",
        book(encode=edited(lambda p: p["cells"][1].update(source=[1, 2]))),
        "is not a cell",
    ),
    refused(
        "cells-mapping",
        "Cells that are no list.",
        book(encode=edited(lambda p: p.update(cells={"0": p["cells"]}))),
        "no list of cells",
    ),
    refused("a-folder", "A folder where the notebook should be.", _a_folder, "regular file"),
)

MISSING = (
    broken(
        "missing",
        "A folder without a notebook.",
        _nothing_there,
        "No 01_attention.ipynb was",
        nothing("missing"),
    ),
    broken(
        "other-name",
        "The notebook has another name.",
        _under_another_name,
        "rename it",
        nothing("missing"),
    ),
)

SUBMISSIONS = (*DAMAGED, *REFUSED, *MISSING)
