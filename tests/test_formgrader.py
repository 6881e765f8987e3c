"""Formgrader over a class that `autograder grade` graded, in a real browser."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbgrader_course as small
import pytest
from nbgrader_course import ASSIGNMENT, CLASS, QUESTION
from test_jupyter import CHROMIUM, FLAGS

from autograder import sample

TOKEN = "formgrader-of-the-tests"
REMARK = "Say which number divides it."

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium; on Debian: apt-get install chromium"
)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The course, and its class as handed in."""
    return small.make(tmp_path_factory.mktemp("formgrader") / "course")


@pytest.fixture(scope="module")
def graded(course: Path) -> Path:
    """The results of ``autograder grade``."""
    small.grade(course, course.parent / "graded")
    return course.parent / "graded"


@pytest.fixture(scope="module")
def server(graded: Path) -> Iterator[str]:
    """A Jupyter server in the folder of results."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    jupyter = graded.parent / "jupyter"
    jupyter.mkdir()
    command = (
        f"{sys.executable} -m jupyter_server --no-browser --allow-root --port={port} "
        f"--IdentityProvider.token={TOKEN}"
    ).split()
    environment = os.environ | small.environment(jupyter)
    address = f"http://127.0.0.1:{port}"
    with (jupyter / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=graded)
        try:
            for _ in range(240):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=5).close()
                    break
                time.sleep(0.25)
            else:
                raise AssertionError((jupyter / "server.log").read_text())
            yield address
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=CHROMIUM,
            headless=True,
            args=list(FLAGS),
            viewport={"width": 1400, "height": 1000},
        )
        # Formgrader takes MathJax from the network, which no test needs.
        context.route(re.compile(r"^https://"), lambda route: route.abort())
        yield context
        context.close()


@pytest.fixture
def tab(browser: Any, server: str) -> Iterator[Any]:
    """A tab at formgrader's first page."""
    tab = browser.new_page()
    tab.set_default_timeout(20_000)
    tab.goto(f"{server}/formgrader?token={TOKEN}")
    tab.locator("#main, .table").first.wait_for()
    yield tab
    tab.close()


def open_gradebook(tab: Any) -> None:
    """Clicks through to the list of what was handed in."""
    tab.get_by_role("link", name="Manual Grading").click()
    for _ in ("assignment", "notebook"):
        tab.locator("td.name").get_by_role("link", name=ASSIGNMENT, exact=True).click()
    tab.wait_for_url(f"**/gradebook/{ASSIGNMENT}/{ASSIGNMENT}")
    tab.locator("tbody tr td.score").first.wait_for()


def open_submission(tab: Any, student: str) -> None:
    """Clicks through to the notebook that a student handed in."""
    open_gradebook(tab)
    row = tab.locator("tr", has=tab.locator("a.name-shown", has_text=student))
    row.locator(".glyphicon-eye-open").click()
    row.get_by_role("link", name=student, exact=True).click()
    wait_for_fields(tab)


def wait_for_fields(tab: Any) -> None:
    """Waits until formgrader has fetched grades and comments, and saves what is entered."""
    tab.locator(f"#{QUESTION}_extra_credit[placeholder]").wait_for()
    comment_on(tab, QUESTION).and_(tab.locator("[placeholder]")).wait_for()


def change(tab: Any, field: Any, value: str) -> None:
    """Types into a field of formgrader, and waits until it is saved."""
    saved = re.compile("/formgrader/api/(grade|comment)/")
    with tab.expect_response(lambda r: saved.search(r.url) and r.request.method == "PUT") as reply:
        field.fill(value)
        field.blur()
    assert reply.value.ok


def comment_on(tab: Any, grade_id: str) -> Any:
    """The field for comments on a cell."""
    panel = tab.locator(".nbgrader_cell", has=tab.locator(f"#{grade_id}"))
    return panel.locator("textarea.comment")


# ---- what is seen ----------------------------------------------------------------------------


