"""The corpus, graded as one class: everyone gets what is due, and nothing else happens."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import re
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT, fresh_pack, solution
from nbformat import NotebookNode
from nbgrader.api import Gradebook as Database
from nbgrader.utils import determine_grade

import workbook
from autograder import exercise as exercises
from autograder import grading, isolation, notebooks, record, sandbox
from autograder.judge import judge
from autograder.marking import Limits
from autograder.pack import Pack
from autograder.runner import run
from autograder.tables import Row
from tests.submissions import (
    ASSIGNMENT,
    BYSTANDERS,
    COMPONENTS,
    CORPUS,
    FULL,
    MAXIMA,
    Course,
    Place,
    Submission,
    write,
)

pytestmark = pytest.mark.timeout(900)

LIMITS = Limits(case=2, cell=4, submission=10)
HOSTILE = tuple(submission for submission in CORPUS if submission.kind == "hostile")
EXACT = tuple(submission for submission in CORPUS if submission.rows is not None)
SECRETS = (
    "environment",
    "beside the pack",
    "home",
    "ssh key",
    "course",
    "temporary",
    "shm",
    "peer",
)
# What attackers call whatever they leave.
STRAY = "stray"


def unprotected() -> str:
    """Why hostile submissions cannot be run on this machine; empty where they can."""
    lacking = sandbox.missing(isolation.holding())
    return isolation.refusal(lacking) if lacking else ""


@dataclass
class Listener:
    """Sockets of the test, which nobody should connect to."""

    heard: list[str] = field(default_factory=list)
    port: int = 0

    def listen(self, path: str, abstract: str) -> None:
        """Opens them: TCP and UDP of one port, a path, and an abstract name."""
        tcp = socket.create_server(("127.0.0.1", 0))
        self.port = tcp.getsockname()[1]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", self.port))
        named, nameless = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        named.bind(path)
        nameless.bind("\0" + abstract)
        for line in (named, nameless):
            line.listen()
        for name, line in (("TCP", tcp), ("path", named), ("abstract", nameless)):
            threading.Thread(target=self._accept, args=(name, line), daemon=True).start()
        threading.Thread(target=self._receive, args=(udp,), daemon=True).start()

    def _accept(self, name: str, line: socket.socket) -> None:
        while True:
            other, _ = line.accept()
            self.heard.append(name)
            other.close()

    def _receive(self, line: socket.socket) -> None:
        while line.recv(100):
            self.heard.append("UDP")


@dataclass
class Class:
    """The corpus, graded, and what was to be seen before and after.

    Attributes:
        place: what the attackers know.
        students: name of a submission -> its folder.
        hidden: what each secret is, by where it lies; the pack's seed too.
        before, after: state of every file that must not change.
        processes: what runs that did not run before.
        left: what is left in the folder for temporary files.
    """

    place: Place
    pack: Pack
    students: Mapping[str, str]
    hidden: Mapping[str, str]
    grades: grading.Grades
    listener: Listener
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    processes: list[str]
    left: list[str]
    ended: float

    def rows(self, name: str) -> list[Row]:
        """The rows of a submission."""
        return [row for row in self.grades.rows if row.student == self.students[name]]

    def notes(self, name: str) -> str:
        """What an instructor is told about a submission."""
        mine = f"{self.students[name]}, "
        return " ".join(note for note in self.grades.notes if note.startswith(mine))

    def notebook(self, name: str) -> NotebookNode:
        """The notebook as it was recorded."""
        path = self.grades.folder / "autograded" / self.students[name] / ASSIGNMENT
        return nbformat.read(path / f"{ASSIGNMENT}.ipynb", as_version=4)

    def outputs(self, name: str) -> list[NotebookNode]:
        """All outputs of a recorded notebook."""
        return [out for cell in self.notebook(name).cells for out in cell.get("outputs", [])]

    def shown(self, name: str) -> str:
        """The text of these outputs."""
        return "\n".join(map(_text_of, self.outputs(name)))


def _text_of(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return output.text
    if output.output_type == "error":
        return "\n".join([output.evalue, *output.traceback])
    return "\n".join(str(value) for mime, value in output.data.items() if "image" not in mime)


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Class]:
    """The whole corpus, written and graded once."""
    folder = tmp_path_factory.mktemp("corpus")
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        yield _graded(folder, patch, stack)


def _graded(folder: Path, patch: pytest.MonkeyPatch, stack: contextlib.ExitStack) -> Class:
    token = secrets.token_hex(6)
    hidden = {name: secrets.token_hex(16) for name in SECRETS}
    seed = 10**15 + secrets.randbelow(10**15)
    pack = fresh_pack(ASSIGNMENT, seed)
    places = {name: folder / name for name in ("class", "graded", "private", "home", "strays")}
    for path in places.values():
        path.mkdir()
    record.write(pack, places["private"] / "pack.safetensors")
    files = {
        "beside the pack": places["private"] / "seed.key",
        "home": places["home"] / ".netrc",
        "ssh key": places["home"] / ".ssh" / "id_ed25519",
        "course": ROOT / f".canary-{token}",
        "temporary": Path(tempfile.gettempdir()) / f"canary-{token}",
        "shm": Path(f"/dev/shm/canary-{token}"),
    }
    for name, path in files.items():
        with contextlib.suppress(OSError):  # another user's clone, or no shared memory
            if name == "ssh key":
                path.parent.mkdir()
            path.write_text(hidden[name])
            stack.callback(path.unlink, missing_ok=True)
    listener = Listener()
    abstract = f"canary-{token}"
    line = Path(tempfile.mkdtemp(), "line")
    stack.callback(line.parent.rmdir)
    stack.callback(line.unlink, missing_ok=True)
    listener.listen(str(line), abstract)
    temporary = folder / "temporary"
    temporary.mkdir()
    patch.setattr(tempfile, "tempdir", str(temporary))
    for name, value in (
        ("TMPDIR", str(temporary)),
        ("HOME", str(places["home"])),
        ("CORPUS_SECRET", hidden["environment"]),
    ):
        patch.setenv(name, value)
    place = Place(
        submitted=str(places["class"]),
        graded=str(places["graded"]),
        pack=str(places["private"] / "pack.safetensors"),
        home=str(places["home"]),
        root=str(ROOT),
        secrets=tuple(str(path) for path in files.values()),
        strays=str(places["strays"]),
        shm=str(files["shm"]),
        socket=str(line),
        abstract=abstract,
        port=listener.port,
        pid=os.getpid(),
        processes=os.readlink("/proc/self/ns/pid") if sys.platform == "linux" else "",
        token=token,
    )
    trust = bool(unprotected())
    chosen = tuple(s for s in CORPUS if s.kind != "hostile" or not trust)
    students = write(Course(ROOT), place, chosen)
    _hide_in(places["class"] / students["right"], hidden["peer"])
    _adopt_orphans()
    running = _processes()
    watched = [
        *(path for name, path in places.items() if name not in ("graded", "home")),
        *files.values(),
        *(ROOT / name for name in ("solutions", "chapters", "autograder")),
        Path(workbook.__file__).parent,
    ]
    before = _state(watched)
    grades = grading.grade(
        places["class"],
        places["graded"],
        jobs=2,
        references=Path(place.pack),
        root=ROOT,
        progress=False,
        limits=LIMITS,
        trust=trust,
    )
    ended = time.monotonic()
    return Class(
        place=place,
        pack=pack,
        students=students,
        hidden={**hidden, "seed": str(seed)},
        grades=grades,
        listener=listener,
        before=before,
        after=_state(watched),
        processes=_strangers(running, token),
        left=sorted(path.name for path in temporary.iterdir()),
        ended=ended,
    )


def _hide_in(student: Path, secret: str) -> None:
    """Gives a student's notebook a secret, which only that student should ever see again."""
    path = student / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"
    notebook = json.loads(path.read_text())
    notebook["cells"][0]["source"] += f"\n# {secret}"
    path.write_text(json.dumps(notebook))


