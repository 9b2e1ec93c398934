"""Real reports, from machines and clouds that nobody in this project runs, under the pinned roots."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from coreason_enclave.attestation.verify.snp import SnpEndorsements, SnpPlatformPolicy, parse_report, verify_snp
from coreason_enclave.attestation.verify.verdict import Authentic, Refusal, VerificationRefused

FOLDER = Path(os.environ.get("AEGIS_EVIDENCE_DIR", "AEGIS_EVIDENCE_DIR is not set")) / "snp"
NOW = 1_780_000_000

pytestmark = [
    pytest.mark.recorded,
    pytest.mark.skipif(not os.environ.get("AEGIS_EVIDENCE_DIR"), reason="needs AEGIS_EVIDENCE_DIR"),
]

MILAN = ("milan_report.bin", ("milan_vcek.pem", "milan_ask.pem", "milan_ark.pem"))
GENOA = ("genoa_report.bin", ("genoa_vcek.pem", "genoa_ask.pem", "genoa_ark.pem"))
MILAN_V2 = ("milan_v2_report.bin", ("milan_v2_vcek.der", "milan_ask_ark_bundle.pem"))
BROKEN_VCEK = ("milan_v2_report.bin", ("milan_v2_vcek_invalid.der", "milan_ask_ark_bundle.pem"))
DEBUG = ("debug_policy_report.bin", ("debug_policy_vcek.der", "milan_ask_ark_bundle.pem"))
GOOD = [MILAN, GENOA, MILAN_V2]


@dataclass(frozen=True)
class Recorded:
    """One report with its endorsements, ready to be damaged."""

    report: bytes
    endorsements: SnpEndorsements

    @classmethod
    def read(cls, row: tuple[str, tuple[str, ...]]) -> Recorded:
        report, files = row
        return cls(read(report), SnpEndorsements.from_files(read(name) for name in files))

    def verify(self, *, now: int = NOW, report_data: bytes | None = None) -> Authentic:
        return verify_snp(self.report, self.endorsements, SnpPlatformPolicy(), now, report_data=report_data)

    def refusal(self, *, now: int = NOW, report_data: bytes | None = None) -> Refusal:
        with pytest.raises(VerificationRefused) as refused:
            self.verify(now=now, report_data=report_data)
        return refused.value.refusal


def read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


@pytest.mark.parametrize(
    ("row", "line", "version", "levels"),
    [
        (MILAN, "Milan", 3, (4, 0, 24, 219)),
        (GENOA, "Genoa", 3, (10, 0, 23, 84)),
        (MILAN_V2, "Milan", 2, (3, 0, 8, 115)),
    ],
    ids=["milan", "genoa", "milan v2"],
)
def test_a_real_report_is_accepted(
    row: tuple[str, tuple[str, ...]], line: str, version: int, levels: tuple[int, ...]
) -> None:
    recorded = Recorded.read(row)

    found = recorded.verify()

    claims = found.claims
    assert (claims["product"], claims["report_version"], claims["vmpl"]) == (line, version, 0)
    assert isinstance(claims["tcb"], dict)
    assert tuple(claims["tcb"]["reported"].values()) == levels
    assert isinstance(claims["guest_policy"], dict)
    assert not claims["guest_policy"]["debug_allowed"]
    assert found.platform_id == recorded.report[0x1A0:0x1E0].hex()
    assert "revocation" in found.not_checked


def test_a_vcek_whose_signature_is_broken_is_refused() -> None:
    assert Recorded.read(BROKEN_VCEK).refusal() is Refusal.CHAIN


def test_a_real_guest_that_may_be_debugged_is_refused_after_all_cryptography() -> None:
    recorded = Recorded.read(DEBUG)

    assert recorded.refusal() is Refusal.DEBUG
    altered = Recorded(recorded.report[:0x90] + b"\0" + recorded.report[0x91:], recorded.endorsements)
    assert altered.refusal() is Refusal.SIGNATURE


@pytest.mark.parametrize("row", GOOD, ids=["milan", "genoa", "milan v2"])
def test_a_flipped_bit_in_any_byte_of_a_real_report_is_refused(row: tuple[str, tuple[str, ...]]) -> None:
    recorded = Recorded.read(row)
    raw = recorded.report

    def damaged() -> Iterator[bytes]:
        return (raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :] for at in range(len(raw)))

    codes = {Recorded(one, recorded.endorsements).refusal() for one in damaged()}

    assert codes <= {Refusal.MALFORMED, Refusal.SIGNATURE, Refusal.ENDORSEMENTS_MISMATCH}


def test_no_real_report_goes_with_the_endorsements_of_another() -> None:
    rows = [*GOOD, DEBUG]
    for one, other in product(rows, rows):
        if one is not other:
            mixed = Recorded(Recorded.read(one).report, Recorded.read(other).endorsements)
            assert mixed.refusal() in (Refusal.SIGNATURE, Refusal.ENDORSEMENTS_MISMATCH)


@pytest.mark.parametrize("row", GOOD, ids=["milan", "genoa", "milan v2"])
def test_a_real_chain_is_valid_in_its_windows_only(row: tuple[str, tuple[str, ...]]) -> None:
    recorded = Recorded.read(row)
    end = recorded.verify().claims["certificate_expires_at"]
    assert isinstance(end, int)

    assert recorded.verify(now=end).kind == "snp"
    for now in (0, 1_600_000_000, end + 1, 2_500_000_000):
        assert recorded.refusal(now=now) is Refusal.NOT_VALID_NOW


def test_the_report_data_of_a_real_report_is_compared() -> None:
    recorded = Recorded.read(MILAN_V2)
    own = parse_report(recorded.report).report_data

    assert recorded.verify(report_data=own).report_data == own
    assert recorded.refusal(report_data=bytes(64)) is Refusal.REPORT_DATA
    assert recorded.refusal(report_data=own[:63]) is Refusal.REPORT_DATA


@pytest.mark.parametrize("certificate", ["sgx", "nvidia"])
def test_another_vendors_endorsements_are_refused(certificate: str) -> None:
    path = {"sgx": "sgx/collateral.json", "nvidia": "nvidia/device_root.pem"}[certificate]
    with pytest.raises(VerificationRefused):
        SnpEndorsements.from_files([(FOLDER.parent / path).read_bytes()])


@pytest.mark.parametrize("path", ["tdx/quote_v4.bin", "sgx/quote.bin", "nvidia/hopper_report.txt"])
def test_another_vendors_evidence_is_refused(path: str) -> None:
    recorded = Recorded.read(MILAN)
    other = Recorded((FOLDER.parent / path).read_bytes(), recorded.endorsements)

    assert other.refusal() in (Refusal.OVERSIZED, Refusal.MALFORMED)
