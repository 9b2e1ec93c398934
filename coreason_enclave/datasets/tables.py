"""Rows from CSV: a header line, a line for each row, and every cell read as text and converted by the declared rule.

A CSV reader that guesses types, indices or missing values would give the same bytes different meanings on different
days. This reader never guesses.
"""

from __future__ import annotations

import io
import re
import unicodedata
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coreason_enclave.datasets.problems import DatasetSchemaRejected, Rows, SchemaProblem
from coreason_enclave.datasets.schema import DatasetSchema, Feature
from coreason_enclave.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "<na>"})
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.0*)?")

Text = npt.NDArray[np.object_]


def read_table(schema: DatasetSchema, data: bytes) -> Rows:
    """Parse CSV ``data`` (UTF-8) as declared; raise :class:`DatasetSchemaRejected` with every problem."""
    columns = _declared_columns(schema, _parse(schema, data))
    problems: list[SchemaProblem] = []
    features = {feature.name: _feature(feature, columns[feature.name], problems) for feature in schema.features}
    labels = _labels(schema, columns[schema.label.column], problems)
    unit_ids = _units(schema.unit_column, columns[schema.unit_column], problems) if schema.unit_column else None
    if problems:
        raise DatasetSchemaRejected(schema.dataset_id, problems)
    return Rows(schema.scale(features), labels, unit_ids)


def _parse(schema: DatasetSchema, data: bytes) -> pandas.DataFrame:
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ConfigurationError("reading CSV needs pandas: install aegis-fl[tables]") from error
    if b"\0" in data:
        raise _refused(schema, "the file holds NUL bytes: it is not a text file")
    try:
        # Read the header as a row: pandas would rename a repeated column, and take a surplus cell for an index.
        return pandas.read_csv(
            io.BytesIO(data),
            header=None,
            dtype=str,
            na_filter=False,
            encoding="utf-8-sig",
            on_bad_lines="error",
        )
    except pandas.errors.EmptyDataError:
        raise _refused(schema, "the file is empty") from None
    except UnicodeDecodeError:
        raise _refused(schema, "the file is not UTF-8") from None
    except pandas.errors.ParserError as error:
        raise _refused(schema, f"the file is not a table: {str(error).strip()}") from error


def _declared_columns(schema: DatasetSchema, table: pandas.DataFrame) -> dict[str, Text]:
    names = [str(name) for name in table.iloc[0]]
    declared = [feature.name for feature in schema.features] + [schema.label.column]
    declared += [schema.unit_column] if schema.unit_column else []
    problems = [SchemaProblem(name, "occurs more than once") for name in dict.fromkeys(names) if names.count(name) > 1]
    problems += [SchemaProblem(name, "is missing") for name in declared if name not in names]
    if len(table) < 2:
        problems.append(SchemaProblem(None, "the file has a header, but no rows"))
    if problems:
        raise DatasetSchemaRejected(schema.dataset_id, problems)
    body = table.iloc[1:]
    return {name: body[names.index(name)].to_numpy(dtype=object) for name in declared}


def _feature(feature: Feature, cells: Text, problems: list[SchemaProblem]) -> npt.NDArray[np.float64]:
    absent, numbers = _numbers(feature.name, cells, problems)
    if feature.missing == "refuse" and absent.any():
        problems.append(
            SchemaProblem(feature.name, f"{_describe_cells(absent)} missing, which the schema does not allow")
        )
    return numbers


def _labels(schema: DatasetSchema, cells: Text, problems: list[SchemaProblem]) -> npt.NDArray[np.int64]:
    name, classes = schema.label.column, schema.label.classes
    absent, numbers = _numbers(name, cells, problems)
    if absent.any():
        problems.append(SchemaProblem(name, f"{_describe_cells(absent)} missing: every row needs a label"))
    known = np.isin(numbers, np.arange(classes)) | np.isnan(numbers)
    if not known.all():
        problems.append(SchemaProblem(name, f"{_describe_cells(~known)} not a whole number from 0 to {classes - 1}"))
    return np.where(np.isnan(numbers) | ~known, 0, numbers).astype(np.int64)


def _units(name: str, cells: Text, problems: list[SchemaProblem]) -> npt.NDArray[np.int64]:
    absent = _missing(cells)
    if absent.any():
        problems.append(SchemaProblem(name, f"{_describe_cells(absent)} missing: every row needs the id of its person"))
    spellings, codes = np.unique(cells.astype(str), return_inverse=True)
    # Two spellings of one person would count as two persons, each protected alone: weaker than the declared guarantee.
    persons: dict[str, str] = {}
    for spelling in spellings.tolist():
        if persons.setdefault(_person(spelling), spelling) != spelling:
            problems.append(SchemaProblem(name, "the same unit id is written in different ways: use one spelling"))
            break
    return codes.astype(np.int64)


def _person(spelling: str) -> str:
    text = unicodedata.normalize("NFKC", spelling).strip().casefold()
    return str(int(text.partition(".")[0])) if _PLAIN_NUMBER.fullmatch(text) else text


def _numbers(
    name: str, cells: Text, problems: list[SchemaProblem]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Return a mask of missing cells, and every cell as a float; NaN if missing or not a finite number."""
    absent = _missing(cells)
    values = np.array([_number(cell) for cell in cells], dtype=np.float64)
    wrong = ~np.isfinite(values) & ~absent
    if wrong.any():
        problems.append(SchemaProblem(name, f"{_describe_cells(wrong)} not a finite number"))
    return absent, np.where(np.isfinite(values), values, np.nan)


def _number(cell: object) -> float:
    return float(cell) if isinstance(cell, str) and _NUMBER.fullmatch(cell) else np.nan


def _missing(cells: Text) -> npt.NDArray[np.bool_]:
    return np.array([not isinstance(cell, str) or cell.strip().casefold() in _MISSING for cell in cells])


def _describe_cells(rows: npt.NDArray[np.bool_]) -> str:
    count, first = int(rows.sum()), int(rows.argmax()) + 1
    return f"{count} cell{'s are' if count > 1 else ' is'} (the first in data row {first})"


def _refused(schema: DatasetSchema, problem: str) -> DatasetSchemaRejected:
    return DatasetSchemaRejected(schema.dataset_id, [SchemaProblem(None, problem)])
