"""Privacy events: frozen descriptions of executed mechanisms, from which accounting derives all numbers.

A written event never changes its meaning: ledgers are read years later. Two extremes stay explicit:

* :class:`NonPrivate` composes to no finite epsilon.
* Reading refuses an unknown event, and never guesses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from coreason_enclave.accounting.arguments import require_count, require_number
from coreason_enclave.errors import AccountingError


@dataclass(frozen=True)
class PoissonSampledGaussian:
    """``steps`` releases of a clipped sum over a fresh Poisson sample plus Gaussian noise (DP-SGD).

    Each unit enters each step's sample independently with probability ``sample_rate``. The noise has standard deviation
    ``noise_multiplier`` times the clipping norm (Abadi et al., 2016; Mironov et al., 2019). Neighbouring relation: one
    unit added or removed.

    Raises:
        AccountingError: a number is not finite or out of range.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < require_number("noise_multiplier", self.noise_multiplier) < math.inf:
            raise AccountingError(f"noise_multiplier must be positive and finite, got {self.noise_multiplier}")
        if not 0 < require_number("sample_rate", self.sample_rate) <= 1:
            raise AccountingError(f"sample_rate must be in (0, 1], got {self.sample_rate}")
        require_count("steps", self.steps)

    def with_steps(self, steps: int) -> PoissonSampledGaussian:
        """Return the same mechanism with another number of steps."""
        return replace(self, steps=steps)


@dataclass(frozen=True)
class NonPrivate:
    """Use of rows without a mechanism: no finite epsilon ever covers it."""


Event = PoissonSampledGaussian | NonPrivate


def event_to_dict(event: Event) -> dict[str, Any]:
    """Return the event as JSON types, including its type name."""
    if isinstance(event, NonPrivate):
        return {"type": "non_private"}
    return {
        "type": "poisson_sampled_gaussian",
        "noise_multiplier": event.noise_multiplier,
        "sample_rate": event.sample_rate,
        "steps": event.steps,
    }


def event_from_dict(document: Mapping[str, Any]) -> Event:
    """Read an event.

    Raises:
        AccountingError: an unknown type, a missing field or an additional field.
    """
    fields = dict(document)
    kind = fields.pop("type", None)
    if kind == "non_private" and not fields:
        return NonPrivate()
    if kind == "poisson_sampled_gaussian" and fields.keys() == {"noise_multiplier", "sample_rate", "steps"}:
        return PoissonSampledGaussian(**fields)
    raise AccountingError(f"unknown privacy event {kind!r} with fields {sorted(fields)}: it cannot be accounted for")
