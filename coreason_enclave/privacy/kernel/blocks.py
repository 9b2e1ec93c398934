"""Blocks of rows with a public size: the rounding of a product depends on its number of rows.

Zero rows fill a batch of the private loader up to :meth:`Blocks.rows_for`. A sample exceeds the first size about once
in a thousand million draws. A larger sample (or persons with many rows) gets the first size times a power of two. The
divisor of the mean over the block then differs from the first block's by a power of two, an exact factor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from coreason_enclave.errors import UnsafeTrainingError

ROW_MULTIPLE = 64
"""A block has a multiple of this number of rows per thread, so no element-wise function meets a scalar tail."""

_DEVIATIONS = 6.0


@dataclass(frozen=True)
class Blocks:
    """The possible sizes of a block: ``first`` times a power of two.

    >>> declared_blocks(sample_rate=0.05, nominal_units=1000)
    Blocks(first=128)
    >>> declared_blocks(sample_rate=0.05, nominal_units=1000).rows_for(300)
    512
    """

    first: int

    def rows_for(self, rows: int) -> int:
        """Return the size of the block for ``rows`` rows."""
        size = self.first
        while size < rows:
            size *= 2
        return size

    def scale(self, size: int) -> float:
        """Return the power of two that multiplies gradients of a mean over ``size`` rows where they enter the model.

        The scaled gradients in the layers are the same for every size, bit for bit, and never small because of the
        size.
        """
        return (size // self.first) * 2.0 ** math.floor(math.log2(self.first))

    def weight(self, size: int) -> float:
        """Return the remaining factor after :meth:`scale`, from 1 up to 2."""
        return size / self.scale(size)


def declared_blocks(sample_rate: float, nominal_units: int) -> Blocks:
    """Return the blocks of a Poisson sampler, from declared numbers and the number of threads alone."""
    expected = sample_rate * nominal_units
    most = expected + _DEVIATIONS * math.sqrt(expected * (1 - sample_rate))
    multiple = ROW_MULTIPLE * torch.get_num_threads()
    return Blocks(max(1, math.ceil(most / multiple)) * multiple)


def filled(batch: Any, size: int) -> Any:
    """Return ``batch`` with zero rows appended to each of its tensors, up to ``size`` rows."""
    if isinstance(batch, torch.Tensor):
        rows = batch.new_zeros((size, *batch.shape[1:]))
        rows[: len(batch)] = batch
        return rows
    if isinstance(batch, Mapping):
        return {key: filled(value, size) for key, value in batch.items()}
    if isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        return [filled(value, size) for value in batch]
    raise UnsafeTrainingError(f"cannot pad a batch of {type(batch).__name__} with empty rows: collate rows to tensors")
