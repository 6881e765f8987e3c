"""Chapter 5: BERT. Devlin et al. 2019."""

import inspect
import itertools
import re
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autograder.cases import (
    at_words,
    attention_parameters,
    in_both_precisions,
    numbers,
    own_parameters,
)
from autograder.complaints import Complaint
from autograder.exercise import Exercise, Returned
from autograder.runner import raises


def reached(make, of, output, tensors, shown):
    """To which of the tensors no gradient comes; where it comes to all, those of ``shown``."""
    cut = []
    for name, tensor in tensors.items():
        gradient = None
        if output.requires_grad and tensor.requires_grad:
            # A sum would not do: behind a norm it hardly changes.
            loss = (output * torch.arange(1.0, output.numel() + 1).view(output.shape)).sum()
            (gradient,) = torch.autograd.grad(loss, tensor, retain_graph=True, allow_unused=True)
        if gradient is None or not bool((gradient != 0).any()):
            cut.append(name)
    told = {f"no gradient from {of} to": ", ".join(cut) or "none of them"}
    if cut:
        return told
    return told | make.gradients(of, output, **{name: tensors[name] for name in shown})


# ---- masking -------------------------------------------------------------------------------

mask_tokens = Exercise(
    "bert/mask_tokens",
    points=4,
    signature="mask_tokens(token_ids, special, mask_id, vocab_size, generator, rate=0.15)",
    returns=[Returned("inputs", "of token_ids"), Returned("labels", "of token_ids")],
)

# Right implementations draw in any order, so no value of a random result can be compared. What the
# cases tell are statistics of many calls, in steps so wide that chance does not decide: a right
# implementation is within them except once in a billion runs and more, and what is wrong in one
# way says the same with every seed.

CALLS, ROWS, LENGTH = 100, 12, 20
AS_DRAWN = "as chance has it"


class Results(NamedTuple):
    """What became of the tokens in many calls: booleans of shape (calls, rows, length).

    Attributes:
        chosen: the label is the token's id.
        masked, another: the input is [MASK], or some other id than the token's.
        ordinary: the token may be chosen.
        labels: the labels themselves.
    """

    chosen: Tensor
    masked: Tensor
    another: Tensor
    ordinary: Tensor
    labels: Tensor


def new_generator(make):
    """A generator with a seed of the case's own."""
    return torch.Generator().manual_seed(int(make.integers(0, 2**31)))


def draw(mask, make, *rate, special=None, calls=CALLS):
    """The results of many calls with one generator, each with the same tokens.

    No token is [MASK], and none has an id below 10: whatever stands for "no label" is none.
    """
    vocab_size, mask_id = int(make.integers(300, 900)), int(make.integers(3, 10))
    ids = make.integers(10, vocab_size, ROWS, LENGTH)
    special = torch.zeros(ROWS, LENGTH, dtype=torch.bool) if special is None else special
    generator = new_generator(make)
    # Each call gets tensors of its own: what a call changes in place, another case tells.
    results = [
        mask(ids.clone(), special.clone(), mask_id, vocab_size, generator, *rate)
        for _ in range(calls)
    ]
    inputs, labels = (torch.stack(tensors) for tensors in zip(*results, strict=True))
    masked = inputs == mask_id
    return Results(labels == ids, masked, (inputs != ids) & ~masked, ~special, labels)


def spread(counts, expected):
    """How much the counts of the calls vary, beside the variance that separate draws give."""
    # Of what hardly ever happens nothing can be told.
    ratio = float(counts.double().var()) / expected if expected > 0.5 else 1.0
    if ratio < 0.02:
        return "none: the number is the same in every call"
    if ratio < 0.2:
        return "less than chance has it"
    return AS_DRAWN if ratio < 3.0 else "more than chance has it"


def spread_of_choice(results):
    """The spread of the number of chosen tokens."""
    chosen = results.chosen & results.ordinary
    share = float(chosen.sum() / results.ordinary.expand_as(chosen).sum().clamp(min=1))
    expected = int(results.ordinary.sum()) * share * (1 - share)
    return spread(chosen.sum(dim=(1, 2)), expected)


def spread_of_fate(results):
    """The spread of the number of [MASK] among the chosen tokens."""
    chosen = results.chosen.sum(dim=(1, 2))
    masked = (results.masked & results.chosen).sum(dim=(1, 2))
    share = float(masked.sum() / chosen.sum().clamp(min=1))
    return spread(masked - share * chosen, float(chosen.double().mean()) * share * (1 - share))


def all_the_same(results):
    """Whether every call gave the same pattern, though tokens fare differently in it."""
    pattern = results.chosen + 2 * results.masked
    first = pattern[0][results.ordinary]
    # Not quite the same: now and then a random id is mask_id or the token itself.
    same = (pattern == pattern[:1]).float().mean() > 0.99
    return bool(same) and float((first != first.mode().values).float().mean()) > 0.02


def compared(results):
    """What every case tells first: whether the calls differ as chance has it.

    Where they do not, nothing else can be told of them with certainty.
    """
    told = AS_DRAWN
    if all_the_same(results):
        told = "none: every call gives the same result"
    elif spread_of_choice(results).startswith("more") or spread_of_fate(results).startswith("more"):
        told = "more than chance has it"
    return {"difference between calls": told}


# In per cent. What a share is told as lies between two of them; those that usual mistakes lead to
# lie far from any.
_EDGES = (0, 0.3, 3.5, 8.25, 13.5, 19, 27.5, 32.5, 38, 41.25, 47.5, 58.25, 65, 76, 82.5, 88.5, 95)


def measured(found, of, wanted):
    """The share of ``of`` that is ``found`` too, and whether chance may have made it of wanted."""
    count = int(of.sum())
    got = float((found & of).sum()) / max(count, 1)
    # Rare events, such as a random id that is the token itself, are not worth counting.
    slack = 0.001 if 0 < wanted < 1 else 0.0
    deviation = (wanted * (1 - wanted) / max(count, 1)) ** 0.5
    return got, count > 0 and abs(got - wanted) <= 7 * deviation + slack


def share(found, of, wanted):
    """The share of ``of`` that is ``found`` too, as a text: ``wanted``, or a rough figure."""
    got, right = measured(found, of, wanted)
    if right:
        return f"{100 * wanted:g} %"
    low, high = next(
        pair for pair in itertools.pairwise((*_EDGES, 100)) if pair[0] <= 100 * got <= pair[1]
    )
    return f"{low:g} to {high:g} %"


def beside(found, of, wanted):
    """Whether the share of ``of`` that is ``found`` too is what it should be."""
    got, right = measured(found, of, wanted)
    if right:
        return f"{100 * wanted:g} %"
    return f"{'more' if got > wanted else 'less'} than {100 * wanted:g} %"


def link(found, given, slack=0.1):
    """How the share of ``found`` changes where ``given`` is true: of neighbors, for example."""
    alone, count = float(found.float().mean()), int(given.sum())
    if not count or not 0.03 < alone < 0.97:
        return "none"
    together = float((found & given).sum()) / count
    if together in (0.0, 1.0):
        return "complete"
    return "none" if abs(together - alone) < slack else "some"


def often(what):
    """Whether it happens, and not only where a random id is mask_id by chance."""
    return bool(what.float().mean() > 0.03)


def links(what):
    """How an event at one token hangs together with that at another."""
    return {
        "link to the token before": link(what[:, :, 1:], what[:, :, :-1]),
        "link to the row above": link(what[:, 1:], what[:, :-1]),
        "link to the call before": link(what[1:], what[:-1], slack=0.35),
        "it is as frequent in every place": bool(
            ((what.float().mean(dim=0) - what.float().mean()).abs() < 0.4).all()
        ),
    }


def only(values):
    """The one number that all values are, or a word for it where they differ."""
    return int(values[0]) if bool((values == values[:1]).all()) else "several values"


