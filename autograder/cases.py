"""What the cases of several chapters build and ask: masks, parameters, what two precisions give."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autograder.complaints import Complaint
from autograder.inputs import Make
from autograder.runner import Subject

# Masks: boolean, True = may attend.


def lower_triangle(length: int) -> Tensor:
    """A causal mask, (length, length): square, and another one when it is transposed."""
    return torch.ones(length, length, dtype=torch.bool).tril()


def some_true(make: Make, *shape: int, empty: Sequence[Any] = ()) -> Tensor:
    """A random mask of that shape in which every query may attend to at least two keys.

    With a single key the weight is 1 whatever the scores are. What the indices of ``empty``
    select may attend to nothing.
    """
    mask = make.booleans(*shape)
    mask = mask | (mask.sum(dim=-1, keepdim=True) < 2) & (torch.arange(shape[-1]) < 2)
    for index in empty:
        mask[index] = False
    return make.watch(mask)


# Results.


def named(result: Sequence[Tensor], suffix: str = "") -> dict[str, Tensor]:
    """The two results of attention, (output, weights), as named outputs."""
    output, weights = result
    return {f"output{suffix}": output, f"weights{suffix}": weights}


def at_words(values: Tensor, ids: Tensor, pad_id: int = 0) -> Tensor:
    """What a model gives where there is a word: at padding, nobody looks.

    values (batch, length, ...), ids (batch, length) -> (words, ...); values of another shape come
    back as they are, for the judge to say so.
    """
    return values[ids != pad_id] if values.shape[:2] == ids.shape else values


def in_both_precisions(module: Subject, *inputs: Tensor) -> dict[str, Any]:
    """The dtype that a module in bfloat16 gives, and whether the values are near those of float32.

    Right ways to compute differ by a percent or so in bfloat16: its values are not compared.
    """
    short = module(*inputs)
    module.component.float()
    long = module(*(x.float() if x.is_floating_point() else x for x in inputs))
    return {
        "dtype": str(short.dtype),
        "shape": str(tuple(short.shape)),
        "values lie within 0.3 of those in float32": bool((short.float() - long).abs().max() < 0.3),
    }


def refusal(call: Callable[..., Any], *arguments: Any) -> tuple[str, set[int]]:
    """The error that a call raises, ``ValueError`` for its subclasses too, and its numbers."""
    try:
        call(*arguments)
    except Complaint:
        raise
    except Exception as error:
        name = "ValueError" if isinstance(error, ValueError) else type(error).__name__
        return name, {int(number) for number in re.findall(r"\d+", str(error))}
    return "nothing", set()


def dropped_share(change: Tensor, rate: float) -> bool:
    """Whether dropout made ``change`` of ones: a share of about ``rate`` is 0, the rest grew."""
    zero = change.abs() < 1e-5
    grown = (change - 1 / (1 - rate)).abs() < 1e-4
    share = float(zero.float().mean())
    return bool((zero | grown).all()) and abs(share - rate) < 0.06


# Parameters.


def own_parameters(module: Subject) -> dict[str, nn.Parameter]:
    """The parameters of a learner's module by name, under every name that they have."""
    return dict(module.component.named_parameters(remove_duplicate=False))


def numbers(module: Subject) -> int:
    """How many numbers the parameters of a learner's module hold."""
    return sum(parameter.numel() for parameter in module.component.parameters())


def missing(module: Subject, *arguments: Any) -> str:
    """The names of parameters that the exercise asks for and the learner's module lacks."""
    own = own_parameters(module)
    asked = module.exercise.parameters(*arguments) if module.exercise.parameters else {}
    return ", ".join(name for name in asked if name not in own)


def misshapen(module: Subject, *arguments: Any) -> str:
    """The parameters that have another shape than the exercise asks for, and the shape they have.

    Where a case fills the parameters this is a complaint; here it is an output, which can be told
    from other mistakes.
    """
    own = own_parameters(module)
    asked = module.exercise.parameters(*arguments) if module.exercise.parameters else {}
    return ", ".join(
        f"{name} {tuple(own[name].shape)}"
        for name, shape in asked.items()
        if name in own and tuple(own[name].shape) != tuple(shape)
    )


def silence(module: Subject, *layers: str) -> None:
    """Lets the linear layers whose names end in one of ``layers`` return 0."""
    with torch.no_grad():
        for name, parameter in own_parameters(module).items():
            if name.rpartition(".")[0].endswith(layers):
                parameter.zero_()


def hand_on(model: Subject, *embeddings: str) -> None:
    """Lets every sublayer of a model's blocks give 0, so that the blocks hand x on as it is.

    A mistake in a block then costs nothing here: the block has a check of its own. Not even a
    norm that stands at a wrong place shows through the last norm: all weights of the blocks' norms
    are the same, their biases are 0, and the vectors are so long that eps is no part of them.

    ``embeddings`` names the parameters whose sum goes into the first block.
    """
    silence(model, "w_o", "w_2", "norm1", "norm2")
    with torch.no_grad():
        for name, parameter in own_parameters(model).items():
            if name.endswith(("norm1.weight", "norm2.weight")):
                parameter.fill_(8.0)
            elif name in embeddings:
                parameter.mul_(8)


