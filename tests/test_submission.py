"""Reading what was handed in, and putting the course's own cells back."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import nbformat
import pytest
from grading_fixtures import by_id, cell, edited, notebook, released, solved
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat import NotebookNode

from autograder import notebooks
from autograder.submission import (
    MAX_CELLS,
    UnreadableSubmission,
    assemble,
    is_locked,
    parse,
    read,
)


def _raw(*cells: dict[str, object], minor: int = 5) -> dict[str, object]:
    return {"nbformat": 4, "nbformat_minor": minor, "metadata": {}, "cells": list(cells)}


def _code(source: object = "1 + 1", **more: object) -> dict[str, object]:
    return {
        "cell_type": "code",
        "metadata": {},
        "execution_count": 3,
        "outputs": [{"output_type": "nonsense"}],
        "source": source,
    } | more


def _bytes(raw: object) -> bytes:
    return json.dumps(raw).encode()


# ---- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("minor", range(6))
def test_formats_4_0_to_4_5_are_read(minor: int) -> None:
    got = parse(_bytes(_raw(_code(), _code(["a\n", "b"]), minor=minor)))
    nbformat.validate(got)
    assert [c.source for c in got.cells] == ["1 + 1", "a\nb"]
    assert all(c.outputs == [] and c.execution_count is None for c in got.cells)


def test_a_byte_order_mark_and_other_line_ends_do_no_harm() -> None:
    data = b"\xef\xbb\xbf" + _bytes(_raw(_code("a\r\nb\rc")))
    assert parse(data).cells[0].source == "a\nb\nc"


def test_half_a_character_becomes_writable() -> None:
    got = parse(b'{"nbformat":4,"cells":[{"cell_type":"raw","source":"x\\ud800y","metadata":{}}]}')
    assert got.cells[0].source.encode() == b"x?y"


def test_ids_are_kept_where_they_are_usable_and_new() -> None:
    raw = _raw(_code(id="same"), _code(id="same"), _code(id="no good!"), _code(id=5), _code())
    ids = [c.id for c in parse(_bytes(raw)).cells]
    assert ids[0] == "same"
    assert len(set(ids)) == 5
    nbformat.validate(parse(_bytes(raw)))


def test_pictures_pasted_into_an_answer_are_kept() -> None:
    pasted = {"a.png": {"image/png": "AAAA"}}
    raw = _raw(
        {"cell_type": "markdown", "source": "x", "metadata": {}, "attachments": pasted},
        {"cell_type": "markdown", "source": "x", "metadata": {}, "attachments": {"a": 3}},
    )
    got = parse(_bytes(raw))
    assert got.cells[0].attachments == pasted
    assert "attachments" not in got.cells[1]
    nbformat.validate(got)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b'{"nbformat": 4, "cells": [', "not valid JSON (line 1)"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1, 2]", "not a notebook"),
        (b'{"a": 1}', "names no notebook format"),
        (_bytes({"nbformat": 3, "worksheets": []}), "format 3"),
        (_bytes({"nbformat": 4, "cells": "many"}), "no list of cells"),
        (_bytes(_raw(_code(source=5))), "cell 1 is not a cell"),
        (_bytes(_raw(_code(), _code(cell_type="video"))), "cell 2 is not a cell"),
        (_bytes({"nbformat": 4, "cells": [None]}), "cell 1 is not a cell"),
        (_bytes(_raw(*[_code("")] * (MAX_CELLS + 1))), "2,001 cells"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_notebook_is_named_with_what_to_do(data: bytes, words: str) -> None:
    with pytest.raises(UnreadableSubmission, match="hand it in again") as caught:
        parse(data, "01.ipynb")
    assert words in str(caught.value)
    assert str(caught.value).startswith("01.ipynb ")


def test_only_regular_files_of_a_sane_size_are_read(tmp_path: Path) -> None:
    good = tmp_path / "good.ipynb"
    good.write_bytes(_bytes(_raw(_code())))
    assert len(read(good).cells) == 1
    with pytest.raises(UnreadableSubmission, match="limit is"):
        read(good, max_bytes=10)
    link = tmp_path / "link.ipynb"
    link.symlink_to(good)
    with pytest.raises(UnreadableSubmission, match="symbolic link"):
        read(link)
    os.mkfifo(tmp_path / "pipe.ipynb")
    with pytest.raises(UnreadableSubmission, match="not a regular file"):
        read(tmp_path / "pipe.ipynb")
    with pytest.raises(UnreadableSubmission, match="not a regular file"):
        read(tmp_path)
    with pytest.raises(UnreadableSubmission, match="cannot be opened"):
        read(tmp_path / "absent.ipynb")


@given(st.binary(max_size=300))
def test_any_bytes_give_a_notebook_or_a_sentence(data: bytes) -> None:
    try:
        text = str(len(parse(data).cells))
    except UnreadableSubmission as error:
        text = str(error)
    assert text.endswith("again.") or text.isdigit()


# ---- assembling ------------------------------------------------------------------------------


def _assembled(submitted: NotebookNode) -> tuple[NotebookNode, list[str]]:
    made = assemble(solved(), submitted, released())
    nbformat.validate(made.notebook)
    ids = [notebooks.grade_id(c) for c in made.notebook.cells if notebooks.grade_id(c)]
    assert len(ids) == len(set(ids))
    return made.notebook, made.notes


def test_an_honest_submission_changes_in_nothing_but_its_hidden_tests() -> None:
    submitted = released()
    by_id(submitted, "softmax-solution").source = "mine"
    got, notes = _assembled(submitted)
    assert notes == []
    assert [c.source for c in got.cells] == [
        by_id(solved(), "triple-check").source
        if notebooks.grade_id(c) == "triple-check"
        else c.source
        for c in submitted.cells
    ]


def test_changed_tests_points_and_marks_are_the_courses_again() -> None:
    def cheat(book: NotebookNode) -> None:
        check = by_id(book, "softmax-check")
        check.source = "2.0"
        check.metadata["nbgrader"] |= {"points": 100, "solution": True, "extra": "x"}

    got, notes = _assembled(edited(cheat))
    check = by_id(got, "softmax-check")
    assert check.source == 'check("attention/softmax", softmax)'
    assert check.metadata == by_id(released(), "softmax-check").metadata
    assert notes == ["The text of the locked cell softmax-check was changed; it is back."]
    assert "softmax-check was changed" in got.cells[0].source


def test_changed_types_are_undone_and_outputs_dropped() -> None:
    def retype(book: NotebookNode) -> None:
        for position, kind in ((1, "markdown"), (2, "raw"), (5, "code")):
            old = book.cells[position]
            book.cells[position] = cell(kind, old.source)
            book.cells[position].metadata = old.metadata
        book.cells[5].outputs = [nbformat.v4.new_output("stream", text="x")]

    got, notes = _assembled(edited(retype))
    types = {notebooks.grade_id(c): c.cell_type for c in got.cells}
    assert types["softmax-solution"] == types["softmax-check"] == "code"
    assert types["question-why"] == "markdown"
    assert len(notes) == 3
    assert all(not c.get("outputs") for c in got.cells)


def test_of_a_cell_that_is_there_twice_the_first_counts() -> None:
    def double(book: NotebookNode) -> None:
        second = copy.deepcopy(by_id(book, "softmax-solution"))
        second.source = "second"
        book.cells.append(second)

    got, notes = _assembled(edited(double))
    assert by_id(got, "softmax-solution").source != "second"
    assert got.cells[-1].source == "second"
    assert "nbgrader" not in got.cells[-1].metadata
    assert notes == ["The cell softmax-solution was there more than once; the first one counts."]


def test_missing_graded_cells_come_back_after_their_answers() -> None:
    def delete(book: NotebookNode) -> None:
        book.cells = [c for c in book.cells if notebooks.grade_id(c) != "softmax-check"]
        book.cells.insert(2, cell("code", "# my own cell"))

    got, notes = _assembled(edited(delete))
    order = [notebooks.grade_id(c) or c.source for c in got.cells[1:]]
    assert order == [
        "setup",
        "softmax-solution",
        "softmax-check",
        "# my own cell",
        "triple-solution",
        "triple-check",
        "question-why",
    ]
    assert notes == ["The cell softmax-check was missing; it was put back."]


def test_a_notebook_without_any_marks_gets_all_graded_cells_at_its_end() -> None:
    def strip(book: NotebookNode) -> None:
        book.cells = [c for c in book.cells if notebooks.grade_id(c).endswith("solution")]
        for c in book.cells:
            del c.metadata["nbgrader"]

    got, _ = _assembled(edited(strip))
    order = [notebooks.grade_id(c) for c in got.cells[1:]]
    assert order == ["setup", None, None, "softmax-check", "triple-check", "question-why"]
    assert by_id(got, "question-why").source == by_id(released(), "question-why").source


def test_a_missing_read_only_cell_comes_back_where_it_was() -> None:
    def with_late_setup() -> NotebookNode:
        book = solved()
        late = cell("code", "y = 1", grade_id="late-setup", locked=True)
        book.cells.insert(3, late)
        return book

    got = assemble(with_late_setup(), solved(), with_late_setup()).notebook
    order = [notebooks.grade_id(c) for c in got.cells[1:]]
    assert order[2:5] == ["softmax-check", "late-setup", "triple-solution"]
    got = assemble(with_late_setup(), notebook(cell("code", "mine")), with_late_setup()).notebook
    order = [notebooks.grade_id(c) for c in got.cells[1:]]
    assert order[:3] == ["setup", None, "softmax-check"]
    assert order.index("late-setup") < order.index("triple-check")


def test_unknown_and_malformed_marks_are_taken_off() -> None:
    strange = [
        {"grade_id": "of-another-chapter", "grade": True, "points": 50},
        {"grade_id": ["softmax-check"]},
        {"grade": True},
        {"grade_id": {"a": 1}, "solution": "yes"},
    ]

    def add(book: NotebookNode) -> None:
        for marked in strange:
            book.cells.append(cell("code", "pass"))
            book.cells[-1].metadata["nbgrader"] = nbformat.from_dict(marked)

    got, notes = _assembled(edited(add))
    assert notes == []
    assert all("nbgrader" not in c.metadata for c in got.cells[-4:])


def test_the_courses_cells_keep_their_ids_and_others_make_way() -> None:
    def clash(book: NotebookNode) -> None:
        intruder = cell("code", "pass")
        intruder.id = "softmax-check"
        book.cells.insert(0, intruder)

    got, _ = _assembled(edited(clash))
    assert by_id(got, "softmax-check").id == "softmax-check"
    assert len({c.id for c in got.cells}) == len(got.cells)


_GRADE_IDS = [c.metadata["nbgrader"]["grade_id"] for c in solved().cells]
_CELLS = st.tuples(
    st.sampled_from(["code", "markdown", "raw"]),
    st.text(max_size=20),
    st.none() | st.sampled_from([*_GRADE_IDS, "unknown", ""]),
    st.dictionaries(
        st.sampled_from(["grade", "solution", "locked", "points"]),
        st.booleans() | st.integers() | st.text(max_size=3),
    ),
)


@settings(max_examples=60)
@given(st.lists(_CELLS, max_size=12))
def test_whatever_is_handed_in_the_courses_cells_are_whole(
    given_cells: list[tuple[str, str, str | None, dict[str, object]]],
) -> None:
    raw = _raw(
        *(
            {
                "cell_type": kind,
                "source": source,
                "metadata": {} if name is None else {"nbgrader": {"grade_id": name, **marked}},
            }
            for kind, source, name, marked in given_cells
        )
    )
    got, _ = _assembled(parse(_bytes(raw)))
    for own in solved().cells:
        name = notebooks.grade_id(own)
        if not (is_locked(own) or own.cell_type == "markdown"):
            continue
        mine = by_id(got, name)
        assert mine.cell_type == own.cell_type
        assert mine.metadata == by_id(released(), name).metadata
        if is_locked(own):
            assert mine.source == own.source


def test_the_notebooks_given_are_left_as_they_were() -> None:
    course, submitted, given_out = solved(), edited(lambda b: b.cells.pop(2)), released()
    before = [json.dumps(b) for b in (course, submitted, given_out)]
    assemble(course, submitted, given_out)
    assert [json.dumps(b) for b in (course, submitted, given_out)] == before


def test_an_empty_notebook_is_filled() -> None:
    got, notes = _assembled(notebook())
    assert len(notes) == 4
    assert [notebooks.grade_id(c) for c in got.cells[1:]] == [
        "setup",
        "softmax-check",
        "triple-check",
        "question-why",
    ]
