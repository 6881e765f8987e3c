"""nbgrader's feedback pages, made in a fraction of the time.

The template, the filters and the preprocessing are nbgrader's own. Two things are left out that
take nearly all of the time: highlighting and rendering the same cells anew for every learner, and
parsing each finished page once more.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import nbformat
from jinja2 import pass_context
from nbconvert.exporters import HTMLExporter
from nbconvert.exporters.templateexporter import TemplateExporter
from nbconvert.filters import Highlight2HTML
from nbconvert.filters.widgetsdatatypefilter import WidgetsDataTypeFilter
from nbformat import NotebookNode
from traitlets.config import Config

_REMEMBERED = 3000  # cells
# nbgrader's template, asked only for cells that it has not rendered before.
_TEMPLATE = """
{%- extends 'index.html.j2' -%}
{%- block any_cell scoped -%}{{ remembered(cell, super) }}{%- endblock any_cell -%}
"""
_IMAGE_WITHOUT_TEXT = re.compile(r"<img\b(?![^>]*\balt=)", re.IGNORECASE)
_NO_TEXT = '<img alt="No description has been provided for this image"'


class Pages:
    """Makes feedback pages.

    Args:
        config: the course's nbgrader settings.
    """

    def __init__(self, config: Config) -> None:
        from nbgrader.converters import GenerateFeedback
        from nbgrader.coursedir import CourseDirectory

        settings = GenerateFeedback(
            coursedir=CourseDirectory(config=config), config=config
        ).config.copy()
        settings.HTMLExporter.preprocessors = []
        self._exporter = _Exporter(config=settings)

    def page(
        self,
        notebook: NotebookNode,
        assignment: str,
        student: str,
        scores: Mapping[str, tuple[float, float]],
        comments: Mapping[str, str | None],
        penalty: float | None,
    ) -> str:
        """One learner's page, as HTML.

        Args:
            notebook: as it is recorded; its cells' metadata are changed.
            assignment, student: their names.
            scores: grade id -> score and maximum.
            comments: grade id -> comment.
            penalty: points taken off because it was late.
        """
        for cell in notebook.cells:
            mine = cell.metadata.get("nbgrader")
            if mine is None:
                continue
            if mine.get("solution") or mine.get("task"):
                mine["comment"] = comments.get(mine["grade_id"])
            if mine.get("grade") or mine.get("task"):
                mine["score"], mine["points"] = scores.get(mine["grade_id"], (0.0, 0.0))
        resources = {
            "nbgrader": {
                "assignment": assignment,
                "notebook": assignment,
                "student": student,
                "score": sum(score for score, _ in scores.values()) - (penalty or 0),
                "max_score": sum(most for _, most in scores.values()),
                "late_penalty": penalty or 0,
            },
            "unique_key": assignment,
            "metadata": {"name": assignment},
        }
        text, _ = self._exporter.from_notebook_node(notebook, resources)
        return text


class _Exporter(HTMLExporter):
    """nbconvert's, with a memory for what was rendered before."""

    def __init__(self, **options: Any) -> None:
        self._markdown: dict[str, str] = {}
        self._code: dict[tuple[str, str], str] = {}
        self._cells: dict[tuple[str, str], str] = {}
        self._language = ""
        self._resources: dict[str, dict[str, Any]] = {}
        super().__init__(**options)
        self.raw_template = _TEMPLATE

    def _create_environment(self) -> Any:
        environment = super()._create_environment()
        environment.globals["remembered"] = self._cell
        return environment

    def _cell(self, cell: NotebookNode, render: Callable[[], str]) -> str:
        """A cell as HTML: what the template makes of it depends on it and its language alone."""
        return _once(self._cells, (self._language, repr(sorted(cell.items()))), render)

    def from_notebook_node(
        self, nb: NotebookNode, resources: dict[str, Any] | None = None, **_: Any
    ) -> tuple[str, dict[str, Any]]:
        """The page of a notebook."""
        language = nb.metadata.get("language_info", {}).get("pygments_lexer", "ipython3")
        self._language = language
        highlight = Highlight2HTML(pygments_lexer=language, parent=self)

        def remembered(source: str, *_: Any, **__: Any) -> str:
            return _once(self._code, (language, source), lambda: highlight(source))

        data_type = WidgetsDataTypeFilter(notebook_metadata={}, parent=self, resources={})
        self.register_filter("highlight_code", remembered)
        self.register_filter("filter_data_type", data_type)
        if language not in self._resources:
            # Styles and settings, the same on every page.
            empty = nbformat.from_dict({**nb, "cells": []})
            common = self._init_resources(resources)
            self._resources[language] = TemplateExporter.from_notebook_node(self, empty, common)[1]
        resources = {**self._resources[language], **(resources or {})}
        text = self.template.render(nb=nb, resources=resources).lstrip()
        return _IMAGE_WITHOUT_TEXT.sub(_NO_TEXT, text), resources

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """Markdown as HTML."""
        render = functools.partial(super().markdown2html, context, source)
        if context.get("cell", {}).get("attachments"):
            return render()
        return _once(self._markdown, source, render)


def _once(known: dict[Any, str], key: Any, make: Callable[[], str]) -> str:
    if key not in known:
        if len(known) >= _REMEMBERED:
            known.clear()
        known[key] = make()
    return known[key]
