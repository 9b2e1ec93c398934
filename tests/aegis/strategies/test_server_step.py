"""The server's step against arithmetic written out: two sites, one weight, two rounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.strategies import Moments, server_step
from coreason_enclave.schemas import ServerOptimizerConfig


def one(value: float) -> dict[str, Any]:
    return {"w": np.array([value], np.float32)}


def two_rounds(config: ServerOptimizerConfig, first: float, second: float) -> tuple[float, float]:
    """The weight after each of two rounds from 1, whose combined updates are these."""
    after, moments = server_step(one(1.0), one(first), config, None)
    last, _ = server_step(after, one(second), config, moments)
    return float(after["w"][0]), float(last["w"][0])


ADAPTIVE = {"learning_rate": 0.2, "beta_1": 0.5, "beta_2": 0.75, "tau": 0.1}


def test_averaging_adds_the_mean_of_the_updates() -> None:
    # Sites at 0.6 and 0.2: their mean is 0.4. Then at -0.5 and 0.1: -0.2.
    assert two_rounds(ServerOptimizerConfig(), 0.4, -0.2) == pytest.approx((1.4, 1.2), rel=1e-6)


def test_a_servers_learning_rate_scales_the_mean() -> None:
    assert two_rounds(ServerOptimizerConfig(learning_rate=0.5), 0.4, -0.2) == pytest.approx((1.2, 1.1), rel=1e-6)


def test_adam_over_two_rounds() -> None:
    # v starts at 0.1 ** 2 = 0.01.
    # 1: m = 0.5 * 0 + 0.5 * 0.4 = 0.2;  v = 0.75 * 0.01 + 0.25 * 0.16 = 0.0475
    # 2: m = 0.5 * 0.2 + 0.5 * 0.6 = 0.4;  v = 0.75 * 0.0475 + 0.25 * 0.36 = 0.125625
    first = 1.0 + 0.2 * 0.2 / (math.sqrt(0.0475) + 0.1)
    second = first + 0.2 * 0.4 / (math.sqrt(0.125625) + 0.1)
    assert (round(first, 4), round(second, 4)) == (1.1258, 1.3019)
    assert two_rounds(ServerOptimizerConfig(name="adam", **ADAPTIVE), 0.4, 0.6) == pytest.approx(
        (first, second), rel=1e-6
    )


def test_yogi_over_two_rounds() -> None:
    # 1: m = 0.2;  0.01 - 0.16 < 0, so v = 0.01 + 0.25 * 0.16 = 0.05
    # 2: m = 0.5 * 0.2 + 0.5 * 0.1 = 0.15;  0.05 - 0.01 > 0, so v = 0.05 - 0.25 * 0.01 = 0.0475
    first = 1.0 + 0.2 * 0.2 / (math.sqrt(0.05) + 0.1)
    second = first + 0.2 * 0.15 / (math.sqrt(0.0475) + 0.1)
    assert (round(first, 4), round(second, 4)) == (1.1236, 1.218)
    assert two_rounds(ServerOptimizerConfig(name="yogi", **ADAPTIVE), 0.4, 0.1) == pytest.approx(
        (first, second), rel=1e-6
    )


FINITE = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=8))
def test_averaging_with_learning_rate_1_is_the_bare_sum_to_the_last_bit(values: list[tuple[float, float]]) -> None:
    base, delta = (np.array(column, np.float32) for column in zip(*values, strict=True))
    model, moments = server_step({"w": base}, {"w": delta}, ServerOptimizerConfig(), None)
    assert model["w"].tobytes() == (base + delta).astype(np.float32).tobytes()
    assert moments is None


@given(st.lists(FINITE, min_size=1, max_size=8), st.sampled_from(["adam", "yogi"]))
def test_an_adaptive_server_stays_finite_and_its_second_moment_positive(deltas: list[float], name: str) -> None:
    config, model, moments = ServerOptimizerConfig(name=name, learning_rate=0.1), one(0.0), None
    for delta in deltas:
        model, moments = server_step(model, one(delta), config, moments)
        assert moments is not None
        assert moments.v["w"][0] > 0
        assert np.isfinite(model["w"]).all()


def test_moments_come_back_from_their_document_as_they_were() -> None:
    moments = Moments(m={"a": np.ones(2, np.float32), "v/b": np.zeros(1, np.float32)}, v={"a": np.zeros(2, np.float32)})
    again = Moments.from_arrays(moments.to_arrays())
    assert {name: array.tolist() for name, array in again.m.items()} == {"a": [1.0, 1.0], "v/b": [0.0]}
    assert {name: array.tolist() for name, array in again.v.items()} == {"a": [0.0, 0.0]}
