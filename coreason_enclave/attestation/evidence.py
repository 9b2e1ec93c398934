"""Evidence as it travels: which kind of hardware report, and its bytes. It carries no verdict."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Protocol

from pydantic import ValidationError

from coreason_enclave.errors import AttestationError, Reason
from coreason_enclave.schemas import FormatVersion, SafeId, StrictModel, explain

__all__ = ["Attester", "Evidence", "parse_evidence"]

MAX_REPORT_BYTES = 64 * 1024


class Evidence(StrictModel):
    """A report of one kind, base64, over 32 bytes of report data that the verifier can recompute."""

    version: FormatVersion = 1
    kind: SafeId
    report: str

    def report_bytes(self) -> bytes:
        """The raw report; raises :class:`AttestationError` when it is not base64 or too large."""
        try:
            report = base64.b64decode(self.report, validate=True)
        except (binascii.Error, ValueError) as error:
            raise AttestationError("evidence is not base64", reason=Reason.ATTESTATION_INVALID) from error
        if len(report) > MAX_REPORT_BYTES:
            raise AttestationError(f"a report of {len(report)} bytes is too large", reason=Reason.ATTESTATION_INVALID)
        return report


class Attester(Protocol):
    """Produces evidence on this host."""

    @property
    def kind(self) -> str:
        """Which kind of evidence :meth:`produce` returns."""
        ...

    def produce(self, report_data: bytes) -> Evidence:
        """Evidence over 32 bytes of ``report_data``; raises :class:`AttestationError` where there is no hardware."""
        ...


def parse_evidence(document: dict[str, Any]) -> Evidence:
    """Read evidence from JSON types; raises :class:`AttestationError`."""
    try:
        return Evidence.model_validate(document)
    except ValidationError as error:
        raise AttestationError(f"not evidence: {explain(error)}", reason=Reason.ATTESTATION_INVALID) from error
