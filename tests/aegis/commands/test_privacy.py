from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result
from scipy.optimize import brentq
from scipy.stats import norm

from coreason_enclave.accounting import PoissonSampledGaussian, compose_epsilon

Aegis = Callable[..., Result]

EPSILON = ["privacy", "epsilon", "--noise-multiplier", "1.1", "--sample-rate", "0.02", "--steps", "500"]
CALIBRATE = ["privacy", "calibrate", "--target-epsilon", "2", "--sample-rate", "0.02", "--steps", "500"]


def gaussian_epsilon(sigma: float, delta: float) -> float:
    """Balle and Wang (2018), theorem 8: the exact curve of one Gaussian release of sensitivity 1."""

    def excess(epsilon: float) -> float:
        below, above = 0.5 / sigma - epsilon * sigma, -0.5 / sigma - epsilon * sigma
        return float(norm.cdf(below) - math.exp(epsilon) * norm.cdf(above)) - delta

    return float(brentq(excess, 0, 100))


def answer(aegis: Aegis, *arguments: str) -> dict[str, Any]:
    result = aegis(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_without_sampling_the_answer_is_the_exact_curve_of_the_gaussian_mechanism(aegis: Aegis) -> None:
    """Nine releases at sigma 6 are one at sigma 2."""
    found = answer(aegis, "privacy", "epsilon", "--segment", "6.0,1.0,9", "--delta", "1e-5")

    assert found["epsilon"] == pytest.approx(gaussian_epsilon(2.0, 1e-5), rel=1e-3)
    assert found["epsilon"] >= gaussian_epsilon(2.0, 1e-5) * (1 - 1e-6)


def test_the_document_holds_the_number_and_what_it_depends_on(aegis: Aegis) -> None:
    found = answer(aegis, *EPSILON, "--delta", "1e-5")

    assert found.keys() == {
        "epsilon",
        "delta",
        "accountant",
        "rdp_epsilon",
        "neighboring_relation",
        "sampling",
        "note",
    }
    assert (found["delta"], found["accountant"]) == (1e-5, "PLD")
    assert 0 < found["epsilon"] <= found["rdp_epsilon"]
    assert (found["neighboring_relation"], found["sampling"]) == ("add_or_remove_one", "poisson")


def test_segments_are_composed_with_the_main_mechanism_and_with_each_other(aegis: Aegis) -> None:
    both = answer(aegis, *EPSILON, "--segment", "2.0,0.05,100", "--segment", "0.9,0.01,50", "--delta", "1e-6")
    events = [
        PoissonSampledGaussian(1.1, 0.02, 500),
        PoissonSampledGaussian(2.0, 0.05, 100),
        PoissonSampledGaussian(0.9, 0.01, 50),
    ]

    assert both["epsilon"] == compose_epsilon(events, 1e-6).epsilon


def test_the_same_mechanism_in_two_segments_is_the_mechanism_for_the_steps_of_both(aegis: Aegis) -> None:
    whole = answer(aegis, *EPSILON, "--delta", "1e-5")
    halves = answer(
        aegis, "privacy", "epsilon", "--segment", "1.1,0.02,200", "--segment", "1.1,0.02,300", "--delta", "1e-5"
    )

    assert halves == whole


def test_below_the_reach_of_the_pld_the_answer_is_the_renyi_bound_and_says_so(aegis: Aegis) -> None:
    found = answer(aegis, *EPSILON, "--delta", "1e-14")

    assert found["accountant"] == "RDP"
    assert found["epsilon"] == found["rdp_epsilon"]
    assert "1e-10" in found["note"]


def test_a_person_is_told_what_the_number_assumes(aegis: Aegis) -> None:
    said = aegis(*EPSILON, "--delta", "1e-5").stdout

    for word in ("delta 1e-05", "PLD", "unit:", "relation:", "Poisson", "shuffled loader", "added or removed"):
        assert word in said


@pytest.mark.parametrize(("target", "steps"), [(0.5, 60), (3.0, 1), (3.0, 500), (8.0, 60)])
def test_calibrated_noise_meets_the_target_and_a_little_less_noise_would_not(
    aegis: Aegis, target: float, steps: int
) -> None:
    arguments = ("--sample-rate", "0.1", "--steps", str(steps), "--delta", "1e-5")
    found = answer(aegis, "privacy", "calibrate", "--target-epsilon", str(target), *arguments)
    less = PoissonSampledGaussian(found["noise_multiplier"] * 0.995, 0.1, steps)

    assert found["epsilon"] <= target
    assert (
        found["epsilon"]
        == compose_epsilon([PoissonSampledGaussian(found["noise_multiplier"], 0.1, steps)], 1e-5).epsilon
    )
    assert compose_epsilon([less], 1e-5).epsilon > target


def test_what_calibrate_answers_epsilon_confirms(aegis: Aegis) -> None:
    calibrated = answer(aegis, *CALIBRATE, "--delta", "1e-5")
    segment = f"{calibrated['noise_multiplier']!r},0.02,500"

    assert answer(aegis, "privacy", "epsilon", "--segment", segment, "--delta", "1e-5") == {
        name: value for name, value in calibrated.items() if name != "noise_multiplier"
    }


WRONG = {
    "a target of -1": ([*CALIBRATE[:3], "-1", *CALIBRATE[4:], "--delta", "1e-5"], "must be in (0, 1000], got -1"),
    "a target of nothing": ([*CALIBRATE[:3], "0", *CALIBRATE[4:], "--delta", "1e-5"], "got 0"),
    "a target of NaN": ([*CALIBRATE[:3], "nan", *CALIBRATE[4:], "--delta", "1e-5"], "got nan"),
    "an infinite target": ([*CALIBRATE[:3], "inf", *CALIBRATE[4:], "--delta", "1e-5"], "got inf"),
    "a delta of nothing": ([*EPSILON, "--delta", "0"], "must be in (0, 0.1], got 0"),
    "a delta of one": ([*EPSILON, "--delta", "1"], "must be in (0, 0.1], got 1"),
    "a negative delta": ([*EPSILON, "--delta", "-1e-5"], "must be in (0, 0.1]"),
    "a delta of NaN": ([*EPSILON, "--delta", "NaN"], "got nan"),
    "a word for a number": ([*EPSILON, "--delta", "small"], "must be a number, got 'small'"),
    "a sample rate above one": ([*EPSILON[:5], "1.5", *EPSILON[6:], "--delta", "1e-5"], "must be in (0, 1], got 1.5"),
    "no noise": ([*EPSILON[:3], "0", *EPSILON[4:], "--delta", "1e-5"], "must be in (0, 1e+06], got 0"),
    "no steps": ([*EPSILON[:7], "0", "--delta", "1e-5"], "0 is not in the range"),
    "half a step": ([*EPSILON[:7], "1.5", "--delta", "1e-5"], "not a valid integer"),
    "no delta": (EPSILON, "Missing option '--delta'"),
    "no mechanism": (["privacy", "epsilon", "--delta", "1e-5"], "at least one --segment"),
    "half a mechanism": (["privacy", "epsilon", "--steps", "3", "--delta", "1e-5"], "give all three or none"),
    "a segment of two numbers": ([*EPSILON, "--segment", "1.0,0.5", "--delta", "1e-5"], "must be sigma,q,steps"),
    "a segment with NaN": ([*EPSILON, "--segment", "nan,0.5,3", "--delta", "1e-5"], "got nan"),
    "a segment with half a step": ([*EPSILON, "--segment", "1,0.5,1.5", "--delta", "1e-5"], "not a valid integer"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_wrong_input_gets_one_clear_line_and_exit_code_2(aegis: Aegis, arguments: list[str], said: str) -> None:
    result = aegis(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


HOPELESS = {
    "noise that hides nothing": ["privacy", "epsilon", "--segment", "0.001,0.5,10", "--delta", "1e-5"],
    "a target that no noise reaches": [
        *("privacy", "calibrate", "--target-epsilon", "1e-9", "--sample-rate", "0.5"),
        *("--steps", "10000000", "--delta", "1e-12"),
    ],
}


@pytest.mark.parametrize("arguments", HOPELESS.values(), ids=HOPELESS)
def test_numbers_in_range_for_which_no_guarantee_exists_are_refused_and_not_reported(
    aegis: Aegis, arguments: list[str]
) -> None:
    result = aegis(*arguments)

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.count("\n") == 1


def test_calibrate_says_how_much_signal_the_noise_leaves(aegis: Aegis) -> None:
    sized = ("--delta", "1e-5", "--parameters", "100", "--units", "1000")
    found = answer(aegis, *CALIBRATE, *sized)
    ratio = 0.02 * 1000 * (500 / 100) ** 0.5 / found["noise_multiplier"]
    assert found["signal_to_noise"] == pytest.approx(ratio)

    little = ["privacy", "calibrate", "--target-epsilon", "1e-7", "--sample-rate", "0.02", "--steps", "500"]
    assert "mostly noise" in aegis(*little, *sized).output
    assert aegis(*CALIBRATE, "--delta", "1e-5", "--units", "1000").exit_code == 2
