"""An HTTP server with mutual TLS and a fair share for each party.

Enters: connections from any host.
Leaves: ASGI requests with the client's verified certificate, and counts of the parties turned away.
Never: knows Flower, a federation's registry or an order.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
