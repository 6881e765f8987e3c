"""Other right ways to write chapter 2."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from workbook.ready.attention import scaled_dot_product_attention

# ---- split_heads ---------------------------------------------------------------------------


def refuse(d_model, num_heads):
    if d_model % num_heads != 0:
        raise ValueError(f"d_model={d_model} is not a multiple of num_heads={num_heads}")


def split_by_view(x, num_heads):
    batch, length, d_model = x.shape
    refuse(d_model, num_heads)
    return x.view(batch, length, num_heads, d_model // num_heads).permute(0, 2, 1, 3)


def split_by_chunks(x, num_heads):
    refuse(x.size(2), num_heads)
    return torch.stack(x.chunk(num_heads, dim=-1), dim=1)


def split_by_unfold(x, num_heads):
    refuse(x.size(-1), num_heads)
    width = x.size(-1) // num_heads
    return x.unfold(-1, width, width).transpose(1, 2).contiguous()


def split_head_by_head(x, num_heads):
    width, rest = divmod(x.shape[-1], num_heads)
    if rest:
        raise ValueError("the heads would have different widths")
    heads = [x[:, :, h * width : (h + 1) * width] for h in range(num_heads)]
    return torch.cat([head[:, None] for head in heads], 1)


def split_into_an_empty_tensor(x, num_heads):
    refuse(x.size(-1), num_heads)
    width = x.size(-1) // num_heads
    heads = x.new_empty(x.size(0), num_heads, x.size(1), width)
    for h in range(num_heads):
        heads[:, h] = x[..., h * width : (h + 1) * width]
    return heads


def split_by_index(x, num_heads):
    refuse(x.size(-1), num_heads)
    columns = torch.arange(x.size(-1)).view(num_heads, 1, -1)
    rows = torch.arange(x.size(1)).view(1, -1, 1)
    return x[:, rows, columns]


def split_by_strides(x, num_heads):
    refuse(x.size(-1), num_heads)
    width, (batch, row, column) = x.size(-1) // num_heads, x.stride()
    shape = x.size(0), num_heads, x.size(1), width
    strides = batch, width * column, row, column
    return torch.as_strided(x, shape, strides, x.storage_offset())


def split_from_the_columns(x, num_heads):
    # The axes as the columns' owner sees them: (d_model, batch, length) in front.
    refuse(x.size(-1), num_heads)
    columns = x.movedim(-1, 0).unflatten(0, (num_heads, -1))
    return columns.permute(2, 0, 3, 1)


# ---- merge_heads ---------------------------------------------------------------------------


def merge_by_contiguous_view(x):
    batch, heads, length, width = x.shape
    return x.transpose(1, 2).contiguous().view(batch, length, heads * width)


def merge_by_permute(x):
    return x.permute(0, 2, 1, 3).reshape(x.size(0), x.size(2), x.size(1) * x.size(3))


def merge_by_concatenation(x):
    return torch.cat(x.unbind(dim=1), dim=-1)


def merge_head_by_head(x):
    merged = x.new_zeros(x.size(0), x.size(2), x.size(1) * x.size(3))
    for h in range(x.size(1)):
        merged[..., h * x.size(3) : (h + 1) * x.size(3)] = x[:, h]
    return merged


def merge_by_swapping_twice(x):
    return x.mT.flatten(1, 2).mT


def merge_position_by_position(x):
    return torch.stack([x[:, :, i].flatten(1) for i in range(x.size(2))], dim=1)


def merge_by_index(x):
    columns = torch.arange(x.size(1) * x.size(3))
    heads, places = columns // x.size(3), columns % x.size(3)
    return x[:, heads, :, places].permute(1, 2, 0)


# ---- multi-head attention ------------------------------------------------------------------


class Layers(nn.Module):
    """What most of them begin with."""

    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__()
        refuse(d_model, num_heads)
        self.num_heads, self.d_head = num_heads, d_model // num_heads
        self.w_q = nn.Linear(d_model, d_model)
        self.w_k = nn.Linear(d_model, d_model)
        self.w_v = nn.Linear(d_model, d_model)
        self.w_o = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)


class MultiHeadByTheBookBefore(Layers):
    """Chapter 1's attention gives the weights; the product with the values is made anew."""

    def forward(self, query, key, value, mask=None):
        q = split_by_chunks(self.w_q(query), self.num_heads)
        k = split_by_chunks(self.w_k(key), self.num_heads)
        v = split_by_chunks(self.w_v(value), self.num_heads)
        mask = None if mask is None else mask.unsqueeze(-3)
        _, weights = scaled_dot_product_attention(q, k, v, mask)
        return self.w_o(merge_by_permute(self.dropout(weights) @ v)), weights


