"""The federation's certificate authority: it chooses the names, and signs for nobody who does not hold the key."""

from __future__ import annotations

import datetime
import ipaddress
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from aegis.errors import CertificateRefused
from aegis.security.pki import CertificateAuthority, certificate_fingerprint, create_authority

NOW = 1_800_000_000.0
KEY = ec.generate_private_key(ec.SECP256R1())


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = KEY) -> bytes:
    """A request that asks for everything it must not get."""
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("gateway")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return create_authority(tmp_path / "pki", clock=lambda: NOW)


def read(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def names(certificate: x509.Certificate) -> list[object]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [name.value for name in extension.value]


def test_the_authority_signs_end_entities_only_and_its_key_is_private(authority: CertificateAuthority) -> None:
    certificate = read(authority.certificate)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)

    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc > datetime.timedelta(days=3650)
    assert stat.S_IMODE((authority.folder / "ca.key").stat().st_mode) == 0o600


def test_founding_again_keeps_the_authority(authority: CertificateAuthority) -> None:
    assert create_authority(authority.folder).certificate == authority.certificate


def test_a_participants_certificate_bears_its_urn_and_nothing_that_it_asked_for(
    authority: CertificateAuthority,
) -> None:
    certificate = read(authority.issue_client("hospital-a", request()))
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value

    assert names(certificate) == ["urn:aegis:participant:hospital-a"]
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert "gateway" not in certificate.subject.rfc4514_string()
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.public_key() == KEY.public_key()
    certificate.verify_directly_issued_by(read(authority.certificate))


def test_the_dates_come_from_the_clock(authority: CertificateAuthority) -> None:
    certificate = read(authority.issue_client("hospital-a", request()))
    now = datetime.datetime.fromtimestamp(NOW, datetime.UTC)

    assert certificate.not_valid_before_utc == now - datetime.timedelta(hours=1)
    assert certificate.not_valid_after_utc == now + datetime.timedelta(days=365)


def test_a_servers_certificate_bears_its_hosts_and_cannot_be_a_clients(authority: CertificateAuthority) -> None:
    path, key_path = authority.issue_server("gateway", ["fl.example.org", "127.0.0.1", "::1"])
    certificate = read(path.read_bytes())
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value

    loopback = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    assert names(certificate) == ["fl.example.org", *loopback]
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600


def test_renewing_a_servers_certificate_keeps_its_key(authority: CertificateAuthority) -> None:
    path, key_path = authority.issue_server("gateway", ["localhost"])
    before, key = path.read_bytes(), key_path.read_bytes()
    authority.issue_server("gateway", ["fl.example.org"])

    assert key_path.read_bytes() == key
    assert path.read_bytes() != before
    assert names(read(path.read_bytes())) == ["fl.example.org"]
    assert sorted(file.name for file in authority.folder.iterdir()) == [
        "ca.crt",
        "ca.key",
        "gateway.crt",
        "gateway.key",
    ]


def test_two_certificates_of_one_participant_have_two_fingerprints(authority: CertificateAuthority) -> None:
    first, second = (authority.issue_client("hospital-a", request()) for _ in range(2))

    assert certificate_fingerprint(first) != certificate_fingerprint(second)
    assert certificate_fingerprint(first) == read(first).fingerprint(hashes.SHA256()).hex()


def with_a_wrong_signature() -> bytes:
    genuine = x509.load_pem_x509_csr(request()).public_bytes(serialization.Encoding.DER)
    forged = genuine[:-1] + bytes([genuine[-1] ^ 1])
    return x509.load_der_x509_csr(forged).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        pytest.param(b"", "not a certificate request", id="nothing"),
        pytest.param(b"-----BEGIN CERTIFICATE REQUEST-----", "not a certificate request", id="a torn request"),
        pytest.param(with_a_wrong_signature(), "not signed with its own key", id="a request for a key not held"),
        pytest.param(request(rsa.generate_private_key(65537, 2048)), "must be ECDSA", id="an RSA key"),
        pytest.param(
            request(ec.generate_private_key(ec.SECP521R1())), "must be ECDSA on P-256 or P-384", id="another curve"
        ),
        pytest.param(request() + b"\n" * 20_000, "at most", id="an endless request"),
    ],
)
def test_a_request_is_refused(authority: CertificateAuthority, given: bytes, complaint: str) -> None:
    with pytest.raises(CertificateRefused, match=complaint):
        authority.issue_client("hospital-a", given)


@pytest.mark.parametrize("hosts", [[], [""], ["not a host"], ["*.example.org"], ["-x"], ["a" * 300], ["x/y"]])
def test_a_server_needs_proper_hosts(authority: CertificateAuthority, hosts: list[str]) -> None:
    with pytest.raises(CertificateRefused, match="host"):
        authority.issue_server("gateway", hosts)

    assert not (authority.folder / "gateway.key").exists()


def test_an_authority_whose_key_others_can_read_signs_nothing(authority: CertificateAuthority) -> None:
    (authority.folder / "ca.key").chmod(0o640)

    with pytest.raises(CertificateRefused, match="chmod 600"):
        authority.issue_client("hospital-a", request())


@pytest.mark.parametrize("file", ["ca.key", "ca.crt"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_an_authority_with_a_damaged_file_signs_nothing(
    authority: CertificateAuthority, file: str, content: bytes | None
) -> None:
    path = authority.folder / file
    path.unlink()
    if content is not None:
        path.touch(0o600)
        path.write_bytes(content)

    with pytest.raises(CertificateRefused, match=file if content is None or file == "ca.key" else "certificate"):
        authority.issue_client("hospital-a", request())
