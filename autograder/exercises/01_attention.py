"""Chapter 1: attention. Vaswani et al. 2017, section 3.2.1; Bahdanau et al. 2015, section 3.1."""

import math

import torch
from torch import nn

from autograder.cases import lower_triangle, named, some_true
from autograder.exercise import Exercise, Returned

OUTPUT = Returned("output", "(batch, L_q, d_v)")
WEIGHTS = Returned("weights", "(batch, L_q, L_k)")

NAN_ON_THE_WAY_BACK = (
    "0/0 or inf - inf is made first and its result replaced afterwards; on the way back it is "
    "still NaN. Fill the barred scores with masked_fill, before the softmax: what is filled "
    "passes no gradient on, NaN or not."
)

# ---- softmax -------------------------------------------------------------------------------

softmax = Exercise(
    "attention/softmax",
    points=2,
    signature="softmax(scores, dim=-1)",
    returns=[Returned("weights", "of the scores")],
    without=["softmax"],
)


@softmax.case("three scores", next_step="Exponentiate, then divide by the sum of the exponentials.")
def _(softmax, make):
    return {"weights": softmax(make.normal(3, scale=2.0))}


@softmax.case("a batch, over the last axis by default")
def _(softmax, make):
    weights = softmax(make.normal(2, 3, 5))
    return {"weights": weights, "sums": weights.sum(dim=-1)}


@softmax.case(
    "over another axis",
    weight=2,
    next_step="Use dim in both the maximum and the sum, with keepdim=True.",
)
def _(softmax, make):
    scores = make.normal(2, 3, 4)
    return {
        "weights, dim=0": softmax(scores, 0),
        "weights, dim=1": softmax(scores, 1),
        "weights, dim=-2": softmax(scores, -2),
    }


@softmax.case(
    "as many rows as columns",
    next_step="Give the maximum and the sum keepdim=True. Without it a square matrix is divided "
    "along the wrong axis, and no error tells.",
)
def _(softmax, make):
    scores = make.normal(4, 4)
    return {"weights": softmax(scores), "weights, dim=0": softmax(scores, 0)}


@softmax.case(
    "large scores",
    next_step="exp(89) no longer fits into float32. Subtracting the same number from every score "
    "of a row changes nothing in the result; choose one that makes the largest exponent 0.",
)
def _(softmax, make):
    return {"weights": softmax(make.normal(3, 6, scale=3.0, shift=1000.0))}


@softmax.case(
    "very negative scores",
    next_step="exp(-110) is 0 in float32, and 0/0 is NaN. Subtract each row's maximum first.",
)
def _(softmax, make):
    return {"weights": softmax(make.normal(3, 6, scale=3.0, shift=-1000.0))}


@softmax.case(
    "rows that lie far apart",
    next_step="The maximum to subtract is that of each row: max(dim=dim, keepdim=True).",
)
def _(softmax, make):
    return {"weights": softmax(make.normal(3, 4) + torch.tensor([[500.0], [0.0], [-500.0]]))}


@softmax.case(
    "some scores are minus infinity",
    next_step="exp(-inf) is exactly 0: let it do the work, and put no number in its place.",
)
def _(softmax, make):
    scores = make.normal(4, 6)
    scores[:, ::2] = -math.inf
    weights = softmax(scores)
    low = torch.tensor([[-math.inf, -2e4, -1e4], [-math.inf, -2e10, -1e10]])
    return {
        "weights": weights,
        "how many weights of minus infinity are not exactly 0": int((weights[:, ::2] != 0).sum()),
        "weights beside very low scores": softmax(low),
    }


@softmax.case(
    "float64, and an axis of one element",
    next_step="Stay in the dtype of the scores, and add nothing to the sum: a detour through "
    "float32 or an epsilon shows in float64.",
)
def _(softmax, make):
    return {
        "weights": softmax(make.normal(2, 5, dtype=torch.float64)),
        "weights of single scores": softmax(make.normal(4, 1)),
    }


@softmax.case("gradients")
def _(softmax, make):
    scores = make.normal(3, 5, grad=True)
    return make.gradients("weights", softmax(scores), scores=scores)


@softmax.case(
    "gradients beside a score of minus infinity",
    weight=0.5,
    next_step="inf - inf and 0 times infinity are NaN, on the way back too. Let exp(-inf) give "
    "the 0; neither replace it nor multiply by it.",
)
def _(softmax, make):
    scores = make.normal(2, 4)
    scores[0, 1] = -math.inf
    scores.requires_grad_()
    return make.gradients("weights", softmax(scores), scores=scores)


@softmax.case(
    "transposed inputs, left as they were",
    next_step="Go by dim, not by the order in memory: the axes may be swapped.",
)
def _(softmax, make):
    scores, cube = make.normal(5, 3), make.normal(2, 3, 4)
    return {
        "weights": softmax(scores.T),
        "weights of three axes": softmax(cube.transpose(0, 1)),
        "weights of three axes, dim=1": softmax(cube.transpose(0, 1), 1),
        "the inputs are unchanged": make.unchanged(),
    }


@softmax.case(
    "bfloat16",
    weight=0.5,
    next_step="Let every new tensor have the dtype of the scores: dtype=scores.dtype.",
)
def _(softmax, make):
    return {"weights": softmax(make.normal(3, 5, dtype=torch.bfloat16))}


@softmax.case("four axes, other sizes", hidden=True)
def _(softmax, make):
    scores = make.normal(2, 3, 4, 6, scale=40.0)
    return {"last": softmax(scores), "second": softmax(scores, 1), "first": softmax(scores, -4)}


@softmax.misconception(
    "The scores are exponentiated as they are, so large ones overflow and very negative ones "
    "all become 0.",
    next_step="Subtract each row's maximum before exp: the result is the same, and stays finite.",
)
def _(scores, dim=-1):
    powers = torch.exp(scores)
    return powers / powers.sum(dim=dim, keepdim=True)


@softmax.misconception(
    "The maximum of the whole tensor is subtracted, not that of each row, so rows far below it "
    "turn into 0/0.",
    next_step="Take the maximum along dim, with keepdim=True.",
)
def _(scores, dim=-1):
    powers = torch.exp(scores - scores.max())
    return powers / powers.sum(dim=dim, keepdim=True)


@softmax.misconception(
    "The largest absolute value is subtracted, not the largest score, so rows of very negative "
    "scores turn into 0/0.",
    next_step="Take the maximum of the scores as they are: amax(dim=dim, keepdim=True).",
)
def _(scores, dim=-1):
    powers = torch.exp(scores - scores.abs().amax(dim=dim, keepdim=True))
    return powers / powers.sum(dim=dim, keepdim=True)


