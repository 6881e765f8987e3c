"""Grading: one submission's verdicts, and a whole class end to end."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, fresh_pack
from grading_fixtures import (
    SOFTMAX,
    STUB,
    CannedEngine,
    assignment,
    by_id,
    cell,
    edited,
    error,
    outcomes_of,
    released,
    solved,
)
from nbformat import NotebookNode
from nbgrader.api import Gradebook as Database
from nbgrader.utils import determine_grade
from rich.console import Console

from autograder import exercise as exercises
from autograder import grading, notebooks, record, release, sample, tables
from autograder.assignment import Assignment, GradingError, load_assignment, load_pack
from autograder.engine import CellResult, ForkEngine, Job, Transcript
from autograder.gradebook import Gradebook, _timestamp
from autograder.marking import Graded, Limits, grade_notebook, grade_submission
from autograder.notebooks import SourceError
from autograder.pack import Pack
from autograder.verdict import Verdict

WRONG = SOFTMAX.replace("dim=dim", "dim=-1")


@pytest.fixture(scope="module")
def small() -> Assignment:
    """The assignment of ``grading_fixtures``."""
    return assignment()


def _mark(
    small: Assignment,
    results: dict[str, CellResult],
    status: str = "finished",
    note: str = "",
    submitted: NotebookNode | None = None,
) -> Graded:
    graded = grade_notebook(submitted or solved(), small, CannedEngine(results, status, note))
    nbformat.validate(graded.notebook)
    for check, verdict in zip(small.checks, graded.verdicts, strict=True):
        recorded = by_id(graded.notebook, check.grade_id)
        assert determine_grade(recorded) == (verdict.points, check.points)
        assert (verdict.exercise, verdict.max_points) == (check.exercise, check.points)
    return graded


def _first(small: Assignment, *arguments: object, **more: object) -> Verdict:
    return _mark(small, *arguments, **more).verdicts[0]


def _sent(*messages: bytes) -> dict[str, CellResult]:
    return {"softmax-check": CellResult(messages=list(messages), status="ok")}


# ---- what a check sent -----------------------------------------------------------------------


def test_the_judge_decides_by_what_the_check_sent(small: Assignment) -> None:
    right = _mark(small, _sent(outcomes_of(SOFTMAX)))
    assert (right.verdicts[0].points, right.verdicts[0].status) == (2.0, "passed")
    wrong = _first(small, _sent(outcomes_of(WRONG)))
    assert 0 < wrong.points < 2
    assert "ignores dim" in wrong.misconception


def test_of_several_messages_the_first_counts(small: Assignment) -> None:
    assert _first(small, _sent(outcomes_of(WRONG), outcomes_of(SOFTMAX))).status == "failed"


def test_messages_about_another_exercise_are_ignored(small: Assignment) -> None:
    other = outcomes_of(SOFTMAX).replace(b"attention/softmax", b"attention/softsox")
    assert _first(small, _sent(other, outcomes_of(WRONG))).status == "failed"
    verdict = _first(small, _sent(other))
    assert (verdict.status, verdict.message) == ("error", "The check sent no results.")


@pytest.mark.parametrize("data", [b"", b"\x00" * 20, b"garbage" * 50])
def test_malformed_bytes_are_an_error_with_its_name(small: Assignment, data: bytes) -> None:
    verdict = _first(small, _sent(data))
    assert (verdict.status, verdict.points) == ("error", 0.0)
    assert "cannot be read" in verdict.message


def test_values_that_the_judge_cannot_compare_are_an_error(
    small: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OverflowError("too odd")

    monkeypatch.setattr("autograder.marking.judge", fails)
    verdict = _first(small, _sent(outcomes_of(SOFTMAX)))
    assert verdict.status == "error"
    assert "too odd" in verdict.message


def test_what_a_graded_cell_shows_is_the_judges(small: Assignment) -> None:
    forged = nbformat.v4.new_output("execute_result", data={"text/plain": "2.0"})
    result = CellResult([forged], [outcomes_of(WRONG)], "ok")
    graded = _mark(small, {"softmax-check": result})
    shown, value = by_id(graded.notebook, "softmax-check").outputs
    assert shown.data["text/html"] == graded.verdicts[0].html()
    assert shown.data["text/plain"] == graded.verdicts[0].text()
    assert value.data["text/plain"] == repr(graded.verdicts[0].points)


# ---- nothing sent ----------------------------------------------------------------------------

NOT_DEFINED = CellResult([error("NameError", "name 'softmax' is not defined")], [], "error")


def test_a_component_whose_cell_failed_says_how(small: Assignment) -> None:
    failed = CellResult([error("ValueError", "no\n luck")], [], "error")
    verdict = _first(small, {"softmax-check": NOT_DEFINED, "softmax-solution": failed})
    assert verdict.status == "error"
    assert verdict.message == (
        "softmax is not defined: the cell that should define it stopped with ValueError: no luck."
    )


def test_a_component_whose_cell_did_not_end_is_a_timeout(small: Assignment) -> None:
    late = CellResult([error("CellTimeout", "x")], [], "timeout")
    verdict = _first(small, {"softmax-check": NOT_DEFINED, "softmax-solution": late})
    assert (verdict.status, verdict.points) == ("timeout", 0.0)


def test_a_component_under_another_name_or_too_late_is_told_apart(small: Assignment) -> None:
    renamed = edited(lambda b: by_id(b, "softmax-solution").update(source="def mine(): pass"))
    verdict = _first(small, {"softmax-check": NOT_DEFINED}, submitted=renamed)
    assert "no cell of the notebook defines it" in verdict.message

    moved = edited(lambda b: b.cells.append(b.cells.pop(1)))
    verdict = _first(small, {"softmax-check": NOT_DEFINED}, submitted=moved)
    assert "comes later" in verdict.message


def test_other_errors_of_a_check_are_quoted(small: Assignment) -> None:
    broken = CellResult([error("MemoryError")], [], "error")
    verdict = _first(small, {"softmax-check": broken})
    assert verdict.message == "The check could not run: MemoryError."
    late = CellResult([error("CellTimeout", "It took long.")], [], "timeout")
    assert _first(small, {"softmax-check": late}).status == "timeout"


@pytest.mark.parametrize(("status", "words"), [("timeout", "still in"), ("killed", "was in")])
def test_cells_that_were_never_reached_say_where_it_stopped(
    small: Assignment, status: str, words: str
) -> None:
    never = {
        name: CellResult()
        for name in ("softmax-check", "triple-solution", "triple-check", "softmax-solution")
    }
    graded = _mark(small, never, status, "The note.")
    for verdict in graded.verdicts:
        assert (verdict.status, verdict.points) == (status, 0.0)
        assert verdict.message.startswith("The note.")
        assert words in verdict.message
        assert "def softmax(scores, dim=-1):" in verdict.message
    stopped = by_id(graded.notebook, "softmax-solution").outputs[-1]
    assert stopped.output_type == "error"


def test_what_ended_before_the_process_died_keeps_its_points(small: Assignment) -> None:
    results = _sent(outcomes_of(SOFTMAX)) | {"triple-check": CellResult()}
    graded = _mark(small, results, "killed", "It died.")
    assert [verdict.status for verdict in graded.verdicts] == ["passed", "killed"]


# ---- plain test cells ------------------------------------------------------------------------


def _value(text: str) -> NotebookNode:
    return nbformat.v4.new_output("execute_result", data={"text/plain": text})


@pytest.mark.parametrize(
    ("outputs", "state", "points", "status"),
    [
        ([], "ok", 3.0, "passed"),
        ([nbformat.v4.new_output("stream", name="stderr", text="warned")], "ok", 3.0, "passed"),
        ([_value("1.5")], "ok", 1.5, "failed"),
        ([_value("'no number'")], "ok", 3.0, "passed"),
        ([_value("7")], "ok", 0.0, "error"),
        ([_value("nan")], "ok", 0.0, "error"),
        ([error("AssertionError", "the secret is seven")], "error", 0.0, "failed"),
        ([error("NameError", "name 'triple' is not defined")], "error", 0.0, "error"),
        ([error("CellTimeout", "late")], "timeout", 0.0, "timeout"),
        ([], None, 0.0, "error"),
    ],
)
def test_plain_test_cells_are_graded_by_their_errors_or_points(
    small: Assignment, outputs: list[NotebookNode], state: str | None, points: float, status: str
) -> None:
    result = {"triple-check": CellResult(outputs, [], state)}
    graded = _mark(small, _sent(outcomes_of(SOFTMAX)) | result)
    assert (graded.verdicts[1].points, graded.verdicts[1].status) == (points, status)


def test_no_trace_of_a_hidden_test_is_recorded(small: Assignment) -> None:
    trace = error("AssertionError", "failed")
    trace.traceback = ['assert triple(7) == 21, "the secret is seven"']
    graded = _mark(small, {"triple-check": CellResult([trace], [], "error")})
    assert "secret" not in json.dumps(graded.notebook)


def test_the_job_runs_hidden_tests_and_only_code(small: Assignment) -> None:
    engine = CannedEngine({})
    grade_notebook(edited(lambda b: b.cells.append(cell("code", " ")), released()), small, engine)
    (job,) = engine.jobs
    assert [c.id for c in job.cells] == [
        "setup",
        "softmax-solution",
        "softmax-check",
        "triple-solution",
        "triple-check",
    ]
    assert "the secret is seven" in job.cells[4].source
    assert [c.exercise for c in job.cells] == [None, None, "attention/softmax", None, None]


@pytest.fixture(scope="module")
def engine() -> Iterator[ForkEngine]:
    """Shut in as the machine allows."""
    with ForkEngine(trust=True) as engine:
        yield engine


def test_the_small_assignment_for_real(small: Assignment, engine: ForkEngine) -> None:
    warns = "import sys\ndef triple(x):\n    print('careful', file=sys.stderr)\n    return x * 3"
    graded = grade_notebook(
        edited(lambda b: by_id(b, "triple-solution").update(source=warns)), small, engine
    )
    assert [verdict.status for verdict in graded.verdicts] == ["passed", "passed"]
    assert graded.run["in_process"] == ["triple-check"]
    shown = by_id(graded.notebook, "triple-check").outputs
    assert any("Checked in-process" in str(out) for out in shown)
    assert "in-process" not in str(by_id(graded.notebook, "softmax-check").outputs)

    def unfinished(book: NotebookNode) -> None:
        by_id(book, "softmax-solution").source = STUB
        by_id(book, "triple-solution").source = "def triple(x): return x + 4"

    graded = grade_notebook(edited(unfinished), small, engine)
    first, second = graded.verdicts
    assert (first.status, first.points) == ("error", 0.0)
    assert "not written yet" in first.message
    assert (second.status, second.points) == ("failed", 0.0)


STUBBORN = (
    "import signal, time\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
    "while True: time.sleep(1)\n"
)


@pytest.mark.parametrize(
    ("spoil", "status", "words"),
    [
        (STUBBORN, "timeout", "the cell that defines it did not end"),
        ("import ctypes\nctypes.string_at(0)\n", "killed", "SIGSEGV"),
        ("import os\nos._exit(0)\n", "killed", "exit status 0"),
    ],
)
def test_a_cell_that_hangs_or_dies_costs_its_own_points_only(
    small: Assignment, engine: ForkEngine, spoil: str, status: str, words: str
) -> None:
    def change(book: NotebookNode) -> None:
        cell = by_id(book, "softmax-solution")
        cell.source = spoil + cell.source

    graded = grade_notebook(edited(change), small, engine, Limits(cell=0.5, submission=20))
    first, second = graded.verdicts
    assert (first.status, first.points) == (status, 0.0)
    assert words in first.message
    assert (second.status, second.points) == ("passed", 3.0)
    assert graded.run["status"] == "finished"
    outputs = by_id(graded.notebook, "softmax-solution").outputs
    assert [out.output_type for out in outputs] == ["error"]


def test_the_time_of_the_submission_is_one_budget(small: Assignment, engine: ForkEngine) -> None:
    def change(book: NotebookNode) -> None:
        for name in ("softmax-solution", "triple-solution"):
            cell = by_id(book, name)
            cell.source = STUBBORN + cell.source

    graded = grade_notebook(edited(change), small, engine, Limits(cell=0.5, submission=5))
    assert graded.run["seconds"] < 8
    assert graded.verdicts[0].status == "timeout"
    assert [verdict.points for verdict in graded.verdicts] == [0.0, 0.0]


class Hangs:
    """An engine whose submissions hang in one cell after the other."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def run(self, job: Job) -> Transcript:
        """Hangs in the first cell."""
        self.jobs.append(job)
        cells = {cell.id: CellResult() for cell in job.cells}
        return Transcript(cells, "timeout", "It hung.", seconds=1.0, one_cell=True)


