"""Orders that a site refuses: the reason it gives, one line in its log, nothing spent, no file opened.

The site's rows are missing on purpose: had any of these orders got as far as the data, its reason would be another.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from coreason_enclave.crypto.encoding import canonical_json, sha256_hex
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import (
    AttestationError,
    ConfigurationError,
    EnclaveError,
    JobRejected,
    LedgerConflict,
    LedgerError,
    Reason,
)
from coreason_enclave.wire.documents import ORDER_TYPE, UPDATE_TYPE, RoundOrder
from coreason_enclave.wire.handler import AnswersByMethod
from coreason_enclave.wire.updates import SealedMessage, encode_arrays, with_correction

Federation = Any
Make = Callable[[Federation], SealedMessage]

NON_PRIVATE = {"mechanism": "NON_PRIVATE", "target_epsilon": None, "noise_multiplier": None}


def ordered(changes: dict[str, Any] | None = None, /, **order: Any) -> Make:
    """An authentic order: ``changes`` to the job, the rest to the order."""
    return lambda federation: federation.order(federation.job(**(changes or {})), **order)


def with_job_field(name: str, value: object) -> Make:
    """An order signed over a job that no schema would have made."""

    def make(federation: Federation) -> SealedMessage:
        honest = federation.order(federation.job())
        document = json.loads(base64.b64decode(json.loads(honest.envelope)["payload"]))
        document["job"][name] = value
        return SealedMessage(seal(ORDER_TYPE, canonical_json(document), federation.signer), honest.arrays)

    return make


def with_envelope(change: Callable[[dict[str, Any]], object]) -> Make:
    """An honest envelope, changed after it was signed."""

    def make(federation: Federation) -> SealedMessage:
        honest = federation.order(federation.job())
        document = json.loads(honest.envelope)
        change(document)
        return SealedMessage(canonical_json(document), honest.arrays)

    return make


def flip_one_byte(document: dict[str, Any]) -> None:
    payload = bytearray(base64.b64decode(document["payload"]))
    payload[len(payload) // 2] ^= 1
    document["payload"] = base64.b64encode(payload).decode()


def signed(payload: bytes) -> Make:
    return lambda federation: SealedMessage(seal(ORDER_TYPE, payload, federation.signer), b"")


def with_arrays(arrays: bytes, *, signed_over: bytes | None = None) -> Make:
    """The base model's bytes as given; the order is signed over them, or over others."""

    def make(federation: Federation) -> SealedMessage:
        over = sha256_hex(arrays if signed_over is None else signed_over)
        return dataclasses.replace(federation.order(federation.job(), base_model_digest=over), arrays=arrays)

    return make


def corrected(change: Callable[[dict[str, Any]], object] = lambda _: None, **job: Any) -> Make:
    """An order of a SCAFFOLD job, or of another, with a correction beside the model, which ``change`` may spoil."""

    def make(federation: Federation) -> SealedMessage:
        correction = federation.weights(0.5)
        change(correction)
        asked = federation.job(**{"strategy": "SCAFFOLD", "momentum": 0.0, **job})
        return federation.order(asked, with_correction(federation.weights(), correction))

    return make


OTHER_MODEL = encode_arrays({"w": np.ones(2, np.float32)})

