"""Every page of the book in a real browser: what it loads, what it says, whom it leaves out.

Each page is visited on a desk, on a phone, and with scripts off. The visits gather facts; the tests
read them, and name the page and the element. That the gathering finds what is wrong is shown on bad
pages at the end.
"""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import TimeoutError as Late

from book.browser import served, weight

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# The first test waits for all visits.
pytestmark = pytest.mark.timeout(3600)

SCRIPT = (Path(__file__).parent / "pages_in_browser.js").read_text(encoding="utf-8")
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
HEAVIEST, HEAVIEST_WITH_EXPLORERS = 1_000_000, 2_000_000
# The build does what these would do in the reader's browser.
NEVER = ("mathjax", "thebe", "fontawesome", "fa-solid", "fa-regular", "fa-brands", "require.")
SEARCH = ("searchindex.js", "searchtools.js", "language_data.js")
COLORS = ["color-contrast", "link-in-text-block"]
# Explorers load when the reader comes near them.
SECONDS_TO_LOAD = 30


@dataclass
class Seen:
    """What the visits of one page found: what it requested, facts, and lists of what is wrong."""

    requests: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)
    facts: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    too_wide: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    without_scripts: list[str] = field(default_factory=list)


# --- the visits -----------------------------------------------------------------------------


def look_at(browser: Browser, url: str, name: str) -> Seen:
    """Visits a page and gathers what the tests below read.

    An opened page shows all that the folded one does, so axe-core looks at that, in both themes and
    widths, and at the folded one for its colors.
    """
    seen = Seen()
    with visit(browser, url, seen, WIDE) as page:
        page.goto(f"{url}/{name}")
        seen.unreachable += skip_link(page)
        read_through(page)
        readable = ask(page, "words")
        seen.unreachable += self_test(page)
        seen.unreachable += [f"focus unseen: {text}" for text in ask(page, "focusUnseen")]
        ask(page, "openAll")
        seen.facts = ask(page, "facts")
        seen.unused = ask(page, "unused")
        requested = set(seen.requests)
        ask(page, "foldAgain")
        page.set_viewport_size(NARROW)
        seen.too_wide += ask(page, "tooWide")
        ask(page, "openAll")
        seen.too_wide += [f"opened: {text}" for text in ask(page, "tooWide")]
        ask(page, "shorten")
        seen.violations += barriers(page, "narrow")
        seen.violations += contrasts(page, "narrow", "light") + contrasts(page, "narrow", "dark")
        page.set_viewport_size(WIDE)
        seen.violations += barriers(page, "wide")
        seen.violations += contrasts(page, "wide", "dark")
        ask(page, "foldAgain")
        seen.violations += contrasts(page, "folded", "dark")
        ask(page, "openAll")
        seen.violations += contrasts(page, "wide", "light")
    with visit(browser, url, seen, WIDE, java_script_enabled=False) as page:
        page.goto(f"{url}/{name}")
        seen.without_scripts = ask(page, "withoutScripts")
        found = ask(page, "words")
        if found < 0.98 * readable:
            seen.without_scripts.append(f"{found} words, {readable} with scripts")
    seen.requests = requested
    return seen


@contextlib.contextmanager
def visit(
    browser: Browser, url: str, seen: Seen, size: dict[str, int], **more: Any
) -> Iterator[Page]:
    """A page of a reader who was never here, with all that it requests and says in ``seen``."""
    context = browser.new_context(
        viewport=size, color_scheme="light", reduced_motion="reduce", **more
    )
    # No answer from elsewhere is waited for.
    context.route(lambda at: not at.startswith(f"{url}/"), lambda route: route.abort())
    context.set_default_timeout(120_000)
    page = context.new_page()

    def requested(at: str) -> None:
        if at.startswith(f"{url}/"):
            seen.requests.add(at.removeprefix(f"{url}/"))
        elif not at.startswith(("data:", "blob:", "about:")):
            seen.foreign.add(at)

    def answered(response: Any) -> None:
        if response.status >= 400:
            seen.said.append(f"{response.status} for {response.url}")

    page.on("request", lambda request: requested(request.url))
    page.on("websocket", lambda socket: requested(socket.url))
    page.on("response", answered)
    page.on("requestfailed", lambda request: seen.said.append(f"no answer: {request.url}"))
    page.on("pageerror", lambda error: seen.said.append(f"error: {error}"))
    page.on(
        "console",
        lambda message: (
            seen.said.append(f"{message.type}: {message.text}")
            if message.type in ("error", "warning")
            else None
        ),
    )
    try:
        yield page
    finally:
        context.close()


