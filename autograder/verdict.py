"""A verdict: what the judge found, as data, as plain text and as HTML."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from typing import Any

STATUSES = ("passed", "failed", "error", "timeout", "killed", "missing")

_COLORS = {"passed": "#2e9e5b", "failed": "#d97a1a", "error": "#d1495b"}


@dataclass(frozen=True)
class Verdict:
    """The judge's finding on one exercise.

    Attributes:
        exercise: the id.
        points, max_points: as the course's own copy counts them.
        status: one of :data:`STATUSES`.
        message: one sentence that says what is right or wrong.
        misconception: the sentence that names the mistake, where one is known; else empty.
        passed: titles of the cases that passed (hidden ones are only counted).
        total: how many cases ran.
        hidden_failed: how many cases failed that learners are told nothing about.
        case: title of the first failing case.
        details: expected and got, line by line.
        lines: the learner's own lines on the way to an error.
        printed: what the code printed in the failing case.
        next_step: what to do next.
        note: something to say besides, such as where the learner's code was kept.
    """

    exercise: str
    points: float
    max_points: float
    status: str
    message: str
    misconception: str = ""
    passed: tuple[str, ...] = ()
    total: int = 0
    passed_count: int = 0
    hidden_failed: int = 0
    case: str = ""
    details: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    printed: str = ""
    next_step: str = ""
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain JSON values."""
        return asdict(self)

    @property
    def headline(self) -> str:
        """Points and status in a few words."""
        words = {
            "passed": "all cases pass",
            "failed": "not right yet",
            "error": "it does not run yet",
            "timeout": "it does not end",
            "killed": "the process died",
            "missing": "nothing was handed in",
        }[self.status]
        return (
            f"{self.exercise}: {points(self.points)} of {points(self.max_points)} points, {words}"
        )

    def _blocks(self) -> list[tuple[str, list[str]]]:
        """What both renderings show, as titled groups of lines."""
        blocks: list[tuple[str, list[str]]] = []
        if self.status != "passed" and self.total:
            passed = f"{self.passed_count} of {self.total} cases"
            if self.passed:
                passed += ": " + "; ".join(self.passed)
            blocks.append(("Passed", [passed]))
        if self.misconception:
            blocks.append(("What is wrong", [self.misconception]))
        if self.case:
            blocks.append((f"First failing case: {self.case}", list(self.details)))
        elif self.details:
            blocks.append(("Found", list(self.details)))
        if self.lines:
            blocks.append(("In your code", list(self.lines)))
        if self.printed.strip():
            blocks.append(("It printed", self.printed.strip().splitlines()[:8]))
        if self.hidden_failed:
            word = "cases" if self.hidden_failed > 1 else "case"
            blocks.append(("Further", [f"{self.hidden_failed} {word} with other inputs failed."]))
        if self.next_step:
            blocks.append(("Next step", [self.next_step]))
        if self.note:
            blocks.append(("", [self.note]))
        return blocks

    def text(self) -> str:
        """The verdict as plain text."""
        mark = {"passed": "✓", "failed": "✗"}.get(self.status, "!")
        lines = [f"{mark} {self.headline}"]
        if not self.misconception and not self.case and self.status != "passed":
            lines.append(f"  {self.message}")
        for title, block in self._blocks():
            if title:
                lines.append(f"  {title}:" if len(block) != 1 else f"  {title}: {block[0]}")
                if len(block) == 1:
                    continue
            lines += [f"    {line}" for line in block]
        return "\n".join(lines)

    def html(self) -> str:
        """The verdict as HTML that reads on light and dark pages, with no outside style."""
        color = _COLORS.get(self.status, _COLORS["error"])
        mark = {"passed": "✓", "failed": "✗"}.get(self.status, "!")
        parts = [
            f'<div class="verdict verdict-{self.status}" role="status" style="'
            f"border-left:4px solid {color};background:{color}1f;"
            f"padding:.6em .9em;margin:.4em 0;border-radius:4px;"
            f'color:inherit;line-height:1.45">',
            f'<div style="font-weight:600"><span aria-hidden="true" style="color:{color}">{mark}'
            f"</span> {html.escape(self.headline)}</div>",
        ]
        if not self.misconception and not self.case and self.status != "passed":
            parts.append(f"<div>{html.escape(self.message)}</div>")
        for title, block in self._blocks():
            body = "<br>".join(html.escape(line) for line in block)
            if title == "In your code" or title == "It printed":
                body = (
                    '<pre style="margin:.2em 0;padding:0;border:0;background:transparent;'
                    f'color:inherit;white-space:pre-wrap">{html.escape(chr(10).join(block))}</pre>'
                )
            head = f"<b>{html.escape(title)}</b>" if title else ""
            separator = ": " if title and len(block) == 1 else "<br>" if title and body else ""
            parts.append(f'<div style="margin-top:.35em">{head}{separator}{body}</div>')
        return "".join(parts) + "</div>"


def points(value: float) -> str:
    """Points as people write them: 4, 2.5, 1.33."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
