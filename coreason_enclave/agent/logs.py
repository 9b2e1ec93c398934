"""The agent's own log: one JSON object a line on standard output, for journald or whatever collects it.

Who, what, and reason codes; never a row, a weight, a message's text or a key. Details of refusals are in the site's
hash-chained log, which stays at the site. So many lines of an event and outcome are written in a minute, the others are
counted: whoever makes a site complain does not fill its disk.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TextIO

from coreason_enclave.system.log_files import Repeats

__all__ = ["MAX_A_MINUTE", "AgentLog"]

MAX_A_MINUTE = 600
"""Lines of one event and outcome; a site in a fast federation writes some 100."""


class AgentLog:
    """Writes lines; safe to share between threads.

    >>> AgentLog({"site": "clinic-1"}, moment=lambda: "T").say("started", pid=7)
    {"time": "T", "site": "clinic-1", "event": "started", "pid": 7}
    """

    def __init__(
        self,
        about: Mapping[str, str],
        *,
        stream: TextIO | None = None,
        moment: Callable[[], str] | None = None,
        repeats: Repeats | None = None,
    ) -> None:
        self._about = dict(about)
        self._stream = stream
        self._moment = moment or _now
        self._repeats = Repeats(most=MAX_A_MINUTE) if repeats is None else repeats
        self._lock = threading.Lock()

    def say(self, event: str, **details: str | int | float | bool | None) -> None:
        """One line. ``about`` (site, profile, and that it is simulated where it is) is on each of them."""
        with self._lock:
            for kind, count in self._repeats.over().items():
                self._write("left_out", kind=kind, lines=count)
            if self._repeats.admits(f"{event} {details.get('outcome', '')}".strip()):
                self._write(event, **details)

    def _write(self, event: str, **details: str | int | float | bool | None) -> None:
        line = json.dumps({"time": self._moment(), **self._about, "event": event, **details})
        print(line, file=self._stream or sys.stdout, flush=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
