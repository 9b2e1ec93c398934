"""Aggregators that treat every coordinate by itself: mean, trimmed mean and median.

Source: D. Yin, Y. Chen, K. Ramchandran, P. Bartlett, "Byzantine-robust distributed learning: towards optimal
statistical rates", ICML 2018 (trimmed mean, definition 2; median, definition 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from aegis.aggregation.columns import Block, Columns, sweep
from aegis.aggregation.networks import comparators

Floats: TypeAlias = NDArray[np.float32]


def mean(columns: Columns, weights: Sequence[int] | None = None) -> Floats:
    """Return the mean of the updates, uniform without ``weights`` (one positive number per update).

    Returns:
        Shape ``(columns.width,)``. Accumulated in float64, rounded once.
    """
    from aegis.aggregation import _kernels

    factors = np.asarray(weights if weights is not None else np.ones(columns.count), dtype=np.float64)
    return _each_column(columns, lambda block, out: _kernels.weighted_mean(block, factors, out))


def trimmed_mean(columns: Columns, num_byzantine: int) -> Floats:
    """Return the mean in every coordinate, without the ``num_byzantine`` smallest and largest values.

    If at most ``num_byzantine`` of the updates are hostile, every coordinate of the result lies between the smallest
    and the largest honest value. The caller has checked that ``2 * num_byzantine < columns.count``. With
    ``num_byzantine == 0`` the result equals :func:`mean`, bit for bit.
    """
    if num_byzantine == 0:
        return mean(columns)
    return _mean_of_middle(columns, num_byzantine)


def median(columns: Columns) -> Floats:
    """Return the median in every coordinate; for an even number of updates, the mean of the middle two."""
    return _mean_of_middle(columns, (columns.count - 1) // 2)


def _mean_of_middle(columns: Columns, trimmed: int) -> Floats:
    from aegis.aggregation import _kernels

    low, high = trimmed, columns.count - trimmed
    network = comparators(columns.count, low, high)
    return _each_column(columns, lambda block, out: _kernels.mean_of_middle(block, network, low, high, out))


def _each_column(columns: Columns, kernel: Callable[[Floats, Floats], None]) -> Floats:
    """Run ``kernel(block, out)`` over all columns; every block writes its own part of the result."""
    result = np.empty(columns.width, np.float32)
    blocks = columns.blocks(itemsize=4)

    def work(share: Iterator[Block]) -> None:
        scratch = np.empty(columns.count * max((high - low for low, high in blocks), default=0), np.float32)
        for low, high in share:
            block = scratch[: columns.count * (high - low)].reshape(columns.count, high - low)
            columns.gather((low, high), block)
            kernel(block, result[low:high])

    sweep(blocks, columns.count * columns.width, work)
    return result
