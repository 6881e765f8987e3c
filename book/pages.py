"""Pages that write themselves: from the chapters' sources and from their executed notebooks.

Each function returns a page, or a part of one, as MyST Markdown. Links are relative to ``book/``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from autograder.notebooks import Chapter


class Executed(Protocol):
    """A chapter with its outputs, and how it ran: as ``build.execute`` gives it."""

    chapter: Chapter
    notebook: NotebookNode
    budget: str
    seconds: float
    finished: str


# --- what a chapter's source says ------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """An exercise, or the question that a person grades: what its heading and first line say."""

    title: str  # Markdown, without "Exercise: "
    link: str
    difficulty: int  # of 5; 0 for the question, which has none
    minutes: int
    points: float


@dataclass(frozen=True)
class Plan:
    """What a chapter asks for."""

    number: int
    title: str
    link: str
    minutes: int  # with reading and training; 0 where the source does not say
    tasks: tuple[Task, ...]

    @property
    def exercises(self) -> tuple[Task, ...]:
        """The tasks that are checked by the notebook itself."""
        return tuple(task for task in self.tasks if task.difficulty)

    @property
    def points(self) -> float:
        """All points of the chapter."""
        return sum(task.points for task in self.tasks)

    @property
    def working(self) -> int:
        """Minutes for the tasks alone."""
        return sum(task.minutes for task in self.tasks)


_TASK = re.compile(
    r"^#+ (?:Exercise: )?(?P<title>[^\n]+)\n+(?:Difficulty (?P<dots>[●○]{5}) · )?"
    r"(?P<minutes>\d+) minutes · (?P<points>\d+) points?\b",
    flags=re.MULTILINE,
)
_TIME = re.compile(r"^\| \*\*Time\*\* \| about (?P<time>[^:|]+?)\s*[:|]", flags=re.MULTILINE)


def plan_of(chapter: Chapter) -> Plan:
    """What the chapter's source says of its exercises, and of the time that they take."""
    from autograder import notebooks

    notebook = notebooks.read_source(chapter.source)
    link = link_of(chapter)
    slugs = headings(notebook)
    tasks, minutes = [], 0
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for found in _TASK.finditer(cell.source):
            heading = found.group(0).split("\n")[0].lstrip("# ")
            tasks.append(
                Task(
                    found["title"],
                    f"{link}#{slugs[heading]}",
                    (found["dots"] or "").count("●"),
                    int(found["minutes"]),
                    float(found["points"]),
                )
            )
        if told := _TIME.search(cell.source):
            minutes = _minutes(told["time"])
    title = notebooks.title_of(notebook) or chapter.name
    return Plan(int(chapter.name[:2]), title, link, minutes, tuple(tasks))


def plans_of(root: Path) -> list[Plan]:
    """The plans of all chapters, in order."""
    from autograder import notebooks

    return [plan_of(chapter) for chapter in notebooks.chapters(root)]


def headings(notebook: NotebookNode) -> dict[str, str]:
    """The headings of a notebook, as they are written, each with its anchor.

    The anchors are those that MyST gives for ``myst_heading_anchors: 3``.
    """
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode
    from mdit_py_plugins.dollarmath import dollarmath_plugin
    from myst_parser.mdit_to_docutils.base import compute_unique_slug

    parser = MarkdownIt().use(dollarmath_plugin)
    found: dict[str, str] = {}
    slugs: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for node in SyntaxTreeNode(parser.parse(cell.source)).children:
                if node.type == "heading" and int(node.tag[1]) <= 3:
                    slugs.append(compute_unique_slug(node, slugs))
                    found.setdefault(node.children[0].content, slugs[-1])
    return found


def link_of(chapter: Chapter) -> str:
    """The chapter's page, as seen from ``book/``."""
    return f"../{chapter.released.relative_to(chapter.root).as_posix()}"


def _minutes(words: str) -> int:
    """Minutes of "2 h 45 min", "3 hours" or "40 minutes"."""
    parts = re.findall(r"(\d+) (h|min)", words)
    return sum(int(number) * (60 if unit == "h" else 1) for number, unit in parts)


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02}"


def _hours(minutes: int) -> str:
    """A long time, as one says it."""
    return f"{minutes / 60:.0f} hours"


# --- the map of exercises --------------------------------------------------------------------


def course_plan(root: Path) -> str:
    """A table of the chapters: pieces to write, points, and the time to plan for each."""
    plans = [plan for plan in plans_of(root) if plan.tasks]
    rows = [
        f"| {plan.number}. [{plan.title}]({plan.link}) | {len(plan.exercises)} | "
        f"{plan.points:g} | {_clock(plan.minutes)} |"
        for plan in plans
    ]
    total = (
        f"| **All** | **{sum(len(plan.exercises) for plan in plans)}** | "
        f"**{sum(plan.points for plan in plans):g}** | "
        f"**{_clock(sum(plan.minutes for plan in plans))}** |"
    )
    head = ["| Chapter | Pieces | Points | Hours |", "| --- | ---: | ---: | ---: |"]
    return "\n".join([*head, *rows, total])


