"""Krum and Multi-Krum: keep the updates whose nearest neighbours are nearest.

Source: P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer, "Machine learning with adversaries: Byzantine tolerant
gradient descent", NeurIPS 2017. Both rules need n >= 2f + 3, which the caller has checked.

Multi-Krum keeps n - f updates, the number of honest updates. At least n - f updates have a score no worse than the
worst honest update, so no kept update lies further from an honest one than Krum's single choice may lie.

Resilience in expectation is proven for n - f - 2 kept updates by E. M. El Mhamdi, R. Guerraoui, S. Rouault, "The hidden
vulnerability of distributed learning in Byzantium", ICML 2018. Keeping n - f - 2 would drop honest sites that differ,
at a measurable cost in utility.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from aegis.aggregation.columns import Block, Columns, sweep

_PARTIAL_SUMS = 16


def most_central(columns: Columns, num_byzantine: int, keep: int) -> tuple[int, ...]:
    """Return the indices of the ``keep`` updates with the lowest Krum score, ascending by index.

    Equal scores are ordered by the content of the updates, then by index. The outcome therefore depends on content
    alone; senders decide only between identical updates.
    """
    values = scores(squared_distances(columns), num_byzantine)
    return tuple(sorted(_ranked(columns, values.tolist())[:keep]))


def scores(distances: NDArray[np.float64], num_byzantine: int) -> NDArray[np.float64]:
    """Return each update's sum of squared distances to its n - f - 2 nearest neighbours. Shape (n,)."""
    neighbours = len(distances) - num_byzantine - 2
    # A sorted row starts with a zero, the update's distance to itself, which does not count.
    nearest = np.sort(distances, axis=1)[:, 1 : 1 + neighbours]
    return np.asarray(nearest.sum(axis=1))


def _ranked(columns: Columns, values: list[float]) -> list[int]:
    shared = {value for value, times in Counter(values).items() if times > 1}
    keys = [(value, columns.digest(i) if value in shared else b"", i) for i, value in enumerate(values)]
    return [i for _, _, i in sorted(keys)]


def squared_distances(columns: Columns) -> NDArray[np.float64]:
    """Return the squared Euclidean distance of every pair of updates, shape (n, n), symmetric with a zero diagonal.

    Differences are taken and squared in float64, without cancellation. The relative error of each distance stays within
    width * 2**-53, however close two updates lie and however large their common part.

    The blocks are cut into a fixed number of runs. The sums of the runs are added in order, whichever thread made them.
    """
    blocks = columns.blocks(itemsize=8)
    cuts = [len(blocks) * i // _PARTIAL_SUMS for i in range(_PARTIAL_SUMS + 1)]
    padded = columns.count + -columns.count % 3
    partial = np.zeros((_PARTIAL_SUMS, padded, padded))

    def work(share: Iterator[int]) -> None:
        for run in share:
            _add_blocks(columns, blocks[cuts[run] : cuts[run + 1]], partial[run])

    sweep(range(_PARTIAL_SUMS), columns.count * columns.width, work)
    upper = np.triu(partial.sum(axis=0), 1)[: columns.count, : columns.count]
    return np.asarray(upper + upper.T)


def _add_blocks(columns: Columns, blocks: list[Block], totals: NDArray[np.float64]) -> None:
    from aegis.aggregation import _kernels

    rows = len(totals)
    scratch = np.zeros(rows * max((high - low for low, high in blocks), default=0))
    for low, high in blocks:
        block = scratch[: rows * (high - low)].reshape(rows, high - low)
        columns.gather((low, high), block[: columns.count])
        block[columns.count :] = 0.0
        _kernels.add_squared_distances(block, totals)
