"""Training loops that are wrong, careless or hostile: what the gate counted is what leaves, or nothing leaves."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from coreason_enclave.accounting.events import NonPrivate, PoissonSampledGaussian, event_from_dict
from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.errors import EnclaveError, LedgerConflict, LedgerError, PrivacyBudgetExceededError, Reason
from coreason_enclave.federation.flower import client_app
from coreason_enclave.models import build, load_weights, weights_of
from coreason_enclave.privacy import PrivacyGuard
from coreason_enclave.privacy.training import LocalSgdTrainer, TrainingTask
from coreason_enclave.wire.documents import UPDATE_TYPE, UpdateStatement
from coreason_enclave.wire.updates import TrainedUpdate

Federation = Any
ROW = "patient p007, age 41.5"


class Honest:
    """The standard loop, and a place to spoil its result."""

    def train(self, task: TrainingTask) -> TrainedUpdate:
        return self.spoil(LocalSgdTrainer().train(task))

    def spoil(self, trained: TrainedUpdate) -> TrainedUpdate:
        return trained


def spoiling(change: Callable[[TrainedUpdate], Any]) -> type[Honest]:
    return type("Spoiling", (Honest,), {"spoil": lambda _self, trained: change(trained)})


def with_arrays(change: Callable[[dict[str, Any]], dict[str, Any]]) -> type[Honest]:
    return spoiling(lambda trained: replace(trained, arrays=change(dict(trained.arrays))))


class WithoutTheGuard(Honest):
    """Gradient descent on the bare rows, claiming to be private."""

    def train(self, task: TrainingTask) -> TrainedUpdate:
        model = build(task.job.model_arch, task.job.model_args)
        load_weights(model.module, task.base)
        features, labels = torch.tensor(task.dataset.features), torch.tensor(task.dataset.labels)
        model.criterion(model.module(features), labels).backward()
        arrays = {name: -np.asarray(p.grad) for name, p in model.module.named_parameters()}
        return TrainedUpdate(arrays, PoissonSampledGaussian(2.0, 0.5, 4), {})


class DrawsButNeverSteps(Honest):
    """Takes a private sample and looks at it, without a step that would be charged."""

    def train(self, task: TrainingTask) -> TrainedUpdate:
        _, _, loader, _ = attached(task, task.job.privacy)
        features, _ = next(iter(loader))
        arrays = {name: np.resize(features.numpy(), base.shape) for name, base in task.base.items()}
        return TrainedUpdate(arrays, PoissonSampledGaussian(2.0, 0.5, 4), {})


class FailsWithARow(Honest):
    def train(self, task: TrainingTask) -> TrainedUpdate:
        raise ValueError(f"cannot convert: {ROW}")


class LoosensTheGuard(Honest):
    """Asks the guard for a larger clipping bound than the accepted job has."""

    def train(self, task: TrainingTask) -> TrainedUpdate:
        PrivacyGuard(config=task.job.privacy.model_copy(update={"max_grad_norm": 1000.0}))
        raise AssertionError("unreachable")


class StepsTwiceOnOneBatch(Honest):
    def train(self, task: TrainingTask) -> TrainedUpdate:
        model, optimizer, loader, criterion = attached(task, task.job.privacy)
        features, labels = next(iter(loader))
        for _ in range(2):
            optimizer.zero_grad()
            criterion(model(features), labels).backward()
            optimizer.step()
        raise AssertionError("unreachable")


def attached(task: TrainingTask, config: Any) -> tuple[Any, Any, Any, Any]:
    """An ordinary set-up as a site's own author would write it."""
    model = build(task.job.model_arch, task.job.model_args)
    load_weights(model.module, task.base)
    rows = TensorDataset(torch.tensor(task.dataset.features), torch.tensor(task.dataset.labels))
    private, optimizer, loader = PrivacyGuard(config=config).attach(
        model=model.module,
        optimizer=torch.optim.SGD(model.module.parameters(), lr=task.job.learning_rate, momentum=task.job.momentum),
        data_loader=DataLoader(rows, batch_size=8),
    )
    return private, optimizer, loader, model.criterion


