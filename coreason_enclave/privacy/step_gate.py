"""The one place that counts: which batch was drawn, which step was taken, and whether another may be.

The budget check is an integer comparison. The step limit was found once, when the round was reserved, by bisection
over the composed events; nothing is accounted inside the training loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coreason_enclave.errors import PrivacyBudgetExceededError, UnsafeTrainingError

__all__ = ["Batch", "StepGate"]

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """One Poisson sample: its rows, and for each row the position of its unit among the units sampled."""

    rows: Indices
    unit_of_row: Indices
    units: int


class StepGate:
    """Counts draws and steps of one reservation; every draw has a number that is never used again.

    Args:
        step_limit: steps that were reserved, at least 0.
        target_epsilon: only for the message; None for training without a guarantee.

    Attributes:
        before_draw: called before every sample is drawn, and raises to end the training, whatever the loop looks like.
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
        """Steps that were reserved."""
        return self._step_limit

    @property
    def steps_taken(self) -> int:
        """Steps that were charged so far."""
        return self._steps_taken

    @property
    def refused(self) -> bool:
        """Whether a step beyond the limit was ever asked for: then nothing of this reservation may be released."""
        return self._refused

    def next_draw(self) -> int:
        """The number of the sample that is about to be drawn; raises when no step could use it.

        Raises:
            PrivacyBudgetExceededError: no step is left for it.
            UnsafeTrainingError: the sample before it was passed over.
        """
        self.before_draw()
        self._require_affordable()
        if self._batch is not None:
            raise UnsafeTrainingError(
                "the batch drawn before was not used in a step: every sample, an empty one too, has to be stepped on, "
                "or the number of noised steps would depend on private rows"
            )
        self._draws += 1
        return self._draws - 1

    def drawn(self, batch: Batch) -> None:
        """Note the sample that the next step has to be computed from."""
        self._batch = batch

    def check(self) -> None:
        """Raise where the step that is pending, or any first step, is not affordable.

        Ending exactly at the limit is a success: after the last affordable step, with no further batch drawn, this
        returns.
        """
        if self._refused or self.step_limit == 0 or (self._batch is not None and self.steps_taken >= self.step_limit):
            self._require_affordable()

    def take_step(self) -> tuple[int, Batch]:
        """Charge one step **before** it runs, and hand out its number and its sample.

        Raises:
            PrivacyBudgetExceededError: the step is not affordable; it has not run.
            UnsafeTrainingError: no fresh sample was drawn for it.
        """
        self._require_affordable()
        if self._batch is None:
            raise UnsafeTrainingError(
                "a step needs a fresh batch from the private data loader: one batch serves one optimizer step, or the "
                "Poisson accounting would be false"
            )
        batch, self._batch = self._batch, None
        self._steps_taken += 1
        return self._steps_taken - 1, batch

    def _require_affordable(self) -> None:
        if self.steps_taken >= self.step_limit:
            self._refused = True
            raise PrivacyBudgetExceededError(
                f"step {self.steps_taken + 1} is not affordable and has not run: {self.step_limit} steps are reserved, "
                f"target_epsilon is {self._target_epsilon}. Ask for fewer steps, more noise or a larger budget"
            )
