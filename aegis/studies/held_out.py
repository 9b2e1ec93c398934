"""A released model's predictions on the held-out set, its measures, and bootstrap intervals over persons or groups.

The held-out set is public: the declared evaluation set of the study, recorded in the run folder. Rows of one person are
resampled together, since they are no independent evidence (Field and Welsh, "Bootstrapping clustered data", 2007); so
are rows of one group, where the study keeps groups together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aegis.errors import RunFolderError
from aegis.evaluation import utility
from aegis.federation import EvaluationSet, FederationFolder
from aegis.runs import EVALUATION_SET, RunFolder
from aegis.studies.bootstrap import intervals
from coreason_enclave.datasets import DataDictionary, Label, LabelTask, open_dataset
from coreason_enclave.errors import EnclaveError
from coreason_enclave.models import predict, task_of
from coreason_enclave.schemas import FederationJob, Task
from coreason_enclave.system import replace_file
from coreason_enclave.wire import decode_arrays

GROUPS = "groups.csv"
"""The file of the held-out rows' groups, beside the held-out datasets."""
_MAX_MODEL_BYTES = 1 << 30
_RESAMPLES, _MOST_CELLS = 500, 20_000_000

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A measure with its 95 % bootstrap interval; ``low`` and ``high`` are None where resamples do not define it."""

    value: float
    low: float | None
    high: float | None

    def text(self) -> str:
        """Return the measure with its interval, for a table."""
        return f"{self.value:.4f}" + ("" if self.low is None else f" ({self.low:.4f} to {self.high:.4f})")


@dataclass(frozen=True)
class HeldOut:
    """Predictions on the held-out rows, in the label's own unit.

    Attributes:
        predicted: as :func:`coreason_enclave.models.predict` has them; a regression's values in the label's unit.
        labels: as many rows, as the task has them.
        units: int64 (n,), the person behind each row, or the group; None: every row counts as a person of its own.
        grouped: whether ``units`` are groups.
    """

    task: Task
    predicted: _Float64
    labels: npt.NDArray[Any]
    units: npt.NDArray[np.int64] | None
    grouped: bool = False

    @property
    def resampled(self) -> str:
        """What the bootstrap draws, in words."""
        if self.units is None:
            return "rows, each a person of its own"
        return "groups" if self.grouped else "persons"

    def measures(self) -> dict[str, Interval]:
        """Return every measure of the task with its interval."""
        return measured(self.predicted, self.labels, self.task, self.units)


def held_out(run: RunFolder, dictionary: DataDictionary, rows: Path) -> HeldOut | None:
    """Return the released model's predictions on the run's evaluation set; None if the run has no such set.

    Args:
        rows: the folder of the held-out rows; asked for persons and groups if it holds the same rows.

    Raises:
        RunFolderError: the recorded set, or the model, cannot be read.
    """
    path = run.path / EVALUATION_SET
    if not path.exists():
        return None
    recorded, job = EvaluationSet.from_bytes(path.read_bytes(), str(path)), run.job()
    weights = decode_arrays((run.path / "model.safetensors").read_bytes(), limit=_MAX_MODEL_BYTES)
    found = predict(job.model_arch, job.model_args, weights, recorded.features, task=job.task)
    labels = recorded.labels
    task = task_of(job.model_arch, job.task).kind
    if task is Task.REGRESSION:
        labels = in_own_unit(dictionary.label, labels).astype(np.float32)
    persons, groups = _clusters(rows, job, recorded)
    units = persons if groups is None else groups
    return HeldOut(task, in_own_unit(dictionary.label, found), labels, units, grouped=groups is not None)


def scale_of(label: Label) -> float:
    """Return what one scaled unit of a regression's label is in the label's own unit; 1 for other labels."""
    if label.task is LabelTask.NUMBER and label.low is not None and label.high is not None:
        return (label.high - label.low) / 2
    return 1.0


def in_own_unit(label: Label, scaled: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values of a number label in its own unit, float64; other predictions and labels as they are."""
    if label.task is not LabelTask.NUMBER or label.low is None:
        return np.asarray(scaled)
    return np.asarray((scaled.astype(np.float64) + 1.0) * scale_of(label) + label.low)


