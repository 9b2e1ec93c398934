"""Verdicts of verification, and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from coreason_enclave.errors import AttestationError, Reason


class Refusal(StrEnum):
    """Stable codes of refusals. Never reused or renamed."""

    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    WRONG_KIND = "wrong_kind"
    NONCE = "nonce"
    REPORT_DATA = "report_data"
    SIGNATURE = "signature"
    CHAIN = "chain"
    NOT_VALID_NOW = "not_valid_now"
    REVOKED = "revoked"
    ENDORSEMENTS_MISSING = "endorsements_missing"
    ENDORSEMENTS_MISMATCH = "endorsements_mismatch"
    TCB_OUT_OF_DATE = "tcb_out_of_date"
    TCB_ADVISORY = "tcb_advisory"
    TCB_UNKNOWN = "tcb_unknown"
    PLATFORM = "platform"
    DEBUG = "debug"
    MIGRATION_AGENT = "migration_agent"
    VMPL = "vmpl"
    CONFIDENTIAL_COMPUTING_OFF = "confidential_computing_off"
    FIRMWARE_IDENTITY = "firmware_identity"
    MEASUREMENT = "measurement"
    LIBRARY_MISSING = "library_missing"
    # codes of an appraisal: authentic, but not accepted here
    SIMULATED = "simulated"
    UNATTESTED = "unattested"
    KIND_NOT_ACCEPTED = "kind_not_accepted"
    PLATFORM_UNKNOWN = "platform_unknown"
    GPUS_MISSING = "gpus_missing"
    DUPLICATE_GPU = "duplicate_gpu"
    UNCHECKED = "unchecked"


class VerificationRefused(AttestationError):
    """The evidence is not authentic, or the policy does not accept the state of its platform.

    Args:
        refusal: Stable code of the first failed check.
        message: The problem, and what to do.
        reason: Set if different from ``attestation_invalid``.
    """

    default_reason = Reason.ATTESTATION_INVALID

    def __init__(self, refusal: Refusal, message: str, *, reason: Reason | None = None) -> None:
        super().__init__(message, reason=reason)
        self.refusal = refusal


def in_words(error: Exception) -> str:
    """Return the message of an error, prefixed with the stable code of a refusal.

    >>> in_words(VerificationRefused(Refusal.DEBUG, "its memory is readable"))
    'debug: its memory is readable'
    """
    return f"{error.refusal}: {error}" if isinstance(error, VerificationRefused) else str(error)


@dataclass(frozen=True)
class Authentic:
    """Evidence whose signature leads to a pinned vendor root, from a platform that the platform policy accepts.

    Attributes:
        kind: ``sgx``, ``tdx``, ``snp`` or ``nvidia``.
        report_data: Data that the report covers (64 bytes; ``nvidia``: the 32-byte nonce).
        measurements: Name to hex, as the hardware reported them; not yet compared with the policy's reference values.
        platform_id: Id of the machine, hex: chip id, PPID or device identity; None from a host that masks its id.
        claims: Other facts worth reporting (JSON types).
        not_checked: Checks left open for lack of data.
    """

    kind: str
    report_data: bytes
    measurements: Mapping[str, str]
    platform_id: str | None
    claims: Mapping[str, object]
    not_checked: tuple[str, ...]
