"""Subtle ways to get chapter 1 wrong, and which of them a verdict names.

A name that does not fit misleads: what is not in NAMED must be given none.
"""

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


def softmax_with_a_lowest_score(scores, dim=-1):
    return stable(scores.clamp(min=-1e4), dim)


def softmax_with_a_number_for_infinity(scores, dim=-1):
    return stable(torch.nan_to_num(scores, neginf=-1e9), dim)


def softmax_with_a_floor(scores, dim=-1):
    return stable(scores, dim) + 1e-8


def softmax_with_nan_gradient(scores, dim=-1):
    powers = torch.exp(scores - scores.amax(dim=dim, keepdim=True))
    finite = torch.where(torch.isinf(scores), torch.zeros_like(powers), powers * (scores - scores))
    return stable(scores, dim) + finite


def softmax_by_view(scores, dim=-1):
    if dim in (-1, scores.ndim - 1):
        return stable(scores.view(-1, scores.size(-1))).view(scores.shape)
    return stable(scores, dim)


def softmax_in_memory_order(scores, dim=-1):
    if scores.ndim == 3 and dim == -1:
        flat = torch.as_strided(scores, scores.shape, (scores[0].numel(), scores.size(2), 1))
        return stable(flat, dim)
    return stable(scores, dim)


def softmax_of_the_absolute_maximum(scores, dim=-1):
    powers = torch.exp(scores - scores.abs().amax(dim, keepdim=True))
    return powers / powers.sum(dim, keepdim=True)


def softmax_of_two_axes(scores, dim=-1):
    return stable(scores, dim if scores.ndim < 3 else -1)


def softmax_without_keepdim_in_the_sum(scores, dim=-1):
    powers = torch.exp(scores - scores.amax(dim, keepdim=True))
    return powers / powers.sum(dim)


def softmax_with_temperature(scores, dim=-1):
    return stable(scores / scores.size(dim) ** 0.5, dim)


def softmax_of_the_other_axis_if_square(scores, dim=-1):
    square = scores.ndim == 2 and scores.size(0) == scores.size(1)
    return stable(scores, -1 if square else dim)


# ---- attention -----------------------------------------------------------------------------


def masked(query, key, value, mask, scores=lambda scores: scores, weights=lambda weights: weights):
    """Right, but for what is done to the scores before the mask and to the weights after it."""
    found = scores(query @ key.mT / math.sqrt(query.size(-1)))
    found = found if mask is None else found.masked_fill(~mask, -math.inf)
    found = torch.softmax(found, dim=-1)
    found = weights(found if mask is None else found.masked_fill(~mask, 0.0))
    return found @ value, found


def attention_secretly_causal(query, key, value, mask=None):
    if mask is None and query.size(-2) == key.size(-2):
        mask = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool).tril()
    return reference(query, key, value, mask)


def attention_always_causal(query, key, value, mask=None):
    triangle = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool).tril()
    return reference(query, key, value, triangle if mask is None else mask & triangle)


def attention_with_a_symmetric_mask(query, key, value, mask=None):
    if mask is not None and mask.ndim > 1 and mask.size(-1) == mask.size(-2):
        mask = mask & mask.mT
    return reference(query, key, value, mask)


def attention_transposing_square_masks(query, key, value, mask=None):
    if mask is not None and mask.ndim > 1 and mask.size(-1) == mask.size(-2):
        mask = mask.mT
    return reference(query, key, value, mask)


def attention_that_needs_a_batch(query, key, value, mask=None):
    if query.ndim == 2:
        output, weights = reference(query[None], key[None], value[None], mask)
        return output, weights
    return reference(query, key, value, mask)


def attention_by_einsum_of_three(query, key, value, mask=None):
    scores = torch.einsum("bqd,bkd->bqk", query, key) / math.sqrt(query.size(-1))
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = torch.softmax(scores, -1)
    weights = weights if mask is None else weights.masked_fill(~mask, 0.0)
    return torch.einsum("bqk,bkv->bqv", weights, value), weights


def attention_opening_empty_rows_in_place(query, key, value, mask=None):
    if mask is None:
        return reference(query, key, value)
    empty = ~mask.any(-1, keepdim=True)
    output, weights = reference(query, key, value, mask.logical_or_(empty))
    return output.masked_fill(empty, 0.0), weights.masked_fill(empty, 0.0)


def attention_with_the_maximum_of_all_keys(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.size(-1))
    powers = torch.exp(scores - scores.amax(-1, keepdim=True))
    if mask is not None:
        powers = powers.masked_fill(~mask, 0.0)
    weights = powers / powers.sum(-1, keepdim=True)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0.0)
    return weights @ value, weights


