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


def softmax_by_log_weights(scores, dim=-1):
    shift = scores.amax(dim, keepdim=True)
    return torch.exp(scores - shift - torch.log(torch.sum(torch.exp(scores - shift), dim, True)))


def softmax_by_sorting(scores, dim=-1):
    largest = torch.sort(scores, dim=dim, descending=True).values.select(dim, 0).unsqueeze(dim)
    powers = (scores - largest).exp()
    return powers * powers.sum(dim, keepdim=True).reciprocal()


def softmax_slice_by_slice(scores, dim=-1):
    last = scores.transpose(dim, -1)
    rows = []
    for row in last.reshape(-1, last.size(-1)):
        powers = (row - max(row.tolist())).exp()
        rows.append(powers / sum(powers))
    return torch.stack(rows).view(last.shape).transpose(dim, -1)


def softmax_in_float64(scores, dim=-1):
    wide = scores.double()
    powers = wide.sub(wide.amax(dim, keepdim=True)).exp()
    return (powers / powers.sum(dim, keepdim=True)).to(scores.dtype)


def softmax_by_named_maximum(scores, dim=-1):
    largest, _ = scores.max(dim=dim, keepdim=True)
    powers = torch.exp(torch.subtract(scores, largest.expand_as(scores)))
    return torch.nn.functional.normalize(powers, p=1, dim=dim)


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
    scores = torch.baddbmm(bias, q, k.mT, alpha=q.size(-1) ** -0.5)
    scores = scores.view(*shape, *scores.shape[1:])
    if mask is not None:
        scores = torch.where(mask, scores, scores.new_full((), -math.inf))
    weights = scores.softmax(-1)
    if mask is not None:
        weights = weights.where(mask, weights.new_zeros(()))
    output = weights.reshape(-1, *weights.shape[-2:]) @ v
    return output.view(*shape, *output.shape[1:]), weights


def attention_in_place_on_its_own_tensors(query, key, value, mask=None):
    scores = torch.matmul(query, key.transpose(-1, -2))
    scores /= math.sqrt(query.shape[-1])
    if mask is not None:
        scores.masked_fill_(mask.logical_not(), -math.inf)
    weights = scores.softmax(-1)
    if mask is not None:
        weights = weights.clone().masked_fill_(~mask, 0)
    return weights @ value, weights


def attention_in_float64(query, key, value, mask=None):
    wide = [x.double() for x in (query, key, value)]
    output, weights = attention_by_einsum(*wide, mask)
    return output.to(query.dtype), weights.to(query.dtype)


