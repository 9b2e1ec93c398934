"""The part of the DP engine without Torch: configuration, accounting, and the search along the privacy-utility curve.

Enters: a configuration, a number of steps, a function that trains. Leaves: an epsilon, a reservation, a calibration.
Never: imports Torch. :mod:`aegis.privacy_engine` adds the training, and callers import that module.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
