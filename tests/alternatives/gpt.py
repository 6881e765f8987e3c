"""Other right ways to write chapter 6."""

import functools
import heapq
import math
from collections import Counter, defaultdict, namedtuple
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from workbook.ready.attention import causal_mask
from workbook.ready.multi_head import MultiHeadAttention

# ---- byte-pair encoding --------------------------------------------------------------------


def join_on_a_stack(pieces, pair):
    stack = []
    for piece in pieces:
        # What has just been joined is longer than either half, so it is never taken for one.
        if stack and (stack[-1], piece) == pair:
            stack[-1] += piece
        else:
            stack.append(piece)
    return stack


def join_in_place(pieces, pair):
    """Of a list that the caller made itself."""
    at = 0
    while at < len(pieces) - 1:
        if pieces[at] == pair[0] and pieces[at + 1] == pair[1]:
            pieces[at : at + 2] = ["".join(pair)]
        at += 1


def join_by_an_iterator(pieces, pair):
    rest = iter(pieces)
    held = next(rest, None)
    while held is not None:
        piece = next(rest, None)
        if (held, piece) == pair:
            yield held + piece
            held = next(rest, None)
        else:
            yield held
            held = piece


def learn_bpe_by_tuples(words, num_merges):
    """A vocabulary of tuples with counts that is made anew in each step."""
    vocabulary = [(tuple(word), count) for word, count in words.items()]
    merges = []
    while len(merges) < num_merges:
        counts = defaultdict(int)
        for pieces, count in vocabulary:
            for i in range(len(pieces) - 1):
                counts[pieces[i], pieces[i + 1]] += count
        if len(counts) == 0:
            return merges
        most = max(counts.values())
        pair = min(p for p in counts if counts[p] == most)
        merges.append(pair)
        vocabulary = [(tuple(join_on_a_stack(p, pair)), n) for p, n in vocabulary]
    return merges


def learn_bpe_by_sorting(words, num_merges):
    """In place, on lists of its own; sorts twice, which keeps the first order among equals."""
    split, merges = [[list(word), count] for word, count in words.items()], []
    for _ in range(num_merges):
        counts = Counter()
        for pieces, count in split:
            for pair, often in Counter(pairwise(pieces)).items():
                counts[pair] += often * count
        ranked = sorted(sorted(counts), key=counts.get, reverse=True)
        if not ranked:
            break
        merges.append(ranked[0])
        for pieces, _count in split:
            join_in_place(pieces, ranked[0])
    return merges


def learn_bpe_incrementally(words, num_merges):
    """Counts are kept; only words that hold the pair are counted anew."""
    split = {word: list(word) for word in words}
    counts, holders = Counter(), defaultdict(set)

    def count(word, sign):
        for pair in pairwise(split[word]):
            counts[pair] += sign * words[word]
            (holders[pair].add if sign > 0 else holders[pair].discard)(word)

    for word in words:
        count(word, 1)
    merges = []
    while len(merges) < num_merges:
        alive = [pair for pair in holders if holders[pair]]
        if not alive:
            break
        pair = min(alive, key=lambda pair: (-counts[pair], *pair))
        merges.append(pair)
        for word in list(holders[pair]):
            count(word, -1)
            split[word] = list(join_by_an_iterator(split[word], pair))
            count(word, 1)
    return merges


def learn_bpe_on_a_heap(words, num_merges):
    """A queue in which counts may be out of date: these are put back."""
    split = {word: list(word) for word in words}
    counts = Counter()
    for word, count in words.items():
        for pair in pairwise(word):
            counts[pair] += count
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    merges = []
    while queue and len(merges) < num_merges:
        count, pair = heapq.heappop(queue)
        if -count != counts[pair]:
            continue
        if not any(pair in pairwise(pieces) for pieces in split.values()):
            continue
        merges.append(pair)
        changed = Counter()
        for word, pieces in split.items():
            if pair not in pairwise(pieces):
                continue
            for old in pairwise(pieces):
                changed[old] -= words[word]
            split[word] = join_on_a_stack(pieces, pair)
            for new in pairwise(split[word]):
                changed[new] += words[word]
        for other, change in changed.items():
            counts[other] += change
            heapq.heappush(queue, (-counts[other], other))
    return merges


def learn_bpe_by_recursion(words, num_merges):
    def step(split, left):
        counts = {}
        for pieces, count in split:
            for pair in pairwise(pieces):
                counts[pair] = counts.get(pair, 0) + count
        if left <= 0 or not counts:
            return []
        (_, pair), *_ = sorted((-count, pair) for pair, count in counts.items())
        return [pair, *step([(join_on_a_stack(p, pair), n) for p, n in split], left - 1)]

    return step([(list(word), count) for word, count in words.items()], num_merges)


