"""How far below the bound a unit is clipped, so that no rounding of norm, scaling and sum can carry it above.

With ``u = 2^-53`` (float64), ``n`` units in a sample, ``d`` terms in a unit's squared norm and sums taken over parts of
at most ``b`` units:

- the norm of one unit, its root, its quotient and its scaling are wrong by at most ``(d + 8) u``, relatively;
- a sum over ``n`` contributions of norm at most C is wrong by at most ``(b + n / b + 4) u n C``, whatever order a
  kernel adds in (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 4.2);
- the sums with and without one unit are both wrong, so that their distance is at most
  ``C (1 - slack) (1 + (d + 8) u) + 2 (b + n / b + 4) u n C``.

That is at most C where :func:`required` is at most :data:`SLACK`. What the bound does not cover is that a unit's
gradient in float32 is the same in any company; the probe and the rehearsal see to that.
"""

from __future__ import annotations

from typing import Final

__all__ = ["PART", "SLACK", "required"]

SLACK: Final = 1e-6
"""Clipping is to ``C (1 - SLACK)``: covers 1.6 million units in one sample, for models of up to 50 million weights."""

PART: Final = 1024
"""A sum is taken over parts of at most so many units."""

_UNIT_ROUNDOFF: Final = 2.0**-53


def required(units: int, terms: int) -> float:
    """The slack that a sample of so many units needs, for gradients of so many terms.

    >>> required(60_000, 10_000) < SLACK, required(10_000_000, 10_000) < SLACK
    (True, False)
    """
    return (terms + 8 + 2 * units * (PART + units / PART + 4)) * _UNIT_ROUNDOFF
