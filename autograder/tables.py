"""Grades as rows: CSV, JSON, and the short table at the end of a run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rich.table import Table

from autograder.files import keep
from autograder.verdict import STATUSES, points


@dataclass(frozen=True)
class Row:
    """One student's grade for one exercise; the fields are the columns, in order."""

    student: str
    assignment: str
    exercise: str
    points: float
    max_points: float
    status: str
    message: str
    misconception: str


COLUMNS = tuple(column.name for column in fields(Row))


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """Writes rows as CSV (UTF-8, one header line)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([safe_cell(value) for value in asdict(row).values()])
    keep(path, text.getvalue())


def write_json(rows: Iterable[Row], path: Path) -> None:
    """Writes rows as a JSON list of objects."""
    keep(path, json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n")


def safe_cell(value: str | float) -> str:
    """A value as a spreadsheet may read it: a number as people write it, no formula."""
    if not isinstance(value, str):
        return points(value)
    # A spreadsheet runs text that begins like a formula, and messages quote learners' code.
    return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def summary(rows: Sequence[Row]) -> Table:
    """One line per student and assignment: points, and how many exercises ended how."""
    table = Table(title="Grades", title_justify="left")
    several = len({row.assignment for row in rows}) > 1
    table.add_column("student")
    if several:
        table.add_column("assignment")
    table.add_column("points", justify="right")
    used = [status for status in STATUSES if any(row.status == status for row in rows)]
    for status in used:
        table.add_column(status, justify="right")
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.student, row.assignment), []).append(row)
    for (student, assignment), mine in groups.items():
        earned, whole = sum(row.points for row in mine), sum(row.max_points for row in mine)
        counts = [sum(row.status == status for row in mine) for status in used]
        table.add_row(
            student,
            *([assignment] if several else []),
            f"{points(earned)} / {points(whole)}",
            *(str(count) if count else "" for count in counts),
        )
    return table
