"""Plans: the seed's own job, the changes that make it fit, and what each site would say."""

from __future__ import annotations

import pytest

from aegis.aggregation.combining import updates_needed
from aegis.studies import Study, forecast, forecast_aggregators, forecast_privacy
from coreason_enclave.accounting.composition import compose_epsilon
from coreason_enclave.accounting.events import PoissonSampledGaussian
from coreason_enclave.schemas import Aggregator, FederationJob

SEED = FederationJob.model_validate(
    {
        "job_id": "liver-toxicity-study-001",
        "min_clients": 3,
        "rounds": 50,
        "strategy": "FED_PROX",
        "privacy": {
            "mechanism": "DP_SGD",
            "target_epsilon": 3.0,
            "noise_multiplier": 1.0,
            "max_grad_norm": 1.0,
            "delta": 1e-5,
        },
        "dataset_id": "secure/data/liver_scans_v1",
        "model_arch": "SimpleMLP",
    }
)


def _epsilon(**changed: float) -> float:
    values = {"privacy.noise_multiplier": 1.0, "privacy.sample_rate": 0.05, "rounds": 50, "local_steps": 10, **changed}
    steps = int(values["rounds"] * values["local_steps"])
    event = PoissonSampledGaussian(values["privacy.noise_multiplier"], values["privacy.sample_rate"], steps)
    return compose_epsilon([event], 1e-5).epsilon


def test_each_change_named_for_the_seeds_own_job_makes_it_fit() -> None:
    found = forecast_privacy(SEED)
    assert found is not None
    assert not found.fits
    assert found.epsilon == pytest.approx(_epsilon())
    assert found.rdp_epsilon >= found.epsilon
    changes = {change.entry: change.value for change in found.changes}
    assert changes.keys() == {
        *("privacy.noise_multiplier", "rounds", "local_steps", "privacy.sample_rate", "privacy.target_epsilon")
    }
    assert changes.pop("privacy.target_epsilon") >= _epsilon()
    for entry, value in changes.items():
        assert _epsilon(**{entry: value}) <= 3.0, entry


def test_changes_are_no_stricter_than_the_budget_demands() -> None:
    found = forecast_privacy(SEED)
    assert found is not None
    changes = {change.entry: change.value for change in found.changes}
    assert _epsilon(**{"privacy.noise_multiplier": changes["privacy.noise_multiplier"] * 0.99}) > 3.0
    assert _epsilon(**{"privacy.sample_rate": changes["privacy.sample_rate"] * 1.02}) > 3.0
    assert _epsilon(rounds=changes["rounds"] + 1) > 3.0
    assert changes["privacy.target_epsilon"] < _epsilon() * 1.01


@pytest.mark.parametrize("updates", range(1, 12))
def test_largest_number_of_hostile_sites_is_the_last_that_the_rule_withstands(updates: int) -> None:
    for each in forecast_aggregators(updates):
        rule = Aggregator(each.rule)
        if each.num_byzantine is None:
            assert updates_needed(rule, 0) > updates
        else:
            assert updates_needed(rule, each.num_byzantine) <= updates
            assert rule is Aggregator.MEAN or updates_needed(rule, each.num_byzantine + 1) > updates


def test_plan_of_a_job_that_fits_says_that_every_site_accepts(small_study: Study) -> None:
    found = forecast(small_study.job(), small_study.federation())
    assert found.refusals == ()
    assert {site.answer for site in found.sites} == {"accepts"}
    assert found.time is not None
    assert found.time.total_s["flower"] > found.time.total_s["in-process"] > 0
    assert found.noise is not None
    assert found.noise.averaged_noise == pytest.approx(found.noise.site_noise / 2**0.5)


def test_plan_spends_nothing(small_study: Study) -> None:
    ledgers = [path.read_bytes() for path in sorted(small_study.path.glob("sites/*/ledger.sqlite"))]
    forecast(small_study.job(), small_study.federation(), timed=False)
    assert [path.read_bytes() for path in sorted(small_study.path.glob("sites/*/ledger.sqlite"))] == ledgers


def test_site_whose_policy_refuses_is_named_with_the_line_of_its_policy(small_study: Study) -> None:
    found = forecast(small_study.job(["max_update_norm=900"]), small_study.federation(), timed=False)
    assert {(site.site, site.answer) for site in found.sites} == {("north", "refuses"), ("south", "refuses")}
    assert "max_update_norm is 150" in found.sites[0].reason
    assert found.refusals


def test_remote_site_is_not_known_here(small_study: Study) -> None:
    (small_study.path / "sites" / "south" / "site.toml").unlink()
    found = forecast(small_study.job(), small_study.federation(), timed=False)
    assert [site.answer for site in found.sites] == ["accepts", "not known here"]


def test_aggregator_beyond_the_cohort_is_refused(small_study: Study) -> None:
    job = small_study.job(["aggregator=trimmed_mean", "num_byzantine=1"])
    found = forecast(job, small_study.federation(), timed=False)
    assert found.refusals == ("trimmed_mean with num_byzantine 1 needs 3 updates, and the federation has 2 sites",)
