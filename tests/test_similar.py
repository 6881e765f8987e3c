"""Similar submissions: what is the same, what is not, and that a large class is little work."""

from __future__ import annotations

import json
import random
import textwrap
import time
from pathlib import Path

import pytest
from grading_fixtures import STUB, cell
from nbgrader.utils import compute_checksum

from autograder.similar import MIN_SIZE, Group, load, normal_form, similar

ATTEND = '''
def attend(query, key, value, mask=None):
    """Weighs the values."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = torch.nan_to_num(torch.softmax(scores, dim=-1), nan=0.0)
    return weights @ value, weights
'''
RENAMED = """
def attend(q: torch.Tensor, k, v, m: torch.Tensor | None = None) -> tuple:
    # entirely my own work
    s: torch.Tensor = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
    if (m is not None):

        s = s.masked_fill(~m, float('-inf'))
    w = torch.nan_to_num(
        torch.softmax(s, dim=-1),
        nan=0.00,
    )
    "softmax is done"
    return (w @ v, w)
"""
OTHER_WAY = """
def attend(query, key, value, mask=None):
    scale = query.size(-1) ** -0.5
    scores = torch.einsum("bqd,bkd->bqk", query * scale, key)
    allowed = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
    powers = (scores - scores.amax(-1, keepdim=True)).exp() * allowed
    weights = powers / powers.sum(-1, keepdim=True).clamp(min=1e-30)
    return torch.einsum("bqk,bkd->bqd", weights, value), weights
"""
LAYER = """
class Layer(nn.Module):
    def __init__(self, size, hidden):
        super().__init__()
        self.inner = nn.Linear(size, hidden)
        self.register_buffer("table", torch.zeros(hidden))

    def _mix(self, x, *, scale=1.0):
        return torch.tanh(self.inner(x)) * scale + self.table

    def forward(self, x):
        return [self._mix(row, scale=2.0).weight for row in x]
"""
LAYER_RENAMED = """
class Layer(nn.Module):
    def __init__(me, n, h):
        super().__init__()
        me.proj = nn.Linear(n, h)
        me.register_buffer("lookup", torch.zeros(h))

    def _combine(me, data, *, factor=1.0):
        return torch.tanh(me.proj(data)) * factor + me.lookup

    def forward(me, batch):
        return [me._combine(item, factor=2.0).weight for item in batch]
"""

GLOBAL = """
n = 0
def f():
    n = 1
    def g():
        global n
        return n
    return g() + n
"""


def same(one: str, other: str) -> bool:
    forms = [normal_form(textwrap.dedent(text)) for text in (one, other)]
    return forms[0] == forms[1]


def various(number: int) -> str:
    """An answer of its own: the same steps with other operations, by the number's digits."""
    functions = ["exp", "tanh", "relu", "abs", "sin", "cos", "log", "sqrt", "neg", "round"]
    lines = [f"    x = torch.{functions[int(digit)]}(x + {at}) * 2" for at, digit in steps(number)]
    return "def f(x):\n" + "\n".join(lines) + "\n    return x\n"


def steps(number: int) -> enumerate[str]:
    return enumerate(f"{number:07d}")


# ---- normal form -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ATTEND, RENAMED),
        (LAYER, LAYER_RENAMED),
        ("def f(x):\n    y = 0x10 + 1_000\n    return y", "def f(a): b = 16 + 1000; return b"),
        ("import torch.nn.functional as F\ny = F.relu(x)", "y = torch.nn.functional.relu(x)"),
        ("from math import sqrt as root\ny = root(x)", "import math as m\nz = m.sqrt(x)"),
        (
            "def f(x):\n    def g(a): return a\n    return g(a=x)",
            "def f(x):\n    def h(b): return b\n    return h(b=x)",
        ),
        (
            "def f(x):\n    a = 1\n    return [a * i for i in x if i]",
            "def f(t):\n    k = 1\n    return [k * v for v in t if v]",
        ),
        (
            "try:\n    f()\nexcept ValueError as e:\n    print(e)",
            "try:\n    f()\nexcept ValueError as err:\n    print(err)",
        ),
        ("def f(x):\n    return [x for x in x]", "def f(a):\n    return [b for b in a]"),
        ("g = lambda a, b=1: a + b", "g = lambda x, y=1: x + y"),
        ("y = [a for row in x for a in row]", "z = [b for line in x for b in line]"),
        ("%matplotlib inline\nx = 1", "!ls\ny = 1"),
        ("match x:\n    case [a, *b]: f(a, b)", "match x:\n    case [c, *d]: f(c, d)"),
    ],
)
def test_names_and_layout_make_no_difference(one: str, other: str) -> None:
    assert same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ATTEND, OTHER_WAY),
        (ATTEND, ATTEND.replace("-2, -1", "-1, -2")),
        (ATTEND, ATTEND.replace("softmax", "sigmoid")),
        (ATTEND, ATTEND.replace("/ math", "* math")),
        (ATTEND, ATTEND.replace("dim=-1", "axis=-1")),
        ("a = f()\nb = g()", "b = g()\na = f()"),
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("def f(a, b):\n    return a - b", "def f(a, b):\n    return b - a"),
        ("def f(a):\n    b = 1\n    return a", "def f(a):\n    b = 1\n    return b"),
        ("def f(x):\n    return x.weight", "def f(x):\n    return x.bias"),
        ("if a:\n    f()\n    g()", "if a:\n    f()\ng()"),
        ("import math\ny = math.sqrt(2)", "import cmath\ny = cmath.sqrt(2)"),
        ("def f(x):\n    global n\n    n = x\n", "def f(x):\n    n = x\n"),
        (GLOBAL, GLOBAL.replace("global n", "pass")),
        ("class A:\n    x = 1\n    f = lambda s: x", "class A:\n    y = 1\n    f = lambda s: y"),
        ("def f():\n    yield 1", "async def f():\n    yield 1"),
        (LAYER, LAYER.replace("self.inner(x)", "self.table(x)")),
    ],
)
def test_what_the_code_does_makes_a_difference(one: str, other: str) -> None:
    assert not same(one, other)


