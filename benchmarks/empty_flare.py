"""What an empty FLARE job runs: tasks that ask nothing and answers that say nothing."""

from __future__ import annotations

from typing import Any

from nvflare.apis.controller_spec import Task
from nvflare.apis.executor import Executor
from nvflare.apis.shareable import Shareable
from nvflare.app_common.workflows.model_controller import ModelController

__all__ = ["EmptyExecutor", "EmptyWorkflow"]


class EmptyWorkflow(ModelController):  # type: ignore[misc]  # FLARE ships no types
    """As many rounds of one task for each client as the run is named after: ``run`` is ``empty-10`` for ten."""

    def __init__(self, run: str, readmit: list[str]) -> None:
        super().__init__(persistor_id="", task_check_period=0.1)
        self._rounds = int(run.rpartition("-")[2])

    def run(self) -> None:
        """FLARE's entry."""
        for _ in range(self._rounds):
            task = Task(name="train", data=Shareable(), timeout=60)
            self.broadcast_and_wait(task, self.fl_ctx, min_responses=0, abort_signal=self.abort_signal)


class EmptyExecutor(Executor):  # type: ignore[misc]  # FLARE ships no types
    """Answers at once."""

    def execute(self, *_: Any) -> Shareable:
        """An empty answer."""
        return Shareable()
