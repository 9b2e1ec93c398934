"""The coordinator over small real sites: what it trains, whom it leaves out, and when it stops.

How it hears replies, goes on after a crash and serves as a Flower strategy: ``tests/aegis/rounds``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegis.attacks.hostile.eavesdropper import Overheard
from aegis.attacks.hostile.insider import Insider
from aegis.errors import InvalidJob, RunFolderError, RunPaused
from aegis.federated_coordinator import average
from aegis.federation.job_files import resolve
from aegis.runtimes.in_process import (
    initial_model,
    public_evaluator,
)
from coreason_enclave.accounting import PoissonSampledGaussian, compose_epsilon
from coreason_enclave.errors import Reason
from coreason_enclave.policy import Profile
from coreason_enclave.wire.updates import Arrays, SealedMessage, encode_arrays, model_digest
from tests.support.studies import (
    THREE,
    Federation,
    Forges,
    MakeStudy,
    Refuses,
    Study,
    a_job,
    scaled,
    where,
)

# --- it trains ------------------------------------------------------------------------------------------------

MANY = {"persons": 200, "lineage": {"nominal_units": 200}}
LEARNING = {"rounds": 3, "local_steps": 6, "privacy": {"noise_multiplier": None}, "max_update_norm": 1000.0}


def public_rows() -> tuple[Any, Any]:
    """Fresh persons of the same kind as the sites', without the label noise."""
    values = np.random.default_rng(99).uniform(0, 10, (2000, 3))
    return (values / 5 - 1).astype(np.float32), (values @ [1.0, -1.0, 0.5] > 2.5).astype(np.int64)


def test_it_trains_a_model_that_predicts_people_nobody_trained_on(study: MakeStudy, federation: Federation) -> None:
    job = resolve(a_job(federation, **LEARNING), delta=1e-5)
    run = study(**MANY)
    evaluate = public_evaluator(job, *public_rows())
    model = run.run(job, evaluate=evaluate)
    before, after = evaluate(initial_model(job)), evaluate(model)
    assert before["accuracy"] < 0.7
    assert after["accuracy"] > 0.85
    assert run.history()[-1].metrics == after
    assert run.seen == list(run.history())


def test_each_round_is_on_record_with_sites_steps_and_what_they_cost(study: MakeStudy, federation: Federation) -> None:
    run = study()
    run.run(a_job(federation))
    for number, record in enumerate(run.history(), start=1):
        assert (record.round_number, record.admitted, record.used, record.refused) == (number, THREE, THREE, {})
        assert record.steps == dict.fromkeys(THREE, 2 * number)
        epsilon = compose_epsilon([PoissonSampledGaussian(2.0, 0.5, 2 * number)], 1e-5).epsilon
        assert record.epsilon == dict.fromkeys(THREE, epsilon)
        assert {value.value for value in record.provenance.values()} == {"simulated"}
    assert [line["outcome"] for line in run.audit() if line["action"] == "round"] == ["opened", "completed"] * 2
    assert {line["details"]["profile"] for line in run.audit()} == {"development"}
    assert {line["details"]["attestation"] for line in run.audit()} == {"simulated"}


def test_the_first_round_adds_the_mean_of_the_sites_updates_to_the_initial_model(
    study: MakeStudy, federation: Federation
) -> None:
    overheard, job = Overheard(THREE), a_job(federation, rounds=1)
    listening = where(THREE, lambda site: overheard.listen(site.config.site_id, Insider(site.session)))
    model = study().run(job, listening)
    updates = list(overheard.rounds()[1].values())
    for name, start in initial_model(job).items():
        expected = start + np.mean([update[name].astype(np.float64) for update in updates], axis=0)
        np.testing.assert_allclose(model[name], expected, rtol=1e-6, atol=1e-7)


def test_the_released_model_is_the_average_of_the_last_rounds(study: MakeStudy, federation: Federation) -> None:
    run = study()
    model = run.run(a_job(federation, rounds=3, average_last_rounds=2))
    state = run.store.load()
    assert state is not None
    last = [run.store.load_model(digest) for digest in state.models[-2:]]
    for name in model:
        np.testing.assert_allclose(model[name], (last[0][name] + last[1][name]) / 2, rtol=1e-6)
    assert model_digest(average(last)) == model_digest(model)
    assert len(state.models) == 4


