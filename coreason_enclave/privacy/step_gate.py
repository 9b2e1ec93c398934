"""The step gate: the only counter of samples and steps, and the only place that allows or refuses another step.

The budget check compares integers. Bisection over the composed events determined the step limit once, when the ledger
reserved the round; no accounting runs inside the training loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coreason_enclave.errors import PrivacyBudgetExceededError, UnsafeTrainingError

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """One Poisson sample: its rows, and for each row the position of its unit among the sampled units."""

    rows: Indices
    unit_of_row: Indices
    units: int


class StepGate:
    """Counts samples and steps of one reservation; every sample has a number and no number repeats.

    Args:
        step_limit: number of reserved steps, at least 0.
        target_epsilon: only for the message; None for training without a guarantee.

    Attributes:
        before_draw: called before every sample; raises to end the training, whatever the loop looks like.
    """

    def __init__(self, step_limit: int, target_epsilon: float | None) -> None:
        self._step_limit = step_limit
        self._steps_taken = 0
        self.before_draw: Callable[[], None] = lambda: None
        self._target_epsilon = target_epsilon
        self._draws = 0
        self._batch: Batch | None = None
        self._refused = False

    @property
    def step_limit(self) -> int:
        """Number of reserved steps."""
        return self._step_limit

    @property
    def steps_taken(self) -> int:
        """Number of steps charged so far."""
        return self._steps_taken

    @property
    def refused(self) -> bool:
        """True once the loop has requested a step beyond the limit, which forbids any release of this reservation."""
        return self._refused

    def next_draw(self) -> int:
        """Return the number of the next sample; raise if no step could use the sample.

        Raises:
            PrivacyBudgetExceededError: no step remains for the sample.
            UnsafeTrainingError: the loop skipped the sample before.
        """
        self.before_draw()
        self._require_affordable()
        if self._batch is not None:  # if loops skipped empty samples, the number of steps would depend on private rows
            raise UnsafeTrainingError("the previous batch got no step: call step() for every batch, even an empty one")
        self._draws += 1
        return self._draws - 1

    def drawn(self, batch: Batch) -> None:
        """Record the sample for the next step."""
        self._batch = batch

    def check(self) -> None:
        """Raise if the pending step, or any first step, is not affordable.

        Ending exactly at the limit succeeds: after the last affordable step, with no further batch drawn, the check
        passes.
        """
        if self._refused or self.step_limit == 0 or (self._batch is not None and self.steps_taken >= self.step_limit):
            self._require_affordable()

    def take_step(self) -> tuple[int, Batch]:
        """Charge one step **before** the step runs, and return its number and its sample.

        Raises:
            PrivacyBudgetExceededError: the step is not affordable and has not run.
            UnsafeTrainingError: the loop drew no fresh sample for the step.
        """
        self._require_affordable()
        if self._batch is None:  # Poisson accounting counts one sample for each step
            raise UnsafeTrainingError("a step needs a fresh batch of the private data loader: take one step per batch")
        batch, self._batch = self._batch, None
        self._steps_taken += 1
        return self._steps_taken - 1, batch

    def _require_affordable(self) -> None:
        if self.steps_taken >= self.step_limit:
            self._refused = True
            raise PrivacyBudgetExceededError(
                f"step {self.steps_taken + 1} is not affordable and did not run: {self.step_limit} steps are "
                f"reserved, target_epsilon is {self._target_epsilon}. Use fewer steps, more noise or a larger budget"
            )