def test_it_is_not_run_again_for_ever(small: Assignment) -> None:
    engine = Hangs()
    graded = grade_notebook(solved(), small, engine, Limits(submission=60))
    assert len(engine.jobs) == 4
    assert [job.seconds for job in engine.jobs] == [60, 59, 58, 57]
    assert graded.run["seconds"] == 4.0


def test_cells_that_no_exercise_needs_are_left_out(small: Assignment) -> None:
    def with_demonstration(book: NotebookNode, changed: str = "") -> NotebookNode:
        book.cells.insert(1, cell("code", f"curve = train_for_an_hour(){changed}"))
        return book

    small = dataclasses.replace(small, release=with_demonstration(released()))
    engine = CannedEngine({})
    graded = grade_notebook(with_demonstration(solved()), small, engine)
    assert len(engine.jobs[0].cells) == 5
    assert "Not run while grading" in graded.notebook.cells[1].outputs[0].text
    grade_notebook(with_demonstration(solved(), "  # mine"), small, engine)
    assert len(engine.jobs[1].cells) == 6


# ---- files and the cache ---------------------------------------------------------------------


def _hand_in(folder: Path, book: NotebookNode) -> Path:
    path = folder / "01_attention.ipynb"
    path.write_text(notebooks.write(book), encoding="utf-8")
    return path


