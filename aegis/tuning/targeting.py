"""From an accuracy goal to a calibrated configuration, with a training function from the caller."""

from __future__ import annotations

import hashlib
import hmac
import warnings
from collections.abc import Callable

from aegis.errors import InvalidEngine, PrivacySpentByTuning, TuningStopped
from aegis.tuning.account import calibrated, epsilon_of
from aegis.tuning.config import EngineConfig
from aegis.tuning.curve import Calibration, CurvePoint, describe
from aegis.tuning.search import smallest_epsilon
from coreason_enclave.errors import PrivacyBudgetExceededError

TrainTrial = Callable[[EngineConfig, int], float]


def find_calibration(
    config: EngineConfig,
    accuracy_goal: float,
    *,
    epsilon_range: tuple[float, float],
    precision: float,
    repetitions: int,
    train: TrainTrial,
    charged_to: str | None,
) -> Calibration:
    """Search for the smallest epsilon whose median accuracy over ``repetitions`` trainings meets the goal.

    Args:
        train: trains a calibrated configuration as the search's n-th trial and returns its held-out accuracy.
        charged_to: the lineage that ``train`` charges, if any; used in messages and in the result.

    Raises:
        GoalOutOfReach: no epsilon in the range meets the goal.
        TuningStopped: ``train`` ran out of budget.
        InvalidEngine: a number is out of range.
    """
    if repetitions < 1:
        raise InvalidEngine(f"repetitions must be at least 1, got {repetitions}")
    curve: list[CurvePoint] = []

    def measure(target: float) -> CurvePoint:
        candidate = calibrated(config, target)
        first = len(curve) * repetitions
        accuracies = tuple(train(candidate, number) for number in range(first, first + repetitions))
        curve.append(
            CurvePoint(
                target_epsilon=target,
                epsilon=epsilon_of(candidate, candidate.steps, candidate.accountant),
                noise_multiplier=candidate.event(candidate.steps).noise_multiplier,
                accuracies=accuracies,
            )
        )
        return curve[-1]

    try:
        best = smallest_epsilon(accuracy_goal, *epsilon_range, precision, measure)
    except PrivacyBudgetExceededError as error:
        raise _stopped(accuracy_goal, curve, charged_to) from error
    return Calibration(
        epsilon=best.epsilon,
        delta=config.delta,
        noise_multiplier=best.noise_multiplier,
        accuracy=best.accuracy,
        config=config.changed(noise_multiplier=best.noise_multiplier),
        curve=tuple(sorted(curve, key=lambda point: point.epsilon)),
        charged_to=charged_to,
    )


def trial_key(seed: bytes | None, number: int) -> bytes | None:
    """Return a separate key for each trial: two trainings with shared noise would reveal their difference."""
    return None if seed is None else hmac.digest(seed, number.to_bytes(8, "big"), hashlib.sha256)


def warn_of_cost(*, data_is_public: bool, charged_to: str | None) -> None:
    """Warn that a search over non-public rows spends more privacy than the returned epsilon states."""
    if data_is_public:
        return
    cost = "is in no ledger: give charge_to= and lineage=" if charged_to is None else f"is charged to {charged_to!r}"
    warnings.warn(
        "this search trains many times on rows that are not public; the returned epsilon does not include the "
        f"privacy that the search spends, which {cost}. Tune on public or set-aside rows if possible",
        PrivacySpentByTuning,
        stacklevel=3,
    )


def _stopped(goal: float, curve: list[CurvePoint], lineage: str | None) -> TuningStopped:
    best = min((point.epsilon for point in curve if point.accuracy >= goal), default=None)
    outcome = "no trial met the goal" if best is None else f"epsilon {best:.3g} meets the goal, a smaller one may too"
    return TuningStopped(
        f"lineage {lineage!r} affords no further trial for accuracy {goal:g}. So far: {describe(curve)}; {outcome}",
        best_epsilon=best,
    )
