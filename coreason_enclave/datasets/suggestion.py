"""A declaration suggested from rows: a draft of ``dataset.toml`` for the owner of the rows to review.

Every bound, list of categories and stand-in here is computed from the rows. A site that used it as it stands would
publish its smallest and largest value. The draft is therefore for the site's own eyes, each suggested line says so, and
the person who reviews it writes what is known publicly.

A suggestion never decides how the rows are read later: the reader obeys ``dataset.toml`` alone.
"""

from __future__ import annotations

import csv
import datetime
import difflib
import gzip
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import TypeAdapter, ValidationError

from coreason_enclave.datasets.columns import AnyFeature
from coreason_enclave.datasets.csv_form import CsvForm
from coreason_enclave.datasets.encodings import decoded, encoding_of
from coreason_enclave.datasets.labels import LabelTask
from coreason_enclave.datasets.number_text import plain_pattern
from coreason_enclave.datasets.spellings import FALSE, MISSING, TRUE, fold
from coreason_enclave.errors import DatasetRejected
from coreason_enclave.system import explain

MAX_CATEGORIES = 20
"""More distinct words than this are text, not categories."""

_HEAD_BYTES = 1 << 20
_DELIMITERS = ",;\t|"
_MAX_PREAMBLE = 20
_SAMPLE_LINES = 500
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = plain_pattern(CsvForm())
_MEASURE = re.compile(r"[+-]?[0-9][0-9.,]*\s*(?P<unit>[^\W\d_]\S{0,11}|[%°‰€$£]\S{0,11})")
_MAX_UNITS = 8
_MAX_EXAMPLE = 30
_ID = re.compile(r"unnamed: [0-9]+|index|id|.*[ _-]id", re.IGNORECASE)
_MAX_BOUND = 1e15
_INTERVALS = 5
_FEATURE: TypeAdapter[AnyFeature] = TypeAdapter(AnyFeature)

STATED = "stated by the owner"


@dataclass
class ColumnSummary:
    """What the cells of one column are, over all rows read: counts, extent, and the first distinct spellings.

    Attributes:
        seen: distinct spellings and how often each occurred; at most ``MAX_CATEGORIES + 1`` of them.
        whole: whether every number so far was whole.
        word: the first cell that is neither a number nor a day; empty if there is none.
        measures: how many cells are a number and a unit, such as ``20.57 mm``, by unit; the first few units only.
    """

    name: str
    rows: int = 0
    missing: int = 0
    numbers: int = 0
    days: int = 0
    low: float = math.inf
    high: float = -math.inf
    total: float = 0.0
    squares: float = 0.0
    first_day: str = ""
    last_day: str = ""
    whole: bool = True
    seen: Counter[str] = field(default_factory=Counter)
    word: str = ""
    measures: Counter[str] = field(default_factory=Counter)

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
            self.total, self.squares = self.total + number, self.squares + number * number
            self.whole = self.whole and number.is_integer()
        elif _is_day(text):
            self.days += 1
            self.first_day = min(self.first_day or text, text)
            self.last_day = max(self.last_day, text)
        else:
            self._take_word(text)

    def _take_word(self, text: str) -> None:
        self.word = self.word or text
        measure = _MEASURE.fullmatch(text)
        if measure is not None and (measure["unit"] in self.measures or len(self.measures) < _MAX_UNITS):
            self.measures[measure["unit"]] += 1

    @property
    def units(self) -> list[str]:
        """The units after the numbers, if most present cells are a number and a unit."""
        return sorted(self.measures) if 2 * self.measures.total() > self.present else []

    @property
    def present(self) -> int:
        """Number of cells that are not missing."""
        return self.rows - self.missing

    @property
    def is_number(self) -> bool:
        """Whether every present cell is a number."""
        return 0 < self.numbers == self.present

    @property
    def mean(self) -> float:
        """The mean of the numbers."""
        return self.total / self.numbers

    @property
    def is_boolean(self) -> bool:
        """Whether the column holds both of, and only, known spellings of yes and no."""
        words = {word.casefold() for word in self.seen}
        return len(words) == 2 and bool(words & set(TRUE)) and bool(words & set(FALSE)) and words <= {*TRUE, *FALSE}


