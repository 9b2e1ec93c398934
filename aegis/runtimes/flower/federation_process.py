"""Provides a federation whose processes run.

Uses processes that already run, or starts a supervisor that ends with this process.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from aegis.errors import RunFolderError
from aegis.federation import FederationFolder
from aegis.runtimes.flower.supervisor import FederationHost, HostOptions
from coreason_enclave.system import Backoff, SupervisedProcess, spawn, terminate

_START_S = 120.0
_END_S = 30.0
_POLL_S = 0.05
_MAX_RESTARTS = 4


@contextmanager
def federation_running(
    federation: FederationFolder, *, unsafe_seed: int | None = None, attackers: int = 0
) -> Iterator[FederationHost]:
    """Run SuperLink, gateway and local site agents for the body; yield their :class:`FederationHost`.

    - If a supervisor already runs for this federation, use the supervisor and leave it running.
    - Otherwise start one and end it with the body. If this process dies, the kernel ends the supervisor.

    Args:
        unsafe_seed, attackers: options for local agents; see :class:`HostOptions`.

    Raises:
        RunFolderError: the processes do not come up, or run with other options.
    """
    host, options = FederationHost(federation), HostOptions(unsafe_seed=unsafe_seed, attackers=attackers)
    if host.running():
        _require_options(host, options)
        await_serving(host)
        yield host
        return
    host.files.prepare()
    with _OwnSupervisor(host, options) as own:
        await_serving(host, lambda: own.failed)
        yield host


class _OwnSupervisor:
    """A supervisor that belongs to this process.

    One thread starts and watches the supervisor; the kernel ties the supervisor's life to this thread.
    """

    def __init__(self, host: FederationHost, options: HostOptions) -> None:
        command, log = serve_command(host.federation.path, options), host.logs / "supervisor.log"
        backoff = Backoff(0.5, 15.0, random.random)
        self._host = host
        self._child = SupervisedProcess("supervisor", lambda: spawn(command, log=log), backoff)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def failed(self) -> bool:
        """True after a restart while no supervisor serves, which means a start-up failure that waiting cannot fix."""
        return self._child.restarts > 0 and not self._host.running()

    def _supervise(self) -> None:
        """Start the supervisor, and restart it after death, unless another supervisor serves by now."""
        while not self._stop.wait(_POLL_S):
            if self._child.running or not self._host.running():
                self._child.ensure_running()
        if self._child.process is not None:
            terminate(self._child.process, grace_s=_END_S)


def serve_command(path: Path, options: HostOptions) -> list[str]:
    """Return the command line of a supervisor."""
    command = [sys.executable, "-m", "aegis.cli", "federation", "serve", str(path)]
    command += [] if options.local_sites else ["--no-local-sites"]
    command += [] if options.unsafe_seed is None else ["--unsafe-seed", str(options.unsafe_seed)]
    return command + ([] if not options.attackers else ["--attackers", str(options.attackers)])


def await_serving(host: FederationHost, failed: Callable[[], bool] = lambda: False) -> None:
    """Return once SuperLink serves, nodes are registered and the gateway answers.

    Raises:
        RunFolderError: the two-minute limit passed, or ``failed`` returned True; the message ends with the log's tail.
    """
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if failed():
            raise RunFolderError(f"the federation's processes did not start: {log_tail(host.logs / 'supervisor.log')}")
        state = host.state() or {}
        if state.get("serving") and host.gateway_answers():
            return
        _require_few_restarts(host, state.get("processes", {}))
        time.sleep(_POLL_S)
    raise RunFolderError(f"the federation's processes did not start within {_START_S:g} s: see {host.logs}")


def _require_few_restarts(host: FederationHost, processes: Mapping[str, Mapping[str, int]]) -> None:
    """Raise :class:`RunFolderError` if SuperLink or gateway keeps failing, because waiting cannot fix the cause."""
    for name in ("superlink", "gateway"):
        if processes.get(name, {}).get("restarts", 0) >= _MAX_RESTARTS:
            log_line = log_tail(host.logs / f"{name}.log")
            raise RunFolderError(f"{name} does not start: {log_line} (its ports are in {host.gateway_file})")


def log_tail(log: Path) -> str:
    """Return the last complaint near the end of a log, or its last non-empty line."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()][-20:]
    except OSError:
        lines = []
    complaints = [line for line in lines if line.lower().startswith(("error", "the gateway cannot"))]
    return [*lines, *complaints][-1] if lines else "its log is empty"


def _require_options(host: FederationHost, options: HostOptions) -> None:
    end = time.monotonic() + _START_S
    while not (state := host.state() or {}).get("options") and time.monotonic() < end:
        time.sleep(_POLL_S)
    served = {name: value for name, value in state.get("options", {}).items() if name != "local_sites"}
    if served != {"unsafe_seed": options.unsafe_seed, "attackers": options.attackers}:
        raise RunFolderError(
            f"{host.federation.path} runs with another --unsafe-seed or --attackers: run aegis federation down first"
        )
