"""A site in a network namespace of its own, whose cable is pulled in the middle of a round and put back."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from aegis.services.participants import prepare_network
from tests.aegis.runtimes.flower.deployments import Deployment, wait_for

MakeDeployment = Callable[..., Deployment]


@dataclass(frozen=True)
class Cable:
    """A pair of connected interfaces: one here, with ``address``, and one in the namespace ``inside``."""

    inside: str
    address: str
    interface: str

    def pull(self) -> None:
        ip("link", "set", self.interface, "down")

    def plug_in(self) -> None:
        ip("link", "set", self.interface, "up")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


@pytest.fixture
def cable() -> Iterator[Cable]:
    number = os.getpid() % 60000
    made = Cable(f"aegis-{number}", f"10.231.{number // 250}.{4 * (number % 60) + 1}", f"aeg{number}a")
    other, far = f"aeg{number}b", made.address.rpartition(".")[0] + f".{4 * (number % 60) + 2}"
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the ip command")
    with ExitStack() as made_so_far:
        try:
            ip("netns", "add", made.inside)
            made_so_far.callback(ip, "netns", "del", made.inside)
            ip("link", "add", made.interface, "type", "veth", "peer", "name", other, "netns", made.inside)
            made_so_far.callback(subprocess.run, ["ip", "link", "del", made.interface], capture_output=True)
            ip("addr", "add", f"{made.address}/30", "dev", made.interface)
            made.plug_in()
            ip("-n", made.inside, "addr", "add", f"{far}/30", "dev", other)
            ip("-n", made.inside, "link", "set", other, "up")
            ip("-n", made.inside, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        yield made


@pytest.mark.slow
def test_a_link_that_was_cut_in_a_round_costs_time_and_nothing_else(
    deployment: MakeDeployment, cable: Cable, tmp_path: Path
) -> None:
    federation = deployment(round_deadline_s=180.0)
    expected = federation.in_one_process(tmp_path / "in-process")
    gateway = prepare_network(federation.federation, host=cable.address)
    with (
        federation.agents({"clinic-3": ["ip", "netns", "exec", cable.inside]}),
        federation.served(local_sites=False),
        federation.coordinating() as coordinator,
    ):
        wait_for(lambda: federation.open_round() == 2, "the second round is open")
        cable.pull()
        wait_for(lambda: federation.received() == {"clinic-1", "clinic-2"}, "the others have answered")
        cable.plug_in()
        coordinator.finishes(within_s=200.0)

    assert gateway.public_address.startswith(cable.address)
    assert federation.model() == expected
    assert federation.reserved_rounds() == {site: [1, 2, 3] for site in federation.sites}
