"""Evaluation of a model on labelled rows. The result is not private and must stay with the owner of the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from coreason_enclave.models.registry import predict_probabilities
from coreason_enclave.wire import Arrays

_MIN_PROBABILITY = np.finfo(np.float64).tiny


class Evaluation(TypedDict):
    """Mean negative log-likelihood (nats per row), share of rows with the correct likeliest class, number of rows."""

    loss: float
    accuracy: float
    rows: int


def evaluate(
    name: str,
    args: Mapping[str, int],
    arrays: Arrays,
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[Any],
) -> Evaluation:
    """Evaluate the model with these weights on ``features`` (n, …) and integer ``labels`` (n,).

    The model must fit the dataset (:func:`~coreason_enclave.models.require_fits`). A row whose outputs overflow to a
    non-probability counts as wrong. Whether weights overflow depends on the rows and must not show in a refusal.
    """
    predicted = predict_probabilities(name, args, arrays, features)
    probabilities = np.where(np.isfinite(predicted).all(axis=1, keepdims=True), predicted, 0.0)
    likelihood = np.maximum(probabilities[np.arange(len(labels)), labels], _MIN_PROBABILITY)
    right = (probabilities.argmax(axis=1) == labels) & (probabilities.max(axis=1) > 0)
    return {
        "loss": float(-np.log(likelihood).mean()),
        "accuracy": float(right.mean()),
        "rows": len(labels),
    }
