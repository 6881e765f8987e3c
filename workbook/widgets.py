"""Explorers: custom elements with their data, or sliders where the reader's own code runs."""

import base64
import importlib.util
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from workbook import budget, elements, plots
from workbook.showing import display, get_ipython

# What the explorers of sampling offer; at the end of each list nothing is cut.
TEMPERATURES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 3, 5)
TOP_K = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 40, 60, None)
TOP_P = (*(step / 20 for step in range(1, 20)), 1)
UNSEEN = {" ": "space", "\n": "line break", "\t": "tab"}  # tokens that are called by a name

# Of rotary encoding, as in chapter 3.
ROTARY_BASE = 10000.0
SCORES = {"the": 1.0, "tired": 3.0, "cat": 4.0, "slept": 2.0}

# Models whose cost can be explored; layers and width from their papers. With kind "both", layers
# counts those of the encoder, and the decoder has as many. Feed-forward layers are 4 * width wide.
PRESETS: tuple[dict[str, Any], ...] = (
    {
        "name": "Transformer base",
        "kind": "both",
        "layers": 6,
        "width": 512,
        "heads": 8,
        "vocabulary": 37_000,
        "length": 512,
        "remark": "65 million parameters according to the paper (Vaswani et al., 2017, table 3).",
    },
    {
        "name": "BERT base",
        "kind": "encoder",
        "layers": 12,
        "width": 768,
        "heads": 12,
        "vocabulary": 30_522,
        "length": 512,
        "remark": "110 million parameters according to the paper (Devlin et al., 2019), with its "
        "position table and pooler, which are not counted here.",
    },
    {
        "name": "GPT-2 small",
        "kind": "decoder",
        "layers": 12,
        "width": 768,
        "heads": 12,
        "vocabulary": 50_257,
        "length": 1024,
        "remark": "124 million parameters as published (Radford et al., 2019), with its position "
        "table, which is not counted here.",
    },
    {
        "name": "GPT-3 175B",
        "kind": "decoder",
        "layers": 96,
        "width": 12_288,
        "heads": 96,
        "vocabulary": 50_257,
        "length": 2048,
        "remark": "175 billion parameters according to the paper (Brown et al., 2020). Half of its "
        "layers have sparse attention; here all are counted as dense.",
    },
)
# Peak operations per second for dense matrices, bytes per second and bytes of memory, from
# NVIDIA's data sheets. Those of the H100 and H200 give 1,979 TFLOP/s "with sparsity", which is
# twice the figure for dense matrices. float32 is without TF32, as is PyTorch's default.
ACCELERATORS: tuple[dict[str, Any], ...] = (
    {
        "name": "NVIDIA T4",
        "float32": 8.1e12,
        "bfloat16": 65e12,
        "bandwidth": 320e9,
        "memory": 16e9,
        "source": "NVIDIA's data sheet of the T4",
        "url": "https://www.nvidia.com/en-us/data-center/tesla-t4/",
        "remark": "The T4 has no unit for bfloat16: the figure is that of float16. Its memory is "
        "given as 300 or 320 GB/s; the larger keeps the time a lower bound.",
    },
    {
        "name": "NVIDIA A100 (80 GB, SXM)",
        "float32": 19.5e12,
        "bfloat16": 312e12,
        "bandwidth": 2.039e12,
        "memory": 80e9,
        "source": "NVIDIA's data sheet of the A100",
        "url": "https://www.nvidia.com/en-us/data-center/a100/",
    },
    {
        "name": "NVIDIA H100 (SXM)",
        "float32": 67e12,
        "bfloat16": 1979e12 / 2,
        "bandwidth": 3.35e12,
        "memory": 80e9,
        "source": "NVIDIA's data sheet of the H100",
        "url": "https://www.nvidia.com/en-us/data-center/h100/",
    },
    {
        "name": "NVIDIA H200 (SXM)",
        "float32": 67e12,
        "bfloat16": 1979e12 / 2,
        "bandwidth": 4.8e12,
        "memory": 141e9,
        "source": "NVIDIA's data sheet of the H200",
        "url": "https://www.nvidia.com/en-us/data-center/h200/",
    },
)


def is_live() -> bool:
    """Say whether sliders would work: a kernel runs, ipywidgets is there, someone may look."""
    has_kernel = getattr(get_ipython(), "kernel", None) is not None
    has_widgets = importlib.util.find_spec("ipywidgets") is not None
    return has_kernel and has_widgets and not budget.static() and not budget.grading()


def _follow(
    controls: Sequence[Any], figure: Callable[[], tuple[Figure, str]], rows: Sequence[Any] = ()
) -> None:
    """Display controls, and below them a figure that is drawn anew when one of them changes.

    ``figure()`` returns it with its description. ``rows``: how the controls are laid out, where
    not one below the other.
    """
    import ipywidgets  # here, so that the course also runs where it is not installed

    picture = ipywidgets.HTML()

    def redraw(_change: object = None) -> None:
        picture.value = plots.draw(*figure()).svg

    for control in controls:
        control.observe(redraw, names="value")
    redraw()
    display(ipywidgets.VBox([*(rows or controls), picture]))


