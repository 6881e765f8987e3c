"""What this machine offers for running and grading notebooks, found out by trying."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from autograder import isolation, sandbox


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is well, what was seen, and what to do if not."""

    name: str
    well: bool
    seen: str
    advice: str = ""


@dataclass(frozen=True)
class Findings:
    """What the machine offers.

    Attributes:
        items: the findings, in order.
        lacking: protections that nothing here gives a submission.
    """

    items: list[Finding]
    lacking: list[str]

    @property
    def can_grade(self) -> bool:
        """Whether submissions can be run shut in."""
        return not self.lacking

    def to_json(self) -> dict[str, Any]:
        """The findings as plain JSON values."""
        return {
            "can_grade": self.can_grade,
            "lacking": self.lacking,
            "findings": [vars(item) for item in self.items],
        }

    def table(self) -> Table:
        """The findings as a table."""
        table = Table(title="What this machine offers", title_justify="left", show_header=False)
        for item in self.items:
            table.add_row("yes" if item.well else "no", item.name, item.seen)
        return table

    def advice(self) -> list[str]:
        """What to do, one line each, and whether a class can be graded here."""
        lines = [f"{item.name}: {item.advice}" for item in self.items if not item.well]
        if self.can_grade:
            lines.append("Submissions can be graded here: each is shut in by what holds above.")
        else:
            lines.append(isolation.refusal(self.lacking))
        return lines


def examine() -> Findings:
    """Looks at versions, the GPU and every layer of isolation."""
    layers = isolation.tried()
    items = [_versions(), _gpu(), _cores()]
    items += [
        Finding(layer.name, layer.holds, layer.seen, isolation.HOW_TO_GET[layer.name])
        for layer in layers
    ]
    return Findings(items, sandbox.missing(layer.name for layer in layers if layer.holds))


def _versions() -> Finding:
    found = [f"Python {platform.python_version()} on {platform.system()} {platform.release()}"]
    absent = []
    for name in ("torch", "numpy", "nbgrader", "jupyter-book"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
    return Finding(
        "versions",
        not absent,
        ", ".join(found) + (f"; not installed: {', '.join(absent)}" if absent else ""),
        "Install the course with all it needs: make setup.",
    )


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", True, torch.cuda.get_device_name(0))
    return Finding(
        "GPU",
        False,
        "none that PyTorch can use",
        "Grading needs none. Training cells take the budget `cpu`; for `gpu`, use a machine with "
        "CUDA, or Colab.",
    )


def _cores() -> Finding:
    can_ask = hasattr(os, "sched_getaffinity") and sys.platform == "linux"
    count = len(os.sched_getaffinity(0)) if can_ask else os.cpu_count() or 1
    return Finding("cores", True, f"{count}: as many submissions are graded at once")
