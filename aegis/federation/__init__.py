"""A federation on disk: its registry, its folder, and job files.

Enters: ``federation.toml``, job YAML, a public evaluation set. Leaves: validated configuration, paths, jobs.
Never: opens a connection, starts a process, or decides who takes part.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from aegis.federation import FederationConfig, FederationFolder
>>> config = FederationConfig(profile="development", delta=1e-5, public_keys={"ash": "ab" * 32})
>>> with TemporaryDirectory() as path:
...     folder = FederationFolder(Path(path))
...     folder.create(config.revoking("ash"))
...     folder.config().revoked
('ash',)
>>> config.revoking("birch")
Traceback (most recent call last):
aegis.errors.RunFolderError: the registry would not be valid: revoked: birch is not a participant: ...
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