def test_an_unchanged_submission_is_not_run_again(small: Assignment, tmp_path: Path) -> None:
    path, cache = _hand_in(tmp_path, solved()), tmp_path / "cache"
    engine = CannedEngine(_sent(outcomes_of(WRONG)))

    def grade(of: Assignment = small, limits: Limits | None = None) -> Graded:
        return grade_submission(path, of, engine, limits, cache)

    first, second = grade(), grade()
    assert len(engine.jobs) == 1
    assert second == first
    grade(limits=Limits(case=1.0))
    grade(dataclasses.replace(small, fingerprint="2"))
    assert len(engine.jobs) == 3
    for kept in cache.iterdir():
        kept.write_text("{}")
    assert grade().verdicts == first.verdicts
    assert len(engine.jobs) == 4


def test_what_ran_out_of_time_is_run_again_where_asked(small: Assignment, tmp_path: Path) -> None:
    path, cache = _hand_in(tmp_path, solved()), tmp_path / "cache"
    engine = CannedEngine({"softmax-check": CellResult()}, "timeout", "Late.")
    for again in (False, False, True):
        grade_submission(path, small, engine, cache=cache, again=again)
    assert len(engine.jobs) == 2
    well = CannedEngine(_sent(outcomes_of(SOFTMAX)))
    for _ in range(2):
        grade_submission(path, small, well, cache=cache, again=True)
    assert len(well.jobs) == 1


