"""What the measurements of a GPU are held against, and what a match shows."""

from __future__ import annotations

import hashlib
import sys

import pytest

from coreason_enclave.attestation.verify.nvidia import NvidiaEndorsements, NvidiaPlatformPolicy, NvidiaRevocation
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused
from tests.coreason_enclave.attestation.nvidia.hierarchy import (
    DRIVER_PART,
    FIELDS,
    MEASUREMENTS,
    NONCE,
    NOW,
    VBIOS_PART,
    VBIOS_VERSION,
    chain,
    device_answers,
    driver_manifest,
    manifest,
    manifest_answers,
    pem,
    report,
    vbios_manifest,
    verifier,
)

BOTH = (driver_manifest(), vbios_manifest())


def verify(*manifests: bytes, data: bytes | None = None, revocation: NvidiaRevocation | None = None) -> Authentic:
    ends = NvidiaEndorsements(pem(chain()), manifests, revocation)
    return verifier().verify(data or report(), ends, NvidiaPlatformPolicy(), NOW, nonce=NONCE)


def refusal(*manifests: bytes, data: bytes | None = None) -> Refusal:
    with pytest.raises(VerificationRefused) as refused:
        verify(*manifests, data=data)
    return refused.value.refusal


def with_measurement(number: int, value: bytes) -> bytes:
    changed = list(MEASUREMENTS)
    changed[number] = value
    return report(measurements=changed)


def test_both_manifests_show_the_measurements_and_with_them_the_mode() -> None:
    verdict = verify(*BOTH)
    assert verdict.not_checked == ("revocation", "driver_manifest_revocation", "vbios_manifest_revocation")
    assert verdict.claims["measurements_compared"] == [1, 2, 3, 32, 33, 34, 35]
    assert set(verdict.claims["manifests"]) == {"driver", "vbios"}  # type: ignore[call-overload]


def test_with_every_endorsement_nothing_is_left_unchecked() -> None:
    answers = [answer.der() for answer in (*device_answers(), *manifest_answers())]
    assert verify(*BOTH, revocation=NvidiaRevocation.of_responses(*answers)).not_checked == ()


@pytest.mark.parametrize("one", BOTH)
def test_one_manifest_alone_is_compared_but_does_not_show_the_mode(one: bytes) -> None:
    verdict = verify(one)
    assert {"measurements", "confidential_computing_mode", "developer_tools"} <= set(verdict.not_checked)
    assert verdict.claims["measurements_compared"]


@pytest.mark.parametrize("number", [1, 3, 32, 35])
def test_one_measurement_that_differs_is_refused(number: int) -> None:
    data = with_measurement(number, hashlib.sha384(b"developer tools").digest())
    assert refusal(*BOTH, data=data) is Refusal.MEASUREMENT
    verify(data=data)


def test_any_of_several_right_values_is_right() -> None:
    verify(*BOTH, data=with_measurement(1, bytes(48)))
    assert refusal(*BOTH, data=with_measurement(32, bytes(48))) is Refusal.MEASUREMENT


def test_a_value_is_right_in_its_own_place_only() -> None:
    assert refusal(*BOTH, data=with_measurement(32, MEASUREMENTS[33])) is Refusal.MEASUREMENT


def test_the_decoders_measurement_means_nothing_where_the_decoder_is_fused_off() -> None:
    changed = list(MEASUREMENTS)
    changed[35] = bytes(48)
    off = report(measurements=changed, fields={**FIELDS, 11: b"\x55"})
    assert 35 not in verify(*BOTH, data=off).claims["measurements_compared"]  # type: ignore[operator]
    for other in ({**FIELDS, 11: b"\xaa"}, {**FIELDS, 11: b"\0"}, {n: v for n, v in FIELDS.items() if n != 11}):
        assert refusal(*BOTH, data=report(measurements=changed, fields=other)) is Refusal.MEASUREMENT


@pytest.mark.parametrize(
    "manifests",
    [
        (manifest(DRIVER_PART, "550.144.04"),),
        (manifest(DRIVER_PART, product="GB100"),),
        (manifest(VBIOS_PART, "96.00.A5.00.02"),),
        (driver_manifest(), driver_manifest()),
        (driver_manifest(), manifest({40: (MEASUREMENTS[40],)})),
        (*BOTH, driver_manifest()),
        (*BOTH, b"<unread/>"),
        (driver_manifest(), manifest({32: (MEASUREMENTS[32],)}, VBIOS_VERSION)),
    ],
)
def test_manifests_that_do_not_belong_to_this_gpu_or_contradict_are_refused(manifests: tuple[bytes, ...]) -> None:
    assert refusal(*manifests) is Refusal.ENDORSEMENTS_MISMATCH


def test_the_vbios_version_may_be_spelled_in_lower_case() -> None:
    assert "vbios" in verify(manifest(VBIOS_PART, VBIOS_VERSION.lower())).claims["manifests"]  # type: ignore[operator]


def test_a_manifest_that_lists_nothing_is_refused_instead_of_matching_everything() -> None:
    assert refusal(manifest({})) is Refusal.MALFORMED


@pytest.mark.parametrize("library", ["lxml", "signxml"])
def test_without_the_library_for_manifests_they_are_refused_and_not_passed_over(
    monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    data = driver_manifest()
    for name in [name for name in sys.modules if name.startswith("coreason_enclave.attestation.verify.rim")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [library, *(name for name in sys.modules if name.startswith(f"{library}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(VerificationRefused, match=rf"needs {library}.*install the extra 'attestation'") as refused:
        verify(data)
    assert refused.value.refusal is Refusal.LIBRARY_MISSING
    verify()


def test_files_are_sorted_by_what_they_are() -> None:
    answers = [answer.der() for answer in device_answers()]
    ends = NvidiaEndorsements.from_files([*answers, vbios_manifest(), pem(chain()), driver_manifest()])
    assert ends.chain == pem(chain())
    assert ends.manifests == (vbios_manifest(), driver_manifest())
    assert ends.revocation == NvidiaRevocation.of_responses(*answers)
    document = ends.revocation.model_dump_json().encode()
    assert NvidiaEndorsements.from_files([document]).revocation == ends.revocation


@pytest.mark.parametrize(
    "files", [[b""], [b"text"], [b"{}", b"{}"], [b'{"kind":"good"}'], [b"{"], [b'{"status":"good"}']]
)
def test_a_file_that_is_no_endorsement_is_refused(files: list[bytes]) -> None:
    with pytest.raises(VerificationRefused) as refused:
        NvidiaEndorsements.from_files(files)
    assert refused.value.refusal is Refusal.MALFORMED
