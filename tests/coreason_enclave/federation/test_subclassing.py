"""Loops that users write, in FLARE's process: what the gate counted is what leaves, or nothing leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nvflare.apis.dxo import DataKind, from_shareable

from coreason_enclave.accounting import compose_epsilon
from coreason_enclave.accounting.events import PoissonSampledGaussian, event_from_dict
from coreason_enclave.errors import AttestationError, ConfigurationError, EnvelopeError, JobRejected, Reason
from coreason_enclave.federation.executor import CoreasonExecutor
from coreason_enclave.federation.nvflare.tasks import JOB_META, job_in
from coreason_enclave.federation.nvflare.trainer import ExecutorTrainer
from coreason_enclave.hardware.simulated import SimulatedAttester
from coreason_enclave.schemas import FederationJob
from coreason_enclave.sentry import DataSentry
from tests.coreason_enclave.federation import loops
from tests.coreason_enclave.federation.conftest import AfterLooks, Flare
from tests.coreason_enclave.federation.test_tasks import types
from tests.support.studies import REHEARSALS

Run = Callable[..., Flare]
CAP = {"noise_multiplier": 1.0, "sample_rate": 0.05, "target_epsilon": 3.0, "delta": 1e-5}


@pytest.fixture
def run(flare: Flare) -> Run:
    """FLARE around an executor of this class."""

    def given(kind: type[CoreasonExecutor]) -> Flare:
        flare.executor = kind()
        return flare

    return given


def committed(site: Any) -> dict[str, Any]:
    entry = site.ledger_entries()[-1]
    assert entry["type"] == "committed"
    return dict(entry)


def test_a_subclass_as_its_users_write_it_runs_unchanged(run: Run) -> None:
    flare = run(loops.SecureAgent)
    said = flare.statement(flare.ask("train", flare.order()))

    event = event_from_dict(said.event)
    assert event == PoissonSampledGaussian(2.0, 0.5, 2)  # one epoch at rate 0.5
    assert said.metrics == {"epsilon": compose_epsilon([event], 1e-5).epsilon}
    assert committed(flare.site)["update_digest"] == said.update_digest


def test_the_privacy_history_persists_over_rounds_and_executors(run: Run) -> None:
    epsilons = []
    for number in (1, 2, 3):
        flare = run(loops.SecureAgent)
        epsilons.append(flare.statement(flare.ask("train", flare.order(round_number=number))).metrics["epsilon"])
        flare.end()
    one = PoissonSampledGaussian(2.0, 0.5, 2)

    assert epsilons == [compose_epsilon([one] * rounds, 1e-5).epsilon for rounds in (1, 2, 3)]


def test_a_loop_that_does_as_the_standard_one_gives_the_same_update(run: Run, standard: Callable[..., str]) -> None:
    said = {}
    for kind in (loops.StandardLoopInTheirOwnWords, loops.AddsToTheStandardLoop):
        flare = run(kind)
        said[kind] = flare.statement(flare.ask("train", flare.order())).update_digest
        for kept in (flare.site.folder / "released").glob("*/*.update"):
            kept.unlink()  # so that the next one computes it
        flare.end()

    assert set(said.values()) == {standard(flare.site, flare.federation.job())}


@pytest.mark.parametrize("kind", [loops.WeightsInADxo, loops.WeightsInAShareable, loops.DifferenceInADxo])
def test_weights_and_differences_may_be_returned_as_flare_carries_them(run: Run, kind: type[CoreasonExecutor]) -> None:
    digests = []
    for one in (loops.Loop, kind):
        flare = run(one)
        order = flare.order(base=flare.federation.weights(0.25))
        digests.append(flare.statement(flare.ask("train", order)).update_digest)
        for kept in (flare.site.folder / "released").glob("*/*.update"):
            kept.unlink()
        flare.end()

    assert digests[0] == digests[1]


@pytest.mark.parametrize("what", loops.UNRELEASABLE)
def test_nothing_leaves_from_a_loop_that_returns(what: str, run: Run) -> None:
    kind, reason = loops.UNRELEASABLE[what]
    flare = run(kind)

    assert flare.refused("train", flare.order()) == ("EXECUTION_RESULT_ERROR", reason)
    assert types(flare.site)[-1] == "content_noted"  # reserved, and never committed: it stays charged in full


@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        (loops.NeverAttaches, "EXECUTION_RESULT_ERROR", "no_privacy_event"),
        (loops.FailsWithARow, "EXECUTION_EXCEPTION", "internal"),
        (loops.ExitsTheProcess, "EXECUTION_EXCEPTION", "internal"),
        (loops.RepliesWithAnError, "EXECUTION_EXCEPTION", "internal"),
        (loops.RepliesAborted, "TASK_ABORTED", "aborted"),
    ],
)
def test_a_loop_that_does_not_train_releases_nothing(
    kind: type[CoreasonExecutor], code: str, reason: str, run: Run
) -> None:
    flare = run(kind)

    assert flare.refused("train", flare.order()) == (code, reason)
    assert "committed" not in types(flare.site)


# --- the budget -----------------------------------------------------------------------------------------------


def capped(flare: Flare) -> FederationJob:
    """A cap of 3 that affords 68 steps, in one round of all of them."""
    job: FederationJob = flare.federation.job(rounds=1, local_steps=68, momentum=0.0, privacy=CAP)
    return job


def test_exactly_the_affordable_steps_succeed(run: Run) -> None:
    flare = run(loops.ToTheLastAffordableStep)
    said = flare.statement(flare.ask("train", flare.order(capped(flare))))

    assert event_from_dict(said.event) == PoissonSampledGaussian(1.0, 0.05, 68)
    assert said.epsilon is not None
    assert 2.97 < said.epsilon <= 3.0


@pytest.mark.parametrize(
    "kind", [loops.FiveEpochs, loops.FiveEpochsWithoutAsking, loops.SwallowsTheRefusal], ids=lambda kind: kind.__name__
)
def test_five_epochs_of_twenty_steps_end_at_the_budget_and_release_nothing(
    run: Run, kind: type[CoreasonExecutor]
) -> None:
    flare = run(kind)

    assert flare.refused("train", flare.order(capped(flare))) == ("BAD_REQUEST_DATA", "budget_exceeded")
    entry = committed(flare.site)
    assert (entry["event"]["steps"], entry["update_digest"]) == (68, None)


def test_a_job_whose_schedule_overspends_is_refused_before_any_step(run: Run) -> None:
    flare = run(loops.FiveEpochs)
    job = flare.federation.job(rounds=1, local_steps=69, privacy=CAP)

    assert flare.refused("train", flare.order(job)) == ("BAD_REQUEST_DATA", "budget_exceeded")
    assert types(flare.site) == ["founded", "registered"]


# --- abort ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [loops.SecureAgent, loops.FiveEpochs, loops.LooksAtNothing, loops.SwallowsTheAbort, loops.AddsToTheStandardLoop],
    ids=lambda kind: kind.__name__,
)
def test_an_abort_between_two_steps_releases_nothing_and_is_paid_once(run: Run, kind: type[CoreasonExecutor]) -> None:
    flare = run(kind)
    job = flare.federation.job(local_steps=12, rounds=1)
    order = flare.order(job)
    looks = 3 + (REHEARSALS if getattr(kind, "looks", True) else 0)
    assert flare.refused("train", order, AfterLooks(looks)) == ("TASK_ABORTED", "aborted")
    assert types(flare.site)[-1] == "content_noted"

    flare.statement(flare.ask("train", order))
    assert types(flare.site).count("reserved") == 1
    assert types(flare.site)[-1] == "committed"


def test_a_loop_that_fails_because_it_is_stopped_was_aborted(run: Run) -> None:
    flare = run(loops.FailsWhenItIsStopped)

    assert flare.refused("train", flare.order(), AfterLooks(3)) == ("TASK_ABORTED", "aborted")


# --- what a loop is given -------------------------------------------------------------------------------------


def test_each_task_has_a_fresh_model_with_the_global_weights_and_a_loader_of_single_rows(run: Run) -> None:
    flare = run(loops.Loop)
    seen = []
    for number, scale in ((1, 0.0), (2, 0.25)):
        flare.ask("train", flare.order(base=flare.federation.weights(scale), round_number=number))
        seen.append(flare.executor.seen)

    shareable, context, _, loader = seen[1]
    task = from_shareable(shareable)
    assert (task.data_kind, task.get_meta_prop("current_round")) == (DataKind.WEIGHTS, 2)
    for name, array in flare.federation.weights(0.25).items():
        assert type(task.data[name]) is np.ndarray
        np.testing.assert_array_equal(task.data[name], array)
    assert seen[0][2] is not seen[1][2]
    assert loader.batch_size == 1
    assert context.get_identity_name() == "clinic-1"


def test_outside_a_task_there_is_nothing_to_train_with(run: Run) -> None:
    flare = run(loops.SecureAgent)
    flare.ask("train", flare.order())
    executor = flare.executor

    assert not {"model", "loader", "criterion", "sentry"} & vars(executor).keys()
    with pytest.raises(AttestationError, match="only within a task"):
        executor._check_hardware_trust()
    with pytest.raises(ConfigurationError, match="only while a task"):
        executor._parse_job_config(None)


class ReadsTheJob(loops.Loop):
    """Keeps what it was told about job and host."""

    def _execute_training(self, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        self.job, self.result = self._parse_job_config(shareable), self._check_hardware_trust()
        return super()._execute_training(shareable, fl_ctx, abort_signal)


def test_a_loop_reads_the_resolved_job_and_the_result_that_released_the_model(run: Run) -> None:
    flare = run(ReadsTheJob)
    job = flare.federation.job(privacy={"delta": None, "unit": None, "noise_multiplier": None})
    flare.ask("train", flare.order(job))

    privacy = flare.executor.job.privacy
    assert (privacy.delta, privacy.unit) == (1e-5, "person")
    assert privacy.noise_multiplier > 0
    assert (flare.executor.result.subject, flare.executor.result.provenance) == ("clinic-1", "simulated")
    assert flare.executor.result.job_digest == job.digest()


class StatesAnotherJob(loops.Loop):
    """Changes the job in the shareable before it parses it."""

    def _execute_training(self, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        shareable["DXO"]["meta"][JOB_META]["privacy"]["noise_multiplier"] = 0.5
        return super()._execute_training(shareable, fl_ctx, abort_signal)


def test_another_job_than_the_accepted_one_is_not_parsed(run: Run) -> None:
    flare = run(StatesAnotherJob)

    assert flare.refused("train", flare.order()) == ("BAD_TASK_DATA", "wrong_digest")


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (lambda document: document.update(rounds=4), JobRejected),
        (lambda document: document.update(rounds="many"), EnvelopeError),
        (lambda document: document.pop("privacy"), EnvelopeError),
        (lambda document: document.update(more=1), EnvelopeError),
        (lambda document: document.clear(), EnvelopeError),
    ],
)
def test_a_job_in_a_shareable_is_checked_whole(
    run: Run, change: Callable[[dict[str, Any]], Any], refused: type[Exception]
) -> None:
    flare = run(ReadsTheJob)
    flare.ask("train", flare.order())
    shareable, accepted = flare.executor.seen[0], flare.executor.job
    assert job_in(shareable, accepted) == accepted
    change(shareable["DXO"]["meta"][JOB_META])
    with pytest.raises(refused):
        job_in(shareable, accepted)


class TrustsAfter(loops.SecureAgent):
    """Asks for the host's result when time has passed."""

    def __init__(self, passes: Callable[[], None]) -> None:
        super().__init__()
        self.passes, self.trusts = passes, False

    def _execute_training(self, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        self.passes()
        self._check_hardware_trust()
        self.trusts = True
        return super()._execute_training(shareable, fl_ctx, abort_signal)


class BrokenAttester:
    kind = "simulated"

    def produce(self, context: bytes) -> Any:
        raise OSError("the device has gone")


@pytest.mark.parametrize(
    ("seconds", "breaks", "reason"),
    [
        (0, True, None),  # not asked again yet
        (500, False, None),  # proved again
        (500, True, Reason.ATTESTATION_UNAVAILABLE),
        (700, False, Reason.ATTESTATION_REQUIRED),
    ],
)
def test_trust_ends_when_the_result_expires_or_the_host_proves_itself_no_more(
    federation: Any, seconds: int, breaks: bool, reason: Reason | None
) -> None:
    site, now, runs = federation.create(), [federation.clock()], list[None]()

    def passes() -> None:
        runs.append(None)
        if len(runs) <= REHEARSALS:
            return
        executor.trusts = False
        now[0] += seconds
        if breaks:
            opened.session.handshake.attester = BrokenAttester()

    executor = TrustsAfter(passes)
    trainer = ExecutorTrainer(executor, "clinic-1", DataSentry(site.folder / "data"))
    opened = site.open(clock=lambda: now[0], trainer=trainer)
    try:
        if reason is None:
            opened.session.handshake.prove_update = lambda *_: SimulatedAttester().produce(b"")
            assert opened.session.run(federation.order(federation.job())).arrays
        else:
            with pytest.raises(AttestationError) as refused:
                opened.session.run(federation.order(federation.job()))
            assert refused.value.reason is reason
    finally:
        opened.close()
    assert executor.trusts == (reason is None)
