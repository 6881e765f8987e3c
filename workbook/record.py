"""Runs a chapter's experiment without Jupyter, and writes down what came of it.

    python -m workbook.record 06_gpt --budget gpu --seeds 2 --to book/results/

The cells that run are those of the learners' notebook, in its order, with the chapter's own
solutions in place of the exercises; only the cells that check an exercise are left out. So what is
measured is what the page measures, and nothing is written twice. PyTorch, NumPy and Matplotlib are
enough, beside what a chapter reads its data with (``tokenizers``, ``num2words``, scikit-learn).

Each seed is a run of the whole notebook, in a process of its own, with all its seeds moved
(``budget.seed``); run 0 is the notebook as it is. The result is one JSON file:

``configuration``  what every ``budget.choose`` gave: the record is of this, and of nothing else
``seeds``          the runs by number: in run r, seed s of the notebook is s + 100,000 r
``figures``        what the chapter reports, with a list of values for each run
``trainings``      each call of ``train`` in each run: steps, parameters, seconds, curves
``data``           the sets that were read, with the sha256 of their bytes
``runs``           seconds and peak memory of each run, in bytes
``machine``, ``versions``, ``commit``, ``command``, ``finished``
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures.process
import contextlib
import importlib.machinery
import importlib.metadata
import json
import linecache
import multiprocessing
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FORMAT = 1
# Points of a curve that are kept: more than a picture of it can show.
POINTS = 60
PACKAGES = ("torch", "numpy", "matplotlib")
# Modules whose package has another name.
PACKAGED = {"sklearn": "scikit-learn", "PIL": "pillow"}


class RecordError(Exception):
    """A chapter cannot be recorded; the text says why, and what to do."""


# --- the notebook ---------------------------------------------------------------------------


def notebook_of(chapter: str, root: Path = ROOT) -> Path:
    """Return the learners' notebook of a chapter: "06_gpt", or its number.

    Raises:
        RecordError: there is no such chapter.
    """
    found = {path.parent.name: path for path in sorted(root.glob("chapters/*/*.ipynb"))}
    for name, path in found.items():
        if chapter == name or (chapter.isdecimal() and int(chapter) == int(name[:2])):
            return path
    known = ", ".join(found) or "none: run this in a checkout of the course"
    raise RecordError(f"There is no chapter {chapter!r}. There are: {known}.")


def cells_of(notebook: Path, root: Path = ROOT) -> list[tuple[str, str]]:
    """Return the code that runs, as pairs (where it stands, text).

    Exercises hold the chapter's solutions, from ``workbook/ready``; cells that check are missing.

    Raises:
        RecordError: an exercise has no solution there.
    """
    content = json.loads(notebook.read_text(encoding="utf-8"))
    code = [
        (number, "".join(cell["source"]), cell["metadata"].get("nbgrader", {}))
        for number, cell in enumerate(content["cells"], start=1)
        if cell["cell_type"] == "code"
    ]
    prefix = next(
        found[1] for _, text, _ in code if (found := re.search(r'\bcheck\("(\w+)/\w+"', text))
    )
    ready = root / "workbook" / "ready" / f"{prefix}.py"
    solutions = _definitions(ready.read_text(encoding="utf-8"))
    elsewhere = {
        name for _, text, marks in code if not marks.get("solution") for name in _definitions(text)
    }
    cells = []
    for number, text, marks in code:
        if marks.get("grade"):
            continue
        if marks.get("solution"):
            asked = list(_definitions(text))
            if missing := [name for name in asked if name not in solutions]:
                raise RecordError(
                    f"{ready.relative_to(root)} has no {missing[0]}. Run: autograder release"
                )
            text = "\n\n".join(_with_helpers(asked, solutions, elsewhere))
        cells.append((f"{notebook.stem}, cell {number}", text))
    return cells


def _definitions(text: str) -> dict[str, str]:
    """The functions and classes that a piece of code defines: name -> source."""
    text = _plain(text)
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


def _plain(text: str) -> str:
    """Code without magics and shell lines, which are Jupyter's."""
    return re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", text)


def _with_helpers(asked: list[str], solutions: dict[str, str], elsewhere: set[str]) -> list[str]:
    """The definitions that were asked for, behind helpers that stand in no cell of their own."""
    found: dict[str, str] = {}

    def add(name: str) -> None:
        used = {node.id for node in ast.walk(ast.parse(solutions[name])) if hasattr(node, "id")}
        for helper in solutions:
            if helper in used - {name} and helper not in elsewhere and helper not in asked:
                add(helper)
        found.setdefault(name, solutions[name])

    for name in asked:
        add(name)
    return list(found.values())