def learn_bpe_by_cuts(words, num_merges):
    """A word stays whole; what is kept is where it is cut."""
    cuts, merges = {word: list(range(len(word) + 1)) for word in words}, []

    def pairs(word):
        at = cuts[word]
        for i in range(len(at) - 2):
            yield word[at[i] : at[i + 1]], word[at[i + 1] : at[i + 2]]

    def compare(one, other):
        if one[1] != other[1]:
            return other[1] - one[1]
        return -1 if one[0] < other[0] else 1

    for _ in range(num_merges):
        counts = Counter()
        for word in words:
            for pair in pairs(word):
                counts.update({pair: words[word]})
        if not counts:
            break
        best, _ = sorted(counts.items(), key=functools.cmp_to_key(compare))[0]
        merges.append(best)
        for word in words:
            drop, i = set(), 0
            found = list(pairs(word))
            while i < len(found):
                if found[i] == best:
                    drop.add(cuts[word][i + 1])
                    i += 1
                i += 1
            cuts[word] = [cut for cut in cuts[word] if cut not in drop]
    return merges


def apply_bpe_on_a_stack(word, merges):
    return functools.reduce(join_on_a_stack, merges, list(word))


def apply_bpe_in_place(word, merges):
    pieces = [*word]
    for pair in merges:
        join_in_place(pieces, pair)
    return pieces


def apply_bpe_by_rank(word, merges):
    """As GPT-2's own code: of the pairs that are there, the one that was learned first."""
    rank = {pair: i for i, pair in enumerate(merges)}
    pieces = list(word)
    while len(pieces) > 1:
        pair = min(pairwise(pieces), key=lambda pair: rank.get(pair, math.inf))
        if pair not in rank:
            break
        pieces = list(join_by_an_iterator(pieces, pair))
    return pieces


def apply_bpe_one_at_a_time(word, merges):
    """The lowest rank, and of its places the first; then look again."""
    rank = {pair: i for i, pair in enumerate(merges)}
    pieces = list(word)
    while True:
        places = [(rank[pair], i) for i, pair in enumerate(pairwise(pieces)) if pair in rank]
        if not places:
            return pieces
        _, i = min(places)
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]


def apply_bpe_by_recursion(word, merges):
    def split(pieces, at):
        return pieces if at == len(merges) else split(join(pieces, *merges[at]), at + 1)

    def join(pieces, left, right):
        for i in range(len(pieces) - 1):
            if pieces[i] == left and pieces[i + 1] == right:
                return [*pieces[:i], left + right, *join(pieces[i + 2 :], left, right)]
        return pieces

    return split(list(word), 0)


def apply_bpe_by_cuts(word, merges):
    cuts = list(range(len(word) + 1))
    for left, right in merges:
        i = 1
        while i < len(cuts) - 1:
            if word[cuts[i - 1] : cuts[i]] == left and word[cuts[i] : cuts[i + 1]] == right:
                del cuts[i]
            i += 1
    return [word[a:b] for a, b in pairwise(cuts)]


# ---- GPTBlock ------------------------------------------------------------------------------


class FusedAttention(nn.Module):
    """One product for all three maps, and the fused kernel."""

    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__()
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(d_model, d_model) for _ in range(4))
        self.heads, self.rate = num_heads, dropout

    def forward(self, x):
        layers = (self.w_q, self.w_k, self.w_v)
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in F.linear(x, weight, bias).chunk(3, dim=-1)
        )
        rate = self.rate if self.training else 0.0
        read = F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=True)
        return self.w_o(read.transpose(1, 2).flatten(2))


class HeadByHead(nn.Module):
    """A loop over heads, and a mask of zeros and −inf that is kept and grows."""

    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__()
        for name in ("w_o", "w_v", "w_k", "w_q"):
            setattr(self, name, nn.Linear(d_model, d_model))
        self.width = d_model // num_heads
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("barred", torch.zeros(1, 1), persistent=False)

    def forward(self, x):
        length = x.size(1)
        if length > len(self.barred):
            full = torch.full((length, length), -math.inf, dtype=x.dtype, device=x.device)
            self.barred = full.triu(1)
        barred = self.barred[:length, :length].to(x)
        q, k, v = self.w_q(x), self.w_k(x), self.w_v(x)
        read = []
        for a in range(0, x.size(-1), self.width):
            part = slice(a, a + self.width)
            scores = q[..., part] @ k[..., part].mT / math.sqrt(self.width) + barred
            read.append(self.dropout(scores.softmax(dim=-1)) @ v[..., part])
        return self.w_o(torch.cat(read, dim=-1))


class EinsumAttention(nn.ModuleDict):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__({f"w_{name}": nn.Linear(d_model, d_model) for name in "qkvo"})
        self.heads, self.rate = num_heads, dropout

    def forward(self, x):
        batch, length, width = x.shape
        shape = batch, length, self.heads, width // self.heads
        q, k, v = (self[f"w_{name}"](x).reshape(shape) for name in "qkv")
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * shape[-1] ** -0.5
        at = torch.arange(length, device=x.device)
        scores = torch.where(at[:, None] >= at[None, :], scores, -math.inf)
        scores = scores - scores.amax(dim=-1, keepdim=True)
        weights = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
        weights = F.dropout(weights, self.rate, self.training)
        return self["w_o"](torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape))


