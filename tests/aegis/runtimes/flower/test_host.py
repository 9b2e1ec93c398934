"""What a supervisor says of itself, and what is made of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aegis.errors import RunFolderError
from aegis.runtimes.flower import federation_process as running
from aegis.runtimes.flower.federation_process import await_serving, federation_running, serve_command
from aegis.runtimes.flower.local_sites import agent_command, join_local_sites
from aegis.runtimes.flower.supervisor import FederationHost, HostOptions, Supervisor
from coreason_enclave.site.connection import load_connection
from coreason_enclave.system.processes import spawn, terminate
from tests.aegis.runtimes.flower.deployments import Deployment, all_processes, raw_command_line, wait_for

MakeDeployment = Callable[..., Deployment]


@pytest.fixture
def host(deployment: MakeDeployment) -> FederationHost:
    made = deployment(sites=2).host
    made.files.prepare()
    return made


def test_nobody_serves_a_federation_at_first(host: FederationHost) -> None:
    assert not host.running()
    assert host.state() is None


def test_only_one_supervisor_serves_a_federation(host: FederationHost) -> None:
    with host.claimed():
        assert host.running()
        with pytest.raises(RunFolderError, match="already being served"), host.claimed():
            pass
    assert not host.running()


def test_a_state_that_a_killed_supervisor_left_is_not_believed(host: FederationHost) -> None:
    host.state_file.write_text(json.dumps({"pid": 1, "serving": True}))
    assert host.state() is None


def test_other_options_than_those_that_run_are_refused(host: FederationHost) -> None:
    with host.claimed():
        host.state_file.write_text(json.dumps({"options": {"local_sites": True, "unsafe_seed": None, "attackers": 0}}))
        with (
            pytest.raises(RunFolderError, match="another --unsafe-seed"),
            federation_running(host.federation, unsafe_seed=7),
        ):
            pass


def test_a_supervisor_that_ends_at_once_leaves_its_last_words(host: FederationHost) -> None:
    log = host.logs / "supervisor.log"
    supervisor = spawn([sys.executable, "-c", "import sys; sys.exit('error: no more room')"], log=log)
    with pytest.raises(RunFolderError, match="no more room"):
        await_serving(host, lambda: supervisor.poll() is not None)
    terminate(supervisor)


def test_a_supervisor_of_ones_own_is_started_again_when_it_dies_and_ends_with_the_run(
    host: FederationHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [sys.executable, "-c", "import sys, time; print(sys.argv, flush=True); time.sleep(600)", str(host.logs)]
    monkeypatch.setattr(running, "serve_command", lambda path, options: words)
    monkeypatch.setattr(running, "await_serving", lambda host, failed: None)
    pids: list[int] = []

    def alive() -> list[int]:
        named = str(host.logs).encode()
        return [pid for pid in all_processes() if named in raw_command_line(pid) and pid not in pids]

    with federation_running(host.federation):
        for _ in range(2):
            (found,) = wait_for(alive, "it runs", within_s=10)
            pids.append(found)
            os.kill(found, signal.SIGKILL)
        (last,) = wait_for(alive, "it runs again", within_s=10)
    assert raw_command_line(last) == b""


def test_the_supervisor_starts_again_what_died_and_says_so(
    host: FederationHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes of the system's own stand in for Flower's; how those do is the whole federation's test."""
    started: list[subprocess.Popen[bytes]] = []
    supervisor = Supervisor(host, HostOptions(local_sites=False))

    def stand_in(self: Supervisor, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        del self, command
        started.append(spawn(["/bin/sleep", "600"], log=host.logs / f"{name}.log"))
        if len(started) == 2:
            started[0].kill()
        if len(started) == 3:
            supervisor.stop.set()
        return started[-1]

    monkeypatch.setattr(Supervisor, "_spawn", stand_in)
    states: list[dict[str, object]] = []
    write = Supervisor._write_state
    monkeypatch.setattr(Supervisor, "_write_state", lambda self: (write(self), states.append(self._written)))
    supervisor.run()

    assert [process.poll() is None for process in started] == [False, False, False]
    assert states[-1]["processes"]["superlink"]["restarts"] == 1  # type: ignore[index]
    assert states[-1]["serving"] is False
    assert not host.state_file.exists()


def test_local_sites_join_once(host: FederationHost) -> None:
    join_local_sites(host.federation)
    first = host.federation.config()
    join_local_sites(host.federation)

    assert host.federation.config() == first
    assert first.certificates.keys() == {"clinic-1", "clinic-2"}
    for folder in host.federation.site_folders():
        assert load_connection(folder).coordinator_key == host.federation.signer().public_hex


def test_a_local_site_that_cannot_join_says_why(host: FederationHost) -> None:
    config = host.federation.path / "sites" / "clinic-2" / "site.toml"
    config.write_text("version = 99")
    with pytest.raises(RunFolderError, match=r"clinic-2 cannot join: error: .*site\.toml"):
        join_local_sites(host.federation)


def test_command_lines_say_what_is_unsafe(tmp_path: Path) -> None:
    honest = agent_command(tmp_path, unsafe_seed=None, hostile=False)
    hostile = agent_command(tmp_path, unsafe_seed=4, hostile=True)

    assert "--unsafe-seed" not in honest
    assert honest[1:4] == ["-m", "coreason_enclave.main", "agent"]
    assert hostile[1:3] == ["-m", "aegis.attacks.hostile.simulated_agent"]
    assert hostile[-2:] == ["--unsafe-seed", "4"]
    assert serve_command(tmp_path, HostOptions())[-2:] == ["serve", str(tmp_path)]
    assert serve_command(tmp_path, HostOptions(False, 5, 1))[-5:] == [
        "--no-local-sites",
        "--unsafe-seed",
        "5",
        "--attackers",
        "1",
    ]


def test_the_simulated_attacker_takes_development_sites_alone(deployment: MakeDeployment) -> None:
    config = deployment(sites=1).path / "sites" / "clinic-1" / "site.toml"
    text = config.read_text().replace('profile = "development"', 'profile = "production"')
    config.write_text(text.replace("unsafe_unattested_coordinator = false", "unsafe_unattested_coordinator = true"))
    command = agent_command(config.parent, unsafe_seed=None, hostile=True)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode != 0
    assert "development" in done.stderr


def test_a_process_that_cannot_start_is_not_waited_for(host: FederationHost) -> None:
    host.logs.mkdir(parents=True)
    (host.logs / "superlink.log").write_text("starting\nERROR: address already in use\n\n")
    with host.claimed():
        host.state_file.write_text(json.dumps({"processes": {"superlink": {"pid": 3, "restarts": 4}}}))
        with pytest.raises(RunFolderError, match=r"superlink does not start: .*already in use.*gateway\.toml"):
            await_serving(host)


def test_waiting_gives_up(host: FederationHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aegis.runtimes.flower.federation_process._START_S", 0.2)
    with pytest.raises(RunFolderError, match="did not start"):
        await_serving(host)
    wait_for(lambda: not host.running(), "nothing was started", within_s=1)
