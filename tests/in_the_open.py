"""Sites whose models and updates travel unencrypted, for tests that look at them; everything else is as it is."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from coreason_enclave.handshake import Released, SiteHandshake
from coreason_enclave.orders import RoundOrder

KEM_KEY = "ee" * 32


class OpenHandshake(SiteHandshake):
    """Believes that both ends attested, and encrypts nothing."""

    def release(self, order: RoundOrder, envelope: bytes, ciphertext: bytes, coordinator_key: str) -> Released:
        now = int(self.clock())
        return Released(ciphertext, KEM_KEY, now, now + 600)

    def conceal(self, order: RoundOrder, envelope: bytes, payload: bytes) -> bytes:
        return payload


def in_the_open(site: Any) -> Any:
    """The opened site, with such a handshake."""
    closed = site.session.handshake
    handshake = OpenHandshake(**{field.name: getattr(closed, field.name) for field in fields(closed)})
    return replace(site, session=replace(site.session, handshake=handshake))
