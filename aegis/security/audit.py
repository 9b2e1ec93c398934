"""The platform's audit log: hash-chained JSON lines with signed checkpoints.

Why: :mod:`coreason_enclave.crypto.hash_log` implements the log for both site and platform. The platform imports the log
only through this module.
"""

from __future__ import annotations

from coreason_enclave.crypto import HashLog, LogCorrupted, LogHead, verify_lines
from coreason_enclave.wire import CHECKPOINT_TYPE, verify_checkpoint

__all__ = ["CHECKPOINT_TYPE", "HashLog", "LogCorrupted", "LogHead", "verify_checkpoint", "verify_lines"]
