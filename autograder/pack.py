"""Reference packs: what the solution and every misconception gave, case by case."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from autograder import exercise as exercises
from autograder.outcomes import MalformedOutcomes, Outcome, flatten, read_header, restore

FORMAT = 1
REFERENCES = Path(__file__).parent / "references"


class PackError(Exception):
    """A pack cannot be used; the text names the file and the command that mends it."""


@dataclass(frozen=True)
class KnownError:
    """A misconception as it was recorded: its outcomes in the cases that it gets wrong."""

    sentence: str
    next_step: str
    outcomes: Sequence[Outcome]


@dataclass(frozen=True)
class CaseInfo:
    """What the judge needs to know of a case."""

    title: str
    hidden: bool
    weight: float
    next_step: str


@dataclass(frozen=True)
class References:
    """Everything that the judge compares one exercise with.

    Attributes:
        exercise: the id.
        points: what full marks are.
        cases: title, weight and so on, in the order in which they run.
        expected: the solution's outcomes, by case.
        known_errors: the misconceptions with theirs.
    """

    exercise: str
    points: float
    cases: Sequence[CaseInfo]
    expected: Mapping[str, Outcome]
    known_errors: Sequence[KnownError]


@dataclass(frozen=True)
class Pack:
    """The references of one or more chapters, recorded with one seed.

    Attributes:
        seed: makes the inputs; the process that runs the cases needs it.
        hidden: whether hidden cases were recorded, and so must run.
        versions: chapter -> fingerprint of its cases.
    """

    seed: int
    hidden: bool
    versions: dict[str, str]
    exercises: dict[str, References]
    path: Path | None = None

    def references(self, exercise_id: str) -> References:
        """What to compare that exercise with.

        Raises:
            PackError: the pack has nothing on it.
        """
        if exercise_id not in self.exercises:
            raise PackError(
                f"The reference pack {self._name} has nothing on {exercise_id}. "
                f"Record it anew: {self._command}."
            )
        return self.exercises[exercise_id]

    def to_bytes(self) -> bytes:
        """The pack as safetensors; the same pack gives the same bytes."""
        tensors: dict[str, Tensor] = {}
        header = {
            "format": FORMAT,
            "seed": self.seed,
            "hidden": self.hidden,
            "versions": self.versions,
            "exercises": {
                exercise_id: {
                    "points": references.points,
                    "cases": [vars(case) for case in references.cases],
                    "expected": flatten(list(references.expected.values()), tensors),
                    "known_errors": [
                        {
                            "sentence": known.sentence,
                            "next_step": known.next_step,
                            "outcomes": flatten(known.outcomes, tensors),
                        }
                        for known in references.known_errors
                    ],
                }
                for exercise_id, references in self.exercises.items()
            },
        }
        # One metadata entry: the library writes several in random order.
        return safetensors.torch.save(tensors, {"pack": json.dumps(header)})

    @classmethod
    def load(cls, path: Path) -> Pack:
        """Reads a pack.

        Raises:
            PackError: missing, truncated, of another format, or recorded for other cases.
        """
        path = Path(path)
        private = path.parent != REFERENCES
        mend = f"autograder record --seed SECRET --to {path}" if private else "autograder record"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise PackError(f"There is no reference pack {path}. Record it: {mend}.") from None
        except OSError as error:
            raise PackError(f"The reference pack {path} cannot be read: {error}.") from error
        try:
            header = json.loads(read_header(data)["pack"])
            if header["format"] != FORMAT:
                raise PackError(
                    f"The reference pack {path} has format {header['format']}; this version "
                    f"reads format {FORMAT}. Record it anew: {mend}."
                )
            tensors = safetensors.torch.load(data)
            found = {
                exercise_id: References(
                    exercise=exercise_id,
                    points=float(item["points"]),
                    cases=[CaseInfo(**case) for case in item["cases"]],
                    expected={o.case: o for o in restore(item["expected"], tensors)},
                    known_errors=[
                        KnownError(
                            known["sentence"],
                            known["next_step"],
                            restore(known["outcomes"], tensors),
                        )
                        for known in item["known_errors"]
                    ],
                )
                for exercise_id, item in header["exercises"].items()
            }
            pack = cls(int(header["seed"]), bool(header["hidden"]), header["versions"], found, path)
        except PackError:
            raise
        except (MalformedOutcomes, Exception) as error:
            raise PackError(
                f"The reference pack {path} is damaged or cut short ({error}). "
                f"Record it anew: {mend}."
            ) from error
        for chapter, version in pack.versions.items():
            known = chapter in exercises.chapters()
            if not known or exercises.fingerprint(chapter) != version:
                raise PackError(
                    f"The reference pack {path} was recorded for another version of the cases of "
                    f"{chapter}. Record it anew: {mend}."
                )
        return pack

    @property
    def _name(self) -> str:
        return str(self.path) if self.path else "in memory"

    @property
    def _command(self) -> str:
        if self.path is None or self.path.parent == REFERENCES:
            return "autograder record"
        return f"autograder record --seed SECRET --to {self.path}"


def path_of(chapter: str) -> Path:
    """Where the public pack of a chapter lies."""
    return REFERENCES / f"{chapter}.safetensors"
