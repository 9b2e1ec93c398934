"""Per-unit gradients from recorded rows: squared norms and clipped sums, in float64.

Each class holds one layer's part for the units of one part of a batch.

- A unit of one row in a layer of one position: the code never forms the gradient ``g ⊗ a``, whose norm is ``|g| |a|``.
- All other cases: the code forms the gradient, sums it within the unit, and clips the sum. Rows or positions that
  cancel leave exactly their remainder, and the norm always comes from the same numbers as the contribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from coreason_enclave.privacy.kernel.recording import Entry

_FORMED_AT_ONCE = 1 << 22

Sums = dict[torch.Tensor, torch.Tensor]
"""Per trainable parameter: the running sum, flat, float64."""


@dataclass(frozen=True)
class Units:
    """The rows ``start`` to ``stop`` of a block, and the unit of each row among ``count``; None: one unit per row."""

    start: int
    stop: int
    count: int
    of_row: torch.Tensor | None


class UnitGradients(Protocol):
    """One layer's part of some units' gradients."""

    def squared(self) -> torch.Tensor:
        """Return squared norms, shape (units,)."""
        ...

    def add_to(self, sums: Sums, factor: torch.Tensor, finite: torch.Tensor) -> None:
        """Add ``factor`` (units,) times each unit's gradient to ``sums``; non-finite units add zero."""
        ...