class MultiHeadByEinsum(Layers):
    """No axis is moved: einsum reads (batch, length, heads, d_head) as it is."""

    def forward(self, query, key, value, mask=None):
        shape = self.num_heads, self.d_head
        q, k, v = (
            layer(x).unflatten(-1, shape)
            for layer, x in ((self.w_q, query), (self.w_k, key), (self.w_v, value))
        )
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * self.d_head**-0.5
        if mask is not None:
            mask = mask[:, None] if mask.dim() == 3 else mask[None, None]
            scores = torch.where(mask, scores, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1)
        if mask is not None:
            weights = weights * mask
        read = torch.einsum("bhqk,bkhd->bqhd", self.dropout(weights), v)
        return self.w_o(read.flatten(-2)), weights


class MultiHeadByParameters(nn.Module):
    """Plain parameters under the same names, one three-way einsum for each product."""

    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__()
        if d_model % num_heads:
            raise ValueError("d_model must be a multiple of num_heads")
        self.num_heads, self.rate = num_heads, dropout
        for name in ("w_o", "w_v", "w_k", "w_q"):
            weight, bias = torch.randn(d_model, d_model), torch.zeros(d_model)
            pair = {"bias": nn.Parameter(bias), "weight": nn.Parameter(weight)}
            setattr(self, name, nn.ParameterDict(pair))

    def heads(self, name, x):
        pair = getattr(self, name)
        weight = pair["weight"].unflatten(0, (self.num_heads, -1))
        bias = pair["bias"].unflatten(0, (self.num_heads, 1, -1))
        return torch.einsum("bni,hdi->bhnd", x, weight) + bias

    def forward(self, query, key, value, mask=None):
        q, k, v = self.heads("w_q", query), self.heads("w_k", key), self.heads("w_v", value)
        scores = (q / math.sqrt(q.size(-1))) @ k.mT
        allowed = torch.ones((), dtype=torch.bool) if mask is None else mask.unsqueeze(-3)
        shifted = scores.masked_fill(~allowed, -1e30 if scores.dtype != torch.float16 else -6e4)
        # The logarithm of the sum instead of a softmax.
        weights = (shifted - shifted.logsumexp(-1, keepdim=True)).exp() * allowed
        acting = F.dropout(weights, self.rate, training=self.training)
        out = self.w_o["weight"].unflatten(1, (self.num_heads, -1))
        return torch.einsum("bhqk,bhkd,ohd->bqo", acting, v, out) + self.w_o["bias"], weights


class MultiHeadByOneMatrix(Layers):
    """Three layers as one matrix: one product where the three inputs are the same tensor."""

    def forward(self, query, key, value, mask=None):
        layers = self.w_q, self.w_k, self.w_v
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        if query is key and key is value:
            q, k, v = F.linear(query, weight, bias).chunk(3, dim=-1)
        else:
            parts = zip((query, key, value), weight.chunk(3), bias.chunk(3), strict=True)
            q, k, v = (F.linear(*part) for part in parts)
        q, k, v = (
            x.reshape(x.size(0), x.size(1), self.num_heads, -1).transpose(1, 2) for x in (q, k, v)
        )
        scores = torch.matmul(q, k.transpose(2, 3)).div(math.sqrt(self.d_head))
        if mask is not None:
            if mask.ndim == 3:
                mask = mask.unsqueeze(1).expand(-1, self.num_heads, -1, -1)
            scores.masked_fill_(mask.logical_not(), -math.inf)
        weights = torch.nan_to_num(torch.softmax(scores, dim=-1), nan=0.0)
        read = torch.matmul(self.dropout(weights), v)
        return self.w_o(read.transpose(1, 2).contiguous().view(query.shape)), weights