def test_names_are_told_apart_by_where_they_belong() -> None:
    # Renaming x in one function only is a renaming all the same.
    one = "def f(x):\n    return x + 1\ndef g(x):\n    return x * 2"
    other = "def f(x):\n    return x + 1\ndef g(y):\n    return y * 2"
    assert same(one, other)
    assert not same("x = 1\ndef f(x):\n    return x", "x = 1\ndef f(y):\n    return x")


@pytest.mark.parametrize(
    "source",
    [
        "",
        "# YOUR CODE HERE",
        STUB,
        'def f(x):\n    """Says what to do."""\n    ...\n',
        "class A(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        raise NotImplementedError('later')\n    def forward(self, x): pass\n",
    ],
)
def test_nothing_written_has_no_size(source: str) -> None:
    assert normal_form(source).size == 0


@pytest.mark.parametrize(
    "source",
    [
        "def f(:\n    return x +",
        "x = 1\n" * 100_000,
        "+".join(["1"] * 20_000),
        "-" * 50_000 + "1",
        "(" * 150 + ")" * 150,
        "if a:\n    f()\n" + "elif a:\n    f()\n" * 2_000,
        "x = 0x" + "f" * 5_000,
        "x = 'a\0b'",
        "x = '\ud800'",
        "x = '\\d'",
    ],
    ids=["syntax", "lines", "deep", "minus", "parens", "elif", "digits", "nul", "half", "escape"],
)
def test_whatever_was_written_has_a_form(source: str) -> None:
    began = time.monotonic()
    form = normal_form(source)
    assert form.size > 0 or source.startswith("(")
    assert form == normal_form(f"{source}   # a comment\n")
    assert time.monotonic() - began < 10


def test_a_syntax_error_still_shows_a_copy() -> None:
    broken = ATTEND.replace("if mask is not None:", "if mask is not None")
    assert same(broken, broken.replace("    ", "\t") + "# mine")
    assert not same(broken, broken.replace("scores", "points"))


# ---- groups ----------------------------------------------------------------------------------


def found(groups: list[Group]) -> list[tuple[str, ...]]:
    return [group.students for group in groups]


def test_a_planted_pair_in_a_class_of_30_is_found() -> None:
    answers = {f"s{at:02d}": {"f": various(at * 1234), "g": various(at)} for at in range(28)}
    answers |= {"eve": {"f": ATTEND, "g": various(77)}, "mallory": {"f": RENAMED, "g": LAYER}}
    groups = similar(answers)
    assert found(groups) == [("eve", "mallory")]
    shared = groups[0].shared[0]
    assert (shared.answer, shared.students, shared.written) == ("f", 2, 30)
    assert shared.size == normal_form(ATTEND).size >= MIN_SIZE


def test_what_a_tenth_of_the_class_writes_is_no_evidence() -> None:
    answers = {f"s{at:02d}": {"f": various(at)} for at in range(30)}
    for at in range(4):
        answers[f"s{at:02d}"] = {"f": ATTEND}
    assert similar(answers) == []
    answers["s00"] = {"f": LAYER}
    assert found(similar(answers)) == [("s01", "s02", "s03")]


def test_what_is_short_counts_only_with_more() -> None:
    short, other = "def g(x):\n    return x.exp() / 2", various(9)
    answers = {f"s{at}": {"f": various(at), "g": various(at)} for at in range(5)}
    answers |= {"eve": {"f": other, "g": short}, "mallory": {"f": various(8), "g": short}}
    assert similar(answers) == []
    answers["mallory"]["f"] = other
    (group,) = similar(answers)
    assert [shared.answer for shared in group.shared] == ["f", "g"]


