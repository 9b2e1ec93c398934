"""Features of a table: numbers, categories, booleans and dates, each with its declared public range or list.

A feature turns the cells of a row into one or several model inputs. Every rule follows from ``dataset.toml``: no mean,
no maximum and no list of categories ever comes from private rows.

>>> site = CategoryFeature(kind="category", name="site", categories=("a", "b"))
>>> site.inputs
('site=a', 'site=b', 'site=other')
>>> site.encode(site.values_of({"site": ["b", "z"]})).tolist()
[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from coreason_enclave.datasets.declaration import (
    Column,
    Inputs,
    NumberOrRefuse,
    Values,
    require_distinct,
    require_indicated,
    require_order,
    to_unit,
)
from coreason_enclave.datasets.spellings import (
    FALSE,
    MAX_SPELLINGS,
    OTHER,
    TRUE,
    Bound,
    ColumnName,
    Dates,
    Scale,
    Spelled,
    Spelling,
    date_format,
    day_of,
    fold,
    spelled,
    truth,
)
from coreason_enclave.schemas import Flag

DAYS_PER_YEAR = 365.25
MAX_STANDARDISED = 1e4
"""The largest size of a standardised input: a tiny deviation would make one row drown all others."""


def _flag_or_refuse(value: object) -> object:
    if value == "refuse" or isinstance(value, bool):
        return value
    raise ValueError('must be "refuse", true or false')


def _iso_date(value: object) -> object:
    if value is None or type(value) is datetime.date:
        return value
    try:
        return datetime.date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("must be a day such as 1974-01-31") from None


def _kind_of(value: object) -> str:
    kind = value.get("kind", "number") if isinstance(value, Mapping) else getattr(value, "kind", "number")
    return kind if isinstance(kind, str) else ""


class _Ranged(Column):
    """A column of quantities. ``missing`` equals ``"refuse"`` or gives a constant, in the range and in its unit."""

    low: Bound
    high: Bound
    missing: NumberOrRefuse = "refuse"
    indicator: Flag = False

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        require_order(self.low, self.high)
        if self.missing != "refuse" and not self.low <= self.missing <= self.high:
            raise ValueError(f"must have missing within [{self.low:g}, {self.high:g}], got {self.missing:g}")
        require_indicated(self.indicator, self.missing)
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the model inputs."""
        return (self.name, f"{self.name} missing") if self.indicator else (self.name,)

    @property
    def declared_range(self) -> tuple[float, float]:
        """The range beyond which the encoder clips canonical values."""
        return self.low, self.high

    def level(self, values: Values) -> Values:
        """Return canonical values with the stand-in for NaN, clipped to the range."""
        if self.missing != "refuse":
            values = np.where(np.isnan(values), self.missing, values)
        return np.clip(values, self.low, self.high)

    def _fill(self, inputs: Inputs, levels: Values) -> None:
        inputs[:, 0] = to_unit(levels, self.low, self.high)


