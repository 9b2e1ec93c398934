"""The few things that a collector does with a file system, behind a port, so that a fake device tree can stand in."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Protocol

__all__ = ["MAX_ANSWER_BYTES", "DeviceTree", "HostDevices"]

MAX_ANSWER_BYTES = 64 * 1024
"""No device answers with more."""


class DeviceTree(Protocol):
    """Files and folders by their path from the root, without the leading slash. Failures are ``OSError``."""

    def exists(self, path: str) -> bool: ...

    def names(self, path: str) -> list[str]:
        """What is in a folder."""
        ...

    def mkdir(self, path: str) -> None: ...

    def rmdir(self, path: str) -> None:
        """Remove an entry; the attributes in it are the kernel's and go with it."""
        ...

    def read(self, path: str) -> bytes:
        """All of a file, opened once, at most :data:`MAX_ANSWER_BYTES`."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Put ``data`` into a file that exists, in one system call; what closing it says counts too."""
        ...


class HostDevices:
    """The devices of the host that this runs on.

    Args:
        root: another root is for tests alone; the product passes none.
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
        descriptor = os.open(self._root / path, os.O_RDONLY)
        try:
            return _read_all(descriptor, path)
        finally:
            os.close(descriptor)

    def write(self, path: str, data: bytes) -> None:
        descriptor = os.open(self._root / path, os.O_WRONLY)  # never creates: a device is there or is not
        try:
            written = os.write(descriptor, data)
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)  # configfs commits here
        if written != len(data):
            raise OSError(errno.EIO, f"{written} of {len(data)} bytes were taken", f"/{path}")


def _read_all(descriptor: int, path: str) -> bytes:
    answer = b""
    while part := os.read(descriptor, MAX_ANSWER_BYTES):
        answer += part
        if len(answer) > MAX_ANSWER_BYTES:
            raise OSError(errno.EFBIG, f"the answer is longer than {MAX_ANSWER_BYTES} bytes", f"/{path}")
    return answer
