"""How fast a class is graded: plain nbgrader, this engine, and a bare fork, in one go.

``python benchmarks/grading.py [--class 1000] [--json results.json]`` makes a class of chapter 1,
every submission another text, and measures

- plain nbgrader: ``autograde`` and ``generate_feedback`` as they come, a few submissions;
- ``autograder grade``, with gradebook and feedback: one job and two, from a cold start and with a
  warm fork server;
- the engine alone, and what it adds to the time that the cells themselves take;
- a bare fork: a child of a warm process that runs the same cells with no isolation, the limit;
- a large class: time, rate, and the memory of all processes together while it runs.

The sides take turns, and ratios compare what ran in the same round; the seconds are this machine's.
``--quick`` takes a class of a few, to see that all of it works.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from _turns import spread
from autograder import notebooks, record, release, sample, submission
from autograder.assignment import Assignment, load_course
from autograder.engine import Cell, ForkEngine, Job
from autograder.grading import grade
from autograder.marking import grade_notebook

ROOT = Path(__file__).resolve().parents[1]
NAME = "01_attention"


def make_class(folder: Path, size: int) -> Path:
    """Submissions of chapter 1, three in four right, the others with a mistake of the sample's."""
    solved, blank = sample.sources(ROOT)
    right, *others = [s for s in sample.CLASS if s.finished and s.name not in ("ines", "jonas")]
    texts = []
    for student in [right, *(other for other in others if other.wrong)]:
        book = sample.submission_of(student, solved, blank)
        for cell in book.cells:
            if notebooks.is_solution(cell) and cell.cell_type == "code":
                cell.source += "\n# by student@@@@"
        texts.append(notebooks.write(book))
    for number in range(size):
        text = texts[1 + number // 4 % (len(texts) - 1)] if number % 4 == 3 else texts[0]
        path = folder / f"student{number:04}" / NAME / f"{NAME}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_text(text.replace("@@@@", f"{number:04}"), encoding="utf-8")
    return folder


def plain_nbgrader(submitted: Path, count: int, folder: Path) -> float:
    """Seconds a submission, with nbgrader's own preprocessors and a kernel for each."""
    from nbgrader.converters import Autograde, GenerateFeedback
    from nbgrader.coursedir import CourseDirectory

    release.assign(notebooks.chapters(ROOT, [NAME]), folder)
    names = sorted(submitted.iterdir())[:count]
    for path in names:
        shutil.copytree(path, folder / "submitted" / path.name)
    config = notebooks.default_config()
    config.CourseDirectory.root = str(folder)
    config.CourseDirectory.assignment_id = NAME
    config.Execute.timeout = 120
    began = time.perf_counter()
    with release.tools_on_path(), contextlib.chdir(folder), release.kept_log() as (log, _):
        for converter in (Autograde, GenerateFeedback):
            converter(
                coursedir=CourseDirectory(config=config, log=log), config=config, log=log
            ).start()
    seconds = time.perf_counter() - began
    made = list(folder.glob("feedback/*/*/*.html"))
    if len(made) != len(names):
        raise SystemExit(f"plain nbgrader graded {len(made)} of {len(names)} submissions")
    return seconds / len(names)


@contextlib.contextmanager
def memory(every: float = 0.5) -> Iterator[list[tuple[float, float]]]:
    """Samples of (seconds, MiB) of this process and all that it started.

    Shared pages count once (PSS).
    """
    samples: list[tuple[float, float]] = []
    over = threading.Event()
    began = time.perf_counter()

    def look() -> None:
        me = psutil.Process()
        while not over.wait(every):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_full_info().pss
            samples.append((round(time.perf_counter() - began, 1), round(total / 2**20, 1)))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def whole(submitted: Path, folder: Path, references: Path, jobs: int, warm: bool) -> float:
    """Seconds of one ``autograder grade`` over a class."""
    with ForkEngine() as engine:
        if warm:
            engine.run(job_of(load_course(ROOT, NAME, folder.with_suffix(".course"), references)))
        began = time.perf_counter()
        grade(submitted, folder, jobs, references, ROOT, progress=False, engine=engine)
        return time.perf_counter() - began


def job_of(assignment: Assignment, cells: list[Cell] | None = None) -> Job:
    """A job of an assignment, with one cell that does nothing where none are given."""
    return Job(
        cells or [Cell("nothing", "None")],
        assignment.seed,
        assignment.hidden,
        assignment=assignment.name,
        modules=assignment.modules,
        files=assignment.files,
    )


def the_engine(submitted: Path, assignment: Assignment) -> dict[str, Any]:
    """The engine alone, one submission after the other."""
    jobs = list(jobs_of(submitted, assignment))
    with ForkEngine() as engine:
        engine.run(job_of(assignment))
        empty = [engine.run(job_of(assignment)).seconds for _ in jobs]
        done = [engine.run(job) for job in jobs]
    cells = [sum(cell.seconds for cell in item.cells.values()) for item in done]
    added = [item.seconds - spent for item, spent in zip(done, cells, strict=True)]
    return {
        "run": milliseconds([item.seconds for item in done]),
        "cells": milliseconds(cells),
        "added": milliseconds(added),
        "empty": milliseconds(empty),
    }


def jobs_of(submitted: Path, assignment: Assignment) -> Iterator[Job]:
    """What the engine is given for each submission of a class."""

    class Catch(Exception):
        pass

    class Catcher:
        def run(self, job: Job) -> Any:
            raise Catch(job)

    for path in sorted(submitted.glob(f"*/{NAME}/*.ipynb")):
        try:
            grade_notebook(submission.read(path), assignment, Catcher())
        except Catch as caught:
            yield caught.args[0]


def bare_forks(jobs: list[Job]) -> list[float]:
    """Seconds of a child of a warm process for each job, with no isolation and nobody listening."""
    text = json.dumps([job.to_json() for job in jobs])
    code = (
        "import json, os, sys, time\n"
        "from autograder import worker\n"
        "jobs = json.load(sys.stdin)\n"
        "worker.prepare()\n"
        "for job in jobs:\n"
        "    began = time.perf_counter()\n"
        "    if os.fork() == 0:\n"
        "        worker.run(job, lambda *frame: None)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
        "    os.write(2, b'%f\\n' % (time.perf_counter() - began))\n"
    )
    environment = {**os.environ, "WORKBOOK_BUDGET": "smoke", "WORKBOOK_GRADING": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], input=text, text=True, capture_output=True, env=environment
    )
    return [float(line) for line in done.stderr.splitlines() if line[:1].isdigit()]


