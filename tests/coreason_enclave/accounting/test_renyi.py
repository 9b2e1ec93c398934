"""Rényi divergence at one order against dp_accounting, against integration, and the filter's conversions."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext

import dp_accounting
import pytest
from dp_accounting.rdp import RdpAccountant, compute_epsilon
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from coreason_enclave.accounting import (
    NonPrivate,
    PoissonSampledGaussian,
    choose_order,
    epsilon_at,
    rdp_at,
    rdp_budget,
)
from coreason_enclave.accounting.cross_check import rdp_epsilon
from coreason_enclave.accounting.renyi import coarse_epsilon
from coreason_enclave.errors import AccountingError


def by_dp_accounting(event: PoissonSampledGaussian, order: int) -> float:
    sampled = dp_accounting.PoissonSampledDpEvent(
        event.sample_rate, dp_accounting.GaussianDpEvent(event.noise_multiplier)
    )
    return float(RdpAccountant([order]).compose(sampled, event.steps).rdp[0])


@pytest.mark.parametrize("order", [2, 3, 8, 32, 256])
@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.05), (0.5, 0.01), (4.0, 0.5), (1.1, 1.0), (0.3, 0.001)])
def test_agrees_with_dp_accounting(noise: float, rate: float, order: int) -> None:
    event = PoissonSampledGaussian(noise, rate, 7)
    assert rdp_at(event, order) == pytest.approx(by_dp_accounting(event, order), rel=1e-8)


@pytest.mark.parametrize("order", [2, 5])
def test_agrees_with_the_integral_that_defines_it(order: int) -> None:
    noise, rate = 1.3, 0.2

    def integrand(x: float) -> float:
        ratio = 1 - rate + rate * math.exp((2 * x - 1) / (2 * noise**2))
        return float(norm.pdf(x, scale=noise)) * ratio**order

    integral, _ = quad(integrand, -20, 30, epsabs=1e-13, limit=500)
    assert rdp_at(PoissonSampledGaussian(noise, rate, 1), order) == pytest.approx(
        math.log(integral) / (order - 1), rel=1e-8
    )


def test_tiny_rates_keep_their_digits_where_the_plain_sum_loses_them() -> None:
    getcontext().prec = 60
    noise, rate, order = 10.0, 1e-6, 8
    q = Decimal(rate)
    total = sum(
        Decimal(math.comb(order, k)) * (1 - q) ** (order - k) * q**k * (Decimal(k * (k - 1)) / 200).exp()
        for k in range(order + 1)
    )
    exact = float(total.ln() / (order - 1))
    assert rdp_at(PoissonSampledGaussian(noise, rate, 1), order) == pytest.approx(exact, rel=1e-9)


def test_is_linear_in_steps_and_infinite_without_a_mechanism() -> None:
    event = PoissonSampledGaussian(1.0, 0.05, 1)
    assert rdp_at(event.with_steps(500), 8) == 500 * rdp_at(event, 8)
    assert rdp_at(event.with_steps(0), 8) == 0
    assert math.isinf(rdp_at(NonPrivate(), 8))


@pytest.mark.parametrize("order", [0, 1, 1.5, True, 4097, "8"])
def test_an_order_that_nobody_could_recompute_is_refused(order: int) -> None:
    with pytest.raises(AccountingError, match="order"):
        rdp_at(PoissonSampledGaussian(1.0, 0.05, 1), order)


@given(st.floats(0.05, 100), st.floats(1e-12, 1e-2), st.integers(2, 512))
def test_budget_and_epsilon_are_inverse(epsilon: float, delta: float, order: int) -> None:
    budget = rdp_budget(epsilon, delta, order)
    if budget > 0:
        assert epsilon_at(budget, delta, order) == pytest.approx(epsilon, rel=1e-9)
        theirs, _ = compute_epsilon([order], [budget], delta)
        assert theirs <= epsilon * (1 + 1e-9)


def test_nothing_spent_is_epsilon_zero_and_a_negative_spend_is_refused() -> None:
    assert epsilon_at(0.0, 1e-5, 8) == 0
    for spend in (-1e-9, math.nan):
        with pytest.raises(AccountingError, match="at least 0"):
            epsilon_at(spend, 1e-5, 8)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 50), st.floats(1e-9, 1e-4))
def test_the_chosen_order_affords_no_less_of_a_gaussian_than_any_other(epsilon: float, delta: float) -> None:
    def min_noise(order: int) -> float:
        budget = rdp_budget(epsilon, delta, order)
        return math.sqrt(order / (2 * budget)) if budget > 0 else math.inf

    chosen = min_noise(choose_order(epsilon, delta))
    assert all(chosen <= min_noise(order) * (1 + 1e-12) for order in range(2, 300))


def test_a_cap_that_no_order_can_keep_is_refused() -> None:
    with pytest.raises(AccountingError, match="too small"):
        choose_order(1e-4, 1e-9)


@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.05), (5.0, 0.5), (0.7, 0.2), (1000.0, 1e-4), (0.05, 0.5)])
def test_the_cross_check_lies_between_the_best_known_and_the_coarse_bound(noise: float, rate: float) -> None:
    event = PoissonSampledGaussian(noise, rate, 50)
    fine, coarse = rdp_epsilon([event], 1e-6), coarse_epsilon([event], 1e-6)
    assert 0 < fine <= coarse * (1 + 1e-12)
    assert coarse <= fine * 2


def test_rates_at_which_the_series_fails_still_get_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    bound = rdp_epsilon([PoissonSampledGaussian(1e6, 0.5, 1)], 1e-5)
    assert math.isfinite(bound)
    assert bound > 0
    assert caplog.text == ""
