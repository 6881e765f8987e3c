"""Chapter sources as notebooks: the one place that reads, checks and clears them.

A chapter is one MyST file, ``solutions/01_attention/01_attention.md``. Release, book and grading
all see it through this module, so that a cell has the same id wherever it appears.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from traitlets.config import Config, PyFileConfigLoader

CONFIG_NAME = "nbgrader_config.py"
_NO_PLACES = {"course_id", "ignore", "groupshared"}  # of its settings of a course's folder

# Written out instead of taken from the running kernel: a notebook must not change with the
# Python version of whoever released it.
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}

# Files beside a source that never travel with it: the source itself (it holds the solutions),
# and what running it leaves behind.
NOT_ASSETS = ("*.md", "*.ipynb", "*.pyc", "__pycache__", ".*", "my_blocks", "feedback")

_CHAPTER_NAME = re.compile(r"\d\d_[a-z0-9_]+")
_GRADE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SourceError(Exception):
    """A chapter's source cannot be used; the text names file and cell, and says what to do."""


@dataclass(frozen=True)
class Chapter:
    """Where a chapter's source is, and where its learner notebook goes."""

    root: Path
    name: str

    @property
    def source(self) -> Path:
        """``solutions/01_attention/01_attention.md``"""
        return self.root / "solutions" / self.name / f"{self.name}.md"

    @property
    def released(self) -> Path:
        """``chapters/01_attention/01_attention.ipynb``"""
        return self.root / "chapters" / self.name / f"{self.name}.ipynb"

    @property
    def assets(self) -> list[Path]:
        """The files beside the source that its notebook shows, sorted."""
        folder = self.source.parent
        return sorted(
            path
            for path in folder.rglob("*")
            if path.is_file()
            and not any(
                Path(part).match(pattern)
                for part in path.relative_to(folder).parts
                for pattern in NOT_ASSETS
            )
        )


def course_root(start: Path | str | None = None) -> Path:
    """The course's folder: the nearest one, from ``start`` upward, that holds ``solutions/``.

    Raises:
        SourceError: there is none.
    """
    here = Path(start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "solutions").is_dir():
            return folder
    raise SourceError(
        f"{here} is not inside a course: neither it nor a folder above it holds solutions/. "
        "Change to your clone of the course and try again."
    )


def chapters(root: Path | str | None = None, names: Iterable[str] | None = None) -> list[Chapter]:
    """The course's chapters in order, or those called ``names``.

    Raises:
        SourceError: a name is unknown, or a folder in ``solutions/`` lacks its source.
    """
    root = course_root(root)
    found = [
        Chapter(root, folder.name)
        for folder in sorted((root / "solutions").iterdir())
        if folder.is_dir() and _CHAPTER_NAME.fullmatch(folder.name)
    ]
    for chapter in found:
        if not chapter.source.is_file():
            raise SourceError(
                f"{chapter.source.relative_to(root)} is missing. "
                f"Write it, or remove the folder solutions/{chapter.name}."
            )
    if names is None:
        return found
    known = {chapter.name: chapter for chapter in found}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SourceError(
            f"There is no chapter {', '.join(unknown)} in {root / 'solutions'}. "
            f"There is: {', '.join(known) or 'none'}."
        )
    return [known[name] for name in names]


def settings(root: Path | str, places: bool = True) -> Config:
    """What the course asks of nbgrader: ``default_config`` and then its ``nbgrader_config.py``.

    Args:
        root: the course.
        places: whether to keep those that name a folder or narrow the choice of submissions.

    Raises:
        SourceError: the file does not load.
    """
    config = default_config()
    path = Path(root) / CONFIG_NAME
    if not path.is_file():
        return config
    try:
        config.merge(PyFileConfigLoader(path.name, path=str(path.parent)).load_config())
        for name in () if places else set(config.CourseDirectory) - _NO_PLACES:
            del config.CourseDirectory[name]
        return config
    except Exception as error:
        raise SourceError(f"{path} does not load: {type(error).__name__}: {error}") from error


