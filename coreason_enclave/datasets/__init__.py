"""Datasets at a site: their declaration (``schema``), their location (``paths``) and their reader (``reading``).

Enters: a dataset id below the data root. Leaves: checked, scaled arrays, or a refusal with a reason code.
Never: follows a link; guesses a type; scales by a statistic of the rows; quotes a cell in a message.

``schema`` belongs to the ground floor: the platform scales its public evaluation set by the same ranges.
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
