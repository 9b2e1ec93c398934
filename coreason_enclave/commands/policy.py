"""``coreason-enclave policy``: shows and changes the rules of ``site.toml``, each change with a reason and logged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coreason_enclave.command_line import printable, site_folder

if TYPE_CHECKING:
    from coreason_enclave.policy import SiteConfig

_config = click.option(
    "--config",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    callback=site_folder,
    help="A site.toml or its folder.",
)
_reason = click.option("--reason", required=True, metavar="TEXT", help="Why; goes into the site's log.")
_LOGGED = "logged with its reason; an agent started from now on follows it"


@click.group(epilog="Example: coreason-enclave policy show --config /srv/clinic/site.toml")
def policy() -> None:
    """Show or change what this site accepts. Stop the agent first: it reads site.toml when it starts."""


@policy.command(epilog="Example: coreason-enclave policy show --config /srv/clinic/site.toml")
@_config
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(folder: Path, as_json: bool) -> None:
    """Print the rules in force, as an agent would read them now."""
    from coreason_enclave.policy import load_site_config

    config = load_site_config(folder / "site.toml")
    document = {
        "policy": config.policy.model_dump(mode="json", exclude_none=True),
        "lineages": [entry.model_dump(mode="json") for entry in config.lineages],
    }
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    for line in _lines(config):
        click.echo(printable(line))


@policy.command(
    "add-participant", epilog='Example: … add-participant clinic-3 --key f381… --reason "compared by phone"'
)
@click.argument("site")
@click.option("--key", required=True, metavar="HEX", help="The site's public key, from a trusted source.")
@_reason
@_config
def add_participant(site: str, key: str, reason: str, folder: Path) -> None:
    """Count SITE in roll-calls from now on."""
    from coreason_enclave.site import add_participant as add
    from coreason_enclave.wire import fingerprint

    add(folder, site, key, reason)
    click.echo(f"{site} counts in a roll-call: {_LOGGED}")
    click.echo(f"fingerprint  {fingerprint(key)}")


@policy.command("allow-model", epilog='Example: … allow-model MLP --reason "reviewed for study liver-2"')
@click.argument("name")
@_reason
@_config
def allow_model(name: str, reason: str, folder: Path) -> None:
    """Accept jobs that train the architecture NAME."""
    from coreason_enclave.models import known_architectures
    from coreason_enclave.site import allow_model as allow

    allow(folder, name, known_architectures(), reason)
    click.echo(f"jobs may train {name}: {_LOGGED}")


@policy.command("raise-cap", epilog='Example: … raise-cap clinic-1/visits --epsilon 8 --reason "board, 3 May"')
@click.argument("lineage")
@click.option("--epsilon", required=True, type=float, help="New cap over all jobs.")
@click.option("--job-epsilon", type=float, help="New cap of a single job [unchanged].")
@_reason
@_config
def raise_cap(lineage: str, epsilon: float, job_epsilon: float | None, reason: str, folder: Path) -> None:
    """Raise the privacy caps of LINEAGE, in site.toml and in the ledger.

    What was promised to the people behind the rows so far no longer holds: the new cap covers all jobs, also those that
    already ran. The ledger shows the raise and its reason for good.
    """
    from coreason_enclave.site import raise_cap as raise_in

    caps = {"epsilon": epsilon, **({} if job_epsilon is None else {"job_epsilon": job_epsilon})}
    raise_in(folder, lineage, caps, reason)
    click.echo(f"{lineage} has a cap of epsilon {epsilon:g}, over earlier jobs too: {_LOGGED}")


def _lines(config: SiteConfig) -> list[str]:
    rules = config.policy.model_dump(mode="json", exclude_none=True)
    participants = rules.pop("participants")
    lines = [f"{config.site_id}, profile {config.profile}"]
    lines += [f"  {name} = {json.dumps(value)}" for name, value in rules.items()]
    lines += [f"  participant {name} = {key}" for name, key in participants.items()]
    lines += [
        f"  lineage {entry.lineage}: dataset {entry.dataset_id}, {'public' if entry.public else 'private'}, per "
        f"{entry.unit}, epsilon {entry.epsilon:g} at delta {entry.delta:g}, a job at most {entry.job_epsilon:g}"
        for entry in config.lineages
    ]
    return lines
