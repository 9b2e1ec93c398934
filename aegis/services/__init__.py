"""Use cases over a federation folder, shared by the command line and the API.

Enters: a request that the caller has authorised.
Leaves: a changed registry, certificates, grants.
Never: parses arguments, prints, or speaks HTTP.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from aegis.errors import RunFolderError
>>> from aegis.federation import FederationFolder
>>> from aegis.services import create_federation, revoke
>>> from coreason_enclave.schemas import Profile
>>> with TemporaryDirectory() as path:
...     federation = FederationFolder(Path(path))
...     gateway = create_federation(federation, profile=Profile.DEVELOPMENT, delta=1e-5)
...     gateway.host, federation.config().public_keys
...     try:
...         revoke(federation, "ash")
...     except RunFolderError as error:
...         print(error)
('127.0.0.1', {})
the registry would not be valid: revoked: ash is not a participant: public_keys has no entry for it
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
