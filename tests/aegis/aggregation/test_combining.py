from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegis.aggregation import Contribution, Quarantine, aggregate, columns, updates_needed
from aegis.errors import InvalidAggregation, TooFewUpdates
from coreason_enclave.schemas import Aggregator

TOLERATED = {rule: 0 if rule is Aggregator.MEAN else 2 for rule in Aggregator}
WIDE = 300_000  # enough values for several blocks, partial sums and threads


def _gaussian(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


NEEDED = {
    "krum without attackers": (Aggregator.KRUM, 0, 3),
    "krum with one": (Aggregator.KRUM, 1, 5),
    "krum with four": (Aggregator.KRUM, 4, 11),
    "multi-krum with one": (Aggregator.MULTI_KRUM, 1, 5),
    "trimmed mean without attackers": (Aggregator.TRIMMED_MEAN, 0, 1),
    "trimmed mean with one": (Aggregator.TRIMMED_MEAN, 1, 3),
    "median with three": (Aggregator.MEDIAN, 3, 7),
    "mean": (Aggregator.MEAN, 0, 1),
}


@pytest.mark.parametrize(("rule", "num_byzantine", "needed"), NEEDED.values(), ids=NEEDED.keys())
def test_a_rule_works_with_the_fewest_updates_it_needs_and_refuses_one_less(
    combine, updates_of, rule, num_byzantine, needed
) -> None:
    updates = updates_of(_gaussian(needed, 4))
    assert updates_needed(rule, num_byzantine) == needed
    assert combine(updates, rule, num_byzantine).rule is rule
    if needed == 1:
        return
    with pytest.raises(TooFewUpdates, match=f"needs at least {needed} admitted updates, got {needed - 1}"):
        combine(updates[1:], rule, num_byzantine)


@pytest.mark.parametrize("rule", Aggregator)
def test_no_updates_at_all_is_a_refusal(rule) -> None:
    with pytest.raises(TooFewUpdates):
        aggregate([], rule=rule, num_byzantine=0, layout={"w": (1,)}, max_norm=1.0)


def test_updates_are_counted_after_screening(combine, updates_of) -> None:
    poisoned = _gaussian(5, 4)
    poisoned[3, 2] = np.nan
    with pytest.raises(TooFewUpdates, match=r"site-003 \(non_finite\)") as refusal:
        combine(updates_of(poisoned), Aggregator.KRUM, 1)
    assert (refusal.value.needed, refusal.value.admitted) == (5, 4)
    assert dict(refusal.value.quarantined) == {"site-003": Quarantine.NON_FINITE}


WRONG_REQUESTS: dict[str, dict[str, Any]] = {
    "a negative number of attackers": {"num_byzantine": -1},
    "half an attacker": {"num_byzantine": 0.5},
    "an attacker of True": {"num_byzantine": True},
    "a mean that shall withstand attackers": {"rule": Aggregator.MEAN, "num_byzantine": 1},
    "an unknown rule": {"rule": "best_effort"},
    "no rule": {"rule": None},
    "a cap of zero": {"rule": Aggregator.MEAN, "weight_cap": 0},
    "a cap that is no whole number": {"rule": Aggregator.MEAN, "weight_cap": 10.5},
    "weights for a rule that counts sites": {"rule": Aggregator.MEDIAN, "weight_cap": 10},
}


@pytest.mark.parametrize("wrong", WRONG_REQUESTS.values(), ids=WRONG_REQUESTS.keys())
def test_a_request_that_makes_no_sense_is_refused(combine, updates_of, wrong) -> None:
    request = {"rule": Aggregator.TRIMMED_MEAN, "num_byzantine": 0} | wrong
    with pytest.raises(InvalidAggregation):
        combine(updates_of(_gaussian(5, 4)), **request)


@pytest.mark.parametrize("rule", Aggregator)
@given(order=st.permutations(range(7)), seed=st.integers(0, 99))
def test_the_order_of_arrival_does_not_change_a_bit(combine, updates_of, flat, rule, order, seed) -> None:
    updates = updates_of(_gaussian(7, 50, seed) * np.float32(10.0) ** (seed % 30 - 15))
    first = combine(updates, rule, TOLERATED[rule])
    second = combine([updates[i] for i in order], rule, TOLERATED[rule])
    assert flat(first).tobytes() == flat(second).tobytes()
    assert first.used == second.used


@pytest.mark.parametrize("rule", Aggregator)
def test_the_number_of_threads_does_not_change_a_bit(combine, updates_of, flat, rule, monkeypatch) -> None:
    updates = updates_of(_gaussian(9, WIDE))
    seen = set()
    for cores in (1, 2, 3, 16):
        monkeypatch.setattr(columns, "usable_cores", lambda cores=cores: cores)
        seen.add(flat(combine(updates, rule, TOLERATED[rule])).tobytes())
    assert len(seen) == 1


@pytest.mark.parametrize("rule", Aggregator)
def test_concurrent_callers_do_not_disturb_each_other(combine, updates_of, flat, rule) -> None:
    rounds = [updates_of(_gaussian(7, 60_000, seed)) for seed in range(4)]
    alone = [flat(combine(updates, rule, TOLERATED[rule])).tobytes() for updates in rounds]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda u: flat(combine(u, rule, TOLERATED[rule])).tobytes(), rounds))
    assert together == alone


