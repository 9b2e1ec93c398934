"""Turns the updates of one round into one delta: screen, count, combine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aegis.aggregation.columns import Columns, Layout
from aegis.aggregation.coordinatewise import mean, median, trimmed_mean
from aegis.aggregation.krum import most_central
from aegis.aggregation.screening import Contribution, Quarantine, Screened, SiteUpdate, screen
from aegis.errors import InvalidAggregation, TooFewUpdates
from coreason_enclave.schemas import Aggregator


@dataclass(frozen=True, eq=False)
class Aggregate:
    """The result of combining one round's updates.

    Args:
        rule: the applied rule, always the requested one.
        num_byzantine: number of hostile updates that the result withstands, wherever they were.
        delta: float32 tensors by name in the order of the layout, owned by the caller.
        used: sites whose values enter the result, sorted; for Krum the selected site.
        quarantined: why each other update was set aside before counting, by site name.
    """

    rule: Aggregator
    num_byzantine: int
    delta: Mapping[str, NDArray[np.float32]]
    used: tuple[str, ...]
    quarantined: Mapping[str, Quarantine]


def aggregate(
    contributions: Iterable[SiteUpdate],
    *,
    rule: Aggregator,
    num_byzantine: int,
    layout: Layout,
    max_norm: float,
    weight_cap: int | None = None,
) -> Aggregate:
    """Combine one round's updates by ``rule``.

    A pure function: the same updates in any order, on any number of threads, give the same bits. Values are accumulated
    in float64 and rounded to float32 once. The inputs stay unchanged.

    Args:
        contributions: updates in any order; screened first (see :func:`aegis.aggregation.screening.screen`).
        rule: how to combine the updates that pass.
        num_byzantine: largest number of hostile updates among them.
        layout: names and shapes of the model's tensors.
        max_norm: largest accepted Euclidean norm of a whole update.
        weight_cap: weighs each update by ``min(num_examples, weight_cap)``, for the mean alone. A site reports its own
            number, so only a declared cap bounds its claim. Left out, weights are uniform.

    Raises:
        TooFewUpdates: fewer than :func:`updates_needed` passed screening.
        InvalidAggregation: the call itself is wrong; see also :func:`screen`.
    """
    needed = updates_needed(rule, num_byzantine)
    _check_weighting(rule, weight_cap)
    screened = screen(contributions, layout, max_norm, weighted=weight_cap is not None)
    if len(screened.accepted) < needed:
        raise _too_few(rule, num_byzantine, needed, screened)
    columns = Columns.of([update.arrays for update in screened.accepted], layout)
    flat, used = _combine(columns, Aggregator(rule), num_byzantine, _weights(screened.accepted, weight_cap))
    return Aggregate(
        rule=Aggregator(rule),
        num_byzantine=num_byzantine,
        delta=columns.split(flat),
        used=tuple(screened.accepted[i].site_id for i in used),
        quarantined=screened.quarantined,
    )


def updates_needed(rule: Aggregator, num_byzantine: int) -> int:
    """Return the least number of admitted updates with which ``rule`` withstands ``num_byzantine`` hostile ones.

    >>> updates_needed(Aggregator.KRUM, 1), updates_needed(Aggregator.TRIMMED_MEAN, 1)
    (5, 3)
    """
    if type(num_byzantine) is not int or num_byzantine < 0:
        raise InvalidAggregation(f"num_byzantine must be a whole number of at least 0, got {num_byzantine!r:.80}")
    match rule:
        case Aggregator.MEAN if num_byzantine == 0:
            return 1
        case Aggregator.MEAN:
            raise InvalidAggregation("mean tolerates no Byzantine update: choose another rule or num_byzantine 0")
        case Aggregator.KRUM | Aggregator.MULTI_KRUM:
            return 2 * num_byzantine + 3
        case Aggregator.TRIMMED_MEAN | Aggregator.MEDIAN:
            return 2 * num_byzantine + 1
    raise InvalidAggregation(f"unknown aggregator {rule!r:.80}: choose one of {', '.join(Aggregator)}")


def _check_weighting(rule: Aggregator, weight_cap: int | None) -> None:
    if weight_cap is None:
        return
    if type(weight_cap) is not int or weight_cap < 1:
        raise InvalidAggregation(f"weight_cap must be a whole number of at least 1, got {weight_cap!r:.80}")
    if rule != Aggregator.MEAN:
        raise InvalidAggregation(f"{rule} counts sites, not examples: leave weight_cap out, or choose mean")


def _weights(updates: Sequence[Contribution], weight_cap: int | None) -> list[int] | None:
    if weight_cap is None:
        return None
    return [min(update.num_examples or 0, weight_cap) for update in updates]


def _combine(
    columns: Columns, rule: Aggregator, num_byzantine: int, weights: Sequence[int] | None
) -> tuple[NDArray[np.float32], Sequence[int]]:
    everyone = range(columns.count)
    match rule:
        case Aggregator.MEAN:
            return mean(columns, weights), everyone
        case Aggregator.TRIMMED_MEAN:
            return trimmed_mean(columns, num_byzantine), everyone
        case Aggregator.MEDIAN:
            return median(columns), everyone
        case Aggregator.KRUM | Aggregator.MULTI_KRUM:
            keep = 1 if rule is Aggregator.KRUM else columns.count - num_byzantine
            chosen = most_central(columns, num_byzantine, keep)
            return mean(columns.pick(chosen)), chosen


def _too_few(rule: Aggregator, num_byzantine: int, needed: int, screened: Screened) -> TooFewUpdates:
    aside = ", ".join(f"{site} ({reason})" for site, reason in screened.quarantined.items()) or "none"
    return TooFewUpdates(
        f"{rule} with num_byzantine={num_byzantine} needs at least {needed} admitted updates, got "
        f"{len(screened.accepted)} (set aside: {aside}): wait for more sites or repeat the round; the aggregator "
        "never falls back to a weaker rule",
        needed=needed,
        admitted=len(screened.accepted),
        quarantined=screened.quarantined,
    )
