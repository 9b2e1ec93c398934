"""What a coordinator with a trusted key may try, and how each attempt ends: a reason code, and nothing else.

Each row is one attempt on a site that has answered one honest round. The site's reply is a Flower error with the
row's reason; nothing was reserved, no row was read, no file of the site changed, and its log has one more line.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from coreason_enclave.crypto.encoding import canonical_json, sha256_hex
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import Reason
from coreason_enclave.federation.flower import REFUSED
from coreason_enclave.ledger import LedgerHead
from coreason_enclave.ledger.signed_heads import seal_head
from coreason_enclave.wire.documents import INVITATION_TYPE, ORDER_TYPE, UPDATE_TYPE
from coreason_enclave.wire.roll_call import encode_roll_call
from coreason_enclave.wire.updates import SealedMessage, with_correction
from tests.hostile_coordinator.conftest import NeverTrains, job, send, what_left

Target = Any
Attack = Callable[[Target], SealedMessage]
NON_PRIVATE = {"mechanism": "NON_PRIVATE", "target_epsilon": None, "noise_multiplier": None}
STRANGER = Signer.from_seed(bytes([9]) * 32)


def payload_of(envelope: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    return document


def signed_again(target: Target, message: SealedMessage, payload_type: str, **changes: Any) -> SealedMessage:
    """The message over a changed document, signed by the coordinator; ``job`` and ``privacy`` are merged."""
    document = payload_of(message.envelope)
    document["job"]["privacy"].update(changes.pop("privacy", {}))
    document["job"].update(changes.pop("job", {}))
    document.update(changes)
    return replace(message, envelope=seal(payload_type, canonical_json(document), target.federation.signer))


def for_the_next_round(**changes: Any) -> Attack:
    """The honest order of round 2, with ``changes`` to the order."""
    return lambda target: target.federation.order(job(target.federation), **{"round_number": 2, **changes})


def of_another_job(**changes: Any) -> Attack:
    """The first order of another job, honest but for ``changes`` to the job."""
    return lambda target: target.federation.order(job(target.federation, job_id="study-2", **changes))


def with_a_correction(**changes: Any) -> Attack:
    """The first order of another job, with a correction beside the model."""

    def attack(target: Target) -> SealedMessage:
        weights = target.federation.weights()
        study = job(target.federation, job_id="study-2", **changes)
        message: SealedMessage = target.federation.order(study, with_correction(weights, weights))
        return message

    return attack


def with_field(**changes: Any) -> Attack:
    """The honest order of round 2 with fields that no version of the format has."""
    return lambda target: signed_again(target, for_the_next_round()(target), ORDER_TYPE, **changes)


# --- the cohort ---------------------------------------------------------------------------------------------------


def with_roll_call(make: Callable[[Target, Any], dict[str, bytes]]) -> Attack:
    """Round 2 with a roll-call made of the envelopes that ``make`` returns by name, and the order signed over it."""

    def attack(target: Target) -> SealedMessage:
        study = job(target.federation)
        roll_call = encode_roll_call(make(target, study))
        message: SealedMessage = target.federation.order(study, round_number=2, roll_call=roll_call)
        return message

    return attack


def honest_with(name: str, forge: Callable[[Target, Any], bytes]) -> Attack:
    """The site's own honest entry, and one more under ``name``."""
    return with_roll_call(
        lambda target, study: {"clinic-1": target.federation.enrolment(study, "clinic-1"), name: forge(target, study)}
    )


def changed_after_signing(target: Target, study: Any) -> bytes:
    """Another clinic's real enrolment for another job, with this job's digest written in."""
    document = json.loads(target.federation.enrolment(job(target.federation, job_id="study-0"), "clinic-2"))
    payload = json.loads(base64.b64decode(document["payload"]))
    payload["job_digest"] = study.digest()
    document["payload"] = base64.b64encode(canonical_json(payload)).decode()
    return canonical_json(document)


def signed_over_another_roll_call(target: Target) -> SealedMessage:
    honest = for_the_next_round()(target)
    study = job(target.federation)
    return replace(honest, roll_call=target.federation.roll_call(study, ["clinic-1", "clinic-2", "clinic-3"]))


# --- the past -----------------------------------------------------------------------------------------------------


def showing(head: Callable[[Target], str]) -> Attack:
    """Round 2 with a ledger head shown to the site."""
    return lambda target: for_the_next_round(last_head=head(target))(target)


def clinic_2_key() -> Signer:
    from tests.conftest import site_signer

    return site_signer("clinic-2")


def site_key(target: Target) -> Signer:
    from tests.conftest import site_signer

    return site_signer("clinic-1")


