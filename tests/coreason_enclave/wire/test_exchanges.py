"""A challenge, an order and the answer to each are accepted as one whole, and only as that."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from coreason_enclave.attestation.binding import Role
from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.encryption import encrypt_to, info_for
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.schemas import AggregationStrategy
from coreason_enclave.wire.roll_call import encode_roll_call
from coreason_enclave.wire.updates import encode_arrays, with_correction
from tests.coreason_enclave.wire import story
from tests.coreason_enclave.wire.golden import read, refusal, resealed, roll_call_of

COORDINATOR = read("round-order")["payload"]["coordinator"]


def beside(purpose: str, envelope: str, arrays: Any = None) -> dict[str, str]:
    """What travels beside this envelope, encrypted anew."""
    receiver, _, golden = story.TRAVELS[purpose]
    vector, info = read(f"encrypted-{purpose}"), info_for(purpose, envelope.encode())
    data = encode_arrays(golden if arrays is None else arrays)
    made = encrypt_to(story.KEM_KEYS[receiver].public_hex, data, info)
    return {"ciphertext": made.hex(), "TEST_KEY": vector["TEST_KEY"]}


def attested(**changes: Any) -> dict[str, Any]:
    return {"attestation": resealed("attestation", "clinic-1", **changes)}


def ordered(key: str = "coordinator", **changes: Any) -> dict[str, Any]:
    envelope = resealed("round-order", key, **changes)
    return {"round-order": envelope, "model": beside("model", envelope)}


def resulting(key: str = "coordinator", **changes: Any) -> dict[str, Any]:
    """An order with another attestation result in it."""
    return ordered(attestation=resealed("attestation-result", key, **changes))


def showing(**changes: Any) -> dict[str, Any]:
    """An order in which the coordinator shows something else."""
    return ordered(coordinator={**COORDINATOR, **changes})


def answered(key: str = "clinic-1", **changes: Any) -> dict[str, Any]:
    envelope = resealed("update", key, **changes)
    return {"update": envelope, "arrays": beside("update", envelope)}


def evidence_over(role: Role = Role.SITE, **changes: Any) -> dict[str, Any]:
    """Simulated evidence like the site's for its update, but for what is changed."""
    binding = replace(story.site_binding(story.NONCE), role=role, **changes)
    return SimulatedAttester().produce(binding.context()).model_dump(mode="json")


def answered_with(arrays: Any) -> dict[str, Any]:
    """Other arrays, signed as they are."""
    changed = answered(update_digest=sha256_hex(encode_arrays(arrays)))
    return {**changed, "arrays": beside("update", changed["update"], arrays)}


def based_on(arrays: Any) -> dict[str, Any]:
    """Another base model, ordered, encrypted and answered to as it should be."""
    digest = sha256_hex(encode_arrays(arrays))
    changed = ordered(base_model_digest=digest)
    return {
        **changed,
        **answered(base_model_digest=digest),
        "model": beside("model", changed["round-order"], arrays),
    }


def called(*entries: tuple[str, bytes]) -> dict[str, Any]:
    """An order with another roll-call beside it."""
    text = roll_call_of(*entries)
    return {**ordered(roll_call_digest=sha256_hex(text.encode())), "roll_call": text}


def relaid(purpose: str, field: str, arrays: Any) -> dict[str, Any]:
    """Other arrays, encrypted to the right key beside the golden envelope."""
    return {field: beside(purpose, read("exchange")["round-order" if purpose == "model" else "update"], arrays)}


