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
from aegis.rounds.transport import Carrier, CarrierFailed, Content, Delivery, Errand, Parcel, Undelivered
from coreason_enclave.errors import Reason
from coreason_enclave.system.processes import Backoff

__all__ = ["Came", "Closing", "Exchange", "Heard"]

_SHORTEST_S, _LONGEST_S, _GROWTH = 0.02, 0.25, 1.5
_LOOK_EVERY_S = 0.5
_RETRY_FIRST_S, _RETRY_MOST_S = 0.25, 10.0


class Came(StrEnum):
    """How something was heard."""

    FIRST = "first"
    """the first answer to what was asked"""
    AGAIN = "again"
    """one more answer to it"""
    LATE = "late"
    """an answer to what was closed without one"""
    STRAY = "stray"
    """an answer of a node that was not asked"""
    NEVER = "never"
    """the deadline passed"""


@dataclass(frozen=True)
class Heard:
    """One thing heard, and what it answers. ``content`` is there unless nothing came, for which there is a reason."""

    came: Came
    site: str
    node_id: int
    content: Content | None = None
    reason: Reason | None = None
    errand: Errand | None = None


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
class _Asked:
    """One site in one exchange; ``due`` is when (monotonic seconds) it is sent its message, infinity: not again."""

    parcel: Parcel
    backoff: Backoff
    due: float
    activations: int = 0
    pushed: bool = False
    answered: bool = False


@dataclass(frozen=True)
class _Sent:
    """A message that may still be answered, until the carrier forgets it."""

    parcel: Parcel
    forgotten_at: float


@dataclass
class _Closed:
    """Messages of earlier exchanges, by id, that nobody answered in time."""

    sent: dict[str, _Sent] = field(default_factory=dict)

    def still_open(self, now: float) -> list[str]:
        self.sent = {key: value for key, value in self.sent.items() if value.forgotten_at > now}
        return list(self.sent)