class QueryByQuery(nn.Module):
    """Each position is given no more than it may read: there is nothing to mask."""

    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__()
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(d_model, d_model) for _ in range(4))
        self.heads, self.dropout = num_heads, nn.Dropout(dropout)

    def forward(self, x):
        q, k, v = (
            torch.stack(layer(x).chunk(self.heads, dim=-1), dim=1)
            for layer in (self.w_q, self.w_k, self.w_v)
        )
        rows = []
        for t in range(x.size(1)):
            scores = q[:, :, t : t + 1] @ k[:, :, : t + 1].mT * q.size(-1) ** -0.5
            rows.append(self.dropout(scores.softmax(-1)) @ v[:, :, : t + 1])
        return self.w_o(torch.cat(torch.cat(rows, dim=2).unbind(dim=1), dim=-1))


class BlockBase(nn.Module):
    attention = MultiHeadAttention

    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__()
        self.self_attn = self.attention(d_model, num_heads, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.w_1, self.w_2 = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)
        self.dropout, self.rate = nn.Dropout(dropout), dropout


class BlockOnTheFusedKernel(BlockBase):
    attention = FusedAttention

    def forward(self, x):
        size = x.shape[-1:]
        y = F.layer_norm(x, size, self.norm1.weight, self.norm1.bias, self.norm1.eps)
        x = x + F.dropout(self.self_attn(y), self.rate, self.training)
        y = F.layer_norm(x, size, self.norm2.weight, self.norm2.bias, self.norm2.eps)
        y = F.gelu(F.linear(y, self.w_1.weight, self.w_1.bias), approximate="tanh")
        y = F.linear(y, self.w_2.weight, self.w_2.bias)
        return x + F.dropout(y, p=self.rate, training=self.training)


class BlockWithItsOwnGelu(BlockBase):
    attention = HeadByHead

    @staticmethod
    def gelu(z):
        return 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))

    def forward(self, x):
        x = self.dropout(self.self_attn(self.norm1(x))) + x
        return self.dropout(self.w_2(self.gelu(self.w_1(self.norm2(x))))) + x


class BlockByEinsum(BlockBase):
    """The GELU as a sigmoid: (1 + tanh u) / 2 is sigmoid(2u). The norms by hand."""

    attention = EinsumAttention

    @staticmethod
    def normal(x, norm):
        variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-5) * norm.weight + norm.bias

    def forward(self, x):
        read = self.self_attn(self.normal(x, self.norm1))
        y = torch.add(x, self.dropout(read))
        z = torch.einsum("bld,hd->blh", self.normal(y, self.norm2), self.w_1.weight)
        z = z + self.w_1.bias
        z = z * torch.sigmoid(2 * math.sqrt(2 / math.pi) * z * (1 + 0.044715 * z * z))
        z = torch.einsum("blh,dh->bld", z, self.w_2.weight) + self.w_2.bias
        return torch.add(y, self.dropout(z))


class BlockByOneRule(BlockBase):
    """Both sublayers go through one function; the query is stepped through."""

    attention = QueryByQuery

    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.act = nn.GELU("tanh")

    def sublayer(self, x, norm, function):
        return x + self.dropout(function(norm(x)))

    def forward(self, x):
        x = self.sublayer(x, self.norm1, self.self_attn)
        return self.sublayer(x, self.norm2, lambda y: self.w_2(self.act(self.w_1(y))))


class BlockSequenceBySequence(BlockBase):
    """One sequence at a time, with a mask of three axes; sums in place in its own tensors."""

    def forward(self, x):
        triangle = torch.ones(1, x.size(1), x.size(1), dtype=torch.bool, device=x.device).tril()
        outputs = []
        for row in x.split(1):
            y = self.norm1(row)
            read = self.dropout(self.self_attn(y, y, y, mask=triangle)[0]).clone()
            read += row
            hidden = nn.functional.gelu(self.w_1(self.norm2(read)), approximate="tanh")
            outputs.append(read.add(self.dropout(self.w_2(hidden))))
        return torch.cat(outputs)


class BlockThatKeepsItsMask(BlockBase):
    """The mask of the longest input so far is kept outside the parameters."""

    mask = None

    def forward(self, x):
        length = x.shape[-2]
        if self.mask is None or self.mask.size(0) < length or self.mask.device != x.device:
            self.mask = causal_mask(2 * length).to(x.device)
        y = self.norm1(x)
        output, _weights = self.self_attn(y, y, y, self.mask[:length, :length])
        x = x + self.dropout(output)
        z = self.norm2(x)
        for step in (self.w_1, functools.partial(F.gelu, approximate="tanh"), self.w_2):
            z = step(z)
        return x + self.dropout(z)


# ---- GPT -----------------------------------------------------------------------------------


