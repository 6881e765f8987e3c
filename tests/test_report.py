"""The class report: what it counts, whom it lists, and that the page stands alone."""

from __future__ import annotations

import json
import random
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from grading_fixtures import cell
from typer.testing import CliRunner

from autograder import tables
from autograder.cli import app
from autograder.report import ReportError, Run, assignment_report, read_rows, write_report
from autograder.tables import Row

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
EXERCISES = ("x/one", "x/two", "x/three", "x/four")
SCALE = "The scores are not divided by the square root of d_k."


def row(student: str, exercise: str, **changes: Any) -> Row:
    """A row of a student who passed; ``changes`` say what was otherwise."""
    values = {
        "student": student,
        "assignment": "01_x",
        "exercise": exercise,
        "points": 0.0 if changes else 2.0,
        "max_points": 2.0,
        "status": "passed",
        "message": "All cases pass.",
        "misconception": "",
    }
    return Row(**values | changes)


def wrong(student: str, exercise: str, sentence: str = SCALE, **changes: Any) -> Row:
    """A row with a named mistake."""
    changes = {"status": "failed", "message": sentence, "misconception": sentence} | changes
    return row(student, exercise, **changes)


def student(name: str, *others: Row, **changes: Any) -> list[Row]:
    """A student's rows of all exercises: ``others`` where given, ``changes`` in all the rest."""
    given = {other.exercise: other for other in others}
    return [given.get(exercise, row(name, exercise, **changes)) for exercise in EXERCISES]


def absent(name: str) -> list[Row]:
    """The rows of a student who handed in nothing."""
    return student(name, status="missing", message="No 01_x.ipynb was handed in.")


def small_class() -> list[Row]:
    """Seven students, each of whom the report should treat in another way."""
    return [
        *student("ann"),
        *student("ben", wrong("ben", "x/one", points=1.0)),
        *student("cid", wrong("cid", "x/one"), wrong("cid", "x/two", "It ignores dim.")),
        *student("dora", row("dora", "x/three", status="timeout", message="It did not end.")),
        *student("eve", status="error", message="f: It is not written yet (NotImplementedError)."),
        *student(
            "fay",
            row("fay", "x/one", status="error", message="It raised KeyError: 17."),
            row("fay", "x/two", status="error", message="It raised KeyError: 4."),
        ),
        *absent("gil"),
    ]


def folder(path: Path, rows: list[Row], runs: Any = None) -> Path:
    """What ``autograder grade`` writes, as far as the report reads it."""
    tables.write_json(rows, path / "grades.json")
    if runs is not None:
        (path / "runs.json").write_text(json.dumps(runs))
    return path


def run(seconds: float = 0.4, **more: Any) -> dict[str, Any]:
    """One entry of runs.json."""
    return (
        {"seconds": seconds, "status": "finished", "notes": [], "cached": False}
        | {
            "checks": dict.fromkeys(EXERCISES, seconds / 10),
            "in_process": [],
        }
        | more
    )


