"""One enrolled site of an NVIDIA FLARE deployment attacks with its own client: the others' rounds go on, it is named.

A deployment from provisioned, signed kits over mutual TLS; the hostile site's processes are FLARE's client with other
code in them (:mod:`tests.attacked.hostile_flare_client`). For each attack one job of two rounds, on the same processes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed")

from aegis.federation.job_files import dump_job
from tests.aegis.runtimes.flower.deployments import ROOT, create, wait_for
from tests.aegis.runtimes.nvflare.provisioned import Kits, flare_environment, provisioned, started
from tests.attacked.hostile_flare_client import ANSWERS, ATTACKS, ORDERS

pytestmark = pytest.mark.slow

HOSTILE = "clinic-3"
ROUNDS = 2
UNSEEN = {"a report that the job failed", "an error that ends a sender"}
"""What an honest site's FLARE client may say, too: it is borne, or made harmless, and not held against the site."""


@dataclass(frozen=True)
class Attacked:
    """A deployment with one hostile site."""

    path: Path
    kits: Kits
    federation: Any

    def run(self, name: str, attack: str) -> subprocess.CompletedProcess[str]:
        """``aegis run`` of a job of its own, while the hostile site attacks in one way."""
        (self.path / "orders").write_text(attack)
        job = self.federation.job(
            job_id=name, rounds=ROUNDS, min_clients=2, round_deadline_s=45.0, privacy={"noise_multiplier": 30.0}
        )
        (self.path / f"{name}.yaml").write_text(dump_job(job))
        command = [str(Path(sys.executable).parent / "aegis"), "run", str(self.path / f"{name}.yaml")]
        command += ["--federation", str(self.path), "--out", str(self.path / name)]
        command += ["--runtime", "nvflare", "--startup-kit", str(self.kits.admin)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=180, check=False, env=flare_environment()
        )

    def history(self, name: str) -> list[dict[str, Any]]:
        return list(json.loads((self.path / name / "state" / "state.json").read_bytes())["history"])

    def refusals(self) -> set[str]:
        """The senders whom the server's gate named, in its own log and its jobs'."""
        logs = [self.path / "flare-server.log"]
        return {name for log in logs for name in re.findall(r"refused a message of (.*?):", log.read_text())}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory, federation_at: Callable[[Path], Any]) -> Iterator[Attacked]:
    path = tmp_path_factory.mktemp("hostile") / "federation"
    federation = federation_at(path)
    deployment = create(path, federation_at, federation.job(), sites=3)
    kits = provisioned(path)
    (path / "orders").write_text("none")
    hostile = {
        ORDERS: str(path / "orders"),
        "PYTHONPATH": os.pathsep.join((str(ROOT / "tests" / "attacked" / "hostile_path"), str(ROOT))),
    }
    with started(path, kits, {HOSTILE: hostile}):
        yield Attacked(path, kits, federation)
    wait_for(lambda: not deployment.processes(), "every process is gone", within_s=30)


def test_an_honest_deployment_is_refused_nothing(attacked: Attacked) -> None:
    done = attacked.run("honest", "none")

    assert done.returncode == 0, done.stderr
    assert [record["admitted"] for record in attacked.history("honest")] == [["clinic-1", "clinic-2", "clinic-3"]] * 2
    assert attacked.refusals() == set()


@pytest.mark.parametrize("attack", ATTACKS)
def test_one_site_attacks_and_the_others_complete_every_round(attacked: Attacked, attack: str) -> None:
    name = re.sub(r"[^a-z]+", "-", attack)

    done = attacked.run(name, attack)

    assert done.returncode == 0, done.stderr
    history = attacked.history(name)
    assert [record["admitted"] for record in history] == [["clinic-1", "clinic-2"]] * ROUNDS
    assert all(record["seconds"] < 30 for record in history)
    assert history[0]["refused"] == {HOSTILE: "norm_exceeded" if attack in UNSEEN else "malformed"}
    assert attacked.refusals() <= {HOSTILE}


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_site_that_answers_flares_administration_wrongly_is_left_out(attacked: Attacked, answer: str) -> None:
    name = re.sub(r"[^a-z]+", "-", answer)

    done = attacked.run(name, answer)

    assert done.returncode == 0, done.stderr
    assert [record["admitted"] for record in attacked.history(name)] == [["clinic-1", "clinic-2"]] * ROUNDS
    assert attacked.refusals() <= {HOSTILE}
