"""A whole NVIDIA of our own: roots, a GPU's certificates, reports, signed manifests and OCSP answers.

Everything carries NVIDIA's names, so that only the keys tell the two apart. Manifests are signed by hand here
(canonical XML from lxml, one ECDSA signature), so that no test asks a library to check its own work.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from lxml import etree

from coreason_enclave.attestation.verify.nvidia import NvidiaRoots, NvidiaVerifier

Key = ec.EllipticCurvePrivateKey

NOW = 1_780_000_000
YEAR = 365 * 86_400
NONCE = hashlib.sha256(b"a challenge").digest()
FIRMWARE = hashlib.sha384(b"the firmware that holds the key").digest()
DRIVER_VERSION = "550.144.03"
VBIOS_VERSION = "96.00.A5.00.01"
PDI = "48B02DF44660DA06"
MEASUREMENTS = tuple(hashlib.sha384(bytes([index])).digest() for index in range(64))
FIELDS: Mapping[int, bytes] = {
    6: bytes.fromhex("00a5009601000000"),
    14: bytes.fromhex("37040000"),
    15: b"885\0",
    16: b"0\0",
    17: b"G520\0",
    18: b"0200\0",
    19: b"\0\0",
    3: b"550.144.03\0",
    11: b"\xaa",
    20: FIRMWARE,
    21: b"\x55",
    34: b"\1\0",
    36: b"\0\0",
}


@cache
def key(name: str) -> Key:
    """The key of somebody with this name: the same one whenever it is asked for."""
    return ec.derive_private_key(int.from_bytes(hashlib.sha384(name.encode()).digest()) >> 8, ec.SECP384R1())


def name_of(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "NVIDIA Corporation"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True)
class Issued:
    """What a certificate is made of; ``replace`` a part to make one that is wrong in that part."""

    subject: str
    issuer: str
    owner: str
    signer: str
    serial: int
    ca: bool = True
    path_length: int | None = None
    signs_documents: bool = False
    signs_certificates: bool | None = None
    first: int = NOW - YEAR
    last: int = NOW + YEAR
    curve: ec.EllipticCurve = field(default_factory=ec.SECP384R1)
    algorithm: hashes.SHA256 | hashes.SHA384 = field(default_factory=hashes.SHA384)
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = ()

    def make(self) -> x509.Certificate:
        owner = key(self.owner) if isinstance(self.curve, ec.SECP384R1) else ec.generate_private_key(self.curve)
        issues = self.ca if self.signs_certificates is None else self.signs_certificates
        usage = x509.KeyUsage(self.signs_documents, False, False, False, False, issues, False, False, False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name_of(self.subject))
            .issuer_name(name_of(self.issuer))
            .public_key(owner.public_key())
            .serial_number(self.serial)
            .not_valid_before(moment(self.first))
            .not_valid_after(moment(self.last))
            .add_extension(x509.BasicConstraints(self.ca, self.path_length if self.ca else None), True)
            .add_extension(usage, True)
        )
        for extension, critical in self.extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(key(self.signer), self.algorithm)


def composite_device_id(device: str, firmware: bytes = FIRMWARE) -> x509.UnrecognizedExtension:
    spki = key(device).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    value = bytes.fromhex("3081ba020101") + spki + bytes.fromhex("303d06096086480165030402020430") + firmware
    return x509.UnrecognizedExtension(x509.ObjectIdentifier("2.23.133.5.4.1"), value)


def device_name(product: str = "GH100", pdi: str = PDI) -> x509.SubjectAlternativeName:
    text = f"NVIDIA:{product}:{pdi}".encode()
    oid = x509.ObjectIdentifier("1.3.6.1.4.1.412.274.1")
    return x509.SubjectAlternativeName([x509.OtherName(oid, bytes([0x0C, len(text)]) + text)])


def device_certificates(who: str = "", firmware: bytes = FIRMWARE, product: str = "GH100") -> tuple[Issued, ...]:
    """The parts of a GPU's chain, leaf first; another ``who`` is another GPU of the same make."""
    leaf, rom = f"leaf{who}", f"rom{who}"
    serial = 1000 + int.from_bytes(hashlib.sha256(who.encode()).digest()[:2])
    named = ((device_name(product), False), (composite_device_id(rom, firmware), False))
    root = "NVIDIA Device Identity CA"
    return (
        Issued(
            "GH100 A01 GSP FMC LF", f"GH100 A01 GSP BROM{who}", leaf, rom, serial, False, None, True, extensions=named
        ),
        Issued(f"GH100 A01 GSP BROM{who}", "NVIDIA GH100 Provisioner ICA 1", rom, "provisioner", serial + 1),
        Issued("NVIDIA GH100 Provisioner ICA 1", "NVIDIA GH100 Identity", "provisioner", "identity", 3),
        Issued("NVIDIA GH100 Identity", root, "identity", "device root", 4),
        Issued(root, root, "device root", "device root", 5),
    )


