"""Sampling and noise from cryptographic keystreams, under a per-job key that only its maker holds.

Every draw has its own ChaCha20 keystream (RFC 8439). HMAC-SHA256 derives the keystream's key from the job's key and the
draw's full name: job, round, base model, data, purpose, step and tensor. Guarantees:

- A crashed round recomputes to the same bytes.
- No two draws share randomness.
- Without the key, no one can subtract the noise or learn which units were sampled. Knowing the sampled units would void
  amplification by sampling.

A site draws its rows and noise under its own key. A coordinator that promises client-level privacy draws sites and
noise under a separate key of its own.

The Box-Muller transform turns 64-bit uniforms into Gaussian samples in float64. The transform bounds samples at
``sqrt(2 ln 2^64)`` = 9.42 standard deviations; the mass beyond (below 5e-21 a coordinate) adds to delta.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from coreason_enclave.crypto.encoding import frame

_TWO_TO_MINUS_64 = 2.0**-64


class Purpose(StrEnum):
    """The purpose of a draw; part of the draw's name."""

    SAMPLING = "sampling"
    NOISE = "noise"


class JobKeys(Protocol):
    """A source of per-job keys."""

    @property
    def unsafe_seeded(self) -> bool:
        """True if another party could know the keys; ledger, statement and report then say so."""
        ...

    def key(self, job_digest: str) -> bytes:
        """Return the 32-byte key of a job."""
        ...


class Keystream:
    """The randomness of one round of one job, over some data (by digest) and from one base model.

    >>> a = Keystream(bytes(32), job_digest="00", round_number=1, base_model_digest="01", dataset_digest="02")
    >>> bool((a.normal(4, Purpose.NOISE, 0, "w") == a.normal(4, Purpose.NOISE, 0, "w")).all())
    True
    >>> bool((a.normal(4, Purpose.NOISE, 0, "w") == a.normal(4, Purpose.NOISE, 1, "w")).any())
    False
    """

    def __init__(
        self, key: bytes, *, job_digest: str, round_number: int, base_model_digest: str, dataset_digest: str
    ) -> None:
        if len(key) != 32:
            raise ValueError("a job key must have 32 bytes")
        context = frame(
            b"aegis/keystream/v1",
            bytes.fromhex(job_digest),
            round_number.to_bytes(8, "big"),
            bytes.fromhex(base_model_digest),
            bytes.fromhex(dataset_digest),
        )
        self._key = hmac.digest(key, context, hashlib.sha256)

    def bytes(self, length: int, purpose: Purpose, step: int, tensor: str = "") -> bytes:
        """Return ``length`` bytes that depend on the round's key and on the draw's whole name."""
        name = frame(purpose.value.encode(), step.to_bytes(8, "big"), tensor.encode())
        draw_key = hmac.digest(self._key, name, hashlib.sha256)
        cipher = Cipher(algorithms.ChaCha20(draw_key, bytes(16)), mode=None)
        return cipher.encryptor().update(bytes(length))

    def words(self, count: int, purpose: Purpose, step: int, tensor: str = "") -> npt.NDArray[np.uint64]:
        """Return ``count`` uniform 64-bit integers."""
        return np.frombuffer(self.bytes(8 * count, purpose, step, tensor), dtype="<u8").astype(np.uint64, copy=False)

    def bernoulli(self, count: int, probability: float, step: int, name: str = "") -> npt.NDArray[np.bool_]:
        """Return ``count`` independent draws, true with ``probability`` rounded down to a multiple of 2^-64."""
        if probability >= 1.0:
            return np.ones(count, dtype=np.bool_)
        threshold = np.uint64(math.floor(math.ldexp(probability, 64)))
        return self.words(count, Purpose.SAMPLING, step, name) < threshold

    def normal(self, count: int, purpose: Purpose, step: int, tensor: str = "") -> npt.NDArray[np.float64]:
        """Return ``count`` independent standard Gaussian samples (Box and Muller, 1958)."""
        pairs = (count + 1) // 2
        words = self.words(2 * pairs, purpose, step, tensor)
        uniform = (words[:pairs].astype(np.float64) + 1.0) * _TWO_TO_MINUS_64  # in (0, 1]: the logarithm is finite
        angle = words[pairs:].astype(np.float64) * (2.0 * math.pi * _TWO_TO_MINUS_64)
        radius = np.sqrt(-2.0 * np.log(uniform))
        return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:count]


def noise_grid(standard_deviation: float) -> float:
    """Return the power of two that noised sums are rounded to: between 2^-21 and 2^-20 standard deviations.

    Gaussian noise in floating point can betray its input through the low bits of the result (Mironov, 2012). Rounding
    to this grid removes those bits: the grid is public, about a millionth of the noise, and coarse against float64's
    spacing.
    """
    return math.ldexp(1.0, math.floor(math.log2(standard_deviation)) - 20)
