"""Chapter 1's solutions against implementations that are not ours."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from conftest import solution

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [-1, 0, 1, -2])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_softmax_equals_torch(dtype: torch.dtype, dim: int, scale: float) -> None:
    scores = scale * torch.randn(4, 3, 6, dtype=dtype, generator=torch.manual_seed(1))
    ours = solution("attention/softmax")(scores, dim)
    torch.testing.assert_close(ours, torch.softmax(scores, dim))


def test_softmax_gradient_equals_torch() -> None:
    scores = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 5, dtype=torch.float64)
    (ours,) = torch.autograd.grad((solution("attention/softmax")(scores) * weights).sum(), scores)
    (theirs,) = torch.autograd.grad((torch.softmax(scores, -1) * weights).sum(), scores)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask_shape", [None, (2, 1, 7), (5, 7), (2, 5, 7)])
@pytest.mark.parametrize("empty_rows", [False, True])
def test_attention_equals_torch(
    dtype: torch.dtype, mask_shape: tuple[int, ...] | None, empty_rows: bool
) -> None:
    generator = torch.manual_seed(2)
    query = torch.randn(2, 5, 8, dtype=dtype, generator=generator, requires_grad=True)
    key = torch.randn(2, 7, 8, dtype=dtype, generator=generator, requires_grad=True)
    value = torch.randn(2, 7, 6, dtype=dtype, generator=generator, requires_grad=True)
    mask = None
    if mask_shape:
        mask = torch.rand(mask_shape, generator=generator) < 0.6
        mask[..., 0] = True
        if empty_rows:
            mask.view(-1, 7)[-1] = False
    output, weights = solution("attention/scaled_dot_product_attention")(query, key, value, mask)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(weights @ value, expected)
    upstream = torch.randn(output.shape, dtype=dtype, generator=generator)
    ours = torch.autograd.grad((output * upstream).sum(), (query, key, value))
    theirs = torch.autograd.grad((expected * upstream).sum(), (query, key, value))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_equals_torch_with_any_leading_axes(
    leading: tuple[int, ...], causal: bool
) -> None:
    query, key, value = torch.randn(3, *leading, 4, 8, generator=torch.manual_seed(3)).unbind(0)
    mask = solution("attention/causal_mask")(4) if causal else None
    output, _ = solution("attention/scaled_dot_product_attention")(query, key, value, mask)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("mask", [[False, True, True], [False, False, True], [True, True, True]])
def test_attention_equals_torch_where_scores_lie_far_apart(mask: list[bool]) -> None:
    query = torch.tensor([[[20.0, 0.0], [200.0, 0.0]]])
    key = torch.tensor([[[20.0, 0.0], [0.0, 1.0], [-200.0, 0.0]]])
    _, weights = solution("attention/scaled_dot_product_attention")(
        query, key, key, torch.tensor(mask)
    )
    # With the unit matrix for values, what comes out are the weights.
    expected = F.scaled_dot_product_attention(
        query, key, torch.eye(3)[None], attn_mask=torch.tensor(mask)
    )
    assert torch.equal(weights, expected)
    assert weights[0, 0].tolist() == [float(i == mask.index(True)) for i in range(3)]


def test_softmax_of_minus_infinity_equals_torch_and_its_gradient_too() -> None:
    scores = torch.tensor([[-math.inf, 1.0, 2.0], [-math.inf, -2e10, -1e10]], requires_grad=True)
    ours, theirs = solution("attention/softmax")(scores), torch.softmax(scores, -1)
    assert torch.equal(ours[:, 0], torch.zeros(2))
    torch.testing.assert_close(ours, theirs)
    upstream = torch.tensor([[1.0, -2.0, 3.0]])
    (a,) = torch.autograd.grad((ours * upstream).sum(), scores)
    (b,) = torch.autograd.grad((theirs * upstream).sum(), scores)
    torch.testing.assert_close(a, b)


def test_fully_masked_rows_equal_torch_and_are_zero() -> None:
    query, key, value = torch.randn(3, 1, 4, 8).unbind(0)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    output, weights = solution("attention/scaled_dot_product_attention")(query, key, value, mask)
    torch.testing.assert_close(
        output, F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    )
    assert not output.any()
    assert not weights.any()


@pytest.mark.parametrize("length", [1, 2, 5, 33, 300])
def test_causal_mask_equals_tril(length: int) -> None:
    expected = torch.tril(torch.ones(length, length)).bool()
    assert torch.equal(solution("attention/causal_mask")(length), expected)


def test_padding_mask_is_what_torch_calls_a_key_padding_mask() -> None:
    """nn.MultiheadAttention takes the inverse, (batch, length), True where a key is barred."""
    ids = torch.tensor([[4, 2, 0, 0], [7, 1, 5, 0]])
    mask = solution("attention/padding_mask")(ids)
    x = torch.randn(2, 4, 8)
    theirs = torch.nn.MultiheadAttention(8, 1, bias=False, batch_first=True)
    _, expected = theirs(x, x, x, key_padding_mask=ids == 0)
    w_q, w_k, _ = theirs.in_proj_weight.chunk(3)
    _, weights = solution("attention/scaled_dot_product_attention")(x @ w_q.T, x @ w_k.T, x, mask)
    torch.testing.assert_close(weights, expected)


def test_additive_attention_equals_a_value_derived_by_hand() -> None:
    """One query 1, keys 0 and ln 2, all weights 1: scores tanh(1) and tanh(1 + ln 2).

    With e^(2x) = a, tanh(x) = (a - 1)/(a + 1): a is e² for the first key and 4e² for the second.
    """
    attend = solution("attention/AdditiveAttention")(1, 1, 1).double()
    for parameter in attend.parameters():
        torch.nn.init.ones_(parameter)
    query = torch.ones(1, 1, 1, dtype=torch.float64)
    key = torch.tensor([[[0.0], [math.log(2)]]], dtype=torch.float64)
    value = torch.tensor([[[10.0], [20.0]]], dtype=torch.float64)
    e2 = math.e**2
    first, second = (e2 - 1) / (e2 + 1), (4 * e2 - 1) / (4 * e2 + 1)
    share = 1 / (1 + math.exp(second - first))
    output, weights = attend(query, key, value)
    assert weights[0, 0, 0].item() == pytest.approx(share, abs=1e-12)
    assert output.item() == pytest.approx(10 * share + 20 * (1 - share), abs=1e-12)
    # The same number worked out on paper, to four places.
    assert share == pytest.approx(0.4569, abs=5e-5)


def test_additive_attention_equals_a_loop_over_pairs() -> None:
    attend = solution("attention/AdditiveAttention")(4, 3, 5).double()
    query, key = torch.randn(2, 3, 4).double(), torch.randn(2, 6, 3).double()
    _, weights = attend(query, key, torch.randn(2, 6, 2).double())
    w, u, v = (layer.weight.detach().numpy() for layer in (attend.w_a, attend.u_a, attend.v_a))
    for batch in range(2):
        for row in range(3):
            scores = [
                sum(
                    v[0, h]
                    * math.tanh(
                        sum(w[h, i] * query[batch, row, i].item() for i in range(4))
                        + sum(u[h, i] * key[batch, column, i].item() for i in range(3))
                    )
                    for h in range(5)
                )
                for column in range(6)
            ]
            powers = [math.exp(score) for score in scores]
            expected = torch.tensor([p / sum(powers) for p in powers], dtype=torch.float64)
            torch.testing.assert_close(weights[batch, row].detach(), expected)