def manifest_certificates() -> tuple[Issued, ...]:
    root, middle, last = "NVIDIA CoRIM signing Root CA", "NVIDIA Reference Value GH100 CA", "NVIDIA Reference Value L3"
    return (
        Issued("HCC RIM L4 Signer", last, "rim leaf", "rim l3", 21, False, None, True),
        Issued(last, middle, "rim l3", "rim l2", 22, path_length=0),
        Issued(middle, root, "rim l2", "rim root", 23),
        Issued(root, root, "rim root", "rim root", 24),
    )


_CHAINS: dict[str, tuple[x509.Certificate, ...]] = {}


def chain(who: str = "") -> tuple[x509.Certificate, ...]:
    """A GPU's certificates, always the same ones (ECDSA signatures differ from one making to the next)."""
    if who not in _CHAINS:
        shared = chain()[2:] if who else tuple(part.make() for part in device_certificates()[2:])
        _CHAINS[who] = (*(part.make() for part in device_certificates(who)[:2]), *shared)
    return _CHAINS[who]


@cache
def manifest_chain() -> tuple[x509.Certificate, ...]:
    return tuple(part.make() for part in manifest_certificates())


def pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


@cache
def verifier() -> NvidiaVerifier:
    """Trusts our own roots, and no others."""
    return NvidiaVerifier(NvidiaRoots(devices=chain()[-1], manifests=manifest_chain()[-1]))


def sign(signer: Key, message: bytes) -> bytes:
    r, s = decode_dss_signature(signer.sign(message, ec.ECDSA(hashes.SHA384())))
    return r.to_bytes(48) + s.to_bytes(48)


def opaque(fields: Mapping[int, bytes]) -> bytes:
    return b"".join(n.to_bytes(2, "little") + len(v).to_bytes(2, "little") + v for n, v in fields.items())


def unsigned_report(
    nonce: bytes = NONCE, measurements: Sequence[bytes] = MEASUREMENTS, fields: Mapping[int, bytes] = FIELDS
) -> bytes:
    blocks = [bytes([index, 1, 51, 0, 1, 48, 0]) + value for index, value in enumerate(measurements, start=1)]
    record = b"".join(blocks)
    data = opaque(fields)
    request = bytes.fromhex("11e001ff") + nonce + b"\0"
    response = bytes.fromhex("11600000") + bytes([len(blocks)]) + len(record).to_bytes(3, "little") + record
    return request + response + hashlib.sha256(b"responder").digest() + len(data).to_bytes(2, "little") + data


def report(
    nonce: bytes = NONCE,
    measurements: Sequence[bytes] = MEASUREMENTS,
    fields: Mapping[int, bytes] = FIELDS,
    who: str = "",
) -> bytes:
    message = unsigned_report(nonce, measurements, fields)
    return message + sign(key(f"leaf{who}"), message)


ISO = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
DS = "http://www.w3.org/2000/09/xmldsig#"
C14N = "http://www.w3.org/2006/12/xml-c14n11"
ENVELOPED = f"{DS}enveloped-signature"
SHA384 = "http://www.w3.org/2001/04/xmldsig-more#sha384"
ECDSA = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"


def resource(index: int, values: Sequence[bytes], active: str = "True") -> str:
    hashes_ = " ".join(f'ns2:Hash{n}="{value.hex()}"' for n, value in enumerate(values))
    return (
        f'<ns0:Resource type="Measurement" index="{index}" active="{active}" alternatives="{len(values)}" '
        f'{hashes_} name="Measurement_{index}" size="48"/>'
    )


def tag(
    measurements: Mapping[int, Sequence[bytes]],
    version: str = DRIVER_VERSION,
    product: str = "GH100",
    payload: str | None = None,
) -> str:
    """A software identity tag without its signature, and without its end."""
    lines = "\n    ".join(resource(index, values) for index, values in measurements.items())
    return (
        f'<SoftwareIdentity xmlns="{ISO}" xmlns:ns0="{ISO}" xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" '
        f'name="{product}" tagId="8aa5c875" version="1.0">\n  <ns0:Entity name="NVIDIA Corporation" role="creator"/>\n'
        f'  <ns0:Meta colloquialVersion="{version}" edition="GPU" product="{product}"/>\n'
        f"  <ns0:Payload>\n    {lines if payload is None else payload}\n  </ns0:Payload>\n"
    )


@dataclass(frozen=True)
class Signing:
    """How a manifest is signed; ``replace`` a part to sign in a form that has to be refused."""

    signer: str = "rim leaf"
    certificates: tuple[x509.Certificate, ...] = field(default_factory=manifest_chain)
    uri: str = ""
    transforms: tuple[str, ...] = (ENVELOPED, C14N)
    canonical: str = C14N
    method: str = ECDSA
    digest_method: str = SHA384
    key_info: str | None = None
    extra: str = ""
    make_signature: Callable[[Key, bytes], bytes] = sign


