"""What you built so far: the course as one family picture, which grows with every chapter.

``COURSE`` is all that it is drawn from. Two layouts of the same picture travel together, and the
page shows the one that fits its width.
"""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from workbook import blocks, budget
from workbook.plots import BLUE, GREEN, ORANGE, Drawing
from workbook.showing import display


@dataclass(frozen=True)
class Chapter:
    """A chapter's number, prefix and title, and its pieces with what each is made of."""

    number: int
    prefix: str
    title: str
    pieces: dict[str, tuple[str, ...]]


COURSE = (
    Chapter(
        1,
        "attention",
        "Attention",
        {
            "softmax": (),
            "scaled_dot_product_attention": (),
            "padding_mask": (),
            "causal_mask": (),
            "AdditiveAttention": (),
        },
    ),
    Chapter(
        2,
        "multi_head",
        "Multi-head attention",
        {
            "split_heads": (),
            "merge_heads": (),
            "MultiHeadAttention": ("scaled_dot_product_attention", "split_heads", "merge_heads"),
            "attention_flops": (),
        },
    ),
    Chapter(
        3,
        "positions",
        "Positional encoding",
        {
            "sinusoidal_encoding": (),
            "shift_matrix": (),
            "LearnedPositions": (),
            "apply_rotary": (),
            "alibi_bias": (),
        },
    ),
    Chapter(
        4,
        "transformer",
        "The encoder–decoder",
        {
            "LayerNorm": (),
            "FeedForward": (),
            "EncoderLayer": ("MultiHeadAttention", "LayerNorm", "FeedForward"),
            "DecoderLayer": ("MultiHeadAttention", "LayerNorm", "FeedForward"),
            "Transformer": (
                "padding_mask",
                "causal_mask",
                "sinusoidal_encoding",
                "EncoderLayer",
                "DecoderLayer",
            ),
            "noam_learning_rate": (),
            "label_smoothed_cross_entropy": (),
            "greedy_decode": (),
            "beam_search": (),
        },
    ),
    Chapter(
        5,
        "bert",
        "BERT",
        {
            "mask_tokens": (),
            "pack_pair": (),
            "BertEmbeddings": (),
            "BertModel": ("padding_mask", "MultiHeadAttention", "BertEmbeddings"),
            "MaskedLanguageModelHead": (),
            "NextSentenceHead": (),
        },
    ),
    Chapter(
        6,
        "gpt",
        "GPT",
        {
            "learn_bpe": (),
            "apply_bpe": (),
            "GPTBlock": ("causal_mask", "MultiHeadAttention"),
            "GPT": ("GPTBlock",),
            "next_token_loss": (),
            "filter_logits": (),
            "generate": ("filter_logits",),
            "CachedAttention": ("scaled_dot_product_attention", "split_heads", "merge_heads"),
        },
    ),
    Chapter(
        7,
        "vit",
        "Vision Transformer",
        {
            "patchify": (),
            "unpatchify": (),
            "PatchEmbedding": ("patchify",),
            "ViTBlock": ("MultiHeadAttention",),
            "VisionTransformer": ("PatchEmbedding", "ViTBlock"),
            "interpolate_positions": (),
            "mean_attention_distance": (),
        },
    ),
    Chapter(
        8,
        "mae",
        "Masked autoencoders",
        {
            "random_masking": (),
            "MAEEncoder": ("PatchEmbedding", "random_masking", "ViTBlock"),
            "MAEDecoder": ("ViTBlock",),
            "normalized_pixel_targets": (),
            "masked_patch_loss": (),
            "MaskedAutoencoder": (
                "patchify",
                "MAEEncoder",
                "MAEDecoder",
                "normalized_pixel_targets",
                "masked_patch_loss",
            ),
        },
    ),
)

