"""Rows from a table: every cell converted by its declared rule, batch by batch, with every problem named by column.

A reader that guesses types, indices or missing values would give the same bytes different meanings on different days.
This reader never guesses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from coreason_enclave.datasets.arrays import GrowingArray
from coreason_enclave.datasets.cells import ColumnCells, Tally, Where
from coreason_enclave.datasets.declaration import Column, Values
from coreason_enclave.datasets.hints import cell_problem, toml
from coreason_enclave.datasets.history import Derivation, EarlierRows
from coreason_enclave.datasets.problems import DatasetSchemaRejected, Remedy, Rows, SchemaProblem
from coreason_enclave.datasets.schema import DatasetSchema
from coreason_enclave.datasets.spellings import Conversion
from coreason_enclave.datasets.units import PersonCodes
from coreason_enclave.errors import DatasetRejected

if TYPE_CHECKING:
    import pyarrow as pa

_LABEL, _ORDER = "[label]", "[order]"

_MOST_VALUES_SHOWN = 20

FEWEST_FOR_WARNING = 20
MOST_CLIPPED = 0.99


class Table(Protocol):
    """A file's rows in batches: ``{column: array}`` with every column of :attr:`DatasetSchema.reads`."""

    def __iter__(self) -> Iterator[Mapping[str, pa.Array]]: ...

    def where(self, row: int) -> str:
        """Return the words for a data row, from 0, once all batches have been read."""


def read_table(schema: DatasetSchema, table: Table) -> Rows:
    """Convert all rows of ``table``; raise :class:`DatasetSchemaRejected` with every problem."""
    reader = TableReader(schema)
    for batch in table:
        reader.take(batch)
    return reader.finish(table.where)


def _roles(schema: DatasetSchema, labels: Sequence[str]) -> Iterator[tuple[str, str, Conversion]]:
    """Yield each role that a column plays, the column, and the conversion of its cells."""
    for feature in schema.features:
        for name in feature.reads:
            yield feature.name, name, feature.conversion
    for name in labels:
        yield _LABEL, name, schema.label.conversion(name)
    if schema.order_column is not None:
        yield _ORDER, schema.order_column, schema.order_conversion


def columns_of_label(schema: DatasetSchema, *, labelled: bool) -> tuple[str, ...]:
    """Return the label's columns to read: all of them, or without labels the columns behind histories alone."""
    reads = schema.label.reads
    return reads if labelled else tuple(name for name in reads if any(name == each.of for each in schema.history))


