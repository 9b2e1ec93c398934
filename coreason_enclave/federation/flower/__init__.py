"""The site on Flower: the ``ClientApp``, the worker that answers a SuperNode's tasks, and the SuperNode process.

Enters: Flower messages with sealed bytes, by way of the site's SuperNode. Leaves: sealed replies or reason codes.
Never: runs app code from the network.

On the site's side only this folder imports Flower.
"""

from coreason_enclave.federation.flower.app import REFUSED, client_app

__all__ = ["REFUSED", "client_app"]
