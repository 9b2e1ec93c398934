"""The site on Flower: the ``ClientApp``, the worker that answers a SuperNode's tasks, and the SuperNode's own process.

Nothing of Flower's is imported at the site outside this folder, and no app code from the network runs here.
"""

from coreason_enclave.federation.flower.app import REFUSED, OrderHandler, client_app

__all__ = ["REFUSED", "OrderHandler", "client_app"]
