from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from coreason_enclave.schemas import Aggregator

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ROBUST = [Aggregator.TRIMMED_MEAN, Aggregator.MEDIAN]


def _gaussian(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 6, 20, 51])
def test_mean_equals_numpy_in_float64_rounded_once(combine, updates_of, flat, count: int) -> None:
    rows = _gaussian(count, 3001)
    expected = rows.astype(np.float64).mean(axis=0).astype(np.float32)
    np.testing.assert_array_max_ulp(flat(combine(updates_of(rows), Aggregator.MEAN)), expected, maxulp=1)


@pytest.mark.parametrize(("count", "trimmed"), [(3, 1), (5, 1), (5, 2), (20, 2), (20, 9), (51, 7)])
def test_trimmed_mean_equals_scipy(combine, updates_of, flat, count: int, trimmed: int) -> None:
    rows = _gaussian(count, 3001)
    # Just above the quotient, because scipy rounds the number it trims down.
    expected = scipy.stats.trim_mean(rows.astype(np.float64), (trimmed + 1e-6) / count, axis=0)
    result = flat(combine(updates_of(rows), Aggregator.TRIMMED_MEAN, trimmed))
    np.testing.assert_allclose(result, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 20, 51])
def test_median_equals_numpy(combine, updates_of, flat, count: int) -> None:
    rows = _gaussian(count, 3001)
    expected = np.median(rows.astype(np.float64), axis=0).astype(np.float32)
    assert np.array_equal(flat(combine(updates_of(rows), Aggregator.MEDIAN)), expected)


def test_a_trimmed_mean_worked_by_hand(combine, updates_of, flat) -> None:
    rows = [[1, -9], [2, 4], [3, 5], [7, 6], [900, 7]]
    assert flat(combine(updates_of(rows), Aggregator.TRIMMED_MEAN, 1)).tolist() == [4.0, 5.0]


def test_trimming_nothing_is_the_mean_bit_for_bit(combine, updates_of, flat) -> None:
    updates = updates_of(_gaussian(9, 4099))
    trimmed, mean = combine(updates, Aggregator.TRIMMED_MEAN, 0), combine(updates, Aggregator.MEAN)
    assert flat(trimmed).tobytes() == flat(mean).tobytes()


def test_one_declared_attacker_means_at_least_one_trimmed_on_each_side(combine, updates_of, flat) -> None:
    rows = [[0, 0], [0, 0], [0, 0], [1e30, -1e30]]
    assert not flat(combine(updates_of(rows), Aggregator.TRIMMED_MEAN, 1)).any()


@pytest.mark.parametrize("rule", [Aggregator.MEAN, *ROBUST])
@given(row=hnp.arrays(np.float32, st.integers(2, 9), elements=FINITE), count=st.integers(1, 30))
def test_identical_updates_come_back_exactly(combine, updates_of, flat, rule, row, count) -> None:
    result = flat(combine(updates_of([row] * count), rule))
    assert np.array_equal(result, row)


@pytest.mark.parametrize("rule", ROBUST)
@given(data=st.data(), num_byzantine=st.integers(1, 4), spare=st.integers(1, 4))
def test_f_attackers_cannot_leave_the_honest_range_of_any_coordinate(
    combine, updates_of, flat, rule, data, num_byzantine, spare
) -> None:
    honest = data.draw(hnp.arrays(np.float32, (num_byzantine + spare, 3), elements=FINITE))
    hostile = data.draw(hnp.arrays(np.float32, (num_byzantine, 3), elements=FINITE))
    order = data.draw(st.permutations(range(2 * num_byzantine + spare)))
    result = flat(combine(updates_of(np.vstack([honest, hostile])[order]), rule, num_byzantine))
    assert (honest.min(axis=0) <= result).all()
    assert (result <= honest.max(axis=0)).all()


@pytest.mark.parametrize("rule", ROBUST)
def test_the_bound_is_sharp_one_attacker_more_takes_over(combine, updates_of, flat, rule) -> None:
    honest, hostile = [[1.0, 1.0]], [[1e6, 1e6]]
    held = flat(combine(updates_of(honest * 3 + hostile * 2), rule, 2))
    lost = flat(combine(updates_of(honest * 2 + hostile * 3), rule, 2))
    assert held.tolist() == [1.0, 1.0]
    assert lost.tolist() == [1e6, 1e6]


@pytest.mark.parametrize("rule", ROBUST)
@given(rows=hnp.arrays(np.float32, (7, 4), elements=FINITE), data=st.data())
def test_who_sent_which_update_does_not_matter(combine, updates_of, flat, rule, rows, data) -> None:
    shuffled = rows[data.draw(st.permutations(range(7)))]
    first, second = combine(updates_of(rows), rule, 2), combine(updates_of(shuffled), rule, 2)
    assert flat(first).tobytes() == flat(second).tobytes()


def test_the_mean_of_huge_values_does_not_overflow(combine, updates_of, flat) -> None:
    largest = np.finfo(np.float32).max
    assert flat(combine(updates_of([[largest, -largest]] * 7), Aggregator.MEAN)).tolist() == [
        largest,
        -largest,
    ]


def test_a_small_value_beside_huge_ones_that_cancel_is_not_lost(combine, updates_of, flat) -> None:
    rows = [[2.0**40, 0], [3.0, 0], [-(2.0**40), 0]]
    assert flat(combine(updates_of(rows), Aggregator.MEAN)).tolist() == [1.0, 0.0]
