"""The supervisor: runs SuperLink, gateway and local site agents as child processes and restarts them after death.

- One single-threaded loop starts and watches all children.
- Every child dies with the supervisor (:mod:`coreason_enclave.system.processes`).
- ``coordinator/flower/supervisor.json`` holds the supervisor's state.
- A file lock shows whether the supervisor lives; the operating system frees the lock at the supervisor's death.
"""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aegis.errors import GatewayUnreachable, RunFolderError, TransportUnavailable
from aegis.federation import FederationConfig, FederationFolder
from aegis.gateway import GatewayControl, GatewayFiles
from aegis.runtimes.flower.control import SuperLinkControl
from aegis.runtimes.flower.local_sites import agent_command, join_local_sites
from aegis.runtimes.flower.storage import SuperLinkStorage
from aegis.runtimes.flower.superlink import SuperLinkEndpoint, SuperLinkFiles, flower_environment, superlink_command
from aegis.services import free_ports, prepare_network
from coreason_enclave.system import Backoff, SupervisedProcess, file_lock, is_locked, replace_file, spawn, trim_log

_TICK_S = 0.1
_REGISTRY_EVERY_S = 1.0
_PROBE_EVERY_S = 5.0
_MAX_SILENT_S = 30.0
_CLAIM_TRIES = 20
_AGENT = "agent-"
_LOGS_EVERY_S = 1.0
_STORAGE_EVERY_S = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HostOptions:
    """Options for the processes that a supervisor runs next to SuperLink and gateway.

    Attributes:
        local_sites: run an agent for each registered site whose folder lies on this host.
        unsafe_seed: number from which local agents derive sampling and noise; only development sites accept a seed.
        attackers: number of registered sites (the first by name) whose local agent becomes a simulated attacker.
    """

    local_sites: bool = True
    unsafe_seed: int | None = None
    attackers: int = 0


