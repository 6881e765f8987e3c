"""Submissions that are wrong in ways that students are wrong."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from nbformat import NotebookNode

from autograder import notebooks, sample
from tests.mutants import attention as mutations
from tests.submissions.honest import renamed
from tests.submissions.making import (
    COMPONENTS,
    PART,
    Rows,
    Submission,
    at,
    book,
    brief,
    but,
    nothing,
    to_bytes,
)


def wrong(
    name: str,
    story: str,
    answers: Mapping[str, str],
    rows: Rows,
    says: str = "",
    shows: str = "",
    **more: Any,
) -> Submission:
    """A submission with some answers of its own, and these rows; ``more`` goes to :func:`book`."""
    before = more.get("cells", {}).get("first", "")
    put = book(answers, **more)
    return Submission(name, "wrong", story, put, rows, says, shows, answers=answers, before=before)


def _blank(path: Any, course: Any, place: Any) -> None:
    path.write_bytes(to_bytes(brief(course.blank)))


STUB = "def {0}(*arguments):\n    # YOUR CODE HERE\n    raise NotImplementedError()"


def stubs(*names: str) -> dict[str, str]:
    """Nothing written yet for these components."""
    return {name: STUB.format(name) for name in names}


def everywhere(source: str) -> dict[str, str]:
    """The same answer for every component, ``NAME`` being its name."""
    return {name: source.replace("NAME", name) for name in COMPONENTS}


# One thing wrong in each component; hostile submissions begin from these.
ALL_WRONG = {
    "softmax": sample.LAST_AXIS_ONLY,
    "scaled_dot_product_attention": sample.UNSCALED,
    "padding_mask": sample.PADDING_CORNER,
    "causal_mask": sample.BLIND_TO_ITSELF,
    "AdditiveAttention": sample.NO_TANH,
}
ALL_WRONG_ROWS: Rows = (PART,) * len(COMPONENTS)

# The answers that the exercises forbid; everything else is right.
BUILT_IN = {
    "softmax": """
def softmax(scores, dim=-1):
    return torch.softmax(scores, dim)
""",
    "scaled_dot_product_attention": """
def scaled_dot_product_attention(query, key, value, mask=None):
    call = F.scaled_dot_product_attention
    eye = torch.eye(key.size(-2), dtype=key.dtype).expand(*key.shape[:-1], key.size(-2))
    return call(query, key, value, mask), call(query, key, eye, mask)
""",
}
BUILT_IN_ROWS = but(softmax=(0.0, "failed"), scaled_dot_product_attention=(0.0, "failed"))

READY_MADE = {
    name: f"from workbook.ready.attention import {name} as theirs\n{name} = theirs"
    for name in COMPONENTS
}

CARELESS = {
    "softmax": """
def softmax(scores, dim=-1):
    with torch.no_grad():
        scores -= scores.amax(dim=dim, keepdim=True)
    powers = torch.exp(scores)
    return powers / powers.sum(dim=dim, keepdim=True)
""",
}

D_K_WITHOUT_ROOT = """
def scaled_dot_product_attention(query, key, value, mask=None):
    scores = query @ key.transpose(-2, -1) / query.shape[-1]
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = torch.nan_to_num(softmax(scores), nan=0.0)
    return weights @ value, weights
"""

MASK_UPSIDE_DOWN = """
def scaled_dot_product_attention(query, key, value, mask=None):
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(mask, float("-inf"))
    weights = torch.nan_to_num(softmax(scores), nan=0.0)
    return weights @ value, weights
"""

UNSTABLE = """
def softmax(scores, dim=-1):
    return scores.exp() / scores.exp().sum(dim=dim, keepdim=True)
"""

WRONG_WAY_ROUND = """
def padding_mask(token_ids, pad_id=0):
    return (token_ids == pad_id).unsqueeze(1)
"""

FUTURE_ONLY = """
def causal_mask(length):
    return torch.ones(length, length, dtype=torch.bool).triu()
"""

# The worked example of the notebook, by heart.
BY_HEART = {
    "scaled_dot_product_attention": """
def scaled_dot_product_attention(query, key, value, mask=None):
    weights = torch.zeros(*query.shape[:-1], key.shape[-2])
    if key.shape[-2] == 2 and query.shape[-1] == 64:
        weights[:] = torch.tensor([0.880797, 0.119203])
    return weights @ value, weights
""",
    "padding_mask": """
def padding_mask(token_ids, pad_id=0):
    return torch.tensor([[[True, True, True, False, False]], [[True, True, True, True, False]]])
""",
    "causal_mask": """
