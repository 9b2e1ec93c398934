"""Everything a site does with one order, in the only allowed sequence.

Enters: a sealed message from the coordinator.
Leaves: a sealed update, or a refusal with a reason code.
Never: releases an update before charging the ledger; lets the text of a user's error out.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> from coreason_enclave.crypto import sha256_hex
>>> from coreason_enclave.session import StoredUpdate, UpdateStore
>>> job, binding, sent = "ab" * 32, "cd" * 32, StoredUpdate(b"clipped, noised arrays", {})
>>> with TemporaryDirectory() as folder:
...     store = UpdateStore(Path(folder))
...     store.keep(job, 1, binding, sent)
...     store.find(job, 1, binding, sha256_hex(sent.payload)) == sent  # a lost answer is sent again
...     store.find(job, 1, binding, sha256_hex(b"not committed")) is None  # only committed bytes count
True
True
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
