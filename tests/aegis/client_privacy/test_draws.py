"""The draw of sites: each by a coin of its own, at the promised rate, from a key that nobody else has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency

from aegis.client_privacy import CohortSample, sampled_sites
from aegis.client_privacy.cohort_sampling import sampling_keystream

SITES = [f"site-{number:03d}" for number in range(300)]
ROUNDS = 60


def draw(round_number: int, **changes: Any) -> CohortSample:
    names = {"job_digest": "ab" * 32, "number": 1, "base_model_digest": "cd" * 32, "population": 300, **changes}
    return CohortSample(round_number=round_number, **names)


def drawn(which: CohortSample, sites: list[str] = SITES, *, rate: float = 0.3, key: int = 1) -> tuple[str, ...]:
    return sampled_sites(sites, which, sample_rate=rate, keystream=sampling_keystream(bytes([key]) * 32, which))


@pytest.fixture(scope="module")
def coins() -> np.ndarray[Any, np.dtype[np.bool_]]:
    """One row a round, one column a site."""
    return np.array([[site in chosen for site in SITES] for chosen in (set(drawn(draw(n))) for n in range(1, 61))])


def test_sites_are_drawn_at_the_promised_rate_and_not_at_half_of_it_or_twice(coins: Any) -> None:
    hits = int(coins.sum())
    assert binomtest(hits, coins.size, 0.3).pvalue > 1e-4
    assert binomtest(hits, coins.size, 0.15).pvalue < 1e-4
    assert binomtest(hits, coins.size, 0.6).pvalue < 1e-4


def test_the_number_drawn_varies_as_independent_coins_make_it(coins: Any) -> None:
    """A cohort of fixed size would vary by nothing: accounting it as Poisson would be wrong."""
    variance, expected = float(coins.sum(axis=1).var(ddof=1)), 300 * 0.3 * 0.7
    assert 0.4 * expected < variance < 2.0 * expected


def test_a_sites_coins_are_independent_over_rounds(coins: Any) -> None:
    before, after = coins[:-1].ravel(), coins[1:].ravel()
    table = [[int((before & after).sum()), int((before & ~after).sum())]]
    table += [[int((~before & after).sum()), int((~before & ~after).sum())]]
    assert chi2_contingency(table).pvalue > 1e-4


def test_sites_coins_are_independent_of_each_other(coins: Any) -> None:
    spread = np.corrcoef(coins.T.astype(float))[np.triu_indices(len(SITES), 1)]
    assert abs(spread.mean()) < 5 / math.sqrt(len(spread) * ROUNDS)


def test_a_site_that_comes_or_goes_changes_nobody_elses_coin() -> None:
    everybody = drawn(draw(1))
    some = SITES[::3]
    assert drawn(draw(1), some) == tuple(site for site in everybody if site in some)


@pytest.mark.parametrize("sites", [SITES[::-1], [*SITES, *SITES]], ids=["reversed", "twice"])
def test_the_order_and_repetition_of_names_does_not_matter(sites: list[str]) -> None:
    assert drawn(draw(1), sites) == drawn(draw(1))


@pytest.mark.parametrize(
    "other",
    [draw(2), draw(1, number=2), draw(1, base_model_digest="ef" * 32), draw(1, job_digest="ef" * 32)],
    ids=["round", "draw", "base model", "job"],
)
def test_another_round_draw_model_or_job_is_drawn_anew(other: CohortSample) -> None:
    assert drawn(other) != drawn(draw(1))


def test_nobody_can_tell_the_draw_without_the_key() -> None:
    assert drawn(draw(1), key=2) != drawn(draw(1))


def test_a_rate_of_one_draws_everybody() -> None:
    assert drawn(draw(1), rate=1.0) == tuple(SITES)
