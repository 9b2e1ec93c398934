"""How well a model does on labelled rows. What this returns is computed from the rows: it is for whoever holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from coreason_enclave.errors import JobRejected, Reason
from coreason_enclave.models.registry import predict_probabilities
from coreason_enclave.updates import Arrays

__all__ = ["Evaluation", "evaluate"]

_LEAST = np.finfo(np.float64).tiny


class Evaluation(TypedDict):
    """Mean negative log-likelihood (nats a row), share of rows whose likeliest class is right, number of rows."""

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

    Raises:
        JobRejected: the model has fewer classes than the labels, or the rows do not fit its input.
    """
    try:
        probabilities = predict_probabilities(name, args, arrays, features)
    except RuntimeError as error:  # Torch's word on a shape
        raise JobRejected(f"the rows do not fit {name}: {error}", reason=Reason.WRONG_SHAPES) from error
    if labels.max() >= probabilities.shape[1]:
        raise JobRejected(f"the labels are of more classes than {name} has", reason=Reason.WRONG_SHAPES)
    likelihood = np.maximum(probabilities[np.arange(len(labels)), labels], _LEAST)
    return {
        "loss": float(-np.log(likelihood).mean()),
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        "rows": len(labels),
    }
