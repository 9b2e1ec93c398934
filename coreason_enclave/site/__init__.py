"""A site's folder: creating and opening it, registering with a federation, connecting to the gateway.

Enters: ``site.toml`` and key files.
Leaves: an opened site with all its collaborators chosen.
Never: trains or judges an order itself; overwrites an existing site.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from coreason_enclave.site import load_connection, load_trainer
>>> with TemporaryDirectory() as folder:
...     load_connection(Path(folder))
Traceback (most recent call last):
coreason_enclave.errors.ConfigurationError: ... has not joined a federation: run coreason-enclave request, then join
>>> load_trainer("json:JSONDecoder", "ash", sentry=None)  # as a trainer in site.toml
Traceback (most recent call last):
coreason_enclave.errors.ConfigurationError: trainer json:JSONDecoder is no subclass of CoreasonExecutor, and has no \
method as_trainer
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
