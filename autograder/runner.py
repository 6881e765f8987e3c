"""Runs the cases of an exercise on a component: the only module that calls learner code."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import inspect
import io
import linecache
import re
import signal
import sys
import sysconfig
import threading
import traceback
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from autograder import exercise as exercises
from autograder.complaints import NOT_WRITTEN, CaseTimeout, Complaint
from autograder.exercise import Case, Exercise, Returned
from autograder.inputs import Make, key_of
from autograder.outcomes import Failure, Outcome, simplify

# What the kernels behind a forbidden function are called. Scaled dot-product attention on 3-D
# inputs shows itself to the dispatcher only by its own safe softmax.
_ALSO = {
    "scaled_dot_product_attention": (
        "scaled_dot_product",
        "safe_softmax",
        "flash_attention",
        "efficient_attention",
        "multi_head_attention",
    ),
}
_LIBRARIES = tuple(
    str(Path(path).resolve())
    for path in (
        Path(__file__).parent,
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
    )
)
_READY = "workbook.ready."


def run(
    exercise: Exercise,
    component: Any,
    seed: int | Mapping[str, str],
    hidden: bool = False,
    seconds: float = 5.0,
) -> list[Outcome]:
    """What every case of ``exercise`` gives for ``component``.

    Nothing that the component does escapes: its errors, its output and its endless loops become
    outcomes. The random state, the default dtype and the gradient mode are left as they were.

    Args:
        seed: the pack's seed, from which the inputs are made; or, where the seed must not be
            known, the key of each case that runs (:func:`keys`).
        hidden: whether hidden cases run too; where keys are given, they decide.
        seconds: the time limit of each case. After one case that ran out of time the others are
            skipped: an endless loop should cost one limit, not one per case.
    """
    load_watchers()
    given = keys(exercise, seed, hidden) if isinstance(seed, int) else seed
    cases = [case for case in exercise.cases if case.title in given]
    unusable = _unusable(exercise, component)
    outcomes: list[Outcome] = []
    for case in cases:
        if unusable:
            outcomes.append(Outcome(case.title, failure=unusable))
        elif outcomes and outcomes[-1].failure and outcomes[-1].failure.kind in _ENDING:
            outcomes.append(
                Outcome(case.title, failure=Failure("skipped", "Not run: an earlier case ran on."))
            )
        else:
            outcomes.append(_run_case(exercise, component, case, given[case.title], seconds))
    return outcomes


_ENDING = ("timeout", "skipped")


def keys(exercise: Exercise, seed: int, hidden: bool = False) -> dict[str, str]:
    """What the inputs of each case are made from, by title; hidden cases only where asked for."""
    return {
        case.title: key_of(seed, exercise.id, case.title)
        for case in exercise.cases
        if hidden or not case.hidden
    }


def _unusable(exercise: Exercise, component: Any) -> Failure | None:
    """Why the component cannot be called at all, or None."""
    name, wanted = exercise.name, "class" if exercise.is_module else "function"
    if exercise.is_module:
        if isinstance(component, nn.Module):
            return Failure(
                "component",
                f"check got an instance of {type(component).__name__}, not the class.",
                f'Pass the class itself: check("{exercise.id}", {name}).',
            )
        if not (isinstance(component, type) and issubclass(component, nn.Module)):
            return Failure(
                "component",
                f"{name} must be a subclass of nn.Module; check got {_kind_of(component)}.",
                f"Begin it with: class {name}(nn.Module):",
            )
    elif not callable(component):
        return Failure(
            "component",
            f"check needs the {wanted} itself; it got {_kind_of(component)}.",
            f'Pass the {wanted} without calling it: check("{exercise.id}", {name}).',
        )
    if _is_ready_made(exercise, component):
        return Failure("forbidden", _READY_TEXT, "Write the component yourself in the cell above.")
    return None


_READY_TEXT = "This is the workbook's ready-made block, not your own code."


class Subject:
    """The learner's component as a case sees it: called like the component, but checked.

    A call with the wrong arity, None, or something that is no tensor raises a
    :class:`Complaint` in words. Forbidden operations are watched for during the call.
    """

    def __init__(self, exercise: Exercise, component: Any) -> None:
        self.exercise = exercise
        self.component = component
        self.last = ""

    def __call__(self, *arguments: Any) -> Any:
        self._check_arguments(arguments)
        with _watching(self.exercise):
            result = self.component(*arguments)
        if isinstance(self.component, type):
            return Subject(self.exercise, result)
        self.last = _describe(result)
        return self._check_result(result)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.component, name)

    def method(self, name: str, *returns: Returned) -> Subject:
        """A method of the learner's module, called and checked as the component itself is.

        Raises:
            Complaint: the module has no such method.
        """
        found = getattr(self.component, name, None)
        if not callable(found):
            raise Complaint(
                "method",
                f"{self.exercise.name} has no method {name}.",
                f"Write it in the class: def {name}(self, ...).",
            )
        return Subject(replace(self.exercise, returns=returns), found)

    def _check_arguments(self, arguments: Sequence[Any]) -> None:
        target = self.component
        if isinstance(target, nn.Module):
            target = target.forward
        try:
            inspect.signature(target).bind(*arguments)
        except ValueError:
            return  # a built-in without a signature: let the call itself decide
        except TypeError as error:
            signature = str(inspect.signature(target)).split(" ->")[0]
            raise Complaint(
                "arguments",
                f"The check calls it with {len(arguments)} "
                f"argument{'s' * (len(arguments) != 1)}, and yours does not take them: "
                f"{str(error)[:1].lower()}{str(error)[1:]}. Yours: {signature}.",
                f"Give it the signature {self.exercise.signature}.",
            ) from None

    def _check_result(self, result: Any) -> Any:
        returns = self.exercise.returns
        wanted = " and ".join(str(item) for item in returns)
        if result is None or result is NotImplemented:
            raise Complaint(
                "none",
                f"It returned {result}; expected {wanted}.",
                "End it with a return statement.",
            )
        if len(returns) == 1:
            return self._check_value(result, returns[0])
        if not isinstance(result, tuple | list) or len(result) != len(returns):
            raise Complaint(
                "arity",
                f"It returned {_describe(result)}; expected {len(returns)} values: {wanted}.",
                f"Return {', '.join(item.name for item in returns)}.",
            )
        return tuple(self._check_value(*pair) for pair in zip(result, returns, strict=True))

    def _check_value(self, value: Any, wanted: Returned) -> Any:
        if wanted.type is Tensor and not isinstance(value, Tensor):
            raise Complaint(
                "type",
                f"{wanted.name} is {_kind_of(value)}; expected a torch tensor"
                + (f" of shape {wanted.shape}." if wanted.shape else "."),
                "Keep the whole computation in torch, and return tensors.",
            )
        if wanted.type is int and isinstance(value, bool):
            pass
        elif wanted.type is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        elif isinstance(value, wanted.type):
            return value
        raise Complaint(
            "type",
            f"{wanted.name} is {_kind_of(value)}; expected {wanted.type.__name__}.",
            f"Return {wanted.name} as {wanted.type.__name__}.",
        )


def raises(call: Any, *arguments: Any) -> str:
    """The name of the exception that the call raises, or ``"nothing"``: an output of a case."""
    try:
        call(*arguments)
    except (Complaint, CaseTimeout):
        raise
    except Exception as error:
        return type(error).__name__
    return "nothing"


@contextlib.contextmanager
def _plain_defaults() -> Iterator[None]:
    """Torch's own defaults for new tensors: those that a notebook chose are not the component's."""
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    plain = torch.device("cpu")
    torch.set_default_dtype(torch.float32)
    if device != plain:
        torch.set_default_device(plain)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)


def _run_case(exercise: Exercise, component: Any, case: Case, key: str, seconds: float) -> Outcome:
    subject = Subject(exercise, component)
    outcome = Outcome(case.title)
    printed = io.StringIO()
    with (
        _plain_defaults(),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        warnings.catch_warnings(),
        torch.random.fork_rng(),
        torch.enable_grad(),
    ):
        # Not torch.manual_seed: it formats a stack trace for every kind of device not yet used.
        torch.default_generator.manual_seed(0)
        try:
            with time_limit(seconds):
                outputs = case.build(subject, Make.keyed(key))
                outcome.outputs = {name: simplify(value) for name, value in outputs.items()}
        except CaseTimeout:
            outcome.failure = Failure(
                "timeout",
                f"It did not end within {seconds:g} seconds.",
                "Look for a loop whose condition never becomes false.",
            )
        except Complaint as complaint:
            outcome.failure = Failure(complaint.kind, complaint.text, complaint.next_step)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: the learner's code may do anything
            outcome.failure = _failure(error, subject)
    outcome.printed = printed.getvalue()[:4000]
    return outcome


def _failure(error: BaseException, subject: Subject) -> Failure:
    lines = learner_lines(error)
    name = type(error).__name__
    if isinstance(error, NotImplementedError) and not str(error):
        return Failure(
            "exception",
            NOT_WRITTEN,
            "Replace the line `raise NotImplementedError()` with your code.",
            lines,
        )
    text = " ".join(str(error).split())
    sentence = f"It raised {name}: {text[:400]}" if text else f"It raised {name}."
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, text)), "")
    if not lines and subject.last:
        # The learner's call was fine; the case could not use what came back.
        return Failure(
            "unusable",
            f"The check could not use what it returned ({subject.last}): {name}: {text[:200]}",
            hint
            or "Compare the type and the shape of what you return with what the exercise states.",
        )
    return Failure(
        "exception", sentence, hint or "Start from the line above that raised it.", lines
    )


# What torch and Python say, and what a learner can do about it. The first that fits is told.
_HINTS = (
    (
        r"must match the (existing )?size|not broadcastable|cannot be broadcast",
        "Two shapes do not fit: print both before that line. If one of them comes from sum, mean "
        "or amax, keepdim=True keeps its axis, of length 1, so that it broadcasts.",
    ),
    (
        r"cannot be multiplied|size for first two dimensions|inconsistent tensor size",
        "In a @ b the last axis of a must be as long as the last but one of b: print both shapes "
        "before that line. transpose(-2, -1) swaps the last two axes only.",
    ),
    (
        r"Dimension out of range|must be a 3D tensor|einsum\(\): the number of subscripts",
        "Count the axes from the end (size(-1), transpose(-2, -1), dim=-1; in einsum, write ... "
        "for the leading ones), so that any number of axes may stand in front.",
    ),
    (
        r"same dtype|expected scalar type|expected dtype",
        "Two dtypes meet: let every new tensor take that of the inputs, with dtype=x.dtype.",
    ),
    (
        r"leaf Variable that requires grad|view of a leaf|modified by an inplace operation",
        "A line such as x -= y, x[...] = y or x.exp_() overwrites a tensor that the gradient "
        "still needs. Make a new one: x = x - y.",
    ),
    (
        r"return_types",
        "max and min return two things where they are given dim, the values and their positions: "
        "take .values, or use amax.",
    ),
    (
        r"Boolean value of Tensor|truth value of an array",
        "A tensor is no single yes or no: ask `is not None` for a missing one, and combine masks "
        "with ~, & and |.",
    ),
    (
        r"last dimension with stride 1",
        "view_as_complex needs the two numbers of a pair side by side in memory: call "
        ".contiguous() before it.",
    ),
    (r"view size is not compatible", "Use reshape instead of view: the axes were swapped before."),
    (
        r"call numpy\(\) on Tensor",
        "Stay in torch: no gradient flows through numpy.",
    ),
    (
        r"only implemented on integer and Boolean|bitwise_|expected .*mask|only supports boolean",
        "A mask must be boolean: the result of a comparison, or made with dtype=torch.bool.",
    ),
)


def learner_lines(error: BaseException) -> tuple[str, ...]:
    """The frames of a traceback that are the learner's own, at most the last four."""
    shown = []
    for frame in traceback.extract_tb(error.__traceback__):
        path = frame.filename
        if path.startswith("<frozen") or _is_library(path):
            continue
        line = (frame.line or linecache.getline(path, frame.lineno or 0)).strip()
        shown.append(f"{frame.name}, line {frame.lineno}: {line}")
    return tuple(shown[-4:])


