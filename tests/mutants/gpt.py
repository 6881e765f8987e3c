"""Subtle ways to get chapter 6 wrong, and which of them a verdict names.

A name that does not fit misleads: what is not in NAMED must be given none.
"""

import copy
import functools
import math
import re
from collections import Counter
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from tests.mutants import pre_norm
from tests.mutants.pre_norm import Attention
from workbook.ready.multi_head import MultiHeadAttention

# ---- learn_bpe -----------------------------------------------------------------------------


def join(pieces, pair):
    joined, i = [], 0
    while i < len(pieces):
        width = 2 if tuple(pieces[i : i + 2]) == pair else 1
        joined.append("".join(pieces[i : i + width]))
        i += width
    return joined


def first_of_the_most_frequent(counts):
    return min(counts, key=lambda pair: (-counts[pair], pair))


def learn(
    words,
    num_merges,
    start=list,
    pairs=pairwise,
    weight=lambda count: count,
    choose=first_of_the_most_frequent,
    join=join,
    enough=lambda counts, best: False,
):
    """Right, but for what is done to one of its steps."""
    split = {word: start(word) for word in words}
    merges = []
    for _ in range(num_merges):
        counts = Counter()
        for word, count in words.items():
            for pair in pairs(split[word]):
                counts[pair] += weight(count)
        if not counts:
            break
        best = choose(counts)
        if enough(counts, best):
            break
        merges.append(best)
        split = {word: join(pieces, best) for word, pieces in split.items()}
    return merges


def _learning(name, **changes):
    def learn_bpe(words, num_merges):
        return learn(words, num_merges, **changes)

    learn_bpe.__name__ = name
    return learn_bpe


def join_everything_in_a_string(pieces, pair):
    return " ".join(pieces).replace(" ".join(pair), "".join(pair)).split(" ")


def join_from_the_right(pieces, pair):
    turned = join([piece[::-1] for piece in reversed(pieces)], (pair[1][::-1], pair[0][::-1]))
    return [piece[::-1] for piece in reversed(turned)]


def join_the_first(pieces, pair):
    for i, neighbors in enumerate(pairwise(pieces)):
        if neighbors == pair:
            return [*pieces[:i], "".join(pair), *pieces[i + 2 :]]
    return pieces


def join_with_overlap(pieces, pair):
    """After joining it goes on by 1: a piece is used twice."""
    joined, i = [], 0
    while i < len(pieces):
        if tuple(pieces[i : i + 2]) == pair:
            joined.append("".join(pair))
        elif i == 0 or tuple(pieces[i - 1 : i + 1]) != pair:
            joined.append(pieces[i])
        i += 1
    return joined


def pairs_without_overlap(pieces):
    i = 0
    while i + 1 < len(pieces):
        yield pieces[i], pieces[i + 1]
        same = i + 2 < len(pieces) and pieces[i] == pieces[i + 1] == pieces[i + 2]
        i += 2 if same else 1


learn_counting_words_once = _learning("learn_counting_words_once", weight=lambda count: 1)
learn_counting_pairs_once_a_word = _learning(
    "learn_counting_pairs_once_a_word", pairs=lambda p: set(pairwise(p))
)
learn_counting_without_overlap = _learning(
    "learn_counting_without_overlap", pairs=pairs_without_overlap
)
learn_counting_squares = _learning("learn_counting_squares", weight=lambda count: count**2)
learn_counting_logarithms = _learning(
    "learn_counting_logarithms", weight=lambda count: math.log(1 + count)
)
learn_counting_every_other_pair = _learning(
    "learn_counting_every_other_pair", pairs=lambda p: zip(p[::2], p[1::2], strict=False)
)
learn_the_first_seen = _learning(
    "learn_the_first_seen", choose=lambda counts: max(counts, key=counts.get)
)
learn_the_most_common = _learning(
    "learn_the_most_common", choose=lambda counts: counts.most_common(1)[0][0]
)
learn_the_last_in_order = _learning(
    "learn_the_last_in_order", choose=lambda counts: max(counts, key=lambda p: (counts[p], p))
)
learn_the_last_seen = _learning(
    "learn_the_last_seen", choose=lambda counts: max(reversed(list(counts)), key=counts.get)
)
learn_ordering_joined_text = _learning(
    "learn_ordering_joined_text",
    choose=lambda counts: min(
        sorted(counts, reverse=True), key=lambda p: (-counts[p], p[0] + p[1])
    ),
)
learn_ordering_by_the_right = _learning(
    "learn_ordering_by_the_right",
    choose=lambda counts: min(counts, key=lambda p: (-counts[p], p[::-1])),
)
learn_the_longest_of_equals = _learning(
    "learn_the_longest_of_equals",
    choose=lambda counts: min(counts, key=lambda p: (-counts[p], -len(p[0] + p[1]), p)),
)
learn_the_shortest_of_equals = _learning(
    "learn_the_shortest_of_equals",
    choose=lambda counts: min(counts, key=lambda p: (-counts[p], len(p[0] + p[1]), p)),
)
learn_the_rarest = _learning(
    "learn_the_rarest", choose=lambda counts: min(counts, key=lambda p: (counts[p], p))
)
learn_joining_in_a_string = _learning("learn_joining_in_a_string", join=join_everything_in_a_string)
learn_joining_from_the_right = _learning("learn_joining_from_the_right", join=join_from_the_right)
learn_joining_the_first = _learning("learn_joining_the_first", join=join_the_first)
learn_joining_with_overlap = _learning("learn_joining_with_overlap", join=join_with_overlap)
learn_until_pairs_are_rare = _learning(
    "learn_until_pairs_are_rare", enough=lambda counts, best: counts[best] < 2
)
learn_with_an_end_mark = _learning("learn_with_an_end_mark", start=lambda word: [*word, "</w>"])
learn_with_the_end_at_the_last_letter = _learning(
    "learn_with_the_end_at_the_last_letter", start=lambda word: [*word[:-1], word[-1:] + "</w>"]
)
learn_from_bytes = _learning(
    "learn_from_bytes", start=lambda word: [chr(byte) for byte in word.encode()]
)
learn_in_lower_case = _learning("learn_in_lower_case", start=lambda word: list(word.lower()))


def learn_across_words(words, num_merges):
    text = "".join(word * count for word, count in words.items())
    return learn({text: 1}, num_merges)


def learn_without_stopping(words, num_merges):
    def choose(counts):
        return min(counts, key=lambda pair: (-counts[pair], pair))

    merges = learn(words, num_merges)
    return merges if len(merges) == num_merges else [*merges, choose({})]


def learn_repeating_the_last(words, num_merges):
    merges = learn(words, num_merges)
    return merges + merges[-1:] * (num_merges - len(merges))


def learn_joined_text(words, num_merges):
    return ["".join(pair) for pair in learn(words, num_merges)]


def learn_with_counts(words, num_merges):
    return dict.fromkeys(learn(words, num_merges), 1)


def learn_as_a_tuple(words, num_merges):
    return tuple(learn(words, num_merges))


def learn_as_a_generator(words, num_merges):
    yield from learn(words, num_merges)


def learn_sorted(words, num_merges):
    return sorted(learn(words, num_merges))


def learn_one_more(words, num_merges):
    return learn(words, num_merges + 1)


def learn_one_less(words, num_merges):
    return learn(words, num_merges - 1)


def learn_up_to_a_vocabulary(words, num_merges):
    """num_merges is taken for the size of the vocabulary."""
    return learn(words, num_merges - len(set("".join(words))))


def learn_counting_only_at_the_start(words, num_merges):
    counts = Counter()
    for word, count in words.items():
        for pair in pairwise(word):
            counts[pair] += count
    return sorted(counts, key=lambda pair: (-counts[pair], pair))[:num_merges]


def learn_without_taking_off(words, num_merges):
    """New pairs are counted, and old ones that a merge has used up are not taken off."""
    split = {word: list(word) for word in words}
    counts, merges = Counter(), []
    for word, count in words.items():
        for pair in pairwise(word):
            counts[pair] += count
    while counts and len(merges) < num_merges:
        best = first_of_the_most_frequent(counts)
        merges.append(best)
        del counts[best]
        for word, pieces in split.items():
            split[word] = join(pieces, best)
            for pair in pairwise(split[word]):
                if "".join(best) in pair:
                    counts[pair] += words[word]
    return merges


def learn_keeping_counts(words, num_merges):
    """The counter is not made anew in each step."""
    counts = Counter()

    def choose(now):
        counts.update(now)
        return first_of_the_most_frequent({pair: counts[pair] for pair in now})

    return learn(words, num_merges, choose=choose)


def learn_emptying_words(words, num_merges):
    merges = learn(words, num_merges)
    words.clear()
    return merges


def learn_splitting_the_words_themselves(words, num_merges):
    merges = learn(words, num_merges)
    for word in list(words):
        words[" ".join(word)] = words.pop(word)
    return merges


def learn_that_remembers(words, num_merges, merges=[]):  # noqa: B006
    merges.extend(learn(words, num_merges))
    return merges


def learn_without_words_of_two(words, num_merges):
    return learn({word: count for word, count in words.items() if len(word) > 2}, num_merges)


# ---- apply_bpe -----------------------------------------------------------------------------


def apply(word, merges, join=join):
    pieces = list(word)
    for pair in merges:
        pieces = join(pieces, pair)
    return pieces


def apply_to_the_first(word, merges):
    return apply(word, merges, join_the_first)


def apply_from_the_right(word, merges):
    return apply(word, merges, join_from_the_right)


def apply_in_a_string(word, merges):
    return apply(word, merges, join_everything_in_a_string) if word else []


def apply_with_overlap(word, merges):
    return apply(word, merges, join_with_overlap)


def apply_backwards(word, merges):
    return apply(word, merges[::-1])


def apply_the_longest_first(word, merges):
    return apply(word, sorted(merges, key=lambda pair: -len("".join(pair))))


def apply_in_sorted_order(word, merges):
    return apply(word, sorted(merges))


def apply_the_longest_piece(word, merges):
    known, pieces, at = {"".join(pair) for pair in merges}, [], 0
    while at < len(word):
        ends = (end for end in range(len(word), at + 1, -1) if word[at:end] in known)
        end = next(ends, at + 1)
        pieces.append(word[at:end])
        at = end
    return pieces


def apply_whatever_fits_first(word, merges):
    """From the left, whatever pair is known, until none is."""
    known, pieces = set(merges), list(word)
    while True:
        at = next((i for i, pair in enumerate(pairwise(pieces)) if pair in known), None)
        if at is None:
            return pieces
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]


def apply_until_one_is_missing(word, merges):
    pieces = list(word)
    for pair in merges:
        if pair not in pairwise(pieces):
            break
        pieces = join(pieces, pair)
    return pieces


def apply_one_merge(word, merges):
    pieces = list(word)
    for pair in merges:
        if pair in pairwise(pieces):
            return join(pieces, pair)
    return pieces


def apply_without_the_last(word, merges):
    return apply(word, merges[:-1])


def apply_as_text(word, merges):
    return " ".join(apply(word, merges))


def apply_as_a_tuple(word, merges):
    return tuple(apply(word, merges))


def apply_with_an_empty_piece(word, merges):
    return apply(word, merges) or [""]


def apply_with_an_end_mark(word, merges):
    return apply([*word, "</w>"], merges)


def apply_without_unknown_characters(word, merges):
    known = set("".join(left + right for left, right in merges))
    return apply([character for character in word if character in known], merges)


def apply_with_unknown_pieces(word, merges):
    known = set("".join(left + right for left, right in merges))
    return [piece if set(piece) <= known else "<unk>" for piece in apply(word, merges)]


def apply_the_whole_word_where_nothing_fits(word, merges):
    pieces = apply(word, merges)
    return [word] if len(pieces) == len(word) > 1 else pieces


def apply_in_lower_case(word, merges):
    return apply(word.lower(), merges)


def apply_to_bytes(word, merges):
    return apply([chr(byte) for byte in word.encode()], merges)


def apply_emptying_the_merges(word, merges):
    pieces = list(word)
    while merges:
        pieces = join(pieces, merges.pop(0))
    return pieces


def apply_that_remembers_words(word, merges, known={}):  # noqa: B006
    if word not in known:
        known[word] = apply(word, merges)
    return known[word]


