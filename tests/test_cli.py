"""The command line: results, errors and exit codes, as a user meets them."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, solution
from typer.testing import CliRunner

from autograder import record as recording
from autograder.cli import app
from autograder.pack import Pack

runner = CliRunner()

WRONG = """
import torch

def softmax(scores, dim=-1):
    print("called")
    return torch.exp(scores) / torch.exp(scores).sum(dim, keepdim=True)
"""


def invoke(*arguments: Any) -> Any:
    return runner.invoke(app, [str(argument) for argument in arguments])


def write(folder: Path, text: str) -> Path:
    path = folder / "answer.py"
    path.write_text(text)
    return path


def test_try_on_a_right_file_exits_0(tmp_path: Path) -> None:
    from autograder.release import ready_made_source

    path = write(tmp_path, ready_made_source(ROOT, "01_attention"))
    for name in ("softmax", "scaled_dot_product_attention", "AdditiveAttention"):
        result = invoke("try", f"attention/{name}", path)
        assert result.exit_code == 0, result.output
        assert "all cases pass" in result.stdout
    assert inspect.isfunction(solution("attention/softmax"))


def test_try_on_a_wrong_file_exits_1_and_names_the_misconception(tmp_path: Path) -> None:
    result = invoke("try", "attention/softmax", write(tmp_path, WRONG))
    assert result.exit_code == 1
    assert "overflow" in result.stdout
    assert result.stderr == ""


def test_try_json_is_json_whatever_the_file_prints(tmp_path: Path) -> None:
    path = write(tmp_path, "print('noise')\n" + WRONG)
    result = invoke("try", "attention/softmax", path, "--json")
    verdict = json.loads(result.stdout)
    assert result.exit_code == 1
    assert verdict["exercise"] == "attention/softmax"
    assert verdict["max_points"] == 2
    assert 0 < verdict["points"] < 2
    assert verdict["status"] == "failed"
    assert "overflow" in verdict["misconception"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def softmax(:", "line 1"),
        ("import nothing_like_it", "ModuleNotFoundError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("1 / 0\ndef softmax(): pass", "ZeroDivisionError"),
    ],
)
def test_try_on_a_file_that_does_not_run_exits_1(tmp_path: Path, text: str, words: str) -> None:
    result = invoke("try", "attention/softmax", write(tmp_path, text))
    assert result.exit_code == 1
    assert words in result.stdout
    assert "Traceback" not in result.stdout


def test_try_on_a_file_that_never_ends_exits_1(tmp_path: Path) -> None:
    path = write(tmp_path, "while True:\n    pass\n")
    result = invoke("try", "attention/softmax", path, "--seconds", "0.1")
    assert result.exit_code == 1
    assert "did not finish" in result.stdout


DEADLY = {
    "exit at once": ("import os\nos._exit(0)", "exit status 0", "before any case ran"),
    "exit in a case": (
        "import os\ndef softmax(scores, dim=-1):\n    os._exit(3)",
        "exit status 3",
        "in the case 'three scores'",
    ),
    "crash at once": ("import ctypes\nctypes.string_at(0)", "SIGSEGV", "line 2: ctypes"),
    "crash in a case": (
        "import ctypes\ndef softmax(scores, dim=-1):\n    return ctypes.string_at(0)",
        "SIGSEGV",
        "softmax, line 3: return ctypes.string_at(0)",
    ),
    "its own signal": ("import os\nos.kill(os.getpid(), 9)", "SIGKILL", "before any case ran"),
    "a child that stays": (
        "import os, time\nif os.fork() == 0:\n    time.sleep(60)\nos._exit(7)",
        "exit status 7",
        "before any case ran",
    ),
    "closed descriptors": ("import os\nos.closerange(3, 500)", "ended", "before any case ran"),
}


@pytest.mark.parametrize("way", DEADLY)
def test_try_on_a_file_that_ends_the_process_exits_1_with_a_verdict(
    tmp_path: Path, way: str
) -> None:
    text, *words = DEADLY[way]
    path = write(tmp_path, text)
    began = time.monotonic()
    result = invoke("try", "attention/softmax", path, "--json")
    verdict = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (verdict["status"], verdict["points"], verdict["max_points"]) == ("error", 0, 2)
    assert verdict["next_step"]
    for word in words:
        assert word in " ".join([verdict["message"], *verdict["lines"]])
    assert time.monotonic() - began < 30


def test_try_ends_a_file_that_no_signal_reaches(tmp_path: Path) -> None:
    text = """
        import signal, time

        def softmax(scores, dim=-1):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            while True:
                time.sleep(1)
    """
    path = write(tmp_path, textwrap.dedent(text))
    result = invoke("try", "attention/softmax", path, "--seconds", "0.1")
    assert result.exit_code == 1
    assert "could not be stopped" in result.stdout
    assert "three scores" in result.stdout


def test_try_keeps_what_is_written_below_python_off_the_output(tmp_path: Path) -> None:
    path = write(tmp_path, "import os\nos.write(1, b'noise')\nos.write(2, b'noise')\n" + WRONG)
    done = subprocess.run(
        [sys.executable, "-m", "autograder.cli", "try", "attention/softmax", path, "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "failed"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("exercise", "text", "words"),
    [
        ("attention/sofmax", WRONG, "Did you mean attention/softmax"),
        ("softmax", WRONG, "Did you mean attention/softmax"),
        ("attention/softmax", "x = 1", "defines no softmax"),
        ("attention/softmax", None, "There is no file"),
        ("attention/softmax", b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_try_with_unusable_arguments_exits_2(
    tmp_path: Path, exercise: str, text: str | bytes | None, words: str
) -> None:
    path = tmp_path / "answer.py"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    result = invoke("try", exercise, path)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_record_check_passes_on_a_committed_pack() -> None:
    # All packs are recorded anew in tests/test_exercises.py.
    result = invoke("record", "01_attention", "--check", "--root", ROOT)
    assert result.exit_code == 0, result.output


def test_record_writes_a_private_pack(tmp_path: Path) -> None:
    path = tmp_path / "packs" / "secret.safetensors"
    result = invoke("record", "01_attention", "--seed", "open sesame", "--to", path, "--root", ROOT)
    assert result.exit_code == 0, result.output
    pack = Pack.load(path)
    assert pack.hidden
    assert pack.seed != recording.PUBLIC_SEED
    assert any(case.hidden for case in pack.references("attention/softmax").cases)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["record", "--seed", "7"], "--to FILE"),
        (["record", "--to", "x"], "--seed SECRET"),
        (["record", "42_none"], "No exercises for 42_none"),
        (["release", "42_none"], "There is no chapter 42_none"),
        (["grade", "nowhere"], "nowhere"),
        (["record", "--root", "/"], "not inside a course"),
    ],
)
def test_unusable_arguments_exit_2_with_one_sentence(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_release_check_passes_on_the_committed_chapters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = invoke("release", "--check")
    assert result.exit_code == 0, result.output


def test_grade_writes_the_contract_s_files_and_prints_rows(tmp_path: Path) -> None:
    """One student handed in nothing that could run, so this is quick."""
    (tmp_path / "in" / "ada" / "01_attention").mkdir(parents=True)
    to = tmp_path / "out"
    result = invoke("grade", tmp_path / "in", "--to", to, "--root", ROOT, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["status"] for row in rows] == ["missing"] * 5
    assert rows == json.loads((to / "grades.json").read_text())
    assert {"gradebook.db", "autograded", "feedback", "grades.csv"} <= {
        p.name for p in to.iterdir()
    }

    shown = invoke("grade", tmp_path / "in", "--to", to, "--root", ROOT)
    assert shown.exit_code == 0
    assert "ada" in shown.stdout
    assert "grades.csv" in shown.stdout


def test_grade_with_a_pack_that_is_not_there_exits_2(tmp_path: Path) -> None:
    (tmp_path / "in" / "ada" / "01_attention").mkdir(parents=True)
    to, pack = tmp_path / "out", tmp_path / "none.pack"
    result = invoke("grade", tmp_path / "in", "--to", to, "--references", pack, "--root", ROOT)
    assert result.exit_code == 2
    assert "none.pack" in result.stderr
    assert "autograder record" in result.stderr
