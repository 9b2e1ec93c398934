"""What a hostile coordinator may do without being refused, and why it gains nothing by it."""

from __future__ import annotations

from typing import Any

import pytest

from coreason_enclave.accounting import compose_epsilon
from coreason_enclave.accounting.events import event_from_dict
from coreason_enclave.errors import EnclaveError
from tests.hostile_coordinator.conftest import NeverTrains, job

Target = Any


def test_the_same_order_again_and_again_gets_the_same_bytes(target: Target) -> None:
    entries = target.site.ledger_entries()
    opened = target.site.open(clock=target.federation.clock, trainer=NeverTrains())
    for nonce in ("ab", "cd", "ef"):
        order = target.federation.order(job(target.federation), nonce=nonce * 32)
        assert opened.session.run(order).arrays == target.answer.arrays
    opened.close()
    assert target.site.ledger_entries() == entries


def test_another_roll_call_for_a_released_round_gets_the_same_bytes(target: Target) -> None:
    """The cohort may grow between rounds; a released round is not released again for it."""
    study = job(target.federation)
    larger = target.federation.roll_call(study, ["clinic-1", "clinic-2", "clinic-3"])
    opened = target.site.open(clock=target.federation.clock, trainer=NeverTrains())
    assert opened.session.run(target.federation.order(study, roll_call=larger)).arrays == target.answer.arrays
    opened.close()


def test_an_older_head_of_the_sites_own_is_in_its_history_and_shows_nothing(target: Target) -> None:
    study, first = job(target.federation), target.statement.signed_head
    opened = target.site.open(clock=target.federation.clock)
    for number in (2, 3):
        order = target.federation.order(study, round_number=number, last_head=first)
        assert opened.session.run(order).arrays
    opened.close()


def test_splitting_a_study_into_jobs_ends_at_the_lineages_cap(target: Target) -> None:
    opened = target.site.open(clock=target.federation.clock)
    outcomes = []
    for number in range(2, 14):
        part = job(target.federation, job_id=f"study-{number}", rounds=1, local_steps=4)
        try:
            opened.session.run(target.federation.order(part))
            outcomes.append("answered")
        except EnclaveError as refusal:
            outcomes.append(refusal.reason.value)
    opened.close()
    assert outcomes[0] == "answered"
    assert outcomes[-1] == "budget_exceeded"
    events = [event_from_dict(entry["event"]) for entry in target.site.ledger_entries() if entry["type"] == "committed"]
    assert compose_epsilon(events, 1e-5).epsilon <= target.site.config.lineages[0].epsilon


@pytest.mark.parametrize("order_of_rounds", [(5, 4, 3, 2), (3, 5, 2, 4)])
def test_rounds_out_of_order_cost_what_rounds_in_order_cost(target: Target, order_of_rounds: tuple[int, ...]) -> None:
    study = job(target.federation)
    opened = target.site.open(clock=target.federation.clock)
    for turn, number in enumerate(order_of_rounds, start=2):
        base, shown = target.federation.weights(number / 10), target.federation.shown(study, turn)
        opened.session.run(target.federation.order(study, base, round_number=number, **shown))
    claim = opened.ledger.job_claim(target.site.lineage, study.job_id)
    opened.close()
    assert (claim.steps_run, claim.rounds) == (study.total_steps, (1, *order_of_rounds))
    assert claim.guarantee is not None
    assert claim.guarantee.epsilon <= study.privacy.target_epsilon
