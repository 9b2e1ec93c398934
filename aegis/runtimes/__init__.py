"""Runtimes: where a job's sites run, in this process, over Flower or over NVIDIA FLARE.

Enters: sealed messages of a coordinator. Leaves: sealed replies of the sites' sessions.
Never: opens a sealed message, or changes the bytes between coordinator and session.

>>> from aegis.runtimes import initial_model, public_evaluator
>>> import numpy as np
>>> from coreason_enclave.schemas import FederationJob
>>> job = FederationJob(
...     job_id="study-1", min_clients=3, rounds=5, strategy="FED_AVG", dataset_id="clinic/visits",
...     model_arch="LogisticRegression", model_args={"in_features": 2},
...     privacy={"mechanism": "NON_PRIVATE", "max_grad_norm": 1.0})
>>> model = initial_model(job)  # the same at every party, before any site has trained
>>> evaluate = public_evaluator(job, np.ones((2, 2), np.float32), np.array([0, 1]))
>>> evaluate(model)["accuracy"]
0.5
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
