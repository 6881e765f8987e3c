"""What runs inside the process of one submission: cells in, outputs and raw outcomes out.

The fork server (:mod:`autograder.server`) calls :func:`prepare` once. Each of its children runs the
cells of one submission in order, in an IPython shell, and writes frames to a pipe. There is no
reference in here: each ``check`` only sends what the learner's component gave, and the comparison
happens elsewhere.

A frame is a kind (one byte), a cell's index (four bytes, big-endian), a length (four bytes) and
that many bytes:

``CELL``      a cell ended: JSON with ``outputs`` (as a notebook holds them), ``status`` (ok, error
              or timeout) and ``seconds``
``OUTCOMES``  what a ``check`` in a graded cell gave, as :func:`autograder.outcomes.encode` writes
``END``       every cell has been run
"""

from __future__ import annotations

import base64
import builtins
import contextlib
import dataclasses
import functools
import gc
import getpass
import importlib
import io
import json
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.text import LSString, SList
from traitlets import Any as AnyTrait
from traitlets import Type
from traitlets.config import Config

from autograder import exercise as exercises

CELL, OUTCOMES, END = 1, 2, 3
HEADER = struct.Struct(">BII")

MAX_TEXT = 100_000  # characters of printed text kept per cell
MAX_RICH = 5_000_000  # bytes of figures, tables and other rich output kept per cell
MAX_OUTPUTS = 200  # outputs kept per cell
MAX_NOTEBOOK = 30_000_000  # bytes of output kept per notebook
MAX_CHECKS = 8  # outcomes sent per cell: a graded cell has one

_INPUT = (
    "input() has nobody to ask while a notebook is graded. "
    "Put the value into a variable in the cell instead."
)


class CellTimeout(BaseException):
    """A cell ran out of time. Not an Exception, so that ``except Exception`` does not catch it."""


# ---- what a cell puts out --------------------------------------------------------------------


class Recorder:
    """Collects the outputs of the current cell as a notebook holds them, within bounds."""

    def __init__(self) -> None:
        self.total = 0
        self.begin()

    def begin(self) -> None:
        """Starts a new cell."""
        self.outputs: list[dict[str, Any]] = []
        self._ids: list[str | None] = []
        self._text = self._rich = self._cut = self._dropped = 0
        self._clear_first = False

    def stream(self, name: str, text: str) -> None:
        """Adds printed text; what is beyond the limit is only counted."""
        self._clear_if_asked()
        room = min(MAX_TEXT - self._text, MAX_NOTEBOOK - self.total)
        kept = text[: max(room, 0)]
        self._cut += len(text) - len(kept)
        if not kept:
            return
        self._text += len(kept)
        self.total += len(kept)
        last = self.outputs[-1] if self.outputs else None
        if last and last["output_type"] == "stream" and last["name"] == name:
            last["text"].append(kept)
        elif self._has_room():
            self._add({"output_type": "stream", "name": name, "text": [kept]})

    def rich(
        self,
        kind: str,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        count: int | None = None,
        display_id: str | None = None,
        update: bool = False,
    ) -> None:
        """Adds a ``display_data`` or ``execute_result``, or updates the display with that id."""
        self._clear_if_asked()
        bundle = {str(mime): _plain(value) for mime, value in data.items()}
        size = sum(len(v) if isinstance(v, str) else len(json.dumps(v)) for v in bundle.values())
        if self._rich + size > MAX_RICH or self.total + size > MAX_NOTEBOOK:
            self._dropped += 1
            return
        output = {
            "output_type": kind,
            "data": bundle,
            "metadata": _plain(dict(metadata or {})),
        }
        if update:
            shown = [i for i, known in enumerate(self._ids) if known and known == display_id]
            for index in shown:
                self.outputs[index] |= {"data": output["data"], "metadata": output["metadata"]}
            size *= len(shown)
        elif self._has_room():
            if kind == "execute_result":
                output["execution_count"] = count
            self._add(output, display_id)
        self._rich += size
        self.total += size

    def error(self, name: str, value: str, lines: Sequence[str]) -> None:
        """Adds an error; there is always room for one."""
        self._clear_if_asked()
        kept = list(lines) if len(lines) <= 60 else [*lines[:30], "…", *lines[-29:]]
        self._add(
            {
                "output_type": "error",
                "ename": name[:200],
                "evalue": value[:2000],
                "traceback": [line[:20_000] for line in kept],
            }
        )

    def clear(self, wait: bool = False) -> None:
        """What ``clear_output`` does; with ``wait`` when the next output comes."""
        if wait:
            self._clear_first = True
            return
        self.outputs.clear()
        self._ids.clear()
        self._clear_first = False

    def finish(self) -> list[dict[str, Any]]:
        """The outputs of the cell, with a note where something was cut."""
        for output in self.outputs:
            if output["output_type"] == "stream":
                output["text"] = _as_a_screen_shows("".join(output["text"]))
        notes = []
        if self._cut:
            notes.append(f"{self._cut:,} more characters of output")
        if self._dropped:
            notes.append(f"{self._dropped:,} more outputs")
        if notes:
            text = f"\n… {' and '.join(notes)} were cut.\n"
            self.outputs.append({"output_type": "stream", "name": "stdout", "text": text})
        return self.outputs

    def _add(self, output: dict[str, Any], display_id: str | None = None) -> None:
        self.outputs.append(output)
        self._ids.append(display_id)

    def _has_room(self) -> bool:
        if len(self.outputs) < MAX_OUTPUTS:
            return True
        self._dropped += 1
        return False

    def _clear_if_asked(self) -> None:
        if self._clear_first:
            self.clear()


