"""Declared spellings of cells: names of columns, numbers with decimal signs, categories, booleans and dates.

Each conversion maps one cell to one number, by the declaration alone. :mod:`coreason_enclave.datasets.cells` applies
conversions to whole columns of a file, and :mod:`coreason_enclave.datasets.columns` to arrays in memory.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BeforeValidator, Field, Strict

from coreason_enclave.errors import DatasetRejected
from coreason_enclave.schemas import in_range

MISSING = ("", "na", "n/a", "nan", "null", "none", "<na>")
"""Spellings of a missing cell if ``dataset.toml`` declares none; compared without case and outer spaces."""

TRUE = ("true", "yes", "1", "y", "t")
FALSE = ("false", "no", "0", "n", "f")

MAX_SPELLINGS = 10_000


def _column_name(value: str) -> str:
    if not 1 <= len(value) <= 128 or value != value.strip() or any(unicodedata.category(c)[0] == "C" for c in value):
        raise ValueError("must be 1 to 128 visible characters, without spaces at either end")
    return value


def _spelling(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("must be text or a whole number")
    text = str(value)
    if len(text) > 256 or text != text.strip() or not text:
        raise ValueError("must be 1 to 256 characters, without spaces at either end")
    return text


ColumnName = Annotated[str, Strict(), AfterValidator(_column_name)]
Bound = Annotated[float, *in_range(-1e15, 1e15)]
Count = Annotated[int, Strict(), Field(ge=1, le=1_000_000)]
Spelling = Annotated[str, BeforeValidator(_spelling)]
Why = Annotated[str, Field(max_length=2000)]


class Scale(StrEnum):
    """``range``: [low, high] to [-1, 1]. ``standard``: (x - mean) / deviation, by declared public numbers."""

    RANGE = "range"
    STANDARD = "standard"


def fold(text: str) -> str:
    """Return ``text`` without case, outer spaces and Unicode variants: for comparing names, never for reading."""
    return unicodedata.normalize("NFKC", text).strip().casefold()


@dataclass(frozen=True)
class Numbers:
    """Cells as decimal numbers. The signs of a CSV file follow from its ``[csv]`` table."""


OTHER = -1.0
"""The number of a cell outside the declared list of a category column."""


class Fault(StrEnum):
    """Why a cell has no number under its conversion."""

    UNKNOWN = "unknown"
    NEAR = "near"


@dataclass(frozen=True)
class Spelled:
    """Cells as entries of a list of spellings; a cell's number gives its place in the list.

    Attributes:
        spellings: the declared spellings, with their numbers.
        folded: compare without case and outer spaces (booleans), instead of exactly (categories).
        others: accept further spellings, under the number ``OTHER``.
    """

    spellings: Mapping[str, int]
    folded: bool = False
    others: bool = False

    def read(self, cell: str) -> float | Fault:
        """Return the cell's number. A cell that differs from a spelling by case, spaces or Unicode form is NEAR."""
        if cell in self.spellings:
            return float(self.spellings[cell])
        if self.folded:
            return float(self.spellings[fold(cell)]) if fold(cell) in self.spellings else Fault.UNKNOWN
        if fold(cell) in self._folds:
            return Fault.NEAR
        return OTHER if self.others else Fault.UNKNOWN

    @cached_property
    def _folds(self) -> frozenset[str]:
        return frozenset(map(fold, self.spellings))


def spelled(texts: Sequence[str], *, others: bool = False) -> Spelled:
    """Return the conversion of cells to their place in ``texts``."""
    return Spelled({text: place for place, text in enumerate(texts)}, others=others)


def truth(true: Sequence[str] = TRUE, false: Sequence[str] = FALSE) -> Spelled:
    """Return the conversion of cells to 1.0 (``true``) or 0.0 (``false``), without regard to case."""
    return Spelled({**{fold(text): 1 for text in true}, **{fold(text): 0 for text in false}}, folded=True)


@dataclass(frozen=True)
class Dates:
    """Cells as dates in a declared ``strptime`` format; a cell's number counts days since 1970-01-01."""

    format: str

    def days(self, cell: str) -> float:
        """Return the day of one cell, with its time of day as a fraction; raise ValueError for any other text."""
        moment = datetime.datetime.strptime(cell, self.format)  # noqa: DTZ007 - a table's dates have no zone
        seconds = moment.hour * 3600 + moment.minute * 60 + moment.second + moment.microsecond / 1e6
        return day_of(moment.date()) + seconds / 86_400


Conversion = Numbers | Spelled | Dates

_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()


def day_of(date: datetime.date) -> float:
    """Return the days from 1970-01-01 to ``date``."""
    return float(date.toordinal() - _EPOCH_DAY)


def date_format(value: str) -> str:
    """Return ``value`` if dates written in the format can be read back; raise ValueError otherwise."""
    probes = (datetime.datetime(1931, 2, 28), datetime.datetime(2004, 12, 3))  # noqa: DTZ001
    try:
        kept = all(datetime.datetime.strptime(probe.strftime(value), value).date() == probe.date() for probe in probes)  # noqa: DTZ007
    except (ValueError, re.error):
        kept = False
    if not kept or "%y" in value:
        raise ValueError("must name day, month and a year of four digits, such as '%Y-%m-%d' or '%d.%m.%Y'")
    return value


def from_array(name: str, values: npt.ArrayLike, conversion: Conversion) -> npt.NDArray[np.float64]:
    """Return the numbers of one column in memory, shape (n,); NaN for a missing value.

    Raises:
        DatasetRejected: not one-dimensional, of another type, or a value without a declared meaning.
    """
    array = np.asarray(values)
    if isinstance(conversion, Numbers):
        if array.ndim != 1 or array.dtype.kind not in "fiu":
            raise DatasetRejected(
                f"column {name!r} must be one-dimensional and numeric, got {array.dtype} {array.shape}"
            )
        return array.astype(np.float64)
    if array.ndim != 1:
        raise DatasetRejected(f"column {name!r} must be one-dimensional, got shape {array.shape}")
    if isinstance(conversion, Dates) and array.dtype.kind == "M":
        return _days(array)
    known: dict[str, float] = {}
    return np.array([_one(name, value, conversion, known) for value in array.tolist()], dtype=np.float64)


def _days(array: npt.NDArray[np.datetime64]) -> npt.NDArray[np.float64]:
    seconds = array.astype("datetime64[s]").astype(np.int64) / 86_400
    return np.where(np.isnat(array), np.nan, seconds)


def _one(name: str, value: object, conversion: Spelled | Dates, known: dict[str, float]) -> float:
    text = typed_text(value)
    if text is None or fold(text) in MISSING:
        return np.nan
    if text not in known:
        number = as_number(text, conversion)
        if isinstance(number, Fault):
            raise DatasetRejected(f"column {name!r} holds a value outside its declared spellings: correct the rows")
        known[text] = number
    return known[text]


def as_number(cell: str, conversion: Spelled | Dates) -> float | Fault:
    """Return the number of one present cell."""
    if isinstance(conversion, Spelled):
        return conversion.read(cell)
    try:
        return conversion.days(cell)
    except ValueError:
        return Fault.UNKNOWN


def typed_text(value: object) -> str | None:
    """Return the text of a value in a typed file or array: whole numbers without a point; None if missing."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if np.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return None if value is None else str(value)
