"""The gradient kernel: what a unit contributes to a step depends on that unit and the public model alone, bit for bit.

Clipping bounds a unit's own gradient. On a computer that bounds what the unit does to the sum only if no other unit's
gradient changes with it, and an ordinary forward pass does not see to that: a row's values depend on how many rows
there are and on its place among them, in the last bit, which weights that cancel turn into another sign. So

- batches have a public number of rows (:mod:`~coreason_enclave.privacy.kernel.blocks`);
- products are of shapes that round a row the same in any place (:mod:`~coreason_enclave.privacy.kernel.products`), in a
  mode of the library that does not look at addresses (:mod:`~coreason_enclave.privacy.kernel.arithmetic`);
- norms, clipping and sums are in float64, with a slack for every rounding
  (:mod:`~coreason_enclave.privacy.kernel.slack`);
- before any row is read, the model, the loss and the loop are tried out on synthetic rows in different company, and
  refused by the name of what mixes rows (:mod:`~coreason_enclave.privacy.kernel.probe`,
  :mod:`~coreason_enclave.privacy.kernel.rehearsal`).

One forward and one backward pass give all of it: no gradient is computed twice, none is summed before it is clipped.
"""

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

__all__ = ["GradientKernel"]

_NO_GRADIENT = (
    "there is no per-row gradient for exactly the batch that was drawn: run one forward and one backward over each "
    "batch of the private loader, then step and zero_grad"
)


class GradientKernel:
    """The recorded layers of one model, and the clipped sum of what they recorded.

    Args:
        one_row: whether each row is a unit of its own; False where units are persons.

    Raises:
        UnsafeTrainingError: a layer's gradient cannot be taken row by row, or this process's products are not strict.
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
        """What of the model decides how a row rounds: classes, options and shapes, and the size of a block."""
        modules = tuple(
            (name, type(module), module.extra_repr()) for name, module in self.recorder.model.named_modules()
        )
        trained = tuple((p.shape, p.dtype, p.requires_grad) for p in self.recorder.model.parameters())
        return modules, trained, self.blocks.first, self._threads

    def serve(self, rows: int) -> int:
        """A sample of so many rows is about to be handed out: the size of its block."""
        size = self.blocks.rows_for(rows)
        self.recorder.serve(size)
        return size

    def entries(self, rows: int) -> list[Entry]:
        """What one forward and one backward pass over the block of the sample left behind.

        Raises:
            UnsafeTrainingError: there was none, or another one, or more than one.
        """
        if torch.get_num_threads() != self._threads:
            raise UnsafeTrainingError(
                "the number of threads was changed: a sum that is split otherwise rounds otherwise"
            )
        entries = self.recorder.take(self.blocks.rows_for(rows))
        if entries is None:
            raise UnsafeTrainingError(_NO_GRADIENT)
        return entries

    def clipped_sum(self, batch: Batch, bound: float) -> Clipped:
        """The sum over the units of ``batch`` of their gradients, each clipped to ``bound``.

        Raises:
            UnsafeTrainingError: see :meth:`entries` and :func:`~coreason_enclave.privacy.kernel.clipping.clipped_sum`.
        """
        rows = len(batch.rows)
        size, entries = self.blocks.rows_for(rows), self.entries(rows)
        weight = self.blocks.weight(size)
        return clipped_sum(self.layers, entries, batch, size=size, one_row=self._one_row, weight=weight, bound=bound)

    def detach(self) -> None:
        """Give the model back as it was."""
        detach_layers(self.layers, self.recorder)
        self.recorder.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()