class MultiHeadBySlices(Layers):
    """Head by head: rows of the weights, a product each, and a sum over the columns of w_o."""

    def forward(self, query, key, value, mask=None):
        output, weights = self.w_o.bias, []
        for h in range(self.num_heads):
            own = slice(h * self.d_head, (h + 1) * self.d_head)
            q = F.linear(query, self.w_q.weight[own], self.w_q.bias[own])
            k = F.linear(key, self.w_k.weight[own], self.w_k.bias[own])
            v = F.linear(value, self.w_v.weight[own], self.w_v.bias[own])
            read, head = scaled_dot_product_attention(q, k, v, mask)
            if self.training:
                read = self.dropout(head) @ v
            output = output + read @ self.w_o.weight[:, own].T
            weights.append(head)
        return output, torch.stack(weights, dim=1)


class MultiHeadByFolding(Layers):
    """The heads are folded into the batch, as nn.MultiheadAttention does it inside."""

    def forward(self, query, key, value, mask=None):
        batch, queries, keys = query.size(0), query.size(1), key.size(1)

        def fold(x):
            return split_by_view(x, self.num_heads).reshape(-1, x.size(1), self.d_head)

        q, k, v = fold(self.w_q(query)), fold(self.w_k(key)), fold(self.w_v(value))
        scores = torch.baddbmm(
            q.new_zeros(1, 1, 1).expand(q.size(0), queries, keys),
            q,
            k.mT,
            alpha=1 / math.sqrt(self.d_head),
        )
        if mask is not None:
            mask = mask.expand(batch, queries, keys).repeat_interleave(self.num_heads, dim=0)
            scores = scores.masked_fill(~mask, -math.inf)
        weights = scores.softmax(dim=2)
        if mask is not None:
            weights = weights.masked_fill(~mask, 0)
        read = torch.bmm(self.dropout(weights), v)
        read = read.view(batch, self.num_heads, queries, self.d_head)
        weights = weights.view(batch, self.num_heads, queries, keys)
        return self.w_o(merge_by_concatenation(read)), weights


class MultiHeadByIndexSelect(Layers):
    """The columns of each head are picked out by number, and its own softmax is written out."""

    def forward(self, query, key, value, mask=None):
        columns = torch.arange(query.size(-1)).view(self.num_heads, -1)
        q, k, v = self.w_q(query), self.w_k(key), self.w_v(value)
        reads, weights = [], []
        for own in columns:
            a, b, c = (x.index_select(-1, own) for x in (q, k, v))
            scores = (a.unsqueeze(2) * b.unsqueeze(1)).sum(-1) / self.d_head**0.5
            allowed = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
            scores = torch.where(allowed, scores, -math.inf)
            shift = scores.detach().amax(-1, keepdim=True)
            shift = shift.masked_fill(shift.isinf(), 0)
            powers = (scores - shift).exp()
            total = powers.sum(-1, keepdim=True)
            head = powers / total.masked_fill(total == 0, 1)
            reads.append(self.dropout(head) @ c)
            weights.append(head)
        return self.w_o(torch.cat(reads, dim=2)), torch.stack(weights).transpose(0, 1)


class MultiHeadWithHeadsInFront(Layers):
    """The heads lead, the batch follows; both are put in their places at the end."""

    def forward(self, query, key, value, mask=None):
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, self.d_head)).movedim(2, 0)
            for layer, x in ((self.w_q, query), (self.w_k, key), (self.w_v, value))
        )
        scores = q @ k.mT / math.sqrt(self.d_head)  # (heads, batch, L_q, L_k)
        if mask is not None:
            # (batch, L_q, L_k) and (L_q, L_k) fit behind the heads as they are.
            scores = scores.masked_fill(~mask, -1e9)
        weights = torch.softmax(scores, -1)
        if mask is not None:
            weights = weights.masked_fill(~mask, 0.0)
        read = (self.dropout(weights) @ v).movedim(0, 2)
        return self.w_o(read.reshape(query.shape)), weights.transpose(0, 1)


