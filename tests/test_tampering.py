"""Which submissions are checked once more where the built-in does not exist, and how."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from grading_fixtures import SOFTMAX, assignment, by_id, edited
from nbformat import NotebookNode

from autograder import sample, tampering
from autograder.assignment import Assignment
from autograder.engine import ForkEngine
from autograder.marking import Graded, grade_notebook

ORDINARY = [
    SOFTMAX,
    "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\nimport math",
    "from autograder import check\nfrom workbook import budget, plots",
    "import numpy as np\nimport matplotlib.pyplot as plt\nplt.plot(np.arange(3))",
    "class A(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.w = nn.Linear(2, 2, bias=False)\n        self._cache = None\n"
    "    def forward(self, x):\n        return self.w(x)",
    "x = torch.softmax(scores, -1)  # in words: exec, __globals__",
    "print('gc', type(x), x.__doc__)",
    "def f(:",
]
REACHING = [
    "import gc",
    "import sys, os",
    "from threading import Thread",
    "import torch.utils._python_dispatch",
    "from torch.utils import _python_dispatch as d",
    "from torch import _C",
    "from torch.overrides import TorchFunctionMode",
    "from torch.nn.functional import *",
    "import autograder",
    "import autograder.runner as r",
    "from autograder import checking",
    "from autograder.exercise import find",
    "check.__globals__['run'] = 1",
    "check.__wrapped__",
    "torch._C._disable_torch_dispatch()",
    "torch.ops.aten._softmax(x, -1, False)",
    "torch.nn.functional.softmax = mine",
    "t = torch\nt.Tensor.detach = mine",
    "del torch.softmax",
    "setattr(torch, 'softmax', 1)",
    "getattr(torch, 'soft' + 'max')",
    "eval('1')",
    "exec('x = 1')",
    "__import__('gc')",
    "__builtins__",
    "().__class__.__bases__[0].__subclasses__()",
    "class T(torch.Tensor): pass",
    "class T(Tensor): pass",
    "class M(metaclass=Meta): pass",
    "type('T', (torch.Tensor,), {})",
    "class A:\n    def __torch_function__(self, *a): pass",
    "class A:\n    def __eq__(self, other): return True",
    "!ls",
    "%run x.py",
    "%%bash\nls",
    "open('/proc/self/mem')",
    "torch.jit.script(f)",
    "torch.compile(f)",
    "get_ipython()",
    "softmax.__code__ = other.__code__",
]


@pytest.mark.parametrize("source", ORDINARY)
def test_ordinary_work_is_left_alone(source: str) -> None:
    assert not tampering.reaches([source])


@pytest.mark.parametrize("source", REACHING)
def test_reaching_into_the_process_is_seen(source: str) -> None:
    assert tampering.reaches([SOFTMAX, source])


def test_the_solutions_and_the_sample_class_are_ordinary_work() -> None:
    solved, blank = sample.sources(ROOT)
    given = {cell.source for cell in blank.cells}
    for student in sample.CLASS:
        book = sample.submission_of(student, solved, blank)
        own = [c.source for c in book.cells if c.cell_type == "code" and c.source not in given]
        assert not tampering.reaches(own), student.name


# ---- the built-in does not exist -------------------------------------------------------------

WAYS = {
    "softmax": [
        "torch.softmax(x, -1)",
        "x.softmax(-1)",
        "F.softmax(x, -1)",
        "F.log_softmax(x, -1).exp()",
        "torch.nn.Softmax(-1)(x)",
        "torch.special.softmax(x, -1)",
        "torch.ops.aten._softmax(x, -1, False)",
        "torch.jit.script(scripted)(x)",
        "in_thread(lambda: torch.softmax(x, -1))",
    ],
    "scaled_dot_product_attention": [
        "F.scaled_dot_product_attention(x, x, x)",
        "F.scaled_dot_product_attention(x[None], x[None], x[None])",
        "torch._C._nn.scaled_dot_product_attention(x, x, x)",
        "torch.nn.MultiheadAttention(4, 1)(x, x, x)",
        "torch.nn.MultiheadAttention(4, 1, batch_first=True).eval()(x, x, x)",
        "torch.nn.TransformerEncoderLayer(4, 1, batch_first=True).eval()(x)",
        "torch.ops.aten.scaled_dot_product_attention(x, x, x)",
        "in_thread(lambda: F.scaled_dot_product_attention(x, x, x))",
    ],
}


@pytest.mark.parametrize("name", WAYS)
def test_no_way_leads_to_what_was_removed(name: str, tmp_path: Path) -> None:
    """In a process of its own: it is removed for good."""
    code = f"""
        import gc, threading, torch
        from torch.nn import functional as F
        from autograder import runner
        from autograder.complaints import Complaint
        def scripted(x):
            return torch.softmax(x, -1)
        def in_thread(act):
            done = []
            def run():
                try: done.append(act())
                except Complaint as error: done.append(error)
            thread = threading.Thread(target=run)
            thread.start(); thread.join()
            if isinstance(done[0], Complaint): raise done[0]
        x = torch.randn(2, 3, 4)
        ways = {[*WAYS[name]]!r}
        for way in ways: eval(way)
        runner.remove([{name!r}])
        gc.collect()
        for way in ways:
            for quiet in (torch.enable_grad, torch.no_grad, torch.inference_mode):
                with quiet(), torch._C.DisableTorchFunction():
                    try: eval(way)
                    except (Complaint, RuntimeError) as error: assert {name!r} in str(error), error
                    else: print("there:", way, quiet)
        print(torch.matmul(x, x.mT).exp().sum().isfinite().item())
    """
    script = tmp_path / "ways.py"  # TorchScript wants a source file
    script.write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True\n", done.stdout + done.stderr


# ---- and the lower result counts -------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[ForkEngine]:
    with ForkEngine(trust=True) as engine:
        yield engine


@pytest.fixture(scope="module")
def small() -> Assignment:
    return assignment()


def _graded(small: Assignment, engine: ForkEngine, source: str) -> Graded:
    def change(book: NotebookNode) -> None:
        by_id(book, "softmax-solution").source = source

    return grade_notebook(edited(change), small, engine)


BUILT_IN = "def softmax(scores, dim=-1):\n    return torch.softmax(scores, dim)\n"
UNWATCHED = (
    "import autograder.runner\nautograder.runner._note = lambda *a: None\n",
    "import threading\n"
    "def softmax(scores, dim=-1):\n"
    "    done = []\n"
    "    t = threading.Thread(target=lambda: done.append(torch.softmax(scores, dim)))\n"
    "    t.start(); t.join()\n"
    "    return done[0]\n",
    "from torch.utils._python_dispatch import _disable_current_modes as off\n"
    "def softmax(scores, dim=-1):\n"
    "    with off(), torch._C.DisableTorchFunction():\n"
    "        return torch.softmax(scores, dim)\n",
)


@pytest.mark.parametrize("source", UNWATCHED, ids=["patched", "in a thread", "modes off"])
def test_a_watcher_switched_off_gains_nothing(
    small: Assignment, engine: ForkEngine, source: str
) -> None:
    source = source if "def softmax" in source else source + BUILT_IN
    assert _graded(small, engine, BUILT_IN).verdicts[0].points == 0
    graded = _graded(small, engine, source)
    assert graded.verdicts[0].points == 0
    assert "checked once more" in graded.verdicts[0].note
    assert graded.verdicts[1].status == "passed"


def test_a_right_answer_that_reaches_keeps_its_points(
    small: Assignment, engine: ForkEngine
) -> None:
    source = "import sys, gc\nx = !echo one\nprint(x)\n!echo {sys.version}\n" + SOFTMAX
    graded = _graded(small, engine, source)
    assert [verdict.status for verdict in graded.verdicts] == ["passed", "passed"]


def test_the_seed_is_not_in_the_process(small: Assignment) -> None:
    from autograder.engine import Cell, Job

    job = Job([Cell("a", "1", "attention/softmax")], seed=123_456_789_123, hidden=True)
    sent = job.to_json()
    assert "123456789123" not in str(sent)
    assert len(sent["cells"][0]["keys"]) > 10
    again = Job.from_json(sent).to_json()
    assert again == sent
