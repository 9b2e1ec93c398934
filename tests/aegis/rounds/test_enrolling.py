"""Before the first round every site is invited; what it answers is the roll-call that all of them check."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from aegis.errors import BudgetRefused, RunPaused
from aegis.runtimes.in_process import InProcessSites, initial_model
from coreason_enclave.crypto.envelope import unverified_payload
from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.wire.documents import RoundOrder, SiteLedgerHead
from coreason_enclave.wire.roll_call import read_roll_call
from coreason_enclave.wire.updates import SealedMessage, encode_arrays
from tests.support.studies import THREE, Federation, MakeStudy, Refuses, Relay, Study, a_job, where


class Listens(Relay):
    """Keeps what is sent: invitations by node, and orders as they were signed."""

    def __init__(self, grid: Any) -> None:
        super().__init__(grid)
        self.invited: list[list[int]] = []
        self.orders: list[SealedMessage] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        for each in messages:
            if each.metadata.message_type == "train":
                self.orders.append(SealedMessage.from_fields(each.content.config_records["aegis"]))
        if messages[0].metadata.message_type == "query.enrol":
            self.invited.append([each.metadata.dst_node_id for each in messages])
        return super().push_messages(messages)


class Declines(Refuses):
    """Does not take part, or only later."""

    def enrol(self, message: SealedMessage) -> SealedMessage:
        if self.times > 0:
            self.times -= 1
            raise EnclaveError("not for us", reason=self.reason)
        return super().enrol(message)

    def run(self, message: SealedMessage) -> SealedMessage:
        answer: SealedMessage = self.session.run(message)
        return answer


class Enrols(Refuses):
    """Answers an invitation with something else."""

    def __init__(self, site: Any, answer: SealedMessage) -> None:
        super().__init__(site.session, times=0)
        self.answer = answer

    def enrol(self, message: SealedMessage) -> SealedMessage:
        return self.answer


def listening(run: Study, job: Any, adapt: Any = None, **options: Any) -> Listens:
    grids: list[Listens] = []

    def grid(inner: Any) -> Listens:
        grids.append(Listens(inner))
        return grids[0]

    run.run(job, adapt, grid=grid, **options)
    return grids[0]


# --- the roll-call --------------------------------------------------------------------------------------------


def test_every_order_carries_a_roll_call_in_which_each_site_signed_for_this_job(
    study: MakeStudy, federation: Federation
) -> None:
    run, job = study(), a_job(federation)
    reply = listening(run, job)
    assert reply.invited == [[1, 2, 3]]
    for sealed in reply.orders:
        order = RoundOrder.from_payload(unverified_payload(sealed.envelope))
        entries = read_roll_call(sealed.roll_call, job.digest())
        assert tuple(entry.site_id for entry in entries) == THREE
        assert {entry.public_key for entry in entries} == {site.public_key for site in run.sites}
        assert order.job == job
    assert len({sealed.roll_call for sealed in reply.orders}) == 1
    assert {line["details"]["site"] for line in run.audit() if line["outcome"] == "enrolled"} == set(THREE)


def test_a_site_that_declines_is_left_out_with_its_reason_spends_nothing_and_is_invited_again_each_turn(
    study: MakeStudy, federation: Federation, tmp_path: Path
) -> None:
    run, job = study(4), a_job(federation)
    reply = listening(run, job, where(["clinic-4"], lambda site: Declines(site.session)))
    assert [record.refused for record in run.history()] == [{"clinic-4": "policy"}] * 2
    assert reply.invited == [[1, 2, 3, 4], [4]]
    assert run.reserved_rounds()["clinic-4"] == []
    assert run.state().quarantine == {}
    of_three = Study(federation, tmp_path / "of-three", run.sites[:3]).run(job)
    assert encode_arrays(run.store.load_model(run.state().models[-1])) == encode_arrays(of_three)


def test_a_site_that_enrols_later_joins_the_roll_call_of_the_rounds_that_follow(
    study: MakeStudy, federation: Federation
) -> None:
    run, job = study(4), a_job(federation)
    reply = listening(run, job, where(["clinic-4"], lambda site: Declines(site.session, times=1)))
    sizes = [len(read_roll_call(sealed.roll_call, job.digest())) for sealed in reply.orders]
    assert sizes == [3] * 3 + [4] * 4
    assert [record.admitted for record in run.history()] == [THREE, (*THREE, "clinic-4")]


def test_below_min_clients_enrolments_the_run_pauses_before_anybody_trains(
    study: MakeStudy, federation: Federation
) -> None:
    run, job = study(3), a_job(federation)
    with pytest.raises(RunPaused, match=r"2 sites eligible, 3 needed.*clinic-3: policy"):
        run.run(job, where(["clinic-3"], lambda site: Declines(site.session)))
    assert run.reserved_rounds() == {name: [] for name in THREE}
    assert sorted(run.state().enrolments) == ["clinic-1", "clinic-2"]
    reply = listening(run, job)
    assert reply.invited == [[3]]
    assert [record.admitted for record in run.history()] == [THREE, THREE]


def test_where_every_site_that_is_missing_declines_for_its_budget_running_again_changes_nothing(
    study: MakeStudy, federation: Federation
) -> None:
    run = study(3)
    with pytest.raises(BudgetRefused, match="clinic-3: budget_exceeded"):
        run.run(a_job(federation), where(["clinic-3"], lambda site: Declines(site.session, Reason.BUDGET_EXCEEDED)))


def test_what_is_no_enrolment_is_an_offence(study: MakeStudy, federation: Federation) -> None:
    run = study(4)
    reply = listening(run, a_job(federation), where(["clinic-4"], lambda site: Enrols(site, SealedMessage(b"{}"))))
    assert [record.refused for record in run.history()] == [{"clinic-4": "malformed"}, {"clinic-4": "quarantined"}]
    assert reply.invited == [[1, 2, 3, 4]]


def test_the_enrolment_of_another_job_or_of_another_site_does_not_count(
    study: MakeStudy, federation: Federation
) -> None:
    run, job = study(4), a_job(federation, rounds=1)
    others = {
        "clinic-3": federation.enrolment(a_job(federation, job_id="another"), "clinic-3"),
        "clinic-4": federation.enrolment(job, "clinic-1"),
    }
    adapt = where(others, lambda site: Enrols(site, SealedMessage(others[site.config.site_id])))
    with pytest.raises(RunPaused, match="clinic-3: wrong_digest, clinic-4: unknown_signer"):
        run.run(job, adapt)


def test_silence_after_an_invitation_costs_one_deadline_and_not_one_a_round(
    study: MakeStudy, federation: Federation
) -> None:
    class Deaf(Listens):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            messages = list(messages)
            message_ids = super().push_messages(messages)
            if messages[0].metadata.message_type != "train":
                self.lost = {
                    key for key, each in zip(message_ids, messages, strict=True) if each.metadata.dst_node_id == 4
                }
            return message_ids

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            replies = super().pull_messages(message_ids)
            return [reply for reply in replies if reply.metadata.reply_to_message_id not in self.lost]

    run = study(4)
    run.run(a_job(federation), grid=Deaf)
    assert [record.refused for record in run.history()] == [{"clinic-4": "no_reply"}, {"clinic-4": "quarantined"}]


def test_a_site_that_is_registered_under_a_new_key_enrols_with_that_one(
    study: MakeStudy, federation: Federation
) -> None:
    run, job = study(4), a_job(federation)
    with pytest.raises(RunPaused):
        run.run(job, where(["clinic-1", "clinic-2"], lambda site: Refuses(site.session, Reason.ABORTED)))
    assert len(run.state().enrolments) == 4
    with run.opened() as opened:
        *others, last = opened.participants
        renewed = type(last)(last.site_id, federation.signer.public_hex, last.node_id)
        with run.coordinator(job, InProcessSites(opened.sites, opened.grid, (*others, renewed))) as coordinator:
            coordinator.run(opened.grid, initial_model(job))
    assert sorted(run.state().enrolments) == list(THREE)  # the site itself still signs with the old one
    assert run.history()[0].refused == {"clinic-4": "unknown_signer"}


# --- ledger heads ---------------------------------------------------------------------------------------------


def test_each_order_shows_the_newest_head_that_its_site_signed_over_all_runs(
    study: MakeStudy, federation: Federation, tmp_path: Path
) -> None:
    run = study()
    first = listening(run, a_job(federation))
    heads = [RoundOrder.from_payload(unverified_payload(sealed.envelope)).last_head for sealed in first.orders]
    assert heads[:3] == [None] * 3
    shown = [SiteLedgerHead.from_payload(unverified_payload(head.encode())) for head in heads[3:] if head]
    assert [head.site_id for head in shown] == list(THREE)
    assert run.heads.get("clinic-1") not in heads

    another = Study(federation, tmp_path / "another", run.sites)
    second = listening(another, a_job(federation, job_id="another", rounds=1), heads=run.heads)
    orders = [RoundOrder.from_payload(unverified_payload(sealed.envelope)) for sealed in second.orders]
    kept = {
        line["details"]["site"]: line["details"]["ledger_head"] for line in run.audit() if line["action"] == "admit"
    }
    for order in orders:
        assert order.last_head is not None
        assert (
            SiteLedgerHead.from_payload(unverified_payload(order.last_head.encode())).head.model_dump()
            == kept[order.site_id]
        )


def test_a_ledger_that_was_set_back_is_refused_by_its_own_site_and_is_no_offence(
    study: MakeStudy, federation: Federation
) -> None:
    run = study(4)
    ledger = run.sites[3].folder / "ledger.sqlite"
    before = ledger.read_bytes()
    run.run(a_job(federation, rounds=1))
    for leftover in ledger.parent.glob("ledger.sqlite-*"):
        leftover.unlink()
    ledger.write_bytes(before)
    again = Study(federation, run.folder.parent / "again", run.sites)
    again.run(a_job(federation, job_id="another"), heads=run.heads)
    assert [record.refused for record in again.history()] == [{"clinic-4": "ledger_rolled_back"}] * 2
    assert again.state().quarantine == {}
    assert json.loads((run.folder / "heads" / "clinic-4.json").read_text())["payload"]
