"""A released model's predictions on the held-out set, its measures, and bootstrap intervals over persons.

The held-out set is public: the declared evaluation set of the study, recorded in the run folder. Rows of one person are
resampled together, since they are no independent evidence (Field and Welsh, "Bootstrapping clustered data", 2007).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aegis.errors import RunFolderError
from aegis.evaluation import utility
from aegis.federation import EvaluationSet
from aegis.runs import EVALUATION_SET, RunFolder
from coreason_enclave.datasets import DataDictionary, Label, LabelTask, open_dataset
from coreason_enclave.errors import EnclaveError
from coreason_enclave.models import predict, task_of
from coreason_enclave.schemas import FederationJob, Task
from coreason_enclave.wire import decode_arrays

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
        units: int64 (n,), the person behind each row; None: every row counts as a person of its own.
    """

    task: Task
    predicted: _Float64
    labels: npt.NDArray[Any]
    units: npt.NDArray[np.int64] | None

    def measures(self) -> dict[str, Interval]:
        """Return every measure of the task with its interval."""
        return bootstrap(self.predicted, self.labels, self.task, self.units)


def held_out(run: RunFolder, dictionary: DataDictionary, rows: Path) -> HeldOut | None:
    """Return the released model's predictions on the run's evaluation set; None if the run has no such set.

    Args:
        rows: the folder of the held-out rows; asked for persons if it holds the same labels.

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
        found, labels = in_own_unit(found, dictionary.label), in_own_unit(labels, dictionary.label).astype(np.float32)
    return HeldOut(task, found, labels, _units(rows, job, recorded))


def scale_of(label: Label) -> float:
    """Return what one scaled unit of a regression's label is in the label's own unit; 1 for other labels."""
    if label.task is LabelTask.NUMBER and label.low is not None and label.high is not None:
        return (label.high - label.low) / 2
    return 1.0


def in_own_unit(values: npt.NDArray[Any], label: Label) -> _Float64:
    """Return scaled values (n,) of a regression in the label's own unit."""
    low = label.low if label.low is not None and label.task is LabelTask.NUMBER else -1.0
    return np.asarray((values.astype(np.float64) + 1) * scale_of(label) + low)


def _units(rows: Path, job: FederationJob, recorded: EvaluationSet) -> npt.NDArray[np.int64] | None:
    """Return the persons of the recorded rows if the study's folder still holds the same rows, else None."""
    if not (rows / job.dataset_id / "dataset.toml").exists():
        return None
    try:
        dataset = open_dataset(rows, job.dataset_id)
    except EnclaveError as error:
        raise RunFolderError(f"{rows / job.dataset_id}, the held-out rows: {error}") from error
    same = np.array_equal(dataset.labels, recorded.labels) and np.array_equal(dataset.features, recorded.features)
    return dataset.unit_ids if same else None


def bootstrap(
    predicted: _Float64,
    labels: npt.NDArray[Any],
    task: Task,
    units: npt.NDArray[np.int64] | None,
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return every measure of :func:`aegis.evaluation.utility` with its percentile interval over resampled persons.

    Deterministic for a seed. Large sets get fewer resamples, at least 50.

    Raises:
        InvalidJob: the labels do not fit the task.
    """
    values = utility(predicted, labels, task)
    persons = np.arange(len(labels)) if units is None else units
    order = np.argsort(persons, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(persons[order])) + 1)
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in values}
    for _ in range(int(np.clip(_MOST_CELLS // max(predicted.size, 1), 50, resamples))):
        chosen = np.concatenate([groups[each] for each in generator.integers(0, len(groups), len(groups))])
        for name, value in utility(predicted[chosen], labels[chosen], task).items():
            drawn.setdefault(name, []).append(value)
    return {name: Interval(value, *_ends(drawn[name])) for name, value in values.items()}


def _ends(values: list[float]) -> tuple[float | None, float | None]:
    if len(values) < 2:
        return None, None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