def explore_softmax(scores: Mapping[str, float] | None = None) -> None:
    """Explore what temperature and mask do to the softmax of ``scores`` (key: score).

    A slider for the temperature, a box for each key, and bars that follow; in print, a figure of
    three temperatures and one mask. Raises ``ValueError`` for fewer than two scores, and for one
    that is no finite number.
    """
    scores = dict(SCORES if scores is None else scores)
    if len(scores) < 2 or not all(map(math.isfinite, scores.values())):
        raise ValueError(
            "Give at least two scores, all of them finite, for example "
            "explore_softmax({'a': 1, 'b': 2})."
        )
    everything = [True] * len(scores)
    best = max(scores, key=scores.__getitem__)
    panels = [(t, everything) for t in (0.3, 1.0, 4.0)]
    panels.append((1.0, [key != best for key in scores]))
    data = {"keys": list(scores), "scores": [float(score) for score in scores.values()]}
    elements.show("softmax", data, plots.draw(*_bars(scores, panels)))


def _weights(scores: Sequence[float], temperature: float, allowed: Sequence[bool]) -> list[float]:
    """Return the softmax of ``scores / temperature`` over the allowed keys, 0 for the others."""
    mask = torch.tensor(allowed)
    logits = torch.tensor(scores, dtype=torch.float64) / temperature
    weights = torch.softmax(logits.masked_fill(~mask, float("-inf")), dim=-1)
    return weights.masked_fill(~mask, 0.0).tolist()


def _bars(
    scores: Mapping[str, float], panels: Sequence[tuple[float, Sequence[bool]]]
) -> tuple[Figure, str]:
    """Return a figure with one bar chart per (temperature, allowed keys), and its description."""
    fig, axes = plots.figure(
        len(panels), width=max(4.5, 2.1 * len(panels)), height=2.4, sharey=True, squeeze=False
    )
    told = []
    for ax, (temperature, allowed) in zip(axes[0], panels, strict=True):
        weights = _weights(list(scores.values()), temperature, allowed)
        barred = [key for key, may in zip(scores, allowed, strict=True) if not may]
        title = f"temperature {temperature:.2g}" + (
            f"\n{', '.join(barred)} masked" if barred else ""
        )
        ax.bar(range(len(scores)), weights, color=plots.BLUE)
        for position, weight in enumerate(weights):
            ax.text(
                position, weight + 0.02, f"{weight:.2f}", ha="center", color=plots.INK, fontsize=8
            )
        ax.set_xticks(range(len(scores)), scores)
        ax.set(ylim=(0, 1.1), title=title)
        ax.grid(axis="x", visible=False)
        parts = (f"{key} {weight:.2f}" for key, weight in zip(scores, weights, strict=True))
        told.append(f"{title.replace(chr(10), ', ')}: {', '.join(parts)}")
    axes[0][0].set_ylabel("weight")
    return fig, "Bar charts of softmax weights. " + ". ".join(told) + "."


def explore_cost(preset: str = "Transformer base") -> None:
    """Explore what one forward pass of a Transformer costs: operations, memory, time on a GPU.

    ``preset``: the model to begin with, one of ``PRESETS``. In print, a figure of its operations
    against the number of tokens. Raises ``ValueError`` for an unknown name.
    """
    names = [entry["name"] for entry in PRESETS]
    if preset not in names:
        raise ValueError(f"There is no preset {preset!r}. There are: {', '.join(names)}.")
    first = names.index(preset)
    data = {"presets": PRESETS, "accelerators": ACCELERATORS, "first": first}
    elements.show("cost", data, plots.draw(*_operations(PRESETS[first])))


def _operations(model: Mapping[str, Any]) -> tuple[Figure, str]:
    """Return a figure of a model's operations against the tokens, and its description.

    They come from the same formulas as in the explorer, one line for each power of the length.
    """
    width, layers = model["width"], model["layers"]
    blocks, attentions = (2 * layers, 3 * layers) if model["kind"] == "both" else (layers, layers)
    vocabulary = 0 if model["kind"] == "encoder" else model["vocabulary"]
    linear = (8 * attentions + 16 * blocks) * width**2 + 2 * width * vocabulary  # per token
    square = 4 * attentions * width  # per pair of tokens
    crossover = linear / square
    lengths = [2**power for power in range(4, 18)]
    fig, ax = plots.figure()
    lines = {
        "all else, grows with n": [linear * n for n in lengths],
        "lookups, grow with n²": [square * n**2 for n in lengths],
    }
    plots.curves(ax, lines, x=lengths, xlabel="tokens n", ylabel="operations (FLOP)")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(lengths[::2], [f"{n:,}" for n in lengths[::2]])
    ax.axvline(crossover, color=plots.INK, linestyle=":", linewidth=1)
    ax.text(crossover, square * lengths[0] ** 2, f" equal at n = {crossover:,.0f}", fontsize=9)
    n = model["length"]
    return fig, (
        f"Operations of a forward pass of {model['name']} against the number of tokens, both axes "
        f"logarithmic. At n = {n:,} the lookups take {square * n**2:.2g} operations, and all else "
        f"takes {linear * n:.2g}. The lines cross at n = {crossover:,.0f}."
    )


