"""Each task's measures against scikit-learn, statsmodels, or a count of every pair by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics
from statsmodels.duration.survfunc import SurvfuncRight

from aegis.errors import InvalidJob
from aegis.evaluation import utility
from coreason_enclave.schemas import Task


def probabilities(random: np.random.Generator, rows: int, classes: int) -> np.ndarray:
    raw = random.uniform(0.01, 1, (rows, classes))
    return raw / raw.sum(axis=1, keepdims=True)


def test_two_classes_have_accuracy_loss_and_area() -> None:
    random = np.random.default_rng(1)
    given_, labels = probabilities(random, 300, 2), random.integers(0, 2, 300)
    found = utility(given_, labels, Task.BINARY)

    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, given_[:, 1] > 0.5))
    assert found["loss"] == pytest.approx(metrics.log_loss(labels, given_[:, 1]))
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, given_[:, 1]))


def test_several_classes_have_no_area() -> None:
    random = np.random.default_rng(2)
    given_, labels = probabilities(random, 200, 4), random.integers(0, 4, 200)

    assert utility(given_, labels, Task.MULTICLASS) == {
        "accuracy": pytest.approx(metrics.accuracy_score(labels, given_.argmax(axis=1))),
        "loss": pytest.approx(metrics.log_loss(labels, given_)),
    }


def test_labels_are_measured_each_for_itself() -> None:
    random = np.random.default_rng(3)
    given_, labels = random.uniform(0.01, 0.99, (150, 3)), random.integers(0, 2, (150, 3)).astype(np.float32)
    found = utility(given_, labels, Task.MULTILABEL)

    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, given_, average="macro"))
    assert found["loss"] == pytest.approx(np.mean([metrics.log_loss(labels[:, k], given_[:, k]) for k in range(3)]))
    assert found["accuracy"] == pytest.approx(((given_ >= 0.5) == labels).mean())


def test_a_label_that_never_occurs_has_no_area_and_hides_no_other() -> None:
    random = np.random.default_rng(4)
    given_, labels = random.uniform(0.01, 0.99, (80, 2)), random.integers(0, 2, (80, 2)).astype(np.float32)
    labels[:, 0] = 0

    found = utility(given_, labels, Task.MULTILABEL)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels[:, 1], given_[:, 1]))
    labels[:, 1] = 1
    assert "auc" not in utility(given_, labels, Task.MULTILABEL)


def test_a_number_has_its_errors_and_the_share_that_is_explained() -> None:
    random = np.random.default_rng(5)
    given_, labels = random.normal(size=120), random.normal(size=120).astype(np.float32)
    found = utility(given_, labels, Task.REGRESSION)

    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(labels, given_))
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(labels, given_))
    assert found["r2"] == pytest.approx(metrics.r2_score(labels, given_))


def test_a_constant_label_leaves_nothing_to_explain() -> None:
    assert "r2" not in utility(np.array([0.1, 0.2]), np.array([0.5, 0.5]), Task.REGRESSION)


def test_a_count_has_the_deviance_of_poissons_law() -> None:
    random = np.random.default_rng(6)
    rates, labels = random.uniform(0.1, 9, 200), random.integers(0, 12, 200).astype(np.float32)
    found = utility(rates, labels, Task.COUNT)

    assert found["deviance"] == pytest.approx(metrics.mean_poisson_deviance(labels, rates))
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(labels, rates))


# --- survival ---------------------------------------------------------------------------------------------------------


def lives(seed: int, rows: int, intervals: int) -> tuple[np.ndarray, np.ndarray]:
    """Survival curves, and labels: intervals lived through, 1 for an event in the next."""
    random = np.random.default_rng(seed)
    survival = np.cumprod(random.uniform(0.3, 1, (rows, intervals)), axis=1)
    event = random.integers(0, 2, rows)
    lived = random.integers(0, intervals + 1 - event)
    return survival, np.stack([lived, event], axis=1)


def pairs_by_hand(survival: np.ndarray, labels: np.ndarray) -> float | None:
    scores = []
    for (one, (lived, event)), (other, (lived_too, _)) in product(enumerate(labels), repeat=2):
        if event and lived_too > lived:
            mine, theirs = survival[one, lived], survival[other, lived]
            scores.append(1.0 if mine < theirs else 0.5 if mine == theirs else 0.0)
    return float(np.mean(scores)) if scores else None


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 30), rows=st.integers(2, 25), intervals=st.integers(1, 5))
def test_concordance_counts_every_comparable_pair(seed: int, rows: int, intervals: int) -> None:
    survival, labels = lives(seed, rows, intervals)
    survival[: rows // 2] = survival[0]  # ties

    assert utility(survival, labels, Task.SURVIVAL).get("concordance") == pytest.approx(pairs_by_hand(survival, labels))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30))
def test_the_brier_score_weighs_each_row_by_statsmodels_estimate_of_censoring(seed: int) -> None:
    intervals = 4
    survival, labels = lives(seed, 60, intervals)
    lived, event = labels.T
    # On one axis: an event of interval s at s + 0.5, a row that is censored after s intervals at s.
    times = np.where(event == 1, lived + 0.5, lived)
    leaves = (event == 0) & (lived < intervals)
    assume(leaves.any())
    estimate = SurvfuncRight(np.maximum(times, 1e-3), leaves.astype(int))

    def seen(time: float) -> float:
        before = estimate.surv_times <= max(time, 1e-3)
        return float(estimate.surv_prob[before][-1]) if before.any() else 1.0

    expected = []
    for interval in range(intervals):
        if seen(interval) <= 0:
            continue
        terms = []
        for curve, s, e in zip(survival[:, interval], lived, event, strict=True):
            if e and s <= interval:
                terms.append(curve**2 / seen(s))
            elif s > interval:
                terms.append((1 - curve) ** 2 / seen(interval))
            else:
                terms.append(0.0)
        expected.append(np.mean(terms))
    assert utility(survival, labels, Task.SURVIVAL)["brier"] == pytest.approx(float(np.mean(expected)))


def test_without_censoring_the_brier_score_is_the_mean_squared_error() -> None:
    random = np.random.default_rng(9)
    survival = np.cumprod(random.uniform(0.3, 1, (40, 3)), axis=1)
    lived = random.integers(0, 3, 40)
    labels = np.stack([lived, np.ones(40, np.int64)], axis=1)
    alive = lived[:, None] > np.arange(3)

    assert utility(survival, labels, Task.SURVIVAL)["brier"] == pytest.approx(((alive - survival) ** 2).mean())


def test_a_life_without_an_event_or_a_pair_leaves_concordance_out() -> None:
    found = utility(np.array([[0.5, 0.4]]), np.array([[2, 0]]), Task.SURVIVAL)

    assert found["loss"] == pytest.approx(-np.log(0.4))
    assert "concordance" not in found


MISFITS: dict[str, tuple[Task, np.ndarray, np.ndarray, str]] = {
    "numbers for classes": (Task.BINARY, np.full((2, 2), 0.5), np.array([0.0, 1.0], np.float32), "whole numbers"),
    "a class too many": (Task.MULTICLASS, np.full((2, 3), 1 / 3), np.array([0, 3]), "beyond the model's 3 outputs"),
    "a class below zero": (Task.BINARY, np.full((2, 2), 0.5), np.array([0, -1]), "beyond the model's 2 outputs"),
    "classes for a number": (Task.REGRESSION, np.zeros(2), np.array([0, 1]), r"float32 of shape \(2,\)"),
    "one label for three": (Task.MULTILABEL, np.full((2, 3), 0.5), np.zeros(2, np.float32), r"\(2, 3\), got \(2,\)"),
    "survival without events": (Task.SURVIVAL, np.full((2, 3), 0.5), np.array([1, 2]), r"shape \(2, 2\)"),
    "an interval too late": (Task.SURVIVAL, np.full((1, 3), 0.5), np.array([[3, 1]]), "beyond the model's 3"),
    "fewer labels than rows": (Task.BINARY, np.full((2, 2), 0.5), np.array([1]), r"got \(1,\)"),
}


@pytest.mark.parametrize(("kind", "given_", "labels", "message"), MISFITS.values(), ids=MISFITS)
def test_labels_of_another_task_are_refused(kind: Task, given_: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidJob, match=message):
        utility(given_, labels, kind)
