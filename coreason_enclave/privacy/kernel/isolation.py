"""Comparison of a row with itself next to other rows: bit for bit, with the first difference named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import nn

from coreason_enclave.errors import UnsafeTrainingError

Stages = list[tuple[str, torch.Tensor]]
"""Values computed for some rows, in order: (description, values with one first index per row)."""

Values = Callable[[str], dict[str, torch.Tensor]]


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Return True if two tensors hold the same bits; NaN equals itself."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    as_integers = {torch.float32: torch.int32, torch.float64: torch.int64}.get(left.dtype)
    if as_integers is None:
        return torch.equal(left, right)
    return torch.equal(left.contiguous().view(as_integers), right.contiguous().view(as_integers))


def mixed(what: str) -> UnsafeTrainingError:
    """Return the refusal of ``what``, a value that depends on other rows."""
    return UnsafeTrainingError(f"{what} depends on other rows, so clipping fails: compute each row from that row alone")


def dense_values(layers: Mapping[str, nn.Module], scale: float) -> Values:
    """Return weights without zeros or patterns, which would hide a product's rounding; equal for equal layer names.

    Args:
        scale: the approximate size of a layer's outputs, for inputs of size about 1.
    """

    def values(name: str) -> dict[str, torch.Tensor]:
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
        generator = torch.Generator().manual_seed(seed)
        dense = {}
        for parameter_name, parameter in layers[name].named_parameters(recurse=False):
            inner = parameter[0].numel() if parameter.dim() > 1 else 1
            drawn = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            dense[parameter_name] = (drawn * scale / inner**0.5).requires_grad_()
        return dense

    kept: dict[str, dict[str, torch.Tensor]] = {}
    return lambda name: kept.setdefault(name, values(name)) if name not in kept else kept[name]
