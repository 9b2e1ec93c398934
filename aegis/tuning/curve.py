"""What a search along the privacy-utility curve saw, and what it concluded."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aegis.tuning.config import EngineConfig

__all__ = ["Calibration", "CurvePoint", "describe"]


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One epsilon, really trained at.

    Attributes:
        target_epsilon: what was asked for.
        epsilon: what ``noise_multiplier`` costs over the schedule; at most 0.1 % below the target.
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
    """The answer of a search; unpacks as ``epsilon, noise_multiplier``.

    Attributes:
        epsilon, delta, noise_multiplier: the smallest epsilon that was seen to meet the goal, and its noise.
        accuracy: the median held-out accuracy there.
        config: the engine's configuration with that delta and noise: what to train with.
        curve: every point that was tried, by epsilon.
        charged_to: the lineage that every trial was charged to; None if no ledger was.
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
    """The curve in one line."""
    points = sorted(curve, key=lambda point: point.epsilon)
    return ", ".join(f"{point.accuracy:.3f} at epsilon {point.epsilon:.3g}" for point in points) or "nothing was tried"
