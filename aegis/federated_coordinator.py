"""The coordinator: a Flower server strategy that admits updates before aggregation and survives being killed.

- :mod:`aegis.coordination` decides which sites to ask, which answers count, which sites sit out, and the next act.
- :mod:`aegis.rounds` sends requests and receives replies.
- :mod:`aegis.aggregation` combines the updates.

The transport is any Flower ``Grid``, or any other :class:`~aegis.rounds.transport.Transport`. Every state is on disk
before the next act, so running the same job again continues the run: sites without a result get the open round's order
again with the same nonce, and answer with the same bytes.

The coordinator checks the privacy parameters that sites report, so every privacy value in the job must be explicit:

>>> import tempfile
>>> from pathlib import Path
>>> from aegis.security import HashLog
>>> from aegis.stores import FileHeadStore, FileRunStore
>>> from coreason_enclave.attestation import Appraiser, AttestationPolicy, FileChallenges
>>> from coreason_enclave.attestation.endorsements import NoEndorsements
>>> from coreason_enclave.crypto import Signer
>>> from coreason_enclave.policy import Profile
>>> from coreason_enclave.schemas import AggregationStrategy, PrivacyConfig
>>> folder = Path(tempfile.mkdtemp())
>>> job = FederationJob(
...     job_id="study-1", min_clients=1, rounds=2, strategy=AggregationStrategy.FED_AVG, dataset_id="clinic/visits",
...     model_arch="LogisticRegression", model_args={"in_features": 3}, local_steps=5, privacy=PrivacyConfig(
...         mechanism="DP_SGD", target_epsilon=3.0, noise_multiplier=1.0, max_grad_norm=1.0, delta=1e-5))
>>> site = Participant("site-1", Signer.generate().public_hex, node_id=7)
>>> appraiser = Appraiser(AttestationPolicy(kinds=()), Profile.PRODUCTION, NoEndorsements())
>>> handshake = CoordinatorHandshake(Signer.generate(), appraiser, None, FileChallenges(folder / "challenges"))
>>> records = RunRecords(
...     FileRunStore(folder / "state"), HashLog(folder / "audit.jsonl"), FileHeadStore(folder / "heads"))
>>> coordinator = FederatedCoordinator(job, ParticipantView([site]), handshake, records)
>>> coordinator.job.total_steps
10
>>> records.audit.close()

``coordinator.run(grid, initial_weights)`` then runs or continues the job; ``run_over`` does the same over any other
transport, and ``aegis run`` for a folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from aegis.client_privacy import ClientPrivacy
from aegis.coordination import Participant, require_enough
from aegis.errors import InvalidJob, RunPaused
from aegis.rounds import (
    Content,
    CoordinatorHandshake,
    DeliveryFailure,
    Dispatcher,
    InboundMessage,
    Journal,
    OutboundMessage,
    ParticipantView,
    RoundAttempt,
    RoundHooks,
    RoundRunner,
    RunContext,
    RunRecords,
    SiteRefusal,
    Transport,
    TransportFailed,
    Witnesses,
    announce,
    average,
    drop_other_keys,
)
from aegis.stores import RunState
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.schemas import FederationJob, Mechanism
from coreason_enclave.wire import WIRE_RECORD, Array, Arrays, RequestKind, SealedMessage

__all__ = ["CUT_OFF", "FederatedCoordinator", "GridTransport", "Participant", "SignallingGrid", "average"]


class FederatedCoordinator(Strategy):
    """Runs one job over registered participants.

    Args:
        job: the job, with every privacy value explicit; see :func:`aegis.federation.job_files.resolve`.
        sites: the registered sites, with revocations, readmissions and signs of life.
        handshake: the coordinator's key, as named in the sites' policies, and its half of mutual attestation. The
            appraiser's profile decides whether simulated evidence counts, and labels every line of the log.
        records: durable state and log of this run, and the newest ledger heads.
        client_privacy: keeps the promise of a job with ``client_privacy``; None for any other job.
        hooks: what the caller adds to each completed round.
        monotonic: returns seconds for measuring deadlines.

    Raises:
        InvalidJob: the job lacks a value that a coordinator has to check, or asks for an unavailable feature or for
            more sites than are registered.
    """

    def __init__(
        self,
        job: FederationJob,
        sites: ParticipantView,
        handshake: CoordinatorHandshake,
        records: RunRecords,
        *,
        client_privacy: ClientPrivacy | None = None,
        hooks: RoundHooks | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        _require_explicit(job)
        require_enough(sites.registered, job)
        self.job = job
        self._sites, self._handshake, self._records = sites, handshake, records
        self._client_privacy = _required(job, client_privacy)
        self._hooks, self._monotonic = hooks or RoundHooks(), monotonic
        self._runner: RoundRunner | None = None
        self._run: RunContext | None = None

    def run(self, grid: Grid, initial: Arrays) -> dict[str, Array]:
        """Run the job as :meth:`run_over` does, over a Flower ``Grid``."""
        return self.run_over(GridTransport(grid), initial)

    def run_over(self, transport: Transport, initial: Arrays) -> dict[str, Array]:
        """Run or continue the job; return the average of the last ``average_last_rounds`` global models.

        Raises:
            RunPaused: too few sites can be asked, or two attempts admitted too few updates. Running again continues at
                the paused round.
            RunFolderError: the stored state belongs to another job, or is damaged.
        """
        run, runner = self._begin(initial)
        dispatcher = self._dispatcher_over(transport)
        while run.journal.state.completed_rounds < self.job.rounds:
            runner.run_round(dispatcher)
        return self.released_model(run.journal.state)

    def announce(self, transport: Transport) -> Mapping[str, bytes]:
        """Show the finished log to the sites; return the witness statements of sites that answer in time, by site.

        The log stays as it is, with or without answers.
        """
        return {} if self._run is None else announce(self._run, self._dispatcher_over(transport))

    def released_model(self, state: RunState) -> dict[str, Array]:
        """Return the model to release after ``state``: the tail average of the global models."""
        last = min(self.job.average_last_rounds, max(state.completed_rounds, 1))
        return average([self._records.store.load_model(digest) for digest in state.models[-last:]])

    def _begin(self, initial: Arrays) -> tuple[RunContext, RoundRunner]:
        journal = Journal(self.job, initial, self._records, self._handshake.appraiser.profile)
        journal.readmit(self._sites.readmitted)
        witnesses = Witnesses(self._records.audit, self.job.digest(), self._handshake.signer)
        run = RunContext(
            self.job, self._handshake, self._sites, self._records.heads, journal, witnesses, self._client_privacy
        )
        drop_other_keys(run)
        self._run, self._runner = run, RoundRunner(run, self._hooks)
        return run, self._runner

    def _dispatcher_over(self, transport: Transport) -> Dispatcher:
        return Dispatcher(transport, self._sites.liveness, clock=self._monotonic)

    # Flower's strategy interface: the same acts, for callers that drive a Strategy by hand.

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the signed orders of the open round, after inviting and attesting sites over ``grid``.

        Raises:
            RunPaused: too few sites can be asked.
            InvalidJob: ``server_round`` is not the next round.
        """
        del config
        if self._run is None or self._runner is None:
            self._run, self._runner = self._begin(_numpy(arrays))
        completed, rounds = self._run.journal.state.completed_rounds, self.job.rounds
        if server_round != completed + 1 or server_round > rounds:
            raise InvalidJob(f"round {server_round} is not next: {completed} of {rounds} are complete")
        transport = GridTransport(grid)
        self._runner.open(self._dispatcher_over(transport))
        attempt = RoundAttempt(self._run)
        attempt.restore()
        attempt.attest(self._dispatcher_over(transport))
        return [_message(outbound) for outbound in attempt.outbound_messages()]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Admit and aggregate the replies; return the global model and its metrics.

        Return (None, None) if too few updates were admitted: the caller then asks for the round again.

        Raises:
            InvalidJob: ``server_round`` is not open.
        """
        run, runner = self._run, self._runner
        if (
            run is None
            or runner is None
            or not run.journal.state.is_open
            or server_round != run.journal.state.open_round
        ):
            raise InvalidJob(f"round {server_round} is not open")
        attempt = RoundAttempt(run)
        attempt.restore()
        attempt.receive_all([_delivery(reply) for reply in replies])
        try:
            following = runner.settle(attempt)
        except RunPaused:
            return None, None
        if following is None:
            return None, None
        model = _record(self._records.store.load_model(following.models[-1]))
        return model, MetricRecord(dict(following.history[-1].metrics))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return no requests: a metric computed from private rows would leave a site without noise."""
        del server_round, arrays, config, grid
        return ()

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Ignore all replies: sites never report evaluation metrics."""
        del server_round, replies
        return None

    def summary(self) -> None:
        """Log the job and its sites, before the run."""
        details = {"job": self.job.model_dump(mode="json"), "sites": sorted(self._sites.registered)}
        label = self._handshake.appraiser.profile.label()
        self._records.audit.append(actor="coordinator", action="run", outcome="summary", details={**label, **details})

    def start(  # type: ignore[override]  # Flower's further options have no meaning here
        self, grid: Grid, initial_arrays: ArrayRecord, num_rounds: int | None = None
    ) -> Result:
        """Run the job through Flower's entry point: :meth:`run`, with the job's own number of rounds.

        Raises:
            InvalidJob: ``num_rounds`` differs from the job's.
        """
        if num_rounds not in (None, self.job.rounds):
            raise InvalidJob(f"the signed job has {self.job.rounds} rounds, not {num_rounds}")
        self.summary()
        result = Result()
        result.arrays = _record(self.run(grid, _numpy(initial_arrays)))
        return result


@runtime_checkable
class SignallingGrid(Protocol):
    """A grid that signals the arrival of a reply, so that the coordinator need not poll."""

    def wait_for_reply(self, seconds: float) -> None:
        """Return when a reply may have arrived, after ``seconds`` at the latest."""
        ...


class GridTransport:
    """Any Flower ``Grid`` as a transport. Every exception from the grid becomes a :class:`TransportFailed`."""

    def __init__(self, grid: Grid, wait: Callable[[float], None] = time.sleep) -> None:
        self._grid, self._sleep = grid, wait

    def push(self, outbound_messages: Sequence[OutboundMessage]) -> Sequence[str | None]:
        """See :class:`~aegis.rounds.transport.Transport`."""
        try:
            return [
                message_id or None
                for message_id in self._grid.push_messages([_message(each) for each in outbound_messages])
            ]
        except Exception as error:
            raise TransportFailed(type(error).__name__) from error

    def pull(self, message_ids: Collection[str]) -> Sequence[InboundMessage]:
        """See :class:`~aegis.rounds.transport.Transport`."""
        try:
            return [_delivery(reply) for reply in self._grid.pull_messages(message_ids)]
        except Exception as error:
            raise TransportFailed(type(error).__name__) from error

    def wait(self, seconds: float) -> None:
        """See :class:`~aegis.rounds.transport.Transport`."""
        if isinstance(self._grid, SignallingGrid):
            self._grid.wait_for_reply(seconds)
        else:
            self._sleep(seconds)


_MESSAGE_TYPES = {
    RequestKind.TRAIN: MessageType.TRAIN,
    RequestKind.ENROL: "query.enrol",
    RequestKind.ATTEST: "query.attest",
    RequestKind.WITNESS: "query.witness",
}

_APP_FAILED = frozenset(
    {
        ErrorCode.LOAD_CLIENT_APP_EXCEPTION,
        ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
        ErrorCode.MOD_FAILED_PRECONDITION,
        ErrorCode.INVALID_FAB,
    }
)
"""Errors of a site's own program, for which a retry is useless."""

