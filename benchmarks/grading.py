"""How fast a class is graded: plain nbgrader, this engine, and a bare fork, in one go.

``python benchmarks/grading.py [--class 1000] [--to results.json]`` makes a class of chapter 1,
every submission another text, and measures

- plain nbgrader: ``autograde`` and ``generate_feedback`` as they come, a few submissions;
- ``autograder grade``, with gradebook and feedback: one job and two, from a cold start and with a
  warm fork server;
- the engine alone, and what it adds to the time that the cells themselves take;
- a bare fork: a child of a warm process that runs the same cells with no isolation, the limit;
- a large class: time, rate, and the memory of all processes together while it runs.

Ratios compare what ran in the same go; the seconds are this machine's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

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
    for path in sorted(submitted.iterdir())[:count]:
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
    if len(made) != count:
        raise SystemExit(f"plain nbgrader graded {len(made)} of {count} submissions")
    return seconds / count


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
        "run": spread([item.seconds for item in done]),
        "cells": spread(cells),
        "added": spread(added),
        "empty": spread(empty),
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


def spread(values: list[float]) -> dict[str, float]:
    """Median and 95th percentile in milliseconds."""
    ordered = sorted(values)
    return {
        "median_ms": round(1000 * statistics.median(ordered), 1),
        "p95_ms": round(1000 * ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)], 1),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--class", dest="size", type=int, default=1000, help="the large class")
    parser.add_argument("--small", type=int, default=60, help="the class of the comparisons")
    parser.add_argument("--plain", type=int, default=3, help="submissions for plain nbgrader")
    parser.add_argument("--to", type=Path, help="write the figures there as JSON")
    asked = parser.parse_args()
    os.environ["WORKBOOK_BUDGET"] = "smoke"
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        found = measure(Path(name), asked)
    print(json.dumps(found, indent=1))
    if asked.to:
        asked.to.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """All of it; the figures by name."""
    references = folder / "private.safetensors"
    packs = record.record(ROOT, [NAME], 20_261_121, hidden=True)
    record.write(record.merge(packs), references)
    small = make_class(folder / "small", asked.small)
    assignment = load_course(ROOT, NAME, folder / "course", references)
    found: dict[str, Any] = {"cores": os.cpu_count(), "layers": None}

    with ForkEngine() as engine:
        found["layers"] = list(engine.layers)
    plain = plain_nbgrader(small, asked.plain, folder / "plain")
    found["plain nbgrader, seconds a submission"] = round(plain, 2)
    print(f"plain nbgrader: {plain:.2f} s a submission", flush=True)
    for jobs in (1, 2):
        for warm in (False, True):
            to = folder / f"graded-{jobs}-{warm}"
            seconds = whole(small, to, references, jobs, warm)
            each = seconds / asked.small
            title = f"grade, {jobs} job{'s' * (jobs > 1)}, {'warm' if warm else 'cold'}"
            found[title] = {
                "seconds": round(seconds, 2),
                "ms_each": round(1000 * each, 1),
                "times_plain": round(plain / each, 1),
            }
            print(f"{title}: {1000 * each:.0f} ms each, {plain / each:.0f} times plain", flush=True)
    again = time.perf_counter()
    grade(small, folder / "graded-2-True", 2, references, ROOT, progress=False)
    found["grade again, nothing changed, seconds"] = round(time.perf_counter() - again, 2)
    found["engine alone, one after the other"] = the_engine(small, assignment)
    forks = bare_forks(list(jobs_of(small, assignment)))
    found["bare fork"] = spread(forks)
    print(json.dumps({key: found[key] for key in list(found)[-3:]}, indent=1), flush=True)

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
        "times_plain": round(plain * asked.size / seconds, 1),
        "memory_mib": {"at_most": max(sizes), "by_tenths": tenths(sizes)},
    }
    return found


def tenths(values: list[float]) -> list[float]:
    """The largest value of each tenth of a run."""
    length = max(len(values) / 10, 1)
    parts = (values[int(i * length) : int((i + 1) * length)] for i in range(10))
    return [max(part) for part in parts if part]


if __name__ == "__main__":
    main()
