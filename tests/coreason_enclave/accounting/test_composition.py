"""Composed epsilons against closed forms, recorded oracles and the laws that every accountant obeys."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from coreason_enclave.accounting import (
    Accountant,
    NonPrivate,
    PoissonSampledGaussian,
    compose_epsilon,
    gdp_estimate,
)
from coreason_enclave.accounting.calibration import last_affordable_step
from coreason_enclave.accounting.composition import epsilon_bound, merge_segments
from coreason_enclave.accounting.cross_check import rdp_epsilon
from coreason_enclave.errors import AccountingError

RUN = PoissonSampledGaussian(noise_multiplier=1.0, sample_rate=0.05, steps=20)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Balle and Wang, 2018, theorem 8: exact for one Gaussian release with sensitivity/noise ``mu``."""
    return float(norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu))


def gaussian_epsilon(mu: float, delta: float) -> float:
    return float(brentq(lambda epsilon: gaussian_delta(mu, epsilon) - delta, 0, 200, xtol=1e-13))


def epsilon(*events: PoissonSampledGaussian, delta: float = 1e-5) -> float:
    return compose_epsilon(events, delta).epsilon


CLOSED_FORMS = {
    "one release with as much noise as sensitivity": (1.0, 1, 1e-5),
    "little noise": (0.5, 1, 1e-5),
    "much noise": (20.0, 1, 1e-6),
    "a hundred releases are one with a tenth of the noise": (10.0, 100, 1e-5),
    "a million releases": (1000.0, 1_000_000, 1e-6),
    "a delta at the PLD's floor": (2.0, 4, 1e-10),
}


@pytest.mark.parametrize(("noise", "steps", "delta"), CLOSED_FORMS.values(), ids=CLOSED_FORMS.keys())
def test_without_sampling_the_answer_is_the_closed_form_of_the_gaussian_mechanism(
    noise: float, steps: int, delta: float
) -> None:
    truth = gaussian_epsilon(math.sqrt(steps) / noise, delta)

    answer = compose_epsilon([PoissonSampledGaussian(noise, 1.0, steps)], delta)

    assert truth * (1 - 1e-9) <= answer.epsilon <= truth * 1.001 + 1e-4
    assert answer.accountant is Accountant.PLD


@pytest.mark.parametrize("steps", [100, 10_000])
@pytest.mark.parametrize("delta", [1e-5, 1e-10])
def test_convolution_never_dips_below_the_closed_form(steps: int, delta: float) -> None:
    # A rate just below 1 takes the numerical path; its exact epsilon is below that of rate 1 by about the difference.
    rate = 1 - 1e-9
    noise = math.sqrt(steps)
    truth = gaussian_epsilon(1.0, delta)

    answer = epsilon(PoissonSampledGaussian(noise, rate, steps), delta=delta)

    assert truth * (1 - 1e-6) <= answer <= truth * 1.001 + 1e-4


def test_a_long_run_at_a_tiny_delta_is_not_reported_below_the_truth() -> None:
    # Without the allowance for rounding, the raw distribution is about one per cent too low here.
    truth = gaussian_epsilon(5.0, 1e-10)
    run = PoissonSampledGaussian(math.sqrt(400_000) / 5.0, 1 - 1e-9, 400_000)
    assert epsilon(run, delta=1e-10) >= truth * (1 - 1e-6)


def test_one_sampled_release_satisfies_the_exact_delta_of_the_mixture() -> None:
    # Removing one unit: mixture against Gaussian. delta(eps) is one integral, done here on the real line.
    noise, rate, delta = 1.0, 0.05, 1e-5
    answer = epsilon(PoissonSampledGaussian(noise, rate, 1), delta=delta)
    # The privacy loss exceeds eps where x > x0; the mass there, by the two normal tails.
    x0 = noise**2 * math.log((math.exp(answer) - 1 + rate) / rate) + 0.5
    mixture = (1 - rate) * norm.sf(x0 / noise) + rate * norm.sf((x0 - 1) / noise)
    exact = mixture - math.exp(answer) * norm.sf(x0 / noise)
    assert exact <= delta <= exact * 1.01


def recorded_rows() -> list[Any]:
    folder = os.environ.get("AEGIS_ORACLES_DIR")
    if not folder:
        return [pytest.param(None, marks=pytest.mark.skip(reason="AEGIS_ORACLES_DIR is not set"))]
    rows = json.loads((Path(folder) / "epsilon.json").read_text())
    return [pytest.param(row, id=row["name"].replace(" ", "-")) for row in rows]


@pytest.mark.recorded
@pytest.mark.parametrize("row", recorded_rows())
def test_recorded_oracle(row: dict[str, Any]) -> None:
    events = [PoissonSampledGaussian(**segment) for segment in row["segments"]]

    answer = compose_epsilon(events, row["delta"])

    assert answer.epsilon <= row["rdp"] * 1.001
    assert answer.rdp_epsilon == pytest.approx(row["rdp"], rel=1e-3)
    if row["delta"] < 1e-10:
        assert answer.accountant is Accountant.RDP
        assert answer.epsilon == pytest.approx(row["rdp"], rel=1e-3)
    else:
        assert row["epsilon"] * (1 - 1e-6) <= answer.epsilon <= row["epsilon"] * 1.001 + 1e-4


