"""The training loop, once, so that a chapter shows only what is new in it."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from tqdm import tqdm

from workbook import budget

Batch = tuple[torch.Tensor, ...]


@dataclass
class History:
    """The curve of one run: ``loss[i]`` belongs to step i + 1; ``seconds`` is the whole run."""

    loss: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def smooth(self, window: int = 25) -> list[float]:
        """Return the loss, each value the mean of itself and up to ``window - 1`` before it."""
        sums = [0.0]
        for value in self.loss:
            sums.append(sums[-1] + value)
        first = [max(0, i + 1 - window) for i in range(len(self.loss))]
        return [(sums[i + 1] - sums[first[i]]) / (i + 1 - first[i]) for i in range(len(self.loss))]


def train(
    model: nn.Module,
    make_batch: Callable[[torch.Generator], Batch],
    loss_of: Callable[..., torch.Tensor],
    *,
    steps: int,
    learning_rate: float = 1e-3,
    seed: int = 0,
    title: str = "training",
) -> History:
    """Train ``model`` in place with Adam, and return its loss curve.

    ``make_batch(generator)`` draws one batch, a tuple of tensors on the CPU; the generator is
    seeded with ``seed``, so two models trained with the same seed see the same batches.
    ``loss_of(model, *batch)`` returns a loss without axes. The model moves to
    ``budget.device()``, and is left in evaluation mode. Raises ``ValueError`` where the loss
    has axes, ``FloatingPointError`` where it becomes NaN or infinite.
    """
    device = budget.device()
    generator = budget.seed(seed)
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    history = History()
    started = time.perf_counter()
    # On stdout: whatever a notebook writes to stderr looks like an error, in Jupyter and graders.
    # No bar where nobody watches: its hundred states would all be kept in the page.
    hidden = budget.static() or budget.grading()
    with tqdm(total=steps, desc=title, file=sys.stdout, ncols=76, disable=hidden) as bar:
        for step in range(1, steps + 1):
            batch = tuple(tensor.to(device) for tensor in make_batch(generator))
            loss = loss_of(model, *batch)
            if loss.ndim:
                raise ValueError(
                    f"loss_of returned a tensor of shape {tuple(loss.shape)}. "
                    "Return one number: average over the batch with .mean()."
                )
            value = loss.item()
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"The loss is {value} at step {step} of {steps}. Look for a softmax over a "
                    "row of -inf, a division by zero, or a learning rate that is too high."
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.loss.append(value)
            bar.set_postfix_str(f"loss {value:.3f}", refresh=False)
            bar.update()
    history.seconds = time.perf_counter() - started
    model.eval()
    if hidden and steps:
        print(
            f"{title}: {steps} steps in {history.seconds:.1f} s, "
            f"loss {history.loss[0]:.3f} -> {history.loss[-1]:.3f}"
        )
    return history


def count_parameters(model: nn.Module) -> int:
    """Return how many numbers training changes in ``model``."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
