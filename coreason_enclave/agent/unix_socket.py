"""The agent's Unix socket: mode 0600 in the site's folder, a few clients at a time, one frame each way."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coreason_enclave.errors import ConfigurationError, EnclaveError, EnvelopeError
from coreason_enclave.ipc import SOCKET_FILE, encode_frame, exact_reader, read_frame, socket_path
from coreason_enclave.system import publish
from coreason_enclave.wire import Aborted, Handler, RequestKind, SealedMessage

_MAX_CLIENTS = 8
_LINGER_S, _LINGER_BYTES = 1.0, 64 << 20
_UNNAMED = f".{SOCKET_FILE}.new"
_PATIENCE_S = 30.0
"""Time limit for the next bytes of a client's request."""

Status = Callable[[], dict[str, Any]]


@contextmanager
def serving_socket(folder: Path, handler: Handler, status: Status) -> Iterator[None]:
    """Serve ``folder``/agent.sock in threads until the block ends.

    Raises:
        ConfigurationError: the socket cannot be created.
    """
    listener = _bound(folder)
    accepting = threading.Thread(target=_accept_all, args=(listener, handler, status), name="socket", daemon=True)
    accepting.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        listener.close()
        accepting.join()
        (folder / SOCKET_FILE).unlink(missing_ok=True)


def _bound(folder: Path) -> socket.socket:
    """Return a listening socket, restricted to its owner from the moment of creation.

    The socket gets its name once it listens: whoever sees the name can connect. The name may be one that a killed agent
    left behind; a live agent would hold the folder's lock.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    unnamed = folder / _UNNAMED
    before = os.umask(0o177)
    try:
        unnamed.unlink(missing_ok=True)
        with socket_path(folder, _UNNAMED) as path:
            listener.bind(path)
        listener.listen(_MAX_CLIENTS)
        publish(unnamed, folder / SOCKET_FILE)
    except OSError as error:
        listener.close()
        with contextlib.suppress(OSError):
            unnamed.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot listen at {folder / SOCKET_FILE}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return listener


def _accept_all(listener: socket.socket, handler: Handler, status: Status) -> None:
    free = threading.BoundedSemaphore(_MAX_CLIENTS)
    while True:
        free.acquire()
        try:
            client, _ = listener.accept()
        except OSError:  # closed
            return
        threading.Thread(target=_serve, args=(client, handler, status, free), name="client", daemon=True).start()


def _serve(client: socket.socket, handler: Handler, status: Status, free: threading.BoundedSemaphore) -> None:
    try:
        with client:
            client.settimeout(_PATIENCE_S)
            client.sendall(_answer(client, handler, status))
            _drain(client)
    except (OSError, EOFError):
        pass  # the client went away or was too slow
    finally:
        free.release()


def _drain(client: socket.socket) -> None:
    """Read the rest of a refused request: closing earlier would make the kernel drop the answer as well."""
    client.shutdown(socket.SHUT_WR)
    client.settimeout(_LINGER_S)
    left = _LINGER_BYTES
    while left > 0 and (data := client.recv(min(left, 1 << 20))):
        left -= len(data)


def _answer(client: socket.socket, handler: Handler, status: Status) -> bytes:
    try:
        header, message = read_frame(exact_reader(client))
        match header, message:
            case {"kind": "status", **others}, None if not others:
                return encode_frame({"status": status()})
            case {"kind": str(kind), **others}, SealedMessage() if not others:
                answer = handler.handle(_kind(kind), message, aborted=_client_gone(client))
                return encode_frame({}, answer)
        raise EnvelopeError("no such request")
    except EnclaveError as refusal:
        return encode_frame({"refused": refusal.reason.value})


def _kind(text: str) -> RequestKind:
    try:
        return RequestKind(text)
    except ValueError:
        raise EnvelopeError("no such request") from None


def _client_gone(client: socket.socket) -> Aborted:
    """Return a check for a caller that hung up; a caller that has only finished sending still waits for its answer."""
    watched = select.poll()
    watched.register(client, 0)  # a hang-up is always reported
    return lambda: bool(watched.poll(0))
