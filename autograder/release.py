"""Release: from the sources to the notebooks that learners open.

``solutions/01_attention/01_attention.md`` becomes ``chapters/01_attention/01_attention.ipynb``
through nbgrader's own assignment generator, and its solution cells become the ready-made blocks in
``workbook/ready/``. The result depends on the sources alone: releasing twice changes no byte.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import contextlib
import difflib
import functools
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from traitlets.config import Config

from autograder import notebooks
from autograder.files import keep
from autograder.markdown import Bibliography, plain
from autograder.notebooks import Chapter, SourceError

# The key in a released notebook's metadata that tells it from one that somebody has worked in.
RELEASED = "transformer_workbook"

# Found beside a learner's notebooks, and nobody's business here.
_LEFT_ALONE = {".ipynb_checkpoints", "my_blocks", "__pycache__"}


@dataclass
class Release:
    """What a release changed, or with ``check`` would change.

    Attributes:
        changed: files written (or stale).
        removed: released files whose source is gone.
        notes: files that were left alone, each with the reason and what to do.
        diff: unified diff from what is on disk to what the sources give.
    """

    changed: list[Path] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    diff: str = ""

    @property
    def stale(self) -> bool:
        """Whether anything on disk is not what the sources give."""
        return bool(self.changed or self.removed or self.notes)


def release(
    root: Path | str | None = None,
    chapters: Iterable[str] | None = None,
    check: bool = False,
    *,
    find: Callable[[str], Any] | None = None,
    say: Callable[[str], None] = print,
) -> Release:
    """Writes ``chapters/`` and ``workbook/ready/`` from ``solutions/``.

    Nothing is written before everything has been generated, so an error leaves all files as they
    were. A notebook that somebody has worked in is never overwritten or removed.

    Args:
        root: the course's folder; found from the current one where None.
        chapters: names such as ``01_attention``; all where None.
        check: write nothing, only compare.
        find: exercise id -> exercise; see ``notebooks.check_points``.
        say: takes one line per chapter and one per note.

    Raises:
        SourceError: a source cannot be released; the text names file and cell, and what to do.
    """
    root = notebooks.course_root(root)
    every = notebooks.chapters(root)
    chosen = every if chapters is None else notebooks.chapters(root, chapters)
    sources = {chapter.name: prepare(chapter, find) for chapter in chosen}

    wanted: dict[Path, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        assign(chosen, Path(folder), sources=sources)
        for chapter in chosen:
            wanted |= _released_files(chapter, Path(folder) / "release" / chapter.name)
    # The blocks of one module may come from one chapter only, so this needs all of them.
    others = [chapter for chapter in every if chapter.name not in sources]
    full = sources | {chapter.name: notebooks.read_source(chapter.source) for chapter in others}
    wanted |= _ready_files(root, {chapter: full[chapter.name] for chapter in every})

    result = Release()
    for chapter in chosen:
        graded = [cell for cell in sources[chapter.name].cells if notebooks.is_graded(cell)]
        points = sum(float(notebooks.mark(cell)["points"]) for cell in graded)
        stale = [path for path in wanted if _stale(path, wanted[path], chapter)]
        state = "unchanged" if not stale else "stale" if check else "released"
        say(f"{chapter.name:<28} {len(graded):>2} graded cells {points:>4g} points   {state}")
    _settle(root, wanted, {chapter.name for chapter in chosen}, chapters is None, check, result)
    for note in result.notes:
        say(note)
    return result


def prepare(chapter: Chapter, find: Callable[[str], Any] | None = None) -> NotebookNode:
    """The chapter's source as the notebook that nbgrader is given, solutions included.

    Args:
        chapter: which one.
        find: see ``notebooks.check_points``.

    Raises:
        SourceError: the source is malformed, or its points are not those of the exercises.
    """
    notebook = notebooks.read_source(chapter.source)
    notebooks.check_points(notebook, chapter.source, find)
    bibliography = Bibliography(chapter.root / "book" / "references.bib")
    for position, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type != "markdown":
            continue
        try:
            cell.source = plain(cell.source, bibliography.label)
        except KeyError as error:
            raise SourceError(
                f"{notebooks.place(chapter.source, position, cell)}: {error.args[0]} "
                "Add the entry or correct the key."
            ) from None
    return notebook


def assign(
    chapters: Iterable[Chapter],
    course: Path,
    *,
    sources: dict[str, NotebookNode] | None = None,
    db_url: str | None = None,
    config: Config | None = None,
) -> None:
    """Runs nbgrader's assignment generator over the chapters, in an nbgrader course folder.

    Args:
        chapters: which ones; all of one course.
        course: gets ``source/``, ``release/`` and, unless ``db_url`` says otherwise,
            ``gradebook.db``, in nbgrader's layout.
        sources: chapter name -> notebook, where ``prepare`` has been called already.
        db_url: where the assignments are recorded.
        config: further settings, over those of the course.

    Raises:
        SourceError: nbgrader refuses a notebook; the text ends with what it said.
    """
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory

    course = course.resolve()
    for chapter in chapters:
        notebook = (sources or {}).get(chapter.name) or prepare(chapter)
        folder = course / "source" / chapter.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{chapter.name}.ipynb").write_text(notebooks.write(notebook), encoding="utf-8")
        for asset in chapter.assets:
            copy = folder / asset.relative_to(chapter.source.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(asset, copy)

        chosen = notebooks.settings(chapter.root)
        chosen.merge(config or Config())
        chosen.CourseDirectory.root = str(course)
        chosen.CourseDirectory.db_url = db_url or f"sqlite:///{course / 'gradebook.db'}"
        chosen.CourseDirectory.assignment_id = chapter.name
        # The course's own nbgrader settings may name other steps; here they are nbgrader's.
        chosen.CourseDirectory.source_directory = "source"
        chosen.CourseDirectory.release_directory = "release"
        with tools_on_path(), kept_log() as (log, said):
            directory = CourseDirectory(config=chosen, log=log)
            converter = GenerateAssignment(coursedir=directory, config=chosen, log=log)
            converter.force = True
            try:
                converter.start()
            except Exception as error:
                raise SourceError(
                    f"nbgrader cannot release {chapter.source}: {_reason(said, error)}"
                ) from error


def _reason(said: list[str], error: Exception) -> str:
    """What went wrong in one line: nbgrader logs it as the last line of a traceback."""
    traces = [text for text in said if text.startswith("Traceback")]
    return traces[-1].splitlines()[-1] if traces else str(error)


@contextlib.contextmanager
def tools_on_path() -> Iterator[None]:
    """Lets nbgrader make a database in any environment, activated or not.

    For the version of its tables it runs ``alembic`` by that bare name, which only an activated
    environment finds, and which takes seconds; asking the same library in this process does not.
    """
    import nbgrader.api

    before = os.environ.get("PATH")
    ask = nbgrader.api.get_alembic_version
    os.environ["PATH"] = os.pathsep.join(filter(None, [str(Path(sys.executable).parent), before]))
    nbgrader.api.get_alembic_version = _database_version
    try:
        yield
    finally:
        nbgrader.api.get_alembic_version = ask
        if before is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = before


@functools.cache
def _database_version() -> str:
    import nbgrader
    from alembic.script import ScriptDirectory

    migrations = Path(nbgrader.__file__).parent / "alembic"
    return str(ScriptDirectory(str(migrations)).get_current_head())


@contextlib.contextmanager
def kept_log() -> Iterator[tuple[logging.Logger, list[str]]]:
    """A logger whose errors are kept for a message, and that prints nothing."""
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage().strip())

    log = logging.Logger("nbgrader", level=logging.ERROR)
    log.addHandler(Keep())
    alembic = logging.getLogger("alembic")
    before, alembic.disabled = alembic.disabled, True
    try:
        yield log, said
    finally:
        alembic.disabled = before


# --- what the files are ---------------------------------------------------------------------


def _released_files(chapter: Chapter, generated: Path) -> dict[Path, bytes]:
    files: dict[Path, bytes] = {}
    for path in sorted(generated.rglob("*")):
        if path.is_dir():
            continue
        target = chapter.released.parent / path.relative_to(generated)
        if path.suffix == ".ipynb":
            notebook = nbformat.read(path, as_version=4)
            notebook.metadata[RELEASED] = {"chapter": chapter.name, "digest": digest(notebook)}
            files[target] = notebooks.write(notebook).encode()
        else:
            files[target] = path.read_bytes()
    return files


def digest(notebook: NotebookNode) -> str:
    """Identifies the notebook's text: types and sources of all cells, in order."""
    text = json.dumps([[cell.cell_type, cell.source] for cell in notebook.cells])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_pristine(text: bytes) -> bool:
    """Whether this is a released notebook that nobody has changed or run."""
    try:
        notebook = nbformat.reads(text.decode(), as_version=4)
        stamp = notebook.metadata.get(RELEASED, {}).get("digest")
    except Exception:
        # Whatever it is, it is not what a release wrote.
        return False
    ran = any(cell.get("outputs") for cell in notebook.cells)
    return stamp == digest(notebook) and not ran


