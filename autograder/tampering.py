"""Which submissions could reach into the process that checks them.

The watchers that see a forbidden built-in run beside the learner's code, which can switch them off
or send results past them. To do so it must use something that ordinary work in a notebook never
needs. A submission that does is not punished for it: its checks are run once more where the
built-in does not exist (:func:`autograder.runner.remove`), and that result counts where it is
lower.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable

from autograder.notebooks import parse

_MODULES = {
    "__future__",
    "autograder",
    "collections",
    "copy",
    "dataclasses",
    "functools",
    "itertools",
    "math",
    "matplotlib",
    "numbers",
    "numpy",
    "operator",
    "random",
    "statistics",
    "string",
    "time",
    "torch",
    "tqdm",
    "typing",
    "workbook",
}
# Parts of these modules, and builtins, through which everything else can be had.
_REACHING = {
    "breakpoint",
    "checking",
    "compile",
    "ctypeslib",
    "delattr",
    "eval",
    "exec",
    "f2py",
    "func",
    "fx",
    "get_ipython",
    "getattr",
    "globals",
    "hooks",
    "hub",
    "jit",
    "library",
    "load_library",
    "locals",
    "memmap",
    "multiprocessing",
    "open",
    "ops",
    "overrides",
    "package",
    "runner",
    "setattr",
    "sys",
    "testing",
    "utils",
    "vars",
    "vmap",
    "worker",
}
_ORDINARY = {
    "__call__",
    "__doc__",
    "__getitem__",
    "__init__",
    "__iter__",
    "__len__",
    "__name__",
    "__post_init__",
    "__repr__",
    "__str__",
}


def reaches(sources: Iterable[str]) -> bool:
    """Whether any of some cells uses more than ordinary work needs."""
    return any(_reaches(source) for source in sources)


@functools.lru_cache(maxsize=5000)
def _reaches(source: str) -> bool:
    try:
        tree = parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False  # it does not run either
    return any(_is_reaching(node) for node in ast.walk(tree))


def _imports_more(names: Iterable[str]) -> bool:
    """Whether importing these modules, or names of them, is more than ordinary work needs."""
    for name in names:
        first, *parts = name.split(".")
        if first not in _MODULES or any(part.startswith("_") for part in parts):
            return True
        if first in ("torch", "numpy") and set(parts) & (_REACHING | {"*"}):
            return True
        if first == "autograder" and name != "autograder.check":
            return True
    return False


def _is_reaching(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            return _imports_more(alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names):
            return _imports_more(f"{module or ''}.{alias.name}" for alias in names)
        case ast.Name(id=name):
            return name in _REACHING or _is_hidden(name)
        case ast.Attribute(value=value, attr=name, ctx=context):
            own = isinstance(value, ast.Name) and value.id in ("self", "cls")
            if own:
                return _is_hidden(name)
            # Else it may patch what it is an attribute of.
            patches = isinstance(context, ast.Store | ast.Del)
            return patches or name in _REACHING or (name[:1] == "_" and name not in _ORDINARY)
        case ast.FunctionDef(name=name):
            return _is_hidden(name)
        case ast.Call(func=ast.Name(id="type"), args=args):
            return len(args) > 1
        case ast.ClassDef(bases=bases, keywords=keywords):
            # A kind of tensor decides itself what happens when it is looked at.
            return bool(keywords) or any("Tensor" in ast.dump(base) for base in bases)
    return False


def _is_hidden(name: str) -> bool:
    return name.startswith("__") and name not in _ORDINARY
