"""``autograder try``: judges one implementation in a file, outside any notebook."""

from __future__ import annotations

import contextlib
import io
import sys
import types
from pathlib import Path

from autograder import exercise as exercises
from autograder.checking import verdict_on
from autograder.complaints import CaseTimeout
from autograder.runner import learner_lines, time_limit
from autograder.verdict import Verdict


class TryError(Exception):
    """The arguments cannot be used; the text says why and what to do."""


def try_file(exercise_id: str, path: Path, seconds: float = 5.0) -> Verdict:
    """Judges the component that ``path`` defines under the exercise's own name.

    Args:
        exercise_id: as in ``attention/softmax``.
        path: a Python file; it is executed in this process, unprotected.
        seconds: the time limit of each case; the file itself may take ten times as long.

    Raises:
        TryError: no such exercise or file, or the file does not define the component.
    """
    try:
        exercise = exercises.find(exercise_id)
    except exercises.UnknownExercise as error:
        raise TryError(str(error)) from None
    try:
        source = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise TryError(f"There is no file {path}. Name a Python file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TryError(f"{path} cannot be read as UTF-8 text: {error}.") from None

    module = types.ModuleType("__try__")
    module.__file__ = str(path)
    # Dataclasses and typing look a class's module up by name.
    sys.modules[module.__name__] = module
    printed = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            time_limit(10 * seconds),
        ):
            exec(compile(source, str(path), "exec"), module.__dict__)
    except CaseTimeout:
        return Verdict(
            exercise.id,
            0.0,
            exercise.points,
            "timeout",
            f"{path.name} did not finish within {10 * seconds:g} seconds.",
            next_step="Let the file define things only, and call nothing that takes long.",
        )
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        place = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        return Verdict(
            exercise.id,
            0.0,
            exercise.points,
            "error",
            f"{path.name}{place} raised {type(error).__name__}: {error}",
            lines=learner_lines(error),
            printed=printed.getvalue(),
            next_step="Mend the file so that `python " + path.name + "` runs through.",
        )
    if exercise.name not in module.__dict__:
        raise TryError(f"{path} defines no {exercise.name}. Define {exercise.signature} in it.")
    verdict, _ = verdict_on(exercise, module.__dict__[exercise.name], seconds)
    return verdict
