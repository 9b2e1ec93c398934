"""How long a command waits for a coordinator in another process, and what it says meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aegis.runs.folder import RunFolder
from aegis.runs.nvflare_heartbeat import PULSE, PulseWatch, beating
from aegis.runs.nvflare_wait import LOST_S, START_S, Lost, Waiting
from tests.aegis.runtimes.flower.deployments import wait_for


@dataclass
class Waited:
    """A wait in a run folder, with a clock that a test moves."""

    folder: Path
    now: list[float] = field(default_factory=lambda: [1000.0])
    said: list[str] = field(default_factory=list)
    ended: bool = False

    def __post_init__(self) -> None:
        (self.folder / PULSE).parent.mkdir(exist_ok=True)
        self.watch = PulseWatch(RunFolder(self.folder), lambda: self.now[0])
        self.waiting = Waiting(self.watch, lambda: self.ended, self.said.append, lambda: self.now[0])
        self._beats = 0

    def beat(self) -> None:
        self._beats += 1
        (self.folder / PULSE).touch()
        os.utime(self.folder / PULSE, (self._beats, self._beats))

    def after(self, seconds: float) -> Lost | None:
        self.now[0] += seconds
        return self.waiting.look()


@pytest.fixture
def waited(tmp_path: Path) -> Waited:
    return Waited(tmp_path)


def test_a_coordinator_that_gives_signs_is_waited_for_in_silence(waited: Waited) -> None:
    for _ in range(500):
        waited.beat()
        assert waited.after(1.0) is None

    assert waited.said == []


def test_a_coordinator_that_falls_silent_is_told_of_and_then_lost(waited: Waited) -> None:
    waited.beat()
    assert waited.after(1.0) is None

    assert waited.after(LOST_S - 1) is None
    assert waited.said == [f"waiting for a heartbeat of the coordinator: {LOST_S - 1:.0f} of {LOST_S:.0f} s"]
    assert waited.after(2.0) is Lost.SILENT


def test_a_job_that_does_not_start_is_told_of_and_then_given_up(waited: Waited) -> None:
    assert waited.after(31.0) is None
    assert waited.said == [f"waiting for NVIDIA FLARE to start the job: 31 of {START_S:.0f} s"]
    assert waited.after(START_S) is Lost.NOT_STARTED


def test_a_sign_that_an_earlier_coordinator_left_is_none(tmp_path: Path) -> None:
    (tmp_path / PULSE).parent.mkdir()
    (tmp_path / PULSE).write_text("{}")
    waited = Waited(tmp_path)

    assert waited.after(START_S + 1) is Lost.NOT_STARTED
    assert not waited.watch.began


def test_an_end_is_seen_before_anything_else(waited: Waited) -> None:
    waited.ended = True

    assert waited.after(0.0) is Lost.ENDED


def test_a_working_coordinator_gives_signs_until_it_ends(tmp_path: Path) -> None:
    watch = PulseWatch(RunFolder(tmp_path / "run"))
    with beating(RunFolder(tmp_path / "run")):
        (tmp_path / "run").mkdir()
        wait_for(lambda: watch.began, "a sign of life", within_s=10)
        assert json.loads((tmp_path / "run" / PULSE).read_bytes())["pid"] == os.getpid()

    assert not (tmp_path / "run" / PULSE).exists()


CODE = """
import sys, time
from pathlib import Path
from aegis.runs.nvflare_heartbeat import beating
from aegis.runs.folder import RunFolder
with beating(RunFolder(Path(sys.argv[1]))):
    time.sleep(60)
"""


def test_a_coordinator_whose_server_died_is_ended_and_nobody_else(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path)])
    try:
        watch = PulseWatch(RunFolder(tmp_path))
        wait_for(lambda: watch.began, "a sign of life", within_s=30)
        said = json.loads((tmp_path / PULSE).read_bytes())
        (tmp_path / PULSE).write_text(json.dumps({**said, "started": said["started"] + 1}))
        watch.end_coordinator()
        (tmp_path / PULSE).write_text(json.dumps(said))
        watch.end_coordinator(only_orphan=True)
        assert process.poll() is None

        (tmp_path / PULSE).write_text(json.dumps({**said, "parent": 1}))
        watch.end_coordinator(only_orphan=True)

        assert process.wait(timeout=10) == -9
    finally:
        process.kill()
        process.wait()
