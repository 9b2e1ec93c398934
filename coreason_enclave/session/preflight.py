"""Preflight checks of an order: find every fault that needs no row, before any reservation.

Acceptance has checked the order by itself. Preflight compares the order with the site's declaration of its data
(``dataset.toml``, which holds no rows) and with the model architectures. Checks, in this sequence:

1. The base model has the layout of the job's architecture; every weight is finite and within ``max_base_weight``.
2. The dataset exists, by its declaration and its file.
3. The declared unit and publicity match the lineage's registration.
4. Private steps can train the model: no layer mixes rows, no buffer.
5. The model takes the declared examples and has an outcome for each declared class.

A fault found later would cost the round's reservation. A fault found from the rows would reveal information about the
rows.
"""

from __future__ import annotations

from coreason_enclave.datasets import DatasetSchema, LabelTask
from coreason_enclave.errors import DatasetRejected, JobRejected, Reason
from coreason_enclave.models import build, layout, require_bounded_weights, require_fits, task_of
from coreason_enclave.privacy import require_separable
from coreason_enclave.schemas import FederationJob, PrivacyUnit, Task
from coreason_enclave.sentry import DataSentry
from coreason_enclave.session.acceptance import AcceptedJob
from coreason_enclave.wire import layout_of


def require_sound_model(accepted: AcceptedJob, max_base_weight: float) -> None:
    """Raise unless the base model fits the job's architecture, with finite weights within the site's bound.

    Raises:
        JobRejected: by ``wrong_shapes``, ``non_finite`` or ``policy``.
    """
    job = accepted.job
    if layout_of(accepted.base) != layout(job.model_arch, job.model_args):
        raise JobRejected(f"base model tensors do not fit {job.model_arch} and model_args", reason=Reason.WRONG_SHAPES)
    require_bounded_weights(accepted.base, max_base_weight)


def require_declared(accepted: AcceptedJob, sentry: DataSentry) -> None:
    """Raise unless the dataset's declaration, the site's registration and the job's model fit together.

    Raises:
        DatasetRejected: the dataset does not exist, or declaration and registration differ.
        JobRejected: the model does not fit the declaration.
        UnsafeTrainingError: private steps cannot train the model.
    """
    job = accepted.job
    declared = sentry.declared(job.dataset_id)
    _require_registered(accepted, declared)
    require_separable(build(job.model_arch, job.model_args).module)
    _require_task(job, declared)


_TASKS = {
    LabelTask.CLASSES: (Task.BINARY, Task.MULTICLASS),
    LabelTask.LABELS: (Task.MULTILABEL,),
    LabelTask.NUMBER: (Task.REGRESSION,),
    LabelTask.COUNT: (Task.COUNT,),
    LabelTask.SURVIVAL: (Task.SURVIVAL,),
}
"""The tasks of a job that each form of label serves."""


def _require_task(job: FederationJob, declared: DatasetSchema) -> None:
    """Raise :class:`JobRejected` unless task, model and the label's declaration fit together."""
    label, kind = declared.label, task_of(job.model_arch, job.task).kind
    if kind not in _TASKS[label.task]:
        message = f"the job's task is {kind}, dataset.toml declares a label of task {label.task}"
        raise JobRejected(message, reason=Reason.WRONG_SHAPES)
    require_fits(job.model_arch, job.model_args, declared.sample_shape, label.classes or label.outputs, job.task)


def _require_registered(accepted: AcceptedJob, declared: DatasetSchema) -> None:
    lineage = accepted.lineage
    if (declared.unit_column is not None) != (lineage.unit is PrivacyUnit.PERSON):
        raise DatasetRejected(f"dataset.toml and site.toml disagree: the registered unit is {lineage.unit}")
    if declared.public != lineage.public:
        raise DatasetRejected("dataset.toml and site.toml disagree on whether the data is public")
