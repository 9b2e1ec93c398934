"""A site agent's sign of life: who signed it, and whether it is fresh."""

from __future__ import annotations

from aegis.gateway.identity import PinnedPeer
from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.wire.documents import HEALTH_TYPE, HealthStatement, parse_health

__all__ = ["FRESH_S", "accept_health"]

FRESH_S = 60.0
"""How far a statement's own clock may be from the gateway's, in seconds, either way."""


def accept_health(envelope: bytes, participant: PinnedPeer, now: float) -> HealthStatement:
    """The statement in an envelope that this very participant sealed lately; raises :class:`EnvelopeError`."""
    keys = KeyRing({participant.site_id: participant.public_key})
    statement = parse_health(open_envelope(envelope, HEALTH_TYPE, keys).payload)
    if statement.site_id != participant.site_id:
        raise EnvelopeError("a health statement about another site", reason=Reason.NOT_ADDRESSED_TO_ME)
    if abs(now - statement.sent_at) > FRESH_S:
        raise EnvelopeError(f"sent {now - statement.sent_at:.0f} s ago by its own clock", reason=Reason.EXPIRED)
    return statement
