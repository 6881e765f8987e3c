"""Chapter 3's solutions against implementations that are not ours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import solution
from torch import Tensor, nn


def turns(positions: np.ndarray, width: int, base: float = 10000.0) -> np.ndarray:
    """e^(i·p·base^(-2k/width)) in complex128, (positions, width/2): what chapter 3 is made of."""
    pairs = np.arange(width // 2, dtype=np.float64)
    return np.exp(1j * np.multiply.outer(positions, np.power(base, -2 * pairs / width)))


# ---- sinusoids -----------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "d_model"), [(1, 2), (1, 8), (7, 2), (50, 16), (33, 510)])
def test_sinusoids_equal_complex_exponentials(length: int, d_model: int) -> None:
    ours = solution("positions/sinusoidal_encoding")(length, d_model)
    theirs = turns(np.arange(length), d_model)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours[:, 0::2], theirs.imag, atol=1e-6)
    np.testing.assert_allclose(ours[:, 1::2], theirs.real, atol=1e-6)


def test_late_sinusoids_keep_their_digits() -> None:
    ours = solution("positions/sinusoidal_encoding")(20000, 8)[19000:]
    theirs = turns(np.arange(19000, 20000), 8)
    np.testing.assert_allclose(ours[:, 0::2], theirs.imag, atol=1e-6)
    np.testing.assert_allclose(ours[:, 1::2], theirs.real, atol=1e-6)


def test_sinusoids_equal_values_worked_out_by_hand() -> None:
    """Position 1, width 4: the angles are 1 and 1/100; their series, to eight places."""
    row = solution("positions/sinusoidal_encoding")(2, 4)[1]
    assert row.tolist() == pytest.approx([0.84147098, 0.54030231, 0.00999983, 0.99995000], abs=1e-7)


def test_wavelengths_run_from_two_pi_to_ten_thousand_times_that() -> None:
    """Vaswani et al. 2017, section 3.5. Counted: the places where the cosines cross 0."""
    encoding = solution("positions/sinusoidal_encoding")(200_000, 64)

    def wavelength(column: int) -> float:
        crossings = (encoding[1:, column].sign() != encoding[:-1, column].sign()).nonzero()
        return 2 * float(crossings[-1] - crossings[0]) / (len(crossings) - 1)

    assert wavelength(1) == pytest.approx(2 * math.pi, rel=1e-4)
    # The last pair has i = 31 of 32: a step short of the limit 10000 · 2π.
    assert wavelength(63) == pytest.approx(2 * math.pi * 10000 ** (31 / 32), rel=1e-3)


def test_dot_products_of_sinusoids_are_a_sum_of_cosines_of_the_distance() -> None:
    encoding = solution("positions/sinusoidal_encoding")(40, 32).double()
    gaps = np.subtract.outer(np.arange(40), np.arange(40))
    expected = turns(gaps.ravel(), 32).real.sum(axis=1).reshape(40, 40)
    np.testing.assert_allclose(encoding @ encoding.T, expected, atol=1e-5)


# ---- shift matrix --------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1, -1, 5, -17, 400])
@pytest.mark.parametrize("d_model", [2, 6, 64])
def test_shift_matrix_equals_the_exponential_of_its_generator(offset: int, d_model: int) -> None:
    """d/dp (sin wp, cos wp) = w · (cos wp, -sin wp), so M_k = exp(k · generator)."""
    speeds = torch.logspace(0, -4, d_model // 2 + 1, dtype=torch.float64)[:-1]
    rate = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    generator = torch.kron(torch.diag(speeds), rate)
    expected = torch.linalg.matrix_exp(offset * generator)
    ours = solution("positions/shift_matrix")(offset, d_model)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("offset", [0, 1, 4, -3, -20])
def test_shift_matrix_moves_complex_exponentials(offset: int) -> None:
    def rows(positions: np.ndarray) -> np.ndarray:
        values = turns(positions, 12)
        return np.stack([values.imag, values.real], axis=-1).reshape(len(positions), 12)

    positions = np.arange(25, 60)
    matrix = solution("positions/shift_matrix")(offset, 12).double().numpy()
    np.testing.assert_allclose(rows(positions) @ matrix.T, rows(positions + offset), atol=1e-6)


def test_shift_matrices_are_the_only_ones_that_fit() -> None:
    """Least squares over many positions finds the same matrix, where it is well conditioned."""
    angles = turns(np.arange(0, 40000, 7), 6)
    moved = turns(np.arange(0, 40000, 7) + 5, 6)
    old = np.stack([angles.imag, angles.real], -1).reshape(-1, 6)
    new = np.stack([moved.imag, moved.real], -1).reshape(-1, 6)
    fitted, _, rank, _ = np.linalg.lstsq(old, new, rcond=None)
    assert rank == 6
    np.testing.assert_allclose(solution("positions/shift_matrix")(5, 6), fitted.T, atol=1e-6)


def test_shift_matrices_are_rotations_that_add_up() -> None:
    shift = solution("positions/shift_matrix")
    there = shift(7, 20)
    torch.testing.assert_close(there @ shift(-7, 20), torch.eye(20), rtol=0, atol=1e-6)
    torch.testing.assert_close(there @ there.T, torch.eye(20), rtol=0, atol=1e-6)
    torch.testing.assert_close(there @ shift(5, 20), shift(12, 20), rtol=0, atol=1e-6)
    assert torch.linalg.det(there.double()).item() == pytest.approx(1, abs=1e-5)


# ---- learned positions ---------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 4, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_learned_positions_equal_an_embedding_lookup(length: int, dtype: torch.dtype) -> None:
    add = solution("positions/LearnedPositions")(9, 6).to(dtype)
    x = torch.randn(3, length, 6, generator=torch.manual_seed(1)).to(dtype)
    theirs = nn.Embedding(9, 6).to(dtype)
    theirs.load_state_dict(add.embedding.state_dict())
    expected = x + theirs(torch.arange(length).expand(3, length))
    assert torch.equal(add(x), expected)
    upstream = torch.randn(expected.shape, generator=torch.manual_seed(2)).to(dtype)
    (add(x) * upstream).sum().backward()
    (expected * upstream).sum().backward()
    # One sums over the batch, the other token by token: in bfloat16 the order shows.
    close = {"rtol": 0, "atol": 16 * torch.finfo(dtype).eps}
    torch.testing.assert_close(add.embedding.weight.grad, theirs.weight.grad, **close)


@pytest.mark.parametrize("length", [10, 300])
def test_learned_positions_refuse_what_is_too_long_and_say_both_lengths(length: int) -> None:
    add = solution("positions/LearnedPositions")(9, 6)
    with pytest.raises(ValueError, match=rf"(?s)\b{length}\b.*\b9\b|\b9\b.*\b{length}\b"):
        add(torch.zeros(1, length, 6))


# ---- rotary positions ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 8), (2, 3, 5, 6), (2, 1, 3, 5, 2)])
@pytest.mark.parametrize("base", [10000.0, 100.0, 500000.0])
def test_rotary_equals_complex_multiplication(shape: tuple[int, ...], base: float) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.manual_seed(3))
    positions = torch.tensor([40, 0, 3, 3, 17])
    ours = solution("positions/apply_rotary")(x, positions, base)
    pairs = x.numpy().copy().view(np.complex128)
    expected = (pairs * turns(positions.numpy(), shape[-1], base)).view(np.float64)
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_rotary_equals_torch_polar_with_its_gradient() -> None:
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64, generator=torch.manual_seed(4))
    x.requires_grad_()
    angles = torch.outer(torch.arange(7.0).double(), 1e4 ** (-torch.arange(4).double() / 4))
    turn = torch.polar(torch.ones_like(angles), angles)
    theirs = torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (4, 2))) * turn).flatten(-2)
    ours = solution("positions/apply_rotary")(x, torch.arange(7))
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn(x.shape, dtype=torch.float64, generator=torch.manual_seed(5))
    (a,) = torch.autograd.grad((ours * upstream).sum(), x)
    (b,) = torch.autograd.grad((theirs * upstream).sum(), x)
    torch.testing.assert_close(a, b)


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def test_attention_with_rotary_positions_does_not_feel_a_common_shift() -> None:
    rotate = solution("positions/apply_rotary")
    query, key, value = torch.randn(3, 2, 4, 6, 8, dtype=torch.float64).unbind(0)
    positions = torch.tensor([0, 2, 3, 7, 8, 20])
    outputs = [
        attention(rotate(query, positions + k), rotate(key, positions + k), value)
        for k in (0, 1, 1000)
    ]
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.testing.assert_close(outputs[2], outputs[0])
    moved = attention(rotate(query, positions + 1), rotate(key, positions), value)
    assert (moved - outputs[0]).abs().max() > 1e-3


def test_rotary_and_sinusoids_turn_alike() -> None:
    """Rotating (0, 1) pairs backwards gives the sinusoids: one formula, two uses."""
    start = torch.tensor([0.0, 1.0]).repeat(6).expand(30, 12)
    ours = solution("positions/apply_rotary")(start, -torch.arange(30))
    theirs = turns(np.arange(30), 12)
    np.testing.assert_allclose(ours[:, 0::2], theirs.imag, atol=1e-5)
    np.testing.assert_allclose(ours[:, 1::2], theirs.real, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rotary_of_short_floats_is_near_float64(dtype: torch.dtype) -> None:
    x = torch.randn(2, 4, 8, generator=torch.manual_seed(6)).to(dtype)
    positions = torch.tensor([1, 257, 1001, 2049])
    ours = solution("positions/apply_rotary")(x, positions)
    expected = (x.double().numpy().view(np.complex128) * turns(positions.numpy(), 8)).view("f8")
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours.double(), expected, atol=8 * torch.finfo(dtype).eps + 2e-3)


# ---- linear biases -------------------------------------------------------------------------


def test_alibi_slopes_are_those_that_the_paper_prints_for_eight_heads() -> None:
    """Press et al. 2022, section 3: 1/2, 1/4, ..., 1/256."""
    bias = solution("positions/alibi_bias")(8, 3)
    printed = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    assert (-bias[:, 0, 1]).tolist() == printed
    assert (-bias[:, 2, 0] / 2).tolist() == printed


def test_alibi_slopes_of_sixteen_heads_start_at_the_root_of_one_half() -> None:
    """The same section: for 16 heads the sequence starts at 1/sqrt(2)."""
    slopes = -solution("positions/alibi_bias")(16, 2)[:, 0, 1]
    assert slopes[0].item() == pytest.approx(2**-0.5)
    assert slopes[1::2].tolist() == pytest.approx([2.0**-h for h in range(1, 9)])


@pytest.mark.parametrize(("num_heads", "length"), [(1, 1), (1, 5), (3, 4), (6, 7), (12, 33)])
def test_alibi_equals_the_distances_of_numpy(num_heads: int, length: int) -> None:
    slopes = np.geomspace(2 ** (-8 / num_heads), 2**-8, num_heads)
    gaps = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    bias = solution("positions/alibi_bias")(num_heads, length)
    assert bias.dtype == torch.float32
    np.testing.assert_allclose(bias, -np.multiply.outer(slopes, gaps), rtol=1e-6)


def test_causal_attention_with_alibi_equals_the_bias_of_the_keys_alone() -> None:
    """The paper's figure 3 and published code differ by a number per row: the softmax drops it."""
    query, key, value = torch.randn(3, 2, 4, 6, 8).unbind(0)
    future = torch.full((6, 6), -math.inf).triu(1)
    bias = solution("positions/alibi_bias")(4, 6)
    keys_alone = torch.tensor([2**-2, 2**-4, 2**-6, 2**-8])[:, None, None] * torch.arange(6)
    torch.testing.assert_close(
        attention(query, key, value, bias + future),
        attention(query, key, value, keys_alone + future),
    )


