"""What the notebooks import: budgets, the training loop, figures, the softmax explorer."""

import re
import subprocess
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import nbclient
import nbformat
import pytest
import torch

from workbook import budget, plots, widgets
from workbook.ready.gpt import filter_logits


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for variable in ("WORKBOOK_BUDGET", "WORKBOOK_STATIC", "WORKBOOK_GRADING"):
        monkeypatch.delenv(variable, raising=False)
    yield
    plt.close("all")


# Budgets


def test_the_machine_decides_where_nothing_is_set(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert budget.name() == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert budget.name() == "gpu"


@pytest.mark.parametrize("name", budget.NAMES)
def test_the_variable_overrides_the_machine(monkeypatch, name):
    monkeypatch.setenv("WORKBOOK_BUDGET", f" {name.upper()} ")
    assert budget.name() == name
    assert budget.choose(smoke="smoke", cpu="cpu", gpu="gpu") == name


def test_an_unknown_budget_is_refused_with_the_three_names(monkeypatch):
    monkeypatch.setenv("WORKBOOK_BUDGET", "huge")
    with pytest.raises(ValueError, match=r"'huge'.*smoke, cpu, gpu"):
        budget.name()


def test_grading_is_smoke_unless_told_otherwise(monkeypatch):
    monkeypatch.setenv("WORKBOOK_GRADING", "1")
    assert budget.name() == "smoke"
    monkeypatch.setenv("WORKBOOK_BUDGET", "cpu")
    assert budget.name() == "cpu"


def test_a_size_that_one_budget_forgets_is_named():
    with pytest.raises(ValueError, match="'gpu' budget lacks steps"):
        budget.choose(smoke={"steps": 1}, cpu={"steps": 2}, gpu={})


def test_only_the_gpu_budget_computes_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert budget.device().type == "cuda"
    monkeypatch.setenv("WORKBOOK_BUDGET", "smoke")
    assert budget.device().type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("WORKBOOK_BUDGET", "gpu")
    assert budget.device().type == "cpu"


def test_a_seed_repeats_both_kinds_of_random_numbers():
    first = torch.randn(3, generator=budget.seed(5)), torch.randn(3)
    second = torch.randn(3, generator=budget.seed(5)), torch.randn(3)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(torch.randn(3, generator=budget.seed(6)), first[0])


# Figures


def contrast(first, second):
    """The WCAG 2 contrast ratio of two colors, given as #rrggbb."""

    def luminance(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("ground", ["#ffffff", "#121212"])
@pytest.mark.parametrize("color", [*plots.COLORS, plots.INK])
def test_colors_read_on_light_and_dark(color, ground):
    assert contrast(color, ground) >= 3.5


def curve_figure():
    fig, ax = plots.figure()
    plots.curves(ax, {"one": [3, 2, 1], "two": [3, 3, 2]}, title="loss")
    ax.text(1, 2, "a remark in Matplotlib's own black")
    return fig


def test_a_figure_has_its_text_alternative_and_the_color_of_the_page():
    drawing = plots.draw(curve_figure(), 'Two curves, "one" & <two>.')
    root = ElementTree.fromstring(drawing.svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'Two curves, "one" & <two>.'
    assert "currentColor" in drawing.svg
    assert plots.INK not in drawing.svg
    assert not re.search(r"(fill|stroke): #(000000|ffffff)", drawing.svg)
    assert repr(drawing) == '[figure] Two curves, "one" & <two>.'


def test_a_figure_without_alternative_is_refused():
    with pytest.raises(ValueError, match="alt"):
        plots.show(curve_figure(), alt=" ")


def test_a_figure_is_the_same_every_time_and_closed():
    assert plots.draw(curve_figure(), "x").svg == plots.draw(curve_figure(), "x").svg
    assert plt.get_fignums() == []


def test_a_figure_is_not_rendered_while_grading(monkeypatch, capsys):
    monkeypatch.setenv("WORKBOOK_GRADING", "1")
    plots.show(curve_figure(), alt="Two curves.")
    assert capsys.readouterr().out == ""
    assert plt.get_fignums() == []


def test_an_attention_map_puts_queries_in_rows_from_the_top():
    fig, ax = plots.figure()
    weights = torch.tensor([[0.9, 0.1, 0.0], [0.25, 0.5, 0.25]], requires_grad=True)
    plots.attention_map(ax, weights, ["a", "b"], ["x", "y", "z"], numbers=True)
    fig.canvas.draw()
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["x", "y", "z"]
    written = {t.get_text(): ax.transData.transform(t.get_position()) for t in ax.texts}
    assert written["0.90"][1] > written["0.50"][1]
    assert written["0.90"][0] < written["0.10"][0]


def test_an_attention_map_names_labels_that_do_not_fit():
    _, ax = plots.figure()
    with pytest.raises(ValueError, match=r"\(1, 2, 2\).*2 query and 2 key.*weights\[0\]"):
        plots.attention_map(ax, torch.zeros(1, 2, 2), "ab", "xy")


def test_a_signed_map_is_blue_above_0_orange_below_and_empty_at_0_and_minus_infinity():
    _, ax = plots.figure()
    plots.signed_map(ax, torch.tensor([[2.0, -2.0], [0.0, -torch.inf]]))
    (image,) = ax.images
    (blue, orange), (zero, barred) = image.to_rgba(image.get_array())
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
    assert (blue[3], orange[3]) == (1, 1)
    assert zero[3] == barred[3] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("value", [0.0, -torch.inf])
def test_a_signed_map_of_nothing_is_empty(value):
    _, ax = plots.figure()
    plots.signed_map(ax, torch.full((2, 3), value))
    (image,) = ax.images
    assert image.to_rgba(image.get_array())[..., 3].max() == pytest.approx(0, abs=0.02)


def test_a_lookup_shows_every_text():
    fig = plots.lookup("q", ["k1", "k2"], [0.25, 0.75], ["v1", "v2"], "result")
    texts = {text.get_text() for text in fig.axes[0].texts}
    assert {"q", "k1", "k2", "0.25", "0.75", "v1", "v2", "result"} <= texts


# The explorer


def test_weights_of_the_explorer_are_a_masked_softmax():
    weights = widgets._weights([1.0, 3.0, 2.0], 0.5, [True, False, True])
    expected = torch.softmax(torch.tensor([2.0, 4.0], dtype=torch.float64), dim=-1).tolist()
    assert weights == pytest.approx([expected[0], 0.0, expected[1]])
    assert widgets._weights([1.0, 2.0], 1.0, [False, False]) == [0.0, 0.0]


def test_without_a_kernel_the_explorer_tells_its_figure(capsys):
    widgets.explore_softmax({"a": 0, "b": 0})
    out = capsys.readouterr().out
    assert "temperature 0.3: a 0.50, b 0.50" in out
    assert "a masked: a 0.00, b 1.00" in out


def test_one_score_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        widgets.explore_softmax({"a": 1})


def clock(length, speeds):
    """Positions as sines and cosines, (length, 2 * speeds)."""
    angle = torch.arange(length)[:, None] / torch.tensor(speeds)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)


def test_without_a_kernel_positions_are_told_by_their_dot_products(capsys):
    widgets.explore_positions(clock(8, [1.0, 10.0]))
    out = capsys.readouterr().out
    assert "A row of 2 clocks for each of the positions 0, 1, 2, 4." in out
    # Each clock's hand has length 1, so a position's dot product with itself counts them.
    assert out.count("with itself 2.0") == 4


def test_the_slider_moves_the_clocks(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "is_live", lambda: True)
    monkeypatch.setattr(widgets, "display", shown.append)
    widgets.explore_positions(clock(8, [1.0]))
    slider, picture = shown[0].children
    assert "positions 0." in picture.value
    slider.value = 5
    assert "positions 5." in picture.value


@pytest.mark.parametrize("shape", [(4, 3), (1, 2), (4,)])
def test_a_table_without_pairs_or_positions_is_refused(shape):
    with pytest.raises(ValueError, match=r"shape .* sinusoidal_encoding\(64, 12\)"):
        widgets.explore_positions(torch.zeros(shape))


def test_sliders_need_a_kernel_and_somebody_to_move_them(monkeypatch):
    assert not widgets.is_live()
    monkeypatch.setattr(widgets, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    assert widgets.is_live()
    monkeypatch.setenv("WORKBOOK_STATIC", "1")
    assert not widgets.is_live()
    monkeypatch.delenv("WORKBOOK_STATIC")
    monkeypatch.setattr(widgets.importlib.util, "find_spec", lambda name: None)
    assert not widgets.is_live()


def test_sliders_redraw_the_bars(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "is_live", lambda: True)
    monkeypatch.setattr(widgets, "display", shown.append)
    widgets.explore_softmax({"a": 0, "b": 0})
    slider, row, picture = shown[0].children
    assert "a 0.50, b 0.50" in picture.value
    row.children[1].value = False
    assert "a 0.00, b 1.00" in picture.value
    slider.value = 10.0
    assert "temperature 10" in picture.value


def test_without_a_kernel_sampling_is_told_for_five_settings(capsys):
    widgets.explore_sampling({"a": 2.0, "b": 1.0, "c": 0.0, "d": -1.0}, filter_logits)
    out = capsys.readouterr().out
    expected = torch.softmax(torch.tensor([2.0, 1.0, 0.0, -1.0]) / 0.5, dim=-1).tolist()
    told = ", ".join(f"{t} {p:.2f}" for t, p in zip("abcd", expected, strict=True))
    assert f"temperature 0.5: {told}" in out
    assert "top-k 3: a 0.67, b 0.24, c 0.09, d cut" in out
    assert "top-p 0.8: a 0.73, b 0.27, c cut, d cut" in out


def test_sliders_cut_the_distribution(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "is_live", lambda: True)
    monkeypatch.setattr(widgets, "display", shown.append)
    widgets.explore_sampling({"a": 2.0, "b": 1.0, "c": 0.0}, filter_logits)
    temperature, top_k, top_p, picture = shown[0].children
    assert "cut" not in picture.value
    top_k.value = 2
    assert "c cut" in picture.value
    top_k.value, top_p.value = 3, 0.6
    assert "b cut, c cut" in picture.value
    top_p.value, temperature.value = 1.0, 2.0
    assert "temperature 2" in picture.value


def test_sampling_from_one_token_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        widgets.explore_sampling({"a": 1.0}, filter_logits)


@pytest.mark.parametrize("static", [True, False])
def test_in_a_kernel_the_explorer_is_live_and_in_the_book_a_figure(monkeypatch, static):
    if static:
        monkeypatch.setenv("WORKBOOK_STATIC", "1")
    source = "from workbook.widgets import explore_softmax\nexplore_softmax()"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    types = {key for output in outputs for key in output.get("data", {})}
    assert ("application/vnd.jupyter.widget-view+json" in types) is not static
    assert ("widgets" in notebook.metadata) is not static
    assert ("text/html" in types) is static
    assert not [o for o in outputs if o.output_type in ("stream", "error")]


# The package


def test_importing_the_package_writes_nothing():
    code = "import workbook.budget, workbook.training, workbook.plots, workbook.widgets"
    result = subprocess.run(
        [sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == result.stderr == ""
