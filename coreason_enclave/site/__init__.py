"""A site's folder: creating and opening it, registering with a federation, connecting to the gateway.

Enters: ``site.toml`` and key files.
Leaves: an opened site with all its collaborators chosen.
Never: trains or judges an order itself; overwrites an existing site.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
