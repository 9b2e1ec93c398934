"""Sends requests to sites and collects replies until all sites have answered or the deadline has passed.

Transports lose, delay and repeat messages; the dispatcher still reports each request exactly once as answered or
missing.

- Polling intervals grow from 20 ms to 250 ms.
- A site whose node has rejoined since the request was sent gets the request again.
- Transport failures are retried with exponential back-off and jitter.
- A resent request has the same bytes, hence the same nonce, for which a site has the same answer.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from aegis.coordination import Liveness, SiteHealth
from aegis.rounds.transport import Content, DeliveryFailure, InboundMessage, OutboundMessage, Transport, TransportFailed
from coreason_enclave.errors import Reason
from coreason_enclave.system import Backoff
from coreason_enclave.wire import RequestKind

_SHORTEST_S, _LONGEST_S, _GROWTH = 0.02, 0.25, 1.5
_LOOK_EVERY_S = 0.5
_RETRY_FIRST_S, _RETRY_MAX_S = 0.25, 10.0


class ReplyKind(StrEnum):
    """The relation between a reply and its request."""

    FIRST = "first"
    """the first reply to an open request"""
    DUPLICATE = "duplicate"
    """another reply to an already answered request"""
    LATE = "late"
    """a reply to a request that closed unanswered"""
    UNSOLICITED = "unsolicited"
    """a message from a node without a request"""
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
    """The rule that ends a batch before its deadline, so that the slowest site does not set the pace for all.

    Attributes:
        enough: returns True if the replies so far suffice; called after each batch of replies.
        grace_s: minimum seconds for the remaining sites from then on. They get at least as long again as the sufficient
            replies took, so a site that needs twice the time of the others still counts.
    """

    enough: Callable[[], bool]
    grace_s: float

    def at(self, started: float, now: float) -> float:
        """Return the closing time of a batch that started at ``started``, with enough replies at ``now`` (seconds)."""
        return now + max(self.grace_s, now - started)


@dataclass
class _OpenRequest:
    """The state of one site's request. ``due``: monotonic seconds at which to send it; infinity: do not send again."""

    outbound: OutboundMessage
    backoff: Backoff
    due: float
    activations: int = 0
    pushed: bool = False
    answered: bool = False


@dataclass(frozen=True)
class _Sent:
    """A sent message, answerable until the transport drops it at ``forgotten_at`` (monotonic seconds)."""

    outbound: OutboundMessage
    forgotten_at: float


@dataclass
class _Closed:
    """Messages of earlier batches, by id, that no site answered in time."""

    sent: dict[str, _Sent] = field(default_factory=dict)

    def still_open(self, now: float) -> list[str]:
        self.sent = {key: value for key, value in self.sent.items() if value.forgotten_at > now}
        return list(self.sent)


