"""Endorsements from files, sorted by their content and not by their names."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from coreason_enclave.attestation import CpuReport, GpuReport
from coreason_enclave.attestation.verify import Refusal, VerificationRefused
from coreason_enclave.attestation.verify.dcap import DcapEndorsements
from coreason_enclave.attestation.verify.nvidia import NvidiaEndorsements
from coreason_enclave.attestation.verify.snp import SnpEndorsements, read_certificate
from coreason_enclave.crypto import parse_json
from coreason_enclave.errors import EnvelopeError

_SEQUENCE, _ENUMERATED = 0x30, 0x0A


def dcap_endorsements(files: Sequence[bytes]) -> DcapEndorsements:
    """Return the one collateral of a quote.

    Raises:
        VerificationRefused: the caller gave several files.
    """
    if len(files) > 1:
        message = f"{len(files)} endorsement files; a quote needs exactly one collateral document"
        raise VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, message)
    return DcapEndorsements(files[0] if files else None)


def handed_over(report: CpuReport) -> tuple[bytes, ...]:
    """Return the certificates that a platform delivered with its report."""
    return tuple(base64.b64decode(blob) for blob in report.certificates)


@dataclass(frozen=True)
class GivenEndorsements:
    """An endorsement source over the files of one command, for a host's processor and GPUs. Looks nowhere else."""

    of_dcap: tuple[bytes, ...] = ()
    of_snp: tuple[bytes, ...] = ()
    of_nvidia: tuple[bytes, ...] = ()

    @classmethod
    def from_files(cls, files: Iterable[bytes]) -> Self:
        """Sort the contents of files by vendor.

        Raises:
            VerificationRefused: ``malformed``: a file matches no known form.
        """
        sorted_: dict[str, list[bytes]] = {"dcap": [], "snp": [], "nvidia": []}
        for content in files:
            sorted_[_vendor(content)].append(content)
        return cls(*(tuple(sorted_[vendor]) for vendor in ("dcap", "snp", "nvidia")))

    def dcap(self, report: CpuReport, now: int) -> DcapEndorsements:
        """Return the collateral from the files."""
        del report, now
        return dcap_endorsements(self.of_dcap)

    def snp(self, report: CpuReport, now: int) -> SnpEndorsements:
        """Return the certificates from the files, and those delivered with the host's report."""
        del now
        return SnpEndorsements.from_files((*self.of_snp, *handed_over(report)))

    def nvidia(self, gpus: Sequence[GpuReport], now: int) -> tuple[NvidiaEndorsements, ...]:
        """Return the same manifests and revocation result for each GPU."""
        del now
        return (NvidiaEndorsements.from_files(self.of_nvidia),) * len(gpus)


def unreadable(content: bytes, kind: str) -> VerificationRefused | None:
    """Return the reason why one endorsement file for evidence of ``kind`` cannot be read; None if readable.

    Looks at the file alone.
    """
    if content[:64].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return VerificationRefused(Refusal.MALFORMED, "a web page, not an endorsement")
    try:
        endorsements = GivenEndorsements.from_files([content])
        if kind == "snp":
            for der in SnpEndorsements.from_files(endorsements.of_snp).certificates:
                read_certificate(der)
        if kind == "nvidia":
            NvidiaEndorsements.from_files([content])
    except VerificationRefused as error:
        return error
    return None


def _vendor(content: bytes) -> str:
    text = content.lstrip(b" \t\r\n")
    if text.startswith(b"{"):
        return "dcap" if "tcb_info" in _object(content) else "nvidia"
    if text.startswith(b"<"):
        return "nvidia"
    if text.startswith(b"-----BEGIN "):
        return "snp"
    if content[:1] == bytes([_SEQUENCE]):
        return "nvidia" if _is_ocsp_answer(content) else "snp"
    raise VerificationRefused(Refusal.MALFORMED, "an endorsement is neither PEM, XML, JSON nor DER")


def _object(content: bytes) -> dict[str, object]:
    try:
        return parse_json(content)
    except EnvelopeError as error:
        raise VerificationRefused(Refusal.MALFORMED, f"not an endorsement: {error}") from error


def _is_ocsp_answer(der: bytes) -> bool:
    """Return True if the first element is an ENUMERATED status; certificates and lists start with signed data."""
    header = 2 + (der[1] & 0x7F if len(der) > 1 and der[1] & 0x80 else 0)
    return der[header : header + 1] == bytes([_ENUMERATED])
