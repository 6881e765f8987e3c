"""The book as a PDF: on a book of two chapters, what it holds, and where its links lead."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from book import browser as browsers
from book import pdf

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ABOUT = {
    "title": "A Small Book",
    "subtitle": "Of two chapters.",
    "author": "Some Body",
    "address": "https://book.invalid/small/",
}
PAGE = """<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">
<title>{title}</title></head><body>
<nav class="bd-links">
<ul><li><a class="reference internal" href="{up}book/index.html#">A Small Book</a></li></ul>
<p class="caption" role="heading">Chapters</p>
<ul><li><a class="reference internal" href="{up}chapters/01_one/01_one.html">1. One</a></li>
<li><a class="reference internal" href="{up}chapters/02_two/02_two.html">2. Two</a></li></ul>
</nav>
<article class="bd-article"><section id="{id}">
<h1>{title}<a class="headerlink" href="#{id}">#</a></h1>
{body}</section><script>throw Error("never runs")</script></article></body></html>
"""
ONE = """<p>It begins, and ends in <a href="../02_two/02_two.html#summary">the other summary</a>.
The <a href="01_one.ipynb">notebook</a> lies beside it.</p>
<section id="exercise"><h2>Exercise</h2>
<details><summary>Hint 1</summary><p>Nudge gently.</p></details>
<div class="cell"><details class="hide above-input"><summary>Show the code</summary>
<pre>plot_secretly()</pre></details>
<div class="cell_output"><tw-softmax><script type="application/json">{}</script>
<svg role="img" aria-label="A square" width="40" height="40"><rect width="40" height="40"/></svg>
</tw-softmax></div></div>
<div class="self-test"><p>Check yourself.</p>
<details class="wrong"><summary>Seven</summary><p>Too many.</p></details>
<details class="right"><summary>Six</summary><p>Exactly so.</p></details></div></section>
<section id="summary"><h2>Summary</h2><pre>WIDE</pre><table><tr><td>CELL</td></tr></table></section>
""".replace("WIDE", "x = " + "long_name_" * 30).replace("CELL", "wide" * 80)
TWO = """<p>Back to <a href="../01_one/01_one.html">One</a>, and
<a href="https://elsewhere.invalid/page">elsewhere</a>.</p>
<section id="summary"><h2>Summary</h2><p>It closes.</p></section>
"""


def small_book(folder: Path) -> Path:
    for name, title, body in (
        ("book/index.html", "A Small Book", "<p>Welcome.</p>"),
        ("chapters/01_one/01_one.html", "1. One", ONE),
        ("chapters/02_two/02_two.html", "2. Two", TWO),
    ):
        path = folder / name
        path.parent.mkdir(parents=True)
        page = PAGE.replace("{up}", "../" * name.count("/")).replace("{title}", title)
        path.write_text(page.replace("{id}", path.stem).replace("{body}", body))
    return folder


@pytest.fixture(scope="module")
def printed(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("book")
    count = pdf.write(browser, small_book(folder / "html"), folder / "book.pdf", ABOUT)
    written = (folder / "book.pdf").read_bytes()
    assert count == len(texts(written))
    return written


# --- reading a PDF of Chromium's ------------------------------------------------------------


def stream(text: bytes) -> bytes:
    begin = text.index(b"stream\n") + len(b"stream\n")
    return zlib.decompress(text[begin : begin + int(re.search(rb"/Length (\d+)", text)[1])])


def letters(objects: dict[int, bytes], font: bytes) -> tuple[int, dict[int, str]]:
    """How many bytes a glyph's number has, and which letters it stands for."""
    table = stream(objects[int(re.search(rb"/ToUnicode (\d+) 0 R", font)[1])])
    size = len(re.search(rb"begincodespacerange\s+<(\w+)>", table)[1]) // 2
    known = {}
    for lines in re.findall(rb"beginbfchar\n(.*?)endbfchar", table, re.S):
        for glyph, letter in re.findall(rb"<(\w+)> <(\w+)>", lines):
            known[int(glyph, 16)] = bytes.fromhex(letter.decode()).decode("utf-16-be")
    for lines in re.findall(rb"beginbfrange\n(.*?)endbfrange", table, re.S):
        for first, last, letter in re.findall(rb"<(\w+)> <(\w+)> <(\w+)>", lines):
            for place in range(int(first, 16), int(last, 16) + 1):
                known[place] = chr(int(letter, 16) + place - int(first, 16))
    return size, known


def texts(written: bytes) -> list[str]:
    """The text of each leaf, without spaces."""
    objects = pdf._objects(written)
    found = []
    for leaf in pdf._leaves(objects):
        page = objects[leaf]
        listed = re.search(rb"/Font <<(.*?)>>", page, re.S)
        fonts = {
            name: letters(objects, objects[int(number)])
            for name, number in re.findall(rb"/(F\d+) (\d+) 0 R", listed[1] if listed else b"")
        }
        content = stream(objects[int(re.search(rb"/Contents (\d+) 0 R", page)[1])])
        text, size, known = "", 0, {}
        for font, shown in re.findall(rb"/(F\d+) [\d.]+ Tf|<(\w+)> Tj", content):
            if font:
                size, known = fonts[font]
            else:
                glyphs = bytes.fromhex(shown.decode())
                for place in range(0, len(glyphs), size):
                    text += known.get(int.from_bytes(glyphs[place : place + size]), "")
        found.append("".join(text.split()))
    return found


