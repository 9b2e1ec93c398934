"""The golden vectors are what the product writes, and what the product reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aegis.runs.manifest import ManifestStatement
from coreason_enclave.attestation.evidence import CpuReport, Evidence, GpuReport
from coreason_enclave.crypto.encoding import canonical_json, parse_json
from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.crypto.hash_log import verify_lines
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import EnclaveError
from coreason_enclave.ledger import LedgerHead, verify_export
from coreason_enclave.ledger.signed_heads import LedgerExportStatement
from coreason_enclave.schemas import AttestationReport, FederationJob, StrictModel
from coreason_enclave.wire.checkpoints import (
    AbandonedLog,
    LogAnnouncement,
    LogCheckpoint,
    LogProof,
    LogSeen,
    RefusedLog,
    WitnessedLog,
    WitnessStatement,
    verify_checkpoint,
)
from coreason_enclave.wire.documents import (
    AttestationRequest,
    CoordinatorIdentity,
    Enrolment,
    HealthStatement,
    JobInvitation,
    RoundOrder,
    SiteAttestation,
    SiteLedgerHead,
    UpdateStatement,
)
from coreason_enclave.wire.registration import (
    RegistrationGrant,
    RegistrationRequest,
    open_grant,
    open_request,
)
from tests.coreason_enclave.wire import story

DOCUMENTS: dict[str, type[StrictModel]] = {
    "job-invitation": JobInvitation,
    "enrolment": Enrolment,
    "attestation-request": AttestationRequest,
    "attestation": SiteAttestation,
    "attestation-result": AttestationReport,
    "round-order": RoundOrder,
    "update": UpdateStatement,
    "ledger-head": SiteLedgerHead,
    "ledger-export": LedgerExportStatement,
    "run-manifest": ManifestStatement,
    "log-checkpoint": LogCheckpoint,
    "log-announcement": LogAnnouncement,
    "witness-statement": WitnessStatement,
    "health": HealthStatement,
    "participation-request": RegistrationRequest,
    "participation-welcome": RegistrationGrant,
}
NAMES = sorted(path.stem for path in story.VECTORS.glob("*.json"))


def read(name: str) -> dict[str, Any]:
    vector: dict[str, Any] = json.loads((story.VECTORS / f"{name}.json").read_text())
    return vector


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, Any]]:
    return story.vectors()


@pytest.mark.parametrize("name", NAMES)
def test_the_product_writes_a_vector_to_the_last_byte(told, name) -> None:
    assert (story.VECTORS / f"{name}.json").read_text() == story.rendered(told[name])


def test_no_vector_is_missing(told) -> None:
    assert sorted(told) == NAMES


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_product_reads_a_signed_document_to_the_same_bytes(name) -> None:
    vector = read(name)
    keys = KeyRing({"signer": vector["public_key"]})
    opened = open_envelope(vector["envelope"].encode(), f"application/vnd.aegis.{name}.v1+json", keys)
    assert parse_json(opened.payload) == vector["payload"]
    assert DOCUMENTS[name].model_validate(vector["payload"]).canonical() == opened.payload


def test_the_job_inside_an_order_is_the_substring_that_its_digest_is_taken_over() -> None:
    vector = read("round-order")
    order = RoundOrder.model_validate(vector["payload"])
    assert order.job.canonical() in canonical_json(vector["payload"])
    assert order.job.digest() == read("job")["sha256"] == read("update")["payload"]["job_digest"]


def test_joining_documents_open_under_the_keys_that_they_are_meant_for() -> None:
    assert open_request(read("participation-request")["envelope"].encode()).site_id == "clinic-1"
    grant = open_grant(read("participation-welcome")["envelope"].encode(), story.COORDINATOR.public_hex)
    assert grant.participants == {site: key.public_hex for site, key in story.KEYS.items()}


def test_the_ledger_keeps_the_rules_and_its_numbers_are_those_of_the_accountant() -> None:
    vector = read("ledger")
    findings = verify_export(vector["export"].encode(), expected_head=LedgerHead(**vector["head"]))
    assert (findings.entries, findings.durable) == (6, True)
    assert [claim.steps_run for claim in findings.jobs] == [4]
    assert findings.acknowledged[0].by == "A. Person"


def test_the_log_and_its_checkpoint_verify() -> None:
    vector = read("log")
    lines = vector["lines"].encode()
    assert verify_lines(lines).size == 3
    keys = KeyRing({"coordinator": vector["public_key"]})
    assert verify_checkpoint(lines, vector["checkpoint"].encode(), keys).size == 2


def test_the_keys_are_those_of_their_seeds_and_say_that_they_are_for_tests() -> None:
    for key in read("keys")["keys"].values():
        assert Signer.from_seed(bytes.fromhex(key["TEST_KEY_seed"])).public_hex == key["public_key"]


EDGES: tuple[Any, ...] = (
    *(None, True, False, "", "a", "-", "a/b", "../a", "a" * 128, "a" * 129, "0" * 64, "0" * 63, "F" * 64, "ü"),
    *(0, 1, -1, 2, 3, 4_999, 5_000, 10_000, 10_001, 100_000, 100_001, 1_000_000, 1_000_001, 10**9, 10**9 + 1),
    *(2**53, 2**53 + 1, 0.0, 1.0, 0.1, 0.100001, 0.999, 0.9991, 1.000001, 1000.0, 1000.1, 1e4, 1e6, 1.1e6, 1e9, 1.1e9),
    *(-0.5, 3600.0, 3600.1, 604_800.0, 604_801.0, 5e-324),
    *([], {}, ["a"], {"a": 1}, {"-": 1}, {"a": 0}, {"a": 0.5}, {"a": "0" * 64}, {"a": "b"}),
    *("record", "person", "mean", "krum", "FED_PROX", "DP_SGD", "NON_PRIVATE", "a\nb"),
)


def _accepted(kind: type[StrictModel], value: dict[str, Any]) -> bool:
    """Whether the product takes a document as it stands: without making another one of it."""
    try:
        return kind.model_validate(value).canonical() == canonical_json(value)
    except (EnclaveError, ValidationError, ValueError):
        return False


def _places(value: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    nested = [place for key, item in value.items() if type(item) is dict for place in _places(item, (*path, key))]
    return [*((*path, key) for key in value), *nested]


def _changed(value: dict[str, Any], path: tuple[str, ...], edge: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = edge
    return copy


# Free-form at the product's first reading; held against evidence, event and key checks right after it.
LATER = {"update": {"event", "evidence", "metrics"}, "participation-request": {"tls_request", "node_key"}}
LATER |= {name: {"evidence"} for name in ("attestation", "round-order", "coordinator")}
LATER["participation-welcome"] = {"gateway", "server_name", "ca_certificate", "client_certificate"}
# Rules between two fields, which the grammar leaves to the words below it.
BETWEEN = {"min_clients", "cohort_size", "rounds", "average_last_rounds", "num_byzantine", "aggregator", "mechanism"}
BETWEEN |= {"target_epsilon", "max_grad_norm", "noise_multiplier", "kind", "measurement"}


SHOWN = read("attestation-tdx")["payload"]["evidence"]
INSIDE: dict[str, tuple[type[StrictModel], dict[str, Any]]] = {
    "job": (FederationJob, read("job")["job"]),
    "evidence": (Evidence, SHOWN),
    "cpu": (CpuReport, {**SHOWN["cpu"], "certificates": ["AAEC"]}),
    "gpu": (GpuReport, SHOWN["gpus"][0]),
    "log-proof": (LogProof, read("round-order")["payload"]["log_proof"]),
    "log-seen": (LogSeen, read("update")["payload"]["log_seen"]),
    "witnessed-log": (WitnessedLog, read("witness-statement")["payload"]["logs"][0]),
    "refused-log": (RefusedLog, read("witness-statement")["payload"]["logs"][0]["refused"][0]),
    "abandoned-log": (AbandonedLog, read("witness-statement")["payload"]["logs"][0]["abandoned"][0]),
    "coordinator": (CoordinatorIdentity, read("round-order")["payload"]["coordinator"]),
}


@pytest.mark.parametrize("name", [*DOCUMENTS, *INSIDE])
def test_grammar_and_product_draw_the_same_line_around_every_field(verifier, name) -> None:
    kind, value = INSIDE[name] if name in INSIDE else (DOCUMENTS[name], read(name)["payload"])
    asked = 0
    for path in _places(value):
        if LATER.get(name, set()) & set(path):
            continue
        for edge in EDGES:
            changed = _changed(value, path, edge)
            by_product, by_grammar = _accepted(kind, changed), _conforms(verifier, changed, name)
            if by_grammar and not by_product and BETWEEN & set(path):
                continue
            assert by_product == by_grammar, (path, edge)
            asked += 1
    assert asked > len(EDGES)


def _conforms(verifier: Any, value: dict[str, Any], name: str) -> bool:
    try:
        verifier.refusing(verifier.fits, value, f"@{name}")
    except verifier.Refused:
        return False
    return True


@pytest.mark.parametrize(("name", "kind"), [*DOCUMENTS.items(), *((name, kind) for name, (kind, _) in INSIDE.items())])
def test_the_grammar_has_the_products_fields(verifier, name, kind) -> None:
    assert {field.rstrip("?") for field in verifier.DOCUMENTS[name]} == set(kind.model_fields)


LARGEST = "A" * (87384 - 4)  # 65535 bytes
BLOBS = ["AAEC", "AA==", "AAE=", LARGEST, LARGEST + "AA==", LARGEST + "AAE=", LARGEST + "AAEC", LARGEST + "AAECAA=="]
BLOBS += ["", "AAE", "AAE==", "AB==", "AAF=", "AAEC\n", "AA==AAEC", "A A=", "AA-_", "=AEC", "AAECAA==\n", "\u0661AEC"]


@pytest.mark.parametrize("blob", BLOBS, ids=range(len(BLOBS)))
def test_grammar_and_product_read_the_same_base64(verifier, blob) -> None:
    cpu = {"kind": "snp", "report": blob, "certificates": []}
    assert _accepted(CpuReport, cpu) == _conforms(verifier, cpu, "cpu")


@pytest.mark.parametrize(("field", "item", "most"), [("gpus", SHOWN["gpus"][0], 16), ("certificates", "AAEC", 8)])
def test_grammar_and_product_count_to_the_same_number(verifier, field, item, most) -> None:
    name, kind, value = ("evidence", Evidence, SHOWN) if field == "gpus" else ("cpu", CpuReport, SHOWN["cpu"])
    for length in (most, most + 1):
        many = {**value, field: [item] * length}
        assert _accepted(kind, many) == _conforms(verifier, many, name) == (length == most)


def test_certificates_in_the_vectors_hold_no_private_key() -> None:
    for path in Path(story.CERTIFICATES).iterdir():
        assert "PRIVATE" not in path.read_text()
