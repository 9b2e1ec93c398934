"""Attesters without hardware. Their evidence names its own kind and never appraises to any other kind."""

from __future__ import annotations

from coreason_enclave.attestation import CpuKind, CpuReport, Evidence, report_without_hardware, to_base64


class SimulatedAttester:
    """An attester for development, whose evidence has the usual shape and proves nothing.

    >>> SimulatedAttester().produce(b"context").kind
    <CpuKind.SIMULATED: 'simulated'>
    """

    kind = CpuKind.SIMULATED

    def produce(self, context: bytes) -> Evidence:
        """Return a report that echoes the report data of ``context`` and declares itself simulated."""
        return Evidence(cpu=CpuReport(kind=self.kind, report=to_base64(report_without_hardware(self.kind, context))))


class UnattestedAttester:
    """An attester for profile ``unattested``: states, over the same values as evidence, that no evidence exists.

    >>> UnattestedAttester().produce(b"context").kind
    <CpuKind.UNATTESTED: 'unattested'>
    """

    kind = CpuKind.UNATTESTED

    def produce(self, context: bytes) -> Evidence:
        """Return a report that echoes the report data of ``context`` and declares itself unattested."""
        return Evidence(cpu=CpuReport(kind=self.kind, report=to_base64(report_without_hardware(self.kind, context))))
