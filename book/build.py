"""From the chapters' sources to the book.

Each source is executed with its solutions, so that the book shows real results; then the solutions
are cleared, and only after that is the notebook put where Jupyter Book reads it. The public
edition's stage never holds a line of a solution, so no page, source copy or search index can.

    python book/build.py [--edition public|instructor] [--budget smoke|cpu|gpu]
                         [--execute-only | --check-links]
"""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import hashlib
import html
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # where this file is run as a script
    sys.path.insert(0, str(ROOT))

from book import launch, records, scale  # noqa: E402
from book import pages as generated  # noqa: E402
from book.assets import NODE, PACKAGES, NoAssets, assets  # noqa: E402

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from autograder.notebooks import Chapter

EDITIONS = ("public", "instructor")
BUDGETS = ("smoke", "cpu", "gpu")

# The folders of book/ that make all pages what they are.
FRAME = ("_ext", "_static", "_templates")
# Executed notebooks that are kept for each chapter: enough for a budget or two and a change back.
KEPT = 6
# One cell may train a model; nothing in the course trains for longer than this.
CELL_SECONDS = 3600


class BuildError(Exception):
    """The book cannot be built; the text says which chapter and cell, and shows why."""


@dataclass(frozen=True)
class Executed:
    """A source with its outputs, and how it ran."""

    chapter: Chapter
    notebook: NotebookNode
    budget: str
    seconds: float
    finished: str


# --- what a result depends on ---------------------------------------------------------------


