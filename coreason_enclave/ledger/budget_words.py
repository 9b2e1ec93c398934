"""The words for spent, reserved and left, under one definition for every page and both programs.

- *spent*: epsilon of one job over the steps that ran, as the lineage's filter counts them;
- *reserved*: epsilon of one job over all steps that were set aside, without a refund. The figure holds even if the
  decision to stop depended on released results;
- *left*: what the lineage's filter has not counted yet, for all jobs together.

Spent and reserved come from one accountant (PLD) at the job's delta. Left is the filter's (Rényi divergence at the
order that was fixed at registration), so spent and left do not add up to the cap.
"""

from __future__ import annotations

from coreason_enclave.ledger.records import JobClaim

DEFINITIONS = (
    (
        "*Spent*: epsilon of this job over the steps that ran, as the site's ledger counts them; a round that was "
        "reserved and never reported counts in full."
    ),
    "*Reserved*: epsilon of this job over all steps that the ledger reserved, without a refund.",
    (
        "*Left*: the share of the cap over all jobs on these rows that the ledger's filter has not counted yet. The "
        "filter composes by Rényi divergence, and the other two figures come from PLD, so spent and left are no sum."
    ),
)


def steps_in_words(reserved: int, ran: int, *, local_steps: int) -> str:
    """Return the sentence on a round whose loop ended before the reserved steps had run."""
    return (
        f"reserved {reserved} steps, ran {ran}: the training loop took other than the job's local_steps = "
        f"{local_steps}; the ledger gave the budget of {reserved - ran} steps back, so spent counts {ran} steps and "
        f"reserved {reserved}"
    )


def job_in_words(claim: JobClaim) -> str:
    """Return spent and reserved of a private job; reserved alone is named only where the two differ."""
    if claim.spent is None or claim.guarantee is None or claim.target_epsilon is None:
        return "NON-PRIVATE"
    reserved = claim.steps_counted > claim.steps_spent
    also = f", {claim.guarantee.epsilon:.3f} reserved," if reserved else ""
    return f"epsilon {claim.spent.epsilon:.3f} spent{also} of {claim.target_epsilon:g} at delta {claim.spent.delta:g}"


def why_spent_differs(claim: JobClaim) -> str | None:
    """Return one sentence if fewer steps of a job ran than were reserved, else None."""
    idle = claim.steps_counted - claim.steps_spent
    if idle <= 0:
        return None
    return (
        f"{idle} of {claim.steps_counted} reserved steps did not run; the ledger gave their budget back (spent), and "
        "quotes them in reserved, because that figure holds even if a result decided to stop"
    )