NOWHERE = LedgerHead(seq=77, hash="9f" * 32)

ATTACKS: dict[str, tuple[Attack, Reason]] = {
    # choosing seeds
    "it sends a seed for the noise": (with_field(seed=7), Reason.MALFORMED),
    "it sends a seed within the job": (with_field(job={"seed": 7}), Reason.MALFORMED),
    "it sends a key for the noise within the privacy part": (
        with_field(privacy={"noise_key": "ab" * 32}),
        Reason.MALFORMED,
    ),
    "it names the source of the noise": (with_field(job={"noise_source": "unsafe_seeded"}), Reason.MALFORMED),
    # shrinking noise
    "it asks for less noise than the site's least": (
        of_another_job(privacy={"noise_multiplier": 0.49}),
        Reason.POLICY,
    ),
    "it asks for no noise at all": (with_field(privacy={"noise_multiplier": 0.0}), Reason.MALFORMED),
    "it asks for negative noise": (with_field(privacy={"noise_multiplier": -2.0}), Reason.MALFORMED),
    "it lets the noise follow from a huge epsilon": (
        of_another_job(privacy={"noise_multiplier": None, "target_epsilon": 900.0}),
        Reason.POLICY,
    ),
    "it lets the noise follow from few steps at a low rate": (
        of_another_job(privacy={"noise_multiplier": None, "sample_rate": 0.02}, rounds=1),
        Reason.POLICY,
    ),
    "it lowers the noise in the middle of the job": (
        lambda target: target.federation.order(
            job(target.federation, privacy={"noise_multiplier": 1.9}), round_number=2
        ),
        Reason.ROUND_CONFLICT,
    ),
    "it raises the sample rate in the middle of the job": (
        lambda target: target.federation.order(job(target.federation, privacy={"sample_rate": 0.6}), round_number=2),
        Reason.ROUND_CONFLICT,
    ),
    "it asks for an update of noise alone, which the release would throw away": (
        of_another_job(privacy={"noise_multiplier": None, "target_epsilon": 1e-7}),
        Reason.NORM_EXCEEDED,
    ),
    "it asks for delta above the lineage's": (of_another_job(privacy={"delta": 2e-5}), Reason.POLICY),
    "it asks for rows to be protected instead of persons": (of_another_job(privacy={"unit": "record"}), Reason.POLICY),
    # splitting a job to dodge caps
    "it asks for more epsilon than one job may have": (of_another_job(privacy={"target_epsilon": 10.5}), Reason.POLICY),
    "it runs the rest of the budget as another job": (
        of_another_job(privacy={"target_epsilon": 8.0, "noise_multiplier": None}),
        Reason.BUDGET_EXCEEDED,
    ),
    "it prolongs the job under its old name": (
        lambda target: target.federation.order(job(target.federation, rounds=6), round_number=6),
        Reason.ROUND_CONFLICT,
    ),
    "it asks for a round after the last": (for_the_next_round(round_number=6), Reason.WRONG_ROUND),
    "it asks for round 0": (with_field(round_number=0), Reason.MALFORMED),
    # replaying rounds
    "it replays an order whose time is over": (
        lambda target: target.federation.order(
            job(target.federation), issued_at=target.federation.now - 900, expires_at=target.federation.now - 1
        ),
        Reason.EXPIRED,
    ),
    "it makes an order that can be replayed for days": (
        for_the_next_round(expires_at=1_800_000_000 + 86_400),
        Reason.EXPIRED,
    ),
    "it replays another site's order": (for_the_next_round(site_id="clinic-2"), Reason.NOT_ADDRESSED_TO_ME),
    "it sends the honest order under another document's type": (
        for_the_next_round(payload_type=INVITATION_TYPE),
        Reason.WRONG_PAYLOAD_TYPE,
    ),
    "it sends back the site's own update as an order": (lambda target: target.answer, Reason.WRONG_PAYLOAD_TYPE),
    # swapping base models
    "it asks for a released round again from another base model": (
        lambda target: target.federation.order(job(target.federation), target.federation.weights(0.5)),
        Reason.ROUND_CONFLICT,
    ),
    "it sends another base model than it signed over": (
        lambda target: replace(
            for_the_next_round()(target),
            arrays=target.federation.order(job(target.federation), target.federation.weights(0.5)).arrays,
        ),
        Reason.WRONG_DIGEST,
    ),
    "it sends no base model": (
        lambda target: replace(for_the_next_round(base_model_digest=sha256_hex(b""))(target), arrays=b""),
        Reason.MALFORMED,
    ),
    "it sends a base model of another architecture": (
        lambda target: target.federation.order(job(target.federation, model_args={"in_features": 7}), round_number=2),
        Reason.WRONG_SHAPES,
    ),
    # lying about the cohort
    "it leaves the roll-call out": (
        lambda target: replace(for_the_next_round()(target), roll_call=b""),
        Reason.ROLL_CALL,
    ),
    "it sends a roll-call of nobody": (with_roll_call(lambda target, study: {}), Reason.ROLL_CALL),
    "it calls the site alone": (
        with_roll_call(lambda target, study: {"clinic-1": target.federation.enrolment(study, "clinic-1")}),
        Reason.ROLL_CALL,
    ),
    "it leaves the site itself out": (
        with_roll_call(
            lambda target, study: {name: target.federation.enrolment(study, name) for name in ("clinic-2", "clinic-3")}
        ),
        Reason.ROLL_CALL,
    ),
    "it enrols the site itself under a key of its own making": (
        with_roll_call(
            lambda target, study: {
                "clinic-1": target.federation.enrolment(study, "clinic-1", signer=STRANGER),
                "clinic-2": target.federation.enrolment(study, "clinic-2"),
            }
        ),
        Reason.ROLL_CALL,
    ),
    "it invents a participant with a key of its own making": (
        honest_with("clinic-x", lambda target, study: target.federation.enrolment(study, "clinic-x")),
        Reason.ROLL_CALL,
    ),
    "it enrols a known participant with a key of its own making": (
        honest_with("clinic-2", lambda target, study: target.federation.enrolment(study, "clinic-2", signer=STRANGER)),
        Reason.ROLL_CALL,
    ),
    "it enrols itself as a participant": (
        honest_with(
            "study",
            lambda target, study: target.federation.enrolment(study, "study", signer=target.federation.signer),
        ),
        Reason.ROLL_CALL,
    ),
    "it signs in the name of a known key": (
        honest_with(
            "clinic-2",
            lambda target, study: target.federation.enrolment(
                study, "clinic-2", signer=STRANGER, public_key=clinic_2_key().public_hex
            ),
        ),
        Reason.ROLL_CALL,
    ),
    "it replays a participant's enrolment for another job": (
        honest_with(
            "clinic-2",
            lambda target, study: target.federation.enrolment(job(target.federation, job_id="study-0"), "clinic-2"),
        ),
        Reason.ROLL_CALL,
    ),
    "it replays an enrolment for a milder job of the same name": (
        honest_with(
            "clinic-2",
            lambda target, study: target.federation.enrolment(
                job(target.federation, privacy={"noise_multiplier": 9.0}), "clinic-2"
            ),
        ),
        Reason.ROLL_CALL,
    ),
    "it writes this job into an enrolment for another": (
        honest_with("clinic-2", changed_after_signing),
        Reason.ROLL_CALL,
    ),
    "it counts one key under two names": (
        honest_with(
            "clinic-2",
            lambda target, study: target.federation.enrolment(study, "clinic-2", signer=site_key(target)),
        ),
        Reason.ROLL_CALL,
    ),
    "it counts one participant twice": (
        honest_with("clinic-9", lambda target, study: target.federation.enrolment(study, "clinic-1")),
        Reason.ROLL_CALL,
    ),
    "it takes a signed update for an enrolment": (
        honest_with("clinic-2", lambda target, study: target.answer.envelope),
        Reason.ROLL_CALL,
    ),
    "it shows another roll-call than it signed over": (signed_over_another_roll_call, Reason.ROLL_CALL),
    "it states fewer clients than the site demands": (of_another_job(min_clients=1), Reason.POLICY),
    "it states more clients than it can show": (
        lambda target: target.federation.order(
            job(target.federation, job_id="study-2", min_clients=3),
            roll_call=target.federation.roll_call(
                job(target.federation, job_id="study-2", min_clients=3), ["clinic-1", "clinic-2"]
            ),
        ),
        Reason.ROLL_CALL,
    ),
    # inventing a past
    "it invents a ledger head and signs it itself": (
        showing(lambda target: seal_head(NOWHERE, "clinic-1", target.federation.signer)),
        Reason.UNKNOWN_SIGNER,
    ),
    "it shows another site's head": (
        showing(lambda target: seal_head(NOWHERE, "clinic-2", clinic_2_key())),
        Reason.UNKNOWN_SIGNER,
    ),
    "it shows another site's head under this site's name": (
        showing(lambda target: seal_head(NOWHERE, "clinic-1", clinic_2_key())),
        Reason.UNKNOWN_SIGNER,
    ),
    "it changes the head that the site signed": (
        showing(lambda target: target.statement.signed_head.replace("eyJ", "eyK", 1)),
        Reason.BAD_SIGNATURE,
    ),
    "it shows a signed update as a head": (
        showing(lambda target: target.answer.envelope.decode()),
        Reason.WRONG_PAYLOAD_TYPE,
    ),
    "it shows no head at all but text": (showing(lambda target: "trust me"), Reason.MALFORMED),
    "it shows a head that the site did sign and its ledger lost": (
        showing(lambda target: seal_head(NOWHERE, "clinic-1", site_key(target))),
        Reason.LEDGER_ROLLED_BACK,
    ),
    # loosening the policy
    "it sends a policy of its own": (with_field(policy={"min_noise_multiplier": 0.1}), Reason.MALFORMED),
    "it names a looser profile": (with_field(profile="unattested"), Reason.WRONG_PROFILE),
    "it widens the bound on what is let out": (of_another_job(max_update_norm=1e6), Reason.POLICY),
    "it orders a model that is not listed": (of_another_job(model_arch="SmallCNN"), Reason.POLICY),
    "it orders an aggregator that is not listed": (
        with_field(job={"aggregator": "geometric_median"}),
        Reason.MALFORMED,
    ),
    "it orders a strategy that is not listed": (with_a_correction(strategy="SCAFFOLD", momentum=0.0), Reason.POLICY),
    "it hides a correction in the model of another strategy": (with_a_correction(), Reason.WRONG_SHAPES),
    "it orders a dataset that is not registered": (of_another_job(dataset_id="clinic/scans"), Reason.LINEAGE_UNKNOWN),
    "it climbs out of the data root": (with_field(job={"dataset_id": "../../etc"}), Reason.MALFORMED),
}


