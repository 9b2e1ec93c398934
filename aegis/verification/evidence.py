"""Checks that the evidence in a signed update covers the order's nonce, both of the site's keys, and the job.

The coordinator verified the evidence itself on accepting the update, under the vendors' endorsements of that moment;
``aegis evidence`` verifies the evidence again.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from coreason_enclave.attestation import (
    Binding,
    CpuKind,
    CpuReport,
    Role,
    gpu_nonce,
    parse_evidence,
    report_data,
    report_without_hardware,
)
from coreason_enclave.hardware import bound_data_of_cpu, bound_data_of_gpu
from coreason_enclave.schemas import Provenance
from coreason_enclave.wire import UpdateStatement

_WITHOUT_HARDWARE: Mapping[CpuKind, Provenance] = {
    CpuKind.SIMULATED: Provenance.SIMULATED,
    CpuKind.UNATTESTED: Provenance.CLAIMED,
}


def covers_its_order(statement: UpdateStatement, public_key: str) -> bool:
    """Return True if processor and GPUs all cover the statement, under the site's Ed25519 key (hex).

    Raises:
        AttestationError: the statement holds no evidence.
    """
    evidence = parse_evidence(statement.evidence)
    context = Binding(
        role=Role.SITE,
        nonce=statement.nonce,
        public_key=public_key,
        kem_key=statement.kem_key,
        subject=statement.site_id,
        job_digest=statement.job_digest,
    ).context()
    gpus = all(hmac.compare_digest(bound_data_of_gpu(gpu), gpu_nonce(context)) for gpu in evidence.gpus)
    return gpus and _covers(evidence.cpu, context, report_data(context, evidence.gpus))


def provenance_without_hardware(statement: UpdateStatement) -> Provenance | None:
    """Return what words in place of hardware evidence lead to; None if the evidence is of hardware.

    Raises:
        AttestationError: the statement holds no evidence.
    """
    return _WITHOUT_HARDWARE.get(parse_evidence(statement.evidence).kind)


def _covers(report: CpuReport, context: bytes, expected: bytes) -> bool:
    if report.kind in _WITHOUT_HARDWARE:
        return report.report_bytes() == report_without_hardware(report.kind, context)
    return hmac.compare_digest(bound_data_of_cpu(report), expected)