class Dispatcher:
    """Sends one coordinator's requests, one batch after another.

    Args:
        clock: returns monotonic seconds.
        chance: returns a uniform number in [0, 1), for the jitter.
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
        """Send the messages and yield replies in groups as they arrive; the last group names the silent sites.

        Each message yields exactly one reply of kind :attr:`ReplyKind.FIRST` or :attr:`ReplyKind.MISSING`. Each message
        sent by :meth:`follow_up` adds one more, within the same deadline.

        Args:
            within_s: seconds until the deadline.
            closing: rule for stopping earlier; None: wait until the deadline.
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
        """Send a further request to a site that has just answered, while :meth:`send` is running."""
        if self._batch is None:
            raise RuntimeError("no batch is open: call follow_up() only within the loop over send()")
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
    """The state of one batch: messages sent, sites that answered, messages to send again."""

    def __init__(
        self, clock: Callable[[], float], chance: Callable[[], float], messages: Iterable[OutboundMessage]
    ) -> None:
        self._clock, self._chance, self._started = clock, chance, clock()
        self._sites = {
            outbound.site: _OpenRequest(outbound, Backoff(_RETRY_FIRST_S, _RETRY_MAX_S, chance), self._started)
            for outbound in messages
        }
        self._sent: dict[str, _Sent] = {}
        self._done: dict[str, _Sent] = {}  # answered: no longer pulled, kept to recognise duplicates
        self._one_by_one = False
        self.working = False

    def follow(self, outbound: OutboundMessage) -> None:
        """Queue a follow-up request to a site; its previous request is closed."""
        self._sites[outbound.site] = _OpenRequest(
            outbound, Backoff(_RETRY_FIRST_S, _RETRY_MAX_S, self._chance), self._clock()
        )

    @property
    def waiting(self) -> bool:
        """True if a site has not answered yet."""
        return any(not request.answered for request in self._sites.values())

    def due(self, health: Mapping[str, SiteHealth]) -> list[_OpenRequest]:
        """Return the requests to send now: first sends, retries after a failure, and resends to nodes that rejoined."""
        now = self._clock()
        waiting = [request for request in self._sites.values() if not request.answered]
        for request in waiting:
            _notice(request, health.get(request.outbound.site), now)
        return [request for request in waiting if request.due <= now and not _is_disconnected(request, health)]

    def sent(
        self, due: Sequence[_OpenRequest], message_ids: Sequence[str | None], health: Mapping[str, SiteHealth]
    ) -> None:
        """Record the result of a push."""
        if len(message_ids) != len(due):
            raise TransportFailed(f"the transport accepted {len(message_ids)} of {len(due)} messages")
        now = self._clock()
        for request, message_id in zip(due, message_ids, strict=True):
            request.pushed, request.due = True, math.inf
            request.activations = health[request.outbound.site].activations if request.outbound.site in health else 0
            if message_id is None:
                self._again(request)
            else:
                self._sent[message_id] = _Sent(request.outbound, now + request.outbound.ttl_s)

    def failed(self, due: Sequence[_OpenRequest], error: TransportFailed) -> None:
        """Schedule retries after a failed push. The transport may have taken the messages all the same."""
        self.working = False
        _log(error)
        for request in due:
            self._again(request)

    def pulls(self) -> list[list[str]]:
        """Return the message ids to pull for, in groups: all together, or each alone after a failed pull."""
        message_ids = list(self._sent)
        return [[message_id] for message_id in message_ids] if self._one_by_one else [message_ids]

    def broken(self, message_ids: Iterable[str], error: TransportFailed) -> None:
        """Schedule resends after a failed pull, whose replies are lost.

        Later pulls fetch each message alone, so that one bad reply cannot cost the other sites theirs.
        """
        self.working, self._one_by_one = False, True
        _log(error)
        for message_id in message_ids:
            sent = self._sent.get(message_id)
            if sent is not None and self._is_open(sent) and self._sites[sent.outbound.site].due == math.inf:
                self._again(self._sites[sent.outbound.site])

    def receive(self, inbound: InboundMessage) -> Reply | None:
        """Match a message with its request and classify the reply; return None for a delivery failure."""
        sent = self._sent.get(inbound.message_id, self._done.get(inbound.message_id))
        if isinstance(inbound.content, DeliveryFailure):
            self._lost(inbound.message_id)
            return None
        if sent is None or inbound.node_id != sent.outbound.node_id:
            return Reply(ReplyKind.UNSOLICITED, "", inbound.node_id, inbound.content)
        self._done[inbound.message_id] = sent
        self._sent.pop(inbound.message_id, None)
        request = self._sites[sent.outbound.site]
        over = request.outbound is not sent.outbound  # answered before; a follow-up has replaced this request
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
        """Return a MISSING reply for each silent site.

        The reason is NO_REPLY if the request was sent and the transport worked to the end, else TRANSPORT.
        """
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
        """Return the messages whose replies may still arrive late."""
        return {key: sent for key, sent in self._sent.items() if self._is_open(sent)}

    def _again(self, request: _OpenRequest) -> None:
        request.due = self._clock() + request.backoff.next()


def _notice(request: _OpenRequest, seen: SiteHealth | None, now: float) -> None:
    """Schedule an immediate resend if the node rejoined, because a rejoined node may never read earlier messages."""
    if request.pushed and seen is not None and seen.activations > request.activations:
        request.due, request.activations = now, seen.activations


def _is_disconnected(request: _OpenRequest, health: Mapping[str, SiteHealth]) -> bool:
    """Return True if the node has its message but is disconnected, so that resending would only pile up messages."""
    seen = health.get(request.outbound.site)
    return request.pushed and seen is not None and not seen.connected


def _log(error: TransportFailed) -> None:
    logging.getLogger(__name__).warning("the transport failed, the coordinator retries: %s", error)
