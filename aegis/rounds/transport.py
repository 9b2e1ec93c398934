"""The port through which a coordinator sends requests and receives replies, whatever carries the messages.

The coordinator trusts a transport with delivery alone: a transport may lose, delay, repeat or invent messages.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.wire import RequestKind, SealedMessage


class TransportFailed(Exception):
    """The transport broke or could not be reached, so the fate of its messages is unknown."""


@dataclass(frozen=True)
class OutboundMessage:
    """A message to one site's node. ``group`` names its round or phase; delivery may lapse after ``ttl_s`` seconds."""

    site: str
    node_id: int
    request_kind: RequestKind
    message: SealedMessage
    group: str
    ttl_s: float


@dataclass(frozen=True)
class SiteRefusal:
    """A site's refusal, with a reason code."""

    reason: Reason


@dataclass(frozen=True)
class DeliveryFailure:
    """The transport's report that a message did not reach its node, or that the reply was lost."""

    why: str


Content = SealedMessage | SiteRefusal | EnvelopeError
"""The content of a reply: a sealed message, a refusal, or the error from bytes that form no valid message."""


@dataclass(frozen=True)
class InboundMessage:
    """A message that the transport delivered, with the id of the request it answers and the sender's node."""

    message_id: str
    node_id: int
    content: Content | DeliveryFailure


class Transport(Protocol):
    """Sends messages and delivers replies. A :class:`TransportFailed` from either leaves open what was sent."""

    def push(self, outbound_messages: Sequence[OutboundMessage]) -> Sequence[str | None]:
        """Send the messages; return a message id for each in order, or None for a message not taken."""
        ...

    def pull(self, message_ids: Collection[str]) -> Sequence[InboundMessage]:
        """Return the replies that have arrived, each once."""
        ...

    def wait(self, seconds: float) -> None:
        """Return after ``seconds``, or earlier if a reply may have arrived."""
        ...
