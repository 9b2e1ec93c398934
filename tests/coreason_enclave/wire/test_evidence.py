"""The verifier finds in every kind of evidence what it has to cover, and refuses what covers anything else."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from coreason_enclave.attestation.binding import gpu_nonce, report_data
from coreason_enclave.attestation.evidence import CpuKind, GpuReport, to_base64
from coreason_enclave.attestation.verify.dcap.quote import parse_quote
from tests.coreason_enclave.attestation.dcap import hierarchy as intel
from tests.coreason_enclave.wire import story
from tests.coreason_enclave.wire.golden import read

KINDS = tuple(story.HARDWARE)
CONTEXT = story.site_binding(story.CHALLENGE).context()
ABOUT = (
    story.CHALLENGE,
    story.KEYS["clinic-1"].public_hex,
    story.KEM_KEYS["clinic-1"].public_hex,
    story.JOB.digest(),
)


def shown(kind: CpuKind) -> dict[str, Any]:
    """The golden evidence of this kind, to be changed."""
    evidence: dict[str, Any] = read(f"attestation-{kind}")["payload"]["evidence"]
    return evidence


def proves(verifier: Any, evidence: dict[str, Any], *about: str, role: str = "site", subject: str = "clinic-1") -> bool:
    try:
        verifier.refusing(verifier.prove, evidence, role, subject, *(about or ABOUT))
    except verifier.Refused:
        return False
    return True


def flipped(report: str, position: int, change: int = 1) -> str:
    data = bytearray(base64.b64decode(report))
    data[position] ^= change
    return to_base64(bytes(data))


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_of_hardware_counts_for_one_challenge_subject_and_pair_of_keys_alone(verifier, kind) -> None:
    assert proves(verifier, shown(kind))
    for place in range(len(ABOUT)):
        assert not proves(verifier, shown(kind), *ABOUT[:place], "0" * 64, *ABOUT[place + 1 :])
    assert not proves(verifier, shown(kind), subject="clinic-2")
    assert not proves(verifier, shown(kind), role="coordinator")


@pytest.mark.parametrize("kind", KINDS)
def test_each_byte_of_the_report_data_counts(verifier, kind) -> None:
    evidence = shown(kind)
    start = base64.b64decode(evidence["cpu"]["report"]).index(report_data(CONTEXT, _gpus(evidence)))
    for position in range(start, start + 64):
        cpu = {**evidence["cpu"], "report": flipped(evidence["cpu"]["report"], position)}
        assert not proves(verifier, {**evidence, "cpu": cpu}), position


def _gpus(evidence: dict[str, Any]) -> list[GpuReport]:
    return [GpuReport.model_validate(gpu) for gpu in evidence["gpus"]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_under_another_kind_or_of_an_unknown_version_is_refused(verifier, kind) -> None:
    evidence = shown(kind)
    for other in {*CpuKind} - {kind}:
        assert not proves(verifier, {**evidence, "cpu": {**evidence["cpu"], "kind": other.value}})
    unknown = {**evidence["cpu"], "report": flipped(evidence["cpu"]["report"], 0, 0x40)}
    assert not proves(verifier, {**evidence, "cpu": unknown})


def test_gpus_are_those_that_the_processors_report_covers(verifier) -> None:
    evidence = shown(CpuKind.TDX)
    (gpu,) = evidence["gpus"]
    for gpus in (
        [],
        [gpu, gpu],
        [{**gpu, "certificate_chain": "AAEC"}],
        [{**gpu, "report": flipped(gpu["report"], 99)}],
    ):
        assert not proves(verifier, {**evidence, "gpus": gpus})


def test_a_gpu_that_answered_another_challenge_is_refused_under_a_processor_that_covers_it(verifier) -> None:
    nonces = (gpu_nonce(CONTEXT), gpu_nonce(b"another context"))
    for nonce in nonces:
        gpu = GpuReport(
            arch="HOPPER", report=to_base64(b"\x11\xe0\x01\xff" + nonce + b"\x00"), certificate_chain="AAEC"
        )
        report = bytes([2]) + bytes(79) + report_data(CONTEXT, [gpu]) + bytes(1040)
        cpu = {"kind": "snp", "report": to_base64(report), "certificates": []}
        assert proves(verifier, {"version": 1, "cpu": cpu, "gpus": [gpu.model_dump()]}) is (nonce == nonces[0])


@pytest.mark.parametrize("version_15", [False, True], ids=["TDX 1.0", "TDX 1.5"])
def test_a_quote_of_version_5_has_its_report_data_where_the_product_reads_them(verifier, version_15) -> None:
    data = report_data(CONTEXT, ())
    quote = intel.Intel(kind="tdx").quote(intel.td_report(report_data=data, version_15=version_15), version=5)
    assert (parse_quote(quote).version, parse_quote(quote).report_data) == (5, data)
    cpu = {"kind": "tdx", "report": to_base64(quote), "certificates": []}
    assert proves(verifier, {"version": 1, "cpu": cpu, "gpus": []})


def test_simulated_evidence_has_one_form(verifier) -> None:
    data = report_data(CONTEXT, ()).hex()
    forms = {
        json.dumps({"report_data": data, "simulated": True}, separators=(",", ":")): True,
        json.dumps({"report_data": data, "simulated": False}, separators=(",", ":")): False,
        json.dumps({"report_data": data}, separators=(",", ":")): False,
        json.dumps({"report_data": data, "simulated": True}): False,
        json.dumps({"report_data": data[:64], "simulated": True}, separators=(",", ":")): False,
    }
    for form, good in forms.items():
        cpu = {"kind": "simulated", "report": to_base64(form.encode()), "certificates": []}
        assert proves(verifier, {"version": 1, "cpu": cpu, "gpus": []}) is good, form


def test_simulated_evidence_has_no_gpus(verifier) -> None:
    gpu = GpuReport(arch="HOPPER", report=to_base64(bytes(4) + gpu_nonce(CONTEXT)), certificate_chain="AAEC")
    data = report_data(CONTEXT, [gpu]).hex()
    for simulated in (True, False):
        form = json.dumps({"report_data": data, "simulated": simulated}, separators=(",", ":"))
        cpu = {"kind": "simulated", "report": to_base64(form.encode()), "certificates": []}
        assert not proves(verifier, {"version": 1, "cpu": cpu, "gpus": [gpu.model_dump()]})
