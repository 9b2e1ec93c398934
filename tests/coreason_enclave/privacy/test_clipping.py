"""One unit moves the clipped sum by at most the clipping norm, whatever its rows are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer

from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.privacy.kernel.slack import SLACK

SLIGHTLY = 1.01 * SLACK
"""Clipping stays below the bound by this share of it."""


class Steps(Protocol):
    def clipped_sum(
        self, model: torch.nn.Module, features: torch.Tensor, targets: torch.Tensor, units: Any, norm: float
    ) -> torch.Tensor: ...


def network(kind: str, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    layers: dict[str, list[torch.nn.Module]] = {
        "linear": [torch.nn.Linear(6, 2)],
        "mlp": [torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)],
        "conv": [torch.nn.Unflatten(1, (1, 6)), torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2)],
    }
    return torch.nn.Sequential(*layers[kind]).double()


def some_rows(rows: int, seed: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows, 6, generator=generator, dtype=torch.float64) * scale
    return features, torch.randn(rows, 2, generator=generator, dtype=torch.float64) * scale


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(["linear", "mlp", "conv"]),
    units=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    seed=st.integers(0, 1000),
    norm=st.sampled_from([1e-3, 1.0, 50.0]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_a_unit_added_or_removed_moves_the_sum_by_at_most_the_norm(
    steps: Steps, kind: str, units: list[int], seed: int, norm: float, scale: float
) -> None:
    model, ids = network(kind, seed), np.array(units)
    features, targets = some_rows(len(ids), seed, scale)
    stays = ids != ids[0]

    everybody = steps.clipped_sum(model, features, targets, ids, norm)
    others = steps.clipped_sum(model, features[stays], targets[stays], ids[stays], norm)

    assert (everybody - others).norm().item() <= norm


def test_rows_of_a_person_that_cancel_contribute_what_is_left_and_not_more(steps: Steps) -> None:
    """Two rows with opposite gradients of size 1e9 and a small one between, which float32 would lose."""
    model = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.zeros_(model.weight)
    features = torch.tensor([[1.0], [1.0], [1.0]], dtype=torch.float64)
    targets = torch.tensor([[1e9], [0.25], [-1e9]], dtype=torch.float64)

    moved = steps.clipped_sum(model, features, targets, [5, 5, 5], norm=10.0)

    assert moved.item() == pytest.approx(-2 * 0.25, rel=SLIGHTLY)


def test_a_duplicated_row_counts_once_per_unit_and_twice_as_two_units(steps: Steps) -> None:
    model = network("linear", 0)
    features, targets = some_rows(1, 3, scale=100.0)
    features, targets = features.repeat(2, 1), targets.repeat(2, 1)

    as_one = steps.clipped_sum(model, features, targets, [1, 1], norm=1.0)
    as_two = steps.clipped_sum(model, features, targets, [1, 2], norm=1.0)

    assert as_one.norm().item() == pytest.approx(1.0, rel=SLIGHTLY)
    assert as_two.norm().item() == pytest.approx(2.0, rel=SLIGHTLY)


@pytest.mark.parametrize("huge", [1e10, 1e30])
def test_a_huge_gradient_is_clipped_to_the_norm_exactly(steps: Steps, huge: float) -> None:
    features, targets = some_rows(1, 0, scale=huge)

    norm = steps.clipped_sum(network("linear", 0), features, targets, [0], 0.5).norm().item()

    assert norm == pytest.approx(0.5, rel=SLIGHTLY)
    assert norm < 0.5


POISON = {"infinite": float("inf"), "not a number": float("nan"), "overflowing when squared": 1e200}


@pytest.mark.parametrize("value", POISON.values(), ids=POISON)
def test_a_unit_whose_gradient_is_not_finite_contributes_nothing_and_betrays_nothing(
    steps: Steps, value: float
) -> None:
    """A refusal would be a test of membership: it would tell whether that one row was sampled."""
    model, units = network("linear", 0), np.array([0, 1, 1, 2])
    features, targets = some_rows(4, 0)
    features[1, 0] = value

    moved = steps.clipped_sum(model, features, targets, units, 1.0)

    without = steps.clipped_sum(model, features[[0, 3]], targets[[0, 3]], [0, 2], 1.0)
    assert torch.allclose(moved, without, atol=1e-12)


def test_without_a_mechanism_a_gradient_that_is_not_finite_is_reported(steps: Any) -> None:
    features, targets = some_rows(3, 0)
    features[1, 0] = float("inf")

    with pytest.raises(UnsafeTrainingError, match="a gradient is not finite"):
        replace(steps, without_mechanism=True).clipped_sum(network("linear", 0), features, targets, [0, 1, 2], 1.0)


def by_autograd(
    model: torch.nn.Module, features: torch.Tensor, targets: torch.Tensor, units: np.ndarray, norm: float
) -> torch.Tensor:
    """Person by person: the gradient of that person's summed row losses, clipped, summed."""
    total = torch.zeros(sum(parameter.numel() for parameter in model.parameters()), dtype=torch.float64)
    for person in np.unique(units):
        rows = torch.from_numpy(np.flatnonzero(units == person))
        loss = sum(torch.nn.functional.mse_loss(model(features[row : row + 1]), targets[row : row + 1]) for row in rows)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        total += flat * min(1.0, norm / flat.norm().item())
    return total


@pytest.mark.parametrize("kind", ["linear", "mlp", "conv"])
@pytest.mark.parametrize("norm", [0.1, 1.0, 1e6])
def test_person_clipping_is_a_brute_force_reference(steps: Steps, kind: str, norm: float) -> None:
    model, units = network(kind, 1), np.array([3, 0, 3, 9, 0, 3, 7])
    features, targets = some_rows(len(units), 1)

    ours = steps.clipped_sum(model, features, targets, units, norm)

    expected = by_autograd(model, features, targets, units, norm)
    assert torch.allclose(ours, expected, atol=1e-12, rtol=SLIGHTLY)


@pytest.mark.parametrize("kind", ["linear", "mlp", "conv"])
def test_record_clipping_is_what_opacus_hooks_give(steps: Steps, kind: str) -> None:
    model, norm = network(kind, 2).float(), 0.3
    features, targets = (tensor.float() for tensor in some_rows(16, 2))
    ours = steps.clipped_sum(model, features, targets, np.arange(16), norm)

    wrapped = GradSampleModule(model)
    theirs = DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.0), noise_multiplier=0.0, max_grad_norm=norm, expected_batch_size=1
    )
    torch.nn.functional.mse_loss(wrapped(features), targets).backward()
    theirs.clip_and_accumulate()
    reference = torch.cat([parameter.summed_grad.reshape(-1) for parameter in model.parameters()])

    assert (ours - reference).abs().max().item() < 1e-6 * 16


def test_a_batch_of_nobody_sums_to_nothing(steps: Steps) -> None:
    for kind in ("linear", "mlp", "conv"):
        features, targets = some_rows(0, 0)
        assert not steps.clipped_sum(network(kind, 0), features, targets, [], 1.0).any()
