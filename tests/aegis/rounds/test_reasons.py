"""Every reason for which an answer is not taken: the model stays as it is, and no ledger pays for it.

Two sites, both of which the job needs. One of them misbehaves; the round is repeated, the run pauses, and goes on to
the very model of an undisturbed run once the site behaves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from aegis.errors import RunPaused
from coreason_enclave.crypto.envelope import MAX_ENVELOPE_BYTES, seal
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import Reason
from coreason_enclave.ledger import LedgerHead
from coreason_enclave.ledger.signed_heads import seal_head
from coreason_enclave.policy import Profile
from coreason_enclave.wire.documents import UPDATE_TYPE
from coreason_enclave.wire.updates import SealedMessage, encode_arrays
from tests.support.studies import Federation, Forges, MakeStudy, Refuses, Relay, Study, a_job, where

STRANGER = Signer.from_seed(bytes([99]) * 32)
OTHER = "cd" * 32
HOSTILE = "clinic-2"


@dataclass(frozen=True)
class Case:
    """What clinic-2 does, what the network does, and whether it is held against the site."""

    reason: Reason
    handler: Callable[[Any], Any] = lambda site: site.session
    grid: Callable[[Any], Any] = Relay
    strike: bool = True


def says(**changes: Any) -> Callable[[Any], Forges]:
    return lambda site: Forges(site, lambda said, arrays: ({**said, **changes}, arrays))


def event(**changes: Any) -> Callable[[Any], Forges]:
    return lambda site: Forges(site, lambda said, arrays: ({**said, "event": {**said["event"], **changes}}, arrays))


def sends(change: Callable[[Any], Any]) -> Callable[[Any], Forges]:
    return lambda site: Forges(
        site, lambda said, arrays: (said, {name: change(array) for name, array in arrays.items()})
    )


class Sends(Refuses):
    """Sends what ``make`` makes of the honest answer."""

    def __init__(self, site: Any, make: Callable[[SealedMessage, Any], SealedMessage]) -> None:
        super().__init__(site.session, times=0)
        self.site, self.make = site, make

    def run(self, message: SealedMessage) -> SealedMessage:
        return self.make(self.session.run(message), self.site)


def bytes_of(make: Callable[[SealedMessage, Any], SealedMessage]) -> Callable[[Any], Sends]:
    return lambda site: Sends(site, make)


def head_of(site_id: str, signer: Signer | None = None) -> Callable[[Any], Forges]:
    def handler(site: Any) -> Forges:
        def change(said: dict[str, Any], arrays: Any) -> tuple[dict[str, Any], Any]:
            head = LedgerHead(seq=said["ledger_head"]["seq"], hash=said["ledger_head"]["hash"])
            return {**said, "signed_head": seal_head(head, site_id, signer or site.session.signer)}, arrays

        return Forges(site, change)

    return handler


class FromTheSecond(Relay):
    """Changes what comes of clinic-2, whose node is the second."""

    def second(self, reply: Message) -> list[Message]:
        raise NotImplementedError

    def receive(self, replies: list[Message]) -> list[Message]:
        return [each for reply in replies for each in (self.second(reply) if _is_second(reply) else [reply])]


def _is_second(reply: Message) -> bool:
    return bool(reply.metadata.src_node_id == 2)


class Nothing(FromTheSecond):
    def second(self, reply: Message) -> list[Message]:
        return []


class AnotherNode(FromTheSecond):
    def second(self, reply: Message) -> list[Message]:
        reply.metadata.__dict__["_src_node_id"] = 77
        return [reply]


class NoRecord(FromTheSecond):
    def second(self, reply: Message) -> list[Message]:
        return [Message(content=type(reply.content)(), reply_to=self.sent[-1])]


class TheFirstAnswerAgain(FromTheSecond):
    """Attempt after attempt, what clinic-2 sent in the first one."""

    kept: Message | None = None

    def second(self, reply: Message) -> list[Message]:
        self.kept = self.kept or Message(content=reply.content, reply_to=self.sent[-1])
        reply = Message(content=self.kept.content, reply_to=self.sent[-1])
        return [reply] if self.rounds > 1 else []


class Down(Relay):
    """A carrier that breaks as soon as it was given orders."""

    def pull_messages(self, message_ids: Any) -> Any:
        if self.sent:
            raise ConnectionError("refused")
        return super().pull_messages(message_ids)

    def wait_for_reply(self, seconds: float) -> None:
        super().wait_for_reply(seconds)
        self._jumped += 5 * seconds if self.sent else 0.0


REASONS: dict[str, Case] = {
    "an envelope of more than a megabyte": Case(
        Reason.OVERSIZED, bytes_of(lambda honest, _: SealedMessage(bytes(MAX_ENVELOPE_BYTES + 1), honest.arrays))
    ),
    "arrays larger than the model could need": Case(
        Reason.OVERSIZED, bytes_of(lambda honest, _: SealedMessage(honest.envelope, bytes(1 << 17)))
    ),
    "an envelope that is none": Case(Reason.MALFORMED, bytes_of(lambda honest, _: SealedMessage(b"{}", honest.arrays))),
    "a record that is not there": Case(Reason.MALFORMED, grid=NoRecord),
    "a statement with a field too many": Case(Reason.MALFORMED, says(accuracy=0.9)),
    "a signature by a key that nobody registered": Case(
        Reason.UNKNOWN_SIGNER,
        bytes_of(lambda honest, _: SealedMessage(seal(UPDATE_TYPE, b"{}", STRANGER), honest.arrays)),
    ),
    "a signature that was changed": Case(
        Reason.BAD_SIGNATURE,
        bytes_of(
            lambda honest, site: SealedMessage(
                seal(UPDATE_TYPE, b"{}", STRANGER).replace(STRANGER.key_id.encode(), site.signer.key_id.encode()),
                honest.arrays,
            )
        ),
    ),
    "a signature over another kind of document": Case(
        Reason.WRONG_PAYLOAD_TYPE,
        bytes_of(lambda honest, site: SealedMessage(seal("application/json", b"{}", site.signer), honest.arrays)),
    ),
    "the name of another site": Case(Reason.UNKNOWN_SITE, says(site_id="clinic-1")),
    "an answer for another job": Case(Reason.WRONG_DIGEST, says(job_digest=OTHER)),
    "an answer for another round": Case(Reason.WRONG_ROUND, says(round_number=2)),
    "an answer to another order": Case(Reason.WRONG_NONCE, says(nonce=OTHER)),
    "the answer to the attempt before": Case(Reason.WRONG_NONCE, grid=TheFirstAnswerAgain),
    "training from another base model": Case(Reason.WRONG_DIGEST, says(base_model_digest=OTHER)),
    "arrays that were exchanged after signing": Case(Reason.WRONG_DIGEST, says(update_digest=OTHER)),
    "arrays that are not encrypted": Case(
        Reason.UNDECRYPTABLE, bytes_of(lambda honest, _: SealedMessage(honest.envelope, encode_arrays({})))
    ),
    "no evidence": Case(Reason.ATTESTATION_INVALID, says(evidence={})),
    "a parameter too few": Case(
        Reason.WRONG_SHAPES,
        lambda site: Forges(site, lambda said, arrays: (said, {"linear.bias": arrays["linear.bias"]})),
    ),
    "a number that is none": Case(Reason.NON_FINITE, sends(lambda array: array * np.float32(np.nan))),
    "an update beyond the job's norm": Case(Reason.NORM_EXCEEDED, sends(lambda array: array + np.float32(1e6))),
    "less noise than planned": Case(Reason.EVENT_EXCEEDS_PLAN, event(noise_multiplier=0.1)),
    "one step more than planned": Case(Reason.EVENT_EXCEEDS_PLAN, event(steps=3)),
    "a mechanism that nobody can account for": Case(Reason.ACCOUNTING, event(type="laplace")),
    "the ledger head of another site": Case(Reason.NOT_ADDRESSED_TO_ME, head_of("clinic-1")),
    "a ledger head that another key signed": Case(Reason.UNKNOWN_SIGNER, head_of(HOSTILE, STRANGER)),
    "silence": Case(Reason.NO_REPLY, grid=Nothing),
    "an answer from a node that was not asked": Case(Reason.NO_REPLY, grid=AnotherNode),
    "a carrier that breaks": Case(Reason.TRANSPORT, grid=Down, strike=False),
    "a site that has no budget for it": Case(
        Reason.BUDGET_EXCEEDED, lambda site: Refuses(site.session, Reason.BUDGET_EXCEEDED), strike=False
    ),
    "a site that does not like the roll-call": Case(
        Reason.ROLL_CALL, lambda site: Refuses(site.session, Reason.ROLL_CALL), strike=False
    ),
    "a site whose program broke": Case(
        Reason.INTERNAL, lambda site: Refuses(site.session, Reason.INTERNAL), strike=False
    ),
}


@pytest.mark.parametrize("case", REASONS.values(), ids=REASONS)
def test_an_answer_is_not_taken_for(case: Case, study: MakeStudy, federation: Federation, tmp_path: Path) -> None:
    run, job = study(2), a_job(federation, rounds=1, min_clients=2)
    with pytest.raises(RunPaused, match=f"{HOSTILE}: {case.reason}"):
        run.run(job, where([HOSTILE], case.handler), grid=case.grid)

    state = run.state()
    assert len(state.models) == 1, "the model is the one that the run began with"
    assert state.history == ()
    assert list(state.quarantine) == ([HOSTILE] if case.strike else [])
    assert set(spent(run)["clinic-1"]) <= {2}, "a repetition spends nothing more"
    lines = [line for line in run.audit() if line["action"] == "admit" and line["outcome"] == "refused"]
    assert case.reason in {line["reason"] for line in lines}

    model, pauses = when_it_behaves(run, job)
    assert len(pauses) == case.strike
    assert all("quarantined" in pause for pause in pauses)
    undisturbed = Study(federation, tmp_path / "undisturbed", run.sites).run(job)
    assert encode_arrays(model) == encode_arrays(undisturbed)
    assert spent(run) == {"clinic-1": [2], "clinic-2": [2]}


def when_it_behaves(run: Study, job: Any) -> tuple[Any, list[str]]:
    """The model that the same command ends with, and what it says on the way: each pause ends a round."""
    pauses: list[str] = []
    while True:
        try:
            return run.run(job), pauses
        except RunPaused as pause:
            pauses.append(str(pause))
            assert len(pauses) < 3, pauses


def spent(run: Study) -> dict[str, list[int]]:
    """The steps of every reservation in each site's ledger."""
    return {
        site.config.site_id: [entry["plan"]["steps"] for entry in site.ledger_entries() if entry["type"] == "reserved"]
        for site in run.sites
    }


def test_a_production_coordinator_gets_nothing_from_development_sites(study: MakeStudy, federation: Federation) -> None:
    run = study(2)
    with pytest.raises(RunPaused, match="clinic-1: wrong_profile"):
        run.run(a_job(federation, rounds=1, min_clients=2), profile=Profile.PRODUCTION)
    assert len(run.state().models) == 1