def test_what_another_run_might_give_differently_is_not_kept(
    small: Assignment, tmp_path: Path
) -> None:
    class Killed(CannedEngine):
        def run(self, job: Job) -> Transcript:
            return dataclasses.replace(super().run(job), settled=False)

    path = _hand_in(tmp_path, solved())
    engine = Killed({"softmax-check": CellResult()}, "killed", "By whom?")
    for _ in range(2):
        grade_submission(path, small, engine, cache=tmp_path / "cache")
    assert len(engine.jobs) == 2


def test_unreadable_and_missing_notebooks_get_their_status(
    small: Assignment, tmp_path: Path
) -> None:
    path = tmp_path / "01_attention.ipynb"
    missing = grade_submission(path, small, CannedEngine({}))
    assert {v.status for v in missing.verdicts} == {"missing"}
    (tmp_path / "attention (1).ipynb").write_text("{}")
    renamed = grade_submission(path, small, CannedEngine({}))
    assert "rename it to 01_attention.ipynb" in renamed.verdicts[0].message
    path.write_bytes(b"\xff")
    unreadable = grade_submission(path, small, CannedEngine({}))
    assert {v.status for v in unreadable.verdicts} == {"error"}
    for graded in (missing, unreadable):
        nbformat.validate(graded.notebook)
        assert graded.verdicts[0].message in graded.notebook.cells[0].source
        assert sum(v.points for v in graded.verdicts) == 0
        for check in small.checks:
            assert determine_grade(by_id(graded.notebook, check.grade_id))[0] == 0


