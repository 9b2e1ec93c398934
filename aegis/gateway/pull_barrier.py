"""When sites may fetch messages: at once, or after a coordinator has finished handing over a whole round.

Flower shows a message to its node before the message's content is there, and a node that comes too early backs off
for a second. While a coordinator holds, fetches wait; at its release all of them wake up at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

__all__ = ["MAX_HOLD_S", "PullBarrier"]

MAX_HOLD_S = 60.0
_SETTLE_S = 5.0


class PullBarrier:
    """Used from one event loop.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held_until = 0.0
        self._fetching = 0
        self._changed = asyncio.Event()
        self.closed = False

    @property
    def held(self) -> bool:
        """Whether fetches wait now. A hold ends by itself: a coordinator may have died inside it."""
        return self._clock() < self._held_until

    async def hold(self, for_s: float) -> None:
        """Hold for at most ``for_s`` seconds from now; returns when no fetch is on its way any more."""
        self._held_until = self._clock() + for_s
        end = self._clock() + _SETTLE_S
        while self._fetching and self.held and self._clock() < end:
            await self.rest(end - self._clock())

    def release(self) -> None:
        """End the hold and wake everybody."""
        self._held_until = 0.0
        self._wake()

    def close(self) -> None:
        """The end has come: nobody waits any longer."""
        self.closed = True
        self._wake()

    @contextlib.asynccontextmanager
    async def fetching(self) -> AsyncIterator[None]:
        """Around one fetch."""
        self._fetching += 1
        try:
            yield
        finally:
            self._fetching -= 1
            if self._fetching == 0 and self.held:
                self._wake()

    async def opened(self, until: float) -> bool:
        """Wait while held, at the longest until the moment ``until``; whether a fetch may go ahead now."""
        while self.held and not self.closed and self._clock() < until:
            await self.rest(min(until, self._held_until) - self._clock())
        return not self.held and not self.closed and self._clock() < until

    async def rest(self, for_s: float) -> bool:
        """Sleep ``for_s`` seconds or until somebody wakes everybody; whether that happened."""
        try:
            await asyncio.wait_for(self._changed.wait(), max(for_s, 0.0))
        except TimeoutError:
            return False
        return True

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
