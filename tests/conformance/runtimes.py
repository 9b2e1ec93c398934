"""One job carried out on any runtime, and what is left of it: what has to be the same, whatever carries the messages.

Every runtime gets a copy of one created federation of its own, so that all begin with the same ledgers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aegis.errors import AegisError
from aegis.federation.job_files import dump_job
from aegis.federation.registry import FederationConfig, FederationFolder
from aegis.runs.connect import RuntimeName
from aegis.runs.folder import RunFolder
from aegis.runs.plan import RunPlan
from aegis.runs.runner import execute
from aegis.stores.run_state import RoundRecord
from coreason_enclave.crypto.signing import write_private
from coreason_enclave.errors import EnclaveError
from coreason_enclave.ledger import SqliteLedger
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import FederationJob
from coreason_enclave.system.processes import spawn, terminate

ROOT = Path(__file__).resolve().parents[2]
SEED = 11
PATIENCE_S = 120.0

Sites = Mapping[str, Mapping[str, Any]]
"""Site ids, each with its changes to a small site's configuration."""


@dataclass(frozen=True)
class CarriedOut:
    """A federation's folder and the run folder in it, after a job was run there on ``runtime``."""

    runtime: RuntimeName
    path: Path
    error: str = ""

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.path / "run")

    @property
    def history(self) -> tuple[RoundRecord, ...]:
        return self.run.state().history

    @property
    def refused(self) -> dict[str, str]:
        """The reason code of each site that is not in the model, of the first round."""
        return self.history[0].refused

    def model(self) -> bytes:
        return (self.run.path / "model.safetensors").read_bytes()

    def ledger(self, site: str) -> list[dict[str, Any]]:
        """The entries of a site's ledger."""
        ledger = SqliteLedger(self.path / "sites" / site / "ledger.sqlite", must_exist=True)
        try:
            return [json.loads(row["payload"]) for row in json.loads(ledger.export())["entries"]]
        finally:
            ledger.close()

    def events(self, site: str) -> list[tuple[str, Any]]:
        """What a site reserved and what it committed, in order."""
        said = {"reserved": "plan", "committed": "event"}
        return [(entry["type"], entry[said[entry["type"]]]) for entry in self.ledger(site) if entry["type"] in said]

    def refusals(self, site: str) -> list[str]:
        """The reason codes in a site's own log."""
        return [entry["reason"] for entry in self.log(site) if entry["outcome"] == "refused"]

    def log(self, site: str) -> list[dict[str, Any]]:
        """The entries of a site's own log."""
        lines = (self.path / "sites" / site / "audit.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def create(path: Path, federation_at: Callable[[Path], Any], sites: Sites) -> None:
    """Found small development sites below ``path``, and a federation over them."""
    write_private(path / "coordinator" / "signing.key", bytes([7]) * 32)
    small = federation_at(path / "sites")
    keys = {}
    for number, (site, changes) in enumerate(sites.items(), 1):
        keys[site] = small.create(site, rows=number, **changes).public_key
    FederationFolder(path).create(FederationConfig(profile=Profile.DEVELOPMENT, delta=1e-5, public_keys=keys))


def carry_out(runtime: RuntimeName, founded: Path, copy: Path, job: FederationJob) -> CarriedOut:
    """Run ``job`` on a copy of a created federation; a run that the product ends with an error is kept with it."""
    shutil.copytree(founded, copy)
    try:
        execute(job, plan(runtime, copy))
    except (AegisError, EnclaveError) as error:
        return CarriedOut(runtime, copy, str(error))
    return CarriedOut(runtime, copy)


def plan(runtime: RuntimeName, path: Path) -> RunPlan:
    """How every run of this suite is made."""
    return RunPlan(FederationFolder(path), RunFolder(path / "run"), SEED, runtime=runtime)


@contextmanager
def running(runtime: RuntimeName, path: Path, job: FederationJob) -> Iterator[subprocess.Popen[bytes]]:
    """The same as a process of its own, which can be killed."""
    (path / "job.yaml").write_text(dump_job(job))
    command = [sys.executable, "-m", "tests.conformance.carry", runtime.value, str(path)]
    process = spawn(command, log=path / "carry.log", env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        yield process
    finally:
        terminate(process, grace_s=40.0)


def kill_in_round(process: subprocess.Popen[bytes], path: Path, number: int) -> None:
    """``kill -9`` once round ``number`` is open."""
    wait_for(lambda: _open_round(path) >= number or process.poll() is not None, f"round {number} is open")
    assert process.poll() is None, (path / "carry.log").read_text()[-2000:]
    process.send_signal(signal.SIGKILL)
    process.wait()


def wait_for(condition: Callable[[], Any], what: str, *, within_s: float = PATIENCE_S) -> Any:
    """The first true value of ``condition``."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {within_s:g} s: {what}")


def processes_naming(path: Path) -> list[int]:
    """The processes, but for this one, whose command line names a folder."""
    named, found_them = str(path).encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if named in (entry / "cmdline").read_bytes():
                    found_them.append(int(entry.name))
            except OSError:
                continue
    return found_them


def _open_round(path: Path) -> int:
    state = path / "run" / "state" / "state.json"
    if not state.exists():
        return 0
    document = json.loads(state.read_bytes())
    return len(document["history"]) + 1 if document["nonces"] else 0
