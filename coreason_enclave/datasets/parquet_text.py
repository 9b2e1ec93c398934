"""Parquet as rows of text, for the owner of a file who has no declaration yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from coreason_enclave.datasets.spellings import typed_text
from coreason_enclave.errors import DatasetRejected

_BATCH_ROWS = 1 << 14


def parquet_names(path: Path) -> tuple[str, ...]:
    """Return the names of a file's columns; raise :class:`DatasetRejected` for a damaged file or nested columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.ParquetFile(path).schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise DatasetRejected(f"{path} is not whole Parquet: save it again") from error
    nested = [field.name for field in schema if pa.types.is_nested(field.type)]
    if nested:
        raise DatasetRejected(f"{path}: column {nested[0]!r} holds lists or tables: a cell must hold one value")
    return tuple(schema.names)


def parquet_rows(path: Path) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each row as text, "" for a missing cell; raise :class:`DatasetRejected` for a damaged file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
            columns = [column.to_pylist() for column in batch.columns]
            yield from (tuple(typed_text(value) or "" for value in row) for row in zip(*columns, strict=True))
    except pa.ArrowException as error:
        raise DatasetRejected(f"{path} is not whole Parquet: save it again") from error
