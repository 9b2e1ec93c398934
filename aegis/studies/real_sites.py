"""Creates a study for real sites: the job, the data dictionary, and without a TEE a federation without participants.

Nothing here is simulated, and no row is read. Sites join one by one, each accepted by name
(``aegis federation admit --accept-unattested``); docs/OPERATIONS.md, "Real rows without a TEE", has both ends' steps.
"""

from __future__ import annotations

import os
from pathlib import Path

from aegis.errors import InvalidStudy
from aegis.federation import FederationFolder
from aegis.services import create_federation
from aegis.studies.creation import created_whole
from aegis.studies.study import Study, write_study
from coreason_enclave.datasets import DataDictionary
from coreason_enclave.schemas import FederationJob, Mechanism, Profile

_LOOPBACK = "127.0.0.1"


def create_unattested_study(
    folder: Path,
    job: FederationJob,
    dictionary: DataDictionary,
    *,
    host: str = _LOOPBACK,
    public_address: str | None = None,
) -> Study:
    """Create ``folder`` with ``study.toml``, ``dictionary.toml`` and a federation under profile ``unattested``.

    Args:
        job: a private job with an explicit delta, over the dictionary's dataset and unit of privacy.
        host: the gateway's listening address.
        public_address: ``host:port`` as published to sites.

    Raises:
        InvalidStudy: the folder exists, or job and dictionary do not fit each other.
        RunFolderError: ``host`` or ``public_address`` is unusable.
    """
    delta = _delta_of(job, dictionary)
    with created_whole(folder) as staging:
        federation = FederationFolder(staging)
        create_federation(federation, profile=Profile.UNATTESTED, delta=delta, host=host, public_address=public_address)
        write_study(staging, job, dictionary, head=_head(job, Profile.UNATTESTED))
    return Study(folder)


def create_study_over(
    folder: Path, job: FederationJob, dictionary: DataDictionary, federation: FederationFolder
) -> Study:
    """Create ``folder`` with ``study.toml`` and ``dictionary.toml`` for a federation of real sites that exists.

    Raises:
        InvalidStudy: the folder exists, or job and dictionary do not fit each other.
        RunFolderError: the federation cannot be read.
    """
    profile = federation.config().profile
    _delta_of(job, dictionary)
    with created_whole(folder) as staging:
        named = os.path.relpath(federation.path.resolve(), folder.resolve())
        write_study(staging, job, dictionary, head=_head(job, profile), federation=named)
    return Study(folder)


def _delta_of(job: FederationJob, dictionary: DataDictionary) -> float:
    privacy = job.privacy
    if privacy.mechanism is not Mechanism.DP_SGD or privacy.delta is None:
        raise InvalidStudy("real rows need a job with mechanism DP_SGD and its own delta")
    if job.dataset_id != dictionary.dataset_id:
        raise InvalidStudy(f"the job is about {job.dataset_id}, the dictionary about {dictionary.dataset_id}")
    if privacy.unit is not dictionary.unit:
        raise InvalidStudy(f"the job's unit is {privacy.unit}, the dictionary's unit is {dictionary.unit}")
    return privacy.delta


def _head(job: FederationJob, profile: Profile) -> str:
    return (
        f"# The study {job.job_id} over the sites of a federation, {profile.in_words()}.\n"
        "# docs/JOBS.md explains every field; docs/OPERATIONS.md, how sites join.\n\n"
    )
