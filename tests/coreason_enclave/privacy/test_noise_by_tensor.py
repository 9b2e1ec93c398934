"""Noise holds tensor by tensor, whatever the shape, and no tensor, step or round shares another's.

``faults`` is the judge. It finds nothing in what a step really adds, and finds each planted fault by name: a test that
only accepted the right noise would accept a step that forgets the biases.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chi2, kstest
from torch.utils.data import DataLoader, TensorDataset

from coreason_enclave.crypto.keystream import Keystream, Purpose
from coreason_enclave.privacy import PrivacyGuard
from coreason_enclave.privacy.optimizer import PrivateOptimizer
from coreason_enclave.privacy.scope import TrainingScope, enter
from tests.support.training_scopes import a_scope, keystream_of

STEPS, ROWS = 250, 8
SIGMA, NORM = 1.5, 0.4
BY_CHANCE = 1e-7
Residuals = dict[str, np.ndarray]
"""By tensor: what a step without signal added to the sum, in standard deviations; shape (steps, elements)."""


class Dense(torch.nn.Module):
    """Five tensors of 12 elements, and a bias of one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = torch.nn.Linear(9, 12), torch.nn.LayerNorm(12)
        self.second, self.last = torch.nn.Linear(12, 12), torch.nn.Linear(12, 1)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.last(self.second(self.norm(self.first(rows))))


MODELS: dict[str, tuple[Callable[[], torch.nn.Module], torch.Tensor]] = {
    "dense layers and a normalisation": (Dense, torch.zeros(ROWS, 9)),
    "convolutions": (
        lambda: torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 1, 2), torch.nn.Flatten()),
        torch.zeros(ROWS, 1, 4, 4),
    ),
    "an embedding": (
        lambda: torch.nn.Sequential(torch.nn.Embedding(11, 5), torch.nn.Flatten(), torch.nn.Linear(10, 2)),
        torch.zeros(ROWS, 2, dtype=torch.int64),
    ),
}


def residuals(model: torch.nn.Module, rows: torch.Tensor, scope: TrainingScope, steps: int = STEPS) -> Residuals:
    """Read off the gradients that reach the optimizer, through the guard."""
    unit = SIGMA * NORM / (scope.config.sample_rate * scope.nominal_units)
    seen: dict[str, list[np.ndarray]] = {name: [] for name, _ in model.named_parameters()}
    with enter(scope):
        guard = PrivacyGuard(scope.config)
        _, optimizer, loader = guard.attach(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
            data_loader=DataLoader(TensorDataset(rows)),
            criterion=torch.mean,
        )
        for (batch,) in itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), steps):
            optimizer.zero_grad()
            (model(batch) * 0).mean().backward()
            optimizer.step()
            for name, parameter in model.named_parameters():
                seen[name].append(parameter.grad.double().numpy().ravel() / unit)
        guard.detach()
    return {name: np.stack(values) for name, values in seen.items()}


def faults(noise: Residuals) -> set[str]:
    """What is wrong with it, by kind and tensor; each entry appears by chance less than once in a million tests."""
    found = set()
    for name, values in noise.items():
        degrees = values.size
        tail = chi2.cdf((values**2).sum(), degrees)
        if min(tail, 1 - tail) < BY_CHANCE:
            found.add(f"scale of {name}")
        elif kstest(values.ravel(), "norm").pvalue < BY_CHANCE:
            found.add(f"shape of {name}")
        if related(values[:-1], values[1:]):
            found.add(f"steps of {name}")
    for (one, first), (other, second) in itertools.combinations(noise.items(), 2):
        shared = min(first.shape[1], second.shape[1])
        if related(first[:, :shared], second[:, :shared]):
            found.add(f"{one} and {other}")
    return found


def related(first: np.ndarray, second: np.ndarray) -> bool:
    """Correlated beyond six standard deviations of independent samples."""
    if not first.std() or not second.std():
        return False  # constant: a fault of scale
    return bool(abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) > 6 / np.sqrt(first.size))


def a_noisy_scope(round_number: int = 1) -> TrainingScope:
    return a_scope(steps=STEPS, noise_multiplier=SIGMA, max_grad_norm=NORM, sample_rate=0.5, round_number=round_number)


