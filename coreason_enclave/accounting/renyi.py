"""Rényi differential privacy at one order: the quantity that the filter over a lineage adds up.

*Cost of a step.* For a Poisson-subsampled Gaussian with rate q and noise multiplier s, at a whole order a (Mironov,
Talwar and Zhang, 2019, section 3.3)::

    rdp(a) = 1 / (a - 1) * log( sum_{k=0..a} C(a, k) (1-q)^(a-k) q^k exp(k (k-1) / (2 s^2)) )

*Budget of a cap* (Canonne, Kamath and Steinke, 2020, proposition 12). rdp(a) <= r implies (epsilon, delta) for::

    epsilon = r + log(1 - 1/a) - log(a delta) / (a - 1)

The module takes whole orders only: the sum is finite there, so anyone can recompute a ledger's costs with a page of
code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from scipy.special import gammaln, logsumexp

from coreason_enclave.accounting.arguments import require_delta, require_epsilon
from coreason_enclave.accounting.events import Event, NonPrivate, PoissonSampledGaussian
from coreason_enclave.errors import AccountingError

MAX_ORDER = 4096
_FEW_ORDERS = (*range(2, 17), *range(18, 64, 3), 128, 256, 512, 1024)  # dp_accounting uses each of these, too


def rdp_at(event: Event, order: int) -> float:
    """Return the Rényi divergence of ``event`` at a whole ``order`` in [2, 4096]; infinite if non-private.

    >>> from coreason_enclave.accounting import PoissonSampledGaussian
    >>> rdp_at(PoissonSampledGaussian(noise_multiplier=2.0, sample_rate=1.0, steps=3), order=8)  # 3 * 8 / 8
    3.0
    """
    _require_order(order)
    if isinstance(event, NonPrivate):
        return math.inf
    return event.steps * _rdp_of_a_step(event.noise_multiplier, event.sample_rate, order)


@lru_cache(maxsize=16_384)
def _rdp_of_a_step(noise_multiplier: float, sample_rate: float, order: int) -> float:
    """Evaluate the cost formula as log1p of the sum's excess over 1.

    For small rates the literal sum equals 1 plus a tiny excess, which float64 would round away. The binomial weights
    sum to 1, so the same sum with ``expm1`` gives the excess, from positive terms only.
    """
    if sample_rate == 1:
        return order / (2 * noise_multiplier**2)
    k = np.arange(2, order + 1, dtype=np.float64)
    exponent = k * (k - 1) / (2 * noise_multiplier**2)
    log_weight = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    log_weight += (order - k) * math.log1p(-sample_rate) + k * math.log(sample_rate)
    log_excess = float(logsumexp(log_weight + _log_expm1(exponent)))
    return float(np.logaddexp(0.0, log_excess)) / (order - 1)


def _log_expm1(x: np.ndarray) -> np.ndarray:
    """Return ``log(exp(x) - 1)`` for positive ``x`` without overflow."""
    logs: np.ndarray = np.where(x < 1, np.log(np.expm1(np.minimum(x, 1))), x + np.log1p(-np.exp(-np.maximum(x, 1))))
    return logs


def rdp_budget(epsilon: float, delta: float, order: int) -> float:
    """Return the largest Rényi divergence at ``order`` that implies (``epsilon``, ``delta``); 0 without one."""
    require_epsilon(epsilon)
    return max(0.0, epsilon - _conversion(delta, order))


def epsilon_at(rdp: float, delta: float, order: int) -> float:
    """Return the epsilon that a divergence of ``rdp`` at ``order`` implies at ``delta``; 0 for zero divergence."""
    if not rdp >= 0:
        raise AccountingError(f"a Rényi divergence must be at least 0, got {rdp}")
    return 0.0 if rdp == 0 else max(0.0, rdp + _conversion(delta, order))


def _conversion(delta: float, order: int) -> float:
    require_delta(delta)
    _require_order(order)
    return math.log1p(-1 / order) - math.log(order * delta) / (order - 1)


@lru_cache(maxsize=256)
def choose_order(epsilon: float, delta: float) -> int:
    """Return the whole order that affords the most of a Gaussian mechanism under (``epsilon``, ``delta``).

    A Gaussian release costs ``order / (2 s^2)``, so the best order has the largest ``rdp_budget / order``.

    Raises:
        AccountingError: no order up to 4096 leaves any budget: the cap is too small for this filter.
    """
    best = max(range(2, MAX_ORDER + 1), key=lambda order: rdp_budget(epsilon, delta, order) / order)
    if rdp_budget(epsilon, delta, best) == 0:
        raise AccountingError(f"epsilon {epsilon:g} at delta {delta:g} is too small a cap: raise one of them")
    return best


def coarse_epsilon(segments: Iterable[PoissonSampledGaussian], delta: float) -> float:
    """Return a cheap upper bound, best over a few whole orders: for brackets, and for more than 16 mechanisms."""
    history = tuple(segments)
    return min(epsilon_at(sum(rdp_at(event, order) for event in history), delta, order) for order in _FEW_ORDERS)


def _require_order(order: object) -> None:
    if isinstance(order, bool) or not isinstance(order, int) or not 2 <= order <= MAX_ORDER:
        raise AccountingError(f"a Rényi order must be a whole number in [2, {MAX_ORDER}], got {order!r}")
