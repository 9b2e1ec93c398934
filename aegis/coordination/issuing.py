"""Invitations and the orders of one round: functions of their arguments and a clock reading, so that they can be
issued again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from coreason_enclave.orders import JobInvitation, RoundOrder
from coreason_enclave.schemas import FederationJob

__all__ = ["GRACE_S", "issue_invitations", "issue_orders"]

GRACE_S = 60
"""How long after a round's deadline an order stays acceptable to a site: clocks differ."""


def issue_orders(
    job: FederationJob,
    *,
    round_number: int,
    nonces: Mapping[str, str],
    base_model_digest: str,
    roll_call_digest: str,
    last_heads: Mapping[str, str],
    now: float,
) -> dict[str, RoundOrder]:
    """One order a site, by site. Issued again, they differ in their times alone; ``now`` is Unix seconds.

    ``last_heads`` holds the newest ledger head's envelope of each site that ever sent one.
    """
    return {
        site: RoundOrder(
            job=job,
            round_number=round_number,
            site_id=site,
            nonce=nonce,
            base_model_digest=base_model_digest,
            roll_call_digest=roll_call_digest,
            last_head=last_heads.get(site),
            issued_at=int(now),
            expires_at=int(now + job.round_deadline_s) + GRACE_S,
        )
        for site, nonce in sorted(nonces.items())
    }


def issue_invitations(
    job: FederationJob, sites: Iterable[str], *, nonce: str, within_s: float, now: float
) -> dict[str, JobInvitation]:
    """One invitation a site, by site, to be answered within ``within_s`` seconds of ``now`` (Unix seconds)."""
    return {
        site: JobInvitation(
            job=job, site_id=site, nonce=nonce, issued_at=int(now), expires_at=int(now + within_s) + GRACE_S
        )
        for site in sorted(sites)
    }