def half_of_a_sum(given: Tensor) -> tuple[dict[str, bool], Tensor]:
    """What dropout of half did to sums whose numbers were all alike, read off behind a plain norm.

    given (examples, length, d): what the norm gives. Returns named outputs, and which numbers were
    dropped, of the same shape.
    """
    low = given < given.mean(dim=-1, keepdim=True) - 1e-3
    ends = given.amin(-1, keepdim=True), given.amax(-1, keepdim=True)
    only_two = ((given - ends[0]).abs() < 1e-2) | ((given - ends[1]).abs() < 1e-2)
    return {
        "a number of the sum is dropped, or grows like all others": bool(only_two.all()),
        "about half of them are dropped": 0.44 < float(low.float().mean()) < 0.56,
    }, low


def dropped_after_sublayers(block: Subject, x: Tensor, rate: float) -> dict[str, bool]:
    """Whether a pre-norm block in training mode drops that share of what its sublayers give."""
    found = {}
    for what, last in (("the attention", "self_attn.w_o"), ("the network", "w_2")):
        silence(block, "w_o", "w_2")
        with torch.no_grad():
            own_parameters(block)[f"{last}.bias"].fill_(1.0)
        change = block(x.clone()) - x
        found[f"a share of {rate:g} of what {what} gives is dropped"] = dropped_share(change, rate)
    return found


def dropped_inside_sublayers(block: Subject, x: Tensor) -> dict[str, bool]:
    """Whether a pre-norm block with dropout of a half drops weights, and no hidden numbers.

    x (sequences, 1, d_model), for a block in training mode.
    """
    own = own_parameters(block)
    kept = own["w_2.weight"].detach().clone()
    silence(block, "w_2", "w_1")
    with torch.no_grad():
        own["self_attn.w_o.bias"].zero_()
        # With one key, the attention gives nothing where the only weight is dropped. The dropout
        # after it hardly ever drops all eight numbers.
        silent = (block(x.clone()) - x).abs().amax(dim=(1, 2)) < 1e-6
        # All sequences have the same hidden numbers; what w_2 makes of them is the same, unless
        # some were dropped.
        silence(block, "w_o")
        own["w_1.bias"].fill_(1.0)
        own["w_2.weight"].copy_(kept)
        given = (block(x.clone()) - x)[:, 0]  # (sequences, d_model)
    zero = given.abs() < 1e-6
    most, least = given.masked_fill(zero, -1e9).amax(dim=0), given.masked_fill(zero, 1e9).amin(0)
    return {
        "the attention drops half of its weights": 0.35 < float(silent.float().mean()) < 0.65,
        "the network drops no hidden numbers": bool((most - least < 1e-3).all()),
    }


def attention_parameters(prefix: str, d_model: int) -> dict[str, tuple[int, ...]]:
    """The parameters of chapter 2's multi-head attention and their shapes, behind ``prefix``."""
    return {
        f"{prefix}{layer}.{part}": shape
        for layer in ("w_q", "w_k", "w_v", "w_o")
        for part, shape in (("weight", (d_model, d_model)), ("bias", (d_model,)))
    }


def pre_norm_parameters(d_model: int, d_ff: int, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """The parameters of a pre-norm block of attention and network, as in GPT and ViT."""
    return {
        **attention_parameters(f"{prefix}self_attn.", d_model),
        **{
            f"{prefix}{norm}.{part}": (d_model,)
            for norm in ("norm1", "norm2")
            for part in ("weight", "bias")
        },
        f"{prefix}w_1.weight": (d_ff, d_model),
        f"{prefix}w_1.bias": (d_ff,),
        f"{prefix}w_2.weight": (d_model, d_ff),
        f"{prefix}w_2.bias": (d_model,),
    }


def blocks_parameters(d_model: int, num_layers: int, d_ff: int) -> dict[str, tuple[int, ...]]:
    """The parameters of a stack of such blocks, and of the norm behind it."""
    found: dict[str, tuple[int, ...]] = {"norm.weight": (d_model,), "norm.bias": (d_model,)}
    for layer in range(num_layers):
        found |= pre_norm_parameters(d_model, d_ff, f"blocks.{layer}.")
    return found


def patch_count(image_size: int | tuple[int, int], patch_size: int) -> int:
    """How many patches an image has: of so many pixels in a square, or of (height, width)."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return (height // patch_size) * (width // patch_size)


def patch_parameters(
    patch_size: int, channels: int, d_model: int, prefix: str = ""
) -> dict[str, tuple[int, ...]]:
    """The parameters of a patch embedding, behind ``prefix``."""
    return {
        f"{prefix}projection.weight": (d_model, patch_size * patch_size * channels),
        f"{prefix}projection.bias": (d_model,),
    }