def _is_day(text: str) -> bool:
    if not _DAY.fullmatch(text):
        return False
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


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

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The suggested range of each column that has one, the label's among them."""
        tables = [*self.features, {**self.label, "name": self.label.get("column")}]
        return {table["name"]: (table.get("low", 0.0), table["high"]) for table in tables if "high" in table}

    def leaving_out(self, name: str) -> Self:
        """Return the draft without a feature, as its owner decided."""
        kept = [feature for feature in self.features if feature["name"] != name]
        if len(kept) == len(self.features):
            raise DatasetRejected(f"{name!r} is no feature: it cannot be left out")
        if not kept:
            raise DatasetRejected(f"{name!r} is the last feature: nothing would be left to learn from")
        return replace(self, features=kept, left_out={**self.left_out, name: "left out by the owner"})

    def stating(self, name: str, low: float, high: float) -> Self:
        """Return the draft with a range that its owner states; a stand-in outside becomes the middle.

        Raises:
            DatasetRejected: low is not below high, or the column has no range.
        """
        if not -_MAX_BOUND <= low < high <= _MAX_BOUND:
            raise DatasetRejected(f"{name!r} needs low below high, within {_MAX_BOUND:g}: got {low:g} and {high:g}")
        if name not in self.ranges:
            raise DatasetRejected(f"{name!r} has no range")
        remarks = {**self.remarks, name: STATED}
        if name == self.label.get("column"):
            stated = {"high": high} if self.label.get("task") == "count" else {"low": low, "high": high}
            return replace(self, label={**self.label, **stated}, remarks=remarks)
        features = [_stated(each, low, high) if each["name"] == name else each for each in self.features]
        return replace(self, features=features, remarks=remarks)


def _stated(feature: Mapping[str, Any], low: float, high: float) -> Mapping[str, Any]:
    stated = {**feature, "low": low, "high": high}
    if "missing" in feature and not low <= feature["missing"] <= high:
        stated["missing"] = (low + high) / 2
    return stated


def form_of(path: Path, names: Sequence[str], *, columns: Sequence[str] | None = None) -> CsvForm:
    """Return the form that a CSV file seems to have.

    Args:
        names: columns that its header should hold.
        columns: the names of all columns of a file without a header, in order; None: the file has a header.

    Raises:
        DatasetRejected: the header has no such columns in any form, or the file is not text.
    """
    head, compression = _unpacked(path)
    encoding, _ = encoding_of(head)
    text = decoded(head, encoding) if encoding else None
    if text is None or not all(sign.isprintable() or sign.isspace() for sign in text[:4096].removeprefix("\ufeff")):
        raise DatasetRejected(f"{path.name} is not text: save it as CSV in UTF-8, or as Parquet")
    lines = text.removeprefix("\ufeff").splitlines()
    form = CsvForm(encoding=encoding, compression=compression)
    if columns is not None:
        return _bare_form(path, lines, form, columns, names)
    best = _layout(lines, names)
    if best is None:
        raise DatasetRejected(_no_header(path, lines, names))
    skip, delimiter, cells = best
    _require_names(path, cells, names)
    trimmed = any(cell != cell.strip() for cell in cells)
    return form.model_copy(
        update={
            "delimiter": delimiter,
            "decimal": _decimal_sign(lines[skip + 1 :], delimiter),
            "skip_rows": skip,
            "trim": trimmed,
        }
    )


def _unpacked(path: Path) -> tuple[bytes, Literal["none", "gzip"]]:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.startswith(b"\x1f\x8b"):
        return head, "none"
    try:
        with gzip.open(path) as unpacked:
            return unpacked.read(_HEAD_BYTES), "gzip"
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DatasetRejected(f"{path.name} is cut off or damaged: pack it again") from None


def _layout(lines: Sequence[str], names: Sequence[str]) -> tuple[int, str, list[str]] | None:
    """Return the line, delimiter and cells of the header: where most of the names stand; None if none stands."""
    wanted = set(map(fold, names))
    found: tuple[int, int, str, list[str]] | None = None
    for skip, line in enumerate(lines[: _MAX_PREAMBLE + 1]):
        for delimiter in _DELIMITERS:
            cells = _cells(line, delimiter)
            known = len(wanted & set(map(fold, cells)))
            if known and (found is None or known > found[0]):
                found = known, skip, delimiter, cells
    return None if found is None else found[1:]


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _bare_form(
    path: Path, lines: Sequence[str], form: CsvForm, columns: Sequence[str], names: Sequence[str]
) -> CsvForm:
    """Return the form of a file without a header."""
    _require_names(path, columns, names)
    sample = [line for line in lines[:_SAMPLE_LINES] if line.strip()]
    widths = {sign: {len(_cells(line, sign)) for line in sample} for sign in _DELIMITERS}
    delimiter = next((sign for sign, seen in widths.items() if seen == {len(columns)}), None)
    if delimiter is None:
        most = max(max(seen, default=0) for seen in widths.values())
        raise DatasetRejected(f"{path.name} has rows of {most} cells, and {len(columns)} columns are named: name each")
    document = {**form.model_dump(), "delimiter": delimiter, "decimal": _decimal_sign(lines, delimiter)}
    try:
        return CsvForm.model_validate({**document, "header": False, "columns": tuple(columns)})
    except ValidationError as error:
        raise DatasetRejected(f"the names of columns for {path.name}: {explain(error)}") from error


