"""Files that are there whole or not at all, whenever the power goes: the one place where they are written.

A file is written under another name, made durable, and then given its own: whoever reads meanwhile sees the file before
or the file after. Until its folder is durable, too, a crash may bring back the one before.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ORDINARY", "PRIVATE", "create_file", "replace_file", "sync_folder", "write_whole"]

ORDINARY = 0o666
"""What the process's umask leaves of it."""
PRIVATE = 0o600


def replace_file(path: Path, data: bytes, *, mode: int = ORDINARY) -> None:
    """Write ``path``, or replace it; durable when this returns. Raises :class:`OSError`; the old file stays then."""
    write_whole(path, data, mode=mode)
    sync_folder(path.parent)


def write_whole(path: Path, data: bytes, *, mode: int = ORDINARY) -> None:
    """:func:`replace_file` but for the folder, whose own ``fsync`` several files may share."""
    with _written_beside(path, data, mode) as temporary:
        temporary.replace(path)


def create_file(path: Path, data: bytes, *, mode: int = ORDINARY) -> None:
    """Write ``path``, durable when this returns, and never over one that exists: :class:`FileExistsError`."""
    with _written_beside(path, data, mode) as temporary:
        path.hardlink_to(temporary)  # fails where it exists: two writers never swap a file under each other
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _written_beside(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """A durable file with ``data`` next to ``path``; what is left of it in the end is removed."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
