"""Probe: tries a model out on this host, these threads and these block sizes, before any private row.

No vendor documents that a product rounds a row the same in any place of a block. The probe therefore measures it under
the conditions of use:

- rows and weights without zeros or patterns;
- every place of a block;
- neighbours of zeros, noise, huge values and NaN;
- forward and backward.

A refusal names the stage that fails. The outcome depends on public values alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.privacy.kernel.arithmetic import describe
from coreason_enclave.privacy.kernel.clipping import squared_norms
from coreason_enclave.privacy.kernel.isolation import Stages, dense_values, mixed, same_bits
from coreason_enclave.privacy.kernel.recording import tensors_in

if TYPE_CHECKING:
    from coreason_enclave.privacy.kernel.gradient_kernel import GradientKernel

_TRIED_ROWS = 32
_PLACEMENTS = (2048, 1024, 512)
"""Pairs of row and place to try, for blocks of the first size, of twice and of four times that size.

Only a sample that exceeds its expectation by dozens of deviations needs a larger block.
"""

_SCALES = (1.0, 30.0)
_COMPANY = ("zeros", "noise", "huge", "nan")

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and named arguments of a model's forward."""

_PASSED: set[Any] = set()


def probe(kernel: GradientKernel, inputs: Inputs) -> None:
    """Run the recorded model over synthetic rows made from ``inputs`` (arguments of its forward) in many places.

    A pass counts for the whole process, for the same structure, module settings, shapes, sizes and threads.

    Raises:
        UnsafeTrainingError: a row's result differs in another place or next to other rows.
    """
    known = (kernel.signature, _settings(kernel), _shapes(inputs), describe())
    if known in _PASSED:
        return
    generator = torch.Generator().manual_seed(20_190)
    with torch.random.fork_rng(devices=[]):
        for scale in _SCALES:
            values = dense_values(kernel.layers, scale)
            tried: dict[str, torch.Tensor] = {}
            for power, placements in enumerate(_PLACEMENTS):
                size = kernel.blocks.first << power
                for company, places in _placements(size, placements, generator):
                    _require_same(tried, _computed(kernel, inputs, values, size, company, places), places)
    _PASSED.add(known)


def _settings(kernel: GradientKernel) -> tuple[Any, ...]:
    """Return module attributes that may change a module's own forward: numbers, words and functions."""
    return tuple(
        (name, key, value)
        for name, module in kernel.recorder.model.named_modules()
        for key, value in sorted(vars(module).items())
        if not key.startswith("_") and (value is None or isinstance(value, bool | int | float | str) or callable(value))
    )


def _placements(size: int, wanted: int, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield kinds of neighbours, and the number of the tried row in each place; -1: a neighbour."""
    for turn in range(max(len(_COMPANY), wanted // size)):
        places = torch.randint(_TRIED_ROWS, (size,), generator=generator)
        places[torch.rand(size, generator=generator) < 0.25] = -1
        yield _COMPANY[turn % len(_COMPANY)], places


def _computed(
    kernel: GradientKernel, inputs: Inputs, values: Any, size: int, company: str, places: torch.Tensor
) -> Stages:
    recorder = kernel.recorder
    recorder.serve(size)
    trace = recorder.watch(values)
    try:
        args, kwargs = _arranged(inputs, company, places)
        outputs = [out for out in tensors_in(recorder.model(*args, **kwargs)) if out.requires_grad and out.dim()]
        if not outputs or any(len(output) != size for output in outputs):
            raise UnsafeTrainingError("the model must return tensors whose first dimension is the batch's")
        torch.autograd.backward(outputs, [_cotangent(output, places) / kernel.blocks.scale(size) for output in outputs])
        entries = recorder.take(size)
        if entries is None:
            raise UnsafeTrainingError("the model changes a layer's input in place: leave out inplace=True")
        stages = trace.stages(entries, size)
        return [*stages, ("the norm of a row's gradient", squared_norms(kernel.layers, entries, size))]
    finally:
        recorder.unwatch()
        recorder.clear()


def _require_same(tried: dict[str, torch.Tensor], stages: Stages, places: torch.Tensor) -> None:
    """Raise unless each tried row has the same bits as at its first occurrence."""
    real = places >= 0
    position = places[real]
    for number, (label, values) in enumerate(stages):
        actual, key = values[real], f"{number}:{label}"
        if key not in tried:
            tried[key] = torch.zeros(_TRIED_ROWS, *actual.shape[1:], dtype=actual.dtype)
            tried[key][position] = actual
            tried[f"{key}:seen"] = torch.zeros(_TRIED_ROWS, dtype=torch.bool).index_fill_(0, position, value=True)
        seen = tried[f"{key}:seen"]
        fresh = ~seen[position]
        tried[key][position[fresh]] = actual[fresh]
        seen[position] = True
        if not same_bits(actual, tried[key][position]):
            raise mixed(label)


def _arranged(inputs: Inputs, company: str, places: torch.Tensor) -> Any:
    rows = _rows_of(inputs)
    chosen = torch.where(places >= 0, places % rows, torch.arange(len(places)) % rows)

    def arranged(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dim() and len(value) == rows:
            placed = value.detach()[chosen]
            if placed.is_floating_point() and company != "noise":
                fill = {"zeros": 0.0, "huge": 1e6, "nan": float("nan")}[company]
                placed[places < 0] = placed[places < 0] * fill if company == "huge" else fill
            return placed
        if isinstance(value, dict):
            return {key: arranged(one) for key, one in value.items()}
        return type(value)(arranged(one) for one in value) if isinstance(value, list | tuple) else value

    return arranged(inputs[0]), arranged(inputs[1])


def _cotangent(output: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return an output gradient that depends on the row, not on the row's place."""
    generator = torch.Generator().manual_seed(5_912)
    rows = torch.randn(_TRIED_ROWS + 1, *output.shape[1:], generator=generator, dtype=output.dtype)
    return rows[places]


def _rows_of(inputs: Inputs) -> int:
    return next(len(tensor) for tensor in tensors_in(inputs) if tensor.dim())


def _shapes(inputs: Inputs) -> tuple[Any, ...]:
    return tuple((tuple(tensor.shape[1:]), tensor.dtype) for tensor in tensors_in(inputs))
