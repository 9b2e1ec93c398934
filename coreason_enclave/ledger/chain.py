"""The ledger's hash chain: each entry's hash covers its number, its bytes and the preceding entry's hash.

The chain hashes stored bytes as they are and never re-serialises them, so reading cannot change the verified content.

A chain reveals a changed, missing or swapped entry. A chain cannot reveal a cut-off end: only a head kept elsewhere can
(:meth:`~coreason_enclave.ledger.interface.PrivacyLedger.knows`).
"""

from __future__ import annotations

from dataclasses import dataclass

from coreason_enclave.crypto import digest
from coreason_enclave.errors import LedgerCorrupted
from coreason_enclave.ledger.records import LedgerHead

GENESIS = "0" * 64
_DOMAIN = "coreason.ledger.entry/1"


@dataclass(frozen=True)
class Link:
    """One stored row. ``prev`` and ``hash`` are 64 hex digits, ``payload`` is canonical JSON."""

    seq: int
    prev: str
    payload: bytes
    hash: str

    @property
    def head(self) -> LedgerHead:
        """Return the ledger's head for a chain that ends with this row."""
        return LedgerHead(seq=self.seq, hash=self.hash)


def make_link(head: LedgerHead | None, payload: bytes) -> Link:
    """Return the row that follows ``head`` (None: the first row)."""
    seq, prev = (0, GENESIS) if head is None else (head.seq + 1, head.hash)
    return Link(seq, prev, payload, _hash(seq, prev, payload))


def check_link(head: LedgerHead | None, link: Link) -> None:
    """Raise :class:`LedgerCorrupted` unless ``link`` exactly follows ``head``."""
    expected = make_link(head, link.payload)
    if (link.seq, link.prev, link.hash) != (expected.seq, expected.prev, expected.hash):
        raise LedgerCorrupted(
            f"the ledger's hash chain breaks at entry {expected.seq}: entries were changed, reordered or removed. "
            "The ledger refuses to spend until a person has compared it with the last export"
        )


def _hash(seq: int, prev: str, payload: bytes) -> str:
    return digest(_DOMAIN, seq.to_bytes(8, "big"), bytes.fromhex(prev), payload).hex()
