"""A site as a witness of its coordinators' logs: what it was shown, what it refused, and what it tells an auditor.

A coordinator holds the key of its log, and could write the log anew at any time. It cannot take back the checkpoints
that it signed and showed: each site keeps them, and signs an account of them for whoever asks.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     CheckpointStore(Path(folder)).logs()
[]
"""

from coreason_enclave.witness.statement import witness_statement
from coreason_enclave.witness.store import CheckpointStore, ShownLog

__all__ = ["CheckpointStore", "ShownLog", "witness_statement"]