class TableReader:
    """Converts a table batch by batch.

    Args:
        labelled: every row needs a label. Otherwise labels are read for histories alone, and may miss in rows that no
            history looks back on.
        group: a further column, whose codes are kept in :attr:`groups`.
    """

    def __init__(self, schema: DatasetSchema, *, labelled: bool = True, group: str | None = None) -> None:
        self._schema, self._labelled = schema, labelled
        self._label_columns = columns_of_label(schema, labelled=labelled)
        self._cells = {
            (role, name): ColumnCells(name, conversion, schema.csv_form)
            for role, name, conversion in _roles(schema, self._label_columns)
        }
        self._inputs = GrowingArray(np.float32, (len(schema.input_names),))
        self._labels = GrowingArray[Any](schema.label.y_dtype, schema.label.y_shape)
        self._persons = None if schema.unit_column is None else PersonCodes(schema.unit_column, schema.csv_form)
        self._order = GrowingArray(np.float64)
        self._sources = {of: GrowingArray(np.float64) for history in schema.history if (of := history.of) is not None}
        self._groups = None if group is None else PersonCodes(group, schema.csv_form)
        self._unknown = GrowingArray(np.float64)
        self._wrong_labels = {name: Tally() for name in self._label_columns}
        self._clipped = {feature.name: 0 for feature in schema.features}
        self._label_span = (np.inf, -np.inf)
        self._rows = 0

    def take(self, batch: Mapping[str, pa.Array]) -> None:
        """Convert one batch."""
        rows = len(batch[self._schema.reads[0]])
        if not rows:
            return
        self._take_features(batch, rows)
        self._take_labels(batch)
        if self._persons is not None:
            self._persons.read(batch[self._persons.name], self._rows)
        if self._groups is not None:
            self._groups.read(batch[self._groups.name], self._rows)
        if self._schema.order_column is not None:
            self._order.append(self._read(_ORDER, self._schema.order_column, batch))
        self._rows += rows

    def _read(self, role: str, name: str, batch: Mapping[str, pa.Array]) -> Values:
        return self._cells[role, name].read(batch[name], self._rows)

    def _take_features(self, batch: Mapping[str, pa.Array], rows: int) -> None:
        inputs, at = self._inputs.extend(rows), 0
        for feature in self._schema.features:
            values = feature.combine([self._read(feature.name, name, batch) for name in feature.reads])
            if feature.declared_range is not None:
                low, high = feature.declared_range
                self._clipped[feature.name] += int(((values < low) | (values > high)).sum())
            width = len(feature.inputs)
            present = (
                values if feature.may_miss else np.nan_to_num(values)
            )  # a missing cell refuses the file at its end
            inputs[:, at : at + width] = feature.encode(present)
            at += width
            if feature.name in self._sources:
                self._sources[feature.name].append(present)

    def _take_labels(self, batch: Mapping[str, pa.Array]) -> None:
        label, values = self._schema.label, dict[str, Values]()
        for name in self._label_columns:
            numbers = self._read(_LABEL, name, batch)
            wrong = label.wrong(name, numbers)
            low, high = self._label_span
            self._label_span = float(np.fmin.reduce(numbers, initial=low)), float(np.fmax.reduce(numbers, initial=high))
            self._wrong_labels[name].add(wrong, self._rows)
            values[name] = np.where(wrong | np.isnan(numbers), 0.0, numbers)
            if name in self._sources:
                self._sources[name].append(values[name])
                if not self._labelled:
                    self._unknown.append(np.isnan(numbers).astype(np.float64))
        if self._labelled:
            self._labels.append(label.labels(values))

    def finish(self, where: Where) -> Rows:
        """Return all rows.

        Raises:
            DatasetSchemaRejected: any cell had no declared meaning.
        """
        persons, _ = self.codes(where)
        inputs = self._inputs.finish()
        if self._schema.history and persons is not None:
            inputs[:, -len(self._schema.history) :] = self.histories(persons)
        return Rows(inputs, self._labels.finish(), persons, tuple(self._warnings()))

    def drain(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any] | None]:
        """Return inputs and labels (None: without labels) since the last call, and forget them; no histories yet."""
        inputs, labels = self._inputs.finish(), self._labels.finish()
        self._inputs = GrowingArray(np.float32, self._schema.sample_shape)
        self._labels = GrowingArray[Any](self._schema.label.y_dtype, self._schema.label.y_shape)
        return inputs, labels if self._labelled else None

    def codes(self, where: Where) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None]:
        """Return the codes of persons and of groups, each (n,) or None for no such column.

        Raises:
            DatasetSchemaRejected: any cell had no declared meaning.
        """
        problems = self._problems(where)
        persons, groups = (
            None if reader is None else reader.finish(problems, where) for reader in (self._persons, self._groups)
        )
        if problems:
            raise DatasetSchemaRejected(self._schema.dataset_id, problems)
        return persons, groups

    def histories(self, persons: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the inputs of all histories, (n, histories); call once, after the last batch.

        Raises:
            DatasetSchemaRejected: a history cannot be computed, or looks back on a row without a label.
        """
        order = self._order.finish()
        values = {name: source.finish() for name, source in self._sources.items()}
        try:
            self._require_known(persons, order)
            return self._schema.histories(persons, order, values)
        except DatasetRejected as error:
            raise DatasetSchemaRejected(self._schema.dataset_id, [SchemaProblem(None, str(error))]) from None

    def _require_known(self, persons: npt.NDArray[np.int64], order: Values) -> None:
        unknown = self._unknown.finish().reshape(-1, len(persons)) if len(persons) else np.empty((0, 0))
        for missing in unknown:
            earlier = EarlierRows.of(persons, order).derive(Derivation.SUM, missing, 1.0)
            if np.nansum(earlier) > 0:
                raise DatasetRejected("a history looks back on rows without a label: only a person's last may lack one")

    def _problems(self, where: Where) -> list[SchemaProblem]:
        problems: list[SchemaProblem] = []
        for feature in self._schema.features:
            for name in feature.reads:
                cells = self._cells[feature.name, name]
                problems += cell_problem(self._schema, feature, cells, where)
                if not feature.may_miss and cells.missing.count:
                    words = f"{cells.missing.words(where)} missing, which the schema does not allow"
                    problems.append(SchemaProblem(name, words))
        problems += self._label_problems(where)
        if self._schema.order_column is not None:
            cells = self._cells[_ORDER, self._schema.order_column]
            if cells.missing.count or cells.wrong.count:
                missing = cells.missing if cells.missing.count else cells.wrong
                words = f"{missing.words(where)} missing or not a number: every row needs its place in the order"
                problems.append(SchemaProblem(self._schema.order_column, words))
        return list(dict.fromkeys(problems))

    def _label_problems(self, where: Where) -> list[SchemaProblem]:
        problems: list[SchemaProblem] = []
        label = self._schema.label
        for name in self._label_columns:
            cells = self._cells[_LABEL, name]
            problems += cell_problem(self._schema, label, cells, where)
            if cells.missing.count and self._labelled:
                problems.append(SchemaProblem(name, f"{cells.missing.words(where)} missing: every row needs a label"))
            wrong = self._wrong_labels[name]
            if wrong.count:
                problems.append(self._wrong_label(name, f"{wrong.words(where)} {label.requirement(name)}"))
        return problems

    def _wrong_label(self, name: str, words: str) -> SchemaProblem:
        classes, (low, high) = self._schema.label.classes, self._label_span
        if classes is None or low != 1 or high != classes or classes > _MOST_VALUES_SHOWN:
            return SchemaProblem(name, words)
        values = toml(tuple(str(place) for place in range(1, classes + 1)))
        return SchemaProblem(name, f"{words}; the classes seem to start at 1", Remedy("label", (f"values = {values}",)))

    def _warnings(self) -> Iterable[str]:
        for feature in self._schema.features:
            cells = self._cells[feature.name, feature.name]
            present = cells.rows - cells.missing.count
            if present < FEWEST_FOR_WARNING:
                continue
            clipped = self._clipped[feature.name]
            if clipped > MOST_CLIPPED * present:
                yield _clipped_words(feature, clipped, present)
            if cells.other > MOST_CLIPPED * present:
                yield f"column {feature.name!r}: {cells.other} of {present} cells are outside its declared categories"


def _clipped_words(feature: Column, clipped: int, present: int) -> str:
    low, high = feature.declared_range or (0.0, 0.0)
    return (
        f"column {feature.name!r}: {clipped} of {present} values lie outside [{low:g}, {high:g}] and are clipped: "
        "is the range in the column's own unit?"
    )