def cls_sep_and_padding(make):
    """Half of each row is special: the first token, some that follow, and padding at the end."""
    special = torch.zeros(ROWS, LENGTH, dtype=torch.bool)
    special[:, 0] = True
    for row, padding in enumerate(make.integers(4, LENGTH // 2 - 1, ROWS).tolist()):
        special[row, LENGTH - padding :] = True
        special[row, 2 : 1 + LENGTH // 2 - padding] = True
    return special


@mask_tokens.case(
    "rate 1: every ordinary token is chosen",
    next_step="A token that is chosen has its own id as label, whatever becomes of the input. "
    "Special tokens are never chosen: their label is -100, and their input stays.",
)
def _(mask, make):
    special = cls_sep_and_padding(make)
    results = draw(mask, make, 1.0, special=special)
    everywhere = special.expand_as(results.chosen)
    told = compared(results)
    if told != dict.fromkeys(told, AS_DRAWN):
        return told
    return told | {
        "ordinary tokens whose label is their id": share(results.chosen, ~everywhere, 1),
        "label of the special tokens": only(results.labels[everywhere]),
        "special tokens whose input is another": share(
            results.masked | results.another, everywhere, 0
        ),
    }


@mask_tokens.case(
    "what becomes of the chosen tokens",
    weight=2,
    next_step="Of the chosen tokens 80 % become mask_id, 10 % a random id, and 10 % stay: one "
    "draw for each token, compared with 0.8 and with 0.9.",
)
def _(mask, make):
    results = draw(mask, make, 1.0)
    told = compared(results)
    if told != dict.fromkeys(told, AS_DRAWN):
        return told
    same = ~(results.masked | results.another)
    everything = torch.ones_like(same)
    return told | {
        "[MASK]": share(results.masked, everything, 0.8),
        "another token": share(results.another, everything, 0.1),
        "as it was": share(same, everything, 0.1),
    }


@mask_tokens.case(
    "rate 0.5: half of the tokens are chosen",
    weight=2,
    next_step="Two draws for each token: the first decides whether it is chosen, the second what "
    "becomes of it. What is not chosen stays as it is and has the label -100.",
)
def _(mask, make):
    results = draw(mask, make, 0.5, calls=200)
    told = compared(results)
    if told != dict.fromkeys(told, AS_DRAWN):
        return told
    changed = results.masked | results.another
    everything = torch.ones_like(changed)
    return told | {
        "tokens with their id as label": share(results.chosen, everything, 0.5),
        "[MASK], with a label": share(results.masked & results.chosen, everything, 0.4),
        "another token, with a label": share(results.another & results.chosen, everything, 0.05),
        "as it was, with a label": share(results.chosen & ~changed, everything, 0.05),
        "changed, without a label": share(changed & ~results.chosen, everything, 0),
    }


@mask_tokens.case(
    "15 % are chosen unless told otherwise, and 70 % if asked for",
    next_step="A token is chosen where torch.rand(...) < rate. rate=0.15 is the default.",
)
def _(mask, make):
    usual, many = draw(mask, make, calls=50), draw(mask, make, 0.7, calls=50)
    told = compared(usual)
    for results in (usual, many):
        if compared(results) != dict.fromkeys(told, AS_DRAWN):
            return compared(results)
    shares = [
        float((results.chosen | results.masked | results.another).float().mean())
        for results in (usual, many)
    ]
    return told | {
        "about 15 % are chosen without a rate": 0.115 < shares[0] < 0.185,
        "about 70 % are chosen with rate 0.7": 0.6 < shares[1] < 0.8,
        "all are chosen": [share == 1.0 for share in shares],
    }


@mask_tokens.case(
    "rate 0: nothing is chosen",
    weight=0.5,
    next_step="With rate 0 the inputs are the token ids, and all labels are -100.",
)
def _(mask, make):
    results = draw(mask, make, 0.0, special=cls_sep_and_padding(make), calls=20)
    return {
        "label of all tokens": only(results.labels.flatten()),
        "an input is another than its token": bool((results.masked | results.another).any()),
    }


@mask_tokens.case(
    "each token is chosen independently",
    next_step="Draw one number for each token, torch.rand(token_ids.shape, generator=generator): "
    "neither a fixed number of tokens, nor one draw for several.",
)
def _(mask, make):
    results = draw(mask, make, 0.5)
    if all_the_same(results):
        return compared(results)
    return {
        "difference between calls": AS_DRAWN,
        "some inputs are [MASK]": often(results.masked),
        "spread of the number of chosen tokens": spread_of_choice(results),
        "spread of the number of chosen tokens in a row": spread(
            results.chosen.sum(dim=-1).flatten(),
            LENGTH * float(results.chosen.float().mean() * (1 - results.chosen.float().mean())),
        ),
        **links(results.chosen),
    }


@mask_tokens.case(
    "what becomes of a token is drawn for each of them",
    next_step="Draw a second number for each token, torch.rand(token_ids.shape, "
    "generator=generator): not one for the whole call, and no fixed number of [MASK].",
)
def _(mask, make):
    results = draw(mask, make, 1.0)
    if all_the_same(results):
        return compared(results)
    tokens, alone = ROWS * LENGTH, float(results.masked.float().mean())
    return {
        "difference between calls": AS_DRAWN,
        "some inputs are [MASK]": often(results.masked),
        "spread of the number of [MASK]": spread(
            results.masked.sum(dim=(1, 2)), tokens * alone * (1 - alone)
        ),
        **links(results.masked),
    }


@mask_tokens.case(
    "random ids come from the whole vocabulary",
    next_step="torch.randint(vocab_size, token_ids.shape, generator=generator) draws every id "
    "from 0 to vocab_size - 1 equally often, for each token anew.",
)
def _(mask, make):
    size, calls = 6, 100
    seen, possible, outside, alike = torch.zeros(size), torch.zeros(size), 0, torch.zeros(2, 3)
    for token, mask_id in ((2, 3), (4, 1)):
        ids, generator = torch.full((ROWS, LENGTH), token), new_generator(make)
        special = torch.zeros(ROWS, LENGTH, dtype=torch.bool)
        inputs = torch.stack(
            [
                mask(ids.clone(), special.clone(), mask_id, size, generator, 1.0)[0]
                for _ in range(calls)
            ]
        ).long()
        # The token itself and [MASK] cannot be told from tokens that met another fate.
        drawn = (inputs != token) & (inputs != mask_id)
        for axis in range(3):
            pairs = [inputs.unfold(axis, 2, 1), drawn.unfold(axis, 2, 1).all(dim=-1)]
            alike[0, axis] += ((pairs[0][..., 0] == pairs[0][..., 1]) & pairs[1]).sum()
            alike[1, axis] += pairs[1].sum()
        found = inputs[drawn]
        outside += int(((found < 0) | (found >= size)).sum())
        seen += torch.bincount(found[(found >= 0) & (found < size)], minlength=size)
        visible = (torch.arange(size) != token) & (torch.arange(size) != mask_id)
        possible += visible * (calls * ROWS * LENGTH * 0.1 / size)
    # By chance one pair in four is alike.
    same = (alike[0] / alike[1].clamp(min=1) > 0.75).tolist()
    told = {"one random id for several calls": same[0]}
    if same[0] and not (same[1] and same[2]):
        return told  # it says by chance how often each id comes
    told["one random id for several rows"], told["one random id for several places"] = same[1:]
    if any(same):
        return told
    return told | {
        "ids that never come": torch.arange(size)[seen == 0].tolist(),
        "ids that come too often or too seldom": torch.arange(size)[
            (seen != 0) & ((seen < 0.65 * possible) | (seen > 2.5 * possible))
        ].tolist(),
        "there are ids outside the vocabulary": outside > 0,
    }


@mask_tokens.case(
    "a vocabulary of two",
    weight=0.5,
    next_step="The random id may be the token itself or mask_id: of two ids half are one of them. "
    "So 85 % of the inputs are mask_id, and 15 % the token.",
)
def _(mask, make):
    ids, generator = torch.zeros(ROWS, LENGTH, dtype=torch.int64), new_generator(make)
    special = torch.zeros(ROWS, LENGTH, dtype=torch.bool)
    inputs = torch.stack(
        [mask(ids.clone(), special.clone(), 1, 2, generator, 1.0)[0] for _ in range(CALLS)]
    )
    masked = inputs == 1
    results = Results(torch.ones_like(masked), masked, (inputs != 0) & ~masked, ~special, inputs)
    told = compared(results) | {"there are other ids": bool(results.another.any())}
    if told["there are other ids"] or AS_DRAWN not in told.values():
        return told
    return told | {
        "inputs that are mask_id": beside(masked, torch.ones_like(masked), 0.85),
        "inputs that are the token": beside(inputs == 0, torch.ones_like(masked), 0.15),
    }


@mask_tokens.case(
    "[CLS], [SEP] and padding",
    weight=2,
    next_step="special bars the choice: chosen = (torch.rand(...) < rate) & ~special. The rate "
    "counts for the ordinary tokens.",
)
def _(mask, make):
    special = cls_sep_and_padding(make)
    results = draw(mask, make, 0.5, special=special)
    told = compared(results)
    if told != dict.fromkeys(told, AS_DRAWN):
        return told
    everywhere = special.expand_as(results.chosen)
    changed = results.masked | results.another
    ids, generator = make.integers(10, 50, 4, 9), new_generator(make)
    inputs, labels = mask(ids.clone(), torch.ones(4, 9, dtype=torch.bool), 4, 50, generator, 0.9)
    return told | {
        "special tokens whose input is another": share(changed, everywhere, 0),
        "special tokens with their id as label": share(results.chosen, everywhere, 0),
        "ordinary tokens that are chosen": share(results.chosen, ~everywhere, 0.5),
        "inputs stay where all are special": bool((inputs == ids).all()),
        "labels are one number where all are special": bool((labels == labels[0, 0]).all()),
    }


@mask_tokens.case(
    "the same seed, another seed, the same generator again",
    weight=2,
    next_step="Hand generator=generator to every draw, and set no seed. Then the generator alone "
    "decides, it moves on with each call, and torch's global random numbers are not used.",
)
def _(mask, make):
    ids, special = make.integers(10, 900, 4, 20), torch.zeros(4, 20, dtype=torch.bool)
    seed = int(make.integers(0, 2**31))

    def result(generator):
        return torch.stack(
            [
                torch.stack(mask(ids.clone(), special.clone(), 4, 900, generator, 0.5))
                for _ in range(40)
            ]
        )

    def same(one, other):
        return bool((one == other).all())

    generator = torch.Generator().manual_seed(seed)
    before = torch.get_rng_state()
    first, second = result(generator), result(generator)
    untouched = bool((torch.get_rng_state() == before).all())
    torch.rand(7)  # the global random numbers are others now
    again = result(torch.Generator().manual_seed(seed))
    other = result(torch.Generator().manual_seed(seed + 1))
    return {
        "the same seed gives the same result": same(first, again),
        "another seed gives the same result": same(first, other),
        "the next call with the same generator gives the same result": same(first, second),
        "torch's global random numbers are where they were": untouched,
    }


def some_calls(mask, make, ids, special):
    """The inputs and the labels of forty calls, in which mask_id is 4."""
    generator = new_generator(make)
    results = [mask(ids.clone(), special.clone(), 4, 50, generator, 0.9) for _ in range(40)]
    return tuple(zip(*results, strict=True))


def shapes(tensors):
    """The shapes that tensors have, as a text."""
    return " or ".join(sorted({str(tuple(tensor.shape)) for tensor in tensors}))


def dtypes(tensors):
    """The dtypes that tensors have, as a text."""
    return " or ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}))


@mask_tokens.case(
    "one axis, three axes, no tokens",
    next_step="Make every draw in token_ids.shape: any number of axes, of any length.",
)
def _(mask, make):
    told = {}
    for shape in ((9,), (2, 3, 4), (1, 1), (0,), (2, 0)):
        ids = make.integers(10, 50, *shape)
        inputs, labels = some_calls(mask, make, ids, torch.zeros(shape, dtype=torch.bool))
        told[f"shapes of the results for {shape}"] = f"{shapes(inputs)}, {shapes(labels)}"
        if ids.numel() > 1:
            told[f"some inputs are [MASK] for {shape}"] = often(torch.stack(inputs) == 4)
    return told


@mask_tokens.case(
    "ids of int32",
    weight=0.5,
    next_step="Both results have the dtype of token_ids. torch.randint and torch.full make int64 "
    "unless told otherwise; masked_fill, full_like and .to(token_ids.dtype) keep the dtype.",
)
def _(mask, make):
    ids = make.integers(10, 50, 4, 5, dtype=torch.int32)
    inputs, labels = some_calls(mask, make, ids, torch.zeros(4, 5, dtype=torch.bool))
    return {
        "dtype of the inputs": dtypes(inputs),
        "dtype of the labels": dtypes(labels),
        "some inputs are [MASK]": often(torch.stack(inputs) == 4),
    }


@mask_tokens.case(
    "rates that are no probability",
    weight=0.5,
    next_step="Begin with: if not 0 <= rate <= 1: raise ValueError(...). 0 and 1 are "
    "probabilities too.",
)
def _(mask, make):
    def call(rate):
        ids = torch.arange(10, 16).view(2, 3)
        return mask(ids, torch.zeros(2, 3, dtype=torch.bool), 4, 50, new_generator(make), rate)

    return {
        "error at rate -0.1": raises(call, -0.1),
        "error at rate 1.5": raises(call, 1.5),
        "error at rate 0": raises(call, 0.0),
        "error at rate 1": raises(call, 1.0),
    }


@mask_tokens.case(
    "inputs that are views, left as they were",
    next_step="Work on a copy (token_ids.clone(), masked_fill, torch.where): the caller needs "
    "token_ids and special again. A view has no .view(-1); use reshape.",
)
def _(mask, make):
    ids, special = make.integers(10, 50, 9, 12), make.booleans(9, 12)
    tokens, barred = ids.clone(), special.clone()
    results = mask(ids.T[::2], special.T[::2], 4, 50, new_generator(make), 0.9)
    unchanged = [bool((ids == tokens).all()), bool((special == barred).all())]
    inputs, _ = some_calls(mask, make, tokens, barred)
    return {
        "shapes of the results": f"{shapes(results[:1])}, {shapes(results[1:])}",
        "some inputs are [MASK]": often(torch.stack(inputs) == 4),
        "token_ids is unchanged": unchanged[0],
        "special is unchanged": unchanged[1],
    }


@mask_tokens.case("another rate, with special tokens", hidden=True)
def _(mask, make):
    special = cls_sep_and_padding(make)
    results = draw(mask, make, 0.3, special=special, calls=200)
    told = compared(results)
    if told != dict.fromkeys(told, AS_DRAWN):
        return told
    everywhere = special.expand_as(results.chosen)
    changed = results.masked | results.another
    wanted = {"chosen": 0.3, "masked": 0.24, "another": 0.03}
    return told | {
        "no special token has a label or another input": not bool(
            ((results.chosen | changed) & everywhere).any()
        ),
        **{
            f"share of {name}": beside(getattr(results, name), ~everywhere, level)
            for name, level in wanted.items()
        },
    }


@mask_tokens.misconceptions
def _():
    """Masking with one thing wrong at a time."""
    from random import random as from_elsewhere

    def probability(rate):
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is {rate}")

    def rand(ids, generator):
        return torch.rand(ids.shape, generator=generator)

    def split(fate, chosen):
        """Which of the chosen tokens become [MASK], and which a random id."""
        return chosen & (fate < 0.8), chosen & (fate >= 0.9)

    def shares(masked, random):
        """Other shares of the chosen; what is left stays."""
        return lambda fate, chosen: (
            chosen & (fate < masked),
            chosen & (fate >= masked) & (fate < masked + random),
        )

    def label(found):
        return torch.where(found["chosen"], found["ids"], -100)

    def masking(
        check=probability,
        choose=lambda ids, special, rate, generator: rand(ids, generator) < rate,
        bar=lambda chosen, special: chosen & ~special,
        fate=lambda ids, generator, drawn: rand(ids, generator),
        split=split,
        others=lambda ids, vocab_size, mask_id, generator: torch.randint(
            vocab_size, ids.shape, generator=generator
        ),
        label=label,
        give=lambda inputs, labels: (inputs, labels),
        source=lambda generator: generator,
        start=lambda ids: ids.clone(),
    ):
        def mask(token_ids, special, mask_id, vocab_size, generator, rate=0.15):
            check(rate)
            generator = source(generator)
            ids = token_ids.clone()
            chosen = bar(choose(ids, special, rate, generator), special)
            found = {"ids": ids, "chosen": chosen, "special": special, "mask_id": mask_id}
            found["masked"], found["random"] = split(fate(ids, generator, chosen), chosen)
            other = others(ids, vocab_size, mask_id, generator).to(ids.dtype)
            inputs = start(token_ids)
            inputs[found["masked"]] = mask_id
            inputs[found["random"]] = other[found["random"]]
            found["inputs"] = inputs
            return give(inputs, label(found).to(ids.dtype))

        return mask

    # The three shares.

    yield (
        "Every chosen token becomes [MASK]: none is replaced by a random token, and none stays.",
        masking(split=lambda fate, chosen: (chosen, chosen & False)),
        "Draw a second number for each token: below 0.8 it becomes mask_id, from 0.9 on a random "
        "id.",
    )
    for split_ in (shares(0.8, 0.0), shares(0.9, 0.0)):
        yield (
            "No chosen token is replaced by a random one.",
            masking(split=split_),
            "10 % of the chosen tokens become an id drawn from the whole vocabulary.",
        )
    for split_ in (shares(0.8, 0.2), shares(0.9, 0.1)):
        yield (
            "No chosen token stays as it is: 80 % become [MASK], 10 % a random token, and 10 % "
            "stay.",
            masking(split=split_),
            "Leave the chosen tokens between the two bounds, 0.8 and 0.9, as they are.",
        )
    for split_ in (
        shares(0.85, 0.1),
        shares(0.8, 0.15),
        shares(0.8, 0.05),
        shares(0.7, 0.15),
        shares(0.7, 0.2),
        shares(0.7, 0.1),
        shares(0.6, 0.2),
    ):
        yield (
            "The shares of the three fates are others than 80, 10 and 10 %.",
            masking(split=split_),
            "Compare the second draw with 0.8 and with 0.9: the bounds, not the shares, of what "
            "follows.",
        )
    for split_ in (shares(0.1, 0.8), shares(0.1, 0.1), shares(0.2, 0.4)):
        yield (
            "The shares stand at the wrong fates: 80 % become [MASK], 10 % a random token, 10 % "
            "stay.",
            masking(split=split_),
            "Compare the second draw with 0.8 and with 0.9.",
        )
    yield (
        "Of the chosen tokens only 12 % become [MASK] and 1.5 % random. These are the shares of "
        "all tokens; of the chosen ones they are 80 and 10 %.",
        masking(split=shares(0.12, 0.015)),
        "The chosen tokens are 15 % already: take 0.8 and 0.1 of these.",
    )

    def of_the_rest(fate, chosen):
        again = (fate - 0.8) / 0.2  # a further draw, for what has not become [MASK]
        return chosen & (fate < 0.8), chosen & (fate >= 0.8) & (again < 0.1)

    yield (
        "Only 10 % of what has not become [MASK] is random, which is 2 % of the chosen; it must be "
        "half of it.",
        masking(split=of_the_rest),
        "After 80 % are taken, 10 % of all the chosen are half of what is left.",
    )

    def drawn_apart(fate, chosen):
        random = chosen & ((fate * 1000) % 1 < 0.1)  # as good as another draw
        return chosen & (fate < 0.8) & ~random, random

    yield (
        "[MASK] and random are drawn apart, so that some tokens that became [MASK] become "
        "something else.",
        masking(split=drawn_apart),
        "One draw decides between the three: below 0.8, from 0.9 on, or between.",
    )

    class Once:
        """One number for each token, used twice."""

        drawn = None

        def choose(self, ids, special, rate, generator):
            self.drawn = rand(ids, generator)
            return self.drawn < rate

        def fate(self, ids, generator, chosen):
            return self.drawn

    once = Once()
    yield (
        "The number that decides whether a token is chosen decides its fate too: what lies below "
        "the rate lies below 0.8, so every chosen token becomes [MASK].",
        masking(choose=once.choose, fate=once.fate),
        "Draw two numbers for each token: one for the choice, another for the fate.",
    )

    # Labels.

    yield (
        "Every token has a label; only the chosen ones may, and all others have -100.",
        masking(label=lambda found: found["ids"]),
        "labels = token_ids.masked_fill(~chosen, -100).",
    )
    yield (
        "Every ordinary token has a label; only the chosen ones may.",
        masking(label=lambda found: found["ids"].masked_fill(found["special"], -100)),
        "labels = token_ids.masked_fill(~chosen, -100).",
    )
    yield (
        "The labels are taken from the inputs after the change, so they hold mask_id and random "
        "ids; they must hold what stood there before.",
        masking(label=lambda found: torch.where(found["chosen"], found["inputs"], -100)),
        "Take the labels from token_ids, before anything is changed.",
    )
    yield (
        "The labels of the chosen tokens are mask_id, not the tokens' own ids.",
        masking(label=lambda found: torch.where(found["chosen"], found["mask_id"], -100)),
        "labels = token_ids.masked_fill(~chosen, -100).",
    )
    for none in (0, -1, 1, -1000):
        yield (
            "The label where nothing is chosen is another number than -100, the one that "
            "cross-entropy skips.",
            masking(
                label=lambda found, none=none: torch.where(found["chosen"], found["ids"], none)
            ),
            "labels = token_ids.masked_fill(~chosen, -100).",
        )
    yield (
        "The label where nothing is chosen is mask_id; it is -100.",
        masking(label=lambda found: torch.where(found["chosen"], found["ids"], found["mask_id"])),
        "labels = token_ids.masked_fill(~chosen, -100).",
    )
    for inverted in (
        lambda found: torch.where(found["chosen"], -100, found["ids"]),
        lambda found: torch.where(found["chosen"] | found["special"], -100, found["ids"]),
    ):
        yield (
            "The labels are the wrong way round: the chosen tokens have -100, and the others their "
            "ids.",
            masking(label=inverted),
            "masked_fill(~chosen, -100): -100 goes where nothing was chosen.",
        )
    yield (
        "The labels only say yes or no; they must hold the ids.",
        masking(label=lambda found: found["chosen"].long()),
        "labels = token_ids.masked_fill(~chosen, -100).",
    )
    unlabeled = {
        "stay as they are": lambda found: found["masked"] | found["random"],
        "become random": lambda found: found["chosen"] & ~found["random"],
        "do not become [MASK]": lambda found: found["masked"],
    }
    for which, labeled in unlabeled.items():
        yield (
            f"The chosen tokens that {which} have no label; every chosen token has one.",
            masking(
                label=lambda found, labeled=labeled: torch.where(labeled(found), found["ids"], -100)
            ),
            "The labels follow the choice, not what became of the input: "
            "token_ids.masked_fill(~chosen, -100).",
        )

    # Special tokens.

    yield (
        "Special tokens are chosen like all others.",
        masking(bar=lambda chosen, special: chosen),
        "chosen = (torch.rand(...) < rate) & ~special.",
    )
    yield (
        "special is taken the wrong way round: only special tokens are chosen.",
        masking(bar=lambda chosen, special: chosen & special),
        "True means never chosen: & ~special.",
    )
    yield (
        "Special tokens are chosen always.",
        masking(bar=lambda chosen, special: chosen | special),
        "chosen = (torch.rand(...) < rate) & ~special.",
    )
    yield (
        "Special tokens have no label, but their inputs are changed.",
        masking(
            bar=lambda chosen, special: chosen,
            label=lambda found: torch.where(
                found["chosen"] & ~found["special"], found["ids"], -100
            ),
        ),
        "special bars the choice, before anything is changed: chosen = ... & ~special.",
    )

    yield (
        "Special tokens have their id as label; like all that is not chosen, they have -100.",
        masking(label=lambda found: torch.where(found["special"], found["ids"], label(found))),
        "labels = token_ids.masked_fill(~chosen, -100).",
    )

    def of_all_tokens(ids, special, rate, generator):
        ordinary = int((~special).sum())
        return rand(ids, generator) < rate * ids.numel() / max(ordinary, 1)

    yield (
        "rate is taken as the share of all tokens, special ones included; it is the probability "
        "for each ordinary token.",
        masking(choose=of_all_tokens),
        "chosen = (torch.rand(...) < rate) & ~special.",
    )

    class Sparing:
        """Chooses special tokens too, and spares their inputs alone."""

        special = None

        def bar(self, chosen, special):
            self.special = special
            return chosen

        def split(self, fate, chosen):
            return split(fate, chosen & ~self.special)

    sparing = Sparing()
    yield (
        "The inputs of special tokens stay, but some of them have a label.",
        masking(bar=sparing.bar, split=sparing.split),
        "special bars the choice, from which inputs and labels follow: chosen = ... & ~special.",
    )

    class Everywhere(Sparing):
        """Lets fate fall upon every ordinary token, chosen or not."""

        def bar(self, chosen, special):
            self.special = special
            return chosen & ~special

        def split(self, fate, chosen):
            return split(fate, ~self.special)

    everywhere = Everywhere()
    yield (
        "80, 10 and 10 % are taken of all tokens, not of the chosen ones: tokens without a label "
        "are changed.",
        masking(bar=everywhere.bar, split=everywhere.split),
        "Join each with the choice: chosen & (fate < 0.8).",
    )

    # The choice.

    def exactly(count, by_row=False, of=lambda ordinary, special: ordinary):
        """A number of tokens that chance has no part in."""

        def choose(ids, special, rate, generator):
            found = torch.zeros(ids.shape, dtype=torch.bool)
            rows = found.view(-1, ids.shape[-1]) if by_row and ids.ndim > 1 else found.view(1, -1)
            barred = special.reshape(rows.shape)
            for row, none in zip(rows, barred, strict=True):
                places = (~none).nonzero().flatten()
                number = min(count(rate, int(of((~none).sum(), none.numel()))), len(places))
                order = torch.randperm(len(places), generator=generator)
                row[places[order[:number]]] = True
            return found

        return choose

    def whole(rate, tokens):
        return int(rate * tokens)

    def one_at_least(rate, tokens):
        return max(1, round(rate * tokens))

    for by_row in (False, True):
        for count, of in (
            (whole, lambda ordinary, all_: ordinary),
            (one_at_least, lambda ordinary, all_: ordinary),
            (whole, lambda ordinary, all_: all_),
        ):
            yield (
                "A fixed number of tokens is chosen; each must be chosen by a draw of its own, so "
                "that their number varies.",
                masking(choose=exactly(count, by_row, of)),
                "chosen = torch.rand(token_ids.shape, generator=generator) < rate.",
            )

    def first_ones(ids, special, rate, generator):
        places = torch.arange(ids.numel()).view(ids.shape)
        return places < round(rate * ids.numel())

    yield (
        "The same places are chosen in every call; chance must decide.",
        masking(choose=first_ones),
        "chosen = torch.rand(token_ids.shape, generator=generator) < rate.",
    )
    yield (
        "One choice is made for all rows: the same places are chosen in each sequence.",
        masking(
            choose=lambda ids, special, rate, generator: (
                torch.rand(ids.shape[-1:], generator=generator) < rate
            ).expand(ids.shape)
        ),
        "Draw one number for each token: torch.rand(token_ids.shape, generator=generator).",
    )
    yield (
        "One draw decides for a whole row: all of its tokens are chosen, or none.",
        masking(
            choose=lambda ids, special, rate, generator: (
                torch.rand((*ids.shape[:-1], 1), generator=generator) < rate
            ).expand(ids.shape)
        ),
        "Draw one number for each token: torch.rand(token_ids.shape, generator=generator).",
    )
    yield (
        "One draw decides for a whole call: all tokens are chosen, or none.",
        masking(
            choose=lambda ids, special, rate, generator: (
                torch.rand(1, generator=generator) < rate
            ).expand(ids.shape)
        ),
        "Draw one number for each token: torch.rand(token_ids.shape, generator=generator).",
    )
    yield (
        "rate is not used: 15 % are chosen, whatever is asked for.",
        masking(choose=lambda ids, special, rate, generator: rand(ids, generator) < 0.15),
        "chosen = torch.rand(token_ids.shape, generator=generator) < rate.",
    )
    yield (
        "rate is the share that is not chosen: the comparison is the wrong way round.",
        masking(choose=lambda ids, special, rate, generator: rand(ids, generator) > rate),
        "A number below rate comes with probability rate: torch.rand(...) < rate.",
    )

    def another_default(token_ids, special, mask_id, vocab_size, generator, rate=0.1):
        return masking()(token_ids, special, mask_id, vocab_size, generator, rate)

    yield (
        "The default of rate is another than 0.15.",
        another_default,
        "Write rate=0.15 in the signature.",
    )

    # The fates.

    yield (
        "mask_id is not used: what is written is another id.",
        lambda token_ids, special, mask_id, *rest: masking()(token_ids, special, 0, *rest),
        "Write mask_id where a token becomes [MASK].",
    )
    for size in (lambda ids: (1,), lambda ids: (*ids.shape[:-1], 1), lambda ids: ids.shape[-1:]):
        yield (
            "One draw decides what becomes of several tokens; each has a draw of its own.",
            masking(
                fate=lambda ids, generator, drawn, size=size: torch.rand(
                    size(ids) if ids.ndim else (), generator=generator
                ).expand(ids.shape)
            ),
            "Draw one number for each token: torch.rand(token_ids.shape, generator=generator).",
        )

    def in_order(shuffled):
        def fate(ids, generator, chosen):
            places = chosen.nonzero()
            count = len(places)
            ranks = torch.arange(count, dtype=torch.float32) + 0.5
            if shuffled:
                ranks = ranks[torch.randperm(count, generator=generator)]
            found = torch.zeros(ids.shape)
            found[chosen] = ranks / max(count, 1)
            return found

        return fate

    yield (
        "Exactly 80, 10 and 10 % of the chosen tokens are taken; what becomes of a token is drawn "
        "for it alone, so that the numbers vary.",
        masking(fate=in_order(True)),
        "fate = torch.rand(token_ids.shape, generator=generator), compared with 0.8 and with 0.9.",
    )
    yield (
        "The first of the chosen tokens become [MASK], and the last ones random or nothing; chance "
        "must decide for each.",
        masking(fate=in_order(False)),
        "fate = torch.rand(token_ids.shape, generator=generator), compared with 0.8 and with 0.9.",
    )

    # The random ids.

    def between(low, high):
        return lambda ids, vocab_size, mask_id, generator: torch.randint(
            low, vocab_size + high, ids.shape, generator=generator
        )

    yield (
        "The last id of the vocabulary is never drawn: randint leaves its upper end out already.",
        masking(others=between(0, -1)),
        "torch.randint(vocab_size, ...) draws from 0 to vocab_size - 1.",
    )
    yield (
        "The id 0 is never drawn; random ids go from 0 to vocab_size - 1.",
        masking(others=between(1, 0)),
        "torch.randint(vocab_size, ...) draws from 0 to vocab_size - 1.",
    )
    yield (
        "The ids 0 and vocab_size - 1 are never drawn; random ids go from 0 to vocab_size - 1.",
        masking(others=between(1, -1)),
        "torch.randint(vocab_size, ...) draws from 0 to vocab_size - 1.",
    )
    for low in (2, 3, 4, 5):
        yield (
            "The first ids of the vocabulary are never drawn, as if they were special; random ids "
            "go from 0 to vocab_size - 1.",
            masking(others=between(low, 0)),
            "torch.randint(vocab_size, ...) draws from 0 to vocab_size - 1.",
        )
    for low, high in ((0, 1), (1, 1)):
        yield (
            "An id that is not in the vocabulary is drawn: vocab_size. The last one is "
            "vocab_size - 1.",
            masking(others=between(low, high)),
            "torch.randint(vocab_size, ...) draws from 0 to vocab_size - 1.",
        )
    for size in (lambda ids: (1,), lambda ids: (*ids.shape[:-1], 1), lambda ids: ids.shape[-1:]):
        yield (
            "One random id serves several tokens; each gets an id of its own.",
            masking(
                others=lambda ids, vocab_size, mask_id, generator, size=size: torch.randint(
                    vocab_size, size(ids), generator=generator
                ).expand(ids.shape)
            ),
            "Draw one id for each token: torch.randint(vocab_size, token_ids.shape, "
            "generator=generator).",
        )
    yield (
        "The random ids are taken from the tokens of the input, shuffled; they come from the whole "
        "vocabulary.",
        masking(
            others=lambda ids, vocab_size, mask_id, generator: ids.flatten()[
                torch.randperm(ids.numel(), generator=generator)
            ].view(ids.shape)
        ),
        "torch.randint(vocab_size, token_ids.shape, generator=generator).",
    )

    def not_the_token(ids, vocab_size, mask_id, generator):
        step = torch.randint(1, max(vocab_size, 2), ids.shape, generator=generator)
        return (ids + step) % vocab_size

    yield (
        "The random id is never the token itself; it is drawn from the whole vocabulary, and may "
        "be.",
        masking(others=not_the_token),
        "torch.randint(vocab_size, token_ids.shape, generator=generator), as it comes.",
    )

    def not_the_mask(ids, vocab_size, mask_id, generator):
        step = torch.randint(1, max(vocab_size, 2), ids.shape, generator=generator)
        return (mask_id + step) % vocab_size

    yield (
        "The random id is never mask_id; it is drawn from the whole vocabulary, and may be.",
        masking(others=not_the_mask),
        "torch.randint(vocab_size, token_ids.shape, generator=generator), as it comes.",
    )

    # The generator.

    yield (
        "Draws do not use the generator, but torch's global random numbers: the same seed gives "
        "another result each time.",
        masking(choose=lambda ids, special, rate, generator: torch.rand(ids.shape) < rate),
        "Hand generator=generator to every draw: rand, randint, bernoulli and randperm.",
    )

    def from_python(ids, special, rate, generator):
        drawn = [from_elsewhere() < rate for _ in range(ids.numel())]
        return torch.tensor(drawn, dtype=torch.bool).view(ids.shape)

    yield (
        "Draws do not use the generator, but random numbers from elsewhere, of Python or numpy: "
        "the same seed gives another result each time.",
        masking(choose=from_python),
        "Hand generator=generator to every draw: rand, randint, bernoulli and randperm.",
    )

    def seeded_by(seed):
        def source(generator):
            torch.manual_seed(seed(generator))
            return torch.default_generator

        return source

    yield (
        "The random numbers are seeded inside, and torch's global ones at that: every call gives "
        "the same result, whatever the generator.",
        masking(source=seeded_by(lambda generator: 0)),
        "Set no seed: hand generator=generator to every draw, and leave it as it comes.",
    )
    yield (
        "torch's global random numbers are seeded from the generator's seed: every call gives the "
        "same result, and whoever else draws from them is disturbed.",
        masking(source=seeded_by(lambda generator: generator.initial_seed())),
        "Set no seed: hand generator=generator to every draw, and leave it as it comes.",
    )
    yield (
        "The generator is seeded anew in each call: every call gives the same result, whatever "
        "seed it came with.",
        masking(source=lambda generator: generator.manual_seed(0)),
        "Hand generator=generator to every draw, and leave its seed as it is.",
    )
    yield (
        "Every call starts at the generator's seed again, so it gives the same result each time; "
        "the generator must move on.",
        masking(source=lambda generator: generator.manual_seed(generator.initial_seed())),
        "Hand the generator itself to every draw: generator=generator.",
    )

    # The form.

    for dtype in (torch.float32, torch.float64):
        yield (
            "The labels are floating-point numbers; ids are integers, of the dtype of token_ids.",
            lambda *arguments, dtype=dtype: (lambda inputs, labels: (inputs, labels.to(dtype)))(
                *masking()(*arguments)
            ),
            "labels = token_ids.masked_fill(~chosen, -100).",
        )
    wide = {
        "labels are": lambda inputs, labels: (inputs, labels.long()),
        "inputs are": lambda inputs, labels: (inputs.long(), labels),
        "inputs and labels are": lambda inputs, labels: (inputs.long(), labels.long()),
    }
    for which, give in wide.items():
        yield (
            f"The {which} int64, whatever the dtype of token_ids.",
            masking(give=give),
            "masked_fill, full_like and .to(token_ids.dtype) keep the dtype.",
        )
    yield (
        "The results come in the wrong order: inputs first, then labels.",
        masking(give=lambda inputs, labels: (labels, inputs)),
        "return inputs, labels.",
    )
    yield (
        "The results are flat; both have the shape of token_ids.",
        lambda *arguments: tuple(x.flatten() for x in masking()(*arguments)),
        "Draw in token_ids.shape, and return that shape.",
    )
    yield (
        "token_ids is changed in place; the caller needs it again.",
        masking(start=lambda ids: ids),
        "Start from a copy: token_ids.clone(), masked_fill or torch.where.",
    )
    yield (
        "token_ids is changed in place, and the labels are taken from it afterwards.",
        masking(
            start=lambda ids: ids,
            label=lambda found: torch.where(found["chosen"], found["inputs"], -100),
        ),
        "Start from a copy: token_ids.clone(), masked_fill or torch.where.",
    )
    yield (
        "special is changed in place.",
        lambda token_ids, special, *rest: (lambda result: (special.logical_not_(), result)[1])(
            masking()(token_ids, special.clone(), *rest)
        ),
        "Write ~special, which makes a new tensor.",
    )

    # Rates.

    def nothing_refused(rate):
        pass

    def asserted(rate):
        assert 0 <= rate <= 1

    def open_interval(rate):
        if not 0 < rate < 1:
            raise ValueError

    def above_zero(rate):
        if not 0 < rate <= 1:
            raise ValueError

    def below_one(rate):
        if not 0 <= rate < 1:
            raise ValueError

    def only_negative(rate):
        if rate < 0:
            raise ValueError

    def only_large(rate):
        if rate > 1:
            raise ValueError

    for check in (nothing_refused, only_negative, only_large):
        yield (
            "A rate that is no probability is not refused.",
            masking(check=check),
            "Begin with: if not 0 <= rate <= 1: raise ValueError(...).",
        )
    yield (
        "A rate that is no probability is refused with another error than ValueError.",
        masking(check=asserted),
        "raise ValueError(...): an assert can be switched off, and says something else.",
    )
    for check in (open_interval, above_zero, below_one):
        yield (
            "A rate of 0 or 1 is refused; both are probabilities.",
            masking(check=check),
            "if not 0 <= rate <= 1: raise ValueError(...).",
        )


# ---- two pieces ----------------------------------------------------------------------------

pack_pair = Exercise(
    "bert/pack_pair",
    points=2,
    signature="pack_pair(a, b, cls_id, sep_id)",
    returns=[Returned("token_ids", type=list), Returned("segment_ids", type=list)],
)


def packed(pack, *arguments):
    """Both results by name, as texts."""
    results = [" ".join(map(str, result)) for result in pack(*arguments)]
    return dict(zip(("token_ids", "segment_ids"), results, strict=True))


def piece(make, length):
    """A piece of text: its ids, as a list."""
    return make.integers(10, 99, length).tolist()


@pack_pair.case(
    "by hand: the pieces 5 6 and 7",
    next_step="[CLS] a [SEP] b [SEP], and a segment id for every token: 0 0 0 0 1 1.",
)
def _(pack, make):
    return packed(pack, [5, 6], [7], 1, 2)


@pack_pair.case(
    "two pieces, the second longer",
    next_step="The first segment is [cls_id] + a + [sep_id], the second b + [sep_id].",
)
def _(pack, make):
    return packed(pack, piece(make, 3), piece(make, 6), 1, 2)


@pack_pair.case(
    "two pieces, the first longer",
    next_step="The first [SEP] closes the first piece and has segment 0; the last one has 1.",
)
def _(pack, make):
    return packed(pack, piece(make, 7), piece(make, 2), 3, 4)


@pack_pair.case(
    "one piece: b is None",
    next_step="Without a second piece: [CLS] a [SEP], and every segment id is 0.",
)
def _(pack, make):
    return packed(pack, piece(make, 4), None, 1, 2)


@pack_pair.case(
    "an empty second piece",
    next_step="Ask `b is None`, not `if b`: an empty list is false too. Its [SEP] is there, with "
    "segment 1.",
)
def _(pack, make):
    return packed(pack, piece(make, 3), [], 1, 2)


@pack_pair.case(
    "an empty first piece, and no token at all",
    weight=0.5,
    next_step="[CLS] and [SEP] are there whatever a and b hold.",
)
def _(pack, make):
    results = (
        packed(pack, [], piece(make, 3), 1, 2),
        packed(pack, [], [], 1, 2),
        packed(pack, [], None, 1, 2),
    )
    names = ("an empty a", "both empty", "an empty a alone")
    return {
        f"{what} with {name}": result[what]
        for name, result in zip(names, results, strict=True)
        for what in result
    }


@pack_pair.case(
    "other ids for [CLS] and [SEP]",
    next_step="Use cls_id and sep_id as they are given; 1, 2, 101 and 102 may be words.",
)
def _(pack, make):
    return packed(pack, [*piece(make, 2), 2, 102], [101, 1, *piece(make, 2)], 9, 8)


@pack_pair.case(
    "pieces that hold the ids of [CLS] and [SEP]",
    weight=0.5,
    next_step="Count the tokens of a to know where the first segment ends; do not look for sep_id.",
)
def _(pack, make):
    return packed(pack, [2, *piece(make, 2), 2, 1], [*piece(make, 1), 2, 1, 2], 1, 2)


@pack_pair.case(
    "the same list twice, and the same call again",
    weight=0.5,
    next_step="Make new lists in every call: [cls_id, *a, sep_id].",
)
def _(pack, make):
    a = piece(make, 4)
    pack(a, a, 1, 2)
    return packed(pack, a, a, 1, 2)


@pack_pair.case(
    "the lists stay as they were",
    next_step="a.append, a.insert, a.extend and a += change the list of the caller. a + b makes a "
    "new one.",
)
def _(pack, make):
    a, b = piece(make, 3), piece(make, 5)
    given = [*a], [*b]
    token_ids, segment_ids = pack(a, b, 1, 2)
    kept = (a, b) == given
    token_ids.append(0)
    segment_ids.append(0)
    return {
        "tokens and segments, in number": [len(token_ids) - 1, len(segment_ids) - 1],
        "the lists are unchanged": kept,
        "the results are lists of their own, so that these stay unchanged": (a, b) == given,
    }


@pack_pair.case("other pieces", hidden=True)
def _(pack, make):
    lengths = make.integers(3, 30, 3).tolist()
    pair = packed(pack, piece(make, lengths[0]), piece(make, lengths[1]), 5, 6)
    return pair | {
        f"{name} of one piece": value
        for name, value in packed(pack, piece(make, lengths[2]), None, 5, 6).items()
    }


@pack_pair.misconceptions
def _():
    """Packing with one thing wrong at a time."""

    def pair(
        first=lambda a, cls_id, sep_id: [cls_id, *a, sep_id],
        second=lambda b, cls_id, sep_id: [*b, sep_id],
        missing=lambda b: b is None,
        alone=lambda sep_id: [],
        segments=lambda first, second: [0] * len(first) + [1] * len(second),
        give=lambda tokens, segments: (tokens, segments),
        order=lambda a, b: (a, b),
    ):
        def pack(a, b, cls_id, sep_id):
            a, b = order(a, b)
            head = first(a, cls_id, sep_id)
            tail = alone(sep_id) if missing(b) else second(b, cls_id, sep_id)
            return give(head + tail, segments(head, tail))

        return pack

    layout = "[cls_id, *a, sep_id], then [*b, sep_id]."
    yield (
        "The last [SEP] is missing: it closes the second piece.",
        pair(second=lambda b, cls_id, sep_id: [*b]),
        layout,
    )
    yield (
        "The [SEP] between the pieces is missing.",
        pair(first=lambda a, cls_id, sep_id: [cls_id, *a]),
        layout,
    )
    yield (
        "The [SEP] between the pieces is missing where there are two; the last one does not stand "
        "for both.",
        lambda a, b, cls_id, sep_id: (
            ([cls_id, *a, sep_id], [0] * (len(a) + 2))
            if b is None
            else ([cls_id, *a, *b, sep_id], [0] * (len(a) + 1) + [1] * (len(b) + 1))
        ),
        layout,
    )
    yield (
        "Both [SEP] are missing.",
        pair(
            first=lambda a, cls_id, sep_id: [cls_id, *a],
            second=lambda b, cls_id, sep_id: [*b],
        ),
        layout,
    )
    yield (
        "[CLS] is missing: it stands first in every sequence.",
        pair(first=lambda a, cls_id, sep_id: [*a, sep_id]),
        layout,
    )
    yield (
        "A second [CLS] stands before the second piece; there is one in a sequence.",
        pair(second=lambda b, cls_id, sep_id: [cls_id, *b, sep_id]),
        layout,
    )
    yield (
        "[CLS] and [SEP] change places.",
        lambda a, b, cls_id, sep_id: pair()(a, b, sep_id, cls_id),
        layout,
    )
    yield (
        "[CLS] stands at the end; it is the first token.",
        pair(
            first=lambda a, cls_id, sep_id: [*a, sep_id],
            second=lambda b, cls_id, sep_id: [*b, sep_id, cls_id],
        ),
        layout,
    )
    yield (
        "The second piece comes first.",
        pair(order=lambda a, b: (a, b) if b is None else (b, a)),
        layout,
    )
    yield (
        "The pieces are put in as lists, not token by token.",
        pair(
            first=lambda a, cls_id, sep_id: [cls_id, a, sep_id],
            second=lambda b, cls_id, sep_id: [b, sep_id],
        ),
        "Unpack them, [cls_id, *a, sep_id], or add lists: [cls_id] + a + [sep_id].",
    )

    counted = "The segment ids are [0] * len(first) + [1] * len(second)."
    yield (
        "The first [SEP] has segment 1; it closes the first piece and belongs to it.",
        pair(
            segments=lambda first, second: (
                [0] * (len(first) - 1) + [1] * (len(second) + 1) if second else [0] * len(first)
            )
        ),
        counted,
    )
    yield (
        "The first [SEP] has segment 1, even where no second piece follows.",
        pair(segments=lambda first, second: [0] * (len(first) - 1) + [1] * (len(second) + 1)),
        counted,
    )
    yield (
        "All segment ids are 0.",
        pair(segments=lambda first, second: [0] * (len(first) + len(second))),
        counted,
    )
    yield (
        "The segments are 1 and 2; they are 0 and 1.",
        pair(segments=lambda first, second: [1] * len(first) + [2] * len(second)),
        counted,
    )
    yield (
        "The segments are the wrong way round: the first piece has 1, the second 0.",
        pair(segments=lambda first, second: [1] * len(first) + [0] * len(second)),
        counted,
    )
    yield (
        "The last [SEP] has segment 0; it closes the second piece and belongs to it.",
        pair(
            segments=lambda first, second: (
                [0] * len(first) + [1] * (len(second) - 1) + [0] * bool(second)
            )
        ),
        counted,
    )
    yield (
        "Special tokens have no segment id, so that there are fewer segment ids than tokens.",
        pair(segments=lambda first, second: [0] * (len(first) - 2) + [1] * max(len(second) - 1, 0)),
        counted,
    )
    yield (
        "There is one segment id too few: [CLS] has none.",
        pair(segments=lambda first, second: [0] * (len(first) - 1) + [1] * len(second)),
        counted,
    )
    yield (
        "There is one segment id too few: the last [SEP] has none.",
        pair(segments=lambda first, second: [0] * len(first) + [1] * max(len(second) - 1, 0)),
        counted,
    )
    yield (
        "There is one segment id too few: the first [SEP] has none.",
        pair(
            segments=lambda first, second: (
                [0] * (len(first) - 1) + [1] * len(second) if second else [0] * len(first)
            )
        ),
        counted,
    )
    for special in (2, 3):
        yield (
            "Special tokens have a segment of their own; they belong to the piece that they open "
            "or close.",
            pair(
                segments=lambda first, second, special=special: (
                    [special, *([0] * (len(first) - 2)), special]
                    + ([1] * (len(second) - 1) + [special] if second else [])
                )
            ),
            counted,
        )

    def to_the_separator(a, b, cls_id, sep_id):
        tokens, _ = pair()(a, b, cls_id, sep_id)
        end = tokens.index(sep_id) + 1
        return tokens, [0] * end + [1] * (len(tokens) - end)

    yield (
        "The end of the first piece is looked for by sep_id, which may stand in the piece itself.",
        to_the_separator,
        "Count the tokens: the first segment has len(a) + 2.",
    )
    yield (
        "An empty second piece is taken for none: its [SEP] is lost.",
        pair(missing=lambda b: not b),
        "Ask `b is None`: an empty list is false too.",
    )
    yield (
        "Without a second piece there is a second [SEP] all the same.",
        pair(missing=lambda b: False, second=lambda b, cls_id, sep_id: [*(b or []), sep_id]),
        "Where b is None: [cls_id, *a, sep_id] and nothing more.",
    )
    for first, last in ((1, 2), (101, 102)):
        yield (
            "The ids of [CLS] and [SEP] are fixed; cls_id and sep_id are not used.",
            lambda a, b, cls_id, sep_id, first=first, last=last: pair()(a, b, first, last),
            "Use cls_id and sep_id.",
        )
    yield (
        "The results come in the wrong order: token_ids first, then segment_ids.",
        pair(give=lambda tokens, segments: (segments, tokens)),
        "return token_ids, segment_ids.",
    )

    def append_to_both(a, b, cls_id, sep_id):
        a.insert(0, cls_id)
        a.append(sep_id)
        if b is not None:
            b.append(sep_id)
        return a + (b or []), [0] * len(a) + [1] * len(b or [])

    def append_to_second(a, b, cls_id, sep_id):
        if b is not None:
            b.append(sep_id)
        first = [cls_id, *a, sep_id]
        return first + (b or []), [0] * len(first) + [1] * len(b or [])

    def extend_first(a, b, cls_id, sep_id):
        tokens = a
        tokens.insert(0, cls_id)
        tokens.append(sep_id)
        segments = [0] * len(tokens)
        if b is not None:
            second = [*b, sep_id]
            segments += [1] * len(second)
            tokens += second
        return tokens, segments

    def append_to_first(a, b, cls_id, sep_id):
        a.append(sep_id)
        second = [] if b is None else [*b, sep_id]
        return [cls_id, *a, *second], [0] * (len(a) + 1) + [1] * len(second)

    for pack in (append_to_both, append_to_second, extend_first, append_to_first):
        yield (
            "A list of the caller is changed.",
            pack,
            "append, insert, extend and += change the list itself; [cls_id, *a, sep_id] makes a "
            "new one.",
        )


# ---- embeddings ----------------------------------------------------------------------------


def embeddings_parameters(vocab_size, d_model, max_length=512, num_segments=2, dropout=0.1):
    """The parameters of the embeddings: three tables and a norm."""
    return {
        "token.weight": (vocab_size, d_model),
        "position.weight": (max_length, d_model),
        "segment.weight": (num_segments, d_model),
        "norm.weight": (d_model,),
        "norm.bias": (d_model,),
    }


embeddings = Exercise(
    "bert/BertEmbeddings",
    points=3,
    signature="BertEmbeddings(vocab_size, d_model, max_length=512, num_segments=2, dropout=0.1), "
    "forward(token_ids, segment_ids=None)",
    returns=[Returned("output", "(batch, length, d_model)")],
    parameters=embeddings_parameters,
)

WORDS = 13  # the ids that the cases use lie below


def embedder(embeddings, make, max_length=8, num_segments=2, dropout=0.0, dtype=torch.float32):
    """Embeddings of 13 words and width 6."""
    sizes = WORDS, 6, max_length, num_segments, dropout
    return make.module(embeddings, *sizes, dtype=dtype)


@embeddings.case(
    "the number of parameters",
    weight=0.5,
    next_step="Three tables and one norm, which has weight and bias; nothing else.",
)
def _(embeddings, make):
    embed = embeddings(WORDS, 6, 8, 2, 0.0)
    return {
        "numbers in all parameters": numbers(embed),
        "shape of the output": str(tuple(embed(make.integers(0, WORDS, 2, 4)).shape)),
    }


@embeddings.case(
    "without segment ids",
    next_step="norm(token + position + segment), where every token has segment 0: its row of the "
    "table is added too.",
)
def _(embeddings, make):
    embed = embedder(embeddings, make)
    return {"output": embed(make.integers(0, WORDS, 2, 5))}


@embeddings.case(
    "with segment ids",
    next_step="norm(token + position + segment): self.segment(segment_ids) is the third vector.",
)
def _(embeddings, make):
    embed = embedder(embeddings, make)
    segments = make.tensor([[0, 0, 0, 1, 1], [0, 1, 1, 1, 1], [1, 0, 1, 0, 0]])
    return {"output": embed(make.integers(0, WORDS, 3, 5), segments)}


@embeddings.case(
    "no segment ids, and segment ids that are all 0 or all 1",
    next_step="segment_ids None means all 0: torch.zeros_like(token_ids).",
)
def _(embeddings, make):
    embed = embedder(embeddings, make)
    ids = make.integers(0, WORDS, 2, 4)
    zeros = torch.zeros_like(ids)
    return {
        "None is the same as zeros": bool((embed(ids) - embed(ids, zeros)).abs().max() < 1e-5),
        "output with ones": embed(ids, zeros + 1),
    }


@embeddings.case(
    "the same word everywhere",
    next_step="Positions count from 0 along the sequence, and are the same for every sequence of "
    "the batch.",
)
def _(embeddings, make):
    embed = embedder(embeddings, make)
    return {"output": embed(torch.full((4, 4), 7))}


@embeddings.case(
    "a batch of one, a sequence of one, and all positions",
    next_step="Keep axes of length 1, and take the length from token_ids in every call.",
)
def _(embeddings, make):
    embed = embedder(embeddings, make, max_length=4)
    return {
        "output of one word": embed(make.integers(0, WORDS, 1, 1)),
        "output of four": embed(make.integers(0, WORDS, 1, 4), make.integers(0, 2, 1, 4)),
        "output of one word in three sequences": embed(make.integers(0, WORDS, 3, 1)),
    }


@embeddings.case(
    "three segments",
    weight=0.5,
    next_step="The segment table has num_segments rows.",
)
def _(embeddings, make):
    embed = embedder(embeddings, make, num_segments=3)
    return {"output": embed(make.integers(0, WORDS, 2, 3), make.tensor([[0, 1, 2], [2, 2, 0]]))}


def refusal(call, *arguments):
    """The name of the error that a call raises, and the numbers in its text."""
    try:
        call(*arguments)
    except Complaint:
        raise
    except Exception as error:
        return type(error).__name__, set(re.findall(r"\d+", str(error)))
    return "nothing", set()


@embeddings.case(
    "a sequence that is too long",
    next_step="Compare the length with max_length before you look anything up, and raise a "
    "ValueError whose text has both numbers.",
)
def _(embeddings, make):
    embed = embedder(embeddings, make, max_length=11)
    at_the_limit, _ = refusal(embed, make.integers(0, WORDS, 2, 11))
    one_more, _ = refusal(embed, make.integers(0, WORDS, 2, 12))
    longer, found = refusal(embed, make.integers(0, WORDS, 1, 37))
    return {
        "error for 11 tokens and 11 positions": at_the_limit,
        "error for 12 tokens and 11 positions": one_more,
        "error for 37 tokens and 11 positions": longer,
        "its text has both numbers": {"37", "11"} <= found,
    }


@embeddings.case(
    "sums as small as the root of eps",
    next_step="self.norm = nn.LayerNorm(d_model, eps=1e-12). PyTorch's own default is 1e-5.",
)
def _(embeddings, make):
    embed = embedder(embeddings, make, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in own_parameters(embed).items():
            if not name.startswith("norm"):
                parameter.mul_(1e-6)
    return {"output": embed(make.integers(0, WORDS, 1, 4))}


@embeddings.case(
    "dropout in evaluation mode",
    weight=0.5,
    next_step="Make dropout an nn.Dropout in __init__, which eval() switches off.",
)
def _(embeddings, make):
    embed = embedder(embeddings, make, dropout=1.0)
    embed.component.eval()
    return {"output": embed(make.integers(0, WORDS, 1, 4), make.integers(0, 2, 1, 4))}


@embeddings.case(
    "dropout in training mode",
    next_step="Dropout comes last, after the norm: return self.dropout(self.norm(x)).",
)
def _(embeddings, make):
    everything = embedder(embeddings, make, dropout=1.0)
    half = make.module(embeddings, WORDS, 32, 8, 2, 0.5)
    ids = make.integers(0, WORDS, 16, 8)
    found = half(ids)
    half.component.eval()
    # A number that is 0 before the norm's bias is none of those that dropout made 0.
    kept, doubled = found != 0, 2 * half(ids)
    return {
        "output where all is dropped": everything(make.integers(0, WORDS, 1, 3)),
        "about half of the numbers are 0": bool(0.4 < kept.float().mean() < 0.6),
        "the others are twice those of evaluation": bool(
            ((found - doubled)[kept].abs() < 1e-4).all()
        ),
        "numbers are dropped, not whole vectors": bool(
            (kept.any(dim=-1) & ~kept.all(dim=-1)).float().mean() > 0.9
        ),
    }


@embeddings.case(
    "the defaults: 512 positions, 2 segments, dropout 0.1",
    weight=0.5,
    next_step="max_length=512, num_segments=2, dropout=0.1.",
)
def _(embeddings, make):
    embed = embeddings(WORDS, 16)
    own = own_parameters(embed)
    rows = {
        f"rows of {name}": own[f"{name}.weight"].shape[0] if f"{name}.weight" in own else None
        for name in ("position", "segment")
    }
    dropped = (embed(make.integers(0, WORDS, 4, 128)) == 0).float().mean()
    return rows | {"about a tenth of the numbers is dropped": bool(0.06 < dropped < 0.14)}


@embeddings.case(
    "gradients of the tables and of the norm",
    next_step="Look the vectors up with the tables themselves, self.token(token_ids): .data, "
    ".detach() and torch.no_grad() keep them from learning.",
)
def _(embeddings, make):
    embed = embedder(embeddings, make, max_length=5)
    own = own_parameters(embed)
    ids, segments = make.integers(1, WORDS, 2, 4), make.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    output = embed(ids, segments)
    tensors = {name: own[name] for name in embeddings.exercise.parameters(WORDS, 6)}
    return reached(make, "output", output, tensors, ("token.weight", "norm.weight"))


@embeddings.case(
    "float64, bfloat16, and ids that are views",
    next_step="The output has the dtype of the tables; make no new tensor of another one. "
    "token_ids and segment_ids stay as they are.",
)
def _(embeddings, make):
    embed = embedder(embeddings, make, dtype=torch.float64)
    ids, segments = make.integers(0, WORDS, 5, 2), make.integers(0, 2, 5, 4)
    short = embedder(embeddings, make, dtype=torch.bfloat16)
    told = in_both_precisions(short, ids.T)
    return {
        "output": embed(ids.T, segments.T[::2]),
        **{f"{name} of bfloat16": value for name, value in told.items()},
        "the inputs are unchanged": make.unchanged(),
    }


@embeddings.case("other sizes", hidden=True)
def _(embeddings, make):
    embed = make.module(embeddings, 29, 5, 9, 4, 0.0)
    return {"output": embed(make.integers(0, 29, 3, 7), make.integers(0, 4, 3, 7))}


@embeddings.misconceptions
def _():
    """Embeddings with one thing wrong at a time."""

    class Always(nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.p = rate

        def forward(self, x):
            return nn.functional.dropout(x, self.p)

    def guarded(length, limit):
        if length > limit:
            raise ValueError(f"{length} tokens, but {limit} positions")

    class Right(nn.Module):
        def __init__(self, vocab_size, d_model, max_length=512, num_segments=2, dropout=0.1):
            super().__init__()
            self.create(vocab_size, d_model, max_length, num_segments)
            self.dropout = self.drop(dropout)

        drop = nn.Dropout
        eps = 1e-12

        def create(self, vocab_size, d_model, max_length, num_segments):
            self.token = nn.Embedding(vocab_size, d_model)
            self.position = nn.Embedding(max_length, d_model)
            self.segment = nn.Embedding(num_segments, d_model)
            self.norm = nn.LayerNorm(d_model, eps=self.eps)

        def guard(self, length):
            guarded(length, self.position.num_embeddings)

        def tokens(self, ids):
            return self.token(ids)

        def places(self, ids):
            return torch.arange(ids.size(1))

        def positions(self, ids):
            return self.position(self.places(ids))

        def segments(self, ids, segments):
            return self.segment(torch.zeros_like(ids) if segments is None else segments)

        def total(self, ids, segments):
            return self.tokens(ids) + self.positions(ids) + self.segments(ids, segments)

        def finish(self, x):
            return self.dropout(self.norm(x))

        def forward(self, token_ids, segment_ids=None):
            self.guard(token_ids.size(1))
            return self.finish(self.total(token_ids, segment_ids))

    def changed(**methods):
        return type("Changed", (Right,), methods)

    total = "self.token(token_ids) + self.position(positions) + self.segment(segment_ids)."

    # The three vectors.

    yield (
        "The token vectors are multiplied by the square root of d_model, as in chapter 4; BERT "
        "does not scale them.",
        changed(tokens=lambda self, ids: self.token(ids) * self.token.embedding_dim**0.5),
        total,
    )
    yield (
        "The sum is multiplied by the square root of d_model; nothing here is scaled. Behind a "
        "norm it hardly shows, but for eps.",
        changed(total=lambda self, *ids: Right.total(self, *ids) * self.token.embedding_dim**0.5),
        total,
    )
    yield (
        "The three vectors are averaged, not added. Behind a norm it hardly shows, but for eps.",
        changed(total=lambda self, *ids: Right.total(self, *ids) / 3),
        total,
    )
    yield (
        "No position is added, so the order of the tokens is lost.",
        changed(positions=lambda self, ids: 0.0),
        total,
    )
    yield (
        "No segment is added.",
        changed(segments=lambda self, ids, segments: 0.0),
        total,
    )
    yield (
        "The token vectors are missing from the sum.",
        changed(tokens=lambda self, ids: 0.0),
        total,
    )
    yield (
        "segment_ids is not used where it is given: every token gets segment 0.",
        changed(segments=lambda self, ids, segments: self.segment(torch.zeros_like(ids))),
        "Zeros are for segment_ids None alone.",
    )
    yield (
        "Without segment_ids no segment is added; None means segment 0, whose vector is added too.",
        changed(
            segments=lambda self, ids, segments: 0.0 if segments is None else self.segment(segments)
        ),
        "segment_ids = torch.zeros_like(token_ids) where it is None.",
    )
    yield (
        "Without segment_ids every token gets segment 1; None means 0.",
        changed(
            segments=lambda self, ids, segments: self.segment(
                torch.ones_like(ids) if segments is None else segments
            )
        ),
        "segment_ids = torch.zeros_like(token_ids) where it is None.",
    )
    yield (
        "The segments are the wrong way round: 0 gets the row of 1.",
        changed(
            segments=lambda self, ids, segments: self.segment(
                1 - (torch.zeros_like(ids) if segments is None else segments).clamp(max=1)
            )
        ),
        "self.segment(segment_ids), as they are given.",
    )
    yield (
        "Segment ids above 1 are cut down; there may be more than two segments.",
        changed(
            segments=lambda self, ids, segments: Right.segments(
                self, ids, None if segments is None else segments.clamp(max=1)
            )
        ),
        "self.segment(segment_ids), as they are given.",
    )
    for places in (
        lambda self, ids: (torch.arange(ids.size(1)) + 1) % self.position.num_embeddings,
        lambda self, ids: (torch.arange(ids.size(1)) + 1).clamp(
            max=self.position.num_embeddings - 1
        ),
    ):
        yield (
            "The positions count from 1; the first is 0.",
            changed(places=places),
            "torch.arange(length).",
        )
    yield (
        "The positions run along the batch, not along the sequence.",
        changed(
            positions=lambda self, ids: self.position(
                torch.arange(ids.size(0)) % self.position.num_embeddings
            )[:, None]
        ),
        "torch.arange(length), where length is token_ids.size(1).",
    )
    yield (
        "Every token gets the vector of position 0.",
        changed(places=lambda self, ids: torch.zeros(ids.size(1), dtype=torch.int64)),
        "torch.arange(length).",
    )
    yield (
        "The positions run backward.",
        changed(places=lambda self, ids: torch.arange(ids.size(1)).flip(0)),
        "torch.arange(length).",
    )
    yield (
        "The vector of a position is looked up by the token's id, not by its place.",
        changed(positions=lambda self, ids: self.position(ids % self.position.num_embeddings)),
        "self.position(torch.arange(length)).",
    )

    def restarted(self, ids, segments):
        given = torch.zeros_like(ids) if segments is None else segments
        places = torch.arange(ids.size(1)).expand(ids.shape)
        before = torch.stack([(given == s).cumsum(dim=1) for s in range(4)], dim=-1)
        places = before.gather(-1, given[..., None]).squeeze(-1) - 1
        return self.tokens(ids) + self.position(places) + self.segment(given)

    yield (
        "The positions begin anew with the second segment; they count through the whole sequence.",
        changed(total=restarted),
        "torch.arange(length), for every sequence the same.",
    )

    def sinusoids(self, ids):
        length, width = ids.size(1), self.position.embedding_dim
        rates = 10000.0 ** (-torch.arange(0, width, 2) / width)
        angles = torch.arange(length)[:, None] * rates
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]
        return table.to(self.token.weight.dtype)

    yield (
        "The positions are sinusoids; BERT learns them, in the table `position`.",
        changed(positions=sinusoids),
        "self.position(torch.arange(length)).",
    )
    yield (
        "The vectors are multiplied; they are added.",
        changed(
            total=lambda self, ids, segments: (
                self.tokens(ids) * self.positions(ids) * self.segments(ids, segments)
            )
        ),
        total,
    )

    # Norm and dropout.

    yield (
        "There is no norm.",
        changed(finish=lambda self, x: self.dropout(x)),
        "return self.dropout(self.norm(x)).",
    )
    yield (
        "Only the token vectors are normed; the norm belongs on the sum.",
        changed(
            tokens=lambda self, ids: self.norm(self.token(ids)),
            finish=lambda self, x: self.dropout(x),
        ),
        "Add the three vectors first, then norm the sum.",
    )
    yield (
        "The three vectors are normed one by one; the norm belongs on the sum.",
        changed(
            total=lambda self, ids, segments: (
                self.norm(self.tokens(ids))
                + self.norm(self.positions(ids))
                + self.norm(self.segments(ids, segments))
            ),
            finish=lambda self, x: self.dropout(x),
        ),
        "Add the three vectors first, then norm the sum.",
    )
    yield (
        "The segment is added after the norm.",
        changed(
            total=lambda self, ids, segments: (
                self.norm(self.tokens(ids) + self.positions(ids)) + self.segments(ids, segments)
            ),
            finish=lambda self, x: self.dropout(x),
        ),
        "Add the three vectors first, then norm the sum.",
    )
    yield (
        "The sum is normed twice.",
        changed(finish=lambda self, x: self.dropout(self.norm(self.norm(x)))),
        "return self.dropout(self.norm(x)).",
    )
    for eps in (1e-5, 1e-6, 1e-8, 0.0):
        yield (
            "The eps of the norm is not 1e-12. PyTorch's default is 1e-5.",
            changed(eps=eps),
            "nn.LayerNorm(d_model, eps=1e-12).",
        )
    yield (
        "Dropout acts before the norm, on the sum; it comes last.",
        changed(finish=lambda self, x: self.norm(self.dropout(x))),
        "return self.dropout(self.norm(x)).",
    )
    yield (
        "Dropout acts on the token vectors alone; it comes last, after the norm.",
        changed(
            tokens=lambda self, ids: self.dropout(self.token(ids)),
            finish=lambda self, x: self.norm(x),
        ),
        "return self.dropout(self.norm(x)).",
    )
    yield (
        "There is no dropout.",
        changed(finish=lambda self, x: self.norm(x)),
        "return self.dropout(self.norm(x)).",
    )
    yield (
        "The dropout rate is fixed; the one that is given is not used.",
        changed(drop=lambda self, rate: nn.Dropout(0.1)),
        "self.dropout = nn.Dropout(dropout).",
    )
    yield (
        "Dropout acts in evaluation mode too.",
        changed(drop=lambda self, rate: Always(rate)),
        "Use nn.Dropout, or F.dropout with training=self.training.",
    )

    # What is too long.

    both = "if length > max_length: raise ValueError(f'{length} tokens, {max_length} positions')."

    def cut(self, ids):
        length = min(ids.size(1), self.position.num_embeddings)
        return nn.functional.pad(self.position.weight[:length], (0, 0, 0, ids.size(1) - length))

    def asserted(self, length):
        assert length <= self.position.num_embeddings, f"{length} {self.position.num_embeddings}"

    def index(self, length):
        if length > self.position.num_embeddings:
            raise IndexError(f"{length} {self.position.num_embeddings}")

    def runtime(self, length):
        if length > self.position.num_embeddings:
            raise RuntimeError(f"{length} {self.position.num_embeddings}")

    def silent(self, length):
        if length > self.position.num_embeddings:
            raise ValueError("The sequence is too long.")

    def early(self, length):
        if length >= self.position.num_embeddings:
            raise ValueError(f"{length} {self.position.num_embeddings}")

    def late(self, length):
        if length > self.position.num_embeddings + 1:
            raise ValueError(f"{length} {self.position.num_embeddings}")

    yield (
        "A sequence that is too long is not refused with a ValueError: looking its positions up "
        "fails, with an error that says nothing of lengths.",
        changed(guard=lambda self, length: None),
        both,
    )
    for guard in (asserted, index, runtime):
        yield (
            "A sequence that is too long is refused with another error than ValueError.",
            changed(guard=guard),
            both,
        )
    for methods in (
        {"positions": cut},
        {"places": lambda self, ids: torch.arange(ids.size(1)) % self.position.num_embeddings},
    ):
        yield (
            "A sequence that is too long is not refused: it is cut, or positions are used more "
            "than once.",
            changed(guard=lambda self, length: None, **methods),
            both,
        )
    yield (
        "The text of the ValueError does not name both numbers, the length and max_length.",
        changed(guard=silent),
        both,
    )
    yield (
        "A sequence of exactly max_length tokens is refused; it fits.",
        changed(guard=early),
        "Refuse where length > max_length.",
    )
    yield (
        "A sequence of max_length + 1 tokens is not refused with a ValueError.",
        changed(guard=late),
        "Refuse where length > max_length.",
    )

    class OfOtherDefaults(Right):
        def __init__(self, vocab_size, d_model, max_length=1024, num_segments=2, dropout=0.1):
            super().__init__(vocab_size, d_model, max_length, num_segments, dropout)

    class WithoutDropout(Right):
        def __init__(self, vocab_size, d_model, max_length=512, num_segments=2, dropout=0.0):
            super().__init__(vocab_size, d_model, max_length, num_segments, dropout)

    for default in (OfOtherDefaults, WithoutDropout):
        yield (
            "A default is another than the exercise states.",
            default,
            "max_length=512, num_segments=2, dropout=0.1.",
        )

    def detached(name):
        def method(self, *arguments):
            return getattr(Right, name)(self, *arguments).detach()

        return {name: method}

    for name in ("tokens", "positions", "segments"):
        yield (
            "A table is cut off from the gradient, so it does not learn.",
            changed(**detached(name)),
            "Use self.token(...), self.position(...) and self.segment(...) as they come, without "
            ".detach() and .data.",
        )

    def no_negative(self, ids, segments=None):
        ids[ids == 0] = 1
        return Right.forward(self, ids, segments)

    def zero_in_place(self, ids, segments=None):
        return Right.forward(self, ids, segments if segments is None else segments.clamp_(max=0))

    for forward in (no_negative, zero_in_place):
        yield (
            "The ids that are given are changed in place.",
            changed(forward=forward),
            "Leave token_ids and segment_ids as they are.",
        )

    def further(self, *size):
        Right.create(self, *size)
        self.projection = nn.Linear(size[1], size[1])

    yield (
        "There are parameters that the exercise does not have.",
        changed(create=further, finish=lambda self, x: self.dropout(self.norm(x))),
        "Three tables and one norm, and nothing else.",
    )


# ---- the model -----------------------------------------------------------------------------


def layer_parameters(d_model, d_ff):
    """The parameters of one layer."""
    row = (d_model,)
    return attention_parameters("self_attn.", d_model) | {
        "w_1.weight": (d_ff, d_model),
        "w_1.bias": (d_ff,),
        "w_2.weight": (d_model, d_ff),
        "w_2.bias": row,
        "norm1.weight": row,
        "norm1.bias": row,
        "norm2.weight": row,
        "norm2.bias": row,
    }


def model_parameters(
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
    """The parameters of the model: embeddings, layers and pooler."""
    embedded = embeddings_parameters(vocab_size, d_model, max_length, num_segments)
    return (
        {f"embeddings.{name}": shape for name, shape in embedded.items()}
        | {
            f"layers.{i}.{name}": shape
            for i in range(num_layers)
            for name, shape in layer_parameters(d_model, d_ff).items()
        }
        | {"pooler.weight": (d_model, d_model), "pooler.bias": (d_model,)}
    )


bert = Exercise(
    "bert/BertModel",
    points=6,
    signature="BertModel(vocab_size, d_model=768, num_layers=12, num_heads=12, d_ff=3072, "
    "max_length=512, num_segments=2, dropout=0.1, pad_id=0), "
    "forward(token_ids, segment_ids=None)",
    returns=[
        Returned("hidden", "(batch, length, d_model)"),
        Returned("pooled", "(batch, d_model)"),
    ],
    # As for chapter 4's layers: the attention is chapter 2's, or one written as that is.
    without=["multi_head_attention", "_transformer_encoder_layer_fwd"],
    parameters=model_parameters,
)


def small(bert, make, num_layers=2, heads=2, dropout=0.0, pad_id=0, d_ff=9, dtype=torch.float32):
    """A model of 13 words, width 6 and eight positions."""
    return make.module(bert, WORDS, 6, num_layers, heads, d_ff, 8, 2, dropout, pad_id, dtype=dtype)


def words(make, *shape):
    """Token ids without padding, where padding is 0."""
    return make.integers(1, WORDS, *shape)


def both(module, *arguments):
    """The two results by name."""
    return dict(zip(("hidden", "pooled"), module(*arguments), strict=True))


def falls_silent(bert, make):
    """Whether about half of the sequences get nothing from a sublayer, for both of them.

    The model drops half of everything and has one layer with one hidden number; the embeddings
    are 0, and there is one key. A sublayer that drops inside then falls silent as a whole, or not
    at all; the dropout after it, on six numbers, seldom drops them all.
    """
    model = small(bert, make, num_layers=1, heads=1, dropout=0.5, d_ff=1)
    own, ids = own_parameters(model), words(make, 400, 1)
    last = {
        "the attention drops half of its weights": "layers.0.self_attn.w_o.weight",
        "the hidden number between w_1 and w_2 is dropped": "layers.0.w_2.weight",
    }
    kept = {name: own[name].detach().clone() for name in last.values()}
    with torch.no_grad():
        for name, parameter in own.items():
            if ".w_1." in name:
                parameter.fill_(float(name.endswith("bias")))
            elif name.startswith("embeddings.norm") or ".w_o." in name or ".w_2." in name:
                parameter.zero_()
        without, told = model(ids)[0], {}
        for what, name in last.items():
            own[name].copy_(kept[name])
            untouched = (model(ids)[0] - without).abs().amax(dim=(1, 2)) < 1e-6
            told[what] = bool(0.35 < untouched.float().mean() < 0.65)
            own[name].zero_()
    return told


@bert.case(
    "the number of parameters",
    weight=0.5,
    next_step="Three tables and a norm; in each layer self_attn, w_1, w_2, norm1 and norm2 of its "
    "own; and the pooler. Nothing else.",
)
def _(bert, make):
    two, three = (bert(WORDS, 6, layers, 2, 9, 8, 2, 0.0, 0) for layers in (2, 3))
    hidden, pooled = two(words(make, 2, 4))
    return {
        "numbers in all parameters": numbers(two),
        "numbers with one layer more": numbers(three),
        "shapes of the results": str((tuple(hidden.shape), tuple(pooled.shape))),
    }


@bert.case(
    "no layers at all: embeddings and pooler",
    next_step="hidden is what the embeddings give, and pooled is tanh(pooler(hidden[:, 0])).",
)
def _(bert, make):
    return both(small(bert, make, 0), words(make, 2, 3), make.tensor([[0, 0, 1], [0, 1, 1]]))


@bert.case(
    "one layer",
    next_step="x = norm1(x + self_attn(x, x, x)), then norm2(x + w_2(gelu(w_1(x)))).",
)
def _(bert, make):
    return both(small(bert, make, 1), words(make, 2, 4))


@bert.case(
    "three layers",
    next_step="hidden = layer(hidden, mask) for each of self.layers in turn.",
)
def _(bert, make):
    return {"hidden": small(bert, make, 3)(words(make, 1, 4))[0]}


@bert.case(
    "without segment ids, and with them",
    next_step="Hand segment_ids on to the embeddings. None means that all are 0.",
)
def _(bert, make):
    model = small(bert, make, 1)
    ids, segments = words(make, 2, 3), make.tensor([[0, 1, 1], [0, 0, 1]])
    hidden = model(ids)[0]
    return {
        "hidden with segment ids": model(ids, segments)[0],
        "None is the same as zeros": bool(
            (model(ids, torch.zeros_like(ids))[0] - hidden).abs().max() < 1e-5
        ),
    }


@bert.case(
    "padding at the end",
    weight=2,
    next_step="mask = padding_mask(token_ids, self.pad_id), and every layer hands it on to its "
    "self_attn.",
)
def _(bert, make):
    model = small(bert, make)
    ids = words(make, 2, 4).clone()
    ids[1, 2:] = 0
    hidden, pooled = model(ids)
    longer = torch.cat([ids, torch.zeros(2, 3, dtype=torch.int64)], dim=1)
    more, pooled_more = model(longer)
    return {
        "hidden of the words": at_words(hidden, ids),
        "more padding changes hidden": bool(
            (at_words(more, longer) - at_words(hidden, ids)).abs().max() > 1e-4
        ),
        "more padding changes pooled": bool((pooled_more - pooled).abs().max() > 1e-4),
    }


@bert.case(
    "padding in the middle, and nearly everywhere",
    next_step="The mask follows from the ids, wherever the padding stands: token_ids != pad_id, "
    "for every key.",
)
def _(bert, make):
    model = small(bert, make)
    ids = words(make, 2, 5).clone()
    ids[0, 1:3], ids[1, 1:] = 0, 0
    # The same sizes once more: what the last batch had for padding is no longer of interest.
    other = ids.flip(0)
    return {
        "hidden of the words": at_words(model(ids)[0], ids),
        "hidden of the words, the sequences exchanged": at_words(model(other)[0], other),
    }


@bert.case(
    "another padding id, while 0 is a word",
    next_step="Keep pad_id in __init__, and pass it on to padding_mask.",
)
def _(bert, make):
    model = small(bert, make, pad_id=7)
    ids = make.integers(1, 7, 2, 4).clone()
    ids[:, 1], ids[1, 2:] = 0, 7
    return {"hidden of the words": at_words(model(ids)[0], ids, 7)}


@bert.case(
    "it reads both ways",
    next_step="There is no causal mask: every token may read those before it and those after it.",
)
def _(bert, make):
    model = small(bert, make, 1)
    ids = words(make, 2, 4)

    def change(place):
        other = ids.clone()
        other[:, place] = 1 + other[:, place] % (WORDS - 1)
        return (model(other)[0] - model(ids)[0]).abs().amax(dim=(0, 2))

    return {
        "all change with the last token": bool((change(3) > 1e-6).all()),
        "all change with the first token": bool((change(0) > 1e-6).all()),
        "shape of hidden": str(tuple(model(ids)[0].shape)),
    }


@bert.case(
    "one head, and as many heads as columns",
    next_step="Pass num_heads on to MultiHeadAttention.",
)
def _(bert, make):
    ids = words(make, 1, 3)
    return {
        "hidden with one head": small(bert, make, 1, heads=1)(ids)[0],
        "hidden with six heads": small(bert, make, 1, heads=6)(ids)[0],
    }


@bert.case(
    "a batch of one, a sequence of one",
    weight=0.5,
    next_step="Keep axes of length 1: no squeeze().",
)
def _(bert, make):
    hidden, pooled = small(bert, make, 1)(words(make, 1, 1))
    return {"shape of hidden": str(tuple(hidden.shape)), "pooled": pooled}


@bert.case(
    "all positions, and three segments",
    weight=0.5,
    next_step="Hand max_length and num_segments on to BertEmbeddings, in its order.",
)
def _(bert, make):
    model = make.module(bert, WORDS, 4, 1, 2, 5, 3, 3, 0.0, 0)
    return {"hidden": model(words(make, 1, 3), make.tensor([[0, 1, 2]]))[0]}


@bert.case(
    "float64, and ids that are views",
    weight=2,
    next_step="F.gelu(x) is the exact one; approximate='tanh' is not, and x * sigmoid(1.702 x) "
    "even less. Make no new tensor of another dtype.",
)
def _(bert, make):
    model = small(bert, make, 1, dtype=torch.float64)
    ids, segments = words(make, 3, 2), make.integers(0, 2, 3, 4)
    return both(model, ids.T, segments.T[::2]) | {"the inputs are unchanged": make.unchanged()}


@bert.case(
    "sums as small as the root of eps",
    next_step="All layer norms have eps=1e-12: that of the embeddings, norm1 and norm2. PyTorch's "
    "own default is 1e-5.",
)
def _(bert, make):
    model = small(bert, make, 1, dtype=torch.float64)
    scaled = ("embeddings.", ".w_o.", ".w_2.", ".norm1.")
    with torch.no_grad():
        for name, parameter in own_parameters(model).items():
            if any(part in name for part in scaled):
                parameter.mul_(1e-6)
    return {"hidden": model(words(make, 1, 3))[0]}


@bert.case(
    "dropout in evaluation mode",
    weight=0.5,
    next_step="Make each dropout an nn.Dropout in __init__, which eval() switches off.",
)
def _(bert, make):
    model = small(bert, make, 1, dropout=1.0)
    model.component.eval()
    return {"hidden": model(words(make, 1, 3))[0]}


@bert.case(
    "dropout of everything, in training mode",
    next_step="Dropout acts on the embeddings, and on what each of the two sublayers gives before "
    "it is added to x. Nothing is dropped of hidden and pooled themselves.",
)
def _(bert, make):
    bare, model = small(bert, make, 0, dropout=1.0), small(bert, make, 1, dropout=1.0)
    half, ids = make.module(bert, WORDS, 32, 0, 2, 4, 8, 2, 0.5, 0), words(make, 1, 2)
    zeros = (half(words(make, 16, 8))[0] == 0).float().mean()
    return {
        "half of the embeddings' numbers are 0 at rate 0.5": bool(0.4 < zeros < 0.6),
        "hidden without layers": bare(ids)[0],
        "hidden": model(ids)[0],
        "pooled": model(ids)[1],
    }


@bert.case(
    "dropout inside the sublayers",
    weight=0.5,
    next_step="MultiHeadAttention(d_model, num_heads, dropout) drops weights. Between w_1 and w_2 "
    "nothing is dropped.",
)
def _(bert, make):
    return falls_silent(bert, make)


@bert.case(
    "gradients of the parameters",
    next_step="The gradient must reach the tables, every layer and the pooler: no .detach(), no "
    ".data, no torch.no_grad().",
)
def _(bert, make):
    model = small(bert, make)
    own, ids = own_parameters(model), words(make, 2, 3)
    hidden, pooled = model(ids, make.tensor([[0, 1, 1], [0, 0, 1]]))
    tables = [f"embeddings.{table}.weight" for table in ("token", "position", "segment")]
    inside = [f"layers.{i}.{part}" for i in range(2) for part in ("w_1.bias", "norm1.weight")]
    values = {name: own[name] for name in [*tables, *inside]}
    shown = ("embeddings.segment.weight", "layers.0.norm1.weight")
    return reached(make, "hidden", hidden, values, shown) | reached(
        make, "pooled", pooled, values | {"pooler.bias": own["pooler.bias"]}, ("pooler.bias",)
    )


@bert.case(
    "the defaults are those of BERT base",
    weight=0.5,
    next_step="d_model=768, num_layers=12, num_heads=12, d_ff=3072, max_length=512, "
    "num_segments=2, dropout=0.1, pad_id=0.",
)
def _(bert, make):
    model = small(bert, make, 1)  # a class that only has the signature has no defaults
    wanted = list(inspect.signature(bert.component).parameters.values())[1:9]
    return {
        "shape of hidden of a small model": str(tuple(model(words(make, 1, 2))[0].shape)),
        "defaults, in order": ", ".join(str(argument.default) for argument in wanted),
    }


@bert.case(
    "bfloat16",
    weight=0.5,
    next_step="Both results have the dtype of the parameters.",
)
def _(bert, make):
    model = small(bert, make, 1, dtype=torch.bfloat16)
    ids = words(make, 2, 4).clone()
    ids[0, 3] = 0
    hidden, pooled = model(ids)
    return {
        "dtypes": f"{hidden.dtype}, {pooled.dtype}",
        "shapes": str((tuple(hidden.shape), tuple(pooled.shape))),
        "all numbers are finite": bool(hidden[ids != 0].isfinite().all() & pooled.isfinite().all()),
    }


@bert.case("other sizes", hidden=True)
def _(bert, make):
    model = make.module(bert, 17, 8, 2, 4, 7, 6, 3, 0.0, 5)
    ids = make.integers(6, 17, 3, 5).clone()
    ids[0, 3:], ids[2, 1] = 5, 5
    hidden, pooled = model(ids, make.integers(0, 3, 3, 5))
    return {"hidden of the words": at_words(hidden, ids, 5), "pooled": pooled}


@bert.misconceptions
def _():
    """A model with one thing wrong at a time."""
    from workbook.ready.attention import causal_mask, padding_mask
    from workbook.ready.multi_head import MultiHeadAttention

    functional = nn.functional

    class Always(nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.p = rate

        def forward(self, x):
            return functional.dropout(x, self.p)

    class Embeddings(nn.Module):
        eps = 1e-12
        drop = nn.Dropout

        def __init__(self, vocab_size, d_model, max_length, num_segments, dropout):
            super().__init__()
            self.token = nn.Embedding(vocab_size, d_model)
            self.position = nn.Embedding(max_length, d_model)
            self.segment = nn.Embedding(num_segments, d_model)
            self.norm = nn.LayerNorm(d_model, eps=self.eps)
            self.dropout = self.drop(dropout)

        def tokens(self, ids):
            return self.token(ids)

        def positions(self, ids):
            return self.position(torch.arange(ids.size(1)))

        def segments(self, ids, segments):
            return self.segment(torch.zeros_like(ids) if segments is None else segments)

        def finish(self, x):
            return self.dropout(self.norm(x))

        def forward(self, ids, segments=None):
            return self.finish(
                self.tokens(ids) + self.positions(ids) + self.segments(ids, segments)
            )

    class Layer(nn.Module):
        eps = 1e-12
        drop = nn.Dropout
        inside = 1.0
        heads = staticmethod(lambda d_model, num_heads: num_heads)

        def __init__(self, d_model, num_heads, d_ff, dropout):
            super().__init__()
            heads = self.heads(d_model, num_heads)
            self.self_attn = MultiHeadAttention(d_model, heads, self.inside * dropout)
            self.w_1, self.w_2 = nn.Linear(d_model, d_ff), nn.Linear(d_ff, d_model)
            self.norm1 = nn.LayerNorm(d_model, eps=self.eps)
            self.norm2 = nn.LayerNorm(d_model, eps=self.eps)
            self.dropout = self.drop(dropout)
            self.created(d_model)

        def created(self, d_model):
            pass

        def read(self, x, mask):
            return self.self_attn(x, x, x, mask)[0]

        def active(self, x):
            return functional.gelu(x)

        def hidden(self, x):
            return self.active(self.w_1(x))

        def change(self, x):
            return self.w_2(self.hidden(x))

        def first(self, x, mask):
            return self.norm1(x + self.dropout(self.read(x, mask)))

        def second(self, x, y):
            return self.norm2(y + self.dropout(self.change(y)))

        def forward(self, x, mask):
            return self.second(x, self.first(x, mask))

    class Right(nn.Module):
        embeddings_class = Embeddings
        layer_class = Layer

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
            self.pad_id, self.sizes = pad_id, (d_model, num_heads, d_ff, dropout)
            self.embeddings = self.embeddings_class(
                vocab_size, d_model, max_length, num_segments, dropout
            )
            self.layers = nn.ModuleList(self.layer_class(*self.sizes) for _ in range(num_layers))
            self.pooler = nn.Linear(d_model, d_model)
            self.created()

        def created(self):
            pass

        def mask(self, ids):
            return padding_mask(ids, self.pad_id)

        def embed(self, ids, segments):
            return self.embeddings(ids, segments)

        def run(self, x, ids):
            for layer in self.layers:
                x = layer(x, self.mask(ids))
            return x

        def pool(self, hidden, embedded, ids):
            return torch.tanh(self.pooler(hidden[:, 0]))

        def give(self, hidden, pooled):
            return hidden, pooled

        def forward(self, token_ids, segment_ids=None):
            embedded = self.embed(token_ids, segment_ids)
            hidden = self.run(embedded, token_ids)
            return self.give(hidden, self.pool(hidden, embedded, token_ids))

    def changed(**methods):
        return type("Changed", (Right,), methods)

    def with_layer(**methods):
        return changed(layer_class=type("ChangedLayer", (Layer,), methods))

    def with_embeddings(**methods):
        return changed(embeddings_class=type("ChangedEmbeddings", (Embeddings,), methods))

    # The embeddings.

    summed = "norm(token + position + segment), then dropout, as in BertEmbeddings."
    for methods in (
        {"tokens": lambda self, ids: self.token(ids) * self.token.embedding_dim**0.5},
        {"finish": lambda self, x: self.dropout(self.norm(x)) * x.size(-1) ** 0.5},
    ):
        yield (
            "The embeddings are multiplied by the square root of d_model, as in chapter 4; BERT "
            "does not scale them.",
            with_embeddings(**methods),
            summed,
        )
    yield (
        "No positions are added, so the order of the tokens is lost.",
        with_embeddings(positions=lambda self, ids: 0.0),
        summed,
    )
    yield (
        "No segments are added.",
        with_embeddings(segments=lambda self, ids, segments: 0.0),
        summed,
    )
    yield (
        "segment_ids is not used where it is given: every token gets segment 0.",
        changed(embed=lambda self, ids, segments: self.embeddings(ids)),
        "self.embeddings(token_ids, segment_ids).",
    )
    yield (
        "Without segment_ids no segment is added; None means segment 0, whose vector is added too.",
        with_embeddings(
            segments=lambda self, ids, segments: 0.0 if segments is None else self.segment(segments)
        ),
        "segment_ids = torch.zeros_like(token_ids) where it is None.",
    )

    def positions_again(self, x, ids):
        for layer in self.layers:
            x = layer(x + self.embeddings.positions(ids), self.mask(ids))
        return x

    yield (
        "The positions are added again before every layer; they are added once, at the bottom.",
        changed(run=positions_again),
        "hidden = self.embeddings(token_ids, segment_ids), then layer by layer.",
    )
    yield (
        "The embeddings are not normed.",
        with_embeddings(finish=lambda self, x: self.dropout(x)),
        summed,
    )
    yield (
        "The embeddings are normed twice: they come normed from BertEmbeddings.",
        changed(
            embed=lambda self, ids, segments: functional.layer_norm(
                self.embeddings(ids, segments), self.pooler.weight.shape[:1], eps=1e-12
            )
        ),
        "hidden = self.embeddings(token_ids, segment_ids), as it is.",
    )

    # One layer.

    post = "x = norm1(x + dropout(self_attn(x, x, x, mask)[0])), then norm2(x + dropout(...))."
    yield (
        "This is pre-norm: each sublayer gets a normed x, and the sum is not normed. BERT norms "
        "after the addition.",
        with_layer(
            first=lambda self, x, mask: x + self.dropout(self.read(self.norm1(x), mask)),
            second=lambda self, x, y: y + self.dropout(self.change(self.norm2(y))),
        ),
        post,
    )
    yield (
        "What a sublayer gives is normed before it is added; the sum must be normed.",
        with_layer(
            first=lambda self, x, mask: x + self.norm1(self.dropout(self.read(x, mask))),
            second=lambda self, x, y: y + self.norm2(self.dropout(self.change(y))),
        ),
        post,
    )

    def first_alone(self, x, mask):
        return self.norm1(self.dropout(self.read(x, mask)))

    def second_alone(self, x, y):
        return self.norm2(self.dropout(self.change(y)))

    yield (
        "The first residual connection is missing: x is not added to what the attention gives.",
        with_layer(first=first_alone),
        post,
    )
    yield (
        "The second residual connection is missing: x is not added to what w_2 gives.",
        with_layer(second=second_alone),
        post,
    )
    yield (
        "Both residual connections are missing.",
        with_layer(first=first_alone, second=second_alone),
        post,
    )
    yield (
        "The second residual is taken from the layer's input, not from what norm1 gave.",
        with_layer(second=lambda self, x, y: self.norm2(x + self.dropout(self.change(y)))),
        "Write x = norm1(...) first, then use that x twice: norm2(x + w_2(gelu(w_1(x)))).",
    )
    yield (
        "The feed-forward part gets the layer's input, not what norm1 gave.",
        with_layer(second=lambda self, x, y: self.norm2(y + self.dropout(self.change(x)))),
        "Write x = norm1(...) first, then use that x twice: norm2(x + w_2(gelu(w_1(x)))).",
    )
    yield (
        "Attention and feed-forward part work side by side on the same x; the second must get what "
        "the first gave.",
        with_layer(
            first=lambda self, x, mask: x + self.dropout(self.read(x, mask)),
            second=lambda self, x, y: self.norm2(self.norm1(y + self.dropout(self.change(x)))),
        ),
        post,
    )
    yield (
        "The two norms change places: norm1 follows the attention, norm2 the feed-forward part.",
        with_layer(
            first=lambda self, x, mask: self.norm2(x + self.dropout(self.read(x, mask))),
            second=lambda self, x, y: self.norm1(y + self.dropout(self.change(y))),
        ),
        post,
    )
    yield (
        "norm1 is used for both sublayers, and norm2 never.",
        with_layer(second=lambda self, x, y: self.norm1(y + self.dropout(self.change(y)))),
        "Use self.norm2 after the feed-forward part.",
    )
    yield (
        "One norm serves both sublayers; each has a norm with parameters of its own.",
        with_layer(created=lambda self, d_model: setattr(self, "norm2", self.norm1)),
        "Create two: self.norm1 and self.norm2.",
    )

    def first_unnormed(self, x, mask):
        return x + self.dropout(self.read(x, mask))

    def second_unnormed(self, x, y):
        return y + self.dropout(self.change(y))

    yield (
        "norm1 is missing: the sum after the attention is not normed.",
        with_layer(first=first_unnormed),
        post,
    )
    yield (
        "norm2 is missing: the sum after the feed-forward part is not normed.",
        with_layer(second=second_unnormed),
        post,
    )
    yield (
        "Neither sum is normed.",
        with_layer(first=first_unnormed, second=second_unnormed),
        post,
    )
    yield (
        "The attention is left out.",
        with_layer(first=lambda self, x, mask: self.norm1(x)),
        post,
    )
    yield (
        "The feed-forward part is left out.",
        with_layer(second=lambda self, x, y: self.norm2(y)),
        post,
    )
    yield (
        "The feed-forward part comes first and the attention second.",
        with_layer(
            forward=lambda self, x, mask: Layer.first(
                self, self.norm2(x + self.dropout(self.change(x))), mask
            )
        ),
        post,
    )
    yield (
        "The feed-forward part comes first and the attention second.",
        with_layer(
            forward=lambda self, x, mask: (
                lambda y: self.norm2(y + self.dropout(self.read(y, mask)))
            )(self.norm1(x + self.dropout(self.change(x))))
        ),
        post,
    )

    # GELU.

    exact = "F.gelu(self.w_1(x)): the exact one, without approximate='tanh'."
    yield (
        "GELU is the approximation by tanh, which GPT-2 has; BERT has the exact one.",
        with_layer(active=lambda self, x: functional.gelu(x, approximate="tanh")),
        exact,
    )
    yield (
        "GELU is the rough approximation x * sigmoid(1.702 x); BERT has the exact one.",
        with_layer(active=lambda self, x: x * torch.sigmoid(1.702 * x)),
        exact,
    )
    yield (
        "The nonlinearity is a ReLU, as in chapter 4; BERT has GELU.",
        with_layer(active=lambda self, x: torch.relu(x)),
        exact,
    )
    yield (
        "There is no nonlinearity between w_1 and w_2, so the two are one linear map.",
        with_layer(active=lambda self, x: x),
        exact,
    )
    for function in (torch.tanh, functional.silu):
        yield (
            "The nonlinearity is none that BERT has: it is GELU.",
            with_layer(active=lambda self, x, function=function: function(x)),
            exact,
        )
    yield (
        "GELU comes after w_2; it belongs between w_1 and w_2.",
        with_layer(change=lambda self, x: functional.gelu(self.w_2(self.w_1(x)))),
        "w_2(gelu(w_1(x))).",
    )

    # Norms.

    eps_step = "nn.LayerNorm(d_model, eps=1e-12), for the embeddings, norm1 and norm2."
    for eps in (1e-5, 1e-6):
        yield (
            "The eps of norm1 and norm2 is not 1e-12. PyTorch's default is 1e-5.",
            with_layer(eps=eps),
            eps_step,
        )
        yield (
            "The eps of the embeddings' norm is not 1e-12. PyTorch's default is 1e-5.",
            with_embeddings(eps=eps),
            eps_step,
        )
        yield (
            "No norm has the eps 1e-12. PyTorch's default is 1e-5.",
            changed(
                layer_class=type("ChangedLayer", (Layer,), {"eps": eps}),
                embeddings_class=type("ChangedEmbeddings", (Embeddings,), {"eps": eps}),
            ),
            eps_step,
        )

    # The mask.

    masked = "mask = padding_mask(token_ids, self.pad_id), handed to self_attn in every layer."
    yield (
        "Padding is not barred: the mask is not made, or does not reach self_attn.",
        changed(mask=lambda self, ids: None),
        masked,
    )
    yield (
        "There is a causal mask besides; BERT reads both ways, and bars padding alone.",
        changed(mask=lambda self, ids: padding_mask(ids, self.pad_id) & causal_mask(ids.size(1))),
        masked,
    )
    yield (
        "There is a causal mask in place of the padding mask; BERT reads both ways, and bars "
        "padding.",
        changed(mask=lambda self, ids: causal_mask(ids.size(1))),
        masked,
    )
    yield (
        "The mask is inverted: only padding may be attended to. True means may attend.",
        changed(mask=lambda self, ids: ~padding_mask(ids, self.pad_id)),
        masked,
    )
    yield (
        "Padding is barred as a query; it must be barred as a key.",
        changed(
            mask=lambda self, ids: (ids != self.pad_id)[:, :, None].expand(-1, -1, ids.size(1))
        ),
        masked,
    )
    yield (
        "Only the entries between padding and padding are barred; a padded key must be barred for "
        "every query.",
        changed(
            mask=lambda self, ids: (ids != self.pad_id)[:, None] | (ids != self.pad_id)[:, :, None]
        ),
        masked,
    )
    yield (
        "The padding is taken to be 0, whatever pad_id is.",
        changed(mask=lambda self, ids: padding_mask(ids, 0)),
        "Keep pad_id in __init__ (self.pad_id = pad_id), and pass it on to padding_mask.",
    )
    yield (
        "Padding is looked for at the end alone: the mask follows from the number of words, not "
        "from the ids.",
        changed(
            mask=lambda self, ids: (
                torch.arange(ids.size(1)) < (ids != self.pad_id).sum(dim=1, keepdim=True)
            )[:, None]
        ),
        masked,
    )
    for which, has_mask in (
        ("the first layer", lambda index, count: index == 0),
        ("the last layer", lambda index, count: index == count - 1),
    ):

        def run(self, x, ids, has_mask=has_mask):
            for index, layer in enumerate(self.layers):
                x = layer(x, self.mask(ids) if has_mask(index, len(self.layers)) else None)
            return x

        yield (
            f"Only {which} bars padding; every layer must.",
            changed(run=run),
            masked,
        )
    yield (
        "The vectors of padding are set to 0, but their keys are not barred.",
        changed(
            mask=lambda self, ids: None,
            embed=lambda self, ids, segments: (
                self.embeddings(ids, segments) * (ids != self.pad_id)[..., None]
            ),
        ),
        masked,
    )

    # The stack.

    turn = "for layer in self.layers: hidden = layer(hidden, mask)."

    def from_the_bottom(self, x, ids):
        hidden = x
        for layer in self.layers:
            hidden = layer(x, self.mask(ids))
        return hidden

    yield (
        "Every layer starts from the embeddings, so that only the last one counts.",
        changed(run=from_the_bottom),
        turn,
    )

    def backward(self, x, ids):
        for layer in reversed(self.layers):
            x = layer(x, self.mask(ids))
        return x

    yield (
        "The layers are gone through in reverse.",
        changed(run=backward),
        turn,
    )

    def first_layer_only(self, x, ids):
        return self.layers[0](x, self.mask(ids)) if len(self.layers) else x

    def first_again(self, x, ids):
        for _ in self.layers:
            x = self.layers[0](x, self.mask(ids))
        return x

    def but_the_last(self, x, ids):
        for layer in self.layers[:-1]:
            x = layer(x, self.mask(ids))
        return x

    yield (
        "Only the first layer is used.",
        changed(run=first_layer_only),
        turn,
    )
    yield (
        "The first layer is used again and again, and the others never.",
        changed(run=first_again),
        turn,
    )
    yield (
        "The last layer is left out.",
        changed(run=but_the_last),
        turn,
    )

    def shared(self):
        self.layers = nn.ModuleList([self.layers[0]] * len(self.layers) if len(self.layers) else [])

    yield (
        "One layer is used num_layers times, with the same parameters: [layer] * num_layers "
        "repeats the one object.",
        changed(created=shared),
        "Create each layer anew: nn.ModuleList(BertLayer(...) for _ in range(num_layers)).",
    )

    def in_a_list(self):
        layers = list(self.layers)
        del self.layers
        self.layers = layers

    yield (
        "The layers are in a Python list, which hides their parameters from PyTorch; they belong "
        "in an nn.ModuleList.",
        changed(created=in_a_list),
        "self.layers = nn.ModuleList(BertLayer(...) for _ in range(num_layers)).",
    )

    def one_more(self):
        self.layers.append(Layer(*self.sizes))

    yield (
        "There is one layer too many.",
        changed(created=one_more),
        "nn.ModuleList(BertLayer(...) for _ in range(num_layers)).",
    )
    yield (
        "A further norm stands after the last layer. Post-norm layers end with one; only pre-norm "
        "needs another.",
        changed(
            run=lambda self, x, ids: functional.layer_norm(
                Right.run(self, x, ids), x.shape[-1:], eps=1e-12
            )
        ),
        turn,
    )
    yield (
        "hidden holds the embeddings; it is the output of the last layer.",
        changed(
            forward=lambda self, ids, segments=None: (
                self.embed(ids, segments),
                Right.forward(self, ids, segments)[1],
            )
        ),
        "return hidden, pooled, after all layers.",
    )
    for fixed in (
        lambda d_model, num_heads: 1,
        lambda d_model, num_heads: 2,
        lambda d_model, num_heads: d_model,
    ):
        yield (
            "The number of heads is fixed; num_heads is not passed on to the attention.",
            with_layer(heads=staticmethod(fixed)),
            "MultiHeadAttention(d_model, num_heads, dropout).",
        )

    # The pooler.

    pooled = "pooled = torch.tanh(self.pooler(hidden[:, 0]))."

    def pooling(pool):
        return changed(pool=pool)

    yield (
        "The tanh is missing: pooled is linear.",
        pooling(lambda self, hidden, embedded, ids: self.pooler(hidden[:, 0])),
        pooled,
    )
    for function in (torch.relu, functional.gelu, torch.sigmoid):
        yield (
            "The pooler ends with another function than tanh.",
            pooling(
                lambda self, hidden, embedded, ids, function=function: function(
                    self.pooler(hidden[:, 0])
                )
            ),
            pooled,
        )

    def mean_of_words(hidden, ids, pad_id):
        words = (ids != pad_id)[..., None].to(hidden.dtype)
        return (hidden * words).sum(dim=1) / words.sum(dim=1)

    for pool in (
        lambda self, hidden, embedded, ids: torch.tanh(self.pooler(hidden.mean(dim=1))),
        lambda self, hidden, embedded, ids: torch.tanh(
            self.pooler(mean_of_words(hidden, ids, self.pad_id))
        ),
        lambda self, hidden, embedded, ids: torch.tanh(self.pooler(hidden)).mean(dim=1),
    ):
        yield (
            "pooled is a mean over the positions; it is taken from the first one.",
            pooling(pool),
            pooled,
        )
    yield (
        "pooled is the maximum over the positions; it is taken from the first one.",
        pooling(lambda self, hidden, embedded, ids: torch.tanh(self.pooler(hidden.amax(dim=1)))),
        pooled,
    )
    yield (
        "pooled is taken from the last position; it is the first one, where [CLS] stands.",
        pooling(lambda self, hidden, embedded, ids: torch.tanh(self.pooler(hidden[:, -1]))),
        pooled,
    )
    yield (
        "pooled is taken from the embeddings; it comes from the output of the last layer.",
        pooling(lambda self, hidden, embedded, ids: torch.tanh(self.pooler(embedded[:, 0]))),
        pooled,
    )
    for pool in (
        lambda self, hidden, embedded, ids: torch.tanh(hidden[:, 0]),
        lambda self, hidden, embedded, ids: hidden[:, 0],
    ):
        yield (
            "The linear layer of the pooler is not used.",
            pooling(pool),
            pooled,
        )
    yield (
        "The tanh comes before the linear layer; it comes after it.",
        pooling(lambda self, hidden, embedded, ids: self.pooler(torch.tanh(hidden[:, 0]))),
        pooled,
    )
    yield (
        "There is dropout on pooled.",
        changed(
            created=lambda self: setattr(self, "further", nn.Dropout(self.sizes[3])),
            pool=lambda self, *given: self.further(Right.pool(self, *given)),
        ),
        pooled,
    )
    yield (
        "pooled is cut off from the gradient, so the layers below the pooler do not learn from it.",
        pooling(lambda self, hidden, embedded, ids: torch.tanh(self.pooler(hidden[:, 0].detach()))),
        pooled,
    )
    yield (
        "The results come in the wrong order: hidden first, then pooled.",
        changed(give=lambda self, hidden, pooled: (pooled, hidden)),
        "return hidden, pooled.",
    )

    # Dropout.

    dropped = "x = norm1(x + dropout(self_attn(x, x, x, mask)[0])), then norm2(x + dropout(...))."
    yield (
        "There is no dropout on what the attention gives, before x is added.",
        with_layer(first=lambda self, x, mask: self.norm1(x + self.read(x, mask))),
        dropped,
    )
    yield (
        "There is no dropout on what w_2 gives, before x is added.",
        with_layer(second=lambda self, x, y: self.norm2(y + self.change(y))),
        dropped,
    )
    yield (
        "There is no dropout on what either sublayer gives, before x is added.",
        with_layer(
            first=lambda self, x, mask: self.norm1(x + self.read(x, mask)),
            second=lambda self, x, y: self.norm2(y + self.change(y)),
        ),
        dropped,
    )
    yield (
        "The dropout rate is not passed on to the attention.",
        with_layer(inside=0.0),
        "MultiHeadAttention(d_model, num_heads, dropout).",
    )
    yield (
        "The dropout rate is not passed on to the embeddings.",
        with_embeddings(drop=staticmethod(lambda rate: nn.Dropout(0.0))),
        "BertEmbeddings(vocab_size, d_model, max_length, num_segments, dropout).",
    )
    nowhere = {"drop": staticmethod(lambda rate: nn.Dropout(0.0)), "inside": 0.0}
    yield (
        "The dropout rate is not passed on to the layers.",
        with_layer(**nowhere),
        "BertLayer(d_model, num_heads, d_ff, dropout).",
    )
    yield (
        "There is no dropout anywhere.",
        changed(
            layer_class=type("ChangedLayer", (Layer,), nowhere),
            embeddings_class=type("ChangedEmbeddings", (Embeddings,), {"drop": nowhere["drop"]}),
        ),
        "The embeddings, the layers and the attention inside get the rate.",
    )
    yield (
        "The hidden numbers between w_1 and w_2 are dropped, as in chapter 4; BERT drops what w_2 "
        "gives, and nothing inside.",
        with_layer(hidden=lambda self, x: self.dropout(functional.gelu(self.w_1(x)))),
        "norm2(x + dropout(w_2(gelu(w_1(x))))).",
    )
    yield (
        "The hidden numbers between w_1 and w_2 are dropped in place of what w_2 gives.",
        with_layer(
            second=lambda self, x, y: self.norm2(
                y + self.w_2(self.dropout(functional.gelu(self.w_1(y))))
            )
        ),
        "norm2(x + dropout(w_2(gelu(w_1(x))))).",
    )
    yield (
        "Dropout acts on the sum, so x itself is dropped; it belongs on what the sublayer gives.",
        with_layer(
            first=lambda self, x, mask: self.norm1(self.dropout(x + self.read(x, mask))),
            second=lambda self, x, y: self.norm2(self.dropout(y + self.change(y))),
        ),
        dropped,
    )
    yield (
        "Dropout acts after the norm; it belongs on what the sublayer gives, before the sum.",
        with_layer(
            first=lambda self, x, mask: self.dropout(self.norm1(x + self.read(x, mask))),
            second=lambda self, x, y: self.dropout(self.norm2(y + self.change(y))),
        ),
        dropped,
    )
    yield (
        "Dropout acts on the embeddings twice; BertEmbeddings ends with it already.",
        changed(
            created=lambda self: setattr(self, "further", nn.Dropout(self.sizes[3])),
            embed=lambda self, ids, segments: self.further(self.embeddings(ids, segments)),
        ),
        "hidden = self.embeddings(token_ids, segment_ids), as it is.",
    )
    yield (
        "Dropout acts on the embeddings' sum, before their norm; it comes last.",
        with_embeddings(finish=lambda self, x: self.norm(self.dropout(x))),
        "self.dropout(self.norm(x)) in BertEmbeddings.",
    )
    for where in (with_layer, with_embeddings):
        yield (
            "Dropout acts in evaluation mode too.",
            where(drop=Always),
            "Use nn.Dropout, or F.dropout with training=self.training.",
        )

    # The form.

    def defaults(**other):
        stated = {
            "d_model": 768,
            "num_layers": 12,
            "num_heads": 12,
            "d_ff": 3072,
            "max_length": 512,
            "num_segments": 2,
            "dropout": 0.1,
            "pad_id": 0,
        }

        class Other(Right):
            pass

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter("vocab_size", kind)] + [
            inspect.Parameter(name, kind, default=value) for name, value in (stated | other).items()
        ]
        Other.__signature__ = inspect.Signature(parameters)
        return Other

    for name, value in (("dropout", 0.0), ("d_ff", 2048), ("num_heads", 8)):
        yield (
            f"The default of {name} is not that of BERT base.",
            defaults(**{name: value}),
            "d_model=768, num_layers=12, num_heads=12, d_ff=3072, max_length=512, "
            "num_segments=2, dropout=0.1, pad_id=0.",
        )

    def second_pooler(self):
        self.further = nn.Linear(*self.pooler.weight.shape)

    yield (
        "There are parameters that the exercise does not have.",
        changed(created=second_pooler),
        "embeddings, layers and pooler; in a layer self_attn, w_1, w_2, norm1 and norm2.",
    )

    def further_norm(self):
        self.norm = nn.LayerNorm(self.sizes[0], eps=1e-12)

    yield (
        "A further norm stands after the last layer. Post-norm layers end with one; only pre-norm "
        "needs another.",
        changed(
            created=further_norm,
            run=lambda self, x, ids: self.norm(Right.run(self, x, ids)),
        ),
        turn,
    )
    for bias in ((False, True), (True, False), (False, False)):

        def without_bias(self, d_model, bias=bias):
            for name, has_bias in zip(("w_1", "w_2"), bias, strict=True):
                layer = getattr(self, name)
                setattr(self, name, nn.Linear(layer.in_features, layer.out_features, bias=has_bias))

        yield (
            "The layers w_1 and w_2 lack a bias; both have one.",
            with_layer(created=without_bias),
            "nn.Linear has a bias unless told otherwise: leave bias=False out.",
        )

    def pads_in_place(self, ids, segments):
        ids[ids == 2] = 1
        return self.embeddings(ids, segments)

    yield (
        "The ids that are given are changed in place.",
        changed(embed=pads_in_place),
        "Leave token_ids and segment_ids as they are.",
    )


# ---- the head of the masked language model -------------------------------------------------

language_head = Exercise(
    "bert/MaskedLanguageModelHead",
    points=3,
    signature="MaskedLanguageModelHead(d_model, vocab_size), forward(hidden, embedding)",
    returns=[Returned("logits", "(..., vocab_size)")],
    parameters=lambda d_model, vocab_size: {
        "dense.weight": (d_model, d_model),
        "dense.bias": (d_model,),
        "norm.weight": (d_model,),
        "norm.bias": (d_model,),
        "bias": (vocab_size,),
    },
)


@language_head.case(
    "the number of parameters, and the bias as it is created",
    weight=0.5,
    next_step="dense, norm and bias, and nothing else: the last map is the embedding's matrix. "
    "self.bias = nn.Parameter(torch.zeros(vocab_size)).",
)
def _(head_class, make):
    head = head_class(5, 7)
    bias = own_parameters(head).get("bias")
    logits = head(make.normal(2, 5), make.normal(7, 5))
    return {
        "numbers in all parameters": numbers(head),
        "the bias is a parameter that begins at 0": bias is not None and not bias.any(),
        "shape of the logits": str(tuple(logits.shape)),
    }


@language_head.case(
    "a batch of sequences",
    next_step="norm(gelu(dense(hidden))), times the embedding transposed, plus bias.",
)
def _(head_class, make):
    head = make.module(head_class, 6, 5)
    return {"logits": head(make.normal(2, 3, 6), make.normal(5, 6))}


@language_head.case(
    "as many words as columns",
    next_step="The rows of the embedding are the words' vectors: x @ embedding.T, not x @ "
    "embedding.",
)
def _(head_class, make):
    head = make.module(head_class, 4, 4)
    return {"logits": head(make.normal(4, 4), make.normal(4, 4))}


@language_head.case(
    "one vector, chosen positions, four axes, and none",
    next_step="x @ embedding.T + self.bias works for any number of leading axes.",
)
def _(head_class, make):
    head = make.module(head_class, 3, 4)
    embedding = make.normal(4, 3)
    return {
        "logits of one vector": head(make.normal(3), embedding),
        "logits of two positions": head(make.normal(2, 3), embedding),
        "logits of four axes": head(make.normal(1, 2, 2, 3), embedding),
        "logits of none": head(torch.zeros(0, 3), embedding),
    }


@language_head.case(
    "another embedding at the next call",
    next_step="Use the matrix that is handed in, at every call: keep no copy of it.",
)
def _(head_class, make):
    head, hidden = make.module(head_class, 4, 5), make.normal(2, 4)
    first = head(hidden, make.normal(5, 4))
    return {"logits": first, "logits with another": head(hidden, make.normal(5, 4))}


@language_head.case(
    "a bias that is large",
    weight=0.5,
    next_step="The bias is added last, one number for each word.",
)
def _(head_class, make):
    head = make.module(head_class, 4, 6)
    with torch.no_grad():
        own_parameters(head)["bias"].mul_(30.0)
    return {"logits": head(make.normal(2, 4), make.normal(6, 4))}


@language_head.case(
    "vectors as small as the root of eps",
    next_step="self.norm = nn.LayerNorm(d_model, eps=1e-12). PyTorch's own default is 1e-5.",
)
def _(head_class, make):
    head = make.module(head_class, 4, 5, dtype=torch.float64)
    with torch.no_grad():
        for name in ("dense.weight", "dense.bias"):
            own_parameters(head)[name].mul_(1e-6)
    double = {"dtype": torch.float64}
    return {"logits": head(make.normal(3, 4, **double), make.normal(5, 4, **double))}


@language_head.case(
    "float64, and inputs that are views",
    weight=2,
    next_step="F.gelu(x) is the exact one; approximate='tanh' is not. Change nothing in place that "
    "the caller owns.",
)
def _(head_class, make):
    head = make.module(head_class, 4, 5, dtype=torch.float64)
    hidden, embedding = make.normal(4, 3, dtype=torch.float64), make.normal(4, 5).double()
    batch = make.normal(3, 2, 4, dtype=torch.float64)
    return {
        "logits": head(make.watch(hidden).T, make.watch(embedding).T),
        "logits of a batch": head(make.watch(batch).transpose(0, 1), embedding.T),
        "the inputs are unchanged": make.unchanged(),
    }


@language_head.case(
    "gradients, of the embedding too",
    next_step="The gradient reaches hidden, the embedding and every parameter: no .detach(), no "
    ".data, no torch.no_grad().",
)
def _(head_class, make):
    head = make.module(head_class, 4, 5)
    hidden, embedding = make.normal(3, 4, grad=True), make.normal(5, 4, grad=True)
    own = own_parameters(head)
    logits = head(hidden, embedding)
    asked = {"hidden": hidden, "the embedding": embedding}
    asked |= {name: own[name] for name in ("dense.bias", "norm.weight", "bias")}
    return reached(make, "logits", logits, asked, ("hidden", "the embedding"))


@language_head.case("bfloat16", weight=0.5, next_step="Return the dtype of hidden.")
def _(head_class, make):
    head = make.module(head_class, 6, 5, dtype=torch.bfloat16)
    hidden, embedding = make.normal(2, 3, 6), make.normal(5, 6, scale=0.2)
    return in_both_precisions(head, hidden.bfloat16(), embedding.bfloat16())


@language_head.case("other sizes", hidden=True)
def _(head_class, make):
    head = make.module(head_class, 9, 14)
    return {"logits": head(make.normal(2, 4, 9, scale=2.0), make.normal(14, 9))}


@language_head.misconceptions
def _():
    """The head with one thing wrong at a time."""
    functional = nn.functional

    class Right(nn.Module):
        eps = 1e-12
        first_bias = 0.0

        def __init__(self, d_model, vocab_size):
            super().__init__()
            self.dense = nn.Linear(d_model, d_model)
            self.norm = nn.LayerNorm(d_model, eps=self.eps)
            self.bias = nn.Parameter(torch.full((vocab_size,), self.first_bias))
            self.created(d_model, vocab_size)

        def created(self, d_model, vocab_size):
            pass

        def active(self, x):
            return functional.gelu(x)

        def transform(self, hidden):
            return self.norm(self.active(self.dense(hidden)))

        def compare(self, x, embedding):
            return x @ embedding.T + self.bias

        def forward(self, hidden, embedding):
            return self.compare(self.transform(hidden), embedding)

    def changed(**methods):
        return type("Changed", (Right,), methods)

    whole = "norm(gelu(dense(hidden))) @ embedding.T + bias."

    def transformed(transform):
        return changed(transform=transform)

    yield (
        "GELU is the approximation by tanh, which GPT-2 has; BERT has the exact one.",
        changed(active=lambda self, x: functional.gelu(x, approximate="tanh")),
        "F.gelu(x), without approximate='tanh'.",
    )
    yield (
        "GELU is the rough approximation x * sigmoid(1.702 x); BERT has the exact one.",
        changed(active=lambda self, x: x * torch.sigmoid(1.702 * x)),
        "F.gelu(x).",
    )
    yield (
        "The nonlinearity is a ReLU; BERT has GELU.",
        changed(active=lambda self, x: torch.relu(x)),
        "F.gelu(x).",
    )
    for function in (torch.tanh, functional.silu, torch.sigmoid):
        yield (
            "The nonlinearity is none that BERT has: it is GELU.",
            changed(active=lambda self, x, function=function: function(x)),
            "F.gelu(x).",
        )
    yield (
        "There is no GELU.",
        changed(active=lambda self, x: x),
        whole,
    )
    yield (
        "There is no norm.",
        transformed(lambda self, hidden: self.active(self.dense(hidden))),
        whole,
    )
    yield (
        "GELU comes after the norm; the norm comes last.",
        transformed(lambda self, hidden: self.active(self.norm(self.dense(hidden)))),
        whole,
    )
    yield (
        "The norm comes first, before dense; it comes after GELU.",
        transformed(lambda self, hidden: self.active(self.dense(self.norm(hidden)))),
        whole,
    )
    yield (
        "GELU comes first, before dense; it comes after it.",
        transformed(lambda self, hidden: self.norm(self.dense(self.active(hidden)))),
        whole,
    )
    yield (
        "dense is left out.",
        transformed(lambda self, hidden: self.norm(self.active(hidden))),
        whole,
    )
    yield (
        "dense, GELU and norm are left out: the hidden vectors are compared as they come.",
        transformed(lambda self, hidden: hidden),
        whole,
    )
    for transform in (
        lambda self, hidden: hidden + Right.transform(self, hidden),
        lambda self, hidden: self.norm(hidden + self.active(self.dense(hidden))),
    ):
        yield (
            "hidden is added again: there is no residual connection in this head.",
            transformed(transform),
            whole,
        )
    yield (
        "The vector is normed twice.",
        transformed(lambda self, hidden: self.norm(Right.transform(self, hidden))),
        whole,
    )
    for eps in (1e-5, 1e-6, 1e-8, 0.0):
        yield (
            "The eps of the norm is not 1e-12. PyTorch's default is 1e-5.",
            changed(eps=eps),
            "nn.LayerNorm(d_model, eps=1e-12).",
        )

    yield (
        "The bias is not added.",
        changed(compare=lambda self, x, embedding: x @ embedding.T),
        whole,
    )
    yield (
        "The bias is subtracted.",
        changed(compare=lambda self, x, embedding: x @ embedding.T - self.bias),
        whole,
    )
    yield (
        "The embedding is not transposed: that fits where there are as many words as columns, and "
        "is wrong there.",
        changed(
            compare=lambda self, x, embedding: (
                x @ (embedding if embedding.size(0) == embedding.size(1) else embedding.T)
                + self.bias
            )
        ),
        "x @ embedding.T, or F.linear(x, embedding, bias).",
    )
    for scale in (
        lambda x: x.size(-1) ** -0.5,
        lambda x: x.size(-1) ** 0.5,
    ):
        yield (
            "The logits are scaled by the square root of d_model; nothing is scaled here.",
            changed(
                compare=lambda self, x, embedding, scale=scale: (
                    x @ embedding.T * scale(x) + self.bias
                )
            ),
            whole,
        )
    yield (
        "The vectors are normalized, so that the logits are cosines; they are dot products.",
        changed(
            compare=lambda self, x, embedding: (
                functional.normalize(x, dim=-1) @ functional.normalize(embedding, dim=-1).T
                + self.bias
            )
        ),
        whole,
    )
    for name, function in (
        ("log-probabilities", torch.log_softmax),
        ("probabilities", torch.softmax),
    ):
        yield (
            f"What comes back are {name}; the exercise asks for logits, and the loss makes "
            "probabilities of them.",
            changed(
                compare=lambda self, *given, function=function: function(
                    Right.compare(self, *given), -1
                )
            ),
            "Return the sum as it is.",
        )
    yield (
        "The logits are the token ids with the largest score, not the scores.",
        changed(
            compare=lambda self, *given: functional.one_hot(
                Right.compare(self, *given).argmax(dim=-1), self.bias.numel()
            ).to(self.bias.dtype)
        ),
        whole,
    )

    def decoder(bias):
        def created(self, d_model, vocab_size):
            self.decoder = nn.Linear(d_model, vocab_size, bias=bias)

        return created

    for bias in (True, False):
        yield (
            "The head has an output matrix of its own; the matrix of the embedding, which is "
            "handed in, serves.",
            changed(
                created=decoder(bias),
                compare=lambda self, x, embedding: self.decoder(x) + self.bias,
            ),
            whole,
        )
        yield (
            "The head has parameters that the exercise does not have.",
            changed(created=decoder(bias)),
            "dense, norm and bias, and nothing else.",
        )

    def remembered(self, x, embedding):
        if getattr(self, "kept", None) is None or self.kept.shape != embedding.shape:
            self.kept = embedding
        return x @ self.kept.T + self.bias

    yield (
        "The embedding of the first call is kept; each call hands in its own.",
        changed(compare=remembered),
        "Use the argument, and keep no copy.",
    )

    def second_bias(self, d_model, vocab_size):
        self.decoder_bias = nn.Parameter(torch.zeros(vocab_size))

    yield (
        "The head has parameters that the exercise does not have.",
        changed(created=second_bias),
        "dense, norm and bias, and nothing else.",
    )
    yield (
        "The embedding is cut off from the gradient, so it does not learn from this head.",
        changed(compare=lambda self, x, embedding: x @ embedding.detach().T + self.bias),
        "x @ embedding.T, without .detach() and .data.",
    )
    yield (
        "The bias is cut off from the gradient, so it does not learn.",
        changed(compare=lambda self, x, embedding: x @ embedding.T + self.bias.detach()),
        whole,
    )
    yield (
        "The bias does not begin at 0.",
        changed(first_bias=1.0),
        "self.bias = nn.Parameter(torch.zeros(vocab_size)).",
    )

    def plain_bias(self, d_model, vocab_size):
        del self.bias
        self.bias = torch.zeros(vocab_size)

    def buffer(self, d_model, vocab_size):
        del self.bias
        self.register_buffer("bias", torch.zeros(vocab_size))

    for created in (plain_bias, buffer):
        yield (
            "The bias is a plain tensor, not a parameter, so it does not learn.",
            changed(created=created),
            "self.bias = nn.Parameter(torch.zeros(vocab_size)).",
        )
    yield (
        "dense has no bias.",
        changed(
            created=lambda self, d_model, _: setattr(
                self, "dense", nn.Linear(d_model, d_model, bias=False)
            )
        ),
        "nn.Linear(d_model, d_model) has a bias unless told otherwise.",
    )

    def in_place(self, hidden, embedding):
        logits = Right.forward(self, hidden, embedding)
        embedding.data.div_(2.0)
        return logits

    yield (
        "What is handed in is changed in place.",
        changed(forward=in_place),
        "Make new tensors, and leave hidden and embedding as they are.",
    )


# ---- the head of next-sentence prediction --------------------------------------------------

next_head = Exercise(
    "bert/NextSentenceHead",
    points=1,
    signature="NextSentenceHead(d_model), forward(pooled)",
    returns=[Returned("logits", "(batch, 2)")],
    parameters=lambda d_model: {"classifier.weight": (2, d_model), "classifier.bias": (2,)},
)


@next_head.case(
    "the number of parameters",
    weight=0.5,
    next_step="One layer, self.classifier = nn.Linear(d_model, 2), and nothing else.",
)
def _(head_class, make):
    head = head_class(5)
    return {
        "numbers in all parameters": numbers(head),
        "shape of the logits": str(tuple(head(make.normal(3, 5)).shape)),
    }


@next_head.case("a batch", next_step="return self.classifier(pooled).")
def _(head_class, make):
    return {"logits": make.module(head_class, 6)(make.normal(4, 6))}


@next_head.case(
    "a batch of one, and of two",
    next_step="The logits are (batch, 2): keep axes of length 1, and use the last axis.",
)
def _(head_class, make):
    head = make.module(head_class, 2)
    return {
        "logits of one": head(make.normal(1, 2)),
        "logits of two": head(make.normal(2, 2)),
    }


@next_head.case(
    "large numbers",
    next_step="Nothing may saturate: no softmax, sigmoid or tanh. Cross-entropy wants logits.",
)
def _(head_class, make):
    head = make.module(head_class, 4)
    return {"logits": head(make.normal(3, 4, scale=20.0))}


@next_head.case(
    "in training mode, the same numbers twice",
    next_step="There is no dropout in this head, and it keeps nothing from call to call.",
)
def _(head_class, make):
    head, pooled = make.module(head_class, 8), make.normal(8, 8)
    head.component.train()
    first = head(pooled)
    return {
        "logits": first,
        "largest difference of the second call": (head(pooled) - first).abs().max(),
    }


@next_head.case(
    "gradients of pooled and of the parameters",
    next_step="No .detach(), .data or torch.no_grad() on the way.",
)
def _(head_class, make):
    head, pooled = make.module(head_class, 4), make.normal(3, 4, grad=True)
    asked = {"pooled": pooled} | {
        name: own_parameters(head)[name] for name in head_class.exercise.parameters(4)
    }
    logits = head(pooled)
    return reached(make, "logits", logits, asked, ("pooled", "classifier.weight"))


@next_head.case(
    "float64, bfloat16, and inputs that are views",
    next_step="Return the dtype of pooled, and leave it as it is.",
)
def _(head_class, make):
    head = make.module(head_class, 4, dtype=torch.float64)
    short = make.module(head_class, 6, dtype=torch.bfloat16)
    pooled = make.normal(4, 3, dtype=torch.float64)
    told = in_both_precisions(short, make.normal(3, 6, dtype=torch.bfloat16))
    return {
        "logits": head(pooled.T),
        **{f"{name} of bfloat16": value for name, value in told.items()},
        "the input is unchanged": make.unchanged(),
    }


@next_head.case("other sizes", hidden=True)
def _(head_class, make):
    return {"logits": make.module(head_class, 11)(make.normal(7, 11, scale=3.0))}


@next_head.misconceptions
def _():
    """The head with one thing wrong at a time."""
    functional = nn.functional

    def head(
        after=lambda logits: logits,
        before=lambda pooled: pooled,
        classes=2,
        created=lambda self, d_model: None,
    ):
        class Head(nn.Module):
            def __init__(self, d_model):
                super().__init__()
                self.classifier = nn.Linear(d_model, classes)
                created(self, d_model)

            def forward(self, pooled):
                return after(self.classifier(before(pooled)))

        return Head

    step = "return self.classifier(pooled)."
    for axis in (-1, 0):
        yield (
            "What comes back are probabilities; cross-entropy wants logits, and makes "
            "probabilities of them itself.",
            head(after=lambda logits, axis=axis: torch.softmax(logits, axis)),
            step,
        )
        yield (
            "What comes back are log-probabilities; the exercise asks for logits.",
            head(after=lambda logits, axis=axis: torch.log_softmax(logits, axis)),
            step,
        )
    yield (
        "A sigmoid is applied; cross-entropy wants logits.",
        head(after=torch.sigmoid),
        step,
    )
    yield (
        "A tanh is applied to the logits; they are linear.",
        head(after=torch.tanh),
        step,
    )
    yield (
        "A tanh is applied to pooled, which BertModel has done already.",
        head(before=torch.tanh),
        step,
    )
    for function in (torch.relu, functional.gelu):
        yield (
            "pooled goes through a nonlinearity; what is left to do is linear.",
            head(before=function),
            step,
        )
        yield (
            "The logits go through a nonlinearity; they are linear, and may be negative.",
            head(after=function),
            step,
        )
    yield (
        "The two logits change places: index 0 means that the second piece follows.",
        head(after=lambda logits: logits.flip(-1)),
        step,
    )
    yield (
        "There is one logit; there are two, as for two classes.",
        head(after=lambda logits: logits[:, :1]),
        step,
    )
    yield (
        "The two logits are subtracted, so that there is one for each sequence.",
        head(after=lambda logits: logits[:, 0] - logits[:, 1]),
        step,
    )
    yield (
        "What comes back is the class, not the logits.",
        head(after=lambda logits: logits.argmax(dim=-1)),
        step,
    )
    for rate in (0.1, 0.5):
        yield (
            "There is dropout on pooled; the exercise has none.",
            head(before=lambda pooled, rate=rate: functional.dropout(pooled, rate)),
            step,
        )
    yield (
        "Axes of length 1 are dropped: the logits of a batch of one have lost their batch.",
        head(after=lambda logits: logits.squeeze(0)),
        step,
    )
    yield (
        "pooled is normed; it is used as it comes.",
        head(before=lambda pooled: functional.layer_norm(pooled, pooled.shape[-1:])),
        step,
    )
    yield (
        "pooled is normed; it is used as it comes.",
        head(before=lambda pooled: functional.normalize(pooled, dim=-1)),
        step,
    )
    yield (
        "The gradient does not reach pooled, so the model below does not learn.",
        head(before=lambda pooled: pooled.detach()),
        "No .detach() and no .data.",
    )

    yield (
        "classifier has no bias.",
        head(
            created=lambda self, d_model: setattr(
                self, "classifier", nn.Linear(d_model, 2, bias=False)
            )
        ),
        "nn.Linear(d_model, 2) has a bias unless told otherwise.",
    )

    def further(self, d_model):
        self.dense = nn.Linear(d_model, d_model)

    yield (
        "There are parameters that the exercise does not have.",
        head(created=further),
        "self.classifier = nn.Linear(d_model, 2), and nothing else.",
    )

    class InPlace(nn.Module):
        def __init__(self, d_model):
            super().__init__()
            self.classifier = nn.Linear(d_model, 2)

        def forward(self, pooled):
            logits = self.classifier(pooled)
            with torch.no_grad():
                pooled.data.tanh_()
            return logits

    yield (
        "pooled is changed in place.",
        InPlace,
        "Leave pooled as it is.",
    )
