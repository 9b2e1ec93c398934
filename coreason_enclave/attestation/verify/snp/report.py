"""Parse ATTESTATION_REPORT (AMD 56860) byte by byte. Parsing proves nothing; :mod:`.report_verifier` verifies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused

REPORT_BYTES = 0x4A0
SIGNED_BYTES = 0x2A0

_MAX_BYTES = 4096  # longer input is refused as oversized
_VERSIONS = (2, 3, 5)
_ECDSA_P384_SHA384 = 1
_WORD = 72  # r and s, little-endian, of which P-384 uses 48
_CURVE_BYTES = 48
_NO_MIGRATION_AGENT = b"\xff" * 32

_POLICY_RESERVED_ONE = 17
GUEST_POLICY_BITS: Mapping[str, int] = {
    "smt_allowed": 16,
    "migration_agent_allowed": 18,
    "debug_allowed": 19,
    "single_socket": 20,
    "cxl_allowed": 21,
    "memory_aes_256_xts": 22,
    "rapl_disabled": 23,
    "ciphertext_hiding": 24,
    "page_swap_disabled": 25,
}
PLATFORM_BITS: Mapping[str, int] = {
    "smt_enabled": 0,
    "tsme_enabled": 1,
    "ecc_enabled": 2,
    "rapl_disabled": 3,
    "ciphertext_hiding_enabled": 4,
    "alias_check_complete": 5,
    "iommu_write_safe": 6,
    "tio_enabled": 7,
}

# Ranges reserved in every version; then (version, start, end) of ranges reserved in earlier versions.
_RESERVED = ((0x4C, 0x50), (0x18B, 0x1A0), (0x1EB, 0x1EC), (0x1EF, 0x1F0), (0x208, 0x2A0), (0x330, 0x4A0))
_RESERVED_BEFORE = ((3, 0x188, 0x18B), (5, 0x1F8, 0x208))


class SigningKey(StrEnum):
    """The processor's key that signed: the chip's own (VCEK), or one loaded for a cloud provider (VLEK)."""

    VCEK = "VCEK"
    VLEK = "VLEK"


_SIGNING_KEYS: Mapping[int, SigningKey] = {0: SigningKey.VCEK, 1: SigningKey.VLEK}


class _Bytes:
    """A field that holds the report's bytes from ``start`` to before ``end``."""

    def __init__(self, start: int, end: int) -> None:
        self._place = slice(start, end)

    def __get__(self, report: SnpReport, owner: type[SnpReport]) -> bytes:
        return report.raw[self._place]


@dataclass(frozen=True)
class SnpReport:
    """A well-formed report. TCB versions stay raw, since their layout depends on the product.

    Attributes:
        cpuid: Family, model, stepping; None before version 3.
        mitigations: Launch and current mitigation vector; None before version 5.
    """

    raw: bytes
    version: int
    policy: int
    vmpl: int
    platform_info: int
    signing_key: SigningKey
    author_key: bool
    cpuid: tuple[int, int, int] | None
    mitigations: tuple[int, int] | None

    family_id = _Bytes(0x10, 0x20)
    image_id = _Bytes(0x20, 0x30)
    report_data = _Bytes(0x50, 0x90)
    """Data that the guest chose."""
    measurement = _Bytes(0x90, 0xC0)
    """Launch digest."""
    host_data = _Bytes(0xC0, 0xE0)
    id_key_digest = _Bytes(0xE0, 0x110)
    author_key_digest = _Bytes(0x110, 0x140)
    report_id = _Bytes(0x140, 0x160)
    chip_id = _Bytes(0x1A0, 0x1E0)
    """All zero from a host that masks it."""

    @property
    def signed(self) -> bytes:
        """The bytes under the signature."""
        return self.raw[:SIGNED_BYTES]

    def signature(self) -> bytes:
        """Return the ECDSA signature as DER."""
        r, s = (self.raw[at : at + _WORD] for at in (SIGNED_BYTES, SIGNED_BYTES + _WORD))
        return encode_dss_signature(int.from_bytes(r, "little"), int.from_bytes(s, "little"))

    @property
    def guest_svn(self) -> int:
        return _number(self.raw, 0x04, 4)

    @property
    def has_migration_agent(self) -> bool:
        """True if the guest is tied to a migration agent, whatever its policy says."""
        return self.raw[0x160:0x180] != _NO_MIGRATION_AGENT

    @property
    def raw_tcbs(self) -> dict[str, bytes]:
        """The four TCB versions; AMD derived the signing key from ``reported``."""
        offsets = {"current": 0x38, "reported": 0x180, "committed": 0x1E0, "launch": 0x1F0}
        return {name: self.raw[at : at + 8] for name, at in offsets.items()}

    @property
    def firmware(self) -> dict[str, str]:
        """Version of the SNP firmware, ``major.minor.build``."""
        offsets = {"current": 0x1E8, "committed": 0x1EC}
        return {name: f"{self.raw[at + 2]}.{self.raw[at + 1]}.{self.raw[at]}" for name, at in offsets.items()}


