"""Answers that are the same up to names and layout, for a person to look at; never a grade.

Every answer is brought into a normal form: comments, docstrings, annotations and imports go, names
that the learner chose become numbers in order of appearance, imported names are written in full.
What names and layout cannot change stays: the statements, their order, operators, values and the
library's own names. Answers with one form are found by hash, so a class of a thousand costs a
thousand times one answer, and no more.

An answer is read with :mod:`ast` and never run.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from nbformat import NotebookNode, from_dict

from autograder import submission
from autograder.submission import UnreadableSubmission

MIN_SIZE = 40
COMMON_SHARE = 0.1
COMMON_COUNT = 3
RULE = (
    "Two answers count as the same when nothing but names, layout, comments, docstrings, "
    "annotations and imports tells them apart; the order of statements counts. Size is the number "
    "of statements, names, values, calls and operations. Left out are answers with nothing "
    f"written, and a form that more than {COMMON_COUNT} students and more than "
    f"{COMMON_SHARE:.0%} of the class share: that is the usual way to write it. A group is listed "
    f"when its common answers have a size of {MIN_SIZE} or more in all; what is shorter coincides "
    "by chance. First come those with the largest weight: over the common answers, the sum of "
    "size × (1 + log₂(answers written / answers of this form))."
)

# Longer answers are compared as text: reading one of 100,000 lines takes seconds.
_MAX_CHARACTERS = 200_000
# Above it, a form's students are one group and not also pairs: pairs grow with its square.
_MAX_PAIRED = 12

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
_REGISTERING = ("register_buffer", "register_parameter", "register_module", "add_module")


@dataclass(frozen=True)
class Form:
    """An answer's normal form.

    Attributes:
        digest: equal for answers that are the same up to names and layout.
        size: statements, names, values, calls and operations; 0 where nothing was written.
    """

    digest: str
    size: int


@dataclass(frozen=True)
class Shared:
    """One answer that the students of a group have in common.

    Attributes:
        answer: the answer's grade id.
        size: of its normal form.
        students: how many have written it in this form.
        written: how many have written anything.
    """

    answer: str
    size: int
    students: int
    written: int


@dataclass(frozen=True)
class Group:
    """Students whose answers are the same up to names and layout, and which ones are.

    ``weight`` says how unlikely that is by chance: it grows with size and with rarity.
    """

    students: tuple[str, ...]
    shared: tuple[Shared, ...]
    weight: float


# ---- groups ----------------------------------------------------------------------------------


def similar(
    answers: Mapping[str, Mapping[str, str]], given: Mapping[str, str] | None = None
) -> list[Group]:
    """The groups of students with the same answers, the heaviest first; :data:`RULE` says how.

    Args:
        answers: student -> grade id of the answer -> its source.
        given: grade id -> what learners were given; an answer of that form is nothing written.
    """
    forms: dict[str, Form] = {}

    def form(source: str) -> Form:
        # Many answers are letter by letter the same: those that nobody has touched, for one.
        if source not in forms:
            forms[source] = normal_form(source)
        return forms[source]

    stubs = {name: form(source).digest for name, source in (given or {}).items()}
    holders: dict[tuple[str, str], list[str]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for student, mine in answers.items():
        for name, source in mine.items():
            found = form(source)
            if found.size and stubs.get(name) != found.digest:
                holders.setdefault((name, found.digest), []).append(student)
                sizes[name, found.digest] = found.size
    written = Counter(name for (name, _), students in holders.items() for _ in students)

    def is_evidence(key: tuple[str, str]) -> bool:
        usual = max(COMMON_COUNT, COMMON_SHARE * written[key[0]])
        return 2 <= len(holders[key]) <= usual

    keys = [key for key in holders if is_evidence(key)]
    groups = []
    for students, common in _together({key: holders[key] for key in keys}):
        if sum(sizes[key] for key in common) < MIN_SIZE:
            continue
        weight = sum(
            sizes[key] * (1 + math.log2(written[key[0]] / len(holders[key]))) for key in common
        )
        shared = tuple(
            Shared(key[0], sizes[key], len(holders[key]), written[key[0]]) for key in common
        )
        groups.append(Group(tuple(sorted(students)), shared, round(weight, 1)))
    return sorted(groups, key=lambda group: (-group.weight, group.students))


def _together(
    holders: Mapping[tuple[str, str], list[str]],
) -> Iterator[tuple[set[str], list[tuple[str, str]]]]:
    """Sets of students, each with all forms that exactly these have in common.

    A pair stands for itself; pairs with the same forms in common are one set.
    """
    pairs: dict[tuple[str, str], list[tuple[str, str]]] = {}
    large: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for key, students in holders.items():
        if len(students) > _MAX_PAIRED:
            large.setdefault(tuple(sorted(students)), []).append(key)
            continue
        for pair in combinations(sorted(students), 2):
            pairs.setdefault(pair, []).append(key)
    merged: dict[tuple[tuple[str, str], ...], set[str]] = {}
    for pair, keys in pairs.items():
        merged.setdefault(tuple(keys), set()).update(pair)
    for keys, students in merged.items():
        yield students, list(keys)
    for students, keys in large.items():
        yield set(students), keys


# ---- reading ---------------------------------------------------------------------------------


@dataclass
class Answers:
    """What a class wrote in one assignment.

    Attributes:
        written: student -> grade id -> source, for :func:`similar`.
        given: grade id -> what learners were given, as far as somebody left it unchanged.
    """

    written: dict[str, dict[str, str]] = field(default_factory=dict)
    given: dict[str, str] = field(default_factory=dict)


def load(graded: Path, assignment: str, students: Iterable[str]) -> Answers:
    """The answers of an assignment, from the folder that ``autograder grade`` wrote.

    A notebook that is missing or damaged has no answers.
    """
    answers = Answers()
    for student in students:
        path = graded / "autograded" / student / assignment / f"{assignment}.ipynb"
        mine = {}
        for name, source, unchanged in _answers_in(path):
            if unchanged:
                answers.given.setdefault(name, source)
            else:
                mine[name] = source
        answers.written[student] = mine
    return answers


def _answers_in(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Grade id and source of every code cell that learners write, and whether it is unchanged."""
    from nbgrader.utils import compute_checksum

    try:
        cells = json.loads(submission.read_bytes(path).decode("utf-8-sig"))["cells"]
    except (UnreadableSubmission, OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    # nbformat's own reader checks every output, and takes fifty times as long.
    for raw in cells if isinstance(cells, list) else ():
        mine = _marked(raw)
        source = raw.get("source") if mine else None
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = "".join(source)
        if not isinstance(source, str):
            continue
        cell: NotebookNode = from_dict(
            {"cell_type": "code", "source": source, "metadata": {"nbgrader": mine}}
        )
        try:
            unchanged = mine.get("checksum") == compute_checksum(cell)
        except (KeyError, TypeError, ValueError, AttributeError):
            unchanged = False  # metadata that nbgrader did not write
        yield mine["grade_id"], source, unchanged


def _marked(raw: object) -> dict:
    """The nbgrader metadata of a code cell that learners write in, else {}."""
    if not isinstance(raw, dict) or raw.get("cell_type") != "code":
        return {}
    metadata = raw.get("metadata")
    mine = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    if not isinstance(mine, dict) or mine.get("solution") is not True:
        return {}
    return mine if isinstance(mine.get("grade_id"), str) else {}


# ---- normal form -----------------------------------------------------------------------------


def normal_form(source: str) -> Form:
    """The normal form of an answer; of its text alone where Python cannot parse it."""
    try:
        if len(source) > _MAX_CHARACTERS:
            return _text_form(source)
        tree = _parse(source)
        if _is_stub(tree):
            return Form("", 0)
        writer = _Writer(tree)
        return Form(_digest("".join(writer.parts)), writer.size)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # Not Python, nested too deeply, or with a number of thousands of digits.
        return _text_form(source)


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in a learner's string
        try:
            return ast.parse(source)
        except SyntaxError:
            # IPython's own reader may tokenize a cell five hundred times over.
            return ast.parse(re.sub(r"(?m)^([ \t]*)[%!].*$", r"\1pass", source))


def _text_form(source: str) -> Form:
    tokens = re.findall(r"\w+|[^\w\s]", re.sub(r"#.*", "", source))
    size = sum(token[0].isalnum() or token[0] == "_" for token in tokens)
    return Form(_digest("text " + " ".join(tokens)), size)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _is_stub(tree: ast.Module) -> bool:
    """Whether nothing is written: no statement but definitions, imports and placeholders."""
    bodies = [tree.body]
    bodies += [node.body for node in ast.walk(tree) if isinstance(node, _DEFINITIONS)]
    return all(
        isinstance(statement, (*_DEFINITIONS, ast.Import, ast.ImportFrom))
        or _is_idle(statement)
        or _is_placeholder(statement)
        for body in bodies
        for statement in body
    )


def _is_idle(statement: ast.stmt) -> bool:
    """``pass``, a docstring, ``...``, a bare annotation: nothing happens."""
    return (
        isinstance(statement, ast.Pass | ast.Global | ast.Nonlocal)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        or (isinstance(statement, ast.AnnAssign) and statement.value is None)
    )


def _is_placeholder(statement: ast.stmt) -> bool:
    """``raise NotImplementedError(...)`` or ``super().__init__()``."""
    if isinstance(statement, ast.Raise):
        raised = statement.exc.func if isinstance(statement.exc, ast.Call) else statement.exc
        return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    return isinstance(statement, ast.Expr) and ast.unparse(statement) == "super().__init__()"


@dataclass(eq=False)
class _Scope:
    """Where names are bound: the cell, a class, a function or a comprehension.

    Attributes:
        bound: the names that belong to it.
        names: bound name -> what stands for it, from its first appearance on.
        imports: bound name -> what it was imported as, in full.
        definitions: bound name -> the function or class of that name.
        outside: names declared global here.
        instance: in a method, the name of its first argument.
    """

    kind: str
    parent: _Scope | None = None
    bound: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    definitions: dict[str, ast.AST] = field(default_factory=dict)
    outside: set[str] = field(default_factory=set)
    instance: str = ""

    def bind(self, statements: Iterable[ast.AST]) -> None:
        """Takes up every name that the statements bind, those of inner scopes left out."""
        elsewhere: set[str] = set()
        # Each with whether it is inside a comprehension, which keeps its targets to itself.
        waiting = [(node, False) for node in statements]
        while waiting:
            node, inner = waiting.pop()
            if isinstance(node, _DEFINITIONS):
                self.bound.add(node.name)
                self.definitions[node.name] = node
                continue
            if isinstance(node, ast.Lambda):
                continue
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._bind_import(node)
            elif isinstance(node, ast.Global | ast.Nonlocal):
                elsewhere.update(node.names)
                if isinstance(node, ast.Global):
                    self.outside.update(node.names)
            elif isinstance(node, ast.NamedExpr):
                self.bound.add(node.target.id)
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) and not inner:
                self.bound.add(node.id)
            elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
                self.bound.add(node.name)
            elif isinstance(node, ast.MatchMapping) and node.rest:
                self.bound.add(node.rest)
            inner = inner or isinstance(node, _COMPREHENSIONS)
            waiting += [(child, inner) for child in ast.iter_child_nodes(node)]
        self.bound -= elsewhere

    def _bind_import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if isinstance(node, ast.ImportFrom):
                full = f"{'.' * node.level}{node.module or ''}.{alias.name}"
                self.imports[alias.asname or alias.name] = full
            elif alias.asname:
                self.imports[alias.asname] = alias.name

    def holder(self, name: str) -> _Scope | None:
        """The scope that a name, used here, belongs to; None for a global one of elsewhere."""
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.outside:
                while scope.parent is not None:
                    scope = scope.parent
            # The names of a class are not visible in its methods.
            visible = scope.kind != "class" or scope is self
            if visible and (name in scope.bound or name in scope.imports):
                return scope
            scope = scope.parent
        return None