def start(model, num_layers):
    """GPT-2's initial values, module by module."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            last = name.rsplit(".", 1)[-1]
            deviation = 0.02 / math.sqrt(2 * num_layers) if last in ("w_o", "w_2") else 0.02
            nn.init.normal_(module.weight, mean=0.0, std=deviation)
            nn.init.constant_(module.bias, 0.0)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)


class ModelBase(nn.Module):
    block = BlockThatKeepsItsMask

    def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
        super().__init__()
        self.token = nn.Embedding(vocab_size, d_model)
        self.position = nn.Embedding(context, d_model)
        self.blocks = nn.ModuleList(
            [self.block(d_model, num_heads, dropout) for _ in range(num_layers)]
        )
        self.norm = nn.LayerNorm(d_model)
        self.dropout, self.rate = nn.Dropout(dropout), dropout
        self.context = context
        start(self, num_layers)

    def refuse(self, length):
        raise ValueError(f"got {length} tokens, but the context has {self.context}")


class ModelOfSlices(ModelBase):
    """The first rows of the table are the positions; F.linear with the table is the output."""

    block = BlockOnTheFusedKernel

    def forward(self, token_ids):
        length = token_ids.size(-1)
        if length > self.context:
            self.refuse(length)
        x = self.dropout(self.token(token_ids) + self.position.weight[:length])
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.token.weight)


class ModelByIndices(ModelBase):
    block = BlockByEinsum

    def forward(self, token_ids):
        if (length := token_ids.shape[-1]) > self.position.num_embeddings:
            raise ValueError(f"length {length} > context {self.position.num_embeddings}")
        at = torch.arange(length, device=token_ids.device).expand_as(token_ids)
        x = self.token.weight[token_ids] + self.position.weight[at]
        x = F.dropout(x, self.rate, self.training)
        x = functools.reduce(lambda x, block: block(x), self.blocks, x)
        return torch.einsum("bld,vd->blv", self.norm(x), self.token.weight)


class ModelByOneHotVectors(ModelBase):
    block = BlockByOneRule

    def forward(self, token_ids):
        length = token_ids.size(1)
        if not length <= self.context:
            raise ValueError(f"{self.context} is the context, {length} the length")
        table = self.token.weight
        words = F.one_hot(token_ids.long(), len(table)).to(table.dtype) @ table
        x = self.dropout(words + self.position.weight.narrow(0, 0, length).unsqueeze(0))
        for i in range(len(self.blocks)):
            x = self.blocks[i](x)
        x = F.layer_norm(x, (x.size(-1),), self.norm.weight, self.norm.bias)
        return torch.matmul(x, table.t())


class ModelOfAnyDepth(ModelBase):
    """Positions by counting up; ids of any leading shape are flattened and put back."""

    block = BlockWithItsOwnGelu

    def forward(self, token_ids):
        if token_ids.size(1) > self.context:
            self.refuse(token_ids.size(1))
        counted = torch.ones_like(token_ids).cumsum(dim=1) - 1
        x = F.embedding(token_ids, self.token.weight) + F.embedding(counted, self.position.weight)
        x = self.dropout(x)
        for block in self.blocks.children():
            x = block(x)
        flat = self.norm(x).flatten(0, 1)
        scores = torch.mm(flat, self.token.weight.transpose(0, 1))
        return scores.view(*token_ids.shape, -1)


class ModelWithABuffer(ModelBase):
    """Positions as a buffer; blocks that were built and appended one by one."""

    block = BlockSequenceBySequence

    def __init__(
        self,
        vocab_size: int,
        context: int,
        d_model: int,
        num_layers: int,
        num_heads: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(vocab_size, context, d_model, 0, num_heads, dropout)
        for _ in range(num_layers):
            self.blocks.append(self.block(d_model, num_heads, dropout))
        start(self, num_layers)
        self.register_buffer("positions", torch.arange(context)[None], persistent=False)

    def forward(self, token_ids):
        length = token_ids.shape[1]
        if length > self.context:
            self.refuse(length)
        x = self.position(self.positions[:, :length]) + self.token(token_ids)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return (x[:, :, None] * self.token.weight).sum(dim=-1)


# ---- the loss ------------------------------------------------------------------------------


def loss_by_gather(logits, token_ids):
    log_p = F.log_softmax(logits[:, :-1], dim=-1)
    return -log_p.gather(-1, token_ids[:, 1:].unsqueeze(-1)).mean()


def loss_by_logsumexp(logits, token_ids):
    before = logits[:, :-1, :]
    rows = torch.arange(len(token_ids), device=logits.device)[:, None]
    columns = torch.arange(before.size(1), device=logits.device)
    own = before[rows, columns, token_ids[:, 1:]]
    return (torch.logsumexp(before, dim=-1) - own).mean()


def loss_with_classes_on_axis_1(logits, token_ids):
    return nn.CrossEntropyLoss()(logits.transpose(1, 2)[..., :-1], token_ids[:, 1:])


def loss_with_an_ignored_label(logits, token_ids):
    """As Hugging Face's models: labels move to the left, and nothing follows the last."""
    labels = F.pad(token_ids[:, 1:], (0, 1), value=-100)
    return F.cross_entropy(logits.reshape(-1, logits.size(-1)), labels.reshape(-1))


