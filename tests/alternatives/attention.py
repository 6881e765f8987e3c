"""Other right ways to write chapter 1."""

import math

import numpy as np
import torch
from torch import nn


def softmax_by_logsumexp(scores, dim=-1):
    return torch.exp(scores - torch.logsumexp(scores, dim, keepdim=True))


def softmax_with_detached_maximum(scores, dim=-1):
    # The result does not depend on the shift, so cutting its gradient changes nothing.
    shift = torch.max(scores, dim, keepdim=True).values.detach()
    powers = (scores - shift).exp()
    return powers.div(powers.sum(dim, True))


def softmax_on_the_last_axis(scores, dim=-1):
    moved = scores.movedim(dim, -1)
    powers = torch.exp(moved - moved.max(-1, keepdim=True)[0])
    return torch.einsum("...i,...->...i", powers, 1 / powers.sum(-1)).movedim(-1, dim)


def softmax_by_pairs(scores, dim=-1):
    # 1 / sum_j exp(s_j - s_i): no maximum needed, since exp may overflow to inf and 1/inf is 0.
    moved = scores.movedim(dim, -1)
    gaps = moved[..., None, :] - moved[..., :, None]
    total = torch.where(torch.isnan(gaps), -math.inf, gaps).clamp(max=80).exp().sum(-1)
    weights = torch.where(torch.isinf(moved), torch.zeros_like(moved), 1 / total.clamp(min=1))
    return weights.movedim(-1, dim)


def softmax_in_float32_for_short_floats(scores, dim=-1):
    wide = scores if scores.dtype == torch.float64 else scores.float()
    powers = torch.exp(wide - wide.max(dim, keepdim=True).values)
    return (powers / powers.sum(dim, keepdim=True)).type_as(scores)


def softmax_by_power_of_e(scores, dim=-1):
    powers = math.e ** (scores - torch.amax(scores, dim, keepdim=True))
    return torch.true_divide(powers, powers.sum(dim).unsqueeze(dim))


def softmax_in_place_on_a_copy(scores, dim=-1):
    result = scores.clone()
    result = result.sub_(scores.amax(dim, keepdim=True))
    result = result.exp()
    return result / result.sum(dim=dim).unsqueeze(dim)


def attention_by_einsum(query, key, value, mask=None):
    scores = torch.einsum("...qd,...kd->...qk", query, key) * query.shape[-1] ** -0.5
    if mask is None:
        mask = torch.ones_like(scores, dtype=torch.bool)
    lowest = torch.finfo(scores.dtype).min
    weights = torch.where(mask, scores, lowest).softmax(-1)
    weights = torch.where(mask, weights, 0.0)
    return torch.einsum("...qk,...kv->...qv", weights, value), weights


def attention_scaling_the_query(query, key, value, mask=None):
    scores = torch.matmul(query / math.sqrt(query.size(-1)), key.mT)
    if mask is not None:
        scores = scores.masked_fill(mask.logical_not(), float("-inf"))
    shift = scores.amax(-1, keepdim=True)
    shift = torch.where(torch.isinf(shift), torch.zeros_like(shift), shift)
    powers = torch.exp(scores - shift.detach())
    total = powers.sum(-1, keepdim=True)
    weights = powers / torch.where(total == 0, torch.ones_like(total), total)
    return weights.matmul(value), weights


def attention_query_by_query(query, key, value, mask=None):
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    shape = (*batch, query.size(-2), key.size(-2))
    allowed = torch.ones(shape, dtype=torch.bool) if mask is None else mask.expand(shape)
    rows = []
    for position in range(query.size(-2)):
        score = (key * query[..., position : position + 1, :]).sum(-1) / math.sqrt(key.size(-1))
        row = allowed[..., position, :]
        weight = torch.softmax(score.masked_fill(~row, -1e30), -1) * row
        rows.append(weight)
    weights = torch.stack(rows, dim=-2)
    return (weights[..., None] * value[..., None, :, :]).sum(-2), weights


def attention_by_addition(query, key, value, mask=None):
    scores = query @ key.transpose(-1, -2)
    scores = scores / torch.tensor(query.shape[-1], dtype=scores.dtype).sqrt()
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=scores.dtype).masked_fill_(~mask, -1e9)
        scores = scores + bias
    weights = scores.softmax(dim=-1)
    if mask is not None:
        weights = weights * mask
    return weights @ value, weights


def attention_with_the_root_as_a_tensor(query, key, value, mask=None):
    d_k = torch.tensor(query.size(-1), dtype=torch.float32)
    scores = torch.matmul(query, key.transpose(-2, -1)) / torch.sqrt(d_k)
    if mask is not None:
        scores = scores.masked_fill(mask == 0, float("-inf"))
    weights = torch.softmax(scores, dim=-1)
    weights = torch.where(torch.isnan(weights), torch.zeros_like(weights), weights)
    return torch.matmul(weights, value), weights


def attention_by_baddbmm(query, key, value, mask=None):
    shape = query.shape[:-2]
    q, k, v = (x.reshape(-1, *x.shape[-2:]) for x in (query, key, value))
    bias = q.new_zeros(()).expand(q.size(0), q.size(1), k.size(1))
    scores = torch.baddbmm(bias, q, k.mT, alpha=q.size(-1) ** -0.5).unflatten(0, shape)
    if mask is not None:
        scores = torch.where(mask, scores, scores.new_full((), -math.inf))
    weights = scores.softmax(-1)
    if mask is not None:
        weights = weights.where(mask, weights.new_zeros(()))
    return (weights.flatten(0, -3) @ v).unflatten(0, shape), weights


