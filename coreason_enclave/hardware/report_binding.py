"""Read the bytes that a report covers from the report itself.

A device may answer with a report for another caller. The attester therefore compares these bytes with its request.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coreason_enclave.attestation import CpuKind, CpuReport, GpuReport
from coreason_enclave.attestation.verify import VerificationRefused
from coreason_enclave.attestation.verify.dcap import parse_quote
from coreason_enclave.attestation.verify.nvidia import parse_report as parse_gpu_report
from coreason_enclave.attestation.verify.snp import parse_report as parse_snp_report
from coreason_enclave.hardware.collectors import unavailable


def bound_data_of_cpu(report: CpuReport) -> bytes:
    """Return the 64 bytes of report data in a processor's report.

    Raises:
        AttestationError: The bytes form no report of the stated kind.
    """
    with _readable(f"this host's {report.kind} device"):
        if report.kind is CpuKind.SNP:
            return parse_snp_report(report.report_bytes()).report_data
        quote = parse_quote(report.report_bytes())
    if quote.kind != report.kind:
        raise unavailable(f"this host's {report.kind} device answered with a quote of kind {quote.kind}")
    return quote.fields["report_data"]


def bound_data_of_gpu(report: GpuReport) -> bytes:
    """Return the 32-byte nonce in a GPU's report.

    Raises:
        AttestationError: The bytes form no GPU report.
    """
    with _readable("a GPU"):
        return parse_gpu_report(report.report_bytes()).nonce


@contextmanager
def _readable(device: str) -> Iterator[None]:
    try:
        yield
    except VerificationRefused as error:
        raise unavailable(f"{device} answered with data that is not a report: {error}") from error