def loss_by_one_hot(logits, token_ids):
    targets = F.one_hot(token_ids[:, 1:], logits.size(-1)).to(logits.dtype)
    shifted = logits - logits.amax(dim=-1, keepdim=True).detach()
    log_p = shifted - shifted.exp().sum(dim=-1, keepdim=True).log()
    total = torch.einsum("blv,blv->", log_p[:, :-1], targets)
    return -total / (token_ids.size(0) * (token_ids.size(1) - 1))


def loss_step_by_step(logits, token_ids):
    losses = []
    for t in range(token_ids.shape[1] - 1):
        losses.append(F.cross_entropy(logits[:, t], token_ids[:, t + 1]))
    return torch.stack(losses).mean()


def loss_row_by_row(logits, token_ids):
    """All rows are equally long, so the mean of their means is the mean."""
    log_p = logits.log_softmax(-1)
    rows = [F.nll_loss(p[:-1], ids[1:]) for p, ids in zip(log_p, token_ids, strict=True)]
    return sum(rows) / len(rows)


def loss_as_a_sum(logits, token_ids):
    number = logits.size(1) - 1
    before, after = logits.narrow(1, 0, number), token_ids.narrow(1, 1, number)
    total = F.cross_entropy(before.reshape(after.numel(), -1), after.reshape(-1), reduction="sum")
    return total / after.numel()


# ---- filtering -----------------------------------------------------------------------------


def refuse_knobs(temperature, top_k, top_p):
    if not temperature > 0:
        raise ValueError("temperature must be above 0")
    if top_k is not None and top_k <= 0:
        raise ValueError("top_k must be at least 1")
    if top_p is not None and (top_p <= 0 or top_p > 1):
        raise ValueError("top_p must lie in (0, 1]")


def filter_in_sorted_order(logits, temperature=1.0, top_k=None, top_p=None):
    """Cuts sorted values, and undoes the sorting with a second one."""
    refuse_knobs(temperature, top_k, top_p)
    values, ids = torch.sort(logits / temperature, dim=-1, descending=True, stable=True)
    if top_k is not None:
        last = values[..., [min(top_k, values.size(-1)) - 1]]
        values = torch.where(values >= last, values, -math.inf)
    if top_p is not None:
        p = values.double().softmax(-1)
        before = p.cumsum(-1) - p
        # What is left of a difference of equal sums is no token's probability.
        values = values.masked_fill((before >= top_p - 1e-12) & (top_p < 1), -math.inf)
    return values.gather(-1, ids.argsort(dim=-1))


def filter_by_keeping(logits, temperature=1.0, top_k=None, top_p=None):
    """Starts from −inf everywhere, and puts in what is kept."""
    refuse_knobs(temperature, top_k, top_p)
    scaled = torch.true_divide(logits, temperature)
    if top_k is not None and top_k < scaled.shape[-1]:
        kth = scaled.kthvalue(scaled.shape[-1] - top_k + 1, dim=-1, keepdim=True).values
        scaled = torch.full_like(scaled, -math.inf).where(scaled < kth, scaled)
    if top_p is None or top_p == 1:
        return scaled
    values, ids = scaled.sort(dim=-1, descending=True, stable=True)
    sums = torch.cumsum(torch.softmax(values, dim=-1, dtype=torch.float64), dim=-1)
    number = (sums < top_p).sum(dim=-1, keepdim=True) + 1
    kept = torch.arange(values.size(-1), device=values.device) < number
    return torch.full_like(scaled, -math.inf).scatter(-1, ids, values.masked_fill(~kept, -math.inf))


def filter_by_thresholds(logits, temperature=1.0, top_k=None, top_p=None):
    """A token is kept above a value; of those that equal it, the first so many."""
    refuse_knobs(temperature, top_k, top_p)
    x = logits.div(temperature)
    if top_k is not None:
        k = min(top_k, x.size(-1))
        x = x.masked_fill(x < torch.topk(x, k, dim=-1).values.amin(dim=-1, keepdim=True), -math.inf)
    if top_p is not None and top_p < 1:
        ordered = x.sort(dim=-1, descending=True).values
        sums = ordered.double().softmax(-1).cumsum(-1)
        last = (sums < top_p).sum(-1, keepdim=True).clamp(max=x.size(-1) - 1)
        value = ordered.gather(-1, last)
        above, equal = x > value, x == value
        room = last + 1 - above.sum(-1, keepdim=True)
        x = torch.where(above | (equal & (equal.cumsum(-1) <= room)), x, -math.inf)
    return x


def filter_row_by_row(logits, temperature=1.0, top_k=None, top_p=None):
    """Lists of numbers, exact sums, and a while loop; on a copy of its own."""
    refuse_knobs(temperature, top_k, top_p)
    scaled = (logits / temperature).clone()
    for row in scaled.view(-1, scaled.size(-1)):
        values = row.tolist()
        alive = sorted(range(len(values)), key=lambda i: (-values[i], i))
        if top_k is not None:
            kth = values[alive[min(top_k, len(alive)) - 1]]
            alive = [i for i in alive if values[i] >= kth]
        if top_p is not None:
            weights = [math.exp(values[i] - values[alive[0]]) for i in alive]
            total, number, reached = math.fsum(weights), 0, 0.0
            while number < len(alive) and (top_p == 1 or reached / total < top_p):
                reached += weights[number]
                number += 1
            alive = alive[:number]
        barred = torch.ones_like(row, dtype=torch.bool)
        barred[alive] = False
        row[barred] = -math.inf
    return scaled


