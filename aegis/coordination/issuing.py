"""The orders of one round: a function of job, nonces and a clock reading, so that they can be issued again."""

from __future__ import annotations

from collections.abc import Mapping

from coreason_enclave.orders import RoundOrder
from coreason_enclave.schemas import FederationJob

__all__ = ["GRACE_S", "issue_orders"]

GRACE_S = 60
"""How long after a round's deadline an order stays acceptable to a site: clocks differ."""


def issue_orders(
    job: FederationJob, *, round_number: int, nonces: Mapping[str, str], base_model_digest: str, now: float
) -> dict[str, RoundOrder]:
    """One order a site, by site. Issued again, they differ in their times alone; ``now`` is Unix seconds."""
    return {
        site: RoundOrder(
            job=job,
            round_number=round_number,
            site_id=site,
            nonce=nonce,
            base_model_digest=base_model_digest,
            issued_at=int(now),
            expires_at=int(now + job.round_deadline_s) + GRACE_S,
        )
        for site, nonce in sorted(nonces.items())
    }
