"""Each asked node's first reply counts, if it answers this very order; nothing else does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict

from aegis.runtimes.in_process import (
    InProcessSites,
    initial_model,
)
from coreason_enclave.crypto.encoding import canonical_json, sha256_hex
from coreason_enclave.crypto.encryption import encrypt_to, info_for
from coreason_enclave.crypto.envelope import seal, unverified_payload
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.wire.documents import UPDATE_TYPE, RoundOrder
from coreason_enclave.wire.updates import SealedMessage, encode_arrays
from tests.support.studies import (
    Federation,
    MakeStudy,
    Relay,
    Study,
    a_job,
)


def test_a_site_that_is_silent_is_left_out(study: MakeStudy, federation: Federation) -> None:
    class Silent(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            return replies[1:]

    run = study(4)
    run.run(a_job(federation, rounds=1), grid=Silent)
    assert run.history()[0].refused == {"clinic-1": "no_reply"}


def reply_with(content: Message, to: Message, *, node: int | None = None) -> Message:
    """What a site would send that answers ``to`` with the content of another message."""
    reply = Message(content=content.content, reply_to=to)
    if node is not None:
        reply.metadata.__dict__["_src_node_id"] = node
    return reply


def refusals(run: Study) -> list[tuple[str, str]]:
    """Who was refused, and why, in the order of the log."""
    lines = [line for line in run.audit() if line["outcome"] == "refused"]
    return [(line["details"].get("site", line["details"].get("node")), line["reason"]) for line in lines]


def test_the_same_answer_twice_is_one_answer(study: MakeStudy, federation: Federation) -> None:
    class Echoes(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            return [*replies, *replies]

    run = study()
    run.run(a_job(federation), grid=Echoes)
    assert refusals(run) == []
    assert run.state().quarantine == {}


def test_a_second_and_different_answer_changes_nothing_and_is_an_offence(
    study: MakeStudy, federation: Federation, tmp_path: Path
) -> None:
    class SaysMore(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            return [*replies, reply_with(self.sent[0], self.sent[0])]

    run, job = study(4), a_job(federation, rounds=1)
    model = run.run(job, grid=SaysMore)
    assert run.history()[0].admitted == tuple(f"clinic-{n}" for n in range(1, 5))
    assert refusals(run) == [("clinic-1", "replayed")]
    assert run.state().quarantine["clinic-1"].reason == "replayed"
    plain = Study(federation, tmp_path / "plain", run.sites).run(job)
    assert encode_arrays(plain) == encode_arrays(model)


def test_two_updates_for_one_order_both_well_signed_are_a_change_of_mind(
    study: MakeStudy, federation: Federation, tmp_path: Path
) -> None:
    key = Signer.from_seed(bytes.fromhex(sha256_hex(b"clinic-1")))
    run, job = study(4), a_job(federation, rounds=1)

    class ChangesItsMind(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            return [*replies, signed_again(replies[0], self.sent[0])]

    def signed_again(reply: Message, to: Message) -> Message:
        honest = SealedMessage.from_fields(reply.content.config_records["aegis"])
        said = json.loads(unverified_payload(honest.envelope))
        another = encode_arrays({name: np.full_like(array, 0.5) for name, array in initial_model(job).items()})
        envelope = seal(UPDATE_TYPE, canonical_json({**said, "update_digest": sha256_hex(another)}), key)
        order = RoundOrder.from_payload(
            unverified_payload(SealedMessage.from_fields(to.content.config_records["aegis"]).envelope)
        )
        concealed = encrypt_to(order.coordinator.kem_key, another, info_for("update", envelope))
        fields = SealedMessage(envelope, concealed).to_fields()
        return Message(content=RecordDict({"aegis": ConfigRecord({**fields})}), reply_to=to)

    model = run.run(job, grid=ChangesItsMind)
    assert refusals(run) == [("clinic-1", "replayed")]
    plain = Study(federation, tmp_path / "plain", run.sites).run(job)
    assert encode_arrays(plain) == encode_arrays(model)


def test_what_comes_of_a_node_that_was_not_asked_is_noted_and_nobodys_offence(
    study: MakeStudy, federation: Federation, tmp_path: Path
) -> None:
    class Noisy(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            return [reply_with(replies[0], self.sent[0], node=99), *replies]

    run, job = study(), a_job(federation, rounds=1)
    model = run.run(job, grid=Noisy)
    assert run.history()[0].refused == {}
    assert refusals(run) == [("99", "unknown_site")]
    assert run.state().quarantine == {}
    plain = Study(federation, tmp_path / "plain", run.sites).run(job)
    assert encode_arrays(plain) == encode_arrays(model)


def test_only_the_first_reply_of_a_node_counts_even_if_a_better_one_follows(
    study: MakeStudy, federation: Federation
) -> None:
    class Overtaken(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            return [reply_with(self.sent[0], self.sent[0]), *replies]

    run = study(4)
    run.run(a_job(federation, rounds=1), grid=Overtaken)
    assert run.history()[0].refused == {"clinic-1": "wrong_payload_type"}


def test_the_answer_to_a_former_round_is_refused(study: MakeStudy, federation: Federation) -> None:
    class Replays(Relay):
        kept: Message | None = None

        def receive(self, replies: list[Message]) -> list[Message]:
            self.kept = self.kept or replies[0]
            return [reply_with(self.kept, self.sent[0]), *replies[1:]]

    run = study(4)
    run.run(a_job(federation), grid=Replays)
    assert [record.refused for record in run.history()] == [{}, {"clinic-1": "wrong_round"}]


def test_a_reply_to_the_first_attempt_is_no_reply_to_the_second(study: MakeStudy, federation: Federation) -> None:
    class Replays(Relay):
        kept: Message | None = None

        def receive(self, replies: list[Message]) -> list[Message]:
            if self.rounds == 1:
                self.kept = replies[0]
                return replies[:1]
            return [reply_with(self.kept or replies[0], self.sent[0]), *replies[1:]]

    run = study(4)
    run.run(a_job(federation, rounds=1), grid=Replays)
    assert run.history()[0].refused == {"clinic-1": "wrong_nonce"}


def test_an_answer_after_its_round_was_closed_is_refused_and_noted_as_late(
    study: MakeStudy, federation: Federation
) -> None:
    class Overdue(Relay):
        kept: Message | None = None

        def receive(self, replies: list[Message]) -> list[Message]:
            if self.rounds == 1:
                self.kept = replies[0]
                return replies[1:]
            assert self.kept is not None
            return [self.kept, *replies]

    run = study(4)
    run.run(a_job(federation), grid=Overdue)
    assert [record.refused for record in run.history()] == [{"clinic-1": "no_reply"}, {"clinic-1": "quarantined"}]
    assert refusals(run) == [("clinic-1", "no_reply"), ("clinic-1", "late")]
    quarantine = run.state().quarantine["clinic-1"]
    assert (quarantine.reason, quarantine.strikes, quarantine.silent) == ("late", 1, True)


def test_a_site_that_signs_with_another_key_is_unknown(study: MakeStudy, federation: Federation) -> None:
    run = study(4)
    with run.opened() as opened:
        first, *others = opened.participants
        stranger = type(first)(first.site_id, federation.signer.public_hex, first.node_id)
        swapped = InProcessSites(opened.sites, opened.grid, (stranger, *others))
        job = a_job(federation, rounds=1)
        with run.coordinator(job, swapped) as coordinator:
            coordinator.run(opened.grid, initial_model(job))
    assert run.history()[0].refused == {"clinic-1": "unknown_signer"}  # its enrolment already
    assert run.reserved_rounds()["clinic-1"] == []