def difference(task: TrainingTask, model: torch.nn.Module) -> dict[str, Any]:
    return {name: value - task.base[name] for name, value in weights_of(model).items()}


ReturnsNothing = spoiling(lambda _: None)

WRONG_TRAINERS: dict[str, tuple[type[Any], Reason]] = {
    "that never uses the guard": (WithoutTheGuard, Reason.NO_PRIVACY_EVENT),
    "that draws a sample and takes no step": (DrawsButNeverSteps, Reason.NO_PRIVACY_EVENT),
    "that loosens the configuration": (LoosensTheGuard, Reason.UNSAFE_TRAINING),
    "that uses a batch twice": (StepsTwiceOnOneBatch, Reason.UNSAFE_TRAINING),
    "that adds a parameter": (
        with_arrays(lambda arrays: {**arrays, "rows": np.ones(3, np.float32)}),
        Reason.WRONG_SHAPES,
    ),
    "that leaves a parameter out": (
        with_arrays(lambda arrays: {"linear.bias": arrays["linear.bias"]}),
        Reason.WRONG_SHAPES,
    ),
    "that returns NaN": (
        with_arrays(lambda arrays: {n: a * np.float32("nan") for n, a in arrays.items()}),
        Reason.NON_FINITE,
    ),
    "that returns float64": (
        with_arrays(lambda arrays: {n: a.astype(np.float64) for n, a in arrays.items()}),
        Reason.LEAKAGE,
    ),
    "that returns objects": (with_arrays(lambda arrays: dict.fromkeys(arrays, ROW)), Reason.LEAKAGE),
    "that returns another update of the right shape": (
        with_arrays(lambda arrays: {n: a + np.float32(1e-3) for n, a in arrays.items()}),
        Reason.LEAKAGE,
    ),
    "that returns one bit of its own": (
        with_arrays(lambda arrays: {n: np.nextafter(a, np.float32(np.inf)) for n, a in arrays.items()}),
        Reason.LEAKAGE,
    ),
    "that states an epsilon of its own": (
        spoiling(lambda trained: replace(trained, metrics={"epsilon": 0.4242})),
        Reason.LEAKAGE,
    ),
    "whose update is larger than agreed": (
        with_arrays(lambda arrays: {n: a * np.float32(1e6) for n, a in arrays.items()}),
        Reason.NORM_EXCEEDED,
    ),
    "that reports its loss": (spoiling(lambda trained: replace(trained, metrics={"loss": 0.3})), Reason.LEAKAGE),
    "that reports how many rows it has": (
        spoiling(lambda trained: replace(trained, metrics={"rows": 57})),
        Reason.LEAKAGE,
    ),
    "that restates another number of steps": (
        spoiling(lambda trained: replace(trained, metrics={"steps": 3})),
        Reason.LEAKAGE,
    ),
    "that fails with a row in its message": (FailsWithARow, Reason.INTERNAL),
    "that returns nothing": (ReturnsNothing, Reason.INTERNAL),
}


REHEARSED = {
    "that never uses the guard",
    "that draws a sample and takes no step",
    "that loosens the configuration",
    "that fails with a row in its message",
}
"""Found out on synthetic rows, before anything is reserved."""


@pytest.fixture
def site(federation: Federation) -> Any:
    return federation.create()


@pytest.mark.parametrize("which", sorted(REHEARSED))
def test_nothing_leaves_and_nothing_is_spent_on_a_trainer(which: str, site: Any, federation: Federation) -> None:
    trainer, reason = WRONG_TRAINERS[which]
    opened = site.open(seed=5, clock=federation.clock, trainer=trainer())
    before = site.ledger_entries()
    with pytest.raises(EnclaveError) as refused:
        opened.session.run(federation.order(federation.job()))
    opened.close()
    assert refused.value.reason is reason
    assert site.ledger_entries() == before
    assert [(line["outcome"], line["reason"]) for line in site.log()] == [("refused", reason.value)]


