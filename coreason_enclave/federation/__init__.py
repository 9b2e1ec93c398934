"""Connects a site to a federation, with one adapter per framework (Flower, NVIDIA FLARE).

Enters: a sealed message in a framework's form. Leaves: a sealed reply or a reason code in the same form.
Never: opens a sealed message, or runs code from the network.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
