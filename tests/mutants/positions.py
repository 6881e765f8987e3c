"""Subtle ways to get chapter 3 wrong, and which of them a verdict names.

A name that does not fit misleads: what is not in NAMED must be given none.
"""

import math

import numpy as np
import torch
from torch import nn


def refuse_odd(width):
    if width % 2:
        raise ValueError(f"{width} is odd")


def frequencies(width, base=10000.0, dtype=torch.float32):
    refuse_odd(width)
    return base ** (-torch.arange(0, width, 2, dtype=dtype) / width)


# ---- sinusoids -----------------------------------------------------------------------------


def stable_sinusoids(length, d_model, dtype=torch.float64):
    angles = torch.arange(length, dtype=dtype)[:, None] * frequencies(d_model, dtype=dtype)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1).float()


def sinusoids_of_two_blocks(length, d_model):
    """tensor2tensor's layout and its exponents: two mistakes at once."""
    refuse_odd(d_model)
    pairs = d_model // 2
    step = math.log(10000.0) / max(pairs - 1, 1)
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(pairs) * -step)
    return torch.cat((angles.sin(), angles.cos()), 1)


def sinusoids_in_halves_by_slices(length, d_model):
    refuse_odd(d_model)
    encoding = torch.zeros(length, d_model)
    angles = torch.arange(length)[:, None] * frequencies(d_model)
    encoding[:, : d_model // 2], encoding[:, d_model // 2 :] = angles.sin(), angles.cos()
    return encoding


def sinusoids_in_halves_without_refusing(length, d_model):
    angles = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, d_model, 2) / d_model)
    return torch.cat((angles.sin(), angles.cos()), 1)


def sinusoids_with_cosines_in_front(length, d_model):
    angles = torch.arange(length)[:, None] * frequencies(d_model)
    return torch.cat((angles.cos(), angles.sin()), 1)


def sinusoids_by_column_number(length, d_model):
    refuse_odd(d_model)
    encoding = torch.zeros(length, d_model)
    for p in range(length):
        for j in range(d_model):
            angle = p / 10000 ** (j / d_model)
            encoding[p, j] = math.cos(angle) if j % 2 else math.sin(angle)
    return encoding


def sinusoids_by_twice_the_column_number(length, d_model):
    refuse_odd(d_model)
    encoding = torch.zeros(length, d_model)
    for j in range(0, d_model, 2):
        positions = torch.arange(length)
        encoding[:, j] = torch.sin(positions / 10000 ** (2 * j / d_model))
        encoding[:, j + 1] = torch.cos(positions / 10000 ** (2 * j / d_model))
    return encoding


