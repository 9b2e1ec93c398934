"""The DP engine from configuration to calibration, against closed forms, other accountants and recorded oracles."""

from __future__ import annotations

import json
import math
import os
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import norm
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from aegis.errors import GoalOutOfReach, InvalidEngine, PrivacySpentByTuning, TuningStopped
from aegis.privacy_engine import Calibration, DifferentialPrivacyEngine, EngineConfig, Task
from coreason_enclave.accounting import Accountant, PoissonSampledGaussian, compose_epsilon
from coreason_enclave.errors import (
    AccountingError,
    ConfigurationError,
    JobRejected,
    PrivacyBudgetExceededError,
    UnsafeTrainingError,
)
from coreason_enclave.ledger import EphemeralLedger, LineageCaps, LineageRegistration, NoiseSource
from coreason_enclave.schemas import NeighboringRelation, PrivacyUnit, explain

DELTA = 1e-4
TRAINING_ROWS = 1437

FIELDS: dict[str, Any] = {
    "max_grad_norm": 1.0,
    "noise_multiplier": 2.0,
    "sample_rate": 0.2,
    "steps": 40,
    "delta": DELTA,
    "unit": "record",
    "neighboring_relation": "add_or_remove_one",
    "accountant": "PLD",
}


def config(**changes: object) -> EngineConfig:
    return EngineConfig.of({**FIELDS, **changes})


@pytest.fixture(scope="module")
def task() -> Task:
    """Handwritten digits; 1437 to train on, 360 aside. Pixels are scaled by their declared range, 0 to 16."""
    pixels, digits = load_digits(return_X_y=True)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    features, labels = torch.tensor(pixels / 16, dtype=torch.float32)[order], torch.tensor(digits)[order]
    return Task(
        make_model=lambda: torch.nn.Linear(64, 10),
        loss=torch.nn.functional.cross_entropy,
        features=features[:TRAINING_ROWS],
        labels=labels[:TRAINING_ROWS],
        public_features=features[TRAINING_ROWS:],
        public_labels=labels[TRAINING_ROWS:],
        nominal_units=TRAINING_ROWS,
        data_is_public=True,
        learning_rate=2.0,
    )


def private(task: Task) -> Task:
    return Task(**{**vars(task), "data_is_public": False})


def seed(number: int) -> bytes:
    return bytes([number]) * 32


def site_ledger(*, epsilon: float, job_epsilon: float, units: int = TRAINING_ROWS) -> EphemeralLedger:
    ledger = EphemeralLedger()
    ledger.register(
        LineageRegistration.with_best_order(
            lineage="clinic/scans",
            unit=PrivacyUnit.RECORD,
            neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
            nominal_units=units,
            public=False,
            caps=LineageCaps(epsilon=epsilon, delta=DELTA, job_epsilon=job_epsilon, job_delta=DELTA),
        )
    )
    return ledger


# --- configuration -----------------------------------------------------------------------------------------------


@given(
    norm=st.floats(1e-6, 1e6),
    noise=st.none() | st.floats(1e-3, 1e6),
    rate=st.floats(1e-6, 1),
    steps=st.integers(1, 1_000_000),
    delta=st.floats(1e-30, 0.1),
    unit=st.sampled_from(["record", "person"]),
    accountant=st.sampled_from(["PLD", "RDP"]),
)
def test_a_configuration_survives_json_without_loss(
    norm: float, noise: float | None, rate: float, steps: int, delta: float, unit: str, accountant: str
) -> None:
    written = config(
        max_grad_norm=norm,
        noise_multiplier=noise,
        sample_rate=rate,
        steps=steps,
        delta=delta,
        unit=unit,
        accountant=accountant,
    )

    assert EngineConfig.from_json(written.to_json()) == written
    assert EngineConfig.from_json(written.to_json()).digest() == written.digest()


@pytest.mark.parametrize("name", FIELDS)
def test_no_part_of_the_guarantee_has_a_default(name: str) -> None:
    fields = {other: value for other, value in FIELDS.items() if other != name}

    with pytest.raises(InvalidEngine, match=f"^{name} is required$"):
        EngineConfig.of(fields)


