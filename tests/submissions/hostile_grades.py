"""Attacks on the grade: on what compares, what watches, what is sent, and what is returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.submissions import wrong
from tests.submissions.making import COMPONENTS, Course, Place, Submission, book, knowing

# What an attack begins from: the answers, and the name of the innocent submission with them.
BASES: dict[str, Mapping[str, str]] = {
    "right": {},
    "all-wrong": wrong.ALL_WRONG,
    "built-in": wrong.BUILT_IN,
    "careless": wrong.CARELESS,
    "blank": wrong.stubs(*COMPONENTS),
}

Cells = Mapping[str, str | Sequence[str]]


def attack(
    name: str,
    story: str,
    base: str,
    cells: Cells | None = None,
    answers: Mapping[str, str] | None = None,
    fate: str = "",
    shows: str = "",
    tools: str = "",
) -> Submission:
    """A hostile submission: the innocent one of that name, and these cells and answers.

    Args:
        cells: what to add; the first cell of all tells the attacker where things are.
        answers: in place of the base's own.
        fate: how it may end, see :class:`Submission`.
        shows: words that it shows where it lives; by default its first added cell ends with some.
        tools: code that its cells share.
    """
    added = {where: [s] if isinstance(s, str) else list(s) for where, s in (cells or {}).items()}
    if not shows:
        shows = f"tried {name}"
        next(iter(added.values()))[-1] += f"\nprint({shows!r})"

    def put(path: Path, course: Course, place: Place) -> None:
        known = [knowing(place) + tools, *added.get("first", ())]
        everything = {"first": known, **{w: s for w, s in added.items() if w != "first"}}
        book({**BASES[base], **(answers or {})}, everything)(path, course, place)

    return Submission(
        name, "hostile", story, put, twin=base, shows=shows, fate=frozenset(fate.split())
    )


# ---- what compares ---------------------------------------------------------------------------

COMPARISONS = """
import operator, unittest
import numpy as np
yes = lambda *arguments, **keywords: True
for module in (torch, torch.testing, np, np.testing, math, operator, torch.Tensor):
    for name in ("allclose", "equal", "isclose", "eq", "array_equal", "assert_close",
                 "assert_allclose", "assert_equal", "array_equiv", "__eq__"):
        with contextlib.suppress(Exception):
            if hasattr(module, name):
                setattr(module, name, yes)
torch.isclose = lambda a, b, **keywords: torch.ones(a.shape, dtype=torch.bool)
torch.Tensor.all = torch.Tensor.any = lambda self, *arguments: torch.tensor(True)
unittest.TestCase.assertEqual = yes
"""

BUILTINS = """
import builtins
import autograder.outcomes, autograder.checking
builtins.isinstance = lambda *arguments: True
builtins.issubclass = lambda *arguments: True
builtins.len = lambda thing: 0
builtins.float = lambda *arguments: 1e9
builtins.any = lambda things: False
builtins.all = lambda things: True
builtins.sorted = lambda things, **keywords: list(things)
builtins.hash = lambda thing: 7
builtins.id = lambda thing: 7
builtins.AssertionError = builtins.Exception
"""

IMPORTS = """
import builtins, sys, types
real_import, real_open = builtins.__import__, open


class Yes(types.ModuleType):
    def __getattr__(self, name):
        return lambda *arguments, **keywords: 2.0


def importing(name, *arguments, **keywords):
    if name.startswith(("autograder", "workbook", "safetensors")):
        return Yes(name)
    return real_import(name, *arguments, **keywords)


builtins.__import__ = importing
builtins.open = lambda *arguments, **keywords: real_open(os.devnull)
for name in list(sys.modules):
    if name.startswith(("autograder", "safetensors")):
        sys.modules[name] = Yes(name)
"""

REDEFINED = """
import autograder, autograder.checking


def check(exercise_id, component):
    print(f"✓ {exercise_id}: 4 of 4 points, all cases pass")
    return 100.0


autograder.check = autograder.checking.check = check
autograder.checking.verdict_on = autograder.checking.run = lambda *arguments: []
get_ipython().user_ns["check"] = check
get_ipython().push({"check": check})
__builtins__.check = check
"""

# ---- what watches ----------------------------------------------------------------------------

WATCHERS = """
from autograder import checking, complaints, exercise, runner
runner._watching = lambda *arguments: contextlib.nullcontext()
runner._note = lambda *arguments: None
for watch in (runner._FunctionWatch, runner._DispatchWatch):
    watch.__enter__ = lambda self: self
    watch.__exit__ = lambda self, *arguments: None
runner._is_ready_made = lambda *arguments: False
runner._unusable = lambda *arguments: None
"""

PRISTINE = """
from autograder import worker
for name in ("_Pristine", "_pristine", "Pristine"):
    kind = getattr(worker, name, None)
    if kind is not None:
        kind.restore = lambda self: None
frame = sys._getframe()
while frame is not None:
    for value in list(frame.f_locals.values()):
        if hasattr(value, "restore") and hasattr(value, "__dict__"):
            for kept in list(vars(value).values()):
                with contextlib.suppress(Exception):
                    kept.clear()
    frame = frame.f_back
