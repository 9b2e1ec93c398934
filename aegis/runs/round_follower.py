"""Showing the rounds of a run that another process coordinates: its state, as it lies in the run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aegis.runs.folder import RunFolder
from aegis.stores.run_state import RoundRecord

__all__ = ["RoundFollower"]


class RoundFollower:
    """Tells each round that is completed from now on, once and in order.

    Args:
        tell: called with each.

    Attributes:
        told: the number of the last round that is known to be completed.
    """

    def __init__(self, folder: RunFolder, tell: Callable[[RoundRecord], None]) -> None:
        self._folder, self._tell = folder, tell
        self._read: object = None
        self.told = len(folder.state().history) if folder.has_state else 0

    def look(self) -> None:
        """Tell what has been completed since the last look."""
        version = _version(self._folder.path / "state" / "state.json")
        if version is None or version == self._read:
            return
        self._read = version  # of before the read: a state written meanwhile is read at the next look
        for record in self._folder.state().history[self.told :]:
            self.told += 1
            self._tell(record)


def _version(path: Path) -> object:
    """What changes whenever the file is replaced; None while there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