@pytest.mark.parametrize("rule", Aggregator)
def test_blocks_and_tensors_are_seams_that_do_not_show(combine, updates_of, flat, rule) -> None:
    rows = _gaussian(7, WIDE)
    whole = flat(combine(updates_of(rows), rule, TOLERATED[rule]))
    cuts = [0, 1, 2, 1000, 6399, 6400, 6401, 123_456, WIDE]
    names = [f"t{9 - i}" for i in range(len(cuts) - 1)]  # sorted by name, the tensors come in another order
    pieces = [
        Contribution(f"s{i}", {n: row[a:b] for n, (a, b) in zip(names, itertools.pairwise(cuts), strict=True)})
        for i, row in enumerate(rows)
    ]
    result = combine(pieces, rule, TOLERATED[rule])
    assert list(result.delta) == names
    assert np.concatenate([result.delta[name] for name in names]).tobytes() == whole.tobytes()


@pytest.mark.parametrize("rule", Aggregator)
def test_the_inputs_stay_as_they_were_and_the_result_is_the_callers_own(combine, updates_of, rule) -> None:
    updates = updates_of(_gaussian(7, 50))
    before = [{name: array.copy() for name, array in update.arrays.items()} for update in updates]
    result = combine(updates, rule, TOLERATED[rule])
    for array in result.delta.values():
        array += 1
    for update, copies in zip(updates, before, strict=True):
        assert all(np.array_equal(update.arrays[name], copy) for name, copy in copies.items())


@pytest.mark.parametrize("rule", Aggregator)
def test_results_have_the_names_shapes_and_dtype_of_the_layout(combine, rule) -> None:
    layout = {"z.weight": (3, 2), "a.scale": (), "m.empty": (0, 4)}
    updates = [Contribution(f"s{i}", {n: np.full(s, 0.5, np.float32) for n, s in layout.items()}) for i in range(7)]
    result = combine(updates, rule, TOLERATED[rule], layout=layout)
    assert {name: array.shape for name, array in result.delta.items()} == layout
    assert list(result.delta) == list(layout)
    assert {array.dtype for array in result.delta.values()} == {np.dtype(np.float32)}


def test_weights_are_what_sites_report_up_to_the_cap(combine, flat) -> None:
    updates = [
        Contribution("a", {"bias": np.float32([0.0]), "weight": np.float32([1.0])}, num_examples=10),
        Contribution("b", {"bias": np.float32([1.0]), "weight": np.float32([1.0])}, num_examples=10**12),
    ]
    assert flat(combine(updates, Aggregator.MEAN, weight_cap=30)).tolist() == [0.75, 1.0]
    assert flat(combine(updates, Aggregator.MEAN)).tolist() == [0.5, 1.0]


def test_a_site_without_a_number_of_examples_is_set_aside_where_weights_are_used(combine, flat) -> None:
    updates = [
        Contribution("a", {"bias": np.float32([0.0]), "weight": np.float32([1.0])}, num_examples=10),
        Contribution("b", {"bias": np.float32([1.0]), "weight": np.float32([1.0])}),
    ]
    result = combine(updates, Aggregator.MEAN, weight_cap=30)
    assert result.used == ("a",)
    assert dict(result.quarantined) == {"b": Quarantine.NO_WEIGHT}


@settings(max_examples=25)
@given(scale=st.floats(0.1, 1e30), rule=st.sampled_from([r for r in Aggregator if r is not Aggregator.MEAN]))
def test_one_attacker_of_six_cannot_carry_a_robust_round_away(combine, updates_of, flat, rule, scale) -> None:
    rows = 1 + 0.01 * _gaussian(6, 20)
    rows[4] = np.float32(-scale) * rows[4]
    result = flat(combine(updates_of(rows), rule, 1))
    assert math.dist(result, np.ones(20)) < 0.1
