"""Ledger heads and whole exports, signed by their site.

The site signs its head; the coordinator keeps the head and shows it back later. The reason: a ledger restored from an
older copy cannot detect its own loss. A head that the site signed later, unknown to the restored ledger, reveals the
loss. Only heads with the site's own signature count: a coordinator can show a received head, and cannot stop a site
with a made-up head.

An auditor of a run receives an export. Anyone can rebuild a bare hash chain; the signature makes the export the site's
own statement.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from coreason_enclave.crypto import KeyRing, Signer, open_envelope, parse_json, seal, sha256_hex
from coreason_enclave.errors import EnvelopeError, LedgerError, Reason
from coreason_enclave.ledger.interface import PrivacyLedger
from coreason_enclave.ledger.records import LedgerHead
from coreason_enclave.schemas import HexDigest, UnixSeconds
from coreason_enclave.wire import HEAD_TYPE, LedgerHeadStatement, SiteDocument, SiteLedgerHead

EXPORT_TYPE = "application/vnd.aegis.ledger-export.v1+json"
_LARGEST_EXPORT = 1 << 30


class LedgerExportStatement(SiteDocument):
    """A site's statement: the export with this SHA-256 holds its whole ledger up to ``head``."""

    described: ClassVar[str] = "a statement over a ledger export"

    head: LedgerHeadStatement
    export_digest: HexDigest
    exported_at: UnixSeconds


def seal_head(head: LedgerHead, site_id: str, signer: Signer) -> str:
    """Return the envelope of ``head``, signed by its site."""
    statement = SiteLedgerHead(site_id=site_id, head=LedgerHeadStatement(seq=head.seq, hash=head.hash))
    return seal(HEAD_TYPE, statement.canonical(), signer).decode()


def open_head(envelope: str, site_id: str, public_key: str) -> LedgerHead:
    """Return the head in an envelope that ``site_id`` signed with ``public_key`` (Ed25519, hex).

    Raises:
        EnvelopeError: malformed, signed by another key, or for another site's name.
    """
    opened = open_envelope(envelope.encode(), HEAD_TYPE, KeyRing({site_id: public_key}))
    statement = SiteLedgerHead.from_payload(opened.payload)
    if statement.site_id != site_id:
        raise EnvelopeError(f"the ledger head of another site: {statement.site_id}", reason=Reason.NOT_ADDRESSED_TO_ME)
    return LedgerHead(seq=statement.head.seq, hash=statement.head.hash)


def require_known(head: LedgerHead, ledger: PrivacyLedger, ledger_file: Path) -> None:
    """Raise unless ``ledger`` knows ``head``, a head that its own site signed.

    Raises:
        LedgerError: with reason ``ledger_rolled_back``; the message gives the command to run at the site.
    """
    if ledger.knows(head):
        return
    raise LedgerError(
        f"the ledger lacks entry {head.seq}, whose head this site signed: it was replaced or rolled back, and lacks "
        "privacy spent since. Restore the newest copy. If it is lost, a person takes responsibility: coreason-enclave "
        f"ledger acknowledge {ledger_file} --head {head.seq}:{head.hash} --by NAME --why TEXT",
        reason=Reason.LEDGER_ROLLED_BACK,
    )


def seal_export(export: bytes, site_id: str, signer: Signer, *, now: float) -> bytes:
    """Return an envelope in which ``site_id`` signs ``export`` as its ledger; ``now`` in Unix seconds."""
    statement = LedgerExportStatement(
        site_id=site_id,
        head=LedgerHeadStatement(**parse_json(export, limit=_LARGEST_EXPORT)["head"]),
        export_digest=sha256_hex(export),
        exported_at=int(now),
    )
    return seal(EXPORT_TYPE, statement.canonical(), signer)


def open_export(envelope: bytes, export: bytes, site_id: str, public_key: str) -> LedgerExportStatement:
    """Return the statement that ``site_id`` signed with ``public_key`` (Ed25519, hex) over exactly these export bytes.

    Raises:
        EnvelopeError: malformed, signed by another key, for another site's name, or over another export.
    """
    opened = open_envelope(envelope, EXPORT_TYPE, KeyRing({site_id: public_key}))
    statement = LedgerExportStatement.from_payload(opened.payload)
    if statement.site_id != site_id:
        raise EnvelopeError(f"the export of another site: {statement.site_id}", reason=Reason.NOT_ADDRESSED_TO_ME)
    if statement.export_digest != sha256_hex(export):
        raise EnvelopeError("the site signed another export", reason=Reason.WRONG_DIGEST)
    return statement
