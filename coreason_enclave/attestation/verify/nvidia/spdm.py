"""The attestation report of an H100: an SPDM GET_MEASUREMENTS request, and the device's signed response (DSP0274 1.1).

::

    request   37   version 11, code e0, param1 01 (signed), param2 ff (all), nonce 32, slot 0
    response   8   version 11, code 60, param1 0, param2 0 (slot), number of blocks, length of the record (3 bytes)
               n   blocks of 55 bytes: index from 1, specification 1 (DMTF), length 51, type 1, length 48, SHA-384
              32   the responder's own nonce
             2+m   opaque data: length, then fields (see :mod:`.opaque`)
              96   ECDSA P-384 with SHA-384 over everything before it: r, s, big-endian

Numbers are little-endian except in the signature.
"""

from __future__ import annotations

from dataclasses import dataclass

from coreason_enclave.attestation.verify.nvidia.opaque import OpaqueData, parse_opaque
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused

MAX_REPORT_BYTES = 8 * 1024
"""Maximum size of a report in bytes, as in NVML."""

REQUEST_BYTES = 37
SIGNATURE_BYTES = 96
BLOCKS = 64
_NONCE_BYTES = 32
_DIGEST_BYTES = 48
_BLOCK_BYTES = 7 + _DIGEST_BYTES
_REQUEST_HEADER = bytes.fromhex("11e001ff")
_SLOT = b"\x00"
_RESPONSE_HEADER = bytes.fromhex("11600000") + bytes([BLOCKS]) + (BLOCKS * _BLOCK_BYTES).to_bytes(3, "little")


@dataclass(frozen=True)
class MeasurementReport:
    """A parsed report with an unverified signature.

    Attributes:
        nonce: The requester's nonce, 32 bytes.
        measurements: 64 SHA-384 digests; number n is SPDM's block n + 1, and number n in manifests.
        signed: The bytes under the signature.
        signature: r and s, 48 bytes each.
    """

    nonce: bytes
    measurements: tuple[bytes, ...]
    opaque: OpaqueData
    signed: bytes
    signature: bytes


def parse_report(data: bytes) -> MeasurementReport:
    """Parse a report without trailing bytes; raises :class:`VerificationRefused`."""
    if len(data) > MAX_REPORT_BYTES:
        raise VerificationRefused(Refusal.OVERSIZED, f"a report of {len(data)} bytes is larger than {MAX_REPORT_BYTES}")
    reader = _ByteReader(data)
    reader.expect(_REQUEST_HEADER, "the header of the SPDM request")
    nonce = reader.take(_NONCE_BYTES)
    reader.expect(_SLOT, "the slot of the SPDM request")
    reader.expect(_RESPONSE_HEADER, f"the header of an SPDM response with {BLOCKS} measurements")
    measurements = tuple(_block(reader, index) for index in range(1, BLOCKS + 1))
    reader.take(_NONCE_BYTES)
    opaque = parse_opaque(reader.take(int.from_bytes(reader.take(2), "little")))
    signature = reader.take(SIGNATURE_BYTES)
    reader.end()
    return MeasurementReport(nonce, measurements, opaque, data[:-SIGNATURE_BYTES], signature)


def _block(reader: _ByteReader, index: int) -> bytes:
    header = bytes([index, 0x01, _DIGEST_BYTES + 3, 0])
    reader.expect(header, f"the header of measurement block {index}")
    reader.expect(bytes([0x01, _DIGEST_BYTES, 0]), f"the type of measurement block {index}")
    return reader.take(_DIGEST_BYTES)


class _ByteReader:
    """Reader that takes bytes from the front of a report."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise VerificationRefused(Refusal.MALFORMED, f"the report ends at {len(self._data)}, before byte {end}")
        part, self._at = self._data[self._at : end], end
        return part

    def expect(self, constant: bytes, what: str) -> None:
        at = self._at
        if self.take(len(constant)) != constant:
            raise VerificationRefused(Refusal.MALFORMED, f"byte {at} of the report is not {what}")

    def end(self) -> None:
        if self._at != len(self._data):
            raise VerificationRefused(Refusal.MALFORMED, f"{len(self._data) - self._at} bytes follow the report")
