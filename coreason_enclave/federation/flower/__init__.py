"""The site on Flower: the ``ClientApp``, the worker that answers a SuperNode's tasks, and the SuperNode process.

Enters: Flower messages with sealed bytes, by way of the site's SuperNode. Leaves: sealed replies or reason codes.
Never: runs app code from the network.

On the site's side only this folder imports Flower.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
