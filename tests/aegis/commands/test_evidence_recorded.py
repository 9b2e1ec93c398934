"""Every row of the recorded evidence gives its stated outcome through the command line, under the pinned roots."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from click.testing import Result

from coreason_enclave.attestation.verify.nvidia import parse_nvidia_evidence

Aegis = Callable[..., Result]

FOLDER = Path(os.environ.get("AEGIS_EVIDENCE_DIR", "AEGIS_EVIDENCE_DIR is not set"))
pytestmark = [
    pytest.mark.recorded,
    pytest.mark.skipif(not os.environ.get("AEGIS_EVIDENCE_DIR"), reason="AEGIS_EVIDENCE_DIR is not set"),
]

NOW = 1_780_000_000
MULTI_PACKAGE = {"allow_dynamic_platform": True, "allow_cached_keys": True, "allow_smt": True}
BOTH = ["INTEL-SA-00289", "INTEL-SA-00615"]
MILAN = ("snp/milan_vcek.pem", "snp/milan_ask.pem", "snp/milan_ark.pem")
GENOA = ("snp/genoa_vcek.pem", "snp/genoa_ask.pem", "snp/genoa_ark.pem")
BUNDLE = "snp/milan_ask_ark_bundle.pem"
CHAIN = ("nvidia/hopper_cert_chain.txt",)
HOPPER = "nvidia/hopper_evidence.json"
HELD = "nvidia/hopper_evidence_cert_on_hold.json"


@dataclass(frozen=True)
class Row:
    """``gives``: authentic, or the code of the refusal."""

    evidence: str
    gives: str
    endorsements: tuple[str, ...] = ()
    policy: dict[str, Any] | None = None
    now: int = NOW
    nonce: str | None = None

    @property
    def kind(self) -> str:
        return self.evidence.partition("/")[0]

    def __str__(self) -> str:
        with_policy = "" if self.policy is None else f" with {json.dumps(self.policy)}"
        return f"{self.evidence} and {len(self.endorsements)} files{with_policy} gives {self.gives}"


def gpu(evidence: str, gives: str, *endorsements: str, now: int = NOW) -> Row:
    return Row(evidence, gives, endorsements, now=now)


SGX_AT, TDX_AT, DEBUG_AT, OUTDATED_AT = 1_751_624_924, 1_751_624_191, 1_687_700_000, 1_772_000_000
QUOTE, QUOTE_V4 = ("sgx/quote.bin", ("sgx/collateral.json",)), ("tdx/quote_v4.bin", ("tdx/quote_v4_collateral.json",))
OUTDATED = ("tdx/outdated_quote.bin", ("tdx/outdated_collateral.json",))
DEBUG_TD = ("tdx/debug_td_quote.bin", ("tdx/debug_td_collateral.json",))

ROWS = [
    Row(QUOTE[0], "tcb_advisory", QUOTE[1], now=SGX_AT),
    Row(QUOTE[0], "tcb_advisory", QUOTE[1], {"accepted_advisories": BOTH[:1]}, SGX_AT),
    Row(QUOTE[0], "tcb_advisory", QUOTE[1], {"accepted_advisories": BOTH[1:]}, SGX_AT),
    Row(QUOTE[0], "authentic", QUOTE[1], {"accepted_advisories": BOTH}, SGX_AT),
    Row(QUOTE[0], "authentic", QUOTE[1], {"attestation": {"dcap": {"accepted_advisories": BOTH}}}, SGX_AT),
    Row(QUOTE[0], "not_valid_now", QUOTE[1], {"accepted_advisories": BOTH}),
    Row(QUOTE[0], "endorsements_missing", now=SGX_AT),
    Row("sgx/debug_enclave_quote.bin", "debug", now=SGX_AT),
    Row("sgx/debug_enclave_quote.bin", "debug", QUOTE[1], now=SGX_AT),
    Row(QUOTE_V4[0], "authentic", QUOTE_V4[1], MULTI_PACKAGE, TDX_AT),
    Row(QUOTE_V4[0], "authentic", QUOTE_V4[1], {"dcap": MULTI_PACKAGE}, TDX_AT),
    Row(QUOTE_V4[0], "platform", QUOTE_V4[1], now=TDX_AT),
    *(Row(QUOTE_V4[0], "platform", QUOTE_V4[1], {**MULTI_PACKAGE, name: False}, TDX_AT) for name in MULTI_PACKAGE),
    Row(QUOTE_V4[0], "endorsements_mismatch", QUOTE[1], MULTI_PACKAGE, TDX_AT),
    Row(OUTDATED[0], "tcb_unknown", OUTDATED[1], now=OUTDATED_AT),
    Row(OUTDATED[0], "tcb_unknown", OUTDATED[1], MULTI_PACKAGE, OUTDATED_AT),
    Row(DEBUG_TD[0], "debug", DEBUG_TD[1], now=DEBUG_AT),
    Row(DEBUG_TD[0], "debug", DEBUG_TD[1], MULTI_PACKAGE, DEBUG_AT),
    Row("snp/milan_report.bin", "authentic", MILAN),
    Row("snp/milan_report.bin", "authentic", MILAN[:2]),
    Row("snp/milan_report.bin", "endorsements_missing", MILAN[1:]),
    Row("snp/milan_report.bin", "signature", GENOA),
    Row("snp/genoa_report.bin", "authentic", GENOA),
    Row("snp/milan_v2_report.bin", "authentic", ("snp/milan_v2_vcek.der", BUNDLE)),
    Row("snp/milan_v2_report.bin", "chain", ("snp/milan_v2_vcek_invalid.der", BUNDLE)),
    Row("snp/debug_policy_report.bin", "debug", ("snp/debug_policy_vcek.der", BUNDLE)),
    gpu(HOPPER, "authentic"),
    gpu(HELD, "authentic"),
    gpu(HOPPER, "not_valid_now", now=1_640_000_000),
    gpu("nvidia/hopper_report.txt", "authentic", *CHAIN),
    gpu("nvidia/hopper_report.txt", "endorsements_missing"),
    gpu("nvidia/hopper_report_invalid_signature.txt", "signature", *CHAIN),
    # A manifest is verified before it is held against a GPU; none of the recorded GPUs runs this driver.
    gpu(HOPPER, "endorsements_mismatch", "nvidia/driver_rim_550.144.03.xml"),
    gpu(HOPPER, "endorsements_mismatch", "nvidia/driver_rim_550.144.03.xml", now=1_798_649_800),
    gpu(HOPPER, "not_valid_now", "nvidia/driver_rim_550.144.03.xml", now=1_798_649_811),
    gpu(HOPPER, "signature", "nvidia/driver_rim_bad_signature.xml"),
    gpu(HOPPER, "chain", "nvidia/driver_rim_bad_chain.xml"),
    gpu(HOPPER, "not_valid_now", "nvidia/driver_rim_expired.xml"),
    gpu(HOPPER, "endorsements_mismatch", "nvidia/device_root.pem"),
    gpu("nvidia/hopper_report.txt", "chain", "nvidia/device_root.pem"),
]


def answer(aegis: Aegis, row: Row, folder: Path, *options: str) -> dict[str, Any]:
    """The JSON answer; its exit code says the same."""
    arguments = ["--kind", row.kind, "--evidence", str(FOLDER / row.evidence), "--now", str(row.now)]
    arguments += [word for name in row.endorsements for word in ("--endorsements", str(FOLDER / name))]
    if row.policy is not None:
        (folder / "policy.toml").write_text(tomli_w.dumps(row.policy))
        arguments += ["--platform-policy", str(folder / "policy.toml")]
    result = aegis("evidence", "verify", *arguments, *options, "--json")
    document: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if document["verdict"] == "authentic" else 3), result.output
    return document


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_recorded_row_gives_its_outcome(aegis: Aegis, tmp_path: Path, row: Row) -> None:
    found = answer(aegis, row, tmp_path)

    assert (found["reason"] or found["verdict"]) == row.gives, found["message"]


@pytest.mark.parametrize(
    ("row", "claims"),
    [
        (ROWS[3], {"tcb_status": "ConfigurationAndSWHardeningNeeded", "advisories": BOTH}),
        (ROWS[9], {"tcb_status": "UpToDate", "advisories": []}),
        (Row("snp/milan_report.bin", "authentic", MILAN), {"product": "Milan", "vmpl": 0, "report_version": 3}),
        (Row("snp/genoa_report.bin", "authentic", GENOA), {"product": "Genoa", "vmpl": 0}),
        (Row(HOPPER, "authentic"), {"driver_version": "590.12", "mode": "protected_pcie"}),
    ],
    ids=["sgx", "tdx", "milan", "genoa", "hopper"],
)
def test_authentic_evidence_says_what_is_known_of_the_platform(
    aegis: Aegis, tmp_path: Path, row: Row, claims: dict[str, Any]
) -> None:
    found = answer(aegis, row, tmp_path)

    assert claims.items() <= found["claims"].items()


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.gives == "authentic" and row.kind in ("snp", "nvidia")], ids=str
)
def test_revocation_without_data_is_listed_as_not_checked(aegis: Aegis, tmp_path: Path, row: Row) -> None:
    assert "revocation" in answer(aegis, row, tmp_path)["not_checked"]


@pytest.mark.parametrize("name", [HOPPER, HELD, "nvidia/hopper_report.txt"])
def test_the_nonce_of_a_real_gpu_is_compared(aegis: Aegis, tmp_path: Path, name: str) -> None:
    row = Row(name, "authentic", CHAIN if name.endswith(".txt") else ())
    nonce = parse_nvidia_evidence((FOLDER / name).read_bytes())[0].report[4:36].hex()

    assert "nonce" not in answer(aegis, row, tmp_path, "--nonce", nonce)["not_checked"]
    assert answer(aegis, row, tmp_path, "--nonce", "00" * 32)["reason"] == "nonce"


@pytest.mark.parametrize("row", [row for row in ROWS if row.gives == "authentic" and row.kind != "nvidia"], ids=str)
def test_the_report_data_of_a_real_processor_are_compared(aegis: Aegis, tmp_path: Path, row: Row) -> None:
    own = answer(aegis, row, tmp_path)["report_data"]

    assert "report_data" not in answer(aegis, row, tmp_path, "--report-data", own)["not_checked"]
    assert answer(aegis, row, tmp_path, "--report-data", "11" * 64)["reason"] == "report_data"
    assert answer(aegis, row, tmp_path, "--nonce", "11" * 32)["reason"] == "nonce"


@pytest.mark.parametrize("status", ["on_hold", "revoked", "unknown"])
def test_a_certificate_that_the_vendor_holds_refuses_its_gpu(aegis: Aegis, tmp_path: Path, status: str) -> None:
    chain = parse_nvidia_evidence((FOLDER / HELD).read_bytes())[0].chain
    assert chain is not None
    said = {"version": 1, "statements": [{"serial": f"{chain[1].serial_number:x}", "status": status}]}
    (tmp_path / "revocation.json").write_text(json.dumps(said))

    found = answer(aegis, Row(HELD, ""), tmp_path, "--endorsements", str(tmp_path / "revocation.json"))

    assert found["reason"] == "revoked"


@pytest.mark.parametrize("name", [row.evidence for row in ROWS])
def test_inspect_reads_every_recorded_evidence_and_says_that_nothing_is_verified(aegis: Aegis, name: str) -> None:
    result = aegis("evidence", "inspect", FOLDER / name)

    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].startswith("NOT VERIFIED")


POLICY = {
    "kinds": ["snp"],
    "accept_unchecked": ["snp.revocation"],
    "snp": {"tcb_floor": {"Milan": {"boot_loader": 3, "tee": 0, "snp": 8, "microcode": 115}}},
}


def test_a_real_report_is_accepted_once_its_code_and_machine_are_named(aegis: Aegis, tmp_path: Path) -> None:
    report = (FOLDER / "snp/milan_report.bin").read_bytes()
    printed = aegis("evidence", "inspect", FOLDER / "snp/milan_report.bin", "--reference").stdout
    platforms = {"platforms": {"hospital-a": [report[0x1A0:0x1E0].hex()]}}
    policy = tmp_path / "policy.toml"
    policy.write_text(f"{tomli_w.dumps({'attestation': {**POLICY, **platforms}})}\n{printed}")
    files = [word for name in MILAN for word in ("--endorsements", str(FOLDER / name))]
    asked = ["--kind", "snp", "--evidence", str(FOLDER / "snp/milan_report.bin"), *files, "--now", str(NOW), "--json"]
    bound = ["--report-data", report[0x50:0x90].hex(), "--subject", "hospital-a"]

    accepted = aegis("evidence", "appraise", *asked, *bound, "--policy", policy)
    document = json.loads(accepted.stdout)
    assert (accepted.exit_code, document["verdict"]) == (0, "accepted"), document["message"]
    assert document["not_checked"] == ["snp.revocation"]

    for options, code in ((bound[:2], "platform_unknown"), (bound[2:], "unchecked")):
        refused = aegis("evidence", "appraise", *asked, *options, "--policy", policy)
        assert (refused.exit_code, json.loads(refused.stdout)["reason"]) == (3, code)
