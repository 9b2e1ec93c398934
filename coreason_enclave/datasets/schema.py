"""The declaration of a dataset, ``dataset.toml``, and the scaling that follows from the declared ranges.

Only declared, public ranges scale the features. A mean or a maximum of private rows would be a release of its own, and
would differ between sites. The same code scales a public evaluation set.

>>> schema = parse_schema(b'''
... version = 1
... dataset_id = "clinic/visits"
... format = "csv"
... file = "rows.csv"
... public = false
... unit_column = "patient"
... [label]
... column = "visited"
... classes = 2
... [[features]]
... name = "age"
... low = 0.0
... high = 100.0
... ''')
>>> schema.unit, schema.sample_shape
(<PrivacyUnit.PERSON: 'person'>, (1,))
>>> schema.scale({"age": [0, 50, 130]}).ravel().tolist()
[-1.0, 0.0, 1.0]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, Strict, model_validator

from coreason_enclave.configuration import parse_toml
from coreason_enclave.errors import ConfigurationError, DatasetRejected
from coreason_enclave.schemas import PrivacyUnit, SafeId, SafePath, StrictModel, explained

ColumnName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:()/ -]*\z")]
Bound = Annotated[float, Strict(), Field(ge=-1e15, le=1e15)]
Count = Annotated[int, Strict(), Field(ge=1, le=1_000_000)]
Flag = Annotated[bool, Strict()]

TENSOR_LABELS = "y"
TENSOR_UNITS = "unit"


class DataFormat(StrEnum):
    """``csv``: a header line and a line for each row. ``safetensors``: arrays ``x``, ``y`` and optionally ``unit``."""

    CSV = "csv"
    SAFETENSORS = "safetensors"


class _Range(StrictModel):
    low: Bound
    high: Bound

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"must have low below high, got [{self.low:g}, {self.high:g}]")
        return self

    def to_unit(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Map ``[low, high]`` to ``[-1, 1]``, and clip values outside."""
        clipped = np.clip(values, self.low, self.high)
        return ((clipped - self.low) / (self.high - self.low) * 2.0 - 1.0).astype(np.float32)


