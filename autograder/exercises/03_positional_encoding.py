"""Chapter 3: positions.

Vaswani et al. 2017, section 3.5; Gehring et al. 2017, section 3.1 (learned positions); Su et al.
2021, section 3.4.2 (rotary); Press et al. 2022, section 3 (ALiBi).
"""

import math
import re

import torch
from torch import nn

from autograder.exercise import Exercise, Returned
from autograder.runner import raises

FLOAT32 = "Give new tensors dtype=torch.float32, or end with .float(); numpy makes float64."
PLAIN = FLOAT32 + " A fixed table is a plain tensor, no nn.Parameter."

# ---- sinusoids -----------------------------------------------------------------------------

sinusoids = Exercise(
    "positions/sinusoidal_encoding",
    points=3,
    signature="sinusoidal_encoding(length, d_model)",
    returns=[Returned("encoding", "(length, d_model)")],
)


@sinusoids.case(
    "three positions, four columns",
    next_step="Row 0 is 0, 1, 0, 1: the sine and the cosine of 0, twice. Row 1 is sin 1, cos 1, "
    "sin 0.01, cos 0.01, since 10000^(2/4) is 100.",
)
def _(sinusoids, make):
    return {"encoding": sinusoids(3, 4).float()}


@sinusoids.case(
    "other sizes, one after the other",
    next_step="Pair i fills the columns 2i and 2i + 1 with the sine and the cosine of one angle, "
    "p / 10000^(2i/d_model). Keep nothing from one call to the next.",
)
def _(sinusoids, make):
    length = int(make.integers(6, 12))
    return {
        "encoding of 16 columns": sinusoids(length, 16).float(),
        "encoding of 6 columns": sinusoids(length + 3, 6).float(),
    }


@sinusoids.case(
    "one pair of columns, and one position",
    next_step="The first pair has i = 0, so its angle is p itself; position 0 has sines of 0 and "
    "cosines of 1. Drop no axis of length 1.",
)
def _(sinusoids, make):
    return {
        "encoding of one pair": sinusoids(int(make.integers(4, 9)), 2).float(),
        "encoding of one position": sinusoids(1, 6).float(),
        "encoding of one position and one pair": sinusoids(1, 2).float(),
    }


@sinusoids.case(
    "an odd width is refused",
    weight=0.5,
    next_step="A sine without its cosine is no pair: raise ValueError where d_model % 2 is not 0.",
)
def _(sinusoids, make):
    return {
        "encoding of 8 columns": sinusoids(3, 8).float(),
        "error for 7 columns": raises(sinusoids, 4, 7),
        "error for 5 columns": raises(sinusoids, 1, 5),
    }


@sinusoids.case(
    "from the fastest pair to the slowest, 512 columns",
    next_step="The exponent 2i/d_model runs from 0 to (d_model - 2)/d_model. It never reaches 1.",
)
def _(sinusoids, make):
    columns = [0, 1, 2, 3, 127, 128, 254, 255, 256, 257, 384, 385, 508, 509, 510, 511]
    return {"some columns of the encoding": sinusoids(14, 512).float()[..., columns]}


@sinusoids.case(
    "dot products depend on the distance alone",
    next_step="sin a sin b + cos a cos b is cos(a - b): this holds where the sine and the cosine "
    "of a pair have the same angle.",
)
def _(sinusoids, make):
    encoding = sinusoids(11, 12).float()
    products = encoding @ encoding.mT / 12
    distance = (torch.arange(11)[:, None] - torch.arange(11)).abs()
    return {
        "dot products with position 0, divided by 12": products[0],
        "how many dot products are not those of their distance": int(
            ((products - products[0][distance]).abs() > 1e-3).sum()
        ),
        "lengths of the rows": encoding.norm(dim=-1),
    }


@sinusoids.case(
    "late positions, to two decimals",
    next_step="The formula holds for every position: no table of fixed size, and no positions in "
    "a type that cannot hold them. float16 skips whole numbers above 2048, bfloat16 above 256.",
)
def _(sinusoids, make):
    late = [255, 256, 257, 1023, 2047, 2049, 2398, 2399]
    # Right ways differ in the fourth decimal here: an angle of 2400 has few digits in float32.
    return {"late rows of the encoding": sinusoids(2400, 4).float()[late].half()}


@sinusoids.case("float32, and nothing to learn", next_step=PLAIN)
def _(sinusoids, make):
    encoding = sinusoids(int(make.integers(3, 9)), 8)
    return {"encoding": encoding, "it asks for gradients": encoding.requires_grad}


@sinusoids.case("another length and width", hidden=True)
def _(sinusoids, make):
    length, pairs = int(make.integers(13, 30)), int(make.integers(5, 20))
    return {"encoding": sinusoids(length, 2 * pairs).float()}


