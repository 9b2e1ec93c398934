"""The runtime on NVIDIA FLARE: the coordinator is a workflow in FLARE's server process, a message is a FLARE task.

Enters: sealed messages of a coordinator. Leaves: sealed replies, refusals and delivery failures.
Never: lets a job bring code, a host path or a class outside the allowed list.

On the platform's side only this package imports FLARE. Each internal part of FLARE is used in one place here, and one
test per part fails when an upgrade moves the part.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