@softmax.misconceptions
def _():
    """The sum over everything, from exponentials of every kind."""
    for shift in (
        lambda scores, dim: scores.amax(dim=dim, keepdim=True),
        lambda scores, dim: scores.max(),
        lambda scores, dim: 0.0,
    ):

        def over_everything(scores, dim=-1, shift=shift):
            powers = torch.exp(scores - shift(scores, dim))
            return powers / powers.sum()

        yield (
            "The exponentials are divided by the sum over the whole tensor, so the rows do not "
            "sum to 1.",
            over_everything,
            "Sum along dim, with keepdim=True.",
        )


@softmax.misconceptions
def _():
    """An axis that is lost, in the maximum, in the sum, or in both."""
    for maximum, total in ((True, False), (False, True), (False, False), (None, False)):

        def without_axis(scores, dim=-1, maximum=maximum, total=total):
            shifted = scores if maximum is None else scores - scores.amax(dim, keepdim=maximum)
            powers = torch.exp(shifted)
            return powers / powers.sum(dim, keepdim=total)

        yield (
            "The maximum or the sum loses its axis, so it meets the wrong axis of the scores: an "
            "error for most shapes, wrong weights for square ones.",
            without_axis,
            "Pass keepdim=True to both, so that they broadcast against the scores.",
        )


@softmax.misconception(
    "The sign is turned around: the smallest score gets the largest weight.",
    next_step="Subtract the maximum from the scores, not the scores from the maximum.",
)
def _(scores, dim=-1):
    powers = torch.exp(scores.amin(dim=dim, keepdim=True) - scores)
    return powers / powers.sum(dim=dim, keepdim=True)


@softmax.misconception(
    "It always works along the last axis and ignores dim.",
    next_step="Pass dim on to the maximum and to the sum.",
)
def _(scores, dim=-1):
    powers = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
    return powers / powers.sum(dim=-1, keepdim=True)


@softmax.misconception(
    "It always works along the first axis and ignores dim.",
    next_step="Pass dim on to the maximum and to the sum.",
)
def _(scores, dim=-1):
    powers = torch.exp(scores - scores.amax(dim=0, keepdim=True))
    return powers / powers.sum(dim=0, keepdim=True)


@softmax.misconception(
    "It works along the first axis unless told otherwise; the default is the last, dim=-1.",
    next_step="Give dim the default -1 and use it.",
)
def _(scores, dim=0):
    powers = torch.exp(scores - scores.amax(dim=dim, keepdim=True))
    return powers / powers.sum(dim=dim, keepdim=True)


@softmax.misconception(
    "It returns the logarithm of the softmax.", next_step="Take exp of the result."
)
def _(scores, dim=-1):
    return scores - torch.logsumexp(scores, dim=dim, keepdim=True)


@softmax.misconception(
    "The scores themselves are divided by their sum; they are never exponentiated.",
    next_step="Apply torch.exp before you normalize.",
)
def _(scores, dim=-1):
    return scores / scores.sum(dim=dim, keepdim=True)


@softmax.misconception(
    "Each score is squashed on its own (a sigmoid), so the weights do not compete or sum to 1.",
    next_step="Divide each exponential by the sum of all exponentials along dim.",
)
def _(scores, dim=-1):
    return torch.sigmoid(scores)


@softmax.misconceptions
def _():
    """In place, hidden from autograd and not."""

    def unseen(scores, dim=-1):
        with torch.no_grad():
            scores -= scores.amax(dim=dim, keepdim=True)
        powers = torch.exp(scores)
        return powers / powers.sum(dim=dim, keepdim=True)

    def seen(scores, dim=-1):
        scores -= scores.amax(dim=dim, keepdim=True)
        powers = torch.exp(scores)
        return powers / powers.sum(dim=dim, keepdim=True)

    def to_the_end(scores, dim=-1):
        scores -= scores.amax(dim=dim, keepdim=True)
        scores.exp_()
        scores /= scores.sum(dim=dim, keepdim=True)
        return scores

    for implementation in (unseen, seen, to_the_end):
        yield (
            "The caller's scores are changed in place.",
            implementation,
            "Write scores = scores - maximum, not scores -= maximum.",
        )


# ---- scaled dot-product attention ----------------------------------------------------------

attend = Exercise(
    "attention/scaled_dot_product_attention",
    points=4,
    signature="scaled_dot_product_attention(query, key, value, mask=None)",
    returns=[OUTPUT, WEIGHTS],
    without=["scaled_dot_product_attention"],
)


@attend.case(
    "the worked example: scores 112 and 96, d_k = 64",
    next_step="Scale first: 112/8 = 14 and 96/8 = 12; the softmax of these is 0.88 and 0.12.",
)
def _(attend, make):
    query = torch.ones(1, 1, 64)
    key = torch.stack([torch.full((64,), 112 / 64), torch.full((64,), 96 / 64)])[None]
    return named(attend(query, key, make.normal(1, 2, 3)))


@attend.case(
    "five queries, seven keys, values of another width",
    next_step="scores has shape (batch, L_q, L_k); the softmax runs over the keys, the last axis.",
)
def _(attend, make):
    output, weights = attend(make.normal(2, 5, 6), make.normal(2, 7, 6), make.normal(2, 7, 3))
    return {"output": output, "weights": weights, "sums of weights": weights.sum(dim=-1)}


@attend.case(
    "as many keys as queries, without a mask and with a causal one",
    next_step="Without a mask, every query reads every key. In the mask, row i is query i and "
    "column j is key j: use it as it is.",
)
def _(attend, make):
    query, key, value = make.normal(3, 4, 6), make.normal(3, 4, 6), make.normal(3, 4, 5)
    output, weights = attend(query.clone(), key.clone(), value.clone(), lower_triangle(4))
    return named(attend(query, key, value)) | {
        "output with the mask": output,
        "weights with the mask": weights,
    }


@attend.case(
    "a mask for each sequence, (batch, 1, L_k)",
    next_step="Where the mask is False, set the score to -inf before the softmax.",
)
def _(attend, make):
    mask = torch.tensor([[[True, True, True, False]], [[True, True, False, False]]])
    return named(attend(make.normal(2, 3, 6), make.normal(2, 4, 6), make.normal(2, 4, 5), mask))


@attend.case(
    "one mask for all sequences, (L_q, L_k)",
    next_step="Broadcasting aligns the last axes: (L_q, L_k) fits (batch, L_q, L_k) as it is.",
)
def _(attend, make):
    mask = some_true(make, 4, 5)
    return named(attend(make.normal(3, 4, 2), make.normal(3, 5, 2), make.normal(3, 5, 3), mask))


