"""The guides: every command on their pages is run here, in the page's order, as a reader would.

A scratch repository with one chapter stands for the public one, and a folder without pip for what
`make` sets up. Each line of a block goes to bash as it stands, unless INSTEAD says otherwise.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import textwrap
import time
import urllib.request
import venv
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pytest
import tiny
from grading_fixtures import SOFTMAX
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.deflist import deflist_plugin
from nbgrader.api import Gradebook
from traitlets.config import Config

from autograder.marking import Limits
from autograder.notebooks import settings

ROOT = tiny.ROOT
TEACH, LEARN, README = "book/for-instructors.md", "book/how-to-use.md", "README.md"
PAGES = (TEACH, LEARN, README)
ADDRESS = "https://github.com/transformer-workbook/transformer-workbook"
NAME = "01_attention"
FILE = f"{NAME}/{NAME}.ipynb"

# Of the sample class, so that grading it takes seconds: one right, one untouched, one mistaken.
SAMPLE = ("ada", "ben", "chloe")
# Who hands in by Moodle, and when.
MOODLE = {501: "Dana Evans", 502: "Emil Fox"}
HANDED_IN = (2026, 10, 1, 18, 30, 0)

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "git", "make"))), reason="needs bash, git and make"
)


# ---- what does not run as it stands ----------------------------------------------------------


@dataclass(frozen=True)
class Runs:
    """What stands for a command: lines for bash, and functions of the terminal."""

    why: str
    steps: Sequence[str | Callable[[Terminal], None]]


INSTEAD: dict[str, Runs] = {
    "make": Runs(
        "The set-up downloads 2 GB, and the book takes minutes: tests/test_book.py builds one.",
        [
            lambda terminal: terminal.set_up(),
            "make --dry-run",
            "python -m autograder.sample --to _build/sample/submitted",
            lambda terminal: terminal.keep_three(),
        ],
    ),
    "make book EDITION=instructor": Runs(
        "As above: the plan is made, and its last command takes these arguments.",
        [
            "make --dry-run book EDITION=instructor | grep 'build.py --edition instructor'",
            "python book/build.py --edition instructor --help",
        ],
    ),
    "make setup": Runs(
        "It downloads 2 GB.", ["make --dry-run VENV=new setup | grep requirements.lock"]
    ),
    "make test": Runs("This is it.", ["make --dry-run test | grep 'python -m pytest'"]),
    "make lab": Runs(
        "It runs until it is stopped; so it is, once it answers.",
        [
            lambda terminal: terminal.set_up(),
            lambda terminal: terminal.serve("make lab", "lab/tree/01_attention"),
        ],
    ),
    "jupyter lab": Runs(
        "As `make lab`. Formgrader answers, too.",
        [lambda terminal: terminal.serve("jupyter lab", "lab", "formgrader/manage_assignments")],
    ),
    "dask scheduler": Runs(
        "It runs until the page's end, on a free port.",
        [lambda terminal: terminal.start_scheduler()],
    ),
    "dask worker tcp://scheduler:8786": Runs(
        "The same, beside that scheduler.", [lambda terminal: terminal.start_worker()]
    ),
    "autograder grade submitted --to graded --cluster tcp://scheduler:8786": Runs(
        "With that scheduler's address, and one more submission to run.",
        [
            lambda terminal: terminal.hand_in("gil"),
            "autograder grade submitted --to graded --cluster $SCHEDULER",
        ],
    ),
    "apt install bubblewrap": Runs(
        "Needs root and a network. `autograder doctor` says the same.",
        ["grep --quiet --recursive 'apt install bubblewrap' autograder"],
    ),
    "apt install python3-venv": Runs(
        "Needs root and a network. `make` says the same.",
        ["grep --quiet 'apt install python3-venv' Makefile"],
    ),
    "apt install chromium": Runs(
        "Needs root and a network. What needs it says the same.",
        ["grep --quiet 'apt install chromium' book/browser.py"],
    ),
    "make help": Runs("Shown as it is.", ["make help"]),
    "autograder try attention/softmax my_softmax.py": Runs(
        "The reader has written that file.",
        [
            lambda terminal: terminal.write_softmax(),
            ".venv/bin/autograder try attention/softmax my_softmax.py",
        ],
    ),
    "export WORKBOOK_DATA=/folder/with/the/data": Runs(
        "There is no such folder here.", ['export WORKBOOK_DATA="$PWD"']
    ),
}

# Blocks that show something else than commands, by their first line, and what is done with them.
SHOWN: dict[str, Callable[[Terminal, str], None]] = {
    "submitted/": lambda terminal, text: terminal.has_layout(text),
    "2026-10-01 18:30:00 UTC": lambda terminal, text: terminal.stamp(text),
    "solutions/NN/NN.md ──release──> chapters/NN/NN.ipynb      what learners open": (
        lambda terminal, text: None
    ),
}

# Blocks of Python, by their first line.
PYTHON: dict[str, Callable[[Terminal, str], None]] = {
    "c.Limits.case = 5  # seconds of one case of a check": (
        lambda terminal, text: terminal.set_limits(text)
    ),
    "from nbgrader.plugins import BasePlugin": lambda terminal, text: terminal.penalize(text),
    "import os": lambda terminal, text: terminal.choose_budget(text),
}

# What a reader finds true after a command.
THEN: dict[str, Callable[[Terminal], None]] = {
    "autograder grade submitted --to graded": lambda terminal: terminal.check_results(),
    "autograder export graded --format canvas --roster canvas-gradebook.csv": (
        lambda terminal: terminal.check_canvas()
    ),
    "autograder report graded": lambda terminal: terminal.has("graded/report.html"),
    "nbgrader generate_feedback 01_attention --force": (
        lambda terminal: terminal.has("feedback/ada/01_attention/01_attention.html")
    ),
    "autograder record 01_attention --seed 20260901 --to private.safetensors": (
        lambda terminal: terminal.has("private.safetensors")
    ),
}

# In a sentence, `autograder report` is a command; `chapters/` is none.
PROGRAMS = ("autograder", ".venv/bin/autograder", "make", "nbgrader", "jupyter", "dask", "git")
PROGRAMS += ("pip", "python", "python3", "apt", "source", "cd")


# ---- what a page shows -----------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A command, or a block of something else, as a page shows it."""

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text.splitlines()[0]}"