# How a piece stands to the chapter that shows the picture.
BEFORE, NOW, LATER = "before", "now", "later"
YOURS, READY = "✓", "○"
BOX = {
    BEFORE: f'fill="{BLUE}" fill-opacity="0.16" stroke="{BLUE}" stroke-width="1.2"',
    NOW: f'fill="{ORANGE}" fill-opacity="0.2" stroke="{ORANGE}" stroke-width="2"',
    LATER: 'fill="none" stroke="currentColor" stroke-opacity="0.5" stroke-dasharray="3 3"',
}
WIRE = {  # color, width, and the opacity of all wires of that kind together
    LATER: ("currentColor", 1.0, 0.3),
    BEFORE: (BLUE, 1.3, 0.75),
    NOW: (ORANGE, 2.0, 1.0),
}
# Which of the two layouts is seen depends on the room the picture has, not on the window.
SWITCH = """<style>
.built { container-type: inline-size; margin: 0.75rem 0; }
.built svg { display: block; height: auto; margin: 0 auto; max-width: 100%; }
.built .narrow { display: none; }
@container (max-width: 600px) {
  .built .wide { display: none; }
  .built .narrow { display: block; }
}
</style>"""


def show_built(prefix: str) -> None:
    """Show what you have built when the chapter ``prefix`` ("gpt") is done; ``built`` says how."""
    if not budget.grading():
        display(built(prefix))


def built(prefix: str | None = None) -> Drawing:
    """Return the family picture as it stands in a chapter; the finished course where None.

    In Jupyter a check mark shows the blocks that are your own (``workbook.blocks``). Raises
    ``ValueError`` for an unknown prefix.
    """
    numbers = {chapter.prefix: chapter.number for chapter in COURSE}
    if prefix is not None and prefix not in numbers:
        raise ValueError(f"There is no chapter {prefix!r}. There are: {', '.join(numbers)}.")
    now = None if prefix is None else numbers[prefix]
    states = {piece: _state(chapter.number, now) for chapter in COURSE for piece in chapter.pieces}
    marks = {} if now is None or budget.static() else _marks(states)
    alt = _told(states, marks)
    svgs = [_tree(states, marks, now, alt), _list(states, marks, now, alt)]
    return Drawing(f'<div class="built">{SWITCH}{"".join(svgs)}</div>', alt)


def _state(number: int, now: int | None) -> str:
    if now is None or number < now:
        return BEFORE
    return NOW if number == now else LATER


def _marks(states: dict[str, str]) -> dict[str, str]:
    """Whose block each piece that is due by now is."""
    kept = blocks.folder()
    return {
        piece: YOURS if (kept / chapter.prefix / f"{piece}.py").is_file() else READY
        for chapter in COURSE
        for piece in chapter.pieces
        if states[piece] != LATER
    }


def _told(states: dict[str, str], marks: dict[str, str]) -> str:
    """The whole picture in words."""
    words = {YOURS: "yours", READY: "ready-made"}
    when = {BEFORE: "built", NOW: "this chapter", LATER: "still to come"}
    if set(states.values()) == {BEFORE}:
        when[BEFORE] = "you build"
    sentences = ["All pieces of the course, chapter by chapter, and what each is made of."]
    for chapter in COURSE:
        pieces = []
        for piece, parts in chapter.pieces.items():
            notes = [words[marks[piece]]] if piece in marks else []
            notes += [f"made of {' and '.join(parts)}"] if parts else []
            pieces.append(piece + (f" ({', '.join(notes)})" if notes else ""))
        state = states[next(iter(chapter.pieces))]
        sentences.append(
            f"Chapter {chapter.number}, {chapter.title}, {when[state]}: {', '.join(pieces)}."
        )
    return " ".join(sentences)


# Of the wide layout: between wires, around them, of its letters, and from side to side.
TRACK, GAP, SIZE, WIDE = 7.0, 9.0, 12.0, 760.0

# --- text ------------------------------------------------------------------------------------

# Widths of letters in parts of the font's size, about those of Helvetica. Text is then set to the
# width that was computed, so that no font makes it leave its box.
WIDTHS = {
    letter: width
    for letters, width in {
        "ijl.,'’": 0.25,
        "ftrI -–/()": 0.3,
        "csxzvyk": 0.5,
        "ABCDEFGHKLNPRSTUVXYZ": 0.68,
        "OQ": 0.77,
        "mwMW": 0.83,
        YOURS + READY: 0.9,
    }.items()
    for letter in letters
}


def _width(text: str, size: float, bold: bool = False) -> float:
    return size * sum(WIDTHS.get(letter, 0.56) for letter in text) * (1.06 if bold else 1)