def test_a_round_asks_the_cohort_that_its_public_lots_name(study: MakeStudy, federation: Federation) -> None:
    run = study(4)
    run.run(a_job(federation, min_clients=2, cohort_size=2, rounds=4))
    asked = run.reserved_rounds()
    assert sorted(number for rounds in asked.values() for number in rounds) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert len({tuple(record.admitted) for record in run.history()}) > 1


# --- whom it leaves out ---------------------------------------------------------------------------------------


def test_a_refusing_site_is_left_out_with_its_reason_and_the_run_goes_on_as_if_it_were_not_there(
    study: MakeStudy, federation: Federation, tmp_path: Path
) -> None:
    run, job = study(4), a_job(federation)
    model = run.run(job, where(["clinic-4"], lambda site: Refuses(site.session, Reason.BUDGET_EXCEEDED)))
    assert [record.refused for record in run.history()] == [{"clinic-4": "budget_exceeded"}] * 2
    refusals = [line for line in run.audit() if line["outcome"] == "refused"]
    assert [(line["details"]["site"], line["reason"]) for line in refusals] == [("clinic-4", "budget_exceeded")] * 2
    of_three = Study(federation, tmp_path / "of-three", run.sites[:3]).run(job)
    assert encode_arrays(model) == encode_arrays(of_three)


def test_a_sites_own_policy_is_a_reason_that_reaches_the_record(study: MakeStudy, federation: Federation) -> None:
    run = study(3)
    run.sites.append(federation.create("clinic-4", policy={"min_noise_multiplier": 5.0}))
    run.run(a_job(federation))
    assert run.history()[-1].refused == {"clinic-4": "policy"}
    assert run.reserved_rounds()["clinic-4"] == []


def forges_its_event(said: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
    """Signs that it ran less noise than the plan has."""
    return {**said, "event": {**said["event"], "noise_multiplier": 0.1}}, arrays


class Says(Refuses):
    def run(self, message: SealedMessage) -> SealedMessage:
        return SealedMessage(b"{}", b"")


HOSTILE_SITES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "not a number, well signed": (scaled(float("nan")), "non_finite"),
    "an update beyond the norm": (scaled(1e9), "norm_exceeded"),
    "less noise than planned": (lambda site: Forges(site, forges_its_event), "event_exceeds_plan"),
    "nothing that is sealed": (lambda site: Says(site.session), "malformed"),
}


@pytest.mark.parametrize("which", HOSTILE_SITES)
def test_a_hostile_site_is_set_aside_that_sends(which: str, study: MakeStudy, federation: Federation) -> None:
    handler, reason = HOSTILE_SITES[which]
    run = study(4)
    model = run.run(a_job(federation, rounds=1), where(["clinic-2"], handler))
    assert run.history()[0].refused == {"clinic-2": reason}
    assert all(np.isfinite(array).all() for array in model.values())


# --- attacks --------------------------------------------------------------------------------------------------


def test_one_simulated_attacker_destroys_the_mean_and_no_robust_rule(
    study: MakeStudy, federation: Federation, tmp_path: Path
) -> None:
    run, accuracy = study(5, **MANY), {}
    attacked = where(["clinic-1"], scaled(-10.0))
    for rule in ("mean", "trimmed_mean", "median", "krum", "multi_krum"):
        job = resolve(
            a_job(
                federation,
                job_id=f"study-{rule}",
                aggregator=rule,
                num_byzantine=0 if rule == "mean" else 1,
                **{**LEARNING, "privacy": {"noise_multiplier": None, "target_epsilon": 4.0}},
            ),
            delta=1e-5,
        )
        evaluate = public_evaluator(job, *public_rows())
        attack = Study(federation, tmp_path / rule, run.sites)
        accuracy[rule] = evaluate(attack.run(job, attacked))["accuracy"]
        assert "clinic-1" in attack.history()[0].admitted  # an insider: no signature reveals it
        if rule in ("krum", "multi_krum"):
            assert all("clinic-1" not in record.used for record in attack.history())
    assert accuracy.pop("mean") < 0.5
    assert min(accuracy.values()) > 0.8


