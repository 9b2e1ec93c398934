"""A whole Intel of our own: root, authorities, a platform's certificate, TCB info, revocation lists, and quotes.

Everything is signed by keys generated here and carries Intel's names, so that only the keys tell the two apart.
Formats: Intel SGX PCK Certificate and CRL Profile; Intel SGX and TDX DCAP quote libraries; PCS API version 4.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from coreason_enclave.attestation.verify.dcap import DcapEndorsements, DcapVerifier

Key = ec.EllipticCurvePrivateKey

NOW = 1_800_000_000
DAY = 86_400
SGX = "1.2.840.113741.1.13.1"
FMSPC = bytes.fromhex("00a067110000")
CPU_SVN = bytes([11, 11, 2, 2, 255, 1] + [0] * 10)
TEE_TCB_SVN = bytes([5, 0, 2] + [0] * 13)
VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
QE_SIGNER = bytes(range(32))
HELLO = b"Hello, federation".ljust(64, b"\0")


def _tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    head = bytes([size]) if size < 128 else bytes([0x82]) + struct.pack(">H", size)
    return bytes([tag]) + head + content


def _entry(oid: str, value: bytes) -> bytes:
    arcs = [int(arc) for arc in oid.split(".")]
    encoded = bytes([arcs[0] * 40 + arcs[1]])
    for arc in arcs[2:]:
        digits = [arc & 0x7F]
        while arc := arc >> 7:
            digits.insert(0, 0x80 | (arc & 0x7F))
        encoded += bytes(digits)
    return _tlv(0x30, _tlv(0x06, encoded), value)


def _integer(value: int) -> bytes:
    return _tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


@dataclass(frozen=True)
class Pck:
    """What the certificate of a platform says; the flags are there where the Platform CA issued it."""

    fmspc: bytes = FMSPC
    ppid: bytes = bytes(range(16))
    pce_id: bytes = b"\0\0"
    flags: tuple[bool, bool, bool] | None = None

    def extension(self) -> bytes:
        """Intel's SGX extension, DER."""
        tcb = [_entry(f"{SGX}.2.{n}", _integer(svn)) for n, svn in enumerate(CPU_SVN, start=1)]
        tcb += [_entry(f"{SGX}.2.17", _integer(13)), _entry(f"{SGX}.2.18", _tlv(0x04, CPU_SVN))]
        entries = [
            _entry(f"{SGX}.1", _tlv(0x04, self.ppid)),
            _entry(f"{SGX}.2", _tlv(0x30, *tcb)),
            _entry(f"{SGX}.3", _tlv(0x04, self.pce_id)),
            _entry(f"{SGX}.4", _tlv(0x04, self.fmspc)),
            _entry(f"{SGX}.5", _tlv(0x0A, b"\1")),
        ]
        if self.flags is not None:
            said = [_tlv(0x01, b"\xff" if flag else b"\0") for flag in self.flags]
            entries.append(_entry(f"{SGX}.6", _tlv(0x04, bytes(16))))
            entries.append(_entry(f"{SGX}.7", _tlv(0x30, *(_entry(f"{SGX}.7.{n + 1}", v) for n, v in enumerate(said)))))
        return _tlv(0x30, *entries)


@dataclass(frozen=True)
class Party:
    """A key and its certificate."""

    key: Key
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        """The certificate, DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        """The certificate, PEM."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, ``r`` and ``s`` of 32 bytes each."""
        r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"Intel SGX {common}"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Intel Corporation"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        ]
    )


def _at(moment: int) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def issue(
    common: str,
    issuer: Party | None,
    *,
    depth: int | None = None,
    window: tuple[int, int] = (NOW - 1000 * DAY, NOW + 1000 * DAY),
    extension: bytes | None = None,
) -> Party:
    """A certificate authority where ``depth`` is given; self-signed where there is no ``issuer``."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = issuer.key if issuer else key
    ca = depth is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(common))
        .issuer_name(issuer.certificate.subject if issuer else _name(common))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_at(window[0]))
        .not_valid_after(_at(window[1]))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.KeyUsage(not ca, not ca, False, False, False, ca, ca, False, False), True)
        .add_extension(x509.BasicConstraints(ca, depth), True)
        .add_extension(x509.CRLDistributionPoints([_DISTRIBUTION]), False)
    )
    if extension is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(SGX), extension), False)
    return Party(key, builder.sign(signer, hashes.SHA256()))


_DISTRIBUTION = x509.DistributionPoint(
    [x509.UniformResourceIdentifier("https://certificates.example/root.crl")], None, None, None
)


def crl(issuer: Party, revoked: Iterable[Party] = (), window: tuple[int, int] = (NOW - DAY, NOW + 30 * DAY)) -> bytes:
    """A revocation list, DER."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(_at(window[0]))
        .next_update(_at(window[1]))
        .add_extension(x509.CRLNumber(1), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), False)
    )
    for party in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(party.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(_at(window[0])).build())
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _stamp(moment: int) -> str:
    return _at(moment).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Tcb:
    """A level as Intel publishes it, for the platform or for its quoting enclave."""

    status: str = "UpToDate"
    advisories: tuple[str, ...] = ()
    since: int = NOW - 300 * DAY
    svn: int = 0
    """How much above the platform the level asks for."""

    def level(self, tcb: dict[str, Any]) -> dict[str, Any]:
        """As JSON types."""
        level: dict[str, Any] = {"tcb": tcb, "tcbDate": _stamp(self.since), "tcbStatus": self.status}
        return {**level, "advisoryIDs": list(self.advisories)} if self.advisories else level


