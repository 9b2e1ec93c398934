"""Drafts ``dataset.toml`` for a site: from a dictionary, or suggested from the site's own rows, for its own eyes."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

import tomlkit

from coreason_enclave.datasets.csv_form import CsvForm
from coreason_enclave.datasets.dictionary import DataDictionary
from coreason_enclave.datasets.labels import LabelTask
from coreason_enclave.datasets.number_text import plain_number
from coreason_enclave.datasets.schema import parse_schema
from coreason_enclave.datasets.suggestion import ColumnSummary, form_of, suggest
from coreason_enclave.errors import DatasetRejected

SUGGESTED = "suggested from rows: replace by what is publicly known"
"""The mark of every entry that was computed from rows."""

_COMPUTED = ("low", "high", "missing", "categories", "true", "false", "classes", "values")


def draft(
    path: Path,
    *,
    file: str,
    dataset_id: str,
    public: bool,
    label: str | None,
    person: str | None,
    task: LabelTask | None = None,
    dictionary: DataDictionary | None = None,
) -> str:
    """Return ``dataset.toml`` for the rows in a CSV file.

    Args:
        file: the name of the file of rows beside ``dataset.toml``.
        label: the column to predict; unused with a dictionary.
        person: the column that names the person behind a row.
        dictionary: declares everything but the file's form; nothing is then computed from rows.

    Raises:
        DatasetRejected: the file is no table with these columns, or no column is left to learn from.
    """
    if dictionary is None:
        if label is None:
            raise DatasetRejected("--label is missing: name the column to predict, or give the study's --dictionary")
        needed = [label, *([person] if person else [])]
        form = form_of(path, needed)
        document = _suggested(path, form, label, person, task)
    else:
        known = dictionary.model_copy(update={"unit_column": person}) if person else dictionary
        blank = known.declaration(file=file, public=public)
        form = form_of(path, blank.reads)
        document = blank.model_dump(mode="json", exclude_none=True, exclude={"csv"})
    kind = "images" if dictionary is not None and dictionary.image_column is not None else "csv"
    head = {"version": 1, "dataset_id": dataset_id, "format": kind, "file": file, "public": public}
    text = _written({**head, **_form(form), **{k: v for k, v in document.items() if k not in head}}, dictionary is None)
    parse_schema(text.encode())
    return text


def _suggested(path: Path, form: CsvForm, label: str, person: str | None, task: LabelTask | None) -> Mapping[str, Any]:
    suggestion = suggest(list(_summaries(path, form).values()), label=label, person=person, task=task)
    return {
        **({"unit_column": person} if person else {}),
        "label": dict(suggestion.label),
        "features": [dict(feature) for feature in suggestion.features],
    }


def _summaries(path: Path, form: CsvForm) -> Mapping[str, ColumnSummary]:
    with _opened(path, form) as file:
        rows = csv.reader(file, delimiter=form.delimiter)
        try:
            header = [name.strip() if form.trim else name for name in next(rows)]
            if len(set(header)) < len(header):
                raise DatasetRejected(f"{path.name} names a column twice: rename one")
            columns = {name: ColumnSummary(name) for name in header}
            for cells in rows:
                if not cells:
                    continue
                if len(cells) != len(header):
                    line = rows.line_num + form.skip_rows
                    raise DatasetRejected(f"{path.name}, line {line}: not as many cells as the header has")
                for column, cell in zip(columns.values(), cells, strict=True):
                    column.take(plain_number(cell.strip(), form))
        except (UnicodeError, csv.Error, EOFError, OSError) as error:
            raise DatasetRejected(f"{path.name} cannot be read as {form.encoding} CSV: {error}") from error
    return columns


@contextmanager
def _opened(path: Path, form: CsvForm) -> Iterator[TextIO]:
    encoding = "utf-8-sig" if form.encoding == "utf-8" else form.encoding
    raw = gzip.open(path, "rb") if form.compression == "gzip" else path.open("rb")  # noqa: SIM115 - closed below
    with TextIOWrapper(raw, encoding=encoding, newline="") as text:
        for _ in range(form.skip_rows):
            text.readline()
        yield text


def _form(form: CsvForm) -> Mapping[str, Any]:
    changed = form.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return {"csv": changed} if changed else {}


def _written(document: Mapping[str, Any], computed: bool) -> str:
    """Return TOML: plain entries, then tables; computed entries carry the mark."""
    written = tomlkit.document()
    if computed:
        _remark(written, "SUGGESTED FROM ROWS, for this site's own eyes: each marked entry would publish a private")
        _remark(written, "value. Write what is publicly known, and delete the mark; `dataset register` looks for it.")
    tables = {name: value for name, value in document.items() if isinstance(value, dict) or _is_tables(value)}
    for name, value in document.items():
        if name not in tables:
            written[name] = value
    for name, value in tables.items():
        if isinstance(value, dict):
            written[name] = _table(value, computed and name == "label")
        else:
            entries = tomlkit.aot()
            for each in value:
                entries.append(_table(each, computed))
            written[name] = entries
    return tomlkit.dumps(written)


def _remark(document: tomlkit.TOMLDocument, text: str) -> None:
    document.add(tomlkit.comment(text))


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _table(entries: Mapping[str, Any], computed: bool) -> tomlkit.items.Table:
    table = tomlkit.table()
    for name, value in entries.items():
        item = tomlkit.item(value)
        table[name] = item
        if computed and name in _COMPUTED:
            item.comment(SUGGESTED)
    return table


def marks(text: str) -> Sequence[int]:
    """Return the numbers of the lines, from 1, that still carry the mark."""
    return [number for number, line in enumerate(text.splitlines(), start=1) if SUGGESTED in line]
