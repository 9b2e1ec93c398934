"""An HTTP server with mutual TLS and a fair share for each party.

Enters: connections from any host.
Leaves: ASGI requests with the client's verified certificate, and counts of the parties turned away.
Never: knows Flower, a federation's registry or an order.

>>> from aegis.http import GatewayLimits
>>> limits = GatewayLimits()
>>> limits.connections, limits.connections_per_site, limits.descriptors
(512, 32, 1920)
>>> fitting = limits.fitting(descriptors=1024)  # a host that allows a process fewer files
>>> fitting.connections, fitting.connections_per_site, fitting.descriptors
(225, 32, 1023)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
