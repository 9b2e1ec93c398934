"""Signing keys and secrets in private files: mode 0600 in a 0700 folder, written atomically.

Reading refuses a file open to other users. Erasing keys from memory remains best effort: CPython may have copied an
object before dropping it.
"""

from __future__ import annotations

import contextlib
import secrets
import stat
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.system import PRIVATE, create_file


class Signer:
    """An Ed25519 key pair (RFC 8032) for signing; the private half never leaves this object.

    >>> signer = Signer.generate()
    >>> len(signer.sign(b"message")), signer.key_id == sha256_hex(bytes.fromhex(signer.public_hex))
    (64, True)
    """

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        raw = private_key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public_hex = raw.hex()
        self.key_id = sha256_hex(raw)

    @classmethod
    def generate(cls) -> Signer:
        """Generate a key pair with the operating system's generator."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Signer:
        """Return the key pair of a 32-byte seed (RFC 8032, section 5.1.5)."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over ``message``."""
        return self._private_key.sign(message)

    def __repr__(self) -> str:
        return f"Signer(key_id={self.key_id[:12]}…)"


def public_key_from_hex(text: str) -> Ed25519PublicKey:
    """Parse an Ed25519 public key (64 hex digits); raise :class:`ConfigurationError` for other input."""
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    except ValueError as error:
        raise ConfigurationError(f"not an Ed25519 public key (64 hex digits expected): {text[:80]!r}") from error


def load_or_create_signer(path: Path) -> Signer:
    """Return the signing key stored in ``path`` (32-byte seed), made on first use."""
    return Signer.from_seed(load_or_create_secret(path))


def load_signer(path: Path) -> Signer:
    """Return the signing key stored in ``path`` (32-byte seed).

    Raises:
        ConfigurationError: the file is missing, has another length, is readable by others, or is a link.
    """
    return Signer.from_seed(_secret_of(path))


def load_or_create_secret(path: Path) -> bytes:
    """Return the 32 secret bytes in ``path``; on first use, make them with the operating system's generator.

    Raises:
        ConfigurationError: the file has another length, is readable by others, or is a link.
    """
    if not path.exists():
        write_private(path, secrets.token_bytes(32))
    return _secret_of(path)


def _secret_of(path: Path) -> bytes:
    secret = read_private(path)
    if len(secret) != 32:
        raise ConfigurationError(f"{path} must hold 32 bytes, but has {len(secret)}: restore the file from a backup")
    return secret


def read_private(path: Path) -> bytes:
    """Return the content of a private file.

    Raises:
        ConfigurationError: the file is missing, readable by others, or a link.
    """
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
            raise ConfigurationError(f"{path} must be a regular file, readable only by its owner: run chmod 600")
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error


def write_private(path: Path, data: bytes) -> None:
    """Create ``path`` with mode 0600, whole or not at all; never replace an existing file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # the file of a concurrent starter serves as well, and stays
        create_file(path, data, mode=PRIVATE)
