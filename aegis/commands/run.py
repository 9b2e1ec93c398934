"""``aegis run``: runs a study, or a job over a federation folder."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aegis.commands.export import RunCommand
from coreason_enclave.errors import Reason
from coreason_enclave.schemas import Aggregator, FederationJob, Mechanism

if TYPE_CHECKING:
    from aegis.federation import FederationFolder
    from aegis.runs import RoundReport
    from aegis.runtimes.nvflare import FlareOptions
    from coreason_enclave.ledger import LineageClaim

_METRICS = ("accuracy", "auc", "concordance", "deviance", "rmse", "r2", "loss")


@click.command(
    cls=RunCommand,
    epilog="\b\nExample: aegis run study --set privacy.target_epsilon=1\n"
    "Example: aegis run study.yaml --federation federations/six-sites --out runs/study-1",
)
@click.argument("what", metavar="STUDY|JOB.yaml", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--federation",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="JOB.yaml: the federation's folder, with its participants, their keys and the coordinator's key.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="JOB.yaml: the run folder. An unfinished run of the same job in it is continued.  [default: runs/<job_id>]",
)
@click.option(
    "--runtime",
    type=click.Choice(["flower", "in-process", "nvflare"]),
    help="Default: flower for a STUDY, in-process for a JOB.yaml. flower: over the federation's processes, which "
    "`aegis federation up` started, or which start for this run. nvflare: over NVIDIA FLARE, hosted as the following "
    "options say.",
)
@click.option("--simulator", is_flag=True, help="nvflare: in FLARE's simulator; the default.")
@click.option("--poc", is_flag=True, help="nvflare: on FLARE's real processes on this host, started for this run.")
@click.option(
    "--startup-kit",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="nvflare: on a FLARE server that already runs on this host; the folder is an administrator's startup kit.",
)
@click.option("--threads", type=click.IntRange(min=1), help="simulator: sites working at once.  [default: all]")
@click.option(
    "--executor", metavar="MODULE:CLASS", help="simulator: CoreasonExecutor subclass, installed or in this folder."
)
@click.option(
    "--set",
    "changes",
    metavar="ENTRY=VALUE",
    multiple=True,
    help="STUDY: run with another value of an entry of the job, such as privacy.target_epsilon=1. Repeatable.",
)
@click.option(
    "--no-baseline",
    is_flag=True,
    help="STUDY: do not run the same job without privacy, which runs where every row is public.",
)
@click.option(
    "--repeats",
    type=click.IntRange(0, 50),
    default=0,
    help="STUDY: repeat the job this often on copies of its SIMULATED sites with new keys, to show the spread.",
)
@click.option("--readmit", metavar="SITE", multiple=True, help="Forget a site's strikes and ask it again at once.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as one JSON object; progress goes to stderr.")
def run(
    what: Path,
    federation: Path | None,
    out: Path | None,
    runtime: str | None,
    changes: tuple[str, ...],
    no_baseline: bool,
    repeats: int,
    readmit: tuple[str, ...],
    as_json: bool,
    **hosting: Any,
) -> None:
    """Run the study in the folder STUDY, or the job in JOB.yaml over a federation; or go on with an unfinished run.

    Each round is durable once its line appears: interrupted or killed, the same command goes on where it was, and
    nothing is spent twice. Exit code 4: too few sites could be admitted, and the round waits.

    A STUDY's run gets a folder of its own, STUDY/runs/<n>, and STUDY/runs/latest points to the newest: model, summary,
    model card, plots. A changed study is a new run. Beside the private job runs the same job without privacy, where
    every row is registered as public.

    `aegis run export RUN --out FILE` writes the records of a finished run to one file for an auditor.
    """
    if what.is_dir():
        if federation is not None or out is not None:
            raise click.UsageError("--federation and --out belong to a JOB.yaml: a study has its own sites and runs")
        runtime = runtime or "flower"
        flare = _flare(runtime, **hosting)
        _run_study(what, runtime, flare, changes, readmit, baseline=not no_baseline, repeats=repeats, json_=as_json)
        return
    if what.name == "study.toml":
        raise click.UsageError(f"{what} is a study's job: name the study's folder, aegis run {what.parent}")
    if changes or no_baseline or repeats:
        raise click.UsageError("--set, --no-baseline and --repeats need the folder of a study, not a job file")
    if federation is None:
        raise click.UsageError("--federation is missing: the folder of the federation that runs the job file")
    runtime = runtime or "in-process"
    from aegis.federation import FederationFolder

    _run_job(what, FederationFolder(federation), out, runtime, _flare(runtime, **hosting), readmit, as_json)


def _run_study(
    path: Path,
    runtime: str,
    flare: FlareOptions,
    changes: tuple[str, ...],
    readmit: tuple[str, ...],
    *,
    baseline: bool,
    repeats: int,
    json_: bool,
) -> None:
    from aegis.runs import RuntimeName
    from aegis.studies import Simulation, Study, headline, run_study

    study = Study(path)
    rounds = _Rounds(study.job(changes), json_)
    result = run_study(
        study,
        changes=changes,
        runtime=RuntimeName(runtime),
        flare=flare,
        baseline=baseline,
        readmit=readmit,
        simulation=Simulation(repeats=repeats),
        observe=rounds.observe,
        say=rounds.say,
    )
    if json_:
        click.echo(json.dumps(result.to_dict(), sort_keys=True))
        return
    for line in headline(result):
        click.echo(line)
    click.echo(f"summary: {study.latest / 'summary.md'} (run {result.run.path.name})")
    click.echo(f"next: aegis verify {study.latest}")


def _run_job(
    job_file: Path,
    participants: FederationFolder,
    out: Path | None,
    runtime: str,
    flare: FlareOptions,
    readmit: tuple[str, ...],
    as_json: bool,
) -> None:
    from aegis.federation import load_job
    from aegis.runs import RunFolder

    job = load_job(job_file)
    config = participants.config()
    from aegis.runs import RunPlan, RuntimeName, execute

    folder = RunFolder(Path("runs", job.job_id) if out is None else out)
    rounds = _Rounds(job, as_json)
    rounds.say(f"{job.job_id}: {job.rounds} rounds over {len(config.public_keys)} sites, {config.profile.in_words()}")
    if job.aggregator is Aggregator.MEAN:
        rounds.say("aggregator mean: withstands no hostile site")
    chosen = RuntimeName(runtime)
    plan = RunPlan(participants, folder, readmit=readmit, runtime=chosen, flare=flare)
    execute(job, replace(plan, observe=rounds.observe, say=rounds.say))
    outcome = folder.read_json("outcome.json")
    if as_json:
        click.echo(json.dumps({"run": str(folder.path), **outcome}, sort_keys=True))
        return
    click.echo(
        f"released model {outcome['model'][:16]}… in {folder.path}; provenance {', '.join(outcome['provenance'])}"
    )
    if outcome["federation_epsilon"]["epsilon"] is not None:
        click.echo(_about_the_federation(outcome["federation_epsilon"]))
    if outcome.get("client_privacy"):
        click.echo(_about_whole_sites(outcome["client_privacy"]))
    click.echo(f"next: aegis verify {folder.path}")


def _about_the_federation(statement: Mapping[str, Any]) -> str:
    """Return the line on epsilon over all sites.

    - With a claim of disjoint units: the largest of the sites' epsilons, and the claim's author.
    - Without a claim: the composition of the sites' epsilons.
    """
    claim = statement["claimed_disjoint_by"]
    basis = (
        "the sites' guarantees are composed, because one person may have data at several sites"
        if claim is None
        else f"the largest of the sites' guarantees, if no person has data at two sites; CLAIMED by {claim}"
    )
    return f"epsilon {statement['epsilon']:.3f} at delta {statement['delta']:g} over the whole federation: {basis}"


def _about_whole_sites(statement: Mapping[str, Any]) -> str:
    """Return the line on client-level privacy, reported next to the sites' own epsilons and never added to them."""
    return (
        f"client-level privacy of each whole site: epsilon {statement['epsilon']:.3f} of "
        f"{statement['target_epsilon']:g} at delta {statement['delta']:g} ({statement['accountant']}, "
        f"{statement['sampling']}); not from the coordinator"
    )


