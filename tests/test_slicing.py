"""Cells that no exercise needs are left out, and never one that an exercise needs."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import nbformat
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nbformat import NotebookNode

from autograder import notebooks, sample, slicing
from autograder.assignment import Assignment, load_course
from autograder.engine import ForkEngine
from autograder.marking import Graded, grade_notebook
from autograder.slicing import names_of, unneeded

# ---- the names of a cell ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "bound", "used"),
    [
        ("x = y", "x", "y"),
        ("x: int = y", "x", "int y"),
        ("x, (y, *z) = a", "x y z", "a"),
        ("import torch.nn", "torch", ""),
        ("import numpy as np\nfrom math import pi as p", "np p", ""),
        ("def f(a, b=c):\n    d = a + e\n    return d", "f", "c e"),
        ("async def f():\n    await g()", "f", "g"),
        ("f = lambda a: a + b", "f", "b"),
        ("class A(B):\n    x = y\n    def f(self):\n        return z", "A", "B y z"),
        ("@d\ndef f(): pass", "f", "d"),
        ("def f(a: T) -> S: pass", "f", "T S"),
        ("def f():\n    n = 1\n    def g():\n        return n + m\n    return g", "f", "m"),
        ("def f():\n    global x\n    x = 1", "f x", ""),
        ("[i + a for i in b if c]", "", "a b c"),
        ("{k: v for k, v in a}", "", "a"),
        ("print(n := len(a))", "n", "print len a"),
        ("[last := i for i in a]", "last", "a"),
        ("for i, j in a: pass", "i j", "a"),
        ("with a as b, c as (d, e): pass", "b d e", "a c"),
        ("try:\n    a\nexcept E as e:\n    pass", "e", "a E"),
        ("match a:\n    case [b, *c]: pass\n    case {'k': d, **e}: pass", "b c d e", "a"),
        ("f'{a!r:>{b}} {c=}'", "", "a b c"),
        ("x += y", "x", "x y"),
        ("del x", "x", "x"),
        ("await a()", "", "a"),
        ("async for i in a: pass", "i", "a"),
        ("a.b.c(d)[e] < f", "", "a d e f"),
        ("%matplotlib inline\nx = y", "x", "y"),
        ("class A:\n    x = x", "A", "x"),
        ("class A:\n    for x in x: pass", "A", "x"),
    ],
)  # fmt: skip
def test_names_of_a_cell(source: str, bound: str, used: str) -> None:
    found = names_of(source)
    assert found is not None
    assert set(bound.split()) <= found.bound
    assert set(used.split()) <= found.used
    # Names that live inside a function, class or comprehension alone are not the cell's.
    assert found.bound | found.used <= {*bound.split(), *used.split(), "get_ipython"}


# ---- which cells are left out ----------------------------------------------------------------


def run(cells: Mapping[str, str], kept: Collection[str] | None = None) -> dict[str, Any]:
    """Runs the cells, or those of them that are kept, as a notebook does.

    Returns:
        What the cell ``check`` sees in ``seen``, or how it failed.
    """
    names: dict[str, Any] = {}
    for name, source in cells.items():
        if kept is not None and name not in kept:
            continue
        error = None
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(source, name, "exec"), names)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        if name == "check":
            return {"seen": names.get("seen"), "error": error}
    raise AssertionError("there is no check")


def left_out(*course: str, learner: str = "", check: str = "seen = x") -> set[int]:
    """The numbers of the course's cells that are left out, with a learner's cell and a check."""
    cells = {str(number): source for number, source in enumerate(course)}
    optional = list(cells)
    cells |= {"learner": learner or "pass", "check": check}
    found = unneeded(cells, optional)
    assert found <= set(optional)
    assert run(cells, set(cells) - found) == run(cells)
    return {int(number) for number in found}


def test_what_nobody_uses_is_left_out() -> None:
    assert left_out("x = 1", "y = 2", "print(y)", "z = y + 1", "def f(): return z") == {1, 2, 3, 4}


def test_what_a_check_comes_to_through_other_cells_is_kept() -> None:
    assert left_out("a = 1", "b = a + 1", "def f(): return b", "c = 5", "x = f()") == {3}


def test_what_uses_a_block_of_an_earlier_chapter_is_left_out_as_what_uses_an_import() -> None:
    carried = 'from workbook.blocks import block\nsoftmax = block("attention/softmax")'
    uses = "y = softmax(torch.ones(2))"
    assert left_out("import torch", carried, uses, check="seen = softmax(torch.ones(1))") == {2}
    # Something else of that name is a value like any other.
    assert left_out("softmax = [1]", "y = softmax", check="seen = softmax") == set()


@pytest.mark.parametrize(
    ("first", "change"),
    [
        ("x = [1]", "x.append(2)"),
        ("x = [1]", "x[0] = 2"),
        ("x = [1]", "del x[0]"),
        ("x = [1]", "x += [2]"),
        ("x = 1", "x += 2"),
        ("x = [1]", "for i in range(3): x.append(i)"),
        ("x = [1]", "[x.append(i) for i in range(3)]"),
        ("x = [1]", "y = x\ny.append(2)"),
        ("x = [[1]]", "for y in x: y.append(2)"),
        ("x = {}", "x['a'] = 1"),
        ("x = {}", "def f(): x['a'] = 1\nf()"),
        ("x = 1", "def f():\n    global x\n    x = 2\nf()"),
        ("x = 1", "for x in range(5): pass"),
        ("x = 1", "try:\n    1 / 0\nexcept ZeroDivisionError as x:\n    pass"),
        ("x = 1", "import math as x; x = x.floor(2.5)"),
        ("x = 1", "if (x := 2): pass"),
        ("x = 1", "[x := i for i in range(3)]"),
        ("x = 1", "class x: pass\nx = x.__name__"),
        ("x = 1", "del x"),
        ("x = [1]", "import random\nrandom.seed(1); random.shuffle(x)"),
    ],
)
def test_what_changes_a_value_is_kept(first: str, change: str) -> None:
    assert left_out(first, "z = 1", change) == {1}


def test_what_changes_a_value_under_another_name_is_kept() -> None:
    assert left_out("x = [1]", "y = x", "y.append(2)", "z = 3") == {3}
    assert left_out("x = [1]", "pair = (x, 1)", "first, _ = pair", "first.append(2)") == set()
    assert left_out("x = [1]", "add = x.append", "add(2)", "z = 3") == {3}


@pytest.mark.parametrize(
    "define",
    [
        "def add(n): x.append(n)",
        "add = lambda n: x.append(n)",
        "class Add:\n    def __call__(self, n): x.append(n)\nadd = Add()",
        "class add:\n    def __init__(self, n): x.append(n)",
        "def inner(n): x.append(n)\ndef add(n): inner(n)",
        "def add(n):\n    global x\n    x = [n]",
        "def add(n):\n    def deeper(): x.append(n)\n    deeper()",
    ],
)
def test_what_changes_a_value_through_a_function_is_kept(define: str) -> None:
    assert left_out("x = [1]", define, "add(2)", "z = 3") == {3}
    assert left_out("x = [1]", "z = 3", "add(2)", learner=define) == {1}


def test_what_changes_a_class_or_a_function_is_kept() -> None:
    model = "class Model:\n    rate = 1\n    def step(self): return self.rate"
    seen = "seen = Model().step()"
    assert left_out(model, "Model.rate = 2", "z = 3", check=seen) == {2}
    patch = "def twice(self): return 2 * self.rate\nModel.step = twice"
    assert left_out(model, patch, "z = 3", check=seen) == {2}
    assert left_out("z = 3", "Model.rate = 2", learner=model, check=seen) == {0}
    count = "def f():\n    f.calls += 1\n    return f.calls\nf.calls = 0"
    assert left_out(count, "f()", "z = 3", check="seen = f()") == {2}


def test_a_name_that_a_learner_wrote_over_counts() -> None:
    assert left_out("z = 1", "y = 2", learner="x = y") == {0}
    assert left_out("def f(): return 1", "y = f()", "z = 1", learner="x = f() + 1") == {1, 2}


def test_local_names_are_no_reason_to_run_a_cell() -> None:
    local = "def f(y):\n    z = y\n    z[0] = 1\n    z += [2]\n    return [w for w in z]"
    assert left_out("y = [1]", "z = [2]", "w = [3]", learner=f"{local}\nx = f([5])") == {0, 1, 2}
    # A name of the same spelling in a class, and of an attribute.
    method = "class A:\n    y = 1\n    def z(self): return self.w\nx = A.y"
    assert left_out("y = [1]", "z = [2]", "w = [3]", learner=method) == {0, 1, 2}


def test_augmented_and_deleted_names_are_used() -> None:
    assert left_out("x = 1", "z = 1", learner="x += 1") == {1}
    assert left_out("x = [1]", "z = 1", learner="x[0] += 1") == {1}
    assert left_out("x = 1", "y = 1", learner="del y") == set()


def test_a_body_of_a_class_reads_what_it_writes_over() -> None:
    assert left_out("y = 1", "z = 1", learner="class A:\n    y = y\nx = A.y") == {1}
    assert left_out("y = 1", "z = 1", learner="class A:\n    y += 1\nx = A.y") == {1}


def test_what_may_bring_any_name_is_kept() -> None:
    assert left_out("from math import *", "z = 1", check="seen = floor(2.5)") in (set(), {1})
    assert left_out("exec('x = 1')", "z = 1") in (set(), {1})
    assert left_out("globals()['x'] = 1", "z = 1") in (set(), {1})


@pytest.mark.parametrize(
    "learner", ["x = eval('y')", "x = globals()['y']", "exec('x = y')", "x = vars().get('y')"]
)
def test_where_a_learner_may_use_any_name_all_is_kept(learner: str) -> None:
    assert left_out("y = 1", learner=learner) == set()


@pytest.mark.parametrize(
    "magic", ["%%time\n", "%%capture\n", "%%capture said\n", "%time ", "_ = %timeit -o "]
)
def test_magics_that_run_python_hide_no_name(magic: str) -> None:
    cells = {"0": "y = 1", "1": "z = 1", "learner": f"{magic}x = y", "check": "seen = x"}
    assert "0" not in unneeded(cells, ["0", "1"])
    cells = {"0": f"{magic}x = 1", "check": "seen = x"}
    assert unneeded(cells, ["0"]) == set()


@pytest.mark.parametrize("magic", ["%matplotlib inline", "%pip install x", "%load_ext autoreload"])
def test_magics_that_touch_no_name_change_nothing(magic: str) -> None:
    cells = {"0": f"{magic}\ny = 1", "1": f"{magic}\nx = 1", "check": f"{magic}\nseen = x"}
    assert unneeded(cells, ["0", "1"]) == {"0"}


def test_a_learners_cell_that_is_no_python_makes_nothing_run() -> None:
    for source in ("def f(:", "x = = 1", "\tx\n y", "x = '\0'", "(" * 500):
        cells = {"0": "x = 1", "1": "y = 1", "learner": source, "check": "seen = x"}
        assert unneeded(cells, ["0", "1"]) == {"1"}, source


def test_cells_that_count_are_never_left_out() -> None:
    cells = {"a": "x = 1", "b": "y = 1", "c": "def f(:"}
    assert unneeded(cells, []) == set()
    assert unneeded(cells, ["b"]) == {"b"}
    assert unneeded({}, []) == set()


# ---- any program -----------------------------------------------------------------------------

VALUES, FUNCTIONS, CLASSES = ("x", "y", "z"), ("f", "g"), ("K",)
NAMES = (*VALUES, *FUNCTIONS, *CLASSES)
STATEMENTS = (
    "{x} = {n}",
    "{x} = [{n}]",
    "{x} = {y}",
    "{x} = ({y}, {z})",
    "{x} = {y} + {z}",
    "{x} += {y}",
    "{x} += [{n}]",
    "{x}.append({n})",
    "{x}.append({y})",
    "{x}[0] = {n}",
    "{x}[0] += {n}",
    "del {x}",
    "del {x}[0]",
    "{x}, *{y} = [{n}, 1, 2]",
    "for {x} in range({n}): pass",
    "for {x} in {y}: {z} = {x}",
    "{x} = [{y} for {y} in range(3)]",
    "{x} = [({y} := i) for i in range(2)]",
    "{x} = f'{{{y}}}'",
    "if {x}: {y} = {n}",
    "try:\n    {x} = {y}[0]\nexcept TypeError as {z}:\n    {x} = {n}",
    "with suppress(TypeError) as {x}: {y} = {z}[0]",
    "import math as {x}",
    "def {f}(): return {x}",
    "def {f}(): {x}.append({n})",
    "def {f}():\n    global {x}\n    {x} = {n}",
    "def {f}():\n    global {x}\n    {x} += {y}",
    "def {f}():\n    {x} = [{n}]\n    def inner(): return {x}\n    return inner() + [{y}]",
    "def {f}(): return {g}()",
    "def {f}({x}={y}): {x}.append({n})",
    "{f} = lambda: {x}.append({n})",
    "{f} = lambda: {x}",
    "{f} = {g}",
    "{f}()",
    "{x} = {f}()",
    "{f}.count = {n}",
    "{x} = {f}.count",
    "class {K}:\n    {x} = {x}",
    "class {K}:\n    rate = {n}\n    def read(self): return {x}",
    "class {K}:\n    rate = {x}\n    def write(self): {y}.append(self.rate)",
    "@{f}\nclass {K}: pass",
    "{K}.rate = {n}",
    "{K}.rate = {x}",
    "{K}.rate.append({n})",
    "{x} = {K}.rate",
    "{x} = {K}().read()",
    "{K}().write()",
    "{x} = {K}",
)


@st.composite
def statements(draw: st.DrawFn) -> str:
    """One statement, about few names."""
    pick = {name: draw(st.sampled_from(VALUES)) for name in ("x", "y", "z")}
    pick |= {name: draw(st.sampled_from(FUNCTIONS)) for name in ("f", "g")}
    pick |= {"K": draw(st.sampled_from(CLASSES)), "n": str(draw(st.integers(0, 3)))}
    return draw(st.sampled_from(STATEMENTS)).format(**pick)


@st.composite
def programs(draw: st.DrawFn) -> tuple[dict[str, str], list[str]]:
    """Some cells, and which of them are the course's own."""
    cells, optional = {}, []
    for number in range(draw(st.integers(2, 9))):
        cells[f"cell-{number}"] = "\n".join(draw(st.lists(statements(), min_size=1, max_size=2)))
        if draw(st.integers(0, 2)):
            optional.append(f"cell-{number}")
        else:
            looks_at = draw(st.lists(st.sampled_from(NAMES), max_size=3, unique=True))
            cells[f"cell-{number}"] += f"\nrecord({', '.join(looks_at)})"
    return cells, optional