@attend.case(
    "a mask for each query of each sequence, (batch, L_q, L_k)",
    next_step="The mask has one entry for each score: no axis of it may be lost or added.",
)
def _(attend, make):
    mask = some_true(make, 2, 4, 5)
    return named(attend(make.normal(2, 4, 6), make.normal(2, 5, 6), make.normal(2, 5, 3), mask))


@attend.case(
    "a query that may attend to nothing",
    weight=2,
    next_step="A softmax over a row of -inf is 0/0. Set the weights to 0 where the mask is False.",
)
def _(attend, make):
    mask = some_true(make, 2, 4, 5, empty=[(0, 1), (1,)])
    result = attend(make.normal(2, 4, 6), make.normal(2, 5, 6), make.normal(2, 5, 3), mask)
    return named(result) | {"the inputs are unchanged": make.unchanged()}


@attend.case(
    "scores of exactly 0, and a mask that bars every key",
    next_step="A score of 0 is a score like any other: ask the mask what is barred, and ask "
    "`mask is not None` whether there is one.",
)
def _(attend, make):
    key, value = make.normal(1, 3, 2), make.normal(1, 3, 2)
    query, nothing = torch.zeros(1, 2, 2), torch.zeros(2, 3, dtype=torch.bool)
    output, weights = attend(query.clone(), key.clone(), value.clone(), nothing)
    return named(attend(query, key, value, torch.tensor([True, True, False]))) | {
        "output where every key is barred": output,
        "weights where every key is barred": weights,
    }


@attend.case(
    "scores that lie far apart, under a mask",
    next_step="Set the barred scores to -inf before anything else is made of them: a barred key "
    "may have the largest score, and an allowed one may lie below -100 or -10000.",
)
def _(attend, make):
    query = torch.tensor([[[20.0, 0.0], [200.0, 0.0]]])
    key = torch.tensor([[[20.0, 0.0], [0.0, 1.0], [-200.0, 0.0]]])
    value = make.normal(1, 3, 3)

    def weights(*mask):
        return attend(query.clone(), key.clone(), value.clone(), torch.tensor(mask))[1]

    return {
        "weights where the largest score is barred": weights(False, True, True),
        "weights where only the smallest is allowed": weights(False, False, True),
    }


@attend.case(
    "what is masked does not matter",
    next_step="A masked key must have weight exactly 0, so that its value cannot show.",
)
def _(attend, make):
    # Each call has tensors of its own: what a call changes in place, another case tells.
    query, key, value = make.normal(2, 3, 6), make.normal(2, 5, 6), make.normal(2, 5, 4)
    mask = torch.tensor([True, True, False, True, False])
    before, _ = attend(query.clone(), key.clone(), value.clone(), mask.clone())
    key[:, ~mask] = 50.0
    value[:, ~mask] = 1000.0
    after, weights = attend(query, key, value, mask.clone())
    return {
        "output": before,
        "change of the output when masked keys and values change": (after - before).abs().max(),
        "sums of weights": weights.sum(dim=-1),
    }


@attend.case("large scores", next_step="Use a softmax that subtracts the maximum of each row.")
def _(attend, make):
    query, key = make.normal(2, 3, 7, scale=30.0), make.normal(2, 4, 7, scale=30.0)
    return named(attend(query, key, make.normal(2, 4, 5)))


@attend.case(
    "no batch axis, and batch and head axes",
    next_step="Use @ and transpose(-2, -1): they treat all leading axes as a batch, none included.",
)
def _(attend, make):
    output, weights = attend(
        make.normal(3, 6), make.normal(5, 6), make.normal(5, 2), some_true(make, 3, 5)
    )
    mask = some_true(make, 2, 1, 4, 6)
    return {
        "output without a batch": output,
        "weights without a batch": weights,
        **named(
            attend(make.normal(2, 3, 4, 5), make.normal(2, 3, 6, 5), make.normal(2, 3, 6, 2), mask)
        ),
    }


@attend.case("a batch of one, one query, one key", next_step="Keep axes of length 1: no squeeze().")
def _(attend, make):
    return named(attend(make.normal(1, 1, 4), make.normal(1, 1, 4), make.normal(1, 1, 2)))


@attend.case(
    "float64 inputs that are views, left as they were",
    next_step="Stay in the dtype of the inputs: a detour through float32 shows in float64.",
)
def _(attend, make):
    # The root of 16 is exact: a scale that was kept in float32 is no mistake, but a detour is.
    query = make.normal(2, 16, 5, dtype=torch.float64)
    key = make.normal(7, 2, 16, dtype=torch.float64)
    value = make.normal(2, 7, 6, dtype=torch.float64)
    mask = some_true(make, 5, 7)
    result = attend(query.transpose(1, 2), key.transpose(0, 1), value[..., ::2], mask)
    return named(result) | {"the inputs are unchanged": make.unchanged()}


@attend.case("gradients, with a mask")
def _(attend, make):
    query = make.normal(2, 3, 6, grad=True)
    key = make.normal(2, 5, 6, grad=True)
    value = make.normal(2, 5, 4, grad=True)
    output, weights = attend(query, key, value, some_true(make, 2, 3, 5))
    return {
        **make.gradients("weights", weights, query=query, key=key),
        **make.gradients("output", output, query=query, key=key, value=value),
    }


@attend.case(
    "gradients where a query may attend to nothing",
    weight=0.5,
    next_step=NAN_ON_THE_WAY_BACK,
)
def _(attend, make):
    query = make.normal(1, 3, 6, grad=True)
    key = make.normal(1, 4, 6, grad=True)
    value = make.normal(1, 4, 4, grad=True)
    output, _ = attend(query, key, value, some_true(make, 1, 3, 4, empty=[(0, 1)]))
    return {
        "output": output,
        **make.gradients("output", output, query=query, key=key, value=value),
    }


@attend.case(
    "bfloat16 inputs, with a mask",
    weight=0.5,
    next_step="Let every new tensor have the dtype of the inputs: dtype=query.dtype.",
)
def _(attend, make):
    query, key, value = (make.normal(2, 4, 6, dtype=torch.bfloat16) for _ in range(3))
    return named(attend(query, key, value, some_true(make, 2, 1, 4)))


@attend.case("other lengths and widths", hidden=True)
def _(attend, make):
    mask = some_true(make, 4, 1, 11, empty=[(2,)])
    return named(attend(make.normal(4, 9, 12), make.normal(4, 11, 12), make.normal(4, 11, 7), mask))


