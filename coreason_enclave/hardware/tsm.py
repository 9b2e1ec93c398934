"""Collect Intel TDX and AMD SEV-SNP reports through configfs-tsm.

Interface: Linux 6.7 and later, Documentation/ABI/testing/configfs-tsm-report. The collector creates a folder (an
entry) for each attempt, writes ``inblob`` and reads ``outblob``. Two hazards exist:

- The kernel commits ``inblob`` when the file closes and drops the error.
- Any process with the same rights can write into the entry.

After its writes and after each read, the collector therefore requires that ``generation`` has risen by exactly the
number of its own writes.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from coreason_enclave.attestation import CpuKind, CpuReport
from coreason_enclave.errors import AttestationError
from coreason_enclave.hardware import configfs as entries
from coreason_enclave.hardware.certificate_table import parse_certificate_table
from coreason_enclave.hardware.collectors import REPORT_DATA_BYTES, answering, cpu_report, unavailable
from coreason_enclave.hardware.devices import DeviceTree

REPORTS = "sys/kernel/config/tsm/report"
PROVIDERS = {CpuKind.TDX: "tdx_guest", CpuKind.SNP: "sev_guest"}

_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Pauses between attempts, in seconds: the hypervisor serves one guest at a time, and throttles."""
_BUSY = (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK)


class _Disturbed(Exception):
    """A failed attempt; the collector tries again with a new entry."""


class TsmCollector:
    """A collector of TDX quotes or SEV-SNP reports.

    Args:
        kind: ``tdx`` or ``snp``; must match the kernel's provider.
        pause: Sleeps for the given number of seconds.
    """

    def __init__(self, tree: DeviceTree, kind: CpuKind, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._tree = tree
        self._kind = kind
        self._provider = PROVIDERS[kind]
        self._pause = pause

    @property
    def kind(self) -> CpuKind:
        """Kind of report from :meth:`collect`."""
        return self._kind

    def collect(self, report_data: bytes) -> CpuReport:
        """See :meth:`.collectors.CpuCollector.collect`. A SEV-SNP report includes the certificates from the host."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise ValueError(f"report data must have {REPORT_DATA_BYTES} bytes, not {len(report_data)}")
        if not self._tree.exists(REPORTS):
            raise unavailable(f"this host has no configfs-tsm at /{REPORTS} (Linux 6.7 or later, configfs mounted)")
        last = ""
        for pause in (*_PAUSES_S, None):
            try:
                with answering("configfs-tsm"), _busy_as_disturbed():
                    return self._attempt(report_data)
            except _Disturbed as disturbed:
                last = str(disturbed)
            if pause is not None:
                self._pause(pause)
        raise unavailable(f"configfs-tsm gave no report in {len(_PAUSES_S) + 1} attempts: {last}")

    def _attempt(self, report_data: bytes) -> CpuReport:
        entries.remove_left_over(self._tree, REPORTS)
        with _entry(self._tree) as entry:
            self._require_provider(entry)
            due = self._generation(entry) + self._set_privilege_level(entry) + 1
            self._tree.write(f"{entry}/inblob", report_data)
            self._require_generation(entry, due)
            report = self._read(entry, "outblob", due)
            with_table = self._kind is CpuKind.SNP and self._tree.exists(f"{entry}/auxblob")
            table = self._read(entry, "auxblob", due) if with_table else b""
        return cpu_report(self._kind, report, parse_certificate_table(table))

    def _require_provider(self, entry: str) -> None:
        provider = _text(self._tree, entry, "provider")
        if provider != self._provider:
            raise unavailable(f"configfs-tsm on this host belongs to {provider[:32]!r}, not to {self._provider!r}")

    def _set_privilege_level(self, entry: str) -> int:
        """Request a report at the guest's own privilege level (VMPL), not a lesser one; return the number of writes."""
        if not self._tree.exists(f"{entry}/privlevel_floor"):
            return 0
        floor = _text(self._tree, entry, "privlevel_floor")
        if floor not in ("0", "1", "2", "3"):
            raise unavailable(f"configfs-tsm names {floor[:32]!r} as this guest's privilege level, not 0 to 3")
        self._tree.write(f"{entry}/privlevel", floor.encode())
        return 1

    def _read(self, entry: str, attribute: str, due: int) -> bytes:
        data = self._tree.read(f"{entry}/{attribute}")
        self._require_generation(entry, due)
        return data

    def _require_generation(self, entry: str, due: int) -> None:
        generation = self._generation(entry)
        if generation != due:
            raise _Disturbed(f"generation {generation} instead of {due}: a write was lost, or another process wrote")

    def _generation(self, entry: str) -> int:
        text = _text(self._tree, entry, "generation")
        if not (text.isascii() and text.isdecimal()):
            raise unavailable(f"configfs-tsm names {text[:32]!r} as a generation")
        return int(text)


def provider_here(tree: DeviceTree) -> str | None:
    """Return the configfs-tsm provider of this host, or None without a provider.

    Raises:
        AttestationError: configfs-tsm exists but does not name its provider, for example for want of permission.
    """
    if not tree.exists(REPORTS):
        return None
    try:
        with answering("configfs-tsm"), _entry(tree) as entry:
            return _text(tree, entry, "provider")
    except AttestationError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENXIO:  # mounted, without a provider
            return None
        raise


@contextmanager
def _entry(tree: DeviceTree) -> Iterator[str]:
    path = f"{REPORTS}/{entries.fresh_name()}"
    tree.mkdir(path)
    try:
        yield path
    finally:
        with suppress(OSError):  # keep the report; a later call removes the entry once this process has ended
            tree.rmdir(path)


@contextmanager
def _busy_as_disturbed() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _BUSY:
            raise
        raise _Disturbed(f"the device is busy ({error.strerror})") from error


def _text(tree: DeviceTree, entry: str, attribute: str) -> str:
    return tree.read(f"{entry}/{attribute}").decode("ascii", "replace").strip()
