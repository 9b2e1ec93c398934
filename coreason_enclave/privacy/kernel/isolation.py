"""A row compared with itself in other company: bit for bit, and named where it differs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import nn

from coreason_enclave.errors import UnsafeTrainingError

__all__ = ["Stages", "dense_values", "mixed", "same_bits"]

Stages = list[tuple[str, torch.Tensor]]
"""What was computed for some rows, in order: (what it is, values with one first index a row)."""

Values = Callable[[str], dict[str, torch.Tensor]]


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors hold the same bits; NaN is equal to itself."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    as_integers = {torch.float32: torch.int32, torch.float64: torch.int64}.get(left.dtype)
    if as_integers is None:
        return torch.equal(left, right)
    return torch.equal(left.contiguous().view(as_integers), right.contiguous().view(as_integers))


def mixed(what: str) -> UnsafeTrainingError:
    """The refusal of ``what``, which is not a function of one row."""
    return UnsafeTrainingError(
        f"{what} differs with the other rows of the batch, so that clipping one row's gradient bounds nothing: let "
        "each row be computed from itself alone"
    )


def dense_values(layers: Mapping[str, nn.Module], scale: float) -> Values:
    """Weights without zeros or patterns, which would hide how a product rounds; the same for the same layer.

    Args:
        scale: of a layer's outputs, about, for inputs of about 1.
    """

    def values(name: str) -> dict[str, torch.Tensor]:
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
        generator = torch.Generator().manual_seed(seed)
        found = {}
        for parameter_name, parameter in layers[name].named_parameters(recurse=False):
            inner = parameter[0].numel() if parameter.dim() > 1 else 1
            drawn = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            found[parameter_name] = (drawn * scale / inner**0.5).requires_grad_()
        return found

    kept: dict[str, dict[str, torch.Tensor]] = {}
    return lambda name: kept.setdefault(name, values(name)) if name not in kept else kept[name]