def exercise_map(root: Path) -> str:
    """The page of all exercises: where each is, how hard, how long, and what it is worth."""
    plans = [plan for plan in plans_of(root) if plan.tasks]
    parts = [
        "# All exercises",
        f"There are {sum(len(plan.exercises) for plan in plans)} exercises, which the notebooks "
        f"check, and {sum(len(plan.tasks) - len(plan.exercises) for plan in plans)} open questions,"
        f" which a person grades. They take about {_hours(sum(plan.working for plan in plans))}; "
        f"with reading, training and trying things out, plan "
        f"{_hours(sum(plan.minutes for plan in plans))}.",
        course_plan(root),
        "The dots say how hard an exercise is, from one to five; its minutes are those of someone "
        "who meets the matter for the first time.",
    ]
    for plan in plans:
        rows = [
            f"| [{_breakable(task.title)}]({task.link}) | {_dots(task)} | {task.minutes} | "
            f"{task.points:g} |"
            for task in plan.tasks
        ]
        parts += [
            f"## {plan.number}. {plan.title}",
            "\n".join(
                [
                    "| Exercise | Level | Min. | Points |",
                    "| --- | :---: | ---: | ---: |",
                    *rows,
                    f"| **All** | | **{plan.working}** | **{plan.points:g}** |",
                ]
            ),
        ]
    return "\n\n".join(parts) + "\n"


def _breakable(title: str) -> str:
    """A name in code that may break where its words meet, so that it fits on a phone."""
    if not re.fullmatch(r"`\w+`", title):
        return title
    return f"<code>{re.sub(r'(?<=_)(?=.)|(?<=[a-z])(?=[A-Z])', '<wbr>', title[1:-1])}</code>"


def _dots(task: Task) -> str:
    if not task.difficulty:
        return "by hand"
    dots = "●" * task.difficulty + "○" * (5 - task.difficulty)
    return f'<span role="img" aria-label="{task.difficulty} of 5">{dots}</span>'


# --- how the notebooks ran -------------------------------------------


def status(executed: Sequence[Executed]) -> str:
    """The page that tells how each notebook ran."""
    from autograder import notebooks

    rows, cells = [], 0
    for item in executed:
        title = notebooks.title_of(item.notebook) or item.chapter.name
        ran = sum(cell.cell_type == "code" for cell in item.notebook.cells)
        cells += ran
        rows.append(
            f"| [{title}]({link_of(item.chapter)}) | {item.finished} | {ran} | "
            f"✓ {item.seconds:.0f} s |"
        )
    seconds = sum(item.seconds for item in executed)
    budgets = " and ".join(f"`{name}`" for name in dict.fromkeys(item.budget for item in executed))
    return "\n".join(
        [
            "# Execution status",
            "",
            "Every figure and number in this book comes from running its notebooks with their",
            "solutions in place. A notebook that raises an error, writes to stderr or does not get",
            "its full points stops the build, so only notebooks that ran to the end are listed.",
            "",
            f"Budget: {budgets}.",
            "",
            "| Notebook | Finished (UTC) | Cells | Ran in |",
            "| --- | --- | ---: | ---: |",
            *rows,
            f"| **All** | | **{cells}** | **{seconds:.0f} s** |",
            "",
        ]
    )


def plain(text: str) -> str:
    """Text in a cell of a table, in which no letter means anything to Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>|$~])", r"\\\1", " ".join(text.split()))


# --- the front page --------------------------------------------------------------------------

_MARKER = re.compile(r"^<!-- (?P<name>family|plan|verdict)(?: (?P<exercise>\S+))? -->$", re.M)
_CODE = re.compile(r"^```python\n(?P<code>.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def filled(text: str, root: Path) -> str:
    """A page with its markers replaced by what they stand for.

    ``<!-- family -->``: the picture of the whole course. ``<!-- plan -->``: the chapters with
    their times. ``<!-- verdict attention/softmax -->``: what the check says of the Python code
    that stands last before it.
    """

    def part(marker: re.Match[str]) -> str:
        if marker["name"] == "family":
            return family()
        if marker["name"] == "plan":
            return course_plan(root)
        code = _CODE.findall(text[: marker.start()])
        return verdict(marker["exercise"], code[-1])

    return _MARKER.sub(part, text)


def family() -> str:
    """The picture of all pieces of the course and what each is made of."""
    from workbook.progress import built

    return html(built().svg)


def verdict(exercise_id: str, code: str) -> str:
    """What the exercise's check says of that code."""
    from autograder import exercise as exercises
    from autograder.checking import verdict_on

    exercise = exercises.find(exercise_id)
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, f"{exercise.name}.py", "exec"), namespace)
    found, _ = verdict_on(exercise, namespace[exercise.name])
    # A narrow page must be able to break the exercise's long name.
    return html(f'<div style="overflow-wrap: anywhere">{found.html()}</div>')


def html(text: str) -> str:
    """HTML as one block of Markdown, which ends at the first empty line."""
    return re.sub(r"\n\s*\n", "\n", text.strip())
