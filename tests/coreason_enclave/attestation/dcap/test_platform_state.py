"""Authentic is not enough: validity, revocation, TCB, debug, and what the policy admits of a platform."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from coreason_enclave.attestation.verify.dcap import DcapPlatformPolicy
from coreason_enclave.attestation.verify.dcap.platform import refuse_state
from coreason_enclave.attestation.verify.dcap.quote import parse_quote
from coreason_enclave.attestation.verify.verdict import VerificationRefused
from tests.coreason_enclave.attestation.dcap.conftest import judge
from tests.coreason_enclave.attestation.dcap.hierarchy import DAY, NOW, Intel, Pck, Tcb, sgx_report, td_report

Verdict = Callable[..., str]

TODAY = datetime.fromtimestamp(NOW, UTC).date()
ONE, OTHER = "INTEL-SA-00615", "INTEL-SA-00289"


@pytest.mark.parametrize("window", ["tcb_window", "qe_window", "pck_crl_window", "root_crl_window", "pck_window"])
def test_nothing_is_accepted_before_or_after_any_of_the_windows(sgx: Intel, verdict: Verdict, window: str) -> None:
    begin, end = NOW - 600, NOW + 600
    world = sgx.changed(**{window: (begin, end)})
    material = {"quote": world.quote(), "endorsements": world.endorsements()}
    for moment in (begin, NOW, end - 1):
        assert verdict(world, now=moment, **material) == "authentic"
    for moment in (0, begin - 1, end + 1, end + 900 * DAY):
        assert verdict(world, now=moment, **material) == "not_valid_now"


@pytest.mark.parametrize("moment", [-1, 0, 1 << 40, 1 << 63, 1 << 64])
def test_a_moment_that_is_none_is_refused(sgx: Intel, verdict: Verdict, moment: int) -> None:
    assert verdict(sgx, now=moment) == "not_valid_now"


@pytest.mark.parametrize("party", ["pck", "ca", "signing"])
def test_a_revoked_certificate_is_refused_whatever_the_policy_tolerates(
    sgx: Intel, verdict: Verdict, party: str
) -> None:
    lenient = DcapPlatformPolicy(accepted_advisories=(ONE,), out_of_date_until=TODAY)
    assert verdict(sgx.changed(revoked=(party,)), policy=lenient) == "revoked"


@pytest.mark.parametrize("part", ["platform", "quoting"])
def test_a_revoked_level_is_refused_whatever_the_policy_tolerates(sgx: Intel, verdict: Verdict, part: str) -> None:
    lenient = DcapPlatformPolicy(accepted_advisories=(ONE,), out_of_date_until=TODAY)
    assert verdict(sgx.changed(**{part: Tcb("Revoked", (ONE,))}), policy=lenient) == "revoked"


@pytest.mark.parametrize("part", ["platform", "quoting"])
def test_a_platform_below_every_published_level_is_refused(sgx: Intel, verdict: Verdict, part: str) -> None:
    lenient = DcapPlatformPolicy(accepted_advisories=(ONE,), out_of_date_until=TODAY)
    assert verdict(sgx.changed(**{part: Tcb(svn=1)}), policy=lenient) == "tcb_unknown"


@pytest.mark.parametrize(
    ("part", "status"),
    [
        ("platform", "SWHardeningNeeded"),
        ("platform", "ConfigurationNeeded"),
        ("platform", "ConfigurationAndSWHardeningNeeded"),
        ("platform", "UpToDate"),
        ("quoting", "ConfigurationNeeded"),
        ("quoting", "UpToDate"),
    ],
)
def test_every_advisory_has_to_be_named(sgx: Intel, verdict: Verdict, part: str, status: str) -> None:
    world = sgx.changed(**{part: Tcb(status, (ONE, OTHER))})
    for named in ((), (ONE,), (OTHER,), ("INTEL-SA-00001",)):
        assert verdict(world, policy=DcapPlatformPolicy(accepted_advisories=named)) == "tcb_advisory"
    assert verdict(world, policy=DcapPlatformPolicy(accepted_advisories=(ONE, OTHER))) == "authentic"


@pytest.mark.parametrize("part", ["platform", "quoting"])
def test_a_status_that_names_no_advisory_cannot_be_accepted(sgx: Intel, verdict: Verdict, part: str) -> None:
    world = sgx.changed(**{part: Tcb("ConfigurationNeeded")})
    assert verdict(world, policy=DcapPlatformPolicy(accepted_advisories=(ONE,))) == "tcb_advisory"


@pytest.mark.parametrize(
    ("part", "status"),
    [
        ("platform", "OutOfDate"),
        ("platform", "OutOfDateConfigurationNeeded"),
        ("quoting", "OutOfDate"),
        ("quoting", "OutOfDateConfigurationNeeded"),
    ],
)
def test_an_out_of_date_platform_needs_a_grace_that_has_not_ended(
    sgx: Intel, verdict: Verdict, part: str, status: str
) -> None:
    world = sgx.changed(**{part: Tcb(status, (ONE,))})
    named = DcapPlatformPolicy(accepted_advisories=(ONE,))
    assert verdict(world, policy=named) == "tcb_out_of_date"
    graced = DcapPlatformPolicy(accepted_advisories=(ONE,), out_of_date_until=TODAY)
    midnight = (NOW // DAY + 1) * DAY
    assert verdict(world, policy=graced, now=midnight - 1) == "authentic"
    assert verdict(world, policy=graced, now=midnight) == "tcb_out_of_date"
    assert verdict(world, policy=DcapPlatformPolicy(out_of_date_until=TODAY)) == "tcb_advisory"


def test_a_trust_domain_that_runs_on_a_newer_module_than_it_started_on_needs_the_grace_too(
    tdx: Intel, verdict: Verdict
) -> None:
    """Launched below the newest level, running at it: Intel calls that TDRelaunchAdvised."""
    old, new = [4, 0, 2, *[0] * 13], [5, 0, 2, *[0] * 13]
    levels = [
        {
            "tcb": {
                "sgxtcbcomponents": [{"svn": 0}] * 16,
                "pcesvn": 13,
                "tdxtcbcomponents": [{"svn": svn} for svn in svns],
            },
            "tcbDate": "2026-01-01T00:00:00Z",
            "tcbStatus": status,
        }
        for svns, status in ((new, "UpToDate"), (old, "OutOfDate"))
    ]
    world = tdx.changed(tcb_info_says=(("tcbLevels", levels),))
    quote = world.quote(bytes(old) + td_report(version_15=True)[16:], version=5)
    assert verdict(world, quote=quote) == "tcb_out_of_date"
    graced = DcapPlatformPolicy(out_of_date_until=TODAY)
    report = judge(world, quote=quote, policy=graced)
    assert report.claims["tcb_status"] == "TDRelaunchAdvised"


def test_the_age_of_intels_judgement_can_be_bounded(sgx: Intel, verdict: Verdict) -> None:
    assert verdict(sgx, policy=DcapPlatformPolicy(min_tcb_evaluation_data_number=17)) == "authentic"
    assert verdict(sgx, policy=DcapPlatformPolicy(min_tcb_evaluation_data_number=18)) == "tcb_out_of_date"


@pytest.mark.parametrize("field", ["allow_dynamic_platform", "allow_cached_keys", "allow_smt"])
def test_a_property_of_the_platform_is_admitted_by_its_own_field_only(sgx: Intel, verdict: Verdict, field: str) -> None:
    fields = ["allow_dynamic_platform", "allow_cached_keys", "allow_smt"]
    one = tuple(name == field for name in fields)
    world = sgx.changed(pck_says=Pck(flags=(one[0], one[1], one[2])))
    assert verdict(world) == "platform"
    assert verdict(world, policy=DcapPlatformPolicy(**{name: name != field for name in fields})) == "platform"
    assert verdict(world, policy=DcapPlatformPolicy(**{field: True})) == "authentic"
    assert verdict(sgx.changed(pck_says=Pck(flags=(False, False, False)))) == "authentic"


@pytest.mark.parametrize(
    ("attributes", "refusal"),
    [
        (0x05 | 0x02, "debug"),
        (0x04, "malformed"),
    ],
)
def test_an_enclave_in_debug_or_never_initialised_is_refused(
    sgx: Intel, verdict: Verdict, attributes: int, refusal: str
) -> None:
    assert verdict(sgx, quote=sgx.quote(sgx_report(attributes=attributes))) == refusal


SEPT = 1 << 28
TD_STATES = [
    (SEPT | 1, "debug"),
    (SEPT | 1 << 4, "debug"),
    (SEPT | 1 << 5, "debug"),
    (SEPT | 1 << 6, "debug"),
    (SEPT | 1 << 7, "debug"),
    (SEPT | 1 << 29, "migration_agent"),
    (SEPT | 1 << 17, "migration_agent"),
    (SEPT | 1 << 8, "malformed"),
    (SEPT | 1 << 40, "malformed"),
    (0, "platform"),
]


@pytest.mark.parametrize(("attributes", "refusal"), TD_STATES)
@pytest.mark.parametrize("version", [4, 5])
def test_a_trust_domain_with_attributes_that_open_it_is_refused(
    tdx: Intel, verdict: Verdict, version: int, attributes: int, refusal: str
) -> None:
    quote = tdx.quote(td_report(attributes=attributes, version_15=version == 5), version=version)
    assert verdict(tdx, quote=quote) in {refusal, "malformed" if attributes & 0x80 else refusal}
    with pytest.raises(VerificationRefused) as refused:  # without leaning on the library
        refuse_state(parse_quote(quote))
    assert refused.value.refusal.value == refusal


def test_a_trust_domain_bound_to_a_service_td_is_refused(tdx: Intel, verdict: Verdict) -> None:
    quote = tdx.quote(td_report(version_15=True, service_td=b"\1" + bytes(47)), version=5)
    assert verdict(tdx, quote=quote) == "migration_agent"
    with pytest.raises(VerificationRefused, match="service TD"):
        refuse_state(parse_quote(quote))


def test_reserved_bytes_of_an_enclaves_report_have_to_be_zero(sgx: Intel, verdict: Verdict) -> None:
    report = sgx_report()
    for at in (20, 31, 96, 127, 160, 191, 262, 303):
        assert verdict(sgx, quote=sgx.quote(report[:at] + b"\1" + report[at + 1 :])) == "malformed"


def test_debug_without_matching_collateral_is_still_the_reason(sgx: Intel, tdx: Intel, verdict: Verdict) -> None:
    """No collateral that could be fetched would help such a quote."""
    from coreason_enclave.attestation.verify.dcap import DcapEndorsements

    quote = sgx.quote(sgx_report(attributes=0x07))
    for endorsements in (DcapEndorsements(), DcapEndorsements(b"{}"), tdx.endorsements()):
        assert verdict(sgx, quote=quote, endorsements=endorsements) == "debug"


def test_the_librarys_bare_verification_accepts_what_is_refused_here(sgx: Intel, verdict: Verdict) -> None:
    import dcap_qvl

    stale = sgx.changed(platform=Tcb("OutOfDate", (ONE,)))
    collateral = dcap_qvl.QuoteCollateralV3.from_json((stale.endorsements().collateral or b"").decode())
    bare = dcap_qvl.verify_with_root_ca(stale.quote(), collateral, stale.root.der, NOW)
    assert bare.status == "OutOfDate"
    assert verdict(stale) == "tcb_out_of_date"


def test_without_the_library_nothing_is_verified(sgx: Intel, verdict: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dcap_qvl", None)
    assert verdict(sgx) == "library_missing"


def test_a_library_that_reads_another_report_is_not_believed(
    sgx: Intel, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coreason_enclave.attestation.verify.dcap import quote_verifier as verifier

    real = verifier.parse_quote

    def other(evidence: bytes) -> Any:
        quote = real(evidence)
        return replace(quote, fields={**quote.fields, "mr_enclave": bytes(32)})

    monkeypatch.setattr(verifier, "parse_quote", other)
    assert verdict(sgx) == "malformed"


def test_a_panic_in_the_library_or_claims_in_unknown_terms_are_refusals(
    sgx: Intel, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coreason_enclave.attestation.verify.dcap import library

    class PanicException(BaseException):
        """What PyO3 raises."""

    def panics(*_: object) -> str:
        raise PanicException("index out of bounds")

    monkeypatch.setattr(library, "_verify", panics)
    assert verdict(sgx) == "malformed"
    for claims in ("{}", '{"tcb": "UpToDate"}', "not JSON"):
        monkeypatch.setattr(library, "_verify", lambda *_, claims=claims: claims)
        assert verdict(sgx) == "library_missing"


def test_the_product_trusts_intels_root_certificate_alone() -> None:
    from coreason_enclave.attestation.verify.dcap import quote_verifier as verifier
    from coreason_enclave.attestation.verify.dcap.intel_root import INTEL_SGX_ROOT

    published = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
    assert hashlib.sha256(INTEL_SGX_ROOT).hexdigest() == published
    assert verifier._INTEL._root == INTEL_SGX_ROOT


def test_a_report_says_what_was_measured_where_and_what_was_not_checked(sgx: Intel) -> None:
    unasked = judge(sgx)
    assert unasked.not_checked == ("report_data", "measurements")
    report = judge(sgx, report_data=unasked.report_data)
    assert report.not_checked == ("measurements",)
    assert report.platform_id == bytes(range(16)).hex()
    assert report.measurements["isv_prod_id"] == "0001"
    assert report.claims["tcb_status"] == "UpToDate"


@pytest.mark.parametrize(
    "fields",
    [
        {"accepted_advisories": ["*"]},
        {"accepted_advisories": ["INTEL-SA-00615 "]},
        {"accepted_advisories": ["intel-sa-00615"]},
        {"out_of_date_until": "soon"},
        {"allow_smt": "yes"},
        {"allow_smt": 1},
        {"allow_debug": True},
        {"min_tcb_evaluation_data_number": -1},
    ],
)
def test_a_policy_that_says_something_else_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DcapPlatformPolicy.model_validate(fields)
