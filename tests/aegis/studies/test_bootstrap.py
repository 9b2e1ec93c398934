"""Bootstrap intervals: against scipy for rows, and whole groups for related rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from aegis.studies.bootstrap import intervals


def _mae(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {"mae": float(np.abs(predicted - labels).mean())}


def test_intervals_over_rows_equal_those_of_scipy() -> None:
    chance = np.random.default_rng(5)
    predicted, labels = chance.normal(size=60), chance.normal(size=60)
    expected = stats.bootstrap(
        (predicted, labels),
        lambda p, y, axis: np.abs(p - y).mean(axis=axis),
        paired=True,
        n_resamples=400,
        method="percentile",
        rng=np.random.default_rng(11),
    ).confidence_interval

    found = intervals(_mae, predicted, labels, None, 400, np.random.default_rng(11))["mae"]

    assert found == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_repeating_every_row_within_its_group_does_not_narrow_the_interval() -> None:
    chance = np.random.default_rng(6)
    predicted, labels = chance.normal(size=40), chance.normal(size=40)
    once = intervals(_mae, predicted, labels, np.arange(40), 300, np.random.default_rng(1))
    tenfold = intervals(
        _mae,
        np.repeat(predicted, 10),
        np.repeat(labels, 10),
        np.repeat(np.arange(40), 10),
        300,
        np.random.default_rng(1),
    )
    assert tenfold["mae"] == pytest.approx(once["mae"])


def test_order_of_rows_and_names_of_groups_do_not_matter() -> None:
    predicted, labels, groups = np.arange(12.0), np.zeros(12), np.arange(12) // 3
    back = intervals(_mae, predicted[::-1], labels, groups[::-1] * 7 + 100, 100, np.random.default_rng(2))
    assert back == intervals(_mae, predicted, labels, groups, 100, np.random.default_rng(2))


def test_one_group_has_no_interval() -> None:
    assert intervals(_mae, np.ones(4), np.zeros(4), np.zeros(4, np.int64), 50, np.random.default_rng(0)) == {}


def test_measure_that_most_resamples_do_not_define_has_no_interval() -> None:
    def rare(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return {"rare": 1.0} if len(np.unique(predicted)) == len(predicted) else {}

    assert intervals(rare, np.arange(30.0), np.zeros(30), None, 100, np.random.default_rng(0)) == {}
