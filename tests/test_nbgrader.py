"""nbgrader beside `autograder grade`: the same engine, the same points, and nothing lost."""

from __future__ import annotations

import codecs
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import nbgrader_course as small
import pytest
import tiny
from nbgrader.api import Gradebook
from nbgrader_course import ASSIGNMENT, CLASS, PLAIN, QUESTION, SECRETS

from autograder import grading, notebooks, sample

STUDENTS = [student.name for student in CLASS]
REMARK = "Say which number divides it."


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The course, with its class autograded by ``nbgrader autograde``, run as people run it."""
    root = small.make(tmp_path_factory.mktemp("nbgrader") / "course")
    command = [sys.executable, "-m", "nbgrader", "autograde", ASSIGNMENT]
    environment = os.environ | small.environment(root.parent / "jupyter")
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return root


@pytest.fixture(scope="module")
def graded(course: Path) -> Path:
    """The same class, graded by ``autograder grade``."""
    small.grade(course, course.parent / "graded")
    return course.parent / "graded"


@pytest.fixture
def again(course: Path, graded: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of both, to change: the course, and the folder of results."""
    return (
        shutil.copytree(course, tmp_path / "course"),
        shutil.copytree(graded, tmp_path / "graded"),
    )


class Idle:
    """An engine for a class of which nothing has changed."""

    def run(self, job: object) -> None:
        raise AssertionError("an unchanged submission was run again")


def regrade(course: Path, graded: Path) -> None:
    """Grades the class again, of which no notebook has changed."""
    grading.grade(course / "submitted", graded, root=course, progress=False, engine=Idle())


# ---- one engine ------------------------------------------------------------------------------


def test_nbgrader_autograde_gives_the_points_of_autograder_grade(
    course: Path, graded: Path
) -> None:
    points = small.points(graded)
    assert small.points(course) == points
    assert points["ada"]["softmax-check"] == 2.0
    assert 0 < points["ben"]["softmax-check"] < 2.0
    rows = json.loads((graded / "grades.json").read_text(encoding="utf-8"))
    for student in STUDENTS:
        assert points[student][QUESTION] is None
        assert sum(row["points"] for row in rows if row["student"] == student) == pytest.approx(
            sum(given or 0.0 for given in points[student].values())
        )


@pytest.mark.parametrize("student", STUDENTS)
def test_both_record_the_judges_verdicts(course: Path, graded: Path, student: str) -> None:
    for name in ("softmax-check", "triple-check", "triple-partial"):
        assert small.outputs(course, student, name) == small.outputs(graded, student, name)
    assert 'class="verdict verdict-' in small.shown(course, student, "softmax-check")


def test_formgraders_button_gives_them_too(again: tuple[Path, Path]) -> None:
    from nbgrader.apps import NbGrader
    from nbgrader.apps.api import NbGraderAPI

    course, _ = again
    before = small.points(course)
    with small.database(course) as book:
        for grade in book.find_submission_notebook(ASSIGNMENT, ASSIGNMENT, "ben").grades:
            grade.auto_score = 0.25
        book.db.commit()
    shutil.rmtree(course / "autograded" / "ben")
    with small.inside(course):
        # As formgrader's server extension does on a click.
        app = NbGrader()
        app.initialize([])
        result = NbGraderAPI(app.coursedir, parent=app).autograde(ASSIGNMENT, "ben")
    assert result["success"], result
    assert small.points(course) == before
    assert "ignores dim" in small.shown(course, "ben", "softmax-check")


def test_nbgrader_autograde_grades_whatever_was_handed_in(again: tuple[Path, Path]) -> None:
    course, _ = again
    before = small.points(course)
    ada, ben = (course / "submitted" / student / small.FILE for student in STUDENTS)
    ada.write_bytes(codecs.BOM_UTF8 + ada.read_bytes())
    ben.write_bytes(ben.read_bytes()[:500])
    small.nbgrader(course, "autograde", ASSIGNMENT, "--force")
    points = small.points(course)
    assert points["ada"] == before["ada"]
    assert points["ben"] == dict.fromkeys(points["ben"], 0.0)
    assert "not valid JSON" in small.shown(course, "ben", "softmax-check")


# ---- what a person gave ----------------------------------------------------------------------


