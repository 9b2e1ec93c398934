"""Child processes that never outlive their parent, and that a supervisor restarts when they die.

The kernel ends a child when the process that started it dies for any reason (Linux, ``prctl(2)``,
``PR_SET_PDEATHSIG``). Each child leads its own process group, so ending the child also ends its descendants.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coreason_enclave.errors import ConfigurationError

_PR_SET_PDEATHSIG = 1
_GRACE_S = 5.0


def spawn(argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a process that logs to ``log`` (mode 0600, appended) and dies with this process.

    Call this function from the main thread: the kernel watches the thread that starts a child, not its process.

    Raises:
        ConfigurationError: the program cannot be started.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    parent = os.getpid()
    try:
        return subprocess.Popen(  # noqa: S603 - an argument list of our own, no shell
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env=None if env is None else dict(env),
            start_new_session=True,
            preexec_fn=lambda: _die_with(parent),
        )
    except OSError as error:
        raise ConfigurationError(f"cannot start {argv[0]}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the prctl call
        os._exit(1)


def terminate(process: subprocess.Popen[bytes], *, grace_s: float = _GRACE_S) -> None:
    """End a process and its group: send SIGTERM, wait ``grace_s`` seconds, then SIGKILL the rest."""
    _signal_group(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=grace_s)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


@dataclass
class Backoff:
    """The delay before a retry: doubles from ``first_s`` to ``max_s`` seconds, times a random factor from 0.5 to 1.

    The random factor keeps the clients of a restarted server from retrying all at once (AWS Architecture Blog,
    "Exponential Backoff And Jitter", 2015).
    """

    first_s: float
    max_s: float
    chance: Callable[[], float]
    _tries: int = field(default=0, init=False)

    def next(self) -> float:
        """Return the seconds to wait before the next try."""
        self._tries += 1
        longest = min(self.max_s, self.first_s * 2.0 ** min(self._tries - 1, 60))
        return float(longest * (0.5 + 0.5 * self.chance()))

    def reset(self) -> None:
        """Record a success: start from ``first_s`` again."""
        self._tries = 0


@dataclass
class SupervisedProcess:
    """A process that :meth:`ensure_running` starts, and restarts after its death. For a single-threaded loop.

    Attributes:
        start: starts the process once, including all preparation.
        clock: monotonic seconds.
    """

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    backoff: Backoff
    clock: Callable[[], float] = time.monotonic
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    restarts: int = field(default=-1, init=False)
    _not_before: float = field(default=0.0, init=False)
    _started: float = field(default=0.0, init=False)

    @property
    def running(self) -> bool:
        """Return True if the process lives now."""
        return self.process is not None and self.process.poll() is None

    def ensure_running(self) -> None:
        """Start the process if it has died and the back-off has passed; after a minute of life, reset the back-off."""
        if self.running:
            if self.clock() - self._started > 60:
                self.backoff.reset()
            return
        if self.clock() < self._not_before:
            return
        self.process = self.start()
        self.restarts += 1
        self._started = self.clock()
        self._not_before = self._started + self.backoff.next()

    def stop(self) -> None:
        """End the process and its group."""
        if self.process is not None:
            terminate(self.process)
            self.process = None