def shown(value: Any, depth: int = 3) -> Any:
    """What can be seen of a value: no addresses."""
    if isinstance(value, list | tuple):
        return [shown(item, depth - 1) for item in value] if depth else "…"
    if isinstance(value, int | str):
        return value
    rate = getattr(value, "rate", None) if isinstance(value, type) else None
    count = getattr(value, "count", None) if callable(value) else None
    return [type(value).__name__, depth and shown(rate, depth - 1), depth and shown(count, 0)]


def seen_by(cells: Mapping[str, str], optional: Collection[str], out: Collection[str]) -> list[Any]:
    """What each cell that counts records, and how it fails."""
    seen: list[Any] = []
    names: dict[str, Any] = {
        "suppress": contextlib.suppress,
        "record": lambda *values: seen.append(shown(values)),
    }
    for name, source in cells.items():
        if name in out:
            continue
        error = None
        try:
            exec(compile(source, name, "exec"), names)
        except Exception as raised:
            error = type(raised).__name__
        if name not in optional:
            seen.append((name, error))
    return seen


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
@example(({"0": "x = [1]", "1": "y = x", "2": "y.append(2)", "3": "record(x)"}, ["0", "1", "2"]))
@example(({"0": "x = [1]\ndef f(): x.append(1)", "1": "f()", "2": "record(x)"}, ["1"]))
@example(({"0": "x = 1", "1": "x += 1\nrecord(x)"}, ["0"]))
@example(({"0": "x = 1", "1": "class K:\n    x = x"}, ["0"]))
@example(({"0": "class K: rate = 1", "1": "K.rate = 2", "2": "record(K.rate)"}, ["1"]))
def test_leaving_cells_out_changes_nothing_for_those_that_count(
    program: tuple[dict[str, str], list[str]],
) -> None:
    cells, optional = program
    out = unneeded(cells, optional)
    assert out <= set(optional)
    assert seen_by(cells, optional, out) == seen_by(cells, optional, ())


