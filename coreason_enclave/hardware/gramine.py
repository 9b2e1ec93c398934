"""Collect Intel SGX quotes under Gramine, through the files that its library OS shows to the enclave.

Files: ``/dev/attestation/attestation_type``, ``user_report_data`` and ``quote`` (Gramine documentation, "Attestation
and Secret Provisioning"). All threads of a process share these files. A lock keeps one thread from reading another's
quote.
"""

from __future__ import annotations

import threading

from coreason_enclave.attestation import CpuKind, CpuReport
from coreason_enclave.hardware.collectors import REPORT_DATA_BYTES, answering, cpu_report, unavailable
from coreason_enclave.hardware.devices import DeviceTree

ATTESTATION = "dev/attestation"
_ONE_AT_A_TIME = threading.Lock()


class GramineCollector:
    """A collector of SGX quotes (DCAP) inside Gramine."""

    kind = CpuKind.SGX

    def __init__(self, tree: DeviceTree) -> None:
        self._tree = tree

    def collect(self, report_data: bytes) -> CpuReport:
        """See :meth:`.collectors.CpuCollector.collect`."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise ValueError(f"report data must have {REPORT_DATA_BYTES} bytes, not {len(report_data)}")
        if not self._tree.exists(f"{ATTESTATION}/attestation_type"):
            raise unavailable(f"this host runs no SGX enclave under Gramine: no /{ATTESTATION}/attestation_type")
        with answering("Gramine"):
            self._require_dcap()
            with _ONE_AT_A_TIME:
                self._tree.write(f"{ATTESTATION}/user_report_data", report_data)
                quote = self._tree.read(f"{ATTESTATION}/quote")
        return cpu_report(self.kind, quote)

    def _require_dcap(self) -> None:
        kind = self._tree.read(f"{ATTESTATION}/attestation_type").decode("ascii", "replace").strip()
        if kind != "dcap":
            message = f"this Gramine enclave's attestation type is {kind[:32]!r}: set sgx.remote_attestation = 'dcap'"
            raise unavailable(message)
