"""An attester for development. Its evidence says that it is simulated and can never appraise to anything else."""

from __future__ import annotations

from coreason_enclave.attestation.binding import report_data
from coreason_enclave.attestation.evidence import CpuKind, CpuReport, Evidence, to_base64
from coreason_enclave.crypto.encoding import canonical_json

__all__ = ["SimulatedAttester"]


class SimulatedAttester:
    """Produces evidence that proves nothing, in the shape of evidence that would.

    >>> SimulatedAttester().produce(b"context").kind
    <CpuKind.SIMULATED: 'simulated'>
    """

    kind = CpuKind.SIMULATED

    def produce(self, context: bytes) -> Evidence:
        """A report that echoes the report data of ``context`` and calls itself simulated."""
        report = canonical_json({"simulated": True, "report_data": report_data(context, ()).hex()})
        return Evidence(cpu=CpuReport(kind=self.kind, report=to_base64(report)))
