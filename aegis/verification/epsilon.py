"""Every stated epsilon, composed again from the privacy events that the coordinator admitted."""

from __future__ import annotations

import math
from collections.abc import Iterator

from aegis.verification.findings import Answer, Answers, Reference, fails, holds, require
from aegis.verification.records import Records
from aegis.verification.trail import AuditedRound
from coreason_enclave.accounting import Event, PoissonSampledGaussian, compose_epsilon

__all__ = ["check_epsilon", "is_epsilon"]

_TOLERANCE = 1e-4  # relative, between two builds of one accountant


def is_epsilon(column: str) -> bool:
    """Whether a column of ``metrics.csv`` states an epsilon."""
    return column.startswith("epsilon:")


def check_epsilon(records: Records, _: Reference) -> Answers:
    """Per site and round, in metrics.csv, state and outcome: composed again from the admitted events."""
    sites = sorted({site for each in records.trail.rounds for site in each.admitted})
    stated = {name for row in records.metrics for name, value in row.items() if is_epsilon(name) and value}
    strangers = sorted(
        (stated | {f"epsilon:{site}" for site in records.outcome.epsilon}) - {f"epsilon:{s}" for s in sites}
    )
    require(not strangers, f"an epsilon is stated for {', '.join(strangers)}, of which no update was admitted")
    require(len(records.metrics) == len(records.trail.rounds), "metrics.csv does not have one line a round")
    for site in sites:
        yield _epsilon_of(records, site)


def _epsilon_of(records: Records, site: str) -> Answer:
    history, bounds = records.state.history, None
    for index, events in enumerate(_running_events(records.trail.rounds, site)):
        bounds = _bounds(records, events)
        places: dict[str, object] = {"metrics.csv": records.metrics[index].get(f"epsilon:{site}") or None}
        if index < len(history):
            places["state/state.json"] = history[index].epsilon.get(site)
        if index == len(records.trail.rounds) - 1:
            places["outcome.json"] = records.outcome.epsilon.get(site)
        for place, value in places.items():
            if not _is_within(value, bounds):
                expected = "no epsilon" if bounds is None else f"epsilon {bounds[0]:.6g}"
                return fails(f"{site}, round {index + 1}: {place} states {value}, its events give {expected}")
    return holds(f"{site}: {_claimed(records, site, bounds)}")


def _running_events(rounds: tuple[AuditedRound, ...], site: str) -> Iterator[tuple[Event, ...]]:
    events: tuple[Event, ...] = ()
    for each in rounds:
        if site in each.admitted:
            events = (*events, each.admitted[site].event)
        yield events


def _bounds(records: Records, events: tuple[Event, ...]) -> tuple[float, float] | None:
    """The least and the most that may be stated: what ran, and as many steps at the job's own noise and rate."""
    privacy = records.job.privacy
    private = [event for event in events if isinstance(event, PoissonSampledGaussian)]
    if len(private) < len(events) or not events or privacy.delta is None or privacy.noise_multiplier is None:
        return None
    steps = sum(event.steps for event in private)
    most = PoissonSampledGaussian(privacy.noise_multiplier, privacy.sample_rate, steps)
    least_epsilon = compose_epsilon(private, privacy.delta).epsilon
    return least_epsilon, max(least_epsilon, compose_epsilon([most], privacy.delta).epsilon)


def _is_within(value: object, bounds: tuple[float, float] | None) -> bool:
    if bounds is None or value is None:
        return bounds is None and value is None
    try:
        number = float(str(value))
    except ValueError:
        return False
    least, most = bounds
    return math.isfinite(number) and least * (1 - _TOLERANCE) <= number <= most * (1 + _TOLERANCE)


def _claimed(records: Records, site: str, bounds: tuple[float, float] | None) -> str:
    if bounds is None:
        return "non-private training: no epsilon is stated, and none holds"
    target, delta = records.job.privacy.target_epsilon, records.job.privacy.delta
    require(
        target is None or bounds[0] <= target * (1 + _TOLERANCE), f"{site}: {bounds[0]:.4g} exceeds the cap {target}"
    )
    sentence = f"{bounds[0]:.4g} of {target} at delta {delta}"
    ledger = records.ledgers[site]
    claim = None if isinstance(ledger, str) else ledger.claim(records.job.digest())
    if claim is None or claim.guarantee is None or claim.guarantee.epsilon <= bounds[1] * (1 + _TOLERANCE):
        return sentence
    return f"{sentence}; its ledger counts {claim.guarantee.epsilon:.4g}, for what was not admitted is spent as well"
