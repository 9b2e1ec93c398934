"""The coordinator: a Flower server strategy that admits before it aggregates and survives being killed.

It composes :mod:`aegis.coordination` (who is asked, whose answer counts, what happens next) and
:mod:`aegis.aggregation`; the transport is any Flower ``Grid``. Every state that matters is on disk before the next
act, so running the same thing again continues: orders of an open round are issued again with the same nonces, and
sites answer with the same bytes.

A coordinator wants every privacy value explicit, because it checks what sites say they ran:

>>> import tempfile
>>> from pathlib import Path
>>> from aegis.stores.run_state import FileRunStore
>>> from coreason_enclave.schemas import PrivacyConfig
>>> folder = Path(tempfile.mkdtemp())
>>> job = FederationJob(
...     job_id="study-1", min_clients=1, rounds=2, strategy=AggregationStrategy.FED_AVG, dataset_id="clinic/visits",
...     model_arch="LogisticRegression", model_args={"in_features": 3}, local_steps=5, privacy=PrivacyConfig(
...         mechanism="DP_SGD", target_epsilon=3.0, noise_multiplier=1.0, max_grad_norm=1.0, delta=1e-5))
>>> site = Participant("site-1", Signer.generate().public_hex, node_id=7)
>>> audit = HashLog(folder / "audit.jsonl")
>>> coordinator = FederatedCoordinator(
...     job, [site], signer=Signer.generate(), store=FileRunStore(folder / "state"), audit=audit,
...     profile=Profile.PRODUCTION)
>>> coordinator.job.total_steps
10
>>> audit.close()

``coordinator.run(grid, initial_weights)`` then runs the job, or goes on with it; ``aegis run`` does so for a folder.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from aegis.aggregation import aggregate
from aegis.coordination.admission import Admission, Admitted
from aegis.coordination.cohort import choose_cohort
from aegis.coordination.issuing import GRACE_S, issue_orders
from aegis.coordination.rounds import NextAct, decide
from aegis.coordination.spending import epsilon_so_far, steps_so_far
from aegis.errors import BudgetRefused, InvalidJob, RunFolderError, RunPaused, TooFewUpdates, UpdateRefused
from aegis.security.audit import HashLog
from aegis.stores.run_state import RoundRecord, RunState, RunStore
from coreason_enclave.envelope import seal
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.keys import Signer
from coreason_enclave.orders import ORDER_TYPE, RoundOrder
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import AggregationStrategy, FederationJob, Mechanism
from coreason_enclave.updates import WIRE_RECORD, Array, Arrays, SealedMessage, encode_arrays, layout_of

__all__ = ["FederatedCoordinator", "Participant", "average"]


@dataclass(frozen=True)
class Participant:
    """A registered site: its name, its Ed25519 key (hex), and the Flower node that carries its messages."""

    site_id: str
    public_key: str
    node_id: int


@dataclass(frozen=True)
class _Answers:
    """One attempt at a round, after admission."""

    admitted: Mapping[str, Admitted]
    refused: Mapping[str, Reason]


class FederatedCoordinator(Strategy):
    """Runs one job over registered participants.

    Args:
        job: with every privacy value explicit; see :func:`aegis.jobs.resolve`.
        signer: the coordinator's key, which the sites' policies name.
        store, audit: durable state and log of this run.
        profile: ``development`` accepts simulated evidence.
        evaluate: utility of a model on **public** data; sites never report any.
        observe: called with each completed round.
        clock: Unix seconds.

    Raises:
        InvalidJob: the job leaves open what a coordinator has to check, or asks for what is not offered.
    """

    def __init__(
        self,
        job: FederationJob,
        participants: Sequence[Participant],
        *,
        signer: Signer,
        store: RunStore,
        audit: HashLog,
        profile: Profile,
        evaluate: Callable[[Arrays], Mapping[str, float]] = lambda _: {},
        observe: Callable[[RoundRecord], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        _require_explicit(job)
        self.job = job
        self._participants = {participant.site_id: participant for participant in participants}
        self._signer, self._store, self._audit, self._profile = signer, store, audit, profile
        self._evaluate, self._observe, self._clock = evaluate, observe, clock
        self._state: RunState | None = None
        self._orders: dict[str, RoundOrder] = {}

    def run(self, grid: Grid, initial: Arrays) -> dict[str, Array]:
        """Run, or go on with, the job; return the average of the last ``average_last_rounds`` global models.

        Raises:
            RunPaused: twice too few admitted updates; running again continues at that round.
            RunFolderError: the stored state belongs to another job.
        """
        state = self._begin(initial)
        while state.completed_rounds < self.job.rounds:
            state = self._run_round(grid, state)
        return self.released_model(state)

    def released_model(self, state: RunState) -> dict[str, Array]:
        """The model as it would be released after ``state``: the tail average of the global models."""
        last = min(self.job.average_last_rounds, max(state.completed_rounds, 1))
        return average([self._store.load_model(digest) for digest in state.models[-last:]])

    def _begin(self, initial: Arrays) -> RunState:
        state = self._store.load()
        if state is None:
            state = RunState(job_digest=self.job.digest(), models=(self._store.save_model(initial),))
            self._log("run", "started", {"job": self.job.job_id, "job_digest": self.job.digest()})
        elif state.job_digest != self.job.digest():
            raise RunFolderError("this run folder belongs to another job: choose another --out")
        else:
            self._log("run", "resumed", {"completed_rounds": state.completed_rounds})
        return self._save(state)

    def _run_round(self, grid: Grid, state: RunState) -> RunState:
        """One attempt: open (durable), ask, admit, decide, and either complete the round or open it once more."""
        state = self._open_round(state)
        started = time.monotonic()
        answers = self._ask(grid, state)
        refused = {site: reason.value for site, reason in answers.refused.items()}
        decision = decide(self.job, admitted=len(answers.admitted), refused=refused, attempt=state.attempt)
        number = state.completed_rounds + 1
        if decision.act is NextAct.AGGREGATE:
            try:
                return self._complete(state, answers, started)
            except TooFewUpdates as error:  # screening inside the aggregator set further updates aside
                aside = {**refused, **error.quarantined}
                decision = decide(self.job, admitted=error.admitted, refused=aside, attempt=state.attempt)
        self._log("round", decision.act.value, {"round": number, "why": decision.why})
        if decision.act is NextAct.REPEAT:
            return self._save(state.model_copy(update={"attempt": 2, "nonces": {}}))
        self._save(state.model_copy(update={"attempt": 1, "nonces": {}}))
        for_good = set(refused.values()) == {Reason.BUDGET_EXCEEDED.value}
        raise (BudgetRefused if for_good else RunPaused)(f"round {number} cannot be completed: {decision.why}")

    def _open_round(self, state: RunState) -> RunState:
        if not state.nonces:
            cohort = choose_cohort(self._participants, self.job, state.completed_rounds + 1)
            state = self._save(state.model_copy(update={"nonces": {site: secrets.token_hex(32) for site in cohort}}))
            self._log("round", "opened", {"round": state.completed_rounds + 1, "attempt": state.attempt})
        return state

    def _ask(self, grid: Grid, state: RunState) -> _Answers:
        base = self._store.load_model(state.models[-1])
        messages = self._messages(state, encode_arrays(base))
        replies = grid.send_and_receive(messages, timeout=self.job.round_deadline_s)
        return self._admit(replies, base)

    def _messages(self, state: RunState, base: bytes) -> list[Message]:
        self._orders = issue_orders(
            self.job,
            round_number=state.completed_rounds + 1,
            nonces=state.nonces,
            base_model_digest=state.models[-1],
            now=self._clock(),
        )
        return [self._message(order, base) for site, order in self._orders.items() if site in self._participants]

    def _message(self, order: RoundOrder, base: bytes) -> Message:
        sealed = SealedMessage(seal(ORDER_TYPE, order.canonical(), self._signer), base)
        return Message(
            content=RecordDict({WIRE_RECORD: ConfigRecord({**sealed.to_fields()})}),
            dst_node_id=self._participants[order.site_id].node_id,
            message_type=MessageType.TRAIN,
            group_id=str(order.round_number),
            ttl=self.job.round_deadline_s + GRACE_S,
        )

    def _admit(self, replies: Iterable[Message], base: Arrays) -> _Answers:
        """Each asked site's first reply, through the numbered checks; silence is a reason too."""
        by_node = {self._participants[site].node_id: site for site in self._orders if site in self._participants}
        admitted: dict[str, Admitted] = {}
        refused: dict[str, Reason] = {}
        for reply in replies:
            site = by_node.pop(reply.metadata.src_node_id, None)
            if site is None:
                continue  # not asked, or answered already: only the first reply of an asked node counts
            try:
                admission = Admission(
                    self._orders[site], self._participants[site].public_key, layout_of(base), self._profile
                )
                admitted[site] = admission.admit(_unpack(reply, site), now=self._clock())
            except UpdateRefused as refusal:
                refused[site] = refusal.reason
                self._log("admit", "refused", {"site": site, "message": str(refusal)}, refusal.reason)
        for site in sorted(self._orders.keys() - admitted.keys() - refused.keys()):
            refused[site] = Reason.NO_REPLY
            self._log("admit", "refused", {"site": site}, Reason.NO_REPLY)
        for site, accepted in sorted(admitted.items()):
            self._log_admitted(site, accepted)
        return _Answers(dict(sorted(admitted.items())), dict(sorted(refused.items())))

    def _log_admitted(self, site: str, accepted: Admitted) -> None:
        statement = accepted.statement
        details = {
            "site": site,
            "round": statement.round_number,
            "update": statement.update_digest,
            "event": statement.event,
            "provenance": accepted.update.provenance.value,
            "noise_source": statement.noise_source,
            "unit": statement.unit,
            "delta": statement.delta,
            "ledger_head": statement.ledger_head.model_dump(),
        }
        self._log("admit", "accepted", details)

    def _complete(self, state: RunState, answers: _Answers, started: float) -> RunState:
        """Aggregate, keep the model, then the state that names it; the round exists from that moment on."""
        base = self._store.load_model(state.models[-1])
        combined = aggregate(
            [accepted.update for accepted in answers.admitted.values()],
            rule=self.job.aggregator,
            num_byzantine=self.job.num_byzantine,
            layout=layout_of(base),
            max_norm=self.job.max_update_norm,
            weight_cap=self.job.num_examples_cap,
        )
        model = {name: (base[name] + combined.delta[name]).astype(np.float32) for name in base}
        digest = self._store.save_model(model)
        following = state.model_copy(update={"models": (*state.models, digest), "nonces": {}, "attempt": 1})
        before = state.history[-1].steps if state.history else {}
        steps = steps_so_far(before, {site: each.update.event for site, each in answers.admitted.items()})
        record = RoundRecord(
            round_number=state.completed_rounds + 1,
            admitted=tuple(answers.admitted),
            refused={site: str(reason) for site, reason in {**answers.refused, **combined.quarantined}.items()},
            used=combined.used,
            provenance={site: accepted.update.provenance for site, accepted in answers.admitted.items()},
            steps=steps,
            epsilon=epsilon_so_far(self.job, steps),
            model_digest=digest,
            metrics=dict(self._evaluate(self._tail(following))),
            seconds=round(time.monotonic() - started, 3),
        )
        following = self._save(following.model_copy(update={"history": (*state.history, record)}))
        self._log("round", "completed", {"round": record.round_number, "model": digest, "used": list(record.used)})
        self._observe(record)
        return following

    def _tail(self, following: RunState) -> dict[str, Array]:
        last = min(self.job.average_last_rounds, len(following.models) - 1)
        return average([self._store.load_model(digest) for digest in following.models[-last:]])

    def _save(self, state: RunState) -> RunState:
        self._store.save(state)
        self._state = state
        return state

    def _log(self, action: str, outcome: str, details: Mapping[str, object], reason: Reason | None = None) -> None:
        about = {**self._profile.label(), **details}
        self._audit.append(actor="coordinator", action=action, outcome=outcome, reason=reason, details=about)

    # Flower's strategy interface: the same acts, for whoever drives a Strategy by hand.

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The signed orders of the open round."""
        del config, grid
        state, rounds = self._state or self._begin(_numpy(arrays)), self.job.rounds
        if server_round != state.completed_rounds + 1 or server_round > rounds:
            raise InvalidJob(f"round {server_round} is not next: {state.completed_rounds} of {rounds} are complete")
        state = self._open_round(state)
        return self._messages(state, encode_arrays(self._store.load_model(state.models[-1])))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Admit and aggregate; (None, None) where too few updates are admitted and the round stays open."""
        state = self._state
        if state is None or not state.nonces or server_round != state.completed_rounds + 1:
            raise InvalidJob(f"round {server_round} is not open")
        answers = self._admit(replies, self._store.load_model(state.models[-1]))
        if decide(self.job, admitted=len(answers.admitted), refused={}, attempt=1).act is not NextAct.AGGREGATE:
            return None, None
        try:
            following = self._complete(state, answers, time.monotonic())
        except TooFewUpdates:
            return None, None
        return _record(self._store.load_model(following.models[-1])), MetricRecord(dict(following.history[-1].metrics))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing is asked: a metric computed from private rows would leave un-noised."""
        del server_round, arrays, config, grid
        return ()

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing was asked, so nothing is believed."""
        del server_round, replies
        return None

    def summary(self) -> None:
        """Record what is about to be run."""
        self._log("run", "summary", {"job": self.job.model_dump(mode="json"), "sites": sorted(self._participants)})

    def start(  # type: ignore[override]  # Flower's further options have no meaning here
        self, grid: Grid, initial_arrays: ArrayRecord, num_rounds: int | None = None
    ) -> Result:
        """Flower's entry: :meth:`run`, with the job's own number of rounds."""
        if num_rounds not in (None, self.job.rounds):
            raise InvalidJob(f"the signed job has {self.job.rounds} rounds, not {num_rounds}")
        self.summary()
        result = Result()
        result.arrays = _record(self.run(grid, _numpy(initial_arrays)))
        return result


