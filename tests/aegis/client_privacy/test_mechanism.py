"""The mechanism: how far one site can move the sum, how large the noise is, and what it is divided by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from scipy.stats import kstest

from aegis.client_privacy import ClientPrivacy, CohortSample, clipped_sum, noised_mean
from coreason_enclave.crypto.keystream import Keystream, noise_grid

Admitted = Callable[[dict[str, list[float]]], list[Any]]
LAYOUT = {"w": (3,), "b": (1,)}
MANY = 200_000


def stream(key: int = 1, **changes: Any) -> Keystream:
    names = {"job_digest": "00", "round_number": 1, "base_model_digest": "01", "dataset_digest": "02", **changes}
    return Keystream(bytes([key]) * 32, **names)


def draw(**changes: Any) -> CohortSample:
    names = {"job_digest": "ab" * 32, "round_number": 1, "number": 1, "base_model_digest": "cd" * 32, "population": 4}
    return CohortSample(**{**names, **changes})


# --- one site more or less ------------------------------------------------------------------------------------

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
UPDATE = st.fixed_dictionaries(
    {name: arrays_of.arrays(np.float32, shape, elements=FLOATS) for name, shape in LAYOUT.items()}
)


@given(others=st.lists(UPDATE, max_size=5), one=UPDATE, clip_norm=st.floats(1e-3, 1e3))
def test_one_site_moves_the_sum_by_at_most_the_clip_norm_whatever_it_sends(
    others: list[Any], one: Any, clip_norm: float
) -> None:
    without, with_it = clipped_sum(others, LAYOUT, clip_norm), clipped_sum([*others, one], LAYOUT, clip_norm)
    moved = math.sqrt(sum(float(np.square(with_it[name] - without[name]).sum()) for name in LAYOUT))
    assert moved <= clip_norm * (1 + 1e-9)


def test_an_update_within_the_norm_counts_as_it_is_and_a_longer_one_keeps_its_direction() -> None:
    """By hand: norm 0.3 stays; (3, 0, 0, 4) has norm 5 over both tensors and is scaled by a fifth of 2."""
    short = {"w": np.array([0.0, 0.3, 0.0], np.float32), "b": np.zeros(1, np.float32)}
    long = {"w": np.array([3.0, 0.0, 0.0], np.float32), "b": np.array([4.0], np.float32)}
    total = clipped_sum([short, long], LAYOUT, 2.0)
    assert total["w"] == pytest.approx([1.2, 0.3, 0.0])
    assert total["b"] == pytest.approx([1.6])


# --- the noise ------------------------------------------------------------------------------------------------


def fits(scale: float, deviation: float = 0.8) -> bool:
    released = noised_mean({"w": np.zeros(MANY)}, stream(), draw=1, deviation=deviation, expected_sites=4.0)["w"]
    return bool(kstest(released.astype(np.float64) * 4.0 / (deviation * scale), "norm").pvalue > 1e-4)


def test_the_noise_has_the_promised_scale_and_neither_half_of_it_nor_twice() -> None:
    assert fits(1.0)
    assert not fits(0.5)
    assert not fits(2.0)
    assert not fits(1.02)


def test_noised_sums_lie_on_the_public_grid_before_they_are_divided() -> None:
    released = noised_mean({"w": np.full(1000, 0.1)}, stream(), draw=1, deviation=0.8, expected_sites=1.0)["w"]
    on_grid = released.astype(np.float64) / noise_grid(0.8)
    assert np.array_equal(on_grid, np.rint(on_grid))


def test_every_tensor_and_every_draw_has_noise_of_its_own() -> None:
    zeros = {"a": np.zeros(MANY), "b": np.zeros(MANY)}
    one, two = (noised_mean(zeros, stream(), draw=n, deviation=1.0, expected_sites=1.0) for n in (1, 2))
    for first, second in ((one["a"], one["b"]), (one["a"], two["a"])):
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(MANY)


# --- what a round releases ------------------------------------------------------------------------------------


@pytest.fixture
def privacy(promises: Any) -> Any:
    job = promises.job(client={"noise_multiplier": 1e-4, "clip_norm": 1.0, "sample_rate": 0.5})
    with promises.kept(job) as kept:
        yield kept


def test_the_released_mean_is_the_clipped_sum_over_rate_times_population(
    privacy: ClientPrivacy, admitted: Admitted
) -> None:
    """By hand: (0.6, 0.8) of norm 1 stays, (0, 10) becomes (0, 1); their sum (0.6, 1.8) over 0.5 * 4 is (0.3, 0.9)."""
    combined = privacy.combine(draw(), admitted({"a": [0.6, 0.8], "b": [0.0, 10.0]}), {"w": (2,)})
    assert combined.delta["w"] == pytest.approx([0.3, 0.9], abs=3e-4)
    assert combined.used == ("a", "b")


@pytest.mark.parametrize("answered", [("a",), ("a", "b"), ("a", "b", "c")])
def test_whoever_is_silent_counts_as_zero_and_never_changes_the_denominator(
    privacy: ClientPrivacy, admitted: Admitted, answered: tuple[str, ...]
) -> None:
    combined = privacy.combine(draw(), admitted({site: [1.0, 0.0] for site in answered}), {"w": (2,)})
    assert combined.delta["w"] == pytest.approx([len(answered) / (0.5 * 4), 0.0], abs=3e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38], ids=str)
def test_what_cannot_be_counted_is_set_aside_and_counts_as_zero(
    privacy: ClientPrivacy, admitted: Admitted, bad: float
) -> None:
    combined = privacy.combine(draw(), admitted({"a": [1.0, 0.0], "b": [bad, 0.0]}), {"w": (2,)})
    assert combined.delta["w"] == pytest.approx([0.5, 0.0], abs=3e-4)
    assert list(combined.quarantined) == ["b"]


def test_nobody_at_all_gives_noise_of_the_same_scale(promises: Any) -> None:
    with promises.kept(promises.job()) as privacy:
        released = privacy.combine(draw(population=2), [], {"w": (MANY,)}).delta["w"]
    assert kstest(released.astype(np.float64) / 0.5, "norm").pvalue > 1e-4  # 1.0 * 0.5 over 0.5 * 2


def test_the_order_of_the_sites_does_not_matter_to_the_last_bit(privacy: ClientPrivacy, admitted: Admitted) -> None:
    updates = admitted({"a": [0.1, 0.7], "b": [0.3, -0.2], "c": [1e-7, 0.9]})
    one, other = (privacy.combine(draw(), each, {"w": (2,)}).delta["w"] for each in (updates, updates[::-1]))
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    "other",
    [{"a": [0.1, 0.2]}, {"b": [0.1, 0.1]}, {"a": [0.1, 0.1], "b": [0.0, 0.0]}],
    ids=["another update", "another site", "one site more"],
)
def test_other_updates_never_share_noise_and_the_same_ones_always_do(
    privacy: ClientPrivacy, admitted: Admitted, other: dict[str, list[float]]
) -> None:
    def noise(values: dict[str, list[float]]) -> np.ndarray[Any, Any]:
        """What was added, in units of its deviation."""
        released = privacy.combine(draw(), admitted(values), {"w": (2,)}).delta["w"].astype(np.float64)
        return (released * 2.0 - sum(np.array(each, np.float64) for each in values.values())) / 1e-4

    same = {"a": [0.1, 0.1]}
    assert np.array_equal(noise(same), noise(same))
    assert abs(noise(same) - noise(other)).max() > 0.01


@pytest.mark.parametrize(
    "changes",
    [{"round_number": 2}, {"number": 2}, {"base_model_digest": "ef" * 32}, {"job_digest": "ef" * 32}],
    ids=lambda changes: next(iter(changes)),
)
def test_other_rounds_draws_and_models_have_other_noise(
    privacy: ClientPrivacy, admitted: Admitted, changes: dict[str, Any]
) -> None:
    updates = admitted({"a": [0.1, 0.1]})
    one, other = (privacy.combine(each, updates, {"w": (2,)}).delta["w"] for each in (draw(), draw(**changes)))
    assert not np.array_equal(one, other)
