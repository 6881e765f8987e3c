"""Other right ways to write chapter 3."""

import cmath
import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def refuse_odd(width):
    if width % 2:
        raise ValueError(f"an even width, please, not {width}")


# ---- sinusoids -----------------------------------------------------------------------------


def sinusoids_by_slices(length, d_model):
    """As the paper's many readers write it: float32, exp of a logarithm, two strided writes."""
    refuse_odd(d_model)
    position = torch.arange(length).unsqueeze(1)
    factor = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
    encoding = torch.zeros(length, d_model)
    encoding[:, 0::2] = torch.sin(position * factor)
    encoding[:, 1::2] = torch.cos(position * factor)
    return encoding


def sinusoids_by_two_loops(length, d_model):
    refuse_odd(d_model)
    encoding = torch.zeros(length, d_model)
    for p in range(length):
        for i in range(d_model // 2):
            angle = p / 10000 ** (2 * i / d_model)
            encoding[p, 2 * i] = math.sin(angle)
            encoding[p, 2 * i + 1] = math.cos(angle)
    return encoding


def sinusoids_by_list(length, d_model):
    refuse_odd(d_model)
    return torch.tensor(
        [
            [
                (math.cos if column % 2 else math.sin)(p / 10000 ** (column // 2 * 2 / d_model))
                for column in range(d_model)
            ]
            for p in range(length)
        ]
    )


def sinusoids_by_numpy(length, d_model):
    refuse_odd(d_model)
    angles = np.arange(length)[:, None] / np.power(10000, np.arange(0, d_model, 2) / d_model)
    encoding = np.empty((length, d_model))
    encoding[:, ::2], encoding[:, 1::2] = np.sin(angles), np.cos(angles)
    return torch.from_numpy(encoding).float()


def sinusoids_by_complex_numbers(length, d_model):
    refuse_odd(d_model)
    frequency = 10000 ** (-torch.arange(0, d_model, 2) / d_model)
    turns = torch.exp(1j * torch.outer(torch.arange(length), frequency))
    return torch.view_as_real(turns).flip(-1).reshape(length, d_model)


def sinusoids_by_polar(length, d_model):
    refuse_odd(d_model)
    angles = torch.outer(
        torch.arange(length).float(), 1.0 / (10000 ** (torch.arange(0, d_model, 2) / d_model))
    )
    turns = torch.polar(torch.ones_like(angles), angles)
    return torch.stack((turns.imag, turns.real), dim=2).view(length, d_model)


def sinusoids_by_einsum(length, d_model):
    refuse_odd(d_model)
    steps = torch.linspace(0, 1, d_model // 2 + 1)[:-1]
    angles = torch.einsum("p,i->pi", torch.arange(length).float(), torch.pow(1e-4, steps))
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)


def sinusoids_by_repeated_frequencies(length, d_model):
    refuse_odd(d_model)
    frequency = torch.pow(10000, -torch.arange(0, d_model, 2, dtype=torch.float) / d_model)
    angles = torch.arange(length)[:, None] * frequency.repeat_interleave(2)
    even = torch.arange(d_model) % 2 == 0
    return torch.where(even, angles.sin(), angles.cos())


def sinusoids_by_a_quarter_turn(length, d_model):
    """cos(a) is sin(a + π/2), so one sine does it; in float64, or the sum costs digits."""
    refuse_odd(d_model)
    column = torch.arange(d_model, dtype=torch.float64)
    exponent = (column - column % 2) / d_model
    angles = torch.arange(length, dtype=torch.float64)[:, None] / 10000**exponent
    return torch.sin(angles + (column % 2) * math.pi / 2).to(torch.float32)


def sinusoids_by_logspace(length, d_model):
    refuse_odd(d_model)
    frequency = torch.logspace(0, -4 * (d_model - 2) / d_model, d_model // 2)
    angles = torch.arange(0.0, length).reshape(-1, 1) @ frequency.reshape(1, -1)
    encoding = torch.cat((angles.sin().unsqueeze(2), angles.cos().unsqueeze(2)), dim=2)
    return encoding.reshape(length, d_model)


def sinusoids_by_rotating_on(length, d_model):
    """Each row from the one before it, by the angle-sum formulas."""
    refuse_odd(d_model)
    step = [cmath.exp(1j * 10000 ** (-2 * i / d_model)) for i in range(d_model // 2)]
    row, rows = [1 + 0j] * (d_model // 2), []
    for _ in range(length):
        rows.append([number for turn in row for number in (turn.imag, turn.real)])
        row = [turn * more for turn, more in zip(row, step, strict=True)]
    return torch.tensor(rows)


def sinusoids_of_halves_reordered(length, d_model):
    refuse_odd(d_model)
    pairs = d_model // 2
    angles = torch.arange(length).view(-1, 1) / 10000 ** (torch.arange(pairs) / pairs)
    halves = torch.cat((torch.sin(angles), torch.cos(angles)), dim=1)
    return halves[:, torch.arange(d_model).view(2, pairs).T.flatten()]


@functools.lru_cache
def table_of_sinusoids(length, d_model):
    return sinusoids_by_numpy(length, d_model)


def sinusoids_from_a_cache(length, d_model):
    return table_of_sinusoids(length, d_model).clone()


def sinusoids_by_log2(length, d_model):
    refuse_odd(d_model)
    frequency = torch.exp2(-math.log2(10000) / d_model * torch.arange(0, d_model, 2))
    encoding = torch.empty((length, d_model // 2, 2))
    torch.sin(torch.arange(length)[:, None] * frequency, out=encoding[:, :, 0])
    torch.cos(torch.arange(length)[:, None] * frequency, out=encoding[:, :, 1])
    return encoding.reshape(length, -1)


# ---- shift matrix --------------------------------------------------------------------------


def frequencies(d_model, dtype=torch.float64):
    refuse_odd(d_model)
    return 10000.0 ** (-torch.arange(0, d_model, 2, dtype=dtype) / d_model)


def shift_by_writing_the_blocks(offset, d_model):
    refuse_odd(d_model)
    matrix = torch.zeros(d_model, d_model)
    for i in range(d_model // 2):
        angle = offset / 10000 ** (2 * i / d_model)
        matrix[2 * i, 2 * i] = matrix[2 * i + 1, 2 * i + 1] = math.cos(angle)
        matrix[2 * i, 2 * i + 1] = math.sin(angle)
        matrix[2 * i + 1, 2 * i] = -math.sin(angle)
    return matrix


def shift_in_float32(offset, d_model):
    refuse_odd(d_model)
    even = torch.arange(0, d_model, 2)
    angles = offset * torch.exp(even * (-math.log(10000.0) / d_model))
    matrix = torch.zeros((d_model, d_model))
    matrix[even, even] = matrix[even + 1, even + 1] = angles.cos()
    matrix[even, even + 1] = angles.sin()
    matrix[even + 1, even] = -angles.sin()
    return matrix


def shift_by_matrix_exponential(offset, d_model):
    generator = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    turns = torch.kron(torch.diag(frequencies(d_model, torch.float32)), generator)
    return torch.linalg.matrix_exp(offset * turns)


def shift_by_power(offset, d_model):
    one = shift_by_writing_the_blocks(1, d_model).double()
    return torch.linalg.matrix_power(one if offset >= 0 else one.T, abs(offset)).float()


def shift_by_three_diagonals(offset, d_model):
    angles = offset * frequencies(d_model)
    beside = torch.stack((angles.sin(), torch.zeros_like(angles)), -1).flatten()[:-1]
    middle = angles.cos().repeat_interleave(2)
    return (middle.diag() + beside.diag(1) - beside.diag(-1)).to(torch.float32)


def shift_by_kron(offset, d_model):
    angles = offset * frequencies(d_model)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    cosines = torch.kron(angles.cos().diag(), torch.eye(2, dtype=torch.float64))
    return (cosines + torch.kron(angles.sin().diag(), turn)).float()


def shift_by_complex_numbers(offset, d_model):
    refuse_odd(d_model)
    turns = torch.exp(1j * offset * frequencies(d_model))
    blocks = torch.view_as_real(torch.stack((turns, 1j * turns), -1))
    return torch.block_diag(*blocks).float()


def shift_from_the_encoding(offset, d_model):
    """PE[offset] holds the sines and cosines that the matrix needs."""
    row = sinusoids_by_numpy(abs(offset) + 1, d_model)[-1]
    blocks = []
    for sine, cosine in row.reshape(-1, 2).tolist():
        sine = sine if offset > 0 else -sine
        blocks.append(torch.tensor([[cosine, sine], [-sine, cosine]]))
    return torch.block_diag(*blocks)


def shift_by_solving_each_pair(offset, d_model):
    """From two positions and where they go; two columns determine a block of 2 × 2."""
    positions = torch.tensor([0.0, 1.0], dtype=torch.float64)
    before = positions * frequencies(d_model)[:, None]
    after = (positions + offset) * frequencies(d_model)[:, None]
    old = torch.stack((before.sin(), before.cos()), dim=1)
    new = torch.stack((after.sin(), after.cos()), dim=1)
    return torch.block_diag(*torch.linalg.solve(old, new, left=False)).float()


def shift_by_numpy(offset, d_model):
    refuse_odd(d_model)
    matrix = np.zeros((d_model, d_model), dtype=np.float32)
    for i, angle in enumerate(offset * np.power(10000.0, -np.arange(0, d_model, 2) / d_model)):
        c, s = np.cos(angle), np.sin(angle)
        matrix[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = [[c, s], [-s, c]]
    return torch.from_numpy(matrix)


def shift_by_einsum(offset, d_model):
    angles = offset * frequencies(d_model, torch.float32)
    blocks = torch.stack((angles.cos(), angles.sin(), -angles.sin(), angles.cos()), -1)
    spread = torch.einsum("iab,ij->iajb", blocks.view(-1, 2, 2), torch.eye(len(angles)))
    return spread.reshape(d_model, d_model)


def shift_by_symmetry(offset, d_model):
    """Backwards is forwards, transposed."""
    if offset < 0:
        return shift_by_symmetry(-offset, d_model).T.contiguous()
    return shift_by_kron(offset, d_model)


# ---- learned positions ---------------------------------------------------------------------


class LearnedByLookup(nn.Module):
    def __init__(self, max_length, d_model):
        super().__init__()
        self.max_length = max_length
        self.embedding = nn.Embedding(max_length, d_model)

    def forward(self, x):
        length = x.size(1)
        if length > self.max_length:
            raise ValueError(f"The sequence has {length} tokens; at most {self.max_length} fit.")
        return x + self.embedding(torch.arange(length, device=x.device))


class LearnedWithABuffer(nn.Module):
    def __init__(self, max_length, d_model):
        super().__init__()
        self.embedding = nn.Embedding(max_length, d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.register_buffer("positions", torch.arange(max_length).unsqueeze(0))

    def forward(self, x):
        limit, (_, length, _) = self.positions.shape[1], x.shape
        if limit < length:
            raise ValueError(f"max_length={limit} but length={length}")
        return self.embedding(self.positions[:, :length]).expand_as(x).add(x)


class LearnedByAPlainTable(nn.Module):
    def __init__(self, max_length, d_model):
        super().__init__()
        self.embedding = nn.ParameterDict(
            {"weight": nn.Parameter(torch.randn(max_length, d_model))}
        )

    def forward(self, x):
        table = self.embedding["weight"]
        if x.shape[-2] > len(table):
            raise ValueError("length %d, max_length %d" % (x.shape[-2], len(table)))  # noqa: UP031
        return torch.add(x, table.narrow(0, 0, x.shape[-2]))


class LearnedByOneHot(nn.Module):
    def __init__(self, max_length, d_model):
        super().__init__()
        self.embedding = nn.Embedding(max_length, d_model)

    def forward(self, x):
        limit = self.embedding.weight.size(0)
        if x.size(1) > limit:
            raise ValueError(str((x.size(1), limit)))
        chosen = F.one_hot(torch.arange(x.size(1), device=x.device), limit).to(x.dtype)
        return x + torch.einsum("lp,pd->ld", chosen, self.embedding.weight)


class LearnedTokenByToken(nn.Module):
    def __init__(self, max_length, d_model):
        super().__init__()
        self.embedding = nn.Embedding(max_length, d_model)

    def forward(self, x):
        if x.size(1) > self.embedding.num_embeddings:
            raise ValueError(
                f"{x.size(1)} tokens are more than the table's {self.embedding.num_embeddings}"
            )
        rows = [token + row for token, row in zip(x.unbind(1), self.embedding.weight, strict=False)]
        return torch.stack(rows, dim=1)


class LearnedByTranslatingTheError(nn.Module):
    def __init__(self, max_length, d_model):
        super().__init__()
        self.embedding = nn.Embedding(max_length, d_model)

    def forward(self, x):
        positions = torch.arange(x.shape[1], device=x.device)
        try:
            rows = F.embedding(positions.expand(x.shape[:2]), self.embedding.weight)
        except IndexError as error:
            limit = self.embedding.num_embeddings
            raise ValueError(f"{x.shape[1]} positions, {limit} rows") from error
        return rows + x


class LearnedInPlaceOnACopy(nn.Module):
    def __init__(self, max_length, d_model):
        super().__init__()
        self.embedding = nn.Embedding(max_length, d_model)

    def forward(self, x):
        length = x.shape[1]
        if length > self.embedding.num_embeddings:
            raise ValueError(f"{length} > {self.embedding.num_embeddings}")
        result = x.clone()
        result += self.embedding.weight.index_select(0, torch.arange(length, device=x.device))
        return result


# ---- rotary positions ----------------------------------------------------------------------


def rotary_by_complex_numbers(x, positions, base=10000.0):
    refuse_odd(x.shape[-1])
    wide = x.double() if x.dtype == torch.float64 else x.float()
    pairs = torch.view_as_complex(wide.reshape(*x.shape[:-1], -1, 2).contiguous())
    exponent = torch.arange(0, x.shape[-1], 2, dtype=wide.dtype) / x.shape[-1]
    angles = torch.outer(positions.to(wide.dtype), 1.0 / base**exponent)
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2).type_as(x)


def rotary_by_repeated_angles(x, positions, base=10000.0):
    """x · cos + turned(x) · sin, with every angle for two neighbors."""
    refuse_odd(x.size(-1))
    kind = torch.promote_types(x.dtype, torch.float32)
    frequency = base ** (-torch.arange(0, x.size(-1), 2, dtype=kind) / x.size(-1))
    angles = (positions.to(kind)[:, None] * frequency).repeat_interleave(2, dim=-1)
    turned = torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).reshape(x.shape)
    return (x * angles.cos() + turned * angles.sin()).to(x.dtype)


def rotary_by_writing_slices(x, positions, base=10000.0):
    if x.shape[-1] % 2 != 0:
        raise ValueError("d_head must be even")
    d = x.shape[-1]
    frequency = torch.exp(torch.arange(0, d, 2).double() * (-math.log(base) / d))
    angles = positions.double().unsqueeze(-1) * frequency
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    result = torch.empty_like(x)
    result[..., ::2] = x[..., ::2] * cos - x[..., 1::2] * sin
    result[..., 1::2] = x[..., ::2] * sin + x[..., 1::2] * cos
    return result


def rotary_by_matrices(x, positions, base=10000.0):
    refuse_odd(x.size(-1))
    kind = torch.promote_types(x.dtype, torch.float32)
    angles = positions.to(kind)[:, None] * base ** (
        -torch.arange(x.size(-1) // 2, dtype=kind) / (x.size(-1) // 2)
    )
    rows = [[angles.cos(), -angles.sin()], [angles.sin(), angles.cos()]]
    matrices = torch.stack([torch.stack(row, -1) for row in rows], -2)
    pairs = x.to(kind).unflatten(-1, (-1, 2))
    return torch.einsum("liab,...lib->...lia", matrices, pairs).flatten(-2).to(x.dtype)


def rotary_position_by_position(x, positions, base=10000.0):
    """One full matrix per position, as the paper writes it."""
    d = x.size(-1)
    refuse_odd(d)
    kind = torch.promote_types(x.dtype, torch.float32)
    rows = []
    for token, position in zip(x.unbind(-2), positions.tolist(), strict=True):
        matrix = torch.zeros(d, d, dtype=kind)
        for i in range(d // 2):
            angle = position * base ** (-2 * i / d)
            matrix[2 * i, 2 * i] = matrix[2 * i + 1, 2 * i + 1] = math.cos(angle)
            matrix[2 * i, 2 * i + 1], matrix[2 * i + 1, 2 * i] = -math.sin(angle), math.sin(angle)
        rows.append(token.to(kind) @ matrix.T)
    return torch.stack(rows, dim=-2).to(x.dtype)


def rotary_pair_by_pair(x, positions, base=10000.0):
    refuse_odd(x.shape[-1])
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    columns = []
    for i in range(x.shape[-1] // 2):
        angle = positions.to(kind) / base ** (2 * i / x.shape[-1])
        a, b = x[..., 2 * i].to(kind), x[..., 2 * i + 1].to(kind)
        columns += [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()]
    return torch.stack(columns, dim=-1).type_as(x)


def rotary_by_halves_and_back(x, positions, base=10000.0):
    """The columns sorted into halves, the other convention, and sorted back."""
    d = x.size(-1)
    refuse_odd(d)
    order = torch.cat((torch.arange(0, d, 2), torch.arange(1, d, 2)))
    kind = torch.promote_types(x.dtype, torch.float32)
    angles = positions.to(kind)[:, None] / base ** (torch.arange(0, d, 2, dtype=kind) / d)
    angles = torch.cat((angles, angles), dim=-1)
    sorted_ = x[..., order]
    a, b = sorted_.chunk(2, dim=-1)
    turned = sorted_ * angles.cos() + torch.cat((-b, a), dim=-1) * angles.sin()
    return turned[..., order.argsort()].to(x.dtype)


def rotary_in_float64(x, positions, base=10000.0):
    d = x.shape[-1]
    refuse_odd(d)
    powers = [math.pow(base, -2 * i / d) for i in range(d // 2)]
    frequency = torch.tensor(powers, dtype=torch.float64)
    angles = torch.einsum("l,i->li", positions.double(), frequency)
    a, b = x.double().reshape(*x.shape[:-1], d // 2, 2).unbind(-1)
    turned = torch.stack((a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()))
    return turned.movedim(0, -1).reshape(x.shape).to(x.dtype)


def rotary_with_short_factors(x, positions, base=10000.0):
    """Angles in float32, but sine, cosine and products in the dtype of x."""
    refuse_odd(x.size(-1))
    kind = torch.promote_types(x.dtype, torch.float32)
    frequency = torch.pow(
        torch.tensor(base, dtype=kind), torch.arange(0, x.size(-1), 2, dtype=kind) / -x.size(-1)
    )
    angles = positions.to(kind).view(-1, 1) * frequency
    sin, cos = angles.sin().to(x.dtype), angles.cos().to(x.dtype)
    a, b = x.reshape(*x.shape[:-1], -1, 2).movedim(-1, 0)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).view(*x.shape)


def rotary_by_growing_powers(x, positions, base=10000.0):
    pairs, odd = divmod(x.size(-1), 2)
    if odd:
        raise ValueError("odd")
    kind = torch.promote_types(x.dtype, torch.float32)
    ratio = torch.full((pairs,), base ** (-1 / pairs), dtype=torch.float64)
    frequency = (ratio.cumprod(0) / ratio[0]).to(kind)
    turns = torch.exp(1j * (positions.to(kind)[:, None] * frequency))
    z = torch.complex(x[..., ::2].to(kind), x[..., 1::2].to(kind)) * turns
    return torch.stack((z.real, z.imag), -1).flatten(-2).to(x.dtype)


def rotary_in_place_on_a_copy(x, positions, base=10000.0):
    refuse_odd(x.size(-1))
    kind = torch.promote_types(x.dtype, torch.float32)
    result = x.to(kind, copy=True)
    angles = positions[:, None].to(kind) * (
        1 / base ** (torch.arange(0, x.size(-1), 2).to(kind) / x.size(-1))
    )
    first = result[..., 0::2].clone()
    result[..., 0::2] *= angles.cos()
    result[..., 0::2] -= result[..., 1::2] * angles.sin()
    result[..., 1::2] = result[..., 1::2] * angles.cos() + first * angles.sin()
    return result.to(x.dtype)


def rotary_by_rolling(x, positions, base=10000.0):
    d = x.size(-1)
    refuse_odd(d)
    kind = torch.promote_types(x.dtype, torch.float32)
    column = torch.arange(d)
    angles = positions.to(kind)[:, None] * base ** (-(column - column % 2).to(kind) / d)
    partner = torch.where(column % 2 == 0, -x.roll(-1, -1), x.roll(1, -1))
    return torch.addcmul(x * angles.cos(), partner.to(kind), angles.sin()).to(x.dtype)


def rotary_by_turning_the_angle(x, positions, base=10000.0):
    """Each pair as length and direction; the gradient at (0, 0) is not asked for."""
    refuse_odd(x.size(-1))
    kind = torch.promote_types(x.dtype, torch.float32)
    a, b = x[..., 0::2].to(kind), x[..., 1::2].to(kind)
    column = torch.arange(0, x.size(-1), 2, dtype=kind)
    direction = torch.atan2(b, a) + positions.to(kind)[:, None] * base ** (-column / x.size(-1))
    radius = torch.sqrt(a * a + b * b)
    return (
        torch.stack((radius * direction.cos(), radius * direction.sin()), -1).view_as(x).to(x.dtype)
    )


# ---- linear biases -------------------------------------------------------------------------


def alibi_by_three_loops(num_heads, length):
    bias = torch.zeros(num_heads, length, length)
    for h in range(num_heads):
        slope = 2 ** (-8 * (h + 1) / num_heads)
        for i in range(length):
            for j in range(length):
                bias[h, i, j] = -slope * abs(i - j)
    return bias


def alibi_by_list(num_heads, length):
    return torch.tensor(
        [
            [[-abs(i - j) / 2 ** (8 * h / num_heads) for j in range(length)] for i in range(length)]
            for h in range(1, num_heads + 1)
        ]
    )


def alibi_by_numpy(num_heads, length):
    slopes = np.power(2.0, -8.0 * np.arange(1, num_heads + 1) / num_heads)
    distance = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    return torch.from_numpy(-np.multiply.outer(slopes, distance).astype(np.float32))


def alibi_by_growing_powers(num_heads, length):
    ratio = 2.0 ** (-8.0 / num_heads)
    slopes = torch.tensor([ratio ** (h + 1) for h in range(num_heads)])
    positions = torch.arange(length)
    return slopes.view(-1, 1, 1) * -(positions[None, :] - positions[:, None]).abs()[None]


def alibi_by_cumprod(num_heads, length):
    slopes = torch.full((num_heads,), 2 ** (-8 / num_heads)).cumprod(0)
    positions = torch.arange(length, dtype=torch.float32)
    return torch.einsum("h,ij->hij", -slopes, (positions.unsqueeze(1) - positions).abs())


def alibi_by_cdist(num_heads, length):
    positions = torch.arange(length).float().unsqueeze(-1)
    slopes = torch.exp2(torch.linspace(-8 / num_heads, -8, num_heads))
    return -slopes[:, None, None] * torch.cdist(positions, positions)


def alibi_by_minimum(num_heads, length):
    """Minus the distance is the smaller one of i - j and j - i."""
    gap = torch.arange(length)[:, None] - torch.arange(length)
    exponent = torch.arange(1, num_heads + 1, dtype=torch.float64) * 8 / num_heads
    return (torch.minimum(gap, gap.T) * (0.5**exponent)[:, None, None]).float()


def alibi_by_triangles(num_heads, length):
    steps = torch.ones(length, length).triu(1).cumsum(1)
    slopes = torch.pow(256.0, -torch.arange(1, num_heads + 1) / num_heads)
    return torch.stack([-(steps + steps.T) * slope for slope in slopes])


def alibi_by_indexing(num_heads, length):
    line = torch.outer(
        torch.exp(torch.arange(1, num_heads + 1) * (-8 * math.log(2) / num_heads)),
        -torch.arange(length).float(),
    )
    positions = torch.arange(length)
    return line[:, (positions[:, None] - positions).abs()]


def alibi_by_logspace(num_heads, length):
    slopes = torch.logspace(-8 / num_heads, -8, num_heads, base=2.0)
    rows, columns = torch.meshgrid(torch.arange(length), torch.arange(length), indexing="ij")
    return torch.tensordot(slopes, -torch.abs(rows - columns).float(), dims=0)


ALTERNATIVES = {
    "positions/sinusoidal_encoding": [
        sinusoids_by_slices,
        sinusoids_by_two_loops,
        sinusoids_by_list,
        sinusoids_by_numpy,
        sinusoids_by_complex_numbers,
        sinusoids_by_polar,
        sinusoids_by_einsum,
        sinusoids_by_repeated_frequencies,
        sinusoids_by_a_quarter_turn,
        sinusoids_by_logspace,
        sinusoids_by_rotating_on,
        sinusoids_of_halves_reordered,
        sinusoids_from_a_cache,
        sinusoids_by_log2,
    ],
    "positions/shift_matrix": [
        shift_by_writing_the_blocks,
        shift_in_float32,
        shift_by_matrix_exponential,
        shift_by_power,
        shift_by_three_diagonals,
        shift_by_kron,
        shift_by_complex_numbers,
        shift_from_the_encoding,
        shift_by_solving_each_pair,
        shift_by_numpy,
        shift_by_einsum,
        shift_by_symmetry,
    ],
    "positions/LearnedPositions": [
        LearnedByLookup,
        LearnedWithABuffer,
        LearnedByAPlainTable,
        LearnedByOneHot,
        LearnedTokenByToken,
        LearnedByTranslatingTheError,
        LearnedInPlaceOnACopy,
    ],
    "positions/apply_rotary": [
        rotary_by_complex_numbers,
        rotary_by_repeated_angles,
        rotary_by_writing_slices,
        rotary_by_matrices,
        rotary_position_by_position,
        rotary_pair_by_pair,
        rotary_by_halves_and_back,
        rotary_in_float64,
        rotary_with_short_factors,
        rotary_by_growing_powers,
        rotary_in_place_on_a_copy,
        rotary_by_rolling,
        rotary_by_turning_the_angle,
    ],
    "positions/alibi_bias": [
        alibi_by_three_loops,
        alibi_by_list,
        alibi_by_numpy,
        alibi_by_growing_powers,
        alibi_by_cumprod,
        alibi_by_cdist,
        alibi_by_minimum,
        alibi_by_triangles,
        alibi_by_indexing,
        alibi_by_logspace,
    ],
}