# ---- the course's side -----------------------------------------------------------------------


def _course(folder: Path, points: float) -> Path:
    for step, book in (("source", solved()), ("release", released())):
        by_id(book, "softmax-check").metadata["nbgrader"]["points"] = points
        (folder / step / "01_attention").mkdir(parents=True)
        _hand_in(folder / step / "01_attention", book)
    return folder


def test_points_must_be_those_of_the_pack(small: Assignment, tmp_path: Path) -> None:
    references = small.checks[0].references
    assert references is not None
    pack = Pack(7, False, {}, {references.exercise: references})
    loaded = load_assignment("01_attention", _course(tmp_path / "same", 2), pack)
    assert [(c.exercise, c.points) for c in loaded.checks] == [
        ("attention/softmax", 2.0),
        ("triple-check", 3.0),
    ]
    assert loaded.seed == 7
    with pytest.raises(GradingError, match="autograder record"):
        load_assignment("01_attention", _course(tmp_path / "other", 5), pack)
    with pytest.raises(GradingError, match="has nothing on attention/softmax"):
        load_assignment("01_attention", tmp_path / "same", Pack(7, False, {}, {}))
    with pytest.raises(GradingError, match="there is no pack"):
        load_assignment("01_attention", tmp_path / "same", None)


def test_the_fingerprint_follows_everything_that_decides(small: Assignment, tmp_path: Path) -> None:
    references = small.checks[0].references
    assert references is not None
    course = _course(tmp_path, 2)
    packs = [Pack(seed, False, {}, {references.exercise: references}) for seed in (7, 8)]
    one, again, other = (
        load_assignment("01_attention", course, pack).fingerprint
        for pack in (packs[0], packs[0], packs[1])
    )
    assert one == again != other


def test_a_pack_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(GradingError, match="autograder record --seed SECRET --to"):
        load_pack("01_attention", tmp_path / "mine.safetensors")


def test_a_gradebook_of_an_older_edition_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise SourceError("nbgrader cannot release x: Cannot add or remove cells for notebook")

    monkeypatch.setattr(release, "assign", refuses)
    book = Gradebook(tmp_path, tmp_path / "work", ROOT)
    with pytest.raises(GradingError, match="Grade into a new folder"):
        book.prepare(notebooks.chapters(ROOT, ["01_attention"]))


# ---- finding submissions ---------------------------------------------------------------------

KNOWN = ["01_attention", "02_multi_head_attention"]


def test_every_student_has_an_entry_for_every_assignment_handed_in(tmp_path: Path) -> None:
    (tmp_path / "ada" / "01_attention").mkdir(parents=True)
    (tmp_path / "ben" / "notes").mkdir(parents=True)
    (tmp_path / ".hidden" / "x").mkdir(parents=True)
    (tmp_path / "ada" / "__MACOSX").mkdir()
    found = grading.find_submissions(tmp_path, KNOWN)
    assert [(entry.student, entry.assignment) for entry in found] == [
        ("ada", "01_attention"),
        ("ben", "01_attention"),
    ]
    assert found[0].path == tmp_path / "ada" / "01_attention" / "01_attention.ipynb"


def test_nothing_to_grade_is_named_with_the_layout(tmp_path: Path) -> None:
    with pytest.raises(GradingError, match="There is no folder"):
        grading.find_submissions(tmp_path / "absent", KNOWN)
    with pytest.raises(GradingError, match="no student folders"):
        grading.find_submissions(tmp_path, KNOWN)
    (tmp_path / "ada").mkdir()
    with pytest.raises(GradingError, match="<student>/<assignment>/<notebook>"):
        grading.find_submissions(tmp_path, KNOWN)
    (tmp_path / "ada" / "attention").mkdir()
    (tmp_path / "ada" / "attention" / "x.ipynb").write_text("{}")
    with pytest.raises(GradingError, match=r"no assignment attention\. There is: 01_attention"):
        grading.find_submissions(tmp_path, KNOWN)


def test_a_folder_that_nbgrader_would_misread_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ada" / "01_attention").mkdir(parents=True)
    with pytest.raises(GradingError, match="choose another"):
        grading.grade(tmp_path, tmp_path / "out[1]", root=ROOT, progress=False)


# ---- tables ----------------------------------------------------------------------------------


