"""``autograder try``: judges one implementation in a file, outside any notebook.

The file runs in a process of its own, which sends back what its cases gave. Whatever it does to
that process (ends it, crashes it, never returns), the verdict is made here. This is no sandbox:
the file may do all that its user may.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

from autograder import exercise as exercises
from autograder.complaints import CaseTimeout
from autograder.exercise import Exercise
from autograder.outcomes import MAX_BYTES, Failure, MalformedOutcomes, Outcome, decode, encode
from autograder.runner import learner_lines, load_watchers, run, time_limit
from autograder.verdict import Verdict

# Forking is quick, for all is imported already; elsewhere a fork of a process that uses the
# system's own libraries for linear algebra may crash.
_CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
_STARTING = 120.0  # seconds until a new process is ready, on a slow machine
_GRACE = 3.0  # seconds that the process has to notice by itself that time is up


class TryError(Exception):
    """The arguments cannot be used; the text says why and what to do."""


def try_file(exercise_id: str, path: Path, seconds: float = 5.0) -> Verdict:
    """Judges the component that ``path`` defines under the exercise's own name.

    Args:
        exercise_id: as in ``attention/softmax``.
        path: a Python file; it is executed in another process, unprotected.
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

    here, there = _CONTEXT.Pipe()
    with tempfile.TemporaryFile() as noise:
        task = _Task(exercise.id, str(path), source, seconds)
        process = _CONTEXT.Process(target=_work, args=(there, task, noise.fileno()), daemon=True)
        process.start()
        there.close()
        try:
            return _verdict(exercise, task, here, process, noise)
        finally:
            here.close()
            _end(process)


@dataclass(frozen=True)
class _Task:
    """What the other process is to do."""

    exercise: str
    path: str
    source: str
    seconds: float

    @property
    def file(self) -> str:
        return Path(self.path).name


@dataclass(frozen=True)
class _Ran:
    """How it went to execute the file itself.

    Attributes:
        status: ``defined``, ``missing`` (the component), ``error`` or ``timeout``.
    """

    status: str
    text: str = ""
    lines: Sequence[str] = field(default_factory=tuple)
    printed: str = ""


# ---- the process that judges ---------------------------------------------------------------


def _verdict(
    exercise: Exercise, task: _Task, here: Connection, process: Any, noise: IO[bytes]
) -> Verdict:
    from autograder.judge import judge
    from autograder.pack import Pack, PackError, path_of

    try:
        pack = Pack.load(path_of(exercise.chapter))
        references = pack.references(exercise.id)
    except PackError as error:
        return _failed(exercise, "error", str(error))

    doing, limit = "", _STARTING
    try:
        # The other process gets the seed alone: it never holds a reference.
        here.send_bytes(str(pack.seed).encode())
        while True:
            if not _heard(here, process, limit + _GRACE):
                return _failed(
                    exercise,
                    "timeout",
                    f"{task.file} did not finish{doing}, and could not be stopped "
                    f"within {limit:g} seconds.",
                    next_step="Look for a loop whose condition never becomes false.",
                )
            if not here.poll():
                return _died(exercise, task, doing, process, noise)
            kind, _, body = here.recv_bytes(MAX_BYTES + 100).partition(b"\n")
            if kind == b"start":
                limit = 10 * task.seconds
            elif kind == b"case":
                doing, limit = f" in the case {body.decode()!r}", task.seconds
            elif kind == b"file":
                ran = _Ran(**json.loads(body))
                if ran.status == "missing":
                    raise TryError(
                        f"{task.path} defines no {exercise.name}. Define {exercise.signature} "
                        "in it."
                    )
                if ran.status != "defined":
                    return _did_not_run(exercise, task, ran)
                limit = _STARTING
            elif kind == b"outcomes":
                name, outcomes = decode(body)
                if name == exercise.id:
                    return judge(outcomes, references)
                raise MalformedOutcomes(f"They are those of {name}.")
    except EOFError:
        return _died(exercise, task, doing, process, noise)
    except (OSError, ValueError, TypeError) as error:  # UnicodeDecodeError, MalformedOutcomes …
        return _failed(
            exercise,
            "error",
            f"What {task.file} gave cannot be read ({error}).",
            next_step="Let the file write to no pipe or descriptor that it did not open.",
        )


def _heard(here: Connection, process: Any, seconds: float) -> bool:
    """Waits for a message or the end of the process; False where neither comes in time."""
    until = time.monotonic() + seconds
    # In turns: what the process leaves behind holds its sentinel and its end of the pipe open.
    while process.is_alive():
        if wait([here, process.sentinel], timeout=0.2):
            return True
        if time.monotonic() > until:
            return False
    return True


def _did_not_run(exercise: Exercise, task: _Task, ran: _Ran) -> Verdict:
    if ran.status == "timeout":
        next_step = "Let the file define things only, and call nothing that takes long."
    else:
        next_step = f"Mend the file so that `python {task.file}` runs through."
    return _failed(exercise, ran.status, ran.text, ran.lines, ran.printed, next_step)