def find_plugins(root: Path | str) -> None:
    """Lets a course's own nbgrader plugins be found beside its settings, as nbgrader does."""
    if str(root) not in sys.path:
        sys.path.append(str(root))


def imported_modules(notebook: NotebookNode) -> list[str]:
    """The modules that a notebook's cells import, in order."""
    found: dict[str, None] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        try:
            tree = parse(cell.source)
        except SyntaxError:  # magics; what such a cell imports is imported when it runs
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found.update(dict.fromkeys(alias.name for alias in node.names))
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found[node.module] = None
    return list(found)


# --- what a cell is -------------------------------------------------------------------------


def mark(cell: NotebookNode) -> dict[str, Any]:
    """The cell's nbgrader metadata; empty for an ordinary cell."""
    return cell.metadata.get("nbgrader", {})


def grade_id(cell: NotebookNode) -> str | None:
    """nbgrader's name for the cell, as in ``softmax-check``."""
    return mark(cell).get("grade_id")


def is_graded(cell: NotebookNode) -> bool:
    """Whether the cell carries points."""
    return bool(mark(cell).get("grade") or mark(cell).get("task"))


def is_solution(cell: NotebookNode) -> bool:
    """Whether the learner writes in the cell."""
    return bool(mark(cell).get("solution"))


def is_manual(cell: NotebookNode) -> bool:
    """Whether a person grades the cell."""
    return bool(mark(cell).get("task")) or (is_graded(cell) and is_solution(cell))


def is_check(cell: NotebookNode) -> bool:
    """Whether the cell's points come from its ``check(...)`` call."""
    return is_graded(cell) and not is_manual(cell) and cell.cell_type == "code"


_parsing = threading.Lock()


def parse(source: str) -> ast.Module:
    """The syntax tree of a code cell, with IPython's magics turned into plain calls.

    Several threads may call it: Python 3.11's own parser fails at times where two of them parse.

    Raises:
        SyntaxError, ValueError: it is not Python.
    """
    with _parsing:
        # Most cells are plain Python, and trying takes less time than translating.
        with contextlib.suppress(SyntaxError):
            return ast.parse(source)
        return ast.parse(_magics()(source))


def python_of(source: str) -> str:
    """A code cell as plain Python, its magics turned into calls."""
    with _parsing, contextlib.suppress(SyntaxError, ValueError):
        ast.parse(source)
        return source
    return _magics()(source)


@cache
def _magics() -> Callable[[str], str]:
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell


def _checks(cell: NotebookNode) -> list[ast.Call]:
    if cell.cell_type != "code" or "check" not in cell.source:
        return []
    try:
        tree = parse(cell.source)
    except SyntaxError:
        return []
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id == "check")
            or (isinstance(node.func, ast.Attribute) and node.func.attr == "check")
        )
        and len(node.args) == 2
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    ]


def exercise_of(cell: NotebookNode) -> str | None:
    """The exercise that the cell checks: ``attention/softmax`` of
    ``check("attention/softmax", softmax)``; None where it checks nothing."""
    calls = _checks(cell)
    return calls[0].args[0].value if calls else None


def component_of(cell: NotebookNode) -> str | None:
    """The name of what the cell checks: ``softmax`` of
    ``check("attention/softmax", softmax)``; None where it checks nothing by name."""
    calls = _checks(cell)
    return calls[0].args[1].id if calls and isinstance(calls[0].args[1], ast.Name) else None


# --- reading --------------------------------------------------------------------------------