@pytest.mark.parametrize("which", sorted(WRONG_TRAINERS.keys() - REHEARSED))
def test_nothing_leaves_and_the_round_stays_charged_from_a_trainer(
    which: str, site: Any, federation: Federation
) -> None:
    trainer, reason = WRONG_TRAINERS[which]
    opened = site.open(seed=5, clock=federation.clock, trainer=trainer())
    with pytest.raises(EnclaveError) as refused:
        opened.session.run(federation.order(federation.job()))
    claim = opened.ledger.lineage_claim(site.lineage)
    opened.close()
    assert refused.value.reason is reason
    assert claim.open_reservations == 1
    assert claim.spent_pico == 4 * site.ledger_entries()[2]["step_cost_pico"]
    assert [(line["outcome"], line["reason"]) for line in site.log()] == [("granted", None), ("refused", reason.value)]


def test_a_repaired_trainer_answers_the_same_order_under_the_same_reservation(
    site: Any, federation: Federation
) -> None:
    order = federation.order(federation.job())
    broken = site.open(seed=5, clock=federation.clock, trainer=ReturnsNothing())
    with pytest.raises(EnclaveError):
        broken.session.run(order)
    broken.close()
    repaired = site.open(seed=5, clock=federation.clock)
    repaired.session.run(order)
    claim = repaired.ledger.lineage_claim(site.lineage)
    repaired.close()
    entries = site.ledger_entries()
    assert [entry["type"] for entry in entries].count("reserved") == 1
    assert (claim.open_reservations, claim.spent_pico) == (0, 4 * entries[2]["step_cost_pico"])


def test_another_computation_is_refused_for_a_round_that_was_reserved_and_never_answered(
    site: Any, federation: Federation
) -> None:
    broken = site.open(seed=5, clock=federation.clock, trainer=ReturnsNothing())
    with pytest.raises(EnclaveError):
        broken.session.run(federation.order(federation.job()))
    broken.close()
    before = site.ledger_entries()
    opened = site.open(seed=5, clock=federation.clock)
    with pytest.raises(LedgerConflict, match="reserved for another computation"):
        opened.session.run(federation.order(federation.job(), federation.weights(0.5)))
    opened.close()
    assert site.ledger_entries() == before


def test_even_without_privacy_on_public_rows_a_loop_runs_under_the_guard(site: Any, federation: Federation) -> None:
    job = federation.job(privacy={"mechanism": "NON_PRIVATE", "target_epsilon": None, "noise_multiplier": None})
    opened = site.open(clock=federation.clock, trainer=WithoutTheGuard())
    with pytest.raises(EnclaveError) as refused:
        opened.session.run(federation.order(job))
    opened.close()
    assert refused.value.reason is Reason.NO_PRIVACY_EVENT


def test_the_text_of_a_foreign_failure_is_in_no_log_and_its_place_is(site: Any, federation: Federation) -> None:
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0  # Flower stamps messages with it
    order = federation.order(federation.job())
    record = ConfigRecord({**order.to_fields()})
    message = Message(content=RecordDict({"aegis": record}), dst_node_id=1, message_type="train")
    opened = site.open(clock=federation.clock, trainer=FailsWithARow())
    reply = client_app(opened.session)(message, None)
    opened.close()
    assert (reply.error.code, reply.error.reason) == (1000, "internal")
    assert not reply.has_content()
    message = site.log()[-1]["details"]["message"]
    assert re.fullmatch(r"ValueError in the training loop, at test_trainers\.py, line \d+", message)
    assert ROW not in (site.folder / "audit.jsonl").read_text()


@pytest.mark.parametrize(
    "claimed", [PoissonSampledGaussian(50.0, 0.5, 1), PoissonSampledGaussian(2.0, 0.5, 400), NonPrivate()], ids=repr
)
def test_the_event_that_is_released_is_the_one_the_gate_counted(
    claimed: Any, site: Any, federation: Federation
) -> None:
    trainer = spoiling(lambda trained: replace(trained, event=claimed))()
    opened = site.open(clock=federation.clock, trainer=trainer)
    answer = opened.session.run(federation.order(federation.job()))
    opened.close()
    keys = KeyRing({"clinic-1": site.public_key})
    said = UpdateStatement.from_payload(open_envelope(answer.envelope, UPDATE_TYPE, keys).payload)
    counted = PoissonSampledGaussian(2.0, 0.5, 4)
    assert event_from_dict(said.event) == counted == event_from_dict(site.ledger_entries()[-1]["event"])


