"""``check``: what a graded cell calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from autograder import exercise as exercises
from autograder.outcomes import Outcome, encode
from autograder.runner import run
from autograder.verdict import Verdict


@dataclass(frozen=True)
class _Grading:
    """How a process that runs a submission hands on what its checks gave."""

    send: Callable[[bytes], None]
    keys_of: Callable[[str], Mapping[str, str] | None]
    seconds: float


_grading: _Grading | None = None


def grading(
    send: Callable[[bytes], None],
    keys_of: Callable[[str], Mapping[str, str] | None],
    seconds: float = 5.0,
) -> None:
    """Switches this process to grading: from now on, checks only send outcomes.

    Args:
        send: takes the bytes of :func:`autograder.outcomes.encode`.
        keys_of: exercise id -> what the inputs of each case are made from (see
            :func:`autograder.runner.keys`); None where it is not graded now, and nothing runs.
        seconds: the time limit of each case.
    """
    global _grading
    _grading = _Grading(send, keys_of, seconds)


def check(exercise_id: str, component: Any) -> float | None:
    """Checks your component, shows the verdict, and returns the points.

    Args:
        exercise_id: which exercise, as in ``"attention/softmax"``.
        component: your function or class itself, not a call of it.

    Returns:
        The points. While a class is graded: None, and nothing is shown; the outcomes are judged
        elsewhere.
    """
    try:
        exercise = exercises.find(exercise_id)
    except exercises.UnknownExercise as error:
        return _show(Verdict(str(exercise_id), 0.0, 0.0, "error", str(error)))
    if _grading:
        keys = _grading.keys_of(exercise.id)
        if keys is not None:
            outcomes = run(exercise, component, keys, seconds=_grading.seconds)
            _grading.send(encode(exercise.id, outcomes))
        return None
    verdict, _ = verdict_on(exercise, component)
    if verdict.status == "passed":
        verdict = replace(verdict, note=_keep(exercise_id, component))
    return _show(verdict)


def verdict_on(
    exercise: exercises.Exercise, component: Any, seconds: float = 5.0
) -> tuple[Verdict, list[Outcome]]:
    """Runs the public cases of an exercise and judges them against the public pack."""
    # Imported here, so that a process that grades never loads the judge or a pack.
    from autograder.judge import judge
    from autograder.pack import PackError

    try:
        pack = _public_pack(exercise.chapter)
        references = pack.references(exercise.id)
    except PackError as error:
        return Verdict(exercise.id, 0.0, exercise.points, "error", str(error)), []
    outcomes = run(exercise, component, pack.seed, seconds=seconds)
    return judge(outcomes, references), outcomes


@functools.cache
def _public_pack(chapter: str) -> Any:
    from autograder.pack import Pack, path_of

    return Pack.load(path_of(chapter))


def _keep(exercise_id: str, component: Any) -> str:
    from workbook.blocks import CannotKeep, keep

    try:
        path = keep(exercise_id, component)
    except CannotKeep as error:
        return str(error)
    return f"Your code is kept in {path}: later chapters build on it." if path else ""


def _show(verdict: Verdict) -> float:
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        get_ipython = lambda: None  # noqa: E731
    if get_ipython() is None:
        print(verdict.text())
    else:
        display({"text/plain": verdict.text(), "text/html": verdict.html()}, raw=True)
    return float(verdict.points)