def _state(folders: list[Path]) -> dict[str, tuple[Any, ...]]:
    """What every file and folder is: kind, size, time of change, content."""
    found = {}
    for folder in folders:
        inside = [folder, *folder.rglob("*")] if folder.is_dir() else [folder]
        for path in inside:
            if "__pycache__" in path.parts or not (path.exists() or path.is_symlink()):
                continue
            status = path.lstat()
            content: Any = ""
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file() and status.st_size < 2**22:
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            times = None if path.is_dir() else status.st_mtime_ns
            found[str(path)] = (oct(status.st_mode), status.st_uid, status.st_size, times, content)
    return found


def _adopt_orphans() -> None:
    """Makes this process the parent of whatever escapes from those that it starts."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def _processes() -> dict[int, int]:
    """The processes there are, and their parents."""
    found = {}
    for name in os.listdir("/proc") if sys.platform == "linux" else ():
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    found[int(name)] = int(fields[1])
    return found


def _strangers(before: Mapping[int, int], token: str, patience: float = 3.0) -> list[str]:
    """Descendants of this process that are new, and processes with the attackers' mark."""
    deadline = time.monotonic() + patience
    while True:
        now = _processes()
        family = {os.getpid()}
        for _ in now:
            family |= {pid for pid, parent in now.items() if parent in family}
        found = []
        for pid in set(now) - {os.getpid()}:
            said = b""
            for name in ("comm", "cmdline", "environ"):
                with contextlib.suppress(OSError):
                    said += Path(f"/proc/{pid}/{name}").read_bytes().replace(b"\0", b" ") + b" | "
            marked = f"s-{token}"[:15].encode() in said or f" {token} ".encode() in said
            if marked or (pid in family and pid not in before):
                found.append(f"{pid}: {said[:300].decode('utf-8', 'replace')}")
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


