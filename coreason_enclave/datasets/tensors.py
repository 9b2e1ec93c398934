"""Rows from safetensors: ``x`` float32 (n, *shape), ``y`` int64 (n,); ``unit`` int64 (n,) if declared."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from coreason_enclave.datasets.problems import DatasetSchemaRejected, Rows, SchemaProblem
from coreason_enclave.datasets.schema import TENSOR_LABELS, TENSOR_UNITS, DatasetSchema

_FEATURES = "x"

Tensors = dict[str, npt.NDArray[Any]]


def read_tensors(schema: DatasetSchema, data: bytes) -> Rows:
    """Parse safetensors as declared; raise :class:`DatasetSchemaRejected` with every problem."""
    tensors = _parse(schema, data)
    problems = _form_problems(schema, tensors) or _value_problems(schema, tensors)
    if problems:
        raise DatasetSchemaRejected(schema.dataset_id, problems)
    return Rows(
        schema.scale_tensor(tensors[_FEATURES]),
        tensors[TENSOR_LABELS].copy(),
        np.unique(tensors[TENSOR_UNITS], return_inverse=True)[1].astype(np.int64) if schema.unit_column else None,
    )


def _parse(schema: DatasetSchema, data: bytes) -> Tensors:
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        problem = SchemaProblem(None, f"the file is not a safetensors document: {error}")
        raise DatasetSchemaRejected(schema.dataset_id, [problem]) from error


def _form_problems(schema: DatasetSchema, tensors: Tensors) -> list[SchemaProblem]:
    expected_forms: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
        _FEATURES: (np.float32, schema.sample_shape),
        TENSOR_LABELS: (np.int64, ()),
    }
    if schema.unit_column:
        expected_forms[TENSOR_UNITS] = (np.int64, ())
    problems = [SchemaProblem(name, "is missing") for name in expected_forms if name not in tensors]
    # Ignoring an undeclared `unit` would silently turn a person-level dataset into a record-level dataset.
    problems += [
        SchemaProblem(name, "is not declared in dataset.toml") for name in sorted(tensors) if name not in expected_forms
    ]
    if problems:
        return problems
    rows = tensors[TENSOR_LABELS].size
    for name, (dtype, shape) in expected_forms.items():
        array = tensors[name]
        if array.dtype != dtype or array.shape != (rows, *shape):
            expected = f"{np.dtype(dtype)} {(rows, *shape)}"
            problems.append(SchemaProblem(name, f"must be {expected}, is {array.dtype} {array.shape}"))
    return problems if rows else [*problems, SchemaProblem(None, "the file has no rows")]


def _value_problems(schema: DatasetSchema, tensors: Tensors) -> list[SchemaProblem]:
    problems, labels, last = [], tensors[TENSOR_LABELS], schema.label.classes - 1
    if not np.isfinite(tensors[_FEATURES].astype(np.float64)).all():
        problems.append(SchemaProblem(_FEATURES, "holds values that are not finite"))
    if ((labels < 0) | (labels > last)).any():
        problems.append(SchemaProblem(TENSOR_LABELS, f"holds labels that are not from 0 to {last}"))
    return problems
