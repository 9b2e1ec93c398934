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

__all__ = ["Carrier", "CarrierFailed", "Content", "Delivery", "Errand", "Parcel", "SiteRefused", "Undelivered"]


class CarrierFailed(Exception):
    """The carrier itself could not be reached, or broke: nothing is known of what it was given."""


class Errand(StrEnum):
    """What a message asks of a site."""

    TRAIN = "train"
    ENROL = "enrol"
    ATTEST = "attest"
    WITNESS = "witness"


@dataclass(frozen=True)
class Parcel:
    """One message to one site's node. ``group`` names what it belongs to; it need not be delivered after ``ttl_s``."""

    site: str
    node_id: int
    errand: Errand
    message: SealedMessage
    group: str
    ttl_s: float


@dataclass(frozen=True)
class SiteRefused:
    """The site said no, by a reason code."""

    reason: Reason


@dataclass(frozen=True)
class Undelivered:
    """The carrier says that a message did not reach its node, or an answer not the carrier."""

    why: str


Content = SealedMessage | SiteRefused | EnvelopeError
"""What came of a site: something sealed, a refusal, or bytes that are no message of ours."""


@dataclass(frozen=True)
class Delivery:
    """What the carrier brought: in reply to which message, from which node."""

    message_id: str
    node_id: int
    content: Content | Undelivered


class Carrier(Protocol):
    """Sends, and brings replies. Both may raise :class:`CarrierFailed`, and what was sent may have been sent."""

    def push(self, parcels: Sequence[Parcel]) -> Sequence[str | None]:
        """Send; one message id for each parcel in order, None for one that was not taken."""
        ...

    def pull(self, message_ids: Collection[str]) -> Sequence[Delivery]:
        """The replies that are in, each once."""
        ...

    def wait(self, seconds: float) -> None:
        """Return after ``seconds``, or earlier if a reply may have come in."""
        ...
