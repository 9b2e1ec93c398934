"""Arguments of the accountant, checked: anything that is not a number in range is refused by its name."""

from __future__ import annotations

import math
from numbers import Real

from coreason_enclave.errors import AccountingError

__all__ = ["require_count", "require_delta", "require_epsilon", "require_number"]


def require_number(name: str, value: object) -> float:
    """``value`` as a float.

    Raises:
        AccountingError: text, None, a truth value, NaN, or a number that no float holds.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise AccountingError(f"{name} must be a number, got {value!r:.80}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isnan(number):
        raise AccountingError(f"{name} must be a number, got nan")
    return number


def require_count(name: str, value: object, *, least: int = 0) -> int:
    """``value`` if it is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise AccountingError(f"{name} must be a whole number of at least {least}, got {value!r:.80}")
    return value


def require_epsilon(epsilon: object) -> None:
    """Refuse a target or cap that is not a positive, finite number."""
    number = require_number("epsilon", epsilon)
    if not (math.isfinite(number) and number > 0):
        raise AccountingError(f"epsilon must be positive and finite, got {number}")


def require_delta(delta: object) -> None:
    """Refuse a delta outside (0, 1): 0 would need a mechanism without tails, 1 promises nothing."""
    number = require_number("delta", delta)
    if not 0 < number < 1:
        raise AccountingError(f"delta must be in (0, 1), got {number}")
