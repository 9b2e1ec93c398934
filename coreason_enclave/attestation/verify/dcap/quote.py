"""Parse an SGX or TDX quote exactly: no byte remains without a meaning.

Layouts: Intel SGX ECDSA QuoteLibReference (quote version 3) and Intel TDX DCAP Quoting Library API (versions 4 and 5).
Parsing authenticates nothing.

- The signature covers only header and body. The parser therefore holds lengths, certificate text and trailing bytes to
  one form.
- A quote ends at the length of its own signature data. Quoting services and kernels return a larger buffer (70 zeros
  from one quoting service; 3,065 on one large cloud), so only zeros may follow the quote.
- One quote has many spellings, because of the zeros and of the terminating NUL of the certificate text. Never recognise
  a quote by its hash.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused

MAX_QUOTE_BYTES = 16 * 1024
"""Maximum size of a quote in bytes, padding included."""

_HEADER = 48
_REPORT = 384
_ECDSA_P256 = 2
_TEE = {0x00: "sgx", 0x81: "tdx"}
_VERSIONS = {"sgx": (3,), "tdx": (4, 5)}
_INTEL = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_TD_BODIES = {2: 584, 3: 648}
"""Body types of quote version 5, with their sizes in bytes: a TD report of TDX 1.0 and of 1.5."""
_QE_REPORT_CERTIFICATION = 6
_PCK_CHAIN = 5
_QE_AUTHENTICATION = 32

_Fields = Mapping[str, tuple[int, int]]

_SGX_FIELDS: _Fields = {
    "cpu_svn": (0, 16),
    "misc_select": (16, 4),
    "isv_ext_prod_id": (32, 16),
    "attributes": (48, 16),
    "mr_enclave": (64, 32),
    "mr_signer": (128, 32),
    "config_id": (192, 64),
    "isv_prod_id": (256, 2),
    "isv_svn": (258, 2),
    "config_svn": (260, 2),
    "isv_family_id": (304, 16),
    "report_data": (320, 64),
}
_SGX_RESERVED = ((20, 12), (96, 32), (160, 32), (262, 42))
_TDX_FIELDS: _Fields = {
    "tee_tcb_svn": (0, 16),
    "mr_seam": (16, 48),
    "mr_signer_seam": (64, 48),
    "seam_attributes": (112, 8),
    "td_attributes": (120, 8),
    "xfam": (128, 8),
    "mr_td": (136, 48),
    "mr_config_id": (184, 48),
    "mr_owner": (232, 48),
    "mr_owner_config": (280, 48),
    "rt_mr0": (328, 48),
    "rt_mr1": (376, 48),
    "rt_mr2": (424, 48),
    "rt_mr3": (472, 48),
    "report_data": (520, 64),
}
_TDX_15_FIELDS: _Fields = {**_TDX_FIELDS, "tee_tcb_svn2": (584, 16), "mr_service_td": (600, 48)}

FIELD_BYTES: Mapping[str, Mapping[str, int]] = {
    "sgx": {name: size for name, (_, size) in _SGX_FIELDS.items()},
    "tdx": {name: size for name, (_, size) in _TDX_15_FIELDS.items()},
}
"""Size of each report field in bytes, by kind and name."""


@dataclass(frozen=True)
class Quote:
    """A quote in its parts.

    Attributes:
        kind: ``sgx`` or ``tdx``.
        version: 3, 4 or 5.
        fields: The report's fields under the names of Intel's headers, raw bytes; integers are little-endian.
        pck_chain: The certificates as the quote carries them, PEM, leaf first, without the terminating NUL.
        raw: The quote without padding.
    """

    kind: str
    version: int
    fields: Mapping[str, bytes]
    pck_chain: bytes
    raw: bytes

    @property
    def report_data(self) -> bytes:
        """The 64 bytes that the enclave or trust domain put into its report."""
        return self.fields["report_data"]


class _Reader:
    """Reader that takes bytes from the front, and refuses to read past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        end = self.position + count
        if end > len(self._data):
            raise _malformed(f"ends at byte {len(self._data)}, inside a field that reaches to {end}")
        taken, self.position = self._data[self.position : end], end
        return taken

    def number(self, layout: str) -> int:
        """Return the next integer, ``<H`` or ``<I``."""
        value: int = struct.unpack(layout, self.take(struct.calcsize(layout)))[0]
        return value

    def rest(self) -> bytes:
        """Return all remaining bytes."""
        return self.take(len(self._data) - self.position)