@dataclass(frozen=True)
class Products:
    """One product per unit: ``a`` (units, k), ``g`` (units, outputs)."""

    a: torch.Tensor
    g: torch.Tensor
    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def squared(self) -> torch.Tensor:
        inputs = torch.zeros(len(self.a), dtype=torch.float64)
        if self.weight is not None:
            inputs = inputs + self.a.square().sum(1)
        if self.bias is not None:
            inputs = inputs + 1
        return self.g.square().sum(1) * inputs

    def add_to(self, sums: Sums, factor: torch.Tensor, finite: torch.Tensor) -> None:
        scaled, inputs = _only_finite(self.g, finite) * factor[:, None], _only_finite(self.a, finite)
        if self.weight is not None:
            total = scaled.T @ inputs
            sums[self.weight] += total[:, : self.weight.numel() // len(self.weight)].reshape(-1)
        if self.bias is not None:
            sums[self.bias] += scaled.sum(0)


@dataclass(frozen=True)
class Formed:
    """Whole gradients: per parameter, shape (units, numbers)."""

    gradients: dict[nn.Parameter, torch.Tensor]

    def squared(self) -> torch.Tensor:
        return torch.stack([gradient.square().sum(1) for gradient in self.gradients.values()]).sum(0)

    def add_to(self, sums: Sums, factor: torch.Tensor, finite: torch.Tensor) -> None:
        for parameter, gradient in self.gradients.items():
            sums[parameter] += factor @ _only_finite(gradient, finite)


@dataclass(frozen=True)
class LookedUp:
    """Gradients of an embedding: ``rows`` (pairs, width), one row for each pair of a unit and one of its words."""

    rows: torch.Tensor
    unit: torch.Tensor
    word: torch.Tensor
    units: int
    weight: torch.Tensor

    def squared(self) -> torch.Tensor:
        return torch.zeros(self.units, dtype=torch.float64).index_add_(0, self.unit, self.rows.square().sum(1))

    def add_to(self, sums: Sums, factor: torch.Tensor, finite: torch.Tensor) -> None:
        words, place = torch.unique(self.word, return_inverse=True)
        part = torch.zeros(len(words), self.rows.shape[1], dtype=torch.float64)
        part.index_add_(0, place, _only_finite(self.rows, finite[self.unit]) * factor[self.unit][:, None])
        table = sums[self.weight].view(self.weight.shape)
        table[words] += part


def unit_gradients(layer: nn.Module, entries: Sequence[Entry], units: Units) -> UnitGradients:
    """Return the gradients of ``units`` with respect to the trainable parameters of ``layer``."""
    inputs, gradients = _joined(entries, units, layer)
    if isinstance(layer, nn.Embedding):
        return _looked_up(layer, inputs, gradients, units)
    weight, bias = _trainable(layer, "weight"), _trainable(layer, "bias")
    if isinstance(layer, nn.LayerNorm | nn.GroupNorm):
        by_row = {}
        if weight is not None:
            by_row[weight] = (gradients * inputs).sum(1)
        if bias is not None:
            by_row[bias] = gradients.sum(1)
        return Formed({parameter: _within_units(rows, units) for parameter, rows in by_row.items()})
    if units.of_row is None and inputs.shape[1] == 1:
        return Products(inputs[:, 0], gradients[:, 0], weight, bias)
    return _formed(inputs, gradients, weight, bias, units)


def gradient_terms(layer: nn.Module, entries: Sequence[Entry], *, one_row: bool) -> int:
    """Return how many numbers a unit's part from ``layer`` takes during clipping; 0 if the part is never formed."""
    size = sum(parameter.numel() for parameter in layer.parameters(recurse=False) if parameter.requires_grad)
    positions = sum(entry.positions for entry in entries)
    if isinstance(layer, nn.Embedding):
        return positions * layer.embedding_dim
    if isinstance(layer, nn.LayerNorm | nn.GroupNorm) or not one_row or positions > 1:
        return size
    return 0


def _joined(entries: Sequence[Entry], units: Units, layer: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and gradients of all calls of a layer, shapes (rows, positions, …), gradients in float64."""
    inputs, gradients = [], []
    for entry in entries:
        if entry.gradients is not None:
            a, g = _by_position(entry, layer, units)
            inputs.append(a)
            gradients.append(g.double())
    joined = torch.cat(inputs, 1)
    return (joined if isinstance(layer, nn.Embedding) else joined.double()), torch.cat(gradients, 1)


def _by_position(entry: Entry, layer: nn.Module, units: Units) -> tuple[torch.Tensor, torch.Tensor]:
    assert entry.gradients is not None
    block, rows = slice(units.start, units.stop), units.stop - units.start
    a, g = entry.inputs, entry.gradients
    if isinstance(layer, nn.Embedding):
        return a[block].flatten(1), g[block].reshape(rows, -1, layer.embedding_dim)
    if isinstance(layer, nn.GroupNorm):
        return a[block].flatten(2).transpose(1, 2), g[block].flatten(2).transpose(1, 2)
    if isinstance(layer, nn.LayerNorm):
        width = int(torch.Size(layer.normalized_shape).numel())
        return a[block].reshape(rows, -1, width), g[block].reshape(rows, -1, width)
    flat = slice(units.start * entry.positions, units.stop * entry.positions)
    shape = (rows, entry.positions, -1)
    return a[flat].view(shape), g[flat].view(shape)


def _formed(
    inputs: torch.Tensor,
    gradients: torch.Tensor,
    weight: nn.Parameter | None,
    bias: nn.Parameter | None,
    units: Units,
) -> Formed:
    formed = {}
    if weight is not None:
        inner = weight.numel() // len(weight)
        at_once = max(1, _FORMED_AT_ONCE // weight.numel())
        formed[weight] = torch.zeros(units.count, weight.numel(), dtype=torch.float64)
        place = torch.arange(units.count) if units.of_row is None else units.of_row
        for first in range(0, len(inputs), at_once):  # always adds a person's rows in their order, whatever the number
            block = slice(first, first + at_once)
            rows = torch.bmm(gradients[block].transpose(1, 2), inputs[block])[:, :, :inner]
            formed[weight].index_add_(0, place[block], rows.reshape(len(rows), -1))
    if bias is not None:
        formed[bias] = _within_units(gradients.sum(1), units)
    return Formed(formed)


def _within_units(rows: torch.Tensor, units: Units) -> torch.Tensor:
    """Sum the rows' gradients within each unit, in the rows' order."""
    if units.of_row is None:
        return rows
    return torch.zeros(units.count, rows.shape[1], dtype=torch.float64).index_add_(0, units.of_row, rows)


def _looked_up(layer: nn.Embedding, words: torch.Tensor, gradients: torch.Tensor, units: Units) -> LookedUp:
    positions = words.shape[1]
    unit_of_row = torch.arange(len(words)) if units.of_row is None else units.of_row
    unit, word = unit_of_row.repeat_interleave(positions), words.reshape(-1).long()
    flat = gradients.reshape(len(word), -1)
    if layer.padding_idx is not None:
        kept = word != layer.padding_idx
        unit, word, flat = unit[kept], word[kept], flat[kept]
    pairs, place = torch.unique(unit * layer.num_embeddings + word, return_inverse=True)
    rows = torch.zeros(len(pairs), layer.embedding_dim, dtype=torch.float64).index_add_(0, place, flat)
    pair_unit = torch.div(pairs, layer.num_embeddings, rounding_mode="floor")
    return LookedUp(rows, pair_unit, pairs % layer.num_embeddings, units.count, layer.weight)


def _trainable(layer: nn.Module, name: str) -> nn.Parameter | None:
    parameter = getattr(layer, name, None)
    return parameter if isinstance(parameter, nn.Parameter) and parameter.requires_grad else None


def _only_finite(values: torch.Tensor, finite: torch.Tensor) -> torch.Tensor:
    """Overwrite non-finite rows of ``values`` with zero; multiplying by zero would turn infinity into NaN."""
    return values if bool(finite.all()) else values.masked_fill(~finite[:, None], 0.0)
