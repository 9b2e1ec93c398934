"""A declaration suggested from rows: a draft of ``dataset.toml`` for the owner of the rows to review.

Every bound, list of categories and stand-in here is computed from the rows. A site that used it as it stands would
publish its smallest and largest value. The draft is therefore for the site's own eyes, each suggested line says so, and
the person who reviews it writes what is known publicly.

A suggestion never decides how the rows are read later: the reader obeys ``dataset.toml`` alone.
"""

from __future__ import annotations

import csv
import gzip
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from coreason_enclave.datasets.csv_form import CsvForm
from coreason_enclave.datasets.encodings import decoded, encoding_of
from coreason_enclave.datasets.labels import LabelTask
from coreason_enclave.datasets.number_text import plain_pattern
from coreason_enclave.datasets.spellings import FALSE, MISSING, TRUE, fold
from coreason_enclave.errors import DatasetRejected

MAX_CATEGORIES = 20
"""More distinct words than this are text, not categories."""

_HEAD_BYTES = 1 << 20
_DELIMITERS = ",;\t|"
_MAX_PREAMBLE = 20
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_NUMBER = plain_pattern(CsvForm())


@dataclass
class ColumnSummary:
    """What the cells of one column are, over all rows read: counts, extent, and the first distinct spellings.

    Attributes:
        seen: distinct spellings and how often each occurred; at most ``MAX_CATEGORIES + 1`` of them.
        whole: whether every number so far was whole.
    """

    name: str
    rows: int = 0
    missing: int = 0
    numbers: int = 0
    days: int = 0
    low: float = math.inf
    high: float = -math.inf
    whole: bool = True
    seen: Counter[str] = field(default_factory=Counter)

    def take(self, cell: str) -> None:
        """Count one cell."""
        self.rows += 1
        text = cell.strip()
        if text.casefold() in MISSING:
            self.missing += 1
            return
        if text in self.seen or len(self.seen) <= MAX_CATEGORIES:
            self.seen[text] += 1
        if _NUMBER.fullmatch(text):
            number = float(text)
            self.numbers += 1
            self.low, self.high = min(self.low, number), max(self.high, number)
            self.whole = self.whole and number.is_integer()
        elif _DAY.fullmatch(text):
            self.days += 1

    @property
    def present(self) -> int:
        """Number of cells that are not missing."""
        return self.rows - self.missing

    @property
    def is_number(self) -> bool:
        """Whether every present cell is a number."""
        return 0 < self.numbers == self.present

    @property
    def is_boolean(self) -> bool:
        """Whether the column holds both of, and only, known spellings of yes and no."""
        words = {word.casefold() for word in self.seen}
        return len(words) == 2 and bool(words & set(TRUE)) and bool(words & set(FALSE)) and words <= {*TRUE, *FALSE}


@dataclass(frozen=True)
class Suggestion:
    """A draft declaration.

    Attributes:
        features: one table of ``[[features]]`` for each column kept, as plain TOML values.
        remarks: for each column kept, the words on what was suggested from rows.
        left_out: for each column left out, why.
        label: the ``[label]`` table.
        form: the ``[csv]`` table; None for the defaults.
    """

    label: Mapping[str, Any]
    features: Sequence[Mapping[str, Any]]
    remarks: Mapping[str, str]
    left_out: Mapping[str, str]
    form: CsvForm | None


