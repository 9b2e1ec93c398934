"""Follows a run that another process coordinates, by its state in the run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aegis.runs.folder import RunFolder
from aegis.stores import RoundRecord


class RoundFollower:
    """Reports each round completed from now on, once and in order.

    Args:
        report: called with the record of each round.

    Attributes:
        reported: number of the last round known to be complete.
    """

    def __init__(self, folder: RunFolder, report: Callable[[RoundRecord], None]) -> None:
        self._folder, self._tell = folder, report
        self._read: object = None
        self.reported = len(folder.state().history) if folder.has_state else 0

    def look(self) -> None:
        """Report the rounds completed since the last call."""
        version = _version(self._folder.path / "state" / "state.json")
        if version is None or version == self._read:
            return
        self._read = version  # taken before the read: the next look picks up a state written in between
        for record in self._folder.state().history[self.reported :]:
            self.reported += 1
            self._tell(record)


def _version(path: Path) -> object:
    """Return a value that changes with every replacement of the file; None if the file does not exist."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