def _require_names(path: Path, cells: Sequence[str], names: Sequence[str]) -> None:
    bare = [cell.strip() for cell in cells]
    for name in names:
        if name not in bare:
            raise DatasetRejected(f"{path.name} has no column {name!r}{nearest_column(name, bare)}")


def nearest_column(name: str, known: Sequence[str]) -> str:
    """Return the end of a refusal: the nearest known column, or the list of all columns."""
    folds = {fold(each): each for each in reversed(known)}
    near = difflib.get_close_matches(fold(name), list(folds), n=1)
    if near:
        return f": did you mean {folds[near[0]]!r}?"
    names = ", ".join(name for name in known[:12] if name)
    return f": it has {names or 'no columns'}{', …' if len(known) > 12 else ''}"


def _no_header(path: Path, lines: Sequence[str], names: Sequence[str]) -> str:
    """Return the words for a file in which none of the wanted names stands."""
    first = next((line for line in lines if line.strip()), "")
    cells = max((_cells(first, sign) for sign in _DELIMITERS), key=len)
    bare = [cell.strip() for cell in cells]
    if any(_NUMBER.fullmatch(cell) for cell in bare):
        return (
            f"{path.name} has no line of names with {' and '.join(map(repr, names))}: its first line holds numbers "
            "(--no-header --columns a,b,c names the columns of such a file)"
        )
    return (
        f"{path.name} has no column {names[0]!r}{nearest_column(names[0], bare)}"
        if names
        else f"{path.name} has no header"
    )


def _decimal_sign(lines: Sequence[str], delimiter: str) -> Literal[".", ","]:
    if delimiter == ",":
        return "."
    return "," if _decimal_commas(lines[:_SAMPLE_LINES], delimiter) else "."


def _decimal_commas(lines: Iterable[str], delimiter: str) -> bool:
    cells = [cell.strip() for line in lines for cell in _cells(line, delimiter)]
    return any(re.fullmatch(r"[+-]?[0-9]+,[0-9]+", cell) for cell in cells) and not any(
        re.fullmatch(r"[+-]?[0-9]+\.[0-9]+", cell) for cell in cells
    )


def suggest(
    columns: Sequence[ColumnSummary],
    *,
    label: str,
    person: str | None,
    task: LabelTask | None = None,
    also: Sequence[str] = (),
    cuts: Sequence[float] | None = None,
) -> Suggestion:
    """Return a draft for a table's columns.

    Args:
        columns: every column of the file, summarised.
        label: the column to predict; the time, for a survival label.
        person: the column that names the person behind a row.
        task: the label's task; None: classes for few whole numbers or words, a number otherwise.
        also: further columns of the label: the event of a survival label, or the other columns of several labels.
        cuts: the ends of a survival label's intervals; None: suggested from rows.

    Raises:
        DatasetRejected: the label's column is missing or has no use for the task, or no feature is left.
    """
    by_name = {column.name: column for column in columns}
    for wanted in (label, *also, *([person] if person else [])):
        if wanted not in by_name:
            raise DatasetRejected(f"there is no column {wanted!r}{nearest_column(wanted, list(by_name))}")
    features: list[Mapping[str, Any]] = []
    remarks: dict[str, str] = {}
    left_out: dict[str, str] = {}
    inputs: set[str] = set()
    for column in columns:
        if column.name in {label, person, *also}:
            continue
        feature, words = _valid(*_feature(column), inputs)
        if feature is None:
            left_out[column.name] = words
        else:
            features.append(feature)
            remarks[column.name] = words
    if not features:
        raise DatasetRejected(f"no column is left to learn from: {_listed(left_out) or 'there is none but the label'}")
    of_label = [by_name[name] for name in (label, *also)]
    declared, words = _label_of(of_label, task, cuts)
    return Suggestion(declared, features, {**remarks, label: words}, left_out, None)


def suggest_label(
    columns: Sequence[ColumnSummary], *, task: LabelTask | None = None, cuts: Sequence[float] | None = None
) -> Suggestion:
    """Return a draft of the label alone, for examples that are no table, such as images.

    Args:
        columns: the label's columns: the time first, for a survival label.
        task, cuts: as in :func:`suggest`.

    Raises:
        DatasetRejected: the columns have no use for the task.
    """
    declared, words = _label_of(columns, task, cuts)
    return Suggestion(declared, (), {columns[0].name: words}, {}, None)