class Feature(_Range):
    """A column, its declared public range, and the meaning of an empty cell.

    ``missing`` either equals ``"refuse"`` (an empty cell refuses the dataset) or gives a constant, in the column's own
    unit, to replace the empty cell. ``why`` records the source of the range, for readers who must trust that the range
    was not computed from the rows.
    """

    name: ColumnName
    missing: Literal["refuse"] | Bound = "refuse"
    why: Annotated[str, Field(max_length=2000)] | None = None

    @model_validator(mode="after")
    def _missing_is_in_range(self) -> Self:
        if self.missing != "refuse" and not self.low <= self.missing <= self.high:
            raise ValueError(f"must have missing within [{self.low:g}, {self.high:g}], got {self.missing:g}")
        return self

    def scale(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Scale one column of shape (n,); NaN means missing. Raise :class:`DatasetRejected` on unusable values."""
        if np.isinf(values).any():
            raise DatasetRejected(f"column {self.name!r} holds an infinity: correct the rows")
        absent = np.isnan(values)
        if self.missing == "refuse":
            if absent.any():
                raise DatasetRejected(
                    f"column {self.name!r} has missing cells: correct the rows, or declare a value for missing cells "
                    "(missing)"
                )
            return self.to_unit(values)
        return self.to_unit(np.where(absent, self.missing, values))


class TensorFeatures(_Range):
    """The shape of one example of a tensor dataset, and the declared public range of all its values."""

    shape: Annotated[tuple[Count, ...], Field(min_length=1, max_length=4)]


class Label(StrictModel):
    """The column to predict: whole numbers from 0 to ``classes - 1``."""

    column: ColumnName
    classes: Annotated[int, Strict(), Field(ge=2, le=10_000)]


class DatasetSchema(StrictModel):
    """The parsed ``dataset.toml``: one dataset at one site.

    ``public`` has no default, because the flag permits use of the dataset without privacy. ``unit_column`` names the
    person behind a row; without the column, every row forms its own unit.
    """

    version: Literal[1]
    dataset_id: SafePath
    format: DataFormat
    file: SafeId
    public: Flag
    unit_column: ColumnName | None = None
    label: Label
    features: Annotated[tuple[Feature, ...], Field(max_length=100_000)] = ()
    tensor: TensorFeatures | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check = self._check_csv if self.format is DataFormat.CSV else self._check_tensors
        check()
        return self

    def _check_csv(self) -> None:
        if not self.features or self.tensor is not None:
            raise ValueError("needs [[features]], and no [tensor], for format csv")
        names = [feature.name for feature in self.features]
        columns = [*names, self.label.column, *([self.unit_column] if self.unit_column else [])]
        duplicates = sorted({name for name in columns if columns.count(name) > 1})
        if duplicates:
            raise ValueError(
                f"must name every column once, as feature, label or unit, but {', '.join(duplicates)} has two roles"
            )

    def _check_tensors(self) -> None:
        if self.features or self.tensor is None:
            raise ValueError("needs [tensor], and no [[features]], for format safetensors")
        if self.label.column != TENSOR_LABELS or self.unit_column not in (None, TENSOR_UNITS):
            raise ValueError(
                f"needs label.column {TENSOR_LABELS!r}, and either unit_column {TENSOR_UNITS!r} or no unit_column"
            )

    @property
    def unit(self) -> PrivacyUnit:
        """The privacy unit whose presence training on this dataset can hide."""
        return PrivacyUnit.RECORD if self.unit_column is None else PrivacyUnit.PERSON

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one example's features."""
        return (len(self.features),) if self.tensor is None else self.tensor.shape

    def scale(self, columns: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.float32]:
        """Scale named columns, each of shape (n,), to features of shape (n, d) within [-1, 1].

        Ignores all columns except features. NaN means a missing cell.

        Raises:
            DatasetRejected: a column is absent, not numeric, of another length, infinite, or has missing cells without
                a declared stand-in.
        """
        if self.tensor is not None:
            raise DatasetRejected(f"dataset {self.dataset_id!r} is a tensor dataset: use scale_tensor")
        absent = [feature.name for feature in self.features if feature.name not in columns]
        if absent:
            raise DatasetRejected(f"columns are missing: {', '.join(absent)}")
        scaled = [feature.scale(_numeric(feature.name, columns[feature.name])) for feature in self.features]
        if len({len(column) for column in scaled}) != 1:
            raise DatasetRejected("the columns differ in length")
        return np.stack(scaled, axis=1)

    def scale_tensor(self, values: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Scale a tensor of shape (n, *sample_shape) to [-1, 1]; raise :class:`DatasetRejected` on unusable values."""
        if self.tensor is None:
            raise DatasetRejected(f"dataset {self.dataset_id!r} is a table: use scale")
        array = np.asarray(values, dtype=np.float64)
        if array.shape[1:] != self.tensor.shape:
            raise DatasetRejected(f"examples must have shape {self.tensor.shape}, got {array.shape[1:]}")
        if not np.isfinite(array).all():
            raise DatasetRejected("the tensor holds values that are not finite: correct the rows")
        return self.tensor.to_unit(array)


@dataclass(frozen=True)
class DatasetExpectation:
    """A caller's requirements for a dataset; ``None`` accepts any value."""

    sample_shape: tuple[int, ...] | None = None
    classes: int | None = None
    unit: PrivacyUnit | None = None
    public: bool | None = None

    def unmet_by(self, schema: DatasetSchema) -> tuple[str, ...]:
        """Return each expectation that ``schema`` does not meet, in words."""
        expectations: tuple[tuple[str, object, object], ...] = (
            ("sample_shape", self.sample_shape, schema.sample_shape),
            ("classes", self.classes, schema.label.classes),
            ("unit", self.unit, schema.unit),
            ("public", self.public, schema.public),
        )
        return tuple(
            f"{name} must be {expected}, but the dataset has {actual}"
            for name, expected, actual in expectations
            if expected is not None and expected != actual
        )


def parse_schema(data: bytes) -> DatasetSchema:
    """Read ``dataset.toml``; raise :class:`DatasetRejected` for any missing, unknown or out-of-range entry."""
    try:
        document = parse_toml(data, "dataset.toml")
    except ConfigurationError as error:
        raise DatasetRejected(str(error)) from error
    with explained(lambda why: DatasetRejected(f"dataset.toml: {why}")):
        return DatasetSchema.model_validate(document)


def _numeric(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise DatasetRejected(f"column {name!r} must be one-dimensional and numeric, got {array.dtype} {array.shape}")
    return array.astype(np.float64)
