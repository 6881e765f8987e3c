"""What several test modules share."""

from __future__ import annotations

import functools
from pathlib import Path
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
