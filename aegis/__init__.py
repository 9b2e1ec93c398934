"""The platform for running a study: coordinates sites, aggregates updates and accounts for privacy.

Enters: signed registrations, attestation evidence and sealed updates of sites.
Leaves: training tasks, models, and records that anyone can verify offline.
Never: sees a site's data.

Importing this package imports no other module. A public name is imported with its first use (PEP 562):

>>> from aegis import AegisError, verify_run
>>> from pathlib import Path
>>> try:
...     verify_run(Path("no-such-run"))
... except AegisError as error:
...     print(type(error).__name__)
RunFolderError
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aegis.errors import AegisError
    from aegis.federated_coordinator import FederatedCoordinator
    from aegis.privacy_engine import DifferentialPrivacyEngine
    from aegis.verification import verify_run

__all__ = ["AegisError", "DifferentialPrivacyEngine", "FederatedCoordinator", "verify_run"]

_HOMES = {
    "AegisError": "errors",
    "DifferentialPrivacyEngine": "privacy_engine",
    "FederatedCoordinator": "federated_coordinator",
    "verify_run": "verification",
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
