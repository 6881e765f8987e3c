"""The engine where nbgrader expects its own: for ``nbgrader autograde`` and formgrader's button.

``nbgrader_config.py`` puts it there::

    from autograder.nbgrader_plugin import configure

    configure(c)
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets import Bool, Unicode
from traitlets.config import Config

from autograder import notebooks

# nbgrader's own list, its Execute replaced.
AUTOGRADE_PREPROCESSORS = [
    "autograder.nbgrader_plugin.RunAndJudge",
    "nbgrader.preprocessors.LimitOutput",
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]


def configure(config: Config) -> None:
    """Makes nbgrader run submissions with this package's engine and judge.

    nbgrader's sanitizing is left out: the engine restores the course's own cells itself, and
    copes with metadata that nbgrader refuses.
    """
    config.Autograde.sanitize_preprocessors = []
    config.Autograde.autograde_preprocessors = AUTOGRADE_PREPROCESSORS
    config.Autograde.exporter_class = "autograder.nbgrader_plugin.ReadSubmission"


# Written beside the gradebook, so that nbgrader and formgrader work there.
SETTINGS = '''\
"""Lets nbgrader and formgrader work in this folder. `autograder grade` writes it anew."""

from autograder.nbgrader_plugin import configure_results

configure_results(
    get_config(),  # noqa: F821  (nbgrader puts it there)
    __file__,
    root={root!r},
    submitted={submitted!r},
    references={references!r},
)
'''


def configure_results(
    config: Config, file: str, root: str, submitted: str, references: str
) -> None:
    """The course's settings, for a folder that ``autograder grade`` wrote.

    Args:
        config: nbgrader's.
        file: the settings file in the folder of results.
        root: the course.
        submitted: the submissions.
        references: a private reference pack; empty: the public ones.
    """
    config.merge(notebooks.settings(root, places=False))
    config.CourseDirectory.root = str(Path(file).resolve().parent)
    config.CourseDirectory.submitted_directory = submitted
    config.RunAndJudge.root = root
    config.RunAndJudge.references = references
    notebooks.find_plugins(root)


class ReadSubmission(NotebookExporter):
    """Reads what was handed in as ``autograder grade`` does, whatever it is."""

    def from_filename(self, filename: str, resources: Any = None, **more: Any) -> Any:
        """The notebook; what cannot be read becomes one that says why."""
        from autograder import submission

        if not getattr(self.parent, "_sanitizing", True):  # what the first pass wrote
            return super().from_filename(filename, resources=resources, **more)
        try:
            notebook = submission.parse(
                submission.read_bytes(Path(filename)), os.path.basename(filename)
            )
        except submission.UnreadableSubmission as error:
            notebook = nbformat.v4.new_notebook(metadata={UNREADABLE: str(error)})
        return self.from_notebook_node(notebook, resources=resources, **more)


UNREADABLE = "unreadable_submission"


class RunAndJudge(NbGraderPreprocessor):
    """Runs the submitted notebook shut in, and judges what its checks gave.

    Its limits are those of ``c.Limits`` in ``nbgrader_config.py``.
    """

    root = Unicode("", help="The course's folder; empty: the one around the current folder.").tag(
        config=True
    )
    references = Unicode("", help="A private reference pack; empty: the public ones.").tag(
        config=True
    )
    trust = Bool(False, help="Whether to run submissions that cannot be shut in.").tag(config=True)

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """The notebook as it is recorded: run, with the judge's verdicts in the graded cells."""
        from autograder import submission
        from autograder.marking import Limits, grade_notebook, refused

        name = resources["nbgrader"]["assignment"]
        root = str(notebooks.course_root(self.root or None))
        limits = Limits.of(self.config)
        state = _state(root, name, self.references)
        assignment, engine = _grader(root, name, self.references, self.trust, limits.bounds, state)
        if UNREADABLE in nb.metadata:
            return refused(assignment, "error", nb.metadata[UNREADABLE]).notebook, resources
        submitted = submission.parse(nbformat.writes(nb).encode(), f"{name}.ipynb")
        graded = grade_notebook(submitted, assignment, engine, limits)
        for verdict in graded.verdicts:
            self.log.info("%s", verdict.headline)
        return graded.notebook, resources


@functools.lru_cache(maxsize=1)
def _grader(
    root: str, name: str, references: str, trust: bool, bounds: Any, state: tuple[float, ...]
) -> tuple[Any, Any]:
    """The assignment and an engine, for all submissions that one nbgrader command grades.

    ``state`` changes when the course is edited, as it may be while a Jupyter server runs.
    """
    from autograder.assignment import load_course
    from autograder.engine import ForkEngine

    with tempfile.TemporaryDirectory(prefix="course-") as folder:
        pack = Path(references) if references else None
        assignment = load_course(Path(root), name, Path(folder), pack)
    return assignment, ForkEngine(trust, bounds)


def _state(root: str, name: str, references: str) -> tuple[float, ...]:
    """When what an assignment is made from was last written."""
    from autograder.exercise import EXERCISES
    from autograder.pack import path_of

    paths = [
        *sorted(notebooks.Chapter(Path(root), name).source.parent.rglob("*")),
        Path(references) if references else path_of(name),
        EXERCISES / f"{name}.py",
    ]
    return tuple(path.stat().st_mtime for path in paths if path.is_file())
