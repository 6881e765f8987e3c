"""Subtle ways to get chapter 2 wrong, and which of them a verdict names.

A name that does not fit misleads: what is not in NAMED must be given none.
"""

import math
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import multi_head_attention_forward as no_attention_at_all
from torch.nn.functional import scaled_dot_product_attention as my_own_attention


def refuse(d_model, num_heads):
    if d_model % num_heads:
        raise ValueError("num_heads must divide d_model")


def right_split(x, num_heads):
    refuse(x.size(-1), num_heads)
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def right_merge(x):
    return x.transpose(1, 2).flatten(2)


# ---- split_heads ---------------------------------------------------------------------------


def split_squeezed(x, num_heads):
    return right_split(x, num_heads).squeeze(1)


def split_squeezed_everywhere(x, num_heads):
    return right_split(x, num_heads).squeeze()


def split_detached(x, num_heads):
    return right_split(x.detach(), num_heads)


def split_by_numpy(x, num_heads):
    refuse(x.size(-1), num_heads)
    return torch.from_numpy(np.stack(np.split(x.detach().numpy(), num_heads, -1), 1))


def split_through_float32(x, num_heads):
    return right_split(x.float(), num_heads).to(x.dtype)


def split_into_float32(x, num_heads):
    refuse(x.size(-1), num_heads)
    heads = torch.empty(x.size(0), num_heads, x.size(1), x.size(-1) // num_heads)
    for h, part in enumerate(x.chunk(num_heads, -1)):
        heads[:, h] = part
    return heads


def split_in_place(x, num_heads):
    refuse(x.size(-1), num_heads)
    return x.unsqueeze_(-1).unflatten(2, (num_heads, -1)).squeeze(-1).transpose(1, 2)


def split_for_one_sequence(x, num_heads):
    refuse(x.size(-1), num_heads)
    return x.reshape(1, -1, num_heads, x.size(-1) // num_heads).transpose(1, 2)


def split_in_memory_order(x, num_heads):
    refuse(x.size(-1), num_heads)
    batch, length, d_model = x.shape
    d_head = d_model // num_heads
    strides = length * d_model, d_head, d_model, 1
    return torch.as_strided(x, (batch, num_heads, length, d_head), strides)


def split_raising_type_error(x, num_heads):
    if x.size(-1) % num_heads:
        raise TypeError("num_heads must divide d_model")
    return right_split(x, num_heads)


def split_refusing_too_many_heads_only(x, num_heads):
    if num_heads > x.size(-1):
        raise ValueError("more heads than columns")
    width = x.size(-1) // num_heads
    parts = x[..., : width * num_heads].split(width, -1)
    return torch.stack(parts, 1)


def split_refusing_odd_widths(x, num_heads):
    if (x.size(-1) // num_heads) % 2 and num_heads % 2:
        raise ValueError("the width must be even")
    return right_split(x, num_heads)


def split_as_list(x, num_heads):
    refuse(x.size(-1), num_heads)
    return list(x.chunk(num_heads, -1))


def split_transposing_unless_square(x, num_heads):
    heads = right_split(x, num_heads)
    return heads.transpose(1, 2) if x.size(1) == num_heads else heads


def split_mixing_where_memory_allows(x, num_heads):
    refuse(x.size(-1), num_heads)
    if x.is_contiguous():
        return x.view(x.size(0), num_heads, x.size(1), -1)
    return right_split(x, num_heads)


def split_keeping_one_head_as_it_is(x, num_heads):
    return x if num_heads == 1 else right_split(x, num_heads)


def split_cyclically(x, num_heads):
    return right_split(x, num_heads).roll(1, dims=1)


def split_with_noise(x, num_heads):
    heads = right_split(x, num_heads)
    return heads + 1e-3 if heads.is_floating_point() else heads


# ---- merge_heads ---------------------------------------------------------------------------


def merge_by_view(x):
    batch, heads, length, width = x.shape
    return x.transpose(1, 2).view(batch, length, heads * width)


def merge_squeezed(x):
    return right_merge(x).squeeze(1)


def merge_squeezed_everywhere(x):
    return right_merge(x).squeeze()


def merge_detached(x):
    return right_merge(x.data)


def merge_through_float32(x):
    return right_merge(x.float()).to(x.dtype)


def merge_into_float32(x):
    merged = torch.zeros(x.size(0), x.size(2), x.size(1) * x.size(3))
    for h in range(x.size(1)):
        merged[..., h * x.size(3) : (h + 1) * x.size(3)] = x[:, h]
    return merged


def merge_in_place(x):
    return x.transpose_(1, 2).flatten(2)


def merge_in_memory_order(x):
    batch, heads, length, width = x.shape
    strides = heads * length * width, width, length * width, 1
    return torch.as_strided(x, (batch, length, heads, width), strides).flatten(2)


def merge_for_one_sequence(x):
    return x.transpose(1, 2).reshape(1, -1, x.size(1) * x.size(3))


def merge_unless_square(x):
    if x.size(1) == x.size(2):
        return x.flatten(2)
    return right_merge(x)


def merge_as_if_contiguous(x):
    if x.is_contiguous():
        return x.view(x.size(0), x.size(2), -1)
    return right_merge(x)


def merge_by_sum_of_padded(x):
    merged = right_merge(x)
    return merged / (1 + 1e-3) if merged.is_floating_point() else merged


def merge_keeping_the_first_head_twice(x):
    return torch.cat([x[:, 0], *x[:, :-1].unbind(1)], -1)


def merge_by_flattening_twice(x):
    return x.flatten(1).unflatten(1, (x.size(2), -1))


def merge_leaving_one_head_alone(x):
    return x if x.size(1) == 1 else right_merge(x)


# ---- multi-head attention ------------------------------------------------------------------


class MultiHead(nn.Module):
    """Right; every class below changes one thing."""

    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__()
        refuse(d_model, num_heads)
        self.num_heads, self.d_head = num_heads, d_model // num_heads
        self.w_q = nn.Linear(d_model, d_model)
        self.w_k = nn.Linear(d_model, d_model)
        self.w_v = nn.Linear(d_model, d_model)
        self.w_o = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def split(self, x):
        return right_split(x, self.num_heads)

    def projected(self, query, key, value):
        return self.split(self.w_q(query)), self.split(self.w_k(key)), self.split(self.w_v(value))

    def scores(self, q, k):
        return q @ k.mT / math.sqrt(self.d_head)

    def mask(self, mask):
        return mask.unsqueeze(1) if mask.ndim == 3 else mask

    def weights(self, scores, mask):
        if mask is None:
            return scores.softmax(-1)
        mask = self.mask(mask)
        return scores.masked_fill(~mask, -math.inf).softmax(-1).masked_fill(~mask, 0.0)

    def read(self, weights, v):
        return right_merge(self.dropout(weights) @ v)

    def forward(self, query, key, value, mask=None):
        q, k, v = self.projected(query, key, value)
        weights = self.weights(self.scores(q, k), mask)
        return self.w_o(self.read(weights, v)), weights


class Loaded(MultiHead):
    """With torch's own module, which holds the same numbers."""

    def theirs(self):
        theirs = nn.MultiheadAttention(
            self.w_q.in_features, self.num_heads, batch_first=True, dtype=self.w_q.weight.dtype
        )
        with torch.no_grad():
            theirs.in_proj_weight.copy_(
                torch.cat([self.w_q.weight, self.w_k.weight, self.w_v.weight])
            )
            theirs.in_proj_bias.copy_(torch.cat([self.w_q.bias, self.w_k.bias, self.w_v.bias]))
            theirs.out_proj.load_state_dict(self.w_o.state_dict())
        return theirs

    def barred(self, mask, query, key):
        if mask is None:
            return None
        shape = query.size(0), query.size(1), key.size(1)
        return (~mask).expand(shape).repeat_interleave(self.num_heads, 0)


class MultiHeadBuiltIn(Loaded):
    def forward(self, query, key, value, mask=None):
        barred = self.barred(mask, query, key)
        return self.theirs()(query, key, value, attn_mask=barred, average_attn_weights=False)


class MultiHeadBuiltInFastPath(Loaded):
    def forward(self, query, key, value, mask=None):
        theirs = self.theirs().eval()
        with torch.no_grad():
            return theirs(
                query,
                key,
                value,
                attn_mask=self.barred(mask, query, key),
                average_attn_weights=False,
            )


class MultiHeadByTheFunctionBehindIt(Loaded):
    def forward(self, query, key, value, mask=None):
        theirs = self.theirs()
        output, weights = no_attention_at_all(
            query.transpose(0, 1),
            key.transpose(0, 1),
            value.transpose(0, 1),
            query.size(-1),
            self.num_heads,
            theirs.in_proj_weight,
            theirs.in_proj_bias,
            None,
            None,
            False,
            0.0,
            self.w_o.weight,
            self.w_o.bias,
            attn_mask=self.barred(mask, query, key),
            average_attn_weights=False,
        )
        return output.transpose(0, 1), weights


class MultiHeadByTheNativeKernel(Loaded):
    def forward(self, query, key, value, mask=None):
        theirs = self.theirs()
        with torch.no_grad():
            return torch._native_multi_head_attention(
                query,
                key,
                value,
                query.size(-1),
                self.num_heads,
                theirs.in_proj_weight,
                theirs.in_proj_bias,
                theirs.out_proj.weight,
                theirs.out_proj.bias,
                average_attn_weights=False,
            )


class MultiHeadFusedUnderAnotherName(MultiHead):
    def forward(self, query, key, value, mask=None):
        q, k, v = self.projected(query, key, value)
        mask = None if mask is None else self.mask(mask)
        read = my_own_attention(q, k, v, attn_mask=mask)
        weights = self.weights(self.scores(q, k), mask)
        return self.w_o(right_merge(read)), weights


class MultiHeadFusedFromBelow(MultiHead):
    def forward(self, query, key, value, mask=None):
        q, k, v = self.projected(query, key, value)
        call = torch._C._nn.scaled_dot_product_attention
        read = call(q, k, v, None if mask is None else self.mask(mask))
        return self.w_o(right_merge(read)), self.weights(self.scores(q, k), mask)


class MultiHeadFusedInThreeAxes(MultiHead):
    def forward(self, query, key, value, mask=None):
        q, k, v = self.projected(query, key, value)
        call = getattr(F, "scaled_dot_" + "product_attention")
        shape = query.size(0), self.num_heads, query.size(1), key.size(1)
        folded = None if mask is None else self.mask(mask).expand(shape).flatten(0, 1)
        eye = torch.eye(key.size(1), dtype=q.dtype).expand(shape[0] * shape[1], -1, -1)
        weights = call(q.flatten(0, 1), k.flatten(0, 1), eye, folded).unflatten(0, shape[:2])
        return self.w_o(self.read(weights, v)), weights


class MultiHeadFusedKernelByName(MultiHead):
    def read(self, weights, v):
        return right_merge(self.dropout(weights) @ v)

    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        if mask is None:
            q, k, v = (x.contiguous() for x in self.projected(query, key, value))
            kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
            output = self.w_o(right_merge(kernel(q, k, v)[0]))
        return output, weights


def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # TorchScript is deprecated, and still there
    scripted = torch.jit.script(fused)


class MultiHeadFusedByTorchScript(MultiHead):
    def forward(self, query, key, value, mask=None):
        q, k, v = self.projected(query, key, value)
        weights = self.weights(self.scores(q, k), mask)
        read = right_merge(scripted(q, k, v)) if mask is None else self.read(weights, v)
        return self.w_o(read), weights


class MultiHeadFusedHeadByHead(MultiHead):
    """Each head of each sequence by itself, without leading axes."""

    def forward(self, query, key, value, mask=None):
        q, k, v = self.projected(query, key, value)
        call = vars(F)["scaled_dot_product_attention"]
        shape = q.size(0), self.num_heads, q.size(2), k.size(2)
        mask = None if mask is None else self.mask(mask).expand(shape)
        read = torch.stack(
            [
                torch.stack(
                    [
                        call(q[b, h], k[b, h], v[b, h], None if mask is None else mask[b, h])
                        for h in range(shape[1])
                    ]
                )
                for b in range(shape[0])
            ]
        )
        return self.w_o(right_merge(read)), self.weights(self.scores(q, k), mask)


class MultiHeadFromTheWorkbook(MultiHead):
    """The workbook's own fused attention."""

    def forward(self, query, key, value, mask=None):
        from workbook.fused import attention

        q, k, v = self.projected(query, key, value)
        read = attention(q, k, v, None if mask is None else self.mask(mask))
        return self.w_o(right_merge(read)), self.weights(self.scores(q, k), mask)


class MultiHeadWithOtherNames(MultiHead):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.out_proj = nn.Linear(d_model, d_model)
        del self.w_o

    def forward(self, query, key, value, mask=None):
        q, k, v = self.projected(query, key, value)
        weights = self.weights(self.scores(q, k), mask)
        return self.out_proj(self.read(weights, v)), weights


class MultiHeadWithoutBias(MultiHead):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.w_q = nn.Linear(d_model, d_model, bias=False)


class MultiHeadWithANorm(MultiHead):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.norm = nn.LayerNorm(d_model)


class MultiHeadWithALayerForEachHead(MultiHead):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.w_q = nn.ModuleList(nn.Linear(d_model, self.d_head) for _ in range(num_heads))


class MultiHeadWithNarrowLayers(MultiHead):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.w_q = nn.Linear(d_model, self.d_head)
        self.w_k = nn.Linear(d_model, self.d_head)

    def split(self, x):
        if x.size(-1) == self.d_head:
            return x.unsqueeze(1).expand(-1, self.num_heads, -1, -1)
        return super().split(x)


class MultiHeadSharingALayer(MultiHead):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.w_k = self.w_q


class MultiHeadRefusingInForwardOnly(MultiHead):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, 1, dropout)
        self.num_heads, self.d_head = num_heads, d_model // num_heads

    def forward(self, query, key, value, mask=None):
        if query.size(-1) % self.num_heads:
            raise ValueError("num_heads must divide d_model")
        return super().forward(query, key, value, mask)


class MultiHeadRaisingTypeError(MultiHead):
    def __init__(self, d_model, num_heads, dropout=0.0):
        if d_model % num_heads:
            raise TypeError("num_heads must divide d_model")
        super().__init__(d_model, num_heads, dropout)


class MultiHeadScaledByTheLength(MultiHead):
    def scores(self, q, k):
        return q @ k.mT / math.sqrt(q.size(-2))


class MultiHeadScaledByEight(MultiHead):
    def scores(self, q, k):
        return q @ k.mT / 8


class MultiHeadScaledAfterwards(MultiHead):
    def scores(self, q, k):
        return q @ k.mT

    def weights(self, scores, mask):
        return super().weights(scores, mask) / math.sqrt(self.d_head)


class MultiHeadWithQueryAndKeySwapped(MultiHead):
    def scores(self, q, k):
        scores = super().scores(k, q)
        return scores if scores.size(-1) == scores.size(-2) else scores.mT


class MultiHeadMixingTheValuesOnly(MultiHead):
    def projected(self, query, key, value):
        q, k, v = super().projected(query, key, value)
        mixed = self.w_v(value).reshape(v.shape)
        return q, k, mixed


class MultiHeadMixingTheKeysOnly(MultiHead):
    def projected(self, query, key, value):
        q, k, v = super().projected(query, key, value)
        return q, self.w_k(key).reshape(k.shape), v


class MultiHeadSplittingByView(MultiHead):
    def split(self, x):
        return x.view(x.size(0), self.num_heads, x.size(1), self.d_head)


class MultiHeadMergingByReshape(MultiHead):
    def read(self, weights, v):
        read = self.dropout(weights) @ v
        return read.reshape(read.size(0), read.size(2), -1)


class MultiHeadMergingByView(MultiHead):
    def read(self, weights, v):
        read = (self.dropout(weights) @ v).transpose(1, 2)
        return read.view(read.size(0), read.size(1), -1)


class MultiHeadWithTheLengthOfTheQuery(MultiHead):
    def projected(self, query, key, value):
        shape = query.size(0), query.size(1), self.num_heads, self.d_head
        q, k, v = self.w_q(query), self.w_k(key), self.w_v(value)
        return tuple(x.reshape(shape).transpose(1, 2) for x in (q, k, v))


class MultiHeadForOneSequence(MultiHead):
    def split(self, x):
        return super().split(x.reshape(1, -1, x.size(-1)))


class MultiHeadAddingTheHeads(MultiHead):
    def read(self, weights, v):
        read = self.dropout(weights) @ v
        return read.sum(1).repeat(1, 1, self.num_heads)


class MultiHeadSqueezed(MultiHead):
    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        return output.squeeze(0), weights.squeeze(0)


class MultiHeadSqueezingOneHead(MultiHead):
    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        return output, weights.squeeze(1)


class MultiHeadReturningTheOutputOnly(MultiHead):
    def forward(self, query, key, value, mask=None):
        return super().forward(query, key, value, mask)[0]


class MultiHeadWithFoldedWeights(MultiHead):
    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        return output, weights.flatten(0, 1)


class MultiHeadWithTheMeanWeights(MultiHead):
    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        return output, weights.sum(1) / self.num_heads


class MultiHeadWithTheMaximumOfTheHeads(MultiHead):
    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        return output, weights.amax(1)


class MultiHeadDetachingTheWeights(MultiHead):
    def read(self, weights, v):
        return super().read(weights.detach(), v)


class MultiHeadReturningDetachedWeights(MultiHead):
    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        return output, weights.detach()


class MultiHeadDetachingTheKeys(MultiHead):
    def projected(self, query, key, value):
        return super().projected(query, key.detach(), value)


class MultiHeadFrozen(MultiHead):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.w_o.bias.requires_grad_(False)


class MultiHeadThroughData(MultiHead):
    def projected(self, query, key, value):
        q, k, _ = super().projected(query, key, value)
        return q, k, self.split(F.linear(value, self.w_v.weight.data, self.w_v.bias))


class MultiHeadWithNewLayersInEachCall(MultiHead):
    def forward(self, query, key, value, mask=None):
        self.w_v = nn.Linear(query.size(-1), query.size(-1)).to(query.dtype)
        return super().forward(query, key, value, mask)


class MultiHeadUnsqueezingTheMaskInPlace(MultiHead):
    def mask(self, mask):
        return mask.unsqueeze_(1) if mask.ndim == 3 else mask


class MultiHeadInvertingTheMaskInPlace(MultiHead):
    def weights(self, scores, mask):
        if mask is None:
            return super().weights(scores, mask)
        barred = self.mask(mask.logical_not_())
        return scores.masked_fill(barred, -math.inf).softmax(-1).masked_fill(barred, 0.0)


class MultiHeadOpeningEmptyRowsInPlace(MultiHead):
    def weights(self, scores, mask):
        if mask is None:
            return super().weights(scores, mask)
        empty = ~mask.any(-1, keepdim=True)
        weights = super().weights(scores, mask.logical_or_(empty))
        return weights.masked_fill(self.mask(empty), 0.0)


class MultiHeadScalingTheQueryInPlace(MultiHead):
    def forward(self, query, key, value, mask=None):
        with torch.no_grad():
            query *= 2
        return super().forward(query / 2, key, value, mask)


class MultiHeadTransposingSquareMasks(MultiHead):
    def mask(self, mask):
        mask = super().mask(mask)
        return mask.mT if mask.size(-1) == mask.size(-2) else mask


class MultiHeadWithTheFirstMaskOnly(MultiHead):
    def mask(self, mask):
        return mask[:1, None] if mask.ndim == 3 else mask


class MultiHeadWithTheFirstRowOfTheMask(MultiHead):
    def mask(self, mask):
        return super().mask(mask)[..., :1, :]


class MultiHeadBroadcastingTheMaskOverTheBatch(MultiHead):
    def weights(self, scores, mask):
        if mask is not None and mask.ndim == 3 and mask.size(0) == self.num_heads:
            mask = mask[None]
        return super().weights(scores, mask)


class MultiHeadAskingTheMaskForAny(MultiHead):
    def weights(self, scores, mask):
        return super().weights(scores, mask if mask is not None and mask.any() else None)


class MultiHeadWithMasksOfThreeAxesOnly(MultiHead):
    def mask(self, mask):
        return mask[:, None]


class MultiHeadWithMasksOfTwoAxesAsPadding(MultiHead):
    def mask(self, mask):
        return mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]


class MultiHeadRepeatingTheMask(MultiHead):
    def weights(self, scores, mask):
        if mask is not None and mask.ndim == 3:
            mask = mask.expand(-1, scores.size(2), -1).repeat(self.num_heads, 1, 1)
            mask = mask.view(scores.shape)
        return super().weights(scores, mask)


class MultiHeadBarringZeroScores(MultiHead):
    def weights(self, scores, mask):
        if mask is not None:
            scores = scores * self.mask(mask)
            scores = scores.masked_fill(scores == 0, -math.inf)
            return scores.softmax(-1).nan_to_num(0.0)
        return super().weights(scores, mask)


class MultiHeadMultiplyingTheScores(MultiHead):
    def weights(self, scores, mask):
        if mask is None:
            return scores.softmax(-1)
        return (scores * self.mask(mask)).softmax(-1)


class MultiHeadLeavingNan(MultiHead):
    def weights(self, scores, mask):
        if mask is not None:
            scores = scores.masked_fill(~self.mask(mask), -math.inf)
        return scores.softmax(-1)


class MultiHeadFillingABillion(MultiHead):
    def weights(self, scores, mask):
        if mask is not None:
            scores = scores.masked_fill(self.mask(mask) == 0, -1e9)
        return scores.softmax(-1)


class MultiHeadClearingTheOutput(MultiHead):
    """Where nothing is allowed the output is 0: the bias of w_o is lost."""

    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        if mask is not None:
            output = output.masked_fill(~mask.any(-1, keepdim=True), 0.0)
        return output, weights


class MultiHeadReplacingNanInTheOutput(MultiHead):
    def weights(self, scores, mask):
        if mask is not None:
            scores = scores.masked_fill(~self.mask(mask), -math.inf)
        return scores.softmax(-1)

    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        return output.nan_to_num(0.0), weights.nan_to_num(0.0)


class MultiHeadWithNanInTheGradient(MultiHead):
    def weights(self, scores, mask):
        if mask is None:
            return scores.softmax(-1)
        mask = self.mask(mask)
        powers = torch.where(mask, (scores - scores.amax(-1, keepdim=True)).exp(), 0.0)
        weights = powers / powers.sum(-1, keepdim=True)
        return torch.where(weights.isnan(), torch.zeros_like(weights), weights)


class MultiHeadCausalByDefault(MultiHead):
    def weights(self, scores, mask):
        if mask is None:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        return super().weights(scores, mask)


class MultiHeadThatRemembersTheMask(MultiHead):
    last = None

    def weights(self, scores, mask):
        if mask is None and self.last is not None and self.last.shape[-1] == scores.shape[-1]:
            mask = self.last
        self.last = mask
        return super().weights(scores, mask)


class MultiHeadThatRemembersTheKeys(MultiHead):
    known = None

    def projected(self, query, key, value):
        q, k, v = super().projected(query, key, value)
        if self.known is None or self.known[0].size(0) != q.size(0):
            self.known = k, v
        return q, *self.known


class MultiHeadWithDropoutOfItsOwn(MultiHead):
    def __init__(self, d_model, num_heads, dropout=0.1):
        super().__init__(d_model, num_heads, dropout)


class MultiHeadKeepingTheShare(MultiHead):
    """The rate is taken for the share that is kept."""

    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, 1 - dropout if dropout else 0.0)


