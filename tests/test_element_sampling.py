"""The explorer of sampling: what it shows is what chapter 6's solution and PyTorch compute."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import tabbed, told, violations

from workbook import elements, widgets
from workbook.ready.gpt import filter_logits

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

generator = torch.Generator().manual_seed(6)
LETTERS = [chr(code) for code in range(ord(" "), ord(" ") + 90)]
MANY = {
    "sharp ": 4 * torch.randn(90, generator=generator),
    "even": 0.5 * torch.randn(90, generator=generator),
}


def made(tokens: Sequence[str], contexts: dict[str, torch.Tensor]) -> elements.Element:
    """The explorer, as a notebook shows it."""
    shown: list[elements.Element] = []
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("WORKBOOK_STATIC", "WORKBOOK_GRADING"):
            patch.delenv(variable, raising=False)
        patch.setattr(elements, "display", shown.append)
        widgets.explore_sampling(tokens, contexts, filter_logits)
    return shown[0]


@pytest.fixture(scope="module")
def element() -> elements.Element:
    return made(LETTERS, MANY)


def slider(page: Page, name: str) -> Locator:
    return page.get_by_role("slider", name=name)


def rows(page: Page, table: str = "tokens") -> list[list[str]]:
    """The table's rows as one reads them: name, (hidden) share before, and what stands right."""
    return page.locator(f".{table} tbody").evaluate(
        "body => [...body.rows].map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"
    )


def move(page: Page, name: str, *, start: str | None = None, right: int = 0, left: int = 0) -> None:
    for key in ([start] if start else []) + ["ArrowRight"] * right + ["ArrowLeft"] * left:
        slider(page, name).press(key)


# Every setting at once: the widths of the bars are the probabilities with all their digits.
EVERY_SETTING = """() => {
  const root = document.querySelector("tw-sampling").shadowRoot;
  const sliders = [...root.querySelectorAll("input[type=range]")];
  const set = (slider, value) => {
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
  };
  const share = (row) => row.querySelector(".now")?.getAttribute("style").split(":")[1] ?? "0";
  const found = [];
  const [t, k, p] = sliders;
  for (let i = 0; i <= Number(t.max); i += 1) {
    set(t, i);
    for (let j = 0; j <= Number(k.max); j += 1) {
      set(k, j);
      for (let l = 0; l <= Number(p.max); l += 1) {
        set(p, l);
        found.push([...root.querySelectorAll(".tokens tbody tr")].map(
          (row) => [row.querySelector("th").textContent, parseFloat(share(row))]));
      }
    }
  }
  return found;
}"""


@pytest.mark.parametrize(
    "logits",
    [
        torch.tensor([0.0, 2, 2, 1, 0, -1, 2, 1, 1, 0, -3, 2]),
        torch.zeros(16),
        torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625]).log(),
        3 * torch.randn(14, generator=generator),
    ],
    ids=["ties", "all equal", "sums that reach p exactly", "any"],
)
def test_every_setting_leaves_what_the_solution_leaves(
    open_element: Callable[..., Page], logits: torch.Tensor
) -> None:
    names = LETTERS[33 : 33 + len(logits)]
    element = made(names, {"so": logits})
    limits = element.data["top_k"]
    assert limits[-1] is None
    assert max(limits[:-1]) < len(logits)
    settings = list(product(widgets.TEMPERATURES, limits, widgets.TOP_P))
    found = open_element(element).evaluate(EVERY_SETTING)
    assert len(found) == len(settings)
    exact = logits.double().round(decimals=4)
    for setting, shown in zip(settings, found, strict=True):
        expected = filter_logits(exact, *setting).softmax(dim=-1)
        shares = dict(shown)
        got = torch.tensor([shares[name] / 100 for name in names], dtype=torch.float64)
        assert torch.equal(got > 0, expected > 0), setting
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12, msg=str(setting))