class Exchange:
    """Carries one coordinator's questions, one set after the other.

    Args:
        clock: monotonic seconds.
        chance: uniform in [0, 1), for the jitter.
    """

    def __init__(
        self,
        carrier: Carrier,
        liveness: Liveness,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._carrier, self._liveness, self._clock, self._chance = carrier, liveness, clock, chance
        self._closed = _Closed()
        self._health: Mapping[str, SiteHealth] = {}
        self._looked = -math.inf
        self._asking: _Asking | None = None

    def ask(self, parcels: Sequence[Parcel], within_s: float, closing: Closing | None = None) -> Iterator[list[Heard]]:
        """Send the parcels and yield what is heard as it comes, in batches; the last one names who stayed silent.

        Every parcel is heard exactly once as :attr:`Came.FIRST` or :attr:`Came.NEVER`; what :meth:`then` sends is one
        more, within the same deadline.

        Args:
            within_s: seconds until the deadline.
            closing: when to stop waiting before it; None: not before it.
        """
        asking = self._asking = _Asking(self._clock, self._chance, parcels)
        self._looked = -math.inf
        started, pause = self._clock(), _SHORTEST_S
        deadline, enough = started + within_s, False
        try:
            while True:
                self._send(asking)
                heard = self._receive(asking)
                if heard:
                    yield heard
                if closing is not None and not enough and closing.enough():
                    enough, deadline = True, min(deadline, closing.at(started, self._clock()))
                left = deadline - self._clock()
                if not asking.waiting or left <= 0:
                    break
                pause = _SHORTEST_S if heard else min(pause * _GROWTH, _LONGEST_S)
                self._carrier.wait(min(pause, left))
            if asking.waiting:
                yield asking.silent()
        finally:
            self._closed.sent.update(asking.unanswered())
            self._asking = None

    def then(self, parcel: Parcel) -> None:
        """Ask a site that has just answered for something more, while :meth:`ask` goes on."""
        if self._asking is None:
            raise RuntimeError("nothing is being asked: then() belongs into the loop over ask()")
        self._asking.follow(parcel)

    def _send(self, asking: _Asking) -> None:
        self._look()
        due = asking.due(self._health)
        if not due:
            return
        try:
            with self._liveness.pushing():
                asking.sent(due, self._carrier.push([asked.parcel for asked in due]), self._health)
        except CarrierFailed as error:
            asking.failed(due, error)

    def _look(self) -> None:
        if self._clock() - self._looked >= _LOOK_EVERY_S:
            self._health, self._looked = self._liveness.health(), self._clock()

    def _receive(self, asking: _Asking) -> list[Heard]:
        deliveries: list[Delivery] = []
        for message_ids in (*asking.pulls(), self._closed.still_open(self._clock())):
            if not message_ids:
                continue
            try:
                deliveries += self._carrier.pull(message_ids)
                asking.working = True
            except CarrierFailed as error:
                asking.broken(message_ids, error)
        heard = [self._hear(asking, delivery) for delivery in deliveries]
        return [each for each in heard if each is not None]

    def _hear(self, asking: _Asking, delivery: Delivery) -> Heard | None:
        late = self._closed.sent.get(delivery.message_id)
        if late is None:
            return asking.hear(delivery)
        if isinstance(delivery.content, Undelivered):
            del self._closed.sent[delivery.message_id]
            return None
        if delivery.node_id != late.parcel.node_id:
            return Heard(Came.STRAY, "", delivery.node_id, delivery.content)
        del self._closed.sent[delivery.message_id]
        return Heard(Came.LATE, late.parcel.site, delivery.node_id, delivery.content)


class _Asking:
    """The book of one exchange: who was sent what, who answered, what has to be sent again."""

    def __init__(self, clock: Callable[[], float], chance: Callable[[], float], parcels: Iterable[Parcel]) -> None:
        self._clock, self._chance, self._started = clock, chance, clock()
        self._sites = {
            parcel.site: _Asked(parcel, Backoff(_RETRY_FIRST_S, _RETRY_MOST_S, chance), self._started)
            for parcel in parcels
        }
        self._sent: dict[str, _Sent] = {}
        self._done: dict[str, _Sent] = {}  # answered: no longer asked for, and known should one more answer come
        self._one_by_one = False
        self.working = False

    def follow(self, parcel: Parcel) -> None:
        """One more parcel to a site; what it was asked before is over."""
        self._sites[parcel.site] = _Asked(parcel, Backoff(_RETRY_FIRST_S, _RETRY_MOST_S, self._chance), self._clock())

    @property
    def waiting(self) -> bool:
        """Whether somebody has not answered yet."""
        return any(not asked.answered for asked in self._sites.values())

    def due(self, health: Mapping[str, SiteHealth]) -> list[_Asked]:
        """Who is to be sent its message now: at the beginning, after a failure, or because its node joined anew."""
        now = self._clock()
        waiting = [asked for asked in self._sites.values() if not asked.answered]
        for asked in waiting:
            _notice(asked, health.get(asked.parcel.site), now)
        return [asked for asked in waiting if asked.due <= now and not _is_away(asked, health)]

    def sent(self, due: Sequence[_Asked], message_ids: Sequence[str | None], health: Mapping[str, SiteHealth]) -> None:
        """Note what became of a push."""
        if len(message_ids) != len(due):
            raise CarrierFailed(f"it took {len(message_ids)} of {len(due)} messages")
        now = self._clock()
        for asked, message_id in zip(due, message_ids, strict=True):
            asked.pushed, asked.due = True, math.inf
            asked.activations = health[asked.parcel.site].activations if asked.parcel.site in health else 0
            if message_id is None:
                self._again(asked)
            else:
                self._sent[message_id] = _Sent(asked.parcel, now + asked.parcel.ttl_s)

    def failed(self, due: Sequence[_Asked], error: CarrierFailed) -> None:
        """The carrier did not take what was pushed, or took it and cannot say so."""
        self.working = False
        _log(error)
        for asked in due:
            self._again(asked)

    def pulls(self) -> list[list[str]]:
        """The message ids to pull for: together, or each by itself once that has failed."""
        message_ids = list(self._sent)
        return [[message_id] for message_id in message_ids] if self._one_by_one else [message_ids]

    def broken(self, message_ids: Iterable[str], error: CarrierFailed) -> None:
        """A pull failed, and what it had taken is lost: one bad reply must not cost the others theirs."""
        self.working, self._one_by_one = False, True
        _log(error)
        for message_id in message_ids:
            sent = self._sent.get(message_id)
            if sent is not None and self._is_open(sent) and self._sites[sent.parcel.site].due == math.inf:
                self._again(self._sites[sent.parcel.site])

    def hear(self, delivery: Delivery) -> Heard | None:
        """Find out whose it is, and whether it is the first."""
        sent = self._sent.get(delivery.message_id, self._done.get(delivery.message_id))
        if isinstance(delivery.content, Undelivered):
            self._lost(delivery.message_id)
            return None
        if sent is None or delivery.node_id != sent.parcel.node_id:
            return Heard(Came.STRAY, "", delivery.node_id, delivery.content)
        self._done[delivery.message_id] = sent
        self._sent.pop(delivery.message_id, None)
        asked = self._sites[sent.parcel.site]
        over = asked.parcel is not sent.parcel  # it was answered before, and has been followed up
        came = Came.AGAIN if over or asked.answered else Came.FIRST
        asked.answered = asked.answered or not over
        return Heard(came, sent.parcel.site, delivery.node_id, delivery.content, errand=sent.parcel.errand)

    def _lost(self, message_id: str) -> None:
        sent = self._sent.pop(message_id, None)
        if sent is not None and self._is_open(sent):
            self._again(self._sites[sent.parcel.site])

    def _is_open(self, sent: _Sent) -> bool:
        asked = self._sites[sent.parcel.site]
        return asked.parcel is sent.parcel and not asked.answered

    def silent(self) -> list[Heard]:
        """Whoever has not answered: by its own silence if the carrier worked to the end, else by the carrier's."""
        return [
            Heard(
                Came.NEVER,
                site,
                asked.parcel.node_id,
                reason=Reason.NO_REPLY if self.working and asked.pushed else Reason.TRANSPORT,
                errand=asked.parcel.errand,
            )
            for site, asked in self._sites.items()
            if not asked.answered
        ]

    def unanswered(self) -> dict[str, _Sent]:
        """What may still be answered, too late."""
        return {key: sent for key, sent in self._sent.items() if self._is_open(sent)}

    def _again(self, asked: _Asked) -> None:
        asked.due = self._clock() + asked.backoff.next()


def _notice(asked: _Asked, seen: SiteHealth | None, now: float) -> None:
    """A node that joined anew may never read what was sent to it before."""
    if asked.pushed and seen is not None and seen.activations > asked.activations:
        asked.due, asked.activations = now, seen.activations


def _is_away(asked: _Asked, health: Mapping[str, SiteHealth]) -> bool:
    """Whether sending once more could only pile up messages for a node that is not there."""
    seen = health.get(asked.parcel.site)
    return asked.pushed and seen is not None and not seen.connected


def _log(error: CarrierFailed) -> None:
    logging.getLogger(__name__).warning("the carrier failed, and is tried again: %s", error)