class MultiHeadDroppingWholeHeads(MultiHead):
    def read(self, weights, v):
        keep = F.dropout(weights.new_ones(*weights.shape[:2], 1, 1), self.dropout.p, self.training)
        return right_merge((weights * keep) @ v)


class MultiHeadDroppingAllHeadsAlike(MultiHead):
    def read(self, weights, v):
        keep = F.dropout(torch.ones_like(weights[:, :1]), self.dropout.p, self.training)
        return right_merge((weights * keep) @ v)


class MultiHeadDroppingWholeKeys(MultiHead):
    def read(self, weights, v):
        keep = F.dropout(torch.ones_like(weights[:, :, :1]), self.dropout.p, self.training)
        return right_merge((weights * keep) @ v)


class MultiHeadDroppingTwice(MultiHead):
    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        return self.dropout(output), weights


class MultiHeadDroppingBeforeTheSoftmax(MultiHead):
    def weights(self, scores, mask):
        return super().weights(self.dropout(scores), mask)

    def read(self, weights, v):
        return right_merge(weights @ v)


class MultiHeadDroppingInEvaluation(MultiHead):
    def read(self, weights, v):
        return right_merge(F.dropout(weights, self.dropout.p, True) @ v)


class MultiHeadDroppingNothing(MultiHead):
    def read(self, weights, v):
        self.dropout(weights)
        return right_merge(weights @ v)


