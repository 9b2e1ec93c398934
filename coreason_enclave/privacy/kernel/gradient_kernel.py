"""The recorded layers of a model, and the clipped sum of their gradients."""

from __future__ import annotations

from typing import Self

import torch

from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.privacy.kernel.arithmetic import require_strict
from coreason_enclave.privacy.kernel.blocks import Blocks
from coreason_enclave.privacy.kernel.clipping import Clipped, clipped_sum
from coreason_enclave.privacy.kernel.layers import attach_layers, detach_layers
from coreason_enclave.privacy.kernel.recording import Entry, Recorder
from coreason_enclave.privacy.step_gate import Batch

_NO_GRADIENT = "gradients do not match the batch: run one forward and one backward per batch, then step and zero_grad"


class GradientKernel:
    """The recorded layers of one model, and the clipped sum of their recorded gradients.

    Args:
        one_row: True if each row forms a unit; False if units are persons.

    Raises:
        UnsafeTrainingError: a layer has no per-row gradient, or this process's products are not strict.
    """

    def __init__(self, model: torch.nn.Module, blocks: Blocks, *, one_row: bool) -> None:
        require_strict()
        self.blocks, self._one_row = blocks, one_row
        self._threads = torch.get_num_threads()
        self.recorder = Recorder(model, blocks)
        try:
            self.layers = attach_layers(model, self.recorder)
        except UnsafeTrainingError:
            self.recorder.detach()
            raise
        for parameter in model.parameters():
            parameter.grad = None

    @property
    def signature(self) -> object:
        """Everything that decides how a row rounds: the model's classes, options and shapes, block size, threads."""
        modules = tuple(
            (name, type(module), module.extra_repr()) for name, module in self.recorder.model.named_modules()
        )
        trained = tuple((p.shape, p.dtype, p.requires_grad) for p in self.recorder.model.parameters())
        return modules, trained, self.blocks.first, self._threads

    def serve(self, rows: int) -> int:
        """Announce a sample of ``rows`` rows and return the size of its block."""
        size = self.blocks.rows_for(rows)
        self.recorder.serve(size)
        return size

    def entries(self, rows: int) -> list[Entry]:
        """Return the entries recorded by one forward and one backward pass over the sample's block.

        Raises:
            UnsafeTrainingError: no such pass ran, a pass over another block ran, or several did; or the number of
                threads changed.
        """
        if torch.get_num_threads() != self._threads:
            raise UnsafeTrainingError("the number of threads changed, and with it the rounding of sums: restore it")
        entries = self.recorder.take(self.blocks.rows_for(rows))
        if entries is None:
            raise UnsafeTrainingError(_NO_GRADIENT)
        return entries

    def clipped_sum(self, batch: Batch, bound: float) -> Clipped:
        """Return the sum over the units of ``batch`` of their gradients, each clipped to ``bound``.

        Raises:
            UnsafeTrainingError: see :meth:`entries` and :func:`~coreason_enclave.privacy.kernel.clipping.clipped_sum`.
        """
        rows = len(batch.rows)
        size, entries = self.blocks.rows_for(rows), self.entries(rows)
        weight = self.blocks.weight(size)
        return clipped_sum(self.layers, entries, batch, size=size, one_row=self._one_row, weight=weight, bound=bound)

    def detach(self) -> None:
        """Restore the model's original layers and stop recording."""
        detach_layers(self.layers, self.recorder)
        self.recorder.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()
