"""Decides how long ``aegis run`` waits for a coordinator in FLARE's process, and reports progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from aegis.runs.nvflare_heartbeat import PulseWatch

START_S: Final = 240.0
"""Seconds until FLARE must have started the job: clients register, the scheduler picks the job, a process starts."""
LOST_S: Final = 45.0
"""Seconds without a heartbeat after which the coordinator counts as lost. A working coordinator beats every second."""
_SAY_EVERY_S: Final = 30.0


class Lost(Enum):
    """The reason to stop waiting. The value is text for a person."""

    ENDED = "NVIDIA FLARE ended the job before the coordinator did"
    SILENT = "the coordinator in FLARE's process no longer sends heartbeats"
    NOT_STARTED = "NVIDIA FLARE did not start the job"


@dataclass
class Waiting:
    """One wait for a coordinator.

    Args:
        ended: returns True once FLARE, or its process here, has ended.
        say: called with a line of text while the coordinator stays silent for longer than expected.
        clock: monotonic seconds.
    """

    watch: PulseWatch
    ended: Callable[[], bool]
    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)
    _last_report: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self._last_report = self.clock()

    def look(self) -> Lost | None:
        """Return the reason to stop waiting; None to wait on."""
        silent_s = self.watch.silent_s()
        if self.ended():
            return Lost.ENDED
        if self.watch.began and silent_s > LOST_S:
            return Lost.SILENT
        if not self.watch.began and self.clock() - self._began > START_S:
            return Lost.NOT_STARTED
        self._report_waiting(silent_s)
        return None

    def _report_waiting(self, silent_s: float) -> None:
        now = self.clock()
        if now - self._last_report < _SAY_EVERY_S:
            return
        self._last_report = now
        if not self.watch.began:
            self.say(f"waiting for NVIDIA FLARE to start the job: {now - self._began:.0f} of {START_S:.0f} s")
        elif silent_s > _SAY_EVERY_S / 2:
            self.say(f"waiting for a heartbeat of the coordinator: {silent_s:.0f} of {LOST_S:.0f} s")
