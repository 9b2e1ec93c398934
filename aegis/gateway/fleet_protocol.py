"""The part of the fleet protocol that the gateway needs, as an interface.

Why: the gateway does not import Flower. :mod:`aegis.runtimes.flower` implements the interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class NodeRequest:
    """The fields of a node's request.

    Attributes:
        node_id: the sender's claimed node id; None where the protocol carries no id (activation).
        public_key: the node key in the body, if present.
        run_id, object_id: the object that the request asks for or confirms, if any.
        reply_to: id of the message that the request answers, if any.
    """

    node_id: int | None
    public_key: bytes | None = None
    run_id: int | None = None
    object_id: str | None = None
    reply_to: str | None = None


@dataclass(frozen=True)
class Pulled:
    """A message delivered to a node, with the ids of all its objects."""

    run_id: int
    message_id: str
    object_ids: frozenset[str]


@dataclass(frozen=True)
class Pushed:
    """The objects that SuperLink requests from a node after its reply, and the upload session for them."""

    session_id: str
    object_ids: frozenset[str]


@dataclass(frozen=True)
class UploadHead:
    """The header of an uploaded object, read before its content."""

    node_id: int
    run_id: int
    object_id: str


class UploadReader(Protocol):
    """Reads an uploaded object as a stream and withholds bytes until checked."""

    head: UploadHead | None

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes in and return the bytes that may pass. Returns no bytes before ``head`` is known."""
        ...

    def finish(self) -> tuple[str, bytes]:
        """Return the object's upload session and the withheld last bytes."""
        ...


class FleetCodec(Protocol):
    """Decodes fleet requests and replies.

    Every method that decodes a request raises :class:`aegis.errors.RequestRefused` (malformed) for:

    - unknown fields;
    - bytes other than the canonical encoding;
    - requests that a node never sends.

    Attributes:
        key_header: lower-case name of the header that carries a node's public key (base64).
        request_headers, response_headers: lower-case names of the headers that pass.
    """

    key_header: bytes
    request_headers: frozenset[bytes]
    response_headers: frozenset[bytes]

    def request(self, name: str, body: bytes) -> NodeRequest:
        """Decode a request other than an upload; ``name`` is the last part of its path."""
        ...

    def upload(self, length: int) -> UploadReader:
        """Return a reader for an upload request of ``length`` bytes."""
        ...

    def activated(self, body: bytes) -> int:
        """Return the node id from an activation reply.

        Raises:
            ValueError: an unreadable reply; :meth:`pulled` and :meth:`pushed` raise the same error.
        """
        ...

    def pulled(self, body: bytes) -> Pulled | None:
        """Return the message in a fetch reply, or None if the reply carries no message."""
        ...

    def pushed(self, body: bytes) -> Pushed:
        """Return the objects that SuperLink requests after a node's reply."""
        ...