def attention_with_its_own_softmax(query, key, value, mask=None):
    scores = query @ key.mT * (1 / query.size(-1) ** 0.5)
    allowed = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    scores = torch.where(allowed, scores, -math.inf)
    shift = scores.amax(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    powers = (scores - shift).exp()
    weights = powers / powers.sum(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
    return weights @ value, weights


def attention_scaling_both_by_the_fourth_root(query, key, value, mask=None):
    root = query.size(-1) ** 0.25
    scores = (query / root) @ (key / root).transpose(-2, -1)
    if mask is None:
        weights = torch.softmax(scores, dim=-1)
    else:
        empty = ~mask.any(dim=-1, keepdim=True)
        # Open what is wholly barred, so that no NaN comes up, and close it afterwards.
        weights = torch.softmax(scores.masked_fill(~(mask | empty), -math.inf), dim=-1)
        weights = torch.where(mask, weights, torch.zeros_like(weights))
    return weights.matmul(value), weights


def attention_with_keys_first(query, key, value, mask=None):
    scores = (key @ query.mT / math.sqrt(key.size(-1))).mT
    if mask is not None:
        scores = scores.masked_fill(mask.eq(False), -math.inf)
    weights = scores.softmax(dim=scores.ndim - 1)
    weights = weights if mask is None else weights.masked_fill(mask.eq(False), 0)
    return (value.mT @ weights.mT).mT, weights


def attention_dividing_by_the_sum_of_what_is_left(query, key, value, mask=None):
    # 0/0 in empty rows, but what masked_fill filled passes no NaN back.
    scores = query @ key.mT / math.sqrt(query.size(-1))
    scores = scores if mask is None else scores.masked_fill(~mask, -1e9)
    powers = torch.exp(scores - scores.amax(-1, keepdim=True))
    powers = powers if mask is None else powers * mask
    weights = torch.nan_to_num(powers / powers.sum(-1, keepdim=True))
    return weights @ value, weights


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


def padding_mask_by_list(token_ids, pad_id=0):
    return torch.tensor([[[token != pad_id for token in row]] for row in token_ids.tolist()])


def padding_mask_by_difference(token_ids, pad_id=0):
    return (token_ids - pad_id).abs()[:, None, :] > 0


def padding_mask_by_isin(token_ids, pad_id=0):
    return torch.isin(token_ids, torch.tensor([pad_id]), invert=True).unsqueeze(-2)


def padding_mask_in_place_on_its_own(token_ids, pad_id=0):
    mask = torch.ones(token_ids.size(0), 1, token_ids.size(1), dtype=torch.bool)
    return mask.masked_fill_(token_ids.unsqueeze(1) == pad_id, False)


def padding_mask_by_xor(token_ids, pad_id=0):
    return (token_ids ^ pad_id).bool().reshape(len(token_ids), 1, -1)


def causal_mask_by_indices(length):
    mask = torch.zeros(length, length, dtype=torch.bool)
    rows, columns = torch.tril_indices(length, length)
    mask[rows, columns] = True
    return mask


def causal_mask_by_numpy(length):
    return torch.from_numpy(np.tri(length, dtype=bool))


def causal_mask_by_list(length):
    return torch.tensor([[j <= i for j in range(length)] for i in range(length)])


def causal_mask_by_two_loops(length):
    mask = torch.zeros(length, length, dtype=torch.bool)
    for i in range(length):
        for j in range(i + 1):
            mask[i, j] = True
    return mask


def causal_mask_by_infinity(length):
    return torch.full((length, length), -math.inf).triu(1) == 0


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


class AdditiveByConcatenation(nn.Module):
    """One matrix (w_a, u_a) on query and key side by side, as the paper's figure draws it."""

    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.w_a = nn.Linear(d_query, d_hidden, bias=False)
        self.u_a = nn.Linear(d_key, d_hidden, bias=False)
        self.v_a = nn.Linear(d_hidden, 1, bias=False)

    def forward(self, query, key, value, mask=None):
        shape = query.size(0), query.size(1), key.size(1), -1
        pairs = torch.cat((query[:, :, None].expand(shape), key[:, None].expand(shape)), -1)
        both = torch.cat((self.w_a.weight, self.u_a.weight), -1)
        scores = (pairs @ both.T).tanh() @ self.v_a.weight[0]
        if mask is None:
            mask = torch.tensor(True)
        lowest = torch.finfo(scores.dtype).min
        weights = torch.softmax(scores.masked_fill(~mask, lowest), -1) * mask
        return weights @ value, weights


class AdditiveByExponentials(nn.Module):
    """tanh and softmax written out."""

    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.w_a = nn.Linear(d_query, d_hidden, bias=False)
        self.u_a = nn.Linear(d_key, d_hidden, bias=False)
        self.v_a = nn.Linear(d_hidden, 1, bias=False)

    def forward(self, query, key, value, mask=None):
        hidden = self.u_a(key).unsqueeze(-3) + self.w_a(query).unsqueeze(-2)
        scores = self.v_a(2 * torch.sigmoid(2 * hidden) - 1).flatten(-2)
        powers = (scores - scores.detach().amax(-1, keepdim=True)).exp()
        if mask is not None:
            powers = torch.where(mask, powers, 0.0)
        total = powers.sum(-1, keepdim=True)
        weights = powers / total.masked_fill(total == 0, 1)
        return torch.einsum("bqk,bkv->bqv", weights, value), weights


class AdditiveInPlace(nn.Module):
    """In place where nothing of the caller's is touched."""

    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.w_a, self.u_a, self.v_a = (
            nn.Linear(a, b, False)
            for a, b in ((d_query, d_hidden), (d_key, d_hidden), (d_hidden, 1))
        )

    def forward(self, query, key, value, mask=None):
        hidden = self.w_a(query).unsqueeze(2).repeat(1, 1, key.size(1), 1)
        hidden += self.u_a(key).unsqueeze(1)
        scores = self.v_a(hidden.tanh_()).squeeze(-1)
        if mask is not None:
            scores.masked_fill_(~mask, -math.inf)
        weights = scores.softmax(-1)
        if mask is not None:
            weights = torch.where(mask, weights, weights.new_zeros(()))
        return weights @ value, weights


ALTERNATIVES = {
    "attention/softmax": [
        softmax_by_logsumexp,
        softmax_with_detached_maximum,
        softmax_on_the_last_axis,
        softmax_by_pairs,
        softmax_in_place_on_a_copy,
        softmax_in_float32_for_short_floats,
        softmax_by_power_of_e,
        softmax_by_log_weights,
        softmax_by_sorting,
        softmax_slice_by_slice,
        softmax_in_float64,
        softmax_by_named_maximum,
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
        attention_in_place_on_its_own_tensors,
        attention_in_float64,
        attention_with_its_own_softmax,
        attention_scaling_both_by_the_fourth_root,
        attention_with_keys_first,
        attention_dividing_by_the_sum_of_what_is_left,
    ],
    "attention/padding_mask": [
        padding_mask_by_eq,
        padding_mask_by_where,
        padding_mask_by_numpy,
        padding_mask_by_list,
        padding_mask_by_difference,
        padding_mask_by_isin,
        padding_mask_in_place_on_its_own,
        padding_mask_by_xor,
    ],
    "attention/causal_mask": [
        causal_mask_by_comparison,
        causal_mask_by_triu,
        causal_mask_by_loop,
        causal_mask_by_cumsum,
        causal_mask_by_indices,
        causal_mask_by_numpy,
        causal_mask_by_list,
        causal_mask_by_two_loops,
        causal_mask_by_infinity,
    ],
    "attention/AdditiveAttention": [
        AdditiveByExpand,
        AdditiveByLoop,
        AdditiveByParameters,
        AdditiveByConcatenation,
        AdditiveByExponentials,
        AdditiveInPlace,
    ],
}