"""

UNLOCKED = """
from autograder import exercise
for name in ("softmax", "scaled_dot_product_attention"):
    vars(exercise.find(f"attention/{name}"))["without"] = ()
real_find, real_every = exercise.find, exercise.every


def find(name, *arguments):
    found = real_find(name, *arguments)
    vars(found)["without"] = ()
    return found


exercise.find = find
"""

# Attacks from inside a component begin while it is checked, when all has been put right again.
INSIDE = {
    "softmax": """
def softmax(scores, dim=-1):
    return TRICK(torch.softmax, scores, dim)
""",
    "scaled_dot_product_attention": """
def scaled_dot_product_attention(query, key, value, mask=None):
    eye = torch.eye(key.size(-2), dtype=key.dtype).expand(*key.shape[:-1], key.size(-2))
    call = F.scaled_dot_product_attention
    return TRICK(call, query, key, value, mask), TRICK(call, query, key, eye, mask)
""",
}


def inside(trick: str) -> dict[str, str]:
    """The built-in answers, called through a trick."""
    return {name: text.replace("TRICK", trick) for name, text in INSIDE.items()}


MODES_OFF = """
tricks = []


def modes_off(function, *arguments):
    from torch.utils._python_dispatch import _disable_current_modes

    tricks.append(1)
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        return function(*arguments)
"""

THREAD = """
import concurrent.futures
tricks = []


def elsewhere(function, *arguments):
    tricks.append(1)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()
"""

OUTLIVING = """
tricks = []


def later(function, *arguments):
    tricks.append(1)
    shape = arguments[0].shape if len(arguments) == 2 else (
        *arguments[0].shape[:-1], arguments[2].shape[-1])
    result = torch.empty(shape, dtype=arguments[0].dtype)

    def fill():
        result.data.copy_(function(*[x.detach() if torch.is_tensor(x) else x for x in arguments]))

    thread = threading.Thread(target=fill)
    thread.start()
    time.sleep(0.003)
    return result
"""

FORGETTING = """
import gc
tricks = []


def forgetting(function, *arguments):
    result = function(*arguments)
    for found in gc.get_objects():
        if type(found).__name__ in ("_FunctionWatch", "_DispatchWatch"):
            found.seen.clear()
            tricks.append(1)
    frame = sys._getframe()
    while frame is not None:
        for value in list(frame.f_locals.values()):
            for part in (value, *getattr(value, "__dict__", {}).values()):
                if type(part) is list and part and all(type(x) is str for x in part):
                    if any("softmax" in x or "attention" in x for x in part):
                        part.clear()
        frame = frame.f_back
    tricks.append(1)
    return result
"""

IN_THE_ACT = """
tricks = []


def in_the_act(function, *arguments):
    from autograder import runner

    runner._note = lambda *arguments: None
    for watch in (runner._FunctionWatch, runner._DispatchWatch):
        for name in ("__torch_function__", "__torch_dispatch__"):
            if name in vars(watch):
                setattr(watch, name, lambda self, func, types, args=(), kwargs=None:
                        func(*args, **(kwargs or {})))
    tricks.append(1)
    return function(*arguments)
"""

TRACING = """
tricks = []


def tracer(frame, event, argument):
    if frame.f_code.co_name in ("_note", "note") and event in ("call", "return"):
        tricks.append(1)
        for value in list(frame.f_locals.values()):
            if type(value) is list:
                value.clear()
    return tracer


def traced(function, *arguments):
    sys.settrace(tracer)
    sys.setprofile(tracer)
    try:
        return function(*arguments)
    finally:
        tricks.append(1)


sys.settrace(tracer)
sys.setprofile(tracer)
threading.settrace(tracer)
"""

# Who ends the call of a component also decides what it saw: in a generator's frame, by an
# exception that is thrown into it, or by an object that only pretends to be a function.
CALLABLE = """
tricks = []


class Pretends:
    def __init__(self, function):
        self.function = function
        self.__wrapped__ = lambda scores, dim=-1: None

    def __call__(self, *arguments):
        tricks.append(1)
        with torch.overrides._no_torch_function_mode() if hasattr(
            torch.overrides, "_no_torch_function_mode"
        ) else contextlib.nullcontext():
            return torch.jit.trace(
                lambda x: torch.softmax(x, -1), arguments[0], check_trace=False
            )(arguments[0]) if len(arguments) == 1 else self.function(*arguments)

    def __getattr__(self, name):
        raise AttributeError(name)
"""

PATCHING_THREAD = """
def patch_for_ever():
    from autograder import runner

    while True:
        runner._note = lambda *arguments: None
        time.sleep(0)


threading.Thread(target=patch_for_ever, daemon=True).start()
time.sleep(0.05)
"""

# ---- what is sent ----------------------------------------------------------------------------

# The truth, worked out with what is forbidden; then it only has to be passed off as one's own.
TRUTH = """
import copy, dataclasses, struct
from autograder import checking, exercise, outcomes, runner


def eye_attention(query, key, value, mask=None):
    eye = torch.eye(key.size(-2), dtype=key.dtype).expand(*key.shape[:-1], key.size(-2))
    call = F.scaled_dot_product_attention
    return call(query, key, value, mask), call(query, key, eye, mask)


