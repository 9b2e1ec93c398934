"""How many streamed bytes of one site FLARE's server holds at a time: a few times the largest message of the job.

FLARE puts a stream together in memory, up to four gigabytes each and any number of them, before anybody looks at it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["STREAMS", "StreamBudget"]

MIN_BYTES: Final = 64 << 20
MARGIN: Final = 4
"""An answer is of the size of what was asked, or twice that with control variates; a chunk may be sent again."""
_FORGOTTEN_S: Final = 300.0
"""FLARE gives up on a stream that is silent for as long."""
_MOST_STREAMS: Final = 64


class StreamBudget:
    """Counts the bytes of every site's unfinished streams; used from many threads.

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
        """Count a chunk; False where the site has too much under way, and the chunk is not to be kept."""
        with self._lock:
            now, streams = self._clock(), self._under_way.setdefault(site, {})
            for each in [key for key, (_, since) in streams.items() if now - since > _FORGOTTEN_S]:
                del streams[each]
            so_far = streams.get(stream, (0, now))[0]
            held = sum(count for count, _ in streams.values())
            if held + size > self._limit or (stream not in streams and len(streams) >= _MOST_STREAMS):
                return False
            if is_last:
                streams.pop(stream, None)
            else:
                streams[stream] = so_far + size, now
            return True


STREAMS = StreamBudget()
"""Of this process."""
