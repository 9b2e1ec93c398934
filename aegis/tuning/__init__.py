"""The part of the DP engine without Torch: configuration, accounting, and the search along the privacy-utility curve.

Enters: a configuration, a number of steps, a function that trains. Leaves: an epsilon, a reservation, a calibration.
Never: imports Torch. :mod:`aegis.privacy_engine` adds the training, and callers import that module.
"""

from aegis.tuning.account import Comparison, Spent, StepSpent, calibrated, epsilon_of, guarantee_of
from aegis.tuning.config import EngineConfig
from aegis.tuning.curve import Calibration, CurvePoint
from aegis.tuning.reservations import Account, account_for, experiment, name_of_draws, privacy_config, reserve
from aegis.tuning.search import smallest_epsilon
from aegis.tuning.targeting import find_calibration, trial_key, warn_of_cost

__all__ = [
    "Account",
    "Calibration",
    "Comparison",
    "CurvePoint",
    "EngineConfig",
    "Spent",
    "StepSpent",
    "account_for",
    "calibrated",
    "epsilon_of",
    "experiment",
    "find_calibration",
    "guarantee_of",
    "name_of_draws",
    "privacy_config",
    "reserve",
    "smallest_epsilon",
    "trial_key",
    "warn_of_cost",
]
