"""Submissions that deserve full points, whatever they look like."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder import notebooks
from tests.alternatives.attention import ALTERNATIVES
from tests.submissions.making import (
    COMPONENTS,
    FULL,
    Put,
    Submission,
    at,
    book,
    but,
    code,
    to_bytes,
)


def honest(name: str, story: str, put: Put, **more: Any) -> Submission:
    """A submission with full points."""
    return Submission(name, "honest", story, put, **{"rows": FULL, **more})


def renamed(function: Callable[..., Any], name: str) -> str:
    """The source of a function or class, under another name."""
    return inspect.getsource(function).replace(function.__name__, name)


def alternative(number: int) -> dict[str, str]:
    """Another right way to write each component."""
    return {
        name: renamed(ways[number % len(ways)], name)
        for name, ways in zip(COMPONENTS, ALTERNATIVES.values(), strict=True)
    }


# ---- what notebooks do -----------------------------------------------------------------------

NOISE = """
import logging, sys, warnings
print("about to start", flush=True)
print("a warning of my own", file=sys.stderr)
warnings.warn("this may be slow", stacklevel=1)
logging.getLogger("mine").warning("still here")
"""

TALKATIVE = {
    "causal_mask": """
def causal_mask(length):
    print("length is", length)
    warnings.warn("called", stacklevel=2)
    print("careful", file=sys.stderr)
    return torch.ones(length, length, dtype=torch.bool).tril()
""",
    "softmax": """
def softmax(scores, dim=-1):
    logging.getLogger("mine").error("softmax of %s", tuple(scores.shape))
    print(scores)
    powers = torch.exp(scores - scores.amax(dim=dim, keepdim=True))
    return powers / powers.sum(dim=dim, keepdim=True)
""",
}

MAGICS = [
    "%matplotlib inline\n%config InlineBackend.figure_format = 'svg'\n%load_ext autoreload",
    "%time total = sum(range(1000))\nlines = !echo from the shell\nprint('said:', lines[0])",
    "%%timeit -n 1 -r 1\nsum(range(10))",
    "%%bash\necho from bash",
    "%%writefile helper.py\nROOT = 0.5\n",
    "import helper\nimport asyncio\nawait asyncio.sleep(0.01)\nhelper.ROOT",
    "%who_ls str\n%pwd\n?print",
    "%pip install einops",
]

SHOWS = [
    "import matplotlib.pyplot as plt\n"
    "fig, ax = plt.subplots()\nax.plot([1, 2, 3])\nplt.show()\nplt.imshow(torch.rand(5, 5));",
    "from tqdm.auto import tqdm, trange\nfor _ in tqdm(range(30)): pass\n"
    "for _ in trange(3, leave=False): pass",
    "from IPython.display import HTML, Markdown, Math, clear_output, display\n"
    "display(HTML('<b>bold</b>'), Markdown('**bold**'), Math('x^2'))\n"
    "handle = display('old', display_id=True); handle.update('new')\n"
    "print('gone'); clear_output(wait=True); print('shown at the end')",
    "import ipywidgets\nipywidgets.interact(lambda x: x, x=(0, 3));",
]

ASKS = [
    'name = input("Who are you? ")',
    "import getpass\nsecret = getpass.getpass()",
    "print('and on it goes')",
]

HELPERS = '''
from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Options:
    """What my functions share."""

    lowest: float = -math.inf
    größe: int = 0  # ünïcode is fine


OPTIONS = Options()


def documented(text: str) -> Callable:
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*arguments, **keywords):
            return function(*arguments, **keywords)

        wrapper.__doc__ = text
        return wrapper

    return decorate


def fill(scores, mask):
    return scores if mask is None else scores.masked_fill(~mask, OPTIONS.lowest)


def weigh(scores, mask):
    weights = torch.nan_to_num(softmax(fill(scores, mask)), nan=0.0)
    return weights


class Base(nn.Module):
    def finish(self, scores, value, mask):
        weights = weigh(scores, mask)
        return weights @ value, weights
'''

WITH_HELPERS = {
    "softmax": """
