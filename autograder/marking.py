"""One submission, from whatever was handed in to its verdicts and the notebook that is recorded."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from traitlets.config import Config

from autograder import exercise as exercises
from autograder import notebooks, outcomes, slicing, submission, tampering
from autograder.assignment import Assignment, Check
from autograder.engine import Cell, CellResult, Engine, Job, Transcript
from autograder.files import keep
from autograder.judge import judge
from autograder.notebooks import SourceError
from autograder.sandbox import Bounds
from autograder.submission import UnreadableSubmission
from autograder.verdict import Verdict

_RERUNS = 3  # how often a submission is run again without a cell that hung or died
_LEFT_OUT = "Not run while grading: no exercise needs it.\n"
_CONFIRMED = (
    "The notebook reaches further than its exercises need, so this was checked once more, where "
    "the built-in does not exist and no other process can be started."
)
_IN_PROCESS = "Checked in-process: this cell's tests ran beside the code that they test."


@dataclass(frozen=True)
class Limits:
    """What a submission may take.

    Attributes:
        case, cell, submission: seconds of one case, one cell, and the whole notebook.
        bounds: memory, files and processes.
    """

    case: float = 5.0
    cell: float = 20.0
    submission: float = 60.0
    bounds: Bounds = field(default_factory=Bounds)

    def but(self, seconds: Mapping[str, float], memory: int | None = None) -> Limits:
        """These limits with some changed; memory in MiB."""
        bounds = replace(self.bounds, memory=memory << 20) if memory else self.bounds
        return replace(self, bounds=bounds, **seconds)

    @classmethod
    def of(cls, config: Config) -> Limits:
        """The limits in a course's settings (``c.Limits.cell = 30``), the defaults for others.

        Raises:
            SourceError: a setting is unknown or no number.
        """
        given = dict(config.get("Limits", {}))
        known = {item.name for item in fields(cls)} - {"bounds"}
        bounds = {item.name for item in fields(Bounds)}
        for name, value in given.items():
            if name not in known | bounds:
                raise SourceError(
                    f"nbgrader_config.py sets c.Limits.{name}, which there is not. There are: "
                    f"{', '.join(sorted(known | bounds))}."
                )
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise SourceError(
                    f"nbgrader_config.py sets c.Limits.{name} to {value!r}; it must be a number "
                    "above 0."
                )
        return cls(
            **{name: float(value) for name, value in given.items() if name in known},
            bounds=Bounds(**{name: int(v) for name, v in given.items() if name in bounds}),
        )


@dataclass
class Graded:
    """A submission, run and judged.

    Attributes:
        text: the notebook as it is recorded, as JSON: outputs of the run, verdicts in the graded
            cells.
        verdicts: one per check of the assignment, in order.
        notes: what was put right in the submission, or found wrong with it.
        settled: whether running it again can be expected to give the same.
        run: how it ran: ``status`` (as :class:`autograder.engine.Transcript` has it), ``seconds``,
            ``peak`` (bytes of memory), ``checks`` (exercise -> seconds), and ``in_process``, the
            exercises whose tests ran beside the code that they test.
    """

    text: str
    verdicts: list[Verdict]
    notes: list[str] = field(default_factory=list)
    settled: bool = True
    run: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def notebook(self) -> NotebookNode:
        """The notebook as it is recorded."""
        return nbformat.v4.reads(self.text)

    def to_json(self) -> str:
        """As text, for the cache."""
        return json.dumps(
            {
                "text": self.text,
                "verdicts": [verdict.to_json() for verdict in self.verdicts],
                "notes": self.notes,
                "settled": self.settled,
                "run": self.run,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Graded:
        """What :meth:`to_json` wrote; raises ValueError, KeyError or TypeError for other text."""
        raw = json.loads(text)
        verdicts = [
            Verdict(**{k: tuple(v) if isinstance(v, list) else v for k, v in item.items()})
            for item in raw["verdicts"]
        ]
        return cls(
            str(raw["text"]), verdicts, list(raw["notes"]), bool(raw["settled"]), dict(raw["run"])
        )


def grade_submission(
    path: Path,
    assignment: Assignment,
    engine: Engine,
    limits: Limits | None = None,
    cache: Path | None = None,
    again: bool = False,
) -> Graded:
    """Runs and judges one submitted notebook; whatever it is, a result comes back.

    Args:
        path: the notebook; it need not be there.
        assignment: the course's own copy.
        engine: what runs it.
        limits: the time limits.
        cache: a folder with the results of earlier runs.
        again: run it although its result is there, where that ran out of time or was killed.
    """
    for folder in (path.parent.parent, path.parent):
        if folder.is_symlink():
            # It could name another student's, or any folder of the machine that grades.
            message = f"{folder.name} is a symbolic link. Hand in the folder itself."
            return refused(assignment, "error", message)
    if not path.exists() and not path.is_symlink():
        return refused(assignment, "missing", _what_is_missing(path))
    try:
        data = submission.read_bytes(path)
        kept = _kept(cache, data, assignment, limits or Limits())
        if kept and (graded := _from_cache(kept)) and not (again and _may_improve(graded)):
            return graded
        submitted = submission.parse(data, path.name)
    except UnreadableSubmission as error:
        return refused(assignment, "error", str(error))
    graded = grade_notebook(submitted, assignment, engine, limits)
    if kept and graded.settled:
        keep(kept, graded.to_json())
    return graded


def _may_improve(graded: Graded) -> bool:
    return any(verdict.status in ("timeout", "killed") for verdict in graded.verdicts)


def _what_is_missing(path: Path) -> str:
    folder = path.parent
    others = sorted(p.name for p in folder.glob("*.ipynb")) if folder.is_dir() else []
    if others:
        return (
            f"There is no {path.name}, but {', '.join(others[:3])}. If that is the one, rename it "
            f"to {path.name} and grade again."
        )
    return f"No {path.name} was handed in."


def _kept(cache: Path | None, data: bytes, assignment: Assignment, limits: Limits) -> Path | None:
    if cache is None:
        return None
    digest = hashlib.sha256(data)
    digest.update(assignment.fingerprint.encode())
    digest.update(repr(limits).encode())
    return cache / f"{digest.hexdigest()[:40]}.json"


def _from_cache(path: Path) -> Graded | None:
    try:
        return Graded.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent, or cut short when an earlier run was stopped


def grade_notebook(
    submitted: NotebookNode,
    assignment: Assignment,
    engine: Engine,
    limits: Limits | None = None,
) -> Graded:
    """Runs and judges a notebook that :func:`autograder.submission.parse` gave."""
    limits = limits or Limits()
    assembled = submission.assemble(assignment.notebook, submitted, assignment.release)
    notebook = assembled.notebook
    checks = {check.grade_id: check for check in assignment.checks}
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    left_out = _left_out(cells, assignment)
    for cell in cells:
        if cell.id in left_out:
            text = nbformat.v4.new_output("stream", name="stdout", text=_LEFT_OUT)
            cell.outputs = [text]
    cells = [cell for cell in cells if cell.id not in left_out]
    job = Job(
        cells=[Cell(cell.id, cell.source, _exercise(cell, checks)) for cell in cells],
        seed=assignment.seed,
        hidden=assignment.hidden,
        case_seconds=limits.case,
        cell_seconds=limits.cell,
        seconds=limits.submission,
        assignment=assignment.name,
        modules=assignment.modules,
        files=assignment.files,
    )
    transcript = _run(job, engine)
    for count, cell in enumerate(cells, start=1):
        result = transcript.cells[cell.id]
        cell.outputs = list(result.outputs)
        cell.execution_count = count if result.status else None
        if cell.id == transcript.stopped_in and transcript.status != "finished":
            name = "Timeout" if transcript.status == "timeout" else "Killed"
            cell.outputs.append(_error(name, transcript.note))
    verdicts = {}
    seconds = {}
    for cell in cells:
        check = checks.get(notebooks.grade_id(cell) or "")
        if check:
            verdicts[check.grade_id] = _judge_cell(check, cell, cells, transcript)
            seconds[check.exercise] = transcript.cells[cell.id].seconds
    given = {cell.source for cell in assignment.release.cells}
    if tampering.reaches(cell.source for cell in cells if cell.source not in given):
        _confirm(verdicts, job, cells, assignment, engine)
    return Graded(
        text=notebooks.write(_recorded(notebook, assignment, verdicts)),
        verdicts=[verdicts[check.grade_id] for check in assignment.checks],
        notes=assembled.notes,
        settled=transcript.settled,
        run={
            "status": transcript.status,
            "seconds": transcript.seconds,
            "peak": transcript.peak,
            "checks": seconds,
            "in_process": [c.exercise for c in assignment.checks if c.references is None],
        },
    )


def _confirm(
    verdicts: dict[str, Verdict],
    job: Job,
    cells: Sequence[NotebookNode],
    assignment: Assignment,
    engine: Engine,
) -> None:
    """Judges once more, where the forbidden built-ins do not exist; the lower result counts.

    For submissions that could have switched the watchers off.
    """
    groups: dict[tuple[str, ...], list[Check]] = {}
    for check in assignment.checks:
        if check.references and verdicts[check.grade_id].points:
            without = tuple(exercises.find(check.exercise).without)
            groups.setdefault(without, []).append(check)
    groups.pop((), None)
    for without, group in groups.items():
        transcript = _run(replace(job, without=without), engine)
        for check in group:
            cell = next(cell for cell in cells if notebooks.grade_id(cell) == check.grade_id)
            verdict = _judge_cell(check, cell, cells, transcript)
            if verdict.points < verdicts[check.grade_id].points:
                verdicts[check.grade_id] = replace(verdict, note=_CONFIRMED)


def _left_out(cells: Sequence[NotebookNode], assignment: Assignment) -> set[str]:
    """The course's own cells that no exercise needs."""
    own = {
        cell.source.strip()
        for cell in assignment.release.cells
        if cell.cell_type == "code" and not notebooks.mark(cell)
    }
    optional = [
        cell.id for cell in cells if not notebooks.mark(cell) and cell.source.strip() in own
    ]
    return slicing.unneeded({cell.id: cell.source for cell in cells}, optional)


