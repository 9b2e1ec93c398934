"""Adapts a ``CoreasonExecutor`` to a session's trainer: runs ``_execute_training`` between a task and an update."""

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
from coreason_enclave.privacy import TrainingInputs, TrainingTask, training_inputs
from coreason_enclave.sentry import DataSentry
from coreason_enclave.wire import Array, Arrays, TrainedUpdate, layout_of


class ExecutorHooks(Protocol):
    """The parts of an executor that its trainer uses."""

    def begin_task(self, work: ActiveTask, inputs: TrainingInputs) -> None:
        """Give the executor its current task and the training inputs."""
        ...

    def end_task(self) -> None:
        """Remove the task and its inputs from the executor."""
        ...

    def fl_context(self) -> FLContext | None:
        """Return FLARE's context of the task; None outside FLARE's process."""
        ...

    def _execute_training(self, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Any: ...


class ExecutorTrainer:
    """Gives each task to ``executor`` as FLARE would, and turns the executor's output into an update.

    Whatever the loop does:

    - the gate samples rows only while the training may continue;
    - an aborted task gives no update.
    """

    def __init__(self, executor: ExecutorHooks, site_id: str, sentry: DataSentry) -> None:
        self._executor, self._site_id, self._sentry = executor, site_id, sentry

    def train(self, task: TrainingTask) -> TrainedUpdate:
        """See :class:`~coreason_enclave.privacy.training.Trainer`.

        Raises:
            TrainingAborted: the training was asked to stop. DataLeakageError: the loop returned no weights.
        """
        sentry, signal = self._sentry.bound_to(layout=layout_of(task.base)), TaskSignal(task.aborted)
        task.scope.gate.before_draw = signal.require_untriggered
        self._executor.begin_task(ActiveTask(task, sentry), training_inputs(task))
        try:
            returned = self._run(task, signal)
        finally:
            self._executor.end_task()
        signal.require_untriggered()  # discards the weights of an interrupted loop
        read = returned_by(returned, sentry)
        return TrainedUpdate(_difference(read, task.base), task.scope.event(), read.output["metrics"])

    def _run(self, task: TrainingTask, signal: TaskSignal) -> object:
        context = self._executor.fl_context() or _context(self._site_id)
        try:
            return self._executor._execute_training(task_shareable(task), context, signal)
        except PrivacyBudgetExceededError:
            raise
        except BaseException:  # the session contains all other errors
            if signal.heeded:  # an error during the stop is not the loop's fault
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
    with np.errstate(over="ignore"):  # an overflow becomes infinite, and the airlock refuses non-finite values
        return {name: arrays[name] - base[name] for name in arrays}
