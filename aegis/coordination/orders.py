"""Invitations and the orders of one round: functions of their arguments and a clock reading, so that they can be
issued again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coreason_enclave.schemas import FederationJob
from coreason_enclave.wire.checkpoints import LogProof
from coreason_enclave.wire.documents import CoordinatorIdentity, JobInvitation, RoundOrder

__all__ = ["GRACE_S", "RoundRequest", "issue_invitations", "issue_order"]

GRACE_S = 60
"""How long after a round's deadline an order stays acceptable to a site: clocks differ."""


@dataclass(frozen=True)
class RoundRequest:
    """What one site is asked in one attempt at a round: what its answer has to repeat."""

    job: FederationJob
    round_number: int
    site_id: str
    nonce: str
    base_model_digest: str


def issue_order(
    question: RoundRequest,
    *,
    roll_call_digest: str,
    last_head: str | None,
    coordinator: CoordinatorIdentity,
    attestation: str,
    log: str,
    log_proof: LogProof,
    now: float,
) -> RoundOrder:
    """The order that asks it. Issued again, it differs in its times and in what both ends have proved since.

    Args:
        last_head: the envelope of the newest ledger head that the site ever sent.
        attestation: the site's attestation result. now: Unix seconds.
        log: a checkpoint's envelope. log_proof: from the checkpoint that the site saw last.
    """
    return RoundOrder(
        job=question.job,
        round_number=question.round_number,
        site_id=question.site_id,
        nonce=question.nonce,
        base_model_digest=question.base_model_digest,
        roll_call_digest=roll_call_digest,
        last_head=last_head,
        coordinator=coordinator,
        attestation=attestation,
        log=log,
        log_proof=log_proof,
        issued_at=int(now),
        expires_at=int(now + question.job.round_deadline_s) + GRACE_S,
    )


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