OUT_OF_RANGE = {
    "no clipping": ({"max_grad_norm": 0}, "max_grad_norm must be in (0, 1e+06], got 0"),
    "endless clipping norm": ({"max_grad_norm": math.inf}, "max_grad_norm must be in (0, 1e+06], got inf"),
    "negative noise": ({"noise_multiplier": -1}, "noise_multiplier must be in (0, 1e+06], got -1"),
    "noise that is not a number": ({"noise_multiplier": math.nan}, "noise_multiplier must be in (0, 1e+06], got nan"),
    "noise as text": ({"noise_multiplier": "1.0"}, "noise_multiplier must be a number, got '1.0'"),
    "a rate of zero": ({"sample_rate": 0}, "sample_rate must be in (0, 1], got 0"),
    "a rate above one": ({"sample_rate": 1.5}, "sample_rate must be in (0, 1], got 1.5"),
    "no steps": ({"steps": 0}, "steps must be a whole number in [1, 1000000], got 0"),
    "half a step": ({"steps": 1.5}, "steps must be a whole number in [1, 1000000], got 1.5"),
    "steps as truth": ({"steps": True}, "steps must be a whole number in [1, 1000000], got True"),
    "a delta of zero": ({"delta": 0}, "delta must be in (0, 0.1], got 0"),
    "a delta of one": ({"delta": 1}, "delta must be in (0, 0.1], got 1"),
    "an approximation as accountant": ({"accountant": "GDP"}, "accountant must be PLD or RDP: GDP, an approximation"),
    "an unknown field": ({"epsilon": -1}, "epsilon is not a known field"),
}


@pytest.mark.parametrize(("changes", "message"), OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
def test_what_is_out_of_range_is_refused_in_one_line_that_names_the_range(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidEngine) as refusal:
        config(**changes)

    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


def test_the_constructor_refuses_what_reading_refuses() -> None:
    with pytest.raises(ValidationError) as refusal:
        EngineConfig(**{**FIELDS, "noise_multiplier": -1})

    assert explain(refusal.value) == "noise_multiplier must be in (0, 1e+06], got -1"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"steps": NaN}', '{"steps": 1, "steps": 2}'])
def test_what_is_not_one_json_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidEngine, match=r"^an engine configuration must be a JSON object: "):
        EngineConfig.from_json(text)


TASK_PROBLEMS = {
    "no training rows": {"features": torch.zeros(0, 64), "labels": torch.zeros(0)},
    "a label too few": {"labels": torch.zeros(3)},
    "no public rows": {"public_features": torch.zeros(0, 64), "public_labels": torch.zeros(0)},
    "a learning rate that is not a number": {"learning_rate": math.nan},
    "momentum of one": {"momentum": 1.0},
    "nothing to average": {"average_last": 0},
    "no units": {"nominal_units": 0},
}


@pytest.mark.parametrize("changes", TASK_PROBLEMS.values(), ids=TASK_PROBLEMS)
def test_a_task_that_makes_no_sense_is_refused(task: Task, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidEngine, match="must"):
        Task(**{**vars(task), **changes})


# --- accounting --------------------------------------------------------------------------------------------------


def gaussian_delta(epsilon: float, noise_multiplier: float, steps: int) -> float:
    """Delta of ``steps`` Gaussian mechanisms, exactly (Balle and Wang, 2018, theorem 8)."""
    mu = math.sqrt(steps) / noise_multiplier
    return float(norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu))


@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (5.0, 10), (20.0, 400), (50.0, 1000)])
def test_without_sampling_epsilon_is_that_of_the_analytic_gaussian_mechanism(noise: float, steps: int) -> None:
    engine = DifferentialPrivacyEngine(config(sample_rate=1.0, noise_multiplier=noise, steps=steps, delta=1e-5))

    epsilon, delta = engine.stepwise_accounting(steps)

    assert delta == 1e-5
    assert gaussian_delta(epsilon, noise, steps) <= 1e-5 * (1 + 1e-9)
    assert gaussian_delta(epsilon * 0.998, noise, steps) > 1e-5


SCHEDULES = {"few steps": (1.0, 0.05, 20), "an ordinary run": (1.1, 0.01, 1000), "large batches": (4.0, 0.2, 300)}