def apply_by_patterns(word, merges):
    """Characters that mean something in a pattern are not escaped."""
    text = " ".join(word)
    for pair in merges:
        text = re.sub(r"(?<!\S)" + " ".join(pair) + r"(?!\S)", "".join(pair), text)
    return text.split(" ") if word else []


# ---- GPTBlock ------------------------------------------------------------------------------


class AttentionOfChapterTwo(MultiHeadAttention):
    """Where nothing may be read it returns 0, not NaN."""

    def forward(self, query, key, value, mask=None):
        return super().forward(query, key, value, mask)[0]


def triangle(length):
    return torch.ones(length, length, dtype=torch.bool).tril()


class Block(pre_norm.Block):
    """Right, but for what is done to one of its parts."""

    eps = 1e-5

    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, 4 * d_model, dropout)

    def mask(self, x):
        return triangle(x.size(1))

    def bend(self, z):
        return F.gelu(z, approximate="tanh")


WRONG_BLOCKS = pre_norm.of(Block)


class BlockWithBertsEps(Block):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.norm1, self.norm2 = (nn.LayerNorm(d_model, eps=1e-12) for _ in range(2))


class BlockNormalizingPositionsToo(Block):
    def forward(self, x):
        y = F.layer_norm(x, x.shape[1:]) * self.norm1.weight + self.norm1.bias
        x = x + self.read(y)
        return x + self.network(self.norm2(x))


class BlockWithExactGelu(Block):
    def bend(self, z):
        return F.gelu(z)


class BlockWithAMistypedGelu(Block):
    def bend(self, z):
        return 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.44715 * z**3)))


class BlockWithoutAMask(Block):
    def mask(self, x):
        return None


class BlockReadingTheFuture(Block):
    def mask(self, x):
        return triangle(x.size(1)).mT


class BlockBarringItself(Block):
    attention = AttentionOfChapterTwo

    def mask(self, x):
        return triangle(x.size(1)).tril(-1)


class BlockBarringItselfWithNan(Block):
    def mask(self, x):
        return triangle(x.size(1)).tril(-1)


class BlockBarringItselfButTheFirst(Block):
    def mask(self, x):
        mask = triangle(x.size(1)).tril(-1)
        mask[0, 0] = True
        return mask


class BlockReadingOneAhead(Block):
    def mask(self, x):
        return torch.ones(x.size(1), x.size(1), dtype=torch.bool).tril(1)


class BlockWithAWindow(Block):
    def mask(self, x):
        return triangle(x.size(1)).triu(-5)


class BlockWithTheMaskOfTheBatch(Block):
    def mask(self, x):
        return triangle(x.size(0))


class BlockWithTheFirstMask(Block):
    """The mask is made in the first call, and fits no other length."""

    made = None

    def mask(self, x):
        if self.made is None:
            self.made = triangle(x.size(1))
        return self.made


class BlockForShortTexts(Block):
    """What is beyond the eighth position is not masked."""

    def mask(self, x):
        mask = torch.ones(x.size(1), x.size(1), dtype=torch.bool)
        mask[:8, :] = triangle(x.size(1))[:8]
        return mask


class BlockWithASoftMask(Block):
    """Zero and one are added to the scores: nothing is barred."""

    def read(self, y):
        layer = self.self_attn
        q, k, v = (
            w(y).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
            for w in (layer.w_q, layer.w_k, layer.w_v)
        )
        scores = q @ k.mT / math.sqrt(q.size(-1)) + self.mask(y)
        return self.dropout(layer.w_o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)))


class BlockNormalizingTheQueryOnly(Block):
    def forward(self, x):
        x = x + self.dropout(self.self_attn(self.norm1(x), x, x, self.mask(x)))
        return x + self.network(self.norm2(x))


class BlockReadingRawValues(Block):
    def forward(self, x):
        y = self.norm1(x)
        x = x + self.dropout(self.self_attn(y, y, x, self.mask(x)))
        return x + self.network(self.norm2(x))


class BlockNotDroppingInTheAttention(Block):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.self_attn = Attention(d_model, num_heads)


class BlockDroppingOnlyInTheAttention(Block):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.dropout = nn.Identity()


class BlockDroppingInEvaluation(Block):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.rate = dropout
        self.dropout = nn.Identity()

    def read(self, y):
        return F.dropout(super().read(y), self.rate)

    def network(self, y):
        return F.dropout(super().network(y), self.rate)


class BlockDroppingTheSum(Block):
    def forward(self, x):
        x = self.dropout(x + self.self_attn(*[self.norm1(x)] * 3, self.mask(x)))
        return self.dropout(x + self.w_2(self.bend(self.w_1(self.norm2(x)))))


class BlockWithAFixedRate(Block):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, 0.1)


class BlockOfTwiceTheWidth(Block):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.w_1, self.w_2 = nn.Linear(d_model, 2 * d_model), nn.Linear(2 * d_model, d_model)


class BlockWithGpt2sNames(Block):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.ln_1, self.ln_2 = self.norm1, self.norm2
        del self.norm1, self.norm2

    def forward(self, x):
        x = x + self.read(self.ln_1(x))
        return x + self.network(self.ln_2(x))


class BlockWithAThirdNorm(Block):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.norm3 = nn.LayerNorm(d_model)

    def forward(self, x):
        return self.norm3(super().forward(x))


class BlockOfTorch(Block):
    """The built-in layer, fed with the parameters: they get no gradient."""

    def forward(self, x):
        own = self.self_attn
        layer = nn.TransformerEncoderLayer(
            x.size(-1),
            own.heads,
            4 * x.size(-1),
            self.dropout.p,
            activation=self.bend,
            batch_first=True,
            norm_first=True,
        ).to(x.dtype)
        with torch.no_grad():
            for kind in ("weight", "bias"):
                parts = [getattr(part, kind) for part in (own.w_q, own.w_k, own.w_v)]
                getattr(layer.self_attn, f"in_proj_{kind}").copy_(torch.cat(parts))
        layer.self_attn.out_proj, layer.linear1, layer.linear2 = own.w_o, self.w_1, self.w_2
        layer.norm1, layer.norm2 = self.norm1, self.norm2
        return layer.train(self.training)(x, src_mask=~self.mask(x))


# ---- GPT -----------------------------------------------------------------------------------


class Model(nn.Module):
    """Right, but for what is done to one of its steps."""

    block = Block

    def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
        super().__init__()
        self.context = context
        self.token = nn.Embedding(vocab_size, d_model)
        self.position = nn.Embedding(context, d_model)
        self.blocks = nn.ModuleList(
            self.block(d_model, num_heads, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)

    def refuse(self, token_ids):
        length = token_ids.size(1)
        if length > self.context:
            raise ValueError(f"{length} tokens do not fit into a context of {self.context}")

    def positions(self, token_ids):
        return self.position(torch.arange(token_ids.size(1)))

    def embed(self, token_ids):
        return self.dropout(self.token(token_ids) + self.positions(token_ids))

    def run(self, x):
        for block in self.blocks:
            x = block(x)
        return x

    def score(self, x):
        return self.norm(x) @ self.token.weight.T

    def forward(self, token_ids):
        self.refuse(token_ids)
        return self.score(self.run(self.embed(token_ids)))


class ModelNotTied(Model):
    def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
        super().__init__(vocab_size, context, d_model, num_layers, num_heads, dropout)
        self.output = nn.Linear(d_model, vocab_size, bias=False)

    def score(self, x):
        return self.output(self.norm(x))


class ModelTiedOnce(ModelNotTied):
    """The output begins as a copy of the table, and goes its own way."""

    def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
        super().__init__(vocab_size, context, d_model, num_layers, num_heads, dropout)
        self.output.weight = nn.Parameter(self.token.weight.detach().clone())


class ModelWithAnOutputBias(Model):
    def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
        super().__init__(vocab_size, context, d_model, num_layers, num_heads, dropout)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def score(self, x):
        return super().score(x) + self.bias


class ModelDetachingTheOutput(Model):
    def score(self, x):
        return self.norm(x) @ self.token.weight.detach().T


class ModelDetachingTheInput(Model):
    def embed(self, token_ids):
        return self.dropout(self.token.weight.detach()[token_ids] + self.positions(token_ids))


class ModelScoringWithDividedNumbers(Model):
    def score(self, x):
        return super().score(x) / math.sqrt(x.size(-1))


class ModelWithScaledEmbeddings(Model):
    def embed(self, token_ids):
        x = self.token(token_ids) * math.sqrt(self.norm.normalized_shape[0])
        return self.dropout(x + self.positions(token_ids))


class ModelReturningProbabilities(Model):
    def score(self, x):
        return super().score(x).softmax(dim=-1)


class ModelReturningLogarithms(Model):
    def score(self, x):
        return super().score(x).log_softmax(dim=-1)


class ModelScoringTheLast(Model):
    def score(self, x):
        return super().score(x)[:, -1:]


class ModelWithoutTheLastNorm(Model):
    def score(self, x):
        return x @ self.token.weight.T


class ModelNormalizingEarly(Model):
    def run(self, x):
        return super().run(self.norm(x))

    def score(self, x):
        return x @ self.token.weight.T


class ModelNormalizingAfterEachBlock(Model):
    def run(self, x):
        for block in self.blocks:
            x = self.norm(block(x))
        return x


class ModelWithBertsEps(Model):
    def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
        super().__init__(vocab_size, context, d_model, num_layers, num_heads, dropout)
        self.norm = nn.LayerNorm(d_model, eps=1e-12)


class ModelNormalizingTheLogits(Model):
    def score(self, x):
        return F.layer_norm(super().score(x), (self.token.num_embeddings,))


class ModelWithoutPositions(Model):
    def positions(self, token_ids):
        return 0.0


class ModelCountingFromOne(Model):
    def positions(self, token_ids):
        at = (torch.arange(token_ids.size(1)) + 1) % self.context
        return self.position(at)


class ModelCountingFromTheEnd(Model):
    def positions(self, token_ids):
        return self.position(torch.arange(token_ids.size(1) - 1, -1, -1))


class ModelAtTheEndOfTheTable(Model):
    def positions(self, token_ids):
        return self.position.weight[-token_ids.size(1) :]


class ModelCountingSequences(Model):
    def positions(self, token_ids):
        return self.position(torch.arange(token_ids.size(0)) % self.context)[:, None]


class ModelWithTokensAsPositions(Model):
    def positions(self, token_ids):
        return self.position(token_ids % self.context)


class ModelAddingPositionsToEachBlock(Model):
    def run(self, x):
        for i, block in enumerate(self.blocks):
            x = block(x + (self.position.weight[: x.size(1)] if i else 0))
        return x


class ModelOfWholeContextsOnly(Model):
    def positions(self, token_ids):
        return self.position.weight


class ModelWithFrozenPositions(Model):
    def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
        super().__init__(vocab_size, context, d_model, num_layers, num_heads, dropout)
        self.position.weight.requires_grad_(False)


class ModelWithPadding(Model):
    """Token 0 is taken for padding: its row gets no gradient as an input."""

    def embed(self, token_ids):
        x = F.embedding(token_ids, self.token.weight, padding_idx=0)
        return self.dropout(x + self.positions(token_ids))


class ModelSilencingTokenZero(Model):
    def embed(self, token_ids):
        return super().embed(token_ids) * (token_ids != 0)[..., None]


class ModelThatRefusesNothing(Model):
    def refuse(self, token_ids):
        pass


class ModelThatCuts(Model):
    def forward(self, token_ids):
        return super().forward(token_ids[:, -self.context :])


class ModelThatAsserts(Model):
    def refuse(self, token_ids):
        assert token_ids.size(1) <= self.context, "too long"


class ModelThatRefusesTheWholeContext(Model):
    def refuse(self, token_ids):
        if token_ids.size(1) >= self.context:
            raise ValueError(f"{token_ids.size(1)} does not fit into {self.context}")


class ModelThatNamesNoNumbers(Model):
    def refuse(self, token_ids):
        if token_ids.size(1) > self.context:
            raise ValueError("The input is longer than the context.")


class ModelThatNamesOneNumber(Model):
    def refuse(self, token_ids):
        if token_ids.size(1) > self.context:
            raise ValueError(f"The context has room for {self.context} tokens.")


class ModelThatRefusesLargeBatches(Model):
    def refuse(self, token_ids):
        if max(token_ids.shape) > self.context:
            raise ValueError(f"{max(token_ids.shape)} is more than {self.context}")


class ModelWithoutTheAttribute(Model):
    def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
        super().__init__(vocab_size, context, d_model, num_layers, num_heads, dropout)
        self.block_size = context
        del self.context

    def refuse(self, token_ids):
        if token_ids.size(1) > self.block_size:
            raise ValueError(f"{token_ids.size(1)} does not fit into {self.block_size}")


class ModelOfOneBlock(Model):
    """The same block again and again."""

    def run(self, x):
        for _ in self.blocks:
            x = self.blocks[0](x)
        return x


class ModelSharingItsBlocks(Model):
    def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
        super().__init__(vocab_size, context, d_model, num_layers, num_heads, dropout)
        self.blocks = nn.ModuleList([Block(d_model, num_heads, dropout)] * num_layers)


class ModelWithAPlainList(Model):
    def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
        super().__init__(vocab_size, context, d_model, num_layers, num_heads, dropout)
        blocks = list(self.blocks)
        del self.blocks
        self.blocks = blocks


class ModelBackwards(Model):
    def run(self, x):
        for block in reversed(self.blocks):
            x = block(x)
        return x


class ModelWithoutTheLastBlock(Model):
    def run(self, x):
        for block in self.blocks[:-1] or self.blocks:
            x = block(x)
        return x


class ModelForgettingResults(Model):
    def run(self, x):
        for block in self.blocks:
            output = block(x)
        return output


class ModelAddingAroundBlocks(Model):
    def run(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


class ModelOfPostNormBlocks(Model):
    block = WRONG_BLOCKS["BlockPostNorm"]


class ModelOfBlocksThatSeeEverything(Model):
    block = BlockWithoutAMask


class ModelDroppingTokensOnly(Model):
    def embed(self, token_ids):
        return self.dropout(self.token(token_ids)) + self.positions(token_ids)


class ModelNotDroppingEmbeddings(Model):
    def embed(self, token_ids):
        return self.token(token_ids) + self.positions(token_ids)


class ModelNotDroppingInBlocks(Model):
    def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
        super().__init__(vocab_size, context, d_model, num_layers, num_heads, dropout)
        self.blocks = nn.ModuleList(Block(d_model, num_heads) for _ in range(num_layers))


class ModelDroppingInEvaluation(Model):
    def embed(self, token_ids):
        return F.dropout(self.token(token_ids) + self.positions(token_ids), self.dropout.p)


class ModelDroppingAtTheEndToo(Model):
    def score(self, x):
        return self.dropout(self.norm(x)) @ self.token.weight.T


class ModelReturningFloat32(Model):
    def score(self, x):
        return super().score(x).float()


class ModelSqueezed(Model):
    def score(self, x):
        return super().score(x).squeeze()


class ModelChangingItsInput(Model):
    def positions(self, token_ids):
        found = super().positions(token_ids)
        token_ids[:, -1] = 0
        return found


class ModelThatLimitsTheTable(Model):
    """max_norm changes the table while it is read."""

    def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
        super().__init__(vocab_size, context, d_model, num_layers, num_heads, dropout)
        self.token.max_norm = 1.0


class ModelReturningALoss(Model):
    def forward(self, token_ids):
        logits = super().forward(token_ids)
        return logits, F.cross_entropy(logits[:, :-1].flatten(0, 1), token_ids[:, 1:].flatten())


class ModelWithGpt2sNames(Model):
    def __init__(self, vocab_size, context, d_model, num_layers, num_heads, dropout=0.0):
        super().__init__(vocab_size, context, d_model, num_layers, num_heads, dropout)
        self.wte = self.token
        del self.token

    def embed(self, token_ids):
        return self.dropout(self.wte(token_ids) + self.positions(token_ids))

    def score(self, x):
        return self.norm(x) @ self.wte.weight.T


# ---- the loss ------------------------------------------------------------------------------


def shifted(logits, token_ids, **how):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), token_ids[:, 1:].flatten(), **how)


