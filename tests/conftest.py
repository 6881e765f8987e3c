"""What several test modules share."""

from __future__ import annotations

import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch

from autograder import exercise as exercises
from autograder.pack import Pack, References
from autograder.record import record, solution_namespace
from book import browser as browsers
from book import build as book

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[1]
SECRET = 271828

torch.set_num_threads(1)


@functools.cache
def solution(exercise_id: str) -> Any:
    """The solution of an exercise, from its chapter's source."""
    exercise = exercises.find(exercise_id)
    return _namespace(exercise.chapter)[exercise.name]


@functools.cache
def _namespace(chapter: str) -> dict[str, Any]:
    return solution_namespace(ROOT, chapter)


@functools.cache
def fresh_pack(chapter: str, seed: int = SECRET, hidden: bool = True) -> Pack:
    """A private pack, recorded for this run: other inputs than the public ones."""
    return record(ROOT, [chapter], seed, hidden)[chapter]


def references(exercise_id: str) -> References:
    """What the fresh private pack holds on an exercise."""
    return fresh_pack(exercises.find(exercise_id).chapter).references(exercise_id)


# Files whose tests build or open the same pages.
ON_THE_BOOK = ("test_book", "test_pages_in_browser", "test_pictures", "test_pdf")


def group_of(nodeid: str) -> str:
    """What keeps together the tests that need the same costly set-up.

    A file is one group; the exercises' tests, most of the suite, are one for each chapter, whose
    reference pack is recorded once.
    """
    path, name = nodeid.split("::", 1)
    group = Path(path).stem
    if group in ON_THE_BOOK:
        return "book"
    prefix = re.search(r"\[(\w+)/", name)
    return f"{group}/{prefix[1]}" if prefix else group


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where several processes share the suite, a group is done by one of them."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Groups(config, log)


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def pages() -> Path:
    """The public book's pages: those that `make` built where they are current, else fresh ones."""
    output = ROOT / "_build"
    for budget in book.BUDGETS:
        if book.is_current(ROOT, "public", budget, output):
            return book.pages_of("public", output)
    return book.build(ROOT, "public", "smoke", output / "test-book", lambda line: None)


@pytest.fixture
def benchmark_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Loads a script of benchmarks/ as a module, to be run with the smallest budget."""
    monkeypatch.setenv("WORKBOOK_BUDGET", "smoke")
    for variable in ("WORKBOOK_STATIC", "WORKBOOK_GRADING"):
        monkeypatch.delenv(variable, raising=False)

    def load(name: str) -> ModuleType:
        path = ROOT / "benchmarks" / f"{name}.py"
        monkeypatch.syspath_prepend(path.parent)
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; where there is none, the tests that need it are skipped."""
    try:
        with browsers.opened() as chromium:
            yield chromium
    except browsers.NoBrowser as reason:
        pytest.skip(str(reason))


@pytest.fixture
def open_element(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an explorer, as its output in Jupyter is, on a page of its own.

    ``open_element(element, theme="dark", width=390)`` returns the page; an error in its script
    fails the test.
    """
    pages, errors = [], []

    def open_one(element: Any, theme: str = "light", width: int = 1000) -> Page:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.set_content(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{element.name}</title>'
            "<style>:root{color-scheme:light dark}</style>"
            f"<main><h1>{element.name}</h1><h2>Section</h2>{element._repr_html_()}</main></html>"
        )
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.close()
    assert not errors


def told(page: Page, *parts: str) -> str:
    """What the explorers on the page tell, a line each, once they are at rest: all these parts."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('main *')].every(one => !one.pending)"
    )
    words = "\n".join(page.locator(".told").all_inner_texts())
    assert [part for part in parts if part not in words] == []
    return words


def tabbed(page: Page, times: int, script: str) -> list[Any]:
    """Presses Tab so many times; gives what the script says after each."""
    found = []
    for _ in range(times):
        page.keyboard.press("Tab")
        found.append(page.evaluate(script))
    return found


def violations(page: Page) -> list[dict[str, Any]]:
    """Everything that axe-core finds on the page."""
    from axe_playwright_python.sync_playwright import Axe

    return Axe().run(page).response["violations"]


def barriers(page: Page) -> list[str]:
    """What axe-core finds on the page that would keep somebody out."""
    return [one["id"] for one in violations(page) if one["impact"] in ("serious", "critical")]


@pytest.fixture
def shown_by(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Calls a function of ``workbook.widgets`` and gives the explorer that it shows in Jupyter."""
    import matplotlib.pyplot as plt

    from workbook import elements

    def show(function: Callable[..., None], *arguments: Any, **options: Any) -> Any:
        shown = []
        monkeypatch.setattr(elements, "display", shown.append)
        for variable in ("WORKBOOK_STATIC", "WORKBOOK_GRADING"):
            monkeypatch.delenv(variable, raising=False)
        function(*arguments, **options)
        return shown[0]

    yield show
    plt.close("all")
