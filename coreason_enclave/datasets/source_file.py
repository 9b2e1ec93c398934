"""A table that its owner has not declared yet, as rows of text: CSV of any form, or Parquet, batch by batch.

The form of the file is sniffed, because the owner reads her own rows and reviews what was found. Nothing here serves a
session: the reader obeys ``dataset.toml`` alone.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from coreason_enclave.datasets.cells import require_pyarrow
from coreason_enclave.datasets.csv_form import CsvForm
from coreason_enclave.datasets.data_format import DataFormat
from coreason_enclave.datasets.number_text import plain_number
from coreason_enclave.datasets.sniffing import format_of, known_kind
from coreason_enclave.datasets.spellings import MISSING, typed_text
from coreason_enclave.datasets.suggestion import ColumnSummary, form_of, nearest_column
from coreason_enclave.errors import DatasetRejected

if TYPE_CHECKING:
    import pyarrow as pa

_HEAD_BYTES = 1 << 16
_BATCH_ROWS = 1 << 14

SPACES = "has cells with spaces around them, which are part of a typed cell: trim them"


def source_format(path: Path) -> DataFormat:
    """Return a file's format by its first bytes: CSV, Parquet or npz.

    Raises:
        DatasetRejected: the file is empty, or of a kind that nothing is drafted from.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.strip():
        raise DatasetRejected(f"{path.name} is empty")
    found = format_of(head)
    if found in {DataFormat.PARQUET, DataFormat.NPZ}:
        return found
    kind = known_kind(head)
    if found is not None or kind is not None:
        words, advice = kind or (str(found), "save it as npz, or write dataset.toml by hand (docs/DATASETS.md)")
        raise DatasetRejected(f"{path.name} seems to be {words}: {advice}")
    return DataFormat.CSV


