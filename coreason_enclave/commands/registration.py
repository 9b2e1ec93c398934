"""``coreason-enclave init | request | join``: turn a written ``site.toml`` into a site that may connect."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coreason_enclave.command_line import content_of, site_folder
from coreason_enclave.schemas import Profile

if TYPE_CHECKING:
    from coreason_enclave.wire import RegistrationGrant

_PATH = click.Path(path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(epilog="Example: coreason-enclave init --config /srv/clinic/site.toml")
@click.option("--config", "folder", required=True, type=_PATH, callback=site_folder, help="A site.toml or its folder.")
def init(folder: Path) -> None:
    """Create a site from the site.toml that you wrote: make its keys, open its ledger, register its lineages.

    Doing it again changes nothing. A lineage's caps are fixed from now on.
    """
    from coreason_enclave.policy import load_site_config
    from coreason_enclave.site import prepare_site
    from coreason_enclave.wire import fingerprint

    config = load_site_config(folder / "site.toml")
    public_key = prepare_site(folder, config)
    click.echo(f"created {config.site_id}: {len(config.lineages)} lineages, {config.profile.in_words()}")
    if not config.lineages:
        click.echo("no dataset is registered, so every job is refused: see coreason-enclave dataset init, register")
    click.echo(f"public key   {public_key}")
    click.echo(f"fingerprint  {fingerprint(public_key)}")


@click.command(epilog="Example: coreason-enclave request /srv/clinic --out request.json")
@click.argument("folder", metavar="SITE", type=_PATH, callback=site_folder)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write [SITE/request.json].")
def request(folder: Path, out: Path | None) -> None:
    """Write a signed request to take part, for the coordinator to admit. It holds public keys alone."""
    from coreason_enclave.site import make_request
    from coreason_enclave.wire import fingerprint, open_request

    envelope = make_request(folder)
    path = folder / "request.json" if out is None else out
    path.write_bytes(envelope)
    public_key = open_request(envelope).public_key
    click.echo(f"wrote {path}: send it to the coordinator; the file is not secret")
    click.echo(f"this site's fingerprint, to read to the coordinator: {fingerprint(public_key)}")


@click.command(epilog="Example: coreason-enclave join /srv/clinic grant.json --coordinator-key 3b6a27bc…")
@click.argument("folder", metavar="SITE", type=_PATH, callback=site_folder)
@click.argument("grant", type=_FILE)
@click.option(
    "--coordinator-key",
    required=True,
    metavar="HEX",
    help="The coordinator's public key, from a trusted source other than the grant.",
)
def join(folder: Path, grant: Path, coordinator_key: str) -> None:
    """Take a coordinator's grant: check it, and keep where and how to connect. Joining again renews."""
    from coreason_enclave.site import accept_grant
    from coreason_enclave.wire import fingerprint

    with content_of(grant, made_by="aegis federation admit"):
        accepted = accept_grant(folder, grant.read_bytes(), coordinator_key, now=time.time())
    click.echo(f"{accepted.site_id} connects to {accepted.gateway} from now on")
    click.echo(f"the coordinator's fingerprint, to compare by telephone: {fingerprint(coordinator_key)}")
    for line in _policy_advice(folder, accepted):
        click.echo(line)


def _policy_advice(folder: Path, grant: RegistrationGrant) -> list[str]:
    """Return advice on settings that only a person may change: coordinator keys, and participants in a roll-call."""
    from coreason_enclave.policy import load_site_config
    from coreason_enclave.wire import fingerprint

    config = load_site_config(folder / "site.toml")
    policy = config.policy
    lines = []
    if grant.coordinator_key not in policy.coordinator_keys:
        lines += [
            "orders of this coordinator are refused until site.toml lists its key:",
            f'  [policy] coordinator_keys = ["{grant.coordinator_key}"]',
        ]
    if config.profile is Profile.UNATTESTED and grant.coordinator_key not in policy.unattested_coordinators:
        lines += [
            "this coordinator is NOT ATTESTED, and refused until site.toml accepts it so, by its key:",
            f'  [policy] unattested_coordinators = ["{grant.coordinator_key}"]',
        ]
    unknown = sorted(
        (site, key)
        for site, key in grant.participants.items()
        if site != grant.site_id and policy.participants.get(site) != key
    )
    if unknown:
        lines.append("participants that site.toml does not count in a roll-call; add those whose keys you checked:")
        lines.append("  [policy.participants]")
        lines += [f'  {site} = "{key}"   # fingerprint {fingerprint(key)}' for site, key in unknown]
    return lines