def _run(job: Job, engine: Engine) -> Transcript:
    """Runs a job; where one cell hangs or takes the process with it, again without that cell.

    The time of the whole submission is one budget for all runs.
    """
    spoilt: dict[str, CellResult] = {}
    seconds, settled, peak = 0.0, True, 0
    while True:
        cells = [cell for cell in job.cells if cell.id not in spoilt]
        transcript = engine.run(replace(job, cells=cells, seconds=job.seconds - seconds))
        seconds += transcript.seconds
        settled &= transcript.settled
        peak = max(peak, transcript.peak)
        culprit = transcript.stopped_in
        if not transcript.one_cell or culprit is None or seconds >= job.seconds:
            break
        if len(spoilt) == _RERUNS:
            break
        status = transcript.status
        name = "CellTimeout" if status == "timeout" else "Killed"
        outputs = [*transcript.cells[culprit].outputs, _error(name, transcript.note)]
        spoilt[culprit] = CellResult(outputs, [], status, job.cell_seconds)
    found = {**transcript.cells, **spoilt}
    return replace(
        transcript,
        cells={cell.id: found[cell.id] for cell in job.cells},
        seconds=round(seconds, 3),
        settled=settled,
        peak=peak,
    )


def refused(assignment: Assignment, status: str, message: str) -> Graded:
    """The result for a submission that cannot be run at all: zero points, and the reason."""
    verdicts = {
        check.grade_id: Verdict(check.exercise, 0.0, check.points, status, message)
        for check in assignment.checks
    }
    notebook = copy.deepcopy(assignment.release)
    note = nbformat.v4.new_markdown_cell(f"**Nothing could be graded**\n\n{message}")
    note.id = "notes-of-grading"
    notebook.cells.insert(0, note)
    return Graded(
        text=notebooks.write(_recorded(notebook, assignment, verdicts)),
        verdicts=list(verdicts.values()),
        notes=[message],
        settled=False,
        run={"status": status, "seconds": 0.0, "peak": 0, "checks": {}, "in_process": []},
    )