def ask(page: Page, question: str) -> Any:
    """What a function of pages_in_browser.js returns."""
    return page.evaluate(f"() => {{ {SCRIPT}; return {question}(); }}")


def read_through(page: Page) -> None:
    """Passes everything once, and waits for the explorers on the way."""
    ask(page, "readThrough")
    with contextlib.suppress(Late):  # the facts tell which do not run
        page.wait_for_function(
            f"() => {{ {SCRIPT}; return allRun(); }}", timeout=1000 * SECONDS_TO_LOAD
        )


def skip_link(page: Page) -> list[str]:
    """The first Tab shows a link to the text; Enter and Tab then lead into it."""
    page.keyboard.press("Tab")
    first = page.evaluate("""() => {
        const { top, left, bottom, width } = document.activeElement.getBoundingClientRect();
        const shown = top >= 0 && left >= 0 && bottom <= innerHeight && width > 1;
        return [document.activeElement.getAttribute("href"), shown];
    }""")
    if not (first[0] or "").startswith("#"):
        return ["the first Tab leads to no skip link"]
    wrong = [] if first[1] else ["the skip link is not seen when it has the focus"]
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    if not page.evaluate("Boolean(document.activeElement.closest('main, [role=main]'))"):
        wrong.append("the skip link does not lead into the text")
    return wrong


def self_test(page: Page) -> list[str]:
    """The first self-test by keyboard: Enter opens an answer and closes it, Tab goes on."""
    answers = page.locator(".self-test").first.locator("summary")
    if not page.locator(".self-test").count():
        return []
    wrong = []
    answers.first.focus()
    for number in range(answers.count()):
        answer = answers.nth(number)
        if not answer.evaluate("e => e === document.activeElement"):
            wrong.append(f"Tab does not reach answer {number + 1} of the first self-test")
            answer.focus()
        for is_open in (True, False):
            page.keyboard.press("Enter")
            if answer.evaluate("e => e.parentElement.open") != is_open:
                wrong.append(f"Enter does nothing on answer {number + 1} of the first self-test")
        page.keyboard.press("Tab")
    return wrong


def barriers(page: Page, where: str) -> list[str]:
    """What axe-core calls serious or critical, but for colors."""
    return _axe(page, where, {"rules": {rule: {"enabled": False} for rule in COLORS}})


def contrasts(page: Page, where: str, theme: str) -> list[str]:
    """The same for colors, on one text of each kind."""
    page.emulate_media(color_scheme=theme)
    wrong = []
    if ask(page, "theme"):
        with contextlib.suppress(Late):
            page.wait_for_function(f"document.documentElement.dataset.theme === '{theme}'")
        shown = ask(page, "theme")
        wrong += [f"{where}: {shown} where the system is {theme}"] if shown != theme else []
    ask(page, "sample")
    only = {"runOnly": {"type": "rule", "values": COLORS}}
    return wrong + _axe(page, f"{where}, {theme}", only, "[data-sample]")


def _axe(page: Page, where: str, options: dict[str, Any], context: str | None = None) -> list[str]:
    # It need not load the style sheets once more.
    options = {"resultTypes": ["violations"], "preload": False, **options}
    return [
        f"{where}: {found['id']} ({found['impact']}): {' '.join(node['html'].split())[:160]}"
        for found in Axe().run(page, context, options).response["violations"]
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"][:5]
    ]


# --- the book -------------------------------------------------------------------------------


def is_redirect(path: Path) -> bool:
    """Whether a page only leads to another one."""
    return 'http-equiv="refresh"' in path.read_text(encoding="utf-8")[:200].lower()


@pytest.fixture(scope="module")
def address(pages: Path) -> Iterator[str]:
    """Where the book is served."""
    with served(pages) as url:
        yield url


@pytest.fixture(scope="module")
def book(browser: Browser, pages: Path, address: str) -> dict[str, Seen]:
    """What was seen on each page."""
    found = [path for path in sorted(pages.rglob("*.html")) if "_static" not in path.parts]
    names = [path.relative_to(pages).as_posix() for path in found if not is_redirect(path)]
    return {name: look_at(browser, address, name) for name in names}


