"""Checks a site agent's health statement: its signer and its age."""

from __future__ import annotations

from aegis.gateway.identity import PinnedPeer
from coreason_enclave.crypto import KeyRing, open_envelope
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.wire import HEALTH_TYPE, HealthStatement

FRESH_S = 60.0
"""Maximum difference in seconds between a statement's own clock and the gateway's clock, either way."""


def accept_health(envelope: bytes, participant: PinnedPeer, now: float) -> HealthStatement:
    """Open a participant's health statement and return it.

    Raises:
        EnvelopeError: not signed by the participant, about another site, or more than :data:`FRESH_S` away from
            ``now``.
    """
    keys = KeyRing({participant.site_id: participant.public_key})
    statement = HealthStatement.from_payload(open_envelope(envelope, HEALTH_TYPE, keys).payload)
    if statement.site_id != participant.site_id:
        raise EnvelopeError("a health statement about another site", reason=Reason.NOT_ADDRESSED_TO_ME)
    if abs(now - statement.sent_at) > FRESH_S:
        raise EnvelopeError(f"sent {now - statement.sent_at:.0f} s ago by its own clock", reason=Reason.EXPIRED)
    return statement