BAD_ORDERS: dict[str, tuple[Make, Reason, str]] = {
    # who says so
    "from a coordinator that the policy does not name": (
        ordered(signer=Signer.from_seed(bytes(32))),
        Reason.UNKNOWN_SIGNER,
        "unknown key",
    ),
    "with one byte flipped after signing": (with_envelope(flip_one_byte), Reason.BAD_SIGNATURE, "does not verify"),
    "with two signatures": (
        with_envelope(lambda document: document["signatures"].append(document["signatures"][0])),
        Reason.MALFORMED,
        "exactly one signature",
    ),
    "with something beside the signature": (
        with_envelope(lambda document: document.update(comment="urgent")),
        Reason.MALFORMED,
        "only payloadType, payload and signatures",
    ),
    "signed as another type of document": (ordered(payload_type=UPDATE_TYPE), Reason.WRONG_PAYLOAD_TYPE, "round-order"),
    "that is no envelope": (lambda _: SealedMessage(b"order", b""), Reason.MALFORMED, "not a valid JSON"),
    "that is empty": (lambda _: SealedMessage(b"", b""), Reason.MALFORMED, "not a valid JSON"),
    "larger than an envelope may be": (signed(b" " * (1 << 20)), Reason.OVERSIZED, "exceeds the limit"),
    # what it says
    "that is signed and no order": (signed(b"{}"), Reason.MALFORMED, "not a round order"),
    "for a dataset outside the data root": (
        with_job_field("dataset_id", "../../etc"),
        Reason.MALFORMED,
        "dataset_id must be",
    ),
    "for an absolute path": (with_job_field("dataset_id", "/etc/passwd"), Reason.MALFORMED, "dataset_id must be"),
    "with a field nobody knows": (with_job_field("grace", True), Reason.MALFORMED, "job.grace is not a known field"),
    "with a number as text": (with_job_field("rounds", "5"), Reason.MALFORMED, "job.rounds must be a number"),
    "for another site": (ordered(site_id="clinic-2"), Reason.NOT_ADDRESSED_TO_ME, "the order is for clinic-2"),
    "that has expired": (ordered(issued_at=1_799_999_000, expires_at=1_799_999_999), Reason.EXPIRED, "has expired"),
    "that lives longer than the site allows": (
        ordered(expires_at=1_800_003_601),
        Reason.EXPIRED,
        "exceeds max_order_lifetime_s",
    ),
    "from the future": (ordered(issued_at=1_800_000_061), Reason.NOT_YET_VALID, "in the future"),
    "for a round beyond the job": (ordered(round_number=6), Reason.WRONG_ROUND, "round 6 of a 5-round job"),
    # the model it comes with
    "with a correction that its strategy does not have": (
        corrected(strategy="FED_PROX"),
        Reason.WRONG_SHAPES,
        "no corrections",
    ),
    "for SCAFFOLD without a correction": (
        ordered({"strategy": "SCAFFOLD", "momentum": 0.0}),
        Reason.WRONG_SHAPES,
        "one correction for each tensor",
    ),
    "with a correction for one tensor less": (
        corrected(lambda correction: correction.pop("linear.bias")),
        Reason.WRONG_SHAPES,
        "one correction for each tensor",
    ),
    "with a correction of another shape": (
        corrected(lambda correction: correction.update({"linear.bias": np.zeros(2, np.float32)})),
        Reason.WRONG_SHAPES,
        "one correction for each tensor",
    ),
    "with a correction that is not a number": (
        corrected(lambda correction: correction["linear.bias"].fill(np.nan)),
        Reason.NON_FINITE,
        "not finite",
    ),
    "with another base model than it was signed over": (
        with_arrays(OTHER_MODEL, signed_over=b"another"),
        Reason.WRONG_DIGEST,
        "does not have the digest in the signed order",
    ),
    "with a base model that is no safetensors": (with_arrays(b"pickle"), Reason.MALFORMED, "not a safetensors"),
    # what the site's registration and policy say
    "for a dataset that is not registered": (
        ordered({"dataset_id": "clinic/scans"}),
        Reason.LINEAGE_UNKNOWN,
        "has no lineage at clinic-1: add one to site.toml",
    ),
    "that protects rows where persons are registered": (
        ordered({"privacy": {"unit": "record"}}),
        Reason.POLICY,
        "protects each person",
    ),
    "with a delta above the lineage's": (
        ordered({"privacy": {"delta": 2e-5}}),
        Reason.POLICY,
        "job_delta of lineage clinic-1/visits is 1e-05, but the job's delta is 2e-05",
    ),
    "with an epsilon above the lineage's": (
        ordered({"privacy": {"target_epsilon": 10.5}}),
        Reason.POLICY,
        "job_epsilon of lineage clinic-1/visits is 10, but the job's target_epsilon is 10.5",
    ),
    "with less noise than the site's least": (
        ordered({"privacy": {"noise_multiplier": 0.49}}),
        Reason.POLICY,
        "min_noise_multiplier is 0.5, but the job has 0.49",
    ),
    "whose calibrated noise is below the site's least": (
        ordered({"privacy": {"noise_multiplier": None, "sample_rate": 0.02}, "rounds": 1}),
        Reason.POLICY,
        "min_noise_multiplier is 0.5, but the job has 0.",
    ),
    "that wants larger updates let out than the site allows": (
        ordered({"max_update_norm": 1000.5}),
        Reason.POLICY,
        "max_update_norm is 1000, but the job has 1000.5",
    ),
    "for a model that is not listed": (
        ordered({"model_arch": "SmallCNN"}),
        Reason.POLICY,
        "model_archs does not list the job's SmallCNN",
    ),
    "for an aggregator that is not listed": (
        ordered({"aggregator": "krum", "num_byzantine": 1}),
        Reason.POLICY,
        "aggregators does not list the job's krum",
    ),
    "for fewer clients than the site demands": (
        ordered({"min_clients": 1}),
        Reason.POLICY,
        "min_clients is 2, but the job has 1",
    ),
    "for a strategy that is not listed": (corrected(), Reason.POLICY, "strategies does not list the job's SCAFFOLD"),
    "without privacy on private rows": (
        ordered({"privacy": NON_PRIVATE}),
        Reason.POLICY,
        "public of lineage clinic-1/visits is false: non-private training",
    ),
    # the cohort
    "with a roll-call of fewer known participants than min_clients": (
        lambda federation: federation.order(
            federation.job(), roll_call=federation.roll_call(federation.job(), ["clinic-1", "clinic-x"])
        ),
        Reason.ROLL_CALL,
        "participants lists 1 of 2 enrolled sites, but min_clients is 2",
    ),
    # the budget
    "whose first round alone would fit under its own epsilon": (
        ordered({"privacy": {"target_epsilon": 5.0}}),
        Reason.BUDGET_EXCEEDED,
        "target_epsilon 5 afford only 15, 3 of 5 rounds; nothing was reserved; lineage",
    ),
    "that needs more than the lineage has left": (
        ordered({"privacy": {"noise_multiplier": None, "target_epsilon": 10.0}, "rounds": 1, "local_steps": 40}),
        Reason.BUDGET_EXCEEDED,
        "needs 40 steps, but lineage",
    ),
}


