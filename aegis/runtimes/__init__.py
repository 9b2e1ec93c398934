"""Runtimes: where a job's sites run, in this process, over Flower or over NVIDIA FLARE.

Enters: sealed messages of a coordinator. Leaves: sealed replies of the sites' sessions.
Never: opens a sealed message, or changes the bytes between coordinator and session.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
