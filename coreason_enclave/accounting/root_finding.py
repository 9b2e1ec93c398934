"""Searches for the last point at which a rising function is at most 0, in few evaluations.

The search starts from a point known to be affordable, goes outwards until the function turns positive, and closes the
bracket by false position. If false position does not halve the bracket in two steps, the third step bisects. The search
returns an evaluated point or the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Position = float


def last_affordable(
    excess: Callable[[float], float],
    low: float,
    high: float,
    *,
    stride: Callable[[float], float],
    snap: Callable[[float, float, float], float | None],
) -> float:
    """Return the last point of [``low``, ``high``] at which ``excess`` is at most 0, assuming ``excess(low) <= 0``.

    Args:
        excess: rises with its argument.
        stride: returns the next, larger point to try until a point with positive ``excess`` turns up.
        snap: returns the admissible point inside a bracket (lower end, upper end) nearest to a third argument, or None
            once the bracket is narrow enough.
    """
    below = excess(low)
    if below > 0:
        return low
    while True:
        if low >= high:
            return low
        probe = min(high, stride(low))
        value = excess(probe)
        if value > 0:
            return _closed_in(excess, low, below, probe, value, snap)
        low, below = probe, value


def _closed_in(
    excess: Callable[[float], float],
    low: float,
    below: float,
    high: float,
    above: float,
    snap: Callable[[float, float, float], float | None],
) -> float:
    widths = [high - low]
    while True:
        stuck = len(widths) > 2 and widths[-1] > widths[-3] / 2
        share = 0.5 if stuck or not math.isfinite(above) else -below / (above - below)
        probe = snap(low, high, low + share * (high - low))
        if probe is None:
            return low
        value = excess(probe)
        if value > 0:
            high, above = probe, value
        else:
            low, below = probe, value
        widths.append(high - low)
