"""Real processes, real TLS: what the product is deployed as, losing one process after the other."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.aegis.runtimes.flower.deployments import Coordinator, Deployment, children_of, listening_addresses, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes that die with their parent need Linux")

MakeDeployment = Callable[..., Deployment]
LOOPBACK = ("0100007F:", "00000000000000000000000001000000:", "0000000000000000FFFF00000100007F:")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_site_is_lost_in_the_middle_of_a_round_and_the_others_finish(deployment: MakeDeployment) -> None:
    federation = deployment(min_clients=2, rounds=3, round_deadline_s=10.0)
    with (
        federation.agents() as agents,
        federation.served(local_sites=False),
        federation.coordinating() as coordinator,
    ):
        wait_for(lambda: federation.open_round() == 2, "the second round is open")
        kill(agents["clinic-3"].pid)
        coordinator.finishes()

    first, *_, last = federation.run_folder.state().history
    assert first.admitted == ("clinic-1", "clinic-2", "clinic-3")
    assert last.admitted == ("clinic-1", "clinic-2")
    assert last.refused["clinic-3"] in {"no_reply", "quarantined"}
    assert last.round_number == 3


def kill_agent(federation: Deployment, coordinator: Coordinator) -> None:
    kill(federation.child("agent-clinic-2"))


def kill_supernode(federation: Deployment, coordinator: Coordinator) -> None:
    kill(federation.supernode("clinic-2"))


def kill_superlink(federation: Deployment, coordinator: Coordinator) -> None:
    kill(federation.child("superlink"))


def kill_gateway(federation: Deployment, coordinator: Coordinator) -> None:
    kill(federation.child("gateway"))


def kill_coordinator(federation: Deployment, coordinator: Coordinator) -> None:
    coordinator.kill()


KILLS = [
    pytest.param(kill_coordinator, id="the coordinator"),
    pytest.param(kill_agent, id="a site agent", marks=pytest.mark.slow),
    pytest.param(kill_supernode, id="a SuperNode", marks=pytest.mark.slow),
    pytest.param(kill_superlink, id="SuperLink", marks=pytest.mark.slow),
    pytest.param(kill_gateway, id="the gateway", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("kill_it", KILLS)
def test_killed_in_a_round_it_ends_in_the_model_of_an_undisturbed_run(
    deployment: MakeDeployment, tmp_path: Path, kill_it: Callable[[Deployment, Coordinator], None]
) -> None:
    federation = deployment(sites=2, min_clients=2)
    expected = federation.in_one_process(tmp_path / "in-process")
    with federation.served() as supervisor:
        with federation.coordinating() as coordinator:
            wait_for(lambda: federation.open_round() == 2, "the second round is open")
            addresses = listening_addresses(children_of(supervisor.pid))
            kill_it(federation, coordinator)
            if coordinator.process.poll() is None:
                coordinator.finishes()
        if not federation.run_folder.is_finished:
            with federation.coordinating() as again:
                again.finishes()

    assert federation.model() == expected
    assert federation.reserved_rounds() == {site: [1, 2, 3] for site in federation.sites}
    assert all(len(record.admitted) == 2 for record in federation.run_folder.state().history)
    assert len(addresses) >= 3 + 2 * 2  # SuperLink and its health, the gateway; a tunnel and a SuperNode at each site
    assert [address for address in addresses if not address.startswith(LOOPBACK)] == []


@pytest.mark.slow
def test_the_whole_coordinator_side_killed_at_once_goes_on_where_it_was(
    deployment: MakeDeployment, tmp_path: Path
) -> None:
    federation = deployment(sites=2, min_clients=2)
    expected = federation.in_one_process(tmp_path / "in-process")
    with federation.served() as supervisor, federation.coordinating() as coordinator:
        wait_for(lambda: federation.open_round() == 2, "the second round is open")
        coordinator.kill()
        kill(supervisor.pid)
        wait_for(lambda: not federation.processes(), "the kernel ended all that the supervisor had started")
    with federation.served(), federation.coordinating() as again:
        again.finishes()

    assert federation.model() == expected
    assert federation.reserved_rounds() == {site: [1, 2, 3] for site in federation.sites}
