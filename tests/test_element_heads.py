"""Chapter 4's explorer of heads, against weights of a model built from the chapter's solutions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import barriers, tabbed, told

from workbook import elements, widgets

if TYPE_CHECKING:
    from playwright.sync_api import Page

LAYERS, HEADS = 2, 3
SENTENCES = {
    "thirty-one": (["thirty", "-", "one"], ["ein", "und", "dreißig", "<eos>"]),
    "two hundred": (["two", "hundred"], ["zwei", "hundert", "<eos>"]),
}


def sentence(text: str) -> dict[str, Any]:
    source, target = SENTENCES[text]
    generator = torch.Generator().manual_seed(len(text))

    def weights(queries: int, keys: int, causal: bool = False) -> torch.Tensor:
        scores = 3 * torch.randn(LAYERS, HEADS, queries, keys, generator=generator)
        if causal:
            barred = torch.ones(queries, keys, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(barred, -torch.inf)
        return scores.softmax(dim=-1)

    return {
        "text": text,
        "source": source,
        "target": target,
        "encoder": weights(len(source), len(source)),
        "decoder": weights(len(target), len(target), causal=True),
        "cross": weights(len(target), len(source)),
    }


@pytest.fixture
def element(shown_by: Callable[..., elements.Element]) -> elements.Element:
    return shown_by(widgets.explore_heads, [sentence(text) for text in SENTENCES])


def read(page: Page) -> list[str]:
    """The numbers under the keys."""
    return page.locator(".keys small").all_text_contents()


def choose(page: Page, label: str, index: int) -> None:
    page.get_by_role("combobox", name=label).select_option(index=index)


@pytest.mark.parametrize(
    ("text", "kind", "layer", "head", "query"),
    [
        ("thirty-one", "cross", 1, 0, 0),
        ("thirty-one", "cross", 0, 2, 3),
        ("thirty-one", "encoder", 1, 1, 2),
        ("two hundred", "encoder", 0, 0, 1),
        ("two hundred", "decoder", 1, 2, 1),
        ("two hundred", "cross", 0, 1, 2),
    ],
)
def test_the_weights_are_those_of_the_model(
    open_element: Callable[..., Page],
    element: elements.Element,
    text: str,
    kind: str,
    layer: int,
    head: int,
    query: int,
) -> None:
    page = open_element(element)
    choose(page, "sentence", list(SENTENCES).index(text))
    choose(page, "attention", ["encoder", "decoder", "cross"].index(kind))
    choose(page, "layer", layer)
    choose(page, "head", head)
    page.locator(".queries input").first.focus()
    for _ in range(query):
        page.keyboard.press("ArrowRight")
    row = sentence(text)[kind][layer, head, query]
    shown = read(page)
    if kind == "decoder":
        assert shown[query + 1 :] == ["barred"] * (len(row) - query - 1)
        shown = shown[: query + 1]
    # Rounded twice: to thousandths in the data, to hundredths on the page.
    wanted = row[: len(shown)].tolist()
    assert [float(number) for number in shown] == pytest.approx(wanted, abs=0.0056)

    words = told(page, f"(token {query + 1}), head {head + 1} of layer {layer + 1} reads")
    most = row.argmax().item()
    assert f"({most + 1}) {shown[most]}" in words.split("reads")[1].split(",")[0]
    # The same rows in the map, with a cell as strong as its weight.
    strengths = [
        float(cell.get_attribute("fill-opacity")) for cell in page.locator("rect.cell").all()
    ]
    every = sentence(text)[kind][layer, head].flatten()
    assert strengths == pytest.approx(every[every.mul(1000).round() >= 5].tolist(), abs=6e-4)


def test_moving_over_a_token_or_a_row_asks_for_it(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    page.locator(".queries label").nth(2).hover()
    assert page.locator(".queries input").nth(2).is_checked()
    assert told(page, "“dreißig” (token 3)")
    page.locator("rect.catch").nth(1).hover()
    assert page.locator(".queries input").nth(1).is_checked()
    assert page.locator("text.chosen").all_text_contents()[-1] == "und"


def test_another_sentence_has_its_own_tokens(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    page.locator(".queries input").last.check(force=True)
    choose(page, "sentence", 1)
    assert page.locator(".queries .token").all_text_contents() == SENTENCES["two hundred"][1]
    assert page.locator(".queries input").last.is_checked()
    # The decoder reads what it has written, behind <bos>.
    choose(page, "attention", 1)
    assert page.locator(".queries .token").all_text_contents() == ["<bos>", "zwei", "hundert"]


def test_the_keyboard_reaches_every_control(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    inner = "document.querySelector('tw-heads').shadowRoot.activeElement"
    reached = tabbed(page, 5, f"{inner}.ariaLabel ?? {inner}.parentElement.firstChild.data")
    assert reached == ["sentence", "attention", "layer", "head", "ein, 1"]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    # The focus is kept, although the picture was drawn anew.
    assert page.evaluate(f"{inner}.ariaLabel") == "dreißig, 3"


@pytest.mark.parametrize(("theme", "width"), [("light", 1000), ("dark", 390)])
def test_it_fits_and_axe_finds_nothing(
    open_element: Callable[..., Page], element: elements.Element, theme: str, width: int
) -> None:
    page = open_element(element, theme=theme, width=width)
    told(page, "reads")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not barriers(page)


def test_in_print_a_figure_stands_in(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    page.emulate_media(media="print")
    assert page.get_by_role("img", name=re.compile("^Attention weights of the first")).is_visible()
    assert not page.locator("section").is_visible()
    best = sentence("thirty-one")["cross"][-1, 0].argmax(dim=-1).tolist()
    source, target = SENTENCES["thirty-one"]
    pairs = ", ".join(f"{token} reads {source[k]}" for token, k in zip(target, best, strict=True))
    assert f"cross: {pairs}." in element.fallback.alt


def test_sentences_that_do_not_fit_on_a_page_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(elements, "show", lambda *arguments: shown.append(arguments))
    long = {"text": "long", "source": ["word"] * 40, "target": ["Wort"] * 40}
    long |= {kind: torch.full((2, 4, 40, 40), 1 / 40) for kind in ("encoder", "decoder", "cross")}
    short = {"text": "short", "source": ["a"] * 4, "target": ["b"] * 4}
    short |= {kind: torch.full((2, 4, 4, 4), 0.25) for kind in ("encoder", "decoder", "cross")}
    widgets.explore_heads([short, short, long])
    [(name, data, _)] = shown
    assert name == "heads"
    assert [each["text"] for each in data["sentences"]] == ["short", "short"]
    assert len(json.dumps(data, separators=(",", ":"))) < 60_000


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        widgets.explore_heads([])
    wrong = sentence("thirty-one")
    wrong["cross"] = wrong["cross"].transpose(-2, -1)
    with pytest.raises(ValueError, match=r"cross weights of 'thirty-one'.*\(2, 3, 4, 3\)"):
        widgets.explore_heads([wrong])
