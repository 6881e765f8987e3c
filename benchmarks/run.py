"""All measurements, one after the other, and one page of what they found.

``python benchmarks/run.py [--quick] [--only NAME ...] [--to FILE]`` runs every script of this
folder, each of which measures both sides in one go, and writes ``benchmarks/RESULTS.md``: a table
of all ratios, then each script's own output; beside it ``RESULTS.json`` has all figures, for the
book's page on scale. ``--quick`` is a smoke pass: a few steps of each, to see that all of it works;
it writes nothing where ``--to`` does not say so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclass(frozen=True)
class Measurement:
    """A script, what it is about, and the arguments of the whole measurement and of a quick one."""

    name: str
    about: str
    script: str
    usual: tuple[str, ...] = ()
    quick: tuple[str, ...] = ("--quick",)

    def command(self, quick: bool) -> list[str]:
        """What is typed in the repository."""
        return ["python", f"benchmarks/{self.script}", *(self.quick if quick else self.usual)]


MEASUREMENTS = (
    Measurement("grading", "Grading a class, beside plain nbgrader", "grading.py"),
    Measurement("checking", "A check, beside the calls that it makes", "checking.py"),
    Measurement("book", "The book, beside Jupyter Book's defaults", "book.py"),
    Measurement("language", "Training and writing with GPT", "language.py"),
    Measurement(
        "nanogpt",
        "nanoGPT's whole run for a CPU",
        "language.py",
        ("--whole",),
        ("--whole", "--quick"),
    ),
    Measurement("vision", "Training ViT and MAE", "vision.py"),
)


def measure(one: Measurement, quick: bool) -> tuple[str, dict[str, Any]]:
    """Runs a script; returns what it printed and its figures.

    Raises:
        SystemExit: the script failed; its output says why.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        file = Path(folder) / "figures.json"
        command = [sys.executable, *one.command(quick)[1:], "--json", str(file)]
        lines = []
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        ) as process:
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line)
        if process.returncode:
            raise SystemExit(f"{one.name} failed with status {process.returncode}: see above")
        return "".join(lines), json.loads(file.read_text(encoding="utf-8"))


def machine() -> str:
    """The machine in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    words = [f"{os.cpu_count()} cores ({platform.machine()})", f"{memory:.0f} GiB of memory"]
    words += [platform.system(), f"Python {platform.python_version()}"]
    import torch

    words.append(f"PyTorch {torch.__version__}")
    if torch.cuda.is_available():
        words.append(torch.cuda.get_device_name())
    return ", ".join(words)


def page(found: Sequence[tuple[Measurement, str, dict[str, Any]]], quick: bool) -> str:
    """The page of results."""
    made = "make bench" if not quick else "python benchmarks/run.py --quick"
    rows = []
    for one, _, figures in found:
        for row in figures["summary"]:
            ratio = row["ratio"]
            span = f"{_short(ratio['least'])}–{_short(ratio['most'])}"
            rows.append(
                f"| [{row['what']}](#{one.name}) | {row['peer']} | **{_short(ratio['median'])}** | "
                f"{span}, {row['spread']} |"
            )
    parts = [
        "# Results",
        f"Written by `{made}` on {datetime.now(UTC):%Y-%m-%d}; do not edit. How each is measured "
        "stands in [README.md](README.md).",
        f"Machine: {machine()}. Others may use it too: ratios compare what ran in the same round, "
        "and where a script can, it counts CPU time.",
        "A ratio is this project's over its peer's, as a median: of speeds above 1 is better, of "
        "times and bytes below 1.",
        "\n".join(["| What | Peer | Ratio | Spread |", "| --- | --- | ---: | --- |", *rows]),
    ]
    for one, printed, _ in found:
        parts += [
            f'## <a id="{one.name}"></a>{one.about}',
            f"`{' '.join(one.command(quick))}`",
            f"```text\n{printed.rstrip()}\n```",
        ]
    return "\n\n".join(parts) + "\n"


def figures(found: Sequence[tuple[Measurement, str, dict[str, Any]]]) -> str:
    """All figures, by the measurement's name."""
    facts = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine()}
    facts |= {one.name: figures for one, _, figures in found}
    return json.dumps(facts, indent=1) + "\n"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 20 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what was asked for, and writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [one.name for one in MEASUREMENTS]
    parser.add_argument("--quick", action="store_true", help="does it all work?")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--to", type=Path, metavar="FILE", help="default: benchmarks/RESULTS.md")
    asked = parser.parse_args(arguments)
    whole = not asked.quick and asked.only == names
    if not (whole or asked.to or asked.quick):
        parser.error("a part does not replace benchmarks/RESULTS.md: say --to FILE")
    found = []
    for one in MEASUREMENTS:
        if one.name in asked.only:
            print(f"\n== {one.about}: {' '.join(one.command(asked.quick))}", flush=True)
            found.append((one, *measure(one, asked.quick)))
    to = asked.to or (HERE / "RESULTS.md" if whole else None)
    if to:
        to.write_text(page(found, asked.quick), encoding="utf-8")
        to.with_suffix(".json").write_text(figures(found), encoding="utf-8")
        print(f"\n{to}")


if __name__ == "__main__":
    main()
