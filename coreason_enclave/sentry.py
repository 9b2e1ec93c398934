"""The sentry at a site's two doors: checks datasets on their way in, and filters every output on its way out.

>>> import tempfile, textwrap
>>> root = Path(tempfile.mkdtemp())
>>> folder = root / "clinic" / "visits"
>>> folder.mkdir(parents=True)
>>> _ = (folder / "rows.csv").write_text("age,visited\\n30,1\\n70,0\\n")
>>> _ = (folder / "dataset.toml").write_text(textwrap.dedent('''
...     version = 1
...     dataset_id = "clinic/visits"
...     format = "csv"
...     file = "rows.csv"
...     public = false
...     label = { column = "visited", classes = 2 }
...     features = [{ name = "age", low = 0, high = 100 }]'''))
>>> sentry = DataSentry(root)
>>> sentry.validate_input("clinic/visits").features.shape
(2, 1)
>>> sentry.sanitize_output({"params": {"_module.linear.weight": np.ones(1)}, "metrics": {"epsilon": 1.5}})
{'params': {'linear.weight': array([1.], dtype=float32)}, 'metrics': {'epsilon': 1.5}}
>>> sentry.sanitize_output({"params": {"linear.weight": np.ones(1)}, "metrics": {"loss": 0.3}})
Traceback (most recent call last):
    ...
coreason_enclave.errors.DataLeakageError: metric 'loss' may not leave the site; permitted metrics are ...
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from coreason_enclave.airlock import (
    MAX_UPDATE_BYTES,
    check_bytes,
    check_finite,
    check_layout,
    check_metrics,
    check_norm,
    pass_through,
    strip_wrappers,
)
from coreason_enclave.datasets import (
    MAX_FILE_BYTES,
    CheckedDatasets,
    DatasetExpectation,
    DatasetSchema,
    DatasetSchemaRejected,
    SchemaProblem,
    SiteDataset,
    content_digest,
    declared_schema,
    open_dataset,
)
from coreason_enclave.errors import DataLeakageError
from coreason_enclave.wire import Array, Layout, ReleasableUpdate, TrainedUpdate

__all__ = ["DataSentry", "DatasetExpectation", "SanitizedOutput", "SiteDataset"]


class SanitizedOutput(TypedDict):
    """Weights and metrics that passed :meth:`DataSentry.sanitize_output`."""

    params: dict[str, Array]
    metrics: dict[str, float]


@dataclass(frozen=True)
class DataSentry:
    """Guards one data root and every output.

    - Stand-alone, the sentry checks names, types, finiteness, size and metrics.
    - Bound to a job (:meth:`bound_to`), the sentry also checks the model's exact layout and the update's norm.

    :meth:`sanitize_output` does not make an update. Only :meth:`release`, which requires the privacy event, makes an
    update ready for signing.
    """

    data_root: Path
    max_dataset_bytes: int = MAX_FILE_BYTES
    max_update_bytes: int = MAX_UPDATE_BYTES
    layout: Layout | None = None
    max_norm: float | None = None
    checked: CheckedDatasets = field(default_factory=CheckedDatasets, repr=False, compare=False)

    def bound_to(self, *, layout: Layout, max_norm: float | None = None) -> DataSentry:
        """Return the same sentry for one job: the base model's ``layout``, the job's ``max_update_norm``.

        Without ``max_norm``, the output holds whole weights, whose norm tells nothing about the update's norm.
        """
        return replace(self, layout=dict(layout), max_norm=max_norm)

    def validate_input(self, dataset_id: str, *, expected: DatasetExpectation | None = None) -> SiteDataset:
        """Open the dataset and check it against its schema and the caller's expectations.

        The error message is for the site's own log; only the reason may leave.

        Raises:
            ConfigurationError: the data root is unusable.
            DatasetRejected: the id leaves the data root, or path, schema, rows or an expectation do not hold.
        """
        dataset = open_dataset(Path(self.data_root), dataset_id, max_bytes=self.max_dataset_bytes, checked=self.checked)
        unmet = expected.unmet_by(dataset.schema) if expected is not None else ()
        if unmet:
            raise DatasetSchemaRejected(dataset_id, [SchemaProblem(None, text) for text in unmet])
        return dataset

    def open(self, dataset_id: str) -> SiteDataset:
        """Call :meth:`validate_input` without expectations."""
        return self.validate_input(dataset_id)

    def declared(self, dataset_id: str) -> DatasetSchema:
        """Return the dataset's declaration without reading its rows; raise the errors of :meth:`validate_input`."""
        return declared_schema(Path(self.data_root), dataset_id)

    def content_digest(self, dataset_id: str) -> str:
        """Return the digest that :meth:`open` would compute now; hash the rows without parsing them."""
        return content_digest(Path(self.data_root), dataset_id, max_bytes=self.max_dataset_bytes)

    def sanitize_output(self, output: Mapping[str, object]) -> SanitizedOutput:
        """Return permitted weights and metrics; refuse any other content.

        Args:
            output: ``{"params": {name: array or tensor}, "metrics": {name: number}}``; ``metrics`` is optional. Wrapper
                prefixes (``_module.``, ``module.``) are stripped from names. Stand-alone, every floating type becomes
                float32; bound to a job, only float32 passes.

        Raises:
            DataLeakageError: another key, an unlisted metric, or a forbidden name, type, value, shape, norm or size.
        """
        params, metrics = _parts(output)
        arrays = _clean(params, strict=self.layout is not None)
        check_bytes(arrays, self.max_update_bytes)
        if self.layout is not None:
            check_layout(arrays, self.layout)
        check_finite(arrays)
        if self.max_norm is not None:
            check_norm(arrays, self.max_norm)
        return {"params": arrays, "metrics": check_metrics(metrics)}

    def release(
        self, trained: TrainedUpdate, *, layout: Layout, max_norm: float, allow_non_private: bool = False
    ) -> ReleasableUpdate:
        """Pass an update through :func:`coreason_enclave.airlock.pass_through`, with this sentry's size cap."""
        return pass_through(
            trained,
            layout=layout,
            max_norm=max_norm,
            max_bytes=self.max_update_bytes,
            allow_non_private=allow_non_private,
        )


