"""Checks that the evidence in a signed update covers the order's nonce, both of the site's keys, and the job.

The coordinator verified the evidence itself on accepting the update, under the vendors' endorsements of that moment;
``aegis evidence`` verifies the evidence again.
"""

from __future__ import annotations

import hmac

from coreason_enclave.attestation import Binding, CpuKind, CpuReport, Role, gpu_nonce, parse_evidence, report_data
from coreason_enclave.crypto import canonical_json
from coreason_enclave.hardware import bound_data_of_cpu, bound_data_of_gpu
from coreason_enclave.wire import UpdateStatement


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
    return gpus and _covers(evidence.cpu, report_data(context, evidence.gpus))


def is_simulated(statement: UpdateStatement) -> bool:
    """Return True if the evidence calls itself simulated.

    Raises:
        AttestationError: the statement holds no evidence.
    """
    return parse_evidence(statement.evidence).kind is CpuKind.SIMULATED


def _covers(report: CpuReport, expected: bytes) -> bool:
    if report.kind is CpuKind.SIMULATED:
        return report.report_bytes() == canonical_json({"simulated": True, "report_data": expected.hex()})
    return hmac.compare_digest(bound_data_of_cpu(report), expected)
