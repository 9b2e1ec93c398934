"""Blocks of rows whose size is public: what a product rounds to depends on how many rows it has.

A batch of the private loader is filled with zero rows up to :meth:`Blocks.rows_for`, which a sample exceeds about once
in a thousand million draws. A larger sample (or persons with many rows) is filled to that size times a power of two:
the mean over a block then divides by a number that differs from the first block's by a power of two, which is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from coreason_enclave.errors import UnsafeTrainingError

__all__ = ["ROW_MULTIPLE", "Blocks", "declared_blocks", "filled"]

ROW_MULTIPLE = 64
"""Rows of a block are a multiple of this for each thread: no element-wise function then meets a scalar tail."""

_DEVIATIONS = 6.0


@dataclass(frozen=True)
class Blocks:
    """The sizes that a block may have: ``first`` times a power of two.

    >>> declared_blocks(sample_rate=0.05, nominal_units=1000)
    Blocks(first=128)
    >>> declared_blocks(sample_rate=0.05, nominal_units=1000).rows_for(300)
    512
    """

    first: int

    def rows_for(self, rows: int) -> int:
        """The size of the block that holds so many rows."""
        size = self.first
        while size < rows:
            size *= 2
        return size

    def scale(self, size: int) -> float:
        """The power of two by which gradients of a mean over ``size`` rows are multiplied where they enter the model.

        What flows through the layers is then the same for every size, bit for bit, and never small because of it.
        """
        return (size // self.first) * 2.0 ** math.floor(math.log2(self.first))

    def weight(self, size: int) -> float:
        """What is left to multiply by after :meth:`scale`, from 1 up to 2."""
        return size / self.scale(size)


def declared_blocks(sample_rate: float, nominal_units: int) -> Blocks:
    """The blocks of a Poisson sampler, from declared numbers alone and the number of threads."""
    expected = sample_rate * nominal_units
    most = expected + _DEVIATIONS * math.sqrt(expected * (1 - sample_rate))
    multiple = ROW_MULTIPLE * torch.get_num_threads()
    return Blocks(max(1, math.ceil(most / multiple)) * multiple)


def filled(batch: Any, size: int) -> Any:
    """``batch`` with zero rows appended to each of its tensors, up to ``size`` rows."""
    if isinstance(batch, torch.Tensor):
        rows = batch.new_zeros((size, *batch.shape[1:]))
        rows[: len(batch)] = batch
        return rows
    if isinstance(batch, Mapping):
        return {key: filled(value, size) for key, value in batch.items()}
    if isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        return [filled(value, size) for value in batch]
    raise UnsafeTrainingError(f"cannot fill a batch of {type(batch).__name__} with empty rows: collate to tensors")
