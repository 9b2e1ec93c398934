"""What happens after the answers of a round are in: proceed, ask once more, or pause. Never a weaker aggregator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from aegis.aggregation import updates_needed
from coreason_enclave.schemas import FederationJob

__all__ = ["Decision", "NextAct", "decide", "updates_required"]


class NextAct(StrEnum):
    """What a coordinator does with a round whose deadline has passed or whose answers are all in."""

    AGGREGATE = "aggregate"
    REPEAT = "repeat"
    PAUSE = "pause"


@dataclass(frozen=True)
class Decision:
    """The next act and, unless it is to aggregate, why in words."""

    act: NextAct
    why: str = ""


def updates_required(job: FederationJob) -> int:
    """Admitted updates without which a round does not count: ``min_clients`` and the aggregator's precondition."""
    return max(job.min_clients, updates_needed(job.aggregator, job.num_byzantine))


def decide(job: FederationJob, *, admitted: int, refused: Mapping[str, str], attempt: int) -> Decision:
    """Aggregate with enough admitted updates; otherwise repeat the round once, then pause with the reason.

    Args:
        refused: reason codes by site, for the explanation.
        attempt: 1 for the first time this round is run.
    """
    required = updates_required(job)
    if admitted >= required:
        return Decision(NextAct.AGGREGATE)
    causes = ", ".join(f"{site}: {reason}" for site, reason in sorted(refused.items())) or "no site answered"
    why = (
        f"{admitted} updates were admitted, {required} are required by min_clients = {job.min_clients} and "
        f"{job.aggregator} with num_byzantine = {job.num_byzantine} ({causes})"
    )
    return Decision(NextAct.REPEAT if attempt == 1 else NextAct.PAUSE, why)