def _row(**more: object) -> tables.Row:
    given = tables.Row("ada", "01", "a/b", 1.5, 2.0, "failed", "Wrong.", "A mistake.")
    return dataclasses.replace(given, **more)


def test_tables_hold_the_columns_of_the_contract(tmp_path: Path) -> None:
    rows = [_row(), _row(student="ben", message='=HYPERLINK("x")', points=1 / 3)]
    tables.write_csv(rows, tmp_path / "g.csv")
    tables.write_json(rows, tmp_path / "g.json")
    with open(tmp_path / "g.csv", encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    columns = "student assignment exercise points max_points status message misconception"
    assert list(read[0]) == columns.split()
    assert read[0]["points"] == "1.5"
    assert read[1]["points"] == "0.33"
    assert read[1]["message"] == '\'=HYPERLINK("x")'
    listed = json.loads((tmp_path / "g.json").read_text())
    assert [tables.Row(**item) for item in listed] == rows


def test_the_summary_counts_by_student() -> None:
    rows = [_row(), _row(exercise="a/c", status="passed"), _row(student="ben", assignment="02")]
    console = Console(width=100)
    with console.capture() as capture:
        console.print(tables.summary(rows))
    text = capture.get()
    assert "3 / 4" in text
    assert "1.5 / 2" in text
    assert "timeout" not in text


# ---- the sample class ------------------------------------------------------------------------

COMPONENTS = (
    "softmax",
    "scaled_dot_product_attention",
    "padding_mask",
    "causal_mask",
    "AdditiveAttention",
)
FULL = (2.0, 4.0, 2.0, 2.0, 4.0)
RIGHT = tuple((points, "passed", "") for points in FULL)


def _but(**wrong: tuple[float, str, str]) -> tuple[tuple[float, str, str], ...]:
    return tuple(wrong.get(name, right) for name, right in zip(COMPONENTS, RIGHT, strict=True))


# Points, status, and words of the misconception, exercise by exercise.
EXPECTED = {
    "ada": RIGHT,
    "ben": ((0.0, "error", ""),) * 5,
    "chloe": _but(scaled_dot_product_attention=(0.89, "failed", "square root of d_k")),
    "david": _but(scaled_dot_product_attention=(0.89, "failed", "after the softmax")),
    "emma": _but(softmax=(1.29, "failed", "ignores dim")),
    "farid": _but(
        padding_mask=(0.0, "failed", "both padding"),
        causal_mask=(0.0, "failed", "may not see itself"),
    ),
    "grace": _but(AdditiveAttention=(0.0, "failed", "no tanh")),
    "hugo": _but(scaled_dot_product_attention=(0.0, "error", "")),
    "ines": _but(causal_mask=(0.0, "timeout", "")),
    "jonas": ((0.0, "error", ""),) * 5,
    "karin": ((0.0, "missing", ""),) * 5,
}


@dataclasses.dataclass
class Class:
    """The sample class, graded with a private pack."""

    submitted: Path
    references: Path
    grades: grading.Grades

    @property
    def folder(self) -> Path:
        return self.grades.folder


@pytest.fixture(scope="session")
def graded_class(tmp_path_factory: pytest.TempPathFactory) -> Class:
    """Generated and graded once for all tests."""
    folder = tmp_path_factory.mktemp("class")
    references = folder / "private.safetensors"
    record.write(fresh_pack("01_attention"), references)
    sample.generate(folder / "submitted", ROOT)
    grades = grading.grade(
        folder / "submitted",
        folder / "graded",
        jobs=2,
        references=references,
        root=ROOT,
        progress=False,
    )
    return Class(folder / "submitted", references, grades)


@pytest.fixture
def database(graded_class: Class) -> Iterator[Database]:
    with Database(f"sqlite:///{graded_class.folder / 'gradebook.db'}") as database:
        yield database


def _rows(graded_class: Class, student: str) -> list[tables.Row]:
    return [row for row in graded_class.grades.rows if row.student == student]


def test_the_sample_class_is_who_is_expected(graded_class: Class) -> None:
    assert [student.name for student in sample.CLASS] == list(EXPECTED)
    assert sorted(path.name for path in graded_class.submitted.iterdir()) == sorted(EXPECTED)
    assert len(graded_class.grades.rows) == 5 * len(EXPECTED)
    # Nothing else to look at: nbgrader recorded everything.
    assert {note.split(",")[0] for note in graded_class.grades.notes} == {"jonas", "karin"}


@pytest.mark.parametrize("student", EXPECTED)
def test_expected_grades(graded_class: Class, student: str) -> None:
    rows = _rows(graded_class, student)
    assert [row.exercise for row in rows] == [f"attention/{name}" for name in COMPONENTS]
    assert [(row.points, row.status) for row in rows] == [
        (points, status) for points, status, _ in EXPECTED[student]
    ]
    assert tuple(row.max_points for row in rows) == FULL
    for row, (_, _, words) in zip(rows, EXPECTED[student], strict=True):
        assert bool(row.misconception) == bool(words)
        assert words in row.misconception
        assert row.message


def test_messages_name_the_cause(graded_class: Class) -> None:
    messages = {
        student: " ".join(row.message for row in _rows(graded_class, student))
        for student in EXPECTED
    }
    assert "not written yet" in messages["ben"]
    assert "RuntimeError" in messages["hugo"]
    assert "did not end within 5 seconds" in messages["ines"]
    assert "not valid JSON" in messages["jonas"]
    assert "No 01_attention.ipynb was handed in" in messages["karin"]


def test_the_tables_are_the_rows(graded_class: Class) -> None:
    listed = json.loads((graded_class.folder / "grades.json").read_text(encoding="utf-8"))
    assert [tables.Row(**item) for item in listed] == graded_class.grades.rows
    with open(graded_class.folder / "grades.csv", encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [(r["student"], r["exercise"], float(r["points"])) for r in read] == [
        (row.student, row.exercise, row.points) for row in graded_class.grades.rows
    ]


def test_the_gradebook_has_the_same_points(graded_class: Class, database: Database) -> None:
    assert {student.id for student in database.students} == set(EXPECTED)
    for student in EXPECTED:
        submission = database.find_submission("01_attention", student)
        assert submission.score == pytest.approx(
            sum(r.points for r in _rows(graded_class, student))
        )
        assert submission.max_score == 16.0


def test_written_answers_wait_for_a_person_and_blank_ones_do_not(
    graded_class: Class, database: Database
) -> None:
    def waits(student: str) -> bool:
        return database.find_submission("01_attention", student).needs_manual_grade

    assert waits("ada")
    assert not waits("ben")
    assert not waits("karin")


@pytest.mark.parametrize("student", EXPECTED)
def test_nbgraders_folders_hold_notebook_and_feedback(graded_class: Class, student: str) -> None:
    path = graded_class.folder / "autograded" / student / "01_attention" / "01_attention.ipynb"
    recorded = nbformat.read(path, as_version=4)
    nbformat.validate(recorded)
    for row in _rows(graded_class, student):
        check = next(c for c in recorded.cells if notebooks.exercise_of(c) == row.exercise)
        assert determine_grade(check) == (row.points, row.max_points)
    page = graded_class.folder / "feedback" / student / "01_attention" / "01_attention.html"
    text = page.read_text(encoding="utf-8")
    assert text.count('class="verdict verdict-') == 5
    assert all(f"{row.exercise}: " in text for row in _rows(graded_class, student))


def test_learners_see_nothing_of_hidden_cases(graded_class: Class) -> None:
    hidden = [
        case.title
        for exercise in exercises.load("01_attention").values()
        for case in exercise.cases
        if case.hidden
    ]
    assert len(hidden) >= 5
    pages = [*graded_class.folder.glob("feedback/*/*/*"), *graded_class.folder.glob("grades.*")]
    notebooks_ = list(graded_class.folder.glob("autograded/*/*/*.ipynb"))
    assert len(pages) == len(notebooks_) + 2
    for path in [*pages, *notebooks_]:
        text = path.read_text(encoding="utf-8")
        assert not [title for title in hidden if title in text]
    chloe = graded_class.folder / "feedback" / "chloe" / "01_attention" / "01_attention.html"
    assert "1 case with other inputs failed" in chloe.read_text(encoding="utf-8")


def test_a_perfect_notebook_runs_without_an_error(graded_class: Class) -> None:
    path = graded_class.folder / "autograded" / "ada" / "01_attention" / "01_attention.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    kinds = [out.output_type for item in cells for out in item.get("outputs", [])]
    assert "error" not in kinds
    assert kinds.count("stream") > 5


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("2026-02-03 10:00:00 UTC\n", True),
        ("", False),
        ("yesterday-ish", False),
        ("9" * 300, False),
    ],
)
def test_when_it_was_handed_in_goes_along_where_it_can_be_read(
    tmp_path: Path, text: str, kept: bool
) -> None:
    (tmp_path / "timestamp.txt").write_text(text)
    assert _timestamp(tmp_path) == (text.strip() if kept else "")


