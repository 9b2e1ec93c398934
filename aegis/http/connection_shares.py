"""A share of the gateway's connections for each site, once certificates are known.

A new connection gets in by these rules, in this order:

1. Its site is below ``connections_per_site``; otherwise the site's own oldest connection without a request ends.
2. Its address is below ``connections_per_address``.
3. The total is below ``connections``.

At 2 and 3 the site with the most connections gives way. If the new connection belongs to this site, rule 1 applies. If
no connection can give way, the new connection ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from aegis.http.fair_shares import Shares
from aegis.http.limits import GatewayLimits
from aegis.http.load import CrowdCounts, Turned

_NO_SITE = "certificates that are pinned for no participant"


class Standing(IntEnum):
    """A connection's state. The lowest gives way first."""

    HEAD = 0
    """waiting for a whole request head"""
    IDLE = 1
    """kept alive between two requests"""
    BUSY = 2
    """working on a request"""


class Seated(Protocol):
    """The interface of a connection that takes a seat."""

    @property
    def standing(self) -> Standing:
        """The connection's present state."""
        ...

    def abort(self) -> None:
        """End the connection at once."""
        ...


@dataclass(frozen=True, eq=False)
class Seat:
    """A connection's place, with its site and address."""

    connection: Seated
    site: str
    address: str


class Seats:
    """All seats of the gateway. Not thread-safe: use from one event loop.

    Args:
        limits: the shares.
        counts: records the connections that had to go.
    """

    def __init__(self, limits: GatewayLimits, counts: CrowdCounts) -> None:
        self._limits, self._counts = limits, counts
        self._taken: dict[Seat, None] = {}  # oldest first
        self._heads: Shares[str, Seat] = Shares(1 << 62, limits.heads_per_site)
        counts.by_site = self.by_site

    def take(self, connection: Seated, site: str, address: str) -> Seat | None:
        """Seat a new connection, or return None to refuse it.

        Ends another connection if the rules of this module say so.
        """
        seat = Seat(connection, site, address)
        of_site = [other for other in self._taken if other.site == site]
        if len(of_site) >= self._limits.connections_per_site and not self._make_room(of_site, seat, Turned.SITE):
            return None
        there = [other for other in self._taken if other.address == address]
        if len(there) >= self._limits.connections_per_address and not self._make_room(there, seat, Turned.ADDRESS):
            return None
        everybody = list(self._taken)
        if len(everybody) >= self._limits.connections and not self._make_room(everybody, seat, Turned.FULL):
            return None
        self._taken[seat] = None
        return seat

    def leave(self, seat: Seat) -> None:
        """Free the seat of an ended connection."""
        self._taken.pop(seat, None)
        self._heads.discard(seat.site, seat)

    def head_begins(self, seat: Seat) -> None:
        """Record that a connection waits for a request head. Over the limit, the site's oldest unfinished head ends."""
        if (dropped := self._heads.add(seat.site, seat)) is not None:
            self._counts.turned(Turned.HEADS, dropped.site or _NO_SITE)
            dropped.connection.abort()

    def head_is_in(self, seat: Seat) -> None:
        """Record that a request head has arrived."""
        self._heads.discard(seat.site, seat)

    def by_site(self) -> dict[str, int]:
        """Return the number of connections of each site."""
        return dict(Counter(seat.site or _NO_SITE for seat in self._taken))

    def _make_room(self, among: Iterable[Seat], newcomer: Seat, why: Turned) -> bool:
        """End a connection of the site with the most of these; return False if the new connection has to go instead."""
        among = list(among)
        held = Counter(seat.site for seat in among)
        largest, most = held.most_common(1)[0]
        own = held[newcomer.site] + 1 >= most
        site = newcomer.site if own else largest
        candidates = [seat for seat in among if seat.site == site]
        victim = min(candidates, key=lambda seat: seat.connection.standing, default=None)
        if victim is not None and victim.connection.standing is Standing.BUSY:
            victim = None if own else candidates[-1]  # the newest: older connections have progressed further
        self._counts.turned(why, (newcomer if victim is None else victim).site or _NO_SITE)
        if victim is None:
            return False
        self.leave(victim)
        victim.connection.abort()
        return True
