"""The Rényi bound over many orders: cross-checks the PLD, and replaces it where needed, as below delta 1e-10.

The orders come from ``dp_accounting``. At whole orders the divergence equals the exact finite sum of
:func:`~coreason_enclave.accounting.renyi.rdp_at`. Between whole orders the module uses ``dp_accounting``'s series where
trustworthy. The series loses its digits for tiny divergences, and does not converge for some large rates.

Two theorems guard the series (van Erven and Harremoës, 2014):

* divergence grows with the order;
* ``(order - 1) * divergence`` is convex in the order.

Interpolating the convex quantity between whole orders gives an upper bound that always exists. The upper bound replaces
any series value that breaks either limit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from coreason_enclave.accounting.arguments import require_delta
from coreason_enclave.accounting.events import PoissonSampledGaussian
from coreason_enclave.accounting.renyi import rdp_at

_TRUSTED = 1e-8  # the smallest divergence at order 2 for which the series keeps six digits in double precision
_WHOLE = (*range(1, 64), 128, 256, 512, 1024)


def rdp_epsilon(segments: Iterable[PoissonSampledGaussian], delta: float) -> float:
    """Return the smallest epsilon at ``delta`` that any order gives for all ``segments`` together.

    >>> run = PoissonSampledGaussian(noise_multiplier=1.1, sample_rate=1 / 235, steps=3_525)
    >>> round(rdp_epsilon([run], 1e-5), 3)
    1.279
    """
    require_delta(delta)
    total: np.ndarray | None = None
    for segment in segments:
        cost = segment.steps * _rdp_of_a_step(segment.noise_multiplier, segment.sample_rate)
        total = cost if total is None else total + cost
    if total is None:
        return 0.0
    orders = _orders()
    bounds = total + np.log1p(-1 / orders) - np.log(orders * delta) / (orders - 1)
    return max(0.0, float(np.nanmin(bounds, initial=math.inf)))


@lru_cache(maxsize=1)
def _orders() -> np.ndarray:
    from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS

    return np.array(DEFAULT_RDP_ORDERS, dtype=np.float64)


@lru_cache(maxsize=1024)
def _rdp_of_a_step(noise_multiplier: float, sample_rate: float) -> np.ndarray:
    orders = _orders()
    step = PoissonSampledGaussian(noise_multiplier, sample_rate, 1)
    whole = np.array([0.0, *(rdp_at(step, order) for order in _WHOLE[1:])])
    upper: np.ndarray = np.interp(orders, _WHOLE, (np.array(_WHOLE) - 1) * whole) / (orders - 1)
    fractional = orders != np.floor(orders)
    if whole[1] < _TRUSTED or not np.isfinite(upper).all():
        return upper
    series = _by_dp_accounting(step, orders[fractional])
    lower = np.interp(np.floor(orders[fractional]), _WHOLE, whole)
    trusted = (series > lower) & (series <= upper[fractional])
    upper[fractional] = np.where(trusted, series, upper[fractional])
    return upper


def _by_dp_accounting(step: PoissonSampledGaussian, orders: np.ndarray) -> np.ndarray:
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    logging.getLogger("absl").addFilter(_not_a_skipped_order)
    gaussian = dp_accounting.GaussianDpEvent(step.noise_multiplier)
    sampled = dp_accounting.PoissonSampledDpEvent(step.sample_rate, gaussian)
    return np.asarray(RdpAccountant(orders).compose(sampled).rdp, dtype=np.float64)


def _not_a_skipped_order(record: logging.LogRecord) -> bool:
    """Return False for a log record about an order without convergence of the series: the caller replaces the value."""
    return "_compute_log_a_frac failed to converge" not in record.getMessage()
