"""``aegis run``: one job over one federation folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aegis.federation import FederationFolder
from aegis.jobs import load_job
from aegis.runs.folder import RunFolder
from coreason_enclave.schemas import FederationJob, Mechanism

if TYPE_CHECKING:
    from aegis.runs.execution import RoundReport

__all__ = ["run"]

_METRICS = ("accuracy", "auc", "loss")


@click.command(epilog="\b\nExample: aegis run study.yaml --federation federations/six-sites --out runs/study-1")
@click.argument("job_file", metavar="JOB.yaml", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--federation",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder of the federation: its participants, their keys, the coordinator's own.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="The run folder; an unfinished run of the same job in it is continued.  [default: runs/<job_id>]",
)
@click.option(
    "--runtime",
    type=click.Choice(["flower", "in-process"]),
    default="in-process",
    show_default=True,
    help="flower: over the federation's processes, started for this run unless `aegis federation up` did.",
)
@click.option(
    "--readmit", metavar="SITE", multiple=True, help="Forget this site's offences: it is asked again at once."
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON object; progress goes to stderr.")
def run(
    job_file: Path, federation: Path, out: Path | None, runtime: str, readmit: tuple[str, ...], as_json: bool
) -> None:
    """Run the job in JOB.yaml over a federation, or go on with it.

    Each round is durable once its line appears: interrupted or killed, the same command goes on where it was, and
    nothing is spent twice. Exit code 4: too few sites could be admitted, and the round waits.
    """
    job, participants = load_job(job_file), FederationFolder(federation)
    config = participants.config()
    from aegis.runs.execution import Execution, execute  # the frameworks, only once the input can be used
    from aegis.runs.runtimes import RuntimeName

    folder = RunFolder(Path("runs", job.job_id) if out is None else out)
    rounds = _Rounds(job, as_json)
    label = ", ".join(f"{name} {value}" for name, value in config.profile.label().items())
    rounds.say(f"{job.job_id}: {job.rounds} rounds over {len(config.public_keys)} sites, {label}")
    chosen = RuntimeName(runtime)
    execute(job, Execution(participants, folder, observe=rounds.observe, readmit=readmit, runtime=chosen))
    outcome = folder.read_json("outcome.json")
    if as_json:
        click.echo(json.dumps({"run": str(folder.path), **outcome}, sort_keys=True))
        return
    click.echo(
        f"released model {outcome['model'][:16]}… in {folder.path}; provenance {', '.join(outcome['provenance'])}"
    )
    click.echo(f"next: aegis verify {folder.path}")


class _Rounds:
    """One line for each completed round."""

    def __init__(self, job: FederationJob, to_stderr: bool) -> None:
        self._job, self._to_stderr = job, to_stderr

    def say(self, line: str) -> None:
        """A line of progress."""
        click.echo(line, err=self._to_stderr)

    def observe(self, report: RoundReport) -> None:
        """Called by the run after each round."""
        record = report.record
        metrics = [f"{name} {record.metrics[name]:.3f}" for name in _METRICS if name in record.metrics]
        refused = [f"{site} refused ({reason})" for site, reason in sorted(record.refused.items())]
        parts = [f"{len(record.admitted)} admitted", *refused, *metrics, self._spent(record.epsilon)]
        self.say(f"round {record.round_number}/{self._job.rounds}: {', '.join(parts)}")

    def _spent(self, epsilon: Mapping[str, Any]) -> str:
        privacy = self._job.privacy
        if privacy.mechanism is Mechanism.NON_PRIVATE:
            return "NON-PRIVATE: no epsilon holds"
        highest = max((value for value in epsilon.values() if value is not None), default=0.0)
        return f"epsilon at most {highest:.3f} of {privacy.target_epsilon:g} at each site"