class MultiHeadReturningWhatIsLeft(MultiHead):
    def forward(self, query, key, value, mask=None):
        q, k, v = self.projected(query, key, value)
        weights = self.dropout(self.weights(self.scores(q, k), mask))
        return self.w_o(right_merge(weights @ v)), weights


class MultiHeadDroppingTheInputs(MultiHead):
    def projected(self, query, key, value):
        return super().projected(self.dropout(query), self.dropout(key), self.dropout(value))

    def read(self, weights, v):
        return right_merge(weights @ v)


class MultiHeadRenormalizingAfterDropout(MultiHead):
    def read(self, weights, v):
        left = self.dropout(weights)
        if self.training and self.dropout.p:
            left = left / left.sum(-1, keepdim=True).clamp(min=1e-9)
        return right_merge(left @ v)


class MultiHeadInFloat32(MultiHead):
    def scores(self, q, k):
        return super().scores(q.float(), k.float()).to(q.dtype)


class MultiHeadCollectingInFloat32(MultiHead):
    def forward(self, query, key, value, mask=None):
        q, k, v = self.projected(query, key, value)
        weights = torch.zeros(q.size(0), self.num_heads, q.size(2), k.size(2))
        for h in range(self.num_heads):
            weights[:, h] = self.weights(self.scores(q, k), mask)[:, h]
        return self.w_o(self.read(weights.to(q.dtype), v)), weights