def signed_manifest(body: str, signing: Signing | None = None) -> bytes:
    """Put an enveloped signature at the end of ``body`` (see :func:`tag`)."""
    how = signing or Signing()
    document = etree.fromstring(body + "</SoftwareIdentity>")
    digest = base64.b64encode(hashlib.sha384(etree.tostring(document, method="c14n")).digest()).decode()
    transforms = "".join(f'<ds:Transform Algorithm="{uri}"></ds:Transform>' for uri in how.transforms)
    info = (
        f'<ds:CanonicalizationMethod Algorithm="{how.canonical}"></ds:CanonicalizationMethod>'
        f'<ds:SignatureMethod Algorithm="{how.method}"></ds:SignatureMethod>'
        f'<ds:Reference URI="{how.uri}"><ds:Transforms>{transforms}</ds:Transforms>'
        f'<ds:DigestMethod Algorithm="{how.digest_method}"></ds:DigestMethod>'
        f"<ds:DigestValue>{digest}</ds:DigestValue></ds:Reference>"
    )
    alone = f'<ds:SignedInfo xmlns:ds="{DS}">{info}</ds:SignedInfo>'
    # Canonical XML keeps every namespace in scope, so that what is signed depends on what stands around it.
    around = etree.fromstring(f"{body}{alone}</SoftwareIdentity>")
    message = etree.tostring(around[-1], method="c14n", with_tail=False)
    value = base64.b64encode(how.make_signature(key(how.signer), message)).decode()
    certificates = "".join(f"<ds:X509Certificate>{wrapped(c)}</ds:X509Certificate>" for c in how.certificates)
    key_info = how.key_info if how.key_info is not None else f"<ds:X509Data>{certificates}</ds:X509Data>"
    return (
        f'{body}<ds:Signature xmlns:ds="{DS}"><ds:SignedInfo>{info}</ds:SignedInfo>'
        f"<ds:SignatureValue>{value}</ds:SignatureValue><ds:KeyInfo>{key_info}</ds:KeyInfo>{how.extra}</ds:Signature>"
        "</SoftwareIdentity>\n"
    ).encode()


def wrapped(certificate: x509.Certificate) -> str:
    text = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()
    return "".join(f"{text[at : at + 64]}\n" for at in range(0, len(text), 64))


def manifest(
    measurements: Mapping[int, Sequence[bytes]], version: str = DRIVER_VERSION, product: str = "GH100"
) -> bytes:
    return signed_manifest(tag(measurements, version, product))


DRIVER_PART = {number: (MEASUREMENTS[number],) for number in range(32, 36)}
VBIOS_PART = {number: (bytes(48), MEASUREMENTS[number]) for number in range(1, 4)}


@cache
def driver_manifest() -> bytes:
    return manifest(DRIVER_PART)


@cache
def vbios_manifest() -> bytes:
    return manifest(VBIOS_PART, VBIOS_VERSION)


@dataclass(frozen=True)
class Answer:
    """An OCSP answer about ``chain[index]``; ``replace`` a part to make one that is wrong in that part."""

    certificates: tuple[x509.Certificate, ...]
    index: int
    signer: str
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD
    reason: x509.ReasonFlags | None = None
    first: int = NOW - 3600
    last: int | None = NOW + 3600
    responder: x509.Certificate | None = None
    poses_as: x509.Certificate | None = None
    algorithm: hashes.HashAlgorithm = field(default_factory=hashes.SHA384)

    def der(self) -> bytes:
        revoked = self.status is ocsp.OCSPCertStatus.REVOKED
        issuer = self.certificates[self.index + 1]
        builder = ocsp.OCSPResponseBuilder().add_response(
            cert=self.certificates[self.index],
            issuer=issuer,
            algorithm=hashes.SHA384(),
            cert_status=self.status,
            this_update=moment(self.first),
            next_update=moment(self.last) if self.last is not None else None,
            revocation_time=moment(self.first) - timedelta(days=1) if revoked else None,
            revocation_reason=self.reason,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, self.poses_as or self.responder or issuer)
        if self.responder is not None:
            builder = builder.certificates([self.responder])
        return builder.sign(key(self.signer), self.algorithm).public_bytes(Encoding.DER)


def device_answers(who: str = "") -> tuple[Answer, ...]:
    """Answers about all but the leaf and the root, each signed by the issuer itself."""
    signers = {1: "provisioner", 2: "identity", 3: "device root"}
    return tuple(Answer(chain(who), index, signer) for index, signer in signers.items())


def manifest_answers() -> tuple[Answer, ...]:
    signers = {0: "rim l3", 1: "rim l2", 2: "rim root"}
    return tuple(Answer(manifest_chain(), index, signer) for index, signer in signers.items())


def responder(
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.OCSP_SIGNING, **changed: int | str
) -> x509.Certificate:
    """Somebody whom the provisioner lets answer in its place."""
    part = Issued("OCSP", "NVIDIA GH100 Provisioner ICA 1", "responder", "provisioner", 31, False, None, True)
    return replace(part, extensions=((x509.ExtendedKeyUsage([purpose]), False),), **changed).make()  # type: ignore[arg-type]
