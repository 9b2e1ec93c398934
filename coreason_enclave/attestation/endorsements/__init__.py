"""Endorsements: vendors' statements about a platform, required for verification in addition to the evidence.

Enters: a report and a time. Leaves: endorsements from an offline bundle, a disk cache or the vendor's service.
Never: trusts a source. The verifier checks every endorsement up to the vendor's pinned root.

All sources share one interface, so each relying party decides where its endorsements come from.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from coreason_enclave.attestation.endorsements import EndorsementSettings, NoEndorsements, opened
>>> isinstance(opened(EndorsementSettings(), Path()), NoEndorsements)  # no source unless the configuration names one
True
>>> with TemporaryDirectory() as folder:
...     opened(EndorsementSettings(bundle="endorsements"), Path(folder))
Traceback (most recent call last):
coreason_enclave.errors.ConfigurationError: endorsements: folder ...endorsements (bundle) does not exist
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
