"""The sum of units' gradients, each clipped to the bound, from one forward and one backward pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.privacy.kernel.gradients import Sums, Units, gradient_terms, unit_gradients
from coreason_enclave.privacy.kernel.recording import Entry
from coreason_enclave.privacy.kernel.slack import PART, SLACK, required
from coreason_enclave.privacy.step_gate import Batch

_PART_NUMBERS = 1 << 22
"""Limit on the numbers (of 8 bytes) formed at a time for the gradients of a part."""

_NEVER_ZERO = 1e-300


@dataclass(frozen=True)
class Clipped:
    """A clipped sum.

    Attributes:
        sums: per parameter, flat, float64.
        all_finite: False if a unit's gradient was not finite; the unit added zero.
    """

    sums: Sums
    all_finite: bool


def clipped_sum(
    layers: Mapping[str, nn.Module],
    entries: Sequence[Entry],
    batch: Batch,
    *,
    size: int,
    one_row: bool,
    weight: float,
    bound: float,
) -> Clipped:
    """Return the sum over the units of ``batch`` of each unit's gradient, clipped to ``bound`` less the slack.

    Args:
        layers: by name, the layers of ``entries``.
        size: rows of the block.
        one_row: True if each row forms a unit; False if units are persons, even persons of one row.
        weight: factor from the recorded gradient to the unit's gradient.
        bound: the L2 norm that no unit's contribution exceeds; infinity clips nothing.

    Raises:
        UnsafeTrainingError: the sample holds more units than the slack covers.
    """
    trainable = [p for layer in layers.values() for p in layer.parameters(recurse=False) if p.requires_grad]
    if bound < float("inf") and required(batch.units, sum(p.numel() for p in trainable)) > SLACK:
        raise UnsafeTrainingError(f"{batch.units} sampled units exceed the rounding limit of sums: lower sample_rate")
    calls = _calls(layers, entries)
    terms = sum(gradient_terms(layers[name], of_layer, one_row=one_row) for name, of_layer in calls.items())
    sums: Sums = {parameter: torch.zeros(parameter.numel(), dtype=torch.float64) for parameter in trainable}
    all_finite = True
    for units, real in _parts(batch, one_row=one_row, at_once=_at_once(terms), size=size):
        parts = [unit_gradients(layers[name], of_layer, units) for name, of_layer in calls.items()]
        squared = sum((part.squared() for part in parts), torch.zeros(units.count, dtype=torch.float64))
        finite = torch.isfinite(squared)
        all_finite &= bool((finite | ~real).all())
        factor = torch.where(finite & real, _factor(squared.sqrt() * weight, bound) * weight, 0.0)
        for part in parts:
            part.add_to(sums, factor, finite)
    return Clipped(sums, all_finite)


def squared_norms(layers: Mapping[str, nn.Module], entries: Sequence[Entry], size: int) -> torch.Tensor:
    """Return the squared norm of each row's recorded gradient, shape (size,), computed as in :func:`clipped_sum`."""
    calls, no_units = _calls(layers, entries), np.empty(0, np.int64)
    terms = sum(gradient_terms(layers[name], of_layer, one_row=True) for name, of_layer in calls.items())
    norms = []
    for units, _ in _parts(Batch(no_units, no_units, 0), one_row=True, at_once=_at_once(terms), size=size):
        parts = [unit_gradients(layers[name], of_layer, units).squared() for name, of_layer in calls.items()]
        norms.append(sum(parts, torch.zeros(units.count, dtype=torch.float64)))
    return torch.cat(norms)


def _calls(layers: Mapping[str, nn.Module], entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return the calls with a recorded gradient, by layer, for layers with trainable parameters."""
    calls: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        trained = any(parameter.requires_grad for parameter in layers[entry.layer].parameters(recurse=False))
        if trained and entry.gradients is not None:
            calls[entry.layer].append(entry)
    return calls


def _factor(norms: torch.Tensor, bound: float) -> torch.Tensor:
    if bound == float("inf"):
        return torch.ones_like(norms)
    return (1 - SLACK) * (bound / norms.clamp(min=_NEVER_ZERO)).clamp(max=1.0)


def _at_once(terms: int) -> int:
    """Return the number of units to clip together: a power of two, so parts do not depend on the number of units."""
    most = max(1, min(PART, _PART_NUMBERS // max(terms, 1)))
    return 1 << (most.bit_length() - 1)


def _parts(batch: Batch, *, one_row: bool, at_once: int, size: int) -> Iterator[tuple[Units, torch.Tensor]]:
    """Yield parts of a block, with a mask of each part's real units: padding rows and padding units are not real."""
    if one_row:
        for start in range(0, size, at_once):
            stop = min(start + at_once, size)
            yield Units(start, stop, stop - start, None), torch.arange(start, stop) < batch.units
        return
    unit_of_row = torch.from_numpy(batch.unit_of_row)
    for first in range(0, batch.units, at_once):
        start, stop = torch.searchsorted(unit_of_row, torch.tensor([first, first + at_once])).tolist()
        units = Units(int(start), int(stop), at_once, unit_of_row[int(start) : int(stop)] - first)
        yield units, torch.arange(first, first + at_once) < batch.units
