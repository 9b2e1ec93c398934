"""A coordinator that loses power anywhere goes on to the very model that it would have reached."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest
from flwr.app import Message

from coreason_enclave.wire.updates import encode_arrays
from tests.support.studies import (
    Federation,
    Fuse,
    MakeStudy,
    OneByOne,
    PowerFailure,
    Relay,
    Undisturbed,
    a_job,
    check_resumed,
    watched,
)

SHARES = 4


@pytest.mark.parametrize("share", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, SHARES))])
def test_power_may_fail_after_any_durable_write_and_the_run_goes_on_to_the_same_model(
    undisturbed: Undisturbed, tmp_path: Path, share: int
) -> None:
    """After one write is before the next. Nobody who was heard is asked again: the updates are on disk."""
    assert undisturbed.writes > 40
    for number in range(1 + share, undisturbed.writes + 1, SHARES):
        run = undisturbed.again(tmp_path / str(number))
        with pytest.raises(PowerFailure):
            run.run(undisturbed.job, grid=OneByOne, **watched(Fuse(number, "after"), run.folder))
        check_resumed(run, undisturbed)


def test_power_may_fail_before_the_first_durable_write(undisturbed: Undisturbed, tmp_path: Path) -> None:
    run = undisturbed.again(tmp_path)
    with pytest.raises(PowerFailure):
        run.run(undisturbed.job, grid=OneByOne, **watched(Fuse(1, "before"), run.folder))
    check_resumed(run, undisturbed)


def test_a_resumed_coordinator_asks_neither_who_enrolled_nor_who_was_heard(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    class Counts(Relay):
        asked: list[str] = []  # noqa: RUF012 - one list for both grids

        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            messages = list(messages)
            self.asked += [f"{message.metadata.message_type} {message.metadata.dst_node_id}" for message in messages]
            return super().push_messages(messages)

    class LosesPowerAfterTwo(Counts):
        def receive(self, replies: list[Message]) -> list[Message]:
            return replies[:2]

        def wait_for_reply(self, seconds: float) -> None:
            if self.sent and not self._orders:
                raise PowerFailure
            super().wait_for_reply(seconds)

    run = undisturbed.again(tmp_path)
    with pytest.raises(PowerFailure):
        run.run(undisturbed.job, grid=LosesPowerAfterTwo)
    assert list(run.state().received) == ["clinic-1", "clinic-2"]
    before = len(Counts.asked)
    run.run(undisturbed.job, grid=Counts)
    nodes = ("1", "2", "3")
    everybody = [f"{what} {node}" for what in ("query.attest", "query.enrol", "train") for node in nodes]
    assert sorted(Counts.asked[:before]) == everybody
    # Whoever was heard is asked for nothing in that round; started anew, the coordinator proves itself to all again.
    assert Counts.asked[before : before + 2] == ["query.attest 3", "train 3"]
    assert sorted(Counts.asked[before + 2 :]) == ["query.attest 1", "query.attest 2", "train 1", "train 2", "train 3"]
    check_resumed(run, undisturbed)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_killed_coordinator_goes_on_to_the_same_model(share: float, undisturbed: Undisturbed, tmp_path: Path) -> None:
    run = undisturbed.again(tmp_path)
    child = os.fork()
    if child == 0:
        fuse = Fuse(round(share * undisturbed.writes), "after", lambda: os.kill(os.getpid(), signal.SIGKILL))
        try:
            run.run(undisturbed.job, grid=OneByOne, **watched(fuse, run.folder))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    check_resumed(run, undisturbed)


def test_an_open_round_is_asked_again_with_the_same_nonces(undisturbed: Undisturbed, tmp_path: Path) -> None:
    run, asked = undisturbed.again(tmp_path), list[list[str]]()

    class Overheard(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            asked.append([nonce_of(message) for message in self.sent])
            if len(asked) == 1:
                raise PowerFailure
            return replies

    with pytest.raises(PowerFailure):
        run.run(undisturbed.job, grid=Overheard)
    run.run(undisturbed.job, grid=Overheard)
    assert asked[0] == asked[1]
    assert len({nonce for nonces in asked for nonce in nonces}) == 6
    assert [line["details"]["round"] for line in run.audit() if line["outcome"] == "opened"] == [1, 2]


def nonce_of(message: Message) -> str:
    envelope = json.loads(message.content.config_records["aegis"]["envelope"])
    nonce: str = json.loads(base64.b64decode(envelope["payload"]))["nonce"]
    return nonce


def test_a_site_that_disappears_while_its_round_is_open_is_a_site_that_does_not_reply(
    study: MakeStudy, federation: Federation
) -> None:
    class LosesPower(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            raise PowerFailure

    run, job = study(4), a_job(federation)
    with pytest.raises(PowerFailure):
        run.run(job, grid=LosesPower)
    run.run(job, sites=run.sites[:3])
    assert [record.refused for record in run.history()] == [{"clinic-4": "no_reply"}, {}]


def test_a_finished_run_is_run_again_without_asking_anybody(undisturbed: Undisturbed, tmp_path: Path) -> None:
    class NeverAsked(Relay):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            raise AssertionError("nobody is asked")

    run = undisturbed.again(tmp_path)
    run.run(undisturbed.job)
    assert encode_arrays(run.run(undisturbed.job, grid=NeverAsked)) == undisturbed.model
