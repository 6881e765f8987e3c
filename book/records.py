"""What was measured: the page of all results, and the recorded runs at the end of each chapter.

Notebooks report figures in their outputs. ``python -m workbook.record`` writes those of further
runs to ``book/results/``, one JSON file for each chapter, budget and graphics card.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from book.pages import html, link_of, plain
from workbook import record as recorded

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from book.pages import Executed

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


def measured(figure: dict[str, Any]) -> str:
    """A figure's mean and range over all that was measured in all runs."""
    from workbook.results import in_words  # here, since it brings PyTorch along

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
    kind = machine["device"].removeprefix("CPU, ")
    on = f"{kind}, {threads} thread{'s' * (threads > 1)}" if _on_cpu(one) else "One card"
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


# --- the page of all results ----------------------------------------------------------------


def results(
    executed: Sequence[Executed], kept: Mapping[str, Sequence[Record]] | None = None
) -> str:
    """The page of what the chapters measured, each figure beside a published one.

    ``kept``: chapter -> records, as :func:`read` gives them.
    """
    from autograder import notebooks

    parts = [
        "# Results",
        "What the chapters measured: **in bold** what stands in their outputs, below it what was "
        "recorded in further runs of the same notebook. Where there is a published figure for the "
        "same thing it stands beside, with what differs: these models are small, and train for "
        "minutes. A range is that of several seeds.",
    ]
    for item in executed:
        found = list(_measured(item.notebook))
        runs = (kept or {}).get(item.chapter.name, ())
        here = {facts["name"] for facts in found}
        only = {f["name"]: f for one in runs for f in one["figures"] if f["name"] not in here}
        if not (found or only):
            continue
        title = notebooks.title_of(item.notebook) or item.chapter.name
        rows = [
            f"| {plain(facts['name'])} | {'<br>'.join(_everywhere(facts, runs))} | "
            f"{_beside(facts)} |"
            for facts in [*found, *only.values()]
        ]
        parts += [
            f"## {int(item.chapter.name[:2])}. {title}",
            f"From [the chapter]({link_of(item.chapter)}), run with the budget `{item.budget}`, "
            f"finished {item.finished} UTC."
            + (
                f" [How the runs were recorded]({link_of(item.chapter)}#recorded-runs)."
                * bool(runs)
            ),
            "\n".join(["| What | Measured | Published |", "| --- | --- | --- |", *rows]),
        ]
    return "\n\n".join(parts) + "\n"


def _everywhere(facts: dict[str, Any], runs: Sequence[Record]) -> list[str]:
    """A figure as the page has it, where it has it, and as each record has it."""
    here = [f"**{plain(facts['text'])}**"] if "text" in facts else []
    return here + [
        f"{label(one)}: {plain(measured(figure))}"
        for one in runs
        for figure in one["figures"]
        if figure["name"] == facts["name"]
    ]


def _measured(notebook: NotebookNode) -> Iterator[dict[str, Any]]:
    from workbook.results import MIME

    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if MIME in output.get("data", {}):
                yield output.data[MIME]


def _beside(facts: dict[str, Any]) -> str:
    """The published figure and what differs, in one cell: three columns fit on a phone."""
    parts = [plain(facts["published"])] if facts["published"] else []
    return "<br>".join([*parts, f"*{plain(facts['differs'])}*"] if facts["differs"] else parts)


# --- the end of a chapter's page ------------------------------------------------------------


def section(records: Sequence[Record]) -> str:
    """The end of a chapter's page, as Markdown: what was recorded, and how it was trained."""
    parts = [
        "## Recorded runs",
        "Every figure above comes from the run that made this page. Here are runs of the same "
        "notebook that were written down: with other seeds, and on other machines where there "
        "are any. A range goes from the lowest to the highest of all seeds.",
    ]
    for one in records:
        rows = [
            f"| {plain(figure['name'])} | **{plain(measured(figure))}** | {_beside(figure)} |"
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
            own = nbformat.v4.new_markdown_cell(section(records))
            own.id = "recorded-runs"
            cell.source = BEFORE + after
            parts = [own, cell]
            if before.strip():
                parts.insert(0, nbformat.v4.new_markdown_cell(before.rstrip()))
                parts[0].id = f"{cell.id[:50]}-before"
            notebook.cells[position : position + 1] = parts
            return
    raise ValueError(f"The chapter has no line {BEFORE!r}, before which its records stand.")