def causal_mask(length):
    return torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]).bool()
""",
}

RETURNS = {
    "softmax": "def softmax(scores, dim=-1):\n    print(scores)",
    "scaled_dot_product_attention": "def scaled_dot_product_attention(query, key, value, "
    "mask=None):\n    return query, key, value",
    "padding_mask": "def padding_mask(token_ids, pad_id=0):\n    return token_ids.tolist()",
    "causal_mask": "import numpy as np\n"
    "def causal_mask(length):\n    return np.tri(length, dtype=bool)",
    "AdditiveAttention": "def AdditiveAttention(d_query, d_key, d_hidden):\n"
    "    return nn.Linear(d_query, d_hidden)",
}

RAISES = {
    "softmax": "def softmax(scores, dim=-1):\n    raise SystemExit(1)",
    "scaled_dot_product_attention": "def scaled_dot_product_attention(*tensors):\n"
    "    raise StopIteration",
    "padding_mask": "def padding_mask(token_ids, pad_id=0):\n    raise BaseException('no')",
    "causal_mask": "def causal_mask(length):\n    return causal_mask(length)",
    "AdditiveAttention": "class AdditiveAttention(nn.Module):\n"
    "    def __init__(self, *sizes):\n        raise MemoryError",
}


def _no_python(notebook: NotebookNode) -> None:
    notebook.cells[
        at(notebook, "softmax-solution")
    ].source = "def softmax(scores, dim=-1:\n    pass"


def _mixed_tabs(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        if notebooks.is_solution(cell):
            cell.source = cell.source.replace("\n    ", "\n\t") + "\n        pass"


def _under_other_names(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        if notebooks.is_solution(cell):
            for name in COMPONENTS:
                cell.source = cell.source.replace(f"def {name}", f"def my_{name}")
                cell.source = cell.source.replace(f"class {name}", f"class My{name}")


def _checked_too_early(notebook: NotebookNode) -> None:
    answer = notebook.cells.pop(at(notebook, "causal_mask-solution"))
    notebook.cells.insert(at(notebook, "causal_mask-check") + 1, answer)


def mutants(number: int) -> Mapping[str, str]:
    """A subtle mistake in each component."""
    return {
        name: renamed(ways[number % len(ways)], name)
        for name, ways in zip(COMPONENTS, mutations.MUTANTS.values(), strict=True)
    }


SAMPLE = {student.name: student for student in sample.CLASS}
RETURNS_ROWS = (*nothing("failed")[:4], (0.0, "error"))
BY_HEART_ROWS = but(
    scaled_dot_product_attention=PART,
    padding_mask=PART,
    causal_mask=PART,
)
MUTANT_HELPERS = "import numpy as np\n" + "\n\n".join(
    inspect.getsource(helper)
    for helper in (mutations.stable, mutations.reference, mutations.Additive)
)
ENDLESS_CELL = "while True:\n    pass"

SUBMISSIONS = (
    Submission(
        "blank", "wrong", "Handed in as it was given out.", _blank, nothing(), "not written yet"
    ),
    wrong(
        "all-wrong",
        "One mistake in each component.",
        ALL_WRONG,
        ALL_WRONG_ROWS,
        "no tanh",
    ),
    wrong(
        "built-in",
        "Uses what the exercises forbid, openly.",
        BUILT_IN,
        BUILT_IN_ROWS,
        "built-in",
    ),
    wrong(
        "ready-made",
        "Imports the workbook's own blocks, which are not there.",
        READY_MADE,
        nothing(),
        "workbook.ready",
    ),
    wrong(
        "careless",
        "The softmax changes its argument.",
        CARELESS,
        but(softmax=PART),
        "changed in place",
    ),
    *(
        wrong(
            f"sample-{student.name}",
            f"From the sample class: {student.story}.",
            student.wrong,
            rows,
            says,
        )
        for student, rows, says in (
            (
                SAMPLE["chloe"],
                but(scaled_dot_product_attention=PART),
                "square root of d_k",
            ),
            (
                SAMPLE["david"],
                but(scaled_dot_product_attention=PART),
                "after the softmax",
            ),
            (SAMPLE["emma"], but(softmax=PART), "ignores dim"),
            (
                SAMPLE["farid"],
                but(padding_mask=PART, causal_mask=PART),
                "both padding",
            ),
            (SAMPLE["grace"], but(AdditiveAttention=PART), "no tanh"),
            (
                SAMPLE["hugo"],
                but(scaled_dot_product_attention=(0.0, "error")),
                "RuntimeError",
            ),
            (SAMPLE["ines"], but(causal_mask=(0.0, "timeout")), "did not end within"),
        )
    ),
    wrong(
        "unstable",
        "The plain formula: large scores overflow.",
        {"softmax": UNSTABLE},
        but(softmax=PART),
        "exponentiated as they are",
    ),
    wrong(
        "d-k-without-root",
        "Divides by d_k.",
        {"scaled_dot_product_attention": D_K_WITHOUT_ROOT},
        but(scaled_dot_product_attention=PART),
        "not by its square root",
    ),
    wrong(
        "masks-upside-down",
        "Bars what may be attended to, in attention and in both masks.",
        {
            "scaled_dot_product_attention": MASK_UPSIDE_DOWN,
            "padding_mask": WRONG_WAY_ROUND,
            "causal_mask": FUTURE_ONLY,
        },
        but(
            scaled_dot_product_attention=PART,
            padding_mask=PART,
            causal_mask=PART,
        ),
        "wrong way round",
    ),
    *(
        wrong(
            f"mutants-{number}",
            "A subtle mistake in each component.",
            mutants(number),
            (PART,) * len(COMPONENTS),
            cells={"first": MUTANT_HELPERS},
        )
        for number in range(4)
    ),
    wrong(
        "partly-done",
        "Two written, three left as they were.",
        stubs("scaled_dot_product_attention", "causal_mask", "AdditiveAttention"),
        but(
            scaled_dot_product_attention=(0.0, "error"),
            causal_mask=(0.0, "error"),
            AdditiveAttention=(0.0, "error"),
        ),
        "not written yet",
    ),
    wrong(
        "syntax-error",
        "One answer is no Python; the others count.",
        {"softmax": "softmax = 0"},
        but(softmax=(0.0, "error")),
        "SyntaxError",
        change=_no_python,
    ),
    wrong(
        "wrong-indent",
        "Tabs and blanks mixed, in every answer.",
        {},
        nothing(),
        "TabError",
        change=_mixed_tabs,
    ),
    wrong(
        "checked-too-early",
        "An answer stands below its check.",
        {},
        but(causal_mask=(0.0, "error")),
        "comes later",
        change=_checked_too_early,
    ),
    wrong(
        "not-defined",
        "Every answer has a name of its own.",
        {},
        nothing(),
        "no cell of the notebook defines it",
        change=_under_other_names,
    ),
    wrong("returns", "Returns None, lists, arrays, too many.", RETURNS, RETURNS_ROWS),
    wrong("raises", "Raises what no code should.", RAISES, nothing(), "RecursionError"),
    wrong(
        "stops-early",
        "The cell with the answer fails before it defines it.",
        {"padding_mask": "padding_mask = open('absent.txt')"},
        but(padding_mask=(0.0, "error")),
        "FileNotFoundError",
    ),
    wrong(
        "too-large",
        "Asks for a tensor of 4 TB.",
        {
            "causal_mask": "def causal_mask(length):\n"
            "    return torch.ones(1_000_000, 1_000_000).tril()[:length, :length]"
        },
        but(causal_mask=(0.0, "error")),
    ),
    wrong(
        "default-dtype",
        "Right, but computes in float64 from now on.",
        {},
        but(),
        cells={"first": "torch.set_default_dtype(torch.float64)"},
    ),
    wrong(
        "default-device",
        "Right, but puts every new tensor on a device without memory.",
        {},
        but(),
        cells={"first": "torch.set_default_device('meta')"},
    ),
    wrong(
        "by-heart",
        "Knows the notebook's worked examples by heart.",
        BY_HEART,
        BY_HEART_ROWS,
    ),
    wrong(
        "not-a-number",
        "Returns NaN and infinity of the right shape.",
        {
            "softmax": "def softmax(scores, dim=-1):\n    return scores * math.nan",
            "scaled_dot_product_attention": "def scaled_dot_product_attention(query, key, "
            "value, mask=None):\n    scores = query @ key.transpose(-2, -1)\n"
            "    return (scores @ value) * math.inf, scores * math.nan",
        },
        but(softmax=PART, scaled_dot_product_attention=PART),
    ),
    wrong(
        "endless-cell",
        "A cell above the answers does not end; they keep their points.",
        {},
        but(),
        shows="did not end within",
        cells={"first": ENDLESS_CELL},
    ),
    wrong(
        "sleeps",
        "Waits for a minute at each call.",
        {
            "padding_mask": "def padding_mask(token_ids, pad_id=0):\n    time.sleep(60)\n"
            "    return (token_ids != pad_id)[:, None]"
        },
        but(padding_mask=(0.0, "timeout")),
        "did not end within",
    ),
)