@pytest.mark.parametrize("which", ATTACKS)
def test_it_gets_a_reason_code_and_nothing_else(which: str, target: Target) -> None:
    attack, reason = ATTACKS[which]
    message = attack(target)
    entries, files, log = target.site.ledger_entries(), target.files(), target.site.log()
    opened = target.site.open(clock=target.federation.clock, trainer=NeverTrains())
    try:
        reply = send(opened.session, message)
    finally:
        opened.close()
    assert what_left(reply) == (REFUSED, reason.value, False)
    assert target.site.ledger_entries() == entries
    assert target.files() == files
    (line,) = target.site.log()[len(log) :]
    assert (line["action"], line["outcome"], line["reason"]) == ("round", "refused", reason.value)


JOBS = {
    "with less noise than the site's least": ({"privacy": {"noise_multiplier": 0.49}}, Reason.POLICY),
    "with more epsilon than one job may have": ({"privacy": {"target_epsilon": 10.5}}, Reason.POLICY),
    "with delta above the lineage's": ({"privacy": {"delta": 2e-5}}, Reason.POLICY),
    "that protects rows instead of persons": ({"privacy": {"unit": "record"}}, Reason.POLICY),
    "for fewer clients than the site demands": ({"min_clients": 1}, Reason.POLICY),
    "with a wider bound on what is let out": ({"max_update_norm": 1e6}, Reason.POLICY),
    "that needs more than is left": (
        {"privacy": {"target_epsilon": 8.0, "noise_multiplier": None}},
        Reason.BUDGET_EXCEEDED,
    ),
}