def average(models: Sequence[Arrays]) -> dict[str, Array]:
    """The coordinate-wise mean of models of one layout, accumulated in float64. Post-processing: costs no privacy."""
    return {
        name: np.mean([model[name].astype(np.float64) for model in models], axis=0).astype(np.float32)
        for name in models[0]
    }


def _unpack(reply: Message, site: str) -> SealedMessage:
    if reply.has_error():
        known = {reason.value: reason for reason in Reason}
        reason = known.get(reply.error.reason or "", Reason.INTERNAL)
        raise UpdateRefused(site, reason, f"{site} refused the order: {reason.value}")
    try:
        return SealedMessage.from_fields(reply.content.config_records.get(WIRE_RECORD))
    except EnvelopeError as error:
        raise UpdateRefused(site, error.reason, f"the answer of {site} is refused: {error}") from error


def _require_explicit(job: FederationJob) -> None:
    if job.strategy is not AggregationStrategy.FED_AVG:
        raise InvalidJob(f"strategy {job.strategy} is not offered by this version: use FED_AVG")
    privacy = job.privacy
    if privacy.mechanism is Mechanism.DP_SGD and (privacy.noise_multiplier is None or privacy.delta is None):
        raise InvalidJob(
            "the job must state noise_multiplier and delta before it is ordered, so that both can be checked"
        )


def _numpy(record: ArrayRecord) -> dict[str, Array]:
    return {name: array.numpy().astype(np.float32) for name, array in record.items()}


def _record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: FlowerArray(array) for name, array in arrays.items()})
