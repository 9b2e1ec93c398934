"""Losses and predictions of each task against SciPy and hand calculation, and no row that moves another's gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from coreason_enclave.errors import JobRejected, Reason
from coreason_enclave.models import MAX_LOG_RATE, TaskLoss, evaluate, known_architectures, predict, require_fits
from coreason_enclave.models.tasks import predicted
from coreason_enclave.schemas import RegressionLoss, Task, TaskConfig

CONFIGS: dict[str, tuple[TaskConfig, int]] = {
    "binary by one logit": (TaskConfig(kind=Task.BINARY), 1),
    "binary by two logits": (TaskConfig(kind=Task.BINARY), 2),
    "binary, weighted": (TaskConfig(kind=Task.BINARY, class_weights=(1.0, 7.0)), 1),
    "multiclass": (TaskConfig(kind=Task.MULTICLASS), 3),
    "multiclass, weighted": (TaskConfig(kind=Task.MULTICLASS, class_weights=(1.0, 2.0, 0.25)), 3),
    "multilabel": (TaskConfig(kind=Task.MULTILABEL), 3),
    "squared": (TaskConfig(kind=Task.REGRESSION), 1),
    "absolute": (TaskConfig(kind=Task.REGRESSION, loss=RegressionLoss.ABSOLUTE), 1),
    "huber": (TaskConfig(kind=Task.REGRESSION, loss=RegressionLoss.HUBER, huber_delta=0.3), 1),
    "count": (TaskConfig(kind=Task.COUNT), 1),
    "survival": (TaskConfig(kind=Task.SURVIVAL), 4),
}
EACH = pytest.mark.parametrize("name", CONFIGS)


def drawn(name: str, rows: int, seed: int = 0) -> tuple[TaskConfig, torch.Tensor, torch.Tensor]:
    """A task with outputs and labels for ``rows`` rows."""
    config, outputs = CONFIGS[name]
    random = np.random.default_rng(seed)
    labels: Any
    match config.kind:
        case Task.BINARY:
            labels = random.integers(0, 2, rows)
        case Task.MULTICLASS:
            labels = random.integers(0, 3, rows)
        case Task.MULTILABEL:
            labels = random.integers(0, 2, (rows, 3)).astype(np.float32)
        case Task.REGRESSION:
            labels = random.uniform(-1, 1, rows).astype(np.float32)
        case Task.COUNT:
            labels = random.integers(0, 9, rows).astype(np.float32)
        case Task.SURVIVAL:
            event = random.integers(0, 2, rows)
            labels = np.stack([random.integers(0, 5 - event), event], axis=1)
    return config, torch.tensor(random.normal(size=(rows, outputs)), dtype=torch.float64), torch.tensor(labels)


def by_hand(config: TaskConfig, outputs: np.ndarray, label: Any) -> float:
    """The loss of one row, by SciPy's distributions where there is one."""
    match config.kind:
        case Task.BINARY | Task.MULTICLASS:
            logits = np.concatenate([[0.0], outputs]) if len(outputs) == 1 else outputs
            weight = 1.0 if config.class_weights is None else config.class_weights[int(label)]
            return float(-weight * special.log_softmax(logits)[int(label)])
        case Task.MULTILABEL:
            return float(
                np.mean([-stats.bernoulli(special.expit(z)).logpmf(y) for z, y in zip(outputs, label, strict=True)])
            )
        case Task.REGRESSION:
            error = float(outputs[0]) - float(label)
            if config.loss is RegressionLoss.ABSOLUTE:
                return abs(error)
            return float(special.huber(config.huber_delta, error)) if config.loss is RegressionLoss.HUBER else error**2
        case Task.COUNT:
            constant = math.lgamma(float(label) + 1)  # log y!, which no weight changes
            return float(-stats.poisson(math.exp(outputs[0])).logpmf(int(label))) - constant
        case Task.SURVIVAL:
            hazards, (lived, event) = special.expit(outputs), label.tolist()
            likelihood = math.prod(1 - hazards[:lived]) * (hazards[lived] if event else 1.0)
            return -math.log(likelihood)


