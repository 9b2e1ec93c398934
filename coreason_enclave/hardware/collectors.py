"""Interfaces of evidence collectors, and their single failure ``attestation_unavailable``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from coreason_enclave.attestation import CpuKind, CpuReport, GpuReport, to_base64
from coreason_enclave.attestation.verify.dcap import without_padding
from coreason_enclave.errors import AttestationError, Reason
from coreason_enclave.schemas import explained

REPORT_DATA_BYTES = 64
NONCE_BYTES = 32


class CpuCollector(Protocol):
    """A collector of reports from this host's processor."""

    @property
    def kind(self) -> CpuKind:
        """Kind of report from :meth:`collect`."""
        ...

    def collect(self, report_data: bytes) -> CpuReport:
        """Return a report over ``report_data`` (64 bytes). The caller checks that the report covers these bytes.

        Raises:
            AttestationError: ``attestation_unavailable``.
        """
        ...


class GpuCollector(Protocol):
    """A collector of reports from this host's GPUs."""

    def collect(self, nonce: bytes) -> tuple[GpuReport, ...]:
        """Return a report of every GPU over ``nonce`` (32 bytes). The caller checks that the reports cover the nonce.

        Raises:
            AttestationError: ``attestation_unavailable``.
        """
        ...


def unavailable(message: str) -> AttestationError:
    """Return the error for missing evidence; ``message`` names the missing device or the wrong answer."""
    return AttestationError(message, reason=Reason.ATTESTATION_UNAVAILABLE)


@contextmanager
def answering(device: str) -> Iterator[None]:
    """Turn an ``OSError`` from ``device`` into :class:`AttestationError`."""
    try:
        yield
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        raise unavailable(f"{device} did not answer{where}: {error.strerror or error}") from error


def cpu_report(kind: CpuKind, report: bytes, certificates: Sequence[bytes] = ()) -> CpuReport:
    """Wrap a processor's answer as a :class:`CpuReport`.

    SGX and TDX devices pad a quote with zeros; this function removes the padding.

    Raises:
        AttestationError: The answer is empty or larger than evidence may be.
    """
    if not report:
        raise unavailable(f"this host's {kind} device answered with an empty report")
    if kind in (CpuKind.SGX, CpuKind.TDX):
        report = without_padding(report)
    with explained(lambda _: unavailable(f"this host's {kind} device answered with more bytes than evidence may hold")):
        return CpuReport(kind=kind, report=to_base64(report), certificates=tuple(map(to_base64, certificates)))
