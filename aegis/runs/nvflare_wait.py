"""How long ``aegis run`` waits for a coordinator in FLARE's process, and what it says meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from aegis.runs.nvflare_heartbeat import PulseWatch

__all__ = ["LOST_S", "START_S", "Lost", "Waiting"]

START_S: Final = 240.0
"""FLARE has begun the job by then: its clients are waited for, the job is scheduled, a process is started."""
LOST_S: Final = 45.0
"""A coordinator that works gives a sign every second."""
_SAY_EVERY_S: Final = 30.0


class Lost(Enum):
    """Why there is no use in waiting any longer. The value is for a person to read."""

    ENDED = "NVIDIA FLARE ended the job before the coordinator did"
    SILENT = "the coordinator in FLARE's process gives no sign of life"
    NOT_STARTED = "NVIDIA FLARE did not start the job"


@dataclass
class Waiting:
    """One wait for a coordinator.

    Args:
        ended: whether FLARE, or what was started for it, has ended.
        say: called with a line, while nothing is heard of the coordinator for longer than it should take.
        clock: monotonic seconds.
    """

    watch: PulseWatch
    ended: Callable[[], bool]
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)
    _said: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self._said = self.clock()

    def look(self) -> Lost | None:
        """Why to wait no longer; None as long as there is hope."""
        silent_s = self.watch.silent_s()
        if self.ended():
            return Lost.ENDED
        if self.watch.began and silent_s > LOST_S:
            return Lost.SILENT
        if not self.watch.began and self.clock() - self._began > START_S:
            return Lost.NOT_STARTED
        self._tell(silent_s)
        return None

    def _tell(self, silent_s: float) -> None:
        now = self.clock()
        if now - self._said < _SAY_EVERY_S:
            return
        self._said = now
        if not self.watch.began:
            self.say(f"waiting for NVIDIA FLARE to start the job: {now - self._began:.0f} of {START_S:.0f} s")
        elif silent_s > _SAY_EVERY_S / 2:
            self.say(f"waiting for a sign of life of the coordinator: {silent_s:.0f} of {LOST_S:.0f} s")
