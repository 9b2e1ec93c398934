"""The agent's own log: one entry per line on standard output, JSON by default, for journald or another collector.

Lines hold actors, events and reason codes; never a row, a weight, a message's text or a key. Details of refusals go to
the site's hash-chained log, which stays at the site. The log limits lines per minute for each event and outcome, and
counts the rest. A party that provokes messages therefore cannot fill the site's disk.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import TextIO

from coreason_enclave.system import LogFormat, LogLevel, Repeats, log_format, log_level

MAX_A_MINUTE = 600
"""Lines per event and outcome; a site in a fast federation writes about 100."""


class AgentLog:
    """Writes log lines; safe to share between threads.

    >>> AgentLog({"site": "clinic-1"}, moment=lambda: "T").say("started", pid=7)
    {"time": "T", "site": "clinic-1", "event": "started", "pid": 7}
    """

    def __init__(
        self,
        labels: Mapping[str, str],
        *,
        stream: TextIO | None = None,
        moment: Callable[[], str] | None = None,
        repeats: Repeats | None = None,
    ) -> None:
        self._about = dict(labels)
        self._stream = stream
        self._moment = moment or _now
        self._repeats = Repeats(most=MAX_A_MINUTE) if repeats is None else repeats
        self._lock = threading.Lock()
        self._form, self._least = log_format(LogFormat.JSON), log_level(LogLevel.INFO)

    def say(self, event: str, **details: str | int | float | bool | None) -> None:
        """Write one line. Each line repeats the labels: site, profile, and a mark for a simulated site."""
        if _level_of(details.get("outcome")).number < self._least.number:
            return
        with self._lock:
            for kind, count in self._repeats.over().items():
                self._write("left_out", kind=kind, lines=count)
            if self._repeats.admits(f"{event} {details.get('outcome', '')}".strip()):
                self._write(event, **details)

    def _write(self, event: str, **details: str | int | float | bool | None) -> None:
        line = {"time": self._moment(), **self._about, "event": event, **details}
        text = (
            json.dumps(line) if self._form is LogFormat.JSON else _as_text(line, words=("time", *self._about, "event"))
        )
        print(text, file=self._stream or sys.stdout, flush=True)


def _level_of(outcome: object) -> LogLevel:
    return LogLevel.WARNING if outcome in ("refused", "failed") else LogLevel.INFO


def _as_text(line: Mapping[str, object], words: Collection[str]) -> str:
    """Return the values of ``words``, then every other field with its name; a field's line feeds are escaped."""
    parts = [str(value) if name in words else f"{name}={value}" for name, value in line.items()]
    return " ".join(parts).replace("\n", "\\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