_REFUSED = 1000
"""Error code of every refusal by a site's program: see ``coreason_enclave.federation.flower.REFUSED``."""

CUT_OFF = 1001
"""Error code with which a transport replaces an answer larger than the job's model allows."""


def _message(outbound: OutboundMessage) -> Message:
    """Return a new Flower message for every push: Flower would take a reused message for a duplicate."""
    return Message(
        content=RecordDict({WIRE_RECORD: ConfigRecord({**outbound.message.to_fields()})}),
        dst_node_id=outbound.node_id,
        message_type=_MESSAGE_TYPES[outbound.request_kind],
        group_id=outbound.group,
        ttl=outbound.ttl_s,
    )


def _delivery(reply: Message) -> InboundMessage:
    metadata = reply.metadata
    return InboundMessage(metadata.reply_to_message_id, metadata.src_node_id, _content(reply))


def _content(reply: Message) -> Content | DeliveryFailure:
    if reply.has_error():
        if reply.error.code == _REFUSED or reply.error.code in _APP_FAILED:
            known = {reason.value: reason for reason in Reason}
            return SiteRefusal(known.get(reply.error.reason or "", Reason.INTERNAL))
        if reply.error.code == CUT_OFF:
            return EnvelopeError("it is larger than the model allows, and was cut off", reason=Reason.OVERSIZED)
        return DeliveryFailure(f"error {reply.error.code}")
    try:
        return SealedMessage.from_fields(reply.content.config_records.get(WIRE_RECORD))
    except EnvelopeError as error:
        return error


def _required(job: FederationJob, client_privacy: ClientPrivacy | None) -> ClientPrivacy | None:
    """Return the account for the job's client-level privacy, or None for a job without the promise.

    A missing account and an account for another job both raise :class:`InvalidJob`, so no promise is dropped in
    silence.
    """
    if (None if client_privacy is None else client_privacy.job) != (None if job.client_privacy is None else job):
        raise InvalidJob("the job's client_privacy needs an account of the coordinator's own, for this very job")
    return client_privacy


def _require_explicit(job: FederationJob) -> None:
    privacy = job.privacy
    if privacy.mechanism is Mechanism.DP_SGD and (privacy.noise_multiplier is None or privacy.delta is None):
        raise InvalidJob("the job must state noise_multiplier and delta before it is ordered: both are checked")


def _numpy(record: ArrayRecord) -> dict[str, Array]:
    return {name: array.numpy().astype(np.float32) for name, array in record.items()}


def _record(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: FlowerArray(array) for name, array in arrays.items()})