def form_of(path: Path, names: Sequence[str]) -> CsvForm:
    """Return the form that a CSV file seems to have; ``names`` are columns that its header should hold.

    Raises:
        DatasetRejected: the header has no such columns in any form, or the file is not text.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    compression: Literal["none", "gzip"] = "gzip" if head.startswith(b"\x1f\x8b") else "none"
    if compression == "gzip":
        with gzip.open(path) as unpacked:
            head = unpacked.read(_HEAD_BYTES)
    encoding, _ = encoding_of(head)
    text = decoded(head, encoding) if encoding else None
    if text is None:
        raise DatasetRejected(f"{path.name} is not text: save it as CSV in UTF-8, or as Parquet")
    lines = text.removeprefix("\ufeff").splitlines()[: _MAX_PREAMBLE + 1]
    for skip, line in enumerate(lines):
        for delimiter in _DELIMITERS:
            cells = next(csv.reader([line], delimiter=delimiter), [])
            exact = all(name in cells for name in names)
            if exact or all(fold(name) in [fold(cell) for cell in cells] for name in names):
                trimmed = not all(name in cells for name in names) and all(
                    name in map(str.strip, cells) for name in names
                )
                if not exact and not trimmed:
                    raise DatasetRejected(_other_spelling(path, names, cells))
                decimal: Literal[".", ","] = (
                    "," if delimiter != "," and _decimal_commas(lines[skip + 1 :], delimiter) else "."
                )
                return CsvForm(
                    delimiter=delimiter,
                    encoding="utf-8" if encoding == "utf-8" else encoding,
                    decimal=decimal,
                    compression=compression,
                    skip_rows=skip,
                    trim=trimmed,
                )
    raise DatasetRejected(
        f"{path.name} has no header with {' and '.join(map(repr, names))}: name its columns in line 1"
    )


def _other_spelling(path: Path, names: Sequence[str], cells: Sequence[str]) -> str:
    found = {fold(cell): cell.strip() for cell in cells}
    other = [(name, found[fold(name)]) for name in names if name not in found.values()]
    return f"{path.name} has no column {other[0][0]!r}: its header says {other[0][1]!r}"


def _decimal_commas(lines: Iterable[str], delimiter: str) -> bool:
    cells = [cell.strip() for row in csv.reader(list(lines), delimiter=delimiter) for cell in row]
    return any(re.fullmatch(r"[+-]?\d+,\d+", cell) for cell in cells) and not any(
        re.fullmatch(r"[+-]?\d+\.\d+", cell) for cell in cells
    )


def suggest(
    columns: Sequence[ColumnSummary], *, label: str, person: str | None, task: LabelTask | None = None
) -> Suggestion:
    """Return a draft for a table's columns.

    Args:
        columns: every column of the file, summarised.
        label: the column to predict.
        person: the column that names the person behind a row.
        task: the label's task; None: classes for few whole numbers or words, a number otherwise.

    Raises:
        DatasetRejected: the label's column is missing or has no use for the task, or no feature is left.
    """
    by_name = {column.name: column for column in columns}
    for wanted in (label, *([person] if person else [])):
        if wanted not in by_name:
            raise DatasetRejected(f"there is no column {wanted!r}: the file has {', '.join(sorted(by_name))}")
    features: list[Mapping[str, Any]] = []
    remarks: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for column in columns:
        if column.name in (label, person):
            continue
        feature, words = _feature(column)
        if feature is None:
            left_out[column.name] = words
        else:
            features.append(feature)
            remarks[column.name] = words
    if not features:
        raise DatasetRejected(f"no column is left to learn from: {_listed(left_out)}")
    declared, words = _label(by_name[label], task)
    return Suggestion(declared, features, {**remarks, label: words}, left_out, None)


def _feature(column: ColumnSummary) -> tuple[Mapping[str, Any] | None, str]:
    if not column.present:
        return None, "every cell is missing"
    stand_in, extra = column.missing > 0, dict[str, Any]()
    if column.is_boolean:
        yes, no = ([word for word in column.seen if word.casefold() in known] for known in (TRUE, FALSE))
        extra = {"missing": False, "indicator": True} if stand_in else extra
        return {
            "name": column.name,
            "kind": "boolean",
            "true": yes,
            "false": no,
            **extra,
        }, "spellings suggested from rows"
    if column.is_number:
        low, high = rounded_out(column.low, column.high)
        extra = {"missing": (low + high) / 2, "indicator": True} if stand_in else extra
        return {"name": column.name, "low": low, "high": high, **extra}, "range suggested from rows"
    if column.days == column.present:
        return None, 'holds days: declare kind = "date" with since and a range'
    if len(column.seen) <= MAX_CATEGORIES:
        extra = {"missing": "other"} if stand_in else extra
        words = sorted(column.seen)
        return {"name": column.name, "kind": "category", "categories": words, **extra}, "categories suggested from rows"
    return None, f"holds more than {MAX_CATEGORIES} different words: text, or an id"


def _label(column: ColumnSummary, task: LabelTask | None) -> tuple[Mapping[str, Any], str]:
    if column.missing:
        raise DatasetRejected(f"the label {column.name!r} is missing in {column.missing} rows: leave these rows out")
    few = len(column.seen) <= MAX_CATEGORIES
    if task is None:
        classes = few and (not column.is_number or column.whole)
        task = LabelTask.CLASSES if classes else LabelTask.NUMBER
    if task is LabelTask.CLASSES:
        if not few or len(column.seen) < 2:
            raise DatasetRejected(
                f"the label {column.name!r} has {_how_many(column)} values: that is no list of classes"
            )
        words = sorted(column.seen, key=_in_order)
        if column.is_number and words == [str(number) for number in range(len(words))]:
            return {"column": column.name, "classes": len(words)}, "number of classes suggested from rows"
        return {"column": column.name, "values": words}, "classes suggested from rows"
    if not column.is_number:
        raise DatasetRejected(f"the label {column.name!r} holds words, and task {task} needs numbers")
    if task is LabelTask.COUNT:
        return {
            "task": "count",
            "column": column.name,
            "high": float(rounded_out(0, column.high)[1]),
        }, "suggested from rows"
    if task is LabelTask.NUMBER:
        low, high = rounded_out(column.low, column.high)
        return {"task": "number", "column": column.name, "low": low, "high": high}, "range suggested from rows"
    raise DatasetRejected(f"a label of task {task} has several columns: write [label] yourself")


def rounded_out(low: float, high: float) -> tuple[float, float]:
    """Return a range around [low, high] with ends of two significant digits of its width, low below high."""
    width = (high - low) or max(abs(high), 1.0)
    step = 10.0 ** (math.floor(math.log10(width)) - 1)
    outer_low, outer_high = math.floor(low / step) * step, math.ceil(high / step) * step
    if outer_low == outer_high:
        outer_high += step
    digits = max(0, -math.floor(math.log10(step)))
    return round(outer_low, digits), round(outer_high, digits)


def _in_order(word: str) -> tuple[int, float, str]:
    return (0, float(word), word) if _NUMBER.fullmatch(word) else (1, 0.0, word)


def _how_many(column: ColumnSummary) -> str:
    return f"more than {MAX_CATEGORIES}" if len(column.seen) > MAX_CATEGORIES else str(len(column.seen))


def _listed(left_out: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {why}" for name, why in left_out.items())
