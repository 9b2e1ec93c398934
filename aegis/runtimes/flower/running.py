"""A federation whose processes run: the ones that are up already, or ones of this process's own that end with it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from aegis.errors import RunFolderError
from aegis.federation import FederationFolder
from aegis.runtimes.flower.host import FederationHost, HostOptions
from coreason_enclave.processes import spawn, terminate

__all__ = ["await_serving", "federation_running", "last_words", "serve_command"]

_START_S = 120.0
_END_S = 30.0
_POLL_S = 0.05
_MOST_RESTARTS = 4


@contextmanager
def federation_running(
    federation: FederationFolder, *, unsafe_seed: int | None = None, attackers: int = 0
) -> Iterator[FederationHost]:
    """Have SuperLink, gateway and local site agents run for the body; yield where they are.

    A supervisor that runs for this federation is used and left alone; otherwise one is started, and ended with the body
    (or, whatever happens to this process, by the kernel).

    Args:
        unsafe_seed, attackers: what local agents are to run with; see :class:`HostOptions`.

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
    log = host.logs / "supervisor.log"
    supervisor = spawn(serve_command(federation.path, options), log=log)
    try:
        await_serving(host, supervisor)
        yield host
    finally:
        terminate(supervisor, grace_s=_END_S)


def serve_command(path: Path, options: HostOptions) -> list[str]:
    """The command line of a supervisor."""
    command = [sys.executable, "-m", "aegis.cli", "federation", "serve", str(path)]
    command += [] if options.local_sites else ["--no-local-sites"]
    command += [] if options.unsafe_seed is None else ["--unsafe-seed", str(options.unsafe_seed)]
    return command + ([] if not options.attackers else ["--attackers", str(options.attackers)])


def await_serving(host: FederationHost, supervisor: subprocess.Popen[bytes] | None = None) -> None:
    """Return once SuperLink serves, nodes are registered and the gateway answers.

    Raises:
        RunFolderError: not within two minutes, or ``supervisor`` ended before; the message has its last words.
    """
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if supervisor is not None and supervisor.poll() is not None:
            raise RunFolderError(
                f"the federation's processes did not start: {last_words(host.logs / 'supervisor.log')}"
            )
        state = host.state() or {}
        if state.get("serving") and host.gateway_answers():
            return
        _require_hope(host, state.get("processes", {}))
        time.sleep(_POLL_S)
    raise RunFolderError(f"the federation's processes did not come up in {_START_S:g} s: see {host.logs}")


def _require_hope(host: FederationHost, processes: Mapping[str, Mapping[str, int]]) -> None:
    """A process that fails again and again before anything serves has a reason that waiting does not mend."""
    for name in ("superlink", "gateway"):
        if processes.get(name, {}).get("restarts", 0) >= _MOST_RESTARTS:
            words = last_words(host.logs / f"{name}.log")
            raise RunFolderError(f"{name} does not start: {words} (its ports are in {host.gateway_file})")


def last_words(log: Path) -> str:
    """The last line of a log that says something."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1] if lines else "it said nothing"


def _require_options(host: FederationHost, options: HostOptions) -> None:
    end = time.monotonic() + _START_S
    while not (state := host.state() or {}).get("options") and time.monotonic() < end:
        time.sleep(_POLL_S)
    served = {name: value for name, value in state.get("options", {}).items() if name != "local_sites"}
    if served != {"unsafe_seed": options.unsafe_seed, "attackers": options.attackers}:
        raise RunFolderError(
            f"{host.federation.path} is being served with another unsafe seed or number of attackers: "
            "aegis federation down it first"
        )
