"""Keeps logs small: turns repeated lines into a count, and rotates files while a process writes them.

An attacker who makes a process complain must neither fill the disk nor hide one line among a million others.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MAX_LOG_BYTES = 16 << 20
"""Rotate a log file above this size; keep one old file next to it."""
_MAX_KINDS = 512
_KIND_CHARACTERS = 80


@dataclass
class _Kind:
    since: float
    written: int = 0
    left_out: int = 0


class Repeats:
    """Admits a limited number of lines of each kind per time window, and counts the rest.

    Args:
        most: the most lines of one kind in each window.
        window_s: the window's length in seconds.
        clock: monotonic seconds.

    >>> repeats = Repeats(most=1, window_s=60.0, clock=lambda: 0.0)
    >>> [repeats.admits("cannot accept") for _ in range(3)]
    [True, False, False]
    >>> repeats.left_out()
    {'cannot accept': 2}
    """

    def __init__(self, most: int = 10, window_s: float = 60.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._window_s, self._clock = most, window_s, clock
        self._kinds: OrderedDict[str, _Kind] = OrderedDict()

    def admits(self, kind: str) -> bool:
        """Return True if the log should contain another line of this kind; otherwise count the line as left out."""
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = _Kind(self._clock())
        if known.written < self._most:
            known.written += 1
            return True
        known.left_out += 1
        return False

    def over(self) -> dict[str, int]:
        """Return the number of left-out lines per kind whose window has ended, and start new windows for these kinds.

        With more than 512 kinds, all windows end.
        """
        now = self._clock()
        full = len(self._kinds) > _MAX_KINDS
        ended = {
            kind: known.left_out for kind, known in self._kinds.items() if full or now - known.since >= self._window_s
        }
        for kind in ended:
            del self._kinds[kind]
        return {kind: count for kind, count in ended.items() if count}

    def left_out(self) -> dict[str, int]:
        """Return the number of left-out lines per kind, and start all windows again."""
        counts = {kind: known.left_out for kind, known in self._kinds.items() if known.left_out}
        self._kinds.clear()
        return counts


class SparingHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes a limited number of records of each kind per minute to a stream, then the number of left-out records.

    A kind combines a logger, a level, and the beginning of the message template. Arguments, such as a client's address,
    make no new kind.
    """

    def __init__(self, repeats: Repeats | None = None) -> None:
        super().__init__()
        self._repeats = Repeats() if repeats is None else repeats

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, unless too many similar records were written."""
        for kind, count in self._repeats.over().items():
            self._report_left_out(kind, count)
        text = str(record.msg).partition("\n")[0][:_KIND_CHARACTERS]
        if self._repeats.admits(f"{record.levelname} {record.name} {text}"):
            super().emit(record)

    def close(self) -> None:
        """Write the pending counts of left-out lines."""
        for kind, count in self._repeats.left_out().items():
            self._report_left_out(kind, count)
        super().close()

    def _report_left_out(self, kind: str, count: int) -> None:
        level, name, text = kind.split(" ", 2)
        message = f"left out {count} more lines like: {text}"
        super().emit(logging.makeLogRecord({"name": name, "levelname": level, "msg": message}))


def trim_log(path: Path, max_bytes: int = MAX_LOG_BYTES) -> bool:
    """Rotate a log above ``max_bytes`` while a process appends to the file; return True after a rotation.

    The content is copied to ``<name>.1`` and the file emptied: a process that appends (``O_APPEND``) continues at the
    new end of the file. Lines written between copying and emptying are lost.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return False
        old = path.with_name(f"{path.name}.1")
        shutil.copyfile(path, old)
        old.chmod(0o600)
        os.truncate(path, 0)
    except OSError as error:
        logging.getLogger(__name__).warning("%s cannot be rotated: %s", path.name, error.strerror)
        return False
    return True
