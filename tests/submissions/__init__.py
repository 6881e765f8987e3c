"""The corpus: submissions of chapter 1, honest, wrong, broken and hostile, and what each earns.

They are made from the chapter's own source when they are needed; nothing generated is committed.
An honest, wrong or broken submission states its exact rows. A hostile one states the innocent one
that it is made from: an attack must not earn more than the same submission without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.submissions.making import (
    ASSIGNMENT,
    COMPONENTS,
    FULL,
    MAXIMA,
    Course,
    Place,
    Submission,
)

__all__ = [
    "ASSIGNMENT",
    "BYSTANDERS",
    "COMPONENTS",
    "CORPUS",
    "FULL",
    "MAXIMA",
    "Course",
    "Place",
    "Submission",
    "by_name",
    "write",
]


def _corpus() -> Iterator[Submission]:
    """Every submission. Between any few hostile ones an honest one stands by."""
    from tests.submissions import (
        broken,
        honest,
        hostile_grades,
        hostile_limits,
        hostile_places,
        wrong,
    )

    yield from honest.SUBMISSIONS
    yield from wrong.SUBMISSIONS
    yield from broken.SUBMISSIONS
    hostile = [
        *hostile_grades.SUBMISSIONS,
        *hostile_places.SUBMISSIONS,
        *hostile_limits.SUBMISSIONS,
    ]
    for number, submission in enumerate(hostile):
        yield submission
        if number % 8 == 7:
            yield honest.bystander(number // 8 + 1)
    yield honest.WITNESS


CORPUS = tuple(_corpus())
BYSTANDERS = tuple(s for s in CORPUS if s.name.startswith("bystander"))


def by_name(name: str) -> Submission:
    """The submission of that name."""
    return next(submission for submission in CORPUS if submission.name == name)


def write(course: Course, place: Place, chosen: tuple[Submission, ...] = CORPUS) -> dict[str, str]:
    """Writes submissions into ``place.submitted``, in the order in which they will be graded.

    Returns:
        The name of each -> its student folder.
    """
    students = {
        submission.name: f"{number:03d}-{submission.name}"
        for number, submission in enumerate(chosen)
    }
    for submission in chosen:
        path = Path(place.submitted, students[submission.name], ASSIGNMENT, f"{ASSIGNMENT}.ipynb")
        path.parent.mkdir(parents=True)
        submission.put(path, course, place)
    return students