@dataclass(frozen=True)
class SourceFile:
    """One table.

    Attributes:
        names: the columns whose cells hold one value each, in the file's order.
        left_out: for each further column, why its cells cannot be read.
        form: how a CSV file is written; None for Parquet.
    """

    path: Path
    format: DataFormat
    names: tuple[str, ...]
    left_out: dict[str, str]
    form: CsvForm | None

    @classmethod
    def open(
        cls, path: Path, needed: Sequence[str], *, columns: Sequence[str] | None = None, missing: Sequence[str] = ()
    ) -> SourceFile:
        """Return a table with its form and its columns.

        Args:
            needed: columns that the table must have.
            columns: the names of all columns, in order, of a CSV file without a header; None: the file names them.
            missing: further spellings of a missing cell of a CSV file.

        Raises:
            DatasetRejected: the file is no table, or has no such columns.
        """
        if source_format(path) is DataFormat.PARQUET:
            if columns is not None or missing:
                raise DatasetRejected(f"{path.name} is Parquet, which names its columns and marks its missing cells")
            return _opened_parquet(path, needed)
        form = form_of(path, needed, columns=columns)
        if missing:
            form = form.model_copy(update={"missing": tuple(dict.fromkeys((*MISSING, *missing)))})
        names = form.columns or _header(path, form)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DatasetRejected(f"{path.name} names the column {twice[0]!r} twice: rename one")
        return cls(path, DataFormat.CSV, tuple(names), {}, form)

    def rows(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield each row as its place in words ("line 7") and its cells as in the file; "" for a missing cell.

        Raises:
            DatasetRejected: a row has another number of cells than the header, or the file is damaged.
        """
        if self.form is None:
            yield from self._parquet_rows()
            return
        try:
            yield from self._csv_rows(self.form)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DatasetRejected(f"{self.path.name} is cut off or damaged: pack it again") from error
        except UnicodeError as error:
            raise DatasetRejected(
                f"{self.path.name} is not {self.form.encoding} throughout: save it as UTF-8"
            ) from error
        except csv.Error as error:
            raise DatasetRejected(f"{self.path.name} is no CSV throughout ({error}): save it again") from error

    def _csv_rows(self, form: CsvForm) -> Iterator[tuple[str, Sequence[str]]]:
        with _text(self.path, form) as text:
            reader = csv.reader(text, delimiter=form.delimiter)
            if form.header:
                next(reader)
            for cells in reader:
                if not cells:
                    continue
                place = f"line {reader.line_num + form.skip_rows}"
                if len(cells) != len(self.names):
                    raise DatasetRejected(f"{self.path.name}, {place}: not as many cells as the header has")
                yield place, cells

    def _parquet_rows(self) -> Iterator[tuple[str, Sequence[str]]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        try:
            file = pq.ParquetFile(self.path)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(self.names), use_threads=False):
                columns = [_texts(batch.column(name)) for name in self.names]
                for cells in zip(*columns, strict=True):
                    number += 1
                    yield f"data row {number}", cells
        except (pa.ArrowException, OSError) as error:
            raise DatasetRejected(f"{self.path.name} is not whole Parquet: save it again") from error

    def summarised(self) -> tuple[dict[str, ColumnSummary], CsvForm | None, frozenset[str]]:
        """Return a summary of each column over all rows, the form, and the columns with spaces that nothing trims.

        Spaces around any cell change the form of a CSV file to trimmed; a Parquet file has no such form.

        Raises:
            DatasetRejected: as :meth:`rows`, or there is no row.
        """
        columns = {name: ColumnSummary(name) for name in self.names}
        form, padded, rows = self.form, set[str](), 0
        absent = frozenset() if form is None else form.missing_folds
        for _, cells in self.rows():
            rows += 1
            for column, cell in zip(columns.values(), cells, strict=True):
                bare = cell.strip()
                if len(bare) < len(cell):
                    padded.add(column.name)
                plain = bare if form is None else plain_number(bare, form)
                column.take("" if bare.casefold() in absent else plain)
        if not rows:
            raise DatasetRejected(f"{self.path.name} has no rows: nothing can be suggested from it")
        if form is None:
            return columns, None, frozenset(padded)
        return columns, form.model_copy(update={"trim": form.trim or bool(padded)}), frozenset()


def _opened_parquet(path: Path, needed: Sequence[str]) -> SourceFile:
    require_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.ParquetFile(path).schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise DatasetRejected(f"{path.name} is not whole Parquet: save it again") from error
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise DatasetRejected(f"{path.name} names the column {twice[0]!r} twice: rename one")
    left_out = {field.name: f"holds {field.type}: a cell must hold one value" for field in schema if not _plain(field)}
    for name in needed:
        if name not in schema.names:
            raise DatasetRejected(f"{path.name} has no column {name!r}{nearest_column(name, schema.names)}")
        if name in left_out:
            raise DatasetRejected(f"{path.name}: the column {name!r} {left_out[name]}")
    names = tuple(name for name in schema.names if name not in left_out)
    return SourceFile(path, DataFormat.PARQUET, names, left_out, None)


def _plain(column: pa.Field) -> bool:
    import pyarrow as pa

    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        kind = kind.value_type
    bytes_ = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    return not (types.is_nested(kind) or bytes_ or str(kind) == "binary_view")


def _texts(column: pa.Array) -> list[str]:
    """Return cells as text; of a point in time its day, which is what a declared date reads."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.date32(), safe=False)
    values: list[Any] = column.to_pylist()
    return [typed_text(value) or "" for value in values]


@contextmanager
def _text(path: Path, form: CsvForm) -> Iterator[TextIO]:
    """Open a CSV file below the lines that it skips."""
    encoding = "utf-8-sig" if form.codec == "utf-8" else form.encoding
    raw = gzip.open(path, "rb") if form.compression == "gzip" else path.open("rb")  # noqa: SIM115 - closed below
    with raw, TextIOWrapper(raw, encoding=encoding, newline="") as text:
        for _ in range(form.skip_rows):
            text.readline()
        yield text


def _header(path: Path, form: CsvForm) -> tuple[str, ...]:
    with _text(path, form) as text:
        names = next(csv.reader(text, delimiter=form.delimiter), [])
    return tuple(name.strip() if form.trim else name for name in names)