@pytest.mark.parametrize("which", MODELS)
def test_every_tensor_gets_noise_of_its_own_of_the_promised_scale(which: str) -> None:
    make, rows = MODELS[which]
    model = make()

    noise = residuals(model, rows, a_noisy_scope())

    assert noise.keys() == {name for name, _ in model.named_parameters()}
    assert faults(noise) == set()


def planted(monkeypatch: pytest.MonkeyPatch, scale: Callable[[str, torch.nn.Parameter], float]) -> None:
    """Multiply the noise of each tensor by ``scale``, after the real step added it."""
    add_noise = PrivateOptimizer.add_noise

    def wrong(optimizer: PrivateOptimizer) -> None:
        add_noise(optimizer)
        for parameter in optimizer.params:
            parameter.grad *= scale(optimizer._names[parameter], parameter)

    monkeypatch.setattr(PrivateOptimizer, "add_noise", wrong)


def renamed(monkeypatch: pytest.MonkeyPatch, rename: Callable[[int, str, int], tuple[int, str]]) -> None:
    """Let draws of noise share a name: ``rename`` takes step, tensor and number of elements."""
    normal = Keystream.normal

    def wrong(stream: Keystream, count: int, purpose: Purpose, step: int, tensor: str = "") -> np.ndarray:
        return normal(stream, count, purpose, *rename(step, tensor, count))

    monkeypatch.setattr(Keystream, "normal", wrong)


def dense() -> Residuals:
    return residuals(Dense(), MODELS["dense layers and a normalisation"][1], a_noisy_scope())


def test_no_noise_on_biases_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, lambda name, parameter: 0.0 if name.endswith("bias") else 1.0)
    assert faults(dense()) == {f"scale of {layer}.bias" for layer in ("first", "norm", "second", "last")}


@pytest.mark.parametrize("factor", [0.85, 1.2])
def test_another_scale_on_one_tensor_alone_is_found(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    planted(monkeypatch, lambda name, parameter: factor if name == "norm.weight" else 1.0)
    assert faults(dense()) == {"scale of norm.weight"}


def test_less_noise_on_a_tensor_of_one_element_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, lambda name, parameter: 0.7 if parameter.numel() == 1 else 1.0)
    assert faults(dense()) == {"scale of last.bias"}


def test_one_noise_for_all_tensors_of_a_size_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    renamed(monkeypatch, lambda step, tensor, count: (step, str(count)))
    twelve = ["first.bias", "norm.weight", "norm.bias", "second.bias", "last.weight"]
    assert faults(dense()) >= {f"{one} and {other}" for one, other in itertools.combinations(twelve, 2)}


def test_one_noise_for_all_tensors_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    renamed(monkeypatch, lambda step, tensor, count: (step, ""))
    assert "first.bias and last.weight" in faults(dense())


def test_the_noise_of_the_step_before_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    renamed(monkeypatch, lambda step, tensor, count: (step // 2, tensor))
    assert {"steps of first.weight", "steps of last.bias"} <= faults(dense())


def test_rounds_share_no_noise_in_any_tensor() -> None:
    rows = MODELS["dense layers and a normalisation"][1]
    first, second = (residuals(Dense(), rows, a_noisy_scope(number), 150) for number in (1, 2))
    assert not [name for name in first if related(first[name], second[name])]


SHAPES = {"a single number": (), "one element": (1,), "a bias": (7,), "a matrix": (5, 3), "a kernel": (2, 3, 4, 1)}


def test_noise_is_added_in_every_shape() -> None:
    parameters = {torch.nn.Parameter(torch.zeros(shape)): name for name, shape in SHAPES.items()}
    for parameter in parameters:
        parameter.summed_grad = torch.zeros(parameter.shape, dtype=torch.float64)  # type: ignore[attr-defined]
    seen: dict[str, list[np.ndarray]] = {name: [] for name in SHAPES}

    for step in range(STEPS):
        step_of = SimpleNamespace(
            params=list(parameters),
            noise_multiplier=SIGMA,
            max_grad_norm=NORM,
            _step_number=step,
            _keystream=keystream_of(),
            _names=parameters,
        )
        PrivateOptimizer.add_noise(step_of)  # type: ignore[arg-type]
        for parameter, name in parameters.items():
            assert parameter.grad.shape == SHAPES[name]
            seen[name].append(parameter.grad.double().numpy().ravel() / (SIGMA * NORM))

    assert faults({name: np.stack(values) for name, values in seen.items()}) == set()