# --- when it stops --------------------------------------------------------------------------------------------


def test_a_round_below_min_clients_is_repeated_once_and_the_repetition_may_succeed(
    study: MakeStudy, federation: Federation, tmp_path: Path
) -> None:
    run, job = study(), a_job(federation)
    model = run.run(job, where(["clinic-3"], lambda site: Refuses(site.session, times=1)))
    assert [line["outcome"] for line in run.audit() if line["action"] == "round"] == [
        *("opened", "repeat", "opened", "completed"),
        *("opened", "completed"),
    ]
    undisturbed = Study(federation, tmp_path / "undisturbed", run.sites).run(job)
    assert encode_arrays(model) == encode_arrays(undisturbed)


def test_twice_below_min_clients_the_run_pauses_with_the_reason_and_goes_on_when_the_sites_are_back(
    study: MakeStudy, federation: Federation, tmp_path: Path
) -> None:
    run, job = study(), a_job(federation)
    away = where(["clinic-3"], lambda site: Refuses(site.session, Reason.ABORTED))
    with pytest.raises(
        RunPaused,
        match=r"round 1 cannot be completed: 2 updates admitted, 3 needed.*"
        r"min_clients = 3.*clinic-3: aborted",
    ):
        run.run(job, away)
    assert run.history() == ()
    assert [line["outcome"] for line in run.audit() if line["action"] == "round"] == [
        "opened",
        "repeat",
        "opened",
        "pause",
    ]
    model = run.run(job)
    assert run.reserved_rounds() == {name: [1, 2] for name in THREE}
    undisturbed = Study(federation, tmp_path / "undisturbed", run.sites).run(job)
    assert encode_arrays(model) == encode_arrays(undisturbed)


def test_krums_precondition_counts_the_updates_that_were_admitted(study: MakeStudy, federation: Federation) -> None:
    run, job = study(6), a_job(federation, aggregator="krum", num_byzantine=1)
    away = ["clinic-1", "clinic-2"]
    with pytest.raises(RunPaused, match="4 updates admitted, 5 needed: min_clients = 3, krum"):
        run.run(job, where(away, scaled(float("nan"))))
    with pytest.raises(RunPaused, match="4 sites eligible, 5 needed: min_clients = 3, krum"):
        run.run(job)
    run.run(job, where(away[:1], scaled(float("nan"))))
    assert [len(record.admitted) for record in run.history()] == [5, 5]
    assert all(len(record.used) == 1 for record in run.history())


def test_a_production_coordinator_gets_nothing_from_simulated_sites(study: MakeStudy, federation: Federation) -> None:
    with pytest.raises(RunPaused, match="clinic-1: wrong_profile"):
        study().run(a_job(federation), profile=Profile.PRODUCTION)


JOBS_NOT_TAKEN: dict[str, tuple[dict[str, Any], str]] = {
    "that leaves its noise open": ({"privacy": {"noise_multiplier": None}}, "must state noise_multiplier and delta"),
    "that leaves its delta open": ({"privacy": {"delta": None}}, "must state noise_multiplier and delta"),
    "for more sites than there are": ({"min_clients": 4}, "needs min_clients = 4 sites, but the federation has 3"),
}


@pytest.mark.parametrize("which", JOBS_NOT_TAKEN)
def test_a_job_is_not_taken(which: str, study: MakeStudy, federation: Federation) -> None:
    changes, words = JOBS_NOT_TAKEN[which]
    run = study()
    with pytest.raises(InvalidJob, match=words):
        run.run(a_job(federation, **changes))
    assert run.reserved_rounds() == {name: [] for name in THREE}


def test_a_run_folder_belongs_to_one_job(study: MakeStudy, federation: Federation) -> None:
    run = study()
    run.run(a_job(federation, rounds=1))
    with pytest.raises(RunFolderError, match="belongs to another job"):
        run.run(a_job(federation, rounds=2))