@documented("Weights that sum to 1.")
def softmax(scores, dim=-1):
    assert scores.is_floating_point(), "scores must be floating point"
    return torch.exp(scores - torch.logsumexp(scores, dim, keepdim=True).nan_to_num(neginf=0.0))
""",
    "scaled_dot_product_attention": """
def scaled_dot_product_attention(query, key, value, mask=None):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.size(-1))
    if mask is None:
        weights = softmax(scores)
        return weights @ value, weights
    lowest = torch.where(mask, scores, torch.finfo(scores.dtype).min)
    weights = torch.where(mask, softmax(lowest), 0.0).to(scores.dtype)
    return weights @ value, weights

assert scaled_dot_product_attention(*[torch.ones(1, 2, 3)] * 3)[1].shape == (1, 2, 2)
""",
    "AdditiveAttention": """
class AdditiveAttention(Base):
    def __init__(self, d_query, d_key, d_hidden):
        super().__init__()
        for name, width in (("w_a", d_query), ("u_a", d_key)):
            setattr(self, name, nn.Linear(width, d_hidden, bias=False))
        self.v_a = nn.Linear(d_hidden, 1, bias=False)

    def forward(self, query, key, value, mask=None):
        hidden = torch.tanh(self.w_a(query)[:, :, None] + self.u_a(key)[:, None])
        scores = self.v_a(hidden)[..., 0]
        if mask is not None:
            scores = scores.masked_fill(~mask, -1e9)
        weights = softmax(scores)
        if mask is not None:
            weights = weights * mask
        return weights @ value, weights
""",
}

TOOLS = [
    "import concurrent.futures, subprocess\n"
    "with concurrent.futures.ThreadPoolExecutor(4) as pool:\n"
    "    print('threads:', sum(pool.map(abs, range(-9, 0))))\n"
    "print(subprocess.run(['echo', 'a child'], capture_output=True, text=True).stdout)",
    "from torch.utils.data import DataLoader, TensorDataset\n"
    "batches = DataLoader(TensorDataset(torch.arange(8.0)), batch_size=2, num_workers=1)\n"
    "print('loaded:', sum(float(x.sum()) for (x,) in batches))",
    "import pathlib, tempfile\n"
    "pathlib.Path('notes.txt').write_text('mine')\n"
    "torch.save({'w': torch.ones(3)}, 'weights.pt'); torch.load('weights.pt')\n"
    "with tempfile.TemporaryDirectory() as folder:\n"
    "    (pathlib.Path(folder) / 'x').write_bytes(bytes(1_000_000))\n"
    "print('files:', pathlib.Path('notes.txt').read_text())",
    "big = torch.zeros(50_000_000)\nbig.add_(1)\nprint('memory:', int(big[:3].sum()))\ndel big",
]

STUMBLES = [
    "1 / 0",
    "undefined_name",
    "def broken(:",
    "%no_such_magic",
    "exit()",
    "import sys; sys.exit(3)",
    "raise KeyboardInterrupt",
    "assert 1 == 2, 'I know'",
    "import a_package_that_nobody_has",
    "raise ExceptionGroup('two', [ValueError(1), TypeError(2)])",
]

SETTINGS = """
import random, warnings
import numpy as np
torch.manual_seed(1234)
random.seed(0)
np.random.seed(0)
np.set_printoptions(precision=1, suppress=True)
torch.set_printoptions(precision=1, sci_mode=False)
torch.set_num_threads(4)
warnings.simplefilter("error")
np.seterr(all="raise")
"""


def _reordered(notebook: NotebookNode) -> None:
    """Answers and checks in another order, with cells of one's own between them."""
    groups = [
        [at(notebook, name), at(notebook, name.replace("-solution", "-check"))]
        for name in (
            "additive_attention-solution",
            "causal_mask-solution",
            "softmax-solution",
            "padding_mask-solution",
            "scaled_dot_product_attention-solution",
        )
    ]
    first = notebook.cells[0]
    question = notebook.cells[at(notebook, "question-order")]
    cells = [notebook.cells[index] for group in groups for index in group]
    for index in (9, 6, 3):
        cells.insert(index, nbformat.v4.new_markdown_cell("## A thought\n\n$x^2$ <b>bold</b>"))
        cells.insert(index, code("my_notes = [1, 2, 3]\nmy_notes"))
    notebook.cells = [question, nbformat.v4.new_raw_cell("raw text"), first, *cells]


