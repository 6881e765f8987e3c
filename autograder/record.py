"""Records reference packs: every case on the solution and on every misconception."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autograder import exercise as exercises
from autograder import pack as packs
from autograder.exercise import Exercise, Misconception
from autograder.files import keep
from autograder.judge import difference_of, judge
from autograder.outcomes import Failure, Outcome
from autograder.pack import CaseInfo, KnownError, Pack, References
from autograder.runner import run

PUBLIC_SEED = 20170612  # the day the paper came out


class RecordError(Exception):
    """An exercise cannot be recorded; the text says which case of what failed, and how."""


def record(
    root: Path,
    chapters: Iterable[str] | None = None,
    seed: int = PUBLIC_SEED,
    hidden: bool = False,
) -> dict[str, Pack]:
    """Records one pack per chapter from the solutions under ``root``.

    Args:
        root: the repository.
        chapters: which; all that have exercises where not given.
        seed: makes the inputs.
        hidden: whether hidden cases are recorded too (a private pack).

    Raises:
        RecordError: a solution fails a case of its own, or a misconception is indistinguishable
            from the solution.
    """
    packs_by_chapter = {}
    for chapter in chapters or exercises.chapters():
        namespace = solution_namespace(root, chapter)
        packs_by_chapter[chapter] = Pack(
            seed,
            hidden,
            {chapter: exercises.fingerprint(chapter)},
            {
                exercise.id: record_exercise(exercise, namespace[exercise.name], seed, hidden)
                for exercise in exercises.load(chapter, misconceptions=True).values()
                if _has(namespace, exercise)
            },
        )
    return packs_by_chapter


def record_exercise(exercise: Exercise, solution: Any, seed: int, hidden: bool) -> References:
    """Records one exercise from its solution and its misconceptions."""
    expected = run(exercise, solution, seed, hidden, seconds=30.0)
    for outcome in expected:
        if outcome.failure:
            raise RecordError(
                f"The solution of {exercise.id} fails its own case {outcome.case!r}: "
                f"{outcome.failure.text} {' | '.join(outcome.failure.lines)}"
            )
    right = {outcome.case: Outcome(outcome.case, outcome.outputs) for outcome in expected}
    return References(
        exercise=exercise.id,
        points=float(exercise.points),
        cases=[
            CaseInfo(case.title, case.hidden, case.weight, case.next_step)
            for case in exercise.cases
            if hidden or not case.hidden
        ],
        expected=right,
        known_errors=[
            KnownError(
                item.sentence,
                item.next_step,
                _wrong(exercise, item, right, seed, hidden),
            )
            for item in exercise.known_errors
        ],
    )


def merge(packs_by_chapter: Mapping[str, Pack]) -> Pack:
    """One pack of several chapters, as an instructor's private file holds them."""
    first = next(iter(packs_by_chapter.values()))
    return Pack(
        first.seed,
        first.hidden,
        {chapter: v for pack in packs_by_chapter.values() for chapter, v in pack.versions.items()},
        {id_: r for pack in packs_by_chapter.values() for id_, r in pack.exercises.items()},
    )


def write(pack: Pack, path: Path) -> bool:
    """Writes a pack whole or not at all; returns whether the file changed.

    Raises:
        RecordError: the place cannot be written to.
    """
    data = pack.to_bytes()
    if path.is_file() and path.read_bytes() == data:
        return False
    try:
        keep(path, data)
    except OSError as error:
        raise RecordError(
            f"The pack cannot be written to {path} ({error.strerror}). "
            "Name another place with --to."
        ) from error
    return True


def stale(fresh: Pack, path: Path) -> str:
    """How a recorded pack differs from a fresh recording, in one sentence; empty where it does not.

    Values are compared within the judge's tolerances, for machines differ in the last digit.
    """
    try:
        old = Pack.load(path)
    except packs.PackError as error:
        return str(error)
    for exercise_id, new in fresh.exercises.items():
        if exercise_id not in old.exercises:
            return f"{path} lacks {exercise_id}. Run: autograder record."
        recorded = old.exercises[exercise_id]
        if [vars(case) for case in new.cases] != [vars(case) for case in recorded.cases]:
            return f"The cases of {exercise_id} changed. Run: autograder record."
        if judge(list(new.expected.values()), recorded).status != "passed":
            return f"The solution of {exercise_id} changed. Run: autograder record."
    return ""


def solution_namespace(root: Path, chapter: str) -> dict[str, Any]:
    """The names that the solution cells of a chapter define: the ready-made blocks' own source."""
    from autograder.release import ready_made_source

    try:
        source = ready_made_source(root, chapter)
    except FileNotFoundError as error:
        raise RecordError(
            f"There is no solution of {chapter} under {root} ({error}). "
            "Run this in the repository, or name it with --root."
        ) from error
    namespace: dict[str, Any] = {"__name__": f"solutions.{chapter}"}
    exec(compile(source, f"solutions/{chapter}", "exec"), namespace)
    return namespace


def _has(namespace: Mapping[str, Any], exercise: Exercise) -> bool:
    if exercise.name not in namespace:
        raise RecordError(
            f"The solution of {exercise.chapter} defines no {exercise.name}, which "
            f"{exercise.id} checks. Write it in a solution cell of the chapter."
        )
    return True


def _wrong(
    exercise: Exercise,
    known: Misconception,
    right: Mapping[str, Outcome],
    seed: int,
    hidden: bool,
) -> list[Outcome]:
    """What a misconception gives in the cases that it gets wrong.

    Of a failure only the kind is kept, for texts change with versions.
    """
    outcomes = run(exercise, known.implementation, seed, hidden, seconds=30.0)
    wrong = [
        Outcome(
            outcome.case, outcome.outputs, outcome.failure and Failure(outcome.failure.kind, "")
        )
        for outcome in outcomes
        if difference_of(right[outcome.case], outcome)
    ]
    if not wrong:
        raise RecordError(
            f"{exercise.id}: no case tells this misconception from the solution: "
            f"{known.sentence!r} Add a case in which it goes wrong."
        )
    return wrong
