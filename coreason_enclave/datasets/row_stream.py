"""Rows from a file that their owner keeps anywhere, part by part: for predictions, with or without labels.

The cells pass the same conversion as a site's rows. Memory holds one part; of a column of persons or groups, and of
columns behind histories, a few bytes a row.
"""

from __future__ import annotations

import csv
import difflib
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from coreason_enclave.datasets.cells import require_pyarrow
from coreason_enclave.datasets.csv_form import CsvForm
from coreason_enclave.datasets.csv_table import CsvTable
from coreason_enclave.datasets.data_format import DataFormat
from coreason_enclave.datasets.dictionary import DataDictionary
from coreason_enclave.datasets.hashing import HashedFile
from coreason_enclave.datasets.parquet_table import ParquetTable
from coreason_enclave.datasets.paths import OpenFile
from coreason_enclave.datasets.problems import DatasetSchemaRejected
from coreason_enclave.datasets.schema import DatasetSchema
from coreason_enclave.datasets.spellings import ColumnName, fold
from coreason_enclave.datasets.suggestion import form_of
from coreason_enclave.datasets.tables import TableReader, columns_of_label
from coreason_enclave.errors import DatasetRejected
from coreason_enclave.schemas import Flag

LARGEST_TABLE = 1 << 40
_PARQUET = b"PAR1"
_NPZ = b"PK\x03\x04"


class RowNeeds(DatasetSchema):
    """The declaration of rows outside a site: which columns the file has to have.

    Attributes:
        labelled: every row has a label.
        group_column: a further column, to resample by.
    """

    labelled: Flag = True
    group_column: ColumnName | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """Every column of the table that the rows need, once."""
        names = [name for feature in self.features for name in feature.reads]
        names += columns_of_label(self, labelled=self.labelled)
        further = (self.unit_column, self.order_column, self.group_column)
        return tuple(dict.fromkeys([*names, *(name for name in further if name is not None)]))


@dataclass(frozen=True, repr=False, eq=False)
class RowPart:
    """Consecutive rows: the first row's place from 0, inputs (n, width), and labels (n, ...) or None."""

    first: int
    features: npt.NDArray[np.float32]
    labels: npt.NDArray[Any] | None


class RowStream:
    """The rows of a file in parts, as a data dictionary declares them.

    Args:
        path: CSV of any delimiter and encoding, perhaps gzipped, or Parquet.
        labelled: every row needs a label; otherwise labels are read for histories alone.
        group: a further column, to resample by instead of persons.

    Attributes:
        persons, groups: int64 codes, (n,), after the iteration; None without the column.

    Raises:
        DatasetRejected: the file cannot be read, lacks a column, or (at the end of the iteration) holds cells without
            a declared meaning.
    """

    def __init__(
        self, path: Path, dictionary: DataDictionary, *, labelled: bool = True, group: str | None = None
    ) -> None:
        self._path, self._kind = path, kind_of(path)
        if dictionary.tensor is not None:
            raise DatasetRejected("the data dictionary declares arrays, and rows can be read from tables alone")
        declared = dictionary.declaration(file="rows.csv", public=False, data_format=self._kind)
        keeps_person = bool(declared.history) or (labelled and group is None)
        document = {
            **{name: getattr(declared, name) for name in DatasetSchema.model_fields},
            "unit_column": declared.unit_column if keeps_person else None,
            "labelled": labelled,
            "group_column": group,
        }
        needs = RowNeeds.model_validate(document)
        form = form_for(path, needs.reads) if self._kind is DataFormat.CSV else None
        self._needs = needs.model_copy(update={"csv": form})
        self.persons: npt.NDArray[np.int64] | None = None
        self.groups: npt.NDArray[np.int64] | None = None

    def __iter__(self) -> Iterator[RowPart]:
        require_pyarrow()
        try:
            yield from self._parts(self._histories())
        except DatasetSchemaRejected as refused:
            listed = "; ".join(str(problem) for problem in refused.problems[:5])
            raise DatasetRejected(f"{self._path.name}: {listed}") from None

    def _reader(self) -> TableReader:
        return TableReader(self._needs, labelled=self._needs.labelled, group=self._needs.group_column)

    def _table(self, file: BinaryIO) -> CsvTable | ParquetTable:
        size = self._path.stat().st_size
        source = HashedFile(OpenFile(file, self._path.name, size, LARGEST_TABLE), b"")
        return (CsvTable if self._kind is DataFormat.CSV else ParquetTable)(self._needs, source)

    def _histories(self) -> npt.NDArray[np.float32] | None:
        """Return the inputs of all histories, (n, histories): a row's history may lie anywhere in the file."""
        if not self._needs.history:
            return None
        reader = self._reader()
        with self._path.open("rb") as file:
            table = self._table(file)
            for batch in table:
                reader.take(batch)
                reader.drain()
        persons, _ = reader.codes(table.where)
        return None if persons is None else reader.histories(persons)

    def _parts(self, histories: npt.NDArray[np.float32] | None) -> Iterator[RowPart]:
        reader, first = self._reader(), 0
        with self._path.open("rb") as file:
            table = self._table(file)
            for batch in table:
                reader.take(batch)
                inputs, labels = reader.drain()
                if not len(inputs):
                    continue
                if histories is not None:
                    earlier = histories[first : first + len(inputs)]
                    if len(earlier) < len(inputs):
                        raise DatasetRejected(f"{self._path.name} changed while it was read")
                    inputs[:, -earlier.shape[1] :] = earlier
                yield RowPart(first, inputs, labels)
                first += len(inputs)
        self.persons, self.groups = reader.codes(table.where)


def kind_of(path: Path) -> DataFormat:
    with path.open("rb") as file:
        head = file.read(len(_PARQUET))
    if not head:
        raise DatasetRejected(f"{path.name} is empty")
    if head == _NPZ:
        raise DatasetRejected(f"{path.name} is a workbook or an archive: save the rows as CSV in UTF-8, or as Parquet")
    return DataFormat.PARQUET if head == _PARQUET else DataFormat.CSV


def form_for(path: Path, names: Sequence[str]) -> CsvForm:
    """Return the form of a CSV file, or name the column that its header lacks, with the nearest name there."""
    try:
        return form_of(path, names)
    except DatasetRejected as refused:
        header = _header(path, names)
        lacking = [name for name in names if name not in header]
        if not header or not lacking:
            raise
        folded = {fold(name): name for name in reversed(header)}
        near = [folded[each] for each in difflib.get_close_matches(fold(lacking[0]), folded, n=1)]
        more = f"; {len(lacking) - 1} more columns are missing: {', '.join(lacking[1:6])}" if len(lacking) > 1 else ""
        hint = f"did you mean {near[0]!r}?" if near else f"the file has {', '.join(header[:20])}"
        raise DatasetRejected(f"{path.name} has no column {lacking[0]!r}: {hint}{more}") from refused


def _header(path: Path, names: Sequence[str]) -> list[str]:
    """Return the header in the form that holds any of the names; empty without one."""
    for name in names:
        try:
            form = form_of(path, [name])
        except (DatasetRejected, OSError, EOFError):
            continue
        packed = form.compression == "gzip"
        with gzip.open(path, "rb") if packed else path.open("rb") as raw:
            encoding = "utf-8-sig" if form.encoding == "utf-8" else form.encoding
            text = TextIOWrapper(cast(BinaryIO, raw), encoding=encoding, newline="")
            for _ in range(form.skip_rows):
                text.readline()
            return [cell.strip() for cell in next(csv.reader(text, delimiter=form.delimiter), [])]
    return []
