"""What a check costs beside the calls that it makes.

``python benchmarks/checking.py [--rounds N] [--json results.json]`` runs, for every exercise of the
course, the course's own solution through

- ``check``, as a learner does: every public case, with a time limit, watched for built-ins and
  ready-made blocks, its result judged against the pack;
- the bare cases: the same calls on the same inputs, with nobody watching and nothing judged.

The sides take turns, and a ratio compares what ran in the same round. ``--quick`` does one round of
three exercises, to see that it works.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from _turns import machine, spread
from autograder import exercise as exercises
from autograder.checking import verdict_on
from autograder.exercise import Exercise
from autograder.inputs import Make
from autograder.pack import Pack, path_of
from autograder.record import solution_namespace
from autograder.runner import Subject, keys

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, QUICK = 5, 3


class Bare(Subject):
    """The component as a case calls it, with nothing around it."""

    def __call__(self, *arguments: Any) -> Any:
        result = self.component(*arguments)
        return Bare(self.exercise, result) if isinstance(self.component, type) else result

    def method(self, name: str, *_: Any) -> Any:
        return Bare(self.exercise, getattr(self.component, name))


def bare(exercise: Exercise, component: Any, seed: int) -> None:
    """Runs the public cases' own calls, and throws the results away."""
    given = keys(exercise, seed)
    for case in exercise.cases:
        if case.title in given:
            torch.manual_seed(0)
            case.build(Bare(exercise, component), Make.keyed(given[case.title]))


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds of CPU time: the machine may be shared."""
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(rounds: int, count: int | None) -> dict[str, Any]:
    """Both sides of each exercise, in turns."""
    found: dict[str, Any] = {}
    print(f"milliseconds of CPU time, medians of {rounds} rounds, and ratios of the rounds")
    of_chapter = functools.cache(functools.partial(solution_namespace, ROOT))
    for exercise in list(exercises.every())[:count]:
        # Not from workbook.ready, which a check refuses, and which slows it where it is loaded.
        component = of_chapter(exercise.chapter)[exercise.name]
        seed = Pack.load(path_of(exercise.chapter)).seed
        verdict, _ = verdict_on(exercise, component)  # what is imported at the first call is
        if verdict.points != exercise.points:
            raise SystemExit(f"{exercise.id}: the solution gets {verdict.points}: {verdict.text()}")
        bare(exercise, component, seed)
        checked, called = [], []
        for _ in range(rounds):
            checked.append(seconds_of(lambda e=exercise, c=component: verdict_on(e, c)))
            called.append(seconds_of(lambda e=exercise, c=component, s=seed: bare(e, c, s)))
        ratios = spread([a / b for a, b in zip(checked, called, strict=True)])
        found[exercise.id] = {
            "check_ms": spread([1000 * each for each in checked]),
            "bare_ms": spread([1000 * each for each in called]),
            "ratio": ratios,
        }
        one = found[exercise.id]
        print(
            f"  {exercise.id:44}{one['check_ms']['median']:8.1f}{one['bare_ms']['median']:8.1f}"
            f"{ratios['median']:8.2f} ({ratios['least']:.2f}–{ratios['most']:.2f})",
            flush=True,
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help=f"turns of each side ({ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="does it all work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    asked = parser.parse_args(arguments)
    rounds = asked.rounds or (1 if asked.quick else ROUNDS)
    torch.set_num_threads(1)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        each = measure(rounds, QUICK if asked.quick else None)
    checks = [one["check_ms"]["median"] for one in each.values()]
    ratios = [one["ratio"]["median"] for one in each.values()]
    totals = sum(checks) / sum(one["bare_ms"]["median"] for one in each.values())
    print(
        f"all {len(each)}: a check takes {spread(checks)['median']:.0f} ms in the median, at most "
        f"{max(checks):.0f} ms; all checks together {totals:.2f} times the bare calls"
    )
    found = {
        "machine": machine(),
        "exercises": each,
        "summary": [
            {
                "what": f"a check, over the calls that it makes ({len(each)} exercises)",
                "peer": "the bare cases",
                "ratio": spread(ratios),
                "spread": "of the exercises",
            }
        ],
    }
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
