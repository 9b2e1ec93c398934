"""Datasets at a site: what they declare (``schema``), where they lie (``paths``), how they are read.

``schema`` is on the ground floor: the platform scales its public evaluation set by the very same ranges.
"""

from coreason_enclave.datasets.problems import DatasetSchemaRejected, SchemaProblem
from coreason_enclave.datasets.reading import SiteDataset, open_dataset
from coreason_enclave.datasets.schema import DatasetExpectation, DatasetSchema, parse_schema

__all__ = [
    "DatasetExpectation",
    "DatasetSchema",
    "DatasetSchemaRejected",
    "SchemaProblem",
    "SiteDataset",
    "open_dataset",
    "parse_schema",
]