def sinusoids_by_whole_division(length, d_model):
    refuse_odd(d_model)
    column = torch.arange(0, d_model, 2)
    angles = torch.arange(length)[:, None] / 10000.0 ** (column // d_model)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


def sinusoids_of_degrees(length, d_model):
    angles = torch.deg2rad(torch.arange(length)[:, None] * frequencies(d_model))
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


def sinusoids_from_one(length, d_model):
    return stable_sinusoids(length + 1, d_model)[1:]


def sinusoids_as_float64_of_numpy(length, d_model):
    refuse_odd(d_model)
    angles = np.arange(length)[:, None] / 10000 ** (np.arange(0, d_model, 2) / d_model)
    encoding = np.zeros((length, d_model))
    encoding[:, 0::2], encoding[:, 1::2] = np.sin(angles), np.cos(angles)
    return torch.from_numpy(encoding)


def sinusoids_for_a_batch(length, d_model):
    return stable_sinusoids(length, d_model).unsqueeze(0)


def sinusoids_for_a_batch_in_the_middle(length, d_model):
    return stable_sinusoids(length, d_model)[:, None]


def sinusoids_of_the_decimal_logarithm(length, d_model):
    refuse_odd(d_model)
    factor = torch.exp(torch.arange(0, d_model, 2) * (-math.log10(10000.0) / d_model))
    angles = torch.arange(length)[:, None] * factor
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


def sinusoids_in_float16(length, d_model):
    return stable_sinusoids(length, d_model).half().float()


def sinusoids_of_bfloat_positions(length, d_model):
    positions = torch.arange(length).bfloat16().float()
    angles = positions[:, None] * frequencies(d_model)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


def sinusoids_of_byte_positions(length, d_model):
    positions = (torch.arange(length) % 256).to(torch.uint8)
    angles = positions.float()[:, None] * frequencies(d_model)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


_TABLE = stable_sinusoids(1000, 512)


def sinusoids_from_a_wide_table(length, d_model):
    """A slice of one table: the frequencies depend on d_model, so this fits d_model 512 only."""
    refuse_odd(d_model)
    return _TABLE[:length, :d_model]


_FIRST = {}


def sinusoids_that_remember_the_width(length, d_model):
    refuse_odd(d_model)
    if d_model not in _FIRST:
        _FIRST[d_model] = stable_sinusoids(length, d_model)
    return _FIRST[d_model][:length]


def sinusoids_as_a_parameter(length, d_model):
    return nn.Parameter(stable_sinusoids(length, d_model))


def sinusoids_scaled_to_unit_length(length, d_model):
    return nn.functional.normalize(stable_sinusoids(length, d_model), dim=1)


def sinusoids_scaled_by_the_root(length, d_model):
    return stable_sinusoids(length, d_model) / math.sqrt(d_model)


def sinusoids_with_minus_cosines(length, d_model):
    encoding = stable_sinusoids(length, d_model)
    encoding[:, 1::2] *= -1
    return encoding


def sinusoids_backwards(length, d_model):
    return stable_sinusoids(length, d_model).flip(0)


def sinusoids_slowest_first(length, d_model):
    angles = torch.arange(length)[:, None] * frequencies(d_model).flip(0)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


def sinusoids_squeezed(length, d_model):
    return stable_sinusoids(length, d_model).squeeze()


def sinusoids_multiplying(length, d_model):
    refuse_odd(d_model)
    angles = np.arange(length)[:, None] * 10000 ** (np.arange(0, d_model, 2) / d_model)
    return torch.from_numpy(np.stack((np.sin(angles), np.cos(angles)), -1)).flatten(1).float()


def sinusoids_of_a_thousand(length, d_model):
    angles = torch.arange(length)[:, None] * frequencies(d_model, base=1000.0)
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


def sinusoids_asserting(length, d_model):
    assert d_model % 2 == 0
    return stable_sinusoids(length, d_model)


def sinusoids_refusing_by_warning(length, d_model):
    if d_model % 2:
        return torch.full((length, d_model), math.nan)
    return stable_sinusoids(length, d_model)


# ---- shift matrix --------------------------------------------------------------------------


def blocks_of(offset, d_model):
    angles = offset * frequencies(d_model, dtype=torch.float64)
    return angles.cos(), angles.sin()


def assembled(*corners):
    return torch.block_diag(*torch.stack(corners, -1).view(-1, 2, 2)).float()


def shift_for_row_vectors(offset, d_model):
    """PE[p] @ M; what is asked for stands on the left."""
    cos, sin = blocks_of(offset, d_model)
    return assembled(cos, sin, -sin, cos).T


def shift_back(offset, d_model):
    cos, sin = blocks_of(-offset, d_model)
    return assembled(cos, sin, -sin, cos)


def shift_of_the_textbook(offset, d_model):
    """The rotation of (cos, sin) pairs."""
    cos, sin = blocks_of(offset, d_model)
    return assembled(cos, -sin, sin, cos)


def shift_of_the_distance(offset, d_model):
    cos, sin = blocks_of(abs(offset), d_model)
    return assembled(cos, sin, -sin, cos)


def shift_refusing_to_go_back(offset, d_model):
    if offset < 0:
        raise ValueError("offset is negative")
    cos, sin = blocks_of(offset, d_model)
    return assembled(cos, sin, -sin, cos)


def shift_by_halves(offset, d_model):
    cos, sin = (torch.diag(part).float() for part in blocks_of(offset, d_model))
    return torch.cat((torch.cat((cos, sin), 1), torch.cat((-sin, cos), 1)), 0)


def shift_fitted(offset, d_model):
    """Least squares over the first rows of the encoding, in float32."""
    rows = stable_sinusoids(200, d_model)
    start = max(0, -offset)
    old, new = rows[start : start + 100], rows[start + offset : start + offset + 100]
    return torch.linalg.lstsq(old, new).solution.T


def shift_fitted_in_float64(offset, d_model):
    refuse_odd(d_model)
    start = max(0, -offset)
    angles = torch.arange(100, dtype=torch.float64)[:, None] + start
    angles = angles * frequencies(d_model, dtype=torch.float64)
    moved = angles + offset * frequencies(d_model, dtype=torch.float64)
    old = torch.stack((angles.sin(), angles.cos()), -1).flatten(1)
    new = torch.stack((moved.sin(), moved.cos()), -1).flatten(1)
    return (torch.linalg.pinv(old) @ new).T.float()


def shift_from_the_start_only(offset, d_model):
    cos, sin = blocks_of(offset, d_model)
    target = torch.stack((sin, cos), -1).flatten()
    start = torch.tensor([0.0, 1.0]).repeat(d_model // 2)
    return torch.outer(target.float(), start) / start.dot(start)


def shift_of_first_order(offset, d_model):
    """The start of the series of the matrix exponential: right for small angles only."""
    angles = offset * frequencies(d_model)
    return assembled(torch.ones_like(angles), angles, -angles, torch.ones_like(angles))


def shift_of_one_angle(offset, d_model):
    refuse_odd(d_model)
    cos, sin = math.cos(offset), math.sin(offset)
    return torch.block_diag(*[torch.tensor([[cos, sin], [-sin, cos]])] * (d_model // 2))


def shift_by_column_number(offset, d_model):
    refuse_odd(d_model)
    angles = offset / 10000 ** (torch.arange(d_model // 2) / d_model)
    return assembled(angles.cos(), angles.sin(), -angles.sin(), angles.cos())


def shift_by_twice_the_column_number(offset, d_model):
    refuse_odd(d_model)
    angles = offset / 10000 ** (2 * torch.arange(0, d_model, 2) / d_model)
    return assembled(angles.cos(), angles.sin(), -angles.sin(), angles.cos())


def shift_mirrored(offset, d_model):
    cos, sin = blocks_of(offset, d_model)
    return assembled(cos, sin, sin, -cos)


def shift_without_a_minus(offset, d_model):
    cos, sin = blocks_of(offset, d_model)
    return assembled(cos, sin, sin, cos)


def shift_with_sines_on_the_diagonal(offset, d_model):
    cos, sin = blocks_of(offset, d_model)
    return assembled(sin, cos, -cos, sin)


def shift_of_permuted_columns(offset, d_model):
    refuse_odd(d_model)
    return torch.eye(d_model).roll(offset, 0)


def shift_as_blocks(offset, d_model):
    cos, sin = blocks_of(offset, d_model)
    return torch.stack((cos, sin, -sin, cos), -1).view(-1, 2, 2).float()


def shift_in_float64(offset, d_model):
    cos, sin = blocks_of(offset, d_model)
    return torch.block_diag(*torch.stack((cos, sin, -sin, cos), -1).view(-1, 2, 2))


def shift_one_too_far(offset, d_model):
    cos, sin = blocks_of(offset + 1, d_model)
    return assembled(cos, sin, -sin, cos)


def shift_always_by_one(offset, d_model):
    cos, sin = blocks_of(1, d_model)
    return assembled(cos, sin, -sin, cos)


def shift_of_the_slow_pairs_first(offset, d_model):
    cos, sin = blocks_of(offset, d_model)
    return assembled(cos.flip(0), sin.flip(0), -sin.flip(0), cos.flip(0))


def shift_of_small_angles(offset, d_model):
    """Whole turns of 256 positions are dropped, which is right for no pair."""
    cos, sin = blocks_of(math.fmod(offset, 256), d_model)
    return assembled(cos, sin, -sin, cos)


def shift_as_a_parameter(offset, d_model):
    cos, sin = blocks_of(offset, d_model)
    return nn.Parameter(assembled(cos, sin, -sin, cos))


def shift_for_a_batch(offset, d_model):
    cos, sin = blocks_of(offset, d_model)
    return assembled(cos, sin, -sin, cos)[None]


def shift_without_refusing(offset, d_model):
    angles = offset * 10000.0 ** (-torch.arange(0, d_model, 2).double() / d_model)
    return assembled(angles.cos(), angles.sin(), -angles.sin(), angles.cos())


# ---- learned positions ---------------------------------------------------------------------


class Learned(nn.Module):
    def __init__(self, max_length, d_model):
        super().__init__()
        self.max_length = max_length
        self.embedding = nn.Embedding(max_length, d_model)

    def rows(self, x):
        return self.embedding.weight[: x.size(1)]

    def refuse(self, x):
        if x.size(1) > self.max_length:
            raise ValueError(f"{x.size(1)} positions do not fit into {self.max_length}")

    def forward(self, x):
        self.refuse(x)
        return x + self.rows(x)


class LearnedUnderAnotherName(nn.Module):
    def __init__(self, max_length, d_model):
        super().__init__()
        self.table = nn.Parameter(torch.randn(max_length, d_model))

    def forward(self, x):
        if x.size(1) > len(self.table):
            raise ValueError(f"{x.size(1)} {len(self.table)}")
        return x + self.table[: x.size(1)]


class LearnedAsAPlainParameter(nn.Module):
    def __init__(self, max_length, d_model):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(max_length, d_model))

    def forward(self, x):
        return x + self.embedding[: x.size(1)]


class LearnedTurned(nn.Module):
    def __init__(self, max_length, d_model):
        super().__init__()
        self.embedding = nn.Embedding(d_model, max_length)

    def forward(self, x):
        return x + self.embedding.weight.T[: x.size(1)]


class LearnedByTheBatch(Learned):
    def rows(self, x):
        return self.embedding(torch.arange(len(x)))[:, None, :]


class LearnedAlongTheBatch(Learned):
    def rows(self, x):
        return self.embedding(torch.arange(x.size(1)).unsqueeze(1))


class LearnedOfTheLastRows(Learned):
    def rows(self, x):
        return self.embedding.weight[self.max_length - x.size(1) :]


class LearnedByTheLengthOfTheBatch(Learned):
    def rows(self, x):
        return self.embedding(torch.arange(len(x)))


class LearnedOfColumns(Learned):
    def rows(self, x):
        return self.embedding.weight[:, : x.size(1)]


class LearnedTransposed(Learned):
    def rows(self, x):
        rows = super().rows(x)
        return rows.T if rows.size(0) == rows.size(1) else rows


class LearnedWhole(Learned):
    def rows(self, x):
        return self.embedding(torch.arange(self.max_length))


class LearnedDetached(Learned):
    def rows(self, x):
        return self.embedding(torch.arange(x.size(1))).detach()


class LearnedFrozenSinusoids(Learned):
    """The table holds sinusoids and learns nothing."""

    def __init__(self, max_length, d_model):
        super().__init__(max_length, d_model)
        angles = torch.arange(max_length)[:, None] / 10000 ** (torch.arange(d_model) / d_model)
        self.embedding = nn.Embedding.from_pretrained(angles.sin(), freeze=True)


class LearnedByFixedSinusoids(Learned):
    """The table is there, but what is added are sinusoids."""

    def rows(self, x):
        return stable_sinusoids(x.size(1), 2 * x.size(2))[:, : x.size(2)].to(x.dtype)


class LearnedScaled(Learned):
    def forward(self, x):
        self.refuse(x)
        return x * x.size(-1) ** 0.5 + self.rows(x)


class LearnedMultiplying(Learned):
    def forward(self, x):
        self.refuse(x)
        return self.rows(x) * x


class LearnedOnlyTheTable(Learned):
    def forward(self, x):
        self.refuse(x)
        return self.rows(x)


class LearnedOnlyTheTableOfTheBatch(Learned):
    def forward(self, x):
        self.refuse(x)
        return self.rows(x).repeat(len(x), 1, 1)


class LearnedByIndexError(Learned):
    def forward(self, x):
        return x + self.embedding(torch.arange(x.size(1)))


class LearnedBySlicingOnly(Learned):
    def forward(self, x):
        return x + self.rows(x)


class LearnedWrapping(Learned):
    def forward(self, x):
        return x + self.embedding(torch.arange(x.size(1)).remainder(self.max_length))


class LearnedClamping(Learned):
    def forward(self, x):
        last = torch.tensor(self.max_length - 1)
        return x + self.embedding(torch.minimum(torch.arange(x.size(1)), last))


class LearnedCuttingTheInput(Learned):
    def forward(self, x):
        x = x[:, : self.max_length]
        return x + self.rows(x)


class LearnedRefusingInFewWords(Learned):
    def refuse(self, x):
        if x.size(1) > self.max_length:
            raise ValueError("the sequence is too long")


class LearnedRefusingTooEarly(Learned):
    def refuse(self, x):
        if x.size(1) >= self.max_length:
            raise ValueError(f"{x.size(1)} positions do not fit into {self.max_length}")


class LearnedRefusingByTheBatch(Learned):
    def refuse(self, x):
        if x.size(0) > self.max_length:
            raise ValueError(f"{x.size(0)} positions do not fit into {self.max_length}")


class LearnedInPlace(Learned):
    def forward(self, x):
        self.refuse(x)
        x += self.rows(x)
        return x


class LearnedThatRemembersItsRows(Learned):
    def rows(self, x):
        if not hasattr(self, "kept"):
            self.kept = super().rows(x)
        return self.kept


class LearnedWithDropout(Learned):
    def forward(self, x):
        return torch.dropout(super().forward(x), 0.1, self.training)


class LearnedWithNorm(Learned):
    def __init__(self, max_length, d_model):
        super().__init__(max_length, d_model)
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x):
        return self.norm(super().forward(x))


class LearnedWithAnExtraTable(Learned):
    def __init__(self, max_length, d_model):
        super().__init__(max_length, d_model)
        self.segments = nn.Embedding(2, d_model)

    def forward(self, x):
        return super().forward(x) + self.segments.weight[0]


class LearnedInFloat32(Learned):
    def forward(self, x):
        self.refuse(x)
        return (x.float() + self.rows(x).float()).to(x.dtype)


class LearnedReturningFloat32(Learned):
    def forward(self, x):
        return super().forward(x).float()


class LearnedInMemoryOrder(Learned):
    def forward(self, x):
        self.refuse(x)
        flat = torch.as_strided(x, x.shape, (x.size(1) * x.size(2), x.size(2), 1))
        return flat + self.rows(x)


class LearnedSqueezed(Learned):
    def forward(self, x):
        return super().forward(x).squeeze()


class LearnedFromOne(Learned):
    def rows(self, x):
        return self.embedding.weight[1 : x.size(1) + 1]


class LearnedBackwards(Learned):
    def rows(self, x):
        return torch.flipud(super().rows(x))


class LearnedOfOneRow(Learned):
    def rows(self, x):
        return self.embedding(torch.tensor(x.size(1) - 1))


class LearnedWithPaddingRow(Learned):
    """padding_idx keeps row 0 from learning."""

    def __init__(self, max_length, d_model):
        super().__init__(max_length, d_model)
        self.embedding = nn.Embedding(max_length, d_model, padding_idx=0)

    def rows(self, x):
        return self.embedding(torch.arange(x.size(1)))


# ---- rotary positions ----------------------------------------------------------------------


def angles_of(x, positions, base):
    kind = torch.promote_types(x.dtype, torch.float32)
    return positions.to(kind)[:, None] * frequencies(x.size(-1), base, kind)


def turned(x, angles):
    a, b = x[..., 0::2], x[..., 1::2]
    pairs = (a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos())
    return torch.stack(pairs, -1).flatten(-2).to(x.dtype)


def rotary_by_rotating_halves(x, positions, base=10000.0):
    """Llama's code in transformers."""
    angles = angles_of(x, positions, base)
    angles = torch.cat((angles, angles), -1)
    a, b = x[..., : x.size(-1) // 2], x[..., x.size(-1) // 2 :]
    return (x * angles.cos() + torch.cat((-b, a), -1) * angles.sin()).to(x.dtype)


def rotary_mixing_both(x, positions, base=10000.0):
    angles = angles_of(x, positions, base).repeat_interleave(2, -1)
    a, b = x.chunk(2, -1)
    return (x * angles.cos() + torch.cat((-b, a), -1) * angles.sin()).to(x.dtype)


def rotary_clockwise(x, positions, base=10000.0):
    return turned(x, -angles_of(x, positions, base))


def rotary_by_the_conjugate(x, positions, base=10000.0):
    angles = angles_of(x, positions, base)
    pairs = torch.view_as_complex(x.to(angles.dtype).unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.exp(-1j * angles)).flatten(-2).to(x.dtype)


def rotary_by_single_columns(x, positions, base=10000.0):
    """i/d_head: a frequency for each column, of which the first half is used."""
    refuse_odd(x.size(-1))
    kind = torch.promote_types(x.dtype, torch.float32)
    column = torch.arange(x.size(-1) // 2, dtype=kind)
    return turned(x, positions.to(kind)[:, None] / base ** (column / x.size(-1)))


def rotary_doubling_twice(x, positions, base=10000.0):
    refuse_odd(x.size(-1))
    kind = torch.promote_types(x.dtype, torch.float32)
    column = torch.arange(0, x.size(-1), 2, dtype=kind)
    return turned(x, positions.to(kind)[:, None] / base ** (2 * column / x.size(-1)))


def rotary_counting_for_itself(x, positions, base=10000.0):
    return turned(x, angles_of(x, torch.arange(x.shape[-2]), base))


def rotary_counting_the_wrong_axis(x, positions, base=10000.0):
    return turned(x, angles_of(x, torch.arange(x.shape[1]), base))


def rotary_of_the_paper_only(x, positions, base=10000.0):
    return turned(x, angles_of(x, positions, 10000.0))


def rotary_of_sines_only(x, positions, base=10000.0):
    return (x * angles_of(x, positions, base).repeat_interleave(2, -1).sin()).to(x.dtype)


def rotary_of_cosines_only(x, positions, base=10000.0):
    return (x * angles_of(x, positions, base).repeat_interleave(2, -1).cos()).to(x.dtype)


def rotary_for_heads_last(x, positions, base=10000.0):
    """For (batch, length, heads, d_head), as flash attention lays it out."""
    return turned(x, angles_of(x, positions, base).unsqueeze(1))


def rotary_for_heads_last_of_four_axes(x, positions, base=10000.0):
    angles = angles_of(x, positions, base)
    return turned(x, angles[None, :, None, :] if x.ndim == 4 else angles)


def rotary_of_the_first_axis(x, positions, base=10000.0):
    angles = angles_of(x, positions, base)
    return turned(x, angles.view(-1, *[1] * (x.ndim - 2), angles.size(-1)))


def rotary_along_the_length(x, positions, base=10000.0):
    """Pairs of positions instead of pairs of columns."""
    refuse_odd(x.size(-1))
    if x.size(-1) != x.size(-2):
        return turned(x, angles_of(x, positions, base))
    return turned(x.mT, angles_of(x, positions, base)).mT


def rotary_for_four_axes_only(x, positions, base=10000.0):
    refuse_odd(x.size(-1))
    batch, heads, length, d_head = x.shape
    return turned(x, angles_of(x, positions, base)).view(batch, heads, length, d_head)


def rotary_in_short_floats(x, positions, base=10000.0):
    angles = positions.to(x.dtype)[:, None] * frequencies(x.size(-1), base, x.dtype)
    return turned(x, angles)


def rotary_with_short_positions(x, positions, base=10000.0):
    angles = positions.to(x.dtype).to(torch.promote_types(x.dtype, torch.float32))
    return turned(x, angles[:, None] * frequencies(x.size(-1), base, angles.dtype))


def rotary_promoting(x, positions, base=10000.0):
    angles = angles_of(x, positions, base)
    a, b = x[..., 0::2], x[..., 1::2]
    pairs = (a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos())
    return torch.stack(pairs, -1).flatten(-2)


def rotary_naive(x, positions, base=10000.0):
    """No thought given to dtypes: float32 angles for every x, and no conversion back."""
    refuse_odd(x.size(-1))
    angles = positions[:, None] / base ** (torch.arange(0, x.size(-1), 2) / x.size(-1))
    a, b = x[..., 0::2], x[..., 1::2]
    pairs = (a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos())
    return torch.stack(pairs, -1).flatten(-2)


def rotary_with_short_frequencies(x, positions, base=10000.0):
    speeds = (1 / base ** (torch.arange(0, x.size(-1), 2) / x.size(-1))).to(x.dtype)
    refuse_odd(x.size(-1))
    return turned(x, torch.outer(positions.to(x.dtype), speeds))


def rotary_of_rounded_angles(x, positions, base=10000.0):
    """Sine and cosine are taken in float64, of angles that are good for seven digits."""
    angles = angles_of(x, positions, base).float().double()
    return turned(x, angles)


def rotary_of_rounded_frequencies(x, positions, base=10000.0):
    return turned(x, positions.double()[:, None] * frequencies(x.size(-1), base).double())


def rotary_always_in_float32(x, positions, base=10000.0):
    angles = positions.float()[:, None] * frequencies(x.size(-1), base)
    return turned(x.float(), angles).to(x.dtype)


def rotary_of_float32_angles(x, positions, base=10000.0):
    return turned(x, torch.outer(positions.float(), frequencies(x.size(-1), base)))


def rotary_in_place(x, positions, base=10000.0):
    angles = angles_of(x, positions, base)
    a, b = x[..., 0::2].clone(), x[..., 1::2].clone()
    x[..., 0::2] = a * angles.cos() - b * angles.sin()
    x[..., 1::2] = a * angles.sin() + b * angles.cos()
    return x


def rotary_overwriting(x, positions, base=10000.0):
    angles = angles_of(x, positions, base)
    result = x.clone()
    result[..., 0::2] = result[..., 0::2] * angles.cos() - result[..., 1::2] * angles.sin()
    result[..., 1::2] = result[..., 0::2] * angles.sin() + result[..., 1::2] * angles.cos()
    return result


def rotary_detached(x, positions, base=10000.0):
    return turned(x.detach(), angles_of(x, positions, base))


def rotary_by_numpy(x, positions, base=10000.0):
    result = turned(x.detach().double(), angles_of(x.double(), positions, base))
    return torch.from_numpy(result.numpy()).to(x.dtype)


def rotary_with_dead_sines(x, positions, base=10000.0):
    """The value is right; the gradient passes by the cosines only."""
    angles = angles_of(x, positions, base)
    a, b = x[..., 0::2], x[..., 1::2]
    pairs = (
        a * angles.cos() - b.detach() * angles.sin(),
        a.detach() * angles.sin() + b * angles.cos(),
    )
    return torch.stack(pairs, -1).flatten(-2).to(x.dtype)


_ANGLES = torch.outer(torch.arange(2048).float(), torch.ones(1))


def rotary_from_a_table(x, positions, base=10000.0):
    refuse_odd(x.size(-1))
    kind = torch.promote_types(x.dtype, torch.float32)
    return turned(x, _ANGLES[positions.long()].to(kind) * frequencies(x.size(-1), base, kind))


def rotary_from_a_table_that_ends(x, positions, base=10000.0):
    if positions.is_floating_point():
        return turned(x, angles_of(x, positions, base))
    return turned(x, angles_of(x, torch.arange(2048)[positions.long().clamp(max=2047)], base))


def rotary_of_whole_positions(x, positions, base=10000.0):
    return turned(x, angles_of(x, positions.to(torch.int64), base))


def rotary_of_positive_positions(x, positions, base=10000.0):
    return turned(x, angles_of(x, positions.clamp(min=0), base))


def rotary_of_the_first_half(x, positions, base=10000.0):
    """Only half of the columns turn, as GPT-J does it."""
    refuse_odd(x.size(-1))
    width = max(2, x.size(-1) // 4 * 2)
    front = x[..., :width]
    return torch.cat((turned(front, angles_of(front, positions, base)), x[..., width:]), -1)


def rotary_of_degrees(x, positions, base=10000.0):
    return turned(x, torch.deg2rad(angles_of(x, positions, base)))


def rotary_slowest_first(x, positions, base=10000.0):
    return turned(x, angles_of(x, positions, base).flip(-1))


def rotary_scaled(x, positions, base=10000.0):
    return turned(x, angles_of(x, positions, base)) / math.sqrt(x.size(-1))


def rotary_squeezed(x, positions, base=10000.0):
    return turned(x, angles_of(x, positions, base)).squeeze()


def rotary_needing_neighbors_in_memory(x, positions, base=10000.0):
    angles = angles_of(x, positions, base)
    pairs = torch.view_as_complex(x.to(angles.dtype).reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * torch.exp(1j * angles)).flatten(-2).to(x.dtype)


def rotary_by_view(x, positions, base=10000.0):
    angles = angles_of(x, positions, base)
    flat = turned(x.view(-1, *x.shape[-2:]), angles)
    return flat.view(x.shape)


def rotary_mirrored(x, positions, base=10000.0):
    angles = angles_of(x, positions, base)
    a, b = x[..., 0::2], x[..., 1::2]
    pairs = (a * angles.cos() + b * angles.sin(), a * angles.sin() - b * angles.cos())
    return torch.stack(pairs, -1).flatten(-2).to(x.dtype)


def rotary_as_an_addition(x, positions, base=10000.0):
    angles = angles_of(x, positions, base)
    return (x + torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)).to(x.dtype)


def rotary_written_as_halves(x, positions, base=10000.0):
    angles = angles_of(x, positions, base)
    a, b = x[..., 0::2], x[..., 1::2]
    pairs = (a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos())
    return torch.cat(pairs, -1).to(x.dtype)


def rotary_changing_the_positions(x, positions, base=10000.0):
    if not positions.is_floating_point():
        positions *= 1000
        return turned(x, angles_of(x, positions / 1000, base))
    return turned(x, angles_of(x, positions, base))


def rotary_returning_float64(x, positions, base=10000.0):
    angles = positions.double()[:, None] * frequencies(x.size(-1), base, torch.float64)
    return turned(x.double(), angles)


def rotary_of_integer_bases(x, positions, base=10000.0):
    return turned(x, angles_of(x, positions, float(10 ** round(math.log10(base)))))


def rotary_failing_on_odd(x, positions, base=10000.0):
    angles = positions[:, None].to(torch.promote_types(x.dtype, torch.float32)) * base ** (
        -torch.arange(0, x.size(-1), 2, dtype=torch.promote_types(x.dtype, torch.float32))
        / x.size(-1)
    )
    return turned(x, angles)


# ---- linear biases -------------------------------------------------------------------------


def distances(length):
    positions = torch.arange(length)
    return (positions[:, None] - positions).abs()


def slopes_of(num_heads):
    return 2.0 ** (-8 * torch.arange(1, num_heads + 1) / num_heads)


def right_alibi(num_heads, length):
    return -slopes_of(num_heads)[:, None, None] * distances(length)


def alibi_favoring_the_far(num_heads, length):
    return slopes_of(num_heads).view(-1, 1, 1) * distances(length)


def alibi_from_head_zero(num_heads, length):
    slopes = torch.tensor([2 ** (-8 * h / num_heads) for h in range(num_heads)])
    return -slopes[:, None, None] * distances(length)


def alibi_reversed(num_heads, length):
    return right_alibi(num_heads, length).flip(0)


def alibi_of_squares(num_heads, length):
    return -slopes_of(num_heads)[:, None, None] * distances(length) ** 2


def alibi_with_signs(num_heads, length):
    positions = torch.arange(length)
    return slopes_of(num_heads)[:, None, None] * (positions[None, :] - positions[:, None])


def alibi_below_the_diagonal(num_heads, length):
    return right_alibi(num_heads, length).tril()


def alibi_with_a_mask(num_heads, length):
    future = torch.full((length, length), -math.inf).triu(1)
    return right_alibi(num_heads, length) + future


def alibi_of_the_published_code(num_heads, length):
    def powers(n):
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    def slopes(n):
        if math.log2(n).is_integer():
            return powers(n)
        near = 2 ** math.floor(math.log2(n))
        return powers(near) + slopes(2 * near)[0::2][: n - near]

    return -torch.tensor(slopes(num_heads))[:, None, None] * distances(length)


def alibi_of_keys_alone(num_heads, length):
    """As Bloom has it: equal after a causal softmax, and only then."""
    return (slopes_of(num_heads)[:, None, None] * torch.arange(length)).expand(-1, length, -1)


def alibi_with_heads_last(num_heads, length):
    return right_alibi(num_heads, length).permute(1, 2, 0)


def alibi_of_whole_numbers(num_heads, length):
    return right_alibi(num_heads, length).to(torch.int64)


def alibi_as_float64(num_heads, length):
    slopes = np.exp2(-8 * np.arange(1, num_heads + 1) / num_heads)
    positions = np.arange(length)
    return torch.tensor(-slopes[:, None, None] * np.abs(positions[:, None] - positions))


def alibi_of_halves(num_heads, length):
    """One half, one quarter, and so on, whatever the number of heads."""
    return -(0.5 ** torch.arange(1, num_heads + 1))[:, None, None] * distances(length)


def alibi_of_whole_exponents(num_heads, length):
    exponents = torch.arange(1, num_heads + 1) * 8 // num_heads
    return -(2.0**-exponents)[:, None, None] * distances(length)


def alibi_of_one_slope(num_heads, length):
    return -(2 ** (-8 / num_heads)) * distances(length).float().expand(num_heads, -1, -1)


def alibi_with_a_window(num_heads, length):
    return -slopes_of(num_heads)[:, None, None] * distances(length).clamp(max=64)


def alibi_of_byte_positions(num_heads, length):
    positions = torch.arange(length).to(torch.int8)
    return -slopes_of(num_heads)[:, None, None] * (positions[:, None] - positions).abs()


def alibi_in_float16(num_heads, length):
    return right_alibi(num_heads, length).half().float()


def alibi_in_bfloat16(num_heads, length):
    return right_alibi(num_heads, length).bfloat16().float()


def alibi_of_logarithms(num_heads, length):
    return -slopes_of(num_heads)[:, None, None] * torch.log1p(distances(length).float())


def alibi_with_a_penalty_for_itself(num_heads, length):
    return -slopes_of(num_heads)[:, None, None] * (distances(length) + 1)


def alibi_squeezed(num_heads, length):
    return right_alibi(num_heads, length).squeeze()


def alibi_as_a_parameter(num_heads, length):
    return nn.Parameter(right_alibi(num_heads, length))


def alibi_divided_by_the_length(num_heads, length):
    return right_alibi(num_heads, length) / length


def alibi_about_the_other_diagonal(num_heads, length):
    return right_alibi(num_heads, length).flip(-1)


_BIASES = {}


def alibi_that_remembers_the_length(num_heads, length):
    if length not in _BIASES:
        _BIASES[length] = right_alibi(num_heads, length)
    return _BIASES[length]


def alibi_for_a_batch(num_heads, length):
    return right_alibi(num_heads, length).unsqueeze(0)


NAMED = {
    "sinusoids_of_two_blocks": "authors' own library",
    "sinusoids_in_halves_by_slices": "stand in two halves",
    "sinusoids_in_halves_without_refusing": "stand in two halves",
    "sinusoids_with_cosines_in_front": "stand in two halves",
    "sinusoids_by_column_number": "another frequency than its sine",
    "sinusoids_by_twice_the_column_number": "doubled twice",
    "sinusoids_by_whole_division": "same speed",
    "sinusoids_of_degrees": "multiplied by π/180",
    "sinusoids_from_one": "counted from 1",
    "sinusoids_as_float64_of_numpy": "The encoding is float64",
    "sinusoids_for_a_batch": "extra axis of length 1",
    "sinusoids_for_a_batch_in_the_middle": "extra axis of length 1",
    "sinusoids_of_the_decimal_logarithm": "not 10000",
    "sinusoids_multiplying": "instead of divided by it",
    "sinusoids_of_a_thousand": "not 10000",
    "sinusoids_asserting": "not refused with a ValueError",
    "sinusoids_refusing_by_warning": "not refused with a ValueError",
    "shift_for_row_vectors": "transpose of the right matrix",
    "shift_back": "transpose of the right matrix",
    "shift_of_the_textbook": "transpose of the right matrix",
    "shift_of_the_distance": "The sign of the offset is lost",
    "shift_by_halves": "encoding in two halves",
    "shift_from_the_start_only": "takes PE[0] to PE[offset], but no other",
    "shift_of_one_angle": "by the same angle",
    "shift_by_column_number": "instead of 2i/d_model",
    "shift_by_twice_the_column_number": "doubled twice",
    "shift_mirrored": "minus sign is missing or stands in the wrong place",
    "shift_without_a_minus": "minus sign is missing or stands in the wrong place",
    "shift_with_sines_on_the_diagonal": "changed places in the blocks",
    "shift_of_permuted_columns": "columns of the encoding are moved along",
    "shift_as_blocks": "the blocks one by one",
    "shift_in_float64": "The matrix is float64",
    "shift_without_refusing": "not refused with a ValueError",
    "LearnedByTheBatch": "run along the batch",
    "LearnedAlongTheBatch": "run along the batch",
    "LearnedByTheLengthOfTheBatch": "from another axis of x",
    "LearnedOfTheLastRows": "The last rows",
    "LearnedWhole": "The whole table is added",
    "LearnedDetached": "No gradient reaches the table",
    "LearnedFrozenSinusoids": "No gradient reaches the table",
    "LearnedScaled": "scaled by the square root",
    "LearnedMultiplying": "multiplied by the rows",
    "LearnedOnlyTheTable": "Only the table comes back",
    "LearnedOnlyTheTableOfTheBatch": "Only the table comes back",
    "LearnedByIndexError": "another error than a ValueError",
    "LearnedBySlicingOnly": "another error than a ValueError",
    "LearnedWrapping": "is let through",
    "LearnedClamping": "is let through",
    "LearnedCuttingTheInput": "is let through",
    "LearnedRefusingInFewWords": "does not say both",
    "LearnedInPlace": "changed in place",
    "LearnedFromOne": "counted from 1",
    "LearnedBackwards": "taken from behind",
    "LearnedOfOneRow": "Every token gets the same row",
    "rotary_by_rotating_halves": "paired with column i + d_head/2",
    "rotary_mixing_both": "Two ways to pair the columns are mixed",
    "rotary_clockwise": "clockwise",
    "rotary_by_the_conjugate": "clockwise",
    "rotary_by_single_columns": "i/d_head instead of 2i/d_head",
    "rotary_doubling_twice": "doubled twice",
    "rotary_counting_for_itself": "counts for itself",
    "rotary_of_the_paper_only": "always 10000",
    "rotary_of_sines_only": "not mixed",
    "rotary_of_cosines_only": "not mixed",
    "rotary_for_heads_last": "the axis before the length",
    "rotary_for_heads_last_of_four_axes": "the axis before the length",
    "rotary_in_short_floats": "computed in the dtype of x",
    "rotary_promoting": "not have the dtype of x",
    "rotary_returning_float64": "not have the dtype of x",
    "rotary_naive": "not have the dtype of x",
    "rotary_with_short_frequencies": "computed in the dtype of x",
    "rotary_of_rounded_angles": "seven digits",
    "rotary_of_rounded_frequencies": "seven digits",
    "rotary_always_in_float32": "seven digits",
    "rotary_of_float32_angles": "seven digits",
    "rotary_in_place": "changed in place",
    "rotary_overwriting": "after it was overwritten",
    "rotary_of_whole_positions": "cut to whole numbers",
    "rotary_mirrored": "minus sign is missing or stands in the wrong place",
    "rotary_as_an_addition": "are added to x",
    "rotary_written_as_halves": "written as two halves",
    "rotary_failing_on_odd": "not refused with a ValueError",
    "alibi_favoring_the_far": "far keys are favored",
    "alibi_from_head_zero": "counted from 0",
    "alibi_reversed": "reverse order",
    "alibi_of_squares": "not linear",
    "alibi_with_signs": "keeps its sign",
    "alibi_below_the_diagonal": "Only one side",
    "alibi_with_a_mask": "minus infinity",
    "alibi_of_the_published_code": "put together from two sequences",
    "alibi_of_keys_alone": "one position alone",
    "alibi_with_heads_last": "last axis",
    "alibi_of_whole_numbers": "whole numbers",
    "alibi_as_float64": "The bias is float64",
    "alibi_of_halves": "not 2^(-8h/num_heads)",
    "alibi_of_whole_exponents": "not 2^(-8h/num_heads)",
    "alibi_of_one_slope": "not 2^(-8h/num_heads)",
    "alibi_with_a_penalty_for_itself": "penalizes itself",
    "alibi_for_a_batch": "extra axis in front",
}

MUTANTS = {
    "positions/sinusoidal_encoding": [
        sinusoids_of_two_blocks,
        sinusoids_in_halves_by_slices,
        sinusoids_in_halves_without_refusing,
        sinusoids_with_cosines_in_front,
        sinusoids_by_column_number,
        sinusoids_by_twice_the_column_number,
        sinusoids_by_whole_division,
        sinusoids_of_degrees,
        sinusoids_from_one,
        sinusoids_as_float64_of_numpy,
        sinusoids_for_a_batch,
        sinusoids_for_a_batch_in_the_middle,
        sinusoids_of_the_decimal_logarithm,
        sinusoids_in_float16,
        sinusoids_of_bfloat_positions,
        sinusoids_of_byte_positions,
        sinusoids_from_a_wide_table,
        sinusoids_that_remember_the_width,
        sinusoids_as_a_parameter,
        sinusoids_scaled_to_unit_length,
        sinusoids_scaled_by_the_root,
        sinusoids_with_minus_cosines,
        sinusoids_backwards,
        sinusoids_slowest_first,
        sinusoids_squeezed,
        sinusoids_multiplying,
        sinusoids_of_a_thousand,
        sinusoids_asserting,
        sinusoids_refusing_by_warning,
    ],
    "positions/shift_matrix": [
        shift_for_row_vectors,
        shift_back,
        shift_of_the_textbook,
        shift_of_the_distance,
        shift_refusing_to_go_back,
        shift_by_halves,
        shift_fitted,
        shift_fitted_in_float64,
        shift_from_the_start_only,
        shift_of_first_order,
        shift_of_one_angle,
        shift_by_column_number,
        shift_by_twice_the_column_number,
        shift_mirrored,
        shift_without_a_minus,
        shift_with_sines_on_the_diagonal,
        shift_of_permuted_columns,
        shift_as_blocks,
        shift_in_float64,
        shift_one_too_far,
        shift_always_by_one,
        shift_of_the_slow_pairs_first,
        shift_of_small_angles,
        shift_as_a_parameter,
        shift_for_a_batch,
        shift_without_refusing,
    ],
    "positions/LearnedPositions": [
        LearnedUnderAnotherName,
        LearnedAsAPlainParameter,
        LearnedTurned,
        LearnedByTheBatch,
        LearnedAlongTheBatch,
        LearnedOfTheLastRows,
        LearnedByTheLengthOfTheBatch,
        LearnedOfColumns,
        LearnedTransposed,
        LearnedWhole,
        LearnedDetached,
        LearnedFrozenSinusoids,
        LearnedByFixedSinusoids,
        LearnedScaled,
        LearnedMultiplying,
        LearnedOnlyTheTable,
        LearnedOnlyTheTableOfTheBatch,
        LearnedByIndexError,
        LearnedBySlicingOnly,
        LearnedWrapping,
        LearnedClamping,
        LearnedCuttingTheInput,
        LearnedRefusingInFewWords,
        LearnedRefusingTooEarly,
        LearnedRefusingByTheBatch,
        LearnedInPlace,
        LearnedThatRemembersItsRows,
        LearnedWithDropout,
        LearnedWithNorm,
        LearnedWithAnExtraTable,
        LearnedInFloat32,
        LearnedReturningFloat32,
        LearnedInMemoryOrder,
        LearnedSqueezed,
        LearnedFromOne,
        LearnedBackwards,
        LearnedOfOneRow,
        LearnedWithPaddingRow,
    ],
    "positions/apply_rotary": [
        rotary_by_rotating_halves,
        rotary_mixing_both,
        rotary_clockwise,
        rotary_by_the_conjugate,
        rotary_by_single_columns,
        rotary_doubling_twice,
        rotary_counting_for_itself,
        rotary_counting_the_wrong_axis,
        rotary_of_the_paper_only,
        rotary_of_sines_only,
        rotary_of_cosines_only,
        rotary_for_heads_last,
        rotary_for_heads_last_of_four_axes,
        rotary_of_the_first_axis,
        rotary_along_the_length,
        rotary_for_four_axes_only,
        rotary_in_short_floats,
        rotary_with_short_positions,
        rotary_promoting,
        rotary_naive,
        rotary_with_short_frequencies,
        rotary_of_rounded_angles,
        rotary_of_rounded_frequencies,
        rotary_always_in_float32,
        rotary_of_float32_angles,
        rotary_in_place,
        rotary_overwriting,
        rotary_detached,
        rotary_by_numpy,
        rotary_with_dead_sines,
        rotary_from_a_table,
        rotary_from_a_table_that_ends,
        rotary_of_whole_positions,
        rotary_of_positive_positions,
        rotary_of_the_first_half,
        rotary_of_degrees,
        rotary_slowest_first,
        rotary_scaled,
        rotary_squeezed,
        rotary_needing_neighbors_in_memory,
        rotary_by_view,
        rotary_mirrored,
        rotary_as_an_addition,
        rotary_written_as_halves,
        rotary_changing_the_positions,
        rotary_returning_float64,
        rotary_of_integer_bases,
        rotary_failing_on_odd,
    ],
    "positions/alibi_bias": [
        alibi_favoring_the_far,
        alibi_from_head_zero,
        alibi_reversed,
        alibi_of_squares,
        alibi_with_signs,
        alibi_below_the_diagonal,
        alibi_with_a_mask,
        alibi_of_the_published_code,
        alibi_of_keys_alone,
        alibi_with_heads_last,
        alibi_of_whole_numbers,
        alibi_as_float64,
        alibi_of_halves,
        alibi_of_whole_exponents,
        alibi_of_one_slope,
        alibi_with_a_window,
        alibi_of_byte_positions,
        alibi_in_float16,
        alibi_in_bfloat16,
        alibi_of_logarithms,
        alibi_with_a_penalty_for_itself,
        alibi_squeezed,
        alibi_as_a_parameter,
        alibi_divided_by_the_length,
        alibi_about_the_other_diagonal,
        alibi_that_remembers_the_length,
        alibi_for_a_batch,
    ],
}
