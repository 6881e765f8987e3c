"""Running a submission: the small interface that grading sees, and the engine behind it.

Grading hands an :class:`Engine` a :class:`Job` and gets a :class:`Transcript`: what each cell put
out, and the raw bytes that each ``check`` sent. Nothing of what comes back is trusted: frames,
sizes and outputs are bounded and rebuilt here, and the bytes are judged by someone else.

:class:`ForkEngine` keeps a warm fork server per assignment (:mod:`autograder.server`), which runs
every submission in a process of its own, shut in by :mod:`autograder.sandbox`.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import math
import os
import selectors
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import nbformat
from nbformat import NotebookNode

from autograder import exercise as exercises
from autograder import harmless, isolation, runner
from autograder.outcomes import MAX_BYTES as MAX_OUTCOMES
from autograder.sandbox import HOME, TEMPORARY, Bounds, bubblewrap, missing
from autograder.worker import (
    CELL,
    END,
    HEADER,
    MAX_CHECKS,
    MAX_OUTPUTS,
    MAX_TEXT,
    OUTCOMES,
)

MAX_CELL = 32 * 1024 * 1024  # one cell's outputs as JSON
MAX_TOTAL = 128 * 1024 * 1024  # everything that one submission may send
_GRACE = 3.0  # seconds that a cell gets beyond its limit, to be interrupted in
_FOLDER = "submissions-"
_LAST_WORDS = 4000  # bytes of standard error kept for the case that the process dies


@dataclass(frozen=True)
class Cell:
    """A code cell to run.

    Attributes:
        id, source: of the cell.
        exercise: what it checks, None where it is not graded.
        keys: what the inputs of each case are made from; from the job's seed where None.
    """

    id: str
    source: str
    exercise: str | None = None
    keys: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Job:
    """One submission as an engine runs it.

    Attributes:
        cells: the code cells, in order.
        seed: the reference pack's, from which the cases make their inputs.
        hidden: whether hidden cases run too.
        case_seconds, cell_seconds, seconds: time limits of a case, a cell, the whole submission.
            Once something has run out of time, the later cells that are not graded get less.
        assignment: its name; one fork server serves all submissions of one.
        modules: what the course's notebook imports, for the server to load beforehand.
        files: what the assignment ships beside its notebook, by relative path.
        without: built-in functions that do not exist for it, nor any other process.
    """

    cells: Sequence[Cell]
    seed: int
    hidden: bool = False
    case_seconds: float = 5.0
    cell_seconds: float = 20.0
    seconds: float = 60.0
    assignment: str = ""
    modules: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The job as plain JSON values, as :mod:`autograder.worker` reads it.

        The seed is not among them: whoever has it knows the inputs of every case.
        """
        files = {name: base64.b64encode(data).decode() for name, data in self.files.items()}
        return {
            "cells": [vars(cell) | {"keys": self._keys(cell)} for cell in self.cells],
            "case_seconds": self.case_seconds,
            "cell_seconds": self.cell_seconds,
            "seconds": self.seconds,
            "assignment": self.assignment,
            "modules": list(self.modules),
            "files": files,
            "without": list(self.without),
        }

    def _keys(self, cell: Cell) -> Mapping[str, str] | None:
        if cell.exercise is None or cell.keys is not None:
            return cell.keys
        return runner.keys(exercises.find(cell.exercise), self.seed, self.hidden)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Job:
        """What :meth:`to_json` gave, without the seed."""
        files = {name: base64.b64decode(data) for name, data in raw["files"].items()}
        cells = [Cell(**cell) for cell in raw["cells"]]
        lists = {name: tuple(raw[name]) for name in ("modules", "without")}
        return cls(**{**raw, **lists, "cells": cells, "files": files, "seed": 0})


@dataclass
class CellResult:
    """What one cell gave.

    Attributes:
        outputs: as a notebook holds them.
        messages: the bytes that its checks sent, unjudged.
        status: ok, error or timeout; killed where it took the process with it; None where the
            cell did not end.
        seconds: how long it ran.
    """

    outputs: list[NotebookNode] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    status: str | None = None
    seconds: float = 0.0


