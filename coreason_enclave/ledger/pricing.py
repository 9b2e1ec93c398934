"""Budgets and step costs as whole numbers.

Sums of floats drift, and a budget must not drift. So the filter adds up whole numbers of 1e-12 of Rényi divergence:
budgets rounded down, costs rounded up, compared exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from coreason_enclave.accounting import PoissonSampledGaussian, epsilon_at, last_affordable_step, rdp_at, rdp_budget
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.ledger.entries import MAX_PICO
from coreason_enclave.ledger.records import LineageRegistration, RoundPlan

PICO = 10**12
_ROUNDING = 1 + Fraction(1, 10**9)  # exceeds the float64 error in the formula of a step's cost


@dataclass(frozen=True)
class Price:
    """A job's ``allowed_steps`` within its own target, by PLD, and ``step_cost_pico`` at the lineage's order."""

    allowed_steps: int
    step_cost_pico: int


def budget_pico(registration: LineageRegistration) -> int:
    """Return the lineage's whole budget at its order, rounded down.

    Raises:
        ConfigurationError: the order leaves no budget under these caps.
    """
    caps, order = registration.caps, registration.filter_order
    budget = math.floor(Fraction(rdp_budget(caps.epsilon, caps.delta, order)) * PICO)
    if budget < 1:
        raise ConfigurationError(
            f"Rényi order {order} allows no step at epsilon {caps.epsilon:g}, delta {caps.delta:g}: use with_best_order"
        )
    return min(budget, MAX_PICO)


def step_cost_pico(plan: RoundPlan, order: int) -> int:
    """Return the cost of one step at ``order``, rounded up; at least 1, so that no step costs zero."""
    cost = rdp_at(PoissonSampledGaussian(plan.noise_multiplier, plan.sample_rate, 1), order)
    if not math.isfinite(cost):
        return MAX_PICO
    return min(max(1, math.ceil(Fraction(cost) * _ROUNDING * PICO)), MAX_PICO)


def price(plan: RoundPlan, order: int) -> Price:
    """Return both numbers for a job. The first call takes up to seconds; later calls use a cache."""
    allowed = last_affordable_step(
        plan.noise_multiplier, plan.sample_rate, plan.target_epsilon, plan.delta, max_steps=plan.total_steps
    )
    return Price(allowed, step_cost_pico(plan, order))


def spent_epsilon(spent_pico: int, delta: float, order: int) -> float:
    """Return the epsilon at ``order`` that a spend converts to."""
    return epsilon_at(spent_pico / PICO, delta, order)
