"""Loss and accuracy against arithmetic done by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coreason_enclave.errors import JobRejected, Reason
from coreason_enclave.models import evaluate, require_fits

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


def test_weights_that_overflow_on_some_rows_count_them_as_wrong_and_raise_nothing() -> None:
    """Whether they do depends on the rows: a refusal would tell that such a row is there."""
    arrays = {"hidden.weight": np.full((1, 1), 3e38, np.float32), "hidden.bias": np.zeros(1, np.float32)}
    arrays |= {"output.weight": np.full((2, 1), 3e38, np.float32), "output.bias": np.full(2, 3e38, np.float32)}
    args = {"in_features": 1, "hidden": 1, "classes": 2}
    found = evaluate("SimpleMLP", args, arrays, np.array([[1.0], [0.0]], np.float32), np.array([0, 0]))

    assert 300 < found["loss"] < math.inf
    assert found["accuracy"] == pytest.approx(0.5)  # infinity minus itself on the first row, a tie on the second


@pytest.mark.parametrize(
    ("arch", "args", "shape", "classes"),
    [
        ("LogisticRegression", {"in_features": 1}, (2,), 2),
        ("LogisticRegression", {"in_features": 1}, (1,), 3),
        ("SimpleMLP", {"in_features": 4, "classes": 2}, (2, 2), 3),
        ("SimpleMLP", {"in_features": 4, "classes": 2}, (5,), 2),
        ("SmallCNN", {"in_channels": 1, "size": 8, "classes": 4}, (64,), 4),
    ],
)
def test_a_model_that_does_not_fit_what_a_dataset_declares_is_refused(
    arch: str, args: dict[str, int], shape: tuple[int, ...], classes: int
) -> None:
    with pytest.raises(JobRejected) as refused:
        require_fits(arch, args, shape, classes)
    assert refused.value.reason is Reason.WRONG_SHAPES


def test_a_model_that_fits_or_has_outcomes_to_spare_does() -> None:
    require_fits("LogisticRegression", {"in_features": 3}, (3,), 2)
    require_fits("SimpleMLP", {"in_features": 4, "classes": 5}, (2, 2), 3)
    require_fits("SmallCNN", {"in_channels": 1, "size": 8, "classes": 4}, (1, 8, 8), 4)
