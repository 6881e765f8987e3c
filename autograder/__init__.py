"""Checks and grades the exercises of the Transformer Workbook.

A notebook needs one name of this package::

    from autograder import check

    check("attention/softmax", softmax)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autograder.checking import check

__all__ = ["check"]


def __getattr__(name: str) -> Any:
    # Loaded when it is asked for: it needs torch, and most commands do not.
    if name == "check":
        from autograder.checking import check

        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
