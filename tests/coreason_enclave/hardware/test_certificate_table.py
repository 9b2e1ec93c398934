from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.errors import AttestationError, Reason
from coreason_enclave.hardware.certificate_table import parse_certificate_table
from tests.coreason_enclave.hardware.hosts import ARK, ASK, OTHER, VCEK, table

SHORT = table((VCEK, b"vcek"), (ASK, b"ask"))


def entry(guid: bytes, offset: int, length: int) -> bytes:
    return guid + struct.pack("<II", offset, length)


def test_a_guid_stands_as_it_is_written() -> None:
    written = bytes.fromhex("63da758de6644564adc5f4b93be8accd")  # AMD 56421, not Microsoft's mixed order

    assert parse_certificate_table(entry(written, 48, 4) + bytes(24) + b"vcek") == (b"vcek",)


def test_certificates_come_in_the_tables_order_and_other_entries_are_passed_over() -> None:
    found = parse_certificate_table(table((ARK, b"ark"), (OTHER, b"12345678"), (VCEK, b"vcek"), padding=100))

    assert found == (b"ark", b"vcek")


@pytest.mark.parametrize(
    "broken",
    {
        "no end": entry(VCEK, 24, 4) + b"vcek",
        "cut in the entries": SHORT[:60],
        "cut in a certificate": SHORT[:-1],
        "points behind the end": entry(VCEK, 48, 5) + bytes(24) + b"vcek",
        "points far behind the end": entry(VCEK, 2**32 - 1, 2**32 - 1) + bytes(24) + b"vcek",
        "points into the entries": entry(VCEK, 24, 4) + bytes(24) + b"vcek",
        "points into another certificate": entry(VCEK, 72, 4) + entry(ASK, 75, 4) + bytes(24) + b"vcekask",
        "empty certificate": entry(VCEK, 48, 0) + bytes(24) + b"vcek",
        "twice the same": table((VCEK, b"one"), (VCEK, b"two")),
        "too many": table(*((bytes([number]) * 16, b"x") for number in range(1, 18))),
        "an end with content behind nothing": b"\1",
    }.items(),
    ids=lambda pair: pair[0],
)
def test_a_table_that_is_not_exact_is_refused(broken: tuple[str, bytes]) -> None:
    with pytest.raises(AttestationError, match="malformed") as error:
        parse_certificate_table(broken[1])

    assert error.value.reason is Reason.ATTESTATION_UNAVAILABLE


@given(st.binary(max_size=200) | st.builds(lambda junk: SHORT[:48] + junk, st.binary(max_size=80)))
def test_whatever_stands_there_is_read_or_refused(data: bytes) -> None:
    try:
        found = parse_certificate_table(data)
    except AttestationError:
        return

    assert all(certificate and certificate in data for certificate in found)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=4), st.integers(0, 30))
def test_what_a_host_puts_in_comes_out(contents: list[bytes], padding: int) -> None:
    guids = (VCEK, ASK, ARK, OTHER)
    made = table(*zip(guids, contents, strict=False), padding=padding)

    assert parse_certificate_table(made) == tuple(contents[:3])
