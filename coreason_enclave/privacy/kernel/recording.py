"""Records of forward and backward passes over a block, layer by layer, as input to clipping and to comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.privacy.kernel.blocks import Blocks

_NEGLIGIBLE = 2.0**-64
"""Treat output gradients of the loss below this bound as zero.

A loss divides by the size of the block, and only values far above the smallest normal number scale back exactly.
"""


class Entry:
    """One call of one layer.

    Attributes:
        positions: number of products per row of the block: 1, or the positions of a sequence or an image.
        inputs: the layer's inputs; the first dimension is rows × positions.
        gradients: of the loss with respect to the layer's outputs; None before the backward pass.
    """

    def __init__(self, layer: str, positions: int) -> None:
        self.layer, self.positions = layer, positions
        self.inputs: torch.Tensor = torch.empty(0)
        self.gradients: torch.Tensor | None = None
        self.passed_twice = False
        self._version = 0

    def saw(self, inputs: torch.Tensor) -> None:
        """Keep ``inputs``, without a copy."""
        self.inputs, self._version = inputs.detach(), inputs._version

    def received(self, gradients: torch.Tensor) -> None:
        """Keep the gradient of the outputs, and mark a second backward pass."""
        self.passed_twice |= self.gradients is not None
        self.gradients = gradients

    def unchanged(self) -> bool:
        """Return True if the inputs have not been written to since their use."""
        return self.inputs._version == self._version


@dataclass
class Pass:
    """One forward pass of the whole model, in training."""

    size: int
    entries: list[Entry] = field(default_factory=list)
    open: bool = True

    @property
    def used(self) -> bool:
        """True if a backward pass reached this forward pass."""
        return any(entry.gradients is not None for entry in self.entries)


@dataclass
class Trace:
    """Values for comparing a row with itself next to other rows, in order of computation.

    Attributes:
        forward, loss: pairs (description, values with one first index per row).
        inputs: positional and named arguments of the model.
    """

    forward: list[tuple[str, torch.Tensor]] = field(default_factory=list)
    loss: list[tuple[str, torch.Tensor]] = field(default_factory=list)
    inputs: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def stages(self, entries: list[Entry], size: int) -> list[tuple[str, torch.Tensor]]:
        """Return all values with ``size`` rows, and the gradients of the layers of ``entries``, last layer first."""
        gradients = [
            (f"the gradient at the output of layer {entry.layer!r}", entry.gradients.reshape(size, -1))
            for entry in reversed(entries)
            if entry.gradients is not None
        ]
        stages = [*self.forward, *self.loss, *gradients]
        return [(label, values) for label, values in stages if values.dim() and len(values) == size]


class Recorder:
    """Records every forward pass of one model, and scales the gradient that the loss returns.

    Attributes:
        model: the observed model.
        size: number of rows in the latest block.
        trace: if set, collects the values that a rehearsal or a probe compares.
        values: if set, weights by layer name that replace the model's own.
    """

    def __init__(self, model: torch.nn.Module, blocks: Blocks) -> None:
        self.model = model
        self.blocks, self.size = blocks, blocks.first
        self.trace: Trace | None = None
        self.values: Callable[[str], dict[str, torch.Tensor]] | None = None
        self._passes: list[Pass] = []
        self._watching: list[Any] = []
        self._handles = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True),
            model.register_forward_hook(self._end, with_kwargs=True),
        ]

    def serve(self, size: int) -> None:
        """Expect a block of ``size`` rows and forget all earlier blocks."""
        self.size = size
        self._passes.clear()

    def clear(self) -> None:
        """Forget all recorded passes."""
        self._passes.clear()

    def detach(self) -> None:
        """Remove all hooks and forget all recorded passes."""
        for handle in self._handles:
            handle.remove()
        self.unwatch()
        self.clear()

    def entry(self, layer: str, rows: int, positions: int) -> Entry | None:
        """Return a new entry for one call of ``layer``; None if autograd computes no gradient.

        Raises:
            UnsafeTrainingError: the call came from outside the model's forward, or the layer's first dimension does not
                count the rows.
        """
        if not torch.is_grad_enabled():
            return None
        if not self._passes or not self._passes[-1].open:
            raise UnsafeTrainingError(f"layer {layer!r} was called directly: call the attached model")
        current = self._passes[-1]
        if rows != current.size:
            raise UnsafeTrainingError(
                f"layer {layer!r} got {rows} of {current.size} rows: its input's first dimension must be the batch"
            )
        entry = Entry(layer, positions)
        current.entries.append(entry)
        return entry

    def take(self, size: int) -> list[Entry] | None:
        """Return the entries of the only pass over the latest block of ``size`` rows; None if the passes do not fit.

        The passes do not fit if:

        - no pass or several passes had a backward pass;
        - the pass had another number of rows;
        - a layer's gradient arrived twice, or a layer's inputs changed in place.
        """
        used, self._passes = [one for one in self._passes if one.used], []
        if len(used) != 1 or used[0].size != size:
            return None
        entries = used[0].entries
        if any(entry.passed_twice or not entry.unchanged() for entry in entries):
            return None
        return entries

    def watch(self, values: Callable[[str], dict[str, torch.Tensor]] | None) -> Trace:
        """Return a trace of all passes until :meth:`unwatch`, with ``values`` in place of the model's weights."""
        self.unwatch()
        for name, module in self.model.named_modules():
            if name:
                self._watching.append(module.register_forward_pre_hook(self._note_input(name)))
                self._watching.append(module.register_forward_hook(self._note_output(name)))
        self.trace, self.values = Trace(), values
        return self.trace

    def unwatch(self) -> None:
        """Stop the trace, and use the model's own weights again."""
        self.trace = self.values = None
        while self._watching:
            self._watching.pop().remove()

    def _begin(self, _module: Any, args: Any, kwargs: Any) -> None:
        if not torch.is_grad_enabled():
            return
        rows = rows_in((args, kwargs))
        if self._passes and self._passes[-1].open:
            self._passes.pop()  # its forward raised
        self._passes.append(Pass(self.size if rows is None else rows))
        if self.trace is not None:
            self.trace.inputs = (args, kwargs)
            self._keep("the loop's input to the model", (args, kwargs))

    def _end(self, module: Any, _args: Any, _kwargs: Any, output: Any) -> None:
        if not torch.is_grad_enabled() or not self._passes:
            return
        current = self._passes[-1]
        current.open = False
        if self.trace is not None:
            self._keep(f"the output of the model ({type(module).__name__})", output)
        for tensor in tensors_in(output):
            if tensor.requires_grad:
                tensor.register_hook(self._scaled(current.size))  # type: ignore[no-untyped-call]

    def _scaled(self, size: int) -> Callable[[torch.Tensor], torch.Tensor]:
        trace, scale = self.trace, self.blocks.scale(size)

        def scaled(gradient: torch.Tensor) -> torch.Tensor:
            larger = gradient * scale
            larger.masked_fill_(larger.abs() < _NEGLIGIBLE, 0.0)
            if trace is not None:
                trace.loss.append(("the gradient of the loss", larger))
            return larger

        return scaled

    def _note_input(self, name: str) -> Callable[..., None]:
        def note(module: Any, args: Any) -> None:
            self._keep(f"the input of layer {name!r} ({_kind(module)})", args)

        return note

    def _note_output(self, name: str) -> Callable[..., None]:
        def note(module: Any, _args: Any, output: Any) -> None:
            self._keep(f"layer {name!r} ({_kind(module)})", output)

        return note

    def _keep(self, label: str, values: Any) -> None:
        if self.trace is not None and torch.is_grad_enabled():
            self.trace.forward += [(label, tensor.detach()) for tensor in tensors_in(values)]


def rows_in(values: Any) -> int | None:
    """Return the first dimension of the first tensor in ``values`` with dimensions; None without such a tensor."""
    return next((len(tensor) for tensor in tensors_in(values) if tensor.dim()), None)


def _kind(module: torch.nn.Module) -> str:
    return type(module).__name__.removeprefix("Recorded")


def tensors_in(values: Any) -> Iterator[torch.Tensor]:
    """Yield every tensor in ``values``, nested in dictionaries, lists and tuples."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from tensors_in(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors_in(value)
