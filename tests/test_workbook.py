"""What the notebooks import: budgets, figures, explorers."""

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
    for variable in ("BUDGET", "STATIC", "GRADING", "DEVICE", "REPETITION"):
        monkeypatch.delenv(f"WORKBOOK_{variable}", raising=False)
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


def test_the_device_can_be_chosen_apart_from_the_budget(monkeypatch):
    monkeypatch.setenv("WORKBOOK_BUDGET", "smoke")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("WORKBOOK_DEVICE", " CUDA ")
    assert budget.device().type == "cuda"
    monkeypatch.setenv("WORKBOOK_BUDGET", "gpu")
    monkeypatch.setenv("WORKBOOK_DEVICE", "cpu")
    assert budget.device().type == "cpu"
    monkeypatch.setenv("WORKBOOK_DEVICE", "tpu")
    with pytest.raises(ValueError, match=r"'tpu'.*cpu or cuda"):
        budget.device()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("WORKBOOK_DEVICE", "cuda")
    with pytest.raises(ValueError, match="no CUDA device"):
        budget.device()


def test_a_repetition_moves_all_seeds_and_a_run_of_its_own_repeats(monkeypatch):
    draws = []
    for repetition in ("", "0", "1", "1"):
        monkeypatch.setenv("WORKBOOK_REPETITION", repetition)
        draws.append((torch.randn(3, generator=budget.seed(5)).tolist(), torch.randn(3).tolist()))
    assert draws[0] == draws[1] != draws[2] == draws[3]


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


def drawn(ax):
    """The pixels of the picture on ``ax``, (height, width, red green blue and opacity)."""
    (image,) = ax.images
    return torch.as_tensor(image.get_array())


def test_a_picture_is_drawn_upright_and_in_its_colors():
    _, ax = plots.figure()
    image = torch.rand(3, 2, 5, dtype=torch.float64, requires_grad=True)
    plots.picture(ax, image, "title")
    assert torch.equal(drawn(ax)[..., :3], image.detach().float().permute(1, 2, 0))
    assert (drawn(ax)[..., 3] == 1).all()
    assert ax.yaxis_inverted()  # the first row is the top
    assert ax.get_title(loc="left") == "title"


def test_one_channel_is_gray_and_numbers_are_clipped():
    _, ax = plots.figure()
    plots.picture(ax, torch.tensor([[[-1.0, 0.5, 2.0, torch.inf]]]))
    assert drawn(ax)[0, :, :3].tolist() == [[0.0] * 3, [0.5] * 3, [1.0] * 3, [1.0] * 3]


def test_what_is_hidden_is_transparent_over_hatching():
    _, (left, right) = plots.figure(2)
    image = torch.rand(3, 2, 2)
    plots.picture(left, image)
    assert not left.patches
    image[1, 0, 1] = torch.nan  # one channel is enough
    plots.picture(right, image)
    assert drawn(right)[..., 3].tolist() == [[1, 0], [1, 1]]
    (hatching,) = right.patches
    assert hatching.get_hatch()
    assert hatching.get_zorder() < right.images[0].get_zorder()


def test_the_pixels_of_a_picture_stay_sharp_in_the_page():
    fig, ax = plots.figure()
    plots.picture(ax, torch.rand(1, 3, 4))
    svg = plots.draw(fig, "x").svg
    (width, height) = re.search(r'<image [^>]*width="(\d+)" height="(\d+)"', svg).groups()
    assert (width, height) == ("4", "3")
    assert "image-rendering:pixelated" in svg


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 4), (1, 1, 4, 4), (1, 0, 4)])
def test_what_is_no_picture_is_refused(shape):
    _, ax = plots.figure()
    with pytest.raises(ValueError, match=r"\(channels, height, width\).*images\[0\]"):
        plots.picture(ax, torch.zeros(shape))


def test_pictures_are_in_rows_with_their_names():
    fig = plots.pictures({"one": torch.zeros(3, 1, 2, 2), "two": torch.ones(1, 3, 4, 4)})
    one, two = fig.axes[:3], fig.axes[3:]
    assert [len(ax.images) for ax in (*one, *two)] == [1, 1, 1, 1, 0, 0]
    assert (one[0].get_ylabel(), two[0].get_ylabel()) == ("one", "two")
    assert not two[1].axison


@pytest.mark.parametrize("shape", [(1, 4, 4), (0, 1, 4, 4)])
def test_a_row_that_is_none_is_named(shape):
    with pytest.raises(ValueError, match=r"row 'b'.*\(n, channels, height, width\).*\[None\]"):
        plots.pictures({"a": torch.zeros(1, 1, 4, 4), "b": torch.zeros(shape)})
    with pytest.raises(ValueError, match="at least one row"):
        plots.pictures({})


# The explorers


def test_weights_of_the_explorer_are_a_masked_softmax():
    weights = widgets._weights([1.0, 3.0, 2.0], 0.5, [True, False, True])
    expected = torch.softmax(torch.tensor([2.0, 4.0], dtype=torch.float64), dim=-1).tolist()
    assert weights == pytest.approx([expected[0], 0.0, expected[1]])
    assert widgets._weights([1.0, 2.0], 1.0, [False, False]) == [0.0, 0.0]


