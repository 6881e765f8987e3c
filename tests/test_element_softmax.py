"""Chapter 1's explorer: temperature and mask, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from conftest import barriers, tabbed, told

from workbook import elements, widgets
from workbook.ready.attention import scaled_dot_product_attention

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCORES = {"the": 1.0, "tired": 3.0, "cat": -4.0, "slept": 2.5}


@pytest.fixture
def element(shown_by: Callable[..., elements.Element]) -> elements.Element:
    return shown_by(widgets.explore_softmax, SCORES)


def expected(temperature: float, barred: str = "") -> list[str]:
    """Weights of chapter 1's attention function, in the words of the explorer.

    With a query of length 1, key j is score j divided by the temperature.
    """
    scores = torch.tensor(list(SCORES.values()), dtype=torch.float64) / temperature
    mask = torch.tensor([key not in barred.split() for key in SCORES])
    query = torch.ones(1, 1, dtype=torch.float64)
    _, weights = scaled_dot_product_attention(query, scores[:, None], scores[:, None], mask)
    return ["0" if w == 0 else "< 0.001" if w < 0.0005 else f"{w:.3f}" for w in weights[0].tolist()]


def weights(page: Page) -> list[str]:
    return page.locator("text.weight").all_text_contents()


def tell(page: Page) -> str:
    """What is told, which is also the picture's own text."""
    words = told(page)
    assert words == page.locator("section svg").get_attribute("aria-label")
    return words


@pytest.mark.parametrize(
    ("presses", "temperature"),
    [([], 1.0), (["ArrowLeft"] * 6, 0.5), (["ArrowRight"] * 12, 3.98), (["Home"], 0.1)],
)
def test_weights_are_those_of_masked_attention(
    open_element: Callable[..., Page],
    element: elements.Element,
    presses: list[str],
    temperature: float,
) -> None:
    page = open_element(element)
    for key in presses:
        page.get_by_role("slider", name="temperature").press(key)
    for barred in ("", "tired", "cat the", "tired slept the"):
        for key in SCORES:
            page.get_by_role("checkbox", name=key).set_checked(key not in barred.split())
        want = expected(temperature, barred)
        assert weights(page) == want
        words = tell(page)
        list_of_all = ", ".join(f"{key} {w}" for key, w in zip(SCORES, want, strict=True))
        assert words.startswith(f"Weights at temperature {temperature:.2f}: {list_of_all}.")
        assert ("barred" in words) == bool(barred)


def test_bars_are_as_high_as_the_weights(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    page.get_by_role("checkbox", name="tired").press("Space")
    heights = [float(bar.get_attribute("height")) for bar in page.locator("rect.bar").all()]
    before = [float(bar.get_attribute("height")) for bar in page.locator("rect.before").all()]
    scores = torch.tensor(list(SCORES.values()), dtype=torch.float64)
    plain = torch.softmax(scores, dim=0)
    masked = torch.softmax(scores.masked_fill(torch.arange(4) == 1, -torch.inf), dim=0)
    whole = sum(before)
    assert [x / whole for x in before] == pytest.approx(plain.tolist())
    assert [x / whole for x in heights] == pytest.approx(masked.tolist())


def test_a_query_that_may_read_nothing_gets_zeros(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    for key in SCORES:
        page.get_by_role("checkbox", name=key).press("Space")
    assert weights(page) == expected(1.0, " ".join(SCORES)) == ["0"] * 4
    assert "all weights are 0" in tell(page)


def test_the_keyboard_reaches_every_control(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    name = "document.querySelector('tw-softmax').shadowRoot.activeElement.parentElement"
    reached = tabbed(page, 5, f"{name}.textContent")
    assert reached == ["temperature1.00", *SCORES]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1000])
def test_it_fits_and_axe_finds_nothing(
    open_element: Callable[..., Page], element: elements.Element, theme: str, width: int
) -> None:
    page = open_element(element, theme=theme, width=width)
    page.get_by_role("checkbox", name="cat").press("Space")
    tell(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.locator("tw-softmax section svg text").all()
    edge = page.locator("tw-softmax section").bounding_box()
    for box in (text.bounding_box() for text in boxes):
        assert edge["x"] <= box["x"]
        assert box["x"] + box["width"] <= edge["x"] + edge["width"]
    assert not barriers(page)


def test_the_figure_in_print_tells_the_same(element: elements.Element) -> None:
    alt = element.fallback.alt
    assert "temperature 1: the 0.08, tired 0.57, cat 0.00, slept 0.35" in alt
    assert "temperature 1, tired masked: the 0.18, tired 0.00, cat 0.00, slept 0.82" in alt


@pytest.mark.parametrize("scores", [{"a": 1}, {}, {"a": 1, "b": float("nan")}])
def test_scores_that_have_no_softmax_are_refused(scores: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"at least two scores, all of them finite"):
        widgets.explore_softmax(scores)