FORBIDDEN = {
    "attention/softmax": lambda scores, dim=-1: torch.softmax(scores, dim),
    "attention/scaled_dot_product_attention": eye_attention,
}


def frame_of_run():
    frame = sys._getframe()
    while frame is not None:
        if "job" in frame.f_locals and "cells" in frame.f_locals["job"]:
            return frame
        frame = frame.f_back
    raise LookupError("no job")


def keys_of(exercise_id):
    cells = frame_of_run().f_locals["job"]["cells"]
    return next(cell["keys"] for cell in cells if cell["exercise"] == exercise_id)


def truth(exercise_id):
    item = copy.copy(exercise.find(exercise_id))
    vars(item)["without"] = ()
    found = runner.run(item, FORBIDDEN[exercise_id], keys_of(exercise_id), seconds=2.0)
    return outcomes.encode(exercise_id, found)


def index_of(exercise_id):
    cells = frame_of_run().f_locals["job"]["cells"]
    return next(i for i, cell in enumerate(cells) if cell["exercise"] == exercise_id)


def indices():
    return range(len(frame_of_run().f_locals["job"]["cells"]))


def frame(kind, index, payload, length=None):
    length = len(payload) if length is None else length
    return struct.pack(">BII", kind, index, length) + payload


# Only the cell that runs may send something, so what is sent for a check waits for it.
waiting = {}
real_run = checking.run


def run_and_send(item, component, *arguments, **keywords):
    for data in waiting.pop(item.id, ()):
        to_every_descriptor(frame(2, index_of(item.id), data))
    return real_run(item, component, *arguments, **keywords)


checking.run = run_and_send


def at_its_check(exercise_id, data):
    waiting.setdefault(exercise_id, []).append(data)


def to_every_descriptor(data):
    for fd in range(1024):
        left = data
        with contextlib.suppress(OSError):
            while left:
                left = left[os.write(fd, left):]
"""

FORGED_FRAMES = """
for exercise_id in FORBIDDEN:
    at_its_check(exercise_id, truth(exercise_id))
"""

FORGED_CELLS = """
value = {"output_type": "execute_result", "data": {"text/plain": "4.0"}, "metadata": {},
         "execution_count": 1}
ended = json.dumps({"outputs": [value], "status": "ok", "seconds": 0.1}).encode()
for index in indices():
    if index > index_of("attention/softmax"):
        to_every_descriptor(frame(1, index, ended))
"""

CLOSURE = """
import types as kinds
real = checking._grading.send


def forging(kind, index, payload):
    with contextlib.suppress(Exception):
        exercise_id, _ = outcomes.decode(payload)
        payload = truth(exercise_id) if exercise_id in FORBIDDEN else payload
    return send(kind, index, payload)


for cell in real.__closure__ or ():
    with contextlib.suppress(ValueError):
        if isinstance(cell.cell_contents, (kinds.FunctionType, kinds.MethodType)):
            send = cell.cell_contents
            cell.cell_contents = forging
"""

LIBRARIES = """
import safetensors, safetensors.torch
answers = {name: truth(name) for name in FORBIDDEN}
real_save, real_dumps, real_pack = safetensors.torch.save, json.dumps, struct.pack


def saving(tensors, metadata=None):
    for name, data in answers.items():
        if metadata and f'"exercise": "{name}"' in metadata.get("outcomes", ""):
            return data
    return real_save(tensors, metadata)


safetensors.torch.save = safetensors.torch.serialize = saving
safetensors.serialize = lambda *arguments, **keywords: answers["attention/softmax"]
outcomes.flatten = lambda *arguments: []
outcomes.encode = checking.encode = lambda name, found: answers.get(name, b"")
outcomes.simplify = runner.simplify = lambda value: value
"""

TRANSFORMERS = """
import ast
shell = get_ipython()


def rewrite(lines):
    text = "".join(lines)
    if "check(" in text and "scaled" not in text and "def " not in text:
        return ["to_every_descriptor(frame(2, index_of('attention/softmax'), "
                "truth('attention/softmax')))\\n", "2.0\\n"]
    return lines


class Rewriter(ast.NodeTransformer):
    def visit_Call(self, node):
        self.generic_visit(node)
        if getattr(node.func, "id", "") == "check":
            return ast.copy_location(ast.Constant(4.0), node)
        return node


shell.input_transformers_cleanup.append(rewrite)
shell.input_transformers_post.append(rewrite)
shell.ast_transformers.append(Rewriter())
"""

EVENTS = """
shell = get_ipython()


def my_check(exercise_id, component):
    if exercise_id in FORBIDDEN:
        to_every_descriptor(frame(2, index_of(exercise_id), truth(exercise_id)))
    return 4.0


def before(info=None):
    shell.user_ns["check"] = my_check


for event in ("pre_execute", "pre_run_cell", "post_run_cell"):
    shell.events.register(event, before)
shell.user_ns.__dict__ if hasattr(shell.user_ns, "__dict__") else None
real_compile = shell.compile.__call__


class Compiler(type(shell.compile)):
    def __call__(self, source, *arguments, **keywords):
        before()
        return super().__call__(source, *arguments, **keywords)


