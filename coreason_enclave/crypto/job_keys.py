"""Sources of per-job randomness: secret keys that their user makes and keeps, or an injected seed."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from coreason_enclave.crypto.encoding import digest
from coreason_enclave.crypto.signing import load_or_create_secret
from coreason_enclave.errors import ConfigurationError


class SecretJobKeys:
    """One 32-byte key file per job, made on first use and kept: a crashed round recomputes to the same bytes."""

    unsafe_seeded = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def key(self, job_digest: str) -> bytes:
        """Return the key of the job (64 hex digits); raise :class:`ConfigurationError` if no key can be kept."""
        try:
            return load_or_create_secret(self._folder / f"{job_digest}.key")
        except OSError as error:
            raise ConfigurationError(f"job keys cannot be stored in {self._folder}: {error.strerror}") from error


class UnsafeSeededNoise:
    """Keys derived from an injected seed, for tests, conformance and benchmarks.

    Anyone who knows the seed can subtract the noise: ledger, statements and reports mark the run as unsafe.
    """

    unsafe_seeded = True

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise ConfigurationError(f"an injected seed must have exactly 32 bytes, got {len(seed)}")
        self._seed = seed

    def key(self, job_digest: str) -> bytes:
        """Return the HMAC-SHA256 of the job's digest under the seed."""
        return hmac.digest(self._seed, bytes.fromhex(job_digest), hashlib.sha256)


def unsafe_seeded_keys(seed: int, site_id: str) -> UnsafeSeededNoise:
    """Return one site's keys under a seed shared by a whole federation; every runtime derives the same keys."""
    return UnsafeSeededNoise(digest("aegis/unsafe-seed/v1", str(seed).encode(), site_id.encode()))
