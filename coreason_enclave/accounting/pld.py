"""The privacy loss distribution (PLD) of a whole history, and the epsilon that follows from it.

Losses of independent steps add up, so their distributions convolve (Koskela, Jälkö and Honkela, 2020): a product of
powers of Fourier transforms. Four choices make the answer an upper bound, tight and quick:

* Rounding goes upwards (:mod:`~coreason_enclave.accounting.losses`). The tolerated error sets the mesh width: the mesh
  adds about ``steps * (order + 1) * mesh^2 / 12`` to epsilon, at the best Rényi order for the history.
* The code tilts the distribution by ``exp(order * loss)`` before the transform and tilts it back afterwards. The
  transform's rounding then stays small against the deciding tail, and not only against the bulk. Each point gains the
  mass that rounding may have removed.
* Loss beyond the transform's window counts as infinite, by Chernoff's bound. Mass that wraps around from below only
  adds to the result.
* At sampling rate 1 no convolution is needed: the Gaussian mechanism has a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.special import log_ndtr

from coreason_enclave.accounting.events import PoissonSampledGaussian
from coreason_enclave.accounting.losses import (
    MIN_NOISE,
    Direction,
    Floats,
    StepLoss,
    log_moment,
    loss_range,
    step_loss,
)

Segments = tuple[PoissonSampledGaussian, ...]

_MAX_POINTS = 1 << 19
_STEP_POINTS = 1 << 17
TIGHT = 3e-4
"""The relative error that the mesh may add to reported values."""
ROUGH = 1e-2
"""The relative error from the mesh in a search for an answer's neighbourhood, or in a bound that will not decide."""
_LOST = 1e-9  # the share of delta that loss beyond the window may take
_ROUNDING = 5e-16  # added to each point per step, as a share of the tilted distribution's peak
_NATS = 24.0  # exp(-24) bounds the tilted mass beyond either end of the window
_ORDERS = tuple(2.0 ** (k / 2) for k in range(-14, 27))


@dataclass(frozen=True)
class PldBound:
    """The bound that a privacy loss distribution gives.

    Attributes:
        signed: the smallest epsilon, negative values included, at which delta holds. Searches interpolate this value
            because it passes smoothly through 0. Infinite without a bound.
        coarse: True if the mesh had to be coarser than wanted.
    """

    signed: float
    coarse: bool = False

    @property
    def epsilon(self) -> float:
        """Return the bound for reports: at least 0."""
        return max(0.0, self.signed)


def pld_bound(segments: Segments, delta: float, tolerance: float = TIGHT) -> PldBound:
    """Return the PLD bound on epsilon at ``delta`` of all ``segments`` together; infinite if their noise is too little.

    ``tolerance`` sets the approximate relative error, always upwards, that the mesh may cause. A larger value takes
    less time.
    """
    if all(segment.sample_rate == 1 for segment in segments):
        mu = math.sqrt(sum(segment.steps / segment.noise_multiplier**2 for segment in segments))
        return PldBound(gaussian_epsilon(mu, delta))
    if min(segment.noise_multiplier for segment in segments) < MIN_NOISE:
        return PldBound(math.inf)
    removed = _directed(segments, delta, True, tolerance)
    added = _directed(segments, delta, False, max(tolerance, ROUGH))
    if added.signed > removed.signed and tolerance < ROUGH:
        added = _directed(segments, delta, False, tolerance)
    coarse = removed.coarse or (added.coarse and added.signed > removed.signed)
    return PldBound(max(added.signed, removed.signed), coarse)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return epsilon, rounded up, of a Gaussian mechanism with sensitivity/noise ``mu``.

    Negative where a negative epsilon suffices, see :class:`PldBound`. Source: Balle and Wang, 2018, theorem 8.
    """
    if mu == 0:
        return math.log1p(-delta)

    def log_excess(epsilon: float) -> float:
        first = float(log_ndtr(mu / 2 - epsilon / mu))
        second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
        return first + math.log(-math.expm1(min(second - first, -1e-300))) - math.log(delta)

    low, high = math.log1p(-delta), mu * mu / 2 + mu * math.sqrt(-2 * math.log(delta)) + 1
    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if log_excess(middle) > 0 else (low, middle)
    return high + 1e-12 * abs(high)


def _directed(segments: Segments, delta: float, removing: Direction, tolerance: float) -> PldBound:
    scale, order = _chernoff(segments, delta, removing)
    if not math.isfinite(scale):
        return PldBound(math.inf)
    bound = _on_mesh(segments, delta, removing, scale * tolerance, order)
    if abs(bound.signed) < scale / 4 and not bound.coarse:  # far below Chernoff's bound, which set the mesh
        bound = _on_mesh(segments, delta, removing, max(abs(bound.signed), scale / 50) * tolerance, order)
    return bound


def _chernoff(segments: Segments, delta: float, removing: Direction) -> tuple[float, float]:
    """Return a rough upper bound on epsilon, and the order that gives the bound."""
    bounds = [((_total(segments, order, removing) - math.log(delta)) / order, order) for order in _ORDERS]
    return min(bounds)


def _total(segments: Segments, order: float, removing: Direction) -> float:
    return sum(s.steps * log_moment(s.noise_multiplier, s.sample_rate, order, removing) for s in segments)


@dataclass(frozen=True)
class _Window:
    """The range of the tilted composed loss, and the order at which Chernoff's bound reaches its upper end."""

    order: float
    low: float
    high: float
    top_order: float