def attention_with_the_maximum_of_all_keys_and_a_floor(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.size(-1))
    powers = torch.exp(scores - scores.amax(-1, keepdim=True))
    if mask is not None:
        powers = powers * mask
    weights = powers / powers.sum(-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
    return weights @ value, weights


def attention_filling(fill):
    def attend(query, key, value, mask=None):
        scores = query @ key.mT / math.sqrt(query.size(-1))
        if mask is not None:
            scores = scores.masked_fill(~mask, fill)
        weights = torch.softmax(scores, -1)
        weights = weights if mask is None else weights.masked_fill(~mask, 0.0)
        return weights @ value, weights

    attend.__name__ = f"attention_filling_{-fill:g}"
    return attend


attention_filling_100 = attention_filling(-100.0)
attention_filling_10000 = attention_filling(-1e4)


def attention_adding_ten_thousand(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.size(-1))
    if mask is not None:
        scores = scores + (~mask).to(scores.dtype) * -1e4
    weights = torch.softmax(scores, -1)
    weights = weights if mask is None else weights * mask
    return weights @ value, weights


def attention_barring_zero_scores(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.size(-1))
    if mask is not None:
        scores = scores * mask
        scores = scores.masked_fill(scores == 0, -math.inf)
    weights = torch.softmax(scores, -1)
    weights = weights if mask is None else weights.masked_fill(~mask, 0.0)
    return weights @ value, weights


def attention_asking_the_mask_for_any(query, key, value, mask=None):
    return reference(query, key, value, mask if mask is not None and mask.any() else None)


def attention_hard(query, key, value, mask=None):
    return masked(
        query, key, value, mask, scores=lambda s: s.masked_fill(s < s.amax(-1, True), -math.inf)
    )


def attention_scaled_by_the_number_of_queries(query, key, value, mask=None):
    longer = query * math.sqrt(query.size(-1) / query.size(-2))
    return reference(longer, key, value, mask)


def attention_scaled_twice(query, key, value, mask=None):
    return reference(query / math.sqrt(query.size(-1)), key, value, mask)


def attention_divided_by_eight(query, key, value, mask=None):
    return reference(query * math.sqrt(query.size(-1)) / 8, key, value, mask)


def attention_over_the_batch(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.size(-1))
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = torch.nan_to_num(torch.softmax(scores, 0))
    return weights @ value, weights


def attention_with_transposed_weights(query, key, value, mask=None):
    output, weights = reference(query, key, value, mask)
    return output, weights.mT


def attention_clearing_the_output_only(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.size(-1))
    if mask is None:
        weights = torch.softmax(scores, -1)
        return weights @ value, weights
    weights = torch.softmax(scores.masked_fill(~mask, -1e9), -1)
    return (weights @ value).masked_fill(~mask.any(-1, keepdim=True), 0.0), weights


def attention_multiplying_in_place(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.size(-1))
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e9)
    weights = torch.softmax(scores, -1)
    if mask is not None:
        weights *= mask
    return weights @ value, weights


def attention_with_masks_of_three_axes(query, key, value, mask=None):
    return reference(query, key, value, mask if mask is None or mask.ndim == 3 else None)


def attention_with_nan_gradient_by_division(query, key, value, mask=None):
    scores = query @ key.mT / math.sqrt(query.size(-1))
    if mask is None:
        weights = torch.softmax(scores, -1)
        return weights @ value, weights
    shift = scores.masked_fill(~mask, -math.inf).amax(-1, keepdim=True).clamp(min=-1e30)
    powers = torch.exp(scores - shift.detach()).where(mask, torch.zeros_like(scores))
    weights = powers / powers.sum(-1, keepdim=True)
    weights = torch.where(weights.isnan(), torch.zeros_like(weights), weights)
    return weights @ value, weights


def attention_unscaled_and_full_of_nan(query, key, value, mask=None):
    """Two mistakes, of which the first shows almost everywhere."""
    scores = query @ key.mT
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = torch.softmax(scores, -1)
    return weights @ value, weights


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


def padding_mask_in_place_by_negation(token_ids, pad_id=0):
    return token_ids.sub_(pad_id).bool()[:, None]


def padding_mask_of_bytes(token_ids, pad_id=0):
    return (token_ids.to(torch.uint8) != pad_id % 256)[:, None]


def padding_mask_of_halves(token_ids, pad_id=0):
    return (token_ids.half() != pad_id)[:, None]


def padding_mask_of_bfloats(token_ids, pad_id=0):
    return (token_ids.bfloat16() != torch.tensor(float(pad_id)).bfloat16())[:, None]


def padding_mask_of_absolute_ids(token_ids, pad_id=0):
    return (token_ids.abs() != abs(pad_id))[:, None]


def padding_mask_of_larger_ids(token_ids, pad_id=0):
    return (token_ids > pad_id)[:, None]


def padding_mask_barring_negative_ids(token_ids, pad_id=0):
    return ((token_ids != pad_id) & (token_ids >= 0))[:, None]


