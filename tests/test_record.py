"""Recorded runs: what runs, what is written down, and what a page makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT

from autograder.notebooks import Chapter
from book import build as book
from book import records
from workbook import record
from workbook.results import MIME

RECORDS = sorted((ROOT / records.FOLDER).glob("*.json"))
# What a run may need: PyTorch, NumPy, Matplotlib. Found by nobody are:
MISSING = (
    "IPython ipywidgets tqdm nbformat nbclient jupyter_client traitlets pooch requests pydantic"
)
WITHOUT = f"""
import json, sys
from importlib.machinery import PathFinder
found = PathFinder.find_spec
PathFinder.find_spec = classmethod(
    lambda cls, name, *a: None if name.split(".")[0] in {MISSING.split()!r} else found(name, *a)
)
from workbook import record
told = record.run(record.notebook_of("02_multi_head_attention"), "smoke", int(sys.argv[1]))
json.dump(told, open(sys.argv[2], "w"))
"""


def alone(repetition: int, folder: Path) -> dict[str, Any]:
    """A run of chapter 2 in a process that has neither Jupyter nor what serves it."""
    file = folder / "told.json"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(repetition), str(file)],
        capture_output=True,
        text=True,
        env={**book.os.environ, "OMP_NUM_THREADS": "1"},
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


def small(folder: Path, *cells: str, name: str = "01_twice") -> Path:
    """A course with one notebook of these cells and one exercise; returns the notebook."""
    place = folder / "chapters" / name
    place.mkdir(parents=True)
    (folder / "workbook" / "ready").mkdir(parents=True)
    (folder / "workbook" / "ready" / "numbers.py").write_text(
        "import math\n\n\ndef _factor():\n    return math.floor(2.7)\n\n\n"
        "def double(x):\n    return _factor() * x\n"
    )
    marks = {"schema_version": 3, "locked": False, "task": False}
    notebook = nbformat.v4.new_notebook()
    stub = nbformat.v4.new_code_cell("def double(x):\n    raise NotImplementedError")
    stub.metadata["nbgrader"] = {**marks, "grade_id": "d", "solution": True, "grade": False}
    check = nbformat.v4.new_code_cell('check("numbers/double", double)\nraise SystemExit')
    check.metadata["nbgrader"] = {**marks, "grade_id": "c", "solution": False, "grade": True}
    notebook.cells = [
        nbformat.v4.new_code_cell(
            "%pip install nothing\nimport math\nfrom autograder import check"
        ),
        nbformat.v4.new_markdown_cell("# Twice"),
        stub,
        check,
        *map(nbformat.v4.new_code_cell, cells),
    ]
    path = place / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


# --- running --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_0(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return alone(0, tmp_path_factory.mktemp("run"))


def test_a_run_measures_what_the_notebook_measures(run_0: dict[str, Any], tmp_path: Path) -> None:
    """Without Jupyter, the same figures as with it, to the last digit."""
    chapter = Chapter(ROOT, "02_multi_head_attention")
    executed = book.execute(chapter, "smoke", ROOT / "_build" / "executed", lambda line: None)
    shown = [
        output.data[MIME]
        for cell in executed.notebook.cells
        for output in cell.get("outputs", [])
        if MIME in output.get("data", {})
    ]
    assert len(shown) >= 4
    assert run_0["figures"] == shown


def test_another_run_has_other_seeds(run_0: dict[str, Any], tmp_path: Path) -> None:
    other = alone(1, tmp_path)
    assert [t["title"] for t in other["trainings"]] == [t["title"] for t in run_0["trainings"]]
    for one, two in zip(run_0["trainings"], other["trainings"], strict=True):
        assert one["loss"] != two["loss"]
        assert (one["steps"], one["parameters"]) == (two["steps"], two["parameters"])


def test_exercises_are_solved_checks_left_out_and_helpers_brought(tmp_path: Path) -> None:
    notebook = small(
        tmp_path,
        "from workbook.results import report\nreport('twice', double(21), 'units', digits=0)",
        "import os\nopen('left.txt', 'w').write(__name__)",
    )
    told = record.run(notebook, "smoke", 0, tmp_path)
    assert [figure["values"] for figure in told["figures"]] == [[42.0]]
    assert told["peak"]["host"] > 1e7
    # What a notebook writes goes where nobody keeps it.
    assert not list(tmp_path.rglob("left.txt"))
    assert "autograder" in sys.modules
    assert sys.modules["autograder"].__file__


def test_a_cell_that_fails_is_named_with_its_line(tmp_path: Path) -> None:
    notebook = small(tmp_path, "x = 1\nx / 0")
    with pytest.raises(record.RecordError, match=r"(?s)01_twice, cell 5 failed.*line 2.*x / 0"):
        record.run(notebook, "smoke", 0, tmp_path)


def test_a_library_that_is_missing_is_named_as_pip_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    notebook = small(tmp_path, "import sklearn")
    with pytest.raises(record.RecordError, match=r"needs scikit-learn.*pip install scikit-learn"):
        record.run(notebook, "smoke", 0, tmp_path)


def test_the_command_writes_a_record_with_all_that_it_depends_on(tmp_path: Path) -> None:
    small(
        tmp_path,
        "from torch import nn\nimport torch\nfrom workbook import budget\n"
        "from workbook.training import train\n"
        "size = budget.choose(smoke=dict(steps=250, rate=(0.1, 0.2)),\n"
        "    cpu=dict(steps=1, rate=(1, 1)), gpu=dict(steps=2, rate=(1, 1)))\n"
        "budget.seed(0)\n"
        "history = train(nn.Linear(2, 1), lambda g: (torch.randn(3, 2, generator=g),),\n"
        "    lambda model, x: model(x).square().mean(), steps=size['steps'], title='to zero',\n"
        "    evaluate=lambda model: {'bias': model.bias.item()}, every=125)",
        "from workbook.results import report\n"
        "report('loss at the end', history.loss[-1], 'units', digits=3, published='0, by reason')",
    )
    to = tmp_path / "results"
    command = ["1", "--budget", "smoke", "--seeds", "2", "--to", str(to)]
    assert record.main(command, tmp_path) == 0
    (path,) = to.iterdir()
    assert path.name == "01_twice.smoke.json"
    found = json.loads(path.read_text())
    assert found["configuration"] == {"size": {"steps": 250, "rate": [0.1, 0.2]}}
    assert found["seeds"] == [0, 1]
    assert [run["seconds"] > 0 for run in found["runs"]] == [True, True]
    assert [len(values) for figure in found["figures"] for values in figure["values"]] == [1, 1]
    assert [training["run"] for training in found["trainings"]] == [0, 1]
    first = found["trainings"][0]
    assert (first["steps"], first["parameters"], first["title"]) == (250, 3, "to zero")
    assert len(first["loss"]) <= record.POINTS
    assert first["loss"][-1][0] == 250
    assert [step for step, _ in first["evaluations"]] == [125, 250]
    assert found["versions"]["torch"]
    assert found["command"] == "python -m workbook.record 01_twice --budget smoke --seeds 2"
    assert found["finished"][:2] == "20"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["99"], "There is no chapter '99'. There are: 01_attention"),
        (["gpt"], "There is no chapter"),
    ],
)
def test_an_unknown_chapter_is_refused(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record.main(arguments) == 1
    assert says in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small(tmp_path, "raise SystemExit('it ran')")
    (tmp_path / "file").write_text("")
    assert record.main(["1", "--to", str(tmp_path / "file")], tmp_path) == 1
    assert "cannot be written to" in capsys.readouterr().err


def test_a_run_that_is_killed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    command = ["1", "--budget", "smoke", "--to", str(tmp_path)]
    assert record.main(command, tmp_path) == 1
    assert "was ended from outside" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))


# --- what a record is of --------------------------------------------------------------------


@pytest.mark.parametrize("chapter", [path.name for path in sorted((ROOT / "chapters").iterdir())])
@pytest.mark.parametrize("budget", ["smoke", "cpu", "gpu"])
def test_every_choice_of_every_chapter_is_part_of_its_configuration(
    chapter: str, budget: str
) -> None:
    notebook = record.notebook_of(chapter)
    calls = notebook.read_text(encoding="utf-8").count("budget.choose(")
    found = record.configuration_of(notebook, budget)
    # In the text around them, some chapters also speak of it.
    assert 1 <= len(found) <= calls
    assert all(
        found != record.configuration_of(notebook, other) for other in {"smoke", "gpu"} - {budget}
    )


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_committed_record_is_of_the_notebook_as_it_is(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    assert record.stale(found) == ""
    assert found["seeds"] == list(range(len(found["runs"])))
    assert path.name == record.name_of(found)
    assert not found["commit"].endswith("+"), "recorded with changes that no commit has"
    assert found["figures"]
    assert all(len(figure["values"]) <= len(found["runs"]) for figure in found["figures"])
    assert found["trainings"]


def test_a_chapter_has_a_record_at_the_budget_of_a_cpu() -> None:
    named = {path.name for path in RECORDS}
    chapters = [path.name for path in sorted((ROOT / "chapters").iterdir())]
    assert [name for name in chapters if f"{name}.cpu.json" not in named] == []


def test_a_record_of_another_configuration_is_refused(tmp_path: Path) -> None:
    found = {
        "format": record.FORMAT,
        "chapter": "01_twice",
        "budget": "cpu",
        "configuration": {"steps": 100},
        "command": "python -m workbook.record 01_twice --budget cpu --seeds 2",
    }
    cell = "from workbook import budget\nsteps = budget.choose(smoke=1, cpu={}, gpu=9)"
    small(tmp_path / "same", cell.format(100))
    small(tmp_path / "other", cell.format(200))
    assert record.stale(found, tmp_path / "same") == ""
    why = record.stale(found, tmp_path / "other")
    assert "made with steps = 100, and the notebook has 200" in why
    assert "python -m workbook.record 01_twice --budget cpu --seeds 2" in why
    assert "format" in record.stale({**found, "format": 0}, tmp_path / "same")
    folder = tmp_path / "other" / records.FOLDER
    folder.mkdir(parents=True)
    (folder / "01_twice.cpu.json").write_text(json.dumps(found))
    with pytest.raises(records.StaleRecord, match=r"01_twice\.cpu\.json is out of date.*200"):
        records.read(tmp_path / "other")


def test_what_is_no_constant_is_part_of_a_configuration_as_text(tmp_path: Path) -> None:
    notebook = small(
        tmp_path,
        "text = text[: budget.choose(smoke=3, cpu=None, gpu=len(words))]\n"
        "sizes = {'a': budget.choose(smoke={'n': 1}, cpu={'n': 2}, gpu={'n': 3}),\n"
        "         'b': budget.choose(smoke=dict(n=4), cpu=dict(n=5), gpu=dict(n=f(6)))}\n"
        "run(budget.choose(smoke=7, cpu=8, gpu=9))",
    )
    found = record.configuration_of(notebook, "gpu")
    assert found == {"text": "len(words)", "sizes": {"n": 3}, "sizes 2": {"n": "f(6)"}, "run": 9}


# --- on the pages ---------------------------------------------------------------------------


def made(**changes: Any) -> dict[str, Any]:
    """A record."""
    figure = {"unit": "%", "digits": 1, "published": "", "differs": ""}
    training = {"run": 0, "seed": 0, "parameters": 10, "steps": 20, "seconds": 3.0}
    training |= {"loss": [[10, 2.5], [20, 1.25]], "evaluations": []}
    return {
        "chapter": "01_twice",
        "budget": "gpu",
        "figures": [
            {"name": "accuracy", "values": [[80.0, 82.0], [84.0]], **figure, "published": "90, X"},
            {"name": "only here", "values": [[1.0]], **figure},
        ],
        "trainings": [
            {**training, "title": "short", "steps": 1},
            {**training, "title": "long"},
            {**training, "title": "long", "run": 1, "seconds": 5.0},
        ],
        "data": {"cifar10-jpeg.tar.xz": "ab" * 32},
        "runs": [
            {"seconds": 100.0, "peak_bytes": {"host": 9e9, "device": 2e9}},
            {"seconds": 140.0, "peak_bytes": {"host": 9e9, "device": 3e9}},
        ],
        "machine": {"device": "NVIDIA H200", "cores": 16, "threads": 8},
        "versions": {"python": "3.12.1", "torch": "2.11.0"},
        "commit": "abc",
        "command": "python -m workbook.record 01_twice --budget gpu --seeds 2",
        "finished": "2026-01-02 03:04",
    } | changes


def test_a_section_says_what_was_measured_on_what_and_how_to_repeat_it() -> None:
    text = records.section([made()])
    assert "| accuracy | **82.0 % (80.0 to 84.0, 3 seeds)** | 90, X |" in text
    assert "**NVIDIA H200, JPEG pictures.** One card; budget `gpu`; 2 runs; Python 3.12.1" in text
    assert "the whole notebook 2.0 minutes a run, at most 3.0 GB" in text
    assert "cifar10-jpeg.tar.xz, whose sha256 begins with abababababab" in text
    assert "not those of the official archive" in text
    assert "`python -m workbook.record 01_twice --budget gpu --seeds 2`" in text
    assert (
        "Loss of &#x27;long&#x27; against the step, 2 runs of 10 parameters: the first from 2.5 to "
        "1.25 in 20 steps, which took 4 s on average." in text
    )
    assert "JPEG" not in records.section([made(data={})])


def test_what_does_not_depend_on_the_seed_has_no_range() -> None:
    figure = {"unit": "million", "digits": 1, "values": [[63.08], [63.08]]}
    assert records.measured(figure) == "63.1 million in every run"


def test_a_section_stands_before_further_reading() -> None:
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_markdown_cell("# Twice\n\nText.\n\n## Further reading\n\n- A paper.")
    ]
    records.into(notebook, [made()])
    texts = [cell.source for cell in notebook.cells]
    assert texts[0] == "# Twice\n\nText."
    assert texts[1].startswith("## Recorded runs")
    assert texts[2] == "## Further reading\n\n- A paper."
    assert len({cell.id for cell in notebook.cells}) == 3
    nbformat.validate(notebook)
    untouched = nbformat.v4.new_notebook()
    records.into(untouched, [])
    assert untouched.cells == []
    with pytest.raises(ValueError, match="Further reading"):
        records.into(untouched, [made()])


def test_the_page_of_results_has_both() -> None:
    shown = {"name": "accuracy", "text": "79.0 %", "published": "90, X", "differs": ""}
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_markdown_cell("# Twice"),
        nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", {MIME: shown})]),
    ]
    executed = book.Executed(Chapter(ROOT, "01_twice"), notebook, "cpu", 1.0, "2026-01-02 03:04")
    text = records.results([executed], {"01_twice": [made(data={})]})
    recorded = "NVIDIA H200: 82.0 % (80.0 to 84.0, 3 seeds)"
    assert f"| accuracy | **79.0 %**<br>{recorded} | 90, X |" in text
    assert "| only here | NVIDIA H200: 1.0 % |  |" in text
