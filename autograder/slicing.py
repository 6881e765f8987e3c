"""Which of the course's own cells no exercise needs: they are left out while grading.

A chapter shows, measures and trains a good deal between its exercises. A cell of the course that
was not changed is left out unless a cell that counts (a check, an answer, whatever else a learner
wrote) may depend on it:

- it binds a global name that a cell which is run uses, or
- it uses a name that a cell which is run uses too and that holds a value rather than a function,
  class or module: it might change that value in place.
"""

from __future__ import annotations

import ast
import functools
import symtable
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from autograder.notebooks import python_of


@dataclass(frozen=True)
class Names:
    """The global names of a cell.

    Attributes:
        bound: those that it gives a meaning.
        values: of these, the ones that are assigned, not defined or imported.
        used: those that it refers to, also from inside its functions.
    """

    bound: frozenset[str]
    values: frozenset[str]
    used: frozenset[str]


def unneeded(sources: Mapping[str, str], optional: Collection[str]) -> set[str]:
    """The cells that need not run.

    Args:
        sources: the code cells by id.
        optional: the ids of those that are the course's own, unchanged, and count for nothing.
    """
    names = {cell: names_of(source) for cell, source in sources.items()}
    left_out = {cell for cell in optional if names[cell] is not None}
    while True:
        run = [found for cell, found in names.items() if cell not in left_out and found]
        used = frozenset().union(*(found.used for found in run))
        values = frozenset().union(*(found.values for found in run))
        needed = {
            cell
            for cell in left_out
            if (found := names[cell]) and (found.bound & used or found.used & used & values)
        }
        if not needed:
            return left_out
        left_out -= needed


@functools.lru_cache(maxsize=5000)  # most cells of a class are the same
def names_of(source: str) -> Names | None:
    """The global names of a cell, None where it cannot be read as Python."""
    try:
        python = python_of(source)
        table = symtable.symtable(python, "<cell>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    bound, values, used = set(), set(), set()
    for node in ast.walk(ast.parse(python)):
        # A symbol table counts these as assignments only.
        changed = [node.target] if isinstance(node, ast.AugAssign) else []
        changed += node.targets if isinstance(node, ast.Delete) else []
        used |= {target.id for target in changed if isinstance(target, ast.Name)}
    for symbol in table.get_symbols():
        name = symbol.get_name()
        if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
            bound.add(name)
            if not (symbol.is_imported() or symbol.is_namespace()):
                values.add(name)
        if symbol.is_referenced():
            used.add(name)
    waiting: list[symtable.SymbolTable] = list(table.get_children())
    while waiting:
        inner = waiting.pop()
        waiting += inner.get_children()
        for symbol in inner.get_symbols():
            if symbol.is_global():
                (bound if symbol.is_assigned() else used).add(symbol.get_name())
                if symbol.is_assigned():
                    values.add(symbol.get_name())
                    used.add(symbol.get_name())
    return Names(frozenset(bound), frozenset(values), frozenset(used))
