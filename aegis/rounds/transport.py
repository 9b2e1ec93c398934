"""The port through which a coordinator sends and hears, whatever carries the messages.

A carrier is not trusted with anything but carrying: it may lose, delay, repeat or invent messages.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.wire.updates import SealedMessage

__all__ = [
    "Content",
    "DeliveryFailure",
    "InboundMessage",
    "OutboundMessage",
    "RequestKind",
    "SiteRefusal",
    "Transport",
    "TransportFailed",
]


class TransportFailed(Exception):
    """The carrier itself could not be reached, or broke: nothing is known of what it was given."""


class RequestKind(StrEnum):
    """What a message asks of a site."""

    TRAIN = "train"
    ENROL = "enrol"
    ATTEST = "attest"
    WITNESS = "witness"


@dataclass(frozen=True)
class OutboundMessage:
    """One message to one site's node. ``group`` names what it belongs to; it need not be delivered after ``ttl_s``."""

    site: str
    node_id: int
    request_kind: RequestKind
    message: SealedMessage
    group: str
    ttl_s: float


@dataclass(frozen=True)
class SiteRefusal:
    """The site said no, by a reason code."""

    reason: Reason


@dataclass(frozen=True)
class DeliveryFailure:
    """The carrier says that a message did not reach its node, or an answer not the carrier."""

    why: str


Content = SealedMessage | SiteRefusal | EnvelopeError
"""What came of a site: something sealed, a refusal, or bytes that are no message of ours."""


@dataclass(frozen=True)
class InboundMessage:
    """What the carrier brought: in reply to which message, from which node."""

    message_id: str
    node_id: int
    content: Content | DeliveryFailure


class Transport(Protocol):
    """Sends, and brings replies. Both may raise :class:`TransportFailed`, and what was sent may have been sent."""

    def push(self, outbound_messages: Sequence[OutboundMessage]) -> Sequence[str | None]:
        """Send; one message id for each parcel in order, None for one that was not taken."""
        ...

    def pull(self, message_ids: Collection[str]) -> Sequence[InboundMessage]:
        """The replies that are in, each once."""
        ...

    def wait(self, seconds: float) -> None:
        """Return after ``seconds``, or earlier if a reply may have come in."""
        ...