@pytest.mark.parametrize("which", JOBS)
def test_it_gets_no_enrolment_for_a_job(which: str, target: Target) -> None:
    changes, reason = JOBS[which]
    entries, files = target.site.ledger_entries(), target.files()
    opened = target.site.open(clock=target.federation.clock, trainer=NeverTrains())
    invitation = target.federation.invitation(job(target.federation, job_id="study-2", **changes))
    reply = send(opened.session, invitation, "query.enrol")
    opened.close()
    assert what_left(reply) == (REFUSED, reason.value, False)
    assert (target.site.ledger_entries(), target.files()) == (entries, files)


def test_it_gets_no_signature_over_anything_through_an_invitation(target: Target) -> None:
    """An invitation's answer is an enrolment of this site for this job, whatever else the invitation says."""
    invitation = target.federation.invitation(job(target.federation))
    opened = target.site.open(clock=target.federation.clock)
    for name in ("public_key", "enrolled_at", "job_digest", "statement"):
        message = signed_again(target, invitation, INVITATION_TYPE, **{name: "ab" * 32})
        assert what_left(send(opened.session, message, "query.enrol")) == (REFUSED, "malformed", False)
    message = replace(invitation, envelope=seal(UPDATE_TYPE, b"{}", target.federation.signer))
    assert what_left(send(opened.session, message, "query.enrol")) == (REFUSED, "wrong_payload_type", False)
    opened.close()
