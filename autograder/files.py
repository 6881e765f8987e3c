"""Files that are there whole or not at all, whenever this process is killed."""

from __future__ import annotations

import os
import threading
from pathlib import Path

_UNFINISHED = ".unfinished"


def keep(path: Path, content: str | bytes) -> None:
    """Writes a file, text as UTF-8, over one that is there; makes its folder where there is none.

    Raises:
        OSError: the place cannot be written to; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    maker = f"{os.getpid()}-{threading.get_ident()}"
    unfinished = path.with_name(f".{path.name}.{maker}{_UNFINISHED}")
    try:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Removes what :func:`keep` was writing when an earlier process was killed."""
    for left in folder.rglob(f".*{_UNFINISHED}"):
        left.unlink(missing_ok=True)
