"""The coordinator's half of mutual attestation: challenges sites, stores their results, proves itself to them.

Only the open challenges outlive the process. A restarted coordinator has new keys, and attests with each site again
before sending that site a model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aegis.coordination import AdmittedAttestation, admit_attestation
from coreason_enclave.attestation import CHALLENGE_S, Appraiser, Attester, Binding, Challenges, Role, seal_result
from coreason_enclave.crypto import KemKey, Signer, encrypt_to, info_for
from coreason_enclave.errors import AttestationError, Reason
from coreason_enclave.schemas import AttestationReport, FederationJob
from coreason_enclave.system import CLOCK_SKEW_S
from coreason_enclave.wire import COORDINATOR, AttestationRequest, CoordinatorIdentity, LogSeen, SealedMessage


@dataclass(frozen=True)
class Attested:
    """An attested site: its report, the report as a signed result, and the coordinator's identity to show to the site.

    ``log_seen``: the checkpoint of this job's log that the site last accepted, by its own statement.
    """

    report: AttestationReport
    result: str
    identity: CoordinatorIdentity
    log_seen: LogSeen | None


@dataclass
class CoordinatorHandshake:
    """Attests with a coordinator's sites, and encrypts models for attested sites only.

    Args:
        signer: signs results. appraiser: decides whether a site's evidence is acceptable. challenges: durable store.
        attester: collects this host's evidence. None: the host has none, which sites' policies may refuse.
        clock: returns Unix seconds.
    """

    signer: Signer
    appraiser: Appraiser
    attester: Attester | None
    challenges: Challenges
    clock: Callable[[], float] = time.time
    _key: KemKey = field(default_factory=KemKey.generate, repr=False)
    _requests: dict[str, AttestationRequest] = field(default_factory=dict)
    _attested: dict[str, Attested] = field(default_factory=dict)

    def request(self, site: str, job: FederationJob) -> AttestationRequest:
        """Return a new challenge to ``site``, durable on return. It replaces an earlier challenge to the site."""
        now = self.clock()
        request = AttestationRequest(
            site_id=site,
            profile=self.appraiser.profile,
            job_id=job.job_id,
            job_digest=job.digest(),
            nonce=self.challenges.issue(site, now),
            issued_at=int(now),
            expires_at=int(now) + CHALLENGE_S,
        )
        self._requests[site] = request
        return request

    def receive(self, site: str, public_key: str, message: SealedMessage) -> Attested:
        """Check and appraise a site's answer to its last challenge.

        Raises:
            UpdateRefused: with the reason code of the first failed check; the site counts as not attested.
            AttestationError: this host cannot prove itself to the site.
        """
        request, now = self._requests[site], self.clock()
        self._attested.pop(site, None)
        proved = admit_attestation(
            message, request, public_key, challenges=self.challenges, appraiser=self.appraiser, now=now
        )
        result = seal_result(proved.report, self.signer)
        attested = Attested(proved.report, result, self._identity(proved), proved.log_seen)
        self._attested[site] = attested
        return attested

    def attested(self, site: str, job: FederationJob) -> Attested | None:
        """Return the attestation of ``site`` for ``job``, or None if the site must attest again."""
        attestation = self._attested.get(site)
        if attestation is None or attestation.report.job_digest != job.digest():
            return None
        known_since = attestation.report.appraised_at - CLOCK_SKEW_S  # a larger step back voids the result
        return attestation if known_since <= self.clock() < attestation.report.renewal_due else None

    def forget(self, site: str) -> None:
        """Drop the site's attestation, so that the site must attest again before it receives anything."""
        self._attested.pop(site, None)

    def release(self, attested: Attested, model: bytes, envelope: bytes) -> bytes:
        """Return the model, encrypted to the site's attested key. A site gets a model in no other way.

        Raises:
            AttestationError: the result has expired.
        """
        if self.clock() >= attested.report.expires_at:
            raise AttestationError("the attestation result has expired", reason=Reason.ATTESTATION_REQUIRED)
        return encrypt_to(attested.report.kem_key, model, info_for("model", envelope))

    def decrypt_update(self, message: SealedMessage) -> bytes:
        """Return an update's decrypted arrays; raise :class:`EnvelopeError` on failure."""
        return self._key.decrypt(message.arrays, info_for("update", message.envelope))

    def _identity(self, proved: AdmittedAttestation) -> CoordinatorIdentity:
        """Collect evidence over the site's own challenge, which fits no other site and no other moment."""
        evidence = None
        if self.attester is not None:
            binding = Binding(
                Role.COORDINATOR,
                proved.challenge,
                self.signer.public_hex,
                self._key.public_hex,
                COORDINATOR,
                proved.report.job_digest,
            )
            evidence = _proof(self.attester, binding.context())
        return CoordinatorIdentity(kem_key=self._key.public_hex, challenge=proved.challenge, evidence=evidence)


def _proof(attester: Attester, context: bytes) -> dict[str, Any]:
    """Return this host's evidence in JSON types. An attester's crash counts as a refusal to attest."""
    try:
        return attester.produce(context).model_dump(mode="json")
    except AttestationError:
        raise
    except Exception as error:
        message = f"evidence could not be collected: {type(error).__name__}: {error}"
        raise AttestationError(message, reason=Reason.INTERNAL) from error
