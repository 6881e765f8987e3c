"""Running a submission: the small interface that grading sees, and the engine behind it.

Grading hands an :class:`Engine` a :class:`Job` and gets a :class:`Transcript`: what each cell put
out, and the raw bytes that each ``check`` sent. Nothing of what comes back is trusted: frames,
sizes and outputs are bounded and rebuilt here, and the bytes are judged by someone else.

:class:`ProcessEngine` runs every submission in a process of its own, under a time limit.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import nbformat
from nbformat import NotebookNode

from autograder.outcomes import MAX_BYTES as MAX_OUTCOMES
from autograder.worker import CELL, END, HEADER, OUTCOMES

MAX_CELL = 64 * 1024 * 1024  # one cell's outputs as JSON
MAX_TOTAL = 128 * 1024 * 1024  # everything that one submission may send
_LAST_WORDS = 4000  # bytes of standard error kept for the case that the process dies


@dataclass(frozen=True)
class Cell:
    """A code cell to run. ``exercise`` is what it checks, None where it is not graded."""

    id: str
    source: str
    exercise: str | None = None


@dataclass(frozen=True)
class Job:
    """One submission as an engine runs it.

    Attributes:
        cells: the code cells, in order.
        seed: the reference pack's, from which the cases make their inputs.
        hidden: whether hidden cases run too.
        case_seconds, cell_seconds, seconds: time limits of a case, a cell, the whole submission.
            Once something has run out of time, the later cells that are not graded get less.
        budget: ``WORKBOOK_BUDGET`` for the cells that train.
    """

    cells: Sequence[Cell]
    seed: int
    hidden: bool = False
    case_seconds: float = 5.0
    cell_seconds: float = 20.0
    seconds: float = 60.0
    budget: str = "smoke"

    def to_json(self) -> dict[str, Any]:
        """The job as plain JSON values, as :mod:`autograder.worker` reads it."""
        return asdict(self)


@dataclass
class CellResult:
    """What one cell gave.

    Attributes:
        outputs: as a notebook holds them.
        messages: the bytes that its checks sent, unjudged.
        status: ok, error or timeout; None where the cell did not end.
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
        seconds: how long it took, the start of its process included.
    """

    cells: dict[str, CellResult]
    status: str
    note: str = ""
    seconds: float = 0.0

    @property
    def stopped_in(self) -> str | None:
        """The id of the first cell that did not end, None where all did."""
        return next((name for name, cell in self.cells.items() if cell.status is None), None)


class Engine(Protocol):
    """Runs submissions. ``run`` may be called from several threads at once."""

    def run(self, job: Job) -> Transcript:
        """Runs one submission; whatever it does, a transcript comes back."""


class ProcessEngine:
    """Runs every submission in a fresh process with its own session and working folder."""

    def run(self, job: Job) -> Transcript:
        """Runs one submission; see :class:`Engine`."""
        began = time.monotonic()
        reader, writer = os.pipe()
        try:
            with (
                tempfile.TemporaryDirectory(
                    prefix="submission-", ignore_cleanup_errors=True
                ) as folder,
                tempfile.TemporaryFile() as stdin,
            ):
                stdin.write(json.dumps(job.to_json()).encode())
                stdin.seek(0)
                work = os.path.join(folder, "work")
                os.mkdir(work)
                process = subprocess.Popen(
                    [sys.executable, "-m", "autograder.worker", str(writer)],
                    stdin=stdin,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=[writer],
                    cwd=work,
                    env=environment(job, folder),
                    start_new_session=True,
                )
                os.close(writer)
                writer = -1
                receiver = Receiver(job)
                try:
                    status, note = _follow(process, reader, receiver, began + job.seconds, job)
                finally:
                    _end(process)
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)
        return Transcript(receiver.results, status, note, round(time.monotonic() - began, 3))


def environment(job: Job, folder: str) -> dict[str, str]:
    """The environment of a process that runs a submission: what it needs, and no secrets."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "MPLCONFIGDIR")
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in kept or name.startswith(("LC_", "COVERAGE_", "COV_CORE_"))
    }
    return {
        **inherited,
        "WORKBOOK_BUDGET": job.budget,
        "WORKBOOK_GRADING": "1",
        "WORKBOOK_STATIC": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "IPYTHONDIR": os.path.join(folder, "ipython"),
        "PYTHONHASHSEED": "0",
        "PYTHONUTF8": "1",
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
    or kind, a wrong length, a second result for a cell. A forger can only spoil its own grade.
    """

    def __init__(self, job: Job) -> None:
        self.results = {cell.id: CellResult() for cell in job.cells}
        self.ended = False
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
            if limit is None or index >= max(len(self._order), 1):
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
        cell = self.results[self._order[index]]
        if cell.status is not None:
            return  # the cell has ended: whatever comes after that is not its own
        if kind == OUTCOMES:
            cell.messages.append(payload)
            return
        try:
            ended = json.loads(payload)
            outputs, status = ended["outputs"], ended["status"]
            seconds = float(ended["seconds"])
            if status not in ("ok", "error", "timeout"):
                raise ValueError(status)
            cell.outputs = [_rebuilt(output) for output in outputs]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BrokenProtocol("it sent a cell's outputs malformed") from error
        cell.status, cell.seconds = status, seconds


def _rebuilt(output: Mapping[str, Any]) -> NotebookNode:
    """An output with exactly the fields that the notebook format gives it."""
    kind = output["output_type"]
    if kind == "stream":
        name = "stderr" if output["name"] == "stderr" else "stdout"
        return nbformat.v4.new_output("stream", name=name, text=_text(output["text"]))
    if kind == "error":
        return nbformat.v4.new_output(
            "error",
            ename=_text(output["ename"]),
            evalue=_text(output["evalue"]),
            traceback=[_text(line) for line in output["traceback"]],
        )
    if kind not in ("display_data", "execute_result"):
        raise ValueError(f"unknown output {kind!r}")
    data = {}
    for mime, value in output["data"].items():
        if mime.endswith("json"):
            data[_text(mime)] = value
        else:
            data[_text(mime)] = _text(value)
    metadata = output["metadata"] if isinstance(output["metadata"], dict) else {}
    made = nbformat.v4.new_output(kind, data=data, metadata=nbformat.from_dict(metadata))
    if kind == "execute_result":
        count = output.get("execution_count")
        made.execution_count = count if type(count) is int and count >= 0 else None
    return made


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value.encode("utf-8", "replace").decode("utf-8")


# ---- the process -----------------------------------------------------------------------------


def _follow(
    process: subprocess.Popen[bytes],
    reader: int,
    receiver: Receiver,
    deadline: float,
    job: Job,
) -> tuple[str, str]:
    """Reads until the submission ends, dies, misbehaves or runs out of time."""
    assert process.stderr is not None
    errors = process.stderr.fileno()
    last_words = b""
    with selectors.DefaultSelector() as selector:
        for fd in (reader, errors):
            os.set_blocking(fd, False)
            selector.register(fd, selectors.EVENT_READ)
        while not receiver.ended:
            left = deadline - time.monotonic()
            if left <= 0:
                return "timeout", f"The notebook ran longer than {job.seconds:g} seconds."
            # A process that the submission started may keep the pipe open after its own death,
            # so the end of the process itself is looked for too.
            dead = process.poll() is not None
            ready = [key.fd for key, _ in selector.select(0 if dead else min(left, 0.2))]
            for fd in ready:
                data = _read(fd)
                if data is None:
                    continue
                if not data:
                    selector.unregister(fd)
                elif fd == errors:
                    last_words = (last_words + data)[-_LAST_WORDS:]
                else:
                    try:
                        receiver.feed(data)
                    except BrokenProtocol as error:
                        return "killed", f"The notebook was stopped: {error}."
            if dead and not ready:
                return "killed", _how_it_died(process.returncode, last_words)
    return "finished", ""


def _read(fd: int) -> bytes | None:
    """What there is to read: b"" at the end, None where there is nothing yet."""
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return None


def _how_it_died(code: int, last_words: bytes) -> str:
    if code < 0:
        name = signal.Signals(-code).name if -code in list(signal.Signals) else str(-code)
        said = f"signal {name}"
    else:
        said = f"exit status {code}"
    lines = last_words.decode("utf-8", "replace").strip().splitlines()
    tail = f"; its last words: {lines[-1][:200]}" if lines else ""
    return f"The notebook's process died ({said}{tail})."


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the process and whatever it started in its session."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
    process.wait()
    if process.stderr is not None:
        process.stderr.close()
