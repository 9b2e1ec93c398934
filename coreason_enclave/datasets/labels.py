"""Labels of a table: classes, yes-or-no lists, numbers, counts and survival times, each with a declared range.

>>> label = Label(task="survival", column="days", event="died", cuts=(30, 90, 365))
>>> label.encode({"days": [30, 31, 400], "died": [1, 0, 1]}).tolist()
[[0, 1], [1, 0], [3, 0]]
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, Strict, model_validator

from coreason_enclave.datasets.declaration import Declaration, Values, require_distinct, require_order, to_unit
from coreason_enclave.datasets.spellings import (
    MAX_SPELLINGS,
    Bound,
    ColumnName,
    Conversion,
    Numbers,
    Spelled,
    Spelling,
    from_array,
    spelled,
    truth,
)
from coreason_enclave.errors import DatasetRejected
from coreason_enclave.schemas import in_range

LabelArray = npt.NDArray[Any]
"""int64 or float32; :attr:`Label.y_dtype` and :attr:`Label.y_shape` say which, and of which shape."""


class LabelTask(StrEnum):
    """The form of a label. The entries that each form takes: :data:`_ENTRIES`."""

    CLASSES = "classes"
    LABELS = "labels"
    NUMBER = "number"
    COUNT = "count"
    SURVIVAL = "survival"


_ENTRIES: Mapping[LabelTask, tuple[frozenset[str], frozenset[str]]] = {
    LabelTask.CLASSES: (frozenset({"column", "classes"}), frozenset({"values"})),
    LabelTask.LABELS: (frozenset({"columns"}), frozenset({"values"})),
    LabelTask.NUMBER: (frozenset({"column", "low", "high"}), frozenset()),
    LabelTask.COUNT: (frozenset({"column", "high"}), frozenset()),
    LabelTask.SURVIVAL: (frozenset({"column", "event", "cuts"}), frozenset({"values"})),
}
"""Each task's required and optional entries."""


