"""What the cases of several chapters build and ask: masks, parameters, what two precisions give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

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


# Parameters.


def own_parameters(module: Subject) -> dict[str, nn.Parameter]:
    """The parameters of a learner's module by name, under every name that they have."""
    return dict(module.component.named_parameters(remove_duplicate=False))


def numbers(module: Subject) -> int:
    """How many numbers the parameters of a learner's module hold."""
    return sum(parameter.numel() for parameter in module.component.parameters())


def attention_parameters(prefix: str, d_model: int) -> dict[str, tuple[int, ...]]:
    """The parameters of chapter 2's multi-head attention and their shapes, behind ``prefix``."""
    return {
        f"{prefix}{layer}.{part}": shape
        for layer in ("w_q", "w_k", "w_v", "w_o")
        for part, shape in (("weight", (d_model, d_model)), ("bias", (d_model,)))
    }
