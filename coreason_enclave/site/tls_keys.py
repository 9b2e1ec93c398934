"""A site's transport keys: the TLS client key (ECDSA P-256) and the Flower node key (ECDSA P-384).

Both keys only carry messages. The Ed25519 key signs the site's statements; losing a transport key costs only a
connection.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coreason_enclave.crypto.signing import read_private, write_private
from coreason_enclave.errors import ConfigurationError

__all__ = [
    "NODE_KEY",
    "TLS_KEY",
    "load_node_key",
    "load_or_create_node_key",
    "load_or_create_tls_key",
    "load_tls_key",
    "node_key_text",
]

NODE_KEY = "node.key"
TLS_KEY = "tls.key"

_PLAIN = serialization.NoEncryption()


def load_or_create_tls_key(keys: Path) -> ec.EllipticCurvePrivateKey:
    """Return the TLS client key in the folder ``keys``, made on first use."""
    _make(keys / TLS_KEY, ec.SECP256R1(), serialization.PrivateFormat.PKCS8)
    return load_tls_key(keys)


def load_or_create_node_key(keys: Path) -> ec.EllipticCurvePrivateKey:
    """Return the Flower node key in the folder ``keys``, made on first use in ``flower-supernode``'s format."""
    _make(keys / NODE_KEY, ec.SECP384R1(), serialization.PrivateFormat.OpenSSH)
    return load_node_key(keys)


def load_tls_key(keys: Path) -> ec.EllipticCurvePrivateKey:
    """Return the TLS client key.

    Raises:
        ConfigurationError: the key file is missing, open to others, or holds no key of this kind.
    """
    return _load(keys / TLS_KEY, serialization.load_pem_private_key, "PEM", ec.SECP256R1)


def load_node_key(keys: Path) -> ec.EllipticCurvePrivateKey:
    """Return the Flower node key.

    Raises:
        ConfigurationError: the key file is missing, open to others, or holds no key of this kind.
    """
    return _load(keys / NODE_KEY, serialization.load_ssh_private_key, "OpenSSH", ec.SECP384R1)


def node_key_text(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the node's public key in the form of Flower's header ``flwr-public-key``: base64 of the PEM."""
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(pem).decode()


def _make(path: Path, curve: ec.EllipticCurve, form: serialization.PrivateFormat) -> None:
    if not path.exists():
        key = ec.generate_private_key(curve)
        write_private(path, key.private_bytes(serialization.Encoding.PEM, form, _PLAIN))


def _load(
    path: Path, parse: Callable[[bytes, None], object], form: str, curve: type[ec.EllipticCurve]
) -> ec.EllipticCurvePrivateKey:
    try:
        key = parse(read_private(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path} is not an unencrypted {form} private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, curve):
        raise ConfigurationError(f"{path} must be an ECDSA key on {curve.name}")
    return key
