"""Seeded inputs for the cases of an exercise.

The stream comes from SHAKE-256, so no version of Python, numpy or torch changes it: a reference
pack recorded today is judged against the same inputs in ten years.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autograder.complaints import Complaint

# Values lie on a grid that float32 holds exactly. Rounding to it also hides the last-digit
# differences between the logarithms and cosines of different machines.
_GRID = 4096.0


def key_of(seed: int, *path: str) -> str:
    """What the inputs of one case are made from: it tells neither the seed nor other inputs."""
    return hashlib.sha256("\0".join((str(seed), *path)).encode()).hexdigest()


class Make:
    """Makes the inputs of one case; every draw is new, every run gives the same ones.

    Args:
        seed: the pack's seed. Another seed gives other inputs.
        path: what the inputs are for (exercise, case); other paths give other inputs.
    """

    def __init__(self, seed: int, *path: str) -> None:
        self._key = key_of(seed, *path)
        self._draws = 0
        self._made: list[tuple[Tensor, Tensor]] = []

    @classmethod
    def keyed(cls, key: str) -> Make:
        """The one of the case whose :func:`key_of` is given."""
        made = cls(0)
        made._key = key
        return made

    def normal(
        self,
        *shape: int,
        dtype: torch.dtype = torch.float32,
        scale: float = 1.0,
        shift: float = 0.0,
        grad: bool = False,
    ) -> Tensor:
        """Normally distributed values of the given shape; ``grad`` asks for gradients."""
        values = self._normal(self._next(), shape)
        tensor = torch.from_numpy(values * scale + shift).to(dtype)
        return self.watch(tensor.requires_grad_(grad))

    def uniform(
        self, low: float, high: float, *shape: int, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Uniform values in [low, high) of the given shape."""
        values = low + (high - low) * self._uniform(self._next(), shape)
        return self.watch(torch.from_numpy(np.round(values * _GRID) / _GRID).to(dtype))

    def integers(
        self, low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64
    ) -> Tensor:
        """Whole numbers in [low, high) of the given shape."""
        values = low + np.floor((high - low) * self._uniform(self._next(), shape))
        return self.watch(torch.from_numpy(np.asarray(values, dtype=np.int64)).to(dtype))

    def booleans(self, *shape: int, share: float = 0.5) -> Tensor:
        """True with probability ``share``, of the given shape."""
        return self.watch(torch.from_numpy(self._uniform(self._next(), shape) < share))

    def tensor(self, data: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
        """A tensor of given values that :meth:`unchanged` watches too."""
        return self.watch(torch.tensor(data, dtype=dtype))

    def unchanged(self) -> bool:
        """Whether every tensor made for this case still holds what it held at first."""
        return all(
            made.shape == copy.shape and torch.equal(made.detach(), copy)
            for made, copy in self._made
        )

    def module(self, build: Any, *arguments: Any, dtype: torch.dtype = torch.float32) -> Any:
        """Builds the learner's module and fills its parameters *by name*.

        Neither the order in which layers were created nor how they were initialized matters.

        Raises:
            Complaint: parameters are missing or have another shape than the exercise states.
        """
        subject = build(*arguments)
        self.fill(subject.component, build.exercise.parameters(*arguments))
        subject.component.to(dtype)
        return subject

    def fill(self, module: nn.Module, parameters: Mapping[str, Sequence[int]]) -> None:
        """Fills ``module``'s parameters by name; extra ones become 0 (a case reports them)."""
        # A matrix that is shared has several names; torch lists it under the first alone.
        own = dict(module.named_parameters(remove_duplicate=False))
        missing = [name for name in parameters if name not in own]
        if missing:
            raise Complaint(
                "parameters",
                f"The module has no parameter {_names(missing)}. "
                f"It has {_names(sorted(own)) if own else 'no parameters at all'}; "
                f"the exercise asks for {_names(list(parameters))}.",
                "Leave bias=True, the default of nn.Linear."
                if all(name.endswith(".bias") for name in missing)
                else "Name the layers as the exercise does, and create them in __init__ as "
                "attributes of self.",
            )
        for name, shape in parameters.items():
            found = tuple(own[name].shape)
            if found != tuple(shape):
                raise Complaint(
                    "parameters",
                    f"The parameter {name} has shape {found}; "
                    f"the exercise asks for {tuple(shape)}.",
                    "Check the order of in_features and out_features in that layer."
                    if found == tuple(shape)[::-1]
                    else "Check the widths of that layer: what goes in, and what comes out?",
                )
        asked = {id(own[name]) for name in parameters}
        with torch.no_grad():
            for name, parameter in own.items():
                if name in parameters:
                    # A fan-in scale keeps activations near 1, where every tolerance is meant.
                    fan_in = parameter.shape[-1] if parameter.ndim > 1 else 1
                    values = self._normal(f"parameter {name}", tuple(parameter.shape))
                    parameter.copy_(torch.from_numpy(values / fan_in**0.5))
                elif id(parameter) not in asked:
                    parameter.zero_()

    def gradients(self, of: str, output: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """Gradients of a fixed weighted sum of ``output``, as named outputs of a case.

        Args:
            of: what ``output`` is, in a word.
            output: from where the gradient flows.
            inputs: to where it must flow, by name.

        Raises:
            Complaint: no gradient reaches an input.
        """
        frozen = [name for name, tensor in inputs.items() if not tensor.requires_grad]
        if frozen:
            raise Complaint(
                "gradient",
                f"No gradient is asked for at {_names(frozen)}: requires_grad is False.",
                "Leave requires_grad as it is: what is frozen does not learn.",
            )
        weights = torch.from_numpy(self._normal(self._next(), tuple(output.shape)))
        cut = list(inputs)
        if output.requires_grad:
            found = torch.autograd.grad(
                (output * weights.to(output.dtype)).sum(),
                list(inputs.values()),
                allow_unused=True,
                retain_graph=True,  # a case may ask about another output of the same call
            )
            gradients = dict(zip(inputs, found, strict=True))
            cut = [name for name, gradient in gradients.items() if gradient is None]
            if not cut:
                return {
                    f"gradient of {name} through the {of}": gradient
                    for name, gradient in gradients.items()
                }
        raise Complaint(
            "gradient",
            f"No gradient flows from the {of} back to {_names(cut)}.",
            "Look for .detach(), .data, .item(), torch.no_grad(), numpy or torch.tensor(...) "
            f"on the way to the {of}: each cuts the graph.",
        )

    def watch(self, tensor: Tensor) -> Tensor:
        """Lets :meth:`unchanged` look at this tensor too, as it is now."""
        self._made.append((tensor, tensor.detach().clone()))
        return tensor

    def _next(self) -> str:
        self._draws += 1
        return f"draw {self._draws}"

    def _uniform(self, label: str, shape: Sequence[int]) -> np.ndarray:
        count = math.prod(shape)
        stream = hashlib.shake_256(f"{self._key}\0{label}".encode()).digest(8 * count)
        bits = np.frombuffer(stream, dtype="<u8").astype(np.uint64) >> np.uint64(11)
        return (bits.astype(np.float64) / 2.0**53).reshape(tuple(shape))

    def _normal(self, label: str, shape: Sequence[int]) -> np.ndarray:
        # Box-Muller; 1 - u lies in (0, 1], so the logarithm is finite.
        radius = np.sqrt(-2.0 * np.log(1.0 - self._uniform(label + "/radius", shape)))
        angle = 2.0 * np.pi * self._uniform(label + "/angle", shape)
        # asarray: of no axes, numpy makes a number.
        return np.asarray(np.round(radius * np.cos(angle) * _GRID) / _GRID)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)