def _plain(value: Any) -> Any:
    """A value that JSON can hold: bytes (images) become base64, unknown types their text."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    try:
        return json.loads(json.dumps(value, default=str))
    except (ValueError, TypeError, RecursionError):
        return ""


def _as_a_screen_shows(text: str) -> str:
    """Keeps what a progress bar wrote last on each line, not every step of it."""
    if "\r" not in text:
        return text
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines)


class _Bytes(io.RawIOBase):
    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(bytes(data).decode("utf-8", "replace"))
        return len(data)


class _Stream(io.TextIOBase):
    """Standard output or error of the cells."""

    def __init__(self, name: str, recorder: Recorder) -> None:
        self._name = name
        self._recorder = recorder
        self.buffer = _Bytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 1 if self._name == "stdout" else 2

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._recorder.stream(self._name, str(text))
        return len(text)


# ---- the shell -------------------------------------------------------------------------------


class _Publisher(DisplayPublisher):
    recorder = AnyTrait()

    def publish(  # type: ignore[override]
        self,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        *,
        transient: Mapping[str, Any] | None = None,
        update: bool = False,
        **_: Any,
    ) -> None:
        display_id = (transient or {}).get("display_id")
        self.recorder.rich("display_data", data, metadata, display_id=display_id, update=update)

    def clear_output(self, wait: bool = False) -> None:
        self.recorder.clear(wait)


class _Hook(DisplayHook):
    recorder = AnyTrait()

    def write_output_prompt(self) -> None:
        """A notebook writes its prompts itself."""

    def write_format_data(self, format_dict: Any, md_dict: Any = None) -> None:
        self.recorder.rich("execute_result", format_dict, md_dict, self.prompt_count)


class Shell(InteractiveShell):
    """An IPython shell that behaves as a notebook's kernel does, in this process."""

    displayhook_class = Type(_Hook)
    display_pub_class = Type(_Publisher)
    recorder: Recorder

    def init_magics(self) -> None:
        """Adds to IPython's own magics that grading never installs anything."""
        super().init_magics()

        def installs_nothing(line: str) -> None:
            print("Packages are not installed while a notebook is graded.")

        for name in ("pip", "conda", "mamba", "micromamba", "uv"):
            self.register_magic_function(installs_nothing, "line", name)

    def system(self, cmd: str) -> None:
        """Runs ``!command``, except an installation."""
        words = cmd.split()
        if "install" in words and any(word.startswith(("pip", "conda", "uv")) for word in words):
            print("Packages are not installed while a notebook is graded.")
            return
        # No terminal, as IPython would make one: there are none in here.
        try:
            process = self._start(cmd, depth=1)
        except OSError as error:
            print(f"No command can be run here: {error.strerror}.")
            return
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                sys.stdout.write(line.decode("utf-8", "replace"))
        self.user_ns["_exit_code"] = process.returncode

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> Any:
        """Runs ``x = !command``."""
        try:
            said = self._start(cmd, depth=depth + 1).communicate()[0]
        except OSError as error:
            said = f"No command can be run here: {error.strerror}.".encode()
        text = said.decode("utf-8", "replace")
        return SList(text.splitlines()) if split else LSString(text)

    def _start(self, cmd: str, depth: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.var_expand(cmd, depth=depth + 1),
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def ask_exit(self) -> None:
        """``exit`` and ``quit`` do nothing: the next cell still runs."""

    def _showtraceback(self, etype: Any, evalue: Any, stb: Any) -> None:
        lines = stb if isinstance(stb, list) else [str(stb)]
        self.recorder.error(etype.__name__, _text_of(evalue), [str(line) for line in lines])

    @contextlib.contextmanager
    def _tee(self, channel: str) -> Iterator[None]:
        # IPython copies what is printed into its history; a flood would fill the memory.
        yield


def _text_of(value: Any) -> str:
    try:
        return str(value)
    except BaseException:  # a learner's __str__ may do anything
        return ""


def new_shell(recorder: Recorder) -> Shell:
    """The shell of this process, its streams and displays going to ``recorder``."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.banner1 = ""
    shell = Shell.instance(config=config, user_ns={"__name__": "__main__"})
    shell.recorder = shell.display_pub.recorder = shell.displayhook.recorder = recorder
    # IPython keeps every result for Out[n]; a graded notebook does not need the older ones.
    shell.displayhook.cache_size = 50

    def refuse(*_: Any, **__: Any) -> str:
        raise StdinNotImplementedError(_INPUT)

    builtins.input = refuse
    getpass.getpass = refuse
    sys.stdin = io.StringIO()
    sys.stdout = _Stream("stdout", recorder)
    sys.stderr = _Stream("stderr", recorder)
    return shell


# ---- running ---------------------------------------------------------------------------------


def run(job: Mapping[str, Any], send: Callable[[int, int, bytes], None]) -> None:
    """Runs every cell of a job in this process, and sends what each gives.

    Args:
        job: what :meth:`autograder.engine.Job.to_json` writes.
        send: called with the kind of a frame, the cell's index and the payload.
    """
    import numpy
    import torch

    from autograder import checking, runner

    shell = prepare()
    recorder = shell.recorder
    # What a training cell shows should not change from one grading to the next.
    random.seed(0)
    numpy.random.seed(0)
    # Not torch.manual_seed: it formats a stack trace for every kind of device not yet used.
    torch.default_generator.manual_seed(0)
    sent: list[int] = []
    current = [0]

    def send_outcomes(data: bytes) -> None:
        sent.append(current[0])
        if sent.count(current[0]) <= MAX_CHECKS:
            send(OUTCOMES, current[0], bytes(data))

    def keys_of(exercise: str) -> Mapping[str, str] | None:
        cell = job["cells"][current[0]]
        return cell["keys"] if cell["exercise"] == exercise else None

    checking.grading(send_outcomes, keys_of, job["case_seconds"])
    check = checking.check
    if job["without"]:
        runner.remove(job["without"])
    slow = 0
    for index, cell in enumerate(job["cells"]):
        current[0] = index
        graded = cell["exercise"] is not None
        recorder.begin()
        if graded:
            # The cell is the course's own: a deleted import or a name reused must not matter.
            shell.user_ns["check"] = check
        # A component that never ends is called again by the cells that show or train it. They
        # give no points, so they get less and less time, and the graded ones keep theirs.
        limit = job["cell_seconds"] if graded else max(job["cell_seconds"] / 4**slow, 1.0)
        began = time.monotonic()
        status = _run_cell(shell, recorder, cell["source"], limit)
        seconds = time.monotonic() - began
        slow += status == "timeout" or (graded and seconds >= job["case_seconds"])
        ended = {"outputs": recorder.finish(), "status": status, "seconds": round(seconds, 3)}
        send(CELL, index, json.dumps(ended, ensure_ascii=False).encode("utf-8", "replace"))
    send(END, 0, b"")


def _run_cell(shell: Shell, recorder: Recorder, source: str, seconds: float) -> str:
    """Runs one cell; returns ok, error or timeout."""
    with _CellLimit(seconds) as limit:
        try:
            result = shell.run_cell(source, store_history=True)
            failed = not result.success
            starved = isinstance(result.error_in_exec, MemoryError)
            del result
        except BaseException as error:  # nothing that a cell does may end the notebook
            failed, starved = True, isinstance(error, MemoryError)
            recorder.error(type(error).__name__, _text_of(error), [])
    if starved:
        # The frames of the error hold the memory that the next cell needs.
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            vars(sys).pop(name, None)
        shell.last_execution_result = shell.InteractiveTB.tb = None
        gc.collect()
    if limit.reached:
        text = f"The cell did not end within {seconds:g} seconds."
        recorder.outputs = [o for o in recorder.outputs if o["output_type"] != "error"]
        recorder.error("CellTimeout", text, [text])
        return "timeout"
    if failed and not any(o["output_type"] == "error" for o in recorder.outputs):
        # IPython prints some errors, such as those of an unknown magic, instead of showing them.
        recorder.error("Error", "The cell could not be run.", ["The cell could not be run."])
    return "error" if failed else "ok"


class _CellLimit:
    """Raises :class:`CellTimeout` in the main thread once the time of a cell is over.

    A signal from a watching thread, not an alarm: the alarm clock belongs to the time limit of
    the single cases, and there is only one. It is raised again every two seconds, so that one
    ``except:`` does not keep a loop alive.
    """

    def __init__(self, seconds: float) -> None:
        self.reached = False
        self._seconds = seconds
        self._inside = False
        self._over = threading.Event()
        self._main = threading.get_ident()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _CellLimit:
        signal.signal(signal.SIGUSR1, self._ring)
        self._inside = True
        self._watcher.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        self._inside = False
        self._over.set()
        # A signal that came between the end of the cell and this line.
        return isinstance(error, CellTimeout)

    def _watch(self) -> None:
        wait = self._seconds
        while not self._over.wait(wait):
            signal.pthread_kill(self._main, signal.SIGUSR1)
            wait = 2.0

    def _ring(self, signum: int, frame: types.FrameType | None) -> None:
        if self._inside:
            self.reached = True
            raise CellTimeout


# ---- the process -----------------------------------------------------------------------------


@dataclasses.dataclass
class Channel:
    """Writes frames to a file descriptor."""

    fd: int
    lock: Any = dataclasses.field(default_factory=threading.Lock)

    def send(self, kind: int, index: int, payload: bytes) -> None:
        """Writes one frame, whole."""
        data = memoryview(HEADER.pack(kind, index, len(payload)) + payload)
        with self.lock:
            while data:
                data = data[os.write(self.fd, data) :]


@functools.cache
def prepare() -> Shell:
    """Makes the shell, and does once what every submission would do first.

    The fork server calls it before it forks. Torch keeps to one thread: a process that has run
    an operation on several has children that hang.
    """
    import torch

    from autograder import runner

    for name in _LIBRARIES:
        importlib.import_module(name)

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    shell = new_shell(Recorder())
    for source in _FIRST_USES:
        shell.recorder.begin()
        shell.run_cell(source)
    shell.recorder.begin()
    runner.load_watchers()
    # The files are not there for submissions: whatever they hold is read now.
    list(exercises.every())
    return shell


_LIBRARIES = (
    "ipywidgets",
    "matplotlib.pyplot",
    "numpy",
    "tqdm.auto",
    "workbook.plots",
    "workbook.training",
    "workbook.widgets",
)
# What loads something at its first use: values, errors, figures, display, magics, loops.
_FIRST_USES = (
    "6 * 7",
    "1 / 0",
    "%time 1",
    "from IPython.display import HTML, display; display(HTML(''))",
    "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()",
    "from tqdm.auto import tqdm\nfor _ in tqdm([1]): pass",
    "import torch; p = torch.nn.Linear(2, 2).weight; p.grad = p.detach() * 0;"
    "torch.optim.Adam([p]).step()",
    "%reset -f",
)