@EACH
def test_a_rows_loss_is_the_likelihood_by_hand(name: str) -> None:
    config, outputs, labels = drawn(name, 40)
    found = TaskLoss(config, reduction="none")(outputs, labels)

    assert found.shape == (40,)
    expected = [by_hand(config, outputs[row].numpy(), labels[row]) for row in range(40)]
    assert found.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


@EACH
def test_a_batchs_loss_is_the_mean_of_its_rows_whatever_their_classes(name: str) -> None:
    config, outputs, labels = drawn(name, 17)
    rows = TaskLoss(config, reduction="none")(outputs, labels)

    assert TaskLoss(config)(outputs, labels).item() == pytest.approx(rows.mean().item(), rel=1e-12)
    assert TaskLoss(config, reduction="sum")(outputs, labels).item() == pytest.approx(rows.sum().item(), rel=1e-12)


@EACH
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1 << 30), other=st.integers(0, 1 << 30))
def test_no_row_moves_another_rows_gradient(name: str, seed: int, other: int) -> None:
    config, outputs, labels = drawn(name, 6, seed)
    _, their_outputs, their_labels = drawn(name, 6, other)
    their_outputs[0], their_labels[0] = outputs[0], labels[0]

    def first_gradient(given_outputs: torch.Tensor, given_labels: torch.Tensor) -> torch.Tensor:
        leaf = given_outputs.clone().requires_grad_()
        TaskLoss(config)(leaf, given_labels).backward()
        assert leaf.grad is not None
        return leaf.grad[0]

    assert torch.equal(first_gradient(outputs, labels), first_gradient(their_outputs, their_labels))


def test_a_count_beyond_the_largest_rate_has_a_finite_loss_and_rate() -> None:
    outputs = torch.tensor([[1e30], [-1e30]], dtype=torch.float64)
    losses = TaskLoss(TaskConfig(kind=Task.COUNT), reduction="none")(outputs, torch.tensor([3.0, 3.0]))

    assert losses.tolist() == pytest.approx([math.exp(MAX_LOG_RATE) - 3 * MAX_LOG_RATE, 3 * MAX_LOG_RATE], rel=1e-6)
    assert predicted(TaskConfig(kind=Task.COUNT), outputs).tolist() == pytest.approx(
        [math.exp(MAX_LOG_RATE), math.exp(-MAX_LOG_RATE)]
    )


def test_the_chances_of_all_ends_of_a_life_add_up_to_one() -> None:
    outputs = torch.tensor(np.random.default_rng(3).normal(size=(1, 4)))
    ends = torch.tensor([[interval, 1] for interval in range(4)] + [[4, 0]])
    losses = TaskLoss(TaskConfig(kind=Task.SURVIVAL), reduction="none")(outputs.expand(5, 4), ends)

    assert float(torch.exp(-losses).sum()) == pytest.approx(1.0, rel=1e-12)


def test_survival_falls_from_interval_to_interval_as_the_hazards_say() -> None:
    hazards = np.array([[0.1, 0.5, 0.0]])
    survival = predicted(TaskConfig(kind=Task.SURVIVAL), torch.tensor(special.logit(np.maximum(hazards, 1e-300))))

    assert survival.tolist()[0] == pytest.approx([0.9, 0.45, 0.45])


@EACH
def test_the_sites_own_evaluation_is_the_mean_loss_of_its_rows(name: str) -> None:
    config, _, labels = drawn(name, 25)
    outputs = CONFIGS[name][1]
    features = np.random.default_rng(5).normal(size=(25, 3)).astype(np.float32)
    args = {"in_features": 3, "outputs": outputs, "hidden": 4, "depth": 1}
    from coreason_enclave.models import build, initial_weights, load_weights

    arrays = initial_weights("MLP", args)
    model = build("MLP", args, config)
    load_weights(model.module, arrays)
    unweighted = TaskLoss(TaskConfig(kind=config.kind))
    found = evaluate("MLP", args, arrays, features, labels.numpy(), config)

    assert found["rows"] == 25
    assert found["loss"] == pytest.approx(unweighted(model.module(torch.tensor(features)), labels).item(), rel=1e-5)


