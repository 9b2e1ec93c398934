"""Where per-job randomness comes from: secret keys that their user makes and keeps, or an injected seed."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from coreason_enclave.crypto.encoding import digest
from coreason_enclave.crypto.signing import load_or_create_secret
from coreason_enclave.errors import ConfigurationError

__all__ = ["SecretJobKeys", "UnsafeSeededNoise", "unsafe_seeded_keys"]


class SecretJobKeys:
    """One 32-byte file a job, made on first use, kept so that a crashed round recomputes to the same bytes."""

    unsafe_seeded = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def key(self, job_digest: str) -> bytes:
        """The key of the job (64 hex digits); raises :class:`ConfigurationError` where none can be kept."""
        try:
            return load_or_create_secret(self._folder / f"{job_digest}.key")
        except OSError as error:
            raise ConfigurationError(f"job keys cannot be kept in {self._folder}: {error.strerror}") from error


class UnsafeSeededNoise:
    """Keys derived from an injected seed, for tests, conformance and benchmarks.

    Whoever knows the seed can subtract the noise: ledger, statements and reports call such a run unsafe.
    """

    unsafe_seeded = True

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise ConfigurationError(f"an injected seed has exactly 32 bytes, got {len(seed)}")
        self._seed = seed

    def key(self, job_digest: str) -> bytes:
        """HMAC-SHA256 of the job under the seed."""
        return hmac.digest(self._seed, bytes.fromhex(job_digest), hashlib.sha256)


def unsafe_seeded_keys(seed: int, site_id: str) -> UnsafeSeededNoise:
    """The keys of one site under a number that a whole federation shares: every runtime derives the same ones."""
    return UnsafeSeededNoise(digest("aegis/unsafe-seed/v1", str(seed).encode(), site_id.encode()))
