"""The whole book as one PDF: a title page, a table of contents, and every page of the built book.

    python book/pdf.py [--edition public|instructor]

It is made from the pages themselves, put one behind another by Chromium: they hold what a reader
of the site sees, with captions, numbers and links, where Sphinx's single page has neither the
glossary's links nor names that are unique. Paper does not unfold. So hints and answers stand at
the end of their chapter, where they spoil nothing; code that is folded away, which only draws, is
left to the notebooks; an explorer shows its figure.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import yaml

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # where this file is run as a script
    sys.path.insert(0, str(ROOT))

from book.browser import NoBrowser, opened, served  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAPER = Path(__file__).resolve().parent / "paper"
SUBTITLE = "Build every part of the Transformer family yourself, with a check beside each part."
# A4 less its margins, at 96 dots an inch: the width that formulas and tables have to fit.
WIDTH = round((210 - 2 * 20) / 25.4 * 96)


class PdfError(Exception):
    """There can be no PDF; the text says why, and what to do."""


def write(browser: Browser, pages: Path, target: Path, about: dict[str, str]) -> int:
    """Write the built book at ``pages`` to ``target``; return the number of its leaves.

    ``about``: ``title``, ``subtitle``, ``author`` and ``address`` of the book.

    Raises:
        PdfError: a link leads nowhere.
    """
    with served(pages) as address:
        page = compose(browser, address, about)
        # Only the printed book tells on which leaf a chapter begins; the numbers have their room
        # already, so filling them in moves nothing.
        numbers = leaves(_printed(page, draft=True))
        page.evaluate(
            "numbers => document.querySelectorAll('.page-of').forEach("
            "(place) => { place.textContent = numbers[place.dataset.to] ?? ''; })",
            numbers,
        )
        pdf = _printed(page)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(pdf)
    return len(_leaves(_objects(pdf)))


def compose(browser: Browser, address: str, about: dict[str, str]) -> Page:
    """The whole book in one page, as paper wants it; ``address`` is where the built book is.

    Raises:
        PdfError: a link leads nowhere.
    """
    page = browser.new_page(
        viewport={"width": WIDTH, "height": 1000}, color_scheme="light", reduced_motion="reduce"
    )
    page.emulate_media(media="print")
    page.goto(f"{address}/book/index.html")
    page.add_style_tag(content=(PAPER / "paper.css").read_text(encoding="utf-8"))
    lost = page.evaluate((PAPER / "compose.js").read_text(encoding="utf-8"), about)
    if lost:
        raise PdfError(f"Links to nowhere: {', '.join(lost)}")
    return page


def _printed(page: Page, draft: bool = False) -> bytes:
    # Tags (what is a heading, a table, a formula's text) take most of the time.
    return page.pdf(
        tagged=not draft, outline=not draft, prefer_css_page_size=True, print_background=True
    )


# --- where things are in a PDF --------------------------------------------------------------


def leaves(pdf: bytes) -> dict[str, int]:
    """The number of the leaf, from 1, that each name in a PDF of Chromium's leads to."""
    objects = _objects(pdf)
    number = {leaf: place for place, leaf in enumerate(_leaves(objects), start=1)}
    named = re.search(rb"/Dests (\d+) 0 R", _catalog(objects))
    found = re.findall(rb"/(\S+) \[(\d+) 0 R /XYZ", objects[int(named[1])]) if named else []
    return {
        unquote_to_bytes(name.replace(b"#", b"%")).decode(): number[int(leaf)]
        for name, leaf in found
    }


def _objects(pdf: bytes) -> dict[int, bytes]:
    """The objects of a PDF with a plain table of them, as Chromium writes it."""
    start = int(re.findall(rb"startxref\s+(\d+)", pdf)[-1])
    places = re.findall(rb"(\d{10}) \d{5} ([nf])", pdf[start:])
    return {
        number: pdf[int(place) : pdf.index(b"endobj", int(place))]
        for number, (place, kind) in enumerate(places)
        if kind == b"n"
    }


def _catalog(objects: dict[int, bytes]) -> bytes:
    return next(text for text in objects.values() if b"/Type /Catalog" in text)


def _leaves(objects: dict[int, bytes]) -> list[int]:
    def below(number: int) -> list[int]:
        kids = re.search(rb"/Kids \[([^\]]*)\]", objects[number])
        if not kids:
            return [number]
        return [leaf for kid in re.findall(rb"(\d+) 0 R", kids[1]) for leaf in below(int(kid))]

    return below(int(re.search(rb"/Pages (\d+) 0 R", _catalog(objects))[1]))


# --- the command ----------------------------------------------------------------------------


def about_book(root: Path) -> dict[str, str]:
    """What the title page says."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    return {
        "title": config["title"],
        "subtitle": SUBTITLE,
        "author": config["author"],
        "address": config["html"]["baseurl"],
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="book/pdf.py", description="Prints the built book.")
    parser.add_argument("--edition", default=os.environ.get("EDITION") or "public")
    parser.add_argument("--output", type=Path, default=ROOT / "_build")
    chosen = parser.parse_args(arguments)
    other = "" if chosen.edition == "public" else f"-{chosen.edition}"
    target = chosen.output / f"transformer-workbook{other}.pdf"
    pages = chosen.output / f"html{other}"
    try:
        if not (pages / "book" / "index.html").is_file():
            raise PdfError(f"There is no book in {pages}. Run `make book` first.")
        with opened() as browser:
            count = write(browser, pages, target, about_book(ROOT))
    except (NoBrowser, PdfError) as error:
        print(f"pdf: {error}", file=sys.stderr)
        return 1
    print(f"{target}  ({count} pages, {target.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
