"""The platform's audit log: hash-chained JSON lines with signed checkpoints.

The log itself is on the ground floor (:mod:`coreason_enclave.hashlog`), so that site and platform keep the same kind;
this is the platform's door to it.
"""

from __future__ import annotations

from coreason_enclave.hashlog import (
    CHECKPOINT_TYPE,
    HashLog,
    LogCorrupted,
    LogHead,
    verify_checkpoint,
    verify_lines,
)

__all__ = ["CHECKPOINT_TYPE", "HashLog", "LogCorrupted", "LogHead", "verify_checkpoint", "verify_lines"]
