"""The report's format: exactly as long as it is, nothing set that has no meaning."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coreason_enclave.attestation.verify.snp import SigningKey, SnpProduct, parse_report
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from tests.coreason_enclave.attestation.snp.hierarchy import DATA, Vendor

REPORT = {version: Vendor().report(version) for version in (2, 3, 5)}

# From AMD 56860: bytes that have to be zero, by version.
ALWAYS_RESERVED = [*range(0x4C, 0x50), *range(0x18B, 0x1A0), 0x1EB, 0x1EF, *range(0x208, 0x2A0)]
RESERVED = {
    2: [*ALWAYS_RESERVED, *range(0x188, 0x18B), *range(0x1F8, 0x208)],
    3: [*ALWAYS_RESERVED, *range(0x1F8, 0x208)],
    5: ALWAYS_RESERVED,
}
UNSIGNED_RESERVED = [*range(0x2D0, 0x2E8), *range(0x318, 0x4A0)]


def refused(raw: bytes) -> Refusal:
    with pytest.raises(VerificationRefused) as error:
        parse_report(raw)
    return error.value.refusal


def with_byte(raw: bytes, at: int, value: int) -> bytes:
    return raw[:at] + bytes([value]) + raw[at + 1 :]


def test_the_fields_are_where_the_specification_has_them() -> None:
    vendor = Vendor(SnpProduct.TURIN, SigningKey.VLEK)
    report = parse_report(vendor.report(5, {0x30: b"\2", 0x1F8: bytes([3, *[0] * 7, 9]), 0x48: b"\5"}))

    assert (report.version, report.guest_svn, report.vmpl) == (5, 7, 2)
    assert (report.policy, report.platform_info) == (0x3001F, 0b100101)
    assert (report.signing_key, report.author_key) == (SigningKey.VLEK, True)
    assert report.report_data == DATA
    assert (report.measurement, report.host_data) == (b"\xaa" * 48, b"\xbb" * 32)
    assert (report.report_id, report.has_migration_agent) == (b"\xcc" * 32, False)
    assert report.cpuid == (0x1A, 0x02, 1)
    assert report.mitigations == (3, 9)
    assert report.firmware == {"current": "1.55.40", "committed": "1.55.39"}
    assert report.chip_id == b"turin-01" + bytes(56)


@pytest.mark.parametrize(("version", "cpuid", "mitigations"), [(2, False, False), (3, True, False), (5, True, True)])
def test_later_versions_say_more(version: int, cpuid: bool, mitigations: bool) -> None:
    report = parse_report(REPORT[version])

    assert (report.cpuid is not None, report.mitigations is not None) == (cpuid, mitigations)


def test_a_report_cut_off_anywhere_is_refused() -> None:
    assert {refused(REPORT[3][:length]) for length in range(0x4A0)} == {Refusal.MALFORMED}


def test_bytes_after_a_report_are_refused() -> None:
    assert {refused(REPORT[3] + bytes(extra)) for extra in (1, 4, 4096 - 0x4A0)} == {Refusal.MALFORMED}


def test_an_oversized_report_is_not_looked_at() -> None:
    assert refused(bytes(4097)) is Refusal.OVERSIZED


@pytest.mark.parametrize("version", [0, 1, 4, 6, 2**31])
def test_other_versions_are_refused(version: int) -> None:
    assert refused(version.to_bytes(4, "little") + REPORT[3][4:]) is Refusal.MALFORMED


@pytest.mark.parametrize("version", [2, 3, 5])
def test_every_reserved_byte_has_to_be_zero(version: int) -> None:
    raw = REPORT[version]

    for at in (*RESERVED[version], *UNSIGNED_RESERVED):
        assert refused(with_byte(raw, at, 1)) is Refusal.MALFORMED, hex(at)


def refused_bits(start: int, bits: int, raw: bytes) -> set[int]:
    """Which of the bits of a field cannot be flipped."""
    found = set()
    for bit in range(bits):
        at = start + bit // 8
        try:
            parse_report(with_byte(raw, at, raw[at] ^ 1 << bit % 8))
        except VerificationRefused:
            found.add(bit)
    return found


def test_the_guest_policy_has_its_reserved_bits() -> None:
    assert refused_bits(0x08, 64, REPORT[3]) == {17, *range(26, 64)}


def test_the_platform_information_has_its_reserved_bits() -> None:
    assert refused_bits(0x40, 64, REPORT[3]) == set(range(8, 64))


def test_only_two_keys_sign() -> None:
    # Bits 4:2 name the key: 1 for the VLEK; 2 to 6 are reserved and 7 means unsigned.
    assert refused_bits(0x48, 32, REPORT[3]) == {3, 4, *range(5, 32)}
    assert refused(with_byte(REPORT[3], 0x48, 7 << 2)) is Refusal.MALFORMED


@pytest.mark.parametrize("algorithm", [0, 2, 1 << 16])
def test_only_one_signature_algorithm_is_read(algorithm: int) -> None:
    raw = REPORT[3]

    assert refused(raw[:0x34] + algorithm.to_bytes(4, "little") + raw[0x38:]) is Refusal.MALFORMED


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=64), st.binary(min_size=0x4A0, max_size=0x4A0), st.binary(max_size=5000)))
def test_arbitrary_bytes_are_refused_or_read_and_nothing_else(raw: bytes) -> None:
    with suppress(VerificationRefused):
        assert parse_report(raw).raw == raw


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([2, 3, 5]),
    st.lists(st.tuples(st.integers(0, 0x49F), st.integers(0, 255)), min_size=1, max_size=12),
)
def test_a_damaged_report_is_refused_or_read_and_nothing_else(version: int, changes: list[tuple[int, int]]) -> None:
    raw = REPORT[version]
    for at, value in changes:
        raw = with_byte(raw, at, value)
    with suppress(VerificationRefused):
        assert parse_report(raw).raw == raw
