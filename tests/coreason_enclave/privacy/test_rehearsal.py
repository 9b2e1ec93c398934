"""A function that mixes rows is refused by name before any real row is read: in the model, the loss, or the loop."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.privacy import PrivacyGuard
from coreason_enclave.privacy.kernel import arithmetic
from coreason_enclave.privacy.scope import TrainingScope, enter

Make = Callable[..., TrainingScope]
Criterion = Callable[..., torch.Tensor]


class Through(nn.Module):
    """A function between two layers."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.function, self.last = nn.Linear(4, 6), function, nn.Linear(6, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.function(self.first(rows)))
        return out


def network(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), *middle, nn.Linear(6, 3))


class Centred(nn.Module):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows - rows.mean(0)


def by_frequency(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    weights = 1.0 / torch.bincount(labels, minlength=3).clamp(min=1)
    return functional.cross_entropy(outputs, labels, weight=weights.float())


def with_variance(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels) + outputs.var(0).sum()


def class_weighted(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A mean that torch divides by the sum of the weights of the labels that the batch happens to hold."""
    return functional.cross_entropy(outputs, labels, weight=torch.tensor([1.0, 5.0, 2.0]))


def only_the_worst(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, labels, reduction="none").topk(3).values.mean()


MIXING_MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "mean over the batch": (
        lambda: Through(lambda x: x - x.mean(0)),
        r"the input of layer 'last' \(Linear\)",
    ),
    "batch norm as a function": (
        lambda: Through(lambda x: functional.batch_norm(x, None, None, training=True)),
        r"the input of layer 'last' \(Linear\)",
    ),
    "a module that centres": (lambda: network(Centred()), r"layer '1' \(Centred\)"),
    "softmax over the rows": (lambda: network(nn.Softmax(0)), r"layer '1' \(Softmax\)"),
    "dropout as a function": (
        lambda: Through(lambda x: functional.dropout(x, 0.5)),
        "the input of layer 'last'",
    ),
    "rows in another order": (lambda: Through(lambda x: x.flip(0)), "the input of layer 'last'"),
    "attention over the rows": (
        lambda: Through(lambda x: (x @ x.T).softmax(1) @ x),
        "the input of layer 'last'",
    ),
    "the largest of the batch": (lambda: Through(lambda x: x / x.abs().max()), "the input of layer 'last'"),
    "only backward": (
        lambda: Through(lambda x: x + (x - x.detach()).mean(0)),
        "the gradient at the output of layer 'first'",
    ),
}
MIXING_LOSSES: dict[str, Criterion] = {
    "classes weighed by their frequency": by_frequency,
    "class weights under a mean": class_weighted,
    "variance over the batch": with_variance,
    "the worst rows": only_the_worst,
    "a square of the mean": lambda outputs, labels: functional.cross_entropy(outputs, labels) ** 2,
}
REFUSED_LAYERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "BatchNorm": (
        lambda: network(nn.BatchNorm1d(6, affine=False, track_running_stats=False)),
        "BatchNorm becomes GroupNorm",
    ),
    "Dropout": (lambda: network(nn.Dropout(0.1)), r"'1' \(Dropout\): its mask depends on the row's position"),
    "LSTM": (lambda: nn.LSTM(4, 3), "recurrent layers are not supported yet"),
    "attention": (lambda: nn.MultiheadAttention(4, 2), "build attention from Linear layers"),
    "PReLU": (lambda: network(nn.PReLU()), r"'1' \(PReLU\) has its own parameters"),
    "Conv3d": (lambda: nn.Conv3d(1, 1, 2), "has its own parameters"),
    "groups": (lambda: nn.Conv1d(2, 2, 1, groups=2), "use groups=1"),
    "sparse embedding": (lambda: nn.Embedding(3, 2, sparse=True), "sparse gradients"),
    "embedding with max_norm": (lambda: nn.Embedding(3, 2, max_norm=1.0), "max_norm changes weights"),
    "half precision": (lambda: nn.Linear(2, 2).half(), "must be float32 or float64"),
    "tied": (lambda: tied(), "share a parameter"),
}


def tied() -> nn.Module:
    model = network(nn.Linear(6, 6))
    model[1].weight = nn.Parameter(torch.zeros(6, 6))
    added = nn.Linear(6, 6)
    added.weight = model[1].weight
    return nn.Sequential(model, added)


class Unreadable(Dataset[Any]):
    """Rows that must not be read: only the first one's shape may be asked for."""

    def __init__(self, rows: int = 40) -> None:
        self.rows, self.read = rows, set[int]()

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> Any:
        self.read.add(row)
        return torch.randn(4), int(row % 3)


def attach(make_scope: Make, model: nn.Module, criterion: Criterion | None, data: Any = None, **changes: Any) -> Any:
    rows = TensorDataset(torch.randn(40, 4), torch.arange(40) % 3) if data is None else data
    with enter(make_scope(nominal_units=40, sample_rate=0.5, **changes)) as scope:
        guard = PrivacyGuard(scope.config)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return guard, guard.attach(model=model, optimizer=optimizer, data_loader=DataLoader(rows), criterion=criterion)


@pytest.mark.parametrize(("make", "named"), MIXING_MODELS.values(), ids=MIXING_MODELS)
def test_a_model_that_mixes_rows_is_refused_by_the_name_of_what_mixes(
    make: Callable[[], nn.Module], named: str, make_scope: Make
) -> None:
    data = Unreadable()
    with pytest.raises(UnsafeTrainingError, match=f"^{named}.* depends on other rows, so clipping fails"):
        attach(make_scope, make(), functional.cross_entropy, data)
    assert data.read <= {0}


@pytest.mark.parametrize("criterion", MIXING_LOSSES.values(), ids=MIXING_LOSSES)
def test_a_loss_that_mixes_rows_is_refused(criterion: Criterion, make_scope: Make) -> None:
    with pytest.raises(UnsafeTrainingError, match=r"^the gradient of the loss depends on other rows"):
        attach(make_scope, network(), criterion)


def test_a_loss_that_sums_is_refused_by_name(make_scope: Make) -> None:
    with pytest.raises(UnsafeTrainingError, match=r"the loss sums over the batch.*use reduction='mean'"):
        attach(make_scope, network(), nn.CrossEntropyLoss(reduction="sum"))


@pytest.mark.parametrize(("make", "named"), REFUSED_LAYERS.values(), ids=REFUSED_LAYERS)
def test_a_layer_that_is_not_taken_row_by_row_is_refused_with_what_to_do(
    make: Callable[[], nn.Module], named: str, make_scope: Make
) -> None:
    model = make()
    kinds = [type(module) for module in model.modules()]
    with pytest.raises(UnsafeTrainingError, match=named):
        attach(make_scope, model, functional.cross_entropy)
    assert [type(module) for module in model.modules()] == kinds


def test_a_loss_without_a_gradient_shows_nothing_and_is_refused(make_scope: Make) -> None:
    with pytest.raises(UnsafeTrainingError, match="independence of rows is not shown"):
        attach(make_scope, network(), lambda outputs, _: (outputs * 0).mean())


def test_a_loss_that_fails_on_synthetic_rows_is_refused(make_scope: Make) -> None:
    with pytest.raises(UnsafeTrainingError, match=r"fail on the rehearsal's synthetic rows: no such label"):
        attach(make_scope, network(), failing)


def failing(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    raise ValueError("no such label")


def test_a_penalty_on_the_weights_is_refused(make_scope: Make) -> None:
    model = network()

    def penalised(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(outputs, labels) + sum(p.square().sum() for p in model.parameters())

    with pytest.raises(UnsafeTrainingError, match=r"a gradient from outside its layer.*weight_decay"):
        attach(make_scope, model, penalised)


APART: dict[str, tuple[Callable[[], nn.Module], Criterion]] = {
    "cross-entropy": (network, functional.cross_entropy),
    "label smoothing": (network, nn.CrossEntropyLoss(label_smoothing=0.1)),
    "a mean of the single losses": (
        network,
        lambda outputs, labels: functional.cross_entropy(outputs, labels, reduction="none").mean(),
    ),
    "activations": (
        lambda: network(nn.ReLU(inplace=True), nn.GELU(), nn.SiLU(), nn.Softplus(), nn.ELU(), nn.Sigmoid()),
        functional.cross_entropy,
    ),
    "normalised": (lambda: network(nn.LayerNorm(6), nn.Softmax(1)), functional.cross_entropy),
    "a residual": (lambda: Through(lambda x: x + torch.tanh(x)), functional.cross_entropy),
}


@pytest.mark.parametrize(("make", "criterion"), APART.values(), ids=APART)
def test_what_keeps_rows_apart_is_trained(
    make: Callable[[], nn.Module], criterion: Criterion, make_scope: Make
) -> None:
    guard, (model, optimizer, loader) = attach(make_scope, make(), criterion)
    features, labels = next(iter(loader))
    assert len(features) == 64
    optimizer.zero_grad()
    criterion(model(features), labels).backward()
    assert all(parameter.grad is None for parameter in model.parameters()), "an un-noised sum is nowhere"
    optimizer.step()
    assert guard.steps_taken == 1


def test_without_a_criterion_the_first_batches_are_synthetic_and_change_nothing(make_scope: Make) -> None:
    data, model = Unreadable(), network()
    before = copy.deepcopy(model.state_dict())
    guard, (module, optimizer, loader) = attach(make_scope, model, None, data)
    for number, (features, labels) in enumerate(loader, start=1):
        optimizer.zero_grad()
        functional.cross_entropy(module(features), labels).backward()
        optimizer.step()
        if number <= 4:
            assert guard.steps_taken == 0
            assert data.read <= {0}
            assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (number, guard.steps_taken) == (6, 2)
    assert len(data.read) > 1


@pytest.mark.parametrize("criterion", [by_frequency, with_variance, nn.CrossEntropyLoss(reduction="sum")])
def test_without_a_criterion_a_mixing_loss_is_refused_before_a_row_is_read(criterion: Any, make_scope: Make) -> None:
    data = Unreadable()
    guard, (module, optimizer, loader) = attach(make_scope, network(), None, data)

    def train() -> None:
        for features, labels in loader:
            optimizer.zero_grad()
            criterion(module(features), labels).backward()
            optimizer.step()

    for _ in range(2):  # asked again, it is refused again
        with pytest.raises(UnsafeTrainingError, match="the loss"):
            train()
    assert (guard.steps_taken, data.read) == (0, {0})


def test_a_loop_that_mixes_rows_before_the_model_sees_them_is_refused(make_scope: Make) -> None:
    _, (module, optimizer, loader) = attach(make_scope, network(), None)

    def train() -> None:
        for features, labels in loader:
            optimizer.zero_grad()
            functional.cross_entropy(module(features - features.mean(0)), labels).backward()
            optimizer.step()

    with pytest.raises(UnsafeTrainingError, match="the loop's input to the model depends"):
        train()


def test_the_probe_finds_what_mixes_in_larger_blocks_than_the_rehearsal_has(make_scope: Make) -> None:
    model = Through(lambda rows: rows if len(rows) < 200 else rows - rows.mean(0))

    with pytest.raises(UnsafeTrainingError, match="the input of layer 'last'"):
        attach(make_scope, model, functional.cross_entropy)


def test_products_that_round_by_the_alignment_of_memory_are_refused(
    make_scope: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arithmetic, "_mode", lambda: 1)

    with pytest.raises(UnsafeTrainingError, match="set MKL_CBWR=AVX2,STRICT before Python starts"):
        attach(make_scope, network(), functional.cross_entropy)


def test_copies_of_an_attached_model_are_plain_and_detaching_gives_it_back(make_scope: Make) -> None:
    model = network(nn.LayerNorm(6))
    kinds = [type(module) for module in model.modules()]
    rows = torch.randn(5, 4)
    expected = model(rows)

    guard, _ = attach(make_scope, model, functional.cross_entropy)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    with torch.no_grad():
        assert torch.allclose(model(rows), expected, atol=1e-6)
    guard.detach()

    for one in (model, *copies):
        assert [type(module) for module in one.modules()] == kinds
        assert torch.equal(one(rows), expected)


def test_other_threads_than_those_of_the_probe_are_refused(make_scope: Make) -> None:
    _, (module, optimizer, loader) = attach(make_scope, network(), functional.cross_entropy)
    features, labels = next(iter(loader))
    functional.cross_entropy(module(features), labels).backward()
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(UnsafeTrainingError, match="number of threads changed"):
            optimizer.step()
    finally:
        torch.set_num_threads(threads)
