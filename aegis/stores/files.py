"""Files that are there whole or not at all, whenever the power goes."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

__all__ = ["replace_file", "sync_folder", "write_whole"]


def replace_file(path: Path, data: bytes) -> None:
    """Write ``path`` whole or not at all: temporary file, ``fsync``, rename, ``fsync`` of the folder."""
    write_whole(path, data)
    sync_folder(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """:func:`replace_file` but for the folder, whose own ``fsync`` several files may share."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
