"""``verify``: decides whether evidence is authentic and comes from a platform in a good state."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aegis.evidence.evidence_files import read_evidence
from aegis.evidence.evidence_kind import EvidenceKind
from aegis.evidence.given_endorsements import dcap_endorsements, handed_over
from aegis.evidence.outcome import EvidenceVerdict
from coreason_enclave.attestation import Evidence, gpu_nonce, manual_context, report_data
from coreason_enclave.attestation.verify import Authentic, Refusal, VerificationRefused
from coreason_enclave.attestation.verify.dcap import DcapPlatformPolicy, verify_sgx, verify_tdx
from coreason_enclave.attestation.verify.nvidia import (
    NvidiaEndorsements,
    NvidiaEvidence,
    NvidiaPlatformPolicy,
    parse_nvidia_evidence,
    verify_nvidia,
)
from coreason_enclave.attestation.verify.snp import SnpEndorsements, SnpPlatformPolicy, verify_snp

PlatformPolicy = DcapPlatformPolicy | SnpPlatformPolicy | NvidiaPlatformPolicy


@dataclass(frozen=True)
class VerificationRequest:
    """A request to verify evidence.

    Attributes:
        endorsements: the contents of the endorsement files.
        policy: the platform's policy, of the type for ``kind``.
        now: Unix seconds.
        nonce: the challenge, 32 bytes. None: the caller compares ``report_data``. Each form of evidence covers the
            nonce in its own way: a GPU's bare report covers the nonce itself, a processor's bare report the nonce
            and 32 zero bytes, and evidence of a whole host the binding made by ``coreason-enclave attest``.
        report_data: the exact bytes that a report must cover: 64, or 32 for a GPU.
    """

    kind: EvidenceKind
    policy: PlatformPolicy
    now: int
    endorsements: tuple[bytes, ...] = ()
    nonce: bytes | None = None
    report_data: bytes | None = None


def verify(question: VerificationRequest, content: bytes) -> EvidenceVerdict:
    """Verify the content of an evidence file. Bad content gives a refusal and no exception."""
    try:
        results = outcomes(question, content)
    except VerificationRefused as error:
        return EvidenceVerdict.refused(question.kind, error)
    parts = [
        EvidenceVerdict.of(one) if isinstance(one, Authentic) else EvidenceVerdict.refused(question.kind, one)
        for one in results
    ]
    return EvidenceVerdict.together(parts) if question.kind is EvidenceKind.NVIDIA else parts[0]


def outcomes(question: VerificationRequest, content: bytes) -> tuple[Authentic | VerificationRefused, ...]:
    """Return the outcome for the processor, or for each GPU.

    Raises:
        VerificationRefused: the file holds no evidence of this kind. For a processor, also a failed verification.
    """
    evidence = read_evidence(content)
    if question.kind is EvidenceKind.NVIDIA:
        return _gpus(question, evidence)
    return (_processor(question, evidence),)


# --- processors -----------------------------------------------------------------------------------------------------


def _processor(question: VerificationRequest, evidence: bytes | Evidence) -> Authentic:
    report, certificates = _report_of(question.kind, evidence)
    expected = _expected(question, _covered_by_processor(question.nonce, evidence))
    try:
        return _verified(question, report, certificates, expected)
    except VerificationRefused as error:
        if error.refusal is Refusal.REPORT_DATA and question.report_data is None:
            message = f"{error}: the evidence was made for another nonce"
            raise VerificationRefused(Refusal.NONCE, message) from error
        raise


def _verified(
    question: VerificationRequest, report: bytes, beside: Sequence[bytes], expected: bytes | None
) -> Authentic:
    policy, now = question.policy, question.now
    if isinstance(policy, SnpPlatformPolicy) and question.kind is EvidenceKind.SNP:
        endorsements = SnpEndorsements.from_files((*question.endorsements, *beside))
        return verify_snp(report, endorsements, policy, now, report_data=expected)
    if isinstance(policy, DcapPlatformPolicy) and question.kind in (EvidenceKind.SGX, EvidenceKind.TDX):
        verify_quote = verify_sgx if question.kind is EvidenceKind.SGX else verify_tdx
        return verify_quote(report, dcap_endorsements(question.endorsements), policy, now, report_data=expected)
    raise TypeError(f"a {type(policy).__name__} has no rules for {question.kind}")


def _report_of(kind: EvidenceKind, evidence: bytes | Evidence) -> tuple[bytes, Sequence[bytes]]:
    """Return the report's bytes, and the certificates delivered with the report."""
    if isinstance(evidence, bytes):
        return evidence, ()
    if evidence.cpu.kind != kind.value:
        message = f"this host's processor made evidence of kind {evidence.cpu.kind}, not {kind}"
        raise VerificationRefused(Refusal.WRONG_KIND, message)
    return evidence.cpu.report_bytes(), handed_over(evidence.cpu)


def _covered_by_processor(nonce: bytes | None, evidence: bytes | Evidence) -> bytes | None:
    if nonce is None:
        return None
    if isinstance(evidence, bytes):
        return nonce + bytes(64 - len(nonce))
    return report_data(manual_context(nonce), evidence.gpus)


def _expected(question: VerificationRequest, by_nonce: bytes | None) -> bytes | None:
    """Return the report data that the request demands; None if the request demands none."""
    requested = question.report_data
    if requested is not None and by_nonce is not None and not hmac.compare_digest(requested, by_nonce):
        raise VerificationRefused(Refusal.NONCE, "the requested report data does not match the requested nonce")
    return by_nonce if requested is None else requested


# --- GPUs -----------------------------------------------------------------------------------------------------------


def _gpus(question: VerificationRequest, evidence: bytes | Evidence) -> tuple[Authentic | VerificationRefused, ...]:
    if not isinstance(question.policy, NvidiaPlatformPolicy):
        raise TypeError(f"a {type(question.policy).__name__} has no rules for GPUs")
    by_nonce = question.nonce
    if isinstance(evidence, Evidence):
        by_nonce = None if question.nonce is None else gpu_nonce(manual_context(question.nonce))
    nonce = _expected(question, by_nonce)
    endorsements = NvidiaEndorsements.from_files(question.endorsements)
    results: list[Authentic | VerificationRefused] = []
    for gpu in tuple(_reports(evidence)):
        try:
            one = verify_nvidia(gpu, endorsements, question.policy, question.now, nonce=nonce)
            _refuse_known(one, results)
        except VerificationRefused as error:
            results.append(error)
        else:
            results.append(one)
    return tuple(results)


def _refuse_known(gpu: Authentic, others: Sequence[Authentic | VerificationRefused]) -> None:
    if any(isinstance(other, Authentic) and gpu.platform_id == other.platform_id for other in others):
        raise VerificationRefused(Refusal.DUPLICATE_GPU, "this GPU is in the evidence more than once")


def _reports(evidence: bytes | Evidence) -> Iterator[NvidiaEvidence]:
    if isinstance(evidence, bytes):
        yield from parse_nvidia_evidence(evidence)
        return
    if not evidence.gpus:
        raise VerificationRefused(Refusal.WRONG_KIND, "this host's evidence has no GPU")
    yield from map(NvidiaEvidence.of, evidence.gpus)
