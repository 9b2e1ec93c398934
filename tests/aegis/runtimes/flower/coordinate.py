"""A coordinator as a process of its own, so that it can be killed: ``FEDERATION JOB RUN-FOLDER SEED``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from aegis.federation.job_files import load_job
from aegis.federation.registry import FederationFolder
from aegis.runs.connect import RuntimeName
from aegis.runs.folder import RunFolder
from aegis.runs.plan import RoundReport, RunPlan
from aegis.runs.runner import execute


def say(report: RoundReport) -> None:
    click.echo(f"round {report.record.round_number}: {', '.join(report.record.admitted)}")


def main() -> None:
    federation, job, folder, seed = sys.argv[1:]
    plan = RunPlan(
        FederationFolder(Path(federation)), RunFolder(Path(folder)), int(seed), observe=say, runtime=RuntimeName.FLOWER
    )
    execute(load_job(Path(job)), plan)


if __name__ == "__main__":
    main()
