"""Runs one job in FLARE's own simulator, over the site folders of this host.

- One folder holds everything: FLARE's workspace, the job, temporary files.
- FLARE's own rules hold: the job may name the workflow and the executor, and no further class.
- FLARE's client processes open the sites themselves; only development sites allow this mode.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aegis.runtimes.nvflare.flare_process import FlareProcess, started
from aegis.runtimes.nvflare.job_folder import FlareJob, write_job_folder
from aegis.runtimes.nvflare.settings import ServerSettings, SiteSettings, allowed_classes, write_settings
from coreason_enclave.system import terminate

_PROCESS = "aegis.runtimes.nvflare.simulator_process"
_END_S = 20.0


@dataclass(frozen=True)
class Simulation:
    """One job in FLARE's simulator.

    Attributes:
        folder: all of FLARE's files; created, and emptied at every start. log: collects FLARE's output (appended).
        threads: number of clients that work in parallel; below the client count, FLARE starts a process for each task.
        import_from: import path of a user's executor, in addition to the installed packages.
    """

    folder: Path
    log: Path
    job: FlareJob
    server: ServerSettings
    sites: SiteSettings
    threads: int
    import_from: Path | None = None


@contextmanager
def simulating(simulation: Simulation) -> Iterator[FlareProcess]:
    """Run the job in the simulator for the body. No process survives the body."""
    job_folder = _prepared(simulation)
    workspace = simulation.folder / "workspace"
    names = sorted(simulation.job.sites)
    command = [sys.executable, "-m", _PROCESS, str(workspace), str(job_folder), str(simulation.threads), *names]
    running = started(command, simulation.log, _environment(simulation), linger_s=_END_S)
    try:
        yield running
    finally:
        terminate(running.process)


def _prepared(simulation: Simulation) -> Path:
    """Write FLARE's workspace with this host's settings, and the job's folder; return the job's folder."""
    shutil.rmtree(simulation.folder, ignore_errors=True)
    local = simulation.folder / "workspace" / "local"
    local.mkdir(parents=True)
    (simulation.folder / "tmp").mkdir()
    write_settings(local, simulation.server)
    write_settings(local, simulation.sites)
    allowed = allowed_classes({"format_version": 2}, [simulation.job.workflow, simulation.job.executor])
    (local / "resources.json").write_text(json.dumps(allowed, indent=2), encoding="utf-8")
    job_folder = simulation.folder / simulation.job.job.job_id
    write_job_folder(job_folder, simulation.job)
    return job_folder


def _environment(simulation: Simulation) -> Mapping[str, str]:
    """Return this process's environment, with temporary files in the folder and the user's executor importable."""
    paths = [os.environ.get("PYTHONPATH", ""), "" if simulation.import_from is None else str(simulation.import_from)]
    environment = {**os.environ, "TMPDIR": str(simulation.folder / "tmp")}
    if joined := os.pathsep.join(filter(None, paths)):
        environment["PYTHONPATH"] = joined
    return environment
