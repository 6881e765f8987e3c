"""Explorers that need no kernel: custom elements with their data, each in a module beside this.

A notebook shows one with ``show``. A page of the book loads its module from a file; in Jupyter the
module travels in the output, since there is no place to load it from.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbook import budget
from workbook.plots import Drawing
from workbook.showing import display

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.js") if path.stem != "base"))


class Element:
    """An explorer as Jupyter displays it: custom element, data, and a figure that stands in.

    ``name``: the module's name, such as "softmax". ``data``: what JSON can hold; numbers are kept
    to six digits. ``fallback``: a figure of the same thing, for print and where no script runs.
    ``inline``: whether the module comes along. Raises ``ValueError`` for an unknown name, and for
    numbers that JSON does not know (NaN, infinity).
    """

    def __init__(self, name: str, data: Mapping[str, Any], fallback: Drawing, inline: bool) -> None:
        if name not in NAMES:
            raise ValueError(f"There is no explorer {name!r}. There are: {', '.join(NAMES)}.")
        self.name, self.data, self.fallback, self.inline = name, data, fallback, inline

    def _repr_html_(self) -> str:
        # "</" would end the script that holds the data.
        data = json.dumps(_rounded(self.data), separators=(",", ":"), allow_nan=False)
        script = data.replace("</", "<\\/")
        tag = f"tw-{self.name}"
        parts = [
            f'<{tag}><script type="application/json">{script}</script>',
            f"{self.fallback.svg}</{tag}>",
        ]
        if self.inline:
            code = module(self.name).replace("</script", "<\\/script")
            parts.append(f'<script type="module">{code}</script>')
        return "\n".join(parts)

    def __repr__(self) -> str:
        return repr(self.fallback)


def _rounded(data: Any) -> Any:
    """Return ``data`` with its numbers to six digits: more would only make the page heavier."""
    if isinstance(data, Mapping):
        return {key: _rounded(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_rounded(value) for value in data]
    if isinstance(data, float) and math.isfinite(data):
        short = float(f"{data:.6g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    return data


def module(name: str) -> str:
    """Return the module of an explorer in one piece, with what it imports from ``base.js``."""
    base = re.sub(r"^export ", "", (FOLDER / "base.js").read_text(encoding="utf-8"), flags=re.M)
    own = (FOLDER / f"{name}.js").read_text(encoding="utf-8")
    own = re.sub(r"^import [^;]*;\n", "", own, flags=re.M)
    return base + re.sub(r"^export ", "", own, flags=re.M)


def show(name: str, data: Mapping[str, Any], fallback: Drawing) -> None:
    """Display an explorer in a notebook; see ``Element``. Nothing is shown while grading."""
    if not budget.grading():
        display(Element(name, data, fallback, inline=not budget.static()))
