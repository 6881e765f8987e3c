"""Feedback pages are nbgrader's own, and hold nothing of another learner's."""

from __future__ import annotations

import base64
import copy
import html.parser
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import nbgrader_course
import pytest
import small_class as small
from nbformat import NotebookNode
from nbgrader.api import Gradebook as Database
from nbgrader.converters import GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader_course import ASSIGNMENT, FILE

from autograder import feedback, notebooks, sample
from autograder.feedback import Pages
from autograder.gradebook import Gradebook

# One white and one black pixel.
WHITE, BLACK = (
    base64.b64encode(
        base64.b64decode(
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5E"
            "rkJggg=="
        )
        + padding
    ).decode()
    for padding in (b"", b"\0")
)
ANSWER = """\
Because **two divides it**: $n = 2k$, see

![what I drew](attachment:drawing.png) and ![](attachment:drawing.png)

| n | 2n |
| - | -- |
| 1 | 2  |

<b>bold</b> & `x < y`
"""
SHOWS = """\
def triple(x):
    return 3 * x


from IPython.display import HTML, Image, Markdown, display"""


def outputs(own: str) -> list[NotebookNode]:
    """Outputs of every kind that a page shows; ``own`` is in each of them."""
    new = nbformat.v4.new_output
    picture = {"image/png": WHITE, "text/plain": f"<Figure {own}>"}
    return [
        new("stream", name="stdout", text=f"\x1b[31mred\x1b[0m {own} <&>\n"),
        new("stream", name="stderr", text=f"careful, {own}\n"),
        new("display_data", data=picture),
        new("display_data", data=picture, metadata={"image/png": {"alt": f"a line of {own}"}}),
        new("display_data", data={"text/html": f'<img src="a.png"><p>{own}</p>'}),
        new("display_data", data={"text/html": f'<img src="b.png" alt="said: {own}">'}),
        new("display_data", data={"text/markdown": f"*{own}*"}),
        new("display_data", data={"image/svg+xml": f"<svg><title>{own}</title></svg>"}),
        new("display_data", data={"text/latex": rf"$\text{{{own}}}$"}),
        new("execute_result", data={"text/plain": f"'{own}'"}, execution_count=3),
        new(
            "error",
            ename="ValueError",
            evalue=own,
            traceback=[f"\x1b[0;31mValueError\x1b[0m: {own} <b>"],
        ),
    ]


class Shows(small.Reader):
    """Runs nothing, and shows a good deal of each learner's own."""

    def run(self, job: Any) -> Any:
        """As the other, with outputs below the answer to ``triple``."""
        transcript = super().run(job)
        source = next(cell.source for cell in job.cells if cell.id == "triple-solution")
        found = re.search(r"# mine: (\w+)", source)
        if found:
            transcript.cells["triple-solution"].outputs = outputs(found[1])
        return transcript


