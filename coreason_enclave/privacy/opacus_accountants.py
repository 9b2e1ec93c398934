"""What Opacus' own accountants say about the same steps: for comparison, never for a claim.

Opacus reports its PRV estimate plus the error that it was asked for (0.01), its RDP over its own orders, and a
Gaussian-DP approximation that under-reports.
"""

from __future__ import annotations

import warnings
from typing import Literal

from opacus.accountants import create_accountant

from coreason_enclave.accounting.events import PoissonSampledGaussian
from coreason_enclave.errors import AccountingError

__all__ = ["OpacusAccountant", "opacus_epsilon"]

OpacusAccountant = Literal["rdp", "prv", "gdp"]


def opacus_epsilon(accountant: OpacusAccountant, event: PoissonSampledGaussian, delta: float) -> float:
    """Epsilon of ``event`` at ``delta`` by the accountant that Opacus 1.6 knows under this name.

    Raises:
        AccountingError: Opacus has no such accountant, or it fails for these numbers (PRV does for tiny deltas).
    """
    if accountant not in ("rdp", "prv", "gdp"):
        raise AccountingError(f"Opacus has the accountants rdp, prv and gdp, not {accountant!r:.40}")
    if event.steps == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on optimal orders and on GDP: what they say is known here
        history = create_accountant(mechanism=accountant)
        history.history = [(event.noise_multiplier, event.sample_rate, event.steps)]
        try:
            return float(history.get_epsilon(delta=delta))
        except (ArithmeticError, RuntimeError, ValueError) as error:
            raise AccountingError(f"Opacus' {accountant} accountant fails here: {error}") from error