def _text(
    text: str,
    x: float,
    y: float,
    size: float,
    anchor: str = "start",
    style: str = "",
    fit: float = 0,
) -> str:
    bold = "bold" in style
    width = _width(text, size, bold)
    length = f' textLength="{min(width, fit or width):.1f}" lengthAdjust="spacingAndGlyphs"'
    body = html.escape(text)
    if text[-1] in YOURS + READY:
        # The mark alone has a color; the name before it keeps the page's own.
        color = f' fill="{GREEN}" font-weight="bold"' if text[-1] == YOURS else ""
        body = f"{html.escape(text[:-1])}<tspan{color}>{text[-1]}</tspan>"
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}"'
        f"{length}{style}>{body}</text>"
    )


def _style(state: str) -> str:
    return {BEFORE: "", NOW: ' font-weight="bold"', LATER: ' fill-opacity="0.78"'}[state]


def _lines(name: str, mark: str, room: float, size: float) -> list[str]:
    """The name in one line or two, parted where its words meet."""
    label = f"{name} {mark}".strip()
    if _width(label, size, bold=True) <= room:
        return [label]
    places = [
        i
        for i in range(2, len(name) - 1)
        if name[i - 1] == "_" or (name[i].isupper() and name[i - 1].islower())
    ]
    if not places:
        return [label]
    best = min(places, key=lambda i: max(_width(name[:i], size), _width(label[i:], size)))
    return [name[:best], label[best:]]


def _box(
    lines: list[str], x: float, y: float, width: float, height: float, size: float, state: str
) -> str:
    """A piece: its frame, and its name in the middle."""
    parts = [
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6" '
        f"{BOX[state]}/>"
    ]
    step = size * 1.15
    first = y + height / 2 + size * 0.35 - step * (len(lines) - 1) / 2
    for i, line in enumerate(lines):
        place = (x + width / 2, first + i * step, size, "middle", _style(state), width - 8)
        parts.append(_text(line, *place))
    return "".join(parts)


def _flow(
    labels: Iterable[tuple[str, str]],
    left: float,
    y: float,
    right: float,
    size: float,
    avoid: Sequence[float] = (),
) -> tuple[list[str], float]:
    """Boxes one after the other from (left, y), wrapped like words; also where the next line is.

    ``avoid``: where wires run down, which no box may cover.
    """
    parts, height, x = [], size * 1.9, left
    for label, state in labels:
        width = _width(label, size, state == NOW) + size
        for _ in range(2):  # on this line, else on the next
            while crossed := [
                wire for wire in avoid if x - GAP - TRACK / 2 + 0.1 < wire < x + width + 5
            ]:
                x = max(crossed) + GAP + TRACK / 2
            if x + width <= right:
                break
            x, y = left, y + height + 6
        parts.append(_box([label], x, y, width, height, size, state))
        x += width + 6
    return parts, y + height + 6


def _svg(parts: Iterable[str], name: str, width: float, height: float, alt: str) -> str:
    return (
        f'<svg class="{name}" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'aria-label="{html.escape(alt, quote=True)}" viewBox="0 0 {width:g} {height:.0f}" '
        f'width="{width:g}" fill="currentColor">{"".join(parts)}</svg>'
    )


def _title(chapter: Chapter, y: float, size: float, room: float, state: str) -> list[str]:
    """The chapter's number and title, in as many lines as a width of ``room`` asks for."""
    style = ' font-weight="bold"' + (_style(LATER) if state == LATER else "")
    indent = 8 + _width(str(chapter.number), size, bold=True)
    lines = [""]
    for word in re.split(r"(?<=[ –])", chapter.title):
        if lines[-1] and _width((lines[-1] + word).strip(), size, bold=True) > room - indent:
            lines.append("")
        lines[-1] += word
    parts = [_text(str(chapter.number), 12, y, size, style=style)]
    for i, line in enumerate(lines):
        place = (12 + indent, y + i * size * 1.2, size)
        parts.append(_text(line.strip(), *place, style=style, fit=room - indent))
    return parts


def _legend(
    states: dict[str, str], marks: dict[str, str], *more: tuple[str, str]
) -> list[tuple[str, str]]:
    """What the boxes and marks mean, as (words, kind), as far as they occur; then ``more``."""
    names = {BEFORE: "built before", NOW: "this chapter", LATER: "still to come"}
    found = [(names[state], state) for state in names if state in states.values()]
    if len(found) == 1:
        found = []
    if marks:
        found += [("yours", YOURS), ("ready-made", READY)]
    return [*found, *more]


