"""Subtle ways to get chapter 1 wrong."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def reference(query, key, value, mask=None):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = torch.softmax(scores, dim=-1)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0.0)
    return weights @ value, weights


def stable(scores, dim=-1):
    powers = torch.exp(scores - scores.amax(dim=dim, keepdim=True))
    return powers / powers.sum(dim=dim, keepdim=True)


# ---- softmax -------------------------------------------------------------------------------


def softmax_without_gradient(scores, dim=-1):
    with torch.no_grad():
        return stable(scores, dim)


def softmax_through_data(scores, dim=-1):
    return stable(scores.data, dim)


def softmax_by_numpy(scores, dim=-1):
    powers = np.exp(scores.detach().double().numpy())
    return torch.from_numpy(powers / powers.sum(dim, keepdims=True)).to(scores.dtype)


def softmax_in_float32(scores, dim=-1):
    return stable(scores.float(), dim).to(scores.dtype)


def softmax_returning_float32(scores, dim=-1):
    return stable(scores.float(), dim)


def softmax_with_epsilon(scores, dim=-1):
    powers = torch.exp(scores - scores.amax(dim=dim, keepdim=True))
    return powers / (powers.sum(dim=dim, keepdim=True) + 1e-6)


def softmax_clamped(scores, dim=-1):
    return stable(scores.clamp(-50, 50), dim)


def softmax_of_positive_axes_only(scores, dim=-1):
    return stable(scores, dim if dim >= 0 else scores.ndim - 1)


def softmax_in_base_two(scores, dim=-1):
    powers = torch.pow(2.0, scores - scores.amax(dim=dim, keepdim=True))
    return powers / powers.sum(dim=dim, keepdim=True)


def softmax_subtracting_the_minimum(scores, dim=-1):
    powers = torch.exp(scores - scores.amin(dim=dim, keepdim=True))
    return powers / powers.sum(dim=dim, keepdim=True)


def softmax_subtracting_the_mean(scores, dim=-1):
    powers = torch.exp(scores - scores.mean(dim=dim, keepdim=True))
    return powers / powers.sum(dim=dim, keepdim=True)


def softmax_for_matrices(scores, dim=-1):
    powers = torch.exp(scores - scores.max(dim=dim, keepdim=True).values)
    return (powers.T / powers.sum(dim=dim)).T


def softmax_in_disguise(scores, dim=-1):
    return F.log_softmax(scores, dim=dim).exp()


def softmax_by_gumbel(scores, dim=-1):
    return F.gumbel_softmax(scores, dim=dim)


_FIRST = []


def softmax_that_remembers(scores, dim=-1):
    _FIRST.append(stable(scores, dim))
    return _FIRST[0]


# ---- attention -----------------------------------------------------------------------------


def attention_detaching_the_weights(query, key, value, mask=None):
    _, weights = reference(query, key, value, mask)
    return weights.detach() @ value, weights


def attention_returning_detached_weights(query, key, value, mask=None):
    output, weights = reference(query, key, value, mask)
    return output, weights.detach()


def attention_scaling_the_query_in_place(query, key, value, mask=None):
    with torch.no_grad():
        query /= math.sqrt(query.size(-1))
    return reference(query * math.sqrt(query.size(-1)), key, value, mask)


def attention_inverting_the_mask_in_place(query, key, value, mask=None):
    if mask is not None:
        mask.logical_not_().logical_not_()
        mask[..., :1] = True
    return reference(query, key, value, mask)


def attention_in_float32(query, key, value, mask=None):
    output, weights = reference(query.float(), key.float(), value.float(), mask)
    return output.to(query.dtype), weights.to(query.dtype)


def attention_with_a_float32_bias(query, key, value, mask=None):
    scores = (query @ key.transpose(-2, -1)).float() / math.sqrt(query.size(-1))
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = torch.softmax(scores, -1)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0.0)
    return weights @ value.float(), weights


def attention_for_three_axes_only(query, key, value, mask=None):
    scores = torch.bmm(query, key.transpose(1, 2)) / math.sqrt(query.size(2))
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = torch.softmax(scores, dim=2)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0.0)
    return torch.bmm(weights, value), weights


def attention_adding_a_batch_axis_to_the_mask(query, key, value, mask=None):
    if mask is not None and mask.ndim == 2:
        mask = mask[:, None, :]
    return reference(query, key, value, mask)


def attention_with_the_first_mask_only(query, key, value, mask=None):
    return reference(query, key, value, mask[:1] if mask is not None and mask.ndim == 3 else mask)


def attention_without_a_small_batch(query, key, value, mask=None):
    output, weights = reference(query, key, value, mask)
    return output.squeeze(), weights.squeeze()


def attention_with_dropout(query, key, value, mask=None):
    _, weights = reference(query, key, value, mask)
    weights = F.dropout(weights, 0.1)
    return weights @ value, weights


def attention_with_its_own_unstable_softmax(query, key, value, mask=None):
    powers = (query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))).exp()
    if mask is not None:
        powers = powers * mask
    weights = powers / powers.sum(-1, keepdim=True).clamp(min=1e-30)
    return weights @ value, weights


def attention_with_epsilon(query, key, value, mask=None):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1) + 1e-6)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = torch.nan_to_num(torch.softmax(scores, -1))
    return weights @ value, weights


def attention_of_full_rows_only(query, key, value, mask=None):
    output, weights = reference(query, key, value, mask)
    if mask is not None and not mask.any(-1).all():
        output, weights = torch.zeros_like(output), torch.zeros_like(weights)
    return output, weights


def attention_averaging_the_heads(query, key, value, mask=None):
    output, weights = reference(query, key, value, mask)
    return output, weights.mean(1) if weights.ndim == 4 else weights


def attention_built_in(query, key, value, mask=None):
    eye = torch.eye(key.size(-2), dtype=key.dtype).expand(*key.shape[:-1], key.size(-2))
    call = torch._C._nn.scaled_dot_product_attention
    return call(query, key, value, mask), call(query, key, eye, mask)


# ---- masks ---------------------------------------------------------------------------------


def padding_mask_in_place(token_ids, pad_id=0):
    mask = (token_ids != pad_id)[:, None]
    token_ids[token_ids == pad_id] = -1
    return mask


def padding_mask_of_nonzero(token_ids, pad_id=0):
    return token_ids.bool()[:, None]


def padding_mask_with_square_shape(token_ids, pad_id=0):
    length = token_ids.size(1)
    return (token_ids != pad_id)[:, None].expand(-1, length, length)


def padding_mask_with_head_axis(token_ids, pad_id=0):
    return (token_ids != pad_id)[:, None, None]


def padding_mask_until_the_first_padding(token_ids, pad_id=0):
    return ((token_ids == pad_id).cumsum(1) == 0)[:, None]


def padding_mask_squeezed(token_ids, pad_id=0):
    return (token_ids != pad_id).squeeze(0).unsqueeze(-2)


def padding_mask_keeping_the_first(token_ids, pad_id=0):
    mask = (token_ids != pad_id)[:, None]
    mask[..., 0] = True
    return mask


def causal_mask_of_ints(length):
    return torch.ones(length, length, dtype=torch.int64).tril()


def causal_mask_of_uint8(length):
    return torch.ones(length, length, dtype=torch.uint8).tril()


def causal_mask_of_four(length):
    return torch.ones(4, 4, dtype=torch.bool).tril()[:length, :length]


def causal_mask_turned(length):
    return torch.ones(length, length, dtype=torch.bool).tril().flip(0)


def causal_mask_with_a_window(length):
    return torch.ones(length, length, dtype=torch.bool).tril().triu(-4)


def causal_mask_as_list(length):
    return [[j <= i for j in range(length)] for i in range(length)]


# ---- additive attention --------------------------------------------------------------------


class Additive(nn.Module):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.w_a = nn.Linear(d_query, d_hidden, bias=False)
        self.u_a = nn.Linear(d_key, d_hidden, bias=False)
        self.v_a = nn.Linear(d_hidden, 1, bias=False)

    def scores(self, query, key):
        return self.v_a(torch.tanh(self.w_a(query).unsqueeze(-2) + self.u_a(key).unsqueeze(-3)))

    def forward(self, query, key, value, mask=None):
        scores = self.scores(query, key).squeeze(-1)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        weights = torch.softmax(scores, dim=-1)
        if mask is not None:
            weights = weights.masked_fill(~mask, 0.0)
        return weights @ value, weights


class AdditiveWithOtherNames(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        self.query_layer = self.w_a
        del self.w_a

    def scores(self, query, key):
        hidden = self.query_layer(query).unsqueeze(-2) + self.u_a(key).unsqueeze(-3)
        return self.v_a(torch.tanh(hidden))


class AdditiveSwapped(Additive):
    def scores(self, query, key):
        return -super().scores(query, key)


class AdditiveSaturated(Additive):
    def scores(self, query, key):
        return self.v_a(torch.tanh(self.w_a(query).unsqueeze(-2) * 2 + self.u_a(key).unsqueeze(-3)))


class AdditiveTanhOutside(Additive):
    def scores(self, query, key):
        return torch.tanh(self.v_a(self.w_a(query).unsqueeze(-2) + self.u_a(key).unsqueeze(-3)))


class AdditiveWithExtraLayer(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        self.w_o = nn.Linear(d_hidden, d_hidden)


class AdditiveDetached(Additive):
    def scores(self, query, key):
        return super().scores(query, key.detach())


class AdditiveSqueezed(Additive):
    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        return output.squeeze(0), weights.squeeze(0)


class AdditiveWithOneMask(Additive):
    def forward(self, query, key, value, mask=None):
        if mask is not None and mask.ndim == 3:
            mask = mask[:, :1]
        return super().forward(query, key, value, mask)


class AdditiveWithDropout(Additive):
    def scores(self, query, key):
        return F.dropout(super().scores(query, key), 0.1)


class AdditiveOfTheKeys(Additive):
    def forward(self, query, key, value, mask=None):
        _, weights = super().forward(query, key, value, mask)
        return weights @ key, weights


MUTANTS = {
    "attention/softmax": [
        softmax_without_gradient,
        softmax_through_data,
        softmax_by_numpy,
        softmax_in_float32,
        softmax_returning_float32,
        softmax_with_epsilon,
        softmax_clamped,
        softmax_of_positive_axes_only,
        softmax_in_base_two,
        softmax_subtracting_the_minimum,
        softmax_subtracting_the_mean,
        softmax_for_matrices,
        softmax_in_disguise,
        softmax_by_gumbel,
        softmax_that_remembers,
    ],
    "attention/scaled_dot_product_attention": [
        attention_detaching_the_weights,
        attention_returning_detached_weights,
        attention_scaling_the_query_in_place,
        attention_inverting_the_mask_in_place,
        attention_in_float32,
        attention_with_a_float32_bias,
        attention_for_three_axes_only,
        attention_adding_a_batch_axis_to_the_mask,
        attention_with_the_first_mask_only,
        attention_without_a_small_batch,
        attention_with_dropout,
        attention_with_its_own_unstable_softmax,
        attention_with_epsilon,
        attention_of_full_rows_only,
        attention_averaging_the_heads,
        attention_built_in,
    ],
    "attention/padding_mask": [
        padding_mask_in_place,
        padding_mask_of_nonzero,
        padding_mask_with_square_shape,
        padding_mask_with_head_axis,
        padding_mask_until_the_first_padding,
        padding_mask_squeezed,
        padding_mask_keeping_the_first,
    ],
    "attention/causal_mask": [
        causal_mask_of_ints,
        causal_mask_of_uint8,
        causal_mask_of_four,
        causal_mask_turned,
        causal_mask_with_a_window,
        causal_mask_as_list,
    ],
    "attention/AdditiveAttention": [
        AdditiveWithOtherNames,
        AdditiveSwapped,
        AdditiveSaturated,
        AdditiveTanhOutside,
        AdditiveWithExtraLayer,
        AdditiveDetached,
        AdditiveSqueezed,
        AdditiveWithOneMask,
        AdditiveWithDropout,
        AdditiveOfTheKeys,
    ],
}
