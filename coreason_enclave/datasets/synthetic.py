"""Rows that stand for nobody, within what a dataset declares: for trying out a model and a training loop.

>>> from coreason_enclave.datasets.schema import parse_schema
>>> schema = parse_schema(b'version = 1\\ndataset_id = "d"\\nformat = "csv"\\nfile = "r.csv"\\npublic = true\\n'
...     b'label = { column = "y", classes = 3 }\\nfeatures = [{ name = "x", low = 0, high = 1 }]')
>>> rows = synthetic_dataset(schema, 200)
>>> rows.features.shape, sorted(set(rows.labels.tolist())), bool(abs(rows.features).max() <= 1)
((200, 1), [0, 1, 2], True)
"""

from __future__ import annotations

import numpy as np

from coreason_enclave.datasets.reading import SiteDataset
from coreason_enclave.datasets.schema import DatasetSchema

__all__ = ["synthetic_dataset"]


def synthetic_dataset(schema: DatasetSchema, rows: int) -> SiteDataset:
    """So many rows of the declared shape, features within [-1, 1], each class among the labels, each row a unit.

    Always the same for the same schema. The last rows are extreme: every feature at an end of its range.
    """
    random = np.random.default_rng(20_190)
    features = random.uniform(-1.0, 1.0, (rows, *schema.sample_shape)).astype(np.float32)
    extreme = rows // 4
    features[rows - extreme :] = np.sign(features[rows - extreme :])
    labels = np.arange(rows) % schema.label.classes
    units = None if schema.unit_column is None else np.arange(rows, dtype=np.int64)
    return SiteDataset(schema, features, labels.astype(np.int64), units, "00" * 32)
