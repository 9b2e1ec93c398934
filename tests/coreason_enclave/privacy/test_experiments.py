"""Trainings outside a session: a fresh key each, or draws that an injected key shares between equal trainings alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from coreason_enclave.crypto.keystream import Purpose
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.ledger import EphemeralLedger
from coreason_enclave.privacy import PrivacyGuard
from coreason_enclave.privacy.standalone import ExperimentScope, standalone_key, standalone_scope
from coreason_enclave.schemas import PrivacyConfig
from tests.support.training_scopes import a_scope

SEED = bytes(range(32))
WIDTH, ROWS = 2_000, 40
ZEROS = torch.zeros(ROWS, WIDTH)
CONFIG = PrivacyConfig(
    mechanism="DP_SGD", target_epsilon=3.0, noise_multiplier=1.0, max_grad_norm=1.0, sample_rate=0.05
)


def noise_of(
    ledger: EphemeralLedger, seed: bytes | None, rows: Any = ZEROS, config: PrivacyConfig = CONFIG
) -> np.ndarray:
    """What one step without signal adds to the weights, in a training of its own."""
    model = torch.nn.Linear(WIDTH, 1)
    torch.nn.init.zeros_(model.weight)
    dataset = rows if isinstance(rows, list) else TensorDataset(rows)
    with PrivacyGuard(config, ledger=ledger, lineage="clinic", total_steps=1, unsafe_seed=seed) as guard:
        _, optimizer, loader = guard.attach(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
            data_loader=DataLoader(dataset),
            criterion=torch.mean,
        )
        (features,) = next(iter(loader))
        (model(features) * 0).mean().backward()
        optimizer.step()
    return model.weight.detach().numpy().ravel().copy()


def correlated(a: np.ndarray, b: np.ndarray) -> bool:
    """Beyond five standard deviations of independent samples."""
    return bool(abs(np.corrcoef(a, b)[0, 1]) > 5 / np.sqrt(WIDTH))


def test_without_an_injected_key_no_two_trainings_share_noise(ledger: EphemeralLedger) -> None:
    another = EphemeralLedger()
    another.register(ledger.registration("clinic"))
    first, second = noise_of(ledger, None), noise_of(another, None)

    assert not np.array_equal(first, second)
    assert not correlated(first, second)


def test_each_training_without_an_injected_key_has_a_new_secret_one(ledger: EphemeralLedger) -> None:
    """The names of the draws are in the ledger, for auditors to read: the key alone keeps the noise from them."""
    scopes = [PrivacyGuard(CONFIG, ledger=ledger, lineage="clinic", total_steps=1)._scope for _ in range(3)]
    keys = {scope.key for scope in scopes if isinstance(scope, ExperimentScope)} | {standalone_key(None)}

    assert len(keys) == 4
    assert all(len(key) == 32 and len(set(key)) > 8 for key in keys)


def test_one_injected_key_gives_the_same_training_the_same_noise(ledger: EphemeralLedger) -> None:
    assert np.array_equal(noise_of(ledger, SEED), noise_of(ledger, SEED))


ANOTHER = {
    "one row has another value": torch.cat([torch.ones(1, WIDTH), ZEROS[1:]]),
    "a row more": torch.zeros(ROWS + 1, WIDTH),
    "a row less": torch.zeros(ROWS - 1, WIDTH),
    "another type": ZEROS.double().float() + 1e-30,
}


@pytest.mark.parametrize("rows", ANOTHER.values(), ids=ANOTHER)
def test_trainings_on_different_rows_share_no_noise_under_one_injected_key(
    ledger: EphemeralLedger, rows: torch.Tensor
) -> None:
    assert not correlated(noise_of(ledger, SEED), noise_of(ledger, SEED, rows))


def test_schedules_that_differ_share_no_noise_under_one_injected_key(ledger: EphemeralLedger) -> None:
    other = CONFIG.model_copy(update={"noise_multiplier": 1.01})
    assert not correlated(noise_of(ledger, SEED), noise_of(ledger, SEED, config=other))


def test_rows_of_any_data_set_are_told_apart(ledger: EphemeralLedger) -> None:
    lists = [[(row,) for row in rows] for rows in (ZEROS, ANOTHER["one row has another value"])]
    first, again, other = (noise_of(ledger, SEED, rows) for rows in (lists[0], lists[0], lists[1]))

    assert np.array_equal(first, again)
    assert not correlated(first, other)


def test_rows_that_cannot_be_told_apart_are_refused_under_an_injected_key(ledger: EphemeralLedger) -> None:
    with pytest.raises(ConfigurationError, match="unsafe_seed needs tensors"):
        noise_of(ledger, SEED, [(object(),)] * 3)


def test_the_name_of_the_draws_decides_them() -> None:
    made = a_scope()
    draws = [
        standalone_scope(
            made.config, made.reservation, key=SEED, name=name, nominal_units=10, unit_of_row=None
        ).keystream.bytes(32, Purpose.NOISE, 0)
        for name in ("ab" * 32, "ab" * 32, "cd" * 32)
    ]
    assert draws[0] == draws[1] != draws[2]
