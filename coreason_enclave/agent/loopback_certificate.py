"""A certificate for one loopback listener, made at start; its private key touches the disk only while loading."""

from __future__ import annotations

import ipaddress
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coreason_enclave.crypto import write_private
from coreason_enclave.system import DAY_S, as_datetime

_LIFETIME_S = 3650 * DAY_S
"""Longer than any agent runs. The key lives no longer than the process."""


@dataclass(frozen=True)
class LoopbackCertificate:
    """A server certificate and its TLS context.

    Attributes:
        path: the certificate (PEM), for the only client to trust.
        context: the server's side of TLS 1.3.
    """

    path: Path
    context: ssl.SSLContext

    @classmethod
    def made(cls, folder: Path) -> LoopbackCertificate:
        """Return a new key's self-signed certificate for 127.0.0.1 and localhost."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        path, key_path = folder / "loopback.crt", folder / "loopback.key"
        path.write_bytes(_certificate(key).public_bytes(serialization.Encoding.PEM))
        key_path.unlink(missing_ok=True)
        form = serialization.PrivateFormat.PKCS8
        try:
            pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
            write_private(key_path, pem)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(path, key_path)
        finally:
            key_path.unlink(missing_ok=True)
        return cls(path, context)


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = time.time()
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(as_datetime(now - 300))
        .not_valid_after(as_datetime(now + _LIFETIME_S))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
