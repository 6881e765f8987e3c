"""Chapter 3's explorer: two positions as hands of clocks, against the chapter's own solutions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pytest
import torch
from conftest import barriers, tabbed, told

from tests.conftest import solution
from workbook import elements, widgets

if TYPE_CHECKING:
    from playwright.sync_api import Page

LENGTH, WIDTH = 40, 8
ADDED, TURNED = 0, 1


def encoding() -> torch.Tensor:
    return solution("positions/sinusoidal_encoding")(LENGTH, WIDTH)


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    query, key = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(3))
    return query, key


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., elements.Element]]:
    """What explore_positions displays in Jupyter."""
    shown = []
    monkeypatch.setattr(elements, "display", shown.append)
    for variable in ("WORKBOOK_STATIC", "WORKBOOK_GRADING"):
        monkeypatch.delenv(variable, raising=False)

    def one(*arguments: torch.Tensor, **options: int) -> elements.Element:
        widgets.explore_positions(*arguments, **options)
        return shown.pop()

    yield one
    plt.close("all")


def at(vector: torch.Tensor | None, position: int, way: int = ADDED) -> torch.Tensor:
    """The vector at a position, by the chapter's own functions."""
    if vector is None:
        return encoding()[position]
    if way == ADDED:
        return vector + encoding()[position]
    rotary = solution("positions/apply_rotary")
    return rotary(vector[None].double(), torch.tensor([position]))[0]


def products(left: torch.Tensor, right: torch.Tensor) -> list[float]:
    return (left * right).view(-1, 2).sum(dim=-1).tolist()


def numbers(page: Page) -> list[float]:
    texts = page.locator("text.product").all_text_contents()
    return [float(text.replace("−", "-")) for text in texts]


def minus(x: float) -> str:
    return f"{x:.2f}".replace("-", "−")


def move(page: Page, label: str, steps: int) -> None:
    slider = page.get_by_role("slider", name=label)
    for _ in range(abs(steps)):
        slider.press("ArrowRight" if steps > 0 else "ArrowLeft")


def test_the_numbers_are_those_of_the_table_and_moving_both_changes_nothing(
    open_element: Callable[..., Page], show: Callable[..., elements.Element]
) -> None:
    page = open_element(show(encoding()))
    wanted = products(at(None, 0), at(None, 3))
    assert numbers(page) == pytest.approx(wanted, abs=0.0051)
    total = minus(sum(wanted))
    assert f"Positions 0 and 3: the 4 products sum to {total}." in told(page, "0 and 3")

    move(page, "position", 7)
    assert numbers(page) == pytest.approx(wanted, abs=0.0051)
    words = told(page, "Positions 7 and 10")
    assert (
        f"sum to {total}. At 0 and 3, as far apart, they give {total} (dashed): the same" in words
    )

    move(page, "distance", -5)
    wanted = products(at(None, 7), at(None, 5))
    assert numbers(page) == pytest.approx(wanted, abs=0.0051)
    alt = page.locator("tw-positions section svg").get_attribute("aria-label")
    assert "first at 7, second at 5" in alt
    assert f"at 5 it is {minus(sum(wanted))}" in alt


@pytest.mark.parametrize("way", [ADDED, TURNED])
def test_scores_are_those_of_the_solutions(
    open_element: Callable[..., Page], show: Callable[..., elements.Element], way: int
) -> None:
    query, key = pair()
    page = open_element(show(encoding(), query, key))
    page.get_by_role("combobox").select_option(index=way)
    scores = {}
    for position in (0, 6, 11):
        page.get_by_role("slider", name="position").fill(str(position))
        wanted = products(at(query, position, way), at(key, position + 3, way))
        assert numbers(page) == pytest.approx(wanted, abs=0.0051)
        scores[position] = minus(sum(wanted) / math.sqrt(WIDTH))
        where = f"Query at {position}, key at {position + 3}: the 4 products, summed and divided"
        told(page, f"{where} by √8, give the score {scores[position]}.")
    # What the chapter says: turned, only the distance counts; added, the place counts too.
    assert (len(set(scores.values())) == 1) == (way == TURNED)
    end = "the same." if way == TURNED else "not the same."
    assert told(page, "Query at 11").endswith(f"{scores[0]} (dashed): {end}")


