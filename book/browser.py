"""A headless Chromium: for pictures of the pages, for the PDF, and for the tests of both.

Chromium comes from the system (on Debian and Ubuntu: apt install chromium), Playwright steers it.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# No sandbox of its own, which containers refuse; and no errand to any host that nobody asked for.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class NoBrowser(Exception):
    """There is no Chromium on this machine; the text says how to get one."""


def find() -> str:
    """Return the path of Chromium: CHROMIUM where that is set, else the first of the usual names.

    Raises:
        NoBrowser: there is none.
    """
    named = os.environ.get("CHROMIUM")
    for name in (named,) if named else NAMES:
        if path := shutil.which(name):
            return path
    raise NoBrowser(
        "There is no Chromium. On Debian and Ubuntu: apt install chromium. Elsewhere, install "
        "Chrome or Chromium and name it: CHROMIUM=/path/to/chrome"
    )


@contextlib.contextmanager
def opened() -> Iterator[Browser]:
    """A browser with a fresh profile, closed at the end.

    Raises:
        NoBrowser: there is none.
    """
    from playwright.sync_api import sync_playwright

    path = find()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A browser that turns away in the middle of an answer is no error."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free local port; gives the address, without a slash at its end."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


# What is packed already goes over the line as it is; a static host compresses the rest.
PACKED = {".woff2", ".png", ".jpg", ".jpeg", ".webp", ".gif"}


@functools.cache
def weight(file: Path) -> int:
    """Bytes that a static host sends for a file; none for one that is not there."""
    if not file.is_file():
        return 0
    content = file.read_bytes()
    return len(content) if file.suffix in PACKED else len(gzip.compress(content))