@pytest.mark.parametrize(("noise", "rate", "steps"), SCHEDULES.values(), ids=SCHEDULES)
def test_the_numbers_agree_with_opacus_own_accountants(noise: float, rate: float, steps: int) -> None:
    engine = DifferentialPrivacyEngine(config(noise_multiplier=noise, sample_rate=rate, steps=steps, delta=1e-5))
    pld, _ = engine.stepwise_accounting(steps)
    rdp, _ = engine.stepwise_accounting(steps, accountant=Accountant.RDP)

    # Opacus' PRV accountant adds its own error bound of 0.01 to its estimate.
    assert engine.compared("prv", steps).epsilon == pytest.approx(pld + 0.01, abs=0.01)
    assert engine.compared("rdp", steps).epsilon == pytest.approx(rdp, rel=0.02)
    assert pld <= rdp


def test_the_gaussian_approximation_under_reports_says_so_and_backs_no_claim() -> None:
    engine = DifferentialPrivacyEngine(config(noise_multiplier=0.8, sample_rate=0.01, steps=500, delta=1e-5))

    approximation = engine.compared("gdp", 500)

    assert approximation.epsilon < engine.stepwise_accounting(500).epsilon
    assert approximation.under_reports
    with pytest.raises(InvalidEngine, match="GDP under-reports and cannot support a claim"):
        engine.stepwise_accounting(500, accountant=Accountant.GDP)


def test_an_accountant_that_opacus_does_not_have_is_refused_by_name() -> None:
    with pytest.raises(AccountingError, match="not 'moments'"):
        DifferentialPrivacyEngine(config()).compared("moments", 1)  # type: ignore[arg-type]


def oracle_rows() -> list[dict[str, Any]]:
    folder = os.environ.get("AEGIS_ORACLES_DIR")
    rows: list[dict[str, Any]] = json.loads((Path(folder) / "epsilon.json").read_text()) if folder else []
    return [row for row in rows if len(row["segments"]) == 1]


@pytest.mark.recorded
@pytest.mark.skipif(not os.environ.get("AEGIS_ORACLES_DIR"), reason="needs AEGIS_ORACLES_DIR")
@pytest.mark.parametrize("row", oracle_rows(), ids=lambda row: row["name"])
def test_epsilon_is_the_recorded_oracles(row: dict[str, Any]) -> None:
    (segment,) = row["segments"]
    engine = DifferentialPrivacyEngine(config(**segment, delta=row["delta"]))

    epsilon, _ = engine.stepwise_accounting(segment["steps"])

    if row["delta"] < 1e-10:
        assert epsilon == pytest.approx(row["rdp"], rel=1e-3)
    else:
        assert row["epsilon"] * (1 - 1e-6) <= epsilon <= row["epsilon"] * 1.001 + 1e-4
    assert epsilon <= row["rdp"] * 1.001


def test_the_account_runs_along_with_the_training(task: Task) -> None:
    engine = DifferentialPrivacyEngine(config(steps=6), task)
    running: list[tuple[float, float]] = []

    result = engine.train(on_step=lambda step: running.append(engine.stepwise_accounting()))

    composed = [compose_epsilon([PoissonSampledGaussian(2.0, 0.2, n)], DELTA).epsilon for n in range(1, 7)]
    assert running == [(epsilon, DELTA) for epsilon in composed]
    assert engine.trajectory() == tuple((n, composed[n - 1], DELTA) for n in range(1, 7))
    assert result.guarantee.epsilon == composed[-1]
    assert result.steps == engine.steps_taken == 6


def test_a_second_training_continues_the_account_instead_of_starting_anew(task: Task) -> None:
    engine = DifferentialPrivacyEngine(config(steps=3), task)

    engine.train()
    once = engine.stepwise_accounting().epsilon
    engine.train()

    assert engine.stepwise_accounting().epsilon == engine.stepwise_accounting(6).epsilon > once


def test_an_engine_that_trained_nothing_has_no_epsilon_but_can_look_ahead() -> None:
    engine = DifferentialPrivacyEngine(config())

    with pytest.raises(InvalidEngine, match="no training yet"):
        engine.stepwise_accounting()
    assert [point.step for point in engine.trajectory([10, 20, 40])] == [10, 20, 40]
    assert engine.stepwise_accounting(40).epsilon > 0


def test_a_configuration_whose_noise_is_still_to_be_found_has_no_account(task: Task) -> None:
    engine = DifferentialPrivacyEngine(config(noise_multiplier=None), task)

    with pytest.raises(InvalidEngine, match="noise_multiplier is not set"):
        engine.stepwise_accounting(1)
    with pytest.raises(InvalidEngine, match="noise_multiplier is not set"):
        engine.train()