class Page(HTMLParser):
    """A page's elements with their attributes, and its visible text under every heading."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.heading = ""
        self.sections: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("h1", "h2", "h3", "h4"):
            self.heading = ""
        elif tag != "wbr" and self.heading:
            self.sections[self.heading] += " "
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("meta", "link", "line", "rect", "wbr", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not self.open or "style" in self.open:
            return
        if self.open[-1] in ("h1", "h2", "h3", "h4"):
            self.heading = (self.heading + data).strip()
        self.sections[self.heading] = self.sections.get(self.heading, "") + data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def text(self, heading: str = "") -> str:
        """What stands under a heading; the whole page where none is named."""
        found = self.sections[heading] if heading else " ".join(self.sections.values())
        return " ".join(found.split())

    def table(self, first: str) -> list[str]:
        """The cells of the row that begins with ``first``."""
        rows = [[" ".join(cell.split()) for cell in cells] for cells in self.rows]
        return next(cells for cells in rows if cells and cells[0].startswith(first))


def page(path: Path) -> Page:
    return Page(write_report(path).read_text(encoding="utf-8"))


# ---- what is counted -------------------------------------------------------------------------


def test_the_summary_says_how_the_class_did(tmp_path: Path) -> None:
    text = page(folder(tmp_path, small_class())).text("01_x")
    assert "7 students: the median is 5 of 8 points" in text
    assert "the middle half has 4 to 6.75" in text
    assert "1 passed everything" in text
    assert "1 is missing" in text
    assert "Run times were not recorded" in text


def test_the_histogram_counts_those_who_handed_in(tmp_path: Path) -> None:
    label = next(
        attributes["aria-label"]
        for tag, attributes in page(folder(tmp_path, small_class())).elements
        if tag == "svg"
    )
    assert label == (
        "Points of 6 students who handed in. "
        "0–10%: 1, 50–60%: 2, 70–80%: 1, 80–90%: 1, all points: 1."
    )


@pytest.mark.parametrize(
    ("points", "place"), [(0, 0), (1.19, 3), (1.2, 4), (2.1, 7), (2.99, 9), (3, 10)]
)
def test_bins_hold_their_lower_edge(points: float, place: int) -> None:
    counted = assignment_report(
        "01_x", [wrong("ann", "x/one", points=points, max_points=3)], {}, []
    )
    assert [number for _, number in counted.bins].index(1) == place


def test_exercises_have_pass_rate_mean_and_time(tmp_path: Path) -> None:
    runs = {f"{name}/01_x": run(at) for at, name in enumerate(["ann", "ben", "cid"], 1)}
    cells = page(folder(tmp_path, small_class(), runs)).table("x/one")
    assert cells[1] == "33% 2 of 6 2 failed, 2 with errors"
    assert cells[2:] == ["0.83 / 2", "0.20 s"]
    assert len(page(folder(tmp_path, small_class(), {})).table("x/one")) == 3


def test_misconceptions_come_by_frequency_with_their_students(tmp_path: Path) -> None:
    text = page(folder(tmp_path, small_class())).text("What to explain again on Monday")
    assert re.search(rf"2 {re.escape(SCALE)} x/one ben, cid 1 It ignores dim\. x/two cid", text)


def test_other_failures_are_counted_by_message(tmp_path: Path) -> None:
    found = assignment_report("01_x", small_class(), {}, []).messages
    # Numbers differ, the mistake does not; what stands at all exercises of one is told once.
    rows = [row(f"s{at}", "x/one", status="error", message=f"Off by {at}.5.") for at in range(3)]
    rows += student("zoe", status="error", message="It is no notebook.")
    (off, whole) = assignment_report("01_x", rows, {}, []).messages
    assert (off.text, off.students) == ("Off by 0.5.", ("s0", "s1", "s2"))
    assert (whole.text, whole.students, whole.exercise) == ("It is no notebook.", ("zoe",), "")
    unwritten = next(finding for finding in found if "not written" in finding.text)
    assert unwritten.text == "It is not written yet (NotImplementedError)."
    assert unwritten.students == ("eve",)


# ---- who is listed ---------------------------------------------------------------------------


def reasons(rows: list[Row], runs: dict[str, Run] | None = None) -> dict[str, str]:
    listed = assignment_report("01_x", rows, runs or {}, []).help
    return {entry.student: "; ".join(entry.reasons) for entry in listed}


def test_who_needs_help_is_listed_with_the_reason() -> None:
    listed = reasons(small_class(), {"ben/01_x": Run(status="killed")})
    assert list(listed) == ["eve", "fay", "dora", "ben"]
    assert listed["eve"] == "0% of the points; nothing written yet"
    assert listed["fay"] == "errors in 2 of 4 exercises"
    assert listed["dora"] == "does not end: x/three"
    assert listed["ben"] == "the process died while it ran"


def test_far_below_the_class_is_listed_and_near_it_is_not() -> None:
    rows = [item for at in range(9) for item in student(f"s{at}")]
    rows += student("low", wrong("low", "x/one"), wrong("low", "x/two", points=1.0))
    rows += student("near", wrong("near", "x/one", points=1.0))
    assert reasons(rows) == {"low": "62% of the points, far below the median 100%"}


def test_the_unreadable_submission_is_told_with_its_reason() -> None:
    rows = student("zoe", status="error", message="It is no notebook.")
    assert reasons(rows)["zoe"] == "0% of the points; nothing could be graded: It is no notebook."


def test_the_missing_are_named_apart(tmp_path: Path) -> None:
    read = page(folder(tmp_path, small_class()))
    assert read.text("Missing") == "Missing gil"
    assert "gil" not in read.text("Who needs help")


def test_slow_is_far_from_the_median() -> None:
    rows = [item for at in range(9) for item in student(f"s{at}")]
    times = [0.40, 0.41, 0.39, 0.40, 0.42, 0.38, 0.41, 1.1, 9.0]
    runs = {f"s{at}/01_x": Run(seconds=value) for at, value in enumerate(times)}
    (slow,) = assignment_report("01_x", rows, runs, []).slow
    assert (slow.student, slow.reasons) == ("s8", ("9.00 s; the class's median is 0.41 s",))


def test_where_times_vary_much_none_is_slow() -> None:
    rows = [item for at in range(9) for item in student(f"s{at}")]
    times = [0.2, 0.3, 0.5, 1.0, 1.0, 2.0, 2.5, 3.0, 3.5]
    runs = {f"s{at}/01_x": Run(seconds=value) for at, value in enumerate(times)}
    assert assignment_report("01_x", rows, runs, []).slow == []


def test_an_unexpected_result_is_far_from_the_student_and_from_the_class() -> None:
    rows = [item for at in range(8) for item in student(f"s{at}")]
    rows += student("ann", wrong("ann", "x/two"))
    rows += student("weak", wrong("weak", "x/two"), status="failed", message="No.")
    (far,) = assignment_report("01_x", rows, {}, []).far
    assert far.student == "ann"
    assert far.reasons[0].startswith("x/two: 0 of 2 points")
    hard = [item for at in range(8) for item in student(f"s{at}", wrong(f"s{at}", "x/two"))]
    assert assignment_report("01_x", hard, {}, []).far == []


def test_an_exercise_that_nobody_passes_is_hard() -> None:
    rows = [item for at in range(8) for item in student(f"s{at}", wrong(f"s{at}", "x/two"))]
    (hard,) = assignment_report("01_x", rows, {}, []).hard
    assert (hard.name, hard.passed, hard.handed_in) == ("x/two", 0, 8)


def test_similar_answers_are_for_a_person_to_look_at(tmp_path: Path) -> None:
    source = "def f({0}):\n" + "".join(f"    {{0}} = {{0}} * {at} + 1\n" for at in range(12))
    for name, argument in (("ann", "x"), ("ben", "value"), ("cid", None)):
        answer = cell(
            "code", source.format(argument) if argument else "f = 1", grade_id="f", solution=True
        )
        path = tmp_path / "autograded" / name / "01_x" / "01_x.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"cells": [answer]}))
    read = page(folder(tmp_path, small_class()))
    assert "never a grade" in read.text("Similar submissions")
    assert read.table("ann, ben")[1] == "f size 85, written so by 2 of 3"


def test_notes_and_what_runs_beside_the_learners_code_are_told(tmp_path: Path) -> None:
    note = "The cell x was missing; it was put back."
    runs = {"ben/01_x": run(notes=[note], in_process=["x/two"])}
    read = page(folder(tmp_path, small_class(), runs))
    assert f" 1 {note} ben " in read.text("Notes: what was put right before grading")
    assert "in the submission’s own process" in read.table("x/two")[0]
    assert "in the submission’s own process" not in read.table("x/one")[0]


# ---- the page --------------------------------------------------------------------------------

EVIL = "<script>alert('ü')</script><img src=x onerror=alert(1)>\"'&{{ 7*7 }}"


def test_what_learners_wrote_is_escaped(tmp_path: Path) -> None:
    rows = [
        *student(EVIL, wrong(EVIL, f"{EVIL}/one", EVIL), status="error", message=EVIL),
        *student("ann", wrong("ann", "x/one", EVIL)),
        *student("gil", status="timeout", message=f"{EVIL} \ud800"),
    ]
    rows = [Row(**{**row.__dict__, "assignment": f"01_{EVIL}"}) for row in rows]
    runs = {f"ann/01_{EVIL}": run(notes=[EVIL], in_process=[EVIL])}
    (tmp_path / "grades.json").write_text(json.dumps([row.__dict__ for row in rows]))
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    read = page(tmp_path)
    tags = {tag for tag, _ in read.elements}
    assert not tags & {"script", "img"}
    assert not [name for _, attributes in read.elements for name in attributes if name[:2] == "on"]
    assert "49" not in read.text()
    assert EVIL.split(">")[0] in read.text("What to explain again on Monday")


def test_nothing_is_fetched_from_elsewhere(tmp_path: Path) -> None:
    text = write_report(folder(tmp_path, small_class(), {"ann/01_x": run()})).read_text()
    for pattern in ("http://", "https://", "src=", "@import", "url(", "<script", "srcset"):
        assert pattern not in text
    links = [a["href"] for tag, a in Page(text).elements if tag in ("a", "link")]
    assert all(link.startswith(("#", "data:,")) for link in links)


def test_names_lead_to_the_feedback_pages(tmp_path: Path) -> None:
    for name in ("ann", "ben 50%?#"):
        feedback = tmp_path / "graded" / "feedback" / name / "01_x" / "01_x.html"
        feedback.parent.mkdir(parents=True)
        feedback.write_text("feedback")
    rows = student("ann", wrong("ann", "x/one")) + student("ben 50%?#", wrong("ben 50%?#", "x/one"))
    graded = folder(tmp_path / "graded", rows + student("cid", wrong("cid", "x/one")))
    text = write_report(graded, tmp_path / "pages" / "one.html").read_text()
    links = [a["href"] for tag, a in Page(text).elements if tag == "a" and a["href"][0] != "#"]
    assert set(links) == {
        "../graded/feedback/ann/01_x/01_x.html",
        "../graded/feedback/ben%2050%25%3F%23/01_x/01_x.html",
    }


def test_every_table_and_section_can_be_read_aloud(tmp_path: Path) -> None:
    elements = page(folder(tmp_path, small_class(), {"ann/01_x": run(notes=["x"])})).elements
    assert all("scope" in attributes for tag, attributes in elements if tag == "th")
    tables = [tag for tag, _ in elements if tag in ("table", "caption")]
    assert tables == ["table", "caption"] * (len(tables) // 2)
    assert all(a["role"] == "img" and a["aria-label"] for tag, a in elements if tag == "svg")
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(set(ids)) == len(ids)
    wanted = {a["href"][1:] for _, a in elements if a.get("href", "").startswith("#")}
    wanted |= {a["aria-labelledby"] for _, a in elements if "aria-labelledby" in a}
    assert wanted <= set(ids)
    levels = [int(tag[1]) for tag, _ in elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (student("ann"), "1 student: the median is 8 of 8 points; 1 passed everything, nobody is"),
        (student("ann", status="failed", message="No."), "0 of 8 points; nobody passed everything"),
        (absent("ann"), "1 student: nothing can be said about points, for 1 is missing."),
        (absent("ann") + absent("ben"), "for 2 are missing."),
        ([row("ann", "x/one", points=0.0, max_points=0.0)], "the median is 0 of 0 points; 1"),
    ],
    ids=["one", "none-passed", "nobody-there", "two-missing", "no-points"],
)
def test_small_classes_have_a_page(tmp_path: Path, rows: list[Row], words: str) -> None:
    assert words in page(folder(tmp_path, rows)).text("01_x")


def test_several_assignments_have_an_overview(tmp_path: Path) -> None:
    second = [Row(**{**item.__dict__, "assignment": "02_y"}) for item in small_class()[:-8]]
    late = [Row(**{**item.__dict__, "assignment": "02_y"}) for item in absent("gil")]
    read = page(folder(tmp_path, small_class() + second + late))
    assert read.table("01_x")[1:] == ["6 of 7", "5 / 8", "1", "3"]
    assert read.table("02_y")[1] == "5 of 6"
    assert read.text("Listed more than once").endswith("dora (2), eve (2), gil (2)")


def test_a_thousand_students_have_a_short_page(tmp_path: Path) -> None:
    rng = random.Random(3)
    rows, runs = [], {}
    for at in range(1_000):
        name = f"student-{at:04d}"
        for exercise in EXERCISES:
            if rng.random() < 0.5:
                rows.append(row(name, exercise))
            elif rng.random() < 0.5:
                rows.append(wrong(name, exercise, f"Mistake {rng.choice('abc')}."))
            else:
                text = "".join(rng.choices("abcdefgh", k=200))
                rows.append(row(name, exercise, status="error", message=text))
        runs[f"{name}/01_x"] = run(rng.random(), notes=[f"note {at}"])
    path = write_report(folder(tmp_path, rows, runs))
    assert path.stat().st_size < 300_000
    read = Page(path.read_text())
    assert "1,000 students" in read.text("01_x")
    assert re.search(r"and \d\d more", read.text("What to explain again on Monday"))
    assert max(text.count("student-") for cells in read.rows for text in cells) == 60
    assert "The first 100 of 1,000 are listed here" in read.text()


# ---- what stops it ---------------------------------------------------------------------------


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    folder(tmp_path, small_class())
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 0
    assert result.stdout == f"Report: {tmp_path / 'report.html'}\n"
    to = tmp_path / "new" / "class.html"
    assert CliRunner().invoke(app, ["report", str(tmp_path), "--to", str(to)]).exit_code == 0
    assert to.read_text() == (tmp_path / "report.html").read_text()


GOOD = json.dumps([item.__dict__ for item in student("ann")])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "Grade a class first: autograder grade SUBMITTED --to"),
        ("", "is not valid JSON (line 1). Grade again"),
        (GOOD[:-9], "is not valid JSON (line 1). Grade again"),
        ("[" * 100_000, "is not valid JSON. Grade again"),
        (b"\xff\xfe", "is not valid JSON. Grade again"),
        ("[]", "holds no grades"),
        ("{}", "is not a list of grades"),
        ("[3]", "entry 1: not a grade"),
        (GOOD.replace('"student"', '"who"', 1), "entry 1: student is None, not text"),
        (GOOD.replace("2.0", '"2"', 1), "entry 1: points is '2', not a number"),
        (GOOD.replace("2.0", "NaN", 1), "entry 1: points is nan, not a number"),
    ],
    ids=[
        "absent",
        "empty",
        "cut",
        "deep",
        "bytes",
        "none",
        "object",
        "number",
        "name",
        "text",
        "nan",
    ],
)
def test_damaged_grades_are_told(tmp_path: Path, text: str | bytes | None, words: str) -> None:
    if text is not None:
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "grades.json").write_bytes(data)
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert words in result.stderr
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("text", ["[]", '{"ann/01_x": 3}', "{", "x"])
def test_damaged_runs_are_told(tmp_path: Path, text: str) -> None:
    folder(tmp_path, small_class())
    (tmp_path / "runs.json").write_text(text)
    with pytest.raises(ReportError, match=r"runs\.json.*Delete it for a report without times"):
        write_report(tmp_path)


def test_strange_values_in_runs_are_passed_over(tmp_path: Path) -> None:
    strange = {"seconds": "soon", "status": None, "notes": 3, "checks": {"x/one": -1, "x/two": 2}}
    cells = page(folder(tmp_path, small_class(), {"ann/01_x": strange, "gone/09": {}}))
    assert cells.table("x/one")[3] == "–"
    assert cells.table("x/two")[3] == "2.00 s"


def test_what_was_not_run_has_no_time(tmp_path: Path) -> None:
    runs = {"ann/01_x": run(0.5), "ben/01_x": run(0.0, status="error", checks={})}
    read = page(folder(tmp_path, small_class(), runs))
    assert "A submission took 0.50 s to run (median)." in read.text("01_x")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    folder(tmp_path, small_class())
    with pytest.raises(ReportError, match=r"cannot be written.*--to"):
        write_report(tmp_path, tmp_path / "grades.json" / "page.html")
    assert len(read_rows(tmp_path)) == 28


# ---- in a browser ----------------------------------------------------------------------------

# Every visible piece of text: its contrast with what is painted behind it, and where it is.
CONTRAST = """
() => {
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const light = color => {
    const [r, g, b] = numbers(color).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (numbers(color)[3] !== 0) return color;
    }
    throw new Error("nothing is painted behind the text");
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    const element = walker.currentNode.parentElement;
    if (!text || element.closest("title")) continue;
    const style = getComputedStyle(element);
    const color = element.closest("svg") ? style.fill : style.color;
    const [one, other] = [light(color), light(behind(element))].sort();
    found.push([(other + 0.05) / (one + 0.05), text]);
  }
  return found;
}
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium; on Debian: apt-get install chromium")
def test_the_page_reads_in_light_and_dark_narrow_and_wide_and_asks_for_nothing(
    tmp_path: Path,
) -> None:
    from playwright.sync_api import sync_playwright

    long = "W" * 70
    rows = small_class() + student(long, wrong(long, "x/one", "x" * 250), status="error")
    rows += [Row(**{**item.__dict__, "assignment": "02_y"}) for item in rows]
    runs = {"ann/01_x": run(notes=["y" * 200]), "ben/01_x": run(in_process=["x/two"])}
    path = write_report(folder(tmp_path, rows, runs))
    requests, backgrounds, problems = [], {}, []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        for scheme in ("light", "dark"):
            for width in (320, 390, 1280):
                tab = browser.new_page(
                    color_scheme=scheme, viewport={"width": width, "height": 800}
                )
                tab.on("request", lambda request: requests.append(request.url))
                tab.on("console", lambda message: problems.append(message.text))
                tab.route(lambda url: url != path.as_uri(), lambda route: route.abort())
                tab.goto(path.as_uri())
                tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
                measured = tab.evaluate(CONTRAST)
                assert len(measured) > 100
                assert min(measured)[0] >= 4.5, min(measured)
                assert tab.evaluate("document.documentElement.scrollWidth") <= width
                body = "getComputedStyle(document.documentElement).backgroundColor"
                backgrounds[scheme] = tab.evaluate(body)
                tab.close()
        browser.close()
    assert set(requests) <= {path.as_uri(), "data:,"}
    assert problems == []
    assert backgrounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 30)"}
