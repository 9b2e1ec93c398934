"""Parse AMD's certificates: chain fields through ``cryptography``, AMD's extensions here. Parsing proves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from coreason_enclave.attestation.verify.snp.der import (
    INTEGER,
    Element,
    SignedDer,
    read_element,
    small_integer,
    split_signed,
)
from coreason_enclave.attestation.verify.snp.products import LINES, SnpProduct
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.crypto import load_certificate
from coreason_enclave.system import unix_seconds

_AMD = "1.3.6.1.4.1.3704.1"
_STRUCT_VERSION, _PRODUCT_NAME, _CHIP_ID, _PROVIDER = f"{_AMD}.1", f"{_AMD}.2", f"{_AMD}.4", f"{_AMD}.5"
_LEVELS = {"boot_loader": 1, "tee": 2, "snp": 3, "microcode": 8, "fmc": 9}
_ALL_LEVELS = range(1, 10)

_IA5_STRING, _OCTET_STRING = 0x16, 0x04
_VERSION_3, _SERIAL_0, _SERIAL_1 = bytes.fromhex("a003020102"), b"\2\1\0", b"\2\1\1"
_Kind = TypeVar("_Kind", bound=x509.ExtensionType)
_UNDERSTOOD = {x509.BasicConstraints.oid, x509.KeyUsage.oid}


@dataclass(frozen=True)
class Certificate:
    """A parsed certificate. No field counts before a check of the signature over ``signed``."""

    signed: SignedDer
    serial: int
    subject: x509.Name
    issuer: x509.Name
    not_before: int
    not_after: int
    public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    extensions: x509.Extensions

    @property
    def is_authority(self) -> bool:
        """True for an ARK, ASK or ASVK; False for a VCEK or VLEK."""
        constraints = _extension(self.extensions, x509.BasicConstraints)
        return constraints is not None and constraints.ca

    @property
    def may_sign_keys_only(self) -> bool:
        """True for an ASK or ASVK: may sign certificates of keys, and of keys only."""
        constraints = _extension(self.extensions, x509.BasicConstraints)
        usage = _extension(self.extensions, x509.KeyUsage)
        return constraints is not None and constraints.path_length == 0 and usage is not None and usage.key_cert_sign

    @property
    def common_name(self) -> str:
        """The common name; empty unless the subject has exactly one."""
        names = self.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(names[0].value) if len(names) == 1 else ""


@dataclass(frozen=True)
class KeyClaims:
    """AMD's extensions of a VCEK or VLEK certificate.

    Attributes:
        tcb: 8 bytes in the layout of TCB_VERSION.
        chip_id: 64 bytes, padded with zeros as in the report; None in a VLEK.
        provider: The cloud provider that AMD issued a VLEK to; None in a VCEK.
    """

    product_name: str
    tcb: bytes
    chip_id: bytes | None
    provider: str | None


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn any error that a parser raises for bad bytes into one refusal."""
    try:
        yield
    except VerificationRefused:
        raise
    except Exception as error:  # the library does not document every error for hostile bytes
        raise VerificationRefused(Refusal.MALFORMED, f"{what} cannot be read: {error}") from error


def read_certificate(der: bytes) -> Certificate:
    """Parse one certificate without trailing bytes; raises :class:`VerificationRefused`."""
    signed = split_signed(der)
    _, serial, algorithm = _head(signed)
    if algorithm.whole != signed.algorithm:
        raise VerificationRefused(Refusal.CHAIN, "a certificate names two algorithms for its signature")
    with readable("a certificate"):
        parsed = load_certificate(_with_positive_serial(der, serial))
        key = parsed.public_key()
        extensions = parsed.extensions
        subject, issuer = parsed.subject, parsed.issuer
        window = parsed.not_valid_before_utc, parsed.not_valid_after_utc
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise VerificationRefused(Refusal.CHAIN, "an endorsement certifies a kind of key that SEV-SNP does not use")
    if any(extension.critical and extension.oid not in _UNDERSTOOD for extension in extensions):
        raise VerificationRefused(Refusal.CHAIN, "a certificate has a critical extension that AMD's never have")
    return Certificate(
        signed=signed,
        serial=int.from_bytes(serial.content),
        subject=subject,
        issuer=issuer,
        not_before=unix_seconds(window[0]),
        not_after=unix_seconds(window[1]),
        public_key=key,
        extensions=extensions,
    )