def _parts(output: object) -> tuple[Mapping[object, object], Mapping[str, object]]:
    if not isinstance(output, Mapping) or not {"params"} <= output.keys() <= {"params", "metrics"}:
        keys = sorted(map(repr, output)) if isinstance(output, Mapping) else type(output).__name__
        raise DataLeakageError(f"an output must have params, may have metrics, and nothing else; got {keys!s:.200}")
    params, metrics = output["params"], output.get("metrics", {})
    if not isinstance(params, Mapping) or not isinstance(metrics, Mapping):
        raise DataLeakageError("params and metrics must be mappings from names to values")
    if not params:
        raise DataLeakageError("params is empty: there is nothing to release")
    return params, metrics


def _clean(params: Mapping[object, object], *, strict: bool) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name, value in params.items():
        clean = strip_wrappers(name)
        if clean in arrays:
            raise DataLeakageError(f"two parameters are called {clean!r} once wrapper prefixes are stripped")
        arrays[clean] = _float32(clean, value, strict=strict)
    return arrays


def _float32(name: str, value: object, *, strict: bool) -> Array:
    array = _as_numpy(name, value)
    if array.dtype.kind != "f":
        raise DataLeakageError(f"{name!r} is {array.dtype}: only float weights leave the site, not buffers and counts")
    if strict and array.dtype != np.float32:
        raise DataLeakageError(f"{name!r} must be float32, got {array.dtype}: convert values where they are computed")
    with np.errstate(over="ignore"):  # an overflow becomes infinity, which check_finite refuses
        return np.array(array, dtype=np.float32, order="C", copy=True)


def _as_numpy(name: str, value: object) -> np.ndarray:
    if hasattr(value, "detach"):
        try:
            value = value.detach().cpu().numpy()
        except (AttributeError, TypeError, RuntimeError, NotImplementedError) as error:
            raise DataLeakageError(f"{name!r} cannot be read as an array: use .to_dense().float()") from error
    if type(value) is not np.ndarray:
        raise DataLeakageError(f"{name!r} must be an array or a tensor, got {type(value).__name__}")
    return value
