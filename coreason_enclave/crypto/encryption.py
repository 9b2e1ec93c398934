"""Encryption to one receiver's key: HPKE in base mode (RFC 9180), X25519, HKDF-SHA256, AES-256-GCM.

HPKE's base mode does not authenticate the sender. A signed envelope next to the ciphertext names the sender; ``info``
binds ciphertext and envelope together.

A :class:`KemKey` lives only in memory. Erasing a key remains best effort: CPython may have copied the bytes.

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

OVERHEAD_BYTES = 32 + 16
"""Bytes that a ciphertext adds to its plaintext: the encapsulated key and the tag."""

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class KemKey:
    """An X25519 key pair for decryption; the private half never leaves this object, and no file ever holds it."""

    def __init__(self, private_key: X25519PrivateKey) -> None:
        self._private_key: X25519PrivateKey | None = private_key
        self.public_hex = private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    @classmethod
    def generate(cls) -> KemKey:
        """Generate a key pair with the operating system's generator."""
        return cls(X25519PrivateKey.generate())

    def decrypt(self, ciphertext: bytes, info: bytes) -> bytes:
        """Return the plaintext of a ciphertext made for this key under the same ``info``.

        Raises:
            EnvelopeError: the key was erased, or the ciphertext belongs to another key or another ``info``.
        """
        if self._private_key is None:
            raise EnvelopeError("the key was erased", reason=Reason.UNDECRYPTABLE)
        try:
            return _SUITE.decrypt(ciphertext, self._private_key, info)
        except (InvalidTag, ValueError) as error:
            raise EnvelopeError("wrong key or message for the encrypted data", reason=Reason.UNDECRYPTABLE) from error

    def erase(self) -> None:
        """Forget the private half."""
        self._private_key = None

    def __repr__(self) -> str:
        return f"KemKey(public={self.public_hex[:12]}…)"


class KemKeys(Protocol):
    """Key pairs that models are encrypted to: one pair for each challenge that this end answered."""

    unsafe_derived: bool

    def make(self, nonce: str, job_digest: str) -> KemKey:
        """Return the key pair for one challenge (64 hex digits) about one job."""
        ...

    def keep(self, key: KemKey) -> None:
        """Decrypt with ``key`` from now on."""
        ...

    def find(self, public_hex: str, nonce: str, job_digest: str) -> KemKey | None:
        """Return the pair with this public key, made for that challenge, or None once erased."""
        ...

    def erase(self) -> None:
        """Forget every private half."""
        ...


class KemKeysInMemory:
    """Fresh key pairs, kept only in memory; the last few stay for orders in transit."""

    unsafe_derived = False

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._keys: dict[str, KemKey] = {}

    def make(self, nonce: str, job_digest: str) -> KemKey:
        """See :class:`KemKeys`."""
        del nonce, job_digest
        return KemKey.generate()

    def keep(self, key: KemKey) -> None:
        """Keep ``key``, and erase the oldest key beyond the limit. See :class:`KemKeys`."""
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
    """Key pairs derived from a secret in a file, for simulators that start a new process with every task.

    No pair is ever forgotten: anyone who gets the secret, at any time, can decrypt every model sent to this end.
    """

    unsafe_derived = True

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._erased = False

    def make(self, nonce: str, job_digest: str) -> KemKey:
        """Derive the pair: the same challenge and job give the same pair in any process. See :class:`KemKeys`."""
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
        """Forget the pairs in this process only. See :class:`KemKeys`."""
        self._erased = True


def encrypt_to(public_hex: str, plaintext: bytes, info: bytes) -> bytes:
    """Encrypt to an X25519 key (64 hex digits); raise :class:`EnvelopeError` for an unusable key."""
    try:
        return _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)), info)
    except ValueError as error:  # only the key exchange itself detects a point of small order
        raise EnvelopeError(f"cannot encrypt to the key {public_hex[:80]!r}") from error


def require_receiver(public_hex: str) -> None:
    """Raise :class:`EnvelopeError` unless encryption to this key works.

    Check early, before later work depends on the key.
    """
    encrypt_to(public_hex, b"", b"")


def info_for(purpose: str, envelope: bytes) -> bytes:
    """Return the HPKE ``info`` of a ciphertext that travels next to ``envelope``.

    A ciphertext moved to another message does not decrypt.
    """
    return frame(b"aegis/hpke/v1", purpose.encode(), envelope)