@attend.misconceptions
def _():
    """Attention with one thing wrong at a time."""

    def root_of_d_k(query, key, value):
        return math.sqrt(query.size(-1))

    def attention(
        scale=root_of_d_k,
        fill=-math.inf,
        barred=lambda mask: ~mask,
        add=False,
        dim=-1,
        clear=True,
        result=lambda output, weights, plain, scores: (output, weights),
    ):
        def attend(query, key, value, mask=None):
            scores = query @ key.transpose(-2, -1) / scale(query, key, value)
            plain = torch.softmax(scores, dim=dim)
            if mask is not None and add:
                scores = scores + torch.zeros_like(scores).masked_fill(barred(mask), fill)
            elif mask is not None and fill is not None:
                scores = scores.masked_fill(barred(mask), fill)
            weights = torch.softmax(scores, dim=dim)
            if mask is not None and clear:
                weights = weights.masked_fill(barred(mask), 0.0)
            return result(weights @ value, weights, plain, scores)

        return attend

    def scaled_afterwards(query, key, value, mask=None):
        _, weights = attention(scale=lambda query, key, value: 1.0)(query, key, value, mask)
        weights = weights / math.sqrt(query.size(-1))
        return weights @ value, weights

    def causal(applies):
        def attend(query, key, value, mask=None):
            shape = query.size(-2), key.size(-2)
            if applies(mask, shape):
                triangle = torch.ones(shape, dtype=torch.bool).tril()
                mask = triangle if mask is None else mask & triangle
            return attention()(query, key, value, mask)

        return attend

    def transposed_mask(query, key, value, mask=None):
        turned = mask is not None and mask.ndim > 1
        return attention()(query, key, value, mask.mT if turned else mask)

    def renormalized(divide):
        def attend(query, key, value, mask=None):
            weights = torch.softmax(query @ key.mT / math.sqrt(query.size(-1)), dim=-1)
            if mask is not None:
                weights = divide(weights * mask, mask)
            return weights @ value, weights

        return attend

    def largest_of_all(left, divide):
        def attend(query, key, value, mask=None):
            scores = query @ key.mT / math.sqrt(query.size(-1))
            mask = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
            powers = left(torch.exp(scores - scores.amax(dim=-1, keepdim=True)), mask)
            weights = divide(powers, mask)
            return weights @ value, weights

        return attend

    def total(weights):
        return weights.sum(dim=-1, keepdim=True)

    def zero_times_infinity(query, key, value, mask=None):
        scores = query @ key.mT / math.sqrt(query.size(-1))
        if mask is not None:
            scores = scores + (~mask).to(scores.dtype) * -math.inf
        weights = torch.softmax(scores, dim=-1)
        return weights @ value, weights

    yield (
        "The scores are not divided by the square root of d_k.",
        attention(scale=lambda query, key, value: 1.0),
        "Divide the scores by math.sqrt(query.size(-1)) before the softmax.",
    )
    yield (
        "The scores are divided by d_k, not by its square root.",
        attention(scale=lambda query, key, value: query.size(-1)),
        "The standard deviation of the scores grows as the square root of d_k: divide by it.",
    )
    yield (
        "The scores are scaled by the number of keys instead of the width d_k.",
        attention(scale=lambda query, key, value: math.sqrt(key.size(-2))),
        "d_k is the size of the last axis of the query: query.size(-1).",
    )
    yield (
        "The scores are scaled by the width of the values, d_v, instead of that of the keys, d_k.",
        attention(scale=lambda query, key, value: math.sqrt(value.size(-1))),
        "d_k is the size of the last axis of the query: query.size(-1).",
    )
    yield (
        "The scores are always divided by 8, the root of the worked example's d_k = 64.",
        attention(scale=lambda query, key, value: 8.0),
        "Take d_k from the query: math.sqrt(query.size(-1)).",
    )
    yield (
        "The softmax is taken first and scaled afterwards, so the weights do not sum to 1.",
        scaled_afterwards,
        "Divide the scores, not the weights.",
    )
    yield (
        "The mask is applied after the softmax, so the weights of a masked row no longer sum to 1.",
        attention(fill=None),
        "Fill the scores with -inf where the mask is False, then take the softmax.",
    )
    for clear in (True, False):
        yield (
            "Masked scores are set to 0 instead of minus infinity; exp(0) is 1, so they still "
            "take part in the softmax.",
            attention(fill=0.0, clear=clear),
            "Fill the scores with -inf where the mask is False.",
        )
        yield (
            "The mask is read the wrong way round: True means may attend, not masked.",
            attention(barred=lambda mask: mask, clear=clear),
            "Fill where ~mask, not where mask.",
        )
    yield (
        "The mask is never used.",
        attention(fill=None, clear=False),
        "Where it is False, set the score to -inf.",
    )
    dropped_late = (
        "The softmax, or the maximum in it, is taken over all keys, and the barred ones are "
        "dropped afterwards: where one of them has by far the largest score, nothing is left of "
        "the others.",
        "Fill the scores with -inf where the mask is False before anything else, then take one "
        "softmax.",
    )
    for divide in (
        lambda weights, mask: torch.nan_to_num(weights / total(weights)),
        lambda weights, mask: (weights / total(weights)).masked_fill(~mask, 0.0),
        lambda weights, mask: weights / total(weights).clamp(min=1e-9),
        lambda weights, mask: weights / total(weights).clamp(min=1e-38),
        lambda weights, mask: weights / total(weights),
    ):
        yield dropped_late[0], renormalized(divide), dropped_late[1]
        for left in (lambda x, mask: x * mask, lambda x, mask: x.masked_fill(~mask, 0.0)):
            yield dropped_late[0], largest_of_all(left, divide), dropped_late[1]
    yield (
        "The mask is made into 0 and minus infinity by a product, and 0 times infinity is NaN.",
        zero_times_infinity,
        "Use scores.masked_fill(~mask, -math.inf).",
    )
    for fill in (-100.0, -1e4):
        yield (
            "Barred scores are set to a number such as -100 or -10000; an allowed score may lie "
            "below it.",
            attention(fill=fill),
            "Fill with minus infinity, which no score lies below.",
        )
    for applies in (
        lambda mask, shape: True,
        lambda mask, shape: mask is None,
        lambda mask, shape: mask is None and shape[0] == shape[1],
    ):
        yield (
            "No query reads a later key, although only the mask may bar keys.",
            causal(applies),
            "Leave the triangle to causal_mask: without a mask every query reads every key.",
        )
    yield (
        "The mask is transposed: its rows are the queries, its columns the keys.",
        transposed_mask,
        "Use the mask as it is; it has the shape of the scores.",
    )
    yield (
        "The softmax runs over the first axis, the batch.",
        attention(dim=0),
        "The keys lie on the last axis of the scores: dim=-1.",
    )
    for clear in (True, False):
        yield (
            "The softmax runs over the queries, so each key's weights sum to 1 instead of each "
            "query's.",
            attention(dim=-2, clear=clear),
            "The keys lie on the last axis of the scores: dim=-1.",
        )
    for add in (True, False):
        yield (
            "A query that may attend to nothing gives NaN; its weights and output must be 0.",
            attention(add=add, clear=False),
            "After the softmax, set the weights to 0 where the mask is False.",
        )
    for add, fill in ((False, -1e9), (True, -1e9), (False, -1e4)):
        yield (
            "A large negative number stands for minus infinity, so a query that may attend to "
            "nothing averages everything instead of giving 0.",
            attention(add=add, fill=fill, clear=False),
            "Set the weights to 0 where the mask is False, after the softmax too.",
        )
    yield (
        "A query that may attend to nothing gives the right output, but NaN in the gradients.",
        attention(add=True),
        NAN_ON_THE_WAY_BACK,
    )
    yield (
        "The output is right, but the weights that come back are those before the mask.",
        attention(result=lambda output, weights, plain, scores: (output, plain)),
        "Return the same weights that multiply the values.",
    )
    yield (
        "What comes back as weights are the scores, before the softmax.",
        attention(result=lambda output, weights, plain, scores: (output, scores)),
        "Return the softmax of the scores.",
    )
    yield (
        "The two results come back in the wrong order: first the output, then the weights.",
        attention(result=lambda output, weights, plain, scores: (weights, output)),
        "End with: return output, weights.",
    )