def attention_by_logsumexp(query, key, value, mask=None):
    scores = (query.unsqueeze(-2) * key.unsqueeze(-3)).sum(-1).div(math.sqrt(key.size(-1)))
    mask = torch.ones((), dtype=torch.bool) if mask is None else mask
    filled = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = (filled - filled.logsumexp(-1, keepdim=True)).exp() * mask
    return torch.einsum("...ij,...jk->...ik", weights, value), weights


def attention_with_nan_to_num(query, key, value, mask=None):
    scores = query @ key.transpose(-2, -1) / query.size(-1) ** 0.5
    if mask is not None:
        scores = scores.masked_fill(mask == 0, -math.inf)
    weights = torch.nan_to_num(torch.softmax(scores, -1), nan=0.0)
    return [weights @ value, weights]


def padding_mask_by_eq(token_ids, pad_id=0):
    return token_ids.eq(pad_id).logical_not()[:, None]


def padding_mask_by_where(token_ids, pad_id=0):
    batch, length = token_ids.shape
    words = torch.where(token_ids == pad_id, 0, 1).bool()
    return words.view(batch, 1, length)


def padding_mask_by_numpy(token_ids, pad_id=0):
    return torch.from_numpy(np.not_equal(token_ids.numpy(), pad_id))[:, np.newaxis, :]


def causal_mask_by_comparison(length):
    positions = torch.arange(length)
    return positions[None, :] <= positions[:, None]


def causal_mask_by_triu(length):
    return ~torch.triu(torch.ones((length, length), dtype=bool), 1)


def causal_mask_by_loop(length):
    mask = torch.zeros(length, length, dtype=torch.bool)
    for row in range(length):
        mask[row, : row + 1] = True
    return mask


def causal_mask_by_cumsum(length):
    return torch.eye(length).cumsum(dim=0).T.flip(0, 1).T.flip(0, 1) > 0


class AdditiveByExpand(nn.Module):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.v_a = nn.Linear(d_hidden, 1, bias=False)
        self.u_a = nn.Linear(d_key, d_hidden, bias=False)
        self.w_a = nn.Linear(d_query, d_hidden, bias=False)

    def forward(self, query, key, value, mask=None):
        queries, keys = query.size(1), key.size(1)
        a = self.w_a(query).unsqueeze(2).expand(-1, -1, keys, -1)
        b = self.u_a(key).unsqueeze(1).expand(-1, queries, -1, -1)
        scores = self.v_a((a + b).tanh()).squeeze(-1)
        if mask is None:
            mask = torch.ones_like(scores, dtype=torch.bool)
        weights = torch.where(mask, scores, -1e30).softmax(-1).masked_fill(~mask, 0)
        return torch.bmm(weights, value), weights


class AdditiveByLoop(nn.Module):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        for name, width in (("w_a", d_query), ("u_a", d_key)):
            setattr(self, name, nn.Linear(width, d_hidden, bias=False))
        self.v_a = nn.Linear(d_hidden, 1, bias=False)

    def forward(self, query, key, value, mask=None):
        projected = self.u_a(key)
        rows = []
        for q in self.w_a(query).unbind(dim=1):
            rows.append(self.v_a(torch.tanh(projected + q[:, None])).view(key.shape[:2]))
        scores = torch.stack(rows, 1)
        if mask is not None:
            scores = scores.masked_fill(mask.logical_not(), -torch.inf)
        weights = torch.nan_to_num(scores.softmax(2))
        return weights @ value, weights


class AdditiveByParameters(nn.Module):
    """The weights as plain parameters, used with einsum."""

    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()

        def layer(rows, columns):
            return nn.ParameterDict({"weight": nn.Parameter(torch.randn(rows, columns))})

        self.w_a = layer(d_hidden, d_query)
        self.u_a = layer(d_hidden, d_key)
        self.v_a = layer(1, d_hidden)

    def forward(self, query, key, value, mask=None):
        a = torch.einsum("bqi,hi->bqh", query, self.w_a["weight"])
        b = torch.einsum("bki,hi->bkh", key, self.u_a["weight"])
        hidden = torch.tanh(a[:, :, None] + b[:, None])
        scores = torch.einsum("bqkh,oh->bqk", hidden, self.v_a["weight"])
        if mask is not None:
            scores = scores.masked_fill(~mask, -1e9)
        weights = torch.softmax(scores, dim=-1)
        if mask is not None:
            weights = weights * mask
        return torch.einsum("bqk,bkv->bqv", weights, value), weights


ALTERNATIVES = {
    "attention/softmax": [
        softmax_by_logsumexp,
        softmax_with_detached_maximum,
        softmax_on_the_last_axis,
        softmax_by_pairs,
        softmax_in_place_on_a_copy,
        softmax_in_float32_for_short_floats,
        softmax_by_power_of_e,
    ],
    "attention/scaled_dot_product_attention": [
        attention_by_einsum,
        attention_scaling_the_query,
        attention_query_by_query,
        attention_by_addition,
        attention_with_nan_to_num,
        attention_with_the_root_as_a_tensor,
        attention_by_baddbmm,
        attention_by_logsumexp,
    ],
    "attention/padding_mask": [padding_mask_by_eq, padding_mask_by_where, padding_mask_by_numpy],
    "attention/causal_mask": [
        causal_mask_by_comparison,
        causal_mask_by_triu,
        causal_mask_by_loop,
        causal_mask_by_cumsum,
    ],
    "attention/AdditiveAttention": [AdditiveByExpand, AdditiveByLoop, AdditiveByParameters],
}
