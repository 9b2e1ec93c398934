"""What the owner of the rows says before a draft is made of them, and what it changes in the suggested label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coreason_enclave.datasets.dictionary import DataDictionary
from coreason_enclave.datasets.labels import LabelTask
from coreason_enclave.errors import DatasetRejected
from coreason_enclave.schemas import Task

_LABEL_TASKS: Mapping[Task, LabelTask] = {
    Task.BINARY: LabelTask.CLASSES,
    Task.MULTICLASS: LabelTask.CLASSES,
    Task.MULTILABEL: LabelTask.LABELS,
    Task.REGRESSION: LabelTask.NUMBER,
    Task.COUNT: LabelTask.COUNT,
    Task.SURVIVAL: LabelTask.SURVIVAL,
}


@dataclass(frozen=True)
class DraftPlan:
    """The owner's words on a file of rows.

    Attributes:
        path: the rows: a table, an npz archive, or with ``images`` the table of labels.
        file: the name that the rows have, or get, beside ``dataset.toml``.
        labels: the columns to predict; the time, for survival; none with a dictionary.
        person: the column that names the person behind a row.
        task: the kind of prediction; None: by the label's values.
        event: survival: whether the event ended the time.
        cuts: survival: the ends of the intervals; None: suggested from rows.
        low, high: what is publicly known of a number or a count; None: suggested from rows.
        columns: the names of all columns, in order, of a CSV file without a header.
        missing: further spellings of a missing cell.
        images: the folder of images; ``folder`` is its name below the dataset's folder.
        image_column: the column with the names of the files.
        stretch: height and width that every image is stretched to; None: all have one size.
        dictionary: declares everything but the file's form; nothing is then computed from rows.
    """

    path: Path
    file: str
    dataset_id: str
    public: bool
    labels: tuple[str, ...] = ()
    person: str | None = None
    task: Task | None = None
    event: str | None = None
    cuts: tuple[float, ...] | None = None
    low: float | None = None
    high: float | None = None
    columns: tuple[str, ...] | None = None
    missing: tuple[str, ...] = ()
    images: Path | None = None
    folder: str | None = None
    image_column: str | None = None
    stretch: tuple[int, int] | None = None
    dictionary: DataDictionary | None = None

    @property
    def label_task(self) -> LabelTask | None:
        """The label's task in ``dataset.toml``; None if it is to be suggested."""
        return None if self.task is None else _LABEL_TASKS[self.task]

    @property
    def of_label(self) -> tuple[str, ...]:
        """Every column behind the label."""
        return (*self.labels, *([self.event] if self.event else []))

    @property
    def needed(self) -> tuple[str, ...]:
        """Every column that the table must have."""
        further = (self.person, self.image_column)
        return (*self.of_label, *(name for name in further if name is not None))


def stated_label(plan: DraftPlan, label: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[str]]:
    """Return a suggested ``[label]`` with the owner's bounds, and the names of its entries that the owner stated.

    Raises:
        DatasetRejected: the label is of another kind than ``plan.task``, or has no such bounds.
    """
    bounds = {name: value for name, value in (("low", plan.low), ("high", plan.high)) if value is not None}
    task = label.get("task", LabelTask.CLASSES)
    if bounds.keys() - {LabelTask.NUMBER: {"low", "high"}, LabelTask.COUNT: {"high"}}.get(task, set()):
        raise DatasetRejected("--low and --high go with --task regression, and --high with --task count")
    _require_task(plan, label)
    stated = {**label, **bounds}
    if task == LabelTask.NUMBER and not stated["low"] < stated["high"]:
        low, high = stated["low"], stated["high"]
        raise DatasetRejected(f"the label needs --low below --high: they would be {low:g} and {high:g}")
    return stated, frozenset(bounds) | ({"cuts"} if plan.cuts is not None else frozenset())


def _require_task(plan: DraftPlan, label: Mapping[str, Any]) -> None:
    classes = label.get("classes") or len(label.get("values", ()))
    wrong = {Task.BINARY: classes != 2, Task.MULTICLASS: classes < 3}
    if plan.task is not None and wrong.get(plan.task, False):
        raise DatasetRejected(f"the label {plan.labels[0]!r} has {classes} classes, and --task says {plan.task}")
