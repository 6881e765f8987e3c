"""Other right ways to write chapter 5."""

import copy
import itertools
import math
import random
from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from workbook.ready.attention import padding_mask
from workbook.ready.multi_head import MultiHeadAttention
from workbook.ready.transformer import LayerNorm

# ---- masking -------------------------------------------------------------------------------


def refuse(rate):
    if rate < 0 or rate > 1:
        raise ValueError(f"rate = {rate} is no probability")


def mask_by_bernoulli(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """One coin decides the choice, one [MASK], and a third the rest in halves."""
    if not 0 <= rate <= 1:
        raise ValueError("rate")
    device, shape = token_ids.device, token_ids.shape

    def coins(p):
        return torch.bernoulli(torch.full(shape, p), generator=generator).bool().to(device)

    inputs, labels = token_ids.clone(), token_ids.clone()
    chosen = coins(float(rate)) & ~special
    labels[~chosen] = -100
    masked = coins(0.8) & chosen
    inputs[masked] = mask_id
    replaced = coins(0.5) & chosen & ~masked
    words = torch.randint(vocab_size, shape, generator=generator).to(token_ids)
    inputs[replaced] = words[replaced]
    return inputs, labels


def mask_by_one_number(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """One uniform number, cut into four ranges."""
    refuse(rate)
    number = torch.rand(token_ids.shape, generator=generator).to(token_ids.device)
    number = number.masked_fill(special, 1.0)
    words = torch.randint(0, vocab_size, token_ids.shape, generator=generator).to(token_ids)
    inputs = torch.where(number < 0.9 * rate, words, token_ids)
    inputs = torch.where(number < 0.8 * rate, mask_id, inputs)
    return inputs.to(token_ids.dtype), torch.where(number < rate, token_ids, -100)


def mask_of_the_chosen_alone(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """What becomes of a position is drawn for the chosen ones only."""
    refuse(rate)
    chosen = torch.rand(token_ids.shape, generator=generator).to(token_ids.device) < rate
    chosen = chosen.logical_and(special.logical_not())
    labels = torch.full_like(token_ids, -100)
    labels[chosen] = token_ids[chosen]
    found = token_ids[chosen]
    fate = torch.rand(len(found), generator=generator).to(found.device)
    replaced = fate >= 0.9
    found[fate < 0.8] = mask_id
    number = int(replaced.sum())
    found[replaced] = torch.randint(vocab_size, (number,), generator=generator).to(found)
    inputs = token_ids.clone()
    inputs[chosen] = found
    return inputs, labels


def mask_by_multinomial(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """Four outcomes with their probabilities, drawn at once."""
    refuse(rate)
    shares = torch.tensor([1 - rate, 0.8 * rate, 0.1 * rate, 0.1 * rate])
    count = token_ids.numel()
    if not count:
        return token_ids.clone(), token_ids.clone()
    outcome = torch.multinomial(shares, count, replacement=True, generator=generator)
    outcome = outcome.view(token_ids.shape).to(token_ids.device) * ~special
    words = torch.randint(vocab_size, (count,), generator=generator).view(token_ids.shape)
    inputs = token_ids.masked_fill(outcome == 1, mask_id)
    replaced = outcome == 2
    inputs = inputs.masked_scatter(replaced, words.to(token_ids)[replaced])
    return inputs, token_ids.masked_fill(outcome == 0, -100)


def mask_token_by_token(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """A loop that draws only what it needs."""
    refuse(rate)

    def draw():
        return torch.rand((), generator=generator).item()

    inputs, labels = token_ids.flatten().tolist(), [-100] * token_ids.numel()
    barred = special.flatten().tolist()
    for i, token in enumerate(inputs):
        if barred[i] or draw() >= rate:
            continue
        labels[i] = token
        fate = draw()
        if fate < 0.8:
            inputs[i] = mask_id
        elif fate < 0.9:
            inputs[i] = int(torch.randint(vocab_size, (), generator=generator))
    return (
        token_ids.new_tensor(inputs).view(token_ids.shape),
        token_ids.new_tensor(labels).view(token_ids.shape),
    )


def mask_by_lists(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    refuse(rate)
    count = token_ids.numel()
    draws = torch.rand(2, count, generator=generator, dtype=torch.float64).tolist()
    words = torch.randint(vocab_size, (count,), generator=generator).tolist()
    rows = zip(token_ids.flatten().tolist(), special.flatten().tolist(), *draws, words, strict=True)
    pairs = [
        (token, -100)
        if barred or choice >= rate
        else (mask_id if fate < 0.8 else word if fate < 0.9 else token, token)
        for token, barred, choice, fate, word in rows
    ]
    found = torch.tensor(pairs, dtype=token_ids.dtype, device=token_ids.device).view(-1, 2)
    return found[:, 0].reshape(token_ids.shape), found[:, 1].reshape(token_ids.shape)


def mask_with_a_die_of_ten(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """Of ten faces eight say [MASK], one a random id, one leave it."""
    refuse(rate)
    words = torch.empty(token_ids.shape, dtype=torch.int64).random_(
        0, vocab_size, generator=generator
    )
    face = torch.randint(10, token_ids.shape, generator=generator)
    number = torch.empty(token_ids.shape, dtype=torch.float64).uniform_(generator=generator)
    words, face, number = (x.to(token_ids.device) for x in (words, face, number))
    chosen = ~(special | (number >= rate))
    inputs = token_ids * ~(chosen & (face < 9))
    inputs += mask_id * (chosen & (face < 8))
    inputs += (words * (chosen & (face == 8))).to(inputs.dtype)
    return inputs, (token_ids + 100) * chosen - 100


def mask_by_gather(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """Ten candidates for each position; a number from 0 to 9 says which is taken."""
    refuse(rate)
    shape = token_ids.shape
    candidates = token_ids.new_full((10, *shape), mask_id)
    candidates[8] = torch.randint(vocab_size, shape, generator=generator)
    candidates[9] = token_ids
    which = torch.randint(10, (1, *shape), generator=generator).to(token_ids.device)
    found = candidates.gather(0, which).squeeze(0)
    chosen = torch.rand(shape, generator=generator).lt(rate).to(token_ids.device)
    chosen = chosen.masked_fill(special, False)
    return torch.where(chosen, found, token_ids), torch.where(chosen, token_ids, -100)


def mask_by_a_generator_of_its_own(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """The generator gives one number: the seed of another."""
    refuse(rate)
    seed = torch.randint(2**62, (), generator=generator).item()
    own = torch.Generator().manual_seed(seed)
    return mask_by_bernoulli(token_ids, special, mask_id, vocab_size, own, rate)


def mask_by_pythons_random(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    refuse(rate)
    draw = random.Random(int(torch.randint(2**60, (1,), generator=generator)))
    inputs, labels = token_ids.flatten().tolist(), [-100] * token_ids.numel()
    for i in (~special).flatten().nonzero().flatten().tolist():
        if draw.random() < rate:
            labels[i] = inputs[i]
            (fate,) = draw.choices(("mask", "random", "keep"), (8, 1, 1))
            if fate != "keep":
                inputs[i] = mask_id if fate == "mask" else draw.randrange(vocab_size)
    pair = torch.tensor([inputs, labels], dtype=token_ids.dtype, device=token_ids.device)
    return tuple(pair.view(2, *token_ids.shape))


def mask_by_numpy(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    refuse(rate)
    draw = np.random.default_rng(torch.randint(2**60, (4,), generator=generator).tolist())
    ids = token_ids.cpu().numpy()
    chosen = (draw.random(ids.shape) < rate) & ~special.cpu().numpy()
    fate, words = draw.random(ids.shape), draw.integers(vocab_size, size=ids.shape)
    inputs = np.select([chosen & (fate < 0.8), chosen & (fate < 0.9)], [mask_id, words], ids)
    pair = torch.from_numpy(np.stack([inputs, np.where(chosen, ids, -100)]))
    return pair.to(token_ids).unbind(0)


def mask_by_indices(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """Indices of the ordinary positions, thinned out step by step."""
    refuse(rate)
    ids = token_ids.reshape(-1)

    def some(places, p):
        kept = torch.rand(len(places), generator=generator).to(places.device) < p
        return places[kept], places[~kept]

    chosen, _ = some(special.reshape(-1).logical_not().nonzero()[:, 0], rate)
    masked, rest = some(chosen, 0.8)
    replaced, _ = some(rest, 0.5)
    words = torch.randint(vocab_size, replaced.shape, generator=generator).to(ids)
    inputs = ids.index_fill(0, masked, mask_id).index_copy(0, replaced, words)
    labels = torch.full_like(ids, -100).index_put((chosen,), ids[chosen])
    return inputs.view(token_ids.shape), labels.view(token_ids.shape)


# ---- packing -------------------------------------------------------------------------------


def pack_by_appending(a, b, cls_id, sep_id):
    token_ids, segment_ids = [cls_id], [0]
    for token in a:
        token_ids.append(token)
        segment_ids.append(0)
    token_ids.append(sep_id)
    segment_ids.append(0)
    if b is not None:
        for token in b:
            token_ids.append(token)
            segment_ids.append(1)
        token_ids.append(sep_id)
        segment_ids.append(1)
    return token_ids, segment_ids


def pack_by_chain(a, b, cls_id, sep_id):
    pieces = [[cls_id], a, [sep_id]] + ([] if b is None else [b, [sep_id]])
    token_ids = list(itertools.chain.from_iterable(pieces))
    ends = itertools.chain(itertools.repeat(0, len(a) + 2), itertools.repeat(1))
    return token_ids, list(itertools.islice(ends, len(token_ids)))


def pack_by_zip(a, b, cls_id, sep_id):
    pairs = [(token, 0) for token in (cls_id, *a, sep_id)]
    if b is not None:
        pairs.extend((token, 1) for token in (*b, sep_id))
    token_ids, segment_ids = zip(*pairs, strict=True)
    return list(token_ids), list(segment_ids)


def pack_by_insertion(a, b, cls_id, sep_id):
    token_ids = a.copy()
    token_ids.insert(0, cls_id)
    token_ids += [sep_id]
    segment_ids = [0 for _ in token_ids]
    if b is not None:
        token_ids.extend(b)
        token_ids.append(sep_id)
        segment_ids.extend([1] * (len(token_ids) - len(segment_ids)))
    return token_ids, segment_ids


def pack_piece_by_piece(a, b, cls_id, sep_id):
    token_ids, segment_ids = [cls_id], [0]
    for segment, piece in enumerate((a, b)):
        if piece is None:
            break
        token_ids = token_ids + piece + [sep_id]
        segment_ids = segment_ids + [segment] * (len(piece) + 1)
    return token_ids, segment_ids


def pack_by_positions(a, b, cls_id, sep_id):
    """Asks of each position what stands there."""
    end = len(a) + 1
    length = end + 1 + (0 if b is None else len(b) + 1)
    token_ids = [sep_id] * length
    token_ids[0] = cls_id
    token_ids[1:end] = a
    if b is not None:
        token_ids[end + 1 : -1] = b
    return token_ids, [int(i > end) for i in range(length)]


def pack_by_tensors(a, b, cls_id, sep_id):
    def tensor(*ids):
        return torch.tensor(ids, dtype=torch.int64)

    parts = [tensor(cls_id, *a, sep_id)] + ([tensor(*b, sep_id)] if b is not None else [])
    segments = [torch.full_like(part, i) for i, part in enumerate(parts)]
    return torch.cat(parts).tolist(), torch.cat(segments).tolist()


# ---- embeddings ----------------------------------------------------------------------------


class Tables(nn.Module):
    """The parameters of the embeddings."""

    def __init__(self, vocab_size, d_model, max_length=512, num_segments=2, dropout=0.1):
        super().__init__()
        self.norm = nn.LayerNorm(d_model, 1e-12)
        self.segment = nn.Embedding(num_segments, d_model)
        self.position = nn.Embedding(max_length, d_model)
        self.token = nn.Embedding(vocab_size, d_model)
        self.dropout = nn.Dropout(dropout)
        self.max_length = max_length

    def refuse(self, token_ids):
        if token_ids.size(1) > self.max_length:
            raise ValueError(f"{token_ids.size(1)} tokens, but {self.max_length} positions")


class EmbeddingsByFunctions(Tables):
    def forward(self, token_ids, segment_ids=None):
        self.refuse(token_ids)
        x = F.embedding(token_ids, self.token.weight)
        x = x + self.position.weight[: token_ids.size(-1)]
        if segment_ids is None:
            x = x + self.segment.weight[0]
        else:
            x = x + self.segment.weight[segment_ids]
        x = F.layer_norm(x, x.shape[-1:], self.norm.weight, self.norm.bias, eps=1e-12)
        return F.dropout(x, self.dropout.p, self.training)


class EmbeddingsWithPositionsKept(Tables):
    """Positions are a buffer that no checkpoint holds."""

    def __init__(self, vocab_size, d_model, max_length=512, num_segments=2, dropout=0.1):
        super().__init__(vocab_size, d_model, max_length, num_segments, dropout)
        self.register_buffer("positions", torch.arange(max_length), persistent=False)

    def forward(self, token_ids, segment_ids=None):
        length = token_ids.size(1)
        if length > len(self.positions):
            raise ValueError(f"length {length} > max_length {len(self.positions)}")
        segment_ids = token_ids * 0 if segment_ids is None else segment_ids
        x = self.position(self.positions[:length])[None] + self.segment(segment_ids)
        return self.dropout(self.norm(self.token(token_ids) + x))


class EmbeddingsWithBuffersInTheCheckpoint(Tables):
    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        max_length: int = 512,
        num_segments: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(vocab_size, d_model, max_length, num_segments, dropout)
        self.register_buffer("position_ids", torch.arange(max_length).unsqueeze(0))
        self.register_buffer("zeros", torch.zeros_like(self.position_ids))

    def forward(self, token_ids, segment_ids=None):
        self.refuse(token_ids)
        batch, length = token_ids.shape
        if segment_ids is None:
            segment_ids = self.zeros[:, :length].expand(batch, length)
        position_ids = self.position_ids[:, :length].expand(batch, length)
        vectors = self.token(token_ids), self.segment(segment_ids), self.position(position_ids)
        return self.dropout(self.norm(torch.stack(vectors).sum(dim=0)))


class EmbeddingsOneHot(Tables):
    """A row of a table is a one-hot vector times the table."""

    def look_up(self, table, ids):
        return F.one_hot(ids, table.num_embeddings).to(table.weight.dtype) @ table.weight

    def forward(self, token_ids, segment_ids=None):
        self.refuse(token_ids)
        if segment_ids is None:
            segment_ids = torch.zeros_like(token_ids)
        positions = torch.ones_like(token_ids).cumsum(dim=1) - 1
        x = self.look_up(self.token, token_ids) + self.look_up(self.position, positions)
        return self.dropout(self.norm(x + self.look_up(self.segment, segment_ids)))


class EmbeddingsOnChapterFoursNorm(Tables):
    def __init__(self, vocab_size, d_model, max_length=512, num_segments=2, dropout=0.1):
        super().__init__(vocab_size, d_model, max_length, num_segments, dropout)
        self.norm = LayerNorm(d_model, eps=1e-12)

    def forward(self, token_ids, segment_ids=None):
        self.refuse(token_ids)
        positions = torch.arange(token_ids.size(1), device=token_ids.device)
        x = torch.add(self.token(token_ids), self.position(positions.expand_as(token_ids)))
        which = segment_ids if segment_ids is not None else torch.full_like(token_ids, 0)
        return self.dropout(self.norm(torch.add(x, self.segment(which))))


class EmbeddingsSequenceBySequence(Tables):
    def forward(self, token_ids, segment_ids=None):
        self.refuse(token_ids)
        if segment_ids is None:
            segment_ids = torch.zeros_like(token_ids)
        sequences = []
        for ids, segments in zip(token_ids, segment_ids, strict=True):
            positions = torch.arange(len(ids), device=ids.device)
            x = self.token(ids) + self.position(positions) + self.segment(segments)
            sequences.append(self.norm(x))
        return self.dropout(torch.stack(sequences))


class EmbeddingsInPlaceOnTheirOwn(Tables):
    def forward(self, token_ids, segment_ids=None):
        self.refuse(token_ids)
        x = self.token(token_ids)
        x += self.position.weight.narrow(0, 0, token_ids.size(1))
        x += self.segment.weight[:1] if segment_ids is None else self.segment(segment_ids)
        return self.dropout(self.norm(x))


class EmbeddingsInOneTable(Tables):
    """The three tables one below the other: one look-up of three rows for each position."""

    def forward(self, token_ids, segment_ids=None):
        self.refuse(token_ids)
        table = torch.cat([self.token.weight, self.position.weight, self.segment.weight])
        below = self.token.num_embeddings
        positions = torch.arange(token_ids.size(1), device=token_ids.device) + below
        below += self.position.num_embeddings
        if segment_ids is None:
            segment_ids = torch.zeros_like(token_ids)
        rows = torch.stack([token_ids, positions.expand_as(token_ids), segment_ids + below], dim=-1)
        return self.dropout(self.norm(F.embedding(rows, table).sum(dim=-2)))


# ---- model ---------------------------------------------------------------------------------


def gelu_by_erf(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def gelu_by_erfc(x):
    return 0.5 * x * torch.special.erfc(-x * math.sqrt(0.5))


class FusedHeads(nn.Module):
    """Attention on the fused kernel; nothing but the output is returned."""

    def __init__(self, d_model, num_heads, dropout):
        super().__init__()
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(d_model, d_model) for _ in range(4))
        self.heads, self.rate = num_heads, dropout

    def forward(self, x, words):
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.w_q, self.w_k, self.w_v)
        )
        rate = self.rate if self.training else 0.0
        read = F.scaled_dot_product_attention(q, k, v, words[:, None, None], rate)
        return self.w_o(read.transpose(1, 2).flatten(2))


class EinsumHeads(nn.Module):
    def __init__(self, d_model, num_heads, dropout):
        super().__init__()
        for name in ("w_o", "w_v", "w_k", "w_q"):
            self.add_module(name, nn.Linear(d_model, d_model))
        self.heads, self.dropout = num_heads, nn.Dropout(dropout)

    def forward(self, x, words):
        shape = *x.shape[:2], self.heads, x.size(-1) // self.heads
        q, k, v = (layer(x).reshape(shape) for layer in (self.w_q, self.w_k, self.w_v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / shape[-1] ** 0.5
        scores = torch.where(words[:, None, None], scores, -math.inf)
        weights = self.dropout(scores.softmax(dim=-1).nan_to_num(0.0))
        return self.w_o(torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape))


class AdditiveHeads(nn.Module):
    """Barred keys get the smallest number there is added to their score."""

    def __init__(self, d_model, num_heads, dropout):
        super().__init__()
        self.w_q = nn.Linear(d_model, d_model)
        self.w_k = nn.Linear(d_model, d_model)
        self.w_v = nn.Linear(d_model, d_model)
        self.w_o = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)
        self.num_heads = num_heads

    def forward(self, x, words):
        batch, length, d_model = x.shape
        d_head = d_model // self.num_heads

        def split(y):  # (batch * heads, length, d_head)
            y = y.view(batch, length, self.num_heads, d_head).permute(0, 2, 1, 3)
            return y.reshape(-1, length, d_head)

        q, k, v = split(self.w_q(x) / math.sqrt(d_head)), split(self.w_k(x)), split(self.w_v(x))
        barred = (1 - words.to(x.dtype)) * torch.finfo(x.dtype).min
        scores = torch.baddbmm(barred.repeat_interleave(self.num_heads, 0)[:, None], q, k.mT)
        read = torch.bmm(self.dropout(F.softmax(scores, dim=-1)), v)
        read = read.view(batch, self.num_heads, length, d_head).permute(0, 2, 1, 3)
        return self.w_o(read.reshape(batch, length, d_model))


class HeadByHead(nn.Module):
    """A loop over the heads; the output map is applied head by head too, and summed."""

    def __init__(self, d_model, num_heads, dropout):
        super().__init__()
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(d_model, d_model) for _ in range(4))
        self.width, self.dropout = d_model // num_heads, nn.Dropout(dropout)

    def forward(self, x, words):
        parts = (layer(x).split(self.width, dim=-1) for layer in (self.w_q, self.w_k, self.w_v))
        columns = self.w_o.weight.split(self.width, dim=1)
        output = self.w_o.bias
        for q, k, v, column in zip(*parts, columns, strict=True):
            scores = q.matmul(k.transpose(1, 2)) * self.width**-0.5
            # Subtracting what all share changes no weight.
            exponentials = (scores - scores.amax(-1, keepdim=True)).exp() * words[:, None]
            weights = exponentials / exponentials.sum(-1, keepdim=True)
            output = output + self.dropout(weights) @ v @ column.T
        return output


class Layer(nn.Module):
    """The parts of a layer."""

    attention = FusedHeads

    def __init__(self, d_model, num_heads, d_ff, dropout):
        super().__init__()
        self.self_attn = self.attention(d_model, num_heads, dropout)
        self.w_1, self.w_2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.norm1, self.norm2 = (nn.LayerNorm(d_model, eps=1e-12) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, words):
        x = self.norm1(self.dropout(self.self_attn(x, words)) + x)
        return self.norm2(self.dropout(self.w_2(gelu_by_erf(self.w_1(x)))) + x)


class LayerByEinsum(Layer):
    attention = EinsumHeads

    def __init__(self, d_model, num_heads, d_ff, dropout):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.norm1, self.norm2 = LayerNorm(d_model, 1e-12), LayerNorm(d_model, 1e-12)

    def forward(self, x, words):
        x = self.norm1(x + self.dropout(self.self_attn(x, words)))
        hidden = torch.einsum("bli,hi->blh", x, self.w_1.weight) + self.w_1.bias
        hidden = F.gelu(hidden, approximate="none")
        changed = torch.einsum("blh,oh->blo", hidden, self.w_2.weight) + self.w_2.bias
        return self.norm2(x + self.dropout(changed))


class LayerByAdding(Layer):
    attention = AdditiveHeads

    def __init__(self, d_model, num_heads, d_ff, dropout):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.activation = nn.GELU()
        self.dropout1, self.dropout2 = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x, words):
        for function, dropout, norm in (
            (lambda x: self.self_attn(x, words), self.dropout1, self.norm1),
            (lambda x: self.w_2(self.activation(self.w_1(x))), self.dropout2, self.norm2),
        ):
            x = norm(x + dropout(function(x)))
        return x


class LayerHeadByHead(Layer):
    attention = HeadByHead

    def forward(self, x, words):
        rate, training = self.dropout.p, self.training
        # Sums in place, but in tensors that the layer made itself.
        read = F.dropout(self.self_attn(x, words), rate, training).clone()
        read += x
        x = self.norm1(read)
        rows = F.conv1d(x.mT, self.w_1.weight[..., None], self.w_1.bias)
        rows = F.conv1d(gelu_by_erfc(rows), self.w_2.weight[..., None], self.w_2.bias)
        changed = F.dropout(rows.mT, rate, training).clone()
        changed += x
        return self.norm2(changed)


class LayerOfReadyAttention(nn.Module):
    def __init__(self, d_model, num_heads, d_ff, dropout):
        super().__init__()
        self.self_attn = MultiHeadAttention(d_model, num_heads, dropout)
        self.w_1 = nn.Linear(d_model, d_ff)
        self.w_2 = nn.Linear(d_ff, d_model)
        self.norm1 = nn.LayerNorm(d_model, eps=1e-12)
        self.norm2 = nn.LayerNorm(d_model, eps=1e-12)
        self.after_attention = nn.Dropout(dropout)
        self.network = nn.Sequential(self.w_1, nn.GELU(), self.w_2, nn.Dropout(dropout))

    def forward(self, x, words):
        read = self.self_attn(query=x, key=x, value=x, mask=words[:, None, :])[0]
        x = self.norm1(x + self.after_attention(read))
        return self.norm2(x + self.network(x))


class Model(nn.Module):
    """The parts of the model."""

    embedding, layer = EmbeddingsByFunctions, Layer

    def __init__(
        self,
        vocab_size,
        d_model=768,
        num_layers=12,
        num_heads=12,
        d_ff=3072,
        max_length=512,
        num_segments=2,
        dropout=0.1,
        pad_id=0,
    ):
        super().__init__()
        self.pooler = nn.Linear(d_model, d_model)
        self.layers = nn.ModuleList()
        for _ in range(num_layers):
            self.layers.append(self.layer(d_model, num_heads, d_ff, dropout))
        self.embeddings = self.embedding(vocab_size, d_model, max_length, num_segments, dropout)
        self.pad_id, self.num_heads = pad_id, num_heads

    def forward(self, token_ids, segment_ids=None):
        words = token_ids != self.pad_id
        x = self.embeddings(token_ids, segment_ids)
        for layer in self.layers:
            x = layer(x, words)
        return x, self.pooler(x[:, 0]).tanh()


class ModelOnFusedAttention(Model):
    pass


class ModelByEinsum(Model):
    """And the pooled vector of every position, of which the first is taken."""

    embedding, layer = EmbeddingsOnChapterFoursNorm, LayerByEinsum

    def forward(self, token_ids, segment_ids=None):
        x = self.embeddings(token_ids, segment_ids)
        words = token_ids.ne(self.pad_id)
        for layer in self.layers:
            x = layer(x, words)
        return [x, torch.tanh(self.pooler(x)).select(1, 0)]


class ModelWithAdditiveMasks(Model):
    """tanh by the logistic function."""

    embedding, layer = EmbeddingsWithBuffersInTheCheckpoint, LayerByAdding

    def forward(self, token_ids, segment_ids=None):
        hidden, _ = super().forward(token_ids, segment_ids)
        first = F.linear(hidden[:, :1], self.pooler.weight, self.pooler.bias).squeeze(1)
        return hidden, 2 * torch.sigmoid(2 * first) - 1


class ModelHeadByHead(Model):
    embedding, layer = EmbeddingsInOneTable, LayerHeadByHead


class ModelOfReadyAttention(Model):
    embedding, layer = EmbeddingsWithPositionsKept, LayerOfReadyAttention

    def forward(self, token_ids, segment_ids=None):
        mask = padding_mask(token_ids, self.pad_id).squeeze(1)
        hidden = self.embeddings(token_ids, segment_ids)
        for i in range(len(self.layers)):
            hidden = self.layers[i](hidden, mask)
        cls, *_ = hidden.unbind(dim=1)
        return hidden, nn.Tanh()(self.pooler(cls))


class ModelOfCopies(nn.Module):
    """One layer is built, the others are copies of it; pad_id is a buffer."""

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        d_ff: int = 3072,
        max_length: int = 512,
        num_segments: int = 2,
        dropout: float = 0.1,
        pad_id: int = 0,
    ) -> None:
        super().__init__()
        self.embeddings = EmbeddingsOneHot(vocab_size, d_model, max_length, num_segments, dropout)
        layer = LayerOfReadyAttention(d_model, num_heads, d_ff, dropout)
        self.layers = nn.ModuleList([copy.deepcopy(layer) for _ in range(num_layers)])
        self.pooler = nn.Linear(d_model, d_model)
        self.register_buffer("pad_id", torch.tensor(pad_id))

    def forward(self, token_ids, segment_ids=None):
        words = ~(token_ids == self.pad_id)
        hidden = self.embeddings(token_ids, segment_ids)
        for layer in self.layers:
            hidden = layer(hidden, words)
        return hidden, torch.tanh(self.pooler(hidden[:, 0, :]))


class ModelInOne(Model):
    """No part has a forward of its own: the model does it all."""

    def normalize(self, x, norm):
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-12) * norm.weight + norm.bias

    def drop(self, x):
        return F.dropout(x, self.embeddings.dropout.p, self.training)

    def attend(self, x, layers, barred):
        q, k, v = (
            torch.addmm(layer.bias, x.flatten(0, 1), layer.weight.T).view(
                *x.shape[:2], self.num_heads, -1
            )
            for layer in (layers.w_q, layers.w_k, layers.w_v)
        )
        scores = (q[:, :, None] * k[:, None]).sum(-1) / math.sqrt(q.size(-1))  # (b, q, k, heads)
        scores = scores.masked_fill(barred[:, None, :, None], -1e30)
        weights = self.drop(torch.exp(F.log_softmax(scores, dim=2)))
        read = (weights[..., None] * v[:, None]).sum(2).flatten(2)
        return layers.w_o(read)

    def forward(self, token_ids, segment_ids=None):
        tables = self.embeddings
        tables.refuse(token_ids)
        segment_ids = torch.zeros_like(token_ids) if segment_ids is None else segment_ids
        x = tables.token.weight[token_ids] + tables.segment.weight[segment_ids]
        x = x + tables.position.weight[None, : token_ids.size(1)]
        x = self.drop(self.normalize(x, tables.norm))
        for layer in self.layers:
            read = self.attend(x, layer.self_attn, token_ids == self.pad_id)
            x = self.normalize(x + self.drop(read), layer.norm1)
            hidden = layer.w_1(x)
            hidden = layer.w_2(hidden * torch.special.ndtr(hidden))
            x = self.normalize(x + self.drop(hidden), layer.norm2)
        return x, torch.tanh(x[:, 0] @ self.pooler.weight.T + self.pooler.bias)


class ModelSequenceBySequence(Model):
    """Each sequence by itself, and only its words are keys: nothing is left to bar."""

    embedding = EmbeddingsSequenceBySequence

    def attend(self, x, layers, words):
        def split(y):  # (heads, length, d_head)
            return y.unflatten(-1, (self.num_heads, -1)).transpose(0, 1)

        q, k, v = split(layers.w_q(x)), split(layers.w_k(x[words])), split(layers.w_v(x[words]))
        weights = torch.softmax(q @ k.mT / q.size(-1) ** 0.5, dim=-1)
        weights = F.dropout(weights, layers.rate, self.training)
        return layers.w_o((weights @ v).transpose(0, 1).flatten(1))

    def forward(self, token_ids, segment_ids=None):
        sequences = []
        for x, ids in zip(self.embeddings(token_ids, segment_ids), token_ids, strict=True):
            for layer in self.layers:
                read = self.attend(x, layer.self_attn, ids != self.pad_id)
                x = layer.norm1(x + layer.dropout(read))
                x = layer.norm2(x + layer.dropout(layer.w_2(F.gelu(layer.w_1(x)))))
            sequences.append(x)
        hidden = torch.stack(sequences)
        return hidden, torch.tanh(self.pooler(hidden[:, 0]))


class ModelOfOneLongSequence(Model):
    """All sequences in one; who may read whom says where each of them ends."""

    embedding = EmbeddingsInPlaceOnTheirOwn

    def forward(self, token_ids, segment_ids=None):
        batch, length = token_ids.shape
        x = self.embeddings(token_ids, segment_ids).flatten(0, 1)
        row = torch.arange(batch, device=x.device).repeat_interleave(length)
        may = (row[:, None] == row) & (token_ids != self.pad_id).flatten()
        for layer in self.layers:
            own = layer.self_attn
            q, k, v = (
                part.reshape(len(x), self.num_heads, -1).permute(1, 0, 2)
                for part in (own.w_q(x), own.w_k(x), own.w_v(x))
            )
            rate = own.rate * self.training
            read = F.scaled_dot_product_attention(q[None], k[None], v[None], may, rate)
            read = own.w_o(read[0].permute(1, 0, 2).reshape(x.shape))
            x = layer.norm1(x + layer.dropout(read))
            x = layer.norm2(x + layer.dropout(layer.w_2(F.gelu(layer.w_1(x)))))
        hidden = x.view(batch, length, -1)
        first = x[::length] if length else x
        return hidden, self.pooler(first).tanh()


# ---- heads ---------------------------------------------------------------------------------


class HeadParts(nn.Module):
    """The parameters of the head."""

    def __init__(self, d_model, vocab_size):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.norm = nn.LayerNorm(d_model, eps=1e-12)
        self.dense = nn.Linear(d_model, d_model)


class HeadByLinear(HeadParts):
    def forward(self, hidden, embedding):
        return F.linear(self.norm(F.gelu(self.dense(hidden))), embedding, self.bias)


class HeadByEinsum(HeadParts):
    def forward(self, hidden, embedding):
        x = torch.einsum("...i,oi->...o", hidden, self.dense.weight) + self.dense.bias
        x = self.norm(gelu_by_erf(x))
        return torch.einsum("...d,vd->...v", x, embedding) + self.bias


class HeadOnChapterFoursNorm(HeadParts):
    def __init__(self, d_model, vocab_size):
        super().__init__(d_model, vocab_size)
        self.norm = LayerNorm(d_model, 1e-12)
        self.transform = nn.Sequential(self.dense, nn.GELU(), self.norm)

    def forward(self, hidden, embedding):
        return torch.matmul(self.transform(hidden), embedding.transpose(0, 1)).add(self.bias)


class HeadOfRows(HeadParts):
    def forward(self, hidden, embedding):
        rows = hidden.reshape(-1, hidden.size(-1))
        x = torch.addmm(self.dense.bias, rows, self.dense.weight.t())
        x = F.layer_norm(gelu_by_erfc(x), x.shape[1:], self.norm.weight, self.norm.bias, 1e-12)
        logits = torch.addmm(self.bias, x, embedding.t())
        return logits.view(*hidden.shape[:-1], len(embedding))


class HeadInParts(HeadParts):
    """The vocabulary is worked off in pieces."""

    def forward(self, hidden, embedding):
        x = self.dense(hidden)
        x = self.norm(x * torch.special.ndtr(x))
        pieces = zip(embedding.split(5), self.bias.split(5), strict=True)
        return torch.cat([x @ rows.mT + bias for rows, bias in pieces], dim=-1)


class HeadByTensordot(HeadParts):
    def forward(self, hidden, embedding):
        x = F.gelu(self.dense(hidden), approximate="none")
        centered = x - x.mean(dim=-1, keepdim=True)
        variance = centered.square().mean(dim=-1, keepdim=True)
        x = self.norm.weight * centered / (variance + 1e-12).sqrt() + self.norm.bias
        logits = torch.tensordot(x, embedding, dims=([-1], [1]))
        logits += self.bias
        return logits


class Following(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.classifier = nn.Linear(d_model, 2)


class FollowingByLinear(Following):
    def forward(self, pooled):
        return F.linear(pooled, self.classifier.weight, self.classifier.bias)


class FollowingByEinsum(Following):
    def forward(self, pooled):
        return torch.einsum("bd,cd->bc", pooled, self.classifier.weight) + self.classifier.bias


class FollowingByTwoProducts(Following):
    def forward(self, pooled):
        pairs = zip(self.classifier.weight, self.classifier.bias, strict=True)
        return torch.stack([pooled @ row + bias for row, bias in pairs], dim=-1)


class FollowingInSequence(nn.Sequential):
    """No forward of its own."""

    def __init__(self, d_model):
        super().__init__(OrderedDict(classifier=nn.Linear(d_model, 2)))


class FollowingByAddmm(Following):
    def forward(self, pooled):
        return torch.addmm(self.classifier.bias, pooled, self.classifier.weight.mT)


class FollowingRowByRow(Following):
    def forward(self, pooled):
        return torch.stack([self.classifier(row) for row in pooled])


ALTERNATIVES = {
    "bert/mask_tokens": [
        mask_by_bernoulli,
        mask_by_one_number,
        mask_of_the_chosen_alone,
        mask_by_multinomial,
        mask_token_by_token,
        mask_by_lists,
        mask_with_a_die_of_ten,
        mask_by_gather,
        mask_by_a_generator_of_its_own,
        mask_by_pythons_random,
        mask_by_numpy,
        mask_by_indices,
    ],
    "bert/pack_pair": [
        pack_by_appending,
        pack_by_chain,
        pack_by_zip,
        pack_by_insertion,
        pack_piece_by_piece,
        pack_by_positions,
        pack_by_tensors,
    ],
    "bert/BertEmbeddings": [
        EmbeddingsByFunctions,
        EmbeddingsWithPositionsKept,
        EmbeddingsWithBuffersInTheCheckpoint,
        EmbeddingsOneHot,
        EmbeddingsOnChapterFoursNorm,
        EmbeddingsSequenceBySequence,
        EmbeddingsInPlaceOnTheirOwn,
        EmbeddingsInOneTable,
    ],
    "bert/BertModel": [
        ModelOnFusedAttention,
        ModelByEinsum,
        ModelWithAdditiveMasks,
        ModelHeadByHead,
        ModelOfReadyAttention,
        ModelOfCopies,
        ModelInOne,
        ModelSequenceBySequence,
        ModelOfOneLongSequence,
    ],
    "bert/MaskedLanguageModelHead": [
        HeadByLinear,
        HeadByEinsum,
        HeadOnChapterFoursNorm,
        HeadOfRows,
        HeadInParts,
        HeadByTensordot,
    ],
    "bert/NextSentenceHead": [
        FollowingByLinear,
        FollowingByEinsum,
        FollowingByTwoProducts,
        FollowingInSequence,
        FollowingByAddmm,
        FollowingRowByRow,
    ],
}