def parse_quote(evidence: bytes) -> Quote:
    """Parse a quote; raises :class:`VerificationRefused` (oversized, malformed)."""
    if len(evidence) > MAX_QUOTE_BYTES:
        raise VerificationRefused(Refusal.OVERSIZED, f"a quote of {len(evidence)} bytes; limit {MAX_QUOTE_BYTES} bytes")
    return _parse(evidence)


def without_padding(evidence: bytes) -> bytes:
    """Return the quote without trailing zeros; return any other bytes unchanged.

    For a host that forwards its own quote; judging the quote remains the verifier's task. The buffer may be larger than
    :data:`MAX_QUOTE_BYTES`.
    """
    try:
        return _parse(evidence).raw
    except VerificationRefused:
        return evidence


def _parse(evidence: bytes) -> Quote:
    reader = _Reader(evidence)
    kind, version = _header(reader.take(_HEADER))
    length, layout = _body_layout(reader, kind, version)
    body = reader.take(length)
    chain = _signature_data(reader.take(reader.number("<I")), version)
    raw = evidence[: reader.position]
    if any(rest := reader.rest()):
        raise _malformed(f"{len(rest)} bytes after its end are outside the signature, and not all zero")
    if kind == "sgx":
        _reserved_is_zero(body)
    fields = {name: body[start : start + size] for name, (start, size) in layout.items()}
    return Quote(kind, version, fields, chain, raw)


def _header(header: bytes) -> tuple[str, int]:
    version, key_type, tee_type, reserved, vendor = struct.unpack("<HHI4s16s", header[:28])
    kind = _TEE.get(tee_type)
    if kind is None or version not in _VERSIONS[kind]:
        raise _malformed(f"version {version} of TEE type {tee_type:#x} is neither an SGX nor a TDX quote known here")
    if key_type != _ECDSA_P256:
        raise _malformed(f"attestation key type {key_type}; only ECDSA over P-256 (2) is verified")
    if vendor != _INTEL:
        raise _malformed("the quoting enclave belongs to another vendor")
    if version > 3 and any(reserved):
        raise _malformed("reserved bytes of its header are set")
    return kind, version


def _body_layout(reader: _Reader, kind: str, version: int) -> tuple[int, _Fields]:
    if kind == "sgx":
        return _REPORT, _SGX_FIELDS
    if version == 4:
        return _TD_BODIES[2], _TDX_FIELDS
    body_type, size = reader.number("<H"), reader.number("<I")
    if size != _TD_BODIES.get(body_type):
        raise _malformed(f"a body of type {body_type} with {size} bytes is not a TD report of TDX 1.0 or 1.5")
    return size, _TDX_FIELDS if body_type == 2 else _TDX_15_FIELDS


def _signature_data(data: bytes, version: int) -> bytes:
    """Skip signature, attestation key and the quoting enclave's own report; return the certificates' text."""
    reader = _Reader(data)
    reader.take(64 + 64)
    if version > 3:
        reader = _Reader(_last_block(reader, _QE_REPORT_CERTIFICATION))
    _reserved_is_zero(reader.take(_REPORT))
    reader.take(64)
    if reader.number("<H") != _QE_AUTHENTICATION:
        raise _malformed(f"the quoting enclave's authentication data has to be {_QE_AUTHENTICATION} bytes")
    reader.take(_QE_AUTHENTICATION)
    return _last_block(reader, _PCK_CHAIN).removesuffix(b"\0")


def _last_block(reader: _Reader, expected: int) -> bytes:
    """Return a typed block, which must fill the remaining bytes."""
    kind = reader.number("<H")
    if kind != expected:
        raise _malformed(f"certification data has type {kind} instead of {expected}")
    size = reader.number("<I")
    data = reader.rest()
    if size != len(data):
        raise _malformed(f"certification data states {size} bytes, but has {len(data)}")
    return data


def _reserved_is_zero(report: bytes) -> None:
    if any(any(report[start : start + size]) for start, size in _SGX_RESERVED):
        raise _malformed("reserved bytes of an enclave's report are set")


def _malformed(message: str) -> VerificationRefused:
    return VerificationRefused(Refusal.MALFORMED, f"not an exact quote: {message}")