def _is_library(path: str) -> bool:
    # ipykernel keeps cells under the temporary folder, and a terminal under "<ipython-input…>".
    if path.startswith("<"):
        return False
    resolved = str(Path(path).resolve())
    return any(resolved.startswith(library) for library in _LIBRARIES)


# ---- watching ------------------------------------------------------------------------------


class _FunctionWatch(TorchFunctionMode):
    """Sees torch functions by the name they were called by."""

    def __init__(self, barred: Sequence[str]) -> None:
        super().__init__()
        self._barred = barred
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        _note(getattr(func, "__name__", ""), self._barred, self.seen)
        return func(*args, **(kwargs or {}))


class _DispatchWatch(TorchDispatchMode):
    """Sees the kernels that run, whatever name they were called by."""

    def __init__(self, barred: Sequence[str]) -> None:
        super().__init__()
        self._barred = barred
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        _note(func.overloadpacket.__name__, self._barred, self.seen)
        return func(*args, **(kwargs or {}))


def _note(name: str, barred: Sequence[str], seen: list[str]) -> None:
    if any(word in name for word in barred):
        seen.append(name)


@functools.cache
def load_watchers() -> None:
    """Torch loads its compiler, a second or more, on the first watched operation.

    That must not count against the time limit of the first case.
    """
    with _DispatchWatch(()):
        torch.zeros(1)


