"""Chooses the sites that a round can ask. The choice is public and recomputable, so no one can steer it.

For a job with client-level privacy, :mod:`aegis.client_privacy` samples from these sites in secret.
"""

from __future__ import annotations

from collections.abc import Iterable

from aegis.aggregation import updates_needed
from aegis.errors import InvalidJob
from coreason_enclave.crypto import digest
from coreason_enclave.schemas import Aggregator, FederationJob


def require_enough(site_ids: Iterable[str], job: FederationJob) -> None:
    """Raise :class:`InvalidJob` if this federation has too few sites ever to run the job."""
    sites = len(set(site_ids))
    if sites < job.min_clients:
        raise InvalidJob(f"the job needs min_clients = {job.min_clients} sites, but the federation has {sites}")


def require_resistance(site_ids: Iterable[str], job: FederationJob) -> None:
    """Raise :class:`InvalidJob` for a robust aggregator that is to withstand no hostile site: such a rule is a mean.

    The message names the largest number that the cohort of one round allows.
    """
    if job.aggregator is Aggregator.MEAN or job.num_byzantine:
        return
    sites = len(set(site_ids))
    asked = sites if job.cohort_size is None else min(sites, job.cohort_size)
    largest = max((f for f in range(asked) if updates_needed(job.aggregator, f) <= asked), default=0)
    remedy = f"set num_byzantine (at most {largest} with {asked} sites), or say aggregator: mean"
    if not largest:
        remedy = f"{asked} sites are too few for any: say aggregator: mean, which withstands none"
    raise InvalidJob(f"aggregator {job.aggregator} with num_byzantine 0 withstands no hostile site: {remedy}")


def choose_cohort(site_ids: Iterable[str], job: FederationJob, round_number: int) -> tuple[str, ...]:
    """Return the sites of one round, sorted: all sites, or the ``cohort_size`` sites with the smallest public lots.

    A site's lot is SHA-256 over job, round and site id, so any participant can check the choice. Public lots give no
    privacy amplification.
    """
    sites = sorted(set(site_ids))
    if job.cohort_size is None or job.cohort_size >= len(sites):
        return tuple(sites)
    order = sorted(sites, key=lambda site: _sort_key(job.digest(), round_number, site))
    return tuple(sorted(order[: job.cohort_size]))


def _sort_key(job_digest: str, round_number: int, site: str) -> bytes:
    return digest("aegis/cohort/v1", bytes.fromhex(job_digest), round_number.to_bytes(8, "big"), site.encode())
