"""Figures that read on light and on dark pages, and that a screen reader can tell.

Draw on the axes that ``figure`` gives, then call ``show(fig, alt="...")``. The figure becomes
an inline SVG without background. Its text and axes take the color of the page's text; the
data has the colors below, each with a contrast of at least 3.5 to white and to near-black.
"""

import html
import io
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from workbook import budget
from workbook.showing import display

BLUE, ORANGE, GREEN, PURPLE, RED = "#2f7fd0", "#cc6a1c", "#2f8f57", "#9467c9", "#d14d4d"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, RED)
# Readable on both grounds by itself; show() then replaces it by the page's own text color.
INK = "#797a79"

STYLE = {
    "figure.facecolor": "none",
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=COLORS),
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 2,
    # The same figure gives the same text: nothing random in the ids of an SVG.
    "svg.hashsalt": "workbook",
}
# Weight 0 is transparent, weight 1 solid: an attention map then works on any ground.
WEIGHTS = LinearSegmentedColormap.from_list("weights", [(0.18, 0.5, 0.82, 0), (0.18, 0.5, 0.82, 1)])
# The same for weights that are laid over a gray image, which still shows below the largest.
OVERLAY = LinearSegmentedColormap.from_list("overlay", [(1, 0.5, 0, 0), (1, 0.5, 0, 0.85)])


def figure(
    columns: int = 1, *, width: float = 7.2, height: float = 2.8, **options: Any
) -> tuple[Figure, Any]:
    """Return ``(fig, axes)``: one row of ``columns`` axes in the course's style, in inches.

    ``axes`` is a single Axes for one column and an array of them otherwise.
    """
    with plt.rc_context(STYLE):
        return plt.subplots(1, columns, figsize=(width, height), **options)


class Drawing:
    """A figure as Jupyter displays it: an SVG with a text alternative; elsewhere that text."""

    def __init__(self, svg: str, alt: str) -> None:
        self.svg, self.alt = svg, alt

    def _repr_html_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"[figure] {self.alt}"


def draw(fig: Figure, alt: str) -> Drawing:
    """Render and close ``fig``. ``alt`` says what it shows; ``ValueError`` where it is empty."""
    if not alt.strip():
        plt.close(fig)
        raise ValueError("Say in alt what the figure shows, for readers who cannot see it.")
    for text in fig.findobj(Text):  # written onto the axes by ax.text, with Matplotlib's black
        if text.get_color() in ("black", "k"):
            text.set_color(INK)
    buffer = io.StringIO()
    with plt.rc_context(STYLE):
        fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    # Closed, or Jupyter's own backend would show it a second time at the end of the cell.
    plt.close(fig)
    svg = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>\s*", "", buffer.getvalue(), flags=re.S)
    svg = svg.replace(INK, "currentColor")
    label = html.escape(alt, quote=True)
    opening = f'<svg role="img" aria-label="{label}" style="max-width: 100%; height: auto" '
    return Drawing(svg.replace("<svg ", opening, 1), alt)


def show(fig: Figure, alt: str) -> None:
    """Display ``fig`` in a notebook, with ``alt`` as its text alternative."""
    if budget.grading():  # nobody looks, and rendering costs more than the checks
        plt.close(fig)
        return
    display(draw(fig, alt))


def attention_map(
    ax: Axes,
    weights: torch.Tensor,
    queries: Sequence[str],
    keys: Sequence[str],
    title: str = "",
    numbers: bool = False,
) -> None:
    """Draw attention weights: a row per query, a column per key, stronger color for more.

    ``weights`` has the shape (L_q, L_k), ``queries`` and ``keys`` are the labels. ``numbers``
    writes each weight into its cell. Raises ``ValueError`` where shape and labels disagree.
    """
    if tuple(weights.shape) != (len(queries), len(keys)):
        raise ValueError(
            f"The weights have the shape {tuple(weights.shape)}, but there are {len(queries)} "
            f"query and {len(keys)} key labels. Take one example, as in weights[0]."
        )
    weights = weights.detach().cpu().float()
    with plt.rc_context(STYLE):
        ax.grid(False)
        ax.pcolormesh(
            weights, cmap=WEIGHTS, vmin=0, vmax=1, edgecolors=INK, linewidth=0.4, antialiased=True
        )
        ax.set(aspect="equal", xlabel="key", ylabel="query", title=title)
        turn = 90 if max(map(len, keys)) * len(keys) > 25 else 0
        ax.set_xticks([i + 0.5 for i in range(len(keys))], keys, rotation=turn)
        ax.set_yticks([i + 0.5 for i in range(len(queries))], queries)
        ax.invert_yaxis()
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        if numbers:
            for row, column in torch.cartesian_prod(*map(torch.arange, weights.shape)).tolist():
                number = f"{weights[row, column]:.2f}"
                ax.text(column + 0.5, row + 0.5, number, ha="center", va="center", fontsize=8)