def _flare(
    runtime: str, *, simulator: bool, poc: bool, startup_kit: Path | None, threads: int | None, executor: str | None
) -> FlareOptions:
    """Return the hosting of FLARE; raises ``UsageError`` for options that exclude each other."""
    from aegis.runtimes.nvflare import EXECUTOR, FlareHosting, FlareOptions

    hostings = {
        FlareHosting.SIMULATOR: simulator,
        FlareHosting.POC: poc,
        FlareHosting.STARTUP_KIT: startup_kit is not None,
    }
    chosen = [name for name, is_given in hostings.items() if is_given]
    if runtime != "nvflare":
        if chosen or threads is not None or executor is not None:
            raise click.UsageError("--simulator, --poc, --startup-kit, --threads, --executor need --runtime nvflare")
        return FlareOptions()
    if len(chosen) > 1:
        raise click.UsageError(f"{' and '.join(f'--{name}' for name in chosen)} contradict each other: choose one")
    hosting = chosen[0] if chosen else FlareHosting.SIMULATOR
    if hosting is not FlareHosting.SIMULATOR and (threads is not None or executor is not None):
        raise click.UsageError("--threads and --executor need --simulator: else a site's site.toml names the trainer")
    return FlareOptions(hosting, threads, EXECUTOR if executor is None else _dotted(executor), startup_kit)


