"""Exporting: what a gradebook holds, as Canvas and Moodle import it."""

from __future__ import annotations

import csv
import subprocess
import sys
import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from nbgrader.api import Gradebook
from test_cli import invoke
from test_collect import book, make_zip

from autograder import release
from autograder.collect import collect
from autograder.exports import ExportError, Written, export

NAME = "01_attention"
CANVAS = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
MOODLE = [
    "Identifier",
    "Full name",
    "Email address",
    "Status",
    "Grade",
    "Maximum grade",
    "Grade can be changed",
    "Last modified (submission)",
    "Last modified (grade)",
    "Feedback comments",
]


def add_assignment(gradebook: Gradebook, name: str) -> None:
    """Two exercises: 6 points checked, 4 graded by hand."""
    gradebook.add_assignment(name, duedate="2026-09-10 12:00:00")
    gradebook.add_notebook(name, name)
    for cell, kind, most in (("softmax-check", "code", 6), ("question-why", "markdown", 4)):
        gradebook.add_grade_cell(cell, name, name, max_score=most, cell_type=kind)
        gradebook.add_solution_cell(f"{cell}-solution", name, name)


def add_submission(
    gradebook: Gradebook,
    student: str,
    assignment: str = NAME,
    auto: float = 0.0,
    manual: float | None = None,
    extra: float | None = None,
    penalty: float = 0.0,
    comment: str = "",
) -> None:
    gradebook.update_or_create_student(student)
    submission = gradebook.add_submission(assignment, student, timestamp=datetime(2026, 9, 11))
    notebook = submission.notebooks[0]
    notebook.late_submission_penalty = penalty
    for grade in notebook.grades:
        if grade.name == "softmax-check":
            grade.auto_score, grade.needs_manual_grade = auto, False
        else:
            grade.manual_score, grade.extra_credit = manual, extra
            grade.needs_manual_grade = manual is None
    if comment:
        notebook.comments[0].manual_comment = comment
    gradebook.db.commit()


def graded(
    folder: Path, *submissions: dict[str, Any], assignments: Sequence[str] = (NAME,)
) -> Path:
    """A folder with a gradebook, as ``grade`` leaves it."""
    folder.mkdir(exist_ok=True)
    with (
        release.tools_on_path(),
        release.kept_log(),
        warnings.catch_warnings(),
        Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as gradebook,
    ):
        # nbgrader's own way of adding a submission causes them.
        warnings.filterwarnings("ignore", "Object of type")
        for name in assignments:
            add_assignment(gradebook, name)
        for submission in submissions:
            add_submission(gradebook, **submission)
    return folder


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def table_of(path: Path) -> list[dict[str, str]]:
    header, *rows = rows_of(path)
    return [dict(zip(header, row, strict=True)) for row in rows]


