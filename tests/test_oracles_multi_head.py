"""Chapter 2's solutions against implementations that are not ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import solution
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

DTYPES = [torch.float32, torch.float64]
LAYERS = ("w_q", "w_k", "w_v", "w_o")
# batch, heads, d_head, L_q, L_k: all different, all equal, one of each, batch and heads equal
SIZES = [(2, 3, 5, 4, 7), (3, 3, 3, 3, 3), (1, 1, 1, 1, 1), (4, 4, 2, 6, 5), (2, 8, 1, 3, 9)]
MASKS = ["none", "queries and keys", "keys of each sequence", "all"]


def twins(d_model: int, num_heads: int, dtype: torch.dtype, dropout: float = 0.0) -> tuple:
    """Our module and torch's, with the same random numbers in both."""
    ours = solution("multi_head/MultiHeadAttention")(d_model, num_heads, dropout).to(dtype)
    theirs = nn.MultiheadAttention(
        d_model, num_heads, dropout=dropout, batch_first=True, dtype=dtype
    )
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
        weights = [getattr(ours, layer).weight for layer in LAYERS]
        biases = [getattr(ours, layer).bias for layer in LAYERS]
        theirs.in_proj_weight.copy_(torch.cat(weights[:3]))
        theirs.in_proj_bias.copy_(torch.cat(biases[:3]))
        theirs.out_proj.weight.copy_(weights[3])
        theirs.out_proj.bias.copy_(biases[3])
    return ours, theirs


def random_mask(kind: str, batch: int, queries: int, keys: int) -> Tensor | None:
    """A mask in which every query may attend to something: torch's module gives NaN otherwise."""
    shapes = {
        "queries and keys": (queries, keys),
        "keys of each sequence": (batch, 1, keys),
        "all": (batch, queries, keys),
    }
    if kind == "none":
        return None
    mask = torch.rand(shapes[kind]) < 0.5
    mask[..., 0] |= ~mask.any(-1)
    return mask