def test_sliders_need_a_kernel_and_somebody_to_move_them(monkeypatch):
    assert not widgets.is_live()
    monkeypatch.setattr(widgets, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    assert widgets.is_live()
    monkeypatch.setenv("WORKBOOK_STATIC", "1")
    assert not widgets.is_live()
    monkeypatch.delenv("WORKBOOK_STATIC")
    monkeypatch.setattr(widgets.importlib.util, "find_spec", lambda name: None)
    assert not widgets.is_live()


def test_without_a_kernel_sampling_is_told_for_five_settings(capsys):
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    widgets.explore_sampling("abc ", {"so": logits, "or so": -logits}, filter_logits)
    out = capsys.readouterr().out
    assert "each token after “so”" in out
    expected = torch.softmax(logits / 0.5, dim=-1).tolist()
    names = ("a", "b", "c", "space")
    told = ", ".join(f"{t} {p:.2f}" for t, p in zip(names, expected, strict=True))
    assert f"temperature 0.5: {told}" in out
    assert "top-k 3: a 0.67, b 0.24, c 0.09, space cut" in out
    assert "top-p 0.8: a 0.73, b 0.27, c cut, space cut" in out


def test_tokens_beyond_the_most_probable_are_told_together(capsys):
    logits = torch.linspace(-1, 1, 20)
    widgets.explore_sampling([f"t{i}" for i in range(20)], {"so": logits}, filter_logits)
    plain = logits.double().softmax(dim=-1)
    out = capsys.readouterr().out
    assert f"as it is: t19 {plain[19]:.2f}, t18" in out
    assert f"t8 {plain[8]:.2f}, 8 others {plain[:8].sum():.2f}." in out


def test_sliders_cut_the_distribution(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "is_live", lambda: True)
    monkeypatch.setattr(widgets, "display", shown.append)
    contexts = {"so": torch.tensor([2.0, 1.0, 0.0]), "or ": torch.tensor([0.0, 1.0, 2.0])}
    widgets.explore_sampling("abc", contexts, filter_logits)
    text, temperature, top_k, top_p, picture = shown[0].children
    assert "cut" not in picture.value
    top_k.value = 2
    assert "c cut" in picture.value
    top_k.value, top_p.value = 3, 0.6
    assert "b cut, c cut" in picture.value
    top_p.value, temperature.value = 1, 2
    assert "temperature 2" in picture.value
    text.value = "or␣"
    assert "“or␣”" in picture.value
    assert "temperature 2: c 0.51" in picture.value


def test_sliders_use_the_readers_own_function(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "is_live", lambda: True)
    monkeypatch.setattr(widgets, "display", shown.append)
    logits = torch.tensor([2.0, 1.0, 0.0])
    # This one forgets the temperature and the rest, and keeps the least probable token alone.
    widgets.explore_sampling("abc", {"so": logits}, lambda x, *_: (-1e9 * x).log_softmax(-1))
    assert "as it is: a cut, b cut, c 1.00" in shown[0].children[-1].value


LOGITS = torch.tensor([1.0, 0.0])


@pytest.mark.parametrize(
    ("tokens", "contexts", "why"),
    [
        ("a", {"so": LOGITS[:1]}, "at least two tokens"),
        ("ab", {}, "and a text"),
        ("abc", {"so": LOGITS}, r"shape \(2,\). Give 3"),
        ("ab", {"so": LOGITS.unsqueeze(0)}, r"shape \(1, 2\)"),
        ("ab", {"so": LOGITS.log()}, "finite"),
        ("ab" * 4001, {"so": torch.zeros(8002)}, "smaller vocabulary"),
    ],
)
def test_sampling_from_what_does_not_fit_is_refused(tokens, contexts, why):
    with pytest.raises(ValueError, match=why):
        widgets.explore_sampling(tokens, contexts, filter_logits)


def hide_left(ratio):
    """Titles and images (1, 2, 10): hidden from the left, and a guess that is 0.25 off."""
    image = torch.full((1, 2, 10), 0.5)
    hidden = torch.arange(10) < 10 * ratio
    return {
        "original": image,
        "masked": image.masked_fill(hidden, torch.nan),
        "guess": image + 0.25,
    }


def test_without_a_kernel_masking_is_told_for_each_ratio(capsys):
    widgets.explore_masking(hide_left, (0.2, 0.5))
    out = capsys.readouterr().out
    for share in ("20%", "50%"):
        assert (
            f"{share} hidden: original, masked with {share} of the pixels hidden, guess, on " in out
        )
    assert out.count("average 0.25 per pixel from original") == 2


def test_titles_are_written_where_they_are_new():
    titles = {0.1: "one", 0.2: "one", 0.3: "two"}
    fig, _ = widgets._masked(lambda ratio: {titles[ratio]: torch.zeros(1, 2, 2)}, list(titles))
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["one", "", "two"]


def test_a_slider_hides_more(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "is_live", lambda: True)
    monkeypatch.setattr(widgets, "display", shown.append)
    widgets.explore_masking(hide_left)
    slider, picture = shown[0].children
    assert (slider.min, slider.max, slider.value) == (0.25, 0.9, 0.75)
    slider.value = 0.4
    assert "masked with 40% of the pixels hidden" in picture.value


@pytest.mark.parametrize("ratios", [(), (0.5, 1.5), (-0.1,), (75,)])
def test_what_is_no_share_is_refused(ratios):
    with pytest.raises(ValueError, match="shares from 0 to 1"):
        widgets.explore_masking(hide_left, ratios)


def looking(layers=2, heads=3, rows=2, columns=3):
    """Weights of layers: head h of layer l gives 0.1 * l + 0.2 * h to patch l + h, from query q
    to the class token 0.01 * q."""
    weights = torch.zeros(layers, heads, 1 + rows * columns, 1 + rows * columns)
    for layer in range(layers):
        for head in range(heads):
            weights[layer, head, :, 1 + layer + head] = 0.1 * layer + 0.2 * head
    weights[..., 0] = 0.01 * torch.arange(1 + rows * columns)
    return list(weights)


IMAGE = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0))


