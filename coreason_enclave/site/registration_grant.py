"""Accept a coordinator's grant: check everything in the grant before writing any file."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from coreason_enclave.crypto import Signer, load_or_create_secret, load_pem_certificates
from coreason_enclave.errors import ConfigurationError, EnvelopeError, Reason
from coreason_enclave.policy import SiteConfig, load_site_config
from coreason_enclave.site.connection import (
    CONNECTION_FILE,
    ConnectionConfig,
    load_connection,
    save_connection,
)
from coreason_enclave.site.tls_keys import TLS_KEY, load_tls_key
from coreason_enclave.system import replace_file, unix_seconds
from coreason_enclave.wire import RegistrationGrant, open_grant

_CA, _CERTIFICATE = "connection/ca.crt", "connection/client.crt"


def accept_grant(folder: Path, envelope: bytes, coordinator_key: str, *, now: float) -> RegistrationGrant:
    """Check a grant and write ``connection.toml`` and ``connection/``. Accepting a grant again renews the certificate.

    Args:
        coordinator_key: the key (hex) as reported to a person; must have signed the grant.
        now: Unix seconds.

    Raises:
        EnvelopeError: not authentic, not for this site's keys, or with certificates that do not fit.
        ConfigurationError: the site has no keys, or has joined another coordinator.
    """
    config = load_site_config(folder / "site.toml")
    grant = open_grant(envelope, coordinator_key)
    _require_same_coordinator(folder, coordinator_key)
    _require_addressed(grant, config, folder / config.keys)
    _require_certificates(grant, load_tls_key(folder / config.keys), now)
    for name, certificate in ((_CA, grant.ca_certificate), (_CERTIFICATE, grant.client_certificate)):
        (folder / name).parent.mkdir(mode=0o700, exist_ok=True)
        replace_file(folder / name, certificate.encode())
    save_connection(
        folder,
        ConnectionConfig(
            gateway=grant.gateway,
            server_name=grant.server_name,
            coordinator_key=coordinator_key,
            ca=_CA,
            certificate=_CERTIFICATE,
            key=f"{config.keys}/{TLS_KEY}",
        ),
    )
    return grant


def _require_same_coordinator(folder: Path, coordinator_key: str) -> None:
    path = folder / CONNECTION_FILE
    if path.exists() and load_connection(folder).coordinator_key != coordinator_key:
        raise ConfigurationError(f"this site has joined another coordinator: remove {path} to leave it first")


def _require_addressed(grant: RegistrationGrant, config: SiteConfig, keys: Path) -> None:
    path = keys / "signing.key"
    if not path.exists():
        raise ConfigurationError(f"{path} does not exist: run coreason-enclave request first")
    own = Signer.from_seed(load_or_create_secret(path)).public_hex
    if grant.site_id != config.site_id or grant.public_key != own:
        raise EnvelopeError(
            f"the grant is for {grant.site_id} with another key: request a grant with this site's own request file",
            reason=Reason.NOT_ADDRESSED_TO_ME,
        )
    if grant.participants.get(config.site_id) != own:
        raise EnvelopeError("the grant's participants do not list this site with its own key")


def _require_certificates(grant: RegistrationGrant, key: ec.EllipticCurvePrivateKey, now: float) -> None:
    """Raise now, in plain words, for certificates that OpenSSL would refuse at the first connection.

    Raises:
        EnvelopeError: wrong issuer, key, name or validity period.
    """
    authority = _certificate(grant.ca_certificate, "CA certificate")
    own = _certificate(grant.client_certificate, "client certificate")
    if not _is_authority(authority):
        raise EnvelopeError("the CA certificate in the grant does not belong to a certificate authority")
    try:
        own.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise EnvelopeError("the client certificate is not issued by the CA in the grant") from error
    if own.public_key() != key.public_key():
        raise EnvelopeError("the client certificate is for another TLS key: send this site's own request file")
    if f"urn:aegis:participant:{grant.site_id}" not in _uris(own):
        raise EnvelopeError("the client certificate does not name this site")
    for certificate, what in ((authority, "CA"), (own, "client")):
        if not unix_seconds(certificate.not_valid_before_utc) <= now <= unix_seconds(certificate.not_valid_after_utc):
            raise EnvelopeError(f"the {what} certificate is not valid now: compare the clocks", reason=Reason.EXPIRED)


def _certificate(pem: str, what: str) -> x509.Certificate:
    try:
        return load_pem_certificates(pem.encode())[0]
    except ValueError as error:
        raise EnvelopeError(f"the {what} in the grant is not a certificate") from error


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)