def by_hand(folder: Path) -> None:
    """Enters grades and a comment for ben, as formgrader does on a change of its fields."""
    given = {
        QUESTION: (1.5, None),
        "softmax-check": (2.0, None),  # an instructor may overrule the judge
        "triple-check": (None, 0.5),
    }
    with small.database(folder) as book:
        for name, (manual, extra) in given.items():
            grade = small.grade_of(book, "ben", name)
            grade.manual_score, grade.extra_credit = manual, extra
            grade.needs_manual_grade = manual is None and grade.auto_score is None
        comment = book.find_comment(QUESTION, ASSIGNMENT, ASSIGNMENT, "ben")
        comment.manual_comment = REMARK
        book.db.commit()


def mend(course: Path) -> None:
    """Ben hands in again, with the triple right."""
    small.hand_in(course, sample.Student("ben", "", {"softmax": sample.LAST_AXIS_ONLY}))


def what_a_person_gave(folder: Path) -> dict[str, object]:
    with small.database(folder) as book:
        grades = {name: small.grade_of(book, "ben", name) for name in (QUESTION, "softmax-check")}
        return {
            "question": grades[QUESTION].manual_score,
            "softmax": grades["softmax-check"].manual_score,
            "extra": small.grade_of(book, "ben", "triple-check").extra_credit,
            "comment": book.find_comment(QUESTION, ASSIGNMENT, ASSIGNMENT, "ben").comment,
        }


GIVEN = {"question": 1.5, "softmax": 2.0, "extra": 0.5, "comment": REMARK}


def test_grades_and_comments_outlive_grading_an_unchanged_class(again: tuple[Path, Path]) -> None:
    course, graded = again
    by_hand(graded)
    regrade(course, graded)
    assert what_a_person_gave(graded) == GIVEN
    assert REMARK in small.page(graded, "ben")
    with small.database(graded) as book:
        # 2 by hand for softmax, 0 and 1 for the tests, 1.5 by hand, 0.5 on top.
        assert book.find_submission(ASSIGNMENT, "ben").score == 5.0


@pytest.mark.parametrize("command", ["autograder grade", "nbgrader autograde --force"])
def test_grades_and_comments_outlive_a_changed_submission(
    again: tuple[Path, Path], command: str
) -> None:
    course, graded = again
    folder = graded if command == "autograder grade" else course
    by_hand(folder)
    mend(course)
    if folder is graded:
        small.grade(course, graded)
    else:
        small.nbgrader(course, "autograde", ASSIGNMENT, "--student=ben", "--force")
    assert what_a_person_gave(folder) == GIVEN
    with small.database(folder) as book:
        assert small.grade_of(book, "ben", "triple-check").auto_score == 3.0
        assert book.find_submission(ASSIGNMENT, "ben").score == 2.0 + 3.5 + 4.0 + 1.5
        # What was given by hand was given for another answer: nbgrader asks for a second look.
        for name in (QUESTION, "softmax-check"):
            assert small.grade_of(book, "ben", name).needs_manual_grade
        assert not small.grade_of(book, "ben", "triple-check").needs_manual_grade


def test_nbgrader_exports_what_autograder_grade_and_a_person_gave(
    again: tuple[Path, Path],
) -> None:
    _, graded = again
    by_hand(graded)
    rows = small.exported(graded)
    assert {name: float(row["max_score"]) for name, row in rows.items()} == dict.fromkeys(
        STUDENTS, small.MAX_SCORE
    )
    assert {name: float(row["score"]) for name, row in rows.items()} == {"ada": 9.0, "ben": 5.0}


def test_nbgrader_writes_feedback_on_what_autograder_grade_recorded(
    again: tuple[Path, Path],
) -> None:
    _, graded = again
    by_hand(graded)
    shutil.rmtree(graded / "feedback")
    small.nbgrader(graded, "generate_feedback", ASSIGNMENT)
    assert REMARK in small.page(graded, "ben")
    assert "ignores dim" in small.page(graded, "ben")
    assert small.page(graded, "ada").count("verdict-passed") == 3


def test_what_another_tool_wrote_is_put_right(again: tuple[Path, Path]) -> None:
    course, graded = again
    before = small.points(graded)
    with small.database(graded) as book:
        # As formgrader's button does with other references.
        small.grade_of(book, "ben", "softmax-check").auto_score = 0.25
        book.db.commit()
    regrade(course, graded)
    assert small.points(graded) == before


def test_pictures_lie_beside_the_notebooks_that_show_them(course: Path, graded: Path) -> None:
    for folder in (course / "autograded", graded / "autograded", graded / "feedback"):
        assert (folder / "ada" / ASSIGNMENT / "picture.svg").is_file(), folder


# ---- late submissions ------------------------------------------------------------------------

