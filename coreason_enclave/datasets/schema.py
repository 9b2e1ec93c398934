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

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, model_validator

from coreason_enclave.configuration import parse_toml
from coreason_enclave.datasets.columns import AnyFeature, CategoryFeature, DateFeature
from coreason_enclave.datasets.csv_form import CsvForm
from coreason_enclave.datasets.data_format import TENSOR_LABELS, TENSOR_UNITS, DataFormat, TensorFeatures
from coreason_enclave.datasets.declaration import Column, Declaration
from coreason_enclave.datasets.history import Derivation, EarlierRows, History
from coreason_enclave.datasets.labels import Label, LabelTask
from coreason_enclave.datasets.spellings import ColumnName, Conversion, Numbers, from_array
from coreason_enclave.errors import ConfigurationError, DatasetRejected
from coreason_enclave.schemas import Flag, PrivacyUnit, SafeId, SafePath
from coreason_enclave.system import explain


class DatasetSchema(Declaration):
    """The parsed ``dataset.toml``: one dataset at one site.

    ``public`` has no default, because the flag permits use of the dataset without privacy. ``unit_column`` names the
    person behind a row; without the column, every row forms its own unit. ``order_column`` orders a person's rows for
    the derivations in ``history``.
    """

    version: Literal[1]
    dataset_id: SafePath
    format: DataFormat
    file: SafeId
    public: Flag
    unit_column: ColumnName | None = None
    label: Label
    features: Annotated[tuple[AnyFeature, ...], Field(max_length=100_000)] = ()
    tensor: TensorFeatures | None = None
    folder: SafePath | None = None
    image_column: ColumnName | None = None
    resize: Literal["refuse", "stretch"] = "refuse"
    csv: CsvForm | None = None
    order_column: ColumnName | None = None
    history: Annotated[tuple[History, ...], Field(max_length=10_000)] = ()

    later = frozenset({"csv", "order_column", "history", "folder", "image_column", "resize"})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.csv is not None and self.table_format is not DataFormat.CSV:
            raise ValueError(f"takes no [csv] for format {self.format}, and file {self.file}")
        if self.format is DataFormat.IMAGES:
            self._check_images()
        elif (self.folder, self.image_column, self.resize) != (None, None, "refuse"):
            raise ValueError(f"takes no folder, image_column and resize for format {self.format}")
        elif self.format.is_table:
            self._check_table()
            self._check_history()
        else:
            self._check_tensors()
        return self

    def _check_table(self) -> None:
        if not self.features or self.tensor is not None:
            raise ValueError(f"needs [[features]], and no [tensor], for format {self.format}")
        names = [feature.name for feature in self.features]
        columns = [*names, *self.label.reads, *([self.unit_column] if self.unit_column else [])]
        twice = _repeated(columns)
        if twice:
            raise ValueError(
                f"must name every column once, as feature, label or unit; {', '.join(twice)} has two roles"
            )
        starts = {name for feature in self.features for name in feature.reads[1:]}
        forbidden = sorted(starts & {*self.label.reads, *([self.unit_column] if self.unit_column else [])})
        if forbidden:
            raise ValueError(f"must not use label or unit as since_column, as it does with {', '.join(forbidden)}")
        if same := _repeated(self.input_names):
            raise ValueError(f"must give every model input a name of its own; {same[0]!r} occurs twice")

    def _check_images(self) -> None:
        if self.folder is None or self.image_column is None:
            raise ValueError(
                "needs folder and image_column for format images: where the files are, and what names them"
            )
        if self.features or self.history or self.order_column is not None:
            raise ValueError("takes no [[features]] and no [[history]] for format images: the image is the example")
        if self.tensor is None or len(self.tensor.shape) != 3 or self.tensor.shape[0] not in (1, 3):
            raise ValueError("needs [tensor] with shape = [channels, height, width], 1 channel (grey) or 3 (RGB)")
        columns = [self.image_column, *self.label.reads, *([self.unit_column] if self.unit_column else [])]
        if twice := _repeated(columns):
            raise ValueError(f"must name every column once, as image, label or unit; {twice[0]} has two roles")

    def _check_history(self) -> None:
        if (self.order_column is None) != (not self.history):
            raise ValueError("needs order_column and [[history]] together")
        if not self.history:
            return
        if self.unit_column is None:
            raise ValueError("needs unit_column for its [[history]]: a history belongs to a person")
        if self.order_column in {self.unit_column, *self.label.reads}:
            raise ValueError("must not order a person's rows by the label or the person")
        for history in self.history:
            if history.of is not None and self._source(history.of) is None:
                raise ValueError(
                    f"must have of = a feature of numbers, booleans or dates, or a column of the label, in the history "
                    f"{history.name!r}"
                )

    def _check_tensors(self) -> None:
        if self.features or self.tensor is None:
            raise ValueError(f"needs [tensor], and no [[features]], for format {self.format}")
        if self.history or self.order_column is not None:
            raise ValueError(f"takes no [[history]] for format {self.format}: a history is derived from a table")
        if self.label.values is not None:
            raise ValueError(f"takes labels as numbers for format {self.format}: no values")
        if self.label.columns is None and self.label.column != TENSOR_LABELS:
            raise ValueError(f"needs label.column = {TENSOR_LABELS!r} for format {self.format}")
        if self.unit_column not in {None, TENSOR_UNITS}:
            raise ValueError(f"needs unit_column = {TENSOR_UNITS!r} for format {self.format}, or none")

    @property
    def unit(self) -> PrivacyUnit:
        """The privacy unit whose presence training on this dataset can hide."""
        return PrivacyUnit.RECORD if self.unit_column is None else PrivacyUnit.PERSON

    @property
    def table_format(self) -> DataFormat:
        """The format of the table: of images, Parquet if the name of the table of labels ends so, otherwise CSV."""
        if self.format is not DataFormat.IMAGES:
            return self.format
        return DataFormat.PARQUET if self.file.endswith(".parquet") else DataFormat.CSV

    @property
    def csv_form(self) -> CsvForm:
        """The form of a CSV file, with its defaults."""
        return CsvForm() if self.csv is None else self.csv

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one example's features."""
        return (len(self.input_names),) if self.tensor is None else self.tensor.shape

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of a table's model inputs, in order: ``"age"``, ``"age missing"``, ``"site=a"``."""
        names = [name for feature in self.features for name in feature.inputs]
        return (*names, *(history.name for history in self.history))

    @property
    def reads(self) -> tuple[str, ...]:
        """Every column of the table that the declaration needs, once."""
        names = [name for feature in self.features for name in feature.reads]
        further = (self.unit_column, self.order_column, self.image_column)
        names += [*self.label.reads, *(name for name in further if name is not None)]
        return tuple(dict.fromkeys(names))

    @property
    def order_conversion(self) -> Conversion:
        """The reading of ``order_column``: as the feature of the same name, or as numbers."""
        dates = (f for f in self.features if isinstance(f, DateFeature) and f.name == self.order_column)
        return next((feature.conversion for feature in dates), Numbers())

    def derives_from(self) -> Iterator[tuple[History, Column | None, str]]:
        """Yield each history with the feature behind it, or None and a column of the label ("" for ``count``)."""
        for history in self.history:
            source = None if history.of is None else self._source(history.of)
            yield history, source if isinstance(source, Column) else None, history.of or ""

    def _source(self, name: str) -> Column | Label | None:
        feature = next((feature for feature in self.features if feature.name == name), None)
        if feature is not None:
            return None if isinstance(feature, CategoryFeature) else feature
        return self.label if name in self.label.reads and self.label.task is not LabelTask.SURVIVAL else None

    def scale(self, columns: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.float32]:
        """Turn named columns, each of shape (n,), into model inputs of shape (n, *sample_shape).

        Ignores undeclared columns. NaN means a missing number, None or "" a missing text.

        Raises:
            DatasetRejected: a column is absent, of another type or length, infinite, holds an unknown spelling, or has
                missing cells without a declared stand-in.
        """
        if self.tensor is not None:
            raise DatasetRejected(f"dataset {self.dataset_id!r} is a tensor dataset: use scale_tensor")
        absent = [name for name in self._scaled_from if name not in columns]
        if absent:
            raise DatasetRejected(f"columns are missing: {', '.join(absent)}")
        values = [feature.values_of(columns) for feature in self.features]
        if len({len(column) for column in values}) != 1:
            raise DatasetRejected("the columns differ in length")
        inputs = [feature.encode(column) for feature, column in zip(self.features, values, strict=True)]
        return np.concatenate([*inputs, *self._histories(columns)], axis=1)

    @property
    def _scaled_from(self) -> list[str]:
        names = [name for feature in self.features for name in feature.reads]
        if self.history:
            labels = [of for _, feature, of in self.derives_from() if feature is None and of]
            names += [name for name in (self.unit_column, self.order_column, *labels) if name is not None]
        return list(dict.fromkeys(names))

    def _histories(self, columns: Mapping[str, npt.ArrayLike]) -> list[npt.NDArray[np.float32]]:
        if not self.history or self.unit_column is None or self.order_column is None:
            return []
        persons = np.unique(np.asarray(columns[self.unit_column]), return_inverse=True)[1]
        order = from_array(self.order_column, columns[self.order_column], self.order_conversion)
        values: dict[str, npt.NDArray[np.float64]] = {}
        for _, feature, of in self.derives_from():
            if feature is not None:
                values[of] = feature.values_of(columns)
            elif of:
                values[of] = from_array(of, columns[of], self.label.conversion(of))
        return [self.histories(persons.astype(np.int64), order, values)]

    def histories(
        self,
        persons: npt.NDArray[np.int64],
        order: npt.NDArray[np.float64],
        values: Mapping[str, npt.NDArray[np.float64]],
    ) -> npt.NDArray[np.float32]:
        """Return the inputs of all histories, (n, len(history)).

        Args:
            persons: a code for each row, (n,).
            order: the order of a person's rows, (n,), finite.
            values: canonical values of each column that a history derives from, (n,).

        Raises:
            DatasetRejected: a row has no order, or a person too many rows.
        """
        if not np.isfinite(order).all():
            raise DatasetRejected(f"column {self.order_column!r} orders a person's rows: every row needs a value")
        earlier = EarlierRows.of(persons, order)
        inputs = np.empty((len(persons), len(self.history)), np.float32)
        for place, (history, feature, of) in enumerate(self.derives_from()):
            source = self.label if feature is None else feature
            level = source.level(values[of]) if of else np.zeros(len(persons))
            if history.derive is not Derivation.COUNT and not np.isfinite(level).all():
                raise DatasetRejected(f"column {of!r} has missing cells: a history needs a stand-in")
            inputs[:, place] = history.encode(earlier.derive(history.derive, level, _bound(source)))
        return inputs

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


def _repeated(names: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    return sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]


def _bound(source: Column | Label) -> float:
    """Return the largest size of the source's levels, by declaration."""
    if source.declared_range is not None:
        return max(map(abs, source.declared_range))
    return float(source.classes or 1) if isinstance(source, Label) else 1.0


def parse_schema(data: bytes) -> DatasetSchema:
    """Read ``dataset.toml``; raise :class:`DatasetRejected` for any missing, unknown or out-of-range entry."""
    try:
        document = parse_toml(data, "dataset.toml")
    except ConfigurationError as error:
        raise DatasetRejected(str(error)) from error
    try:
        return DatasetSchema.model_validate(document)
    except ValidationError as error:
        raise DatasetRejected(f"dataset.toml: {explain(error, places=_named(document))}") from error


def _named(document: Mapping[str, Any]) -> Callable[[str, int], str]:
    """Return words for an entry of an array of tables: by its name, or by its place from 1."""

    def place(array: str, index: int) -> str:
        tables = document.get(array)
        table = tables[index] if isinstance(tables, list) and index < len(tables) else None
        name = table.get("name") if isinstance(table, dict) else None
        return f"{array} {name!r:.140}" if isinstance(name, str) else f"{array}[{index + 1}]"

    return place
