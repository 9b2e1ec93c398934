"""The federation's epsilon: the largest of the sites' under a claim that they are disjoint, else a composition."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegis.coordination.privacy_spend import across_sites, epsilon_so_far, federation_epsilon
from coreason_enclave.accounting import PoissonSampledGaussian, compose_epsilon
from tests.conftest import job

PRIVATE = job()
PUBLIC = job(
    privacy={"mechanism": "NON_PRIVATE", "target_epsilon": None, "noise_multiplier": None, "max_grad_norm": None}
)


def test_disjoint_sites_cost_a_person_what_the_dearest_site_costs() -> None:
    steps = {"a": 4, "b": 12}
    assert federation_epsilon(PRIVATE, steps, disjoint=True) == epsilon_so_far(PRIVATE, steps)["b"]


def test_other_sites_cost_a_person_the_mechanisms_of_all_of_them_together() -> None:
    """Composed one by one here, as a person at every site would be."""
    each = [PoissonSampledGaussian(2.0, 0.5, count) for count in (4, 12)]
    composed = federation_epsilon(PRIVATE, {"a": 4, "b": 12}, disjoint=False)
    assert composed == pytest.approx(compose_epsilon(each, 1e-5).epsilon, rel=1e-6)


@settings(max_examples=10, deadline=None)
@given(steps=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 20), min_size=1))
def test_a_claim_never_costs_more_and_one_site_alone_needs_none(steps: dict[str, int]) -> None:
    claimed = federation_epsilon(PRIVATE, steps, disjoint=True)
    composed = federation_epsilon(PRIVATE, steps, disjoint=False)
    assert claimed is not None
    assert composed is not None
    assert claimed <= composed
    assert (claimed == composed) == (len(steps) == 1)


def test_nothing_is_stated_where_nothing_is_promised_or_nothing_ran() -> None:
    assert federation_epsilon(PUBLIC, {"a": 0}, disjoint=True) is None
    assert federation_epsilon(PRIVATE, {}, disjoint=False) is None


def test_a_claim_is_told_with_whom_it_is_of() -> None:
    claimed, composed = (across_sites(PRIVATE, {"a": 4, "b": 4}, claim) for claim in ("the registry", None))
    assert (claimed["rule"], claimed["claimed_disjoint_by"]) == ("maximum over sites", "the registry")
    assert (composed["rule"], composed["claimed_disjoint_by"]) == ("composition over sites", None)
    assert claimed["delta"] == composed["delta"] == 1e-5
