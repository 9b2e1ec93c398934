"""Helpers for both ends of the agent's socket: the socket's address, and reads of an exact length."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coreason_enclave.ipc.frames import ReadExactly
from coreason_enclave.system import open_descriptor

SOCKET_FILE = "agent.sock"


@contextmanager
def socket_path(folder: Path, name: str = SOCKET_FILE) -> Iterator[str]:
    """Yield a short path to a socket, by way of an open folder descriptor.

    A Unix socket address holds at most 107 bytes; a site's path may be longer.
    """
    with open_descriptor(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        yield f"/proc/self/fd/{descriptor}/{name}"


def exact_reader(stream: socket.socket) -> ReadExactly:
    """Return a function that reads exactly ``count`` bytes, and raises ``EOFError`` if the stream ends early."""

    def read(count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = stream.recv(min(count - len(data), 1 << 20))
            if not chunk:
                raise EOFError("the stream ended within a frame")
            data += chunk
        return bytes(data)

    return read