# ---- padding mask --------------------------------------------------------------------------

padding_mask = Exercise(
    "attention/padding_mask",
    points=2,
    signature="padding_mask(token_ids, pad_id=0)",
    returns=[Returned("mask", "(batch, 1, length)")],
)


def padded(make, batch, length, pad_id=0, first=1):
    """Token ids of random lengths, padded at the end; every sequence has a real token."""
    ids = make.integers(first, 90, batch, length)
    lengths = make.integers(1, length, batch)
    ids[torch.arange(length) >= lengths[:, None]] = pad_id
    return ids


@padding_mask.case(
    "two padded sequences",
    next_step="Compare the ids with pad_id, then add the axis that broadcasts over the queries.",
)
def _(padding_mask, make):
    return {"mask": padding_mask(torch.tensor([[5, 7, 2, 0, 0], [3, 9, 4, 8, 0]]))}


@padding_mask.case("random lengths")
def _(padding_mask, make):
    return {"mask": padding_mask(padded(make, 4, 6))}


@padding_mask.case(
    "another padding id, while 0 is a word",
    weight=2,
    next_step="Compare with pad_id, not with 0 and not by size.",
)
def _(padding_mask, make):
    ids = padded(make, 3, 6, pad_id=91, first=0)
    ids[:, 0] = 0
    return {"mask": padding_mask(ids, 91)}


@padding_mask.case(
    "padding at the front and in the middle",
    weight=2,
    next_step="Look at every token by itself; do not count from the end.",
)
def _(padding_mask, make):
    ids = make.integers(1, 90, 4, 7)
    ids[0, :3] = 0
    ids[1, 2:4] = 0
    ids[2, [0, 6]] = 0
    return {"mask": padding_mask(ids)}


@padding_mask.case("no padding, and nothing but padding")
def _(padding_mask, make):
    words = make.integers(1, 90, 1, 6)
    return {
        "mask without padding": padding_mask(words),
        "mask of padding only": padding_mask(torch.zeros_like(words)),
    }


@padding_mask.case(
    "a batch of one in int32, left as it was",
    next_step="Compare with pad_id; the ids may be of any integer type.",
)
def _(padding_mask, make):
    ids = make.tensor([[4, 7, 0, 9, 7]], dtype=torch.int32)
    return {"mask": padding_mask(ids, 7), "the input is unchanged": make.unchanged()}


@padding_mask.case(
    "ids of a large vocabulary",
    next_step="Compare the ids as they are. In a shorter type different ids become equal: 300 and "
    "44 in eight bits, 50250 and 50256 in float16.",
)
def _(padding_mask, make):
    ids = torch.tensor([[300, 44, 50257, 50256], [50250, 556, 300, 33]])
    return {"mask of 300": padding_mask(ids, 300), "mask of 50256": padding_mask(ids, 50256)}


@padding_mask.case(
    "negative ids, and a transposed input",
    next_step="Any whole number may be the padding id, and the ids need not lie in one block of "
    "memory: compare with pad_id, and add the axis with unsqueeze(1).",
)
def _(padding_mask, make):
    ids = make.integers(-2, 3, 5, 4)
    ids[0, 0], ids[0, 1] = -1, 1
    return {"mask of -1": padding_mask(ids.T, -1), "mask of 1": padding_mask(ids.T, 1)}


@padding_mask.case(
    "it bars the key column for every query",
    next_step="The mask must broadcast to (batch, L_q, L_k) and be the same in every row.",
)
def _(padding_mask, make):
    ids = padded(make, 3, 6)
    mask = padding_mask(ids)
    return {"mask, broadcast": mask.expand(3, 6, 6), "it is boolean": mask.dtype == torch.bool}


@padding_mask.case("another length and padding id", hidden=True)
def _(padding_mask, make):
    ids = make.integers(0, 4, 7, 13)
    return {"mask of 2": padding_mask(ids, 2), "mask of 3": padding_mask(ids, 3)}


@padding_mask.misconception(
    "The mask is the wrong way round: it is True at the padding; True must mean may attend.",
    next_step="Use != instead of ==.",
)
def _(token_ids, pad_id=0):
    return (token_ids == pad_id)[:, None, :]


@padding_mask.misconception(
    "Only the entries where query and key are both padding are barred; a padded key must be "
    "barred for every query, its whole column.",
    next_step="The mask depends on the key alone: shape (batch, 1, length).",
)
def _(token_ids, pad_id=0):
    pad = token_ids == pad_id
    return ~(pad[:, :, None] & pad[:, None, :])


@padding_mask.misconception(
    "The rows of padded queries are barred besides the columns of padded keys.",
    next_step="The mask depends on the key alone: shape (batch, 1, length).",
)
def _(token_ids, pad_id=0):
    real = token_ids != pad_id
    return real[:, :, None] & real[:, None, :]


