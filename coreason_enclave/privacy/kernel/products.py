"""Matrix products and element-wise layers that record the factors of each row's gradient, and sum no gradient.

Autograd sums weight gradients over the batch. The functions here keep the factors for each row instead: the input
(``a``) and the returned gradient (``g``). They pass on the gradient of the input alone. ``p.grad`` stays empty until
the private step fills it.

Zeros pad the inner length of every product to a multiple of 16. Without padding, some shapes round a row by its place
in the block (see the decision record on the gradient kernel).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from coreason_enclave.privacy.kernel.recording import Entry

_INNER_MULTIPLE = 16


def padded_columns(matrix: torch.Tensor) -> torch.Tensor:
    """Return ``matrix`` (n, k) with zero columns up to a multiple of 16; return it unchanged if k already fits."""
    missing = -matrix.shape[1] % _INNER_MULTIPLE
    return functional.pad(matrix, (0, missing)) if missing else matrix


def product(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, entry: Entry | None) -> torch.Tensor:
    """Return ``rows @ weight.T + bias`` for rows (n, k) and weight (outputs, k)."""
    result: torch.Tensor = _Product.apply(rows, weight, bias, entry)  # type: ignore[no-untyped-call]
    return result


def affine(values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, entry: Entry | None) -> torch.Tensor:
    """Return ``values * weight + bias``; weight and bias have a shape that broadcasts over the rows."""
    result: torch.Tensor = _Affine.apply(values, weight, bias, entry)  # type: ignore[no-untyped-call]
    return result


def looked_up(indices: torch.Tensor, weight: torch.Tensor, entry: Entry | None) -> torch.Tensor:
    """Return ``weight[indices]``, a copy."""
    result: torch.Tensor = _LookUp.apply(indices, weight, entry)  # type: ignore[no-untyped-call]
    return result


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor, bias: Any, entry: Entry | None) -> torch.Tensor:
        outputs, inner = weight.shape
        padded = functional.pad(weight, (0, -inner % _INNER_MULTIPLE, 0, -outputs % _INNER_MULTIPLE))
        left = padded_columns(rows)
        result = left @ padded[:outputs].T
        if bias is not None:
            result += bias
        ctx.entry, ctx.inner = entry, inner
        if entry is not None:
            entry.saw(left)
        ctx.save_for_backward(padded)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        (padded,) = ctx.saved_tensors
        gradient = gradient.contiguous()
        if ctx.entry is not None:
            ctx.entry.received(gradient)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        return (padded_columns(gradient) @ padded)[:, : ctx.inner].contiguous(), None, None, None


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, weight: torch.Tensor, bias: Any, entry: Entry | None) -> torch.Tensor:
        result = values * weight
        if bias is not None:
            result += bias
        ctx.entry = entry
        if entry is not None:
            entry.saw(values)
        ctx.save_for_backward(weight)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        (weight,) = ctx.saved_tensors
        gradient = gradient.contiguous()
        if ctx.entry is not None:
            ctx.entry.received(gradient)
        return (gradient * weight if ctx.needs_input_grad[0] else None), None, None, None


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, indices: torch.Tensor, weight: torch.Tensor, entry: Entry | None) -> torch.Tensor:
        ctx.entry = entry
        if entry is not None:
            entry.saw(indices)
        return weight[indices]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, None, None]:
        if ctx.entry is not None:
            ctx.entry.received(gradient.contiguous())
        return None, None, None