# --- what it holds --------------------------------------------------------------------------


def test_it_has_a_title_page_the_contents_and_each_chapter_on_a_page_of_its_own(
    printed: bytes,
) -> None:
    leaves = texts(printed)
    assert "ASmallBook" in leaves[0]
    assert "https://book.invalid/small/" in leaves[0]
    assert "Contents" in leaves[1]
    starts = [
        next(place for place, text in enumerate(leaves) if words in text)
        for words in ("Welcome.", "Itbegins", "Backto")
    ]
    assert starts == sorted(set(starts))
    assert starts[0] == 2


def test_the_outline_names_the_chapters_and_their_sections(printed: bytes) -> None:
    titles = re.findall(rb"/Title \((.*?)\)", printed)
    for title in (b"Contents", b"1. One", b"Exercise", b"Hints and answers", b"2. Two"):
        assert title in titles
    assert titles.count(b"Summary") == 2
    assert re.search(rb"/MarkInfo\s*<<[^>]*/Marked true", printed), "a screen reader needs the tags"
    assert b"/Lang (en)" in printed


def test_the_contents_tell_the_pages(printed: bytes) -> None:
    leaves, places = texts(printed), pdf.leaves(printed)
    second = next(place for place, text in enumerate(leaves, start=1) if "Backto" in text)
    assert places["p2"] == second
    assert f"2.Two{second}Summary{second}" in leaves[1]
    assert leaves[second - 1].startswith(("2.Two", "Backto")) or "2.Two" in leaves[second - 1]
    assert str(second) in leaves[second - 1], "the page's own number"


def test_links_lead_to_the_right_one_of_two_sections_of_the_same_name(printed: bytes) -> None:
    places = pdf.leaves(printed)
    assert places["p1-summary"] < places["p2-summary"]
    assert b"/Dest /p2-summary" in printed
    assert b"/URI (https://elsewhere.invalid/page)" in printed
    assert b"127.0.0.1" not in printed
    assert b"/URI (https://book.invalid/small/chapters/01_one/01_one.ipynb)" in printed


def test_what_was_folded_stands_at_the_end_of_its_chapter(printed: bytes) -> None:
    leaves, places = texts(printed), pdf.leaves(printed)
    chapter = "".join(leaves[places["p1"] - 1 : places["p2"] - 1])
    text, answers = chapter.split("Hintsandanswers")
    assert f"Hint1page{places['p1-folded-0']}" in text
    assert "Seven" in text
    assert answers.count("Checkyourself.") == text.count("Checkyourself.") == 1
    for words in ("Nudgegently.", "Wrong:Seven", "Toomany.", "Right:Six", "Exactlyso."):
        assert words in answers
        assert words not in text


def test_code_that_was_folded_is_left_out_and_its_figure_stays(printed: bytes) -> None:
    assert "plot_secretly" not in "".join(texts(printed))
    assert b"/Alt (A square)" in printed


def test_nothing_is_wider_than_the_paper(browser: Browser, tmp_path: Path) -> None:
    with browsers.served(small_book(tmp_path)) as address:
        page = pdf.compose(browser, address, ABOUT)
        assert "long_name_" * 30 in page.text_content("pre")
        for wide in ("pre", "table", "html"):
            assert (
                page.evaluate(
                    "wide => document.querySelector(wide).getBoundingClientRect().right", wide
                )
                <= pdf.WIDTH + 1
            )
        assert page.evaluate("document.documentElement.scrollWidth") <= pdf.WIDTH + 1


def test_a_link_to_nowhere_is_refused(browser: Browser, tmp_path: Path) -> None:
    pages = small_book(tmp_path)
    page = pages / "chapters/02_two/02_two.html"
    page.write_text(page.read_text().replace('01_one.html">One', '01_one.html#gone">One'))
    with pytest.raises(pdf.PdfError, match="Links to nowhere: p1-gone"):
        pdf.write(browser, pages, tmp_path / "book.pdf", ABOUT)
    assert not (tmp_path / "book.pdf").exists()


def test_without_a_book_the_command_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pdf.main(["--output", str(tmp_path)]) == 1
    assert "Run `make book` first." in capsys.readouterr().err


def test_without_a_browser_the_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_book(tmp_path / "html")
    monkeypatch.setenv("CHROMIUM", "/no/such/browser")
    assert pdf.main(["--output", str(tmp_path)]) == 1
    assert "There is no Chromium." in capsys.readouterr().err


def test_the_title_page_says_what_the_configuration_says(root: Path) -> None:
    about = pdf.about_book(root)
    assert about["title"] == "The Transformer Workbook"
    assert about["address"].startswith("https://")
    assert pdf.SUBTITLE in (root / "book/_static/social-card.svg").read_text()
