"""Attacks on a gateway, as a process of its own: ``python -m tests.attacked.attackers KIND PORT COUNT [SITE-FOLDER]``.

Every attack keeps ``COUNT`` connections and replaces the ones that the gateway ended, a few hundred a second: what one
idle laptop can do. The process says ``ready`` once it has opened that many, and ends with its parent.

=============== ======================================================================================
kind            each connection
=============== ======================================================================================
plain           sends nothing
half-hello      sends half a TLS hello
whole-hello     sends a whole TLS hello, and nothing more
certificate     finishes its handshake with the certificate of ``SITE-FOLDER``, and sends nothing more
half-head       does that, and sends half a request's head
=============== ======================================================================================
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import ssl
import sys
import time
from pathlib import Path

PER_TURN = 15
TURN_S = 0.05
HALF_HEAD = b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: gateway\r\nx-filler: "


def hello() -> bytes:
    """A TLS 1.3 client hello."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="gateway.example")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


class Attack:
    """Keeps ``count`` connections of one kind."""

    def __init__(self, kind: str, port: int, count: int, folder: Path | None) -> None:
        self._kind, self._port, self._count = kind, port, count
        self._folder = folder
        self._selector = selectors.DefaultSelector()
        self._hello = hello()
        self._context = None if folder is None else client_context(folder)
        self.opened = 0
        self.held = 0

    def turn(self) -> None:
        """Notice what was ended, and open anew."""
        for key, _ in self._selector.select(0):
            self._notice(key.fileobj)  # type: ignore[arg-type]
        for _ in range(min(PER_TURN, self._count - self.held)):
            with contextlib.suppress(OSError):
                self._open()

    def _open(self) -> None:
        connection = socket.create_connection(("127.0.0.1", self._port), timeout=5)
        self.opened += 1
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_hostname="localhost")
            connection.sendall(self._first_bytes())
        except OSError:
            connection.close()
            raise
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ)
        self.held += 1

    def _first_bytes(self) -> bytes:
        if self._kind == "half-hello":
            return self._hello[: len(self._hello) // 2]
        return {"whole-hello": self._hello, "half-head": HALF_HEAD}.get(self._kind, b"")

    def _notice(self, connection: socket.socket) -> None:
        try:
            ended = connection.recv(1 << 14) == b""
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            ended = True
        if ended:
            self._selector.unregister(connection)
            connection.close()
            self.held -= 1


def client_context(folder: Path) -> ssl.SSLContext:
    """TLS with a site's own certificate."""
    from coreason_enclave.site.connection import load_connection

    context = load_connection(folder).tls()
    context.check_hostname = False
    return context


def main() -> None:
    kind, port, count, *folder = sys.argv[1:]
    attack, parent = Attack(kind, int(port), int(count), Path(folder[0]) if folder else None), os.getppid()
    said = False
    while os.getppid() == parent:
        attack.turn()
        if not said and (attack.opened >= attack._count or attack.held >= attack._count):
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            said = True
        time.sleep(TURN_S)


if __name__ == "__main__":
    main()
