"""Produce evidence of this host: GPU reports first, then a processor report that covers the GPU reports."""

from __future__ import annotations

import hmac

from coreason_enclave.attestation import MAX_GPUS, CpuKind, Evidence, GpuReport, gpu_nonce, report_data
from coreason_enclave.hardware.collectors import CpuCollector, GpuCollector, unavailable
from coreason_enclave.hardware.report_binding import bound_data_of_cpu, bound_data_of_gpu


class HostAttester:
    """An attester over collectors. Releases only reports that cover the requested bytes.

    Args:
        gpus: Collector for the host's GPUs, or None to leave GPUs out of the evidence.
    """

    def __init__(self, cpu: CpuCollector, gpus: GpuCollector | None = None) -> None:
        self._cpu = cpu
        self._gpus = gpus

    @property
    def kind(self) -> CpuKind:
        """Kind of the processor's report."""
        return self._cpu.kind

    def produce(self, context: bytes) -> Evidence:
        """See :meth:`coreason_enclave.attestation.evidence.Attester.produce`."""
        gpus = self._ask_gpus(gpu_nonce(context))
        requested = report_data(context, gpus)
        report = self._cpu.collect(requested)
        _require_covered(requested, bound_data_of_cpu(report), f"this host's {report.kind} report")
        return Evidence(cpu=report, gpus=gpus)

    def _ask_gpus(self, nonce: bytes) -> tuple[GpuReport, ...]:
        if self._gpus is None:
            return ()
        reports = self._gpus.collect(nonce)
        if not 1 <= len(reports) <= MAX_GPUS:
            raise unavailable(f"{len(reports)} GPUs answered, not 1 to {MAX_GPUS}")
        for number, report in enumerate(reports):
            _require_covered(nonce, bound_data_of_gpu(report), f"the report of GPU {number}")
        return reports


def _require_covered(requested: bytes, covered: bytes, whose: str) -> None:
    if not hmac.compare_digest(requested, covered):
        raise unavailable(f"{whose} covers other bytes than requested: another process asked at the same time")