def _barred(names: Sequence[str]) -> list[str]:
    """The words in the names of functions and kernels that hand an answer over."""
    return [word for name in names for word in (name, *_ALSO.get(name, ()))]


def remove(names: Sequence[str]) -> None:
    """Takes functions out of this process for good, whatever name they are called by.

    Below Python the kernels themselves are replaced, so no other way leads to them: neither
    another thread nor TorchScript, nor a module that uses them inside. Nobody can put them back;
    the registration belongs to no object that Python code could find.

    Args:
        names: as in ``without`` of an exercise.
    """
    barred = _barred(names)

    def gone(*_: Any, **__: Any) -> Any:
        raise _built_in(" or ".join(names))

    kernels = [
        name.removeprefix("aten::")
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("aten::") and any(word in name for word in barred)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they are overridden
        for key in ("CPU", "AutogradCPU"):
            library = torch._C._dispatch_library("IMPL", "aten", key, "", 0)
            for name in kernels:
                library.impl(name, key, gone)
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(library))
    if any(word in "multi_head_attention_forward" for word in barred):
        nn.functional.multi_head_attention_forward = gone


@contextlib.contextmanager
def _watching(exercise: Exercise) -> Iterator[None]:
    barred = _barred(exercise.without)
    functions, kernels = _FunctionWatch(barred), _DispatchWatch(barred)
    with _watching_ready_made(exercise):
        if barred:
            with functions, kernels:
                yield
        else:
            yield
    seen = functions.seen + kernels.seen
    if seen:
        used = [
            name for name in exercise.without if any(w in s for w in _barred([name]) for s in seen)
        ]
        raise _built_in(f"{used[0]} (seen: {', '.join(sorted(set(seen)))})")