def _exercise(cell: NotebookNode, checks: Mapping[str, Check]) -> str | None:
    check = checks.get(notebooks.grade_id(cell) or "")
    return check.exercise if check and check.references else None


def _recorded(
    notebook: NotebookNode, assignment: Assignment, verdicts: Mapping[str, Verdict]
) -> NotebookNode:
    """Puts the verdicts where the graded cells' outputs are, and takes hidden tests out."""
    released = {notebooks.grade_id(cell): cell for cell in assignment.release.cells}
    plain = {check.grade_id for check in assignment.checks if check.references is None}
    for cell in notebook.cells:
        name = notebooks.grade_id(cell)
        if name is None:
            continue
        if submission.is_locked(cell):
            hidden = cell.source != released[name].source
            cell.source = released[name].source
        if name in verdicts:
            before = _without_trace(cell.outputs, hidden) if name in plain else []
            cell.outputs = before + _shown(verdicts[name])
    return notebook


def _shown(verdict: Verdict) -> list[NotebookNode]:
    """A verdict as the outputs of its cell; nbgrader takes the points from the last one."""
    display = nbformat.v4.new_output(
        "display_data", data={"text/plain": verdict.text(), "text/html": verdict.html()}
    )
    value = nbformat.v4.new_output(
        "execute_result", data={"text/plain": repr(float(verdict.points))}, execution_count=None
    )
    return [display, value]


