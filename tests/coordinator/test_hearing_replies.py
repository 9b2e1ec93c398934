"""Each asked node's first reply counts, if it answers this very order; nothing else does."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Message

from aegis.runtimes.in_process import (
    InProcessSites,
    initial_model,
)
from coreason_enclave.updates import encode_arrays
from tests.studies import (
    Federation,
    MakeStudy,
    Relay,
    Study,
    a_job,
)


def test_a_site_that_is_too_late_is_left_out(study: MakeStudy, federation: Federation) -> None:
    class Silent(Relay):
        def hear(self, replies: list[Message]) -> list[Message]:
            return replies[1:]

    run = study(4)
    run.run(a_job(federation, rounds=1), grid=Silent)
    assert run.history()[0].refused == {"clinic-1": "no_reply"}


def forged_reply(to: Message, *, node: int | None = None) -> Message:
    reply = Message(content=to.content, reply_to=to)
    if node is not None:
        reply.metadata.__dict__["_src_node_id"] = node
    return reply


def test_a_second_reply_and_one_of_a_node_that_was_not_asked_count_for_nothing(
    study: MakeStudy, federation: Federation, tmp_path: Path
) -> None:
    class Noisy(Relay):
        def hear(self, replies: list[Message]) -> list[Message]:
            return [forged_reply(self.sent[0], node=99), *replies, *map(forged_reply, self.sent), *replies]

    run, job = study(), a_job(federation)
    model = run.run(job, grid=Noisy)
    assert all(record.refused == {} for record in run.history())
    plain = Study(federation, tmp_path / "plain", run.sites).run(job)
    assert encode_arrays(plain) == encode_arrays(model)


def test_only_the_first_reply_of_a_node_counts_even_if_a_better_one_follows(
    study: MakeStudy, federation: Federation
) -> None:
    class Overtaken(Relay):
        def hear(self, replies: list[Message]) -> list[Message]:
            return [forged_reply(self.sent[0]), *replies]

    run = study(4)
    run.run(a_job(federation, rounds=1), grid=Overtaken)
    assert run.history()[0].refused == {"clinic-1": "wrong_payload_type"}


def test_a_reply_of_a_former_round_is_refused(study: MakeStudy, federation: Federation) -> None:
    class Replays(Relay):
        kept: Message | None = None

        def hear(self, replies: list[Message]) -> list[Message]:
            self.kept = self.kept or replies[0]
            return [self.kept, *replies[1:]]

    run = study(4)
    run.run(a_job(federation), grid=Replays)
    assert [record.refused for record in run.history()] == [{}, {"clinic-1": "wrong_round"}]


def test_a_reply_to_the_first_attempt_is_no_reply_to_the_second(study: MakeStudy, federation: Federation) -> None:
    class Replays(Relay):
        kept: Message | None = None

        def hear(self, replies: list[Message]) -> list[Message]:
            if self.rounds == 1:
                self.kept = replies[0]
                return replies[:1]
            return [self.kept or replies[0], *replies[1:]]

    run = study(4)
    run.run(a_job(federation, rounds=1), grid=Replays)
    assert run.history()[0].refused == {"clinic-1": "wrong_nonce"}


def test_a_site_that_signs_with_another_key_is_unknown(study: MakeStudy, federation: Federation) -> None:
    run = study(4)
    with run.opened() as opened:
        first, *others = opened.participants
        stranger = type(first)(first.site_id, federation.signer.public_hex, first.node_id)
        swapped = InProcessSites(opened.sites, opened.grid, (stranger, *others))
        job = a_job(federation, rounds=1)
        with run.coordinator(job, swapped) as coordinator:
            coordinator.run(opened.grid, initial_model(job))
    assert run.history()[0].refused == {"clinic-1": "unknown_signer"}
