"""What is written into the gradebook is, row for row, what nbgrader's own Autograde writes."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import nbgrader_course
import pytest
import small_class as small
from nbgrader.api import Gradebook as Database
from nbgrader.utils import determine_grade
from nbgrader_course import ASSIGNMENT, FILE
from small_class import HANGS, Reader, tables_of

from autograder import nbgrader_plugin, notebooks, release, sample
from autograder.assignment import GradingError
from autograder.engine import ForkEngine, Job, Transcript

# nbgrader's own, on making a submission's rows.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")

OTHER = "02_again"
LATE = "2026-03-02 10:00:00 UTC"
IN_TIME = "2026-02-27 10:00:00 UTC"
DUE = "2026-03-01 00:00:00 UTC"
# Whose folder holds a notebook: of the others, nbgrader makes no rows at all.
PRESENT = tuple(student for student in small.STUDENTS if student.name != "fay")
LATE_PENALTY = '\nc.LateSubmissionPlugin.penalty_method = "zero"\n'


class Reading(ForkEngine):
    """Stands where nbgrader expects the engine, and runs nothing either."""

    def run(self, job: Job) -> Transcript:
        """What the engine of these tests gives."""
        return Reader().run(job)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small course and its class, ungraded."""
    return small.make(tmp_path_factory.mktemp("gradebook") / "course", PRESENT)


@pytest.fixture
def course(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it; nbgrader uses the engine of these tests in there."""
    monkeypatch.setattr("autograder.engine.ForkEngine", Reading)
    nbgrader_plugin._grader.cache_clear()
    return shutil.copytree(made, tmp_path / "course")


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """Where ``autograder grade`` writes to; nbgrader writes into the course."""
    return tmp_path / "graded"


def autograde(course: Path, *assignments: str) -> None:
    """``nbgrader autograde``, over what is there."""
    for name in assignments or (ASSIGNMENT,):
        nbgrader_course.nbgrader(course, "autograde", name, "--force")


def in_both(course: Path, ours: Path, change: Callable[[Database], Any]) -> None:
    """What a person changes in the gradebook, done to both."""
    for folder in (course, ours):
        with Database(f"sqlite:///{folder / 'gradebook.db'}") as book:
            change(book)
            book.db.commit()


def check_same(course: Path, ours: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Grades with both, and checks that their gradebooks hold the same."""
    small.grade(course, ours)
    autograde(course)
    got, expected = tables_of(ours), tables_of(course)
    assert list(got) == list(expected)
    for table in expected:
        assert got[table] == expected[table], table
    return got


def grade(book: Database, student: str, cell: str) -> Any:
    """The grade of one cell."""
    return book.find_grade(cell, ASSIGNMENT, ASSIGNMENT, student)


def comment(book: Database, student: str, cell: str) -> Any:
    """The comment on one cell."""
    return book.find_comment(cell, ASSIGNMENT, ASSIGNMENT, student)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Database]:
    """The gradebook of a folder."""
    with Database(f"sqlite:///{folder / 'gradebook.db'}") as book:
        yield book


# ---- the same as nbgrader's ------------------------------------------------------------------


def test_a_first_grading_writes_what_nbgrader_writes(course: Path, ours: Path) -> None:
    tables = check_same(course, ours)
    assert len(tables["submitted_notebook"]) == len(PRESENT)
    assert len(tables["grade"]) == 4 * len(PRESENT)
    with opened(ours) as book:
        # Somebody who wrote nothing, and somebody whose answer waits for a person.
        assert comment(book, "cleo", "question-even").auto_comment == "No response."
        assert comment(book, "cleo", "triple-solution").auto_comment == "No response."
        assert comment(book, "ada", "question-even").auto_comment is None
        assert grade(book, "cleo", "question-even").auto_score == 0
        assert not grade(book, "cleo", "question-even").needs_manual_grade
        assert grade(book, "ada", "question-even").auto_score is None
        assert grade(book, "ada", "question-even").needs_manual_grade
        assert {student.id for student in book.students} == {item.name for item in PRESENT}


