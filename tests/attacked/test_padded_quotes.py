"""Quotes with a tail: zeros change nothing wherever a quote goes, anything else is refused.

A cloud's guest reads its quote out of a buffer of 8,000 bytes. Where the quote ends is worked out here once more, from
the lengths in its bytes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from coreason_enclave.attestation.verify.dcap import DcapPlatformPolicy
from coreason_enclave.attestation.verify.dcap.quote import MAX_QUOTE_BYTES, parse_quote, without_padding
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from tests.coreason_enclave.attestation.dcap.hierarchy import NOW, Intel, td_report
from tests.coreason_enclave.hardware.devices import GramineTree, TsmTree
from tests.coreason_enclave.hardware.hosts import collector_of, sgx_quote, tdx_quote, verified

CLOUD_BUFFER = 8_000
DATA = bytes(range(64))
RECORDED = os.environ.get("AEGIS_EVIDENCE_DIR")


def end_of(quote: bytes) -> int:
    """Where the signature data's own length says that the quote ends."""
    version = struct.unpack_from("<H", quote)[0]
    body_ends = {3: 48 + 384, 4: 48 + 584}
    at = body_ends[version] if version in body_ends else 48 + 6 + int(struct.unpack_from("<I", quote, 50)[0])
    return at + 4 + int(struct.unpack_from("<I", quote, at)[0])


def quotes() -> Iterator[tuple[Intel, bytes]]:
    sgx, tdx = Intel(kind="sgx"), Intel(kind="tdx")
    yield sgx, sgx.quote()
    yield tdx, tdx.quote()
    yield tdx, tdx.quote(version=5)
    yield tdx, tdx.quote(td_report(version_15=True), version=5)


@pytest.fixture(scope="module")
def made() -> list[tuple[Intel, bytes]]:
    return list(quotes())


def refusal_of(quote: bytes) -> Refusal | None:
    try:
        parse_quote(quote)
    except VerificationRefused as refused:
        return refused.refusal
    return None


def test_zeros_behind_a_quote_change_nothing_of_its_verdict(made: list[tuple[Intel, bytes]]) -> None:
    for world, quote in made:
        exact = world.verifier.verify(world.kind, quote, world.endorsements(), DcapPlatformPolicy(), NOW)
        for size in (1, 70, CLOUD_BUFFER - len(quote), MAX_QUOTE_BYTES - len(quote)):
            padded = quote + bytes(size)
            found = world.verifier.verify(world.kind, padded, world.endorsements(), DcapPlatformPolicy(), NOW)
            assert found == exact
            assert parse_quote(padded).raw == quote == padded[: end_of(padded)]


def test_a_tail_with_one_byte_that_is_not_zero_is_refused(made: list[tuple[Intel, bytes]]) -> None:
    for _, quote in made:
        for at in (0, 1, 69, 70, 500, CLOUD_BUFFER - len(quote) - 1):
            tail = bytearray(CLOUD_BUFFER - len(quote))
            tail[at] = 1
            assert refusal_of(quote + bytes(tail)) is Refusal.MALFORMED
        assert refusal_of(quote + quote) is Refusal.MALFORMED
        assert refusal_of(quote + bytes(70) + quote) is Refusal.MALFORMED


def test_zeros_do_not_make_up_for_what_a_cut_quote_lacks(made: list[tuple[Intel, bytes]]) -> None:
    """The lengths in the quote decide: a quote without its last bytes, in a full buffer, is another quote."""
    for world, quote in made:
        for lost in (1, 64, 700):
            padded = quote.rstrip(b"\0")[:-lost] + bytes(lost + 100)
            with pytest.raises(VerificationRefused):
                world.verifier.verify(world.kind, padded, world.endorsements(), DcapPlatformPolicy(), NOW)


def test_a_buffer_beyond_the_limit_is_refused_unread(made: list[tuple[Intel, bytes]]) -> None:
    for _, quote in made:
        assert refusal_of(quote + bytes(MAX_QUOTE_BYTES + 1 - len(quote))) is Refusal.OVERSIZED


def test_a_host_sends_its_quote_without_the_buffer_around_it() -> None:
    for size in (70, CLOUD_BUFFER, 60_000):
        tsm = TsmTree("tdx_guest", lambda data, level, size=size: tdx_quote(data).ljust(size, b"\0"))
        gramine = GramineTree(lambda data, level, size=size: sgx_quote(data).ljust(size, b"\0"))
        for kind, tree in (("tdx", tsm), ("sgx", gramine)):
            report = collector_of(kind, tree).collect(DATA)
            assert len(report.report_bytes()) == end_of(report.report_bytes())
            assert verified(report, DATA).report_data == DATA


def test_a_host_sends_anything_else_than_zeros_as_it_came() -> None:
    """What is wrong with it is for the verifier to say."""
    odd = tdx_quote(DATA) + bytes(100) + b"\1"
    report = collector_of("tdx", TsmTree("tdx_guest", lambda data, level: odd)).collect(DATA)
    assert report.report_bytes() == odd
    for text in (b"", b"\0", bytes(5000), b"x" * 5000, tdx_quote(DATA)[:-1]):
        assert without_padding(text) == text


@pytest.mark.recorded
@pytest.mark.skipif(not RECORDED, reason="AEGIS_EVIDENCE_DIR is not set")
def test_a_clouds_recorded_quote_parses_and_its_tail_is_held_to_zeros() -> None:
    padded = (Path(RECORDED or "") / "tdx/gcp_quote_padded.bin").read_bytes()
    quote = parse_quote(padded)
    assert (len(padded), len(quote.raw), end_of(padded)) == (CLOUD_BUFFER, 4935, 4935)
    assert (quote.kind, quote.version) == ("tdx", 4)
    assert parse_quote(quote.raw) == quote
    assert without_padding(padded) == quote.raw
    for at in range(4935, CLOUD_BUFFER, 97):
        assert refusal_of(padded[:at] + b"\1" + padded[at + 1 :]) is Refusal.MALFORMED


@pytest.mark.slow
def test_every_length_of_zeros_up_to_the_limit_parses_to_the_same_quote(made: list[tuple[Intel, bytes]]) -> None:
    for _, quote in made:
        exact = parse_quote(quote)
        for size in range(MAX_QUOTE_BYTES - len(quote) + 1):
            assert parse_quote(quote + bytes(size)) == exact


@pytest.mark.slow
def test_every_place_and_bit_of_a_tail_is_held_to_zero(made: list[tuple[Intel, bytes]]) -> None:
    for _, quote in made:
        for at in range(len(quote), CLOUD_BUFFER):
            for bit in range(8):
                tail = bytearray(CLOUD_BUFFER - len(quote))
                tail[at - len(quote)] = 1 << bit
                assert refusal_of(quote + bytes(tail)) is Refusal.MALFORMED
