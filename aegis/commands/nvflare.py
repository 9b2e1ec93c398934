"""``aegis nvflare``: makes startup kits and jobs for a federation's NVIDIA FLARE deployment."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aegis.errors import RunFolderError

if TYPE_CHECKING:
    from aegis.runtimes.nvflare import Kits

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_NEW = click.Path(exists=False, path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group(epilog="Example: aegis nvflare export-job study.yaml --federation six-sites --out flare-study")
def nvflare() -> None:
    """Startup kits and jobs for an NVIDIA FLARE deployment of a federation.

    A run on one is `aegis run --runtime nvflare --startup-kit KIT`.
    """


@nvflare.command(
    epilog="Example: aegis nvflare provision six-sites --server fl.example.org --admin you@example.org --out kits"
)
@click.argument("folder", metavar="FEDERATION", type=_FOLDER)
@click.option("--server", required=True, metavar="HOST", help="The host name by which sites reach this host.")
@click.option("--port", type=click.IntRange(1, 65535), default=8002, show_default=True, help="Port of FLARE's server.")
@click.option("--admin", required=True, metavar="EMAIL", help="E-mail address of the administrator who submits jobs.")
@click.option("--out", required=True, type=_NEW, help="New folder for the kits and FLARE's certificate authority.")
@click.option("--runs", type=click.Path(file_okay=False, path_type=Path), default=Path("runs"), show_default=True,
              help="The folder in which this host keeps run folders.")  # fmt: skip
@_json
def provision(folder: Path, server: str, port: int, admin: str, out: Path, runs: Path, as_json: bool) -> None:
    """Have NVIDIA FLARE make a startup kit for this host's server, for each site, and for an administrator.

    Each kit gets FLARE's own guards: no code from the network, no shell, a list of the classes that a job may name.
    Kits hold private keys: send each to its owner alone, by a channel that no one else reads.
    """
    from aegis.federation import FederationFolder
    from aegis.runs import require_flare

    require_flare()
    from aegis.runtimes.nvflare import (
        Project,
        ServerSettings,
        provision,
        remember_admin_kit,
        set_storage_root,
        write_settings,
    )

    config = FederationFolder(folder).config()
    if not (sites := sorted(config.public_keys.keys() - set(config.revoked))):
        raise RunFolderError(f"{folder}: the federation has no participants yet: admit a site first")
    kits = provision(Project("aegis", server, port, admin, sites), out)
    remember_admin_kit(folder, kits.admin)
    set_storage_root(kits.server / "local", kits.server.absolute() / "storage")
    settings = ServerSettings(version=1, federation=str(folder.absolute()), runs=str(runs.absolute()))
    write_settings(kits.server / "local", settings)
    click.echo(json.dumps(_paths(kits), sort_keys=True) if as_json else _page(kits))


def _paths(kits: Kits) -> Mapping[str, Any]:
    return {
        "server": str(kits.server),
        "admin": str(kits.admin),
        "sites": {site: str(kit) for site, kit in kits.sites.items()},
    }


def _page(kits: Kits) -> str:
    return "\n".join(
        [
            f"for this host   {kits.server}",
            *(f"for {site}   {kit}" for site, kit in kits.sites.items()),
            f"for the administrator   {kits.admin}",
            "each kit holds a private key: send it only to its owner",
            "on this host: run startup/start.sh of this host's kit",
            "at a site: coreason-enclave agent --socket-only; then write local/coreason.json; then startup/start.sh",
        ]
    )


@nvflare.command(epilog="Example: aegis nvflare export-job study.yaml --federation six-sites --out flare-study")
@click.argument("job_file", metavar="JOB.yaml", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--federation", required=True, type=_FOLDER, help="Federation folder, which names the participants.")
@click.option("--out", required=True, type=_NEW, help="The job folder to create.")
@click.option("--run", metavar="NAME", help="The run folder on the coordinator's host.  [default: the job's id]")
@click.option("--readmit", metavar="SITE", multiple=True, help="Forget this site's strikes when the job begins.")
@_json
def export_job(
    job_file: Path, federation: Path, out: Path, run: str | None, readmit: tuple[str, ...], as_json: bool
) -> None:
    """Write a job as a folder that `nvflare job submit` takes.

    It is configuration alone: no code, no key and no path. The server's own settings say where the federation is.
    """
    from aegis.federation import FederationFolder, load_job, resolve
    from aegis.runs import run_name
    from aegis.runtimes.nvflare import FlareJob, remembered_admin_kit, write_job_folder

    config = FederationFolder(federation).config()
    job = resolve(load_job(job_file), delta=config.delta)
    sites = sorted(config.public_keys.keys() - set(config.revoked))
    name = run_name(job.job_id if run is None else run)
    write_job_folder(out, FlareJob(job, run=name, sites=sites, readmit=readmit, min_clients=job.min_clients))
    kit = remembered_admin_kit(federation)
    result = {"job": str(out), "run": name, "sites": sites, "startup_kit": None if kit is None else str(kit)}
    click.echo(json.dumps(result, sort_keys=True) if as_json else _next(result))


def _next(result: Mapping[str, Any]) -> str:
    """Return the next command: ready to run if this host made the kits, else with the missing kit named."""
    written = f"wrote {result['job']}, for {len(result['sites'])} sites"
    submit = f"next: nvflare job submit -j {shlex.quote(result['job'])} --startup-kit"
    if result["startup_kit"] is None:
        return f"{written}\n{submit} KIT, the administrator's that `aegis nvflare provision` makes"
    return f"{written}\n{submit} {shlex.quote(result['startup_kit'])}"
