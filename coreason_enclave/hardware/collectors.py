"""The ports of what collects evidence on a host, and the one way in which a collector fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from pydantic import ValidationError

from coreason_enclave.attestation.evidence import CpuKind, CpuReport, GpuReport, to_base64
from coreason_enclave.attestation.verify.dcap.quote import without_padding
from coreason_enclave.errors import AttestationError, Reason

__all__ = ["NONCE_BYTES", "REPORT_DATA_BYTES", "CpuCollector", "GpuCollector", "answering", "cpu_report", "unavailable"]

REPORT_DATA_BYTES = 64
NONCE_BYTES = 32


class CpuCollector(Protocol):
    """Asks this host's processor for a report."""

    @property
    def kind(self) -> CpuKind:
        """What :meth:`collect` returns."""
        ...

    def collect(self, report_data: bytes) -> CpuReport:
        """A report over ``report_data``, 64 bytes. Whether it covers them is for the caller to check.

        Raises:
            AttestationError: ``attestation_unavailable``.
        """
        ...


class GpuCollector(Protocol):
    """Asks this host's GPUs for reports."""

    def collect(self, nonce: bytes) -> tuple[GpuReport, ...]:
        """A report of every GPU over ``nonce``, 32 bytes. Whether they cover it is for the caller to check.

        Raises:
            AttestationError: ``attestation_unavailable``.
        """
        ...


def unavailable(message: str) -> AttestationError:
    """No evidence can be had here; ``message`` says what was looked for, or what answered wrongly."""
    return AttestationError(message, reason=Reason.ATTESTATION_UNAVAILABLE)


@contextmanager
def answering(device: str) -> Iterator[None]:
    """Turn what the system says about ``device`` into :class:`AttestationError`."""
    try:
        yield
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        raise unavailable(f"{device} did not answer{where}: {error.strerror or error}") from error


def cpu_report(kind: CpuKind, report: bytes, certificates: Sequence[bytes] = ()) -> CpuReport:
    """Wrap what a processor answered; an empty or oversized answer raises :class:`AttestationError`.

    A quote is handed over in a buffer with zeros behind it: those are left out.
    """
    if not report:
        raise unavailable(f"this host's {kind} device answered with an empty report")
    if kind in (CpuKind.SGX, CpuKind.TDX):
        report = without_padding(report)
    try:
        return CpuReport(kind=kind, report=to_base64(report), certificates=tuple(map(to_base64, certificates)))
    except ValidationError as error:
        raise unavailable(f"this host's {kind} device answered with more than evidence may hold") from error
