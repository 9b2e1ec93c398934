"""Revocation lists are optional; one that is given has to be the root's, whole, and current."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509

from coreason_enclave.attestation.verify.snp import SigningKey, SnpPlatformPolicy, SnpProduct
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused
from tests.coreason_enclave.attestation.snp.hierarchy import DATA, NOW, Vendor, rsa_key, verifier

Verdict = Callable[..., Authentic]
Refuse = Callable[..., Refusal]


def test_without_a_list_revocation_is_not_checked(verdict: Verdict, milan: Vendor) -> None:
    assert "revocation" in verdict(milan.report(), milan.endorsements()).not_checked


@pytest.mark.parametrize("serials", [(), (0x10000, 5), (1,)])
def test_a_list_without_the_authority_is_good(verdict: Verdict, milan: Vendor, serials: tuple[int, ...]) -> None:
    found = verdict(milan.report(), milan.endorsements(lists=(milan.revocation_list(*serials),)))

    assert "revocation" not in found.not_checked


@pytest.mark.parametrize("kind", list(SigningKey))
def test_a_revoked_authority_is_refused(refusal: Refuse, milan: Vendor, kind: SigningKey) -> None:
    vendor = milan.of(kind=kind)
    good, bad = vendor.revocation_list(5), vendor.revocation_list(5, 0x10001)

    assert refusal(vendor.report(), vendor.endorsements(lists=(good, bad))) is Refusal.REVOKED


def test_revocation_comes_before_the_guest_and_after_the_signature(refusal: Refuse, milan: Vendor) -> None:
    endorsements = milan.endorsements(lists=(milan.revocation_list(0x10001),))
    debuggable = milan.report(changes={0x08: (0xB_001F).to_bytes(8, "little")})

    assert refusal(debuggable, endorsements) is Refusal.REVOKED
    assert refusal(milan.of(chip="chip-2").report(), endorsements) is Refusal.SIGNATURE


def test_a_list_is_good_from_its_first_to_its_last_second(verdict: Verdict, refusal: Refuse, milan: Vendor) -> None:
    endorsements = milan.endorsements(lists=(milan.revocation_list(window=(NOW - 10, NOW + 10)),))

    for now in (NOW - 10, NOW + 10):
        assert verdict(milan.report(), endorsements, now=now).kind == "snp"
    for now in (NOW - 11, NOW + 11):
        assert refusal(milan.report(), endorsements, now=now) is Refusal.NOT_VALID_NOW


WRONG_LISTS: dict[str, tuple[dict[str, Any], Refusal]] = {
    "another line's": ({"issuer": f"ARK-{SnpProduct.GENOA}"}, Refusal.ENDORSEMENTS_MISMATCH),
    "the authority's own": (
        {"issuer": "SEV-Milan", "signer": rsa_key("ours authority")},
        Refusal.ENDORSEMENTS_MISMATCH,
    ),
    "signed by a stranger": ({"signer": rsa_key("a stranger root")}, Refusal.CHAIN),
    "a delta": ({"extra": (x509.DeltaCRLIndicator(3), True)}, Refusal.ENDORSEMENTS_MISMATCH),
    "of some certificates": (
        {"extra": (x509.IssuingDistributionPoint(None, None, True, False, None, False, False), True)},
        Refusal.ENDORSEMENTS_MISMATCH,
    ),
}


@pytest.mark.parametrize(("changes", "code"), WRONG_LISTS.values(), ids=WRONG_LISTS)
def test_a_list_that_is_not_the_roots_whole_list_is_refused(
    refusal: Refuse, milan: Vendor, changes: dict[str, Any], code: Refusal
) -> None:
    lists = (milan.revocation_list(), milan.revocation_list(**changes))

    assert refusal(milan.report(), milan.endorsements(lists=lists)) is code


def test_a_damaged_list_is_refused(milan: Vendor) -> None:
    good = milan.revocation_list(7)
    flipped = [_flipped(good, at, at % 8) for at in range(0, len(good), 3)]
    cut = [good[:length] for length in range(0, len(good), 2)]

    assert _accepted(milan, [*flipped, *cut, good[:-1], good + b"\0", b""]) == []


@pytest.mark.slow
def test_any_flipped_bit_of_a_list_is_refused(milan: Vendor) -> None:
    good = milan.revocation_list(7)

    assert _accepted(milan, [_flipped(good, at, bit) for at in range(len(good)) for bit in range(8)]) == []


def _flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def _accepted(milan: Vendor, lists: list[bytes]) -> list[int]:
    accepted, report = [], milan.report()
    for number, der in enumerate(lists):
        try:
            endorsements = milan.endorsements(lists=(der,))
            verifier().verify(report, endorsements, SnpPlatformPolicy(), NOW, report_data=DATA)
            accepted.append(number)
        except VerificationRefused:
            pass
    return accepted


def test_a_certificate_is_no_list_and_a_list_no_certificate(refusal: Refuse, milan: Vendor) -> None:
    listed = milan.revocation_list()

    assert (
        refusal(milan.report(), milan.endorsements(lists=(milan.endorsements().certificates[1],))) is Refusal.MALFORMED
    )
    assert refusal(milan.report(), milan.endorsements(authority=listed)) is Refusal.MALFORMED
