"""Builds the input of a training loop written for FLARE, and checks the loop's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import FLMetaKey, ReturnCode
from nvflare.apis.shareable import ReservedHeaderKey, Shareable
from nvflare.apis.signal import Signal

from coreason_enclave.crypto import parse_json
from coreason_enclave.errors import DataLeakageError, EnclaveError, EnvelopeError, JobRejected, Reason, TrainingAborted
from coreason_enclave.schemas import FederationJob
from coreason_enclave.sentry import DataSentry, SanitizedOutput
from coreason_enclave.system import explain

if TYPE_CHECKING:
    from coreason_enclave.privacy import TrainingTask

JOB_META: Final = "aegis_job"
"""The ``DXO`` property that holds the accepted job's document."""


@dataclass(frozen=True)
class ActiveTask:
    """An executor's current training task. ``sentry`` knows the model's layout."""

    task: TrainingTask
    sentry: DataSentry


class TaskSignal(Signal):  # type: ignore[misc]  # FLARE ships no types
    """FLARE's abort signal for a training loop, fed by the task's abort condition. Once triggered, always triggered."""

    def __init__(self, aborted: Callable[[], bool]) -> None:
        super().__init__()
        self._aborted = aborted
        self.heeded = False

    @property
    def triggered(self) -> bool:
        """True if the training must end.

        Raises:
            AttestationError: this host can no longer prove itself.
        """
        self.heeded = self.heeded or bool(self._triggered) or self._aborted()
        return self.heeded

    def require_untriggered(self) -> None:
        """Raise :class:`TrainingAborted` if the signal is triggered."""
        if self.triggered:
            raise TrainingAborted("FLARE asked the training to stop")


def task_shareable(task: TrainingTask) -> Shareable:
    """Return the global weights (numpy) and the fully resolved job, in the form of FLARE's own tasks."""
    meta = {
        JOB_META: parse_json(task.job.canonical()),
        FLMetaKey.CURRENT_ROUND: task.scope.reservation.round_number,
        FLMetaKey.TOTAL_ROUNDS: task.job.rounds,
    }
    weights = {name: np.array(array, copy=True) for name, array in task.base.items()}
    return DXO(DataKind.WEIGHTS, data=weights, meta=meta).to_shareable()


def job_in(shareable: Shareable, accepted: FederationJob) -> FederationJob:
    """Return the job in a task's shareable, which must equal the accepted job.

    Raises:
        EnvelopeError: no job in the shareable. JobRejected: a different job.
    """
    try:
        job = FederationJob.model_validate(from_shareable(shareable).get_meta_prop(JOB_META))
    except (ValueError, TypeError, AttributeError) as error:  # pydantic's error among them
        raise EnvelopeError(f"the shareable contains no valid job: {explain(error)}") from error
    if job != accepted:
        raise JobRejected("the shareable contains another job than the accepted job", reason=Reason.WRONG_DIGEST)
    return job


@dataclass(frozen=True)
class Returned:
    """A loop's checked output: only arrays of the model's layout and permitted metrics.

    ``difference``: True if the arrays already hold new weights minus global weights.
    """

    output: SanitizedOutput
    difference: bool


def returned_by(returned: object, sentry: DataSentry) -> Returned:
    """Check and return the output of ``_execute_training``.

    Accepted forms:

    - a dictionary as :meth:`DataSentry.sanitize_output` takes and returns (whole weights);
    - a ``DXO`` or ``Shareable`` of kind ``WEIGHTS`` or ``WEIGHT_DIFF`` with numpy arrays, and optional ``metrics`` in
      its properties.

    Raises:
        DataLeakageError: any other form. TrainingAborted: FLARE's own reply for an aborted task.
        EnclaveError: a reply with another error code.
    """
    if isinstance(returned, Shareable):
        returned = _dxo_in(returned)
    if not isinstance(returned, DXO):
        return Returned(sentry.sanitize_output(_mapping(returned)), difference=False)
    if returned.data_kind not in (DataKind.WEIGHTS, DataKind.WEIGHT_DIFF):
        raise DataLeakageError(f"the DXO is {returned.data_kind!r:.80}: only WEIGHTS or WEIGHT_DIFF may leave the site")
    output = {"params": _numpy_only(returned.data), **_mapping(returned.meta or {})}
    return Returned(sentry.sanitize_output(output), difference=returned.data_kind == DataKind.WEIGHT_DIFF)


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise DataLeakageError(f"the training returned {type(value).__name__} instead of params and metrics")
    return value


def _numpy_only(data: Mapping[Any, object]) -> Mapping[Any, object]:
    for name, value in data.items():
        if type(value) is not np.ndarray:
            raise DataLeakageError(f"{name!r:.80} in a DXO must be a numpy array, got {type(value).__name__}")
    return data


def _dxo_in(shareable: Shareable) -> DXO:
    code = shareable.get_return_code()
    if code == ReturnCode.TASK_ABORTED:
        raise TrainingAborted("the training loop reported that it was aborted")
    if code != ReturnCode.OK:
        raise EnclaveError(f"the training loop returned the code {code!r:.80}", reason=Reason.INTERNAL)
    surplus = shareable.keys() - {"DXO", ReservedHeaderKey.HEADERS}
    if surplus:
        raise DataLeakageError(f"a Shareable with {', '.join(sorted(map(repr, surplus)))!s:.200} may not leave")
    try:
        return from_shareable(shareable)
    except (ValueError, TypeError) as error:
        raise DataLeakageError(f"the training returned a Shareable without a DXO: {error}") from error
