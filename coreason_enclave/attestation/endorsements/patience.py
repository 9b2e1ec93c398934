"""Ask a busy service again at its own pace, as ``429`` and ``503`` request.

- ``Retry-After`` takes precedence, in seconds or as a date. Without the header, pauses double. Chance shortens each
  pause, so hosts refused together do not return together.
- A round never waits long. If the required pause exceeds :data:`MAX_PAUSE_S`, the service counts as unavailable.
  The host then leaves the service alone for the requested time, at most :data:`MAX_QUIET_S`.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from coreason_enclave.attestation.endorsements.http import HttpPort, HttpReply
from coreason_enclave.attestation.endorsements.sources import missing
from coreason_enclave.system import unix_seconds

ATTEMPTS = 3
MAX_PAUSE_S = 5.0
MAX_QUIET_S = 900.0

_BUSY = (429, 503)
_FIRST_PAUSE_S = 0.5
_chance = random.SystemRandom()


class PatientHttp:
    """An :class:`~.http.HttpPort` that asks ``inner`` up to :data:`ATTEMPTS` times.

    Args:
        pause: Sleeps for the given number of seconds.
        clock: Returns Unix seconds.
        chance: Returns a random number between two bounds.
    """

    def __init__(
        self,
        inner: HttpPort,
        *,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
        chance: Callable[[float, float], float] = _chance.uniform,
    ) -> None:
        self._inner, self._pause, self._clock, self._chance = inner, pause, clock, chance
        self._quiet_until: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, url: str, *, body: bytes | None = None, content_type: str | None = None) -> HttpReply:
        """See :class:`~.http.HttpPort`. Returns the last reply if the service stays busy."""
        host = urlsplit(url).netloc
        self._require_not_paused(host)
        for attempt in range(ATTEMPTS):
            reply = self._inner(url, body=body, content_type=content_type)
            if reply.status not in _BUSY:
                return reply
            wait = self._wait(reply.headers, attempt)
            if wait > MAX_PAUSE_S or attempt == ATTEMPTS - 1:
                with self._lock:
                    self._quiet_until[host] = self._clock() + min(wait, MAX_QUIET_S)
                return reply
            self._pause(wait)
        raise AssertionError("unreachable: the last attempt returns")

    def _require_not_paused(self, host: str) -> None:
        with self._lock:
            left = self._quiet_until.get(host, 0.0) - self._clock()
        if 0 < left <= MAX_QUIET_S:  # beyond the limit: this host's clock was set back
            raise missing(f"{host[:100]} is busy; the next attempt is in {left:.0f} s", unavailable=True)

    def _wait(self, headers: Mapping[str, str], attempt: int) -> float:
        asked = _retry_after(headers.get("retry-after"), self._clock())
        if asked is not None:
            return asked + self._chance(0.0, 0.5)  # never sooner than the service asked
        return _FIRST_PAUSE_S * 2.0**attempt * self._chance(0.5, 1.0)


def _retry_after(text: str | None, now: float) -> float | None:
    """Return the seconds from now, at most :data:`MAX_QUIET_S`, or None for a missing or invalid header."""
    if text is None:
        return None
    if text.isascii() and text.isdecimal():
        return min(float(text[:12]), MAX_QUIET_S)
    try:
        moment = parsedate_to_datetime(text)
        return min(max(unix_seconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now, 0.0), MAX_QUIET_S)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