def _draw_legend(
    legend: list[tuple[str, str]], x: float, y: float, right: float, size: float
) -> tuple[list[str], float]:
    left, parts = x, []
    for words, kind in legend:
        width = 24 + _width(words, size) + 16
        if x + width > right and x > left:
            x, y = left, y + size * 1.7
        if kind in BOX:
            parts.append(
                f'<rect x="{x:.1f}" y="{y - 10:.1f}" width="18" height="12" rx="3" {BOX[kind]}/>'
            )
        else:
            parts.append(_text(kind, x + 4, y, size))
        parts.append(_text(words, x + 24, y, size))
        x += width
    return parts, y + size


# --- the narrow layout: a list, with what this chapter's pieces are made of ------------------


def _list(states: dict[str, str], marks: dict[str, str], now: int | None, alt: str) -> str:
    width, size = 350.0, 13.0
    origin = {piece: chapter.number for chapter in COURSE for piece in chapter.pieces}
    parts, y = [], 6.0
    for chapter in COURSE:
        state = _state(chapter.number, now)
        top = y
        inner = _title(chapter, y + 20, 15, width - 24, state)
        y += 32
        opened = {p for p, made in chapter.pieces.items() if made and (now is None or state == NOW)}
        closed = [
            (f"{p} {marks.get(p, '')}".strip(), state) for p in chapter.pieces if p not in opened
        ]
        drawn, y = _flow(closed, 12, y, width - 8, size) if closed else ([], y)
        inner += drawn
        for piece in chapter.pieces:
            if piece not in opened:
                continue
            chips = [
                (part if part in chapter.pieces else f"{part} · {origin[part]}", states[part])
                for part in chapter.pieces[piece]
            ]
            drawn, end = _flow(chips, 22, y + 28, width - 18, size - 1)
            inner.append(
                f'<rect x="12" y="{y:.1f}" width="{width - 20:g}" height="{end - y:.1f}" rx="6" '
                f"{BOX[state].replace('0.2', '0.07')}/>"
            )
            label = f"{piece} {marks.get(piece, '')}".strip()
            inner.append(_text(label, 22, y + 19, size, style=_style(state)))
            inner += drawn
            y = end + 6
        if state == NOW:
            parts.append(_ground(top, y, width))
        parts += inner
        y += 10
    drawn, y = _draw_legend(_legend(states, marks, ("of chapter 1", "· 1")), 12, y + 14, width, 12)
    return _svg(parts + drawn, "narrow", width, y + 4, alt)


def _ground(top: float, bottom: float, width: float) -> str:
    """The ground of this chapter's part of the picture."""
    return (
        f'<rect x="0" y="{top:.1f}" width="{width:g}" height="{bottom - top:.1f}" rx="8" '
        f'fill="{ORANGE}" fill-opacity="0.08"/>'
        f'<rect x="0" y="{top:.1f}" width="4" height="{bottom - top:.1f}" rx="2" fill="{ORANGE}"/>'
    )


# --- the wide layout: a lane per chapter, a column per level, and wires ----------------------


@dataclass
class _Node:
    """A piece in the wide layout that is made of others, or that others are made of."""

    name: str
    lane: int
    column: int
    lines: list[str]
    parts: tuple[str, ...]
    x: float = 0.0
    y: float = 0.0
    height: float = 0.0
    ports: dict[str, float] = field(default_factory=dict)  # part -> y of its wire's end


def _columns() -> dict[str, int]:
    """The column of each piece that is made of something, or that something is made of.

    What is made of a piece stands to the right of it, and no piece further left than it must.
    """
    made = {piece: parts for chapter in COURSE for piece, parts in chapter.pieces.items() if parts}
    users: dict[str, list[str]] = {}
    for piece, parts in made.items():
        for part in parts:
            users.setdefault(part, []).append(piece)

    def depth(piece: str) -> int:
        return 1 + max(map(depth, made[piece])) if piece in made else 0

    def column(piece: str) -> int:
        return min(map(column, users[piece])) - 1 if piece in users else depth(piece)

    return {piece: column(piece) for piece in made.keys() | users.keys()}


