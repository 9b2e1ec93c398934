"""Which sites a round can ask. The choice is public and recomputable: nobody can steer it round by round.

Where a job promises client-level privacy, :mod:`aegis.client_privacy` draws from these, in secret.
"""

from __future__ import annotations

from collections.abc import Iterable

from aegis.errors import InvalidJob
from coreason_enclave.crypto.encoding import digest
from coreason_enclave.schemas import FederationJob

__all__ = ["choose_cohort", "require_enough"]


def require_enough(site_ids: Iterable[str], job: FederationJob) -> None:
    """Refuse a job that this federation can never run; raises :class:`InvalidJob`."""
    sites = len(set(site_ids))
    if sites < job.min_clients:
        raise InvalidJob(f"the job needs min_clients = {job.min_clients} sites, the federation has {sites}")


def choose_cohort(site_ids: Iterable[str], job: FederationJob, round_number: int) -> tuple[str, ...]:
    """The sites of one round, sorted: all of them, or the ``cohort_size`` with the smallest public lot.

    A site's lot is SHA-256 over job, round and site id, so any participant can check that it was (not) drawn. This
    is no privacy amplification: the lots are public.
    """
    sites = sorted(set(site_ids))
    if job.cohort_size is None or job.cohort_size >= len(sites):
        return tuple(sites)
    lots = sorted(sites, key=lambda site: _lot(job.digest(), round_number, site))
    return tuple(sorted(lots[: job.cohort_size]))


def _lot(job_digest: str, round_number: int, site: str) -> bytes:
    return digest("aegis/cohort/v1", bytes.fromhex(job_digest), round_number.to_bytes(8, "big"), site.encode())