@dataclass
class Transcript:
    """What running a submission gave.

    Attributes:
        cells: by cell id; cells that were never reached are there too, without a status.
        status: finished; timeout: its time was over; killed: its process died before the end.
        note: one sentence on what happened, empty where it finished.
        seconds: how long it took, from the request to the end of its last process.
        peak: bytes of memory that it took beyond the interpreter's own.
        settled: whether running it again can be expected to give the same.
        one_cell: whether the cell that it stopped in is to blame, so that without it the others
            may well run: it never ended, or took the process with it.
    """

    cells: dict[str, CellResult]
    status: str
    note: str = ""
    seconds: float = 0.0
    peak: int = 0
    settled: bool = True
    one_cell: bool = False

    @property
    def stopped_in(self) -> str | None:
        """The id of the first cell that did not end, None where all did."""
        return next((name for name, cell in self.cells.items() if cell.status is None), None)


class EngineError(Exception):
    """Submissions cannot be run at all; the text says why and what to do next."""


class Engine(Protocol):
    """Runs submissions. ``run`` may be called from several threads at once."""

    def run(self, job: Job) -> Transcript:
        """Runs one submission; whatever it does, a transcript comes back.

        Raises:
            EngineError: no submission can be run here.
        """


class ForkEngine:
    """Runs every submission in a child of a warm fork server, shut in as the machine allows.

    Use it as a context manager, or call :meth:`close`: servers stay until then, at the latest
    until nobody holds the engine any more.

    Args:
        trust: whether to run submissions that cannot be shut in.
        bounds: memory, files and processes of each submission.
        layers: of isolation; those that hold on this machine where None.
    """

    def __init__(
        self,
        trust: bool = False,
        bounds: Bounds | None = None,
        layers: Sequence[str] | None = None,
    ) -> None:
        self.trust = trust
        self.bounds = bounds or Bounds()
        self._layers = None if layers is None else tuple(layers)
        self._servers: dict[str, _Server] = {}
        self._lock = threading.Lock()
        self._closed = False
        # A server ends with the thread that started it, so one thread starts them all.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starts-servers")
        self._end = weakref.finalize(self, _close, self._servers, self._starter)

    def __enter__(self) -> ForkEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the servers, and with them whatever they still run."""
        with self._lock:
            self._closed = True
            self._end()

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of isolation that are used.

        Raises:
            EngineError: they are too few to run code that nobody has read.
        """
        if self._layers is None:
            self._layers = isolation.holding()
        lacking = missing(self._layers)
        if lacking and not self.trust:
            raise EngineError(isolation.refusal(lacking))
        return self._layers

    def run(self, job: Job) -> Transcript:
        """Runs one submission; see :class:`Engine`."""
        for _ in range(2):
            # The server dies only where the machine ends it, for want of memory for one.
            server = self._server(job)
            began = time.monotonic()
            try:
                transcript = server.run(job)
                transcript.seconds = round(time.monotonic() - began, 3)
                return transcript
            except _ServerDied:
                continue
            finally:
                with self._lock:
                    server.busy -= 1
        cells = {cell.id: CellResult() for cell in job.cells}
        note = "The notebook was stopped: the server that runs it died, twice."
        return Transcript(cells, "killed", note, settled=False)

    def _server(self, job: Job) -> _Server:
        """The server for a job, which counts as busy until the caller says otherwise."""
        with self._lock:
            if self._closed:
                raise EngineError("The engine has been closed; no submission can be run any more.")
            server = self._servers.get(job.assignment)
            if server is None or server.dead:
                for name, other in list(self._servers.items()):
                    if other.dead or not other.busy:
                        other.close()
                        del self._servers[name]
                layers = self.layers
                server = self._starter.submit(_Server, job, layers, self.bounds).result()
                self._servers[job.assignment] = server
            server.busy += 1
            return server


def _close(servers: dict[str, _Server], starter: ThreadPoolExecutor) -> None:
    for server in servers.values():
        server.close()
    servers.clear()
    starter.shutdown()