def _stale(path: Path, content: bytes, chapter: Chapter) -> bool:
    return path.is_relative_to(chapter.released.parent) and _read(path) != content


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _settle(
    root: Path, wanted: dict[Path, bytes], chosen: set[str], every: bool, check: bool, out: Release
) -> None:
    diff: list[str] = []
    for path, content in sorted(wanted.items()):
        present = _read(path)
        if present == content:
            continue
        name = path.relative_to(root)
        diff += _difference(str(name), present or b"", content)
        if path.suffix == ".ipynb" and present is not None and not is_pristine(present):
            out.notes.append(
                f"{name} holds somebody's work and was left as it is. Move it to another name, "
                "then release again."
            )
            continue
        out.changed.append(path)
        if not check:
            keep(path, content)
    for path in _strays(root, set(wanted), chosen, every):
        name = path.relative_to(root)
        text = path.read_bytes()
        generated = path.is_relative_to(root / "workbook") or (
            path.suffix == ".ipynb" and is_pristine(text)
        )
        if not generated:
            out.notes.append(
                f"{name} comes from no source and was left as it is. Delete it, or put it beside "
                "the chapter's source."
            )
            continue
        diff += _difference(str(name), text, b"")
        out.removed.append(path)
        if not check:
            path.unlink()
            with contextlib.suppress(OSError):
                path.parent.rmdir()
    out.diff = "".join(diff)