def test_pairs_with_the_same_answers_are_one_group_and_the_heaviest_comes_first() -> None:
    answers = {f"s{at}": {"f": various(at), "g": various(at)} for at in range(20)}
    answers |= {
        "ann": {"f": ATTEND, "g": LAYER},
        "bob": {"f": RENAMED, "g": LAYER_RENAMED},
        "cid": {"f": ATTEND, "g": OTHER_WAY},
    }
    groups = similar(answers)
    assert found(groups) == [("ann", "bob"), ("ann", "bob", "cid")]
    assert [[shared.answer for shared in group.shared] for group in groups] == [["f", "g"], ["f"]]
    assert groups[0].weight > groups[1].weight
    assert groups[0].shared[0].students == 3


def test_a_rarer_answer_weighs_more() -> None:
    def weight(size: int) -> float:
        answers = {f"s{at}": {"f": various(at)} for at in range(size)}
        (group,) = similar(answers | {"eve": {"f": ATTEND}, "mallory": {"f": ATTEND}})
        return group.weight

    assert weight(4) < weight(40) < weight(400)


def test_what_was_given_out_is_nothing_written() -> None:
    given = ATTEND.replace("attend", "example")
    answers = {"eve": {"f": given}, "mallory": {"f": given + "# mine"}, "ann": {"f": OTHER_WAY}}
    assert similar(answers, {"f": given}) == []
    assert found(similar(answers)) == [("eve", "mallory")]


@pytest.mark.parametrize("answers", [{}, {"ann": {}}, {"ann": {"f": ATTEND}}])
def test_nobody_is_like_nobody(answers: dict[str, dict[str, str]]) -> None:
    assert similar(answers) == []


def test_a_thousand_students_go_in_seconds() -> None:
    rng = random.Random(5)
    answers = {
        f"s{at:04d}": {name: various(rng.randrange(10**7)) for name in "abcde"}
        for at in range(1_000)
    }
    # Half a class with one answer, and many groups just small enough to count.
    for at in range(500):
        answers[f"s{at:04d}"]["a"] = ATTEND
    for at in range(500, 1_000):
        answers[f"s{at:04d}"]["b"] = various(10**7 + at // 100)
    for name in "abcde":
        answers["s0007"][name] = answers["s0993"][name] = various(10**8 + ord(name))
    began = time.monotonic()
    groups = similar(answers)
    assert time.monotonic() - began < 60
    assert groups[0].students == ("s0007", "s0993")
    assert len(groups[0].shared) == 5
    assert sorted(len(group.students) for group in groups if len(group.students) > 2) == [
        99, 100, 100, 100, 100,
    ]  # fmt: skip


def test_large_groups_are_not_taken_apart_into_pairs() -> None:
    answers = {f"s{at:05d}": {"f": various(at % 10)} for at in range(10_000)}
    began = time.monotonic()
    groups = similar(answers)
    assert time.monotonic() - began < 2  # five million pairs take longer
    assert [len(group.students) for group in groups] == [1_000] * 10


# ---- reading ---------------------------------------------------------------------------------


def hand_in(graded: Path, student: str, *cells: dict) -> Path:
    path = graded / "autograded" / student / "01_x" / "01_x.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(
        json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells})
    )
    return path


def answer(source: str, given: str = STUB) -> dict:
    """An answer cell as nbgrader leaves it: with the checksum of what was given out."""
    made = cell("code", given, grade_id="f", solution=True)
    made.metadata["nbgrader"]["checksum"] = compute_checksum(made)
    made.source = source
    return made


def test_answers_come_from_the_autograded_notebooks(tmp_path: Path) -> None:
    hand_in(tmp_path, "ann", answer(ATTEND), cell("code", "x = 1"), cell("markdown", "text"))
    hand_in(tmp_path, "ben", answer(STUB))
    hand_in(tmp_path, "cid", cell("markdown", "why", grade_id="q", solution=True, grade=True))
    hand_in(tmp_path, "dan", cell("code", "check(1)", grade_id="c", grade=True, points=1))
    hand_in(tmp_path, "eva").write_bytes(b"\xff\xfe not UTF-8")
    hand_in(tmp_path, "fay").write_text("[" * 100_000)
    hand_in(tmp_path, "gil", {"cell_type": "code"}, {"cell_type": "code", "metadata": [1]})
    hand_in(tmp_path, "hal").write_text('{"cells": 3}')
    students = ["ann", "ben", "cid", "dan", "eva", "fay", "gil", "hal", "nobody", "a\0b", "x" * 999]
    answers = load(tmp_path, "01_x", students)
    assert answers.written == {student: {} for student in students} | {"ann": {"f": ATTEND}}
    assert answers.given == {"f": STUB}
