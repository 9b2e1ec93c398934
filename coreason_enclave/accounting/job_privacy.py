"""A job's privacy with no value left open, by one rule for the coordinator, the sites and training without a job.

Coordinator and site resolve the same job apart from each other, each from values of its own, and both must arrive at
the same noise.

>>> from coreason_enclave.schemas import Mechanism, PrivacyConfig
>>> asked = PrivacyConfig(mechanism=Mechanism.DP_SGD, target_epsilon=3.0, max_grad_norm=1.0)
>>> resolved = resolve_privacy(asked, delta=1e-5, total_steps=68)
>>> resolved.delta, 0.99 < resolved.noise_multiplier <= 1.0
(1e-05, True)
>>> privacy_event(resolved, 10).steps
10
"""

from __future__ import annotations

from typing import Any

from coreason_enclave.accounting.calibration import calibrate_noise
from coreason_enclave.accounting.events import Event, NonPrivate, PoissonSampledGaussian
from coreason_enclave.schemas import Mechanism, PrivacyConfig, PrivacyUnit


def resolve_privacy(
    asked: PrivacyConfig, *, delta: float, total_steps: int, unit: PrivacyUnit | None = None
) -> PrivacyConfig:
    """Return the configuration with delta, noise multiplier and, if given, unit filled in.

    Args:
        delta: used if ``asked`` states none; a site passes the delta of its own registration.
        total_steps: the whole schedule, for which a missing noise multiplier is calibrated from the target epsilon.
        unit: the lineage's unit, which the caller has compared with the unit asked for; None leaves the unit as it is.

    Raises:
        AccountingError: no noise multiplier reaches the target.
    """
    filled: dict[str, Any] = {"delta": delta if asked.delta is None else asked.delta}
    if asked.mechanism is Mechanism.DP_SGD and asked.noise_multiplier is None and asked.target_epsilon is not None:
        filled["noise_multiplier"] = calibrate_noise(
            asked.target_epsilon, filled["delta"], asked.sample_rate, total_steps
        )
    if unit is not None:
        filled["unit"] = unit
    return asked.model_copy(update=filled)


def privacy_event(resolved: PrivacyConfig, steps: int) -> Event:
    """Return the privacy event of ``steps`` steps under a resolved configuration."""
    if resolved.noise_multiplier is None:
        return NonPrivate()
    return PoissonSampledGaussian(resolved.noise_multiplier, resolved.sample_rate, steps)
