"""Collect reports and certificates of NVIDIA GPUs in confidential-computing mode, through NVIDIA's NVML library."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from coreason_enclave.attestation import GpuReport, to_base64
from coreason_enclave.hardware.collectors import NONCE_BYTES, unavailable
from coreason_enclave.schemas import explained


class NvmlSession(Protocol):
    """An initialised NVML library. GPU numbers start at 0. Failures raise :class:`AttestationError`."""

    def confidential_computing(self) -> bool:
        """Return True if the driver runs its GPUs in confidential-computing mode."""
        ...

    def gpus(self) -> int:
        """Return the number of GPUs."""
        ...

    def architecture(self, gpu: int) -> str:
        """Return ``HOPPER``, or another architecture name."""
        ...

    def report(self, gpu: int, nonce: bytes) -> bytes:
        """Return the SPDM request and the GPU's signed response."""
        ...

    def certificates(self, gpu: int) -> bytes:
        """Return the attestation certificates (PEM, leaf first)."""
        ...


class Nvml(Protocol):
    """NVIDIA's management library (NVML)."""

    def opened(self) -> AbstractContextManager[NvmlSession]:
        """Initialise the library for the duration of a ``with`` block.

        Raises:
            AttestationError: The library or the driver is missing.
        """
        ...


class NvidiaCollector:
    """A collector of one report for each GPU of this host."""

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml

    def collect(self, nonce: bytes) -> tuple[GpuReport, ...]:
        """See :meth:`.collectors.GpuCollector.collect`."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a GPU's nonce must have {NONCE_BYTES} bytes, not {len(nonce)}")
        with self._nvml.opened() as session:
            count = session.gpus()
            if not count:
                raise unavailable("NVIDIA's driver is running, but sees no GPU")
            if not session.confidential_computing():
                raise unavailable("the GPUs of this host are not in confidential-computing mode: switch the mode on")
            return tuple(_report(session, gpu, nonce) for gpu in range(count))


def _report(session: NvmlSession, gpu: int, nonce: bytes) -> GpuReport:
    architecture = session.architecture(gpu)
    report, certificates = session.report(gpu, nonce), session.certificates(gpu)
    if not report or not certificates:
        raise unavailable(f"GPU {gpu} answered with an empty {'certificate chain' if report else 'report'}")
    fields = {
        "arch": architecture,
        "report": to_base64(report),
        "certificate_chain": to_base64(certificates),
    }
    message = f"GPU {gpu} ({architecture}) has an architecture whose evidence is not supported: HOPPER is supported"
    with explained(lambda _: unavailable(message)):
        return GpuReport.model_validate(fields)
