"""Events keep their meaning, and a guarantee carries everything that it depends on."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.accounting import (
    Accountant,
    Guarantee,
    NonPrivate,
    PoissonSampledGaussian,
    compose_epsilon,
    event_from_dict,
    event_to_dict,
)
from coreason_enclave.errors import AccountingError
from coreason_enclave.schemas import NeighboringRelation, PrivacyUnit

GAUSSIAN = {"type": "poisson_sampled_gaussian", "noise_multiplier": 1.0, "sample_rate": 0.05, "steps": 3}

UNREADABLE: dict[str, dict[str, Any]] = {
    "an unknown type": {**GAUSSIAN, "type": "laplace"},
    "no type": {key: value for key, value in GAUSSIAN.items() if key != "type"},
    "a missing field": {key: value for key, value in GAUSSIAN.items() if key != "steps"},
    "an additional field": {**GAUSSIAN, "discount": 0.5},
    "a non-private event with noise": {"type": "non_private", "noise_multiplier": 1.0},
    "noise that is not a number": {**GAUSSIAN, "noise_multiplier": math.nan},
    "infinite noise": {**GAUSSIAN, "noise_multiplier": math.inf},
    "no noise": {**GAUSSIAN, "noise_multiplier": 0},
    "noise as text": {**GAUSSIAN, "noise_multiplier": "1.0"},
    "noise as truth": {**GAUSSIAN, "noise_multiplier": True},
    "a rate above one": {**GAUSSIAN, "sample_rate": 1.5},
    "a rate of zero": {**GAUSSIAN, "sample_rate": 0.0},
    "negative steps": {**GAUSSIAN, "steps": -1},
    "half a step": {**GAUSSIAN, "steps": 0.5},
    "steps as a float": {**GAUSSIAN, "steps": 3.0},
    "steps as truth": {**GAUSSIAN, "steps": True},
}


@pytest.mark.parametrize("document", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_event_that_is_not_understood_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(AccountingError):
        event_from_dict(document)


@given(st.floats(0.01, 1e6), st.floats(1e-9, 1.0), st.integers(0, 10**9))
def test_events_round_trip(noise: float, rate: float, steps: int) -> None:
    event = PoissonSampledGaussian(noise, rate, steps)
    assert event_from_dict(event_to_dict(event)) == event
    assert event_from_dict(event_to_dict(NonPrivate())) == NonPrivate()


def claim(**changes: Any) -> Guarantee:
    fields: dict[str, Any] = {
        "epsilon": 1.0,
        "delta": 1e-5,
        "accountant": Accountant.PLD,
        "rdp_epsilon": 1.2,
        "unit": PrivacyUnit.PERSON,
        "neighboring_relation": NeighboringRelation.ADD_OR_REMOVE_ONE,
        "sampling": "poisson",
    }
    return Guarantee(**{**fields, **changes})


def test_a_guarantee_has_no_defaults() -> None:
    for field in dataclasses.fields(Guarantee):
        assert field.default is dataclasses.MISSING
        assert field.default_factory is dataclasses.MISSING


FALSE_CLAIMS = {
    "by the GDP approximation": {"accountant": Accountant.GDP},
    "by an accountant that nobody knows": {"accountant": "PRV"},
    "with a negative epsilon": {"epsilon": -0.1},
    "with an epsilon that is not a number": {"epsilon": math.nan},
    "with a delta of zero": {"delta": 0.0},
    "with a delta of one": {"delta": 1.0},
}


@pytest.mark.parametrize("changes", FALSE_CLAIMS.values(), ids=FALSE_CLAIMS.keys())
def test_a_claim_that_proves_nothing_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(AccountingError):
        claim(**changes)


def test_an_infinite_epsilon_can_be_stated_and_says_that_it_promises_nothing() -> None:
    assert claim().is_finite
    assert not claim(epsilon=math.inf, rdp_epsilon=math.inf).is_finite


def test_a_composed_epsilon_becomes_a_guarantee_only_with_its_unit() -> None:
    answer = compose_epsilon([PoissonSampledGaussian(1.0, 0.05, 20)], 1e-5)
    stated = answer.guarantee(unit=PrivacyUnit.RECORD, neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE)
    assert (stated.epsilon, stated.delta, stated.unit) == (answer.epsilon, 1e-5, PrivacyUnit.RECORD)
    assert stated.epsilon <= stated.rdp_epsilon