class MultiHeadWithAnInnerFunction(nn.Module):
    """Layers in a loop, everything in float64, heads of scores by block products."""

    def __init__(self, d_model, num_heads, dropout=0.0):
        refuse(d_model, num_heads)
        super().__init__()
        for name in "oqkv":
            self.add_module(f"w_{name}", nn.Linear(d_model, d_model))
        self.heads = num_heads
        self.p = dropout

    def forward(self, query, key, value, mask=None):
        def project(name, x):
            layer = getattr(self, f"w_{name}")
            return x.double() @ layer.weight.double().T + layer.bias.double()

        q, k, v = project("q", query), project("k", key), project("v", value)
        width = q.size(-1) // self.heads
        member = torch.arange(q.size(-1)) // width == torch.arange(self.heads)[:, None]
        # Columns of other heads are set to 0 instead of being cut off.
        q = torch.where(member[:, None], q.unsqueeze(1), 0.0)
        scores = q @ k.unsqueeze(1).mT / math.sqrt(width)
        if mask is not None:
            mask = torch.unsqueeze(mask, mask.ndim - 2)
            scores = scores.masked_fill(mask == 0, float("-inf"))
        weights = scores.softmax(-1)
        weights = weights if mask is None else torch.where(mask, weights, 0.0)
        acting = nn.functional.dropout(weights, self.p, self.training)
        read = (acting @ v.unsqueeze(1)).where(member[:, None], 0.0).sum(1)
        return project("o", read).to(query.dtype), weights.to(query.dtype)


class MultiHeadQueryByQuery(Layers):
    """One query after the other."""

    def forward(self, query, key, value, mask=None):
        k = split_by_unfold(self.w_k(key), self.num_heads)
        v = split_by_unfold(self.w_v(value), self.num_heads)
        shape = query.size(0), query.size(1), key.size(1)
        mask = torch.ones(shape, dtype=torch.bool) if mask is None else mask.expand(shape)
        outputs, weights = [], []
        for x, allowed in zip(self.w_q(query).unbind(1), mask.unbind(1), strict=True):
            q = x.view(x.size(0), self.num_heads, self.d_head, 1)
            scores = (k @ q).squeeze(-1) / math.sqrt(self.d_head)
            allowed = allowed[:, None]
            head = scores.masked_fill(~allowed, -torch.inf).softmax(-1).masked_fill(~allowed, 0)
            outputs.append(self.w_o((self.dropout(head)[:, :, None] @ v).flatten(1)))
            weights.append(head)
        return torch.stack(outputs, 1), torch.stack(weights, 2)


class MultiHeadWithTheScaleInTheQuery(Layers):
    """The root goes into the projected query, the bias of the mask is added, opened rows closed."""

    def forward(self, query, key, value, mask=None):
        def heads(x):
            return x.reshape(*x.shape[:-1], self.num_heads, self.d_head).transpose(-2, -3)

        q = heads(self.w_q(query) * (1.0 / math.sqrt(self.d_head)))
        scores = q @ heads(self.w_k(key)).transpose(-1, -2)
        if mask is None:
            weights = torch.softmax(scores, dim=-1)
        else:
            mask = mask.reshape(-1, 1, *mask.shape[-2:])
            empty = ~mask.any(dim=-1, keepdim=True)
            bias = torch.zeros(mask.shape, dtype=scores.dtype)
            bias = bias.masked_fill(~(mask | empty), -math.inf)
            weights = torch.softmax(scores + bias, dim=-1).masked_fill(~mask, 0.0)
        read = self.dropout(weights).matmul(heads(self.w_v(value)))
        return [self.w_o(read.transpose(-2, -3).flatten(-2)), weights]


