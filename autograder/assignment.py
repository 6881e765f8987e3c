"""The course's own copy of an assignment: what is graded, for how many points, and by what."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder import exercise as exercises
from autograder import notebooks, release, submission
from autograder.notebooks import SourceError
from autograder.pack import Pack, PackError, References, path_of
from autograder.verdict import points


class GradingError(Exception):
    """A class cannot be graded; the text says why and what to do next."""


@dataclass(frozen=True)
class Check:
    """A cell that is graded by running it.

    Attributes:
        grade_id: nbgrader's name of the cell.
        exercise: what its rows are called: the exercise id, or the grade id of a cell that holds
            plain assertions.
        component: the name that it checks, None for plain assertions.
        points: what the course's own copy gives for it.
        references: what the judge compares with, None for plain assertions.
    """

    grade_id: str
    exercise: str
    component: str | None
    points: float
    references: References | None


@dataclass(frozen=True)
class Assignment:
    """The course's own copy of an assignment.

    Attributes:
        name: as in ``01_attention``; its notebook is called the same.
        notebook: with solutions and hidden tests.
        release: what learners were given.
        checks: the cells that are graded by running them, in order.
        seed, hidden: of the reference pack.
        files: what it ships beside its notebook, by relative path.
        modules: what its notebook imports, and the ready-made blocks of earlier chapters.
        fingerprint: changes whenever the same submission might be graded differently.
    """

    name: str
    notebook: NotebookNode
    release: NotebookNode
    checks: tuple[Check, ...]
    seed: int
    hidden: bool
    fingerprint: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    modules: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The name of the notebook that is handed in."""
        return f"{self.name}.ipynb"


def load_pack(name: str, references: Path | None = None) -> Pack | None:
    """The pack to judge an assignment with: ``references``, or the public one where None.

    Raises:
        GradingError: it is missing, damaged or of another version.
    """
    if name not in exercises.chapters():
        return None  # plain assertions alone need none
    try:
        return Pack.load(references or path_of(name))
    except PackError as error:
        raise GradingError(str(error)) from error


def load_assignment(name: str, course: Path, pack: Pack | None) -> Assignment:
    """The assignment as :func:`autograder.release.assign` wrote it to a course folder.

    Args:
        name: the assignment.
        course: the folder with ``source/`` and ``release/``.
        pack: what to judge with; None for an assignment of plain assertions.

    Raises:
        GradingError: the pack lacks an exercise, or its points are not those of the cells.
    """
    file = f"{name}/{name}.ipynb"
    source = nbformat.read(course / "source" / file, as_version=4)
    released = nbformat.read(course / "release" / file, as_version=4)
    cells = [cell for cell in source.cells if submission.is_graded_by_tests(cell)]
    checks = tuple(_check_of(cell, pack) for cell in cells)
    digest = hashlib.sha256()
    for text in (notebooks.write(source), notebooks.write(released), version()):
        digest.update(hashlib.sha256(text.encode()).digest())
    files = _files_beside(course / "release" / file)
    for path, data in files.items():
        digest.update(hashlib.sha256(path.encode() + b"\0" + data).digest())
    digest.update(pack.to_bytes() if pack else b"")
    return Assignment(
        name=name,
        notebook=source,
        release=released,
        checks=checks,
        seed=pack.seed if pack else 0,
        hidden=bool(pack and pack.hidden),
        fingerprint=digest.hexdigest(),
        files=files,
        # Their folder cannot be listed from inside, so what is not loaded before is not found.
        modules=(
            *notebooks.imported_modules(source),
            *(f"workbook.ready.{prefix}" for prefix in exercises.prefixes_before(name)),
        ),
    )


def _files_beside(notebook: Path) -> dict[str, bytes]:
    """What lies beside a released notebook, and so beside a learner's."""
    folder = notebook.parent
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != notebook
    }


def _check_of(cell: NotebookNode, pack: Pack | None) -> Check:
    mark = notebooks.mark(cell)
    exercise = notebooks.exercise_of(cell)
    worth = float(mark["points"])
    if exercise is None:
        return Check(mark["grade_id"], mark["grade_id"], None, worth, None)
    if pack is None:
        raise GradingError(f"The cell {mark['grade_id']} checks {exercise}, but there is no pack.")
    try:
        references = pack.references(exercise)
    except PackError as error:
        raise GradingError(str(error)) from error
    if references.points != worth:
        raise GradingError(
            f"The cell {mark['grade_id']} is worth {points(worth)} points, but {exercise} "
            f"{points(references.points)}. Make both the same, and record the references anew: "
            "autograder record."
        )
    return Check(mark["grade_id"], exercise, notebooks.component_of(cell), worth, references)


def version() -> str:
    """Identifies the code that runs and judges."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.py"), *folder.glob("exercises/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def load_course(root: Path, name: str, folder: Path, references: Path | None = None) -> Assignment:
    """An assignment of a course, released into a folder of one's own.

    Raises:
        GradingError: the name is unknown, the source malformed, or the pack unusable.
    """
    pack = load_pack(name, references)
    try:
        release.assign(notebooks.chapters(root, [name]), folder)
    except SourceError as error:
        raise GradingError(str(error)) from error
    return load_assignment(name, folder, pack)