NAMES = ("ada", "ben", "cleo")


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class of three: comments, scores by hand, extra credit, a late penalty, pictures."""
    root = small.make(
        tmp_path_factory.mktemp("feedback") / "course",
        tuple(
            sample.Student(name, "", {"triple": f"{SHOWS}  # mine: {name}"})
            if name != "cleo"
            else sample.Student(name, "", finished=False)
            for name in NAMES
        ),
    )
    with (root / "nbgrader_config.py").open("a", encoding="utf-8") as file:
        file.write('\nc.LateSubmissionPlugin.penalty_method = "zero"\n')
    for name, drawn in (("ada", WHITE), ("ben", BLACK)):
        path = small.path_of(root, name)
        book = nbformat.read(path, as_version=4)
        for cell in book.cells:
            if notebooks.grade_id(cell) == nbgrader_course.QUESTION:
                cell.source = ANSWER  # the same text, with another picture
                cell.attachments = {"drawing.png": {"image/png": drawn}}
        path.write_text(notebooks.write(book), encoding="utf-8")
    (small.path_of(root, "ben").parent / "timestamp.txt").write_text("2026-03-02 10:00:00 UTC")
    to = root.parent / "graded"
    small.grade(root, to, Shows())
    cells = (ASSIGNMENT, ASSIGNMENT)
    with Database(f"sqlite:///{to / 'gradebook.db'}") as book:
        book.update_or_create_assignment(ASSIGNMENT, duedate="2026-03-01 00:00:00 UTC")
        book.find_grade("question-even", *cells, "ada").manual_score = 1.5
        book.find_grade("triple-check", *cells, "ada").extra_credit = 0.5
        book.find_grade("question-even", *cells, "cleo").extra_credit = 0.25
        book.find_grade("triple-check", *cells, "ben").manual_score = 1.0
        for name in NAMES:
            remark = f"Well said, {name}: *twice* `2n` & <b>more</b>.\n\nSee $2n$."
            book.find_comment("question-even", *cells, name).manual_comment = remark
        book.find_comment("triple-solution", *cells, "ada").manual_comment = ""
        book.db.commit()
    small.grade(root, to, Shows())
    return to


@pytest.fixture(scope="module")
def theirs(graded: Path) -> Path:
    """The pages that ``nbgrader generate_feedback`` makes of the same gradebook."""
    to = shutil.copytree(graded, graded.parent / "theirs")
    shutil.rmtree(to / "feedback")
    config = Gradebook(to, to / "work", graded.parent / "course").settings()
    config.CourseDirectory.assignment_id = ASSIGNMENT
    GenerateFeedback(coursedir=CourseDirectory(config=config), config=config).start()
    return to


class _Parts(html.parser.HTMLParser):
    """Tags, attributes and texts of a page, without what may differ."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[Any] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        kept = [(name, " ".join((value or "").split())) for name, value in attrs if name != "alt"]
        self.parts.append((tag, sorted(kept)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("img", "br", "link", "meta", "hr", "input"):
            self.parts.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if data.split():
            self.parts.append(" ".join(data.split()))


def parts(page: str) -> list[Any]:
    """What a browser would show of a page, in order."""
    parser = _Parts()
    parser.feed(page)
    parser.close()
    merged: list[Any] = []
    for part in parser.parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str) and part[:1] != "/":
            merged[-1] += f" {part}"
        else:
            merged.append(part)
    return merged


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_those_of_nbgrader(graded: Path, theirs: Path, name: str) -> None:
    ours, expected = (nbgrader_course.page(folder, name) for folder in (graded, theirs))
    got, wanted = parts(ours), parts(expected)
    assert len(wanted) > 100
    for index, (one, other) in enumerate(zip(got, wanted, strict=False)):
        assert one == other, f"part {index}, after {wanted[max(index - 3, 0) : index]}"
    assert len(got) == len(wanted)


def test_pages_show_what_is_in_the_gradebook(graded: Path) -> None:
    ada, ben, cleo = (nbgrader_course.page(graded, name) for name in NAMES)
    for name, page in zip(NAMES, (ada, ben, cleo), strict=True):
        assert f"Well said, {name}" in page
    # 2 + 3 + 4, and 1.5 and 0.5 by hand, of 11.
    assert "(Score: 11.0 / 11.0)" in ada
    # 2 + 1 + 4, all of it taken off.
    assert "(Score: 0.0 / 11.0)" in ben
    assert re.search(r"[Ll]ate[^<]*7\.0", ben)
    assert "(Score: 0.25 / 11.0)" in cleo
    assert "No response." in cleo


def test_every_picture_has_a_text(graded: Path) -> None:
    for name in NAMES:
        page = nbgrader_course.page(graded, name)
        pictures = re.findall(r"<img\b[^>]*>", page)
        assert all("alt=" in picture for picture in pictures)
    page = nbgrader_course.page(graded, "ada")
    assert page.count('alt="a line of ada"') == 1
    assert page.count('alt="said: ada"') == 1
    assert page.count('alt="what I drew"') == 1
    assert page.count('alt="No description has been provided for this image"') >= 3


def test_nothing_of_a_learner_is_on_the_page_of_another(graded: Path) -> None:
    for name in NAMES:
        page = nbgrader_course.page(graded, name)
        assert [other for other in NAMES if re.search(rf"\b{other}\b", page)] == [name]
    ada, ben = (nbgrader_course.page(graded, name) for name in ("ada", "ben"))
    # The same text with another picture pasted into it.
    assert WHITE in ada
    assert f"base64,{BLACK}" in ben
    assert f"base64,{BLACK}" not in ada


@pytest.mark.parametrize(
    "answer",
    [
        "![drawn](attachment:not-there.png)",
        "<img src='attachment:not-there.png'>",
        "![drawn](attachment&#58;not-there.png)",
        "![drawn][1]\n\n[1]: attachment:not-there.png",
    ],
)
def test_a_picture_that_is_not_there_stops_nobodys_page(
    graded: Path, tmp_path: Path, answer: str
) -> None:
    root = shutil.copytree(graded.parent / "course", tmp_path / "course")
    path = small.path_of(root, "ada")
    book = nbformat.read(path, as_version=4)
    cell = next(c for c in book.cells if notebooks.grade_id(c) == nbgrader_course.QUESTION)
    cell.source = answer
    book.cells.append(nbformat.v4.new_markdown_cell(answer))
    path.write_text(notebooks.write(book), encoding="utf-8")
    small.grade(root, tmp_path / "graded", Shows())
    assert "not-there.png" in nbgrader_course.page(tmp_path / "graded", "ada")
    assert nbgrader_course.page(tmp_path / "graded", "ben")
    # Nor does it stop nbgrader, which formgrader shows the notebook with.
    config = Gradebook(tmp_path / "graded", tmp_path / "work", root).settings()
    config.CourseDirectory.assignment_id = ASSIGNMENT
    converter = GenerateFeedback(coursedir=CourseDirectory(config=config), config=config)
    converter.force = True
    converter.start()


# ---- memory ----------------------------------------------------------------------------------


def read(graded: Path, student: str) -> NotebookNode:
    """The notebook as recorded."""
    return nbformat.read(graded / "autograded" / student / FILE, as_version=4)


@pytest.fixture
def pages(graded: Path) -> Pages:
    """Makes pages, and remembers nothing yet."""
    return Pages(Gradebook(graded, graded / "work", graded.parent / "course").settings())


def page(pages: Pages, book: NotebookNode, student: str) -> str:
    """A page without scores and comments."""
    return pages.page(copy.deepcopy(book), ASSIGNMENT, student, {}, {}, None)


def test_a_page_does_not_depend_on_the_pages_before(graded: Path, pages: Pages) -> None:
    books = {name: read(graded, name) for name in NAMES}
    alone = {}
    for name in NAMES:
        fresh = Pages(Gradebook(graded, graded / "work", graded.parent / "course").settings())
        alone[name] = page(fresh, books[name], name)
    for name in (*NAMES, *reversed(NAMES)):
        assert page(pages, books[name], name) == alone[name]


def test_scores_and_comments_of_one_page_are_gone_on_the_next(graded: Path, pages: Pages) -> None:
    book = read(graded, "ada")
    scores = {"question-even": (1.75, 2.0)}
    first = pages.page(book, ASSIGNMENT, "ada", scores, {"question-even": "For ada alone."}, 0.125)
    assert "For ada alone." in first
    assert "1.75" in first
    second = page(pages, book, "ben")
    assert "For ada alone." not in second
    assert "1.75" not in second
    assert "0.125" not in second


def test_code_is_highlighted_in_the_language_of_its_notebook(graded: Path, pages: Pages) -> None:
    book = read(graded, "ada")
    plain = copy.deepcopy(book)
    plain.metadata["language_info"] = {"name": "text", "pygments_lexer": "text"}
    coloured = page(pages, book, "ada")
    assert page(pages, plain, "ada") != coloured
    assert page(pages, book, "ada") == coloured


def test_memory_is_bounded(graded: Path, pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "_REMEMBERED", 5)
    book = read(graded, "ada")
    wanted = page(pages, book, "ada")
    exporter = pages._exporter
    for number in range(8):
        other = copy.deepcopy(book)
        other.cells.append(nbformat.v4.new_markdown_cell(f"Number {number}"))
        other.cells.append(nbformat.v4.new_code_cell(f"number = {number}"))
        assert f"Number {number}" in page(pages, other, "ada")
        assert len(exporter._markdown) <= 5
        assert len(exporter._code) <= 5
    assert page(pages, book, "ada") == wanted