@padding_mask.misconception(
    "The axis is added at the end, so the mask bars the rows of padded queries instead of the "
    "columns of padded keys.",
    next_step="Put the new axis in the middle: mask[:, None, :] or unsqueeze(1).",
)
def _(token_ids, pad_id=0):
    return (token_ids != pad_id)[:, :, None]


@padding_mask.misconception(
    "The axis for the queries is missing: (batch, length) would broadcast as if the batch were "
    "the queries.",
    next_step="Add an axis in the middle: unsqueeze(1).",
)
def _(token_ids, pad_id=0):
    return token_ids != pad_id


@padding_mask.misconception(
    "The ids are compared with 0, whatever pad_id is.", next_step="Compare with pad_id."
)
def _(token_ids, pad_id=0):
    return (token_ids != 0)[:, None, :]


@padding_mask.misconception(
    "Every id above pad_id is taken for a word; ids below it are words too.",
    next_step="Compare with !=.",
)
def _(token_ids, pad_id=0):
    return (token_ids > pad_id)[:, None, :]


@padding_mask.misconception(
    "The padding is counted and cut off at the end, but it may stand anywhere.",
    next_step="Compare token by token.",
)
def _(token_ids, pad_id=0):
    lengths = (token_ids != pad_id).sum(dim=1)
    return (torch.arange(token_ids.size(1)) < lengths[:, None])[:, None, :]


@padding_mask.misconception(
    "Everything from the first padding on is barred, but words may follow it.",
    next_step="Compare token by token.",
)
def _(token_ids, pad_id=0):
    return ((token_ids == pad_id).cumsum(dim=1) == 0)[:, None, :]


@padding_mask.misconceptions
def _():
    """Numbers with a point and without."""
    for dtype in (torch.float32, torch.int64):

        def numbers(token_ids, pad_id=0, dtype=dtype):
            return (token_ids != pad_id)[:, None, :].to(dtype)

        yield (
            "The mask holds numbers; it must be boolean.",
            numbers,
            "Return the result of the comparison itself.",
        )


@padding_mask.misconception(
    "This is an additive mask of 0 and minus infinity; the exercise asks for a boolean one.",
    next_step="Return the result of the comparison itself.",
)
def _(token_ids, pad_id=0):
    zeros = torch.zeros(token_ids.shape)
    return zeros.masked_fill(token_ids == pad_id, -math.inf)[:, None, :]


# ---- causal mask ---------------------------------------------------------------------------

causal_mask = Exercise(
    "attention/causal_mask",
    points=2,
    signature="causal_mask(length)",
    returns=[Returned("mask", "(length, length)")],
)


@causal_mask.case(
    "four positions",
    next_step="Row t is what position t may see: positions 0 to t, itself included.",
)
def _(causal_mask, make):
    return {"mask": causal_mask(4)}


@causal_mask.case("one position", next_step="A single position sees itself.")
def _(causal_mask, make):
    return {"mask": causal_mask(1), "mask of two": causal_mask(2)}


@causal_mask.case(
    "other lengths",
    next_step="Row t allows the columns 0 to t, whatever the length: all of them, and no other.",
)
def _(causal_mask, make):
    length = int(make.integers(5, 20))
    return {"mask": causal_mask(length), "mask, one longer": causal_mask(length + 1)}


@causal_mask.case(
    "it broadcasts over a batch, and joins a padding mask",
    next_step="Return shape (length, length) and dtype bool.",
)
def _(causal_mask, make):
    real = make.booleans(2, 1, 6)
    return {"both masks": causal_mask(6) & real}


def counted(mask):
    """A mask in four lines, for a long one is too much to record."""
    right = lower_triangle(mask.size(0))
    return {
        "shape": str(tuple(mask.shape)),
        "it is boolean": mask.dtype == torch.bool,
        "how many later positions may be seen": int((mask.bool() & ~right).sum()),
        "how many earlier positions may not be seen": int((~mask.bool() & right).sum()),
    }


@causal_mask.case(
    "three hundred positions",
    next_step="The mask must hold for every length: no window, no table of fixed size, and no "
    "positions in a type that ends at 255.",
)
def _(causal_mask, make):
    return counted(causal_mask(300))


@causal_mask.case("a long sequence", hidden=True)
def _(causal_mask, make):
    return counted(causal_mask(int(make.integers(350, 450))))


@causal_mask.misconception(
    "A position may not see itself, so the first one sees nothing at all.",
    next_step="Include the diagonal.",
)
def _(length):
    return torch.ones(length, length).tril(diagonal=-1).bool()


@causal_mask.misconception(
    "Every position sees itself and the future, not the past.",
    next_step="Keep the lower triangle: rows are queries, columns are keys.",
)
def _(length):
    return torch.ones(length, length).triu().bool()


@causal_mask.misconception(
    "The mask is the wrong way round: it is True at the future, which must be barred.",
    next_step="True means may attend: invert it.",
)
def _(length):
    return torch.ones(length, length).triu(diagonal=1).bool()


@causal_mask.misconception(
    "Every position sees one position too far: the very token that it has to predict.",
    next_step="Position t sees 0 to t, not t + 1: diagonal=0.",
)
def _(length):
    return torch.ones(length, length).tril(diagonal=1).bool()


@causal_mask.misconceptions
def _():
    """Numbers with a point and without."""
    for dtype in (torch.float32, torch.int64):

        def numbers(length, dtype=dtype):
            return torch.ones(length, length, dtype=dtype).tril()

        yield (
            "The mask holds numbers; it must be boolean.",
            numbers,
            "Make it of dtype=torch.bool, or compare positions.",
        )


@causal_mask.misconception(
    "This is an additive mask of 0 and minus infinity; the exercise asks for a boolean one.",
    next_step="Return True where attention is allowed.",
)
def _(length):
    return torch.full((length, length), -math.inf).triu(diagonal=1)


@causal_mask.misconception(
    "The mask has an extra axis in front.",
    next_step="Return shape (length, length); it broadcasts over the batch by itself.",
)
def _(length):
    return torch.ones(1, length, length).tril().bool()


# ---- additive attention --------------------------------------------------------------------

additive = Exercise(
    "attention/AdditiveAttention",
    points=4,
    signature="AdditiveAttention(d_query, d_key, d_hidden), forward(query, key, value, mask=None)",
    returns=[OUTPUT, WEIGHTS],
    parameters=lambda d_query, d_key, d_hidden: {
        "w_a.weight": (d_hidden, d_query),
        "u_a.weight": (d_hidden, d_key),
        "v_a.weight": (1, d_hidden),
    },
)


