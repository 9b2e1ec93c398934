"""Words and remedies for cells without a number: judged from a sample after the refusal, never while reading."""

from __future__ import annotations

import datetime
import itertools
import json
from collections.abc import Iterable, Sequence

from coreason_enclave.datasets.cells import ColumnCells, Where
from coreason_enclave.datasets.columns import BooleanFeature, CategoryFeature, Feature
from coreason_enclave.datasets.csv_form import CsvForm
from coreason_enclave.datasets.data_format import DataFormat
from coreason_enclave.datasets.declaration import Column
from coreason_enclave.datasets.labels import Label
from coreason_enclave.datasets.number_text import plain_pattern
from coreason_enclave.datasets.problems import Remedy, SchemaProblem
from coreason_enclave.datasets.schema import DatasetSchema
from coreason_enclave.datasets.spellings import FALSE, MISSING, TRUE, Dates, Spelled

COMMON_MISSING = (
    *(".", "..", "-", "--", "\\N", "?", "*", "#N/A", "#NULL!", "#DIV/0!", "#VALUE!", "(null)", "<null>", "nil"),
    *("n.a.", "n/d", "nd", "missing", "unknown", "unk", "not available", "k.A.", "undefined"),
)
DATE_FORMATS = (
    *("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%d-%b-%Y", "%d %b %Y"),
    *("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%d.%m.%Y %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"),
)


_KIND_BOOLEAN = 'kind = "boolean" in place of low and high'
_KIND_CATEGORY = 'kind = "category" with its categories, or leave the column out'


def toml(value: object) -> str:
    """Return ``value`` (text, flag, whole number or list of texts) in TOML."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def cell_problem(
    schema: DatasetSchema, owner: Column | Label, cells: ColumnCells, where: Where
) -> Iterable[SchemaProblem]:
    """Yield the problems of a column's cells without a number, each with what the cells seem to be."""
    if cells.near.count:
        yield SchemaProblem(
            cells.name,
            f"{cells.near.words(where)} a declared spelling in other case, or with spaces: settle on one spelling",
        )
    if not cells.wrong.count:
        return
    subject = cells.wrong.words(where)
    if isinstance(cells.conversion, Spelled):
        yield SchemaProblem(cells.name, f"{subject} {_unlisted(owner)}")
    elif isinstance(cells.conversion, Dates):
        yield _wrong_dates(owner, cells, subject)
    else:
        yield _wrong_numbers(schema, owner, cells, where)


def _unlisted(owner: Column | Label) -> str:
    if isinstance(owner, BooleanFeature):
        return "neither true nor false: list their spellings in true = [...] and false = [...]"
    if isinstance(owner, CategoryFeature):
        return "in none of its categories: list the missing ones, or write other = true"
    return "none of the declared values: list every spelling in values = [...], in the order of the classes"


def _wrong_dates(owner: Column | Label, cells: ColumnCells, subject: str) -> SchemaProblem:
    formats = date_formats(cells.samples)
    written = cells.conversion.format if isinstance(cells.conversion, Dates) else ""
    text = f"{subject} no date written as {written}"
    if len(formats) == 1 and isinstance(owner, Column):
        return SchemaProblem(cells.name, text, Remedy(owner.name, (f"format = {toml(formats[0])}",)))
    if formats:
        return SchemaProblem(cells.name, f"{text}: write the format that holds, {' or '.join(map(toml, formats))}")
    return SchemaProblem(cells.name, text)


def _wrong_numbers(schema: DatasetSchema, owner: Column | Label, cells: ColumnCells, where: Where) -> SchemaProblem:
    text = f"{cells.wrong.words(where)} not a finite number"
    if cells.unfit:
        return SchemaProblem(cells.name, f"the column holds {cells.unfit}, and dataset.toml declares numbers")
    ways = number_signs(cells.samples, schema.csv_form) if schema.table_format is DataFormat.CSV else []
    if len(ways) == 1:
        return SchemaProblem(cells.name, text + _and_stand_in(owner, ways[0]), Remedy("csv", ways[0]))
    if ways:
        either = " or ".join(f"`{' and '.join(way)}`" for way in ways)
        return SchemaProblem(cells.name, f"{text}: write the one that holds, {either}, below [csv] of dataset.toml")
    other = _other_kind(owner, cells)
    return SchemaProblem(cells.name, text if other is None else f"{other[0]} {_in_cells(cells, where)}: {other[1]}")


