"""Unix sockets in folders with a path longer than a socket's address (108 bytes on Linux)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_MAX_BYTES = 100


@contextlib.contextmanager
def short_name(path: Path) -> Iterator[str]:
    """Yield a name to bind or connect to: the path, or if too long, the folder as an open descriptor (Linux)."""
    if len(os.fsencode(path)) <= _MAX_BYTES:
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)
