"""Decide if a policy accepts an authentic report: its code, its machine, and the checks left open.

Callers:

- :class:`~coreason_enclave.attestation.appraisal.Appraiser`, for each report of a site's evidence;
- ``aegis evidence appraise``, for a bare report.
"""

from __future__ import annotations

from dataclasses import dataclass

from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.reference_values import matching
from coreason_enclave.attestation.verify import Authentic, Refusal, VerificationRefused
from coreason_enclave.errors import Reason

_GPU = "nvidia"


@dataclass(frozen=True)
class Accepted:
    """A report that a policy accepted.

    Attributes:
        kind: ``sgx``, ``tdx``, ``snp`` or ``nvidia``.
        measurement: Name of the matched reference value. None for a GPU: its verifier compared the firmware with the
            vendor's signed manifests instead.
        platform_id: Id of the machine, one of the subject's enrolled machines.
        not_checked: Open checks that the policy tolerates, as ``<kind>.<name>``.
    """

    kind: str
    measurement: str | None
    platform_id: str
    not_checked: tuple[str, ...]


def appraise_report(authentic: Authentic, policy: AttestationPolicy, *, subject: str | None, now: int) -> Accepted:
    """Check a verdict against the policy.

    Order of the checks: kind, measurement, machine, checks left open.

    Args:
        authentic: Verdict under ``policy``'s own platform policy of the kind, with the report data or nonce that the
            relying party computed. Otherwise ``not_checked`` lists the omission, and this function refuses.
        subject: Required owner of the machine; None leads to a refusal.
        now: Unix seconds.

    Raises:
        VerificationRefused: Reason ``attestation_unacceptable``; code ``kind_not_accepted``, ``measurement``,
            ``platform_unknown`` or ``unchecked``.
    """
    if authentic.kind != _GPU and authentic.kind not in policy.kinds:
        raise _refused(Refusal.KIND_NOT_ACCEPTED, f"the policy's kinds do not list {authentic.kind}")
    measurement = None if authentic.kind == _GPU else _measured_code(authentic, policy, now)
    platform_id = _enrolled_machine(authentic, policy, subject)
    return Accepted(authentic.kind, measurement, platform_id, _tolerated(authentic, policy))


def _measured_code(authentic: Authentic, policy: AttestationPolicy, now: int) -> str:
    name = matching(policy.reference_values, authentic.kind, authentic.measurements, now)
    if name is None:
        how_many = sum(value.kind == authentic.kind for value in policy.reference_values)
        raise _refused(
            Refusal.MEASUREMENT, f"the code matches no unexpired reference value for {authentic.kind} (of {how_many})"
        )
    return name


def _enrolled_machine(authentic: Authentic, policy: AttestationPolicy, subject: str | None) -> str:
    """Return the machine's id if enrolled for ``subject``.

    A genuine machine with the right image may still belong to another party.
    """
    machine = authentic.platform_id
    if machine is None or not machine.strip("0"):
        raise _refused(Refusal.PLATFORM_UNKNOWN, "the report does not identify its machine: the host masks the id")
    if subject is None:
        raise _refused(Refusal.PLATFORM_UNKNOWN, "the machine cannot be checked without a subject: name the subject")
    if machine not in policy.platforms.get(subject, ()):
        raise _refused(Refusal.PLATFORM_UNKNOWN, f"platforms lists no {authentic.kind} machine {machine} for {subject}")
    return machine


def _tolerated(authentic: Authentic, policy: AttestationPolicy) -> tuple[str, ...]:
    """Return the open checks if the policy names each. For processors, skip the measurements compared above."""
    compared = () if authentic.kind == _GPU else ("measurements",)
    left = tuple(f"{authentic.kind}.{name}" for name in authentic.not_checked if name not in compared)
    unnamed = sorted(set(left) - {name.value for name in policy.accept_unchecked})
    if unnamed:
        raise _refused(
            Refusal.UNCHECKED, f"not checked: {', '.join(unnamed)}; give the data (accept_unchecked: revocation only)"
        )
    return left


def _refused(refusal: Refusal, message: str) -> VerificationRefused:
    return VerificationRefused(refusal, message, reason=Reason.ATTESTATION_UNACCEPTABLE)
