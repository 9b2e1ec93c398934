"""Answers two inverse questions: how much noise a target needs, and how many steps a target affords.

The module checks both answers against :func:`~coreason_enclave.accounting.composition.compose_epsilon` before returning
them, so neither answer ever overshoots. The search starts from the cheap Rényi bound: an upper bound, so whatever it
affords stays affordable. From there the search follows the tight bound until the bound meets the target.
"""

from __future__ import annotations

import math
from functools import lru_cache

from coreason_enclave.accounting.arguments import require_count, require_delta, require_epsilon
from coreason_enclave.accounting.composition import signed_epsilon
from coreason_enclave.accounting.events import PoissonSampledGaussian
from coreason_enclave.accounting.pld import ROUGH, TIGHT
from coreason_enclave.accounting.renyi import coarse_epsilon
from coreason_enclave.accounting.root_finding import last_affordable
from coreason_enclave.errors import AccountingError

CALIBRATION_TOLERANCE = 1e-3
MAX_STEPS = 1_000_000

_MIN_NOISE = 0.1
_MAX_NOISE = 1e6
_EXACT_STEPS = 20_000  # exact up to this many steps, above within 1 part in 20,000


def calibrate_noise(target_epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """Return the noise multiplier for which ``steps`` steps cost at most ``target_epsilon`` at ``delta``.

    The result lies at most 0.1 % above the smallest such multiplier, never below it, and never below 0.1.

    >>> calibrate_noise(3.0, 1e-5, sample_rate=0.05, steps=68) <= 1.0
    True

    Raises:
        AccountingError: no noise multiplier up to 1e6 reaches the target, or an argument is not a number in range.
    """
    require_epsilon(target_epsilon)
    require_delta(delta)
    require_count("steps", steps)
    if steps < 1:
        raise AccountingError(f"cannot calibrate noise for {steps} steps")
    PoissonSampledGaussian(1.0, sample_rate, steps)
    return _calibrated(float(target_epsilon), float(delta), float(sample_rate), steps)


@lru_cache(maxsize=1024)
def _calibrated(target: float, delta: float, rate: float, steps: int) -> float:
    """Search over ``-log(noise)``, in which epsilon rises: first with rough bounds, from there with tight bounds."""
    low, most = _sufficient_noise(target, delta, rate, steps), -math.log(_MIN_NOISE)

    def excess(quiet: float, tolerance: float = TIGHT) -> float:
        return signed_epsilon(PoissonSampledGaussian(math.exp(-quiet), rate, steps), delta, tolerance) - target

    def last(low: float, tolerance: float, width: float) -> float:
        return last_affordable(
            lambda quiet: excess(quiet, tolerance),
            low,
            most,
            stride=lambda quiet: quiet + max(5 * width, 2 * (quiet - low)),
            snap=lambda low, high, wanted: _inside(low, high, wanted, width),
        )

    if low == -math.log(_MAX_NOISE) and excess(low) > 0:
        raise AccountingError(
            f"no noise multiplier up to {_MAX_NOISE:g} keeps {steps} steps at rate {rate:g} within epsilon "
            f"{target:g} at delta {delta:g}: use fewer steps, a smaller rate or a larger target"
        )
    multiplier = last(last(low, ROUGH, 0.02), TIGHT, CALIBRATION_TOLERANCE / 2)
    return _MIN_NOISE if multiplier == most else math.exp(-multiplier)


def _inside(low: float, high: float, wanted: float, width: float) -> float | None:
    """Return a point of the bracket slightly beyond ``wanted``, seen from the nearer end, so that both ends close in.

    Return None once the bracket is at most ``width`` wide.
    """
    if high - low <= width:
        return None
    nudge = 0.4 * width * (1 if wanted - low < high - wanted else -1)
    margin = (high - low) * 0.02
    return min(max(wanted + nudge, low + margin), high - margin)


def _sufficient_noise(target: float, delta: float, rate: float, steps: int) -> float:
    """Return ``-log`` of a noise multiplier that meets the target by the Rényi bound, or else of the largest one."""

    def affordable_by_rdp(quiet: float) -> bool:
        return coarse_epsilon([PoissonSampledGaussian(math.exp(-quiet), rate, steps)], delta) <= target

    low, high = -math.log(_MAX_NOISE), -math.log(_MIN_NOISE)
    if affordable_by_rdp(high):
        return high
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (middle, high) if affordable_by_rdp(middle) else (low, middle)
    return low


def last_affordable_step(
    noise_multiplier: float,
    sample_rate: float,
    target_epsilon: float,
    delta: float,
    *,
    max_steps: int = MAX_STEPS,
) -> int:
    """Return the most steps, from 0 to ``max_steps``, that together cost at most ``target_epsilon`` at ``delta``.

    Above 20,000 steps the result may lie up to 1 part in 20,000 below the true maximum, never above.

    >>> last_affordable_step(1.0, 0.05, target_epsilon=3.0, delta=1e-5)
    68

    Raises:
        AccountingError: an argument is not a number in range.
    """
    require_epsilon(target_epsilon)
    require_delta(delta)
    event = PoissonSampledGaussian(noise_multiplier, sample_rate, require_count("max_steps", max_steps))
    return _last_affordable_step(event, float(target_epsilon), float(delta))


@lru_cache(maxsize=1024)
def _last_affordable_step(most: PoissonSampledGaussian, target: float, delta: float) -> int:
    def last(low: float, tolerance: float, share: float) -> float:
        return last_affordable(
            lambda steps: signed_epsilon(most.with_steps(round(steps)), delta, tolerance) - target,
            low,
            most.steps,
            stride=lambda steps: steps + 2 * (steps - low) if steps > low else math.ceil(steps * (1 + 5 * share)) + 1,
            snap=lambda low, high, wanted: _whole_number(low, high, wanted, max(1.0, share * low)),
        )

    surely = _affordable_by_rdp(most, target, delta)
    return round(last(last(surely, ROUGH, 0.02), TIGHT, 1 / _EXACT_STEPS))


def _whole_number(low: float, high: float, wanted: float, width: float) -> float | None:
    return None if high - low <= width else min(max(math.floor(wanted), low + 1), high - 1)


def _affordable_by_rdp(most: PoissonSampledGaussian, target: float, delta: float) -> int:
    low, high = 0, most.steps + 1
    while high - low > 1:
        middle = (low + high) // 2
        if coarse_epsilon([most.with_steps(middle)], delta) <= target:
            low = middle
        else:
            high = middle
    return low
