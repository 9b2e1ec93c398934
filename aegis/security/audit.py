"""The platform's audit log: hash-chained JSON lines with signed checkpoints.

Why: :mod:`coreason_enclave.crypto.hash_log` implements the log for both site and platform. The platform imports the log
only through this module.
"""

from __future__ import annotations