@additive.case(
    "one query, two keys",
    next_step="score = v_a(tanh(w_a(query) + u_a(key))), one number for each pair.",
)
def _(additive, make):
    attend = make.module(additive, 3, 3, 4)
    return named(attend(make.normal(1, 1, 3), make.normal(1, 2, 3), make.normal(1, 2, 5)))


@additive.case(
    "queries and keys of other lengths and widths, twice",
    next_step="Queries of shape (batch, L_q, 1, d_hidden), keys of (batch, 1, L_k, d_hidden): "
    "their sum has one vector for each pair. Keep nothing from one call to the next.",
)
def _(additive, make):
    attend = make.module(additive, 6, 5, 7)
    output, weights = attend(make.normal(2, 4, 6), make.normal(2, 7, 5), make.normal(2, 7, 3))
    again = attend(make.normal(2, 4, 6), make.normal(2, 7, 5), make.normal(2, 7, 3))
    return {
        "output": output,
        "weights": weights,
        "sums of weights": weights.sum(dim=-1),
        "output of a second call": again[0],
        "weights of a second call": again[1],
    }


@additive.case(
    "the parameters: three linear layers without bias",
    next_step="w_a, u_a and v_a are nn.Linear layers with bias=False; there is nothing else.",
)
def _(additive, make):
    attend = make.module(additive, 2, 3, 5)
    found = attend.component.named_parameters()
    return {
        "parameters": ", ".join(sorted(f"{name} {tuple(p.shape)}" for name, p in found)),
        **named(attend(make.normal(1, 2, 2), make.normal(1, 3, 3), make.normal(1, 3, 2))),
    }


@additive.case(
    "a mask for each sequence, (batch, 1, L_k)",
    next_step="Where the mask is False, set the score to -inf before the softmax.",
)
def _(additive, make):
    attend = make.module(additive, 6, 5, 7)
    mask = torch.tensor([[[True, True, True, False]], [[True, False, False, False]]])
    return named(attend(make.normal(2, 3, 6), make.normal(2, 4, 5), make.normal(2, 4, 3), mask))


@additive.case(
    "as many keys as queries, without a mask and with a causal one",
    next_step="Without a mask, every query reads every key. In the mask, row i is query i and "
    "column j is key j: use it as it is.",
)
def _(additive, make):
    attend = make.module(additive, 5, 5, 6)
    query, key, value = make.normal(3, 4, 5), make.normal(3, 4, 5), make.normal(3, 4, 2)
    output, weights = attend(query.clone(), key.clone(), value.clone(), lower_triangle(4))
    return named(attend(query, key, value)) | {
        "output with the mask": output,
        "weights with the mask": weights,
    }


@additive.case(
    "a query that may attend to nothing",
    weight=2,
    next_step="Set the weights to 0 where the mask is False, after the softmax too.",
)
def _(additive, make):
    attend = make.module(additive, 4, 4, 6)
    query, key, value = make.normal(2, 3, 4), make.normal(2, 5, 4), make.normal(2, 5, 3)
    mask = some_true(make, 2, 3, 5, empty=[(0, 1), (1,)])
    nothing = torch.zeros(3, 5, dtype=torch.bool)
    output, weights = attend(query.clone(), key.clone(), value.clone(), nothing)
    return named(attend(query, key, value, mask)) | {
        "output where every key is barred": output,
        "weights where every key is barred": weights,
        "the inputs are unchanged": make.unchanged(),
    }


@additive.case("large inputs, where tanh saturates")
def _(additive, make):
    attend = make.module(additive, 4, 6, 5)
    query, key = make.normal(2, 3, 4, scale=20.0), make.normal(2, 4, 6, scale=20.0)
    return named(attend(query, key, make.normal(2, 4, 3)))


@additive.case(
    "a batch of one, one key, one hidden number",
    next_step="Drop no axis of length 1 but the last of v_a's result: squeeze(-1), not squeeze().",
)
def _(additive, make):
    attend = make.module(additive, 3, 4, 1)
    output, weights = attend(make.normal(1, 1, 3), make.normal(1, 3, 4), make.normal(1, 3, 1))
    single = attend(make.normal(1, 2, 3), make.normal(1, 1, 4), make.normal(1, 1, 2))
    return {
        "output": output,
        "weights": weights,
        "output of one key": single[0],
        "weights of one key": single[1],
    }


@additive.case(
    "float64 inputs that are views, left as they were",
    next_step="Stay in the dtype of the inputs: a detour through float32 shows in float64.",
)
def _(additive, make):
    attend = make.module(additive, 4, 4, 3, dtype=torch.float64)
    query = make.normal(2, 4, 2, dtype=torch.float64)
    key = make.normal(3, 2, 4, dtype=torch.float64)
    value = make.normal(2, 3, 2, dtype=torch.float64)
    mask = make.tensor([True, False, True])
    result = attend(query.transpose(1, 2), key.transpose(0, 1), value, mask)
    return named(result) | {"the inputs are unchanged": make.unchanged()}


@additive.case("gradients of inputs and parameters, with a mask")
def _(additive, make):
    attend = make.module(additive, 4, 5, 6)
    value = make.normal(2, 4, 2, grad=True)
    own = dict(attend.component.named_parameters())
    inputs = {"query": make.normal(2, 3, 4, grad=True), "key": make.normal(2, 4, 5, grad=True)}
    inputs |= {name: own[name] for name in ("w_a.weight", "u_a.weight", "v_a.weight")}
    mask = some_true(make, 2, 3, 4)
    output, weights = attend(inputs["query"], inputs["key"], value, mask)
    return {
        **make.gradients("weights", weights, **inputs),
        **make.gradients("output", output, value=value, **inputs),
    }


@additive.case(
    "gradients where a query may attend to nothing",
    weight=0.5,
    next_step=NAN_ON_THE_WAY_BACK,
)
def _(additive, make):
    attend = make.module(additive, 4, 5, 6)
    query, key = make.normal(1, 3, 4, grad=True), make.normal(1, 4, 5, grad=True)
    mask = some_true(make, 1, 3, 4, empty=[(0, 1)])
    output, _ = attend(query, key, make.normal(1, 4, 2), mask)
    return {"output": output, **make.gradients("output", output, query=query, key=key)}


@additive.case("other sizes", hidden=True)
def _(additive, make):
    attend = make.module(additive, 7, 9, 11)
    mask = some_true(make, 3, 1, 10, empty=[(1,)])
    return named(attend(make.normal(3, 6, 7), make.normal(3, 10, 9), make.normal(3, 10, 4), mask))


