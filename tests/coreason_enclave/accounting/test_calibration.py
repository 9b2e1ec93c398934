"""Noise for a target, and steps for a target: never over it, and close to it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coreason_enclave.accounting import (
    PoissonSampledGaussian,
    calibrate_noise,
    compose_epsilon,
    last_affordable_step,
)
from coreason_enclave.errors import AccountingError


def epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    return compose_epsilon([PoissonSampledGaussian(noise, rate, steps)], delta).epsilon


TARGETS = {
    "an ordinary job": (3.0, 1e-5, 0.05, 68),
    "a strict job": (0.5, 1e-6, 0.1, 50),
    "a very strict job": (0.01, 1e-5, 0.1, 60),
    "a loose job": (50.0, 1e-5, 0.5, 100),
    "every unit in every step": (1.0, 1e-9, 1.0, 10),
    "a bracket in which a ratio overflows": (8.0, 1e-4, 0.5, 15),
    "a delta below the PLD's floor": (3.0, 1e-12, 0.05, 100),
}


@pytest.mark.parametrize(("target", "delta", "rate", "steps"), TARGETS.values(), ids=TARGETS.keys())
def test_calibrated_noise_meets_the_target_and_a_thousandth_less_does_not(
    target: float, delta: float, rate: float, steps: int
) -> None:
    noise = calibrate_noise(target, delta, rate, steps)
    assert epsilon(noise, rate, steps, delta) <= target
    assert epsilon(noise * (1 - 1.2e-3), rate, steps, delta) > target
    assert last_affordable_step(noise, rate, target, delta, max_steps=steps) == steps


def test_where_any_noise_would_do_the_floor_is_returned() -> None:
    assert calibrate_noise(1.0, 1e-5, 1e-7, 1) == 0.1


def test_a_target_out_of_reach_is_refused_and_says_what_to_change() -> None:
    with pytest.raises(AccountingError, match="fewer steps"):
        calibrate_noise(1e-6, 1e-12, 1.0, 1000)


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan"), float("inf")])
def test_a_target_that_is_not_a_positive_number_is_refused(target: float) -> None:
    with pytest.raises(AccountingError, match="epsilon"):
        calibrate_noise(target, 1e-5, 0.05, 10)
    with pytest.raises(AccountingError, match="epsilon"):
        last_affordable_step(1.0, 0.05, target, 1e-5)


def test_nothing_to_calibrate_is_refused() -> None:
    with pytest.raises(AccountingError, match="0 steps"):
        calibrate_noise(3.0, 1e-5, 0.05, 0)


def test_noise_1_at_rate_5_percent_affords_68_steps_of_epsilon_3() -> None:
    assert last_affordable_step(1.0, 0.05, 3.0, 1e-5) == 68
    assert epsilon(1.0, 0.05, 68, 1e-5) <= 3.0 < epsilon(1.0, 0.05, 69, 1e-5)


def test_no_step_is_affordable_where_a_single_one_costs_more_than_the_target() -> None:
    assert last_affordable_step(0.5, 1.0, 1.0, 1e-5) == 0


def test_the_answer_never_exceeds_the_schedule() -> None:
    assert last_affordable_step(1.0, 0.05, 3.0, 1e-5, max_steps=40) == 40
    assert last_affordable_step(1.0, 0.05, 3.0, 1e-5, max_steps=0) == 0
    with pytest.raises(AccountingError, match="max_steps"):
        last_affordable_step(1.0, 0.05, 3.0, 1e-5, max_steps=-1)


@settings(max_examples=3, deadline=None)
@given(st.floats(0.8, 4.0), st.floats(0.02, 0.2), st.floats(1.0, 6.0))
def test_the_last_affordable_step_is_affordable_and_the_next_is_not(noise: float, rate: float, target: float) -> None:
    last = last_affordable_step(noise, rate, target, 1e-5, max_steps=3000)
    assert last == 0 or epsilon(noise, rate, last, 1e-5) <= target
    assert last == 3000 or epsilon(noise, rate, last + 1, 1e-5) > target


def test_a_second_question_is_answered_from_memory() -> None:
    calibrate_noise(3.0, 1e-5, 0.05, 68)
    start = time.perf_counter()
    calibrate_noise(3.0, 1e-5, 0.05, 68)
    assert time.perf_counter() - start < 0.01
