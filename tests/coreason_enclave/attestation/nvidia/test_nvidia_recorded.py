"""Evidence of real H100s, and NVIDIA's real and broken manifests, under the pinned roots."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cryptography import x509

from coreason_enclave.attestation.verify.nvidia import (
    NvidiaEndorsements,
    NvidiaPlatformPolicy,
    NvidiaRevocation,
    RevocationStatement,
    RevocationStatus,
    parse_nvidia_evidence,
    verify_nvidia,
    verify_nvidia_list,
)
from coreason_enclave.attestation.verify.nvidia.roots import pinned_roots
from coreason_enclave.attestation.verify.nvidia.spdm import parse_report
from coreason_enclave.attestation.verify.rim import Manifest, verify_manifest_under
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused

pytestmark = [
    pytest.mark.recorded,
    pytest.mark.skipif(not os.environ.get("AEGIS_EVIDENCE_DIR"), reason="AEGIS_EVIDENCE_DIR is not set"),
]

NOW = 1_780_000_000
POLICY = NvidiaPlatformPolicy()


def recorded(name: str) -> bytes:
    return (Path(os.environ["AEGIS_EVIDENCE_DIR"]) / "nvidia" / name).read_bytes()


def verify(name: str, ends: NvidiaEndorsements | None = None, *, now: int = NOW) -> Authentic:
    data = recorded(name)
    nonce = parse_report(parse_nvidia_evidence(data)[0].report).nonce
    return verify_nvidia(data, ends or NvidiaEndorsements(), POLICY, now, nonce=nonce)


def separate() -> NvidiaEndorsements:
    return NvidiaEndorsements.from_files([recorded("hopper_cert_chain.txt")])


def manifest(name: str, now: int = NOW) -> Manifest:
    return verify_manifest_under(pinned_roots().manifests, recorded(name), now)


def test_the_pinned_roots_are_the_vendors() -> None:
    for name, root in (("device_root.pem", pinned_roots().devices), ("rim_root.pem", pinned_roots().manifests)):
        assert x509.load_pem_x509_certificate(recorded(name)) == root


def test_the_evidence_of_an_h100_is_authentic_and_revocation_is_not_checked() -> None:
    verdict = verify("hopper_evidence.json")
    assert verdict.claims["driver_version"] == "590.12"
    assert verdict.claims["vbios_version"] == "96.00.A5.00.01"
    assert verdict.claims["mode"] == "protected_pcie"
    assert "revocation" in verdict.not_checked
    assert "firmware_identity" not in verdict.not_checked
    assert verdict.report_data.hex() == json.loads(recorded("hopper_evidence.json"))[0]["nonce"]
    assert verify_nvidia_list(
        recorded("hopper_evidence.json"), NvidiaEndorsements(), POLICY, NOW, nonce=verdict.report_data
    ) == (verdict,)


@pytest.mark.parametrize("held", [1, 2, 3])
def test_a_certificate_on_hold_is_accepted_offline_and_refused_once_somebody_says_so(held: int) -> None:
    name = "hopper_evidence_cert_on_hold.json"
    assert "revocation" in verify(name).not_checked
    chain = parse_nvidia_evidence(recorded(name))[0].chain
    assert chain is not None
    said = RevocationStatement(serial=f"{chain[held].serial_number:x}", status=RevocationStatus.ON_HOLD)
    with pytest.raises(VerificationRefused) as refused:
        verify(name, NvidiaEndorsements(revocation=NvidiaRevocation(statements=(said,))))
    assert refused.value.refusal is Refusal.REVOKED


def test_a_report_in_hex_with_its_chain_apart_is_authentic() -> None:
    verdict = verify("hopper_report.txt", separate())
    assert {"revocation", "firmware_identity"} <= set(verdict.not_checked)
    assert verdict.report_data == bytes.fromhex(recorded("hopper_report.txt").decode())[4:36]


def test_a_report_with_a_broken_signature_is_refused_for_its_signature() -> None:
    with pytest.raises(VerificationRefused) as refused:
        verify("hopper_report_invalid_signature.txt", separate())
    assert refused.value.refusal is Refusal.SIGNATURE


@pytest.mark.parametrize("name", ["hopper_evidence.json", "hopper_evidence_cert_on_hold.json"])
def test_a_report_does_not_go_with_another_gpus_certificates(name: str) -> None:
    report = parse_nvidia_evidence(recorded(name))[0].report
    with pytest.raises(VerificationRefused) as refused:
        verify_nvidia(report, separate(), POLICY, NOW, nonce=None)
    assert refused.value.refusal is Refusal.SIGNATURE


def test_no_byte_of_a_real_report_can_be_changed() -> None:
    """One bit of every byte but the middles of the digests, of which a sample."""
    report = bytes.fromhex(recorded("hopper_report.txt").decode())
    ends = separate()
    for at in range(len(report)):
        if 45 <= at < 45 + 64 * 55 and (at - 45) % 55 > 8 and at % 29:
            continue
        changed = bytearray(report)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises(VerificationRefused):
            verify_nvidia(bytes(changed), ends, POLICY, NOW, nonce=None)


def test_a_gpus_certificates_are_not_valid_before_their_time() -> None:
    with pytest.raises(VerificationRefused) as refused:
        verify("hopper_evidence.json", now=1_640_000_000)
    assert refused.value.refusal is Refusal.NOT_VALID_NOW


def test_the_manifest_of_a_driver_is_valid_until_the_end_of_2026() -> None:
    good = manifest("driver_rim_550.144.03.xml")
    assert (good.product, good.version, len(good.measurements)) == ("GH100", "550.144.03", 21)
    assert manifest("driver_rim_550.144.03.xml", 1_798_649_800) == good  # 2026-12-30 16:56:40
    for now in (1_798_649_811, 1_735_577_000):
        with pytest.raises(VerificationRefused) as refused:
            manifest("driver_rim_550.144.03.xml", now)
        assert refused.value.refusal is Refusal.NOT_VALID_NOW


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("driver_rim_bad_signature.xml", Refusal.SIGNATURE),
        ("driver_rim_bad_chain.xml", Refusal.CHAIN),
        ("driver_rim_expired.xml", Refusal.NOT_VALID_NOW),
    ],
)
def test_a_broken_manifest_is_refused_for_its_own_reason(name: str, expected: Refusal) -> None:
    with pytest.raises(VerificationRefused) as refused:
        manifest(name)
    assert refused.value.refusal is expected


def test_a_driver_manifest_of_another_version_does_not_go_with_a_report() -> None:
    with pytest.raises(VerificationRefused) as refused:
        verify("hopper_evidence.json", NvidiaEndorsements(manifests=(recorded("driver_rim_550.144.03.xml"),)))
    assert refused.value.refusal is Refusal.ENDORSEMENTS_MISMATCH


def test_manifests_count_measurements_from_zero_where_reports_count_from_one() -> None:
    """Firmware images that two drivers share measure the same: the real report shows which number is meant."""
    expected = manifest("driver_rim_550.144.03.xml").measurements
    report = parse_report(parse_nvidia_evidence(recorded("hopper_evidence.json"))[0].report)
    assert [n for n in range(32, 39) if report.measurements[n] in expected[n]] == list(range(32, 39))
    assert not any(report.measurements[n] in expected[n + 1] for n in range(32, 38))