# --- the end of a reservation ---------------------------------------------------------------------------------


class OwnLoop(Honest):
    """A loop as the site's author writes it, ``steps`` long whatever the job says."""

    def __init__(self, steps: int, *, checked: bool = True) -> None:
        self.steps, self.checked, self.epsilons = steps, checked, list[float]()

    def train(self, task: TrainingTask) -> TrainedUpdate:
        model, optimizer, loader, criterion = attached(task, task.job.privacy)
        guard = PrivacyGuard(config=task.job.privacy)  # a second one counts on the same reservation
        done = 0
        while done < self.steps:
            for features, labels in loader:
                optimizer.zero_grad()
                criterion(model(features), labels).backward()
                if self.checked:
                    guard.check_budget()
                optimizer.step()
                done += 1
                if done == self.steps:
                    break
        return TrainedUpdate(difference(task, model), task.scope.event(), {"steps": guard.steps_taken})


def test_an_ordinary_loop_with_the_jobs_own_configuration_gives_the_standard_update(
    site: Any, federation: Federation
) -> None:
    job = federation.job(privacy={"delta": None, "unit": None})  # as stated, not as resolved
    answers = []
    for trainer in (LocalSgdTrainer(), OwnLoop(4)):
        opened = site.open(seed=5, clock=federation.clock, trainer=trainer)
        answers.append(opened.session.run(federation.order(job)))
        opened.close()
    assert answers[0].arrays == answers[1].arrays


def test_a_loop_that_ends_early_is_charged_for_what_it_ran(site: Any, federation: Federation) -> None:
    opened = site.open(clock=federation.clock, trainer=OwnLoop(3))
    opened.session.run(federation.order(federation.job()))
    claim = opened.ledger.lineage_claim(site.lineage)
    opened.close()
    entries = site.ledger_entries()
    assert entries[-1]["event"]["steps"] == 3
    assert claim.spent_pico == 3 * entries[2]["step_cost_pico"]


@pytest.mark.parametrize("checked", [True, False], ids=["checking the budget", "without checking the budget"])
def test_a_loop_beyond_its_reservation_is_stopped_before_the_step_and_releases_nothing(
    checked: bool, site: Any, federation: Federation
) -> None:
    opened = site.open(seed=5, clock=federation.clock, trainer=OwnLoop(5, checked=checked))
    with pytest.raises(PrivacyBudgetExceededError, match="step 5 is not affordable and did not run"):
        opened.session.run(federation.order(federation.job()))
    claim = opened.ledger.lineage_claim(site.lineage)
    opened.close()
    entries = site.ledger_entries()
    assert entries[-1]["type"] == "committed"
    assert (entries[-1]["event"]["steps"], entries[-1]["update_digest"]) == (4, None)
    assert (claim.open_reservations, claim.spent_pico) == (0, 4 * entries[2]["step_cost_pico"])


class SwallowsTheRefusal(Honest):
    """Asks for one step more than is reserved, and returns what it has as if nothing had been said."""

    def train(self, task: TrainingTask) -> TrainedUpdate:
        update = LocalSgdTrainer().train(task)
        with contextlib.suppress(PrivacyBudgetExceededError):
            task.scope.gate.next_draw()
        return update


def test_a_loop_that_swallows_the_refusal_releases_nothing_either(site: Any, federation: Federation) -> None:
    opened = site.open(seed=5, clock=federation.clock, trainer=SwallowsTheRefusal())
    with pytest.raises(PrivacyBudgetExceededError, match="more than the 4 steps that are reserved"):
        opened.session.run(federation.order(federation.job()))
    opened.close()
    last = site.ledger_entries()[-1]
    assert (last["type"], last["event"]["steps"], last["update_digest"]) == ("committed", 4, None)


