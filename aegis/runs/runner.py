"""Runs or resumes a job on the chosen runtime."""

from __future__ import annotations

from contextlib import AbstractContextManager

from aegis.errors import RunPaused, RunRefused
from aegis.runs.connect import ConnectedSites, RuntimeName, connect_sites
from aegis.runs.coordinate import coordinate, open_log
from aegis.runs.known_jobs import remember_job
from aegis.runs.plan import RunPlan, prepare
from aegis.runs.refusal_words import in_words
from aegis.runs.results import RunOutcome, read_outcome
from coreason_enclave.schemas import FederationJob


def execute(job: FederationJob, plan: RunPlan) -> RunOutcome:
    """Run ``job``, or continue it, and write the complete run folder.

    Raises:
        AegisError: the job, federation or folder cannot be used, or the run paused.
    """
    job = prepare(job, plan)
    plan.folder.forget_refusal()
    try:
        return _coordinated(job, plan)
    except RunPaused as paused:
        explained = in_words(paused, job, plan.federation)
        if isinstance(paused, RunRefused):
            plan.folder.mark_refused(str(explained))
        raise explained from paused
    finally:
        remember_job(plan.federation, plan.folder, job)


def _coordinated(job: FederationJob, plan: RunPlan) -> RunOutcome:
    if plan.runtime is RuntimeName.NVFLARE:
        from aegis.runs.nvflare_client import coordinate_on_flare

        coordinate_on_flare(job, plan)
        return read_outcome(plan.folder)
    with open_log(plan) as audit, _opened(plan) as sites:
        return coordinate(job, plan, sites, audit)


def _opened(plan: RunPlan) -> AbstractContextManager[ConnectedSites]:
    return connect_sites(
        plan.runtime,
        plan.federation,
        note=plan.folder.path / "flower-run.json",
        unsafe_seed=plan.unsafe_seed,
        attackers=plan.attackers,
    )
