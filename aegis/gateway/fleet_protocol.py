"""What the gateway has to know of the fleet protocol, without knowing Flower: a port that the Flower room fills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["FleetCodec", "NodeRequest", "Pulled", "Pushed", "UploadHead", "UploadReader"]


@dataclass(frozen=True)
class NodeRequest:
    """What one request of a node says.

    Attributes:
        node_id: whom it claims to come from; None where the protocol does not say it (activation).
        public_key: the node key in its body, where it has one.
        run_id, object_id: the object that it asks for or confirms, where it does.
        reply_to: the message that it answers, where it answers one.
    """

    node_id: int | None
    public_key: bytes | None = None
    run_id: int | None = None
    object_id: str | None = None
    reply_to: str | None = None


@dataclass(frozen=True)
class Pulled:
    """A message that a node was given, and every object that belongs to it."""

    run_id: int
    message_id: str
    object_ids: frozenset[str]


@dataclass(frozen=True)
class Pushed:
    """The objects that a node is asked to send after its answer, and the session to send them in."""

    session_id: str
    object_ids: frozenset[str]


@dataclass(frozen=True)
class UploadHead:
    """What an uploaded object says of itself before its content comes."""

    node_id: int
    run_id: int
    object_id: str


class UploadReader(Protocol):
    """Reads one uploaded object while it passes, keeping back what has not been checked."""

    head: UploadHead | None

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes in and give out those that may be passed on: none before ``head`` is known."""
        ...

    def finish(self) -> tuple[str, bytes]:
        """The session that the object belongs to, and the bytes that were kept back for it."""
        ...


class FleetCodec(Protocol):
    """Reads requests and answers. Every method that reads a request raises :class:`aegis.errors.RequestRefused`
    (malformed) for unknown fields, for bytes that are not the one canonical encoding, and for what is not a request
    that a node sends.

    Attributes:
        key_header: lower-case name of the header that carries a node's public key (base64).
        request_headers, response_headers: lower-case names of the headers that pass.
    """

    key_header: bytes
    request_headers: frozenset[bytes]
    response_headers: frozenset[bytes]

    def request(self, name: str, body: bytes) -> NodeRequest:
        """Read a request other than an upload by the last part of its path."""
        ...

    def upload(self, length: int) -> UploadReader:
        """A reader for an uploaded object's request of ``length`` bytes."""
        ...

    def activated(self, body: bytes) -> int:
        """The node id that an activation gave; an unreadable answer raises ``ValueError``, as below."""
        ...

    def pulled(self, body: bytes) -> Pulled | None:
        """The message that a fetch gave, if any."""
        ...

    def pushed(self, body: bytes) -> Pushed:
        """What a node is asked for after its answer."""
        ...
