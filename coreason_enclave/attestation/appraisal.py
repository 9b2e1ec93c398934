"""Appraise evidence: authentic, fresh, and acceptable to this relying party.

Order of the checks, of which the first failure decides:

1. Kind of the evidence.
2. Echo: report data of the processor, nonce of each GPU.
3. Signature and chain, revocation, TCB, debug and privilege level (inside the verifiers).
4. Measurement.
5. Machine.
6. Checks left open.

Each GPU passes through the same checks after the processor. The evidence parser has already checked size and shape.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from coreason_enclave.attestation.acceptance_rules import Accepted, appraise_report
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.binding import Binding, gpu_nonce, report_data, report_without_hardware
from coreason_enclave.attestation.endorsements import EndorsementSource
from coreason_enclave.attestation.evidence import CpuKind, CpuReport, Evidence
from coreason_enclave.attestation.verify import Authentic, Refusal, VerificationRefused
from coreason_enclave.attestation.verify.dcap import INTEL_SGX_ROOT, DcapVerifier, parse_quote
from coreason_enclave.attestation.verify.nvidia import NvidiaEvidence, NvidiaVerifier, pinned_roots
from coreason_enclave.attestation.verify.nvidia import parse_report as parse_spdm_report
from coreason_enclave.attestation.verify.snp import PINNED as PINNED_SNP
from coreason_enclave.attestation.verify.snp import SnpVerifier
from coreason_enclave.attestation.verify.snp import parse_report as parse_snp_report
from coreason_enclave.errors import AttestationError, Reason
from coreason_enclave.schemas import AttestationReport, Profile, Provenance, SafeId, explained

EVERYTHING_UNCHECKED = "everything: this evidence is simulated"
"""The only ``not_checked`` entry in a result for simulated evidence."""

NOT_ATTESTED = "everything: not attested"
"""The only ``not_checked`` entry in a result for a statement that stands in place of evidence."""

_WITHOUT_HARDWARE: Mapping[CpuKind, tuple[Provenance, str]] = {
    CpuKind.SIMULATED: (Provenance.SIMULATED, EVERYTHING_UNCHECKED),
    CpuKind.UNATTESTED: (Provenance.CLAIMED, NOT_ATTESTED),
}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME: TypeAdapter[str] = TypeAdapter(SafeId)


@dataclass(frozen=True)
class Verifiers:
    """One verifier per kind, each with its own roots."""

    snp: SnpVerifier
    dcap: DcapVerifier
    nvidia: NvidiaVerifier


PINNED = Verifiers(snp=PINNED_SNP, dcap=DcapVerifier(INTEL_SGX_ROOT), nvidia=NvidiaVerifier(pinned_roots()))
"""Verifiers under the vendors' pinned roots; the product uses no other roots."""