def _died(exercise: Exercise, task: _Task, doing: str, process: Any, noise: IO[bytes]) -> Verdict:
    process.join(_GRACE)
    code = process.exitcode
    if code is not None and code < 0:
        how = f"was ended by the signal {_signal(-code)}"
        next_step = "Look for code that reaches below Python: ctypes, as_strided, own extensions."
    else:
        how = f"ended the whole process{'' if code is None else f' with exit status {code}'}"
        next_step = "Let the file define things only: no os._exit, no exec, no signals."
    noise.seek(max(0, noise.seek(0, os.SEEK_END) - 20_000))
    said = noise.read().decode(errors="replace")
    return _failed(
        exercise,
        "error",
        f"{task.file} {how}{doing or ', before any case ran'}.",
        _crash_lines(said, task),
        said.partition("Fatal Python error")[0][-4000:],
        next_step,
    )


def _crash_lines(said: str, task: _Task) -> tuple[str, ...]:
    """The lines of the file in the trace that faulthandler left, outermost first."""
    source = task.source.splitlines()
    found = re.findall(r'File "(.+)", line (\d+) in (.+)', said.partition("Fatal Python error")[2])
    shown = [
        f"{name}, line {line}: {source[int(line) - 1].strip()}"
        for path, line, name in found
        if path == task.path and int(line) <= len(source)
    ]
    return tuple(reversed(shown[:4]))


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _failed(
    exercise: Exercise,
    status: str,
    message: str,
    lines: Sequence[str] = (),
    printed: str = "",
    next_step: str = "",
) -> Verdict:
    return Verdict(
        exercise.id,
        0.0,
        exercise.points,
        status,
        message,
        lines=tuple(lines),
        printed=printed,
        next_step=next_step,
    )


def _end(process: Any) -> None:
    """Ends the process and what it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, OSError):  # no groups here, or it has no group of its own yet
        process.kill()
    process.join()


# ---- the process that runs the file --------------------------------------------------------


def _work(there: Connection, task: _Task, noise: int) -> None:
    """Executes the file, runs the cases, and sends what they gave."""
    if hasattr(os, "setsid"):
        os.setsid()
    if _CONTEXT.get_start_method() == "fork":
        # What code below Python writes, and the trace of a crash; elsewhere both are lost.
        null = os.open(os.devnull, os.O_RDONLY)
        for old, new in ((null, 0), (noise, 1), (noise, 2)):
            os.dup2(old, new)
        faulthandler.enable(2)
    exercise = exercises.find(task.exercise)
    seed = int(there.recv_bytes())
    there.send_bytes(b"start\n")
    ran, component = _execute(task, exercise.name)
    there.send_bytes(b"file\n" + json.dumps(asdict(ran)).encode())
    if ran.status == "defined":
        load_watchers()
        outcomes = run(_announced(exercise, there), component, seed, seconds=task.seconds)
        there.send_bytes(b"outcomes\n" + _encoded(exercise, outcomes))
    # Threads, exit handlers and children that the file left behind have no say.
    os._exit(0)


def _execute(task: _Task, name: str) -> tuple[_Ran, Any]:
    module = types.ModuleType("__try__")
    module.__file__ = task.path
    # Dataclasses and typing look a class's module up by name.
    sys.modules[module.__name__] = module
    printed = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            time_limit(10 * task.seconds),
        ):
            exec(compile(task.source, task.path, "exec"), module.__dict__)
    except CaseTimeout:
        text = f"{task.file} did not finish within {10 * task.seconds:g} seconds."
        return _Ran("timeout", text, printed=printed.getvalue()[:4000]), None
    except BaseException as error:
        place = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        text = f"{task.file}{place} raised {type(error).__name__}: {error}"[:4000]
        return _Ran("error", text, learner_lines(error), printed.getvalue()[:4000]), None
    if name not in module.__dict__:
        return _Ran("missing"), None
    return _Ran("defined"), module.__dict__[name]


def _announced(exercise: Exercise, there: Connection) -> Exercise:
    """The exercise with cases that say that they begin: the last one is where it ended."""

    def announced(case: exercises.Case) -> exercises.Case:
        def build(*arguments: Any) -> Any:
            there.send_bytes(b"case\n" + case.title.encode())
            return case.build(*arguments)

        return replace(case, build=build)

    return replace(exercise, cases=[announced(case) for case in exercise.cases])


def _encoded(exercise: Exercise, outcomes: Sequence[Outcome]) -> bytes:
    data = encode(exercise.id, outcomes)
    if len(data) <= MAX_BYTES:
        return data
    failure = Failure(
        "unusable",
        f"What it returned takes {len(data)} bytes; the limit is {MAX_BYTES}.",
        "Compare the shapes of what you return with those that the exercise states.",
    )
    return encode(exercise.id, [Outcome(outcome.case, failure=failure) for outcome in outcomes])
