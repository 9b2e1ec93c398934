"""The protocol of configfs-tsm: generations, lost writes, other writers, busy devices, left-over entries."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from coreason_enclave.attestation.evidence import CpuKind
from coreason_enclave.attestation.verify.snp.report import parse_report
from coreason_enclave.errors import AttestationError
from coreason_enclave.hardware.configfs import fresh_name
from coreason_enclave.hardware.host import HostAttester
from coreason_enclave.hardware.tsm import REPORTS, TsmCollector, provider_here
from tests.coreason_enclave.hardware.devices import Entry, NoDevices, TsmTree, failing
from tests.coreason_enclave.hardware.hosts import (
    KINDS,
    Pauses,
    blob_bytes,
    certificates,
    full_table,
    snp_report,
    tdx_quote,
    tree_of,
    verified,
)

DATA = bytes(range(64))
ATTEMPTS = 6
WRONG_PROVIDERS = ["sev_guest", "arm_cca_guest", "", "tdx_guest2", "\xff"]


@pytest.fixture
def tdx() -> TsmTree:
    return TsmTree("tdx_guest", tdx_quote)


@pytest.fixture
def snp() -> TsmTree:
    return TsmTree("sev_guest", snp_report, full_table(), "0")


def collector(tree: TsmTree, pauses: Pauses | None = None) -> TsmCollector:
    kind = CpuKind.TDX if tree.provider == "tdx_guest" else CpuKind.SNP
    return TsmCollector(tree, kind, pause=pauses or Pauses())


def once(act: Callable[[Entry], None]) -> Callable[[Entry], None]:
    """The act, the first time only."""
    done: list[bool] = []

    def first(entry: Entry) -> None:
        if not done:
            done.append(True)
            act(entry)

    return first


def overwrite(entry: Entry) -> None:
    entry.write(b"another process was here".ljust(64))


def test_another_writer_between_write_and_read_costs_an_attempt(tdx: TsmTree) -> None:
    for moment in ("write inblob", "read outblob", "read provider"):
        tdx.after = {moment: once(overwrite)}
        pauses = Pauses()

        report = collector(tdx, pauses).collect(DATA)

        assert verified(report, DATA).report_data == DATA
        assert len(pauses.taken) == (0 if moment == "read provider" else 1)  # before the first look: no harm done


def test_another_writer_while_certificates_are_read_costs_an_attempt(snp: TsmTree) -> None:
    snp.after = {"read auxblob": once(overwrite)}
    pauses = Pauses()

    assert verified(collector(snp, pauses).collect(DATA), DATA)
    assert len(pauses.taken) == 1


def test_a_writer_that_never_stops_ends_in_a_failure(tdx: TsmTree) -> None:
    tdx.after = {"write inblob": overwrite}
    pauses = Pauses()

    with pytest.raises(AttestationError, match=f"no report in {ATTEMPTS} attempts: generation 2 instead of 1"):
        collector(tdx, pauses).collect(DATA)

    assert len(tdx.made) == ATTEMPTS
    assert len(set(tdx.made)) == ATTEMPTS  # each attempt has an entry that nobody knows yet
    assert pauses.taken == sorted(pauses.taken)
    assert sum(pauses.taken) < 5
    assert tdx.entries == {}


def test_a_lost_write_is_written_again(tdx: TsmTree) -> None:
    tdx.lost = 2

    assert verified(collector(tdx).collect(DATA), DATA)
    assert len(tdx.made) == 3


def test_writes_that_are_always_lost_end_in_a_failure(snp: TsmTree) -> None:
    snp.lost = 1000

    with pytest.raises(AttestationError, match="generation 1 instead of 2: a write was lost"):
        collector(snp).collect(DATA)


def test_a_lost_write_that_still_counts_is_found_by_the_echo(tdx: TsmTree) -> None:
    def lose(entry: Entry) -> None:
        entry.inblob = b"what stood there before".ljust(64)

    tdx.after = {"write inblob": lose}

    with pytest.raises(AttestationError, match="covers other bytes"):
        HostAttester(collector(tdx)).produce(b"context")


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK])
@pytest.mark.parametrize("operation", ["mkdir", "write inblob", "read outblob", "read generation"])
def test_a_busy_device_is_asked_again(tdx: TsmTree, operation: str, number: int) -> None:
    tdx.errors = {operation: [failing(number)] * (ATTEMPTS - 1)}
    pauses = Pauses()

    assert verified(collector(tdx, pauses).collect(DATA), DATA)
    assert len(pauses.taken) == ATTEMPTS - 1
    assert tdx.entries == {}


def test_a_device_that_stays_busy_is_a_failure(tdx: TsmTree) -> None:
    tdx.errors = {"read outblob": [failing(errno.EBUSY)] * ATTEMPTS}

    with pytest.raises(AttestationError, match="attempts: the device is busy"):
        collector(tdx).collect(DATA)

    assert tdx.entries == {}


@pytest.mark.parametrize("provider", WRONG_PROVIDERS)
def test_the_provider_of_another_processor_is_refused_before_anything_is_written(tdx: TsmTree, provider: str) -> None:
    asking = collector(tdx)
    tdx.provider = provider
    tdx.errors = {"write inblob": [AssertionError("written to")]}  # type: ignore[list-item]

    with pytest.raises(AttestationError, match="not to 'tdx_guest'"):
        asking.collect(DATA)

    assert tdx.entries == {}


@pytest.mark.parametrize("generation", [b"", b"-1\n", b"one\n", b"\xb2\n"])
def test_a_generation_that_is_no_number_is_a_failure(tdx: TsmTree, generation: bytes) -> None:
    read = tdx.read
    tdx.read = lambda path: generation if path.endswith("/generation") else read(path)  # type: ignore[method-assign]

    with pytest.raises(AttestationError, match="as a generation"):
        collector(tdx).collect(DATA)


@pytest.mark.parametrize("floor", ["0", "2", "3"])
def test_the_report_names_the_guests_own_privilege_level(snp: TsmTree, floor: str) -> None:
    snp.floor = floor

    report = collector(snp).collect(DATA)

    assert parse_report(report.report_bytes()).vmpl == int(floor)


@pytest.mark.parametrize("floor", ["", "4", "-1", "0x1", "two", "²"])
def test_a_privilege_level_that_does_not_exist_is_a_failure(snp: TsmTree, floor: str) -> None:
    snp.floor = floor

    with pytest.raises(AttestationError, match="privilege level"):
        collector(snp).collect(DATA)


def test_a_kernel_without_privilege_levels_is_asked_at_its_default(snp: TsmTree) -> None:
    snp.floor = None

    assert parse_report(collector(snp).collect(DATA).report_bytes()).vmpl == 0


def test_the_hosts_certificates_come_with_the_report(snp: TsmTree) -> None:
    report = collector(snp).collect(DATA)

    assert tuple(blob_bytes(blob) for blob in report.certificates) == certificates()


@pytest.mark.parametrize("table", [None, b"", bytes(4096)], ids=["no attribute", "empty", "zeros"])
def test_a_host_may_hand_over_no_certificates(snp: TsmTree, table: bytes | None) -> None:
    snp.auxblob = table

    assert collector(snp).collect(DATA).certificates == ()


def test_a_malformed_certificate_table_is_a_failure(snp: TsmTree) -> None:
    snp.auxblob = full_table()[:-5000]

    with pytest.raises(AttestationError, match="certificate table is malformed"):
        collector(snp).collect(DATA)

    assert snp.entries == {}


def test_two_threads_at_once_get_a_report_each(snp: TsmTree) -> None:
    both_have_written = threading.Barrier(2, timeout=30)
    reached = threading.local()

    def wait(entry: Entry) -> None:
        if not getattr(reached, "once", False):
            reached.once = True
            snp.lock.release()
            both_have_written.wait()
            snp.lock.acquire()

    snp.after = {"write inblob": wait}
    asked = [bytes([number]) * 64 for number in (1, 2)]
    with ThreadPoolExecutor(2) as threads:
        reports = list(threads.map(collector(snp).collect, asked))

    assert [parse_report(report.report_bytes()).report_data for report in reports] == asked
    assert len(set(snp.made)) == len(snp.made) == 2
    assert snp.entries == {}


def dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def left_by(pid: int | str, namespace: str | None = None) -> str:
    prefix, own, _, random = fresh_name().split("-")
    return f"{REPORTS}/{prefix}-{namespace or own}-{pid}-{random}"


def test_entries_of_dead_processes_are_removed_and_nobody_elses(tdx: TsmTree) -> None:
    dead = dead_process()
    stay = {
        left_by(os.getpid()),
        left_by(os.getppid()),
        left_by(dead, namespace="1"),
        f"{REPORTS}/aegis-report0",
        f"{REPORTS}/somebody-else-{dead}",
        left_by("99999999999"),
    }
    tdx.entries = {path: Entry() for path in (*stay, left_by(dead), left_by(dead))}

    collector(tdx).collect(DATA)

    assert set(tdx.entries) == stay


def test_an_entry_that_cannot_be_removed_harms_nobody(tdx: TsmTree) -> None:
    tdx.entries = {left_by(dead_process()): Entry()}
    tdx.errors = {"rmdir": [failing(errno.EACCES), failing(errno.EBUSY)]}

    assert verified(collector(tdx).collect(DATA), DATA)
    assert len(tdx.entries) == 2

    collector(tdx).collect(DATA)

    assert tdx.entries.keys() == {tdx.made[0]}  # our own, which is removed once we have ended


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sgx"])
def test_the_provider_of_a_host_is_told(kind: str) -> None:
    tree = tree_of(kind)
    assert isinstance(tree, TsmTree)

    assert provider_here(tree) == tree.provider
    assert tree.entries == {}


def test_a_host_without_a_provider_has_none(tdx: TsmTree) -> None:
    assert provider_here(NoDevices()) is None
    tdx.errors = {"mkdir": [failing(errno.ENXIO)]}
    assert provider_here(tdx) is None


def test_a_provider_that_may_not_be_asked_is_not_taken_for_none(tdx: TsmTree) -> None:
    tdx.errors = {"mkdir": [failing(errno.EACCES, "sys")]}

    with pytest.raises(AttestationError, match="at /sys: Permission denied"):
        provider_here(tdx)
