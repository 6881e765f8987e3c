"""Attention on fused kernels computes what the learner's own does, under the same names."""

import copy

import pytest
import torch
from torch import nn

from workbook.fused import attention, fuse
from workbook.ready.attention import causal_mask, padding_mask, scaled_dot_product_attention
from workbook.ready.gpt import GPT
from workbook.ready.multi_head import MultiHeadAttention


class Reader(nn.Module):
    """A model with attention somewhere inside."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"self_attn": MultiHeadAttention(16, 4)})

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.parts["self_attn"](x, x, x, mask)[0]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["none", "padding", "causal", "a row without keys"])
def test_one_kernel_gives_what_chapter_1_gives(kind: str) -> None:
    generator = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(2, 3, 5, 8, generator=generator) for _ in range(3))
    mask = None if kind == "none" else torch.ones(5, 5, dtype=torch.bool)
    if kind == "padding":
        mask[:, 3:] = False
    elif kind == "causal":
        mask = causal_mask(5)
    elif kind == "a row without keys":
        mask[2] = False
    expected, _ = scaled_dot_product_attention(q, k, v, mask)
    torch.testing.assert_close(attention(q, k, v, mask), expected)


def test_told_that_it_is_causal_the_kernel_needs_no_mask() -> None:
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 3, 5, 8, generator=generator) for _ in range(3))
    torch.testing.assert_close(attention(q, k, v, causal=True), attention(q, k, v, causal_mask(5)))


def test_fused_model_keeps_parameters_and_outputs(x: torch.Tensor) -> None:
    own = Reader().eval()
    fused = fuse(copy.deepcopy(own), 4)
    assert fused.state_dict().keys() == own.state_dict().keys()
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]])
    for mask in (None, padding_mask(tokens), causal_mask(7)):
        torch.testing.assert_close(fused(x, mask), own(x, mask))


def test_causal_is_barred_from_the_future_whatever_mask_it_is_handed(x: torch.Tensor) -> None:
    own = Reader().eval()
    fused = fuse(copy.deepcopy(own), 4, causal=True)
    for mask in (None, causal_mask(7), causal_mask(7).expand(3, 7, 7)):
        torch.testing.assert_close(fused(x, mask), own(x, causal_mask(7)))


def test_a_gpt_trains_alike_on_either_kernel() -> None:
    torch.manual_seed(4)
    own = GPT(20, 9, 16, 2, 4)
    fused = fuse(copy.deepcopy(own), 4, causal=True)
    ids = torch.randint(20, (2, 9), generator=torch.Generator().manual_seed(5))
    for model in (own, fused):
        model(ids).square().mean().backward()
    for (name, theirs), (_, ours) in zip(
        own.named_parameters(), fused.named_parameters(), strict=True
    ):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


def test_dropout_acts_in_training_mode_only(x: torch.Tensor) -> None:
    fused = fuse(Reader(), 4, dropout=0.5, causal=True)
    assert not torch.equal(fused(x), fused(x))
    fused.eval()
    assert torch.equal(fused(x), fused(x))


def test_a_model_without_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="w_q, w_k, w_v, w_o"):
        fuse(nn.Linear(2, 2), 1)