def their_masks(kind: str, mask: Tensor | None, heads: int) -> dict[str, Any]:
    """The same mask as torch's module takes it: True where a key is barred."""
    if mask is None:
        return {}
    if kind == "queries and keys":
        return {"attn_mask": ~mask}
    if kind == "keys of each sequence":
        return {"key_padding_mask": ~mask[:, 0]}
    return {"attn_mask": (~mask).repeat_interleave(heads, dim=0)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("kind", MASKS)
def test_module_equals_torch(dtype: torch.dtype, sizes: tuple[int, ...], kind: str) -> None:
    torch.manual_seed(1)
    batch, heads, d_head, queries, keys = sizes
    d_model = heads * d_head
    ours, theirs = twins(d_model, heads, dtype)
    query = torch.randn(batch, queries, d_model, dtype=dtype, requires_grad=True)
    key = torch.randn(batch, keys, d_model, dtype=dtype, requires_grad=True)
    value = torch.randn(batch, keys, d_model, dtype=dtype, requires_grad=True)
    mask = random_mask(kind, batch, queries, keys)

    output, weights = ours(query, key, value, mask)
    expected, expected_weights = theirs(
        query, key, value, average_attn_weights=False, **their_masks(kind, mask, heads)
    )
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {}
    torch.testing.assert_close(output, expected, **tolerance)
    torch.testing.assert_close(weights, expected_weights, **tolerance)

    upstream = torch.randn_like(output), torch.randn_like(weights)
    own = [getattr(ours, layer) for layer in LAYERS]
    gradients = torch.autograd.grad(
        (output, weights),
        (query, key, value, *(w.weight for w in own), *(w.bias for w in own)),
        upstream,
    )
    inner = torch.autograd.grad(
        (expected, expected_weights),
        (
            *(query, key, value, theirs.in_proj_weight, theirs.in_proj_bias),
            *(theirs.out_proj.weight, theirs.out_proj.bias),
        ),
        upstream,
    )
    wanted = (*inner[:3], *inner[3].chunk(3), inner[5], *inner[4].chunk(3), inner[6])
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if dtype == torch.float32 else {}
    torch.testing.assert_close(gradients, wanted, **tolerance)


@pytest.mark.parametrize("length", [1, 4, 9])
def test_self_attention_under_a_causal_mask_equals_torch(length: int) -> None:
    torch.manual_seed(2)
    ours, theirs = twins(12, 3, torch.float64)
    x = torch.randn(2, length, 12, dtype=torch.float64)
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    expected = theirs(x, x, x, attn_mask=~mask, average_attn_weights=False)
    torch.testing.assert_close(ours(x, x, x, mask), expected)


def test_a_query_that_may_attend_to_nothing_equals_torchs_function() -> None:
    """Torch's module gives NaN here; its function gives 0, as the exercise asks."""
    torch.manual_seed(3)
    ours, _ = twins(8, 2, torch.float64)
    query, key, value = torch.randn(3, 2, 4, 8, dtype=torch.float64).requires_grad_().unbind(0)
    mask = torch.rand(2, 4, 4) < 0.5
    mask[0, 1] = mask[1] = False
    output, weights = ours(query, key, value, mask)
    heads = [
        layer(x).unflatten(-1, (2, 4)).transpose(1, 2)
        for layer, x in ((ours.w_q, query), (ours.w_k, key), (ours.w_v, value))
    ]
    read = F.scaled_dot_product_attention(*heads, attn_mask=mask[:, None])
    expected = ours.w_o(read.transpose(1, 2).flatten(2))
    torch.testing.assert_close(output, expected)
    assert torch.equal(output[1], ours.w_o.bias.expand(4, -1))
    assert not weights[0, :, 1].any()
    inputs = (query, key, value, *ours.parameters())
    upstream = torch.randn_like(output)
    gradients = torch.autograd.grad(output, inputs, upstream)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, inputs, upstream))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_dropout_draws_what_torch_draws() -> None:
    """From the same seed both drop the same weights, so the outputs are equal to the last digit."""
    ours, theirs = twins(12, 3, torch.float64, dropout=0.3)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    torch.manual_seed(4)
    output, weights = ours(x, x, x)
    torch.manual_seed(4)
    expected, _ = theirs(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(output, expected)
    ours.eval()
    theirs.eval()
    calm, same = ours(x, x, x)
    assert not torch.allclose(calm, output)
    torch.testing.assert_close(same, weights)
    torch.testing.assert_close((calm, same), theirs(x, x, x, average_attn_weights=False))


def test_dropout_keeps_the_mean_of_the_output() -> None:
    """The output is linear in the weights that act, so their expected value decides."""
    torch.manual_seed(5)
    ours, _ = twins(6, 2, torch.float64, dropout=0.25)
    x = torch.randn(1, 4, 6, dtype=torch.float64).expand(20_000, 4, 6)
    with torch.no_grad():
        draws, _ = ours(x, x, x)
        expected, _ = ours.eval()(x[:1], x[:1], x[:1])
    error = draws.std(0) / len(draws) ** 0.5
    assert bool((draws.std(0) > 0).all())
    assert bool(((draws.mean(0) - expected[0]).abs() < 5 * error).all())


def test_bfloat16_is_near_float32() -> None:
    torch.manual_seed(6)
    ours, _ = twins(8, 2, torch.float32)
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        output, weights = ours(x, x, x)
        short, short_weights = ours.to(torch.bfloat16)(*[x.bfloat16()] * 3)
    assert short.dtype == short_weights.dtype == torch.bfloat16
    assert float((short.float() - output).norm() / output.norm()) < 0.05
    assert float((short_weights.float() - weights).abs().max()) < 0.05


@pytest.mark.parametrize("heads", [3, 5, 7, 16])
def test_indivisible_width_is_refused_as_torch_refuses_it(heads: int) -> None:
    with pytest.raises(AssertionError, match="divisible"):
        nn.MultiheadAttention(8, heads)
    for refusing in (
        lambda: solution("multi_head/MultiHeadAttention")(8, heads),
        lambda: solution("multi_head/split_heads")(torch.randn(1, 2, 8), heads),
        lambda: solution("multi_head/attention_flops")(2, 8, heads),
    ):
        with pytest.raises(ValueError, match=rf"8.*{heads}|{heads}.*8"):
            refusing()


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_split_and_merge_equal_plain_loops(sizes: tuple[int, ...]) -> None:
    batch, heads, d_head, length, _ = sizes
    split, merge = solution("multi_head/split_heads"), solution("multi_head/merge_heads")
    x = torch.randn(batch, length, heads * d_head, generator=torch.manual_seed(7))
    parts = split(x, heads)
    assert parts.shape == (batch, heads, length, d_head)
    for b in range(batch):
        for n in range(length):
            for h in range(heads):
                own = x[b, n].tolist()[h * d_head : (h + 1) * d_head]
                assert parts[b, h, n].tolist() == own
    assert torch.equal(merge(parts), x)
    assert torch.equal(merge(parts.contiguous()), x)
    assert torch.equal(split(merge(parts), heads), parts)


def test_split_and_merge_equal_how_torch_cuts_and_joins() -> None:
    x = torch.randn(2, 5, 12, generator=torch.manual_seed(8))
    parts = solution("multi_head/split_heads")(x, 3)
    assert torch.equal(parts, torch.stack(x.tensor_split(3, dim=-1), dim=1))
    heads = torch.randn(2, 3, 5, 4)
    merged = solution("multi_head/merge_heads")(heads)
    assert torch.equal(merged, torch.cat(heads.unbind(1), dim=-1))


def test_split_copies_nothing() -> None:
    x = torch.randn(2, 5, 12)
    assert solution("multi_head/split_heads")(x, 3).data_ptr() == x.data_ptr()


@pytest.mark.parametrize(
    ("length", "d_model", "heads"),
    [(1, 1, 1), (2, 4, 2), (5, 12, 3), (7, 12, 12), (64, 32, 4), (200, 16, 8), (100, 512, 8)],
)
def test_flops_equal_what_torch_counts(length: int, d_model: int, heads: int) -> None:
    """On our module and on torch's own; nothing is computed, for the tensors hold no numbers."""
    expected = solution("multi_head/attention_flops")(length, d_model, heads)
    assert type(expected) is int
    with torch.device("meta"):
        x = torch.empty(1, length, d_model)
        ours = solution("multi_head/MultiHeadAttention")(d_model, heads)
        theirs = nn.MultiheadAttention(d_model, heads, batch_first=True)
    for module in (ours, theirs):
        with FlopCounterMode(display=False) as counter:
            module(x, x, x)
        assert counter.get_total_flops() == expected