class Label(Declaration):
    """The columns to predict.

    - ``classes``: whole numbers from 0 to ``classes - 1``, or the spellings ``values`` in order;
    - ``labels``: several columns of yes and no (``values``: the spellings of no and yes);
    - ``number``: clipped to [low, high], scaled to [-1, 1];
    - ``count``: whole numbers from 0, clipped at ``high``;
    - ``survival``: the time in ``column``, and in ``event`` whether the event ended it. ``cuts`` end the intervals
      (0, 30], (30, 90], ...; a time of 0 belongs to the first. A label is the number of intervals lived through, and 1
      for an event in the next one. An event after the last cut counts as a life through all intervals.
    """

    column: ColumnName | None = None
    classes: Annotated[int, Strict(), Field(ge=2, le=MAX_SPELLINGS)] | None = None
    task: LabelTask = LabelTask.CLASSES
    values: Annotated[tuple[Spelling, ...], Field(min_length=2, max_length=MAX_SPELLINGS)] | None = None
    columns: Annotated[tuple[ColumnName, ...], Field(min_length=2, max_length=1000)] | None = None
    low: Bound | None = None
    high: Bound | None = None
    event: ColumnName | None = None
    cuts: Annotated[tuple[Annotated[float, *in_range(0, 1e9, open_low=True)], ...], Field(max_length=1000)] | None = (
        None
    )

    later = frozenset({"task", "values", "columns", "low", "high", "event", "cuts"})

    @model_validator(mode="before")
    @classmethod
    def _count_values(cls, document: Any) -> Any:
        if isinstance(document, Mapping) and document.get("task", "classes") == "classes":
            values = document.get("values")
            if "classes" not in document and isinstance(values, list | tuple):
                return {**document, "classes": len(values)}
        return document

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        required, optional = _ENTRIES[self.task]
        given = {name for name in type(self).model_fields if name != "task" and getattr(self, name) is not None}
        for name in sorted(required - given):
            raise ValueError(f'needs {name} for task = "{self.task}"' + _or_values(name))
        for name in sorted(given - required - optional):
            raise ValueError(f'takes no {name} for task = "{self.task}"')
        self._check_values()
        if self.task is LabelTask.NUMBER and self.low is not None and self.high is not None:
            require_order(self.low, self.high)
        if self.task is LabelTask.COUNT and self.high is not None and (self.high < 1 or not self.high.is_integer()):
            raise ValueError("must have a whole number of at least 1 as high of its counts")
        if self.task is LabelTask.SURVIVAL:
            if not self.cuts or list(self.cuts) != sorted(set(self.cuts)):
                raise ValueError("must have cuts in rising order, at least one")
            if self.event == self.column:
                raise ValueError("needs two columns: the time, and whether the event ended it")
        return self

    def _check_values(self) -> None:
        if self.values is not None:
            require_distinct("values", self.values)
            wanted = self.classes if self.task is LabelTask.CLASSES else 2
            if len(self.values) != wanted:
                raise ValueError(f"must have {wanted} values, one for each class, got {len(self.values)}")
        if self.columns is not None:
            require_distinct("columns", self.columns)

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the file behind the label."""
        if self.columns is not None:
            return self.columns
        return tuple(name for name in (self.column, self.event) if name is not None)

    @property
    def outputs(self) -> int:
        """Number of model outputs: 1, classes, columns or intervals."""
        if self.classes is not None:
            return 1 if self.classes == 2 else self.classes
        return len(self.columns or self.cuts or (None,))

    @property
    def y_shape(self) -> tuple[int, ...]:
        """The shape of one row's label."""
        if self.columns is not None:
            return (len(self.columns),)
        return (2,) if self.task is LabelTask.SURVIVAL else ()

    @property
    def y_dtype(self) -> np.dtype[Any]:
        """int64 for classes and survival, float32 for labels, numbers and counts."""
        whole = self.task in {LabelTask.CLASSES, LabelTask.SURVIVAL}
        return np.dtype(np.int64 if whole else np.float32)

    def conversion(self, column: str) -> Conversion:
        """Return the declared reading of the cells of one of the columns in :attr:`reads`."""
        if self.task is LabelTask.CLASSES:
            return Numbers() if self.values is None else spelled(self.values)
        if self.task is LabelTask.LABELS or column == self.event:
            return self._truth()
        return Numbers()

    def _truth(self) -> Spelled:
        return truth() if self.values is None else spelled(self.values)

    def wrong(self, column: str, values: Values) -> npt.NDArray[np.bool_]:
        """Return a mask of present values that are no label."""
        present = ~np.isnan(values)
        if self.task is LabelTask.CLASSES and self.classes is not None:
            within: npt.NDArray[np.bool_] = (values >= 0) & (values < self.classes) & (values == np.floor(values))
            return present & ~within
        if self.task is LabelTask.COUNT:
            counts: npt.NDArray[np.bool_] = (values >= 0) & (values == np.floor(values))
            return present & ~counts
        if self.task is LabelTask.SURVIVAL and column == self.column:
            return present & ~(values >= 0)
        return np.zeros(len(values), np.bool_)

    def requirement(self, column: str) -> str:
        """Return the rule behind :meth:`wrong`, in words."""
        if self.task is LabelTask.CLASSES and self.classes is not None:
            return f"not a whole number from 0 to {self.classes - 1}"
        return "not a time of at least 0" if column == self.column and self.cuts else "not a whole number of at least 0"

    def labels(self, values: Mapping[str, Values]) -> LabelArray:
        """Return labels of shape (n, *y_shape) from checked canonical values, (n,) for each column."""
        if self.columns is not None:
            return np.stack([values[name] for name in self.columns], axis=1).astype(np.float32)
        of_column = values[self.column or ""]
        if self.task is LabelTask.NUMBER and self.low is not None and self.high is not None:
            return to_unit(of_column, self.low, self.high)
        if self.task is LabelTask.COUNT and self.high is not None:
            return np.minimum(of_column, self.high).astype(np.float32)
        if self.task is LabelTask.SURVIVAL:
            return self._survival(of_column, values[self.event or ""])
        return of_column.astype(np.int64)

    def _survival(self, times: Values, events: Values) -> LabelArray:
        cuts, event = np.array(self.cuts, np.float64), events == 1
        # An event at a cut lies in the interval that ends there; a row censored at a cut has lived through it.
        within, lived = (np.searchsorted(cuts, times, side=side) for side in ("left", "right"))
        seen = event & (within < len(cuts))
        return np.stack([np.where(seen, within, lived), seen], axis=1).astype(np.int64)

    def encode(self, columns: Mapping[str, npt.ArrayLike]) -> LabelArray:
        """Return the labels of named arrays in memory, each of shape (n,).

        Raises:
            DatasetRejected: a column is absent, or a value is missing or no label.
        """
        values = {}
        for name in self.reads:
            if name not in columns:
                raise DatasetRejected(f"column {name!r} is missing: every row needs a label")
            values[name] = from_array(name, columns[name], self.conversion(name))
            if np.isnan(values[name]).any():
                raise DatasetRejected(f"column {name!r} has missing cells: every row needs a label")
            if self.wrong(name, values[name]).any():
                raise DatasetRejected(f"column {name!r} holds values that are {self.requirement(name)}")
        return self.labels(values)

    def level(self, values: Values) -> Values:
        """Return canonical values as quantities within the declared range, for a person's history."""
        if self.low is not None or self.high is not None:
            return np.clip(values, 0.0 if self.low is None else self.low, self.high)
        return values

    @property
    def declared_range(self) -> tuple[float, float] | None:
        """The range beyond which :meth:`labels` clips; None for labels that are not clipped."""
        if self.high is None:
            return None
        return (0.0 if self.low is None else self.low), self.high


def _or_values(name: str) -> str:
    return ", or values = the spellings of the classes in order" if name == "classes" else ""
