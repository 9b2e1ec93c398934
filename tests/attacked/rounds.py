"""How many rounds a federation completes in a second, undisturbed and under attack, in one and the same run."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from aegis.federation.registry import FederationFolder
from aegis.gateway.config import GatewayFiles
from aegis.gateway.status import StatusReport
from aegis.runtimes.flower.local_sites import join_local_sites
from aegis.services.participants import prepare_network
from coreason_enclave.system.processes import spawn, terminate
from tests.aegis.runtimes.flower.deployments import ROOT, Deployment, create, wait_for

LEAST = 0.8
"""The share of undisturbed rounds that honest sites keep under attack."""
_START_S = 60.0
_SETTLE_ROUNDS = 2


@dataclass(frozen=True)
class Attacked:
    """A deployment whose last site is admitted, runs no agent, and takes part in nothing: it attacks."""

    deployment: Deployment

    @property
    def hostile(self) -> Path:
        return self.deployment.path / "sites" / "clinic-4"

    @property
    def port(self) -> int:
        return GatewayFiles(self.deployment.federation.coordinator).config().port

    def completed(self) -> int:
        """How many rounds are complete."""
        path = self.deployment.run_folder.path / "state" / "state.json"
        try:
            return len(json.loads(path.read_bytes())["history"])
        except FileNotFoundError:
            return 0

    def rate(self, for_s: float) -> float:
        """Rounds a second, over at least ``for_s`` seconds and between two ends of rounds."""
        first = self.next_round()
        start, end = time.monotonic(), time.monotonic() + for_s
        last, at = first, start
        while time.monotonic() < end:
            if (now := self.completed()) > last:
                last, at = now, time.monotonic()
            time.sleep(0.01)
        return (last - first) / (at - start) if last > first else 0.0

    def next_round(self) -> int:
        """Wait for the end of a round; how many are complete then."""
        before = self.completed()
        return int(wait_for(lambda: self.completed() > before and self.completed(), "a round is complete"))

    def settled(self) -> None:
        """The first rounds, in which everything is loaded, are over."""
        wait_for(lambda: self.completed() >= _SETTLE_ROUNDS, "the first rounds are complete")

    def report(self) -> StatusReport:
        return self.deployment.host.gateway().report()

    def memory_mb(self, name: str) -> float:
        """Resident memory of one of the supervisor's children."""
        pid = self.deployment.child(name)
        fields = Path(f"/proc/{pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    @contextmanager
    def under(self, kind: str, count: int, *, with_certificate: bool = False) -> Iterator[None]:
        """An attack runs, and has opened ``count`` connections."""
        command = [sys.executable, "-m", "tests.attacked.attackers", kind, str(self.port), str(count)]
        command += [str(self.hostile)] if with_certificate else []
        log = self.deployment.path / f"attack-{kind}.log"
        attacker = spawn(command, log=log, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            wait_for(lambda: "ready" in log.read_text(), f"the attack {kind} has begun", within_s=_START_S)
            yield
        finally:
            terminate(attacker)


def attacked(path: Path, federation_at: Any, *, rounds: int = 400) -> Attacked:
    """Three honest sites with a job that does not end by itself soon, and one that is admitted and attacks."""
    # Little is spent in a round, so that the budget lasts for all of them.
    privacy = {"noise_multiplier": 60.0, "sample_rate": 0.2}
    job = federation_at(path).job(min_clients=3, rounds=rounds, local_steps=1, round_deadline_s=60.0, privacy=privacy)
    deployment = create(path, federation_at, job, sites=4)
    federation = FederationFolder(path)
    prepare_network(federation)
    join_local_sites(federation)
    config = federation.config()
    honest = {site: key for site, key in config.node_keys.items() if site != "clinic-4"}
    federation.create(config.model_copy(update={"node_keys": honest}))
    return Attacked(deployment)


@contextmanager
def running(made: Attacked) -> Iterator[Attacked]:
    """Its processes and its coordinator run, and the first rounds are over."""
    with made.deployment.served(), made.deployment.coordinating():
        made.settled()
        yield made


def shares(made: Attacked, attacks: Sequence[tuple[str, int, bool]], for_s: float) -> dict[str, float]:
    """The share of undisturbed rounds that is left under each attack.

    Windows of ``for_s`` seconds, undisturbed and attacked by turns. Each attacked window is compared with the two
    undisturbed ones around it: the machine's other work changes meanwhile.
    """
    before, measured = made.rate(for_s), dict[str, list[float]]()
    for kind, count, with_certificate in [*attacks, *attacks]:
        with made.under(kind, count, with_certificate=with_certificate):
            rate = made.rate(for_s)
        after = made.rate(for_s)
        measured.setdefault(kind, []).append(rate / mean([before, after]))
        before = after
    return {kind: mean(kept) for kind, kept in measured.items()}