@functools.cache
def parsed(text: str) -> tuple[Token, ...]:
    return tuple(MarkdownIt("commonmark").use(deflist_plugin).parse(text))


def blocks(page: str, text: str, first: int = 1) -> Iterator[Shown]:
    """The commands, one by one, and the other blocks of a page, in their order."""
    for token in parsed(text):
        if token.type != "fence":
            continue
        line, language = first + token.map[0], token.info.strip()
        if language.startswith("{"):
            # A directive: what is in it may be blocks again.
            yield from blocks(page, token.content, line + 1)
        elif language == "python":
            yield Shown(page, line + 1, "python", token.content)
        elif token.content.splitlines()[0].strip() in SHOWN:
            yield Shown(page, line + 1, "shown", token.content)
        else:
            for number, command in enumerate(token.content.splitlines(), line + 1):
                if command.strip():
                    yield Shown(page, number, "command", command.strip())


def plain(command: str) -> str:
    """A command without its comment, and without the path of the environment."""
    command = re.sub(r"\s+#.*", "", command).strip()
    return re.sub(r"^\.venv/bin/(?=autograder )", "", command)


def in_sentences(page: str) -> list[Shown]:
    """Commands in running text. One with … in it is a pattern, not a command."""
    found = []
    for token in parsed((ROOT / page).read_text(encoding="utf-8")):
        for child in token.children or ():
            words = child.content.split()
            if child.type == "code_inline" and words and words[0] in PROGRAMS:
                whole = words[0] in ("make", "apt") or len(words) > 1
                if whole and "…" not in child.content:
                    found.append(Shown(page, token.map[0] + 1, "command", " ".join(words)))
    return found


