from __future__ import annotations

import itertools

import numpy as np
import pytest

from aegis.aggregation.networks import comparators


def _run(network: np.ndarray, values: np.ndarray) -> np.ndarray:
    for first, second in network:
        low, high = np.minimum(values[first], values[second]), np.maximum(values[first], values[second])
        values[first], values[second] = low, high
    return values


@pytest.mark.parametrize("count", range(1, 13))
def test_a_network_sorts_every_sequence_of_zeros_and_ones_and_therefore_everything(count: int) -> None:
    # Knuth, TAOCP 3, section 5.3.4, theorem Z.
    every_input = np.array(list(itertools.product((0, 1), repeat=count))).T.copy()
    expected = np.sort(every_input, axis=0)
    assert np.array_equal(_run(comparators(count, 0, count), every_input), expected)


@pytest.mark.parametrize("count", [5, 8, 11])
def test_leaving_out_comparators_does_not_change_the_positions_that_are_kept(count: int) -> None:
    for low, high in itertools.combinations(range(count + 1), 2):
        every_input = np.array(list(itertools.product((0, 1), repeat=count))).T.copy()
        expected = np.sort(every_input, axis=0)[low:high]
        assert np.array_equal(_run(comparators(count, low, high), every_input)[low:high], expected)


def test_a_median_needs_fewer_comparators_than_a_sort() -> None:
    assert len(comparators(20, 9, 11)) < len(comparators(20, 0, 20))


def test_large_networks_sort_too() -> None:
    values = np.random.default_rng(7).permutation(1000)
    assert np.array_equal(_run(comparators(1000, 0, 1000), values), np.arange(1000))
