"""An attester for development. Its evidence says that it is simulated and can never appraise to anything else."""

from __future__ import annotations

import base64

from coreason_enclave.attestation.evidence import Evidence
from coreason_enclave.encoding import canonical_json

__all__ = ["SimulatedAttester"]


class SimulatedAttester:
    """Produces evidence that proves nothing, in the shape of evidence that would.

    >>> SimulatedAttester().produce(bytes(32)).kind
    'simulated'
    """

    kind = "simulated"

    def produce(self, report_data: bytes) -> Evidence:
        """A report that echoes ``report_data`` and calls itself simulated."""
        report = canonical_json({"simulated": True, "report_data": report_data.hex()})
        return Evidence(kind=self.kind, report=base64.b64encode(report).decode())
