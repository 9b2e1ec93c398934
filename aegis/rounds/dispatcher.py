"""Asking sites and hearing them, until all have answered or the deadline has passed.

Own intervals (20 ms growing to 250 ms); a site whose node joined anew since it was asked is asked again, and what the
carrier could not do is tried again with exponential back-off and jitter. Asked again means the same bytes: the same
nonce, for which a site has the same answer.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from aegis.coordination.liveness import Liveness, SiteHealth
from aegis.rounds.transport import (
    Content,
    DeliveryFailure,
    InboundMessage,
    OutboundMessage,
    RequestKind,
    Transport,
    TransportFailed,
)
from coreason_enclave.errors import Reason
from coreason_enclave.system.processes import Backoff

__all__ = ["Closing", "Dispatcher", "Reply", "ReplyKind"]

_SHORTEST_S, _LONGEST_S, _GROWTH = 0.02, 0.25, 1.5
_LOOK_EVERY_S = 0.5
_RETRY_FIRST_S, _RETRY_MAX_S = 0.25, 10.0


class ReplyKind(StrEnum):
    """How a reply relates to the request that it answers."""

    FIRST = "first"
    """the first reply to an open request"""
    DUPLICATE = "duplicate"
    """another reply to a request that was answered already"""
    LATE = "late"
    """a reply to a request that was closed unanswered"""
    UNSOLICITED = "unsolicited"
    """a message from a node that has no request"""
    MISSING = "missing"
    """no reply before the deadline"""


@dataclass(frozen=True)
class Reply:
    """A reply, or the lack of one. ``content`` is None only if no reply arrived; ``reason`` then says why."""

    kind: ReplyKind
    site: str
    node_id: int
    content: Content | None = None
    reason: Reason | None = None
    request_kind: RequestKind | None = None


@dataclass(frozen=True)
class Closing:
    """When an exchange ends before its deadline, so that the slowest site does not set everybody's pace.

    Attributes:
        enough: whether the answers heard so far suffice without the others'; asked after each batch.
        grace_s: seconds that the others have from then on. They have at least as long again as enough took, so that a
            site that needs twice the others' time is no straggler.
    """

    enough: Callable[[], bool]
    grace_s: float

    def at(self, started: float, now: float) -> float:
        """The time at which an exchange that began at ``started`` closes, enough being in ``now`` (both seconds)."""
        return now + max(self.grace_s, now - started)


@dataclass
class _OpenRequest:
    """One site in one exchange; ``due`` is when (monotonic seconds) it is sent its message, infinity: not again."""

    outbound: OutboundMessage
    backoff: Backoff
    due: float
    activations: int = 0
    pushed: bool = False
    answered: bool = False


@dataclass(frozen=True)
class _Sent:
    """A message that may still be answered, until the carrier forgets it."""

    outbound: OutboundMessage
    forgotten_at: float


@dataclass
class _Closed:
    """Messages of earlier exchanges, by id, that nobody answered in time."""

    sent: dict[str, _Sent] = field(default_factory=dict)

    def still_open(self, now: float) -> list[str]:
        self.sent = {key: value for key, value in self.sent.items() if value.forgotten_at > now}
        return list(self.sent)


class Dispatcher:
    """Carries one coordinator's questions, one set after the other.

    Args:
        clock: monotonic seconds.
        chance: uniform in [0, 1), for the jitter.
    """

    def __init__(
        self,
        transport: Transport,
        liveness: Liveness,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._transport, self._liveness, self._clock, self._chance = transport, liveness, clock, chance
        self._closed = _Closed()
        self._health: Mapping[str, SiteHealth] = {}
        self._looked = -math.inf
        self._batch: _OpenBatch | None = None

    def send(
        self, messages: Sequence[OutboundMessage], within_s: float, closing: Closing | None = None
    ) -> Iterator[list[Reply]]:
        """Send the parcels and yield what is heard as it comes, in batches; the last one names who stayed silent.

        Every parcel is heard exactly once as :attr:`ReplyKind.FIRST` or :attr:`ReplyKind.MISSING`; what
        :meth:`follow_up` sends is one more, within the same deadline.

        Args:
            within_s: seconds until the deadline.
            closing: when to stop waiting before it; None: not before it.
        """
        batch = self._batch = _OpenBatch(self._clock, self._chance, messages)
        self._looked = -math.inf
        started, pause = self._clock(), _SHORTEST_S
        deadline, enough = started + within_s, False
        try:
            while True:
                self._push_due(batch)
                replies = self._receive(batch)
                if replies:
                    yield replies
                if closing is not None and not enough and closing.enough():
                    enough, deadline = True, min(deadline, closing.at(started, self._clock()))
                left = deadline - self._clock()
                if not batch.waiting or left <= 0:
                    break
                pause = _SHORTEST_S if replies else min(pause * _GROWTH, _LONGEST_S)
                self._transport.wait(min(pause, left))
            if batch.waiting:
                yield batch.silent()
        finally:
            self._closed.sent.update(batch.unanswered())
            self._batch = None

    def follow_up(self, outbound: OutboundMessage) -> None:
        """Ask a site that has just answered for something more, while :meth:`send` goes on."""
        if self._batch is None:
            raise RuntimeError("no batch is open: follow_up() belongs into the loop over send()")
        self._batch.follow(outbound)

    def _push_due(self, batch: _OpenBatch) -> None:
        self._look()
        due = batch.due(self._health)
        if not due:
            return
        try:
            with self._liveness.pushing():
                batch.sent(due, self._transport.push([request.outbound for request in due]), self._health)
        except TransportFailed as error:
            batch.failed(due, error)

    def _look(self) -> None:
        if self._clock() - self._looked >= _LOOK_EVERY_S:
            self._health, self._looked = self._liveness.health(), self._clock()

    def _receive(self, batch: _OpenBatch) -> list[Reply]:
        inbound_messages: list[InboundMessage] = []
        for message_ids in (*batch.pulls(), self._closed.still_open(self._clock())):
            if not message_ids:
                continue
            try:
                inbound_messages += self._transport.pull(message_ids)
                batch.working = True
            except TransportFailed as error:
                batch.broken(message_ids, error)
        replies = [self._handle_reply(batch, inbound) for inbound in inbound_messages]
        return [reply for reply in replies if reply is not None]

    def _handle_reply(self, batch: _OpenBatch, inbound: InboundMessage) -> Reply | None:
        late = self._closed.sent.get(inbound.message_id)
        if late is None:
            return batch.receive(inbound)
        if isinstance(inbound.content, DeliveryFailure):
            del self._closed.sent[inbound.message_id]
            return None
        if inbound.node_id != late.outbound.node_id:
            return Reply(ReplyKind.UNSOLICITED, "", inbound.node_id, inbound.content)
        del self._closed.sent[inbound.message_id]
        return Reply(ReplyKind.LATE, late.outbound.site, inbound.node_id, inbound.content)


class _OpenBatch:
    """The book of one exchange: who was sent what, who answered, what has to be sent again."""

    def __init__(
        self, clock: Callable[[], float], chance: Callable[[], float], messages: Iterable[OutboundMessage]
    ) -> None:
        self._clock, self._chance, self._started = clock, chance, clock()
        self._sites = {
            outbound.site: _OpenRequest(outbound, Backoff(_RETRY_FIRST_S, _RETRY_MAX_S, chance), self._started)
            for outbound in messages
        }
        self._sent: dict[str, _Sent] = {}
        self._done: dict[str, _Sent] = {}  # answered: no longer asked for, and known should one more answer come
        self._one_by_one = False
        self.working = False

    def follow(self, outbound: OutboundMessage) -> None:
        """One more parcel to a site; what it was asked before is over."""
        self._sites[outbound.site] = _OpenRequest(
            outbound, Backoff(_RETRY_FIRST_S, _RETRY_MAX_S, self._chance), self._clock()
        )

    @property
    def waiting(self) -> bool:
        """Whether somebody has not answered yet."""
        return any(not request.answered for request in self._sites.values())

    def due(self, health: Mapping[str, SiteHealth]) -> list[_OpenRequest]:
        """Who is to be sent its message now: at the beginning, after a failure, or because its node joined anew."""
        now = self._clock()
        waiting = [request for request in self._sites.values() if not request.answered]
        for request in waiting:
            _notice(request, health.get(request.outbound.site), now)
        return [request for request in waiting if request.due <= now and not _is_away(request, health)]

    def sent(
        self, due: Sequence[_OpenRequest], message_ids: Sequence[str | None], health: Mapping[str, SiteHealth]
    ) -> None:
        """Note what became of a push."""
        if len(message_ids) != len(due):
            raise TransportFailed(f"it took {len(message_ids)} of {len(due)} messages")
        now = self._clock()
        for request, message_id in zip(due, message_ids, strict=True):
            request.pushed, request.due = True, math.inf
            request.activations = health[request.outbound.site].activations if request.outbound.site in health else 0
            if message_id is None:
                self._again(request)
            else:
                self._sent[message_id] = _Sent(request.outbound, now + request.outbound.ttl_s)

    def failed(self, due: Sequence[_OpenRequest], error: TransportFailed) -> None:
        """The carrier did not take what was pushed, or took it and cannot say so."""
        self.working = False
        _log(error)
        for request in due:
            self._again(request)

    def pulls(self) -> list[list[str]]:
        """The message ids to pull for: together, or each by itself once that has failed."""
        message_ids = list(self._sent)
        return [[message_id] for message_id in message_ids] if self._one_by_one else [message_ids]

    def broken(self, message_ids: Iterable[str], error: TransportFailed) -> None:
        """A pull failed, and what it had taken is lost: one bad reply must not cost the others theirs."""
        self.working, self._one_by_one = False, True
        _log(error)
        for message_id in message_ids:
            sent = self._sent.get(message_id)
            if sent is not None and self._is_open(sent) and self._sites[sent.outbound.site].due == math.inf:
                self._again(self._sites[sent.outbound.site])

    def receive(self, inbound: InboundMessage) -> Reply | None:
        """Find out whose it is, and whether it is the first."""
        sent = self._sent.get(inbound.message_id, self._done.get(inbound.message_id))
        if isinstance(inbound.content, DeliveryFailure):
            self._lost(inbound.message_id)
            return None
        if sent is None or inbound.node_id != sent.outbound.node_id:
            return Reply(ReplyKind.UNSOLICITED, "", inbound.node_id, inbound.content)
        self._done[inbound.message_id] = sent
        self._sent.pop(inbound.message_id, None)
        request = self._sites[sent.outbound.site]
        over = request.outbound is not sent.outbound  # it was answered before, and has been followed up
        kind = ReplyKind.DUPLICATE if over or request.answered else ReplyKind.FIRST
        request.answered = request.answered or not over
        return Reply(
            kind, sent.outbound.site, inbound.node_id, inbound.content, request_kind=sent.outbound.request_kind
        )

    def _lost(self, message_id: str) -> None:
        sent = self._sent.pop(message_id, None)
        if sent is not None and self._is_open(sent):
            self._again(self._sites[sent.outbound.site])

    def _is_open(self, sent: _Sent) -> bool:
        request = self._sites[sent.outbound.site]
        return request.outbound is sent.outbound and not request.answered

    def silent(self) -> list[Reply]:
        """Whoever has not answered: by its own silence if the carrier worked to the end, else by the carrier's."""
        return [
            Reply(
                ReplyKind.MISSING,
                site,
                request.outbound.node_id,
                reason=Reason.NO_REPLY if self.working and request.pushed else Reason.TRANSPORT,
                request_kind=request.outbound.request_kind,
            )
            for site, request in self._sites.items()
            if not request.answered
        ]

    def unanswered(self) -> dict[str, _Sent]:
        """What may still be answered, too late."""
        return {key: sent for key, sent in self._sent.items() if self._is_open(sent)}

    def _again(self, request: _OpenRequest) -> None:
        request.due = self._clock() + request.backoff.next()


def _notice(request: _OpenRequest, seen: SiteHealth | None, now: float) -> None:
    """A node that joined anew may never read what was sent to it before."""
    if request.pushed and seen is not None and seen.activations > request.activations:
        request.due, request.activations = now, seen.activations


def _is_away(request: _OpenRequest, health: Mapping[str, SiteHealth]) -> bool:
    """Whether sending once more could only pile up messages for a node that is not there."""
    seen = health.get(request.outbound.site)
    return request.pushed and seen is not None and not seen.connected


def _log(error: TransportFailed) -> None:
    logging.getLogger(__name__).warning("the carrier failed, and is tried again: %s", error)
