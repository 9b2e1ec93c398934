"""A site's request to take part: three public keys, signed by the key that signs the site's updates."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coreason_enclave.crypto import load_or_create_signer
from coreason_enclave.policy import load_site_config
from coreason_enclave.site.tls_keys import load_or_create_node_key, load_or_create_tls_key, node_key_text
from coreason_enclave.wire import RegistrationRequest, seal_request


def make_request(folder: Path) -> bytes:
    """Return the sealed request of the site in ``folder``.

    Missing keys are made first; a repeated request names the same keys.

    Raises:
        ConfigurationError: ``site.toml`` or a key is unusable.
    """
    config = load_site_config(folder / "site.toml")
    keys = folder / config.keys
    signer = load_or_create_signer(keys / "signing.key")
    request = RegistrationRequest(
        site_id=config.site_id,
        public_key=signer.public_hex,
        node_key=node_key_text(load_or_create_node_key(keys)),
        tls_request=_certificate_request(load_or_create_tls_key(keys), config.site_id),
    )
    return seal_request(request, signer)


def _certificate_request(key: ec.EllipticCurvePrivateKey, site_id: str) -> str:
    """Return a PKCS#10 request (PEM) for the site's TLS key.

    The request's signature shows that this site holds the key. The issuer of the certificate decides the names.
    """
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site_id[:64])])  # 64: X.520's upper bound
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()
