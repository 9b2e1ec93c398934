"""Whole columns of cells as numbers, by declared conversions; cells without a number are counted, never guessed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coreason_enclave.datasets.csv_form import CsvForm
from coreason_enclave.datasets.declaration import Values
from coreason_enclave.datasets.number_text import number_pattern, plain_pattern, signs_of_thousands
from coreason_enclave.datasets.spellings import OTHER, Conversion, Dates, Fault, Numbers, as_number, typed_text
from coreason_enclave.errors import ConfigurationError

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLES = 200
"""Wrong cells of a column kept for the words of a refusal."""

Mask = npt.NDArray[np.bool_]
Where = Callable[[int], str]
"""From a row's place, from 0, to words: "line 17" or "data row 16"."""


def require_pyarrow() -> None:
    """Raise :class:`ConfigurationError` unless pyarrow is installed."""
    try:
        import pyarrow.compute  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigurationError("reading a table needs pyarrow: install aegis-fl[tables]") from error


@dataclass
class Tally:
    """Number of cells of one sort, and the place of the first (row from 0)."""

    count: int = 0
    first: int = -1

    def add(self, mask: Mask, offset: int) -> None:
        """Count the cells of one batch."""
        found = int(mask.sum())
        if found and not self.count:
            self.first = offset + int(mask.argmax())
        self.count += found

    def words(self, where: Where) -> str:
        """Return the count and the first place, as the subject of a sentence."""
        return f"{self.count} cell{'s are' if self.count > 1 else ' is'} (the first in {where(self.first)})"


