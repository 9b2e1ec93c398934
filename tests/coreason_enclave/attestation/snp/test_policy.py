"""What state of a platform the policy accepts; what none accepts."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from coreason_enclave.attestation.verify.snp import SigningKey, SnpPlatformPolicy, SnpProduct, SnpTcbFloor
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal
from tests.coreason_enclave.attestation.snp.hierarchy import TCB, Vendor

Verdict = Callable[..., Authentic]
Refuse = Callable[..., Refusal]

# What every report of our own vendor states.
EXACT = {"boot_loader": 3, "tee": 1, "snp": 9, "microcode": 211}
FLOORS = {product: {**EXACT, **({"fmc": 5} if product is SnpProduct.TURIN else {})} for product in SnpProduct}


def policy(**fields: Any) -> SnpPlatformPolicy:
    return SnpPlatformPolicy.model_validate(fields)


def guest(bits: int) -> dict[int, bytes]:
    return {0x08: (0x3_001F | bits).to_bytes(8, "little")}


# --- TCB -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", list(SnpProduct))
def test_a_tcb_at_its_floor_is_checked_and_good(verdict: Verdict, product: SnpProduct) -> None:
    vendor = Vendor(product)

    found = verdict(vendor.report(), vendor.endorsements(), policy=policy(tcb_floor={product: FLOORS[product]}))

    assert "tcb_floor" not in found.not_checked


@pytest.mark.parametrize(
    ("product", "component"), [(product, name) for product in SnpProduct for name in FLOORS[product]]
)
def test_one_component_below_its_floor_is_out_of_date(refusal: Refuse, product: SnpProduct, component: str) -> None:
    vendor = Vendor(product)
    low = dict.fromkeys(FLOORS[product], 0)
    above = policy(tcb_floor={product: {**low, component: FLOORS[product][component] + 1}})

    assert refusal(vendor.report(), vendor.endorsements(), policy=above) is Refusal.TCB_OUT_OF_DATE


@pytest.mark.parametrize(("offset", "counts"), [(0x38, False), (0x180, True), (0x1E0, True), (0x1F0, False)])
@pytest.mark.parametrize("product", list(SnpProduct))
def test_the_reported_and_the_committed_tcb_have_to_meet_the_floor(
    verdict: Verdict, refusal: Refuse, product: SnpProduct, offset: int, counts: bool
) -> None:
    vendor = Vendor(product)
    old = bytes([*TCB[product][:7], 210])
    report = vendor.report(changes={offset: old})
    leaf = vendor.leaf(extensions=vendor.amd_extensions(old)) if offset == 0x180 else None
    ask = {"policy": policy(tcb_floor={product: FLOORS[product]})}

    if counts:
        assert refusal(report, vendor.endorsements(leaf=leaf), **ask) is Refusal.TCB_OUT_OF_DATE
    else:
        assert verdict(report, vendor.endorsements(leaf=leaf), **ask).kind == "snp"


def test_a_floor_for_another_line_leaves_this_one_unchecked(verdict: Verdict, milan: Vendor) -> None:
    other = policy(tcb_floor={"Genoa": dict.fromkeys(EXACT, 255)})

    found = verdict(milan.report(), milan.endorsements(), policy=other)

    assert "tcb_floor" in found.not_checked


# --- the guest -------------------------------------------------------------------------------------------------

LOOSEST = {"vmpls": (0, 1, 2, 3)}


@pytest.mark.parametrize("fields", [{}, LOOSEST])
def test_a_guest_that_may_be_debugged_is_refused_under_any_policy(
    refusal: Refuse, milan: Vendor, fields: dict[str, Any]
) -> None:
    assert refusal(milan.report(changes=guest(1 << 19)), milan.endorsements(), policy=policy(**fields)) is Refusal.DEBUG


@pytest.mark.parametrize("changes", [guest(1 << 18), {0x160: bytes(32)}, {0x17F: b"\xfe"}])
@pytest.mark.parametrize("fields", [{}, LOOSEST])
def test_a_guest_that_may_be_migrated_is_refused_under_any_policy(
    refusal: Refuse, milan: Vendor, fields: dict[str, Any], changes: dict[int, bytes]
) -> None:
    report = milan.report(changes=changes)

    assert refusal(report, milan.endorsements(), policy=policy(**fields)) is Refusal.MIGRATION_AGENT


def test_no_field_of_the_policy_allows_debugging_or_migration() -> None:
    assert set(SnpPlatformPolicy.model_fields) == {
        "tcb_floor",
        "vmpls",
        "signing_keys",
        "required_platform",
        "forbidden_platform",
    }
    with pytest.raises(ValidationError):
        policy(allow_debug=True)


@pytest.mark.parametrize("vmpl", [1, 2, 3, 4, 0xFFFF_FFFF])
def test_only_vmpl_0_unless_another_is_named(refusal: Refuse, milan: Vendor, vmpl: int) -> None:
    report = milan.report(changes={0x30: vmpl.to_bytes(4, "little")})

    assert refusal(report, milan.endorsements()) is Refusal.VMPL


def test_a_named_vmpl_is_accepted_and_an_unnamed_0_is_not(verdict: Verdict, refusal: Refuse, milan: Vendor) -> None:
    second = policy(vmpls=(2,))

    assert verdict(milan.report(changes={0x30: b"\2"}), milan.endorsements(), policy=second).claims["vmpl"] == 2
    assert refusal(milan.report(), milan.endorsements(), policy=second) is Refusal.VMPL
    assert refusal(milan.report(), milan.endorsements(), policy=policy(vmpls=())) is Refusal.VMPL


@pytest.mark.parametrize("kind", list(SigningKey))
def test_a_kind_of_key_can_be_excluded(verdict: Verdict, refusal: Refuse, kind: SigningKey) -> None:
    vendor = Vendor(kind=kind)
    only, others = policy(signing_keys=(kind,)), policy(signing_keys=tuple(set(SigningKey) - {kind}))

    assert verdict(vendor.report(), vendor.endorsements(), policy=only).kind == "snp"
    assert refusal(vendor.report(), vendor.endorsements(), policy=others) is Refusal.PLATFORM


def test_bits_of_the_platform_can_be_required_and_forbidden(verdict: Verdict, refusal: Refuse, milan: Vendor) -> None:
    # Set in the report: SMT, ECC, alias check complete.
    report, endorsements = milan.report(), milan.endorsements()
    fits = policy(required_platform=("alias_check_complete", "ecc_enabled"), forbidden_platform=("tsme_enabled",))

    assert verdict(report, endorsements, policy=fits).kind == "snp"
    assert refusal(report, endorsements, policy=policy(required_platform=("tsme_enabled",))) is Refusal.PLATFORM
    assert refusal(report, endorsements, policy=policy(forbidden_platform=("smt_enabled",))) is Refusal.PLATFORM


@pytest.mark.parametrize("name", ["smt_enabled", "tsme_enabled", "rapl_disabled", "tio_enabled"])
def test_each_bit_of_the_platform_has_its_own_name(verdict: Verdict, milan: Vendor, name: str) -> None:
    bit = {"smt_enabled": 0, "tsme_enabled": 1, "rapl_disabled": 3, "tio_enabled": 7}[name]
    report = milan.report(changes={0x40: (1 << bit).to_bytes(8, "little")})

    found = verdict(report, milan.endorsements(), policy=policy(required_platform=(name,))).claims["platform"]

    assert isinstance(found, dict)
    assert [known for known, is_set in found.items() if is_set] == [name]


# --- the policy itself -----------------------------------------------------------------------------------------


def test_a_policy_is_read_from_toml() -> None:
    text = """
        vmpls = [0, 1]
        signing_keys = ["VCEK"]
        required_platform = ["alias_check_complete"]
        [tcb_floor.Milan]
        boot_loader = 4
        tee = 0
        snp = 24
        microcode = 219
        [tcb_floor.Turin]
        fmc = 1
        boot_loader = 1
        tee = 0
        snp = 4
        microcode = 75
    """

    read = policy(**tomllib.loads(text))

    assert (read.vmpls, read.signing_keys) == ((0, 1), (SigningKey.VCEK,))
    assert read.tcb_floor[SnpProduct.MILAN] == SnpTcbFloor(boot_loader=4, tee=0, snp=24, microcode=219)
    assert read.tcb_floor[SnpProduct.TURIN].fmc == 1


WRONG_POLICIES: dict[str, dict[str, Any]] = {
    "an unknown field": {"debug": True},
    "a VMPL that does not exist": {"vmpls": (4,)},
    "a VMPL that is a truth value": {"vmpls": (False,)},
    "an unknown line": {"tcb_floor": {"Naples": EXACT}},
    "a floor without a component": {"tcb_floor": {"Milan": {"boot_loader": 1, "tee": 0, "snp": 1}}},
    "a floor beyond a byte": {"tcb_floor": {"Milan": {**EXACT, "snp": 256}}},
    "a floor below nothing": {"tcb_floor": {"Milan": {**EXACT, "snp": -1}}},
    "Turin's component elsewhere": {"tcb_floor": {"Milan": {**EXACT, "fmc": 1}}},
    "Turin without its component": {"tcb_floor": {"Turin": EXACT}},
    "an unknown bit": {"required_platform": ("smt",)},
    "another unknown bit": {"forbidden_platform": ("smt",)},
    "an unknown key": {"signing_keys": ("ARK",)},
}


@pytest.mark.parametrize("fields", WRONG_POLICIES.values(), ids=WRONG_POLICIES)
def test_a_policy_that_means_nothing_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        policy(**fields)
