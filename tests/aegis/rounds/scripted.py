"""A carrier with a script instead of a network, and a clock that moves only when somebody waits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from aegis.coordination.liveness import SiteHealth
from aegis.rounds.dispatcher import Dispatcher, Reply
from aegis.rounds.transport import (
    Content,
    DeliveryFailure,
    InboundMessage,
    OutboundMessage,
    SiteRefusal,
    TransportFailed,
)
from coreason_enclave.errors import Reason
from coreason_enclave.wire.handler import RequestKind
from coreason_enclave.wire.updates import SealedMessage

NODES = {"a": 1, "b": 2, "c": 3}


def outbound_messages(*sites: str) -> list[OutboundMessage]:
    return [
        OutboundMessage(site, NODES[site], RequestKind.TRAIN, SealedMessage(site.encode()), "1", 160.0)
        for site in sites
    ]


def answer(text: str = "yes") -> SealedMessage:
    return SealedMessage(text.encode())


REFUSAL = SiteRefusal(Reason.POLICY)
LOST = DeliveryFailure("node unavailable")


@dataclass
class Script:
    """What the network does.

    Attributes:
        replies: by site, what its successive messages bring and after how many seconds; the last is repeated.
        down: spans of time (from, to) in which nothing can be sent or heard.
        poisoned: sites whose reply makes a pull fail, once a message, and takes what came with it along.
        not_taken: how many of a site's first messages are not taken.
    """

    replies: dict[str, list[tuple[float, Content | DeliveryFailure | None]]] = field(default_factory=dict)
    down: list[tuple[float, float]] = field(default_factory=list)
    poisoned: set[str] = field(default_factory=set)
    not_taken: dict[str, int] = field(default_factory=dict)
    activations: list[tuple[float, Mapping[str, SiteHealth]]] = field(default_factory=list)
    now: float = 0.0
    pushes: list[tuple[float, list[str]]] = field(default_factory=list)
    pulls: list[float] = field(default_factory=list)
    looked_for: list[set[str]] = field(default_factory=list)
    holding: bool = False
    _waiting: dict[str, tuple[float, InboundMessage, str]] = field(default_factory=dict)

    def dispatcher(self) -> Dispatcher:
        return Dispatcher(self, self, clock=lambda: self.now, chance=lambda: 1.0)

    def ask(self, *sites: str, within_s: float = 100.0, dispatcher: Dispatcher | None = None) -> list[Reply]:
        batches = (dispatcher or self.dispatcher()).send(outbound_messages(*sites), within_s)
        return [reply for batch in batches for reply in batch]

    # the carrier

    def push(self, outbound_messages: Sequence[OutboundMessage]) -> Sequence[str | None]:
        assert self.holding, "orders are sent while deliveries are held"
        self._require_up()
        self.pushes.append((self.now, [outbound.site for outbound in outbound_messages]))
        return [self._push(outbound) for outbound in outbound_messages]

    def _push(self, outbound: OutboundMessage) -> str | None:
        if self.not_taken.get(outbound.site, 0) > 0:
            self.not_taken[outbound.site] -= 1
            return None
        message_id = f"{outbound.site}-{sum(outbound.site in sites for _, sites in self.pushes)}"
        script = self.replies.get(outbound.site, [(0.0, answer())])
        after, content = script.pop(0) if len(script) > 1 else script[0]
        if content is not None:
            inbound = InboundMessage(message_id, outbound.node_id, content)
            self._waiting[message_id] = (self.now + after, inbound, outbound.site)
        return message_id

    def pull(self, message_ids: Collection[str]) -> Sequence[InboundMessage]:
        self.pulls.append(self.now)
        self.looked_for.append(set(message_ids))
        self._require_up()
        ready = [key for key in message_ids if key in self._waiting and self._waiting[key][0] <= self.now]
        taken = [self._waiting.pop(key) for key in ready]
        if any(site in self.poisoned for _, _, site in taken):
            raise TransportFailed("ValueError")
        return [inbound for _, inbound, _ in taken]

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def _require_up(self) -> None:
        if any(start <= self.now < end for start, end in self.down):
            raise TransportFailed("ConnectError")

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
