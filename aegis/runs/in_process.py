"""Opens a federation's sites in this process, with simulated attackers on request.

A separate module, since this import loads the frameworks, and a command that waits for other processes can do without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aegis.attacks.hostile import SimulatedAttacker
from aegis.federation import FederationFolder
from aegis.runtimes import ClientApp, InProcessSites, Site, client_app, open_sites, seeded_keys


@contextmanager
def sites_in_this_process(
    federation: FederationFolder, *, unsafe_seed: int | None, attackers: int
) -> Iterator[InProcessSites]:
    """Keep the sites open while the body runs; see :func:`aegis.runs.connect.connect_sites`."""
    config = federation.config()
    with open_sites(
        federation.site_folders(),
        config.public_keys,
        job_keys=lambda site: seeded_keys(unsafe_seed, site),
        adapt=_adapt(attackers, sorted(config.public_keys)),
    ) as opened:
        yield opened


def _adapt(attackers: int, names: list[str]) -> Callable[[Site], ClientApp]:
    hostile = frozenset(names[:attackers])

    def adapt(site: Site) -> ClientApp:
        if site.config.site_id in hostile:
            return client_app(SimulatedAttacker(site.session))
        return client_app(site.session)

    return adapt
