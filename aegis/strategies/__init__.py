"""Server-side strategies: turn a round's combined update into the next global model, with memory between rounds.

Enters: the global model, the combined update, the admitted updates. Leaves: the next global model, the memory to store.
Never: does IO; asks a site for more than its released update; costs privacy, being post-processing of released updates.

:mod:`aegis.aggregation` combines the updates first. :func:`server_step` then makes the next global model (FedAvg, Adam,
Yogi). SCAFFOLD's control variates follow from the combined update and the admitted updates alone.

>>> from aegis.strategies import correction, server_step
>>> import numpy as np
>>> from coreason_enclave.schemas import ServerOptimizerConfig
>>> base, delta = {"w": np.zeros(2, np.float32)}, {"w": np.array([0.5, -2.0], np.float32)}
>>> model, moments = server_step(base, delta, ServerOptimizerConfig(), None)
>>> model["w"], moments
(array([ 0.5, -2. ], dtype=float32), None)
>>> correction(control={"w": np.ones(2, np.float32)}, own={"w": np.array([3.0, 1.0], np.float32)})["w"]
array([-2.,  0.], dtype=float32)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
