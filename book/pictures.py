"""Pictures of the built book, in light and dark.

    python book/pictures.py [--only WORDS] [--width PIXELS] [--theme light|dark]

takes every page at its full height, on a phone and on a desk, into ``_build/pictures``: to be
looked at before the book goes out. Without a choice it also takes the README's two pictures, and
makes the social card's PNG from its SVG.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # where this file is run as a script
    sys.path.insert(0, str(ROOT))

from book.browser import NoBrowser, opened, served  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

THEMES = ("light", "dark")
WIDTHS = (390, 1440)
# A long page comes in slices that one can look at.
SLICE = 4000
# What the README shows: the first verdict of the first chapter, and the explorer behind it.
SHOWN = "chapters/01_attention/01_attention.html"
SHOWN_FROM = ".cell:has(.verdict)"
# Narrow enough to be read where a README is, twice as fine for screens that show it.
SHOWN_SIZE = (1100, 1080)
SHOWN_SCALE = 2
SHOWN_BYTES = 200_000
CARD = (1200, 630)


class PictureError(Exception):
    """There can be no picture; the text says why, and what to do."""


def addresses(pages: Path) -> list[str]:
    """The pages that the book's sidebar lists, in its order, and the search.

    Raises:
        PictureError: there is no book.
    """
    home = "book/index.html"
    if not (pages / home).is_file():
        raise PictureError(f"There is no book in {pages}. Run `make book` first.")
    text = (pages / home).read_text(encoding="utf-8")
    sidebar = text[text.index('class="bd-links') :]
    sidebar = sidebar[: sidebar.index("</nav>")]
    found = [home]
    for link in re.findall(r'href="([^"#]+)', sidebar):
        if not urlsplit(link).scheme:
            found.append(urljoin(home, link))
    return [*dict.fromkeys(found), "search.html"]


def open_page(
    browser: Browser, address: str, theme: str, size: tuple[int, int], scale: int = 1
) -> Page:
    """A page as a reader sees it who has come to its end: fonts there, explorers running."""
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=theme,
        reduced_motion="reduce",
        device_scale_factor=scale,
    )
    errors: list[str] = []
    # A button that comes with scrolling up is no part of the page.
    page.add_init_script(
        "addEventListener('DOMContentLoaded', () =>"
        " document.getElementById('pst-back-to-top')?.remove())"
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    # Explorers are loaded when the reader comes near them.
    page.evaluate(
        """async () => {
          const step = innerHeight;
          for (let y = 0; y < document.documentElement.scrollHeight; y += step) {
            scrollTo(0, y);
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          }
          const names = [...document.querySelectorAll("*")].map((element) => element.localName);
          const explorers = new Set(names.filter((name) => name.startsWith("tw-")));
          await Promise.all([...explorers].map((name) => customElements.whenDefined(name)));
          await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
          await document.fonts.ready;
          scrollTo(0, 0);
        }"""
    )
    if errors:
        raise PictureError(f"{address}: {'; '.join(errors)}")
    return page


def slices(page: Page) -> Iterator[bytes]:
    """The whole page from its top to its end, in PNGs of at most ``SLICE`` pixels."""
    width = page.viewport_size["width"]
    # One window after another, not the full page at once, for which Chromium lays all of it out
    # anew each time: six times slower, and blank beyond 16,384 pixels on some machines.
    page.set_viewport_size({"width": width, "height": SLICE})
    height = page.evaluate("document.documentElement.scrollHeight")
    for top in range(0, height, SLICE):
        page.evaluate("top => scrollTo(0, top)", top)
        shown = page.evaluate("scrollY")
        yield page.screenshot(
            clip={"x": 0, "y": top - shown, "width": width, "height": min(SLICE, height - top)},
            animations="disabled",
        )


def take_pages(
    browser: Browser,
    pages: Path,
    target: Path,
    only: str = "",
    themes: tuple[str, ...] = THEMES,
    widths: tuple[int, ...] = WIDTHS,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Every page of the book at ``pages`` whose address holds ``only``, into ``target``.

    ``<page>-<theme>-<width>.png``; slices of a long page have a number behind it.

    Raises:
        PictureError: the book is not built, no page is meant, or a page's script fails.
    """
    wanted = [name for name in addresses(pages) if only in name]
    if not wanted:
        raise PictureError(f"No page's address holds {only!r}.")
    target.mkdir(parents=True, exist_ok=True)
    written = []
    with served(pages) as address:
        for name in wanted:
            stem = Path(name).stem
            for theme in themes:
                for width in widths:
                    title = f"{stem}-{theme}-{width}"
                    for old in target.glob(f"{title}*.png"):
                        old.unlink()
                    page = open_page(browser, f"{address}/{name}", theme, (width, 900))
                    parts = list(slices(page))
                    page.close()
                    for number, part in enumerate(parts, start=1):
                        behind = f"-{number:02}" if len(parts) > 1 else ""
                        written.append(target / f"{title}{behind}.png")
                        written[-1].write_bytes(part)
            say(f"{stem:<28} {len(themes) * len(widths)} pictures")
    return written