def wrong_in(book: dict[str, Seen], what: Callable[[Seen], Any]) -> list[str]:
    """One line for each thing that is wrong on a page."""
    return [f"{name}: {line}" for name, seen in book.items() for line in what(seen)]


def weight_of(pages: Path, requests: set[str]) -> int:
    """Bytes that a static host sends for these requests to a reader who was never here."""
    return sum(weight(pages / name) for name in {unquote(urlsplit(at).path) for at in requests})


def test_every_page_was_visited(book: dict[str, Seen]) -> None:
    assert {"book/index.html", "book/glossary.html", "search.html"} < book.keys()
    assert len([name for name in book if name.startswith("chapters/")]) >= 8


def test_no_page_asks_another_host(book: dict[str, Seen]) -> None:
    assert not wrong_in(book, lambda seen: {*seen.foreign, *seen.facts["hosts"]})


def test_no_page_fails_or_warns(book: dict[str, Seen]) -> None:
    assert not wrong_in(book, lambda seen: seen.said)


def test_pages_are_light(book: dict[str, Seen], pages: Path) -> None:
    heavy = {}
    for name, seen in book.items():
        limit = HEAVIEST_WITH_EXPLORERS if seen.facts["explorers"] else HEAVIEST
        if (size := weight_of(pages, seen.requests)) > limit:
            heavy[name] = f"{size:,} bytes"
    assert not heavy


def test_a_page_loads_nothing_that_it_does_not_use(book: dict[str, Seen]) -> None:
    assert not wrong_in(book, lambda seen: seen.unused)


def test_an_explorer_is_loaded_where_it_is_and_nowhere_else(book: dict[str, Seen]) -> None:
    wrong = []
    for name, seen in book.items():
        wanted = {f"{e['name'].removeprefix('tw-')}.js" for e in seen.facts["explorers"]}
        wanted |= {"base.js"} if wanted else set()
        loaded = {_file(at) for at in seen.requests if "/elements/" in at}
        wrong += [f"{name}: {file}" for file in wanted ^ loaded]
    assert not wrong


def test_the_search_index_is_loaded_where_one_searches(book: dict[str, Seen]) -> None:
    for name, seen in book.items():
        loaded = {_file(at) for at in seen.requests} & set(SEARCH)
        assert loaded == (set(SEARCH) if name == "search.html" else set()), name


def test_no_page_loads_what_the_build_has_done(book: dict[str, Seen]) -> None:
    loaded = wrong_in(book, lambda seen: seen.requests)
    assert not [line for line in loaded if any(name in line.lower() for name in NEVER)]


def _file(at: str) -> str:
    return urlsplit(at).path.split("/")[-1]


def test_no_serious_barrier(book: dict[str, Seen]) -> None:
    assert not wrong_in(book, lambda seen: seen.violations)


def test_a_phone_need_not_scroll_sideways(book: dict[str, Seen]) -> None:
    assert not wrong_in(book, lambda seen: seen.too_wide)


def test_pages_name_their_language_and_have_one_title(book: dict[str, Seen]) -> None:
    for name, seen in book.items():
        assert seen.facts["lang"] == "en", name
        assert seen.facts["title"], name
        assert len(seen.facts["h1"]) == 1, (name, seen.facts["h1"])


def test_no_heading_skips_a_level(book: dict[str, Seen]) -> None:
    assert not wrong_in(book, lambda seen: seen.facts["jumps"])


def test_every_picture_has_words(book: dict[str, Seen]) -> None:
    assert not wrong_in(book, lambda seen: seen.facts["silent"])


def test_every_explorer_runs_and_has_a_figure_in_reserve(book: dict[str, Seen]) -> None:
    def wrong(seen: Seen) -> list[str]:
        explorers = seen.facts["explorers"]
        return [
            *(f"{e['name']} does not run" for e in explorers if not e["runs"]),
            *(f"{e['name']} has no figure with words" for e in explorers if not e["fallback"]),
        ]

    assert not wrong_in(book, wrong)


def test_what_is_pointed_to_is_there_once(book: dict[str, Seen]) -> None:
    assert not wrong_in(book, lambda seen: seen.facts["targets"])


def test_the_keyboard_reaches_everything_and_is_seen(book: dict[str, Seen]) -> None:
    assert not wrong_in(book, lambda seen: seen.unreachable)


