"""Which layers of isolation hold on this machine, found out by trying each."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import workbook
from autograder import exercise as exercises
from autograder import sandbox
from autograder.sandbox import LAYERS, View

_PACKAGE = Path(__file__).resolve().parent
_WORKBOOK = Path(workbook.__file__).resolve().parent

HOW_TO_GET = {
    "bubblewrap": "Install it (Debian, Ubuntu: apt install bubblewrap; Fedora: dnf install "
    "bubblewrap). Where it is installed, the system may forbid user namespaces; see namespaces.",
    "namespaces": "Allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, and on "
    "Ubuntu 24.04 and later kernel.apparmor_restrict_unprivileged_userns=0), or run as root.",
    "landlock": "Use a kernel of 5.13 or later with landlock among its security modules (lsm=).",
    "seccomp": "Use a kernel with CONFIG_SECCOMP_FILTER on x86-64 or arm64.",
    "rlimits": "Every Linux has them; a limit of the system may forbid setting them.",
}


@dataclass(frozen=True)
class Layer:
    """What trying a layer gave: whether it held, and what was seen."""

    name: str
    holds: bool
    seen: str


def view(assignment: str) -> View:
    """What a submission of an assignment may see of the file system.

    Of the ready-made blocks those of earlier chapters; of this package its code, but no cases, no
    references.
    """
    earlier = exercises.prefixes_before(assignment)
    ready = _WORKBOOK / "ready"
    return sandbox.python_view(
        packages=[_PACKAGE, _WORKBOOK],
        # The sample class's answers are wrong, but nearly right.
        covered=[_PACKAGE / "references", _PACKAGE / "sample.py", ready],
        kept=[ready / "__init__.py", *(ready / f"{prefix}.py" for prefix in earlier)],
        late=[_PACKAGE / "exercises"],
    )


@functools.cache
def tried() -> tuple[Layer, ...]:
    """Every layer, tried on this machine: by doing inside what it is there to prevent."""
    if sys.platform != "linux":
        return tuple(Layer(name, False, f"not on {sys.platform}") for name in LAYERS)
    if not sandbox.has_bubblewrap():
        return (Layer("bubblewrap", False, "not installed"), *_tried_inside([]))
    command = sandbox.bubblewrap(view(""))
    inside = _tried_inside(command)
    if not inside:
        return (
            Layer("bubblewrap", False, _complaint(command)),
            *_tried_inside([]),
        )
    seen = Layer("bubblewrap", True, "nothing but Python and the system's libraries is visible")
    if sandbox.missing([seen.name, *(layer.name for layer in inside if layer.holds)]):
        # A system may allow bubblewrap itself what it forbids to programs inside it.
        outside = _tried_inside([])
        if not sandbox.missing(layer.name for layer in outside if layer.holds):
            why = "it works, but no namespaces can be made inside it; not used"
            return (Layer("bubblewrap", False, why), *outside)
    return (seen, *inside)


def _tried_inside(command: Sequence[str]) -> tuple[Layer, ...]:
    script = [sys.executable, "-I", "-S", str(_PACKAGE / "sandbox.py")]
    settings = json.dumps({"view": view("").to_json(), "bubblewrap": bool(command)})
    try:
        answer = subprocess.run(
            [*command, *script, settings], capture_output=True, timeout=60, check=True
        )
        return tuple(Layer(**item) for item in json.loads(answer.stdout))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        if command:
            return ()
        return tuple(Layer(name, False, f"cannot be tried: {error}") for name in LAYERS[1:])


def _complaint(command: Sequence[str]) -> str:
    try:
        answer = subprocess.run([*command, "/bin/true"], capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    lines = answer.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"it ends with exit status {answer.returncode}"


def holding() -> tuple[str, ...]:
    """The names of the layers that hold."""
    return tuple(layer.name for layer in tried() if layer.holds)


def refusal(lacking: Sequence[str]) -> str:
    """Why nothing is graded here, and what to do."""
    way = (
        HOW_TO_GET["bubblewrap"].split(".")[0]
        if sys.platform == "linux"
        else "Grade on Linux: in a virtual machine, a container or WSL 2"
    )
    return (
        f"Submissions cannot be shut in on this machine: nothing bounds their {_and(lacking)}. "
        f"{way}. autograder doctor says what was tried. If you know whose code it is, "
        "--trust-submissions runs it unprotected."
    )


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
