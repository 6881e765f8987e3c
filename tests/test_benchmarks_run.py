"""One pass over all measurements: it runs, it stops where one fails, and its page has it all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT

FOLDER = ROOT / "benchmarks"


@pytest.fixture
def run(benchmark_script: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark_script("run")


def test_every_script_is_run(run: ModuleType) -> None:
    scripts = {path.name for path in FOLDER.glob("*.py") if not path.name.startswith("_")}
    assert {one.script for one in run.MEASUREMENTS} == scripts - {"run.py"}


def test_a_quick_pass_writes_one_page(run: ModuleType, tmp_path: Path) -> None:
    """Of those that no other test goes through."""
    to = tmp_path / "RESULTS.md"
    run.main(["--quick", "--only", "grading", "checking", "--to", str(to)])
    figures = json.loads(to.with_suffix(".json").read_text(encoding="utf-8"))
    grading, checking = figures["grading"], figures["checking"]
    assert grading["plain nbgrader, seconds a submission"]["median"] > 0
    assert grading["large class"]["submissions"] == 4
    assert len(checking["exercises"]) == 3
    assert all(one["check_ms"]["median"] > 0 for one in checking["exercises"].values())
    text = to.read_text(encoding="utf-8")
    for one in grading["summary"] + checking["summary"]:
        assert one["what"] in text
        assert 0 < one["ratio"]["least"] <= one["ratio"]["median"] <= one["ratio"]["most"]
    assert "plain nbgrader 0." in text
    assert "`python benchmarks/checking.py --quick`" in text
    assert "attention/softmax" in text.split("```text")[2]


def test_a_script_that_fails_stops_the_pass(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "wrong.py").write_text("print('so far')\nraise SystemExit(3)")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="odd failed with status 3"):
        run.measure(run.Measurement("odd", "Something odd", "wrong.py"), quick=True)


def test_a_part_does_not_replace_the_whole(
    run: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run.main(["--only", "vision"])
    assert "say --to FILE" in capsys.readouterr().err


def test_the_committed_page_is_of_all_measurements(run: ModuleType) -> None:
    figures = json.loads((FOLDER / "RESULTS.json").read_text(encoding="utf-8"))
    text = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    for one in run.MEASUREMENTS:
        assert f"`{' '.join(one.command(quick=False))}`" in text
        for row in figures[one.name]["summary"]:
            assert f"| [{row['what']}](#{one.name}) | {row['peer']} |" in text


# --- the book's page that is calculated from it ---------------------------------------------


@pytest.fixture
def measured() -> dict[str, Any]:
    """Round figures, from which the page can be calculated by hand."""
    page = {
        "bytes": {"this book": {"HTML": 200_000, "fonts": 300_000}},
        "requests": {"this book": 30},
    }
    return {
        "date": "2026-01-02",
        "machine": "2 cores",
        "grading": {
            "plain nbgrader, seconds a submission": {"median": 9.0},
            "large class": {
                "submissions": 1000,
                "seconds": 100.0,
                "memory_mib": {"at_most": 800.0},
            },
        },
        "checking": {
            "exercises": {
                "attention/a": {"check_ms": {"median": 100.0}},
                "attention/b": {"check_ms": {"median": 100.0}},
                "gpt/c": {"check_ms": {"median": 300.0}},
            }
        },
        "book": {
            "reading": {
                "chapters/a/a.html": page,
                "book/index.html": {"bytes": {"this book": {"HTML": 1}}, "requests": {}},
                "all pages": {"bytes": {}},
            }
        },
    }


def test_scale_is_calculated_from_what_was_measured(
    measured: dict[str, Any], tmp_path: Path
) -> None:
    from book import scale

    for name in ("chapters", "solutions", "book/results"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / scale.FIGURES).write_text(json.dumps(measured))
    # A submission of chapter 1 takes 2 x 100 s / 1,000 of a core; the other has 0.1 s more checks.
    assert scale.core_seconds(measured) == pytest.approx({"attention": 0.2, "gpt": 0.3})
    text = scale.page(tmp_path)
    # 10,000 learners x 0.5 s on 8 cores: 625 s; plain nbgrader 2 x 9 s: 22,500 s.
    assert "| 1 | 8 | 10 min | 6.2 h |" in text
    assert "| 16 | 128 | 1 min | 23 min |" in text
    # 100 readers a second x 0.5 MB.
    assert "| first visits | 3,000 | 400 Mbit/s |" in text
    assert "100 and a few | 160 Mbit/s |" in text
    assert [line for line in text.split("\n") if line[:2] == "##"] == [
        "## 10,000 learners, 2 chapters",
        "## 100 readers a second",
        "## One learner's training",
    ]
    kept = json.loads((tmp_path / "book/results/06_gpt.cpu.json").read_text())
    mean = sum(one["seconds"] for one in kept["runs"]) / len(kept["runs"])
    assert f"| GPT | {mean:.0f} s | " in text


def test_what_was_not_measured_is_left_out(measured: dict[str, Any], tmp_path: Path) -> None:
    from book import scale

    assert "Nothing was measured yet" in scale.page(tmp_path)
    for name in ("chapters", "solutions"):
        shutil.copytree(ROOT / name, tmp_path / name)
    del measured["book"], measured["checking"]
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / scale.FIGURES).write_text(json.dumps(measured))
    text = scale.page(tmp_path)
    assert "Mbit" not in text
    assert "plain nbgrader" not in text


def test_operations_are_six_for_each_weight_and_token() -> None:
    """nanoGPT's: 10.6 million weights in its blocks, 5,000 steps of 64 x 256 tokens."""
    from book import scale

    found = scale.operations(ROOT)
    assert found["06_gpt"] == 6 * (6 * 12 * 384**2) * 5000 * 64 * 256
    assert found["07_vit"] == 6 * (7 * 12 * 384**2) * 12_000 * 512 * 65
    assert [name[:2] for name in found] == ["04", "05", "06", "07", "08"]
