"""Evaluation of a model on labelled rows. The result is not private and must stay with the owner of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from coreason_enclave.models.registry import predict, task_of
from coreason_enclave.schemas import Task, TaskConfig
from coreason_enclave.wire import Arrays

_MIN_PROBABILITY = np.finfo(np.float64).tiny
_MAX = np.finfo(np.float64).max

_Float64 = npt.NDArray[np.float64]


class Evaluation(TypedDict, total=False):
    """Mean loss of a row in the task's own measure, share of rows with the correct likeliest class, number of rows.

    ``loss`` is the negative log-likelihood in nats, or the squared error of a regression in the label's scaled unit.
    ``accuracy`` is there for classes and labels alone.
    """

    loss: float
    accuracy: float
    rows: int


def evaluate(
    name: str,
    args: Mapping[str, int],
    arrays: Arrays,
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[Any],
    task: TaskConfig | None = None,
) -> Evaluation:
    """Evaluate the model with these weights on ``features`` (n, …) and ``labels`` as the task has them.

    The model must fit the dataset (:func:`~coreason_enclave.models.require_fits`). A row whose outputs overflow to a
    non-prediction counts as wrong. Whether weights overflow depends on the rows and must not show in a refusal.
    """
    found = predict(name, args, arrays, features, task=task)
    match task_of(name, task).kind:
        case Task.BINARY | Task.MULTICLASS:
            return _of_classes(found, labels)
        case Task.MULTILABEL:
            return _of_labels(np.nan_to_num(found), labels)
        case Task.REGRESSION:
            errors = np.nan_to_num(found - labels, nan=_MAX, posinf=_MAX, neginf=_MAX)
            return {"loss": _mean(np.minimum(errors**2, _MAX)), "rows": len(labels)}
        case Task.COUNT:
            losses = found - labels * np.log(np.maximum(found, _MIN_PROBABILITY))
            return {"loss": _mean(np.nan_to_num(losses, nan=_MAX)), "rows": len(labels)}
        case Task.SURVIVAL:
            return {"loss": _mean(_of_survival(np.nan_to_num(found), labels)), "rows": len(labels)}


def _of_classes(predicted: _Float64, labels: npt.NDArray[np.int64]) -> Evaluation:
    probabilities = np.where(np.isfinite(predicted).all(axis=1, keepdims=True), predicted, 0.0)
    likelihood = np.maximum(probabilities[np.arange(len(labels)), labels], _MIN_PROBABILITY)
    right = (probabilities.argmax(axis=1) == labels) & (probabilities.max(axis=1) > 0)
    return {"loss": _mean(-np.log(likelihood)), "accuracy": _mean(right), "rows": len(labels)}


def _of_labels(probabilities: _Float64, labels: npt.NDArray[np.float32]) -> Evaluation:
    likelihood = np.maximum(np.where(labels == 1, probabilities, 1 - probabilities), _MIN_PROBABILITY)
    right = (probabilities >= 0.5) == (labels == 1)
    return {"loss": _mean(-np.log(likelihood).mean(axis=1)), "accuracy": _mean(right), "rows": len(labels)}


def _of_survival(survival: _Float64, labels: npt.NDArray[np.int64]) -> _Float64:
    """Return each row's negative log-likelihood: intervals lived through, then the event's interval if any."""
    lived, event = labels[:, 0], labels[:, 1] == 1
    whole = np.concatenate([np.ones((len(survival), 1)), survival], axis=1)
    rows = np.arange(len(survival))
    to_here = whole[rows, lived]
    beyond = whole[rows, np.minimum(lived + 1, survival.shape[1])]
    return np.asarray(-np.log(np.maximum(np.where(event, to_here - beyond, to_here), _MIN_PROBABILITY)))


def _mean(values: npt.NDArray[Any]) -> float:
    with np.errstate(over="ignore"):
        return float(min(np.mean(values), _MAX))