@dataclass(frozen=True)
class FederationHost:
    """The coordinator-side processes of one federation: their files, their addresses and their state."""

    federation: FederationFolder

    @property
    def files(self) -> SuperLinkFiles:
        """SuperLink's files."""
        return SuperLinkFiles(self.federation.coordinator / "flower", self.federation.coordinator / "pki")

    @property
    def logs(self) -> Path:
        """The log folder, with one file per process."""
        return self.files.folder / "logs"

    @property
    def state_file(self) -> Path:
        """The supervisor's state file. Valid only while :meth:`running` returns True."""
        return self.files.folder / "supervisor.json"

    @property
    def gateway_file(self) -> Path:
        """``gateway.toml``."""
        return GatewayFiles(self.federation.coordinator).config_file

    def endpoint(self) -> SuperLinkEndpoint:
        """Return SuperLink's endpoint. Raises :class:`RunFolderError` without a ``gateway.toml``."""
        return self.files.endpoint(GatewayFiles(self.federation.coordinator).config().superlink_port)

    def gateway(self) -> GatewayControl:
        """Return a client of the gateway's control socket."""
        return GatewayControl(GatewayFiles(self.federation.coordinator).control_socket)

    def gateway_answers(self) -> bool:
        """Return True if the gateway serves now."""
        try:
            self.gateway().status()
        except GatewayUnreachable:
            return False
        return True

    def state(self) -> dict[str, Any] | None:
        """Return the running supervisor's state, empty until first written; None if no supervisor runs."""
        if not self.running():
            return None
        try:
            state = json.loads(self.state_file.read_bytes())
        except (OSError, ValueError):
            return {}  # the supervisor has only just started
        return state if isinstance(state, dict) else {}

    def running(self) -> bool:
        """Return True if a supervisor lives for this federation."""
        return is_locked(self._lock)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the supervisor lock for the body. Raises :class:`RunFolderError` if a supervisor already runs."""
        for attempt in range(_CLAIM_TRIES):
            with file_lock(self._lock, wait=False) as held:
                if held:
                    yield
                    return
            time.sleep(_TICK_S if attempt + 1 < _CLAIM_TRIES else 0)  # a query holds the lock for a moment
        raise RunFolderError(f"{self.federation.path} is already being served: see aegis federation status")

    @property
    def _lock(self) -> Path:
        return self.files.folder / "supervisor.lock"


@dataclass
class Supervisor:
    """Runs the processes of one federation until :attr:`stop` is set.

    Attributes:
        stop: set by the caller to end the supervisor, for instance in a signal handler.
    """

    host: FederationHost
    options: HostOptions
    stop: threading.Event = field(default_factory=threading.Event)
    _children: dict[str, SupervisedProcess] = field(default_factory=dict, init=False)
    _registered: Mapping[str, str] | None = field(default=None, init=False)
    _written: dict[str, Any] = field(default_factory=dict, init=False)
    _due: dict[str, float] = field(default_factory=dict, init=False)
    _last_heartbeat: dict[str, float] = field(default_factory=dict, init=False)

    def run(self) -> None:
        """Serve the federation; return once every child has ended.

        Raises:
            AegisError: the federation cannot be served: another supervisor serves it, or a local site cannot join.
        """
        self.host.files.prepare()
        with self.host.claimed():
            self.host.state_file.unlink(missing_ok=True)
            prepare_network(self.host.federation)
            self._add("superlink", self._start_superlink)
            self._add("gateway", self._start_gateway)
            try:
                self._check_processes()  # SuperLink and gateway start while local sites join
                if self.options.local_sites:
                    join_local_sites(self.host.federation)
                while not self.stop.wait(_TICK_S):
                    self._check_processes()
            finally:
                self._end()

    def _check_processes(self) -> None:
        for child in self._children.values():
            child.ensure_running()
        if self._is_due("registry", _REGISTRY_EVERY_S):
            self._follow_registry()
        if self._is_due("probes", _PROBE_EVERY_S):
            self._probe()
        if self._is_due("logs", _LOGS_EVERY_S):
            for log in self.host.logs.glob("*.log"):  # the children's and this process's: no log fills the disk
                trim_log(log)
        if self._is_due("storage", _STORAGE_EVERY_S):
            self._storage().tidy()
        self._write_state()

    def _end(self) -> None:
        """Stop the agents first and all at once, so that they sign off; stop SuperLink last."""
        for name, child in self._children.items():
            if name.startswith(_AGENT) and child.process is not None:
                child.process.terminate()
        for child in reversed(list(self._children.values())):
            child.stop()
        self.host.state_file.unlink(missing_ok=True)

    def _follow_registry(self) -> None:
        """Start agents and register nodes for every site in the registry, including later additions."""
        config = self.host.federation.config()
        if self.options.local_sites:
            self._follow_agents(config)
        if config.node_keys == self._registered:
            return
        try:
            with SuperLinkControl(self.host.endpoint()) as control:
                control.register(config.node_keys)
        except TransportUnavailable:
            return  # SuperLink is not up yet: the next tick retries
        self._registered = config.node_keys
        _log.info("serving %d nodes", len(config.node_keys))

    def _follow_agents(self, config: FederationConfig) -> None:
        hostile = sorted(config.public_keys)[: self.options.attackers]
        for folder in self.host.federation.site_folders():
            if folder.name in config.node_keys and folder.name not in config.revoked:
                self._add(f"{_AGENT}{folder.name}", self._starter(folder, hostile=folder.name in hostile))

    def _add(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        if name not in self._children:
            backoff = Backoff(first_s=0.25, max_s=15.0, chance=random.random)
            self._children[name] = SupervisedProcess(name, start, backoff)

    def _probe(self) -> None:
        """End a live child after 30 s without an answer, because a silent process is as bad as a dead process."""
        probes = {"superlink": lambda: self.host.endpoint().serves(timeout_s=2.0), "gateway": self.host.gateway_answers}
        for name, answers in probes.items():
            child = self._children.get(name)
            if child is None or not child.running:
                self._last_heartbeat.pop(name, None)
            elif answers():
                self._last_heartbeat[name] = time.monotonic()
            elif time.monotonic() - self._last_heartbeat.setdefault(name, time.monotonic()) > _MAX_SILENT_S:
                _log.warning("%s is alive, but does not answer: stopping it", name)
                child.stop()

    def _is_due(self, duty: str, every_s: float) -> bool:
        if time.monotonic() < self._due.get(duty, 0.0):
            return False
        self._due[duty] = time.monotonic() + every_s
        return True

    def _write_state(self) -> None:
        gateway = GatewayFiles(self.host.federation.coordinator).config()
        state = {
            "pid": os.getpid(),
            "options": asdict(self.options),
            "serving": self._registered is not None,
            "gateway": gateway.public_address,
            "processes": {
                name: {"pid": child.process.pid if child.process else None, "restarts": max(child.restarts, 0)}
                for name, child in self._children.items()
            },
        }
        if state != self._written:
            replace_file(self.host.state_file, json.dumps(state, indent=1).encode())
            self._written = state

    def _start_superlink(self) -> subprocess.Popen[bytes]:
        port = GatewayFiles(self.host.federation.coordinator).config().superlink_port
        self._storage().prepare()
        command = superlink_command(self.host.files, port=port, health_port=free_ports(1)[0])
        return self._spawn("superlink", command)

    def _storage(self) -> SuperLinkStorage:
        return SuperLinkStorage(self.host.files.database)

    def _start_gateway(self) -> subprocess.Popen[bytes]:
        module = "aegis.runtimes.flower.gateway_process"
        return self._spawn("gateway", [sys.executable, "-m", module, str(self.host.federation.path)])

    def _starter(self, folder: Path, *, hostile: bool) -> Callable[[], subprocess.Popen[bytes]]:
        command = agent_command(folder, unsafe_seed=self.options.unsafe_seed, hostile=hostile)
        return lambda: self._spawn(f"{_AGENT}{folder.name}", command)

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        process = spawn(command, log=self.host.logs / f"{name}.log", env=flower_environment(self.host.files.home))
        _log.info("started %s, process %d", name, process.pid)
        return process
