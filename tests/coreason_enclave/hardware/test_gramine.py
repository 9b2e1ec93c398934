"""Gramine's files belong to the whole enclave: threads take turns, and whoever interferes is found."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from coreason_enclave.attestation.verify.dcap.quote import parse_quote
from coreason_enclave.errors import AttestationError
from coreason_enclave.hardware.gramine import GramineCollector
from coreason_enclave.hardware.host import HostAttester
from tests.coreason_enclave.hardware.devices import GramineTree
from tests.coreason_enclave.hardware.hosts import sgx_quote


@pytest.mark.parametrize("found", ["none", "epid", "", "DCAP", "dcap2"])
def test_only_dcap_quotes_are_collected(found: str) -> None:
    tree = GramineTree(sgx_quote, attestation_type=found)

    with pytest.raises(AttestationError, match="attestation type"):
        GramineCollector(tree).collect(bytes(64))

    assert tree.user_report_data == bytes(64)


def test_the_type_may_end_in_a_line_break() -> None:
    assert GramineCollector(GramineTree(sgx_quote, attestation_type="dcap\n")).collect(bytes(64))


def test_somebody_else_in_the_enclave_who_interferes_is_found() -> None:
    def interfere(tree: GramineTree) -> None:
        tree.user_report_data = b"x" * 64

    with pytest.raises(AttestationError, match="covers other bytes"):
        HostAttester(GramineCollector(GramineTree(sgx_quote, between=interfere))).produce(b"context")


def test_threads_take_turns_even_through_collectors_of_their_own() -> None:
    inside: list[int] = []
    max_at_once: list[int] = []
    started = threading.Barrier(4, timeout=30)

    def enter(tree: GramineTree) -> None:
        inside.append(1)
        max_at_once.append(len(inside))

    tree = GramineTree(sgx_quote, between=enter)
    read = tree.read

    def leave(path: str) -> bytes:
        answer = read(path)
        if path.endswith("/quote"):
            inside.pop()
        return answer

    tree.read = leave  # type: ignore[method-assign]
    asked = [bytes([number]) * 64 for number in range(4)]

    def collect(data: bytes) -> bytes:
        started.wait()
        return parse_quote(GramineCollector(tree).collect(data).report_bytes()).fields["report_data"]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(collect, asked)) == asked

    assert max_at_once == [1] * 4
