"""Deployments: a created federation of small sites, its processes, and ways to kill one of them.

Everything binds to loopback on ports that were free, and everything is gone when a deployment is closed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aegis.federation.job_files import dump_job
from aegis.federation.registry import FederationConfig, FederationFolder
from aegis.runs.folder import RunFolder
from aegis.runs.plan import RunPlan
from aegis.runs.runner import execute
from aegis.runtimes.flower.federation_process import serve_command
from aegis.runtimes.flower.local_sites import agent_command, join_local_sites
from aegis.runtimes.flower.supervisor import FederationHost, HostOptions
from coreason_enclave.crypto.signing import write_private
from coreason_enclave.ledger import SqliteLedger
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import FederationJob
from coreason_enclave.system.processes import spawn, terminate

ROOT = Path(__file__).resolve().parents[4]
SEED = 11
PATIENCE_S = 90.0

Condition = Callable[[], Any]


def wait_for(condition: Condition, what: str, *, within_s: float = PATIENCE_S) -> Any:
    """The first true value of ``condition``."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {within_s:g} s: {what}")


@dataclass(frozen=True)
class Deployment:
    """A federation folder, one job for it, and one run folder."""

    path: Path
    job: FederationJob

    @property
    def federation(self) -> FederationFolder:
        return FederationFolder(self.path)

    @property
    def host(self) -> FederationHost:
        return FederationHost(self.federation)

    @property
    def run_folder(self) -> RunFolder:
        return RunFolder(self.path / "run")

    @property
    def sites(self) -> list[str]:
        return [folder.name for folder in self.federation.site_folders()]

    def in_one_process(self, copy: Path) -> bytes:
        """The model that a copy of this federation gives in one process, from the same seed."""
        shutil.copytree(self.path, copy)
        folder = RunFolder(copy / "run")
        execute(self.job, RunPlan(FederationFolder(copy), folder, SEED))
        return (folder.path / "model.safetensors").read_bytes()

    @contextmanager
    def served(self, *, local_sites: bool = True) -> Iterator[subprocess.Popen[bytes]]:
        """The supervisor and all that it runs; whoever needs them to serve waits for that."""
        self.host.files.prepare()
        options = HostOptions(local_sites=local_sites, unsafe_seed=SEED)
        supervisor = spawn(serve_command(self.path, options), log=self.path / "serve.log")
        try:
            wait_for(self.host.running, "the supervisor has begun")
            yield supervisor
        finally:
            terminate(supervisor, grace_s=40.0)

    @contextmanager
    def agents(self, wrapped: Mapping[str, Sequence[str]] = {}) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
        """Agents of all sites that nobody starts again; ``wrapped`` holds words to put before a site's command."""
        join_local_sites(self.federation)
        with ExitStack() as running:
            started = {}
            for folder in self.federation.site_folders():
                command = agent_command(folder, unsafe_seed=SEED, hostile=False)
                command = [*wrapped.get(folder.name, ()), *command]
                started[folder.name] = spawn(command, log=self.path / f"{folder.name}.log")
                running.callback(terminate, started[folder.name])
            yield started

    @contextmanager
    def coordinating(self) -> Iterator[Coordinator]:
        """A coordinator that runs, or goes on with, the job."""
        job = self.path / "job.yaml"
        command = [sys.executable, "-m", "tests.aegis.runtimes.flower.coordinate"]
        command += [str(self.path), str(job), str(self.run_folder.path), str(SEED)]
        log = self.path / "coordinator.log"
        coordinator = Coordinator(spawn(command, log=log, env={**os.environ, "PYTHONPATH": str(ROOT)}), log)
        try:
            yield coordinator
        finally:
            terminate(coordinator.process)

    def open_round(self) -> int:
        """The number of the round that is open and not complete; 0 where none is."""
        path = self.run_folder.path / "state" / "state.json"
        if not path.exists():
            return 0
        state = json.loads(path.read_bytes())
        return len(state["history"]) + 1 if state["nonces"] else 0

    def received(self) -> set[str]:
        """The sites whose updates the open round has admitted so far."""
        path = self.run_folder.path / "state" / "state.json"
        return set(json.loads(path.read_bytes())["received"]) if path.exists() else set()

    def child(self, name: str) -> int:
        """The process id of one of the supervisor's children."""
        found = wait_for(lambda: (self.host.state() or {}).get("processes", {}).get(name, {}).get("pid"), name)
        return int(found)

    def supernode(self, site: str) -> int:
        """The process id of a site's SuperNode."""
        agent = self.child(f"agent-{site}")
        return next(pid for pid in children_of(agent) if "flower-supernode" in command_line(pid))

    def model(self) -> bytes:
        return (self.run_folder.path / "model.safetensors").read_bytes()

    def reserved_rounds(self) -> dict[str, list[int]]:
        """The rounds that each site's ledger has a reservation for, in order."""
        return {site: self._reserved(site) for site in self.sites}

    def _reserved(self, site: str) -> list[int]:
        ledger = SqliteLedger(self.path / "sites" / site / "ledger.sqlite", must_exist=True)
        try:
            entries = [json.loads(row["payload"]) for row in json.loads(ledger.export())["entries"]]
        finally:
            ledger.close()
        return [entry["plan"]["round_number"] for entry in entries if entry["type"] == "reserved"]

    def trained(self, site: str) -> int:
        """How often the site's log says that an update was computed."""
        lines = (self.path / "sites" / site / "audit.jsonl").read_text().splitlines()
        return sum(json.loads(line)["action"] == "reserve" for line in lines)

    def processes(self) -> list[int]:
        """The processes that this deployment started and that still live: their command lines name its folder."""
        named = str(self.path).encode()
        return [pid for pid in all_processes() if pid != os.getpid() and named in raw_command_line(pid)]


@dataclass(frozen=True)
class Coordinator:
    """A coordinator's process and what it printed."""

    process: subprocess.Popen[bytes]
    log: Path

    def finishes(self, *, within_s: float = 120.0) -> None:
        """It ends well, in time."""
        code = self.process.wait(timeout=within_s)
        assert code == 0, self.log.read_text()[-2000:]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def create(path: Path, federation_at: Any, job: FederationJob, *, sites: int = 3) -> Deployment:
    """Found small development sites below ``path`` and the federation over them."""
    write_private(path / "coordinator" / "signing.key", bytes([7]) * 32)
    small = federation_at(path / "sites")
    founded = [small.create(f"clinic-{number}", rows=number) for number in range(1, sites + 1)]
    keys = {site.config.site_id: site.public_key for site in founded}
    FederationFolder(path).create(FederationConfig(profile=Profile.DEVELOPMENT, delta=1e-5, public_keys=keys))
    (path / "job.yaml").write_text(dump_job(job))
    return Deployment(path, job)


def all_processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def raw_command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def command_line(pid: int) -> str:
    return raw_command_line(pid).replace(b"\0", b" ").decode(errors="replace")


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def children_of(pid: int) -> list[int]:
    """All descendants."""
    tree: dict[int, list[int]] = {}
    for each in all_processes():
        tree.setdefault(parent_of(each), []).append(each)
    found, waiting = [], [pid]
    while waiting:
        found += (below := tree.get(waiting.pop(), []))
        waiting += below
    return found


def listening_addresses(pids: list[int]) -> set[str]:
    """``address:port`` in hexadecimal, as /proc/net/tcp spells it, of every TCP socket that one of them listens on."""
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                addresses.add(fields[1])
    return addresses


def _sockets(pid: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]
