"""The gateway's connections once certificates are known: a share for each site.

A newcomer gets in by these rules, in this order:

1. its site is below ``connections_per_site``; otherwise the site's own oldest connection without a request goes;
2. its address is below ``connections_per_address``;
3. all are below ``connections``.

At 2 and 3 the site with the most connections gives way, unless that is the newcomer's own: then as at 1. Where nobody
is to give way, the newcomer goes.
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

__all__ = ["Seat", "Seated", "Seats", "Standing"]

_NOBODY = "certificates that are pinned for no participant"


class Standing(IntEnum):
    """What a connection is doing; the lowest goes first."""

    HEAD = 0
    """no whole request head is in"""
    IDLE = 1
    """kept alive between two requests"""
    BUSY = 2
    """a request is being worked on"""


class Seated(Protocol):
    """A connection as the seats see it."""

    @property
    def standing(self) -> Standing:
        """What it is doing now."""
        ...

    def abort(self) -> None:
        """End it at once."""
        ...


@dataclass(frozen=True, eq=False)
class Seat:
    """One connection's place."""

    connection: Seated
    site: str
    address: str


class Seats:
    """Used from one event loop.

    Args:
        limits: the shares. counts: where it is told who had to go.
    """

    def __init__(self, limits: GatewayLimits, counts: CrowdCounts) -> None:
        self._limits, self._counts = limits, counts
        self._taken: dict[Seat, None] = {}  # oldest first
        self._heads: Shares[str, Seat] = Shares(1 << 62, limits.heads_per_site)
        counts.by_site = self.by_site

    def take(self, connection: Seated, site: str, address: str) -> Seat | None:
        """Seat a newcomer, ending another connection where the rules say so; return None to refuse the newcomer."""
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
        """The connection has ended."""
        self._taken.pop(seat, None)
        self._heads.discard(seat.site, seat)

    def head_begins(self, seat: Seat) -> None:
        """A request head is waited for; the site's oldest unfinished one may have to go."""
        if (dropped := self._heads.add(seat.site, seat)) is not None:
            self._counts.turned(Turned.HEADS, dropped.site or _NOBODY)
            dropped.connection.abort()

    def head_is_in(self, seat: Seat) -> None:
        """A request head is whole."""
        self._heads.discard(seat.site, seat)

    def by_site(self) -> dict[str, int]:
        """How many connections each site has."""
        return dict(Counter(seat.site or _NOBODY for seat in self._taken))

    def _make_room(self, among: Iterable[Seat], newcomer: Seat, why: Turned) -> bool:
        """End one connection of the site that holds the most of these; False where the newcomer has to go instead."""
        among = list(among)
        held = Counter(seat.site for seat in among)
        largest, most = held.most_common(1)[0]
        own = held[newcomer.site] + 1 >= most
        site = newcomer.site if own else largest
        candidates = [seat for seat in among if seat.site == site]
        victim = min(candidates, key=lambda seat: seat.connection.standing, default=None)
        if victim is not None and victim.connection.standing is Standing.BUSY:
            victim = None if own else candidates[-1]  # the newest: an old one has come further with its request
        self._counts.turned(why, (newcomer if victim is None else victim).site or _NOBODY)
        if victim is None:
            return False
        self.leave(victim)
        victim.connection.abort()
        return True
