"""Loss and accuracy against arithmetic done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coreason_enclave.errors import JobRejected, Reason
from coreason_enclave.models import evaluate

ARGS = {"in_features": 1}


def weights(weight: float, bias: float) -> dict[str, np.ndarray]:
    return {"linear.weight": np.full((1, 1), weight, np.float32), "linear.bias": np.full(1, bias, np.float32)}


def test_it_is_the_mean_negative_log_likelihood_and_the_share_of_right_answers() -> None:
    features, labels = np.array([[2.0], [-1.0], [1.0]], np.float32), np.array([1, 0, 0])
    found = evaluate("LogisticRegression", ARGS, weights(1.0, 0.0), features, labels)

    losses = [math.log1p(math.exp(-2.0)), math.log1p(math.exp(-1.0)), math.log1p(math.exp(1.0))]
    assert found["loss"] == pytest.approx(sum(losses) / 3, rel=1e-6)
    assert (found["accuracy"], found["rows"]) == (pytest.approx(2 / 3), 3)


def test_a_model_that_is_sure_and_wrong_has_a_finite_loss() -> None:
    found = evaluate("LogisticRegression", ARGS, weights(1e30, 0.0), np.ones((1, 1), np.float32), np.array([0]))

    assert 700 < found["loss"] < math.inf


@pytest.mark.parametrize(("columns", "label"), [(2, 0), (1, 2)], ids=["columns", "classes"])
def test_rows_that_do_not_fit_are_refused(columns: int, label: int) -> None:
    with pytest.raises(JobRejected) as refused:
        evaluate("LogisticRegression", ARGS, weights(1.0, 0.0), np.ones((1, columns), np.float32), np.array([label]))
    assert refused.value.reason is Reason.WRONG_SHAPES