def _used(notebook: NotebookNode) -> None:
    """Marks that Jupyter, Colab and VS Code leave in a notebook, and old outputs."""
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    notebook.metadata["colab"] = {"provenance": [], "toc_visible": True}
    notebook.metadata["vscode"] = {"interpreter": {"hash": "0" * 64}}
    notebook.metadata["kernelspec"] = {"name": "my-env", "display_name": "my env"}
    for number, cell in enumerate(notebook.cells):
        cell.metadata["tags"] = ["mine"]
        cell.metadata["collapsed"] = True
        cell.metadata["id"] = "x" * 12
        if cell.cell_type == "code":
            cell.execution_count = 900 - number
            cell.outputs = [
                nbformat.v4.new_output("stream", name="stderr", text="old warning"),
                nbformat.v4.new_output("error", ename="E", evalue="old", traceback=["old"]),
            ]


def _with_old_outputs(notebook: NotebookNode) -> bytes:
    """Saved with 20 MB of outputs."""
    picture = nbformat.v4.new_output("display_data", data={"image/png": "A" * 20_000_000})
    notebook.cells[0].outputs = [picture]
    return to_bytes(notebook)


def _as_format(minor: int) -> Callable[[NotebookNode], bytes]:
    """Saved by a program that writes format 4.``minor``."""

    def encode(notebook: NotebookNode) -> bytes:
        notebook.nbformat_minor = minor
        if minor < 5:
            for cell in notebook.cells:
                del cell["id"]
        plain = json.loads(to_bytes(notebook))
        if minor % 2:  # both are allowed: text, and a list of lines
            for cell in plain["cells"]:
                cell["source"] = cell["source"].splitlines(keepends=True)
        return json.dumps(plain).encode()

    return encode


def _with_windows_lines(notebook: NotebookNode) -> bytes:
    for cell in notebook.cells:
        cell.source = cell.source.replace("\n", "\r\n")
    return to_bytes(notebook).replace(b"\n", b"\r\n")


def _noisy(notebook: NotebookNode) -> None:
    """Noise in every cell of the learner's own."""
    for cell in notebook.cells:
        if notebooks.is_solution(cell) and cell.cell_type == "code":
            cell.source = NOISE + cell.source + NOISE


FLOOD = """
for _ in range(50_000):
    print("0123456789" * 10)
for number in range(500):
    display(number)
"""

