"""The secure session: all steps of a site with one order, in the only allowed sequence.

1. *accept*: check signature, address, expiry, site policy, the data lineage's unit and delta, and the roll-call. The
   ledger must know every head it ever signed; the coordinator's log must continue the checkpoint seen before.
2. *attest*: both ends prove themselves to each other; otherwise the site cannot decrypt the model.
3. *check*: find every fault that needs no row.
4. *rehearse*: run model, loss and training loop on synthetic rows, to show that they keep rows apart.
5. *reserve*: check that the job draws from the same content under the same key as before; then charge the round's worst
   case durably, before looking at any row.
6. *validate*: turn the dataset id into checked rows below the data root.
7. *train*: train under the reservation; the step gate's count gives the event.
8. *sanitise*: let through the airlock only an update of the right shape with a recorded event, exactly as the private
   steps reached it.
9. *keep*: store the update's bytes durably, so that the site resends a lost answer without computing it again.
10. *commit*: record the event and the update's digest durably, before anything leaves.
11. *seal*: collect fresh evidence; sign digest, event, evidence, round and nonce; encrypt the update to the
    coordinator's key.

The session is framework-neutral: bytes in, bytes out. Refusals raise; only their reason code may be sent on. Asked
again for the same computation, a site seals the kept bytes again. If the bytes are gone, the site recomputes the same
bytes under the same reservation. Neither case spends more budget.

Operations that do not train and spend no budget:

- *validate*: evaluate an order's model on the site's own rows, for the site only.
- *submit*: send an earlier released update again.
- *enrol*: before a job's first round, sign that the site takes part in this very job.
- *attest*: before receiving a model, prove what runs here (:mod:`coreason_enclave.session.handshake`).
- *witness*: after the run, keep the last checkpoint of the coordinator's log (:mod:`coreason_enclave.witness`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coreason_enclave.accounting import Event, NonPrivate, event_to_dict
from coreason_enclave.attestation import Attester
from coreason_enclave.attestation.verify import in_words
from coreason_enclave.crypto import HashLog, JobKeys, Keystream, Signer, seal, sha256_hex
from coreason_enclave.datasets import SiteDataset, synthetic_dataset
from coreason_enclave.errors import (
    AttestationError,
    ConfigurationError,
    DataLeakageError,
    DatasetRejected,
    EnclaveError,
    JobRejected,
    PrivacyBudgetExceededError,
    Reason,
    TrainingAborted,
)
from coreason_enclave.ledger import (
    Draw,
    NoiseSource,
    Plan,
    PrivacyLedger,
    Reservation,
    RoundPlan,
    left_in_words,
    open_head,
    require_known,
    seal_head,
    steps_in_words,
)
from coreason_enclave.models import evaluate, require_bounded_logits
from coreason_enclave.policy import SiteConfig
from coreason_enclave.privacy import (
    LocalSgdTrainer,
    Rehearsed,
    StepGate,
    Trainer,
    TrainingScope,
    TrainingTask,
    contained,
    drift_of,
    enter,
    failure_without_words,
    rehearse,
    require_known_metrics,
    require_reached,
)
from coreason_enclave.privacy.kernel import Rehearsal
from coreason_enclave.schemas import AttestationReport, Profile
from coreason_enclave.sentry import DataSentry
from coreason_enclave.session.acceptance import (
    AcceptedJob,
    ResolvedJob,
    accept,
    accept_announcement,
    accept_attestation_request,
    accept_invitation,
)
from coreason_enclave.session.continuity import mark_of_content, mark_of_key, require_same_content, require_same_key
from coreason_enclave.session.handshake import SiteHandshake
from coreason_enclave.session.local_metrics import LocalMetricsLog
from coreason_enclave.session.preflight import require_declared, require_sound_model
from coreason_enclave.session.update_store import StoredUpdate, UpdateStore
from coreason_enclave.wire import (
    ATTESTATION_TYPE,
    ENROLMENT_TYPE,
    UPDATE_TYPE,
    Aborted,
    AnswersByMethod,
    Enrolment,
    LedgerHeadStatement,
    LogSeen,
    ReleasableUpdate,
    RequestKind,
    SealedMessage,
    TrainedUpdate,
    UpdateStatement,
    immutable,
    layout_of,
    never,
)
from coreason_enclave.witness import CheckpointStore, ShownLog, witness_statement


@dataclass(frozen=True)
class SecureSession(AnswersByMethod):
    """One site's side of every round.

    Collaborators are injected. State lives in ledger, log, checkpoints and released updates. Messages to a person at
    the site name ``ledger_file``.
    """

    config: SiteConfig
    signer: Signer
    attester: Attester
    handshake: SiteHandshake
    ledger: PrivacyLedger
    ledger_file: Path
    sentry: DataSentry
    trainer: Trainer
    job_keys: JobKeys
    log: HashLog
    released: UpdateStore
    local_metrics: LocalMetricsLog
    checkpoints: CheckpointStore
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        if self.attester.kind == "simulated" and self.config.profile is not Profile.DEVELOPMENT:
            raise AttestationError("a simulated attester needs profile development; production sites need hardware")
        if (self.attester.kind == "unattested") != (self.config.profile is Profile.UNATTESTED):
            raise AttestationError("profile unattested needs the attester unattested, and no other profile accepts it")
        if self.job_keys.unsafe_seeded and self.config.profile is not Profile.DEVELOPMENT:
            raise ConfigurationError("injected keys need profile development: the seed lets anyone subtract the noise")
        if self.handshake.kem_keys.unsafe_derived and self.config.profile is not Profile.DEVELOPMENT:
            raise ConfigurationError("derived keys need profile development: their file would decrypt every model")

    def handle(self, kind: RequestKind, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage | None:
        """See :class:`~coreason_enclave.wire.handler.Handler`."""
        return self.run(message, aborted=aborted) if kind is RequestKind.TRAIN else super().handle(kind, message)

    def run(self, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage:
        """Answer one order with one sealed update.

        Raises:
            EnclaveError: a refusal; its ``reason`` may go to the coordinator, its message stays here.
        """
        with self._refusals_logged("round", message):
            return self._answer(message, aborted)

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """Answer an invitation with this site's signed enrolment in the job. Spends no budget.

        Raises:
            EnclaveError: a refusal; its ``reason`` may go to the coordinator, its message stays here.
        """
        with self._refusals_logged("enrolment", message):
            return self._enrol(accept_invitation(message, self.config, self.clock()))

    def attest(self, message: SealedMessage) -> SealedMessage:
        """Answer a coordinator's challenge with evidence of what runs here. Spends no budget.

        Raises:
            EnclaveError: a refusal; its ``reason`` may go to the coordinator, its message stays here.
        """
        with self._refusals_logged("attestation", message):
            request, coordinator_key = accept_attestation_request(message, self.config, self.clock())
            seen = self.checkpoints.seen(coordinator_key, request.job_digest)
            attestation = self.handshake.answer(request, coordinator_key).model_copy(update={"log_seen": seen})
            details = {"job": request.job_id, "attester": self.attester.kind, "kem_key": attestation.kem_key}
            self._log("attestation", "signed", details)
            return SealedMessage(seal(ATTESTATION_TYPE, attestation.canonical(), self.signer))

    def witness(self, message: SealedMessage) -> SealedMessage:
        """Keep the last checkpoint of a run's log, and sign a statement of this site's checkpoints of that log.

        Spends no budget.

        Raises:
            EnclaveError: a refusal; its ``reason`` may go to the coordinator, its message stays here.
        """
        with self._refusals_logged("witness", message):
            announcement, coordinator_key = accept_announcement(message, self.config, self.clock())
            if self.checkpoints.seen(coordinator_key, announcement.job_digest) is None:
                raise JobRejected(f"this site was not in job {announcement.job_id!r}: it has no checkpoint to sign")
            shown_log = ShownLog(
                announcement.job_id,
                announcement.job_digest,
                coordinator_key,
                None,
                announcement.log,
                announcement.log_proof,
            )
            seen = self.checkpoints.witness(shown_log, self.clock())
            log = self.checkpoints.log(coordinator_key, announcement.job_digest)
            self._log("witness", "kept", {"job": announcement.job_id, "size": seen.size, "root": seen.root})
            return SealedMessage(witness_statement(self.config.site_id, self.signer, (log,), self.clock()))

    def validate(self, message: SealedMessage) -> None:
        """Evaluate an order's model on this site's own rows, for the site only. Spends no budget and returns no answer.

        Raises:
            EnclaveError: a refusal; its ``reason`` may go to the coordinator, its message stays here.
        """
        with self._refusals_logged("validation", message):
            accepted = self._accepted(message)
            require_declared(accepted, self.sentry)
            dataset, job = self._open(accepted), accepted.job
            metrics = evaluate(
                job.model_arch, job.model_args, accepted.base, dataset.features, dataset.labels, job.task
            )
            details = {"dataset": job.dataset_id, "model": accepted.order.base_model_digest, **_named(accepted)}
            self._note({**details, **metrics})
            self._log("validation", "kept", details)

    def submit(self, message: SealedMessage) -> SealedMessage:
        """Seal the update released for this very order's round once more. Never computes, spends no budget.

        Raises:
            EnclaveError: a refusal, ``wrong_round`` if no such update is kept; its ``reason`` may be sent on.
        """
        with self._refusals_logged("submission", message):
            accepted = self._accepted(message)
            kept = self._stored_update(accepted)
            if kept is None:
                raise JobRejected("the store has no released update for this order's round", reason=Reason.WRONG_ROUND)
            answer = self._seal(accepted, kept)
            self._log("submission", "answered from store", {"update": kept.digest, **_named(accepted)})
            return answer

    def _enrol(self, resolved: ResolvedJob) -> SealedMessage:
        self._require_whole_job(resolved.lineage.lineage, resolved.plan(1, self._noise_source()))
        enrolment = Enrolment(
            site_id=self.config.site_id,
            public_key=self.signer.public_hex,
            profile=self.config.profile,
            job_id=resolved.job.job_id,
            job_digest=resolved.job_digest,
            enrolled_at=int(self.clock()),
        )
        envelope = seal(ENROLMENT_TYPE, enrolment.canonical(), self.signer)
        self._log("enrolment", "signed", {"job": resolved.job.job_id, "job_digest": resolved.job_digest})
        return SealedMessage(envelope)

    @contextmanager
    def _refusals_logged(self, action: str, message: SealedMessage) -> Iterator[None]:
        try:
            yield
        except EnclaveError as refusal:
            self._log_refusal(action, message, refusal)
            raise
        except Exception as error:  # noqa: BLE001 - its text may hold a row: not even this site's log gets it
            failure = failure_without_words(error, during=f"during {action}")
            self._log_refusal(action, message, failure)
            raise failure from None
        except BaseException as end:  # log the end of the process before it ends
            stopped = TrainingAborted(f"{type(end).__name__} ended the process")
            self._log_refusal(action, message, stopped)
            raise

    def _accepted(self, message: SealedMessage) -> AcceptedJob:
        accepted = accept(message, self.config, self.handshake, self.clock())
        self._require_ledger_of(accepted.order.last_head)
        require_sound_model(accepted, self.config.policy.max_base_weight)
        order = accepted.order
        log_fields = (order.round_number, order.log, order.log_proof)
        shown_log = ShownLog(order.job.job_id, accepted.job_digest, accepted.coordinator_key, *log_fields)
        self.checkpoints.witness(shown_log, self.clock())
        return accepted

    def _answer(self, message: SealedMessage, aborted: Aborted) -> SealedMessage:
        accepted = self._accepted(message)
        with self.ledger.hold(accepted.lineage.lineage):
            kept = self._stored_update(accepted)
            update = self._compute(accepted, aborted) if kept is None else kept
        answer = self._seal(accepted, update)
        outcome = "sealed" if kept is None else "answered from store"
        self._log("round", outcome, {"update": update.digest, **_named(accepted)})
        return answer

    def _rehearse(self, accepted: AcceptedJob, aborted: Aborted) -> Rehearsal:
        """Try out model, loss and loop on synthetic rows, before spending budget and before reading any row."""
        job, schema, base = accepted.job, self.sentry.declared(accepted.job.dataset_id), immutable(accepted.base)
        tried = synthetic_dataset(schema, 256).features
        require_bounded_logits(job.model_arch, job.model_args, base, tried, self.config.policy.max_logit)
        correction = None if accepted.correction is None else immutable(accepted.correction)
        subject = Rehearsed(
            job=job,
            requested=accepted.order.job.privacy,
            base=base,
            schema=schema,
            nominal_units=accepted.lineage.nominal_units,
            drift=drift_of(job, base, correction),
            trusted=self._trusted(accepted, lambda: None),
            aborted=aborted,
        )
        return rehearse(self.trainer, subject)

    def _compute(self, accepted: AcceptedJob, aborted: Aborted) -> ReleasableUpdate:
        plan = accepted.plan(accepted.order.round_number, self._noise_source())
        self._require_whole_job(accepted.lineage.lineage, plan)
        require_declared(accepted, self.sentry)
        rehearsal = self._rehearse(accepted, aborted)
        key = self._job_key(accepted)
        reservation = self.ledger.reserve(accepted.lineage.lineage, plan, accepted.binding(), require_all=True)
        self._log_reservation(accepted, reservation)
        dataset = self._open(accepted)
        self._note_draw(accepted, dataset.digest, key)
        require_proof = self.handshake.watch(accepted.order, accepted.released)
        scope = replace(self._scope(accepted, reservation, dataset, key), rehearsal=rehearsal)
        may_stop, trusted = _with_proof(require_proof, aborted), self._trusted(accepted, require_proof)
        base = immutable(accepted.base)
        update = self._train(accepted, TrainingTask(accepted.job, base, dataset, scope, may_stop, trusted))
        require_proof()  # a loop that swallowed a failed proof, or never checked, must not release its result
        kept = StoredUpdate(update.payload, update.metrics)
        self.released.keep(accepted.job_digest, accepted.order.round_number, accepted.binding(), kept)
        self.ledger.commit(reservation.reservation_id, update.event, update.digest)
        self._log_other_steps(accepted, reservation, update.event)
        return update

    def _stored_update(self, accepted: AcceptedJob) -> ReleasableUpdate | None:
        """Return the update released for this very computation, if the ledger committed it and its bytes exist."""
        plan = accepted.plan(accepted.order.round_number, self._noise_source())
        reservation = self.ledger.recall(accepted.lineage.lineage, plan, accepted.binding())
        if reservation is None or reservation.actual is None or reservation.update_digest is None:
            return None
        place = (accepted.job_digest, accepted.order.round_number, accepted.binding())
        kept = self.released.find(*place, reservation.update_digest)
        if kept is None:
            return None
        return ReleasableUpdate(kept.payload, reservation.update_digest, reservation.actual, kept.metrics)

    def _require_ledger_of(self, last_head: str | None) -> None:
        """Raise if this site signed a head that its ledger does not know."""
        if last_head is not None:
            last_known = open_head(last_head, self.config.site_id, self.signer.public_hex)
            require_known(last_known, self.ledger, self.ledger_file)

    def _noise_source(self) -> NoiseSource:
        return NoiseSource.UNSAFE_SEEDED if self.job_keys.unsafe_seeded else NoiseSource.SITE_KEYSTREAM

    def _job_key(self, accepted: AcceptedJob) -> bytes:
        """Return the job's key, after checking that earlier rounds drew under it and from the same content."""
        key, draws = self.job_keys.key(accepted.job_digest), self._draws(accepted)
        require_same_key(draws, mark_of_key(key))
        if draws:
            content = mark_of_content(self.signer, self.sentry.content_digest(accepted.job.dataset_id))
            require_same_content(accepted, self.config.policy, draws, content)
        return key

    def _note_draw(self, accepted: AcceptedJob, content_digest: str, key: bytes) -> None:
        content = mark_of_content(self.signer, content_digest)
        # Compare again: the file may have changed since hashing.
        require_same_content(accepted, self.config.policy, self._draws(accepted), content)
        draw = Draw(round_number=accepted.order.round_number, content_mark=content, key_mark=mark_of_key(key))
        self.ledger.note_draw(accepted.lineage.lineage, accepted.job.job_id, draw)

    def _draws(self, accepted: AcceptedJob) -> tuple[Draw, ...]:
        return self.ledger.draws(accepted.lineage.lineage, accepted.job.job_id)

    def _log_reservation(self, accepted: AcceptedJob, reservation: Reservation) -> None:
        granted = {"event": event_to_dict(reservation.event), "attester": self.attester.kind, **_named(accepted)}
        self._log("reserve", "recomputed" if reservation.recomputed else "granted", granted)

    def _log_other_steps(self, accepted: AcceptedJob, reservation: Reservation, ran: Event) -> None:
        """Warn of a loop that ended before all reserved steps had run: the release and the price are the loop's."""
        if isinstance(ran, NonPrivate) or ran.steps == reservation.step_limit:
            return
        words = steps_in_words(reservation.step_limit, ran.steps, local_steps=accepted.job.local_steps)
        self._log("loop", "other steps", {"message": words, **_named(accepted)})

    def _require_whole_job(self, lineage: str, plan: Plan) -> None:
        """Refuse a job that could never end: its first rounds would spend budget on a model that no one gets.

        A job in progress must keep its terms.
        """
        if plan.job_id in self.ledger.lineage_claim(lineage).jobs:
            self.ledger.affordable_steps(lineage, plan)  # raises for other terms
            return
        if not isinstance(plan, RoundPlan):
            return
        afforded = self.ledger.affordable_steps(lineage, replace(plan, steps=plan.total_steps))
        if afforded < plan.total_steps:
            claim = self.ledger.lineage_claim(lineage)
            raise PrivacyBudgetExceededError(
                f"job {plan.job_id!r} needs {plan.total_steps} steps, but lineage {lineage!r} and target_epsilon "
                f"{plan.target_epsilon:g} afford only {afforded}, {afforded // plan.steps} of "
                f"{plan.total_steps // plan.steps} rounds; nothing was reserved; {left_in_words(claim)}"
            )

    def _trusted(self, accepted: AcceptedJob, require_proof: Callable[[], None]) -> Callable[[], AttestationReport]:
        """Return a callable that gives training code the current attestation result, or raises after its end."""

        def trusted() -> AttestationReport:
            require_proof()
            self.handshake.require_current(accepted.released)
            return accepted.released.result

        return trusted

    def _open(self, accepted: AcceptedJob) -> SiteDataset:
        dataset = self.sentry.open(accepted.job.dataset_id)
        if dataset.num_units < self.config.policy.min_units:  # looks like any other fault of the rows
            raise DatasetRejected("site policy: the dataset holds fewer units than min_units")
        if dataset.warnings:
            # The log stays without warnings, which count cells: an auditor may see it. An unwritable file must not
            # refuse the round either: the coordinator would learn that these rows deserve a warning.
            with suppress(ConfigurationError):
                self._note({"dataset": accepted.job.dataset_id, "warnings": list(dataset.warnings), **_named(accepted)})
        return dataset

    def _note(self, entry: Mapping[str, object]) -> None:
        """Write ``entry`` to the file that never leaves the site."""
        self.local_metrics.note({"time": int(self.clock()), **self.config.profile.label(), **entry})

    def _train(self, accepted: AcceptedJob, task: TrainingTask) -> ReleasableUpdate:
        """Run the training loop and return the update that the private steps reached.

        No message quotes any other output or exception of the loop.
        """
        scope, own = task.scope, type(self.trainer) is LocalSgdTrainer
        try:
            with enter(scope):
                trained = contained(lambda: self.trainer.train(task), own=own)
            if scope.gate.refused:  # a loop that swallowed the refusal must not release its result
                raise PrivacyBudgetExceededError(
                    f"the training loop requested more than the {scope.gate.step_limit} steps that are reserved: take "
                    "the job's local_steps, no more"
                )
        except PrivacyBudgetExceededError:
            self.ledger.commit(scope.reservation.reservation_id, scope.event(), None)
            raise
        if scope.gate.steps_taken == 0:
            raise DataLeakageError("no private step was taken: use what attach returns", reason=Reason.NO_PRIVACY_EVENT)
        return contained(lambda: self._sanitise(accepted, scope, trained), own=own)

    def _scope(
        self, accepted: AcceptedJob, reservation: Reservation, dataset: SiteDataset, key: bytes
    ) -> TrainingScope:
        keystream = Keystream(
            key,
            job_digest=accepted.job_digest,
            round_number=accepted.order.round_number,
            base_model_digest=accepted.order.base_model_digest,
            dataset_digest=dataset.digest,
        )
        base = immutable(accepted.base)  # immutable: no write of a loop may reach the release
        correction = None if accepted.correction is None else immutable(accepted.correction)
        return TrainingScope(
            config=accepted.privacy,
            requested=accepted.order.job.privacy,
            reservation=reservation,
            gate=StepGate(reservation.step_limit, accepted.privacy.target_epsilon),
            keystream=keystream,
            nominal_units=accepted.lineage.nominal_units,
            unit_of_row=dataset.unit_ids,
            drift=drift_of(accepted.job, base, correction),
            base=base,
        )

    def _sanitise(self, accepted: AcceptedJob, scope: TrainingScope, trained: TrainedUpdate) -> ReleasableUpdate:
        update = self.sentry.release(
            TrainedUpdate(trained.arrays, scope.event(), trained.metrics),  # the gate's count, not the loop's claim
            layout=layout_of(accepted.base),
            max_norm=accepted.job.max_update_norm,
            allow_non_private=accepted.lineage.public,
        )
        require_reached(scope, update)
        require_known_metrics(scope, update.metrics)
        return update

    def _seal(self, accepted: AcceptedJob, update: ReleasableUpdate) -> SealedMessage:
        """Sign and encrypt an update; raise ``TypeError`` unless the airlock released it."""
        if not isinstance(update, ReleasableUpdate):
            raise TypeError("only a ReleasableUpdate can leave the site")
        envelope = seal(UPDATE_TYPE, self._statement(accepted, update).canonical(), self.signer)
        return SealedMessage(envelope, self.handshake.encrypt_update(accepted.order, envelope, update.payload))

    def _statement(self, accepted: AcceptedJob, update: ReleasableUpdate) -> UpdateStatement:
        order, head = accepted.order, self.ledger.head()
        evidence = self.handshake.prove_update(order, accepted.released.result.kem_key)
        claim = self.ledger.job_claim(accepted.lineage.lineage, accepted.job.job_id)
        return UpdateStatement(
            site_id=self.config.site_id,
            job_id=order.job.job_id,
            job_digest=accepted.job_digest,
            round_number=order.round_number,
            nonce=order.nonce,
            base_model_digest=order.base_model_digest,
            update_digest=update.digest,
            event=event_to_dict(update.event),
            noise_source=self._noise_source().value,
            unit=accepted.lineage.unit,
            delta=accepted.delta,
            epsilon=None if claim.guarantee is None else claim.guarantee.epsilon,
            nominal_units=accepted.lineage.nominal_units,
            content_changed=order.round_number in claim.content_changed,
            metrics=dict(update.metrics),
            kem_key=accepted.released.result.kem_key,
            evidence=evidence.model_dump(mode="json"),
            ledger_head=LedgerHeadStatement(seq=head.seq, hash=head.hash),
            signed_head=seal_head(head, self.config.site_id, self.signer),
            log_seen=self._seen(accepted),
        )

    def _seen(self, accepted: AcceptedJob) -> LogSeen:
        seen = self.checkpoints.seen(accepted.coordinator_key, accepted.job_digest)
        if seen is None:
            raise ConfigurationError("the checkpoint of the coordinator's log is missing: this site signs no update")
        return seen

    def _log_refusal(self, action: str, message: SealedMessage, refusal: EnclaveError) -> None:
        details = {"message": in_words(refusal), "order": sha256_hex(message.envelope)}
        self._log(action, "refused", details, refusal.reason)

    def _log(self, action: str, outcome: str, details: Mapping[str, Any], reason: Reason | None = None) -> None:
        entry = {**self.config.profile.label(), **details}
        self.log.append(actor=self.config.site_id, action=action, outcome=outcome, reason=reason, details=entry)


def _with_proof(require_proof: Callable[[], None], aborted: Aborted) -> Aborted:
    """Return a callable for use between two steps: prove this host if due, then return True to stop training."""

    def stop() -> bool:
        require_proof()
        return aborted()

    return stop


def _named(accepted: AcceptedJob) -> dict[str, Any]:
    return {"job": accepted.job.job_id, "round": accepted.order.round_number}
