"""The common form of the tables of ``dataset.toml`` and of a feature: from named columns to model inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, SerializerFunctionWrapHandler, model_serializer, model_validator

from coreason_enclave.datasets.spellings import Bound, ColumnName, Conversion, Numbers, Why, from_array
from coreason_enclave.errors import DatasetRejected
from coreason_enclave.schemas import StrictModel

Values = npt.NDArray[np.float64]
Inputs = npt.NDArray[np.float32]

_OLDEST_ENTRIES = ("low", "high", "name", "missing", "why")


class Declaration(StrictModel):
    """A table of ``dataset.toml``, written back without the entries that older versions did not know.

    An old declaration keeps its bytes when a program writes the declaration again, and the dataset keeps its digest.
    """

    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _written_as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        names = [name for name in document if name not in self.later or getattr(self, name) != fields[name].default]
        names.sort(key=lambda name: _OLDEST_ENTRIES.index(name) if name in _OLDEST_ENTRIES else len(_OLDEST_ENTRIES))
        return {name: document[name] for name in names}


def require_order(low: float, high: float) -> None:
    """Raise ValueError unless ``low < high``."""
    if not low < high:
        raise ValueError(f"must have low below high, got [{low:g}, {high:g}]")


def require_distinct(what: str, texts: Sequence[str]) -> None:
    """Raise ValueError if ``texts`` repeats a text."""
    if len(set(texts)) < len(texts):
        raise ValueError(f"must name each of its {what} once")


def require_indicated(indicator: bool, missing: object) -> None:
    if indicator and missing == "refuse":
        raise ValueError("needs a stand-in as missing for its indicator: no refused cell reaches the model")


class Range(Declaration):
    """A declared public range."""

    low: Bound
    high: Bound

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        require_order(self.low, self.high)
        return self

    def to_unit(self, values: Values) -> Inputs:
        """Map ``[low, high]`` to ``[-1, 1]``, and clip values outside."""
        return to_unit(values, self.low, self.high)


def to_unit(values: Values, low: float, high: float) -> Inputs:
    """Map ``[low, high]`` to ``[-1, 1]``, and clip values outside."""
    clipped = np.clip(values, low, high)
    return ((clipped - low) / (high - low) * 2.0 - 1.0).astype(np.float32)


def number_or_refuse(value: object) -> object:
    """Pass numbers and "refuse" on to pydantic; raise ValueError for anything else."""
    if value == "refuse" or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise ValueError('must be "refuse" or a number')


NumberOrRefuse = Annotated[Literal["refuse"] | Bound, BeforeValidator(number_or_refuse)]


class Column(Declaration):
    """A feature's common form. Canonical values: float64, (n,); NaN for a missing cell."""

    name: ColumnName
    why: Why | None = None

    @property
    def may_miss(self) -> bool:
        """Tell whether a missing cell has a declared stand-in."""
        return getattr(self, "missing", "refuse") != "refuse"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the model inputs."""
        raise NotImplementedError

    @property
    def conversion(self) -> Conversion:
        """The declared reading of a cell."""
        return Numbers()

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns of the file behind the feature."""
        return (self.name,)

    @property
    def declared_range(self) -> tuple[float, float] | None:
        """The range beyond which the encoder clips canonical values; None without a range."""
        return None

    def combine(self, values: Sequence[Values]) -> Values:
        """Return the feature's canonical values from those of the columns in :attr:`reads`."""
        return values[0]

    def values_of(self, columns: Mapping[str, npt.ArrayLike]) -> Values:
        """Return the canonical values of named arrays in memory.

        Raises:
            DatasetRejected: an array has another form, or a cell has no declared meaning.
        """
        return self.combine([from_array(name, columns[name], self.conversion) for name in self.reads])

    def level(self, values: Values) -> Values:
        """Return canonical values with the stand-in for NaN, clipped to the range."""
        raise NotImplementedError

    def encode(self, values: Values) -> Inputs:
        """Return the model inputs of canonical values: float32, (n, len(inputs)).

        Raises:
            DatasetRejected: a value is infinite, or missing without a declared stand-in.
        """
        absent = np.isnan(values)
        if np.isinf(values).any():
            raise DatasetRejected(f"column {self.name!r} holds an infinity: correct the rows")
        if absent.any() and not self.may_miss:
            raise DatasetRejected(f"column {self.name!r} has missing cells: correct the rows, or declare a stand-in")
        inputs = np.zeros((len(values), len(self.inputs)), np.float32)
        self._fill(inputs, self.level(values))
        if getattr(self, "indicator", False):
            inputs[:, -1] = absent
        return inputs

    def _fill(self, inputs: Inputs, levels: Values) -> None:
        """Write the inputs of (n,) levels into zeros of shape (n, len(inputs))."""
        raise NotImplementedError
