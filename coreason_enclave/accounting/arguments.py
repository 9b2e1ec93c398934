"""Checks the accountant's arguments, and refuses by name any argument that is not a number in range."""

from __future__ import annotations

import math
from numbers import Real

from coreason_enclave.errors import AccountingError


def require_number(name: str, value: object) -> float:
    """Return ``value`` as a float; an integer beyond the floats becomes infinity.

    Raises:
        AccountingError: text, None, a truth value or NaN.
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
    """Return ``value``, or raise unless it holds a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise AccountingError(f"{name} must be a whole number of at least {least}, got {value!r:.80}")
    return value


def require_epsilon(epsilon: object) -> None:
    """Raise unless a target or cap is a positive, finite number."""
    number = require_number("epsilon", epsilon)
    if not (math.isfinite(number) and number > 0):
        raise AccountingError(f"epsilon must be positive and finite, got {number}")


def require_delta(delta: object) -> None:
    """Raise for a delta outside (0, 1): 0 would need a mechanism without tails, 1 promises no privacy."""
    number = require_number("delta", delta)
    if not 0 < number < 1:
        raise AccountingError(f"delta must be in (0, 1), got {number}")
