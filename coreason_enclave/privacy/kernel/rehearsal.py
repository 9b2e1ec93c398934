"""Rehearsal: synthetic rows pass through model, loss and loop next to varying other rows, before any real row.

The rehearsal compares eight rows with themselves, bit for bit, in four arrangements:

- alone;
- among other rows;
- next to many rows of one class;
- next to many rows of another class, in a larger block. The larger block exposes a loss that sums instead of averaging.

Four kinds of values must agree, and a refusal names the first that differs:

- the loop's inputs to the model;
- each layer's outputs;
- the gradient of the loss;
- the gradient that returns to each layer.

The rehearsal draws its own weights: a job's weights may hide a mixing layer, and all-zero weights always do.
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
    from coreason_enclave.privacy.kernel.gradient_kernel import GradientKernel
    from coreason_enclave.privacy.kernel.recording import Trace

COMPANY: Final = (8, 9)
"""Two synthetic rows with different labels: the first class and another class."""

_TRIED: Final = 8
_LOSS: Final = "the gradient of the loss"


class RehearsalEnded(BaseException):
    """Ends a loop under rehearsal; a BaseException, to pass the loop's own ``except Exception``."""


@dataclass(frozen=True)
class Arrangement:
    """One synthetic batch: the numbers of its rows, and the places of the compared rows."""

    rows: npt.NDArray[np.int64]
    tried: torch.Tensor


class Rehearsal:
    """The remaining synthetic batches, and the recorded values of the past batches.

    Args:
        ends_loop: True: raise :class:`RehearsalEnded` at each step. False: a step changes nothing, and the loop
            continues.

    Attributes:
        failure: the reason for refusing the loop; None while no check has failed.
        shown: signatures of the models that passed.
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
        """Number of synthetic rows; row numbers run from 0 up to this bound, exclusive."""
        return 2 * self.blocks.first

    @property
    def seen(self) -> int:
        """Number of batches followed by a step."""
        return len(self._seen)

    @property
    def complete(self) -> bool:
        """True after a step on every arrangement, or after a failure."""
        return self.failure is not None or len(self._seen) == len(self._arrangements)

    @property
    def pending(self) -> bool:
        """True if the next batch is synthetic; always True for a loop under rehearsal only."""
        return self._ends_loop or self.failure is not None or not self.complete

    @property
    def ended(self) -> bool:
        """True if the rehearsal has ended the loop since :meth:`begin_loop`."""
        return self._ended

    def begin_loop(self) -> None:
        """Record a start or restart of the loop."""
        self._ended = False

    def draw_if_pending(self, kernel: GradientKernel) -> npt.NDArray[np.int64] | None:
        """Return :meth:`draw`, or None after the end of the rehearsal."""
        return self.draw(kernel) if self.pending else None

    def draw(self, kernel: GradientKernel) -> npt.NDArray[np.int64]:
        """Return the row numbers of the next synthetic batch.

        Raises:
            UnsafeTrainingError: the loop skipped the previous batch, or has already failed.
            RehearsalEnded: the rehearsal has already ended the loop.
        """
        self._require_going_on()
        if self._trace is not None:
            raise self._fail(UnsafeTrainingError("a batch was skipped: call step() for every batch"))
        arrangement = self._arrangements[len(self._seen)]
        kernel.serve(len(arrangement.rows))
        self._trace = kernel.recorder.watch(dense_values(kernel.layers, 1.0))
        return arrangement.rows

    def step(self, kernel: GradientKernel) -> None:
        """Compare the recorded values of the current batch; after the last batch, run the probe.

        Raises:
            UnsafeTrainingError: model, loss or loop mixes rows.
            RehearsalEnded: the step ends a loop under rehearsal only, even after a failure.
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
    """Return four arrangements of the tried rows: alone, among others, next to one class, next to another class.

    The last arrangement uses a block of double size.
    """
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
        raise UnsafeTrainingError("the model runs different layers per batch: run the same layers for every row")
    for (label, expected), (_, actual) in zip(alone, together, strict=True):
        if same_bits(expected, actual):
            continue
        if label == _LOSS and larger and torch.equal(actual, 2 * expected):
            raise UnsafeTrainingError("the loss sums over the batch: use reduction='mean', which the guard rescales")
        raise mixed(label)
    if not any(label == _LOSS and bool(values.any()) for label, values in alone):
        raise UnsafeTrainingError("the loss has no gradient on synthetic rows: independence of rows is not shown")


def _require_no_other_gradient(kernel: GradientKernel) -> None:
    for name, layer in kernel.layers.items():
        for parameter in layer.parameters(recurse=False):
            if parameter.grad is not None and bool(parameter.grad.any()):
                raise UnsafeTrainingError(
                    f"a parameter of layer {name!r} has a gradient from outside its layer, which clipping does not "
                    "bound: use the optimizer's weight_decay for a penalty on weights"
                )