@sinusoids.misconceptions
def _():
    """Sinusoids with one thing wrong at a time."""

    def right(i, d_model):
        return 10000.0 ** (-2 * i / d_model)

    def interleaved(sines, cosines):
        return torch.stack([sines, cosines], dim=-1).flatten(start_dim=-2)

    def encoding(
        frequency=right,
        frequency_of_the_cosines=None,
        layout=interleaved,
        start=0,
        position=lambda positions: positions,
        refuse=ValueError,
        dtype=torch.float32,
        wide=torch.float64,
    ):
        def sinusoidal_encoding(length, d_model):
            if d_model % 2 and refuse:
                raise refuse("d_model is odd")
            i = torch.arange((d_model + 1) // 2, dtype=wide)
            positions = position(torch.arange(start, start + length, dtype=wide)[:, None])
            sines = (positions * frequency(i, d_model)).sin()
            cosines = (positions * (frequency_of_the_cosines or frequency)(i, d_model)).cos()
            return layout(sines, cosines)[..., :d_model].to(dtype)

        return sinusoidal_encoding

    for layout in (
        lambda sines, cosines: torch.cat([sines, cosines], dim=-1),
        lambda sines, cosines: torch.cat([cosines, sines], dim=-1),
    ):
        yield (
            "Sines and cosines stand in two halves; they must alternate, column 2i a sine and "
            "column 2i + 1 its cosine.",
            encoding(layout=layout),
            "Write the sines into [:, 0::2] and the cosines into [:, 1::2].",
        )
    yield (
        "Sine and cosine have changed places: the even columns are the sines.",
        encoding(layout=lambda sines, cosines: interleaved(cosines, sines)),
        "Write the sines into [:, 0::2] and the cosines into [:, 1::2].",
    )
    yield (
        "The exponent is i/d_model instead of 2i/d_model, so the wavelengths end near 100 · 2π, "
        "not near 10000 · 2π.",
        encoding(lambda i, d: 10000.0 ** (-i / d)),
        "i counts the pairs, from 0 to d_model/2 - 1; twice that is divided by d_model.",
    )
    yield (
        "The exponent is doubled twice: it runs to 2, not to 1.",
        encoding(lambda i, d: 10000.0 ** (-4 * i / d)),
        "torch.arange(0, d_model, 2) already is 2i: divide it by d_model and leave it.",
    )
    for sine, cosine in (
        (lambda i, d: 10000.0 ** (-2 * i / d), lambda i, d: 10000.0 ** (-(2 * i + 1) / d)),
        (lambda i, d: 10000.0 ** (-4 * i / d), lambda i, d: 10000.0 ** (-2 * (2 * i + 1) / d)),
        (lambda i, d: 10000.0 ** (-2 * i / d), lambda i, d: 10000.0 ** (-2 * (i + 1) / d)),
        (lambda i, d: 10000.0 ** (-2 * i / d), lambda i, d: 10000.0 ** (-2 * (2 * i + 1) / d)),
    ):
        yield (
            "The cosine of a pair has another frequency than its sine, so no rotation leads from "
            "one position to the next.",
            encoding(sine, cosine),
            "Both columns of pair i take the angle p / 10000^(2i/d_model), with the same i.",
        )
    # An angle of ten thousand shows the rounding of each way to compute it.
    for frequency, wide in (
        (lambda i, d: 10000.0 ** (2 * i / d), torch.float32),
        (lambda i, d: 10000.0 ** (2 * i / d), torch.float64),
    ):
        yield (
            "The positions are multiplied by 10000^(2i/d_model) instead of divided by it: the "
            "waves get shorter from pair to pair.",
            encoding(frequency, wide=wide),
            "Divide by it, or multiply by 10000^(-2i/d_model).",
        )
    # The fourth is exp(-2i/d_model · log10(10000)), with the wrong logarithm.
    for base in (1000.0, 100000.0, math.e, math.exp(4.0)):
        yield (
            "The base of the frequencies is not 10000.",
            encoding(lambda i, d, base=base: base ** (-2 * i / d)),
            "The paper divides by 10000^(2i/d_model): count the zeros, and where you use exp, take "
            "the natural logarithm, math.log.",
        )
    for steps in (lambda d: d / 2 - 1, lambda d: max(d / 2 - 1, 1)):
        yield (
            "The exponent runs to 1: i is divided by the number of pairs less one, as some "
            "libraries do, not by the number of pairs.",
            encoding(lambda i, d, steps=steps: 10000.0 ** (-i / steps(d))),
            "Divide 2i by d_model: the last pair has the exponent (d_model - 2)/d_model.",
        )
    for steps in (lambda d: d / 2 - 1, lambda d: max(d / 2 - 1, 1)):
        yield (
            "This is the encoding of the authors' own library, not that of their paper: sines and "
            "cosines stand in two halves, and the exponent runs to 1.",
            encoding(
                lambda i, d, steps=steps: 10000.0 ** (-i / steps(d)),
                layout=lambda sines, cosines: torch.cat([sines, cosines], dim=-1),
            ),
            "Divide 2i by d_model, and write the sines into [:, 0::2], the cosines into [:, 1::2].",
        )
    for speed in (1.0, 1e-4):
        yield (
            "All pairs turn at the same speed: i does not reach the exponent, or the exponent is "
            "cut to a whole number.",
            encoding(lambda i, d, speed=speed: speed * torch.ones_like(i)),
            "Each pair has its own i; divide 2i by d_model with /, not with //.",
        )
    for factor in (math.pi / 180, 2 * math.pi):
        yield (
            "The angle is multiplied by π/180 or by 2π; the formula has no such factor.",
            encoding(lambda i, d, factor=factor: factor * right(i, d)),
            "sin takes radians: give it position times frequency as it is.",
        )
    yield (
        "The positions are counted from 1; the first one is 0.",
        encoding(start=1),
        "torch.arange(length) begins at 0.",
    )
    for position in (
        lambda positions: positions / len(positions),
        lambda positions: positions / (len(positions) - 1),
        lambda positions: positions / max(len(positions) - 1, 1),
    ):
        yield (
            "The positions are divided by the length, so the same position is encoded otherwise "
            "in a longer sequence.",
            encoding(position=position),
            "Use the positions as they are: 0, 1, 2, and so on.",
        )
    for layout in (
        lambda sines, cosines: interleaved(sines, sines),
        lambda sines, cosines: interleaved(cosines, cosines),
        lambda sines, cosines: interleaved(sines, torch.zeros_like(sines)),
    ):
        yield (
            "Sines or cosines are missing: a pair is made of both.",
            encoding(layout=layout),
            "Write the sines into [:, 0::2] and the cosines into [:, 1::2].",
        )

    def by_rows(sines, cosines):
        rows = torch.arange(len(sines))[:, None] % 2
        return torch.where(rows == 0, interleaved(sines, sines), interleaved(cosines, cosines))

    yield (
        "Sines and cosines alternate from position to position; they alternate from column to "
        "column.",
        encoding(layout=by_rows),
        "Slice the last axis: encoding[:, 0::2], not encoding[0::2].",
    )
    yield (
        "The two axes are swapped: the rows are the positions, the columns the waves.",
        encoding(layout=lambda sines, cosines: interleaved(sines, cosines).mT),
        "Let the positions be a column, torch.arange(length)[:, None], before you multiply.",
    )
    for axis in (0, 1):
        yield (
            "The encoding has an extra axis of length 1.",
            encoding(
                layout=lambda sines, cosines, axis=axis: interleaved(sines, cosines).unsqueeze(axis)
            ),
            "Return shape (length, d_model); it broadcasts over the batch by itself.",
        )
    for wide in (torch.float64, torch.float32):
        yield (
            "The encoding is float64, as numpy makes it; x + encoding would be float64 too.",
            encoding(dtype=torch.float64, wide=wide),
            FLOAT32,
        )
    for error in (None, RuntimeError, AssertionError, IndexError):
        yield (
            "An odd width is not refused with a ValueError.",
            encoding(refuse=error),
            "Begin with: if d_model % 2: raise ValueError(...).",
        )


# ---- shift matrix --------------------------------------------------------------------------

shift = Exercise(
    "positions/shift_matrix",
    points=3,
    signature="shift_matrix(offset, d_model)",
    returns=[Returned("matrix", "(d_model, d_model)")],
)


@shift.case(
    "one pair, one step",
    next_step="Write down sin(p + 1) and cos(p + 1) with the angle-sum formulas: the factors of "
    "sin p and cos p are the rows of the matrix.",
)
def _(shift, make):
    return {"matrix": shift(1, 2).float()}


@shift.case(
    "three pairs",
    next_step="Pair i turns by offset / 10000^(2i/d_model). Its block of 2 × 2 stands on the "
    "diagonal, in rows and columns 2i and 2i + 1; all else is 0.",
)
def _(shift, make):
    return {"matrix": shift(int(make.integers(2, 10)), 6).float()}


@shift.case(
    "no shift, and one step",
    next_step="An offset of 0 leaves every position where it is: the unit matrix.",
)
def _(shift, make):
    return {"matrix of offset 0": shift(0, 4).float(), "matrix of offset 1": shift(1, 4).float()}


@shift.case(
    "steps back",
    next_step="sin(-a) is -sin a and cos(-a) is cos a: a negative offset needs no case of its own.",
)
def _(shift, make):
    return {
        "matrix of offset -1": shift(-1, 4).float(),
        "matrix of a larger one": shift(-int(make.integers(2, 10)), 6).float(),
    }


@shift.case(
    "two shifts in a row are one",
    next_step="The angles of two rotations add up: M(a) @ M(b) must be M(a + b).",
)
def _(shift, make):
    there, back = shift(4, 8).float(), shift(-4, 8).float()
    return {
        "M(2) @ M(3)": shift(2, 8).float() @ shift(3, 8).float(),
        "M(5)": shift(5, 8).float(),
        "M(4) @ M(-4)": there @ back,
        "M(4) @ M(4), transposed": there @ there.mT,
        "M(-4)": back,
    }


@shift.case(
    "from position 0 to every other, and on",
    next_step="PE[0] is 0, 1, 0, 1, and so on. What M(p) makes of it must be PE[p], and M(3) "
    "applied to that must be PE[p + 3], for every p.",
)
def _(shift, make):
    start = torch.tensor([0.0, 1.0]).repeat(4)
    rows = torch.stack([shift(p, 8).float() @ start for p in range(7)])
    return {
        "M(p) @ PE[0]": rows,
        "M(3) @ PE[p]": rows @ shift(3, 8).float().mT,
        "M(-2) @ PE[p]": rows @ shift(-2, 8).float().mT,
    }


@shift.case(
    "sixty-four pairs",
    next_step="Outside the blocks of 2 × 2 every entry is 0: no pair needs to know of another. "
    "This must hold for every width, so compute the entries, do not fit them.",
)
def _(shift, make):
    matrix = shift(int(make.integers(3, 12)), 128).float()
    pair = torch.arange(128) // 2
    outside = pair[:, None] != pair
    return {
        "diagonal": matrix.diagonal(),
        "beside the diagonal": matrix.diagonal(1)[::2],
        "how many entries outside the blocks are not 0": int((matrix[outside].abs() > 1e-4).sum()),
    }


@shift.case(
    "far shifts, to two decimals",
    next_step="The offset may be any whole number: no table of fixed size.",
)
def _(shift, make):
    # Right ways differ in the fourth decimal here: an angle of 2500 has few digits in float32.
    return {
        "matrix of offset 2500": shift(2500, 4).float().half(),
        "matrix of offset -2500": shift(-2500, 4).float().half(),
    }


@shift.case(
    "an odd width is refused",
    weight=0.5,
    next_step="A sine without its cosine cannot be shifted: raise ValueError where d_model % 2 "
    "is not 0.",
)
def _(shift, make):
    return {
        "matrix of 4 columns": shift(2, 4).float(),
        "error for 5 columns": raises(shift, 2, 5),
        "error for 7 columns": raises(shift, 0, 7),
    }


@shift.case("float32, and nothing to learn", next_step=PLAIN)
def _(shift, make):
    matrix = shift(int(make.integers(2, 9)), 6)
    return {"matrix": matrix, "it asks for gradients": matrix.requires_grad}


@shift.case("another offset and width", hidden=True)
def _(shift, make):
    offset, pairs = int(make.integers(10, 40)), int(make.integers(5, 12))
    there, back = shift(offset, 2 * pairs), shift(-offset, 2 * pairs)
    return {"matrix": there.float(), "matrix back": back.float()}


@shift.misconceptions
def _():
    """The shift with one thing wrong at a time."""

    def right(i, d_model):
        return 10000.0 ** (-2 * i / d_model)

    def turned(cos, sin):
        return cos, sin, -sin, cos

    def on_the_diagonal(blocks):
        return torch.block_diag(*blocks)

    def matrix(
        frequency=right,
        block=turned,
        place=on_the_diagonal,
        offset_of=lambda offset: offset,
        refuse=ValueError,
        dtype=torch.float32,
        wide=torch.float64,
    ):
        def shift_matrix(offset, d_model):
            if d_model % 2 and refuse:
                raise refuse("d_model is odd")
            i = torch.arange((d_model + 1) // 2, dtype=wide)
            angles = offset_of(offset) * frequency(i, d_model)
            blocks = torch.stack(block(angles.cos(), angles.sin()), dim=-1).view(-1, 2, 2)
            return place(blocks).to(dtype)

        return shift_matrix

    yield (
        "It is the transpose of the right matrix, which shifts the other way: M @ PE[p] is "
        "PE[p - offset].",
        matrix(block=lambda cos, sin: (cos, -sin, sin, cos)),
        "Each pair holds the sine first, so its block is [[cos, sin], [-sin, cos]]: check it "
        "against sin(a + b) = cos b · sin a + sin b · cos a.",
    )
    for offset_of in (abs, lambda offset: max(offset, 0)):
        yield (
            "The sign of the offset is lost: a step back is made a step forward, or none.",
            matrix(offset_of=offset_of),
            "Use the offset as it is; sine and cosine know what to do with negative angles.",
        )

    def in_halves(blocks):
        corners = blocks.permute(1, 2, 0)
        rows = [torch.cat([torch.diag(entry) for entry in row], dim=1) for row in corners]
        return torch.cat(rows, dim=0)

    for block in (turned, lambda cos, sin: (cos, -sin, sin, cos)):
        yield (
            "The matrix fits an encoding in two halves, of sines and of cosines; here sine and "
            "cosine of a pair are neighbors.",
            matrix(block=block, place=in_halves),
            "Put the block of pair i into rows and columns 2i and 2i + 1.",
        )
    yield (
        "The angles use the exponent i/d_model instead of 2i/d_model.",
        matrix(lambda i, d: 10000.0 ** (-i / d)),
        "Take the frequencies of the encoding: 10000^(-2i/d_model).",
    )
    yield (
        "The exponent is doubled twice: the angles belong to frequencies that the encoding does "
        "not have.",
        matrix(lambda i, d: 10000.0 ** (-4 * i / d)),
        "torch.arange(0, d_model, 2) already is 2i: divide it by d_model and leave it.",
    )
    for speed in (lambda i, d: torch.ones_like(i), lambda i, d: torch.full_like(i, 1e-4)):
        yield (
            "All pairs turn by the same angle.",
            matrix(speed),
            "Pair i turns by offset / 10000^(2i/d_model).",
        )
    for block in (
        lambda cos, sin: (cos, sin, sin, cos),
        lambda cos, sin: (cos, sin, sin, -cos),
        lambda cos, sin: (-cos, sin, sin, cos),
        lambda cos, sin: (cos, -sin, -sin, cos),
    ):
        yield (
            "The minus sign is missing or stands in the wrong place, so the blocks are no "
            "rotations: they stretch or mirror.",
            matrix(block=block),
            "cos(a + b) = cos a · cos b - sin a · sin b: the one minus sign stands in the row of "
            "the cosine, before the sine.",
        )
    for block in (
        lambda cos, sin: (sin, cos, -cos, sin),
        lambda cos, sin: (sin, cos, cos, -sin),
        lambda cos, sin: (sin, -cos, cos, sin),
    ):
        yield (
            "Sine and cosine have changed places in the blocks: an offset of 0 must give the unit "
            "matrix.",
            matrix(block=block),
            "Put the cosines, which are 1 at offset 0, on the diagonal.",
        )
    for block in (
        lambda cos, sin: (cos, 0 * sin, 0 * sin, cos),
        lambda cos, sin: (sin, 0 * sin, 0 * sin, cos),
    ):
        yield (
            "Only the diagonal is filled; the new sine needs the old cosine too, and the other "
            "way round.",
            matrix(block=block),
            "Each pair needs a block of 2 × 2: [[cos, sin], [-sin, cos]].",
        )

    def from_the_first_row(blocks):
        target, start = blocks[:, :, 1].flatten(), torch.tensor([0.0, 1.0]).repeat(len(blocks))
        return torch.outer(target, start.to(target.dtype)) / len(blocks)

    for place in (
        from_the_first_row,
        lambda blocks: torch.block_diag(*(blocks * torch.tensor([0.0, 1.0]))),
    ):
        yield (
            "The matrix takes PE[0] to PE[offset], but no other position to where it belongs.",
            matrix(place=place),
            "One matrix has to serve every p: use the angle-sum formulas; they hold for any angle.",
        )

    def rolled(dim):
        def shift_matrix(offset, d_model):
            if d_model % 2:
                raise ValueError("d_model is odd")
            return torch.eye(d_model).roll(offset, dims=dim)

        return shift_matrix

    def moved_diagonal(sign):
        def shift_matrix(offset, d_model):
            if d_model % 2:
                raise ValueError("d_model is odd")
            column = torch.arange(d_model)
            return (column - column[:, None] == sign * offset).float()

        return shift_matrix

    for implementation in (rolled(0), rolled(1), moved_diagonal(1), moved_diagonal(-1)):
        yield (
            "The columns of the encoding are moved along; it is the position that must move, by a "
            "rotation within each pair.",
            implementation,
            "Put [[cos, sin], [-sin, cos]] of offset / 10000^(2i/d_model) on the diagonal.",
        )
    yield (
        "It returns the blocks one by one; the matrix has them on its diagonal.",
        matrix(place=lambda blocks: blocks),
        "torch.block_diag(*blocks) builds the (d_model, d_model) matrix.",
    )
    for wide in (torch.float64, torch.float32):
        yield (
            "The matrix is float64, as numpy makes it; it cannot multiply a float32 encoding.",
            matrix(dtype=torch.float64, wide=wide),
            FLOAT32,
        )
    for error in (None, RuntimeError, AssertionError, IndexError):
        yield (
            "An odd width is not refused with a ValueError.",
            matrix(refuse=error),
            "Begin with: if d_model % 2: raise ValueError(...).",
        )


# ---- learned positions ---------------------------------------------------------------------

learned = Exercise(
    "positions/LearnedPositions",
    points=2,
    signature="LearnedPositions(max_length, d_model), forward(x)",
    returns=[Returned("output", "(batch, length, d_model)")],
    parameters=lambda max_length, d_model: {"embedding.weight": (max_length, d_model)},
)


@learned.case(
    "three tokens, and a table of five",
    next_step="Row p of the table belongs to position p: add the first `length` rows to each "
    "sequence of the batch.",
)
def _(learned, make):
    add = make.module(learned, 5, 4)
    return {
        "output": add(make.normal(2, 3, 4)),
        "output for an input of zeros": add(torch.zeros(2, 3, 4)),
    }


@learned.case(
    "the parameters: one table",
    next_step="self.embedding = nn.Embedding(max_length, d_model); there is nothing else.",
)
def _(learned, make):
    add = make.module(learned, 7, 2)
    found = add.component.named_parameters()
    return {
        "parameters": ", ".join(sorted(f"{name} {tuple(p.shape)}" for name, p in found)),
        "output": add(make.normal(3, 4, 2)),
    }


@learned.case(
    "other lengths, one after the other, up to the whole table",
    next_step="Take the length from x in every call, and keep nothing from one call to the next.",
)
def _(learned, make):
    add = make.module(learned, 6, 3)
    return {
        f"output for {length} of 6 positions": add(make.normal(2, length, 3))
        for length in (4, 1, 6, 2)
    }


@learned.case(
    "as many sequences as tokens as columns",
    next_step="x is (batch, length, d_model): the length is x.size(1), and the positions run "
    "along that axis.",
)
def _(learned, make):
    add, full = make.module(learned, 6, 4), make.module(learned, 4, 4)
    return {
        "output": add(make.normal(4, 4, 4)),
        "output where the table has as many rows": full(make.normal(4, 4, 4)),
    }


@learned.case("a batch of one", next_step="Drop no axis of length 1.")
def _(learned, make):
    add, full = make.module(learned, 8, 5), make.module(learned, 3, 2)
    return {
        "output": add(make.normal(1, 6, 5)),
        "output of the whole table": full(make.normal(1, 3, 2)),
    }


@learned.case(
    "a single token",
    next_step="A single token stands at position 0: it gets the first row of the table, and stays "
    "single. Drop no axis of length 1.",
)
def _(learned, make):
    add, single = make.module(learned, 4, 5), make.module(learned, 1, 3)
    return {
        "output": add(make.normal(2, 1, 5)),
        "output with a table of one": single(make.normal(1, 1, 3)),
    }


def says(call, x, *numbers):
    """Whether the ValueError that the call raises has these numbers in its text."""
    try:
        call(x)
    except ValueError as error:
        return {str(number) for number in numbers} <= set(re.findall(r"\d+", str(error)))
    except Exception:
        return False
    return False


@learned.case(
    "a sequence longer than the table",
    next_step="Compare x.size(1) with max_length first, and raise a ValueError whose text has "
    "both: it is all that its reader will see.",
)
def _(learned, make):
    add, single = make.module(learned, 6, 4), make.module(learned, 1, 4)
    return {
        "output at the limit": add(make.normal(2, 6, 4)),
        "error for 7 positions and a table of 6": raises(add, make.normal(2, 7, 4)),
        "error for 3 positions and a table of 1": raises(single, make.normal(2, 3, 4)),
        "its text has both numbers": says(add, make.normal(2, 13, 4), 13, 6),
    }


@learned.case(
    "the gradients of the input and of the table",
    next_step="Use the table itself, self.embedding.weight or self.embedding(positions): .data, "
    ".detach() and requires_grad = False keep it from learning. Rows that are not read get 0.",
)
def _(learned, make):
    add = make.module(learned, 5, 4)
    x, factors = make.normal(3, 4, 4, grad=True), make.normal(3, 4, 4)
    table = dict(add.component.named_parameters())["embedding.weight"]
    output = add(x)
    reached = {}
    for name, tensor in {"input": x, "table": table}.items():
        found = None
        if output.requires_grad and tensor.requires_grad:
            loss = (output * factors).sum()
            (found,) = torch.autograd.grad(loss, tensor, retain_graph=True, allow_unused=True)
        reached[f"a gradient reaches the {name}"] = found is not None
        reached[f"gradient of the {name}"] = torch.zeros_like(tensor) if found is None else found
    return {"output": output, **reached}


@learned.case(
    "float64 inputs that are views, left as they were",
    next_step="Write x + rows, not x += rows: the caller still needs x. Stay in the dtype of x "
    "and of the table.",
)
def _(learned, make):
    add = make.module(learned, 6, 7, dtype=torch.float64)
    x, y = make.normal(5, 2, 7, dtype=torch.float64), make.normal(2, 7, 3, dtype=torch.float64)
    return {
        "output": add(x.transpose(0, 1)),
        "output of another": add(y.mT),
        "the inputs are unchanged": make.unchanged(),
    }


@learned.case(
    "bfloat16",
    weight=0.5,
    next_step="Make no new tensor of another dtype: table and input are bfloat16, so is their sum.",
)
def _(learned, make):
    add = make.module(learned, 6, 4, dtype=torch.bfloat16)
    return {"output": add(make.normal(2, 5, 4, dtype=torch.bfloat16))}


@learned.case("other sizes", hidden=True)
def _(learned, make):
    add = make.module(learned, 23, 10)
    return {"output": add(make.normal(5, 17, 10)), "output of all": add(make.normal(2, 23, 10))}


@learned.misconceptions
def _():
    """The table with one thing wrong at a time."""

    def first(table, x):
        return table.weight[: x.size(1)]

    def added(x, rows):
        return x + rows

    def both(x, limit):
        return f"{x.size(1)} positions, but a table of {limit}"

    def positions(rows=first, join=added, error=ValueError, text=both, frozen=False):
        class Positions(nn.Module):
            def __init__(self, max_length, d_model):
                super().__init__()
                self.embedding = nn.Embedding(max_length, d_model)
                self.embedding.weight.requires_grad_(not frozen)

            def forward(self, x):
                limit = self.embedding.num_embeddings
                if error and x.size(1) > limit:
                    raise error(text(x, limit))
                return join(x, rows(self.embedding, x))

        return Positions

    def no_graph(table, x):
        with torch.no_grad():
            return first(table, x).clone()

    for rows in (
        lambda table, x: table.weight[: x.size(0), None],
        lambda table, x: table.weight[: x.size(1), None],
        lambda table, x: table(torch.arange(x.size(0)))[:, None],
    ):
        yield (
            "The positions run along the batch: every token of a sequence gets the same row, and "
            "each sequence another one.",
            positions(rows),
            "x is (batch, length, d_model): count x.size(1) positions, with no axis behind them.",
        )
    for axis in (0, -1):
        yield (
            "The length is read from another axis of x: the positions are counted along the batch "
            "or the columns.",
            positions(lambda table, x, axis=axis: table.weight[: x.size(axis)]),
            "x is (batch, length, d_model): the length is x.size(1).",
        )
    yield (
        "The last rows of the table are added, so a token's vector depends on how long the "
        "sequence is.",
        positions(lambda table, x: table.weight[-x.size(1) :]),
        "Position 0 is the first row: weight[:length].",
    )
    yield (
        "The rows are taken from behind: the first token gets the row of the last position.",
        positions(lambda table, x: first(table, x).flip(0)),
        "Position p is row p of the table.",
    )
    yield (
        "The positions are counted from 1, so the first row is never used and the last position "
        "has none.",
        positions(lambda table, x: table(torch.arange(1, x.size(1) + 1))),
        "torch.arange(length) begins at 0.",
    )
    for row in (lambda x: 0, lambda x: x.size(1) - 1):
        yield (
            "Every token gets the same row, so nothing tells the positions apart.",
            positions(lambda table, x, row=row: table.weight[row(x)]),
            "Token p gets row p: weight[:length], or embedding(torch.arange(length)).",
        )
    for join in (
        lambda x, rows: rows,
        lambda x, rows: rows.expand_as(x),
        lambda x, rows: 0 * x + rows,
    ):
        yield (
            "Only the table comes back; the input is lost.",
            positions(join=join),
            "Return x plus the rows.",
        )
    yield (
        "The input is multiplied by the rows; they are to be added.",
        positions(join=lambda x, rows: x * rows),
        "Return x + rows.",
    )
    yield (
        "The rows are set beside the input instead of added to it, so the result is wider.",
        positions(join=lambda x, rows: torch.cat([x, rows.expand_as(x)], dim=-1)),
        "Return x + rows.",
    )
    for join in (
        lambda x, rows: x * math.sqrt(x.size(-1)) + rows,
        lambda x, rows: x + rows * math.sqrt(x.size(-1)),
        lambda x, rows: (x + rows) * math.sqrt(x.size(-1)),
        lambda x, rows: x + rows / math.sqrt(x.size(-1)),
    ):
        yield (
            "Input or table is scaled by the square root of d_model; that is not asked for here.",
            positions(join=join),
            "Add the two as they are. The scale belongs to the token embedding, in the "
            "Transformer itself.",
        )
    for rows, frozen in (
        (lambda table, x: table.weight[: x.size(1)].detach(), False),
        (no_graph, False),
        (first, True),
    ):
        yield (
            "No gradient reaches the table: it is cut off or frozen, and stays as it was at the "
            "start.",
            positions(rows, frozen=frozen),
            "Leave out .detach(), .data, torch.no_grad() and requires_grad = False: a learned "
            "table needs its gradient.",
        )
    for join in (lambda x, rows: x.detach() + rows, lambda x, rows: x.data + rows):
        yield (
            "The gradient stops at the input, so nothing before this layer learns.",
            positions(join=join),
            "Leave out .detach() and .data: return x + rows.",
        )
    for rows in (
        lambda table, x: table.weight,
        lambda table, x: table(torch.arange(table.num_embeddings)),
    ):
        yield (
            "The whole table is added, whatever the length, which fits only sequences as long as "
            "the table.",
            positions(rows),
            "Take its first rows: weight[:length].",
        )
    for rows, error in (
        (first, None),
        (first, IndexError),
        (first, RuntimeError),
        (lambda table, x: table(torch.arange(x.size(1))), None),
    ):
        yield (
            "A sequence longer than the table ends in another error than a ValueError, or in none "
            "where the table has one row.",
            positions(rows, error=error, text=lambda x, limit: "too long"),
            "Begin with: if x.size(1) > max_length: raise ValueError(...), with both in its text.",
        )

    def wrapped(table, x):
        return table(torch.arange(x.size(1)) % table.num_embeddings)

    def clamped(table, x):
        return table(torch.arange(x.size(1)).clamp(max=table.num_embeddings - 1))

    def filled(table, x):
        rows = first(table, x)
        return torch.cat([rows, rows.new_zeros(x.size(1) - len(rows), rows.size(1))])

    def cut(x, rows):
        return x[:, : len(rows)] + rows

    for rows, join in ((wrapped, added), (clamped, added), (filled, added), (first, cut)):
        yield (
            "A sequence longer than the table is let through: rows are used twice, or tokens go "
            "without.",
            positions(rows, join, error=None),
            "Begin with: if x.size(1) > max_length: raise ValueError(...), with both in its text.",
        )
    for text in (
        lambda x, limit: "too long",
        lambda x, limit: f"longer than {limit}",
        lambda x, limit: f"{x.size(1)} are too many",
    ):
        yield (
            "The ValueError does not say both how long the sequence is and how long it may be.",
            positions(text=text),
            'Put both into its text, as in f"{length} positions, but a table of {max_length}".',
        )

    def in_place(x, rows):
        x += rows
        return x

    def in_place_unseen(x, rows):
        with torch.no_grad():
            x.copy_(x + rows)
        return x

    for join in (in_place, in_place_unseen):
        yield (
            "The caller's input is changed in place.",
            positions(join=join),
            "Write x = x + rows, not x += rows.",
        )


# ---- rotary positions ----------------------------------------------------------------------

rotary = Exercise(
    "positions/apply_rotary",
    points=4,
    signature="apply_rotary(x, positions, base=10000.0)",
    returns=[Returned("rotated", "of x")],
)


@rotary.case(
    "one pair, (1, 0), at three positions",
    next_step="At position p, (1, 0) turns into (cos p, sin p): a cos - b sin, a sin + b cos.",
)
def _(rotary, make):
    x = torch.tensor([[1.0, 0.0]]).repeat(3, 1)
    return {"rotated": rotary(x, torch.arange(3))}


@rotary.case(
    "a batch of two, three heads, five positions",
    next_step="angles = positions[:, None] * frequencies has shape (length, d_head/2), and "
    "broadcasts against x[..., 0::2] and x[..., 1::2].",
)
def _(rotary, make):
    return {"rotated": rotary(make.normal(2, 3, 5, 8), torch.arange(5))}


@rotary.case(
    "positions that start late, repeat or lie between whole numbers",
    weight=2,
    next_step="Use the positions that are given. While a text is generated, a single token comes "
    "in, and its position is not 0.",
)
def _(rotary, make):
    late, mixed = torch.tensor([7, 8, 9, 10]), torch.tensor([12, 3, 3, 0], dtype=torch.int32)
    between = torch.tensor([0.5, 1.25, 7.75, -2.0])
    return {
        "rotated at 7, 8, 9, 10": rotary(make.normal(2, 4, 6), late),
        "rotated at 12, 3, 3, 0": rotary(make.normal(2, 4, 6), mixed),
        "rotated at 0.5, 1.25, 7.75, -2": rotary(make.normal(2, 4, 6), between),
    }


@rotary.case(
    "no leading axis, and three of them",
    next_step="Count the axes from the end (x.size(-1), x[..., 0::2], dim=-1), so that any number "
    "of them may stand in front.",
)
def _(rotary, make):
    return {
        "rotated, (5, 4)": rotary(make.normal(5, 4), torch.arange(5)),
        "rotated, (2, 1, 3, 4, 6)": rotary(make.normal(2, 1, 3, 4, 6), torch.arange(4)),
    }


@rotary.case(
    "other bases",
    next_step="The frequency of pair i is base^(-2i/d_head): use the argument, not 10000.",
)
def _(rotary, make):
    # Each call has tensors of its own: what a call changes in place, another case tells.
    x, positions = make.normal(2, 5, 8), torch.arange(1, 6)
    return {
        "rotated with base 100": rotary(x.clone(), positions.clone(), 100.0),
        "rotated with base 500000": rotary(x.clone(), positions.clone(), 500000.0),
    }


@rotary.case(
    "as many heads as tokens as columns",
    next_step="The length is the last axis but one: the angles broadcast over all axes before it.",
)
def _(rotary, make):
    positions = make.integers(0, 9, 4)
    return {
        "rotated, four axes": rotary(make.normal(4, 4, 4, 4), positions.clone()),
        "rotated, three axes": rotary(make.normal(4, 4, 4), positions.clone()),
    }


@rotary.case(
    "scores depend on the distance alone",
    next_step="A rotation keeps lengths, and query and key turned by the same angle keep their "
    "dot product. So scores may only change where the distance does.",
)
def _(rotary, make):
    query, key, positions = make.normal(4, 6), make.normal(4, 6), torch.tensor([0, 1, 4, 6])
    turned = rotary(query.clone(), positions.clone())
    scores = turned @ rotary(key.clone(), positions.clone()).mT
    later = rotary(query.clone(), positions + 9) @ rotary(key.clone(), positions + 9).mT
    return {
        "scores": scores,
        "how many scores change when all move on by 9": int(((later - scores).abs() > 1e-3).sum()),
        "how many vectors change their length": int(
            ((turned.norm(dim=-1) - query.norm(dim=-1)).abs() > 1e-3).sum()
        ),
    }


@rotary.case(
    "a single token, a single pair, and position 0",
    next_step="At position 0 nothing turns. The first pair, i = 0, has frequency 1 whatever the "
    "base. Drop no axis of length 1.",
)
def _(rotary, make):
    return {
        "rotated at position 5": rotary(make.normal(3, 1, 6), torch.tensor([5])),
        "rotated pair": rotary(make.normal(1, 4, 2), torch.arange(4)),
        "rotated at position 0": rotary(make.normal(2, 3, 4), torch.zeros(3, dtype=torch.int64)),
    }


@rotary.case(
    "an odd width is refused",
    weight=0.5,
    next_step="A number without a partner cannot be rotated: raise ValueError where d_head % 2 "
    "is not 0.",
)
def _(rotary, make):
    return {
        "rotated, 4 columns": rotary(make.normal(2, 3, 4), torch.arange(3)),
        "error for 5 columns": raises(rotary, make.normal(2, 3, 5), torch.arange(3)),
        "error for 7 columns": raises(rotary, make.normal(3, 7), torch.arange(3)),
    }


@rotary.case(
    "heads and length swapped, as a view, left as it was",
    next_step="Write into a new tensor, and go by the axes, not by the order in memory.",
)
def _(rotary, make):
    x, positions = make.normal(2, 5, 3, 6), make.integers(0, 9, 10)
    return {
        "rotated": rotary(x.transpose(1, 2), positions[::2]),
        "the inputs are unchanged": make.unchanged(),
    }


@rotary.case(
    "columns that do not lie side by side in memory",
    weight=0.5,
    next_step="view and view_as_complex need neighbors in memory: use reshape, and contiguous() "
    "where it must be.",
)
def _(rotary, make):
    turned, spread = make.normal(2, 6, 4), make.normal(3, 4, 12)
    return {
        "rotated, of a transposed input": rotary(turned.mT, torch.arange(4)),
        "rotated, of every other column": rotary(spread[..., ::2], torch.arange(4)),
        "the inputs are unchanged": make.unchanged(),
    }


@rotary.case(
    "bfloat16, at positions up to 777",
    next_step="bfloat16 has eight bits: 257 becomes 256. Compute the angles in float32, and turn "
    "the result into the dtype of x at the end.",
)
def _(rotary, make):
    # Small numbers, so that the rounding of bfloat16 products stays within the tolerance.
    x = make.normal(2, 6, 8, dtype=torch.bfloat16, scale=0.25)
    return {"rotated": rotary(x, torch.tensor([0, 3, 130, 257, 515, 777]))}


@rotary.case(
    "float64, to the last digits",
    weight=0.5,
    next_step="For a float64 x, compute the angles in float64 too: positions.to(torch.float64), "
    "and frequencies of the same dtype.",
)
def _(rotary, make):
    rotated = rotary(make.normal(2, 4, 6, dtype=torch.float64), make.integers(0, 20, 4))
    # With eight columns and base 10000, position 3 turns the pairs by 3, 0.3, 0.03 and 0.003.
    # A yes or no, since float32 rounds otherwise on other machines.
    angles = torch.tensor([3.0, 0.3, 0.03, 0.003], dtype=torch.float64)
    known = torch.stack([angles.cos(), angles.sin()], dim=-1).flatten()
    start = torch.tensor([[1.0, 0.0] * 4], dtype=torch.float64)
    error = (rotary(start, torch.tensor([3])).double() - known).abs().max()
    return {
        "rotated, in float32": rotated.float(),
        "dtype of the result": str(rotated.dtype),
        "ten digits are right": bool(error < 1e-10),
    }


@rotary.case(
    "far positions, to two decimals",
    weight=0.5,
    next_step="Any position must work: no table of fixed size, and no positions in a type that "
    "cannot hold them.",
)
def _(rotary, make):
    # Right ways differ in the fourth decimal here: an angle of 2500 has few digits in float32.
    far = torch.tensor([300, 1025, 2047, 2049, 2500])
    return {"rotated": rotary(make.normal(2, 5, 4, scale=0.5), far).half()}


@rotary.case(
    "the gradient",
    next_step="Both numbers of a pair must reach both results: detach nothing on the way, and "
    "overwrite nothing.",
)
def _(rotary, make):
    x = make.normal(2, 4, 6, grad=True)
    output = rotary(x, make.integers(0, 20, 4))
    return {"rotated": output, **make.gradients("result", output, x=x)}


@rotary.case("other sizes", hidden=True)
def _(rotary, make):
    return {
        "rotated": rotary(make.normal(2, 2, 7, 16), make.integers(0, 40, 7)),
        "rotated with another base": rotary(make.normal(3, 9, 10), make.integers(0, 40, 9), 700.0),
    }


@rotary.misconceptions
def _():
    """The rotation with one thing wrong at a time."""

    def right(column, d_head, base):
        return base ** (-column / d_head)

    def wide(x):
        return torch.promote_types(x.dtype, torch.float32)

    def counter_clockwise(a, b, cos, sin):
        return a * cos - b * sin, a * sin + b * cos

    def neighbors(x):
        return x[..., 0::2], x[..., 1::2]

    def interleaved(a, b):
        return torch.stack([a, b], dim=-1).flatten(start_dim=-2)

    def halves(x):
        return x.chunk(2, dim=-1)

    def side_by_side(a, b):
        return torch.cat([a, b], dim=-1)

    def rotation(
        frequency=right,
        turn=counter_clockwise,
        split=neighbors,
        join=interleaved,
        position=lambda positions, x: positions,
        broadcast=lambda angles, x: angles,
        angle_dtype=wide,
        dtype=lambda x: x.dtype,
        refuse=ValueError,
        of=lambda x: x,
        fixed_base=None,
    ):
        def apply_rotary(x, positions, base=10000.0):
            d_head = x.size(-1)
            if d_head % 2 and refuse:
                raise refuse("d_head is odd")
            kind = angle_dtype(x)
            column = torch.arange(0, d_head, 2, dtype=kind)
            speeds = frequency(column, d_head, fixed_base or base)
            places = position(positions, x).to(kind)[:, None]
            angles = broadcast(places * speeds, x)
            return join(*turn(*split(of(x)), angles.cos(), angles.sin())).to(dtype(x))

        return apply_rotary

    yield (
        "Column i is paired with column i + d_head/2, as some libraries do; here the pairs are "
        "neighbors, columns 2i and 2i + 1.",
        rotation(split=halves, join=side_by_side),
        "Take a = x[..., 0::2] and b = x[..., 1::2].",
    )
    yield (
        "The pairs are rotated clockwise.",
        rotation(turn=lambda a, b, cos, sin: (a * cos + b * sin, b * cos - a * sin)),
        "Counter-clockwise is (a cos - b sin, a sin + b cos).",
    )
    for turn in (
        lambda a, b, cos, sin: (a * cos + b * sin, a * sin + b * cos),
        lambda a, b, cos, sin: (a * cos + b * sin, a * sin - b * cos),
        lambda a, b, cos, sin: (a * cos - b * sin, a * sin - b * cos),
        lambda a, b, cos, sin: (b * sin - a * cos, a * sin + b * cos),
    ):
        yield (
            "The minus sign is missing or stands in the wrong place, so it is no rotation: "
            "vectors change their length, or are mirrored.",
            rotation(turn=turn),
            "The new pair is (a cos - b sin, a sin + b cos).",
        )
    for turn in (
        lambda a, b, cos, sin: (a * sin - b * cos, a * cos + b * sin),
        lambda a, b, cos, sin: (a * sin + b * cos, a * cos - b * sin),
        lambda a, b, cos, sin: (a * sin + b * cos, b * sin - a * cos),
    ):
        yield (
            "Sine and cosine, or the two results, have changed places: at position 0 nothing may "
            "move.",
            rotation(turn=turn),
            "The new pair is (a cos - b sin, a sin + b cos), in this order.",
        )
    for turn in (
        lambda a, b, cos, sin: (a * cos, b * cos),
        lambda a, b, cos, sin: (a * sin, b * sin),
        lambda a, b, cos, sin: (a * (cos + sin), b * (cos + sin)),
        lambda a, b, cos, sin: (a * sin, b * cos),
        lambda a, b, cos, sin: (a * cos, b * sin),
    ):
        yield (
            "The two numbers of a pair are not mixed: each is multiplied by something, which is "
            "no rotation.",
            rotation(turn=turn),
            "Both results need both numbers: (a cos - b sin, a sin + b cos).",
        )
    yield (
        "The sinusoids are added to x; rotary positions turn x and add nothing.",
        rotation(turn=lambda a, b, cos, sin: (a + sin, b + cos)),
        "Multiply: (a cos - b sin, a sin + b cos).",
    )
    yield (
        "The pairs are read right and rotated right, but written as two halves: they must go back "
        "to columns 2i and 2i + 1.",
        rotation(join=side_by_side),
        "Stack both results on a new last axis, and flatten the last two axes.",
    )

    def mixed(turned, spread):
        def apply_rotary(x, positions, base=10000.0):
            d_head = x.size(-1)
            if d_head % 2:
                raise ValueError("d_head is odd")
            column = torch.arange(0, d_head, 2, dtype=wide(x))
            angles = spread(positions.to(wide(x))[:, None] * right(column, d_head, base))
            return (x * angles.cos() + turned(x) * angles.sin()).to(x.dtype)

        return apply_rotary

    def turned_halves(x):
        a, b = halves(x)
        return side_by_side(-b, a)

    def turned_neighbors(x):
        a, b = neighbors(x)
        return interleaved(-b, a)

    for turned, spread in (
        (turned_halves, lambda angles: interleaved(angles, angles)),
        (turned_neighbors, lambda angles: side_by_side(angles, angles)),
    ):
        yield (
            "Two ways to pair the columns are mixed: the angles are laid out for one, the numbers "
            "are swapped by the other.",
            mixed(turned, spread),
            "Repeat each angle for its two neighbors (repeat_interleave), and swap neighbors too.",
        )
    yield (
        "The exponent is i/d_head instead of 2i/d_head.",
        rotation(lambda column, d, base: base ** (-column / 2 / d)),
        "i counts the pairs, from 0 to d_head/2 - 1; twice that is divided by d_head.",
    )
    yield (
        "The exponent is doubled twice: it runs to 2, not to 1.",
        rotation(lambda column, d, base: base ** (-2 * column / d)),
        "torch.arange(0, d_head, 2) already is 2i: divide it by d_head and leave it.",
    )
    # A large angle shows the rounding of each way to compute it.
    for frequency in (
        lambda column, d, base: base ** (column / d),
        lambda column, d, base: base ** (column.double() / d),
    ):
        yield (
            "The positions are multiplied by base^(2i/d_head) instead of divided by it.",
            rotation(frequency),
            "The frequency of pair i is base^(-2i/d_head).",
        )
    for speed in (lambda base: 1.0, lambda base: 1.0 / base):
        yield (
            "All pairs turn at the same speed: i does not reach the exponent, or the exponent is "
            "cut to a whole number.",
            rotation(lambda column, d, base, speed=speed: speed(base) * torch.ones_like(column)),
            "Each pair has its own i; divide 2i by d_head with /, not with //.",
        )
    for position in (
        lambda positions, x: torch.arange(x.size(-2)),
        lambda positions, x: positions - positions[0],
        lambda positions, x: positions[0] + torch.arange(x.size(-2)),
        lambda positions, x: torch.arange(1, x.size(-2) + 1),
    ):
        yield (
            "The positions that are given are not used: it counts for itself.",
            rotation(position=position),
            "Use positions as they come: they may start late, repeat, or stand in any order.",
        )
    for position in (
        lambda positions, x: positions.long(),
        lambda positions, x: positions.round().long(),
    ):
        yield (
            "The positions are cut to whole numbers.",
            rotation(position=position),
            "Make them floating point; they may lie between whole numbers.",
        )
    yield (
        "One is added to the positions: nothing may turn at position 0.",
        rotation(position=lambda positions, x: positions + 1),
        "Use positions as they come.",
    )
    yield (
        "The base is always 10000, whatever the argument says.",
        rotation(fixed_base=10000.0),
        "Compute base ** (-2i/d_head).",
    )
    for broadcast in (
        lambda angles, x: angles[:, None],
        lambda angles, x: angles[:, None] if x.ndim > 2 else angles,
        lambda angles, x: angles[:, None] if x.ndim > 3 else angles,
    ):
        yield (
            "The positions run along the axis before the length, as if x were (batch, length, "
            "heads, d_head); here the length is the last axis but one.",
            rotation(broadcast=broadcast),
            "Angles of shape (length, d_head/2) broadcast by themselves: add no axis.",
        )

    def rewritten(keep):
        def apply_rotary(x, positions, base=10000.0):
            if x.size(-1) % 2:
                raise ValueError("d_head is odd")
            column = torch.arange(0, x.size(-1), 2, dtype=wide(x))
            angles = positions.to(wide(x))[:, None] * right(column, x.size(-1), base)
            cos, sin = angles.cos(), angles.sin()
            x = keep(x)
            x[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
            x[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
            return x

        return apply_rotary

    for keep in (lambda x: x.clone(), lambda x: x):
        yield (
            "The second number of a pair is computed from the first one after it was overwritten.",
            rewritten(keep),
            "Keep a = x[..., 0::2] and b = x[..., 1::2] as copies, or stack two new tensors.",
        )

    def in_place(x, positions, base=10000.0):
        x.copy_(rotation()(x, positions, base))
        return x

    def in_place_unseen(x, positions, base=10000.0):
        with torch.no_grad():
            x.copy_(rotation()(x, positions, base))
        return x

    for implementation in (in_place, in_place_unseen):
        yield (
            "The caller's tensor is changed in place.",
            implementation,
            "Write the result into a new tensor: torch.stack, torch.empty_like or x.clone().",
        )

    def in_the_dtype_of_x(angles_of):
        def apply_rotary(x, positions, base=10000.0):
            if x.size(-1) % 2:
                raise ValueError("d_head is odd")
            angles = angles_of(x.dtype, positions, x.size(-1), base)
            return interleaved(*counter_clockwise(*neighbors(x), angles.cos(), angles.sin()))

        return apply_rotary

    def powers(dtype, positions, d_head, base):
        column = torch.arange(0, d_head, 2, dtype=dtype)
        return positions.to(dtype)[:, None] * base ** (-column / d_head)

    def quotients(dtype, positions, d_head, base):
        column = torch.arange(0, d_head, 2, dtype=dtype)
        return positions.to(dtype)[:, None] / base ** (column / d_head)

    def exponentials(dtype, positions, d_head, base):
        column = torch.arange(0, d_head, 2, dtype=dtype)
        return positions.to(dtype)[:, None] * torch.exp(column * (-math.log(base) / d_head))

    def late(dtype, positions, d_head, base):
        wider = torch.promote_types(dtype, torch.float32)
        return powers(wider, positions, d_head, base).to(dtype)

    def rounded(wider, whole):
        """Frequencies in a wider dtype, rounded to that of x, and perhaps the positions too."""

        def angles(dtype, positions, d_head, base):
            column = torch.arange(0, d_head, 2, dtype=wider(dtype))
            speeds = (base ** (-column / d_head)).to(dtype)
            return (positions if whole else positions.to(dtype))[:, None] * speeds

        return angles

    def at_least_float32(dtype):
        return torch.promote_types(dtype, torch.float32)

    rounded_late = [
        rounded(wider, whole)
        for wider in (at_least_float32, lambda dtype: torch.float32)
        for whole in (False, True)
    ]
    for angles_of in (powers, quotients, exponentials, late, *rounded_late):
        yield (
            "The angles are computed in the dtype of x: in bfloat16 a late position gets the angle "
            "of another one.",
            in_the_dtype_of_x(angles_of),
            "Compute them in float32 (float64 for a float64 x), and convert the result to x.dtype.",
        )

    def in_float32(x):
        return torch.float32

    def in_float64(x):
        return torch.float64

    for options in (
        {"dtype": wide},
        {"dtype": in_float32},
        {"dtype": in_float64, "angle_dtype": in_float64},
        {"dtype": wide, "angle_dtype": in_float32},
    ):
        yield (
            "The result does not have the dtype of x: the angles made it float32 or float64.",
            rotation(**options),
            "End with .to(x.dtype).",
        )
    for of in (lambda x: x, lambda x: x.float()):
        yield (
            "A float64 x gets float32 angles, or becomes float32 itself: the result is good for "
            "seven digits only.",
            rotation(of=of, angle_dtype=in_float32),
            "For a float64 x make positions and frequencies float64, and convert short floats "
            "alone.",
        )

    def passed_on(x, positions, base=10000.0):
        return x if x.size(-1) % 2 else rotation()(x, positions, base)

    for implementation in (
        rotation(refuse=None),
        rotation(refuse=AssertionError),
        rotation(refuse=IndexError),
        passed_on,
    ):
        yield (
            "An odd width is not refused with a ValueError.",
            implementation,
            "Begin with: if x.size(-1) % 2: raise ValueError(...).",
        )


# ---- linear biases -------------------------------------------------------------------------

alibi = Exercise(
    "positions/alibi_bias",
    points=2,
    signature="alibi_bias(num_heads, length)",
    returns=[Returned("bias", "(num_heads, length, length)")],
)


@alibi.case(
    "eight heads, as in the paper: slopes 1/2, 1/4, ..., 1/256",
    next_step="Head h, counted from 1, has the slope 2^(-8h/num_heads). Entry i, j is minus the "
    "slope times the distance of i and j.",
)
def _(alibi, make):
    bias = alibi(8, 4).float()
    return {"bias": bias, "slopes": -bias[:, 0, 1]}


@alibi.case(
    "two heads, other lengths one after the other",
    next_step="The slope is 2^(-8h/num_heads); the distance is (i - j).abs().",
)
def _(alibi, make):
    length = int(make.integers(5, 10))
    return {"bias": alibi(2, length).float(), "longer bias": alibi(2, length + 2).float()}


@alibi.case(
    "numbers of heads that are no power of two",
    weight=2,
    next_step="The slopes are 2^(-8h/num_heads) for every number of heads: the exponents grow "
    "evenly, from 8/num_heads to 8, and need not be whole numbers.",
)
def _(alibi, make):
    return {
        "bias of 3 heads": alibi(3, 4).float(),
        "bias of 6 heads": alibi(6, 3).float(),
        "bias of 12 heads": alibi(12, 2).float(),
    }


@alibi.case(
    "one head, and one position",
    next_step="A single head has the slope 2^-8; a single position has the distance 0 from "
    "itself. Keep axes of length 1.",
)
def _(alibi, make):
    return {
        "bias of one head": alibi(1, 3).float(),
        "bias of one position": alibi(4, 1).float(),
        "bias of one head and one position": alibi(1, 1).float(),
    }


@alibi.case(
    "as many heads as positions",
    next_step="The heads are the first axis. The bias is the same in both directions: what may be "
    "seen is for the mask to say.",
)
def _(alibi, make):
    bias = alibi(5, 5).float()
    return {
        "bias": bias,
        "how many entries differ from their mirror image": int((bias != bias.mT).sum()),
    }


@alibi.case(
    "what it makes of equal scores",
    next_step="Added to the scores before the softmax, the bias makes each weight exp(-slope) "
    "times that of the neighbor one step nearer.",
)
def _(alibi, make):
    weights = torch.softmax(alibi(4, int(make.integers(6, 9))).float(), dim=-1)
    return {"weights": weights, "sums of weights": weights.sum(dim=-1)}


@alibi.case(
    "a long sequence",
    next_step="The distance goes on growing: no window, and no positions in a type that cannot "
    "hold them.",
)
def _(alibi, make):
    bias = alibi(2, 160).float()
    return {"some rows of the bias": bias[:, [0, 90, 159]][..., ::53]}


@alibi.case("float32, and nothing to learn", next_step=PLAIN)
def _(alibi, make):
    bias = alibi(4, int(make.integers(3, 7)))
    return {"bias": bias, "it asks for gradients": bias.requires_grad}


@alibi.case("other sizes", hidden=True)
def _(alibi, make):
    return {
        "bias of 5 heads": alibi(5, int(make.integers(7, 13))).float(),
        "bias of 16 heads": alibi(16, int(make.integers(3, 6))).float(),
    }


@alibi.misconceptions
def _():
    """The bias with one thing wrong at a time."""

    def right(heads, num_heads):
        return 2.0 ** (-8 * heads / num_heads)

    def distance(i, j):
        return (i - j).abs()

    def heads_first(slopes, distances):
        return -slopes[:, None, None] * distances

    def bias(slopes=right, distance=distance, join=heads_first, finish=lambda bias: bias, first=1):
        def alibi_bias(num_heads, length):
            heads = torch.arange(first, first + num_heads, dtype=torch.float64)
            position = torch.arange(length, dtype=torch.float64)
            distances = distance(position[:, None], position)
            return finish(join(slopes(heads, num_heads), distances).float())

        return alibi_bias

    yield (
        "The sign is wrong: the bias grows with the distance, so far keys are favored.",
        bias(join=lambda slopes, distances: slopes[:, None, None] * distances),
        "Put a minus in front: the penalty grows with the distance.",
    )
    yield (
        "The heads are counted from 0, so the first slope is 1 and the last one is too large.",
        bias(first=0),
        "h runs from 1 to num_heads: torch.arange(1, num_heads + 1).",
    )
    yield (
        "The slopes stand in reverse order: head 1 has the largest, 2^(-8/num_heads).",
        bias(lambda heads, n: right(heads, n).flip(0)),
        "Head h has the slope 2^(-8h/num_heads).",
    )
    for slopes in (
        lambda heads, n: 2.0**-heads,
        lambda heads, n: 2.0 ** (-8 / heads),
        lambda heads, n: 2.0 ** (-heads / n),
        lambda heads, n: 2.0 ** (-8 * torch.ceil(heads / n)),
        lambda heads, n: torch.full_like(heads, 2.0 ** (-8 / n)),
        lambda heads, n: 2.0 ** (-n * heads / 8),
        lambda heads, n: 2.0 ** -((8 * heads) // n),
        lambda heads, n: torch.linspace(2.0 ** (-8 / n), 2.0**-8, n, dtype=torch.float64),
        lambda heads, n: heads / n,
        lambda heads, n: math.e ** (-8 * heads / n),
        lambda heads, n: 2.0 ** (-8 * (heads - 1) / max(n - 1, 1)),
        lambda heads, n: 2.0 ** (-1 - 7 * (heads - 1) / max(n - 1, 1)),
    ):
        yield (
            "The slopes are not 2^(-8h/num_heads): for eight heads or for another number they are "
            "off.",
            bias(slopes),
            "Each slope is 2^(-8/num_heads) times the one before it, and the first is that number "
            "itself.",
        )

    def interpolated(heads, n):
        near = 2 ** math.floor(math.log2(n))
        slopes = 2.0 ** (-8 * torch.arange(1, near + 1, dtype=torch.float64) / near)
        more = 2.0 ** (-8 * torch.arange(1, 2 * near + 1, dtype=torch.float64) / (2 * near))
        return torch.cat([slopes, more[0::2][: n - near]])

    for slopes in (interpolated, lambda heads, n: interpolated(heads, n).sort(descending=True)[0]):
        yield (
            "Where the number of heads is no power of two, the slopes are put together from two "
            "sequences, as the paper's published code does; here one formula serves every number.",
            bias(slopes),
            "Use 2^(-8h/num_heads), h from 1 to num_heads, whatever num_heads is.",
        )
    for squared in (lambda i, j: (i - j) ** 2, lambda i, j: (i - j).abs().sqrt()):
        yield (
            "The bias is not linear in the distance.",
            bias(distance=squared),
            "Multiply the slope by (i - j).abs() itself.",
        )
    for signed in (lambda i, j: i - j, lambda i, j: j - i):
        yield (
            "The distance keeps its sign, so one direction is favored instead of penalized.",
            bias(distance=signed),
            "Take the absolute value: (i - j).abs().",
        )
    for one_side in (lambda i, j: (i - j).clamp(min=0), lambda i, j: (j - i).clamp(min=0)):
        yield (
            "Only one side of the diagonal is filled; here keys on both sides have a distance.",
            bias(distance=one_side),
            "Take (i - j).abs(), and cut nothing off: the mask says what may be seen.",
        )
    yield (
        "Later keys are barred with minus infinity: that is the mask's task, not the bias's.",
        bias(
            finish=lambda bias: bias.masked_fill(
                torch.ones(bias.shape[-2:], dtype=torch.bool).triu(1), -math.inf
            )
        ),
        "Leave out the triangle: the bias has a finite number for every pair of positions.",
    )
    for keys_alone in (
        lambda i, j: -j - 0 * i,
        lambda i, j: j + 0 * i,
        lambda i, j: len(j) - 1 - j + 0 * i,
        lambda i, j: i + 0 * j,
        lambda i, j: -j[None],
    ):
        yield (
            "The bias depends on one position alone, a shortcut of code that relies on the causal "
            "mask; it must depend on the distance of both.",
            bias(distance=keys_alone),
            "Subtract the positions from each other: (positions[:, None] - positions).abs().",
        )
    yield (
        "The distances are counted from 1, so a position penalizes itself.",
        bias(distance=lambda i, j: (i - j).abs() + 1),
        "The diagonal, where i is j, must be 0.",
    )
    yield (
        "The heads are the last axis; they come first, as in the scores.",
        bias(join=lambda slopes, distances: -slopes * distances[..., None]),
        "Give the slopes two axes behind: slopes[:, None, None] * distances.",
    )
    yield (
        "The bias has an extra axis in front.",
        bias(finish=lambda bias: bias[None]),
        "Return shape (num_heads, length, length); it broadcasts over the batch by itself.",
    )
    yield (
        "The bias holds whole numbers, so its fractions are lost.",
        bias(finish=lambda bias: bias.long()),
        "Make the slopes float32 before you multiply.",
    )
    yield (
        "The bias is float64, as numpy makes it; the scores would become float64 too.",
        bias(finish=lambda bias: bias.double()),
        FLOAT32,
    )
