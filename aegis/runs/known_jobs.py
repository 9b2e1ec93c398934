"""The jobs that this coordinator ever ordered, by id: one job id names one job, over all run folders.

Every site's ledger holds a job id to the terms of its first reservation, for ever, and refuses other terms as
``round_conflict``. This record lets the coordinator say so at once, with the name of the field that differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aegis.errors import InvalidJob
from aegis.federation import FederationFolder, dump_job, load_job
from aegis.runs.folder import RunFolder
from coreason_enclave.schemas import FederationJob
from coreason_enclave.system import replace_file


def require_same_job(federation: FederationFolder, job: FederationJob) -> None:
    """Raise unless the federation's sites know this job id by no other job.

    Raises:
        InvalidJob: names each field that differs, both values, and the remedy.
    """
    path = _path(federation, job.job_id)
    if not path.exists():
        return
    before, now = _fields(load_job(path)), _fields(job)
    differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if differing:
        words = ", ".join(f"{name} was {before.get(name, 'unset')}, is {now.get(name, 'unset')}" for name in differing)
        raise InvalidJob(
            f"job_id {job.job_id} already names another job at these sites ({words:.300}; see {path}): their ledgers "
            "would refuse it as round_conflict. Give the changed job another job_id"
        )


def remember_job(federation: FederationFolder, folder: RunFolder, job: FederationJob) -> None:
    """Record the job once a site has enrolled for the run in ``folder``: from then on the sites may know the job."""
    path = _path(federation, job.job_id)
    if not path.exists() and folder.has_state and folder.state().enrolments:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, dump_job(job).encode())


def _path(federation: FederationFolder, job_id: str) -> Path:
    return federation.coordinator / "jobs" / f"{job_id}.yaml"


def _fields(job: FederationJob) -> dict[str, Any]:
    """Return the job's fields by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in job.model_dump(mode="json", exclude_none=True).items():
        flat |= {f"{name}.{inner}": each for inner, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat
