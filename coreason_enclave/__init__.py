"""The agent at a data holder's site: attests, validates, trains under differential privacy, and sanitises.

Enters: sealed orders of a coordinator, and the site's own rows and policy.
Leaves: signed, clipped, noised and encrypted updates; reason codes for all else.
Never: lets a row, or a number computed from rows without noise, leave the site.

Importing this package imports no module of it. A public name is imported with its first use (PEP 562):

>>> from coreason_enclave import FederationJob, PrivacyConfig
>>> privacy = PrivacyConfig(mechanism="DP_SGD", target_epsilon=3.0, max_grad_norm=1.0)
>>> FederationJob(
...     job_id="study-1", min_clients=3, rounds=5, strategy="FED_AVG", dataset_id="clinic/visits",
...     model_arch="LogisticRegression", privacy=privacy).aggregator
<Aggregator.MEAN: 'mean'>

The package sets ``MKL_CBWR`` unless the environment already does. Intel's mathematical library reads the variable once,
before its first product. Without it, a row's gradient would round differently depending on the row's place in memory
(see :mod:`coreason_enclave.privacy.kernel`).
"""

import os

import lazy_loader

os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
