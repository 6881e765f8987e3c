"""What explorers share: how they travel, what stands in for them, what their controls do."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import pytest
from conftest import told

from workbook import elements, plots, widgets

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BASE = (elements.FOLDER / "base.js").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("WORKBOOK_STATIC", "WORKBOOK_GRADING"):
        monkeypatch.delenv(variable, raising=False)
    yield
    plt.close("all")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[elements.Element]:
    """What explorers displayed."""
    displayed = []
    monkeypatch.setattr(elements, "display", displayed.append)
    return displayed


def figure(alt: str = "The figure in its place.") -> plots.Drawing:
    return plots.Drawing(f'<svg role="img" aria-label="{alt}" width="20" height="10"></svg>', alt)


def softmax(inline: bool = True, **data: Any) -> elements.Element:
    return elements.Element(
        "softmax", {"keys": ["a", "b"], "scores": [1.0, 2.0]} | data, figure(), inline
    )


def data_of(element: elements.Element) -> Any:
    return json.loads(re.search(r">(\{.*?\})</script>", element._repr_html_())[1])


# What Python writes


def test_an_unknown_explorer_is_refused_with_the_names_of_those_that_are_there() -> None:
    with pytest.raises(ValueError, match=r"'soft'.*cost.*softmax"):
        elements.Element("soft", {}, figure(), True)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_know_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        softmax(scores=[1.0, number])._repr_html_()


def test_numbers_have_six_digits_and_whole_ones_no_more_than_they_need() -> None:
    data = {"x": [1 / 3, 2.0, (-1e-9 / 3,)], "y": {"z": 123456789.0, "n": 7, "t": True}}
    found = data_of(elements.Element("softmax", data, figure(), False))
    assert found == {"x": [0.333333, 2, [-3.33333e-10]], "y": {"z": 123457000, "n": 7, "t": True}}
    assert '"x":[0.333333,2,' in elements.Element("softmax", data, figure(), False)._repr_html_()


def test_text_without_html_is_that_of_the_figure() -> None:
    assert repr(softmax()) == "[figure] The figure in its place."


def test_in_jupyter_the_module_comes_along_and_in_the_book_it_does_not(
    shown: list[elements.Element], monkeypatch: pytest.MonkeyPatch
) -> None:
    widgets.explore_softmax()
    monkeypatch.setenv("WORKBOOK_STATIC", "1")
    widgets.explore_softmax()
    monkeypatch.setenv("WORKBOOK_GRADING", "1")
    widgets.explore_softmax()  # nobody looks
    jupyter, book = [element._repr_html_() for element in shown]
    assert jupyter.count('<script type="module">') == 1
    assert jupyter.startswith(book)
    assert '<script type="module">' not in book


# The modules, which become one in Jupyter


@pytest.mark.parametrize("name", elements.NAMES)
def test_a_module_in_one_piece_is_a_script_of_its_own(name: str) -> None:
    whole = elements.module(name)
    assert not re.search(r"^\s*(import|export)\b", whole, flags=re.M)
    # The first of these would end the script in the middle; the others would hide its end.
    assert not re.search(r"</script|<!--|<script", whole, flags=re.I)
    assert whole.rstrip().split("\n")[-1].startswith(f'define("tw-{name}", ')


@pytest.mark.parametrize("name", elements.NAMES)
def test_a_module_imports_what_is_there_and_declares_nothing_twice(name: str) -> None:
    declared = r"^(?:export )?(?:const|let|class|function\*?|async function) +(\w+)"
    own = (elements.FOLDER / f"{name}.js").read_text(encoding="utf-8")
    (imported,) = re.findall(r'^import \{([\w,\s]+)\} from "\./base\.js";$', own, flags=re.M)
    offered = re.findall(declared.replace("(?:export )?", "export "), BASE, flags=re.M)
    assert set(re.findall(r"\w+", imported)) <= set(offered)
    names = re.findall(declared, elements.module(name), flags=re.M)
    assert len(names) == len(set(names))


# In a browser


def test_two_explorers_on_a_page_do_not_meet(open_element: Callable[..., Page]) -> None:
    one, other = softmax(keys=["a", "b"]), softmax(keys=["c", "d"])
    both = SimpleNamespace(name="two", _repr_html_=lambda: one._repr_html_() + other._repr_html_())
    page = open_element(both)
    before = told(page).split("\n")[1]
    page.get_by_role("checkbox", name="a").press("Space")
    one, other = told(page).split("\n")
    assert "barred" in one
    assert other == before
    assert "c 0.269, d 0.731" in before


def test_data_may_hold_what_looks_like_the_end_of_a_script(
    open_element: Callable[..., Page],
) -> None:
    name = "</script><b>x</b><!-- & \u2028 "
    page = open_element(softmax(keys=[name, "b"]))
    assert page.evaluate("document.querySelector('tw-softmax').data.keys[0]") == name
    assert page.locator("b").count() == 0


def test_the_figure_shows_in_print_and_where_no_script_runs(
    open_element: Callable[..., Page], browser: Browser
) -> None:
    page = open_element(softmax())
    figure = page.get_by_role("img", name="The figure in its place.")
    explorer = page.get_by_role("region", name="Temperature and mask")
    assert explorer.is_visible()
    assert not figure.is_visible()
    page.emulate_media(media="print")
    assert not explorer.is_visible()
    assert figure.is_visible()

    page = browser.new_page(java_script_enabled=False)
    page.set_content(softmax()._repr_html_())
    assert page.get_by_role("img", name="The figure in its place.").is_visible()
    # Neither the data nor the module is text on the page.
    assert page.locator("body").inner_text().strip() == ""
    page.close()


def test_an_explorer_that_fails_leaves_the_figure(browser: Browser) -> None:
    page = browser.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    page.set_content(softmax(keys=None)._repr_html_())
    assert page.get_by_role("img", name="The figure in its place.").is_visible()
    assert page.locator("section").count() == 0
    assert len(errors) == 1
    page.close()


def test_the_words_are_those_of_the_picture_and_told_once_when_the_slider_rests(
    open_element: Callable[..., Page],
) -> None:
    page = open_element(softmax())
    before = told(page)
    # In one go: a busy machine may take its time between the keys of a keyboard.
    page.evaluate(
        """() => {
          window.changes = [];
          const { told, form } = document.querySelector("tw-softmax");
          new MutationObserver(() => window.changes.push(told.textContent))
            .observe(told, { childList: true });
          const slider = form.querySelector("input");
          for (let i = 0; i < 4; i += 1) {
            slider.stepUp();
            slider.dispatchEvent(new Event("input"));
          }
        }"""
    )
    after = told(page)
    assert page.evaluate("window.changes") == [after] != [before]
    assert after == page.locator("section svg").get_attribute("aria-label")
    assert "temperature 1.58" in after
    assert page.locator(".told").get_attribute("aria-live") == "polite"


def test_a_slider_says_its_value_to_screen_readers_once(open_element: Callable[..., Page]) -> None:
    slider = (page := open_element(softmax())).get_by_role("slider", name="temperature", exact=True)
    slider.press("End")
    assert slider.get_attribute("aria-valuetext") == "10.00"
    assert page.locator("output").inner_text() == "10.00"
    assert page.get_by_role("status").count() == 0


def test_the_picture_is_as_wide_as_the_page_leaves_it(open_element: Callable[..., Page]) -> None:
    page = open_element(softmax(), width=1000)
    svg = page.locator("tw-softmax section svg")
    wide = svg.bounding_box()["width"]
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function(
        "document.querySelector('tw-softmax').view.querySelector('svg').clientWidth < 390"
    )
    page.wait_for_timeout(100)
    narrow = svg.bounding_box()["width"]
    assert narrow < 390 < wide
    # Drawn for that width, not made smaller: a unit is a pixel, and text stays readable.
    assert float(svg.get_attribute("width")) == pytest.approx(narrow, abs=1)


def test_a_number_out_of_bounds_is_marked_and_not_used(open_element: Callable[..., Page]) -> None:
    element = elements.Element(
        "cost",
        {"presets": widgets.PRESETS, "accelerators": widgets.ACCELERATORS, "first": 2},
        figure(),
        True,
    )
    page = open_element(element)
    field = page.get_by_role("spinbutton", name="layers")
    layers = "document.querySelector('tw-cost').layers.read()"
    for typed, invalid, read in (("24", "false", 24), ("0", "true", 24), ("", "true", 24)):
        field.fill(typed)
        assert field.get_attribute("aria-invalid") == invalid
        assert page.evaluate(layers) == read
    page.get_by_role("combobox", name="model").select_option("BERT base")
    assert field.get_attribute("aria-invalid") == "false"
    assert field.input_value() == "12"


def test_softmax_of_nothing_is_zero(open_element: Callable[..., Page]) -> None:
    page = open_element(softmax())
    call = "{ " + re.search(r"^export (function softmax.*?^\})", BASE, flags=re.M | re.S)[1]
    for scores, expected in (
        ("[-Infinity, -Infinity]", [0, 0]),
        ("[1000, -Infinity, 1000]", [0.5, 0, 0.5]),
    ):
        assert page.evaluate(f"() => {call} return softmax({scores}); }}") == expected
