"""Composition: from everything that ran to one epsilon, by privacy loss distributions (PLD).

The reported number is the PLD bound (Koskela et al., 2020; Doroshenko et al., 2022: the pessimistic "connect
the dots" discretisation), add-or-remove-one, Poisson sampling. The Rényi bound is its cross-check and its
fall-back; both are upper bounds, so the smaller is reported and the report says which it was.

Three numerical facts decide the details:

* Discretisation errs upwards, by about the square of the mesh times the steps. The mesh follows the size of
  the answer, so that the error stays near 1e-4 of it at a bounded cost.
* The Fourier transforms of a long composition leave errors of up to about 4e-17 per step in delta, in
  *either* direction: at delta 1e-10 and a million steps the raw PLD is 0.8 % below the truth. Five times that
  is taken off delta before it is inverted.
* Below delta 1e-10 what is left is noise: the Rényi bound is reported, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from coreason_enclave.accounting.cross_check import rdp_epsilon
from coreason_enclave.accounting.events import Event, NonPrivate, PoissonSampledGaussian
from coreason_enclave.accounting.guarantee import Accountant, ComposedEpsilon
from coreason_enclave.accounting.renyi import coarse_epsilon, require_delta
from coreason_enclave.errors import AccountingError

if TYPE_CHECKING:
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

__all__ = ["PLD_DELTA_FLOOR", "compose_epsilon", "epsilon_bound", "merge_segments"]

PLD_DELTA_FLOOR = 1e-10

_MESH_POINTS = 8_000  # mesh cells in the coarse Rényi epsilon
_LONG_RUN = 10_000  # steps from which the mesh shrinks further
_FFT_ERROR = 2e-16  # taken off delta per step
_Segments = tuple[PoissonSampledGaussian, ...]


def compose_epsilon(events: Iterable[Event], delta: float) -> ComposedEpsilon:
    """Epsilon at ``delta`` of all ``events`` together; their order does not matter.

    Valid for events that were fixed in advance. Jobs chosen in the light of earlier results need the
    lineage's Rényi filter instead (:mod:`coreason_enclave.ledger`).

    >>> run = PoissonSampledGaussian(noise_multiplier=1.1, sample_rate=1 / 235, steps=3_525)
    >>> answer = compose_epsilon([run], delta=1e-5)
    >>> print(f"{answer.epsilon:.2f} by {answer.accountant}, {answer.rdp_epsilon:.2f} by RDP")
    1.13 by PLD, 1.28 by RDP

    Raises:
        AccountingError: ``delta`` is not in (0, 1), or the noise is so little that no float holds the loss.
    """
    require_delta(delta)
    history = tuple(events)
    if any(isinstance(event, NonPrivate) for event in history):
        return ComposedEpsilon(
            epsilon=math.inf,
            delta=delta,
            accountant=Accountant.PLD,
            rdp_epsilon=math.inf,
            note="non-private training took part: no finite epsilon covers it",
        )
    segments = merge_segments(event for event in history if isinstance(event, PoissonSampledGaussian))
    return _compose(segments, float(delta))


def merge_segments(events: Iterable[PoissonSampledGaussian]) -> _Segments:
    """Equal mechanisms added up, empty ones dropped, in an order that depends on nothing else."""
    steps: dict[tuple[float, float], int] = {}
    for event in events:
        key = (float(event.noise_multiplier), float(event.sample_rate))
        steps[key] = steps.get(key, 0) + event.steps
    return tuple(PoissonSampledGaussian(*key, count) for key, count in sorted(steps.items()) if count)


@lru_cache(maxsize=4096)
def _compose(segments: _Segments, delta: float) -> ComposedEpsilon:
    if not segments:
        return ComposedEpsilon(epsilon=0.0, delta=delta, accountant=Accountant.PLD, rdp_epsilon=0.0)
    with _representable():
        renyi = rdp_epsilon(segments, delta)
        pld, note = _pld_epsilon(segments, delta)
    if pld <= renyi:
        return ComposedEpsilon(epsilon=pld, delta=delta, accountant=Accountant.PLD, rdp_epsilon=renyi)
    note = note or "the Rényi bound is the smaller one here"
    return ComposedEpsilon(epsilon=renyi, delta=delta, accountant=Accountant.RDP, rdp_epsilon=renyi, note=note)


def epsilon_bound(event: PoissonSampledGaussian, delta: float) -> float:
    """At least what :func:`compose_epsilon` reports, practically equal, without the cross-check's cost."""
    require_delta(delta)
    segments = merge_segments([event])
    if not segments:
        return 0.0
    with _representable():
        pld, _ = _pld_epsilon(segments, delta)
        return pld if math.isfinite(pld) else rdp_epsilon(segments, delta)


@contextmanager
def _representable() -> Iterator[None]:
    try:
        yield
    except OverflowError as error:
        raise AccountingError(
            "this little noise cannot be accounted for: the privacy loss exceeds any float; raise noise_multiplier"
        ) from error


@lru_cache(maxsize=4096)
def _pld_epsilon(segments: _Segments, delta: float) -> tuple[float, str]:
    """The PLD bound, or infinity and the reason why there is none."""
    if delta < PLD_DELTA_FLOOR:
        return math.inf, f"below delta {PLD_DELTA_FLOOR:g} a PLD is mostly rounding: this is the Rényi bound"
    steps = sum(segment.steps for segment in segments)
    tightened = delta - _FFT_ERROR * steps
    if tightened <= 0:
        return math.inf, f"over {steps} steps rounding exceeds delta {delta:g}: this is the Rényi bound"
    mesh = _mesh(coarse_epsilon(segments, delta), steps)
    composed = _composed_pld(segments, mesh)
    with np.errstate(over="ignore"):  # a ratio that overflows means infinity, and then the Rényi bound stands
        return float(composed.get_epsilon_for_delta(tightened)), ""


def _mesh(scale: float, steps: int) -> float:
    """A power of two, so that neighbouring questions share single-step distributions."""
    wanted = scale / _MESH_POINTS / max(1.0, math.sqrt(steps / _LONG_RUN))
    return 2.0 ** math.floor(math.log2(max(wanted, 1e-6)))


def _composed_pld(segments: _Segments, mesh: float) -> PrivacyLossDistribution:
    first, *others = (_self_composed(segment, mesh) for segment in segments)
    for other in others:
        first = first.compose(other)
    return first


def _self_composed(segment: PoissonSampledGaussian, mesh: float) -> PrivacyLossDistribution:
    if segment.sample_rate == 1:
        # n Gaussian releases are exactly one with 1/sqrt(n) of the noise: no convolution, no rounding.
        return _single_step(segment.noise_multiplier / math.sqrt(segment.steps), 1.0, mesh)
    return _single_step(segment.noise_multiplier, segment.sample_rate, mesh).self_compose(segment.steps)


@lru_cache(maxsize=16)
def _single_step(noise_multiplier: float, sample_rate: float, mesh: float) -> PrivacyLossDistribution:
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution

    return privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier,
        value_discretization_interval=mesh,
        sampling_prob=sample_rate,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
    )