def configuration_of(notebook: Path, budget: str) -> dict[str, Any]:
    """Return what each ``budget.choose`` of a notebook gives: the name it goes to -> the value.

    A second one for the same name is called "name 2". What is no constant is given as text.
    """
    content = json.loads(notebook.read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for cell in content["cells"]:
        if cell["cell_type"] != "code":
            continue
        for statement in ast.parse(_plain("".join(cell["source"]))).body:
            for node in ast.walk(statement):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "budget.choose":
                    name = _target(statement)
                    count = sum(
                        re.fullmatch(rf"{re.escape(name)}( \d+)?", key) is not None for key in found
                    )
                    chosen = next(each.value for each in node.keywords if each.arg == budget)
                    found[f"{name} {count + 1}" if count else name] = _constant(chosen)
    return found


def _target(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Assign):
        return ast.unparse(statement.targets[0])
    return ast.unparse(statement).split("\n")[0].split("(")[0]


def _constant(node: ast.expr) -> Any:
    """The value of a literal, or of ``dict(a=1)``; else the text."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "dict" and not node.args:
        return {each.arg: _constant(each.value) for each in node.keywords}
    if isinstance(node, ast.Dict):
        return {
            str(_constant(key)): _constant(value)
            for key, value in zip(node.keys, node.values, strict=True)
        }
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
    return list(value) if isinstance(value, tuple) else value


# --- a run ----------------------------------------------------------------------------------


def run(notebook: Path, budget: str, repetition: int, root: Path = ROOT) -> dict[str, Any]:
    """Run a notebook's cells in this process, and return what it told.

    Raises:
        RecordError: a cell failed.
    """
    import matplotlib as mpl
    import torch

    from workbook import journal

    told: dict[str, Any] = {"figures": [], "trainings": [], "data": {}}

    def listen(kind: str, facts: dict[str, Any]) -> None:
        if kind == "figure":
            told["figures"].append(facts)
        elif kind == "training":
            told["trainings"].append(_training(repetition, **facts))
        elif kind == "data":
            told["data"][facts["name"]] = facts["sha256"]

    cells = cells_of(notebook, root)
    module = types.ModuleType("__main__")
    settings = {
        "WORKBOOK_BUDGET": budget,
        # Figures in place of widgets, lines in place of bars, ready-made blocks.
        "WORKBOOK_STATIC": "1",
        "WORKBOOK_GRADING": "",
        "WORKBOOK_REPETITION": str(repetition),
    }
    mpl.use("agg")
    started = time.perf_counter()
    with _alone(notebook, module, settings), journal.listening(listen):
        for where, text in cells:
            try:
                _execute(where, _plain(text), module.__dict__)
            except ModuleNotFoundError as error:
                package = PACKAGED.get(error.name, error.name)
                raise RecordError(
                    f"{where} needs {package}, which is not installed. Run: pip install {package}"
                ) from error
            except Exception as error:
                trace = traceback.format_exc().split(f'"<{where}>"', 1)[-1]
                raise RecordError(f"{where} failed{trace}") from error
        told["machine"] = machine()
    told["seconds"] = round(time.perf_counter() - started, 2)
    told["peak"] = {"host": _peak()}
    if torch.cuda.is_available():
        told["peak"]["device"] = torch.cuda.max_memory_allocated()
    return told


def _execute(where: str, text: str, namespace: dict[str, Any]) -> None:
    # Where tracebacks, and inspect, look for the text.
    name = f"<{where}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), namespace)


@contextlib.contextmanager
def _alone(notebook: Path, module: types.ModuleType, settings: dict[str, str]) -> Iterator[None]:
    """In a folder that is thrown away, as the main module, with checks that say nothing."""
    environment = dict(os.environ)
    grader = types.ModuleType("autograder")
    grader.__spec__ = importlib.machinery.ModuleSpec("autograder", None)
    grader.check = lambda *_, **__: None
    before = {name: sys.modules.get(name) for name in ("__main__", "autograder")}
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="record-") as place:
        folder = Path(place) / notebook.parent.name
        shutil.copytree(notebook.parent, folder)
        sys.modules |= {"__main__": module, "autograder": grader}
        os.environ |= settings
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(here)
            os.environ.clear()
            os.environ |= environment
            for name, old in before.items():
                if old is None:
                    del sys.modules[name]
                else:
                    sys.modules[name] = old


def _training(repetition: int, title: str, seed: int, model: Any, history: Any) -> dict[str, Any]:
    """What is kept of one call of ``train``."""
    from workbook.training import count_parameters

    losses = history.loss
    width = -(-len(losses) // POINTS) or 1
    windows = [losses[i : i + width] for i in range(0, len(losses), width)]
    ends = [min(i * width + width, len(losses)) for i in range(len(windows))]
    return {
        "run": repetition,
        "title": title,
        "seed": seed,
        "parameters": count_parameters(model),
        "steps": len(losses),
        "seconds": round(history.seconds, 3),
        # Step -> mean over the steps since the point before.
        "loss": [
            [end, _short(sum(part) / len(part))] for end, part in zip(ends, windows, strict=True)
        ],
        "evaluations": [
            [step, {name: _short(value) for name, value in found.items()}]
            for step, found in history.evaluations
        ],
    }


def _short(value: float) -> float:
    return float(f"{float(value):.6g}")


def _peak() -> int:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# --- a record -------------------------------------------------------------------------------


def record(chapter: str, budget: str, seeds: int, root: Path = ROOT) -> dict[str, Any]:
    """Run a chapter once for each seed, and return the record.

    Raises:
        RecordError: there is no such chapter, or a run failed.
    """
    notebook = notebook_of(chapter, root)
    runs = []
    for repetition in range(seeds):
        print(f"{notebook.stem}: run {repetition + 1} of {seeds}, budget {budget}", flush=True)
        # A process of its own, so that peak memory is that of this run.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            try:
                runs.append(pool.submit(run, notebook, budget, repetition, root).result())
            except concurrent.futures.process.BrokenProcessPool:
                raise RecordError(
                    f"The run of {notebook.stem} was ended from outside, perhaps for lack of "
                    "memory. Close other programs, or choose a smaller budget."
                ) from None
    return {
        "format": FORMAT,
        "chapter": notebook.stem,
        "budget": budget,
        "configuration": configuration_of(notebook, budget),
        "seeds": list(range(seeds)),
        "figures": _together([told["figures"] for told in runs]),
        "trainings": [training for told in runs for training in told["trainings"]],
        "data": {name: sha for told in runs for name, sha in told["data"].items()},
        "runs": [{"seconds": told["seconds"], "peak_bytes": told["peak"]} for told in runs],
        "machine": runs[0]["machine"],
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "commit": commit(root),
        "command": f"python -m workbook.record {notebook.stem} --budget {budget} --seeds {seeds}",
        "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    }


def _together(runs: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The figures of all runs, in the order of the first: each with its values, run by run."""
    found: dict[str, dict[str, Any]] = {}
    for figures in runs:
        for facts in figures:
            kept = {key: facts[key] for key in ("unit", "digits", "published", "differs")}
            one = found.setdefault(facts["name"], {"name": facts["name"], "values": [], **kept})
            one["values"].append([_short(value) for value in facts["values"]])
    return list(found.values())


def machine() -> dict[str, Any]:
    """Return what a run computes on, with the budget that is set."""
    import torch

    from workbook import budget

    on_gpu = budget.device().type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def commit(root: Path) -> str:
    """Return the commit of the checkout, with "+" where files differ from it; "" without git."""
    try:
        git = ["git", "-C", str(root)]
        told = {"capture_output": True, "text": True, "check": True}
        found = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], **told).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], **told).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found + ("+" if changed else "")


