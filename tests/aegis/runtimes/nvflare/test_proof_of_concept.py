"""FLARE's real server and clients on this host, and a site's agent beside each client."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

from aegis.runtimes.nvflare.options import FlareHosting
from aegis.verification import verify_run
from coreason_enclave.system.processes import spawn, terminate
from tests.aegis.runtimes.nvflare.hosted import SEED, Hosted, kill, wait_for

pytestmark = pytest.mark.slow
Found = Callable[..., Hosted]


def test_real_processes_give_the_model_of_one_process_to_the_last_bit(
    hosted: Found, capfd: pytest.CaptureFixture[str]
) -> None:
    federation = hosted()
    expected = federation.in_one_process()

    assert federation.run(FlareHosting.POC) == expected
    assert verify_run(federation.folder.path).failed == ()
    assert capfd.readouterr() == ("", "")


def test_a_federation_trains_loses_a_site_and_its_command_and_goes_on_with_the_site_back(hosted: Found) -> None:
    federation = hosted(sites=3, min_clients=2, rounds=8, round_deadline_s=15.0)
    with federation.running(FlareHosting.POC) as command:
        federation.await_round(2)
        kill(federation.process("client_train", "uid=clinic-1"))
        kill(federation.process("client.worker_process", "-c clinic-1"))
        wait_for(lambda: lost(federation, "clinic-1"), "a round without clinic-1")
        kill(command.pid)
    federation.await_silence()
    done = federation.completed()
    assert 2 < done < 8

    federation.run(FlareHosting.POC)

    reports = [report.record for report in federation.reports]
    assert [record.round_number for record in reports] == list(range(done + 1, 9))
    assert reports[-1].admitted == ("clinic-1", "clinic-2", "clinic-3")
    assert verify_run(federation.folder.path).failed == ()
    for rounds in federation.deployment.reserved_rounds().values():
        assert rounds == sorted(set(rounds))


def lost(federation: Hosted, site: str) -> bool:
    history = json.loads((federation.folder.path / "state" / "state.json").read_bytes())["history"]
    return any(site not in record["admitted"] for record in history)


def test_an_agent_that_was_killed_and_started_again_misses_no_round(hosted: Found) -> None:
    """FLARE's client finds nobody behind it for a while; its site is asked again, and nothing is spent twice."""
    federation = hosted(sites=3, min_clients=3, rounds=6, round_deadline_s=60.0)
    expected = federation.in_one_process()
    with federation.running(FlareHosting.POC) as command:
        federation.await_round(2)
        kill(federation.process("agent --socket-only", "clinic-2"))
        site = next(path for path in federation.deployment.federation.site_folders() if path.name == "clinic-2")
        again = [sys.executable, "-m", "coreason_enclave.main", "agent", "--socket-only", "--config", str(site)]
        agent = spawn([*again, "--unsafe-seed", str(SEED)], log=federation.deployment.path / "again.log")
        try:
            command.wait(timeout=120)
        finally:
            terminate(agent)

    assert federation.deployment.model() == expected
    for record in federation.folder.state().history:
        assert record.admitted == ("clinic-1", "clinic-2", "clinic-3")
    assert federation.deployment.reserved_rounds() == {site: list(range(1, 7)) for site in federation.deployment.sites}
