"""Attestation results on the wire: appraised reports, each signed by its verifier.

A result is bound to the attester's two keys and its job, and expires after at most ten minutes. A result states the
conclusion of one verifier; a party that does not trust the verifier asks for evidence.
"""

from __future__ import annotations

from coreason_enclave.attestation.attestation_policy import LIFETIME_S
from coreason_enclave.crypto import KeyRing, Signer, open_envelope, seal
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.schemas import AttestationReport

RESULT_TYPE = "application/vnd.aegis.attestation-result.v1+json"


def seal_result(report: AttestationReport, signer: Signer) -> str:
    """Return the report as an envelope signed by the verifier (text)."""
    return seal(RESULT_TYPE, report.canonical(), signer).decode()


def open_result(envelope: str, verifier_key: str) -> AttestationReport:
    """Return the report that ``verifier_key`` (Ed25519, hex) signed; raises :class:`EnvelopeError`.

    The caller checks subject, keys, job and expiry.
    """
    payload = open_envelope(envelope.encode(), RESULT_TYPE, KeyRing({"verifier": verifier_key})).payload
    report = AttestationReport.from_payload(payload)
    if not 0 < report.expires_at - report.appraised_at <= LIFETIME_S:
        raise EnvelopeError(f"not an attestation result: its lifetime exceeds {LIFETIME_S} s")
    return report