def test_the_hands_point_where_the_vectors_do(
    open_element: Callable[..., Page], show: Callable[..., elements.Element]
) -> None:
    query, key = pair()
    page = open_element(show(encoding(), query, key, position=5, distance=-4))
    for color, vector in (("first", at(query, 5, TURNED)), ("second", at(key, 1, TURNED))):
        hands = page.locator(f"g > line.{color}[x1='0']")
        ends = [
            [float(hand.get_attribute(name)) * sign for name, sign in (("x2", 1), ("y2", -1))]
            for hand in hands.all()
        ]
        drawn = torch.tensor(ends, dtype=torch.float64)
        true = vector.view(-1, 2).double()
        assert torch.allclose(drawn / drawn.norm(), true / true.norm(), atol=1e-4)


def test_the_second_stays_within_the_table(
    open_element: Callable[..., Page], show: Callable[..., elements.Element]
) -> None:
    page = open_element(show(encoding()))
    slider = page.get_by_role("slider", name="position")
    slider.press("End")
    assert slider.input_value() == str(LENGTH - 4)
    page.get_by_role("slider", name="distance").press("End")
    assert slider.input_value() == str(LENGTH // 2 - 1)
    page.get_by_role("slider", name="distance").press("Home")
    assert slider.input_value() == str(LENGTH // 2)
    assert "second at 0" in page.locator("tw-positions section svg").get_attribute("aria-label")


def test_the_keyboard_reaches_every_control(
    open_element: Callable[..., Page], show: Callable[..., elements.Element]
) -> None:
    page = open_element(show(encoding(), *pair()))
    inner = "document.querySelector('tw-positions').shadowRoot.activeElement"
    reached = tabbed(page, 3, f"{inner}.parentElement.firstChild.textContent")
    assert reached == ["encoding", "position", "distance"]


@pytest.mark.parametrize(("theme", "width"), [("light", 1000), ("dark", 390)])
def test_it_fits_and_axe_finds_nothing(
    open_element: Callable[..., Page],
    show: Callable[..., elements.Element],
    theme: str,
    width: int,
) -> None:
    page = open_element(show(encoding(), *pair()), theme=theme, width=width)
    told(page, "Query at")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not barriers(page)


def test_in_print_and_without_scripts_a_figure_stands_in(
    open_element: Callable[..., Page], show: Callable[..., elements.Element]
) -> None:
    element = show(encoding())
    page = open_element(element)
    figure = page.get_by_role("img", name=re.compile("^A row of 4 clocks"))
    assert not figure.is_visible()
    page.emulate_media(media="print")
    assert figure.is_visible()
    assert not page.locator("section").is_visible()
    assert "positions 0, 1, 10, 20" in element.fallback.alt


def test_the_figure_with_query_and_key_tells_where_the_score_is_largest(
    show: Callable[..., elements.Element],
) -> None:
    query, key = pair()
    alt = show(encoding(), query, key).fallback.alt
    distances = range(-13, 14)
    scores = [
        (at(query, 13, TURNED) @ at(key, 13 + d, TURNED)).item() / math.sqrt(WIDTH)
        for d in distances
    ]
    best = max(scores)
    assert f"largest, {best:.2f}, at distance {distances[scores.index(best)]}." in alt


def test_the_data_are_small(show: Callable[..., elements.Element]) -> None:
    table = solution("positions/sinusoidal_encoding")(64, 16)
    assert len(json.dumps(elements._rounded(show(table).data))) < 60_000


@pytest.mark.parametrize("shape", [(4, 3), (1, 2), (4,)])
def test_a_table_without_pairs_or_positions_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape .* sinusoidal_encoding\(64, 12\)"):
        widgets.explore_positions(torch.zeros(shape))


@pytest.mark.parametrize("shapes", [((8,), None), ((8,), (4,)), ((1, 8), (1, 8))])
def test_query_and_key_must_fit_the_table(shapes: tuple) -> None:
    query, key = (shape and torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"Give both, .*\(8,\)"):
        widgets.explore_positions(encoding(), query, key)
