"""Encryption to one receiver's key: HPKE in base mode (RFC 9180), X25519, HKDF-SHA256, AES-256-GCM.

Who sent it is said by a signed envelope that travels beside the ciphertext, not by HPKE; ``info`` ties the two to each
other.
A :class:`KemKey` lives in memory alone. Erasing it is best effort in CPython, which may have copied it.

>>> key = KemKey.generate()
>>> key.decrypt(encrypt_to(key.public_hex, b"weights", b"context"), b"context")
b'weights'
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coreason_enclave.crypto.encoding import frame
from coreason_enclave.errors import EnvelopeError, Reason

__all__ = [
    "OVERHEAD_BYTES",
    "KemKey",
    "KemKeys",
    "KemKeysInMemory",
    "UnsafeDerivedKemKeys",
    "encrypt_to",
    "info_for",
    "require_receiver",
]

OVERHEAD_BYTES = 32 + 16
"""What a ciphertext is longer than its plaintext: the encapsulated key and the tag."""

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class KemKey:
    """An X25519 key pair that decrypts; the private half never leaves this object, and no file ever holds it."""

    def __init__(self, private_key: X25519PrivateKey) -> None:
        self._private_key: X25519PrivateKey | None = private_key
        self.public_hex = private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    @classmethod
    def generate(cls) -> KemKey:
        """A fresh key pair from the operating system's generator."""
        return cls(X25519PrivateKey.generate())

    def decrypt(self, ciphertext: bytes, info: bytes) -> bytes:
        """The plaintext that was encrypted to this key under the same ``info``; raises :class:`EnvelopeError`."""
        if self._private_key is None:
            raise EnvelopeError("the key was erased", reason=Reason.UNDECRYPTABLE)
        try:
            return _SUITE.decrypt(ciphertext, self._private_key, info)
        except (InvalidTag, ValueError) as error:
            raise EnvelopeError("not encrypted to this key for this message", reason=Reason.UNDECRYPTABLE) from error

    def erase(self) -> None:
        """Forget the private half."""
        self._private_key = None

    def __repr__(self) -> str:
        return f"KemKey(public={self.public_hex[:12]}…)"


class KemKeys(Protocol):
    """The key pairs that models are encrypted to: one for each challenge that this end answered."""

    unsafe_derived: bool

    def make(self, nonce: str, job_digest: str) -> KemKey:
        """The pair for one challenge (64 hex digits) about one job."""
        ...

    def keep(self, key: KemKey) -> None:
        """Decrypt with ``key`` from now on."""
        ...

    def find(self, public_hex: str, nonce: str, job_digest: str) -> KemKey | None:
        """The pair with this public half, made for that challenge; None where there is none any more."""
        ...

    def erase(self) -> None:
        """Forget every private half."""
        ...


class KemKeysInMemory:
    """Fresh pairs, in memory alone; the last few are kept for orders on their way."""

    unsafe_derived = False

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._keys: dict[str, KemKey] = {}

    def make(self, nonce: str, job_digest: str) -> KemKey:
        """See :class:`KemKeys`."""
        del nonce, job_digest
        return KemKey.generate()

    def keep(self, key: KemKey) -> None:
        """See :class:`KemKeys`; the oldest one above the number that is kept is erased."""
        for old in list(self._keys)[: 1 - self._most]:
            if (dropped := self._keys.pop(old, None)) is not None:
                dropped.erase()
        self._keys[key.public_hex] = key

    def find(self, public_hex: str, nonce: str, job_digest: str) -> KemKey | None:
        """See :class:`KemKeys`."""
        del nonce, job_digest
        return self._keys.get(public_hex)

    def erase(self) -> None:
        """See :class:`KemKeys`."""
        for key in list(self._keys.values()):
            key.erase()
        self._keys.clear()


class UnsafeDerivedKemKeys:
    """Pairs derived from a secret that a file holds, for simulators that begin a new process with every task.

    Nothing is ever forgotten: whoever gets the secret, at any time, decrypts every model that was sent here.
    """

    unsafe_derived = True

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._erased = False

    def make(self, nonce: str, job_digest: str) -> KemKey:
        """See :class:`KemKeys`; the same challenge gives the same pair, in any process."""
        material = frame(b"aegis/unsafe-derived-kem/v1", bytes.fromhex(nonce), bytes.fromhex(job_digest))
        seed = hmac.digest(self._secret, material, hashlib.sha256)
        return KemKey(X25519PrivateKey.from_private_bytes(seed))

    def keep(self, key: KemKey) -> None:
        """See :class:`KemKeys`."""
        del key
        self._erased = False

    def find(self, public_hex: str, nonce: str, job_digest: str) -> KemKey | None:
        """See :class:`KemKeys`."""
        key = self.make(nonce, job_digest)
        return key if key.public_hex == public_hex and not self._erased else None

    def erase(self) -> None:
        """See :class:`KemKeys`; in this process alone."""
        self._erased = True


def encrypt_to(public_hex: str, plaintext: bytes, info: bytes) -> bytes:
    """Encrypt to an X25519 key (64 hex digits); anything else raises :class:`EnvelopeError`."""
    try:
        return _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)), info)
    except ValueError as error:  # a point of small order is found out in the exchange itself
        raise EnvelopeError(f"nothing can be encrypted to the key {public_hex[:80]!r}") from error


def require_receiver(public_hex: str) -> None:
    """Raise :class:`EnvelopeError` unless something can be encrypted to this key: best known before it matters."""
    encrypt_to(public_hex, b"", b"")


def info_for(purpose: str, envelope: bytes) -> bytes:
    """The ``info`` of what travels beside ``envelope``: a ciphertext moved to another message does not decrypt."""
    return frame(b"aegis/hpke/v1", purpose.encode(), envelope)
