"""The agent at a data holder's site: attests, validates, trains under differential privacy, and sanitises.

Enters: sealed orders of a coordinator, and the site's own rows and policy.
Leaves: signed, clipped, noised and encrypted updates; reason codes for all else.
Never: lets a row, or a number computed from rows without noise, leave the site.

Importing this package imports no other module. A public name is imported with its first use (PEP 562):

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

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coreason_enclave.errors import EnclaveError, PrivacyBudgetExceededError, Reason
    from coreason_enclave.federation.executor import CoreasonExecutor
    from coreason_enclave.policy import SiteConfig
    from coreason_enclave.privacy import PrivacyGuard
    from coreason_enclave.schemas import AggregationStrategy, AttestationReport, FederationJob, PrivacyConfig
    from coreason_enclave.sentry import DataSentry
    from coreason_enclave.session.secure_session import SecureSession

os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")

__version__ = "0.1.0"
__all__ = [
    "AggregationStrategy",
    "AttestationReport",
    "CoreasonExecutor",
    "DataSentry",
    "EnclaveError",
    "FederationJob",
    "PrivacyBudgetExceededError",
    "PrivacyConfig",
    "PrivacyGuard",
    "Reason",
    "SecureSession",
    "SiteConfig",
    "__version__",
]

_HOMES = {
    "AggregationStrategy": "schemas",
    "AttestationReport": "schemas",
    "CoreasonExecutor": "federation.executor",
    "DataSentry": "sentry",
    "EnclaveError": "errors",
    "FederationJob": "schemas",
    "PrivacyBudgetExceededError": "errors",
    "PrivacyConfig": "schemas",
    "PrivacyGuard": "privacy",
    "Reason": "errors",
    "SecureSession": "session.secure_session",
    "SiteConfig": "policy",
}


def __getattr__(name: str) -> Any:
    """Import a public name with its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
