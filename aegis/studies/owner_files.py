"""The owner's files as rows of plain text: CSV of any form, gzip, Parquet.

The form of a file is sniffed, because the owner reads her own rows and reviews what was found. Sites never sniff: the
rows written into their folders are plain CSV, declared by ``dataset.toml``.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from aegis.errors import InvalidStudy
from coreason_enclave.datasets import (
    CsvForm,
    DataFormat,
    form_of,
    format_of,
    known_kind,
    nearest_column,
    parquet_names,
    parquet_rows,
    plain_number,
)

_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class OwnerFile:
    """One of the owner's files.

    Attributes:
        form: how a CSV file is written; None for Parquet and for arrays.
        missing: further spellings of a missing cell.
    """

    path: Path
    format: DataFormat
    names: tuple[str, ...]
    form: CsvForm | None = None
    missing: frozenset[str] = frozenset()

    def rows(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Yield each row as its place in words ("line 7") and its cells, which are plain text without outer spaces.

        Raises:
            InvalidStudy: a row has another number of cells than the header, or the file is damaged.
        """
        if self.form is None:
            yield from self._parquet()
            return
        try:
            yield from self._csv(self.form)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InvalidStudy(f"{self.path} is cut off or damaged: pack it again") from error
        except UnicodeError as error:
            raise InvalidStudy(f"{self.path} is not {self.form.encoding} throughout: save it as UTF-8") from error
        except csv.Error as error:
            raise InvalidStudy(f"{self.path} is no CSV throughout ({error}): save it again") from error

    def _csv(self, form: CsvForm) -> Iterator[tuple[str, Mapping[str, str]]]:
        encoding = "utf-8-sig" if form.codec == "utf-8" else form.encoding
        with (
            gzip.open(self.path, "rb") if form.compression == "gzip" else self.path.open("rb") as raw,
            TextIOWrapper(raw, encoding=encoding, newline="") as text,
        ):
            for _ in range(form.skip_rows):
                text.readline()
            reader = csv.reader(text, delimiter=form.delimiter)
            if form.header:
                next(reader)
            for cells in reader:
                if not cells:
                    continue
                place = f"line {form.skip_rows + reader.line_num}"
                if len(cells) != len(self.names):
                    counted = f"{len(cells)} cell{'s' if len(cells) != 1 else ''}"
                    raise InvalidStudy(f"{self.path}: {place} has {counted}, the header {len(self.names)}: mend it")
                plain = (self._plain(plain_number(cell.strip(), form)) for cell in cells)
                yield place, dict(zip(self.names, plain, strict=True))

    def _parquet(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        for number, texts in enumerate(parquet_rows(self.path), start=1):
            yield f"row {number}", dict(zip(self.names, (self._plain(text.strip()) for text in texts), strict=True))

    def _plain(self, cell: str) -> str:
        return "" if cell in self.missing else cell


def open_owner_file(
    path: Path, needed: Sequence[str], *, columns: Sequence[str] | None = None, missing: Sequence[str] = ()
) -> OwnerFile:
    """Return a file with its form and the names of its columns.

    Args:
        needed: columns that the file must have.
        columns: the names of all columns, in order, of a CSV file without a header; None: the file names them.

    Raises:
        InvalidStudy: no such file, a folder, empty, or of a kind that holds no table.
        DatasetRejected: the file has no such columns.
    """
    head = _head(path)
    found = format_of(head)
    if found is DataFormat.NPZ:
        return OwnerFile(path, found, ())
    if found is DataFormat.PARQUET:
        return OwnerFile(path, found, _parquet_names(path, needed), None, frozenset(missing))
    kind = known_kind(head)
    if kind is not None or found is not None:
        words, advice = kind or (str(found), "save it as npz with the arrays x and y")
        raise InvalidStudy(f"{path} seems to be {words}: {advice}")
    form = form_of(path, needed, columns=columns)
    names = form.columns or _header(path, form)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidStudy(f"{path} has the column {twice[0]!r} twice: rename one")
    return OwnerFile(path, DataFormat.CSV, tuple(names), form, frozenset(missing))


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise InvalidStudy(f"{path} is a folder: name a file in it")
    if not path.exists():
        raise InvalidStudy(f"{path} does not exist: check the path")
    if not path.is_file():
        raise InvalidStudy(f"{path} is no plain file")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.strip():
        raise InvalidStudy(f"{path} is empty")
    return head


def _header(path: Path, form: CsvForm) -> tuple[str, ...]:
    encoding = "utf-8-sig" if form.codec == "utf-8" else form.encoding
    with (
        gzip.open(path, "rb") if form.compression == "gzip" else path.open("rb") as raw,
        TextIOWrapper(raw, encoding=encoding, newline="") as text,
    ):
        for _ in range(form.skip_rows):
            text.readline()
        return tuple(name.strip() for name in next(csv.reader(text, delimiter=form.delimiter)))


def _parquet_names(path: Path, needed: Sequence[str]) -> tuple[str, ...]:
    names = parquet_names(path)
    absent = [name for name in needed if name not in names]
    if absent:
        raise InvalidStudy(f"{path} has no column {absent[0]!r}{nearest_column(absent[0], names)}")
    return names