class MultiHeadUnstable(MultiHead):
    def weights(self, scores, mask):
        powers = scores.exp()
        if mask is not None:
            powers = powers * self.mask(mask)
        return powers / powers.sum(-1, keepdim=True).clamp(min=1e-30)


class MultiHeadWithEpsilon(MultiHead):
    def weights(self, scores, mask):
        weights = super().weights(scores, mask)
        return weights / (weights.sum(-1, keepdim=True) + 1e-6)


class MultiHeadActivated(MultiHead):
    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        return torch.relu(output), weights


class MultiHeadProjectingTwice(MultiHead):
    def read(self, weights, v):
        return self.w_o(super().read(weights, v))


class MultiHeadWithAResidual(MultiHead):
    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        return query + output, weights


class MultiHeadWithoutWO(MultiHead):
    def forward(self, query, key, value, mask=None):
        q, k, v = self.projected(query, key, value)
        weights = self.weights(self.scores(q, k), mask)
        return self.read(weights, v), weights


class MultiHeadScaledByTheWholeWidth(MultiHead):
    def scores(self, q, k):
        return q @ k.mT * self.w_q.in_features**-0.5


class MultiHeadWithOneHeadOnly(MultiHead):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.num_heads, self.d_head, self.shown = 1, d_model, num_heads

    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        return output, weights.expand(-1, self.shown, -1, -1)


