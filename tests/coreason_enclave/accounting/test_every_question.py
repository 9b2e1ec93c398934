"""Every question is answered in a bounded time: tightly, by a bound with another name, or by a refusal that says why.

The truth comes from elsewhere: closed forms, ``dp_accounting`` on a fine mesh, and a convolution of this file's own,
which brackets it from both sides.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve
from scipy.stats import norm

from coreason_enclave.accounting import (
    Accountant,
    PoissonSampledGaussian,
    calibrate_noise,
    compose_epsilon,
    last_affordable_step,
    rdp_at,
)
from coreason_enclave.accounting.composition import epsilon_bound
from coreason_enclave.errors import AccountingError

GENEROUS_S = 20  # ten times what is promised: machines of continuous integration are slow and shared
LONG = 10_000_000

QUESTIONS: dict[str, Callable[[], Any]] = {
    "a delta of one half": lambda: compose_epsilon([PoissonSampledGaussian(1.0, 0.05, 1000)], 0.5),
    "ten million steps of little": lambda: compose_epsilon([PoissonSampledGaussian(20.0, 0.01, LONG)], 1e-5),
    "ten million steps of much": lambda: compose_epsilon([PoissonSampledGaussian(1.0, 0.01, LONG)], 1e-5),
    "a hundred thousand million steps": lambda: compose_epsilon([PoissonSampledGaussian(1.0, 0.01, 10**11)], 1e-5),
    "a tiny rate": lambda: compose_epsilon([PoissonSampledGaussian(1.0, 1e-6, 1_000_000)], 1e-5),
    "very little noise": lambda: compose_epsilon([PoissonSampledGaussian(0.02, 0.5, 100)], 1e-5),
    "very much noise": lambda: compose_epsilon([PoissonSampledGaussian(1e200, 0.5, LONG)], 1e-5),
    "forty mechanisms": lambda: compose_epsilon(
        [PoissonSampledGaussian(1 + n / 40, 0.01, 100 + n) for n in range(40)], 1e-5
    ),
    "twelve mechanisms": lambda: compose_epsilon(
        [PoissonSampledGaussian(1 + n / 40, 0.01, 100 + n) for n in range(12)], 1e-5
    ),
    "the last step at a large delta": lambda: last_affordable_step(20.0, 0.01, 0.001, 0.05),
    "the last of ten million steps": lambda: last_affordable_step(20.0, 0.01, 7.0, 1e-5, max_steps=LONG),
    "noise for a million steps of everybody": lambda: calibrate_noise(3.0, 1e-5, 1.0, 1_000_000),
    "noise for ten million steps": lambda: calibrate_noise(8.0, 1e-5, 0.001, LONG),
    "noise for almost nothing": lambda: calibrate_noise(1e-7, 1e-5, 0.1, 1000),
    "noise for a tiny rate": lambda: calibrate_noise(1.0, 1e-5, 1e-7, 1),
}


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
def test_the_question_is_answered_in_a_bounded_time(ask: Callable[[], Any]) -> None:
    began = time.process_time()
    answer = ask()
    assert time.process_time() - began < GENEROUS_S
    number = getattr(answer, "epsilon", answer)
    assert math.isfinite(number)
    assert number >= 0


def by_dp_accounting(event: PoissonSampledGaussian, delta: float, mesh: float) -> float:
    """An upper bound, by another implementation."""
    one = privacy_loss_distribution.from_gaussian_mechanism(
        event.noise_multiplier, value_discretization_interval=mesh, sampling_prob=event.sample_rate
    )
    return float(one.self_compose(event.steps).get_epsilon_for_delta(delta))


def without_tails(mass: np.ndarray, at: int) -> tuple[np.ndarray, int]:
    """Left out mass makes a lower bound lower."""
    kept = np.flatnonzero(mass > 1e-15)
    return np.maximum(mass[kept[0] : kept[-1] + 1], 0.0), at + int(kept[0])


def from_below(event: PoissonSampledGaussian, delta: float, mesh: float) -> float:
    """A lower bound on the exact epsilon of removing a unit: losses rounded *down*, convolved by repeated squaring."""
    noise, rate = event.noise_multiplier, event.sample_rate
    x = np.linspace(-9 * noise, 1 + 9 * noise, 400_001)
    loss = np.log1p(rate * np.expm1((2 * x - 1) / (2 * noise**2)))
    mass = np.diff((1 - rate) * norm.cdf(x / noise) + rate * norm.cdf((x - 1) / noise))
    place = np.floor(loss[:-1] / mesh).astype(int)
    first = int(place[0])
    power, at = np.bincount(place - first, weights=mass), first
    total, total_at = np.array([1.0]), 0
    for bit in bin(event.steps)[:1:-1]:
        if bit == "1":
            total, total_at = without_tails(fftconvolve(total, power), total_at + at)
        power, at = without_tails(fftconvolve(power, power), 2 * at)
    losses = mesh * (total_at + np.arange(len(total)))

    def excess(epsilon: float) -> float:
        above = losses > epsilon
        return float((total[above] * -np.expm1(epsilon - losses[above])).sum()) - delta

    low, high = 0.0, float(losses[-1])
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return low


BRACKETED = {
    "little noise": (PoissonSampledGaussian(0.3, 0.01, 1000), 1e-5, 2e-3, 2**-10),
    "ordinary": (PoissonSampledGaussian(1.0, 0.05, 200), 1e-5, 2e-4, 2**-12),
    "a large rate": (PoissonSampledGaussian(0.8, 0.6, 30), 1e-6, 1e-3, 2**-11),
    "a delta of one half": (PoissonSampledGaussian(1.0, 0.05, 1000), 0.5, 2e-4, 2**-11),
    "a small rate": (PoissonSampledGaussian(0.6, 0.002, 2000), 1e-5, 2e-5, 2**-13),
}


@pytest.mark.parametrize(("event", "delta", "mesh", "fine"), BRACKETED.values(), ids=BRACKETED)
def test_the_answer_lies_between_bounds_of_two_other_computations(
    event: PoissonSampledGaussian, delta: float, mesh: float, fine: float
) -> None:
    answer = compose_epsilon([event], delta)

    assert answer.accountant is Accountant.PLD
    assert answer.note == ""
    above = by_dp_accounting(event, delta, fine)
    assert from_below(event, delta, mesh) <= answer.epsilon
    assert above / 1.0005 - 1e-5 <= answer.epsilon <= above * 1.001 + 1e-4


def test_little_noise_is_within_a_thousandth_of_the_exact_epsilon() -> None:
    exact = 69.816
    assert exact * (1 - 1e-5) <= compose_epsilon([PoissonSampledGaussian(0.3, 0.01, 1000)], 1e-5).epsilon
    assert compose_epsilon([PoissonSampledGaussian(0.3, 0.01, 1000)], 1e-5).epsilon <= exact * 1.001


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.floats(0.4, 6.0), st.floats(1e-3, 0.9), st.integers(1, 400), st.sampled_from([1e-9, 1e-7, 1e-5, 1e-3, 0.05, 0.4])
)
def test_no_answer_is_below_a_lower_bound_on_the_truth(noise: float, rate: float, steps: int, delta: float) -> None:
    event = PoissonSampledGaussian(noise, rate, steps)
    answer = compose_epsilon([event], delta).epsilon
    mesh = max(answer, 0.05) / 1_500
    assert from_below(event, delta, mesh) <= answer * (1 + 1e-9) + 1e-9


def test_calibration_to_a_million_steps_of_everybody_is_the_closed_form() -> None:
    noise = calibrate_noise(3.0, 1e-5, 1.0, 1_000_000)
    mu = 1000 / noise
    exact = norm.cdf(mu / 2 - 3 / mu) - math.exp(3) * norm.cdf(-mu / 2 - 3 / mu)
    assert exact <= 1e-5
    mu *= 1.0015
    assert norm.cdf(mu / 2 - 3 / mu) - math.exp(3) * norm.cdf(-mu / 2 - 3 / mu) > 1e-5


def test_the_last_step_at_a_large_delta_is_affordable_and_a_thousandth_more_is_not() -> None:
    last = last_affordable_step(20.0, 0.01, 0.001, 0.05)
    assert epsilon_bound(PoissonSampledGaussian(20.0, 0.01, last), 0.05) <= 0.001
    assert epsilon_bound(PoissonSampledGaussian(20.0, 0.01, round(last * 1.001)), 0.05) > 0.001


def test_looser_bounds_bear_their_name_and_say_why() -> None:
    for events in (
        [PoissonSampledGaussian(1.0, 0.01, 10**11)],
        [PoissonSampledGaussian(0.02, 0.5, 100)],
        [PoissonSampledGaussian(1 + n / 40, 0.01, 10) for n in range(17)],
    ):
        answer = compose_epsilon(events, 1e-5)
        assert answer.accountant is Accountant.RDP
        assert "Rényi bound" in answer.note
        assert answer.epsilon == answer.rdp_epsilon


NO_NUMBERS: list[Any] = ["3.0", None, math.nan, True, [1.0], 1j]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize("name", ["noise_multiplier", "sample_rate", "target_epsilon", "delta"])
def test_an_argument_that_is_no_number_is_refused_by_its_name(name: str, value: Any) -> None:
    arguments = {"noise_multiplier": 1.0, "sample_rate": 0.05, "target_epsilon": 3.0, "delta": 1e-5, name: value}
    named = "epsilon" if name == "target_epsilon" else name
    asked = dict(arguments)
    with pytest.raises(AccountingError, match=f"{named} must be"):
        last_affordable_step(**asked)
    if name != "noise_multiplier":
        del arguments["noise_multiplier"]
        with pytest.raises(AccountingError, match=f"{named} must be"):
            calibrate_noise(**arguments, steps=10)
    if name == "delta":
        with pytest.raises(AccountingError, match="delta must be"):
            compose_epsilon([PoissonSampledGaussian(1.0, 0.05, 3)], value)


@pytest.mark.parametrize("value", ["3", None, 2.5, math.nan, True, -1], ids=repr)
def test_a_number_of_steps_that_is_none_is_refused_by_its_name(value: Any) -> None:
    for ask in (
        lambda: PoissonSampledGaussian(1.0, 0.05, value),
        lambda: calibrate_noise(3.0, 1e-5, 0.05, value),
        lambda: last_affordable_step(1.0, 0.05, 3.0, 1e-5, max_steps=value),
    ):
        with pytest.raises(AccountingError, match="steps must be a whole number"):
            ask()


def test_numbers_beyond_any_meaning_are_refused_by_their_range() -> None:
    for event in (PoissonSampledGaussian(1e-200, 0.5, 1), PoissonSampledGaussian(1.0, 0.5, 10**400)):
        with pytest.raises(AccountingError, match="the accountant"):
            compose_epsilon([event], 1e-5)
    with pytest.raises(AccountingError, match="noise_multiplier must be positive and finite"):
        PoissonSampledGaussian(10**400, 0.5, 1)
    assert math.isfinite(rdp_at(PoissonSampledGaussian(1.0, 1e-300, 1), 8))