@pytest.fixture
def site(found_private: Callable[..., Any]) -> Any:
    """Private rows, two clients at least, no krum, and the dataset gone."""
    site = found_private(policy={"min_clients": 2, "aggregators": ["mean", "median"]}, lineage={"epsilon": 10.0})
    shutil.rmtree(site.folder / "data" / "clinic")
    return site


@pytest.fixture
def two_clients(federation: Federation) -> Federation:
    """Orders whose job asks for two clients unless it says otherwise."""
    make = type(federation).job
    object.__setattr__(federation, "job", lambda **changes: make(**{"min_clients": 2, **changes}))
    return federation


@pytest.mark.parametrize("which", BAD_ORDERS)
def test_an_order_is_refused(which: str, site: Any, two_clients: Federation) -> None:
    make, reason, words = BAD_ORDERS[which]
    order = make(two_clients)
    before, log_before = site.ledger_entries(), site.log()
    opened = site.open(clock=two_clients.clock)
    try:
        with pytest.raises(EnclaveError) as refused:
            opened.session.run(order)
    finally:
        opened.close()
    assert refused.value.reason is reason
    assert words in str(refused.value)
    assert site.ledger_entries() == before
    (line,) = site.log()[len(log_before) :]
    assert (line["action"], line["outcome"], line["reason"]) == ("round", "refused", reason.value)
    assert line["details"]["order"] == sha256_hex(order.envelope)
    assert line["details"]["message"] == str(refused.value)


def test_an_acceptable_order_reserves_before_it_looks_at_the_rows(
    found_private: Callable[..., Any], two_clients: Federation
) -> None:
    site = found_private(policy={"min_clients": 2})
    rows = site.folder / "data" / "clinic" / "visits" / "rows.csv"
    rows.write_text(rows.read_text().replace("p003", "p003,surplus"))
    opened = site.open(clock=two_clients.clock)
    with pytest.raises(EnclaveError) as refused:
        opened.session.run(two_clients.order(two_clients.job()))
    claim = opened.ledger.lineage_claim(site.lineage)
    opened.close()
    assert refused.value.reason is Reason.DATASET_SCHEMA
    assert claim.open_reservations == 1
    assert [(line["action"], line["outcome"]) for line in site.log()] == [("reserve", "granted"), ("round", "refused")]