def _built_in(name: str) -> Complaint:
    return Complaint(
        "forbidden",
        f"It uses the built-in {name}, which is what you are asked to write.",
        "Write the computation out with basic tensor operations.",
    )


@contextlib.contextmanager
def _watching_ready_made(exercise: Exercise) -> Iterator[None]:
    """Notices a call into the ready-made blocks of this chapter or a later one.

    They are an answer too. A profile function sees them however they were imported or renamed,
    but slows Python down, so it is set only where such a module was loaded at all.
    """
    before = _ready_made(exercise)
    files = {module.__file__ for module in before}
    seen: list[str] = []

    def watch(frame: types.FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename in files:
            seen.append(frame.f_code.co_name)

    previous = sys.getprofile()
    if files:
        sys.setprofile(watch)
    try:
        yield
    finally:
        if files:
            sys.setprofile(previous)
    if seen or len(_ready_made(exercise)) > len(before):
        raise Complaint("forbidden", _READY_TEXT, "Write the component yourself.")


def _ready_made(exercise: Exercise) -> list[types.ModuleType]:
    names = (f"{_READY}{prefix}" for prefix in _not_before(exercise.chapter))
    return [module for name in names if (module := sys.modules.get(name)) is not None]


@functools.cache
def _not_before(chapter: str) -> tuple[str, ...]:
    """The prefixes of this chapter's exercises and of those of later chapters."""
    return tuple(sorted({other.prefix for other in exercises.every() if other.chapter >= chapter}))


def _is_ready_made(exercise: Exercise, component: Any) -> bool:
    return getattr(component, "__module__", "") in {
        module.__name__ for module in _ready_made(exercise)
    }


# ---- time ----------------------------------------------------------------------------------


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises :class:`CaseTimeout` in the current thread once ``seconds`` have passed.

    It is raised again every quarter second, so that one ``except:`` does not keep a loop alive.
    """
    main = threading.current_thread() is threading.main_thread()
    if main and hasattr(signal, "setitimer"):

        def ring(signum: int, frame: types.FrameType | None) -> None:
            raise CaseTimeout

        previous = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.25)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        return
    # Windows, or a cell that runs outside the main thread: no signals, so an asynchronous
    # exception. It arrives between bytecodes only.
    over = threading.Event()
    thread = ctypes.c_ulong(threading.get_ident())

    def alarm() -> None:
        wait = seconds
        while not over.wait(wait):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(CaseTimeout))
            wait = 0.25

    watcher = threading.Thread(target=alarm, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


# ---- words ---------------------------------------------------------------------------------


def _kind_of(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, types.FunctionType):
        return f"the function {value.__name__}"
    name = type(value).__name__
    if isinstance(value, list | tuple):
        return f"a {name} of {len(value)} item{'s' * (len(value) != 1)}"
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _describe(value: Any) -> str:
    if isinstance(value, tuple | list) and 0 < len(value) <= 4:
        return f"{len(value)} value{'s' * (len(value) != 1)} ({', '.join(map(_kind_of, value))})"
    return _kind_of(value)
