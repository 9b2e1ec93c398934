"""Quotes of real processors, with the collateral that Intel served for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coreason_enclave.attestation.verify.dcap import DcapEndorsements, DcapPlatformPolicy, verify_sgx, verify_tdx
from coreason_enclave.attestation.verify.dcap.quote import parse_quote
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused

FOLDER = os.environ.get("AEGIS_EVIDENCE_DIR")
pytestmark = [
    pytest.mark.recorded,
    pytest.mark.skipif(not FOLDER, reason="AEGIS_EVIDENCE_DIR is not set"),
]

SGX_AT, TDX_AT, DEBUG_AT, OUTDATED_AT = 1_751_624_924, 1_751_624_191, 1_687_700_000, 1_772_000_000
BOTH = ("INTEL-SA-00289", "INTEL-SA-00615")
MULTI_PACKAGE = DcapPlatformPolicy(allow_dynamic_platform=True, allow_cached_keys=True, allow_smt=True)
DEFAULT = DcapPlatformPolicy()


def recorded(name: str) -> bytes:
    return (Path(FOLDER or "") / name).read_bytes()


def sgx(policy: DcapPlatformPolicy, *, quote: bytes | None = None, now: int = SGX_AT) -> Authentic:
    endorsements = DcapEndorsements(recorded("sgx/collateral.json"))
    return verify_sgx(quote or recorded("sgx/quote.bin"), endorsements, policy, now)


def tdx(policy: DcapPlatformPolicy, *, quote: bytes | None = None, now: int = TDX_AT) -> Authentic:
    endorsements = DcapEndorsements(recorded("tdx/quote_v4_collateral.json"))
    return verify_tdx(quote or recorded("tdx/quote_v4.bin"), endorsements, policy, now)


def refusal(call: object, *args: object, **options: object) -> Refusal:
    with pytest.raises(VerificationRefused) as refused:
        call(*args, **options)  # type: ignore[operator]
    return refused.value.refusal


def test_an_sgx_platform_with_two_open_advisories_is_refused_until_both_are_named() -> None:
    with pytest.raises(VerificationRefused, match="INTEL-SA-00289, INTEL-SA-00615") as refused:
        sgx(DEFAULT)
    assert refused.value.refusal is Refusal.TCB_ADVISORY
    for one in BOTH:
        assert refusal(sgx, DcapPlatformPolicy(accepted_advisories=(one,))) is Refusal.TCB_ADVISORY
    report = sgx(DcapPlatformPolicy(accepted_advisories=BOTH))
    assert report.claims["tcb_status"] == "ConfigurationAndSWHardeningNeeded"
    assert report.claims["advisories"] == list(BOTH)
    assert report.report_data == b"Hello, world!".ljust(64, b"\0")
    assert report.measurements["mr_enclave"] == "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb"
    assert report.platform_id == "d04ec06d4e6d92dc90d0ad3cf5ee2ddf"
    assert "measurements" in report.not_checked


@pytest.mark.parametrize("collateral", [None, "sgx/collateral.json"])
def test_a_debug_enclave_is_refused_as_that_with_whatever_collateral(collateral: str | None) -> None:
    quote = recorded("sgx/debug_enclave_quote.bin")
    assert parse_quote(quote).fields["attributes"][0] == 0x07
    endorsements = DcapEndorsements(recorded(collateral) if collateral else None)
    assert refusal(verify_sgx, quote, endorsements, DEFAULT, SGX_AT) is Refusal.DEBUG


def test_a_multi_package_tdx_platform_is_up_to_date_where_the_policy_admits_such_platforms() -> None:
    report = tdx(MULTI_PACKAGE)
    assert report.kind == "tdx"
    assert report.claims["tcb_status"] == "UpToDate"
    assert report.claims["advisories"] == []
    assert report.measurements["mr_td"].startswith("91eb2b44d141d4ec")
    assert report.measurements["rt_mr0"].startswith("44c0197b39157fdd")
    assert report.platform_id == "811dca2a26b952e85bb6448b097ba4fd"


@pytest.mark.parametrize("field", ["allow_dynamic_platform", "allow_cached_keys", "allow_smt"])
def test_each_property_of_a_multi_package_platform_has_to_be_admitted_by_its_own_field(field: str) -> None:
    with pytest.raises(VerificationRefused, match=field) as refused:
        tdx(MULTI_PACKAGE.model_copy(update={field: False}))
    assert refused.value.refusal is Refusal.PLATFORM


def test_an_out_of_date_tdx_platform_matches_no_level() -> None:
    quote, collateral = recorded("tdx/outdated_quote.bin"), recorded("tdx/outdated_collateral.json")
    for policy in (DEFAULT, MULTI_PACKAGE):
        assert refusal(verify_tdx, quote, DcapEndorsements(collateral), policy, OUTDATED_AT) is Refusal.TCB_UNKNOWN


def test_a_debug_trust_domain_is_refused_only_for_being_one() -> None:
    quote = recorded("tdx/debug_td_quote.bin")
    endorsements = DcapEndorsements(recorded("tdx/debug_td_collateral.json"))
    assert refusal(verify_tdx, quote, endorsements, MULTI_PACKAGE, DEBUG_AT) is Refusal.DEBUG
    signed = 48 + 100
    forged = quote[:signed] + bytes([quote[signed] ^ 1]) + quote[signed + 1 :]
    assert refusal(verify_tdx, forged, endorsements, MULTI_PACKAGE, DEBUG_AT) is Refusal.SIGNATURE


@pytest.mark.parametrize(
    ("verify", "begin", "end"), [(sgx, 1_750_330_571, 1_752_919_278), (tdx, 1_750_329_147, 1_752_919_235)]
)
def test_collateral_is_good_only_while_all_of_it_is_valid(verify: object, begin: int, end: int) -> None:
    policy = MULTI_PACKAGE.model_copy(update={"accepted_advisories": BOTH})
    for moment in (begin, end - 1):
        assert isinstance(verify(policy, now=moment), Authentic)  # type: ignore[operator]
    for moment in (begin - 1, end + 1, 0, -1, 1 << 70):
        assert refusal(verify, policy, now=moment) is Refusal.NOT_VALID_NOW


def test_a_quote_is_not_verified_with_the_collateral_of_another() -> None:
    sgx_quote, tdx_quote = recorded("sgx/quote.bin"), recorded("tdx/quote_v4.bin")
    of_sgx, of_tdx = (
        DcapEndorsements(recorded(name)) for name in ("sgx/collateral.json", "tdx/quote_v4_collateral.json")
    )
    assert refusal(verify_sgx, sgx_quote, of_tdx, DEFAULT, SGX_AT) is Refusal.ENDORSEMENTS_MISMATCH
    assert refusal(verify_tdx, tdx_quote, of_sgx, MULTI_PACKAGE, TDX_AT) is Refusal.ENDORSEMENTS_MISMATCH
    other = DcapEndorsements(recorded("tdx/outdated_collateral.json"))
    assert refusal(verify_tdx, tdx_quote, other, MULTI_PACKAGE, OUTDATED_AT) is Refusal.ENDORSEMENTS_MISMATCH


def test_zeros_are_the_only_thing_that_may_follow_a_quote() -> None:
    padded = recorded("tdx/quote_v4.bin")
    exact, v3 = padded[:-70], recorded("sgx/quote.bin")
    named = DcapPlatformPolicy(accepted_advisories=BOTH)
    for tail in (bytes(1), bytes(69), bytes(71), bytes(3065)):
        assert tdx(MULTI_PACKAGE, quote=exact + tail) == tdx(MULTI_PACKAGE, quote=exact)
        assert sgx(named, quote=v3 + tail) == sgx(named, quote=v3)
    for tail in (bytes(69) + b"\1", b"\1" + bytes(69), b"\n"):
        assert refusal(tdx, MULTI_PACKAGE, quote=exact + tail) is Refusal.MALFORMED
        assert refusal(sgx, named, quote=v3 + tail) is Refusal.MALFORMED


@pytest.mark.parametrize("verify", [sgx, tdx])
def test_flipped_bits_all_over_a_recorded_quote_are_refused(verify: object) -> None:
    policy = MULTI_PACKAGE.model_copy(update={"accepted_advisories": BOTH})
    quote = recorded("sgx/quote.bin" if verify is sgx else "tdx/quote_v4.bin")
    for at in range(0, len(quote), 5):
        flipped = bytearray(quote)
        flipped[at] ^= 1 << at % 8
        assert refusal(verify, policy, quote=bytes(flipped)) is not Refusal.LIBRARY_MISSING
