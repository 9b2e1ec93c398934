from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from coreason_enclave.errors import ConfigurationError, JobRejected, Reason
from coreason_enclave.models import (
    TaskLoss,
    build,
    initial_weights,
    known_architectures,
    layout,
    load_weights,
    predict,
    register,
    registry,
    weights_of,
)
from coreason_enclave.schemas import Task, TaskConfig
from coreason_enclave.wire import model_digest

ARGS: dict[str, dict[str, int]] = {
    "LogisticRegression": {"in_features": 3},
    "SimpleMLP": {"in_features": 3, "hidden": 4, "classes": 5},
    "SmallCNN": {"in_channels": 1, "size": 8, "classes": 10},
    "Linear": {"in_features": 3, "outputs": 2},
    "MLP": {"in_features": 3, "hidden": 4, "depth": 3, "outputs": 5},
    "CNN": {"in_channels": 2, "height": 8, "width": 5, "outputs": 3, "channels": 4},
    "TabularResNet": {"in_features": 3, "width": 4, "blocks": 2},
    "TextEmbedding": {"vocabulary": 11, "width": 4, "outputs": 2},
}


@pytest.fixture
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_REGISTRY", {})
    return


def test_the_architectures_that_come_with_the_agent() -> None:
    assert set(known_architectures()) >= set(ARGS)


REJECTED: dict[str, tuple[str, dict[str, Any], str]] = {
    "an unknown name": ("ResNet9000", {}, "known architectures: CNN, Linear, LogisticRegression"),
    "a dotted path": ("os.system", {"in_features": 3}, "known architectures:"),
    "an entry point": ("torch.nn:Linear", {}, "known architectures:"),
    "another case": ("simplemlp", {"in_features": 3}, "known architectures:"),
    "nothing": ("", {}, "known architectures:"),
    "a missing argument": ("SimpleMLP", {}, "in_features"),
    "an unknown argument": ("SimpleMLP", {"in_features": 3, "device": 1}, "device"),
    "zero": ("SimpleMLP", {"in_features": 0}, "in_features is not"),
    "a negative number": ("SimpleMLP", {"in_features": 3, "hidden": -1}, "hidden is not"),
    "a truth value": ("SimpleMLP", {"in_features": True}, "in_features is not"),
    "a float": ("SimpleMLP", {"in_features": 3.0}, "in_features is not"),
    "text": ("SimpleMLP", {"in_features": "3"}, "in_features is not"),
    "one class": ("SimpleMLP", {"in_features": 3, "classes": 1}, "classes must be at least 2"),
    "three classes for one logit": ("LogisticRegression", {"in_features": 3, "classes": 3}, "use SimpleMLP"),
    "an image too small": ("SmallCNN", {"in_channels": 1, "size": 3, "classes": 2}, "size must be at least 4"),
    "a model that would not fit": ("SimpleMLP", {"in_features": 10**6, "hidden": 10**6}, "parameters, but at most"),
    "a model beyond counting": ("SmallCNN", {"in_channels": 10**6, "size": 10**6, "classes": 10**6}, ""),
}


