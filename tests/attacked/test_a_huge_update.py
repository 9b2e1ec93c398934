"""One registered site answers with 240 MB for a model of four parameters: it is named, and nobody else pays for it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from aegis.runtimes.flower.local_sites import agent_command, join_local_sites
from aegis.services.participants import prepare_network
from coreason_enclave.system.processes import spawn, terminate
from tests.aegis.runtimes.flower.deployments import ROOT, SEED, Deployment, create, wait_for

HOSTILE = "clinic-3"


def peak_mb(pid: int) -> float:
    """The most memory that a process has had resident."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


@pytest.fixture
def deployment(tmp_path: Path, federation_at: Callable[[Path], Any]) -> Deployment:
    path = tmp_path / "federation"
    job = federation_at(path).job(min_clients=2, rounds=5, round_deadline_s=250.0)  # it runs while memory is read
    return create(path, federation_at, job, sites=3)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_an_update_of_240_mb_is_cut_off_and_its_site_named(
    deployment: Deployment, record_property: Callable[[str, object], None]
) -> None:
    coordinator_side = deployment.federation.coordinator
    prepare_network(deployment.federation)
    with agents(deployment), deployment.served(local_sites=False), deployment.coordinating() as coordinator:
        wait_for(lambda: refused(deployment), "the update is refused", within_s=200)
        wait_for(lambda: deployment.run_folder.state().history, "the round ends without it", within_s=30)
        peak = {
            "superlink": peak_mb(deployment.child("superlink")),
            "gateway": peak_mb(deployment.child("gateway")),
            "coordinator": peak_mb(coordinator.process.pid),
        }
        database = deployment.host.files.database
        on_disk = sum(path.stat().st_size for path in database.parent.glob(f"{database.name}*")) / (1 << 20)
        coordinator.finishes(within_s=200.0)
    record_property("peak in MB", peak)
    record_property("SuperLink's database in MB", on_disk)

    history = deployment.run_folder.state().history
    assert history[0].refused == {HOSTILE: "oversized"}
    assert all(set(record.admitted) == {"clinic-1", "clinic-2"} for record in history)
    lines = (coordinator_side / "gateway.audit.jsonl").read_text().splitlines()
    assert {json.loads(line)["actor"] for line in lines if '"reason":"oversized"' in line} == {HOSTILE}
    assert peak["superlink"] < 400
    assert peak["gateway"] < 250
    assert peak["coordinator"] < 900
    assert on_disk < 30


def refused(deployment: Deployment) -> bool:
    audit = deployment.federation.coordinator / "gateway.audit.jsonl"
    return audit.exists() and '"reason":"oversized"' in audit.read_text()


@contextmanager
def agents(deployment: Deployment) -> Iterator[None]:
    """Two honest agents, and the hostile one."""
    join_local_sites(deployment.federation)
    with ExitStack() as running:
        for folder in deployment.federation.site_folders():
            command = agent_command(folder, unsafe_seed=SEED, hostile=False)
            if folder.name == HOSTILE:
                config = str(folder / "site.toml")
                command = [sys.executable, "-m", "tests.attacked.huge_agent", config, str(SEED)]
            log = deployment.path / f"{folder.name}.log"
            process = spawn(command, log=log, env={**os.environ, "PYTHONPATH": str(ROOT)})
            running.callback(terminate, process)
        yield
