"""Grading on a cluster: the same grades as here, whatever becomes of its workers."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT
from distributed import Client, LocalCluster, Scheduler, WorkerPlugin
from typer.testing import CliRunner

from autograder import cluster as module
from autograder import sample
from autograder.cli import app
from autograder.cluster import ClusterEngine
from autograder.engine import Cell, CellResult, EngineError, ForkEngine, Job, Transcript
from autograder.grading import grade
from autograder.sandbox import Bounds

POISON = "'what ends the worker that has it'"
# Those whose grading takes no time limit.
STUDENTS = ("ada", "ben", "chloe", "david", "emma", "farid", "grace", "hugo")


class Poisoned(WorkerPlugin):
    """Makes a worker die of a certain submission, as if that had broken out."""

    name = "poisoned"

    def setup(self, worker: Any) -> None:
        """Called in every worker, after a restart, too."""
        honest = ForkEngine.run

        def run(engine: ForkEngine, job: Job) -> Transcript:
            if any(POISON in cell.source for cell in job.cells):
                os.kill(os.getpid(), signal.SIGKILL)
            return honest(engine, job)

        ForkEngine.run = run


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A scheduler, and two workers in processes of their own that are restarted when they die."""
    with LocalCluster(
        n_workers=2,
        processes=True,
        threads_per_worker=1,
        dashboard_address=":0",
        silence_logs="CRITICAL",
    ) as started:
        yield started


@pytest.fixture(scope="module")
def bare() -> Iterator[LocalCluster]:
    """A scheduler without workers."""
    with LocalCluster(n_workers=0, dashboard_address=":0", silence_logs="CRITICAL") as started:
        yield started


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small class."""
    folder = tmp_path_factory.mktemp("class")
    for path in sample.generate(folder, ROOT):
        student = path.parent.parent
        if student.name not in STUDENTS:
            shutil.rmtree(student)
    return folder


@pytest.fixture(scope="module")
def expected(submitted: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Its grades.json, from this machine alone."""
    to = tmp_path_factory.mktemp("here")
    rows = grade(submitted, to, jobs=2, root=ROOT, progress=False).rows
    assert {row.status for row in rows if row.student == "ada"} == {"passed"}
    assert len(rows) == len(STUDENTS) * sum(row.student == "ada" for row in rows)
    return (to / "grades.json").read_bytes()


def _job(*sources: str) -> Job:
    return Job([Cell(f"cell-{i}", source) for i, source in enumerate(sources)], 7)


def _scheduler(cluster: LocalCluster) -> Scheduler:
    return cluster.scheduler


# ---- two workers -----------------------------------------------------------------------------


def test_the_grades_are_those_of_one_machine(
    cluster: LocalCluster, submitted: Path, expected: bytes, tmp_path: Path
) -> None:
    options = ["--to", str(tmp_path), "--root", str(ROOT), "--cluster", cluster.scheduler_address]
    ran = CliRunner().invoke(app, ["grade", str(submitted), *options])
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "grades.json").read_bytes() == expected
    runs = json.loads((tmp_path / "runs.json").read_text())
    assert {run["status"] for run in runs.values()} == {"finished"}


def test_learner_code_does_not_run_in_a_workers_process(cluster: LocalCluster) -> None:
    with Client(cluster, set_as_default=False) as client:
        pids = set(client.run(os.getpid).values())
        with ClusterEngine(cluster.scheduler_address) as engine:
            transcript = engine.run(_job("import builtins, os\nbuiltins.here = 1\nos.getpid()"))
        (output,) = transcript.cells["cell-0"].outputs
        assert int(output.data["text/plain"]) not in pids
        assert not any(client.run(_was_here).values())


def _was_here() -> bool:
    import builtins

    return hasattr(builtins, "here")


def _without_isolation() -> None:
    from autograder import isolation

    isolation.holding = tuple


def test_a_worker_without_isolation_is_refused_or_trusted(cluster: LocalCluster) -> None:
    bounds = Bounds(processes=95)  # so that the worker makes an engine of its own
    address = cluster.scheduler_address
    with Client(cluster, set_as_default=False) as client:
        (worker, *_) = client.nthreads()
        client.run(_without_isolation, workers=[worker])
    with pytest.raises(EngineError, match="cannot be shut in") as raised:
        ClusterEngine(address, bounds=bounds)
    assert f"The Dask worker {worker} refuses" in str(raised.value)
    assert "--trust-submissions" in str(raised.value)
    with ClusterEngine(address, trust=True, bounds=bounds) as engine:
        assert engine.run(_job("1")).status == "finished"


