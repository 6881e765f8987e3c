"""Release: the same bytes each time, no secret in them, nobody's work lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
import tiny

from autograder import notebooks
from autograder import release as releasing
from autograder.notebooks import SourceError
from autograder.release import Release

NOTEBOOK = Path("chapters/01_twice/01_twice.ipynb")


@pytest.fixture
def course(tmp_path: Path) -> Path:
    return tiny.course(tmp_path)


@pytest.fixture
def release(course: Path) -> Callable[..., Release]:
    def run(**options: object) -> Release:
        return releasing.release(course, find=tiny.find, say=lambda line: None, **options)

    return run


def test_releasing_twice_changes_no_byte(course: Path, release: Callable[..., Release]) -> None:
    assert release().changed
    first = tiny.everything_in(course)
    times = {path: path.stat().st_mtime_ns for path in course.rglob("*")}
    again = release()
    assert not again.changed
    assert not again.stale
    assert tiny.everything_in(course) == first
    assert {path: path.stat().st_mtime_ns for path in course.rglob("*")} == times


def test_another_folder_and_hash_seed_give_the_same_bytes(
    course: Path, release: Callable[..., Release], tmp_path_factory: pytest.TempPathFactory
) -> None:
    release()
    other = tiny.course(tmp_path_factory.mktemp("elsewhere"))
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); import tiny\n"
        "from autograder.release import release\n"
        "release(sys.argv[1], find=tiny.find)"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(other), str(Path(tiny.__file__).parent)],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert tiny.everything_in(other) == tiny.everything_in(course)


def test_a_release_holds_no_secret_and_no_stray_file(
    course: Path, release: Callable[..., Release]
) -> None:
    release()
    files = tiny.everything_in(course / "chapters")
    assert set(files) == {"01_twice/01_twice.ipynb", "01_twice/picture.svg"}
    text = b"".join(files.values()).decode()
    assert not [secret for secret in tiny.SECRETS if secret in text]


def test_a_released_notebook_is_valid_and_locked(
    course: Path, release: Callable[..., Release]
) -> None:
    release()
    notebook = nbformat.read(course / NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = {cell.id: cell for cell in notebook.cells}
    assert cells["double-check"].source == 'check("numbers/double", double)'
    assert cells["double-check"].metadata.editable is False
    assert cells["double-check"].metadata.nbgrader.checksum
    assert cells["double-solution"].source.endswith("raise NotImplementedError()")
    assert "[Body, 2000]" in cells["cell-001"].source
    assert "<summary>Hint</summary>" in cells["cell-001"].source
    assert (course / NOTEBOOK).stat().st_mode & 0o600 == 0o600


def test_check_finds_a_stale_chapter_and_writes_nothing(
    course: Path, release: Callable[..., Release]
) -> None:
    release()
    source = course / "solutions/01_twice/01_twice.md"
    source.write_text(source.read_text().replace("# Twice", "# Two times"))
    before = tiny.everything_in(course)
    result = release(check=True)
    assert result.stale
    assert '-    "# Twice\\n",' in result.diff
    assert '+    "# Two times\\n",' in result.diff
    assert tiny.everything_in(course) == before


def test_check_finds_an_edited_and_a_missing_notebook(
    course: Path, release: Callable[..., Release]
) -> None:
    release()
    path = course / NOTEBOOK
    path.write_text(path.read_text().replace("Twice", "Thrice"))
    assert release(check=True).stale
    path.unlink()
    assert release(check=True).changed == [path]


def test_the_command_exits_1_with_a_diff_where_stale(
    course: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("autograder.exercise.find", tiny.find)
    assert releasing.main(["--root", str(course)]) == 0
    assert releasing.main(["--root", str(course), "--check"]) == 0
    (course / "workbook/ready/numbers.py").write_text("double = None\n")
    capsys.readouterr()
    assert releasing.main(["--root", str(course), "--check"]) == 1
    shown = capsys.readouterr().out
    assert "-double = None" in shown
    assert "autograder release" in shown


def test_the_command_names_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("autograder.exercise.find", tiny.find)
    course = tiny.course(tmp_path, tiny.chapter(points=5))
    assert releasing.main(["--root", str(course)]) == 1
    captured = capsys.readouterr()
    assert "01_twice.md, code cell 4 'double-check'" in captured.err
    assert "states 5 points" in captured.err
    assert not (course / "chapters").exists(), "an error leaves nothing half done"


def test_released_notebooks_without_a_source_are_removed(
    course: Path, release: Callable[..., Release]
) -> None:
    release()
    (course / "chapters/09_gone").mkdir()
    gone = course / "chapters/09_gone/09_gone.ipynb"
    gone.write_bytes((course / NOTEBOOK).read_bytes())
    ready = course / "workbook/ready/gone.py"
    ready.write_text("")
    assert release(check=True).removed == [gone, ready]
    assert release().removed == [gone, ready]
    assert not gone.parent.exists()


def test_a_notebook_with_work_in_it_is_never_overwritten(
    course: Path, release: Callable[..., Release]
) -> None:
    release()
    notebook = nbformat.read(course / NOTEBOOK, as_version=4)
    notebook.cells[2].source = "def double(numbers):\n    return [2 * n for n in numbers]"
    (course / NOTEBOOK).write_text(nbformat.writes(notebook))
    mine = (course / NOTEBOOK).read_bytes()
    result = release()
    assert "holds somebody's work" in result.notes[0]
    assert (course / NOTEBOOK).read_bytes() == mine
    assert release(check=True).stale


def test_a_notebook_that_was_run_is_never_overwritten(
    course: Path, release: Callable[..., Release]
) -> None:
    release()
    notebook = nbformat.read(course / NOTEBOOK, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="mine")]
    (course / NOTEBOOK).write_text(nbformat.writes(notebook))
    assert release().notes


def test_files_of_nobody_are_reported_and_left(
    course: Path, release: Callable[..., Release]
) -> None:
    release()
    own = course / "chapters/01_twice/Untitled.ipynb"
    own.write_text("{}")
    (course / "chapters/my_blocks/numbers").mkdir(parents=True)
    (course / "chapters/my_blocks/numbers/double.py").write_text("double = 1\n")
    (course / "chapters/01_twice/.ipynb_checkpoints").mkdir()
    (course / "chapters/01_twice/.ipynb_checkpoints/a.ipynb").write_text("{}")
    result = release()
    assert [note.split()[0] for note in result.notes] == ["chapters/01_twice/Untitled.ipynb"]
    assert own.exists()


def test_one_chapter_can_be_released_alone(course: Path, release: Callable[..., Release]) -> None:
    release()
    with pytest.raises(SourceError, match="no chapter 07_other"):
        release(chapters=["07_other"])
    assert not release(chapters=["01_twice"]).changed


def test_ready_made_blocks_run_and_import_only_what_they_use(
    course: Path, release: Callable[..., Release]
) -> None:
    release()
    text = (course / "workbook/ready/numbers.py").read_text()
    assert text.startswith('"""Ready-made blocks of solutions/01_twice/01_twice.md.')
    assert "Do not edit" in text
    assert "import math\n" in text
    assert "IPython" not in text
    assert "check" not in text
    assert "SOLUTION" not in text
    namespace: dict[str, object] = {}
    exec(text, namespace)
    assert namespace["double"]([1.5]) == [3.0]
    assert namespace["__all__"] == ["double"]


