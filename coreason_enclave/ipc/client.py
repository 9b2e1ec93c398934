"""Client of a running agent, for transports that forward sealed bytes and for status queries."""

from __future__ import annotations

import select
import socket
import time
from pathlib import Path
from typing import Any

from coreason_enclave.errors import ConfigurationError, EnclaveError, EnvelopeError, Reason, TrainingAborted
from coreason_enclave.ipc.frames import encode_frame, read_frame
from coreason_enclave.ipc.streams import exact_reader, socket_path
from coreason_enclave.wire import Aborted, RequestKind, SealedMessage, never

_LOOK_S = 0.1
"""Seconds until the client notices an abort, at most."""


class AgentClient:
    """A client of the agent that serves the site in ``folder``; opens one connection per request.

    Implements :class:`Handler`, so transports (and ``coreason-enclave status``) use the agent like a session.
    """

    def __init__(self, folder: Path, *, timeout_s: float | None = None) -> None:
        self._folder, self._timeout_s = folder, timeout_s

    def handle(self, kind: RequestKind, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage | None:
        """See :class:`Handler`. Raises :class:`EnclaveError` with the agent's reason.

        Once ``aborted`` returns True, the client hangs up, and the agent abandons an order between two steps.
        """
        _, answer = self._request(encode_frame({"kind": kind.value}, message), aborted)
        if (answer is None) != (kind is RequestKind.VALIDATE):
            raise EnvelopeError("the agent's reply does not fit this kind of request")
        return answer

    def status(self) -> dict[str, Any]:
        """Return the agent's status."""
        header, _ = self._request(encode_frame({"kind": "status"}))
        status = header.get("status")
        if not isinstance(status, dict):
            raise EnvelopeError("the agent's reply is not a status")
        return status

    def _request(self, frame: bytes, aborted: Aborted = never) -> tuple[dict[str, Any], SealedMessage | None]:
        try:
            with self._connected() as stream:
                stream.sendall(frame)
                self._await_answer(stream, aborted)
                header, message = read_frame(exact_reader(stream))
        except (OSError, EOFError) as error:
            raise EnclaveError(f"the agent closed the connection: {error}", reason=Reason.TRANSPORT) from error
        if "refused" in header:
            raise EnclaveError(f"the agent refused: {header['refused']}", reason=_reason(header["refused"]))
        return header, message

    def _await_answer(self, stream: socket.socket, aborted: Aborted) -> None:
        """Return once the answer is readable.

        Raises:
            TrainingAborted: ``aborted`` returned True first. TimeoutError: no answer within ``timeout_s``.
        """
        answered = select.poll()
        answered.register(stream, select.POLLIN)
        end = None if self._timeout_s is None else time.monotonic() + self._timeout_s
        while not answered.poll(_LOOK_S * 1000):
            if aborted():
                raise TrainingAborted("the order was given up while the agent was working on it")
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"no answer within {self._timeout_s:g} s")

    def _connected(self) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(self._timeout_s)
        try:
            with socket_path(self._folder) as path:
                stream.connect(path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            stream.close()
            message = f"no agent is running for {self._folder}: start coreason-enclave agent"
            raise ConfigurationError(message, reason=Reason.TRANSPORT) from error  # the agent may be restarting
        except BaseException:
            stream.close()
            raise
        return stream


def _reason(text: object) -> Reason:
    try:
        return Reason(str(text))
    except ValueError:
        return Reason.INTERNAL