def _without_trace(outputs: Iterable[NotebookNode], hidden: bool) -> list[NotebookNode]:
    """A plain test cell's own outputs, such that nbgrader takes the points from the verdict.

    nbgrader gives nothing for a cell with an error or anything on stderr, and takes the first
    result as the points.
    """
    if hidden:
        return []  # a traceback or message quotes the test, and prints of the learner its inputs
    kept = []
    for output in outputs:
        if output.output_type == "error":
            text = "\n".join(output.traceback) + "\n"
            kept.append(nbformat.v4.new_output("stream", name="stdout", text=text))
        elif output.output_type == "stream":
            kept.append(nbformat.v4.new_output("stream", name="stdout", text=output.text))
        elif output.output_type == "display_data":
            kept.append(output)
    return kept


def _error(name: str, text: str) -> NotebookNode:
    return nbformat.v4.new_output("error", ename=name, evalue=text, traceback=[f"{name}: {text}"])


# ---- verdicts --------------------------------------------------------------------------------


def _judge_cell(
    check: Check, cell: NotebookNode, cells: Sequence[NotebookNode], transcript: Transcript
) -> Verdict:
    result = transcript.cells[cell.id]
    if check.references is None:
        verdict = _judge_assertions(check, cell, cells, transcript)
        return replace(verdict, note=_IN_PROCESS)
    trouble = ""
    for message in result.messages:
        try:
            exercise, given = outcomes.decode(message)
        except outcomes.MalformedOutcomes as error:
            trouble = trouble or f"What the check sent cannot be read. {error}"
            continue
        if exercise != check.exercise:
            continue
        try:
            return judge(given, check.references)
        except Exception as error:  # values that no component returns, sent by hand
            trouble = trouble or f"What the check sent cannot be compared ({error!r:.200})."
    if trouble:
        return _verdict(check, "error", trouble, "Let only the course's check send results.")
    return _nothing_sent(check, cell, result, cells, transcript)


def _nothing_sent(
    check: Check,
    cell: NotebookNode,
    result: CellResult,
    cells: Sequence[NotebookNode],
    transcript: Transcript,
) -> Verdict:
    """Why a cell has no outcomes: it was never reached, or failed before its check ran."""
    if result.status is None and transcript.status != "finished":
        return _verdict(check, transcript.status, *_where_it_stopped(cell, cells, transcript))
    error = _error_of(result)
    if error is None:
        return _verdict(check, "error", "The check sent no results.")
    if error.ename == "NameError" and f"'{check.component}'" in error.evalue:
        return _not_defined(check, cell, cells, transcript)
    status = result.status if result.status in ("timeout", "killed") else "error"
    if result.status == "killed" or error.ename == "CellTimeout":
        return _verdict(check, status, _said(error), "Run this cell yourself.")
    return _verdict(check, status, f"The check could not run: {_said(error)}")


