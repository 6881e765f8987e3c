"""What measurements of models share: sides that take turns, their ratios, and the plainest loop."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from workbook import budget

# How far the first losses of two sides may be apart: rounding, no more.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}

# Prepares a run of so many steps or tokens; what it returns is timed.
Side = Callable[[int], Callable[[], Any]]


@dataclass
class Run:
    """One run of one side: what came of it, and its seconds by the clock and of this process."""

    result: Any
    wall: float
    cpu: float


def library() -> Any:
    """The package ``transformers``, or None where it is not installed."""
    try:
        import transformers
    except ImportError:
        return None
    return transformers


@torch.no_grad()
def add_noise(model: nn.Module, size: float) -> None:
    """Moves every parameter a little, biases and norms too."""
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=size)


def plain_loop(
    model: nn.Module,
    make_batch: Callable[[torch.Generator], tuple[torch.Tensor, ...]],
    loss_of: Callable[..., torch.Tensor],
    steps: int,
    make_optimizer: Callable[[Any], torch.optim.Optimizer],
    precision: torch.dtype,
    schedule: Callable[[int], float] | None = None,
    clip: float | None = None,
) -> list[torch.Tensor]:
    """The loop that everybody writes first. Returns the losses."""
    generator = budget.seed(0)
    device = next(model.parameters()).device
    optimizer = make_optimizer(model.parameters())
    model.train()
    computing = contextlib.nullcontext()
    if precision != torch.float32:
        computing = torch.autocast(device.type, precision)
    losses = []
    for step in range(1, steps + 1):
        if schedule:
            for group in optimizer.param_groups:
                group["lr"] = schedule(step)
        batch = [tensor.to(device) for tensor in make_batch(generator)]
        with computing:
            loss = loss_of(model, *batch)
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        losses.append(loss.detach())
    return losses


def timed(work: Callable[[], Any]) -> Run:
    """Does it once, and waits for the graphics card where there is one."""
    wait = torch.cuda.synchronize if budget.device().type == "cuda" else lambda: None
    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wait()
    return Run(result, time.perf_counter() - wall, time.process_time() - cpu)


def take_turns(
    sides: Mapping[str, Side], amount: int, rounds: int, warm: int
) -> dict[str, list[Run]]:
    """The runs of each side, A B C A B C …, after a short one that does not count."""
    for side in sides.values():
        side(warm)()
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            runs[name].append(timed(side(amount)))
    return runs


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def compared(
    runs: Mapping[str, list[Run]], amount: int, unit: str, against: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """What each side does a second, and ratios of speeds, of each round; printed as well.

    ``amount`` is how many of ``unit`` ("tokens", "images") a run went through; ``against`` holds
    the pairs worth a line of their own, the first over the second.
    """
    clocks = {"wall": "by the clock"}
    if budget.device().type == "cpu":
        clocks["cpu"] = "of CPU time"
    rate = f"{unit} a second"
    found: dict[str, Any] = {rate: {}, "ratios": {}}

    def line(what: str, values: Mapping[str, Mapping[str, float]], form: str) -> None:
        """Median (least–most), by each clock."""
        parts = (
            f"{format(v['median'], form)} ({format(v['least'], form)}–{format(v['most'], form)})"
            for v in values.values()
        )
        print(f"  {what:68}{''.join(f'{part:26}' for part in parts)}".rstrip(), flush=True)

    print(f"  {rate:68}{''.join(f'{words:26}' for words in clocks.values())}".rstrip())
    for name, done in runs.items():
        rates = {c: spread([amount / getattr(run, c) for run in done]) for c in clocks}
        line(name, rates, ",.0f")
        found[rate][name] = rates
    print("  ratios of speeds")
    for first, second in against:
        if first in runs and second in runs:
            rounds = list(zip(runs[first], runs[second], strict=True))
            ratios = {c: spread([getattr(b, c) / getattr(a, c) for a, b in rounds]) for c in clocks}
            line(f"{first} / {second}", ratios, ".2f")
            found["ratios"][f"{first} / {second}"] = ratios
    return found


def summary(found: Mapping[str, Any], what: str, versions: Mapping[str, str]) -> list[dict]:
    """Rows for the table of all results, from what ``compared`` gave: each ratio of speeds.

    ``versions``: part of a side's name -> the version of what it is; the first that fits counts.
    """
    rows = []
    for pair, ratios in found["ratios"].items():
        ours, peer = pair.split(" / ")
        if ours.startswith("transformers"):
            continue  # what their own cache gains them: in the script's output
        version = next((text for part, text in versions.items() if part in peer), "")
        ratio = ratios.get("cpu") or ratios["wall"]
        row = {"what": f"{what}: speed of {ours}", "peer": f"{peer}{version}", "ratio": ratio}
        rows.append(row | {"spread": "of the rounds"})
    return rows


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    transformers, device = library(), budget.device()
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__ if transformers else None,
    }
