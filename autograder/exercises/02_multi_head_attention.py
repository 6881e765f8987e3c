"""Chapter 2: multi-head attention. Vaswani et al. 2017, section 3.2.2."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from autograder.cases import named, some_true
from autograder.exercise import Exercise, Returned
from autograder.runner import raises

# ---- split_heads ---------------------------------------------------------------------------

split_heads = Exercise(
    "multi_head/split_heads",
    points=2,
    signature="split_heads(x, num_heads)",
    returns=[Returned("heads", "(batch, num_heads, length, d_head)")],
)


def counted_up(*shape):
    """0, 1, 2, … in the given shape, so that a wrong place shows at a glance."""
    return torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape)


@split_heads.case(
    "two positions of width 6, three heads",
    next_step="Position 0 holds 0 to 5. Head 0 gets its first two numbers, 0 and 1, head 1 gets "
    "2 and 3, head 2 gets 4 and 5: first cut the last axis, then move the new axis.",
)
def _(split_heads, make):
    return {"heads": split_heads(counted_up(1, 2, 6), 3)}


@split_heads.case(
    "a batch, all sizes different",
    next_step="(batch, length, d_model) -> (batch, length, num_heads, d_head) -> (batch, "
    "num_heads, length, d_head): a reshape that touches the last axis only, then a transposition.",
)
def _(split_heads, make):
    return {"heads": split_heads(make.normal(2, 5, 12), 3)}


@split_heads.case(
    "batch, length, heads and d_head all three",
    weight=2,
    next_step="Where sizes are equal, a wrong order of the axes gives the right shape. Follow one "
    "position: all its heads must hold parts of its own vector.",
)
def _(split_heads, make):
    return {"heads": split_heads(make.normal(3, 3, 9), 3)}


@split_heads.case(
    "one head, and as many heads as columns",
    next_step="One head keeps all columns; d_model heads get one each. Keep axes of length 1.",
)
def _(split_heads, make):
    x = make.normal(2, 3, 4)
    return {"one head": split_heads(x, 1), "four heads of width 1": split_heads(x, 4)}


@split_heads.case(
    "a batch of one, a single position",
    next_step="Keep axes of length 1: no squeeze().",
)
def _(split_heads, make):
    return {
        "heads of a batch of one": split_heads(make.normal(1, 4, 6), 3),
        "heads of one position": split_heads(make.normal(2, 1, 6), 2),
    }


@split_heads.case(
    "a width that the heads cannot share",
    weight=0.5,
    next_step="Where d_model % num_heads is not 0, raise ValueError and say both numbers.",
)
def _(split_heads, make):
    x = make.normal(2, 3, 10)
    return {
        "heads, where five share ten columns": split_heads(x, 5),
        "raised where four heads share ten columns": raises(split_heads, x, 4),
        "raised where three heads share ten columns": raises(split_heads, x, 3),
        "raised where twenty heads share ten columns": raises(split_heads, x, 20),
    }


@split_heads.case(
    "inputs that are views, left as they were",
    next_step="Go by the axes, not by the order in memory: the axes of x may have been swapped.",
)
def _(split_heads, make):
    x, wide = make.normal(4, 2, 6), make.normal(2, 3, 16)
    return {
        "heads of a transposed input": split_heads(x.transpose(0, 1), 3),
        "heads of every other column": split_heads(wide[..., ::2], 2),
        "heads of columns that were rows": split_heads(x.transpose(1, 2), 2),
        "the inputs are unchanged": make.unchanged(),
    }


@split_heads.case(
    "float64, bfloat16 and whole numbers",
    weight=0.5,
    next_step="Nothing is computed here: the numbers move and keep their dtype.",
)
def _(split_heads, make):
    return {
        "heads in float64": split_heads(make.normal(2, 3, 8, dtype=torch.float64), 2),
        "heads in bfloat16": split_heads(make.normal(2, 3, 8, dtype=torch.bfloat16), 4),
        "heads of whole numbers": split_heads(make.integers(2**60, 2**61, 2, 3, 6), 3),
    }


@split_heads.case("gradients")
def _(split_heads, make):
    x = make.normal(2, 3, 8, grad=True)
    return make.gradients("heads", split_heads(x, 4), x=x)


@split_heads.case("other sizes", hidden=True)
def _(split_heads, make):
    return {
        "heads": split_heads(make.normal(4, 7, 30), 6),
        "heads, as many as positions": split_heads(make.normal(3, 5, 20), 5),
    }


@split_heads.misconceptions
def _():
    """Splitting with one thing wrong."""

    def refuse(x, num_heads):
        if x.size(-1) % num_heads:
            raise ValueError("num_heads does not divide d_model")

    def checked(split):
        def checked_split(x, num_heads):
            refuse(x, num_heads)
            return split(x, num_heads)

        return checked_split

    def right(x, num_heads):
        return x.reshape(*x.shape[:2], num_heads, -1).transpose(1, 2)

    def asserting(x, num_heads):
        assert x.size(-1) % num_heads == 0
        return right(x, num_heads)

    def cutting_off(x, num_heads):
        width = max(1, x.size(-1) // num_heads)
        return torch.stack(x[..., : width * num_heads].split(width, dim=-1)[:num_heads], dim=1)

    def folded(x, num_heads):
        return right(x, num_heads).flatten(0, 1)

    yield (
        "The numbers are reshaped straight into (batch, heads, length, d_head), which mixes "
        "positions: a head gets whole positions, cut into pieces.",
        checked(lambda x, h: x.reshape(x.size(0), h, x.size(1), -1)),
        "Cut only the last axis, reshape(batch, length, num_heads, d_head), and then "
        "transpose(1, 2).",
    )
    yield (
        "The columns are dealt out like cards: head h gets columns h, h + num_heads, … instead of "
        "d_head consecutive ones.",
        checked(lambda x, h: x.reshape(*x.shape[:2], -1, h).permute(0, 3, 1, 2)),
        "The last axis becomes (num_heads, d_head), in this order; then transpose(1, 2).",
    )
    for swapped in (
        lambda x, h: x.reshape(*x.shape[:2], -1, h).transpose(1, 2),
        lambda x, h: x.reshape(*x.shape[:2], x.size(-1) // h, h).permute(0, 2, 1, 3),
    ):
        yield (
            "num_heads and d_head are confused: there are d_head heads of width num_heads.",
            checked(swapped),
            "The last axis becomes (num_heads, d_head), with d_head = d_model // num_heads.",
        )
    yield (
        "The axes are not swapped: it returns (batch, length, heads, d_head).",
        checked(lambda x, h: x.reshape(*x.shape[:2], h, -1)),
        "Add transpose(1, 2), so that each head has a matrix (length, d_head) of its own.",
    )
    yield (
        "The heads are folded into the batch; the exercise asks for four axes.",
        checked(folded),
        "Keep the axis of the heads: (batch, num_heads, length, d_head).",
    )
    yield (
        "The heads come first and the batch second.",
        checked(lambda x, h: right(x, h).transpose(0, 1)),
        "The batch stays the first axis: (batch, num_heads, length, d_head).",
    )
    yield (
        "The last two axes are swapped: each head has (d_head, length) instead of "
        "(length, d_head).",
        checked(lambda x, h: right(x, h).transpose(-2, -1)),
        "Leave the transposition of the keys to attention, where the scores are made.",
    )
    yield (
        "Every head gets all columns; it should get its own d_head of them.",
        checked(lambda x, h: x.unsqueeze(1).expand(-1, h, -1, -1)),
        "Cut the last axis into num_heads parts of d_model // num_heads columns.",
    )
    yield (
        "Every head gets the same first d_head columns.",
        checked(lambda x, h: torch.stack([x[..., : x.size(-1) // h]] * h, dim=1)),
        "Head h gets the columns from h * d_head to (h + 1) * d_head.",
    )
    yield (
        "The heads come in reverse order.",
        checked(lambda x, h: right(x, h).flip(1)),
        "Head 0 gets the first d_head columns.",
    )
    yield (
        "Where num_heads does not divide d_model, the columns that are left over are dropped "
        "without a word.",
        cutting_off,
        "Raise ValueError where d_model % num_heads is not 0.",
    )
    yield (
        "Where num_heads does not divide d_model, torch's own RuntimeError comes up; the exercise "
        "asks for a ValueError that says what is wrong.",
        lambda x, num_heads: x.reshape(*x.shape[:2], num_heads, x.size(-1) // num_heads).transpose(
            1, 2
        ),
        "Test d_model % num_heads first, and raise ValueError with both numbers.",
    )
    yield (
        "An assert tests the width; the exercise asks for a ValueError, and python -O leaves "
        "asserts out.",
        asserting,
        "Write: if d_model % num_heads: raise ValueError(...).",
    )


# ---- merge_heads ---------------------------------------------------------------------------

merge_heads = Exercise(
    "multi_head/merge_heads",
    points=2,
    signature="merge_heads(x)",
    returns=[Returned("merged", "(batch, length, heads · d_head)")],
)


@merge_heads.case(
    "two heads of width 2, three positions",
    next_step="Head 0 holds 0, 1 at position 0, and head 1 holds 6, 7 there: position 0 becomes "
    "0, 1, 6, 7. Swap heads and length first, then join the last two axes.",
)
def _(merge_heads, make):
    return {"merged": merge_heads(counted_up(1, 2, 3, 2))}


@merge_heads.case(
    "a batch, all sizes different",
    next_step="(batch, heads, length, d_head) -> (batch, length, heads, d_head) -> (batch, length, "
    "heads * d_head).",
)
def _(merge_heads, make):
    return {"merged": merge_heads(make.normal(2, 3, 5, 4))}


@merge_heads.case(
    "batch, heads, length and d_head all three",
    weight=2,
    next_step="Where sizes are equal, a wrong order of the axes gives the right shape. Follow one "
    "position: it must get back its own numbers, head after head.",
)
def _(merge_heads, make):
    return {"merged": merge_heads(make.normal(3, 3, 3, 3))}


@merge_heads.case(
    "heads as split_heads leaves them, and a copy of them",
    next_step="Swapped axes do not lie in one block of memory: reshape or flatten copes with that, "
    "view does not.",
)
def _(merge_heads, make):
    x = make.normal(2, 5, 12)
    heads = x.reshape(2, 5, 3, 4).transpose(1, 2)
    return {
        "merged": merge_heads(heads),
        "merged, from a copy": merge_heads(heads.contiguous()),
    }


@merge_heads.case("one head, and heads of width 1", next_step="Keep axes of length 1.")
def _(merge_heads, make):
    return {
        "one head": merge_heads(make.normal(2, 1, 3, 4)),
        "four heads of width 1": merge_heads(make.normal(2, 4, 3, 1)),
    }


@merge_heads.case(
    "a batch of one, a single position",
    next_step="Keep axes of length 1: no squeeze().",
)
def _(merge_heads, make):
    return {
        "a batch of one": merge_heads(make.normal(1, 3, 4, 2)),
        "one position": merge_heads(make.normal(2, 3, 1, 2)),
    }


@merge_heads.case(
    "float64, bfloat16 and whole numbers, views among them, left as they were",
    weight=0.5,
    next_step="Nothing is computed here: the numbers move and keep their dtype, and the axes of x "
    "may have been swapped in any way.",
)
def _(merge_heads, make):
    wide = make.normal(2, 3, 4, 5, dtype=torch.float64)
    return {
        "merged in float64": merge_heads(wide.permute(3, 2, 0, 1)),
        "merged, every other column": merge_heads(wide[..., ::2]),
        "merged in bfloat16": merge_heads(make.normal(2, 3, 4, 2, dtype=torch.bfloat16)),
        "merged whole numbers": merge_heads(make.integers(2**60, 2**61, 2, 3, 4, 2)),
        "the inputs are unchanged": make.unchanged(),
    }


@merge_heads.case("gradients")
def _(merge_heads, make):
    x = make.normal(2, 3, 4, 2, grad=True)
    return make.gradients("merged tensor", merge_heads(x), x=x)


@merge_heads.case("other sizes", hidden=True)
def _(merge_heads, make):
    return {
        "merged": merge_heads(make.normal(4, 6, 7, 5)),
        "merged, as many heads as positions": merge_heads(make.normal(3, 5, 5, 2)),
    }


@merge_heads.misconceptions
def _():
    """Merging with one thing wrong."""

    def joined(x):
        return x.reshape(x.size(0), x.size(-2), -1)

    yield (
        "The heads are reshaped away without swapping the axes first, so a position gets numbers "
        "of other positions.",
        joined,
        "Swap heads and length with transpose(1, 2), then join the last two axes.",
    )
    yield (
        "The heads' columns are interleaved: first column 0 of every head, then column 1.",
        lambda x: x.permute(0, 2, 3, 1).flatten(2),
        "Position by position, one head's d_head numbers follow the other's: transpose(1, 2), "
        "then flatten(2).",
    )
    yield (
        "The heads are added up; they should stand side by side.",
        lambda x: x.sum(dim=1),
        "Join the axes heads and d_head into one; every number is kept.",
    )
    yield (
        "The heads are averaged; they should stand side by side.",
        lambda x: x.mean(dim=1) if x.is_floating_point() else x.sum(dim=1) // x.size(1),
        "Join the axes heads and d_head into one; every number is kept.",
    )
    yield (
        "The heads follow each other along the length, not along the width.",
        lambda x: x.flatten(1, 2),
        "Concatenate along the last axis: (batch, length, heads * d_head).",
    )
    yield (
        "The axes are swapped but not joined: four axes come back.",
        lambda x: x.transpose(1, 2),
        "Join the last two axes: flatten(2), or reshape(batch, length, -1).",
    )
    for axes in ((2, 3), (1, 3)):
        yield (
            "The wrong axes are swapped; it is heads and length that change places.",
            lambda x, axes=axes: x.transpose(*axes).reshape(x.size(0), x.size(2), -1),
            "With (batch, heads, length, d_head) it is transpose(1, 2).",
        )
    yield (
        "The result has its last two axes swapped: (batch, heads · d_head, length).",
        lambda x: x.transpose(2, 3).flatten(1, 2),
        "The length comes before the width: (batch, length, heads * d_head).",
    )
    yield (
        "Batch and heads are swapped.",
        lambda x: x.permute(1, 2, 0, 3).flatten(2),
        "The batch stays the first axis: transpose(1, 2) leaves it alone.",
    )
    yield (
        "The heads come in reverse order.",
        lambda x: x.flip(1).transpose(1, 2).flatten(2),
        "Head 0 comes first: its numbers are the first d_head of each position.",
    )
    yield (
        "Only the first head comes back, once for every head.",
        lambda x: x[:, :1].expand_as(x).transpose(1, 2).flatten(2),
        "Put the heads side by side, one after the other.",
    )


# ---- multi-head attention ------------------------------------------------------------------

multi_head = Exercise(
    "multi_head/MultiHeadAttention",
    points=6,
    signature="MultiHeadAttention(d_model, num_heads, dropout=0.0), "
    "forward(query, key, value, mask=None)",
    returns=[
        Returned("output", "(batch, L_q, d_model)"),
        Returned("weights", "(batch, heads, L_q, L_k)"),
    ],
    without=["multi_head_attention", "scaled_dot_product_attention"],
    parameters=lambda d_model, num_heads, dropout=0.0: {
        f"{layer}.{kind}": (d_model, d_model)[: 2 if kind == "weight" else 1]
        for layer in ("w_q", "w_k", "w_v", "w_o")
        for kind in ("weight", "bias")
    },
)


def copies(*tensors):
    """A copy of each: what a call changes in place, another case tells."""
    return [tensor.clone() for tensor in tensors]


def pass_through(attend, *layers):
    """Makes layers of a module the identity, so that what lies between them shows."""
    own = dict(attend.component.named_parameters())
    with torch.no_grad():
        for layer in layers:
            own[f"{layer}.weight"].copy_(torch.eye(own[f"{layer}.weight"].size(0)))
            own[f"{layer}.bias"].zero_()


@multi_head.case(
    "every layer the identity: two heads, each on its own columns",
    next_step="Head 0 compares and reads columns 0 to 2 only, head 1 columns 3 to 5; both divide "
    "their scores by the root of 3. Print split_heads(x, 2) and the scores of one head.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 6, 2)
    pass_through(attend, "w_q", "w_k", "w_v", "w_o")
    return named(attend(make.normal(1, 5, 6), make.normal(1, 4, 6), make.normal(1, 4, 6)))


@multi_head.case(
    "self-attention of five positions, three heads of width 4",
    next_step="Project, split, attend with every head, merge, project: w_q, w_k and w_v in front, "
    "w_o behind.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 12, 3)
    x = make.normal(2, 5, 12)
    output, weights = attend(*copies(x, x, x))
    return {"output": output, "weights": weights, "sums of weights": weights.sum(dim=-1)}


@multi_head.case(
    "cross-attention: four queries, seven keys, values of their own",
    next_step="w_q reads the query, w_k the key and w_v the value. Take every length from the "
    "tensor itself: queries and keys differ.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 12, 2)
    return named(attend(make.normal(3, 4, 12), make.normal(3, 7, 12), make.normal(3, 7, 12)))


@multi_head.case(
    "batch, heads, length and d_head all three",
    weight=2,
    next_step="Where sizes are equal, axes that are mixed up raise no error. Write the shape "
    "behind every line, with names instead of numbers.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 9, 3)
    return named(attend(make.normal(3, 3, 9), make.normal(3, 3, 9), make.normal(3, 3, 9)))


@multi_head.case(
    "one head, and as many heads as columns",
    next_step="With one head d_head is d_model; with d_model heads it is 1, and so is its root.",
)
def _(multi_head, make):
    inputs = make.normal(2, 3, 4), make.normal(2, 5, 4), make.normal(2, 5, 4)
    one, four = make.module(multi_head, 4, 1), make.module(multi_head, 4, 4)
    return named(one(*copies(*inputs)), ", one head") | named(four(*inputs), ", four heads")


@multi_head.case(
    "the parameters: four linear layers with bias",
    next_step="w_q, w_k, w_v and w_o are nn.Linear(d_model, d_model), with bias, which is the "
    "default; there is nothing else to learn.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 6, 3)
    found = attend.component.named_parameters()
    return {
        "parameters": ", ".join(sorted(f"{name} {tuple(p.shape)}" for name, p in found)),
        **named(attend(make.normal(1, 2, 6), make.normal(1, 3, 6), make.normal(1, 3, 6))),
    }


@multi_head.case(
    "a width that the heads cannot share",
    weight=0.5,
    next_step="In __init__, where d_model % num_heads is not 0: raise ValueError, and say both "
    "numbers.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 10, 5)
    x = make.normal(1, 3, 10)
    return {
        "output, where five heads share ten columns": attend(x, x, x)[0],
        "raised where four heads share ten columns": raises(multi_head, 10, 4),
        "raised where three heads share eight columns": raises(multi_head, 8, 3),
        "raised where twenty heads share ten columns": raises(multi_head, 10, 20),
    }


@multi_head.case(
    "one mask for all sequences, (L_q, L_k)",
    next_step="Broadcasting aligns the last axes: (L_q, L_k) fits (batch, heads, L_q, L_k) as it "
    "is.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 18, 3)
    query, key, value = make.normal(2, 4, 18), make.normal(2, 5, 18), make.normal(2, 5, 18)
    return named(attend(query, key, value, some_true(make, 4, 5)))


@multi_head.case(
    "a mask for each sequence, (batch, 1, L_k)",
    next_step="The scores have an axis for the heads, the mask has none: mask.unsqueeze(1) puts "
    "one behind the batch.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 18, 3)
    query, key, value = make.normal(2, 4, 18), make.normal(2, 5, 18), make.normal(2, 5, 18)
    mask = torch.tensor([[[True, True, True, True, False]], [[True, True, False, False, False]]])
    return named(attend(query, key, value, mask))


@multi_head.case(
    "a mask for each query of each sequence, (batch, L_q, L_k)",
    next_step="The scores have an axis for the heads, the mask has none: mask.unsqueeze(1) puts "
    "one behind the batch.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 18, 3)
    query, key, value = make.normal(2, 4, 18), make.normal(2, 5, 18), make.normal(2, 5, 18)
    return named(attend(query, key, value, some_true(make, 2, 4, 5)))


@multi_head.case(
    "masks of every shape, where batch, heads and length are all three",
    weight=2,
    next_step="Where batch and heads are equal, a mask without an axis for the heads is read head "
    "by head, and no error tells. A mask of three axes needs one at place 1; (L_q, L_k) needs none "
    "or one in front.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 9, 3)
    inputs = make.normal(3, 3, 9), make.normal(3, 3, 9), make.normal(3, 3, 9)
    each = torch.tensor([[[True, True, True]], [[True, True, False]], [[False, True, True]]])
    causal = torch.ones(3, 3, dtype=torch.bool).tril()
    return (
        named(attend(*copies(*inputs), causal), " with (L_q, L_k)")
        | named(attend(*copies(*inputs), each), " with (batch, 1, L_k)")
        | named(attend(*copies(*inputs), each & causal), " with (batch, L_q, L_k)")
    )


@multi_head.case(
    "a query that may attend to nothing",
    weight=2,
    next_step="Its weights are 0 and so is what its heads read; w_o then adds its bias. Set the "
    "weights to 0 where the mask is False.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 8, 2)
    query, key, value = make.normal(3, 4, 8), make.normal(3, 5, 8), make.normal(3, 5, 8)
    mask = some_true(make, 3, 4, 5, empty=[(0, 1), (2,)])
    nothing = torch.zeros(4, 5, dtype=torch.bool)
    return named(attend(*copies(query, key, value), nothing), " where every key is barred") | named(
        attend(query, key, value, mask)
    )


@multi_head.case(
    "what is masked does not matter",
    next_step="A masked key must have weight exactly 0 in every head, so that its value cannot "
    "show.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 8, 4)
    query, key, value = make.normal(2, 3, 8), make.normal(2, 5, 8), make.normal(2, 5, 8)
    mask = torch.tensor([[[True, True, False, True, False]], [[True, True, False, False, True]]])
    before, _ = attend(*copies(query, key, value, mask))
    barred = ~mask[:, 0]
    key[barred], value[barred] = 5.0, 1000.0
    after, weights = attend(query, key, value, mask.clone())
    return {
        "output": before,
        "change of the output when masked keys and values change": (after - before).abs().max(),
        "sums of weights": weights.sum(dim=-1),
    }


@multi_head.case(
    "scores that lie far apart, under a mask",
    next_step="Set the barred scores to -inf before anything else is made of them: a barred key "
    "may have the largest score, and an allowed one may lie below -100 or -10000.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 8, 2)
    pass_through(attend, "w_q", "w_k")
    query, key = torch.zeros(1, 2, 8), torch.zeros(1, 3, 8)
    # Scores of 200, 0 and -2000 for the first query, of ten times as much for the second.
    query[0, :, ::4] = torch.tensor([[20.0], [200.0]])
    key[0, :, ::4] = torch.tensor([[20.0], [0.0], [-200.0]])
    value = make.normal(1, 3, 8)

    def weights(*mask):
        return attend(*copies(query, key, value), torch.tensor([[mask]]))[1]

    return {
        "weights where the largest score is barred": weights(False, True, True),
        "weights where only the smallest is allowed": weights(False, False, True),
    }


@multi_head.case(
    "a batch of one, one query, one key",
    next_step="Keep axes of length 1: no squeeze().",
)
def _(multi_head, make):
    attend = make.module(multi_head, 4, 2)
    key, value = make.normal(1, 3, 4), make.normal(1, 3, 4)
    single = attend(make.normal(1, 1, 4), make.normal(1, 1, 4), make.normal(1, 1, 4))
    mask = torch.tensor([[[True, False, True]]])
    return named(attend(make.normal(1, 1, 4), key, value, mask)) | named(single, " of one key")


@multi_head.case(
    "several calls and two modules: nothing is carried over",
    next_step="Keep nothing from one call to the next: neither a mask nor keys nor lengths.",
)
def _(multi_head, make):
    attend, other = make.module(multi_head, 6, 2), make.module(multi_head, 4, 2)
    first = make.normal(2, 3, 6), make.normal(2, 5, 6), make.normal(2, 5, 6)
    attend(*copies(*first), some_true(make, 3, 5))
    x, y = make.normal(1, 2, 4), make.normal(2, 4, 6)
    return (
        named(attend(*first), " without a mask after one with it")
        | named(other(x, x, x), " of a second module")
        | named(attend(y, y, y), " at another length")
    )


@multi_head.case(
    "dropout of 0.5 in evaluation mode does nothing",
    weight=2,
    next_step="nn.Dropout knows the mode; F.dropout must be told: training=self.training.",
)
def _(multi_head, make):
    attend, plain = make.module(multi_head, 12, 3, 0.5), make.module(multi_head, 12, 3)
    query, key, value = make.normal(2, 4, 12), make.normal(2, 5, 12), make.normal(2, 5, 12)
    attend.eval()
    plain.eval()
    output, weights = attend(*copies(query, key, value))
    expected = plain(query, key, value)
    return named(expected, " without dropout") | {
        "how many values of the output dropout changes": _changed(output, expected[0]),
        "how many of the weights dropout changes": _changed(weights, expected[1]),
    }


def _changed(got, expected):
    """How many values differ. Which ones is up to chance, so a case cannot send them."""
    return int(((got - expected).abs() > 1e-4).sum())


@multi_head.case(
    "dropout of 1 in training mode: every weight is dropped",
    next_step="Dropout acts on the weights: where all are dropped, the heads read 0 and the output "
    "is the bias of w_o. The weights that come back are those before dropout.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 12, 3, 1.0)
    mask = some_true(make, 2, 4, 5)
    attend.train()
    return named(attend(make.normal(2, 4, 12), make.normal(2, 5, 12), make.normal(2, 5, 12), mask))


@multi_head.case(
    "dropout of 0.25 in training mode acts on the weights",
    next_step="After the softmax, before the product with the values: a quarter of the weights "
    "becomes 0, and the others grow by 1 / (1 - 0.25).",
)
def _(multi_head, make):
    attend = make.module(multi_head, 24, 3, 0.25)
    pass_through(attend, "w_v", "w_o")
    attend.train()
    # Each value is a row of the unit matrix, written twice, so what a head reads are the weights
    # that act, twice.
    value = torch.eye(4).repeat(1, 6).expand(8, 4, 24).contiguous()
    output, weights = attend(make.normal(8, 16, 24), make.normal(8, 4, 24), value)
    read = output.reshape(8, 16, 3, 2, 4).permute(3, 0, 2, 1, 4)  # 2, batch, heads, query, key
    acting, twin = read[0], read[1]
    dropped = acting.abs() < 1e-7
    grown = (acting - weights / 0.75).abs() < 1e-5
    return {
        "each row of the returned weights sums to 1": _changed(weights.sum(dim=-1), 1.0) == 0,
        "every weight that acts is 0 or 4/3 of the one returned": bool((dropped | grown).all()),
        "those that are left have grown": bool((acting > 1.1 * weights).any()),
        "a weight acts alike on all columns that it reads": _changed(acting, twin) == 0,
        "about a quarter of the weights is dropped": 0.15 < float(dropped.float().mean()) < 0.35,
        "each sequence drops its own": bool((dropped != dropped[:1]).any()),
        "each head drops its own": bool((dropped != dropped[:, :1]).any()),
        "each query drops its own": bool((dropped != dropped[:, :, :1]).any()),
        "each key is dropped by itself": bool((dropped != dropped[..., :1]).any()),
    }


@multi_head.case(
    "float64 inputs that are views, left as they were",
    next_step="Stay in the dtype of the inputs: a detour through float32, or a new tensor without "
    "dtype=x.dtype, shows in float64. Go by the axes, not by the order in memory.",
)
def _(multi_head, make):
    # The root of 4 is exact: a scale that was kept in float32 is no mistake, but a detour is.
    attend = make.module(multi_head, 8, 2, dtype=torch.float64)
    query = make.normal(3, 8, 5, dtype=torch.float64)
    key = make.normal(4, 3, 8, dtype=torch.float64)
    value = make.normal(3, 4, 16, dtype=torch.float64)
    mask = some_true(make, 4, 5).T
    result = attend(query.transpose(1, 2), key.transpose(0, 1), value[..., ::2], mask)
    return named(result) | {"the inputs are unchanged": make.unchanged()}


@multi_head.case(
    "masks and inputs are left as they were",
    next_step="A line changes what the caller passed in. Make a new tensor, as in "
    "mask = mask.unsqueeze(1).",
)
def _(multi_head, make):
    attend = make.module(multi_head, 6, 3)
    query, key, value = make.normal(2, 3, 6), make.normal(2, 4, 6), make.normal(2, 4, 6)
    masks = (
        some_true(make, 3, 4, empty=[(1,)]),
        some_true(make, 2, 1, 4, empty=[(0,)]),
        some_true(make, 2, 3, 4, empty=[(0, 1)]),
    )
    outputs = {
        f"output, mask of shape {tuple(mask.shape)}": attend(query, key, value, mask)[0]
        for mask in masks
    }
    return outputs | {"the inputs are unchanged": make.unchanged()}


@multi_head.case(
    "gradients of inputs and parameters, with a mask",
    next_step="Every input and every layer takes part: look for .detach(), .data or "
    "torch.no_grad() on the way.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 6, 3)
    own = dict(attend.component.named_parameters())
    scored = {"query": make.normal(2, 3, 6, grad=True), "key": make.normal(2, 4, 6, grad=True)}
    scored |= {name: own[name] for name in own if name.startswith(("w_q", "w_k"))}
    value = make.normal(2, 4, 6, grad=True)
    read = {name: own[name] for name in own if name.startswith(("w_v", "w_o"))}
    mask = some_true(make, 2, 1, 4)
    output, weights = attend(scored["query"], scored["key"], value, mask)
    return {
        **make.gradients("weights", weights, **scored),
        **make.gradients("output", output, value=value, **scored, **read),
    }


@multi_head.case(
    "gradients where a query may attend to nothing",
    weight=0.5,
    next_step="0/0 or inf - inf is made first and its result replaced afterwards; on the way back "
    "it is still NaN. Fill the barred scores with masked_fill, before the softmax: what is filled "
    "passes no gradient on, NaN or not.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 6, 2)
    own = dict(attend.component.named_parameters())
    inputs = {
        "query": make.normal(2, 3, 6, grad=True),
        "key": make.normal(2, 4, 6, grad=True),
        "value": make.normal(2, 4, 6, grad=True),
    }
    output, _ = attend(*inputs.values(), some_true(make, 2, 3, 4, empty=[(0, 1), (1,)]))
    layers = {name: own[name] for name in ("w_q.weight", "w_k.weight", "w_v.weight")}
    return {"output": output, **make.gradients("output", output, **inputs, **layers)}


@multi_head.case(
    "bfloat16, with a mask",
    weight=0.5,
    next_step="Let every new tensor have the dtype of the inputs: dtype=query.dtype.",
)
def _(multi_head, make):
    attend = make.module(multi_head, 8, 2, dtype=torch.bfloat16)
    query, key, value = (make.normal(2, 4, 8, dtype=torch.bfloat16) for _ in range(3))
    output, weights = attend(query, key, value, some_true(make, 2, 1, 4))
    # bfloat16 keeps two or three digits, and every order of the products rounds in its own way.
    # An eighth is exact, and the tolerance for numbers near 0 is eight times as wide for it.
    return {"an eighth of the output": output / 8, "an eighth of the weights": weights / 8}


@multi_head.case("other sizes", hidden=True)
def _(multi_head, make):
    attend = make.module(multi_head, 30, 5)
    query, key, value = make.normal(4, 7, 30), make.normal(4, 6, 30), make.normal(4, 6, 30)
    mask = some_true(make, 4, 1, 6, empty=[(2,)])
    return named(attend(*copies(query, key, value))) | named(
        attend(query, key, value, mask), " with a mask"
    )


@multi_head.case("as many sequences as heads", hidden=True)
def _(multi_head, make):
    attend = make.module(multi_head, 16, 4)
    query, key, value = make.normal(4, 4, 16), make.normal(4, 5, 16), make.normal(4, 5, 16)
    return named(
        attend(*copies(query, key, value), some_true(make, 4, 1, 5)), " (4, 1, 5)"
    ) | named(attend(query, key, value, some_true(make, 4, 4, 5)), " (4, 4, 5)")


@multi_head.misconceptions
def _():
    """Multi-head attention with one thing wrong at a time."""

    def split(x, heads):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    def merge(x):
        return x.transpose(1, 2).flatten(2)

    def with_head_axis(mask, heads):
        return mask.unsqueeze(1) if mask.ndim == 3 else mask

    def refuse(d_model, num_heads):
        if d_model % num_heads:
            raise ValueError("num_heads does not divide d_model")

    def asserting(d_model, num_heads):
        assert d_model % num_heads == 0

    def on_the_weights(place, x, rate, training):
        return F.dropout(x, rate, training) if place == "weights" else x

    def attention(
        refuse=refuse,
        layers=("w_q", "w_k", "w_v", "w_o"),
        linear=lambda layer, x: layer(x),
        take=lambda query, key, value: (query, key, value),
        split=split,
        split_value=None,
        merge=merge,
        scale=lambda d_model, heads, keys: math.sqrt(d_model // heads),
        place=with_head_axis,
        barred=lambda mask: ~mask,
        fill=-math.inf,
        add=False,
        clear=True,
        causal=lambda mask, shape: False,
        gather=lambda scores: scores,
        normalize=lambda scores: torch.softmax(scores, dim=-1),
        acting=lambda weights: weights,
        drop=on_the_weights,
        at_the_end=lambda output, query, mask: output,
        result=lambda output, weights, acting, plain, scores: (output, weights),
    ):
        class Attention(nn.Module):
            def __init__(self, d_model, num_heads, dropout=0.0):
                super().__init__()
                refuse(d_model, num_heads)
                self.w_q, self.w_k, self.w_v, self.w_o = (
                    nn.Linear(d_model, d_model) for _ in range(4)
                )
                self.heads, self.dropout = num_heads, dropout

            def project(self, layer, x):
                return linear(getattr(self, layer), x) if layer else x

            def forward(self, query, key, value, mask=None):
                heads, d_model, given = self.heads, query.size(-1), mask

                def dropped(place, x):
                    return drop(place, x, self.dropout, self.training)

                projected = zip(layers, take(query, key, value), strict=False)
                q, k, v = (self.project(layer, x) for layer, x in projected)
                q, k, v = split(q, heads), split(k, heads), (split_value or split)(v, heads)
                scores = gather(q @ k.mT / scale(d_model, heads, k.size(-2)))
                scores = dropped("raw scores", scores)
                plain = normalize(scores)
                shape = scores.shape[-2:]
                if causal(mask, shape):
                    triangle = torch.ones(shape, dtype=torch.bool).tril()
                    mask = triangle if mask is None else mask & triangle
                if mask is not None:
                    mask = place(mask, heads)
                    if add:
                        scores = scores + torch.zeros_like(scores).masked_fill(barred(mask), fill)
                    elif fill is not None:
                        scores = scores.masked_fill(barred(mask), fill)
                weights = normalize(dropped("scores", scores))
                if mask is not None and clear:
                    weights = weights.masked_fill(barred(mask), 0.0)
                used = dropped("weights", acting(weights))
                read = dropped("heads", used @ dropped("value", v))
                output = dropped("output", self.project(layers[3], merge(read)))
                output = at_the_end(output, query, given)
                return result(output, weights, used, plain, scores)

        return Attention

    # The scores.
    yield (
        "The scores are divided by the square root of d_model; each head's vectors are only d_head "
        "wide.",
        attention(scale=lambda d_model, heads, keys: math.sqrt(d_model)),
        "d_head = d_model // num_heads: divide by math.sqrt(d_head).",
    )
    yield (
        "The scores are not divided by the square root of d_head.",
        attention(scale=lambda d_model, heads, keys: 1.0),
        "Divide the scores by math.sqrt(d_model // num_heads) before the softmax.",
    )
    yield (
        "The scores are divided by d_head, not by its square root.",
        attention(scale=lambda d_model, heads, keys: d_model // heads),
        "The standard deviation of the scores grows as the square root of d_head: divide by it.",
    )
    yield (
        "The scores are scaled by the number of heads instead of the width of a head, d_head.",
        attention(scale=lambda d_model, heads, keys: math.sqrt(heads)),
        "Divide by math.sqrt(d_model // num_heads).",
    )
    yield (
        "The scores are scaled by the number of keys instead of the width of a head, d_head.",
        attention(scale=lambda d_model, heads, keys: math.sqrt(keys)),
        "After the split d_head is the last axis of the queries: q.size(-1).",
    )
    yield (
        "The scores are scaled twice: by the root of d_head and by that of d_model.",
        attention(scale=lambda d_model, heads, keys: d_model / math.sqrt(heads)),
        "If the attention that you call divides by the root of d_head, do not divide again.",
    )

    # The layers.
    yield (
        "w_o is never used: the heads come back side by side, as they are.",
        attention(layers=("w_q", "w_k", "w_v", None)),
        "Merge the heads, then return self.w_o(merged).",
    )
    yield (
        "Neither query, key nor value is projected.",
        attention(layers=(None, None, None, "w_o")),
        "Begin with self.w_q(query), self.w_k(key) and self.w_v(value).",
    )
    yield (
        "The value is not projected.",
        attention(layers=("w_q", "w_k", None, "w_o")),
        "Use self.w_v(value).",
    )
    yield (
        "One layer projects query, key and value alike.",
        attention(layers=("w_q", "w_q", "w_q", "w_o")),
        "Each has a layer of its own: w_q, w_k, w_v.",
    )
    yield (
        "The query's layer projects the key too.",
        attention(layers=("w_q", "w_q", "w_v", "w_o")),
        "Use self.w_k(key).",
    )
    yield (
        "The key's layer projects the value too.",
        attention(layers=("w_q", "w_k", "w_k", "w_o")),
        "Use self.w_v(value).",
    )
    yield (
        "The value's layer projects the key, and the key's layer the value.",
        attention(layers=("w_q", "w_v", "w_k", "w_o")),
        "w_k belongs to the key, w_v to the value.",
    )
    yield (
        "The key's layer projects the query, and the query's layer the key.",
        attention(layers=("w_k", "w_q", "w_v", "w_o")),
        "w_q belongs to the query, w_k to the key.",
    )
    yield (
        "w_v and w_o are confused: the output's layer projects the value.",
        attention(layers=("w_q", "w_k", "w_o", "w_v")),
        "w_v belongs to the value, w_o comes last.",
    )
    yield (
        "The weight matrices are used untransposed, x @ weight; nn.Linear computes "
        "x @ weight.T + bias.",
        attention(linear=lambda layer, x: x @ layer.weight + layer.bias),
        "Call the layers, as in self.w_q(query), or transpose their weights.",
    )
    yield (
        "The biases of the layers are left out.",
        attention(linear=lambda layer, x: x @ layer.weight.T),
        "Call the layers, as in self.w_q(query): they add their bias.",
    )

    # What is read.
    for layers in (("w_q", "w_k", "w_v", "w_o"), ("w_q", "w_k", "w_k", "w_o")):
        yield (
            "The keys are used as values: the argument value is never read.",
            attention(layers=layers, take=lambda query, key, value: (query, key, key)),
            "Project and read the value: self.w_v(value).",
        )
    yield (
        "The queries are made from the key: the argument query is never read.",
        attention(take=lambda query, key, value: (key, key, value)),
        "Project the query: self.w_q(query).",
    )
    yield (
        "Queries, keys and values are all made from the query: this is self-attention only.",
        attention(take=lambda query, key, value: (query, query, query)),
        "Use self.w_q(query), self.w_k(key) and self.w_v(value).",
    )

    # The heads.
    def mixing(x, heads):
        return x.reshape(x.size(0), heads, x.size(1), -1)

    def dealing(x, heads):
        return x.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2)

    def swapped(x, heads):
        return x.unflatten(-1, (-1, heads)).transpose(1, 2)

    def unmixed(x):
        return x.reshape(x.size(0), x.size(2), -1)

    yield (
        "The heads are split by a reshape straight to (batch, heads, length, d_head), which mixes "
        "positions.",
        attention(split=mixing),
        "Cut only the last axis, reshape(batch, length, num_heads, d_head), and then "
        "transpose(1, 2): your split_heads does it.",
    )
    yield (
        "Heads are both split and merged by a reshape alone, without swapping axes, which mixes "
        "positions.",
        attention(split=mixing, merge=unmixed),
        "Split with reshape and then transpose(1, 2); merge with transpose(1, 2) and then reshape.",
    )
    yield (
        "The heads are merged without swapping the axes back first, so a position gets numbers of "
        "other positions.",
        attention(merge=unmixed),
        "transpose(1, 2) first, then join the last two axes: your merge_heads does it.",
    )
    yield (
        "The columns are dealt out to the heads like cards, instead of d_head consecutive ones to "
        "each.",
        attention(split=dealing),
        "The last axis becomes (num_heads, d_head), in this order.",
    )
    yield (
        "The columns are dealt out to the heads like cards, and collected in the same way.",
        attention(split=dealing, merge=lambda x: x.permute(0, 2, 3, 1).flatten(2)),
        "The last axis becomes (num_heads, d_head), in this order, when splitting and when "
        "merging.",
    )
    yield (
        "The heads' columns are interleaved when they are merged: first column 0 of every head, "
        "then column 1.",
        attention(merge=lambda x: x.permute(0, 2, 3, 1).flatten(2)),
        "Position by position, one head's d_head numbers follow the other's: merge_heads.",
    )
    yield (
        "num_heads and d_head are confused: there are d_head heads of width num_heads.",
        attention(split=swapped, scale=lambda d_model, heads, keys: math.sqrt(heads)),
        "The last axis becomes (num_heads, d_head), with d_head = d_model // num_heads.",
    )
    for per_head in (
        lambda x, heads: split(x, heads)[:, :1].expand(-1, heads, -1, -1),
        lambda x, heads: torch.stack([split(x, heads)[:, 0]] * heads, dim=1),
    ):
        yield (
            "Every head works on the same first d_head columns.",
            attention(split=per_head),
            "Head h works on the columns from h * d_head to (h + 1) * d_head.",
        )
    yield (
        "The heads attend, but they all read the values of the first head.",
        attention(split_value=lambda x, heads: split(x, heads)[:, :1].expand(-1, heads, -1, -1)),
        "Split the values like queries and keys: each head reads its own columns.",
    )
    yield (
        "There is one set of weights for all heads, the mean of theirs.",
        attention(acting=lambda weights: weights.mean(dim=1, keepdim=True).expand_as(weights)),
        "Each head multiplies its own weights with its own values.",
    )
    for shared in ("d_head", "d_model"):
        yield (
            "The scores are made over the full width, so all heads have the same weights; only "
            "the values are split.",
            attention(
                scale=lambda d_model, heads, keys, shared=shared: math.sqrt(
                    d_model if shared == "d_model" else d_model // heads
                ),
                gather=lambda scores: scores.sum(dim=1, keepdim=True).expand_as(scores),
            ),
            "Split queries and keys into heads before the scores are made.",
        )
    yield (
        "The heads come in reverse order when they are merged.",
        attention(merge=lambda x: merge(x.flip(1))),
        "Head 0 comes first: its numbers are the first d_head of each position.",
    )

    def folded(x, heads):
        return torch.cat(x.chunk(heads, dim=-1)).view(x.size(0), heads, x.size(1), -1)

    yield (
        "Heads and sequences are mixed up: all sequences of head 0 come first, but they are read "
        "as all heads of sequence 0.",
        attention(split=folded),
        "torch.cat of the heads along the batch gives (heads * batch, …). Use transpose(1, 2) "
        "instead, or torch.stack(…, dim=1).",
    )

    # The softmax.
    for clear in (True, False):
        yield (
            "The softmax runs over the queries, so each key's weights sum to 1 instead of each "
            "query's.",
            attention(normalize=lambda scores: torch.softmax(scores, dim=-2), clear=clear),
            "The keys lie on the last axis of the scores: dim=-1.",
        )
        yield (
            "The softmax runs over the heads, so they compete with each other.",
            attention(normalize=lambda scores: torch.softmax(scores, dim=1), clear=clear),
            "The keys lie on the last axis of the scores: dim=-1.",
        )
        yield (
            "One softmax runs over the keys of all heads together, so the heads share a sum of 1.",
            attention(
                normalize=lambda scores: (
                    torch.softmax(scores.transpose(1, 2).flatten(2), dim=-1)
                    .unflatten(-1, (scores.size(1), -1))
                    .transpose(1, 2)
                ),
                clear=clear,
            ),
            "Every head has a softmax of its own, over the last axis: dim=-1.",
        )

    # The mask.
    def first_head_only(mask, heads):
        others = torch.arange(heads)[:, None, None] > 0
        return with_head_axis(mask, heads) | others

    def repeated(mask, heads):
        if mask.ndim == 2:
            return mask
        return mask.repeat(heads, 1, 1).reshape(mask.size(0), heads, *mask.shape[1:])

    no_head_axis = (
        "The mask gets no axis for the heads, so (batch, L_q, L_k) is read head by head: an error "
        "for most shapes, wrong weights where batch and heads are equal.",
        "Put an axis behind the batch: mask.unsqueeze(1) where the mask has three axes.",
    )
    behind_the_query = (
        "The axis for the heads is put behind the queries, so the mask's batch meets the heads.",
        "It stands behind the batch: mask.unsqueeze(1), which gives (batch, 1, L_q, L_k).",
    )
    for_all_masks = (
        "Every mask gets an axis at place 1; (L_q, L_k) becomes (L_q, 1, L_k), so its queries meet "
        "the heads.",
        "Only a mask of three axes needs it. unsqueeze(-3) is right for both.",
    )
    as_padding = (
        "A mask of two axes is taken for (batch, L_k); the exercise says (L_q, L_k).",
        "(L_q, L_k) broadcasts over batch and heads as it is.",
    )
    for clear in (True, False):
        yield (
            no_head_axis[0],
            attention(place=lambda mask, heads: mask, clear=clear),
            no_head_axis[1],
        )
        yield (
            no_head_axis[0],
            attention(place=lambda mask, heads: mask.unsqueeze(0), clear=clear),
            no_head_axis[1],
        )
        yield (
            behind_the_query[0],
            attention(
                place=lambda mask, heads: mask.unsqueeze(2) if mask.ndim == 3 else mask, clear=clear
            ),
            behind_the_query[1],
        )
        yield (
            for_all_masks[0],
            attention(place=lambda mask, heads: mask.unsqueeze(1), clear=clear),
            for_all_masks[1],
        )
        yield (
            as_padding[0],
            attention(
                place=lambda mask, heads: mask[:, None, None] if mask.ndim == 2 else mask[:, None],
                clear=clear,
            ),
            as_padding[1],
        )
        yield (
            "The mask is repeated for the heads in the wrong order, so a head of one sequence gets "
            "the mask of another.",
            attention(place=repeated, clear=clear),
            "Broadcast with mask.unsqueeze(1). Where heads are folded into the batch, it is "
            "repeat_interleave(num_heads, dim=0), not repeat.",
        )
        yield (
            "Masks with a batch axis are not used.",
            attention(
                place=lambda mask, heads: (
                    mask if mask.ndim == 2 else torch.ones(1, dtype=torch.bool)
                ),
                clear=clear,
            ),
            "A mask of three axes needs one more for the heads: mask.unsqueeze(1).",
        )
        yield (
            "The mask is read the wrong way round: True means may attend, not masked.",
            attention(barred=lambda mask: mask, clear=clear),
            "Fill where ~mask, not where mask.",
        )
        yield (
            "Masked scores are set to 0 instead of minus infinity; exp(0) is 1, so they still "
            "take part in the softmax.",
            attention(fill=0.0, clear=clear),
            "Fill the scores with -inf where the mask is False.",
        )
        yield (
            "Only the first head obeys the mask.",
            attention(
                place=first_head_only,
                clear=clear,
            ),
            "The axis for the heads has length 1, so that the mask broadcasts over all of them.",
        )
    yield (
        "The mask is never used.",
        attention(fill=None, clear=False),
        "Pass it on to the attention, with an axis for the heads where it has three.",
    )
    yield (
        "The mask is applied after the softmax, so the weights of a masked row no longer sum to 1.",
        attention(fill=None),
        "Fill the scores with -inf where the mask is False, then take the softmax.",
    )
    yield (
        "The mask is transposed: its rows are the queries, its columns the keys.",
        attention(place=lambda mask, heads: with_head_axis(mask, heads).mT),
        "Use the mask as it is, with an axis for the heads.",
    )
    for add in (True, False):
        yield (
            "A query that may attend to nothing gives NaN; its weights and what it reads must be "
            "0.",
            attention(add=add, clear=False),
            "After the softmax, set the weights to 0 where the mask is False.",
        )
    for add, fill in ((False, -1e9), (True, -1e9)):
        yield (
            "A large negative number stands for minus infinity, so a query that may attend to "
            "nothing averages everything instead of reading 0.",
            attention(add=add, fill=fill, clear=False),
            "Set the weights to 0 where the mask is False, after the softmax too.",
        )
    yield (
        "Where a query may attend to nothing the output is set to 0. Its heads read 0, but w_o "
        "adds its bias to that.",
        attention(
            at_the_end=lambda output, query, mask: (
                output if mask is None else output.masked_fill(~mask.any(dim=-1, keepdim=True), 0.0)
            )
        ),
        "Set the weights to 0 instead, before they multiply the values.",
    )
    for fill in (-100.0, -1e3, -1e4):
        yield (
            "Barred scores are set to a number such as -100 or -10000; an allowed score may lie "
            "below it.",
            attention(fill=fill),
            "Fill with minus infinity, which no score lies below.",
        )
    yield (
        "A query that may attend to nothing gives the right output, but NaN in the gradients.",
        attention(add=True),
        "Fill the barred scores with masked_fill, before the softmax: what is filled passes no "
        "gradient on, NaN or not.",
    )
    for causal in (
        lambda mask, shape: True,
        lambda mask, shape: mask is None,
        lambda mask, shape: mask is None and shape[0] == shape[1],
    ):
        yield (
            "No query reads a later key, although only the mask may bar keys.",
            attention(causal=causal),
            "Leave the triangle to the caller: without a mask every query reads every key.",
        )

    # The dropout.
    def dropping(where):
        def drop(place, x, rate, training):
            return F.dropout(x, rate, training) if place == where else x

        return drop

    for scores in ("raw scores", "scores"):
        yield (
            "Dropout acts on the scores, before the softmax; a score of 0 is a score like any "
            "other.",
            attention(drop=dropping(scores)),
            "Apply it to the weights, after the softmax.",
        )
    yield (
        "Dropout acts on the values; it belongs on the weights.",
        attention(drop=dropping("value")),
        "Apply it to the weights, between the softmax and the product with the values.",
    )
    yield (
        "Dropout acts on what the heads read, before w_o; it belongs on the weights.",
        attention(drop=dropping("heads")),
        "Apply it to the weights, between the softmax and the product with the values.",
    )
    yield (
        "Dropout acts on the output, after w_o; it belongs on the weights.",
        attention(drop=dropping("output")),
        "Apply it to the weights, between the softmax and the product with the values.",
    )
    yield (
        "Dropout is never applied.",
        attention(drop=lambda place, x, rate, training: x),
        "Apply nn.Dropout(dropout) to the weights before they multiply the values.",
    )
    yield (
        "Dropout acts in evaluation mode too.",
        attention(
            drop=lambda place, x, rate, training: F.dropout(x, rate) if place == "weights" else x
        ),
        "Use a layer, self.dropout = nn.Dropout(dropout), or F.dropout(…, training=self.training).",
    )
    yield (
        "Dropout acts in evaluation mode and not in training mode.",
        attention(
            drop=lambda place, x, rate, training: (
                F.dropout(x, rate, not training) if place == "weights" else x
            )
        ),
        "Pass training=self.training on to F.dropout, or use nn.Dropout.",
    )
    yield (
        "The weights that are left after dropout are not made larger by 1 / (1 - dropout).",
        attention(
            drop=lambda place, x, rate, training: (
                x * (torch.rand_like(x) >= rate) if training and place == "weights" else x
            )
        ),
        "Use nn.Dropout or F.dropout, which keep the expected sum.",
    )
    yield (
        "The weights that come back are those after dropout; the exercise asks for those before.",
        attention(result=lambda output, weights, acting, plain, scores: (output, acting)),
        "Keep the two apart: return weights, but multiply dropout(weights) with the values.",
    )

    # What comes back.
    yield (
        "The weights are averaged over the heads, as nn.MultiheadAttention does by default.",
        attention(
            result=lambda output, weights, acting, plain, scores: (output, weights.mean(dim=1))
        ),
        "Return the weights of all heads: (batch, heads, L_q, L_k).",
    )
    yield (
        "The weights are averaged over the heads, and their axis is kept.",
        attention(
            result=lambda output, weights, acting, plain, scores: (
                output,
                weights.mean(dim=1, keepdim=True).expand_as(weights),
            )
        ),
        "Return the weights of all heads: (batch, heads, L_q, L_k).",
    )
    yield (
        "The output is right, but the weights that come back are those before the mask.",
        attention(result=lambda output, weights, acting, plain, scores: (output, plain)),
        "Return the same weights that multiply the values.",
    )
    yield (
        "What comes back as weights are the scores, before the softmax.",
        attention(result=lambda output, weights, acting, plain, scores: (output, scores)),
        "Return the softmax of the scores.",
    )
    yield (
        "The weights come back with the length before the heads.",
        attention(
            result=lambda output, weights, acting, plain, scores: (output, weights.transpose(1, 2))
        ),
        "Return (batch, heads, L_q, L_k), as the scores were made.",
    )
    yield (
        "The two results come back in the wrong order: first the output, then the weights.",
        attention(result=lambda output, weights, acting, plain, scores: (weights, output)),
        "End with: return output, weights.",
    )
    yield (
        "The query is added to the output; the residual connection belongs to the layer around "
        "it, in chapter 4.",
        attention(at_the_end=lambda output, query, mask: output + query),
        "Return what w_o gives.",
    )
    yield (
        "The constructor takes a num_heads that does not divide d_model, and no error says so.",
        attention(refuse=lambda d_model, num_heads: None),
        "In __init__, raise ValueError where d_model % num_heads is not 0.",
    )
    yield (
        "An assert tests the width; the exercise asks for a ValueError, and python -O leaves "
        "asserts out.",
        attention(refuse=asserting),
        "Write: if d_model % num_heads: raise ValueError(...).",
    )


# ---- attention_flops -----------------------------------------------------------------------

flops = Exercise(
    "multi_head/attention_flops",
    points=2,
    signature="attention_flops(length, d_model, num_heads)",
    returns=[Returned("operations", type=int)],
)


@flops.case(
    "two positions of width 4, two heads",
    next_step="A product of (m, k) and (k, n) takes 2·m·k·n operations. The four layers multiply "
    "(2, 4) by (4, 4): 64 each, 256 in all. A head's scores, (2, 2) by (2, 2), take 16 and so does "
    "its weighted sum: 64 for two heads. Together 320.",
)
def _(flops, make):
    return {"operations": flops(2, 4, 2)}


@flops.case(
    "one position: scores and weighted sum remain",
    next_step="With one position there is still one score a head, and one value to weigh.",
)
def _(flops, make):
    return {"operations, width 8": flops(1, 8, 2), "operations, width 1": flops(1, 1, 1)}


@flops.case(
    "sizes drawn at random",
    weight=2,
    next_step="Write the shapes of both factors of all six products, and add up 2·m·k·n.",
)
def _(flops, make):
    heads, width = int(make.integers(3, 7)), int(make.integers(7, 12))
    length = int(make.integers(13, 30))
    return {
        "operations": flops(length, heads * width, heads),
        "operations at twice the length": flops(2 * length, heads * width, heads),
    }


@flops.case(
    "the paper's layer, 512 wide with 8 heads, and a sequence longer than wide",
    next_step="The layers grow with the length, scores and weighted sums with its square.",
)
def _(flops, make):
    return {"100 positions": flops(100, 512, 8), "3,000 positions": flops(3000, 512, 8)}


@flops.case(
    "the number of heads does not change the count",
    next_step="More heads are narrower heads: num_heads times 2·n·n·d_head is 2·n·n·d_model.",
)
def _(flops, make):
    length = int(make.integers(5, 20))
    return {
        f"operations of {heads} head{'s' * (heads > 1)}": flops(length, 24, heads)
        for heads in (1, 2, 6, 24)
    }


@flops.case(
    "a width that the heads cannot share",
    weight=0.5,
    next_step="Where d_model % num_heads is not 0, raise ValueError and say both numbers.",
)
def _(flops, make):
    length = int(make.integers(5, 20))
    return {
        "operations where five heads share ten columns": flops(length, 10, 5),
        "raised where four heads share ten columns": raises(flops, length, 10, 4),
        "raised where twenty heads share ten columns": raises(flops, length, 10, 20),
    }


@flops.case(
    "a very long sequence, to the last digit",
    weight=0.5,
    next_step="Whole numbers are exact in Python at any size; floating-point numbers are not "
    "beyond 2^53. Leave out /, 2.0 and ** 0.5: multiply int with int, and divide with //.",
)
def _(flops, make):
    length = 1_000_003 + 2 * int(make.integers(0, 1000))
    return {"operations, in figures": str(flops(length, 12_285, 9))}


@flops.case("other sizes", hidden=True)
def _(flops, make):
    heads, width = int(make.integers(2, 9)), int(make.integers(10, 99))
    return {"operations": flops(int(make.integers(100, 900)), heads * width, heads)}


@flops.misconceptions
def _():
    """Counting with one thing wrong."""

    def count(projections=8, products=4, layer=lambda n, d, h: n * d * d, extra=None, times=None):
        def flops(length, d_model, num_heads):
            if d_model % num_heads:
                raise ValueError("num_heads does not divide d_model")
            total = projections * layer(length, d_model, num_heads)
            total += products * length * length * d_model
            if extra:
                total += extra(length, d_model, num_heads)
            return total * (times(num_heads) if times else 1)

        return flops

    def in_floating_point(formula):
        def flops(length, d_model, num_heads):
            if d_model % num_heads:
                raise ValueError("num_heads does not divide d_model")
            return int(formula(float(length), float(d_model), float(num_heads)))

        return flops

    floating = (
        in_floating_point(lambda n, d, h: 8 * n * d**2 + 4 * n**2 * d),
        in_floating_point(lambda n, d, h: 4 * n * d * (2 * d + n)),
        in_floating_point(lambda n, d, h: 8 * n * d**2 + h * 4 * n**2 * (d / h)),
    )

    def unchecked(length, d_model, num_heads):
        return 8 * length * d_model**2 + 4 * length**2 * d_model

    def rounding_down(length, d_model, num_heads):
        d_head = d_model // num_heads
        return 8 * length * d_model**2 + 4 * num_heads * length**2 * d_head

    def asserting(length, d_model, num_heads):
        assert d_model % num_heads == 0
        return unchecked(length, d_model, num_heads)

    yield (
        "A multiply-add is counted as one operation; it is two, a product and a sum.",
        count(projections=4, products=2),
        "Multiply the count by 2.",
    )
    yield (
        "The four layers w_q, w_k, w_v and w_o are not counted.",
        count(projections=0),
        "Each multiplies (length, d_model) by (d_model, d_model): 2 * length * d_model**2.",
    )
    yield (
        "Only the four layers are counted, not the scores and the weighted sums.",
        count(products=0),
        "Each of the two takes 2 * length**2 * d_model operations, over all heads.",
    )
    yield (
        "Three layers are counted; the fourth, w_o, is missing.",
        count(projections=6),
        "w_o multiplies (length, d_model) by (d_model, d_model) too.",
    )
    yield (
        "One layer is counted; there are four: w_q, w_k, w_v and w_o.",
        count(projections=2),
        "Multiply 2 * length * d_model**2 by 4.",
    )
    yield (
        "Scores and weighted sums are counted half: one of the two products is missing, or their "
        "multiply-adds are counted once.",
        count(products=2),
        "There are two products, scores and weighted sums, of 2 * length**2 * d_model each.",
    )
    yield (
        "The layers are counted half: two of the four are missing, or their multiply-adds are "
        "counted once.",
        count(projections=4),
        "There are four layers of 2 * length * d_model**2 each.",
    )
    yield (
        "Scores and weighted sums are counted with the full width for every head; a head is only "
        "d_model // num_heads wide.",
        count(products=0, extra=lambda n, d, h: 4 * h * n * n * d),
        "num_heads heads of width d_head make num_heads * d_head = d_model.",
    )
    yield (
        "The layers are counted once for every head; one layer serves all heads.",
        count(projections=0, extra=lambda n, d, h: 8 * h * n * d * d),
        "Each of the four layers is applied once: 2 * length * d_model**2.",
    )
    yield (
        "The whole count is multiplied by the number of heads, though the heads share the width.",
        count(times=lambda h: h),
        "The heads together are d_model wide: their number cancels out.",
    )
    yield (
        "Scores and weighted sums are counted for one head only.",
        count(products=0, extra=lambda n, d, h: 4 * n * n * (d // h)),
        "Multiply them by num_heads.",
    )
    yield (
        "The layers are counted as if they were d_head wide; they give d_model numbers, those of "
        "all heads.",
        count(projections=0, extra=lambda n, d, h: 8 * n * d * (d // h)),
        "Each layer multiplies (length, d_model) by (d_model, d_model).",
    )
    yield (
        "Length and width are confused: the layers grow with the width squared, scores and "
        "weighted sums with the length squared.",
        count(
            projections=8,
            products=0,
            layer=lambda n, d, h: n * n * d,
            extra=lambda n, d, h: 4 * n * d * d,
        ),
        "8 * length * d_model**2 for the layers, 4 * length**2 * d_model for the rest.",
    )
    for per_score in (1, 2, 3, 4, 5):
        yield (
            "The softmax or the scaling is counted too; the exercise asks for the matrix products "
            "alone.",
            count(extra=lambda n, d, h, per_score=per_score: per_score * h * n * n),
            "Leave out what is done number by number.",
        )
    for layers in (4, 3, 1):
        yield (
            "The biases are counted too; the exercise asks for the matrix products alone.",
            count(extra=lambda n, d, h, layers=layers: layers * n * d),
            "Leave out what is done number by number.",
        )
    yield (
        "The backward pass is counted too.",
        count(times=lambda h: 3),
        "Count one forward pass.",
    )
    yield (
        "The parameters are counted, not the operations.",
        lambda length, d_model, num_heads: count(
            projections=0, products=0, extra=lambda n, d, h: 4 * d * d + 4 * d
        )(length, d_model, num_heads),
        "Every parameter of a layer takes part once for each of the positions.",
    )
    for counting in floating:
        yield (
            "The count goes through floating-point numbers, which are exact only up to 2^53.",
            counting,
            "Use whole numbers throughout, and // where you divide.",
        )
    for counting in (unchecked, rounding_down):
        yield (
            "num_heads need not divide d_model, and no error says so.",
            counting,
            "Raise ValueError where d_model % num_heads is not 0.",
        )
    yield (
        "An assert tests the width; the exercise asks for a ValueError, and python -O leaves "
        "asserts out.",
        asserting,
        "Write: if d_model % num_heads: raise ValueError(...).",
    )