def _strays(root: Path, wanted: set[Path], chosen: set[str], every: bool) -> list[Path]:
    released = root / "chapters"
    folders = [released] if every else [released / name for name in sorted(chosen)]
    found = [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
        and path not in wanted
        and not _LEFT_ALONE & set(path.relative_to(released).parts)
        # A file at the top, such as a README, belongs to no chapter.
        and path.parent != released
    ]
    ready = [path for path in (root / "workbook" / "ready").glob("*.py") if path not in wanted]
    return sorted(found + ready)


def _difference(name: str, old: bytes, new: bytes) -> list[str]:
    try:
        before, after = old.decode(), new.decode()
    except UnicodeDecodeError:
        return [f"Binary file {name} differs\n"]
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        f"on disk/{name}",
        f"from source/{name}",
    )
    return [line if line.endswith("\n") else f"{line}\n" for line in lines]


# --- ready-made blocks ----------------------------------------------------------------------


def _ready_files(root: Path, sources: dict[Chapter, NotebookNode]) -> dict[Path, bytes]:
    folder = root / "workbook" / "ready"
    files: dict[Path, bytes] = {}
    owner: dict[str, Chapter] = {}
    for chapter, notebook in sources.items():
        prefixes = {
            exercise.split("/")[0]
            for cell in notebook.cells
            if notebooks.is_check(cell) and (exercise := notebooks.exercise_of(cell))
        }
        for prefix in sorted(prefixes):
            if prefix in owner:
                raise SourceError(
                    f"{chapter.source}: checks exercises of {prefix}/, and so does "
                    f"{owner[prefix].source}. Each prefix belongs to one chapter."
                )
            owner[prefix] = chapter
            files[folder / f"{prefix}.py"] = ready_module(chapter, notebook, prefix).encode()
    if files:
        files[folder / "__init__.py"] = (
            b'"""Ready-made blocks: one module for each chapter\'s exercises.\n\n'
            b"Generated by `autograder release`. Do not edit; edit the chapter's source and "
            b'release again.\n"""\n'
        )
    return files


def ready_made_source(root: Path | str, chapter: str) -> str:
    """The chapter's ready-made blocks as Python source, from its solution cells as they are now.

    Raises:
        FileNotFoundError: there is no such chapter.
        SourceError: its source is malformed.
    """
    found = Chapter(notebooks.course_root(root), chapter)
    if not found.source.is_file():
        raise FileNotFoundError(found.source)
    files = _ready_files(found.root, {found: notebooks.read_source(found.source)})
    return "\n\n".join(
        content.decode() for path, content in files.items() if path.name != "__init__.py"
    )


def ready_module(chapter: Chapter, notebook: NotebookNode, prefix: str) -> str:
    """The module ``workbook.ready.<prefix>``: the chapter's solutions, importable.

    Raises:
        SourceError: an exercise has no solution cell, or a solution needs a name that neither an
            import line nor a solution cell defines.
    """
    blocks: list[str] = []
    components: list[str] = []
    for position, cell in enumerate(notebook.cells):
        exercise = notebooks.exercise_of(cell)
        if not (exercise and notebooks.is_check(cell) and exercise.startswith(f"{prefix}/")):
            continue
        component = exercise.split("/")[1]
        components.append(component)
        block = _solution_of(component, notebook.cells[:position])
        if block is None:
            raise SourceError(
                f"{notebooks.place(chapter.source, position + 1, cell)}: no solution cell above "
                f"it defines {component}."
            )
        if block not in blocks:
            blocks.append(block)
    code = "\n\n\n".join(blocks)
    source = chapter.source.relative_to(chapter.root).as_posix()
    imports = _imports_for(code, notebook, chapter)
    names = "".join(f'    "{name}",\n' for name in sorted(components, key=_name_order))
    header = (
        f'"""Ready-made blocks of {source}.\n\n'
        "Generated by `autograder release`. Do not edit; edit the source and release again.\n"
        '"""\n'
    )
    return f"{header}\n{imports}__all__ = [\n{names}]\n\n\n{code}\n"