def write_roster(path: Path, header: list[str], *rows: list[str], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


CLASS: tuple[dict[str, Any], ...] = (
    {"student": "ada", "auto": 6, "manual": 3.5},
    {"student": "ben", "auto": 4, "manual": 2, "extra": 1.25, "penalty": 2},
    {"student": "eve", "auto": 1, "manual": None},
    {"student": "zoe", "auto": 1, "manual": 0, "penalty": 5},
)
SCORES = {"ada": "9.5", "ben": "5.25", "eve": "1", "zoe": "0"}


# ---- what counts -----------------------------------------------------------------------------


def test_canvas_without_a_roster_counts_as_nbgrader_s_own_export(tmp_path: Path) -> None:
    folder = graded(tmp_path / "graded", *CLASS)
    written = export(folder, "canvas")
    assert written.path == folder / "canvas.csv"
    header, maxima, *rows = rows_of(written.path)
    assert header == [*CANVAS, NAME]
    assert maxima == ["    Points Possible", "", "", "", "", "10"]
    assert {row[3]: row[5] for row in rows} == SCORES
    assert {row[0] for row in rows} == set(SCORES)
    assert any("wait for grading by hand (eve)" in note for note in written.notes)

    theirs = tmp_path / "nbgrader.csv"
    database = f"sqlite:///{folder / 'gradebook.db'}"
    _nbgrader(tmp_path, "export", f"--db={database}", f"--to={theirs}")
    assert {row["student_id"]: float(row["score"]) for row in table_of(theirs)} == {
        student: float(score) for student, score in SCORES.items()
    }


@pytest.mark.parametrize("form", ["Canvas", "Moodle"])
def test_nbgrader_export_writes_the_same_with_our_exporter(tmp_path: Path, form: str) -> None:
    folder = graded(tmp_path / "graded", *CLASS)
    written = export(folder, form.lower())
    to = tmp_path / "theirs.csv"
    _nbgrader(
        tmp_path,
        "export",
        f"--exporter=autograder.exports.{form}ExportPlugin",
        f"--db=sqlite:///{folder / 'gradebook.db'}",
        f"--to={to}",
        f"--assignment=['{NAME}']",
    )
    assert to.read_bytes() == written.path.read_bytes()


def _nbgrader(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_assignment_is_a_column_and_what_is_missing_counts_0(tmp_path: Path) -> None:
    folder = graded(
        tmp_path / "graded",
        {"student": "ada", "auto": 6, "manual": 4},
        {"student": "ada", "assignment": "02_more", "auto": 3, "manual": 1},
        {"student": "ben", "assignment": "02_more", "auto": 2.333, "manual": 0},
        assignments=(NAME, "02_more"),
    )
    header, _, *rows = rows_of(export(folder, "canvas").path)
    assert header[5:] == [NAME, "02_more"]
    assert {row[0]: row[5:] for row in rows} == {"ada": ["10", "4"], "ben": ["0", "2.33"]}

    only = export(folder, "canvas", to=tmp_path / "one.csv", assignments=["02_more"])
    assert rows_of(only.path)[0][5:] == ["02_more"]
    with pytest.raises(ExportError, match=f"--assignment: {NAME}, 02_more"):
        export(folder, "moodle")


# ---- rosters ---------------------------------------------------------------------------------


def test_canvas_roster_is_matched_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    folder = graded(
        tmp_path / "graded",
        {"student": "lovelaceada_101", "auto": 6, "manual": 4},  # as collect names the folder
        {"student": "aturing", "auto": 5, "manual": 0},  # the login
        {"student": "Grace_Hopper", "auto": 4, "manual": 0},  # the name
        {"student": "emmy@uni.edu", "auto": 3, "manual": 0},
        {"student": "lovelaceada_999", "auto": 2, "manual": 0},  # nobody's number
        {"student": "team_103", "auto": 1, "manual": 0},  # Grace's number, another name
    )
    columns = [*CANVAS[:4], "Integration ID", "Section"]
    roster = write_roster(
        tmp_path / "roster.csv",
        [*columns, "Notes", "Old quiz (7)", "01 Attention (4711)", "Final Score"],
        ["", "", "", "", "", "", "", "", "Manual Posting", ""],
        ["    Points Possible", "", "", "", "", "", "", "5", "20", "(read only)"],
        ["Lovelace, Ada", "101", "s1", "alovelace", "i1", "A and B", "", "4", "", "80"],
        ["Turing, Alan", "102", "s2", "ATuring", "i2", "A", "", "4", "3", "80"],
        ["Hopper, Grace", "103", "s3", "ghopper", "i3", "A", "", "4", "", "80"],
        ["Noether, Emmy", "104", "s4", "Emmy@uni.edu", "i4", "A", "", "4", "", "80"],
        ["Student, Test", "199", "", "0ad", "", "A", "", "", "7.5", ""],
    )
    written = export(folder, "canvas", roster)
    header, maxima, *rows = rows_of(written.path)
    assert header == [*columns, "01 Attention (4711)"]
    assert maxima == ["    Points Possible", *[""] * 5, "10"]
    assert rows[:5] == [
        ["Lovelace, Ada", "101", "s1", "alovelace", "i1", "A and B", "10"],
        ["Turing, Alan", "102", "s2", "ATuring", "i2", "A", "5"],
        ["Hopper, Grace", "103", "s3", "ghopper", "i3", "A", "4"],
        ["Noether, Emmy", "104", "s4", "Emmy@uni.edu", "i4", "A", "3"],
        ["Student, Test", "199", "", "0ad", "", "A", "7.5"],  # what Canvas has, stays
    ]
    assert [(row[0], row[1], row[3], row[6]) for row in rows[5:]] == [
        ("lovelaceada_999", "", "lovelaceada_999", "2"),
        ("team_103", "", "team_103", "1"),
    ]
    notes = "\n".join(written.notes)
    assert "Not in roster.csv: lovelaceada_999; team_103." in notes
    assert "Only in roster.csv: Student, Test." in notes
    assert "20 points in Canvas; the import sets them to 10" in notes


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_moodle_worksheet_is_filled_in(tmp_path: Path, delimiter: str) -> None:
    folder = graded(
        tmp_path / "graded",
        {
            "student": "Ada_Lovelace_501",
            "auto": 6,
            "manual": 3.5,
            "comment": "Well done <b>&\nso on",
        },
        {"student": "ben", "auto": 2, "manual": 0, "penalty": 1},
    )
    roster = write_roster(
        tmp_path / "sheet.csv",
        MOODLE,
        ["Participant 501", "Ada Lovelace", "ada@uni.edu", "S", "-", "10,00", "Yes", "d", "-", ""],
        ["Participant 502", "Ben Bitdiddle", "ben@uni.edu", "S", "", "10.00", "Yes", "d", "-", ""],
        ["Participant 503", "Eve", "eve@uni.edu", "N", "7.00", "10.00", "Yes", "-", "x", "old"],
        delimiter=delimiter,
    )
    written = export(folder, "moodle", roster)
    assert rows_of(written.path)[0] == MOODLE
    ada, ben, eve = table_of(written.path)
    assert (ada["Identifier"], ada["Grade"], ben["Grade"]) == ("Participant 501", "9.5", "1")
    assert "softmax-check: 6 / 6" in ada["Feedback comments"]
    assert "question-why: 3.5 / 4" in ada["Feedback comments"]
    assert "Well done &lt;b&gt;&amp;<br>so on" in ada["Feedback comments"]
    assert "Handed in late: -1" in ben["Feedback comments"]
    assert list(eve.values()) == [
        "Participant 503", "Eve", "eve@uni.edu", "N", "7.00", "10.00", "Yes", "-", "x", "old",
    ]  # fmt: skip
    assert any("Only in sheet.csv: Eve" in note for note in written.notes)


def test_moodle_participants_without_names_are_matched_by_number(tmp_path: Path) -> None:
    folder = graded(
        tmp_path / "graded",
        {"student": "Participant_501", "auto": 6, "manual": 0},
        {"student": "Participant_502", "auto": 5, "manual": 0},
    )
    columns = ["Identifier", "Status", "Grade", "Maximum Grade", "Last modified (grade)"]
    roster = write_roster(
        tmp_path / "sheet.csv",
        columns,
        *[[f"Participant {n}", "S", "", "10.00", "-"] for n in (503, 502, 501)],
    )
    written = export(folder, "moodle", roster)
    assert [row["Grade"] for row in table_of(written.path)] == ["", "5", "6"]
    assert any("no column Feedback comments" in note for note in written.notes)


def test_a_doubtful_match_is_no_match(tmp_path: Path) -> None:
    folder = graded(
        tmp_path / "graded",
        {"student": "kim_lee", "auto": 6, "manual": 0},
        {"student": "ada", "auto": 5, "manual": 0},
        {"student": "Ada Lovelace", "auto": 4, "manual": 0},
    )
    roster = write_roster(
        tmp_path / "sheet.csv",
        MOODLE,
        ["Participant 1", "Kim Lee", "k1@uni.edu", "", "", "10", "", "", "-", ""],
        ["Participant 2", "Kim Lee", "k2@uni.edu", "", "", "10", "", "", "-", ""],
        ["Participant 3", "Ada Lovelace", "ada@uni.edu", "", "", "10", "", "", "-", ""],
    )
    written = export(folder, "moodle", roster)
    table = table_of(written.path)
    assert [row["Grade"] for row in table[:3]] == ["", "", ""]
    assert {row["Full name"]: row["Grade"] for row in table[3:]} == {
        "kim_lee": "6",
        "ada": "5",
        "Ada Lovelace": "4",
    }
    [note] = [note for note in written.notes if note.startswith("Not in")]
    assert "kim_lee (fits 2 rows)" in note
    assert "Ada Lovelace and ada (fit the same row)" in note


def test_moodle_with_another_maximum_is_refused(tmp_path: Path) -> None:
    folder = graded(tmp_path / "graded", {"student": "ada", "auto": 6, "manual": 4})
    roster = write_roster(
        tmp_path / "sheet.csv",
        MOODLE,
        ["Participant 1", "Ada", "ada@x", "", "", "100.00", "", "", "-", ""],
    )
    with pytest.raises(ExportError, match="100 points in Moodle and 10 here"):
        export(folder, "moodle", roster)
    assert not (folder / "moodle.csv").exists()


def test_moodle_names_grades_above_the_maximum(tmp_path: Path) -> None:
    folder = graded(tmp_path / "graded", {"student": "ada", "auto": 6, "manual": 4, "extra": 2})
    assert any("More than 10 points: ada" in note for note in export(folder, "moodle").notes)


@pytest.mark.parametrize("form", ["canvas", "moodle"])
def test_cells_that_a_spreadsheet_would_run_are_defused(tmp_path: Path, form: str) -> None:
    danger = '=HYPERLINK("http://x","y")'
    folder = graded(
        tmp_path / "graded",
        {"student": "@ada", "auto": 6, "manual": 4, "comment": "=1+1"},
        {"student": "-2+3", "auto": 6, "manual": 4},
    )
    header = CANVAS if form == "canvas" else MOODLE
    width = len(header)
    roster = write_roster(
        tmp_path / "roster.csv",
        header,
        [danger, "+1", "@x", *["\t=2"] * (width - 3)],
        ["Participant 7", *["" for _ in range(width - 1)]],
    )
    cells = [cell for row in rows_of(export(folder, form, roster).path) for cell in row]
    assert f"'{danger}" in cells
    assert not [c for c in cells if c.startswith(("=", "+", "-", "@", "\t", "\r")) and c != "-"]
    if form == "moodle":
        return
    assert "'@ada" in cells


# ---- a class, from the archive to the import -------------------------------------------------


def test_from_the_archive_of_a_class_to_its_grades(tmp_path: Path) -> None:
    names = {101: "Ada Lovelace", 102: "José Müller", 103: "Ada Lovelace"}
    archive = make_zip(
        tmp_path / "moodle.zip",
        {
            f"{name}_{n}_assignsubmission_file_/{NAME}.ipynb": book(str(n))
            for n, name in names.items()
        },
    )
    collected = collect(archive, tmp_path / "submitted", root=ROOT)
    folder = graded(
        tmp_path / "graded",
        *(
            {"student": item.student, "auto": n, "manual": 1}
            for n, item in enumerate(collected.items)
        ),
    )
    scores = {item.student: str(n + 1) for n, item in enumerate(collected.items)}
    sheet = write_roster(
        tmp_path / "sheet.csv",
        MOODLE,
        *[
            [f"Participant {n}", name, f"{n}@uni.edu", "S", "", "10.00", "Yes", "d", "-", ""]
            for n, name in names.items()
        ],
    )
    moodle = export(folder, "moodle", sheet)
    assert {row["Identifier"]: row["Grade"] for row in table_of(moodle.path)} == {
        "Participant 101": scores["Ada_Lovelace_101"],
        "Participant 102": scores["José_Müller_102"],
        "Participant 103": scores["Ada_Lovelace_103"],
    }
    assert not [note for note in moodle.notes if "roster" in note or "Not in" in note]


# ---- the command -----------------------------------------------------------------------------


def test_the_command_writes_the_file_and_says_what_to_look_at(tmp_path: Path) -> None:
    folder = graded(tmp_path / "graded", *CLASS)
    to = tmp_path / "grades.csv"
    result = invoke("export", folder, "--format", "canvas", "--to", to)
    assert result.exit_code == 0, result.output
    assert f"{to}: 4 students" in result.stdout
    assert "wait for grading by hand (eve)" in result.stdout
    assert len(rows_of(to)) == 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["graded", "--format", "blackboard"], "canvas, moodle"),
        (["nowhere", "--format", "canvas"], "no gradebook nowhere"),
        (["broken", "--format", "canvas"], "no gradebook of nbgrader's"),
        (["graded", "--format", "canvas", "--assignment", "42"], f"It has: {NAME}"),
        (["graded", "--format", "canvas", "--roster", "none.csv"], "Cannot read the roster"),
        (["graded", "--format", "canvas", "--roster", "latin.csv"], "not UTF-8"),
        (["graded", "--format", "canvas", "--roster", "moodle.csv"], "no export of Canvas"),
        (["graded", "--format", "moodle", "--roster", "canvas.csv"], "no grading worksheet"),
        (["graded", "--format", "canvas", "--roster", "empty.csv"], "names no students"),
        (["graded", "--format", "canvas", "--roster", "twice.csv"], "more than one column ID"),
        (["graded", "--format", "canvas", "--to", "latin.csv/y.csv"], "Cannot write"),
    ],
)
def test_unusable_input_exits_2_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    graded(tmp_path / "graded", *CLASS)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "gradebook.db").write_bytes(b"no database" * 100)
    (tmp_path / "latin.csv").write_bytes("Student,ID\nJosé,1\n".encode("latin-1"))
    (tmp_path / "empty.csv").write_text("Student,ID,Section\n")
    write_roster(tmp_path / "moodle.csv", MOODLE, ["Participant 1"])
    write_roster(tmp_path / "canvas.csv", CANVAS, ["Lovelace, Ada", "1"])
    write_roster(tmp_path / "twice.csv", [*CANVAS, "ID"], ["Lovelace, Ada", "1"])
    before = sorted(path.name for path in (tmp_path / "graded").iterdir())
    result = invoke("export", *arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output
    assert sorted(path.name for path in (tmp_path / "graded").iterdir()) == before


def test_what_exporting_gave_names_the_file(tmp_path: Path) -> None:
    written = export(graded(tmp_path / "graded", CLASS[0]), "moodle")
    assert isinstance(written, Written)
    [ada] = table_of(written.path)
    assert (ada["Full name"], ada["Grade"], ada["Maximum grade"]) == ("ada", "9.5", "10")
    assert any("--roster" in note for note in written.notes)
