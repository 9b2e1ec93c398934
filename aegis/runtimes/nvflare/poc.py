"""A proof of concept: FLARE's real server and clients on this host over mutual TLS, with one site agent per client.

The setup matches a deployment, on loopback:

- kits, certificate authority and guards from FLARE's provisioning;
- one process for the server and one per client, each with a child process for the job.

Unlike in a deployment, all parts belong to one run: created at its start, removed at its end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aegis.errors import RunFolderError
from aegis.runtimes.nvflare.deployment import Submission, submitted
from aegis.runtimes.nvflare.flare_process import FlareProcess, log_tail
from aegis.runtimes.nvflare.job_folder import FlareJob
from aegis.runtimes.nvflare.provisioning import Kits, Project, provision
from aegis.runtimes.nvflare.settings import ServerSettings, SiteSettings, write_settings
from aegis.runtimes.nvflare.site_guards import set_storage_root
from aegis.runtimes.nvflare.startup_kits import read_admin_kit
from aegis.services import free_ports
from coreason_enclave.system import spawn, terminate

_HOST: Final = "localhost"
_ADMIN: Final = "admin@localhost.localdomain"
_AGENT_S: Final = 60.0
_END_S: Final = 5.0
_LINGER_S: Final = 8.0
"""FLARE reports a job's end some ten seconds after the job's processes have ended."""
_POLL_S: Final = 0.05


@dataclass(frozen=True)
class ProofOfConcept:
    """One job on real FLARE processes of this host.

    Attributes:
        folder: all of FLARE's files; created, and emptied at every start. log: FLARE's output of the submission.
        sites: site folders by site id. unsafe_seed: number from which agents of development sites derive all noise.
    """

    folder: Path
    log: Path
    job: FlareJob
    server: ServerSettings
    sites: Mapping[str, str]
    unsafe_seed: int | None = None


@contextmanager
def proof_of_concept(poc: ProofOfConcept) -> Iterator[FlareProcess]:
    """Run server, clients and agents, with the job, for the body. No process survives the body.

    Raises:
        RunFolderError: FLARE cannot provision, or an agent does not start.
    """
    shutil.rmtree(poc.folder, ignore_errors=True)
    kits = _provisioned(poc)
    with ExitStack() as running:
        agents = [_SiteAgent(poc, site) for site in sorted(poc.sites)]
        for agent in agents:
            running.callback(terminate, agent.process)
        _start(poc, kits, running)
        for agent in agents:
            agent.await_socket()
        submission = Submission(
            kit=read_admin_kit(kits.admin),
            job=poc.job,
            folder=poc.folder,
            note=poc.folder / "submitted.json",
            log=poc.log,
            clients=tuple(poc.sites),
        )
        yield running.enter_context(submitted(submission, linger_s=_LINGER_S))


def _provisioned(poc: ProofOfConcept) -> Kits:
    port = free_ports(1)[0]
    project = Project(name="poc", server=_HOST, port=port, admin=_ADMIN, sites=tuple(poc.sites))
    kits = provision(project, poc.folder / "kits")
    write_settings(kits.server / "local", poc.server)
    set_storage_root(kits.server / "local", poc.folder / "storage")
    for site, kit in kits.sites.items():
        write_settings(kit / "local", SiteSettings(version=1, runs="agent", sites={site: poc.sites[site]}))
    return kits


def _start(poc: ProofOfConcept, kits: Kits, running: ExitStack) -> None:
    """Start server and clients like the kits' own start scripts, but without the scripts' restart loop."""
    (poc.folder / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(poc.folder / "tmp"), "NO_PROXY": "*", "no_proxy": "*"}
    commands = {"server": _command(kits.server, "server", [])}
    for site, kit in sorted(kits.sites.items()):
        commands[site] = _command(kit, "client", [f"uid={site}"])
    processes = [spawn(command, log=_log(poc, name), env=environment) for name, command in commands.items()]
    running.callback(_end, processes)


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End all processes at once, so that their shutdown times do not add up."""
    for process in processes:
        process.terminate()
    for process in processes:
        terminate(process, grace_s=_END_S)


def _log(poc: ProofOfConcept, name: str) -> Path:
    return poc.folder / "logs" / f"{name}.log"


def _command(kit: Path, kind: str, settings: list[str]) -> list[str]:
    module = f"nvflare.private.fed.app.{kind}.{kind}_train"
    options = ["secure_train=true", *settings, "org=federation", "config_folder=config"]
    return [sys.executable, "-u", "-m", module, "-m", str(kit), "-s", f"fed_{kind}.json", "--set", *options]


class _SiteAgent:
    """A local site's agent that answers only on its socket."""

    def __init__(self, poc: ProofOfConcept, site: str) -> None:
        self._folder, self._log = Path(poc.sites[site]), _log(poc, f"agent-{site}")
        command = [sys.executable, "-m", "coreason_enclave.main", "agent", "--socket-only"]
        command += ["--config", str(self._folder / "site.toml")]
        command += [] if poc.unsafe_seed is None else ["--unsafe-seed", str(poc.unsafe_seed)]
        self._left_behind = self._socket()  # a killed agent leaves its socket file
        self.process: subprocess.Popen[bytes] = spawn(command, log=self._log)

    def await_socket(self) -> None:
        """Return once the agent's socket exists. Raises :class:`RunFolderError` if the agent ends or takes a minute."""
        end = time.monotonic() + _AGENT_S
        while self._socket() in (None, self._left_behind):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RunFolderError(f"the agent of {self._folder.name} does not start: {log_tail(self._log)}")
            time.sleep(_POLL_S)

    def _socket(self) -> tuple[int, int] | None:
        """Return inode and change time of the socket file, or None."""
        try:
            status = (self._folder / "agent.sock").lstat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_ctime_ns
