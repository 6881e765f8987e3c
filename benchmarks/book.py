"""How fast the book is built and read, beside Jupyter Book's defaults.

``python benchmarks/book.py [--rounds N] [--visits N] [--json results.json]`` builds the same pages
twice, with this book's configuration and with a plain one, and measures on both sides

- building: cold; again, with nothing changed; and after an edit of one chapter;
- weight: what a page makes the browser load, by kind, as a static host sends it (compressed, but
  for fonts and pictures); how many requests it makes, and how many of other hosts;
- loading: the first contentful paint and the end of loading, in a browser that was never there.

A build begins with executed notebooks, from ``_build/executed`` where they are current: how long
the notebooks take is on the book's page of execution. Requests of other hosts are counted and
refused at once, so what they would weigh and take is missing from the other side, in its favor.

The sides take turns, and a ratio compares what ran in the same round: the seconds are this
machine's. ``--quick`` does one round, to see that all of this works.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# Processes that execute notebooks read this file anew, from another place.
sys.path.insert(0, str(HERE))
from _turns import spread  # noqa: E402

# "book" is the package beside this folder, not this file.
sys.path[:] = [str(ROOT), *(path for path in sys.path if Path(path).resolve() != HERE)]

from autograder import notebooks  # noqa: E402
from book import browser as browsers  # noqa: E402
from book import build as book  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser

OURS, PLAIN = "this book", "Jupyter Book's defaults"
ROUNDS, VISITS = 3, 3
STEPS = ("cold", "nothing changed", "one chapter edited")
KINDS = {
    "HTML": (".html",),
    "CSS": (".css",),
    "JavaScript": (".js",),
    "fonts": (".woff2", ".woff", ".ttf", ".otf"),
    "pictures": (".svg", ".png", ".jpg", ".jpeg", ".gif", ".ico", ".webp"),
}
# What it takes to show the same text: no more.
CONFIG = """\
title: The Transformer Workbook
only_build_toc_files: true
execute:
  execute_notebooks: "off"
bibtex_bibfiles:
  - book/references.bib
