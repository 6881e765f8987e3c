"""What several test modules share."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from autograder import exercise as exercises
from autograder.pack import Pack, References
from autograder.record import record, solution_namespace

ROOT = Path(__file__).resolve().parents[1]
SECRET = 271828

torch.set_num_threads(1)


@functools.cache
def solution(exercise_id: str) -> Any:
    """The solution of an exercise, from its chapter's source."""
    exercise = exercises.find(exercise_id)
    return _namespace(exercise.chapter)[exercise.name]


@functools.cache
def _namespace(chapter: str) -> dict[str, Any]:
    return solution_namespace(ROOT, chapter)


@functools.cache
def fresh_pack(chapter: str, seed: int = SECRET, hidden: bool = True) -> Pack:
    """A private pack, recorded for this run: other inputs than the public ones."""
    return record(ROOT, [chapter], seed, hidden)[chapter]


def references(exercise_id: str) -> References:
    """What the fresh private pack holds on an exercise."""
    return fresh_pack(exercises.find(exercise_id).chapter).references(exercise_id)


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def benchmark_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Loads a script of benchmarks/ as a module, to be run with the smallest budget."""
    monkeypatch.setenv("WORKBOOK_BUDGET", "smoke")
    for variable in ("WORKBOOK_STATIC", "WORKBOOK_GRADING"):
        monkeypatch.delenv(variable, raising=False)

    def load(name: str) -> ModuleType:
        path = ROOT / "benchmarks" / f"{name}.py"
        monkeypatch.syspath_prepend(path.parent)
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load