def _solution_of(component: str, cells: list[NotebookNode]) -> str | None:
    for cell in reversed(cells):
        if notebooks.is_solution(cell) and cell.cell_type == "code":
            source = notebooks.without_markers(cell.source).strip("\n")
            if component in notebooks.defined_in(source):
                return source
    return None


def _name_order(name: str) -> tuple[int, str]:
    # The order that ruff asks of __all__: CONSTANTS, then Classes, then functions.
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2, name)


def _imports_for(code: str, notebook: NotebookNode, chapter: Chapter) -> str:
    """The notebook's import lines that the code needs, in ruff's order."""
    available = _importable(notebook)
    chosen: set[str] = set()
    for name in sorted(_free_names(code)):
        if name not in available:
            raise SourceError(
                f"{chapter.source}: a solution uses {name!r}, which no import line of the "
                "notebook and no solution cell of an exercise defines. Import it at the top, "
                f'carry it over ({name} = block("<prefix>/{name}")), or '
                "define it in the solution cell; workbook/ready/ is made of these alone."
            )
        chosen.add(available[name])
    if not chosen:
        return ""
    groups: list[list[str]] = [[], [], []]  # the standard library, others, the course's own
    for line in chosen:
        package = line.split()[1].split(".")[0]
        groups[0 if package in sys.stdlib_module_names else 1 + (package == "workbook")].append(
            line
        )
    text = [
        "\n".join(sorted(_joined_imports(lines), key=_import_order)) for lines in groups if lines
    ]
    return "\n\n".join(text) + "\n\n"


def _importable(notebook: NotebookNode) -> dict[str, str]:
    """Name -> the statement that imports it, over the notebook's top-level imports.

    ``name = block("prefix/name")`` counts as one: a ready-made block stands on ready-made ones.
    """
    found: dict[str, str] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code" or "import" not in cell.source:
            continue
        try:
            body = notebooks.parse(cell.source).body
        except SyntaxError:
            continue
        for node in body:
            if exercise := notebooks.carried(node):
                prefix, name = exercise.split("/")
                found.setdefault(name, f"from workbook.ready.{prefix} import {name}")
                continue
            if isinstance(node, ast.Import):
                module = ""
            elif isinstance(node, ast.ImportFrom) and not node.level:
                module = node.module or ""
            else:
                continue
            for alias in node.names:
                package = (module or alias.name).split(".")[0]
                if package in ("workbook", "autograder", "IPython"):
                    continue
                name = alias.asname or alias.name.split(".")[0]
                renamed = f" as {alias.asname}" if alias.asname else ""
                start = f"from {module} import" if module else "import"
                found.setdefault(name, f"{start} {alias.name}{renamed}")
    return found


def _joined_imports(lines: list[str]) -> list[str]:
    plain_lines = [line for line in lines if line.startswith("import ")]
    names: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("from "):
            module, _, name = line.removeprefix("from ").partition(" import ")
            names.setdefault(module, []).append(name)
    return plain_lines + [
        f"from {module} import {', '.join(sorted(parts, key=_name_order))}"
        for module, parts in names.items()
    ]


def _import_order(line: str) -> tuple[bool, str]:
    return (line.startswith("from "), line.split()[1].lower())


def _free_names(code: str) -> set[str]:
    """The names that the code reads and does not define itself."""
    tree = ast.parse(code)
    read = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    bound = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound.update(alias.asname or alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return read - bound - set(dir(builtins)) - {"__class__"}


# --- command line ---------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """``python -m autograder.release [--check] [CHAPTER ...]``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="autograder release", description=release.__doc__)
    parser.add_argument("chapters", nargs="*", help="chapters such as 01_attention; default: all")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where stale")
    parser.add_argument("--root", default=None, help="the course's folder")
    chosen = parser.parse_args(arguments)
    return run(chosen.root, chosen.chapters or None, chosen.check)


def run(
    root: Path | str | None = None, chapters: Iterable[str] | None = None, check: bool = False
) -> int:
    """Releases and reports on the terminal: 0 done, 1 stale (with ``check``) or an error."""
    try:
        result = release(root, chapters, check)
    except SourceError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    if check and result.stale:
        print(result.diff, end="")
        print("chapters/ is not what solutions/ gives. Run: autograder release")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
