"""A process of FLARE's that this one started, and what it said last."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FlareProcess", "last_words"]

_LAST_BYTES = 64 << 10


@dataclass(frozen=True)
class FlareProcess:
    """A job that FLARE runs in, or on behalf of, a child of this process.

    Attributes:
        linger_s: how long it may take to end by itself once its work is done.
    """

    process: subprocess.Popen[bytes]
    log: Path
    linger_s: float

    @property
    def ended(self) -> bool:
        """Whether it has ended, however."""
        return self.process.poll() is not None

    def last_words(self) -> str:
        """The last complaint in its log."""
        return last_words(self.log)

    def let_end(self) -> None:
        """Let it end by itself, now that its work is done, for :attr:`linger_s` at most."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=self.linger_s)


def last_words(log: Path) -> str:
    """The last complaint near the end of one of FLARE's logs, or its last line that says something.

    What follows from FLARE having ended the job is no complaint.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LAST_BYTES))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    complaints = [line for line in lines if _is_complaint(line)]
    return [*lines, *complaints][-1] if lines else "it said nothing"


def _is_complaint(line: str) -> bool:
    return (" ERROR " in line or "Error: " in line) and not any(word in line for word in ("RunAborted", "Traceback"))