def test_self_tests_have_one_right_answer_and_explain_all(book: dict[str, Seen]) -> None:
    assert not wrong_in(book, wrong_self_tests)


def wrong_self_tests(seen: Seen) -> list[str]:
    """The self-tests that lack an answer or an explanation."""
    return [
        f"{test['question']} ({test['right']} right, {test['wrong']} wrong, {test['unexplained']})"
        for test in seen.facts["selfTests"]
        if test["right"] != 1 or test["wrong"] < 2 or test["unexplained"]
    ]


def test_pages_are_readable_without_scripts(book: dict[str, Seen]) -> None:
    # A search is a script; its page says so.
    others = {name: seen for name, seen in book.items() if name != "search.html"}
    assert not wrong_in(others, lambda seen: seen.without_scripts)


def test_the_address_of_the_book_leads_to_its_first_page(
    browser: Browser, address: str, pages: Path
) -> None:
    seen = Seen()
    with visit(browser, address, seen, WIDE) as page:
        page.goto(f"{address}/index.html")
        page.wait_for_url(f"{address}/book/index.html")
        page.get_by_role("heading", level=1).wait_for()
    assert not seen.said


def test_the_reader_chooses_a_theme_once(browser: Browser, address: str) -> None:
    seen = Seen()
    with visit(browser, address, seen, WIDE) as page:
        page.goto(f"{address}/book/how-to-use.html")
        assert ask(page, "theme") == "light"
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        switch = page.get_by_role("button", name="Color mode").first
        for _ in range(3):
            switch.focus()
            page.keyboard.press("Enter")
            if page.evaluate("document.documentElement.dataset.mode") == "dark":
                break
        assert ask(page, "theme") == "dark"
        page.goto(f"{address}/book/glossary.html")
        assert ask(page, "theme") == "dark"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert not seen.said


def test_search_finds_what_the_book_says(browser: Browser, address: str) -> None:
    seen = Seen()
    with visit(browser, address, seen, WIDE) as page:
        page.goto(f"{address}/book/how-to-use.html")
        nameless = page.locator(".search-button, .search-button__button").evaluate_all(
            "all => all.filter((e) => !(e.ariaLabel || e.innerText).trim()).map((e) => e.outerHTML)"
        )
        assert not nameless
        page.get_by_role("button", name="Search").first.click()
        page.keyboard.type("softmax")
        page.keyboard.press("Enter")
        page.wait_for_url("**/search.html?q=softmax*")
        results = page.locator("#search-results li a")
        results.nth(2).wait_for()
        # Each result fetches its page for a few words of it; leaving earlier would break that off.
        page.wait_for_load_state("networkidle")
        results.first.click()
        page.get_by_role("heading", level=1).first.wait_for()
        assert "softmax" in page.locator("main").inner_text().lower()
        page.wait_for_load_state("networkidle")
        page.goto(f"{address}/search.html?q=xylophone")
        page.get_by_text("did not match any documents").wait_for()
        page.wait_for_load_state("networkidle")
    assert not seen.foreign
    assert not seen.said


# --- what is wrong is found -----------------------------------------------------------------

GOOD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Good</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="used.css"></head>
<body><a class="skip" href="#text">Skip to the text</a>
<main id="text" tabindex="-1"><h1>Weights</h1><p>Scores become weights. <a href="#more">More</a></p>
<h2 id="more">More</h2><svg role="img" aria-label="A line" width="9" height="9"></svg>
<div class="self-test"><p>What happens?</p>
<details class="wrong"><summary>They grow.</summary><p>No: they sum to 1 before and after.</p>
</details>
<details class="right"><summary>Nothing.</summary><p>Yes: softmax sees only differences.</p>
</details>
<details class="wrong"><summary>They shrink.</summary><p>No: they sum to 1 before and after.</p>
</details></div>
<tw-tiny><script type="application/json">{}</script>
<svg role="img" aria-label="The same" width="200" height="90"></svg></tw-tiny>
<script type="module" src="elements/tiny.js"></script></main></body></html>"""
TINY = """import "./base.js";
customElements.define("tw-tiny", class extends HTMLElement {
  connectedCallback() { this.attachShadow({ mode: "open" }).innerHTML = "<h3>Tiny</h3>"; }
});"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of one good page."""
    (tmp_path / "elements").mkdir()
    (tmp_path / "elements" / "tiny.js").write_text(TINY)
    (tmp_path / "elements" / "base.js").write_text("")
    (tmp_path / "used.css").write_text("p { margin: 1rem 0 } main { outline: none }")
    (tmp_path / "page.html").write_text(GOOD)
    return tmp_path


