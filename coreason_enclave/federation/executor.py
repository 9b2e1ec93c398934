"""The site as an ``Executor`` of NVIDIA FLARE: sealed bytes in, sealed bytes or a reason out.

:class:`CoreasonExecutor` takes part in a federation without changes. For a custom training loop, write a subclass; the
loop runs inside the site's session, between the session's checks and its airlock (output filter; see
:mod:`coreason_enclave.session.secure_session`):

>>> import torch
>>> from coreason_enclave.privacy import PrivacyGuard
>>> class SecureAgent(CoreasonExecutor):
...     def _execute_training(self, shareable, fl_ctx, abort_signal):
...         self._check_hardware_trust()
...         job_config = self._parse_job_config(shareable)
...         privacy_guard = PrivacyGuard(config=job_config.privacy)
...         model, optimizer, loader = privacy_guard.attach(
...             model=self.model, optimizer=torch.optim.SGD(self.model.parameters(), lr=0.01), data_loader=self.loader)
...         for data, target in loader:
...             if abort_signal.triggered:
...                 break
...             optimizer.zero_grad()
...             self.criterion(model(data), target).backward()
...             optimizer.step()
...             privacy_guard.check_budget()
...         return self.sentry.sanitize_output(
...             {"params": model.state_dict(), "metrics": {"epsilon": privacy_guard.get_current_epsilon()}})

The executor never trains outside a task, and refuses an unsealed task with a reason:

>>> from nvflare.apis.fl_context import FLContext
>>> from nvflare.apis.shareable import Shareable
>>> from nvflare.apis.signal import Signal
>>> reply = SecureAgent().execute("train", Shareable(), FLContext(), Signal())
>>> reply.get_return_code(), reply.get_header("aegis_reason")
('BAD_TASK_DATA', 'malformed')
>>> SecureAgent()._check_hardware_trust()
Traceback (most recent call last):
    ...
coreason_enclave.errors.AttestationError: attestation is available only within a task
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from coreason_enclave.errors import (
    AttestationError,
    ConfigurationError,
    EnclaveError,
    JobRejected,
    Reason,
    TrainingAborted,
)
from coreason_enclave.federation.nvflare import (
    OpenHandler,
    message_in,
    nothing_to_tell,
    open_handler,
    refusal,
    sealed_reply,
)
from coreason_enclave.schemas import AttestationReport, FederationJob
from coreason_enclave.wire import Handler, RequestKind

if TYPE_CHECKING:
    from coreason_enclave.federation.nvflare import ActiveTask
    from coreason_enclave.privacy import Trainer, TrainingInputs
    from coreason_enclave.sentry import DataSentry

TASKS: Final[Mapping[str, RequestKind]] = {
    "train": RequestKind.TRAIN,
    "enrol": RequestKind.ENROL,
    "attest": RequestKind.ATTEST,
    "witness": RequestKind.WITNESS,
    "validate": RequestKind.VALIDATE,
    "submit_model": RequestKind.SUBMIT,
}
"""Kinds of request by the name of FLARE's task. The executor refuses any other task as unsupported."""


