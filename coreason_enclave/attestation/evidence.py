"""Evidence as it travels: hardware reports of one host, as bytes. It carries no verdict.

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

from pydantic import AfterValidator, Field, ValidationError

from coreason_enclave.crypto.encoding import canonical_json
from coreason_enclave.errors import AttestationError, Reason
from coreason_enclave.schemas import FormatVersion, StrictModel, explain

__all__ = [
    "MAX_GPUS",
    "Attester",
    "CpuKind",
    "CpuReport",
    "Evidence",
    "GpuReport",
    "gpu_list",
    "parse_evidence",
    "to_base64",
]

MAX_REPORT_BYTES = 64 * 1024
MAX_GPUS = 16


class CpuKind(StrEnum):
    """What made the report of a host's processor. ``simulated`` proves nothing, and is called so everywhere."""

    SIMULATED = "simulated"
    SGX = "sgx"
    TDX = "tdx"
    SNP = "snp"


def _canonical_base64(text: str) -> str:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"must be base64: {error}") from error
    if not data or base64.b64encode(data).decode() != text:
        raise ValueError("must be the one base64 spelling of at least one byte")
    return text


Blob = Annotated[str, Field(max_length=4 * -(-MAX_REPORT_BYTES // 3)), AfterValidator(_canonical_base64)]
"""At most 64 KiB, base64 in its canonical spelling."""


class CpuReport(StrictModel):
    """A report of the processor over 64 bytes of report data that the verifier can recompute.

    Attributes:
        certificates: what the platform handed over beside its report (the host's certificate table); endorsements that
            are verified like any others.
    """

    kind: CpuKind
    report: Blob
    certificates: tuple[Blob, ...] = Field(default=(), max_length=8)

    def report_bytes(self) -> bytes:
        """The raw report."""
        return base64.b64decode(self.report)


class GpuReport(StrictModel):
    """An SPDM measurement report of one GPU over a 32-byte nonce, and the GPU's certificates (PEM, leaf first)."""

    arch: Literal["HOPPER"]
    report: Blob
    certificate_chain: Blob

    def report_bytes(self) -> bytes:
        """The raw report: request, response."""
        return base64.b64decode(self.report)

    def chain_bytes(self) -> bytes:
        """The certificates, PEM."""
        return base64.b64decode(self.certificate_chain)


class Evidence(StrictModel):
    """What one host proves with: its processor's report, and one for each of its GPUs."""

    version: FormatVersion = 1
    cpu: CpuReport
    gpus: tuple[GpuReport, ...] = Field(default=(), max_length=MAX_GPUS)

    @property
    def kind(self) -> CpuKind:
        """What made the processor's report."""
        return self.cpu.kind


class Attester(Protocol):
    """Produces evidence on this host."""

    @property
    def kind(self) -> str:
        """Which :class:`CpuKind` :meth:`produce` returns."""
        ...

    def produce(self, context: bytes) -> Evidence:
        """Evidence bound to ``context``, see :mod:`coreason_enclave.attestation.binding`.

        Raises:
            AttestationError: ``attestation_unavailable``: there is no such hardware here, or it did not answer as it
                should.
        """
        ...


def gpu_list(gpus: Sequence[GpuReport]) -> bytes:
    """The byte string of a list of GPU reports that the processor's report covers the digest of."""
    return canonical_json([gpu.model_dump(mode="json") for gpu in gpus])


def to_base64(data: bytes) -> str:
    """The canonical base64 text of ``data``."""
    return base64.b64encode(data).decode()


def parse_evidence(document: dict[str, Any]) -> Evidence:
    """Read evidence from JSON types; raises :class:`AttestationError`."""
    try:
        return Evidence.model_validate(document)
    except ValidationError as error:
        raise AttestationError(f"not evidence: {explain(error)}", reason=Reason.ATTESTATION_INVALID) from error