def _dotted(executor: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", executor):
        raise click.UsageError(f"--executor takes package.module:Class, not {executor!r}")
    package = executor.partition(":")[0].partition(".")[0]
    if PathFinder.find_spec(package, [str(Path.cwd()), *sys.path]) is None:
        raise click.UsageError(f"--executor: module {package!r} is neither in this folder nor installed")
    return executor.replace(":", ".")


def _left(reason: str, claim: LineageClaim | None) -> str:
    """Return what is left of a spent budget, where the site's ledger lies on this host."""
    if reason != Reason.BUDGET_EXCEEDED:
        return ""
    if claim is None:
        return ", see aegis explain budget_exceeded"
    return f": epsilon {claim.left_epsilon:.3f} of {claim.caps.epsilon:g} left"


class _Rounds:
    """Prints a line for each completed round."""

    def __init__(self, job: FederationJob, to_stderr: bool) -> None:
        self._job, self._to_stderr = job, to_stderr

    def say(self, line: str) -> None:
        """Print a line of progress."""
        click.echo(line, err=self._to_stderr)

    def observe(self, report: RoundReport) -> None:
        """Print a completed round; the run calls this method after each round."""
        record = report.record
        metrics = [f"{name} {record.metrics[name]:.3f}" for name in _METRICS if name in record.metrics]
        refused = [
            f"{site} refused ({reason}{_left(reason, report.lineages.get(site))})"
            for site, reason in sorted(record.refused.items())
        ]
        parts = [f"{len(record.admitted)} admitted", *refused, *metrics, self._spent(report)]
        self.say(f"round {record.round_number}/{self._job.rounds}: {', '.join(parts)}")
        for line in report.other_steps(self._job.local_steps):
            self.say(f"warning: round {record.round_number}, {line}")

    def _spent(self, report: RoundReport) -> str:
        privacy = self._job.privacy
        if privacy.mechanism is Mechanism.NON_PRIVATE:
            return "NON-PRIVATE: no epsilon holds"
        return f"epsilon at most {report.spent():.3f} spent of {privacy.target_epsilon:g} at each site"
