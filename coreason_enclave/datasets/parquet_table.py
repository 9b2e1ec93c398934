"""Batches of rows from Parquet: row group by row group, with the file's own types."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from coreason_enclave.datasets.hashing import HashedFile
from coreason_enclave.datasets.problems import DatasetSchemaRejected, SchemaProblem
from coreason_enclave.datasets.schema import DatasetSchema

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1 << 16


class ParquetTable:
    """The rows of a Parquet file. A first pass hashes the file, a second pass reads it through the same descriptor.

    Raises (while iterating):
        DatasetSchemaRejected: not Parquet, a declared column missing or named twice, of a nested type, or no rows.
    """

    def __init__(self, schema: DatasetSchema, source: HashedFile) -> None:
        self._schema, self._source = schema, source

    def where(self, row: int) -> str:
        """Return the words for a data row, from 0."""
        return f"data row {row + 1}"

    def __iter__(self) -> Iterator[Mapping[str, pa.Array]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._source.hexdigest()
        self._source.file.file.seek(0, io.SEEK_SET)
        try:
            file = pq.ParquetFile(pa.PythonFile(self._source.file.file, mode="r"))
            self._check(file.schema_arrow)
            rows = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(self._schema.reads), use_threads=False):
                rows += batch.num_rows
                yield {name: _plain(batch.column(name)) for name in self._schema.reads}
        except (pa.ArrowException, OSError) as error:
            raise self._refused(f"the file is not whole Parquet ({type(error).__name__})") from None
        if not rows:
            raise self._refused("the file has no rows")

    def _check(self, found: pa.Schema) -> None:
        import pyarrow as pa

        problems = []
        for name in self._schema.reads:
            count = found.names.count(name)
            if count != 1:
                problems.append(SchemaProblem(name, "occurs more than once" if count else "is missing"))
            elif pa.types.is_nested(found.field(name).type):
                problems.append(SchemaProblem(name, f"holds {found.field(name).type}: a cell must hold one value"))
        if problems:
            raise DatasetSchemaRejected(self._schema.dataset_id, problems)

    def _refused(self, problem: str) -> DatasetSchemaRejected:
        return DatasetSchemaRejected(self._schema.dataset_id, [SchemaProblem(None, problem)])


def _plain(column: pa.Array) -> pa.Array:
    """Return text as text, whatever its storage."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    stored_as_text = pa.types.is_large_string(column.type) or str(column.type) == "string_view"
    return column.cast(pa.string()) if stored_as_text else column