def milliseconds(values: list[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    ordered = sorted(values)
    return {
        "median_ms": round(1000 * statistics.median(ordered), 1),
        "p95_ms": round(1000 * ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)], 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--class", dest="size", type=int, help="the large class (1000)")
    parser.add_argument("--small", type=int, help="the class of the comparisons (60)")
    parser.add_argument("--plain", type=int, help="submissions for plain nbgrader, a round (2)")
    parser.add_argument("--rounds", type=int, help="turns of each side (3)")
    parser.add_argument("--quick", action="store_true", help="a few submissions: does it all work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    asked = parser.parse_args(arguments)
    for name, usual, quick in (
        *(("size", 1000, 4), ("small", 60, 2)),
        *(("plain", 2, 1), ("rounds", 3, 1)),
    ):
        setattr(asked, name, getattr(asked, name) or (quick if asked.quick else usual))
    os.environ["WORKBOOK_BUDGET"] = "smoke"
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        found = measure(Path(name), asked)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """All of it; the figures by name."""
    references = folder / "private.safetensors"
    packs = record.record(ROOT, [NAME], 20_261_121, hidden=True)
    record.write(record.merge(packs), references)
    small = make_class(folder / "small", asked.small)
    assignment = load_course(ROOT, NAME, folder / "course", references)
    found: dict[str, Any] = {"cores": os.cpu_count()}
    with ForkEngine() as engine:
        found["layers"] = list(engine.layers)
    print(f"layers of isolation: {', '.join(found['layers'])}")

    ways = [(jobs, warm) for jobs in (1, 2) for warm in (False, True)]
    plain: list[float] = []
    ours: dict[tuple[int, bool], list[float]] = {way: [] for way in ways}
    for turn in range(asked.rounds):
        plain.append(plain_nbgrader(small, asked.plain, folder / f"plain-{turn}"))
        for jobs, warm in ways:
            to = folder / f"graded-{turn}-{jobs}-{warm}"
            ours[jobs, warm].append(whole(small, to, references, jobs, warm) / asked.small)
    found["plain nbgrader, seconds a submission"] = spread(plain)
    print(f"plain nbgrader: {spread(plain)['median']:.2f} s a submission", flush=True)
    peer = f"plain nbgrader {importlib.metadata.version('nbgrader')}"
    found["summary"] = []
    for (jobs, warm), each in ours.items():
        title = f"grade, {jobs} job{'s' * (jobs > 1)}, {'warm' if warm else 'cold'}"
        times = spread([theirs / own for theirs, own in zip(plain, each, strict=True)])
        found[title] = {"seconds_each": spread(each), "times_plain": times}
        print(
            f"{title}: {1000 * spread(each)['median']:.0f} ms each, {times['median']:.0f} times "
            f"as fast as plain ({times['least']:.0f}–{times['most']:.0f})",
            flush=True,
        )
        what = f"grading {asked.small} submissions: speed, {title.removeprefix('grade, ')}"
        row = {"what": what, "peer": peer, "ratio": times, "spread": "of the rounds"}
        found["summary"].append(row)
    again = time.perf_counter()
    grade(small, folder / "graded-0-2-True", 2, references, ROOT, progress=False)
    found["grade again, nothing changed, seconds"] = round(time.perf_counter() - again, 2)
    print(f"again, nothing changed: {found['grade again, nothing changed, seconds']} s")
    found["engine alone, one after the other"] = the_engine(small, assignment)
    forks = bare_forks(list(jobs_of(small, assignment)))
    found["bare fork"] = milliseconds(forks)
    alone = found["engine alone, one after the other"]
    for title, one in {**alone, "a bare fork": found["bare fork"]}.items():
        print(f"one at a time, {title}: {one['median_ms']} ms, 95th percentile {one['p95_ms']}")

    large = make_class(folder / "large", asked.size)
    with memory() as samples:
        began = time.perf_counter()
        grade(large, folder / "graded-large", 2, references, ROOT, progress=False)
        seconds = time.perf_counter() - began
    sizes = [size for _, size in samples]
    found["large class"] = {
        "submissions": asked.size,
        "seconds": round(seconds, 1),
        "a_second": round(asked.size / seconds, 1),
        "times_plain": round(spread(plain)["median"] * asked.size / seconds, 1),
        "memory_mib": {"at_most": max(sizes, default=0), "by_tenths": tenths(sizes)},
    }
    one = found["large class"]
    print(
        f"a class of {asked.size}: {seconds:.0f} s, {one['a_second']} a second, "
        f"{one['times_plain']} times plain; memory of all processes at most "
        f"{one['memory_mib']['at_most']:.0f} MiB, by tenths of the run "
        + ", ".join(f"{size:.0f}" for size in one["memory_mib"]["by_tenths"])
    )
    return found


def tenths(values: list[float]) -> list[float]:
    """The largest value of each tenth of a run."""
    length = max(len(values) / 10, 1)
    parts = (values[int(i * length) : int((i + 1) * length)] for i in range(10))
    return [max(part) for part in parts if part]


if __name__ == "__main__":
    main()
