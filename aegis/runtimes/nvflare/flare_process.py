"""A process of FLARE's that this one started, and what this project's own code said in it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coreason_enclave.system.processes import spawn

__all__ = ["OWN", "FlareProcess", "log_tail", "started"]

OWN = "aegis: "
"""How a line of this project's own begins, among FLARE's."""

_LAST_BYTES = 64 << 10


@dataclass(frozen=True)
class FlareProcess:
    """A job that FLARE runs in, or on behalf of, a child of this process.

    Attributes:
        log: what it and FLARE print; ``begins``: where its part begins, in bytes.
        linger_s: how long it may take to end by itself once its work is done.
    """

    process: subprocess.Popen[bytes]
    log: Path
    begins: int
    linger_s: float

    @property
    def ended(self) -> bool:
        """Whether it has ended, however."""
        return self.process.poll() is not None

    @property
    def job_is_over(self) -> bool:
        """Whether it ended because FLARE says that the job did."""
        return self.process.poll() == 0

    def own_words(self) -> str | None:
        """What this project's own code said last; None if nothing. FLARE's chatter is nobody's reason."""
        said = [line for line in _lines(self.log, self.begins) if line.startswith(OWN)]
        return said[-1].removeprefix(OWN) if said else None

    def wait_for_exit(self) -> None:
        """Let it end by itself, now that its work is done, for :attr:`linger_s` at most."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=self.linger_s)


def started(command: Sequence[str], log: Path, env: Mapping[str, str], *, linger_s: float) -> FlareProcess:
    """Start ``command``; what it prints is appended to ``log``."""
    begins = log.stat().st_size if log.exists() else 0
    return FlareProcess(spawn(command, log=log, env=env), log, begins, linger_s)


def log_tail(log: Path) -> str:
    """The last complaint near the end of the log of one of this project's processes, or its last line."""
    lines = _lines(log)
    complaints = [line for line in lines if " ERROR " in line or "rror: " in line]
    return [*lines, *complaints][-1] if lines else "it said nothing"


def _lines(log: Path, begins: int = 0) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(begins, log.stat().st_size - _LAST_BYTES))
            read = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in read.splitlines() if line.strip()]
