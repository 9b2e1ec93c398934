"""A report is authentic only if a pinned root, an authority, a key, a chip and a TCB all agree on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from coreason_enclave.attestation.verify.snp import (
    SigningKey,
    SnpEndorsements,
    SnpPlatformPolicy,
    SnpProduct,
    parse_report,
)
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused
from tests.coreason_enclave.attestation.snp.hierarchy import CHIP, DATA, NOW, Vendor, integer, leaf_of, verifier

Verdict = Callable[..., Authentic]
Refuse = Callable[..., Refusal]

LINES = list(SnpProduct)
KEYS = list(SigningKey)


def flipped(data: bytes, bit: int) -> bytes:
    at = bit // 8
    return data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :]


def one_bit_a_byte(data: bytes) -> Iterator[bytes]:
    return (flipped(data, 8 * at + at % 8) for at in range(len(data)))


def accepted(tries: Iterator[tuple[bytes, SnpEndorsements]]) -> list[int]:
    """The numbers of the tries that were not refused."""
    found = []
    for number, (report, endorsements) in enumerate(tries):
        try:
            verifier().verify(report, endorsements, SnpPlatformPolicy(), NOW, report_data=None)
            found.append(number)
        except VerificationRefused:
            pass
    return found


@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("product", LINES)
def test_every_version_line_and_key_is_verified(
    verdict: Verdict, product: SnpProduct, kind: SigningKey, version: int
) -> None:
    vendor = Vendor(product, kind)

    found = verdict(vendor.report(version), vendor.endorsements())

    assert (found.kind, found.report_data, found.platform_id) == ("snp", DATA, CHIP[product].hex())
    assert found.measurements["measurement"] == "aa" * 48
    assert (found.claims["product"], found.claims["signing_key"]) == (product.value, kind.value)
    assert found.claims["cloud_provider"] == ("cloud.example" if kind is SigningKey.VLEK else None)
    assert found.not_checked == ("revocation", "tcb_floor", "measurements")


@pytest.mark.parametrize("product", LINES)
def test_a_tcb_is_read_in_the_layout_of_its_line(verdict: Verdict, product: SnpProduct) -> None:
    vendor = Vendor(product)

    tcb = verdict(vendor.report(), vendor.endorsements()).claims["tcb"]

    fmc = {"fmc": 5} if product is SnpProduct.TURIN else {}
    levels = {"boot_loader": 3, "tee": 1, "snp": 9, "microcode": 211, **fmc}
    assert tcb == dict.fromkeys(("current", "reported", "committed", "launch"), levels)


def test_a_verdict_holds_json_types_only(verdict: Verdict, milan: Vendor) -> None:
    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(type(name) is str and plain(inner) for name, inner in value.items())
        return all(map(plain, value)) if isinstance(value, list) else type(value) in (str, int, bool, type(None))

    assert plain(dict(verdict(milan.report(5), milan.endorsements()).claims))


def test_a_parsed_report_is_verified_from_its_bytes(verdict: Verdict, milan: Vendor) -> None:
    assert verdict(parse_report(milan.report()), milan.endorsements()).report_data == DATA


# --- the report ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [2, 5])
def test_a_flipped_bit_in_any_byte_of_a_report_is_refused(milan: Vendor, version: int) -> None:
    endorsements = milan.endorsements()

    assert accepted((raw, endorsements) for raw in one_bit_a_byte(milan.report(version))) == []


@pytest.mark.slow
@pytest.mark.parametrize("version", [2, 3, 5])
def test_any_flipped_bit_of_a_report_is_refused(milan: Vendor, version: int) -> None:
    report, endorsements = milan.report(version), milan.endorsements()

    assert accepted((flipped(report, bit), endorsements) for bit in range(8 * len(report))) == []


def test_an_altered_measurement_is_a_wrong_signature(refusal: Refuse, milan: Vendor) -> None:
    assert refusal(flipped(milan.report(), 8 * 0x90), milan.endorsements()) is Refusal.SIGNATURE


@pytest.mark.parametrize(
    "signature", [bytes(144), b"\1" + bytes(143), b"\xff" * 48 + bytes(24) + b"\xff" * 48 + bytes(24)]
)
def test_a_signature_that_is_none_is_refused(refusal: Refuse, milan: Vendor, signature: bytes) -> None:
    report = milan.report()

    assert refusal(report[:0x2A0] + signature + report[0x330:], milan.endorsements()) is Refusal.SIGNATURE


@pytest.mark.parametrize("asked", [bytes(64), DATA[:63], b"", DATA[:63] + b"\0"])
def test_other_report_data_than_asked_for_is_refused_first(refusal: Refuse, milan: Vendor, asked: bytes) -> None:
    broken = flipped(milan.report(), 8 * 0x90)

    assert refusal(broken, milan.endorsements(), report_data=asked) is Refusal.REPORT_DATA


def test_report_data_that_nobody_asked_for_is_listed(verdict: Verdict, milan: Vendor) -> None:
    found = verdict(milan.report(), milan.endorsements(), report_data=None)

    assert "report_data" in found.not_checked


# --- report and key belong together ----------------------------------------------------------------------------


def test_a_report_of_another_chip_is_not_signed_by_this_key(refusal: Refuse, milan: Vendor) -> None:
    assert refusal(milan.of(chip="chip-2").report(), milan.endorsements()) is Refusal.SIGNATURE


def test_a_key_certified_for_another_chip_is_refused(refusal: Refuse, milan: Vendor) -> None:
    report = milan.report(changes={0x1A0: b"\x01" * 64})

    assert refusal(report, milan.endorsements()) is Refusal.ENDORSEMENTS_MISMATCH


@pytest.mark.parametrize("at", [0x1A0, 0x1A7, 0x1A8, 0x1DF])
def test_all_of_turins_chip_id_counts(refusal: Refuse, at: int) -> None:
    vendor = Vendor(SnpProduct.TURIN)

    assert refusal(vendor.report(changes={at: b"\x7f"}), vendor.endorsements()) is Refusal.ENDORSEMENTS_MISMATCH


def test_a_masked_chip_id_binds_no_vcek(refusal: Refuse, milan: Vendor) -> None:
    report, zeros = milan.report(changes={0x1A0: bytes(64)}), milan.leaf(extensions={"4": bytes(64)})

    assert refusal(report, milan.endorsements()) is Refusal.ENDORSEMENTS_MISMATCH
    assert refusal(report, milan.endorsements(leaf=zeros)) is Refusal.ENDORSEMENTS_MISMATCH


def test_a_masked_chip_id_under_a_vlek_leaves_the_platform_unknown(verdict: Verdict) -> None:
    vendor = Vendor(kind=SigningKey.VLEK)

    found = verdict(vendor.report(changes={0x1A0: bytes(64)}), vendor.endorsements())

    assert found.platform_id is None
    assert "platform_id" in found.not_checked


@pytest.mark.parametrize("level", range(8))
@pytest.mark.parametrize("product", LINES)
def test_a_key_for_another_tcb_is_refused(refusal: Refuse, product: SnpProduct, level: int) -> None:
    vendor = Vendor(product)
    report = vendor.report()
    tcb = flipped(parse_report(report).raw_tcbs["reported"], 8 * level)

    assert refusal(vendor.report(changes={0x180: tcb}), vendor.endorsements()) is Refusal.ENDORSEMENTS_MISMATCH


@pytest.mark.parametrize("product", LINES)
def test_reserved_bytes_of_a_tcb_have_to_be_zero(refusal: Refuse, product: SnpProduct) -> None:
    vendor = Vendor(product)
    reserved = (4, 5, 6) if product is SnpProduct.TURIN else (2, 3, 4, 5)

    for at in (start + byte for start in (0x38, 0x1E0, 0x1F0) for byte in reserved):
        assert refusal(vendor.report(changes={at: b"\1"}), vendor.endorsements()) is Refusal.MALFORMED


@pytest.mark.parametrize("version", [3, 5])
@pytest.mark.parametrize("other", [(0x19, 0x11), (0x19, 0xA0), (0x1A, 0x02), (0x1A, 0x50), (0x17, 0x01), (0, 0)])
def test_a_cpu_of_another_line_is_refused(refusal: Refuse, milan: Vendor, version: int, other: tuple[int, int]) -> None:
    report = milan.report(version, {0x188: bytes(other)})

    assert refusal(report, milan.endorsements()) is Refusal.ENDORSEMENTS_MISMATCH


@pytest.mark.parametrize("model", [0x10, 0x1F, 0xA0, 0xAF])
def test_genoa_has_bergamo_and_siena(verdict: Verdict, model: int) -> None:
    vendor = Vendor(SnpProduct.GENOA)

    assert verdict(vendor.report(changes={0x189: bytes([model])}), vendor.endorsements()).platform_id


WRONG_EXTENSIONS: dict[str, dict[str, bytes | None]] = {
    "no struct version": {"1": None},
    "another struct version": {"1": integer(1)},
    "no product name": {"2": None},
    "another line's name": {"2": b"\x16\x08Genoa-B0"},
    "a name that only begins right": {"2": b"\x16\x08Milanese"},
    "no chip id": {"4": None},
    "half a chip id": {"4": b"\4\x20" + CHIP[SnpProduct.MILAN][:32]},
    "a provider too": {"5": b"\x16\x01x"},
    "no boot loader level": {"3.1": None},
    "another microcode level": {"3.8": integer(210)},
    "a reserved level": {"3.5": integer(1)},
    "Turin's level": {"3.9": integer(1)},
}


@pytest.mark.parametrize("extensions", WRONG_EXTENSIONS.values(), ids=WRONG_EXTENSIONS)
def test_a_key_whose_certificate_says_otherwise_is_refused(
    refusal: Refuse, milan: Vendor, extensions: dict[str, bytes | None]
) -> None:
    endorsements = milan.endorsements(leaf=milan.leaf(extensions=extensions))

    assert refusal(milan.report(), endorsements) is Refusal.ENDORSEMENTS_MISMATCH


MALFORMED_EXTENSIONS: dict[str, dict[str, bytes | None]] = {
    "a level of two bytes": {"3.8": integer(0x1D3)},
    "a level that is not minimal": {"3.1": b"\2\2\0\3"},
    "a negative level": {"3.1": b"\2\1\xff"},
    "a level with bytes behind it": {"3.1": integer(3) + b"\0"},
    "an empty level": {"3.1": b"\2\0"},
    "a level that is a string": {"3.1": b"\4\1\3"},
    "a bare chip id of half the length": {"4": CHIP[SnpProduct.MILAN][:32]},
    "a name that is UTF-8": {"2": b"\x0c\x08Milan-B0"},
    "a name with bytes behind it": {"2": b"\x16\x08Milan-B0\0"},
}


@pytest.mark.parametrize("extensions", MALFORMED_EXTENSIONS.values(), ids=MALFORMED_EXTENSIONS)
def test_a_key_whose_extensions_cannot_be_read_is_refused(
    refusal: Refuse, milan: Vendor, extensions: dict[str, bytes | None]
) -> None:
    endorsements = milan.endorsements(leaf=milan.leaf(extensions=extensions))

    assert refusal(milan.report(), endorsements) is Refusal.MALFORMED


def test_half_a_chip_id_binds_no_chip(refusal: Refuse, milan: Vendor) -> None:
    half = CHIP[SnpProduct.MILAN][:32]
    report = milan.report(changes={0x1A0: half + bytes(32)})
    endorsements = milan.endorsements(leaf=milan.leaf(extensions={"4": b"\4\x20" + half}))

    assert refusal(report, endorsements) is Refusal.ENDORSEMENTS_MISMATCH


def test_a_chip_id_may_be_wrapped_as_x509_asks(verdict: Verdict, milan: Vendor) -> None:
    leaf = milan.leaf(extensions={"4": b"\4\x40" + CHIP[SnpProduct.MILAN]})

    assert verdict(milan.report(), milan.endorsements(leaf=leaf)).platform_id == CHIP[SnpProduct.MILAN].hex()


@pytest.mark.parametrize("extensions", [{"5": None}, {"5": b"\x16\0"}, {"4": CHIP[SnpProduct.MILAN]}])
def test_a_vlek_is_a_providers_and_no_chips(refusal: Refuse, extensions: dict[str, bytes | None]) -> None:
    vendor = Vendor(kind=SigningKey.VLEK)
    endorsements = vendor.endorsements(leaf=vendor.leaf(extensions=extensions))

    assert refusal(vendor.report(), endorsements) is Refusal.ENDORSEMENTS_MISMATCH


@pytest.mark.parametrize("product", LINES)
def test_a_key_of_one_kind_signs_no_report_of_the_other(refusal: Refuse, product: SnpProduct) -> None:
    vcek, vlek = Vendor(product), Vendor(product, SigningKey.VLEK)

    assert refusal(vcek.report(), vlek.endorsements()) is Refusal.ENDORSEMENTS_MISMATCH
    assert refusal(vlek.report(), vcek.endorsements()) is Refusal.ENDORSEMENTS_MISMATCH


# --- swaps -----------------------------------------------------------------------------------------------------


def test_no_mixture_of_reports_keys_and_chains_is_accepted() -> None:
    kinds = [(product, kind) for product in LINES for kind in KEYS]
    chips = [Vendor(product, kind, chip=chip) for product, kind in kinds for chip in ("chip-1", "chip-2")]
    chains = [Vendor(product, kind).endorsements().certificates[1:] for product, kind in kinds]
    tries = [(a, b, c) for a in range(len(chips)) for b in range(len(chips)) for c in range(len(chains))]
    reports = [chip.report() for chip in chips]

    found = accepted((reports[a], SnpEndorsements((leaf_of(chips[b]), *chains[c]))) for a, b, c in tries)

    assert [tries[number] for number in found] == [(a, a, a // 2) for a in range(len(chips))]
