"""Running submissions on many machines: the engine behind ``autograder grade --cluster``.

:class:`ClusterEngine` sends batches of jobs, as bytes, to the workers of a Dask scheduler, and gets
transcripts back, as bytes; no disk is shared. A worker hands its jobs to a
:class:`~autograder.engine.ForkEngine` of its own (:func:`run_batch`), so learner code never runs in
a worker's process, and references never leave the machine that grades.

A worker is trusted to run what it is given, but not to be well: it may have other code, die in the
middle of a batch, or answer nonsense. Of these only a death does not end the grading: the batch
runs again elsewhere.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import pkgutil
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import workbook
from autograder import assignment
from autograder import exercise as exercises
from autograder.engine import (
    MAX_TOTAL,
    BrokenProtocol,
    CellResult,
    EngineError,
    ForkEngine,
    Job,
    Receiver,
    Transcript,
)
from autograder.sandbox import Bounds
from autograder.worker import CELL, HEADER, OUTCOMES

_AHEAD = 2  # batches that a worker is given at once: while one runs, the next is on its way
_OFFERED = 4  # submissions to have ready for each that runs at once
_MAX_SENT = MAX_TOTAL  # bytes of a transcript as JSON
_LOOK_EVERY = 1.0  # seconds between two looks whether there still are workers
_MAX_NOTE = 2000  # characters


# ---- in the process that grades --------------------------------------------------------------


@dataclass(eq=False)
class _Asked:
    """A job that somebody waits for."""

    job: Job
    transcript: Future[Transcript] = field(default_factory=Future)


class _Left(Exception):
    """A worker is not in the cluster any more."""


class ClusterEngine:
    """Runs submissions on the workers of a Dask scheduler; see :class:`autograder.engine.Engine`.

    Workers that join or restart later are used, too. Use it as a context manager, or call
    :meth:`close`.

    Args:
        address: the scheduler's, such as ``tcp://10.0.0.1:8786``.
        trust: whether workers run submissions that they cannot shut in.
        bounds: memory, files and processes of each submission.
        patience: seconds to wait for the scheduler to answer, and for a first worker.

    Attributes:
        width: how many submissions to offer at once: more than all workers run at once, so that
            none of them has to wait for the next batch.

    Raises:
        EngineError: there is no such scheduler, it has no workers, or one of them must not be
            used; the text says which, and what to do.
    """

    def __init__(
        self,
        address: str,
        trust: bool = False,
        bounds: Bounds | None = None,
        patience: float = 10.0,
    ) -> None:
        self.address = address
        self._patience = patience
        self._settings = {
            "identity": identity(),
            "trust": trust,
            "bounds": vars(bounds or Bounds()),
        }
        self._changed = threading.Condition()
        self._waiting: deque[_Asked] = deque()
        self._suspects: deque[_Asked] = deque()
        self._running = 0  # batches
        self._alone = False  # whether what runs is a suspect
        self._failed: EngineError | None = None
        self._client = _client(address, patience)
        try:
            workers = self._compare()
        except BaseException as error:
            told = self._explained(error) if isinstance(error, Exception) else error
            self._client.close()
            raise told from None
        self.width = _OFFERED * sum(workers.values())
        self._most = _AHEAD * len(workers)
        for _ in range(self._most):
            threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> ClusterEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the cluster; whoever still waits for a submission gets an EngineError."""
        self._fail(EngineError("The cluster has been left; no submission can be run any more."))
        self._client.close()

    def run(self, job: Job) -> Transcript:
        """Runs one submission; see :class:`autograder.engine.Engine`."""
        asked = _Asked(job)
        with self._changed:
            if self._failed:
                raise EngineError(str(self._failed))
            self._waiting.append(asked)
            self._changed.notify_all()
        return asked.transcript.result()

    # Threads that each have one batch in the cluster at a time.

    def _serve(self) -> None:
        from distributed import KilledWorker

        while batch := self._next():
            try:
                transcripts = self._send([asked.job for asked in batch])
                for asked, transcript in zip(batch, transcripts, strict=True):
                    asked.transcript.set_result(transcript)
            except KilledWorker:
                self._suspect(batch)
            except Exception as error:
                self._fail(self._explained(error), batch)
            finally:
                with self._changed:
                    self._running -= 1
                    self._alone = False
                    self._changed.notify_all()

    def _next(self) -> list[_Asked]:
        """The next batch, once there is one; empty when it is all over.

        Where several batches run on a worker that dies, nobody knows which of them was to blame.
        So what has killed workers runs again one at a time, with nothing else beside it.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._failed
                    or (self._suspects and not self._running)
                    or (self._waiting and not self._suspects and not self._alone)
                )
            )
            if self._failed:
                return []
            self._alone = bool(self._suspects)
            # A share of what waits for each thread that is free: few large batches where there is
            # much to do, and no worker idle where there is little.
            share = math.ceil(len(self._waiting) / (self._most - self._running))
            size = min(share, math.ceil(self.width / self._most))
            self._running += 1
            if self._alone:
                return [self._suspects.popleft()]
            return [self._waiting.popleft() for _ in range(size)]

    def _suspect(self, batch: Sequence[_Asked]) -> None:
        with self._changed:
            if not self._alone:
                self._suspects.extend(batch)
                return
        (asked,) = batch
        asked.transcript.set_result(_killed(asked.job, "the workers that ran it died, each time"))

    def _fail(self, error: EngineError, batch: Sequence[_Asked] = ()) -> None:
        """Gives an error to everybody who waits, and to whoever comes later."""
        with self._changed:
            self._failed = self._failed or error
            left = [*batch, *self._waiting, *self._suspects]
            self._waiting.clear()
            self._suspects.clear()
            self._changed.notify_all()
        for asked in left:
            asked.transcript.set_exception(EngineError(str(error)))

    def _send(self, jobs: Sequence[Job], worker: str = "") -> list[Transcript]:
        """Has jobs run, by one worker or by whichever is free.

        Raises:
            EngineError: they cannot be run.
            distributed.KilledWorker: several workers died while they had these jobs.
            Exception: whatever Dask raises where it cannot go on.
        """
        request = {**self._settings, "jobs": [job.to_json() for job in jobs]}
        return _unpacked(self._call(run_batch, _json(request), worker), jobs)

    def _call(self, function: Callable[..., Any], argument: Any, worker: str = "") -> Any:
        """What a function gives in the cluster. Where a worker dies, Dask asks another one."""
        where = {"workers": [worker], "allow_other_workers": False} if worker else {}
        future = self._client.submit(function, argument, pure=False, **where)
        last_seen = time.monotonic()
        while True:
            try:
                return future.result(timeout=_LOOK_EVERY)
            except TimeoutError:
                workers = self._client.nthreads()
            if worker and worker not in workers:
                raise _Left(worker)
            if workers:
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > self._patience:
                raise EngineError(
                    f"The Dask scheduler {self.address} has no workers any more. Start some, and "
                    "grade again: it goes on from there."
                )

    def _explained(self, error: Exception, worker: str = "") -> EngineError:
        if isinstance(error, EngineError):
            return error
        if self._client.status == "running" and not isinstance(error, OSError):
            which = f"The Dask worker {worker}" if worker else f"A Dask worker of {self.address}"
            return EngineError(
                f"{which} cannot run submissions ({type(error).__name__}: {error}). Install there "
                "what is installed here, restart the worker, and grade again."
            )
        return EngineError(
            f"The Dask scheduler {self.address} is gone. Start it again with its workers, and "
            "grade again: it goes on from there."
        )

    def _compare(self) -> dict[str, int]:
        """Asks every worker, before anything is run, whether it could.

        Each batch asks again: a worker may join at any time.

        Returns:
            Their addresses, and how many threads each has.
        """
        deadline = time.monotonic() + self._patience
        while not (workers := self._client.nthreads()):
            if time.monotonic() > deadline:
                raise EngineError(
                    f"The Dask scheduler {self.address} has no workers. Start one on each "
                    f"machine that is to grade: dask worker {self.address}"
                )
            time.sleep(0.1)
        pool = ThreadPoolExecutor(max_workers=32)
        try:
            list(pool.map(self._ask, workers))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return workers

    def _ask(self, worker: str) -> None:
        try:
            # A worker without this module would break if it were sent one of its functions.
            self._call(pkgutil.resolve_name, f"{__name__}:{run_batch.__name__}", worker)
            self._send([], worker)
        except _Left:
            pass  # so nothing will be sent to it
        except Exception as error:
            raise self._explained(error, worker) from None


def _client(address: str, patience: float) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise EngineError(
            "Grading on a cluster needs dask.distributed. Install it here and on every worker: "
            'pip install "transformer-workbook[cluster]"'
        ) from error
    try:
        return Client(address, timeout=patience, set_as_default=False)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"No Dask scheduler answers at {address} ({error}). Start one (dask scheduler), or "
            "give the address that it shows, such as tcp://10.0.0.1:8786."
        ) from error


def _json(value: Any) -> bytes:
    # Whatever a notebook holds has to arrive, be it half a character.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _killed(job: Job, why: str) -> Transcript:
    cells = {cell.id: CellResult() for cell in job.cells}
    return Transcript(cells, "killed", f"The notebook was stopped: {why}.", settled=False)


def _unpacked(answer: Any, jobs: Sequence[Job]) -> list[Transcript]:
    """The transcripts that a worker sent, every part checked.

    Raises:
        EngineError: the worker refused, or sent something else.
    """
    try:
        if len(answer) > (len(jobs) + 1) * _MAX_SENT:
            raise ValueError(f"{len(answer) / 2**20:.0f} MiB are too much")
        found = json.loads(answer)
        if "refused" in found:
            raise EngineError(str(found["refused"]))
        sent = found["transcripts"]
        return [_transcript(job, raw) for job, raw in zip(jobs, sent, strict=True)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EngineError(
            f"A Dask worker sent what is no transcript ({type(error).__name__}: {error}). Restart "
            "the workers, and grade again."
        ) from error


def _transcript(job: Job, raw: Mapping[str, Any]) -> Transcript:
    """One transcript, its cells taken as those that a submission sends: they may be forged.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no transcript.
    """
    receiver = Receiver(job)
    for index, (_, cell) in enumerate(zip(receiver.results, raw["cells"], strict=True)):
        frames = [(OUTCOMES, base64.b64decode(sent, validate=True)) for sent in cell["messages"]]
        if cell["status"] is not None:
            ended = {name: cell[name] for name in ("outputs", "status", "seconds")}
            frames.append((CELL, _json(ended)))
        try:
            for kind, payload in frames:
                receiver.feed(HEADER.pack(kind, index, len(payload)) + payload)
        except BrokenProtocol as error:
            return _killed(job, str(error))
    status, note, seconds, peak = raw["status"], raw["note"], raw["seconds"], raw["peak"]
    if status not in ("finished", "timeout", "killed") or not isinstance(note, str):
        raise ValueError(f"the status {status!r}")
    if type(seconds) not in (int, float) or type(peak) is not int:
        raise TypeError("seconds or peak is no number")
    if not math.isfinite(seconds) or min(seconds, peak) < 0:
        raise ValueError("seconds or peak is out of range")
    settled, one_cell = raw["settled"] is True, raw["one_cell"] is True
    return Transcript(receiver.results, status, note, seconds, peak, settled, one_cell)


# ---- in a worker's process -------------------------------------------------------------------

_making = threading.Lock()


def run_batch(request: bytes) -> bytes:
    """What a Dask worker runs: jobs in, transcripts out, or the reason why not."""
    from distributed import get_worker

    worker = get_worker()
    try:
        asked = json.loads(request)
        _same(asked["identity"])
        with _making:
            settings = asked["trust"], json.dumps(asked["bounds"])
            engine, pool = _local(*settings, worker.state.nthreads)
        _ = engine.layers  # refuses where submissions cannot be shut in
        jobs = [Job.from_json(job) for job in asked["jobs"]]
        transcripts = pool.map(functools.partial(_run, engine), jobs)
        return b'{"transcripts": [' + b", ".join(transcripts) + b"]}"
    except (EngineError, OSError) as error:
        return _json({"refused": f"The Dask worker {worker.address} refuses. {error}"})


@functools.cache
def identity() -> dict[str, str]:
    """What has to be the same everywhere for a submission to get the same grade.

    Found out once: a process keeps the code that it has loaded when its files change.
    """
    cases = {f"cases of {name}": exercises.fingerprint(name) for name in exercises.chapters()}
    libraries = {name: metadata.version(name).split("+")[0] for name in ("torch", "numpy")}
    python = ".".join(platform.python_version_tuple()[:2])
    sources = sorted(Path(workbook.__file__).parent.rglob("*.py"))
    blocks = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    code = {"autograder": assignment.version()[:16], "workbook": blocks}
    return {**cases, **code, "Python": python, **libraries}


def _same(wanted: Mapping[str, str]) -> None:
    mine = identity()
    for name in [*wanted, *mine]:
        if wanted.get(name) != mine.get(name):
            raise EngineError(
                f"It has another version of {name} ({mine.get(name, 'none')}) than the machine "
                f"that grades ({wanted.get(name, 'none')}). Install the same course and "
                "libraries there, and restart the worker."
            )


@functools.cache
def _local(trust: bool, bounds: str, threads: int) -> tuple[ForkEngine, ThreadPoolExecutor]:
    """A worker's engine, and a pool for as many submissions as it has threads for.

    The fork servers that the pool's threads start end with them, so these stay to the end.
    """
    engine = ForkEngine(trust, Bounds(**json.loads(bounds)))
    return engine, ThreadPoolExecutor(max_workers=threads, thread_name_prefix="submission")


def _run(engine: ForkEngine, job: Job) -> bytes:
    transcript = engine.run(job)
    sent = _packed(transcript)
    if len(sent) > _MAX_SENT:
        sent = _packed(_killed(job, f"it sent a result of {len(sent) / 2**20:.0f} MiB"))
    return sent


def _packed(transcript: Transcript) -> bytes:
    cells = [
        {**vars(cell), "messages": [base64.b64encode(sent).decode() for sent in cell.messages]}
        for cell in transcript.cells.values()
    ]
    return _json({**vars(transcript), "note": transcript.note[:_MAX_NOTE], "cells": cells})
