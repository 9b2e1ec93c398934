"""Evaluates predictions on public data: each task's measures, in NumPy alone.

=====================  =======================================================================================
task                   measures
=====================  =======================================================================================
binary, multiclass     ``accuracy``, ``loss`` (nats); of two classes also ``auc``
multilabel             ``accuracy`` and ``loss`` over all labels, ``auc`` as the mean of the labels' areas
regression             ``rmse``, ``mae`` in the label's scaled unit, ``r2``
count                  ``deviance`` (Poisson's, mean of the rows), ``mae``
survival               ``concordance`` (Antolini's), ``brier`` (integrated, weighted for censoring), ``loss`` (nats)
=====================  =======================================================================================

A measure that the labels do not define, such as an area with one class, is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from aegis.errors import InvalidJob
from coreason_enclave.schemas import Task

_FLOOR = 1e-12

_Float64 = npt.NDArray[np.float64]


def utility(predicted: _Float64, labels: npt.NDArray[Any], kind: Task = Task.MULTICLASS) -> dict[str, float]:
    """Return the measures of predictions, both as :class:`coreason_enclave.models.TaskLoss` has them.

    Args:
        predicted: probabilities (n, classes) or (n, labels); values or rates (n,); survival (n, intervals).
        labels: as many rows, as the task has them.

    Raises:
        InvalidJob: labels of another form, or beyond the model's outputs.

    >>> utility(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]))["accuracy"]
    1.0
    >>> utility(np.array([0.5, -0.5]), np.array([0.0, -0.5]), Task.REGRESSION)["mae"]
    0.25
    """
    if problem := _misfit(predicted, labels, kind):
        raise InvalidJob(f"the evaluation set's labels do not fit a {kind} task: {problem}")
    match kind:
        case Task.BINARY | Task.MULTICLASS:
            return _of_classes(predicted, labels)
        case Task.MULTILABEL:
            return _of_labels(predicted, labels)
        case Task.REGRESSION:
            return _of_values(predicted, labels)
        case Task.COUNT:
            return _of_counts(predicted, labels)
        case Task.SURVIVAL:
            return _of_survival(predicted, labels)


def _misfit(predicted: _Float64, labels: npt.NDArray[Any], kind: Task) -> str | None:
    """Return what is wrong with the labels' form or range, or None."""
    rows, outputs = len(predicted), predicted.shape[1] if predicted.ndim == 2 else 1
    forms = {Task.MULTILABEL: ("f", (rows, outputs)), Task.REGRESSION: ("f", (rows,)), Task.COUNT: ("f", (rows,))}
    dtype, shape = forms.get(kind, ("i", (rows, 2) if kind is Task.SURVIVAL else (rows,)))
    if labels.dtype.kind != dtype or labels.shape != shape:
        return f"they must be {'whole numbers' if dtype == 'i' else 'float32'} of shape {shape}, got {labels.shape}"
    if kind is Task.SURVIVAL:
        last = outputs - labels[:, 1]
        inside = (labels >= 0).all() and (labels[:, 1] <= 1).all() and (labels[:, 0] <= last).all()
        return None if inside else f"an interval lies beyond the model's {outputs}"
    if kind in (Task.BINARY, Task.MULTICLASS) and not ((labels >= 0) & (labels < outputs)).all():
        return f"a class lies beyond the model's {outputs} outputs"
    return None


