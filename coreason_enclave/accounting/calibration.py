"""The two inverse questions: how much noise a target needs, and how many steps a target affords.

Both answers are checked against what :func:`~coreason_enclave.accounting.composition.compose_epsilon` reports
before they are given, so neither ever overshoots. The cheap Rényi bound brackets the answer first, because it
is an upper bound: what it affords is affordable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from coreason_enclave.accounting.composition import epsilon_bound
from coreason_enclave.accounting.events import PoissonSampledGaussian
from coreason_enclave.accounting.renyi import coarse_epsilon, require_epsilon
from coreason_enclave.errors import AccountingError

__all__ = ["CALIBRATION_TOLERANCE", "MAX_STEPS", "calibrate_noise", "last_affordable_step"]

CALIBRATION_TOLERANCE = 1e-3
MAX_STEPS = 1_000_000

_LEAST_NOISE = 0.1
_MOST_NOISE = 1e6


@lru_cache(maxsize=1024)
def calibrate_noise(target_epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    """The noise multiplier for which ``steps`` steps cost at most ``target_epsilon`` at ``delta``.

    At most 0.1 % above the smallest such, never below it, and never below 0.1.

    >>> calibrate_noise(3.0, 1e-5, sample_rate=0.05, steps=68) <= 1.0
    True

    Raises:
        AccountingError: no noise multiplier up to 1e6 reaches the target, or a number is out of range.
    """
    require_epsilon(target_epsilon)
    if steps < 1:
        raise AccountingError(f"there is nothing to calibrate for {steps} steps")

    def excess(log_noise: float) -> float:
        event = PoissonSampledGaussian(math.exp(log_noise), sample_rate, steps)
        return epsilon_bound(event, delta) - target_epsilon

    high = _noise_that_suffices(excess, target_epsilon, delta, sample_rate, steps)
    least = math.log(_LEAST_NOISE)
    if high <= least or excess(least) <= 0:
        return _LEAST_NOISE
    return math.exp(_smallest_root(excess, least, high))


def _noise_that_suffices(
    excess: Callable[[float], float], target: float, delta: float, sample_rate: float, steps: int
) -> float:
    """Log of a noise multiplier that certainly meets the target: by the Rényi bound, else by doubling."""

    def affordable_by_rdp(log_noise: float) -> bool:
        event = PoissonSampledGaussian(math.exp(log_noise), sample_rate, steps)
        return coarse_epsilon([event], delta) <= target

    low, high = math.log(_LEAST_NOISE), math.log(_MOST_NOISE)
    if not affordable_by_rdp(high):
        if excess(high) <= 0:
            return high
        raise AccountingError(
            f"no noise multiplier up to {_MOST_NOISE:g} keeps {steps} steps at rate {sample_rate:g} within "
            f"epsilon {target:g} at delta {delta:g}: take fewer steps, a smaller rate or a larger target"
        )
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (low, middle) if affordable_by_rdp(middle) else (middle, high)
    return high


def _smallest_root(excess: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses zero, from above: the returned point was seen not to exceed it.

    Works outwards from ``high`` by tenths, since the answer is near it, then by false position aimed slightly
    to either side of the crossing, so that both ends of the bracket close in.
    """
    above = excess(high)
    probe = high
    while True:
        probe = max(low, probe - 0.1)
        value = excess(probe)
        if value > 0 or probe == low:
            break
        high, above = probe, value
    low, below = probe, value
    while high - low > CALIBRATION_TOLERANCE / 2:
        crossing = low + (high - low) * below / (below - above)
        nudge = CALIBRATION_TOLERANCE / 5 * (1 if crossing - low < high - crossing else -1)
        probe = min(max(crossing + nudge, low + (high - low) * 0.02), high - (high - low) * 0.02)
        value = excess(probe)
        if value > 0:
            low, below = probe, value
        else:
            high, above = probe, value
    return high


@lru_cache(maxsize=1024)
def last_affordable_step(
    noise_multiplier: float,
    sample_rate: float,
    target_epsilon: float,
    delta: float,
    *,
    max_steps: int = MAX_STEPS,
) -> int:
    """The most steps, from 0 to ``max_steps``, that together cost at most ``target_epsilon`` at ``delta``.

    >>> last_affordable_step(1.0, 0.05, target_epsilon=3.0, delta=1e-5)
    68

    Raises:
        AccountingError: a number is out of range.
    """
    require_epsilon(target_epsilon)
    if max_steps < 0:
        raise AccountingError(f"max_steps must be at least 0, got {max_steps}")

    def affordable(steps: int) -> bool:
        event = PoissonSampledGaussian(noise_multiplier, sample_rate, steps)
        return epsilon_bound(event, delta) <= target_epsilon

    def affordable_by_rdp(steps: int) -> bool:
        event = PoissonSampledGaussian(noise_multiplier, sample_rate, steps)
        return coarse_epsilon([event], delta) <= target_epsilon

    surely = _largest(affordable_by_rdp, 0, max_steps)
    return _largest(affordable, surely, max_steps)


def _largest(holds: Callable[[int], bool], low: int, most: int) -> int:
    """The largest number up to ``most`` with a property that ``low`` has and that, once lost, stays lost."""
    stride = max(1, low // 3)
    while low < most:
        probe = min(most, low + stride)
        if not holds(probe):
            return _bisect(holds, low, probe)
        low, stride = probe, 2 * stride
    return low


def _bisect(holds: Callable[[int], bool], low: int, high: int) -> int:
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
