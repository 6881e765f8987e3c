"""Which of the course's own cells no exercise needs: they are left out while grading.

A chapter shows, measures and trains a good deal between its exercises. A cell of the course that
was not changed is left out unless a cell that counts (a check, an answer, whatever else a learner
wrote) may depend on it:

- it gives a meaning to a global name that a cell which is run uses, or
- it uses, itself or by a function of the notebook, a name whose value a cell which is run made or
  changes: it might change that value in place.

State that no name of the notebook holds (files, a module's random numbers) is not followed.
"""

from __future__ import annotations

import ast
import functools
import re
import symtable
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from autograder.notebooks import carried, parse, python_of

# What reaches names without naming them.
_ANY_NAME = frozenset({"eval", "exec", "globals", "locals", "vars", "get_ipython"})
# Magics that touch no name: of a line, and of a cell whose text is not Python.
_HARMLESS = re.compile(
    r"^([ \t]*)(%(matplotlib|config|load_ext|autoreload|pip|conda)|!pip)\b.*$", re.MULTILINE
)
_TIMED = re.compile(r"^\s*%%(time|timeit|capture|prun)[ \t]*\n")


@dataclass(frozen=True)
class Names:
    """The global names of a cell.

    Attributes:
        bound: those that it gives a meaning, or whose attributes or items it sets.
        values: of these, the ones that are not just defined or imported.
        used: those that it refers to, also from inside its functions.
    """

    bound: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()
    used: frozenset[str] = frozenset()


def unneeded(sources: Mapping[str, str], optional: Collection[str]) -> set[str]:
    """The cells that need not run.

    Args:
        sources: the code cells by id.
        optional: the ids of those that are the course's own, unchanged, and count for nothing.
    """
    known = {cell: names_of(source) for cell, source in sources.items()}
    if any(known[cell] is None for cell in known if cell not in optional):
        return set()
    names = {cell: found for cell, found in known.items() if found}
    left_out = {cell for cell in optional if cell in names}
    while True:
        run = [found for cell, found in names.items() if cell not in left_out]
        used = frozenset().union(*(found.used for found in run))
        reaching = _reaching(names.values(), frozenset().union(*(found.values for found in run)))
        needed = {
            cell for cell in left_out if names[cell].bound & used or names[cell].used & reaching
        }
        if not needed:
            return left_out
        left_out -= needed


def _reaching(cells: Collection[Names], values: frozenset[str]) -> frozenset[str]:
    """The names by which a cell can come to some values: their own, and those of functions.

    A function may use a value, so may what calls it.
    """
    reaching = set(values)
    while True:
        more = {
            name for found in cells if not found.used.isdisjoint(reaching) for name in found.bound
        }
        if more <= reaching:
            return frozenset(reaching)
        reaching |= more


@functools.lru_cache(maxsize=5000)  # most cells of a class are the same
def names_of(source: str) -> Names | None:
    """The global names of a cell; None where they cannot be told.

    A cell that is no Python has none: it does nothing but fail.
    """
    source = _HARMLESS.sub(r"\1pass", _TIMED.sub("", source))
    try:
        python = python_of(source)
        tree = parse(python)
        table = symtable.symtable(python, "<cell>", "exec")
    except (SyntaxError, ValueError):
        return Names()
    except (RecursionError, MemoryError):
        return None
    bound, values, used, outer = set(), set(), set(), set()
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
            name = symbol.get_name()
            # What the body of a class assigns it may have read before, from outside.
            if symbol.is_global() or (inner.get_type() == "class" and symbol.is_referenced()):
                used.add(name)
                outer.add(name)
            if symbol.is_global() and symbol.is_assigned():
                bound.add(name)
                values.add(name)
    # Inside a function, only what is no local name of it.
    changed = set(_changed(tree)) | (set(_changed(tree, inside=True)) & outer)
    # A block of an earlier chapter is a definition, as if it had been imported.
    values -= {node.targets[0].id for node in tree.body if carried(node)}
    for names in (bound, values, used):
        names |= changed
    if used & _ANY_NAME or any(
        isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree)
    ):
        return None
    return Names(frozenset(bound), frozenset(values), frozenset(used))


def _changed(tree: ast.Module, inside: bool = False) -> Iterator[str]:
    """Names that lose their meaning, or of whose value a part or all is set anew.

    Args:
        tree: the cell.
        inside: look inside functions, instead of outside.
    """
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, within = waiting.pop()
        if within is inside and (name := _changed_by(node)):
            yield name
        within = within or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        waiting += [(child, within) for child in ast.iter_child_nodes(node)]


def _changed_by(node: ast.AST) -> str | None:
    target: ast.AST | None = None
    if isinstance(node, ast.AugAssign):
        target = node.target
    elif isinstance(node, ast.Attribute | ast.Subscript | ast.Name):
        part = not isinstance(node, ast.Name)
        if isinstance(node.ctx, ast.Del) or (part and isinstance(node.ctx, ast.Store)):
            target = node
    while isinstance(target, ast.Attribute | ast.Subscript):
        target = target.value
    return target.id if isinstance(target, ast.Name) else None