class _ServerDied(Exception):
    """The fork server is gone, and with it what it ran."""


class _Server:
    """A fork server, as the process that grades sees it."""

    def __init__(self, job: Job, layers: Sequence[str], bounds: Bounds) -> None:
        self.dead = False
        self.busy = 0
        self._ended: dict[int, dict[str, Any]] = {}
        self._started: set[int] = set()
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._asking = threading.Lock()
        _sweep()
        self._folder = tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-")
        view = isolation.view(job.assignment)
        settings = {
            "layers": list(layers),
            "view": view.to_json(),
            "bounds": vars(bounds),
            "folder": self._folder,
            "modules": list(job.modules),
        }
        self._control, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as said:
            command = [sys.executable, "-P", "-m", "autograder.server"]
            command += [str(theirs.fileno()), json.dumps(settings)]
            if "bubblewrap" in layers:
                command = [*bubblewrap(view), *command]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                pass_fds=[theirs.fileno()],
                cwd=self._folder,
                env=environment(),
                start_new_session=True,
            )
            theirs.close()
            self._lines = self._control.makefile("rb")
            answer = self._answer()
            if "ready" not in answer:
                self._process.kill()
                self._process.wait()
                said.seek(0)
                why = answer.get("failed") or _last_line(said.read())
                self.close()
                raise EngineError(
                    f"The server that runs submissions did not start ({why}). "
                    "autograder doctor says what this machine offers."
                )
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Hangs up; the server ends what it runs, and itself."""
        self.dead = True
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        self._process.wait()
        self._lines.close()
        self._control.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except (OSError, ValueError):
            return {}
        return json.loads(line) if line else {}

    def _listen(self) -> None:
        while answer := self._answer():
            with self._changed:
                if "started" in answer:
                    self._started.add(answer["started"])
                else:
                    self._ended[answer["ended"]] = answer
                self._changed.notify_all()
        with self._changed:
            self.dead = True
            self._changed.notify_all()

    def run(self, job: Job) -> Transcript:
        """Runs a submission; raises :class:`_ServerDied`."""
        number = next(self._numbers)
        receiver = Receiver(job)
        deadline = time.monotonic() + job.seconds
        reader, writer = os.pipe()
        errors, their_errors = os.pipe()
        with os.fdopen(reader, "rb"), os.fdopen(errors, "rb"):
            with tempfile.TemporaryFile() as file:
                file.write(json.dumps(job.to_json()).encode())
                file.seek(0)
                try:
                    self._start(number, job.seconds, [file.fileno(), writer, their_errors])
                finally:
                    os.close(writer)
                    os.close(their_errors)
            status, note, said = _follow(
                reader, errors, receiver, deadline, job, lambda: number in self._ended
            )
            ended = self._end(number)
        settled, one_cell = True, status in ("died", "hung")
        if "failed" in ended:
            raise EngineError(
                f"A submission cannot be shut in ({ended['failed']}). "
                "autograder doctor says what this machine offers."
            )
        if status == "died":
            status, note = "killed", _how_it_died(ended, said)
            # Nobody knows who killed it; the machine, perhaps, for want of memory.
            settled = ended["signal"] != signal.SIGKILL or bool(ended["reason"])
        if status == "hung":
            status = "timeout"
        return Transcript(
            receiver.results,
            status,
            note,
            peak=ended["peak"],
            settled=settled,
            one_cell=one_cell,
        )

    def _start(self, number: int, seconds: float, descriptors: list[int]) -> None:
        said = json.dumps({"run": number, "seconds": seconds}).encode() + b"\n"
        # One at a time: descriptors must not run together.
        with self._asking:
            try:
                socket.send_fds(self._control, [said], descriptors)
            except OSError as error:
                raise _ServerDied from error
            with self._changed:
                self._changed.wait_for(
                    lambda: self.dead or number in self._started or number in self._ended
                )
                self._started.discard(number)

    def _end(self, number: int) -> dict[str, Any]:
        """Has a submission ended, and waits until nothing of it is left."""
        with contextlib.suppress(OSError):
            self._control.sendall(json.dumps({"kill": number}).encode() + b"\n")
        with self._changed:
            self._changed.wait_for(lambda: self.dead or number in self._ended)
            if number not in self._ended:
                raise _ServerDied
            return self._ended.pop(number)


def _sweep() -> None:
    """Removes the folders of servers whose grading was killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        owner = path.name.removeprefix(_FOLDER).split("-")[0]
        if owner.isdigit():
            try:
                os.kill(int(owner), 0)
            except ProcessLookupError:
                shutil.rmtree(path, ignore_errors=True)
            except OSError:
                continue  # somebody else's