def test_what_a_person_gave_is_treated_as_nbgrader_treats_it(course: Path, ours: Path) -> None:
    check_same(course, ours)

    def by_hand(book: Database) -> None:
        grade(book, "ada", "question-even").manual_score = 1.5
        grade(book, "ada", "question-even").needs_manual_grade = False
        grade(book, "ada", "triple-check").manual_score = 2.0
        grade(book, "ada", "triple-check").extra_credit = 0.5
        comment(book, "ada", "triple-solution").manual_comment = "Shorter, please."
        grade(book, "cleo", "question-even").manual_score = 0.0
        comment(book, "cleo", "question-even").manual_comment = "Hand something in."
        grade(book, "ben", "softmax-check").extra_credit = 1.0

    in_both(course, ours, by_hand)
    # All three hand in something else; cleo answers, ada deletes what she wrote.
    small.hand_in(course, sample.Student("ada", "", finished=False))
    small.hand_in(course, sample.Student("ben", "", {"triple": HANGS}))
    small.hand_in(course, sample.Student("cleo", "", {"triple": nbgrader_course.SQUARED}))
    # Nor does nbgrader look at the others again unless it is forced to, as it is here.
    check_same(course, ours)
    with opened(ours) as book:
        for cell in ("question-even", "triple-check"):
            assert grade(book, "ada", cell).needs_manual_grade
        assert grade(book, "ada", "triple-check").score == 2.5
        assert grade(book, "ada", "triple-check").auto_score == 0.0
        assert comment(book, "ada", "triple-solution").comment == "Shorter, please."
        assert comment(book, "ada", "triple-solution").auto_comment == "No response."
        assert grade(book, "cleo", "question-even").manual_score == 0.0
        assert comment(book, "cleo", "question-even").auto_comment is None


def test_late_penalties_are_nbgraders(course: Path, ours: Path) -> None:
    with (course / "nbgrader_config.py").open("a", encoding="utf-8") as file:
        file.write(LATE_PENALTY)
    stamps = {"ada": LATE, "ben": IN_TIME, "d'Arc, Jeanne 100%": LATE}
    for student, stamp in stamps.items():
        (small.path_of(course, student).parent / "timestamp.txt").write_text(stamp + "\n")

    # Before there is a due date, nobody is late.
    check_same(course, ours)

    def due(date: str | None) -> Callable[[Database], Any]:
        return lambda book: book.update_or_create_assignment(ASSIGNMENT, duedate=date)

    def penalties() -> dict[str, float | None]:
        with opened(ours) as book:
            return {
                submission.student.id: submission.notebooks[0].late_submission_penalty
                for submission in book.assignment_submissions(ASSIGNMENT)
            }

    in_both(course, ours, due(DUE))
    check_same(course, ours)
    assert {name for name, taken in penalties().items() if taken} == {"ada", "d'Arc, Jeanne 100%"}
    assert penalties()["ada"] == 9.0
    page = nbgrader_course.page(ours, "ada")
    assert "late" in page.lower()

    # A changed submission has another score, and so another penalty.
    small.hand_in(course, sample.Student("ada", "", {"triple": nbgrader_course.SQUARED}), LATE)
    check_same(course, ours)
    assert penalties()["ada"] == 3.0

    # Handed in again in time, and the same again too late.
    (small.path_of(course, "ada").parent / "timestamp.txt").write_text(IN_TIME)
    check_same(course, ours)
    assert not penalties()["ada"]

    # The due date is moved, and then there is none.
    in_both(course, ours, due("2026-04-01 00:00:00 UTC"))
    check_same(course, ours)
    assert not any(penalties().values())
    in_both(course, ours, due(DUE))
    check_same(course, ours)
    assert penalties()["d'Arc, Jeanne 100%"]

    def no_due_date(book: Database) -> None:
        book.find_assignment(ASSIGNMENT).duedate = None

    in_both(course, ours, no_due_date)
    check_same(course, ours)
    assert not any(penalties().values())


