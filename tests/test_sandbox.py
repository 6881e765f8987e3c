"""Isolation: what each set of layers keeps a submission from, and how the machine is judged."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from typer.testing import CliRunner

from autograder import isolation, sandbox
from autograder.cli import app
from autograder.engine import Cell, EngineError, ForkEngine, Job, Transcript
from autograder.sandbox import LAYERS, View, missing

# With bubblewrap; where it is not installed; where no namespaces are to be had.
SETS = {
    "all": LAYERS,
    "no bubblewrap": ("namespaces", "landlock", "seccomp", "rlimits"),
    "no namespaces": ("landlock", "seccomp", "rlimits"),
}


@pytest.fixture(scope="module", params=SETS)
def shut_in(request: pytest.FixtureRequest) -> Iterator[ForkEngine]:
    """An engine with each set of layers that makes up a whole."""
    layers = SETS[request.param]
    lacking = set(layers) - set(isolation.holding())
    if lacking:
        pytest.skip(f"this machine lacks {', '.join(sorted(lacking))}: see autograder doctor")
    with ForkEngine(layers=layers) as engine:
        yield engine


def _run(engine: ForkEngine, *sources: str, **more: object) -> Transcript:
    cells = [Cell(f"cell-{i}", source) for i, source in enumerate(sources)]
    return engine.run(Job(cells, 7, assignment="01_attention", **more))


def _said(engine: ForkEngine, source: str) -> str:
    transcript = _run(engine, source)
    (cell,) = transcript.cells.values()
    assert (transcript.status, cell.status) == ("finished", "ok"), (transcript, cell.outputs)
    return "".join(out.text for out in cell.outputs if out.output_type == "stream").strip()


TRY = """
def attempt(act):
    try:
        return f"did: {act()!r}"
    except Exception as error:
        return type(error).__name__