def test_no_path_outside_the_data_root_can_even_be_asked_for(federation: Federation) -> None:
    for path in ("../../etc", "/etc/passwd", "clinic/../../etc", "clinic//visits", ".hidden", "clinic\\visits", "a\0b"):
        with pytest.raises(ValueError, match="dataset_id"):
            federation.job(dataset_id=path)


def test_a_model_larger_than_the_site_takes_is_not_parsed(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = federation.create()
    monkeypatch.setattr("coreason_enclave.session.acceptance.MAX_MODEL_BYTES", 100)
    opened = site.open(clock=federation.clock)
    with pytest.raises(EnclaveError) as refused:
        opened.session.run(federation.order(federation.job()))
    opened.close()
    assert refused.value.reason is Reason.OVERSIZED


def test_clocks_that_differ_by_less_than_a_minute_are_tolerated(federation: Federation) -> None:
    site = federation.create()
    opened = site.open(clock=federation.clock)
    late = federation.order(federation.job(), issued_at=federation.now + 60, expires_at=federation.now + 600)
    last_moment = federation.order(federation.job(), issued_at=federation.now - 600, expires_at=federation.now)
    assert opened.session.run(late).arrays == opened.session.run(last_moment).arrays
    opened.close()


def test_the_order_on_record_is_the_one_that_was_signed(federation: Federation) -> None:
    order = federation.order(federation.job(), nonce="cd" * 32)
    payload = base64.b64decode(json.loads(order.envelope)["payload"])
    assert RoundOrder.from_payload(payload).job == federation.job()


def test_a_lineage_that_declares_fewer_units_than_the_site_demands_is_refused_at_the_door(
    federation: Federation,
) -> None:
    site = federation.create(policy={"min_units": 25})
    opened = site.open(clock=federation.clock)
    for ask, message in (
        (opened.session.run, federation.order(federation.job())),
        (opened.session.enrol, federation.invitation(federation.job())),
    ):
        with pytest.raises(JobRejected, match="min_units is 25, but nominal_units of lineage clinic-1/visits is 24"):
            ask(message)
    opened.close()
    assert [entry["type"] for entry in site.ledger_entries()] == ["founded", "registered"]


def test_a_dataset_that_holds_fewer_units_than_the_site_demands_is_refused_as_any_faulty_dataset(
    federation: Federation,
) -> None:
    enough = federation.create("clinic-1", persons=20, policy={"min_units": 20})
    too_few = federation.create("clinic-2", persons=19, policy={"min_units": 20})
    opened = [site.open(clock=federation.clock) for site in (enough, too_few)]
    opened[0].session.run(federation.order(federation.job()))
    with pytest.raises(EnclaveError, match="fewer units than min_units") as refused:
        opened[1].session.run(federation.order(federation.job(), site_id="clinic-2"))
    for site in opened:
        site.close()
    assert refused.value.reason is Reason.DATASET_SCHEMA
    assert "19" not in str(refused.value)


# --- the site itself ------------------------------------------------------------------------------------------


def test_production_refuses_the_simulated_attester_and_frees_the_site(federation: Federation) -> None:
    asks_nothing = {"unsafe_unattested_coordinator": True}
    site = federation.create(profile="production", lineage={"public": False}, policy=asks_nothing)
    for _ in range(2):  # the second opening finds log and ledger free
        with pytest.raises(AttestationError, match="simulated attester needs profile development"):
            site.open()


def test_development_refuses_a_lineage_that_is_not_public_when_the_site_is_loaded(federation: Federation) -> None:
    site = federation.create()
    config = site.folder / "site.toml"
    config.write_text(config.read_text().replace("public = true", "public = false"))
    with pytest.raises(ConfigurationError, match="profile development needs every lineage to be public"):
        site.open()


def test_a_lineage_declared_public_after_registration_is_refused_at_opening(
    found_private: Callable[..., Any],
) -> None:
    site = found_private()
    config = site.folder / "site.toml"
    config.write_text(config.read_text().replace("public = false", "public = true"))
    for _ in range(2):
        with pytest.raises(LedgerConflict, match="already registered with another public"):
            site.open()


def test_rows_that_call_themselves_public_do_not_make_a_private_lineage_public(
    found_private: Callable[..., Any], federation: Federation
) -> None:
    site = found_private()
    toml = site.folder / "data/clinic/visits/dataset.toml"
    toml.write_text(toml.read_text().replace("public = false", "public = true"))
    opened = site.open(clock=federation.clock)
    with pytest.raises(EnclaveError, match="disagree on whether the data is public") as refused:
        opened.session.run(federation.order(federation.job()))
    opened.close()
    assert refused.value.reason is Reason.DATASET_SCHEMA


def test_production_refuses_injected_keys_and_frees_the_site(found_private: Callable[..., Any]) -> None:
    site = found_private()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="injected keys need profile development"):
            site.open(seed=5)


