"""Predicts and evaluates rows with the model of a finished run, in the words and units of the data dictionary."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aegis.errors import InvalidStudy
from aegis.evaluation import utility
from aegis.runs import RunFolder
from aegis.studies.bootstrap import intervals
from aegis.studies.held_out import class_names, in_own_unit, observed_survival
from aegis.studies.image_files import pictures_in, table_in
from coreason_enclave.datasets import DataDictionary, ImageStream, Label, LabelTask, RowStream
from coreason_enclave.errors import DatasetRejected, EnclaveError
from coreason_enclave.models import predict, require_fits, task_of
from coreason_enclave.schemas import FederationJob, Task
from coreason_enclave.system import replacement
from coreason_enclave.wire import Array, decode_arrays, model_digest

_MAX_MODEL_BYTES = 1 << 30
_DICTIONARY = "dictionary.toml"

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrainedModel:
    """The model of a finished run, with the dictionary that its rows follow."""

    run: Path
    job: FederationJob
    dictionary: DataDictionary
    arrays: dict[str, Array]

    @property
    def kind(self) -> Task:
        """The kind of prediction."""
        return task_of(self.job.model_arch, self.job.task).kind

    def predict(self, features: npt.NDArray[np.float32]) -> _Float64:
        """Return the predictions on scaled features; a regression's in the label's own unit."""
        job = self.job
        found = predict(job.model_arch, job.model_args, self.arrays, features, task=job.task)
        return in_own_unit(self.dictionary.label, found)


def load_trained(run: Path) -> TrainedModel:
    """Return the model of a finished run.

    Raises:
        InvalidStudy: no run, an unfinished run, a model other than the run released, or no dictionary for its rows.
        RunFolderError: a record of the run cannot be read.
    """
    folder = RunFolder(run)
    if not folder.is_finished:
        raise InvalidStudy(_unfinished(folder))
    job = folder.job()
    path = run / "model.safetensors"
    try:
        arrays = dict(decode_arrays(path.read_bytes(), limit=_MAX_MODEL_BYTES))
    except (EnclaveError, OSError, ValueError) as error:
        raise InvalidStudy(f"{path} cannot be read as a model: restore the file from a copy of the run") from error
    if model_digest(arrays) != folder.read_json("outcome.json").get("model"):
        raise InvalidStudy(f"{path} is not the model that {run} released: `aegis verify {run}` checks the run")
    dictionary = _dictionary_of(run)
    declared = dictionary.declaration(file=dictionary.usual_file, public=False)
    label = dictionary.label
    outputs = label.classes or label.outputs
    try:
        require_fits(job.model_arch, job.model_args, declared.sample_shape, outputs, job.task)
    except EnclaveError as error:
        raise InvalidStudy(f"{dictionary_path(run)} does not describe the rows of this model: {error}") from error
    return TrainedModel(run, job, dictionary, arrays)


def _unfinished(folder: RunFolder) -> str:
    path = folder.path
    if (path / "study.toml").is_file():
        return f"{path} is a study, not a run: name one of its runs, such as {path / 'runs' / 'latest'}"
    if folder.is_started or (path / "study-run.json").is_file():
        return f"{path} holds an unfinished run: the command that started the run goes on with it"
    return f"{path} is not a run folder: name a folder with outcome.json, such as study/runs/latest"


def dictionary_path(run: Path) -> Path:
    """Return the dictionary of a run, or else of the study around it; the file may not exist."""
    own, study = run / _DICTIONARY, run.resolve().parent.parent / _DICTIONARY
    return study if not own.is_file() and study.is_file() else own


def _dictionary_of(run: Path) -> DataDictionary:
    path = dictionary_path(run)
    if not path.is_file():
        raise InvalidStudy(
            f"{run} has no dictionary.toml, nor has a study around it: put the data dictionary of the rows there"
        )
    return DataDictionary.read(path)


def prediction_columns(label: Label, width: int) -> list[str]:
    """Return the names of the columns of predictions of ``width`` numbers a row."""
    match label.task:
        case LabelTask.CLASSES:
            names = class_names(label)
            return [f"probability:{names[place] if place < len(names) else place}" for place in range(width)]
        case LabelTask.LABELS:
            return [f"probability:{name}" for name in label.columns or ()]
        case LabelTask.NUMBER:
            return [f"predicted:{label.column}"]
        case LabelTask.COUNT:
            return [f"rate:{label.column}"]
        case LabelTask.SURVIVAL:
            return [f"survival:{cut:g}" for cut in label.cuts or ()]


def rows_for(
    dictionary: DataDictionary,
    rows: Path,
    *,
    labelled: bool,
    group: str | None = None,
    image_column: str | None = None,
) -> RowStream | ImageStream:
    """Return the rows of a file, or of a folder of images with its table, as the dictionary declares them.

    Args:
        image_column: the folder's column of file names; None: as the dictionary names it.

    Raises:
        DatasetRejected: the rows are of another form, or lack a column.
        InvalidStudy: a folder has no table or several, or the dictionary declares images and ``rows`` is a file.
    """
    if rows.is_dir():
        if dictionary.image_column is None:
            raise InvalidStudy(f"{rows} is a folder, and the model takes no image files: name a file of rows")
        table, pictures = table_in(rows), pictures_in(rows)
        return ImageStream(table, pictures, dictionary, column=image_column, labelled=labelled, group=group)
    if dictionary.image_column is not None:
        raise InvalidStudy(f"{rows} is a file, and the model takes images: name the folder with the images and a table")
    if image_column is not None:
        raise InvalidStudy(f"{rows} is a file: --image-column goes with a folder of images")
    return RowStream(rows, dictionary, labelled=labelled, group=group)


def write_predictions(trained: TrainedModel, rows: Path, out: Path, *, image_column: str | None = None) -> int:
    """Write one line for each row to ``out``, whole or not at all; return the number of rows.

    Memory holds a part of the rows at a time. ``rows`` is a file, or a folder of images with a table.

    Raises:
        DatasetRejected: the rows do not follow the dictionary.
        InvalidStudy: ``out`` would replace the rows or a file of the run.
    """
    if out.exists() and out.samefile(rows):
        raise InvalidStudy(f"--out {out} would replace the rows: choose another file")
    if out.resolve().is_relative_to(trained.run.resolve()):
        raise InvalidStudy(f"--out {out} lies in the run's folder, whose files are signed: choose another place")
    if out.is_dir():
        raise InvalidStudy(f"--out {out} is a folder: name a file")
    if rows.is_dir() and out.resolve().parent == rows.resolve():
        raise InvalidStudy(f"--out {out} lies in the folder of images, as a second table: choose another place")
    stream = rows_for(trained.dictionary, rows, labelled=False, image_column=image_column)
    count = 0
    with replacement(out) as draft, draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for part in stream:
            found = trained.predict(part.features)
            table = found.reshape(len(found), -1)
            if not count:
                writer.writerow(["row", *prediction_columns(trained.dictionary.label, table.shape[1])])
            numbers = range(part.first + 1, part.first + 1 + len(table))
            writer.writerows([number, *_written(row)] for number, row in zip(numbers, table.tolist(), strict=True))
            count += len(table)
    return count


def _written(row: Sequence[float]) -> Iterator[str]:
    return (f"{value:.9g}" for value in row)


@dataclass(frozen=True, eq=False)
class RowsEvaluation:
    """Measures of a model on labelled rows, in the label's own unit.

    Attributes:
        measures, baseline: by name; the baseline comes from the same rows.
        bounds: 95 % interval of each measure.
        resampled: the words for what the intervals resample: persons, a column, or rows.
        groups: number of resampled groups.
        predicted, labels: for pictures.
    """

    kind: Task
    rows: int
    measures: dict[str, float]
    bounds: dict[str, tuple[float, float]]
    baseline: dict[str, float]
    baseline_words: str
    resampled: str
    groups: int
    samples: int
    seed: int
    predicted: _Float64
    labels: npt.NDArray[Any]

    def document(self) -> dict[str, Any]:
        """Return the evaluation as plain values."""
        measures = {
            name: {
                "value": value,
                **({"low": self.bounds[name][0], "high": self.bounds[name][1]} if name in self.bounds else {}),
                **({"baseline": self.baseline[name]} if name in self.baseline else {}),
            }
            for name, value in self.measures.items()
        }
        names = ("rows", "resampled", "groups", "samples", "seed")
        return {
            "task": self.kind.value,
            **{name: getattr(self, name) for name in names},
            "baseline": self.baseline_words,
            "measures": measures,
        }


def evaluate_rows(
    trained: TrainedModel,
    rows: Path,
    *,
    group: str | None = None,
    samples: int = 1000,
    seed: int = 0,
    image_column: str | None = None,
) -> RowsEvaluation:
    """Return the measures of the model on labelled rows, with bootstrap intervals and a baseline of the same rows.

    Args:
        rows: a file, or a folder of images with a table of labels.
        group: a column whose values are resampled as wholes, in place of persons.
        image_column: the folder's column of file names; None: as the dictionary names it.

    Raises:
        DatasetRejected: the rows do not follow the dictionary, or lack the label or the group.
        InvalidStudy: ``samples`` is below 1.
    """
    if samples < 1:
        raise InvalidStudy(f"--samples must be at least 1, got {samples}")
    kind, label = trained.kind, trained.dictionary.label
    stream = rows_for(trained.dictionary, rows, labelled=True, group=group, image_column=image_column)
    found, truth = [], []
    for part in stream:
        if part.labels is None:
            raise DatasetRejected(f"{rows.name} has no labels")
        found.append(trained.predict(part.features))
        truth.append(in_own_unit(label, part.labels))
    predicted, labels = np.concatenate(found), np.concatenate(truth)
    groups = stream.persons if group is None else stream.groups
    resampled = f"values of {group!r}" if group else "persons" if groups is not None else "rows"

    def measure(predicted: _Float64, labels: npt.NDArray[Any]) -> dict[str, float]:
        return utility(predicted, labels, kind)

    bounds = intervals(measure, predicted, labels, groups, samples, np.random.default_rng(seed))
    constant, words = _baseline(kind, predicted, labels)
    return RowsEvaluation(
        kind,
        len(labels),
        measure(predicted, labels),
        bounds,
        measure(constant, labels),
        words,
        resampled,
        len(labels) if groups is None else len(np.unique(groups)),
        samples,
        seed,
        predicted,
        labels,
    )


def _baseline(kind: Task, predicted: _Float64, labels: npt.NDArray[Any]) -> tuple[_Float64, str]:
    """Return predictions that ignore every feature, computed from these rows' labels, and words for them."""
    row: npt.NDArray[Any]
    if kind in (Task.BINARY, Task.MULTICLASS):
        row = np.bincount(labels, minlength=predicted.shape[1]) / len(labels)
        words = "the shares of the classes in these rows (the majority class for accuracy)"
    elif kind is Task.SURVIVAL:
        row = observed_survival(labels, predicted.shape[1])
        words = "one hazard an interval for all, from these rows (Kaplan-Meier)"
    else:
        row = labels.mean(axis=0)
        names = {Task.MULTILABEL: "share of each label", Task.REGRESSION: "mean label", Task.COUNT: "mean count"}
        words = f"the {names[kind]} of these rows"
    return np.broadcast_to(np.asarray(row, np.float64), predicted.shape).copy(), words


