"""Is an authentic report acceptable? Its code, its machine, and what its verifier left unchecked, against a policy.

Used on each report of a site's evidence by :class:`~coreason_enclave.attestation.appraisal.Appraiser`, and on a bare
report by ``aegis evidence appraise``.
"""

from __future__ import annotations

from dataclasses import dataclass

from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.reference_values import matching
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused
from coreason_enclave.errors import Reason

__all__ = ["Accepted", "appraise_report"]

_GPU = "nvidia"


@dataclass(frozen=True)
class Accepted:
    """What a policy accepted of one report.

    Attributes:
        kind: ``sgx``, ``tdx``, ``snp`` or ``nvidia``.
        measurement: the name of the reference value that the code matched; None for a GPU, whose firmware was compared
            with the vendor's signed manifests instead.
        platform_id: which of the subject's enrolled machines it is.
        not_checked: what the policy lets pass unchecked, as ``<kind>.<name>``.
    """

    kind: str
    measurement: str | None
    platform_id: str
    not_checked: tuple[str, ...]


def appraise_report(authentic: Authentic, policy: AttestationPolicy, *, subject: str | None, now: int) -> Accepted:
    """Hold a verdict against the policy, in this order: kind, measurement, machine, whatever was left unchecked.

    Args:
        authentic: verified under ``policy``'s own platform policy of that kind, with the report data or nonce that
            the relying party computed; without, ``not_checked`` says so, and that is refused here.
        subject: whose machine it has to be; None is nobody's, and refused.
        now: Unix seconds.

    Raises:
        VerificationRefused: reason ``attestation_unacceptable``; ``kind_not_accepted``, ``measurement``,
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
            Refusal.MEASUREMENT,
            f"the measured code matches none of the policy's {how_many} reference values for {authentic.kind} "
            "(or only one that is no longer accepted)",
        )
    return name


def _enrolled_machine(authentic: Authentic, policy: AttestationPolicy, subject: str | None) -> str:
    """A genuine machine that runs the right image may still be somebody else's."""
    machine = authentic.platform_id
    if machine is None or not machine.strip("0"):
        raise _refused(Refusal.PLATFORM_UNKNOWN, "the report does not say which machine it is from: its id is masked")
    if subject is None:
        raise _refused(Refusal.PLATFORM_UNKNOWN, "it was not said whose machine this should be: name the subject")
    if machine not in policy.platforms.get(subject, ()):
        raise _refused(Refusal.PLATFORM_UNKNOWN, f"{subject} is not enrolled with this {authentic.kind} ({machine})")
    return machine


def _tolerated(authentic: Authentic, policy: AttestationPolicy) -> tuple[str, ...]:
    """What was left unchecked, if the policy names each; a processor's measurements were compared above."""
    compared = () if authentic.kind == _GPU else ("measurements",)
    left = tuple(f"{authentic.kind}.{name}" for name in authentic.not_checked if name not in compared)
    unnamed = sorted(set(left) - {name.value for name in policy.accept_unchecked})
    if unnamed:
        raise _refused(
            Refusal.UNCHECKED,
            f"not checked: {', '.join(unnamed)}. Give what is needed to check it; only revocation may "
            "instead be named in accept_unchecked",
        )
    return left


def _refused(refusal: Refusal, message: str) -> VerificationRefused:
    return VerificationRefused(refusal, message, reason=Reason.ATTESTATION_UNACCEPTABLE)
