"""Typed problems with a dataset's content, for the site's own log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coreason_enclave.errors import DatasetRejected, Reason

_SHOWN = 20


@dataclass(frozen=True)
class Remedy:
    """Entries of ``dataset.toml`` that would read the file.

    Attributes:
        table: the table of the entries: ``csv``, ``label``, a feature's name, or an empty text for the top.
        entries: lines of TOML.
    """

    table: str
    entries: tuple[str, ...]

    def __str__(self) -> str:
        lines = " and ".join(f"`{entry}`" for entry in self.entries)
        place = {"": "at the top", "csv": "below [csv]", "label": "below [label]"}
        return f"write {lines} {place.get(self.table, f'in [[features]] {self.table!r}')} of dataset.toml"


@dataclass(frozen=True)
class SchemaProblem:
    """A problem with a column, or with the whole dataset if ``column`` is None. The text never quotes a cell."""

    column: str | None
    problem: str
    remedy: Remedy | None = None

    def __str__(self) -> str:
        text = self.problem if self.remedy is None else f"{self.problem}: {self.remedy}"
        return text if self.column is None else f"column {self.column!r}: {text}"


class DatasetSchemaRejected(DatasetRejected):
    """Raised if the rows do not have the form that the dataset declares. ``problems`` stay at the site."""

    def __init__(self, dataset_id: str, problems: Sequence[SchemaProblem]) -> None:
        self.problems = tuple(problems)
        listed = "; ".join(str(problem) for problem in self.problems[:_SHOWN])
        more = f"; and {len(self.problems) - _SHOWN} more" if len(self.problems) > _SHOWN else ""
        super().__init__(f"dataset {dataset_id!r} is refused: {listed}{more}", reason=Reason.DATASET_SCHEMA)


@dataclass(frozen=True)
class Rows:
    """A reader's result: model inputs, labels, unit codes if the dataset declares units, and words for the site."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]
    unit_ids: npt.NDArray[np.int64] | None
    warnings: tuple[str, ...] = ()
