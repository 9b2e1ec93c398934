"""Runs a job, or goes on with it, on the runtime of choice."""

from __future__ import annotations

from contextlib import AbstractContextManager

from aegis.runs.connect import OpenedSites, RuntimeName, opened_on
from aegis.runs.coordinate import coordinate, open_log
from aegis.runs.plan import Execution, prepare
from aegis.runs.results import Outcome, read_outcome
from coreason_enclave.schemas import FederationJob

__all__ = ["execute"]


def execute(job: FederationJob, execution: Execution) -> Outcome:
    """Run ``job``, or continue it, and write everything the folder is to hold.

    Raises:
        AegisError: a job, federation or folder that cannot be used, or a run that paused.
    """
    job = prepare(job, execution)
    if execution.runtime is RuntimeName.NVFLARE:
        from aegis.runs.nvflare_client import coordinate_on_flare

        coordinate_on_flare(job, execution)
        return read_outcome(execution.folder)
    with open_log(execution) as audit, _opened(execution) as sites:
        return coordinate(job, execution, sites, audit)


def _opened(execution: Execution) -> AbstractContextManager[OpenedSites]:
    return opened_on(
        execution.runtime,
        execution.federation,
        note=execution.folder.path / "flower-run.json",
        unsafe_seed=execution.unsafe_seed,
        attackers=execution.attackers,
    )
