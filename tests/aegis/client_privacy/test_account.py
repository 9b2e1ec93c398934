"""The coordinator's own account: charged before a draw, for every release, over all jobs, and within caps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dp_accounting import GaussianDpEvent, NeighboringRelation, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant

from aegis.client_privacy import LINEAGE, ClientPrivacy, CohortSample, ReleasedOtherwise
from aegis.errors import InvalidJob
from coreason_enclave.accounting import ClientGuarantee
from coreason_enclave.errors import PrivacyBudgetExceededError
from coreason_enclave.ledger import LineageCaps, NoiseSource, verify_export
from coreason_enclave.schemas import FederationJob, PrivacyUnit
from tests.aegis.client_privacy.conftest import CAPS

BASE, MODEL, OTHER = "cd" * 32, "aa" * 32, "bb" * 32


def draw(job: FederationJob, round_number: int = 1, **changes: Any) -> CohortSample:
    names = {"number": 1, "base_model_digest": BASE, "population": 3, **changes}
    return CohortSample(job_digest=job.digest(), round_number=round_number, **names)


def entries(privacy: ClientPrivacy, kind: str) -> list[dict[str, Any]]:
    export = privacy.ledger.export()
    verify_export(export)
    parsed = [json.loads(row["payload"]) for row in json.loads(export)["entries"]]
    return [entry for entry in parsed if entry["type"] == kind]


def spend(privacy: ClientPrivacy, job: FederationJob, rounds: int) -> None:
    for number in range(1, rounds + 1):
        privacy.commit(privacy.reserve(draw(job, number)), MODEL)


# --- what is accounted ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 5, 20])
def test_the_guarantee_is_what_an_independent_accountant_composes(promises: Any, rounds: int) -> None:
    job = promises.job(rounds=20, client={"target_epsilon": 39.0, "noise_multiplier": 1.5, "sample_rate": 0.4})
    accountant = PLDAccountant(neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(SelfComposedDpEvent(PoissonSampledDpEvent(0.4, GaussianDpEvent(1.5)), rounds))
    with promises.kept(job) as privacy:
        spend(privacy, job, rounds)
        guarantee = privacy.guarantee()
    assert guarantee is not None
    assert guarantee.epsilon == pytest.approx(accountant.get_epsilon(1e-3), rel=2e-3)


def test_it_names_its_unit_sampling_and_accountant_and_is_no_local_guarantee(promises: Any) -> None:
    job = promises.job()
    with promises.kept(job) as privacy:
        spend(privacy, job, 1)
        guarantee = privacy.guarantee()
    assert isinstance(guarantee, ClientGuarantee)
    assert (guarantee.unit, guarantee.sampling, guarantee.delta) == (PrivacyUnit.CLIENT, "poisson", 1e-3)


def test_the_registered_lineage_is_the_federations_sites(promises: Any) -> None:
    job = promises.job()
    with promises.kept(job) as privacy:
        privacy.reserve(draw(job))
        registration = privacy.ledger.registration(LINEAGE)
    assert (registration.unit, registration.nominal_units, registration.public) == (PrivacyUnit.CLIENT, 3, False)
    assert registration.caps == CAPS


def test_an_injected_key_is_recorded_as_unsafe(promises: Any) -> None:
    with promises.kept(promises.job()) as privacy:
        privacy.reserve(draw(privacy.job))
        claim = privacy.account.claim()
    assert claim is not None
    assert claim.noise_sources == (NoiseSource.UNSAFE_SEEDED,)


# --- charged once, and for each release -----------------------------------------------------------------------


def test_a_round_is_charged_before_its_sites_are_drawn(promises: Any) -> None:
    with promises.kept(promises.job()) as privacy:
        privacy.draw_sites(draw(privacy.job), ["a", "b", "c"])  # nobody reserved it
        assert [entry["plan"]["round_number"] for entry in entries(privacy, "reserved")] == [1]


def test_the_same_draw_is_charged_once_however_often_it_is_made(promises: Any) -> None:
    with promises.kept(promises.job()) as privacy:
        for _ in range(3):
            assert privacy.reserve(draw(privacy.job)).number == 1
            privacy.commit(draw(privacy.job), MODEL)
        assert len(entries(privacy, "reserved")) == len(entries(privacy, "committed")) == 1


def test_a_draw_that_gave_one_model_never_gives_another(promises: Any) -> None:
    with promises.kept(promises.job()) as privacy:
        privacy.commit(privacy.reserve(draw(privacy.job)), MODEL)
        before = privacy.ledger.head()
        with pytest.raises(ReleasedOtherwise):
            privacy.commit(draw(privacy.job), OTHER)
        assert privacy.ledger.head() == before


def test_a_round_from_another_base_model_is_another_draw_and_charged_again(promises: Any) -> None:
    """A second run folder of one job, whose first round went otherwise."""
    with promises.kept(promises.job(rounds=3)) as privacy:
        privacy.reserve(draw(privacy.job, 2))
        again = privacy.reserve(draw(privacy.job, 2, base_model_digest=OTHER))
        assert again.number == 2
        assert [entry["plan"]["round_number"] for entry in entries(privacy, "reserved")] == [2, 5]
        assert privacy.reserve(draw(privacy.job, 2, base_model_digest=OTHER)).number == 2


def test_a_job_never_draws_more_often_than_it_has_rounds(promises: Any) -> None:
    with promises.kept(promises.job(rounds=2)) as privacy:
        spend(privacy, privacy.job, 2)
        with pytest.raises(PrivacyBudgetExceededError, match="2 steps in all"):
            privacy.reserve(draw(privacy.job, 1, base_model_digest=OTHER))


# --- what is refused, and changes nothing ---------------------------------------------------------------------


def test_a_round_beyond_the_jobs_cap_is_refused(promises: Any) -> None:
    job = promises.job(rounds=5, client={"target_epsilon": 4.0})
    with promises.kept(job) as privacy:
        with pytest.raises(PrivacyBudgetExceededError, match=r"epsilon 4 at delta 0\.001"):
            spend(privacy, job, 5)
        claim = privacy.account.claim()
    assert claim is not None
    assert 1 <= claim.steps_run < 5
    assert claim.guarantee is not None
    assert claim.guarantee.epsilon <= 4.0


def test_many_jobs_share_one_budget(promises: Any) -> None:
    caps = LineageCaps(epsilon=8.0, delta=1e-3, job_epsilon=8.0, job_delta=1e-3)
    completed = 0
    with pytest.raises(PrivacyBudgetExceededError, match="budget of lineage 'federation/sites'"):  # noqa: PT012
        for number in range(20):
            job = promises.job(job_id=f"study-{number}", client={"target_epsilon": 8.0})
            with promises.kept(job, caps=caps) as privacy:
                spend(privacy, job, 1)
            completed += 1
    assert 1 <= completed < 20


@pytest.mark.parametrize(
    ("first", "then", "why"),
    [
        ({}, {"client": {"clip_norm": 0.4}}, "another job named 'study-1'"),
        ({}, {"client": {"noise_multiplier": 1.1}}, "another job named 'study-1'"),
        ({}, {"rounds": 3}, "another job named 'study-1'"),
    ],
)
def test_a_job_id_stands_for_one_job(promises: Any, first: Any, then: Any, why: str) -> None:
    with promises.kept(promises.job(**first)) as privacy:
        privacy.reserve(draw(privacy.job))
    with promises.kept(promises.job(**then)) as privacy:
        before = privacy.ledger.head()
        with pytest.raises(InvalidJob, match=why):
            privacy.reserve(draw(privacy.job))
        assert privacy.ledger.head() == before


def test_the_federations_caps_are_fixed_by_the_first_draw(promises: Any) -> None:
    with promises.kept(promises.job()) as privacy:
        privacy.reserve(draw(privacy.job))
    other, why = replace(CAPS, epsilon=60.0), r"client_privacy caps in federation\.toml differ"
    with promises.kept(promises.job(), caps=other) as privacy, pytest.raises(InvalidJob, match=why):
        privacy.reserve(draw(privacy.job))


def test_a_site_more_opens_no_new_budget_and_is_no_contradiction(promises: Any) -> None:
    with promises.kept(promises.job()) as privacy:
        privacy.reserve(draw(privacy.job))
    with promises.kept(promises.job(job_id="study-2")) as privacy:
        privacy.reserve(draw(privacy.job, population=7))
        claim = privacy.ledger.lineage_claim(LINEAGE)
    assert (claim.jobs, claim.nominal_units) == (("study-1", "study-2"), 3)


@pytest.mark.parametrize(("population", "refused"), [(999, False), (1000, True)])
def test_delta_must_be_below_one_over_the_number_of_sites(promises: Any, population: int, refused: bool) -> None:
    with promises.kept(promises.job()) as privacy:
        if not refused:
            privacy.reserve(draw(privacy.job, population=population))
            return
        with pytest.raises(InvalidJob, match=r"set it below 1 / 1000"):
            privacy.reserve(draw(privacy.job, population=population))


def test_a_job_that_asks_for_more_than_a_job_may_is_refused(promises: Any) -> None:
    other = replace(CAPS, job_epsilon=10.0)
    with promises.kept(promises.job(), caps=other) as privacy, pytest.raises(InvalidJob, match="job_epsilon = 10"):
        privacy.reserve(draw(privacy.job))


def test_an_account_that_draws_survives_its_process(promises: Any, tmp_path: Path) -> None:
    with promises.kept(promises.job()) as privacy:
        privacy.commit(privacy.reserve(draw(privacy.job)), MODEL)
    with promises.kept(promises.job()) as privacy, pytest.raises(ReleasedOtherwise):
        privacy.commit(draw(privacy.job), OTHER)
    assert (tmp_path / "coordinator" / "ledger.sqlite").stat().st_mode & 0o077 == 0
