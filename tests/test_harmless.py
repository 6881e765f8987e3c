"""What a submission shows is harmless to whoever opens it."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from grading_fixtures import CannedEngine, assignment, cell, edited
from nbformat import NotebookNode

from autograder import harmless
from autograder.engine import CellResult
from autograder.feedback import Pages
from autograder.marking import grade_notebook
from autograder.notebooks import default_config
from workbook import plots

EVIL = "fetch('/formgrader/api/grade/1')"
ATTACKS = [
    f"<script>{EVIL}</script>",
    f"<ScRiPt src=//evil.example/x.js></sCrIpT>{EVIL}",
    f'<img src=x onerror="{EVIL}">',
    f"<img src='data:image/svg+xml;base64,PHN2Zz48L3N2Zz4=' onload=\"{EVIL}\">",
    f'<svg onload="{EVIL}"><path d="M0 0"/></svg>',
    f"<svg><script>{EVIL}</script></svg>",
    f'<svg><a xlink:href="javascript:{EVIL}"><text>x</text></a></svg>',
    f'<svg><animate onbegin="{EVIL}" attributeName="x"/></svg>',
    f'<svg><foreignObject><iframe srcdoc="<script>{EVIL}</script>"></iframe></foreignObject></svg>',
    f'<a href="javascript:{EVIL}">click</a>',
    f'<a href=" java&#115;cript:{EVIL}">click</a>',
    '<iframe src="https://evil.example"></iframe>',
    '<object data="x.swf"></object><embed src="x">',
    '<form action="/formgrader/api"><input name="score"><button>Next</button></form>',
    '<meta http-equiv="refresh" content="0;url=https://evil.example">',
    '<link rel="stylesheet" href="https://evil.example/x.css">',
    "<style>@import url(https://evil.example/x.css)</style>",
    "<div style=\"background:url('https://evil.example/?seen')\">x</div>",
    f"<math><mtext></mtext><mglyph><svg><mtext><textarea><path id='</textarea><img onerror={EVIL}"
    " src=1>'></mglyph></math>",
    f"<noscript><p title='</noscript><img src=x onerror={EVIL}>'></noscript>",
    f'<details open ontoggle="{EVIL}">x</details>',
    f'<base href="https://evil.example/"><body onload="{EVIL}">',
    f"<!--><img src=x onerror={EVIL}>-->",
]
MARKDOWN = [
    f"[click](javascript:{EVIL})",
    f"![x](x){{onerror={EVIL}}} <img src=x onerror={EVIL}>",
    f"[click][1]\n\n[1]: javascript:{EVIL}",
    f"<javascript:{EVIL}>",
    f"$\\href{{javascript:{EVIL}}}{{x}}$",
    f"````\n</pre><script>{EVIL}</script>\n````\n<script>{EVIL}</script>",
    "[click](data:text/html;base64,PHNjcmlwdD4=)",
    "![seen](https://evil.example/pixel.png)",
]

# Runs in a page where every attack would leave a trace.
LOOK = """
text => [
  ...new DOMParser().parseFromString(text, 'text/html').body.querySelectorAll('*')
].flatMap(element => [
  ...(['SCRIPT','IFRAME','OBJECT','EMBED','FORM','META','LINK','BASE','STYLE','INPUT']
      .includes(element.tagName.toUpperCase()) ? [element.outerHTML.slice(0, 80)] : []),
  ...[...element.attributes].filter(a => /^on/i.test(a.name)
      || (/^(xlink:)?(href|src|action|data)$/i.test(a.name)
          && /^[\\s\\x00-\\x20]*(javascript|data:text|data:image.svg)/i.test(a.value))
      || (/^(src|data)$/i.test(a.name) && !a.value.startsWith('data:image/'))
      || (a.name === 'style' && /url\\(/i.test(a.value))).map(a => a.name + '=' + a.value),
])
"""


@pytest.fixture(scope="module")
def page():
    """A page of a real browser, which parses as browsers do."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("Chromium is not installed (apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        context = browser.new_context(java_script_enabled=True)
        context.route("**/*", lambda route: route.abort())
        yield context.new_page()
        browser.close()


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_nothing_active_is_left_of_html(page, attack: str) -> None:
    clean = harmless.html(attack)
    assert page.evaluate(LOOK, clean) == [], clean
    # What was parsed once may mean something else when it is parsed again.
    assert page.evaluate(LOOK, harmless.html(clean)) == []


def test_the_look_finds_what_it_looks_for(page) -> None:
    found = [bool(page.evaluate(LOOK, f"<body>x{attack}")) for attack in ATTACKS]
    assert found.count(False) <= 3, [a for a, f in zip(ATTACKS, found, strict=True) if not f]


@pytest.mark.parametrize("source", [*ATTACKS[:12], *MARKDOWN])
def test_nothing_active_is_left_of_markdown(page, source: str) -> None:
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    rendered = markdown2html_mistune(harmless.markdown(source))
    assert page.evaluate(LOOK, rendered) == [], rendered
    assert harmless.markdown(harmless.markdown(source)) == harmless.markdown(source)


PLAIN = [
    "Because the scores grow with $\\sqrt{d_k}$, and a < b.",
    "# A heading\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
    "See [the paper](https://arxiv.org/abs/1706.03762), *section 3.2*.",
    "```python\nif a <b and c>d: print('<b>')\n```",
    "Line<br>break and <b>bold</b> and x<sub>i</sub>",
    "Inline `List<int>` and **strong**",
    "$$\\begin{aligned} a &< b \\\\ c &> d \\end{aligned}$$",
]


@pytest.mark.parametrize("source", PLAIN)
def test_ordinary_answers_stay_as_they_are(source: str) -> None:
    assert harmless.markdown(source) == source


def test_figures_and_tables_survive() -> None:
    fig, ax = plots.figure()
    plots.curves(ax, {"a": [1, 2, 3]}, x=[1, 2, 3], xlabel="x", ylabel="y")
    svg = plots.draw(fig, alt="A curve, url(x)").svg
    clean = harmless.html(svg)
    assert clean.count("<use") == svg.count("<use")
    assert clean.count("clip-path") == svg.count("clip-path")
    assert 'aria-label="A curve, url(x)"' in clean
    assert clean.count("<path") == svg.count("<path")
    assert "viewBox" in clean
    table = '<table border="1" class="dataframe"><tr><th scope="row">a</th><td>1</td></tr></table>'
    assert harmless.html(table).replace("<tbody>", "").replace("</tbody>", "") == table


def test_of_an_output_only_what_shows_something_is_kept() -> None:
    kept = harmless.bundle(
        {
            "text/plain": "<script>",
            "text/html": f"<b>x</b><script>{EVIL}</script>",
            "application/javascript": EVIL,
            "application/vnd.jupyter.widget-view+json": {"model_id": "x"},
            "application/json": {"a": 1},
            "image/png": 'x" onerror="alert(1)',
            "image/jpeg": "aGk=",
            "text/latex": "$\\href{javascript:alert(1)}{x}$",
        }
    )
    assert kept == {
        "text/plain": "<script>",
        "text/html": f"<b>x</b>{EVIL}",
        "image/jpeg": "aGk=",
        "text/latex": "",
    }
    sizes = harmless.sizes(
        {"image/png": {"width": 3, "height": '1" onload="x'}, "needs_background": "light"}
    )
    assert sizes == {"image/png": {"width": 3}}
    with pytest.raises(TypeError):
        harmless.bundle({"text/html": 5})


def test_pasted_pictures_are_pictures() -> None:
    assert harmless.attachments(
        {
            "a.png": {"image/png": "aGk=", "text/html": "<script>"},
            "b.svg": {"image/svg+xml": "PHN2Zz4="},
            "c.png": {"image/png": '"><script>'},
            "d": "x",
        }
    ) == {"a.png": {"image/png": "aGk="}}


def test_a_hostile_answer_reaches_no_page(page, tmp_path: Path) -> None:
    def change(book: NotebookNode) -> None:
        book.cells[-1].source = f"Because.\n\n<img src=x onerror={EVIL}>"
        book.cells.append(cell("markdown", f"<script>{EVIL}</script>"))

    small = assignment()
    shown = nbformat.v4.new_output(
        "display_data", data=harmless.bundle({"text/html": f"<script>{EVIL}</script>shown"})
    )
    engine = CannedEngine({"setup": CellResult([shown], [], "ok")})
    graded = grade_notebook(edited(change), small, engine)
    assert any("could run code" in note for note in graded.notes)
    text = Pages(default_config()).page(graded.notebook, "01_attention", "ada", {}, {}, None)
    assert [found for found in page.evaluate(LOOK, text) if "formgrader" in found] == []
    assert "shown" in text
