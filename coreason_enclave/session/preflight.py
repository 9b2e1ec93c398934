"""What can be wrong with an order that no row has to be read for: found before anything is reserved.

Acceptance has looked at the order by itself. Here it meets what this site declares about its data (``dataset.toml``,
which is no row) and what its models are. In this order:

1. the base model has the layout of the job's architecture, and every weight is finite and within ``max_base_weight``
2. the dataset is there, by its declaration and its file
3. its declared unit and publicity are those of the lineage's registration
4. the model can be trained by private steps: no layer that mixes rows, no buffer
5. it takes the declared examples and has an outcome for each declared class

A fault found later would cost the round's reservation, and one found from the rows would tell of them.
"""

from __future__ import annotations

from coreason_enclave.datasets.schema import DatasetSchema
from coreason_enclave.errors import DatasetRejected, JobRejected, Reason
from coreason_enclave.models import build, layout, require_fits
from coreason_enclave.models.bounds import require_bounded_weights
from coreason_enclave.privacy.guard import require_separable
from coreason_enclave.schemas import PrivacyUnit
from coreason_enclave.sentry import DataSentry
from coreason_enclave.session.acceptance import AcceptedJob
from coreason_enclave.wire.updates import layout_of

__all__ = ["require_declared", "require_sound_model"]


def require_sound_model(accepted: AcceptedJob, max_base_weight: float) -> None:
    """The base model is one of the job's architecture, finite and within the site's bound.

    Raises:
        JobRejected: by ``wrong_shapes``, ``non_finite`` or ``policy``.
    """
    job = accepted.job
    if layout_of(accepted.base) != layout(job.model_arch, job.model_args):
        raise JobRejected(f"the base model is not a {job.model_arch} of these model_args", reason=Reason.WRONG_SHAPES)
    require_bounded_weights(accepted.base, max_base_weight)


def require_declared(accepted: AcceptedJob, sentry: DataSentry) -> None:
    """The dataset's declaration, the site's registration and the job's model fit together.

    Raises:
        DatasetRejected: there is no such dataset, or it is declared otherwise than it is registered.
        JobRejected: the model does not fit what is declared. UnsafeTrainingError: it cannot be trained privately.
    """
    job = accepted.job
    declared = sentry.declared(job.dataset_id)
    _require_registered(accepted, declared)
    require_separable(build(job.model_arch, job.model_args).module)
    require_fits(job.model_arch, job.model_args, declared.sample_shape, declared.label.classes)


def _require_registered(accepted: AcceptedJob, declared: DatasetSchema) -> None:
    lineage = accepted.lineage
    if (declared.unit_column is not None) != (lineage.unit is PrivacyUnit.PERSON):
        raise DatasetRejected(f"dataset.toml and site.toml disagree: the registered unit is {lineage.unit}")
    if declared.public != lineage.public:
        raise DatasetRejected("dataset.toml and site.toml disagree on whether the data is public")
