"""Connects a site to a federation, with one adapter per framework (Flower, NVIDIA FLARE).

Enters: a sealed message in a framework's form. Leaves: a sealed reply or a reason code in the same form.
Never: opens a sealed message, or runs code from the network.

>>> from coreason_enclave.federation import CoreasonExecutor
>>> from nvflare.apis.fl_context import FLContext
>>> from nvflare.apis.shareable import Shareable
>>> from nvflare.apis.signal import Signal
>>> reply = CoreasonExecutor().execute("run_my_code", Shareable(), FLContext(), Signal())
>>> reply.get_return_code(), reply.get_header("aegis_reason")
('TASK_UNSUPPORTED', 'unsupported')
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