def test_a_good_page_is_found_good(browser: Browser, site: Path) -> None:
    with served(site) as url:
        seen = look_at(browser, url, "page.html")
    assert seen.requests == {"page.html", "used.css", "elements/tiny.js", "elements/base.js"}
    assert not seen.foreign
    assert seen.facts["explorers"] == [{"name": "tw-tiny", "runs": True, "fallback": "The same"}]
    for name in ("jumps", "silent", "targets", "hosts"):
        assert not seen.facts[name], name
    for name in ("said", "unused", "unreachable", "too_wide", "violations", "without_scripts"):
        assert not getattr(seen, name), name
    assert not wrong_self_tests(seen)
    sizes = [len(gzip.compress((site / name).read_bytes())) for name in seen.requests]
    assert weight_of(site, seen.requests) == sum(sizes)


def test_a_bad_page_is_found_bad(
    browser: Browser, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.SECONDS_TO_LOAD", 1)
    changes = [
        ('lang="en"', ""),
        (
            "</head>",
            '<link rel="preconnect" href="https://fonts.example/">'
            '<link rel="stylesheet" href="sphinx-design.css">'
            '<script src="https://elsewhere.example/a.js"></script></head>',
        ),
        ('href="#text">', 'href="text.html" style="outline: none">'),
        ("<h2", '<h4 id="more">Twice</h4><h1>Once more</h1><h2'),
        ("</h2>", '</h2><img src="lost.png"><canvas></canvas><button>Dead</button>'),
        ('class="right"', 'class="wrong"'),
        ("<p>Yes: softmax sees only differences.</p>", "<p>No.</p>"),
        ("<summary>They shrink.", '<summary tabindex="-1">They shrink.'),
        ("<p>Scores", '<p style="color: #ccc; background: #ddd; min-width: 500px">Scores'),
        (' aria-label="The same"', ""),
        (
            "</main>",
            '<tw-lost><script type="application/json">{}</script></tw-lost>'
            "<script>console.warn('odd'); undefined.odd;</script>"
            "<p class='katex' hidden>x</p><p id='late'></p><script>late.textContent = "
            "'text '.repeat(99)</script></main>",
        ),
    ]
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (site / "page.html").write_text(text)
    (site / "sphinx-design.css").write_text(":root { --sd-color: red } .sd-card { color: red }")
    with served(site) as url:
        seen = look_at(browser, url, "page.html")

    assert seen.foreign == {"https://elsewhere.example/a.js"}
    assert "https://fonts.example/" in seen.facts["hosts"]
    assert not seen.facts["lang"]
    assert len(seen.facts["h1"]) == 2
    assert any("Twice" in line for line in seen.facts["jumps"])
    said = "\n".join(seen.said)
    for what in ("404 for", "lost.png", "warning: odd", "error: Cannot read", "no answer: https"):
        assert what in said
    silent = " ".join(seen.facts["silent"])
    assert "<img" in silent
    assert "<canvas" in silent
    assert "<svg" in silent
    assert any("#more is there 2 times" in line for line in seen.facts["targets"])
    assert {e["name"]: e["runs"] for e in seen.facts["explorers"]}["tw-lost"] is False
    assert {e["name"]: e["fallback"] for e in seen.facts["explorers"]}["tw-tiny"] == ""
    assert seen.unused == ["sphinx-design.css"]
    assert any("no skip link" in line for line in seen.unreachable)
    assert any("focus unseen: <a" in line for line in seen.unreachable)
    assert any("Tab does not reach answer 3" in line for line in seen.unreachable)
    assert any("500" in line or "px" in line for line in seen.too_wide)
    found = " ".join(seen.violations)
    for rule in ("color-contrast", "image-alt", "html-has-lang"):
        assert rule in found
    bare = "\n".join(seen.without_scripts)
    for what in ("no formula", "in place of tw-lost", "button without", "with scripts"):
        assert what in bare
    assert len(wrong_self_tests(seen)) == 1