def plot_evaluation(found: RowsEvaluation, label: Label, folder: Path) -> list[Path]:
    """Draw what fits the task into ``folder``; return the files."""
    from aegis.studies import figures

    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []

    def file(name: str) -> Path:
        files.append(folder / f"{name}.png")
        return files[-1]

    predicted, labels = found.predicted, found.labels
    match found.kind:
        case Task.BINARY | Task.MULTICLASS:
            if "auc" in found.measures:
                words = f"AUC {found.measures['auc']:.3f}"
                figures.plot_roc(file("roc"), predicted[:, 1], labels, title="ROC", area=words)
                figures.plot_calibration(file("calibration"), predicted[:, 1], labels == 1, title="Calibration")
            names = class_names(label)
            chosen = np.minimum(predicted.argmax(axis=1), len(names) - 1)
            figures.plot_confusion(file("confusion"), chosen, labels, names, title="Confusion")
        case Task.MULTILABEL:
            figures.plot_calibration(
                file("calibration"), predicted.ravel(), labels.ravel() == 1, title="Calibration over all labels"
            )
        case Task.REGRESSION | Task.COUNT:
            figures.plot_residuals(file("residuals"), predicted, labels.astype(np.float64), title="Residuals")
        case Task.SURVIVAL:
            observed = observed_survival(labels, predicted.shape[1]).tolist()
            mean = predicted.mean(axis=0).tolist()
            figures.plot_survival(file("survival"), mean, observed, label.cuts or (), title="Survival")
    return files
