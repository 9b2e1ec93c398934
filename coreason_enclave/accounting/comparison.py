"""Estimates by other accountants, for comparison only. No estimate can become a guarantee."""

from __future__ import annotations

import math
from collections.abc import Iterable

from coreason_enclave.accounting.arguments import require_delta
from coreason_enclave.accounting.events import Event, NonPrivate
from coreason_enclave.accounting.guarantee import Accountant, Estimate
from coreason_enclave.accounting.pld import gaussian_epsilon

_WARNING = "central-limit approximation that under-reports; for comparison only, never for a claim"


def gdp_estimate(events: Iterable[Event], delta: float) -> Estimate:
    """Return the Gaussian-DP approximation (Bu et al., 2020), which lies *below* the truth: 1.98 for a true 2.17.

    Each segment counts ``mu^2 = q^2 * steps * (exp(1 / s^2) - 1)``; the sum counts as one Gaussian mechanism.
    """
    require_delta(delta)
    mu_squared = 0.0
    for event in events:
        if isinstance(event, NonPrivate):
            return Estimate(epsilon=math.inf, delta=delta, accountant=Accountant.GDP, warning=_WARNING)
        growth = min(event.noise_multiplier**-2, 700.0)
        mu_squared += event.sample_rate**2 * event.steps * math.expm1(growth)
    epsilon = max(0.0, gaussian_epsilon(math.sqrt(mu_squared), delta))
    return Estimate(epsilon=epsilon, delta=delta, accountant=Accountant.GDP, warning=_WARNING)
