"""The platform for running a study: coordinates sites, aggregates updates and accounts for privacy.

Enters: signed registrations, attestation evidence and sealed updates of sites.
Leaves: training tasks, models, and records that anyone can verify offline.
Never: sees a site's data.

Importing this package imports no module of it. A public name is imported with its first use (PEP 562):

>>> from aegis import AegisError, verify_run
>>> from pathlib import Path
>>> try:
...     verify_run(Path("no-such-run"))
... except AegisError as error:
...     print(type(error).__name__)
RunFolderError
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
