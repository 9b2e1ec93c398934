"""A vendor of our own: root, authority, processor keys, reports and revocation lists in AMD's formats, made here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from coreason_enclave.attestation.verify.snp import SigningKey, SnpEndorsements, SnpProduct, SnpVerifier
from coreason_enclave.attestation.verify.snp.chain import Root
from coreason_enclave.attestation.verify.snp.der import split_signed

NOW = 1_780_000_000
YEAR = 365 * 86_400
DATA = bytes(range(64))
CHIP = {
    SnpProduct.MILAN: bytes(range(100, 164)),
    SnpProduct.GENOA: bytes(range(101, 165)),
    SnpProduct.TURIN: b"turin-01" + bytes(56),
}
# Read off AMD 56860: boot loader, TEE, SNP, microcode are 3, 1, 9, 211 everywhere; Turin's FMC is 5.
TCB = {
    SnpProduct.MILAN: bytes([3, 1, 0, 0, 0, 0, 9, 211]),
    SnpProduct.GENOA: bytes([3, 1, 0, 0, 0, 0, 9, 211]),
    SnpProduct.TURIN: bytes([5, 3, 1, 9, 0, 0, 0, 211]),
}
CPU = {SnpProduct.MILAN: (0x19, 0x01), SnpProduct.GENOA: (0x19, 0x11), SnpProduct.TURIN: (0x1A, 0x02)}
LEVELS = {"boot_loader": 1, "tee": 2, "snp": 3, "spl4": 4, "spl5": 5, "spl6": 6, "spl7": 7, "microcode": 8, "fmc": 9}
FIRST = ("boot_loader", "tee", "spl4", "spl5", "spl6", "spl7", "snp", "microcode")
TURIN = ("fmc", "boot_loader", "tee", "snp", "spl5", "spl6", "spl7", "microcode")
OID = "1.3.6.1.4.1.3704.1"
SIGNED = 0x2A0
PSS = padding.PSS(padding.MGF1(hashes.SHA384()), 48)
# The two ways in which AMD writes RSASSA-PSS with SHA-384, and one with SHA-512 in one place.
_PSS = "a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130"
PSS_SHORT = bytes.fromhex("304106092a864886f70d01010a3034" + _PSS)
PSS_LONG = bytes.fromhex("304606092a864886f70d01010a3039" + _PSS + "a303020101")
PSS_SHA512 = PSS_SHORT.replace(bytes.fromhex("6086480165030402020500a11c"), bytes.fromhex("6086480165030402030500a11c"))


@cache
def rsa_key(name: str, bits: int = 4096) -> rsa.RSAPrivateKey:
    """One key a name, for the life of the process."""
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    """One key a name, for the life of the process."""
    return ec.generate_private_key(ec.SECP384R1())


def named(common_name: str) -> x509.Name:
    """A distinguished name as AMD writes them."""
    parts = [
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Engineering"),
        (NameOID.COUNTRY_NAME, "US"),
        (NameOID.LOCALITY_NAME, "Santa Clara"),
        (NameOID.STATE_OR_PROVINCE_NAME, "CA"),
        (NameOID.ORGANIZATION_NAME, "Advanced Micro Devices"),
        (NameOID.COMMON_NAME, common_name),
    ]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def moment(unix: int) -> datetime:
    return datetime.fromtimestamp(unix, UTC)


def tlv(tag: int, content: bytes) -> bytes:
    """DER."""
    count = len(content)
    length = bytes([count]) if count < 128 else bytes([0x82]) + count.to_bytes(2)
    return bytes([tag]) + length + content


def integer(value: int) -> bytes:
    return tlv(2, value.to_bytes(value.bit_length() // 8 + 1))


def with_serial_0(der: bytes, key: rsa.RSAPrivateKey) -> bytes:
    """The same certificate under serial number 0, as a VCEK has it and no library writes it."""
    parsed = x509.load_der_x509_certificate(der)
    body = parsed.tbs_certificate_bytes
    marked = bytes.fromhex("a003020102020101")
    assert body.count(marked) == 1
    body = body.replace(marked, marked[:-1] + b"\0")
    algorithm = der[4 + len(body) : -(5 + len(parsed.signature))]
    return tlv(0x30, body + algorithm + tlv(3, b"\0" + key.sign(body, PSS, hashes.SHA384())))


def resigned(der: bytes, key: rsa.RSAPrivateKey, *, inside: bytes, outside: bytes) -> bytes:
    """The same certificate or list with these algorithm identifiers in and outside its body, signed as AMD signs."""
    signed = split_signed(der)
    (old,) = {field.whole for field in signed.fields if field.whole == signed.algorithm}
    body = tlv(0x30, b"".join(inside if field.whole == old else field.whole for field in signed.fields))
    return tlv(0x30, body + outside + tlv(3, b"\0" + key.sign(body, PSS, hashes.SHA384())))


@dataclass(frozen=True)
class Vendor:
    """One product line's keys. Two lines of one ``owner`` share keys, so that only what is written tells them apart."""

    product: SnpProduct = SnpProduct.MILAN
    kind: SigningKey = SigningKey.VCEK
    owner: str = "ours"
    chip: str = "chip-1"

    @property
    def root_key(self) -> rsa.RSAPrivateKey:
        return rsa_key(f"{self.owner} root")

    @property
    def authority_key(self) -> rsa.RSAPrivateKey:
        return rsa_key(f"{self.owner} authority")

    @property
    def leaf_key(self) -> ec.EllipticCurvePrivateKey:
        return ec_key(f"{self.owner} {self.chip}")

    @property
    def root_name(self) -> str:
        return f"ARK-{self.product}"

    @property
    def authority_name(self) -> str:
        return f"SEV-{self.product}" if self.kind is SigningKey.VCEK else f"SEV-VLEK-{self.product}"

    def root(self, **changes: Any) -> bytes:
        fields = {"subject": self.root_name, "issuer": self.root_name, "key": self.root_key.public_key(), **changes}
        return self._certificate(signer=self.root_key, serial=0x10000, authority=None, **fields)

    def authority(self, **changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "subject": self.authority_name,
            "issuer": self.root_name,
            "key": self.authority_key.public_key(),
            "serial": 0x10001,
            "authority": 0,
            "signer": self.root_key,
            **changes,
        }
        return self._certificate(**fields)

    def leaf(self, *, extensions: dict[str, bytes | None] | None = None, **changes: Any) -> bytes:
        """``extensions``: values to change by OID suffix, None to leave one out."""
        fields: dict[str, Any] = {
            "subject": f"SEV-{self.kind}",
            "issuer": self.authority_name,
            "key": self.leaf_key.public_key(),
            "serial": 1,
            "signer": self.authority_key,
            "amd": {**self.amd_extensions(), **(extensions or {})},
            **changes,
        }
        der = self._certificate(**fields)
        return with_serial_0(der, fields["signer"]) if fields.get("pss", PSS) is PSS else der

    def amd_extensions(self, tcb: bytes | None = None) -> dict[str, bytes | None]:
        """AMD's extensions by OID suffix."""
        turin = self.product is SnpProduct.TURIN
        levels = zip(TURIN if turin else FIRST, TCB[self.product] if tcb is None else tcb, strict=True)
        chip = CHIP[self.product][: 8 if turin else 64]
        own = {"4": chip} if self.kind is SigningKey.VCEK else {"5": tlv(0x16, b"cloud.example")}
        return {
            "1": integer(int(turin)),
            "2": tlv(0x16, f"{self.product}-B0".encode()),
            **{f"3.{LEVELS[name]}": integer(level) for name, level in levels},
            **own,
        }

    def _certificate(
        self,
        *,
        subject: str,
        issuer: str,
        key: Any,
        serial: int,
        signer: Any,
        window: tuple[int, int] = (NOW - YEAR, NOW + YEAR),
        authority: int | str | None = "none",
        amd: dict[str, bytes | None] | None = None,
        pss: Any = PSS,
        digest: hashes.HashAlgorithm | None = None,
        key_cert_sign: bool = True,
        extra: tuple[x509.ExtensionType, bool] | None = None,
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named(issuer))
            .public_key(key)
            .serial_number(serial)
            .not_valid_before(moment(window[0]))
            .not_valid_after(moment(window[1]))
        )
        if authority != "none":
            path = None if authority is None else int(authority)
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path), critical=True)
            usage = x509.KeyUsage(False, False, False, False, False, key_cert_sign, not key_cert_sign, False, False)
            builder = builder.add_extension(usage, critical=True)
        for suffix, value in (amd or {}).items():
            if value is not None:
                extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{OID}.{suffix}"), value)
                builder = builder.add_extension(extension, critical=False)
        if extra is not None:
            builder = builder.add_extension(extra[0], critical=extra[1])
        return builder.sign(signer, digest or hashes.SHA384(), rsa_padding=pss).public_bytes(Encoding.DER)

    def report(self, version: int = 3, changes: dict[int, bytes] | None = None, *, signer: Any = None) -> bytes:
        """A signed report; ``changes`` by offset are made before signing."""
        raw = bytearray(0x4A0)
        tcb = TCB[self.product]
        fields = {
            0x00: version.to_bytes(4, "little"),
            0x04: (7).to_bytes(4, "little"),
            0x08: (0x3_001F).to_bytes(8, "little"),
            0x34: (1).to_bytes(4, "little"),
            0x38: tcb,
            0x40: (0b100101).to_bytes(8, "little"),
            0x48: (0 if self.kind is SigningKey.VCEK else 4).to_bytes(4, "little"),
            0x50: DATA,
            0x90: b"\xaa" * 48,
            0xC0: b"\xbb" * 32,
            0x140: b"\xcc" * 32,
            0x160: b"\xff" * 32,
            0x180: tcb,
            0x188: bytes([*CPU[self.product], 1]) if version >= 3 else b"",
            0x1A0: CHIP[self.product],
            0x1E0: tcb,
            0x1E8: bytes([40, 55, 1, 0, 39, 55, 1, 0]),
            0x1F0: tcb,
            0x1F8: (3).to_bytes(8, "little") + (7).to_bytes(8, "little") if version >= 5 else b"",
            **(changes or {}),
        }
        for at, value in fields.items():
            raw[at : at + len(value)] = value
        assert len(raw) == 0x4A0
        return self.sign(bytes(raw), signer)

    def sign(self, raw: bytes, signer: Any = None) -> bytes:
        """The report with a new signature over its first 0x2A0 bytes."""
        r, s = decode_dss_signature((signer or self.leaf_key).sign(raw[:SIGNED], ec.ECDSA(hashes.SHA384())))
        return raw[:SIGNED] + r.to_bytes(72, "little") + s.to_bytes(72, "little") + raw[SIGNED + 144 :]

    def revocation_list(
        self,
        *serials: int,
        window: tuple[int, int] = (NOW - 86_400, NOW + 86_400),
        issuer: str | None = None,
        signer: rsa.RSAPrivateKey | None = None,
        extra: tuple[x509.ExtensionType, bool] | None = None,
    ) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(named(issuer or self.root_name))
            .last_update(moment(window[0]))
            .next_update(moment(window[1]))
            .add_extension(x509.CRLNumber(4), critical=False)
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment(window[0])).build()
            builder = builder.add_revoked_certificate(entry)
        if extra is not None:
            builder = builder.add_extension(extra[0], critical=extra[1])
        return builder.sign(signer or self.root_key, hashes.SHA384(), rsa_padding=PSS).public_bytes(Encoding.DER)

    def endorsements(self, **changes: Any) -> SnpEndorsements:
        """What KDS gives for this chip; ``leaf``, ``authority``, ``root`` or ``lists`` may be changed."""
        certificates = (
            changes.get("leaf") or leaf_of(self),
            changes.get("authority") or authority_of(self),
            changes.get("root") or root_of(self),
        )
        return SnpEndorsements(certificates, changes.get("lists", ()))

    def of(self, **changes: Any) -> Vendor:
        return replace(self, **changes)


def root_of(vendor: Vendor) -> bytes:
    return _root(vendor.product, vendor.owner)


@cache
def _root(product: SnpProduct, owner: str) -> bytes:
    return Vendor(product, owner=owner).root()


@cache
def authority_of(vendor: Vendor) -> bytes:
    return vendor.authority()


@cache
def leaf_of(vendor: Vendor) -> bytes:
    return vendor.leaf()


@cache
def verifier(owner: str = "ours") -> SnpVerifier:
    """A verifier that trusts ``owner`` for all lines."""
    return SnpVerifier({product: Root.of(_root(product, owner)) for product in SnpProduct})
