"""Certificates and the audit log.

Enters: certificate requests, and actions to record.
Leaves: certificates, and hash-chained log lines.
Never: decides who takes part in a federation; the registry does.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from aegis.security import create_authority, participant_uri
>>> with TemporaryDirectory() as folder:
...     authority = create_authority(Path(folder))
...     [path.name for path in authority.issue_server("gateway", ["gateway.example.org"])]
['gateway.crt', 'gateway.key']
>>> participant_uri("hospital-a")  # the only name in a site's certificate
'urn:aegis:participant:hospital-a'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
