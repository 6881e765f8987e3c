"""Jupyter's ``display``; where IPython is not installed, a stand-in that writes the text.

The course runs in Jupyter. A recorded run (``workbook.record``) needs no more than PyTorch, NumPy
and Matplotlib, and goes through the same code.
"""

from typing import Any

try:
    from IPython import get_ipython
    from IPython.display import display
except ImportError:

    def get_ipython() -> None:
        """Return None: no notebook runs this."""

    def display(*objects: Any, **_: Any) -> None:
        """Write what each object is in words."""
        for one in objects:
            print(repr(one))


__all__ = ["display", "get_ipython"]
