"""A site as a witness of its coordinators' logs: which checkpoints the site saw, refused, and reports to an auditor.

Enters: signed checkpoints that coordinators show.
Leaves: the newest accepted checkpoint, a refusal, or a signed statement for an auditor.
Never: accepts a log that does not continue the accepted one, unless a person acknowledges the change.

A coordinator holds the key of its log, and could rewrite the log at any time. But the coordinator cannot take back the
checkpoints already signed and shown: each site keeps them, and signs an account of them on request.

>>> from coreason_enclave.witness import CheckpointStore
>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     CheckpointStore(Path(folder)).logs()
[]
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
