"""Clipping slack: the distance below the bound at which units are clipped, to absorb all rounding errors.

Without slack, rounding of norm, scaling and sum could carry a contribution above the bound. Let ``u = 2^-53``
(float64), ``n`` the units in a sample, ``d`` the terms in a unit's squared norm, and ``b`` the largest number of units
in a partial sum. Then:

- Norm, root, quotient and scaling of one unit have a relative error of at most ``(d + 8) u``.
- A sum over ``n`` contributions of norm at most C has an error of at most ``(b + n / b + 4) u n C``, for any order of
  additions (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 4.2).
- Both sums, with and without one unit, carry this error. Their distance is at most
  ``C (1 - slack) (1 + (d + 8) u) + 2 (b + n / b + 4) u n C``.

The distance stays within C if :func:`required` is at most :data:`SLACK`. The bound presumes that other rows never
change a unit's float32 gradient; the probe and the rehearsal check this premise.
"""

from __future__ import annotations

from typing import Final

SLACK: Final = 1e-6
"""Clip to ``C (1 - SLACK)``: covers 1.6 million units in one sample, for models of up to 50 million weights."""

PART: Final = 1024
"""Largest number of units in a partial sum."""

_UNIT_ROUNDOFF: Final = 2.0**-53


def required(units: int, terms: int) -> float:
    """Return the slack that a sample of ``units`` units needs, for gradients of ``terms`` terms.

    >>> required(60_000, 10_000) < SLACK, required(10_000_000, 10_000) < SLACK
    (True, False)
    """
    return (terms + 8 + 2 * units * (PART + units / PART + 4)) * _UNIT_ROUNDOFF