@additive.misconceptions
def _():
    """Additive attention with one thing wrong at a time."""

    def attention(
        join=lambda query, key: torch.tanh(query + key),
        score=lambda scores: scores,
        scale=1.0,
        dim=-1,
        fill=-math.inf,
        add=False,
        clear=True,
        causal=lambda mask, shape: False,
        barred=lambda mask: ~mask,
        biased=(),
        crossed=False,
        swapped=False,
    ):
        class Attention(nn.Module):
            def __init__(self, d_query, d_key, d_hidden):
                super().__init__()
                self.w_a = nn.Linear(d_query, d_hidden, bias="w_a" in biased)
                self.u_a = nn.Linear(d_key, d_hidden, bias="u_a" in biased)
                self.v_a = nn.Linear(d_hidden, 1, bias="v_a" in biased)
                widths = {"d_query": d_query, "d_key": d_key, "d_hidden": d_hidden}
                self.scale = widths.get(scale, 1) ** 0.5

            def forward(self, query, key, value, mask=None):
                layers = (self.u_a, self.w_a) if crossed else (self.w_a, self.u_a)
                asked, found = layers[0](query), layers[1](key)
                hidden = join(asked[..., :, None, :], found[..., None, :, :])
                scores = score(self.v_a(hidden)[..., 0]) / self.scale
                shape = scores.shape[-2:]
                if causal(mask, shape):
                    triangle = torch.ones(shape, dtype=torch.bool).tril()
                    mask = triangle if mask is None else mask & triangle
                if mask is not None and add:
                    scores = scores + torch.zeros_like(scores).masked_fill(barred(mask), fill)
                elif mask is not None and fill is not None:
                    scores = scores.masked_fill(barred(mask), fill)
                weights = torch.softmax(scores, dim=dim)
                if mask is not None and clear:
                    weights = weights.masked_fill(barred(mask), 0.0)
                output = weights @ value
                return (weights, output) if swapped else (output, weights)

        return Attention

    yield (
        "There is no tanh between the layers, so a query adds the same number to the scores of "
        "all keys and drops out of the softmax.",
        attention(join=lambda query, key: query + key),
        "Apply torch.tanh to the sum, before v_a.",
    )
    yield (
        "tanh is applied to query and key one by one and the results are added; the query then "
        "drops out of the softmax.",
        attention(join=lambda query, key: torch.tanh(query) + torch.tanh(key)),
        "Add first, then apply tanh to the sum.",
    )
    yield (
        "Query and key are multiplied, not added.",
        attention(join=lambda query, key: torch.tanh(query * key)),
        "Add them: that is where the name comes from.",
    )
    yield (
        "The nonlinearity is a ReLU; additive attention uses tanh.",
        attention(join=lambda query, key: torch.relu(query + key)),
        "Use torch.tanh.",
    )
    yield (
        "The nonlinearity is a sigmoid; additive attention uses tanh.",
        attention(join=lambda query, key: torch.sigmoid(query + key)),
        "Use torch.tanh.",
    )
    yield (
        "The scores are divided by the square root of d_hidden; scaling belongs to dot-product "
        "attention.",
        attention(scale="d_hidden"),
        "Leave the scores as v_a gives them.",
    )
    for width in ("d_query", "d_key"):
        yield (
            "The scores are divided by the square root of a width; scaling belongs to dot-product "
            "attention.",
            attention(scale=width),
            "Leave the scores as v_a gives them.",
        )
    for join in (lambda query, key: query + key, lambda query, key: torch.tanh(query + key)):
        yield (
            "tanh is applied to the scores, after v_a; it belongs between the layers.",
            attention(join=join, score=torch.tanh),
            "score = v_a(tanh(w_a(query) + u_a(key))).",
        )
    yield (
        "The layers are crossed: w_a belongs to the queries, u_a to the keys.",
        attention(crossed=True),
        "Apply self.w_a to query and self.u_a to key.",
    )
    for causal in (
        lambda mask, shape: True,
        lambda mask, shape: mask is None,
        lambda mask, shape: mask is None and shape[0] == shape[1],
    ):
        yield (
            "No query reads a later key, although only the mask may bar keys.",
            attention(causal=causal),
            "Leave the triangle to causal_mask: without a mask every query reads every key.",
        )
    for clear in (True, False):
        yield (
            "The softmax runs over the queries, so each key's weights sum to 1 instead of each "
            "query's.",
            attention(dim=-2, clear=clear),
            "The keys lie on the last axis of the scores: dim=-1.",
        )
        yield (
            "The mask is read the wrong way round: True means may attend, not masked.",
            attention(barred=lambda mask: mask, clear=clear),
            "Fill where ~mask, not where mask.",
        )
    yield (
        "The mask is never used.",
        attention(fill=None, clear=False),
        "Where it is False, set the score to -inf.",
    )
    yield (
        "The mask is applied after the softmax, so the weights of a masked row no longer sum to 1.",
        attention(fill=None),
        "Fill the scores with -inf where the mask is False, then take the softmax.",
    )
    for clear in (True, False):
        yield (
            "Masked scores are set to 0 instead of minus infinity; exp(0) is 1, so they still "
            "take part in the softmax.",
            attention(fill=0.0, clear=clear),
            "Fill the scores with -inf where the mask is False.",
        )
    for add in (True, False):
        yield (
            "A query that may attend to nothing gives NaN; its weights and output must be 0.",
            attention(add=add, clear=False),
            "After the softmax, set the weights to 0 where the mask is False.",
        )
        yield (
            "A large negative number stands for minus infinity, so a query that may attend to "
            "nothing averages everything instead of giving 0.",
            attention(add=add, fill=-1e9, clear=False),
            "Set the weights to 0 where the mask is False, after the softmax too.",
        )
    yield (
        "A query that may attend to nothing gives the right output, but NaN in the gradients.",
        attention(add=True),
        NAN_ON_THE_WAY_BACK,
    )
    for biased in (("w_a", "u_a", "v_a"), ("w_a", "u_a"), ("w_a",), ("u_a",)):
        yield (
            "The layers have biases; the exercise asks for three linear maps without.",
            attention(biased=biased),
            "Pass bias=False to each nn.Linear.",
        )
    yield (
        "v_a has a bias; it adds the same number to every score and drops out of the softmax.",
        attention(biased=("v_a",)),
        "Pass bias=False to v_a too.",
    )
    yield (
        "The two results come back in the wrong order: first the output, then the weights.",
        attention(swapped=True),
        "End with: return output, weights.",
    )