def test_by_rdp_the_report_is_the_renyi_bound_and_says_so(task: Task) -> None:
    result = DifferentialPrivacyEngine(config(steps=3, accountant="RDP"), task).train()

    assert result.guarantee.accountant is Accountant.RDP
    assert result.guarantee.epsilon == result.guarantee.rdp_epsilon


# --- training ----------------------------------------------------------------------------------------------------


def median_accuracy(task: Task, target_epsilon: float) -> float:
    from aegis.tuning import calibrated

    engine = DifferentialPrivacyEngine(calibrated(config(), target_epsilon), task)
    return statistics.median(engine.train(unsafe_seed=seed(number)).accuracy for number in range(3))


def test_a_stricter_epsilon_visibly_lowers_utility(task: Task) -> None:
    strict, medium, loose = (median_accuracy(task, epsilon) for epsilon in (0.1, 0.5, 8.0))

    assert strict + 0.2 < medium
    assert medium + 0.02 < loose
    assert loose > 0.85


def test_training_is_charged_to_the_ledger_and_its_claim_says_under_which_randomness(task: Task) -> None:
    ledger = site_ledger(epsilon=10, job_epsilon=5)

    result = DifferentialPrivacyEngine(config(steps=5), private(task)).train(ledger=ledger, lineage="clinic/scans")
    seeded = DifferentialPrivacyEngine(config(steps=5), private(task)).train(
        ledger=ledger, lineage="clinic/scans", unsafe_seed=seed(1)
    )

    assert ledger.lineage_claim("clinic/scans").jobs == (result.claim.job_id, seeded.claim.job_id)
    assert result.claim.guarantee == result.guarantee
    assert (result.claim.steps_run, result.claim.open_reservations) == (5, 0)
    assert result.claim.noise_sources == (NoiseSource.SITE_KEYSTREAM,)
    assert seeded.claim.noise_sources == (NoiseSource.UNSAFE_SEEDED,)


def test_without_a_ledger_the_claim_says_that_it_is_not_durable(task: Task) -> None:
    assert not DifferentialPrivacyEngine(config(steps=1), task).train().claim.durable


def test_a_training_that_the_lineage_does_not_afford_is_refused_before_it_starts(task: Task) -> None:
    ledger = site_ledger(epsilon=0.5, job_epsilon=0.5)
    untouched: list[int] = []
    engine = DifferentialPrivacyEngine(config(steps=2, noise_multiplier=4.0), private(task))
    for _ in range(20):
        try:
            engine.train(ledger=ledger, lineage="clinic/scans")
        except PrivacyBudgetExceededError:
            break
    else:
        pytest.fail("the budget never ended")
    spent = ledger.lineage_claim("clinic/scans").spent_pico

    with pytest.raises(PrivacyBudgetExceededError):
        engine.train(ledger=ledger, lineage="clinic/scans", on_step=untouched.append)

    assert untouched == []
    assert ledger.lineage_claim("clinic/scans").spent_pico == spent


REFUSED_TRAININGS = {
    "a ledger without a lineage": ({"ledger": True}, InvalidEngine, "give both or neither"),
    "a lineage without a ledger": ({"lineage": "clinic/scans"}, InvalidEngine, "give both or neither"),
    "a seed of three bytes": ({"unsafe_seed": b"abc"}, ConfigurationError, "exactly 32 bytes"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), REFUSED_TRAININGS.values(), ids=REFUSED_TRAININGS)
