"""Words for a refused file: the form that it seems to have, and the entries of ``dataset.toml`` that would read it.

The reader never guesses. A look at the first bytes follows a refusal, and only changes the message. No message quotes
a cell; a header's name appears only if it equals a declared name without regard to case, spaces and Unicode form.
"""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from coreason_enclave.datasets.columns import Feature
from coreason_enclave.datasets.data_format import DataFormat
from coreason_enclave.datasets.encodings import decoded, encoding_of
from coreason_enclave.datasets.hints import number_signs, toml
from coreason_enclave.datasets.number_text import plain_pattern
from coreason_enclave.datasets.problems import DatasetSchemaRejected, Remedy, SchemaProblem
from coreason_enclave.datasets.schema import DatasetSchema
from coreason_enclave.datasets.spellings import fold

_SAMPLE_LINES = 50
_MAX_SKIPPED = 20
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "spaces", ":": "colons"}
_EXPORT = "save it as CSV in UTF-8, one table in one file"
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"\xd0\xcf\x11\xe0", "an old Excel or SPSS workbook", _EXPORT),
    (b"$FL2", "SPSS data", _EXPORT),
    (b"$FL3", "SPSS data", _EXPORT),
    (b"<stata_dta>", "Stata data", _EXPORT),
    (b"HEADER RECORD*******", "a SAS transport file", _EXPORT),
    (b"SQLite format 3\0", "an SQLite database", _EXPORT),
    (b"\x89HDF", "HDF5", _EXPORT),
    (b"%PDF", "a PDF document", _EXPORT),
    (b"ARROW1", "an Arrow or Feather file", "save it as Parquet"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", "decompress it"),
    (b"BZh", "bzip2-compressed", "decompress it"),
    (b"\xfd7zXZ", "xz-compressed", "decompress it"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it"),
    (b"\x80\x04", "a Python pickle", "save it as npz or Parquet: a pickle runs code"),
    (b"<!DOCTYPE", "a web page", _EXPORT),
    (b"<html", "a web page", _EXPORT),
    (b"<?xml", "XML", _EXPORT),
    (b'{"', "JSON", _EXPORT),
    (b"[{", "JSON", _EXPORT),
)


def explained(refused: DatasetSchemaRejected, schema: DatasetSchema, head: bytes) -> DatasetSchemaRejected:
    """Return the refusal with the words for the file's form in place of problems that follow from another form.

    Args:
        head: the first bytes of the file, as on disk.
    """
    found = _other_format(schema, head)
    if found is None and schema.table_format is DataFormat.CSV and head.strip():
        found = _Text(schema, head).problem(refused)
    if found is None:
        return refused
    return DatasetSchemaRejected(schema.dataset_id, found)


def _other_format(schema: DatasetSchema, head: bytes) -> list[SchemaProblem] | None:
    actual, declared = format_of(head), schema.table_format
    if actual is not None:
        if actual is declared:
            return None
        if schema.format is DataFormat.IMAGES:
            advice = "a table of labels is CSV, or Parquet in a file whose name ends in .parquet"
            return [SchemaProblem(None, f"the file seems to be {actual.value}, not {declared}: {advice}")]
        entries = (f"format = {toml(actual.value)}",)
        return [SchemaProblem(None, f"the file seems to be {actual.value}, not {declared}", Remedy("", entries))]
    other = known_kind(head)
    if other is not None:
        kind, advice = other
        return [SchemaProblem(None, f"the file seems to be {kind}, not {declared}: {advice}")]
    if declared is not DataFormat.CSV and _is_text(head):
        problem = f"the file seems to be text such as CSV, not {declared}"
        if schema.format is DataFormat.PARQUET:
            return [SchemaProblem(None, problem, Remedy("", ('format = "csv"',)))]
        return [SchemaProblem(None, f"{problem}: declare [[features]] for a table")]
    return None


def known_kind(head: bytes) -> tuple[str, str] | None:
    """Return words for a kind of file that no declaration can read, and the way out; None for all other files."""
    if head.startswith(b"PK\x03\x04"):
        return _zipped(head)
    return next(((kind, advice) for magic, kind, advice in _MAGIC if head[: len(magic)].lower() == magic.lower()), None)


def _is_text(head: bytes) -> bool:
    text = decoded(head, "utf-8")
    return text is not None and bool(text.strip()) and all(sign.isprintable() or sign.isspace() for sign in text[:4096])


def format_of(head: bytes) -> DataFormat | None:
    """Return the binary format of a file that begins with ``head``; None for text and for unknown files."""
    if head.startswith(b"PAR1"):
        return DataFormat.PARQUET
    if head.startswith(b"PK\x03\x04") and b".npy" in head[:256]:
        return DataFormat.NPZ
    if head[8:9] == b"{" and len(head) > 9 and int.from_bytes(head[:8], "little") < 1 << 30:
        return DataFormat.SAFETENSORS
    return None


def _zipped(head: bytes) -> tuple[str, str]:
    if b"[Content_Types].xml" in head or b"xl/" in head:
        return "an Excel workbook (xlsx)", _EXPORT
    if b"opendocument" in head:
        return "an OpenDocument table (ods)", _EXPORT
    return "a zip archive", "unpack it"


@dataclass(frozen=True)
class _Layout:
    """A way to split the text: lines before the header, delimiter, and the header's cells."""

    skip: int
    delimiter: str
    names: tuple[str, ...]
    known: int


class _Text:
    """The beginning of a text file, read in the ways that a ``[csv]`` table can declare."""

    def __init__(self, schema: DatasetSchema, head: bytes) -> None:
        self._schema, self._form = schema, schema.csv_form
        self._seems: list[str] = []
        self._entries: list[str] = []
        self._lines = self._decoded(self._decompressed(head)).splitlines()[:500]

    def problem(self, refused: DatasetSchemaRejected) -> list[SchemaProblem] | None:
        """Return the problems of a file of another form than declared, or None to leave the refusal as it stands."""
        if not self._form.header and self._has_header():
            return [self._headed()]
        structural = any(_is_structural(problem) for problem in refused.problems)
        if not self._seems and not structural:
            return None
        layout = self._layout()
        found: list[SchemaProblem] = []
        if layout is None or not layout.known:
            found = self._without_header(refused)
        else:
            self._compare(layout)
            found = self._names(layout)
            self._numbers(layout)
        if self._entries:
            text = f"the file seems to be {_listed(self._seems)}"
            found.insert(0, SchemaProblem(None, text, Remedy("csv", tuple(self._entries))))
        return found or None

    def _decompressed(self, head: bytes) -> bytes:
        packed = head.startswith(b"\x1f\x8b")
        if packed and self._form.compression == "none":
            self._note("gzip-compressed", "compression", "gzip")
        elif not packed and self._form.compression == "gzip":
            self._note("uncompressed", "compression", "none")
        if not packed:
            return head
        try:
            return zlib.decompressobj(wbits=31).decompress(head, 1 << 20)
        except zlib.error:
            return b""

    def _decoded(self, data: bytes) -> str:
        declared = decoded(data, self._form.codec)
        if declared is not None and "\0" not in declared:
            return declared
        encoding, words = encoding_of(data)
        if encoding:
            self._note(f"{words}, not {self._form.encoding.upper()}", "encoding", encoding)
        return data.decode(encoding or "latin-1", errors="replace")

    def _note(self, seems: str, name: str, value: object) -> None:
        self._seems.append(seems)
        self._entries.append(f"{name} = {toml(value)}")

    def _layout(self) -> _Layout | None:
        """Return the split with the most declared names in one line; the declared split wins a tie."""
        wanted = set(map(fold, self._schema.reads))
        if not self._form.header:
            return None
        best: _Layout | None = None
        delimiters = dict.fromkeys([self._form.delimiter, *_DELIMITERS])
        for skip in sorted(range(min(_MAX_SKIPPED, len(self._lines))), key=lambda n: (n != self._form.skip_rows, n)):
            for delimiter in delimiters:
                names = tuple(_cells(self._lines[skip], delimiter))
                known = len(wanted & set(map(fold, names)))
                if best is None or known > best.known:
                    best = _Layout(skip, delimiter, names, known)
        return best

    def _compare(self, layout: _Layout) -> None:
        if layout.delimiter != self._form.delimiter:
            words = _DELIMITERS.get(layout.delimiter, "another sign")
            self._note(f"separated by {words}", "delimiter", layout.delimiter)
        if layout.skip != self._form.skip_rows:
            lines = f"{layout.skip} line{'s' if layout.skip != 1 else ''} before its header"
            self._note(f"a table with {lines}", "skip_rows", layout.skip)

    def _names(self, layout: _Layout) -> list[SchemaProblem]:
        """Return the problems of declared names that the header lacks or spells in another way."""
        bare = {fold(name): name.strip() for name in reversed(layout.names)}
        exact = [name.strip() if self._form.trim else name for name in layout.names]
        problems = []
        spaced = [name for name in self._schema.reads if name not in exact and bare.get(fold(name)) == name]
        if spaced:
            self._note("a table with spaces around its cells", "trim", True)
        for name in self._schema.reads:
            if name in exact or name in spaced:
                if exact.count(name) > 1:
                    problems.append(SchemaProblem(name, "occurs more than once"))
                continue
            written = bare.get(fold(name))
            if written is None:
                problems.append(SchemaProblem(name, "is missing"))
            else:
                problems.append(
                    SchemaProblem(name, f"is missing; the header names {written!r}: write this name in dataset.toml")
                )
        return problems

    def _numbers(self, layout: _Layout) -> None:
        """Note the signs of the numbers, if the first rows of the numeric features need others than declared."""
        if not self._entries:
            return
        trimmed = any(entry.startswith("trim") for entry in self._entries)
        form = self._form.model_copy(update={"trim": True}) if trimmed else self._form
        bare = [fold(name) for name in layout.names]
        wanted = {fold(feature.name) for feature in self._schema.features if isinstance(feature, Feature)}
        samples = []
        for line in self._lines[layout.skip + 1 :][:_SAMPLE_LINES]:
            cells = _cells(line, layout.delimiter)
            samples += [cell for name, cell in zip(bare, cells, strict=False) if name in wanted]
        samples = [text.strip() if form.trim else text for text in samples]
        wrong = [
            text
            for text in samples
            if text.strip().casefold() not in form.missing_folds and not plain_pattern(form).fullmatch(text)
        ]
        ways = number_signs(wrong, form)
        if len(ways) == 1:
            self._seems.append("with other signs in its numbers")
            self._entries += ways[0]

    def _has_header(self) -> bool:
        names = _cells(self._lines[self._form.skip_rows], self._form.delimiter) if self._lines else []
        return bool(set(map(fold, names)) & set(map(fold, self._schema.reads)))

    def _headed(self) -> SchemaProblem:
        text = "the first line seems to name the columns: take `columns` out"
        return SchemaProblem(None, text, Remedy("csv", ("header = true",)))

    def _without_header(self, refused: DatasetSchemaRejected) -> list[SchemaProblem]:
        """Return the problem of a file whose first line holds a row of cells."""
        if not self._form.header or not self._lines:
            return [] if self._entries else list(refused.problems)
        delimiter, width = self._widths()
        first = _cells(self._lines[self._form.skip_rows], delimiter) if len(self._lines) > self._form.skip_rows else []
        if width < 2 or not any(re.fullmatch(r"[+-]?[0-9]+([.,][0-9]+)?", cell.strip()) for cell in first):
            return [] if self._entries else list(refused.problems)
        if delimiter != self._form.delimiter:
            self._note(f"separated by {_DELIMITERS.get(delimiter, 'another sign')}", "delimiter", delimiter)
        entries = (*self._entries, "header = false", f"columns = [the names of its {width} columns, in order]")
        self._entries = []
        seems = _listed([*self._seems, "a table without a line of names"])
        return [SchemaProblem(None, f"the file seems to be {seems}", Remedy("csv", entries))]

    def _widths(self) -> tuple[str, int]:
        """Return the delimiter that splits the first lines into most cells, equally many in each, and their number."""
        best = self._form.delimiter, 1
        for delimiter in dict.fromkeys([self._form.delimiter, *_DELIMITERS]):
            lines = self._lines[self._form.skip_rows :][:_SAMPLE_LINES]
            widths = {len(_cells(line, delimiter)) for line in lines if line.strip()}
            if len(widths) == 1 and max(widths) > best[1]:
                best = delimiter, max(widths)
        return best


def _is_structural(problem: SchemaProblem) -> bool:
    return problem.column is None or problem.problem in {"is missing", "occurs more than once"}


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line.removeprefix("\ufeff")], delimiter=delimiter), [])
    except csv.Error:
        return []


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)