def _head(signed: SignedDer) -> tuple[Element, Element, Element]:
    """Return version, serial number and algorithm, the first fields of every certificate's body."""
    if len(signed.fields) < 3 or signed.fields[0].whole != _VERSION_3:
        raise VerificationRefused(Refusal.MALFORMED, "a certificate does not have version 3")
    version, serial, algorithm = signed.fields[:3]
    if serial.tag != INTEGER or not serial.content or serial.content[0] >= 0x80:
        raise VerificationRefused(Refusal.MALFORMED, "a certificate's serial number is missing or negative")
    return version, serial, algorithm


def _with_positive_serial(der: bytes, serial: Element) -> bytes:
    """Return the certificate for parsing, not for verification, with serial number 1 in place of 0.

    AMD numbers every VCEK 0. RFC 5280 forbids a serial number of 0; ``cryptography`` warns, and announces a refusal.
    Signature checks use the original bytes.
    """
    if serial.whole != _SERIAL_0:
        return der
    return der.replace(_VERSION_3 + _SERIAL_0, _VERSION_3 + _SERIAL_1, 1)


def read_key_claims(certificate: Certificate, product: SnpProduct) -> KeyClaims:
    """Parse AMD's extensions in the layout of ``product``; raises :class:`VerificationRefused`."""
    values = {
        extension.oid.dotted_string: extension.value.value
        for extension in certificate.extensions
        if isinstance(extension.value, x509.UnrecognizedExtension)
    }
    line = LINES[product]
    if small_integer(_needed(values, _STRUCT_VERSION)) != line.struct_version:
        raise VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, f"the key's certificate has no TCB in {product} form")
    chip = values.get(_CHIP_ID)
    provider = values.get(_PROVIDER)
    return KeyClaims(
        product_name=_text(_needed(values, _PRODUCT_NAME)),
        tcb=_tcb(values, product),
        chip_id=None if chip is None else _chip_id(chip, line.chip_id_bytes),
        provider=None if provider is None else _text(provider),
    )


def _tcb(values: dict[str, bytes], product: SnpProduct) -> bytes:
    layout = LINES[product].tcb_layout
    used = {_LEVELS[name] for name in layout if name}
    levels = {number: values.get(f"{_AMD}.3.{number}") for number in _ALL_LEVELS}
    if any(value is not None and small_integer(value) for number, value in levels.items() if number not in used):
        raise VerificationRefused(
            Refusal.ENDORSEMENTS_MISMATCH, f"the certificate has a TCB level that {product} lacks"
        )
    return bytes(small_integer(_needed(values, f"{_AMD}.3.{_LEVELS[name]}")) if name else 0 for name in layout)


def _chip_id(value: bytes, count: int) -> bytes:
    """Return the chip id. AMD writes the bytes bare; a correct extension would wrap them in an OCTET STRING."""
    if len(value) != count:
        element = read_element(value)
        if element.tag != _OCTET_STRING or element.whole != value or len(element.content) != count:
            raise VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, f"the certificate's chip id is not {count} bytes")
        value = element.content
    return value.ljust(64, b"\0")


def _text(value: bytes) -> str:
    element = read_element(value)
    if element.tag != _IA5_STRING or element.whole != value or not element.content.isascii():
        raise VerificationRefused(Refusal.MALFORMED, "a name in the key's certificate is not an IA5String")
    return element.content.decode("ascii")


def _needed(values: dict[str, bytes], oid: str) -> bytes:
    if oid not in values:
        raise VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, f"the key's certificate lacks AMD's extension {oid}")
    return values[oid]


def _extension(extensions: x509.Extensions, kind: type[_Kind]) -> _Kind | None:
    return next((extension.value for extension in extensions if isinstance(extension.value, kind)), None)