def test_the_gradebook_lists_the_class_with_its_scores(tab: Any, graded: Path) -> None:
    open_gradebook(tab)
    scores = tab.locator("tbody tr td.score")
    assert scores.count() == len(CLASS)
    with small.database(graded) as book:
        expected = {
            f"{round(book.find_submission(ASSIGNMENT, student.name).score, 2):g} / 11"
            for student in CLASS
        }
    assert set(scores.all_inner_texts()) == expected
    assert "9 / 11" in expected


def test_the_assignment_is_listed_with_its_submissions(tab: Any) -> None:
    row = tab.locator("tr", has=tab.get_by_role("link", name=ASSIGNMENT, exact=True))
    count = row.locator(".num-submissions")
    assert count.inner_text() == str(len(CLASS))
    count.get_by_role("link").click()
    tab.wait_for_url(f"**/manage_submissions/{ASSIGNMENT}")
    for student, score in (("ada", 9), ("ben", None)):
        row = tab.locator("tr", has=tab.locator("td.student-id", has_text=student))
        assert row.locator("td.status").inner_text() == "needs manual grading"
        if score is not None:
            assert row.locator("td.score").inner_text() == f"{score} / {small.MAX_SCORE:g}"


def test_a_submission_shows_verdict_and_score(tab: Any, graded: Path) -> None:
    open_submission(tab, "ben")
    verdict = tab.locator(".verdict-failed", has_text="attention/softmax")
    assert verdict.is_visible()
    text = verdict.inner_text()
    assert "It always works along the last axis and ignores dim." in text
    assert "Next step" in text
    assert "<" not in text
    color = "getComputedStyle(element).borderLeftColor"
    assert verdict.evaluate(f"element => {color}") == "rgb(217, 122, 26)"
    box = verdict.bounding_box()
    assert box["width"] > 500
    assert box["x"] + box["width"] <= 1400
    given = small.points(graded)["ben"]
    for name in ("softmax-check", "triple-check", "triple-partial"):
        assert float(tab.locator(f"#{name}").get_attribute("placeholder")) == given[name]
    assert "needs_manual_grade" in tab.locator(f"#{QUESTION}").get_attribute("class")


# ---- what is entered -------------------------------------------------------------------------


def test_what_is_entered_outlives_grading_the_class_again(
    tab: Any, course: Path, graded: Path
) -> None:
    open_submission(tab, "ben")
    change(tab, tab.locator(f"#{QUESTION}"), "1.5")
    change(tab, tab.locator(f"#{QUESTION}_extra_credit"), "0.5")
    change(tab, comment_on(tab, QUESTION), REMARK)
    small.hand_in(course, sample.Student("ben", "", {"softmax": sample.LAST_AXIS_ONLY}))
    small.grade(course, graded)
    tab.reload()
    wait_for_fields(tab)
    tab.locator(".verdict-passed", has_text="triple-check").wait_for()
    assert tab.locator(f"#{QUESTION}").input_value() == "1.5"
    assert tab.locator(f"#{QUESTION}_extra_credit").input_value() == "0.5"
    assert comment_on(tab, QUESTION).input_value() == REMARK
    assert tab.locator("#triple-check").get_attribute("placeholder") == "3"
    # The answer may be another one now: formgrader asks for a second look.
    assert tab.locator(".mark-graded:visible").count() == 1
    assert REMARK in small.page(graded, "ben")


def test_the_autograde_button_uses_the_engine(tab: Any, graded: Path) -> None:
    before = small.points(graded)["ben"]
    with small.database(graded) as book:
        small.grade_of(book, "ben", "softmax-check").auto_score = 0.25
        book.db.commit()
    tab.goto(tab.url.replace("manage_assignments", f"manage_submissions/{ASSIGNMENT}"))
    row = tab.locator("tr", has=tab.locator("td.student-id", has_text="ben"))
    row.locator("td.autograde a").click()
    tab.locator("#success-modal, #error-modal").wait_for(timeout=60_000)
    assert tab.locator("#error-modal").count() == 0, tab.locator("#error-modal").inner_text()
    assert small.points(graded)["ben"] == before
    assert "ignores dim" in small.shown(graded, "ben", "softmax-check")
