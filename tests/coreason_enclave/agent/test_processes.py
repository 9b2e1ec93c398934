"""A child never outlives its parent, and what it started goes with it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coreason_enclave.errors import ConfigurationError
from coreason_enclave.system.processes import Backoff, SupervisedProcess, spawn, terminate
from tests.support.gatekeeping import wait_until

ROOT = Path(__file__).resolve().parents[3]
PAUSE = "import signal; signal.pause()"
GRANDPARENT = f"""
import sys
from pathlib import Path
from coreason_enclave.system.processes import spawn
child = spawn([sys.executable, "-c", {PAUSE!r}], log=Path(sys.argv[1]) / "child.log")
print(child.pid, flush=True)
{PAUSE}
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_parent_that_is_killed_takes_its_child_with_it(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-c", GRANDPARENT, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.send_signal(number)

    wait_until(lambda: not alive(child), what="the child is gone")


def test_ending_a_child_ends_what_it_started(tmp_path: Path) -> None:
    command = "sleep 300 & echo $!; wait"
    child = spawn(["/bin/sh", "-c", command], log=tmp_path / "child.log")
    grandchild = int(wait_until(lambda: (tmp_path / "child.log").read_text().strip(), what="it says whom it started"))
    assert alive(grandchild)

    terminate(child)

    assert child.poll() is not None
    wait_until(lambda: not alive(grandchild), what="the grandchild is gone")


def test_a_child_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    code = f"import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); {PAUSE}"
    child = spawn([sys.executable, "-c", code], log=tmp_path / "child.log")
    wait_until(lambda: "deaf" in (tmp_path / "child.log").read_text(), what="it is deaf")

    terminate(child, grace_s=0.1)

    assert child.returncode == -signal.SIGKILL


def test_a_childs_output_is_for_the_owner_alone_and_is_appended(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    for word in ("first", "second"):
        spawn(["/bin/echo", word], log=log).wait()

    assert log.read_text() == "first\nsecond\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_program_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot start /no/such/program"):
        spawn(["/no/such/program"], log=tmp_path / "child.log")


def test_a_child_leads_a_group_of_its_own(tmp_path: Path) -> None:
    child = spawn([sys.executable, "-c", PAUSE], log=tmp_path / "child.log")
    try:
        assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
    finally:
        terminate(child)


# --- starting again -------------------------------------------------------------------------------------------


class Dying:
    """A child on a clock that a test moves: it dies when it is told to, and notes when it was started."""

    def __init__(self) -> None:
        self.now, self.started, self.living = 0.0, list[float](), False
        backoff = Backoff(first_s=1.0, max_s=16.0, chance=lambda: 1.0)
        self.child = SupervisedProcess("worker", self._start, backoff, clock=lambda: self.now)

    def _start(self) -> subprocess.Popen[bytes]:
        self.started.append(self.now)
        self.living = True
        return self  # type: ignore[return-value]

    def poll(self) -> int | None:
        return None if self.living else -9

    def pass_time(self, seconds: float) -> None:
        """Tend the child ten times a second."""
        for _ in range(round(10 * seconds)):
            self.now += 0.1
            self.child.ensure_running()

    def die_at_once(self, times: int) -> list[float]:
        """Die as soon as it was started, and return how long it took each time until it was started again."""
        self.child.ensure_running()
        before = len(self.started)
        while len(self.started) < before + times:
            self.living = False
            self.pass_time(0.1)
        starts = self.started[before - 1 :]
        return [later - earlier for earlier, later in itertools.pairwise(starts)]


def test_a_child_that_dies_again_and_again_is_started_after_longer_and_longer_pauses() -> None:
    assert Dying().die_at_once(6) == pytest.approx([1, 2, 4, 8, 16, 16], abs=0.2)


def test_a_minute_of_life_lets_a_child_be_started_at_once_again() -> None:
    dying = Dying()
    dying.die_at_once(4)
    dying.pass_time(61)

    assert dying.die_at_once(2) == pytest.approx([61.1, 1], abs=0.3)


def test_half_a_minute_of_life_does_not_shorten_the_pauses() -> None:
    dying = Dying()
    dying.die_at_once(4)
    dying.pass_time(30)
    dying.living = False
    dying.pass_time(0.1)

    assert dying.die_at_once(1) == pytest.approx([16], abs=0.3)