def environment() -> dict[str, str]:
    """The environment of the processes that run submissions: what they need, and no secrets."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "LANG") or name.startswith("LC_")
    }
    if site.ENABLE_USER_SITE:
        kept["PYTHONUSERBASE"] = site.getuserbase()
    return {
        **kept,
        "HOME": HOME,
        "USER": "learner",
        "TMPDIR": HOME,
        "WORKBOOK_BUDGET": "smoke",
        "WORKBOOK_GRADING": "1",
        "WORKBOOK_STATIC": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MPLCONFIGDIR": f"{TEMPORARY}/matplotlib",
        "IPYTHONDIR": f"{TEMPORARY}/ipython",
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


# ---- what comes back -------------------------------------------------------------------------


class BrokenProtocol(Exception):
    """What came through the channel is not what a worker sends."""


class Receiver:
    """Takes the bytes that a worker sends, in pieces of any size, and keeps what is sound.

    The code of a submission can reach the channel, so every frame may be forged: an unknown cell
    or kind, a wrong length, a result of a cell that is over or has yet to come. A forger can only
    spoil its own grade.
    """

    def __init__(self, job: Job) -> None:
        self.results = {cell.id: CellResult() for cell in job.cells}
        self.ended = False
        self.count = 0  # of the cells that have ended
        self._order = list(self.results)
        self._buffer = bytearray()
        self._received = 0

    def feed(self, data: bytes) -> None:
        """Takes some bytes.

        Raises:
            BrokenProtocol: they cannot come from a worker, or are too many.
        """
        self._received += len(data)
        if self._received > MAX_TOTAL:
            raise BrokenProtocol(f"it sent more than {MAX_TOTAL / 2**20:.0f} MiB")
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, index, length = HEADER.unpack_from(self._buffer)
            limit = {CELL: MAX_CELL, OUTCOMES: MAX_OUTCOMES, END: 0}.get(kind)
            if limit is None or (kind != END and index >= len(self._order)):
                raise BrokenProtocol("it sent something that is no result")
            if length > limit:
                raise BrokenProtocol(f"it sent a result of {length / 2**20:.0f} MiB")
            if len(self._buffer) < HEADER.size + length:
                return
            payload = bytes(self._buffer[HEADER.size : HEADER.size + length])
            del self._buffer[: HEADER.size + length]
            self._take(kind, index, payload)

    def _take(self, kind: int, index: int, payload: bytes) -> None:
        if kind == END:
            self.ended = True
            return
        if index != self.count:
            # Cells run one after the other, so nothing but the running one has anything to send.
            raise BrokenProtocol("it sent a result of a cell that was not running")
        cell = self.results[self._order[index]]
        if kind == OUTCOMES:
            if len(cell.messages) >= MAX_CHECKS:
                raise BrokenProtocol("it sent more results than a cell has checks")
            cell.messages.append(payload)
            return
        try:
            ended = json.loads(payload)
            outputs, status = ended["outputs"], ended["status"]
            seconds = float(ended["seconds"])
            if not math.isfinite(seconds):
                raise ValueError(seconds)
            if status not in ("ok", "error", "timeout"):
                raise ValueError(status)
            if len(outputs) > MAX_OUTPUTS + 2:  # an error, and a note on what was cut
                raise ValueError(len(outputs))
            cell.outputs = [_rebuilt(output) for output in outputs]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BrokenProtocol("it sent a cell's outputs malformed") from error
        cell.status, cell.seconds = status, seconds
        self.count += 1


def _rebuilt(output: Mapping[str, Any]) -> NotebookNode:
    """An output with exactly the fields that the notebook format gives it."""
    kind = output["output_type"]
    if kind == "stream":
        name = "stderr" if output["name"] == "stderr" else "stdout"
        text = _text(output["text"], 2 * MAX_TEXT)
        return nbformat.from_dict({"output_type": kind, "name": name, "text": text})
    if kind == "error":
        return nbformat.from_dict(
            {
                "output_type": kind,
                "ename": _text(output["ename"], 200),
                "evalue": _text(output["evalue"], 2000),
                "traceback": [_text(line, 20_000) for line in output["traceback"][:100]],
            }
        )
    if kind not in ("display_data", "execute_result"):
        raise ValueError(f"unknown output {kind!r}")
    data = harmless.bundle(output["data"])
    metadata = harmless.sizes(output["metadata"])
    made = nbformat.v4.new_output(kind, data=data, metadata=nbformat.from_dict(metadata))
    if kind == "execute_result":
        count = output.get("execution_count")
        made.execution_count = count if type(count) is int and count >= 0 else None
    return made


def _text(value: Any, length: int) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value[:length].encode("utf-8", "replace").decode("utf-8")


# ---- following -------------------------------------------------------------------------------


def _follow(
    reader: int,
    errors: int,
    receiver: Receiver,
    deadline: float,
    job: Job,
    over: Callable[[], bool],
) -> tuple[str, str, bytes]:
    """Reads until the submission ends, dies, misbehaves or runs out of time.

    Without a process namespace, what it started may keep its pipe open when it is gone itself;
    ``over`` tells.

    Returns:
        The status (``hung`` in a cell that cannot be interrupted, ``died`` where its pipe was
        closed before the end, or one of a :class:`Transcript`), a note, and its last words.
    """
    last_words = b""
    count, began = 0, time.monotonic()
    with selectors.DefaultSelector() as selector:
        for fd in (reader, errors):
            os.set_blocking(fd, False)
            selector.register(fd, selectors.EVENT_READ)
        while not receiver.ended:
            now = time.monotonic()
            left = deadline - now
            if left <= 0:
                note = f"The notebook ran longer than {job.seconds:g} seconds."
                return "timeout", note, last_words
            if receiver.count > count:
                count, began = receiver.count, now
            hangs = began + job.cell_seconds + _GRACE - now
            if hangs <= 0:
                note = f"The cell did not end within {job.cell_seconds:g} seconds."
                return "hung", note, last_words
            gone = over()
            ready = selector.select(0 if gone else min(left, hangs, 0.5))
            if gone and not ready:
                return "died", "", last_words
            for key, _ in ready:
                data = _read(key.fd)
                if data is None:
                    continue
                if key.fd == errors:
                    last_words = (last_words + data)[-_LAST_WORDS:]
                    if not data:
                        selector.unregister(errors)
                    continue
                if not data:
                    last_words += _read(errors) or b""
                    return "died", "", last_words[-_LAST_WORDS:]
                try:
                    receiver.feed(data)
                except BrokenProtocol as error:
                    return "killed", f"The notebook was stopped: {error}.", last_words
    return "finished", "", last_words


def _read(fd: int) -> bytes | None:
    """What there is to read: b"" at the end, None where there is nothing yet."""
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return None


def _how_it_died(ended: Mapping[str, Any], last_words: bytes) -> str:
    if ended["reason"]:
        return f"The notebook was stopped: {ended['reason']}."
    number = ended["signal"]
    if number:
        known = number in list(signal.Signals)
        said = f"signal {signal.Signals(number).name if known else number}"
    else:
        said = f"exit status {ended['code']}"
    last = _last_line(last_words)
    tail = f"; its last words: {last[:200]}" if last else ""
    return f"The notebook's process died ({said}{tail})."


def _last_line(said: bytes) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else ""
