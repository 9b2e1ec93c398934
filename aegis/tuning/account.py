"""Accounting: from a configuration and a number of steps to (epsilon, delta), and from an epsilon to the noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from aegis.errors import InvalidEngine
from aegis.tuning.config import EngineConfig
from coreason_enclave.accounting import (
    CALIBRATION_TOLERANCE,
    Accountant,
    Guarantee,
    calibrate_noise,
    compose_epsilon,
    rdp_epsilon,
)
from coreason_enclave.errors import PrivacyError


class Spent(NamedTuple):
    """Spent privacy: ``epsilon`` at ``delta``."""

    epsilon: float
    delta: float


class StepSpent(NamedTuple):
    """Privacy spent by the first ``step`` steps: ``epsilon`` at ``delta``."""

    step: int
    epsilon: float
    delta: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Another library's number for the same steps. No claim rests on the number, and no function turns it into a claim.

    Attributes:
        accountant: the number's source, as ``library.name``.
        under_reports: True if the number is known to lie below the true epsilon.
    """

    epsilon: float
    delta: float
    accountant: str
    under_reports: bool


def epsilon_of(config: EngineConfig, steps: int, accountant: Accountant) -> float:
    """Return the epsilon of the first ``steps`` steps at the configuration's delta, by a proving accountant.

    Raises:
        InvalidEngine: the accountant proves no bound, or the noise multiplier is not set.
    """
    if accountant is Accountant.GDP:
        raise InvalidEngine("GDP under-reports and cannot support a claim: use PLD or RDP, or see compared()")
    event = config.event(steps)
    if accountant is Accountant.RDP:
        return rdp_epsilon([event] if steps else [], config.delta)
    return compose_epsilon([event], config.delta).epsilon


def guarantee_of(config: EngineConfig, steps: int) -> Guarantee:
    """Return the guarantee for ``steps`` steps, by the configuration's accountant."""
    composed = compose_epsilon([config.event(steps)], config.delta)
    if config.accountant is Accountant.RDP:
        composed = replace(composed, epsilon=composed.rdp_epsilon, accountant=Accountant.RDP)
    return composed.guarantee(unit=config.unit, neighboring_relation=config.neighboring_relation)


def calibrated(config: EngineConfig, target_epsilon: float) -> EngineConfig:
    """Return the configuration with a noise multiplier for which the whole schedule costs at most ``target_epsilon``.

    Raises:
        InvalidEngine: no noise multiplier reaches the target with this rate and number of steps.
    """
    try:
        tight = calibrate_noise(target_epsilon, config.delta, config.sample_rate, config.steps)
    except PrivacyError as error:
        raise InvalidEngine(f"target epsilon {target_epsilon:g}: {error}") from error
    if config.accountant is Accountant.PLD:
        return config.changed(noise_multiplier=tight)
    return config.changed(noise_multiplier=_enough_for_rdp(config, target_epsilon, tight))


def _enough_for_rdp(config: EngineConfig, target_epsilon: float, low: float) -> float:
    """Bisect upwards from the noise of the tight accountant; the returned noise was checked to suffice."""

    def suffices(noise: float) -> bool:
        return epsilon_of(config.changed(noise_multiplier=noise), config.steps, Accountant.RDP) <= target_epsilon

    high = low
    while not suffices(high):
        low, high = high, 2 * high
        if high > 1e6:
            raise InvalidEngine(f"no noise multiplier up to 1e6 proves epsilon {target_epsilon:g} by RDP")
    while high > low * (1 + CALIBRATION_TOLERANCE / 2):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high
