"""Subtle ways to get chapter 5 wrong, and which of them a verdict names.

A name that does not fit misleads: what is not in NAMED must be given none.
"""

import math
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# ---- masking -------------------------------------------------------------------------------


def refuse(rate):
    if not 0 <= rate <= 1:
        raise ValueError("rate must lie between 0 and 1")


def uniform(ids, generator):
    return torch.rand(ids.shape, generator=generator)


def words_of(ids, vocab_size, generator):
    return torch.randint(vocab_size, ids.shape, generator=generator).to(ids.dtype)


def masked(
    name,
    *,
    choice=uniform,
    fate=uniform,
    words=words_of,
    chosen=lambda choice, rate, special, ids: (choice < rate) & ~special,
    cuts=(0.8, 0.9),
    labels=lambda ids, inputs, chosen, fate: ids.masked_fill(~chosen, -100),
    hide=lambda chosen: chosen,
    mask=lambda mask_id, vocab_size: mask_id,
    check=refuse,
):
    """Right, but for what is done to one of its steps."""

    def mask_tokens(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
        check(rate)
        first = choice(token_ids, generator)
        second = fate(token_ids, generator)
        others = words(token_ids, vocab_size, generator)
        where = chosen(first, rate, special, token_ids)
        changed = hide(where)
        inputs = token_ids.masked_fill(changed & (second < cuts[0]), mask(mask_id, vocab_size))
        replaced = changed & (second >= cuts[0]) & (second < cuts[1])
        inputs = torch.where(replaced, others, inputs)
        return inputs, labels(token_ids, inputs, where, second)

    mask_tokens.__name__ = name
    return mask_tokens


# The choice.


def _exactly(choice, rate, special, ids):
    """The right number of the ordinary positions, to the last one."""
    order = choice.masked_fill(special, 2.0).flatten().argsort()
    number = round(rate * int((~special).sum()))
    chosen = torch.zeros(ids.numel(), dtype=torch.bool)
    chosen[order[:number]] = True
    return chosen.view(ids.shape)


def _exactly_in_each_sequence(choice, rate, special, ids):
    order = choice.masked_fill(special, 2.0).argsort(dim=-1).argsort(dim=-1)
    return (order < ((~special).sum(-1, keepdim=True) * rate).round()) & ~special


mask_an_exact_number = masked("mask_an_exact_number", chosen=_exactly)
mask_an_exact_number_in_each_sequence = masked(
    "mask_an_exact_number_in_each_sequence", chosen=_exactly_in_each_sequence
)
mask_whole_sequences = masked(
    "mask_whole_sequences",
    choice=lambda ids, generator: torch.rand(*ids.shape[:-1], 1, generator=generator).expand(
        ids.shape
    ),
)
mask_the_same_columns_everywhere = masked(
    "mask_the_same_columns_everywhere",
    choice=lambda ids, generator: torch.rand(ids.shape[-1:], generator=generator).expand(ids.shape),
)
mask_in_pairs = masked(
    "mask_in_pairs",
    choice=lambda ids, generator: (
        torch.rand((ids.numel() + 1) // 2, generator=generator)
        .repeat_interleave(2)[: ids.numel()]
        .view(ids.shape)
    ),
)
mask_with_replacement = masked(
    "mask_with_replacement",
    chosen=lambda choice, rate, special, ids: (
        torch.zeros(ids.numel(), dtype=torch.bool)
        .index_fill(
            0,
            # As many draws as positions are wanted; some hit the same one.
            (choice.flatten() * ids.numel()).long()[: round(rate * ids.numel())],
            True,
        )
        .view(ids.shape)
        & ~special
    ),
)
mask_with_a_fixed_rate = masked(
    "mask_with_a_fixed_rate",
    chosen=lambda choice, rate, special, ids: (choice < 0.15) & ~special,
)
mask_the_others = masked(
    "mask_the_others", chosen=lambda choice, rate, special, ids: (choice >= rate) & ~special
)
mask_special_tokens_too = masked(
    "mask_special_tokens_too", chosen=lambda choice, rate, special, ids: choice < rate
)
mask_special_tokens_only = masked(
    "mask_special_tokens_only", chosen=lambda choice, rate, special, ids: (choice < rate) & special
)
mask_all_but_id_0 = masked(
    "mask_all_but_id_0", chosen=lambda choice, rate, special, ids: (choice < rate) & (ids != 0)
)


def mask_labeling_special_tokens(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """Special tokens are not hidden, but asked for."""
    refuse(rate)
    chosen, fate = uniform(token_ids, generator) < rate, uniform(token_ids, generator)
    others = words_of(token_ids, vocab_size, generator)
    inputs = token_ids.masked_fill(chosen & ~special & (fate < 0.8), mask_id)
    inputs = torch.where(chosen & ~special & (fate >= 0.9), others, inputs)
    return inputs, token_ids.masked_fill(~chosen, -100)


# What becomes of a chosen position.

mask_always = masked("mask_always", cuts=(1.0, 1.0))
mask_never_replacing = masked("mask_never_replacing", cuts=(0.8, 0.8))
mask_never_keeping = masked("mask_never_keeping", cuts=(0.8, 1.0))
mask_nine_times_of_ten = masked("mask_nine_times_of_ten", cuts=(0.9, 0.95))
mask_once_in_ten = masked("mask_once_in_ten", cuts=(0.1, 0.9))
mask_with_a_tenth_of_the_rest = masked("mask_with_a_tenth_of_the_rest", cuts=(0.8, 0.82))
mask_with_the_fate_of_the_first = masked(
    "mask_with_the_fate_of_the_first",
    fate=lambda ids, generator: torch.rand((), generator=generator).expand(ids.shape),
)
mask_with_one_fate_for_a_sequence = masked(
    "mask_with_one_fate_for_a_sequence",
    fate=lambda ids, generator: torch.rand(*ids.shape[:-1], 1, generator=generator).expand(
        ids.shape
    ),
)
mask_with_the_same_fates_in_each_sequence = masked(
    "mask_with_the_same_fates_in_each_sequence",
    fate=lambda ids, generator: torch.rand(ids.shape[-1:], generator=generator).expand(ids.shape),
)
mask_by_position = masked(
    "mask_by_position",
    fate=lambda ids, generator: (torch.arange(ids.numel()) % 10 / 10).view(ids.shape),
)
mask_hiding_everywhere = masked(
    "mask_hiding_everywhere", hide=lambda chosen: torch.ones_like(chosen)
)


def mask_by_the_same_number(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """The number that was below the rate is below 0.8 as well."""
    refuse(rate)
    number = uniform(token_ids, generator)
    chosen = (number < rate) & ~special
    inputs = token_ids.masked_fill(chosen & (number < 0.8), mask_id)
    others = words_of(token_ids, vocab_size, generator)
    inputs = torch.where(chosen & (number >= 0.9), others, inputs)
    return inputs, token_ids.masked_fill(~chosen, -100)


def mask_by_shares_of_all(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """80 % of all positions are hidden, whatever the rate; labels are right."""
    refuse(rate)
    number = uniform(token_ids, generator)
    chosen = (number < rate) & ~special
    fate = uniform(token_ids, generator)
    inputs = torch.where(fate < 0.8, mask_id, token_ids)
    inputs = inputs.masked_fill(special, 0) + token_ids * special
    return inputs, token_ids.masked_fill(~chosen, -100)


def mask_in_order(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """The first 80 % of the chosen positions are hidden, and so on: shares that are right."""
    refuse(rate)
    chosen = (uniform(token_ids, generator) < rate) & ~special
    inputs = token_ids.clone()
    found = inputs[chosen]
    first, second = int(0.8 * len(found)), int(0.9 * len(found))
    found[:first] = mask_id
    found[first:second] = words_of(found[first:second], vocab_size, generator)
    inputs[chosen] = found
    return inputs, token_ids.masked_fill(~chosen, -100)


def mask_with_exact_shares(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """Which of the chosen is hidden is drawn, but not how many."""
    refuse(rate)
    chosen = (uniform(token_ids, generator) < rate) & ~special
    inputs = token_ids.clone()
    found = inputs[chosen]
    order = torch.randperm(len(found), generator=generator)
    first, second = round(0.8 * len(found)), round(0.9 * len(found))
    found[order[:first]] = mask_id
    replaced = order[first:second]
    found[replaced] = words_of(replaced, vocab_size, generator).to(found)
    inputs[chosen] = found
    return inputs, token_ids.masked_fill(~chosen, -100)


def mask_with_random_ids_over_masks(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """The coin for a random id is thrown for the hidden ones too."""
    refuse(rate)
    chosen = (uniform(token_ids, generator) < rate) & ~special
    inputs = token_ids.masked_fill(chosen & (uniform(token_ids, generator) < 0.8), mask_id)
    replaced = chosen & (uniform(token_ids, generator) < 0.5)
    inputs = torch.where(replaced, words_of(token_ids, vocab_size, generator), inputs)
    return inputs, token_ids.masked_fill(~chosen, -100)


def mask_replacing_everywhere(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """A tenth of all tokens is replaced, chosen or not."""
    refuse(rate)
    chosen = (uniform(token_ids, generator) < rate) & ~special
    fate = uniform(token_ids, generator)
    inputs = token_ids.masked_fill(chosen & (fate < 0.8), mask_id)
    inputs = torch.where(fate >= 0.9, words_of(token_ids, vocab_size, generator), inputs)
    return inputs, token_ids.masked_fill(~chosen, -100)


# Ids and labels.

mask_never_drawing_the_last_id = masked(
    "mask_never_drawing_the_last_id",
    words=lambda ids, vocab_size, generator: words_of(ids, vocab_size - 1, generator),
)
mask_never_drawing_id_0 = masked(
    "mask_never_drawing_id_0",
    words=lambda ids, vocab_size, generator: 1 + words_of(ids, vocab_size - 1, generator),
)
mask_drawing_one_id_too_many = masked(
    "mask_drawing_one_id_too_many",
    words=lambda ids, vocab_size, generator: words_of(ids, vocab_size + 1, generator),
)
mask_with_one_random_id = masked(
    "mask_with_one_random_id",
    words=lambda ids, vocab_size, generator: (
        words_of(ids.new_zeros(()), vocab_size, generator).expand(ids.shape).clone()
    ),
)
mask_never_drawing_the_same = masked(
    "mask_never_drawing_the_same",
    words=lambda ids, vocab_size, generator: (
        (ids + 1 + words_of(ids, vocab_size - 1, generator)) % vocab_size
    ),
)
mask_with_tokens_of_the_batch = masked(
    "mask_with_tokens_of_the_batch",
    words=lambda ids, vocab_size, generator: ids.flatten()[
        torch.randint(max(ids.numel(), 1), ids.shape, generator=generator)
    ],
)
mask_with_round_numbers = masked(
    "mask_with_round_numbers",
    words=lambda ids, vocab_size, generator: (
        (uniform(ids, generator) * (vocab_size - 1)).round().to(ids.dtype)
    ),
)
mask_with_normal_ids = masked(
    "mask_with_normal_ids",
    words=lambda ids, vocab_size, generator: (
        (torch.randn(ids.shape, generator=generator) * vocab_size / 6 + vocab_size / 2)
        .clamp(0, vocab_size - 1)
        .to(ids.dtype)
    ),
)
mask_as_the_last_id = masked("mask_as_the_last_id", mask=lambda mask_id, vocab_size: vocab_size - 1)
mask_as_bert_has_it = masked("mask_as_bert_has_it", mask=lambda mask_id, vocab_size: 103)
mask_one_id_off = masked("mask_one_id_off", mask=lambda mask_id, vocab_size: mask_id + 1)
mask_labeling_everything = masked(
    "mask_labeling_everything", labels=lambda ids, inputs, chosen, fate: ids.clone()
)
mask_labeling_what_is_read = masked(
    "mask_labeling_what_is_read",
    labels=lambda ids, inputs, chosen, fate: inputs.masked_fill(~chosen, -100),
)
mask_labeling_what_is_hidden = masked(
    "mask_labeling_what_is_hidden",
    labels=lambda ids, inputs, chosen, fate: ids.masked_fill(~chosen | (fate >= 0.8), -100),
)
mask_labeling_what_is_changed = masked(
    "mask_labeling_what_is_changed",
    labels=lambda ids, inputs, chosen, fate: ids.masked_fill(inputs == ids, -100),
)
mask_labeling_with_minus_one = masked(
    "mask_labeling_with_minus_one",
    labels=lambda ids, inputs, chosen, fate: ids.masked_fill(~chosen, -1),
)
mask_labeling_with_zero = masked(
    "mask_labeling_with_zero", labels=lambda ids, inputs, chosen, fate: ids * chosen
)
mask_labeling_the_others = masked(
    "mask_labeling_the_others",
    labels=lambda ids, inputs, chosen, fate: ids.masked_fill(chosen, -100),
)
mask_labeling_by_truth = masked(
    "mask_labeling_by_truth", labels=lambda ids, inputs, chosen, fate: chosen
)
mask_labeling_in_int64 = masked(
    "mask_labeling_in_int64",
    labels=lambda ids, inputs, chosen, fate: ids.long().masked_fill(~chosen, -100),
)
mask_with_ids_in_int64 = masked(
    "mask_with_ids_in_int64",
    words=lambda ids, vocab_size, generator: torch.randint(
        vocab_size, ids.shape, generator=generator
    ),
)

# Sources of randomness.

mask_drawing_the_choice_elsewhere = masked(
    "mask_drawing_the_choice_elsewhere", choice=lambda ids, generator: torch.rand(ids.shape)
)
mask_drawing_fates_elsewhere = masked(
    "mask_drawing_fates_elsewhere", fate=lambda ids, generator: torch.rand(ids.shape)
)
mask_drawing_ids_elsewhere = masked(
    "mask_drawing_ids_elsewhere",
    words=lambda ids, vocab_size, generator: torch.randint_like(ids, vocab_size),
)
mask_drawing_by_numpy = masked(
    "mask_drawing_by_numpy",
    choice=lambda ids, generator: torch.as_tensor(np.random.rand(*ids.shape)),
)
mask_drawing_ids_by_python = masked(
    "mask_drawing_ids_by_python",
    words=lambda ids, vocab_size, generator: ids.new_tensor(
        [random.randrange(vocab_size) for _ in range(ids.numel())]
    ).view(ids.shape),
)


def mask_from_the_start(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """The same in each call: what the generator has given so far does not count."""
    again = torch.Generator().manual_seed(generator.initial_seed())
    return masked("")(token_ids, special, mask_id, vocab_size, again, rate)


def mask_from_one_seed(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    generator.manual_seed(0)
    return masked("")(token_ids, special, mask_id, vocab_size, generator, rate)


def mask_seeding_everything(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """The global numbers are seeded from the generator, and then used."""
    torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
    return masked("")(token_ids, special, mask_id, vocab_size, None, rate)


def mask_with_one_seed_for_all_draws(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    """The second draw is the first one again."""
    seed = int(torch.randint(2**31, (), generator=generator))

    def fresh(ids, _):
        return torch.rand(ids.shape, generator=torch.Generator().manual_seed(seed))

    build = masked("", choice=fresh, fate=fresh)
    return build(token_ids, special, mask_id, vocab_size, generator, rate)


# What goes in and comes out.


def mask_in_place(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    inputs, labels = masked("")(token_ids, special, mask_id, vocab_size, generator, rate)
    return token_ids.copy_(inputs), labels


def mask_widening_special_in_place(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    def chosen(choice, rate, special, ids):
        special |= choice >= rate
        return ~special

    build = masked("", chosen=chosen)
    return build(token_ids, special, mask_id, vocab_size, generator, rate)


def mask_labels_first(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    inputs, labels = masked("")(token_ids, special, mask_id, vocab_size, generator, rate)
    return labels, inputs


def mask_inputs_only(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    return masked("")(token_ids, special, mask_id, vocab_size, generator, rate)[0]


def mask_as_floats(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    inputs, labels = masked("")(token_ids, special, mask_id, vocab_size, generator, rate)
    return inputs.float(), labels.float()


def mask_as_int64(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    ids = token_ids.long()
    return masked("")(ids, special, mask_id, vocab_size, generator, rate)


def mask_of_two_axes(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    batch, length = token_ids.shape
    build = masked("", choice=lambda ids, g: torch.rand(batch, length, generator=g))
    return build(token_ids, special, mask_id, vocab_size, generator, rate)


def mask_by_view(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    flat = token_ids.view(-1), special.view(-1)
    inputs, labels = masked("")(*flat, mask_id, vocab_size, generator, rate)
    return inputs.view(token_ids.shape), labels.view(token_ids.shape)


def mask_flattened(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
    flat = token_ids.flatten(), special.flatten()
    return masked("")(*flat, mask_id, vocab_size, generator, rate)


mask_without_refusing = masked("mask_without_refusing", check=lambda rate: None)


def _only_above(rate):
    if rate > 1:
        raise ValueError("rate")


def _only_between(rate):
    if not 0 < rate < 1:
        raise ValueError("rate")


def _asserting(rate):
    assert 0 <= rate <= 1, "rate"


def _printing(rate):
    if not 0 <= rate <= 1:
        print("rate must lie between 0 and 1")


mask_refusing_above_only = masked("mask_refusing_above_only", check=_only_above)
mask_refusing_the_ends = masked("mask_refusing_the_ends", check=_only_between)
mask_asserting = masked("mask_asserting", check=_asserting)
mask_printing_instead_of_raising = masked("mask_printing_instead_of_raising", check=_printing)


# ---- packing -------------------------------------------------------------------------------


def packed(a, b, cls_id, sep_id):
    first = [cls_id, *a, sep_id]
    second = [] if b is None else [*b, sep_id]
    return first + second, [0] * len(first) + [1] * len(second)


def pack_losing_an_empty_piece(a, b, cls_id, sep_id):
    return packed(a, b or None, cls_id, sep_id)


def pack_closing_nothing(a, b, cls_id, sep_id):
    return packed(a, b or [], cls_id, sep_id)


def pack_with_the_separator_in_the_second(a, b, cls_id, sep_id):
    token_ids, segment_ids = packed(a, b, cls_id, sep_id)
    segment_ids[len(a) + 1] = 1
    return token_ids, segment_ids


def pack_with_the_last_separator_in_the_first(a, b, cls_id, sep_id):
    token_ids, segment_ids = packed(a, b, cls_id, sep_id)
    segment_ids[-1] = 0
    return token_ids, segment_ids


def pack_with_segments_of_words(a, b, cls_id, sep_id):
    return packed(a, b, cls_id, sep_id)[0], [0] * len(a) + [1] * len(b or [])


def pack_counting_from_one(a, b, cls_id, sep_id):
    token_ids, segment_ids = packed(a, b, cls_id, sep_id)
    return token_ids, [segment + 1 for segment in segment_ids]


def pack_without_the_last_separator(a, b, cls_id, sep_id):
    if b is None:
        return packed(a, b, cls_id, sep_id)
    return tuple(part[:-1] for part in packed(a, b, cls_id, sep_id))


def pack_without_a_separator_after_one(a, b, cls_id, sep_id):
    if b is None:
        return [cls_id, *a], [0] * (len(a) + 1)
    return packed(a, b, cls_id, sep_id)


def pack_without_cls(a, b, cls_id, sep_id):
    return tuple(part[1:] for part in packed(a, b, cls_id, sep_id))


def pack_with_two_cls(a, b, cls_id, sep_id):
    if b is None:
        return packed(a, b, cls_id, sep_id)
    return packed(a, [cls_id, *b], cls_id, sep_id)


def pack_joining_at_once(a, b, cls_id, sep_id):
    return packed(a + (b or []), None, cls_id, sep_id)


def pack_with_cls_and_sep_swapped(a, b, cls_id, sep_id):
    return packed(a, b, sep_id, cls_id)


def pack_with_the_pieces_swapped(a, b, cls_id, sep_id):
    return packed(a, b, cls_id, sep_id) if b is None else packed(b, a, cls_id, sep_id)


def pack_growing_a(a, b, cls_id, sep_id):
    found = packed(a, b, cls_id, sep_id)
    a.append(sep_id)
    return found


def pack_growing_b(a, b, cls_id, sep_id):
    second = b if b is not None else []
    found = packed(a, b, cls_id, sep_id)
    second += [sep_id]
    return found


def pack_into_a(a, b, cls_id, sep_id):
    token_ids, segment_ids = packed(a, b, cls_id, sep_id)
    a[:] = token_ids
    return a, segment_ids


def pack_segments_first(a, b, cls_id, sep_id):
    return packed(a, b, cls_id, sep_id)[::-1]


def pack_as_tuples(a, b, cls_id, sep_id):
    return tuple(map(tuple, packed(a, b, cls_id, sep_id)))


def pack_as_tensors(a, b, cls_id, sep_id):
    return tuple(map(torch.tensor, packed(a, b, cls_id, sep_id)))


def pack_as_pairs(a, b, cls_id, sep_id):
    return list(zip(*packed(a, b, cls_id, sep_id), strict=True))


def pack_tokens_only(a, b, cls_id, sep_id):
    return packed(a, b, cls_id, sep_id)[0]


def pack_with_a_mask_of_ones(a, b, cls_id, sep_id):
    token_ids, _ = packed(a, b, cls_id, sep_id)
    return token_ids, [1] * len(token_ids)


def pack_as_sets(a, b, cls_id, sep_id):
    """Tokens that come again are dropped."""
    return packed(list(dict.fromkeys(a)), b and list(dict.fromkeys(b)), cls_id, sep_id)


def pack_padding_the_shorter(a, b, cls_id, sep_id):
    if b is None:
        return packed(a, b, cls_id, sep_id)
    length = max(len(a), len(b))
    pieces = (piece + [0] * (length - len(piece)) for piece in (a, b))
    return packed(*pieces, cls_id, sep_id)


# ---- embeddings ----------------------------------------------------------------------------


class Embed(nn.Module):
    eps = 1e-12

    def __init__(self, vocab_size, d_model, max_length=512, num_segments=2, dropout=0.1):
        super().__init__()
        self.token = nn.Embedding(vocab_size, d_model)
        self.position = nn.Embedding(max_length, d_model)
        self.segment = nn.Embedding(num_segments, d_model)
        self.norm = nn.LayerNorm(d_model, eps=self.eps)
        self.dropout = nn.Dropout(dropout)

    def refuse(self, length):
        longest = self.position.num_embeddings
        if length > longest:
            raise ValueError(f"{length} tokens, but {longest} positions")

    def words(self, token_ids):
        return self.token(token_ids)

    def places(self, token_ids):
        return self.position(torch.arange(token_ids.size(1)))

    def pieces(self, token_ids, segment_ids):
        if segment_ids is None:
            segment_ids = torch.zeros_like(token_ids)
        return self.segment(segment_ids)

    def sum(self, token_ids, segment_ids):
        x = self.words(token_ids) + self.places(token_ids)
        return x + self.pieces(token_ids, segment_ids)

    def finish(self, x):
        return self.dropout(self.norm(x))

    def forward(self, token_ids, segment_ids=None):
        self.refuse(token_ids.size(1))
        return self.finish(self.sum(token_ids, segment_ids))


class EmbedWithoutNorm(Embed):
    def finish(self, x):
        return self.dropout(x)


class EmbedDroppingFirst(Embed):
    def finish(self, x):
        return self.norm(self.dropout(x))


class EmbedNeverDropping(Embed):
    def finish(self, x):
        return self.norm(x)


class EmbedDroppingInEvaluation(Embed):
    def finish(self, x):
        return F.dropout(self.norm(x), self.dropout.p)


class EmbedWithAFixedRate(Embed):
    def __init__(self, vocab_size, d_model, max_length=512, num_segments=2, dropout=0.1):
        super().__init__(vocab_size, d_model, max_length, num_segments, 0.1)


class EmbedDroppingWholeVectors(Embed):
    def finish(self, x):
        return self.norm(x) * self.dropout(torch.ones_like(x[..., :1]))


class EmbedDroppingThreeTimes(Embed):
    def words(self, token_ids):
        return self.dropout(super().words(token_ids))

    def places(self, token_ids):
        return self.dropout(super().places(token_ids))


class EmbedWithAnotherEps(Embed):
    eps = 1e-5


class EmbedScaled(Embed):
    def words(self, token_ids):
        return self.token(token_ids) * math.sqrt(self.token.embedding_dim)


class EmbedOfSinusoids(Embed):
    """The table is there, but another one is used."""

    def places(self, token_ids):
        width = self.token.embedding_dim
        column = torch.arange(0, width, 2) / width
        angle = torch.arange(token_ids.size(1))[:, None] / 10000**column
        return (
            torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width].to(self.token.weight)
        )


class EmbedFromOne(Embed):
    def places(self, token_ids):
        last = self.position.num_embeddings - 1
        return self.position(torch.arange(1, token_ids.size(1) + 1).clamp(max=last))


class EmbedWithoutPositions(Embed):
    def places(self, token_ids):
        return 0 * self.position.weight[: token_ids.size(1)]


class EmbedCountingWordsAlone(Embed):
    """As RoBERTa: padding, taken to be id 0, does not count."""

    def places(self, token_ids):
        return self.position(((token_ids != 0).cumsum(1) - 1).clamp(min=0))


class EmbedWithPositionsOfTheBatch(Embed):
    """Right for as many sequences as there are tokens in each."""

    def places(self, token_ids):
        return self.position(torch.arange(token_ids.size(0)))[:, None]


class EmbedBackwards(Embed):
    def places(self, token_ids):
        return super().places(token_ids).flip(0)


class EmbedStartingAnewInEachSegment(Embed):
    def sum(self, token_ids, segment_ids):
        if segment_ids is None:
            return super().sum(token_ids, segment_ids)
        places = torch.arange(token_ids.size(1)).expand_as(token_ids)
        first = (segment_ids == 0).sum(1, keepdim=True)
        places = torch.where(segment_ids > 0, (places - first).clamp(min=0), places)
        return self.words(token_ids) + self.position(places) + self.segment(segment_ids)


class EmbedWithoutSegments(Embed):
    def pieces(self, token_ids, segment_ids):
        return super().pieces(token_ids, None)


class EmbedWithoutAVectorForNone(Embed):
    def pieces(self, token_ids, segment_ids):
        return 0.0 if segment_ids is None else self.segment(segment_ids)


class EmbedWithSegmentOneForNone(Embed):
    def pieces(self, token_ids, segment_ids):
        if segment_ids is None:
            segment_ids = torch.ones_like(token_ids)
        return self.segment(segment_ids)


class EmbedAskingForSegments(Embed):
    def forward(self, token_ids, segment_ids):
        return super().forward(token_ids, segment_ids)


class EmbedOfTheFirstSegments(Embed):
    """Right for a batch of one."""

    def pieces(self, token_ids, segment_ids):
        return super().pieces(token_ids, segment_ids)[:1]


class EmbedOfTwoSegments(Embed):
    def pieces(self, token_ids, segment_ids):
        if segment_ids is not None:
            segment_ids = (segment_ids > 0).long()
        return super().pieces(token_ids, segment_ids)


class EmbedClampingSegmentsInPlace(Embed):
    def pieces(self, token_ids, segment_ids):
        found = super().pieces(token_ids, segment_ids)
        if segment_ids is not None:
            segment_ids.clamp_(max=0)
        return found


class EmbedDetachingPositions(Embed):
    def places(self, token_ids):
        return super().places(token_ids).detach()


class EmbedDetachingSegments(Embed):
    def pieces(self, token_ids, segment_ids):
        return super().pieces(token_ids, segment_ids).data


class EmbedNormingTheTokensOnly(Embed):
    def sum(self, token_ids, segment_ids):
        return self.norm(self.words(token_ids)) + (
            self.places(token_ids) + self.pieces(token_ids, segment_ids)
        )

    def finish(self, x):
        return self.dropout(x)


class EmbedNormingSequences(Embed):
    def finish(self, x):
        normal = F.layer_norm(x, x.shape[1:], eps=self.eps)
        return self.dropout(normal * self.norm.weight + self.norm.bias)


class EmbedMultiplying(Embed):
    def sum(self, token_ids, segment_ids):
        x = self.words(token_ids) * self.places(token_ids)
        return x + self.pieces(token_ids, segment_ids)


class EmbedAveraging(Embed):
    """A mean of three vectors, taken after the norm."""

    def finish(self, x):
        return self.dropout(self.norm(x)) / 3


class EmbedInFloat32(Embed):
    def sum(self, token_ids, segment_ids):
        return super().sum(token_ids, segment_ids).float().to(self.token.weight.dtype)


class EmbedReturningFloat32(Embed):
    def finish(self, x):
        return super().finish(x).float()


class EmbedSqueezed(Embed):
    def finish(self, x):
        return super().finish(x).squeeze()


class EmbedWithLengthFirst(Embed):
    def finish(self, x):
        return super().finish(x).transpose(0, 1)


class EmbedThatRemembersPositions(Embed):
    known = None

    def places(self, token_ids):
        if self.known is None:
            self.known = super().places(token_ids)
        return self.known


class EmbedWithoutRefusing(Embed):
    def refuse(self, length):
        pass


class EmbedCutting(Embed):
    def forward(self, token_ids, segment_ids=None):
        longest = self.position.num_embeddings
        if segment_ids is not None:
            segment_ids = segment_ids[:, :longest]
        return super().forward(token_ids[:, :longest], segment_ids)


class EmbedRefusingTheLongest(Embed):
    def refuse(self, length):
        super().refuse(length + 1)


class EmbedRefusingLargeBatches(Embed):
    def forward(self, token_ids, segment_ids=None):
        self.refuse(token_ids.size(0))
        return self.finish(self.sum(token_ids, segment_ids))


class EmbedRefusingWithoutNumbers(Embed):
    def refuse(self, length):
        if length > self.position.num_embeddings:
            raise ValueError("The sequence is too long.")


class EmbedRefusingWithOneNumber(Embed):
    def refuse(self, length):
        if length > self.position.num_embeddings:
            raise ValueError(f"At most {self.position.num_embeddings} tokens, please.")


class EmbedAsserting(Embed):
    def refuse(self, length):
        longest = self.position.num_embeddings
        assert length <= longest, f"{length} tokens, but {longest} positions"


class EmbedWithOneMorePosition(Embed):
    def __init__(self, vocab_size, d_model, max_length=512, num_segments=2, dropout=0.1):
        super().__init__(vocab_size, d_model, max_length + 1, num_segments, dropout)


class EmbedOfLongNames(nn.Module):
    def __init__(self, vocab_size, d_model, max_length=512, num_segments=2, dropout=0.1):
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, d_model)
        self.position_embeddings = nn.Embedding(max_length, d_model)
        self.token_type_embeddings = nn.Embedding(num_segments, d_model)
        self.norm = nn.LayerNorm(d_model, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, token_ids, segment_ids=None):
        if segment_ids is None:
            segment_ids = torch.zeros_like(token_ids)
        x = self.word_embeddings(token_ids) + self.token_type_embeddings(segment_ids)
        return self.dropout(self.norm(x + self.position_embeddings.weight[: x.size(1)]))


class EmbedWithFrozenPositions(Embed):
    def __init__(self, vocab_size, d_model, max_length=512, num_segments=2, dropout=0.1):
        super().__init__(vocab_size, d_model, max_length, num_segments, dropout)
        self.position.weight.requires_grad_(False)


# ---- model ---------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__()
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Linear(d_model, d_model) for _ in range(4))
        self.heads, self.dropout = num_heads, nn.Dropout(dropout)

    def scores(self, q, k):
        return q @ k.mT / math.sqrt(q.size(-1))

    def weights(self, scores, mask):
        return scores.masked_fill(~mask, -math.inf).softmax(-1).masked_fill(~mask, 0.0)

    def forward(self, x, mask):
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.w_q, self.w_k, self.w_v)
        )
        weights = self.weights(self.scores(q, k), mask[:, None])
        return self.w_o((self.dropout(weights) @ v).transpose(1, 2).flatten(2))


class AttentionWithoutTheRoot(Attention):
    def scores(self, q, k):
        return q @ k.mT


class AttentionScaledByTheModel(Attention):
    def scores(self, q, k):
        return q @ k.mT / math.sqrt(q.size(-1) * self.heads)


class AttentionMultiplyingTheMask(Attention):
    """A score of 0 is no bar."""

    def weights(self, scores, mask):
        return (scores * mask).softmax(-1)


class AttentionWithASmallBar(Attention):
    def weights(self, scores, mask):
        return (scores + ~mask * -5.0).softmax(-1)


class AttentionMaskingAfterwards(Attention):
    def weights(self, scores, mask):
        return scores.softmax(-1) * mask


class AttentionOverQueries(Attention):
    def weights(self, scores, mask):
        return scores.masked_fill(~mask, -1e30).softmax(-2)


class AttentionTurningTheMask(Attention):
    def weights(self, scores, mask):
        return super().weights(scores, ~mask)


class AttentionNeverDropping(Attention):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, 0.0)


class AttentionSharingOneMap(Attention):
    def __init__(self, d_model, num_heads, dropout=0.0):
        super().__init__(d_model, num_heads, dropout)
        self.w_k = self.w_q


class AttentionInterleavingHeads(Attention):
    def forward(self, x, mask):
        q, k, v = (
            layer(x).unflatten(-1, (-1, self.heads)).permute(0, 3, 1, 2)
            for layer in (self.w_q, self.w_k, self.w_v)
        )
        weights = self.weights(self.scores(q, k), mask[:, None])
        return self.w_o((self.dropout(weights) @ v).permute(0, 2, 3, 1).flatten(2))


class BertLayer(nn.Module):
    attention, eps = Attention, 1e-12

    def __init__(self, d_model, num_heads, d_ff, dropout):
        super().__init__()
        self.self_attn = self.attention(d_model, num_heads, dropout)
        self.w_1, self.w_2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
        self.norm1 = nn.LayerNorm(d_model, eps=self.eps)
        self.norm2 = nn.LayerNorm(d_model, eps=self.eps)
        self.dropout = nn.Dropout(dropout)

    def gelu(self, x):
        return F.gelu(x)

    def network(self, x):
        return self.w_2(self.gelu(self.w_1(x)))

    def forward(self, x, mask):
        x = self.norm1(x + self.dropout(self.self_attn(x, mask)))
        return self.norm2(x + self.dropout(self.network(x)))


class LayerWithTanhGelu(BertLayer):
    def gelu(self, x):
        return F.gelu(x, approximate="tanh")


class LayerWithSigmoidGelu(BertLayer):
    def gelu(self, x):
        return x * torch.sigmoid(1.702 * x)


class LayerWithRelu(BertLayer):
    def gelu(self, x):
        return F.relu(x)


class LayerWithoutGelu(BertLayer):
    def gelu(self, x):
        return x


class LayerWithTwoGelus(BertLayer):
    def network(self, x):
        return F.gelu(super().network(x))


class LayerWithAnotherEps(BertLayer):
    eps = 1e-5


class LayerPreNorm(BertLayer):
    def forward(self, x, mask):
        x = x + self.dropout(self.self_attn(self.norm1(x), mask))
        return x + self.dropout(self.network(self.norm2(x)))


class LayerWithoutResiduals(BertLayer):
    def forward(self, x, mask):
        x = self.norm1(self.dropout(self.self_attn(x, mask)))
        return self.norm2(self.dropout(self.network(x)))


class LayerWithOneResidual(BertLayer):
    def forward(self, x, mask):
        x = self.norm1(x + self.dropout(self.self_attn(x, mask)))
        return self.norm2(self.dropout(self.network(x)))


class LayerAddingTheFirstInput(BertLayer):
    """The second sum takes what the layer was given, not what norm1 gave."""

    def forward(self, x, mask):
        y = self.norm1(x + self.dropout(self.self_attn(x, mask)))
        return self.norm2(x + self.dropout(self.network(y)))


class LayerWithNorm1Twice(BertLayer):
    def forward(self, x, mask):
        x = self.norm1(x + self.dropout(self.self_attn(x, mask)))
        return self.norm1(x + self.dropout(self.network(x))) + 0 * self.norm2(x)


class LayerWithNormsSwapped(BertLayer):
    def forward(self, x, mask):
        x = self.norm2(x + self.dropout(self.self_attn(x, mask)))
        return self.norm1(x + self.dropout(self.network(x)))


class LayerNormingBeforeAdding(BertLayer):
    def forward(self, x, mask):
        x = x + self.dropout(self.norm1(self.self_attn(x, mask)))
        return x + self.dropout(self.norm2(self.network(x)))


class LayerSideBySide(BertLayer):
    def forward(self, x, mask):
        read, changed = self.self_attn(x, mask), self.network(x)
        return self.norm2(self.norm1(x + self.dropout(read)) + self.dropout(changed))


class LayerDroppingOnce(BertLayer):
    def forward(self, x, mask):
        x = self.norm1(x + self.self_attn(x, mask))
        return self.norm2(x + self.dropout(self.network(x)))


class LayerDroppingInside(BertLayer):
    """Dropout of the hidden vector too, as chapter 4's feed-forward layer has it."""

    def network(self, x):
        return self.w_2(self.dropout(self.gelu(self.w_1(x))))


class LayerDroppingTheSum(BertLayer):
    def forward(self, x, mask):
        x = self.norm1(self.dropout(x + self.self_attn(x, mask)))
        return self.norm2(self.dropout(x + self.network(x)))


class LayerDroppingInEvaluation(BertLayer):
    def forward(self, x, mask):
        rate = self.dropout.p
        x = self.norm1(x + F.dropout(self.self_attn(x, mask), rate))
        return self.norm2(x + F.dropout(self.network(x), rate))


class LayerDetachingTheResidual(BertLayer):
    def forward(self, x, mask):
        x = self.norm1(x.detach() + self.dropout(self.self_attn(x, mask)))
        return self.norm2(x + self.dropout(self.network(x)))


class LayerInFloat32(BertLayer):
    def network(self, x):
        return super().network(x).float().to(x.dtype)


class LayerOfTorchsAttention(BertLayer):
    """The built-in attention, with parameters under its own names."""

    def __init__(self, d_model, num_heads, d_ff, dropout):
        super().__init__(d_model, num_heads, d_ff, dropout)
        self.self_attn = nn.MultiheadAttention(d_model, num_heads, dropout, batch_first=True)

    def forward(self, x, mask):
        read, _ = self.self_attn(x, x, x, key_padding_mask=~mask[:, 0], need_weights=False)
        x = self.norm1(x + self.dropout(read))
        return self.norm2(x + self.dropout(self.network(x)))


class LayerOfTorch(BertLayer):
    """The built-in layer, given copies of the parameters: those of the attention do not learn."""

    def forward(self, x, mask):
        attention = self.self_attn
        layer = nn.TransformerEncoderLayer(
            x.size(-1),
            attention.heads,
            self.w_1.out_features,
            self.dropout.p,
            activation="gelu",
            layer_norm_eps=1e-12,
            batch_first=True,
        ).to(x.dtype)
        layers = attention.w_q, attention.w_k, attention.w_v
        with torch.no_grad():
            layer.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in layers]))
            layer.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in layers]))
        layer.self_attn.out_proj = attention.w_o
        layer.linear1, layer.linear2 = self.w_1, self.w_2
        layer.norm1, layer.norm2 = self.norm1, self.norm2
        return layer.train(self.training)(x, src_key_padding_mask=~mask[:, 0])


class Bert(nn.Module):
    embedding, layer = Embed, BertLayer

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
        self.embeddings = self.embedding(vocab_size, d_model, max_length, num_segments, dropout)
        self.layers = nn.ModuleList(
            self.layer(d_model, num_heads, d_ff, dropout) for _ in range(num_layers)
        )
        self.pooler = nn.Linear(d_model, d_model)
        self.pad_id = pad_id
        self.further()

    def further(self):
        """What a subclass adds to __init__."""

    def mask(self, token_ids):
        return (token_ids != self.pad_id)[:, None]

    def encode(self, x, mask):
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def pool(self, hidden):
        return torch.tanh(self.pooler(hidden[:, 0]))

    def forward(self, token_ids, segment_ids=None):
        x = self.embeddings(token_ids, segment_ids)
        hidden = self.encode(x, self.mask(token_ids))
        return hidden, self.pool(hidden)


def _built(name, layer=BertLayer, embedding=Embed, attention=None):
    """A model that is right but for one of its parts."""
    if attention is not None:
        layer = type("Layer", (BertLayer,), {"attention": attention})
    return type(name, (Bert,), {"layer": layer, "embedding": embedding})


BertWithTanhGelu = _built("BertWithTanhGelu", LayerWithTanhGelu)
BertWithSigmoidGelu = _built("BertWithSigmoidGelu", LayerWithSigmoidGelu)
BertWithRelu = _built("BertWithRelu", LayerWithRelu)
BertWithoutGelu = _built("BertWithoutGelu", LayerWithoutGelu)
BertWithTwoGelus = _built("BertWithTwoGelus", LayerWithTwoGelus)
BertWithAnotherEps = _built("BertWithAnotherEps", LayerWithAnotherEps)
BertPreNorm = _built("BertPreNorm", LayerPreNorm)
BertWithoutResiduals = _built("BertWithoutResiduals", LayerWithoutResiduals)
BertWithOneResidual = _built("BertWithOneResidual", LayerWithOneResidual)
BertAddingTheFirstInput = _built("BertAddingTheFirstInput", LayerAddingTheFirstInput)
BertWithNorm1Twice = _built("BertWithNorm1Twice", LayerWithNorm1Twice)
BertWithNormsSwapped = _built("BertWithNormsSwapped", LayerWithNormsSwapped)
BertNormingBeforeAdding = _built("BertNormingBeforeAdding", LayerNormingBeforeAdding)
BertSideBySide = _built("BertSideBySide", LayerSideBySide)
BertDroppingOnceInALayer = _built("BertDroppingOnceInALayer", LayerDroppingOnce)
BertDroppingInside = _built("BertDroppingInside", LayerDroppingInside)
BertDroppingTheSum = _built("BertDroppingTheSum", LayerDroppingTheSum)
BertDroppingInEvaluation = _built("BertDroppingInEvaluation", LayerDroppingInEvaluation)
BertDetachingTheResidual = _built("BertDetachingTheResidual", LayerDetachingTheResidual)
BertInFloat32 = _built("BertInFloat32", LayerInFloat32)
BertOfTorchsAttention = _built("BertOfTorchsAttention", LayerOfTorchsAttention)
BertOfTorchsLayers = _built("BertOfTorchsLayers", LayerOfTorch)
BertWithoutTheRoot = _built("BertWithoutTheRoot", attention=AttentionWithoutTheRoot)
BertScaledByTheModel = _built("BertScaledByTheModel", attention=AttentionScaledByTheModel)
BertMultiplyingTheMask = _built("BertMultiplyingTheMask", attention=AttentionMultiplyingTheMask)
BertWithASmallBar = _built("BertWithASmallBar", attention=AttentionWithASmallBar)
BertMaskingAfterwards = _built("BertMaskingAfterwards", attention=AttentionMaskingAfterwards)
BertOverQueries = _built("BertOverQueries", attention=AttentionOverQueries)
BertTurningTheMask = _built("BertTurningTheMask", attention=AttentionTurningTheMask)
BertNeverDroppingWeights = _built("BertNeverDroppingWeights", attention=AttentionNeverDropping)
BertSharingOneMap = _built("BertSharingOneMap", attention=AttentionSharingOneMap)
BertInterleavingHeads = _built("BertInterleavingHeads", attention=AttentionInterleavingHeads)
BertWithScaledEmbeddings = _built("BertWithScaledEmbeddings", embedding=EmbedScaled)
BertWithoutEmbeddingNorm = _built("BertWithoutEmbeddingNorm", embedding=EmbedWithoutNorm)
BertNeverDroppingEmbeddings = _built("BertNeverDroppingEmbeddings", embedding=EmbedNeverDropping)
BertWithAnotherEpsInFront = _built("BertWithAnotherEpsInFront", embedding=EmbedWithAnotherEps)
BertCountingWordsAlone = _built("BertCountingWordsAlone", embedding=EmbedCountingWordsAlone)


class BertCausal(Bert):
    def mask(self, token_ids):
        length = token_ids.size(1)
        return super().mask(token_ids) & torch.ones(length, length, dtype=torch.bool).tril()


class BertReadingBackwards(Bert):
    def mask(self, token_ids):
        length = token_ids.size(1)
        return super().mask(token_ids) & torch.ones(length, length, dtype=torch.bool).triu()


class BertNotSeeingItself(Bert):
    """Each token is predicted from the others, and may not read itself."""

    def mask(self, token_ids):
        length = token_ids.size(1)
        others = ~torch.eye(length, dtype=torch.bool)
        return super().mask(token_ids) & (others if length > 1 else ~others)


class BertWithoutAMask(Bert):
    def mask(self, token_ids):
        return torch.ones_like(token_ids, dtype=torch.bool)[:, None]


class BertBarringId0(Bert):
    def mask(self, token_ids):
        return (token_ids != 0)[:, None]


class BertBarringSmallIds(Bert):
    def mask(self, token_ids):
        return (token_ids > self.pad_id)[:, None]


class BertBarringByCounting(Bert):
    def mask(self, token_ids):
        lengths = (token_ids != self.pad_id).sum(1, keepdim=True)
        return (torch.arange(token_ids.size(1)) < lengths)[:, None]


class BertBarringFromTheFirstPaddingOn(Bert):
    def mask(self, token_ids):
        return (token_ids != self.pad_id).cumprod(1).bool()[:, None]


class BertWithTheMaskOfTheFirst(Bert):
    """Right for a batch of one."""

    def mask(self, token_ids):
        return super().mask(token_ids)[:1]


class BertWithTheMasksOfAll(Bert):
    """What is padding in one sequence is barred in all."""

    def mask(self, token_ids):
        return super().mask(token_ids).all(0, keepdim=True)


class BertThatRemembersItsMask(Bert):
    known = None

    def mask(self, token_ids):
        if self.known is None or self.known.shape != (len(token_ids), 1, token_ids.size(1)):
            self.known = super().mask(token_ids)
        return self.known


class BertBarringCls(Bert):
    def mask(self, token_ids):
        mask = super().mask(token_ids).clone()
        if token_ids.size(1) > 1:
            mask[..., 0] = False
        return mask


class BertReadingItsOwnSegment(Bert):
    def forward(self, token_ids, segment_ids=None):
        x, mask = self.embeddings(token_ids, segment_ids), self.mask(token_ids)
        if segment_ids is not None:
            mask = mask & (segment_ids[:, :, None] == segment_ids[:, None])
        hidden = self.encode(x, mask)
        return hidden, self.pool(hidden)


class BertMaskingTheFirstLayerOnly(Bert):
    def encode(self, x, mask):
        for layer in self.layers:
            x = layer(x, mask)
            mask = torch.ones_like(mask)
        return x


class BertMaskingTheLastLayerOnly(Bert):
    def encode(self, x, mask):
        *first, last = self.layers
        return last(_through(first, x, torch.ones_like(mask)), mask)


def _through(layers, x, mask):
    for layer in layers:
        x = layer(x, mask)
    return x


class BertSilencingPaddingInFront(Bert):
    """Padding's embedding is 0, and is read."""

    def encode(self, x, mask):
        return super().encode(x * mask.mT, torch.ones_like(mask))


class BertWithTheLayersReversed(Bert):
    def encode(self, x, mask):
        return _through(reversed(self.layers), x, mask)


class BertWithOneLayerTooFew(Bert):
    def encode(self, x, mask):
        return _through(self.layers[:-1], x, mask)


class BertOfTheFirstLayerOnly(Bert):
    """One layer is gone through again and again, as in ALBERT."""

    def encode(self, x, mask):
        return _through([self.layers[0]] * len(self.layers), x, mask)


class BertSharingItsLayer(Bert):
    def further(self):
        self.layers = nn.ModuleList([self.layers[0]] * len(self.layers))


class BertWithAList(Bert):
    def further(self):
        layers = list(self.layers)
        del self.layers
        self.layers = layers


class BertWithALastNorm(Bert):
    def encode(self, x, mask):
        return F.layer_norm(super().encode(x, mask), x.shape[-1:], eps=1e-12)


class BertAddingTheEmbeddings(Bert):
    def encode(self, x, mask):
        return x + super().encode(x, mask)


class BertPoolingWithoutTanh(Bert):
    def pool(self, hidden):
        return self.pooler(hidden[:, 0])


class BertPoolingWithRelu(Bert):
    def pool(self, hidden):
        return torch.relu(self.pooler(hidden[:, 0]))


class BertPoolingWithSigmoid(Bert):
    def pool(self, hidden):
        return torch.sigmoid(self.pooler(hidden[:, 0]))


class BertPoolingTanhFirst(Bert):
    def pool(self, hidden):
        return self.pooler(torch.tanh(hidden[:, 0]))


class BertPoolingTheMean(Bert):
    def pool(self, hidden):
        return torch.tanh(self.pooler(hidden.mean(dim=1)))


class BertPoolingTheMaximum(Bert):
    def pool(self, hidden):
        return torch.tanh(self.pooler(hidden.amax(dim=1)))


class BertPoolingTheLast(Bert):
    def pool(self, hidden):
        return torch.tanh(self.pooler(hidden[:, -1]))


class BertPoolingTheFirstSequence(Bert):
    """The first of the batch, not the first position."""

    def pool(self, hidden):
        return torch.tanh(self.pooler(hidden[0]))


class BertPoolingAllPositions(Bert):
    def pool(self, hidden):
        return torch.tanh(self.pooler(hidden))


class BertPoolingWithoutItsMap(Bert):
    def pool(self, hidden):
        return torch.tanh(hidden[:, 0]) + 0 * self.pooler(hidden[:, 0])


class BertPoolingWithDropout(Bert):
    def pool(self, hidden):
        return self.embeddings.dropout(super().pool(hidden))


class BertPoolingKeepingAnAxis(Bert):
    def pool(self, hidden):
        return torch.tanh(self.pooler(hidden[:, :1]))


class BertPoolingSqueezed(Bert):
    def pool(self, hidden):
        return super().pool(hidden).squeeze()


class BertPoolingTheEmbeddings(Bert):
    def forward(self, token_ids, segment_ids=None):
        x = self.embeddings(token_ids, segment_ids)
        return self.encode(x, self.mask(token_ids)), self.pool(x)


class BertPoolingDetached(Bert):
    def pool(self, hidden):
        return super().pool(hidden.detach())


class BertWithFrozenEmbeddings(Bert):
    def forward(self, token_ids, segment_ids=None):
        with torch.no_grad():
            x = self.embeddings(token_ids, segment_ids)
        hidden = self.encode(x, self.mask(token_ids))
        return hidden, self.pool(hidden)


class BertWithoutSegments(Bert):
    def forward(self, token_ids, segment_ids=None):
        return super().forward(token_ids)


class BertWithSegmentsFromSeparators(Bert):
    """Knows that 2 is [SEP]."""

    def forward(self, token_ids, segment_ids=None):
        if segment_ids is None:
            found = (token_ids == 2).cumsum(1).roll(1, dims=1).clamp(max=1)
            segment_ids = found * (torch.arange(token_ids.size(1)) > 0)
        return super().forward(token_ids, segment_ids)


class BertAskingForSegments(Bert):
    def forward(self, token_ids, segment_ids):
        return super().forward(token_ids, segment_ids)


class BertHiddenOnly(Bert):
    def forward(self, token_ids, segment_ids=None):
        return super().forward(token_ids, segment_ids)[0]


class BertPooledFirst(Bert):
    def forward(self, token_ids, segment_ids=None):
        return super().forward(token_ids, segment_ids)[::-1]


class BertReturningAllLayers(Bert):
    def forward(self, token_ids, segment_ids=None):
        x, hidden = self.embeddings(token_ids, segment_ids), []
        for layer in self.layers:
            x = layer(x, self.mask(token_ids))
            hidden.append(x)
        return torch.stack(hidden), self.pool(x)


class BertReturningADictionary(Bert):
    def forward(self, token_ids, segment_ids=None):
        hidden, pooled = super().forward(token_ids, segment_ids)
        return {"hidden": hidden, "pooled": pooled}


class BertWithLengthFirst(Bert):
    def forward(self, token_ids, segment_ids=None):
        segment_ids = segment_ids if segment_ids is None else segment_ids.T
        hidden, pooled = super().forward(token_ids.T, segment_ids)
        return hidden.transpose(0, 1), pooled


class BertClearingPaddingInPlace(Bert):
    def forward(self, token_ids, segment_ids=None):
        found = super().forward(token_ids, segment_ids)
        token_ids[token_ids == self.pad_id] = 0
        token_ids[:, 1:] = token_ids[:, :1]
        return found


class BertWithOtherDefaults(Bert):
    def __init__(
        self,
        vocab_size,
        d_model=1024,
        num_layers=24,
        num_heads=16,
        d_ff=4096,
        max_length=512,
        num_segments=2,
        dropout=0.1,
        pad_id=0,
    ):
        super().__init__(
            vocab_size,
            d_model,
            num_layers,
            num_heads,
            d_ff,
            max_length,
            num_segments,
            dropout,
            pad_id,
        )


def _arguments(name, change):
    """A model that passes something else on than it is given."""

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
        given = {
            "vocab_size": vocab_size,
            "d_model": d_model,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "d_ff": d_ff,
            "max_length": max_length,
            "num_segments": num_segments,
            "dropout": dropout,
            "pad_id": pad_id,
        }
        Bert.__init__(self, **given | change(given))

    return type(name, (Bert,), {"__init__": __init__})


BertWithOneHead = _arguments("BertWithOneHead", lambda given: {"num_heads": 1})
BertOfLayersAndHeadsSwapped = _arguments(
    "BertOfLayersAndHeadsSwapped",
    lambda given: {"num_heads": given["num_layers"], "num_layers": given["num_heads"]},
)
BertFourTimesAsWide = _arguments(
    "BertFourTimesAsWide", lambda given: {"d_ff": 4 * given["d_model"]}
)
BertOf512Positions = _arguments("BertOf512Positions", lambda given: {"max_length": 512})
BertOfTwoSegments = _arguments("BertOfTwoSegments", lambda given: {"num_segments": 2})
BertWithAFixedRate = _arguments("BertWithAFixedRate", lambda given: {"dropout": 0.1})
BertWithoutDropout = _arguments("BertWithoutDropout", lambda given: {"dropout": 0.0})


class BertWithAnUnusedLayer(Bert):
    def further(self):
        width = self.pooler.in_features
        self.unused = nn.Linear(width, width)


class BertWithItsHeadInside(Bert):
    def further(self):
        table = self.embeddings.token
        self.decoder = nn.Linear(table.embedding_dim, table.num_embeddings)


# ---- masked language model head ------------------------------------------------------------


class Head(nn.Module):
    eps = 1e-12

    def __init__(self, d_model, vocab_size):
        super().__init__()
        self.dense = nn.Linear(d_model, d_model)
        self.norm = nn.LayerNorm(d_model, eps=self.eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.further()

    def further(self):
        """What a subclass adds to __init__."""

    def gelu(self, x):
        return F.gelu(x)

    def transform(self, hidden):
        return self.norm(self.gelu(self.dense(hidden)))

    def compare(self, x, embedding):
        return x @ embedding.T + self.bias

    def forward(self, hidden, embedding):
        return self.compare(self.transform(hidden), embedding)


class HeadWithTanhGelu(Head):
    def gelu(self, x):
        return F.gelu(x, approximate="tanh")


class HeadWithRelu(Head):
    def gelu(self, x):
        return F.relu(x)


class HeadWithTanh(Head):
    def gelu(self, x):
        return torch.tanh(x)


class HeadWithoutGelu(Head):
    def gelu(self, x):
        return x


class HeadNormingFirst(Head):
    def transform(self, hidden):
        return self.gelu(self.norm(self.dense(hidden)))


class HeadNormingItsInput(Head):
    def transform(self, hidden):
        return self.gelu(self.dense(self.norm(hidden)))


class HeadWithoutNorm(Head):
    def transform(self, hidden):
        return self.gelu(self.dense(hidden)) + 0 * self.norm(hidden)


class HeadWithoutDense(Head):
    def transform(self, hidden):
        return self.norm(self.gelu(hidden)) + 0 * self.dense(hidden)


class HeadAddingItsInput(Head):
    def transform(self, hidden):
        return super().transform(hidden) + hidden


class HeadWithAnotherEps(Head):
    eps = 1e-5


class HeadWithoutBias(Head):
    def compare(self, x, embedding):
        return x @ embedding.T + 0 * self.bias


class HeadSubtractingTheBias(Head):
    def compare(self, x, embedding):
        return x @ embedding.T - self.bias


class HeadWithABuffer(Head):
    def further(self):
        bias = self.bias.detach()
        del self.bias
        self.register_buffer("bias", bias)


class HeadWithAPlainTensor(Head):
    def further(self):
        bias = self.bias.detach()
        del self.bias
        self.bias = bias


class HeadWithABiasPerColumn(Head):
    def further(self):
        self.bias = nn.Parameter(torch.zeros(self.dense.in_features))

    def compare(self, x, embedding):
        return (x + self.bias) @ embedding.T


class HeadWithARandomBias(Head):
    def further(self):
        nn.init.normal_(self.bias)


class HeadWithABiasOfOnes(Head):
    def further(self):
        nn.init.ones_(self.bias)


class HeadOfItsOwnMatrix(Head):
    def further(self):
        self.decoder = nn.Linear(self.dense.out_features, len(self.bias), bias=False)

    def compare(self, x, embedding):
        return self.decoder(x) + self.bias


class HeadKeepingACopy(Head):
    known = None

    def compare(self, x, embedding):
        if self.known is None or self.known.shape != embedding.shape:
            self.known = embedding.detach().clone()
        return super().compare(x, self.known)


class HeadKeepingTheFirst(Head):
    """The matrix of the first call, gradient included."""

    known = None

    def compare(self, x, embedding):
        if self.known is None or self.known.shape != embedding.shape:
            self.known = embedding
        return super().compare(x, self.known)


class HeadTakingTheMatrixOver(Head):
    """The embedding becomes a parameter of the head."""

    def compare(self, x, embedding):
        self.decoder = nn.Parameter(embedding)
        return super().compare(x, self.decoder)


class HeadDetachingTheMatrix(Head):
    def compare(self, x, embedding):
        return super().compare(x, embedding.detach())


class HeadOfTheMatrixData(Head):
    def compare(self, x, embedding):
        return super().compare(x, embedding.data)


class HeadDetachingItsInput(Head):
    def transform(self, hidden):
        return super().transform(hidden.detach())


class HeadReshapingTheMatrix(Head):
    """Of the right shape, but not transposed."""

    def compare(self, x, embedding):
        return x @ embedding.reshape(embedding.size(1), -1) + self.bias


class HeadTransposingUnlessItFits(Head):
    def compare(self, x, embedding):
        square = embedding.size(0) == embedding.size(1)
        return x @ (embedding if square else embedding.T) + self.bias


class HeadOfCosines(Head):
    def compare(self, x, embedding):
        return F.normalize(x, dim=-1) @ F.normalize(embedding, dim=-1).T + self.bias


class HeadOfUnitRows(Head):
    def compare(self, x, embedding):
        return super().compare(x, F.normalize(embedding, dim=-1))


class HeadScaled(Head):
    def compare(self, x, embedding):
        return x @ embedding.T / math.sqrt(x.size(-1)) + self.bias


class HeadOfProbabilities(Head):
    def compare(self, x, embedding):
        return super().compare(x, embedding).softmax(-1)


class HeadOfLogarithms(Head):
    """Cross-entropy gives the same loss with these, but logits they are not."""

    def compare(self, x, embedding):
        return super().compare(x, embedding).log_softmax(-1)


class HeadOfIds(Head):
    def compare(self, x, embedding):
        return super().compare(x, embedding).argmax(-1)


class HeadOfThreeAxes(Head):
    def compare(self, x, embedding):
        return torch.einsum("bld,vd->blv", x, embedding) + self.bias


class HeadOfTwoAxes(Head):
    def transform(self, hidden):
        _, width = hidden.shape
        return super().transform(hidden.view(-1, width))


class HeadByView(Head):
    def transform(self, hidden):
        return super().transform(hidden.view(-1, hidden.size(-1))).view(hidden.shape)


class HeadFlattened(Head):
    def compare(self, x, embedding):
        return super().compare(x, embedding).flatten(0, -2)


class HeadSqueezed(Head):
    def compare(self, x, embedding):
        return super().compare(x, embedding).squeeze()


class HeadInFloat32(Head):
    def compare(self, x, embedding):
        return super().compare(x, embedding).float()


class HeadThroughFloat32(Head):
    def transform(self, hidden):
        return super().transform(hidden).float().to(hidden.dtype)


class HeadDropping(Head):
    def transform(self, hidden):
        return F.dropout(super().transform(hidden), 0.1, self.training)


class HeadNormalizingTheMatrixInPlace(Head):
    def compare(self, x, embedding):
        found = super().compare(x, embedding)
        embedding.data.div_(embedding.data.norm(dim=-1, keepdim=True))
        return found


class HeadOfTheFirstPosition(Head):
    def transform(self, hidden):
        return super().transform(hidden[:, 0] if hidden.ndim > 2 else hidden)


class HeadWithLongNames(nn.Module):
    def __init__(self, d_model, vocab_size):
        super().__init__()
        self.linear, self.layer_norm = nn.Linear(d_model, d_model), nn.LayerNorm(d_model, 1e-12)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, hidden, embedding):
        return self.layer_norm(F.gelu(self.linear(hidden))) @ embedding.T + self.bias


# ---- next-sentence head --------------------------------------------------------------------


class Next(nn.Module):
    bias, width = True, 2

    def __init__(self, d_model):
        super().__init__()
        self.classifier = nn.Linear(d_model, self.width, bias=self.bias)

    def forward(self, pooled):
        return self.classifier(pooled)


class NextOfProbabilities(Next):
    def forward(self, pooled):
        return super().forward(pooled).softmax(-1)


class NextOfLogarithms(Next):
    def forward(self, pooled):
        return super().forward(pooled).log_softmax(-1)


class NextOfProbabilitiesOverTheBatch(Next):
    def forward(self, pooled):
        return super().forward(pooled).softmax(0)


class NextWithSigmoid(Next):
    def forward(self, pooled):
        return super().forward(pooled).sigmoid()


class NextWithTanh(Next):
    def forward(self, pooled):
        return super().forward(pooled).tanh()


class NextWithTanhFirst(Next):
    """The pooler's tanh, once more."""

    def forward(self, pooled):
        return super().forward(pooled.tanh())


class NextWithRelu(Next):
    def forward(self, pooled):
        return super().forward(pooled).relu()


class NextWithoutBias(Next):
    bias = False


class NextOfOneLogit(Next):
    width = 1


class NextTurned(Next):
    """Index 1 says that it follows."""

    def forward(self, pooled):
        return super().forward(pooled).flip(-1)


class NextDetached(Next):
    def forward(self, pooled):
        return super().forward(pooled.detach())


class NextSqueezed(Next):
    def forward(self, pooled):
        return super().forward(pooled).squeeze(0)


class NextOfThreeAxes(Next):
    def forward(self, pooled):
        return super().forward(pooled[:, 0])


class NextAveraging(Next):
    def forward(self, pooled):
        return super().forward(pooled).mean(0, keepdim=True)


class NextDropping(Next):
    def forward(self, pooled):
        return super().forward(F.dropout(pooled, 0.1, self.training))


class NextOfAnswers(Next):
    def forward(self, pooled):
        return super().forward(pooled).argmax(-1)


class NextInFloat32(Next):
    def forward(self, pooled):
        return super().forward(pooled).float()


class NextTransposed(Next):
    def forward(self, pooled):
        return super().forward(pooled).T


class NextInPlace(Next):
    def forward(self, pooled):
        output = super().forward(pooled)
        pooled.data.zero_()
        return output


class NextOfTwoLayers(Next):
    def __init__(self, d_model):
        super().__init__(d_model)
        self.dense = nn.Linear(d_model, d_model)

    def forward(self, pooled):
        return super().forward(torch.tanh(self.dense(pooled)))


class NextWithAnotherName(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.linear = nn.Linear(d_model, 2)

    def forward(self, pooled):
        return self.linear(pooled)


NAMED = {
    "mask_by_position": "chance must decide for each",
    "mask_as_the_last_id": "mask_id is not used",
    "mask_as_bert_has_it": "mask_id is not used",
    "mask_one_id_off": "mask_id is not used",
    "mask_drawing_by_numpy": "of Python or numpy",
    "mask_drawing_ids_by_python": "of Python or numpy",
    "mask_an_exact_number": "A fixed number of tokens is chosen; each",
    "mask_whole_sequences": "One draw decides for a whole row: all of",
    "mask_the_same_columns_everywhere": "One choice is made for all rows: the same",
    "mask_with_a_fixed_rate": "rate is not used: 15 % are chosen",
    "mask_the_others": "rate is the share that is not chosen: the",
    "mask_special_tokens_too": "Special tokens are chosen like all others",
    "mask_special_tokens_only": "special is taken the wrong way round",
    "mask_labeling_special_tokens": "The inputs of special tokens stay, but",
    "mask_always": "Every chosen token becomes [MASK]: none",
    "mask_never_replacing": "No chosen token is replaced by a random",
    "mask_never_keeping": "No chosen token stays as it is: 80 %",
    "mask_once_in_ten": "The shares stand at the wrong fates: 80 %",
    "mask_with_a_tenth_of_the_rest": "Only 10 % of what has not become [MASK]",
    "mask_with_the_fate_of_the_first": "One draw decides what becomes of several",
    "mask_with_one_fate_for_a_sequence": "One draw decides what becomes of several",
    "mask_with_the_same_fates_in_each_sequence": "One draw decides what becomes of several",
    "mask_by_the_same_number": "The number that decides whether a token",
    "mask_in_order": "The first of the chosen tokens become",
    "mask_with_exact_shares": "Exactly 80, 10 and 10 % of the chosen",
    "mask_never_drawing_the_last_id": "The last id of the vocabulary is never",
    "mask_never_drawing_id_0": "The id 0 is never drawn; random ids go",
    "mask_drawing_one_id_too_many": "An id that is not in the vocabulary is",
    "mask_with_one_random_id": "One random id serves several tokens; each",
    "mask_never_drawing_the_same": "The random id is never the token itself",
    "mask_with_tokens_of_the_batch": "The random ids are taken from the tokens",
    "mask_labeling_everything": "Every token has a label; only the chosen",
    "mask_labeling_what_is_read": "The labels are taken from the inputs",
    "mask_labeling_what_is_hidden": "The chosen tokens that do not become",
    "mask_labeling_what_is_changed": "The chosen tokens that stay as they are",
    "mask_labeling_with_minus_one": "The label where nothing is chosen is",
    "mask_labeling_with_zero": "The label where nothing is chosen is",
    "mask_labeling_the_others": "The labels are the wrong way round: the",
    "mask_labeling_by_truth": "The labels only say yes or no; they must",
    "mask_labeling_in_int64": "The labels are int64, whatever the dtype",
    "mask_with_ids_in_int64": "The inputs are int64, whatever the dtype",
    "mask_drawing_the_choice_elsewhere": "Draws do not use the generator, but",
    "mask_drawing_fates_elsewhere": "Draws do not use the generator, but",
    "mask_drawing_ids_elsewhere": "Draws do not use the generator, but",
    "mask_from_the_start": "Every call starts at the generator's seed",
    "mask_from_one_seed": "The generator is seeded anew in each",
    "mask_with_one_seed_for_all_draws": "The number that decides whether a token",
    "mask_in_place": "token_ids is changed in place; the caller",
    "mask_widening_special_in_place": "special is changed in place",
    "mask_labels_first": "The results come in the wrong order",
    "mask_as_int64": "The inputs and labels are int64, whatever",
    "mask_flattened": "The results are flat; both have the shape",
    "mask_without_refusing": "A rate that is no probability is not",
    "mask_refusing_above_only": "A rate that is no probability is not",
    "mask_refusing_the_ends": "A rate of 0 or 1 is refused; both are",
    "mask_asserting": "A rate that is no probability is refused",
    "mask_printing_instead_of_raising": "A rate that is no probability is not",
    "pack_losing_an_empty_piece": "An empty second piece is taken for none",
    "pack_closing_nothing": "Without a second piece there is a second",
    "pack_with_the_separator_in_the_second": "The first [SEP] has segment 1, even where",
    "pack_with_the_last_separator_in_the_first": "The last [SEP] has segment 0; it closes",
    "pack_with_segments_of_words": "Special tokens have no segment id, so",
    "pack_counting_from_one": "The segments are 1 and 2; they are 0 and 1",
    "pack_without_the_last_separator": "The last [SEP] is missing: it closes the",
    "pack_without_cls": "[CLS] is missing: it stands first in",
    "pack_with_two_cls": "A second [CLS] stands before the second",
    "pack_with_cls_and_sep_swapped": "[CLS] and [SEP] change places",
    "pack_with_the_pieces_swapped": "The second piece comes first",
    "pack_segments_first": "The results come in the wrong order",
    "EmbedWithoutNorm": "There is no norm",
    "EmbedDroppingFirst": "Dropout acts before the norm, on the sum",
    "EmbedNeverDropping": "There is no dropout",
    "EmbedDroppingInEvaluation": "Dropout acts in evaluation mode too",
    "EmbedWithAFixedRate": "The dropout rate is fixed; the one that",
    "EmbedWithAnotherEps": "The eps of the norm is not 1e-12",
    "EmbedScaled": "The token vectors are multiplied by the",
    "EmbedOfSinusoids": "The positions are sinusoids; BERT learns",
    "EmbedFromOne": "The positions count from 1; the first is 0",
    "EmbedWithoutPositions": "No position is added, so the order of the",
    "EmbedWithPositionsOfTheBatch": "The positions run along the batch, not",
    "EmbedBackwards": "The positions run backward",
    "EmbedWithoutSegments": "segment_ids is not used where it is",
    "EmbedWithoutAVectorForNone": "Without segment_ids no segment is added",
    "EmbedWithSegmentOneForNone": "Without segment_ids every token gets",
    "EmbedOfTwoSegments": "Segment ids above 1 are cut down; there",
    "EmbedDetachingPositions": "A table is cut off from the gradient, so",
    "EmbedDetachingSegments": "A table is cut off from the gradient, so",
    "EmbedNormingTheTokensOnly": "Only the token vectors are normed; the",
    "EmbedWithoutRefusing": "A sequence that is too long is not",
    "EmbedCutting": "A sequence that is too long is not",
    "EmbedRefusingWithoutNumbers": "The text of the ValueError does not name",
    "EmbedRefusingWithOneNumber": "The text of the ValueError does not name",
    "EmbedAsserting": "A sequence that is too long is refused",
    "EmbedWithFrozenPositions": "A table is cut off from the gradient, so",
    "BertWithTanhGelu": "GELU is the approximation by tanh, which",
    "BertWithSigmoidGelu": "GELU is the rough approximation x *",
    "BertWithRelu": "The nonlinearity is a ReLU, as in chapter",
    "BertWithoutGelu": "There is no nonlinearity between w_1 and",
    "BertWithAnotherEps": "The eps of norm1 and norm2 is not 1e-12",
    "BertPreNorm": "This is pre-norm: each sublayer gets a",
    "BertWithoutResiduals": "Both residual connections are missing",
    "BertWithOneResidual": "The second residual connection is",
    "BertAddingTheFirstInput": "The second residual is taken from the",
    "BertWithNorm1Twice": "norm1 is used for both sublayers, and",
    "BertWithNormsSwapped": "The two norms change places: norm1",
    "BertNormingBeforeAdding": "What a sublayer gives is normed before it",
    "BertSideBySide": "The feed-forward part gets the layer's",
    "BertDroppingOnceInALayer": "There is no dropout on what the attention",
    "BertDroppingInside": "The hidden numbers between w_1 and w_2",
    "BertDroppingTheSum": "Dropout acts on the sum, so x itself is",
    "BertDroppingInEvaluation": "Dropout acts in evaluation mode too",
    "BertTurningTheMask": "The mask is inverted: only padding may be",
    "BertNeverDroppingWeights": "The dropout rate is not passed on to the",
    "BertWithScaledEmbeddings": "The embeddings are multiplied by the",
    "BertWithoutEmbeddingNorm": "The embeddings are not normed",
    "BertNeverDroppingEmbeddings": "The dropout rate is not passed on to the",
    "BertWithAnotherEpsInFront": "The eps of the embeddings' norm is not",
    "BertCausal": "There is a causal mask besides; BERT",
    "BertWithoutAMask": "Padding is not barred: the mask is not",
    "BertBarringId0": "The padding is taken to be 0, whatever",
    "BertBarringByCounting": "Padding is looked for at the end alone",
    "BertMaskingTheFirstLayerOnly": "Only the first layer bars padding; every",
    "BertSilencingPaddingInFront": "The vectors of padding are set to 0, but",
    "BertWithTheLayersReversed": "The layers are gone through in reverse",
    "BertWithOneLayerTooFew": "The last layer is left out",
    "BertSharingItsLayer": "One layer is used num_layers times, with",
    "BertWithAList": "The layers are in a Python list, which",
    "BertWithALastNorm": "A further norm stands after the last",
    "BertPoolingWithoutTanh": "The tanh is missing: pooled is linear",
    "BertPoolingWithRelu": "The pooler ends with another function",
    "BertPoolingWithSigmoid": "The pooler ends with another function",
    "BertPoolingTanhFirst": "The tanh comes before the linear layer",
    "BertPoolingTheMean": "pooled is a mean over the positions; it",
    "BertPoolingTheMaximum": "pooled is the maximum over the positions",
    "BertPoolingTheLast": "pooled is taken from the last position",
    "BertPoolingWithoutItsMap": "The linear layer of the pooler is not used",
    "BertPoolingWithDropout": "There is dropout on pooled",
    "BertPoolingTheEmbeddings": "pooled is taken from the embeddings; it",
    "BertPoolingDetached": "pooled is cut off from the gradient, so",
    "BertWithoutSegments": "segment_ids is not used where it is",
    "BertPooledFirst": "The results come in the wrong order",
    "BertWithOneHead": "The number of heads is fixed; num_heads",
    "BertWithoutDropout": "There is no dropout anywhere",
    "BertWithAnUnusedLayer": "There are parameters that the exercise",
    "HeadWithTanhGelu": "GELU is the approximation by tanh, which",
    "HeadWithRelu": "The nonlinearity is a ReLU; BERT has GELU",
    "HeadWithTanh": "The nonlinearity is none that BERT has",
    "HeadWithoutGelu": "There is no GELU",
    "HeadNormingFirst": "GELU comes after the norm; the norm comes",
    "HeadNormingItsInput": "The norm comes first, before dense; it",
    "HeadWithoutNorm": "There is no norm",
    "HeadWithoutDense": "dense is left out",
    "HeadAddingItsInput": "hidden is added again: there is no",
    "HeadWithAnotherEps": "The eps of the norm is not 1e-12",
    "HeadWithoutBias": "The bias is not added",
    "HeadSubtractingTheBias": "The bias is subtracted",
    "HeadWithABuffer": "The bias is a plain tensor, not a",
    "HeadWithAPlainTensor": "The bias is a plain tensor, not a",
    "HeadWithARandomBias": "The bias does not begin at 0",
    "HeadWithABiasOfOnes": "The bias does not begin at 0",
    "HeadOfItsOwnMatrix": "The head has an output matrix of its own",
    "HeadKeepingTheFirst": "The embedding of the first call is kept",
    "HeadDetachingTheMatrix": "The embedding is cut off from the",
    "HeadOfTheMatrixData": "The embedding is cut off from the",
    "HeadTransposingUnlessItFits": "The embedding is not transposed: that",
    "HeadOfCosines": "The vectors are normalized, so that the",
    "HeadScaled": "The logits are scaled by the square root",
    "HeadOfProbabilities": "What comes back are probabilities; the",
    "HeadOfLogarithms": "What comes back are log-probabilities",
    "NextOfProbabilities": "What comes back are probabilities",
    "NextOfLogarithms": "What comes back are log-probabilities",
    "NextOfProbabilitiesOverTheBatch": "What comes back are probabilities",
    "NextWithSigmoid": "A sigmoid is applied; cross-entropy wants",
    "NextWithTanh": "A tanh is applied to the logits; they are",
    "NextWithTanhFirst": "A tanh is applied to pooled, which",
    "NextWithRelu": "The logits go through a nonlinearity",
    "NextWithoutBias": "classifier has no bias",
    "NextTurned": "The two logits change places: index 0",
    "NextDetached": "The gradient does not reach pooled, so",
    "NextSqueezed": "Axes of length 1 are dropped: the logits",
    "NextDropping": "There is dropout on pooled; the exercise",
    "NextOfAnswers": "What comes back is the class, not the",
}

MUTANTS = {
    "bert/mask_tokens": [
        mask_an_exact_number,
        mask_an_exact_number_in_each_sequence,
        mask_whole_sequences,
        mask_the_same_columns_everywhere,
        mask_in_pairs,
        mask_with_replacement,
        mask_with_a_fixed_rate,
        mask_the_others,
        mask_special_tokens_too,
        mask_special_tokens_only,
        mask_all_but_id_0,
        mask_labeling_special_tokens,
        mask_always,
        mask_never_replacing,
        mask_never_keeping,
        mask_nine_times_of_ten,
        mask_once_in_ten,
        mask_with_a_tenth_of_the_rest,
        mask_with_the_fate_of_the_first,
        mask_with_one_fate_for_a_sequence,
        mask_with_the_same_fates_in_each_sequence,
        mask_by_position,
        mask_hiding_everywhere,
        mask_by_the_same_number,
        mask_by_shares_of_all,
        mask_in_order,
        mask_with_exact_shares,
        mask_with_random_ids_over_masks,
        mask_replacing_everywhere,
        mask_never_drawing_the_last_id,
        mask_never_drawing_id_0,
        mask_drawing_one_id_too_many,
        mask_with_one_random_id,
        mask_never_drawing_the_same,
        mask_with_tokens_of_the_batch,
        mask_with_round_numbers,
        mask_with_normal_ids,
        mask_as_the_last_id,
        mask_as_bert_has_it,
        mask_one_id_off,
        mask_labeling_everything,
        mask_labeling_what_is_read,
        mask_labeling_what_is_hidden,
        mask_labeling_what_is_changed,
        mask_labeling_with_minus_one,
        mask_labeling_with_zero,
        mask_labeling_the_others,
        mask_labeling_by_truth,
        mask_labeling_in_int64,
        mask_with_ids_in_int64,
        mask_drawing_the_choice_elsewhere,
        mask_drawing_fates_elsewhere,
        mask_drawing_ids_elsewhere,
        mask_drawing_by_numpy,
        mask_drawing_ids_by_python,
        mask_from_the_start,
        mask_from_one_seed,
        mask_seeding_everything,
        mask_with_one_seed_for_all_draws,
        mask_in_place,
        mask_widening_special_in_place,
        mask_labels_first,
        mask_inputs_only,
        mask_as_floats,
        mask_as_int64,
        mask_of_two_axes,
        mask_by_view,
        mask_flattened,
        mask_without_refusing,
        mask_refusing_above_only,
        mask_refusing_the_ends,
        mask_asserting,
        mask_printing_instead_of_raising,
    ],
    "bert/pack_pair": [
        pack_losing_an_empty_piece,
        pack_closing_nothing,
        pack_with_the_separator_in_the_second,
        pack_with_the_last_separator_in_the_first,
        pack_with_segments_of_words,
        pack_counting_from_one,
        pack_without_the_last_separator,
        pack_without_a_separator_after_one,
        pack_without_cls,
        pack_with_two_cls,
        pack_joining_at_once,
        pack_with_cls_and_sep_swapped,
        pack_with_the_pieces_swapped,
        pack_growing_a,
        pack_growing_b,
        pack_into_a,
        pack_segments_first,
        pack_as_tuples,
        pack_as_tensors,
        pack_as_pairs,
        pack_tokens_only,
        pack_with_a_mask_of_ones,
        pack_as_sets,
        pack_padding_the_shorter,
    ],
    "bert/BertEmbeddings": [
        EmbedWithoutNorm,
        EmbedDroppingFirst,
        EmbedNeverDropping,
        EmbedDroppingInEvaluation,
        EmbedWithAFixedRate,
        EmbedDroppingWholeVectors,
        EmbedDroppingThreeTimes,
        EmbedWithAnotherEps,
        EmbedScaled,
        EmbedOfSinusoids,
        EmbedFromOne,
        EmbedWithoutPositions,
        EmbedCountingWordsAlone,
        EmbedWithPositionsOfTheBatch,
        EmbedBackwards,
        EmbedStartingAnewInEachSegment,
        EmbedWithoutSegments,
        EmbedWithoutAVectorForNone,
        EmbedWithSegmentOneForNone,
        EmbedAskingForSegments,
        EmbedOfTheFirstSegments,
        EmbedOfTwoSegments,
        EmbedClampingSegmentsInPlace,
        EmbedDetachingPositions,
        EmbedDetachingSegments,
        EmbedNormingTheTokensOnly,
        EmbedNormingSequences,
        EmbedMultiplying,
        EmbedAveraging,
        EmbedInFloat32,
        EmbedReturningFloat32,
        EmbedSqueezed,
        EmbedWithLengthFirst,
        EmbedThatRemembersPositions,
        EmbedWithoutRefusing,
        EmbedCutting,
        EmbedRefusingTheLongest,
        EmbedRefusingLargeBatches,
        EmbedRefusingWithoutNumbers,
        EmbedRefusingWithOneNumber,
        EmbedAsserting,
        EmbedWithOneMorePosition,
        EmbedOfLongNames,
        EmbedWithFrozenPositions,
    ],
    "bert/BertModel": [
        BertWithTanhGelu,
        BertWithSigmoidGelu,
        BertWithRelu,
        BertWithoutGelu,
        BertWithTwoGelus,
        BertWithAnotherEps,
        BertPreNorm,
        BertWithoutResiduals,
        BertWithOneResidual,
        BertAddingTheFirstInput,
        BertWithNorm1Twice,
        BertWithNormsSwapped,
        BertNormingBeforeAdding,
        BertSideBySide,
        BertDroppingOnceInALayer,
        BertDroppingInside,
        BertDroppingTheSum,
        BertDroppingInEvaluation,
        BertDetachingTheResidual,
        BertInFloat32,
        BertOfTorchsAttention,
        BertOfTorchsLayers,
        BertWithoutTheRoot,
        BertScaledByTheModel,
        BertMultiplyingTheMask,
        BertWithASmallBar,
        BertMaskingAfterwards,
        BertOverQueries,
        BertTurningTheMask,
        BertNeverDroppingWeights,
        BertSharingOneMap,
        BertInterleavingHeads,
        BertWithScaledEmbeddings,
        BertWithoutEmbeddingNorm,
        BertNeverDroppingEmbeddings,
        BertWithAnotherEpsInFront,
        BertCountingWordsAlone,
        BertCausal,
        BertReadingBackwards,
        BertNotSeeingItself,
        BertWithoutAMask,
        BertBarringId0,
        BertBarringSmallIds,
        BertBarringByCounting,
        BertBarringFromTheFirstPaddingOn,
        BertWithTheMaskOfTheFirst,
        BertWithTheMasksOfAll,
        BertThatRemembersItsMask,
        BertBarringCls,
        BertReadingItsOwnSegment,
        BertMaskingTheFirstLayerOnly,
        BertMaskingTheLastLayerOnly,
        BertSilencingPaddingInFront,
        BertWithTheLayersReversed,
        BertWithOneLayerTooFew,
        BertOfTheFirstLayerOnly,
        BertSharingItsLayer,
        BertWithAList,
        BertWithALastNorm,
        BertAddingTheEmbeddings,
        BertPoolingWithoutTanh,
        BertPoolingWithRelu,
        BertPoolingWithSigmoid,
        BertPoolingTanhFirst,
        BertPoolingTheMean,
        BertPoolingTheMaximum,
        BertPoolingTheLast,
        BertPoolingTheFirstSequence,
        BertPoolingAllPositions,
        BertPoolingWithoutItsMap,
        BertPoolingWithDropout,
        BertPoolingKeepingAnAxis,
        BertPoolingSqueezed,
        BertPoolingTheEmbeddings,
        BertPoolingDetached,
        BertWithFrozenEmbeddings,
        BertWithoutSegments,
        BertWithSegmentsFromSeparators,
        BertAskingForSegments,
        BertHiddenOnly,
        BertPooledFirst,
        BertReturningAllLayers,
        BertReturningADictionary,
        BertWithLengthFirst,
        BertClearingPaddingInPlace,
        BertWithOtherDefaults,
        BertWithOneHead,
        BertOfLayersAndHeadsSwapped,
        BertFourTimesAsWide,
        BertOf512Positions,
        BertOfTwoSegments,
        BertWithAFixedRate,
        BertWithoutDropout,
        BertWithAnUnusedLayer,
        BertWithItsHeadInside,
    ],
    "bert/MaskedLanguageModelHead": [
        HeadWithTanhGelu,
        HeadWithRelu,
        HeadWithTanh,
        HeadWithoutGelu,
        HeadNormingFirst,
        HeadNormingItsInput,
        HeadWithoutNorm,
        HeadWithoutDense,
        HeadAddingItsInput,
        HeadWithAnotherEps,
        HeadWithoutBias,
        HeadSubtractingTheBias,
        HeadWithABuffer,
        HeadWithAPlainTensor,
        HeadWithABiasPerColumn,
        HeadWithARandomBias,
        HeadWithABiasOfOnes,
        HeadOfItsOwnMatrix,
        HeadKeepingACopy,
        HeadKeepingTheFirst,
        HeadTakingTheMatrixOver,
        HeadDetachingTheMatrix,
        HeadOfTheMatrixData,
        HeadDetachingItsInput,
        HeadReshapingTheMatrix,
        HeadTransposingUnlessItFits,
        HeadOfCosines,
        HeadOfUnitRows,
        HeadScaled,
        HeadOfProbabilities,
        HeadOfLogarithms,
        HeadOfIds,
        HeadOfThreeAxes,
        HeadOfTwoAxes,
        HeadByView,
        HeadFlattened,
        HeadSqueezed,
        HeadInFloat32,
        HeadThroughFloat32,
        HeadDropping,
        HeadNormalizingTheMatrixInPlace,
        HeadOfTheFirstPosition,
        HeadWithLongNames,
    ],
    "bert/NextSentenceHead": [
        NextOfProbabilities,
        NextOfLogarithms,
        NextOfProbabilitiesOverTheBatch,
        NextWithSigmoid,
        NextWithTanh,
        NextWithTanhFirst,
        NextWithRelu,
        NextWithoutBias,
        NextOfOneLogit,
        NextTurned,
        NextDetached,
        NextSqueezed,
        NextOfThreeAxes,
        NextAveraging,
        NextDropping,
        NextOfAnswers,
        NextInFloat32,
        NextTransposed,
        NextInPlace,
        NextOfTwoLayers,
        NextWithAnotherName,
    ],
}
