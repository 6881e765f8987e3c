"""Checks and grades the exercises of the Transformer Workbook.

A notebook needs one name of this package::

    from autograder import check

    check("attention/softmax", softmax)
"""

from autograder.checking import check

__all__ = ["check"]
