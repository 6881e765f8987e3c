"""Chapter 4's explorer of beam search: what it shows is what the chapter's search does."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import barriers, tabbed, told

from tests.conftest import solution
from workbook import elements, widgets

if TYPE_CHECKING:
    from playwright.sync_api import Page

BOS, EOS = 1, 2
NAMES = ["<pad>", "<bos>", "<eos>", "zwei", "hundert", "tausend", "sieben", "zig"]
LONGEST = 6
DROPPED, LIVES, FINISHED = 0, 1, 2


def next_log_probs(prefixes: torch.Tensor) -> torch.Tensor:
    """A made-up model: each prefix has its own distribution, always the same."""
    rows = []
    for prefix in prefixes.tolist():
        seed = sum((place + 1) * 37**place * token for place, token in enumerate(prefix))
        generator = torch.Generator().manual_seed(seed % 2**31)
        logits = 2 * torch.randn(len(NAMES), generator=generator)
        logits[[0, BOS]] = -torch.inf
        rows.append(logits.log_softmax(dim=-1))
    return torch.stack(rows)


def search(size: int, model: Any = next_log_probs) -> tuple[list[int], float]:
    return solution("transformer/beam_search")(model, BOS, EOS, size, LONGEST)


def text(tokens: list[int]) -> str:
    return "".join(NAMES[token] for token in tokens)


@pytest.fixture
def element(shown_by: Callable[..., elements.Element]) -> elements.Element:
    return shown_by(
        widgets.explore_beam,
        solution("transformer/beam_search"),
        next_log_probs,
        BOS,
        EOS,
        LONGEST,
        NAMES.__getitem__,
        source="two",
        wanted="zwei",
    )


def minus(x: float, digits: int = 2) -> str:
    return f"{x:.{digits}f}".replace("-", "−")


def steps_of(size: int) -> list[list[tuple[list[int], float, float, int]]]:
    """The steps of beam search, written a second time: all extensions, sorted.

    Each step: (tokens, log-probability of the last, sum, fate), best first.
    """
    live: list[tuple[list[int], float]] = [([], 0.0)]
    steps = []
    while live and len(steps) < LONGEST:
        every = []
        for tokens, total in live:
            row = next_log_probs(torch.tensor([[BOS, *tokens]]))[0].double().tolist()
            every += [([*tokens, i], p, total + p) for i, p in enumerate(row) if p > -math.inf]
        every.sort(key=lambda each: -each[2])
        step = []
        for place, (tokens, p, total) in enumerate(every[: size + 3]):
            over = tokens[-1] == EOS or len(steps) + 1 == LONGEST
            step.append((tokens, p, total, DROPPED if place >= size else 1 + over))
        live = [(tokens, total) for tokens, _, total, fate in step if fate == LIVES]
        steps.append(step)
    return steps


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_recorded_steps_are_those_of_the_algorithm(
    element: elements.Element, index: int
) -> None:
    recorded = element.data["searches"][index]
    assert recorded["size"] == (1, 2, 4)[index]
    paths = []
    for step, wanted in zip(recorded["steps"], steps_of(recorded["size"]), strict=True):
        before = paths[-1] if paths else [""]
        paths.append([before[parent] + token for parent, token, *_ in step])
        assert paths[-1] == [text(tokens) for tokens, *_ in wanted]
        for (_, _, log_prob, total, fate), (_, *numbers, true_fate) in zip(
            step, wanted, strict=True
        ):
            assert [log_prob, total] == pytest.approx(numbers, abs=1e-9)
            assert fate == true_fate


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_result_on_screen_is_that_of_beam_search(
    open_element: Callable[..., Page], element: elements.Element, size: int
) -> None:
    page = open_element(element)
    page.get_by_role("combobox", name="beam size").select_option(str(size))
    page.get_by_role("button", name="To the end").press("Enter")
    tokens, score = search(size)
    result = f"{text(tokens)} ({minus(score, 3)})"
    assert page.locator("dd").all_text_contents()[-1] == result
    best = page.locator("tr.best").locator("th, td").all_text_contents()
    assert best[:2] + best[3:] == [text(tokens), str(len(tokens)), minus(score, 3)]
    # The bold line of the tree spells it.
    assert page.locator("g.best text").all_text_contents() == [NAMES[t] for t in tokens]

    greedy, greedy_score = search(1)
    assert page.locator("dd").all_text_contents()[2] == f"{text(greedy)} ({minus(greedy_score, 3)})"
    same = "the same as greedy" if tokens == greedy else "not what greedy writes"
    assert f"The best score is {minus(score, 3)}: {text(tokens)}, {same}." in told(page, "best")


def test_a_beam_of_one_is_greedy_decoding(element: elements.Element) -> None:
    class Model:
        def encode(self, source: torch.Tensor) -> torch.Tensor:
            return source

        def decode(self, target: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return next_log_probs(target).unsqueeze(1)

    source = torch.zeros(1, 1, dtype=torch.int64)
    tokens = solution("transformer/greedy_decode")(Model(), source, BOS, EOS, LONGEST)
    assert element.data["greedy"]["text"] == text(tokens[0].tolist())


def test_steps_go_forward_and_back_by_keyboard(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    steps = steps_of(2)
    forward = page.get_by_role("button", name="Step forward")

    def rows() -> list[list[str]]:
        table = page.locator("table").first
        return [
            row.locator("th, td").all_text_contents() for row in table.locator("tbody tr").all()
        ]

    def wanted(number: int) -> list[list[str]]:
        fates = ["dropped", "kept", "finished"]
        return [
            [text(tokens), minus(p), minus(total), fates[fate]]
            for tokens, p, total, fate in steps[number - 1]
        ]

    forward.focus()
    for number in range(1, 4):
        assert rows() == wanted(number)
        kept = sum(fate != DROPPED for step in steps[:number] for *_, fate in step)
        assert page.locator("rect.node").count() == kept
        forward.press("Enter")
    page.get_by_role("button", name="Step back").press("Space")
    assert rows() == wanted(3)
    for _ in range(4):
        page.get_by_role("button", name="Step back").press("Space")
    assert page.locator("table").count() == 0
    assert "Step forward to extend" in told(page, "empty hypothesis")


def test_the_keyboard_reaches_every_control_also_at_the_ends(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    inner = "document.querySelector('tw-beam').shadowRoot.activeElement"
    reached = tabbed(page, 4, f"{inner}.tagName + {inner}.textContent")
    assert reached[0].startswith("SELECT")
    assert reached[1:] == ["BUTTONStep back", "BUTTONStep forward", "BUTTONTo the end"]
    page.keyboard.press("Enter")
    assert page.evaluate(f"{inner}.textContent") == "To the end"
    assert page.evaluate(f"{inner}.ariaDisabled") == "true"


@pytest.mark.parametrize(("theme", "width"), [("light", 1000), ("dark", 390)])
def test_it_fits_and_axe_finds_nothing(
    open_element: Callable[..., Page], element: elements.Element, theme: str, width: int
) -> None:
    page = open_element(element, theme=theme, width=width)
    page.get_by_role("combobox", name="beam size").select_option("4")
    page.get_by_role("button", name="To the end").click()
    told(page, "best score")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not barriers(page)


def test_in_print_a_figure_stands_in(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    page.emulate_media(media="print")
    assert page.get_by_role("img", name=re.compile("^What the searches find")).is_visible()
    assert not page.locator("section").is_visible()
    for size in (2, 4):
        tokens, score = search(size)
        assert f"beam of {size}: {text(tokens)}, score {score:.3f}" in element.fallback.alt


def test_the_data_are_small(element: elements.Element) -> None:
    assert len(json.dumps(elements._rounded(element.data))) < 60_000


def test_a_search_with_other_steps_is_refused() -> None:
    def careless(ask: Any, *_: object) -> tuple[list[int], float]:
        ask(torch.tensor([[BOS]]))
        ask(torch.tensor([[BOS, 0]]))  # never among the best
        return [0], 0.0

    def inventive(*arguments: Any) -> tuple[list[int], float]:
        _, score = solution("transformer/beam_search")(*arguments)
        return [0, 0, 0], score

    for wrong, message in ((careless, "Step 2 of the search"), (inventive, "result of the search")):
        with pytest.raises(ValueError, match=f"{message}.*check"):
            widgets.explore_beam(
                wrong, next_log_probs, BOS, EOS, LONGEST, NAMES.__getitem__, source="two"
            )
