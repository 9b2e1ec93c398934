"""Whole federations of two sites against plain NumPy: every strategy with every server optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.aegis.strategies.conftest import Rows

Vector = npt.NDArray[np.float64]

RATE, STEPS, ROUNDS, MU = 0.5, 3, 3, 0.4
TWO: list[Rows] = [
    (np.array([[0.5, -0.25, 1.0], [-1.0, 0.75, 0.0], [0.25, 0.5, -0.5]]), np.array([1, 0, 1])),
    (np.array([[-0.5, 1.0, 0.25], [1.0, -1.0, -0.75]]), np.array([1, 1])),
]


def gradient(rows: Rows, x: Vector) -> Vector:
    """Of the mean logistic loss at three weights and a bias."""
    features, labels = rows
    error = 1.0 / (1.0 + np.exp(-(features @ x[:3] + x[3]))) - labels
    return np.append(features.T @ error, error.sum()) / len(labels)


def by_hand(strategy: str, server: dict[str, Any]) -> Vector:
    """The strategies as their papers write them, with the sites' state at the sites."""
    x, c, own = np.zeros(4), np.zeros(4), [np.zeros(4), np.zeros(4)]
    m, v = np.zeros(4), np.full(4, server.get("tau", 1e-3) ** 2)
    for _ in range(ROUNDS):
        updates, moved = [], []
        for site in (0, 1):
            y = x.copy()
            for _ in range(STEPS):
                step = gradient(TWO[site], y)
                if strategy == "FED_PROX":
                    step = step + MU * (y - x)
                if strategy == "SCAFFOLD":
                    step = step - own[site] + c
                y = y - RATE * step
            updates.append(y - x)
            moved.append(own[site] - c + (x - y) / (STEPS * RATE))
        c, own = c + ((moved[0] - own[0]) + (moved[1] - own[1])) / 2, moved
        delta = (updates[0] + updates[1]) / 2
        if server["name"] == "sgd":
            x = x + server["learning_rate"] * delta
            continue
        m = server["beta_1"] * m + (1 - server["beta_1"]) * delta
        towards = delta**2 - v if server["name"] == "adam" else delta**2 * np.sign(delta**2 - v)
        v = v + (1 - server["beta_2"]) * towards
        x = x + server["learning_rate"] * m / (np.sqrt(v) + server["tau"])
    return x


SERVERS = {
    "averaging": {"name": "sgd", "learning_rate": 1.0},
    "a slower server": {"name": "sgd", "learning_rate": 0.5},
    "Adam": {"name": "adam", "learning_rate": 0.1, "beta_1": 0.6, "beta_2": 0.9, "tau": 0.05},
    "Yogi": {"name": "yogi", "learning_rate": 0.1, "beta_1": 0.6, "beta_2": 0.9, "tau": 0.05},
}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("strategy", ["FED_AVG", "FED_PROX", "SCAFFOLD"])
def test_a_federation_comes_to_what_is_computed_by_hand(
    strategy: str, server: str, known: Callable[[Sequence[Rows]], Any], plain_job: Callable[..., Any]
) -> None:
    job = plain_job(
        strategy=strategy,
        server_optimizer=SERVERS[server],
        min_clients=2,
        rounds=ROUNDS,
        local_steps=STEPS,
        learning_rate=RATE,
        proximal_mu=MU,
    )
    model = known(TWO).run(job)
    found = np.append(model["linear.weight"].ravel(), model["linear.bias"])
    expected = by_hand(strategy, SERVERS[server])
    assert found == pytest.approx(expected, rel=2e-5, abs=2e-6)
    others = [by_hand(other, SERVERS[server]) for other in ("FED_AVG", "FED_PROX", "SCAFFOLD") if other != strategy]
    assert min(np.abs(other - found).max() for other in others) > 1e-3, "the strategies cannot be told apart here"
