"""The book: what stops it, what it holds, and what it must not hold."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import tiny

from autograder import notebooks
from autograder.notebooks import Chapter
from book import build as book
from book.assets import assets
from book.browser import served


def silent(line: str) -> None:
    """Takes a line of progress and shows nothing."""


# --- executing ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> book.Executed:
    course = tiny.course(tmp_path_factory.mktemp("course"))
    return book.execute(Chapter(course, "01_twice"), "smoke", course / "cache", silent)


def test_an_executed_notebook_has_verdicts_and_a_time(executed: book.Executed) -> None:
    cell = next(cell for cell in executed.notebook.cells if notebooks.is_check(cell))
    assert "verdict of numbers/double" in json.dumps(cell.outputs)
    assert executed.seconds > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", executed.finished)


def test_what_did_not_change_is_not_executed_again(
    executed: book.Executed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "_run", lambda *_: pytest.fail("executed again"))
    root = executed.chapter.root
    again = book.execute(executed.chapter, "smoke", root / "cache", silent)
    assert notebooks.write(again.notebook) == notebooks.write(executed.notebook)
    assert again.finished == executed.finished


@pytest.mark.parametrize("change", ["budget", "source", "library", "lock", "picture"])
def test_what_changed_is_executed_again(
    executed: book.Executed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str
) -> None:
    course = tiny.course(tmp_path)
    (course / "cache").symlink_to(executed.chapter.root / "cache")
    chapter = Chapter(course, "01_twice")
    runs = []

    def run(*arguments: object) -> nbformat.NotebookNode:
        runs.append(arguments)
        return executed.notebook

    monkeypatch.setattr(book, "_run", run)
    book.execute(chapter, "smoke", course / "cache", silent)
    assert not runs, "the same course elsewhere is the same"
    files = {
        "source": (chapter.source, tiny.chapter("+++\n\nOne more cell.\n")),
        "library": (course / "workbook/numbers.py", "TWO = 2\n"),
        "lock": (course / "requirements.lock", "numpy==2.0\n"),
        "picture": (chapter.source.parent / "picture.svg", "<svg/>\n"),
    }
    if change in files:
        path, content = files[change]
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    book.execute(chapter, "cpu" if change == "budget" else "smoke", tmp_path / "cache", silent)
    assert len(runs) == 1


def test_an_error_breaks_the_build(tmp_path: Path) -> None:
    cell = tiny.code("def divide(n):\n    return n / 0\n\n\ndivide(1)")
    course = tiny.course(tmp_path, tiny.chapter(cell))
    with pytest.raises(book.BuildError) as error:
        book.build(course, budget="smoke", say=silent, execute_only=True)
    text = str(error.value)
    assert "01_twice.md, code cell 6 (def divide(n):)" in text
    assert "ZeroDivisionError: division by zero" in text
    assert "return n / 0" in text
    assert "\x1b[" not in text
    assert not (course / "_build").exists()


def test_the_one_chapter_of_several_that_fails_is_named(tmp_path: Path) -> None:
    """Also where chapters are executed in processes of their own."""
    course = tiny.course(tmp_path)
    wrong = course / "solutions" / "02_thrice" / "02_thrice.md"
    wrong.parent.mkdir()
    wrong.write_text(tiny.chapter(tiny.code("1 / 0")))
    command = [sys.executable, str(tiny.ROOT / "book" / "build.py"), "--execute-only"]
    done = subprocess.run(
        [*command, "--root", str(course), "--budget", "smoke"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "02_thrice.md, code cell 6 (1 / 0) raised" in done.stderr
    assert "build.py" not in done.stderr
    # The other one need not run again.
    assert book.execute(Chapter(course, "01_twice"), "smoke", course / "_build/executed", silent)
    assert len(list((course / "_build" / "executed").rglob("*.ipynb"))) == 1


def test_what_must_not_be_published_breaks_the_build(tmp_path: Path) -> None:
    cells = [
        tiny.code("import sys\n\nprint('a warning', file=sys.stderr)"),
        tiny.code("import os\n\nprint(os.path.abspath('file'))"),
        tiny.code("display({'application/vnd.jupyter.widget-view+json': {}}, raw=True)"),
        tiny.code("print(os.environ['WORKBOOK_STATIC'], os.environ['WORKBOOK_BUDGET'])"),
    ]
    source = tiny.chapter(*cells).replace("return 2.0", "return 1.5")
    course = tiny.course(tmp_path, source)
    with pytest.raises(book.BuildError) as error:
        book.build(course, budget="smoke", say=silent, execute_only=True)
    text = str(error.value)
    assert (
        "'double-check' (### BEGIN HIDDEN TESTS): the course's own solution gets 1.5 of 2" in text
    )
    assert "code cell 6 (import sys) wrote to stderr; mend its cause:\na warning" in text
    assert "code cell 7 (import os) shows a path of this machine" in text
    assert "code cell 8" in text
    assert "shows a widget" in text
    assert "code cell 9" not in text


# --- staging --------------------------------------------------------------------------------


def test_no_secret_reaches_the_public_stage(executed: book.Executed, tmp_path: Path) -> None:
    book.stage(executed.chapter.root, [executed], "public", tmp_path)
    files = tiny.everything_in(tmp_path)
    packaged = {name for name in files if name.startswith("book/_static/vendor/")}
    assert packaged == {f"book/_static/{name}" for name in assets()}
    assert files.keys() - packaged == {
        "_config.yml",
        "book/_toc.yml",
        "book/execution.md",
        "book/exercises.md",
        "book/index.md",
        "book/results.md",
        "book/references.bib",
        "chapters/01_twice/01_twice.ipynb",
        "chapters/01_twice/picture.svg",
    }
    everything = b"".join(files.values()).decode(errors="ignore")
    assert not [secret for secret in tiny.SECRETS if secret in everything]
    assert "verdict of numbers/double" in everything


def test_the_instructor_stage_shows_solutions_in_dropdowns(
    executed: book.Executed, tmp_path: Path
) -> None:
    book.stage(executed.chapter.root, [executed], "instructor", tmp_path)
    page = nbformat.read(tmp_path / "chapters/01_twice/01_twice.ipynb", as_version=4)
    nbformat.validate(page)
    shown = [cell.source for cell in page.cells if cell.id.endswith("-shown")]
    assert len(shown) == 3
    assert shown[0].startswith("```{dropdown} Solution") or shown[0].startswith("````{dropdown} S")
    assert "secret_factor = math.floor(2.7)" in shown[0]
    assert "secret hidden test" in shown[1]
    assert "Secret model answer" in shown[2]
    assert "Secret mark scheme" in shown[2]
    assert "BEGIN" not in "".join(shown[::2])


def test_staging_again_touches_nothing_and_removes_strays(
    executed: book.Executed, tmp_path: Path
) -> None:
    root = executed.chapter.root
    book.stage(root, [executed], "public", tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "chapters/02_gone").mkdir()
    (tmp_path / "chapters/02_gone/02_gone.ipynb").write_text("{}")
    book.stage(root, [executed], "public", tmp_path)
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert again == times
    assert not (tmp_path / "chapters/02_gone").exists()


# --- building -------------------------------------------------------------------------------


def test_a_build_is_incremental_and_a_failed_one_keeps_the_pages(
    executed: book.Executed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    course = tiny.course(tmp_path)
    monkeypatch.setattr(book, "_run", lambda *_: executed.notebook)
    builds: list[Path] = []

    def jupyter_book(staged: Path, work: Path, log: Path, say: object) -> Path:
        builds.append(staged)
        text = (staged / "book/index.md").read_text()
        if "broken" in text:
            raise book.BuildError("broken")
        folder = work / "_build/html"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.html").write_text(text)
        return folder

    monkeypatch.setattr(book, "jupyter_book", jupyter_book)
    index = course / "book/index.md"
    pages = book.build(course, budget="smoke", say=silent)
    assert pages == course / "_build/html"
    book.build(course, budget="smoke", say=silent)
    assert len(builds) == 1, "nothing changed"
    index.write_text("# broken\n")
    with pytest.raises(book.BuildError):
        book.build(course, budget="smoke", say=silent)
    assert (pages / "index.html").read_text() == "# Numbers\n"
    index.write_text("# Better\n")
    book.build(course, budget="smoke", say=silent)
    assert (pages / "index.html").read_text() == "# Better\n"
    (pages / "index.html").unlink()
    book.build(course, budget="smoke", say=silent)
    assert (pages / "index.html").is_file(), "lost pages are built again"
    assert (
        book.build(course, "instructor", "smoke", say=silent) == course / "_build/html-instructor"
    )
    assert len(builds) == 5


def test_a_warning_of_jupyter_book_breaks_the_build(
    executed: book.Executed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    course = tiny.course(tmp_path)
    (course / "book/index.md").write_text("# Numbers\n\n{doc}`nowhere`\n")
    for name in ("_static", "_ext", "_templates"):
        shutil.copytree(tiny.ROOT / "book" / name, course / "book" / name)
    monkeypatch.setattr(book, "_run", lambda *_: executed.notebook)
    with pytest.raises(book.BuildError, match=r"book/index\.md:3: WARNING: unknown document"):
        book.build(course, budget="smoke", say=silent)
    assert not (course / "_build/html").exists()
    assert (course / "_build/book-public.log").is_file()


def test_what_jupyter_book_leaves_behind_does_not_hold_the_build(tmp_path: Path) -> None:
    """As a node that Sphinx did not wait for would, which has the same output."""
    script = (
        "import subprocess\nprint('reading sources... [100%] a', flush=True)\n"
        "print(subprocess.Popen(['sleep', '600']).pid, flush=True)\nraise SystemExit(3)"
    )
    said: list[str] = []
    log = tmp_path / "log"
    command = [sys.executable, "-c", script]
    assert book._followed(command, tmp_path, dict(os.environ), log, said.append) == 3
    assert [line.split(maxsplit=2)[2] for line in said] == ["reading sources"]
    left = Path("/proc", log.read_text().split()[-1])
    for _ in range(100):
        # A process that is dead stays in the list until its parent asks.
        if not left.exists() or " Z " in (left / "stat").read_text():
            break
        time.sleep(0.1)
    else:
        raise AssertionError("sleep is still there")


def test_a_link_that_another_site_does_not_have_is_named(
    executed: book.Executed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    course = tiny.course(tmp_path)
    for name in ("_static", "_ext", "_templates"):
        shutil.copytree(tiny.ROOT / "book" / name, course / "book" / name)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "here.html").write_text("<p>Here.</p>")
    monkeypatch.setattr(book, "_run", lambda *_: executed.notebook)
    with served(tmp_path / "site") as address:
        (course / "book/index.md").write_text(
            "# Numbers\n\n```{bibliography}\n```\n\n"
            f"[one]({address}/here.html), [two]({address}/gone.html)\n"
        )
        with pytest.raises(book.BuildError) as error:
            book.build(course, budget="smoke", say=silent, check_links=True)
    assert "gone.html - 404" in str(error.value)
    assert "here.html" not in str(error.value)


@pytest.mark.parametrize("name", ["EDITION", "WORKBOOK_BUDGET"])
def test_an_unknown_edition_or_budget_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "secret")
    with pytest.raises(SystemExit) as stop:
        book.main([])
    assert stop.value.code == 2
    assert "one of" in capsys.readouterr().err


def test_the_command_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    course = tiny.course(tmp_path, tiny.chapter(points=-1))
    assert book.main(["--root", str(course), "--budget", "smoke"]) == 1
    assert "needs points: N" in capsys.readouterr().err


# --- the built book -------------------------------------------------------------------------


class _Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.images_without_text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.update(given[key] for key in ("id", "name") if given.get(key))
        for key in ("href", "src"):
            if given.get(key) and tag in ("a", "img", "link", "script", "iframe"):
                self.links.append(given[key])
        if tag == "img" and not given.get("alt"):
            self.images_without_text.append(given.get("src") or "")


@pytest.fixture(scope="session")
def parsed(pages: Path) -> dict[Path, _Links]:
    # The theme's folder holds templates, which are no pages.
    found = [path for path in sorted(pages.rglob("*.html")) if "_static" not in path.parts]
    return {path: _Links(path.read_text(encoding="utf-8")) for path in found}


def test_every_page_exists(pages: Path) -> None:
    expected = [
        *("index.html", "book/index.html", "book/how-to-use.html", "book/for-instructors.html"),
        *("book/glossary.html", "book/references.html", "book/execution.html"),
        *("book/exercises.html", "book/results.html", "book/errors.html"),
    ]
    for chapter in notebooks.chapters(tiny.ROOT):
        expected.append(f"chapters/{chapter.name}/{chapter.name}.html")
    assert not [name for name in expected if not (pages / name).is_file()]


def test_internal_links_resolve(pages: Path, parsed: dict[Path, _Links]) -> None:
    broken = []
    for path, page in parsed.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("#top"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = parsed[target].ids if target in parsed else set()
            lost = parts.fragment and target in parsed and unquote(parts.fragment) not in known
            if lost or not target.is_file():
                broken.append(f"{path.relative_to(pages)}: {link}")
    assert not broken


def test_images_have_a_text(pages: Path, parsed: dict[Path, _Links]) -> None:
    silent_images = {
        str(path.relative_to(pages)): page.images_without_text
        for path, page in parsed.items()
        if page.images_without_text
    }
    assert not silent_images


def test_no_solution_text_is_in_any_file_of_the_book(pages: Path) -> None:
    secrets = _secrets(notebooks.chapters(tiny.ROOT))
    assert len(secrets) > 5
    found = []
    for path in sorted(pages.rglob("*")):
        # What the theme brings is the same in every book.
        if not path.is_file() or path.relative_to(pages).parts[0] == "_static":
            continue
        written = path.read_bytes().decode("utf-8", errors="ignore")
        # In what is no page, "<" and ">" are a comparison more often than a tag.
        text = _squeezed(written) + _squeezed(written, tags="")
        found += [f"{path.relative_to(pages)}: {secret}" for secret in secrets if secret in text]
    assert not found


def _secrets(chapters: list[Chapter]) -> set[str]:
    """The lines, without spaces, that stand in solutions, hidden tests and mark schemes alone.

    What a chapter shows of its own is no secret of another one.
    """
    sources = [notebooks.read_source(chapter.source) for chapter in chapters]
    shown = "\n".join(line for source in sources for line in _lines(notebooks.clear(source)))
    shown += shown.replace("`", "")  # a page shows names in code without the marks of the source
    return {
        line
        for source in sources
        for line in _lines(source)
        if len(line) >= 16 and line not in shown
    }


def _lines(book: nbformat.NotebookNode) -> Iterator[str]:
    return (_squeezed(line, tags="") for cell in book.cells for line in cell.source.splitlines())


def _squeezed(text: str, tags: str = r"<[^<>]+>") -> str:
    """Text without tags, entities, escapes and spaces, so that no markup hides a line."""
    text = html.unescape(re.sub(tags, "", text))
    return re.sub(r"\\[nt\"\\]|[\s\"'\\]+", "", text)


def test_squeezing_sees_through_markup_and_json() -> None:
    line = 'x = scores["a"] / 2'
    marked = "<span>x</span> <b>=</b> scores[&quot;a&quot;]&#32;/ <i>2</i>"
    assert _squeezed(line) in _squeezed(marked)
    assert _squeezed(line) in _squeezed(json.dumps({"source": [line + "\n"]}))


def test_pages_show_verdicts_and_no_error(pages: Path) -> None:
    for chapter in notebooks.chapters(tiny.ROOT):
        text = (pages / "chapters" / chapter.name / f"{chapter.name}.html").read_text()
        checks = [
            notebooks.exercise_of(cell)
            for cell in notebooks.read_source(chapter.source).cells
            if notebooks.is_check(cell)
        ]
        assert checks
        for exercise in checks:
            assert re.search(rf"{exercise}: (\d+) of \1 points", text), exercise
        assert "Traceback (most recent call last)" not in text
        assert "output stderr" not in text


def test_launch_buttons_lead_to_the_learners_notebooks(parsed: dict[Path, _Links]) -> None:
    for path, page in parsed.items():
        if "chapters" in path.parts:
            colab = [link for link in page.links if "colab.research" in link]
            assert colab
            name = colab[0].split("/blob/main/")[1]
            assert (tiny.ROOT / name).is_file()


def test_the_status_page_lists_every_notebook(pages: Path) -> None:
    text = (pages / "book/execution.html").read_text()
    for chapter in notebooks.chapters(tiny.ROOT):
        title = notebooks.title_of(notebooks.read_source(chapter.source))
        assert title in text
        assert f"{chapter.name}.html" in text


def test_no_page_names_this_machine(pages: Path) -> None:
    places = {f"{tiny.ROOT}/", f"{Path.home()}/"}
    for path in pages.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not [place for place in places if place in text], path