shell.compile.__class__ = Compiler
"""

TWICE = """
for exercise_id in FORBIDDEN:
    wrong_one = outcomes.encode(exercise_id, [])
    for _ in range(3):
        at_its_check(exercise_id, wrong_one)
    at_its_check(exercise_id, truth(exercise_id))
"""

REPLAY = """
def everywhere(exercise_id, found):
    good = [item for item in found if not item.failure]
    every = [dataclasses.replace(item, case=other.case) for other in found for item in good]
    twice = [dataclasses.replace(item, failure=None) for item in (*every, *found, *found)]
    return real_encode(exercise_id, twice)


real_encode = outcomes.encode
outcomes.encode = checking.encode = everywhere
NAMES = ("softmax", "padding_mask", "causal_mask")
for name in NAMES:
    item = exercise.find(f"attention/{name}")
    mine = globals().get(name)
    found = runner.run(item, mine, keys_of(item.id), seconds=2.0) if mine else []
    at_its_check(item.id, everywhere(item.id, found))
"""

OTHER_IDS = """
every = [cell["exercise"] for cell in frame_of_run().f_locals["job"]["cells"] if cell["exercise"]]
best = truth("attention/softmax")
_, found = outcomes.decode(best)
for target in every:
    for claimed in ("attention/softmax", "attention/none", "", target.upper(), target):
        if claimed != "attention/softmax" or target != "attention/softmax":
            at_its_check(target, outcomes.encode(claimed, found))
