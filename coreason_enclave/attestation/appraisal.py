"""Appraisal: is this evidence authentic, fresh and acceptable to this relying party?

Checks, in order: the kind is one that can be verified here; the report is authentic for its kind; its report data
is the one that the relying party computed itself; the profile accepts the kind. Simulated evidence passes the
second check by definition, so it can only ever give provenance ``simulated``, and only the development profile
accepts that.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coreason_enclave.attestation.evidence import Evidence
from coreason_enclave.encoding import parse_json
from coreason_enclave.errors import AttestationError, EnvelopeError, Reason
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import AttestationReport, Provenance

__all__ = ["LIFETIME_S", "appraise"]

LIFETIME_S = 600


@dataclass(frozen=True)
class _Verified:
    report_data: bytes
    measurement: str | None
    provenance: Provenance
    not_checked: tuple[str, ...]


def appraise(
    evidence: Evidence, *, expected_report_data: bytes, subject: str, profile: Profile, now: int
) -> AttestationReport:
    """Turn evidence into the one thing that may be called an attestation result.

    Args:
        expected_report_data: 32 bytes computed by the relying party, never taken from the evidence.
        now: Unix seconds.

    Raises:
        AttestationError: the kind is unknown, the report is not authentic, covers something else, or the profile
            does not accept it.
    """
    verify = _VERIFIERS.get(evidence.kind)
    if verify is None:
        raise AttestationError(f"no verifier for evidence of kind {evidence.kind!r}", reason=Reason.ATTESTATION_INVALID)
    verified = verify(evidence.report_bytes())
    if not hmac.compare_digest(verified.report_data, expected_report_data):
        raise AttestationError(
            f"the evidence of {subject} covers another nonce, key or job", reason=Reason.ATTESTATION_INVALID
        )
    if verified.provenance is Provenance.SIMULATED and profile is not Profile.DEVELOPMENT:
        raise AttestationError(f"the evidence of {subject} is simulated, which only profile development accepts")
    return AttestationReport(
        provenance=verified.provenance,
        kind=evidence.kind,
        subject=subject,
        report_data=expected_report_data.hex(),
        measurement=verified.measurement,
        appraised_at=now,
        expires_at=now + LIFETIME_S,
        not_checked=verified.not_checked,
    )


def _verify_simulated(report: bytes) -> _Verified:
    try:
        document = parse_json(report)
        data = bytes.fromhex(document["report_data"])
        if document.keys() != {"simulated", "report_data"} or document["simulated"] is not True:
            raise ValueError("unexpected fields")
    except (EnvelopeError, KeyError, TypeError, ValueError) as error:
        raise AttestationError("not a simulated report", reason=Reason.ATTESTATION_INVALID) from error
    return _Verified(data, None, Provenance.SIMULATED, ("everything: this evidence is simulated",))


_VERIFIERS: Mapping[str, Callable[[bytes], _Verified]] = {"simulated": _verify_simulated}
