"""The command ``autograder``."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Annotated

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
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
    root: Root = None,
) -> None:
    """Grades a class: gradebook, autograded notebooks, feedback, CSV and JSON."""
    from autograder.grading import GradingError, grade
    from autograder.notebooks import SourceError
    from autograder.pack import PackError
    from autograder.tables import summary

    try:
        grades = grade(submitted, to, jobs, references, root, progress=not as_json)
    except (GradingError, PackError, SourceError) as error:
        _stop(str(error))
    if as_json:
        print((to / "grades.json").read_text(encoding="utf-8"), end="")
    else:
        _out.print(summary(grades.rows))
        print(f"Grades: {to / 'grades.csv'}, {to / 'grades.json'}, {to / 'gradebook.db'}")
        print(f"For learners: {to / 'feedback'}")


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