"""


@dataclass(frozen=True)
class Side:
    """A stage with its configuration, and how it is built."""

    name: str
    stage: Path
    work: Path
    build: Callable[[Path, Path], Path]

    @property
    def pages(self) -> Path:
        """Where its pages are."""
        return self.work / "_build" / "html"


# --- building -------------------------------------------------------------------------------


def ours(stage: Path, work: Path) -> Path:
    """Builds as ``make`` does."""
    return book.jupyter_book(stage, work, work.with_suffix(".log"), lambda line: None)


def plain(stage: Path, work: Path) -> Path:
    """Builds as Jupyter Book's own command does."""
    command = [
        *(sys.executable, "-c", "from jupyter_book.cli.main import main; main()"),
        *("build", str(stage), "--path-output", str(work)),
        *("--toc", str(stage / "book" / "_toc.yml")),
    ]
    with work.with_suffix(".log").open("w", encoding="utf-8") as log:
        done = subprocess.run(command, cwd=stage, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(f"Jupyter Book failed; its log: {work.with_suffix('.log')}")
    return work / "_build" / "html"


def sides(root: Path, budget: str, folder: Path) -> list[Side]:
    """Both stages: the same files, but for the configuration."""
    chapters = notebooks.chapters(root)
    executed = book.execute_all(chapters, budget, root / "_build" / "executed", print)
    stages = {OURS: folder / "ours", PLAIN: folder / "plain"}
    for stage in stages.values():
        book.stage(root, executed, "public", stage)
    (stages[PLAIN] / "_config.yml").write_text(CONFIG, encoding="utf-8")
    return [
        Side(OURS, stages[OURS], folder / "ours-built", ours),
        Side(PLAIN, stages[PLAIN], folder / "plain-built", plain),
    ]


def building(both: Sequence[Side], rounds: int) -> dict[str, Any]:
    """Seconds of each step, by the clock and of CPU time, and the ratios of each round."""
    runs = {step: {side.name: [] for side in both} for step in STEPS}
    for turn in range(rounds):
        for side in both:
            shutil.rmtree(side.work, ignore_errors=True)
            side.work.parent.mkdir(exist_ok=True)
            for step in STEPS:
                if step == STEPS[-1]:
                    edit(side.stage, turn)
                seconds = timed(lambda side=side: side.build(side.stage, side.work))
                runs[step][side.name].append(seconds)
    found = {}
    print("seconds of a build, by the clock and of CPU time")
    for step, by_side in runs.items():
        found[step] = {}
        for place, clock in enumerate(("by the clock", "of CPU time")):
            seconds = {name: [run[place] for run in done] for name, done in by_side.items()}
            found[step][clock] = compared(f"{step}, {clock}", seconds, ".1f")
    return found


def edit(stage: Path, turn: int) -> None:
    """One more sentence in the last chapter."""
    path = sorted(stage.glob("chapters/*/*.ipynb"))[-1]
    content = json.loads(path.read_text(encoding="utf-8"))
    cell = next(cell for cell in content["cells"] if cell["cell_type"] == "markdown")
    cell["source"] = f"{''.join(cell['source'])}\n\nEdited {turn + 1} times.\n"
    path.write_text(json.dumps(content), encoding="utf-8")


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock, and of CPU time of this process and those that it waited for."""

    def used() -> float:
        who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, who))

    wall, cpu = time.perf_counter(), used()
    work()
    return time.perf_counter() - wall, used() - cpu


def compared(what: str, values: dict[str, list[float]], form: str) -> dict[str, Any]:
    """Median, least and most of each side, and their ratio, ours over theirs; printed as well."""

    def text(found: dict[str, float], form: str) -> str:
        median, least, most = (format(found[key], form) for key in ("median", "least", "most"))
        return f"{median} ({least}–{most})"

    found = {name: spread(some) for name, some in values.items()}
    pairs = zip(values[OURS], values[PLAIN], strict=True)
    ratio = spread([a / b for a, b in pairs if b]) if any(values[PLAIN]) else None
    parts = [f"{name}: {text(found[name], form)}" for name in (OURS, PLAIN)]
    parts.append(f"ratio {text(ratio, '.2f')}" if ratio else "no ratio")
    print(f"  {what:40} {'; '.join(parts)}", flush=True)
    return found | {"ratio": ratio}


# --- reading --------------------------------------------------------------------------------


def visit(browser: Browser, url: str, name: str) -> dict[str, Any]:
    """One visit of a reader who was never here: the requests, and milliseconds."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(120_000)
    context.route(lambda at: not at.startswith(url), lambda route: route.abort())
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(f"{url}/{name}", wait_until="load")
        page.wait_for_function("""() =>
            performance.getEntriesByName("first-contentful-paint").length > 0 &&
            performance.getEntriesByType("navigation")[0].loadEventEnd > 0
        """)
        # Timed by the browser, so that this program's own pace does not matter.
        times = page.evaluate("""() => [
            performance.getEntriesByName("first-contentful-paint")[0].startTime,
            performance.getEntriesByType("navigation")[0].loadEventEnd,
        ]""")
        # What loads late is loaded when the reader comes near it.
        page.evaluate("""async () => {
            for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight) {
                scrollTo(0, y);
                await new Promise(requestAnimationFrame);
            }
        }""")
        page.wait_for_load_state("networkidle")
    finally:
        context.close()
    asked = [at for at in dict.fromkeys(asked) if not at.startswith(("data:", "blob:"))]
    own = [at.removeprefix(f"{url}/") for at in asked if at.startswith(f"{url}/")]
    foreign = [at for at in asked if not at.startswith(f"{url}/")]
    return {"own": own, "foreign": foreign, "paint": times[0], "load": times[1]}


def reading(both: Sequence[Side], visits: int) -> dict[str, Any]:
    """What each page weighs and how fast it is there, on both sides."""
    names = sorted(
        path.relative_to(both[0].pages).as_posix()
        for path in both[0].pages.rglob("*.html")
        if "_static" not in path.parts
        and path.parent != both[0].pages
        and (both[1].pages / path.relative_to(both[0].pages)).is_file()
    )
    found: dict[str, Any] = {}
    with (
        browsers.opened() as browser,
        browsers.served(both[0].pages) as first,
        browsers.served(both[1].pages) as second,
    ):
        print(f"reading, Chromium {browser.version}")
        for name in names:
            seen: dict[str, list[dict[str, Any]]] = {side.name: [] for side in both}
            for _ in range(visits):
                for side, url in zip(both, (first, second), strict=True):
                    seen[side.name].append(visit(browser, url, name))
            found[name] = page_of(name, both, seen)
    whole(found)
    return found


def page_of(
    name: str, both: Sequence[Side], seen: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """The figures of one page."""
    print(name)
    found: dict[str, Any] = {"bytes": {}, "requests": {}, "foreign": {}, "milliseconds": {}}
    for side in both:
        last = seen[side.name][-1]
        kinds = by_kind(side.pages, last["own"])
        found["bytes"][side.name] = kinds
        found["requests"][side.name] = len(last["own"]) + len(last["foreign"])
        found["foreign"][side.name] = sorted(last["foreign"])
        parts = ", ".join(f"{kind} {size / 1000:,.0f}" for kind, size in kinds.items())
        print(
            f"  {side.name}: {sum(kinds.values()) / 1000:,.0f} kB ({parts}), "
            f"{found['requests'][side.name]} requests, {len(last['foreign'])} of other hosts"
        )
    for key, what in (("paint", "first contentful paint"), ("load", "loaded")):
        times = {side: [one[key] for one in visits] for side, visits in seen.items()}
        found["milliseconds"][what] = compared(f"{what}, ms", times, ".0f")
    return found


def by_kind(pages: Path, requests: Sequence[str]) -> dict[str, int]:
    """Bytes that a static host sends for these requests, by kind."""
    kinds: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
    for name in {unquote(urlsplit(at).path) for at in requests}:
        suffix = Path(name).suffix
        kind = next((kind for kind, endings in KINDS.items() if suffix in endings), "other")
        kinds[kind] += browsers.weight(pages / name)
    return dict(kinds)


def whole(found: dict[str, Any]) -> None:
    """Adds all pages together, as if each were the only one that a reader opens."""
    totals: dict[str, Counter[str]] = {OURS: Counter(), PLAIN: Counter()}
    for page in found.values():
        for side, kinds in page["bytes"].items():
            totals[side].update(kinds)
    print("all pages")
    for kind in KINDS:
        a, b = totals[OURS][kind], totals[PLAIN][kind]
        ratio = f"ratio {a / b:.2f}" if b else "no ratio"
        print(f"  {kind:40} {OURS}: {a / 1000:,.0f} kB; {PLAIN}: {b / 1000:,.0f} kB; {ratio}")
    found["all pages"] = {"bytes": totals}


# --- all of it ------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    versions = {
        name: importlib.metadata.version(name)
        for name in ("jupyter-book", "sphinx", "sphinx-book-theme")
    }
    return {"cores": os.cpu_count(), "python": platform.python_version(), **versions}


def summary(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows for the table of all results."""
    peer = f"Jupyter Book {found['machine']['jupyter-book']}, its defaults"
    rows = [
        {
            "what": f"building the book, {step}: CPU time",
            "peer": peer,
            "ratio": clocks["of CPU time"]["ratio"],
            "spread": "of the rounds",
        }
        for step, clocks in found["building"].items()
    ]
    pages = {name: page for name, page in found.get("reading", {}).items() if "requests" in page}
    for kind, prefix in (("a chapter", "chapters/"), ("another page", "book/")):
        some = [page for name, page in pages.items() if name.startswith(prefix)]
        if not some:
            continue
        kilobytes = [
            sum(page["bytes"][OURS].values()) / sum(page["bytes"][PLAIN].values()) for page in some
        ]
        shared = {"peer": peer, "spread": "of the pages"}
        rows.append({"what": f"bytes of {kind}", "ratio": spread(kilobytes), **shared})
        for when in ("first contentful paint", "loaded"):
            ratios = [page["milliseconds"][when]["ratio"]["median"] for page in some]
            rows.append({"what": f"{when} of {kind}", "ratio": spread(ratios), **shared})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help=f"builds of each kind and side ({ROUNDS})")
    parser.add_argument("--visits", type=int, help=f"visits of each page and side ({VISITS})")
    parser.add_argument("--quick", action="store_true", help="one of each: does it all work?")
    parser.add_argument("--budget", choices=book.BUDGETS, default="cpu", help="of the notebooks")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    asked = parser.parse_args(arguments)
    found: dict[str, Any] = {"machine": machine()}
    print(", ".join(f"{name}: {value}" for name, value in found["machine"].items()))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        both = sides(asked.root.resolve(), asked.budget, Path(folder))
        found["building"] = building(both, asked.rounds or (1 if asked.quick else ROUNDS))
        try:
            found["reading"] = reading(both, asked.visits or (1 if asked.quick else VISITS))
        except browsers.NoBrowser as reason:
            print(f"Reading is left out. {reason}")
    found["summary"] = summary(found)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
