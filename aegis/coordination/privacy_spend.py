"""Each site's privacy spend in a job so far, from admitted events alone: a site's own claims do not count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coreason_enclave.accounting import Event, NonPrivate, compose_epsilon, privacy_event
from coreason_enclave.schemas import FederationJob


def steps_so_far(before: Mapping[str, int], admitted: Mapping[str, Event]) -> dict[str, int]:
    """Return accounted steps by site: the earlier steps plus those of this round's admitted events."""
    steps = dict(before)
    for site, event in admitted.items():
        steps[site] = steps.get(site, 0) + (0 if isinstance(event, NonPrivate) else event.steps)
    return steps


def epsilon_so_far(job: FederationJob, steps: Mapping[str, int]) -> dict[str, float | None]:
    """Return each site's epsilon by PLD at the job's delta, or None for each site of a job without privacy."""
    mechanism, delta = privacy_event(job.privacy, 0), job.privacy.delta
    if isinstance(mechanism, NonPrivate) or delta is None:
        return dict.fromkeys(steps)
    return {site: compose_epsilon([mechanism.with_steps(count)], delta).epsilon for site, count in steps.items()}


def federation_epsilon(job: FederationJob, steps: Mapping[str, int], *, disjoint: bool) -> float | None:
    """Return a job's epsilon for one unit over all sites; None for a job without privacy, and before the first update.

    Args:
        steps: accounted steps by site.
        disjoint: True if someone claims that no unit is at two sites. The largest of the sites' epsilons then holds for
            all. Without the claim, a unit may be at every site, and the mechanisms of all sites compose.
    """
    if not disjoint:
        steps = {"all": sum(steps.values())} if steps else {}
    values = epsilon_so_far(job, steps).values()
    return max((value for value in values if value is not None), default=None)


def across_sites(job: FederationJob, steps: Mapping[str, int], claim: str | None) -> dict[str, Any]:
    """Return the federation's epsilon for one unit over all sites, and the claim behind the number (JSON types).

    Args:
        steps: accounted steps by site. claim: author and ground of the claim that no unit is at two sites; None: no
            claim.
    """
    disjoint = claim is not None
    return {
        "epsilon": federation_epsilon(job, steps, disjoint=disjoint),
        "delta": job.privacy.delta,
        "rule": "maximum over sites" if disjoint else "composition over sites",
        "claimed_disjoint_by": claim,
    }