def test_without_a_kernel_attention_is_told_for_each_layer_and_head(capsys):
    widgets.explore_attention(IMAGE, looking(), (2, 3))
    out = capsys.readouterr().out
    assert "The attention weights of the class token" in out
    # Layer 2, head 3: weight 0.1 + 0.4 on patch 1 + 2, the first one of the second row.
    assert "head 3 gives 0.50 to the patch in row 2, column 1, and 0.00 to the class token" in out
    assert out.count("Layer") == 2
    assert out.count("head 1 gives") == 2


def test_attention_lies_over_the_patches_in_reading_order():
    weights = torch.stack(looking())
    fig, _ = widgets._attention(IMAGE, weights, (2, 3), range(2), range(3), query=0)
    (picture, overlay) = fig.axes[5].images  # layer 2, head 3
    assert overlay.get_extent() == picture.get_extent()
    assert overlay.get_array().tolist() == weights[1, 2, 0, 1:].unflatten(0, (2, 3)).tolist()
    opacity = overlay.to_rgba(overlay.get_array())[..., 3]
    assert opacity[1, 0] == opacity.max() > 0.5
    assert opacity[0, 0] == 0
    red, green, blue, _ = torch.as_tensor(picture.get_array()).unbind(-1)
    assert torch.equal(red, green)
    assert torch.equal(green, blue)


def test_sliders_choose_layer_head_and_query(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "is_live", lambda: True)
    monkeypatch.setattr(widgets, "display", shown.append)
    widgets.explore_attention(IMAGE, looking(), (2, 3))
    layer, head, query, picture = shown[0].children
    assert (layer.max, head.max, query.max) == (2, 3, 6)
    assert "of the class token" in picture.value
    assert "Layer 1: head 1 gives 0.00" in picture.value
    layer.value, head.value, query.value = 2, 2, 5
    assert "of the patch in row 2, column 2" in picture.value
    assert "Layer 2: head 2 gives 0.30 to the patch in row 1, column 3" in picture.value
    assert "0.05 to the class token" in picture.value


def test_the_patch_that_asks_is_outlined():
    weights = torch.stack(looking())
    fig, _ = widgets._attention(IMAGE, weights, (2, 3), [0], [0], query=6)
    (outline,) = fig.axes[0].patches
    # The last patch of an image of 4 x 6 pixels, whose first pixel's middle is at 0.
    assert outline.get_xy() == (3.5, 1.5)
    assert (outline.get_width(), outline.get_height()) == (2, 2)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([], "no weights"),
        (
            [torch.zeros(2, 7, 7), torch.zeros(1, 2, 7, 7)],
            r"layer 2 .*\(1, 2, 7, 7\).*weights\[0\]",
        ),
        ([torch.zeros(2, 7, 7), torch.zeros(3, 7, 7)], "layer 2 .*as many heads"),
        ([torch.zeros(2, 6, 6)], r"layer 1 .*2 x 3 patches give \(heads, 7, 7\)"),
        ([torch.zeros(7, 7)], r"layer 1 .*\(7, 7\)"),
    ],
)
def test_weights_that_do_not_fit_the_grid_are_refused(weights, said):
    with pytest.raises(ValueError, match=said):
        widgets.explore_attention(IMAGE, weights, (2, 3))


@pytest.mark.parametrize("static", [True, False])
def test_in_a_kernel_the_explorer_is_live_and_in_the_book_a_figure(monkeypatch, static):
    if static:
        monkeypatch.setenv("WORKBOOK_STATIC", "1")
    source = (
        "from workbook.ready.gpt import filter_logits\n"
        "from workbook.widgets import explore_sampling\n"
        "import torch\n"
        "explore_sampling('ab', {'so': torch.tensor([1.0, 0.0])}, filter_logits)"
    )
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
