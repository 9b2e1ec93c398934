"""The agent's Unix socket: the frame protocol, and a client for transports on the same host.

Enters: a sealed message for the local agent. Leaves: the agent's sealed reply, status or reason code.
Never: opens a sealed message, or holds a key.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
