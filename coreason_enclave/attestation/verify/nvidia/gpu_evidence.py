"""Parse GPU evidence, either a bare report (binary or hex) or NVIDIA's JSON list with one entry per GPU."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import StringConstraints, ValidationError

from coreason_enclave.attestation.evidence import GpuReport
from coreason_enclave.attestation.verify.nvidia_chain import Chain, canonical_base64, load_pem_chain
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.crypto import parse_json
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.schemas import StrictModel
from coreason_enclave.system import explain

MAX_EVIDENCE_BYTES = 512 * 1024
MAX_GPUS = 16
_HEX = re.compile(rb"(?:[0-9a-f]{2})+[\r\n]*|(?:[0-9A-F]{2})+[\r\n]*")


@dataclass(frozen=True)
class NvidiaEvidence:
    """One GPU's report with its accompanying data.

    Attributes:
        report: Request and response (see :mod:`.spdm`).
        chain: The GPU's certificates, leaf first; None if an endorsement brings them.
        stated_nonce: The nonce that the file states, 32 bytes. The report must agree with it, but agreement proves
            nothing.
    """

    report: bytes
    chain: Chain | None = None
    stated_nonce: bytes | None = None

    @classmethod
    def of(cls, gpu: GpuReport) -> Self:
        """Return one GPU's part of a host's evidence; raises :class:`VerificationRefused` for a malformed chain."""
        return cls(gpu.report_bytes(), load_pem_chain(gpu.chain_bytes(), "a GPU's chain"))


class _DeviceEntry(StrictModel):
    arch: Literal["HOPPER"]
    certificate: str
    evidence: str
    nonce: Annotated[str, StringConstraints(pattern=r"^(?:0x)?[0-9a-fA-F]{64}$")]


def parse_nvidia_evidence(data: bytes) -> tuple[NvidiaEvidence, ...]:
    """Parse the evidence of one or more GPUs; raises :class:`VerificationRefused`."""
    if len(data) > MAX_EVIDENCE_BYTES:
        message = f"evidence of {len(data)} bytes is larger than {MAX_EVIDENCE_BYTES}"
        raise VerificationRefused(Refusal.OVERSIZED, message)
    if data.lstrip().startswith(b"["):
        return _from_list(data)
    if _HEX.fullmatch(data):
        data = bytes.fromhex(data.decode("ascii"))
    return (NvidiaEvidence(data),)


def _from_list(data: bytes) -> tuple[NvidiaEvidence, ...]:
    try:
        # The strict JSON reader takes objects only, so the list becomes an object's single field.
        document = parse_json(b'{"gpus":' + data + b"}", limit=MAX_EVIDENCE_BYTES + 16)
        entries = [_DeviceEntry.model_validate(entry) for entry in document["gpus"]] if len(document) == 1 else []
    except EnvelopeError as error:
        raise VerificationRefused(Refusal.MALFORMED, f"not a list of GPU evidence: {error}") from error
    except ValidationError as error:
        raise VerificationRefused(Refusal.MALFORMED, f"not GPU evidence: {explain(error)}") from error
    if not 1 <= len(entries) <= MAX_GPUS:
        raise VerificationRefused(Refusal.MALFORMED, f"a list of {len(entries)} GPUs, not 1 to {MAX_GPUS}")
    return tuple(_evidence(entry) for entry in entries)


def _evidence(entry: _DeviceEntry) -> NvidiaEvidence:
    report = canonical_base64(_ascii(entry.evidence), "a report")
    pem = canonical_base64(_ascii(entry.certificate), "a GPU's certificate chain")
    return NvidiaEvidence(report, load_pem_chain(pem, "a GPU's chain"), bytes.fromhex(entry.nonce.removeprefix("0x")))


def _ascii(text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError as error:
        raise VerificationRefused(Refusal.MALFORMED, "evidence is not base64") from error
