from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.coordination.cohort import choose_cohort, require_enough
from aegis.errors import InvalidJob

SITES = [f"site-{number:02}" for number in range(12)]
site_sets = st.sets(st.sampled_from(SITES), min_size=2)


def lot_by_hand(job_digest: str, round_number: int, site: str) -> bytes:
    parts = [b"aegis/cohort/v1", bytes.fromhex(job_digest), round_number.to_bytes(8, "big"), site.encode()]
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()


@given(sites=site_sets, round_number=st.integers(1, 1000))
def test_without_a_cohort_size_every_site_is_asked(job_with: Any, sites: set[str], round_number: int) -> None:
    assert choose_cohort(sites, job_with(), round_number) == tuple(sorted(sites))


@given(sites=site_sets, size=st.integers(2, 15), round_number=st.integers(1, 1000))
def test_a_cohort_has_the_size_asked_for_and_only_registered_sites(
    job_with: Any, sites: set[str], size: int, round_number: int
) -> None:
    cohort = choose_cohort(sites, job_with(cohort_size=size), round_number)

    assert len(cohort) == len(set(cohort)) == min(size, len(sites))
    assert set(cohort) <= sites
    assert list(cohort) == sorted(cohort)


@given(sites=st.permutations(SITES), round_number=st.integers(1, 1000))
def test_the_order_in_which_sites_registered_steers_nothing(job_with: Any, sites: list[str], round_number: int) -> None:
    job = job_with(cohort_size=4)

    assert choose_cohort(sites, job, round_number) == choose_cohort(SITES, job, round_number)


@given(round_number=st.integers(1, 1000), size=st.integers(2, 11))
def test_anybody_can_compute_the_lots_again(job_with: Any, round_number: int, size: int) -> None:
    job = job_with(cohort_size=size)
    lots = sorted(SITES, key=lambda site: lot_by_hand(job.digest(), round_number, site))

    assert choose_cohort(SITES, job, round_number) == tuple(sorted(lots[:size]))


@given(sites=site_sets, round_number=st.integers(1, 1000))
def test_a_site_that_leaves_changes_nothing_for_those_drawn_beside_it(
    job_with: Any, sites: set[str], round_number: int
) -> None:
    """Nobody's lot depends on who else takes part, so nobody can be pushed out by inventing lots for others."""
    job = job_with(cohort_size=2)
    drawn = choose_cohort(sites, job, round_number)
    stayed = choose_cohort(set(drawn), job, round_number)

    assert stayed == drawn


def test_over_many_rounds_every_site_gets_its_turn(job_with: Any) -> None:
    job = job_with(cohort_size=3)
    turns = Counter(site for number in range(1, 401) for site in choose_cohort(SITES, job, number))

    assert set(turns) == set(SITES)
    assert all(60 < count < 140 for count in turns.values()), turns  # 100 expected, standard deviation 8.7


def test_another_job_draws_other_lots(job_with: Any) -> None:
    one, other = job_with(cohort_size=3), job_with(cohort_size=3, job_id="study-2")

    assert any(choose_cohort(SITES, one, n) != choose_cohort(SITES, other, n) for n in range(1, 6))


def test_fewer_sites_than_min_clients_are_refused_before_anybody_is_asked(job_with: Any) -> None:
    with pytest.raises(InvalidJob, match="min_clients = 3 sites, but the federation has 2"):
        require_enough(["a", "b", "b"], job_with(min_clients=3))
    require_enough(["a", "b", "c"], job_with(min_clients=3))