class _Writer:
    """Writes a tree's normal form into ``parts`` and counts its ``size``."""

    def __init__(self, tree: ast.Module) -> None:
        self.parts: list[str] = []
        self.size = 0
        self._count = 0
        self._scopes: dict[ast.AST, _Scope] = {}
        scope = _Scope("cell")
        scope.bind(tree.body)
        self._body(tree.body, scope)

    # -- scopes

    def _scope(self, node: ast.AST, parent: _Scope) -> _Scope:
        """The scope that a definition opens."""
        if node in self._scopes:
            return self._scopes[node]
        if isinstance(node, ast.ClassDef):
            scope = _Scope("class", parent)
            scope.bind(node.body)
            scope.bound.update(*map(_stored_on_instance, node.body))
            scope.bound = {name for name in scope.bound if not _is_special(name)}
        elif isinstance(node, _COMPREHENSIONS):
            scope = _Scope("comprehension", parent)
            scope.bind(generator.target for generator in node.generators)
        else:
            scope = _Scope("function", parent)
            scope.bind(node.body if isinstance(node.body, list) else ())
            arguments = _arguments(node)
            scope.bound.update(argument.arg for argument in arguments)
            if parent.kind == "class" and arguments:
                scope.instance = arguments[0].arg
        self._scopes[node] = scope
        return scope

    def _stand_in(self, name: str, scope: _Scope) -> str:
        if name not in scope.names:
            scope.names[name] = f"${self._count}"
            self._count += 1
        return scope.names[name]

    def _bound(self, name: str, scope: _Scope) -> str:
        """What stands for a name where a statement binds it."""
        holder = scope.holder(name)
        return self._stand_in(name, holder) if holder and name in holder.bound else name

    def _class_of(self, node: ast.expr, scope: _Scope) -> _Scope | None:
        """The class whose instance ``self`` is, where the expression is a method's ``self``."""
        if isinstance(node, ast.Name):
            holder = scope.holder(node.id)
            if holder and holder.instance == node.id:
                return holder.parent
        return None

    def _called(self, node: ast.expr, scope: _Scope) -> _Scope | None:
        """The scope of the learner's own function, method or class that is called."""
        holder, name = None, ""
        if isinstance(node, ast.Name):
            holder, name = scope.holder(node.id), node.id
        elif isinstance(node, ast.Attribute):
            holder, name = self._class_of(node.value, scope), node.attr
        definition = holder.definitions.get(name) if holder else None
        if isinstance(definition, ast.ClassDef):
            holder = self._scope(definition, holder)
            definition = holder.definitions.get("__init__")
        return self._scope(definition, holder) if isinstance(definition, _FUNCTIONS) else None

    # -- writing

    def _put(self, *words: str) -> None:
        self.parts += [f"{len(word)}:{word}" for word in words]

    def _body(self, statements: Iterable[ast.stmt], scope: _Scope) -> None:
        self.parts.append("[")
        for statement in statements:
            if not _is_idle(statement) and not isinstance(statement, ast.Import | ast.ImportFrom):
                self._write(statement, scope)
        self.parts.append("]")

    def _write(self, node: ast.AST, scope: _Scope) -> None:
        if isinstance(node, ast.expr | ast.stmt):
            self.size += 1
        method = getattr(self, f"_write_{type(node).__name__}", None)
        if method:
            method(node, scope)
        elif isinstance(node, _COMPREHENSIONS):
            self._write_comprehension(node, scope)
        else:
            self._write_fields(node, scope)

    def _write_fields(self, node: ast.AST, scope: _Scope) -> None:
        self._put(type(node).__name__)
        for name, value in ast.iter_fields(node):
            if name in ("ctx", "type_comment"):
                continue
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                self._body(value, scope)
            elif isinstance(value, list):
                self.parts.append("[")
                for item in value:
                    self._write(item, scope) if isinstance(item, ast.AST) else self._put(repr(item))
                self.parts.append("]")
            elif isinstance(value, ast.AST):
                self._write(value, scope)
            elif name in ("name", "rest") and isinstance(value, str):
                self._put(self._bound(value, scope))  # of an except or case
            else:
                self._put(repr(value))

    def _write_Name(self, node: ast.Name, scope: _Scope) -> None:
        holder = scope.holder(node.id)
        if holder and node.id in holder.imports:
            *packages, last = holder.imports[node.id].split(".")
            self.size += len(packages)
            for name in reversed([*packages[1:], last] if packages else []):
                self._put("Attribute", name)
            self._put("Name", packages[0] if packages else last)
        else:
            self._put("Name", self._stand_in(node.id, holder) if holder else node.id)

    def _write_Attribute(self, node: ast.Attribute, scope: _Scope) -> None:
        owner = self._class_of(node.value, scope)
        known = owner is not None and node.attr in owner.bound
        self._put("Attribute", self._stand_in(node.attr, owner) if known else node.attr)
        self._write(node.value, scope)

    def _write_Constant(self, node: ast.Constant, scope: _Scope) -> None:
        self._put("Constant", type(node.value).__name__, repr(node.value))

    def _write_AnnAssign(self, node: ast.AnnAssign, scope: _Scope) -> None:
        self._write_fields(ast.Assign(targets=[node.target], value=node.value), scope)

    def _write_Call(self, node: ast.Call, scope: _Scope) -> None:
        self._put("Call")
        self._write(node.func, scope)
        owner = self._class_of(getattr(node.func, "value", node.func), scope)
        registers = owner is not None and getattr(node.func, "attr", "") in _REGISTERING
        for position, argument in enumerate(node.args):
            if registers and position == 0 and isinstance(argument, ast.Constant):
                self.size += 1
                name = str(argument.value)
                self._put(self._stand_in(name, owner) if name in owner.bound else name)
            else:
                self._write(argument, scope)
        called = self._called(node.func, scope)
        for keyword in node.keywords:
            name = keyword.arg or ""
            own = called is not None and name in called.bound
            self._put("=", self._stand_in(name, called) if own else name)
            self._write(keyword.value, scope)
        self.parts.append(")")

    def _write_FunctionDef(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: _Scope
    ) -> None:
        self._put(type(node).__name__, self._bound(node.name, scope))
        self._each(node.decorator_list, scope)
        inner = self._scope(node, scope)
        self._write_arguments(node.args, scope, inner)
        self._body(node.body, inner)

    _write_AsyncFunctionDef = _write_FunctionDef

    def _write_Lambda(self, node: ast.Lambda, scope: _Scope) -> None:
        self._put("Lambda")
        inner = self._scope(node, scope)
        self._write_arguments(node.args, scope, inner)
        self._write(node.body, inner)

    def _write_arguments(self, node: ast.arguments, scope: _Scope, inner: _Scope) -> None:
        for kind in ("posonlyargs", "args", "kwonlyargs"):
            self._put(kind, *(self._stand_in(each.arg, inner) for each in getattr(node, kind)))
        for each in (node.vararg, node.kwarg):
            self._put(self._stand_in(each.arg, inner) if each else "")
        self._each(node.defaults, scope)
        self._each(node.kw_defaults, scope)

    def _write_ClassDef(self, node: ast.ClassDef, scope: _Scope) -> None:
        self._put("ClassDef", self._bound(node.name, scope))
        self._each(node.decorator_list, scope)
        self._each(node.bases, scope)
        for keyword in node.keywords:
            self._put(keyword.arg or "")
            self._write(keyword.value, scope)
        self._body(node.body, self._scope(node, scope))

    def _write_comprehension(self, node: ast.expr, scope: _Scope) -> None:
        self._put(type(node).__name__)
        inner = self._scope(node, scope)
        for position, generator in enumerate(node.generators):
            self._put("for", str(generator.is_async))
            # Python, too, evaluates the first one outside.
            self._write(generator.iter, inner if position else scope)
            self._write(generator.target, inner)
            self._each(generator.ifs, inner)
        for part in ("key", "value", "elt"):
            if hasattr(node, part):
                self._write(getattr(node, part), inner)

    def _each(self, nodes: Iterable[ast.AST | None], scope: _Scope) -> None:
        self.parts.append("[")
        for node in nodes:
            self._write(node, scope) if node is not None else self._put("")
        self.parts.append("]")


def _arguments(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> list[ast.arg]:
    given = node.args
    found = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [argument for argument in found if argument is not None]


def _stored_on_instance(statement: ast.stmt) -> Iterator[str]:
    """The attributes that a method gives its ``self``."""
    if not isinstance(statement, _FUNCTIONS) or not _arguments(statement):
        return
    instance = _arguments(statement)[0].arg

    def is_instance(node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id == instance

    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if is_instance(node.value):
                yield node.attr
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in _REGISTERING
            and is_instance(node.func.value)
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