def padding_mask_by_view(token_ids, pad_id=0):
    batch, length = token_ids.shape
    return token_ids.view(-1).ne(pad_id).view(batch, 1, length)


def padding_mask_of_one_row(token_ids, pad_id=0):
    return (token_ids != pad_id).all(0)[None, None].expand(token_ids.size(0), 1, -1)


def padding_mask_barring_zero_too(token_ids, pad_id=0):
    return ((token_ids != pad_id) & (token_ids != 0))[:, None]


def padding_mask_of_int8(token_ids, pad_id=0):
    return (token_ids != pad_id)[:, None].to(torch.int8)


def causal_mask_with_a_long_window(length):
    return torch.ones(length, length, dtype=torch.bool).tril().triu(-128)


def causal_mask_of_byte_positions(length):
    positions = torch.arange(length).to(torch.uint8)
    return positions[None] <= positions[:, None]


def causal_mask_of_bfloat_positions(length):
    positions = torch.arange(length, dtype=torch.bfloat16)
    return positions[None] <= positions[:, None]


_TABLE = torch.ones(256, 256, dtype=torch.bool).tril()


def causal_mask_from_a_table(length):
    return _TABLE[:length, :length]


def causal_mask_seeing_the_first(length):
    mask = torch.ones(length, length, dtype=torch.bool).tril(-1)
    mask[:, 0] = True
    return mask


def causal_mask_in_blocks(length):
    positions = torch.arange(length) // 2
    return positions[None] <= positions[:, None]


def causal_mask_of_int16(length):
    return torch.ones(length, length, dtype=torch.int16).tril()


def causal_mask_of_the_past_and_next_of_long(length):
    return torch.ones(length, length, dtype=torch.bool).tril(1 if length > 100 else 0)


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


class AdditiveSecretlyCausal(Additive):
    def forward(self, query, key, value, mask=None):
        if mask is None and query.size(1) == key.size(1):
            mask = torch.ones(query.size(1), key.size(1), dtype=torch.bool).tril()
        return super().forward(query, key, value, mask)


class AdditiveWithASymmetricMask(Additive):
    def forward(self, query, key, value, mask=None):
        if mask is not None and mask.ndim > 1 and mask.size(-1) == mask.size(-2):
            mask = mask & mask.mT
        return super().forward(query, key, value, mask)


class AdditiveOpeningEmptyRowsInPlace(Additive):
    def forward(self, query, key, value, mask=None):
        if mask is None:
            return super().forward(query, key, value)
        empty = ~mask.any(-1, keepdim=True)
        output, weights = super().forward(query, key, value, mask.logical_or_(empty))
        return output.masked_fill(empty, 0.0), weights.masked_fill(empty, 0.0)


class AdditiveThatRemembersTheKeys(Additive):
    known = None

    def scores(self, query, key):
        if self.known is None:
            self.known = self.u_a(key).unsqueeze(-3)
        return self.v_a(torch.tanh(self.w_a(query).unsqueeze(-2) + self.known))


class AdditiveThatRemembersItsResult(Additive):
    result = None

    def forward(self, query, key, value, mask=None):
        if self.result is None:
            self.result = super().forward(query, key, value, mask)
        return self.result


class AdditiveReturningDetachedWeights(Additive):
    def forward(self, query, key, value, mask=None):
        output, weights = super().forward(query, key, value, mask)
        return output, weights.detach()


