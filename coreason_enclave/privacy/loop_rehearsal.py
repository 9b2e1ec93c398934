"""Rehearsal of a session's training loop: the whole loop, including a user's own, over synthetic rows only.

The rehearsal runs before the ledger reserves the round, so a loop that mixes rows costs nothing. The rehearsal leaves
no trace: gate, keystream and reservation are its own. The loop ends at its first step, once for each arrangement of
rows. Refusals depend on the job, the declared schema and the loop alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import torch

from coreason_enclave.accounting import privacy_event
from coreason_enclave.crypto import Keystream
from coreason_enclave.datasets import DatasetSchema, synthetic_dataset
from coreason_enclave.errors import DataLeakageError, Reason, UnsafeTrainingError
from coreason_enclave.ledger import Reservation
from coreason_enclave.privacy.drift_correction import DriftCorrection
from coreason_enclave.privacy.kernel import Rehearsal, RehearsalEnded, declared_blocks
from coreason_enclave.privacy.loop_failures import contained
from coreason_enclave.privacy.scope import TrainingScope, enter
from coreason_enclave.privacy.step_gate import StepGate
from coreason_enclave.privacy.training import LocalSgdTrainer, Trainer, TrainingTask
from coreason_enclave.schemas import (
    AttestationReport,
    FederationJob,
    NeighboringRelation,
    PrivacyConfig,
    PrivacyUnit,
)
from coreason_enclave.wire import Arrays


@dataclass(frozen=True)
class Rehearsed:
    """The parts of an accepted job that the rehearsal of its training loop needs.

    Attributes:
        job: the job, with every value resolved.
        requested: its privacy configuration as the job stated it.
        schema: the dataset's declaration.
    """

    job: FederationJob
    requested: PrivacyConfig
    base: Arrays
    schema: DatasetSchema
    nominal_units: int
    drift: DriftCorrection | None
    trusted: Callable[[], AttestationReport]
    aborted: Callable[[], bool]


def rehearse(trainer: Trainer, subject: Rehearsed) -> Rehearsal:
    """Run the loop of ``trainer`` over synthetic rows until all arrangements pass, and return the rehearsal.

    Raises:
        UnsafeTrainingError: loop, model or loss mixes rows, or the loop swallowed the end of its rehearsal.
        DataLeakageError: the loop took no step under a guard.
        EnclaveError: any other failure of the loop, without its text.
    """
    rehearsal = Rehearsal(declared_blocks(subject.job.privacy.sample_rate, subject.nominal_units), ends_loop=True)
    while not rehearsal.complete:
        _run_once(trainer, subject, rehearsal)
    if rehearsal.failure is not None:
        raise rehearsal.failure
    return rehearsal


def _run_once(trainer: Trainer, subject: Rehearsed, rehearsal: Rehearsal) -> None:
    rehearsal.begin_loop()
    task = _task(subject, rehearsal)

    def train() -> bool:
        try:
            trainer.train(task)
        except RehearsalEnded:
            return False
        return True

    try:
        with enter(task.scope), torch.random.fork_rng(devices=[]):
            returned = contained(train, own=type(trainer) is LocalSgdTrainer)
    except Exception:
        if not rehearsal.ended:  # the loop's own failure, independent of any real row
            raise
        return
    if not returned:
        return
    if rehearsal.ended:
        raise UnsafeTrainingError("the training loop caught RehearsalEnded: let it pass, and catch only Exception")
    raise DataLeakageError("no private step was taken: use what attach returns", reason=Reason.NO_PRIVACY_EVENT)


def _task(subject: Rehearsed, rehearsal: Rehearsal) -> TrainingTask:
    dataset = synthetic_dataset(subject.schema, rehearsal.rows_needed)
    privacy, reservation = subject.job.privacy, _imagined(subject.job)
    scope = TrainingScope(
        config=privacy,
        requested=subject.requested,
        reservation=reservation,
        gate=StepGate(reservation.step_limit, privacy.target_epsilon),
        keystream=Keystream(
            secrets.token_bytes(32), job_digest="", round_number=1, base_model_digest="", dataset_digest=""
        ),
        nominal_units=subject.nominal_units,
        unit_of_row=dataset.unit_ids,
        drift=subject.drift,
        base=subject.base,
        rehearsal=rehearsal,
    )
    return TrainingTask(subject.job, subject.base, dataset, scope, subject.aborted, subject.trusted)


def _imagined(job: FederationJob) -> Reservation:
    """Return a made-up reservation, shaped like the ledger's."""
    privacy = job.privacy
    return Reservation(
        reservation_id="00" * 32,
        lineage="rehearsal",
        job_id=job.job_id,
        round_number=1,
        event=privacy_event(privacy, job.local_steps),
        step_limit=job.local_steps,
        prior_events=(),
        recomputed=False,
        actual=None,
        update_digest=None,
        target_epsilon=privacy.target_epsilon,
        delta=privacy.delta,
        unit=PrivacyUnit.RECORD if privacy.unit is None else privacy.unit,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        noise_source=None,
    )