@dataclass
class ColumnCells:
    """The reader of one column: converts batch after batch, and counts the cells without a number.

    Attributes:
        missing, wrong, near, other: cells without content, without a number, with a careless spelling of a declared
            text, and outside the list of a category column that accepts others.
        worded: wrong cells with letters.
        samples: the first wrong cells, for :mod:`coreason_enclave.datasets.hints`; never shown.
        unfit: the type of a typed column without numbers; an empty text otherwise.
    """

    name: str
    conversion: Conversion
    form: CsvForm
    rows: int = 0
    missing: Tally = field(default_factory=Tally)
    wrong: Tally = field(default_factory=Tally)
    near: Tally = field(default_factory=Tally)
    other: int = 0
    worded: int = 0
    samples: list[str] = field(default_factory=list, repr=False)
    unfit: str = ""

    def read(self, cells: pa.Array, offset: int) -> Values:
        """Return the numbers of one batch, (n,); NaN for cells that are missing or have no number.

        Args:
            cells: one column of the batch, of any type.
            offset: rows before the batch.
        """
        import pyarrow as pa

        self.rows += len(cells)
        types = pa.types
        if isinstance(self.conversion, Numbers):
            if types.is_integer(cells.type) or types.is_floating(cells.type) or types.is_decimal(cells.type):
                return self._typed(cells, offset, lambda: cells.cast(pa.float64(), safe=False))
            if types.is_string(cells.type):
                return self._numbers(cells, offset)
            return self._typed(cells, offset, None)
        if isinstance(self.conversion, Dates) and (types.is_date(cells.type) or types.is_timestamp(cells.type)):
            return self._typed(cells, offset, lambda: _days(cells))
        return self._by_spelling(cells, offset)

    def _typed(self, cells: pa.Array, offset: int, convert: Callable[[], pa.Array] | None) -> Values:
        """Return the numbers of a typed column; without ``convert``, no cell has a number."""
        absent = ~_mask(cells.is_valid())
        if convert is None:
            self.unfit = str(cells.type)
            values = np.full(len(cells), np.nan)
            self._count(absent, ~absent, offset)
            return values
        values = np.asarray(convert().to_numpy(zero_copy_only=False), np.float64)
        absent |= np.isnan(values)
        self._count(absent, np.isinf(values), offset)
        return np.where(np.isinf(values), np.nan, values)

    def _numbers(self, cells: pa.Array, offset: int) -> Values:
        import pyarrow as pa
        import pyarrow.compute as pc

        valid = _mask(pc.fill_null(pc.match_substring_regex(cells, number_pattern(self.form)), False))
        absent = np.zeros(len(cells), np.bool_)
        if not valid.all() or self._numbers_may_be_missing:
            absent = self.absent(cells)
            valid &= ~absent
        text = cells if valid.all() else pc.if_else(pa.array(valid), cells, "0")
        if self.form.thousands:
            text = pc.replace_substring_regex(text, signs_of_thousands(self.form), "")
        if self.form.decimal == ",":
            text = pc.replace_substring(text, ",", ".")
        values = np.asarray(pc.cast(pc.ascii_ltrim(text, "+"), pa.float64()).to_numpy(zero_copy_only=False))
        wrong = (~valid & ~absent) | np.isinf(values)
        self._count(absent, wrong, offset)
        self._sample(cells, wrong)
        return np.where(valid & ~wrong, values, np.nan)

    def _by_spelling(self, cells: pa.Array, offset: int) -> Values:
        """Convert every distinct cell of the batch once."""
        assert not isinstance(self.conversion, Numbers)
        encoded = cells if hasattr(cells, "dictionary") else cells.dictionary_encode()
        numbers, faults = [], []
        for value in encoded.dictionary.to_pylist():
            text = typed_text(value)
            number = np.nan if text is None else as_number(text, self.conversion)
            if isinstance(number, Fault) or number == OTHER:
                number = np.nan if text is not None and self._is_missing(text) else number
            numbers.append(np.nan if isinstance(number, Fault) else number)
            faults.append(number if isinstance(number, Fault) else "")
        place = encoded.indices.fill_null(len(numbers)).to_numpy(zero_copy_only=False)
        values = np.array([*numbers, np.nan])[place]
        fault = np.array([*faults, ""], dtype=object)[place]
        wrong, near = np.asarray(fault == Fault.UNKNOWN, np.bool_), np.asarray(fault == Fault.NEAR, np.bool_)
        self._count(np.isnan(values) & ~wrong & ~near, wrong, offset)
        self.near.add(near, offset)
        self.other += int((values == OTHER).sum())
        self._sample(cells, wrong)
        return np.asarray(values)

    def absent(self, cells: pa.Array) -> Mask:
        """Return a mask of missing cells of a column of text."""
        import pyarrow as pa
        import pyarrow.compute as pc

        spellings = pa.array(sorted(self.form.missing_folds), pa.string())
        bare = pc.utf8_lower(pc.utf8_trim_whitespace(cells))
        return _mask(pc.is_in(bare, value_set=spellings)) | ~_mask(cells.is_valid())

    def _is_missing(self, text: str) -> bool:
        return text.strip().casefold() in self.form.missing_folds

    @cached_property
    def _numbers_may_be_missing(self) -> bool:
        return any(plain_pattern(self.form).fullmatch(text) for text in self.form.missing_folds)

    def _count(self, absent: Mask, wrong: Mask, offset: int) -> None:
        self.missing.add(absent, offset)
        self.wrong.add(wrong, offset)

    def _sample(self, cells: pa.Array, wrong: Mask) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if not wrong.any():
            return
        found = cells.filter(pa.array(wrong))
        if pa.types.is_string(found.type):
            self.worded += int(_mask(pc.match_substring_regex(found, r"\pL")).sum())
        if len(self.samples) < SAMPLES:
            self.samples += [text for text in map(typed_text, found[:SAMPLES].to_pylist()) if text is not None]


def _days(cells: pa.Array) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    seconds = cells.cast(pa.timestamp("us", tz=getattr(cells.type, "tz", None))).cast(pa.int64()).cast(pa.float64())
    return pc.divide(seconds, 86_400e6)


def _mask(array: pa.Array) -> Mask:
    return np.array(array.to_numpy(zero_copy_only=False), np.bool_)
