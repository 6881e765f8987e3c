"""Proof that the checks are right, for every exercise there is."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
from typing import Any

import pytest
import torch
from conftest import ROOT, SECRET, fresh_pack, references, solution
from torch import nn

from autograder import exercise as exercises
from autograder.exercise import Exercise, Misconception
from autograder.judge import judge
from autograder.pack import Pack, path_of
from autograder.record import stale
from autograder.runner import run

EXERCISES = list(exercises.every(misconceptions=True))
IDS = [exercise.id for exercise in EXERCISES]


def verdict_on(exercise: Exercise, component: Any) -> Any:
    """Judged with a private pack: other inputs, hidden cases included."""
    return judge(run(exercise, component, SECRET, hidden=True), references(exercise.id))


@functools.cache
def public_pack(chapter: str) -> Pack:
    return Pack.load(path_of(chapter))


def alternatives(exercise: Exercise) -> list[Any]:
    module = importlib.import_module(f"tests.alternatives.{exercise.prefix}")
    return module.ALTERNATIVES[exercise.id]


def mutants(exercise: Exercise) -> list[Any]:
    """(component, words of the misconception that names it), for each mutant."""
    module = importlib.import_module(f"tests.mutants.{exercise.prefix}")
    found = module.MUTANTS[exercise.id]
    return [(component, module.NAMED.get(component.__name__, "")) for component in found]


@pytest.mark.parametrize("exercise", EXERCISES, ids=IDS)
def test_solution_gets_full_points(exercise: Exercise) -> None:
    verdict = verdict_on(exercise, solution(exercise.id))
    assert verdict.status == "passed", verdict.text()
    assert verdict.points == exercise.points


@pytest.mark.parametrize("exercise", EXERCISES, ids=IDS)
@pytest.mark.parametrize("kind", ["raises", "none", "zero", "identity"])
def test_stub_gets_nothing(exercise: Exercise, kind: str) -> None:
    def raises(*arguments: Any) -> Any:
        raise NotImplementedError

    answers = {
        "raises": raises,
        "none": lambda *arguments: None,
        "zero": lambda *arguments: 0,
        "identity": lambda *arguments: arguments[0],
    }
    component: Any = answers[kind]
    if exercise.is_module:
        # Built without complaint, but with nothing in it.
        component = type(
            "Stub",
            (nn.Module,),
            {
                "__init__": lambda self, *arguments: nn.Module.__init__(self),
                "forward": lambda self, *arguments: answers[kind](*arguments),
            },
        )
    assert verdict_on(exercise, component).points == 0


MISCONCEPTIONS = [
    pytest.param(exercise, known, id=f"{exercise.id}-{index}")
    for exercise in EXERCISES
    for index, known in enumerate(exercise.known_errors)
]


@pytest.mark.parametrize(("exercise", "known"), MISCONCEPTIONS)
def test_misconception_loses_points_and_is_named(exercise: Exercise, known: Misconception) -> None:
    verdict = verdict_on(exercise, known.implementation)
    assert verdict.points < exercise.points
    assert verdict.misconception == known.sentence
    assert known.sentence in verdict.text()
    assert verdict.next_step == known.next_step


@pytest.mark.parametrize(("exercise", "known"), MISCONCEPTIONS)
def test_misconception_is_named_by_the_public_pack(
    exercise: Exercise, known: Misconception
) -> None:
    pack = public_pack(exercise.chapter)
    outcomes = run(exercise, known.implementation, pack.seed)
    assert judge(outcomes, pack.references(exercise.id)).misconception == known.sentence


@pytest.mark.parametrize(
    ("exercise", "component"),
    [
        pytest.param(exercise, component, id=f"{exercise.id}-{component.__name__}")
        for exercise in EXERCISES
        for component in alternatives(exercise)
    ],
)
def test_other_right_implementation_gets_full_points(exercise: Exercise, component: Any) -> None:
    verdict = verdict_on(exercise, component)
    assert verdict.status == "passed", verdict.text()


@pytest.mark.parametrize(
    ("exercise", "component", "words"),
    [
        pytest.param(exercise, component, words, id=f"{exercise.id}-{component.__name__}")
        for exercise in EXERCISES
        for component, words in mutants(exercise)
    ],
)
def test_wrong_implementation_loses_points_and_gets_no_wrong_name(
    exercise: Exercise, component: Any, words: str
) -> None:
    """With the public pack: a learner must not be told that all is well, or another's mistake."""
    pack = public_pack(exercise.chapter)
    verdict = judge(run(exercise, component, pack.seed), pack.references(exercise.id))
    assert verdict.points < exercise.points
    assert verdict.next_step
    assert bool(words) == bool(verdict.misconception)
    assert words in verdict.misconception