def bits_set(value: int, names: Mapping[str, int]) -> dict[str, bool]:
    """Return the state of each named bit of ``value``."""
    return {name: bool(value >> bit & 1) for name, bit in names.items()}


def parse_report(raw: bytes) -> SnpReport:
    """Parse a report of exactly 1184 bytes, and check its reserved bytes; raises :class:`VerificationRefused`."""
    if len(raw) > _MAX_BYTES:
        raise VerificationRefused(Refusal.OVERSIZED, f"{len(raw)} bytes are not an SEV-SNP report")
    if len(raw) != REPORT_BYTES:
        raise _malformed(f"it has {len(raw)} bytes, not {REPORT_BYTES}")
    version = _number(raw, 0x00, 4)
    if version not in _VERSIONS:
        raise _malformed(f"version {version} is not one of {_VERSIONS}")
    if _number(raw, 0x34, 4) != _ECDSA_P384_SHA384:
        raise _malformed("its signature algorithm is not ECDSA P-384 with SHA-384")
    _check_reserved(raw, version)
    signing_key, author_key = _key_info(_number(raw, 0x48, 4))
    return SnpReport(
        raw=bytes(raw),
        version=version,
        policy=_guest_policy(_number(raw, 0x08, 8)),
        vmpl=_number(raw, 0x30, 4),
        platform_info=_platform_info(_number(raw, 0x40, 8)),
        signing_key=signing_key,
        author_key=author_key,
        cpuid=(raw[0x188], raw[0x189], raw[0x18A]) if version >= 3 else None,
        mitigations=(_number(raw, 0x1F8, 8), _number(raw, 0x200, 8)) if version >= 5 else None,
    )


def _check_reserved(raw: bytes, version: int) -> None:
    unused = [(start + _CURVE_BYTES, start + _WORD) for start in (SIGNED_BYTES, SIGNED_BYTES + _WORD)]
    before = [(start, end) for first, start, end in _RESERVED_BEFORE if version < first]
    for start, end in (*_RESERVED, *before, *unused):
        if any(raw[start:end]):
            raise _malformed(f"reserved bytes at {start:#x} are not zero")


def _guest_policy(policy: int) -> int:
    known = 0xFFFF | 1 << _POLICY_RESERVED_ONE | sum(1 << bit for bit in GUEST_POLICY_BITS.values())
    if policy & ~known or not policy >> _POLICY_RESERVED_ONE & 1:
        raise _malformed(f"its guest policy {policy:#x} has reserved bits wrong")
    return policy


def _platform_info(info: int) -> int:
    if info & ~sum(1 << bit for bit in PLATFORM_BITS.values()):
        raise _malformed(f"its platform information {info:#x} has reserved bits set")
    return info


def _key_info(info: int) -> tuple[SigningKey, bool]:
    """Return the signing key, and True for a used author key. Bit 1, ignored here: the host masks the chip's key."""
    which = info >> 2 & 0b111
    if info >> 5 or which not in _SIGNING_KEYS:
        raise _malformed(f"its key information {info:#x} names no key that signs, or has reserved bits set")
    return _SIGNING_KEYS[which], bool(info & 1)


def _number(raw: bytes, start: int, count: int) -> int:
    return int.from_bytes(raw[start : start + count], "little")


def _malformed(what: str) -> VerificationRefused:
    return VerificationRefused(Refusal.MALFORMED, f"not an SEV-SNP report: {what}")
