"""Sorting networks: fixed sequences of compare-exchanges that sort any input of a given length.

The sequence does not depend on the data. The same comparator can therefore run over thousands of columns at once with
vector minimum and maximum, and hostile values can neither slow it down nor change its path.

Source: K. E. Batcher, "Sorting networks and their applications", AFIPS 1968 (odd-even merge sort), in the iterative
form for any length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=64)
def comparators(count: int, low: int, high: int) -> NDArray[np.int32]:
    """Return the compare-exchanges that put the ``low``-th to ``high``-th smallest of ``count`` values in place.

    Positions outside ``range(low, high)`` end up with the right values in no particular order. Comparators for these
    positions alone are left out, without changing a bit of the kept values.

    Returns:
        Shape (number of comparators, 2), read-only: the smaller value goes to the first position of each pair.
    """
    kept = _needed_for(range(low, high), list(_odd_even_merge_sort(count)))
    network = np.array(kept, dtype=np.int32).reshape(-1, 2)
    network.flags.writeable = False
    return network


def _odd_even_merge_sort(count: int) -> Iterator[tuple[int, int]]:
    run = 1
    while run < count:
        distance = run
        while distance >= 1:
            yield from _merge_layer(count, run, distance)
            distance //= 2
        run *= 2


def _merge_layer(count: int, run: int, distance: int) -> Iterator[tuple[int, int]]:
    for start in range(distance % run, count - distance, 2 * distance):
        for first in range(start, min(start + distance, count - distance)):
            second = first + distance
            if first // (2 * run) == second // (2 * run):
                yield first, second


def _needed_for(positions: Iterable[int], network: list[tuple[int, int]]) -> list[tuple[int, int]]:
    live = set(positions)
    kept = []
    for first, second in reversed(network):
        if first in live or second in live:
            live |= {first, second}
            kept.append((first, second))
    return kept[::-1]