@dataclass
class _Run:
    """A vertical stretch of wire in a gutter, and the track it gets there."""

    source: str
    gutter: int
    top: float
    bottom: float
    weight: int
    x: float = 0.0


def _tree(states: dict[str, str], marks: dict[str, str], now: int | None, alt: str) -> str:
    columns = _columns()
    last = max(columns.values())
    # Boxes make room for wires, and wires lead to boxes: the third drawing changes nothing more.
    runs: list[_Run] = []
    tracks = [1] * last
    for _ in range(4):
        gutters = [TRACK * count + 2 * GAP for count in tracks]
        room = (WIDE - 16 - sum(gutters)) / (last + 1)
        lefts = [12 + sum(gutters[:i]) + room * i for i in range(last + 1)]
        nodes, lanes, height = _place(columns, lefts, room, marks, states, now, runs)
        runs, routes = _route(nodes, lanes)
        tracks = _lay(runs, lefts, room, last)
    parts = []
    for lane in lanes:
        parts += lane.drawn
    parts += _wires(nodes, routes, states, room)
    for node in nodes.values():
        place = (node.x, node.y, room, node.height, SIZE)
        parts.append(_box(node.lines, *place, states[node.name]))
    drawn, height = _draw_legend(
        _legend(states, marks, ("goes into", "→")), 12, height + 16, WIDE, SIZE
    )
    return _svg(parts + drawn, "wide", WIDE, height, alt)


@dataclass
class _Lane:
    """A chapter's strip: what is drawn in it already, and where its boxes and long wires are."""

    top: float
    drawn: list[str]


def _place(
    columns: dict[str, int],
    lefts: list[float],
    room: float,
    marks: dict[str, str],
    states: dict[str, str],
    now: int | None,
    runs: list[_Run],
) -> tuple[dict[str, _Node], list[_Lane], float]:
    """Give every box its place; also the lanes, and where the last of them ends.

    ``runs``: the wires of the drawing before, as far as there was one.
    """
    nodes: dict[str, _Node] = {}
    lanes: list[_Lane] = []
    y = 4.0
    for number, chapter in enumerate(COURSE):
        state, top = _state(chapter.number, now), y
        drawn = _title(chapter, y + 21, 13, room + GAP, state)
        alone = [
            (f"{p} {marks.get(p, '')}".strip(), state) for p in chapter.pieces if p not in columns
        ]
        wires = [run.x for run in runs if run.top < top < run.bottom]
        boxes, y = _flow(alone, lefts[1], y + 6, WIDE - 4, SIZE, wires)
        drawn += boxes
        y = max(y, top + (44 if 0 in set(map(columns.get, chapter.pieces)) else 34))
        stacks: dict[int, list[_Node]] = {}
        far = 0
        for piece, made in chapter.pieces.items():
            if piece not in columns:
                continue
            lines = _lines(piece, marks.get(piece, ""), room - 8, SIZE)
            node = _Node(piece, number, columns[piece], lines, made)
            node.height = max(14 + 14 * len(lines), 8 + TRACK * len(made))
            stacks.setdefault(node.column, []).append(node)
            far += sum(columns[part] < node.column - 1 for part in made)
        lanes.append(_Lane(y + 2, drawn))
        y += TRACK * far + (9 if far else 4) * bool(stacks)
        heights = {
            column: sum(node.height for node in stack) + GAP * (len(stack) - 1)
            for column, stack in stacks.items()
        }
        tallest = max(heights.values(), default=0)
        for column, stack in stacks.items():
            below = y + (tallest - heights[column]) / 2
            for node in stack:
                node.x, node.y = lefts[column], below
                below += node.height + GAP
                nodes[node.name] = node
        y += tallest + 8 * bool(stacks)
        if state == NOW:
            drawn.insert(0, _ground(top, y, WIDE))
        elif number and _state(COURSE[number - 1].number, now) != NOW:
            drawn.insert(
                0,
                f'<path d="M12 {top:.1f}H{WIDE - 4:g}" stroke="currentColor" '
                'stroke-opacity="0.18" fill="none"/>',
            )
        y += 4
    return nodes, lanes, y


