"""A carrier with a script instead of a network, and a clock that moves only when somebody waits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from aegis.coordination.liveness import SiteHealth
from aegis.rounds.dispatcher import Exchange, Heard
from aegis.rounds.transport import CarrierFailed, Content, Delivery, Errand, Parcel, SiteRefused, Undelivered
from coreason_enclave.errors import Reason
from coreason_enclave.wire.updates import SealedMessage

NODES = {"a": 1, "b": 2, "c": 3}


def parcels(*sites: str) -> list[Parcel]:
    return [Parcel(site, NODES[site], Errand.TRAIN, SealedMessage(site.encode()), "1", 160.0) for site in sites]


def answer(text: str = "yes") -> SealedMessage:
    return SealedMessage(text.encode())


REFUSAL = SiteRefused(Reason.POLICY)
LOST = Undelivered("node unavailable")


@dataclass
class Script:
    """What the network does.

    Attributes:
        replies: by site, what its successive messages bring and after how many seconds; the last is repeated.
        down: spans of time (from, to) in which nothing can be sent or heard.
        poisoned: sites whose reply makes a pull fail, once a message, and takes what came with it along.
        not_taken: how many of a site's first messages are not taken.
    """

    replies: dict[str, list[tuple[float, Content | Undelivered | None]]] = field(default_factory=dict)
    down: list[tuple[float, float]] = field(default_factory=list)
    poisoned: set[str] = field(default_factory=set)
    not_taken: dict[str, int] = field(default_factory=dict)
    activations: list[tuple[float, Mapping[str, SiteHealth]]] = field(default_factory=list)
    now: float = 0.0
    pushes: list[tuple[float, list[str]]] = field(default_factory=list)
    pulls: list[float] = field(default_factory=list)
    looked_for: list[set[str]] = field(default_factory=list)
    holding: bool = False
    _waiting: dict[str, tuple[float, Delivery, str]] = field(default_factory=dict)

    def exchange(self) -> Exchange:
        return Exchange(self, self, clock=lambda: self.now, chance=lambda: 1.0)

    def ask(self, *sites: str, within_s: float = 100.0, exchange: Exchange | None = None) -> list[Heard]:
        batches = (exchange or self.exchange()).ask(parcels(*sites), within_s)
        return [heard for batch in batches for heard in batch]

    # the carrier

    def push(self, parcels: Sequence[Parcel]) -> Sequence[str | None]:
        assert self.holding, "orders are sent while deliveries are held"
        self._require_up()
        self.pushes.append((self.now, [parcel.site for parcel in parcels]))
        return [self._push(parcel) for parcel in parcels]

    def _push(self, parcel: Parcel) -> str | None:
        if self.not_taken.get(parcel.site, 0) > 0:
            self.not_taken[parcel.site] -= 1
            return None
        message_id = f"{parcel.site}-{sum(parcel.site in sites for _, sites in self.pushes)}"
        script = self.replies.get(parcel.site, [(0.0, answer())])
        after, content = script.pop(0) if len(script) > 1 else script[0]
        if content is not None:
            delivery = Delivery(message_id, parcel.node_id, content)
            self._waiting[message_id] = (self.now + after, delivery, parcel.site)
        return message_id

    def pull(self, message_ids: Collection[str]) -> Sequence[Delivery]:
        self.pulls.append(self.now)
        self.looked_for.append(set(message_ids))
        self._require_up()
        ready = [key for key in message_ids if key in self._waiting and self._waiting[key][0] <= self.now]
        taken = [self._waiting.pop(key) for key in ready]
        if any(site in self.poisoned for _, _, site in taken):
            raise CarrierFailed("ValueError")
        return [delivery for _, delivery, _ in taken]

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def _require_up(self) -> None:
        if any(start <= self.now < end for start, end in self.down):
            raise CarrierFailed("ConnectError")

    # signs of life

    def health(self) -> Mapping[str, SiteHealth]:
        known: Mapping[str, SiteHealth] = {}
        for since, health in self.activations:
            known = health if since <= self.now else known
        return known

    @contextmanager
    def pushing(self) -> Iterator[None]:
        self.holding = True
        try:
            yield
        finally:
            self.holding = False


Make = Callable[..., Script]
