"""What every collector of a processor's report has to do, run over each of them on a fake device tree."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from coreason_enclave.attestation.binding import report_data
from coreason_enclave.errors import AttestationError, Reason
from coreason_enclave.hardware.collectors import CpuCollector
from coreason_enclave.hardware.devices import HostDevices
from coreason_enclave.hardware.discovery import attester_named
from coreason_enclave.hardware.host import HostAttester
from tests.coreason_enclave.hardware.devices import NoDevices, TsmTree, failing
from tests.coreason_enclave.hardware.hosts import KINDS, Pauses, collector_of, tree_of, verified

DATA = bytes(range(64))

pytestmark = pytest.mark.parametrize("kind", KINDS)


def refused(collector: CpuCollector) -> str:
    """What it says when it refuses, for the reason that it has to have."""
    with pytest.raises(AttestationError) as error:
        HostAttester(collector).produce(b"context")
    assert error.value.reason is Reason.ATTESTATION_UNAVAILABLE
    return str(error.value)


def test_the_report_is_of_its_kind_and_verifies_over_the_bytes_that_were_asked_for(kind: str) -> None:
    collector = collector_of(kind, tree_of(kind))

    report = collector.collect(DATA)

    assert report.kind == collector.kind == kind
    assert verified(report, DATA).report_data == DATA


def test_evidence_is_bound_to_its_context(kind: str) -> None:
    evidence = HostAttester(collector_of(kind, tree_of(kind))).produce(b"context")

    assert evidence.gpus == ()
    assert verified(evidence.cpu, report_data(b"context", ())).kind == kind


def test_only_64_bytes_are_taken(kind: str) -> None:
    for length in (0, 63, 65):
        with pytest.raises(ValueError, match="64 bytes"):
            collector_of(kind, tree_of(kind)).collect(bytes(length))


def test_without_its_device_it_says_where_it_looked(kind: str, tmp_path: Path) -> None:
    place = "/dev/attestation" if kind == "sgx" else "/sys/kernel/config/tsm/report"

    assert place in refused(collector_of(kind, NoDevices()))  # type: ignore[arg-type]
    assert place in refused(collector_of(kind, HostDevices(tmp_path)))  # type: ignore[arg-type]


def test_on_this_host_nothing_is_made_up(kind: str) -> None:
    if HostDevices().exists("sys/kernel/config/tsm/report" if kind != "sgx" else "dev/attestation"):
        pytest.skip("this host has the device")
    with pytest.raises(AttestationError) as error:
        attester_named(kind).produce(b"context")

    assert error.value.reason is Reason.ATTESTATION_UNAVAILABLE


def test_an_empty_report_is_a_failure(kind: str) -> None:
    tree = tree_of(kind)
    tree.sign = lambda data, level: b""

    assert "empty" in refused(collector_of(kind, tree))


def test_a_report_over_other_bytes_is_a_failure(kind: str) -> None:
    tree = tree_of(kind)
    genuine = tree.sign
    tree.sign = lambda data, level: genuine(b"somebody else's", level)

    assert "other bytes" in refused(collector_of(kind, tree))


def test_something_that_is_no_report_is_a_failure(kind: str) -> None:
    for answer in (b"\0", b"quote", bytes(1184), bytes(60_000)):
        tree = tree_of(kind)
        tree.sign = lambda data, level, answer=answer: answer  # type: ignore[misc]

        assert "data that is not a report" in refused(collector_of(kind, tree))


def test_more_than_evidence_may_hold_is_a_failure(kind: str) -> None:
    tree = tree_of(kind)
    tree.sign = lambda data, level: bytes(70_000)

    assert "more bytes than evidence may hold" in refused(collector_of(kind, tree))


def test_a_report_of_another_kind_is_a_failure(kind: str) -> None:
    tree = tree_of(kind)
    tree.sign = tree_of({"tdx": "sgx", "sgx": "tdx", "snp": "tdx"}[kind]).sign

    assert "answered with" in refused(collector_of(kind, tree))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENXIO, errno.EINVAL, errno.ETIMEDOUT])
def test_an_error_of_the_system_is_told_and_leaves_nothing_behind(kind: str, number: int) -> None:
    tree = tree_of(kind)
    operations = ["write user_report_data", "read quote", "read attestation_type"]
    if isinstance(tree, TsmTree):
        operations = ["mkdir", "read provider", "write inblob", "read generation", "read outblob"]
    for operation in operations:
        tree.errors[operation] = [failing(number, operation)]
        pauses = Pauses()

        assert failing(number).strerror in refused(collector_of(kind, tree, pauses))
        assert not getattr(tree, "entries", None)
        assert pauses.taken == []
