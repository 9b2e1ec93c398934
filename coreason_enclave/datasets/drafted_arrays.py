"""``[tensor]`` and ``[label]`` of an npz archive, suggested from its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coreason_enclave.datasets.array_source import ArraySummary, summarised_arrays
from coreason_enclave.datasets.data_format import TENSOR_FEATURES, TENSOR_LABELS, TENSOR_UNITS, DataFormat
from coreason_enclave.datasets.draft_plan import DraftPlan, stated_label
from coreason_enclave.datasets.labels import LabelTask
from coreason_enclave.datasets.schema import DatasetSchema
from coreason_enclave.datasets.spellings import MAX_SPELLINGS
from coreason_enclave.datasets.suggestion import rounded_out
from coreason_enclave.errors import DatasetRejected

_EVENT = "event"


def array_tables(plan: DraftPlan) -> tuple[dict[str, Any], Mapping[str, frozenset[str]]]:
    """Return the document's tables, and for each the entries that get no mark.

    Raises:
        DatasetRejected: the archive lacks an array, or ``y`` has no use for the task.
    """
    if plan.columns is not None or plan.missing:
        raise DatasetRejected(f"{plan.path.name} is npz: arrays have no columns and no missing cells")
    arrays = summarised_arrays(plan.path)
    _require_unit(plan, arrays)
    tensor, of_type = _tensor(arrays[TENSOR_FEATURES])
    label, stated = stated_label(plan, _label(plan, arrays[TENSOR_LABELS]))
    tables = {
        "format": str(DataFormat.NPZ),
        **({"unit_column": TENSOR_UNITS} if TENSOR_UNITS in arrays else {}),
        "label": label,
        "tensor": tensor,
    }
    return tables, {"label": stated, "tensor": of_type}


def require_arrays(path: Path, schema: DatasetSchema) -> None:
    """Raise :class:`DatasetRejected` unless the archive has the declared arrays, of the declared shapes."""
    arrays = summarised_arrays(path)
    if (schema.unit_column is not None) != (TENSOR_UNITS in arrays):
        raise DatasetRejected(
            f"{path.name} has {'an' if TENSOR_UNITS in arrays else 'no'} array {TENSOR_UNITS!r}, and the dictionary's "
            f"unit of privacy is one {schema.unit}"
        )
    for name, shape in ((TENSOR_FEATURES, schema.sample_shape), (TENSOR_LABELS, schema.label.y_shape)):
        if arrays[name].shape[1:] != shape:
            found = arrays[name].shape
            raise DatasetRejected(f"{path.name}: {name} has shape {found}, the dictionary says {(found[0], *shape)}")


def _require_unit(plan: DraftPlan, arrays: Mapping[str, ArraySummary]) -> None:
    if plan.person is not None and plan.person != TENSOR_UNITS:
        raise DatasetRejected(f"arrays name the person behind an example in {TENSOR_UNITS!r}: say --person unit")
    if plan.person is not None and TENSOR_UNITS not in arrays:
        raise DatasetRejected(f"{plan.path.name} has no array {TENSOR_UNITS!r}: it has x and y")


def _tensor(x: ArraySummary) -> tuple[dict[str, Any], frozenset[str]]:
    """Return ``[tensor]``: bytes have the range of their type, which tells nothing of a row."""
    of_bytes = x.dtype == np.uint8
    low, high = (0.0, 255.0) if of_bytes else rounded_out(x.low, x.high)
    return {"shape": list(x.shape[1:]), "low": low, "high": high}, frozenset({"low", "high"} if of_bytes else ())


def _label(plan: DraftPlan, y: ArraySummary) -> dict[str, Any]:
    task = plan.label_task
    if task is LabelTask.LABELS:
        return _several(plan, y)
    if plan.labels not in ((), (TENSOR_LABELS,)):
        raise DatasetRejected(f"{plan.path.name} is npz, whose label is the array y: say --label y")
    if task is LabelTask.SURVIVAL:
        return _survival(plan, y)
    if len(y.shape) != 1:
        raise DatasetRejected(f"y has shape {y.shape}: that is --task multilabel (0 and 1), or survival (n, 2)")
    return _single(y, task)


def _single(y: ArraySummary, task: LabelTask | None) -> dict[str, Any]:
    classes = y.dtype.kind in "iu" and y.low >= 0 and 1 <= y.high < MAX_SPELLINGS
    if task is LabelTask.CLASSES or (task is None and classes):
        if not classes:
            raise DatasetRejected("the label y is no list of classes: it needs an array of whole numbers, 0, 1, …")
        return {"column": TENSOR_LABELS, "classes": int(y.high) + 1}
    if task is LabelTask.COUNT:
        if y.low < 0 or not y.whole:
            raise DatasetRejected("the label y is no count: counts are whole numbers from 0")
        high = float(np.ceil(rounded_out(0.0, max(y.high, 1.0))[1]))
        return {"task": "count", "column": TENSOR_LABELS, "high": high}
    low, high = rounded_out(y.low, y.high)
    return {"task": "number", "column": TENSOR_LABELS, "low": low, "high": high}


def _several(plan: DraftPlan, y: ArraySummary) -> dict[str, Any]:
    width = y.shape[1] if len(y.shape) == 2 else 0
    if width < 2 or len(plan.labels) != width:
        given = len(plan.labels)
        raise DatasetRejected(f"y has shape {y.shape}, and --label names {given}: name each column of y, two at least")
    if not (y.low >= 0 and y.high <= 1 and y.whole):
        raise DatasetRejected("y holds several labels only if each is 0 or 1")
    return {"task": "labels", "columns": list(plan.labels)}


def _survival(plan: DraftPlan, y: ArraySummary) -> dict[str, Any]:
    if plan.cuts is None:
        raise DatasetRejected("--cuts is missing: y holds numbers of intervals, and no array says where they end")
    if y.shape[1:] != (2,) or y.dtype.kind not in "iu":
        raise DatasetRejected(f"a survival label is whole numbers (n, 2), intervals lived through and event: {y.shape}")
    if y.low < 0 or y.high > len(plan.cuts):
        raise DatasetRejected(f"y counts intervals from 0 to {len(plan.cuts)}, one for each of --cuts: it holds others")
    return {
        "task": "survival",
        "column": TENSOR_LABELS,
        "event": plan.event or _EVENT,
        "cuts": list(map(float, plan.cuts)),
    }