def loss_without_a_shift(logits, token_ids):
    return F.cross_entropy(logits.flatten(0, 1), token_ids.flatten())


def loss_without_a_shift_and_without_the_last(logits, token_ids):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), token_ids[:, :-1].flatten())


def loss_shifted_backwards(logits, token_ids):
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), token_ids[:, :-1].flatten())


def loss_shifted_by_two(logits, token_ids):
    step = min(2, token_ids.size(1) - 1)
    return F.cross_entropy(logits[:, :-step].flatten(0, 1), token_ids[:, step:].flatten())


def loss_across_rows(logits, token_ids):
    """Flattened first, shifted then: the last of a row is asked for the first of the next."""
    return F.cross_entropy(logits.flatten(0, 1)[:-1], token_ids.flatten()[1:])


def loss_that_rolls(logits, token_ids):
    """The last is asked for the first."""
    return F.cross_entropy(logits.flatten(0, 1), token_ids.roll(-1, dims=1).flatten())


def loss_of_a_sum(logits, token_ids):
    return shifted(logits, token_ids, reduction="sum")


def loss_per_sequence(logits, token_ids):
    return shifted(logits, token_ids, reduction="sum") / len(token_ids)


def loss_over_all_positions(logits, token_ids):
    return shifted(logits, token_ids, reduction="sum") / token_ids.numel()


def loss_with_axes(logits, token_ids):
    return shifted(logits, token_ids, reduction="none").view(len(token_ids), -1)


def loss_of_each_sequence(logits, token_ids):
    return loss_with_axes(logits, token_ids).mean(dim=1)


def loss_keeping_an_axis(logits, token_ids):
    return shifted(logits, token_ids).unsqueeze(0)


def loss_in_bits(logits, token_ids):
    return shifted(logits, token_ids) / math.log(2)


def loss_as_perplexity(logits, token_ids):
    return shifted(logits, token_ids).exp()


def loss_after_a_softmax(logits, token_ids):
    return shifted(logits.softmax(dim=-1), token_ids)


def loss_of_raw_logits(logits, token_ids):
    return F.nll_loss(logits[:, :-1].flatten(0, 1), token_ids[:, 1:].flatten())


def loss_of_probabilities(logits, token_ids):
    """The logarithm of the softmax, which is −inf where the softmax is 0."""
    p = logits[:, :-1].softmax(dim=-1).gather(-1, token_ids[:, 1:, None])
    return -p.log().mean()


def loss_with_epsilon(logits, token_ids):
    p = logits[:, :-1].softmax(dim=-1).gather(-1, token_ids[:, 1:, None])
    return -(p + 1e-8).log().mean()


def loss_with_padding(logits, token_ids):
    return shifted(logits, token_ids, ignore_index=0)


def loss_smoothed(logits, token_ids):
    return shifted(logits, token_ids, label_smoothing=0.1)


def loss_with_axes_turned(logits, token_ids):
    turned = logits[:, :-1].transpose(1, 2).reshape(-1, logits.size(-1))
    return F.cross_entropy(turned, token_ids[:, 1:].flatten())


def loss_of_the_first_sequence(logits, token_ids):
    return F.cross_entropy(logits[0, :-1], token_ids[0, 1:])


def loss_of_the_last_position(logits, token_ids):
    return F.cross_entropy(logits[:, -2], token_ids[:, -1])


def loss_without_the_first_answer(logits, token_ids):
    first = min(1, token_ids.size(1) - 2)
    return shifted(logits[:, first:], token_ids[:, first:])


def loss_by_view(logits, token_ids):
    """view fails where the sliced tensor is not contiguous, so wherever there are two rows."""
    predicted = logits[:, :-1].view(-1, logits.size(-1))
    return F.cross_entropy(predicted, token_ids[:, 1:].view(-1))


def loss_detached(logits, token_ids):
    return shifted(logits.detach(), token_ids).requires_grad_()


def loss_as_a_number(logits, token_ids):
    return shifted(logits, token_ids).item()


def loss_in_float32(logits, token_ids):
    return shifted(logits.float(), token_ids)


def loss_in_place(logits, token_ids):
    logits.data -= logits.data.amax(dim=-1, keepdim=True)
    return shifted(logits, token_ids)


def loss_marking_tokens(logits, token_ids):
    token_ids[:, 0] = -100
    labels = token_ids.roll(-1, dims=1)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def loss_binary(logits, token_ids):
    targets = F.one_hot(token_ids[:, 1:], logits.size(-1)).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits[:, :-1], targets)


def loss_with_the_wrong_sign(logits, token_ids):
    return -shifted(logits, token_ids)


# ---- filtering -----------------------------------------------------------------------------


def refuse(temperature, top_k, top_p):
    if temperature <= 0:
        raise ValueError("temperature")
    if top_k is not None and top_k < 1:
        raise ValueError("top_k")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError("top_p")


def cut_top_k(logits, k):
    kth = logits.topk(min(k, logits.size(-1))).values[..., -1:]
    return logits.masked_fill(logits < kth, -math.inf)


def before_each(ordered):
    total = ordered.double().softmax(dim=-1).cumsum(dim=-1)
    return F.pad(total[..., :-1], (1, 0))


def cut_in_order(ordered, p):
    return before_each(ordered) >= p


def cut_top_p(logits, p, cut_in_order=cut_in_order, stable=True):
    if p == 1:
        return logits
    ordered, ids = logits.sort(dim=-1, descending=True, stable=stable)
    cut = cut_in_order(ordered, p)
    return logits.masked_fill(torch.zeros_like(cut).scatter(-1, ids, cut), -math.inf)


def filtered(
    logits,
    temperature=1.0,
    top_k=None,
    top_p=None,
    refuse=refuse,
    heat=torch.true_divide,
    top_k_of=cut_top_k,
    top_p_of=cut_top_p,
):
    """Right, but for what is done to one of its steps."""
    refuse(temperature, top_k, top_p)
    logits = heat(logits, temperature)
    if top_k is not None:
        logits = top_k_of(logits, top_k)
    if top_p is not None:
        logits = top_p_of(logits, top_p)
    return logits


def _filter(name, finish=lambda result, logits: result, **changes):
    def filter_logits(logits, temperature=1.0, top_k=None, top_p=None):
        return finish(filtered(logits, temperature, top_k, top_p, **changes), logits)

    filter_logits.__name__ = name
    return filter_logits


def _filter_p(name, cut):
    return _filter(name, top_p_of=functools.partial(cut_top_p, cut_in_order=cut))


def including(ordered):
    return ordered.double().softmax(dim=-1).cumsum(dim=-1)


def first_stays(cut):
    return torch.cat([torch.zeros_like(cut[..., :1]), cut[..., 1:]], dim=-1)


filter_without_the_one_that_crosses = _filter_p(
    "filter_without_the_one_that_crosses", lambda o, p: first_stays(including(o) > p)
)
filter_leaving_nothing = _filter_p("filter_leaving_nothing", lambda o, p: including(o) > p)
filter_with_one_too_many = _filter_p(
    "filter_with_one_too_many", lambda o, p: F.pad(before_each(o)[..., :-1], (1, 0)) >= p
)
filter_with_a_strict_boundary = _filter_p(
    "filter_with_a_strict_boundary", lambda o, p: before_each(o) > p
)
filter_by_single_probabilities = _filter_p(
    "filter_by_single_probabilities", lambda o, p: first_stays(o.double().softmax(-1) < p)
)
filter_by_a_share_of_the_largest = _filter_p(
    "filter_by_a_share_of_the_largest",
    lambda o, p: o.double().softmax(-1) < p * o.double().softmax(-1)[..., :1],
)
filter_keeping_two = _filter_p(
    "filter_keeping_two",
    lambda o, p: (before_each(o) >= p) & (torch.arange(o.size(-1)) > 1),
)
filter_summing_logits = _filter_p(
    "filter_summing_logits",
    lambda o, p: first_stays(
        F.pad((o / o.sum(-1, keepdim=True)).cumsum(-1)[..., :-1], (1, 0)) >= p
    ),
)
filter_over_all_rows = _filter_p(
    "filter_over_all_rows",
    lambda o, p: before_each(o).reshape(-1, o.size(-1))[0].expand(o.shape) >= p,
)
filter_keeping_the_rest = _filter_p("filter_keeping_the_rest", lambda o, p: ~(before_each(o) >= p))


