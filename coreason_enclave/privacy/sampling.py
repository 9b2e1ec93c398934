"""Poisson sampling of units, the only sampling scheme with an accounting here.

Accounting a shuffled loader as Poisson under-reports epsilon severely. :func:`require_convertible` therefore refuses
loaders that shuffle or weigh rows. The private loader samples *units*: rows, or persons with all their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Sampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from coreason_enclave.crypto import Keystream
from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.privacy.kernel import GradientKernel, filled
from coreason_enclave.privacy.step_gate import Batch, StepGate

Indices = npt.NDArray[np.int64]


class UnitIndex:
    """Index from rows to their units.

    Args:
        unit_of_row: shape (rows,), any integers; each distinct value names a unit. None: every row forms its own unit.
        rows: number of rows in the dataset.
    """

    def __init__(self, unit_of_row: npt.NDArray[Any] | None, rows: int) -> None:
        if unit_of_row is not None and unit_of_row.shape != (rows,):
            raise UnsafeTrainingError(f"unit ids of shape {unit_of_row.shape} for {rows} rows: each row needs one id")
        codes = np.arange(rows) if unit_of_row is None else np.unique(unit_of_row, return_inverse=True)[1]
        self._order = np.argsort(codes, kind="stable")
        self._code_in_order = codes[self._order]
        self.count = int(codes.max()) + 1 if rows else 0

    def batch(self, included: npt.NDArray[np.bool_]) -> Batch:
        """Return the rows of the included units (shape (count,)), grouped by unit."""
        chosen = included[self._code_in_order]
        position = np.cumsum(included) - 1
        return Batch(
            rows=self._order[chosen].astype(np.int64),
            unit_of_row=position[self._code_in_order[chosen]].astype(np.int64),
            units=int(included.sum()),
        )


@dataclass(frozen=True)
class SyntheticRows:
    """Row numbers of a synthetic batch; the rows describe no real person."""

    numbers: Indices


Rehearse = Callable[[], Indices | None]


class PoissonUnitSampler(Sampler[Indices | SyntheticRows]):
    """Yields the rows of a fresh Poisson sample of units, and reports each sample to the gate.

    One pass draws ``round(1 / sample_rate)`` samples, the expected length of an epoch. The gate may raise before a
    sample: to end the training, or :class:`PrivacyBudgetExceededError` if no affordable step could use the sample.

    Args:
        rehearse: returns the row numbers of the next synthetic batch, or None after the last; real samples follow.
    """

    def __init__(
        self,
        index: UnitIndex,
        sample_rate: float,
        keystream: Keystream,
        gate: StepGate,
        rehearse: Rehearse | None = None,
    ) -> None:
        self._index, self._sample_rate, self._keystream, self._gate = index, sample_rate, keystream, gate
        self._rehearse = rehearse

    def __len__(self) -> int:
        return max(1, round(1 / self._sample_rate))

    def __iter__(self) -> Iterator[Indices | SyntheticRows]:
        while self._rehearse is not None and (rows := self._rehearse()) is not None:
            yield SyntheticRows(rows)
        for _ in range(len(self)):
            included = self._keystream.bernoulli(self._index.count, self._sample_rate, self._gate.next_draw())
            batch = self._index.batch(included)
            self._gate.drawn(batch)
            yield batch.rows


def require_convertible(loader: DataLoader[Any]) -> None:
    """Raise unless the private loader can replace ``loader``'s sampling, which must neither select nor hide rows.

    Raises:
        UnsafeTrainingError: the loader shuffles, weighs or selects rows, has its own batch sampler, prefetches with
            workers, or has no indexable dataset.
    """
    dataset = getattr(loader, "dataset", None)
    problems: tuple[tuple[bool, str], ...] = (
        (not isinstance(loader, DataLoader), "pass a torch DataLoader"),
        (
            isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"),
            "its dataset is iterable only, or has no length: use a map-style dataset",
        ),
        (
            not isinstance(getattr(loader, "sampler", None), SequentialSampler),
            "its sampler or shuffle would break Poisson accounting: build the DataLoader without shuffle and sampler",
        ),
        (getattr(loader, "batch_size", 1) is None, "it has its own batch sampler: leave the batch sampler out"),
        (getattr(loader, "num_workers", 0) != 0, "num_workers must be 0: workers prefetch samples that no step uses"),
    )
    for is_problem, message in problems:
        if is_problem:
            raise UnsafeTrainingError(f"this data loader cannot become private: {message}")


def private_loader(
    loader: DataLoader[Any],
    sampler: PoissonUnitSampler,
    kernel: GradientKernel,
    synthetic: Dataset[Any] | None = None,
) -> DataLoader[Any]:
    """Return a loader over the same dataset that yields the sampler's batches, padded with zero rows to a public size.

    Args:
        synthetic: the dataset of the sampler's synthetic rows; None: the loader's own dataset.
    """
    real = BatchFetcher(loader.dataset, loader.collate_fn)
    rehearsed = real if synthetic is None else BatchFetcher(synthetic, loader.collate_fn)
    return DataLoader(_FilledBatches(real, rehearsed, kernel), sampler=sampler, batch_size=None, num_workers=0)


class BatchFetcher:
    """Collates dataset rows, given by number, into one batch; no numbers give an empty batch."""

    def __init__(self, dataset: Dataset[Any], collate: Callable[[Any], Any] | None) -> None:
        self._dataset = dataset
        self._collate = default_collate if collate is None else collate

    def batch(self, rows: Indices) -> Any:
        """Return the given rows as a batch, in the given order."""
        if isinstance(self._dataset, TensorDataset):  # one gather instead of a Python call for each row
            at = torch.from_numpy(rows)
            return [tensor[at] for tensor in self._dataset.tensors]
        if len(rows):
            return self._collate([self._dataset[int(row)] for row in rows])
        return _emptied(self._collate([self._dataset[0]]))


class _FilledBatches(Dataset[Any]):
    """Maps an array of row numbers to one batch of a public size."""

    def __init__(self, real: BatchFetcher, synthetic: BatchFetcher, kernel: GradientKernel) -> None:
        self._real, self._synthetic, self._kernel = real, synthetic, kernel

    def __getitem__(self, rows: Indices | SyntheticRows) -> Any:
        if isinstance(rows, SyntheticRows):
            return filled(self._synthetic.batch(rows.numbers), self._kernel.blocks.rows_for(len(rows.numbers)))
        return filled(self._real.batch(rows), self._kernel.serve(len(rows)))


def _emptied(batch: Any) -> Any:
    """Return the batch without its rows: an empty Poisson sample still costs a noised step."""
    if isinstance(batch, torch.Tensor):
        return batch[:0]
    if isinstance(batch, dict):
        return {key: _emptied(value) for key, value in batch.items()}
    if isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        return [_emptied(value) for value in batch]
    raise UnsafeTrainingError(f"cannot create an empty batch of {type(batch).__name__}: collate rows to tensors")
