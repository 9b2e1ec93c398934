"""The data dictionary of a study: what every site's dataset has to declare, published by the study's owner.

``dictionary.toml`` holds the part of ``dataset.toml`` that all sites share: features, label, histories, unit of
privacy. It names no file and no form of a file, since each site keeps its rows as it likes.

>>> from coreason_enclave.datasets import parse_schema
>>> schema = parse_schema(b'''
... version = 1
... dataset_id = "clinic/visits"
... format = "csv"
... file = "rows.csv"
... public = false
... unit_column = "patient"
... label = { column = "visited", classes = 2 }
... features = [{ name = "age", low = 0.0, high = 100.0 }]
... ''')
>>> dictionary = DataDictionary.of(schema)
>>> dictionary.differences(schema)
()
>>> wider = schema.model_copy(update={"features": (schema.features[0].model_copy(update={"high": 120.0}),)})
>>> dictionary.differences(wider)
("feature 'age': high is 120.0, the dictionary says 100.0",)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import Field

from coreason_enclave.configuration import read_toml_as
from coreason_enclave.datasets.columns import AnyFeature
from coreason_enclave.datasets.csv_form import CsvForm
from coreason_enclave.datasets.data_format import TENSOR_LABELS, TENSOR_UNITS, DataFormat, TensorFeatures
from coreason_enclave.datasets.declaration import Declaration
from coreason_enclave.datasets.history import History
from coreason_enclave.datasets.labels import Label
from coreason_enclave.datasets.schema import DatasetSchema
from coreason_enclave.datasets.spellings import ColumnName
from coreason_enclave.errors import ConfigurationError, DatasetRejected
from coreason_enclave.schemas import PrivacyUnit, SafePath, SiteUnit, explained

_SHARED = ("label", "features", "tensor", "order_column", "history")


class DataDictionary(Declaration):
    """The parsed ``dictionary.toml``.

    Attributes:
        unit: the privacy unit that every site has to be able to hide.
        unit_column: the usual name of the column with the person; a site may use another name.
    """

    version: Literal[1]
    dataset_id: SafePath
    unit: SiteUnit
    unit_column: ColumnName | None = None
    label: Label
    features: Annotated[tuple[AnyFeature, ...], Field(max_length=100_000)] = ()
    tensor: TensorFeatures | None = None
    order_column: ColumnName | None = None
    history: Annotated[tuple[History, ...], Field(max_length=10_000)] = ()

    @classmethod
    def of(cls, schema: DatasetSchema) -> Self:
        """Return the dictionary of a site's declaration."""
        shared = {name: getattr(schema, name) for name in _SHARED}
        return cls(version=1, dataset_id=schema.dataset_id, unit=schema.unit, unit_column=schema.unit_column, **shared)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``dictionary.toml``.

        Raises:
            DatasetRejected: the file cannot be read, or has a missing, unknown or out-of-range entry.
        """
        try:
            dictionary = read_toml_as(path, cls)
        except ConfigurationError as error:
            raise DatasetRejected(str(error)) from error
        dictionary.declaration(file="rows", public=False)
        return dictionary

    def write(self) -> str:
        """Return ``dictionary.toml``."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True, exclude_defaults=False))

    def declaration(
        self,
        *,
        file: str,
        public: bool,
        data_format: DataFormat | None = None,
        csv: CsvForm | None = None,
        folder: str | None = None,
        image_column: str | None = None,
    ) -> DatasetSchema:
        """Return a declaration of rows in ``file`` that fits the dictionary.

        Args:
            data_format: None for CSV; for a tensor npz, or images if label or person are columns of a table.
            folder, image_column: where the images are and what names them, at one site; None for images: any.

        Raises:
            DatasetRejected: the dictionary's parts contradict each other.
        """
        found = data_format or self._usual_format
        if found is DataFormat.IMAGES:
            folder, image_column = folder or "images", image_column or self._free_name()
        document = {
            "version": 1,
            "dataset_id": self.dataset_id,
            "format": found,
            "folder": folder,
            "image_column": image_column,
            "file": file,
            "public": public,
            "unit_column": self._unit_column(),
            "csv": csv,
            **{name: getattr(self, name) for name in _SHARED},
        }
        with explained(lambda why: DatasetRejected(f"the data dictionary {why}")):
            return DatasetSchema.model_validate(document)

    @property
    def _usual_format(self) -> DataFormat:
        if self.tensor is None:
            return DataFormat.CSV
        of_arrays = self.label.column in {None, TENSOR_LABELS} and self._unit_column() in {None, TENSOR_UNITS}
        return DataFormat.NPZ if of_arrays and self.label.values is None else DataFormat.IMAGES

    def _free_name(self) -> str:
        """Return a name that no other column of the table bears."""
        taken = {*self.label.reads, self._unit_column()}
        return next(name for name in ("image", *(f"image {n}" for n in range(len(taken)))) if name not in taken)

    def _unit_column(self) -> str | None:
        if self.unit is PrivacyUnit.RECORD:
            return None
        return self.unit_column or "person"

    def differences(self, schema: DatasetSchema) -> tuple[str, ...]:
        """Return one line for each difference of a site's declaration from the dictionary; none if it fits.

        Remarks (``why``), the rows' file and the name of the person's column may differ.
        """
        return tuple(self._differences(schema))

    def _differences(self, schema: DatasetSchema) -> Iterator[str]:
        theirs = DataDictionary.of(schema)
        if schema.dataset_id != self.dataset_id:
            yield f"dataset_id is {schema.dataset_id!r}, the dictionary says {self.dataset_id!r}"
        if schema.unit != self.unit:
            yield f"the unit of privacy is one {schema.unit}, the dictionary says one {self.unit}"
        yield from _changed("label", _plain(schema.label), _plain(self.label))
        yield from _changed("tensor", _plain(schema.tensor), _plain(self.tensor))
        if schema.order_column != self.order_column:
            yield f"order_column is {schema.order_column!r}, the dictionary says {self.order_column!r}"
        for word in ("features", "history"):
            singular = word.removesuffix("s")
            yield from _tables(singular, _by_name(theirs, word), _by_name(self, word))


def _tables(word: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{word} {name!r} is missing" for name in there if name not in here)
    yield from (f"{word} {name!r} is not in the dictionary" for name in here if name not in there)
    for name in there.keys() & here.keys():
        yield from _changed(f"{word} {name!r}", here[name], there[name])
    if here.keys() == there.keys() and list(here) != list(there):
        yield f"the order of {word} entries differs: the dictionary has {', '.join(there)}"


def _changed(word: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[str]:
    for entry in dict.fromkeys((*there, *here)):
        if here.get(entry) != there.get(entry):
            yield f"{word}: {entry} is {here.get(entry)!r}, the dictionary says {there.get(entry)!r}"


def _by_name(dictionary: DataDictionary, word: str) -> dict[str, Any]:
    return {entry.name: _plain(entry) for entry in getattr(dictionary, word)}


def _plain(table: Declaration | None) -> dict[str, Any]:
    if table is None:
        return {}
    kind = {"kind": table.kind} if hasattr(table, "kind") else {}  # left out of documents as a default
    return {**kind, **table.model_dump(mode="json", exclude={"why"})}