def top_p_in_sorted_order(logits, p):
    ordered = logits.sort(dim=-1, descending=True).values
    return logits if p == 1 else logits.masked_fill(cut_in_order(ordered, p), -math.inf)


def top_p_gathering(logits, p):
    """gather in place of scatter: the order is applied a second time."""
    if p == 1:
        return logits
    ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
    return logits.masked_fill(cut_in_order(ordered, p).gather(-1, ids), -math.inf)


def top_p_returning_sorted(logits, p):
    ordered = logits.sort(dim=-1, descending=True).values
    return logits if p == 1 else ordered.masked_fill(cut_in_order(ordered, p), -math.inf)


def top_p_of_the_last_ids(logits, p):
    """Among equally probable tokens the highest id comes first."""
    return cut_top_p(logits.flip(-1), p).flip(-1)


def top_p_keeping_equals(logits, p):
    """What is as probable as the last one that is kept is kept too."""
    kept = cut_top_p(logits, p)
    return logits.masked_fill(
        logits < kept.where(kept > -math.inf, math.inf).amin(-1, True), -math.inf
    )


def top_p_ascending(logits, p):
    ordered, ids = logits.sort(dim=-1, stable=True)
    cut = cut_in_order(ordered, p)
    return logits.masked_fill(torch.zeros_like(cut).scatter(-1, ids, cut), -math.inf)


def top_p_of_two_axes(logits, p):
    if p == 1:
        return logits
    ordered, ids = logits.sort(dim=1, descending=True, stable=True)
    total = ordered.double().softmax(dim=1).cumsum(dim=1)
    cut = torch.cat([torch.zeros_like(total[:, :1]), total[:, :-1]], dim=1) >= p
    return logits.masked_fill(torch.zeros_like(cut).scatter(1, ids, cut), -math.inf)


filter_in_sorted_order = _filter("filter_in_sorted_order", top_p_of=top_p_in_sorted_order)
filter_gathering = _filter("filter_gathering", top_p_of=top_p_gathering)
filter_returning_sorted = _filter("filter_returning_sorted", top_p_of=top_p_returning_sorted)
filter_of_the_last_ids = _filter("filter_of_the_last_ids", top_p_of=top_p_of_the_last_ids)
filter_keeping_equals = _filter("filter_keeping_equals", top_p_of=top_p_keeping_equals)
filter_of_the_least_probable = _filter("filter_of_the_least_probable", top_p_of=top_p_ascending)
filter_of_two_axes = _filter("filter_of_two_axes", top_p_of=top_p_of_two_axes)


def top_k_by_place(logits, k):
    places = logits.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return logits.masked_fill(places >= k, -math.inf)


def top_k_of_the_first_row(logits, k):
    kth = logits.topk(min(k, logits.size(-1))).values[..., -1].flatten()[0]
    return logits.masked_fill(logits < kth, -math.inf)


def top_k_of_all_rows(logits, k):
    kth = logits.flatten().topk(min(k, logits.numel())).values[-1]
    return logits.masked_fill(logits < kth, -math.inf)


def top_k_of_unequal(logits, k):
    """The k-th of the different values."""
    rows = []
    for row in logits.reshape(-1, logits.size(-1)):
        values = row.unique()
        rows.append(row.masked_fill(row < values[-min(k, len(values))], -math.inf))
    return torch.stack(rows).view(logits.shape)


filter_by_place = _filter("filter_by_place", top_k_of=top_k_by_place)
filter_with_the_first_rows_kth = _filter(
    "filter_with_the_first_rows_kth", top_k_of=top_k_of_the_first_row
)
filter_of_all_rows = _filter("filter_of_all_rows", top_k_of=top_k_of_all_rows)
filter_of_different_values = _filter("filter_of_different_values", top_k_of=top_k_of_unequal)
filter_without_the_kth = _filter(
    "filter_without_the_kth",
    top_k_of=lambda x, k: x.masked_fill(
        (x <= x.topk(min(k, x.size(-1))).values[..., -1:]) & (x < x.amax(-1, True)), -math.inf
    ),
)
filter_one_less = _filter("filter_one_less", top_k_of=lambda x, k: cut_top_k(x, max(1, k - 1)))
filter_one_more = _filter("filter_one_more", top_k_of=lambda x, k: cut_top_k(x, k + 1))
filter_failing_above_the_vocabulary = _filter(
    "filter_failing_above_the_vocabulary",
    top_k_of=lambda x, k: x.masked_fill(x < x.topk(k).values[..., -1:], -math.inf),
)
filter_keeping_nothing_above_the_vocabulary = _filter(
    "filter_keeping_nothing_above_the_vocabulary",
    top_k_of=lambda x, k: cut_top_k(x, k if k <= x.size(-1) else 1),
)
filter_with_zeros = _filter(
    "filter_with_zeros", lambda result, logits: result.masked_fill(result == -math.inf, 0.0)
)
filter_with_a_large_number = _filter(
    "filter_with_a_large_number",
    lambda result, logits: result.masked_fill(result == -math.inf, -1e9),
)
filter_with_the_smallest_number = _filter(
    "filter_with_the_smallest_number",
    lambda result, logits: result.clamp(min=torch.finfo(result.dtype).min),
)
filter_returning_probabilities = _filter(
    "filter_returning_probabilities", lambda result, logits: result.softmax(dim=-1)
)
filter_returning_logarithms = _filter(
    "filter_returning_logarithms", lambda result, logits: result.log_softmax(dim=-1)
)
filter_returning_float32 = _filter(
    "filter_returning_float32", lambda result, logits: result.float()
)
filter_returning_float64 = _filter(
    "filter_returning_float64", lambda result, logits: result.double()
)
filter_in_place = _filter("filter_in_place", lambda result, logits: logits.copy_(result))
filter_dividing_in_place = _filter("filter_dividing_in_place", heat=torch.Tensor.div_)
filter_marking_in_place = _filter(
    "filter_marking_in_place",
    heat=lambda x, temperature: x if temperature == 1 else x / temperature,
    top_k_of=lambda x, k: x.copy_(cut_top_k(x, k)),
    top_p_of=lambda x, p: x.copy_(cut_top_p(x, p)),
)
filter_multiplying = _filter("filter_multiplying", heat=torch.mul)
filter_ignoring_the_temperature = _filter(
    "filter_ignoring_the_temperature", heat=lambda x, temperature: x * 1.0
)
filter_with_a_root = _filter("filter_with_a_root", heat=lambda x, temperature: x / temperature**0.5)
filter_refusing_nothing = _filter("filter_refusing_nothing", refuse=lambda *knobs: None)
filter_squeezing = _filter("filter_squeezing", lambda result, logits: result.squeeze())


def _refusing(name, wrong):
    return _filter(name, refuse=wrong)


def refuse_by_assertion(temperature, top_k, top_p):
    assert temperature > 0
    assert top_k is None or top_k >= 1
    assert top_p is None or 0 < top_p <= 1


def refuse_negative_numbers(temperature, top_k, top_p):
    refuse(temperature, None if top_k == 0 else top_k, None if top_p == 0 else top_p)


def refuse_one(temperature, top_k, top_p):
    refuse(temperature, top_k, top_p)
    if top_p == 1:
        raise ValueError("top_p")


def refuse_above_one_only(temperature, top_k, top_p):
    refuse(temperature, top_k, top_p if top_p is not None and top_p > 1 else None)


def refuse_below_zero_only(temperature, top_k, top_p):
    refuse(temperature, top_k, None if top_p is not None and top_p > 1 else top_p)


def refuse_cold(temperature, top_k, top_p):
    refuse(1.0 if temperature == 0 else temperature, top_k, top_p)


def refuse_hot(temperature, top_k, top_p):
    refuse(temperature, top_k, top_p)
    if temperature > 2:
        raise ValueError("temperature")


filter_asserting = _refusing("filter_asserting", refuse_by_assertion)
filter_refusing_one = _refusing("filter_refusing_one", refuse_one)
filter_accepting_more_than_one = _refusing("filter_accepting_more_than_one", refuse_below_zero_only)
filter_accepting_no_probability = _refusing(
    "filter_accepting_no_probability", refuse_above_one_only
)
filter_accepting_zero_temperature = _refusing("filter_accepting_zero_temperature", refuse_cold)
filter_refusing_heat = _refusing("filter_refusing_heat", refuse_hot)


def filter_switched_off_by_zero(logits, temperature=1.0, top_k=None, top_p=None):
    """0 means no limit, as in Hugging Face's settings."""
    refuse_negative_numbers(temperature, top_k, top_p)
    return filtered(logits, temperature, top_k or None, top_p or None)


def filter_top_p_first(logits, temperature=1.0, top_k=None, top_p=None):
    refuse(temperature, top_k, top_p)
    logits = filtered(logits, temperature, None, top_p)
    return filtered(logits, 1.0, top_k)


def filter_both_from_all(logits, temperature=1.0, top_k=None, top_p=None):
    """The sums of top-p run over what top-k has cut, too."""
    by_k = filtered(logits, temperature, top_k)
    by_p = filtered(logits, temperature, None, top_p)
    return torch.minimum(by_k, by_p)


def filter_heating_last(logits, temperature=1.0, top_k=None, top_p=None):
    refuse(temperature, top_k, top_p)
    return filtered(logits, 1.0, top_k, top_p) / temperature


def filter_one_of_two(logits, temperature=1.0, top_k=None, top_p=None):
    refuse(temperature, top_k, top_p)
    return filtered(logits, temperature, top_k, None if top_k is not None else top_p)


def filter_with_other_defaults(logits, temperature=1.0, top_k=50, top_p=0.9):
    return filtered(logits, temperature, top_k, top_p)


# ---- generation ----------------------------------------------------------------------------


def last_that_fit(model, ids):
    return ids[:, -model.context :]


def draw(scores, generator, temperature, top_k, top_p):
    if temperature == 0:
        return scores.argmax(dim=-1, keepdim=True)
    kept = filtered(scores, temperature, top_k, top_p)
    return torch.multinomial(kept.softmax(dim=-1), 1, generator=generator)


def write(
    model,
    token_ids,
    max_new_tokens,
    generator=None,
    temperature=1.0,
    top_k=None,
    top_p=None,
    window=last_that_fit,
    read=lambda logits: logits[:, -1],
    draw=draw,
    grow=lambda ids, new: torch.cat([ids, new], dim=1),
    finish=lambda ids, given: ids,
):
    """Right, but for what is done to one of its steps."""
    was_training, ids = model.training, token_ids
    model.eval()
    with torch.no_grad():
        for _ in range(max_new_tokens):
            scores = read(model(window(model, ids)))
            ids = grow(ids, draw(scores, generator, temperature, top_k, top_p))
    model.train(was_training)
    return finish(ids, token_ids)


def _writer(name, **changes):
    def generate(
        model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
    ):
        knobs = generator, temperature, top_k, top_p
        return write(model, token_ids, max_new_tokens, *knobs, **changes)

    generate.__name__ = name
    return generate


