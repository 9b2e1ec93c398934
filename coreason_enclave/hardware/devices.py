"""File-system operations for collectors, behind an interface so that tests can use a fake device tree."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Protocol

from coreason_enclave.system import open_descriptor

MAX_ANSWER_BYTES = 64 * 1024
"""Maximum size of a device's answer, in bytes."""


class DeviceTree(Protocol):
    """A tree of files and folders. Paths start at the root, without the leading slash. Failures raise ``OSError``."""

    def exists(self, path: str) -> bool: ...

    def names(self, path: str) -> list[str]:
        """Return the names of a folder's entries."""
        ...

    def mkdir(self, path: str) -> None: ...

    def rmdir(self, path: str) -> None:
        """Remove an entry; the kernel removes the attributes inside."""
        ...

    def read(self, path: str) -> bytes:
        """Return the whole file, opened once, at most :data:`MAX_ANSWER_BYTES`."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write ``data`` to an existing file in one system call; an error on close counts as a failure."""
        ...


class HostDevices:
    """The device tree of the current host.

    Args:
        root: Root folder, for tests only; the product keeps the default.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def exists(self, path: str) -> bool:
        return os.path.exists(self._root / path)  # noqa: PTH110 - False, not an error, below a folder that is closed to us

    def names(self, path: str) -> list[str]:
        return sorted(os.listdir(self._root / path))  # noqa: PTH208 - names, not paths

    def mkdir(self, path: str) -> None:
        (self._root / path).mkdir(mode=0o700)

    def rmdir(self, path: str) -> None:
        (self._root / path).rmdir()

    def read(self, path: str) -> bytes:
        with open_descriptor(self._root / path, os.O_RDONLY) as descriptor:
            return _read_all(descriptor, path)

    def write(self, path: str, data: bytes) -> None:
        # Never creates a missing device. configfs commits on close, and may fail there.
        with open_descriptor(self._root / path, os.O_WRONLY) as descriptor:
            written = os.write(descriptor, data)
        if written != len(data):
            raise OSError(errno.EIO, f"the device accepted {written} of {len(data)} bytes", f"/{path}")


def _read_all(descriptor: int, path: str) -> bytes:
    answer = b""
    while part := os.read(descriptor, MAX_ANSWER_BYTES):
        answer += part
        if len(answer) > MAX_ANSWER_BYTES:
            raise OSError(errno.EFBIG, f"the answer is longer than {MAX_ANSWER_BYTES} bytes", f"/{path}")
    return answer