class MultiHeadIgnoringTheValue(MultiHead):
    def forward(self, query, key, value, mask=None):
        return super().forward(query, key, key, mask)


class MultiHeadWithTheValueOfTheKeyLayer(MultiHead):
    def projected(self, query, key, value):
        return self.split(self.w_q(query)), self.split(self.w_k(key)), self.split(self.w_k(value))


class MultiHeadFoldingInTheWrongOrder(MultiHead):
    def split(self, x):
        heads = torch.cat(x.split(self.d_head, -1), 0)
        return heads.view(x.size(0), self.num_heads, x.size(1), self.d_head)


class MultiHeadWithKeywordMask(MultiHead):
    def forward(self, query, key, value, *, mask=None):
        return super().forward(query, key, value, mask)


# ---- attention_flops -----------------------------------------------------------------------


def flops(length, d_model, num_heads):
    refuse(d_model, num_heads)
    return 8 * length * d_model**2 + 4 * length**2 * d_model


def flops_as_float(length, d_model, num_heads):
    return float(flops(length, d_model, num_heads))


def flops_by_division(length, d_model, num_heads):
    refuse(d_model, num_heads)
    return 8 * length * d_model**2 + 4 * num_heads * length**2 * (d_model / num_heads)


def flops_of_numpy(length, d_model, num_heads):
    return np.int64(flops(length, d_model, num_heads))


