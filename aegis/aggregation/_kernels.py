"""The four inner loops, compiled by numba.

Each works on one block of columns that fits a core's cache, releases the GIL, allocates next to nothing and
knows nothing of sites, names or threads. Threading stays in :mod:`aegis.aggregation.columns`: numba's own
thread pools abort the process when two threads enter them at once.

A kernel is compiled for one declared signature at its first call and cached on disk, so importing the package
costs neither numba nor a compilation. Fast-math is confined to the two sums of non-negative terms; their
order of addition is fixed when they are compiled and never depends on threads or on who sent what.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Generic, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["TILE", "add_squared_distances", "mean_of_middle", "sum_of_squares", "weighted_mean"]

TILE = 256
"""Columns a kernel sorts or sums at once: 20 rows of them stay in a 48 KiB first-level cache."""

P = ParamSpec("P")
R = TypeVar("R")
_REASSOCIATE = frozenset({"reassoc", "contract"})


class _Kernel(Generic[P, R]):
    """A function that becomes machine code for one signature when it is first called, once per process."""

    def __init__(self, function: Callable[P, R], signature: str, fastmath: frozenset[str]) -> None:
        self._function, self._signature, self._fastmath = function, signature, fastmath
        self._machine_code: Callable[P, R] | None = None
        self._compiling = Lock()

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return (self._machine_code or self._compile())(*args, **kwargs)

    def _compile(self) -> Callable[P, R]:
        with self._compiling:
            if self._machine_code is None:
                try:
                    self._machine_code = self._jit(cache=True)
                except Exception:  # noqa: BLE001
                    # No writable cache folder, a full disk, a truncated cache entry: compiling in memory
                    # survives them all, and an error in the kernel itself comes back from there.
                    self._machine_code = self._jit(cache=False)
            return self._machine_code

    def _jit(self, *, cache: bool) -> Callable[P, R]:
        import numba

        compile_for = numba.njit(
            [self._signature], cache=cache, nogil=True, error_model="numpy", fastmath=set(self._fastmath)
        )
        compiled: Callable[P, R] = compile_for(self._function)
        return compiled


def _compiled(signature: str, fastmath: frozenset[str] = frozenset()) -> Callable[[Callable[P, R]], _Kernel[P, R]]:
    return lambda function: _Kernel(function, signature, fastmath)


@_compiled("float64(Array(float32, 1, 'C', True))", fastmath=_REASSOCIATE)
def sum_of_squares(values: NDArray[np.float32]) -> float:
    """Sum of squares in float64, finite exactly when every value is: float64 holds (3.4e38)² 1e231 times."""
    total = 0.0
    for k in range(values.size):
        value = np.float64(values[k])
        total += value * value
    return total


@_compiled("void(float32[:, ::1], Array(float64, 1, 'C', True), float32[::1])")
def weighted_mean(block: NDArray[np.float32], weights: NDArray[np.float64], out: NDArray[np.float32]) -> None:
    """Mean of each column, accumulated in float64 in row order, rounded once. Shapes (n, w), (n,), (w,)."""
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

    The values are added in ascending order, in float64 and starting from +0.0, so the result is a function of
    the set of values alone, down to the sign of zero. Shapes (n, w), (comparators, 2), (w,).
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

    Differences are squared directly. The Gram form |a|² + |b|² - 2ab costs half as much and loses every digit
    when updates are small against what they share. Three rows meet three rows at a time, so that each value
    loaded is used three times. Shapes (n, w), (n, n), with n a multiple of three: the caller pads.
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
