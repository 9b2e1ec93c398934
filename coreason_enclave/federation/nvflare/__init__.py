"""The site on NVIDIA FLARE: the parts behind :class:`~coreason_enclave.federation.executor.CoreasonExecutor`.

Enters: FLARE tasks with sealed bytes. Leaves: sealed replies, or return codes with a reason.
Never: takes a path or a host setting from a job.

On the site's side only this folder and the executor's file import FLARE.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
