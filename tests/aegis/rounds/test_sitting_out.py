"""Who offends sits out, comes back, and is never the reason that the others stop."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from aegis.coordination.liveness import SiteHealth
from aegis.errors import InvalidJob, RunPaused
from aegis.stores.run_state import RoundRecord
from coreason_enclave.errors import Reason
from coreason_enclave.wire.documents import FreeBudget
from coreason_enclave.wire.updates import encode_arrays
from tests.support.studies import Federation, MakeStudy, PowerFailure, Refuses, Relay, Study, a_job, scaled, where

NAN = scaled(float("nan"))


def outcome(run: Study, site: str) -> list[str]:
    """What became of one site, round by round."""
    return [record.refused.get(site, "admitted") for record in run.history()]


def test_a_site_that_offends_whenever_it_is_asked_is_asked_less_and_less(
    study: MakeStudy, federation: Federation
) -> None:
    run = study(4)
    run.run(a_job(federation, rounds=6, local_steps=1), where(["clinic-2"], NAN))
    asked = [number for number, what in enumerate(outcome(run, "clinic-2"), start=1) if what == "non_finite"]
    assert asked == [1, 3, 6]
    assert set(outcome(run, "clinic-2")) == {"non_finite", "quarantined"}
    assert run.reserved_rounds()["clinic-2"] == asked


def test_a_site_that_behaves_again_is_asked_again_and_forgiven(study: MakeStudy, federation: Federation) -> None:
    class Once(Refuses):
        def __init__(self, site: Any) -> None:
            super().__init__(site.session, times=1)
            self.hostile = NAN(site)

        def run(self, message: Any) -> Any:
            self.times -= 1
            return self.hostile.run(message) if self.times >= 0 else self.session.run(message)

    run = study(4)
    run.run(a_job(federation, rounds=4), where(["clinic-2"], Once))
    assert outcome(run, "clinic-2") == ["non_finite", "quarantined", "admitted", "admitted"]
    assert run.state().quarantine == {}


def test_a_sites_own_refusal_is_no_offence_and_it_is_asked_each_time(study: MakeStudy, federation: Federation) -> None:
    run = study(4)
    run.run(a_job(federation, rounds=3), where(["clinic-2"], lambda site: Refuses(site.session, Reason.ABORTED)))
    assert outcome(run, "clinic-2") == ["aborted"] * 3
    assert run.state().quarantine == {}


def test_what_goes_wrong_once_in_a_round_that_is_repeated_is_forgiven_when_it_goes_right(
    study: MakeStudy, federation: Federation, tmp_path: Path
) -> None:
    class SilentAtFirst(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            return replies if self.rounds > 1 else replies[1:]

    run, job = study(3), a_job(federation)
    model = run.run(job, grid=SilentAtFirst)
    assert outcome(run, "clinic-1") == ["admitted", "admitted"]
    assert run.state().quarantine == {}
    undisturbed = Study(federation, tmp_path / "undisturbed", run.sites).run(job)
    assert encode_arrays(model) == encode_arrays(undisturbed)


def test_both_attempts_at_a_round_ask_the_same_sites(study: MakeStudy, federation: Federation) -> None:
    asked: list[list[int]] = []

    class Counts(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            asked.append([message.metadata.dst_node_id for message in self.sent])
            return replies[1:]

    run = study(3)
    with pytest.raises(RunPaused, match="clinic-1: no_reply"):
        run.run(a_job(federation), grid=Counts)
    assert asked == [[1, 2, 3], [1, 2, 3]]


def test_too_few_left_the_run_pauses_at_once_and_says_who_is_out_why_and_until_when(
    study: MakeStudy, federation: Federation
) -> None:
    run, job = study(3), a_job(federation)
    with pytest.raises(RunPaused, match="2 updates admitted, 3 needed"):
        run.run(job, where(["clinic-2"], NAN))

    class NeverAsked(Relay):
        def push_messages(self, messages: Any) -> Any:
            raise AssertionError("nobody is asked")

    with pytest.raises(RunPaused, match=r"3 needed.*clinic-2: quarantined for non_finite, for 1 more round\)"):
        run.run(job, grid=NeverAsked)
    run.run(job)  # the paused round counts: the same command leads out of it
    assert outcome(run, "clinic-2") == ["admitted", "admitted"]


def test_a_person_may_readmit_a_site_by_name_and_the_log_says_so(study: MakeStudy, federation: Federation) -> None:
    run, job = study(3), a_job(federation)
    with pytest.raises(RunPaused):
        run.run(job, where(["clinic-2"], NAN))
    run.run(job, readmitted=("clinic-2",))
    assert outcome(run, "clinic-2") == ["admitted", "admitted"]
    readmitted = [line["details"] for line in run.audit() if line["outcome"] == "readmitted"]
    assert [(each["site"], each["strikes"]) for each in readmitted] == [("clinic-2", 1)]


def test_nobody_is_readmitted_whom_nobody_knows(study: MakeStudy, federation: Federation) -> None:
    run = study(3)
    with pytest.raises(InvalidJob, match="clinic-9 cannot be readmitted: no participant has that name"):
        run.run(a_job(federation), readmitted=("clinic-9",))
    assert run.store.load() is None


def test_what_the_aggregators_screening_sets_aside_is_an_offence(
    study: MakeStudy, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aegis.rounds import round_runner as turn

    aggregate = turn.aggregate

    def stricter(contributions: Any, **options: Any) -> Any:
        return aggregate(contributions, **{**options, "max_norm": 1e-3 if turns.pop(0) else options["max_norm"]})

    turns = [True, True, False, False]
    monkeypatch.setattr(turn, "aggregate", stricter)
    run, job = study(3), a_job(federation)
    with pytest.raises(RunPaused, match="clinic-1: outsized, clinic-2: outsized, clinic-3: outsized"):
        run.run(job)
    assert {site: record.reason for site, record in run.state().quarantine.items()} == dict.fromkeys(
        ("clinic-1", "clinic-2", "clinic-3"), "outsized"
    )


def test_a_run_that_is_killed_again_and_again_decides_like_one_that_is_not(
    study: MakeStudy, federation: Federation, tmp_path: Path
) -> None:
    """Quarantine is counted in ended rounds and is part of the state: a resumed run asks the same sites."""
    job, hostile = a_job(federation, rounds=6, local_steps=1), where(["clinic-2"], NAN)

    class LosesPower(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            raise PowerFailure

    undisturbed, disturbed = study(4), Study(federation, tmp_path / "disturbed", [])
    disturbed.sites = undisturbed.sites
    model = undisturbed.run(job, hostile)
    for _ in range(4):
        with pytest.raises(PowerFailure):
            disturbed.run(job, hostile, grid=LosesPower)
        one_round(disturbed, job, hostile)
    assert encode_arrays(disturbed.run(job, hostile)) == encode_arrays(model)
    assert [record.refused for record in disturbed.history()] == [record.refused for record in undisturbed.history()]
    assert disturbed.state().quarantine == undisturbed.state().quarantine


def one_round(run: Study, job: Any, adapt: Any) -> None:
    def stop(_: Any) -> None:
        raise PowerFailure

    with pytest.raises(PowerFailure):
        run.run(job, adapt, observe=stop)


# --- sites that come and go -----------------------------------------------------------------------------------


class Joins:
    """Signs of life that a test writes down."""

    def __init__(self) -> None:
        self.known: dict[str, SiteHealth] = {}
        self.pushes = 0

    def health(self) -> Mapping[str, SiteHealth]:
        return dict(self.known)

    def pushing(self) -> AbstractContextManager[None]:
        self.pushes += 1
        return nullcontext()


def test_a_site_that_was_silent_and_joined_anew_is_asked_again_at_once(
    study: MakeStudy, federation: Federation
) -> None:
    joins = Joins()

    class SilentTwice(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            return replies[1:] if self.rounds <= 2 else replies

    def join_anew(record: RoundRecord) -> None:
        joins.known["clinic-1"] = SiteHealth(activations=record.round_number, connected=True)

    run = study(4)
    run.run(a_job(federation, rounds=4), grid=SilentTwice, liveness=joins, observe=join_anew)
    assert outcome(run, "clinic-1") == ["no_reply", "no_reply", "admitted", "admitted"]
    assert joins.pushes >= 5


def test_what_is_known_of_the_sites_is_in_the_log_and_beside_the_state(
    study: MakeStudy, federation: Federation
) -> None:
    budget = FreeBudget(dataset_id="clinic/visits", epsilon_cap=20.0, epsilon_spent=4.0, delta=1e-5)
    joins, run = Joins(), study(3)
    joins.known = {
        "clinic-1": SiteHealth(1.5, 2, True, 0.02, "0.1.0", (budget,)),
        "nobody": SiteHealth(),
    }
    run.run(a_job(federation, rounds=1), liveness=joins)
    (noted,) = [line["details"]["sites"] for line in run.audit() if line["action"] == "health"]
    assert noted == {
        "clinic-1": {
            "last_seen": 1.5,
            "activations": 2,
            "connected": True,
            "round_trip_s": 0.02,
            "version": "0.1.0",
            "budgets": [budget.model_dump()],
        }
    }
    assert json.loads((run.folder / "state" / "health.json").read_text())["sites"] == noted


# --- revocation -----------------------------------------------------------------------------------------------


def test_a_revoked_participant_is_never_asked(study: MakeStudy, federation: Federation, tmp_path: Path) -> None:
    run, job = study(4), a_job(federation)
    model = run.run(job, revoked=lambda: {"clinic-4"})
    assert outcome(run, "clinic-4") == ["revoked", "revoked"]
    assert run.reserved_rounds()["clinic-4"] == []
    assert "clinic-4" not in run.state().enrolments
    of_three = Study(federation, tmp_path / "of-three", run.sites[:3]).run(job)
    assert encode_arrays(model) == encode_arrays(of_three)


def test_what_comes_of_a_participant_that_was_revoked_meanwhile_is_refused(
    study: MakeStudy, federation: Federation
) -> None:
    revoked: set[str] = set()

    class Revokes(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            revoked.add("clinic-4")
            return replies

    run = study(4)
    run.run(a_job(federation), grid=Revokes, revoked=lambda: revoked)
    assert outcome(run, "clinic-4") == ["revoked", "revoked"]
    assert run.state().quarantine == {}


def test_a_participant_that_is_revoked_while_the_coordinator_is_down_is_not_asked_when_it_is_back(
    study: MakeStudy, federation: Federation
) -> None:
    class LosesPower(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            raise PowerFailure

    run, job = study(4), a_job(federation, rounds=1)
    with pytest.raises(PowerFailure):
        run.run(job, grid=LosesPower)
    assert "clinic-4" in run.state().nonces
    run.run(job, revoked=lambda: {"clinic-4"})
    assert outcome(run, "clinic-4") == ["revoked"]


def test_an_update_of_a_participant_that_is_revoked_before_the_round_is_complete_is_not_used(
    study: MakeStudy, federation: Federation
) -> None:
    class LosesPowerAfterOne(Relay):
        def receive(self, replies: list[Message]) -> list[Message]:
            return replies[:1]

        def wait_for_reply(self, seconds: float) -> None:
            if self.sent and not self._orders:
                raise PowerFailure
            super().wait_for_reply(seconds)

    run, job = study(4), a_job(federation, rounds=1)
    with pytest.raises(PowerFailure):
        run.run(job, grid=LosesPowerAfterOne)
    assert list(run.state().received) == ["clinic-1"]
    run.run(job, revoked=lambda: {"clinic-1"})
    assert outcome(run, "clinic-1") == ["revoked"]
    assert run.history()[0].admitted == ("clinic-2", "clinic-3", "clinic-4")