def of(page: str) -> list[Shown]:
    return list(blocks(page, (ROOT / page).read_text(encoding="utf-8")))


# ---- a terminal ------------------------------------------------------------------------------


@dataclass
class Terminal:
    """A shell that keeps folder and variables from line to line, and what it started."""

    folder: Path
    variables: dict[str, str]
    scratch: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    course: Path | None = None

    def type(self, shown: Shown) -> None:
        """Does with a line or block of a page what the tables say."""
        first = shown.text.splitlines()[0].strip()
        if shown.kind == "python":
            PYTHON[first](self, shown.text)
        elif shown.kind == "shown":
            SHOWN[first](self, shown.text)
        else:
            command = plain(shown.text)
            steps = INSTEAD[command].steps if command in INSTEAD else [shown.text]
            for step in steps:
                self.run(step, str(shown)) if isinstance(step, str) else step(self)
            THEN.get(command, lambda terminal: None)(self)
            self.done.add(command)

    def run(self, line: str, where: str = "") -> str:
        """Runs a line as bash does, and returns what it printed."""
        state = self.scratch / "state"
        script = f'{line}\ncode=$?\n{{ pwd; env -0; }} > "{state}"\nexit $code\n'
        ran = subprocess.run(
            ["bash", "-o", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        output = f"{ran.stdout}{ran.stderr}"
        assert ran.returncode == 0, f"{where or line}\nexit status {ran.returncode}\n{output}"
        folder, _, variables = state.read_text().partition("\n")
        self.folder = Path(folder)
        pairs = (pair.partition("=") for pair in variables.split("\0") if pair)
        self.variables = {name: value for name, _, value in pairs}
        return output

    def has(self, *paths: str) -> None:
        for path in paths:
            assert (self.folder / path).exists(), f"no {path} in {self.folder}"

    # -- what make would set up, and what is handed in

    def set_up(self) -> None:
        """Puts a Python with all libraries into the clone, and what an LMS gives."""
        self.course = self.folder
        environment(self.folder)
        self.variables["PATH"] = f"{self.folder}/.venv/bin:{self.variables['PATH']}"

    def keep_three(self) -> None:
        """Leaves three of the sample class, and lays down what an LMS would give."""
        submitted = self.folder / "_build/sample/submitted"
        for student in submitted.iterdir():
            if student.name not in SAMPLE:
                shutil.rmtree(student)
        right = (submitted / "ada" / FILE).read_bytes()
        for archive, people in (("submissions.zip", (501,)), ("moodle.zip", (502,))):
            with zipfile.ZipFile(self.folder / archive, "w") as file:
                for number in people:
                    name = f"{MOODLE[number]}_{number}_assignsubmission_file_/{NAME}.ipynb"
                    file.writestr(zipfile.ZipInfo(name, HANDED_IN), right)
        canvas = ["Student,ID,SIS User ID,SIS Login ID,Section", "Ada,1,,ada,", "Ben,2,,ben,"]
        (self.folder / "canvas-gradebook.csv").write_text("\n".join([*canvas, ""]))
        moodle = (
            "Identifier,Full name,Email address,Status,Grade,Maximum grade,"
            "Last modified (grade),Feedback comments"
        )
        rows = [f"Participant {n},{name},{n}@uni.edu,S,,16,-," for n, name in MOODLE.items()]
        (self.folder / "worksheet.csv").write_text("\n".join([moodle, *rows, ""]))

    def hand_in(self, student: str) -> None:
        """One more submission, so that there is something to run."""
        target = self.course / "submitted" / student / NAME
        shutil.copytree(self.course / "submitted" / "ada" / NAME, target)

    def write_softmax(self) -> None:
        """A right component, in a file of its own."""
        text = f"import torch\n\n\n{SOFTMAX}"
        (self.folder / "my_softmax.py").write_text(text, encoding="utf-8")

    # -- servers

    def start(self, *command: str) -> Path:
        """Starts a program of the environment; returns its log."""
        log = self.scratch / f"log-{len(self.started)}"
        with log.open("wb") as out:
            self.started.append(
                subprocess.Popen(
                    ["bash", "-c", "exec " + " ".join(command)],
                    cwd=self.folder,
                    env=self.variables,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            )
        return log

    def wait(self, log: Path, ready: Callable[[], bool], seconds: float = 300) -> None:
        process = self.started[-1]
        deadline = time.monotonic() + seconds
        while not ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)

    def stop(self) -> None:
        """Ends everything that was started, and what that has started in turn."""
        while self.started:
            process = self.started.pop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()

    def serve(self, command: str, *pages: str) -> None:
        """Runs a Jupyter server until it has shown its pages."""
        # The only settings: no browser, no password, a free port, and root as in containers.
        port = free_port()
        config = Path(self.variables["JUPYTER_CONFIG_DIR"])
        config.mkdir(exist_ok=True)
        server = {"open_browser": False, "port": port, "allow_root": True, "ip": "127.0.0.1"}
        (config / "jupyter_server_config.json").write_text(
            json.dumps({"ServerApp": server, "IdentityProvider": {"token": ""}})
        )
        log = self.start(command)
        for page in pages:
            self.wait(log, lambda page=page: answers(f"http://127.0.0.1:{port}/{page}"))
        self.stop()

    def start_scheduler(self) -> None:
        address = f"tcp://127.0.0.1:{free_port()}"
        host, port = address.removeprefix("tcp://").split(":")
        log = self.start(f"dask scheduler --host {host} --port {port} --no-dashboard")
        self.wait(log, lambda: "Scheduler at" in log.read_text())
        self.variables["SCHEDULER"] = address

    def start_worker(self) -> None:
        address = self.variables["SCHEDULER"]
        log = self.start(f"dask worker {address} --nworkers 1 --nthreads 1 --no-dashboard")
        self.wait(log, lambda: "Registered to" in log.read_text())

    # -- what a page promises

    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "graded/grades.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def check_results(self) -> None:
        """The files that the page lists are there, and the class has the grades it should."""
        text = (ROOT / TEACH).read_text(encoding="utf-8")
        table = text[text.index("| In `graded/`") :].partition("\n\n")[0]
        for name in re.findall(r"`([\w./]+)`", table)[1:]:
            self.has(f"graded/{name}")
        points = dict.fromkeys(SAMPLE, 0.0)
        for row in self.rows():
            points[row["student"]] = points.get(row["student"], 0) + float(row["points"])
        assert points["ada"] == 14
        assert points["ben"] == 0
        assert 0 < points["chloe"] < 14
        assert any("square root of d_k" in row["misconception"] for row in self.rows())

    def check_canvas(self) -> None:
        with (self.folder / "graded/canvas.csv").open(encoding="utf-8", newline="") as file:
            header, _, *rows = csv.reader(file)
        assert header[-1] == NAME
        assert {row[0]: float(row[-1]) for row in rows}["Ada"] == 14

    def has_layout(self, text: str) -> None:
        """The page's tree is what `collect` makes, up to the names of students."""
        for student in re.findall(rf"── (\w+)/{re.escape(FILE)}", text):
            assert (self.folder / "submitted" / student / FILE).is_file(), student

    def stamp(self, text: str) -> None:
        """Writes the file that the page shows, and sets a date that it is two days after."""
        path = self.folder / "submitted" / "ada" / NAME / "timestamp.txt"
        path.write_text(text, encoding="utf-8")
        with Gradebook(f"sqlite:///{self.folder / 'graded/gradebook.db'}") as book:
            book.update_or_create_assignment(NAME, duedate="2026-09-29 18:30:00 UTC")

    def configure(self, text: str) -> Config:
        """Puts a block behind what `nbgrader_config.py` has; returns the settings it gives."""
        with (self.folder / "nbgrader_config.py").open("a", encoding="utf-8") as file:
            file.write(f"\n{text}")
        return settings(self.folder)

    def set_limits(self, text: str) -> None:
        changed = text.replace("case = 5 ", "case = 4 ").replace("files = 256 ", "files = 255 ")
        assert Limits.of(self.configure(text)) == Limits()
        limits = Limits.of(self.configure(changed))
        assert (limits.case, limits.bounds.files) == (4, 255 << 20)
        assert Limits.of(self.configure(text)) == Limits()

    def penalize(self, text: str) -> None:
        """The plugin takes a tenth a day: two of ten days' worth."""
        self.configure(text)
        self.run("autograder grade submitted --to graded")
        with Gradebook(f"sqlite:///{self.folder / 'graded/gradebook.db'}") as book:
            late = book.find_submission_notebook(NAME, NAME, "ada")
            assert late.late_submission_penalty == pytest.approx(late.score / 10 * 2)
            assert late.score > 0
            assert not book.find_submission_notebook(NAME, NAME, "chloe").late_submission_penalty

    def choose_budget(self, text: str) -> None:
        script = f"{text}\nfrom workbook import budget\n\nprint(budget.name())\n"
        (self.scratch / "budget.py").write_text(textwrap.dedent(script))
        shown = self.run(f"PYTHONPATH=. .venv/bin/python {self.scratch}/budget.py")
        assert shown.strip() == "smoke"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answers(address: str) -> bool:
    with contextlib.suppress(OSError):
        urllib.request.urlopen(address, timeout=20).close()
        return True
    return False


# ---- the repository, and the environment in it -----------------------------------------------


def tree() -> list[Path]:
    """The repository's files: those that git knows or would take."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]
    left_out = {".venv", "_build", "__pycache__", "my_blocks"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not left_out & set(path.relative_to(ROOT).parts)
    ]


def published(folder: Path) -> Path:
    """A repository of the tree with its first chapter alone, to clone from."""
    later = re.compile(r"(solutions|chapters|autograder/(exercises|references))/\d\d_")
    for path in tree():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("tests/") or (later.match(name) and NAME not in name):
            continue
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "All of it"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


def environment(course: Path) -> None:
    """What `make setup` makes: `.venv` with the libraries of this Python, the course and commands.

    One of its own, in which `make` finds nothing to install and could change nothing.
    """
    place = course / ".venv"
    if place.exists():
        return
    venv.create(place, symlinks=True, with_pip=False)
    for folder in ("etc", "share"):
        (place / folder).symlink_to(Path(sys.prefix).resolve() / folder)
    scheme = {"base": str(place), "platbase": str(place)}
    libraries = Path(sysconfig.get_path("purelib", "venv", scheme))
    # As it is: where a submission runs, there are no links that lead to it.
    shared = os.path.realpath(sysconfig.get_path("purelib"))
    (libraries / "course.pth").write_text(f"{course}\n{shared}\n")
    for command in metadata.entry_points(group="console_scripts"):
        if command.name.split("-")[0] in ("autograder", "jupyter", "nbgrader", "dask"):
            script = place / "bin" / command.name
            # Dask's workers import it again.
            script.write_text(
                f"#!{place}/bin/python\nimport sys\nfrom {command.module} import {command.attr}\n"
                f"if __name__ == '__main__':\n    sys.exit({command.attr}())\n"
            )
            script.chmod(0o755)
    # Newer than what it depends on.
    (place / ".installed").touch()


@pytest.fixture(scope="module")
def open_terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Terminal]]:
    """Opens a terminal in an empty folder, with the public address leading to the scratch copy."""
    scratch = tmp_path_factory.mktemp("guides")
    origin = published(scratch / "origin")
    kept = {"HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "USER", "LD_LIBRARY_PATH"}
    variables = {name: value for name, value in os.environ.items() if name in kept}
    # This Python's own programs are not the reader's.
    own = {str(Path(sys.executable).parent), sysconfig.get_path("scripts")}
    variables["PATH"] = os.pathsep.join(
        place for place in variables["PATH"].split(os.pathsep) if place not in own
    )
    variables |= {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{origin}.insteadOf",
        "GIT_CONFIG_VALUE_0": ADDRESS,
        "PIP_NO_INDEX": "1",
        "OMP_NUM_THREADS": "1",
        "JUPYTER_CONFIG_DIR": str(scratch / "config"),
        "JUPYTER_DATA_DIR": str(scratch / "data"),
        "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"),
        "IPYTHONDIR": str(scratch / "ipython"),
    }
    opened = []

    def open_one() -> Terminal:
        place = scratch / f"terminal-{len(opened)}"
        (place / "home").mkdir(parents=True)
        opened.append(Terminal(place / "home", dict(variables), place))
        return opened[-1]

    yield open_one
    for terminal in opened:
        terminal.stop()


@pytest.fixture(scope="module")
def after_the_course(open_terminal: Callable[[], Terminal]) -> Terminal:
    """The terminal of somebody who typed everything on the instructors' page."""
    terminal = open_terminal()
    for shown in of(TEACH):
        started = time.monotonic()
        terminal.type(shown)
        print(f"{time.monotonic() - started:5.1f} s  {shown}")
    terminal.stop()
    return terminal


# ---- the tests -------------------------------------------------------------------------------


def test_every_command_for_instructors_runs(after_the_course: Terminal) -> None:
    assert {"autograder grade submitted --to graded"} <= after_the_course.done


def test_every_command_for_learners_runs(open_terminal: Callable[[], Terminal]) -> None:
    terminal = open_terminal()
    for shown in of(LEARN):
        terminal.type(shown)
    assert "make lab" in terminal.done


def test_every_command_of_the_readme_runs(after_the_course: Terminal) -> None:
    terminal = after_the_course
    terminal.folder = terminal.course
    for shown in of(README):
        # What the guide had and nothing has changed for needs no second run.
        if shown.kind != "command" or plain(shown.text) not in terminal.done:
            terminal.type(shown)
    assert (terminal.folder / "submitted" / "Emil_Fox_502" / FILE).is_file()


def test_commands_in_sentences_run_too(after_the_course: Terminal) -> None:
    run = {plain(shown.text) for page in PAGES for shown in of(page) if shown.kind == "command"}
    terminal, unknown = after_the_course, []
    terminal.folder = terminal.course
    for page in PAGES:
        for shown in in_sentences(page):
            command = plain(shown.text)
            # Often a block's line without its arguments.
            if any(f"{one} ".startswith(f"{command} ") for one in run | terminal.done):
                continue
            if command in INSTEAD:
                terminal.type(shown)
            else:
                unknown.append(str(shown))
    assert not unknown, "put these into a block, or into INSTEAD"


def test_the_tables_hold_nothing_that_no_page_shows() -> None:
    shown = [one for page in PAGES for one in of(page)]
    firsts = {one.text.splitlines()[0].strip() for one in shown if one.kind != "command"}
    assert set(SHOWN) | set(PYTHON) == firsts
    commands = {plain(one.text) for one in shown if one.kind == "command"}
    sentences = {plain(one.text) for page in PAGES for one in in_sentences(page)}
    assert set(INSTEAD) <= commands | sentences
    assert set(THEN) <= commands


def test_a_line_that_fails_or_is_unknown_is_told(
    open_terminal: Callable[[], Terminal],
) -> None:
    text = "# A page\n\nTerm\n: Text.\n\n  ```bash\n  cd no-such-folder\n  ```\n"
    [shown] = blocks("page.md", text)
    assert (shown.line, shown.text) == (7, "cd no-such-folder")
    with pytest.raises(AssertionError, match=r"page\.md:7: cd no-such-folder\n.*status 1"):
        open_terminal().type(shown)
    [unknown] = blocks("page.md", "```python\nprint(1)\n```\n")
    with pytest.raises(KeyError):
        open_terminal().type(unknown)