generate_from_the_first_tokens = _writer(
    "generate_from_the_first_tokens", window=lambda model, ids: ids[:, : model.context]
)
generate_without_a_window = _writer("generate_without_a_window", window=lambda model, ids: ids)
generate_with_a_short_window = _writer(
    "generate_with_a_short_window", window=lambda model, ids: ids[:, -max(1, model.context - 1) :]
)
generate_from_the_last_token = _writer(
    "generate_from_the_last_token", window=lambda model, ids: ids[:, -1:]
)
generate_starting_over = _writer(
    "generate_starting_over",
    window=lambda model, ids: ids[:, (ids.size(1) - 1) // model.context * model.context :],
)
generate_padding_the_window = _writer(
    "generate_padding_the_window",
    window=lambda model, ids: F.pad(ids, (max(0, model.context - ids.size(1)), 0))[
        :, -model.context :
    ],
)
generate_reading_the_first = _writer("generate_reading_the_first", read=lambda logits: logits[:, 0])
generate_reading_the_mean = _writer("generate_reading_the_mean", read=lambda logits: logits.mean(1))
generate_reading_one_row = _writer(
    "generate_reading_one_row", read=lambda logits: logits[:1, -1].expand_as(logits[:, -1])
)
generate_reading_probabilities = _writer(
    "generate_reading_probabilities", read=lambda logits: logits[:, -1].softmax(dim=-1)
)
generate_returning_new_tokens = _writer(
    "generate_returning_new_tokens", finish=lambda ids, given: ids[:, given.size(1) :]
)
generate_returning_the_window = _writer(
    "generate_returning_the_window",
    grow=lambda ids, new: torch.cat([ids, new], dim=1)[:, -ids.size(1) :],
)
generate_growing_at_the_front = _writer(
    "generate_growing_at_the_front", grow=lambda ids, new: torch.cat([new, ids], dim=1)
)
generate_a_list = _writer("generate_a_list", finish=lambda ids, given: ids.tolist())
generate_floats = _writer("generate_floats", finish=lambda ids, given: ids.float())
generate_in_int32 = _writer("generate_in_int32", finish=lambda ids, given: ids.int())
generate_squeezed = _writer("generate_squeezed", finish=lambda ids, given: ids.squeeze(0))


def draw_once_for_all(scores, generator, temperature, top_k, top_p):
    if temperature == 0:
        return draw(scores, generator, temperature, top_k, top_p)
    return draw(scores[:1], generator, temperature, top_k, top_p).expand(len(scores), 1)


def draw_always_greedily(scores, generator, temperature, top_k, top_p):
    return scores.argmax(dim=-1, keepdim=True)


def draw_the_last_of_the_best(scores, generator, temperature, top_k, top_p):
    if temperature == 0:
        return scores.size(-1) - 1 - scores.flip(-1).argmax(dim=-1, keepdim=True)
    return draw(scores, generator, temperature, top_k, top_p)


def draw_with_a_small_temperature(scores, generator, temperature, top_k, top_p):
    return draw(scores, generator, temperature or 1e-4, top_k, top_p)


def draw_dividing_by_zero(scores, generator, temperature, top_k, top_p):
    kept = filtered(scores, temperature, top_k, top_p)
    return torch.multinomial(kept.softmax(dim=-1), 1, generator=generator)


def draw_greedily_when_cool(scores, generator, temperature, top_k, top_p):
    return draw(scores, generator, temperature if temperature >= 1 else 0, top_k, top_p)


def draw_without_the_generator(scores, generator, temperature, top_k, top_p):
    return draw(scores, None, temperature, top_k, top_p)


def draw_without_top_p(scores, generator, temperature, top_k, top_p):
    return draw(scores, generator, temperature, top_k, None)


def draw_without_top_k(scores, generator, temperature, top_k, top_p):
    return draw(scores, generator, temperature, None, top_p)


def draw_without_temperature(scores, generator, temperature, top_k, top_p):
    return draw(scores, generator, 1.0 if temperature else 0, top_k, top_p)


def draw_with_swapped_knobs(scores, generator, temperature, top_k, top_p):
    if top_k is None and top_p is None:
        return draw(scores, generator, temperature, top_k, top_p)
    return draw(scores, generator, temperature, top_p, top_k)


def draw_from_the_softmax_of_the_softmax(scores, generator, temperature, top_k, top_p):
    return draw(scores.softmax(-1), generator, temperature, top_k, top_p)


def draw_from_all_rows(scores, generator, temperature, top_k, top_p):
    """One softmax over the whole batch: rows are weighed against each other, and one is drawn."""
    if temperature == 0:
        return draw(scores, generator, temperature, top_k, top_p)
    kept = filtered(scores, temperature, top_k, top_p)
    p = kept.softmax(dim=0).nan_to_num() + 1e-12
    return torch.multinomial(p, 1, generator=generator)


def draw_by_the_running_sum(scores, generator, temperature, top_k, top_p):
    """One number for the whole batch."""
    if temperature == 0:
        return draw(scores, generator, temperature, top_k, top_p)
    p = filtered(scores, temperature, top_k, top_p).softmax(-1)
    number = torch.rand((), generator=generator)
    return (p.cumsum(-1) < number).sum(-1, keepdim=True).clamp(max=p.size(-1) - 1)


def draw_in_one_fresh_order(scores, generator, temperature, top_k, top_p):
    """A copy of the generator: each step begins with the same numbers."""
    fresh = None
    if generator is not None:
        fresh = torch.Generator(generator.device)
        fresh.set_state(generator.get_state())
    return draw(scores, fresh, temperature, top_k, top_p)


generate_one_draw_for_all = _writer("generate_one_draw_for_all", draw=draw_once_for_all)
generate_greedily = _writer("generate_greedily", draw=draw_always_greedily)
generate_the_last_of_the_best = _writer(
    "generate_the_last_of_the_best", draw=draw_the_last_of_the_best
)
generate_with_a_small_temperature = _writer(
    "generate_with_a_small_temperature", draw=draw_with_a_small_temperature
)
generate_dividing_by_zero = _writer("generate_dividing_by_zero", draw=draw_dividing_by_zero)
generate_greedily_when_cool = _writer("generate_greedily_when_cool", draw=draw_greedily_when_cool)
generate_without_the_generator = _writer(
    "generate_without_the_generator", draw=draw_without_the_generator
)
generate_without_top_p = _writer("generate_without_top_p", draw=draw_without_top_p)
generate_without_top_k = _writer("generate_without_top_k", draw=draw_without_top_k)
generate_without_temperature = _writer(
    "generate_without_temperature", draw=draw_without_temperature
)
generate_with_swapped_knobs = _writer("generate_with_swapped_knobs", draw=draw_with_swapped_knobs)
generate_from_two_softmaxes = _writer(
    "generate_from_two_softmaxes", draw=draw_from_the_softmax_of_the_softmax
)
generate_over_the_batch = _writer("generate_over_the_batch", draw=draw_from_all_rows)
generate_by_one_number = _writer("generate_by_one_number", draw=draw_by_the_running_sum)
generate_with_a_copied_generator = _writer(
    "generate_with_a_copied_generator", draw=draw_in_one_fresh_order
)


def generate_with_a_seed_of_its_own(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    torch.manual_seed(0)
    return write(model, token_ids, max_new_tokens, generator, temperature, top_k, top_p)


def generate_in_the_models_mode(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    with torch.no_grad():
        for _ in range(max_new_tokens):
            scores = model(last_that_fit(model, token_ids))[:, -1]
            new = draw(scores, generator, temperature, top_k, top_p)
            token_ids = torch.cat([token_ids, new], dim=1)
    return token_ids


def generate_leaving_evaluation_mode(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    model.eval()
    return write(model, token_ids, max_new_tokens, generator, temperature, top_k, top_p)


def generate_leaving_training_mode(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    ids = write(model, token_ids, max_new_tokens, generator, temperature, top_k, top_p)
    model.train()
    return ids


def generate_with_gradients(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    was_training = model.training
    model.eval()
    for _ in range(max_new_tokens):
        scores = model(last_that_fit(model, token_ids))[:, -1]
        new = draw(scores, generator, temperature, top_k, top_p)
        token_ids = torch.cat([token_ids, new], dim=1)
    model.train(was_training)
    return token_ids


def generate_freezing_the_model(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    model.requires_grad_(False)
    return write(model, token_ids, max_new_tokens, generator, temperature, top_k, top_p)


def generate_until_zero(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    """Token 0 is taken for an end."""
    ids = write(model, token_ids, max_new_tokens, generator, temperature, top_k, top_p)
    new = ids[:, token_ids.size(1) :]
    ended = (new == 0).cumsum(dim=1) > 0
    return torch.cat([token_ids, new.masked_fill(ended, 0)], dim=1)


def generate_up_to_a_length(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    """max_new_tokens is taken for the length of the result."""
    number = max(0, max_new_tokens - token_ids.size(1))
    return write(model, token_ids, number, generator, temperature, top_k, top_p)


def generate_within_the_context(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    """Stops where the context is full."""
    number = min(max_new_tokens, max(0, model.context - token_ids.size(1)))
    return write(model, token_ids, number, generator, temperature, top_k, top_p)


def generate_forgetting_what_does_not_fit(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    """A prompt that is too long is cut in the result, too."""
    ids = token_ids[:, -model.context :]
    return write(model, ids, max_new_tokens, generator, temperature, top_k, top_p)


def generate_one_less(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    number = max(0, max_new_tokens - 1)
    return write(model, token_ids, number, generator, temperature, top_k, top_p)


def generate_from_the_given_tokens(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    """The model is asked about the given tokens again and again."""
    given = last_that_fit(model, token_ids)
    knobs = generator, temperature, top_k, top_p
    return write(model, token_ids, max_new_tokens, *knobs, window=lambda model, ids: given)


def generate_overwriting_the_prompt(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    ids = write(model, token_ids, max_new_tokens, generator, temperature, top_k, top_p)
    token_ids.copy_(ids[:, -token_ids.size(1) :])
    return ids


def generate_sequence_by_sequence_with_one_seed(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    """Each row begins with the same state of the generator."""
    rows, state = [], None if generator is None else generator.get_state()
    for row in token_ids.split(1):
        if generator is not None:
            generator.set_state(state)
        rows.append(write(model, row, max_new_tokens, generator, temperature, top_k, top_p))
    return torch.cat(rows)


def generate_copying_the_model(
    model, token_ids, max_new_tokens, generator=None, temperature=1.0, top_k=None, top_p=None
):
    """Dropout stays on: the copy is taken as it is, and nothing of it is switched."""
    return generate_in_the_models_mode(
        copy.deepcopy(model), token_ids, max_new_tokens, generator, temperature, top_k, top_p
    )


# ---- the cache -----------------------------------------------------------------------------


class Cached(nn.Module):
    """Right, but for what is done to one of its parts."""

    def __init__(self, d_model, num_heads):
        super().__init__()
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(d_model, d_model) for _ in range(4))
        self.heads = num_heads

    def split(self, y):
        return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def merge(self, y):
        return y.transpose(1, 2).flatten(2)

    def grow(self, cache, k, v):
        if cache is None:
            return k, v
        return torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)

    def mask(self, new, past, device):
        return torch.ones(new, past + new, dtype=torch.bool, device=device).tril(past)

    def scores(self, q, k):
        return q @ k.mT / math.sqrt(q.size(-1))

    def read(self, q, k, v):
        mask = self.mask(q.size(2), k.size(2) - q.size(2), q.device)
        scores = self.scores(q, k).masked_fill(~mask, -math.inf)
        return scores.softmax(dim=-1) @ v

    def forward(self, x, cache=None):
        q, k, v = (self.split(layer(x)) for layer in (self.w_q, self.w_k, self.w_v))
        k, v = self.grow(cache, k, v)
        return self.w_o(self.merge(self.read(q, k, v))), (k, v)


class CachedCountingFromZero(Cached):
    """New positions are numbered from 0, as if nothing stood before them."""

    def mask(self, new, past, device):
        return torch.ones(new, past + new, dtype=torch.bool, device=device).tril()


class CachedByTheKernelsTriangle(Cached):
    """is_causal puts its triangle at the upper left."""

    def read(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class CachedByTheKernelWhenFresh(Cached):
    """Causal only as long as there is no past."""

    def read(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=q.size(2) == k.size(2))


class CachedWithoutAMask(Cached):
    def mask(self, new, past, device):
        return torch.ones(new, past + new, dtype=torch.bool, device=device)


class CachedWithAMaskAtFirst(Cached):
    def mask(self, new, past, device):
        mask = super().mask(new, past, device)
        return mask if past == 0 else torch.ones_like(mask)


class CachedBarringItself(Cached):
    def mask(self, new, past, device):
        mask = torch.ones(new, past + new, dtype=torch.bool, device=device).tril(past - 1)
        mask[:, 0] = True
        return mask


class CachedReadingOneAhead(Cached):
    def mask(self, new, past, device):
        return torch.ones(new, past + new, dtype=torch.bool, device=device).tril(past + 1)


class CachedReadingOnlyThePastAndItself(Cached):
    """New positions do not read one another."""

    def mask(self, new, past, device):
        mask = super().mask(new, past, device)
        return mask & ~torch.ones_like(mask).tril(past - 1).triu(past - new + 1).logical_and(
            torch.arange(past + new, device=device) >= past
        )


class CachedForgettingTheFirst(Cached):
    def mask(self, new, past, device):
        mask = super().mask(new, past, device)
        if past:
            mask[:, 0] = False
        return mask


class CachedWithAWindow(Cached):
    def mask(self, new, past, device):
        return super().mask(new, past, device).triu(past - 6)


class CachedReadingTheNewOnly(Cached):
    def read(self, q, k, v):
        return super().read(q, k[:, :, -q.size(2) :], v[:, :, -q.size(2) :])


class CachedReadingBackwards(Cached):
    """The new ones are put in front."""

    def grow(self, cache, k, v):
        if cache is None:
            return k, v
        return torch.cat([k, cache[0]], dim=2), torch.cat([v, cache[1]], dim=2)


class CachedJoiningHeads(Cached):
    def grow(self, cache, k, v):
        if cache is None:
            return k, v
        return torch.cat([cache[0], k], dim=1), torch.cat([cache[1], v], dim=1)


class CachedKeysOnly(Cached):
    """The values are those of the new positions, again and again."""

    def grow(self, cache, k, v):
        if cache is None:
            return k, v
        k = torch.cat([cache[0], k], dim=2)
        return k, v.repeat(1, 1, -(-k.size(2) // v.size(2)), 1)[:, :, -k.size(2) :]


class CachedSwapped(Cached):
    """Keys and values change places from call to call."""

    def forward(self, x, cache=None):
        output, (k, v) = super().forward(x, cache)
        return output, (v, k)


class CachedSwappedThroughout(Cached):
    def forward(self, x, cache=None):
        output, (k, v) = super().forward(x, None if cache is None else cache[::-1])
        return output, (v, k)


class CachedReturningTheNew(Cached):
    def forward(self, x, cache=None):
        output, (k, v) = super().forward(x, cache)
        return output, (k[:, :, -x.size(1) :], v[:, :, -x.size(1) :])


class CachedReturningTheOld(Cached):
    def forward(self, x, cache=None):
        output, kept = super().forward(x, cache)
        return output, kept if cache is None else cache


class CachedGrowingTheGiven(Cached):
    """The given tensors are made longer in place."""

    def grow(self, cache, k, v):
        if cache is None:
            return k, v
        k, v = super().grow(cache, k, v)
        cache[0].data, cache[1].data = k.detach(), v.detach()
        return k, v


class CachedWritingIntoTheGiven(Cached):
    def forward(self, x, cache=None):
        result = super().forward(x, cache)
        if cache is not None:
            cache[0].data[:, :, -1] = 0
        return result


class CachedGrowingAList(Cached):
    """One list for all: what is returned is the list that was given."""

    def forward(self, x, cache=None):
        output, kept = super().forward(x, cache)
        if isinstance(cache, list):
            cache[:] = kept
            return output, cache
        return output, list(kept)


class CachedInItself(Cached):
    """The past is kept in the module, whatever is given."""

    kept = None

    def forward(self, x, cache=None):
        if cache is None:
            self.kept = None
        output, self.kept = super().forward(x, self.kept)
        return output, self.kept


class CachedInItselfForEver(Cached):
    kept = None

    def forward(self, x, cache=None):
        if self.kept is not None and self.kept[0].size(0) != x.size(0):
            self.kept = None
        output, self.kept = super().forward(x, self.kept)
        return output, self.kept


class CachedBeforeSplitting(Cached):
    """Kept as (batch, past, d_model)."""

    def forward(self, x, cache=None):
        k, v = self.w_k(x), self.w_v(x)
        if cache is not None:
            k, v = torch.cat([cache[0], k], dim=1), torch.cat([cache[1], v], dim=1)
        read = self.read(self.split(self.w_q(x)), self.split(k), self.split(v))
        return self.w_o(self.merge(read)), (k, v)


class CachedWithLengthBeforeHeads(Cached):
    """Kept as (batch, past, heads, d_head)."""

    def forward(self, x, cache=None):
        given = None if cache is None else tuple(part.transpose(1, 2) for part in cache)
        output, (k, v) = super().forward(x, given)
        return output, (k.transpose(1, 2), v.transpose(1, 2))


class CachedWithKeysTransposed(Cached):
    def forward(self, x, cache=None):
        given = None if cache is None else (cache[0].mT, cache[1])
        output, (k, v) = super().forward(x, given)
        return output, (k.mT, v)


class CachedWithQueries(Cached):
    def forward(self, x, cache=None):
        output, kept = super().forward(x, None if cache is None else cache[1:])
        return output, (self.split(self.w_q(x)), *kept)


class CachedReturningWeights(Cached):
    def forward(self, x, cache=None):
        output, kept = super().forward(x, cache)
        weights = self.scores(self.split(self.w_q(x)), kept[0]).softmax(dim=-1)
        return output, weights, kept


class CachedReturningOneOutput(Cached):
    def forward(self, x, cache=None):
        output, kept = super().forward(x, cache)
        return output[:, -1:] if cache is not None else output, kept


class CachedForgettingTheCache(Cached):
    def forward(self, x, cache=None):
        return super().forward(x, cache)[0]


class CachedKeepingScaledKeys(Cached):
    def scores(self, q, k):
        return q @ k.mT

    def forward(self, x, cache=None):
        q, k, v = (self.split(layer(x)) for layer in (self.w_q, self.w_k, self.w_v))
        k, v = self.grow(cache, k / math.sqrt(k.size(-1)), v)
        return self.w_o(self.merge(self.read(q, k, v))), (k, v)


class CachedScalingAgain(Cached):
    """What comes from the cache is scaled once more in each call."""

    def scores(self, q, k):
        past, width = k.size(2) - q.size(2), math.sqrt(q.size(-1))
        scores = q @ k.mT / width
        return torch.cat([scores[..., :past] / width, scores[..., past:]], dim=-1)


class CachedWithoutTheRoot(Cached):
    def scores(self, q, k):
        return q @ k.mT


class CachedOverTheWidth(Cached):
    def scores(self, q, k):
        return super().scores(q, k) / math.sqrt(self.heads)


class CachedOverTheWrongAxis(Cached):
    def read(self, q, k, v):
        mask = self.mask(q.size(2), k.size(2) - q.size(2), q.device)
        scores = self.scores(q, k).masked_fill(~mask, -1e9)
        return scores.softmax(dim=-2) @ v


class CachedInTwoSoftmaxes(Cached):
    """Past and new each have a softmax of their own."""

    def read(self, q, k, v):
        past = k.size(2) - q.size(2)
        now = super().read(q, k[:, :, past:], v[:, :, past:])
        if not past:
            return now
        return (now + self.scores(q, k[:, :, :past]).softmax(-1) @ v[:, :, :past]) / 2


class CachedMaskingAfterTheSoftmax(Cached):
    def read(self, q, k, v):
        mask = self.mask(q.size(2), k.size(2) - q.size(2), q.device)
        return self.scores(q, k).softmax(dim=-1).masked_fill(~mask, 0.0) @ v


class CachedWithoutAnOutputLayer(Cached):
    def forward(self, x, cache=None):
        q, k, v = (self.split(layer(x)) for layer in (self.w_q, self.w_k, self.w_v))
        k, v = self.grow(cache, k, v)
        return self.merge(self.read(q, k, v)), (k, v)


class CachedWithoutBiases(Cached):
    def __init__(self, d_model, num_heads):
        super().__init__(d_model, num_heads)
        for name in ("w_q", "w_k", "w_v"):
            setattr(self, name, nn.Linear(d_model, d_model, bias=False))


class CachedWithOtherNames(Cached):
    def __init__(self, d_model, num_heads):
        super().__init__(d_model, num_heads)
        self.c_proj = self.w_o
        del self.w_o

    def forward(self, x, cache=None):
        q, k, v = (self.split(layer(x)) for layer in (self.w_q, self.w_k, self.w_v))
        k, v = self.grow(cache, k, v)
        return self.c_proj(self.merge(self.read(q, k, v))), (k, v)


class CachedSplittingByAReshape(Cached):
    def split(self, y):
        return y.reshape(y.size(0), self.heads, -1, y.size(2) // self.heads)

    def merge(self, y):
        return y.reshape(y.size(0), y.size(2), -1)


class CachedMergingByAReshape(Cached):
    def merge(self, y):
        return y.reshape(y.size(0), y.size(2), -1)


class CachedInterleavingHeads(Cached):
    def split(self, y):
        return y.unflatten(-1, (-1, self.heads)).permute(0, 3, 1, 2)

    def merge(self, y):
        return y.permute(0, 2, 3, 1).flatten(2)


class CachedOfTheFirstSequence(Cached):
    def grow(self, cache, k, v):
        if cache is not None:
            cache = [part[:1].expand_as(part) for part in cache]
        return super().grow(cache, k, v)


class CachedDetachingKeys(Cached):
    def grow(self, cache, k, v):
        return super().grow(cache, k.detach(), v.detach())


class CachedInFloat32(Cached):
    def scores(self, q, k):
        return super().scores(q.float(), k.float()).to(q.dtype)


class CachedKeepingFloat32(Cached):
    def forward(self, x, cache=None):
        given = None if cache is None else tuple(part.to(x.dtype) for part in cache)
        output, kept = super().forward(x, given)
        return output, tuple(part.float() for part in kept)


class CachedKeepingHalf(Cached):
    """The cache is rounded to 16 bits on its way."""

    def grow(self, cache, k, v):
        if cache is not None:
            cache = tuple(part.bfloat16().to(part.dtype) for part in cache)
        return super().grow(cache, k, v)


class CachedChangingItsInput(Cached):
    def forward(self, x, cache=None):
        result = super().forward(x, cache)
        x.data.zero_()
        return result


class CachedLimitingThePast(Cached):
    """Keeps eight positions at most."""

    def forward(self, x, cache=None):
        output, (k, v) = super().forward(x, cache)
        return output, (k[:, :, -8:], v[:, :, -8:])


class CachedOneAtATime(Cached):
    """With a past, only a single new position is thought of."""

    def read(self, q, k, v):
        if k.size(2) == q.size(2):
            return super().read(q, k, v)
        return self.scores(q, k).softmax(dim=-1) @ v


MUTANTS = {
    "gpt/learn_bpe": [
        learn_counting_words_once,
        learn_counting_pairs_once_a_word,
        learn_counting_without_overlap,
        learn_counting_squares,
        learn_counting_logarithms,
        learn_counting_every_other_pair,
        learn_the_first_seen,
        learn_the_most_common,
        learn_the_last_in_order,
        learn_the_last_seen,
        learn_ordering_joined_text,
        learn_ordering_by_the_right,
        learn_the_longest_of_equals,
        learn_the_shortest_of_equals,
        learn_the_rarest,
        learn_joining_in_a_string,
        learn_joining_from_the_right,
        learn_joining_the_first,
        learn_joining_with_overlap,
        learn_until_pairs_are_rare,
        learn_with_an_end_mark,
        learn_with_the_end_at_the_last_letter,
        learn_from_bytes,
        learn_in_lower_case,
        learn_across_words,
        learn_without_stopping,
        learn_repeating_the_last,
        learn_joined_text,
        learn_with_counts,
        learn_as_a_tuple,
        learn_as_a_generator,
        learn_sorted,
        learn_one_more,
        learn_one_less,
        learn_up_to_a_vocabulary,
        learn_counting_only_at_the_start,
        learn_without_taking_off,
        learn_keeping_counts,
        learn_emptying_words,
        learn_splitting_the_words_themselves,
        learn_that_remembers,
        learn_without_words_of_two,
    ],
    "gpt/apply_bpe": [
        apply_to_the_first,
        apply_from_the_right,
        apply_in_a_string,
        apply_with_overlap,
        apply_backwards,
        apply_the_longest_first,
        apply_in_sorted_order,
        apply_the_longest_piece,
        apply_whatever_fits_first,
        apply_until_one_is_missing,
        apply_one_merge,
        apply_without_the_last,
        apply_as_text,
        apply_as_a_tuple,
        apply_with_an_empty_piece,
        apply_with_an_end_mark,
        apply_without_unknown_characters,
        apply_with_unknown_pieces,
        apply_the_whole_word_where_nothing_fits,
        apply_in_lower_case,
        apply_to_bytes,
        apply_emptying_the_merges,
        apply_that_remembers_words,
        apply_by_patterns,
    ],
    "gpt/GPTBlock": [
        *WRONG_BLOCKS.values(),
        BlockWithBertsEps,
        BlockNormalizingPositionsToo,
        BlockWithExactGelu,
        BlockWithAMistypedGelu,
        BlockWithoutAMask,
        BlockReadingTheFuture,
        BlockBarringItself,
        BlockBarringItselfWithNan,
        BlockBarringItselfButTheFirst,
        BlockReadingOneAhead,
        BlockWithAWindow,
        BlockWithTheMaskOfTheBatch,
        BlockWithTheFirstMask,
        BlockForShortTexts,
        BlockWithASoftMask,
        BlockNormalizingTheQueryOnly,
        BlockReadingRawValues,
        BlockNotDroppingInTheAttention,
        BlockDroppingOnlyInTheAttention,
        BlockDroppingInEvaluation,
        BlockDroppingTheSum,
        BlockWithAFixedRate,
        BlockOfTwiceTheWidth,
        BlockWithGpt2sNames,
        BlockWithAThirdNorm,
        BlockOfTorch,
    ],
    "gpt/GPT": [
        ModelNotTied,
        ModelTiedOnce,
        ModelWithAnOutputBias,
        ModelDetachingTheOutput,
        ModelDetachingTheInput,
        ModelScoringWithDividedNumbers,
        ModelWithScaledEmbeddings,
        ModelReturningProbabilities,
        ModelReturningLogarithms,
        ModelScoringTheLast,
        ModelWithoutTheLastNorm,
        ModelNormalizingEarly,
        ModelNormalizingAfterEachBlock,
        ModelWithBertsEps,
        ModelNormalizingTheLogits,
        ModelWithoutPositions,
        ModelCountingFromOne,
        ModelCountingFromTheEnd,
        ModelAtTheEndOfTheTable,
        ModelCountingSequences,
        ModelWithTokensAsPositions,
        ModelAddingPositionsToEachBlock,
        ModelOfWholeContextsOnly,
        ModelWithFrozenPositions,
        ModelWithPadding,
        ModelSilencingTokenZero,
        ModelThatRefusesNothing,
        ModelThatCuts,
        ModelThatAsserts,
        ModelThatRefusesTheWholeContext,
        ModelThatNamesNoNumbers,
        ModelThatNamesOneNumber,
        ModelThatRefusesLargeBatches,
        ModelWithoutTheAttribute,
        ModelOfOneBlock,
        ModelSharingItsBlocks,
        ModelWithAPlainList,
        ModelBackwards,
        ModelWithoutTheLastBlock,
        ModelForgettingResults,
        ModelAddingAroundBlocks,
        ModelOfPostNormBlocks,
        ModelOfBlocksThatSeeEverything,
        ModelDroppingTokensOnly,
        ModelNotDroppingEmbeddings,
        ModelNotDroppingInBlocks,
        ModelDroppingInEvaluation,
        ModelDroppingAtTheEndToo,
        ModelReturningFloat32,
        ModelSqueezed,
        ModelChangingItsInput,
        ModelThatLimitsTheTable,
        ModelReturningALoss,
        ModelWithGpt2sNames,
    ],
    "gpt/next_token_loss": [
        loss_without_a_shift,
        loss_without_a_shift_and_without_the_last,
        loss_shifted_backwards,
        loss_shifted_by_two,
        loss_across_rows,
        loss_that_rolls,
        loss_of_a_sum,
        loss_per_sequence,
        loss_over_all_positions,
        loss_with_axes,
        loss_of_each_sequence,
        loss_keeping_an_axis,
        loss_in_bits,
        loss_as_perplexity,
        loss_after_a_softmax,
        loss_of_raw_logits,
        loss_of_probabilities,
        loss_with_epsilon,
        loss_with_padding,
        loss_smoothed,
        loss_with_axes_turned,
        loss_of_the_first_sequence,
        loss_of_the_last_position,
        loss_without_the_first_answer,
        loss_by_view,
        loss_detached,
        loss_as_a_number,
        loss_in_float32,
        loss_in_place,
        loss_marking_tokens,
        loss_binary,
        loss_with_the_wrong_sign,
    ],
    "gpt/filter_logits": [
        filter_without_the_one_that_crosses,
        filter_leaving_nothing,
        filter_with_one_too_many,
        filter_with_a_strict_boundary,
        filter_by_single_probabilities,
        filter_by_a_share_of_the_largest,
        filter_keeping_two,
        filter_summing_logits,
        filter_over_all_rows,
        filter_keeping_the_rest,
        filter_in_sorted_order,
        filter_gathering,
        filter_returning_sorted,
        filter_of_the_last_ids,
        filter_keeping_equals,
        filter_of_the_least_probable,
        filter_of_two_axes,
        filter_by_place,
        filter_with_the_first_rows_kth,
        filter_of_all_rows,
        filter_of_different_values,
        filter_without_the_kth,
        filter_one_less,
        filter_one_more,
        filter_failing_above_the_vocabulary,
        filter_keeping_nothing_above_the_vocabulary,
        filter_with_zeros,
        filter_with_a_large_number,
        filter_with_the_smallest_number,
        filter_returning_probabilities,
        filter_returning_logarithms,
        filter_returning_float32,
        filter_returning_float64,
        filter_in_place,
        filter_dividing_in_place,
        filter_marking_in_place,
        filter_multiplying,
        filter_ignoring_the_temperature,
        filter_with_a_root,
        filter_refusing_nothing,
        filter_squeezing,
        filter_asserting,
        filter_refusing_one,
        filter_accepting_more_than_one,
        filter_accepting_no_probability,
        filter_accepting_zero_temperature,
        filter_refusing_heat,
        filter_switched_off_by_zero,
        filter_top_p_first,
        filter_both_from_all,
        filter_heating_last,
        filter_one_of_two,
        filter_with_other_defaults,
    ],
    "gpt/generate": [
        generate_from_the_first_tokens,
        generate_without_a_window,
        generate_with_a_short_window,
        generate_from_the_last_token,
        generate_starting_over,
        generate_padding_the_window,
        generate_reading_the_first,
        generate_reading_the_mean,
        generate_reading_one_row,
        generate_reading_probabilities,
        generate_returning_new_tokens,
        generate_returning_the_window,
        generate_growing_at_the_front,
        generate_a_list,
        generate_floats,
        generate_in_int32,
        generate_squeezed,
        generate_one_draw_for_all,
        generate_greedily,
        generate_the_last_of_the_best,
        generate_with_a_small_temperature,
        generate_dividing_by_zero,
        generate_greedily_when_cool,
        generate_without_the_generator,
        generate_without_top_p,
        generate_without_top_k,
        generate_without_temperature,
        generate_with_swapped_knobs,
        generate_from_two_softmaxes,
        generate_over_the_batch,
        generate_by_one_number,
        generate_with_a_copied_generator,
        generate_with_a_seed_of_its_own,
        generate_in_the_models_mode,
        generate_leaving_evaluation_mode,
        generate_leaving_training_mode,
        generate_with_gradients,
        generate_freezing_the_model,
        generate_until_zero,
        generate_up_to_a_length,
        generate_within_the_context,
        generate_forgetting_what_does_not_fit,
        generate_one_less,
        generate_from_the_given_tokens,
        generate_overwriting_the_prompt,
        generate_sequence_by_sequence_with_one_seed,
        generate_copying_the_model,
    ],
    "gpt/CachedAttention": [
        CachedCountingFromZero,
        CachedByTheKernelsTriangle,
        CachedByTheKernelWhenFresh,
        CachedWithoutAMask,
        CachedWithAMaskAtFirst,
        CachedBarringItself,
        CachedReadingOneAhead,
        CachedReadingOnlyThePastAndItself,
        CachedForgettingTheFirst,
        CachedWithAWindow,
        CachedReadingTheNewOnly,
        CachedReadingBackwards,
        CachedJoiningHeads,
        CachedKeysOnly,
        CachedSwapped,
        CachedSwappedThroughout,
        CachedReturningTheNew,
        CachedReturningTheOld,
        CachedGrowingTheGiven,
        CachedWritingIntoTheGiven,
        CachedGrowingAList,
        CachedInItself,
        CachedInItselfForEver,
        CachedBeforeSplitting,
        CachedWithLengthBeforeHeads,
        CachedWithKeysTransposed,
        CachedWithQueries,
        CachedReturningWeights,
        CachedReturningOneOutput,
        CachedForgettingTheCache,
        CachedKeepingScaledKeys,
        CachedScalingAgain,
        CachedWithoutTheRoot,
        CachedOverTheWidth,
        CachedOverTheWrongAxis,
        CachedInTwoSoftmaxes,
        CachedMaskingAfterTheSoftmax,
        CachedWithoutAnOutputLayer,
        CachedWithoutBiases,
        CachedWithOtherNames,
        CachedSplittingByAReshape,
        CachedMergingByAReshape,
        CachedInterleavingHeads,
        CachedOfTheFirstSequence,
        CachedDetachingKeys,
        CachedInFloat32,
        CachedKeepingFloat32,
        CachedKeepingHalf,
        CachedChangingItsInput,
        CachedLimitingThePast,
        CachedOneAtATime,
    ],
}

NAMED = {
    "learn_counting_words_once": "Every word counts once",
    "learn_counting_pairs_once_a_word": "A pair counts once for each word",
    "learn_counting_without_overlap": "Pairs that overlap count once",
    "learn_the_first_seen": "Of equally frequent pairs it takes the one that was counted",
    "learn_the_most_common": "Of equally frequent pairs it takes the one that was counted",
    "learn_the_last_in_order": "Of equally frequent pairs it takes the last in Python's",
    "learn_the_last_seen": "Of equally frequent pairs it takes the one that was counted",
    "learn_ordering_joined_text": "Equally frequent pairs are compared as joined text",
    "learn_ordering_by_the_right": "Equally frequent pairs are compared by their right piece",
    "learn_the_longest_of_equals": "Of equally frequent pairs it takes one by length",
    "learn_the_shortest_of_equals": "Of equally frequent pairs it takes one by length",
    "learn_the_rarest": "The least frequent pair is joined",
    "learn_joining_in_a_string": "The pieces are joined by replacing text",
    "learn_joining_from_the_right": "Joining goes from right to left",
    "learn_joining_the_first": "Only the first occurrence in each word is joined",
    "learn_joining_with_overlap": "After joining it goes on by one piece instead of two",
    "learn_until_pairs_are_rare": "It stops while there are still pairs",
    "learn_with_an_end_mark": "A sign for the end or the beginning",
    "learn_with_the_end_at_the_last_letter": "A sign for the end or the beginning",
    "learn_from_bytes": "The words begin as bytes",
    "learn_in_lower_case": "Capital letters are made small",
    "learn_without_stopping": "It does not stop where no pair is left",
    "learn_joined_text": "The merges are returned as joined pieces",
    "learn_sorted": "The merges are sorted",
    "learn_one_more": "It returns one merge too many",
    "learn_one_less": "It returns one merge too few",
    "learn_up_to_a_vocabulary": "num_merges is taken for the size of the vocabulary",
    "learn_counting_only_at_the_start": "The pairs are counted once",
    "learn_emptying_words": "The dictionary words is changed",
    "learn_splitting_the_words_themselves": "The dictionary words is changed",
    "apply_to_the_first": "Each merge is done once",
    "apply_from_the_right": "Joining goes from right to left",
    "apply_in_a_string": "The pieces are joined by replacing text",
    "apply_with_overlap": "After joining it goes on by one piece instead of two",
    "apply_backwards": "The merges are done in reverse order",
    "apply_the_longest_first": "The merges are sorted",
    "apply_in_sorted_order": "The merges are sorted",
    "apply_the_longest_piece": "The longest piece that fits is taken",
    "apply_whatever_fits_first": "The word is read from left to right",
    "apply_until_one_is_missing": "It stops at the first merge that does not fit",
    "apply_one_merge": "It stops after the first merge that fits",
    "apply_without_the_last": "The last merge is left out",
    "apply_with_an_empty_piece": "The empty word gives one empty piece",
    "apply_with_an_end_mark": "A sign for the end or the beginning",
    "apply_without_unknown_characters": "Characters that no merge knows are lost",
    "apply_with_unknown_pieces": "Characters that no merge knows are lost",
    "apply_in_lower_case": "Capital letters are made small",
    "apply_to_bytes": "The word begins as bytes",
    "apply_emptying_the_merges": "The list of merges is changed",
    "loss_without_a_shift": "There is no shift",
    "loss_without_a_shift_and_without_the_last": "Both are cut at the same end",
    "loss_shifted_backwards": "It is shifted the wrong way",
    "loss_shifted_by_two": "One position too many is cut off",
    "loss_across_rows": "The rows of the batch are put in one line before shifting",
    "loss_that_rolls": "Shifting goes around in a circle",
    "loss_of_a_sum": "It is not the mean over all targets",
    "loss_per_sequence": "It is not the mean over all targets",
    "loss_over_all_positions": "The sum is divided by batch * length",
    "loss_with_axes": "The result has an axis left",
    "loss_of_each_sequence": "The result has an axis left",
    "loss_in_bits": "The loss is in bits",
    "loss_as_perplexity": "This is the perplexity",
    "loss_after_a_softmax": "A softmax or sigmoid comes before the cross-entropy",
    "loss_of_raw_logits": "The logits are taken for log-probabilities",
    "loss_of_probabilities": "The softmax leaves the logarithms on the way",
    "loss_with_padding": "Token 0 is taken for padding",
    "loss_of_the_last_position": "Only the last position is asked",
    "loss_without_the_first_answer": "One position too many is cut off",
    "loss_binary": "Each token is a yes-or-no question of its own",
    "loss_with_the_wrong_sign": "The sign is missing",
    "filter_without_the_one_that_crosses": "The token that crosses the boundary is cut",
    "filter_leaving_nothing": "The token that crosses the boundary is cut",
    "filter_with_one_too_many": "Top-p keeps one token too many",
    "filter_with_a_strict_boundary": "A token is kept although those before it sum to exactly",
    "filter_by_single_probabilities": "Top-p compares each token's own probability with a bound",
    "filter_by_a_share_of_the_largest": "Top-p compares each token's own probability with a bound",
    "filter_over_all_rows": "Top-p does not treat each row by itself",
    "filter_in_sorted_order": "The sorted decision is not brought back to where the tokens",
    "filter_gathering": "The sorted decision is brought back with gather",
    "filter_of_the_last_ids": "Of equally probable tokens the higher id comes first in",
    "filter_keeping_equals": "Tokens equal to the last kept one are kept too in top-p",
    "filter_of_the_least_probable": "Top-p sorts in ascending order",
    "filter_by_place": "Of several tokens equal to the k-th largest only some are",
    "filter_with_the_first_rows_kth": "Top-k compares a token with another row's k-th largest",
    "filter_of_all_rows": "Top-k compares a token with another row's k-th largest",
    "filter_without_the_kth": "Top-k cuts the k-th largest token too",
    "filter_one_less": "Top-k cuts the k-th largest token too",
    "filter_one_more": "Top-k keeps one token more than k",
    "filter_failing_above_the_vocabulary": "A top_k above the vocabulary raises an error",
    "filter_with_a_large_number": "What is cut becomes a number instead of minus infinity",
    "filter_with_the_smallest_number": "What is cut becomes a number instead of minus infinity",
    "filter_returning_probabilities": "Probabilities or their logarithms are returned",
    "filter_returning_logarithms": "Probabilities or their logarithms are returned",
    "filter_returning_float32": "The result is always float32",
    "filter_marking_in_place": "The logits that were given are changed in place",
    "filter_multiplying": "The temperature is multiplied by",
    "filter_ignoring_the_temperature": "The temperature is ignored",
    "filter_refusing_nothing": "Values that make no sense are not refused",
    "filter_asserting": "Values that make no sense are not refused",
    "filter_refusing_one": "A top_p of 1 is refused",
    "filter_accepting_more_than_one": "Values that make no sense are not refused",
    "filter_accepting_no_probability": "Values that make no sense are not refused",
    "filter_accepting_zero_temperature": "Values that make no sense are not refused",
    "filter_switched_off_by_zero": "A top_k or top_p of 0 is taken for None",
    "filter_top_p_first": "Top-p looks at the distribution before top-k",
    "filter_both_from_all": "Top-p looks at the distribution before top-k",
    "filter_heating_last": "The temperature comes after top-p",
    "filter_one_of_two": "Where both are given",
    "generate_from_the_first_tokens": "The model gets the first tokens of a long text",
    "generate_without_a_window": "The model gets all tokens",
    "generate_with_a_short_window": "The model does not get exactly the last model.context tokens",
    "generate_from_the_last_token": "The model gets the last token only",
    "generate_reading_the_first": "The next token is not read from the logits at the last",
    "generate_reading_the_mean": "The next token is not read from the logits at the last",
    "generate_returning_new_tokens": "Only the new tokens are returned",
    "generate_growing_at_the_front": "The new tokens are put in front",
    "generate_one_draw_for_all": "One token is drawn for the whole batch",
    "generate_greedily": "The most probable token is always taken",
    "generate_the_last_of_the_best": "Of equal logits greedy takes the highest id",
    "generate_dividing_by_zero": "A temperature of 0 raises an error",
    "generate_greedily_when_cool": "Every temperature below 1 is taken for greedy",
    "generate_without_the_generator": "The generator is not used",
    "generate_without_top_p": "The draws ignore top_p",
    "generate_without_top_k": "The draws ignore top_k",
    "generate_without_temperature": "The temperature is ignored in drawing",
    "generate_with_a_copied_generator": "The generator begins anew in every step",
    "generate_in_the_models_mode": "The model does not run in evaluation mode",
    "generate_leaving_evaluation_mode": "A model that was in training mode stays",
    "generate_leaving_training_mode": "The model is always in training mode afterwards",
    "generate_with_gradients": "Gradients are recorded",
    "generate_up_to_a_length": "max_new_tokens is taken for the length of the result",
    "generate_one_less": "It writes one token too many or too few",
    "generate_from_the_given_tokens": "The model always gets the tokens that were given at first",
    "generate_overwriting_the_prompt": "The token ids that were given are changed",
    "BlockPostNorm": "This is post-norm",
    "BlockAddingTheNormalized": "The normalized x is added",
    "BlockAddingTheNormalizedLate": "The normalized x is added",
    "BlockNormalizingTheSublayersOutput": "What a sublayer gives is normalized",
    "BlockInParallel": "Attention and network work side by side on the same x",
    "BlockWithOneNorm": "norm1 is used for both sublayers",
    "BlockWithoutTheSecondNorm": "norm2 is missing",
    "BlockWithBertsEps": "The norms have another eps than nn.LayerNorm has by default",
    "BlockWithoutTheFirstResidual": "The first residual connection is missing",
    "BlockWithoutTheSecondResidual": "The second residual connection is missing",
    "BlockAddingTheInputTwice": "The second residual is taken from the block's input",
    "BlockInPlace": "The residual is added in place",
    "BlockWithExactGelu": "This is the exact GELU",
    "BlockWithRelu": "A ReLU stands between w_1 and w_2",
    "BlockWithQuickGelu": "This is another approximation of the GELU",
    "BlockWithoutAMask": "The causal mask is missing",
    "BlockReadingTheFuture": "The mask allows the wrong triangle",
    "BlockBarringItself": "The mask bars the diagonal",
    "BlockReadingOneAhead": "Each position reads one position too far",
    "BlockWithTheMaskOfTheBatch": "The mask is as long as the batch",
    "BlockNormalizingTheQueryOnly": "Only the queries are normalized",
    "BlockNotDroppingInTheAttention": "The dropout rate is not passed on to the attention",
    "BlockDroppingOnlyInTheAttention": "There is no dropout on what either sublayer gives",
    "BlockDroppingInEvaluation": "Dropout acts in evaluation mode too",
    "BlockDroppingTheSum": "Dropout acts on x itself",
    "BlockReturningFloat32": "The block computes in float32",
    "BlockOfTwiceTheWidth": "The hidden layer is not four times as wide as the model",
    "BlockWithAThirdNorm": "There is a third norm",
    "ModelNotTied": "The output has a matrix of its own",
    "ModelTiedOnce": "The output has a matrix of its own",
    "ModelWithAnOutputBias": "The output has a bias",
    "ModelDetachingTheOutput": "The output's matrix is a copy",
    "ModelScoringWithDividedNumbers": "The logits are divided by the square root of d_model",
    "ModelWithScaledEmbeddings": "The tokens are multiplied by the square root of d_model",
    "ModelReturningProbabilities": "What comes back are probabilities",
    "ModelReturningLogarithms": "What comes back are log-probabilities",
    "ModelScoringTheLast": "Only the logits of the last position come back",
    "ModelWithoutTheLastNorm": "The last norm is missing",
    "ModelNormalizingEarly": "The norm stands before the blocks",
    "ModelWithoutPositions": "No positions are added",
    "ModelCountingFromOne": "The positions are counted from 1",
    "ModelAtTheEndOfTheTable": "The positions are the last rows of the table",
    "ModelCountingSequences": "The positions follow the sequences of the batch",
    "ModelThatRefusesNothing": "A length above context is not refused",
    "ModelThatCuts": "What exceeds the context is cut off in silence",
    "ModelThatRefusesTheWholeContext": "An input that fills the context exactly is refused",
    "ModelThatNamesNoNumbers": "The ValueError does not name both numbers",
    "ModelThatNamesOneNumber": "The ValueError does not name both numbers",
    "ModelWithoutTheAttribute": "There is no attribute context",
    "ModelOfOneBlock": "The first block runs again and again",
    "ModelSharingItsBlocks": "One block is used num_layers times",
    "ModelWithAPlainList": "The blocks are in a plain Python list",
    "ModelBackwards": "The blocks run in the wrong order",
    "ModelForgettingResults": "Every block starts from the embeddings",
    "ModelOfPostNormBlocks": "The blocks are post-norm",
    "ModelOfBlocksThatSeeEverything": "The causal mask is missing in the blocks",
    "ModelDroppingTokensOnly": "Dropout acts on the tokens alone",
    "ModelNotDroppingEmbeddings": "There is no dropout on the sum of token and position",
    "ModelNotDroppingInBlocks": "The dropout rate is not passed on to the blocks",
    "ModelDroppingInEvaluation": "Dropout acts in evaluation mode too",
    "ModelDroppingAtTheEndToo": "Dropout acts after the last norm too",
    "CachedCountingFromZero": "The mask counts the new positions from 0",
    "CachedByTheKernelsTriangle": "The mask counts the new positions from 0",
    "CachedByTheKernelWhenFresh": "The causal mask is left out as soon as there is a past",
    "CachedWithoutAMask": "There is no causal mask",
    "CachedWithAMaskAtFirst": "The causal mask is left out as soon as there is a past",
    "CachedReadingOneAhead": "Each new position reads one position too far",
    "CachedReadingOnlyThePastAndItself": "A new position reads the past and itself",
    "CachedReadingTheNewOnly": "The past is kept but never read",
    "CachedReadingBackwards": "The new keys and values are put before the old ones",
    "CachedSwapped": "Keys and values change places in the cache that comes back",
    "CachedReturningTheNew": "The cache that comes back holds the new keys and values only",
    "CachedReturningTheOld": "The cache comes back as it was given",
    "CachedGrowingTheGiven": "The cache that was given is changed in place",
    "CachedBeforeSplitting": "Keys and values are kept as (batch",
    "CachedWithoutTheRoot": "The scores are not divided by the square root of d_head",
    "CachedOverTheWidth": "The scores are divided by the square root of d_model",
    "CachedMaskingAfterTheSoftmax": "The barred weights are set to 0 after the softmax",
    "CachedWithoutAnOutputLayer": "w_o is never used",
    "CachedMergingByAReshape": "The heads are merged without swapping the axes back first",
    "CachedOneAtATime": "The causal mask is left out as soon as there is a past",
}
