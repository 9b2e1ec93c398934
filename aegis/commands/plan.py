"""``aegis plan``: says before a job runs what it costs, and who would refuse it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coreason_enclave.command_line import ExitCode

if TYPE_CHECKING:
    from aegis.studies import Forecast


@click.command(
    epilog="\b\nExample: aegis plan study --set privacy.target_epsilon=1\n"
    "Example: aegis plan job.yaml --federation federations/clinics"
)
@click.argument("target", metavar="STUDY|JOB.yaml", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--federation", type=click.Path(exists=True, file_okay=False, path_type=Path), help="The federation of JOB.yaml."
)
@click.option("--set", "changes", metavar="ENTRY=VALUE", multiple=True, help="Change an entry of a study's job.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def plan(ctx: click.Context, target: Path, federation: Path | None, changes: tuple[str, ...], as_json: bool) -> None:
    """Say what a job would cost and whether it would run; nothing is spent and no row is read.

    Exit code 0: the job would run. 3: it would be refused.
    """
    from aegis.federation import FederationFolder, load_job
    from aegis.studies import Study, forecast

    if target.is_dir():
        if federation is not None:
            raise click.UsageError("--federation belongs to a JOB.yaml: a study has its own federation")
        study = Study(target)
        job, participants = study.job(changes), study.federation()
        number = (study.numbers() or [0])[-1] + 1
        job = job.model_copy(update={"job_id": f"{job.job_id}-{number}"})
    else:
        if federation is None:
            raise click.UsageError(f"{target} is a file: name its federation with --federation, or name a study")
        if changes:
            raise click.UsageError("--set belongs to a study: edit the file")
        job, participants = load_job(target), FederationFolder(federation)
    found = forecast(job, participants)
    if as_json:
        click.echo(json.dumps(found.document(), sort_keys=True))
    else:
        for line in _lines(found):
            click.echo(line)
    ctx.exit(ExitCode.REFUSED if found.refusals else ExitCode.OK)


def _lines(found: Forecast) -> Iterator[str]:
    job, spent = found.job, found.privacy
    yield f"{job.job_id}: {job.rounds} rounds of {job.local_steps} steps, {job.model_arch}, {job.aggregator}"
    if spent is None:
        yield "privacy: NON-PRIVATE, no epsilon holds"
    else:
        yield (
            f"privacy: epsilon {spent.epsilon:.3f} (PLD), {spent.rdp_epsilon:.3f} (RDP) of {spent.cap:g} at delta "
            f"{spent.delta:g}; noise multiplier {spent.noise_multiplier:.4g}, sample rate {spent.sample_rate:g}"
        )
        if not spent.fits:
            yield f"  the cap affords {spent.affordable_steps} of {spent.steps} steps; any one of these changes fits:"
            yield from (f"    {change.entry} = {change.value:g}   ({change.words})" for change in spent.changes)
    if found.noise is not None:
        yield f"noise: {found.noise.words()}"
    if found.time is None:
        yield f"time: not estimated: {found.time_missing}"
    else:
        totals = ", ".join(f"{name} {_span(seconds)}" for name, seconds in found.time.total_s.items())
        yield f"time, an ESTIMATE: {totals} (measured: {1000 * found.time.step_s:.1f} ms a step on this machine)"
    for site in found.sites:
        yield f"site {site.site}: {site.answer}{f': {site.reason}' if site.reason else ''}"
    updates = found.aggregators[0].updates
    fits = [f"{each.rule} {each.num_byzantine}" for each in found.aggregators if each.num_byzantine is not None]
    yield f"aggregators, with the most hostile sites that each withstands among {updates} updates: {', '.join(fits)}"
    if found.refusals:
        yield f"it would be REFUSED: {'; '.join(found.refusals)}"
    else:
        yield "it would run"


def _span(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