def test_a_ready_made_block_needs_its_names_defined(tmp_path: Path) -> None:
    source = tiny.chapter().replace("math.floor(2.7)", "somewhere_else(2)")
    course = tiny.course(tmp_path, source)
    with pytest.raises(SourceError, match="uses 'somewhere_else'"):
        releasing.release(course, find=tiny.find, say=lambda line: None)


def test_an_exercise_needs_its_solution(tmp_path: Path) -> None:
    source = tiny.chapter().replace("def double(", "def twice(")
    course = tiny.course(tmp_path, source)
    with pytest.raises(SourceError, match="no solution cell above it defines double"):
        releasing.release(course, find=tiny.find, say=lambda line: None)


def test_two_chapters_do_not_share_a_prefix(course: Path, release: Callable[..., Release]) -> None:
    other = course / "solutions/02_again/02_again.md"
    other.parent.mkdir()
    other.write_text(tiny.chapter())
    with pytest.raises(SourceError, match="Each prefix belongs to one chapter"):
        release()


def test_an_unknown_citation_is_named(course: Path, release: Callable[..., Release]) -> None:
    (course / "book/references.bib").write_text("")
    with pytest.raises(SourceError, match=r"markdown cell 1.*'somebody2000' is cited"):
        release()


def test_nbgrader_writes_nothing_on_the_terminal(
    course: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    releasing.release(course, find=tiny.find, say=lines.append)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    assert len(lines) == 1
    assert " ".join(lines[0].split()) == "01_twice 2 graded cells 3 points released"


def test_importing_order_is_ruffs(tmp_path: Path) -> None:
    source = tiny.chapter()
    source = source.replace(
        "import math\n", "import torch\nfrom torch import nn, Tensor\nimport math\n"
    )
    source = source.replace("math.floor(2.7)", "int(torch.ones(1)) + math.floor(1 + nn.Module.a)")
    source = source.replace("-> list[float]", "-> Tensor")
    course = tiny.course(tmp_path, source)
    text = releasing.ready_made_source(course, "01_twice")
    block = text[text.index("import math") : text.index("__all__")]
    assert block == (
        "import math\nfrom collections.abc import Sequence\n\n"
        "import torch\nfrom torch import Tensor, nn\n\n"
    )


def test_a_block_that_is_carried_over_becomes_an_import(tmp_path: Path) -> None:
    source = tiny.chapter()
    source = source.replace(
        "import math\n",
        'import math\nfrom workbook.blocks import block\nsoftmax = block("attention/softmax")\n',
    )
    source = source.replace("math.floor(2.7)", "softmax(2.7)")
    text = releasing.ready_made_source(tiny.course(tmp_path, source), "01_twice")
    assert text[text.index("from coll") : text.index("__all__")] == (
        "from collections.abc import Sequence\n\nfrom workbook.ready.attention import softmax\n\n"
    )


@pytest.mark.parametrize("line", ['other = block("attention/softmax")', "softmax = block(2)"])
def test_only_a_plain_line_carries_a_block_over(tmp_path: Path, line: str) -> None:
    source = tiny.chapter().replace("import math\n", f"import math\n{line}\n")
    source = source.replace("math.floor(2.7)", f"{line.split()[0]}(2.7)")
    with pytest.raises(SourceError, match="carry it over"):
        releasing.ready_made_source(tiny.course(tmp_path, source), "01_twice")


def test_the_database_version_is_nbgraders_own() -> None:
    import nbgrader.api

    asked = nbgrader.api.get_alembic_version
    with releasing.tools_on_path():
        quick = nbgrader.api.get_alembic_version()
        assert quick == asked()
    assert nbgrader.api.get_alembic_version is asked


# --- the real course ------------------------------------------------------------------------


def test_the_committed_chapters_are_what_the_sources_give() -> None:
    result = releasing.release(tiny.ROOT, check=True, say=lambda line: None)
    assert not result.stale, f"Run: autograder release\n{result.notes}\n{result.diff[:4000]}"


def test_no_solution_line_is_in_a_released_chapter() -> None:
    for chapter in notebooks.chapters(tiny.ROOT):
        source = notebooks.read_source(chapter.source)
        secret = secret_lines(source)
        assert len(secret) > 5
        released = "\n".join(
            cell.source for cell in nbformat.read(chapter.released, as_version=4).cells
        )
        assert not [line for line in secret if line in released]
        for word in ("BEGIN SOLUTION", "MARK SCHEME", "HIDDEN TESTS"):
            assert word not in released


def test_released_chapters_install_what_is_missing_and_name_no_machine_path() -> None:
    for chapter in notebooks.chapters(tiny.ROOT):
        notebook = nbformat.read(chapter.released, as_version=4)
        first = next(cell for cell in notebook.cells if cell.cell_type == "code")
        assert "setup" in first.metadata.get("tags", [])
        assert "pip install" in first.source or '"pip", "install"' in first.source
        text = json.dumps(notebook)
        assert str(tiny.ROOT) not in text
        assert str(Path.home()) + "/" not in text


def secret_lines(source: nbformat.NotebookNode) -> list[str]:
    """The lines of solutions that stand nowhere a learner may look."""
    cleared = notebooks.clear(source)
    shown = "\n".join(cell.source for cell in cleared.cells)
    lines = set()
    for cell in source.cells:
        if notebooks.is_solution(cell):
            lines.update(line.strip() for line in cell.source.splitlines())
    return sorted(line for line in lines if len(line) > 12 and line not in shown)
