"""Names the changes that alone make a schedule fit its own cap, each checked by the accountant before it is named.

>>> found = changes_within_cap(
...     noise_multiplier=1.0, sample_rate=0.05, rounds=50, local_steps=10, delta=1e-5, cap=3.0)
>>> [change.words for change in found if change.entry == "rounds"]
['at most 6 rounds of 10 steps']
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from coreason_enclave.accounting.calibration import calibrate_noise, last_affordable_step
from coreason_enclave.accounting.composition import compose_epsilon
from coreason_enclave.accounting.events import PoissonSampledGaussian
from coreason_enclave.errors import AccountingError


@dataclass(frozen=True)
class Change:
    """One change of a job that alone makes its schedule fit its cap: an entry, its limit value, and words."""

    entry: str
    value: float
    words: str


def changes_within_cap(
    *, noise_multiplier: float, sample_rate: float, rounds: int, local_steps: int, delta: float, cap: float
) -> tuple[Change, ...]:
    """Return each change that alone makes a DP-SGD schedule cost at most ``cap`` by PLD; empty if the schedule fits.

    Raises:
        AccountingError: the numbers describe no schedule.
    """
    spent = _epsilon(noise_multiplier, sample_rate, rounds * local_steps, delta)
    if spent <= cap:
        return ()
    return tuple(_changes(noise_multiplier, sample_rate, rounds, local_steps, delta, cap, spent))


def _changes(
    sigma: float, rate: float, rounds: int, local_steps: int, delta: float, cap: float, spent: float
) -> Iterator[Change]:
    steps = rounds * local_steps
    affordable = last_affordable_step(sigma, rate, cap, delta, max_steps=steps)
    try:
        noise = rounded(calibrate_noise(cap, delta, rate, steps), up=True)
        yield Change("privacy.noise_multiplier", noise, f"a noise multiplier of at least {noise:g}")
    except AccountingError:
        pass
    yield from fewer_steps(affordable, rounds, local_steps)
    smaller = _largest_rate(lambda q: _epsilon(sigma, q, steps, delta) <= cap, rate)
    if smaller is not None:
        yield Change("privacy.sample_rate", smaller, f"a sample rate of at most {smaller:g}")
    larger = rounded(spent, up=True)
    yield Change("privacy.target_epsilon", larger, f"an epsilon cap of at least {larger:g}")


def fewer_steps(affordable: int, rounds: int, local_steps: int) -> Iterator[Change]:
    """Yield the most rounds of ``local_steps``, and the most steps in each of ``rounds``, within ``affordable`` steps.

    >>> [(change.entry, change.value) for change in fewer_steps(25, rounds=12, local_steps=10)]
    [('rounds', 2), ('local_steps', 2)]
    """
    fewer = affordable // local_steps
    if fewer:
        yield Change("rounds", fewer, f"at most {fewer} round{'s' if fewer > 1 else ''} of {local_steps} steps")
    shorter = affordable // rounds
    if shorter:
        yield Change("local_steps", shorter, f"local_steps of at most {shorter} in each of {rounds} rounds")


def _epsilon(sigma: float, rate: float, steps: int, delta: float) -> float:
    return compose_epsilon([PoissonSampledGaussian(sigma, rate, steps)], delta).epsilon


def _largest_rate(fits: Callable[[float], bool], above: float) -> float | None:
    """Return the largest sample rate that fits, rounded down to three digits; None below a thousandth of ``above``."""
    low, high = above / 1000, above
    if not fits(low):
        return None
    while high / low > 1.002:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    rate = rounded(low, up=False)
    return rate if fits(rate) else None


def rounded(value: float, *, up: bool) -> float:
    """Return ``value`` with three significant digits, rounded up or down.

    >>> rounded(1.2345, up=True), rounded(1.2345, up=False)
    (1.24, 1.23)
    """
    digits = 2 - math.floor(math.log10(value))
    scaled = value * 10.0**digits
    return round((math.ceil(scaled) if up else math.floor(scaled)) * 10.0**-digits, max(digits, 0))
