"""From a dataset id to checked, scaled arrays: the only way for rows to enter the agent.

The reader collects typed problems, column by column, for the site's own log. A problem names columns and row numbers,
never cells. No problem may leave the site; only the reason code may.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coreason_enclave.datasets.data_format import DataFormat
from coreason_enclave.datasets.hashing import HashedFile
from coreason_enclave.datasets.images import ImageFiles, open_table
from coreason_enclave.datasets.paths import MAX_FILE_BYTES, DataRoot, DatasetFolder
from coreason_enclave.datasets.problems import DatasetSchemaRejected, Rows, SchemaProblem
from coreason_enclave.datasets.schema import DatasetSchema, parse_schema
from coreason_enclave.datasets.sniffing import explained
from coreason_enclave.datasets.tables import read_table
from coreason_enclave.datasets.tensors import read_tensors

SCHEMA_FILE = "dataset.toml"
MAX_SCHEMA_BYTES = 1 << 20


@dataclass(frozen=True, repr=False, eq=False)
class SiteDataset:
    """Rows that passed the sentry, in the file's order. They stay at the site.

    Attributes:
        schema: the dataset's declaration.
        features: float32, (n, *schema.sample_shape), within [-1, 1] unless declared ``standard``.
        labels: (n, *schema.label.y_shape), of ``schema.label.y_dtype``; classes are int64, from 0 to classes - 1.
        unit_ids: int64, (n,), from 0 to units - 1: the person behind each row; None for record-level data.
        digest: SHA-256 (hex) over the bytes of schema and rows.
        warnings: remarks on the rows, for the site's own eyes; they never leave the site.
    """

    schema: DatasetSchema
    features: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]
    unit_ids: npt.NDArray[np.int64] | None
    digest: str
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of rows: private, like every number derived from it."""
        return len(self.labels)

    @property
    def num_units(self) -> int:
        """Number of persons (rows, at record level): private, like the rows."""
        return len(self) if self.unit_ids is None else int(self.unit_ids.max()) + 1

    def __repr__(self) -> str:
        # A generated repr would print rows into any log that shows this object.
        return f"SiteDataset({self.schema.dataset_id!r}, digest={self.digest[:12]}…)"


class CheckedDatasets:
    """Cache of parsed and checked datasets, by content, to avoid checking the same bytes in every round.

    - The reader still reads and hashes the bytes every time and notices a change on disk.
    - The cache keeps one dataset per id.
    - The cache returns copies, so a training loop that writes into its arrays cannot change the next round's.
    """

    def __init__(self) -> None:
        self._kept: dict[str, SiteDataset] = {}

    def holds(self, dataset_id: str) -> bool:
        """Tell whether the cache has any content of the dataset."""
        return dataset_id in self._kept

    def get(self, dataset_id: str, content: str) -> SiteDataset | None:
        """Return a copy of the dataset with this content, or None."""
        kept = self._kept.get(dataset_id)
        return _copied(kept) if kept is not None and kept.digest == content else None

    def keep(self, dataset: SiteDataset) -> None:
        """Store a copy of ``dataset`` and drop the id's earlier content."""
        self._kept[dataset.schema.dataset_id] = _copied(dataset)


def _copied(dataset: SiteDataset) -> SiteDataset:
    units = None if dataset.unit_ids is None else dataset.unit_ids.copy()
    return replace(dataset, features=dataset.features.copy(), labels=dataset.labels.copy(), unit_ids=units)


def open_dataset(
    root: Path, dataset_id: str, *, max_bytes: int = MAX_FILE_BYTES, checked: CheckedDatasets | None = None
) -> SiteDataset:
    """Read and check the dataset ``dataset_id`` below ``root``. The same bytes always give the same arrays.

    Args:
        checked: a cache of parsed datasets, to read from and add to.

    Raises:
        ConfigurationError: ``root`` is unusable.
        DatasetRejected: the id, its path, its schema or its rows are not acceptable; for rows the subclass
            :class:`DatasetSchemaRejected` carries the problems.
    """
    with DataRoot(root).folder(dataset_id) as folder:
        schema_bytes, schema = _declared(folder)
        if checked is not None and checked.holds(dataset_id):
            known = checked.get(dataset_id, _content(folder, schema_bytes, schema, max_bytes))
            if known is not None:
                return known
        with folder.open(schema.file, limit=max_bytes) as file:
            rows, content = _read_rows(folder, schema, HashedFile(file, schema_bytes), max_bytes)
    dataset = SiteDataset(schema, rows.features, rows.labels, rows.unit_ids, content, rows.warnings)
    if checked is not None:
        checked.keep(dataset)
    return dataset


def _read_rows(folder: DatasetFolder, schema: DatasetSchema, source: HashedFile, max_bytes: int) -> tuple[Rows, str]:
    try:
        if schema.format is DataFormat.IMAGES:
            return ImageFiles(schema, folder, max_bytes).read(source)
        rows = (
            read_table(schema, open_table(schema, source)) if schema.format.is_table else read_tensors(schema, source)
        )
        return rows, source.hexdigest()
    except DatasetSchemaRejected as refused:
        raise explained(refused, schema, source.head) from None


def check_dataset(root: Path, dataset_id: str, *, max_bytes: int = MAX_FILE_BYTES) -> tuple[str, ...]:
    """Read the dataset as :func:`open_dataset` does, and return its warnings, for the site's own eyes."""
    return open_dataset(root, dataset_id, max_bytes=max_bytes).warnings


def declared_schema(root: Path, dataset_id: str) -> DatasetSchema:
    """Return the dataset's declaration; require its file of rows, without reading the file.

    Raises:
        ConfigurationError: ``root`` is unusable.
        DatasetRejected: the id, its path or its declaration is not acceptable, or the file of rows is missing.
    """
    with DataRoot(root).folder(dataset_id) as folder:
        schema = _declared(folder)[1]
        folder.require_file(schema.file)
        if schema.folder is not None:
            with folder.inner(schema.folder):
                pass
    return schema


def content_digest(root: Path, dataset_id: str, *, max_bytes: int = MAX_FILE_BYTES) -> str:
    """Return the current :attr:`SiteDataset.digest`; hash the rows without parsing them.

    Raises the same errors as :func:`declared_schema`.
    """
    with DataRoot(root).folder(dataset_id) as folder:
        schema_bytes, schema = _declared(folder)
        return _content(folder, schema_bytes, schema, max_bytes)


def _content(folder: DatasetFolder, schema_bytes: bytes, schema: DatasetSchema, max_bytes: int) -> str:
    with folder.open(schema.file, limit=max_bytes) as file:
        source = HashedFile(file, schema_bytes)
        if schema.format is DataFormat.IMAGES:
            return ImageFiles(schema, folder, max_bytes).content(source)
        return source.hexdigest()


def _declared(folder: DatasetFolder) -> tuple[bytes, DatasetSchema]:
    schema_bytes = folder.read(SCHEMA_FILE, limit=MAX_SCHEMA_BYTES)
    schema = parse_schema(schema_bytes)
    if schema.dataset_id != folder.dataset_id:
        problem = SchemaProblem(None, f"dataset.toml declares another dataset_id, {schema.dataset_id!r}")
        raise DatasetSchemaRejected(folder.dataset_id, [problem])
    return schema_bytes, schema