def test_whoever_still_waits_when_the_cluster_is_left_is_told(cluster: LocalCluster) -> None:
    with ThreadPoolExecutor() as pool:
        with ClusterEngine(cluster.scheduler_address) as engine:
            waiting = pool.submit(engine.run, _job("import time; time.sleep(4)"))
            while not engine._running:
                time.sleep(0.05)
        began = time.monotonic()
        with pytest.raises(EngineError):
            waiting.result()
        assert time.monotonic() - began < 3
    with pytest.raises(EngineError, match="has been left"):
        engine.run(_job("1"))


class Killing(ClusterEngine):
    """Kills a worker that is busy, once, after the second submission."""

    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__(cluster.scheduler_address)
        self.cluster = cluster
        self.left = 2
        self.killed = ""

    def run(self, job: Job) -> Transcript:
        transcript = super().run(job)
        self.left -= 1
        if self.left == 0:
            with Client(self.cluster, set_as_default=False) as client:
                pids = client.run(os.getpid)
            for address, worker in _scheduler(self.cluster).workers.items():
                if worker.processing:
                    self.killed = address
                    os.kill(pids[address], signal.SIGKILL)
                    break
        return transcript


def test_a_worker_that_is_killed_costs_no_grade(
    cluster: LocalCluster, submitted: Path, expected: bytes, tmp_path: Path
) -> None:
    with Killing(cluster) as engine:
        grade(submitted, tmp_path, root=ROOT, progress=False, engine=engine)
    assert engine.killed
    assert engine.killed not in _scheduler(cluster).workers
    assert (tmp_path / "grades.json").read_bytes() == expected


def test_what_kills_workers_takes_nothing_else_with_it(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_scheduler(cluster), "allowed_failures", 0)
    jobs = [_job(f"print({i})") for i in range(6)]
    jobs.insert(2, _job("print('before')", POISON))
    with Client(cluster, set_as_default=False) as client:
        client.register_plugin(Poisoned())
        with (
            ClusterEngine(cluster.scheduler_address) as engine,
            ThreadPoolExecutor(max_workers=len(jobs)) as pool,
        ):
            transcripts = list(pool.map(engine.run, jobs))
        client.unregister_worker_plugin("poisoned")
    poisoned = transcripts.pop(2)
    assert (poisoned.status, poisoned.settled) == ("killed", False)
    assert "the workers that ran it died" in poisoned.note
    assert list(poisoned.cells) == ["cell-0", "cell-1"]
    assert poisoned.stopped_in == "cell-0"
    for i, transcript in enumerate(transcripts):
        assert transcript.status == "finished"
        assert transcript.cells["cell-0"].outputs[0].text == f"{i}\n"


# ---- other clusters --------------------------------------------------------------------------


