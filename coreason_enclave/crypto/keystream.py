"""Sampling and noise from cryptographic keystreams under a per-job key that only its maker holds.

Every draw is a ChaCha20 keystream (RFC 8439) under its own key, derived by HMAC-SHA256 from the job's key and the
draw's full name: job, round, base model, data, purpose, step and tensor. So a round that crashed recomputes to the same
bytes, no two draws share randomness, and nobody without the key can know which units were sampled (whoever could would
void amplification by sampling) or subtract the noise. A site draws its rows and noise from one, a coordinator that
promises client-level privacy its sites and noise from another, under a key of its own.

Gaussian samples are made in float64 by the Box-Muller transform from 64-bit uniforms, which bounds them at
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

__all__ = ["JobKeys", "Keystream", "Purpose", "noise_grid"]

_TWO_TO_MINUS_64 = 2.0**-64


class Purpose(StrEnum):
    """What a draw is for; part of its name."""

    SAMPLING = "sampling"
    NOISE = "noise"


class JobKeys(Protocol):
    """Where per-job keys come from."""

    @property
    def unsafe_seeded(self) -> bool:
        """True where somebody else could know the keys: ledger, statement and report then say so."""
        ...

    def key(self, job_digest: str) -> bytes:
        """The 32-byte key of a job."""
        ...


class Keystream:
    """The randomness of one round of one job over some data (by its digest) from one base model.

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
            raise ValueError("a job key has 32 bytes")
        context = frame(
            b"aegis/keystream/v1",
            bytes.fromhex(job_digest),
            round_number.to_bytes(8, "big"),
            bytes.fromhex(base_model_digest),
            bytes.fromhex(dataset_digest),
        )
        self._key = hmac.digest(key, context, hashlib.sha256)

    def bytes(self, length: int, purpose: Purpose, step: int, tensor: str = "") -> bytes:
        """``length`` bytes that depend on the round's key and on the draw's whole name."""
        name = frame(purpose.value.encode(), step.to_bytes(8, "big"), tensor.encode())
        draw_key = hmac.digest(self._key, name, hashlib.sha256)
        cipher = Cipher(algorithms.ChaCha20(draw_key, bytes(16)), mode=None)
        return cipher.encryptor().update(bytes(length))

    def words(self, count: int, purpose: Purpose, step: int, tensor: str = "") -> npt.NDArray[np.uint64]:
        """``count`` uniform 64-bit integers."""
        return np.frombuffer(self.bytes(8 * count, purpose, step, tensor), dtype="<u8").astype(np.uint64, copy=False)

    def bernoulli(self, count: int, probability: float, step: int, name: str = "") -> npt.NDArray[np.bool_]:
        """``count`` independent draws that are true with ``probability`` rounded down to a multiple of 2^-64."""
        if probability >= 1.0:
            return np.ones(count, dtype=np.bool_)
        threshold = np.uint64(math.floor(math.ldexp(probability, 64)))
        return self.words(count, Purpose.SAMPLING, step, name) < threshold

    def normal(self, count: int, purpose: Purpose, step: int, tensor: str = "") -> npt.NDArray[np.float64]:
        """``count`` independent standard Gaussian samples (Box and Muller, 1958)."""
        pairs = (count + 1) // 2
        words = self.words(2 * pairs, purpose, step, tensor)
        uniform = (words[:pairs].astype(np.float64) + 1.0) * _TWO_TO_MINUS_64  # in (0, 1]: the logarithm is finite
        angle = words[pairs:].astype(np.float64) * (2.0 * math.pi * _TWO_TO_MINUS_64)
        radius = np.sqrt(-2.0 * np.log(uniform))
        return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:count]


def noise_grid(standard_deviation: float) -> float:
    """The power of two that noised sums are rounded to: between 2^-21 and 2^-20 standard deviations.

    Gaussian noise in floating point can betray its input through the low bits of the result (Mironov, 2012). This grid
    is public, about a millionth of the noise, and coarse against float64's spacing, which removes those bits.
    """
    return math.ldexp(1.0, math.floor(math.log2(standard_deviation)) - 20)
