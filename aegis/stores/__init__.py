"""Durable stores of a coordinator: a run's state, models and updates, and the newest ledger head of each site.

Enters: state, arrays, sealed updates and verified heads. Leaves: the same after a crash, or :class:`RunFolderError`.
Never: leaves a half-written file; forgets a damaged file.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from aegis.stores import FileRunStore
>>> import numpy as np
>>> with TemporaryDirectory() as folder:
...     store = FileRunStore(Path(folder))
...     digest = store.save_model({"w": np.ones(2, np.float32)})
...     store.load_model(digest)
{'w': array([1., 1.], dtype=float32)}
>>> with TemporaryDirectory() as other:
...     FileRunStore(Path(other)).load_model(digest)
Traceback (most recent call last):
aegis.errors.RunFolderError: ...safetensors is missing or damaged: start a new run
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
