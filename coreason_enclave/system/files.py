"""Writes files atomically and durably, in one place: after a power loss, a file exists whole or not at all.

Each write creates a temporary file, makes the file durable, and then renames it. Concurrent readers see the old file or
the new file. Until the folder is also durable, a crash may bring back the old file. The module also holds the one file
lock: the operating system frees it when its holder dies.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ORDINARY = 0o666
"""The mode before the process's umask."""
PRIVATE = 0o600


def replace_file(path: Path, data: bytes, *, mode: int = ORDINARY) -> None:
    """Write or replace ``path``, durable on return. Raises :class:`OSError`, and the old file then stays."""
    write_whole(path, data, mode=mode)
    sync_folder(path.parent)


def write_whole(path: Path, data: bytes, *, mode: int = ORDINARY) -> None:
    """Write as :func:`replace_file` does, without syncing the folder: several files may share one folder ``fsync``."""
    with _temporary_file(path, data, mode) as temporary:
        temporary.replace(path)


def create_file(path: Path, data: bytes, *, mode: int = ORDINARY) -> None:
    """Write ``path``, durable on return, or raise :class:`FileExistsError` if ``path`` exists."""
    with _temporary_file(path, data, mode) as temporary:
        path.hardlink_to(temporary)  # fails if the name exists, so two writers never replace each other's file
    sync_folder(path.parent)


def publish(staging: Path, path: Path) -> None:
    """Give a finished file or folder its final name; readers see nothing, or the whole.

    The name is durable on return; the content is as durable as its writer made it.

    Args:
        staging: the finished file or folder, in the same file system.
        path: the final name: free, or an empty folder.

    Raises:
        OSError: ``path`` is a folder that holds something; ``staging`` then stays.
    """
    staging.rename(path)
    sync_folder(path.parent)


@contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """Yield the name of a new file for the body to write, in parts where it is large; then ``path`` is that file.

    If the body fails, ``path`` stays as it was. The file is durable afterwards.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        yield temporary
        with open_descriptor(temporary, os.O_RDONLY) as descriptor:
            os.fsync(descriptor)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def point_link(link: Path, target: str) -> None:
    """Let the symbolic link ``link`` point to ``target``; readers see the former target or the new target."""
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(8)}")
    try:
        temporary.symlink_to(target)
        temporary.replace(link)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    with open_descriptor(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


@contextmanager
def open_descriptor(path: Path, flags: int, mode: int = PRIVATE) -> Iterator[int]:
    """Keep a file descriptor open for the body; see :func:`os.open`. No child process inherits the descriptor."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on ``path`` for the body, and create the file (mode 0600) if it is missing.

    Args:
        wait: wait for another holder. Otherwise the body runs without the lock, and learns so.

    Yields:
        True if the lock is held; False only without ``wait``.
    """
    with open_descriptor(path, os.O_RDWR | os.O_CREAT) as descriptor:
        yield _lock(descriptor, fcntl.LOCK_EX, wait=wait)


def is_locked(path: Path) -> bool:
    """Return True if another process, or another :func:`file_lock`, holds the lock on ``path``."""
    try:
        with open_descriptor(path, os.O_RDWR) as descriptor:
            return not _lock(descriptor, fcntl.LOCK_SH, wait=False)  # shared: two queries do not see each other
    except FileNotFoundError:
        return False


def _lock(descriptor: int, kind: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextmanager
def _temporary_file(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Yield a durable temporary file with ``data`` next to ``path``, and remove the temporary file afterwards."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        error.filename = str(path)  # the reader asked for this file, and never learns of another
        raise
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
