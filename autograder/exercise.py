"""Exercises: a component that the learner writes, its cases, and the ways to get it wrong."""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

EXERCISES = Path(__file__).parent / "exercises"


@dataclass(frozen=True)
class Returned:
    """One value that a component returns: its name, its type and its shape in words."""

    name: str
    shape: str = ""
    type: type = Tensor

    def __str__(self) -> str:
        kind = "tensor" if self.type is Tensor else self.type.__name__
        article = "an" if kind[0] in "aeiou" else "a"
        return f"{self.name}, {article} {kind}" + (f" of shape {self.shape}" if self.shape else "")


@dataclass(frozen=True)
class Case:
    """One situation in which the component is called.

    ``build(component, make)`` returns the named outputs. A hidden case is run only where a
    private pack asks for it, and no learner is told what it is about.
    """

    title: str
    build: Callable[..., Mapping[str, Any]]
    hidden: bool = False
    weight: float = 1.0
    next_step: str = ""


@dataclass(frozen=True)
class Misconception:
    """A plausible wrong implementation, and the sentence that names it."""

    sentence: str
    implementation: Callable[..., Any]
    next_step: str = ""


@dataclass
class Exercise:
    """A component to write.

    Args:
        id: ``<prefix>/<component>``, as in ``attention/softmax``.
        points: what a full solution is worth; the graded cell says the same.
        signature: how the component is called, as shown to the learner.
        returns: the values it returns, in order.
        without: names of operations that would hand the answer over. A name matches every
            operation and kernel that carries it (``softmax`` also bars ``log_softmax``).
        parameters: for a module: constructor arguments -> parameter names and shapes.
    """

    id: str
    points: float
    signature: str
    returns: Sequence[Returned]
    without: Sequence[str] = ()
    parameters: Callable[..., Mapping[str, Sequence[int]]] | None = None
    cases: list[Case] = field(default_factory=list)
    known_errors: list[Misconception] = field(default_factory=list)
    chapter: str = ""

    @property
    def name(self) -> str:
        """The component's own name, as in ``softmax``."""
        return self.id.split("/")[1]

    @property
    def prefix(self) -> str:
        """The chapter's prefix, as in ``attention``."""
        return self.id.split("/")[0]

    @property
    def is_module(self) -> bool:
        """Whether the component is an ``nn.Module`` class rather than a function."""
        return self.parameters is not None

    def case(
        self, title: str, *, hidden: bool = False, weight: float = 1.0, next_step: str = ""
    ) -> Callable[[Callable[..., Mapping[str, Any]]], None]:
        """Adds the decorated function as a case."""
        if any(case.title == title for case in self.cases):
            raise ValueError(f"{self.id} has two cases titled {title!r}; rename one of them.")

        def add(build: Callable[..., Mapping[str, Any]]) -> None:
            self.cases.append(Case(title, build, hidden, weight, next_step))

        return add

    def misconception(self, sentence: str, *, next_step: str = "") -> Callable[[Any], None]:
        """Adds the decorated function or class as a wrong implementation with its name.

        The decorated code is left out wherever learner code runs, so nothing else may use it; what
        several misconceptions share is marked with :func:`near_answer`.
        """

        def add(implementation: Any) -> None:
            self.known_errors.append(Misconception(sentence, implementation, next_step))

        return add

    def misconceptions(
        self, family: Callable[[], Iterable[tuple[str, Callable[..., Any], str]]]
    ) -> None:
        """Adds all that the decorated function yields: (sentence, implementation, next step)."""
        for sentence, implementation, next_step in family():
            self.known_errors.append(Misconception(sentence, implementation, next_step))


def near_answer(helper: Any) -> Any:
    """Marks a function or class that several misconceptions share.

    Like them it is left out wherever learner code runs, so no case may use it.
    """
    return helper


def prefixes_before(chapter: str) -> list[str]:
    """The prefixes of the exercises of earlier chapters: what later ones may build on."""
    return sorted({item.prefix for item in every() if item.chapter < chapter})


class UnknownExercise(KeyError):
    """No exercise has that id; the text names the nearest ones."""

    def __str__(self) -> str:
        return str(self.args[0])


@functools.cache
def chapters() -> tuple[str, ...]:
    """The chapters that have exercises, in order."""
    return tuple(sorted(path.stem for path in EXERCISES.glob("[0-9]*.py")))


def fingerprint(chapter: str) -> str:
    """Identifies the version of a chapter's cases: a pack of another version cannot judge them."""
    text = (EXERCISES / f"{chapter}.py").read_text(encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def load(chapter: str, misconceptions: bool = False) -> dict[str, Exercise]:
    """The exercises of a chapter by id.

    The misconceptions are near-answers, so they are not even compiled unless asked for: the
    process that runs learner code holds none.
    """
    path = EXERCISES / f"{chapter}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    if not misconceptions:
        tree.body = [node for node in tree.body if not _is_misconception(node)]
    module = types.ModuleType(f"autograder.exercises.{chapter}")
    module.__file__ = str(path)
    exec(compile(tree, str(path), "exec"), module.__dict__)
    found = {value.id: value for value in vars(module).values() if isinstance(value, Exercise)}
    for exercise in found.values():
        exercise.chapter = chapter
    return found


def every(misconceptions: bool = False) -> Iterable[Exercise]:
    """All exercises, chapter by chapter."""
    for chapter in chapters():
        yield from load(chapter, misconceptions).values()


def find(exercise_id: str, misconceptions: bool = False) -> Exercise:
    """The exercise with that id.

    Raises:
        UnknownExercise: there is none; the text suggests near ones.
    """
    known = {exercise.id: exercise for exercise in every(misconceptions)}
    if exercise_id in known:
        return known[exercise_id]
    near = difflib.get_close_matches(str(exercise_id), known, n=3, cutoff=0.5) or list(known)
    raise UnknownExercise(
        f"There is no exercise {exercise_id!r}. Did you mean {' or '.join(near)}?"
    )


def _is_misconception(node: ast.stmt) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return False
    targets = [d.func if isinstance(d, ast.Call) else d for d in node.decorator_list]
    return any(
        target.attr in ("misconception", "misconceptions")
        if isinstance(target, ast.Attribute)
        else isinstance(target, ast.Name) and target.id == near_answer.__name__
        for target in targets
    )
