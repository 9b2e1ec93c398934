"""A site agent under a simulated attacker's control: ``python -m aegis.attacks.hostile.simulated_agent``.

Only for demonstrations and tests on this host. The agent accepts sites of profile ``development`` only and prints
SIMULATED. No command line offers it.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import click

from aegis.attacks.hostile.byzantine import SimulatedAttacker
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.policy import load_site_config
from coreason_enclave.schemas import Profile


@click.command()
@click.option("--config", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--factor", type=float, default=-10.0, show_default=True, help="Factor that scales the honest update.")
@click.option("--unsafe-seed", type=click.IntRange(min=0), help="As for the honest agent.")
def main(config: Path, factor: float, unsafe_seed: int | None) -> None:
    """Run a SIMULATED hostile site: enrolled, signed, within its budget, and lying about its update."""
    site = load_site_config(config)
    if site.profile is not Profile.DEVELOPMENT:
        raise ConfigurationError("a simulated attacker can take over only sites with profile development")
    click.echo(f"SIMULATED attacker at {site.site_id}: sends {factor:g} times its update", err=True)
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    from coreason_enclave.agent import run_agent  # loads the frameworks
    from coreason_enclave.crypto import unsafe_seeded_keys

    keys = None if unsafe_seed is None else unsafe_seeded_keys(unsafe_seed, site.site_id)
    run_agent(
        config.parent,
        adapt=lambda opened: SimulatedAttacker(opened.session, factor),
        job_keys=keys,
        stop=stop,
    )


if __name__ == "__main__":
    main()