def curves(
    ax: Axes,
    lines: Mapping[str, Sequence[float]],
    *,
    x: Sequence[float] | None = None,
    xlabel: str = "step",
    ylabel: str = "loss",
    title: str = "",
    marker: str | None = None,
) -> None:
    """Draw one named line per entry of ``lines``, against ``x`` or else against 1, 2, 3, ..."""
    with plt.rc_context(STYLE):
        for label, values in lines.items():
            at = range(1, len(values) + 1) if x is None else x
            ax.plot(at, values, marker=marker, label=label)
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if len(lines) > 1:
            ax.legend()


def lookup(
    query: str,
    keys: Sequence[str],
    weights: Sequence[float],
    values: Sequence[str],
    output: str,
) -> Figure:
    """Draw one soft lookup: a query compared with every key, each value taken by its weight.

    The texts are what the boxes say; the thickness of an arrow is the weight of its key.
    """
    fig, ax = figure(height=0.75 * len(keys) + 0.5)
    middle = (len(keys) - 1) / 2
    ax.set(xlim=(-0.4, 10.2), ylim=(len(keys) - 0.4, -1.1))
    ax.axis("off")

    def box(x: float, y: float, text: str, color: str) -> None:
        outline = {"boxstyle": "round,pad=0.5", "fc": "none", "ec": color, "lw": 1.5}
        ax.text(x, y, text, ha="center", va="center", bbox=outline, color=INK)

    def arrow(start: tuple[float, float], end: tuple[float, float], weight: float) -> None:
        style = {"arrowstyle": "-|>", "color": ORANGE, "lw": 0.6 + 5 * weight, "shrinkB": 2}
        ax.annotate("", end, start, arrowprops=style)

    with plt.rc_context(STYLE):
        for x, heading in ((0.6, "query"), (3.7, "keys"), (5.1, "weights"), (6.5, "values")):
            ax.text(x, -0.8, heading, ha="center", weight="bold", color=INK)
        ax.text(9.3, -0.8, "weighted sum", ha="center", weight="bold", color=INK)
        box(0.6, middle, query, BLUE)
        for row, (key, weight, value) in enumerate(zip(keys, weights, values, strict=True)):
            arrow((1.4, middle), (2.9, row), weight)
            box(3.7, row, key, GREEN)
            ax.text(5.1, row, f"{weight:.2f}", ha="center", va="center", color=INK)
            box(6.5, row, value, PURPLE)
            arrow((7.2, row), (8.5, middle), weight)
        box(9.3, middle, output, BLUE)
    return fig


# Orange below 0, blue above, transparent at 0: signed numbers read on any ground.
SIGNED = LinearSegmentedColormap.from_list(
    "signed",
    [
        (0.0, (0.8, 0.416, 0.11, 1)),
        (0.5, (0.8, 0.416, 0.11, 0)),
        (0.5, (0.18, 0.5, 0.82, 0)),
        (1.0, (0.18, 0.5, 0.82, 1)),
    ],
)