class Feature(_Ranged):
    """A column of numbers, its declared public range, and the meaning of an empty cell.

    ``missing`` either equals ``"refuse"`` (an empty cell refuses the dataset) or gives a constant, in the column's own
    unit, to replace the empty cell. ``indicator`` adds an input of 1.0 for replaced cells. ``why`` records the source
    of the range, for readers who must trust that the range was not computed from the rows.

    ``input = false`` keeps the column from the model: only histories read it. A number that becomes known during the
    predicted year can enter as the past alone.
    """

    kind: Literal["number"] = "number"
    scale: Scale = Scale.RANGE
    mean: Bound | None = None
    deviation: Bound | None = None
    input: Flag = True

    later = frozenset({"kind", "indicator", "scale", "mean", "deviation", "input"})

    @model_validator(mode="after")
    def _standard_is_declared(self) -> Self:
        if self.indicator and not self.input:
            raise ValueError("takes no indicator with input = false: the model never sees the column")
        standard = self.scale is Scale.STANDARD
        if standard and (self.mean is None or self.deviation is None or self.deviation <= 0):
            raise ValueError('needs mean and deviation (above 0) for scale = "standard": public numbers, declared here')
        if not standard and (self.mean is not None or self.deviation is not None):
            raise ValueError('needs scale = "standard" for its mean and deviation')
        if self.mean is not None and self.deviation is not None:
            farthest = max(abs(self.low - self.mean), abs(self.high - self.mean))
            if farthest > MAX_STANDARDISED * self.deviation:
                raise ValueError(f"must have [low, high] within {MAX_STANDARDISED:g} deviations of its mean")
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the model inputs; none for a column that only histories read."""
        return super().inputs if self.input else ()

    def _fill(self, inputs: Inputs, levels: Values) -> None:
        if not self.input:
            return
        if self.mean is None or self.deviation is None:
            super()._fill(inputs, levels)
        else:
            inputs[:, 0] = (levels - self.mean) / self.deviation


class CategoryFeature(Column):
    """A column of categories from a declared list: one input of 0.0 or 1.0 for each, and perhaps one for the others.

    ``other`` adds a last input for spellings outside the list; without it, they refuse the dataset. ``missing`` equals
    ``"refuse"``, ``"other"`` or a category.
    """

    kind: Literal["category"]
    categories: Annotated[tuple[Spelling, ...], Field(min_length=1, max_length=MAX_SPELLINGS)]
    other: Flag = True
    missing: Spelling = "refuse"
    indicator: Flag = False

    later = frozenset({"indicator"})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require_distinct("categories", self.categories)
        if "refuse" in self.categories or (self.other and "other" in self.categories):
            raise ValueError('must not list "refuse", nor "other" next to other = true, among its categories')
        if self.missing not in {"refuse", *self.categories, *(["other"] if self.other else [])}:
            raise ValueError('must have missing = "refuse", "other" (with other = true) or one of its categories')
        require_indicated(self.indicator, self.missing)
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the model inputs."""
        names = [*self.categories, *(["other"] if self.other else [])]
        return (*(f"{self.name}={name}" for name in names), *([f"{self.name} missing"] if self.indicator else []))

    @property
    def conversion(self) -> Spelled:
        """The declared reading of a cell."""
        return spelled(self.categories, others=self.other)

    def level(self, values: Values) -> Values:
        """Return the place of each category among the inputs."""
        last = float(len(self.categories))
        known = np.where(values == OTHER, last, values)
        if self.missing == "refuse":
            return known
        place = float(self.categories.index(self.missing)) if self.missing in self.categories else last
        return np.where(np.isnan(known), place, known)

    def _fill(self, inputs: Inputs, levels: Values) -> None:
        inputs[np.arange(len(levels)), levels.astype(np.int64)] = 1.0


class BooleanFeature(Column):
    """A column of yes and no: 1.0 and -1.0. Spellings are compared without case. ``missing``: refuse, true or false."""

    kind: Literal["boolean"]
    true: Annotated[tuple[Spelling, ...], Field(min_length=1, max_length=100)] = TRUE
    false: Annotated[tuple[Spelling, ...], Field(min_length=1, max_length=100)] = FALSE
    missing: Annotated[Literal["refuse"] | Flag, BeforeValidator(_flag_or_refuse)] = "refuse"
    indicator: Flag = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        require_distinct("true and false", [fold(text) for text in (*self.true, *self.false)])
        require_indicated(self.indicator, self.missing)
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the model inputs."""
        return (self.name, f"{self.name} missing") if self.indicator else (self.name,)

    @property
    def conversion(self) -> Spelled:
        """The declared reading of a cell."""
        return truth(self.true, self.false)

    def level(self, values: Values) -> Values:
        """Return 1.0 for yes and 0.0 for no."""
        return values if self.missing == "refuse" else np.where(np.isnan(values), float(self.missing), values)

    def _fill(self, inputs: Inputs, levels: Values) -> None:
        inputs[:, 0] = levels * 2.0 - 1.0


class DateFeature(_Ranged):
    """A column of dates as a duration since a declared day, or since the date in another column of the row."""

    kind: Literal["date"]
    format: Annotated[str, AfterValidator(date_format)]
    since: Annotated[datetime.date | None, BeforeValidator(_iso_date)] = None
    since_column: ColumnName | None = None
    unit: Literal["days", "years"] = "days"

    later = frozenset({"indicator"})

    @model_validator(mode="after")
    def _has_a_beginning(self) -> Self:
        if (self.since is None) == (self.since_column is None):
            raise ValueError('needs one of since (a day such as "1974-01-01") and since_column')
        if self.since_column == self.name:
            raise ValueError("needs another column than its own as since_column")
        return self

    @property
    def conversion(self) -> Dates:
        """The declared reading of a cell."""
        return Dates(self.format)

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the file behind the feature."""
        return (self.name,) if self.since_column is None else (self.name, self.since_column)

    def combine(self, values: Sequence[Values]) -> Values:
        """Return durations in the declared unit (a year of 365.25 days)."""
        start = values[1] if self.since is None else day_of(self.since)
        return (values[0] - start) / (DAYS_PER_YEAR if self.unit == "years" else 1.0)


AnyFeature = Annotated[
    Annotated[Feature, Tag("number")]
    | Annotated[CategoryFeature, Tag("category")]
    | Annotated[BooleanFeature, Tag("boolean")]
    | Annotated[DateFeature, Tag("date")],
    Discriminator(_kind_of),
]
