"""Evidence on the wire: hardware reports of one host as bytes, without a verdict.

>>> evidence = Evidence(cpu=CpuReport(kind=CpuKind.SNP, report="AAEC"))
>>> evidence.cpu.report_bytes()
b'\\x00\\x01\\x02'
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, Field

from coreason_enclave.crypto import canonical_json
from coreason_enclave.errors import AttestationError, Reason
from coreason_enclave.schemas import FormatVersion, StrictModel, explained

MAX_REPORT_BYTES = 64 * 1024
MAX_GPUS = 16


class CpuKind(StrEnum):
    """The origin of a processor's report. ``simulated`` and ``unattested`` prove nothing, and keep these names."""

    SIMULATED = "simulated"
    UNATTESTED = "unattested"
    SGX = "sgx"
    TDX = "tdx"
    SNP = "snp"


def _canonical_base64(text: str) -> str:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"must be base64: {error}") from error
    if not data or base64.b64encode(data).decode() != text:
        raise ValueError("must be canonical base64 of at least one byte")
    return text


Blob = Annotated[str, Field(max_length=4 * -(-MAX_REPORT_BYTES // 3)), AfterValidator(_canonical_base64)]
"""At most 64 KiB, in canonical base64."""


class CpuReport(StrictModel):
    """A report of the processor over 64 bytes of report data that the verifier can recompute.

    Attributes:
        certificates: Certificates that the platform delivered with the report (the host's certificate table). The
            verifier checks them like any other endorsements.
    """

    kind: CpuKind
    report: Blob
    certificates: tuple[Blob, ...] = Field(default=(), max_length=8)

    def report_bytes(self) -> bytes:
        """Return the raw report."""
        return base64.b64decode(self.report)


class GpuReport(StrictModel):
    """An SPDM measurement report of one GPU over a 32-byte nonce, and the GPU's certificates (PEM, leaf first)."""

    arch: Literal["HOPPER"]
    report: Blob
    certificate_chain: Blob

    def report_bytes(self) -> bytes:
        """Return the raw report: request, response."""
        return base64.b64decode(self.report)

    def chain_bytes(self) -> bytes:
        """Return the certificates (PEM)."""
        return base64.b64decode(self.certificate_chain)


class Evidence(StrictModel):
    """The evidence of one host: a report of its processor, and a report for each GPU."""

    version: FormatVersion = 1
    cpu: CpuReport
    gpus: tuple[GpuReport, ...] = Field(default=(), max_length=MAX_GPUS)

    @property
    def kind(self) -> CpuKind:
        """Kind of the processor's report."""
        return self.cpu.kind


class Attester(Protocol):
    """An attester: produces evidence on this host."""

    @property
    def kind(self) -> str:
        """The :class:`CpuKind` that :meth:`produce` returns."""
        ...

    def produce(self, context: bytes) -> Evidence:
        """Return evidence bound to ``context`` (see :mod:`coreason_enclave.attestation.binding`).

        Raises:
            AttestationError: ``attestation_unavailable``: the hardware is missing, or gave a wrong answer.
        """
        ...


def gpu_list(gpus: Sequence[GpuReport]) -> bytes:
    """Return the canonical bytes of the GPU reports; the processor's report covers their digest."""
    return canonical_json([gpu.model_dump(mode="json") for gpu in gpus])


def to_base64(data: bytes) -> str:
    """Return the canonical base64 text of ``data``."""
    return base64.b64encode(data).decode()


def parse_evidence(document: dict[str, Any]) -> Evidence:
    """Parse evidence from JSON types; raises :class:`AttestationError`."""
    with explained(lambda why: AttestationError(f"not evidence: {why}", reason=Reason.ATTESTATION_INVALID)):
        return Evidence.model_validate(document)