def filter_one_after_the_other(logits, temperature=1.0, top_k=None, top_p=None):
    """Takes the most probable token, again and again, from all rows at once."""
    refuse_knobs(temperature, top_k, top_p)
    scaled = logits / temperature
    if top_k is not None:
        kth = scaled.sort(dim=-1).values[..., -min(top_k, scaled.size(-1)), None]
        scaled = scaled.masked_fill(~(scaled >= kth), -math.inf)
    if top_p is None or top_p == 1:
        return scaled
    p = scaled.double().softmax(dim=-1)
    kept, reached = torch.zeros_like(p, dtype=torch.bool), torch.zeros_like(p[..., :1])
    while (short := (reached < top_p) & ~kept.all(dim=-1, keepdim=True)).any():
        left = torch.where(kept, -1.0, p)
        largest = left == left.amax(dim=-1, keepdim=True)
        # The first of the largest, without trust in argmax.
        first = largest & (largest.cumsum(dim=-1) == 1) & short
        kept |= first
        reached = reached + (p * first).sum(dim=-1, keepdim=True)
    return scaled.masked_fill(kept.logical_not(), -math.inf)


def filter_from_the_small_end(logits, temperature=1.0, top_k=None, top_p=None):
    """As Hugging Face: sums begin with the least probable. Turned around for equal ones."""
    refuse_knobs(temperature, top_k, top_p)
    scaled = logits / temperature
    if top_k is not None:
        kth = scaled.topk(min(top_k, scaled.size(-1)), dim=-1)[0][..., -1, None]
        scaled = torch.where(scaled < kth, torch.tensor(-math.inf).to(scaled), scaled)
    if top_p is not None and top_p < 1:
        turned = scaled.flip(-1)
        values, ids = turned.sort(dim=-1, stable=True)
        cut = values.double().softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p + 1e-12
        cut[..., -1] = False
        cut = torch.empty_like(cut).scatter_(-1, ids, cut).flip(-1)
        scaled = scaled.masked_fill(cut, -math.inf)
    return scaled


# ---- generation ----------------------------------------------------------------------------


