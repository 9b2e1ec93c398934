"""A FLARE process started by this process, with access to this project's own lines in its log.

The lines give the reason when a job fails; FLARE's own output in the same log does not.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coreason_enclave.system import spawn

OWN = "aegis: "
"""Prefix of this project's own lines, among FLARE's."""

_LAST_BYTES = 64 << 10


@dataclass(frozen=True)
class FlareProcess:
    """A job that FLARE runs in a child of this process, or on behalf of one.

    Attributes:
        log: output of the child and of FLARE; ``begins``: byte offset at which this child's part begins.
        linger_s: seconds that the child may take to end by itself after its work.
    """

    process: subprocess.Popen[bytes]
    log: Path
    begins: int
    linger_s: float

    @property
    def ended(self) -> bool:
        """True if the process has ended, with any exit status."""
        return self.process.poll() is not None

    @property
    def job_is_over(self) -> bool:
        """True if the process ended because FLARE reported the job's end."""
        return self.process.poll() == 0

    def own_words(self) -> str | None:
        """Return this project's last own line, or None. Ignores FLARE's output, which never names a reason."""
        lines = [line for line in _lines(self.log, self.begins) if line.startswith(OWN)]
        return lines[-1].removeprefix(OWN) if lines else None

    def wait_for_exit(self) -> None:
        """Wait for the process to end by itself after its work, for at most :attr:`linger_s`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=self.linger_s)


def started(command: Sequence[str], log: Path, env: Mapping[str, str], *, linger_s: float) -> FlareProcess:
    """Start ``command`` and append its output to ``log``."""
    begins = log.stat().st_size if log.exists() else 0
    return FlareProcess(spawn(command, log=log, env=env), log, begins, linger_s)


def log_tail(log: Path) -> str:
    """Return the last complaint near the end of a log of this project's processes, or the log's last line."""
    lines = _lines(log)
    complaints = [line for line in lines if " ERROR " in line or "rror: " in line]
    return [*lines, *complaints][-1] if lines else "its log is empty"


def _lines(log: Path, begins: int = 0) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(begins, log.stat().st_size - _LAST_BYTES))
            read = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in read.splitlines() if line.strip()]
