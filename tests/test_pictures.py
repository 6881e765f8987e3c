"""Pictures of the book: taken whole, in both themes, and the committed ones as promised."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from book import pictures

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOME = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Home</title>
<style>:root{color-scheme:light dark} body{margin:0}</style>
<nav class="bd-links"><a href="#">Home</a><a href="../chapters/long.html">Long</a>
<a href="https://elsewhere.invalid/">Elsewhere</a></nav></html>
"""
# 4100 pixels high: red where it begins, blue where it ends.
LONG = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Long</title>
<style>:root{color-scheme:light dark} body{margin:0}
div{height:2050px;background:rgb(200,0,0)} div+div{background:rgb(0,0,200)}
@media (prefers-color-scheme: dark){div{background:rgb(90,0,0)}}</style>
<button id="pst-back-to-top" style="position:fixed;inset:0">Back to top</button>
<div></div><div></div></html>
"""


def site(folder: Path, long: str = LONG) -> Path:
    for name, text in (
        ("book/index.html", HOME),
        ("chapters/long.html", long),
        ("search.html", HOME.replace("Home", "Search")),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def silent(line: str) -> None:
    """Takes a line of progress and shows nothing."""


def test_the_sidebar_and_the_search_are_all_pages(tmp_path: Path) -> None:
    assert pictures.addresses(site(tmp_path)) == [
        "book/index.html",
        "chapters/long.html",
        "search.html",
    ]


def test_every_page_is_taken_whole_in_both_themes_and_widths(
    browser: Browser, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "long-light-390-07.png").write_bytes(b"of a longer page")
    written = pictures.take_pages(browser, site(tmp_path), folder, say=silent)
    assert sorted(written) == sorted(folder.glob("*.png")), "what was taken before is gone"
    expected = {
        f"{page}-{theme}-{width}"
        for page in ("index", "search")
        for theme in pictures.THEMES
        for width in pictures.WIDTHS
    }
    assert {path.stem for path in written if "long" not in path.stem} == expected
    for theme in pictures.THEMES:
        for width in pictures.WIDTHS:
            first, last = (
                Image.open(folder / f"long-{theme}-{width}-0{part}.png").convert("RGB")
                for part in (1, 2)
            )
            assert first.size == (width, pictures.SLICE)
            assert last.size == (width, 4100 - pictures.SLICE)
            color = (200, 0, 0) if theme == "light" else (90, 0, 0)
            assert first.getpixel((width // 2, 2000)) == color
            assert last.getpixel((width // 2, 99)) == first.getpixel((width // 2, 3999))


def test_the_same_page_gives_the_same_picture(browser: Browser, tmp_path: Path) -> None:
    pages, taken = site(tmp_path), []
    for name in ("first", "again"):
        folder = tmp_path / name
        pictures.take_pages(browser, pages, folder, "long", ("dark",), (390,), silent)
        taken.append((folder / "long-dark-390-01.png").read_bytes())
    assert taken[0] == taken[1]


def test_a_page_whose_script_fails_is_named(browser: Browser, tmp_path: Path) -> None:
    broken = site(tmp_path, LONG + "<script>throw Error('no such head')</script>")
    with pytest.raises(pictures.PictureError, match=r"long\.html: no such head"):
        pictures.take_pages(browser, broken, tmp_path / "to", "long", say=silent)


def test_a_page_that_is_not_there_is_named(browser: Browser, tmp_path: Path) -> None:
    with pytest.raises(pictures.PictureError, match="No page's address holds 'absent'"):
        pictures.take_pages(browser, site(tmp_path), tmp_path / "to", "absent", say=silent)


def test_without_a_book_or_a_browser_the_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--pages", str(tmp_path), "--to", str(tmp_path / "to"), "--only", "long"]
    assert pictures.main(arguments) == 1
    assert "Run `make book` first." in capsys.readouterr().err
    site(tmp_path)
    monkeypatch.setenv("CHROMIUM", "/no/such/browser")
    assert pictures.main(arguments) == 1
    assert "There is no Chromium." in capsys.readouterr().err


def test_fewer_colors_keep_the_size(tmp_path: Path) -> None:
    picture = Image.linear_gradient("L").convert("RGB")
    out = io.BytesIO()
    picture.save(out, "PNG")
    made = Image.open(io.BytesIO(pictures.small(out.getvalue())))
    assert (made.size, made.mode) == (picture.size, "P")


# --- what is committed ----------------------------------------------------------------------


def test_the_readme_shows_a_light_and_a_dark_picture(root: Path) -> None:
    text = (root / "README.md").read_text()
    shown = re.search(r"<picture>.*?</picture>", text, re.S)[0]
    dark = re.search(r'<source media="\(prefers-color-scheme: dark\)" srcset="([^"]+)"', shown)[1]
    light, alt = re.search(r'<img src="([^"]+)" alt="([^"]+)"', shown).groups()
    assert len(alt) > 60, "what there is to see"
    assert (light, dark) == (".github/book-light.png", ".github/book-dark.png")
    bright = []
    for name in (light, dark):
        assert (root / name).stat().st_size <= pictures.SHOWN_BYTES
        picture = Image.open(root / name).convert("L")
        assert picture.size == tuple(pictures.SHOWN_SCALE * side for side in pictures.SHOWN_SIZE)
        bright.append(picture.resize((1, 1)).getpixel((0, 0)))
    assert bright[0] > 200
    assert bright[1] < 60


def test_the_social_card_has_the_size_that_networks_want(root: Path) -> None:
    static = root / "book" / "_static"
    assert Image.open(static / "social-card.png").size == pictures.CARD
    assert (static / "social-card.png").stat().st_size < 100_000
    drawn = (static / "social-card.svg").read_text()
    assert 'viewBox="0 0 1200 630"' in drawn
    assert "The Transformer Workbook" in drawn
    assert "prefers-color-scheme: dark" in drawn


def test_the_marks_of_both_themes_have_the_same_shape(root: Path) -> None:
    light, dark = (
        (root / "book" / "_static" / name).read_text() for name in ("logo.svg", "logo-dark.svg")
    )
    color = r"#[0-9a-f]{6}"
    assert light != dark
    assert re.sub(color, "", light) == re.sub(color, "", dark)


@pytest.mark.parametrize("target", ["screenshots", "pdf", "linkcheck"])
def test_make_plans_the_command(root: Path, target: str) -> None:
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    # A suite that `make test` started must not hand its make's flags to this one.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    ran = subprocess.run(
        ["make", "-n", target], cwd=root, capture_output=True, text=True, env=clean
    )
    assert ran.returncode == 0, ran.stderr
    *_, last = (line for line in ran.stdout.splitlines() if line.strip())
    command = {
        "screenshots": "book/pictures.py",
        "pdf": "book/pdf.py --edition public",
        "linkcheck": "book/build.py --edition public --check-links",
    }
    assert last.endswith(command[target])