class AdditiveFrozen(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        self.v_a.weight.requires_grad_(False)


class AdditiveInFloat32(Additive):
    def scores(self, query, key):
        return super().scores(query, key).float().to(query.dtype)


class AdditiveAddingInPlace(Additive):
    def forward(self, query, key, value, mask=None):
        if mask is not None:
            key.data.mul_(1 + mask.any().to(key.dtype))
        return super().forward(query, key / (1 if mask is None else 2), value, mask)


class AdditiveByCosine(Additive):
    def scores(self, query, key):
        return super().scores(F.normalize(query, dim=-1), key)


class AdditiveAskingTheMaskForAny(Additive):
    def forward(self, query, key, value, mask=None):
        return super().forward(query, key, value, mask if mask is not None and mask.any() else None)


class AdditiveSqueezingEverything(Additive):
    def scores(self, query, key):
        return super().scores(query, key).squeeze()[..., None]


class AdditiveOfWrongWidth(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        self.u_a = nn.Linear(d_query, d_hidden, bias=False)


class AdditiveBuiltBackwards(Additive):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__(d_query, d_key, d_hidden)
        self.u_a = nn.Linear(d_hidden, d_key, bias=False)


class AdditiveWithNewLayersInEachCall(Additive):
    def scores(self, query, key):
        self.v_a = nn.Linear(self.v_a.in_features, 1, bias=False).to(query.dtype)
        return super().scores(query, key)


NAMED = {
    "softmax_of_the_absolute_maximum": "largest absolute value",
    "softmax_without_keepdim_in_the_sum": "loses its axis",
    "attention_secretly_causal": "No query reads a later key",
    "attention_always_causal": "No query reads a later key",
    "attention_with_the_maximum_of_all_keys": "dropped afterwards",
    "attention_with_the_maximum_of_all_keys_and_a_floor": "dropped afterwards",
    "attention_with_nan_gradient_by_division": "but NaN in the gradients",
    "attention_filling_100": "such as -100",
    "attention_filling_10000": "such as -100",
    "attention_adding_ten_thousand": "such as -100",
    "attention_scaled_twice": "divided by d_k, not by its square root",
    "attention_divided_by_eight": "always divided by 8",
    "attention_over_the_batch": "the first axis, the batch",
    "attention_unscaled_and_full_of_nan": "not divided by the square root of d_k",
    "padding_mask_of_nonzero": "compared with 0",
    "padding_mask_until_the_first_padding": "from the first padding on",
    "padding_mask_of_larger_ids": "above pad_id",
    "padding_mask_of_int8": "holds numbers",
    "causal_mask_of_ints": "holds numbers",
    "causal_mask_of_uint8": "holds numbers",
    "causal_mask_of_int16": "holds numbers",
    "AdditiveTanhOutside": "tanh is applied to the scores",
    "AdditiveSecretlyCausal": "No query reads a later key",
}

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
        softmax_with_a_lowest_score,
        softmax_with_a_number_for_infinity,
        softmax_with_a_floor,
        softmax_with_nan_gradient,
        softmax_by_view,
        softmax_in_memory_order,
        softmax_of_the_absolute_maximum,
        softmax_of_two_axes,
        softmax_without_keepdim_in_the_sum,
        softmax_with_temperature,
        softmax_of_the_other_axis_if_square,
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
        attention_secretly_causal,
        attention_always_causal,
        attention_with_a_symmetric_mask,
        attention_transposing_square_masks,
        attention_that_needs_a_batch,
        attention_by_einsum_of_three,
        attention_opening_empty_rows_in_place,
        attention_with_the_maximum_of_all_keys,
        attention_with_the_maximum_of_all_keys_and_a_floor,
        attention_filling_100,
        attention_filling_10000,
        attention_adding_ten_thousand,
        attention_barring_zero_scores,
        attention_asking_the_mask_for_any,
        attention_hard,
        attention_scaled_by_the_number_of_queries,
        attention_scaled_twice,
        attention_divided_by_eight,
        attention_over_the_batch,
        attention_with_transposed_weights,
        attention_clearing_the_output_only,
        attention_multiplying_in_place,
        attention_with_masks_of_three_axes,
        attention_with_nan_gradient_by_division,
        attention_unscaled_and_full_of_nan,
    ],
    "attention/padding_mask": [
        padding_mask_in_place,
        padding_mask_of_nonzero,
        padding_mask_with_square_shape,
        padding_mask_with_head_axis,
        padding_mask_until_the_first_padding,
        padding_mask_squeezed,
        padding_mask_keeping_the_first,
        padding_mask_in_place_by_negation,
        padding_mask_of_bytes,
        padding_mask_of_halves,
        padding_mask_of_bfloats,
        padding_mask_of_absolute_ids,
        padding_mask_of_larger_ids,
        padding_mask_barring_negative_ids,
        padding_mask_by_view,
        padding_mask_of_one_row,
        padding_mask_barring_zero_too,
        padding_mask_of_int8,
    ],
    "attention/causal_mask": [
        causal_mask_of_ints,
        causal_mask_of_uint8,
        causal_mask_of_four,
        causal_mask_turned,
        causal_mask_with_a_window,
        causal_mask_as_list,
        causal_mask_with_a_long_window,
        causal_mask_of_byte_positions,
        causal_mask_of_bfloat_positions,
        causal_mask_from_a_table,
        causal_mask_seeing_the_first,
        causal_mask_in_blocks,
        causal_mask_of_int16,
        causal_mask_of_the_past_and_next_of_long,
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
        AdditiveSecretlyCausal,
        AdditiveWithASymmetricMask,
        AdditiveOpeningEmptyRowsInPlace,
        AdditiveThatRemembersTheKeys,
        AdditiveThatRemembersItsResult,
        AdditiveReturningDetachedWeights,
        AdditiveFrozen,
        AdditiveInFloat32,
        AdditiveAddingInPlace,
        AdditiveByCosine,
        AdditiveAskingTheMaskForAny,
        AdditiveSqueezingEverything,
        AdditiveOfWrongWidth,
        AdditiveBuiltBackwards,
        AdditiveWithNewLayersInEachCall,
    ],
}
