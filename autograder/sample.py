"""A sample class: submissions of chapter 1 made from its source, each with a story.

``python -m autograder.sample --to DIR`` writes ``DIR/<student>/01_attention/01_attention.ipynb``.
The same sources give the same bytes.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder import notebooks, release
from autograder.notebooks import SourceError

ASSIGNMENT = "01_attention"

UNSCALED = """
def scaled_dot_product_attention(query, key, value, mask=None):
    scores = query @ key.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = torch.nan_to_num(softmax(scores), nan=0.0)
    return weights @ value, weights
"""

MASKED_TOO_LATE = """
def scaled_dot_product_attention(query, key, value, mask=None):
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    weights = softmax(scores)
    if mask is not None:
        weights = weights * mask
    return weights @ value, weights
"""

LAST_AXIS_ONLY = """
def softmax(scores, dim=-1):
    shifted = scores - scores.max(dim=-1, keepdim=True).values
    exponentials = torch.exp(shifted)
    return exponentials / exponentials.sum(dim=-1, keepdim=True)
"""

PADDING_CORNER = """
def padding_mask(token_ids, pad_id=0):
    is_pad = token_ids == pad_id
    return ~(is_pad.unsqueeze(2) & is_pad.unsqueeze(1))
"""

BLIND_TO_ITSELF = """
def causal_mask(length):
    return torch.ones(length, length, dtype=torch.bool).tril(diagonal=-1)
"""

NO_TANH = """
class AdditiveAttention(nn.Module):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        self.w_a = nn.Linear(d_query, d_hidden, bias=False)
        self.u_a = nn.Linear(d_key, d_hidden, bias=False)
        self.v_a = nn.Linear(d_hidden, 1, bias=False)

    def forward(self, query, key, value, mask=None):
        hidden = self.w_a(query).unsqueeze(2) + self.u_a(key).unsqueeze(1)
        scores = self.v_a(hidden).squeeze(-1)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = torch.nan_to_num(softmax(scores), nan=0.0)
        return weights @ value, weights
"""

TRANSPOSED = """
def scaled_dot_product_attention(query, key, value, mask=None):
    scores = query @ key / query.shape[-1] ** 0.5
    weights = softmax(scores)
    return weights @ value, weights
"""

ENDLESS = """
def causal_mask(length):
    mask = torch.zeros(length, length, dtype=torch.bool)
    row = 0
    while row < length:
        mask[row, : row + 1] = True
    return mask
"""

ANSWER = """
The answers to the questions that are graded by hand are each student's own; this one is mine:
attention compares the query with every key, and weighs the values by how well they agree.
"""


@dataclass(frozen=True)
class Student:
    """One submission.

    Attributes:
        name: the student folder.
        story: what is the matter with it.
        wrong: component -> what the student wrote; the others are the course's solutions.
        finished: False for a notebook that is handed in as it was given out.
        damage: applied to the notebook's bytes before they are written.
    """

    name: str
    story: str
    wrong: Mapping[str, str] = field(default_factory=dict)
    finished: bool = True
    damage: Callable[[bytes], bytes] = bytes


CLASS = (
    Student("ada", "everything right"),
    Student("ben", "handed in as it was given out", finished=False),
    Student(
        "chloe",
        "does not divide by the square root of d_k",
        {"scaled_dot_product_attention": UNSCALED},
    ),
    Student(
        "david",
        "masks after the softmax",
        {"scaled_dot_product_attention": MASKED_TOO_LATE},
    ),
    Student("emma", "softmax always over the last axis", {"softmax": LAST_AXIS_ONLY}),
    Student(
        "farid",
        "padding mask of the corner only; causal mask without the diagonal",
        {"padding_mask": PADDING_CORNER, "causal_mask": BLIND_TO_ITSELF},
    ),
    Student("grace", "additive attention without tanh", {"AdditiveAttention": NO_TANH}),
    Student(
        "hugo",
        "attention raises: the keys are not transposed",
        {"scaled_dot_product_attention": TRANSPOSED},
    ),
    Student("ines", "a loop that never ends", {"causal_mask": ENDLESS}),
    Student("jonas", "a file cut short", damage=lambda data: data[: len(data) // 2]),
    Student("karin", "a folder without a notebook", damage=lambda data: b""),
)


def generate(to: Path, root: Path | None = None) -> list[Path]:
    """Writes the sample class; returns the notebooks, in the order of :data:`CLASS`.

    A folder of one of its students is replaced, others stay.

    Args:
        to: gets one folder per student.
        root: the course; found from the current folder where None.

    Raises:
        SourceError: the chapter is missing, or cannot be released.
    """
    solved, blank = sources(root)
    paths = []
    for student in CLASS:
        target = to / student.name / ASSIGNMENT / f"{ASSIGNMENT}.ipynb"
        shutil.rmtree(to / student.name, ignore_errors=True)
        target.parent.mkdir(parents=True)
        data = student.damage(notebooks.write(submission_of(student, solved, blank)).encode())
        if data:
            target.write_bytes(data)
        paths.append(target)
    return paths


def sources(root: Path | None = None) -> tuple[NotebookNode, NotebookNode]:
    """The chapter's notebook with its solutions, and as learners are given it.

    Raises:
        SourceError: the chapter is missing, or cannot be released.
    """
    chapters = notebooks.chapters(root, [ASSIGNMENT])
    with tempfile.TemporaryDirectory(prefix="sample-") as folder:
        release.assign(chapters, Path(folder))
        file = f"{ASSIGNMENT}/{ASSIGNMENT}.ipynb"
        solved = nbformat.read(Path(folder) / "source" / file, as_version=4)
        blank = nbformat.read(Path(folder) / "release" / file, as_version=4)
    return solved, blank


def submission_of(student: Student, solved: NotebookNode, blank: NotebookNode) -> NotebookNode:
    """The notebook that a student hands in.

    Args:
        student: who.
        solved: the chapter's source notebook.
        blank: the released one.
    """
    notebook = copy.deepcopy(blank)
    if not student.finished:
        return notebook
    solutions = {
        notebooks.grade_id(cell): notebooks.without_markers(cell.source)
        for cell in solved.cells
        if notebooks.is_solution(cell)
    }
    left = dict(student.wrong)
    for cell in notebook.cells:
        if not notebooks.is_solution(cell):
            continue
        if cell.cell_type == "markdown":
            stub = "YOUR ANSWER HERE"
            kept = cell.source if stub in cell.source else f"{cell.source}\n\n{stub}"
            cell.source = kept.replace(stub, ANSWER.strip())
            continue
        cell.source = solutions[notebooks.grade_id(cell)]
        for component in notebooks.defined_in(cell.source) & set(left):
            cell.source = left.pop(component).strip()
    if left:
        raise SourceError(f"No solution cell of {ASSIGNMENT} defines {', '.join(sorted(left))}.")
    return notebook


def main(arguments: list[str] | None = None) -> int:
    """``python -m autograder.sample --to DIR``; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m autograder.sample", description="Writes the sample class of chapter 1."
    )
    parser.add_argument("--to", type=Path, required=True, help="gets one folder per student")
    parser.add_argument("--root", type=Path, default=None, help="the course's folder")
    chosen = parser.parse_args(arguments)
    try:
        generate(chosen.to, chosen.root)
    except SourceError as error:
        print(f"sample: {error}", file=sys.stderr)
        return 2
    for student in CLASS:
        print(f"{student.name:<8} {student.story}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
