"""What a lineage's budget affords is what the ledger itself would grant."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from coreason_enclave.ledger import EphemeralLedger, LineageRegistration, RoundPlan
from coreason_enclave.ledger.fitting import beyond_budget, beyond_own_cap, left_in_words

LINEAGE = "clinic/visits"


@pytest.fixture
def spent(
    make_registration: Callable[..., LineageRegistration], make_plan: Callable[..., RoundPlan]
) -> EphemeralLedger:
    """A ledger of which another job has used a part."""
    ledger = EphemeralLedger()
    ledger.register(make_registration(lineage=LINEAGE))
    ledger.reserve(LINEAGE, make_plan(job_id="earlier", steps=40), "01" * 32, require_all=True)
    return ledger


def test_noise_and_rounds_that_are_named_are_the_last_that_the_ledger_grants(
    spent: EphemeralLedger, make_plan: Callable[..., RoundPlan]
) -> None:
    plan = make_plan(job_id="next", steps=10, total_steps=4000)
    words = beyond_budget(plan, spent.lineage_claim(LINEAGE))
    affords, noise = (
        float(re.search(pattern, words)[1])  # type: ignore[index]
        for pattern in (r"affords (\d+) of the job's 4000 steps", r"a noise multiplier of at least ([\d.]+)")
    )
    assert affords == spent.lineage_claim(LINEAGE).remaining_pico // _cost(spent, plan)
    least = noise * 0.99
    assert _afforded(spent, replace(plan, noise_multiplier=noise)) >= 4000
    assert _afforded(spent, replace(plan, noise_multiplier=least)) < 4000
    assert f"at most {int(affords) // 10} rounds of 10 steps" in words


def _cost(ledger: EphemeralLedger, plan: RoundPlan) -> int:
    """Return what one more step costs, as the ledger books it."""
    trial = replace(plan, job_id="trial", steps=1, total_steps=1)
    before = ledger.lineage_claim(LINEAGE).spent_pico
    held = ledger.reserve(LINEAGE, trial, "02" * 32, require_all=True)
    cost = ledger.lineage_claim(LINEAGE).spent_pico - before
    ledger.commit(held.reservation_id, trial.event(0), None)
    return cost


def _afforded(ledger: EphemeralLedger, plan: RoundPlan) -> int:
    """Return the steps that the lineage affords, by the ledger's own booking."""
    other = EphemeralLedger()
    other.register(ledger.registration(LINEAGE))
    return ledger.lineage_claim(LINEAGE).remaining_pico // _cost(other, plan)


def test_schedule_that_fits_has_no_words(spent: EphemeralLedger, make_plan: Callable[..., RoundPlan]) -> None:
    plan = make_plan(job_id="next", steps=5, total_steps=10)
    assert beyond_budget(plan, spent.lineage_claim(LINEAGE)) == ""
    assert beyond_own_cap(plan) == ""


def test_left_is_the_cap_minus_the_gauge_and_the_share_is_the_filters(spent: EphemeralLedger) -> None:
    claim = spent.lineage_claim(LINEAGE)
    assert claim.left_epsilon == pytest.approx(claim.remaining_pico / 1e12, rel=1e-9)
    assert claim.left_share == claim.remaining_pico / claim.budget_pico
    assert f"{claim.left_epsilon:.3f} ({claim.left_share:.1%} of the budget) is left" in left_in_words(claim)
