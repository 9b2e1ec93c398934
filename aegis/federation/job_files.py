"""Job files: YAML that holds exactly one :class:`~coreason_enclave.schemas.FederationJob`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from aegis.errors import InvalidJob
from coreason_enclave.configuration import read_yaml
from coreason_enclave.errors import ConfigurationError, PrivacyError
from coreason_enclave.schemas import FederationJob, Mechanism, explained


def load_job(path: Path) -> FederationJob:
    """Read a job file.

    Raises:
        InvalidJob: names the file, the field and the allowed values.
    """
    try:
        document = read_yaml(path)
    except ConfigurationError as error:
        raise InvalidJob(str(error)) from error
    if not isinstance(document, dict):
        raise InvalidJob(f"{path} must hold the fields of one job, as 'name: value' lines")
    with explained(lambda why: InvalidJob(f"{path}: {why}")):
        return FederationJob.model_validate(document)


def dump_job(job: FederationJob) -> str:
    """Return the job as YAML; :func:`load_job` restores the same job."""
    fields: dict[str, Any] = job.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(fields, sort_keys=False)


def resolve(job: FederationJob, *, delta: float) -> FederationJob:
    """Return the job with explicit delta and noise multiplier, so that a coordinator can check the sites' statements.

    Args:
        delta: used if the job states none.

    Raises:
        InvalidJob: no noise multiplier reaches the target.
    """
    from coreason_enclave.accounting import resolve_privacy  # loads scipy, which no --help should

    if job.privacy.mechanism is not Mechanism.DP_SGD:
        return job
    try:
        resolved = resolve_privacy(job.privacy, delta=delta, total_steps=job.total_steps)
    except PrivacyError as error:
        raise InvalidJob(f"privacy.target_epsilon: {error}") from error
    return job.model_copy(update={"privacy": resolved})
