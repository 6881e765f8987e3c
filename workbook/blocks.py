"""The blocks that you wrote, carried from chapter to chapter.

When a check passes in full it keeps your code in the folder ``my_blocks``, beside the chapters.
A later chapter asks for it::

    attend = block("attention/scaled_dot_product_attention")

and gets your version, or the ready-made one with a line that says so.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import linecache
import os
import re
import symtable
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbook import budget


class CannotKeep(Exception):
    """A component could not be kept; the text says why."""


def folder() -> Path:
    """Where your blocks are kept: ``my_blocks`` beside the chapters, or ``WORKBOOK_HOME``."""
    if home := os.environ.get("WORKBOOK_HOME"):
        return Path(home) / "my_blocks"
    here = Path.cwd()
    # A chapter's notebook runs in the chapter's own folder; its neighbors share one my_blocks.
    return (here.parent if re.match(r"\d\d_", here.name) else here) / "my_blocks"


def block(exercise_id: str) -> Any:
    """The component of that exercise: yours where one is kept, else the ready-made one.

    While a class is graded it is always the ready-made one, so that an error in one chapter
    costs nothing in the next.

    Raises:
        LookupError: no such exercise has a ready-made block.
        RuntimeError: your kept file does not run; the text says what to do.
    """
    prefix, name = _split(exercise_id)
    path = folder() / prefix / f"{name}.py"
    if path.is_file() and not _supplied():
        namespace: dict[str, Any] = {"__name__": f"my_blocks.{prefix}.{name}"}
        try:
            exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), namespace)
            found = namespace[name]
        except Exception as error:
            raise RuntimeError(
                f"Your kept block {path} does not run ({type(error).__name__}: {error}). "
                f"Mend it, pass its check again, or delete the file to get the ready-made one."
            ) from error
        print(f"{name}: your own, from {path}")
        return found
    try:
        module = importlib.import_module(f"workbook.ready.{prefix}")
        found = getattr(module, name)
    except (ImportError, AttributeError):
        raise LookupError(f"There is no ready-made block for {exercise_id!r}.") from None
    if not _supplied():
        print(f"{name}: ready-made; pass its check and it will be your own")
    return found


def keep(exercise_id: str, component: Any) -> Path | None:
    """Keeps the source of a component that passed its check, with all that it refers to.

    Returns:
        The file, or None where nothing is kept (while the book is built or a class is graded).

    Raises:
        CannotKeep: the source cannot be found, or does not stand on its own.
    """
    if _supplied():
        return None
    prefix, name = _split(exercise_id)
    try:
        text = "\n".join(_source(component, name))
        namespace: dict[str, Any] = {"__name__": "my_blocks.trial"}
        exec(compile(text, f"{name}.py", "exec"), namespace)
        if name not in namespace:
            raise CannotKeep(f"the source does not define {name}")
        path = folder() / prefix / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except Exception as error:
        raise CannotKeep(
            f"Your code could not be kept for later chapters ({error}); they will use the "
            "ready-made block."
        ) from error
    shown = os.path.relpath(path)
    return Path(shown)


def _supplied() -> bool:
    return budget.grading() or budget.static()


def _split(exercise_id: str) -> tuple[str, str]:
    if not re.fullmatch(r"\w+/\w+", exercise_id):
        raise LookupError(f"{exercise_id!r} is no exercise id; one looks like 'attention/softmax'.")
    prefix, name = exercise_id.split("/")
    return prefix, name


def _source(component: Any, name: str) -> Iterator[str]:
    """The lines of a module that defines ``component`` and all names that it refers to."""
    imports: dict[str, str] = {}
    values: dict[str, str] = {}
    definitions: dict[str, str] = {}

    def visit(value: Any, name: str) -> None:
        if name in imports or name in values or name in definitions:
            return
        if isinstance(value, types.ModuleType):
            imports[name] = f"import {value.__name__}" + (
                f" as {name}" if name != value.__name__ else ""
            )
        elif value is None or isinstance(value, bool | int | float | str):
            values[name] = f"{name} = {value!r}"
        elif _carried(value):
            imports["block"] = "from workbook.blocks import block"
            values[name] = f'{name} = block("{_carried(value)}")'
        elif _is_own(value):
            source = _text_of(value)
            definitions[name] = source
            if value.__name__ != name:
                definitions[name] += f"\n{name} = {value.__name__}\n"
            scope = _scope(value)
            for used in _names_in(source):
                if used in scope and used != name and not hasattr(builtins, used):
                    visit(scope[used], used)
            # Dependencies first: dictionaries keep the order of insertion.
            definitions[name] = definitions.pop(name)
        else:
            module = getattr(value, "__module__", None)
            original = getattr(value, "__qualname__", "")
            if module is None or getattr(sys.modules.get(module), original, None) is not value:
                raise CannotKeep(f"it refers to {name}, which no import gives")
            imports[name] = f"from {module} import {original}" + (
                f" as {name}" if name != original else ""
            )

    visit(component, name)
    yield f'"""{name}: your own, kept when its check passed. Yours to edit."""\n'
    yield "from __future__ import annotations\n"
    yield from sorted(imports.values())
    yield from values.values()
    yield ""
    yield from (f"\n{source}" for source in definitions.values())


def _is_own(value: Any) -> bool:
    """Whether a function or class was written in the notebook itself."""
    return isinstance(value, types.FunctionType | type) and value.__module__ == "__main__"


def _carried(value: Any) -> str:
    """The exercise id of a block that was itself carried over, or nothing."""
    module = str(getattr(value, "__module__", ""))
    return "/".join(module.split(".")[1:]) if module.startswith("my_blocks.") else ""


def _text_of(value: Any) -> str:
    """The source of a function or class from a notebook cell.

    ``inspect.getsource`` cannot find a class of ``__main__`` before Python 3.13; its methods know
    their file, and the file's text knows the class.
    """
    functions = [value] if isinstance(value, types.FunctionType) else _methods(value)
    for function in functions:
        text = "".join(linecache.getlines(inspect.unwrap(function).__code__.co_filename))
        # Cell magics and shell lines are no Python; a cell that has them is read without them.
        text = re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", text)
        for node in reversed(ast.parse(text).body):
            if getattr(node, "name", None) == value.__name__:
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                return "\n".join(text.splitlines()[first - 1 : node.end_lineno]) + "\n"
    raise CannotKeep(f"the source of {value.__name__} cannot be found")


def _methods(cls: type) -> list[types.FunctionType]:
    return [member for member in vars(cls).values() if isinstance(member, types.FunctionType)]


def _scope(value: Any) -> dict[str, Any]:
    functions = [value] if isinstance(value, types.FunctionType) else _methods(value)
    # A decorator such as torch.no_grad() puts a function of its own module around it.
    return inspect.unwrap(functions[0]).__globals__ if functions else {}


def _names_in(source: str) -> list[str]:
    """The global names that a definition refers to: not its parameters and local names."""
    found: list[str] = []
    waiting = [symtable.symtable(source, "<block>", "exec")]
    while waiting:
        table = waiting.pop()
        waiting += table.get_children()
        found += [
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global())
        ]
    return found