@pytest.fixture
def hostile(graded: Class) -> Class:
    """The class, where hostile submissions could be run at all."""
    if reason := unprotected():
        pytest.skip(reason)
    return graded


def ids(submission: Submission) -> str:
    """A submission's name, for pytest."""
    return submission.name


# ---- each submission -------------------------------------------------------------------------


def test_the_corpus_is_large_and_every_kind_is_in_it() -> None:
    names = [submission.name for submission in CORPUS]
    assert len(set(names)) == len(names) >= 80
    kinds = [submission.kind for submission in CORPUS]
    assert min(map(kinds.count, ("honest", "wrong", "broken", "hostile"))) >= 20
    assert all(submission.twin in names for submission in HOSTILE)
    assert all(submission.story.endswith(".") for submission in CORPUS)


@pytest.mark.parametrize("submission", EXACT, ids=ids)
def test_everyone_gets_what_is_due(graded: Class, submission: Submission) -> None:
    if submission.name not in graded.students:
        pytest.skip(unprotected())
    rows = graded.rows(submission.name)
    told = "\n".join(f"{row.points} {row.status} {row.message}" for row in rows)
    due = [
        (_judged_here(graded.pack, submission, name) if points is None else points, status)
        for name, (points, status) in zip(COMPONENTS, submission.rows or (), strict=True)
    ]
    assert [(row.points, row.status) for row in rows] == due, told
    told += " ".join(row.misconception for row in rows) + graded.notes(submission.name)
    assert submission.says in told
    if submission.kind != "hostile":
        assert submission.shows in graded.shown(submission.name)


def _judged_here(pack: Pack, submission: Submission, name: str) -> float:
    """What the judge gives for an answer that is run in this process."""
    exercise = exercises.find(f"attention/{name}")
    namespace: dict[str, Any] = {}
    imports = "import math, time\nimport torch\nfrom torch import nn\n"
    imports += "from torch.nn import functional as F\n"
    namespace |= {other: solution(f"attention/{other}") for other in COMPONENTS}
    for source in (imports, submission.before, *submission.answers.values()):
        exec(source, namespace)
    outcomes = run(exercise, namespace[name], pack.seed, hidden=True)
    verdict = judge(outcomes, pack.references(exercise.id))
    assert verdict.points < exercise.points, "an answer of the corpus is not wrong"
    return verdict.points


@pytest.mark.parametrize("submission", HOSTILE, ids=ids)
def test_an_attack_earns_no_more_than_the_same_without_it(
    hostile: Class, submission: Submission
) -> None:
    rows = hostile.rows(submission.name)
    innocent = hostile.rows(submission.twin)
    for row, twin in zip(rows, innocent, strict=True):
        assert row.points <= twin.points, f"{row.exercise}: {row.message}"


@pytest.mark.parametrize("submission", HOSTILE, ids=ids)
def test_an_attack_was_tried_and_got_nothing(hostile: Class, submission: Submission) -> None:
    shown = hostile.shown(submission.name)
    gotten = sorted({line[:400] for line in shown.splitlines() if line.startswith("GOT:")})
    assert not gotten
    if submission.shows and submission.shows not in shown:
        statuses = {row.status for row in hostile.rows(submission.name)}
        statuses |= {
            {"Killed": "killed", "Timeout": "timeout", "CellTimeout": "timeout"}.get(
                out.ename, "error"
            )
            for out in hostile.outputs(submission.name)
            if out.output_type == "error"
        }
        assert statuses & submission.fate, f"it did not run: {shown[-2000:]}"


# ---- the others ------------------------------------------------------------------------------


def test_every_student_has_every_row(graded: Class) -> None:
    assert len(graded.grades.rows) == len(graded.students) * len(COMPONENTS)
    for name in graded.students:
        rows = graded.rows(name)
        assert [row.exercise for row in rows] == [f"attention/{c}" for c in COMPONENTS], name
        assert tuple(row.max_points for row in rows) == MAXIMA
        assert all(0 <= row.points <= row.max_points for row in rows), name
        assert all(0 < len(row.message) < 5000 for row in rows), name
    listed = json.loads((graded.grades.folder / "grades.json").read_text(encoding="utf-8"))
    assert [Row(**item) for item in listed] == graded.grades.rows


