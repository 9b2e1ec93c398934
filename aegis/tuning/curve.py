"""Points and result of a search along the privacy-utility curve."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aegis.tuning.config import EngineConfig


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One epsilon with the accuracy of actual trainings.

    Attributes:
        target_epsilon: the requested epsilon.
        epsilon: cost of ``noise_multiplier`` over the schedule; at most 0.1 % below the target.
        accuracies: held-out accuracy of each repetition, in [0, 1].
    """

    target_epsilon: float
    epsilon: float
    noise_multiplier: float
    accuracies: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """The median over the repetitions."""
        return statistics.median(self.accuracies)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The result of a search; unpacks as ``epsilon, noise_multiplier``.

    Attributes:
        epsilon, delta, noise_multiplier: the smallest epsilon seen to meet the goal, and its noise.
        accuracy: the median held-out accuracy at this epsilon.
        config: the engine's configuration with this delta and noise, for training.
        curve: every point tried, by epsilon.
        charged_to: the lineage that paid for every trial; None if the search used no ledger.
    """

    epsilon: float
    delta: float
    noise_multiplier: float
    accuracy: float
    config: EngineConfig
    curve: tuple[CurvePoint, ...]
    charged_to: str | None

    def __iter__(self) -> Iterator[float]:
        yield self.epsilon
        yield self.noise_multiplier


def describe(curve: Sequence[CurvePoint]) -> str:
    """Return one line of text about the curve."""
    points = sorted(curve, key=lambda point: point.epsilon)
    return ", ".join(f"{point.accuracy:.3f} at epsilon {point.epsilon:.3g}" for point in points) or "no trial ran"
