"""Sites that are not alike: what the proximal term and the control variates are for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from tests.aegis.strategies.conftest import Rows

ROUNDS, STEPS, RATE, MU = 10, 30, 2.0, 0.05


def unlike(seed: int = 0) -> list[Rows]:
    """Three sites of 200 rows: one question, but each varies in another feature, and answers at another rate."""
    random, sites = np.random.default_rng(seed), list[Rows]()
    for varies, bias in enumerate((3.0, -3.0, 0.0)):
        spread = np.full(3, 0.15)
        spread[varies] = 1.0
        features = np.round(random.uniform(-1, 1, (200, 3)) * spread, 6)
        chance = 1.0 / (1.0 + np.exp(-(features @ [3.0, -2.0, 1.0] + bias)))
        sites.append((features, (random.uniform(size=200) < chance).astype(np.int64)))
    return sites


def loss(sites: Sequence[Rows], x: Any) -> float:
    """The mean logistic loss over all sites, of three weights and a bias."""
    logits = [(features @ x[:3] + x[3], labels) for features, labels in sites]
    return float(np.mean([np.mean(np.logaddexp(0.0, z) - y * z) for z, y in logits]))


def min_loss(sites: Sequence[Rows]) -> float:
    """By Newton's method on all rows together."""
    features = np.concatenate([np.column_stack([x, np.ones(len(x))]) for x, _ in sites])
    labels, x = np.concatenate([y for _, y in sites]), np.zeros(4)
    for _ in range(30):
        p = 1.0 / (1.0 + np.exp(-features @ x))
        x -= np.linalg.solve((features * (p * (1 - p))[:, None]).T @ features, features.T @ (p - labels))
    return loss(sites, x)


def test_the_proximal_term_and_the_variates_find_the_common_optimum_that_averaging_misses(
    known: Callable[[Sequence[Rows]], Any], plain_job: Callable[..., Any]
) -> None:
    sites = unlike()
    best, study = min_loss(sites), known(sites)
    excess = {}
    for strategy in ("FED_AVG", "FED_PROX", "SCAFFOLD"):
        job = plain_job(
            job_id=strategy.lower(),
            strategy=strategy,
            min_clients=3,
            rounds=ROUNDS,
            local_steps=STEPS,
            learning_rate=RATE,
            proximal_mu=MU,
        )
        run = type(study)(study.federation, study.folder / strategy, study.sites)
        model = run.run(job)
        excess[strategy] = loss(sites, np.append(model["linear.weight"].ravel(), model["linear.bias"])) - best
    assert excess["FED_AVG"] > 0.008
    assert excess["FED_PROX"] < excess["FED_AVG"] / 10
    assert excess["SCAFFOLD"] < excess["FED_AVG"] / 50
    assert min(excess.values()) == pytest.approx(0.0, abs=1e-3)