def explore_positions(
    encoding: torch.Tensor,
    query: torch.Tensor | None = None,
    key: torch.Tensor | None = None,
    *,
    position: int = 0,
    distance: int = 3,
) -> None:
    """Explore two positions: each pair of columns is a clock, and each position has a hand in it.

    encoding: (length, d_model), as ``sinusoidal_encoding`` gives. query, key: one vector each,
    (d_model), before positions come in; with them the reader switches between sinusoids that are
    added to the two and rotary encoding, which turns them. position and distance: where the first
    stands at the start, and where the second does, as seen from the first.

    Raises ``ValueError`` where there are no pairs of columns, fewer than two positions, or shapes
    that do not fit together.
    """
    if budget.grading():  # nobody looks, and drawing takes time
        return
    if encoding.ndim != 2 or encoding.shape[0] < 2 or encoding.shape[1] % 2:
        raise ValueError(
            f"The encoding has the shape {tuple(encoding.shape)}. Give a table of positions and "
            "pairs of columns, for example sinusoidal_encoding(64, 12)."
        )
    encoding = encoding.detach().cpu().float()
    width = encoding.shape[1]
    data: dict[str, Any] = {"table": encoding.tolist(), "base": ROTARY_BASE}
    data |= {"position": position, "distance": distance}
    if query is None and key is None:
        length = len(encoding)
        drawing = _clocks(encoding, sorted({0, 1, length // 4, length // 2}))
    else:
        shapes = [None if v is None else tuple(v.shape) for v in (query, key)]
        if shapes != [(width,)] * 2:
            raise ValueError(
                f"Query and key have the shapes {shapes[0]} and {shapes[1]}. Give both, each with "
                f"as many entries as the encoding has columns: ({width},)."
            )
        query, key = (v.detach().cpu().float() for v in (query, key))
        data |= {"query": query.tolist(), "key": key.tolist()}
        drawing = _scores_by_distance(encoding, query, key)
    elements.show("positions", data, plots.draw(*drawing))


def _scores_by_distance(
    encoding: torch.Tensor, query: torch.Tensor, key: torch.Tensor
) -> tuple[Figure, str]:
    """Return a figure of scores against the distance, and its description.

    With sinusoids added, for the query at two positions; with rotary encoding, where one curve
    holds for all.
    """
    width = len(query)
    span = len(encoding) // 3
    distance = torch.arange(-span, span + 1)
    fig, (left, right) = plots.figure(2, width=8.4, height=2.8, sharey=True)
    added = {}
    for position in (span, len(encoding) - 1 - span):
        keys = key + encoding[position + distance]
        added[f"query at {position}"] = keys @ (query + encoding[position]) / width**0.5
    # Turned by m and n, two pairs have the product Re(conj(q) k e^(i (n - m) theta)).
    pairs = [torch.view_as_complex(v.view(-1, 2)) for v in (query, key)]
    angle = distance[:, None] * ROTARY_BASE ** (-torch.arange(0, width, 2) / width)
    turns = torch.polar(torch.ones_like(angle), angle)
    turned = (pairs[0].conj() * pairs[1] * turns).sum(dim=-1).real / width**0.5
    axes = {"x": distance, "xlabel": "distance of the key", "ylabel": "score"}
    plots.curves(left, added, title="sinusoids added", **axes)
    plots.curves(right, {"anywhere": turned}, title="rotary, query anywhere", **axes)
    right.set_ylabel("")
    here, there = added
    apart = (added[here] - added[there]).abs().max()
    return fig, (
        "The score of a query with a key against the distance of the key. With sinusoids added to "
        f"both, the curves for the {here} and at {there.split()[-1]} differ by up to {apart:.2f}. "
        "With rotary encoding one curve holds wherever the query stands; it is largest, "
        f"{turned.max():.2f}, at distance {distance[turned.argmax()]}."
    )


def _clocks(encoding: torch.Tensor, positions: Sequence[int]) -> tuple[Figure, str]:
    """Return a figure, and its description: for each position a row of clocks and a curve.

    The curve holds the dot products of the position's row with every row of the encoding.
    """
    pairs = encoding.shape[1] // 2
    fig, (left, right) = plots.figure(
        2,
        width=8.4,
        # As tall as the round clocks leave it, so that each curve is beside its row.
        height=max(0.4, 8.4 / (pairs + 8.5)) * len(positions) + 0.95,
        gridspec_kw={"width_ratios": (pairs + 2, 6)},
    )
    circle = torch.linspace(0, 2 * torch.pi, 61)
    products = encoding[list(positions)] @ encoding.T  # (shown positions, length)
    lowest, highest = products.min(), products.max()
    for row, position in enumerate(positions):
        color = plots.COLORS[row % len(plots.COLORS)]
        for pair in range(pairs):
            sine, cosine = encoding[position, 2 * pair : 2 * pair + 2].tolist()
            left.plot(
                pair + 0.38 * circle.sin(), -row + 0.38 * circle.cos(), color=plots.INK, lw=0.8
            )
            # Upward at position 0, then clockwise: the sine goes to the right.
            left.plot([pair, pair + 0.38 * sine], [-row, -row + 0.38 * cosine], color=color)
        left.text(-0.6, -row, f"position {position}", ha="right", va="center", color=plots.INK)
        height = 0.8 * (products[row] - lowest) / (highest - lowest) - 0.4 - row
        right.plot(height, color=color, linewidth=1.5)
        right.plot(position, height[position], color=color, marker="o")
    rows = (0.6 - len(positions), 0.6)
    left.set(xlim=(-2.6, pairs - 0.4), ylim=rows, aspect="equal")
    left.set_title("one clock per pair of columns", loc="left", fontsize=10)
    left.axis("off")
    right.set(ylim=rows, yticks=[], xlabel="other position")
    right.set_title("dot product with every position", loc="left", fontsize=10)
    right.spines["left"].set_visible(False)
    told = "; ".join(
        f"position {p} with itself {row[p]:.1f}, on average {row.mean():.1f}"
        for p, row in zip(positions, products, strict=True)
    )
    return fig, (
        f"A row of {pairs} clocks for each of the positions {', '.join(map(str, positions))}. The "
        "clocks on the left turn fast, those on the right slowly. Beside them, the dot products of "
        f"the position's vector with those of all positions, largest at the position: {told}."
    )


def explore_sampling(
    tokens: Sequence[str],
    contexts: Mapping[str, torch.Tensor],
    filter_logits: Callable[..., torch.Tensor],
) -> None:
    """Explore what temperature, top-k and top-p leave of what a model expects next.

    tokens: the vocabulary, in the order of the ids. contexts: a text so far -> the logits of what
    follows it, (vocab_size); they are taken to four decimals. ``filter_logits(logits,
    temperature, top_k, top_p)`` is chapter 6's, usually the reader's own. With a kernel: a list of
    the texts, three sliders, and bars that follow, by this function. Without one: an explorer
    that also draws, and does what chapter 6's solution does. Raises ``ValueError`` for fewer than
    two tokens, for no text, for logits that do not fit the tokens, and for more than 8,000 of them.
    """
    if len(tokens) < 2 or not contexts:
        raise ValueError(
            "Give at least two tokens and a text, for example "
            "explore_sampling(['a', 'b'], {'so far': torch.tensor([1.0, 2.0])}, filter_logits)."
        )
    size = len(tokens)
    for text, logits in contexts.items():
        if tuple(logits.shape) != (size,) or not logits.isfinite().all():
            raise ValueError(
                f"The logits after {text!r} have the shape {tuple(logits.shape)}. Give {size} "
                "finite ones, one for each token: model(token_ids)[0, -1]."
            )
    if size * len(contexts) > 8000:
        raise ValueError(
            f"{len(contexts)} texts with {size} logits each make a page too heavy. Give fewer "
            "texts, or a model with a smaller vocabulary."
        )
    if budget.grading():
        return
    names = [UNSEEN.get(token) or _visible(token).replace(" ", "␣") for token in tokens]
    # Rounded before anything else, so that every version shows the same numbers.
    scores = {
        re.sub(" $", "␣", _visible(text)): logits.detach().cpu().double().round(decimals=4)
        for text, logits in contexts.items()
    }
    limits = [k for k in TOP_K if k is None or k < size]
    if not is_live():
        settings = [(1.0, size, 1.0), (0.5, size, 1.0), (2.0, size, 1.0)]
        settings += [(1.0, 3, 1.0), (1.0, size, 0.8)]
        first, logits = next(iter(scores.items()))
        data = {
            "tokens": names,
            "contexts": [{"text": text, "logits": x.tolist()} for text, x in scores.items()],
            "temperatures": TEMPERATURES,
            "top_k": limits,
            "top_p": TOP_P,
            "named": 16,
        }
        drawing = plots.draw(*_sampled(first, names, logits, filter_logits, settings, named=12))
        elements.show("sampling", data, drawing)
        return

    import ipywidgets  # here, so that the course also runs where it is not installed

    controls = [
        ipywidgets.Dropdown(options=list(scores), description="text so far"),
        ipywidgets.SelectionSlider(options=TEMPERATURES, value=1, description="temperature"),
        ipywidgets.SelectionSlider(
            options=[("off" if k is None else str(k), k or size) for k in limits],
            value=size,
            description="top-k",
        ),
        ipywidgets.SelectionSlider(options=TOP_P, value=1, description="top-p"),
    ]

    def figure() -> tuple[Figure, str]:
        text, *setting = (control.value for control in controls)
        return _sampled(text, names, scores[text], filter_logits, [tuple(setting)], named=16)

    _follow(controls, figure)


def _visible(text: str) -> str:
    """Return ``text`` with signs for what one cannot see."""
    return text.translate(str.maketrans({"\n": "↵", "\t": "⇥"}))


def _sampled(
    text: str,
    tokens: Sequence[str],
    logits: torch.Tensor,
    filter_logits: Callable[..., torch.Tensor],
    settings: Sequence[tuple[float, int, float]],
    named: int,
) -> tuple[Figure, str]:
    """Return a figure with bars for each (temperature, top_k, top_p), and its description.

    The ``named`` most probable tokens have a bar each, and all others one together.
    """
    order = logits.argsort(descending=True, stable=True)
    rows = [tokens[i] for i in order[:named].tolist()]
    if len(tokens) > named:
        rows.append(f"{len(tokens) - named} others")

    def bars(logits: torch.Tensor) -> list[float]:
        shares = logits.softmax(dim=-1)[order]
        return (*shares[:named].tolist(), shares[named:].sum().item())[: len(rows)]

    plain = bars(logits)
    fig, axes = plots.figure(
        len(settings),
        width=max(4.5, 1.9 * len(settings)),
        height=0.24 * len(rows) + 0.9,
        sharey=True,
        squeeze=False,
    )
    told = []
    for ax, (temperature, top_k, top_p) in zip(axes[0], settings, strict=True):
        left = bars(filter_logits(logits, temperature, top_k, top_p))
        changed = [f"temperature {temperature:.2g}"] if temperature != 1 else []
        changed += [f"top-k {top_k}"] if top_k < len(tokens) else []
        changed += [f"top-p {top_p:.2g}"] if top_p < 1 else []
        title = "\n".join(changed) or "as it is"
        # The outline is the distribution before: what was cut, and what has grown, shows.
        places = range(len(rows))
        ax.barh(places, plain, height=0.8, fill=False, edgecolor=plots.INK, linewidth=0.8)
        ax.barh(places, left, height=0.8, color=plots.BLUE)
        for row, share in enumerate(left):
            note = f" {share:.2f}" if share else " cut"
            end = max(share, plain[row])
            ax.text(end, row, note, va="center", color=plots.INK, fontsize=8)
        ax.set_yticks(places, rows)
        ax.set_title(title, fontsize=9)
        ax.set(xlim=(0, 1.25), xticks=[0, 0.5, 1])
        ax.grid(axis="y", visible=False)
        parts = (
            f"{name} {share:.2f}" if share else f"{name} cut"
            for name, share in zip(rows, left, strict=True)
        )
        told.append(f"{', '.join(changed) or 'as it is'}: {', '.join(parts)}")
    axes[0][0].invert_yaxis()  # once: the panels share the axis
    said = f"Bar charts of the probability of each token after “{text}”. "
    return fig, said + ". ".join(told) + "."


def explore_masking(
    pictures: Callable[[float], Mapping[str, torch.Tensor]],
    ratios: Sequence[float] = (0.25, 0.5, 0.75, 0.9),
    *,
    images: Mapping[str, torch.Tensor] | None = None,
    paint: Callable[[torch.Tensor, float], tuple[torch.Tensor, Mapping[str, torch.Tensor]]]
    | None = None,
    draws: int = 5,
) -> None:
    """Explore what hiding a share of an image's patches does.

    ``pictures(ratio)`` returns title -> image, (channels, height, width), NaN where hidden. With a
    kernel: a slider from the smallest to the largest of ``ratios``. Without one: a figure with a
    row for each of them.

    With ``images`` and ``paint`` a page without a kernel has an explorer in place of the figure.
    ``images`` are name -> image. ``paint(images, ratio)`` takes (n, channels, height, width),
    and returns which patches it hid, (n, rows, columns), and name -> images of the same shape:
    what the model painted, then what its opponents did. It is asked once for each ratio, with
    ``draws`` copies of each image, so that each copy can have a mask of its own.

    Raises ``ValueError`` where there is no ratio, or one not from 0 to 1, and where what ``paint``
    returns does not fit.
    """
    if not ratios or not all(0 <= ratio <= 1 for ratio in ratios):
        raise ValueError(f"The ratios are {ratios!r}. Give shares from 0 to 1, as in (0.5, 0.75).")
    if (images is None) != (paint is None):
        raise ValueError("Give images and paint together: what is painted, and what paints it.")
    if not is_live():
        fig, alt = _masked(pictures, ratios)
        if images is None:
            plots.show(fig, alt)
        else:
            data = _reconstructions(images, paint, ratios, draws)
            elements.show("masking", data, plots.draw(fig, alt))
        return

    import ipywidgets  # here, so that the course also runs where it is not installed

    ratio = ipywidgets.FloatSlider(
        value=sorted(ratios)[len(ratios) // 2],
        min=min(ratios),
        max=max(ratios),
        step=0.05,
        description="hidden",
        readout_format=".0%",
    )
    _follow([ratio], lambda: _masked(pictures, [ratio.value]))


def _reconstructions(
    images: Mapping[str, torch.Tensor],
    paint: Callable[[torch.Tensor, float], tuple[torch.Tensor, Mapping[str, torch.Tensor]]],
    ratios: Sequence[float],
    draws: int,
) -> dict[str, Any]:
    """Return what the explorer of masking shows: each image at each ratio, with several masks."""
    if not images or draws < 1:
        raise ValueError("Give at least one image and one draw, as in images={'a cat': image}.")
    originals = torch.stack(list(images.values()))
    many = originals.repeat_interleave(draws, dim=0)
    height, width = many.shape[-2:]
    shown: list[list[list[dict[str, Any]]]] = [[] for _ in images]
    for ratio in ratios:
        hidden, painted = paint(many, ratio)
        shapes = {name: tuple(guess.shape) for name, guess in painted.items()}
        fits = hidden.ndim == 3 and len(hidden) == len(many)
        if not fits or height % hidden.shape[1] or width % hidden.shape[2]:
            raise ValueError(
                f"paint said with the shape {tuple(hidden.shape)} which patches are hidden. Give "
                f"({len(many)}, rows, columns) for images of {height} x {width} pixels."
            )
        if set(shapes.values()) != {tuple(many.shape)}:
            raise ValueError(f"paint got images of the shape {tuple(many.shape)}: {shapes}.")
        if not hidden.flatten(1).any(dim=1).all():
            raise ValueError(f"At a ratio of {ratio} no patch is hidden. Leave such a ratio out.")
        rows, columns = hidden.shape[1:]
        pixels = hidden.repeat_interleave(height // rows, 1).repeat_interleave(width // columns, 2)
        judged = pixels[:, None].expand(many.shape).float().flatten(1)
        errors = [
            ((guess.float() - many).square().flatten(1) * judged).sum(1) / judged.sum(1)
            for guess in painted.values()
        ]
        records = [
            {
                "mask": "".join("01"[patch] for patch in patches),
                "painted": _pixels(guess),
                "errors": list(wrong),
            }
            for patches, guess, wrong in zip(
                hidden.flatten(1).int().tolist(),
                next(iter(painted.values())),
                torch.stack(errors, dim=1).tolist(),
                strict=True,
            )
        ]
        for i, place in enumerate(shown):
            place.append(records[i * draws : (i + 1) * draws])
    return {
        "size": [height, width],
        "grid": [rows, columns],
        "names": list(painted),
        "images": [{"name": k, "pixels": _pixels(image)} for k, image in images.items()],
        "shown": shown,  # image, ratio, draw
    }


def _pixels(image: torch.Tensor) -> str:
    """Return an image, (channels, height, width), as bytes in base64: row, column, channel."""
    whole = (255 * image.detach().cpu().float().clamp(0, 1)).round().to(torch.uint8)
    return base64.b64encode(whole.permute(1, 2, 0).contiguous().numpy().tobytes()).decode()


def _masked(
    pictures: Callable[[float], Mapping[str, torch.Tensor]], ratios: Sequence[float]
) -> tuple[Figure, str]:
    """Return a figure with a row of pictures per ratio, and its description."""
    rows = {f"{ratio:.0%} hidden": pictures(ratio) for ratio in ratios}
    fig, axes = plots.grid(len(rows), max(map(len, rows.values())), side=1.7, titled=True)
    told = []
    above = []
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        # The same titles in every row would only be noise.
        plots.picture_row(line, name, images.values(), images if list(images) != above else ())
        above = list(images)
        told.append(f"{name}: {', '.join(_told(images))}")
    return fig, "Pictures by the share of hidden patches. " + ". ".join(told) + "."


def _told(images: Mapping[str, torch.Tensor]) -> list[str]:
    """Say of each picture what is hidden, or else how far it is from the first whole one."""
    first = None
    parts = []
    for title, image in images.items():
        hidden = image.isnan().any(dim=0).float().mean().item()
        if hidden:
            parts.append(f"{title} with {hidden:.0%} of the pixels hidden")
        elif first and images[first].shape == image.shape:
            away = (image - images[first]).abs().mean()
            parts.append(f"{title}, on average {away:.2f} per pixel from {first}")
        else:
            first = title
            parts.append(title)
    return parts


def explore_attention(
    image: torch.Tensor, weights: Sequence[torch.Tensor], grid: tuple[int, int]
) -> None:
    """Explore where the layers and heads of a Vision Transformer look in ``image``.

    image: (channels, height, width). weights: for each layer (heads, 1 + patches, 1 + patches),
    the class token first. grid: (rows, columns) of patches. With a kernel: sliders for layer,
    head and query. Without one: a figure with a row per layer and a column per head, the class
    token being the query. Raises ``ValueError`` where the shapes do not fit together.
    """
    rows, columns = grid
    length = 1 + rows * columns
    if not len(weights):
        raise ValueError("There are no weights. Give a list of them, one entry per layer.")
    for layer, matrices in enumerate(weights, start=1):
        if matrices.ndim != 3 or tuple(matrices.shape) != (len(weights[0]), length, length):
            raise ValueError(
                f"The weights of layer {layer} have the shape {tuple(matrices.shape)}. For a grid "
                f"of {rows} x {columns} patches give (heads, {length}, {length}) for each layer, "
                "with as many heads in each; take one image of a batch, as in weights[0]."
            )
    weights = torch.stack([matrices.detach().cpu().float() for matrices in weights])
    layers, heads = map(range, weights.shape[:2])
    if not is_live():
        plots.show(*_attention(image, weights, grid, layers, heads, query=0))
        return

    import ipywidgets  # here, so that the course also runs where it is not installed

    layer = ipywidgets.IntSlider(value=1, min=1, max=len(layers), description="layer")
    head = ipywidgets.IntSlider(value=1, min=1, max=len(heads), description="head")
    query = ipywidgets.IntSlider(value=0, min=0, max=length - 1, description="query")
    _follow(
        [layer, head, query],
        lambda: _attention(image, weights, grid, [layer.value - 1], [head.value - 1], query.value),
    )


def _attention(
    image: torch.Tensor,
    weights: torch.Tensor,
    grid: tuple[int, int],
    layers: Sequence[int],
    heads: Sequence[int],
    query: int,
) -> tuple[Figure, str]:
    """Return a figure with a query's weights for each layer and head, and its description.

    weights: (layers, heads, 1 + patches, 1 + patches). Each panel's color is solid at its own
    largest weight: a weight of 1/64 would else not show.
    """
    rows, columns = grid
    height, width = image.shape[-2:]
    # In gray, so that all color is weight.
    gray = image.detach().cpu().float().mean(dim=0, keepdim=True)
    side = 3.2 if len(layers) == len(heads) == 1 else 1.3
    fig, axes = plots.grid(len(layers), len(heads), side, titled=True)

    def place(patch: int) -> str:
        return f"row {patch // columns + 1}, column {patch % columns + 1}"

    told = []
    for line, layer in zip(axes, layers, strict=True):
        own, *patches = weights[layer, heads, query].T  # each of them has an entry per head
        largest, strongest = torch.stack(patches).max(dim=0)
        titles = [f"head {head + 1}: {most:.2f}" for head, most in zip(heads, largest, strict=True)]
        plots.picture_row(line, f"layer {layer + 1}", [gray] * len(heads), titles)
        parts = []
        for i, (ax, head) in enumerate(zip(line, heads, strict=True)):
            ax.imshow(
                weights[layer, head, query, 1:].unflatten(0, grid).numpy(),
                cmap=plots.OVERLAY,
                vmin=0,
                vmax=largest[i].item() or 1,  # a query may look at no patch at all
                interpolation="none",
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            )
            if query:
                tall, wide = height / rows, width / columns
                row, column = divmod(query - 1, columns)
                corner = column * wide - 0.5, row * tall - 0.5
                ax.add_patch(
                    Rectangle(corner, wide, tall, fill=False, edgecolor=plots.BLUE, linewidth=2)
                )
            parts.append(
                f"head {head + 1} gives {largest[i]:.2f} to the patch in "
                f"{place(strongest[i].item())}, and {own[i]:.2f} to the class token"
            )
        told.append(f"Layer {layer + 1}: {'; '.join(parts)}")
    asking = f"the patch in {place(query - 1)}" if query else "the class token"
    return fig, (
        f"The attention weights of {asking}, as color over the image; the number is the largest "
        f"weight of a patch. {'. '.join(told)}."
    )


def explore_heads(sentences: Sequence[Mapping[str, Any]]) -> None:
    """Explore what the heads of a trained encoder-decoder read, token by token.

    Each sentence has its ``text``; the pieces ``source`` and ``target``, where the target ends
    with what the decoder writes last and has no <bos>; and three tensors of weights: ``encoder``
    (layers, heads, L_s, L_s), ``decoder`` (layers, heads, L_t, L_t) and ``cross`` (layers, heads,
    L_t, L_s). A page has room for 60 kB of weights: sentences after that are left out. Raises
    ``ValueError`` where there is no sentence, or shapes do not fit.
    """
    if budget.grading():  # nobody looks, and drawing takes time
        return
    if not sentences:
        raise ValueError("There is no sentence. Give a list with at least one.")
    heads = tuple(sentences[0]["cross"].shape[:2])
    shown: list[dict[str, Any]] = []
    size = 0
    for sentence in sentences:
        source, target = len(sentence["source"]), len(sentence["target"])
        entry = {key: sentence[key] for key in ("text", "source", "target")}
        for kind, lengths in {
            "encoder": (source, source),
            "decoder": (target, target),
            "cross": (target, source),
        }.items():
            weights = sentence[kind].detach().cpu()
            if tuple(weights.shape) != heads + lengths:
                raise ValueError(
                    f"The {kind} weights of {sentence['text']!r} have the shape "
                    f"{tuple(weights.shape)}. Give (layers, heads, queries, keys), here "
                    f"{heads + lengths}."
                )
            # As whole thousandths: a third of the characters.
            entry[kind] = (1000 * weights).round().int().flatten().tolist()
        size += len(json.dumps(entry, separators=(",", ":")))
        if shown and size > 59_000:
            break
        shown.append(entry)
    data = {"layers": heads[0], "heads": heads[1], "sentences": shown}
    elements.show("heads", data, plots.draw(*_three_attentions(sentences[0])))


def _three_attentions(sentence: Mapping[str, Any]) -> tuple[Figure, str]:
    """Return a figure with one head of each kind in the last layer, and its description."""
    source, target = list(sentence["source"]), list(sentence["target"])
    read = ["<bos>", *target[:-1]]
    fig, axes = plots.figure(3, width=10.0, height=0.17 * max(len(source), len(target)) + 1.5)
    told = []
    for ax, (kind, queries, keys) in zip(
        axes,
        (("encoder", source, source), ("decoder", read, read), ("cross", target, source)),
        strict=True,
    ):
        weights = sentence[kind][-1, 0].detach().cpu()
        plots.attention_map(ax, weights, queries, keys, kind)
        ax.tick_params(labelsize=7)
        ax.tick_params(axis="x", rotation=90)
        pairs = zip(queries, weights.argmax(dim=-1).tolist(), strict=True)
        told.append(f"{kind}: " + ", ".join(f"{query} reads {keys[k]}" for query, k in pairs))
    return fig, (
        f"Attention weights of the first head in the last layer, for {sentence['text']!r}: within "
        "the encoder, within the decoder, where what is later is barred, and from the decoder to "
        f"the source. The largest weight of each row. {'; '.join(told)}."
    )


def explore_beam(
    beam_search: Callable[..., tuple[list[int], float]],
    next_log_probs: Callable[[torch.Tensor], torch.Tensor],
    bos_id: int,
    eos_id: int,
    max_length: int,
    spell: Callable[[int], str],
    *,
    source: str,
    wanted: str = "",
    beam_sizes: Sequence[int] = (1, 2, 4),
    length_penalty: float = 0.6,
) -> None:
    """Explore how ``beam_search`` finds its result, step by step, for several sizes of the beam.

    ``beam_search`` and ``next_log_probs`` are chapter 4's: the search runs once for each size, and
    what it asks and is told is recorded. ``spell(id)`` is a token's text; ``source`` and
    ``wanted`` are shown beside the results. Raises ``ValueError`` where the search does not keep
    the best sums, so that its steps cannot be told.
    """
    if budget.grading():  # nobody looks, and searching takes time
        return
    ask = (beam_search, next_log_probs, bos_id, eos_id)
    limits = (max_length, length_penalty)
    greedy, *searches = [_search(*ask, size, *limits) for size in (1, *beam_sizes)]

    def text(tokens: Sequence[int]) -> str:
        return "".join(map(spell, tokens))

    for search in searches:
        for step in search["steps"]:
            for extension in step:
                extension[1] = spell(extension[1])
    data = {
        "source": source,
        "wanted": wanted + (spell(eos_id) if wanted else ""),
        "penalty": length_penalty,
        "greedy": {"text": text(greedy["tokens"]), "score": greedy["score"]},
        "searches": [
            {key: search[key] for key in ("size", "steps", "extensions")} for search in searches
        ],
    }
    wider = {f"beam of {search['size']}": search for search in searches if search["size"] > 1}
    results = {"greedy": greedy} | wider
    fig, ax = plots.figure(height=0.55 * len(results) + 0.9)
    ax.barh(range(len(results)), [s["score"] for s in results.values()], 0.3, color=plots.BLUE)
    ax.set_yticks(range(len(results)), results)
    ax.set(xlabel="score", ylim=(len(results) - 0.6, -0.6))
    ax.set_title(source, loc="left", fontsize=10)
    ax.grid(axis="y", visible=False)
    told = []
    for row, (name, search) in enumerate(results.items()):
        written = text(search["tokens"])
        # Above its bar, from the left edge; however long it is, it moves nothing.
        place = {"transform": ax.get_yaxis_transform(), "in_layout": False, "clip_on": True}
        ax.text(0.01, row - 0.25, written, fontsize=8, **place)
        told.append(f"{name}: {written}, score {search['score']:.3f}")
    alt = f"What the searches find for {source!r}. {'; '.join(told)}."
    elements.show("beam", data, plots.draw(fig, alt))


def _search(
    beam_search: Callable[..., tuple[list[int], float]],
    next_log_probs: Callable[[torch.Tensor], torch.Tensor],
    bos_id: int,
    eos_id: int,
    beam_size: int,
    max_length: int,
    length_penalty: float,
) -> dict[str, Any]:
    """Run a beam search and return its result and its steps.

    A step is a list of the best extensions: [place of the parent in the step before, token,
    log-probability, sum, fate], where fate is 0 for what is dropped, 1 for what lives on and 2
    for what is finished. A few more are listed than are kept.
    """
    asked: list[tuple[list[tuple[int, ...]], torch.Tensor]] = []

    def recording(prefixes: torch.Tensor) -> torch.Tensor:
        log_probs = next_log_probs(prefixes)
        rows = [tuple(prefix) for prefix in prefixes.tolist()]
        asked.append((rows, log_probs.detach().double().cpu()))
        return log_probs

    tokens, score = beam_search(recording, bos_id, eos_id, beam_size, max_length, length_penalty)
    live: dict[tuple[int, ...], tuple[int, float]] = {(bos_id,): (0, 0.0)}  # to place and sum
    finished: set[tuple[int, ...]] = set()
    steps: list[list[list[Any]]] = []
    for prefixes, log_probs in asked:
        if set(prefixes) != set(live):
            raise ValueError(
                f"Step {len(steps) + 1} of the search does not extend the {beam_size} with the "
                "largest sums. Does the check of beam_search give full points?"
            )
        sums = torch.tensor([live[prefix][1] for prefix in prefixes], dtype=torch.float64)
        totals = (sums.unsqueeze(1) + log_probs).flatten()
        best, index = totals.topk(min(beam_size + 3, len(totals)))
        parents, live, step = live, {}, []
        for place, (total, at) in enumerate(zip(best.tolist(), index.tolist(), strict=True)):
            row, token = divmod(at, log_probs.shape[1])
            if total == -math.inf:
                break
            sequence = (*prefixes[row], token)
            fate = 0
            if place < beam_size:
                fate = 2 if token == eos_id or len(steps) + 1 == max_length else 1
            if fate == 1:
                live[sequence] = place, total
            elif fate == 2:
                finished.add(sequence)
            log_prob = log_probs[row, token].item()
            step.append([parents[prefixes[row]][0], token, log_prob, total, fate])
        steps.append(step)
    if (bos_id, *tokens) not in finished:
        raise ValueError(
            "The result of the search is none of its finished hypotheses. Does the check of "
            "beam_search give full points?"
        )
    extensions = [log_probs.numel() for _, log_probs in asked]
    result = {"tokens": tokens, "score": score, "steps": steps, "extensions": extensions}
    return {"size": beam_size, **result}
