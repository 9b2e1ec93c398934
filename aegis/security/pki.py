"""The federation's own certificate authority: a single folder, no other root, names chosen by the authority alone.

::

    ca.key, ca.crt                       ECDSA P-256, ten years, may sign end entities only (path length 0)
    gateway.key, gateway.crt             a server's certificate: DNS names and IP addresses, serverAuth
    client.crt (sent to its site)        a participant's: URI ``urn:aegis:participant:<site id>``, clientAuth

- Private keys are files of mode 0600.
- A participant's private key never leaves its site. The site sends a certificate request, and the authority uses only
  the public key in the request.
- A certificate alone admits no participant. The registry pins each participant's certificate by its SHA-256, and
  handles revocation (:class:`aegis.federation.registry.FederationConfig`).
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aegis.errors import CertificateRefused
from coreason_enclave.crypto import load_pem_certificates, load_pem_request, sha256_hex, write_private
from coreason_enclave.system import DAY_S, PRIVATE, as_datetime, replace_file

PARTICIPANT_URN = "urn:aegis:participant:"
_AUTHORITY_DAYS, _SERVER_DAYS, _CLIENT_DAYS = 3653, 397, 365
_BACKDATED_S = 3600  # for a site whose clock is behind
_MAX_PEM_BYTES = 1 << 14
_CURVES = (ec.SECP256R1, ec.SECP384R1)
_DNS_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62}))*")

Clock = Callable[[], float]


def participant_uri(site_id: str) -> str:
    """Return the only name in a participant's certificate.

    >>> participant_uri("hospital-a")
    'urn:aegis:participant:hospital-a'
    """
    return PARTICIPANT_URN + site_id


def certificate_fingerprint(pem: bytes) -> str:
    """Return the SHA-256 (hex) of a certificate's DER, as the registry pins it; raises :class:`CertificateRefused`."""
    return sha256_hex(_certificate(pem).public_bytes(serialization.Encoding.DER))


def create_authority(folder: Path, *, clock: Clock = time.time) -> CertificateAuthority:
    """Create the authority's key and certificate in ``folder``; keep an existing authority."""
    if not (folder / "ca.key").exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(folder / "ca.key", _private_pem(key))
    if not (folder / "ca.crt").exists():
        write_private(folder / "ca.crt", _self_signed(_load_key(folder / "ca.key"), clock))
    return CertificateAuthority(folder, clock)


@dataclass(frozen=True)
class CertificateAuthority:
    """The certificate authority in an existing folder.

    Attributes:
        folder: holds ``ca.key`` and ``ca.crt``.
        clock: Unix seconds, for the certificates' dates.
    """

    folder: Path
    clock: Clock = time.time

    @property
    def certificate(self) -> bytes:
        """The authority's own certificate (PEM); raises :class:`CertificateRefused`."""
        pem = _read(self.folder / "ca.crt")
        _certificate(pem)
        return pem

    def issue_server(self, name: str, hosts: Sequence[str]) -> tuple[Path, Path]:
        """Create ``<name>.key`` and ``<name>.crt`` in the authority's folder, or renew an existing key's certificate.

        Args:
            name: of the files.
            hosts: DNS names and IP addresses that clients will use; at least one.

        Returns:
            the paths of certificate and key.

        Raises:
            CertificateRefused: no host, or an invalid host name.
        """
        names = [_host_name(host) for host in hosts]
        if not names:
            raise CertificateRefused("a server's certificate needs at least one host name or IP address")
        key_path, path = self.folder / f"{name}.key", self.folder / f"{name}.crt"
        if not key_path.exists():
            write_private(key_path, _private_pem(ec.generate_private_key(ec.SECP256R1())))
        public_key = _load_key(key_path).public_key()
        pem = self._issue(public_key, x509.SubjectAlternativeName(names), ExtendedKeyUsageOID.SERVER_AUTH, _SERVER_DAYS)
        replace_file(path, pem, mode=PRIVATE)
        return path, key_path

    def issue_client(self, site_id: str, request: bytes) -> bytes:
        """Return a participant's certificate (PEM) for the public key of a certificate request (PKCS#10, PEM).

        Args:
            site_id: the certificate's owner. The authority ignores any names in the request.
            request: the certificate request.

        Raises:
            CertificateRefused: not a request, not signed by its own key, or not an ECDSA P-256/P-384 key.
        """
        name = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(participant_uri(site_id))])
        return self._issue(_requested_key(request), name, ExtendedKeyUsageOID.CLIENT_AUTH, _CLIENT_DAYS)

    def _issue(
        self,
        public_key: ec.EllipticCurvePublicKey,
        names: x509.SubjectAlternativeName,
        usage: x509.ObjectIdentifier,
        days: int,
    ) -> bytes:
        authority, key = _certificate(self.certificate), _load_key(self.folder / "ca.key")
        builder = (
            _dated(public_key, days, self.clock)
            .issuer_name(authority.subject)
            .subject_name(_name("end entity"))
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        )
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _self_signed(key: ec.EllipticCurvePrivateKey, clock: Clock) -> bytes:
    name, public_key = _name("certificate authority"), key.public_key()
    builder = (
        _dated(public_key, _AUTHORITY_DAYS, clock)
        .issuer_name(name)
        .subject_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _dated(public_key: ec.EllipticCurvePublicKey, days: int, clock: Clock) -> x509.CertificateBuilder:
    now = int(clock())
    return (
        x509.CertificateBuilder()
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(as_datetime(now - _BACKDATED_S))
        .not_valid_after(as_datetime(now + days * DAY_S))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(role: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Aegis federation {role}")])


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _DNS_NAME.fullmatch(host):
        raise CertificateRefused(f"not a host name or an IP address: {host[:80]!r}")
    return x509.DNSName(host)


def _requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    if len(request) > _MAX_PEM_BYTES:
        raise CertificateRefused(f"a certificate request of {len(request)} bytes: at most {_MAX_PEM_BYTES} are read")
    try:
        parsed = load_pem_request(request)
        public_key, proven = parsed.public_key(), parsed.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateRefused(f"not a certificate request (PKCS#10, PEM): {error}") from error
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, _CURVES):
        raise CertificateRefused("the request's key must be ECDSA on P-256 or P-384")
    if not proven:
        raise CertificateRefused("the request is not signed with its own key")
    return public_key


def _certificate(pem: bytes) -> x509.Certificate:
    try:
        return load_pem_certificates(pem)[0]
    except ValueError as error:
        raise CertificateRefused(f"not a certificate (PEM): {error}") from error


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    pem = _read(path)
    if path.stat().st_mode & 0o077:
        raise CertificateRefused(f"only the owner may read {path}: run chmod 600 on the file")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateRefused(f"{path} is not a private key (PEM, not encrypted): {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateRefused(f"{path} must be an ECDSA key")
    return key


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*form)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateRefused(f"{path}: {error.strerror}") from error