def generate_into_a_tensor(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    """The result has its full length from the start; the mode is restored whatever happens."""
    batch, length = token_ids.shape
    ids = token_ids.new_zeros(batch, length + max_new_tokens)
    ids[:, :length] = token_ids
    was_training = model.training
    try:
        model.eval()
        with torch.no_grad():
            for at in range(length, length + max_new_tokens):
                scores = model(ids[:, max(0, at - model.context) : at])[:, -1, :]
                if temperature == 0:
                    ids[:, at] = scores.argmax(dim=-1)
                    continue
                scores = filter_by_keeping(scores, temperature, top_k, top_p)
                p = torch.softmax(scores, dim=-1)
                ids[:, at] = torch.multinomial(p, 1, generator=generator).squeeze(1)
    finally:
        model.train(was_training)
    return ids


@torch.inference_mode()
def generate_in_inference_mode(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    training = model.training
    model.eval()
    for _ in range(max_new_tokens):
        window = token_ids if token_ids.size(1) <= model.context else token_ids[:, -model.context :]
        last = model(window).select(1, -1)
        if temperature:
            last = filter_by_thresholds(last, temperature, top_k, top_p)
            new = last.softmax(-1).multinomial(1, generator=generator)
        else:
            new = last.sort(dim=-1, descending=True, stable=True).indices[:, :1]
        token_ids = torch.hstack((token_ids, new))
    if training:
        model.train()
    return token_ids.clone()


@torch.no_grad()
def generate_a_list_of_columns(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    flags = {name: module.training for name, module in model.named_modules()}
    model.train(False)
    columns = list(token_ids.unbind(dim=1))
    while len(columns) < token_ids.size(1) + max_new_tokens:
        logits = model(torch.stack(columns[-model.context :], dim=1))
        logits = logits[:, logits.size(1) - 1]
        if temperature == 0.0:
            top = logits.amax(dim=-1, keepdim=True)
            columns.append((logits == top).int().argmax(dim=-1))
        else:
            kept = filter_in_sorted_order(logits, temperature, top_k, top_p)
            p = kept.log_softmax(dim=-1).exp()
            columns.append(torch.multinomial(p, num_samples=1, generator=generator)[:, 0])
    for name, module in model.named_modules():
        module.training = flags[name]
    return torch.stack(columns, dim=1)


def generate_by_recursion(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    if max_new_tokens == 0:
        return token_ids
    mode = model.training
    model.eval()
    with torch.set_grad_enabled(False):
        scores = model(token_ids[:, -model.context :].contiguous())[:, -1]
    model.train(mode)
    if temperature == 0:
        new = scores.argmax(-1)[:, None]
    else:
        p = filter_row_by_row(scores, temperature, top_k, top_p).softmax(dim=1)
        new = torch.multinomial(p, 1, replacement=True, generator=generator)
    grown = torch.cat((token_ids, new.to(token_ids.dtype)), dim=-1)
    knobs = generator, temperature, top_k, top_p
    return generate_by_recursion(model, grown, max_new_tokens - 1, *knobs)


def generate_with_a_sliding_window(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    """What the model reads is kept apart from what was written."""
    mode, window, written = model.training, token_ids[:, -model.context :], [token_ids]
    model.eval()
    for _ in range(max_new_tokens):
        with torch.no_grad():
            scores = model(window)[:, -1].detach()
        if temperature == 0:
            new = torch.max(scores, dim=-1, keepdim=True).indices
        else:
            scores = filter_one_after_the_other(scores, temperature, top_k, top_p)
            new = torch.multinomial(F.softmax(scores, dim=-1), 1, generator=generator)
        written.append(new)
        window = torch.cat([window, new], dim=1)[:, -model.context :]
    model.train(mode=mode)
    return torch.cat(written, dim=1)


# ---- the cache -----------------------------------------------------------------------------


class CachedBase(nn.Module):
    def __init__(self, d_model, num_heads):
        super().__init__()
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(d_model, d_model) for _ in range(4))
        self.heads, self.width = num_heads, d_model // num_heads

    def split(self, y):
        return y.reshape(y.size(0), -1, self.heads, self.width).transpose(1, 2)

    def merge(self, y):
        return y.transpose(1, 2).reshape(y.size(0), -1, self.heads * self.width)


class CachedOnTheFusedKernel(CachedBase):
    """One product for all three maps; the last rows of a triangle as the kernel's mask."""

    def forward(self, x, cache=None):
        layers = (self.w_q, self.w_k, self.w_v)
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers])
        q, k, v = map(self.split, F.linear(x, weight, bias).split(x.size(-1), dim=-1))
        if cache is not None:
            k, v = torch.cat((cache[0], k), dim=-2), torch.cat((cache[1], v), dim=-2)
        total = k.size(2)
        mask = causal_mask(total)[total - x.size(1) :].to(x.device)
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.w_o(self.merge(read)), (k, v)


class CachedInNewTensors(CachedBase):
    """New tensors, into which old and new are copied; −inf is added to what is barred."""

    @staticmethod
    def grown(old, new):
        past = old.size(2)
        both = new.new_empty(new.size(0), new.size(1), past + new.size(2), new.size(3))
        both[:, :, :past] = old
        both[:, :, past:] = new
        return both

    def forward(self, x, cache=None):
        q, k, v = self.split(self.w_q(x)), self.split(self.w_k(x)), self.split(self.w_v(x))
        past = 0
        if cache is not None:
            keys, values = cache
            past = keys.shape[-2]
            k, v = self.grown(keys, k), self.grown(values, v)
        scores = torch.matmul(q, k.transpose(-1, -2)) / self.width**0.5
        barred = torch.full_like(scores[0, 0], -math.inf).triu(past + 1)
        read = torch.softmax(scores + barred, dim=-1).matmul(v)
        return self.w_o(self.merge(read)), (k, v)


class CachedByEinsum(CachedBase):
    """A mask that is gathered from distances, and weights that are made zero after exp."""

    def forward(self, x, cache=None):
        new = x.shape[1]
        q, k, v = (
            layer(x).unflatten(2, (self.heads, self.width))
            for layer in (self.w_q, self.w_k, self.w_v)
        )
        k, v = k.permute(0, 2, 1, 3), v.permute(0, 2, 1, 3)
        if cache:
            k, v = (torch.cat(pair, 2) for pair in zip(cache, (k, v), strict=True))
        scores = torch.einsum("bqhd,bhkd->bhqk", q * self.width**-0.5, k)
        behind = torch.arange(k.size(2), device=x.device) - (k.size(2) - new)
        allowed = behind[None] <= torch.arange(new, device=x.device)[:, None]
        scores = scores.masked_fill(~allowed, -math.inf)
        weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
        read = torch.einsum("bhqk,bhkd->bqhd", weights / weights.sum(-1, keepdim=True), v)
        return self.w_o(read.flatten(2)), (k, v)


class CachedOneByOne(CachedBase):
    """Several new positions are read one after the other: there is no mask."""

    def forward(self, x, cache=None):
        outputs = []
        for now in x.split(1, dim=1):
            q, k, v = (self.split(layer(now)) for layer in (self.w_q, self.w_k, self.w_v))
            if cache is not None:
                k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
            cache = k, v
            weights = (q @ k.mT / math.sqrt(self.width)).softmax(dim=-1)
            outputs.append(self.w_o(self.merge(weights @ v)))
        return torch.cat(outputs, dim=1), cache


class CachedHeadByHead(CachedBase):
    """A loop over heads; the two tensors of the cache are halves of one."""

    def forward(self, x, cache=None):
        kept = torch.stack([self.split(self.w_k(x)), self.split(self.w_v(x))])
        if cache is not None:
            kept = torch.cat([torch.stack(tuple(cache)), kept], dim=3)
        k, v = kept.unbind()
        at = torch.arange(k.size(2), device=x.device)
        barred = at > at[k.size(2) - x.size(1) :, None]
        read = []
        for h, q in enumerate(self.w_q(x).chunk(self.heads, dim=-1)):
            scores = torch.bmm(q, k[:, h].mT).div(math.sqrt(self.width))
            read.append(scores.masked_fill(barred, -math.inf).softmax(2) @ v[:, h])
        return self.w_o(torch.cat(read, dim=2)), (k, v)


class CachedInTwoParts(CachedBase):
    """Past and new are read apart, and put together with what each weighs."""

    def forward(self, x, cache=None):
        q, k, v = (self.split(layer(x)) for layer in (self.w_q, self.w_k, self.w_v))
        q = q / math.sqrt(self.width)
        new = x.size(1)
        triangle = torch.ones(new, new, dtype=torch.bool, device=x.device).tril()
        scores = (q @ k.mT).masked_fill(~triangle, -math.inf)
        weighs, read = scores.logsumexp(-1, keepdim=True), scores.softmax(-1) @ v
        if cache is not None:
            keys, values = cache
            scores = q @ keys.mT
            old = scores.logsumexp(-1, keepdim=True)
            share = torch.sigmoid(old - weighs)
            read = share * (scores.softmax(-1) @ values) + (1 - share) * read
            k, v = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        return self.w_o(self.merge(read)), (k, v)


Kept = namedtuple("Kept", ["keys", "values"])


class CachedInANamedTuple(CachedBase):
    """An empty past instead of none; the cache is a tuple with names."""

    def forward(self, x, cache=None):
        q, k, v = (self.split(layer(x)) for layer in (self.w_q, self.w_k, self.w_v))
        if cache is None:
            cache = k[:, :, :0], v[:, :, :0]
        kept = Kept(torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2))
        new, past = x.size(1), cache[0].size(2)
        mask = torch.ones(new, past + new, dtype=torch.bool, device=x.device).tril(past)
        weights = torch.where(mask, q @ kept.keys.mT / math.sqrt(self.width), -math.inf).softmax(-1)
        return self.w_o(self.merge(weights @ kept.values)), kept


class CachedInAList(CachedBase):
    """The pair is a list, and padded before it is filled."""

    def forward(self, x, cache=None):
        q, k, v = (self.split(layer(x)) for layer in (self.w_q, self.w_k, self.w_v))
        kept = [k, v]
        if cache is not None:
            past = cache[0].size(2)
            for i in (0, 1):
                front = F.pad(kept[i], (0, 0, past, 0))
                kept[i] = front + F.pad(cache[i], (0, 0, 0, x.size(1)))
        keys, values = kept
        at = torch.arange(keys.size(2), device=x.device)
        scores = q @ keys.transpose(2, 3) / math.sqrt(self.width)
        scores = scores.masked_fill(at[None] > at[-x.size(1) :][:, None], float("-inf"))
        return self.w_o(self.merge(F.softmax(scores, dim=-1) @ values)), kept


ALTERNATIVES = {
    "gpt/learn_bpe": [
        learn_bpe_by_tuples,
        learn_bpe_by_sorting,
        learn_bpe_incrementally,
        learn_bpe_on_a_heap,
        learn_bpe_by_recursion,
        learn_bpe_by_cuts,
    ],
    "gpt/apply_bpe": [
        apply_bpe_on_a_stack,
        apply_bpe_in_place,
        apply_bpe_by_rank,
        apply_bpe_one_at_a_time,
        apply_bpe_by_recursion,
        apply_bpe_by_cuts,
    ],
    "gpt/GPTBlock": [
        BlockOnTheFusedKernel,
        BlockWithItsOwnGelu,
        BlockByEinsum,
        BlockByOneRule,
        BlockSequenceBySequence,
        BlockThatKeepsItsMask,
    ],
    "gpt/GPT": [
        ModelOfSlices,
        ModelByIndices,
        ModelByOneHotVectors,
        ModelOfAnyDepth,
        ModelWithABuffer,
    ],
    "gpt/next_token_loss": [
        loss_by_gather,
        loss_by_logsumexp,
        loss_with_classes_on_axis_1,
        loss_with_an_ignored_label,
        loss_by_one_hot,
        loss_step_by_step,
        loss_row_by_row,
        loss_as_a_sum,
    ],
    "gpt/filter_logits": [
        filter_in_sorted_order,
        filter_by_keeping,
        filter_by_thresholds,
        filter_row_by_row,
        filter_one_after_the_other,
        filter_from_the_small_end,
    ],
    "gpt/generate": [
        generate_into_a_tensor,
        generate_in_inference_mode,
        generate_a_list_of_columns,
        generate_by_recursion,
        generate_with_a_sliding_window,
    ],
    "gpt/CachedAttention": [
        CachedOnTheFusedKernel,
        CachedInNewTensors,
        CachedByEinsum,
        CachedOneByOne,
        CachedHeadByHead,
        CachedInTwoParts,
        CachedInANamedTuple,
        CachedInAList,
    ],
}