class MultiHeadWithAWeightOfItsOwnForDropout(Layers):
    """Dropout as a mask of noise, and layers that are created in another order."""

    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        order = ("w_o", "w_k", "w_v", "w_q")
        layers = {name: self._modules.pop(name) for name in order}
        for name, layer in layers.items():
            self.add_module(name, nn.utils.skip_init(nn.Linear, d_model, d_model))
            nn.init.xavier_uniform_(getattr(self, name).weight)
            nn.init.zeros_(layer.bias)
        self.rate = dropout

    def forward(self, query, key, value, mask=None):
        q, k, v = (
            torch.stack(layer(x).tensor_split(self.num_heads, -1), 1)
            for layer, x in ((self.w_q, query), (self.w_k, key), (self.w_v, value))
        )
        scores = torch.einsum("...qd,...kd->...qk", q, k) / torch.tensor(self.d_head).sqrt().item()
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(-3), -math.inf)
        weights = scores.softmax(-1).nan_to_num(0.0)
        acting = weights
        if self.training and self.rate:
            keep = (torch.rand(weights.shape) >= self.rate).to(weights.dtype)
            acting = weights * keep / max(1 - self.rate, 1e-9)
        return self.w_o(merge_by_swapping_twice(acting @ v)), weights


# ---- attention_flops -----------------------------------------------------------------------


def flops_in_one_formula(length, d_model, num_heads):
    if d_model % num_heads != 0:
        raise ValueError("not divisible")
    return 4 * length * d_model * (2 * d_model + length)


def flops_head_by_head(length, d_model, num_heads):
    d_head, rest = divmod(d_model, num_heads)
    if rest:
        raise ValueError(f"{d_model} columns cannot be shared by {num_heads} heads")
    total = 0
    for _ in range(4):
        total += 2 * length * d_model * d_model
    for _ in range(num_heads):
        total += 2 * length * d_head * length
        total += 2 * length * length * d_head
    return total


def flops_of_products(length, d_model, num_heads):
    refuse(d_model, num_heads)

    def product(rows, inner, columns):
        return 2 * rows * inner * columns

    head = d_model // num_heads
    layers = product(length, d_model, 4 * d_model)
    scores = num_heads * product(length, head, length)
    return sum((layers, scores, num_heads * product(length, length, head)))


def flops_by_numpy(length, d_model, num_heads):
    refuse(d_model, num_heads)
    n, d = np.asarray([length, d_model], dtype=object)
    return int((np.array([8 * n, 4 * d], dtype=object) * np.array([d**2, n**2])).sum())


def flops_measured(length, d_model, num_heads):
    """Torch counts, on tensors that have a shape and nothing else."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        x = torch.empty(1, length, d_model)
        MultiHeadWithHeadsInFront(d_model, num_heads)(x, x, x)
    return counter.get_total_flops()


ALTERNATIVES = {
    "multi_head/split_heads": [
        split_by_view,
        split_by_chunks,
        split_by_unfold,
        split_head_by_head,
        split_into_an_empty_tensor,
        split_by_index,
        split_by_strides,
        split_from_the_columns,
    ],
    "multi_head/merge_heads": [
        merge_by_contiguous_view,
        merge_by_permute,
        merge_by_concatenation,
        merge_head_by_head,
        merge_by_swapping_twice,
        merge_position_by_position,
        merge_by_index,
    ],
    "multi_head/MultiHeadAttention": [
        MultiHeadByTheBookBefore,
        MultiHeadByEinsum,
        MultiHeadByParameters,
        MultiHeadByOneMatrix,
        MultiHeadBySlices,
        MultiHeadByFolding,
        MultiHeadByIndexSelect,
        MultiHeadWithHeadsInFront,
        MultiHeadWithAnInnerFunction,
        MultiHeadQueryByQuery,
        MultiHeadWithTheScaleInTheQuery,
        MultiHeadWithAWeightOfItsOwnForDropout,
    ],
    "multi_head/attention_flops": [
        flops_in_one_formula,
        flops_head_by_head,
        flops_of_products,
        flops_by_numpy,
        flops_measured,
    ],
}