def _valid(feature: Mapping[str, Any] | None, words: str, inputs: set[str]) -> tuple[Mapping[str, Any] | None, str]:
    """Return the feature if a declaration can hold it, else the reason; add the names of its inputs to ``inputs``."""
    if feature is None:
        return None, words
    try:
        names = _FEATURE.validate_python(feature).inputs
    except ValidationError as error:
        return None, f"cannot be declared: {explain(error)}"
    if inputs & set(names):
        return None, "its inputs would bear the name of another column's: rename the column"
    inputs |= set(names)
    return feature, words


def _feature(column: ColumnSummary) -> tuple[Mapping[str, Any] | None, str]:
    if not column.present:
        return None, "every cell is missing"
    stand_in, extra = column.missing > 0, dict[str, Any]()
    many = len(column.seen) > MAX_CATEGORIES
    if column.is_boolean:
        yes, no = (sorted({fold(word) for word in column.seen if fold(word) in known}) for known in (TRUE, FALSE))
        extra = {"missing": False, "indicator": True} if stand_in else extra
        named = {"name": column.name, "kind": "boolean", "true": yes, "false": no, **extra}
        return named, "spellings suggested from rows"
    if column.is_number:
        if many and column.whole and _ID.fullmatch(column.name):
            return None, "seems to number the rows, or to be an id"
        if not max(abs(column.low), abs(column.high)) <= _MAX_BOUND:
            return None, f"holds numbers beyond {_MAX_BOUND:g}"
        low, high = rounded_out(column.low, column.high)
        middle = min(max(float(f"{column.mean:.3g}"), low), high)
        extra = {"missing": middle, "indicator": True} if stand_in else extra
        words = "range and stand-in suggested from rows" if stand_in else "range suggested from rows"
        return {"name": column.name, "low": low, "high": high, **extra}, words
    if column.days == column.present:
        return _date(column)
    if not many:
        extra = {"missing": "other"} if stand_in else extra
        listed = sorted(column.seen)
        named = {"name": column.name, "kind": "category", "categories": listed, **extra}
        return named, "categories suggested from rows"
    return None, _text(column)


def _text(column: ColumnSummary) -> str:
    """Return why a column of text is left out, and what its owner can do."""
    cell = column.word or column.first_day
    cell = cell if len(cell) <= _MAX_EXAMPLE else f"{cell[:_MAX_EXAMPLE]}…"
    otherwise = 'or declare the column with kind = "category"'
    if column.units:
        return f"cells like {cell!r} are text: {_remove(column.units)}, {otherwise}"
    if 2 * column.numbers > column.present:
        return f"cells like {cell!r} are text among numbers: mend these cells or leave them empty, {otherwise}"
    return f"cells like {cell!r} are text, more than {MAX_CATEGORIES} different ones: name groups of them, {otherwise}"


def _date(column: ColumnSummary) -> tuple[Mapping[str, Any], str]:
    """Return a date as the days since the beginning of the earliest year."""
    since = datetime.date.fromisoformat(column.first_day).replace(month=1, day=1)
    span = (datetime.date.fromisoformat(column.last_day) - since).days
    high = rounded_out(0.0, float(max(span, 1)))[1]
    extra = {"missing": high / 2, "indicator": True} if column.missing else {}
    named = {"name": column.name, "kind": "date", "format": "%Y-%m-%d", "since": since.isoformat()}
    return {**named, "low": 0.0, "high": high, **extra}, "first day and range suggested from rows"


def _label_of(
    columns: Sequence[ColumnSummary], task: LabelTask | None, cuts: Sequence[float] | None
) -> tuple[Mapping[str, Any], str]:
    """Return the ``[label]`` table of one or several columns, and the words on what was suggested from rows.

    Raises:
        DatasetRejected: as :func:`suggest`.
    """
    for column in columns:
        if column.missing:
            rows = f"{column.missing} row{'s' if column.missing != 1 else ''}"
            raise DatasetRejected(f"the label {column.name!r} is missing in {rows}: leave these rows out")
    if task is LabelTask.LABELS:
        return _several(columns)
    if task is LabelTask.SURVIVAL:
        return _survival(columns, cuts)
    if len(columns) > 1:
        raise DatasetRejected(f"task {task or LabelTask.CLASSES} has one label: name one column")
    return _label(columns[0], task)