def test_below_delta_1e_10_the_renyi_bound_is_reported_and_said_to_be() -> None:
    answer = compose_epsilon([RUN], 1e-12)
    assert answer.accountant is Accountant.RDP
    assert answer.epsilon == answer.rdp_epsilon
    assert "Rényi" in answer.note


def test_where_rounding_would_decide_the_renyi_bound_is_reported() -> None:
    answer = compose_epsilon([PoissonSampledGaussian(20.0, 0.0001, 10**10)], 1e-5)
    assert answer.accountant is Accountant.RDP
    assert "rounding" in answer.note


def test_no_events_cost_nothing_and_non_private_ones_cost_everything() -> None:
    assert compose_epsilon([], 1e-5).epsilon == 0
    assert compose_epsilon([RUN.with_steps(0)], 1e-5).epsilon == 0
    answer = compose_epsilon([RUN, NonPrivate()], 1e-5)
    assert math.isinf(answer.epsilon)
    assert math.isinf(answer.rdp_epsilon)
    assert "non-private" in answer.note


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan, math.inf])
def test_a_delta_that_promises_nothing_is_refused(delta: float) -> None:
    with pytest.raises(AccountingError, match="delta"):
        compose_epsilon([RUN], delta)
    with pytest.raises(AccountingError, match="delta"):
        compose_epsilon([], delta)


def test_equal_segments_are_merged_so_that_rounds_cost_what_the_job_costs() -> None:
    rounds = [RUN.with_steps(4)] * 5
    assert merge_segments(rounds) == (RUN,)
    assert epsilon(*rounds) == epsilon(RUN)


def test_five_jobs_of_epsilon_1_compose_to_far_less_than_5() -> None:
    mu = float(brentq(lambda mu: gaussian_epsilon(mu, 1e-5) - 1, 0.1, 1))
    job = PoissonSampledGaussian(1 / mu, 1.0, 1)
    assert epsilon(job) == pytest.approx(1.0, abs=1e-4)
    assert epsilon(*[job] * 5) == pytest.approx(gaussian_epsilon(mu * math.sqrt(5), 1e-5), rel=1e-4)
    assert epsilon(*[job] * 5) < 2.5


def test_gdp_under_reports_which_is_why_it_can_back_no_claim() -> None:
    segments = [
        PoissonSampledGaussian(1.0, 0.01, 1000),
        PoissonSampledGaussian(2.0, 0.02, 500),
        PoissonSampledGaussian(0.8, 0.005, 200),
    ]
    estimate = gdp_estimate(segments, 1e-5)
    assert estimate.epsilon < 0.95 * epsilon(*segments)
    assert "never for a claim" in estimate.warning
    assert not hasattr(estimate, "guarantee")


noises = st.floats(0.8, 8.0)
rates = st.floats(0.01, 0.3)
counts = st.integers(1, 300)
few = settings(max_examples=6, deadline=None)
ROUNDING = 1 + 3e-4  # the mesh may halve between two neighbouring questions


@few
@given(noises, rates, counts, st.integers(1, 50))
def test_more_steps_cost_more(noise: float, rate: float, steps: int, more: int) -> None:
    one, other = (PoissonSampledGaussian(noise, rate, count) for count in (steps, steps + more))
    assert epsilon_bound(one, 1e-5) <= epsilon_bound(other, 1e-5) * ROUNDING + 1e-6


@few
@given(noises, rates, counts, st.floats(1.05, 2.0))
def test_more_noise_costs_less(noise: float, rate: float, steps: int, factor: float) -> None:
    one, other = (PoissonSampledGaussian(level, rate, steps) for level in (noise, noise * factor))
    assert epsilon_bound(other, 1e-5) <= epsilon_bound(one, 1e-5) * ROUNDING + 1e-6


@few
@given(noises, rates, counts, st.floats(1.05, 3.0))
def test_a_larger_sample_costs_more(noise: float, rate: float, steps: int, factor: float) -> None:
    one, other = (PoissonSampledGaussian(noise, share, steps) for share in (rate, rate * factor))
    assert epsilon_bound(one, 1e-5) <= epsilon_bound(other, 1e-5) * ROUNDING + 1e-6


@few
@given(st.lists(st.builds(PoissonSampledGaussian, noises, rates, counts), min_size=2, max_size=3), st.randoms())
def test_order_does_not_matter_and_the_whole_costs_no_less_than_a_part(
    events: list[PoissonSampledGaussian], random: Any
) -> None:
    shuffled = random.sample(events, len(events))
    whole = epsilon(*events)
    assert epsilon(*shuffled) == whole
    assert epsilon(*events[1:]) <= whole * ROUNDING + 1e-6
    assert whole <= rdp_epsilon(events, 1e-5)


@pytest.mark.parametrize("noise_multiplier", [1e-4, 1e-6])
def test_noise_too_little_for_any_float_is_refused_and_not_a_foreign_overflow(noise_multiplier: float) -> None:
    hopeless = PoissonSampledGaussian(noise_multiplier, 0.5, 10)
    with pytest.raises(AccountingError, match="too little noise for the accountant"):
        compose_epsilon([hopeless], 1e-5)
    with pytest.raises(AccountingError, match="raise noise_multiplier"):
        last_affordable_step(noise_multiplier, 0.5, 3.0, 1e-5)
