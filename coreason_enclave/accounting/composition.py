"""Composition: turns all events that ran into one epsilon, by privacy loss distributions (PLD).

The result is the PLD bound (:mod:`~coreason_enclave.accounting.pld`) for add-or-remove-one and Poisson sampling. The
Rényi bound serves as cross-check and fall-back. Both are upper bounds, so the module reports the smaller one and
names its accountant. All answers take a bounded time. The module reports the Rényi bound, with a note, in these cases:

* delta below 1e-10;
* more than 10^9 steps;
* more than 16 different mechanisms, with whole Rényi orders only;
* noise multipliers below 0.04, unless every unit enters every step, where a closed form exists;
* a PLD bound above the Rényi bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from coreason_enclave.accounting.arguments import require_delta
from coreason_enclave.accounting.cross_check import rdp_epsilon
from coreason_enclave.accounting.events import Event, NonPrivate, PoissonSampledGaussian
from coreason_enclave.accounting.guarantee import Accountant, ComposedEpsilon
from coreason_enclave.accounting.pld import TIGHT, PldBound, Segments, pld_bound
from coreason_enclave.accounting.renyi import coarse_epsilon
from coreason_enclave.errors import AccountingError

PLD_DELTA_FLOOR = 1e-10

_MIN_NOISE = 1e-2
_MAX_NOISE = 1e9
_MAX_PLD_STEPS = 10**9
_MAX_STEPS = 10**15
_MAX_MECHANISMS = 16
_NONE = PldBound(math.inf)


def compose_epsilon(events: Iterable[Event], delta: float) -> ComposedEpsilon:
    """Return epsilon at ``delta`` of all ``events`` together; their order does not matter.

    The result holds for events fixed in advance. Jobs chosen in the light of earlier results need the lineage's Rényi
    filter instead (:mod:`coreason_enclave.ledger`).

    >>> run = PoissonSampledGaussian(noise_multiplier=1.1, sample_rate=1 / 235, steps=3_525)
    >>> answer = compose_epsilon([run], delta=1e-5)
    >>> print(f"{answer.epsilon:.2f} by {answer.accountant}, {answer.rdp_epsilon:.2f} by RDP")
    1.13 by PLD, 1.28 by RDP

    Raises:
        AccountingError: ``delta`` is not in (0, 1), or the noise is too little or the steps too many for accounting.
    """
    require_delta(delta)
    history = tuple(events)
    if any(isinstance(event, NonPrivate) for event in history):
        return ComposedEpsilon(
            epsilon=math.inf,
            delta=delta,
            accountant=Accountant.PLD,
            rdp_epsilon=math.inf,
            note="one of the events is non-private training: no finite epsilon covers it",
        )
    segments = merge_segments(event for event in history if isinstance(event, PoissonSampledGaussian))
    return _compose(segments, float(delta))


def merge_segments(events: Iterable[PoissonSampledGaussian]) -> Segments:
    """Add up equal mechanisms, drop empty ones, and sort the rest, so that the input's order has no effect."""
    steps: dict[tuple[float, float], int] = {}
    for event in events:
        key = (float(event.noise_multiplier), float(event.sample_rate))
        steps[key] = steps.get(key, 0) + event.steps
    return tuple(PoissonSampledGaussian(*key, count) for key, count in sorted(steps.items()) if count)


@lru_cache(maxsize=4096)
def _compose(segments: Segments, delta: float) -> ComposedEpsilon:
    if not segments:
        return ComposedEpsilon(epsilon=0.0, delta=delta, accountant=Accountant.PLD, rdp_epsilon=0.0)
    segments = _in_range(segments)
    renyi = _renyi(segments, delta)
    pld, note = _pld(segments, delta)
    if pld.epsilon <= renyi:
        return ComposedEpsilon(
            epsilon=pld.epsilon, delta=delta, accountant=Accountant.PLD, rdp_epsilon=renyi, note=note
        )
    if pld.coarse or not note:
        note = "the Rényi bound is the smaller one here"
    return ComposedEpsilon(epsilon=renyi, delta=delta, accountant=Accountant.RDP, rdp_epsilon=renyi, note=note)


def epsilon_bound(event: PoissonSampledGaussian, delta: float) -> float:
    """Return an upper bound on :func:`compose_epsilon`: practically equal, without the cost of the cross-check."""
    return max(0.0, signed_epsilon(event, delta))


def signed_epsilon(event: PoissonSampledGaussian, delta: float, tolerance: float = TIGHT) -> float:
    """Return :func:`epsilon_bound`, but negative where a negative epsilon suffices: smooth in noise, rate and steps.

    A larger ``tolerance`` gives a looser bound in less time.
    """
    require_delta(delta)
    segments = merge_segments([event])
    if not segments:
        return math.log1p(-delta)
    segments = _in_range(segments)
    pld, _ = _pld(segments, delta, tolerance)
    return pld.signed if math.isfinite(pld.signed) and not pld.coarse else min(pld.signed, _renyi(segments, delta))


def _in_range(segments: Segments) -> Segments:
    """Return the segments, with noise multipliers above 1e9 cut to 1e9.

    Less noise gives an upper bound, and floats cannot distinguish 1e9 from a thousand times more.

    Raises:
        AccountingError: too little noise, or too many steps, for a meaningful number.
    """
    if min(segment.noise_multiplier for segment in segments) < _MIN_NOISE:
        raise AccountingError(f"too little noise for the accountant: raise noise_multiplier to at least {_MIN_NOISE:g}")
    if sum(segment.steps for segment in segments) > _MAX_STEPS:
        raise AccountingError(f"the accountant supports at most {_MAX_STEPS:.0e} steps")
    return tuple(replace(s, noise_multiplier=min(s.noise_multiplier, _MAX_NOISE)) for s in segments)


def _renyi(segments: Segments, delta: float) -> float:
    if len(segments) > _MAX_MECHANISMS:
        return coarse_epsilon(segments, delta)
    return rdp_epsilon(segments, delta)


@lru_cache(maxsize=4096)
def _pld(segments: Segments, delta: float, tolerance: float = TIGHT) -> tuple[PldBound, str]:
    """Return the PLD bound, infinite if no bound exists, and a note for the reader."""
    steps = sum(segment.steps for segment in segments)
    if delta < PLD_DELTA_FLOOR:
        return _NONE, f"below delta {PLD_DELTA_FLOOR:g} a PLD is mostly rounding error: the value is the Rényi bound"
    if steps > _MAX_PLD_STEPS:
        return _NONE, f"a PLD over {steps} steps would be mostly rounding error: the value is the Rényi bound"
    if len(segments) > _MAX_MECHANISMS:
        return _NONE, f"a PLD of {len(segments)} different mechanisms would take too long: the value is the Rényi bound"
    bound = pld_bound(segments, delta, tolerance)
    if math.isinf(bound.signed):
        return _NONE, "the PLD of so little noise does not fit into floats: the value is the Rényi bound"
    return bound, "computed on a coarse grid: the tight bound may be smaller" if bound.coarse else ""
