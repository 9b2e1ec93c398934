"""``appraise``: decides whether a policy accepts the evidence, including its code, its machine and its binding.

The rules of a production profile always apply: simulated evidence is refused, whatever the policy says.
"""

from __future__ import annotations

from collections.abc import Sequence

from aegis.evidence.evidence_files import read_evidence
from aegis.evidence.evidence_kind import EvidenceKind
from aegis.evidence.given_endorsements import GivenEndorsements
from aegis.evidence.outcome import EvidenceVerdict
from aegis.evidence.verification import PlatformPolicy, VerificationRequest, outcomes
from coreason_enclave.attestation import Appraiser, AttestationPolicy, Binding, Evidence, appraise_report
from coreason_enclave.attestation.verify import Authentic, Refusal, VerificationRefused
from coreason_enclave.schemas import Profile


def platform_policy(policy: AttestationPolicy, kind: EvidenceKind) -> PlatformPolicy:
    """Return the part of an appraisal policy that covers the platform."""
    if kind is EvidenceKind.NVIDIA:
        return policy.nvidia
    return policy.snp if kind is EvidenceKind.SNP else policy.dcap


def appraise(
    question: VerificationRequest, policy: AttestationPolicy, subject: str | None, content: bytes
) -> EvidenceVerdict:
    """Appraise one report, or the reports of a host's GPUs, on their own.

    Args:
        question: with :func:`platform_policy` of ``policy``. A request without nonce or report data never passes.
        subject: required owner of the machine; None leads to a refusal.
        content: bytes of the evidence file.
    """
    try:
        results = outcomes(question, content)
        _refuse_too_few(results, question.kind, policy)
    except VerificationRefused as error:
        return EvidenceVerdict.refused(question.kind, error)
    parts = [_appraised(one, question, policy, subject) for one in results]
    return EvidenceVerdict.together(parts) if question.kind is EvidenceKind.NVIDIA else parts[0]


def appraise_host(
    content: bytes, endorsements: Sequence[bytes], policy: AttestationPolicy, binding: Binding, now: int
) -> EvidenceVerdict:
    """Appraise the evidence of a whole host, processor and GPUs, bound to a challenge, two keys and a job.

    Args:
        content: bytes of the evidence file.
        endorsements: the contents of the endorsement files.
        binding: the caller's own knowledge, never read from the evidence.
        now: Unix seconds.
    """
    kind = "host"
    try:
        evidence = read_evidence(content)
        if not isinstance(evidence, Evidence):
            raise VerificationRefused(Refusal.WRONG_KIND, "the file holds a vendor's report, not a host's evidence")
        kind = evidence.kind.value
        appraiser = Appraiser(policy, Profile.PRODUCTION, GivenEndorsements.from_files(endorsements))
        return EvidenceVerdict.of_host(appraiser.appraise(evidence, binding, now))
    except VerificationRefused as error:
        return EvidenceVerdict.refused(kind, error)


def _appraised(
    results: Authentic | VerificationRefused,
    question: VerificationRequest,
    policy: AttestationPolicy,
    subject: str | None,
) -> EvidenceVerdict:
    if isinstance(results, VerificationRefused):
        return EvidenceVerdict.refused(question.kind, results)
    try:
        accepted = appraise_report(results, policy, subject=subject, now=question.now)
    except VerificationRefused as error:
        return EvidenceVerdict.refused(question.kind, error)
    return EvidenceVerdict.of(results).accepted(accepted)


def _refuse_too_few(gpus_shown: Sequence[object], kind: EvidenceKind, policy: AttestationPolicy) -> None:
    gpus = len(gpus_shown) if kind is EvidenceKind.NVIDIA else 0
    if gpus < policy.gpus:
        raise VerificationRefused(Refusal.GPUS_MISSING, f"{gpus} GPUs; the policy needs {policy.gpus} and a processor")
