"""Attester for development. Its evidence declares itself simulated and never appraises to any other kind."""

from __future__ import annotations

from coreason_enclave.attestation import CpuKind, CpuReport, Evidence, report_data, to_base64
from coreason_enclave.crypto import canonical_json


class SimulatedAttester:
    """An attester whose evidence has the usual shape and proves nothing.

    >>> SimulatedAttester().produce(b"context").kind
    <CpuKind.SIMULATED: 'simulated'>
    """

    kind = CpuKind.SIMULATED

    def produce(self, context: bytes) -> Evidence:
        """Return a report that echoes the report data of ``context`` and declares itself simulated."""
        report = canonical_json({"simulated": True, "report_data": report_data(context, ()).hex()})
        return Evidence(cpu=CpuReport(kind=self.kind, report=to_base64(report)))
