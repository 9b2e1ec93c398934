"""Reference values and pins that no evidence could mean anything by are refused when they are loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from pydantic import ValidationError

from aegis.evidence import inspect
from aegis.evidence.evidence_files import read_policy
from aegis.evidence.inspection import reference_values
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.attestation.evidence import CpuKind
from coreason_enclave.attestation.reference_values import IDENTIFYING, MEASURED_BYTES, ReferenceValue
from coreason_enclave.attestation.verify.dcap.quote import parse_quote
from coreason_enclave.attestation.verify.dcap.quote_verifier import measurements_of as of_quote
from coreason_enclave.attestation.verify.snp import parse_report
from coreason_enclave.attestation.verify.snp.report_verifier import measurements_of as of_report
from coreason_enclave.configuration import parse_toml
from coreason_enclave.errors import ConfigurationError
from tests.coreason_enclave.attestation.dcap.hierarchy import Intel, td_report
from tests.coreason_enclave.attestation.snp import hierarchy as amd

pytestmark = pytest.mark.parametrize("kind", list(IDENTIFYING))
MACHINE = "7f" * 16


def whole(kind: CpuKind, byte: str = "5a") -> dict[str, str]:
    return {name: byte * MEASURED_BYTES[kind][name] for name in IDENTIFYING[kind]}


def refusal(kind: CpuKind, **measurements: str) -> str:
    with pytest.raises(ValidationError) as refused:
        ReferenceValue(name="agent", kind=kind, measurements={**whole(kind), **measurements})
    return str(refused.value)


def test_names_and_lengths_are_those_that_evidence_of_the_kind_has(kind: CpuKind) -> None:
    if kind is CpuKind.SNP:
        found = of_report(parse_report(amd.Vendor().report()))
    else:
        world = Intel(kind=kind.value)
        new = {"version": 5} if kind is CpuKind.TDX else {}
        body = (td_report(version_15=True),) if kind is CpuKind.TDX else ()
        found = dict(of_quote(parse_quote(world.quote(*body, **new))))
    assert {name: len(value) // 2 for name, value in found.items()} == dict(MEASURED_BYTES[kind])


def test_zeros_where_the_code_is_identified_are_refused(kind: CpuKind) -> None:
    for name in IDENTIFYING[kind]:
        assert f"{name} is all zeros" in refusal(kind, **{name: "00" * MEASURED_BYTES[kind][name]})


def test_zeros_elsewhere_mean_what_they_say(kind: CpuKind) -> None:
    for name in MEASURED_BYTES[kind].keys() - IDENTIFYING[kind]:
        measured = {**whole(kind), name: "00" * MEASURED_BYTES[kind][name]}
        assert ReferenceValue(name="agent", kind=kind, measurements=measured).matches(kind, measured, 0)


def test_another_length_than_the_register_has_is_refused(kind: CpuKind) -> None:
    for name, size in MEASURED_BYTES[kind].items():
        for wrong in {1, size - 1, min(size + 1, 64), 64} - {0, size}:
            assert f"{name} must have {size} bytes" in refusal(kind, **{name: "5a" * wrong})


@pytest.mark.parametrize("name", ["rt_mr4", "mrtd", "MR_TD", "measurment", "report_data", "cpu_svn", "pcr0"])
def test_unknown_names_are_refused_with_those_there_are(kind: CpuKind, name: str) -> None:
    said = refusal(kind, **{name: "5a" * 48})
    assert all(known in said for known in MEASURED_BYTES[kind])


def policy(kind: CpuKind, **changes: Any) -> dict[str, Any]:
    values = [{"name": "agent", "kind": kind.value, "measurements": whole(kind)}]
    return {"kinds": [kind.value], "reference_values": values, **changes}


@pytest.mark.parametrize("machine", ["0" * 8, "0" * 32, "0" * 128, "00:00:00:00", "--------", "0.0.0.0.0"])
def test_a_machine_of_zeros_is_refused(kind: CpuKind, machine: str) -> None:
    for changes in ({"platforms": {"clinic-1": [machine]}}, {"unsafe_shared_platforms": [machine]}):
        with pytest.raises(ValidationError, match="all zeros"):
            AttestationPolicy.model_validate(policy(kind, **changes))


def test_one_machine_under_two_subjects_is_refused_unless_it_is_named(kind: CpuKind) -> None:
    shared = policy(kind, platforms={"clinic-1": [MACHINE], "clinic-2": ["aa" * 16, MACHINE]})
    with pytest.raises(ValidationError, match=r"clinic-1 and for clinic-2.*unsafe_shared_platforms"):
        AttestationPolicy.model_validate(shared)
    with pytest.raises(ValidationError, match="unsafe_shared_platforms"):
        AttestationPolicy.model_validate({**shared, "unsafe_shared_platforms": ["aa" * 16]})
    assert AttestationPolicy.model_validate({**shared, "unsafe_shared_platforms": [MACHINE]})


def test_a_policy_file_that_says_nothing_is_refused_by_its_name(kind: CpuKind, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    document = policy(kind)
    document["reference_values"][0]["measurements"] = whole(kind, "00")
    path.write_text(tomli_w.dumps({"attestation": document}))
    with pytest.raises(ConfigurationError, match=r"policy\.toml.*all zeros"):
        read_policy(path, AttestationPolicy)


def test_inspect_warns_where_it_would_propose_zeros(kind: CpuKind) -> None:
    """What is printed is TOML that no policy loads until somebody has put a measured value there."""
    if kind is CpuKind.SNP:
        found = inspect(amd.Vendor().report(changes={0x90: bytes(48)}))
    else:
        quote = bytearray(Intel(kind=kind.value).quote())
        at = {CpuKind.SGX: (48 + 64, 32), CpuKind.TDX: (48 + 376, 96)}[kind]
        quote[at[0] : at[0] + at[1]] = bytes(at[1])
        found = inspect(bytes(quote))
    printed = reference_values(found)
    assert "WARNING" in printed
    assert '= "00' not in "\n".join(line for line in printed.splitlines() if not line.startswith("#"))
    with pytest.raises(ValidationError, match="measurements must name"):
        AttestationPolicy.model_validate({"kinds": [kind.value], **parse_toml(printed.encode(), "x")["attestation"]})
