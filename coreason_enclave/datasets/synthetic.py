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

from coreason_enclave.datasets.reading import SiteDataset
from coreason_enclave.datasets.schema import DatasetSchema


def synthetic_dataset(schema: DatasetSchema, rows: int) -> SiteDataset:
    """Return ``rows`` rows of the declared shape, with features within [-1, 1], every class and one unit per row.

    Equal schemas give equal rows. The last quarter is extreme: every feature at an end of its range.
    """
    random = np.random.default_rng(20_190)
    features = random.uniform(-1.0, 1.0, (rows, *schema.sample_shape)).astype(np.float32)
    extreme = rows // 4
    features[rows - extreme :] = np.sign(features[rows - extreme :])
    labels = np.arange(rows) % schema.label.classes
    units = None if schema.unit_column is None else np.arange(rows, dtype=np.int64)
    return SiteDataset(schema, features, labels.astype(np.int64), units, "00" * 32)
