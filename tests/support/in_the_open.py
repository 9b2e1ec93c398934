"""Sites whose models and updates travel unencrypted, for tests that look at them; everything else is as it is."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.binding import Binding, Role
from coreason_enclave.attestation.endorsements import NoEndorsements
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.schemas import Profile
from coreason_enclave.session.handshake import ReleasedModel, SiteHandshake
from coreason_enclave.wire.documents import RoundOrder

KEM_KEY = "ee" * 32


class OpenHandshake(SiteHandshake):
    """Believes that both ends attested, and encrypts nothing."""

    def release(self, order: RoundOrder, envelope: bytes, ciphertext: bytes, coordinator_key: str) -> ReleasedModel:
        now = int(self.clock())
        binding = Binding(Role.SITE, order.nonce, self.signer.public_hex, KEM_KEY, self.site_id, order.job.digest())
        appraiser = Appraiser(AttestationPolicy.simulated_only(), Profile.DEVELOPMENT, NoEndorsements())
        return ReleasedModel(
            ciphertext, appraiser.appraise(SimulatedAttester().produce(binding.context()), binding, now)
        )

    def encrypt_update(self, order: RoundOrder, envelope: bytes, payload: bytes) -> bytes:
        return payload


def in_the_open(site: Any) -> Any:
    """The opened site, with such a handshake."""
    closed = site.session.handshake
    handshake = OpenHandshake(**{field.name: getattr(closed, field.name) for field in fields(closed)})
    return replace(site, session=replace(site.session, handshake=handshake))