def _hash(parts: Iterable[str], files: Iterable[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for part in (*parts, "{}.{}".format(*sys.version_info)):
        digest.update(part.encode() + b"\0")
    for path in sorted(set(files)):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:24]


def _code(root: Path, chapter: str = "*") -> list[Path]:
    """Whatever a notebook's outputs may depend on, apart from its own text.

    Other chapters' checks are nothing to it; all checks where no chapter is named.
    """
    grader = root / "autograder"
    files = [path for name in ("workbook", "autograder") for path in (root / name).rglob("*.py")]
    files = [path for path in files if path.parent != grader / "exercises"]
    files += (grader / "exercises").glob(f"{chapter}.py")
    files += (grader / "references").glob(f"{chapter}.safetensors")
    return files + [path for path in (root / "requirements.lock",) if path.is_file()]


def _inputs(root: Path) -> list[Path]:
    """Every file that the book is made of."""
    files = [root / "_config.yml", root / "nbgrader_config.py", root / scale.FIGURES]
    for name in ("book", "solutions"):
        files += (
            path
            for path in (root / name).rglob("*")
            if not any(part.startswith(".") or part == "__pycache__" for part in path.parts[-3:])
        )
    return [path for path in files if path.is_file()] + _code(root)


# --- executing ------------------------------------------------------------------------------


def execute(chapter: Chapter, budget: str, cache: Path, say: Callable[[str], None]) -> Executed:
    """The chapter's notebook with outputs, from the cache where nothing it depends on changed.

    Raises:
        BuildError: a cell failed, wrote to stderr, or a check did not give its full points.
        SourceError: the source is malformed.
    """
    import nbformat

    from autograder import notebooks

    kept = _kept(chapter, budget, cache)
    facts_file = kept.with_suffix(".json")
    if facts_file.is_file() and kept.is_file():
        facts = json.loads(facts_file.read_text(encoding="utf-8"))
        os.utime(kept)
        say(f"{chapter.name:<28} unchanged, {facts['seconds']:.1f} s when it was executed")
        return Executed(chapter, nbformat.read(kept, as_version=4), budget, **facts)

    if not sys.stderr.isatty():
        # A log file gets a line in place of the bar.
        say(f"{chapter.name:<28} executing ({budget} budget)")
    started = time.perf_counter()
    notebook = _run(chapter, notebooks.read_source(chapter.source), budget)
    facts = {
        "seconds": round(time.perf_counter() - started, 1),
        "finished": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    }
    _replace(kept, notebooks.write(notebook))
    _replace(facts_file, json.dumps(facts))
    _forget_old(kept.parent)
    say(f"{chapter.name:<28} executed in {facts['seconds']:.1f} s ({budget} budget)")
    return Executed(chapter, notebook, budget, **facts)


def _kept(chapter: Chapter, budget: str, cache: Path) -> Path:
    """Where the chapter's executed notebook is kept, by all that it depends on."""
    from autograder import notebooks

    key = _hash(
        [notebooks.write(notebooks.read_source(chapter.source)), budget],
        _code(chapter.root, chapter.name) + chapter.assets,
        chapter.root,
    )
    return cache / chapter.name / f"{key}.ipynb"


def execute_all(
    chapters: list[Chapter], budget: str, cache: Path, say: Callable[[str], None]
) -> list[Executed]:
    """Every chapter as ``execute`` gives it; those that must run do so side by side.

    Each runs in one thread (see ``_run``), so a machine does as many at once as it has cores.
    """
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    missing = [
        chapter
        for chapter in chapters
        if not _kept(chapter, budget, cache).with_suffix(".json").is_file()
    ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ran: dict[str, Executed] = {}
    if len(missing) > 1 and (cores or 1) > 1:
        # Processes of their own: a notebook's client does not share one with another.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(cores, len(missing)), mp_context=context) as pool:
            jobs = [pool.submit(execute, each, budget, cache, _say) for each in missing]
            try:
                for job in as_completed(jobs):
                    ran[job.result().chapter.name] = job.result()
            except BrokenProcessPool:
                raise BuildError(
                    "A process that executed a notebook was ended from outside, perhaps for lack "
                    "of memory. What was executed is kept: close other programs, and build again."
                ) from None
            except BaseException:
                # What has begun comes to its end, and is kept.
                pool.shutdown(cancel_futures=True)
                raise
    return [ran.get(each.name) or execute(each, budget, cache, say) for each in chapters]


def _say(line: str) -> None:
    print(line, flush=True)


def _run(chapter: Chapter, source: NotebookNode, budget: str) -> NotebookNode:
    # Building matplotlib's font list takes seconds the first time, and says so on stderr.
    import matplotlib.font_manager  # noqa: F401
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from tqdm import tqdm

    environment = os.environ | {
        "WORKBOOK_BUDGET": budget,
        "WORKBOOK_STATIC": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        # One thread: the outputs are then those of any machine, however many cores it has, and
        # another process that wants a core does no harm. Two threads that spin while they wait
        # made a small model train five times slower beside one; two that sleep, a third slower
        # than one thread alone (measured on two cores).
        "OMP_NUM_THREADS": "1",
    }
    for name in ("WORKBOOK_GRADING", "WORKBOOK_HOME", "PYTHONWARNINGS"):
        environment.pop(name, None)

    class Kernel(AsyncKernelManager):
        """This very Python, whatever kernels the user has installed under the same name."""

        def _kernel_spec_manager_default(self) -> KernelSpecManager:
            return KernelSpecManager(parent=self, kernel_dirs=[])

    with tempfile.TemporaryDirectory(prefix="book-") as place:
        folder = Path(place).resolve() / "chapters" / chapter.name
        for asset in chapter.assets:
            copy = folder / asset.relative_to(chapter.source.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(asset, copy)
        folder.mkdir(parents=True, exist_ok=True)
        bar = tqdm(
            total=len(source.cells),
            desc=chapter.name,
            unit="cell",
            leave=False,
            disable=not sys.stderr.isatty(),
        )
        client = NotebookClient(
            source,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            kernel_manager_class=Kernel,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            # The kernel warns of its unencrypted local port on this program's own stderr.
            extra_arguments=["--log-level=ERROR"],
            on_cell_complete=lambda **_: bar.update(),
        )
        try:
            with bar:
                client.execute(env=environment)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            raise BuildError(_failure(chapter, source, error)) from None
        problems = _problems(chapter, source, (place, str(chapter.root), str(Path.home())))
    if problems:
        raise BuildError("\n".join(problems))
    return source


def _failure(chapter: Chapter, notebook: NotebookNode, error: Exception) -> str:
    from autograder import notebooks

    for position, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                trace = _without_color("\n".join(output.traceback))
                return f"{notebooks.place(chapter.source, position, cell)} raised:\n{trace}"
    done = [
        (position, cell)
        for position, cell in enumerate(notebook.cells, start=1)
        if cell.cell_type == "code" and cell.execution_count
    ]
    where = notebooks.place(chapter.source, *done[-1]) if done else str(chapter.source)
    return f"At or after {where}: {_without_color(str(error))}"


def _without_color(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _problems(chapter: Chapter, notebook: NotebookNode, places: Iterable[str]) -> list[str]:
    """What must not be published although every cell ran to its end."""
    from autograder import notebooks

    found = []
    for position, cell in enumerate(notebook.cells, start=1):
        here = notebooks.place(chapter.source, position, cell)
        points = None
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                text = output.text
                if output.name == "stderr":
                    found.append(f"{here} wrote to stderr; mend its cause:\n{text.strip()}")
            else:
                text = "".join(str(value) for value in output.data.values())
                if "application/vnd.jupyter.widget-view+json" in output.data:
                    found.append(
                        f"{here} shows a widget, which a page without a kernel cannot. "
                        "Show a figure where WORKBOOK_STATIC is set."
                    )
            if output.output_type == "execute_result":
                points = output.data.get("text/plain")
            for path in places:
                # With a separator behind it, since a short path alone could be part of a word.
                if len(path) > 1 and path + os.sep in text:
                    found.append(f"{here} shows a path of this machine, {path}. Show it relative.")
        # A cell of assertions gives no points of its own; one that fails has raised already.
        checks = notebooks.is_check(cell) and notebooks.exercise_of(cell)
        if checks and _number(points) != float(notebooks.mark(cell)["points"]):
            found.append(
                f"{here}: the course's own solution gets {points} of "
                f"{notebooks.mark(cell)['points']} points."
            )
    return found


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _forget_old(folder: Path) -> None:
    kept = sorted(folder.glob("*.ipynb"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept[KEPT:]:
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)


# --- staging --------------------------------------------------------------------------------


def stage(root: Path, executed: list[Executed], edition: str, target: Path) -> None:
    """Writes what Jupyter Book reads, at the repository's own relative paths.

    Files that would not change are left alone, so that Jupyter Book rebuilds only what changed.
    """
    from autograder import notebooks

    config = notebooks.settings(root)
    try:
        recorded = records.read(root)
    except records.StaleRecord as error:
        raise BuildError(str(error)) from None
    wanted: dict[str, bytes] = {"_config.yml": (root / "_config.yml").read_bytes()}
    for path in sorted((root / "book").rglob("*")):
        # The scripts beside this one make the book; what is below _ext and _static is part of it.
        script = path.parent == root / "book" and path.suffix in (".py", ".json")
        script = script or path.parent in (root / "book" / "paper", root / records.FOLDER)
        if path.is_file() and not script and "__pycache__" not in path.parts:
            wanted[path.relative_to(root).as_posix()] = path.read_bytes()
    try:
        packaged = assets()
    except NoAssets as error:
        raise BuildError(str(error)) from None
    for name, content in packaged.items():
        wanted[f"book/_static/{name}"] = content
    for path in sorted((root / "workbook" / "elements").glob("*.js")):
        wanted[f"book/_static/elements/{path.name}"] = path.read_bytes()
    for item in executed:
        chapter = item.chapter
        name = chapter.released.relative_to(root)
        page = _page(item, edition, config)
        records.into(page, recorded.get(chapter.name, ()))
        wanted[name.as_posix()] = notebooks.write(page).encode()
        for asset in chapter.assets:
            copy = name.parent / asset.relative_to(chapter.source.parent)
            wanted[copy.as_posix()] = asset.read_bytes()
    # What learners work in, for the page's button to download.
    for item in executed:
        name = item.chapter.released.relative_to(root).as_posix()
        if item.chapter.released.is_file():
            wanted[f"book/_extra/{name}"] = item.chapter.released.read_bytes()
    if "book/how-to-use.md" in wanted:
        titles = [
            (item.chapter.name, notebooks.title_of(item.notebook) or item.chapter.name)
            for item in executed
        ]
        repository = launch.Repository.of(root / "_config.yml")
        text = wanted["book/how-to-use.md"].decode()
        wanted["book/how-to-use.md"] = launch.with_hub(text, repository, titles).encode()
    index = wanted["book/index.md"].decode()
    wanted |= {
        "book/index.md": generated.filled(index, root).encode(),
        "book/execution.md": generated.status(executed).encode(),
        "book/exercises.md": generated.exercise_map(root).encode(),
        "book/results.md": records.results(executed, recorded).encode(),
    }
    if b"book/scale" in wanted.get("book/_toc.yml", b""):
        wanted["book/scale.md"] = scale.page(root).encode()
    _mirror(wanted, target)


def _page(item: Executed, edition: str, config: Any) -> NotebookNode:
    """The executed notebook as readers of that edition see it."""
    import nbformat

    from autograder import notebooks
    from workbook.results import MIME

    page = notebooks.clear(item.notebook, config)
    cells = []
    for full, cell in zip(item.notebook.cells, page.cells, strict=True):
        if notebooks.is_check(cell):
            # The points are in the verdict already; the bare number is for nbgrader.
            cell.outputs = [out for out in cell.outputs if out.output_type != "execute_result"]
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(MIME, None)  # for the page of results; Sphinx knows it not
        cells.append(cell)
        if edition == "instructor" and full.source != cell.source:
            solution = nbformat.v4.new_markdown_cell(_dropdown(full))
            solution.id = f"{cell.id[:54]}-shown"
            cells.append(solution)
    page.cells = cells
    return page


def _dropdown(cell: NotebookNode) -> str:
    from autograder import notebooks

    title = {True: "Model answer and mark scheme", False: "Solution"}[cell.cell_type != "code"]
    if notebooks.is_check(cell):
        title = "The whole cell, with its hidden tests"
    if cell.cell_type == "code":
        body = f"```python\n{notebooks.without_markers(cell.source)}\n```"
    else:
        marker = re.compile(r".*\b(BEGIN|END) (SOLUTION|MARK SCHEME)\b.*")
        body = "\n".join(line for line in cell.source.splitlines() if not marker.fullmatch(line))
    fence = "`" * (max([2, *(len(run) for run in re.findall(r"`{3,}", body))]) + 1)
    return f"{fence}{{dropdown}} {title}\n{body}\n{fence}"


# --- Jupyter Book ---------------------------------------------------------------------------


def jupyter_book(
    staged: Path, work: Path, log: Path, say: Callable[[str], None], builder: str = "html"
) -> Path:
    """Has Jupyter Book make the staged book's pages, or check its links; returns their folder.

    ``work`` is the builder's own: two of them must not share what Sphinx keeps.

    Raises:
        BuildError: Jupyter Book warned of something or failed.
    """
    # Sphinx leaves the pages of documents that are gone, and would keep their search entries. Of a
    # change in what all pages have, it takes no notice while each page's own text is the same.
    names = sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*"))
    frame = [path for name in FRAME for path in (staged / "book" / name).rglob("*")]
    own = Path(launch.__file__).read_text(encoding="utf-8")
    names.append(_hash([own], [path for path in frame if path.is_file()], staged))
    listing = work / "names.txt"
    if not listing.is_file() or listing.read_text(encoding="utf-8") != "\n".join(names):
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    listing.write_text("\n".join(names), encoding="utf-8")

    command = [
        sys.executable,
        "-c",
        "from jupyter_book.cli.main import main; main()",
        *("build", str(staged), "--path-output", str(work)),
        *("--toc", str(staged / "book" / "_toc.yml")),
        *("--builder", builder, "-W", "-n", "--keep-going"),
    ]
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        # Formulas are set by node: the program itself, since the command of the same name beside
        # this Python only starts it, and would leave it running at the end.
        "PATH": os.pathsep.join([str(NODE), os.environ["PATH"]]),
        "BOOK_PACKAGES": str(PACKAGES),
        # The extension shares what is in book/ with this file.
        "PYTHONPATH": str(ROOT),
    }
    if _followed(command, staged, environment, log, say) != 0:
        lines = _without_color(log.read_text(encoding="utf-8")).splitlines()
        telling = [line for line in lines if re.search(r"\b(WARNING|ERROR|Error|broken)\b", line)]
        raise BuildError(
            "Jupyter Book does not accept the book:\n"
            + "\n".join(line.replace(f"{staged}/", "") for line in (telling or lines)[-20:])
            + f"\nThe whole log: {log}"
        )
    # Whatever the builder, Jupyter Book has it write there.
    pages = work / "_build" / "html"
    if wrong := _wrong_formulas(pages):
        raise BuildError("Formulas that KaTeX does not know:\n" + "\n".join(wrong))
    return pages


def _followed(
    command: list[str], folder: Path, environment: dict[str, str], log: Path, say: Callable
) -> int:
    """Runs Jupyter Book, says how far it is, and returns its exit status.

    It is told from the log, not from a pipe: a pipe ends when all that hold it have ended, and a
    process that Sphinx left behind, such as a node that was slow to start, would hold it for ever.
    """
    steps = ("reading sources", "writing output", "dumping search index")
    with (
        log.open("w", encoding="utf-8") as out,
        log.open(encoding="utf-8", errors="replace") as told,
    ):
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            ended = False
            while not ended:
                try:
                    process.wait(0.2)
                    ended = True
                except subprocess.TimeoutExpired:
                    pass
                for line in told:
                    done = next((i for i, step in enumerate(steps) if step in line), None)
                    if done is not None:
                        say(f"{'Jupyter Book':<28} {steps[done]}")
                        steps = steps[done + 1 :]
        finally:
            # Whatever is left of it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode


def _wrong_formulas(pages: Path) -> list[str]:
    """KaTeX shows what it cannot read in red, and says why in a title."""
    return [
        f"{path.relative_to(pages)}: {html.unescape(why)}"
        for path in sorted(pages.rglob("*.html"))
        for why in re.findall(
            r'class="katex-error" title="([^"]*)"', path.read_text(encoding="utf-8")
        )
    ]


# --- files ----------------------------------------------------------------------------------


def _replace(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(text if isinstance(text, bytes) else text.encode())
    temporary.replace(path)


def _mirror(wanted: dict[str, bytes], target: Path) -> None:
    """Makes ``target`` hold these files and no other, touching only what differs."""
    for name, content in wanted.items():
        path = target / name
        if not path.is_file() or path.read_bytes() != content:
            _replace(path, content)
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(target).as_posix() not in wanted:
            path.unlink()


def _publish(pages: Path, target: Path) -> int:
    """Brings ``target`` up to ``pages``; returns how many files there are."""
    wanted = [path.relative_to(pages) for path in pages.rglob("*") if path.is_file()]
    for name in wanted:
        source, copy = pages / name, target / name
        if not copy.is_file() or not filecmp.cmp(source, copy, shallow=False):
            _replace(copy, source.read_bytes())
    for path in sorted(target.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(target) not in set(wanted):
            path.unlink()
    return len(wanted)


# --- all of it ------------------------------------------------------------------------------


def pages_of(edition: str, output: Path) -> Path:
    """Where the edition's finished pages are."""
    return output / ("html" if edition == "public" else f"html-{edition}")


def is_current(root: Path, edition: str, budget: str, output: Path) -> bool:
    """Whether the finished pages are what the files of ``root`` give."""
    pages = pages_of(edition, output)
    try:
        state = json.loads((output / f"book-{edition}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        state["key"] == _hash([edition, budget], _inputs(root), root)
        and (pages / "index.html").is_file()
        and state["files"] == sum(path.is_file() for path in pages.rglob("*"))
    )


def build(
    root: Path | str = ROOT,
    edition: str = "public",
    budget: str = "cpu",
    output: Path | str | None = None,
    say: Callable[[str], None] = print,
    execute_only: bool = False,
    check_links: bool = False,
) -> Path:
    """Builds an edition of the book and returns the folder of its pages.

    Args:
        root: the repository.
        edition: ``public``, without any solution, or ``instructor``, with each in a dropdown.
        budget: how much the notebooks compute; see ``workbook.budget``.
        output: where the result and what leads to it are kept; ``_build`` where None. Executed
            notebooks are always kept in ``_build/executed``.
        say: takes a line of progress.
        execute_only: fill the cache of executed notebooks and build no page.
        check_links: ask every other site that the book names for its page, and build no page.

    Raises:
        BuildError: a notebook failed, Jupyter Book warned, or a link leads nowhere; published
            pages stay as they were.
        SourceError: a source is malformed.
    """
    root = Path(root).resolve()
    output = Path(output).resolve() if output else root / "_build"
    pages = pages_of(edition, output)
    if not (execute_only or check_links) and is_current(root, edition, budget, output):
        say(f"{'book':<28} unchanged")
        return pages

    from autograder import notebooks

    # Taken first: a file that changes during the build makes the result stale, not current.
    key = _hash([edition, budget], _inputs(root), root)
    executed = execute_all(notebooks.chapters(root), budget, root / "_build" / "executed", say)
    if execute_only:
        return root / "_build" / "executed"
    staged = output / f"stage-{edition}"
    stage(root, executed, edition, staged)
    if check_links:
        work, log = output / f"jupyter-book-links-{edition}", output / f"links-{edition}.log"
        # Whatever was found last time: a link that worked then may be gone.
        shutil.rmtree(work, ignore_errors=True)
        return jupyter_book(staged, work, log, say, "linkcheck") / "output.txt"
    built = jupyter_book(
        staged, output / f"jupyter-book-{edition}", output / f"book-{edition}.log", say
    )
    files = _publish(built, pages)
    _replace(output / f"book-{edition}.json", json.dumps({"key": key, "files": files}))
    return pages


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="book/build.py", description="Builds the book.")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    parser.add_argument("--output", type=Path, help="default: _build in the repository")
    parser.add_argument(
        "--edition", choices=EDITIONS, default=os.environ.get("EDITION") or "public"
    )
    parser.add_argument(
        "--budget", choices=BUDGETS, default=os.environ.get("WORKBOOK_BUDGET") or "cpu"
    )
    parser.add_argument("--execute-only", action="store_true", help="build no pages")
    parser.add_argument(
        "--check-links", action="store_true", help="ask for the pages of other sites, build none"
    )
    chosen = parser.parse_args(arguments)
    # argparse does not hold a default against its choices.
    if chosen.edition not in EDITIONS or chosen.budget not in BUDGETS:
        parser.error(
            f"EDITION is one of {', '.join(EDITIONS)}; WORKBOOK_BUDGET one of {', '.join(BUDGETS)}"
        )
    try:
        pages = build(
            chosen.root,
            chosen.edition,
            chosen.budget,
            chosen.output,
            _say,
            chosen.execute_only,
            chosen.check_links,
        )
    except Exception as error:
        from autograder.notebooks import SourceError

        if not isinstance(error, BuildError | SourceError):
            raise
        print(f"book: {error}", file=sys.stderr)
        return 1
    print(pages if chosen.execute_only or chosen.check_links else pages / "index.html")
    return 0


if __name__ == "__main__":
    # By the name under which the processes that execute notebooks, and their errors, know it.
    from book.build import main as run

    sys.exit(run())
