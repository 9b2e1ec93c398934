"""Evaluates class predictions on public data: accuracy, log loss and, for two classes, the area under the ROC curve."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata


def utility(probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return metrics of predicted class probabilities.

    Args:
        probabilities: shape (n, classes), rows sum to 1. labels: shape (n,), integers below ``classes``.

    Returns:
        ``accuracy``, ``loss`` (mean negative log likelihood, nats) and, for two classes with both present, ``auc``.

    >>> utility(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]))["accuracy"]
    1.0
    """
    chosen = probabilities[np.arange(len(labels)), labels]
    result = {
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        "loss": float(-np.log(np.maximum(chosen, 1e-12)).mean()),
    }
    if probabilities.shape[1] == 2 and 0 < int(labels.sum()) < len(labels):
        result["auc"] = area_under_curve(probabilities[:, 1], labels)
    return result


def area_under_curve(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """Return the area under the ROC curve in its Mann-Whitney form.

    The area equals the probability that a positive scores above a negative; ties count half.

    >>> area_under_curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    0.75
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    ranks = float(rankdata(scores)[labels == 1].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)
