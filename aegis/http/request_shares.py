"""Each site's share of the gateway's work: concurrent requests, and requests per second.

The gateway refuses no request for exceeding a share. The request waits, and so does its connection, and each site has a
limited number of connections.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Generic, TypeVar

from aegis.http.limits import GatewayLimits

BURST_S = 10.0
"""Seconds' worth of requests that a site may send at once after a rest."""
_MAX_KEYS = 4096

Key = TypeVar("Key", bound=Hashable)


class Pace:
    """A token bucket: gains ``per_s`` tokens a second, and keeps at most ``burst``.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float]) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._tokens, self._at = burst, clock()

    def take(self) -> float:
        """Take a token, on credit if the bucket is empty; return the seconds until the credit is paid."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s) - 1.0
        self._at = now
        return max(0.0, -self._tokens / self._per_s)

    def ready(self) -> bool:
        """Take a token and return True; if the bucket is empty, take no token and return False."""
        if (wait_s := self.take()) > 0.0:
            self._tokens += 1.0
        return wait_s == 0.0


class Paces(Generic[Key]):
    """A token bucket for each key. Keeps a few thousand buckets, the most recently used.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, per_s: float, clock: Callable[[], float]) -> None:
        self._per_s, self._clock = per_s, clock
        self._paces: OrderedDict[Key, Pace] = OrderedDict()

    def ready(self, key: Key) -> bool:
        """Take a token from the key's bucket and return True; if the bucket is empty, return False."""
        pace = self._paces.get(key)
        if pace is None:
            pace = self._paces[key] = Pace(self._per_s, self._per_s * BURST_S, self._clock)
        self._paces.move_to_end(key)
        if len(self._paces) > _MAX_KEYS:
            self._paces.popitem(last=False)
        return pace.ready()


class _Share:
    """A site's share: a semaphore and a rate."""

    def __init__(self, limits: GatewayLimits) -> None:
        loop = asyncio.get_running_loop()
        self.requests = asyncio.Semaphore(limits.requests_per_site)
        self.pace = Pace(limits.requests_per_s_per_site, limits.requests_per_s_per_site * BURST_S, loop.time)
        self.users = 0


class RequestShares:
    """The shares of all sites. Not thread-safe: use from one event loop."""

    def __init__(self, limits: GatewayLimits) -> None:
        self._limits = limits
        self._shares: OrderedDict[str, _Share] = OrderedDict()

    @contextlib.asynccontextmanager
    async def request(self, site: str) -> AsyncIterator[None]:
        """Enclose a site's request; wait for the site's share of requests and for its rate before the body."""
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
        if len(self._shares) > _MAX_KEYS:
            oldest = next(iter(self._shares))
            if not self._shares[oldest].users:
                del self._shares[oldest]
        return share
