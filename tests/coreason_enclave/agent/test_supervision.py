"""A SuperNode is kept at work by its last request for messages."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.agent.supervision import SILENCE_S, Supervision
from coreason_enclave.system.processes import Backoff, SupervisedProcess, spawn
from tests.support.gatekeeping import wait_until


@dataclass
class Signs:
    """What the tunnel and the answering say of themselves."""

    last_poll: float | None = None
    last_active: float | None = None
    busy: bool = False


class Kept:
    """A supervised process that does nothing, under a clock that stands still unless it is moved."""

    def __init__(self, folder: Path) -> None:
        self.now, self.signs, self.lines = 1000.0, Signs(), io.StringIO()
        command = [sys.executable, "-c", "import signal; signal.pause()"]
        self.child = SupervisedProcess(
            "supernode",
            lambda: spawn(command, log=folder / "supernode.log"),
            Backoff(1.0, 30.0, lambda: 1.0),
            clock=lambda: self.now,
        )
        signs: Any = self.signs
        log = AgentLog({}, stream=self.lines)
        self.supervision = Supervision(self.child, signs, signs, log, clock=lambda: self.now, wall=lambda: 5e6)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        self.supervision.ensure_running()

    def said(self) -> list[str]:
        return [json.loads(line)["outcome"] for line in self.lines.getvalue().splitlines()]


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    kept = Kept(tmp_path)
    kept.supervision.ensure_running()
    yield kept
    kept.supervision.end()


def test_one_that_polls_is_left_alone(kept: Kept) -> None:
    for _ in range(10):
        kept.signs.last_poll = kept.now
        kept.pass_by(SILENCE_S - 1)

    assert (kept.child.restarts, kept.said()) == (0, ["started"])


def test_one_that_fell_silent_is_started_again(kept: Kept) -> None:
    first = kept.child.process
    kept.signs.last_poll = kept.now
    kept.pass_by(SILENCE_S + 1)

    assert kept.child.restarts == 1
    assert kept.child.process is not first
    assert first is not None
    assert first.poll() is not None
    assert kept.said() == ["started", "silent", "started"]


def test_one_that_never_polled_has_a_minute(kept: Kept) -> None:
    kept.pass_by(SILENCE_S - 1)
    assert kept.child.restarts == 0
    kept.pass_by(2)
    assert kept.child.restarts == 1


def test_one_that_waits_for_an_answer_may_be_silent(kept: Kept) -> None:
    kept.signs.busy = True
    kept.pass_by(10 * SILENCE_S)
    assert kept.child.restarts == 0

    kept.signs.busy, kept.signs.last_active = False, kept.now
    kept.pass_by(SILENCE_S - 1)
    assert kept.child.restarts == 0
    kept.pass_by(2)
    assert kept.child.restarts == 1


def test_one_that_died_is_started_again_after_the_back_off(kept: Kept) -> None:
    assert kept.child.process is not None
    kept.child.process.kill()
    wait_until(lambda: not kept.child.running, what="it is dead")
    kept.supervision.ensure_running()
    assert not kept.child.running

    kept.pass_by(1.1)

    assert kept.child.running
    assert kept.child.restarts == 1


def test_the_status_gives_moments_of_the_wall_clock(kept: Kept) -> None:
    assert kept.supervision.status() == {"supernode_running": True, "supernode_restarts": 0, "last_poll": None}
    kept.signs.last_poll = kept.now - 12
    assert kept.supervision.status()["last_poll"] == 5_000_000 - 12
