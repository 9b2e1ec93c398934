"""The platform's audit log: hash-chained JSON lines with signed checkpoints.

The log itself is on the ground floor (:mod:`coreason_enclave.crypto.hash_log`), so that site and platform keep the same
kind; this is the platform's door to it.
"""

from __future__ import annotations

from coreason_enclave.crypto.hash_log import HashLog, LogCorrupted, LogHead, verify_lines
from coreason_enclave.wire.checkpoints import CHECKPOINT_TYPE, verify_checkpoint

__all__ = ["CHECKPOINT_TYPE", "HashLog", "LogCorrupted", "LogHead", "verify_checkpoint", "verify_lines"]