SUBMISSIONS = (
    honest("right", "The course's own solutions.", book()),
    honest("whole", "The whole notebook, with all that it shows and trains.", book(whole=True)),
    *(
        honest(
            f"alternative-{number}",
            "Right, but written in another way.",
            book(alternative(number), {"first": "import numpy as np"}),
        )
        for number in range(4)
    ),
    honest(
        "noisy",
        "Prints and warns on stderr in every cell, and while it is checked.",
        book(TALKATIVE, {"first": NOISE}, _noisy),
        shows="a warning of my own",
    ),
    honest(
        "magics",
        "Uses magics, the shell, await and an installation.",
        book(cells={"first": MAGICS}),
        shows="said: from the shell",
    ),
    honest(
        "shows",
        "Draws, shows progress, displays and updates.",
        book(cells={"softmax-check": SHOWS}),
        shows="shown at the end",
    ),
    honest(
        "asks",
        "Asks for input, which nobody gives.",
        book(cells={"first": ASKS}),
        shows="and on it goes",
    ),
    honest(
        "helpers",
        "Has helper functions, a decorator, a base class, and assertions of its own.",
        book(
            {
                **WITH_HELPERS,
                "padding_mask": "padding_mask = lambda ids, pad_id=0: ids.ne(pad_id)[:, None]",
            },
            {"first": HELPERS, "last": "assert causal_mask(3).sum() == 6"},
        ),
    ),
    honest(
        "tools",
        "Uses threads, a child process, a data loader's worker, files and 200 MB.",
        book(cells={"softmax-solution": TOOLS}),
        shows="loaded: 28.0",
    ),
    honest(
        "stumbles",
        "Cells of its own fail in ten ways before the right ones.",
        book(cells={"first": STUMBLES, "softmax-check": STUMBLES}),
    ),
    honest(
        "settings",
        "Seeds everything, sets print options, and turns warnings into errors.",
        book(cells={"first": SETTINGS}),
    ),
    honest(
        "without-gradients",
        "Switches gradients off for the whole notebook; a check needs them all the same.",
        book(cells={"first": "torch.set_grad_enabled(False)"}),
    ),
    honest(
        "restarted",
        "Clears the namespace and imports everything again.",
        book(cells={"first": ["x = 1", "%reset -f", "import math, torch\nfrom torch import nn"]}),
    ),
    honest("reordered", "Answers in another order, own cells between.", book(change=_reordered)),
    honest("used", "Carries what editors leave in a notebook.", book(change=_used)),
    honest(
        "prints-much",
        "Prints 5 MB and displays 500 things.",
        book(cells={"last": FLOOD}),
        shows="were cut",
    ),
    honest("saved-large", "Saved with 20 MB of outputs.", book(encode=_with_old_outputs)),
    *(
        honest(
            f"format-4-{minor}",
            f"Saved in notebook format 4.{minor}.",
            book(encode=_as_format(minor)),
        )
        for minor in range(6)
    ),
    honest(
        "byte-order-mark",
        "Begins with a byte order mark.",
        book(encode=lambda notebook: b"\xef\xbb\xbf" + to_bytes(notebook)),
    ),
    honest("windows-lines", "Lines end as on Windows.", book(encode=_with_windows_lines)),
    honest(
        "leaves-a-thread",
        "A thread goes on counting after its cell.",
        book(
            cells={
                "first": "import threading, time\nticks = []\n"
                "def tick():\n    while True:\n        ticks.append(1); time.sleep(0.01)\n"
                "threading.Thread(target=tick).start()"
            }
        ),
    ),
    # Judged by its own hand: right, but slow on purpose in a cell that nobody grades.
    honest(
        "slow-side-cell",
        "A cell that gives no points does not end.",
        book(cells={"last": "while True: pass"}),
        shows="did not end within",
    ),
    Submission(
        "softmax-elsewhere",
        "honest",
        "The softmax is written in a cell of one's own; its answer cell only raises.",
        book(
            {"softmax": "softmax = softmax_of_mine"},
            {"first": renamed(ALTERNATIVES["attention/softmax"][0], "softmax_of_mine")},
        ),
        rows=but(),
    ),
)


def bystander(number: int) -> Submission:
    """An honest submission among hostile ones; each is a file of its own, so each is run."""
    return honest(
        f"bystander-{number:02}",
        "Right, and graded between hostile ones.",
        book(cells={"last": f"print('bystander {number}')"}),
        shows=f"bystander {number}",
    )


_LOOK = """
import glob, os, sys, tempfile
places = [".", tempfile.gettempdir(), "/dev/shm", os.path.expanduser("~"), *sys.path]
left = [
    path
    for place in places
    for path in glob.glob(os.path.join(glob.escape(place), "**", "*"), recursive=place == ".")
]
marked = sorted(path for path in left if "stray" in os.path.basename(path))
print("left behind:", marked)
print("strangers:", [name for name in sys.modules if "stray" in name])
"""

WITNESS = honest(
    "witness",
    "Comes last, and looks for what the others left behind.",
    book(cells={"last": [_LOOK]}),
    shows="left behind: []\nstrangers: []",
)
