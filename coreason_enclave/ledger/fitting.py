"""Says why a job does not fit: how much a lineage's budget, or the job's own cap, has left, and what would fit.

A lineage's budget is the filter's: Rényi divergence at the order fixed at registration. The gauge of epsilon is linear
in it, so ``left`` is the cap minus the gauge: one definition for every page that shows a budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from coreason_enclave.accounting import Change, changes_within_cap, compose_epsilon, fewer_steps, rounded
from coreason_enclave.ledger.pricing import step_cost_pico
from coreason_enclave.ledger.records import LineageClaim, NoiseSource, RoundPlan
from coreason_enclave.schemas import FederationJob, PrivacyUnit

_MOST_NOISE = 1e4


def schedule_of(job: FederationJob, unit: PrivacyUnit) -> RoundPlan | None:
    """Return the first round's plan of a job with every privacy value explicit; None for a job without privacy.

    Args:
        unit: the unit of privacy where the job leaves the choice to the site.
    """
    privacy = job.privacy
    if privacy.noise_multiplier is None or privacy.target_epsilon is None or privacy.delta is None:
        return None
    return RoundPlan(
        job_id=job.job_id,
        job_digest=job.digest(),
        round_number=1,
        unit=privacy.unit or unit,
        noise_multiplier=privacy.noise_multiplier,
        sample_rate=privacy.sample_rate,
        steps=job.local_steps,
        total_steps=job.total_steps,
        target_epsilon=privacy.target_epsilon,
        delta=privacy.delta,
        noise_source=NoiseSource.SITE_KEYSTREAM,
    )


def left_in_words(claim: LineageClaim) -> str:
    """Return what the budget of a lineage has spent and left, in words."""
    return (
        f"lineage {claim.lineage} has spent epsilon {claim.spent_epsilon:.3f} of {claim.caps.epsilon:g}, "
        f"{claim.left_epsilon:.3f} ({claim.left_share:.1%} of the budget) is left"
    )


def steps_left(plan: RoundPlan, claim: LineageClaim) -> int:
    """Return how many steps of a plan's mechanism the lineage's budget still affords."""
    return claim.remaining_pico // step_cost_pico(plan, claim.filter_order)


def beyond_budget(plan: RoundPlan, claim: LineageClaim) -> str:
    """Return why a lineage's budget does not afford a new job's whole schedule, and what would fit; empty if it does.

    Args:
        plan: any round of the job: ``plan.steps`` in each round, ``plan.total_steps`` in all.
    """
    afforded = steps_left(plan, claim)
    if afforded >= plan.total_steps:
        return ""
    changes = [change.words for change in _within_budget(plan, claim, afforded)]
    fits = f"what would fit: {', or '.join(changes)}" if changes else "no number of rounds or noise multiplier fits"
    return f"{left_in_words(claim)}, and affords {afforded} of the job's {plan.total_steps} steps; {fits}"


def beyond_own_cap(plan: RoundPlan) -> str:
    """Return why a job's whole schedule exceeds the job's own ``target_epsilon``, and what would fit; empty if not."""
    changes = changes_within_cap(
        noise_multiplier=plan.noise_multiplier,
        sample_rate=plan.sample_rate,
        rounds=_rounds(plan),
        local_steps=plan.steps,
        delta=plan.delta,
        cap=plan.target_epsilon,
    )
    if not changes:
        return ""
    cost = compose_epsilon([plan.event(plan.total_steps)], plan.delta).epsilon
    return (
        f"the job's {plan.total_steps} steps cost epsilon {cost:.3f}, and its own target_epsilon is "
        f"{plan.target_epsilon:g}; what would fit: {', or '.join(change.words for change in changes)}"
    )


def _rounds(plan: RoundPlan) -> int:
    return max(1, plan.total_steps // plan.steps)


def _within_budget(plan: RoundPlan, claim: LineageClaim, afforded: int) -> Iterator[Change]:
    yield from (each for each in fewer_steps(afforded, _rounds(plan), plan.steps) if each.entry == "rounds")
    noise = _least_noise(plan, claim)
    if noise is not None:
        yield Change("privacy.noise_multiplier", noise, f"a noise multiplier of at least {noise:g}")


def _least_noise(plan: RoundPlan, claim: LineageClaim) -> float | None:
    """Return the least noise multiplier, rounded up to three digits, whose whole schedule the budget affords."""

    def fits(noise: float) -> bool:
        return steps_left(replace(plan, noise_multiplier=noise), claim) >= plan.total_steps

    low, high = plan.noise_multiplier, _MOST_NOISE
    if not low < high or not fits(high):
        return None
    while high / low > 1.002:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return rounded(high, up=True)
