"""Heartbeat of a coordinator in FLARE's process, for the command that waits on the same host.

The coordinator touches a file in the run folder every second. FLARE's own status does not suffice: a killed and
restarted server still lists the job as running, and FLARE also counts a hanging process as running.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from aegis.runs.folder import RunFolder

PULSE = Path("nvflare") / "pulse.json"
"""Path in the run folder while a coordinator works there: names its process. The modification time is the heartbeat."""

_EVERY_S = 1.0


@contextmanager
def beating(folder: RunFolder) -> Iterator[None]:
    """Write the heartbeat of a started run folder while the body runs."""
    ended = threading.Event()
    path = folder.path / PULSE
    beat = threading.Thread(target=_beat, args=(path, ended), name="aegis-pulse", daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        path.unlink(missing_ok=True)


def _beat(path: Path, ended: threading.Event) -> None:
    while True:
        with contextlib.suppress(OSError):  # a full disk: skip this heartbeat
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                own = {"pid": os.getpid(), **_of_process(os.getpid())._asdict()}
                path.write_text(json.dumps(own), encoding="ascii")
            os.utime(path)
        if ended.wait(_EVERY_S):
            return


class PulseWatch:
    """Watches the heartbeat in a run folder.

    Args:
        clock: monotonic seconds, immune to a wrong time of day.
    """

    def __init__(self, folder: RunFolder, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = folder.path / PULSE, clock
        self._seen, self._since, self._began = self._version(), clock(), False

    def silent_s(self) -> float:
        """Return the seconds since the last heartbeat, or since the watch began."""
        version = self._version()
        if version != self._seen:
            self._began = self._began or version is not None
            self._seen, self._since = version, self._clock()
        return self._clock() - self._since

    @property
    def began(self) -> bool:
        """Return True if a heartbeat arrived since the watch began."""
        self.silent_s()
        return self._began

    def end_coordinator(self, *, only_orphan: bool = False) -> None:
        """Kill the process behind the last heartbeat, if it still runs: two coordinators must not write to one folder.

        Args:
            only_orphan: kill only if the parent process, FLARE's server, has died.
        """
        try:
            pulse = json.loads(self._path.read_bytes())
            pid, started, parent = int(pulse["pid"]), int(pulse["started"]), int(pulse["parent"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        now = _of_process(pid)
        if not started or now.started != started:
            return  # the coordinator ended; another process may have its pid now
        if not only_orphan or now.parent != parent:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _version(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns


class _Process(NamedTuple):
    """A process in the kernel's table: parent, and start time in ticks since boot. Zeros if no such process exists."""

    parent: int
    started: int


def _of_process(pid: int) -> _Process:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return _Process(parent=int(fields[1]), started=int(fields[19]))
    except (OSError, ValueError, IndexError):
        return _Process(0, 0)
