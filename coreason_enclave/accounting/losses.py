"""The privacy loss of one DP-SGD step: its moments, and its distribution rounded upwards to a mesh.

A step samples with rate q and adds noise s, in units of the clipping norm. Let Q be N(0, s^2) and P the mixture ``(1 -
q) N(0, s^2) + q N(1, s^2)``. Removing a unit gives the ordered pair (P, Q), adding a unit gives (Q, P). The privacy
loss equals the logarithm of the ratio of densities, under the pair's first distribution.

*Rounding.* Each mesh cell splits its probability between both ends and preserves the masses under P and under Q
("connect the dots", Doroshenko, Ghazi, Kamath, Kumar and Manurangsi, 2022). The result dominates the exact
distribution: a delta computed from the rounded distribution never falls below the true delta.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Floats = npt.NDArray[np.float64]
Direction = bool
"""True: a unit is removed, (P, Q). False: a unit is added, (Q, P)."""

MIN_NOISE = 0.04
"""Below this noise multiplier, the ratios of densities leave the range of float64."""

_TAIL = 10.0  # standard deviations that the mesh covers; the mass beyond, 8e-24, counts as infinite loss
_MAX_POINTS = 200_000


@dataclass(frozen=True)
class StepLoss:
    """The rounded loss of one step.

    Attributes:
        mass: probability of loss ``(first + i) * mesh``, shape (points,).
        infinite: probability counted as infinite loss.
    """

    mass: Floats
    first: int
    mesh: float
    infinite: float

    @cached_property
    def log_mass(self) -> Floats:
        """Return the logarithm of ``mass``, -inf at zero mass."""
        with np.errstate(divide="ignore"):
            logs: Floats = np.log(self.mass)
        return logs

    def log_moment(self, order: float) -> float:
        """Return ``log E[exp(order * loss)]`` of the finite part."""
        exponent = order * self.mesh * (self.first + np.arange(len(self.mass), dtype=np.float64))
        return _log_sum_exp(exponent + self.log_mass)


def loss_range(noise: float, rate: float) -> float:
    """Return the length of the loss interval that :func:`step_loss` covers."""
    ends = _loss(np.array([-_TAIL * noise, 1 + _TAIL * noise]), noise, rate)
    return float(ends[1] - ends[0])


@lru_cache(maxsize=16)
def step_loss(noise: float, rate: float, mesh: float) -> tuple[StepLoss, StepLoss]:
    """Return the rounded losses of one step: for removing a unit, and for adding a unit."""
    ends = _loss(np.array([-_TAIL * noise, 1 + _TAIL * noise]), noise, rate)
    low, high = math.floor(ends[0] / mesh), math.ceil(ends[1] / mesh)
    border = mesh * np.arange(low, high + 1, dtype=np.float64)
    x = _outcome(border, noise, rate)
    without, shifted = _masses(x / noise), _masses((x - 1) / noise)
    mixed = (1 - rate) * without + rate * shifted
    below, above = float(ndtr(x[0] / noise)), float(ndtr(-x[-1] / noise))
    above_mixed = (1 - rate) * above + rate * float(ndtr((1 - x[-1]) / noise))
    below_mixed = (1 - rate) * below + rate * float(ndtr((x[0] - 1) / noise))
    removing = _split(mixed, without, border[:-1], mesh)
    removing[0] += below_mixed
    adding = _split(without[::-1], mixed[::-1], -border[:0:-1], mesh)
    adding[0] += above
    return (
        StepLoss(removing, low, mesh, above_mixed),
        StepLoss(adding, -high, mesh, below),
    )


def _split(mass: Floats, other: Floats, low: Floats, mesh: float) -> Floats:
    """Split each cell's mass between its two ends, preserving ``sum(mass)`` and ``sum(mass * exp(-loss))``.

    Args:
        mass, other: probability of each cell under the pair's first and second distribution.
        low: loss at each cell's lower end.
    """
    upper = np.clip((mass - np.exp(low) * other) / -math.expm1(-mesh), 0.0, mass)
    ends = np.zeros(len(mass) + 1)
    ends[1:] += upper
    ends[:-1] += mass - upper
    return ends


def _masses(z: Floats) -> Floats:
    """Return the standard normal probability between neighbours of a rising ``z``, exact in both tails."""
    a, b = z[:-1], z[1:]
    masses: Floats = np.where(a > 0, ndtr(-a) - ndtr(-b), ndtr(b) - ndtr(a))
    return np.maximum(masses, 0.0)


def _loss(x: Floats, noise: float, rate: float) -> Floats:
    """Return the loss of removing a unit, at the outcomes ``x``."""
    shifted = math.log(rate) + (2 * x - 1) / (2 * noise**2)
    return shifted if rate == 1 else np.logaddexp(math.log1p(-rate), shifted)


def _outcome(loss: Floats, noise: float, rate: float) -> Floats:
    """Return the inverse of :func:`_loss`; -inf for a loss below all outcomes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = np.log1p(-(1 - rate) * np.exp(-loss))
    inner = np.where(np.isnan(inner), -np.inf, inner)
    x: Floats = 0.5 + noise**2 * (loss + inner - math.log(rate))
    return np.maximum.accumulate(x)


@lru_cache(maxsize=16_384)
def log_moment(noise: float, rate: float, order: float, removing: Direction) -> float:
    """Return ``log E[exp(order * loss)]`` of one exact step, by the trapezoid rule; infinite if too slow to compute.

    The estimate has about ten correct digits. It chooses meshes and windows, and no bound rests on it.
    """
    power = order + 1 if removing else -order  # of the ratio P / Q, under Q
    if not (1 + abs(power)) / noise < _MAX_POINTS / 10:
        return math.inf
    x = np.arange(min(0.0, power) - 10 * noise, max(1.0, power) + 10 * noise, noise / 4)
    ratio = _loss(x, noise, rate)
    return _log_sum_exp(power * ratio - 0.5 * (x / noise) ** 2) - math.log(4 * math.sqrt(2 * math.pi))


def _log_sum_exp(exponents: Floats) -> float:
    """Return the log of the sum of exponentials, without SciPy's overhead, which would take half of all time."""
    top = float(exponents.max())
    return top + math.log(float(np.exp(exponents - top).sum()))