def sgx_report(*, attributes: int = 0x05, report_data: bytes = HELLO, signer: bytes = bytes(32), svn: int = 0) -> bytes:
    """An enclave's report, 384 bytes."""
    return b"".join(
        (
            CPU_SVN,
            bytes(32),
            attributes.to_bytes(8, "little") + bytes.fromhex("e700000000000000"),
            sha256(b"enclave").digest(),
            bytes(32),
            signer,
            bytes(96),
            struct.pack("<HHH", 1, svn, 0),
            bytes(58),
            report_data,
        )
    )


def td_report(
    *, attributes: int = 1 << 28, report_data: bytes = HELLO, version_15: bool = False, service_td: bytes = bytes(48)
) -> bytes:
    """A trust domain's report of TDX 1.0 (584 bytes) or 1.5 (648 bytes)."""
    registers = b"".join(sha256(name).digest() + bytes(16) for name in (b"td", b"", b"", b"", b"0", b"1", b"2", b"3"))
    report = b"".join(
        (TEE_TCB_SVN, bytes(48 + 48 + 8), struct.pack("<Q", attributes), bytes(8), registers, report_data)
    )
    return report + TEE_TCB_SVN + service_td if version_15 else report


@dataclass(frozen=True)
class Intel:
    """The authorities and one platform. ``changed`` gives another world that differs in the named fields."""

    kind: str = "sgx"
    pck_says: Pck = field(default_factory=Pck)
    platform: Tcb = field(default_factory=Tcb)
    quoting: Tcb = field(default_factory=Tcb)
    tcb_window: tuple[int, int] = (NOW - DAY, NOW + 29 * DAY)
    qe_window: tuple[int, int] = (NOW - DAY, NOW + 28 * DAY)
    pck_crl_window: tuple[int, int] = (NOW - DAY, NOW + 27 * DAY)
    root_crl_window: tuple[int, int] = (NOW - 20 * DAY, NOW + 300 * DAY)
    pck_window: tuple[int, int] = (NOW - 500 * DAY, NOW + 500 * DAY)
    revoked: tuple[str, ...] = ()
    tcb_info_says: tuple[tuple[str, Any], ...] = ()
    root: Party = field(default_factory=lambda: issue("Root CA", None, depth=1))
    made: dict[str, Party] = field(default_factory=dict)

    def changed(self, **fields: Any) -> Intel:
        """The same authorities (a new platform certificate where that is what changes)."""
        for name in ("ca", "signing"):  # made on first use: made later, they would be two
            self.party(name)
        made = fields.pop("made", self.made)
        made = {name: party for name, party in made.items() if name != "pck" or not fields.keys() & _OF_THE_PCK}
        return replace(self, made=made, **fields)

    def party(self, name: str) -> Party:
        """``root``, ``ca`` (issues platforms' certificates), ``signing`` (TCB info), ``pck`` (the platform)."""
        if name == "root":
            return self.root
        if name not in self.made:
            self.made[name] = self._issue(name)
        return self.made[name]

    def _issue(self, name: str) -> Party:
        if name == "ca":
            return issue("PCK Platform CA", self.root, depth=0)
        if name == "signing":
            return issue("TCB Signing", self.root)
        return issue("PCK Certificate", self.party("ca"), window=self.pck_window, extension=self.pck_says.extension())

    @property
    def verifier(self) -> DcapVerifier:
        """One that trusts this root."""
        return DcapVerifier(self.root.der)

    # --- collateral -----------------------------------------------------------------------------------------------

    def tcb_info(self) -> str:
        """JSON as Intel signs it."""
        tcb: dict[str, Any] = {
            "sgxtcbcomponents": [{"svn": svn} for svn in CPU_SVN],
            "pcesvn": 13 + self.platform.svn,
        }
        info: dict[str, Any] = {
            "id": "SGX",
            "version": 3,
            "issueDate": _stamp(self.tcb_window[0]),
            "nextUpdate": _stamp(self.tcb_window[1]),
            "fmspc": self.pck_says.fmspc.hex().upper(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": 17,
        }
        if self.kind == "tdx":
            tcb["tdxtcbcomponents"] = [{"svn": svn} for svn in TEE_TCB_SVN]
            info |= {
                "id": "TDX",
                "tdxModule": {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8},
            }
        return json.dumps({**info, "tcbLevels": [self.platform.level(tcb)], **dict(self.tcb_info_says)})

    def qe_identity(self) -> str:
        """JSON as Intel signs it."""
        return json.dumps(
            {
                "id": "QE" if self.kind == "sgx" else "TD_QE",
                "version": 2,
                "issueDate": _stamp(self.qe_window[0]),
                "nextUpdate": _stamp(self.qe_window[1]),
                "tcbEvaluationDataNumber": 17,
                "miscselect": "00000000",
                "miscselectMask": "FFFFFFFF",
                "attributes": "11000000000000000000000000000000",
                "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
                "mrsigner": QE_SIGNER.hex(),
                "isvprodid": 1,
                "tcbLevels": [self.quoting.level({"isvsvn": 8 + self.quoting.svn})],
            }
        )

    def document(self) -> dict[str, Any]:
        """The collateral as JSON types."""
        ca, signing, root = self.party("ca"), self.party("signing"), self.root
        revoked = [self.party(name) for name in self.revoked]
        tcb_info, qe_identity = self.tcb_info(), self.qe_identity()
        return {
            "pck_crl_issuer_chain": ca.pem + root.pem,
            "root_ca_crl": crl(root, revoked, self.root_crl_window).hex(),
            "pck_crl": crl(ca, revoked, self.pck_crl_window).hex(),
            "tcb_info_issuer_chain": signing.pem + root.pem,
            "tcb_info": tcb_info,
            "tcb_info_signature": signing.sign(tcb_info.encode()).hex(),
            "qe_identity_issuer_chain": signing.pem + root.pem,
            "qe_identity": qe_identity,
            "qe_identity_signature": signing.sign(qe_identity.encode()).hex(),
        }

    def endorsements(self, **changes: Any) -> DcapEndorsements:
        """The collateral; ``changes`` are made to the finished document."""
        return DcapEndorsements(json.dumps({**self.document(), **changes}).encode())

    # --- quotes ---------------------------------------------------------------------------------------------------

    def quote(
        self,
        body: bytes | None = None,
        *,
        version: int | None = None,
        qe: bytes | None = None,
        chain: str | None = None,
    ) -> bytes:
        """A quote over ``body``, by the platform's own certificate."""
        if body is None:
            body = sgx_report() if self.kind == "sgx" else td_report()
        version = version or (3 if self.kind == "sgx" else 4)
        header = struct.pack("<HHI4s16s20s", version, 2, 0 if self.kind == "sgx" else 0x81, bytes(4), VENDOR, bytes(20))
        described = struct.pack("<HI", {584: 2, 648: 3}[len(body)], len(body)) if version == 5 else b""
        signed = header + described + body
        data = self.signature_data(signed, version, qe, chain)
        return signed + struct.pack("<I", len(data)) + data

    def signature_data(self, signed: bytes, version: int, qe: bytes | None, chain: str | None) -> bytes:
        """The attestation key's signature, and what certifies that key."""
        attestation = Party(_ATTESTATION_KEY, self.root.certificate)
        public = _ATTESTATION_KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        authentication = bytes(range(32))
        says = sha256(public + authentication).digest() + bytes(32)
        report = qe or sgx_report(attributes=0x15, report_data=says, signer=QE_SIGNER, svn=8)
        pck = self.party("pck")
        text = pck.pem + self.party("ca").pem + self.root.pem if chain is None else chain
        pem = text.encode() + b"\0"
        certified = report + pck.sign(report) + struct.pack("<H", 32) + authentication
        certified += struct.pack("<HI", 5, len(pem)) + pem
        if version > 3:
            certified = struct.pack("<HI", 6, len(certified)) + certified
        return attestation.sign(signed) + public + certified


_ATTESTATION_KEY = ec.generate_private_key(ec.SECP256R1())
_OF_THE_PCK = {"pck_says", "pck_window"}
