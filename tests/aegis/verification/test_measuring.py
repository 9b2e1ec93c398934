"""Utility computed in NumPy agrees with the framework that trained, and tells any other figure apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegis.errors import VerificationFailed
from aegis.evaluation import utility
from aegis.verification.forward import KNOWN, Logits, forward
from aegis.verification.measuring import utility_range
from coreason_enclave.models import initial_weights, known_architectures, predict

MODELS: dict[str, tuple[str, dict[str, int], tuple[int, ...], int]] = {
    "logistic regression": ("LogisticRegression", {"in_features": 7}, (7,), 2),
    "linear, one logit": ("Linear", {"in_features": 7}, (7,), 2),
    "linear, a logit a class": ("Linear", {"in_features": 12, "outputs": 3}, (3, 4), 3),
    "deep perceptron": ("MLP", {"in_features": 6, "hidden": 5, "depth": 3, "outputs": 4}, (6,), 4),
    "perceptron with one logit": ("MLP", {"in_features": 6, "hidden": 5, "depth": 1}, (6,), 2),
    "deep convolutions": (
        "CNN",
        {"in_channels": 2, "height": 9, "width": 12, "outputs": 3, "channels": 3, "depth": 3},
        (2, 9, 12),
        3,
    ),
    "text": ("TextEmbedding", {"vocabulary": 40, "width": 3, "outputs": 2}, (9,), 2),
    "perceptron": ("SimpleMLP", {"in_features": 12, "hidden": 9, "classes": 4}, (12,), 4),
    "perceptron over images": ("SimpleMLP", {"in_features": 16, "hidden": 5, "classes": 2}, (1, 4, 4), 2),
    "convolutions": ("SmallCNN", {"in_channels": 2, "size": 9, "classes": 3, "width": 4}, (2, 9, 9), 3),
    "convolutions of an even size": ("SmallCNN", {"in_channels": 1, "size": 8, "classes": 2, "width": 3}, (1, 8, 8), 2),
}


def some_model(name: str, seed: int, scale: float) -> tuple[Any, ...]:
    arch, args, shape, classes = MODELS[name]
    chance = np.random.default_rng(seed)
    start = initial_weights(arch, args)
    arrays = {key: (scale * chance.normal(size=each.shape)).astype(np.float32) for key, each in start.items()}
    features = chance.normal(size=(60, *shape)).astype(np.float32)
    features[:10] = features[10:20]  # ties
    return arch, args, arrays, features, chance.integers(0, classes, 60)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1 << 30), scale=st.sampled_from([0.01, 0.3, 3.0, 40.0]))
def test_what_torch_measures_lies_within_the_range_and_the_range_is_narrow(name: str, seed: int, scale: float) -> None:
    arch, args, arrays, features, labels = some_model(name, seed, scale)
    measured = utility(predict(arch, args, arrays, features), labels)
    ranges = utility_range(forward(arch, arrays, features.astype(np.float64)), labels)
    assert ranges.keys() == measured.keys()
    for metric, (low, high) in ranges.items():
        assert low <= measured[metric] <= high, metric
    width = ranges["loss"][1] - ranges["loss"][0]
    assert scale > 1 or width < 0.01 * (1 + measured["loss"])  # weights that no training reaches blow the bound up, too


def test_a_figure_that_is_a_little_off_lies_outside() -> None:
    arch, _, arrays, features, labels = some_model("perceptron over images", 5, 0.5)
    ranges = utility_range(forward(arch, arrays, features.astype(np.float64)), labels)
    for metric, off in (("accuracy", 1 / 60), ("loss", 0.001), ("auc", 0.01)):
        low, high = ranges[metric]
        middle = (low + high) / 2
        assert not low <= middle + off <= high, metric
        assert not low <= middle - off <= high, metric


def test_every_architecture_that_comes_with_the_agent_is_measured_without_a_framework() -> None:
    assert {arch for arch, *_ in MODELS.values()} == set(KNOWN)
    assert set(KNOWN) <= set(known_architectures())


@pytest.mark.parametrize("name", MODELS)
def test_the_bound_holds_for_every_single_logit(name: str) -> None:
    """Against the framework's own float32 logits, which differ from the exact ones by less than the bound says."""
    import torch

    from coreason_enclave.models import build, load_weights

    arch, args, arrays, features, _ = some_model(name, 11, 2.0)
    model = build(arch, args)
    load_weights(model.module, arrays)
    with torch.inference_mode():
        shown = model.module(torch.tensor(features)).numpy().astype(np.float64)
    computed = forward(arch, arrays, features.astype(np.float64))
    value, bound = computed.value[:, -shown.shape[1] :], computed.bound[:, -shown.shape[1] :]
    assert (np.abs(shown - value) <= bound).all()
    assert (np.abs(shown - value).max() > 0) == (bound.max() > 0)


UNFIT: dict[str, tuple[str, tuple[int, ...]]] = {
    "features of another width": ("LogisticRegression", (4, 3)),
    "rows in place of images": ("SmallCNN", (4, 7)),
}


@pytest.mark.parametrize(("arch", "shape"), UNFIT.values(), ids=UNFIT)
def test_features_that_do_not_fit_the_model_fail_verification(arch: str, shape: tuple[int, ...]) -> None:
    args = next(args for each, args, *_ in MODELS.values() if each == arch)
    with pytest.raises(VerificationFailed, match="does not fit"):
        forward(arch, initial_weights(arch, args), np.zeros(shape))


def test_a_label_without_an_output_fails_verification() -> None:
    with pytest.raises(VerificationFailed, match="lacks an evaluation label"):
        utility_range(Logits(np.zeros((2, 2)), np.zeros((2, 2))), np.array([0, 2]))


def test_equal_scores_leave_the_auc_between_none_and_all_of_their_pairs() -> None:
    ranges = utility_range(Logits(np.zeros((4, 2)), np.zeros((4, 2))), np.array([0, 1, 0, 1]))
    assert ranges["auc"] == pytest.approx((0, 1), abs=1e-8)