def test_a_large_vocabulary_is_summed_up_in_one_row(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    page.get_by_label("text so far").select_option("even")
    move(page, "temperature", right=3)
    move(page, "top-k", start="Home", right=11)
    move(page, "top-p", left=3)
    setting = (widgets.TEMPERATURES[12], 40, 0.85)
    logits = MANY["even"].double().round(decimals=4)
    plain, left = logits.softmax(-1), filter_logits(logits, *setting).softmax(-1)
    order = logits.argsort(descending=True, stable=True)
    kept = int((left > 0).sum())
    shown = rows(page)
    assert len(shown) == 17
    for row, i in zip(shown[:16], order[:16].tolist(), strict=True):
        name = "space" if LETTERS[i] == " " else LETTERS[i]
        assert row == [name, f"{plain[i]:.1%}", f"{left[i]:.1%}", "–"]
    assert 16 < kept < 40
    rest = order[16:]
    assert shown[16] == [
        f"{kept - 16} of 74 others",
        f"{plain[rest].sum():.1%}",
        f"{left[rest].sum():.1%}",
        "–",
    ]


def test_each_step_says_how_much_it_keeps(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    shown = rows(page, "steps")
    assert [row[0] for row in shown] == ["1. temperature 1", "2. top-k off", "3. top-p off"]
    assert [row[2:] for row in shown] == [["90 of 90", "100%"]] * 3
    assert "all 90 tokens are kept" in told(page)
    move(page, "temperature", left=2)
    move(page, "top-k", start="Home", right=5)
    move(page, "top-p", left=1)
    logits = MANY["sharp "].double().round(decimals=4)
    even = filter_logits(logits, 0.8).softmax(-1)
    counts, shares = [], []
    for limits in ((None, None), (6, None), (6, 0.95)):
        left = filter_logits(logits, 0.8, *limits).isfinite()
        counts.append(f"{int(left.sum())} of 90")
        shares.append(f"{even[left].sum():.1%}")
    assert [row[2] for row in rows(page, "steps")] == counts
    assert [row[3] for row in rows(page, "steps")] == ["100%", *shares[1:]]
    words = told(page)
    assert words.startswith("After “sharp␣” with temperature 0.8, top-k 6, top-p 0.95: ")
    assert f"{counts[2].split()[0]} of 90 tokens are kept, which had {shares[2]}" in words
    left = filter_logits(logits, 0.8, 6, 0.95).softmax(-1)
    best = int(left.argmax())
    assert f"Most probable: {LETTERS[best]} {left[best]:.1%}" in words


def test_what_is_cut_keeps_its_outline(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    move(page, "top-k", start="Home")
    first, second = page.locator(".tokens tbody tr").all()[:2]
    assert first.locator(".now, .was").count() == 2
    assert second.locator(".was").count() == 1
    assert second.locator(".now").count() == 0
    assert rows(page)[0][2] == "100.0%"
    assert {row[2] for row in rows(page)[1:]} == {"cut"}


def rolls(seed: int = 1) -> Iterator[float]:
    """The generator mulberry32, as its author describes it."""
    mask = 0xFFFFFFFF
    while True:
        seed = (seed + 0x6D2B79F5) & mask
        t = ((seed ^ (seed >> 15)) * (seed | 1)) & mask
        t ^= (t + (((t ^ (t >> 7)) * (t | 61)) & mask)) & mask
        yield (t ^ (t >> 14)) / 2**32


def expected_draws(logits: torch.Tensor, setting: tuple[Any, ...], count: int) -> Counter[int]:
    exact = logits.double().round(decimals=4)
    left = filter_logits(exact, *setting).softmax(-1)
    order = exact.argsort(descending=True, stable=True)
    reached = left[order].cumsum(0)
    stream = rolls()
    picks = [int((reached <= next(stream)).sum()) for _ in range(count)]
    return Counter(int(order[i]) for i in picks)


def counts_on(page: Page) -> dict[str, int]:
    return {name: int(count) for name, _, _, count in rows(page) if count not in ("0", "–")}


def test_draws_are_the_same_each_time_and_follow_the_setting(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    draw = page.get_by_role("button", name="draw 20")
    for _ in range(3):
        draw.press("Enter")
    expected = expected_draws(MANY["sharp "], (1,), 60)
    assert counts_on(page) == {LETTERS[i]: n for i, n in expected.items()}
    assert "60 draws: " in told(page)
    # Other settings, the same rolls.
    move(page, "top-k", start="Home", right=1)
    expected = expected_draws(MANY["sharp "], (1, 2), 60)
    assert counts_on(page) == {LETTERS[i]: n for i, n in expected.items()}
    assert len(page.locator(".drawn code").inner_text().split()) == 20
    # Back to the beginning: the first twenty are the first twenty again.
    page.get_by_role("button", name="clear draws").press("Enter")
    assert counts_on(page) == {}
    draw.press("Space")
    expected = expected_draws(MANY["sharp "], (1, 2), 20)
    assert counts_on(page) == {LETTERS[i]: n for i, n in expected.items()}


def test_many_draws_come_close_to_the_probabilities(open_element: Callable[..., Page]) -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 0.5])
    page = open_element(made("abcd", {"so": logits}))
    draw = page.get_by_role("button", name="draw 20")
    draw.evaluate("button => { for (let i = 0; i < 100; i += 1) button.click(); }")
    found, p = counts_on(page), logits.softmax(-1).tolist()
    for name, share in zip("abcd", p, strict=True):
        # Four standard deviations of a share of 2,000 draws.
        assert abs(found[name] / 2000 - share) < 4 * (share * (1 - share) / 2000) ** 0.5


def test_everything_is_reached_by_keyboard_alone(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    reached = tabbed(
        page,
        6,
        "() => { const at = document.activeElement.shadowRoot.activeElement;"
        " return (at.closest('label') ?? at).firstChild.textContent; }",
    )
    assert reached == ["text so far", "temperature", "top-k", "top-p", "draw 20", "clear draws"]


@pytest.mark.parametrize("width", [1000, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible_and_fits(
    open_element: Callable[..., Page], element: elements.Element, theme: str, width: int
) -> None:
    page = open_element(element, theme=theme, width=width)
    move(page, "top-k", start="Home", right=9)
    page.get_by_role("button", name="draw 20").press("Enter")
    assert not [(one["id"], one["nodes"]) for one in violations(page)]
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_figure_stands_in_where_no_script_runs_and_in_print(
    open_element: Callable[..., Page], element: elements.Element, browser: Browser
) -> None:
    page = open_element(element)
    figure = page.get_by_role("img", name=re.compile("^Bar charts of the probability"))
    assert not figure.is_visible()
    page.emulate_media(media="print")
    assert figure.is_visible()
    assert not page.get_by_role("button", name="draw 20").is_visible()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_content(element._repr_html_())
    assert page.locator("svg").is_visible()
    context.close()


def test_the_data_is_light(element: elements.Element) -> None:
    data = re.search('<script type="application/json">(.*?)</script>', element._repr_html_(), re.S)
    assert len(data[1]) < 60_000