class CoreasonExecutor(Executor):  # type: ignore[misc]  # FLARE ships no types
    """Answers FLARE's tasks according to ``coreason.json`` in this host's site configuration folder.

    - ``runs = agent``: the executor forwards the bytes to the site's agent.
    - ``runs = session`` (simulators): this process is the site.

    Attributes:
        model, loader, criterion: set during a training task: the job's model with the global weights, fresh and
            unwrapped; a loader over the dataset's rows; the loss.
        sentry: set during a training task: the site's sentry, bound to the layout of the model.
    """

    model: Any
    loader: Any
    criterion: Any
    sentry: Any

    _open_handler: OpenHandler | None = None
    _work: ActiveTask | None = None
    _context: FLContext | None = None

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Answer one task. Never raises: a refusal has a return code, and its reason in the header ``aegis_reason``."""
        try:
            return self._answered(task_name, shareable, fl_ctx, abort_signal)
        except EnclaveError as refused:
            reason = refused.reason
        except Exception as error:  # noqa: BLE001 - the error's text may hold a row, and FLARE would log the text
            self.log_error(fl_ctx, f"{type(error).__name__} while answering {task_name!r:.80}", fire_event=False)
            reason = Reason.INTERNAL
        self.log_info(fl_ctx, f"{task_name!r:.80} refused: {reason}")
        return refusal(reason)

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Close the site when the run ends, or when FLARE's simulator swaps this client for another."""
        super().handle_event(event_type, fl_ctx)
        if event_type in (EventType.END_RUN, EventType.SWAP_OUT):
            self.close()

    def close(self) -> None:
        """Close the site. The next task opens the site again."""
        opened, self._open_handler = self._open_handler, None
        if opened is not None:
            opened.close()

    def _answered(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        if task_name not in TASKS:
            raise JobRejected(f"task {task_name!r:.80} is unknown", reason=Reason.UNSUPPORTED)
        message = message_in(shareable)
        if abort_signal.triggered:
            raise TrainingAborted("the task was aborted before it started")
        self._context = fl_ctx
        try:
            handler = self._opened(fl_ctx)
            answer = handler.handle(TASKS[task_name], message, aborted=lambda: bool(abort_signal.triggered))
        finally:
            self._context = None
        return nothing_to_tell() if answer is None else sealed_reply(answer)

    def _opened(self, fl_ctx: FLContext) -> Handler:
        if self._open_handler is None:
            try:
                settings = Path(fl_ctx.get_workspace().get_site_config_dir())
                self._open_handler = open_handler(settings, fl_ctx.get_identity_name(), self, self._own_loop())
            except EnclaveError as error:  # concerns this host's configuration, so the host's operator needs the text
                self.log_error(fl_ctx, f"the site cannot be opened: {error}", fire_event=False)
                raise
        return self._open_handler.handler

    # --- for subclasses ------------------------------------------------------------------------------------------

    def _execute_training(self, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Any:
        """Train from the global weights. Subclasses write their own loop here.

        Args:
            shareable: a ``DXO`` of kind ``WEIGHTS`` (numpy) with the job in its properties.
            fl_ctx: FLARE's context; in an agent, a context that holds only the site's name.
            abort_signal: to be checked between steps. After an abort the site releases no update.

        Returns:
            ``self.sentry.sanitize_output({"params": …, "metrics": …})`` with whole weights, or a ``DXO`` or
            ``Shareable`` of kind ``WEIGHTS`` or ``WEIGHT_DIFF``. The session counts the privacy event; the loop never
            returns the event.
        """
        del shareable, fl_ctx, abort_signal
        from coreason_enclave.privacy import LocalSgdTrainer

        trained = LocalSgdTrainer().train(self._working().task)
        return DXO(DataKind.WEIGHT_DIFF, data=dict(trained.arrays)).to_shareable()

    def _check_hardware_trust(self) -> AttestationReport:
        """Return this host's attestation result, which released the model.

        Raises:
            AttestationError: outside a task, after expiry, or if this host can no longer prove itself.
        """
        if self._work is None:
            raise AttestationError("attestation is available only within a task")
        return self._work.task.trusted()

    def _parse_job_config(self, shareable: Shareable) -> FederationJob:
        """Return the job from ``shareable``, with every value resolved.

        Raises:
            ConfigurationError: outside a task. EnvelopeError: no job in ``shareable``. JobRejected: another job.
        """
        from coreason_enclave.federation.nvflare import job_in

        return job_in(shareable, self._working().task.job)

    def _working(self) -> ActiveTask:
        if self._work is None:
            raise ConfigurationError("a job is available only while a task is trained")
        return self._work

    # --- for opening a site whose site.toml names this class --------------------------------------------------------

    def as_trainer(self, site_id: str, sentry: DataSentry) -> Trainer:
        """Return this executor's training loop as a site's trainer, outside FLARE's process."""
        from coreason_enclave.federation.nvflare import ExecutorTrainer  # loads the frameworks

        return ExecutorTrainer(self, site_id, sentry)

    # --- for ExecutorTrainer, which wraps this executor as a trainer --------------------------------------------------

    def begin_task(self, work: ActiveTask, inputs: TrainingInputs) -> None:
        """See :class:`~coreason_enclave.federation.nvflare.trainer.ExecutorHooks`."""
        self._work = work
        self.model, self.loader, self.criterion = inputs.model, inputs.loader, inputs.criterion
        self.sentry = work.sentry

    def end_task(self) -> None:
        """See :class:`~coreason_enclave.federation.nvflare.trainer.ExecutorHooks`."""
        self._work = None
        for name in ("model", "loader", "criterion", "sentry"):
            self.__dict__.pop(name, None)

    def fl_context(self) -> FLContext | None:
        """See :class:`~coreason_enclave.federation.nvflare.trainer.ExecutorHooks`."""
        return self._context

    def _own_loop(self) -> str | None:
        kind = type(self)
        if kind._execute_training is CoreasonExecutor._execute_training:
            return None
        return f"{kind.__module__}:{kind.__qualname__}"