def test_production_refuses_to_count_participants_that_nobody_knows(found_private: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="unsafe_count_unknown_participants needs profile development"):
        found_private(policy={"unsafe_count_unknown_participants": True})


def test_one_key_under_two_names_is_no_list_of_participants(federation: Federation) -> None:
    with pytest.raises(ValueError, match="one key under two names"):
        federation.create(policy={"participants": {"clinic-2": "ab" * 32, "clinic-3": "ab" * 32}})


def test_a_development_site_may_count_everybody_who_signed(federation: Federation) -> None:
    site = federation.create(policy={"participants": {}, "unsafe_count_unknown_participants": True})
    opened = site.open(clock=federation.clock)
    assert opened.session.run(federation.order(federation.job(min_clients=4))).arrays
    opened.close()


def test_an_attester_that_nobody_has_is_refused_by_name(federation: Federation) -> None:
    with pytest.raises(ValidationError, match="attester"):
        federation.create(attester="quantum")


def test_a_production_site_that_asks_nothing_of_its_coordinator_has_to_say_so(federation: Federation) -> None:
    with pytest.raises(ValidationError, match="policy needs coordinator_attestation"):
        federation.create(profile="production", attester="tdx", lineage={"public": False})


def test_a_site_is_founded_once(federation: Federation) -> None:
    from coreason_enclave.site.opening import create_site

    site = federation.create()
    with pytest.raises(ConfigurationError, match="can be created only once"):
        create_site(site.folder, site.config)


def test_a_second_session_on_a_lineage_that_is_held_is_refused(federation: Federation) -> None:
    site = federation.create()
    opened = site.open(clock=federation.clock)
    with opened.ledger.hold(site.lineage), pytest.raises(LedgerError, match="in use by another session"):
        opened.session.run(federation.order(federation.job()))
    opened.close()
    assert [entry["type"] for entry in site.ledger_entries()] == ["founded", "registered"]


def test_a_base_model_of_another_layout_is_refused_before_anything_is_reserved(federation: Federation) -> None:
    site = federation.create()
    opened = site.open(clock=federation.clock)
    job = federation.job(model_args={"in_features": 7})
    with pytest.raises(JobRejected, match="tensors do not fit LogisticRegression and model_args") as refused:
        opened.session.run(federation.order(job))
    opened.close()
    assert refused.value.reason is Reason.WRONG_SHAPES
    assert [entry["type"] for entry in site.ledger_entries()] == ["founded", "registered"]


def test_what_a_refusal_says_to_the_coordinator_is_its_reason_alone(federation: Federation) -> None:
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    from coreason_enclave.federation.flower import REFUSED, client_app

    class Refuses(AnswersByMethod):
        def run(self, message: SealedMessage) -> SealedMessage:
            raise JobRejected("patient p007 is missing", reason=Reason.POLICY)

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0  # Flower stamps messages with it
    record = ConfigRecord({"envelope": b"e", "arrays": b"a", "roll_call": b""})
    asked = Message(content=RecordDict({"aegis": record}), dst_node_id=1, message_type="train")
    for message, reason in (
        (asked, "policy"),
        (Message(RecordDict(), dst_node_id=1, message_type="train"), "malformed"),
    ):
        reply = client_app(Refuses())(message, None)
        assert (reply.error.code, reply.error.reason) == (REFUSED, reason)
