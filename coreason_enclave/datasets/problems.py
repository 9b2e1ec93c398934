"""Typed problems with a dataset's content, for the site's own log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coreason_enclave.errors import DatasetRejected, Reason

_SHOWN = 20


@dataclass(frozen=True)
class SchemaProblem:
    """A problem with a column, or with the whole dataset if ``column`` is None. The text never quotes a cell."""

    column: str | None
    problem: str

    def __str__(self) -> str:
        return self.problem if self.column is None else f"column {self.column!r}: {self.problem}"


class DatasetSchemaRejected(DatasetRejected):
    """Raised if the rows do not have the form that the dataset declares. ``problems`` stay at the site."""

    def __init__(self, dataset_id: str, problems: Sequence[SchemaProblem]) -> None:
        self.problems = tuple(problems)
        listed = "; ".join(str(problem) for problem in self.problems[:_SHOWN])
        more = f"; and {len(self.problems) - _SHOWN} more" if len(self.problems) > _SHOWN else ""
        super().__init__(f"dataset {dataset_id!r} is refused: {listed}{more}", reason=Reason.DATASET_SCHEMA)


@dataclass(frozen=True)
class Rows:
    """A reader's result: scaled features, labels, and unit codes if the dataset declares units."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    unit_ids: npt.NDArray[np.int64] | None
