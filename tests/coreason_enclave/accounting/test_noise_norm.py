"""The norm of a round's noise, as foretold, is that of the noise that training makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coreason_enclave.accounting.noise_norm import noise_norm, require_less_noise_than_norm, signal_to_noise
from coreason_enclave.errors import JobRejected, Reason
from coreason_enclave.schemas import FederationJob, PrivacyConfig

SIZE = {"parameters": 4_000, "nominal_units": 500}


def a_job(*, noise: float = 2.0, **changes: Any) -> FederationJob:
    privacy = PrivacyConfig(
        mechanism="DP_SGD", target_epsilon=3.0, noise_multiplier=noise, max_grad_norm=0.5, sample_rate=0.1, delta=1e-5
    )
    fields: dict[str, Any] = {
        "job_id": "study",
        "min_clients": 1,
        "rounds": 3,
        "privacy": privacy,
        "model_arch": "LogisticRegression",
        "dataset_id": "clinic/visits",
        "strategy": "FED_AVG",
        "local_steps": 20,
    }
    return FederationJob(**{**fields, **changes})


def measured(job: FederationJob) -> float:
    """SGD with momentum over noise alone."""
    random = np.random.default_rng(7)
    deviation = job.privacy.noise_multiplier * job.privacy.max_grad_norm / (job.privacy.sample_rate * 500)
    weights, velocity = np.zeros(4_000), np.zeros(4_000)
    for _ in range(job.local_steps):
        velocity = job.momentum * velocity + random.normal(0, deviation, 4_000)
        weights -= job.learning_rate * velocity
    return float(np.linalg.norm(weights))


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 50), st.floats(1e-3, 5), st.floats(0, 0.99), st.integers(1, 60))
def test_the_foretold_norm_is_the_norm_of_simulated_noise(
    noise: float, rate: float, momentum: float, steps: int
) -> None:
    job = a_job(noise=noise, learning_rate=rate, momentum=momentum, local_steps=steps)
    assert noise_norm(job, **SIZE) == pytest.approx(measured(job), rel=0.06)


def test_a_job_is_refused_from_the_norm_on_at_which_its_noise_alone_exceeds_the_limit() -> None:
    norm = noise_norm(a_job(), **SIZE)
    require_less_noise_than_norm(a_job(max_update_norm=norm * 1.001), **SIZE)
    with pytest.raises(JobRejected, match="Signal to noise is at most") as refused:
        require_less_noise_than_norm(a_job(max_update_norm=norm * 0.999), **SIZE)
    assert refused.value.reason is Reason.NORM_EXCEEDED


def test_a_strategy_that_pulls_back_is_judged_by_its_last_step_alone() -> None:
    one = noise_norm(a_job(local_steps=1), **SIZE)
    assert noise_norm(a_job(strategy="FED_PROX", proximal_mu=0.1), **SIZE) == one


def test_training_without_noise_has_none_and_is_never_refused() -> None:
    job = a_job(privacy=PrivacyConfig(mechanism="NON_PRIVATE"), max_update_norm=1e-6)
    assert noise_norm(job, **SIZE) == 0
    require_less_noise_than_norm(job, **SIZE)


def test_signal_to_noise_grows_with_units_and_steps_and_falls_with_noise_and_parameters() -> None:
    made = {"noise_multiplier": 2.0, "sample_rate": 0.1, "steps": 25, "parameters": 100, "nominal_units": 1000}
    assert signal_to_noise(**made) == pytest.approx(25.0)
    for name, factor in {"nominal_units": 2, "steps": 4}.items():
        assert signal_to_noise(**{**made, name: made[name] * factor}) == pytest.approx(50.0)
    for name, factor in {"noise_multiplier": 2, "parameters": 4}.items():
        assert signal_to_noise(**{**made, name: made[name] * factor}) == pytest.approx(12.5)
