"""Connects the coordinator to sites: the same coordinator serves sites in this process and in other processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aegis.coordination import Liveness, Participant
from aegis.federated_coordinator import GridTransport
from aegis.federation import FederationFolder
from aegis.rounds import Transport
from coreason_enclave.ledger import PrivacyLedger
from coreason_enclave.policy import SiteConfig

if TYPE_CHECKING:
    from aegis.runtimes import InProcessSites
    from aegis.runtimes.flower import FlowerSites


class RuntimeName(StrEnum):
    """The runtime between coordinator and sites."""

    IN_PROCESS = "in-process"
    """sites and coordinator in one process: fast, and a crash ends both"""
    FLOWER = "flower"
    """SuperLink, gateway and site agents: processes, on this host or others"""
    NVFLARE = "nvflare"
    """NVIDIA FLARE: its simulator, or a deployment of its server and clients"""


class LocalLedger(Protocol):
    """A site on this host, limited to the coordinator's view: the configuration, and a ledger to read."""

    @property
    def config(self) -> SiteConfig:
        """Contents of ``site.toml``."""
        ...

    @property
    def ledger(self) -> PrivacyLedger:
        """The site's ledger, for reading only."""
        ...


@dataclass(frozen=True)
class ConnectedSites:
    """Sites within reach of one run, over any transport.

    Attributes:
        sites: the sites on this host, by id.
        transport: reaches every site.
        participants: the sites' ids, keys and nodes for the coordinator.
        liveness: last contact and reconnects of the sites.
    """

    sites: Mapping[str, LocalLedger]
    transport: Transport
    participants: tuple[Participant, ...]
    liveness: Liveness


@contextmanager
def connect_sites(
    runtime: RuntimeName, federation: FederationFolder, *, note: Path, unsafe_seed: int | None, attackers: int
) -> Iterator[ConnectedSites]:
    """Keep a federation's sites reachable while the body runs, in process or over Flower.

    Over NVIDIA FLARE the coordinator runs in a FLARE process: see :mod:`aegis.runs.nvflare_server`.

    Args:
        note: a file in this run's folder, for the runtime's own use.
        unsafe_seed: number from which local sites derive all noise. None: each site uses its own secret key.
        attackers: number of sites (the first by name) under a simulated attacker.

    Raises:
        AegisError: the runtime cannot be started.
    """
    if runtime is RuntimeName.FLOWER:
        from aegis.runtimes.flower import connected_sites, federation_running, naming_a_full_gateway

        with (
            federation_running(federation, unsafe_seed=unsafe_seed, attackers=attackers) as host,
            naming_a_full_gateway(host.gateway()),
            connected_sites(host, note) as connected,
        ):
            yield _over(connected)
        return
    from aegis.runs.in_process import sites_in_this_process

    with sites_in_this_process(federation, unsafe_seed=unsafe_seed, attackers=attackers) as opened:
        yield _over(opened)


def _over(opened: InProcessSites | FlowerSites) -> ConnectedSites:
    return ConnectedSites(opened.sites, GridTransport(opened.grid), opened.participants, opened.liveness)