@pytest.mark.parametrize("exercise", EXERCISES, ids=IDS)
def test_exercise_has_misconceptions_alternatives_and_a_hidden_case(exercise: Exercise) -> None:
    assert len({known.sentence for known in exercise.known_errors}) >= 4
    assert len(alternatives(exercise)) >= 2
    assert any(case.hidden for case in exercise.cases)
    assert all(known.next_step for known in exercise.known_errors)


def test_main_exercises_have_five_misconceptions_and_three_alternatives() -> None:
    for name in ("attention/softmax", "attention/scaled_dot_product_attention"):
        exercise = exercises.find(name, misconceptions=True)
        assert len({known.sentence for known in exercise.known_errors}) >= 5
        assert len(alternatives(exercise)) >= 3


@pytest.mark.parametrize("chapter", exercises.chapters())
def test_public_pack_is_what_the_solutions_give(chapter: str) -> None:
    public = public_pack(chapter)
    assert not public.hidden
    assert stale(fresh_pack(chapter, public.seed, hidden=False), path_of(chapter)) == ""


def test_process_that_runs_learner_code_holds_no_misconception() -> None:
    for exercise in exercises.every():
        assert exercise.known_errors == []
    # Nor what several of them share.
    for misconceptions in (True, False):
        case = exercises.find("gpt/learn_bpe", misconceptions).cases[0]
        assert ("join_backwards" in case.build.__globals__) is misconceptions
    # A process of its own: this one has loaded them.
    loaded = "import sys; from autograder import exercise; list(exercise.every())"
    told = subprocess.run(
        [sys.executable, "-c", f"{loaded}; print('autograder.slips' in sys.modules)"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert told.stdout.strip() == "False"


@pytest.mark.parametrize("exercise", EXERCISES, ids=IDS)
def test_hard_coded_answers_fail_on_a_private_pack(exercise: Exercise) -> None:
    """Replays, call by call, what the solution gave for the public inputs."""
    public = public_pack(exercise.chapter)
    calls: list[Any] = []
    original = solution(exercise.id)

    def remembering(*arguments: Any) -> Any:
        calls.append(original(*arguments))
        return calls[-1]

    if exercise.is_module:
        return  # a module's parameters are filled anew by every pack: there is nothing to replay
    run(exercise, remembering, public.seed)
    replayed = iter(calls)
    verdict = verdict_on(exercise, lambda *arguments: next(replayed))
    assert verdict.points < exercise.points


def test_unknown_exercise_suggests_near_ones() -> None:
    with pytest.raises(exercises.UnknownExercise, match="attention/softmax"):
        exercises.find("attention/softmaks")


@pytest.mark.parametrize("exercise", EXERCISES, ids=IDS)
def test_what_the_solution_leaves_unchanged_is_recorded_so(exercise: Exercise) -> None:
    recorded = references(exercise.id).expected.values()
    told = [o.outputs[name] for o in recorded for name in o.outputs if "unchanged" in name]
    assert all(value is True for value in told)
    assert told or not takes_tensors(exercise)


def takes_tensors(exercise: Exercise) -> bool:
    """Whether a case hands the component a tensor that it could change."""
    if exercise.is_module:
        return True
    handed: list[Any] = []

    def noting(*arguments: Any) -> Any:
        handed.extend(arguments)
        return solution(exercise.id)(*arguments)

    run(exercise, noting, SECRET)
    return any(isinstance(argument, torch.Tensor) for argument in handed)
