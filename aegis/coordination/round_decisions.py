"""Decides about a round before it opens and after its answers are in: go on, repeat once, or pause.

Never falls back to a weaker aggregator.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from aegis.aggregation import updates_needed
from aegis.coordination.quarantine import QuarantineRecord
from coreason_enclave.errors import Reason
from coreason_enclave.schemas import FederationJob
from coreason_enclave.system import waiting_helps


class NextAct(StrEnum):
    """The coordinator's next act for a round that is about to open, or whose answers or deadline have come."""

    AGGREGATE = "aggregate"
    REPEAT = "repeat"
    PAUSE = "pause"


@dataclass(frozen=True)
class Decision:
    """The next act and, unless the act is to aggregate, the reason in words."""

    act: NextAct
    why: str = ""


def updates_required(job: FederationJob) -> int:
    """Return the number of admitted updates that a round needs, from ``min_clients`` and the aggregator's minimum."""
    return max(job.min_clients, updates_needed(job.aggregator, job.num_byzantine))


def may_open(
    job: FederationJob,
    eligible: Collection[str],
    left_out: Mapping[str, str],
    quarantine: Mapping[str, QuarantineRecord],
    rounds_ended: int,
) -> Decision:
    """Decide to ask these sites, or to pause because their updates could not suffice.

    A pause names each site left out, with its reason.

    Args:
        left_out: reason codes of the sites left out.
        quarantine: records of the sites with strikes.
        rounds_ended: the rounds completed or paused before this one.
    """
    required = updates_required(job)
    if len(eligible) >= required:
        return Decision(NextAct.AGGREGATE)
    why = ", ".join(
        _describe_left_out(site, reason, quarantine.get(site), rounds_ended)
        for site, reason in sorted(left_out.items())
    )
    return Decision(
        NextAct.PAUSE,
        f"{len(eligible)} sites eligible, {_describe_required(job, required)} ({why or 'none left out'})",
    )


def can_never_suffice(job: FederationJob, registered: Collection[str], reasons: Mapping[str, str]) -> bool:
    """Return True if waiting cannot bring the updates that a round needs: a person has to act first.

    Counts the registered sites without those whose reason lasts (a policy, a spent budget, a conflicting ledger).

    Args:
        reasons: reason codes of the sites that did not take part.
    """
    lasting = [site for site, reason in reasons.items() if site in registered and not waiting_helps(reason)]
    return len(registered) - len(lasting) < updates_required(job)


def _describe_left_out(site: str, reason: str, quarantine: QuarantineRecord | None, rounds_ended: int) -> str:
    if reason != Reason.QUARANTINED or quarantine is None:
        return f"{site}: {reason}"
    left = quarantine.quarantined_until - rounds_ended
    return f"{site}: {reason} for {quarantine.reason}, for {left} more round{'s' if left > 1 else ''}"


def _describe_required(job: FederationJob, required: int) -> str:
    return f"{required} needed: min_clients = {job.min_clients}, {job.aggregator}, num_byzantine = {job.num_byzantine}"


def decide(job: FederationJob, *, admitted: int, refused: Mapping[str, str], attempt: int) -> Decision:
    """Aggregate with enough admitted updates; otherwise repeat the round once, then pause with the reason.

    Args:
        refused: reason codes by site, for the explanation.
        attempt: 1 for the first attempt at this round.
    """
    required = updates_required(job)
    if admitted >= required:
        return Decision(NextAct.AGGREGATE)
    causes = ", ".join(f"{site}: {reason}" for site, reason in sorted(refused.items())) or "no site answered"
    why = f"{admitted} updates admitted, {_describe_required(job, required)} ({causes})"
    return Decision(NextAct.REPEAT if attempt == 1 else NextAct.PAUSE, why)
