"""The training loop, once, so that a chapter shows only what is new in it."""

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbook import budget, journal

Batch = tuple[torch.Tensor, ...]


@dataclass
class History:
    """The curves of one run: entry i of the first three lists belongs to step i + 1.

    ``gradient_norm`` is the norm over all parameters, before clipping. ``evaluations`` holds
    what ``evaluate`` gave, as (step, {name: number}). ``seconds`` is the whole run.
    """

    loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, dict[str, float]]] = field(default_factory=list)
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
    learning_rate: float | Callable[[int], float] = 1e-3,
    seed: int = 0,
    title: str = "training",
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
    clip: float | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    every: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    precision: torch.dtype | None = None,
) -> History:
    """Train ``model`` in place, and return its curves.

    The model moves to ``budget.device()``, and is left in evaluation mode.

    Args:
        make_batch: ``make_batch(generator)`` draws one batch, a tuple of tensors on the CPU; the
            generator is seeded with ``seed``, so two models trained with the same seed see the
            same batches.
        loss_of: ``loss_of(model, *batch)`` returns a loss without axes.
        learning_rate: a number, or a schedule: step (from 1) -> number.
        optimizer: parameters -> optimizer; Adam where not given.
        clip: the largest norm of the gradient over all parameters; a longer one is shortened.
        evaluate: model -> {name: number}; asked every ``every`` steps and after the last, with
            the model in evaluation mode and without gradients.
        every: steps between evaluations, and between checkpoints.
        checkpoint: a file. Written every ``every`` steps and at the end; where it is there
            already, training goes on from it as if it had never stopped.
        precision: the data type that products of matrices are computed in. Where not given,
            bfloat16 on a card that computes in it (NVIDIA's since Ampere, 2020), else float32.

    Raises:
        ValueError: the loss has axes, or the checkpoint belongs to another run.
        FloatingPointError: the loss becomes NaN or infinite; the text says at which step.
    """
    device = budget.device()
    generator = budget.seed(seed)
    model.to(device).train()
    start = learning_rate if isinstance(learning_rate, float | int) else learning_rate(1)
    parameters = [p for p in model.parameters() if p.requires_grad]
    chosen = optimizer(parameters) if optimizer else torch.optim.Adam(parameters, lr=start)
    history = History()
    file = Path(checkpoint) if checkpoint else None
    if file and file.exists():
        history = _load(file, model, chosen, generator, device)
    if precision is None:
        precision = _precision(device)
    before = history.seconds
    started = time.perf_counter()
    # On stdout: whatever a notebook writes to stderr looks like an error, in Jupyter and graders.
    # No bar where nobody watches: its hundred states would all be kept in the page.
    hidden = budget.static() or budget.grading()
    first = len(history.loss) + 1
    with _bar(title, first - 1, steps, hidden) as bar:
        for step in range(first, steps + 1):
            rate = float(start if isinstance(learning_rate, float | int) else learning_rate(step))
            for group in chosen.param_groups:
                group["lr"] = rate
            batch = tuple(tensor.to(device) for tensor in make_batch(generator))
            with _autocast(device, precision):
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
                    + _where(model, step)
                )
            chosen.zero_grad()
            loss.backward()
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            if clip is not None:
                nn.utils.clip_grads_with_norm_(parameters, clip, norm)
            chosen.step()
            history.loss.append(value)
            history.learning_rate.append(rate)
            history.gradient_norm.append(float(norm))
            if bar is not None:
                bar.set_postfix_str(f"loss {value:.3f}", refresh=False)
                bar.update()
            due = step == steps or (every is not None and step % every == 0)
            if evaluate and due:
                model.eval()
                with torch.no_grad():
                    history.evaluations.append((step, dict(evaluate(model))))
                model.train()
            history.seconds = before + time.perf_counter() - started
            if file and due:
                _save(file, model, chosen, generator, history)
    model.eval()
    journal.note("training", title=title, seed=seed, model=model, history=history)
    if hidden and steps:
        print(
            f"{title}: {steps} steps in {history.seconds:.1f} s, "
            f"loss {history.loss[0]:.3f} -> {history.loss[-1]:.3f}"
        )
    return history


def count_parameters(model: nn.Module) -> int:
    """Return how many numbers training changes in ``model``."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _bar(title: str, done: int, steps: int, hidden: bool) -> Any:
    """A context that gives tqdm's bar, or None where nobody watches."""
    if hidden:
        return contextlib.nullcontext()
    from tqdm import tqdm  # here, so that recorded runs need it not

    return tqdm(total=steps, initial=done, desc=title, file=sys.stdout, ncols=76)


def _precision(device: torch.device) -> torch.dtype:
    # An older card, such as Colab's T4, imitates bfloat16, and is slower with it than without.
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.float32


def _autocast(device: torch.device, precision: torch.dtype) -> Any:
    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=precision)


def _where(model: nn.Module, step: int) -> str:
    """The first parameter that is not finite any more, in a sentence, or nothing."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f" The parameter {name} is no longer finite: the step before broke it."
    return " Every parameter is finite, so it arises in this step." if step > 1 else ""


def _save(
    file: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    history: History,
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": asdict(history),
        # Batches come from the generator, dropout from the global numbers.
        "generator": generator.get_state(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(file.name + ".unfinished")
    torch.save(state, unfinished)
    os.replace(unfinished, file)  # whole or not at all, whenever this process is killed


def _load(
    file: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    device: torch.device,
) -> History:
    try:
        # Weights only: a checkpoint may come from anywhere, and must not run code.
        state = torch.load(file, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        torch.set_rng_state(state["random"])
        if device.type == "cuda" and state["random_cuda"]:
            torch.cuda.set_rng_state_all(state["random_cuda"])
        return History(**state["history"])
    except Exception as error:  # torch.load raises whatever a damaged file leads to
        raise ValueError(
            f"The checkpoint {file} does not fit this model, or is damaged "
            f"({' '.join(str(error).split())[:200]}). Delete it to begin anew, or name another "
            "file."
        ) from error