def test_an_exported_ledger_confirms_no_guess_of_the_rows(site: Any, federation: Federation) -> None:
    opened = site.open(seed=5, clock=federation.clock)
    opened.session.run(federation.order(federation.job()))
    export, dataset = opened.ledger.export(), opened.session.sentry.open("clinic/visits")
    opened.close()
    rows = site.folder / "data" / "clinic" / "visits" / "rows.csv"
    for guess in (dataset.digest, sha256_hex(rows.read_bytes())):
        assert guess.encode() not in export
    assert export.count(b"content_noted") == 1  # noted all the same: the site can recompute its own mark


def test_a_round_that_overran_cannot_be_answered_later(site: Any, federation: Federation) -> None:
    order = federation.order(federation.job())
    for trainer, refusal in ((OwnLoop(5), PrivacyBudgetExceededError), (LocalSgdTrainer(), LedgerConflict)):
        opened = site.open(seed=5, clock=federation.clock, trainer=trainer)
        with pytest.raises(refusal):
            opened.session.run(order)
        opened.close()
    assert [entry["type"] for entry in site.ledger_entries()].count("committed") == 1


def test_a_training_that_is_asked_to_stop_stops_and_may_be_asked_again(site: Any, federation: Federation) -> None:
    order = federation.order(federation.job())
    opened = site.open(seed=5, clock=federation.clock)
    polls = iter([*[False] * 4, False, False, True])  # four times while it is rehearsed
    with pytest.raises(EnclaveError) as refused:
        opened.session.run(order, aborted=lambda: next(polls))
    assert refused.value.reason is Reason.ABORTED
    assert opened.ledger.lineage_claim(site.lineage).open_reservations == 1
    opened.session.run(order)
    assert opened.ledger.lineage_claim(site.lineage).open_reservations == 0
    opened.close()


def test_two_rounds_in_one_thread_never_share_a_scope(site: Any, federation: Federation) -> None:
    class NestsASession(Honest):
        def train(self, task: TrainingTask) -> TrainedUpdate:
            opened.session.run(federation.order(federation.job(job_id="study-2")))
            raise AssertionError("unreachable")

    opened = site.open(clock=federation.clock, trainer=NestsASession())
    with pytest.raises(LedgerError, match=r"raised at coreason_enclave/ledger/sqlite\.py"):
        opened.session.run(federation.order(federation.job()))
    opened.close()
    assert "in use by another session" in site.log()[-2]["details"]["message"]


# --- what a coordinator could learn from a refusal ------------------------------------------------------------


@pytest.mark.parametrize("rows", ["", "p900,5.37,5,5,1\n"], ids=["she is not there", "she is there"])
def test_weights_chosen_to_overflow_on_one_person_do_not_tell_by_a_refusal_that_she_is_there(
    rows: str, federation: Federation
) -> None:
    """The first logit is infinite for age 5.37 (0.074, scaled), and zero a ten-thousandth away.

    Weights of this size are refused unless a site allows them: see
    tests/coreason_enclave/session/test_bounded_base_models.py.
    """
    site = federation.create(policy={"max_base_weight": 3e38, "max_logit": 3e38})
    table = site.folder / "data/clinic/visits/rows.csv"
    table.write_text(table.read_text() + rows)
    base = {
        "hidden.weight": np.array([[1e6, 0, 0], [1e6, 0, 0]], np.float32),
        "hidden.bias": np.array([-0.07398e6, -0.07402e6], np.float32),
        "output.weight": np.array([[1.9e38, -1.9e38], [0, 0]], np.float32),
        "output.bias": np.zeros(2, np.float32),
    }
    job = federation.job(
        model_arch="SimpleMLP",
        model_args={"in_features": 3, "hidden": 2},
        privacy={"sample_rate": 1.0, "noise_multiplier": 6.0},
    )
    opened = site.open(clock=federation.clock)
    assert opened.session.run(federation.order(job, base)).arrays
    opened.close()
    assert [line["outcome"] for line in site.log()] == ["granted", "sealed"]
