"""Synthetic rows with the shapes and types of a dataset's rows, for a rehearsal outside a session.

Floating-point values are random; whole numbers take 0 or 1, valid for every label and every embedding. The values never
derive from a real row. A dataset that holds no tensors reveals the shape of a row through its first row only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset

from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.privacy.kernel import COMPANY, GradientKernel, Rehearsal, filled
from coreason_enclave.privacy.sampling import BatchFetcher


class SyntheticDataset(Dataset[Any]):
    """A list of rows as a dataset."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> Any:
        return self._rows[row]


def synthetic_like(dataset: Dataset[Any], count: int) -> Dataset[Any]:
    """Return ``count`` rows with the shapes and types of ``dataset``; the first part of a row counts as features.

    Raises:
        UnsafeTrainingError: a part of a row has a type that cannot be drawn.
    """
    generator = torch.Generator().manual_seed(7)
    if isinstance(dataset, TensorDataset):
        parts = enumerate(dataset.tensors)
        return TensorDataset(*(_drawn(part, count, generator, label=number > 0) for number, part in parts))
    template = dataset[0]
    return SyntheticDataset([_item(template, row, generator, label=False) for row in range(count)])


def rehearse_criterion(
    rehearsal: Rehearsal,
    kernel: GradientKernel,
    rows: Dataset[Any],
    collate: Callable[[Any], Any] | None,
    criterion: Callable[..., torch.Tensor],
) -> None:
    """Run model and loss over the whole rehearsal: ``criterion(model(features), *rest)`` per batch (features, *rest).

    Raises:
        UnsafeTrainingError: model or loss mixes rows, or fails on synthetic rows and so cannot be checked.
    """
    batches = BatchFetcher(rows, collate)
    while not rehearsal.complete:
        numbers = rehearsal.draw(kernel)
        batch = filled(batches.batch(numbers), kernel.blocks.rows_for(len(numbers)))
        features, *rest = [batch] if isinstance(batch, torch.Tensor) else batch
        try:
            criterion(kernel.recorder.model(features), *rest).backward()  # type: ignore[no-untyped-call]
        except UnsafeTrainingError:
            raise
        except Exception as error:
            raise UnsafeTrainingError(f"model and criterion fail on the rehearsal's synthetic rows: {error}") from error
        rehearsal.step(kernel)


def _drawn(like: torch.Tensor, count: int, generator: torch.Generator, *, label: bool) -> torch.Tensor:
    shape = (count, *like.shape[1:])
    if like.is_floating_point():  # a label may be a probability
        draw = torch.rand if label else torch.randn
        return draw(shape, generator=generator, dtype=like.dtype)
    if like.is_complex():
        raise UnsafeTrainingError("a rehearsal cannot generate complex numbers: pass criterion= over real numbers")
    drawn = torch.randint(2, shape, generator=generator).to(like.dtype)
    for number, row in enumerate(COMPANY):
        drawn[row] = number
    return drawn


def _item(value: Any, row: int, generator: torch.Generator, *, label: bool) -> Any:
    if isinstance(value, torch.Tensor):
        return _one(value, row, generator, label=label)
    if isinstance(value, np.ndarray | np.generic):
        return _one(torch.as_tensor(value), row, generator, label=label).numpy()
    if isinstance(value, bool | int | float):
        return type(value)(_one(torch.tensor(value), row, generator, label=label).item())
    if isinstance(value, Mapping):
        return {key: _item(one, row, generator, label=number > 0) for number, (key, one) in enumerate(value.items())}
    if isinstance(value, tuple | list):
        return type(value)(_item(one, row, generator, label=number > 0) for number, one in enumerate(value))
    raise UnsafeTrainingError(f"a rehearsal cannot generate {type(value).__name__}: yield numbers or tensors")


def _one(like: torch.Tensor, row: int, generator: torch.Generator, *, label: bool) -> torch.Tensor:
    drawn = _drawn(like[None], max(COMPANY) + 1, generator, label=label)
    return drawn[row if row in COMPANY else 0]
