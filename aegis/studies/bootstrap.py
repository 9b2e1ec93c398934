"""Bootstrap intervals of measures, resampled over persons or other groups, so that related rows stay together.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, percentile intervals. Whole groups are drawn
with replacement: rows of one person are no independent evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Measure = Callable[[npt.NDArray[np.float64], npt.NDArray[Any]], Mapping[str, float]]

LEVEL = 0.95
"""The coverage that the intervals aim at."""


def intervals(
    measure: Measure,
    predicted: npt.NDArray[np.float64],
    labels: npt.NDArray[Any],
    groups: npt.NDArray[np.int64] | None,
    samples: int,
    rng: np.random.Generator,
) -> dict[str, tuple[float, float]]:
    """Return the 95 % percentile interval of each measure.

    Args:
        measure: returns measures by name; a measure that a resample does not define may be left out there.
        predicted, labels: n rows each.
        groups: the group of each row, (n,), any whole numbers; None: every row is a group of its own.
        samples: number of resamples, at least 1.

    Returns:
        No interval for fewer than two groups, nor for a measure that under half of the resamples define.

    >>> rng = np.random.default_rng(0)
    >>> values = np.arange(100.0)
    >>> low, high = intervals(lambda p, y: {"mean": float(p.mean())}, values, values, None, 200, rng)["mean"]
    >>> 40 < low < 49.5 < high < 60
    True
    """
    codes = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    if len(sizes) < 2:
        return {}
    starts = np.cumsum(sizes) - sizes
    found: dict[str, list[float]] = {}
    for _ in range(samples):
        drawn = rng.integers(0, len(sizes), len(sizes))
        rows = order[_ranges(starts[drawn], sizes[drawn])]
        for name, value in measure(predicted[rows], labels[rows]).items():
            found.setdefault(name, []).append(value)
    tail = (1 - LEVEL) / 2 * 100
    return {
        name: (float(np.percentile(values, tail)), float(np.percentile(values, 100 - tail)))
        for name, values in found.items()
        if 2 * len(values) >= samples
    }


def _ranges(starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return ``start, start + 1, ...`` of each range in turn."""
    before = np.cumsum(sizes) - sizes
    return np.asarray(np.arange(int(sizes.sum())) + np.repeat(starts - before, sizes), np.int64)
