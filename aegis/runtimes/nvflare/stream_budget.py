"""Limits the streamed bytes that FLARE's server holds for one site to a few times the job's largest message.

FLARE assembles streams in memory, up to four gigabytes each and any number of them, before any check sees them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

MIN_BYTES: Final = 64 << 20
MARGIN: Final = 4
"""An answer has the size of its request, or twice that size with control variates; a chunk may be sent again."""
_FORGOTTEN_S: Final = 300.0
"""Seconds of silence after which FLARE gives up on a stream."""
_MAX_STREAMS: Final = 64


class StreamBudget:
    """Counts the bytes of every site's unfinished streams. Thread-safe.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._limit = MIN_BYTES
        self._under_way: dict[str, dict[object, tuple[int, float]]] = {}

    def expect(self, size: int) -> None:
        """Allow for answers to a message of ``size`` bytes from now on."""
        with self._lock:
            self._limit = max(self._limit, MIN_BYTES + MARGIN * size)

    def take(self, site: str, stream: object, size: int, *, is_last: bool) -> bool:
        """Count a chunk. Return False if the site exceeds its limit; the caller then drops the chunk."""
        with self._lock:
            now, streams = self._clock(), self._under_way.setdefault(site, {})
            for each in [key for key, (_, since) in streams.items() if now - since > _FORGOTTEN_S]:
                del streams[each]
            received = streams.get(stream, (0, now))[0]
            total = sum(count for count, _ in streams.values())
            if total + size > self._limit or (stream not in streams and len(streams) >= _MAX_STREAMS):
                return False
            if is_last:
                streams.pop(stream, None)
            else:
                streams[stream] = received + size, now
            return True


STREAMS = StreamBudget()
"""The stream budget of this process."""
