"""A person's own earlier rows as features: declared derivations, computed inside the person.

Guarantees:

- *Inside the person.* A person's history depends on that person's rows alone, bit for bit, so a person's contribution
  to a clipped sum does, too, and the privacy accounting does not change.
- *Strictly earlier.* A row sees rows of a smaller order alone; rows of equal order do not see each other.
- *No order of the file.* Permuting the file's rows permutes the result.

Sums are sums of whole numbers. Floating-point cumulative sums over all rows would carry the rounding of one person's
rows into the next person's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from coreason_enclave.datasets.declaration import (
    Declaration,
    Inputs,
    Values,
    require_order,
    to_unit,
)
from coreason_enclave.datasets.spellings import Bound, ColumnName, Why
from coreason_enclave.errors import DatasetRejected
from coreason_enclave.schemas import Flag

MAX_ROWS_PER_PERSON = 1 << 21
_BITS = 40


class Derivation(StrEnum):
    """A number derived from the earlier rows of a person.

    ``lag``: the value in the latest earlier row (the mean of several rows of the same latest order). ``count``: the
    number of earlier rows. ``mean``, ``sum``: of the values. ``share``: the share of earlier rows with a value above 0.
    """

    LAG = "lag"
    COUNT = "count"
    MEAN = "mean"
    SHARE = "share"
    SUM = "sum"


class History(Declaration):
    """A ``[[history]]`` table: a derivation of one column over a person's earlier rows.

    Attributes:
        of: a feature of numbers, booleans or dates, or a column of the label; ``count`` needs no column.
        low, high: the range of the derived number, before ``log``; numbers outside are clipped.
        log: apply log(1 + x) before scaling.
        missing: the derived number of a person's first row; ``low`` if left out.
    """

    name: ColumnName
    derive: Derivation
    of: ColumnName | None = None
    low: Bound
    high: Bound
    log: Flag = False
    missing: Bound | None = None
    why: Why | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require_order(self.low, self.high)
        if self.of is None and self.derive is not Derivation.COUNT:
            raise ValueError(f'needs of = the column behind derive = "{self.derive}"')
        if self.log and self.low < 0:
            raise ValueError("must have low of at least 0 with log = true")
        if self.missing is not None and not self.low <= self.missing <= self.high:
            raise ValueError(f"must have missing within [{self.low:g}, {self.high:g}], got {self.missing:g}")
        return self

    def encode(self, values: Values) -> Inputs:
        """Return the input of derived numbers, float32, (n,) within [-1, 1]; NaN means no earlier row."""
        filled = np.where(np.isnan(values), self.low if self.missing is None else self.missing, values)
        clipped = np.clip(filled, self.low, self.high)
        if not self.log:
            return to_unit(clipped, self.low, self.high)
        return to_unit(np.log1p(clipped), float(np.log1p(self.low)), float(np.log1p(self.high)))


@dataclass(frozen=True)
class EarlierRows:
    """The rows of all persons, sorted by person and order, with the extent of each row's past.

    Attributes:
        rows: positions in the file, int64, (n,), in sorted order.
        first: for each sorted row, the place of its person's first row.
        now: the place of the first row of the same person and order: the past is ``first`` to ``now``, exclusive.
        before: the place of the first row of the latest earlier order; equal to ``now`` without an earlier row.
    """

    rows: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    now: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]

    @classmethod
    def of(cls, persons: npt.NDArray[np.int64], order: Values) -> Self:
        """Sort rows by person and order.

        Args:
            persons: a code for each row, (n,).
            order: finite numbers, (n,).

        Raises:
            DatasetRejected: a person has more than ``MAX_ROWS_PER_PERSON`` rows.
        """
        rows = np.lexsort((order, persons))
        of_person, at = persons[rows], order[rows]
        new_person = np.ones(len(rows), np.bool_)
        new_person[1:] = of_person[1:] != of_person[:-1]
        new_order = new_person.copy()
        new_order[1:] |= at[1:] != at[:-1]
        first, now = _starts(new_person), _starts(new_order)
        if (np.arange(len(rows)) - first >= MAX_ROWS_PER_PERSON).any():
            raise DatasetRejected(f"a person has more than {MAX_ROWS_PER_PERSON} rows: the history cannot be computed")
        before = np.where(now > first, now[now - 1], now)
        return cls(rows, first, now, before)

    def derive(self, derivation: Derivation, values: Values, bound: float) -> Values:
        """Return the derived number of every row in the file's order, (n,); NaN for rows without an earlier row.

        Args:
            values: finite numbers in the file's order, within ``[-bound, bound]``; ignored by ``count``.
            bound: declared, never computed from rows.
        """
        start = self.before if derivation is Derivation.LAG else self.first
        count = self.now - start
        derived = count.astype(np.float64)
        if derivation is Derivation.SHARE:
            values, bound = (values > 0).astype(np.float64), 1.0
        if derivation is not Derivation.COUNT:
            derived = self._sums(values[self.rows], start, bound)
        if derivation not in {Derivation.COUNT, Derivation.SUM}:
            derived = derived / np.maximum(count, 1)
        result = np.empty(len(derived))
        result[self.rows] = np.where(count > 0, derived, np.nan)
        return result

    def _sums(self, values: Values, start: npt.NDArray[np.int64], bound: float) -> Values:
        """Return the sum of sorted values from ``start`` to :attr:`now`, exclusive, in fixed point.

        Two parts of 40 bits hold a value. The cumulative sum of whole numbers may wrap around; the difference of two
        of its places stays exact, so no other person's value changes a bit.
        """
        unit = 2.0 ** (np.ceil(np.log2(max(bound, 1e-300))) - _BITS)
        total = np.zeros(len(values))
        for _ in range(2):
            whole = np.rint(values / unit)
            values = values - whole * unit
            sums = np.zeros(len(values) + 1, np.int64)
            np.cumsum(whole.astype(np.int64), out=sums[1:])
            total += (sums[self.now] - sums[start]).astype(np.float64) * unit
            unit *= 2.0**-_BITS
        return total


def _starts(new: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return for each place the latest place at or before it where a group begins."""
    return np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))