FOREIGN = {**read("round-order")["payload"]["job"], "rounds": 3}
OTHER = "0" * 64
CLINIC_2 = story.KEYS["clinic-2"].public_hex
ENROLLED = story.enrolments()
RENAMED = resealed("enrolment", "clinic-2", public_key=CLINIC_2).encode()
EXCHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "a base model that was not ordered": (relaid("model", "model", story.UPDATE), "base_model_digest"),
    "arrays that were not signed": (relaid("update", "arrays", story.BASE), "update_digest"),
    "arrays of another layout": (answered_with({"w": story.BASE["linear.bias"]}), "layout"),
    "a correction under a strategy that has none": (based_on(with_correction(story.BASE, story.BASE)), "layout"),
    "a model encrypted beside another order": (
        {"model": beside("model", resealed("round-order", "coordinator", issued_at=story.NOW + 1))},
        "InvalidTag",
    ),
    "an update encrypted beside another statement": (
        {"arrays": beside("update", resealed("update", "clinic-1", epsilon=0.25))},
        "InvalidTag",
    ),
    "the model's ciphertext turned around as an update": ({"arrays": read("exchange")["model"]}, "another key"),
    "an order with another result's key to encrypt to": (resulting(kem_key=CLINIC_2), "another key"),
    "an order with another key to send the update to": (
        showing(kem_key=story.KEM_KEYS["clinic-1"].public_hex, evidence=None),
        "another key",
    ),
    "an answer to another nonce": (answered(nonce=OTHER, evidence=evidence_over(nonce=OTHER)), "nonce"),
    "an answer for another round": (answered(round_number=2), "round_number"),
    "an answer from another base model": (answered(base_model_digest=OTHER), "base_model_digest"),
    "an order for another job than the evidence in it": (ordered(job=FOREIGN), "covers"),
    "an answer to another job": (ordered(job=FOREIGN, coordinator={**COORDINATOR, "evidence": None}), "job_digest"),
    "an order by a site": (ordered("clinic-1"), "not signed by this key"),
    "an answer by another site": (answered("clinic-2"), "not signed by this key"),
    "another roll-call": ({"roll_call": roll_call_of(*list(story.enrolments().items())[:2])}, "roll_call_digest"),
    "a roll-call without the site": (called(*list(ENROLLED.items())[1:]), "not enrolled"),
    "a roll-call with the site under another key": (called(("clinic-1", RENAMED)), "not enrolled"),
    "a head that was never signed": (answered(ledger_head={"seq": 9, "hash": OTHER}), "signed_head"),
    "a head of another site": (
        ordered(last_head=resealed("ledger-head", "clinic-1", site_id="clinic-2")),
        "site_id",
    ),
    "a ledger's entry for an event": (answered(event=json.loads(story.ledger_links()[0].payload)), "event-founded"),
    "a challenge to another site": (
        {"attestation-request": resealed("attestation-request", "coordinator", site_id="clinic-2")},
        "site_id",
    ),
    "another challenge": (
        {"attestation-request": resealed("attestation-request", "coordinator", nonce=OTHER)},
        "more than one nonce",
    ),
    "a challenge by a site": (
        {"attestation-request": resealed("attestation-request", "clinic-1")},
        "not signed by this key",
    ),
    "an attestation that names another key": (attested(public_key=CLINIC_2), "public_key"),
    "an attestation for another job": (
        attested(job_digest=OTHER, evidence=evidence_over(nonce=story.CHALLENGE, job_digest=OTHER)),
        "job_digest",
    ),
    "an attestation with another key to encrypt to": (
        attested(kem_key=OTHER, evidence=evidence_over(nonce=story.CHALLENGE, kem_key=OTHER)),
        "kem_key",
    ),
    "an update with another key to encrypt to": (
        answered(kem_key=OTHER, evidence=evidence_over(kem_key=OTHER)),
        "kem_key",
    ),
    "evidence for another nonce": (answered(evidence=evidence_over(nonce=OTHER)), "covers"),
    "evidence for another signing key": (answered(evidence=evidence_over(public_key=CLINIC_2)), "covers"),
    "evidence for another key to encrypt to": (answered(evidence=evidence_over(kem_key=OTHER)), "covers"),
    "evidence of another site": (answered(evidence=evidence_over(subject="clinic-2")), "covers"),
    "evidence for another job": (answered(evidence=evidence_over(job_digest=OTHER)), "covers"),
    "evidence in the coordinator's role": (answered(evidence=evidence_over(Role.COORDINATOR)), "covers"),
    "old evidence": (answered(evidence=evidence_over(nonce=story.CHALLENGE)), "covers"),
    "evidence that proves the attestation and not the update": (
        attested(evidence=evidence_over()),
        "covers",
    ),
    "a coordinator's evidence over another challenge": (
        showing(evidence=evidence_over(Role.COORDINATOR)),
        "covers",
    ),
    "a coordinator's answer to another challenge": (showing(challenge=OTHER, evidence=None), "challenge"),
    "a result about another site": (resulting(subject="clinic-2"), "site_id"),
    "a result about another key": (resulting(public_key=CLINIC_2), "public_key"),
    "a result for another job": (resulting(job_digest=OTHER), "job_digest"),
    "a result for another challenge": (resulting(nonce=OTHER), "nonce"),
    "a result that a site signed": (resulting("clinic-1"), "not signed by this key"),
    "a result about hardware that was not shown": (
        resulting(kind="snp", provenance="attested", measurement="agent-1"),
        "kind",
    ),
    "a result that calls simulated evidence attested": (
        resulting(provenance="attested", measurement="agent-1"),
        "something else",
    ),
    "a result of simulated evidence that names measured code": (resulting(measurement="agent-1"), "something else"),
    "a result that had expired": (resulting(expires_at=story.NOW), "something else"),
    "a result that lives longer than ten minutes": (resulting(expires_at=story.NOW + 587), "something else"),
}


@pytest.mark.parametrize(("changes", "why"), EXCHANGES.values(), ids=EXCHANGES.keys())
def test_an_exchange_that_does_not_fit_together_is_refused(verifier, changes, why) -> None:
    assert why in (refusal(verifier, {**read("exchange"), **changes}) or "it holds")


def test_an_exchange_that_was_made_anew_holds(verifier) -> None:
    for changes in (ordered(), answered(), attested(), resulting(), showing(), showing(evidence=None)):
        assert refusal(verifier, {**read("exchange"), **changes}) is None
    assert refusal(verifier, {**read("exchange"), **resulting(expires_at=story.NOW + 1)}) is None


def of_scaffold(monkeypatch: pytest.MonkeyPatch, base: Any) -> dict[str, Any]:
    """The whole exchange about a SCAFFOLD job, from this base model."""
    monkeypatch.setattr(
        story, "JOB", story.JOB.model_copy(update={"strategy": AggregationStrategy.SCAFFOLD, "momentum": 0.0})
    )
    monkeypatch.setattr(story, "BASE", base)
    order, update = story.order().decode(), story.update().decode()
    return {
        **read("exchange"),
        "attestation-request": story.attestation_request().decode(),
        "attestation": story.attestation().decode(),
        "round-order": order,
        "update": update,
        "roll_call": encode_roll_call(story.enrolments()).decode(),
        "model": beside("model", order, base),
        "arrays": beside("update", update),
    }


def test_a_scaffold_orders_model_has_a_correction_for_each_tensor(verifier, monkeypatch) -> None:
    without, both = story.BASE, with_correction(story.BASE, story.UPDATE)
    assert refusal(verifier, of_scaffold(monkeypatch, both)) is None
    assert "layout" in (refusal(verifier, of_scaffold(monkeypatch, without)) or "it holds")
    one = {name: array for name, array in both.items() if name != "correction/linear.bias"}
    assert "layout" in (refusal(verifier, of_scaffold(monkeypatch, one)) or "it holds")