def test_a_training_without_a_clear_account_is_refused(
    task: Task, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    if "ledger" in arguments:
        arguments = {"ledger": site_ledger(epsilon=1, job_epsilon=1)}

    with pytest.raises(error, match=message):
        DifferentialPrivacyEngine(config(steps=1), task).train(**arguments)


def test_a_lineage_of_another_size_would_give_another_denominator(task: Task) -> None:
    ledger = site_ledger(epsilon=5, job_epsilon=5, units=2000)

    with pytest.raises(InvalidEngine, match="has 2000 nominal units, but the task states 1437"):
        DifferentialPrivacyEngine(config(), task).train(ledger=ledger, lineage="clinic/scans")


def test_a_lineage_that_protects_persons_is_not_trained_on_by_record(task: Task) -> None:
    persons = torch.arange(TRAINING_ROWS).numpy() // 3
    grouped = Task(**{**vars(task), "unit_ids": persons, "nominal_units": 479})
    by_person = config(unit="person", steps=2)

    result = DifferentialPrivacyEngine(by_person, grouped).train()

    assert result.guarantee.unit is PrivacyUnit.PERSON
    with pytest.raises(InvalidEngine, match="unit record takes none"):
        DifferentialPrivacyEngine(config(), grouped).train()
    with pytest.raises(InvalidEngine, match="unit person needs unit_ids"):
        DifferentialPrivacyEngine(by_person, task).train()
    ledger = site_ledger(epsilon=5, job_epsilon=5, units=479)
    with pytest.raises(JobRejected, match="needs unit record"):
        DifferentialPrivacyEngine(by_person, grouped).train(ledger=ledger, lineage="clinic/scans")


def test_a_schedule_that_would_promise_nothing_is_refused(task: Task) -> None:
    with pytest.raises(InvalidEngine, match="above 1000"):
        DifferentialPrivacyEngine(config(noise_multiplier=0.01, sample_rate=1.0), task).train()


def test_training_needs_a_task() -> None:
    with pytest.raises(InvalidEngine, match="need a task"):
        DifferentialPrivacyEngine(config()).train()


def weights(task: Task, number: int, **changes: object) -> torch.Tensor:
    model = DifferentialPrivacyEngine(config(steps=3, **changes), task).train(unsafe_seed=seed(number)).model
    return torch.nn.utils.parameters_to_vector(model.parameters())


def test_the_same_seed_repeats_a_training_bit_for_bit_and_another_does_not(task: Task) -> None:
    assert torch.equal(weights(task, 1), weights(task, 1))
    assert not torch.equal(weights(task, 1), weights(task, 2))


def test_two_noise_levels_under_one_seed_do_not_share_their_noise(task: Task) -> None:
    """Shared noise would cancel: sigma_2 * first - sigma_1 * second would be free of it."""
    flat = Task(**{**vars(task), "loss": lambda outputs, labels: (outputs * 1e-12).mean(), "learning_rate": 1.0})
    start = torch.nn.utils.parameters_to_vector(flat.initial_model().parameters())

    first, second = (weights(flat, 1, noise_multiplier=noise) - start for noise in (1.0, 2.0))

    correlation = torch.corrcoef(torch.stack((first, second)))[0, 1].item()
    assert abs(correlation) < 0.2  # 650 coordinates: five standard deviations


def test_the_average_over_the_last_steps_is_what_is_returned(task: Task) -> None:
    seen: list[torch.Tensor] = []
    made: list[torch.nn.Module] = []

    def remembered() -> torch.nn.Module:
        made.append(torch.nn.Linear(64, 10))
        return made[-1]

    averaged = Task(**{**vars(task), "make_model": remembered, "average_last": 2})
    result = DifferentialPrivacyEngine(config(steps=4), averaged).train(
        on_step=lambda step: seen.append(torch.nn.utils.parameters_to_vector(made[-1].parameters()).detach().clone())
    )

    expected = (seen[-1] + seen[-2]) / 2
    assert torch.allclose(torch.nn.utils.parameters_to_vector(result.model.parameters()), expected, atol=1e-6)


def own_loop(engine: DifferentialPrivacyEngine, ledger: EphemeralLedger, task: Task, steps: int) -> None:
    model = task.initial_model()
    rows = DataLoader(TensorDataset(task.features, task.labels))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model, stepper, loader = engine.attach(
        model=model,
        optimizer=optimizer,
        data_loader=rows,
        ledger=ledger,
        lineage="clinic/scans",
        criterion=task.loss,
    )
    for _, (features, labels) in zip(range(steps), loader, strict=False):
        stepper.zero_grad()
        task.loss(model(features), labels).backward()
        stepper.step()


def test_a_loop_of_ones_own_is_counted_and_committed_as_far_as_it_ran(task: Task) -> None:
    ledger = site_ledger(epsilon=10, job_epsilon=5)
    engine = DifferentialPrivacyEngine(config(steps=5))

    own_loop(engine, ledger, task, 2)
    reserved = ledger.lineage_claim("clinic/scans")
    engine.close()
    engine.close()
    committed = ledger.lineage_claim("clinic/scans")

    assert engine.steps_taken == 2
    assert engine.stepwise_accounting() == engine.stepwise_accounting(2)
    assert (reserved.open_reservations, committed.open_reservations) == (1, 0)
    assert committed.spent_pico * 5 == reserved.spent_pico * 2


def test_one_training_at_a_time(task: Task) -> None:
    ledger = site_ledger(epsilon=10, job_epsilon=5)
    engine = DifferentialPrivacyEngine(config(steps=2))
    own_loop(engine, ledger, task, 1)

    with pytest.raises(InvalidEngine, match=r"close\(\) first"):
        own_loop(engine, ledger, task, 1)


def test_a_model_that_cannot_be_made_private_costs_nothing(task: Task) -> None:
    ledger = site_ledger(epsilon=10, job_epsilon=5)
    mixing = Task(**{**vars(task), "make_model": lambda: torch.nn.Sequential(torch.nn.BatchNorm1d(64))})

    with pytest.raises(UnsafeTrainingError, match="BatchNorm"):
        DifferentialPrivacyEngine(config(), mixing).train(ledger=ledger, lineage="clinic/scans")

    assert ledger.lineage_claim("clinic/scans").spent_pico == 0


# --- targeting ---------------------------------------------------------------------------------------------------

GOAL = 0.8


@pytest.fixture(scope="module")
def answer(task: Task) -> Calibration:
    engine = DifferentialPrivacyEngine(config(noise_multiplier=None), task)
    return engine.epsilon_targeting(GOAL, DELTA, unsafe_seed=seed(7))


def test_the_answer_unpacks_as_epsilon_and_the_noise_that_costs_it(answer: Calibration) -> None:
    epsilon, noise_multiplier = answer

    engine = DifferentialPrivacyEngine(config(noise_multiplier=noise_multiplier))
    assert engine.stepwise_accounting(40) == (epsilon, DELTA)
    assert answer.config == engine.config


def test_the_answer_is_the_smallest_epsilon_seen_to_meet_the_goal(answer: Calibration) -> None:
    met = [point for point in answer.curve if point.accuracy >= GOAL]
    missed = [point for point in answer.curve if point.accuracy < GOAL]

    assert answer.epsilon == min(point.epsilon for point in met)
    assert answer.accuracy >= GOAL
    assert max(point.epsilon for point in missed) < answer.epsilon <= 1.26 * max(point.epsilon for point in missed)


def test_the_repetitions_of_a_point_are_independent_trainings(answer: Calibration) -> None:
    accuracies = [accuracy for point in answer.curve for accuracy in point.accuracies]

    assert len(set(accuracies)) > len(answer.curve)


def test_fresh_trainings_meet_the_goal_there_and_not_at_half_of_it(task: Task, answer: Calibration) -> None:
    assert median_accuracy(task, answer.epsilon) >= GOAL - 0.03
    assert median_accuracy(task, answer.epsilon / 2) < GOAL


def test_a_goal_out_of_reach_says_what_is_reachable(task: Task) -> None:
    engine = DifferentialPrivacyEngine(config(noise_multiplier=None, steps=10), task)

    with pytest.raises(GoalOutOfReach, match=r"accuracy 0.999 is out of reach up to epsilon 2") as refusal:
        engine.epsilon_targeting(0.999, DELTA, epsilon_range=(0.5, 2.0), repetitions=1, unsafe_seed=seed(1))

    assert f"the best was {refusal.value.reachable:.3f}" in str(refusal.value)
    assert 0.5 < refusal.value.reachable < 0.999
    assert refusal.value.at_epsilon <= 2.0


def test_calibrated_for_rdp_the_renyi_bound_itself_meets_the_target(task: Task) -> None:
    engine = DifferentialPrivacyEngine(config(noise_multiplier=None, steps=10, accountant="RDP"), task)

    found = engine.epsilon_targeting(0.3, DELTA, epsilon_range=(1.0, 1.0), repetitions=1, unsafe_seed=seed(1))

    (point,) = found.curve
    assert 0.995 < point.epsilon <= point.target_epsilon == 1.0


def test_tuning_on_rows_that_are_not_public_warns_that_it_spends_privacy(task: Task) -> None:
    engine = DifferentialPrivacyEngine(config(noise_multiplier=None, steps=5), private(task))

    with pytest.warns(PrivacySpentByTuning, match="is in no ledger") as warned:
        engine.epsilon_targeting(0.2, DELTA, epsilon_range=(5.0, 5.0), repetitions=1)

    assert warned[0].filename == __file__


def test_charged_tuning_shows_every_trial_in_the_ledger(task: Task) -> None:
    ledger = site_ledger(epsilon=10, job_epsilon=1)
    engine = DifferentialPrivacyEngine(config(noise_multiplier=None), private(task))

    with pytest.warns(PrivacySpentByTuning, match="is charged to 'clinic/scans'"):
        found = engine.epsilon_targeting(
            0.7, DELTA, epsilon_range=(0.1, 8.0), repetitions=2, precision=2.0, charge_to=ledger, lineage="clinic/scans"
        )

    claim = ledger.lineage_claim("clinic/scans")
    trials = [ledger.job_claim("clinic/scans", job) for job in claim.jobs]
    assert len(trials) == 2 * len(found.curve)
    assert sorted({trial.noise_multiplier for trial in trials}) == sorted(p.noise_multiplier for p in found.curve)
    assert all(trial.steps_run == 40 and trial.open_reservations == 0 for trial in trials)
    assert claim.spent_epsilon > found.epsilon
    assert max(point.target_epsilon for point in found.curve) <= 1  # the site's cap for one job
    assert found.charged_to == "clinic/scans"


def test_when_the_budget_ends_the_search_stops_and_says_so(task: Task) -> None:
    ledger = site_ledger(epsilon=1.5, job_epsilon=1.0)
    engine = DifferentialPrivacyEngine(config(noise_multiplier=None, steps=10), private(task))

    with (
        pytest.warns(PrivacySpentByTuning),
        pytest.raises(
            TuningStopped, match=r"lineage 'clinic/scans' affords no further trial.*no trial met the goal"
        ) as end,
    ):
        engine.epsilon_targeting(
            0.99, DELTA, epsilon_range=(0.3, 1.0), repetitions=3, charge_to=ledger, lineage="clinic/scans"
        )

    assert end.value.best_epsilon is None
    assert ledger.lineage_claim("clinic/scans").open_reservations == 0


BAD_QUESTIONS = {
    "an accuracy above one": ({"accuracy_goal": 1.2}, "accuracy_goal must be in (0, 1], got 1.2"),
    "an accuracy of zero": ({"accuracy_goal": 0.0}, "accuracy_goal must be in (0, 1], got 0"),
    "a negative epsilon": (
        {"epsilon_range": (-1.0, 2.0)},
        "the range of epsilon must lie in (0, 1000], lowest first, got -1",
    ),
    "a falling range": (
        {"epsilon_range": (2.0, 1.0)},
        "the range of epsilon must lie in (0, 1000], lowest first, got 2 to 1",
    ),
    "a delta of one": ({"delta": 1.0}, "delta must be in (0, 0.1], got 1"),
    "a delta that publishes a record": ({"delta": 0.01}, "caps.delta must be below 1 / nominal_units"),
    "no repetition": ({"repetitions": 0}, "repetitions must be at least 1"),
    "a precision of one": ({"precision": 1.0}, "precision must be in [1.01, 10], got 1"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_QUESTIONS.values(), ids=BAD_QUESTIONS)
def test_a_question_that_makes_no_sense_gets_one_clear_line(task: Task, changes: dict[str, Any], message: str) -> None:
    question = {"accuracy_goal": 0.8, "delta": DELTA, **changes}

    with pytest.raises((InvalidEngine, ConfigurationError)) as refusal:
        DifferentialPrivacyEngine(config(noise_multiplier=None), task).epsilon_targeting(**question)

    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)


@settings(max_examples=50)
@given(goal=st.floats(0.2, 0.9), precision=st.floats(1.05, 3))
def test_on_a_rising_curve_the_search_brackets_the_true_answer(goal: float, precision: float) -> None:
    from aegis.tuning import CurvePoint, smallest_epsilon

    def measure(epsilon: float) -> CurvePoint:
        return CurvePoint(
            target_epsilon=epsilon, epsilon=epsilon, noise_multiplier=1.0, accuracies=(epsilon / (epsilon + 1),)
        )

    exact = goal / (1 - goal)
    found = smallest_epsilon(goal, 0.05, 20.0, precision, measure)

    assert exact * (1 - 1e-9) <= found.epsilon <= exact * precision * (1 + 1e-9)
