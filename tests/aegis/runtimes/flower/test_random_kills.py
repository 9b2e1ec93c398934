"""Whatever is killed, and whenever: the same command goes on, and ends in the same model."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.aegis.runtimes.flower.deployments import Deployment, children_of, command_line

KINDS = ("flower-superlink", "flower-supernode", "gateway_process", "coreason_enclave.main agent", "federation serve")
KILLS = 8
PATIENCE_S = 540.0
"""Eight kills and five rounds take some 150 s on an idle machine; a busy one is no failure."""


def kill_one(coordinator: int, chance: random.Random) -> str:
    """Kill a process that a coordinator started, or itself: first the kind is drawn, then one of that kind."""
    lines = {pid: command_line(pid) for pid in children_of(coordinator)}
    found = {kind: [pid for pid, line in lines.items() if kind in line] for kind in KINDS} | {"itself": [coordinator]}
    kind = chance.choice(sorted(name for name, pids in found.items() if pids))
    with contextlib.suppress(ProcessLookupError):
        os.kill(chance.choice(found[kind]), signal.SIGKILL)
    return kind


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(720)
def test_random_kills_change_neither_model_nor_ledgers(
    deployment: Callable[..., Deployment], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    federation, chance = deployment(rounds=5, round_deadline_s=300.0), random.Random(20)
    expected = federation.in_one_process(tmp_path / "in-process")
    killed: list[str] = []
    end = time.monotonic() + PATIENCE_S
    while not federation.run_folder.is_finished:
        assert time.monotonic() < end, killed
        with federation.coordinating() as coordinator:
            next_kill = time.monotonic() + chance.uniform(2, 12)
            while coordinator.process.poll() is None and time.monotonic() < end:
                if len(killed) < KILLS and time.monotonic() > next_kill:
                    killed.append(kill_one(coordinator.process.pid, chance))
                    next_kill = time.monotonic() + chance.uniform(1, 8)
                time.sleep(0.05)
    record_property("killed", killed)

    assert len(killed) >= KILLS // 2
    assert federation.model() == expected
    assert federation.reserved_rounds() == {site: [1, 2, 3, 4, 5] for site in federation.sites}
