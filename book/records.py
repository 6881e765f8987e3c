"""Recorded runs in the book: what ``python -m workbook.record`` wrote, beside what pages measured.

``book/results/`` holds one JSON file for each chapter, budget and graphics card. A chapter's page
ends with its own runs, and the page of results has them in its tables.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbook import record as recorded
from workbook.results import in_words

FOLDER = Path("book/results")
# The section stands before this one of a chapter.
BEFORE = "## Further reading"
LONGER = 60  # seconds from which minutes are said

Record = dict[str, Any]


class StaleRecord(Exception):
    """A record is not of the notebook as it is now; the text says which, why, and what to do."""


def read(root: Path) -> dict[str, list[Record]]:
    """All records, by chapter: those of a CPU first.

    Raises:
        StaleRecord: the notebook has changed since, in what a record depends on.
    """
    found: dict[str, list[Record]] = {}
    for path in sorted((root / FOLDER).glob("*.json")):
        one = json.loads(path.read_text(encoding="utf-8"))
        if why := recorded.stale(one, root):
            raise StaleRecord(f"{path.relative_to(root)} is out of date: {why} --to {FOLDER}")
        found.setdefault(one["chapter"], []).append(one)
    for records in found.values():
        records.sort(key=lambda one: not _on_cpu(one))
    return found


def _on_cpu(one: Record) -> bool:
    return one["machine"]["device"].startswith("CPU")


def label(one: Record) -> str:
    """Where a record was made, in a few words."""
    device = "CPU" if _on_cpu(one) else one["machine"]["device"]
    return device + ", JPEG pictures" * _went_through_jpeg(one)


def _went_through_jpeg(one: Record) -> bool:
    return any("jpeg" in name.lower() for name in one["data"])


def platform(one: Record) -> str:
    """The kind of processor of a record that was made on one."""
    return one["machine"]["device"].removeprefix("CPU, ")


def measured(figure: dict[str, Any]) -> str:
    """A figure's mean and range over all that was measured in all runs."""
    values = [value for run in figure["values"] for value in run]
    if len(values) > 1 and len(set(values)) == 1:
        return f"{in_words(values[:1], figure['unit'], figure['digits'])} in every run"
    return in_words(values, figure["unit"], figure["digits"])


def facts(one: Record) -> str:
    """How a record came about, in a paragraph."""
    seconds = [run["seconds"] for run in one["runs"]]
    mean = sum(seconds) / len(seconds)
    time = f"{mean / 60:.1f} minutes" if mean > LONGER else f"{mean:.0f} s"
    peak = max(run["peak_bytes"].get("device", run["peak_bytes"]["host"]) for run in one["runs"])
    machine, versions = one["machine"], one["versions"]
    threads = machine["threads"]
    on = f"{platform(one)}, {threads} thread{'s' * (threads > 1)}" if _on_cpu(one) else "One card"
    read = "; ".join(
        f"{name}, whose sha256 begins with {sha[:12]}" for name, sha in one["data"].items()
    )
    runs = len(one["runs"])
    return (
        f"**{label(one)}.** {on}; budget `{one['budget']}`; {runs} run{'s' * (runs > 1)}; "
        f"Python {versions['python']}, PyTorch {versions['torch']}; the whole notebook {time} a "
        f"run, at most {peak / 1e9:.1f} GB. "
        + (f"Data: {read}. " if read else "")
        + "These pictures went through JPEG; they are not those of the official archive. "
        * _went_through_jpeg(one)
        + f"{one['finished']} UTC"
        + (f", commit {one['commit']}" if one["commit"] else "")
        + f". To repeat it: `{one['command']}`"
    )


def section(records: Sequence[Record]) -> str:
    """The end of a chapter's page, as Markdown: what was recorded, and how it was trained."""
    from book.pages import beside, plain

    parts = [
        "## Recorded runs",
        "Every figure above comes from the run that made this page. Here are runs of the same "
        "notebook that were written down: with other seeds, and on other machines where there "
        "are any. A range goes from the lowest to the highest of all seeds.",
    ]
    for one in records:
        rows = [
            f"| {plain(figure['name'])} | **{plain(measured(figure))}** | {beside(figure)} |"
            for figure in one["figures"]
        ]
        parts += [
            facts(one),
            "\n".join(["| What | Measured | Published |", "| --- | --- | --- |", *rows]),
        ]
        if drawn := curves(one):
            parts += [drawn, "*Training, as it was recorded: each line is a run.*"]
    return "\n\n".join(parts) + "\n"


def curves(one: Record) -> str:
    """A picture of the chapter's main training, that with the most work, in every run; or none."""
    from book.pages import html
    from workbook import plots

    by_title: dict[str, list[dict[str, Any]]] = {}
    for training in one["trainings"]:
        by_title.setdefault(training["title"], []).append(training)
    if not by_title:
        return ""
    work = {
        title: max(each["steps"] * each["parameters"] for each in some)
        for title, some in by_title.items()
    }
    title = max(work, key=work.__getitem__)
    some = by_title[title]
    fig, ax = plots.figure(height=2.4)
    for number, training in enumerate(some):
        steps, losses = zip(*training["loss"], strict=True)
        ax.plot(steps, losses, color=plots.BLUE, alpha=1 / (1 + number), lw=1.5)
    ax.set(xlabel="step", ylabel="loss", title=title)
    first, last = some[0]["loss"][0], some[0]["loss"][-1]
    seconds = sum(each["seconds"] for each in some) / len(some)
    alt = (
        f"Loss of {title!r} against the step, {len(some)} "
        f"{'run' if len(some) == 1 else 'runs'} of {some[0]['parameters']:,} parameters: the first "
        f"from {first[1]:.3g} to {last[1]:.3g} in {last[0]:,} steps, which took "
        f"{seconds:,.0f} s on average."
    )
    return html(f"<div>{plots.draw(fig, alt).svg}</div>")


def into(notebook: Any, records: Sequence[Record]) -> None:
    """Puts the section into a chapter's page, in place."""
    import nbformat

    if not records:
        return
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown" and BEFORE in cell.source.split("\n"):
            before, after = cell.source.split(BEFORE, 1)
            cell.source = before.rstrip() or " "
            rest = nbformat.v4.new_markdown_cell(BEFORE + after)
            rest.id = f"{cell.id[:50]}-rest"
            own = nbformat.v4.new_markdown_cell(section(records))
            own.id = "recorded-runs"
            notebook.cells[position + 1 : position + 1] = [own, rest]
            if not before.strip():
                del notebook.cells[position]
            return
    raise ValueError(f"The chapter has no line {BEFORE!r}, before which its records stand.")
