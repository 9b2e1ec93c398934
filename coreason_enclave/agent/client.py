"""A client of a running agent: what carries sealed bytes to it, and what asks how it is."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from coreason_enclave.agent.frames import encode_frame, read_frame
from coreason_enclave.agent.streams import exact_reader, socket_path
from coreason_enclave.errors import ConfigurationError, EnclaveError, EnvelopeError, Reason
from coreason_enclave.updates import SealedMessage

__all__ = ["AgentClient"]


class AgentClient:
    """A client of the agent that runs for the site in ``folder``: one connection a request.

    It is a :class:`Handler`: carriers (and ``coreason-enclave status``) hand it what they carry.
    """

    def __init__(self, folder: Path, *, timeout_s: float | None = None) -> None:
        self._folder, self._timeout_s = folder, timeout_s

    def run(self, message: SealedMessage) -> SealedMessage:
        """Have an order answered. Raises :class:`EnclaveError` with the agent's reason."""
        return self._sealed("run", message)

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """Have an invitation answered. Raises :class:`EnclaveError` with the agent's reason."""
        return self._sealed("enrol", message)

    def attest(self, message: SealedMessage) -> SealedMessage:
        """Have a challenge answered. Raises :class:`EnclaveError` with the agent's reason."""
        return self._sealed("attest", message)

    def status(self) -> dict[str, Any]:
        """What the agent says of itself."""
        header, _ = self._asked(encode_frame({"kind": "status"}))
        status = header.get("status")
        if not isinstance(status, dict):
            raise EnvelopeError("the agent did not answer with a status")
        return status

    def _sealed(self, kind: str, message: SealedMessage) -> SealedMessage:
        _, answer = self._asked(encode_frame({"kind": kind}, message))
        if answer is None:
            raise EnvelopeError("the agent did not answer with a sealed message")
        return answer

    def _asked(self, frame: bytes) -> tuple[dict[str, Any], SealedMessage | None]:
        try:
            with self._connected() as stream:
                stream.sendall(frame)
                header, message = read_frame(exact_reader(stream))
        except (OSError, EOFError) as error:
            raise EnclaveError(f"the agent ended the conversation: {error}", reason=Reason.TRANSPORT) from error
        if "refused" in header:
            raise EnclaveError(f"the agent refused: {header['refused']}", reason=_reason(header["refused"]))
        return header, message

    def _connected(self) -> socket.socket:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(self._timeout_s)
        try:
            with socket_path(self._folder) as path:
                stream.connect(path)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            stream.close()
            raise ConfigurationError(f"no agent runs for {self._folder}: start coreason-enclave agent") from error
        except BaseException:
            stream.close()
            raise
        return stream


def _reason(text: object) -> Reason:
    try:
        return Reason(str(text))
    except ValueError:
        return Reason.INTERNAL