def _route(
    nodes: dict[str, _Node], lanes: list[_Lane]
) -> tuple[list[_Run], list[tuple[str, str, list[tuple[_Run, float]]]]]:
    """The way of each wire: the vertical runs it takes, and the height at which it leaves each."""
    order = list(nodes)
    for node in nodes.values():
        # From top to bottom as their wires come: from this lane's own, then from the near ones.
        parts = sorted(node.parts, key=lambda p: (-nodes[p].lane, order.index(p)))
        step = node.height / (len(parts) + 1)
        node.ports = {part: node.y + step * (i + 1) for i, part in enumerate(parts)}
    channels = [lane.top for lane in lanes]
    trunks: dict[str, _Run] = {}
    runs: list[_Run] = []
    routes = []
    for user in nodes.values():
        for part in user.ports:
            source = nodes[part]
            middle = source.y + source.height / 2
            if part not in trunks:
                trunks[part] = _Run(part, source.column, middle, middle, 0)
                runs.append(trunks[part])
            trunk, port = trunks[part], user.ports[part]
            way = [(trunk, port)]
            if user.column > source.column + 1:
                # Past the columns between, above the boxes of the user's lane.
                channel = channels[user.lane] = channels[user.lane] + TRACK
                drop = _Run(part, user.column - 1, min(channel, port), max(channel, port), 0)
                runs.append(drop)
                way = [(trunk, channel), (drop, port)]
            trunk.top = min(trunk.top, way[0][1])
            trunk.bottom = max(trunk.bottom, way[0][1])
            trunk.weight += 1
            routes.append((part, user.name, way))
    return runs, routes


def _lay(runs: list[_Run], lefts: list[float], room: float, last: int) -> list[int]:
    """Give every run its track, and say how many each gutter has.

    A run with many users is the last before their column, where its branches cross nothing.
    """
    counts = []
    for gutter in range(last):
        tracks: list[list[_Run]] = []
        here = [run for run in runs if run.gutter == gutter]
        for run in sorted(here, key=lambda r: (-r.weight, r.top - r.bottom)):
            for track in tracks:
                if all(run.top > o.bottom + 3 or run.bottom < o.top - 3 for o in track):
                    track.append(run)
                    break
            else:
                tracks.append([run])
        counts.append(len(tracks))
        for i, track in enumerate(tracks):
            for run in track:
                run.x = lefts[gutter + 1] - GAP - TRACK * (i + 0.5)
    return counts


def _wires(
    nodes: dict[str, _Node],
    routes: list[tuple[str, str, list[tuple[_Run, float]]]],
    states: dict[str, str],
    room: float,
) -> Iterator[str]:
    """The wires of each kind; those of this chapter lie on top."""
    for kind, (color, width, opacity) in WIRE.items():
        paths, heads = [], []
        for part, user, way in routes:
            if states[user] != kind:
                continue
            source = nodes[part]
            points = [(source.x + room, source.y + source.height / 2)]
            for run, leave in way:
                points += [(run.x, points[-1][1]), (run.x, leave)]
            x, y = nodes[user].x, points[-1][1]
            paths.append(_rounded([*points, (x - 4, y)]))
            heads.append(f"M{x - 5:.1f} {y - 3:.1f}l5 3l-5 3z")
        if paths:
            yield (
                f'<g opacity="{opacity}"><path d="{"".join(paths)}" fill="none" '
                f'stroke="{color}" stroke-width="{width}"/>'
                f'<path d="{"".join(heads)}" fill="{color}"/></g>'
            )


def _rounded(points: list[tuple[float, float]], radius: float = 4.0) -> str:
    """A line through the points, with rounded corners."""
    kept = [points[0]]
    for point in points[1:]:
        if max(abs(point[0] - kept[-1][0]), abs(point[1] - kept[-1][1])) > 0.05:
            kept.append(point)
    path = f"M{kept[0][0]:.1f} {kept[0][1]:.1f}"
    for before, corner, after in zip(kept, kept[1:], kept[2:], strict=False):
        ends = []
        for other in (before, after):
            length = abs(other[0] - corner[0]) + abs(other[1] - corner[1])
            share = min(radius, length / 2) / length
            ends.append([c + (o - c) * share for c, o in zip(corner, other, strict=True)])
        (a, b), (c, d) = ends
        path += f"L{a:.1f} {b:.1f}Q{corner[0]:.1f} {corner[1]:.1f} {c:.1f} {d:.1f}"
    return path + f"L{kept[-1][0]:.1f} {kept[-1][1]:.1f}"
