"""Synthetic rows within a dataset's declaration, for trying out a model and a training loop without real rows.

>>> from coreason_enclave.datasets import parse_schema
>>> schema = parse_schema(b'version = 1\\ndataset_id = "d"\\nformat = "csv"\\nfile = "r.csv"\\npublic = true\\n'
...     b'label = { column = "y", classes = 3 }\\nfeatures = [{ name = "x", low = 0, high = 1 }]')
>>> rows = synthetic_dataset(schema, 200)
>>> rows.features.shape, sorted(set(rows.labels.tolist())), bool(abs(rows.features).max() <= 1)
((200, 1), [0, 1, 2], True)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coreason_enclave.datasets.columns import BooleanFeature, CategoryFeature, Feature
from coreason_enclave.datasets.labels import Label, LabelArray, LabelTask
from coreason_enclave.datasets.reading import SiteDataset
from coreason_enclave.datasets.schema import DatasetSchema


def synthetic_dataset(schema: DatasetSchema, rows: int) -> SiteDataset:
    """Return ``rows`` rows of the declared form: features in their ranges, every class, and one unit per row.

    Equal schemas give equal rows. The last quarter is extreme: every quantity at an end of its range.
    """
    random = np.random.default_rng(20_190)
    features = random.uniform(-1.0, 1.0, (rows, *schema.sample_shape)).astype(np.float32)
    extreme = rows // 4
    features[rows - extreme :] = np.sign(features[rows - extreme :])
    if schema.format.is_table:
        _as_declared(schema, features)
    units = None if schema.unit_column is None else np.arange(rows, dtype=np.int64)
    return SiteDataset(schema, features, _labels(schema.label, rows), units, "00" * 32)


def _as_declared(schema: DatasetSchema, inputs: npt.NDArray[np.float32]) -> None:
    """Turn uniform inputs of a table into inputs that its features can have, in place."""
    at, places = 0, np.arange(len(inputs))
    for feature in schema.features:
        mine = inputs[:, at : at + len(feature.inputs)]
        if isinstance(feature, CategoryFeature):
            mine[...] = 0.0
            width = len(feature.categories) + feature.other
            mine[places, places % width] = 1.0
        elif isinstance(feature, BooleanFeature):
            mine[:, 0] = np.where(mine[:, 0] < 0, -1.0, 1.0)
        elif (
            isinstance(feature, Feature)
            and feature.input
            and feature.mean is not None
            and feature.deviation is not None
        ):
            value = feature.low + (mine[:, 0].astype(np.float64) + 1.0) / 2.0 * (feature.high - feature.low)
            mine[:, 0] = (value - feature.mean) / feature.deviation
        if getattr(feature, "indicator", False):
            mine[:, -1] = places % 2
        at += len(feature.inputs)


def _labels(label: Label, rows: int) -> LabelArray:
    places = np.arange(rows)
    if label.task is LabelTask.CLASSES and label.classes is not None:
        return (places % label.classes).astype(np.int64)
    if label.columns is not None:
        return ((places[:, None] >> (np.arange(len(label.columns)) % 16)) & 1).astype(np.float32)
    if label.task is LabelTask.NUMBER:
        return (places % 21 / 10.0 - 1.0).astype(np.float32)
    if label.task is LabelTask.COUNT and label.high is not None:
        return np.minimum(places % 32, label.high).astype(np.float32)
    return np.stack([places % label.outputs, places // label.outputs % 2], axis=1).astype(np.int64)
