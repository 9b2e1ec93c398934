"""``aegis federation admit|pin|revoke``: participants and their machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coreason_enclave.command_line import content_of

if TYPE_CHECKING:
    from aegis.services import Pinned

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

_platform = click.option(
    "--platform",
    "platforms",
    metavar="ID",
    multiple=True,
    help="A machine of the site: the id of its processor or of a GPU, as aegis evidence verify prints it. Repeatable.",
)


@click.command(epilog="Example: aegis federation admit federations/six-sites clinic.json --out clinic.grant.json")
@click.argument("folder", metavar="FEDERATION", type=_FOLDER)
@click.argument("request", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write  [SITE.grant.json].")
@_platform
@click.option(
    "--accept-unattested", is_flag=True, help="Profile unattested: accept this site, by name, without evidence."
)
def admit(folder: Path, request: Path, out: Path | None, platforms: tuple[str, ...], accept_unattested: bool) -> None:
    """Admit the site that signed REQUEST, and write the grant to send back to it. Again: renews its certificate.

    Compare the fingerprint with the site's people by telephone first: a signature shows that somebody holds the key,
    not who.
    """
    from aegis.federation import FederationFolder
    from aegis.services import admit as admit_site
    from coreason_enclave.wire import fingerprint

    place = FederationFolder(folder)
    with content_of(request, made_by="coreason-enclave request"):
        applicant, grant = admit_site(
            place, request.read_bytes(), platforms=platforms, accept_unattested=accept_unattested
        )
    path = Path(f"{applicant.site_id}.grant.json") if out is None else out
    path.write_bytes(grant)
    key = place.signer().public_hex
    click.echo(f"admitted {applicant.site_id}; its key's fingerprint is {fingerprint(applicant.public_key)}")
    if applicant.site_id in place.config().unattested_sites:
        click.echo("the site is NOT ATTESTED: federation.toml accepts it so, in unattested_sites")
    if (policy := place.config().attestation) is not None:
        click.echo(_machines(folder, applicant.site_id, policy.platforms.get(applicant.site_id, ())))
    click.echo(f"wrote {path}: send it to the site; the file is not secret")
    click.echo(f"at the site: coreason-enclave join SITE {path.name} --coordinator-key {key}")


def _machines(folder: Path, site: str, platforms: tuple[str, ...]) -> str:
    if platforms:
        return f"the site is pinned to {', '.join(platforms)}"
    return f"NOT pinned to a machine, evidence is refused: run aegis federation pin {folder} {site} --platform ID"


@click.command(epilog="Example: aegis federation pin federations/six-sites clinic-1 --platform 3f0c… --platform 81aa…")
@click.argument("folder", metavar="FEDERATION", type=_FOLDER)
@click.argument("site")
@_platform
@click.option("--replace", is_flag=True, help="Replace the machines that are listed now.")
@click.option("--unsafe-shared", is_flag=True, help="Accept machines that another participant is pinned to as well.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def pin(folder: Path, site: str, platforms: tuple[str, ...], replace: bool, unsafe_shared: bool, as_json: bool) -> None:
    """Say which machines SITE's evidence may come from: all of them, its processor's and each GPU's.

    The same image on somebody else's genuine hardware is then not mistaken for this site. A run that is going on keeps
    the policy that it began with: end it, and give its command again.
    """
    from aegis.federation import FederationFolder
    from aegis.services import pin as pin_site

    pinned = pin_site(FederationFolder(folder), site, platforms, replace=replace, unsafe_shared=unsafe_shared)
    click.echo(json.dumps(_document(pinned), indent=2) if as_json else _page(pinned))


def _document(pinned: Pinned) -> dict[str, object]:
    return {
        "site": pinned.site,
        "platforms": list(pinned.platforms),
        "before": list(pinned.before),
        "changed": pinned.changed,
        "shared": {machine: list(sites) for machine, sites in pinned.shared.items()},
    }


def _page(pinned: Pinned) -> str:
    head = f"{pinned.site} is pinned to {', '.join(pinned.platforms)}"
    was = f"before: {', '.join(pinned.before) or 'nothing'}" if pinned.changed else "these machines were already listed"
    also = [f"also listed for {', '.join(sites)}: {machine}" for machine, sites in pinned.shared.items()]
    return "\n".join([head, was, *also])


@click.command(epilog="Example: aegis federation revoke federations/six-sites clinic-3")
@click.argument("folder", metavar="FEDERATION", type=_FOLDER)
@click.argument("site")
def revoke(folder: Path, site: str) -> None:
    """Accept nothing from SITE any more, from this moment on. Its earlier signatures remain checkable."""
    from aegis.federation import FederationFolder
    from aegis.services import revoke as revoke_site

    revoke_site(FederationFolder(folder), site)
    click.echo(f"{site} is revoked: the gateway refuses the site's next request")