@pytest.mark.parametrize(("name", "args", "message"), REJECTED.values(), ids=REJECTED.keys())
@pytest.mark.parametrize("ask", [build, layout, initial_weights])
def test_a_job_for_an_unsuitable_model_is_rejected(ask: Any, name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(JobRejected) as rejected:
        ask(name, args)
    assert message in str(rejected.value)
    assert rejected.value.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize("name", ARGS)
def test_the_layout_is_known_without_building_and_true(name: str) -> None:
    built = {key: tuple(value.shape) for key, value in build(name, ARGS[name]).module.state_dict().items()}
    assert layout(name, ARGS[name]) == built
    assert {key: array.shape for key, array in initial_weights(name, ARGS[name]).items()} == built


@pytest.mark.parametrize("name", ARGS)
def test_initial_weights_are_the_same_for_everyone_whatever_was_drawn_before(name: str) -> None:
    torch.manual_seed(1)
    one = initial_weights(name, ARGS[name])
    torch.manual_seed(2)
    torch.rand(7)
    assert model_digest(initial_weights(name, ARGS[name])) == model_digest(one)
    program = (
        "from coreason_enclave.models import initial_weights; from coreason_enclave.wire import model_digest;"
        f"print(model_digest(initial_weights({name!r}, {ARGS[name]!r})))"
    )
    if name == "SimpleMLP":  # one fresh interpreter is enough to rule out hidden state
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == model_digest(one)


def test_initial_weights_leave_the_global_generator_alone_except_for_building() -> None:
    before = torch.get_rng_state()
    layout("SimpleMLP", ARGS["SimpleMLP"])
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_follow_from_the_arguments() -> None:
    one = initial_weights("SimpleMLP", {"in_features": 3, "classes": 2})
    two = initial_weights("SimpleMLP", {"in_features": 3, "classes": 3})
    assert not np.array_equal(one["hidden.weight"], two["hidden.weight"])


def test_logistic_regression_starts_at_zero() -> None:
    weights = initial_weights("LogisticRegression", {"in_features": 3})
    assert {key: array.tolist() for key, array in weights.items()} == {"linear.weight": [[0, 0, 0]], "linear.bias": [0]}


def test_glorot_weights_lie_within_their_bound_and_biases_are_zero() -> None:
    weights = initial_weights("SimpleMLP", {"in_features": 50, "hidden": 50, "classes": 2})
    bound = (6 / (50 + 50)) ** 0.5
    assert 0.9 * bound < np.abs(weights["hidden.weight"]).max() <= bound
    assert abs(float(weights["hidden.weight"].mean())) < 0.05 * bound
    assert not weights["hidden.bias"].any()


@pytest.mark.parametrize("name", ARGS)
def test_weights_survive_loading_and_reading_back(name: str) -> None:
    weights = initial_weights(name, ARGS[name])
    module = build(name, ARGS[name]).module
    load_weights(module, weights)
    again = weights_of(module)
    assert model_digest(again) == model_digest(weights)
    again[next(iter(again))][:] = 7
    assert model_digest(weights_of(module)) == model_digest(weights)  # a copy, not a window


@pytest.mark.parametrize("spoil", ["missing", "extra", "shape"])
def test_weights_of_another_architecture_are_refused(spoil: str) -> None:
    weights = initial_weights("SimpleMLP", ARGS["SimpleMLP"])
    if spoil == "missing":
        del weights["output.bias"]
    elif spoil == "extra":
        weights["rows"] = np.zeros(1, np.float32)
    else:
        weights["output.bias"] = np.zeros(6, np.float32)
    with pytest.raises(ConfigurationError, match="do not fit the architecture"):
        load_weights(build("SimpleMLP", ARGS["SimpleMLP"]).module, weights)


def test_binary_probabilities_are_the_sigmoid_of_the_logit() -> None:
    weights = {"linear.weight": np.array([[1, -2]], np.float32), "linear.bias": np.array([0.5], np.float32)}
    features = np.array([[1, 1], [0, 0], [60, -20]], np.float32)
    logits = features.astype(float) @ [1, -2] + 0.5
    found = predict("LogisticRegression", {"in_features": 2}, weights, features)
    assert found.dtype == np.float64
    assert np.allclose(found[:, 1], 1 / (1 + np.exp(-logits)), rtol=1e-6, atol=0)
    assert np.allclose(found.sum(axis=1), 1)


def test_categorical_probabilities_are_the_softmax_of_a_numpy_forward_pass() -> None:
    args = ARGS["SimpleMLP"]
    w = initial_weights("SimpleMLP", args)
    features = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    logits = np.tanh(features @ w["hidden.weight"].T + w["hidden.bias"]) @ w["output.weight"].T + w["output.bias"]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(predict("SimpleMLP", args, w, features), expected, atol=1e-6)


def test_predicting_in_batches_changes_nothing() -> None:
    args = ARGS["SmallCNN"]
    weights = initial_weights("SmallCNN", args)
    images = np.random.default_rng(0).uniform(-1, 1, (7, 1, 8, 8)).astype(np.float32)
    whole = predict("SmallCNN", args, weights, images)
    assert whole.shape == (7, 10)
    assert np.allclose(predict("SmallCNN", args, weights, images, batch=2), whole, atol=1e-6)


def test_predicting_nothing_is_refused() -> None:
    weights = initial_weights("LogisticRegression", {"in_features": 3})
    with pytest.raises(ConfigurationError, match="no examples"):
        predict("LogisticRegression", {"in_features": 3}, weights, np.zeros((0, 3), np.float32))


def test_the_binary_criterion_is_the_log_loss() -> None:
    logits, labels = torch.tensor([[0.3], [-2.0]]), torch.tensor([1, 0])
    p = 1 / (1 + np.exp(-logits.numpy().ravel()))
    losses = -np.log([p[0], 1 - p[1]])
    assert TaskLoss(TaskConfig(kind=Task.BINARY))(logits, labels).item() == pytest.approx(losses.mean(), rel=1e-6)
    assert TaskLoss(TaskConfig(kind=Task.BINARY), reduction="none")(logits, labels).tolist() == pytest.approx(
        losses, rel=1e-6
    )


@pytest.mark.parametrize("rows", [0, 1, 2])
@pytest.mark.parametrize("name", ["LogisticRegression", "SimpleMLP"])
def test_the_criterion_takes_samples_of_any_size_even_empty_ones(name: str, rows: int) -> None:
    model = build(name, ARGS[name])
    losses = TaskLoss(model.task, reduction="sum")(
        model.module(torch.zeros(rows, 3)), torch.zeros(rows, dtype=torch.int64)
    )
    assert losses.shape == ()
    assert torch.isfinite(losses)


class _Tiny(nn.Module):
    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.scale = nn.LayerNorm(width)
        self.out = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.scale(x))  # type: ignore[no-any-return]


def test_a_site_adds_an_architecture_in_its_own_code(empty_registry: None) -> None:
    register("Tiny", _Tiny, task=Task.MULTICLASS)
    register("Tiny", _Tiny, task=Task.MULTICLASS)
    assert known_architectures() == ("Tiny",)
    weights = initial_weights("Tiny", {"width": 3})
    assert weights["scale.weight"].tolist() == [1, 1, 1]  # what the builder set stays
    assert predict("Tiny", {"width": 3}, weights, np.ones((1, 3), np.float32)).shape == (1, 2)


def test_a_name_means_one_architecture(empty_registry: None) -> None:
    register("Tiny", _Tiny, task=Task.MULTICLASS)
    with pytest.raises(ConfigurationError, match="already registered"):
        register("Tiny", _Tiny, task=Task.BINARY)