def take_shown(browser: Browser, pages: Path, target: Path) -> list[Path]:
    """The README's pictures, ``book-light.png`` and ``book-dark.png``, below ``SHOWN_BYTES``.

    Raises:
        PictureError: a picture is too large, or the page's script fails.
    """
    target.mkdir(parents=True, exist_ok=True)
    written = []
    with served(pages) as address:
        for theme in THEMES:
            page = open_page(browser, f"{address}/{SHOWN}", theme, SHOWN_SIZE, SHOWN_SCALE)
            page.evaluate(
                "selector => scrollTo(0, document.querySelector(selector)"
                ".getBoundingClientRect().top + scrollY - 72)",
                SHOWN_FROM,
            )
            png = small(page.screenshot(animations="disabled"))
            page.close()
            if len(png) > SHOWN_BYTES:
                raise PictureError(f"{len(png)} bytes are too many for the README ({theme}).")
            written.append(target / f"book-{theme}.png")
            written[-1].write_bytes(png)
    return written


def small(png: bytes) -> bytes:
    """The picture with 256 colors, which is what a page of text and plain figures has."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture = picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


def draw_card(browser: Browser, svg: Path, fonts: Path, target: Path) -> None:
    """The social card as a PNG: networks that show cards take no SVG.

    ``fonts``: the book's folder of fonts, with its ``fonts.css``.

    Raises:
        PictureError: the fonts are not there.
    """
    if not (fonts / "fonts.css").is_file():
        raise PictureError(f"There are no fonts in {fonts}. Run `make book` first.")
    with served(fonts) as address:
        page = browser.new_page(viewport={"width": CARD[0], "height": CARD[1]})
        # On a page of that server, so that it may load the fonts.
        page.goto(f"{address}/fonts.css")
        page.set_content(
            '<!doctype html><html lang="en"><title>card</title>'
            '<link rel="stylesheet" href="/fonts.css">'
            "<style>body{margin:0} svg{display:block}</style>"
            f"{svg.read_text(encoding='utf-8')}"
        )
        page.evaluate("document.fonts.ready")
        target.write_bytes(small(page.screenshot(animations="disabled")))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="book/pictures.py", description=__doc__.split("\n")[0])
    parser.add_argument("--pages", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--to", type=Path, default=ROOT / "_build" / "pictures")
    parser.add_argument("--only", default="", help="pages whose address holds this")
    parser.add_argument("--theme", choices=THEMES, action="append")
    parser.add_argument("--width", type=int, action="append")
    chosen = parser.parse_args(arguments)
    static = ROOT / "book" / "_static"
    try:
        addresses(chosen.pages)
        with opened() as browser:
            if not (chosen.only or chosen.theme or chosen.width):
                fonts = chosen.pages / "_static" / "vendor" / "fonts"
                draw_card(browser, static / "social-card.svg", fonts, static / "social-card.png")
                take_shown(browser, chosen.pages, ROOT / ".github")
            written = take_pages(
                browser,
                chosen.pages,
                chosen.to,
                chosen.only,
                tuple(chosen.theme or THEMES),
                tuple(chosen.width or WIDTHS),
                lambda line: print(line, flush=True),
            )
    except (NoBrowser, PictureError) as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 1
    print(f"{chosen.to}  ({len(written)} files)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
