"""The gateway's load: connections in use, and the parties that its limits turned away."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from coreason_enclave.schemas import StrictModel, in_range

_MAX_PARTIES = 1024
_SHOWN = 5

_log = logging.getLogger(__name__)
_Count = Annotated[int, *in_range(0, (1 << 64) - 1)]
_Moment = Annotated[float, *in_range(0, 1e12)]


class Turned(StrEnum):
    """The reason for ending a connection."""

    SILENT = "too many connections without a TLS hello"
    WAITING = "too many connections that wait for a TLS handshake"
    HANDSHAKE = "too many TLS handshakes at a time"
    LATE = "no TLS handshake in time"
    NOT_TLS = "not TLS"
    FAILED = "the TLS handshake failed"
    SITE = "more connections than one site may have"
    HEADS = "more half-sent requests than one site may have"
    ADDRESS = "more connections than one address may have"
    FULL = "all connections are taken"
    DESCRIPTORS = "no file descriptor is left"
    PIPELINED = "a request before the answer to the one before it"


_FELT_BY_OTHERS = frozenset({Turned.SILENT, Turned.WAITING, Turned.HANDSHAKE, Turned.FULL, Turned.DESCRIPTORS})
"""Limits that a party can reach through no fault of its own."""


class GatewayLoad(StrictModel):
    """The gateway's load. Times are Unix seconds; counts start with the gateway.

    Attributes:
        connections, max_connections: with a certificate, now and at most.
        unfinished: connections before the end of their handshake, now.
        by_site: connections of the sites with the most, now.
        turned_away: ended connections, by reason.
        max_turned_away: the parties (sites, addresses) turned away most often.
        crowded_at: the last time that a limit common to all took effect; None: never.
    """

    connections: _Count = 0
    max_connections: _Count = 0
    unfinished: _Count = 0
    by_site: dict[str, _Count] = Field(default_factory=dict)
    turned_away: dict[str, _Count] = Field(default_factory=dict)
    max_turned_away: dict[str, _Count] = Field(default_factory=dict)
    crowded_at: _Moment | None = None

    def crowded_since(self, moment: float) -> bool:
        """Return True if a common limit took effect at ``moment`` (Unix seconds) or later."""
        return self.crowded_at is not None and self.crowded_at >= moment

    def in_words(self) -> str:
        """Return a line of text: connections in use, their holders, and the parties turned away."""
        held = ", ".join(f"{site} holds {count}" for site, count in self.by_site.items())
        turned = ", ".join(f"{reason}: {count}" for reason, count in self.turned_away.items())
        whom = ", ".join(f"{party} ({count})" for party, count in self.max_turned_away.items())
        parts = [
            f"{self.connections} of {self.max_connections} connections" + (f" ({held})" if held else ""),
            *([f"{self.unfinished} unfinished"] if self.unfinished else []),
            *([f"turned away: {turned}"] if turned else []),
            *([f"most of {whom}"] if whom else []),
        ]
        return "; ".join(parts)


class CrowdCounts:
    """Counts of the limits' effects. Not thread-safe: use from one event loop.

    Attributes:
        unfinished: returns the connections before the end of their handshake, now; set by the acceptor.
        by_site: returns each site's connections, now; set by the seats.

    Args:
        max_connections: maximum number of connections with a certificate.
        clock: Unix seconds.
    """

    def __init__(self, max_connections: int, clock: Callable[[], float] = time.time) -> None:
        self._most_connections, self._clock = max_connections, clock
        self.unfinished: Callable[[], int] = lambda: 0
        self.by_site: Callable[[], Mapping[str, int]] = dict
        self._reasons: Counter[Turned] = Counter()
        self._parties: Counter[str] = Counter()
        self._crowded_at: float | None = None

    def turned(self, why: Turned, party: str) -> None:
        """Count and log an ended connection of ``party``."""
        self._reasons[why] += 1
        self._parties[party] += 1
        if len(self._parties) > _MAX_PARTIES:
            self._parties = Counter(dict(self._parties.most_common(_MAX_PARTIES // 2)))
        if why in _FELT_BY_OTHERS:
            self._crowded_at = self._clock()
        _log.warning(f"ended a connection: {why}; last of %s", party)

    def load(self) -> GatewayLoad:
        """Return the counts, with the connections held now."""
        by_site = Counter(self.by_site())
        return GatewayLoad(
            connections=by_site.total(),
            max_connections=self._most_connections,
            unfinished=self.unfinished(),
            by_site=dict(by_site.most_common(_SHOWN)),
            turned_away={reason.value: count for reason, count in self._reasons.most_common()},
            max_turned_away=dict(self._parties.most_common(_SHOWN)),
            crowded_at=self._crowded_at,
        )
