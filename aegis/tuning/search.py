"""Searches for the smallest epsilon that meets a goal: geometric steps upwards, then bisection.

The search goes upwards, so the first trials cost the least privacy, and the total never far exceeds the answer.
Accuracy is noisy and rises only roughly with epsilon. The answer is the smallest epsilon *seen* to meet the goal, right
above an epsilon seen to miss the goal.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from aegis.errors import GoalOutOfReach, InvalidEngine
from aegis.tuning.curve import CurvePoint, describe

_STRIDE = 3.0


def smallest_epsilon(
    goal: float, lowest: float, highest: float, precision: float, measure: Callable[[float], CurvePoint]
) -> CurvePoint:
    """Find the smallest epsilon in [``lowest``, ``highest``] with a median accuracy of at least ``goal``.

    Args:
        goal: accuracy in (0, 1].
        precision: stop when the last miss is within this factor below the answer; in [1.01, 10].
        measure: trains at a target epsilon; an exception ends the search.

    Raises:
        InvalidEngine: a number is out of range.
        GoalOutOfReach: even ``highest`` misses the goal; the error carries the best reachable accuracy.

    >>> def saturating(epsilon):
    ...     return CurvePoint(target_epsilon=epsilon, epsilon=epsilon, noise_multiplier=1 / epsilon,
    ...                       accuracies=(epsilon / (epsilon + 1),))
    >>> 3 <= smallest_epsilon(0.75, 0.05, 20, 1.1, saturating).epsilon <= 3.3
    True
    >>> smallest_epsilon(0.99, 0.05, 20, 1.1, saturating)
    Traceback (most recent call last):
    aegis.errors.GoalOutOfReach: accuracy 0.99 is out of reach up to epsilon 20: the best was 0.952 at epsilon 20 ...
    """
    _require(goal, lowest, highest, precision)
    seen: list[CurvePoint] = []

    def meets(epsilon: float) -> bool:
        seen.append(measure(epsilon))
        return seen[-1].accuracy >= goal

    missed, met = 0.0, lowest
    while not meets(met):
        if met >= highest:
            raise _unreachable(goal, highest, seen)
        missed, met = met, min(met * _STRIDE, highest)
    best = seen[-1]
    while missed and met > missed * precision:
        middle = math.sqrt(missed * met)
        if meets(middle):
            met, best = middle, seen[-1]
        else:
            missed = middle
    return best


def _require(goal: float, lowest: float, highest: float, precision: float) -> None:
    if not 0 < goal <= 1:
        raise InvalidEngine(f"accuracy_goal must be in (0, 1], got {goal:g}")
    if not 0 < lowest <= highest <= 1000:
        raise InvalidEngine(f"the range of epsilon must lie in (0, 1000], lowest first, got {lowest:g} to {highest:g}")
    if not 1.01 <= precision <= 10:
        raise InvalidEngine(f"precision must be in [1.01, 10], got {precision:g}")


def _unreachable(goal: float, highest: float, seen: list[CurvePoint]) -> GoalOutOfReach:
    best = max(seen, key=lambda point: point.accuracy)
    return GoalOutOfReach(
        f"accuracy {goal:g} is out of reach up to epsilon {highest:g}: the best was {best.accuracy:.3f} at epsilon "
        f"{best.epsilon:.3g} ({describe(seen)}). Lower the goal to that accuracy, allow a larger epsilon, or train "
        "better: more units, larger batches, another clipping norm",
        reachable=best.accuracy,
        at_epsilon=best.epsilon,
    )