def _on_mesh(segments: Segments, delta: float, removing: Direction, error: float, order: float) -> PldBound:
    """Return the bound on a mesh fine enough to add at most about ``error``."""
    count = sum(segment.steps for segment in segments)
    wanted = math.sqrt(12 * error / (count * (order + 1)))
    # Half of the best order: at the best order itself, the tilted distribution's upper tail would widen the window.
    window = _window(segments, delta, removing, order / 2)
    longest = max(loss_range(segment.noise_multiplier, segment.sample_rate) for segment in segments)
    least = max((window.high - window.low) / _MAX_POINTS, longest / _STEP_POINTS) * len(segments)
    mesh = 2.0 ** math.floor(math.log2(wanted)) if wanted > 2 * least else max(wanted, least)
    steps = [step_loss(s.noise_multiplier, s.sample_rate, mesh)[0 if removing else 1] for s in segments]
    tail = _composed(steps, [s.steps for s in segments], delta, window, mesh)
    return PldBound(math.inf if tail is None else tail.epsilon(delta), coarse=mesh > 1.5 * wanted)


def _window(segments: Segments, delta: float, removing: Direction, order: float) -> _Window:
    """Estimate the window from the moments of the unrounded steps. No bound rests on the estimate."""
    here = _total(segments, order, removing)
    low = max((here - _total(segments, order - s, removing) - _NATS) / s for s in _ORDERS)
    high = min((_total(segments, order + s, removing) - here + _NATS) / s for s in _ORDERS)
    top, top_order = _chernoff(segments, delta * _LOST, removing)
    return _Window(order, low, max(high, top, low), top_order)


@dataclass(frozen=True)
class _Tail:
    """The composed distribution at the losses ``mesh * (first + i)``, and the probability counted as infinite loss."""

    mass: Floats
    first: int
    mesh: float
    infinite: float

    def epsilon(self, delta: float) -> float:
        """Return the smallest epsilon, negative or not, whose delta is at most ``delta``.

        The search covers losses from the window's lower end on. Infinite if no loss suffices.
        """
        loss = self.mesh * np.arange(1, len(self.mass) + 1, dtype=np.float64)  # from the window's lower end
        above = self.infinite + np.cumsum(self.mass[::-1])[::-1]
        other = np.cumsum((self.mass * np.exp(-loss))[::-1])[::-1]
        beyond = np.append(above[1:], self.infinite) - np.exp(np.minimum(loss, 700.0)) * np.append(other[1:], 0.0)
        meets = np.flatnonzero(beyond <= delta)
        if not len(meets):
            return math.inf
        found = int(meets[0])
        excess, rate = float(above[found]) - delta, float(other[found])
        inside = float(loss[found])
        if excess <= 0:
            inside = 0.0
        elif rate > 0:
            inside = min(inside, max(0.0, math.log(excess / rate)))
        return self.mesh * (self.first - 1) + inside


def _composed(
    steps: Sequence[StepLoss], counts: Sequence[int], delta: float, window: _Window, mesh: float
) -> _Tail | None:
    """Convolve through the Fourier transform of the tilted distributions, and keep the losses that can matter.

    Return None if the mesh is too coarse for these steps: rounding would make up most of the loss.
    """
    order, lost = window.order, delta * _LOST
    # Chernoff: the composed loss exceeds ``top`` with probability at most ``lost``.
    top = (_total_rounded(steps, counts, window.top_order) - math.log(lost)) / window.top_order
    points = int(fft.next_fast_len(math.ceil((max(top, window.high) - window.low) / mesh) + 64, real=True))
    if points > 2 * _MAX_POINTS:
        return None
    transform = _transform(steps, counts, order, points)
    tilted = np.maximum(fft.irfft(transform, points), 0.0)
    peak = 2 * float(np.abs(transform).sum()) / points
    tilted += _ROUNDING * (sum(counts) + math.log2(points)) * peak
    last = math.ceil(top / mesh)
    least = math.floor(math.log1p(-delta) / mesh)  # no mechanism has a smaller epsilon at this delta
    index = np.arange(max(least, last - points + 1), last + 1)
    mass = tilted[index % points] * np.exp(
        np.minimum(_total_rounded(steps, counts, order) - order * mesh * index, 700.0)
    )
    infinite = lost + sum(count * step.infinite for step, count in zip(steps, counts, strict=True))
    return _Tail(np.minimum(mass, 1.0), int(index[0]), mesh, infinite)


def _transform(
    steps: Sequence[StepLoss], counts: Sequence[int], order: float, points: int
) -> npt.NDArray[np.complex128]:
    log_transform = np.zeros(points // 2 + 1, dtype=np.complex128)
    for step, count in zip(steps, counts, strict=True):
        place = step.first + np.arange(len(step.mass))
        weight = np.exp(order * step.mesh * place + (step.log_mass - step.log_moment(order)))
        circle = np.bincount(place % points, weights=weight, minlength=points)
        transform = fft.rfft(circle)
        transform[np.abs(transform) < 1e-300] = 1e-300
        log_transform += count * np.log(transform)
    powers: npt.NDArray[np.complex128] = np.exp(log_transform)
    return powers


def _total_rounded(steps: Sequence[StepLoss], counts: Sequence[int], order: float) -> float:
    return sum(count * step.log_moment(order) for step, count in zip(steps, counts, strict=True))