"""


def test_honest_code_runs(shut_in: ForkEngine) -> None:
    said = _said(
        shut_in,
        "import torch, numpy, json, tempfile, workbook.plots\n"
        "import torch.optim.lr_scheduler, unittest.mock\n"
        "with open('notes.txt', 'w') as file: file.write('x' * 10_000)\n"
        "with tempfile.TemporaryFile() as file: file.write(b'y')\n"
        "print(len(open('notes.txt').read()), torch.ones(3).sum().item())",
    )
    assert said == "10000 3.0"


def test_no_file_of_the_course_or_of_anybody_can_be_read(
    shut_in: ForkEngine, tmp_path: Path
) -> None:
    canary = tmp_path / "canary.txt"
    canary.write_text("the-canary-sings")
    tmp_path.chmod(0o755)
    wanted = [
        canary,
        ROOT / "solutions" / "01_attention" / "01_attention.md",
        ROOT / "autograder" / "references" / "01_attention.safetensors",
        ROOT / "autograder" / "exercises" / "01_attention.py",
        ROOT / "workbook" / "ready" / "attention.py",
        ROOT / "tests" / "conftest.py",
        ROOT / ".git" / "config",
        Path("/etc/passwd"),
        Path("/etc/shadow"),
        Path.home() / ".bashrc",
        Path(f"/proc/{os.getpid()}/environ"),
        Path(f"/proc/{os.getpid()}/root"),
    ]
    said = _said(
        shut_in,
        f"{TRY}\nimport os\nfor path in {[str(p) for p in wanted]}:\n"
        "    print(attempt(lambda: open(path, 'rb').read(9)), attempt(lambda: os.listdir(path)))",
    )
    for path, line in zip(wanted, said.splitlines(), strict=True):
        assert "did" not in line, f"{path}: {line}"


def test_nothing_but_the_working_folder_can_be_written(shut_in: ForkEngine, tmp_path: Path) -> None:
    import torch

    places = [
        tmp_path / "new",
        ROOT / "new",
        Path(torch.__file__).parent / "new.py",
        ROOT / "workbook" / "new.py",
        Path.home() / "new",
        Path("/usr/new"),
        Path("/dev/new"),
        Path("/new"),
        Path("/var/tmp/new"),
    ]
    said = _said(
        shut_in,
        f"{TRY}\nfor path in {[str(p) for p in places]}:\n"
        "    print(attempt(lambda: open(path, 'w').write('x')))",
    )
    assert "did" not in said
    assert not any(place.exists() for place in places)


def test_no_network(shut_in: ForkEngine) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        port = server.getsockname()[1]
        said = _said(
            shut_in,
            f"{TRY}\nimport socket\n"
            f"print(attempt(lambda: socket.create_connection(('127.0.0.1', {port}), 1)))\n"
            "print(attempt(lambda: socket.getaddrinfo('example.org', 80)))\n"
            "print(attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)))\n"
            "print(attempt(lambda: socket.socket(40, socket.SOCK_STREAM, 0)))",
        )
        assert "did" not in said
        with pytest.raises(TimeoutError):
            server.accept()


def test_no_other_process_can_be_seen_or_signalled(shut_in: ForkEngine) -> None:
    victim = subprocess.Popen(["sleep", "60"])
    try:
        said = _said(
            shut_in,
            f"{TRY}\nimport ctypes, os, signal\n"
            f"for pid in ({victim.pid}, {os.getpid()}, os.getppid() or 1, -1):\n"
            "    if pid != os.getpid():\n"
            "        print(attempt(lambda: os.kill(pid, 0 if pid == -1 else signal.SIGKILL)))\n"
            f"libc = ctypes.CDLL(None)\nprint('ptrace', libc.ptrace(16, {victim.pid}, 0, 0))",
        )
        assert "did" not in said
        assert "ptrace -1" in said
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_no_namespace_or_mount_can_be_made(shut_in: ForkEngine) -> None:
    said = _said(
        shut_in,
        "import ctypes\nlibc = ctypes.CDLL(None)\n"
        "print(libc.unshare(0x10000000), libc.unshare(0x20000),"
        " libc.mount(b'none', b'/tmp', b'tmpfs', 0, None), libc.chroot(b'/tmp'),"
        " libc.setuid(0) if __import__('os').getuid() else -1)",
    )
    assert said == "-1 -1 -1 -1 -1"


def test_space_and_files_are_bounded(shut_in: ForkEngine) -> None:
    said = _said(
        shut_in,
        f"{TRY}\ndef fill():\n"
        "    with open('big', 'wb') as file:\n"
        "        for _ in range(400): file.write(bytes(1 << 20))\n"
        "print(attempt(fill))\n"
        "import os\nprint(os.path.getsize('big') >> 20)\nos.remove('big')\n"
        "print(attempt(lambda: [open('/dev/null') for _ in range(5000)] and 'many'))",
    )
    error, size, files = said.splitlines()
    assert error == "OSError"
    assert int(size) <= 128
    assert files == "OSError"


def test_without_namespaces_no_process_can_be_started() -> None:
    layers = SETS["no namespaces"]
    if set(layers) - set(isolation.holding()):
        pytest.skip("this machine lacks a layer: see autograder doctor")
    with ForkEngine(layers=layers) as engine:
        said = _said(
            engine,
            f"{TRY}\nimport os, subprocess, threading\n"
            "print(attempt(os.fork), attempt(lambda: subprocess.run(['true'])))\n"
            "thread = threading.Thread(target=lambda: print('threads run'))\n"
            "thread.start(); thread.join()",
        )
    assert said.splitlines() == ["PermissionError PermissionError", "threads run"]


def test_a_fork_bomb_stays_in_its_bounds() -> None:
    if "namespaces" not in isolation.holding():
        pytest.skip("this machine has no namespaces: see autograder doctor")
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    with ForkEngine() as engine:
        transcript = _run(engine, "1", bomb, cell_seconds=1.0, seconds=5.0)
        assert transcript.status in ("timeout", "killed")
        assert _said(engine, "print('next')") == "next"


# ---- as another user -------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_is_as_safe(tmp_path: Path) -> None:
    reachable = all(
        os.stat(folder).st_mode & 0o005 == 0o005
        for folder in (ROOT, *ROOT.parents, *Path(sys.base_prefix).parents, Path(sys.prefix))
    )
    if not reachable:
        pytest.skip("the course or its Python lies where other users cannot look")
    tmp_path.chmod(0o777)
    script = (
        "import json\n"
        "from autograder import isolation\n"
        "from autograder.engine import *\n"
        "with ForkEngine() as engine:\n"
        "    cell = Cell('a', 'import os; print(os.getuid(), os.getpid())')\n"
        "    done = engine.run(Job([cell], 7, assignment='01_attention'))\n"
        "    print(done.status, done.cells['a'].outputs[0].text, list(engine.layers))\n"
    )
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    ran = subprocess.run(
        [*command, sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("finished 65534 1\n"), ran.stdout + ran.stderr


# ---- how the machine is judged ---------------------------------------------------------------


def test_every_protection_needs_a_layer() -> None:
    assert missing(LAYERS) == []
    assert missing(SETS["no bubblewrap"]) == missing(SETS["no namespaces"]) == []
    assert missing(("bubblewrap", "namespaces", "rlimits")) == []
    assert missing(("rlimits",)) == ["files", "processes", "network"]
    assert missing(("bubblewrap", "seccomp", "rlimits")) == ["files"]
    assert missing(()) == list(sandbox.PROTECTIONS)


def test_without_isolation_nothing_runs_unless_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "holding", lambda: ("rlimits",))
    with ForkEngine() as engine, pytest.raises(EngineError) as refusal:
        _run(engine, "1")
    for words in ("files, processes and network", "bubblewrap", "--trust-submissions", "doctor"):
        assert words in str(refusal.value)
    with ForkEngine(trust=True) as engine:
        assert _said(engine, "print('trusted')") == "trusted"


def test_grade_refuses_before_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "holding", lambda: ("rlimits",))
    (tmp_path / "submitted" / "ada" / "01_attention").mkdir(parents=True)
    to = tmp_path / "graded"
    command = ["grade", str(tmp_path / "submitted"), "--to", str(to), "--root", str(ROOT)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "--trust-submissions" in result.output
    assert not (to / "gradebook.db").exists()


def test_the_doctor_tries_and_advises(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    well = runner.invoke(app, ["doctor"])
    assert all(layer in well.output for layer in LAYERS)
    assert well.exit_code == (1 if missing(isolation.holding()) else 0)
    nothing = tuple(isolation.Layer(name, False, "tried: no") for name in LAYERS)
    monkeypatch.setattr(isolation, "tried", lambda: nothing)
    ill = runner.invoke(app, ["doctor"])
    assert ill.exit_code == 1
    for words in ("apt install bubblewrap", "unprivileged_userns", "--trust-submissions"):
        assert words in ill.output
    assert '"can_grade": false' in runner.invoke(app, ["doctor", "--json"]).output


def test_a_layer_that_does_not_hold_is_found_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    isolation.tried.cache_clear()
    monkeypatch.setattr(sandbox, "has_bubblewrap", lambda: False)
    try:
        first, *others = isolation.tried()
        assert (first.holds, first.seen) == (False, "not installed")
        assert [layer.name for layer in others] == list(LAYERS[1:])
        isolation.tried.cache_clear()
        monkeypatch.setattr(sandbox, "has_bubblewrap", lambda: True)
        monkeypatch.setattr(sandbox, "bubblewrap", lambda view: ["/bin/false"])
        first = isolation.tried()[0]
        assert not first.holds
    finally:
        isolation.tried.cache_clear()


def test_of_the_ready_made_blocks_only_earlier_chapters_are_there() -> None:
    seen = [path for path in isolation.view("01_attention").pieces() if "/ready" in path]
    assert seen == [str(ROOT / "workbook" / "ready" / "__init__.py")]
    later = isolation.view("02_multi_head_attention").kept
    assert str(ROOT / "workbook" / "ready" / "attention.py") in later


def test_a_view_lists_nothing_that_is_covered(tmp_path: Path) -> None:
    for name in ("open/a.py", "open/b.py", "open/secret/x", "open/deep/secret/y", "open/deep/c"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    covered = (str(tmp_path / "open/secret"), str(tmp_path / "open/deep/secret"))
    view = View((str(tmp_path / "open"), str(tmp_path / "absent")), covered)
    found = {os.path.relpath(path, tmp_path) for path in view.pieces()}
    assert found == {"open/a.py", "open/b.py", "open/deep/c"}
    assert View.from_json(view.to_json()) == view


def test_bubblewrap_binds_neither_home_nor_course() -> None:
    command = sandbox.bubblewrap(isolation.view("01_attention"))
    assert command[0] == "bwrap"
    assert command[-1] == "--"
    assert str(ROOT / "autograder" / "references") in command
    bound = [command[i + 1] for i, part in enumerate(command) if part == "--ro-bind"]
    assert str(Path.home()) not in bound
    assert str(ROOT) not in bound
