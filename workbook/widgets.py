"""Explorers: sliders where a kernel runs, a figure that shows the same where none does."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from workbook import budget, plots

SCORES = {"the": 1.0, "tired": 3.0, "cat": 4.0, "slept": 2.0}


def is_live() -> bool:
    """Say whether sliders would work: a kernel runs, ipywidgets is there, someone may look."""
    has_kernel = getattr(get_ipython(), "kernel", None) is not None
    has_widgets = importlib.util.find_spec("ipywidgets") is not None
    return has_kernel and has_widgets and not budget.static() and not budget.grading()


def _temperature_slider() -> Any:
    import ipywidgets

    return ipywidgets.FloatLogSlider(
        value=1.0,
        base=10,
        min=-1,
        max=1,
        step=0.05,
        description="temperature",
        readout_format=".2f",
    )


def explore_softmax(scores: Mapping[str, float] | None = None) -> None:
    """Explore what temperature and mask do to the softmax of ``scores`` (key: score).

    With a kernel: a slider for the temperature, a checkbox for each key, and bars that follow.
    Without one: a figure of three temperatures and one mask. Raises ``ValueError`` for fewer
    than two scores.
    """
    scores = dict(SCORES if scores is None else scores)
    if len(scores) < 2:
        raise ValueError("Give at least two scores, for example explore_softmax({'a': 1, 'b': 2}).")
    everything = [True] * len(scores)
    if not is_live():
        best = max(scores, key=scores.__getitem__)
        panels = [(t, everything) for t in (0.3, 1.0, 4.0)]
        panels.append((1.0, [key != best for key in scores]))
        plots.show(*_bars(scores, panels))
        return

    import ipywidgets  # here, so that the course also runs where it is not installed

    temperature = _temperature_slider()
    boxes = [ipywidgets.Checkbox(True, description=key, indent=False) for key in scores]
    picture = ipywidgets.HTML()

    def redraw(_change: object = None) -> None:
        allowed = [box.value for box in boxes]
        picture.value = plots.draw(*_bars(scores, [(temperature.value, allowed)])).svg

    for control in (temperature, *boxes):
        control.observe(redraw, names="value")
    redraw()
    row = ipywidgets.HBox([ipywidgets.Label("may attend to"), *boxes])
    display(ipywidgets.VBox([temperature, row, picture]))


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


def explore_positions(encoding: torch.Tensor) -> None:
    """Explore a sinusoidal encoding, (length, d_model): each pair of columns is a clock's hand.

    With a kernel: a slider for the position. Without one: a figure of four positions. Raises
    ``ValueError`` where there are no pairs of columns, or fewer than two positions.
    """
    if encoding.ndim != 2 or encoding.shape[0] < 2 or encoding.shape[1] % 2:
        raise ValueError(
            f"The encoding has the shape {tuple(encoding.shape)}. Give a table of positions and "
            "pairs of columns, for example sinusoidal_encoding(64, 12)."
        )
    encoding = encoding.detach().cpu().float()
    length = encoding.shape[0]
    if not is_live():
        plots.show(*_clocks(encoding, sorted({0, 1, length // 4, length // 2})))
        return

    import ipywidgets  # here, so that the course also runs where it is not installed

    position = ipywidgets.IntSlider(value=0, min=0, max=length - 1, description="position")
    picture = ipywidgets.HTML()

    def redraw(_change: object = None) -> None:
        picture.value = plots.draw(*_clocks(encoding, [position.value])).svg

    position.observe(redraw, names="value")
    redraw()
    display(ipywidgets.VBox([position, picture]))


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
    logits: Mapping[str, float], filter_logits: Callable[..., torch.Tensor]
) -> None:
    """Explore what temperature, top-k and top-p leave of the distribution of ``logits``.

    ``filter_logits(logits, temperature, top_k, top_p)`` is chapter 6's, usually the reader's own.
    With a kernel: three sliders, and bars that follow. Without one: a figure of five settings.
    Raises ``ValueError`` for fewer than two tokens.
    """
    if len(logits) < 2:
        raise ValueError("Give at least two tokens, for example {'a': 1.0, 'b': 2.0}.")
    size = len(logits)
    if not is_live():
        settings = [(1.0, size, 1.0), (0.5, size, 1.0), (2.0, size, 1.0)]
        settings += [(1.0, 3, 1.0), (1.0, size, 0.8)]
        plots.show(*_sampled(logits, filter_logits, settings))
        return

    import ipywidgets  # here, so that the course also runs where it is not installed

    temperature = _temperature_slider()
    top_k = ipywidgets.IntSlider(value=size, min=1, max=size, description="top-k")
    top_p = ipywidgets.FloatSlider(value=1.0, min=0.05, max=1.0, step=0.05, description="top-p")
    picture = ipywidgets.HTML()

    def redraw(_change: object = None) -> None:
        setting = (temperature.value, top_k.value, top_p.value)
        picture.value = plots.draw(*_sampled(logits, filter_logits, [setting])).svg

    for control in (temperature, top_k, top_p):
        control.observe(redraw, names="value")
    redraw()
    display(ipywidgets.VBox([temperature, top_k, top_p, picture]))


def _sampled(
    logits: Mapping[str, float],
    filter_logits: Callable[..., torch.Tensor],
    settings: Sequence[tuple[float, int, float]],
) -> tuple[Figure, str]:
    """Return a figure with bars for each (temperature, top_k, top_p), and its description."""
    tokens = list(logits)
    scores = torch.tensor(list(logits.values()), dtype=torch.float64)
    plain = torch.softmax(scores, dim=-1).tolist()
    fig, axes = plots.figure(
        len(settings),
        width=max(4.5, 1.9 * len(settings)),
        height=0.24 * len(tokens) + 0.9,
        sharey=True,
        squeeze=False,
    )
    told = []
    for ax, (temperature, top_k, top_p) in zip(axes[0], settings, strict=True):
        left = filter_logits(scores, temperature, top_k, top_p).softmax(dim=-1).tolist()
        changed = [f"temperature {temperature:.2g}"] if temperature != 1 else []
        changed += [f"top-k {top_k}"] if top_k < len(tokens) else []
        changed += [f"top-p {top_p:.2g}"] if top_p < 1 else []
        title = "\n".join(changed) or "as it is"
        rows = range(len(tokens))
        # The outline is the distribution before: what was cut, and what has grown, shows.
        ax.barh(rows, plain, height=0.8, fill=False, edgecolor=plots.INK, linewidth=0.8)
        ax.barh(rows, left, height=0.8, color=plots.BLUE)
        for row, share in enumerate(left):
            note = f" {share:.2f}" if share else " cut"
            end = max(share, plain[row])
            ax.text(end, row, note, va="center", color=plots.INK, fontsize=8)
        ax.set_yticks(rows, tokens)
        ax.set_title(title, fontsize=9)
        ax.set(xlim=(0, 1.25), xticks=[0, 0.5, 1])
        ax.grid(axis="y", visible=False)
        parts = (
            f"{token} {share:.2f}" if share else f"{token} cut"
            for token, share in zip(tokens, left, strict=True)
        )
        told.append(f"{', '.join(changed) or 'as it is'}: {', '.join(parts)}")
    axes[0][0].invert_yaxis()  # once: the panels share the axis
    return fig, "Bar charts of the probability of each token. " + ". ".join(told) + "."
