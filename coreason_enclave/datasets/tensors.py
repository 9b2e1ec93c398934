"""Rows from arrays: ``x`` (n, *shape), ``y`` (n, ...) in the form of the label; ``unit`` int64 (n,) if declared.

safetensors holds exactly float32 ``x`` and int64 ``y`` and ``unit``, npz any real numbers. Neither holds code: npz is
read without pickle.
"""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from coreason_enclave.datasets.data_format import TENSOR_FEATURES, TENSOR_LABELS, TENSOR_UNITS, DataFormat
from coreason_enclave.datasets.hashing import HashedFile
from coreason_enclave.datasets.labels import LabelTask
from coreason_enclave.datasets.problems import DatasetSchemaRejected, Rows, SchemaProblem
from coreason_enclave.datasets.schema import DatasetSchema

_BATCH = 4096

Tensors = dict[str, npt.NDArray[Any]]


def read_tensors(schema: DatasetSchema, source: HashedFile) -> Rows:
    """Read arrays as declared; raise :class:`DatasetSchemaRejected` with every problem."""
    tensors = _load_npz(schema, source) if schema.format is DataFormat.NPZ else _load_safetensors(schema, source)
    problems = _form_problems(schema, tensors) or _value_problems(schema, tensors)
    if problems:
        raise DatasetSchemaRejected(schema.dataset_id, problems)
    units = None
    if schema.unit_column:
        units = np.unique(tensors[TENSOR_UNITS], return_inverse=True)[1].astype(np.int64)
    return Rows(_scaled(schema, tensors[TENSOR_FEATURES]), _labels(schema, tensors[TENSOR_LABELS]), units)


def _load_safetensors(schema: DatasetSchema, source: HashedFile) -> Tensors:
    try:
        return safetensors.numpy.load(source.read(source.file.size + 1))
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _refused(schema, f"the file is not a safetensors document: {error}") from error


def _load_npz(schema: DatasetSchema, source: HashedFile) -> Tensors:
    data = io.BytesIO(source.read(source.file.size + 1))
    try:
        with zipfile.ZipFile(data) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > source.file.limit:
                raise _refused(schema, f"the arrays are larger than {source.file.limit} bytes: split the dataset")
            if len({member.filename for member in members}) < len(members):
                raise _refused(schema, "the file names an array twice")
        with np.load(data, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, KeyError, EOFError, OSError, RuntimeError) as error:
        raise _refused(schema, f"the file is no npz archive of numbers ({type(error).__name__})") from None


def _form_problems(schema: DatasetSchema, tensors: Tensors) -> list[SchemaProblem]:
    whole = schema.label.task in {LabelTask.CLASSES, LabelTask.SURVIVAL}
    wanted: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
        TENSOR_FEATURES: (np.float32, schema.sample_shape),
        TENSOR_LABELS: (np.int64 if whole else np.float32, schema.label.y_shape),
    }
    if schema.unit_column:
        wanted[TENSOR_UNITS] = (np.int64, ())
    problems = [SchemaProblem(name, "is missing") for name in wanted if name not in tensors]
    # Ignoring an undeclared `unit` would silently turn a person-level dataset into a record-level dataset.
    problems += [
        SchemaProblem(name, "is not declared in dataset.toml") for name in sorted(tensors) if name not in wanted
    ]
    if problems:
        return problems
    labels = tensors[TENSOR_LABELS]
    rows = labels.size // max(1, int(np.prod(schema.label.y_shape)))
    for name, (dtype, shape) in wanted.items():
        array = tensors[name]
        if not _is_of(array.dtype, np.dtype(dtype), schema) or array.shape != (rows, *shape):
            expected = f"{np.dtype(dtype)} {(rows, *shape)}"
            problems.append(SchemaProblem(name, f"must be {expected}, is {array.dtype} {array.shape}"))
    return problems if rows else [*problems, SchemaProblem(None, "the file has no rows")]


def _is_of(found: np.dtype[Any], wanted: np.dtype[Any], schema: DatasetSchema) -> bool:
    if schema.format is DataFormat.SAFETENSORS:
        return found == wanted
    return found.kind in ("iu" if wanted.kind == "i" else "fiu")


def _value_problems(schema: DatasetSchema, tensors: Tensors) -> list[SchemaProblem]:
    problems, labels, label = [], tensors[TENSOR_LABELS], schema.label
    if not all(np.isfinite(part).all() for part in _parts(tensors[TENSOR_FEATURES])):
        problems.append(SchemaProblem(TENSOR_FEATURES, "holds values that are not finite"))
    if not np.isfinite(labels).all():
        problems.append(SchemaProblem(TENSOR_LABELS, "holds labels that are not finite"))
    elif label.task is LabelTask.LABELS and not np.isin(labels, (0, 1)).all():
        problems.append(SchemaProblem(TENSOR_LABELS, "holds labels that are neither 0 nor 1"))
    elif label.classes is not None and ((labels < 0) | (labels > label.classes - 1)).any():
        problems.append(SchemaProblem(TENSOR_LABELS, f"holds labels that are not from 0 to {label.classes - 1}"))
    elif label.task is LabelTask.SURVIVAL and _beyond_the_intervals(labels, label.outputs):
        problem = f"holds labels that are not (intervals lived through, event): up to {label.outputs}, and 0 or 1 for "
        problems.append(SchemaProblem(TENSOR_LABELS, f"{problem}an event in the next interval"))
    elif label.task is LabelTask.COUNT and label.wrong(TENSOR_LABELS, labels.astype(np.float64)).any():
        problems.append(SchemaProblem(TENSOR_LABELS, f"holds labels: {label.requirement(TENSOR_LABELS)}"))
    return problems


def _beyond_the_intervals(labels: npt.NDArray[Any], intervals: int) -> bool:
    """Tell whether a label counts other than 0 to ``intervals`` intervals, or has an event after the last."""
    lived, event = labels.astype(np.int64).T  # an unsigned type would wrap around below
    return bool(((lived < 0) | (event < 0) | (event > 1) | (lived > intervals - event)).any())


def _labels(schema: DatasetSchema, labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if schema.label.columns is not None:
        return labels.astype(np.float32)
    if schema.label.task is LabelTask.SURVIVAL:
        return labels.astype(np.int64)
    return schema.label.labels({TENSOR_LABELS: labels.astype(np.float64)})


def _scaled(schema: DatasetSchema, features: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Scale part by part: float64 copies of all examples would take several times their memory."""
    inputs = np.empty(features.shape, np.float32)
    for at in range(0, len(features), _BATCH):
        inputs[at : at + _BATCH] = schema.scale_tensor(features[at : at + _BATCH])
    return inputs


def _parts(array: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    return [array[at : at + _BATCH] for at in range(0, len(array), _BATCH)]


def _refused(schema: DatasetSchema, problem: str) -> DatasetSchemaRejected:
    return DatasetSchemaRejected(schema.dataset_id, [SchemaProblem(None, problem)])
