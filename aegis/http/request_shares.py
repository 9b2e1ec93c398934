"""One site's share of the gateway's work: how many requests at a time, and how many a second.

Nobody is refused for being over a share: the request waits, and with it the connection that it came on, of which a site
has only so many.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Generic, TypeVar

from aegis.http.limits import GatewayLimits

__all__ = ["Pace", "Paces", "Turns"]

BURST_S = 10.0
"""For how many seconds' worth a rate may be exceeded after a rest."""
_MOST_KEYS = 4096

Key = TypeVar("Key", bound=Hashable)


class Pace:
    """A token bucket: ``per_s`` tokens come in a second, and at most ``burst`` are kept.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float]) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._tokens, self._at = burst, clock()

    def take(self) -> float:
        """Take one token, on credit where the bucket is empty; return the seconds until the credit is paid."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s) - 1.0
        self._at = now
        return max(0.0, -self._tokens / self._per_s)

    def ready(self) -> bool:
        """Take one token; return False, and take none, where the bucket is empty."""
        if (wait_s := self.take()) > 0.0:
            self._tokens += 1.0
        return wait_s == 0.0


class Paces(Generic[Key]):
    """A token bucket for each key; the least recently used buckets are dropped beyond some thousand.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, per_s: float, clock: Callable[[], float]) -> None:
        self._per_s, self._clock = per_s, clock
        self._paces: OrderedDict[Key, Pace] = OrderedDict()

    def ready(self, key: Key) -> bool:
        """Take one token from the key's bucket; return False, and take none, where the bucket is empty."""
        pace = self._paces.get(key)
        if pace is None:
            pace = self._paces[key] = Pace(self._per_s, self._per_s * BURST_S, self._clock)
        self._paces.move_to_end(key)
        if len(self._paces) > _MOST_KEYS:
            self._paces.popitem(last=False)
        return pace.ready()


class _Share:
    """One site's."""

    def __init__(self, limits: GatewayLimits) -> None:
        loop = asyncio.get_running_loop()
        self.requests = asyncio.Semaphore(limits.requests_per_site)
        self.pace = Pace(limits.requests_per_s_per_site, limits.requests_per_s_per_site * BURST_S, loop.time)
        self.users = 0


class Turns:
    """Every site's share. Used from one event loop."""

    def __init__(self, limits: GatewayLimits) -> None:
        self._limits = limits
        self._shares: OrderedDict[str, _Share] = OrderedDict()

    @contextlib.asynccontextmanager
    async def request(self, site: str) -> AsyncIterator[None]:
        """Enclose one request of a site; wait for the site's share of requests and for its rate before the body."""
        share = self._share(site)
        share.users += 1
        try:
            async with share.requests:
                if (wait_s := share.pace.take()) > 0.0:
                    await asyncio.sleep(wait_s)
                yield
        finally:
            share.users -= 1

    def _share(self, site: str) -> _Share:
        share = self._shares.get(site)
        if share is None:
            share = self._shares[site] = _Share(self._limits)
        self._shares.move_to_end(site)
        if len(self._shares) > _MOST_KEYS:
            oldest = next(iter(self._shares))
            if not self._shares[oldest].users:
                del self._shares[oldest]
        return share