def declare_evaluation_set(federation: FederationFolder, rows: Path, dataset_id: str) -> None:
    """Make the held-out rows below ``rows``, scaled as a site scales its rows, the federation's evaluation set.

    Raises:
        DatasetRejected: the rows are not as declared.
    """
    held_out = open_dataset(rows, dataset_id)
    federation.save_evaluation_set(EvaluationSet(held_out.features, held_out.labels))


def write_groups(rows: Path, groups: Sequence[int]) -> None:
    """Write the group of each held-out row, in the rows' order; ``rows`` is the folder of the held-out rows."""
    replace_file(rows / GROUPS, "".join(f"{group}\n" for group in ("group", *groups)).encode())


def read_groups(rows: Path) -> npt.NDArray[np.int64] | None:
    """Return the group of each held-out row, (n,); None if the study keeps no groups together.

    Raises:
        RunFolderError: the file is damaged.
    """
    path = rows / GROUPS
    if not path.exists():
        return None
    try:
        return np.array([int(line) for line in path.read_text().splitlines()[1:]], np.int64)
    except (OSError, ValueError, OverflowError) as error:
        raise RunFolderError(f"{path} must hold a line 'group' and a whole number for each held-out row") from error


def _clusters(
    rows: Path, job: FederationJob, recorded: EvaluationSet
) -> tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None]:
    """Return persons and groups of the recorded rows; None for both unless the study's folder holds the same rows."""
    if not (rows / job.dataset_id / "dataset.toml").exists():
        return None, None
    try:
        dataset = open_dataset(rows, job.dataset_id)
    except EnclaveError as error:
        raise RunFolderError(f"{rows / job.dataset_id}, the held-out rows: {error}") from error
    same = np.array_equal(dataset.labels, recorded.labels) and np.array_equal(dataset.features, recorded.features)
    if not same:
        return None, None
    groups = read_groups(rows)
    if groups is not None and groups.shape != (len(recorded.labels),):
        raise RunFolderError(f"{rows / GROUPS} must hold a group for each of the {len(recorded.labels)} held-out rows")
    return dataset.unit_ids, groups


def measured(
    predicted: _Float64, labels: npt.NDArray[Any], task: Task, units: npt.NDArray[np.int64] | None, *, seed: int = 0
) -> dict[str, Interval]:
    """Return every measure of :func:`aegis.evaluation.utility` with its interval over resampled persons.

    Deterministic for a seed. Large sets get fewer resamples, at least 50.

    Raises:
        InvalidJob: the labels do not fit the task.
    """
    samples = int(np.clip(_MOST_CELLS // max(predicted.size, 1), 50, _RESAMPLES))
    generator = np.random.default_rng(seed)
    ends = intervals(lambda p, y: utility(p, y, task), predicted, labels, units, samples, generator)
    values = utility(predicted, labels, task)
    return {name: Interval(value, *ends.get(name, (None, None))) for name, value in values.items()}


def class_names(label: Label) -> tuple[str, ...]:
    """Return the spellings of the classes in order."""
    return label.values or tuple(str(number) for number in range(label.classes or 0))


def observed_survival(labels: npt.NDArray[np.int64], count: int) -> _Float64:
    """Return the Kaplan-Meier chance to live through each of ``count`` intervals and all before it, (count,).

    Source: Kaplan and Meier, "Nonparametric estimation from incomplete observations", 1958.
    """
    lived, event = labels[:, 0], labels[:, 1] == 1
    places = np.arange(count)
    died = (event[:, None] & (lived[:, None] == places)).sum(axis=0)
    at_risk = ((lived[:, None] > places) | (event[:, None] & (lived[:, None] == places))).sum(axis=0)
    return np.asarray(np.cumprod(1.0 - died / np.maximum(at_risk, 1)), np.float64)
