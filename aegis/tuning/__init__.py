"""The pure half of the DP engine: its configuration, its account, and the search along the privacy-utility curve.

Nothing here knows Torch. :mod:`aegis.privacy_engine` is the door; it adds the training.
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
