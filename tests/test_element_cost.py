"""Chapter 2's cost calculator, against chapter 2's formula, PyTorch's counter and real models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import barriers, tabbed, told
from torch.utils.flop_counter import FlopCounterMode

from workbook import elements, widgets
from workbook.ready.bert import BertModel
from workbook.ready.gpt import GPT
from workbook.ready.multi_head import attention_flops
from workbook.ready.transformer import Transformer

if TYPE_CHECKING:
    from playwright.sync_api import Page

A100 = next(entry for entry in widgets.ACCELERATORS if "A100" in entry["name"])


@pytest.fixture
def element(shown_by: Callable[..., elements.Element]) -> elements.Element:
    return shown_by(widgets.explore_cost)


def choose(page: Page, **values: Any) -> dict[str, float]:
    """Set the controls of these labels, and return all numbers that the explorer computes."""
    for label, value in values.items():
        if label == "n":
            slider = page.get_by_role("slider", name="tokens n")
            slider.press("Home")  # 16 tokens; four steps double them
            for _ in range(4 * (int(value).bit_length() - 5)):
                slider.press("ArrowRight")
        elif isinstance(value, str):
            page.get_by_role("combobox", name=label, exact=True).select_option(label=value)
        else:
            page.get_by_role("spinbutton", name=label).fill(str(value))
    return page.evaluate("document.querySelector('tw-cost').numbers()")


def cell(page: Page, name: str) -> str:
    return page.get_by_role("row", name=name).get_by_role("cell").first.inner_text()


def counted(model: torch.nn.Module, *inputs: torch.Tensor) -> int:
    """The operations of a forward pass, as PyTorch counts them."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(*inputs)
    return counter.get_total_flops()


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# The formulas


@pytest.mark.parametrize(
    ("n", "d", "heads", "layers", "batch"), [(16, 8, 2, 1, 1), (512, 512, 8, 6, 3)]
)
def test_attention_is_counted_as_in_the_exercise(
    open_element: Callable[..., Page],
    element: elements.Element,
    n: int,
    d: int,
    heads: int,
    layers: int,
    batch: int,
) -> None:
    page = open_element(element)
    sizes = {"width d": d, "heads": heads, "layers": layers, "vocabulary": 0, "sequences": batch}
    found = choose(page, kind="decoder only", n=n, **sizes)
    exact = batch * layers * attention_flops(n, d, heads)
    assert found["projections"] + found["lookups"] == exact
    assert found["lookups"] == batch * layers * (attention_flops(n, d, heads) - 8 * n * d**2)
    # Without a vocabulary: 8 n d^2 and 16 n d^2 against 4 n^2 d.
    assert found["crossover"] == pytest.approx(6 * d)


def test_operations_and_parameters_are_those_of_real_modules(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    n, d, layers, heads, vocabulary, batch = 32, 24, 3, 4, 50, 2
    sizes = {"layers": layers, "width d": d, "heads": heads, "vocabulary": vocabulary}
    tokens = torch.ones(batch, n, dtype=torch.long)

    gpt = GPT(vocabulary, n, d, layers, heads)
    found = choose(page, kind="decoder only", n=n, sequences=batch, **sizes)
    assert found["flops"] == counted(gpt, tokens)
    last_norm, positions = 2 * d, n * d
    assert found["parameters"] == parameters(gpt) - last_norm - positions

    bert = BertModel(vocabulary, d, layers, heads, 4 * d, max_length=n)
    found = choose(page, kind="encoder only")
    pooler = 2 * batch * d**2
    assert found["flops"] == counted(bert, tokens) - pooler
    rest = sum(parameters(part) for part in (bert.embeddings, bert.pooler))
    assert found["parameters"] == parameters(bert) - rest + vocabulary * d

    both = Transformer(vocabulary, d, heads, layers, 4 * d)
    found = choose(page, kind="encoder and decoder")
    assert found["flops"] == counted(both, tokens, tokens)
    assert found["parameters"] == parameters(both)


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        # Vaswani et al. 2017, table 3; Devlin et al. 2019; the checkpoint; Brown et al. 2020.
        ("Transformer base", 65e6),
        ("BERT base", 110e6),
        ("GPT-2 small", 124_439_808),
        ("GPT-3 175B", 175e9),
    ],
)
def test_presets_have_about_the_published_parameters(
    open_element: Callable[..., Page], element: elements.Element, preset: str, published: float
) -> None:
    page = open_element(element)
    found = choose(page, model=preset)
    assert found["parameters"] == pytest.approx(published, rel=0.03)
    assert page.get_by_role("combobox", name="model").input_value() == str(
        [entry["name"] for entry in widgets.PRESETS].index(preset)
    )
    assert told(page, preset)