@dataclass(frozen=True)
class Appraiser:
    """A relying party: policy, profile and source of endorsements.

    Attributes:
        unattested: Under profile ``unattested``, the parties accepted without evidence: Ed25519 keys (hex) by name.
        verifiers: Replaced by tests with their own hierarchies; the product keeps the default.
    """

    policy: AttestationPolicy
    profile: Profile
    endorsements: EndorsementSource
    unattested: Mapping[str, Collection[str]] = field(default_factory=dict, kw_only=True)
    verifiers: Verifiers = field(default=PINNED, kw_only=True)

    def appraise(self, evidence: Evidence, binding: Binding, now: int) -> AttestationReport:
        """Turn evidence into an attestation result, the only value to bear that name.

        Args:
            binding: Computed by the relying party, never taken from the evidence.
            now: Unix seconds.

        Raises:
            VerificationRefused: Carries the code of the first failed check, and one of these reasons:
                ``attestation_invalid``: not authentic, in a bad state, or bound to other data;
                ``attestation_unacceptable``: authentic, but outside the policy;
                ``attestation_unavailable``: a vendor's service did not answer.
            AttestationError: ``attestation_invalid``: the binding itself is malformed.
        """
        context = _context(binding)
        self._refuse_kind(evidence.kind)
        if evidence.kind in _WITHOUT_HARDWARE:
            _refuse_other_words(evidence, context)
            if evidence.kind is CpuKind.UNATTESTED:
                self._refuse_unlisted(binding)
            return self._result(binding, now, evidence.kind, ())
        cpu = self._cpu(evidence, context, binding.subject, now)
        return self._result(binding, now, evidence.kind, (cpu, *self._gpus(evidence, context, binding.subject, now)))

    def _refuse_kind(self, kind: CpuKind) -> None:
        if kind is CpuKind.SIMULATED and self.profile is not Profile.DEVELOPMENT:
            message = f"simulated evidence proves nothing, and profile {self.profile} refuses it"
            raise VerificationRefused(Refusal.SIMULATED, message, reason=Reason.ATTESTATION_UNACCEPTABLE)
        if (kind is CpuKind.UNATTESTED) != (self.profile is Profile.UNATTESTED):
            refusal = Refusal.UNATTESTED if kind is CpuKind.UNATTESTED else Refusal.KIND_NOT_ACCEPTED
            message = f"a party of kind {kind}, which profile {self.profile} never accepts"
            raise VerificationRefused(refusal, message, reason=Reason.ATTESTATION_UNACCEPTABLE)
        if kind not in self.policy.kinds:
            message = f"evidence of kind {kind}, which the policy's kinds do not list"
            raise VerificationRefused(Refusal.KIND_NOT_ACCEPTED, message, reason=Reason.ATTESTATION_UNACCEPTABLE)
        if kind in _WITHOUT_HARDWARE and self.policy.gpus:
            message = f"the policy requires {self.policy.gpus} GPUs, but {kind} evidence has none"
            raise VerificationRefused(Refusal.GPUS_MISSING, message, reason=Reason.ATTESTATION_UNACCEPTABLE)

    def _refuse_unlisted(self, binding: Binding) -> None:
        """Refuse a party that this relying party did not accept without evidence, by name and key."""
        if binding.public_key not in self.unattested.get(binding.subject, ()):
            message = (
                f"{binding.subject} is not attested, and no list accepts {binding.subject} with this key unattested"
            )
            raise VerificationRefused(Refusal.UNATTESTED, message, reason=Reason.ATTESTATION_UNACCEPTABLE)

    def _cpu(self, evidence: Evidence, context: bytes, subject: str, now: int) -> Accepted:
        expected = report_data(context, evidence.gpus)
        _require_covered(_covered_by_report(evidence.cpu), expected, Refusal.REPORT_DATA, "the processor's report")
        for gpu in evidence.gpus:
            echo = parse_spdm_report(gpu.report_bytes()).nonce
            _require_covered(echo, gpu_nonce(context), Refusal.NONCE, "a GPU's report")
        authentic = self._authentic(evidence.cpu, expected, now)
        return appraise_report(authentic, self.policy, subject=subject, now=now)

    def _authentic(self, cpu: CpuReport, expected: bytes, now: int) -> Authentic:
        report = cpu.report_bytes()
        if cpu.kind is CpuKind.SNP:
            snp = self.endorsements.snp(cpu, now)
            return self.verifiers.snp.verify(report, snp, self.policy.snp, now, report_data=expected)
        dcap = self.endorsements.dcap(cpu, now)
        return self.verifiers.dcap.verify(cpu.kind.value, report, dcap, self.policy.dcap, now, report_data=expected)

    def _gpus(self, evidence: Evidence, context: bytes, subject: str, now: int) -> tuple[Accepted, ...]:
        if len(evidence.gpus) < self.policy.gpus:
            message = f"evidence of {len(evidence.gpus)} GPUs; the policy requires {self.policy.gpus}"
            raise VerificationRefused(Refusal.GPUS_MISSING, message, reason=Reason.ATTESTATION_UNACCEPTABLE)
        if not evidence.gpus:
            return ()
        nonce = gpu_nonce(context)
        nvidia_endorsements = self.endorsements.nvidia(evidence.gpus, now)
        verdicts = [
            self.verifiers.nvidia.verify(NvidiaEvidence.of(gpu), endorsements, self.policy.nvidia, now, nonce=nonce)
            for gpu, endorsements in zip(evidence.gpus, nvidia_endorsements, strict=True)
        ]
        if len({verdict.platform_id for verdict in verdicts}) != len(verdicts):
            raise VerificationRefused(Refusal.DUPLICATE_GPU, "one GPU is shown more than once")
        return tuple(appraise_report(verdict, self.policy, subject=subject, now=now) for verdict in verdicts)

    def _result(self, binding: Binding, now: int, kind: CpuKind, accepted: Sequence[Accepted]) -> AttestationReport:
        """Build the result. ``accepted``: the processor's, then each GPU's; empty without hardware."""
        unchecked = dict.fromkeys(name for one in accepted for name in one.not_checked)
        with explained(
            lambda why: AttestationError(f"invalid attestation result: {why}", reason=Reason.ATTESTATION_INVALID)
        ):
            return AttestationReport(
                provenance=Provenance.ATTESTED if accepted else _WITHOUT_HARDWARE[kind][0],
                kind=kind.value,
                subject=binding.subject,
                public_key=binding.public_key,
                kem_key=binding.kem_key,
                job_digest=binding.job_digest,
                nonce=binding.nonce,
                measurement=accepted[0].measurement if accepted else None,
                platform_ids=tuple(one.platform_id for one in accepted),
                policy=self.policy.digest(),
                appraised_at=now,
                expires_at=now + self.policy.lifetime_s,
                not_checked=tuple(unchecked) if accepted else (_WITHOUT_HARDWARE[kind][1],),
            )


def _context(binding: Binding) -> bytes:
    """Return the bytes that every report must cover. Refuse a malformed binding, which could shorten these bytes."""
    digests = (binding.nonce, binding.public_key, binding.kem_key, binding.job_digest)
    if not all(_DIGEST.fullmatch(text) for text in digests):
        message = "nonce, keys and job digest of a binding must have 64 lower-case hex digits each"
        raise AttestationError(message, reason=Reason.ATTESTATION_INVALID)
    about = "the subject of a binding"
    with explained(lambda why: AttestationError(f"{about}: {why}", reason=Reason.ATTESTATION_INVALID)):
        _NAME.validate_python(binding.subject)
    return binding.context()


def _covered_by_report(cpu: CpuReport) -> bytes:
    """Return the data that the report claims to cover. The caller compares the data before it fetches endorsements."""
    report = cpu.report_bytes()
    if cpu.kind is CpuKind.SNP:
        return parse_snp_report(report).report_data
    return parse_quote(report).report_data


def _require_covered(covered: bytes, expected: bytes, refusal: Refusal, what: str) -> None:
    if not hmac.compare_digest(covered, expected):
        message = f"{what} covers another challenge, key, subject, job, role or set of GPUs than requested"
        raise VerificationRefused(refusal, message)


def _refuse_other_words(evidence: Evidence, context: bytes) -> None:
    """Refuse words in place of evidence in any other form or with another echo.

    The echo ties a simulated or unattested party to both of its keys, the challenge and the job, as evidence does.
    """
    if evidence.gpus:
        raise VerificationRefused(Refusal.MALFORMED, f"{evidence.kind} evidence must have no GPUs")
    expected = report_without_hardware(evidence.kind, context)
    _require_covered(evidence.cpu.report_bytes(), expected, Refusal.REPORT_DATA, f"the {evidence.kind} report")