def read_source(path: Path | str) -> NotebookNode:
    """A MyST source as an nbformat 4.5 notebook that holds everything, solutions included.

    A cell's id is its grade id, else its position (``cell-007``), so reading the same text
    always gives the same bytes.

    Raises:
        SourceError: the file is missing, does not parse, or its grading metadata is malformed.
    """
    import jupytext

    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SourceError(f"{path} is missing. Write it, or correct its name.") from None
    try:
        notebook = jupytext.reads(text, fmt="md:myst")
    except Exception as error:
        raise SourceError(
            f"{path} is not a MyST notebook: {error}. "
            "Correct the cell's YAML between its two --- lines."
        ) from error
    kept = {
        key: value
        for key, value in notebook.metadata.items()
        if key not in ("jupytext", "kernelspec", "language_info")
    }
    notebook.metadata = nbformat.from_dict(
        {**kept, "kernelspec": KERNELSPEC, "language_info": LANGUAGE_INFO}
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    _validate(notebook, path)
    for position, cell in enumerate(notebook.cells, start=1):
        cell.id = grade_id(cell) or f"cell-{position:03d}"
        if mark(cell):
            cell.metadata.nbgrader.setdefault("cell_type", cell.cell_type)
    return notebook


def place(path: Path | str, position: int, cell: NotebookNode) -> str:
    """Names a cell in an error: file, position, grade id, first line."""
    first = cell.source.strip().splitlines()[0][:60] if cell.source.strip() else "empty"
    name = f" {grade_id(cell)!r}" if grade_id(cell) else ""
    return f"{path}, {cell.cell_type} cell {position}{name} ({first})"


def _validate(notebook: NotebookNode, path: Path) -> None:
    names = Counter(grade_id(cell) for cell in notebook.cells if grade_id(cell))
    for position, cell in enumerate(notebook.cells, start=1):
        here = place(path, position, cell)
        _validate_regions(cell, here)
        if not mark(cell):
            continue
        name = grade_id(cell)
        if not isinstance(name, str) or not _GRADE_ID.fullmatch(name):
            raise SourceError(
                f"{here}: the nbgrader metadata needs a grade_id of letters, digits, - and _, "
                f"at most 64; it has {name!r}."
            )
        if names[name] > 1:
            raise SourceError(
                f"{here}: grade_id {name!r} is used {names[name]} times. Give each cell its own."
            )
        if mark(cell).get("schema_version") != 3:
            raise SourceError(f"{here}: add schema_version: 3 to its nbgrader metadata.")
        if is_graded(cell):
            points = mark(cell).get("points")
            if isinstance(points, bool) or not isinstance(points, int | float) or points < 0:
                raise SourceError(
                    f"{here}: a graded cell needs points: N with N of 0 or more; it has {points!r}."
                )
        if is_check(cell):
            _validate_check(cell, here)


def _validate_check(cell: NotebookNode, here: str) -> None:
    calls = _checks(cell)
    if not calls and "check(" not in cell.source:
        return  # a classical nbgrader cell of assertions
    if len(calls) != 1:
        raise SourceError(
            f"{here}: a graded cell holds exactly one call of the form "
            f'check("attention/softmax", softmax), or assertions alone; this one holds '
            f"{len(calls)} such calls."
        )
    exercise, component = exercise_of(cell), component_of(cell)
    if exercise.count("/") != 1 or exercise.split("/")[1] != component:
        raise SourceError(
            f"{here}: checks {exercise!r} with {component!r}. The exercise's id must be "
            "<prefix>/<component>, and the second argument that component."
        )


_REGIONS: Sequence[tuple[str, Callable[[NotebookNode], bool], str]] = (
    ("SOLUTION", is_solution, "solution: true"),
    ("HIDDEN TESTS", is_graded, "grade: true"),
    ("MARK SCHEME", is_graded, "grade: true"),
)


def _validate_regions(cell: NotebookNode, here: str) -> None:
    for words, allowed, remedy in _REGIONS:
        is_open = False
        for line in cell.source.splitlines():
            if f"BEGIN {words}" in line:
                if is_open:
                    raise SourceError(f"{here}: a second BEGIN {words} before END {words}.")
                if not allowed(cell):
                    raise SourceError(
                        f"{here}: BEGIN {words} in a cell whose nbgrader metadata does not say "
                        f"{remedy}. Add it, or move the region."
                    )
                is_open = True
            elif f"END {words}" in line:
                if not is_open:
                    raise SourceError(f"{here}: END {words} without BEGIN {words} above it.")
                is_open = False
        if is_open:
            raise SourceError(f"{here}: BEGIN {words} without END {words} below it.")


def check_points(
    notebook: NotebookNode, path: Path | str, find: Callable[[str], Any] | None = None
) -> None:
    """Holds the notebook's graded cells against the exercises that they check.

    Args:
        notebook: as ``read_source`` gives it.
        path: its file, for the error.
        find: exercise id -> object with ``points``, raising KeyError for an unknown id; the
            registered exercises where None.

    Raises:
        SourceError: a cell checks an unknown exercise, or states other points than it has.
    """
    if find is None:
        from autograder.exercise import find as registered

        find = registered
    for position, cell in enumerate(notebook.cells, start=1):
        exercise_id = exercise_of(cell)
        if exercise_id is None:
            continue
        here = place(path, position, cell)
        try:
            exercise = find(exercise_id)
        except KeyError as error:
            raise SourceError(
                f"{here}: {error} Correct the id, or add the exercise to autograder/exercises/."
            ) from None
        if is_check(cell) and float(mark(cell)["points"]) != float(exercise.points):
            raise SourceError(
                f"{here}: states {mark(cell)['points']} points, but exercise {exercise_id!r} is "
                f"worth {exercise.points:g}. Make both the same."
            )


# --- clearing -------------------------------------------------------------------------------


def clear(notebook: NotebookNode, config: Config | None = None) -> NotebookNode:
    """A copy without solutions, hidden tests and mark schemes; outputs stay.

    nbgrader's own preprocessors do it, so that the book clears exactly what a release clears.
    """
    from nbgrader.preprocessors import ClearHiddenTests, ClearMarkScheme, ClearSolutions

    cleared = copy.deepcopy(notebook)
    config = config or default_config()
    for preprocessor in (ClearSolutions, ClearHiddenTests, ClearMarkScheme):
        cleared, _ = preprocessor(config=config).preprocess(cleared, {})
    return cleared


def default_config() -> Config:
    """What this course's notebooks need of nbgrader beyond its defaults."""
    config = Config()
    # A mark scheme stands in the manual question's own cell, which nbgrader does not count as a
    # task cell; it is to be removed from there all the same.
    config.ClearMarkScheme.enforce_metadata = False
    config.CourseDirectory.ignore = list(NOT_ASSETS)
    return config


def without_markers(source: str) -> str:
    """A solution cell's source without its BEGIN/END lines, mark scheme left out."""
    lines = []
    in_scheme = False
    for line in source.splitlines():
        if "BEGIN MARK SCHEME" in line:
            in_scheme = True
        elif "END MARK SCHEME" in line:
            in_scheme = False
        elif not (in_scheme or "BEGIN SOLUTION" in line or "END SOLUTION" in line):
            lines.append(line)
    return "\n".join(lines)


def defined_in(source: str) -> set[str]:
    """The names that a code cell defines at its top level: functions, classes, assignments."""
    names: set[str] = set()
    for node in parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                names.update(part.id for part in ast.walk(target) if isinstance(part, ast.Name))
    return names


def write(notebook: NotebookNode) -> str:
    """The notebook as text: sorted keys, one space of indent, a final newline."""
    return nbformat.writes(notebook, version=4, indent=1, sort_keys=True) + "\n"


def title_of(notebook: NotebookNode) -> str:
    """The text of the notebook's first ``# heading``; empty where there is none."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found = re.search(r"^#\s+(.+?)\s*$", cell.source, flags=re.MULTILINE)
            if found:
                return found.group(1)
    return ""


def carried(node: ast.stmt) -> str:
    """The exercise whose component ``name = block("prefix/name")`` carries over, or nothing."""
    match node:
        case ast.Assign(
            targets=[ast.Name(id=name)],
            value=ast.Call(func=ast.Name(id="block"), args=[ast.Constant(value=str(exercise))]),
        ) if exercise.endswith(f"/{name}"):
            return exercise
    return ""
