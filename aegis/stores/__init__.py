"""Durable stores of a coordinator: a run's state, models and updates, and the newest ledger head of each site.

Enters: state, arrays, sealed updates and verified heads. Leaves: the same after a crash, or :class:`RunFolderError`.
Never: leaves a half-written file; forgets a damaged file.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
