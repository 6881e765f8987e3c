"""How much to compute: ``smoke`` (seconds), ``cpu`` (a laptop) or ``gpu`` (a graphics card).

The budget is ``gpu`` where PyTorch sees a CUDA device and ``cpu`` elsewhere. The environment
variable ``WORKBOOK_BUDGET`` overrides it. In a notebook, before the first ``choose``::

    import os
    os.environ["WORKBOOK_BUDGET"] = "smoke"
"""

import os
from typing import TypeVar

import torch

NAMES = ("smoke", "cpu", "gpu")

T = TypeVar("T")


def name() -> str:
    """Return the chosen budget, one of ``NAMES``. Raises ``ValueError`` for any other name."""
    chosen = os.environ.get("WORKBOOK_BUDGET", "").strip().lower()
    if not chosen:
        if grading():
            return "smoke"
        return "gpu" if torch.cuda.is_available() else "cpu"
    if chosen not in NAMES:
        raise ValueError(
            f"WORKBOOK_BUDGET is {chosen!r}, which is no budget. "
            f"Set it to one of {', '.join(NAMES)}, or unset it to let the machine decide."
        )
    return chosen


def choose(*, smoke: T, cpu: T, gpu: T) -> T:
    """Return the value for the chosen budget.

    Where the values are dictionaries they must have the same keys, so that a size which one
    budget forgets is found at once. Raises ``ValueError`` where they have not.
    """
    values = {"smoke": smoke, "cpu": cpu, "gpu": gpu}
    if all(isinstance(value, dict) for value in values.values()):
        every = set().union(*values.values())
        for budget, value in values.items():
            if missing := every - set(value):
                raise ValueError(
                    f"The {budget!r} budget lacks {', '.join(sorted(missing))}. "
                    "Give every budget the same keys."
                )
    return values[name()]


def device() -> torch.device:
    """Return the device to compute on: CUDA for the ``gpu`` budget where there is one, else CPU.

    The environment variable ``WORKBOOK_DEVICE`` overrides it: "cpu" or "cuda". Raises
    ``ValueError`` for another name, and for CUDA where there is none.
    """
    asked = os.environ.get("WORKBOOK_DEVICE", "").strip().lower()
    if asked not in ("", "cpu", "cuda"):
        raise ValueError(f"WORKBOOK_DEVICE is {asked!r}. Set it to cpu or cuda, or unset it.")
    if asked == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "WORKBOOK_DEVICE is cuda, and PyTorch sees no CUDA device. Unset it, or install a "
            "PyTorch with CUDA on a machine with an NVIDIA card."
        )
    on_gpu = name() == "gpu" and torch.cuda.is_available()
    return torch.device(asked or ("cuda" if on_gpu else "cpu"))


# How far the seeds of one repetition of a notebook are from those of the next.
_APART = 100_000


def seed(value: int) -> torch.Generator:
    """Seed PyTorch's global random numbers, and return a CPU generator with the same seed.

    The global ones initialize a model's parameters; draw data from the generator, so that
    another model does not mean other data. ``WORKBOOK_REPETITION``, a number, 0 where it is not
    set, moves all seeds: a whole notebook is repeated with other random numbers.
    """
    value += _APART * int(os.environ.get("WORKBOOK_REPETITION") or 0)
    torch.manual_seed(value)
    return torch.Generator().manual_seed(value)


def static() -> bool:
    """Say whether the page that shows the outputs has no kernel behind it (the book)."""
    return os.environ.get("WORKBOOK_STATIC") == "1"


def grading() -> bool:
    """Say whether a grader runs this notebook, and nobody is watching."""
    return os.environ.get("WORKBOOK_GRADING") == "1"
