"""What a coordinator does with a round's combined update, and what it remembers from one round to the next.

Pure functions beside :mod:`aegis.aggregation`, which says how updates are combined: :func:`server_step` makes the next
global model of it (FedAvg, Adam, Yogi), and the control variates of SCAFFOLD follow from it and from the admitted
updates alone. Everything here is post-processing of released updates, so it costs no privacy, and nothing more than the
update leaves a site.

>>> import numpy as np
>>> from coreason_enclave.schemas import ServerOptimizerConfig
>>> base, delta = {"w": np.zeros(2, np.float32)}, {"w": np.array([0.5, -2.0], np.float32)}
>>> model, moments = server_step(base, delta, ServerOptimizerConfig(), None)
>>> model["w"], moments
(array([ 0.5, -2. ], dtype=float32), None)
>>> correction(control={"w": np.ones(2, np.float32)}, own={"w": np.array([3.0, 1.0], np.float32)})["w"]
array([-2.,  0.], dtype=float32)
"""

from aegis.strategies.server import Moments, server_step
from aegis.strategies.variates import correction, next_server_control, next_site_control

__all__ = ["Moments", "correction", "next_server_control", "next_site_control", "server_step"]