PER_DAY = '''

from nbgrader.plugins import BasePlugin


class PerDay(BasePlugin):
    """Takes a tenth of the score for each whole day."""

    def late_submission_penalty(self, student_id, score, total_seconds_late):
        return score / 10 * (total_seconds_late // 86400)
'''
ASKED_FOR = "c.AssignLatePenalties.plugin_class = {}\n"


def in_settings(course: Path, text: str) -> None:
    with (course / "nbgrader_config.py").open("a") as settings:
        settings.write(text)


def hand_in_late(course: Path, folder: Path) -> None:
    """Sets a due date in a gradebook; ada was two days late, ben one."""
    small.nbgrader(
        folder, "db", "assignment", "add", ASSIGNMENT, "--duedate=2026-02-01 09:00:00 UTC"
    )
    for student, day in (("ada", 3), ("ben", 2)):
        stamp = course / "submitted" / student / ASSIGNMENT / "timestamp.txt"
        stamp.write_text(f"2026-02-0{day} 10:00:00 UTC\n")


def penalties(folder: Path) -> dict[str, float]:
    rows = small.exported(folder)
    return {name: float(row["late_submission_penalty"]) for name, row in rows.items()}


@pytest.mark.parametrize(
    ("command", "place"),
    [
        pytest.param(
            "autograder grade",
            "in the settings",
        ),
        pytest.param(
            "autograder grade",
            "in a module beside them",
        ),
        ("nbgrader autograde", "in the settings"),
        ("nbgrader autograde", "in a module beside them"),
    ],
)
def test_late_submissions_pay(again: tuple[Path, Path], command: str, place: str) -> None:
    course, graded = again
    if place == "in the settings":
        in_settings(course, PER_DAY + ASKED_FOR.format("PerDay"))
    else:
        in_settings(course, ASKED_FOR.format('"late.PerDay"'))
        (course / "late.py").write_text(PER_DAY)
    folder = graded if command == "autograder grade" else course
    hand_in_late(course, folder)
    give(folder, "ada", 1.0)
    if folder is graded:
        regrade(course, graded)
    else:
        small.nbgrader(course, "autograde", ASSIGNMENT, "--force")
    rows = small.exported(folder)
    ada, ben = rows["ada"], rows["ben"]
    assert (ada["duedate"], ada["timestamp"]) == ("2026-02-01 09:00:00", "2026-02-03 10:00:00")
    # 9 by the engine and 1 by hand, two days late.
    assert float(ada["raw_score"]) == 10.0
    assert float(ada["late_submission_penalty"]) == pytest.approx(2.0)
    assert float(ada["score"]) == pytest.approx(8.0)
    assert float(ben["late_submission_penalty"]) == pytest.approx(float(ben["raw_score"]) / 10)
    if folder is graded:
        assert "Late submission penalty" in small.page(graded, "ada")


def give(folder: Path, student: str, points: float) -> None:
    """Grades the question by hand."""
    with small.database(folder) as book:
        grade = small.grade_of(book, student, QUESTION)
        grade.manual_score, grade.needs_manual_grade = points, False
        book.db.commit()


def test_the_penalty_follows_what_a_person_gave(again: tuple[Path, Path]) -> None:
    course, graded = again
    in_settings(course, PER_DAY + ASKED_FOR.format("PerDay"))
    hand_in_late(course, graded)
    regrade(course, graded)
    assert penalties(graded)["ada"] == pytest.approx(1.8)
    give(graded, "ada", 2.0)
    regrade(course, graded)
    assert penalties(graded)["ada"] == pytest.approx(2.2)


def test_the_penalty_goes_with_its_reason(again: tuple[Path, Path]) -> None:
    course, graded = again
    in_settings(course, PER_DAY + ASKED_FOR.format("PerDay"))
    hand_in_late(course, graded)
    regrade(course, graded)
    assert min(penalties(graded).values()) > 0
    (course / "submitted" / "ada" / ASSIGNMENT / "timestamp.txt").unlink()
    regrade(course, graded)
    after = penalties(graded)
    assert after["ada"] == 0.0
    assert after["ben"] > 0
    assert not (graded / "autograded" / "ada" / ASSIGNMENT / "timestamp.txt").exists()


def test_a_penalty_that_cannot_be_had_is_told(again: tuple[Path, Path]) -> None:
    course, graded = again
    in_settings(course, ASKED_FOR.format('"absent.Plugin"'))
    hand_in_late(course, graded)
    result = small.run_grade(course, graded)
    assert "absent" in result.output
    assert result.exit_code in (0, 2)
    # All the same, whatever else there is to record was recorded.
    assert small.points(graded)["ada"]["softmax-check"] == 2.0