def test_the_sample_command_tells_who_is_who(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample.main(["--to", str(tmp_path / "class"), "--root", str(ROOT)]) == 0
    assert "ada      everything right" in capsys.readouterr().out
    assert sample.main(["--to", str(tmp_path / "class"), "--root", str(tmp_path)]) == 2
    assert "solutions/" in capsys.readouterr().err


def test_nothing_is_left_of_the_work(graded_class: Class) -> None:
    assert sorted(path.name for path in graded_class.folder.iterdir()) == [
        ".lock",
        ".results",
        "autograded",
        "feedback",
        "gradebook.db",
        "grades.csv",
        "grades.json",
        "nbgrader_config.py",
        "runs.json",
        "source",
    ]
    # Formgrader wants the folder; the course's copy, with its solutions, stays out of it.
    assert list((graded_class.folder / "source" / "01_attention").iterdir()) == []


def test_the_sample_class_is_the_same_bytes_each_time(graded_class: Class, tmp_path: Path) -> None:
    for path in sample.generate(tmp_path, ROOT):
        first = graded_class.submitted / path.relative_to(tmp_path)
        assert first.exists() == path.exists()
        assert not path.exists() or path.read_bytes() == first.read_bytes()


def test_grading_again_keeps_what_a_person_gave(graded_class: Class, tmp_path: Path) -> None:
    again = tmp_path / "graded"
    shutil.copytree(graded_class.folder, again)
    some = tmp_path / "submitted"
    for student in ("ada", "chloe", "jonas"):
        shutil.copytree(graded_class.submitted / student, some / student)
    url = f"sqlite:///{again / 'gradebook.db'}"
    with Database(url) as database:
        grades = database.find_submission_notebook("01_attention", "01_attention", "ada").grades
        question = next(grade for grade in grades if grade.auto_score is None)
        name = question.name
        question.manual_score = 1.5
        comment = database.find_comment(name, "01_attention", "01_attention", "ada")
        comment.manual_comment = "Well said."
        database.db.commit()

    class Unused:
        def run(self, job: object) -> None:
            raise AssertionError("an unchanged submission was run again")

    got = grading.grade(
        some,
        again,
        jobs=1,
        references=graded_class.references,
        root=ROOT,
        progress=False,
        engine=Unused(),
    )
    assert got.rows == [
        row for row in graded_class.grades.rows if row.student in ("ada", "chloe", "jonas")
    ]
    with Database(url) as database:
        assert database.find_submission("01_attention", "ada").score == 15.5
        grade = database.find_grade(name, "01_attention", "01_attention", "ada")
        assert grade.manual_score == 1.5
        # Students whose folders are gone keep their grades.
        assert database.find_submission("01_attention", "farid").score == 10.0
    page = again / "feedback" / "ada" / "01_attention" / "01_attention.html"
    assert "Well said." in page.read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
def test_nbgraders_own_command_uses_the_engine(
    graded_class: Class, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbgrader.converters import Autograde
    from nbgrader.coursedir import CourseDirectory

    from autograder.nbgrader_plugin import configure

    release.assign(notebooks.chapters(ROOT, ["01_attention"]), tmp_path)
    for student in ("chloe",):
        shutil.copytree(graded_class.submitted / student, tmp_path / "submitted" / student)
    monkeypatch.chdir(tmp_path)
    config = notebooks.settings(ROOT)
    configure(config)
    config.CourseDirectory.root = str(tmp_path)
    config.CourseDirectory.assignment_id = "01_attention"
    config.RunAndJudge.root = str(ROOT)
    config.RunAndJudge.references = str(graded_class.references)
    Autograde(coursedir=CourseDirectory(config=config), config=config).start()
    with Database(f"sqlite:///{tmp_path / 'gradebook.db'}") as database:
        score = database.find_submission("01_attention", "chloe").score
    assert score == pytest.approx(sum(row.points for row in _rows(graded_class, "chloe")))
