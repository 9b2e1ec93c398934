"""What an item takes for itself, and when it counts: decided from the content alone, whoever brought it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from coreason_enclave.attestation.endorsements.collateral import (
    DcapCollateral,
    Item,
    NvidiaManifest,
    NvidiaOcsp,
    SnpAuthorities,
    SnpKeyCertificate,
    SnpRevocationList,
)
from coreason_enclave.attestation.endorsements.requirements import collateral_of
from coreason_enclave.attestation.verify.snp import SigningKey, SnpProduct
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from tests.coreason_enclave.attestation.appraisal.hosts import NOW, intel_of
from tests.coreason_enclave.attestation.dcap import hierarchy as intel
from tests.coreason_enclave.attestation.nvidia import hierarchy as nvidia
from tests.coreason_enclave.attestation.snp import hierarchy as amd

DAY = 86_400
MILAN = SnpProduct.MILAN
CHIP, TCB = amd.CHIP[MILAN].hex(), amd.TCB[MILAN].hex()
VENDOR = amd.Vendor()
PROVIDER = amd.Vendor(kind=amd.SigningKey.VLEK)


@dataclass(frozen=True)
class Known:
    """An item, its content, the window of that content, and contents that belong to other items."""

    item: Item
    content: Callable[[], bytes]
    first: int
    last: int
    others: tuple[Callable[[], bytes], ...]


def pem(*certificates: bytes) -> bytes:
    return nvidia.pem([x509.load_der_x509_certificate(der) for der in certificates])


def manifest_window() -> tuple[int, int]:
    chain = nvidia.manifest_chain()
    first = max(one.not_valid_before_utc for one in chain)
    last = min(one.not_valid_after_utc for one in chain)
    return int(first.timestamp()), int(last.timestamp())


def known() -> dict[str, Known]:
    answer = nvidia.device_answers()[0]
    tcb_window = (NOW - DAY, NOW + 20 * DAY)
    return {
        "collateral": Known(
            DcapCollateral("tdx", intel.FMSPC.hex(), "platform"),
            lambda: intel_of("tdx").endorsements().collateral or b"",
            *tcb_window,
            (
                lambda: intel_of("sgx").endorsements().collateral or b"",
                lambda: (
                    intel_of("tdx")
                    .endorsements(tcb_info=intel_of("tdx").changed(pck_says=intel.Pck(fmspc=bytes(6))).tcb_info())
                    .collateral
                    or b""
                ),
                lambda: json.dumps({}).encode(),
            ),
        ),
        "vcek": Known(
            SnpKeyCertificate(MILAN, TCB, CHIP),
            lambda: amd.leaf_of(VENDOR),
            NOW - amd.YEAR,
            NOW + amd.YEAR,
            (
                lambda: VENDOR.leaf(extensions={"4": bytes(range(1, 65))}),
                lambda: VENDOR.leaf(extensions=VENDOR.amd_extensions(bytes([2, 1, 0, 0, 0, 0, 9, 211]))),
                lambda: VENDOR.leaf(extensions={"2": amd.tlv(0x16, b"Genoa-B0")}),
                lambda: amd.leaf_of(PROVIDER),
                lambda: amd.authority_of(VENDOR),
            ),
        ),
        "vlek": Known(
            SnpKeyCertificate(MILAN, TCB, None),
            lambda: amd.leaf_of(PROVIDER),
            NOW - amd.YEAR,
            NOW + amd.YEAR,
            (lambda: amd.leaf_of(VENDOR),),
        ),
        "authorities": Known(
            SnpAuthorities(MILAN, SigningKey.VCEK),
            lambda: pem(amd.authority_of(VENDOR), amd.root_of(VENDOR)),
            NOW - amd.YEAR,
            NOW + amd.YEAR,
            (
                lambda: amd.leaf_of(VENDOR),
                lambda: pem(amd.authority_of(VENDOR), nvidia_leaf()),
                lambda: VENDOR.revocation_list(),
            ),
        ),
        "list": Known(
            SnpRevocationList(MILAN, SigningKey.VCEK),
            VENDOR.revocation_list,
            NOW - DAY,
            NOW + DAY,
            (lambda: amd.root_of(VENDOR),),
        ),
        "manifest": Known(
            NvidiaManifest("NV_GPU_DRIVER_GH100_550.144.03"),
            nvidia.driver_manifest,
            *manifest_window(),
            (lambda: b"<x/>", lambda: b"junk"),
        ),
        "answer": Known(
            NvidiaOcsp(answer.certificates[1], answer.certificates[2]),
            answer.der,
            NOW - 3600,
            NOW + 3600,
            (lambda: nvidia.device_answers()[1].der(), lambda: b"junk"),
        ),
    }


def nvidia_leaf() -> bytes:
    return nvidia.chain()[0].public_bytes(Encoding.DER)


NAMES = ("collateral", "vcek", "vlek", "authorities", "list", "manifest", "answer")
every_item = pytest.mark.parametrize("name", NAMES)


@every_item
def test_an_item_counts_from_the_first_to_the_last_second_of_its_own_window(name: str) -> None:
    one = known()[name]
    content = one.content()
    moments = (one.first - 1, one.first, NOW, one.last, one.last + 1)
    assert [one.item.is_current(content, moment) for moment in moments] == [False, True, True, True, False]


@every_item
def test_what_belongs_to_another_item_is_told_apart(name: str) -> None:
    one = known()[name]
    for other in one.others:
        with pytest.raises(VerificationRefused):
            one.item.is_current(other(), NOW)


@every_item
@pytest.mark.parametrize(
    "content", [b"", b"\0", b"{}", b"\x30\x00", b"-----BEGIN CERTIFICATE-----", b"<a>", b"\xff" * 99]
)
def test_bytes_that_are_nothing_are_a_refusal_and_no_other_error(name: str, content: bytes) -> None:
    with pytest.raises(VerificationRefused):
        known()[name].item.is_current(content, NOW)


@every_item
def test_an_item_cut_short_anywhere_is_a_refusal_or_no_item(name: str) -> None:
    one = known()[name]
    content = one.content()
    for end in range(0, len(content) - 2, max(1, len(content) // 60)):
        with pytest.raises(VerificationRefused):
            one.item.is_current(content[:end], NOW)


@every_item
def test_names_stay_below_their_folder_and_are_the_items_own(name: str) -> None:
    names = [one.item.name for one in known().values()]
    assert len(set(names)) == len(names)
    assert all(".." not in one and not one.startswith("/") for one in names)


@pytest.mark.parametrize("part", ["tcb_window", "qe_window", "pck_crl_window", "root_crl_window"])
def test_collateral_ends_with_the_first_of_its_parts(part: str) -> None:
    item = DcapCollateral("sgx", intel.FMSPC.hex(), "platform")
    content = intel_of("sgx").changed(**{part: (NOW - DAY, NOW + 10)}).endorsements().collateral or b""
    assert item.is_current(content, NOW + 10)
    assert not item.is_current(content, NOW + 11)


@pytest.mark.parametrize("authority", ["Platform", "Processor"])
def test_collateral_is_of_the_authority_that_certified_the_platform(authority: str) -> None:
    world = intel_of("sgx")
    issuer = intel.issue(f"PCK {authority} CA", world.root, depth=0)
    wanted = collateral_of(world.changed(made={"ca": issuer}).quote())
    assert wanted == DcapCollateral("sgx", intel.FMSPC.hex(), authority.lower())


def test_an_answer_that_says_to_come_back_later_is_none() -> None:
    answer = nvidia.device_answers()[0]
    later = ocsp.OCSPResponseBuilder.build_unsuccessful(ocsp.OCSPResponseStatus.TRY_LATER)
    with pytest.raises(VerificationRefused) as refused:
        NvidiaOcsp(answer.certificates[1], answer.certificates[2]).is_current(later.public_bytes(Encoding.DER), NOW)
    assert refused.value.refusal is Refusal.MALFORMED


def test_an_answer_without_an_end_does_not_count() -> None:
    answer = replace(nvidia.device_answers()[0], last=None)
    assert not NvidiaOcsp(answer.certificates[1], answer.certificates[2]).is_current(answer.der(), NOW)


@pytest.mark.parametrize("bad", ["../../x", "a/b", "", ".hidden", "a\0b", "x" * 300, "ü"])
def test_a_name_that_would_leave_its_folder_is_refused(bad: str) -> None:
    items: tuple[Any, ...] = (
        DcapCollateral(f"{bad}/..", bad, "platform"),
        SnpKeyCertificate(MILAN, f"../{bad}", None),
        NvidiaManifest(f"../{bad}"),
        NvidiaManifest(f"/{bad}"),
    )
    for item in items:
        with pytest.raises(VerificationRefused):
            _ = item.name
    assert SnpKeyCertificate(MILAN, "00", CHIP).name.startswith("snp/Milan/vcek/")
