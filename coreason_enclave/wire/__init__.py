"""The documents that cross the trust boundary (docs/WIRE.md).

Enters: bytes from another party.
Leaves: strictly typed documents, or an :class:`EnvelopeError`.
Never: trusts a field without a signature; changes a form without a new version.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