# ---- chapter 1 -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chapter(tmp_path_factory: pytest.TempPathFactory) -> Assignment:
    """Chapter 1, as it is graded."""
    return load_course(ROOT, "01_attention", tmp_path_factory.mktemp("chapter"))


@pytest.fixture(scope="module")
def engine() -> Iterator[ForkEngine]:
    with ForkEngine() as engine:
        yield engine


def submitted(chapter: Assignment, student: sample.Student) -> NotebookNode:
    """What a student hands in."""
    return sample.submission_of(student, chapter.notebook, chapter.release)


def not_run(graded: Graded) -> list[NotebookNode]:
    """The cells that say that they were left out."""
    return [
        cell
        for cell in graded.notebook.cells
        if any("Not run while grading" in str(out.get("text")) for out in cell.get("outputs", ()))
    ]


@pytest.mark.parametrize("name", ["ada", "chloe", "emma", "grace"])
def test_chapter_1_gives_the_same_verdicts_with_and_without(
    chapter: Assignment, engine: ForkEngine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    student = next(student for student in sample.CLASS if student.name == name)
    book = submitted(chapter, student)
    book.cells.append(nbformat.v4.new_code_cell("print(weights.shape)  # of the course's cells"))
    with_slicing = grade_notebook(book, chapter, engine)
    monkeypatch.setattr(slicing, "unneeded", lambda *_: set())
    whole = grade_notebook(book, chapter, engine)
    assert not not_run(whole)
    assert with_slicing.verdicts == whole.verdicts
    if name == "ada":
        assert {verdict.status for verdict in whole.verdicts} == {"passed"}
    # What the learner's own cell shows needs cells of the course, which then run.
    assert with_slicing.notebook.cells[-1].outputs == whole.notebook.cells[-1].outputs
    assert with_slicing.notebook.cells[-1].outputs[0].output_type == "stream"


def test_chapter_1_trains_nothing_while_it_is_graded(
    chapter: Assignment, engine: ForkEngine
) -> None:
    book = submitted(chapter, sample.CLASS[0])
    graded = grade_notebook(book, chapter, engine)
    skipped = [cell.source for cell in not_run(graded)]
    training = [c.source for c in book.cells if c.cell_type == "code" and "train(" in c.source]
    assert len(training) >= 2
    assert set(training) <= set(skipped)
    own = [c for c in book.cells if c.cell_type == "code" and not notebooks.mark(c)]
    assert len(skipped) > 0.8 * len(own)
    assert graded.run["seconds"] < 20