def name_of(found: dict[str, Any]) -> str:
    """Return the file name of a record: one for each chapter, budget and graphics card."""
    device = re.sub(r"[^a-z0-9]+", "-", found["machine"]["device"].lower()).strip("-")
    card = "" if device.startswith("cpu-") else f".{device}"
    return f"{found['chapter']}.{found['budget']}{card}.json"


def stale(found: dict[str, Any], root: Path = ROOT) -> str:
    """Return why a record is not of the notebook as it is now, or nothing."""
    command = found.get("command", "python -m workbook.record")
    if found.get("format") != FORMAT:
        return f"its format is {found.get('format')}, and {FORMAT} is read. Record anew: {command}"
    now = configuration_of(notebook_of(found["chapter"], root), found["budget"])
    then = found["configuration"]
    for name in dict.fromkeys([*now, *then]):
        if now.get(name) != then.get(name):
            return (
                f"it was made with {name} = {then.get(name)}, and the notebook has "
                f"{now.get(name)}. Record anew: {command}"
            )
    return ""


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m workbook.record",
        description="Runs a chapter's experiment without Jupyter and writes what came of it.",
    )
    parser.add_argument("chapter", nargs="+", help="06_gpt, or its number; several, or all")
    parser.add_argument(
        "--budget", choices=("smoke", "cpu", "gpu"), default="cpu", help="how much to compute"
    )
    parser.add_argument("--seeds", type=int, default=1, help="runs, each with other seeds")
    parser.add_argument("--to", type=Path, default=Path(), metavar="FOLDER", help="default: here")
    asked = parser.parse_args(arguments)
    if asked.seeds < 1:
        parser.error("--seeds is at least 1")
    names = asked.chapter
    if names == ["all"]:
        names = [path.parent.name for path in sorted(root.glob("chapters/*/*.ipynb"))]
    try:
        for name in names:
            notebook_of(name, root)
        asked.to.mkdir(parents=True, exist_ok=True)
        # All is there, and can be written, before the first one runs for an hour.
        tempfile.TemporaryFile(dir=asked.to).close()
        for name in names:
            found = record(name, asked.budget, asked.seeds, root)
            path = asked.to / name_of(found)
            path.write_text(_text(found), encoding="utf-8")
            print(f"{path}: {len(found['figures'])} figures, {len(found['trainings'])} trainings")
    except RecordError as error:
        print(f"record: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"record: {asked.to} cannot be written to ({error.strerror}). Name another folder "
            "with --to.",
            file=sys.stderr,
        )
        return 1
    return 0


def _text(found: dict[str, Any]) -> str:
    """JSON with a line for each entry, and for each figure, training and run."""
    lines = []
    for key, value in found.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            each = ",\n  ".join(json.dumps(one, ensure_ascii=False) for one in value)
            text = f"[\n  {each}\n ]"
        lines.append(f' "{key}": {text}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    # By the name under which the processes that run a notebook know it.
    from workbook.record import main as start

    sys.exit(start())