# ---- classical test cells --------------------------------------------------------------------


@pytest.mark.parametrize("student", STUDENTS)
def test_plain_test_cells_give_all_none_or_a_part(graded: Path, student: str) -> None:
    points = small.points(graded)[student]
    assert (points["triple-check"], points["triple-partial"]) == PLAIN[student]
    rows = json.loads((graded / "grades.json").read_text(encoding="utf-8"))
    given = {row["exercise"]: row for row in rows if row["student"] == student}
    for name, points_, most in zip(
        ("triple-check", "triple-partial"), PLAIN[student], (3.0, 4.0), strict=True
    ):
        assert (given[name]["points"], given[name]["max_points"]) == (points_, most)
        assert given[name]["status"] == ("passed" if points_ == most else "failed")


def test_learners_see_nothing_of_a_hidden_test(course: Path, graded: Path) -> None:
    for folder in (course, graded):
        recorded = json.dumps(small.autograded(folder, "ben"))
        # Of the hidden tests, one failed with a message, and another called what prints.
        assert "A test of this cell failed." in recorded
        assert [text for text in SECRETS if text in recorded] == []
    assert [text for text in SECRETS if text in small.page(graded, "ben")] == []


def test_plain_test_cells_say_that_they_ran_beside_the_learners_code(
    course: Path, graded: Path
) -> None:
    for folder in (course, graded):
        for student in STUDENTS:
            assert "in-process" in small.shown(folder, student, "triple-check")
            assert "in-process" in small.shown(folder, student, "triple-partial")
            assert "in-process" not in small.shown(folder, student, "softmax-check")
    runs = (graded / "runs.json").read_text(encoding="utf-8")
    assert '"in_process"' in runs
    assert "triple-check" in runs


def test_a_chapter_of_plain_test_cells_alone_is_graded(tmp_path: Path) -> None:
    cells = (
        tiny.code(small.TRIPLE, tiny.marks("triple-solution", solution=True)),
        tiny.code(small.ASSERTS, tiny.marks("triple-check", grade=True, locked=True, points=3)),
    )
    name = "01_twice"
    root = tiny.course(tmp_path, "\n".join([tiny.HEADER, "# Three\n", *cells]), name)
    solved = root / "submitted" / "ada" / name / f"{name}.ipynb"
    solved.parent.mkdir(parents=True)
    source = notebooks.read_source(root / "solutions" / name / f"{name}.md")
    solved.write_text(notebooks.write(source), encoding="utf-8")
    small.grade(root, tmp_path / "graded")
    (row,) = json.loads((tmp_path / "graded" / "grades.json").read_text(encoding="utf-8"))
    assert (row["exercise"], row["points"], row["status"]) == ("triple-check", 3.0, "passed")


# ---- two at a time ---------------------------------------------------------------------------


def test_grading_waits_for_no_reader(again: tuple[Path, Path]) -> None:
    course, graded = again
    mend(course)
    # Somebody looks at the grades, and takes their time.
    reader = sqlite3.connect(graded / "gradebook.db", isolation_level=None)
    reader.execute("BEGIN")
    before = reader.execute("SELECT count(*) FROM grade").fetchone()
    small.grade(course, graded)
    assert reader.execute("SELECT count(*) FROM grade").fetchone() == before
    reader.close()
    assert small.points(graded)["ben"]["triple-check"] == 3.0


def test_no_reader_waits_for_grading(again: tuple[Path, Path]) -> None:
    course, graded = again
    mend(course)
    began, done = threading.Event(), threading.Event()
    seen: list[float] = []
    troubles: list[BaseException] = []

    def poll() -> None:
        # What formgrader's lists ask for; with timeout 0 the reader is told at once of a lock.
        with Gradebook(f"sqlite:///{graded / 'gradebook.db'}?timeout=0") as book:
            last = False
            while not last:
                last = done.is_set()
                try:
                    listed = book.submission_dicts(ASSIGNMENT)
                    book.student_dicts()
                    book.notebook_submission_dicts(ASSIGNMENT, ASSIGNMENT)
                    book.average_assignment_score(ASSIGNMENT)
                    seen.extend(row["score"] for row in listed if row["student"] == "ben")
                except BaseException as error:
                    troubles.append(error)
                book.db.rollback()
                began.set()

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        assert began.wait(60)
        small.grade(course, graded)
    finally:
        done.set()
        thread.join()
    assert troubles == []
    # It looked before, meanwhile, and after.
    assert len(seen) > 5
    assert seen[0] < seen[-1] == pytest.approx(seen[0] + 6.0)
