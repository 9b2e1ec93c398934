from __future__ import annotations

import math

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.serverapp.strategy.multikrum import compute_distances, select_multikrum
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import cdist

from aegis.aggregation import columns
from aegis.aggregation.columns import Columns
from aegis.aggregation.krum import most_central, scores, squared_distances
from coreason_enclave.schemas import Aggregator

COORDINATE = st.floats(-1e6, 1e6, width=32)


def _columns(rows: np.ndarray) -> Columns:
    return Columns.of([{"w": row} for row in np.ascontiguousarray(rows, np.float32)], {"w": rows.shape[1:]})


def _gaussian(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def _flower_contents(rows: np.ndarray) -> list[RecordDict]:
    return [RecordDict({"arrays": ArrayRecord({"w": Array(row)})}) for row in rows.astype(np.float64)]


@pytest.mark.parametrize(("count", "width"), [(1, 10), (2, 10), (3, 1), (7, 20_011), (50, 9_999)])
def test_squared_distances_equal_scipy(count: int, width: int) -> None:
    rows = _gaussian(count, width)
    expected = cdist(rows.astype(np.float64), rows.astype(np.float64), "sqeuclidean")
    np.testing.assert_allclose(squared_distances(_columns(rows)), expected, rtol=1e-13)


def test_distances_have_the_same_bits_on_any_number_of_threads(monkeypatch) -> None:
    rows = _columns(_gaussian(12, 300_000))
    seen = set()
    for cores in (1, 2, 3, 16):
        monkeypatch.setattr(columns, "usable_cores", lambda cores=cores: cores)
        seen |= {squared_distances(rows).tobytes() for _ in range(3)}
    assert len(seen) == 1


def test_distances_have_the_same_bits_whoever_sent_what() -> None:
    rows, order = _gaussian(7, 9_999), np.random.default_rng(1).permutation(7)
    plain, shuffled = squared_distances(_columns(rows)), squared_distances(_columns(rows[order]))
    assert shuffled.tobytes() == np.ascontiguousarray(plain[np.ix_(order, order)]).tobytes()


def test_krum_scores_worked_by_hand() -> None:
    rows = np.array([[0.0], [1.0], [3.0], [6.0], [100.0]])
    # n = 5, f = 1: two nearest neighbours each.
    expected = [1 + 9, 1 + 4, 4 + 9, 9 + 25, 94**2 + 97**2]
    assert scores(squared_distances(_columns(rows)), 1).tolist() == expected


def test_krum_returns_the_selected_update_exactly(combine, updates_of, flat) -> None:
    rows = [[0.0, 0.1], [1.0, 0.1], [3.0, 0.1], [6.0, 0.1], [100.0, 0.1]]
    result = combine(updates_of(rows), Aggregator.KRUM, 1)
    assert result.used == ("site-001",)
    assert np.array_equal(flat(result), np.float32([1.0, 0.1]))


def test_multi_krum_averages_all_but_the_f_with_the_worst_scores(combine, updates_of, flat) -> None:
    rows = [[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [6.0, 0.0], [100.0, 0.0]]
    result = combine(updates_of(rows), Aggregator.MULTI_KRUM, 1)
    assert result.used == ("site-000", "site-001", "site-002", "site-003")
    assert flat(result).tolist() == [2.5, 0.0]


@pytest.mark.parametrize("seed", range(10))
def test_the_selection_is_that_of_flower_on_well_conditioned_float64_input(seed: int) -> None:
    count, num_byzantine = 11, 3
    rows = _gaussian(count, 500, seed)
    rows[:num_byzantine] *= 5
    contents = _flower_contents(rows)
    for keep in range(1, count - num_byzantine + 1):
        theirs = select_multikrum(contents, num_byzantine, keep)
        expected = {next(i for i, content in enumerate(contents) if content is chosen) for chosen in theirs}
        assert set(most_central(_columns(rows), num_byzantine, keep)) == expected


def test_small_updates_on_a_large_common_offset_do_not_hide_the_attacker() -> None:
    honest = 1000 + 1e-3 * _gaussian(8, 2_000)
    attacker = honest.mean(axis=0, keepdims=True) + 0.05
    rows = np.vstack([honest, attacker]).astype(np.float32)
    true = cdist(rows.astype(np.float64), rows.astype(np.float64), "sqeuclidean")
    np.testing.assert_allclose(squared_distances(_columns(rows)), true, rtol=1e-12)
    assert scores(squared_distances(_columns(rows)), 1).argmax() == 8

    gram_in_float32 = compute_distances([ArrayRecord({"w": Array(row)}) for row in rows])
    assert (gram_in_float32 < 0).any(), "the formula that cancels should have failed on this input"


@given(
    spread=st.floats(1e-3, 1e3),
    hostile=hnp.arrays(np.float32, (2, 4), elements=COORDINATE),
    seed=st.integers(0, 1000),
)
def test_wherever_f_attackers_are_every_selected_update_is_near_an_honest_one(spread, hostile, seed) -> None:
    count, num_byzantine = 7, 2
    honest = _gaussian(count - num_byzantine, 4, seed) * np.float32(spread)
    rows = np.vstack([hostile, honest])
    chosen = list(most_central(_columns(rows), num_byzantine, count - num_byzantine))
    apart = cdist(honest.astype(np.float64), honest.astype(np.float64)).max()
    nearest_honest = cdist(rows[chosen].astype(np.float64), honest.astype(np.float64)).min(axis=1).max()
    # An honest score is at most (n-f-2) apart², and of an attacker's neighbours n-2f-1 at least are honest.
    bound = math.sqrt((count - num_byzantine - 2) / (count - 2 * num_byzantine - 1)) * apart
    assert nearest_honest <= bound * (1 + 1e-9)


@pytest.mark.parametrize("rule", [Aggregator.KRUM, Aggregator.MULTI_KRUM])
@pytest.mark.parametrize("num_byzantine", [1, 2, 5])
def test_with_the_fewest_updates_allowed_f_colluding_attackers_are_never_used(
    combine, updates_of, rule, num_byzantine
) -> None:
    honest = _gaussian(num_byzantine + 3, 40)
    hostile = np.full((num_byzantine, 40), 50.0)
    result = combine(updates_of(np.vstack([hostile, honest])), rule, num_byzantine)
    attackers = {f"site-{i:03}" for i in range(num_byzantine)}
    assert result.used
    assert not attackers & set(result.used)


def test_the_bound_is_sharp_one_colluder_more_is_selected_beyond_it() -> None:
    corners = 10 * np.eye(5)  # honest updates, each `apart` from every other
    apart = 10 * math.sqrt(2)
    away = corners[0] + np.array([1.25 * apart, 0, 0, 0, 0])
    held = most_central(_columns(np.vstack([corners[:4], away])), 1, 1)
    lost = most_central(_columns(np.vstack([corners[:3], away, away])), 1, 1)
    assert held[0] < 4
    assert lost[0] >= 3


@given(rows=hnp.arrays(np.float32, (7, 3), elements=st.sampled_from([-1.0, 0.0, 0.5, 1.0])), data=st.data())
def test_ties_are_broken_by_content_so_who_sent_an_update_does_not_matter(
    combine, updates_of, flat, rows, data
) -> None:
    shuffled = rows[data.draw(st.permutations(range(7)))]
    first = combine(updates_of(rows), Aggregator.KRUM, 2)
    second = combine(updates_of(shuffled), Aggregator.KRUM, 2)
    assert flat(first).tobytes() == flat(second).tobytes()


def test_identical_updates_come_back_exactly_from_the_site_that_sorts_first(combine, updates_of, flat) -> None:
    row = np.float32([0.1, -3.25, 7e-30])
    result = combine(updates_of([row] * 5), Aggregator.KRUM, 1)
    assert np.array_equal(flat(result), row)
    assert result.used == ("site-000",)
