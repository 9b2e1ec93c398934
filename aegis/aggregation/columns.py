"""Views many updates as one n × d matrix that is never built, and sweeps over the matrix block by block.

Copying twenty updates of a million values into one matrix costs more than averaging them. Instead, each worker gathers
one block of columns at a time into a scratch buffer in its own cache, and a kernel works there.

Chance decides which thread takes which block, but results do not show it: columns are independent, and
:mod:`aegis.aggregation.krum` adds its partial sums in a fixed order.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from aegis.errors import InvalidAggregation

Arrays: TypeAlias = Mapping[str, NDArray[np.float32]]
Layout: TypeAlias = Mapping[str, tuple[int, ...]]
"""Names and shapes of the model's tensors."""
Block: TypeAlias = tuple[int, int]
"""Columns from the first number up to, but not including, the second."""

T = TypeVar("T")
Item = TypeVar("Item")

_SCRATCH_BYTES = 1 << 19
_STEP = 256
_WORTH_A_THREAD = 1 << 18
_MAX_THREADS = 16


@dataclass(frozen=True)
class Columns:
    """``count`` updates of ``width`` values each. Tensors follow each other in the order of their names.

    Args:
        layout: names and shapes; decides the order of tensors in results, never the order of arithmetic.
        rows: for each update its tensors, flat and contiguous, in the order of their names.
    """

    layout: Layout
    rows: tuple[tuple[NDArray[np.float32], ...], ...]

    @classmethod
    def of(cls, updates: Sequence[Arrays], layout: Layout) -> Columns:
        """View ``updates``, which already have the names, shapes and dtype of ``layout``."""
        names = sorted(layout)
        return cls(layout, tuple(tuple(arrays[name].reshape(-1) for name in names) for arrays in updates))

    def __post_init__(self) -> None:
        # Compiled code reads these arrays by address, so no other kind of array may get past here.
        sizes = [prod(self.layout[name]) for name in sorted(self.layout)]
        for row in self.rows:
            if [tensor.size for tensor in row] != sizes or not all(_is_plain(tensor) for tensor in row):
                raise InvalidAggregation("the updates lack the layout's float32 tensors: screen the updates first")

    @property
    def count(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        sizes = (prod(self.layout[name]) for name in sorted(self.layout))
        return np.array(list(accumulate(sizes, initial=0)), np.int64)

    @cached_property
    def _addresses(self) -> NDArray[np.uintp]:
        table = [[tensor.ctypes.data for tensor in row] for row in self.rows]
        return np.array(table, np.uintp).reshape(self.count, len(self.layout))

    def pick(self, indices: Sequence[int]) -> Columns:
        """Return only the updates at ``indices``."""
        return Columns(self.layout, tuple(self.rows[i] for i in indices))

    def digest(self, index: int) -> bytes:
        """Return the SHA-256 over the values of one update."""
        sha = hashlib.sha256()
        for tensor in self.rows[index]:
            sha.update(tensor.data)
        return sha.digest()

    def blocks(self, itemsize: int) -> list[Block]:
        """Return blocks that cover every column. Their width depends on ``itemsize`` and the number of updates alone.

        The width is an odd number of steps, so that the rows of a block do not all fall on the same cache sets.
        """
        steps = max(5, _SCRATCH_BYTES // (max(1, self.count) * itemsize * _STEP)) | 1
        starts = range(0, self.width, steps * _STEP)
        return [(low, min(low + steps * _STEP, self.width)) for low in starts]

    def gather(self, block: Block, into: NDArray[Any]) -> None:
        """Copy the columns of ``block`` into ``into``: shape (count, width of the block), float32 or float64."""
        from aegis.aggregation import _kernels

        _kernels.gather(self._addresses, self._starts, block[0], into)

    def split(self, flat: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Cut ``flat`` (shape ``(width,)``) back into named tensors, in the order of the layout."""
        starts = dict(zip(sorted(self.layout), self._starts.tolist(), strict=False))
        return {
            name: flat[starts[name] : starts[name] + prod(shape)].reshape(shape) for name, shape in self.layout.items()
        }


def _is_plain(tensor: NDArray[np.float32]) -> bool:
    return tensor.dtype == np.float32 and tensor.flags.c_contiguous and tensor.flags.aligned


def usable_cores() -> int:
    """Return the number of cores that this process may run on, as far as the system reports it."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def sweep(items: Sequence[Item], values: int, worker: Callable[[Iterator[Item]], T]) -> list[T]:
    """Let ``worker`` consume ``items``, on several threads at once if ``values`` makes threads worthwhile.

    All workers draw from one queue, so that a busy core delays no other. Threads live for one call, so no thread
    remains to trip up a fork or a concurrent caller.
    """
    queue: SimpleQueue[Item] = SimpleQueue()
    for item in items:
        queue.put(item)
    threads = min(len(items), usable_cores(), _MAX_THREADS, 1 + values // _WORTH_A_THREAD)
    if threads <= 1:
        return [worker(_drain(queue))]
    with ThreadPoolExecutor(threads, thread_name_prefix="aggregation") as pool:
        return [future.result() for future in [pool.submit(worker, _drain(queue)) for _ in range(threads)]]


def _drain(queue: SimpleQueue[Item]) -> Iterator[Item]:
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return
