"""The inner loops, compiled by numba.

Each kernel works on one block of columns that fits a core's cache, releases the GIL, allocates next to nothing, and
knows neither sites nor names nor threads. Threading stays in :mod:`aegis.aggregation.columns`: numba's own thread pools
abort the process when two threads enter them at once.

Importing this module imports numba and compiles every kernel for its declared signatures, or loads it from the cache on
disk. Callers therefore import it on first use.

Fast-math is confined to the two sums of non-negative terms. Their order of addition is fixed at compile time and
depends on neither threads nor senders.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba
import numpy as np
from numba.extending import intrinsic
from numpy.typing import NDArray

TILE = 256
"""Columns that a kernel sorts or sums at once: 20 rows of them stay in a 48 KiB first-level cache."""

P = ParamSpec("P")
R = TypeVar("R")
_REASSOCIATE = frozenset({"reassoc", "contract"})


def _compiled(*signatures: str, fastmath: frozenset[str] = frozenset()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile for exactly ``signatures``, once, and keep the machine code on disk if possible."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        try:
            return _compile(function, signatures, fastmath, cache=True)
        except Exception:  # noqa: BLE001
            # Compiling in memory survives an unwritable cache folder, a full disk and a truncated cache entry. An
            # error in the kernel itself appears there again.
            return _compile(function, signatures, fastmath, cache=False)

    return decorate


def _compile(
    function: Callable[P, R], signatures: tuple[str, ...], fastmath: frozenset[str], *, cache: bool
) -> Callable[P, R]:
    compiled: Callable[P, R] = numba.njit(
        list(signatures), cache=cache, nogil=True, error_model="numpy", fastmath=set(fastmath)
    )(function)
    return compiled


def _int_to_pointer(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    types: Any = numba.types
    return types.CPointer(types.float32)(types.uintp), generate


_pointer: Any = intrinsic(_int_to_pointer)
"""An address as a pointer to float32, for compiled code alone."""
_carray: Any = numba.carray  # type: ignore[attr-defined]


@_compiled(
    "void(Array(uintp, 2, 'C', True), Array(int64, 1, 'C', True), int64, float32[:, ::1])",
    "void(Array(uintp, 2, 'C', True), Array(int64, 1, 'C', True), int64, float64[:, ::1])",
)
def gather(addresses: NDArray[np.uintp], starts: NDArray[np.int64], low: int, block: NDArray[Any]) -> None:
    """Copy the columns from ``low`` on into ``block``, one row for each update.

    One call copies a whole block without the GIL. A NumPy copy per row would take and release the GIL every few
    microseconds, and a second thread would then gain nothing.

    The caller vouches for the memory: row i, tensor t is ``starts[t + 1] - starts[t]`` aligned float32 values at
    ``addresses[i, t]``, and the columns exist. Shapes (n, t), (t + 1,), (n, w).
    """
    high = low + block.shape[1]
    for t in range(addresses.shape[1]):
        start, end = max(low, starts[t]), min(high, starts[t + 1])
        if start < end:
            for i in range(addresses.shape[0]):
                tensor = _carray(_pointer(addresses[i, t]), (starts[t + 1] - starts[t],))
                source, target = tensor[start - starts[t] : end - starts[t]], block[i, start - low : end - low]
                for k in range(end - start):
                    target[k] = source[k]


@_compiled("float64(Array(float32, 1, 'C', True))", fastmath=_REASSOCIATE)
def sum_of_squares(values: NDArray[np.float32]) -> float:
    """Return the float64 sum of squares, finite exactly if every value is: float64 holds (3.4e38)² 1e231 times."""
    total = 0.0
    for k in range(values.size):
        value = np.float64(values[k])
        total += value * value
    return total


@_compiled("void(float32[:, ::1], Array(float64, 1, 'C', True), float32[::1])")
def weighted_mean(block: NDArray[np.float32], weights: NDArray[np.float64], out: NDArray[np.float32]) -> None:
    """Average each column in float64, in row order, rounded once. Shapes (n, w), (n,), (w,)."""
    total_weight = weights.sum()
    width = block.shape[1]
    sums = np.empty(TILE, np.float64)
    for start in range(0, width, TILE):
        stop = min(start + TILE, width)
        sums[:] = 0.0
        for i in range(block.shape[0]):
            row, weight = block[i, start:stop], weights[i]
            for k in range(stop - start):
                sums[k] += weight * row[k]
        result = out[start:stop]
        for k in range(stop - start):
            result[k] = sums[k] / total_weight


@_compiled("void(float32[:, ::1], Array(int32, 2, 'C', True), int64, int64, float32[::1])")
def mean_of_middle(
    block: NDArray[np.float32], network: NDArray[np.int32], low: int, high: int, out: NDArray[np.float32]
) -> None:
    """Sort each column of ``block`` in place, then average its ``low``-th to ``high``-th smallest values.

    The values are added in ascending order, in float64 and starting from +0.0. The result therefore depends on the set
    of values alone, down to the sign of zero. Shapes (n, w), (comparators, 2), (w,).
    """
    width = block.shape[1]
    sums = np.empty(TILE, np.float64)
    for start in range(0, width, TILE):
        stop = min(start + TILE, width)
        for c in range(network.shape[0]):
            smaller, larger = block[network[c, 0], start:stop], block[network[c, 1], start:stop]
            for k in range(stop - start):
                a, b = smaller[k], larger[k]
                smaller[k] = a if a < b else b
                larger[k] = a if b < a else b
        sums[:] = 0.0
        for i in range(low, high):
            row = block[i, start:stop]
            for k in range(stop - start):
                sums[k] += row[k]
        result = out[start:stop]
        for k in range(stop - start):
            result[k] = sums[k] / (high - low)


@_compiled("void(float64[:, ::1], float64[:, ::1])", fastmath=_REASSOCIATE)
def add_squared_distances(block: NDArray[np.float64], totals: NDArray[np.float64]) -> None:
    """Add this block's share of every pair's squared distance to ``totals`` (on and above the diagonal).

    Differences are squared directly. The Gram form |a|² + |b|² - 2ab costs half as much, but loses every digit when
    updates are small against their common part. Three rows meet three rows at a time, so that each loaded value serves
    three times. Shapes (n, w), (n, n), with n a multiple of three: the caller pads.
    """
    count, width = block.shape
    for i in range(0, count, 3):
        a, b, c = block[i], block[i + 1], block[i + 2]
        for j in range(i, count, 3):
            x, y, z = block[j], block[j + 1], block[j + 2]
            ax = ay = az = bx = by = bz = cx = cy = cz = 0.0
            for k in range(width):
                ax += (a[k] - x[k]) ** 2
                ay += (a[k] - y[k]) ** 2
                az += (a[k] - z[k]) ** 2
                bx += (b[k] - x[k]) ** 2
                by += (b[k] - y[k]) ** 2
                bz += (b[k] - z[k]) ** 2
                cx += (c[k] - x[k]) ** 2
                cy += (c[k] - y[k]) ** 2
                cz += (c[k] - z[k]) ** 2
            sums = ((ax, ay, az), (bx, by, bz), (cx, cy, cz))
            for p in range(3):
                for q in range(3):
                    totals[i + p, j + q] += sums[p][q]