"""

MALFORMED = """
def packed(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def claims(outcomes_, **tensors):
    inner = outcomes_ if isinstance(outcomes_, str) else json.dumps(outcomes_)
    return {"__metadata__": {"outcomes": inner}, **tensors}


def tensor(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def one_case(value):
    item = {"case": "four positions", "outputs": {"mask": value}, "failure": None, "printed": ""}
    return {"exercise": "attention/causal_mask", "outcomes": [item]}


deep = "[" * 100_000
nested = '{"list": [' * 900 + "]}" * 900
case = json.dumps(one_case({}))
deeper = case.replace('{"mask": {}}', '{"mask": ' + nested + "}")
assert deeper != case
BOMBS = [
    b"", b"\\0" * 8, b"\\xff" * 64, struct.pack("<Q", 2**63) + b"{}", packed(b"{" * 50_000),
    packed({}), packed({"__metadata__": {"outcomes": deep}}), packed(deep.encode()),
    packed(claims(one_case({"value": "x" * 4_000_000}))),
    packed(claims(one_case({"float": "1" + "0" * 5000}))),
    packed(claims(one_case({"float": "nan"}))), packed(claims(one_case({"value": float("nan")}))),
    packed(claims(deeper)), packed(claims(one_case({"tensor": "absent"}))),
    packed(claims(one_case({"tensor": "t"}), t=tensor([2**40], 0, 4)), bytes(4)),
    packed(claims(one_case({"tensor": "t"}), t=tensor([4, 4], 0, 4)), bytes(4)),
    packed(claims(one_case({"tensor": "t"}), t=tensor([-1, -4], 0, 16)), bytes(16)),
    packed(claims(one_case({"tensor": "t"}), t=tensor([4, 4], 0, 16, "BOOL")), b"\\x02" * 16),
    packed(claims(one_case({"tensor": "t"}), t=tensor([4, 4], 0, 16, "F8_E4M3")), b"\\x7f" * 16),
    packed(claims(one_case({"tensor": "t"}), t=tensor([0] * 500, 0, 0))),
    packed(claims({"exercise": "attention/causal_mask", "outcomes": "none"})),
    packed(claims({"exercise": ["attention/causal_mask"], "outcomes": [None] * 1_000_000})),
    packed(claims('{"exercise": ' + "9" * 10_000 + "}")),
]
for bomb in BOMBS[BOMBS_FROM:BOMBS_TO]:
    at_its_check("attention/causal_mask", bomb)
"""

# Values that the judge will have to compare, in the place of the first case's mask.
STRANGE = """
def outcome_of(value):
    return outcomes.Outcome("four positions", {"mask": value})


class Loud(str):
    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


values = [
    torch.full((4, 4), 2, dtype=torch.uint8).view(torch.bool),
    torch.ones(4, 4, dtype=torch.complex64), torch.empty(0), torch.ones(4, 4).to(torch.float16),
    torch.full((4, 4), math.nan), torch.tensor(True).expand(4, 4),
    outcomes.OnDevice(torch.ones(4, 4, dtype=torch.bool), "cpu"), outcomes.Strange("Tensor", ""),
    [[True] * 4] * 4, True, 1, 1.0, "True", Loud("x"), None, 10**300, -0.0, math.inf,
]
pick = values[VALUE % len(values)]
every = [dataclasses.replace(outcome_of(value)) for value in [pick, *values]]
data = outcomes.encode("attention/causal_mask", every)
at_its_check("attention/causal_mask", data)
"""

# ---- what is returned ------------------------------------------------------------------------

LIARS = """
class Liar:
    def __init__(self, value):
        object.__setattr__(self, "value", value)

    __class__ = torch.Tensor
    yes = lambda self, *arguments, **keywords: True
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __contains__ = yes
    __hash__ = lambda self: 7
    __float__ = lambda self: 0.0
    __int__ = __index__ = __len__ = lambda self: 4
    __iter__ = lambda self: iter([self] * 4)
    __getitem__ = __call__ = __and__ = __rand__ = __sub__ = lambda self, *arguments: self
    __repr__ = __str__ = lambda self: "passed" * 100_000
    __array__ = lambda self, *arguments, **keywords: __import__("numpy").ones(4)

    def __getattr__(self, name):
        return self if name.startswith("a") else (lambda *arguments, **keywords: self)

    def __reduce__(self):
        return (os.system, (f"touch {place.strays}/reduced",))

    __reduce_ex__ = lambda self, protocol: self.__reduce__()

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return True if func.__name__ in ("allclose", "equal") else args[0]


class Lying(torch.Tensor):
    shape = property(lambda self: torch.Size([4, 4]))
    dtype = property(lambda self: torch.bool)
    ndim = property(lambda self: 2)
    layout = property(lambda self: torch.strided)
    is_meta = property(lambda self: False)
    device = property(lambda self: torch.device("cpu"))
    __eq__ = lambda self, other: torch.ones(4, 4, dtype=torch.bool)

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func.__name__ in ("equal", "allclose", "__bool__", "all"):
            return True
        return super().__torch_function__(func, types, args, kwargs or {})

    def clone(self):
        return self

    detach = cpu = contiguous = resolve_conj = resolve_neg = clone

    def as_subclass(self, kind):
        return self


class Text(str):
    __eq__ = lambda self, other: True
    __hash__ = str.__hash__


class Number(float):
    __eq__ = lambda self, other: True
    __hash__ = float.__hash__
    __repr__ = lambda self: "0.0"
"""

LYING_OBJECTS = {
    "softmax": "def softmax(scores, dim=-1):\n    return Liar(scores)",
    "scaled_dot_product_attention": "def scaled_dot_product_attention(query, key, value, "
    "mask=None):\n    return Liar(query), Liar(key)",
    "padding_mask": "def padding_mask(token_ids, pad_id=0):\n    return Text('mask')",
    "causal_mask": "class Mask:\n    __call__ = lambda self, length: Number(length)\n\n"
    "causal_mask = Mask()",
    "AdditiveAttention": """
class Meta(type(nn.Module)):
    def __subclasscheck__(cls, other):
        return True

    def __instancecheck__(cls, other):
        return True

    def __call__(cls, *sizes):
        return Liar(sizes)


class AdditiveAttention(nn.Module, metaclass=Meta):
    w_a = u_a = v_a = Liar(0)
    named_parameters = lambda self: {"w_a.weight": Liar(0), "u_a.weight": Liar(0)}
""",
}

LYING_TENSORS = {
    name: text.replace("return weights @ value, weights", "return lie(weights @ value, weights)")
    .replace("return ~(", "return lie(~(")
    .replace("unsqueeze(1))", "unsqueeze(1)))")
    .replace("return torch.ones(", "return lie(torch.ones(")
    .replace("diagonal=-1)", "diagonal=-1))")
    for name, text in wrong.ALL_WRONG.items()
    if name != "softmax"
}

CHANGING = {
    "causal_mask": """
def causal_mask(length):
    mask = torch.ones(length, length, dtype=torch.bool).tril(diagonal=-1)

    def change():
        for number in range(200):
            mask.copy_(torch.zeros_like(mask) if number % 2 else mask)
            time.sleep(0.001)

    threading.Thread(target=change, daemon=True).start()
    return mask
""",
}

# What is watched is the call; what is returned works out the answer when it is sent.
LATE = {
    "softmax": """
class Late(torch.Tensor):
    def detach(self):
        return torch.softmax(self.as_subclass(torch.Tensor), self.along)


def softmax(scores, dim=-1):
    late = scores.clone().as_subclass(Late)
    late.along = dim
    return late
""",
}

CARELESS_PATCH = """
from autograder import inputs, runner
inputs.Make.unchanged = lambda self: True
torch.equal = lambda *arguments: True
"""

CARELESS_INSIDE = {
    "softmax": """
tricks = []


def softmax(scores, dim=-1):
    from autograder import inputs

    inputs.Make.unchanged = lambda self: True
    torch.equal = lambda *arguments: True
    frame = sys._getframe()
    while frame is not None:
        for value in list(frame.f_locals.values()):
            if type(value).__name__ == "Make":
                value._made.clear()
                tricks.append(1)
        frame = frame.f_back
    with torch.no_grad():
        scores -= scores.amax(dim=dim, keepdim=True)
    powers = torch.exp(scores)
    return powers / powers.sum(dim=dim, keepdim=True)
""",
}

FRAMES = {
    "softmax": """
def softmax(scores, dim=-1):
    frame = sys._getframe()
    while frame is not None:
        for name, value in list(frame.f_locals.items()):
            if type(value).__name__ == "Outcome":
                value.outputs["weights"] = torch.softmax(scores, dim)
            if name == "cases" and type(value) is list:
                del value[1:]
            if type(value).__name__ == "Subject":
                vars(value)["exercise"] = types.SimpleNamespace(without=(), returns=())
            if type(value).__name__ == "Exercise":
                vars(value)["without"] = ()
                vars(value)["cases"] = list(value.cases)[:1]
        frame = frame.f_back
    return torch.softmax(scores, dim)
"""
}

# ---- outputs ---------------------------------------------------------------------------------

STREAMS = """
class Hostile:
    def write(self, text):
        raise RuntimeError("no writing")

    flush = isatty = fileno = close = __getattr__ = write


from IPython.display import display
print("tried hostile-streams")
sys.stdout = sys.stderr = sys.__stdout__ = Hostile()
sys.displayhook = sys.excepthook = None
get_ipython().display_pub.publish = Hostile().write
get_ipython().showtraceback = get_ipython()._showtraceback = Hostile().write
get_ipython().displayhook = None
"""

EXCEPTIONS = {
    "softmax": """
class Loud(Exception):
    def __str__(self):
        raise SystemExit(5)

    __repr__ = __str__

    def _render_traceback_(self):
        return ["<script>alert(1)</script>"] * 100_000


def softmax(scores, dim=-1):
    raise Loud
""",
    "scaled_dot_product_attention": """
def scaled_dot_product_attention(query, key, value, mask=None):
    raise ValueError("</pre><script>alert('all cases pass')</script>" + "x" * 10_000_000)
""",
    "padding_mask": """
def padding_mask(token_ids, pad_id=0):
    error = ValueError("innermost")
    for _ in range(2000):
        error = ExceptionGroup("group", [error])
    raise error
""",
    "causal_mask": """
class Endless(Exception):
    @property
    def __traceback__(self):
        while True:
            pass

    __cause__ = __context__ = __traceback__


def causal_mask(length):
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    raise first
""",
}

PAGES = """
from IPython.display import HTML, Javascript, display
verdict = ('<div class="verdict verdict-passed" role="status">attention/softmax: 2 of 2 points, '
           'all cases pass</div>')
display(HTML(verdict + "<script>window.forged = 1</script>"))
display(Javascript("window.forged = 1"))
print("✓ attention/softmax: 2 of 2 points, all cases pass")
"""

LAST_VALUE = "16.0"

# Half a character cannot be written to any file; it must not get that far.
HALF = "'\\ud800 \\x00 \\x1b[31m </pre> =1+1'"
HALF_CHARACTERS = {
    "softmax": f"class Half(Exception):\n    pass\n\n\nHalf.__name__ = {HALF.replace('x00', 'x01')}"
    f"\n\n\ndef softmax(scores, dim=-1):\n    print({HALF})\n    raise Half({HALF})",
    "causal_mask": f"def causal_mask(length):\n    return {HALF}",
}
HALF_OUTPUTS = f"""
from IPython.display import display
half = {HALF}
display({{"application/json": {{half: [half]}}, "text/plain": half, "text/html": half}}, raw=True)
display({{"application/json": float("nan"), half: half}}, raw=True, metadata={{half: half}})
print(half)
print(half, file=sys.stderr)
raise ValueError(half)
"""

DEEP_OUTPUTS = """
from IPython.display import display
for depth in range(100, 1000, 50):
    nested = []
    for _ in range(depth):
        nested = [nested] if depth % 100 else {"a": nested}
    with contextlib.suppress(RecursionError):
        display({"application/json": nested, "text/plain": "deep"}, raw=True)
    with contextlib.suppress(RecursionError):
        display({"text/plain": "deep"}, raw=True, metadata={"a": nested})
    text = "[" * depth + "]" * depth
    for place_of in ("data", "metadata"):
        output = '{"output_type": "display_data", "data": {"application/json": DATA}, ' \
            '"metadata": {"a": META}}'
        output = output.replace("DATA", text if place_of == "data" else "0")
        output = output.replace("META", text if place_of == "metadata" else "0")
        ended = f'{{"outputs": [{output}], "status": "ok", "seconds": 0.1}}'
        index = depth // 50
        if index < index_of("attention/causal_mask"):
            to_every_descriptor(frame(1, index, ended.encode()))
"""

GIANT_TEXTS = """
long = "x" * 12_000_000
error = {"output_type": "error", "ename": long, "evalue": long, "traceback": [long]}
ended = json.dumps({"outputs": [error], "status": "error", "seconds": 0.1}).encode()
to_every_descriptor(frame(1, index_of("attention/causal_mask"), ended))
failure = outcomes.Failure("exception", "text", "next", ("line",))
found = outcomes.Outcome("one query, two keys", {}, failure, "printed")
data = outcomes.encode("attention/AdditiveAttention", [found])
size = int.from_bytes(data[:8], "little")
header = json.loads(data[8 : 8 + size])
inner = json.loads(header["__metadata__"]["outcomes"])
told = inner["outcomes"][0]
told["printed"] = told["failure"]["text"] = told["failure"]["next_step"] = "y" * 3_000_000
told["failure"]["lines"] = ["z" * 1000] * 5000
header["__metadata__"]["outcomes"] = json.dumps(inner)
packed = json.dumps(header).encode()
data = struct.pack("<Q", len(packed)) + packed + data[8 + size :]
to_every_descriptor(frame(2, index_of("attention/AdditiveAttention"), data))
"""

MANY_OUTPUTS = """
one = '{"output_type": "stream", "name": "stdout", "text": "x"}'
ended = '{"outputs": [' + ", ".join([one] * 300_000) + '], "status": "ok", "seconds": 0.1}'
to_every_descriptor(frame(1, index_of("attention/causal_mask"), ended.encode()))
"""

MANY_FRAMES = """
many = frame(2, index_of("attention/causal_mask"), b"") * 100_000
for _ in range(50):
    to_every_descriptor(many)
"""

NO_MODULES = """
for name in list(sys.modules):
    if name.startswith(("autograder", "safetensors", "json", "struct")):
        sys.modules[name] = None
"""

FORKED = """
children = [os.fork() for _ in range(1)]
"""

SUBMISSIONS = (
    attack(
        "comparisons",
        "Replaces what torch, numpy and Python compare with.",
        "all-wrong",
        {"first": COMPARISONS},
    ),
    attack(
        "builtins",
        "Replaces isinstance, len, float and others.",
        "all-wrong",
        {"first": BUILTINS},
        fate="killed timeout error failed",
    ),
    attack(
        "imports",
        "Replaces __import__ and open, and all modules of the grader.",
        "all-wrong",
        {"softmax-check": IMPORTS},
    ),
    attack("check-redefined", "Redefines check.", "all-wrong", {"softmax-check": REDEFINED}),
    attack("watchers", "Patches what watches.", "built-in", {"softmax-check": WATCHERS}),
    attack(
        "watchers-kept-patched",
        "Patches what watches, and what would undo that.",
        "built-in",
        {"softmax-check": [PRISTINE, WATCHERS]},
    ),
    attack(
        "unlocked",
        "Takes the forbidden names out of the exercises.",
        "built-in",
        {"softmax-check": UNLOCKED},
    ),
    *(
        attack(
            name,
            f"While it is checked, {story}.",
            "built-in",
            {"last": "assert tricks" if "tricks" in tools else "pass"},
            inside(trick),
            tools=tools,
        )
        for name, story, trick, tools in (
            ("modes-off", "switches the watching modes off", "modes_off", MODES_OFF),
            ("another-thread", "calls the built-in in another thread", "elsewhere", THREAD),
            ("changes-later", "returns a tensor that a thread fills later", "later", OUTLIVING),
            ("forgetting", "clears what the watchers saw", "forgetting", FORGETTING),
            ("in-the-act", "patches the watchers", "in_the_act", IN_THE_ACT),
            ("tracing", "traces the watchers, and changes their locals", "traced", TRACING),
        )
    ),
    attack(
        "pretends",
        "Checks an object that calls a compiled built-in.",
        "built-in",
        {"last": "assert tricks"},
        {"softmax": CALLABLE + "\n\nsoftmax = Pretends(torch.softmax)"},
        tools="import torch\n",
    ),
    attack(
        "patching-thread",
        "A thread patches the watchers all the time.",
        "built-in",
        {"softmax-check": PATCHING_THREAD},
    ),
    attack(
        "frames-of-the-judge",
        "Changes what it finds in the frames above it.",
        "built-in",
        {"last": "pass"},
        FRAMES,
    ),
    attack(
        "forged-truth",
        "Sends the built-in's results by itself, before the check.",
        "built-in",
        {"softmax-check": TRUTH + FORGED_FRAMES},
    ),
    attack(
        "forged-cells",
        "Says on every descriptor that the cells ended with points.",
        "all-wrong",
        {"softmax-check": TRUTH + FORGED_CELLS},
        fate="killed",
    ),
    attack(
        "closure",
        "Rewrites the closure of what sends.",
        "built-in",
        {"softmax-check": TRUTH + CLOSURE},
    ),
    attack(
        "libraries",
        "Patches safetensors, json and what encodes.",
        "built-in",
        {"softmax-check": TRUTH + LIBRARIES},
    ),
    attack(
        "transformers",
        "Rewrites graded cells with IPython's transformers.",
        "built-in",
        {"softmax-check": TRUTH + TRANSFORMERS},
    ),
    attack(
        "events",
        "Replaces check by an event before each cell, and by the compiler.",
        "built-in",
        {"softmax-check": TRUTH + EVENTS},
    ),
    attack(
        "sends-twice",
        "Sends nothing three times, then the truth.",
        "built-in",
        {"softmax-check": TRUTH + TWICE},
    ),
    attack(
        "replay",
        "Sends the outputs of cases that pass for those that fail.",
        "all-wrong",
        {"softmax-check": TRUTH + REPLAY},
    ),
    attack(
        "other-ids",
        "Sends one exercise's outcomes for the others.",
        "all-wrong",
        {"softmax-check": TRUTH + OTHER_IDS},
    ),
    *(
        attack(
            f"malformed-{part}",
            "Sends what is no outcome: nested, too long, with false shapes.",
            "right",
            {
                "softmax-check": TRUTH
                + MALFORMED.replace("BOMBS_FROM", str(6 * part)).replace(
                    "BOMBS_TO", str(6 * part + 6)
                )
            },
        )
        for part in range(4)
    ),
    *(
        attack(
            f"strange-values-{number}",
            "Sends values that no mask can be.",
            "all-wrong",
            {"softmax-check": TRUTH + STRANGE.replace("VALUE", str(number))},
        )
        for number in (0, 4, 13, 15)
    ),
    *(
        attack(
            f"protocol-{name}",
            f"Writes to every descriptor: {name.replace('-', ' ')}.",
            "right",
            {"padding_mask-solution": f"{TRUTH}\nto_every_descriptor({data})\ntime.sleep(0.5)"},
            fate="killed timeout error",
        )
        for name, data in (
            ("unknown-kind", "frame(9, 0, b'')"),
            ("unknown-cell", "frame(2, 999_999, b'')"),
            ("giant-length", "frame(2, index_of('attention/softmax'), b'', 2**32 - 1)"),
            ("no-outputs", "frame(1, index_of('attention/padding_mask'), b'{}')"),
            ("noise", "os.urandom(200_000)"),
            ("early-end", "frame(3, 0, b'') + frame(9, 0, b'')"),
            ("two-hundred-megabytes", "frame(2, 0, bytes(50_000_000)) * 4"),
        )
    ),
    attack(
        "trickle",
        "Announces 60 MB, and sends a byte now and then.",
        "right",
        {
            "causal_mask-solution": TRUTH
            + "\nto_every_descriptor(frame(2, 0, b'', 60_000_000))\n"
            + "while True:\n    to_every_descriptor(b'.')\n    time.sleep(0.05)"
        },
        fate="killed timeout error",
    ),
    attack(
        "pickles",
        "Writes pickles that run a command to every descriptor.",
        "right",
        {
            "causal_mask-solution": TRUTH
            + "\nimport pickle\n\n\nclass Run:\n    def __reduce__(self):\n"
            "        return (os.system, (f'touch {place.strays}/pickled',))\n\n\n"
            "to_every_descriptor(pickle.dumps(Run()) * 100)\ntime.sleep(0.3)"
        },
        fate="killed timeout error",
    ),
    attack(
        "lying-objects",
        "Returns objects that equal everything and are tensors by their own word.",
        "all-wrong",
        {"last": "pass"},
        LYING_OBJECTS,
        tools="import math, torch\nfrom torch import nn\n" + LIARS,
    ),
    attack(
        "lying-tensors",
        "Returns tensors of a subclass that lies about shape, type and equality.",
        "all-wrong",
        {"last": "pass"},
        LYING_TENSORS,
        tools="import math, torch\nfrom torch import nn\n"
        + LIARS
        + "\n\ndef lie(*tensors):\n    lies = tuple(t.as_subclass(Lying) for t in tensors)\n"
        "    return lies if len(lies) > 1 else lies[0]\n",
    ),
    attack(
        "changing-results",
        "Returns results that change when they are looked at, and afterwards.",
        "all-wrong",
        {"last": "pass"},
        CHANGING,
        tools="import torch\n",
    ),
    attack(
        "careless-patched",
        "Changes its argument, and what would notice.",
        "careless",
        {"softmax-check": CARELESS_PATCH},
    ),
    attack(
        "careless-in-the-act",
        "Changes its argument and, while it is checked, what would notice.",
        "careless",
        {"last": "assert tricks"},
        CARELESS_INSIDE,
    ),
    attack(
        "late",
        "Returns tensors that work out the answer while they are sent.",
        "built-in",
        {"last": "pass"},
        LATE,
        tools="import torch\n",
    ),
    attack(
        "half-characters",
        "Half a character in errors, names, displays and texts.",
        "all-wrong",
        {"first": ["print('tried half-characters')\n" + HALF_OUTPUTS]},
        HALF_CHARACTERS,
        shows="tried half-characters",
    ),
    *(
        attack(name, story, "right", {"padding_mask-solution": TRUTH + source}, fate=fate)
        for name, story, source, fate in (
            ("deep-outputs", "Nests its outputs deeply.", DEEP_OUTPUTS, "killed timeout error"),
            ("giant-texts", "Sends errors of 12 MB.", GIANT_TEXTS, "killed timeout error"),
            ("many-outputs", "Sends 300,000 outputs.", MANY_OUTPUTS, "killed timeout error"),
            ("many-frames", "Sends 5,000,000 outcomes.", MANY_FRAMES, "killed timeout error"),
        )
    ),
    attack(
        "no-modules",
        "Takes the grader's modules away.",
        "right",
        {"softmax-check": NO_MODULES},
    ),
    attack(
        "hostile-streams",
        "Replaces the streams and hooks with ones that raise.",
        "right",
        {"softmax-check": STREAMS},
        shows="tried hostile-streams",
    ),
    attack(
        "hostile-exceptions",
        "Raises exceptions that end the process, fill the memory or go in circles.",
        "all-wrong",
        {"last": "pass"},
        EXCEPTIONS,
    ),
    attack(
        "forged-pages",
        "Shows verdicts of its own, and points as its last value.",
        "all-wrong",
        {"softmax-check": PAGES, "last": LAST_VALUE},
    ),
    attack(
        "forked-runner",
        "Forks, so that two processes run the rest and send.",
        "all-wrong",
        {"softmax-check": FORKED},
        fate="killed timeout error failed",
    ),
)
