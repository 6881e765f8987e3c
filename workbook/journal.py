"""What a notebook that runs tells whoever records it (``workbook.record``): figures, curves, data.

In Jupyter nobody listens, and a note costs nothing.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

# kind ("figure", "training", "data"), facts
Listener = Callable[[str, dict[str, Any]], None]

_listeners: list[Listener] = []


def note(kind: str, **facts: Any) -> None:
    """Tell whoever listens."""
    for listener in _listeners:
        listener(kind, facts)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within this context, ``listener(kind, facts)`` is called for each note."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