def _several(columns: Sequence[ColumnSummary]) -> tuple[Mapping[str, Any], str]:
    if len(columns) < 2:
        raise DatasetRejected("several labels need several columns: name each, or take the task of classes")
    for column in columns:
        if not {fold(word) for word in column.seen} <= {*TRUE, *FALSE}:
            raise DatasetRejected(f"the label {column.name!r} is not of yes and no: each of several labels has to be")
    return {"task": "labels", "columns": [column.name for column in columns]}, "yes or no"


def _survival(columns: Sequence[ColumnSummary], cuts: Sequence[float] | None) -> tuple[Mapping[str, Any], str]:
    if len(columns) != 2:
        raise DatasetRejected("a survival label needs two columns: the time, and whether the event ended it")
    time, event = columns
    if not time.is_number or time.low < 0 or not time.high <= _MAX_BOUND:
        raise DatasetRejected(f"the time {time.name!r} has to be a number of at least 0 in every row")
    if not {fold(word) for word in event.seen} <= {*TRUE, *FALSE}:
        raise DatasetRejected(f"the event {event.name!r} has to be yes or no (1 or 0) in every row")
    words = "intervals stated by the owner"
    if cuts is None:
        words, last = "intervals suggested from rows: equal parts of the largest time", rounded_out(0.0, time.high)[1]
        cuts = [last * part / _INTERVALS for part in range(1, _INTERVALS + 1)]
    return {"task": "survival", "column": time.name, "event": event.name, "cuts": [float(cut) for cut in cuts]}, words


def _label(column: ColumnSummary, task: LabelTask | None) -> tuple[Mapping[str, Any], str]:
    few = len(column.seen) <= MAX_CATEGORIES
    if task is None:
        classes = not column.is_number or (few and column.whole)
        task = LabelTask.CLASSES if classes else LabelTask.NUMBER
    if task is LabelTask.CLASSES:
        if not few or len(column.seen) < 2:
            values = f"{_how_many(column)} value{'s' if len(column.seen) != 1 else ''}"
            raise DatasetRejected(f"the label {column.name!r} has {values}: that is no list of classes{_hint(column)}")
        words = sorted(column.seen, key=_in_order)
        if column.is_number and words == [str(number) for number in range(len(words))]:
            return {"column": column.name, "classes": len(words)}, "number of classes suggested from rows"
        return {"column": column.name, "values": words}, "classes suggested from rows"
    if not column.is_number:
        raise DatasetRejected(f"the label {column.name!r} holds words, and the task needs numbers{_hint(column)}")
    if not max(abs(column.low), abs(column.high)) <= _MAX_BOUND:
        raise DatasetRejected(f"the label {column.name!r} holds numbers beyond {_MAX_BOUND:g}")
    if task is LabelTask.COUNT:
        if column.low < 0 or not column.whole:
            raise DatasetRejected(f"the label {column.name!r} is no count: counts are whole numbers from 0")
        high = float(math.ceil(rounded_out(0.0, max(column.high, 1.0))[1]))
        return {"task": "count", "column": column.name, "high": high}, "largest count suggested from rows"
    low, high = rounded_out(column.low, column.high)
    return {"task": "number", "column": column.name, "low": low, "high": high}, "range suggested from rows"


def rounded_out(low: float, high: float) -> tuple[float, float]:
    """Return a range around [low, high] with ends of two significant digits of its width, low below high."""
    largest = max(abs(low), abs(high))
    width = max(high - low or max(abs(high), 1.0), 1e-9 * largest, 1e-12)
    step = 10.0 ** (math.floor(math.log10(width)) - 1)
    outer_low, outer_high = math.floor(low / step) * step, math.ceil(high / step) * step
    if outer_low == outer_high:
        outer_high += step
    digits = max(0, -math.floor(math.log10(step)))
    return min(round(outer_low, digits), low), max(round(outer_high, digits), high)


def _in_order(word: str) -> tuple[int, float, str]:
    return (0, float(word), word) if _NUMBER.fullmatch(word) else (1, 0.0, word)


def _how_many(column: ColumnSummary) -> str:
    return f"more than {MAX_CATEGORIES}" if len(column.seen) > MAX_CATEGORIES else str(len(column.seen))


def _hint(label: ColumnSummary) -> str:
    return f" ({_remove(label.units)})" if label.units else ""


def _remove(units: Sequence[str]) -> str:
    if len(units) == 1:
        return f"remove the unit {units[0]!r} from each cell"
    return f"bring the units {', '.join(map(repr, units))} to one, and remove it from each cell"


def _listed(left_out: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {why}" for name, why in left_out.items())
