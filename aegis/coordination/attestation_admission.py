"""Admits a site's attestation by numbered checks, each with its reason code.

1. The message stays within the size cap and holds nothing but the envelope.
2. The registered key signed the envelope, over an attestation document.
3. The document names the asked site, the registered key, this very job, the issued challenge, and a usable encryption
   key.
4. The challenge is open. This check uses up the challenge, whatever the last check finds.
5. Appraisal accepts the evidence: authentic, acceptable, and bound to all of these values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aegis.errors import UpdateRefused
from coreason_enclave.attestation import Appraiser, Binding, Challenges, Role, parse_evidence
from coreason_enclave.crypto import MAX_ENVELOPE_BYTES, KeyRing, open_envelope, require_receiver
from coreason_enclave.errors import AttestationError, EnclaveError, Reason
from coreason_enclave.schemas import AttestationReport
from coreason_enclave.wire import ATTESTATION_TYPE, AttestationRequest, LogSeen, SealedMessage, SiteAttestation


@dataclass(frozen=True)
class AdmittedAttestation:
    """A site's attestation report, its challenge to the coordinator, and the log checkpoint that it last saw."""

    report: AttestationReport
    challenge: str
    log_seen: LogSeen | None


def admit_attestation(
    message: SealedMessage,
    request: AttestationRequest,
    public_key: str,
    *,
    challenges: Challenges,
    appraiser: Appraiser,
    now: float,
) -> AdmittedAttestation:
    """Check the answer to ``request`` from the site with the registered Ed25519 key ``public_key`` (hex).

    Raises:
        UpdateRefused: with the reason code of the first failed check.
        ConfigurationError: this host cannot use up challenges.
    """
    with _refusals_of(request.site_id):
        attestation = _checked(message, request, public_key)  # 1, 2, 3
    _redeem(challenges, request, now)  # 4
    with _refusals_of(request.site_id):
        binding = Binding(
            Role.SITE, request.nonce, public_key, attestation.kem_key, request.site_id, request.job_digest
        )
        report = appraiser.appraise(parse_evidence(attestation.evidence), binding, int(now))  # 5
    return AdmittedAttestation(report, attestation.challenge, attestation.log_seen)


@contextmanager
def _refusals_of(site: str) -> Iterator[None]:
    """Turn any error over a site's answer into a refusal of that site, so that the round of other sites goes on."""
    try:
        yield
    except EnclaveError as error:
        raise _refused(site, error) from error
    except Exception as error:
        message = f"the attestation of {site} could not be checked: {type(error).__name__}: {error}"
        raise UpdateRefused(site, Reason.INTERNAL, message) from error


def _redeem(challenges: Challenges, request: AttestationRequest, now: float) -> None:
    """Use up the challenge. A folder that this host cannot write to is no fault of the site, hence no refusal."""
    try:
        challenges.redeem(request.nonce, request.site_id, now)
    except AttestationError as error:
        raise _refused(request.site_id, error) from error


def _refused(site: str, error: EnclaveError) -> UpdateRefused:
    return UpdateRefused(site, error.reason, f"the attestation of {site} is refused: {error}")


def _checked(message: SealedMessage, request: AttestationRequest, public_key: str) -> SiteAttestation:
    _require(len(message.envelope) <= MAX_ENVELOPE_BYTES, Reason.OVERSIZED, "the envelope is too large")  # 1
    _require(not message.arrays and not message.roll_call, Reason.OVERSIZED, "the message has more than an envelope")
    keys = KeyRing({request.site_id: public_key})
    attestation = SiteAttestation.from_payload(open_envelope(message.envelope, ATTESTATION_TYPE, keys).payload)  # 2
    _require(attestation.site_id == request.site_id, Reason.UNKNOWN_SITE, "the attestation names another site")  # 3
    _require(attestation.public_key == public_key, Reason.UNKNOWN_SIGNER, "the attestation names another key")
    same_job = (attestation.job_id, attestation.job_digest) == (request.job_id, request.job_digest)
    _require(same_job, Reason.WRONG_DIGEST, "the attestation is for another job")
    _require(attestation.nonce == request.nonce, Reason.WRONG_NONCE, "the attestation answers another challenge")
    require_receiver(attestation.kem_key)
    return attestation


def _require(condition: bool, reason: Reason, message: str) -> None:
    if not condition:
        raise EnclaveError(message, reason=reason)