def _in_cells(cells: ColumnCells, where: Where) -> str:
    present = cells.rows - cells.missing.count
    return f"in {cells.wrong.count} of {present} cells (the first in {where(cells.wrong.first)}), not finite numbers"


def _and_stand_in(owner: Column | Label, entries: Sequence[str]) -> str:
    if any(entry.startswith("missing") for entry in entries):
        refuses = isinstance(owner, Feature) and not owner.may_miss
        return ", but the spelling of a missing cell" + (" (which needs missing = a constant)" if refuses else "")
    return ""


def _other_kind(owner: Column | Label, cells: ColumnCells) -> tuple[str, str] | None:
    """Return what the wrong cells hold, and what to declare instead."""
    label = isinstance(owner, Label)
    folds = {text.strip().casefold() for text in cells.samples}
    if folds and folds <= {*TRUE, *FALSE}:
        values = "values = [...], the spellings of the classes in order"
        return "holds yes and no as words", f"declare {values if label else _KIND_BOOLEAN}"
    formats = date_formats(cells.samples)
    if formats and not label:
        written = " or ".join(map(toml, formats))
        return "holds dates", f'declare kind = "date" with format = {written}, and since or since_column'
    if cells.worded and cells.worded == cells.wrong.count and _are_words(cells.samples):
        instead = "values = [...], the spellings of the classes in order" if label else _KIND_CATEGORY
        return "holds words", f"declare {instead}"
    return None


def _are_words(samples: Sequence[str]) -> bool:
    """Tell whether most samples begin with a letter: not ``0x10``, ``1e999`` or ``12 kg``."""
    words = [
        text for text in samples if text.strip()[:1].isalpha() and text.strip().casefold() not in {"inf", "infinity"}
    ]
    return 2 * len(words) > len(samples)


def date_formats(samples: Sequence[str]) -> list[str]:
    """Return the usual date formats that read every sample."""

    def reads(text: str, written: str) -> bool:
        try:
            datetime.datetime.strptime(text, written)  # noqa: DTZ007
        except ValueError:
            return False
        return True

    return [written for written in DATE_FORMATS if samples and all(reads(text, written) for text in samples)]


def number_signs(samples: Sequence[str], form: CsvForm) -> list[tuple[str, ...]]:
    """Return the smallest changes of ``[csv]`` that read every sample, each as entries of TOML."""
    extra = [
        spelling for spelling in COMMON_MISSING if spelling.casefold() in {text.strip().casefold() for text in samples}
    ]
    found: dict[int, list[tuple[str, ...]]] = {}
    if not samples:
        return []
    for decimal, thousands, trim, missing in itertools.product(
        ".,", ["", *",. '"], [form.trim, True], [False, bool(extra)]
    ):
        if decimal == thousands:
            continue
        other = form.model_copy(update={"decimal": decimal, "thousands": thousands, "trim": trim})
        if not all(_reads(text, other, extra if missing else []) for text in samples):
            continue
        entries = [
            f"{name} = {toml(value)}"
            for name, value in (("decimal", decimal), ("thousands", thousands), ("trim", trim))
            if value != getattr(form, name)
        ]
        if missing:
            entries.append(f"missing = {toml((*(MISSING if form.missing is None else form.missing), *extra))}")
        if entries and tuple(entries) not in found.setdefault(len(entries), []):
            found[len(entries)].append(tuple(entries))
    return found[min(found)] if found else []


def _reads(text: str, form: CsvForm, missing: Sequence[str]) -> bool:
    bare = text.strip() if form.trim else text
    if bare.strip().casefold() in {spelling.casefold() for spelling in missing}:
        return True
    return plain_pattern(form).fullmatch(bare) is not None