def test_a_timestamp_that_is_gone_takes_its_penalty_along(course: Path, ours: Path) -> None:
    with (course / "nbgrader_config.py").open("a", encoding="utf-8") as file:
        file.write(LATE_PENALTY)
    stamp = small.path_of(course, "ada").parent / "timestamp.txt"
    stamp.write_text(LATE)
    small.grade(course, ours)
    with opened(ours) as book:
        book.update_or_create_assignment(ASSIGNMENT, duedate=DUE)
    small.grade(course, ours)
    stamp.unlink()
    small.grade(course, ours)
    with opened(ours) as book:
        submission = book.find_submission(ASSIGNMENT, "ada")
        assert submission.timestamp is None
        assert not submission.notebooks[0].late_submission_penalty


def test_several_assignments_share_a_gradebook(course: Path, ours: Path) -> None:
    source = course / "solutions" / ASSIGNMENT / f"{ASSIGNMENT}.md"
    place = course / "solutions" / OTHER
    place.mkdir()
    # Plain assertions alone, which need no pack.
    text = source.read_text().replace('check("attention/softmax", softmax)', "assert softmax")
    (place / f"{OTHER}.md").write_text(text)
    for student in ("ada", "Ève_Łódź +1", "only the second"):
        place = course / "submitted" / student / OTHER
        place.mkdir(parents=True)
        shutil.copy(course / "submitted" / "ben" / FILE, place / f"{OTHER}.ipynb")
    release.assign(notebooks.chapters(course), course)
    grades = small.grade(course, ours)
    autograde(course, ASSIGNMENT, OTHER)
    handed_in = [(row.student, row.assignment) for row in grades.rows if row.status != "missing"]
    assert len(set(handed_in)) == len(PRESENT) + 3

    # nbgrader has no rows for what nobody handed in; here they get 0 and are listed.
    def of_present(tables: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
        present = [f"'{name}'" for name in ("only the second", "ada", "Ève_Łódź +1")]
        return {
            name: [row for row in rows if any(word in repr(row) for word in present)]
            for name, rows in tables.items()
        }

    with opened(ours) as book:
        missing = book.find_submission(ASSIGNMENT, "only the second")
        assert missing.score == 0
        assert not missing.needs_manual_grade
        book.remove_submission(ASSIGNMENT, "only the second")
    got, expected = of_present(tables_of(ours)), of_present(tables_of(course))
    assert len(expected["submitted_notebook"]) == 5
    assert got == expected


# ---- what nbgrader does not do ---------------------------------------------------------------


def test_nothing_is_written_where_nothing_changed(course: Path, ours: Path) -> None:
    small.grade(course, ours)
    with opened(ours) as book:
        question = grade(book, "ada", "question-even")
        question.manual_score, question.needs_manual_grade = 2.0, False
        book.db.commit()
    before = tables_of(ours)
    with contextlib.closing(sqlite3.connect(ours / "gradebook.db")) as database:
        ids = database.execute("SELECT id FROM grade ORDER BY 1").fetchall()
    small.grade(course, ours)
    # Graded by hand stays graded by hand: there is nothing new for a person to look at.
    assert tables_of(ours) == before
    with contextlib.closing(sqlite3.connect(ours / "gradebook.db")) as database:
        assert database.execute("SELECT id FROM grade ORDER BY 1").fetchall() == ids


def test_missing_and_unreadable_notebooks_get_zero_and_their_reason(
    course: Path, ours: Path
) -> None:
    small.path_of(course, "ada").unlink()
    small.path_of(course, "ben").write_bytes(b"\xff\xfe")
    small.grade(course, ours)
    with opened(ours) as book:
        for student, words in (("ada", "was handed in"), ("ben", "not UTF-8")):
            submission = book.find_submission(ASSIGNMENT, student)
            assert (submission.score, submission.needs_manual_grade) == (0.0, False)
            assert {item.auto_score for item in submission.notebooks[0].grades} == {0.0}
            assert words in nbgrader_course.page(ours, student)


@pytest.mark.parametrize("gone", ["student", "submission"])
def test_what_was_removed_from_the_gradebook_is_entered_again(
    course: Path, ours: Path, gone: str
) -> None:
    small.grade(course, ours)
    before = tables_of(ours)
    with opened(ours) as book:
        if gone == "student":
            book.remove_student("ada")
        else:
            book.remove_submission(ASSIGNMENT, "ada")
    assert tables_of(ours) != before
    small.grade(course, ours)
    assert tables_of(ours) == before


def test_what_was_removed_from_the_folders_is_written_again(course: Path, ours: Path) -> None:
    small.grade(course, ours)
    before = {path: path.read_bytes() for path in ours.glob("*/*/*/01_attention.*")}
    assert len(before) == 2 * len(PRESENT)
    shutil.rmtree(ours / "feedback")
    shutil.rmtree(ours / "autograded" / "ada")
    small.grade(course, ours)
    assert {path: path.read_bytes() for path in ours.glob("*/*/*/01_attention.*")} == before


def test_the_recorded_notebook_gives_the_points_of_the_gradebook(course: Path, ours: Path) -> None:
    small.grade(course, ours)
    with opened(ours) as book:
        for student in PRESENT:
            recorded = nbformat.read(ours / "autograded" / student.name / FILE, as_version=4)
            for cell in recorded.cells:
                if notebooks.mark(cell).get("grade"):
                    found = grade(book, student.name, notebooks.grade_id(cell))
                    assert (found.auto_score, found.max_score) == determine_grade(cell)


def test_students_with_odd_names_are_one_student_each(course: Path, ours: Path) -> None:
    odd = [
        "a b",
        "o'Neil",
        'say "hi"',
        "semi;colon",
        "50%",
        "x--y",
        "日本",
        "ZoË",
        "zoe\u0308",
        "-r",
    ]
    for name in odd:
        small.hand_in(course, sample.Student(name, "", {"triple": nbgrader_course.SQUARED}))
    grades = small.grade(course, ours)
    again = small.grade(course, ours)
    assert again.rows == grades.rows
    with opened(ours) as book:
        for name in odd:
            score = book.find_submission(ASSIGNMENT, name).score
            assert score == sum(row.points for row in grades.rows if row.student == name) == 3.0
            assert nbgrader_course.page(ours, name)
        assert len(book.students) == len(PRESENT) + len(odd)


@pytest.mark.parametrize("name", ["with space", "100%", "ha#sh", "Łódź", "a&b=c"])
def test_folders_with_odd_names_hold_a_gradebook(course: Path, tmp_path: Path, name: str) -> None:
    to = tmp_path / name / "graded"
    small.grade(course, to)
    assert small.grade(course, to).folder == to
    tables = tables_of(to)
    assert len(tables["submitted_notebook"]) == len(PRESENT)


def test_a_folder_whose_name_a_database_would_misread_is_refused(
    course: Path, tmp_path: Path
) -> None:
    with pytest.raises(GradingError, match="choose another"):
        small.grade(course, tmp_path / "per%20cent")


def test_readers_do_not_stop_the_writer(course: Path, ours: Path) -> None:
    small.grade(course, ours)
    small.hand_in(course, sample.Student("ada", "", {"triple": nbgrader_course.SQUARED}))
    with contextlib.closing(sqlite3.connect(ours / "gradebook.db", timeout=0)) as reader:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        rows = reader.execute("SELECT auto_score FROM grade")  # a reading transaction, left open
        first = rows.fetchone()
        small.grade(course, ours)
        assert len([first, *rows.fetchall()]) == 4 * len(PRESENT)
    with opened(ours) as book:
        assert grade(book, "ada", "triple-partial").auto_score == 1.0
