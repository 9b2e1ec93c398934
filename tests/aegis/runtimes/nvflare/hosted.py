"""Small federations over NVIDIA FLARE on this host: FLARE's own processes, real sites, injected keys."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aegis.federation.registry import FederationFolder
from aegis.runs.connect import RuntimeName
from aegis.runs.folder import RunFolder
from aegis.runs.plan import RoundReport, RunPlan
from aegis.runs.runner import execute
from aegis.runtimes.nvflare.options import FlareHosting, FlareOptions
from coreason_enclave.schemas import FederationJob
from coreason_enclave.system.processes import spawn, terminate
from tests.aegis.runtimes.flower.deployments import ROOT, Deployment, all_processes, command_line, wait_for

SEED = 11
EXECUTORS = "tests.aegis.runtimes.nvflare.executors"
PATIENCE_S = 120.0


@dataclass
class Hosted:
    """A federation folder with one job, run over FLARE in this process or in one that may be killed."""

    deployment: Deployment
    reports: list[RoundReport] = field(default_factory=list)

    @property
    def job(self) -> FederationJob:
        return self.deployment.job

    @property
    def folder(self) -> RunFolder:
        return self.deployment.run_folder

    def plan(self, hosting: FlareHosting = FlareHosting.SIMULATOR, **options: Any) -> RunPlan:
        return RunPlan(
            self.deployment.federation,
            self.folder,
            SEED,
            observe=self.reports.append,
            runtime=RuntimeName.NVFLARE,
            flare=FlareOptions(hosting, **options),
        )

    def run(self, hosting: FlareHosting = FlareHosting.SIMULATOR, **options: Any) -> bytes:
        """Run, or go on with, the job; the released model."""
        execute(self.job, self.plan(hosting, **options))
        return self.deployment.model()

    def in_one_process(self) -> bytes:
        """The model that a copy of this federation gives in one process, from the same seed."""
        copy = self.deployment.path.parent / "copy"
        shutil.copytree(self.deployment.path, copy)
        folder = RunFolder(copy / "run")
        execute(self.job, RunPlan(FederationFolder(copy), folder, SEED))
        return (folder.path / "model.safetensors").read_bytes()

    @contextmanager
    def running(
        self, hosting: FlareHosting = FlareHosting.SIMULATOR, kit: Path | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        """``aegis run`` in a process of its own."""
        command = [sys.executable, "-m", "tests.aegis.runtimes.nvflare.run_hosted"]
        command += [str(self.deployment.path), hosting.value, *([] if kit is None else [str(kit)])]
        log = self.deployment.path / "command.log"
        process = spawn(command, log=log, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            yield process
        finally:
            terminate(process)

    def completed(self) -> int:
        """Rounds whose model is kept."""
        path = self.folder.path / "state" / "state.json"
        return len(json.loads(path.read_bytes())["history"]) if path.exists() else 0

    def process(self, *words: str) -> int:
        """The process of this federation whose command line has all these words."""

        def found() -> int | None:
            named = (str(self.deployment.path), *words)
            return next((pid for pid in all_processes() if all(word in command_line(pid) for word in named)), None)

        return int(wait_for(found, f"a process of {words}", within_s=PATIENCE_S))

    def await_round(self, number: int) -> None:
        wait_for(lambda: self.completed() >= number, f"round {number}", within_s=PATIENCE_S)

    def await_silence(self) -> None:
        """None of this federation's processes is left."""
        wait_for(lambda: not self.deployment.processes(), "every process is gone", within_s=30)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
