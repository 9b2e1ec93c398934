"""Parse the certificate table that a hypervisor hands to a SEV-SNP guest with a report.

Layout: SEV-ES Guest-Hypervisor Communication Block Standardization (AMD 56421), section 4.1.8.1:

1. Entries of 24 bytes: GUID (byte order as written), offset, length; numbers are little-endian.
2. A final entry of zeros.
3. The certificates.

The host writes the table without a signature. The verifier checks each certificate like any other claim to be AMD's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from uuid import UUID

from coreason_enclave.hardware.collectors import unavailable

_ENTRY = struct.Struct("<16sII")
_END = bytes(_ENTRY.size)
_MAX_ENTRIES = 16
_CERTIFICATES = {
    UUID("63da758d-e664-4564-adc5-f4b93be8accd").bytes,  # VCEK
    UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1").bytes,  # VLEK
    UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782").bytes,  # ASK or ASVK
    UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae").bytes,  # ARK
}


def parse_certificate_table(table: bytes) -> tuple[bytes, ...]:
    """Return the certificates of AMD's own kinds in table order; skip entries of other kinds.

    Args:
        table: Raw table; empty or all zero if the host hands over no certificates.

    Raises:
        AttestationError: The table has no end marker, an entry occurs twice, or an entry is empty or points outside the
            table, into the entry list or into another entry's bytes.
    """
    if not any(table):
        return ()
    entries = list(_entries(table))
    _require_apart(entries, len(table))
    certificates = [(guid, table[start:end]) for guid, start, end in entries if guid in _CERTIFICATES]
    return tuple(certificate for _, certificate in certificates)


def _entries(table: bytes) -> Iterator[tuple[bytes, int, int]]:
    for number in range(_MAX_ENTRIES + 1):
        raw = table[number * _ENTRY.size : (number + 1) * _ENTRY.size]
        if raw == _END:
            return
        if len(raw) < _ENTRY.size:
            break
        guid, offset, length = _ENTRY.unpack(raw)
        yield guid, offset, offset + length
    raise _malformed(f"the table has no end within {_MAX_ENTRIES} entries")


def _require_apart(entries: list[tuple[bytes, int, int]], size: int) -> None:
    if len({guid for guid, _, _ in entries}) != len(entries):
        raise _malformed("the table has an entry twice")
    free_from = (len(entries) + 1) * _ENTRY.size
    for _, start, end in sorted(entries, key=lambda entry: entry[1:]):
        if start == end or start < free_from or end > size:
            raise _malformed(f"bytes {start} to {end} of {size} do not delimit a certificate")
        free_from = end


def _malformed(message: str) -> Exception:
    return unavailable(f"the host's certificate table is malformed: {message}")
