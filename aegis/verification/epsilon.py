"""Checks every stated epsilon by composing the privacy events that the coordinator accepted."""

from __future__ import annotations

import math
from collections.abc import Iterator

from aegis.coordination import across_sites, epsilon_so_far, steps_so_far
from aegis.verification.audit_trail import AuditedRound
from aegis.verification.findings import Answer, Answers, Reference, fails, holds, require
from aegis.verification.ledgers import SiteLedger
from aegis.verification.records import Records
from coreason_enclave.ledger import JobClaim, job_in_words, why_spent_differs

_OTHER_BUILD = 1e-9
"""Relative tolerance between different code or numerical libraries; the same build must reproduce a number exactly."""


def is_epsilon(column: str) -> bool:
    """Return True if a column of ``metrics.csv`` states an epsilon."""
    return column.startswith("epsilon:")


def is_same(records: Records, stated: object, computed: float | None) -> bool:
    """Return True if a stated number, or its text, equals the computed one: exactly, if the installed build made it."""
    if stated is None or computed is None:
        return stated is None and computed is None
    try:
        number = float(str(stated))
    except ValueError:
        return False
    slack = 0.0 if records.is_of_this_build else _OTHER_BUILD * abs(computed)
    return math.isfinite(number) and abs(number - computed) <= slack


def check_epsilon(records: Records, _: Reference) -> Answers:
    """Compare each stated epsilon with the composition of the accepted events, at the job's own noise and rate.

    No accepted event has less noise than the job. The stated values:

    1. each site's, after each round, in metrics.csv and state, and the last one in outcome.json;
    2. each site's total in its own ledger, refused and unanswered rounds included, in outcome.json;
    3. the federation's: the largest site epsilon if someone claims that no unit has data at two sites, otherwise the
       composition over all sites.
    """
    sites = sorted({site for each in records.trail.rounds for site in each.admitted})
    stated = {name for row in records.metrics for name, value in row.items() if is_epsilon(name) and value}
    unknown = sorted(
        (stated | {f"epsilon:{site}" for site in records.outcome.epsilon}) - {f"epsilon:{s}" for s in sites}
    )
    require(not unknown, f"an epsilon is stated for {', '.join(unknown)}, but the log admits no update of these sites")
    require(len(records.metrics) == len(records.trail.rounds), "metrics.csv does not have one row for each round")
    for site in sites:
        yield _epsilon_of(records, site)
    _require_ledgers_own(records)
    yield _across_sites(records)


def _epsilon_of(records: Records, site: str) -> Answer:
    history, computed = records.state.history, None
    for index, steps in enumerate(_running_steps(records.trail.rounds, site)):
        computed = None if steps is None else epsilon_so_far(records.job, {site: steps})[site]
        places: dict[str, object] = {"metrics.csv": records.metrics[index].get(f"epsilon:{site}") or None}
        if index < len(history):
            places["state/state.json"] = history[index].epsilon.get(site)
        if index == len(records.trail.rounds) - 1:
            places["outcome.json"] = records.outcome.epsilon.get(site)
        for place, value in places.items():
            if not is_same(records, value, computed):
                expected = "no epsilon" if computed is None else f"epsilon {computed:.6g}"
                return fails(f"{site}, round {index + 1}: {place} states {value}, the admitted events give {expected}")
    return holds(f"{site}: {_claimed(records, site, computed)}")


def _running_steps(rounds: tuple[AuditedRound, ...], site: str) -> Iterator[int | None]:
    """Yield the accounted steps after each round; None before the site's first update."""
    steps: dict[str, int] = {}
    for each in rounds:
        if site in each.admitted:
            steps = steps_so_far(steps, {site: each.admitted[site].event})
        yield steps.get(site)


def _claimed(records: Records, site: str, computed: float | None) -> str:
    if computed is None:
        return "non-private training: no epsilon is stated, because no finite epsilon holds"
    target, delta = records.job.privacy.target_epsilon, records.job.privacy.delta
    within = target is None or computed <= target * (1 + _OTHER_BUILD)
    require(within, f"{site}: {computed:.4g} exceeds the cap {target}")
    sentence = f"{computed:.4g} of {target} at delta {delta}"
    claim = _claim(records, site)
    if claim is None or claim.spent is None:
        return sentence
    if claim.spent.epsilon > computed * (1 + _OTHER_BUILD):
        spent = f"{claim.spent.epsilon:.4g}"
        sentence = f"{sentence}; its ledger counts {spent} spent, which includes updates that were not admitted"
    why = why_spent_differs(claim)
    return sentence if why is None else f"{sentence}; {job_in_words(claim)}: {why}"


def _claim(records: Records, site: str) -> JobClaim | None:
    ledger = records.ledgers.get(site)
    return ledger.claim(records.job.digest()) if isinstance(ledger, SiteLedger) else None


def _counted(records: Records, site: str) -> float | None:
    """Return the epsilon of the job in a site's ledger; None for a missing ledger or a non-private job."""
    claim = _claim(records, site)
    return None if claim is None or claim.guarantee is None else claim.guarantee.epsilon


def _require_ledgers_own(records: Records) -> None:
    for site, stated in sorted(records.outcome.ledger_epsilon.items()):
        if isinstance(records.ledgers.get(site), SiteLedger):
            counted = _counted(records, site)
            message = f"outcome.json states {stated} for the ledger of {site}, but the ledger counts {counted}"
            require(is_same(records, stated, counted), message)


def _across_sites(records: Records) -> Answer:
    steps: dict[str, int] = {}
    for each in records.trail.rounds:
        steps = steps_so_far(steps, {site: update.event for site, update in each.admitted.items()})
    stated, computed = (
        records.outcome.federation_epsilon,
        across_sites(records.job, steps, records.config.disjoint_units),
    )
    for name in ("rule", "claimed_disjoint_by", "delta"):
        same = getattr(stated, name) == computed[name]
        require(same, f"outcome.json and config.json give different values of {name} for the federation's epsilon")
    if not is_same(records, stated.epsilon, computed["epsilon"]):
        return fails(f"outcome.json: {stated.epsilon} for the federation, admitted events give {computed['epsilon']}")
    if computed["epsilon"] is None:
        return holds("no epsilon is stated for the federation, because no finite epsilon holds")
    claim = computed["claimed_disjoint_by"]
    basis = "units may have data at all sites" if claim is None else f"no unit has data at two sites (CLAIMED: {claim})"
    return holds(f"federation: {computed['epsilon']:.4g} at delta {computed['delta']}, {computed['rule']}: {basis}")
