"""A strategy's term is added after clipping and noise, whole, in every step, and no event changes for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from coreason_enclave.errors import UnsafeTrainingError
from coreason_enclave.privacy import PrivacyGuard
from coreason_enclave.privacy.drift_correction import ControlTerm, DriftCorrection, ProximalTerm
from coreason_enclave.privacy.scope import TrainingScope, enter
from tests.support.studies import Study, a_job
from tests.support.training_scopes import a_scope

FAR = 1000.0
"""A term of this size would be clipped to 1 before the noise, and divided by the expected 20 units after it."""

TERMS: dict[str, tuple[DriftCorrection, np.ndarray]] = {
    "proximal": (ProximalTerm({"weight": np.full((1, 2), 1.0 - FAR, np.float32)}, mu=2.0), np.full(2, 2 * FAR)),
    "control": (ControlTerm({"weight": np.array([[FAR, -FAR]], np.float32)}), np.array([FAR, -FAR])),
}


def gradients(scope: TrainingScope, steps: int = 1) -> np.ndarray:
    """What an ordinary loop's optimizer steps along, at a learning rate of 0 and weights of 1: (steps, 2)."""
    model = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    rows = torch.Generator().manual_seed(3)
    data = TensorDataset(torch.randn(400, 2, generator=rows), torch.randn(400, 1, generator=rows))
    found: list[Any] = []
    with enter(scope):
        guard = PrivacyGuard(config=scope.config)
        module, optimizer, loader = guard.attach(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
            data_loader=DataLoader(data),
            criterion=torch.nn.functional.mse_loss,
        )
        batches = iter(loader)
        for _ in range(steps):
            features, targets = next(batches)
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(module(features), targets).backward()
            optimizer.step()
            assert model.weight.grad is not None
            found.append(model.weight.grad.reshape(-1).double().numpy().copy())
        guard.detach()
    return np.array(found)


@pytest.mark.parametrize("mechanism", ["DP_SGD", "NON_PRIVATE"])
@pytest.mark.parametrize("kind", TERMS)
def test_each_step_has_the_whole_term_beside_what_it_has_without(kind: str, mechanism: str) -> None:
    term, expected = TERMS[kind]
    without = gradients(a_scope(mechanism=mechanism), steps=4)
    beside = gradients(a_scope(mechanism=mechanism, drift=term), steps=4)
    assert beside - without == pytest.approx(np.tile(expected, (4, 1)), rel=1e-5)
    assert np.abs(without).max() < 10, "clipped or averaged: nothing like the term"


@pytest.mark.parametrize("kind", TERMS)
def test_the_event_is_that_of_the_steps_and_of_nothing_else(kind: str) -> None:
    scopes = [a_scope(), a_scope(drift=TERMS[kind][0])]
    for scope in scopes:
        gradients(scope, steps=3)
    assert scopes[0].event() == scopes[1].event()


def test_a_model_that_the_strategy_has_no_term_for_is_refused_before_a_step() -> None:
    scope = a_scope(drift=ControlTerm({"other": np.zeros((1, 2), np.float32)}))
    with pytest.raises(UnsafeTrainingError, match="the global model lacks 'weight'"):
        gradients(scope)
    assert scope.gate.steps_taken == 0


Federation = Any
EVERYTHING = {"policy": {"strategies": ["FED_AVG", "FED_PROX", "SCAFFOLD"]}}


@pytest.mark.parametrize(
    "rule", [{"aggregator": "krum", "num_byzantine": 1}, {"aggregator": "trimmed_mean", "num_byzantine": 1}]
)
def test_a_private_run_spends_the_same_whatever_the_strategy(
    rule: dict[str, Any], federation: Federation, tmp_path: Path
) -> None:
    spent, models = {}, {}
    for strategy in ("FED_AVG", "FED_PROX", "SCAFFOLD"):
        apart = type(federation)(tmp_path / strategy, federation.signer, federation.now)
        sites = [apart.create(f"clinic-{n}", rows=n, **EVERYTHING) for n in range(1, 6)]
        run = Study(apart, tmp_path / strategy / "run", sites)
        models[strategy] = run.run(a_job(apart, strategy=strategy, momentum=0.0, min_clients=5, **rule))
        entries = [entry for site in sites for entry in site.ledger_entries()]
        spent[strategy] = [
            [entry["event"] for entry in entries if entry["type"] == "committed"],
            [entry["step_cost_pico"] for entry in entries if entry["type"] == "reserved"],
            [(record.epsilon, record.steps) for record in run.history()],
        ]
    assert spent["FED_PROX"] == spent["SCAFFOLD"] == spent["FED_AVG"]
    assert len(spent["FED_AVG"][0]) == 10
    assert len({model["linear.weight"].tobytes() for model in models.values()}) == 3
