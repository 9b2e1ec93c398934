"""The rules of a federation: which sites to ask, which answers count, what happens next.

Enters: state, messages and a clock reading. Leaves: decisions, or refusals with reason codes.
Never: does IO of its own; reads a clock.

Every function depends on its arguments alone. Tests can therefore check each decision as a row of a table, and an
auditor can recompute it.

>>> from aegis.coordination import decide
>>> from coreason_enclave.schemas import FederationJob
>>> job = FederationJob(
...     job_id="study-1", min_clients=3, rounds=5, strategy="FED_AVG", dataset_id="clinic/visits",
...     model_arch="LogisticRegression", privacy={"mechanism": "NON_PRIVATE", "max_grad_norm": 1.0})
>>> decide(job, admitted=2, refused={"elm": "late"}, attempt=1).act
<NextAct.REPEAT: 'repeat'>
>>> print(decide(job, admitted=2, refused={"elm": "late"}, attempt=2).why)
2 updates admitted, 3 needed: min_clients = 3, mean, num_byzantine = 0 (elm: late)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
