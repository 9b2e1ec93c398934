"""The choice of runtime: the same coordinator over sites in this process, or over a federation's processes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from aegis.coordination.liveness import Liveness
from aegis.federated_coordinator import GridTransport, Participant
from aegis.federation.registry import FederationFolder
from aegis.rounds.transport import Transport
from coreason_enclave.ledger import PrivacyLedger
from coreason_enclave.policy import SiteConfig

__all__ = ["ConnectedSites", "LocalLedger", "RuntimeName", "connect_sites"]


class RuntimeName(StrEnum):
    """What carries the messages between coordinator and sites."""

    IN_PROCESS = "in-process"
    """sites and coordinator in one process: fast, and nothing to survive"""
    FLOWER = "flower"
    """SuperLink, gateway and site agents: processes, on this host or others"""
    NVFLARE = "nvflare"
    """NVIDIA FLARE: its simulator, or a deployment of its server and clients"""


class LocalLedger(Protocol):
    """A site on this host, as far as its coordinator may look: its configuration, and its ledger to read."""

    @property
    def config(self) -> SiteConfig:
        """``site.toml``."""
        ...

    @property
    def ledger(self) -> PrivacyLedger:
        """To read from."""
        ...


@dataclass(frozen=True)
class ConnectedSites:
    """Sites that can be reached for one run, whatever carries the messages.

    Attributes:
        sites: those on this host, by id. carrier: reaches all of them.
        participants: how the coordinator knows them. liveness: signs of life.
    """

    sites: Mapping[str, LocalLedger]
    transport: Transport
    participants: tuple[Participant, ...]
    liveness: Liveness


@contextmanager
def connect_sites(
    runtime: RuntimeName, federation: FederationFolder, *, note: Path, unsafe_seed: int | None, attackers: int
) -> Iterator[ConnectedSites]:
    """Have a federation's sites reachable for the body, in process or over Flower.

    Over NVIDIA FLARE the coordinator runs in a process of FLARE's: see :mod:`aegis.runs.nvflare_server`.

    Args:
        note: a file of this run, for the runtime's own use.
        unsafe_seed: what local sites derive all noise from; None: their own secret keys.
        attackers: how many sites (the first by name) a simulated attacker takes over.

    Raises:
        AegisError: the runtime cannot be started.
    """
    if runtime is RuntimeName.FLOWER:
        from aegis.runtimes.flower.crowding import naming_a_full_gateway
        from aegis.runtimes.flower.federation_process import federation_running
        from aegis.runtimes.flower.sites import connected_sites

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


class _OnAGrid(Protocol):
    """What a runtime over Flower's interfaces opens; ``grid`` is a Flower ``Grid``."""

    @property
    def sites(self) -> Mapping[str, LocalLedger]: ...

    @property
    def grid(self) -> Any: ...

    @property
    def participants(self) -> tuple[Participant, ...]: ...

    @property
    def liveness(self) -> Liveness: ...


def _over(opened: _OnAGrid) -> ConnectedSites:
    return ConnectedSites(opened.sites, GridTransport(opened.grid, time.sleep), opened.participants, opened.liveness)
