"""``aegis demo``: the command of the demonstration."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import click

from coreason_enclave.schemas import Aggregator, PrivacyUnit


@click.command()
@click.option("--epsilon", type=float, default=3.0, show_default=True, help="Target epsilon at a site, at delta 1e-5.")
@click.option("--sites", type=click.IntRange(2, 6), default=6, show_default=True, help="Number of participating sites.")
@click.option("--rounds", type=click.IntRange(1, 200), default=10, show_default=True, help="Rounds of 6 local steps.")
@click.option(
    "--aggregator",
    type=click.Choice([rule.value for rule in Aggregator]),
    default=Aggregator.TRIMMED_MEAN.value,
    show_default=True,
    help="Rule that combines the updates; all but mean tolerate one Byzantine site.",
)
@click.option(
    "--attackers",
    type=click.IntRange(0, 5),
    default=0,
    show_default=True,
    help="Number of Byzantine sites, which send -10 times their update.",
)
@click.option(
    "--unit",
    type=click.Choice([PrivacyUnit.RECORD.value, PrivacyUnit.PERSON.value]),
    default=PrivacyUnit.PERSON.value,
    show_default=True,
    help="Unit of privacy: one person with all their years, or one row.",
)
@click.option("--repeats", type=click.IntRange(0, 50), default=4, show_default=True, help="Repetitions with new keys.")
@click.option("--seed", type=click.IntRange(min=0), default=None, help="UNSAFE: noise seed, for reproducible figures.")
@click.option(
    "--runtime",
    type=click.Choice(["flower", "in-process"]),
    default="flower",
    show_default=True,
    help="flower: separate processes for each site; in-process: everything in one process, faster. The model is the "
    "same.",
)
@click.option("--runs", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON on standard output.")
def demo(
    epsilon: float,
    sites: int,
    rounds: int,
    aggregator: str,
    attackers: int,
    unit: str,
    repeats: int,
    seed: int | None,
    runtime: str,
    runs: Path,
    as_json: bool,
) -> None:
    """Train one model over the six sites of a real study under differential privacy.

    Creates a study of new SIMULATED sites from public data (the RAND Health Insurance Experiment) under --runs, and
    runs it as `aegis run` runs any study: privately, then without privacy beside it. Leaves model, ledgers, audit log,
    plots and a summary in runs/latest; the study, with the sites and their keys, is runs/latest-study. Killed at any
    moment, the same command continues where it was; otherwise a second run is a second study.

    Example: aegis demo --attackers 1 --aggregator mean
    """
    # Imported here: the frameworks take seconds, and a mistyped option is answered without them.
    from rich.console import Console

    from aegis.demo.progress import RoundTable
    from aegis.demo.recipe import DemoOptions, private_job
    from aegis.demo.study import choose_study, run_demo
    from aegis.runs import RuntimeName
    from aegis.studies import headline

    options = DemoOptions(
        epsilon=epsilon,
        sites=sites,
        rounds=rounds,
        aggregator=Aggregator(aggregator),
        attackers=attackers,
        unit=PrivacyUnit(unit),
        repeats=repeats,
        seed=seed,
        runtime=RuntimeName(runtime),
    )
    job = private_job(options)  # refuses wrong options before the first write
    console = Console(stderr=as_json, highlight=False)
    study, is_new = choose_study(runs, options)
    which = "new" if is_new else "RESUMED:"
    console.print(f"{which} SIMULATED sites in {study.path}: {sites} of one study's six real sites", soft_wrap=True)
    with RoundTable(console, "the private job", job) as table:
        result = run_demo(
            runs, study, options, observe=table.show, say=lambda line: console.print(line, soft_wrap=True)
        )
    if as_json:
        click.echo(json.dumps({"options": options.to_dict(), **result.to_dict()}, sort_keys=True))
        return
    console.rule("result")
    for line in headline(result):
        console.print(line, soft_wrap=True)
    console.rule("next")
    for line in _next_commands(runs, attackers):
        console.print(line, soft_wrap=True)


def _next_commands(runs: Path, attackers: int) -> tuple[str, ...]:
    here = _installed_in()
    other, shows = (
        ("--epsilon 0.1", "a small epsilon costs in accuracy")
        if attackers
        else (
            "--attackers 1 --aggregator mean",
            "one Byzantine site does to a plain mean",
        )
    )
    return (
        f"{here}aegis verify {runs}/latest",
        "  recomputes this run's claims from its own records",
        f"{here}coreason-enclave ledger show {runs}/latest-study/sites/site-1/ledger.sqlite",
        "  shows the spent and the remaining budget of one site's data",
        f"{here}aegis run {runs}/latest-study --set privacy.target_epsilon=0.5",
        "  runs the same study's job once more, with another privacy budget",
        f"{here}aegis demo {other}",
        f"  shows what {shows}",
    )


def _installed_in() -> str:
    """Return the folder to write before a command's name, or the empty string if the shell finds the command."""
    own = Path(sys.argv[0])
    if own.name != "aegis" or shutil.which("aegis") == str(own.resolve()):
        return ""
    return f"{os.path.relpath(own.parent)}/"