def signed_map(
    ax: Axes,
    values: torch.Tensor,
    *,
    xlabel: str = "",
    ylabel: str = "",
    title: str = "",
    largest: float | None = None,
) -> None:
    """Draw a matrix of signed numbers: blue above 0, orange below, nothing at 0 and at -inf.

    ``values`` has the shape (rows, columns). Colors are solid at ``largest``, which is the
    largest finite absolute value where not given.
    """
    values = values.detach().cpu().float()
    finite = values.isfinite()
    if largest is None:
        largest = values.masked_fill(~finite, 0.0).abs().max().item() or 1.0
    with plt.rc_context(STYLE):
        ax.grid(False)
        image = ax.imshow(
            values.masked_fill(~finite, 0.0).numpy(),
            cmap=SIGNED,
            vmin=-largest,
            vmax=largest,
            aspect="auto",
            interpolation="nearest",
        )
        ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
        bar = ax.figure.colorbar(image, ax=ax, fraction=0.05, pad=0.03)
        bar.outline.set_edgecolor(INK)


def picture(ax: Axes, image: torch.Tensor, title: str = "") -> None:
    """Draw an image, (channels, height, width), each pixel a sharp square.

    Numbers are from 0 to 1, and are clipped to that. One channel is gray, three are red, green
    and blue. A pixel that is NaN in a channel is hidden: hatching shows where it would be.
    Raises ``ValueError`` for another shape.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
        raise ValueError(
            f"The image has the shape {tuple(image.shape)}. Give (channels, height, width) with "
            "1 or 3 channels; take one image of a batch, as in images[0]."
        )
    image = image.detach().cpu().float()
    hidden = image.isnan().any(dim=0)
    colors = image.nan_to_num(0.0).clamp(0, 1).expand(3, -1, -1)
    solid = (~hidden).to(colors)[None]
    height, width = hidden.shape
    with plt.rc_context(STYLE):
        ax.grid(False)
        # "none" keeps the pixels as they are in an SVG; a browser then draws them as squares.
        ax.imshow(torch.cat([colors, solid]).permute(1, 2, 0).numpy(), interpolation="none")
        ax.set(xticks=[], yticks=[], title=title)
        # Without a frame, a white image has no edge on a white page, nor a black one on a black.
        ax.spines[:].set(visible=True, linewidth=0.6)
        if hidden.any():
            # Below the image: it shows through where that is transparent.
            whole = (-0.5, -0.5), width, height
            hatching = {"fill": False, "hatch": "/////", "edgecolor": INK, "linewidth": 0}
            ax.add_patch(Rectangle(*whole, zorder=-1, **hatching))


def pictures(rows: Mapping[str, torch.Tensor]) -> Figure:
    """Return a figure with a row of images per entry, its name at the left.

    Each entry is (n, channels, height, width), drawn as ``picture`` does. Raises ``ValueError``
    where there is none, or one has another shape.
    """
    for name, images in rows.items():
        if images.ndim != 4 or not len(images):
            raise ValueError(
                f"The row {name!r} has the shape {tuple(images.shape)}. Give (n, channels, height, "
                "width); of one image, images[None] makes a row."
            )
    if not rows:
        raise ValueError("Give at least one row of images, as in pictures({'digits': images}).")
    fig, axes = grid(len(rows), max(map(len, rows.values())))
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        picture_row(line, name, images)
    return fig


def grid(rows: int, columns: int, side: float = 1.0, titled: bool = False) -> tuple[Figure, Any]:
    """Return ``(fig, axes)`` for rows of pictures, ``axes`` of the shape (rows, columns).

    Each picture gets a square of ``side`` inches, or of less where the page is too narrow;
    ``titled`` leaves room for titles.
    """
    # No less than a title needs: the page shows a wider figure as a whole, in smaller print.
    side = max(min(side, 6.4 / columns), 1.1 if titled else 0.0)
    size = (columns * side + 0.8, rows * (side + 0.22 * titled) + 0.1)
    with plt.rc_context(STYLE):
        return plt.subplots(rows, columns, figsize=size, squeeze=False)


def picture_row(
    axes: Sequence[Axes], name: str, images: Iterable[torch.Tensor], titles: Iterable[str] = ()
) -> None:
    """Draw a row of images with its name at the left; what is left of ``axes`` stays empty."""
    for ax, image, title in itertools.zip_longest(axes, images, titles):
        if image is None:
            ax.axis("off")
        else:
            picture(ax, image, title or "")
            ax.title.set_fontsize(9)
    axes[0].set_ylabel(name, rotation=0, ha="right", va="center")
