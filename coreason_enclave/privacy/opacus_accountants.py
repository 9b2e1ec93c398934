"""Epsilon by Opacus' own accountants for the same steps: for comparison, never for a claim.

Opacus reports three figures: its PRV estimate plus the requested error (0.01), RDP over its own orders, and a
Gaussian-DP approximation that under-reports.
"""

from __future__ import annotations

import warnings
from typing import Literal

from opacus.accountants import create_accountant

from coreason_enclave.accounting import PoissonSampledGaussian
from coreason_enclave.errors import AccountingError

OpacusAccountant = Literal["rdp", "prv", "gdp"]


def opacus_epsilon(accountant: OpacusAccountant, event: PoissonSampledGaussian, delta: float) -> float:
    """Return epsilon of ``event`` at ``delta`` by the Opacus 1.6 accountant of this name.

    Raises:
        AccountingError: Opacus has no such accountant, or the accountant fails for these numbers (PRV: tiny deltas).
    """
    if accountant not in ("rdp", "prv", "gdp"):
        raise AccountingError(f"Opacus has the accountants rdp, prv and gdp, not {accountant!r:.40}")
    if event.steps == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus warns of optimal orders and of GDP: both known here
        history = create_accountant(mechanism=accountant)
        history.history = [(event.noise_multiplier, event.sample_rate, event.steps)]
        try:
            return float(history.get_epsilon(delta=delta))
        except (ArithmeticError, RuntimeError, ValueError) as error:
            raise AccountingError(f"Opacus' {accountant} accountant failed: {error}") from error
