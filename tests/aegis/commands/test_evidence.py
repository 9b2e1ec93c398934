"""``aegis evidence verify`` and ``inspect``: outcomes, exit codes and their JSON, on vendors of our own."""

from __future__ import annotations

import base64
import json
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.binding import gpu_nonce, manual_context
from coreason_enclave.attestation.evidence import to_base64
from coreason_enclave.attestation.verify.verdict import Refusal
from coreason_enclave.hardware.simulated import SimulatedAttester
from tests.aegis.commands.evidence_files import (
    INTEL,
    MOMENTS,
    NONCE,
    NOW,
    Files,
    bare,
    covered,
    endorsing,
    gpu_list,
    host,
)
from tests.coreason_enclave.attestation.nvidia import hierarchy as nvidia
from tests.coreason_enclave.attestation.snp import hierarchy as amd

Aegis = Callable[..., Result]
VERIFY = "coreason_enclave.attestation.verify"
KINDS = ("sgx", "tdx", "snp", "nvidia")
FIELDS = {
    *("verdict", "kind", "reason", "message", "report_data", "platform_id", "claims", "measurements", "not_checked")
}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def our_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one test, the roots are ours: otherwise nothing made here could ever be authentic."""
    room = "aegis.evidence.verification"

    def quote(kind: str) -> Callable[..., Any]:
        return lambda *arguments, **options: INTEL[kind].verifier.verify(kind, *arguments, **options)

    monkeypatch.setattr(f"{room}.verify_sgx", quote("sgx"))
    monkeypatch.setattr(f"{room}.verify_tdx", quote("tdx"))
    monkeypatch.setattr(f"{room}.verify_snp", amd.verifier().verify)
    monkeypatch.setattr(f"{room}.verify_nvidia", nvidia.verifier().verify)


def verdict(aegis: Aegis, *options: str | Path) -> dict[str, Any]:
    """The JSON answer, whose exit code has to say the same."""
    result = aegis("evidence", "verify", *options, "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == {"authentic": 0, "refused": 3}[document["verdict"]], result.output
    assert document.keys() - {"gpus"} == FIELDS
    assert (document["reason"] is None) == (document["verdict"] == "authentic")
    if document["reason"] is not None:
        assert document["reason"] in set(Refusal)
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("error: ")
    return document


def reason(aegis: Aegis, *options: str | Path) -> str:
    found = verdict(aegis, *options)["reason"]
    assert isinstance(found, str)
    return found


# --- whose roots ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_vendor_of_our_own_that_bears_the_real_ones_names_is_refused(aegis: Aegis, files: Files, kind: str) -> None:
    found = verdict(aegis, *files.question(kind))

    assert found["reason"] == "chain"
    assert (found["claims"], found["measurements"], found["platform_id"]) == ({}, {}, None)


# --- the answer -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("our_vendors")
@pytest.mark.parametrize("kind", KINDS)
def test_authentic_evidence_says_what_it_claims_and_what_was_not_checked(aegis: Aegis, files: Files, kind: str) -> None:
    found = verdict(aegis, *files.question(kind))

    assert (found["verdict"], found["kind"], found["report_data"]) == ("authentic", kind, covered(kind).hex())
    assert found["claims"]
    assert found["measurements"]
    assert found["platform_id"]
    assert {"nonce" if kind == "nvidia" else "report_data"} <= set(found["not_checked"])


@pytest.mark.usefixtures("our_vendors")
@pytest.mark.parametrize("kind", KINDS)
def test_report_data_that_are_asked_for_are_compared(aegis: Aegis, files: Files, kind: str) -> None:
    question = files.question(kind)
    right = covered(kind)
    wrong = bytes([right[0] ^ 1]) + right[1:]

    assert not {"nonce", "report_data"} & set(verdict(aegis, *question, "--report-data", right.hex())["not_checked"])
    expected = "nonce" if kind == "nvidia" else "report_data"
    assert reason(aegis, *question, "--report-data", wrong.hex()) == expected


@pytest.mark.usefixtures("our_vendors")
@pytest.mark.parametrize("kind", KINDS)
def test_a_bare_report_covers_the_nonce_it_was_asked_for_with(aegis: Aegis, files: Files, kind: str) -> None:
    padded = NONCE if kind == "nvidia" else NONCE + bytes(32)
    question = files.question(kind, bare(kind, padded))

    assert verdict(aegis, *question, "--nonce", NONCE.hex())["verdict"] == "authentic"
    assert verdict(aegis, *question, "--nonce", NONCE.hex(), "--report-data", padded.hex())["verdict"] == "authentic"
    assert reason(aegis, *question, "--nonce", NONCE[::-1].hex()) == "nonce"
    assert reason(aegis, *question, "--nonce", NONCE[::-1].hex(), "--report-data", padded.hex()) == "nonce"


@pytest.mark.usefixtures("our_vendors")
def test_a_nonce_with_something_else_than_zeros_behind_it_is_refused(aegis: Aegis, files: Files) -> None:
    question = files.question("snp", bare("snp", NONCE + bytes(31) + b"\1"))

    assert reason(aegis, *question, "--nonce", NONCE.hex()) == "nonce"


@pytest.mark.usefixtures("our_vendors")
def test_the_page_says_the_verdict_first_and_what_was_not_checked_last(aegis: Aegis, files: Files) -> None:
    question = files.question("snp")

    good = aegis("evidence", "verify", *question)
    bad = aegis("evidence", "verify", *question, "--report-data", "00" * 64)

    lines = good.stdout.splitlines()
    assert (good.exit_code, lines[0]) == (0, "AUTHENTIC")
    assert lines[-1] == "NOT CHECKED: report_data, revocation, tcb_floor, measurements"
    assert (bad.exit_code, bad.stdout.startswith("REFUSED (report_data): ")) == (3, True)


def test_what_a_file_says_reaches_no_terminal_as_a_command(aegis: Aegis, files: Files) -> None:
    leaf, *above = nvidia.device_certificates()
    hostile = replace(leaf, subject="\x1b[2J\u202eGH100")
    entry = {**json.loads(gpu_list(""))[0], "certificate": to_base64(nvidia.pem([c.make() for c in (hostile, *above)]))}
    path = files.write("gpus.json", [entry])

    page = aegis("evidence", "inspect", path).stdout

    assert "\\u001b[2J\\u202eGH100" in page
    assert not {"\x1b", "\u202e"} & set(page)


# --- the platform's policy --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("our_vendors")
@pytest.mark.parametrize(
    "document",
    [
        {"signing_keys": ["VLEK"]},
        {"snp": {"signing_keys": ["VLEK"]}},
        {"attestation": {"snp": {"signing_keys": ["VLEK"]}}},
        {"attestation": {"kinds": ["snp"], "snp": {"signing_keys": ["VLEK"]}, "dcap": {"allow_smt": True}}},
    ],
    ids=["bare", "its table", "below attestation", "a whole policy"],
)
def test_a_platform_policy_stands_bare_or_in_its_table(aegis: Aegis, files: Files, document: dict[str, Any]) -> None:
    policy = files.toml("policy.toml", document)

    assert reason(aegis, *files.question("snp"), "--platform-policy", policy) == "platform"


@pytest.mark.usefixtures("our_vendors")
@pytest.mark.parametrize(
    ("kind", "table", "line"),
    [
        ("sgx", "dcap", {"min_tcb_evaluation_data_number": 18}),
        ("tdx", "dcap", {"min_tcb_evaluation_data_number": 18}),
        ("nvidia", "nvidia", {"min_driver_version": "551.0"}),
    ],
)
def test_every_kind_is_held_to_its_own_platform_policy(
    aegis: Aegis, files: Files, kind: str, table: str, line: dict[str, Any]
) -> None:
    for document in (line, {table: line}):
        policy = files.toml("policy.toml", document)
        assert reason(aegis, *files.question(kind), "--platform-policy", policy) == "tcb_out_of_date"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"debug": True}, "debug"),
        ({"snp": {"allow_debug": True}}, "allow_debug"),
        ({"dcap": {"allow_smt": True}}, "[snp]"),
        ({"snp": {}, "vmpls": [0]}, "vmpls"),
        ({"attestation": {"snp": {}}, "snp": {}}, "the table [attestation]"),
        ({"attestation": 3}, "must be a table"),
        ({"snp": 3}, "must be a table"),
        ({"vmpls": [4]}, "vmpls"),
    ],
)
def test_a_platform_policy_in_which_a_line_would_not_count_is_unusable(
    aegis: Aegis, files: Files, document: dict[str, Any], said: str
) -> None:
    policy = files.toml("policy.toml", document)

    result = aegis("evidence", "verify", *files.question("snp"), "--platform-policy", policy)

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


# --- several GPUs -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("our_vendors")
def test_several_gpus_have_a_verdict_each_and_one_in_all(aegis: Aegis, files: Files) -> None:
    path = files.write("gpus.json", gpu_list("", "-2"))

    found = verdict(aegis, "--kind", "nvidia", "--evidence", path, "--now", str(NOW))
    page = aegis("evidence", "verify", "--kind", "nvidia", "--evidence", path, "--now", str(NOW)).stdout.splitlines()

    assert (found["verdict"], found["claims"]) == ("authentic", {"gpus": 2})
    assert [gpu["verdict"] for gpu in found["gpus"]] == ["authentic"] * 2
    assert len({gpu["platform_id"] for gpu in found["gpus"]}) == 2
    assert page[0] == "AUTHENTIC"
    assert [line for line in page if line.startswith("GPU")] == ["GPU 0", "GPU 1"]


@pytest.mark.usefixtures("our_vendors")
def test_one_bad_gpu_refuses_all_of_them(aegis: Aegis, files: Files) -> None:
    entries = json.loads(gpu_list("", "-2"))
    entries[1]["evidence"] = entries[0]["evidence"]
    path = files.write("gpus.json", entries)

    found = verdict(aegis, "--kind", "nvidia", "--evidence", path, "--now", str(NOW))

    assert (found["verdict"], found["reason"], found["platform_id"]) == ("refused", "signature", None)
    assert found["message"].startswith("GPU 1: ")
    assert [gpu["verdict"] for gpu in found["gpus"]] == ["authentic", "refused"]


@pytest.mark.usefixtures("our_vendors")
def test_a_gpu_that_is_shown_twice_is_refused(aegis: Aegis, files: Files) -> None:
    path = files.write("gpus.json", gpu_list("", ""))

    assert reason(aegis, "--kind", "nvidia", "--evidence", path, "--now", str(NOW)) == "duplicate_gpu"


# --- evidence of a whole host -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("our_vendors")
def test_both_parts_of_a_hosts_evidence_are_verified_with_the_nonce_it_was_asked_for_with(
    aegis: Aegis, files: Files
) -> None:
    path = files.write("host.json", host(manual_context(NONCE), handed_over=True))
    asked = ("--evidence", path, "--now", str(NOW), "--nonce")

    for kind in ("snp", "nvidia"):
        assert verdict(aegis, "--kind", kind, *asked, NONCE.hex())["verdict"] == "authentic"
        assert reason(aegis, "--kind", kind, *asked, NONCE[::-1].hex()) == "nonce"
    bound_data_of_gpu = gpu_nonce(manual_context(NONCE)).hex()
    options = ("--kind", "nvidia", "--evidence", path, "--now", str(NOW), "--report-data", bound_data_of_gpu)
    assert verdict(aegis, *options)["verdict"] == "authentic"


@pytest.mark.usefixtures("our_vendors")
def test_a_processors_report_does_not_go_with_another_hosts_gpus(aegis: Aegis, files: Files) -> None:
    mine, other = (json.loads(host(manual_context(NONCE), gpus=(who,), handed_over=True)) for who in ("", "-2"))
    path = files.write("host.json", {**mine, "gpus": other["gpus"]})

    options = ("--kind", "snp", "--evidence", path, "--now", str(NOW), "--nonce", NONCE.hex())
    assert reason(aegis, *options) == "nonce"


def test_a_host_is_not_verified_as_what_it_is_not(aegis: Aegis, files: Files) -> None:
    without_gpus = files.write("host.json", host(manual_context(NONCE), gpus=()))
    simulated = SimulatedAttester().produce(manual_context(NONCE)).model_dump_json()

    for kind in ("sgx", "tdx", "nvidia"):
        assert reason(aegis, "--kind", kind, "--evidence", without_gpus) == "wrong_kind"
    for kind in KINDS:
        assert reason(aegis, "--kind", kind, "--evidence", files.write("simulated.json", simulated)) == "wrong_kind"


# --- evidence of another kind, and endorsements that do not fit -------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_evidence_of_another_kind_is_refused(aegis: Aegis, files: Files, kind: str, other: str) -> None:
    if kind == other:
        return
    options = files.question(kind)
    path = files.write("other", bare(other))

    assert reason(aegis, *options[:2], "--evidence", path, *options[4:]) in ("wrong_kind", "malformed", "oversized")


@pytest.mark.usefixtures("our_vendors")
@pytest.mark.parametrize("kind", KINDS)
def test_evidence_without_endorsements_is_refused_for_that(aegis: Aegis, files: Files, kind: str) -> None:
    path = files.write("bare", bare(kind))

    options = ("--kind", kind, "--evidence", path, "--now", str(MOMENTS[kind]))
    assert reason(aegis, *options) == "endorsements_missing"


@pytest.mark.usefixtures("our_vendors")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("junk", [b"", b"\xff" * 64, b"{", b"-----BEGIN CERTIFICATE-----", b"<a/>", b"\x30\x80"])
def test_endorsements_that_are_junk_are_refused(aegis: Aegis, files: Files, kind: str, junk: bytes) -> None:
    path, bad = files.write("bare", bare(kind)), files.write("junk", junk)

    found = reason(aegis, "--kind", kind, "--evidence", path, "--endorsements", bad, "--now", str(MOMENTS[kind]))

    assert found in ("malformed", "endorsements_missing", "endorsements_mismatch")


@pytest.mark.usefixtures("our_vendors")
def test_a_quote_goes_with_one_collateral(aegis: Aegis, files: Files) -> None:
    options = files.question("tdx")

    assert reason(aegis, *options, *options[4:6]) == "endorsements_mismatch"


@pytest.mark.usefixtures("our_vendors")
@pytest.mark.parametrize(("kind", "library"), [("tdx", "dcap_qvl"), ("nvidia", f"{VERIFY}.rim")])
def test_a_library_that_is_missing_refuses(
    aegis: Aegis, files: Files, monkeypatch: pytest.MonkeyPatch, kind: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)

    assert reason(aegis, *files.question(kind)) == "library_missing"


# --- inspect ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_inspect_says_first_that_nothing_is_verified(aegis: Aegis, files: Files, kind: str) -> None:
    path = files.write("evidence", bare(kind))

    page, document = aegis("evidence", "inspect", path), json.loads(aegis("evidence", "inspect", path, "--json").stdout)

    assert page.exit_code == 0
    assert page.stdout.startswith("NOT VERIFIED: ")
    assert (document["verified"], document["kind"]) == (False, kind)
    assert document["report_data"] == covered(kind).hex()


def test_inspect_reads_a_whole_host_and_simulated_evidence(aegis: Aegis, files: Files) -> None:
    whole = files.write("host.json", host(manual_context(NONCE), gpus=("", "-2")))
    simulated = files.write("simulated.json", SimulatedAttester().produce(b"context").model_dump_json())

    document = json.loads(aegis("evidence", "inspect", whole, "--json").stdout)
    page = aegis("evidence", "inspect", simulated).stdout

    assert (document["kind"], len(document["gpus"])) == ("snp", 2)
    assert "SIMULATED evidence" in page.splitlines()[1]


@pytest.mark.parametrize(("said", "is_"), [("sgx", "tdx"), ("tdx", "sgx"), ("snp", "sgx"), ("sgx", "snp")])
def test_a_host_whose_report_is_of_another_kind_than_it_says_is_none(
    aegis: Aegis, files: Files, said: str, is_: str
) -> None:
    document = {"version": 1, "cpu": {"kind": said, "report": base64.b64encode(bare(is_)).decode()}}
    path = files.write("host.json", document)

    assert aegis("evidence", "inspect", path).exit_code == 3
    assert reason(aegis, "--kind", said, "--evidence", path) in ("wrong_kind", "malformed", "oversized")
    assert reason(aegis, "--kind", is_, "--evidence", path) == "wrong_kind"


@pytest.mark.usefixtures("our_vendors")
@pytest.mark.parametrize("kind", ["sgx", "tdx", "snp"])
def test_the_reference_that_inspect_prints_is_the_one_that_verified_evidence_matches(
    aegis: Aegis, files: Files, kind: str
) -> None:
    question = files.question(kind)

    printed = aegis("evidence", "inspect", question[3], "--reference").stdout
    measured = verdict(aegis, *question)["measurements"]

    assert printed.startswith("# NOT VERIFIED: ")
    document = tomllib.loads(printed)["attestation"]
    policy = AttestationPolicy.model_validate({"kinds": [kind], **document})
    (value,) = policy.reference_values
    assert value.matches(kind, measured, NOW)
    for name in value.measurements:
        assert not value.matches(kind, {**measured, name: "00" * 48}, NOW)
    every = tomllib.loads(printed.replace("\n# ", "\n").replace("Also measured", "# Also measured"))
    (all_of_them,) = every["attestation"]["reference_values"]
    assert all_of_them["measurements"] == measured


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (bare("nvidia"), "no reference values"),
        (SimulatedAttester().produce(b"context").model_dump_json().encode(), "no reference values"),
    ],
    ids=["gpu", "simulated"],
)
def test_what_measures_no_code_has_no_reference(aegis: Aegis, files: Files, content: bytes, code: str) -> None:
    result = aegis("evidence", "inspect", files.write("evidence", content), "--reference")

    assert (result.exit_code, result.stdout) == (3, "")
    assert code in result.stderr


@pytest.mark.parametrize("content", [b"", b"\xff" * 1184, b"hello", b"{}", b"[]", b'{"cpu": 1}', b"\x11\xe0\x01\xff"])
def test_what_is_no_evidence_is_not_inspected(aegis: Aegis, files: Files, content: bytes) -> None:
    result = aegis("evidence", "inspect", files.write("evidence", content))

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("name", ["vcek.der", "chain.pem", "driver.xml"])
def test_inspect_says_of_an_endorsement_that_it_is_one(aegis: Aegis, files: Files, name: str) -> None:
    content = {**endorsing("snp"), **endorsing("gpu")}[name]

    assert "an endorsement" in aegis("evidence", "inspect", files.write(name, content)).stderr