FITS: dict[str, tuple[Task, int, int, bool]] = {
    "one logit for two classes": (Task.BINARY, 1, 2, True),
    "two logits for two classes": (Task.BINARY, 2, 2, True),
    "three logits for two classes": (Task.BINARY, 3, 2, False),
    "one logit for three classes": (Task.BINARY, 1, 3, False),
    "more logits than classes": (Task.MULTICLASS, 5, 3, True),
    "fewer logits than classes": (Task.MULTICLASS, 2, 3, False),
    "a logit for each label": (Task.MULTILABEL, 3, 3, True),
    "a logit too many for the labels": (Task.MULTILABEL, 4, 3, False),
    "one value for a number": (Task.REGRESSION, 1, 1, True),
    "two values for a number": (Task.REGRESSION, 2, 1, False),
    "one rate for a count": (Task.COUNT, 1, 1, True),
    "a hazard for each interval": (Task.SURVIVAL, 4, 4, True),
    "a hazard too few": (Task.SURVIVAL, 3, 4, False),
}


@pytest.mark.parametrize(("kind", "given_", "declared", "fits"), FITS.values(), ids=FITS)
def test_a_model_fits_a_label_if_it_gives_what_the_task_needs(
    kind: Task, given_: int, declared: int, fits: bool
) -> None:
    args = {"in_features": 2, "outputs": given_}
    if fits:
        require_fits("Linear", args, (2,), declared, TaskConfig(kind=kind))
        return
    with pytest.raises(JobRejected) as refused:
        require_fits("Linear", args, (2,), declared, TaskConfig(kind=kind))
    assert refused.value.reason is Reason.WRONG_SHAPES


def test_class_weights_must_be_as_many_as_the_declared_classes() -> None:
    weighted = TaskConfig(kind=Task.MULTICLASS, class_weights=(1.0, 2.0))
    with pytest.raises(JobRejected, match="class_weights has 2 numbers, the dataset declares 3 classes"):
        require_fits("Linear", {"in_features": 2, "outputs": 3}, (2,), 3, weighted)


def test_text_is_read_back_from_the_scaled_range_and_fillers_do_not_count() -> None:
    args = {"vocabulary": 1000, "width": 2, "outputs": 1}
    random = np.random.default_rng(1)
    table = random.normal(size=(1000, 2)).astype(np.float32)
    arrays = {
        "embedding.weight": table,
        "output.weight": np.array([[1.0, 10.0]], np.float32),
        "output.bias": np.zeros(1, np.float32),
    }
    tokens = np.array([[5, 999, 0, 0], [1, 2, 3, 4], [0, 0, 0, 0]])
    features = (tokens / 999 * 2 - 1).astype(np.float32)
    found = predict("TextEmbedding", args, arrays, features, task=TaskConfig(kind=Task.REGRESSION))

    means = [table[[5, 999]].mean(0), table[[1, 2, 3, 4]].mean(0), np.zeros(2)]
    assert found.tolist() == pytest.approx([float(mean[0] + 10 * mean[1]) for mean in means], rel=1e-5, abs=1e-6)


def test_every_token_of_a_large_vocabulary_survives_the_scaling() -> None:
    from coreason_enclave.models import TextEmbedding

    model = TextEmbedding(200_000, width=1)
    with torch.no_grad():
        model.embedding.weight.copy_(torch.arange(200_000, dtype=torch.float32)[:, None])
        model.output.weight.fill_(1.0), model.output.bias.zero_()
    tokens = np.arange(1, 200_000)
    features = torch.tensor(((tokens / 199_999) * 2 - 1).astype(np.float32))[:, None]

    assert torch.equal(model(features).squeeze(1), torch.tensor(tokens, dtype=torch.float32))


def test_the_shipped_architectures_are_named_in_the_reference() -> None:
    assert {"Linear", "MLP", "CNN", "TabularResNet", "TextEmbedding"} <= set(known_architectures())
