"""Operating system services: durable file replacement, child processes, log files, time.

Enters: paths, bytes, commands.
Leaves: files that survive a crash whole, processes that die with their parent.
Never: imports another room; interprets a file's content.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
