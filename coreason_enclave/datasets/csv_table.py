"""Batches of rows from CSV: pyarrow splits lines into cells, and every declared column stays text."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from coreason_enclave.datasets.csv_text import CsvText, NotText
from coreason_enclave.datasets.hashing import HashedFile
from coreason_enclave.datasets.problems import DatasetSchemaRejected, SchemaProblem
from coreason_enclave.datasets.schema import DatasetSchema

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 1 << 20
BLOCK_BYTES_PER_COLUMN = 256
"""A row must fit into one block of the reader."""

_MAX_UNEVEN = 10_000
_BLANK_LINES = re.compile(rb"(?:[ \t]*(?:\r\n|\r|\n))*")


class CsvTable:
    """The rows of a CSV file, in one pass.

    Iterating yields ``{column: array of text}``, all arrays of one length. :meth:`where` knows a row's line once the
    iteration has ended.

    Raises (while iterating):
        DatasetSchemaRejected: not text of the declared encoding, not a table of one width, a declared column missing or
            named twice, a quote without an end, or no rows.
    """

    def __init__(self, schema: DatasetSchema, source: HashedFile) -> None:
        self._schema, self._form = schema, schema.csv_form
        self._text = CsvText(source, self._form)
        self._uneven: list[tuple[int, int]] = []
        self._blank, self._width, self._rows, self._ended = 0, 0, 0, False

    def __iter__(self) -> Iterator[Mapping[str, pa.Array]]:
        try:
            yield from self._batches()
        except NotText as error:
            raise self._refused(str(error)) from None
        finally:
            self._text.stop()

    def where(self, row: int) -> str:
        """Return the words for a data row, from 0: its line in the file, where lines and rows correspond."""
        header = int(self._form.header)
        if self._ended and self._text.content_lines == self._rows + len(self._uneven) + header:
            return f"line {self._form.skip_rows + header + row + 1}"
        return f"data row {row + 1}"

    def _batches(self) -> Iterator[Mapping[str, pa.Array]]:
        import pyarrow as pa

        names = self._names(self._text.peek_head())
        columns = {name: f"c{names.index(name)}" for name in self._schema.reads}
        ending = secrets.token_hex(16)
        line = self._form.delimiter.join([ending] * len(names))
        self._text.ending = f"\n{line}\n".encode()
        header = self._form.header
        held: pa.RecordBatch | None = None
        try:
            for batch in self._reader(len(names), [*columns.values()]):
                self._text.advance()
                if not batch.num_rows:
                    continue
                if held is not None:
                    yield self._cells(held, columns)
                held, header = (batch.slice(1), False) if header else (batch, False)
        except pa.ArrowInvalid as error:
            self._require_even()
            raise self._refused(_not_a_table(error, len(names))) from None
        if held is None or not held.num_rows or held.column(0)[-1].as_py() != ending:
            raise self._refused(
                "the file is not a table: a quotation mark opens a cell that no other mark closes, in data row "
                f"{self._rows + len(self._uneven) + (0 if held is None else held.num_rows)} or before"
            )
        last = self._cells(held.slice(0, held.num_rows - 1), columns)
        self._ended = True
        self._require_even()
        if not self._rows:
            raise self._refused("the file has a header and no rows" if self._form.header else "the file has no rows")
        yield last

    def _reader(self, width: int, included: list[str]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa
        import pyarrow.csv as pa_csv

        names = [f"c{place}" for place in range(width)]
        return iter(
            pa_csv.open_csv(
                pa.PythonFile(self._text, mode="r"),
                read_options=pa_csv.ReadOptions(use_threads=False, block_size=_block(width), column_names=names),
                parse_options=self._parse_options(self._skip_uneven),
                convert_options=pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(included, pa.string()),
                    include_columns=included,
                    strings_can_be_null=False,
                ),
            )
        )

    def _parse_options(self, invalid: Any) -> Any:
        import pyarrow.csv as pa_csv

        return pa_csv.ParseOptions(delimiter=self._form.delimiter, newlines_in_values=True, invalid_row_handler=invalid)

    def _skip_uneven(self, row: Any) -> str:
        if not row.text.strip():
            self._blank += 1
            return "skip"
        self._width = row.expected_columns
        self._uneven.append((row.number - self._blank, row.actual_columns))
        return "skip" if len(self._uneven) < _MAX_UNEVEN else "error"

    def _require_even(self) -> None:
        if not self._uneven:
            return
        number, cells = self._uneven[0]
        more = f", as {len(self._uneven) - 1} more rows differ" if len(self._uneven) > 1 else ""
        place = self.where(number - 1 - int(self._form.header))
        raise self._refused(
            f"the file is not a table: {place} has {cells} cell{'s' if cells != 1 else ''}, the first row has "
            f"{self._width}{more}"
        )

    def _cells(self, batch: pa.RecordBatch, columns: Mapping[str, str]) -> dict[str, pa.Array]:
        import pyarrow.compute as pc

        self._rows += batch.num_rows
        cells = {name: batch.column(column) for name, column in columns.items()}
        return {name: pc.utf8_trim_whitespace(text) for name, text in cells.items()} if self._form.trim else cells

    def _names(self, head: bytes) -> list[str]:
        """Return the names of all columns, each declared name among them once."""
        import pyarrow as pa
        import pyarrow.csv as pa_csv

        head = head[_BLANK_LINES.match(head).end() :]  # type: ignore[union-attr]
        if not head.removeprefix(b"\xef\xbb\xbf").strip():
            raise self._refused("the file is empty")
        options = self._parse_options(lambda _row: "skip")
        reading = pa_csv.ReadOptions(use_threads=False, block_size=len(head) + 1)
        try:
            names: list[str] = pa_csv.open_csv(pa.BufferReader(head + b"\n"), reading, options).schema.names
        except pa.ArrowInvalid as error:
            raise self._refused(_not_a_table(error, len(self._schema.reads))) from None
        if self._form.columns is not None:
            if len(names) != len(self._form.columns):
                raise self._refused(
                    f"the first line has {len(names)} cells, and [csv] columns names {len(self._form.columns)}"
                )
            names = list(self._form.columns)
        elif self._form.trim:
            names = [name.strip() for name in names]
        self._check(names)
        return names

    def _check(self, names: list[str]) -> None:
        reads = self._schema.reads
        problems = [SchemaProblem(name, "occurs more than once") for name in reads if names.count(name) > 1]
        counts: dict[str, int] = {}
        for place, name in enumerate(names, start=1):
            first = counts.setdefault(name, place)
            if first != place and name not in reads:  # without its name: without a header, the name is a cell
                problems.append(SchemaProblem(None, f"columns {first} and {place} of the header have the same name"))
        problems += [SchemaProblem(name, "is missing") for name in reads if name not in counts]
        if problems:
            raise DatasetSchemaRejected(self._schema.dataset_id, problems)

    def _refused(self, problem: str) -> DatasetSchemaRejected:
        return DatasetSchemaRejected(self._schema.dataset_id, [SchemaProblem(None, problem)])


def _block(width: int) -> int:
    return max(BLOCK_BYTES, width * BLOCK_BYTES_PER_COLUMN)


def _not_a_table(error: Exception, width: int) -> str:
    """Return words for pyarrow's error, which may quote cells."""
    if "straddl" in str(error):
        return f"the file is not a table: a row is longer than {_block(width) >> 20} MiB"
    return "the file is not a table of lines and cells"