def test_alibi_makes_weights_fall_by_a_constant_factor() -> None:
    weights = attention(
        torch.zeros(1, 4, 5, 2),
        torch.zeros(1, 4, 5, 2),
        torch.eye(5).expand(1, 4, 5, 5),
        solution("positions/alibi_bias")(4, 5),
    )
    factors = weights[0, :, 0, 1:] / weights[0, :, 0, :-1]
    expected = [[math.exp(-(2.0 ** -(2 * h)))] * 4 for h in range(1, 5)]
    torch.testing.assert_close(factors, torch.tensor(expected))


# ---- what positions are for ----------------------------------------------------------------


def test_attention_alone_does_not_know_the_order_and_each_position_method_tells_it() -> None:
    generator = torch.manual_seed(7)
    x = torch.randn(1, 6, 8, dtype=torch.float64, generator=generator)
    order = torch.randperm(6, generator=generator)
    turned = solution("positions/apply_rotary")
    learned = solution("positions/LearnedPositions")(6, 8).double()
    sinusoids = solution("positions/sinusoidal_encoding")(6, 8).double()
    bias = solution("positions/alibi_bias")(1, 6).double()
    positions = torch.arange(6)

    def change(attend) -> float:
        """How far the output is from moving along with its input."""
        with torch.no_grad():
            return (attend(x)[:, order] - attend(x[:, order])).abs().max().item()

    assert change(lambda x: attention(x, x, x)) < 1e-12
    for attend in (
        lambda x: attention(*[x + sinusoids] * 3),
        lambda x: attention(*[learned(x)] * 3),
        lambda x: attention(turned(x, positions), turned(x, positions), x),
        lambda x: attention(x, x, x, bias),
    ):
        assert change(attend) > 1e-3
