"""A ``CoreasonExecutor`` as a session's trainer: its ``_execute_training`` between a task and an update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from nvflare.apis.fl_constant import ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from coreason_enclave.errors import PrivacyBudgetExceededError
from coreason_enclave.federation.nvflare.tasks import ActiveTask, Returned, TaskSignal, returned_by, task_shareable
from coreason_enclave.privacy.training import TrainingTask
from coreason_enclave.privacy.training_inputs import TrainingInputs, training_inputs
from coreason_enclave.sentry import DataSentry
from coreason_enclave.wire.updates import Array, Arrays, TrainedUpdate, layout_of

__all__ = ["ExecutorHooks", "ExecutorTrainer"]


class ExecutorHooks(Protocol):
    """What of an executor its trainer uses."""

    def begin_task(self, work: ActiveTask, material: TrainingInputs) -> None:
        """Make ``work`` and its material the executor's own."""
        ...

    def end_task(self) -> None:
        """Have none any more."""
        ...

    def fl_context(self) -> FLContext | None:
        """FLARE's context of the task, where the executor runs in FLARE's process."""
        ...

    def _execute_training(self, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Any: ...


class ExecutorTrainer:
    """Gives each task to ``executor`` as FLARE would, and takes what comes back as an update.

    Whatever the loop does, a sample is drawn only while the training may go on, and what was aborted gives no update.
    """

    def __init__(self, executor: ExecutorHooks, site_id: str, sentry: DataSentry) -> None:
        self._executor, self._site_id, self._sentry = executor, site_id, sentry

    def train(self, task: TrainingTask) -> TrainedUpdate:
        """See :class:`~coreason_enclave.privacy.training.Trainer`.

        Raises:
            TrainingAborted: it was asked to stop. DataLeakageError: it returned something else than weights.
        """
        sentry, signal = self._sentry.bound_to(layout=layout_of(task.base)), TaskSignal(task.aborted)
        task.scope.gate.before_draw = signal.require_untriggered
        self._executor.begin_task(ActiveTask(task, sentry), training_inputs(task))
        try:
            returned = self._run(task, signal)
        finally:
            self._executor.end_task()
        signal.require_untriggered()  # a loop that was cut short returns weights that nobody asked for
        read = returned_by(returned, sentry)
        return TrainedUpdate(_difference(read, task.base), task.scope.event(), read.output["metrics"])

    def _run(self, task: TrainingTask, signal: TaskSignal) -> object:
        context = self._executor.fl_context() or _context(self._site_id)
        try:
            return self._executor._execute_training(task_shareable(task), context, signal)
        except PrivacyBudgetExceededError:
            raise
        except BaseException:  # what is left is contained by the session
            if signal.heeded:  # what a loop trips over while it stops is no fault of its own
                signal.require_untriggered()
            raise


def _context(site_id: str) -> FLContext:
    context = FLContext()
    context.set_prop(ReservedKey.IDENTITY_NAME, site_id, private=False, sticky=False)
    return context


def _difference(read: Returned, base: Arrays) -> Mapping[str, Array]:
    arrays = read.output["params"]
    if read.difference:
        return arrays
    with np.errstate(over="ignore"):  # what overflows becomes infinite, which the airlock refuses as such
        return {name: arrays[name] - base[name] for name in arrays}
