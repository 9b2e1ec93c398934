"""Collects protocol violations by FLARE clients: the gate reports, and the coordinators subscribe.

An honest FLARE client of this federation never commits such a violation.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

_QUIET_S = 60.0
_MAX_KEPT = 1_000


class Violations:
    """Takes violations from any thread, passes each to the subscribers, and logs each kind per sender once a minute.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._tellers: list[Callable[[str, str], None]] = []
        self._logged: dict[tuple[str, str], float] = {}

    def subscribe(self, listener: Callable[[str, str], None]) -> None:
        """Call ``tell(site, why)`` for every violation from now on."""
        with self._lock:
            self._tellers.append(listener)

    def report(self, sender: str | None, why: str) -> None:
        """Log a violation and pass it to the subscribers. Without a sender (unknown peer), only log."""
        with self._lock:
            listeners, is_news = list(self._tellers), self._should_log(sender or "an unknown client", why)
        if is_news:
            logging.getLogger(__name__).warning("refused a message of %s: %s", sender or "an unknown client", why)
        for listener in listeners if sender is not None else ():
            listener(str(sender), why)

    def _should_log(self, name: str, why: str) -> bool:
        now = self._clock()
        if now - self._logged.get((name, why), -_QUIET_S) < _QUIET_S:
            return False
        if len(self._logged) >= _MAX_KEPT:
            self._logged.clear()
        self._logged[name, why] = now
        return True


OFFENCES = Violations()
"""The violations of this process."""
