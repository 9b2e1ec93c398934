"""The part of the DP engine without Torch: configuration, accounting, and the search along the privacy-utility curve.

Enters: a configuration, a number of steps, a function that trains. Leaves: an epsilon, a reservation, a calibration.
Never: imports Torch. :mod:`aegis.privacy_engine` adds the training, and callers import that module.

>>> from aegis.tuning import EngineConfig, epsilon_of, guarantee_of
>>> from coreason_enclave.accounting import Accountant
>>> config = EngineConfig(
...     max_grad_norm=1.0, noise_multiplier=1.0, sample_rate=0.05, steps=68, delta=1e-5, unit="record",
...     neighboring_relation="add_or_remove_one", accountant="PLD")
>>> round(guarantee_of(config, steps=68).epsilon, 2)
3.0
>>> epsilon_of(config, 68, Accountant.GDP)
Traceback (most recent call last):
aegis.errors.InvalidEngine: GDP under-reports and cannot support a claim: use PLD or RDP, or see compared()
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