@pytest.mark.parametrize("submission", BYSTANDERS, ids=ids)
def test_nobody_changes_the_grade_of_another(graded: Class, submission: Submission) -> None:
    rows = graded.rows(submission.name)
    assert tuple((row.points, row.status) for row in rows) == FULL
    errors = [out for out in graded.outputs(submission.name) if out.output_type == "error"]
    assert not errors


def test_nbgrader_has_the_same_grades(graded: Class) -> None:
    with Database(f"sqlite:///{graded.grades.folder / 'gradebook.db'}") as database:
        scores = {
            name: database.find_submission(ASSIGNMENT, student).score
            for name, student in graded.students.items()
        }
    for name, score in scores.items():
        assert score == pytest.approx(sum(row.points for row in graded.rows(name))), name


def test_recorded_notebooks_are_valid_and_hold_the_verdicts(graded: Class) -> None:
    for name, student in graded.students.items():
        notebook = graded.notebook(name)
        nbformat.validate(notebook)
        for row in graded.rows(name):
            check = next(
                cell
                for cell in notebook.cells
                if notebooks.is_check(cell) and notebooks.exercise_of(cell) == row.exercise
            )
            assert determine_grade(check) == (row.points, row.max_points), name
        page = graded.grades.folder / "feedback" / student / ASSIGNMENT / f"{ASSIGNMENT}.html"
        assert page.stat().st_size > 10_000, name


# ---- everything else -------------------------------------------------------------------------


def test_no_file_outside_has_changed(hostile: Class) -> None:
    changed = {
        path: (hostile.before.get(path), hostile.after.get(path))
        for path in hostile.before.keys() | hostile.after.keys()
        if hostile.before.get(path) != hostile.after.get(path)
    }
    assert not changed


def test_nothing_is_left_where_the_next_one_would_load_it(hostile: Class) -> None:
    folders = [
        *(ROOT / name for name in ("autograder", "workbook", "solutions", "tests")),
        Path(hostile.place.home),
        *(Path(path) for path in sys.path if path.endswith("site-packages")),
    ]
    found = []
    for folder in folders:
        deep = not folder.name.endswith("site-packages")
        for path in folder.rglob("*") if deep else folder.iterdir():
            if path.suffix == ".pyc" and b"poisoned" in path.read_bytes():
                found.append(str(path))
            if path.name.startswith(STRAY) or path.name == "usercustomize.py":
                found.append(str(path))
    assert not found
    assert not list(Path("/dev/shm").glob(f"{STRAY}*")) if Path("/dev/shm").is_dir() else True
    for name in hostile.students:
        if name != "poison":
            assert "poisoned" not in hostile.shown(name), name


def test_no_secret_shows_in_what_is_given_back(hostile: Class) -> None:
    folder = hostile.grades.folder
    pages = [*folder.glob("autograded/*/*/*"), *folder.glob("feedback/*/*/*")]
    pages += [*folder.glob("grades.*"), *folder.glob("runs.json")]
    assert len(pages) > 2 * len(hostile.students)
    found = []
    for path in pages:
        text = path.read_bytes()
        for name, secret in hostile.hidden.items():
            own = name == "peer" and hostile.students["right"] in path.parts
            if secret.encode() in text and not own:
                found.append(f"{path.relative_to(folder)}: {name}")
    assert not found


@pytest.mark.parametrize("name", ["forged-pages", "hostile-exceptions", "half-characters"])
def test_no_script_of_a_submission_reaches_a_page(hostile: Class, name: str) -> None:
    folder = hostile.grades.folder / "feedback" / hostile.students[name] / ASSIGNMENT
    page = (folder / f"{ASSIGNMENT}.html").read_text(encoding="utf-8")
    assert "attention/softmax" in page
    assert "<script>window.forged" not in page
    assert "<script>alert(" not in page
    assert not re.search(r"<script[^>]*>\s*window\.forged", page)


def test_no_process_outlives_the_grading(hostile: Class) -> None:
    assert not hostile.processes


def test_detached_processes_never_get_to_leave_a_mark(hostile: Class) -> None:
    # They would do so four seconds after they were started.
    time.sleep(max(0.0, hostile.ended + 6 - time.monotonic()))
    assert not list(Path(hostile.place.strays).iterdir())


def test_nobody_connected_to_anything(hostile: Class) -> None:
    assert not hostile.listener.heard


def test_no_temporary_file_is_left(hostile: Class) -> None:
    assert not hostile.left
    assert not (hostile.grades.folder / ".grading").exists()
