"""check() at home, while grading, and what it leaves behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT, solution
from nbclient import NotebookClient

import autograder.checking as checking
from autograder import check, runner
from autograder import exercise as exercises
from autograder.outcomes import decode
from autograder.pack import Pack, path_of
from workbook import blocks


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBOOK_HOME", str(tmp_path))
    monkeypatch.delenv("WORKBOOK_STATIC", raising=False)
    monkeypatch.delenv("WORKBOOK_GRADING", raising=False)
    monkeypatch.setattr(checking, "_grading", None)


def test_points_are_returned_and_the_verdict_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("attention/causal_mask", solution("attention/causal_mask")) == 2.0
    assert "✓ attention/causal_mask: 2 of 2 points" in capsys.readouterr().out
    assert check("attention/causal_mask", lambda length: None) == 0.0
    assert "returned None" in capsys.readouterr().out


def test_an_unknown_exercise_is_told_not_raised(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("attention/nothing", len) == 0.0
    assert "Did you mean" in capsys.readouterr().out


def test_a_missing_pack_is_told_not_raised(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("autograder.pack.path_of", lambda chapter: tmp_path / "gone.safetensors")
    checking._public_pack.cache_clear()
    try:
        assert check("attention/causal_mask", solution("attention/causal_mask")) == 0.0
    finally:
        checking._public_pack.cache_clear()
    out = capsys.readouterr().out
    assert "gone.safetensors" in out
    assert "autograder record" in out


def test_while_grading_only_outcomes_are_sent(capsys: pytest.CaptureFixture[str]) -> None:
    sent: list[bytes] = []
    exercise = exercises.find("attention/causal_mask")
    keys = {exercise.id: runner.keys(exercise, 7, hidden=True)}
    checking.grading(sent.append, keys.get)
    assert check("attention/softmax", solution("attention/softmax")) is None
    assert sent == []
    result: Any = check("attention/causal_mask", solution("attention/causal_mask"))
    assert result is None
    assert capsys.readouterr().out == ""
    name, outcomes = decode(sent[0])
    assert name == "attention/causal_mask"
    assert "a long sequence" in [outcome.case for outcome in outcomes]


def test_a_process_that_grades_loads_neither_judge_nor_pack() -> None:
    code = """
        import sys
        import autograder.checking as checking
        from autograder import exercise, runner
        keys = runner.keys(exercise.find("attention/causal_mask"), 7)
        checking.grading(lambda data: None, lambda exercise: keys)
        from autograder import check
        check("attention/causal_mask", lambda length: None)
        print([name for name in sys.modules if name in ("autograder.judge", "autograder.pack")])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def run_notebook(cells: list[str], folder: Path) -> Any:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def test_in_jupyter_the_verdict_is_rich_and_the_code_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two notebooks in neighboring folders: what the first keeps, the second builds on."""
    monkeypatch.delenv("WORKBOOK_HOME")
    first, second = tmp_path / "01_attention", tmp_path / "02_next"
    first.mkdir()
    second.mkdir()
    notebook = run_notebook(
        [
            "import math\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
            "from autograder import check",
            # The notebook's own use of names that are parameters and locals below.
            "query = scores = torch.ones(2)\n"
            "EMPTY = 0.0\n\ndef _scores(query, key):\n"
            "    return query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))",
            "@torch.enable_grad()\n"
            "def scaled_dot_product_attention(query, key, value, mask=None):\n"
            "    scores = _scores(query, key)\n"
            "    if mask is not None:\n"
            "        scores = scores.masked_fill(~mask, -torch.inf)\n"
            "    weights = F.softmax(scores, dim=-1)\n"
            "    if mask is not None:\n"
            "        weights = weights.masked_fill(~mask, EMPTY)\n"
            "    return weights @ value, weights",
            'check("attention/scaled_dot_product_attention", scaled_dot_product_attention)',
            "class AdditiveAttention(nn.Module):\n"
            "    def __init__(self, d_query, d_key, d_hidden):\n"
            "        super().__init__()\n"
            "        self.w_a = nn.Linear(d_query, d_hidden, bias=False)\n"
            "        self.u_a = nn.Linear(d_key, d_hidden, bias=False)\n"
            "        self.v_a = nn.Linear(d_hidden, 1, bias=False)\n"
            "    def forward(self, query, key, value, mask=None):\n"
            "        hidden = torch.tanh(self.w_a(query)[:, :, None] + self.u_a(key)[:, None])\n"
            "        scores = self.v_a(hidden).squeeze(-1)\n"
            "        if mask is not None:\n"
            "            scores = scores.masked_fill(~mask, -1e9)\n"
            "        weights = F.softmax(scores, -1)\n"
            "        if mask is not None:\n"
            "            weights = weights * mask\n"
            "        return weights @ value, weights",
            'check("attention/AdditiveAttention", AdditiveAttention)',
        ],
        first,
    )
    for index in (3, 5):
        kinds = {output.output_type: output for output in notebook.cells[index].outputs}
        assert kinds.keys() == {"display_data", "execute_result"}, "and nothing on stderr"
        assert kinds["execute_result"].data["text/plain"] == "4.0"
        assert 'class="verdict verdict-passed"' in kinds["display_data"].data["text/html"]
        assert "my_blocks" in kinds["display_data"].data["text/plain"]

    kept = tmp_path / "my_blocks" / "attention" / "scaled_dot_product_attention.py"
    text = kept.read_text()
    assert "def _scores" in text
    assert "EMPTY = 0.0" in text

    later = run_notebook(
        [
            "import torch\nfrom workbook.blocks import block",
            'attend = block("attention/scaled_dot_product_attention")\n'
            "attend(torch.ones(1, 2, 4), torch.ones(1, 3, 4), torch.ones(1, 3, 5))[0].shape",
            'additive = block("attention/AdditiveAttention")(4, 4, 8)',
            'softmax = block("attention/softmax")\nsoftmax(torch.ones(4))',
        ],
        second,
    )
    assert "your own, from" in later.cells[1].outputs[0].text
    assert "[1, 2, 5]" in later.cells[1].outputs[1].data["text/plain"]
    assert "your own, from" in later.cells[2].outputs[0].text
    assert "ready-made" in later.cells[3].outputs[0].text


def test_while_grading_a_block_is_always_the_ready_made_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "my_blocks" / "attention" / "softmax.py"
    path.parent.mkdir(parents=True)
    path.write_text("def softmax(scores, dim=-1):\n    return 'mine'\n")
    assert blocks.block("attention/softmax")(1) == "mine"
    monkeypatch.setenv("WORKBOOK_GRADING", "1")
    from workbook.ready.attention import softmax

    capsys.readouterr()
    assert blocks.block("attention/softmax") is softmax
    assert capsys.readouterr().out == ""


def test_a_kept_block_that_does_not_run_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "my_blocks" / "attention" / "softmax.py"
    path.parent.mkdir(parents=True)
    path.write_text("def softmax(:\n")
    with pytest.raises(RuntimeError, match=r"softmax\.py does not run.*delete the file"):
        blocks.block("attention/softmax")


@pytest.mark.parametrize("name", ["attention/nothing", "nothing/softmax", "softmax", "../x/y"])
def test_an_unknown_block_is_a_clear_error(name: str) -> None:
    with pytest.raises(LookupError, match=name):
        blocks.block(name)


def test_what_cannot_be_kept_is_told_and_costs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    made = type("made", (), {"__call__": lambda self, n: solution("attention/causal_mask")(n)})()
    assert check("attention/causal_mask", made) == 2.0
    assert "could not be kept" in capsys.readouterr().out


def test_public_packs_lie_in_the_package() -> None:
    assert path_of("01_attention").is_relative_to(ROOT)
    assert Pack.load(path_of("01_attention")).exercises
    assert shutil.which("git") is None or path_of("01_attention").suffix == ".safetensors"