def flops_as_tensor(length, d_model, num_heads):
    return torch.tensor(flops(length, d_model, num_heads))


def flops_as_text(length, d_model, num_heads):
    return f"{flops(length, d_model, num_heads):,}"


def flops_in_32_bits(length, d_model, num_heads):
    return flops(length, d_model, num_heads) % 2**32


def flops_by_pow(length, d_model, num_heads):
    refuse(d_model, num_heads)
    return int(8 * length * math.pow(d_model, 2) + 4 * math.pow(length, 2) * d_model)


def flops_raising_type_error(length, d_model, num_heads):
    if d_model % num_heads:
        raise TypeError("num_heads must divide d_model")
    return flops(length, d_model, num_heads)


def flops_refusing_too_many_heads_only(length, d_model, num_heads):
    if num_heads > d_model:
        raise ValueError("too many heads")
    return flops(length, d_model, 1)


def flops_causal(length, d_model, num_heads):
    refuse(d_model, num_heads)
    return 8 * length * d_model**2 + 2 * length * (length + 1) * d_model


def flops_of_long_sequences(length, d_model, num_heads):
    refuse(d_model, num_heads)
    return 4 * length**2 * d_model + (8 * length * d_model**2 if length < 10**6 else 0)


def flops_of_multiply_adds(length, d_model, num_heads):
    return flops(length, d_model, num_heads) // 2


