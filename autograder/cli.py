"""The command ``autograder``."""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Releases, records, checks and grades the exercises of the Transformer Workbook.",
)
_out = Console()
_err = Console(stderr=True)

Root = Annotated[
    Path | None,
    typer.Option(help="The course's folder; found from the current one where not given."),
]


@app.command("release")
def release_command(
    chapters: Annotated[
        list[str] | None, typer.Argument(help="Which; all where none is named.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 with a diff where stale.")
    ] = False,
    root: Root = None,
) -> None:
    """Turns solutions/ into the notebooks of chapters/ and the blocks of workbook/ready/."""
    from autograder.notebooks import SourceError
    from autograder.release import release

    try:
        result = release(root, chapters or None, check=check)
    except SourceError as error:
        _stop(str(error))
    if check and result.stale:
        print(result.diff, end="")
        _err.print("Not what solutions/ gives. Run: autograder release", markup=False)
        raise typer.Exit(1)


@app.command("record")
def record_command(
    chapters: Annotated[
        list[str] | None, typer.Argument(help="Which; all where none is named.")
    ] = None,
    seed: Annotated[
        str | None, typer.Option(help="A number or any text. Other seed, other inputs.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Write one private pack there, hidden cases included. Needs --seed."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 where a pack is stale.")
    ] = False,
    root: Root = None,
) -> None:
    """Records the reference packs from the solutions."""
    import torch

    from autograder import exercise as exercises
    from autograder import record as recording
    from autograder.notebooks import SourceError, course_root
    from autograder.pack import path_of

    unknown = [name for name in chapters or () if name not in exercises.chapters()]
    if unknown:
        _stop(
            f"No exercises for {', '.join(unknown)}. There are: {', '.join(exercises.chapters())}."
        )
    if (seed is None) != (to is None):
        _stop(
            "A private pack needs both --seed SECRET and --to FILE; the public packs take neither."
        )
    # Every tensor is small: threads would only wait for each other.
    torch.set_num_threads(1)
    try:
        packs = recording.record(
            course_root(root),
            chapters,
            recording.PUBLIC_SEED if seed is None else _seed(seed),
            hidden=to is not None,
        )
        if to:
            recording.write(recording.merge(packs), to)
            print(f"{to}: private pack of {', '.join(packs)}. Keep it and the seed to yourself.")
            return
        stale = False
        for chapter, pack in packs.items():
            path = path_of(chapter)
            if check:
                reason = recording.stale(pack, path)
                stale |= bool(reason)
                print(f"{chapter}: {reason or 'unchanged'}")
            else:
                changed = bool(recording.stale(pack, path))
                if changed:
                    recording.write(pack, path)
                cases = sum(len(r.cases) for r in pack.exercises.values())
                wrong = sum(len(r.known_errors) for r in pack.exercises.values())
                print(
                    f"{chapter:<28} {len(pack.exercises):>2} exercises {cases:>3} cases "
                    f"{wrong:>3} misconceptions   {'recorded' if changed else 'unchanged'}"
                )
    except (recording.RecordError, SourceError) as error:
        _stop(str(error))
    if stale:
        raise typer.Exit(1)


@app.command("try")
def try_command(
    exercise: Annotated[str, typer.Argument(help="Such as attention/softmax.")],
    file: Annotated[Path, typer.Argument(help="A Python file that defines the component.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
    seconds: Annotated[float, typer.Option(min=0.1, help="The time limit of each case.")] = 5.0,
) -> None:
    """Judges one implementation. Exit 0: full points; 1: not; 2: unusable arguments."""
    from autograder.trying import TryError, try_file

    try:
        verdict = try_file(exercise, file, seconds)
    except TryError as error:
        _stop(str(error))
    print(json.dumps(verdict.to_json(), indent=1) if as_json else verdict.text())
    sys.stdout.flush()
    raise typer.Exit(0 if verdict.status == "passed" else 1)


@app.command("collect")
def collect_command(
    source: Annotated[
        Path, typer.Argument(help="An LMS's download (zip, tar, tar.gz), or a folder of files.")
    ],
    assignment: Annotated[
        str | None, typer.Argument(help="Whose notebooks; from their names where not given.")
    ] = None,
    to: Annotated[Path, typer.Option(help="Gets <student>/<assignment>/<notebook>.ipynb.")] = Path(
        "submitted"
    ),
    force: Annotated[
        bool, typer.Option("--force", help="Replace submissions that are not older, too.")
    ] = False,
    root: Root = None,
) -> None:
    """Sorts what was handed in (Moodle, Canvas, or folders) for `autograder grade`."""
    from autograder.collect import CollectError, collect

    try:
        collected = collect(source, to, assignment, root, force)
    except CollectError as error:
        _stop(str(error))
    _out.print(collected.table())
    for line in collected.lines():
        _out.print(line, markup=False, highlight=False, soft_wrap=True)
    print(f"Submissions: {to}")


@app.command("grade")
def grade_command(
    submitted: Annotated[
        Path, typer.Argument(help="Holds <student>/<assignment>/<notebook>.ipynb.")
    ],
    to: Annotated[Path, typer.Option(help="Where the grades go.")] = Path("graded"),
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Submissions at once; one per core where not given.")
    ] = None,
    references: Annotated[
        Path | None, typer.Option(help="A private pack (autograder record --seed --to).")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Run submissions on the Dask workers of this scheduler.")
    ] = None,
    case_seconds: Annotated[float | None, typer.Option(min=0.1, help="Limit of a case.")] = None,
    cell_seconds: Annotated[float | None, typer.Option(min=0.1, help="Limit of a cell.")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, help="Limit of a submission.")] = None,
    memory: Annotated[int | None, typer.Option(min=64, help="MiB for a submission.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Rerun what ran out of time or was killed.")
    ] = False,
    trust: Annotated[
        bool,
        typer.Option("--trust-submissions", help="Run them even where they cannot be shut in."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
    root: Root = None,
) -> None:
    """Grades a class: gradebook, autograded notebooks, feedback, CSV and JSON.

    May be stopped or killed at any moment: the same command goes on from there. Limits that are
    not given are those of c.Limits in nbgrader_config.py.
    """
    from autograder.engine import EngineError
    from autograder.grading import GradingError, Stopped, grade
    from autograder.marking import Limits
    from autograder.notebooks import SourceError, course_root, settings
    from autograder.pack import PackError
    from autograder.tables import summary

    given = {"case": case_seconds, "cell": cell_seconds, "submission": seconds}
    try:
        limits = Limits.of(settings(course_root(root))).but(
            {name: value for name, value in given.items() if value is not None}, memory
        )
        with _workers(cluster, trust, limits.bounds) as engine:
            grades = grade(
                submitted,
                to,
                jobs,
                references,
                root,
                progress=not as_json,
                engine=engine,
                limits=limits,
                again=again,
                trust=trust,
            )
    except (EngineError, GradingError, PackError, SourceError) as error:
        _stop(str(error))
    except Stopped as stopped:
        _err.print(f"autograder: {stopped}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    if as_json:
        print((to / "grades.json").read_text(encoding="utf-8"), end="")
    else:
        _out.print(summary(grades.rows))
        print(f"Grades: {to / 'grades.csv'}, {to / 'grades.json'}, {to / 'gradebook.db'}")
        print(f"For learners: {to / 'feedback'}")
        print(f"What to explain again: autograder report {to}")
    for note in grades.notes:
        _err.print(note, markup=False, highlight=False, soft_wrap=True)


def _workers(cluster: str | None, trust: bool, bounds: Any) -> AbstractContextManager[Any]:
    """The engine of a cluster, None where this machine is to run the submissions."""
    if cluster is None:
        return nullcontext()
    from autograder.cluster import ClusterEngine

    return ClusterEngine(cluster, trust, bounds)


@app.command("doctor")
def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Tells what this machine offers, and how to get what is missing. Exit 1: cannot grade."""
    from autograder.doctor import examine

    found = examine()
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        _out.print(found.table())
        for line in found.advice():
            _out.print(line, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if found.can_grade else 1)


@app.command("report")
def report_command(
    graded: Annotated[Path, typer.Argument(help="The folder that autograder grade wrote.")],
    to: Annotated[
        Path | None, typer.Option(help="The page; report.html in that folder where not given.")
    ] = None,
) -> None:
    """Writes the class report: one HTML page with all that a class shows."""
    from autograder.report import ReportError, write_report

    try:
        path = write_report(graded, to)
    except ReportError as error:
        _stop(str(error))
    print(f"Report: {path}")


@app.command("export")
def export_command(
    graded: Annotated[Path, typer.Argument(help="The folder that `autograder grade` wrote.")],
    form: Annotated[str, typer.Option("--format", help="canvas or moodle.")],
    roster: Annotated[
        Path | None,
        typer.Option(help="The LMS's own CSV, whose students and columns are carried over."),
    ] = None,
    assignment: Annotated[
        list[str] | None, typer.Option(help="Which; all where none is named (Moodle: one).")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(help="The CSV; <format>.csv in that folder where not given.")
    ] = None,
) -> None:
    """Writes the grades as a CSV that Canvas or Moodle imports."""
    from autograder.exports import ExportError, export

    try:
        written = export(graded, form, roster, to, assignment or ())
    except ExportError as error:
        _stop(str(error))
    for line in written.notes:
        _out.print(line, markup=False, highlight=False, soft_wrap=True)
    print(f"{written.path}: {written.students} students")


def _seed(text: str) -> int:
    if text.isdecimal():
        return int(text)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _stop(message: str) -> None:
    """Ends with exit code 2 and one message."""
    _err.print(f"autograder: {message}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def main() -> None:
    """The console script's entry point."""
    app()


if __name__ == "__main__":
    main()
