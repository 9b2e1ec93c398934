"""``coreason-enclave checkpoints``: shows and exports the coordinators' log checkpoints that this site received."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coreason_enclave.command_line import site_folder
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.system import create_file

if TYPE_CHECKING:
    from coreason_enclave.wire import WitnessedLog
    from coreason_enclave.witness import CheckpointStore

_CHECKPOINT = re.compile(r"(\d{1,15}):([0-9a-f]{64})")
_site = click.argument("site", type=click.Path(exists=True, path_type=Path), callback=site_folder)


@click.group(epilog="Example: coreason-enclave checkpoints show /srv/clinic")
def checkpoints() -> None:
    """What this site, as a witness, was shown of its coordinators' logs."""


@checkpoints.command(epilog="Example: coreason-enclave checkpoints show /srv/clinic --json")
@_site
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(site: Path, as_json: bool) -> None:
    """The newest checkpoint of every job's log, and what was refused.

    SITE is the site's folder.
    """
    logs = [_described(log) for log in _store(site).logs()]
    click.echo(json.dumps({"logs": logs}, indent=2) if as_json else _page(logs))


@checkpoints.command(epilog="Example: coreason-enclave checkpoints export /srv/clinic --out clinic.witness.json")
@_site
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="New file to write.")
@click.option("--job", "job", metavar="JOB", help="Export only the logs of this job id or digest.  [default: all]")
def export(site: Path, out: Path, job: str | None) -> None:
    """Write what this site holds, signed by the site, for an auditor: `aegis verify RUN --witness FILE`.

    SITE is the site's folder.
    """
    from coreason_enclave.crypto import load_signer
    from coreason_enclave.policy import load_site_config
    from coreason_enclave.witness import witness_statement

    config = load_site_config(site / "site.toml")
    logs = [log for log in _store(site).logs() if job is None or job in (log.job_id, _digest(log))]
    if not logs:
        scope = "of any job" if job is None else f"of job {job}"
        raise ConfigurationError(f"{site} received no log {scope}: nothing to export")
    signer = load_signer(site / config.keys / "signing.key")
    try:
        create_file(out, witness_statement(config.site_id, signer, logs, time.time()))
    except FileExistsError as error:
        raise ConfigurationError(f"{out} exists: choose another name") from error
    click.echo(f"wrote the checkpoints of {len(logs)} logs to {out}, signed by {config.site_id}")


@checkpoints.command(
    epilog="Example: coreason-enclave checkpoints acknowledge /srv/clinic --job 9f2c… --checkpoint 41:07ab… "
    '--by "A. Ito" --why "…"'
)
@_site
@click.option("--job", "job_digest", required=True, metavar="DIGEST", help="The job's digest, stated in the refusal.")
@click.option("--checkpoint", required=True, metavar="SIZE:ROOT", help="The refused checkpoint to continue from.")
@click.option("--by", required=True, metavar="NAME", help="Name of the person who takes responsibility.")
@click.option("--why", required=True, metavar="TEXT", help="Why the coordinator's log lacks lines received here.")
def acknowledge(site: Path, job_digest: str, checkpoint: str, by: str, why: str) -> None:
    """Go on with a coordinator that lost its log, or part of it.

    SITE is the site's folder. The checkpoint that was accepted before stays on record beside the one that is gone on
    from, with name and reason, and every export shows it. A coordinator that rewrote its log looks the same as one
    that lost it: ask which it was before.
    """
    match = _CHECKPOINT.fullmatch(checkpoint)
    if match is None:
        raise click.BadParameter("must be a size, ':' and a root (64 hex digits)", param_hint="--checkpoint")
    from coreason_enclave.wire import LogSeen

    taken, store = LogSeen(size=int(match[1]), root=match[2]), _store(site)
    keys = [log.coordinator_key for log in store.logs() if _digest(log) == job_digest]
    if not keys:
        raise ConfigurationError(f"{site} received no log of a job with digest {job_digest[:64]}")
    for key in keys:
        store.acknowledge(job_digest, key, taken, by=by, why=why, now=time.time())
    click.echo(f"acknowledged by {by}: this site continues from line {taken.size} of the coordinator's log ({why})")


def _store(site: Path) -> CheckpointStore:
    from coreason_enclave.policy import load_site_config
    from coreason_enclave.witness import CheckpointStore

    return CheckpointStore(site / load_site_config(site / "site.toml").checkpoints)


def _digest(log: WitnessedLog) -> str:
    from coreason_enclave.wire import origin_of_run

    return log.origin.removeprefix(origin_of_run(""))


def _described(log: WitnessedLog) -> dict[str, Any]:
    from coreason_enclave.wire import open_checkpoint

    last = open_checkpoint(log.last, log.coordinator_key)
    refused = [(each.at, open_checkpoint(each.shown, log.coordinator_key)) for each in log.refused]
    return {
        "job": log.job_id,
        "job_digest": _digest(log),
        "coordinator_key": log.coordinator_key,
        "size": last.size,
        "root": last.root,
        "refused": [{"at": at, "size": each.size, "root": each.root} for at, each in refused],
        "abandoned": [{"at": each.at, "by": each.by, "why": each.why} for each in log.abandoned],
    }


def _page(logs: list[dict[str, Any]]) -> str:
    return "\n".join(line for log in logs for line in _lines(log)) or "this site has received no log yet"


def _lines(log: dict[str, Any]) -> list[str]:
    return [
        f"{log['job']} (job {log['job_digest'][:16]}…): {log['size']} lines, root {log['root']}",
        *(f"  REFUSED another log: {each['size']} lines, root {each['root']}" for each in log["refused"]),
        *(f"  earlier checkpoint given up by {each['by']} ({each['why']})" for each in log["abandoned"]),
    ]
