"""Use cases over a federation folder, shared by the command line and the API.

Enters: a request that the caller has authorised.
Leaves: a changed registry, certificates, grants.
Never: parses arguments, prints, or speaks HTTP.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
