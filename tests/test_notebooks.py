"""Reading sources: stable, complete, and clear about what is malformed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
import tiny

from autograder import notebooks
from autograder.notebooks import SourceError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "01_twice.md"
    path.write_text(tiny.chapter())
    return path


def read(tmp_path: Path, *cells: str, **chapter: object) -> nbformat.NotebookNode:
    path = tmp_path / "source.md"
    path.write_text(tiny.chapter(*cells, **chapter))
    return notebooks.read_source(path)


def test_reading_twice_gives_the_same_bytes(source: Path) -> None:
    first, second = (notebooks.write(notebooks.read_source(source)) for _ in range(2))
    assert first == second
    nbformat.validate(nbformat.reads(first, as_version=4))


def test_cell_ids_are_grade_ids_or_positions(source: Path) -> None:
    ids = [cell.id for cell in notebooks.read_source(source).cells]
    assert ids == ["cell-001", "cell-002", "double-solution", "double-check", "question-even"]


def test_metadata_names_no_version_of_python(source: Path) -> None:
    metadata = notebooks.read_source(source).metadata
    assert metadata.kernelspec.name == "python3"
    assert "version" not in metadata.language_info
    assert "jupytext" not in metadata


def test_a_graded_cell_tells_its_exercise_and_component(source: Path) -> None:
    cells = {cell.id: cell for cell in notebooks.read_source(source).cells}
    assert notebooks.exercise_of(cells["double-check"]) == "numbers/double"
    assert notebooks.component_of(cells["double-check"]) == "double"
    assert notebooks.exercise_of(cells["double-solution"]) is None
    assert notebooks.exercise_of(cells["cell-001"]) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('autograder.check("a/b", b)', "a/b"),
        ("# check('a/b', b)", None),
        ("check(name, b)", None),
        ("check(", None),
        ("print('check')", None),
    ],
)
def test_the_exercise_is_parsed_and_never_guessed(text: str, found: str | None) -> None:
    cell = nbformat.v4.new_code_cell(text)

    assert notebooks.exercise_of(cell) == found


def test_clearing_removes_every_secret_and_keeps_outputs(source: Path) -> None:
    notebook = notebooks.read_source(source)
    output = nbformat.v4.new_output("stream", text="kept")
    notebook.cells[3].outputs = [output]
    cleared = notebooks.clear(notebook)
    text = notebooks.write(cleared)
    assert not [secret for secret in tiny.SECRETS if secret in text]
    assert "YOUR CODE HERE" in text
    assert "YOUR ANSWER HERE" in text
    assert "Why is twice a number even?" in text
    assert cleared.cells[3].outputs == [output]
    assert "secret_factor" in notebooks.write(notebook), "the original is left alone"


def test_markers_can_be_taken_from_a_solution() -> None:
    text = notebooks.without_markers(tiny.SOLUTION)
    assert "secret_factor" in text
    assert "SOLUTION" not in text
    assert "Secret mark" not in notebooks.without_markers(tiny.QUESTION)


def test_a_missing_source_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.md is missing"):
        notebooks.read_source(tmp_path / "nowhere.md")


def test_a_folder_without_its_source_says_so(tmp_path: Path) -> None:
    tiny.course(tmp_path)
    (tmp_path / "solutions" / "02_thrice").mkdir()
    with pytest.raises(SourceError, match=r"solutions/02_thrice/02_thrice\.md is missing"):
        notebooks.chapters(tmp_path)


def test_an_unknown_chapter_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no chapter 02_other.*There is: 01_twice"):
        notebooks.chapters(tiny.course(tmp_path), ["02_other"])


def test_a_place_outside_any_course_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not inside a course"):
        notebooks.course_root(tmp_path)


def test_a_config_that_does_not_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "nbgrader_config.py").write_text("c = get_config(\n")
    with pytest.raises(SourceError, match=r"nbgrader_config\.py does not load"):
        notebooks.settings(tmp_path)


MALFORMED = {
    "a grade_id used twice": (
        [tiny.code("x = 1", tiny.marks("double-check", locked=True))],
        {},
        "grade_id 'double-check' is used 2 times",
    ),
    "a grade_id that no id can have": (
        [tiny.code("x = 1", tiny.marks("'two words'", locked=True))],
        {},
        "needs a grade_id of letters",
    ),
    "no schema version": (
        [tiny.code("x = 1", {"grade_id": "x", "locked": True})],
        {},
        "schema_version: 3",
    ),
    "no points": ([], {"points": "null"}, "needs points: N"),
    "negative points": ([], {"points": -1}, "needs points: N"),
    "a check of a computed id": ([], {"check": "check(name, double)"}, "exactly one call"),
    "a graded cell with two checks": (
        [],
        {"check": 'check("numbers/double", double)\ncheck("numbers/double", double)'},
        "holds 2",
    ),
    "another component": ([], {"check": 'check("numbers/double", triple)'}, "'triple'"),
    "an id without a prefix": ([], {"check": 'check("double", double)'}, "<prefix>/<component>"),
    "a solution outside a solution cell": (
        [tiny.code("### BEGIN SOLUTION\nx = 1\n### END SOLUTION")],
        {},
        "does not say solution: true",
    ),
    "a solution that does not end": (
        [tiny.code("### BEGIN SOLUTION\nx = 1", tiny.marks("x", solution=True))],
        {},
        "BEGIN SOLUTION without END SOLUTION",
    ),
    "a solution that does not begin": (
        [tiny.code("x = 1\n### END SOLUTION", tiny.marks("x", solution=True))],
        {},
        "END SOLUTION without BEGIN SOLUTION",
    ),
    "a solution in a solution": (
        [
            tiny.code(
                "### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION",
                tiny.marks("x", solution=True),
            )
        ],
        {},
        "second BEGIN SOLUTION",
    ),
    "hidden tests in an ordinary cell": (
        [tiny.code("### BEGIN HIDDEN TESTS\nx = 1\n### END HIDDEN TESTS")],
        {},
        "does not say grade: true",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_sources_name_file_and_cell(tmp_path: Path, case: str) -> None:
    cells, chapter, message = MALFORMED[case]
    with pytest.raises(SourceError, match=r"source\.md, code cell \d") as error:
        read(tmp_path, *cells, **chapter)
    assert message in str(error.value)


def test_a_classical_cell_of_assertions_is_allowed(tmp_path: Path) -> None:
    notebook = read(tmp_path, check="assert double(2) == 4")
    graded = [cell for cell in notebook.cells if notebooks.is_check(cell)]
    assert [notebooks.exercise_of(cell) for cell in graded] == [None]


def test_a_graded_cell_may_hold_assertions_alone(tmp_path: Path) -> None:
    cells = {cell.id: cell for cell in read(tmp_path, check="assert double([1]) == [2]").cells}
    assert notebooks.is_check(cells["double-check"])
    assert notebooks.exercise_of(cells["double-check"]) is None


def test_broken_cell_metadata_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "source.md"
    path.write_text(tiny.chapter("```{code-cell} ipython3\n---\nnbgrader: [\n---\nx = 1\n```\n"))
    with pytest.raises(SourceError, match=r"source\.md is not a MyST notebook"):
        notebooks.read_source(path)


def test_an_unknown_exercise_is_named(tmp_path: Path) -> None:
    notebook = read(tmp_path, check='check("numbers/triple", triple)')
    with pytest.raises(SourceError, match=r"a\.md, code cell 4 'double-check'.*numbers/triple"):
        notebooks.check_points(notebook, "a.md", tiny.find)


def test_points_that_differ_from_the_exercise_are_named(tmp_path: Path) -> None:
    notebook = read(tmp_path, points=3)
    with pytest.raises(SourceError, match="states 3 points, but exercise 'numbers/double' is wort"):
        notebooks.check_points(notebook, "a.md", tiny.find)


def test_points_that_agree_pass(source: Path) -> None:
    notebooks.check_points(notebooks.read_source(source), source, tiny.find)


def test_real_chapters_are_well_formed() -> None:
    found = notebooks.chapters(tiny.ROOT)
    assert [chapter.name for chapter in found][:1] == ["01_attention"]
    for chapter in found:
        notebooks.check_points(notebooks.read_source(chapter.source), chapter.source)


def test_several_threads_may_parse_at_once() -> None:
    """Python 3.11's parser raises SystemError where two threads parse large texts."""
    sources = [
        "\n".join(f"x{i} = [[{i}, (a + b) * {i}], {{'k': f(x={j})}}]" for i in range(300))
        for j in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        trees = list(pool.map(notebooks.parse, sources * 10))
    assert all(len(tree.body) == 300 for tree in trees)
    assert len(notebooks.parse("%time x = 1\n!ls").body) == 2
    assert notebooks.python_of("x = 1") == "x = 1"
    assert "get_ipython()" in notebooks.python_of("%time x = 1")
