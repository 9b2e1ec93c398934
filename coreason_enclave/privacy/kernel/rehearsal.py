"""A rehearsal: some synthetic rows go through model, loss and loop in different company, before any real row is read.

Eight rows are compared with themselves, bit for bit: alone, among others, beside many of one class or of another, and
in a larger block. What the loop gives to the model, what each layer computes, the gradient of the loss, and what comes
back to each layer has to be the same; else the first of them that differs is named. Weights are drawn for the
rehearsal: those of a job may hide what mixes, all zeros do. The larger block shows a loss that sums where it should
average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch

from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.privacy.kernel.blocks import Blocks
from coreason_enclave.privacy.kernel.isolation import Stages, dense_values, mixed, same_bits
from coreason_enclave.privacy.kernel.probe import Inputs, probe

if TYPE_CHECKING:
    from coreason_enclave.privacy.kernel import GradientKernel
    from coreason_enclave.privacy.kernel.recording import Trace

__all__ = ["COMPANY", "Rehearsal", "RehearsalEnded"]

COMPANY: Final = (8, 9)
"""The two synthetic rows whose labels must differ: the first class and another one."""

_TRIED: Final = 8
_LOSS: Final = "the gradient of the loss"


class RehearsalEnded(BaseException):
    """Ends a loop that is only rehearsed, past its own ``except Exception``."""


@dataclass(frozen=True)
class Arrangement:
    """One synthetic batch: the numbers of its rows, and the places of the rows that are compared."""

    rows: npt.NDArray[np.int64]
    tried: torch.Tensor


class Rehearsal:
    """The synthetic batches that are still to come, and what was seen of those that came.

    Args:
        ends_loop: raise :class:`RehearsalEnded` at each step; False: a step changes nothing, and the loop goes on.

    Attributes:
        failure: why the loop is refused; None as long as nothing speaks against it.
        shown: structures of the models that passed.
    """

    def __init__(self, blocks: Blocks, *, ends_loop: bool) -> None:
        self.blocks, self._ends_loop = blocks, ends_loop
        self.failure: UnsafeTrainingError | None = None
        self.shown: set[object] = set()
        self._arrangements = _arrangements(blocks)
        self._seen: list[Stages] = []
        self._trace: Trace | None = None
        self._inputs: Inputs = ((), {})
        self._ended = False

    @property
    def rows_needed(self) -> int:
        """Synthetic rows are numbered from 0 to below this."""
        return 2 * self.blocks.first

    @property
    def seen(self) -> int:
        """How many batches were stepped on."""
        return len(self._seen)

    @property
    def complete(self) -> bool:
        """Whether every arrangement was stepped on, or one was refused."""
        return self.failure is not None or len(self._seen) == len(self._arrangements)

    @property
    def pending(self) -> bool:
        """Whether the next batch is synthetic: to a loop that is only rehearsed, each one is."""
        return self._ends_loop or self.failure is not None or not self.complete

    @property
    def ended(self) -> bool:
        """Whether the loop was ended since :meth:`begin_loop`."""
        return self._ended

    def begin_loop(self) -> None:
        """The loop is started (again)."""
        self._ended = False

    def draw_if_pending(self, kernel: GradientKernel) -> npt.NDArray[np.int64] | None:
        """:meth:`draw`; None once the rehearsal is over."""
        return self.draw(kernel) if self.pending else None

    def draw(self, kernel: GradientKernel) -> npt.NDArray[np.int64]:
        """The row numbers of the next synthetic batch.

        Raises:
            UnsafeTrainingError: the one before was passed over, or the loop was refused.
        """
        self._require_going_on()
        if self._trace is not None:
            raise self._fail(UnsafeTrainingError("a batch was passed over: every batch has to be stepped on"))
        arrangement = self._arrangements[len(self._seen)]
        kernel.serve(len(arrangement.rows))
        self._trace = kernel.recorder.watch(dense_values(kernel.layers, 1.0))
        return arrangement.rows

    def step(self, kernel: GradientKernel) -> None:
        """Look at what the batch that was drawn left behind; where it was the last one, give the verdict.

        Raises:
            UnsafeTrainingError: something mixes rows.
            RehearsalEnded: enough was seen of a loop that is only rehearsed, also of a refused one.
        """
        self._require_going_on()
        try:
            self._look(kernel)
        except UnsafeTrainingError as error:
            self.failure = error
            if not self._ends_loop:
                raise
        finally:
            kernel.recorder.unwatch()
            self._trace = None
        if self._ends_loop:
            self._ended = True
            raise RehearsalEnded

    def _look(self, kernel: GradientKernel) -> None:
        trace, arrangement = self._trace, self._arrangements[len(self._seen)]
        if trace is None:
            raise UnsafeTrainingError("a step needs a fresh batch from the private data loader")
        _require_no_other_gradient(kernel)
        rows = len(arrangement.rows)
        stages = trace.stages(kernel.entries(rows), self.blocks.rows_for(rows))
        if len(self._seen) == 1:  # the arrangement with the most different rows
            self._inputs = trace.inputs
        self._seen.append([(label, values[arrangement.tried].clone()) for label, values in stages])
        _compare(self._seen[0], self._seen[-1], larger=rows > self.blocks.first)
        if len(self._seen) == len(self._arrangements):
            kernel.recorder.unwatch()
            probe(kernel, self._inputs)
            self.shown.add(kernel.signature)

    def _require_going_on(self) -> None:
        if self._ended:
            raise RehearsalEnded
        if self.failure is not None:
            raise self.failure

    def _fail(self, failure: UnsafeTrainingError) -> UnsafeTrainingError:
        self.failure = failure
        return failure


def _arrangements(blocks: Blocks) -> list[Arrangement]:
    """Alone; among others; beside one class; beside another class in a block of twice the size, which comes last."""
    random = np.random.default_rng(1)
    tried = np.arange(_TRIED)
    first, second = COMPANY
    others = random.permutation(np.arange(_TRIED, 2 * blocks.first))
    return [
        Arrangement(tried, torch.from_numpy(tried)),
        _among(others[: blocks.first - _TRIED], random),
        _among(np.full(blocks.first - _TRIED - 5, first), random),
        _among(np.full(2 * blocks.first - _TRIED - 3, second), random),
    ]


def _among(others: npt.NDArray[np.int64], random: np.random.Generator) -> Arrangement:
    order = random.permutation(np.concatenate([np.arange(_TRIED), others]))
    return Arrangement(order, torch.from_numpy(np.array([np.flatnonzero(order == row)[0] for row in range(_TRIED)])))


def _compare(alone: Stages, together: Stages, *, larger: bool) -> None:
    if [label for label, _ in alone] != [label for label, _ in together]:
        raise UnsafeTrainingError("the model runs other layers for other batches: let it run the same for every row")
    for (label, expected), (_, found) in zip(alone, together, strict=True):
        if same_bits(expected, found):
            continue
        if label == _LOSS and larger and torch.equal(found, 2 * expected):
            raise UnsafeTrainingError(
                "the loss sums over the batch, so that its gradient grows with the batch: use reduction='mean' (the "
                "guard divides by the declared size)"
            )
        raise mixed(label)
    if not any(label == _LOSS and bool(values.any()) for label, values in alone):
        raise UnsafeTrainingError("the loss has no gradient on synthetic rows: nothing shows that it keeps rows apart")


def _require_no_other_gradient(kernel: GradientKernel) -> None:
    for name, layer in kernel.layers.items():
        for parameter in layer.parameters(recurse=False):
            if parameter.grad is not None and bool(parameter.grad.any()):
                raise UnsafeTrainingError(
                    f"a parameter of layer {name!r} has a gradient from outside of its layer, which no clipping "
                    "bounds: a penalty on weights is the optimizer's weight_decay"
                )
