"""A barrier for message fetches: open, or held while a coordinator pushes a whole round.

Why: Flower announces a message to its node before the message's content arrives, and a node that fetches too early
backs off for a second. While a coordinator holds the barrier, fetches wait. Its release wakes all of them at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

MAX_HOLD_S = 60.0
_SETTLE_S = 5.0


class PullBarrier:
    """The barrier in front of message fetches. Not thread-safe: use from one event loop.

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
        """Return True while fetches wait. A hold expires by itself, in case the coordinator dies during the hold."""
        return self._clock() < self._held_until

    async def hold(self, for_s: float) -> None:
        """Hold fetches for at most ``for_s`` seconds from now.

        Returns once no fetch remains in flight, and after 5 seconds at the latest.
        """
        self._held_until = self._clock() + for_s
        end = self._clock() + _SETTLE_S
        while self._fetching and self.held and self._clock() < end:
            await self.rest(end - self._clock())

    def release(self) -> None:
        """End the hold and wake all waiting fetches."""
        self._held_until = 0.0
        self._wake()

    def close(self) -> None:
        """Shut the barrier down: wake all waiting fetches and let none start."""
        self.closed = True
        self._wake()

    @contextlib.asynccontextmanager
    async def fetching(self) -> AsyncIterator[None]:
        """Enclose a fetch, so that :meth:`hold` can wait for its end."""
        self._fetching += 1
        try:
            yield
        finally:
            self._fetching -= 1
            if self._fetching == 0 and self.held:
                self._wake()

    async def opened(self, until: float) -> bool:
        """Wait while the barrier holds, until the moment ``until`` at most; return True if a fetch may start now."""
        while self.held and not self.closed and self._clock() < until:
            await self.rest(min(until, self._held_until) - self._clock())
        return not self.held and not self.closed and self._clock() < until

    async def rest(self, for_s: float) -> bool:
        """Sleep for ``for_s`` seconds, or until a wake-up; return True if woken."""
        try:
            await asyncio.wait_for(self._changed.wait(), max(for_s, 0.0))
        except TimeoutError:
            return False
        return True

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