@contextlib.contextmanager
def _worker(bare: LocalCluster, packages: Path) -> Iterator[None]:
    """A worker that finds its packages in a folder first."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", bare.scheduler_address]
    worker = subprocess.Popen(
        [*command, "--no-nanny", "--no-dashboard", "--nthreads", "1"],
        cwd=packages,
        env={**os.environ, "PYTHONPATH": str(packages)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        worker.kill()
        worker.wait()
        while _scheduler(bare).workers:
            time.sleep(0.05)


def test_a_worker_with_other_code_is_refused(bare: LocalCluster, tmp_path: Path) -> None:
    for name in ("autograder", "workbook"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    with (tmp_path / "autograder/exercises/01_attention.py").open("a") as file:
        file.write("# changed\n")
    with _worker(bare, tmp_path):
        with pytest.raises(EngineError) as raised:
            ClusterEngine(bare.scheduler_address, patience=30)
        (address,) = _scheduler(bare).workers
        said = str(raised.value)
        assert f"The Dask worker {address} refuses" in said
        assert "another version of cases of 01_attention" in said
        assert "Install the same" in said


def test_a_worker_without_the_course_is_refused(bare: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "autograder.py").write_text("raise ImportError('not the course')\n")
    with _worker(bare, tmp_path):
        with pytest.raises(EngineError, match="ImportError: not the course") as raised:
            ClusterEngine(bare.scheduler_address, patience=30)
        (address,) = _scheduler(bare).workers
        assert f"The Dask worker {address} cannot run submissions" in str(raised.value)


def test_a_scheduler_without_workers_is_refused(bare: LocalCluster) -> None:
    with pytest.raises(EngineError, match=r"has no workers\. Start one") as raised:
        ClusterEngine(bare.scheduler_address, patience=0.5)
    assert f"dask worker {bare.scheduler_address}" in str(raised.value)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "no-such-scheme://x", "tcp://"])
def test_a_scheduler_that_does_not_answer_is_refused_soon(address: str) -> None:
    began = time.monotonic()
    with pytest.raises(EngineError, match="No Dask scheduler answers"):
        ClusterEngine(address, patience=1)
    assert time.monotonic() - began < 5


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(EngineError, match=r'pip install "transformer-workbook\[cluster\]"'):
        ClusterEngine("tcp://127.0.0.1:9")


# ---- answers that are none -------------------------------------------------------------------


class Canned:
    """A client of a cluster with one worker, which answers every batch with the same."""

    status = "running"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def nthreads(self) -> dict[str, int]:
        return {"tcp://worker": 1}

    def submit(self, function: Any, argument: Any, **_: Any) -> Canned:
        if function is module.run_batch and json.loads(argument)["jobs"]:
            return self
        return Canned(b'{"transcripts": []}')

    def result(self, timeout: float) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        pass


SOUND: dict[str, Any] = {
    "cells": [{"outputs": [], "messages": ["AAAA"], "status": "ok", "seconds": 0.5}],
    "status": "finished",
    "note": "",
    "seconds": 1.5,
    "peak": 3,
    "settled": True,
    "one_cell": False,
}


def _answer(**changes: Any) -> bytes:
    return json.dumps({"transcripts": [SOUND | changes]}).encode()


def _cell(**changes: Any) -> bytes:
    return _answer(cells=[SOUND["cells"][0] | changes])


def _ask(monkeypatch: pytest.MonkeyPatch, answer: Any) -> Transcript:
    monkeypatch.setattr(module, "_client", lambda *_: Canned(answer))
    with ClusterEngine("tcp://somewhere") as engine:
        return engine.run(_job("1"))


def test_half_a_character_arrives_as_it_is() -> None:
    assert json.loads(module._json({"source": "é \ud800"})) == {"source": "é \ud800"}


def test_a_sound_answer_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    transcript = _ask(monkeypatch, _answer())
    assert (transcript.status, transcript.seconds, transcript.peak) == ("finished", 1.5, 3)
    assert transcript.settled
    assert transcript.cells["cell-0"].messages == [b"\0\0\0"]
    assert transcript.cells["cell-0"].status == "ok"


@pytest.mark.parametrize(
    "answer",
    [
        *(None, 5, b"", b"\xff", b"[]", b"5", b"{}", b"[" * 100_000, b'{"transcripts": 5}'),
        *(b'{"transcripts": []}', b'{"transcripts": [5]}', _answer(cells=[])),
        *(_answer(cells=5), _answer(status="splendid"), _answer(status=[]), _answer(note=5)),
        *(_answer(seconds=float("nan")), _answer(seconds="1"), _answer(seconds=-1)),
        *(_answer(peak=0.5), _cell(messages=5), _cell(messages=["?"]), _cell(messages=[5])),
    ],
    ids=range(23),
)
def test_an_answer_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    with pytest.raises(EngineError, match="sent what is no transcript"):
        _ask(monkeypatch, answer)


@pytest.mark.parametrize(
    "answer",
    [
        *(_cell(status="splendid"), _cell(seconds="long"), _cell(outputs=5)),
        _cell(outputs=[{"output_type": "video"}]),
        _cell(outputs=[{"output_type": "stream", "name": "stdout", "text": 5}]),
    ],
    ids=range(5),
)
def test_outputs_that_are_none_cost_only_their_own_submission(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    transcript = _ask(monkeypatch, answer)
    assert (transcript.status, transcript.settled) == ("killed", False)
    assert "malformed" in transcript.note
    assert transcript.cells["cell-0"].status is None


def test_an_answer_with_too_much_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_SENT", 100)
    with pytest.raises(EngineError, match="are too much"):
        _ask(monkeypatch, _answer(note="x" * 200))


def test_a_workers_exception_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match=r"cannot run submissions .*No module named 'autograder'"):
        _ask(monkeypatch, ModuleNotFoundError("No module named 'autograder'"))


class Talkative:
    """An engine whose submissions print a lot."""

    def run(self, job: Job) -> Transcript:
        output = nbformat.v4.new_output("stream", name="stdout", text="x" * 1000)
        return Transcript({"cell-0": CellResult([output], [b"sent"], "ok")}, "finished", peak=5)


def test_a_worker_sends_no_more_than_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    job = _job("print('x' * 1000)")
    full = module._run(Talkative(), job)
    monkeypatch.setattr(module, "_MAX_SENT", 900)
    cut = module._run(Talkative(), job)
    assert len(full) > 900 > len(cut)
    monkeypatch.undo()
    whole = _ask(monkeypatch, b'{"transcripts": [' + full + b"]}")
    assert whole == Talkative().run(job)
    ended = _ask(monkeypatch, b'{"transcripts": [' + cut + b"]}")
    assert (ended.status, ended.cells["cell-0"].outputs) == ("killed", [])
    assert "it sent a result of" in ended.note