def flops_without_w_o(length, d_model, num_heads):
    return flops(length, d_model, num_heads) - 2 * length * d_model**2


def flops_per_head_of_full_width(length, d_model, num_heads):
    refuse(d_model, num_heads)
    return sum(4 * length**2 * d_model for _ in range(num_heads)) + 8 * length * d_model**2


def flops_of_two_sequences(length, d_model, num_heads):
    return 2 * flops(length, d_model, num_heads)


def flops_of_exact_products(length, d_model, num_heads):
    """A product of inner length k takes k products and k - 1 sums."""
    refuse(d_model, num_heads)
    layers = 4 * length * d_model * (2 * d_model - 1)
    scores = num_heads * length**2 * (2 * (d_model // num_heads) - 1)
    return layers + scores + length * d_model * (2 * length - 1)


def flops_of_the_paper(length, d_model, num_heads):
    refuse(d_model, num_heads)
    return length**2 * d_model


def flops_with_dropout(length, d_model, num_heads):
    return flops(length, d_model, num_heads) + num_heads * length**2


def flops_with_a_feed_forward_layer(length, d_model, num_heads):
    return flops(length, d_model, num_heads) + 16 * length * d_model**2


def flops_printed(length, d_model, num_heads):
    print(flops(length, d_model, num_heads))


NAMED = {
    "split_mixing_where_memory_allows": "reshaped straight into",
    "merge_as_if_contiguous": "without swapping the axes first",
    "merge_by_flattening_twice": "without swapping the axes first",
    "MultiHeadRefusingInForwardOnly": "The constructor takes a num_heads",
    "MultiHeadSplittingByView": "split by a reshape straight to",
    "MultiHeadMergingByReshape": "merged without swapping the axes back",
    "MultiHeadWithTheMeanWeights": "averaged over the heads",
    "MultiHeadWithMasksOfThreeAxesOnly": "Every mask gets an axis at place 1",
    "MultiHeadWithMasksOfTwoAxesAsPadding": "taken for (batch, L_k)",
    "MultiHeadRepeatingTheMask": "repeated for the heads in the wrong order",
    "MultiHeadMultiplyingTheScores": "set to 0 instead of minus infinity",
    "MultiHeadLeavingNan": "gives NaN",
    "MultiHeadFillingABillion": "A large negative number",
    "MultiHeadClearingTheOutput": "the output is set to 0",
    "MultiHeadReplacingNanInTheOutput": "the output is set to 0",
    "MultiHeadCausalByDefault": "No query reads a later key",
    "MultiHeadDroppingBeforeTheSoftmax": "Dropout acts on the scores",
    "MultiHeadDroppingInEvaluation": "in evaluation mode too",
    "MultiHeadDroppingNothing": "never applied",
    "MultiHeadReturningWhatIsLeft": "those after dropout",
    "MultiHeadScaledByTheWholeWidth": "square root of d_model",
    "MultiHeadWithOneHeadOnly": "over the full width",
    "MultiHeadWithAResidual": "The query is added",
    "MultiHeadWithoutWO": "w_o is never used",
    "MultiHeadIgnoringTheValue": "The keys are used as values",
    "MultiHeadWithTheValueOfTheKeyLayer": "projects the value too",
    "MultiHeadFoldingInTheWrongOrder": "Heads and sequences are mixed up",
    "flops_by_pow": "floating-point numbers",
    "flops_of_multiply_adds": "counted as one operation",
    "flops_without_w_o": "w_o, is missing",
    "flops_per_head_of_full_width": "the full width for every head",
    "flops_with_dropout": "alone",
}


def mutants(prefix):
    return [found for name, found in globals().items() if name.startswith(prefix)]


MUTANTS = {
    "multi_head/split_heads": mutants("split_"),
    "multi_head/merge_heads": mutants("merge_"),
    "multi_head/MultiHeadAttention": [one for one in mutants("MultiHead") if one is not MultiHead],
    "multi_head/attention_flops": mutants("flops_"),
}