def _where_it_stopped(
    cell: NotebookNode, cells: Sequence[NotebookNode], transcript: Transcript
) -> tuple[str, str]:
    stopped = next((c for c in cells if c.id == transcript.stopped_in), cell)
    if stopped.id == cell.id:
        return transcript.note, ""
    where = f"the cell that begins with `{_first_line(stopped.source)}`"
    verb = "It was still in" if transcript.status == "timeout" else "It was in"
    return f"{transcript.note} {verb} {where}.", "Run the notebook from top to bottom yourself."


def _not_defined(
    check: Check, cell: NotebookNode, cells: Sequence[NotebookNode], transcript: Transcript
) -> Verdict:
    name = str(check.component)
    message = f"{name} is not defined"
    before = cells[: cells.index(cell)]
    for candidate in reversed(before):
        if not _defines(candidate.source, name):
            continue
        result = transcript.cells[candidate.id]
        error = _error_of(result)
        if result.status == "timeout":
            return _verdict(check, "timeout", f"{message}: the cell that defines it did not end.")
        if result.status == "killed" and error is not None:
            return _verdict(
                check, "killed", f"{message}: in the cell that defines it, {_said(error)}"
            )
        if error is not None:
            return _verdict(
                check,
                "error",
                f"{message}: the cell that should define it stopped with {_said(error)}",
                "Run that cell, and mend what it reports.",
            )
    if any(_defines(later.source, name) for later in cells[cells.index(cell) :]):
        return _verdict(
            check,
            "error",
            f"{message} yet where it is checked: the cell that defines it comes later.",
            "Move the definition above the check.",
        )
    return _verdict(
        check,
        "error",
        f"{message}: no cell of the notebook defines it.",
        f"Write {name} in the cell above the check, under this very name.",
    )


def _defines(source: str, name: str) -> bool:
    # Not parsed: a cell with a syntax error is the one that is looked for.
    escaped = re.escape(name)
    return bool(re.search(rf"^\s*(?:(?:def|class)\s+{escaped}\b|{escaped}\s*=)", source, re.M))


def _judge_assertions(
    check: Check, cell: NotebookNode, cells: Sequence[NotebookNode], transcript: Transcript
) -> Verdict:
    """Judges a plain nbgrader test cell: by its errors, or by the points that it returns."""
    result = transcript.cells[cell.id]
    error = _error_of(result)
    if result.status is None:
        if transcript.status == "finished":
            return _verdict(check, "error", "The cell was not run.")
        return _verdict(check, transcript.status, *_where_it_stopped(cell, cells, transcript))
    if result.status in ("timeout", "killed"):
        said = _said(error) if error else "The cell did not end."
        return _verdict(check, result.status, said)
    if error is not None:
        # The message of a failed assertion may be a hidden test's; its kind alone is told.
        failed = error.ename == "AssertionError"
        message = "A test of this cell failed." if failed else f"It raised {error.ename}."
        return _verdict(check, "failed" if failed else "error", message)
    earned = check.points
    for output in result.outputs:
        if output.output_type == "execute_result":
            with contextlib.suppress(ValueError):
                earned = float(output.data.get("text/plain", ""))
            break
    if not 0 <= earned <= check.points:  # NaN included
        return _verdict(check, "error", f"The cell returned {earned:g} points.")
    if earned < check.points:
        return Verdict(check.exercise, earned, check.points, "failed", "Some of its tests failed.")
    return Verdict(check.exercise, earned, check.points, "passed", "All tests of the cell pass.")


def _verdict(check: Check, status: str, message: str, next_step: str = "") -> Verdict:
    return Verdict(check.exercise, 0.0, check.points, status, message, next_step=next_step)


def _error_of(result: CellResult) -> NotebookNode | None:
    return next((out for out in result.outputs if out.output_type == "error"), None)


def _said(error: NotebookNode) -> str:
    text = " ".join(error.evalue.split())[:300]
    if error.ename in ("CellTimeout", "Killed"):
        return text
    said = f"{error.ename[:100]}: {text}" if text else error.ename[:100]
    return said if said.endswith((".", "!", "?")) else f"{said}."


def _first_line(source: str) -> str:
    return source.strip().splitlines()[0][:60] if source.strip() else ""
