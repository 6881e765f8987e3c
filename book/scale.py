"""The page on scale: what a large course costs, calculated from what was measured.

Measured are a class and the checks (``benchmarks/RESULTS.json``), the weight of the pages (there,
too), and a learner's own runs on a CPU (``book/results``). The rest is arithmetic, which the page
shows; what a graphics card takes is a calculation from operations, and the page says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FIGURES = Path("benchmarks/RESULTS.json")
LEARNERS = 10_000
MACHINES = (1, 4, 16)
CORES = 8
READERS = 100  # new readers a second
PIXELS = 32  # a side of an image of CIFAR-10
# Peak operations a second, and the share of it that small models reach: assumed, not measured.
CARDS = {
    "free Colab (T4, float32)": (8.1e12, 0.30),
    "H200 (bfloat16)": (989e12, 0.20),
}


def page(root: Path) -> str:
    """The page as Markdown; of what was not measured yet it says nothing, or that alone."""
    if not (root / FIGURES).is_file():
        return (
            "# Scale on paper\n\nNothing was measured yet: `make bench` does, and takes an hour.\n"
        )
    found = json.loads((root / FIGURES).read_text(encoding="utf-8"))
    parts = [
        "# Scale on paper",
        "What would a course with many learners need? Everything on this page is calculated from "
        f"figures that were measured on {found['date']}, on this machine: {found['machine']}. "
        "Your machines differ; the calculation stays.",
        *(_grading(found) if {"grading", "checking"} <= set(found) else ()),
        *(_reading(found) if "book" in found else ()),
        *_training(root),
    ]
    return "\n\n".join(parts) + "\n"


# --- grading --------------------------------------------------------------------------------


def core_seconds(found: dict[str, Any]) -> dict[str, float]:
    """Seconds of one core for a submission of each chapter, by the prefix of its exercises.

    The class that was measured is of chapter 1. Another chapter's submission takes that, and the
    difference of what the checks of the two take.
    """
    checks: dict[str, float] = {}
    for name, one in found["checking"]["exercises"].items():
        prefix = name.split("/")[0]
        checks[prefix] = checks.get(prefix, 0.0) + one["check_ms"]["median"] / 1000
    measured = _measured_core_seconds(found["grading"])
    return {prefix: measured + own - checks["attention"] for prefix, own in checks.items()}


def _measured_core_seconds(grading: dict[str, Any]) -> float:
    return 2 * grading["large class"]["seconds"] / grading["large class"]["submissions"]


def _grading(found: dict[str, Any]) -> list[str]:
    each = core_seconds(found)
    large = found["grading"]["large class"]
    plain = found["grading"]["plain nbgrader, seconds a submission"]["median"]
    whole = LEARNERS * sum(each.values())
    rows = [
        f"| {machines} | {machines * CORES} | {_clock(whole / (machines * CORES))} | "
        f"{_clock(LEARNERS * len(each) * plain / (machines * CORES))} |"
        for machines in MACHINES
    ]
    least, most = min(each.values()), max(each.values())
    return [
        f"## {LEARNERS:,} learners, {len(each)} chapters",
        f"Grading {large['submissions']:,} submissions of chapter 1 took "
        f"{large['seconds']:.0f} s with two jobs on two cores: "
        f"{_measured_core_seconds(found['grading']):.2f} s of a core each. The checks of other "
        f"chapters take longer, so that a submission takes {least:.2f} to {most:.2f} s of a core, "
        f"and one learner's whole course {sum(each.values()):.1f} s. Submissions share nothing, so "
        f"machines add up. With {CORES} cores each:",
        "\n".join(
            [
                "| Machines | Cores | Grade everything | With plain nbgrader |",
                "| ---: | ---: | ---: | ---: |",
                *rows,
            ]
        ),
        f"Plain nbgrader took {plain:.1f} s of one core for a submission of chapter 1, and is "
        "taken to need the same for every chapter, which is in its favor: it runs the training "
        "cells, too, and other chapters train for longer. Memory stayed below "
        f"{large['memory_mib']['at_most']:,.0f} MiB for two jobs. What was graded and has not "
        "changed is not graded again, so only the last hour before a deadline counts.",
    ]


def _clock(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


# --- reading --------------------------------------------------------------------------------


def _reading(found: dict[str, Any]) -> list[str]:
    pages = {
        name: one
        for name, one in found["book"]["reading"].items()
        if name.startswith("chapters/") and "requests" in one
    }
    sizes = [sum(one["bytes"]["this book"].values()) for one in pages.values()]
    texts = [one["bytes"]["this book"]["HTML"] for one in pages.values()]
    requests = [one["requests"]["this book"] for one in pages.values()]
    mean, text = sum(sizes) / len(sizes), sum(texts) / len(texts)
    asked = sum(requests) / len(requests)
    return [
        f"## {READERS} readers a second",
        "The book is files: no server computes anything for a reader, so any static host or "
        f"content network will do. A chapter is {mean / 1000:,.0f} kB compressed in "
        f"{asked:.0f} requests at the first visit, all of them to your own host.",
        "\n".join(
            [
                f"| {READERS} a second | Requests a second | Traffic |",
                "| --- | ---: | ---: |",
                f"| first visits | {READERS * asked:,.0f} | "
                f"{READERS * mean * 8 / 1e6:,.0f} Mbit/s |",
                f"| next chapter, with fonts and scripts in the browser's cache | {READERS} and "
                f"a few | {READERS * text * 8 / 1e6:,.0f} Mbit/s |",
            ]
        ),
        f"That is {READERS * 86_400:,} chapters a day, with at most "
        f"{READERS * mean * 86_400 / 1e12:.1f} TB. Let the host compress, and keep files in the "
        "browsers for a day at most, since a file that changes keeps its name.",
    ]


# --- training -------------------------------------------------------------------------------


def operations(root: Path) -> dict[str, float]:
    """Floating-point operations of each chapter's main training with the ``gpu`` budget.

    Six for each weight and token, two forward and four backward (Kaplan et al., 2020, section
    2.1); the lookups of attention, which are few at these lengths, are left out.
    """
    from workbook import record

    def chosen(chapter: str) -> dict[str, Any]:
        return record.configuration_of(record.notebook_of(chapter, root), "gpu")

    def block(d: int, d_ff: int, attentions: int = 1) -> int:
        return 4 * d * d * attentions + 2 * d * d_ff

    two, bert, gpt = chosen("4")["sizes 2"], chosen("5")["size 2"], chosen("6")["size"]
    vit, mae = chosen("7")["size"] | {"patch": chosen("7")["P"]}, chosen("8")["size"]
    seen = int(_patches(mae) * (1 - mae["ratio"])) + 1
    # Chapter: steps, and weights times tokens in one of them.
    work = {
        # A batch has at most so many tokens on each side.
        "04_encoder_decoder": (
            two["steps"],
            two["tokens"] * two["layers"] * block(two["d_model"], two["d_ff"]),
            two["tokens"] * two["layers"] * block(two["d_model"], two["d_ff"], 2),
            two["tokens"] * two["d_model"] * two["vocab"],
        ),
        "05_bert": (
            bert["steps"],
            bert["batch"]
            * bert["length"]
            * bert["num_layers"]
            * block(bert["d_model"], bert["d_ff"]),
            bert["batch"] * bert["length"] * bert["rate"] * bert["d_model"] * bert["vocab"],
        ),
        "06_gpt": (
            gpt["steps"],
            gpt["batch"]
            * gpt["context"]
            * gpt["layers"]
            * block(gpt["d_model"], 4 * gpt["d_model"]),
        ),
        "07_vit": (
            vit["steps"],
            vit["batch"] * (_patches(vit) + 1) * vit["layers"] * block(vit["d_model"], vit["d_ff"]),
        ),
        "08_mae": (
            mae["steps"],
            mae["batch"] * seen * mae["layers"] * block(mae["d_model"], mae["d_ff"]),
            mae["batch"]
            * (_patches(mae) + 1)
            * mae["decoder_layers"]
            * block(mae["decoder_d_model"], mae["decoder_d_ff"]),
        ),
    }
    return {name: 6.0 * steps * sum(parts) for name, (steps, *parts) in work.items()}


def _patches(size: dict[str, Any]) -> int:
    return (PIXELS // size["patch"]) ** 2


def _training(root: Path) -> list[str]:
    from autograder import notebooks
    from book import records

    work = operations(root)
    kept = records.read(root)
    rows, total = [], 0.0
    for chapter in notebooks.chapters(root):
        title = notebooks.title_of(notebooks.read_source(chapter.source)) or chapter.name
        own = next((one for one in kept.get(chapter.name, ()) if one["budget"] == "cpu"), None)
        if own is None:
            continue
        seconds = sum(run["seconds"] for run in own["runs"]) / len(own["runs"])
        total += seconds
        cards = [
            _clock_short(work[chapter.name] / (peak * share)) if chapter.name in work else ""
            for peak, share in CARDS.values()
        ]
        rows.append(f"| {title} | {seconds:.0f} s | " + " | ".join(cards) + " |")
    sums = [_clock_short(sum(work.values()) / (peak * share)) for peak, share in CARDS.values()]
    rows.append(f"| **All** | **{total / 60:.0f} min** | " + " | ".join(sums) + " |")
    shares = ", ".join(
        f"{share:.0%} of {peak / 1e12:,.0f} TFLOP/s on {card}"
        for card, (peak, share) in CARDS.items()
    )
    return [
        "## One learner's training",
        "On a CPU the notebooks train small models, and a whole notebook ran in the time of the "
        "first column: measured, one thread. With the budget `gpu` they train the large ones; the "
        "other columns are calculated from the operations of each chapter's main training (six "
        f"for each weight and token) and a speed that is *assumed*: {shares}, the peaks of "
        "NVIDIA's data sheets. Recorded runs on a "
        "card, where there are any, stand on [the page of results](results.md).",
        "\n".join(
            [
                "| Chapter | CPU, `cpu` | " + " | ".join(f"{card}, `gpu`" for card in CARDS) + " |",
                "| --- | ---: | " + "---: | " * len(CARDS),
                *rows,
            ]
        ),
        "So a learner needs no card: the course is written for the first column, in "
        f"{total / 60:.0f} minutes of one core. {LEARNERS:,} learners who run every notebook once "
        f"on a server of yours take {LEARNERS * total / 3600:,.0f} core hours in the whole term.",
    ]


def _clock_short(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else _clock(seconds)
