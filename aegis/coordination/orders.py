"""Issues invitations and the orders of one round.

Both depend on their arguments and a clock reading alone, so a coordinator can issue them again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coreason_enclave.schemas import FederationJob, Profile
from coreason_enclave.system import CLOCK_SKEW_S
from coreason_enclave.wire import CoordinatorIdentity, JobInvitation, LogProof, RoundOrder


@dataclass(frozen=True)
class RoundRequest:
    """The request to one site in one attempt at a round. The site's answer must repeat these values."""

    job: FederationJob
    round_number: int
    site_id: str
    nonce: str
    base_model_digest: str


def issue_order(
    question: RoundRequest,
    *,
    profile: Profile,
    roll_call_digest: str,
    last_head: str | None,
    coordinator: CoordinatorIdentity,
    attestation: str,
    log: str,
    log_proof: LogProof,
    now: float,
) -> RoundOrder:
    """Return the order for ``question``. A reissued order differs only in its times and in what both ends proved since.

    Args:
        last_head: envelope of the newest ledger head that the site ever sent.
        attestation: the site's attestation result. now: Unix seconds.
        log: a checkpoint's envelope. log_proof: proof from the checkpoint that the site saw last.
    """
    return RoundOrder(
        profile=profile,
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
        expires_at=int(now + question.job.round_deadline_s) + CLOCK_SKEW_S,
    )


def issue_invitations(
    job: FederationJob, sites: Iterable[str], *, profile: Profile, nonce: str, within_s: float, now: float
) -> dict[str, JobInvitation]:
    """Return an invitation per site, by site. Answers are due within ``within_s`` seconds of ``now`` (Unix seconds)."""
    return {
        site: JobInvitation(
            profile=profile,
            job=job,
            site_id=site,
            nonce=nonce,
            issued_at=int(now),
            expires_at=int(now + within_s) + CLOCK_SKEW_S,
        )
        for site in sorted(sites)
    }
