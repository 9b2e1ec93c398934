"""From a dataset id to checked, scaled arrays: the only way rows enter the agent.

What is wrong with a dataset is collected as typed problems, column by column, for the site's own log. They
name columns and row numbers, never cells, and none of them may leave the site: only the reason code does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from coreason_enclave.crypto.encoding import digest
from coreason_enclave.datasets.paths import MAX_FILE_BYTES, DataRoot, DatasetFolder
from coreason_enclave.datasets.problems import DatasetSchemaRejected, SchemaProblem
from coreason_enclave.datasets.schema import DataFormat, DatasetSchema, parse_schema
from coreason_enclave.datasets.tables import read_table
from coreason_enclave.datasets.tensors import read_tensors

__all__ = [
    "CheckedDatasets",
    "DatasetSchemaRejected",
    "SchemaProblem",
    "SiteDataset",
    "content_digest",
    "declared_schema",
    "open_dataset",
]

SCHEMA_FILE = "dataset.toml"
MAX_SCHEMA_BYTES = 1 << 20


@dataclass(frozen=True, repr=False, eq=False)
class SiteDataset:
    """Rows that passed the sentry, in the file's order. They stay at the site.

    Attributes:
        schema: what the dataset declares.
        features: float32, (n, *schema.sample_shape), within [-1, 1].
        labels: int64, (n,), from 0 to classes - 1.
        unit_ids: int64, (n,), from 0 to units - 1: who is behind each row; ``None`` where a row is a unit.
        digest: SHA-256 (hex) over the bytes of schema and rows.
    """

    schema: DatasetSchema
    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    unit_ids: npt.NDArray[np.int64] | None
    digest: str

    def __len__(self) -> int:
        """Number of rows: private; nothing derived from it leaves."""
        return len(self.labels)

    @property
    def num_units(self) -> int:
        """Number of persons (rows, at record level): private, like the rows."""
        return len(self) if self.unit_ids is None else int(self.unit_ids.max()) + 1

    def __repr__(self) -> str:
        # A generated repr would print rows into whatever log shows this object.
        return f"SiteDataset({self.schema.dataset_id!r}, digest={self.digest[:12]}…)"


class CheckedDatasets:
    """Datasets that were parsed and checked before, by content: the same bytes need not be checked each round.

    The bytes are read and hashed every time, so a change on disk is seen. One dataset is kept for each id, and what
    is handed out is a copy: a training loop that writes into its arrays cannot change the next round's.
    """

    def __init__(self) -> None:
        self._kept: dict[str, SiteDataset] = {}

    def get(self, dataset_id: str, content: str) -> SiteDataset | None:
        """The dataset with this content, or None."""
        kept = self._kept.get(dataset_id)
        return _copied(kept) if kept is not None and kept.digest == content else None

    def keep(self, dataset: SiteDataset) -> None:
        """Remember a copy of ``dataset`` in place of an earlier content."""
        self._kept[dataset.schema.dataset_id] = _copied(dataset)


def _copied(dataset: SiteDataset) -> SiteDataset:
    units = None if dataset.unit_ids is None else dataset.unit_ids.copy()
    return replace(dataset, features=dataset.features.copy(), labels=dataset.labels.copy(), unit_ids=units)


def open_dataset(
    root: Path, dataset_id: str, *, max_bytes: int = MAX_FILE_BYTES, checked: CheckedDatasets | None = None
) -> SiteDataset:
    """Read and check the dataset ``dataset_id`` below ``root``. The same bytes always give the same arrays.

    Args:
        checked: parsed datasets to take from and add to.

    Raises:
        ConfigurationError: ``root`` is unusable.
        DatasetRejected: the id, its path, its schema or its rows are not acceptable; for rows the subclass
            :class:`DatasetSchemaRejected` carries the problems.
    """
    with DataRoot(root).folder(dataset_id) as folder:
        schema_bytes, schema = _declared(folder)
        data = folder.read(schema.file, limit=max_bytes)
    content = _digest(schema_bytes, data)
    if checked is not None and (known := checked.get(dataset_id, content)) is not None:
        return known
    rows = (read_table if schema.format is DataFormat.CSV else read_tensors)(schema, data)
    dataset = SiteDataset(schema, rows.features, rows.labels, rows.unit_ids, content)
    if checked is not None:
        checked.keep(dataset)
    return dataset


def declared_schema(root: Path, dataset_id: str) -> DatasetSchema:
    """What the dataset declares. Its file of rows has to be there, and is not read.

    Raises:
        ConfigurationError: ``root`` is unusable.
        DatasetRejected: the id, its path or its declaration is not acceptable, or there are no rows.
    """
    with DataRoot(root).folder(dataset_id) as folder:
        schema = _declared(folder)[1]
        folder.require_file(schema.file)
    return schema


def content_digest(root: Path, dataset_id: str, *, max_bytes: int = MAX_FILE_BYTES) -> str:
    """:attr:`SiteDataset.digest` of what lies there now. Rows are hashed and not looked at.

    Raises what :func:`declared_schema` raises.
    """
    with DataRoot(root).folder(dataset_id) as folder:
        schema_bytes, schema = _declared(folder)
        return _digest(schema_bytes, folder.read(schema.file, limit=max_bytes))


def _declared(folder: DatasetFolder) -> tuple[bytes, DatasetSchema]:
    schema_bytes = folder.read(SCHEMA_FILE, limit=MAX_SCHEMA_BYTES)
    schema = parse_schema(schema_bytes)
    if schema.dataset_id != folder.dataset_id:
        problem = SchemaProblem(None, f"dataset.toml declares another dataset_id, {schema.dataset_id!r}")
        raise DatasetSchemaRejected(folder.dataset_id, [problem])
    return schema_bytes, schema


def _digest(schema_bytes: bytes, data: bytes) -> str:
    return digest("aegis.dataset.v1", schema_bytes, data).hex()