def _of_classes(probabilities: _Float64, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    chosen = probabilities[np.arange(len(labels)), labels]
    result = {
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        "loss": float(-np.log(np.maximum(chosen, _FLOOR)).mean()),
    }
    if probabilities.shape[1] == 2 and 0 < int(labels.sum()) < len(labels):
        result["auc"] = area_under_curve(probabilities[:, 1], labels)
    return result


def _of_labels(probabilities: _Float64, labels: npt.NDArray[np.float32]) -> dict[str, float]:
    chosen = np.where(labels == 1, probabilities, 1 - probabilities)
    result = {
        "accuracy": float(((probabilities >= 0.5) == (labels == 1)).mean()),
        "loss": float(-np.log(np.maximum(chosen, _FLOOR)).mean()),
    }
    areas = [
        area_under_curve(column, truth.astype(np.int64))
        for column, truth in zip(probabilities.T, labels.T, strict=True)
        if 0 < int(truth.sum()) < len(truth)
    ]
    return result | ({"auc": float(np.mean(areas))} if areas else {})


def _of_values(values: _Float64, labels: npt.NDArray[np.float32]) -> dict[str, float]:
    errors = values - labels
    result = {"rmse": float(np.sqrt((errors**2).mean())), "mae": float(np.abs(errors).mean())}
    spread = float(((labels - labels.mean()) ** 2).mean())
    return result | ({"r2": 1 - float((errors**2).mean()) / spread} if spread > 0 else {})


def _of_counts(rates: _Float64, labels: npt.NDArray[np.float32]) -> dict[str, float]:
    """Poisson's deviance (McCullagh and Nelder, "Generalized Linear Models", 1989): 2 (y log(y / rate) - y + rate)."""
    ratio = np.where(labels > 0, labels / np.maximum(rates, _FLOOR), 1.0)
    deviance = 2 * (labels * np.log(ratio) - labels + rates)
    return {"deviance": float(deviance.mean()), "mae": float(np.abs(rates - labels).mean())}


def _of_survival(survival: _Float64, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    lived, event = labels[:, 0], labels[:, 1] == 1
    whole = np.concatenate([np.ones((len(survival), 1)), survival], axis=1)
    rows = np.arange(len(survival))
    here, beyond = whole[rows, lived], whole[rows, np.minimum(lived + 1, survival.shape[1])]
    likelihood = np.where(event, here - beyond, here)
    result = {"loss": float(-np.log(np.maximum(likelihood, _FLOOR)).mean())}
    concordance = _concordance(survival, lived, event)
    brier = _integrated_brier(survival, lived, event)
    return result | {
        name: value for name, value in (("concordance", concordance), ("brier", brier)) if value is not None
    }


def _concordance(survival: _Float64, lived: npt.NDArray[np.int64], event: npt.NDArray[np.bool_]) -> float | None:
    """Return the share of comparable pairs in which the earlier event had the smaller survival at its own time.

    A pair is comparable if one row had its event in an interval that the other lived through. Equal survival counts
    half. Source: Antolini et al., "A time-dependent discrimination index for survival data", 2005.
    """
    concordant, pairs = 0.0, 0
    for interval in np.unique(lived[event]):
        at, after = event & (lived == interval), lived > interval
        count = int(at.sum()) * int(after.sum())
        if not count:
            continue
        early, late = survival[at, interval], np.sort(survival[after, interval])
        below = np.searchsorted(late, early, side="left")
        through = np.searchsorted(late, early, side="right")
        concordant += float((len(late) - through).sum() + 0.5 * (through - below).sum())
        pairs += count
    return concordant / pairs if pairs else None


def _integrated_brier(survival: _Float64, lived: npt.NDArray[np.int64], event: npt.NDArray[np.bool_]) -> float | None:
    """Return the mean over intervals of the Brier score, each row weighted by its chance not to be censored.

    Source: Graf et al., "Assessment and comparison of prognostic classification schemes for survival data", 1999. The
    chance comes from the Kaplan-Meier estimate of censoring. Intervals that no row is seen through are left out.
    """
    seen = _still_seen(lived, event, survival.shape[1])
    scores = []
    for interval in range(survival.shape[1]):
        had, lives = event & (lived <= interval), lived > interval
        weights = np.zeros(len(lived))
        weights[had] = 1 / seen[lived[had]]
        weights[lives] = 1 / seen[interval] if seen[interval] > 0 else 0.0
        if seen[interval] > 0:
            scores.append(float((weights * (lives - survival[:, interval]) ** 2).mean()))
    return float(np.mean(scores)) if scores else None


def _still_seen(lived: npt.NDArray[np.int64], event: npt.NDArray[np.bool_], intervals: int) -> _Float64:
    """Return, for each interval, the Kaplan-Meier chance that a row is not censored before the interval's end.

    A row that is censored after ``s`` intervals leaves at the start of the next one.
    """
    starts = range(intervals)
    at_risk = np.array([(lived >= start).sum() for start in starts], dtype=np.float64)
    leave = np.array([(~event & (lived == start)).sum() for start in starts], dtype=np.float64)
    return np.asarray(np.cumprod(1 - leave / np.maximum(at_risk, 1)))


def area_under_curve(scores: _Float64, labels: npt.NDArray[np.int64]) -> float:
    """Return the area under the ROC curve in its Mann-Whitney form.

    The area equals the probability that a positive scores above a negative; ties count half.

    >>> area_under_curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    0.75
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    ranks = float(rankdata(scores)[labels == 1].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)
