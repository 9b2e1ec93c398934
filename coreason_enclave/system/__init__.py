"""Operating system services: durable file replacement, child processes, log files, time; words for refusals.

Enters: paths, bytes, commands, pydantic's errors, reason codes.
Leaves: files that survive a crash whole, processes that die with their parent, one line for a person to read.
Never: imports another room (the tree of errors is none); interprets a file's content.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from coreason_enclave.system import file_lock, is_locked, replace_file
>>> with TemporaryDirectory() as folder:
...     replace_file(Path(folder, "state.json"), b"{}")  # on disk, whole, when the call returns
...     with file_lock(Path(folder, "lock")):
...         is_locked(Path(folder, "lock"))
...     is_locked(Path(folder, "lock"))
True
False
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
