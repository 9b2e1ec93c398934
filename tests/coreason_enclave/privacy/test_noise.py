"""The noise that really reaches the weights: its scale, its grid, its denominator, its freshness."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torch.utils.data import DataLoader, TensorDataset

from coreason_enclave.crypto.keystream import noise_grid
from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.privacy import PrivacyGuard
from coreason_enclave.privacy.optimizer import PrivateOptimizer
from coreason_enclave.privacy.scope import TrainingScope, enter

Make = Callable[..., TrainingScope]
INPUTS, OUTPUTS = 400, 300
ROWS = 64


class Flat(torch.nn.Module):
    """A large linear model whose loss below is constant: every step that it takes is noise."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(INPUTS, OUTPUTS, dtype=dtype)
        torch.nn.init.zeros_(self.layer.weight)
        torch.nn.init.zeros_(self.layer.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer(features)


def noises(scope: TrainingScope, steps: int, *, attaches: int = 1) -> list[np.ndarray]:
    """The noise on the sum in each step, read off the weights: learning rate 1, undone by the public denominator."""
    model, seen = Flat(), []
    data = TensorDataset(torch.zeros(ROWS, INPUTS, dtype=torch.float64))
    denominator = scope.config.sample_rate * scope.nominal_units
    with enter(scope):
        guard = PrivacyGuard(scope.config)
        for _ in range(attaches):
            optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
            _, private, loader = guard.attach(
                model=model, optimizer=optimizer, data_loader=DataLoader(data), criterion=torch.mean
            )
            for _, (features,) in zip(range(steps), loader, strict=False):
                private.zero_grad()
                (model(features) * 0).sum().backward()
                private.step()
                seen.append(-model.layer.weight.grad.numpy().ravel() * denominator)
        guard.detach()
    return seen


def measured_noise_multiplier(scope: TrainingScope) -> float:
    """From the residual of one step without signal: 120 000 coordinates, good to half a per cent."""
    (residual,) = noises(scope, 1)
    return float(np.sqrt((residual**2).mean())) / scope.config.max_grad_norm


@pytest.mark.parametrize(("noise", "norm"), [(1.0, 1.0), (0.5, 2.0), (8.0, 0.1)])
def test_the_residual_noise_of_a_step_is_what_was_promised(make_scope: Make, noise: float, norm: float) -> None:
    scope = make_scope(noise_multiplier=noise, max_grad_norm=norm)

    assert measured_noise_multiplier(scope) == pytest.approx(noise, rel=0.01)


def test_noise_cut_in_half_would_be_seen(make_scope: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = PrivateOptimizer.add_noise

    def halved(self: PrivateOptimizer) -> None:
        self.noise_multiplier /= 2
        draw(self)

    monkeypatch.setattr(PrivateOptimizer, "add_noise", halved)

    assert measured_noise_multiplier(make_scope(noise_multiplier=1.0)) == pytest.approx(0.5, rel=0.01)


def test_the_noise_on_the_weights_is_gaussian_of_scale_sigma_times_norm(make_scope: Make) -> None:
    scope = make_scope(noise_multiplier=1.5, max_grad_norm=0.4)
    residual = np.concatenate(noises(scope, 4))

    assert kstest(residual / 0.6, "norm").pvalue > 1e-4
    assert kstest(residual / 0.6 * 1.02, "norm").pvalue < 1e-4
    assert kstest(residual / 0.6 * 0.98, "norm").pvalue < 1e-4


def test_the_noised_sum_lies_on_the_public_grid(make_scope: Make) -> None:
    scope = make_scope(noise_multiplier=1.3, max_grad_norm=0.7, sample_rate=0.125, nominal_units=512)  # divides by 64
    grid = noise_grid(1.3 * 0.7)

    (residual,) = noises(scope, 1)

    assert np.array_equal(residual / grid, np.rint(residual / grid))
    assert len(np.unique(residual)) > 0.9 * len(residual)


@given(deviation=st.floats(1e-9, 1e9))
def test_the_grid_is_a_power_of_two_about_a_millionth_of_the_deviation(deviation: float) -> None:
    grid = noise_grid(deviation)

    assert float(np.log2(grid)).is_integer()
    assert deviation * 2.0**-21 < grid <= deviation * 2.0**-20


@pytest.mark.parametrize("private_rows", [10, ROWS])
def test_the_denominator_is_declared_and_does_not_betray_how_many_rows_there_are(
    make_scope: Make, private_rows: int
) -> None:
    """Everybody sampled, one gradient of 1 each, no noise: the step is count / (rate * nominal)."""
    scope = make_scope(mechanism="NON_PRIVATE", sample_rate=1.0, nominal_units=1000, max_grad_norm=5.0)
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    data = TensorDataset(torch.ones(private_rows, 1))
    with enter(scope):
        guard = PrivacyGuard(scope.config)
        _, private, loader = guard.attach(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
            data_loader=DataLoader(data),
            criterion=torch.mean,
        )
        (features,) = next(iter(loader))
        model(features).mean().backward()
        private.step()

    assert model.weight.item() == pytest.approx(-private_rows / 1000, rel=1e-5)  # clipping leaves a millionth


def test_a_second_attach_continues_the_counters_and_never_uses_noise_again(make_scope: Make) -> None:
    seen = noises(make_scope(steps=6), 2, attaches=3)

    assert len(seen) == 6
    correlations = np.corrcoef(np.stack(seen)) - np.eye(6)
    assert np.abs(correlations).max() < 5 / np.sqrt(INPUTS * OUTPUTS)


def test_the_next_round_and_the_retry_of_a_round_draw_as_they_should(make_scope: Make) -> None:
    (first,), (again,), (second,) = (noises(make_scope(round_number=number), 1) for number in (1, 1, 2))

    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(INPUTS * OUTPUTS)


def test_noise_without_a_step_is_refused(make_scope: Make) -> None:
    scope, model = make_scope(), Flat()
    with enter(scope):
        _, private, _ = PrivacyGuard(scope.config).attach(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
            data_loader=DataLoader(TensorDataset(torch.zeros(4, INPUTS, dtype=torch.float64))),
        )

    with pytest.raises(UnsafeTrainingError, match=r"add_noise\(\) is not supported"):
        private.add_noise()