def test_gpt_2_and_bert_have_exactly_the_parameters_of_their_checkpoints(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    d = 768
    # Position table and last norm of GPT-2; positions, segments, a norm and the pooler of BERT.
    assert choose(page, model="GPT-2 small")["parameters"] == 124_439_808 - 1024 * d - 2 * d
    rest = (512 + 2) * d + 2 * d + d**2 + d
    assert choose(page, model="BERT base")["parameters"] == 109_482_240 - rest


def test_memory_is_that_of_real_tensors(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    n, d, layers, heads, vocabulary, batch = 64, 32, 2, 4, 10, 3
    sizes = {"layers": layers, "width d": d, "heads": heads, "vocabulary": vocabulary}
    model = Transformer(vocabulary, d, heads, layers, 4 * d).eval()
    found = choose(
        page, kind="encoder and decoder", n=n, sequences=batch, numbers="float32", **sizes
    )
    maps, cached = [], []
    for name, module in model.named_modules():
        if not name.endswith("attn"):
            continue
        module.register_forward_hook(lambda _m, _i, out: maps.append(out[1].nbytes))
        if name.startswith("decoder"):
            for projection in (module.w_k, module.w_v):
                projection.register_forward_hook(lambda _m, _i, out: cached.append(out.nbytes))
    tokens = torch.ones(batch, n, dtype=torch.long)
    with torch.no_grad():
        model(tokens, tokens)
    assert len(maps) == 3 * layers
    assert found["maps"] == sum(maps)
    assert found["cache"] == sum(cached)
    assert found["weights"] == 4 * parameters(model)

    half = choose(page, numbers="bfloat16")
    assert all(half[name] == found[name] / 2 for name in ("maps", "cache", "weights"))
    assert choose(page, kind="encoder only")["cache"] == 0


def test_time_is_the_longer_of_computing_and_reading(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    found = choose(page, model="GPT-2 small", n=16, on=A100["name"])
    assert found["computing"] == pytest.approx(found["flops"] / A100["bfloat16"])
    assert found["reading"] == pytest.approx(found["weights"] / A100["bandwidth"])
    assert found["seconds"] == found["reading"] > found["computing"]
    assert "reading the weights takes longer" in told(page, "n = 16:")

    found = choose(page, numbers="float32", n=1024)
    assert found["computing"] == pytest.approx(found["flops"] / A100["float32"])
    assert found["seconds"] == found["computing"] > found["reading"]
    assert "computing takes longer" in told(page, "n = 1,024:")


def test_an_encoder_does_not_read_its_whole_table_of_embeddings(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    found = choose(page, model="BERT base", on=A100["name"])
    layers = found["weights"] - 2 * 30_522 * 768
    assert found["reading"] == pytest.approx(layers / A100["bandwidth"])
    assert found["output"] == 0


# What is on the screen


def test_the_table_and_the_words_say_what_was_computed(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    found = choose(page, model="GPT-2 small", n=1024, on=A100["name"])
    gpt2 = 12 * attention_flops(1024, 768, 12)
    assert found["projections"] + found["lookups"] == gpt2
    assert cell(page, "lookups") == f"{found['lookups'] / 1e9:.1f} GFLOP (13 %)"
    assert cell(page, "together") == f"{found['flops'] / 1e9:.0f} GFLOP"
    assert cell(page, "weights 247") == f"{found['weights'] / 1e6:.0f} MB"
    assert cell(page, "attention maps") == "302 MB"
    assert cell(page, "keys and values") == "37.7 MB"
    assert cell(page, "at least") == f"{found['seconds'] * 1e6:.0f} µs"
    words = told(page, "GPT-2 small at n = 1,024: ")
    assert f"{found['flops'] / 1e9:.0f} GFLOP, 13 % of them for the lookups" in words
    assert f"overtakes all else at n = {found['crossover']:,.0f}" in words
    alt = page.locator("section svg").get_attribute("aria-label")
    assert f"The lines cross at n = {found['crossover']:,.0f}." in alt
    link = page.get_by_role("link", name="data sheet of the A100")
    assert link.get_attribute("href") == A100["url"]


def test_the_crossover_is_where_the_lines_meet(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    choose(page, model="BERT base", vocabulary=0)
    assert "equal at n = 4,608" in page.locator("section svg").text_content()
    blue, orange = page.locator("line.part").all()[:2]

    def ends(line: Any) -> list[float]:
        return [float(line.get_attribute(name)) for name in ("x1", "y1", "x2", "y2")]

    (x1, b1, x2, b2), (_, o1, _, o2) = ends(blue), ends(orange)
    meeting = x1 + (x2 - x1) * (o1 - b1) / ((o1 - b1) - (o2 - b2))
    assert float(page.locator("line.meet").get_attribute("x1")) == pytest.approx(meeting)

    choose(page, **{"width d": 30_000})
    assert page.locator("line.meet").count() == 0
    assert "equal only at n = 180,000" in page.locator("section svg").text_content()


def test_what_is_changed_is_no_preset_and_what_cannot_be_is_named(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    model = page.get_by_role("combobox", name="model")
    choose(page, model="GPT-3 175B")
    assert "do not fit into its 80 GB" in told(page, "GPT-3")
    choose(page, heads=97)
    assert model.input_value() == str(len(widgets.PRESETS))
    assert "97 heads do not divide d" in told(page, "This model")
    choose(page, heads=96)
    assert told(page, "GPT-3 175B")
    assert model.input_value() == "3"


def test_the_keyboard_reaches_every_control(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    page = open_element(element)
    active = "document.querySelector('tw-cost').shadowRoot.activeElement"
    name = f"({active}.labels ?? [{active}])[0].firstChild.textContent"
    assert tabbed(page, 11, name) == [
        *("model", "kind", "layers", "width d", "heads", "vocabulary", "tokens n"),
        *("sequences", "numbers", "on", "NVIDIA's data sheet of the A100"),
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1000])
def test_it_fits_and_axe_finds_nothing(
    open_element: Callable[..., Page], element: elements.Element, theme: str, width: int
) -> None:
    page = open_element(element, theme=theme, width=width)
    choose(page, model="GPT-3 175B")
    told(page, "GPT-3")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    view = "document.querySelector('tw-cost').view"
    assert page.evaluate(f"{view}.scrollWidth <= {view}.clientWidth")
    assert not barriers(page)


def test_the_figure_in_print_has_the_numbers_of_the_explorer(
    open_element: Callable[..., Page], element: elements.Element
) -> None:
    found = choose(open_element(element))
    alt = element.fallback.alt
    assert f"n = 512 the lookups take {found['lookups']:.2g} operations" in alt
    assert f"all else takes {found['flops'] - found['lookups']:.2g}." in alt
    assert f"cross at n = {found['crossover']:,.0f}." in alt


def test_an_unknown_preset_is_refused_with_the_names_of_those_that_are_there() -> None:
    with pytest.raises(ValueError, match=r"'GPT-5'.*Transformer base.*GPT-3 175B"):
        widgets.explore_cost("GPT-5")
