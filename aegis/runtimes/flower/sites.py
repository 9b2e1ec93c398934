"""Gives a job its view of a running federation: a grid to the sites, the participants, and the sites' liveness."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from aegis.coordination import Participant
from aegis.errors import GatewayUnreachable, RunFolderError, TransportUnavailable
from aegis.federation import FederationConfig
from aegis.gateway import GatewayControl
from aegis.runtimes.flower.control import SuperLinkControl
from aegis.runtimes.flower.node_liveness import GatewayLiveness
from aegis.runtimes.flower.run_driver import DrivenGrid, driving
from aegis.runtimes.flower.superlink import SuperLinkEndpoint
from aegis.runtimes.flower.supervisor import FederationHost
from aegis.services import LocalSiteLedger, reading_local_sites

_LOCAL_WAIT_S = 120.0
_REMOTE_WAIT_S = 20.0
_POLL_S = 0.1


@dataclass(frozen=True)
class FlowerSites:
    """The reachable registered sites, with the grid to reach them and their liveness."""

    sites: Mapping[str, LocalSiteLedger]
    grid: DrivenGrid
    participants: tuple[Participant, ...]
    liveness: GatewayLiveness


@contextmanager
def connected_sites(host: FederationHost, note: Path) -> Iterator[FlowerSites]:
    """Wait for the sites to connect, and drive a Flower run to them for the body.

    Args:
        host: a federation whose processes run.
        note: file of this job that names its Flower run; see :func:`driving`.

    Raises:
        RunFolderError: no participant has a node.
        TransportUnavailable: SuperLink does not serve.
    """
    config, federation = host.federation.config(), host.federation
    local = {folder.name for folder in federation.site_folders()} & config.node_keys.keys()
    _await_connections(host.gateway(), config, local)
    with ExitStack() as opened:
        liveness = GatewayLiveness(host.gateway())
        grid = opened.enter_context(driving(host.endpoint(), note, liveness.oversized))
        participants = _participants(host, config)
        sites = opened.enter_context(reading_local_sites(federation, local))
        yield FlowerSites(sites, grid, participants, liveness)


def _participants(host: FederationHost, config: FederationConfig) -> tuple[Participant, ...]:
    nodes = _nodes(host.endpoint())
    known = {site: nodes[key] for site, key in sorted(config.node_keys.items()) if key in nodes}
    if not known:
        raise RunFolderError(f"{host.federation.path}: no participant has a node: admit a site first")
    for site in sorted(config.public_keys.keys() - known.keys()):
        logging.getLogger(__name__).warning("site %s has no node, and takes part in no job until the site joins", site)
    return tuple(Participant(site, config.public_keys[site], node) for site, node in known.items())


def _nodes(endpoint: SuperLinkEndpoint) -> dict[str, int]:
    """Return the registered node ids by node key. Waits for a SuperLink that is restarting."""
    end = time.monotonic() + _REMOTE_WAIT_S
    while True:
        try:
            with SuperLinkControl(endpoint) as control:
                return control.nodes()
        except TransportUnavailable:
            if time.monotonic() > end:
                raise
        time.sleep(_POLL_S)


def _await_connections(gateway: GatewayControl, config: FederationConfig, local: Collection[str]) -> None:
    """Wait until every site is connected, or a time limit passes.

    Local agents, which are starting, get longer than a remote site, which may be down for days.
    """
    expected, start = config.node_keys.keys() - set(config.revoked), time.monotonic()
    while missing := expected - _connected(gateway):
        if time.monotonic() - start > (_LOCAL_WAIT_S if missing & set(local) else _REMOTE_WAIT_S):
            logging.getLogger(__name__).warning("not connected: %s", ", ".join(sorted(missing)))
            return
        time.sleep(_POLL_S)


def _connected(gateway: GatewayControl) -> set[str]:
    try:
        return {site for site, status in gateway.status().items() if status.connected}
    except GatewayUnreachable:
        return set()
