"""A coordinator that attests with one site, whatever carries its messages, and then sends it an order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aegis.rounds.attestation_handshake import CoordinatorHandshake
from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.challenges import FileChallenges
from coreason_enclave.attestation.endorsements import NoEndorsements
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.schemas import FederationJob, Profile
from coreason_enclave.wire.documents import ATTESTATION_REQUEST_TYPE
from coreason_enclave.wire.updates import SealedMessage

Attest = Callable[[SealedMessage], SealedMessage]


@dataclass(frozen=True)
class ProvingCoordinator:
    """The product's own handshake under a test federation's key; simulated evidence both ways."""

    federation: Any
    folder: Path

    def handshake(self) -> CoordinatorHandshake:
        appraiser = Appraiser(AttestationPolicy.simulated_only(), Profile.DEVELOPMENT, NoEndorsements())
        challenges = FileChallenges(self.folder / "challenges")
        return CoordinatorHandshake(
            self.federation.signer, appraiser, SimulatedAttester(), challenges, self.federation.clock
        )

    def order(self, job: FederationJob, site: Any, attest: Attest, **changes: Any) -> SealedMessage:
        """An order that ``site`` can decrypt, once it has proved itself through ``attest``."""
        handshake = self.handshake()
        request = handshake.request(site.config.site_id, job)
        sealed = seal(ATTESTATION_REQUEST_TYPE, request.canonical(), self.federation.signer)
        attested = handshake.receive(site.config.site_id, site.public_key, attest(SealedMessage(sealed)))
        opened = self.federation.order(job, coordinator=attested.identity, attestation=attested.result, **changes)
        return SealedMessage(
            opened.envelope, handshake.release(attested, opened.arrays, opened.envelope), opened.roll_call
        )
